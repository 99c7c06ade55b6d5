/*
 * Models that a stage reads: what another stage left, or a file. Files must fit the data, by shape and by the names of
 * classes; fingerprints have the digest of a file, not its name. What training starts from must also be of the network
 * that is trained. Models that only answer, in the cascade, are cascade_inputs.c.
 */
#include <stdio.h>
#include <string.h>

#include "fedstill/infer.h"
#include "session.h"

fst_status fst__file_digest(const struct session *s, const char *file, char digest[FST_DIGEST_HEX], fst_error *err)
{
    char *path = fst_path_join(s->task->folder, file);
    if (!path)
        return fst_fail_memory(err, strlen(file));
    if (fst_sha256_file(path, digest, NULL)) /* checks and steps say what is wrong with it */
        digest[0] = 0;
    fst_free(path);
    return FST_OK;
}

fst_status fst__open_model_file(const struct session *s, const char *key, const char *file, fst_model *out,
                                fst_error *err)
{
    fst_model m = {0};
    char *path = fst_path_join(s->task->folder, file);
    fst_status st = path ? fst__load_model(path, NULL, &m, NULL, err) : fst_fail_memory(err, strlen(file));
    if (!st)
        st = fst_model_check_source(&m, path, s->data.train, err);
    if (!st && m.classes != s->data.train->classes)
        st = fst_fail(err, FST_E_MISMATCH, "%s has %d classes, the data have %d", path, m.classes,
                      s->data.train->classes);
    fst_free(path);
    if (st) {
        fst_model_release(&m);
        return fst_fail_in(err, st == FST_E_MISMATCH ? FST_E_CONFIG : st, "%s", key);
    }
    *out = m;
    return FST_OK;
}

static bool same_parameters(const fst_graph *a, const fst_graph *b)
{
    bool same = fst_graph_param_count(a) == fst_graph_param_count(b) &&
                fst_graph_buffer_count(a) == fst_graph_buffer_count(b) &&
                fst_graph_counters(a) == fst_graph_counters(b) && fst_graph_params(a) == fst_graph_params(b);
    for (size_t i = 0; same && i < fst_graph_params(a); i++) {
        fst_param_info x = fst_graph_param(a, i), y = fst_graph_param(b, i);
        same = !strcmp(x.name, y.name) && fst_shape_equal(&x.shape, &y.shape);
    }
    return same;
}

static bool same_numbers(const fst_model *m, const fst_transform *t)
{
    return m->channels == t->channels && !memcmp(m->mean, t->mean, (size_t)t->channels * sizeof *t->mean) &&
           !memcmp(m->std, t->std, (size_t)t->channels * sizeof *t->std);
}

/* A text that may be the name of a stage is one that the task does not have, unless there is such a file. What cannot
 * be read for other reasons is told by whoever reads it. */
static fst_status check_name(const struct session *s, const char *key, const char *text, fst_error *err)
{
    const char *guess = fst__stage_guess(&s->task->stages, text);
    char *path = fst__is_name(text) ? fst_path_join(s->task->folder, text) : NULL;
    fst_status st = FST_OK;
    if (path && !fst_file_exists(path))
        st = fst_fail(err, FST_E_CONFIG, "%s: \"%s\" is no stage of the task%s%s%s, and there is no such model file",
                      key, text, guess ? " (did you mean \"" : "", guess ? guess : "", guess ? "\"?)" : "");
    fst_free(path);
    return st;
}

fst_status fst__read_model(const struct session *s, const struct step *own, const char *key, size_t i, fst_model *out,
                           char digest[FST_DIGEST_HEX], fst_error *err)
{
    char full[96];
    const struct step *other = fst__step_read(s, own, key, i);
    const char *file = fst__stage_file(own->stage, key, i);
    if (other) {
        if (digest)
            memcpy(digest, other->record.digest, sizeof other->record.digest);
        return fst__load_step_model(s, other, out, err);
    }
    fst__stage_key(own->stage, key, full, sizeof full);
    fst_status st = check_name(s, full, file, err);
    if (!st)
        st = fst__open_model_file(s, full, file, out, err);
    return st || !digest ? st : fst__file_digest(s, file, digest, err);
}

static bool same_transform(const fst_transform *a, const fst_transform *b)
{
    bool same = a->channels == b->channels && a->fingerprint == b->fingerprint;
    for (int i = 0; same && i < a->channels; i++)
        same = a->mean[i] == b->mean[i] && a->std[i] == b->std[i];
    return same;
}

/* Its accuracy here is measured on samples as the task has them. */
fst_status fst__read_f32(const struct session *s, const struct step *own, const char *key, const char *refusal,
                         fst_model *out, fst_error *err)
{
    char full[96];
    fst_model m;
    fst_status st = fst__read_model(s, own, key, 0, &m, NULL, err);
    if (st)
        return st;
    fst__stage_key(own->stage, key, full, sizeof full);
    fst_transform of_model = fst_model_transform(&m);
    if (fst_model_is_int8(&m))
        st = fst_fail(err, FST_E_CONFIG, "%s: is an int8 model%s", full, refusal);
    else if (!same_transform(&of_model, &s->data.transform))
        st = fst_fail(err, FST_E_CONFIG, "%s: was trained with another normalisation or fingerprint than data has",
                      full);
    if (st) {
        fst_model_release(&m);
        return st;
    }
    *out = m;
    return FST_OK;
}

/* ---- what training starts from -------------------------------------------------------------------------- */

/* Whether parameters of another network may be taken. Not every kind has the setting. */
static bool takes_matching(const struct stage *own)
{
    const fst__field *f = fst__find_field(own->kind->schema, "init_matching");
    return f && fst__is_set(f, own->settings) && ((const struct training *)own->settings)->init_matching;
}

struct span { /* named tensors of a state, in one span */
    size_t count;
    fst_param_info (*at)(const fst_graph *g, size_t i);
    const float *from;
    float *to;
};

/* Copies tensors of equal name and shape; returns how many. */
static size_t copy_matching(const fst_graph *to, const fst_graph *from, size_t from_count, const struct span *s)
{
    size_t copied = 0;
    for (size_t i = 0; i < s->count; i++) {
        fst_param_info a = s->at(to, i);
        for (size_t k = 0; k < from_count; k++) {
            fst_param_info b = s->at(from, k);
            if (strcmp(a.name, b.name) || !fst_shape_equal(&a.shape, &b.shape))
                continue;
            memcpy(s->to + a.offset, s->from + b.offset, a.count * sizeof *s->to);
            copied++;
        }
    }
    return copied;
}

static fst_status start_matching(const struct step *own, const fst_model *from, const char *name, fst_model *model,
                                 fst_error *err)
{
    const fst_graph *a = model->graph, *b = from->graph;
    const struct span params = {fst_graph_params(a), fst_graph_param, from->state.params, model->state.params};
    const struct span buffers = {fst_graph_buffers(a), fst_graph_buffer, from->state.buffers, model->state.buffers};
    char key[96];
    size_t copied = copy_matching(a, b, fst_graph_params(b), &params);
    fst__stage_key(own->stage, "init", key, sizeof key);
    if (!copied)
        return fst_fail(err, FST_E_CONFIG, "%s: %s (%s) has no parameter of a name and shape that %s has", key, name,
                        from->arch, model->arch);
    (void)copy_matching(a, b, fst_graph_buffers(b), &buffers);
    fst_log(FST_LOG_INFO, "%s: %zu of %zu tensors of parameters are those of %s, the others are random", key, copied,
            params.count, name);
    return FST_OK;
}

/* Has it the network that is trained, and does it see what is trained on? */
static fst_status check_fits(const struct session *s, const struct step *own, const fst_model *from, const char *name,
                             const fst_model *model, fst_error *err)
{
    char key[96];
    fst__stage_key(own->stage, "init", key, sizeof key);
    fst_status f32 = fst_model_need_f32(from, name, "cannot be trained", err);
    if (f32)
        return fst_fail_in(err, FST_E_CONFIG, "%s", key);
    bool same = !strcmp(from->arch, model->arch) && same_parameters(from->graph, model->graph);
    if (!same && !takes_matching(own->stage))
        return fst_fail(err, FST_E_CONFIG, "%s: %s is a %s%s: the stage trains %s", key, name, from->arch,
                        strcmp(from->arch, model->arch) ? "" : " with other options", model->arch);
    if (from->fingerprint != s->data.transform.fingerprint)
        return fst_fail(err, FST_E_CONFIG, "%s: %s learnt from %s: set data.fingerprint: %s", key, name,
                        from->fingerprint ? "fingerprints" : "samples, not from their fingerprints",
                        from->fingerprint ? "true" : "false");
    if (!same_numbers(from, &s->data.transform))
        fst_log(FST_LOG_WARN, "%s: %s was trained with another normalisation than data.normalise", key, name);
    return FST_OK;
}

fst_status fst__start_from(const struct session *s, const struct step *own, fst_model *model, bool *from,
                           fst_error *err)
{
    const struct stage *other = fst__stage_read(own->stage, "init", 0);
    fst_model start;
    bool given = fst__stage_reads(own->stage, "init") > 0;
    if (from)
        *from = given;
    if (!given)
        return FST_OK;
    fst_status st = fst__read_model(s, own, "init", 0, &start, NULL, err);
    if (st)
        return st;
    const char *name = other ? other->name : fst__stage_file(own->stage, "init", 0);
    st = check_fits(s, own, &start, name, model, err);
    if (!st && takes_matching(own->stage))
        st = start_matching(own, &start, name, model, err);
    else if (!st)
        fst_state_copy(&model->state, &start.state);
    fst_model_release(&start);
    return st;
}

fst_status fst__check_init(const struct session *s, const struct step *own, fst_error *err)
{
    const struct stage *other = fst__stage_read(own->stage, "init", 0);
    const char *network = own->stage->kind->network(own->stage);
    const char *theirs = other ? other->kind->network(other) : NULL;
    char key[96];
    fst_model m;
    if (theirs && strcmp(network, theirs) && !takes_matching(own->stage))
        return fst_fail(err, FST_E_CONFIG, "%s: %s is a %s, but the stage trains %s: set model or init",
                        fst__stage_key(own->stage, "init", key, sizeof key), other->name, theirs, network);
    if (!fst__stage_file(own->stage, "init", 0))
        return FST_OK;
    fst_status st = fst__new_model(&s->data, network, &m, err);
    if (st)
        return st;
    st = fst__start_from(s, own, &m, NULL, err);
    fst_model_release(&m);
    return st;
}

/*
 * Models that come as files and not from a stage: a teacher, or what training starts from. They must fit the data, by
 * shape and by the names of classes; fingerprints have the digest of a file, not its name. Models that only answer, in
 * the cascade, are cascade_inputs.c.
 */
#include <string.h>

#include "fedstill/infer.h"
#include "session.h"

const char *fst__teacher_file(const struct task_file *f)
{
    return f->stages.cloud_kd.teacher;
}

/* ---- what the rounds start from -------------------------------------------------------------------- */

enum step fst__init_step(const struct task_file *f)
{
    static const enum step steps[] = {STEP_DISTIL, STEP_ALONE, STEP_PRETRAIN};
    const char *init = f->stages.federated_train.init;
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (!strcmp(init, fst__step_names[steps[i]]))
            return steps[i];
    return STEPS;
}

const char *fst__init_file(const struct task_file *f)
{
    const char *init = f->stages.federated_train.init;
    return fst__init_step(f) == STEPS && strcmp(init, "random") ? init : NULL;
}

/* ---- files ------------------------------------------------------------------------------------------- */

fst_status fst__add_file(const struct session *s, const char *what, const char *file, fst_buf *text, fst_error *err)
{
    char digest[FST_DIGEST_HEX];
    fst_status st = fst__file_digest(s, file, digest, err);
    return st ? st : fst_buf_printf(text, err, "%s=%s\n", what, digest);
}

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
        st = fst_model_check_source(&m, path, s->train, err);
    if (!st && m.classes != s->train->classes)
        st = fst_fail(err, FST_E_MISMATCH, "%s has %d classes, the data have %d", path, m.classes, s->train->classes);
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

fst_status fst__start_from(const struct session *s, const char *key, const char *file, fst_model *model, fst_error *err)
{
    fst_model from;
    fst_status st = fst__open_model_file(s, key, file, &from, err);
    if (st)
        return st;
    if (strcmp(from.arch, model->arch) || !same_parameters(from.graph, model->graph))
        st = fst_fail(err, FST_E_CONFIG, "%s: %s is a %s%s: the stage trains %s", key, file, from.arch,
                      strcmp(from.arch, model->arch) ? "" : " with other options", model->arch);
    else if (from.fingerprint != s->transform.fingerprint)
        st = fst_fail(err, FST_E_CONFIG, "%s: %s learnt from %s: set data.fingerprint: %s", key, file,
                      from.fingerprint ? "fingerprints" : "samples, not from their fingerprints",
                      from.fingerprint ? "true" : "false");
    else
        fst_state_copy(&model->state, &from.state);
    if (!st && !same_numbers(&from, &s->transform))
        fst_log(FST_LOG_WARN, "%s: %s was trained with another normalisation than data.normalise", key, file);
    fst_model_release(&from);
    return st;
}

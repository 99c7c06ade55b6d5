/* Records of finished steps: a step is up to date when everything that its result depends on has the
 * digest that the record names, and its files are what they were. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

#define RECORD_FORMAT "fedstill-stage-1"
#define OWN_DIGEST "record_digest"
enum { MAX_RECORD = 1 << 20 };
#define MAX_ARTIFACT ((size_t)64 << 30)

/* ---- fingerprints -------------------------------------------------------------------------------- */

static fst_status add_config(const struct session *s, const char *path, fst_buf *text, fst_error *err)
{
    const fst__schema *sub;
    const void *object;
    fst_status st = fst__schema_find(&fst__task_schema, &s->task->file, path, &sub, &object, err);
    if (!st)
        st = fst_buf_printf(text, err, "%s=", path);
    if (!st)
        st = fst__schema_json(sub, object, text, err);
    return st ? st : fst_buf_append(text, "\n", 1, err);
}

/* Models that are not cut into shards train with threads inside kernels, and their bits depend on how many. */
static fst_status add_threads(const struct session *s, const char *arch, fst_buf *text, fst_error *err)
{
    fst_graph *g = NULL;
    fst_status st = fst__model_graph(s, arch, &g, err);
    if (!st && !fst_graph_sharded(g))
        st = fst_buf_printf(text, err, "threads=%d\n", s->threads);
    fst_graph_free(g);
    return st;
}

/* What a network is and starts from, as far as the task file does not say it. */
static fst_status add_start(const struct session *s, const struct training *t, fst_buf *text, fst_error *err)
{
    fst_status st = add_threads(s, t->model, text, err);
    return !st && t->init ? fst__add_file(s, "init", t->init, text, err) : st;
}

/* A baseline depends on how the student is trained, not on how it is distilled. */
static fst_status add_training(const struct session *s, const struct training *t, fst_buf *text, fst_error *err)
{
    fst_status st = fst_buf_printf(text, err, "training=");
    if (!st)
        st = fst__schema_json(&fst__training_schema, t, text, err);
    if (!st)
        st = fst_buf_append(text, "\n", 1, err);
    return st ? st : add_start(s, t, text, err);
}

static fst_status add_step(const struct session *s, enum step step, fst_buf *text, fst_error *err)
{
    return fst_buf_printf(text, err, "%s=%s\n", fst__step_names[step], s->records[step].digest);
}

/* Which samples the cloud learns from and which are those of validation; for the rounds of a topology, those of every
 * edge. Nothing is added where one place learns from all samples, which the digest of the data says already. */
static fst_status add_shares(const struct session *s, enum step step, fst_buf *text, fst_error *err)
{
    const struct share cloud = {s->order, s->learn, s->validate};
    char digest[FST_DIGEST_HEX];
    fst_status st = FST_OK;
    if (s->edges ? step != STEP_FEDERATE : s->validate > 0) {
        fst__share_digest(&cloud, digest);
        st = fst_buf_printf(text, err, "cloud=%s\n", digest);
    }
    for (size_t k = 0; !st && step == STEP_FEDERATE && k < s->edges; k++) {
        fst__share_digest(&s->edge[k], digest);
        st = fst_buf_printf(text, err, "edge_%zu=%s\n", k + 1, digest);
    }
    return st;
}

/* Who the clients are follows from their settings and the samples to deal, which others add, with two exceptions: a
 * file says it, or bursts do, since fewest samples once were fewest bursts. What cannot be made has no digest; the step
 * says why. */
static fst_status add_clients(const struct session *s, fst_buf *text, fst_error *err)
{
    const struct clients_section *c = &s->task->file.clients;
    fst_partition p = {0};
    char digest[FST_DIGEST_HEX] = "";
    fst_status st = add_config(s, "clients", text, err);
    if (st || !(c->partition_file || (s->train->group && c->min_samples > 1)))
        return st;
    if (!fst__clients(s, &p, NULL))
        fst__clients_digest(&p, digest);
    fst_partition_release(&p);
    return fst_buf_printf(text, err, "owners=%s\n", digest);
}

static fst_status add_inputs(const struct session *s, enum step step, fst_buf *text, fst_error *err)
{
    const struct task_file *f = &s->task->file;
    fst_status st = FST_OK;
    char path[64];
    switch (step) {
    case STEP_PRETRAIN:
        st = add_config(s, "stages.cloud_pretrain", text, err);
        return st ? st : add_start(s, &f->stages.cloud_pretrain, text, err);
    case STEP_SOFT:
        st = add_config(s, "stages.cloud_kd", text, err);
        if (!st)
            st = fst_buf_printf(text, err, "content=%s\n", fst_soft_content_name(fst__soft_spec(s).content));
        if (!st && fst__teacher_file(f))
            return fst__add_file(s, "teacher", fst__teacher_file(f), text, err);
        return st ? st : add_step(s, STEP_PRETRAIN, text, err);
    case STEP_ALONE:
        return add_training(s, &f->stages.edge_kd.training, text, err);
    case STEP_DISTIL:
        st = add_config(s, "stages.edge_kd", text, err);
        if (!st)
            st = add_start(s, &f->stages.edge_kd.training, text, err);
        if (!st && f->stages.edge_kd.kd_weight > 0)
            st = add_step(s, STEP_SOFT, text, err);
        return st;
    case STEP_FEDERATE:
        st = add_config(s, "stages.federated_train", text, err);
        if (!st && !s->edges)
            st = add_clients(s, text, err);
        if (!st)
            st = fst_buf_printf(text, err, "model=%s\n", fst__federated_model(f));
        if (!st && fst__init_step(f) != STEPS)
            st = add_step(s, fst__init_step(f), text, err);
        if (!st && fst__init_file(f))
            st = fst__add_file(s, "init", fst__init_file(f), text, err);
        return st;
    default:
        snprintf(path, sizeof path, "stages.%s", fst__step_names[step]);
        st = add_config(s, path, text, err);
        return st ? st : fst__infer_inputs(s, step, text, err);
    }
}

/* What a source knows of its samples besides values and labels, which its digest has: bursts decide who gets which
 * samples, SNR and names stand in tables and models. */
static fst_status add_facts(const char *name, const fst_source *source, fst_buf *text, fst_error *err)
{
    char digest[FST_DIGEST_HEX];
    fst_sha256 sha;
    if (!source->group && !source->snr && !source->class_names)
        return FST_OK;
    fst_sha256_init(&sha);
    if (source->group)
        fst_sha256_update(&sha, source->group, source->count * sizeof *source->group);
    fst_sha256_update(&sha, "\nsnr", 4);
    if (source->snr)
        fst_sha256_update(&sha, source->snr, source->count * sizeof *source->snr);
    for (int c = 0; source->class_names && c < source->classes; c++) {
        fst_sha256_update(&sha, "\n", 1);
        fst_sha256_update(&sha, source->class_names[c], strlen(source->class_names[c]));
    }
    fst_sha256_final(&sha, digest);
    return fst_buf_printf(text, err, "%s facts=%s\n", name, digest);
}

static bool total_free(const struct schedule_section *s)
{
    return s->name != FST_SCHEDULE_COSINE && s->name != FST_SCHEDULE_WARMUP_COSINE;
}

/* A value on its way to the end of the stage has another one in every epoch when the end is elsewhere. */
static bool ramp_total_free(bool there, const struct ramp_section *r)
{
    return !there || r->over || r->name == FST_RAMP_STEP || r->name == FST_RAMP_ACCURACY;
}

static bool ramps_total_free(const struct edge_kd_section *e)
{
    return ramp_total_free(e->has_temperature_schedule, &e->temperature_schedule) &&
           ramp_total_free(e->has_ce_weight_schedule, &e->ce_weight_schedule) &&
           ramp_total_free(e->has_kd_weight_schedule, &e->kd_weight_schedule);
}

bool fst__extendable(const struct session *s, enum step step)
{
    const struct stages_section *f = &s->task->file.stages;
    switch (step) {
    case STEP_PRETRAIN:
        return total_free(&f->cloud_pretrain.schedule);
    case STEP_ALONE:
        return total_free(&f->edge_kd.training.schedule);
    case STEP_DISTIL:
        return total_free(&f->edge_kd.training.schedule) && ramps_total_free(&f->edge_kd);
    default:
        return step == STEP_FEDERATE && (!f->federated_train.has_schedule || total_free(&f->federated_train.schedule));
    }
}

static void digest_of(const char *text, size_t len, char out[FST_DIGEST_HEX])
{
    fst_sha256 sha;
    fst_sha256_init(&sha);
    fst_sha256_update(&sha, text, len);
    fst_sha256_final(&sha, out);
}

/* The text without how many epochs or rounds there are. In canonical JSON the key cannot stand in a string: its quotes
 * would be escaped. */
static void mask_total(enum step step, fst_buf *text)
{
    const char *key = step == STEP_FEDERATE ? "\"rounds\":" : "\"epochs\":";
    char *at = strstr(text->data, key);
    if (!at)
        return;
    at += strlen(key);
    size_t digits = strspn(at, "0123456789");
    memmove(at, at + digits, strlen(at + digits) + 1);
    text->len -= digits;
}

fst_status fst__fingerprint(struct session *s, enum step step, fst_error *err)
{
    fst_buf text = {0};
    fst_status st = fst_buf_printf(&text, err, "%s\n%s\nseed=%lld\nbackend=%s\ntrain=%s\ntest=%s\n", RECORD_FORMAT,
                                   fst__step_names[step], (long long)s->task->file.seed, s->backend, s->train->digest,
                                   s->test->digest);
    if (!st)
        st = add_facts("train", s->train, &text, err);
    if (!st)
        st = add_facts("test", s->test, &text, err);
    if (!st)
        st = add_config(s, "data", &text, err);
    /* nothing is added for f32, which is what there was before there was a choice */
    if (!st && s->precision != FST_PRECISION_F32)
        st = fst_buf_printf(&text, err, "precision=%s\n", fst_precision_name(s->precision));
    if (!st)
        st = add_shares(s, step, &text, err);
    if (!st)
        st = add_inputs(s, step, &text, err);
    if (!st) {
        digest_of(text.data, text.len, s->fingerprints[step]);
        fst_free(s->inputs[step]);
        s->inputs[step] = fst_strdup(text.data);
        if (fst__extendable(s, step))
            mask_total(step, &text);
        digest_of(text.data, text.len, s->resumes[step]);
    }
    fst_buf_release(&text);
    return st;
}

/* ---- records --------------------------------------------------------------------------------------- */

static bool copy_text(char *out, size_t size, json_t *j)
{
    const char *text = json_string_value(j);
    if (!text || strlen(text) >= size)
        return false;
    memcpy(out, text, strlen(text) + 1);
    return true;
}

static double number(json_t *j)
{
    return json_is_number(j) ? json_number_value(j) : NAN;
}

/* Missing is 0, as records of older versions have it; whoever wrote something else there did not write a record. */
static bool whole(json_t *j, const char *key, int64_t *out)
{
    *out = 0;
    return !fst_json_whole(j, key, 0, INT64_MAX, out, NULL);
}

static bool parse_edges(json_t *list, struct record *r)
{
    size_t i;
    json_t *j;
    if (json_array_size(list) > FST__MAX_EDGES)
        return false;
    json_array_foreach(list, i, j)
    {
        struct edge_figures *e = &r->edge[i];
        if (!copy_text(e->missing, sizeof e->missing, json_object_get(j, "missing_classes")) ||
            !whole(j, "samples", &e->samples) || !whole(j, "validation", &e->validation) ||
            !whole(j, "rounds", &e->rounds))
            return false;
        if (e->rounds ? !copy_text(e->digest, sizeof e->digest, json_object_get(j, "digest"))
                      : !json_is_null(json_object_get(j, "digest"))) /* only an edge without rounds has no model */
            return false;
        e->accuracy = number(json_object_get(j, "accuracy"));
        e->own_accuracy = number(json_object_get(j, "own_accuracy"));
        e->global_accuracy = number(json_object_get(j, "global_accuracy"));
    }
    r->edges = json_array_size(list);
    return true;
}

static bool parse_snr(json_t *list, struct record *r)
{
    size_t i;
    json_t *j;
    if (json_array_size(list) > FST__SNR_BINS)
        return false;
    json_array_foreach(list, i, j)
    {
        r->snr.bin[i].from = number(json_object_get(j, "from_db"));
        r->snr.bin[i].to = number(json_object_get(j, "to_db"));
        if (!whole(j, "samples", &r->snr.bin[i].samples) || !whole(j, "correct", &r->snr.bin[i].correct))
            return false;
    }
    r->snr.count = json_array_size(list);
    return true;
}

static bool parse_record(json_t *j, struct record *r)
{
    struct record n = {0};
    const char *format = json_string_value(json_object_get(j, "format"));
    if (!format || strcmp(format, RECORD_FORMAT) ||
        !copy_text(n.fingerprint, sizeof n.fingerprint, json_object_get(j, "fingerprint")) ||
        !copy_text(n.artifact, sizeof n.artifact, json_object_get(j, "artifact")) ||
        !copy_text(n.digest, sizeof n.digest, json_object_get(j, "digest")))
        return false;
    if (json_object_get(j, "extra") &&
        (!copy_text(n.extra, sizeof n.extra, json_object_get(j, "extra")) ||
         !copy_text(n.extra_digest, sizeof n.extra_digest, json_object_get(j, "extra_digest"))))
        return false;
    n.has_model = json_is_true(json_object_get(j, "has_model"));
    n.accuracy = number(json_object_get(j, "accuracy"));
    n.loss = number(json_object_get(j, "loss"));
    n.macro_f1 = number(json_object_get(j, "macro_f1"));
    n.balanced = number(json_object_get(j, "balanced_accuracy"));
    n.seconds = number(json_object_get(j, "seconds"));
    int64_t up, down;
    if (!whole(j, "parameters", &n.parameters) || !whole(j, "samples", &n.samples) || !whole(j, "bytes_up", &up) ||
        !whole(j, "bytes_down", &down) || !whole(j, "best_round", &n.best_round))
        return false;
    n.bytes_up = (uint64_t)up;
    n.bytes_down = (uint64_t)down;
    if (!parse_edges(json_object_get(j, "edges"), &n) || !parse_snr(json_object_get(j, "accuracy_by_snr"), &n))
        return false;
    *r = n;
    return true;
}

/* The digest that a record has of itself: of its values in canonical JSON, without this one. */
static bool own_digest(json_t *record, char out[FST_DIGEST_HEX])
{
    json_t *rest = json_copy(record);
    json_object_del(rest, OWN_DIGEST);
    char *text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS);
    if (text)
        digest_of(text, strlen(text), out);
    json_decref(rest);
    free(text);
    return text;
}

/* Was the record changed by somebody else than its step? Records of older versions do not say. */
static bool was_changed(json_t *record)
{
    char now[FST_DIGEST_HEX];
    json_t *said = json_object_get(record, OWN_DIGEST);
    const char *text = json_string_value(said);
    return said && !(text && own_digest(record, now) && !strcmp(text, now));
}

static bool unchanged(const char *folder, const char *name, const char *digest)
{
    char now[FST_DIGEST_HEX] = "";
    char *path = fst_path_join(folder, name);
    /* a name from a file must stay inside the step's folder */
    bool same = path && !strchr(name, '/') && !fst_sha256_file(path, now, NULL) && !strcmp(now, digest);
    fst_free(path);
    return same;
}

static bool edges_unchanged(const char *folder, const struct record *r)
{
    bool same = true;
    for (size_t k = 0; same && k < r->edges; k++) {
        char name[64];
        snprintf(name, sizeof name, FST__EDGE_MODEL, (int)k + 1);
        same = !r->edge[k].rounds || unchanged(folder, name, r->edge[k].digest);
    }
    return same;
}

/* changed: whether its figures are not those that its step wrote; NULL: nobody wants to know. */
static bool read_record(const char *folder, struct record *out, bool *changed)
{
    fst_buf text = {0};
    char *path = fst_path_join(folder, "stage.json");
    bool ok = path && fst_file_exists(path) && !fst_file_read(path, MAX_RECORD, &text, NULL);
    json_t *j = ok ? json_loadb(text.data, text.len, 0, NULL) : NULL;
    ok = j && parse_record(j, out);
    if (changed)
        *changed = ok && was_changed(j);
    json_decref(j);
    fst_buf_release(&text);
    fst_free(path);
    return ok;
}

bool fst__record_fingerprint(const char *folder, char out[FST_DIGEST_HEX])
{
    struct record r;
    bool there = read_record(folder, &r, NULL);
    if (there)
        memcpy(out, r.fingerprint, sizeof r.fingerprint);
    return there;
}

bool fst__record_current_in(const char *folder, const char *fingerprint, struct record *out)
{
    struct record r;
    bool changed = false, ok = read_record(folder, &r, &changed) && !strcmp(r.fingerprint, fingerprint);
    if (ok && changed)
        fst_log(FST_LOG_WARN,
                "%s%sstage.json was changed after its stage wrote it: what it says is not believed, and "
                "the stage is to be done again",
                folder, *folder && folder[strlen(folder) - 1] == '/' ? "" : "/");
    ok = ok && !changed && unchanged(folder, r.artifact, r.digest) &&
         (!r.extra[0] || unchanged(folder, r.extra, r.extra_digest)) && edges_unchanged(folder, &r);
    if (ok)
        *out = r;
    return ok;
}

bool fst__record_current(const struct session *s, enum step step, const char *fingerprint, struct record *out)
{
    char *folder = fst__step_path(s, step, "");
    bool ok = folder && fst__record_current_in(folder, fingerprint, out);
    fst_free(folder);
    return ok;
}

fst_status fst__read_whole(const char *path, const char *wanted, fst_buf *out, char digest[FST_DIGEST_HEX],
                           fst_error *err)
{
    fst_buf bytes = {0};
    fst_sha256 sha;
    char now[FST_DIGEST_HEX];
    fst_status st = fst_file_read(path, MAX_ARTIFACT, &bytes, err);
    if (st)
        return st;
    fst_sha256_init(&sha);
    fst_sha256_update(&sha, bytes.data, bytes.len);
    fst_sha256_final(&sha, now);
    if (wanted && strcmp(now, wanted)) {
        fst_buf_release(&bytes);
        return fst_fail(err, FST_E_MISMATCH,
                        "%s is not the file that its stage left (digest %.12s..., stage.json says %.12s...): it was "
                        "exchanged while the task ran; run the task again",
                        path, now, wanted);
    }
    if (digest)
        memcpy(digest, now, sizeof now);
    *out = bytes;
    return FST_OK;
}

fst_status fst__read_artifact(const struct session *s, enum step step, const char *name, fst_buf *out, fst_error *err)
{
    const struct record *r = &s->records[step];
    char *path = fst__step_path(s, step, name);
    fst_status st = path
                        ? fst__read_whole(path, strcmp(name, r->artifact) ? r->extra_digest : r->digest, out, NULL, err)
                        : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

static json_t *real_or_null(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

json_t *fst__edges_json(const struct record *r)
{
    json_t *list = json_array();
    for (size_t k = 0; k < r->edges; k++) {
        const struct edge_figures *e = &r->edge[k];
        char name[64];
        snprintf(name, sizeof name, FST__EDGE_MODEL, (int)k + 1);
        const bool model = e->rounds > 0;
        json_array_append_new(list,
                              json_pack("{s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:s, s:s?, s:s?}", "edge",
                                        (json_int_t)k + 1, "samples", (json_int_t)e->samples, "validation",
                                        (json_int_t)e->validation, "rounds", (json_int_t)e->rounds, "accuracy",
                                        real_or_null(e->accuracy), "own_accuracy", real_or_null(e->own_accuracy),
                                        "global_accuracy", real_or_null(e->global_accuracy), "missing_classes",
                                        e->missing, "model", model ? name : NULL, "digest", model ? e->digest : NULL));
    }
    return list;
}

json_t *fst__snr_json(const struct record *r)
{
    json_t *list = json_array();
    for (size_t i = 0; i < r->snr.count; i++) {
        int64_t n = r->snr.bin[i].samples, right = r->snr.bin[i].correct;
        json_array_append_new(list, json_pack("{s:f, s:f, s:I, s:I, s:o}", "from_db", r->snr.bin[i].from, "to_db",
                                              r->snr.bin[i].to, "samples", (json_int_t)n, "correct", (json_int_t)right,
                                              "accuracy", n ? json_real((double)right / (double)n) : json_null()));
    }
    return list;
}

fst_status fst__record_write(const struct session *s, enum step step, const struct record *r, fst_error *err)
{
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I}", "format", RECORD_FORMAT, "stage",
                  fst__step_names[step], "fingerprint", r->fingerprint, "artifact", r->artifact, "digest", r->digest,
                  "has_model", (int)r->has_model, "parameters", (json_int_t)r->parameters, "samples",
                  (json_int_t)r->samples, "bytes_up", (json_int_t)r->bytes_up, "bytes_down", (json_int_t)r->bytes_down);
    if (!j)
        return fst_fail_memory(err, 4096);
    json_object_set_new(j, "accuracy", real_or_null(r->accuracy));
    json_object_set_new(j, "loss", real_or_null(r->loss));
    if (r->has_model) {
        json_object_set_new(j, "macro_f1", real_or_null(r->macro_f1));
        json_object_set_new(j, "balanced_accuracy", real_or_null(r->balanced));
    }
    json_object_set_new(j, "seconds", real_or_null(r->seconds));
    if (s->inputs[step])
        json_object_set_new(j, "inputs", json_string(s->inputs[step]));
    if (r->best_round)
        json_object_set_new(j, "best_round", json_integer(r->best_round));
    if (r->snr.count)
        json_object_set_new(j, "accuracy_by_snr", fst__snr_json(r));
    if (r->edges)
        json_object_set_new(j, "edges", fst__edges_json(r));
    if (r->extra[0]) {
        json_object_set_new(j, "extra", json_string(r->extra));
        json_object_set_new(j, "extra_digest", json_string(r->extra_digest));
    }
    char digest[FST_DIGEST_HEX];
    if (own_digest(j, digest))
        json_object_set_new(j, OWN_DIGEST, json_string(digest));
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_PRESERVE_ORDER);
    char *path = fst__step_path(s, step, "stage.json");
    fst_status st = text && path ? fst_file_write(path, text, strlen(text), err) : fst_fail_memory(err, 4096);
    free(text);
    fst_free(path);
    json_decref(j);
    return st;
}

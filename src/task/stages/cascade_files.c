/* Files of the cascade's stages: batches, answers, reports, and reading back what edge_infer left. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cascade.h"

#define BATCHES_FORMAT "fedstill-batches-1"
#define ANSWERS_FORMAT "fedstill-predictions-1"

/* ---- writing --------------------------------------------------------------------------------------- */

static fst_tensor list(const char *name, fst_dtype type, size_t count, void *data)
{
    return (fst_tensor){name, type, {1, {(int64_t)count}}, data};
}

fst_status fst__batches_write(const struct session *s, const struct step *own, const struct batches *b,
                              struct record *r, fst_error *err)
{
    const struct device_load_section *d = own->stage->settings;
    char batch[32];
    snprintf(batch, sizeof batch, "%lld", (long long)d->batch_size);
    const fst_pair meta[] = {{"format", BATCHES_FORMAT}, {"batch_size", batch}, {"data_digest", s->data.test->digest}};
    const fst_tensor t[] = {list("index", FST_U32, b->count, b->index), list("device", FST_U32, b->count, b->device)};
    snprintf(r->artifact, sizeof r->artifact, "batches.safetensors");
    char *path = fst__step_path(s, own, r->artifact);
    fst_status st = path ? fst_safetensors_write(path, meta, 3, t, 2, r->digest, err) : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

fst_status fst__answers_write(const struct session *s, const struct step *step, const struct answers *a,
                              char digest[FST_DIGEST_HEX], fst_error *err)
{
    char temperature[40], threshold[40];
    const fst_cascade *c = a->cascade;
    size_t n = a->b->count, tensors = 0;
    double used = a->edge ? a->edge->choice.value : c->threshold;
    const fst_pair meta[] = {{"format", ANSWERS_FORMAT},
                             {"data_digest", s->data.test->digest},
                             {"model_digest", a->model->digest},
                             {"confidence", fst_confidence_name(c->kind)},
                             {"temperature", fst__number_text(c->temperature, temperature, sizeof temperature)},
                             {"threshold", fst__number_text(used, threshold, sizeof threshold)}};
    fst_tensor t[6];
    t[tensors++] = list("index", FST_U32, n, a->b->index);
    t[tensors++] = list("device", FST_U32, n, a->b->device);
    t[tensors++] = list("prediction", FST_I32, n, c->answer);
    t[tensors++] = list("confidence", FST_F64, n, c->confidence);
    if (a->offloaded)
        t[tensors++] = list("low_confidence", FST_U8, n, (void *)a->offloaded);
    if (a->logits)
        t[tensors++] = (fst_tensor){"logits", FST_F32, {2, {(int64_t)n, a->classes}}, (void *)a->logits};
    char *path = fst__step_path(s, step, "predictions.safetensors");
    fst_status st = path ? fst_safetensors_write(path, meta, sizeof meta / sizeof *meta, t, tensors, digest, err)
                         : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

fst_status fst__report_write(const struct session *s, const struct step *step, const fst_cascade_report *report,
                             char digest[FST_DIGEST_HEX], fst_error *err)
{
    fst_buf text = {0};
    fst_sha256 sha;
    char *path = fst__step_path(s, step, "report.json");
    fst_status st = path ? fst_cascade_report_json(report, &text, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_file_write(path, text.data, text.len, err);
    if (!st) {
        fst_sha256_init(&sha);
        fst_sha256_update(&sha, text.data, text.len);
        fst_sha256_final(&sha, digest);
    }
    fst_buf_release(&text);
    fst_free(path);
    return st;
}

/* ---- reading back ------------------------------------------------------------------------------------- */

static double number(json_t *j, const char *key)
{
    json_t *v = json_object_get(j, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

/* A count; missing is 0. */
static bool count(json_t *j, const char *key, size_t *out)
{
    int64_t v = 0;
    bool good = !fst_json_whole(j, key, 0, INT64_MAX, &v, NULL);
    *out = (size_t)v;
    return good;
}

static bool read_run(json_t *j, fst_measured *out)
{
    json_t *points = json_object_get(j, "batches");
    fst_measured m = {.planning = number(j, "planning"), .p50 = NAN, .p95 = NAN, .p99 = NAN, .peak_bytes = NAN};
    m.cost.points = json_array_size(points);
    if (m.cost.points > FST_COST_POINTS || !(m.planning >= 0))
        return false;
    for (size_t i = 0; i < m.cost.points; i++) {
        json_t *p = json_array_get(points, i);
        m.cost.seconds[i] = number(p, "seconds");
        if (!count(p, "rows", &m.cost.rows[i]) || m.cost.rows[i] < 1 || m.cost.rows[i] > 1000000000 ||
            !(m.cost.seconds[i] >= 0))
            return false;
    }
    *out = m;
    return true;
}

static bool read_measured(json_t *j, struct edge_result *e)
{
    json_t *runs = json_object_get(j, "runs"), *latency = json_object_get(j, "latency_ms");
    e->run_count = json_array_size(runs);
    if (!e->run_count || e->run_count > FST__MAX_RUNS)
        return false;
    for (size_t i = 0; i < e->run_count; i++)
        if (!read_run(json_array_get(runs, i), &e->runs[i]))
            return false;
    fst_measured *first = &e->runs[0];
    first->p50 = number(latency, "p50") / 1e3;
    first->p95 = number(latency, "p95") / 1e3;
    first->p99 = number(latency, "p99") / 1e3;
    e->runs[e->run_count - 1].peak_bytes = number(j, "peak_bytes");
    return count(latency, "samples", &first->singles);
}

static bool read_choice(json_t *j, fst_threshold *t)
{
    const char *kind = json_string_value(json_object_get(j, "kind"));
    fst_threshold c = {.target = number(j, "target"), .reached = number(j, "reached"), .offload = NAN};
    c.value = number(j, "value");
    c.met = !json_is_false(json_object_get(j, "met"));
    c.gap = number(j, "gap");
    while (kind && c.kind <= FST_THRESHOLD_TIME && strcmp(fst_threshold_name(c.kind), kind))
        c.kind++;
    if (!kind || c.kind > FST_THRESHOLD_TIME || !isfinite(c.value))
        return false;
    *t = c;
    return true;
}

static bool read_confidence(json_t *j, struct edge_result *e)
{
    const char *kind = json_string_value(json_object_get(j, "kind"));
    json_t *k = json_object_get(j, "calibration");
    e->temperature = number(j, "temperature");
    e->calibrated = json_is_object(k);
    e->calibration = (fst_calibration){.temperature = number(k, "temperature"),
                                       .at_limit = json_is_true(json_object_get(k, "at_limit")),
                                       .nll_before = number(k, "nll_before"),
                                       .nll_after = number(k, "nll_after"),
                                       .ece_before = number(k, "ece_before"),
                                       .ece_after = number(k, "ece_after")};
    return count(k, "samples", &e->calibration.samples) && kind && fst_confidence_parse(kind, &e->kind) &&
           e->temperature > 0;
}

static fst_status read_report(const struct session *s, const struct step *from, struct edge_result *e, fst_error *err)
{
    fst_buf text = {0};
    json_error_t why = {0};
    char *path = fst__step_path(s, from, from->record.extra);
    fst_status st = path ? fst__read_artifact(s, from, from->record.extra, &text, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_json_fits(path, text.data, text.len, text.len, err);
    json_t *j = st ? NULL : json_loadb(text.data, text.len, 0, &why);
    if (!st && !j)
        st = fst_fail(err, FST_E_FORMAT, "%s:%d:%d: %s", path, why.line, why.column, why.text);
    if (!st && (!read_choice(json_object_get(j, "threshold"), &e->choice) ||
                !read_confidence(json_object_get(j, "confidence"), e) ||
                !read_measured(json_object_get(json_object_get(j, "edge"), "measured"), e)))
        st = fst_fail(err, FST_E_FORMAT, "%s: no report of edge_infer: run that stage again with --fresh", path);
    json_decref(j);
    fst_buf_release(&text);
    fst_free(path);
    return st;
}

static fst_status read_logits(const struct session *s, const struct step *from, size_t count, struct edge_result *e,
                              fst_error *err)
{
    fst_safetensors *f = NULL;
    size_t i, n = count * (size_t)s->data.train->classes;
    fst_buf bytes = {0};
    char *path = fst__step_path(s, from, from->record.artifact);
    fst_status st = path ? fst__read_artifact(s, from, from->record.artifact, &bytes, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_safetensors_open_memory(&f, path, bytes.data, bytes.len, err);
    if (!st && (!fst_safetensors_find(f, "logits", &i) || fst_safetensors_at(f, i).shape.rank != 2 ||
                fst_safetensors_at(f, i).shape.dim[0] != (int64_t)count ||
                fst_safetensors_at(f, i).shape.dim[1] != s->data.train->classes))
        st = fst_fail(err, FST_E_MISMATCH, "%s: no logits of %zu samples and %d classes", path, count,
                      s->data.train->classes);
    if (!st && !(e->logits = fst_calloc(n + 1, sizeof *e->logits)))
        st = fst_fail_memory(err, n * sizeof *e->logits);
    if (!st)
        st = fst_safetensors_read_f32(f, i, e->logits, n, err);
    fst_safetensors_free(f);
    fst_buf_release(&bytes);
    fst_free(path);
    return st;
}

fst_status fst__edge_result_read(const struct session *s, const struct step *own, size_t count, struct edge_result *out,
                                 fst_error *err)
{
    const struct step *from = fst__step_read(s, own, "edge", 0);
    struct edge_result e = {0};
    fst_status st = read_report(s, from, &e, err);
    if (!st)
        st = read_logits(s, from, count, &e, err);
    if (st)
        fst_free(e.logits);
    else
        *out = e;
    return st;
}

/* Control messages as JSON. Writing: one json_pack a kind. Reading: the whole body as one object, then each key by name
 * and type into a copy, which replaces *out when all were there. */
#include "wire.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const states[SITE_STATES] = {"join", "idle", "fetch", "train", "offer", "keep"};
static const char *const order_kinds[ORDER_KINDS] = {"train", "measure", "stop"};

const char *fst__site_state_name(fst__site_state s)
{
    return (unsigned)s < SITE_STATES ? states[s] : "unknown";
}

void fst__hello_release(struct hello *h)
{
    fst_free(h->settings);
    h->settings = NULL;
}

/* ---- writing -------------------------------------------------------------------------------------------- */

/* Takes j; NULL (a text that is no UTF-8, no memory) fails. */
static fst_status write_json(json_t *j, fst_buf *out, fst_error *err)
{
    char *text = j ? json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(17)) : NULL;
    fst_status st = text ? fst_buf_append(out, text, strlen(text), err)
                         : fst_fail(err, FST_E_ARGUMENT, "a control message cannot be written as JSON");
    free(text);
    json_decref(j);
    return st;
}

/* A text for people, from anywhere: what is no UTF-8 becomes "?". */
static json_t *people_text(const char *text)
{
    json_t *j = json_string(text);
    if (j)
        return j;
    char *copy = fst_strdup(text);
    for (char *p = copy; p && *p; p++)
        if ((unsigned char)*p >= 0x80)
            *p = '?';
    j = copy ? json_string(copy) : NULL;
    fst_free(copy);
    return j;
}

static json_t *manifest_json(const fst_blob_manifest *m)
{
    fst_buf text = {0};
    json_t *j = fst_blob_manifest_write(m, &text, NULL) ? NULL : json_loadb(text.data, text.len, 0, NULL);
    fst_buf_release(&text);
    return j;
}

fst_status fst__write_hello(const struct hello *m, fst_buf *out, fst_error *err)
{
    char run[FST__INSTANCE];
    snprintf(run, sizeof run, "%016llx", (unsigned long long)m->run);
    json_t *j = json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:s, s:s, s:s, s:I, s:I, s:o, s:s}", "id", m->id, "role",
                          m->role, "instance", m->instance, "program", m->program, "protocol", (int)FST__PROTOCOL,
                          "client", (json_int_t)m->client + 1, "run", run, "task", m->task, "data", m->data, "learn",
                          (json_int_t)m->learn, "validate", (json_int_t)m->validate, "missing", people_text(m->missing),
                          "numerics", m->numerics);
    if (j && *m->samples) {
        json_object_set_new(j, "samples", json_string(m->samples));
        json_object_set_new(j, "classes", json_integer(m->classes));
        json_object_set_new(j, "names", json_string(m->names));
        json_object_set_new(j, "common", json_string(m->common));
    }
    if (j && m->plain)
        json_object_set_new(j, "codec", json_string("plain"));
    if (j && m->settings && strlen(m->settings) < FST_FRAME_CONTROL / 2)
        json_object_set_new(j, "settings", people_text(m->settings));
    return write_json(j, out, err);
}

fst_status fst__write_beat(const struct beat *m, fst_buf *out, fst_error *err)
{
    json_t *j = json_pack("{s:s, s:s, s:I, s:s}", "instance", m->instance, "stage", m->stage, "round",
                          (json_int_t)m->round, "state", fst__site_state_name(m->state));
    if (j && *m->waits)
        json_object_set_new(j, "waits", people_text(m->waits));
    if (j && m->windows) {
        json_object_set_new(j, "windows", json_integer((json_int_t)m->windows));
        json_object_set_new(j, "offloaded", json_integer((json_int_t)m->offloaded));
    }
    return write_json(j, out, err);
}

fst_status fst__write_welcome(const struct welcome *m, fst_buf *out, fst_error *err)
{
    return write_json(json_pack("{s:b}", "hello", m->hello), out, err);
}

fst_status fst__write_refusal(const struct refusal *m, fst_buf *out, fst_error *err)
{
    json_t *j = json_pack("{s:b, s:o, s:i}", "final", m->final, "reason", people_text(m->reason), "protocol",
                          (int)FST__PROTOCOL);
    if (j && *m->instance && json_object_set_new(j, "instance", json_string(m->instance))) {
        json_decref(j);
        j = NULL;
    }
    return write_json(j, out, err);
}

fst_status fst__write_order(const struct order *m, fst_buf *out, fst_error *err)
{
    json_t *j = json_pack("{s:s}", "kind", order_kinds[m->kind]);
    if (j && m->kind == ORDER_TRAIN) {
        json_t *rest = json_pack("{s:s, s:I, s:I, s:o}", "stage", m->stage, "round", (json_int_t)m->round, "counted",
                                 (json_int_t)m->counted, "base", manifest_json(&m->base));
        if (!rest || json_object_update(j, rest)) {
            json_decref(j);
            j = NULL;
        }
        json_decref(rest);
    }
    if (j && m->kind == ORDER_MEASURE) {
        json_object_set_new(j, "stage", json_string(m->stage));
        json_object_set_new(j, "round", json_integer((json_int_t)m->round));
        json_object_set_new(j, "counted", json_integer(m->counted));
        json_object_set_new(j, "fingerprint", json_string(m->fingerprint));
        if (m->base.parts)
            json_object_set_new(j, "base", manifest_json(&m->base));
    }
    if (j && m->classes)
        json_object_set_new(j, "classes", json_integer(m->classes));
    if (j && *m->data)
        json_object_set_new(j, "data", json_string(m->data));
    return write_json(j, out, err);
}

fst_status fst__write_figures(const struct figures *m, fst_buf *out, fst_error *err)
{
    const fst_client_figures *f = &m->own;
    json_t *j = json_pack("{s:s, s:s, s:I, s:s, s:s, s:b, s:o, s:o, s:I, s:I, s:s, s:s, s:o}", "instance", m->instance,
                          "stage", m->stage, "round", (json_int_t)m->round, "fingerprint", m->fingerprint, "given",
                          m->given, "has", f->has, "accuracy", fst_json_number(f->accuracy), "loss",
                          fst_json_number(f->loss), "samples", (json_int_t)f->samples, "right", (json_int_t)f->right,
                          "arch", f->arch, "digest", f->digest, "failed", people_text(m->failed));
    if (j && f->own_samples)
        json_object_set_new(j, "own_validation",
                            json_pack("{s:I, s:o, s:o}", "samples", (json_int_t)f->own_samples, "accuracy",
                                      fst_json_number(f->own_accuracy), "global_accuracy",
                                      fst_json_number(f->own_global_accuracy)));
    return write_json(j, out, err);
}

fst_status fst__write_result(const struct result *m, fst_buf *out, fst_error *err)
{
    return write_json(json_pack("{s:s, s:s, s:I, s:o, s:o}", "instance", m->instance, "stage", m->stage, "round",
                                (json_int_t)m->round, "seconds", fst_json_number(m->seconds), "blob",
                                manifest_json(&m->blob)),
                      out, err);
}

fst_status fst__write_cannot(const struct cannot *m, fst_buf *out, fst_error *err)
{
    return write_json(json_pack("{s:s, s:s, s:I, s:o}", "instance", m->instance, "stage", m->stage, "round",
                                (json_int_t)m->round, "reason", people_text(m->reason)),
                      out, err);
}

fst_status fst__write_receipt(const struct receipt *m, fst_buf *out, fst_error *err)
{
    return write_json(json_pack("{s:s, s:I, s:b, s:o}", "stage", m->stage, "round", (json_int_t)m->round, "folded",
                                m->folded, "why", people_text(m->why)),
                      out, err);
}

/* ---- reading -------------------------------------------------------------------------------------------- */

static fst_status open_body(json_t **out, const void *body, size_t len, fst_error *err)
{
    json_error_t why;
    json_t *j = len <= FST_FRAME_CONTROL ? json_loadb(body, len, JSON_REJECT_DUPLICATES, &why) : NULL;
    if (!json_is_object(j)) {
        json_decref(j);
        return fst_fail(err, FST_E_FORMAT, "the body is no JSON object");
    }
    *out = j;
    return FST_OK;
}

/* A text of less than `size` bytes without control characters; one for people is cut instead. */
static fst_status get_text(const json_t *j, const char *key, char *out, size_t size, bool people, fst_error *err)
{
    const json_t *v = json_object_get(j, key);
    const char *text = json_string_value(v);
    if (!text || (!people && json_string_length(v) >= size))
        return fst_fail(err, FST_E_FORMAT, "\"%s\" is no text of less than %zu bytes", key, size);
    size_t n = json_string_length(v) < size ? json_string_length(v) : size - 1;
    for (size_t i = 0; i < n; i++)
        out[i] = (unsigned char)text[i] < ' ' || text[i] == 0x7f ? '?' : text[i];
    out[n] = 0;
    return FST_OK;
}

static fst_status get_whole(const json_t *j, const char *key, int64_t low, int64_t high, int64_t *out, fst_error *err)
{
    if (!fst_json_is_whole(json_object_get(j, key), out) || *out < low || *out > high)
        return fst_fail(err, FST_E_FORMAT, "\"%s\" is no whole number from %lld to %lld", key, (long long)low,
                        (long long)high);
    return FST_OK;
}

static fst_status get_bool(const json_t *j, const char *key, bool *out, fst_error *err)
{
    const json_t *v = json_object_get(j, key);
    if (!json_is_boolean(v))
        return fst_fail(err, FST_E_FORMAT, "\"%s\" is not true or false", key);
    *out = json_is_true(v);
    return FST_OK;
}

static fst_status get_hex(const json_t *j, const char *key, char *out, size_t size, fst_error *err)
{
    fst_status st = get_text(j, key, out, size, false, err);
    if (!st && (strlen(out) != size - 1 || strspn(out, "0123456789abcdef") != size - 1))
        st = fst_fail(err, FST_E_FORMAT, "\"%s\" is not %zu hex digits", key, size - 1);
    return st;
}

/* 64 digits, or "", which a key that is missing says too. */
static fst_status get_digest(const json_t *j, const char *key, char out[FST_DIGEST_HEX], fst_error *err)
{
    const json_t *v = json_object_get(j, key);
    const char *text = json_string_value(v);
    out[0] = 0;
    return !v || (text && !*text) ? FST_OK : get_hex(j, key, out, FST_DIGEST_HEX, err);
}

static fst_status get_choice(const json_t *j, const char *key, const char *const *names, int count, int *out,
                             fst_error *err)
{
    char text[24];
    fst_status st = get_text(j, key, text, sizeof text, false, err);
    for (int i = 0; !st && i < count; i++)
        if (!strcmp(text, names[i])) {
            *out = i;
            return FST_OK;
        }
    return st ? st : fst_fail(err, FST_E_FORMAT, "\"%s\" has a value that is not known", key);
}

static const int64_t most_rounds = INT64_C(1) << 40;

/* "stage" and "round", which several messages have. */
static fst_status get_round(const json_t *j, char stage[FST__STAGE_NAME], uint64_t *round, fst_error *err)
{
    int64_t n = 0;
    fst_status st = get_text(j, "stage", stage, FST__STAGE_NAME, false, err);
    if (!st)
        st = get_whole(j, "round", 0, most_rounds, &n, err);
    *round = (uint64_t)n;
    return st;
}

static fst_status places_of(const json_t *j, struct hello *m, fst_error *err)
{
    int64_t classes = 0;
    if (!json_object_get(j, "samples"))
        return FST_OK;
    fst_status st = get_text(j, "samples", m->samples, sizeof m->samples, false, err);
    if (!st)
        st = get_whole(j, "classes", 1, FST_MAX_CLASSES, &classes, err);
    if (!st)
        st = get_digest(j, "names", m->names, err);
    if (!st)
        st = get_digest(j, "common", m->common, err);
    m->classes = (int)classes;
    return st;
}

static fst_status hello_of(const json_t *j, struct hello *m, fst_error *err)
{
    int64_t client = 0, learn = 0, validate = 0;
    char run[FST__INSTANCE];
    fst_status st = get_text(j, "id", m->id, sizeof m->id, false, err);
    if (!st)
        st = get_text(j, "role", m->role, sizeof m->role, false, err);
    if (!st)
        st = get_hex(j, "instance", m->instance, sizeof m->instance, err);
    if (!st)
        st = get_text(j, "program", m->program, sizeof m->program, true, err);
    if (!st)
        st = get_whole(j, "client", 1, UINT32_MAX, &client, err);
    if (!st)
        st = get_hex(j, "run", run, sizeof run, err);
    if (!st)
        st = get_digest(j, "task", m->task, err);
    if (!st)
        st = get_hex(j, "data", m->data, sizeof m->data, err);
    if (!st)
        st = get_whole(j, "learn", 0, INT32_MAX, &learn, err);
    if (!st)
        st = get_whole(j, "validate", 0, INT32_MAX, &validate, err);
    if (!st)
        st = get_text(j, "missing", m->missing, sizeof m->missing, true, err);
    if (!st)
        st = get_text(j, "numerics", m->numerics, sizeof m->numerics, true, err);
    if (st)
        return st;
    m->client = (uint32_t)(client - 1);
    m->learn = (uint64_t)learn;
    m->validate = (uint64_t)validate;
    m->run = strtoull(run, NULL, 16);
    const char *codec = json_string_value(json_object_get(j, "codec"));
    m->plain = codec && !strcmp(codec, "plain");
    st = places_of(j, m, err);
    if (st)
        return st;
    const char *settings = json_string_value(json_object_get(j, "settings"));
    if (settings && !(m->settings = fst_strdup(settings)))
        return fst_fail_memory(err, strlen(settings));
    return FST_OK;
}

static fst_status beat_windows_of(const json_t *j, struct beat *m, fst_error *err)
{
    int64_t windows = 0, offloaded = 0;
    fst_status st = get_whole(j, "windows", 0, (int64_t)1 << 53, &windows, err);
    if (!st)
        st = get_whole(j, "offloaded", 0, windows, &offloaded, err);
    m->windows = (uint64_t)windows;
    m->offloaded = (uint64_t)offloaded;
    return st;
}

static fst_status beat_of(const json_t *j, struct beat *m, fst_error *err)
{
    int state = 0;
    fst_status st = get_hex(j, "instance", m->instance, sizeof m->instance, err);
    if (!st)
        st = get_round(j, m->stage, &m->round, err);
    if (!st)
        st = get_choice(j, "state", states, SITE_STATES, &state, err);
    m->state = (fst__site_state)state;
    m->waits[0] = 0;
    if (!st && json_object_get(j, "waits"))
        st = get_text(j, "waits", m->waits, sizeof m->waits, true, err);
    if (!st && json_object_get(j, "windows"))
        st = beat_windows_of(j, m, err);
    return st;
}

static fst_status order_of(const json_t *j, uint64_t most, struct order *m, fst_error *err)
{
    int kind = 0;
    int64_t classes = 0;
    fst_status st = get_choice(j, "kind", order_kinds, ORDER_KINDS, &kind, err);
    m->kind = (fst__order_kind)kind;
    if (st || m->kind == ORDER_STOP)
        return st;
    st = get_round(j, m->stage, &m->round, err);
    if (!st)
        st = get_whole(j, "counted", -1, most_rounds, &m->counted, err);
    if (!st && m->counted >= (int64_t)m->round)
        st = fst_fail(err, FST_E_FORMAT, "\"counted\" is not before \"round\"");
    if (!st && json_object_get(j, "classes"))
        st = get_whole(j, "classes", 1, FST_MAX_CLASSES, &classes, err);
    m->classes = (int)classes;
    if (!st)
        st = get_digest(j, "data", m->data, err);
    if (!st && m->kind == ORDER_MEASURE)
        st = get_digest(j, "fingerprint", m->fingerprint, err);
    if (!st && m->kind == ORDER_MEASURE && !json_object_get(j, "base"))
        return FST_OK;
    return st ? st : fst_blob_manifest_read(&m->base, json_object_get(j, "base"), most, err);
}

static double get_number(const json_t *j, const char *key)
{
    const json_t *v = json_object_get(j, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

/* NaN passes: it was not measured. */
static bool no_share(double x)
{
    return x < 0 || x > 1;
}

static fst_status own_validation_of(const json_t *j, fst_client_figures *f, fst_error *err)
{
    int64_t samples = 0;
    fst_status st = get_whole(j, "samples", 0, INT32_MAX, &samples, err);
    f->own_samples = (uint64_t)samples;
    f->own_accuracy = get_number(j, "accuracy");
    f->own_global_accuracy = get_number(j, "global_accuracy");
    if (!st && (no_share(f->own_accuracy) || no_share(f->own_global_accuracy)))
        st = fst_fail(err, FST_E_FORMAT, "an accuracy of \"own_validation\" is not from 0 to 1");
    return st;
}

static fst_status figures_of(const json_t *j, struct figures *m, fst_error *err)
{
    int64_t samples = 0, right = 0;
    fst_status st = get_hex(j, "instance", m->instance, sizeof m->instance, err);
    if (!st)
        st = get_round(j, m->stage, &m->round, err);
    if (!st)
        st = get_digest(j, "fingerprint", m->fingerprint, err);
    if (!st)
        st = get_digest(j, "given", m->given, err);
    if (!st)
        st = get_bool(j, "has", &m->own.has, err);
    if (!st)
        st = get_whole(j, "samples", 0, INT32_MAX, &samples, err);
    if (!st && json_object_get(j, "right"))
        st = get_whole(j, "right", 0, samples, &right, err);
    if (!st)
        st = get_text(j, "arch", m->own.arch, sizeof m->own.arch, false, err);
    if (!st)
        st = get_digest(j, "digest", m->own.digest, err);
    if (!st)
        st = get_text(j, "failed", m->failed, sizeof m->failed, true, err);
    m->own.accuracy = get_number(j, "accuracy");
    m->own.loss = get_number(j, "loss");
    m->own.samples = (uint64_t)samples;
    m->own.right = (uint64_t)right;
    if (!st && (no_share(m->own.accuracy) || m->own.loss < 0))
        st = fst_fail(err, FST_E_FORMAT, "\"accuracy\" is not from 0 to 1, or \"loss\" below 0");
    const json_t *own = json_object_get(j, "own_validation");
    return st || !own ? st : own_validation_of(own, &m->own, err);
}

static fst_status result_of(const json_t *j, uint64_t most, struct result *m, fst_error *err)
{
    const json_t *seconds = json_object_get(j, "seconds");
    fst_status st = get_hex(j, "instance", m->instance, sizeof m->instance, err);
    if (!st)
        st = get_round(j, m->stage, &m->round, err);
    m->seconds = json_is_number(seconds) ? json_number_value(seconds) : NAN;
    return st ? st : fst_blob_manifest_read(&m->blob, json_object_get(j, "blob"), most, err);
}

fst_status fst__read_hello(struct hello *out, const void *body, size_t len, fst_error *err)
{
    json_t *j = NULL;
    struct hello m = {.settings = NULL};
    fst_status st = open_body(&j, body, len, err);
    if (!st)
        st = hello_of(j, &m, err);
    json_decref(j);
    if (!st)
        *out = m;
    else
        fst__hello_release(&m);
    return st;
}

fst_status fst__read_beat(struct beat *out, const void *body, size_t len, fst_error *err)
{
    json_t *j = NULL;
    struct beat m = {.round = 0};
    fst_status st = open_body(&j, body, len, err);
    if (!st)
        st = beat_of(j, &m, err);
    json_decref(j);
    if (!st)
        *out = m;
    return st;
}

fst_status fst__read_welcome(struct welcome *out, const void *body, size_t len, fst_error *err)
{
    json_t *j = NULL;
    struct welcome m = {.hello = false};
    fst_status st = open_body(&j, body, len, err);
    if (!st)
        st = get_bool(j, "hello", &m.hello, err);
    json_decref(j);
    if (!st)
        *out = m;
    return st;
}

fst_status fst__read_refusal(struct refusal *out, const void *body, size_t len, fst_error *err)
{
    json_t *j = NULL;
    struct refusal m = {.final = false};
    fst_status st = open_body(&j, body, len, err);
    if (!st)
        st = get_bool(j, "final", &m.final, err);
    if (!st)
        st = get_text(j, "reason", m.reason, sizeof m.reason, true, err);
    if (!st && json_object_get(j, "instance"))
        st = get_hex(j, "instance", m.instance, sizeof m.instance, err);
    json_decref(j);
    if (!st)
        *out = m;
    return st;
}

fst_status fst__read_order(struct order *out, uint64_t most, const void *body, size_t len, fst_error *err)
{
    json_t *j = NULL;
    struct order m = {.kind = ORDER_STOP};
    fst_status st = open_body(&j, body, len, err);
    if (!st)
        st = order_of(j, most, &m, err);
    json_decref(j);
    if (!st)
        *out = m;
    return st;
}

fst_status fst__read_result(struct result *out, uint64_t most, const void *body, size_t len, fst_error *err)
{
    json_t *j = NULL;
    struct result m = {.round = 0};
    fst_status st = open_body(&j, body, len, err);
    if (!st)
        st = result_of(j, most, &m, err);
    json_decref(j);
    if (!st)
        *out = m;
    return st;
}

fst_status fst__read_cannot(struct cannot *out, const void *body, size_t len, fst_error *err)
{
    json_t *j = NULL;
    struct cannot m = {.round = 0};
    fst_status st = open_body(&j, body, len, err);
    if (!st)
        st = get_hex(j, "instance", m.instance, sizeof m.instance, err);
    if (!st)
        st = get_round(j, m.stage, &m.round, err);
    if (!st)
        st = get_text(j, "reason", m.reason, sizeof m.reason, true, err);
    json_decref(j);
    if (!st)
        *out = m;
    return st;
}

fst_status fst__read_receipt(struct receipt *out, const void *body, size_t len, fst_error *err)
{
    json_t *j = NULL;
    struct receipt m = {.round = 0};
    fst_status st = open_body(&j, body, len, err);
    if (!st)
        st = get_round(j, m.stage, &m.round, err);
    if (!st)
        st = get_bool(j, "folded", &m.folded, err);
    if (!st)
        st = get_text(j, "why", m.why, sizeof m.why, true, err);
    json_decref(j);
    if (!st)
        *out = m;
    return st;
}

fst_status fst__read_figures(struct figures *out, const void *body, size_t len, fst_error *err)
{
    json_t *j = NULL;
    struct figures m = {.round = 0};
    fst_status st = open_body(&j, body, len, err);
    if (!st)
        st = figures_of(j, &m, err);
    json_decref(j);
    if (!st)
        *out = m;
    return st;
}

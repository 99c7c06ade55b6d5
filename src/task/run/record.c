/*
 * Records of finished steps, output/NAME/stage.json: written when a step is done, read to see whether it is up to date,
 * which it is when everything that its result depends on has the digest that the record names (fingerprint.c) and its
 * files are what they were. Reading trusts nothing: whoever wrote something else there did not write a record.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

#define OWN_DIGEST "record_digest"
enum { MAX_RECORD = 1 << 20 };
#define MAX_ARTIFACT ((size_t)64 << 30)

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

static bool parse_own(json_t *j, struct own_figures *f)
{
    f->accuracy = number(json_object_get(j, "accuracy"));
    f->global_accuracy = number(json_object_get(j, "global_accuracy"));
    return !j || whole(j, "samples", &f->samples);
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
    if (!format || strcmp(format, FST__RECORD_FORMAT) ||
        !copy_text(n.fingerprint, sizeof n.fingerprint, json_object_get(j, "fingerprint")) ||
        !copy_text(n.artifact, sizeof n.artifact, json_object_get(j, "artifact")) ||
        !copy_text(n.digest, sizeof n.digest, json_object_get(j, "digest")))
        return false;
    if (json_object_get(j, "extra") &&
        (!copy_text(n.extra, sizeof n.extra, json_object_get(j, "extra")) ||
         !copy_text(n.extra_digest, sizeof n.extra_digest, json_object_get(j, "extra_digest"))))
        return false;
    if (json_object_get(j, "clients_digest") &&
        !copy_text(n.clients_digest, sizeof n.clients_digest, json_object_get(j, "clients_digest")))
        return false;
    if (!strcmp(n.artifact, FST__CLIENTS)) /* also where earlier versions did not say it twice */
        memcpy(n.clients_digest, n.digest, sizeof n.clients_digest);
    n.has_model = json_is_true(json_object_get(j, "has_model"));
    n.accuracy = number(json_object_get(j, "accuracy"));
    n.loss = number(json_object_get(j, "loss"));
    n.macro_f1 = number(json_object_get(j, "macro_f1"));
    n.balanced = number(json_object_get(j, "balanced_accuracy"));
    n.top5 = number(json_object_get(j, "top5_accuracy"));
    n.validation = number(json_object_get(j, "validation_accuracy"));
    n.seconds = number(json_object_get(j, "seconds"));
    int64_t up, down;
    if (!whole(j, "parameters", &n.parameters) || !whole(j, "samples", &n.samples) || !whole(j, "bytes_up", &up) ||
        !whole(j, "bytes_down", &down) || !whole(j, "best_round", &n.best_round))
        return false;
    n.bytes_up = (uint64_t)up;
    n.bytes_down = (uint64_t)down;
    if (json_object_get(j, "raw_bytes_up")) {
        if (!whole(j, "raw_bytes_up", &up) || !whole(j, "raw_bytes_down", &down))
            return false;
        n.raw_up = (uint64_t)up;
        n.raw_down = (uint64_t)down;
    }
    json_t *fusion = json_object_get(j, "fusion");
    if (fusion && !copy_text(n.fused_from, sizeof n.fused_from, json_object_get(fusion, "learnt_from")))
        return false;
    n.gate = number(json_object_get(fusion, "gate"));
    if (!parse_own(json_object_get(j, "own_validation"), &n.own) || !parse_edges(json_object_get(j, "edges"), &n) ||
        !parse_snr(json_object_get(j, "accuracy_by_snr"), &n))
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
        fst__digest_text(text, strlen(text), out);
    json_decref(rest);
    free(text);
    return text;
}

/* Was the record changed by somebody else than its step? One without a digest lost it to somebody. */
static bool was_changed(json_t *record)
{
    char now[FST_DIGEST_HEX];
    const char *text = json_string_value(json_object_get(record, OWN_DIGEST));
    return !(text && own_digest(record, now) && !strcmp(text, now));
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

static fst_status check_client_file(void *ctx, const char *name, const char *digest, fst_error *err)
{
    return unchanged(ctx, name, digest) ? FST_OK : fst_fail(err, FST_E_MISMATCH, "%s", name);
}

static bool clients_unchanged(const char *folder, const struct record *r)
{
    return !r->clients_digest[0] ||
           !fst__client_files(folder, r->clients_digest, check_client_file, (void *)folder, NULL);
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
         (!r.extra[0] || unchanged(folder, r.extra, r.extra_digest)) && edges_unchanged(folder, &r) &&
         clients_unchanged(folder, &r);
    if (ok)
        *out = r;
    return ok;
}

bool fst__record_current(const struct session *s, const struct step *step, struct record *out)
{
    char *folder = fst__step_path(s, step, "");
    bool ok = folder && fst__record_current_in(folder, step->fingerprint, out);
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

fst_status fst__read_artifact(const struct session *s, const struct step *step, const char *name, fst_buf *out,
                              fst_error *err)
{
    const struct record *r = &step->record;
    char *path = fst__step_path(s, step, name);
    fst_status st = path
                        ? fst__read_whole(path, strcmp(name, r->artifact) ? r->extra_digest : r->digest, out, NULL, err)
                        : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
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
                                        fst_json_number(e->accuracy), "own_accuracy", fst_json_number(e->own_accuracy),
                                        "global_accuracy", fst_json_number(e->global_accuracy), "missing_classes",
                                        e->missing, "model", model ? name : NULL, "digest", model ? e->digest : NULL));
    }
    return list;
}

json_t *fst__own_json(const struct own_figures *f)
{
    return json_pack("{s:I, s:o, s:o}", "samples", (json_int_t)f->samples, "accuracy", fst_json_number(f->accuracy),
                     "global_accuracy", fst_json_number(f->global_accuracy));
}

json_t *fst__fusion_json(const struct record *r)
{
    return json_pack("{s:s, s:o}", "learnt_from", r->fused_from, "gate", fst_json_number(r->gate));
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

void fst__raw_bytes_json(const struct record *r, struct json_t *j)
{
    if (!r->raw_up && !r->raw_down)
        return;
    json_object_set_new(j, "raw_bytes_up", json_integer((json_int_t)r->raw_up));
    json_object_set_new(j, "raw_bytes_down", json_integer((json_int_t)r->raw_down));
}

void fst__figures_json(const struct record *r, struct json_t *j)
{
    json_object_set_new(j, "accuracy", fst_json_number(r->accuracy));
    json_object_set_new(j, "loss", fst_json_number(r->loss));
    if (r->has_model) {
        json_object_set_new(j, "macro_f1", fst_json_number(r->macro_f1));
        json_object_set_new(j, "balanced_accuracy", fst_json_number(r->balanced));
        if (isfinite(r->top5))
            json_object_set_new(j, "top5_accuracy", json_real(r->top5));
    }
    if (r->has_model && isfinite(r->validation))
        json_object_set_new(j, "validation_accuracy", json_real(r->validation));
}

fst_status fst__record_write(const struct session *s, const struct step *step, const struct record *r, fst_error *err)
{
    json_t *j =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:b, s:I, s:I, s:I, s:I}", "format", FST__RECORD_FORMAT, "stage",
                  step->stage->name, "fingerprint", r->fingerprint, "artifact", r->artifact, "digest", r->digest,
                  "has_model", (int)r->has_model, "parameters", (json_int_t)r->parameters, "samples",
                  (json_int_t)r->samples, "bytes_up", (json_int_t)r->bytes_up, "bytes_down", (json_int_t)r->bytes_down);
    if (!j)
        return fst_fail_memory(err, 4096);
    fst__raw_bytes_json(r, j);
    fst__figures_json(r, j);
    json_object_set_new(j, "seconds", fst_json_number(r->seconds));
    if (step->inputs)
        json_object_set_new(j, "inputs", json_string(step->inputs));
    if (r->best_round)
        json_object_set_new(j, "best_round", json_integer(r->best_round));
    if (r->fused_from[0])
        json_object_set_new(j, "fusion", fst__fusion_json(r));
    if (r->snr.count)
        json_object_set_new(j, "accuracy_by_snr", fst__snr_json(r));
    if (r->own.samples)
        json_object_set_new(j, "own_validation", fst__own_json(&r->own));
    if (r->edges)
        json_object_set_new(j, "edges", fst__edges_json(r));
    if (r->extra[0]) {
        json_object_set_new(j, "extra", json_string(r->extra));
        json_object_set_new(j, "extra_digest", json_string(r->extra_digest));
    }
    if (r->clients_digest[0])
        json_object_set_new(j, "clients_digest", json_string(r->clients_digest));
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

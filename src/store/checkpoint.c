/*
 * Checkpoints over safetensors: exact values as text, a fingerprint of what the content depends on, and a
 * hash over all of it. A checkpoint is read whole before anything is believed, so that loading either
 * fills every tensor or none. It knows nothing of networks or optimisers.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/store.h"

#define KEY_PREFIX "fedstill."
#define KEY_KIND KEY_PREFIX "kind"
#define KEY_FINGERPRINT KEY_PREFIX "fingerprint"
#define KEY_HASH KEY_PREFIX "hash"
#define KIND "checkpoint 1"

enum {
    HASH_TEXT = 33,   /* 32 hexadecimal digits and the NUL */
    MAX_VALUES = 4096 /* what reading them costs grows with the square */
};

/* ---- the hash ----------------------------------------------------------------------------- */

/* Each value and tensor is one record of text; records are sorted, so that the order in a file does not
 * matter, and each text ends with a line break. Lengths stand before names, so that no two different
 * contents give one text. */
static fst_status hash_value(fst_buf *b, const char *key, const char *value, fst_error *err)
{
    return fst_buf_printf(b, err, "value %zu:%s=%zu:%s\n", strlen(key), key, strlen(value), value);
}

static fst_status hash_tensor(fst_buf *b, const fst_tensor *t, fst_error *err)
{
    char shape[256];
    size_t bytes = (size_t)fst_shape_count(&t->shape) * fst_dtype_size(t->dtype);
    fst_hash128 h = fst_hash(bytes ? t->data : "", bytes, 0);
    return fst_buf_printf(b, err, "tensor %zu:%s %s %s %016" PRIx64 "%016" PRIx64 "\n", strlen(t->name), t->name,
                          fst_dtype_name(t->dtype), fst_shape_text(&t->shape, shape, sizeof shape), h.hi, h.lo);
}

static void hash_finish(const fst_buf *b, char out[HASH_TEXT])
{
    fst_hash128 h = fst_hash(b->data ? b->data : "", b->len, 0);
    snprintf(out, HASH_TEXT, "%016" PRIx64 "%016" PRIx64, h.hi, h.lo);
}

static int by_pair_key(const void *a, const void *b)
{
    return strcmp(((const fst_pair *)a)->key, ((const fst_pair *)b)->key);
}

static int by_tensor_name(const void *a, const void *b)
{
    return strcmp((*(const fst_tensor *const *)a)->name, (*(const fst_tensor *const *)b)->name);
}

/* Pairs are sorted in place, tensors through an index. The pair with the hash itself is left out. */
static fst_status content_hash(fst_pair *pairs, size_t npairs, const fst_tensor *tensors, size_t ntensors,
                               char out[HASH_TEXT], fst_error *err)
{
    fst_buf b = {0};
    const fst_tensor **order = fst_calloc(ntensors + 1, sizeof *order);
    if (!order)
        return fst_fail_memory(err, ntensors * sizeof *order);
    for (size_t i = 0; i < ntensors; i++)
        order[i] = &tensors[i];
    qsort(order, ntensors, sizeof *order, by_tensor_name);
    qsort(pairs, npairs, sizeof *pairs, by_pair_key);
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < npairs; i++)
        if (strcmp(pairs[i].key, KEY_HASH) != 0)
            s = hash_value(&b, pairs[i].key, pairs[i].value, err);
    for (size_t i = 0; !s && i < ntensors; i++)
        s = hash_tensor(&b, order[i], err);
    if (!s)
        hash_finish(&b, out);
    fst_buf_release(&b);
    fst_free(order);
    return s;
}

/* ---- writing ------------------------------------------------------------------------------ */

struct fst_checkpoint_writer {
    fst_pair *pairs; /* keys and values owned */
    size_t npairs, pairs_cap;
    fst_tensor *tensors; /* names owned, data not */
    size_t ntensors, tensors_cap;
};

/* Makes room for one more. */
static fst_status grow(void **array, size_t *cap, size_t count, size_t size, fst_error *err)
{
    if (count < *cap)
        return FST_OK;
    size_t wanted = *cap ? *cap * 2 : 16;
    void *p = fst_realloc(*array, count * size, wanted * size);
    if (!p)
        return fst_fail_memory(err, wanted * size);
    *array = p;
    *cap = wanted;
    return FST_OK;
}

static fst_status put_pair(fst_checkpoint_writer *w, const char *key, const char *value, fst_error *err)
{
    for (size_t i = 0; i < w->npairs; i++)
        if (!strcmp(w->pairs[i].key, key))
            return fst_fail(err, FST_E_ARGUMENT, "checkpoint: \"%s\" is given twice", key);
    fst_status s = grow((void **)&w->pairs, &w->pairs_cap, w->npairs, sizeof *w->pairs, err);
    if (s)
        return s;
    fst_pair p = {fst_strdup(key), fst_strdup(value)};
    if (!p.key || !p.value) {
        fst_free((char *)p.key);
        fst_free((char *)p.value);
        return fst_fail_memory(err, strlen(key) + strlen(value));
    }
    w->pairs[w->npairs++] = p;
    return FST_OK;
}

fst_status fst_checkpoint_writer_new(fst_checkpoint_writer **out, const char *fingerprint, fst_error *err)
{
    fst_checkpoint_writer *w = fst_calloc(1, sizeof *w);
    if (!w)
        return fst_fail_memory(err, sizeof *w);
    fst_status s = put_pair(w, KEY_KIND, KIND, err);
    if (!s)
        s = put_pair(w, KEY_FINGERPRINT, fingerprint, err);
    if (s) {
        fst_checkpoint_writer_free(w);
        return s;
    }
    *out = w;
    return FST_OK;
}

void fst_checkpoint_writer_free(fst_checkpoint_writer *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->npairs; i++) {
        fst_free((char *)w->pairs[i].key);
        fst_free((char *)w->pairs[i].value);
    }
    for (size_t i = 0; i < w->ntensors; i++)
        fst_free((char *)w->tensors[i].name);
    fst_free(w->pairs);
    fst_free(w->tensors);
    fst_free(w);
}

fst_status fst_checkpoint_add(fst_checkpoint_writer *w, const fst_tensor *t, fst_error *err)
{
    int64_t count = fst_shape_count(&t->shape);
    if (!t->name || !t->name[0] || !strcmp(t->name, "__metadata__"))
        return fst_fail(err, FST_E_ARGUMENT, "checkpoint: a tensor cannot be called \"%s\"", t->name ? t->name : "");
    if (count < 0 || !fst_dtype_size(t->dtype) || (count && !t->data))
        return fst_fail(err, FST_E_ARGUMENT, "checkpoint: tensor \"%s\" has no data, type or shape", t->name);
    for (size_t i = 0; i < w->ntensors; i++)
        if (!strcmp(w->tensors[i].name, t->name))
            return fst_fail(err, FST_E_ARGUMENT, "checkpoint: tensor \"%s\" is given twice", t->name);
    fst_status s = grow((void **)&w->tensors, &w->tensors_cap, w->ntensors, sizeof *w->tensors, err);
    if (s)
        return s;
    fst_tensor copy = *t;
    copy.name = fst_strdup(t->name);
    if (!copy.name)
        return fst_fail_memory(err, strlen(t->name));
    w->tensors[w->ntensors++] = copy;
    return FST_OK;
}

fst_status fst_checkpoint_add_all(fst_checkpoint_writer *w, const fst_tensor *t, size_t n, fst_error *err)
{
    for (size_t i = 0; i < n; i++) {
        fst_status s = fst_checkpoint_add(w, &t[i], err);
        if (s)
            return s;
    }
    return FST_OK;
}

fst_status fst_checkpoint_put_text(fst_checkpoint_writer *w, const char *key, const char *value, fst_error *err)
{
    if (!strncmp(key, KEY_PREFIX, strlen(KEY_PREFIX)))
        return fst_fail(err, FST_E_ARGUMENT, "checkpoint: \"%s\": keys that start with " KEY_PREFIX " are reserved",
                        key);
    if (w->npairs >= MAX_VALUES - 1)
        return fst_fail(err, FST_E_LIMIT, "checkpoint: more than %d values", MAX_VALUES);
    return put_pair(w, key, value, err);
}

fst_status fst_checkpoint_put_int(fst_checkpoint_writer *w, const char *key, int64_t value, fst_error *err)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRId64, value);
    return fst_checkpoint_put_text(w, key, text, err);
}

fst_status fst_checkpoint_put_uint(fst_checkpoint_writer *w, const char *key, uint64_t value, fst_error *err)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, value);
    return fst_checkpoint_put_text(w, key, text, err);
}

/* %a is exact, but writes the locale's decimal point: that is put right. */
fst_status fst_checkpoint_put_double(fst_checkpoint_writer *w, const char *key, double value, fst_error *err)
{
    char text[40];
    snprintf(text, sizeof text, "%a", value);
    for (char *p = text; *p && isfinite(value); p++)
        if (!strchr("+-0123456789abcdefpx", *p))
            *p = '.';
    if (isnan(value))
        snprintf(text, sizeof text, "nan"); /* the sign and payload of a NaN mean nothing here */
    return fst_checkpoint_put_text(w, key, text, err);
}

fst_status fst_checkpoint_write(const fst_checkpoint_writer *w, const char *path, char digest[FST_DIGEST_HEX],
                                fst_error *err)
{
    char hash[HASH_TEXT];
    fst_pair *pairs = fst_calloc(w->npairs + 1, sizeof *pairs);
    if (!pairs)
        return fst_fail_memory(err, w->npairs * sizeof *pairs);
    memcpy(pairs, w->pairs, w->npairs * sizeof *pairs);
    fst_status s = content_hash(pairs, w->npairs, w->tensors, w->ntensors, hash, err);
    pairs[w->npairs] = (fst_pair){KEY_HASH, hash};
    if (!s)
        s = fst_safetensors_write(path, pairs, w->npairs + 1, w->tensors, w->ntensors, digest, err);
    fst_free(pairs);
    return s ? fst_fail_in(err, s, "checkpoint") : FST_OK;
}

/* ---- reading ------------------------------------------------------------------------------ */

struct fst_checkpoint {
    char *path;
    fst_safetensors *file; /* names and values */
    fst_tensor *tensors;
    size_t count;
    fst_arena data;
};

static fst_status read_tensors(fst_checkpoint *c, fst_error *err)
{
    uint64_t total = 0;
    c->count = fst_safetensors_count(c->file);
    c->tensors = fst_calloc(c->count + 1, sizeof *c->tensors);
    if (!c->tensors)
        return fst_fail_memory(err, c->count * sizeof *c->tensors);
    for (size_t i = 0; i < c->count; i++) {
        c->tensors[i] = fst_safetensors_at(c->file, i);
        uint64_t bytes = (uint64_t)fst_shape_count(&c->tensors[i].shape) * fst_dtype_size(c->tensors[i].dtype);
        total += (bytes + 63) / 64 * 64;
        if (bytes > FST_CHECKPOINT_MAX_BYTES || total > FST_CHECKPOINT_MAX_BYTES)
            return fst_fail(err, FST_E_LIMIT, "%s: more than %llu bytes of tensors", c->path,
                            (unsigned long long)FST_CHECKPOINT_MAX_BYTES);
    }
    fst_status s = fst_arena_init(&c->data, total ? (size_t)total : 64, err);
    for (size_t i = 0; !s && i < c->count; i++) {
        size_t bytes = (size_t)fst_shape_count(&c->tensors[i].shape) * fst_dtype_size(c->tensors[i].dtype);
        c->tensors[i].data = fst_arena_take(&c->data, bytes);
        s = fst_safetensors_read(c->file, i, c->tensors[i].data, bytes, err);
    }
    return s;
}

/* All pairs of the metadata in one block. */
static fst_status list_pairs(const fst_checkpoint *c, fst_pair **out, size_t *count, fst_error *err)
{
    size_t n = 0, cap = 0;
    fst_pair *pairs = NULL, p;
    while (fst_safetensors_meta_at(c->file, n, &p)) {
        fst_status s =
            n < MAX_VALUES ? FST_OK : fst_fail(err, FST_E_LIMIT, "%s: more than %d values", c->path, MAX_VALUES);
        if (!s)
            s = grow((void **)&pairs, &cap, n, sizeof *pairs, err);
        if (s) {
            fst_free(pairs);
            return s;
        }
        pairs[n++] = p;
    }
    *out = pairs;
    *count = n;
    return FST_OK;
}

static fst_status check_kind(const fst_checkpoint *c, fst_error *err)
{
    const char *kind = fst_safetensors_meta(c->file, KEY_KIND);
    if (!kind || !fst_checkpoint_fingerprint(c) || !fst_safetensors_meta(c->file, KEY_HASH))
        return fst_fail(err, FST_E_FORMAT, "%s: a safetensors file, but no checkpoint of fedstill", c->path);
    if (strcmp(kind, KIND) != 0)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: is a \"%s\", this fedstill reads \"" KIND "\"", c->path, kind);
    return FST_OK;
}

static fst_status check_hash(const fst_checkpoint *c, fst_error *err)
{
    char hash[HASH_TEXT];
    fst_pair *pairs = NULL;
    size_t npairs = 0;
    fst_status s = list_pairs(c, &pairs, &npairs, err);
    if (!s && npairs == 0)
        s = fst_fail_memory(err, sizeof *pairs); /* check_kind saw some: only an allocation can have failed */
    if (!s)
        s = content_hash(pairs, npairs, c->tensors, c->count, hash, err);
    fst_free(pairs);
    if (!s && strcmp(hash, fst_safetensors_meta(c->file, KEY_HASH)) != 0)
        s = fst_fail(
            err, FST_E_FORMAT,
            "%s: damaged: its content does not have the hash that was written with it; delete it to start over",
            c->path);
    return s;
}

static fst_status read_checkpoint(fst_checkpoint *c, const char *fingerprint, fst_error *err)
{
    fst_status s = fst_safetensors_open(&c->file, c->path, err);
    if (!s)
        s = check_kind(c, err);
    if (!s)
        s = read_tensors(c, err);
    if (!s)
        s = check_hash(c, err);
    if (!s && fingerprint && strcmp(fingerprint, fst_checkpoint_fingerprint(c)) != 0)
        s = fst_fail(err, FST_E_MISMATCH,
                     "%s: belongs to another configuration or other inputs (fingerprint %.16s..., wanted %.16s...)",
                     c->path, fst_checkpoint_fingerprint(c), fingerprint);
    return s;
}

fst_status fst_checkpoint_open(fst_checkpoint **out, const char *path, const char *fingerprint, fst_error *err)
{
    fst_checkpoint *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    c->path = fst_strdup(path);
    fst_status s = c->path ? read_checkpoint(c, fingerprint, err) : fst_fail_memory(err, strlen(path));
    if (s) {
        fst_checkpoint_free(c);
        return s;
    }
    *out = c;
    return FST_OK;
}

void fst_checkpoint_free(fst_checkpoint *c)
{
    if (!c)
        return;
    fst_safetensors_free(c->file);
    fst_arena_release(&c->data);
    fst_free(c->tensors);
    fst_free(c->path);
    fst_free(c);
}

const char *fst_checkpoint_fingerprint(const fst_checkpoint *c)
{
    return fst_safetensors_meta(c->file, KEY_FINGERPRINT);
}

size_t fst_checkpoint_count(const fst_checkpoint *c)
{
    return c->count;
}

fst_tensor fst_checkpoint_at(const fst_checkpoint *c, size_t i)
{
    return c->tensors[i];
}

static fst_status check_wanted(const fst_checkpoint *c, const fst_tensor *w, size_t *at, fst_error *err)
{
    char have[256], want[256];
    if (!fst_safetensors_find(c->file, w->name, at))
        return fst_fail(err, FST_E_MISMATCH, "%s: has no tensor \"%s\"", c->path, w->name);
    const fst_tensor *t = &c->tensors[*at];
    if (t->dtype != w->dtype)
        return fst_fail(err, FST_E_MISMATCH, "%s: tensor \"%s\" is %s, %s is wanted", c->path, w->name,
                        fst_dtype_name(t->dtype), fst_dtype_name(w->dtype));
    if (!fst_shape_equal(&t->shape, &w->shape))
        return fst_fail(err, FST_E_MISMATCH, "%s: tensor \"%s\" has shape %s, %s is wanted", c->path, w->name,
                        fst_shape_text(&t->shape, have, sizeof have), fst_shape_text(&w->shape, want, sizeof want));
    return FST_OK;
}

fst_status fst_checkpoint_load(const fst_checkpoint *c, const fst_tensor *wanted, size_t n, fst_error *err)
{
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        fst_status s = check_wanted(c, &wanted[i], &at, err);
        if (s)
            return s;
    }
    for (size_t i = 0; i < n; i++)
        if (fst_safetensors_find(c->file, wanted[i].name, &at)) {
            size_t bytes = (size_t)fst_shape_count(&wanted[i].shape) * fst_dtype_size(wanted[i].dtype);
            if (bytes)
                memcpy(wanted[i].data, c->tensors[at].data, bytes);
        }
    return FST_OK;
}

fst_status fst_checkpoint_text(const fst_checkpoint *c, const char *key, const char **out, fst_error *err)
{
    const char *text = fst_safetensors_meta(c->file, key);
    if (!text)
        return fst_fail(err, FST_E_MISMATCH, "%s: has no value \"%s\"", c->path, key);
    *out = text;
    return FST_OK;
}

static fst_status not_a(const fst_checkpoint *c, const char *key, const char *text, const char *what, fst_error *err)
{
    return fst_fail(err, FST_E_MISMATCH, "%s: value \"%s\" is \"%.64s\", not %s", c->path, key, text, what);
}

fst_status fst_checkpoint_int(const fst_checkpoint *c, const char *key, int64_t *out, fst_error *err)
{
    const char *text = NULL;
    char *end;
    fst_status s = fst_checkpoint_text(c, key, &text, err);
    if (s)
        return s;
    errno = 0;
    long long v = strtoll(text, &end, 10);
    if (errno || end == text || *end || !strchr("-0123456789", *text))
        return not_a(c, key, text, "an integer", err);
    *out = v;
    return FST_OK;
}

fst_status fst_checkpoint_uint(const fst_checkpoint *c, const char *key, uint64_t *out, fst_error *err)
{
    const char *text = NULL;
    char *end;
    fst_status s = fst_checkpoint_text(c, key, &text, err);
    if (s)
        return s;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || end == text || *end || !strchr("0123456789", *text))
        return not_a(c, key, text, "a non-negative integer", err);
    *out = v;
    return FST_OK;
}

/* Reads what put_double wrote, in any locale: [-]0xH[.HHH]p[+-]D, inf, -inf, nan. */
static bool parse_hex_double(const char *p, double *out)
{
    bool minus = *p == '-';
    double value = 0, unit = 1;
    p += minus;
    if (!strcmp(p, "inf") || !strcmp(p, "nan")) {
        *out = *p == 'i' ? (minus ? -INFINITY : INFINITY) : NAN;
        return true;
    }
    if (strncmp(p, "0x", 2) != 0 || (p[2] != '0' && p[2] != '1'))
        return false;
    value = p[2] - '0';
    p += 3;
    if (*p == '.')
        for (p++; *p && strchr("0123456789abcdef", *p); p++) {
            unit /= 16;
            value += unit * (*p <= '9' ? *p - '0' : *p - 'a' + 10);
        }
    char *end;
    if (*p != 'p' || !p[1])
        return false;
    long exponent = strtol(p + 1, &end, 10);
    if (*end || exponent < -2000 || exponent > 2000)
        return false;
    *out = ldexp(minus ? -value : value, (int)exponent);
    return true;
}

fst_status fst_checkpoint_double(const fst_checkpoint *c, const char *key, double *out, fst_error *err)
{
    const char *text = NULL;
    double v;
    fst_status s = fst_checkpoint_text(c, key, &text, err);
    if (s)
        return s;
    if (!parse_hex_double(text, &v))
        return not_a(c, key, text, "a number in hexadecimal (%a)", err);
    *out = v;
    return FST_OK;
}

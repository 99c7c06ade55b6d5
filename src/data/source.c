/* Opening a source by its specification, guessing the format, and what all sources have in common:
 * key, digest, and the source whose samples lie in one block of memory. No format is parsed here. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include <jansson.h>

#include "formats.h"
#include "transform.h"

/* In the order in which they are guessed: the narrow ones first. */
static const fst__format *const formats[] = {&fst__format_idx,   &fst__format_cifar10, &fst__format_cifar100,
                                             &fst__format_array, &fst__format_sigmf,   &fst__format_radioml,
                                             &fst__format_folder};
enum { FORMATS = sizeof formats / sizeof *formats };

const char *const *fst_source_formats(void)
{
    static const char *const names[FORMATS + 1] = {"idx",   "cifar10", "cifar100", "array",
                                                   "sigmf", "radioml", "folder",   NULL};
    return names;
}

bool fst__is_folder(const char *path)
{
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode);
}

bool fst__has(const char *folder, const char *name)
{
    char *path = fst_path_join(folder, name);
    bool there = path && fst_file_exists(path);
    fst_free(path);
    return there;
}

bool fst__ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && !strcasecmp(s + n - m, suffix);
}

uint64_t fst__limited(uint64_t count, size_t limit)
{
    return limit && limit < count ? limit : count;
}

static bool is_packed(const char *path)
{
    static const char *const endings[] = {".tar.gz",  ".tgz", ".tar.xz", ".txz",     ".tar.bz2",
                                          ".tar.zst", ".zip", ".7z",     ".sigmf.gz"};
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++)
        if (fst__ends_with(path, endings[i]))
            return true;
    return false;
}

static fst_status choose(const fst__format **out, const fst_source_spec *spec, fst_error *err)
{
    for (int i = 0; i < FORMATS; i++)
        if (spec->format ? !strcmp(spec->format, formats[i]->name) : formats[i]->probe(spec->path)) {
            *out = formats[i];
            return FST_OK;
        }
    if (spec->format)
        return fst_fail(
            err, FST_E_CONFIG,
            "unknown data format \"%s\": idx, cifar10, cifar100, array, sigmf, radioml and folder are known",
            spec->format);
    if (fst__ends_with(spec->path, "-ubyte") || fst__ends_with(spec->path, "-ubyte.gz"))
        return fst_fail(err, FST_E_FORMAT, "%s: IDX files are read by their folder: name that", spec->path);
    if (!fst_file_exists(spec->path))
        return fst_fail(err, FST_E_IO, "%s: there is no such file or folder", spec->path);
    if (is_packed(spec->path))
        return fst_fail(
            err, FST_E_FORMAT,
            "%s: a compressed archive: unpack it (tar -xf, unzip) and name the folder; of archives only tar "
            "files of SigMF recordings that are not compressed are read",
            spec->path);
    return fst_fail(
        err, FST_E_FORMAT,
        "%s: holds no data set that is known here: the four files of IDX, batches of CIFAR-10 or CIFAR-100, a "
        ".safetensors, .npz or .npy file, SigMF recordings or an archive of them, RadioML's pickle or HDF5 file, or a "
        "folder of images for each class",
        spec->path);
}

/* Names go into JSON, in model files and reports. */
static fst_status check_names(const fst_source *s, fst_error *err)
{
    for (int c = 0; s->class_names && c < s->classes; c++) {
        json_t *text = json_string(s->class_names[c]);
        if (!text)
            return fst_fail(err, FST_E_FORMAT,
                            "%s: the name of class %d, \"%s\", is not UTF-8: rename its folder or label", s->name, c,
                            s->class_names[c]);
        json_decref(text);
    }
    return FST_OK;
}

fst_status fst_source_open(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    fst_source_spec full = *spec;
    const fst__format *format = NULL;
    if (!full.path || !full.path[0])
        return fst_fail(err, FST_E_ARGUMENT, "a data source needs a path");
    if (!full.split)
        full.split = "train";
    bool val = !strcmp(full.split, "val");
    if (strcmp(full.split, "train") && strcmp(full.split, "test") && !val)
        return fst_fail(err, FST_E_CONFIG, "%s: split is \"train\" or \"test\" (or \"val\"), not \"%s\"", full.path,
                        full.split);
    if (full.classes < 0 || full.classes > FST_MAX_CLASSES)
        return fst_fail(err, FST_E_CONFIG, "%s: classes must be 0 (as the labels show) ... %d, not %d", full.path,
                        FST_MAX_CLASSES, full.classes);
    fst_status s = choose(&format, &full, err);
    if (!s && val && !format->has_val)
        s = fst_fail(err, FST_E_ABSENT, "%s: %s data have the splits \"train\" and \"test\", not \"val\"", full.path,
                     format->name);
    if (!s)
        s = format->open(out, &full, err);
    if (s)
        return s;
    s = check_names(*out, err);
    if (s) {
        fst_source_close(*out);
        *out = NULL;
    }
    return s;
}

void fst_source_close(fst_source *s)
{
    if (s)
        s->v->close(s);
}

size_t fst_source_sample_bytes(const fst_source *s)
{
    return (size_t)fst_shape_count(&s->shape) * fst_dtype_size(s->dtype);
}

/* ---- key and digest ------------------------------------------------------------------------- */

/* "U8 (1, 28, 28)" */
static int describe(const fst_source *s, char *out, size_t size)
{
    char shape[256];
    return snprintf(out, size, "%s %s", fst_dtype_name(s->dtype), fst_shape_text(&s->shape, shape, sizeof shape));
}

uint64_t fst__source_kind(const fst_source *s)
{
    char text[320];
    int n = describe(s, text, sizeof text);
    return fst_hash(text, (size_t)n, 0).lo;
}

fst_status fst_source_key(const fst_source *s, size_t i, fst_hash128 *out, fst_error *err)
{
    unsigned char few[16384], *raw = few;
    size_t bytes = fst_source_sample_bytes(s);
    if (i >= s->count)
        return fst_fail(err, FST_E_ARGUMENT, "%s: there is no sample %zu, the last is %zu", s->name, i, s->count - 1);
    if (bytes > sizeof few && !(raw = fst_alloc(bytes)))
        return fst_fail_memory(err, bytes);
    fst_status st = s->v->get(s, i, raw, err);
    if (!st)
        *out = fst_hash(raw, bytes, fst__source_kind(s));
    if (raw != few)
        fst_free(raw);
    return st;
}

static void digest_labels(fst_sha256 *sha, const fst_source *s)
{
    unsigned char block[4096];
    size_t at = 0;
    for (size_t i = 0; i < s->count; i++) {
        uint32_t v = (uint32_t)s->labels[i];
        for (int k = 0; k < 4; k++)
            block[at++] = (unsigned char)(v >> 8 * k);
        if (at == sizeof block || i + 1 == s->count) {
            fst_sha256_update(sha, block, at);
            at = 0;
        }
    }
}

fst_status fst__source_digest(const fst_source *s, char hex[FST_DIGEST_HEX], fst_error *err)
{
    char text[320];
    fst_sha256 sha;
    size_t bytes = fst_source_sample_bytes(s);
    unsigned char *raw = fst_alloc(bytes);
    fst_status st = FST_OK;
    if (!raw)
        return fst_fail_memory(err, bytes);
    fst_sha256_init(&sha);
    int n = describe(s, text, sizeof text);
    n += snprintf(text + n, sizeof text - (size_t)n, " %zu\n", s->count);
    fst_sha256_update(&sha, text, (size_t)n);
    digest_labels(&sha, s);
    for (size_t i = 0; !st && i < s->count; i++) {
        st = s->v->get(s, i, raw, err);
        if (!st)
            fst_sha256_update(&sha, raw, bytes);
    }
    if (!st)
        fst_sha256_final(&sha, hex);
    fst_free(raw);
    return st;
}

/* ---- sources in memory ---------------------------------------------------------------------- */

fst_status fst__held_get(const fst_source *s, size_t i, void *dst, fst_error *err)
{
    const fst__held *h = (const fst__held *)s;
    size_t bytes = fst_source_sample_bytes(s);
    if (i >= s->count)
        return fst_fail(err, FST_E_ARGUMENT, "%s: there is no sample %zu, the last is %zu", s->name, i, s->count - 1);
    memcpy(dst, h->data + i * bytes, bytes);
    return FST_OK;
}

const unsigned char *fst__held_view(const fst_source *s, size_t i)
{
    bool held = s->v->get == fst__held_get && i < s->count;
    return held ? ((const fst__held *)s)->data + i * fst_source_sample_bytes(s) : NULL;
}

void fst__held_close(fst_source *s)
{
    fst__held *h = (fst__held *)s;
    if (!h)
        return;
    fst_free(h->own_data);
    fst_free(h->own_labels);
    fst_free(h->own_snr);
    fst_free(h->own_group);
    fst_free(h->base.class_names); /* one block with its strings */
    fst_free(h->base.name);
    fst_free(h);
}

fst_status fst__held_new(fst__held **out, const fst_source_vtable *v, const char *name, fst_error *err)
{
    fst__held *h = fst_calloc(1, sizeof *h);
    if (!h)
        return fst_fail_memory(err, sizeof *h);
    h->base.v = v;
    h->base.name = fst_strdup(name);
    if (!h->base.name) {
        fst_free(h);
        return fst_fail_memory(err, strlen(name) + 1);
    }
    *out = h;
    return FST_OK;
}

fst_status fst__held_describe(fst__held *h, fst_dtype dtype, const fst_shape *shape, uint64_t count, size_t *bytes,
                              fst_error *err)
{
    char text[256];
    int64_t elements = fst_shape_count(shape);
    uint64_t total;
    if (count == 0)
        return fst_fail(err, FST_E_FORMAT, "%s: holds no samples", h->base.name);
    if (elements <= 0)
        return fst_fail(err, FST_E_FORMAT, "%s: a sample of shape %s holds nothing", h->base.name,
                        fst_shape_text(shape, text, sizeof text));
    if (count > UINT32_MAX || __builtin_mul_overflow((uint64_t)elements * fst_dtype_size(dtype), count, &total) ||
        (uint64_t)elements > FST_SOURCE_MAX_BYTES || total > FST_SOURCE_MAX_BYTES)
        return fst_fail(err, FST_E_LIMIT, "%s: %llu samples of shape %s are more than the %zu MB a source may hold",
                        h->base.name, (unsigned long long)count, fst_shape_text(shape, text, sizeof text),
                        FST_SOURCE_MAX_BYTES >> 20);
    h->base.dtype = dtype;
    h->base.shape = *shape;
    h->base.count = (size_t)count;
    *bytes = (size_t)total;
    return FST_OK;
}

fst_status fst__held_reserve(fst__held *h, fst_dtype dtype, const fst_shape *shape, uint64_t count, fst_error *err)
{
    size_t bytes = 0;
    fst_status s = fst__held_describe(h, dtype, shape, count, &bytes, err);
    if (s)
        return s;
    h->own_data = fst_alloc(bytes);
    if (!h->own_data)
        return fst_fail_memory(err, bytes);
    h->data = h->own_data;
    return FST_OK;
}

fst_status fst__names_copy(char ***out, char *const *names, size_t n, fst_error *err)
{
    size_t bytes = n * sizeof(char *);
    for (size_t i = 0; i < n; i++)
        bytes += strlen(names[i]) + 1;
    char **copy = fst_alloc(bytes);
    if (!copy)
        return fst_fail_memory(err, bytes);
    char *at = (char *)(copy + n);
    for (size_t i = 0; i < n; i++) {
        size_t len = strlen(names[i]) + 1;
        copy[i] = memcpy(at, names[i], len);
        at += len;
    }
    *out = copy;
    return FST_OK;
}

fst_status fst_source_same_classes(const fst_source *a, const fst_source *b, fst_error *err)
{
    for (int c = 0; a->class_names && b->class_names && c < a->classes && c < b->classes; c++)
        if (strcmp(a->class_names[c], b->class_names[c]))
            return fst_fail(err, FST_E_MISMATCH, "class %d is \"%s\" in %s and \"%s\" in %s", c, a->class_names[c],
                            a->name, b->class_names[c], b->name);
    return FST_OK;
}

fst_status fst__held_check_finite(const fst__held *h, const fst__picks *p, fst_error *err)
{
    const float *x = (const float *)(const void *)h->data;
    size_t a_sample = (size_t)fst_shape_count(&h->base.shape), n = a_sample * h->base.count;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return fst_fail(err, FST_E_NUMERIC, "%s: sample %zu, element %zu is %f; finite numbers are needed",
                            h->base.name, fst__picked(p, i / a_sample), i % a_sample, (double)x[i]);
    return FST_OK;
}

static fst_status check_labels(const char *name, const int32_t *labels, size_t n, int wanted, int *classes,
                               fst_error *err)
{
    int32_t top = wanted > 0 ? wanted - 1 : FST_MAX_CLASSES - 1, most = 0;
    for (size_t i = 0; i < n; i++) {
        if (labels[i] < 0 || labels[i] > top)
            return fst_fail(err, FST_E_FORMAT, "%s: sample %zu has label %d, labels must be 0 ... %d", name, i,
                            (int)labels[i], (int)top);
        if (labels[i] > most)
            most = labels[i];
    }
    *classes = wanted > 0 ? wanted : most + 1;
    return FST_OK;
}

fst_status fst__held_choose(fst__held *h, size_t n, int wanted, bool warn, size_t limit, fst__picks *out,
                            fst_error *err)
{
    fst__picks p = {0};
    fst_status s = check_labels(h->base.name, h->own_labels, n, wanted, &h->base.classes, err);
    if (!s)
        s = fst__pick(&p, h->base.name, h->own_labels, n, limit, err);
    if (s)
        return s;
    if (warn)
        fst__warn_empty_classes(&h->base, h->own_labels, n);
    for (size_t i = 0; p.index && i < p.count; i++) {
        size_t k = p.index[i]; /* never less than i */
        h->own_labels[i] = h->own_labels[k];
        if (h->own_snr)
            h->own_snr[i] = h->own_snr[k];
        if (h->own_group)
            h->own_group[i] = h->own_group[k];
    }
    *out = p;
    return FST_OK;
}

fst_status fst__held_finish(fst__held *h, const int32_t *labels, size_t nlabels, int wanted, fst_source **out,
                            fst_error *err)
{
    fst_source *b = &h->base;
    fst_status s = check_labels(b->name, labels, nlabels, wanted, &b->classes, err);
    if (s)
        return s;
    b->labels = labels;
    b->snr = h->own_snr;
    b->group = h->own_group;
    s = fst__source_digest(b, b->digest, err);
    if (!s)
        *out = b;
    return s;
}

/*
 * Arrays of samples and labels from safetensors, npz or a pair of npy files. Samples are kept as
 * bytes or floats; other widths of float are converted, and nothing else is, since a guess at the scale of
 * 16-bit integers would be wrong half of the time.
 */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "formats.h"

static const fst_source_vtable vtable = {"array", fst__held_get, fst__held_close};

enum { NAME_SIZE = 256 };

/* A place that holds arrays by name. */
struct store {
    enum { SAFETENSORS, NPZ, NPY } kind;
    char *path; /* the file; for NPY the folder */
    fst_safetensors *file;
    char **names; /* NPZ */
    size_t count;
    bool one_split;         /* the file's own name says the split: names in it need not */
    char only_x[NAME_SIZE]; /* the specification named one .npy file: this one holds the samples */
};

static void store_close(struct store *st)
{
    fst_safetensors_free(st->file);
    fst_free(st->names);
    fst_free(st->path);
}

static bool store_has(const struct store *st, const char *name)
{
    size_t i;
    char file[NAME_SIZE + 8];
    if (st->kind == SAFETENSORS)
        return fst_safetensors_find(st->file, name, &i);
    for (i = 0; st->kind == NPZ && i < st->count; i++)
        if (!strcmp(st->names[i], name))
            return true;
    snprintf(file, sizeof file, "%s.npy", name);
    return st->kind == NPY && fst__has(st->path, file);
}

/* ---- finding the files ---------------------------------------------------------------------- */

static bool probe(const char *path)
{
    static const char *const inside[] = {"train.safetensors", "train.npz", "x.npy",     "x_train.npy",
                                         "test.safetensors",  "test.npz",  "x_test.npy"};
    if (!fst__is_folder(path))
        return fst_file_exists(path) &&
               (fst__ends_with(path, ".safetensors") || fst__ends_with(path, ".npz") || fst__ends_with(path, ".npy"));
    for (size_t i = 0; i < sizeof inside / sizeof *inside; i++)
        if (fst__has(path, inside[i]))
            return true;
    return false;
}

/* A folder holds SPLIT.safetensors, SPLIT.npz, or npy files. */
static fst_status locate_in_folder(struct store *st, const fst_source_spec *spec, fst_error *err)
{
    static const char *const patterns[] = {"%s.safetensors", "%s.npz"};
    char file[32];
    st->kind = NPY;
    for (int i = 0; i < 2 && !st->one_split; i++) {
        snprintf(file, sizeof file, patterns[i], spec->split);
        if (fst__has(spec->path, file)) {
            st->kind = i ? NPZ : SAFETENSORS;
            st->one_split = true;
        }
    }
    st->path = fst_path_join(spec->path, st->one_split ? file : "");
    return st->path ? FST_OK : fst_fail_memory(err, strlen(spec->path));
}

static fst_status locate_npy(struct store *st, const char *path, fst_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    size_t len = strlen(name) - strlen(".npy"), folder = (size_t)(name - path);
    if (len == 0 || len >= sizeof st->only_x)
        return fst_fail(err, FST_E_ARGUMENT, "%s: a name of 1 to %d letters before .npy is needed", path,
                        NAME_SIZE - 1);
    st->kind = NPY;
    memcpy(st->only_x, name, len);
    st->path = fst_strdup(folder ? path : ".");
    if (!st->path)
        return fst_fail_memory(err, folder);
    if (folder)
        st->path[folder] = 0;
    return FST_OK;
}

static fst_status store_open(struct store *st, const fst_source_spec *spec, fst_error *err)
{
    const char *path = spec->path;
    fst_status s = FST_OK;
    if (fst__is_folder(path))
        s = locate_in_folder(st, spec, err);
    else if (fst__ends_with(path, ".npy"))
        s = locate_npy(st, path, err);
    else if (!fst__ends_with(path, ".npz") && !fst__ends_with(path, ".safetensors"))
        return fst_fail(err, FST_E_FORMAT, "%s: arrays are read from .safetensors, .npz or .npy", path);
    else if (!(st->path = fst_strdup(path)))
        return fst_fail_memory(err, strlen(path));
    else
        st->kind = fst__ends_with(path, ".npz") ? NPZ : SAFETENSORS;
    if (!s && st->kind == SAFETENSORS)
        s = fst_safetensors_open(&st->file, st->path, err);
    if (!s && st->kind == NPZ)
        s = fst_npz_list(st->path, &st->names, &st->count, err);
    return s;
}

/* "x_train" goes before "x". A test split never falls back to the default name "x" of a file that serves all
 * splits: that would silently test on what was trained on. */
static fst_status resolve(const struct store *st, const char *given, const char *usual, const char *split, char *out,
                          fst_error *err)
{
    const char *base = given ? given : usual;
    bool plain = given || st->one_split || st->only_x[0] || !strcmp(split, "train");
    int n = snprintf(out, NAME_SIZE, "%s_%s", base, split);
    if (n < 0 || n >= NAME_SIZE)
        return fst_fail(err, FST_E_ARGUMENT, "%s: an array's name has at most %d letters", st->path, NAME_SIZE - 8);
    if (store_has(st, out))
        return FST_OK;
    if (plain && store_has(st, base)) {
        snprintf(out, NAME_SIZE, "%s", base);
        return FST_OK;
    }
    return fst_fail(err, FST_E_FORMAT, "%s: there is no array \"%s_%s\"%s%s%s", st->path, base, split,
                    plain ? " or \"" : "", plain ? base : "", plain ? "\" in it" : " in it");
}

/* ---- reading -------------------------------------------------------------------------------- */

static fst_status read_tensor(const struct store *st, const char *name, bool samples, fst_array *out, fst_error *err)
{
    size_t i = 0;
    if (!fst_safetensors_find(st->file, name, &i))
        return fst_fail(err, FST_E_FORMAT, "%s: there is no tensor \"%s\"", st->path, name);
    fst_tensor t = fst_safetensors_at(st->file, i);
    bool convert = samples && (t.dtype == FST_F64 || t.dtype == FST_F16 || t.dtype == FST_BF16);
    fst_dtype dtype = convert ? FST_F32 : t.dtype;
    size_t count = (size_t)fst_shape_count(&t.shape), bytes;
    /* count fits the file, but as floats it may not fit a size */
    if (__builtin_mul_overflow(count, fst_dtype_size(dtype), &bytes) || bytes > FST_SOURCE_MAX_BYTES)
        return fst_fail(err, FST_E_LIMIT, "%s: tensor \"%s\" is larger than the %zu MB a source may hold", st->path,
                        name, FST_SOURCE_MAX_BYTES >> 20);
    void *data = fst_alloc(bytes);
    if (!data)
        return fst_fail_memory(err, bytes);
    fst_status s = convert ? fst_safetensors_read_f32(st->file, i, data, count, err)
                           : fst_safetensors_read(st->file, i, data, bytes, err);
    if (s)
        fst_free(data);
    else
        *out = (fst_array){.dtype = dtype, .shape = t.shape, .data = data};
    return s;
}

/* Doubles shrink where they stand; halves need a block of their own. */
static fst_status widths_to_f32(fst_array *a, fst_error *err)
{
    size_t count = (size_t)fst_shape_count(&a->shape);
    if (a->dtype == FST_F64) {
        unsigned char *p = a->data;
        for (size_t i = 0; i < count; i++) {
            double v;
            memcpy(&v, p + i * sizeof v, sizeof v);
            float f = (float)v;
            memcpy(p + i * sizeof f, &f, sizeof f);
        }
        a->dtype = FST_F32;
    } else if (a->dtype == FST_F16) {
        float *wide = fst_alloc(count * sizeof *wide);
        if (!wide)
            return fst_fail_memory(err, count * sizeof *wide);
        for (size_t i = 0; i < count; i++)
            wide[i] = fst_f32_from_f16(((const uint16_t *)a->data)[i]);
        fst_free(a->data);
        a->data = wide;
        a->dtype = FST_F32;
    }
    return FST_OK;
}

static fst_status store_read(const struct store *st, const char *name, bool samples, fst_array *out, fst_error *err)
{
    fst_array a = {0};
    fst_status s;
    if (st->kind == SAFETENSORS) {
        s = read_tensor(st, name, samples, &a, err);
    } else if (st->kind == NPZ) {
        s = fst_npz_read(&a, st->path, name, FST_SOURCE_MAX_BYTES, err);
    } else {
        char file[NAME_SIZE + 8];
        snprintf(file, sizeof file, "%s.npy", name);
        char *path = fst_path_join(st->path, file);
        s = path ? fst_npy_read(&a, path, FST_SOURCE_MAX_BYTES, err) : fst_fail_memory(err, strlen(st->path));
        fst_free(path);
    }
    if (!s && samples)
        s = widths_to_f32(&a, err);
    if (s)
        fst_array_release(&a);
    else
        *out = a;
    return s;
}

/* Element i of an integer array; what no int64_t can hold becomes its largest value. */
static int64_t integer_at(const fst_array *a, size_t i)
{
    switch (a->dtype) {
    case FST_BOOL:
        return ((const unsigned char *)a->data)[i] != 0;
    case FST_U8:
        return ((const uint8_t *)a->data)[i];
    case FST_I8:
        return ((const int8_t *)a->data)[i];
    case FST_U16:
        return ((const uint16_t *)a->data)[i];
    case FST_I16:
        return ((const int16_t *)a->data)[i];
    case FST_U32:
        return ((const uint32_t *)a->data)[i];
    case FST_I32:
        return ((const int32_t *)a->data)[i];
    case FST_U64: {
        uint64_t v = ((const uint64_t *)a->data)[i];
        return v > INT64_MAX ? INT64_MAX : (int64_t)v;
    }
    default:
        return ((const int64_t *)a->data)[i];
    }
}

static fst_status take_labels(fst__held *h, const fst_array *y, size_t *count, int classes, fst_error *err)
{
    char text[256];
    bool list = y->shape.rank == 1 || (y->shape.rank == 2 && y->shape.dim[1] == 1);
    if (!list || fst_shape_count(&y->shape) <= 0)
        return fst_fail(err, FST_E_FORMAT, "%s: labels of shape %s; a list (N,) is needed", h->base.name,
                        fst_shape_text(&y->shape, text, sizeof text));
    if (y->dtype == FST_F32 || y->dtype == FST_F64 || y->dtype == FST_F16 || y->dtype == FST_BF16)
        return fst_fail(err, FST_E_FORMAT, "%s: labels are %s; integers are needed", h->base.name,
                        fst_dtype_name(y->dtype));
    size_t n = (size_t)y->shape.dim[0];
    int64_t top = (classes ? classes : FST_MAX_CLASSES) - 1;
    h->own_labels = n > SIZE_MAX / 8 ? NULL : fst_alloc(n * sizeof *h->own_labels);
    if (!h->own_labels)
        return fst_fail_memory(err, n);
    for (size_t i = 0; i < n; i++) {
        int64_t v = integer_at(y, i);
        if (v < 0 || v > top)
            return fst_fail(err, FST_E_FORMAT, "%s: sample %zu has label %" PRId64 ", labels must be 0 ... %" PRId64,
                            h->base.name, i, v, top);
        h->own_labels[i] = (int32_t)v;
    }
    *count = n;
    return FST_OK;
}

static fst_status check_finite(const fst__held *h, fst_error *err)
{
    const float *x = (const float *)(const void *)h->own_data;
    size_t a_sample = (size_t)fst_shape_count(&h->base.shape), n = a_sample * h->base.count;
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return fst_fail(err, FST_E_NUMERIC, "%s: sample %zu, element %zu is %f; finite numbers are needed",
                            h->base.name, i / a_sample, i % a_sample, (double)x[i]);
    return FST_OK;
}

/* Takes over x->data. */
static fst_status take_samples(fst__held *h, fst_array *x, size_t labels, size_t limit, fst_error *err)
{
    size_t bytes = 0;
    char text[256];
    fst_shape sample = {0};
    if (x->dtype != FST_U8 && x->dtype != FST_F32)
        return fst_fail(err, FST_E_FORMAT, "%s: samples are %s; U8 or floats are needed", h->base.name,
                        fst_dtype_name(x->dtype));
    if (x->shape.rank < 1 || (uint64_t)x->shape.dim[0] != labels)
        return fst_fail(err, FST_E_MISMATCH, "%s: samples of shape %s do not fit %zu labels", h->base.name,
                        fst_shape_text(&x->shape, text, sizeof text), labels);
    for (int i = 1; i < x->shape.rank; i++)
        sample.dim[sample.rank++] = x->shape.dim[i];
    if (sample.rank == 0)
        sample = FST_SHAPE(1); /* a number a sample */
    fst_status s = fst__held_describe(h, x->dtype, &sample, fst__limited(labels, limit), &bytes, err);
    if (s)
        return s;
    h->own_data = x->data;
    h->data = h->own_data;
    x->data = NULL;
    return x->dtype == FST_F32 ? check_finite(h, err) : FST_OK;
}

static fst_status read_both(const struct store *st, const fst_source_spec *spec, fst__held *h, fst_source **out,
                            fst_error *err)
{
    char x_name[NAME_SIZE], y_name[NAME_SIZE];
    fst_array x = {0}, y = {0};
    size_t count = 0;
    fst_status s = FST_OK;
    if (st->only_x[0])
        memcpy(x_name, st->only_x, sizeof x_name);
    else
        s = resolve(st, spec->x, "x", spec->split, x_name, err);
    if (!s)
        s = resolve(st, spec->y, "y", spec->split, y_name, err);
    if (!s)
        s = store_read(st, y_name, false, &y, err);
    if (!s)
        s = take_labels(h, &y, &count, spec->classes, err);
    fst_array_release(&y);
    if (!s)
        s = store_read(st, x_name, true, &x, err);
    if (!s)
        s = take_samples(h, &x, count, spec->limit, err);
    fst_array_release(&x);
    if (!s)
        s = fst__held_finish(h, h->own_labels, count, spec->classes, out, err);
    return s;
}

static fst_status open_array(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    struct store st = {0};
    fst__held *h = NULL;
    fst_status s = fst__held_new(&h, &vtable, spec->path, err);
    if (s)
        return s;
    s = store_open(&st, spec, err);
    if (!s)
        s = read_both(&st, spec, h, out, err);
    if (s)
        fst__held_close(&h->base);
    store_close(&st);
    return s;
}

const fst__format fst__format_array = {"array", probe, open_array};

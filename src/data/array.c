/*
 * Arrays of samples and labels from safetensors, npz or a pair of npy files. array_names.c finds the file and the
 * names of a split's arrays; here labels are read and checked first, then what stands beside them (SNR, bursts), then
 * the samples, which are brought to channels first. Samples are kept as bytes or floats; other widths of float are
 * converted, and nothing else is, since a guess at the scale of 16-bit integers would be wrong half of the time.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "array.h"

static const fst_source_vtable vtable = {"array", fst__held_get, fst__held_close};

#define MAX_GROUP (INT64_C(1) << 53)

/* ---- reading -------------------------------------------------------------------------------- */

/* Rows of tensor i one by one, those of wider or narrower floats as F32. */
static fst_status read_rows(const struct fst__store *st, size_t i, const fst_rows *rows, fst_dtype dtype, void *out,
                            fst_error *err)
{
    fst_tensor t = fst_safetensors_at(st->file, i);
    size_t each = (size_t)fst_shape_count(&t.shape) / rows->of;
    size_t from = each * fst_dtype_size(t.dtype), to = each * fst_dtype_size(dtype);
    unsigned char *raw = t.dtype != dtype ? fst_alloc(from) : NULL, *at = out;
    fst_status s = t.dtype == dtype || raw ? FST_OK : fst_fail_memory(err, from);
    for (size_t k = 0; !s && k < rows->count; k++, at += to) {
        s = fst_safetensors_read_rows(st->file, i, rows->index[k], 1, raw ? raw : at, from, err);
        if (!s && raw)
            fst_f32_from((float *)(void *)at, t.dtype, raw, each);
    }
    fst_free(raw);
    return s;
}

static fst_status read_tensor(const struct fst__store *st, const char *name, bool samples, const fst_rows *rows,
                              fst_array *out, fst_error *err)
{
    char text[256];
    size_t i = 0;
    if (!fst_safetensors_find(st->file, name, &i))
        return fst_fail(err, FST_E_FORMAT, "%s: there is no tensor \"%s\"", st->path, name);
    fst_tensor t = fst_safetensors_at(st->file, i);
    bool convert = samples && (t.dtype == FST_F64 || t.dtype == FST_F16 || t.dtype == FST_BF16);
    fst_dtype dtype = convert ? FST_F32 : t.dtype;
    if (rows && (t.shape.rank < 1 || (uint64_t)t.shape.dim[0] != rows->of))
        return fst_fail(err, FST_E_MISMATCH, "%s: samples of shape %s do not fit %zu labels", st->path,
                        fst_shape_text(&t.shape, text, sizeof text), rows->of);
    if (rows)
        t.shape.dim[0] = (int64_t)rows->count;
    size_t count = (size_t)fst_shape_count(&t.shape), bytes;
    /* count fits the file, but as floats it may not fit a size */
    if (__builtin_mul_overflow(count, fst_dtype_size(dtype), &bytes) || bytes > FST_SOURCE_MAX_BYTES)
        return fst_fail(err, FST_E_LIMIT, "%s: tensor \"%s\" is larger than the %zu MB a source may hold", st->path,
                        name, FST_SOURCE_MAX_BYTES >> 20);
    void *data = fst_alloc(bytes);
    if (!data)
        return fst_fail_memory(err, bytes);
    fst_status s = rows      ? read_rows(st, i, rows, dtype, data, err)
                   : convert ? fst_safetensors_read_f32(st->file, i, data, count, err)
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

/* rows: which are kept; NULL: all. */
static fst_status store_read(const struct fst__store *st, const char *name, bool samples, const fst_rows *rows,
                             fst_array *out, fst_error *err)
{
    fst_array a = {0};
    fst_status s;
    if (st->kind == FST__SAFETENSORS) {
        s = read_tensor(st, name, samples, rows, &a, err);
    } else if (st->kind == FST__NPZ) {
        s = fst_npz_read_rows(&a, st->path, name, rows, FST_SOURCE_MAX_BYTES, err);
    } else {
        char file[FST__ARRAY_NAME + 8];
        snprintf(file, sizeof file, "%s.npy", name);
        char *path = fst_path_join(st->path, file);
        s = path ? fst__not_foreign(path, err) : fst_fail_memory(err, strlen(st->path));
        if (!s)
            s = fst_npy_read_rows(&a, path, rows, FST_SOURCE_MAX_BYTES, err);
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

static bool is_float(fst_dtype dtype)
{
    return dtype == FST_F32 || dtype == FST_F64 || dtype == FST_F16 || dtype == FST_BF16;
}

static double float_at(const fst_array *a, size_t i)
{
    if (a->dtype == FST_F64)
        return ((const double *)a->data)[i];
    if (a->dtype == FST_F32)
        return (double)((const float *)a->data)[i];
    if (a->dtype == FST_F16)
        return (double)fst_f32_from_f16(((const uint16_t *)a->data)[i]);
    uint32_t bits = (uint32_t)((const uint16_t *)a->data)[i] << 16; /* BF16 */
    float f;
    memcpy(&f, &bits, sizeof f);
    return (double)f;
}

/* A label of sample i is a whole number up to top, of whatever type: 2.0 is 2. */
static fst_status take_label(const fst__held *h, const fst_array *y, size_t i, int64_t top, int32_t *out,
                             fst_error *err)
{
    if (is_float(y->dtype)) {
        double v = float_at(y, i);
        if (!(v >= 0 && v <= (double)top && v == floor(v)))
            return fst_fail(err, FST_E_FORMAT,
                            "%s: sample %zu has label %g, labels must be whole numbers 0 ... %" PRId64, h->base.name, i,
                            v, top);
        *out = (int32_t)v;
        return FST_OK;
    }
    int64_t v = integer_at(y, i);
    if (v < 0 || v > top)
        return fst_fail(err, FST_E_FORMAT, "%s: sample %zu has label %" PRId64 ", labels must be 0 ... %" PRId64,
                        h->base.name, i, v, top);
    *out = (int32_t)v;
    return FST_OK;
}

/* Which of a row's k values is 1, all others being 0; -1 when the row is not one-hot. */
static int32_t hot_at(const fst_array *y, size_t row, size_t k)
{
    int32_t hot = -1;
    for (size_t c = 0; c < k; c++) {
        double v = is_float(y->dtype) ? float_at(y, row * k + c) : (double)integer_at(y, row * k + c);
        if (v == 1 && hot < 0)
            hot = (int32_t)c;
        else if (v != 0)
            return -1;
    }
    return hot;
}

/* One-hot rows (N, classes): the columns say how many classes there are, whether all have samples or not. */
static fst_status take_one_hot(fst__held *h, const fst_array *y, size_t n, int *classes, fst_error *err)
{
    size_t k = (size_t)y->shape.dim[1];
    char text[256];
    for (size_t i = 0; i < n; i++)
        if ((h->own_labels[i] = hot_at(y, i, k)) < 0)
            return fst_fail(err, FST_E_FORMAT,
                            "%s: labels of shape %s, and row %zu is not one 1 among zeros; a list (N,) or one-hot rows "
                            "(N, classes) are needed",
                            h->base.name, fst_shape_text(&y->shape, text, sizeof text), i);
    if (*classes && (size_t)*classes != k)
        return fst_fail(err, FST_E_CONFIG, "%s: its one-hot labels have %zu classes, not %d", h->base.name, k,
                        *classes);
    *classes = (int)k;
    return FST_OK;
}

static fst_status take_labels(fst__held *h, const fst_array *y, size_t *count, int *classes, fst_error *err)
{
    char text[256];
    const fst_shape *shape = &y->shape;
    bool list = shape->rank == 1 || (shape->rank == 2 && shape->dim[1] == 1);
    bool rows = shape->rank == 2 && shape->dim[1] > 1 && shape->dim[1] <= FST_MAX_CLASSES;
    if (shape->rank && shape->dim[0] == 0)
        return fst_fail(err, FST_E_FORMAT, "%s: no samples: its labels have shape %s", h->base.name,
                        fst_shape_text(shape, text, sizeof text));
    if (!list && !rows)
        return fst_fail(err, FST_E_FORMAT,
                        "%s: labels of shape %s; a list (N,) or one-hot rows (N, classes) are needed", h->base.name,
                        fst_shape_text(shape, text, sizeof text));
    size_t n = (size_t)shape->dim[0];
    int64_t top = (*classes ? *classes : FST_MAX_CLASSES) - 1;
    h->own_labels = n > SIZE_MAX / 8 ? NULL : fst_alloc(n * sizeof *h->own_labels);
    if (!h->own_labels)
        return fst_fail_memory(err, n);
    fst_status s = rows ? take_one_hot(h, y, n, classes, err) : FST_OK;
    for (size_t i = 0; !s && list && i < n; i++)
        s = take_label(h, y, i, top, &h->own_labels[i], err);
    *count = n;
    return s;
}

/* ---- channels first --------------------------------------------------------------------------- */

/* Few enough to be channels: grey, I and Q, RGB, RGBA. */
static bool few(int64_t n)
{
    return n >= 1 && n <= 4;
}

/* (H, W, C) and (L, 2), by the look of it. */
static bool looks_channels_last(const fst_shape *s)
{
    if (s->rank == 2)
        return s->dim[1] == 2 && !few(s->dim[0]);
    return s->rank == 3 && few(s->dim[2]) && !few(s->dim[0]) && !few(s->dim[1]);
}

/* Turns samples of `inner` places and `channels` values each to channels first, one after the other. */
static fst_status turn(void *data, size_t count, size_t inner, size_t channels, size_t size, fst_error *err)
{
    size_t bytes = inner * channels * size;
    unsigned char *from = fst_alloc(bytes), *to = data;
    if (!from)
        return fst_fail_memory(err, bytes);
    for (size_t k = 0; k < count; k++, to += bytes) {
        memcpy(from, to, bytes);
        for (size_t i = 0; i < inner; i++)
            for (size_t c = 0; c < channels; c++)
                memcpy(to + (c * inner + i) * size, from + (i * channels + c) * size, size);
    }
    fst_free(from);
    return FST_OK;
}

/* The shape of a sample, channels first: (H, W) becomes (1, H, W), and channels last are turned or refused. */
static fst_status settle_layout(const fst__held *h, const fst_array *x, fst_layout layout, fst_shape *sample,
                                fst_error *err)
{
    char text[256];
    int rank = sample->rank;
    bool grey =
        layout == FST_LAYOUT_NHWC && rank == 2 && !few(sample->dim[1]); /* no (L, C): that is too many channels */
    bool last = layout == FST_LAYOUT_NHWC && !grey && rank >= 2 && rank <= 3;
    if (layout == FST_LAYOUT_AUTO && looks_channels_last(sample))
        return fst_fail(err, FST_E_FORMAT,
                        "%s: samples of shape %s look like channels last, channels first are needed: layout nhwc turns "
                        "them, layout nchw takes them as they are",
                        h->base.name, fst_shape_text(sample, text, sizeof text));
    if (layout == FST_LAYOUT_NHWC && rank == 2 && few(sample->dim[0]) && !few(sample->dim[1]))
        return fst_fail(err, FST_E_CONFIG,
                        "%s: samples of shape %s are channels first already (complex ones have I and Q as channels): "
                        "leave layout out",
                        h->base.name, fst_shape_text(sample, text, sizeof text));
    if (layout == FST_LAYOUT_NHWC && !last && !grey)
        return fst_fail(err, FST_E_CONFIG, "%s: layout nhwc is for samples (height, width, channels), not %s",
                        h->base.name, fst_shape_text(sample, text, sizeof text));
    if (grey || (layout == FST_LAYOUT_AUTO && rank == 2 && !few(sample->dim[0])))
        *sample = FST_SHAPE(1, sample->dim[0], sample->dim[1]);
    if (!last)
        return FST_OK;
    size_t channels = (size_t)sample->dim[rank - 1], inner = (size_t)fst_shape_count(sample) / channels;
    for (int i = rank - 1; i > 0; i--)
        sample->dim[i] = sample->dim[i - 1];
    sample->dim[0] = (int64_t)channels;
    return turn(x->data, h->base.count, inner, channels, fst_dtype_size(x->dtype), err);
}

/* Takes over x->data, the samples that were picked. */
static fst_status take_samples(fst__held *h, fst_array *x, const fst__picks *p, fst_layout layout, fst_error *err)
{
    size_t bytes = 0;
    char text[256];
    fst_shape sample = {0};
    if (x->dtype != FST_U8 && x->dtype != FST_F32)
        return fst_fail(err, FST_E_FORMAT, "%s: samples are %s; U8 or floats are needed", h->base.name,
                        fst_dtype_name(x->dtype));
    if (x->shape.rank < 1 || (uint64_t)x->shape.dim[0] != p->count)
        return fst_fail(err, FST_E_MISMATCH, "%s: samples of shape %s do not fit %zu labels", h->base.name,
                        fst_shape_text(&x->shape, text, sizeof text), p->count);
    for (int i = 1; i < x->shape.rank; i++)
        sample.dim[sample.rank++] = x->shape.dim[i];
    if (sample.rank == 0)
        sample = FST_SHAPE(1); /* a number a sample */
    fst_status s = fst__held_describe(h, x->dtype, &sample, p->count, &bytes, err);
    if (!s)
        s = settle_layout(h, x, layout, &sample, err);
    if (s)
        return s;
    h->base.shape = sample;
    h->own_data = x->data;
    h->data = h->own_data;
    x->data = NULL;
    return x->dtype == FST_F32 ? fst__held_check_finite(h, p, err) : FST_OK;
}

/* ---- what may stand beside ------------------------------------------------------------------ */

static bool a_list(const fst_array *a, size_t n)
{
    bool list = a->shape.rank == 1 || (a->shape.rank == 2 && a->shape.dim[1] == 1);
    return list && (uint64_t)a->shape.dim[0] == n;
}

/* Reads `usual`, named as the samples are ("snr_train" beside "x_train"), with one entry a sample; out->data stays
 * NULL when there is none. */
static fst_status read_beside(const struct fst__store *st, const char *x_name, const char *usual, const char *split,
                              size_t count, bool floats, fst_array *out, fst_error *err)
{
    char name[FST__ARRAY_NAME], text[256];
    size_t n = strlen(x_name), m = strlen(split);
    bool suffixed = n > m && x_name[n - m - 1] == '_' && !strcmp(x_name + n - m, split);
    fst_array a = {0};
    snprintf(name, sizeof name, "%s_%s", usual, split);
    if (!fst__store_has(st, name)) {
        snprintf(name, sizeof name, "%s", usual);
        if (suffixed || !fst__store_has(st, name))
            return FST_OK;
    }
    fst_status s = store_read(st, name, floats, NULL, &a, err);
    if (!s && !a_list(&a, count))
        s = fst_fail(err, FST_E_MISMATCH, "%s: %s of shape %s does not fit %zu labels", st->path, name,
                     fst_shape_text(&a.shape, text, sizeof text), count);
    if (!s && !floats && is_float(a.dtype))
        s = fst_fail(err, FST_E_FORMAT, "%s: %s is %s; integers are needed", st->path, name, fst_dtype_name(a.dtype));
    if (s)
        fst_array_release(&a);
    else
        *out = a;
    return s;
}

static fst_status take_snr(fst__held *h, fst_array *a, size_t count, fst_error *err)
{
    if (!a->data)
        return FST_OK;
    h->own_snr = fst_alloc(count * sizeof *h->own_snr);
    if (!h->own_snr)
        return fst_fail_memory(err, count * sizeof *h->own_snr);
    for (size_t i = 0; i < count; i++) {
        h->own_snr[i] = a->dtype == FST_F32 ? ((const float *)a->data)[i] : (float)integer_at(a, i);
        if (isinf(h->own_snr[i]))
            return fst_fail(err, FST_E_NUMERIC, "%s: snr of sample %zu is infinite; dB, or NaN where it is not known",
                            h->base.name, i);
    }
    return FST_OK;
}

static fst_status take_groups(fst__held *h, const fst_array *a, size_t count, fst_error *err)
{
    if (!a->data)
        return FST_OK;
    h->own_group = fst_alloc(count * sizeof *h->own_group);
    if (!h->own_group)
        return fst_fail_memory(err, count * sizeof *h->own_group);
    for (size_t i = 0; i < count; i++) {
        int64_t v = h->own_group[i] = integer_at(a, i);
        if (v > MAX_GROUP || v < -MAX_GROUP) /* numbers of several sources are put one after the other */
            return fst_fail(err, FST_E_LIMIT, "%s: sample %zu is of burst %lld; numbers up to 2^53 are possible",
                            h->base.name, i, (long long)v);
    }
    return FST_OK;
}

static fst_status take_beside(const struct fst__store *st, fst__held *h, const char *x_name, const char *split,
                              size_t count, fst_error *err)
{
    fst_array a = {0};
    fst_status s = read_beside(st, x_name, "snr", split, count, true, &a, err);
    if (!s)
        s = take_snr(h, &a, count, err);
    fst_array_release(&a);
    if (!s)
        s = read_beside(st, x_name, "burst", split, count, false, &a, err);
    if (!s)
        s = take_groups(h, &a, count, err);
    fst_array_release(&a);
    return s;
}

/* ---- names of classes ----------------------------------------------------------------------- */

/* A file of fedstill's own has its channels first, whatever it looks like. */
static fst_layout layout_of(const struct fst__store *st, const fst_source_spec *spec)
{
    const char *format = st->kind == FST__SAFETENSORS ? fst_safetensors_meta(st->file, "format") : NULL;
    bool ours = format && !strcmp(format, FST_DATA_FORMAT);
    return ours && spec->layout == FST_LAYOUT_AUTO ? FST_LAYOUT_NCHW : spec->layout;
}

/* A JSON list of texts; *count stays 0 when it is none. */
static fst_status names_from_json(const char *text, char ***names, size_t *count, fst_error *err)
{
    fst_status fits = fst_json_fits("class_names", text, strlen(text), strlen(text), err);
    if (fits)
        return fits;
    json_t *list = json_loads(text, JSON_REJECT_DUPLICATES, NULL), *item;
    size_t n = json_array_size(list), i; /* 0 for what is no list */
    const char **each = fst_calloc(n + 1, sizeof *each);
    bool texts = n > 0 && n <= FST_MAX_CLASSES;
    fst_status s = each ? FST_OK : fst_fail_memory(err, n * sizeof *each);
    for (i = 0; !s && texts && i < n; i++) {
        item = json_array_get(list, i);
        texts = json_is_string(item);
        each[i] = json_string_value(item);
    }
    if (!s && texts)
        s = fst__names_copy(names, (char *const *)(uintptr_t)each, n, err);
    if (!s && texts)
        *count = n;
    fst_free(each);
    json_decref(list);
    return s;
}

/* Metadata `classes` of a file that says it is ours must be such a list; anybody else's may be anything. */
static fst_status names_from_metadata(const struct fst__store *st, char ***names, size_t *count, fst_error *err)
{
    static const char family[] = "fedstill-data-";
    const char *format = fst_safetensors_meta(st->file, "format"), *text = fst_safetensors_meta(st->file, "classes");
    bool ours = format && !strncmp(format, family, sizeof family - 1);
    if (ours && strcmp(format, FST_DATA_FORMAT))
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: its format is %.32s; %s is read here", st->path, format,
                        FST_DATA_FORMAT);
    fst_status s = text ? names_from_json(text, names, count, err) : FST_OK;
    if (!s && ours && text && !*count)
        s = fst_fail(err, FST_E_FORMAT, "%s: metadata \"classes\" must be a JSON list of 1 to %d texts", st->path,
                     FST_MAX_CLASSES);
    return s;
}

static fst_status read_names(const struct fst__store *st, fst__held *h, int *classes, fst_error *err)
{
    char **names = NULL;
    size_t count = 0;
    fst_status s = FST_OK;
    if (st->kind == FST__SAFETENSORS)
        s = names_from_metadata(st, &names, &count, err);
    else if (st->kind == FST__NPZ && fst__store_has(st, "classes"))
        s = fst_npz_read_texts(&names, &count, st->path, "classes", FST_SOURCE_MAX_BYTES, err);
    if (s || !names)
        return s;
    h->base.class_names = names;
    if (count == 0 || count > FST_MAX_CLASSES)
        return fst_fail(err, FST_E_FORMAT, "%s: %zu names of classes, 1 to %d are possible", st->path, count,
                        FST_MAX_CLASSES);
    if (*classes && (size_t)*classes != count)
        return fst_fail(err, FST_E_CONFIG, "%s: names %zu classes, but %d classes were asked for", st->path, count,
                        *classes);
    *classes = (int)count;
    return fst__check_names(st->path, names, count, err);
}

/* The samples that the limit leaves of `count`, whose labels are known. */
static fst_status read_samples(const struct fst__store *st, const fst_source_spec *spec, const char *x_name,
                               fst__held *h, size_t count, int classes, fst_error *err)
{
    fst_array x = {0};
    fst__picks p = {0};
    bool warn = !spec->classes && !h->base.class_names && !strcmp(spec->split, "train");
    fst_status s = fst__held_choose(h, count, classes, warn, spec->limit, &p, err);
    const fst_rows rows = {p.index, p.count, count};
    if (!s)
        s = store_read(st, x_name, true, p.index ? &rows : NULL, &x, err);
    if (!s)
        s = take_samples(h, &x, &p, layout_of(st, spec), err);
    fst_array_release(&x);
    fst_free(p.index);
    return s;
}

static fst_status read_all(const struct fst__store *st, const fst_source_spec *spec, fst__held *h, fst_source **out,
                           fst_error *err)
{
    char x_name[FST__ARRAY_NAME], y_name[FST__ARRAY_NAME];
    fst_array y = {0};
    size_t count = 0;
    int classes = spec->classes;
    fst_status s = fst__store_names(st, spec, x_name, y_name, err);
    if (!s)
        s = read_names(st, h, &classes, err);
    if (!s)
        s = store_read(st, y_name, false, NULL, &y, err);
    if (!s)
        s = take_labels(h, &y, &count, &classes, err);
    fst_array_release(&y);
    if (!s)
        s = take_beside(st, h, x_name, spec->split, count, err);
    if (!s)
        s = read_samples(st, spec, x_name, h, count, classes, err);
    if (!s)
        s = fst__held_finish(h, h->own_labels, h->base.count, h->base.classes, out, err);
    return s;
}

static fst_status open_array(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    struct fst__store st = {0};
    fst__held *h = NULL;
    fst_status s = fst__held_new(&h, &vtable, spec->path, err);
    if (s)
        return s;
    s = fst__store_open(&st, spec, err);
    if (!s)
        s = read_all(&st, spec, h, out, err);
    if (s)
        fst__held_close(&h->base);
    fst__store_close(&st);
    return s;
}

const fst__format fst__format_array = {"array", fst__store_probe, open_array, true};

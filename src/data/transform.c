/* Normalisation, crop and flip of one sample, and the statistics that normalisation wants. Bytes go
 * through a table of 256 floats a channel, computed once with the arithmetic that a sample would see. */
#include <math.h>
#include <string.h>

#include "transform.h"

static fst_status check_numbers(const fst_transform *t, const fst_source *s, fst_error *err)
{
    char text[256];
    int64_t first = s->shape.rank ? s->shape.dim[0] : 1;
    if (t->channels < 0 || t->channels > FST_MAX_CHANNELS || (t->channels > 1 && t->channels != first))
        return fst_fail(err, FST_E_CONFIG, "%s: mean and std for %d channels do not fit samples of shape %s", s->name,
                        t->channels, fst_shape_text(&s->shape, text, sizeof text));
    for (int c = 0; c < t->channels; c++)
        if (!isfinite(t->mean[c]) || !isfinite(t->std[c]) || !(t->std[c] > 0))
            return fst_fail(err, FST_E_CONFIG, "%s: channel %d: mean %g, std %g; std must be above 0", s->name, c,
                            (double)t->mean[c], (double)t->std[c]);
    if ((t->crop_padding || t->flip) && s->shape.rank != 3)
        return fst_fail(err, FST_E_CONFIG, "%s: crop and flip need samples (channels, height, width), these are %s",
                        s->name, fst_shape_text(&s->shape, text, sizeof text));
    if (t->crop_padding &&
        (t->crop_padding < 0 || t->crop_padding >= s->shape.dim[1] || t->crop_padding >= s->shape.dim[2]))
        return fst_fail(err, FST_E_CONFIG, "%s: a crop padding of %d does not fit images of shape %s", s->name,
                        t->crop_padding, fst_shape_text(&s->shape, text, sizeof text));
    return t->fingerprint ? fst__fingerprint_check(s, err) : FST_OK;
}

fst_status fst__transformer_init(fst__transformer *out, const fst_transform *t, const fst_source *s, fst_error *err)
{
    fst_status st = check_numbers(t, s, err);
    if (st)
        return st;
    fst__transformer n = {
        .dtype = s->dtype, .crop_padding = t->crop_padding, .flip = t->flip, .fingerprint = t->fingerprint};
    n.elements = (size_t)fst_shape_count(&s->shape);
    n.channels = t->channels > 1 ? (size_t)t->channels : 1;
    n.plane = n.elements / n.channels;
    if (s->shape.rank == 3) {
        n.depth = (size_t)s->shape.dim[0];
        n.height = (size_t)s->shape.dim[1];
        n.width = (size_t)s->shape.dim[2];
    }
    n.std[0] = 1;
    for (int c = 0; c < t->channels; c++) {
        n.mean[c] = t->mean[c];
        n.std[c] = t->std[c];
    }
    *out = n;
    return FST_OK;
}

size_t fst__transformer_table(const fst__transformer *t)
{
    if (t->fingerprint)
        return fst__fingerprint_table(t->elements / 2);
    return t->dtype == FST_U8 ? 256 * t->channels : 0;
}

void fst__transformer_fill(fst__transformer *t, float *table)
{
    if (t->fingerprint) {
        fst__fingerprint_fill(table, t->elements / 2);
        t->table = table;
        return;
    }
    if (t->dtype != FST_U8)
        return;
    for (size_t c = 0; c < t->channels; c++)
        for (int v = 0; v < 256; v++)
            table[256 * c + (size_t)v] = ((float)v / 255.0f - t->mean[c]) / t->std[c];
    t->table = table;
}

/* n elements of channel c, from raw element `at` on. */
static void convert(const fst__transformer *t, size_t c, const void *raw, size_t at, size_t n, float *dst)
{
    if (t->dtype == FST_U8) {
        const unsigned char *src = (const unsigned char *)raw + at;
        const float *table = t->table + 256 * c;
        for (size_t i = 0; i < n; i++)
            dst[i] = table[src[i]];
        return;
    }
    const float *src = (const float *)raw + at;
    float mean = t->mean[c], std = t->std[c];
    for (size_t i = 0; i < n; i++)
        dst[i] = (src[i] - mean) / std;
}

static void mirror(float *row, size_t n)
{
    for (size_t i = 0; i < n / 2; i++) {
        float v = row[i];
        row[i] = row[n - 1 - i];
        row[n - 1 - i] = v;
    }
}

static void fill(float *dst, size_t n, float v)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = v;
}

/* Row y of the window that begins at (dy, dx) of the image padded by t->crop_padding. */
static void window_row(const fst__transformer *t, size_t plane, size_t y, size_t dy, size_t dx, const void *raw,
                       float *dst)
{
    size_t pad = (size_t)t->crop_padding, w = t->width, c = t->channels > 1 ? plane : 0;
    float zero = t->table ? t->table[256 * c] : (0.0f - t->mean[c]) / t->std[c];
    size_t from = y + dy; /* row of the padded image */
    if (from < pad || from >= pad + t->height) {
        fill(dst, w, zero);
        return;
    }
    size_t left = dx < pad ? pad - dx : 0, right = dx > pad ? dx - pad : 0;
    size_t at = (plane * t->height + from - pad) * w + right;
    fill(dst, left, zero);
    convert(t, c, raw, at, w - left - right, dst + left);
    fill(dst + w - right, right, zero);
}

static void augment(const fst__transformer *t, const void *raw, float *dst, fst_rng *rng)
{
    size_t pad = (size_t)t->crop_padding, dy = 0, dx = 0;
    if (pad) {
        dy = (size_t)fst_rng_below(rng, 2 * pad + 1);
        dx = (size_t)fst_rng_below(rng, 2 * pad + 1);
    }
    bool flip = t->flip && (fst_rng_u32(rng) & 1);
    for (size_t p = 0; p < t->depth; p++)
        for (size_t y = 0; y < t->height; y++, dst += t->width) {
            window_row(t, p, y, dy, dx, raw, dst);
            if (flip)
                mirror(dst, t->width);
        }
}

bool fst__transformer_copies(const fst__transformer *t)
{
    bool copies = t->dtype == FST_F32 && !t->fingerprint;
    for (size_t c = 0; c < t->channels; c++)
        copies = copies && t->mean[c] == 0 && t->std[c] == 1;
    return copies;
}

void fst__transformer_apply(const fst__transformer *t, const void *raw, float *dst, fst_rng *rng)
{
    if (t->fingerprint) {
        fst__fingerprint_apply(t->table, t->elements / 2, raw, dst);
        raw = dst; /* what follows works element by element */
    }
    if (rng && (t->crop_padding || t->flip)) {
        augment(t, raw, dst, rng);
        return;
    }
    for (size_t c = 0; c < t->channels; c++)
        convert(t, c, raw, c * t->plane, t->plane, dst + c * t->plane);
}

/* ---- one sample at a time ------------------------------------------------------------------- */

struct fst_transformer {
    fst__transformer t;
    float *table;
};

fst_status fst_transformer_new(fst_transformer **out, const fst_transform *t, const fst_source *s, fst_error *err)
{
    fst_transformer *n = fst_calloc(1, sizeof *n);
    if (!n)
        return fst_fail_memory(err, sizeof *n);
    fst_status st = fst__transformer_init(&n->t, t, s, err);
    size_t floats = st ? 0 : fst__transformer_table(&n->t);
    if (!st && floats) {
        n->table = fst_alloc(floats * sizeof *n->table);
        st = n->table ? FST_OK : fst_fail_memory(err, floats * sizeof *n->table);
    }
    if (st) {
        fst_transformer_free(n);
        return st;
    }
    fst__transformer_fill(&n->t, n->table);
    *out = n;
    return FST_OK;
}

void fst_transformer_free(fst_transformer *t)
{
    if (t)
        fst_free(t->table);
    fst_free(t);
}

void fst_transformer_apply(const fst_transformer *t, const void *raw, float *x)
{
    fst__transformer_apply(&t->t, raw, x, NULL);
}

/* ---- statistics ----------------------------------------------------------------------------- */

struct sums {
    size_t channels, plane;
    double mean[FST_MAX_CHANNELS], square[FST_MAX_CHANNELS];
    uint64_t seen[FST_MAX_CHANNELS][256]; /* u8: how often each value occurs */
};

static void count_bytes(struct sums *k, const unsigned char *raw)
{
    for (size_t c = 0; c < k->channels; c++)
        for (size_t i = c * k->plane; i < (c + 1) * k->plane; i++)
            k->seen[c][raw[i]]++;
}

static void add_floats(struct sums *k, const float *raw, bool squares)
{
    for (size_t c = 0; c < k->channels; c++) {
        double sum = 0, mean = k->mean[c];
        for (size_t i = c * k->plane; i < (c + 1) * k->plane; i++)
            sum += squares ? ((double)raw[i] - mean) * ((double)raw[i] - mean) : (double)raw[i];
        *(squares ? &k->square[c] : &k->mean[c]) += sum;
    }
}

/* All samples once. Floats need it twice, the second time around the mean of the first, so that a large offset does
 * not eat the variance. */
static fst_status pass(const fst_source *s, void *raw, struct sums *k, bool squares, fst_error *err)
{
    for (size_t i = 0; i < s->count; i++) {
        fst_status st = s->v->get(s, i, raw, err);
        if (st)
            return st;
        if (s->dtype == FST_U8)
            count_bytes(k, raw);
        else
            add_floats(k, raw, squares);
    }
    return FST_OK;
}

static void from_counts(struct sums *k, double n)
{
    for (size_t c = 0; c < k->channels; c++) {
        for (int v = 0; v < 256; v++)
            k->mean[c] += (double)k->seen[c][v] * v / 255.0;
        k->mean[c] /= n;
        for (int v = 0; v < 256; v++)
            k->square[c] += (double)k->seen[c][v] * (v / 255.0 - k->mean[c]) * (v / 255.0 - k->mean[c]);
    }
}

static fst_status sum_up(const fst_source *s, void *raw, struct sums *k, fst_error *err)
{
    double n = (double)k->plane * (double)s->count;
    fst_status st = pass(s, raw, k, false, err);
    if (st)
        return st;
    if (s->dtype == FST_U8) {
        from_counts(k, n);
    } else {
        for (size_t c = 0; c < k->channels; c++)
            k->mean[c] /= n;
        st = pass(s, raw, k, true, err);
    }
    for (size_t c = 0; c < k->channels; c++)
        k->square[c] /= n;
    return st;
}

static fst_status to_transform(fst_transform *out, const fst_source *s, const struct sums *k, fst_error *err)
{
    fst_transform t = {.channels = (int)k->channels};
    for (size_t c = 0; c < k->channels; c++) {
        t.mean[c] = (float)k->mean[c];
        /* a channel that never changes is only shifted */
        t.std[c] = k->square[c] > 0 ? (float)sqrt(k->square[c]) : 1.0f;
        if (!isfinite(t.mean[c]) || !isfinite(t.std[c]) || !(t.std[c] > 0))
            return fst_fail(err, FST_E_NUMERIC, "%s: channel %zu has no finite mean and deviation", s->name, c);
    }
    *out = t;
    return FST_OK;
}

fst_status fst_source_statistics(const fst_source *s, fst_transform *out, fst_error *err)
{
    size_t bytes = fst_source_sample_bytes(s), elements = (size_t)fst_shape_count(&s->shape);
    bool single = s->shape.rank == 0 || s->shape.dim[0] > FST_MAX_CHANNELS;
    struct sums *k = fst_calloc(1, sizeof *k);
    void *raw = fst_alloc(bytes);
    fst_status st = k && raw ? FST_OK : fst_fail_memory(err, bytes + sizeof *k);
    if (!st) {
        k->channels = single ? 1 : (size_t)s->shape.dim[0];
        k->plane = elements / k->channels;
        st = sum_up(s, raw, k, err);
    }
    if (!st)
        st = to_transform(out, s, k, err);
    fst_free(raw);
    fst_free(k);
    return st;
}

/* Codecs whose elements keep their place: f16, int8 and int4.
 *
 *   f16   each element, IEEE half precision, nearest even
 *   int8  the scales, f32, then each element as a signed byte: scale * byte
 *   int4  the scales, then two elements a byte, the first in the low half
 *
 * A scale is that of a matrix (a parameter of the network, cut into pieces of 256 rows where both sides are longer), or
 * with per_channel that of a row of one with more than one column: the largest size among its elements, divided by 127
 * or 7, as f32. Products are made in double and rounded once. Little-endian, as everywhere on the machines that this
 * runs on. */
#include <math.h>
#include <string.h>

#include "codec_private.h"

static fst_status cut(size_t len, size_t want, fst_error *err)
{
    return len == want ? FST_OK : fst_fail(err, FST_E_FORMAT, "%zu bytes, such a span has %zu", len, want);
}

/* ---- f16 ---- */

fst_status fst__put_f16(const float *x, size_t n, uint8_t *out, fst_error *err)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h = fst_f16_from_f32(x[i]);
        if ((h & 0x7c00) == 0x7c00)
            return fst_fail(err, FST_E_NUMERIC, "element %zu is %g: too large for half precision", i, (double)x[i]);
        memcpy(out + 2 * i, &h, 2);
    }
    return FST_OK;
}

fst_status fst__get_f16(const uint8_t *data, size_t n, float *x, fst_error *err)
{
    for (size_t i = 0; i < n; i++) {
        uint16_t h;
        memcpy(&h, data + 2 * i, 2);
        if ((h & 0x7c00) == 0x7c00)
            return fst_fail(err, FST_E_NUMERIC, "element %zu is not finite", i);
        x[i] = fst_f32_from_f16(h);
    }
    return FST_OK;
}

static size_t f16_most(const fst_coder *c)
{
    return 2 * c->count;
}

static fst_status f16_encode(fst_coder *c, const float *x, fst_rng *rng, uint8_t *out, size_t *len, fst_error *err)
{
    (void)rng;
    *len = 2 * c->count;
    return fst__put_f16(x, c->count, out, err);
}

static fst_status f16_decode(fst_coder *c, const uint8_t *data, size_t len, float *x, fst_error *err)
{
    fst_status st = cut(len, 2 * c->count, err);
    return st ? st : fst__get_f16(data, c->count, x, err);
}

const struct fst__codec_type fst__codec_f16 = {"f16", f16_most, f16_encode, f16_decode};

/* ---- whole numbers ---- */

enum { MOST8 = 127, MOST4 = 7 };

float fst__scale_of(const float *x, size_t n, int most)
{
    float top = 0;
    for (size_t i = 0; i < n; i++)
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
    return (float)((double)top / most);
}

int fst__whole_of(float x, float scale, int most, fst_rng *rng)
{
    if (!(scale > 0)) /* all are 0, or too small to have one */
        return 0;
    double v = (double)x / (double)scale, q = rng ? floor(v + fst_rng_uniform(rng)) : rint(v);
    return (int)(q > most ? most : q < -most ? -most : q);
}

fst_status fst__get_scale(const uint8_t *data, float *scale, fst_error *err)
{
    memcpy(scale, data, sizeof *scale);
    if (isfinite(*scale) && !signbit(*scale))
        return FST_OK;
    return fst_fail(err, FST_E_FORMAT, "a scale of %g", (double)*scale);
}

/* Spans with a scale of their own, in their order: `each` is called with the number of one, where it begins and how
 * long it is. */
static bool by_row(const fst_coder *c, const struct fst__matrix *m)
{
    return c->codec.per_channel && m->cols > 1; /* a vector's elements are no channels */
}

static size_t scales(const fst_coder *c)
{
    size_t n = 0;
    for (size_t i = 0; i < c->matrices.count; i++)
        n += by_row(c, &c->matrices.matrix[i]) ? c->matrices.matrix[i].rows : 1;
    return n;
}

typedef fst_status (*group_fn)(void *ctx, size_t group, size_t first, size_t n, fst_error *err);
static fst_status each_group(const fst_coder *c, group_fn fn, void *ctx, fst_error *err)
{
    fst_status st = FST_OK;
    size_t group = 0;
    for (size_t i = 0; i < c->matrices.count; i++) {
        const struct fst__matrix *m = &c->matrices.matrix[i];
        size_t rows = by_row(c, m) ? m->rows : 1, n = m->rows * m->cols / rows;
        for (size_t r = 0; !st && r < rows; r++)
            st = fn(ctx, group++, m->offset + r * n, n, err);
    }
    return st;
}

struct pass {
    const float *in;
    float *out;
    uint8_t *scale, *whole;
    const uint8_t *scale_in, *whole_in;
    fst_rng *rng;
    bool half; /* int4 */
};

static void put_whole(const struct pass *p, size_t i, int q)
{
    if (!p->half)
        p->whole[i] = (uint8_t)(int8_t)q;
    else
        p->whole[i / 2] = (uint8_t)(i % 2 ? p->whole[i / 2] | (q & 15) << 4 : q & 15);
}

static int get_whole(const struct pass *p, size_t i)
{
    if (!p->half)
        return (int8_t)p->whole_in[i];
    int q = p->whole_in[i / 2] >> (i % 2 ? 4 : 0) & 15;
    return q < 8 ? q : q - 16;
}

static fst_status encode_group(void *ctx, size_t group, size_t first, size_t n, fst_error *err)
{
    const struct pass *p = ctx;
    int most = p->half ? MOST4 : MOST8;
    float scale = fst__scale_of(p->in + first, n, most);
    (void)err;
    memcpy(p->scale + 4 * group, &scale, 4);
    for (size_t i = first; i < first + n; i++)
        put_whole(p, i, fst__whole_of(p->in[i], scale, most, p->rng));
    return FST_OK;
}

static fst_status decode_group(void *ctx, size_t group, size_t first, size_t n, fst_error *err)
{
    const struct pass *p = ctx;
    int most = p->half ? MOST4 : MOST8;
    float scale;
    fst_status st = fst__get_scale(p->scale_in + 4 * group, &scale, err);
    for (size_t i = first; !st && i < first + n; i++) {
        int q = get_whole(p, i);
        if (q < -most)
            st = fst_fail(err, FST_E_FORMAT, "element %zu is %d; %d to %d are allowed", i, q, -most, most);
        p->out[i] = (float)((double)q * (double)scale);
    }
    return st;
}

static size_t bytes_of(const fst_coder *c, bool half)
{
    return half ? (c->count + 1) / 2 : c->count;
}

static fst_status encode(fst_coder *c, const float *x, fst_rng *rng, uint8_t *out, size_t *len, bool half,
                         fst_error *err)
{
    struct pass p = {
        .in = x, .scale = out, .whole = out + 4 * scales(c), .rng = c->codec.stochastic ? rng : NULL, .half = half};
    *len = 4 * scales(c) + bytes_of(c, half);
    return each_group(c, encode_group, &p, err);
}

static fst_status decode(fst_coder *c, const uint8_t *data, size_t len, float *x, bool half, fst_error *err)
{
    struct pass p = {.out = x, .scale_in = data, .whole_in = data + 4 * scales(c), .half = half};
    fst_status st = cut(len, 4 * scales(c) + bytes_of(c, half), err);
    if (!st && half && c->count % 2 && data[len - 1] >> 4)
        st = fst_fail(err, FST_E_FORMAT, "there is something after the last element");
    return st ? st : each_group(c, decode_group, &p, err);
}

static size_t int8_most(const fst_coder *c)
{
    return 4 * scales(c) + bytes_of(c, false);
}

static fst_status int8_encode(fst_coder *c, const float *x, fst_rng *rng, uint8_t *out, size_t *len, fst_error *err)
{
    return encode(c, x, rng, out, len, false, err);
}

static fst_status int8_decode(fst_coder *c, const uint8_t *data, size_t len, float *x, fst_error *err)
{
    return decode(c, data, len, x, false, err);
}

const struct fst__codec_type fst__codec_int8 = {"int8", int8_most, int8_encode, int8_decode};

static size_t int4_most(const fst_coder *c)
{
    return 4 * scales(c) + bytes_of(c, true);
}

static fst_status int4_encode(fst_coder *c, const float *x, fst_rng *rng, uint8_t *out, size_t *len, fst_error *err)
{
    return encode(c, x, rng, out, len, true, err);
}

static fst_status int4_decode(fst_coder *c, const uint8_t *data, size_t len, float *x, fst_error *err)
{
    return decode(c, data, len, x, true, err);
}

const struct fst__codec_type fst__codec_int4 = {"int4", int4_most, int4_encode, int4_decode};

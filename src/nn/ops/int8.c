/*
 * quantise, int8_conv2d, int8_linear: values and weights as whole numbers of 8 bits, sums in 32 bits, which are exact.
 *
 *     q = x times the float nearest to 1/scale, rounded to the nearest (even) and kept within the range of int8
 *     y = (float)(sum of w q) * (scale * weight_scale) + bias
 *
 * each step in float, rounded once. A backend that follows these two lines has the reference's bits, in whatever order
 * it adds. Inference only.
 */
#include <math.h>
#include <string.h>

#include "ops.h"

#ifdef __clang__
#pragma STDC FP_CONTRACT OFF /* gcc contracts nothing in ISO C */
#endif

/* ---- loops that backends share ---------------------------------------------------------------------- */

float fst__int8_low(const struct fst_int8_value *v)
{
    return v->is_unsigned ? 0 : -127;
}

float fst__int8_high(const struct fst_int8_value *v)
{
    return v->is_unsigned ? 255 : 127;
}

/* Added to a small float, it leaves the nearest whole number in the last bits. */
#define ROUNDING 12582912.0F /* 1.5 * 2^23: its own last byte is 0 */

static inline uint8_t last_byte(float rounded)
{
    uint32_t bits;
    memcpy(&bits, &rounded, sizeof bits);
    return (uint8_t)bits; /* of a number below 0 the two's complement */
}

FST_HOT bool fst__int8_round(const struct fst_int8_value *to, const float *restrict x, uint8_t *restrict q, size_t n)
{
    float inverse = 1 / to->scale, low = fst__int8_low(to), high = fst__int8_high(to);
    uint32_t wrong = 0;
    for (size_t i = 0; i < n; i++) {
        float v = x[i] * inverse;
        wrong |= !(x[i] - x[i] == 0);
        v = v < low ? low : v;
        v = v > high ? high : v;
        q[i] = last_byte(v + ROUNDING);
    }
    return !wrong;
}

#define ALWAYS static inline __attribute__((always_inline))

struct ending { /* what of a layer's end is constant where the compiler sees it */
    bool relu, ceiling, add, bytes;
};

ALWAYS void finish_part(const struct fst_int8_finish *f, struct ending e, float inverse, float low, float high,
                        size_t n, const float *restrict sum, const float *restrict more, float *restrict out,
                        uint8_t *restrict bytes)
{
    const float *restrict factor = f->factor, *restrict shift = f->shift;
    for (size_t c = 0; c < n; c++) {
        float v = sum[c] * factor[c] + shift[c];
        if (e.add)
            v = v + more[c];
        if (e.relu)
            v = v > 0 ? v : 0;
        if (e.ceiling)
            v = v < 6 ? v : 6;
        if (!e.bytes) {
            out[c] = v;
            continue;
        }
        v = v * inverse;
        v = v < low ? low : v;
        v = v > high ? high : v;
        bytes[c] = last_byte(v + ROUNDING);
    }
}

ALWAYS void finish_parts(const struct fst_int8_finish *f, struct ending e, const float *sum, const float *more,
                         void *out, size_t count)
{
    float inverse = e.bytes ? 1 / f->to->scale : 0, low = e.bytes ? fst__int8_low(f->to) : 0;
    float high = e.bytes ? fst__int8_high(f->to) : 0;
    for (size_t at = 0; at < count; at += f->period)
        finish_part(f, e, inverse, low, high, count - at < f->period ? count - at : f->period, sum + at,
                    e.add ? more + at : NULL, (float *)out + at, (uint8_t *)out + at);
}

ALWAYS void finish_of(const struct fst_int8_finish *f, bool add, bool bytes, const float *sum, const float *more,
                      void *out, size_t count)
{
    if (f->relu6)
        finish_parts(f, (struct ending){true, true, add, bytes}, sum, more, out, count);
    else if (f->relu)
        finish_parts(f, (struct ending){true, false, add, bytes}, sum, more, out, count);
    else
        finish_parts(f, (struct ending){false, false, add, bytes}, sum, more, out, count);
}

FST_HOT void fst__int8_finish(const struct fst_int8_finish *f, const float *sum, const float *more, void *out,
                              size_t count)
{
    if (more && f->to)
        finish_of(f, true, true, sum, more, out, count);
    else if (more)
        finish_of(f, true, false, sum, more, out, count);
    else if (f->to)
        finish_of(f, false, true, sum, more, out, count);
    else
        finish_of(f, false, false, sum, more, out, count);
}

size_t fst__int8_period(size_t channels)
{
    enum { LONG = 512 }; /* elements that are worth a loop of vectors */
    return channels >= LONG ? channels : channels * (LONG / channels);
}

/* ---- max pooling ---- */

struct span { /* of an input's rows or columns that a window sees: never none */
    size_t from, to;
};

static inline struct span seen(const struct fst_int8_pool *p, size_t out, size_t size)
{
    size_t first = out * p->stride, end = first + p->kernel;
    return (struct span){first > p->padding ? first - p->padding : 0,
                         end - p->padding < size ? end - p->padding : size};
}

/* A row of outputs: the largest of each column first, then of neighbouring columns. */
#define INT8_POOL(name, type)                                                                          \
    ALWAYS void name(const struct fst_int8_pool *p, struct span y, const type *in, type *restrict row, \
                     type *restrict out)                                                               \
    {                                                                                                  \
        size_t n = p->width * p->channels, c = p->channels;                                            \
        memcpy(row, in + y.from * n, n * sizeof *row);                                                 \
        for (const type *other = in + (y.from + 1) * n; other < in + y.to * n; other += n)             \
            for (size_t i = 0; i < n; i++)                                                             \
                row[i] = row[i] > other[i] ? row[i] : other[i];                                        \
        for (size_t o = 0; o < p->out_width; o++, out += c) {                                          \
            struct span x = seen(p, o, p->width);                                                      \
            memcpy(out, row + x.from * c, c * sizeof *out);                                            \
            for (const type *other = row + (x.from + 1) * c; other < row + x.to * c; other += c)       \
                for (size_t i = 0; i < c; i++)                                                         \
                    out[i] = out[i] > other[i] ? out[i] : other[i];                                    \
        }                                                                                              \
    }
INT8_POOL(pool_unsigned, uint8_t)
INT8_POOL(pool_signed, int8_t)

FST_HOT void fst__int8_maxpool(const struct fst_int8_pool *p, const void *in, void *row, void *out)
{
    for (size_t y = 0; y < p->out_height; y++) {
        char *to = (char *)out + y * p->out_width * p->channels;
        if (p->is_unsigned)
            pool_unsigned(p, seen(p, y, p->height), in, row, (uint8_t *)to);
        else
            pool_signed(p, seen(p, y, p->height), in, row, (int8_t *)to);
    }
}

/* ---- quantise ---------------------------------------------------------------------------------------- */

static fst_status quantise_shape(struct fst_node *n, fst_error *err)
{
    if (n->planes != 1)
        return fst_fail(err, FST_E_ARGUMENT, "takes real values, not complex ones");
    if (!(n->u.quantise.scale > 0) || !isfinite(n->u.quantise.scale) || !isfinite(1 / n->u.quantise.scale))
        return fst_fail(err, FST_E_ARGUMENT, "a scale is a number above 0 that has an inverse, not %g",
                        (double)n->u.quantise.scale);
    n->out = n->in;
    n->int8 = n->u.quantise;
    n->int8.on = true;
    return FST_OK;
}

static double quantise_flops(const struct fst_node *n)
{
    return (double)fst_shape_count(&n->out);
}

fst_status fst__quantise_failed(fst_error *err)
{
    return fst_fail(err, FST_E_NUMERIC, "int8: a value to be rounded is infinite or not a number");
}

static fst_status quantise_accepts(const struct fst_node *n, const struct fst_op_args *a, fst_error *err)
{
    size_t bytes = (size_t)(a->batch * fst_shape_count(&n->in)) * sizeof(float);
    return fst__all_finite(a->in, bytes, false) ? FST_OK : fst__quantise_failed(err);
}

/* Not the trick of fst__int8_round, whose oracle it is. */
FST_HOT static void quantise(const float *restrict x, float *restrict q, float inverse, float low, float high,
                             int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float v = nearbyintf(x[i] * inverse);
        v = v < low ? low : v;
        q[i] = (v > high ? high : v) + 0.0F; /* no -0 */
    }
}

static void quantise_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    quantise(a->in, a->out, 1 / n->int8.scale, fst__int8_low(&n->int8), fst__int8_high(&n->int8),
             a->batch * fst_shape_count(&n->in));
}

const struct fst_op_type fst__op_quantise = {
    .name = "quantise",
    .shape = quantise_shape,
    .flops = quantise_flops,
    .forward = quantise_forward,
    .accepts = quantise_accepts,
};

/* ---- round_int8 ---------------------------------------------------------------------------------------- */

FST_HOT static float largest(const float *x, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++) {
        float size = fabsf(x[i]);
        most = size > most ? size : most;
    }
    return most;
}

/* A NaN stays one, and so is seen. */
FST_HOT void fst__round_int8(const float *restrict x, float *restrict y, bool is_unsigned, size_t n)
{
    float high = is_unsigned ? 255 : 127, scale = largest(x, n) / high, inverse = 1 / scale;
    if (!(scale > 0) || !isfinite(scale) || !isfinite(inverse)) {
        memcpy(y, x, n * sizeof *y);
        return;
    }
    for (size_t i = 0; i < n; i++)
        y[i] = ((x[i] * inverse + ROUNDING) - ROUNDING) * scale;
}

static fst_status round_shape(struct fst_node *n, fst_error *err)
{
    if (n->planes != 1)
        return fst_fail(err, FST_E_ARGUMENT, "takes real values, not complex ones");
    n->out = n->in;
    return FST_OK;
}

static void round_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    fst__round_int8(a->in, a->out, n->u.quantise.is_unsigned, (size_t)(a->batch * fst_shape_count(&n->in)));
}

/* The gradient of the input is that of the output: it stays where it is. */
static void round_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    (void)n;
    (void)a;
}

const struct fst_op_type fst__op_round_int8 = {
    .name = "round_int8",
    .shape = round_shape,
    .flops = quantise_flops,
    .forward = round_forward,
    .backward = FST__GRADIENT(round_backward),
};

/* ---- layers -------------------------------------------------------------------------------------------- */

int64_t fst__int8_depth(const struct fst_node *n)
{
    if (n->kind == FST_OP_LINEAR || n->kind == FST_OP_INT8_LINEAR)
        return n->in.dim[n->in.rank - 1];
    return n->in.dim[0] / n->u.conv.groups * n->u.conv.kernel[0] * n->u.conv.kernel[1];
}

static fst_status check_layer(const struct fst_node *n, fst_error *err)
{
    if (!n->in_int8.on)
        return fst_fail(err, FST_E_ARGUMENT, "takes int8 values, not f32 ones");
    if (fst__int8_depth(n) > FST__INT8_DEPTH)
        return fst_fail(err, FST_E_LIMIT, "sums of %lld products can pass 32 bits; %d cannot",
                        (long long)fst__int8_depth(n), FST__INT8_DEPTH);
    return FST_OK;
}

static fst_status conv_shape(struct fst_node *n, fst_error *err)
{
    fst_status s = fst__conv2d_shape(n, err);
    n->int8.on = false;
    return s ? s : check_layer(n, err);
}

static fst_status linear_shape(struct fst_node *n, fst_error *err)
{
    fst_status s = fst__linear_shape(n, err);
    n->int8.on = false;
    return s ? s : check_layer(n, err);
}

static double conv_flops(const struct fst_node *n)
{
    return (double)fst_shape_count(&n->out) * (2.0 * (double)fst__int8_depth(n) + 2);
}

/* Both kinds gather what an output reads (columns), as whole numbers, and sum up products: out = W columns. */

FST_HOT static void to_whole(const float *restrict x, int16_t *restrict q, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        q[i] = (int16_t)x[i];
}

/* Sums of one row of weights with each of the columns. */
FST_HOT static void multiply(const int16_t *restrict w, const int16_t *restrict column, int64_t depth, int64_t columns,
                             int32_t *restrict sum)
{
    for (int64_t i = 0; i < columns; i++, column += depth) {
        int32_t s = 0;
        for (int64_t k = 0; k < depth; k++)
            s += (int32_t)w[k] * (int32_t)column[k];
        sum[i] = s;
    }
}

/* The columns of a group's channels of one image, position by position. */
static void gather(const struct fst_node *n, const float *in, int64_t channels, int16_t *column)
{
    const fst_conv2d *c = &n->u.conv;
    int64_t h = n->in.dim[1], w = n->in.dim[2], taps = c->kernel[0] * c->kernel[1], depth = channels * taps;
    memset(column, 0, (size_t)(n->out.dim[1] * n->out.dim[2] * depth) * sizeof *column);
    for (int64_t oy = 0; oy < n->out.dim[1]; oy++)
        for (int64_t ox = 0; ox < n->out.dim[2]; ox++, column += depth)
            for (int64_t k = 0; k < taps; k++) {
                int64_t y = oy * c->stride[0] + k / c->kernel[1] - c->padding[0];
                int64_t x = ox * c->stride[1] + k % c->kernel[1] - c->padding[1];
                if (y >= 0 && y < h && x >= 0 && x < w)
                    for (int64_t i = 0; i < channels; i++)
                        column[i * taps + k] = (int16_t)in[(i * h + y) * w + x];
            }
}

struct room { /* the scratch's parts */
    int32_t *sum;
    int16_t *weight, *column;
};

static struct room room_of(const struct fst_op_args *a, int64_t sums, int64_t weights)
{
    struct room r = {.sum = a->scratch};
    r.weight = (int16_t *)(void *)(r.sum + sums);
    r.column = r.weight + weights;
    return r;
}

static size_t room_bytes(int64_t sums, int64_t weights, int64_t columns)
{
    return (size_t)sums * sizeof(int32_t) + (size_t)(weights + columns) * sizeof(int16_t);
}

static void conv_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t depth = fst__int8_depth(n), plane = n->out.dim[1] * n->out.dim[2], outs = n->out.dim[0];
    int64_t groups = n->u.conv.groups, channels = n->in.dim[0] / groups, of_group = outs / groups;
    struct room r = room_of(a, plane, outs * depth);
    to_whole(a->param[0], r.weight, outs * depth);
    for (int64_t i = 0; i < a->batch * outs; i++) {
        int64_t o = i % outs, first = i / outs * n->in.dim[0] + o / of_group * channels;
        float factor = n->in_int8.scale * a->param[1][o];
        if (o % of_group == 0)
            gather(n, a->in + first * n->in.dim[1] * n->in.dim[2], channels, r.column);
        multiply(r.weight + o * depth, r.column, depth, plane, r.sum);
        for (int64_t k = 0; k < plane; k++)
            a->out[i * plane + k] = (float)r.sum[k] * factor + a->param[2][o];
    }
}

static size_t conv_scratch(const struct fst_node *n, int64_t batch)
{
    int64_t depth = fst__int8_depth(n), plane = n->out.dim[1] * n->out.dim[2];
    (void)batch;
    return room_bytes(plane, n->out.dim[0] * depth, plane * depth);
}

static void linear_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct fst_linear_sizes z = fst__linear_sizes(n, a->batch);
    struct room r = room_of(a, z.rows, z.out * z.in);
    to_whole(a->param[0], r.weight, z.out * z.in);
    to_whole(a->in, r.column, z.rows * z.in);
    for (int64_t o = 0; o < z.out; o++) {
        float factor = n->in_int8.scale * a->param[1][o];
        multiply(r.weight + o * z.in, r.column, z.in, z.rows, r.sum);
        for (int64_t i = 0; i < z.rows; i++)
            a->out[i * z.out + o] = (float)r.sum[i] * factor + a->param[2][o];
    }
}

static size_t linear_scratch(const struct fst_node *n, int64_t batch)
{
    struct fst_linear_sizes z = fst__linear_sizes(n, batch);
    return room_bytes(z.rows, z.out * z.in, z.rows * z.in);
}

const struct fst_op_type fst__op_int8_conv2d = {
    .name = "int8_conv2d",
    .shape = conv_shape,
    .flops = conv_flops,
    .forward = conv_forward,
    .scratch = conv_scratch,
    .takes_int8 = true,
};

const struct fst_op_type fst__op_int8_linear = {
    .name = "int8_linear",
    .shape = linear_shape,
    .flops = conv_flops,
    .forward = linear_forward,
    .scratch = linear_scratch,
    .takes_int8 = true,
};

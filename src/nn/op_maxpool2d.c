/* maxpool2d: padding counts as -infinity; of equal maxima the first in row-major order takes the gradient. */
#include <math.h>
#include <string.h>

#include "ops.h"

static fst_status shape(struct fst_node *n, fst_error *err)
{
    int64_t k = n->u.pool.kernel, s = n->u.pool.stride, p = n->u.pool.padding;
    if (n->in.rank != 3)
        return fst_fail(err, FST_E_ARGUMENT, "needs (channels, height, width), got rank %d", n->in.rank);
    if (k > FST_WINDOW_MAX || s > FST_WINDOW_MAX || p > FST_WINDOW_MAX)
        return fst_fail(err, FST_E_LIMIT, "kernel, stride and padding are at most %d", FST_WINDOW_MAX);
    if (k < 1 || s < 1 || p < 0 || 2 * p > k)
        return fst_fail(err, FST_E_ARGUMENT,
                        "kernel %lld, stride %lld, padding %lld: padding is at most half the kernel", (long long)k,
                        (long long)s, (long long)p);
    n->out = FST_SHAPE(n->in.dim[0], 0, 0);
    for (int i = 1; i < 3; i++) {
        if (n->in.dim[i] + 2 * p < k)
            return fst_fail(err, FST_E_ARGUMENT, "a window of %lld does not fit an input of %lld", (long long)k,
                            (long long)n->in.dim[i]);
        n->out.dim[i] = (n->in.dim[i] + 2 * p - k) / s + 1;
    }
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    return (double)fst_shape_count(&n->out) * (double)(n->u.pool.kernel * n->u.pool.kernel);
}

static size_t saved(const struct fst_node *n, int64_t batch)
{
    return (size_t)(batch * fst_shape_count(&n->out)) * sizeof(int64_t);
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t h = n->in.dim[1], w = n->in.dim[2], oh = n->out.dim[1], ow = n->out.dim[2];
    int64_t k = n->u.pool.kernel, s = n->u.pool.stride, p = n->u.pool.padding;
    int64_t *from = a->saved;
    for (int64_t i = 0; i < a->batch * fst_shape_count(&n->out); i++) {
        int64_t plane = i / (oh * ow), y0 = i / ow % oh * s - p, x0 = i % ow * s - p, best = -1;
        float max = -INFINITY;
        for (int64_t y = y0; y < y0 + k; y++)
            for (int64_t x = x0; x < x0 + k; x++) {
                if (y < 0 || x < 0 || y >= h || x >= w)
                    continue;
                int64_t at = (plane * h + y) * w + x;
                /* a NaN wins, so that it is seen and not lost */
                if (best < 0 || a->in[at] > max || (a->in[at] != a->in[at] && max == max)) {
                    best = at;
                    max = a->in[at];
                }
            }
        a->out[i] = max;
        if (from)
            from[i] = best;
    }
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    const int64_t *from = a->saved;
    if (!a->grad_in)
        return;
    for (int64_t i = 0; i < a->batch * fst_shape_count(&n->in); i++)
        a->grad_in[i] = 0;
    for (int64_t i = 0; i < a->batch * fst_shape_count(&n->out); i++)
        a->grad_in[from[i]] += a->grad_out[i];
}

/* ---- channels in blocks ----------------------------------------------------------------------------- */

enum { LANES = FST_POOL_BLOCK };

/* Four channels at a time, as vectors of the compiler's: wider ones it would take apart again when the
 * machine that it builds for has none. */
enum { WIDE = 4 };
typedef float wide_f __attribute__((vector_size(WIDE * 4)));
typedef int32_t wide_i __attribute__((vector_size(WIDE * 4)));

#define PICK(mask, a, b) (((mask) & (a)) | (~(mask) & (b)))

static inline wide_i load(const float *p)
{
    wide_i v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void window_max(const float *restrict in, int64_t row, int64_t kernel, float *restrict out,
                              unsigned char *restrict at)
{
    for (int l = 0; l < LANES; l += WIDE) {
        wide_i best = load(in + l), where = {0};
        for (int64_t t = 1; t < kernel * kernel; t++) {
            wide_i x = load(in + t / kernel * row + t % kernel * LANES + l);
            wide_i more = ~((wide_f)x <= (wide_f)best); /* a NaN wins, to be seen */
            best = PICK(more, x, best);
            where = PICK(more, (wide_i){0} + (int32_t)t, where);
        }
        memcpy(out + l, &best, sizeof best);
        for (int i = 0; i < WIDE; i++)
            at[l + i] = (unsigned char)where[i];
    }
}

FST_HOT void fst__maxpool_blocked_forward(const struct fst_blocked_pool *p, const float *in, float *out,
                                          unsigned char *at)
{
    int64_t row = p->width * LANES, k = p->kernel;
    for (int64_t i = 0; i < p->images; i++)
        for (int64_t y = 0; y < p->out_height; y++) {
            const float *from = in + (i * p->height + y * k) * row;
            for (int64_t x = 0; x < p->out_width; x++, out += LANES, at += LANES) {
                if (k == 2) /* a constant that the compiler unrolls */
                    window_max(from + x * 2 * LANES, row, 2, out, at);
                else
                    window_max(from + x * k * LANES, row, k, out, at);
            }
        }
}

static inline void window_spread(float *restrict in, int64_t row, int64_t kernel, const float *out, const float *grad,
                                 const unsigned char *at, bool mask)
{
    for (int l = 0; l < LANES; l += WIDE) {
        wide_i g = load(grad + l), where = {at[l], at[l + 1], at[l + 2], at[l + 3]};
        if (mask)
            g &= (wide_f)load(out + l) > (wide_f){0};
        for (int64_t t = 0; t < kernel * kernel; t++) {
            wide_i x = g & (where == (wide_i){0} + (int32_t)t);
            memcpy(in + t / kernel * row + t % kernel * LANES + l, &x, sizeof x);
        }
    }
}

FST_HOT void fst__maxpool_blocked_backward(const struct fst_blocked_pool *p, const float *out, const float *grad_out,
                                           const unsigned char *at, bool mask, float *grad_in)
{
    int64_t row = p->width * LANES, k = p->kernel;
    bool ragged = p->out_height * k != p->height || p->out_width * k != p->width;
    if (ragged) /* what no window reaches */
        memset(grad_in, 0, (size_t)(p->images * p->height * row) * sizeof *grad_in);
    for (int64_t i = 0; i < p->images; i++)
        for (int64_t y = 0; y < p->out_height; y++) {
            float *to = grad_in + (i * p->height + y * k) * row;
            for (int64_t x = 0; x < p->out_width; x++, out += LANES, grad_out += LANES, at += LANES) {
                if (k == 2) /* a constant that the compiler unrolls */
                    window_spread(to + x * 2 * LANES, row, 2, out, grad_out, at, mask);
                else
                    window_spread(to + x * k * LANES, row, k, out, grad_out, at, mask);
            }
        }
}

const struct fst_op_type fst__op_maxpool2d = {"maxpool2d", shape, flops, forward, backward, saved};

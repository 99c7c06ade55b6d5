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

const struct fst_op_type fst__op_maxpool2d = {
    .name = "maxpool2d",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .saved = saved,
    .takes_complex = true,
    .takes_int8 = true,
};

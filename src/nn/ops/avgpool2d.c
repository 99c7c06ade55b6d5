/* avgpool2d: means of windows, with the padding counted or not. */
#include "backend.h"

static fst_status shape(struct fst_node *n, fst_error *err)
{
    if (n->in.rank != 3)
        return fst_fail(err, FST_E_ARGUMENT, "needs (channels, height, width), got rank %d", n->in.rank);
    n->out = FST_SHAPE(n->in.dim[0], 0, 0);
    for (int i = 0; i < 2; i++) {
        int64_t k = n->u.average.kernel[i], s = n->u.average.stride[i], p = n->u.average.padding[i];
        if (k < 1 || s < 1 || p < 0 || p > k / 2)
            return fst_fail(err, FST_E_ARGUMENT,
                            "kernel %lld, stride %lld, padding %lld: padding is at most half the kernel", (long long)k,
                            (long long)s, (long long)p);
        if (k > n->in.dim[1 + i] + 2 * p)
            return fst_fail(err, FST_E_ARGUMENT, "a window of %lld does not fit an input of %lld", (long long)k,
                            (long long)n->in.dim[1 + i]);
        n->out.dim[1 + i] = (n->in.dim[1 + i] + 2 * p - k) / s + 1;
    }
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    return (double)fst_shape_count(&n->out) * (double)(n->u.average.kernel[0] * n->u.average.kernel[1]);
}

struct window {
    int64_t plane, top, bottom, left, right;
    double divisor;
};

static int64_t clip(int64_t x, int64_t most)
{
    return x < 0 ? 0 : x > most ? most : x;
}

static struct window window_at(const struct fst_node *n, int64_t i)
{
    int64_t h = n->in.dim[1], w = n->in.dim[2], oh = n->out.dim[1], ow = n->out.dim[2];
    int64_t y = i / ow % oh * n->u.average.stride[0] - n->u.average.padding[0];
    int64_t x = i % ow * n->u.average.stride[1] - n->u.average.padding[1];
    struct window r = {.plane = i / (oh * ow),
                       .top = clip(y, h),
                       .bottom = clip(y + n->u.average.kernel[0], h),
                       .left = clip(x, w),
                       .right = clip(x + n->u.average.kernel[1], w)};
    r.divisor = n->u.average.count_padding ? (double)(n->u.average.kernel[0] * n->u.average.kernel[1])
                                           : (double)((r.bottom - r.top) * (r.right - r.left));
    return r;
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t h = n->in.dim[1], w = n->in.dim[2];
    for (int64_t i = 0; i < a->batch * fst_shape_count(&n->out); i++) {
        struct window r = window_at(n, i);
        double sum = 0;
        for (int64_t y = r.top; y < r.bottom; y++)
            for (int64_t x = r.left; x < r.right; x++)
                sum += (double)a->in[(r.plane * h + y) * w + x];
        a->out[i] = (float)(sum / r.divisor);
    }
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t h = n->in.dim[1], w = n->in.dim[2];
    if (!a->grad_in)
        return;
    for (int64_t i = 0; i < a->batch * fst_shape_count(&n->in); i++)
        a->grad_in[i] = 0;
    for (int64_t i = 0; i < a->batch * fst_shape_count(&n->out); i++) {
        struct window r = window_at(n, i);
        for (int64_t y = r.top; y < r.bottom; y++)
            for (int64_t x = r.left; x < r.right; x++)
                a->grad_in[(r.plane * h + y) * w + x] += (float)((double)a->grad_out[i] / r.divisor);
    }
}

const struct fst_op_type fst__op_avgpool2d = {
    .name = "avgpool2d",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .takes_complex = true,
};

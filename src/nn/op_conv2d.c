/* conv2d: cross-correlation with zero padding, strides and groups. */
#include "backend.h"

static fst_status shape(struct fst_node *n, fst_error *err)
{
    const fst_conv2d *c = &n->u.conv;
    if (n->in.rank != 3)
        return fst_fail(err, FST_E_ARGUMENT, "needs (channels, height, width), got rank %d", n->in.rank);
    if (c->out_channels < 1 || c->groups < 1 || n->in.dim[0] % c->groups || c->out_channels % c->groups)
        return fst_fail(err, FST_E_ARGUMENT, "%lld -> %lld channels do not divide into %lld groups",
                        (long long)n->in.dim[0], (long long)c->out_channels, (long long)c->groups);
    n->out = FST_SHAPE(c->out_channels, 0, 0);
    for (int i = 0; i < 2; i++) {
        if (c->kernel[i] < 1 || c->stride[i] < 1 || c->padding[i] < 0)
            return fst_fail(err, FST_E_ARGUMENT, "kernel and stride must be above 0, padding not below");
        if (c->kernel[i] > FST_WINDOW_MAX || c->stride[i] > FST_WINDOW_MAX || c->padding[i] > FST_WINDOW_MAX)
            return fst_fail(err, FST_E_LIMIT, "kernel, stride and padding are at most %d", FST_WINDOW_MAX);
        int64_t span = n->in.dim[1 + i] + 2 * c->padding[i] - c->kernel[i];
        if (span < 0)
            return fst_fail(err, FST_E_ARGUMENT, "a kernel of %lld does not fit an input of %lld",
                            (long long)c->kernel[i], (long long)n->in.dim[1 + i]);
        n->out.dim[1 + i] = span / c->stride[i] + 1;
    }
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    const fst_conv2d *c = &n->u.conv;
    double outputs = (double)fst_shape_count(&n->out);
    return outputs * (2.0 * (double)(n->in.dim[0] / c->groups * c->kernel[0] * c->kernel[1]) + (c->bias ? 1 : 0));
}

/* Where one output element reads: the kernel's first row and column on the input. */
struct window {
    int64_t b, o, y, x, iy, ix, group_in, group; /* group_in: input channels of a group */
};

static struct window window_at(const struct fst_node *n, int64_t index)
{
    const fst_conv2d *c = &n->u.conv;
    struct window w;
    w.x = index % n->out.dim[2];
    index /= n->out.dim[2];
    w.y = index % n->out.dim[1];
    index /= n->out.dim[1];
    w.o = index % c->out_channels;
    w.b = index / c->out_channels;
    w.iy = w.y * c->stride[0] - c->padding[0];
    w.ix = w.x * c->stride[1] - c->padding[1];
    w.group_in = n->in.dim[0] / c->groups;
    w.group = w.o / (c->out_channels / c->groups);
    return w;
}

/* Calls body with (ii: input index, wi: weight index) for every tap of the window inside the input. */
#define FOR_TAPS(n, w, ii, wi, body)                                                                                   \
    for (int64_t ci_ = 0; ci_ < (w).group_in; ci_++)                                                                   \
        for (int64_t ky_ = 0; ky_ < (n)->u.conv.kernel[0]; ky_++)                                                      \
            for (int64_t kx_ = 0; kx_ < (n)->u.conv.kernel[1]; kx_++) {                                                \
                int64_t y_ = (w).iy + ky_, x_ = (w).ix + kx_;                                                          \
                if (y_ < 0 || x_ < 0 || y_ >= (n)->in.dim[1] || x_ >= (n)->in.dim[2])                                  \
                    continue;                                                                                          \
                int64_t ii = (((w).b * (n)->in.dim[0] + (w).group * (w).group_in + ci_) * (n)->in.dim[1] + y_) *       \
                                 (n)->in.dim[2] +                                                                      \
                             x_;                                                                                       \
                int64_t wi = (((w).o * (w).group_in + ci_) * (n)->u.conv.kernel[0] + ky_) * (n)->u.conv.kernel[1] +    \
                             kx_;                                                                                      \
                body;                                                                                                  \
            }

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t count = a->batch * fst_shape_count(&n->out);
    for (int64_t i = 0; i < count; i++) {
        struct window w = window_at(n, i);
        double sum = n->u.conv.bias ? (double)a->param[1][w.o] : 0.0;
        FOR_TAPS(n, w, ii, wi, sum += (double)a->in[ii] * (double)a->param[0][wi])
        a->out[i] = (float)sum;
    }
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t outputs = a->batch * fst_shape_count(&n->out), inputs = a->batch * fst_shape_count(&n->in);
    const fst_conv2d *c = &n->u.conv;
    int64_t weights = c->out_channels * (n->in.dim[0] / c->groups) * c->kernel[0] * c->kernel[1];
    double *sum = a->scratch, *gw = sum, *gb = gw + weights, *gi = gb + c->out_channels;
    for (int64_t i = 0; i < weights + c->out_channels + (a->grad_in ? inputs : 0); i++)
        sum[i] = 0;
    for (int64_t i = 0; i < outputs; i++) {
        struct window w = window_at(n, i);
        double g = (double)a->grad_out[i];
        gb[w.o] += g;
        FOR_TAPS(n, w, ii, wi, gw[wi] += g * (double)a->in[ii];
                 if (a->grad_in) gi[ii] += g * (double)a->param[0][wi])
    }
    for (int64_t i = 0; i < weights; i++)
        a->grad_param[0][i] = (float)gw[i];
    for (int64_t i = 0; c->bias && i < c->out_channels; i++)
        a->grad_param[1][i] = (float)gb[i];
    for (int64_t i = 0; a->grad_in && i < inputs; i++)
        a->grad_in[i] = (float)gi[i];
}

const struct fst_op_type fst__op_conv2d = {"conv2d", shape, flops, forward, backward, NULL};

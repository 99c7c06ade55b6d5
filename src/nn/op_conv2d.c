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

/* One tap of the kernel: where on the output it reads inside the input, and where it reads there. */
struct tap {
    int64_t y0, y1, x0, x1; /* output rows and columns, from ... up to, not with */
    int64_t iy, ix;         /* input row and column of output row 0, column 0 */
};

/* Outputs from *from up to *to read at index o * stride + shift inside 0 ... size-1. */
static void valid_range(int64_t shift, int64_t stride, int64_t size, int64_t outputs, int64_t *from, int64_t *to)
{
    int64_t last = size - 1 - shift;
    *from = shift >= 0 ? 0 : (-shift + stride - 1) / stride;
    *to = last < 0 ? 0 : last / stride + 1;
    if (*to > outputs)
        *to = outputs;
    if (*from > *to)
        *from = *to;
}

static struct tap tap_at(const struct fst_node *n, int64_t ky, int64_t kx)
{
    const fst_conv2d *c = &n->u.conv;
    struct tap t = {.iy = ky - c->padding[0], .ix = kx - c->padding[1]};
    valid_range(t.iy, c->stride[0], n->in.dim[1], n->out.dim[1], &t.y0, &t.y1);
    valid_range(t.ix, c->stride[1], n->in.dim[2], n->out.dim[2], &t.x0, &t.x1);
    return t;
}

/* out += w * in over the outputs of a tap; planes of doubles and floats. */
static void tap_forward(const struct fst_node *n, const struct tap *t, double w, const float *restrict in,
                        double *restrict out)
{
    int64_t sy = n->u.conv.stride[0], sx = n->u.conv.stride[1];
    for (int64_t y = t->y0; y < t->y1; y++) {
        const float *row = in + (y * sy + t->iy) * n->in.dim[2] + t->ix;
        double *o = out + y * n->out.dim[2];
        if (sx == 1) /* a loop that the compiler makes vectors of */
            for (int64_t x = t->x0; x < t->x1; x++)
                o[x] += w * (double)row[x];
        else
            for (int64_t x = t->x0; x < t->x1; x++)
                o[x] += w * (double)row[x * sx];
    }
}

static double tap_dot(const struct fst_node *n, const struct tap *t, const float *restrict in, const float *restrict g)
{
    int64_t sy = n->u.conv.stride[0], sx = n->u.conv.stride[1];
    double sum = 0;
    for (int64_t y = t->y0; y < t->y1; y++) {
        const float *row = in + (y * sy + t->iy) * n->in.dim[2] + t->ix, *o = g + y * n->out.dim[2];
        for (int64_t x = t->x0; x < t->x1; x++)
            sum += (double)o[x] * (double)row[x * sx];
    }
    return sum;
}

static void tap_backward(const struct fst_node *n, const struct tap *t, double w, const float *restrict g,
                         double *restrict in)
{
    int64_t sy = n->u.conv.stride[0], sx = n->u.conv.stride[1];
    for (int64_t y = t->y0; y < t->y1; y++) {
        double *row = in + (y * sy + t->iy) * n->in.dim[2] + t->ix;
        const float *o = g + y * n->out.dim[2];
        for (int64_t x = t->x0; x < t->x1; x++)
            row[x * sx] += w * (double)o[x];
    }
}

struct sizes {
    int64_t in_plane, out_plane, group_in, group_out, taps;
};

static struct sizes sizes_of(const struct fst_node *n)
{
    const fst_conv2d *c = &n->u.conv;
    return (struct sizes){n->in.dim[1] * n->in.dim[2], n->out.dim[1] * n->out.dim[2], n->in.dim[0] / c->groups,
                          c->out_channels / c->groups, c->kernel[0] * c->kernel[1]};
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    const fst_conv2d *c = &n->u.conv;
    struct sizes z = sizes_of(n);
    double *sum = a->scratch;
    for (int64_t i = 0; i < a->batch * c->out_channels; i++) {
        int64_t b = i / c->out_channels, o = i % c->out_channels, first = o / z.group_out * z.group_in;
        for (int64_t k = 0; k < z.out_plane; k++)
            sum[k] = c->bias ? (double)a->param[1][o] : 0.0;
        for (int64_t k = 0; k < z.group_in * z.taps; k++) {
            struct tap t = tap_at(n, k % z.taps / c->kernel[1], k % z.taps % c->kernel[1]);
            const float *in = a->in + (b * n->in.dim[0] + first + k / z.taps) * z.in_plane;
            tap_forward(n, &t, (double)a->param[0][o * z.group_in * z.taps + k], in, sum);
        }
        for (int64_t k = 0; k < z.out_plane; k++)
            a->out[i * z.out_plane + k] = (float)sum[k];
    }
}

static void backward_weights(const struct fst_node *n, const struct fst_op_args *a, const struct sizes *z)
{
    const fst_conv2d *c = &n->u.conv;
    for (int64_t o = 0; o < c->out_channels; o++) {
        int64_t first = o / z->group_out * z->group_in;
        double bias = 0;
        for (int64_t b = 0; c->bias && b < a->batch; b++)
            for (int64_t k = 0; k < z->out_plane; k++)
                bias += (double)a->grad_out[(b * c->out_channels + o) * z->out_plane + k];
        if (c->bias)
            a->grad_param[1][o] = (float)bias;
        for (int64_t k = 0; k < z->group_in * z->taps; k++) {
            struct tap t = tap_at(n, k % z->taps / c->kernel[1], k % z->taps % c->kernel[1]);
            double sum = 0;
            for (int64_t b = 0; b < a->batch; b++)
                sum += tap_dot(n, &t, a->in + (b * n->in.dim[0] + first + k / z->taps) * z->in_plane,
                               a->grad_out + (b * c->out_channels + o) * z->out_plane);
            a->grad_param[0][o * z->group_in * z->taps + k] = (float)sum;
        }
    }
}

static void backward_data(const struct fst_node *n, const struct fst_op_args *a, const struct sizes *z)
{
    const fst_conv2d *c = &n->u.conv;
    double *sum = a->scratch;
    for (int64_t i = 0; i < a->batch * n->in.dim[0]; i++) {
        int64_t b = i / n->in.dim[0], channel = i % n->in.dim[0], first = channel / z->group_in * z->group_out;
        for (int64_t k = 0; k < z->in_plane; k++)
            sum[k] = 0;
        for (int64_t k = 0; k < z->group_out * z->taps; k++) {
            struct tap t = tap_at(n, k % z->taps / c->kernel[1], k % z->taps % c->kernel[1]);
            int64_t o = first + k / z->taps, w = (o * z->group_in + channel % z->group_in) * z->taps + k % z->taps;
            tap_backward(n, &t, (double)a->param[0][w], a->grad_out + (b * c->out_channels + o) * z->out_plane, sum);
        }
        for (int64_t k = 0; k < z->in_plane; k++)
            a->grad_in[i * z->in_plane + k] = (float)sum[k];
    }
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct sizes z = sizes_of(n);
    backward_weights(n, a, &z);
    if (a->grad_in)
        backward_data(n, a, &z);
}

const struct fst_op_type fst__op_conv2d = {
    .name = "conv2d",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = backward,
};

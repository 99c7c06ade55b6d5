/* conv2d: cross-correlation with zero padding, strides and groups. */
#include <string.h>

#include "backend.h"
#include "matmul.h"

fst_status fst__conv2d_shape(struct fst_node *n, fst_error *err)
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

/* The reference kernels write the samples out as columns, one an output element with everything that it reads, and
 * multiply: out = W columns. Small images go several at a time. */
struct sizes {
    int64_t in_plane, out_plane, group_in, group_out, taps, depth; /* depth: values of one column */
    int64_t images, columns;                                       /* of a block at most */
};

static struct sizes sizes_of(const struct fst_node *n, int64_t batch)
{
    enum { ENOUGH = 64 }; /* columns that make a product worth its while */
    const fst_conv2d *c = &n->u.conv;
    struct sizes z = {.in_plane = n->in.dim[1] * n->in.dim[2],
                      .out_plane = n->out.dim[1] * n->out.dim[2],
                      .group_in = n->in.dim[0] / c->groups,
                      .group_out = c->out_channels / c->groups,
                      .taps = c->kernel[0] * c->kernel[1]};
    z.depth = z.group_in * z.taps;
    z.images = z.out_plane < ENOUGH ? ENOUGH / z.out_plane : 1;
    if (z.images > batch)
        z.images = batch;
    z.columns = z.images * z.out_plane;
    return z;
}

/* Scratch: doubles, then the columns, then the output's gradient where the columns have theirs. */
static int64_t doubles(const struct sizes *z)
{
    int64_t columns = z->depth * z->columns + z->in_plane, weights = z->group_out * z->depth;
    int64_t outputs = z->group_out * z->columns, most = columns > weights ? columns : weights;
    return most > outputs ? most : outputs;
}

static size_t scratch(const struct fst_node *n, int64_t batch)
{
    struct sizes z = sizes_of(n, batch);
    return sizeof(double) * (size_t)doubles(&z) + sizeof(float) * (size_t)((z.depth + z.group_out) * z.columns);
}

struct block { /* some images of one group */
    int64_t group, first, images, columns;
    double *sum;
    float *column, *grad;
};

static struct block block_at(const struct sizes *z, const struct fst_op_args *a, int64_t group, int64_t first)
{
    struct block b = {.group = group, .first = first, .images = z->images, .sum = a->scratch};
    if (b.first + b.images > a->batch)
        b.images = a->batch - b.first;
    b.columns = b.images * z->out_plane;
    b.column = (float *)(b.sum + doubles(z));
    b.grad = b.column + z->depth * z->columns;
    return b;
}

/* What a row of outputs reads with one tap of the kernel: output x reads input x * stride + shift of the input's row,
 * and nothing (the padding) outside of from ... to-1. */
struct reach {
    int64_t row, shift, stride, from, to; /* row: where the input's row begins in the plane */
};

static struct reach reach_of(const struct fst_node *n, int64_t tap, int64_t y)
{
    const fst_conv2d *c = &n->u.conv;
    int64_t iy = y * c->stride[0] + tap / c->kernel[1] - c->padding[0], width = n->in.dim[2];
    struct reach r = {.row = iy * width, .shift = tap % c->kernel[1] - c->padding[1], .stride = c->stride[1]};
    if (iy < 0 || iy >= n->in.dim[1])
        return r;
    while (r.from < n->out.dim[2] && r.from * r.stride + r.shift < 0)
        r.from++;
    for (r.to = n->out.dim[2]; r.to > r.from && (r.to - 1) * r.stride + r.shift >= width; r.to--)
        ;
    return r;
}

static void write_columns(const struct fst_node *n, const struct fst_op_args *a, const struct sizes *z,
                          const struct block *b)
{
    float *to = b->column;
    int64_t width = n->out.dim[2];
    memset(to, 0, (size_t)(z->depth * b->columns) * sizeof *to);
    for (int64_t k = 0; k < z->depth; k++)
        for (int64_t i = 0; i < b->images; i++) {
            int64_t channel = b->group * z->group_in + k / z->taps;
            const float *in = a->in + ((b->first + i) * n->in.dim[0] + channel) * z->in_plane;
            for (int64_t y = 0; y < n->out.dim[1]; y++, to += width) {
                struct reach r = reach_of(n, k % z->taps, y);
                for (int64_t x = r.from; x < r.to; x++)
                    to[x] = in[r.row + x * r.stride + r.shift];
            }
        }
}

/* Output channel o of the block's group, image i of the block. */
static int64_t out_at(const struct fst_node *n, const struct sizes *z, const struct block *b, int64_t o, int64_t i)
{
    return ((b->first + i) * n->out.dim[0] + b->group * z->group_out + o) * z->out_plane;
}

static void forward_block(const struct fst_node *n, const struct fst_op_args *a, const struct sizes *z,
                          const struct block *b)
{
    write_columns(n, a, z, b);
    fst__product(&(struct fst_product){
        .m = z->group_out,
        .n = b->columns,
        .k = z->depth,
        .a = {.f = a->param[0] + b->group * z->group_out * z->depth, .row = z->depth, .column = 1},
        .b = {.f = b->column, .row = b->columns, .column = 1},
        .of_row = n->u.conv.bias ? a->param[1] + b->group * z->group_out : NULL,
        .sum = b->sum,
        .stride = b->columns});
    const double *sum = b->sum;
    for (int64_t o = 0; o < z->group_out; o++)
        for (int64_t i = 0; i < b->images; i++)
            for (int64_t k = 0; k < z->out_plane; k++)
                a->out[out_at(n, z, b, o, i) + k] = (float)*sum++;
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct sizes z = sizes_of(n, a->batch);
    for (int64_t group = 0; group < n->u.conv.groups; group++)
        for (int64_t first = 0; first < a->batch; first += z.images) {
            struct block b = block_at(&z, a, group, first);
            forward_block(n, a, &z, &b);
        }
}

static void write_gradient(const struct fst_node *n, const struct fst_op_args *a, const struct sizes *z,
                           const struct block *b)
{
    for (int64_t o = 0; o < z->group_out; o++)
        for (int64_t i = 0; i < b->images; i++)
            memcpy(b->grad + o * b->columns + i * z->out_plane, a->grad_out + out_at(n, z, b, o, i),
                   (size_t)z->out_plane * sizeof(float));
}

/* dW = dout columns^T, added up over the blocks of a group. */
static void backward_weights(const struct fst_node *n, const struct fst_op_args *a, const struct sizes *z,
                             int64_t group)
{
    int64_t count = z->group_out * z->depth;
    const double *sum = a->scratch;
    for (int64_t first = 0; first < a->batch; first += z->images) {
        struct block b = block_at(z, a, group, first);
        write_columns(n, a, z, &b);
        write_gradient(n, a, z, &b);
        fst__product(&(struct fst_product){.m = z->group_out,
                                           .n = z->depth,
                                           .k = b.columns,
                                           .a = {.f = b.grad, .row = b.columns, .column = 1},
                                           .b = {.f = b.column, .row = 1, .column = b.columns},
                                           .sum = b.sum,
                                           .add = first > 0,
                                           .stride = z->depth});
    }
    for (int64_t i = 0; i < count; i++)
        a->grad_param[0][group * count + i] = (float)sum[i];
}

static void backward_bias(const struct fst_node *n, const struct fst_op_args *a, const struct sizes *z)
{
    for (int64_t o = 0; o < n->u.conv.out_channels; o++) {
        double sum = 0;
        for (int64_t b = 0; b < a->batch; b++)
            for (int64_t k = 0; k < z->out_plane; k++)
                sum += (double)a->grad_out[(b * n->u.conv.out_channels + o) * z->out_plane + k];
        a->grad_param[1][o] = (float)sum;
    }
}

/* What the columns' gradients give back to one input channel of one image. */
static void read_columns(const struct fst_node *n, const struct sizes *z, const struct block *b, int64_t channel,
                         int64_t image, float *grad)
{
    double *plane = b->sum + z->depth * z->columns;
    for (int64_t k = 0; k < z->in_plane; k++)
        plane[k] = 0;
    for (int64_t tap = 0; tap < z->taps; tap++) {
        const double *from = b->sum + (channel * z->taps + tap) * b->columns + image * z->out_plane;
        for (int64_t y = 0; y < n->out.dim[1]; y++, from += n->out.dim[2]) {
            struct reach r = reach_of(n, tap, y);
            for (int64_t x = r.from; x < r.to; x++)
                plane[r.row + x * r.stride + r.shift] += from[x];
        }
    }
    for (int64_t k = 0; k < z->in_plane; k++)
        grad[k] = (float)plane[k];
}

/* dcolumns = W^T dout */
static void backward_data(const struct fst_node *n, const struct fst_op_args *a, const struct sizes *z,
                          const struct block *b)
{
    write_gradient(n, a, z, b);
    fst__product(&(struct fst_product){
        .m = z->depth,
        .n = b->columns,
        .k = z->group_out,
        .a = {.f = a->param[0] + b->group * z->group_out * z->depth, .row = 1, .column = z->depth},
        .b = {.f = b->grad, .row = b->columns, .column = 1},
        .sum = b->sum,
        .stride = b->columns});
    for (int64_t c = 0; c < z->group_in; c++)
        for (int64_t i = 0; i < b->images; i++)
            read_columns(n, z, b, c, i,
                         a->grad_in + ((b->first + i) * n->in.dim[0] + b->group * z->group_in + c) * z->in_plane);
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct sizes z = sizes_of(n, a->batch);
    if (n->u.conv.bias)
        backward_bias(n, a, &z);
    for (int64_t group = 0; group < n->u.conv.groups; group++) {
        backward_weights(n, a, &z, group);
        for (int64_t first = 0; a->grad_in && first < a->batch; first += z.images) {
            struct block b = block_at(&z, a, group, first);
            backward_data(n, a, &z, &b);
        }
    }
}

const struct fst_op_type fst__op_conv2d = {
    .name = "conv2d",
    .shape = fst__conv2d_shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .scratch = scratch,
};

/* linear: y = x W^T + b over the last dimension: a flat sample, or the tokens (rows) of one. */
#include "matmul.h"
#include "ops.h"

fst_status fst__linear_shape(struct fst_node *n, fst_error *err)
{
    if (n->in.rank != 1 && n->in.rank != 2)
        return fst_fail(err, FST_E_ARGUMENT, "needs (features) or (tokens, features), got rank %d: flatten first",
                        n->in.rank);
    if (n->u.linear.out < 1)
        return fst_fail(err, FST_E_ARGUMENT, "needs at least one output");
    n->out = n->in;
    n->out.dim[n->out.rank - 1] = n->u.linear.out;
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    double in = (double)n->in.dim[n->in.rank - 1];
    return (double)fst_shape_count(&n->out) * (2.0 * in + (n->u.linear.bias ? 1 : 0));
}

struct fst_linear_sizes fst__linear_sizes(const struct fst_node *n, int64_t batch)
{
    int64_t in = n->in.dim[n->in.rank - 1];
    return (struct fst_linear_sizes){batch * fst_shape_count(&n->in) / in, in, n->u.linear.out};
}

void fst__linear_forward(const struct fst_node *n, const struct fst_op_args *a, const float *weight)
{
    struct fst_linear_sizes z = fst__linear_sizes(n, a->batch);
    fst__product(&(struct fst_product){.m = z.rows,
                                       .n = z.out,
                                       .k = z.in,
                                       .a = {.f = a->in, .row = z.in, .column = 1},
                                       .b = {.f = weight, .row = 1, .column = z.in},
                                       .of_column = n->u.linear.bias ? a->param[1] : NULL,
                                       .out = a->out,
                                       .stride = z.out});
}

void fst__linear_backward(const struct fst_node *n, const struct fst_op_args *a, const float *weight)
{
    struct fst_linear_sizes z = fst__linear_sizes(n, a->batch);
    for (int64_t o = 0; n->u.linear.bias && o < z.out; o++) {
        double bias = 0;
        for (int64_t r = 0; r < z.rows; r++)
            bias += (double)a->grad_out[r * z.out + o];
        a->grad_param[1][o] = (float)bias;
    }
    fst__product(&(struct fst_product){.m = z.out,
                                       .n = z.in,
                                       .k = z.rows,
                                       .a = {.f = a->grad_out, .row = 1, .column = z.out},
                                       .b = {.f = a->in, .row = z.in, .column = 1},
                                       .out = a->grad_param[0],
                                       .stride = z.in});
    if (a->grad_in)
        fst__product(&(struct fst_product){.m = z.rows,
                                           .n = z.in,
                                           .k = z.out,
                                           .a = {.f = a->grad_out, .row = z.out, .column = 1},
                                           .b = {.f = weight, .row = z.in, .column = 1},
                                           .out = a->grad_in,
                                           .stride = z.in});
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    fst__linear_forward(n, a, a->param[0]);
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    fst__linear_backward(n, a, a->param[0]);
}

const struct fst_op_type fst__op_linear = {
    .name = "linear",
    .shape = fst__linear_shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
};

/* linear: y = x W^T + b over the features of a flat sample. */
#include "backend.h"

static fst_status shape(struct fst_node *n, fst_error *err)
{
    if (n->in.rank != 1)
        return fst_fail(err, FST_E_ARGUMENT, "needs flat samples (features), got rank %d: flatten first", n->in.rank);
    if (n->u.linear.out < 1)
        return fst_fail(err, FST_E_ARGUMENT, "needs at least one output");
    n->out = FST_SHAPE(n->u.linear.out);
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    return (double)n->u.linear.out * (2.0 * (double)n->in.dim[0] + (n->u.linear.bias ? 1 : 0));
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t in = n->in.dim[0], out = n->u.linear.out;
    for (int64_t b = 0; b < a->batch; b++)
        for (int64_t o = 0; o < out; o++) {
            double sum = n->u.linear.bias ? (double)a->param[1][o] : 0.0;
            for (int64_t i = 0; i < in; i++)
                sum += (double)a->in[b * in + i] * (double)a->param[0][o * in + i];
            a->out[b * out + o] = (float)sum;
        }
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t in = n->in.dim[0], out = n->u.linear.out;
    for (int64_t o = 0; o < out; o++) {
        double bias = 0;
        for (int64_t b = 0; b < a->batch; b++)
            bias += (double)a->grad_out[b * out + o];
        if (n->u.linear.bias)
            a->grad_param[1][o] = (float)bias;
        for (int64_t i = 0; i < in; i++) {
            double sum = 0;
            for (int64_t b = 0; b < a->batch; b++)
                sum += (double)a->grad_out[b * out + o] * (double)a->in[b * in + i];
            a->grad_param[0][o * in + i] = (float)sum;
        }
    }
    for (int64_t b = 0; a->grad_in && b < a->batch; b++)
        for (int64_t i = 0; i < in; i++) {
            double sum = 0;
            for (int64_t o = 0; o < out; o++)
                sum += (double)a->grad_out[b * out + o] * (double)a->param[0][o * in + i];
            a->grad_in[b * in + i] = (float)sum;
        }
}

const struct fst_op_type fst__op_linear = {
    .name = "linear",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = backward,
};

/* relu: max(x, 0), element by element; the gradient at 0 is 0. Shape-blind, so the loops serve every
 * backend and layout. */
#include "ops.h"

static fst_status shape(struct fst_node *n, fst_error *err)
{
    (void)err;
    n->out = n->in;
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    return (double)fst_shape_count(&n->out);
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    fst__relu_forward(a->in, a->out, (size_t)(a->batch * fst_shape_count(&n->out)));
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t count = a->batch * fst_shape_count(&n->out);
    for (int64_t i = 0; a->grad_in && i < count; i++)
        a->grad_in[i] = a->out[i] > 0 ? a->grad_out[i] : 0;
}

const struct fst_op_type fst__op_relu = {
    .name = "relu",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .takes_complex = true,
};

/* transpose: (rows, columns) -> (columns, rows); and scale: times a constant. */
#include "ops.h"

static fst_status transpose_shape(struct fst_node *n, fst_error *err)
{
    if (n->in.rank != 2)
        return fst_fail(err, FST_E_ARGUMENT, "needs (rows, columns), got rank %d", n->in.rank);
    n->out = FST_SHAPE(n->in.dim[1], n->in.dim[0]);
    return FST_OK;
}

static void turn(const float *in, float *out, int64_t batch, int64_t rows, int64_t columns)
{
    for (int64_t b = 0; b < batch; b++, in += rows * columns, out += rows * columns)
        for (int64_t i = 0; i < rows; i++)
            for (int64_t j = 0; j < columns; j++)
                out[j * rows + i] = in[i * columns + j];
}

static void transpose_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    turn(a->in, a->out, a->batch, n->in.dim[0], n->in.dim[1]);
}

static void transpose_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    if (a->grad_in)
        turn(a->grad_out, a->grad_in, a->batch, n->out.dim[0], n->out.dim[1]);
}

const struct fst_op_type fst__op_transpose = {
    .name = "transpose",
    .shape = transpose_shape,
    .forward = transpose_forward,
    .backward = FST__GRADIENT(transpose_backward),
};

/* ---- scale --------------------------------------------------------------------------------------- */

static fst_status scale_shape(struct fst_node *n, fst_error *err)
{
    if (!(n->u.scale.factor > -1e30 && n->u.scale.factor < 1e30))
        return fst_fail(err, FST_E_ARGUMENT, "the factor %g is not a usable number", n->u.scale.factor);
    n->out = n->in;
    return FST_OK;
}

static double scale_flops(const struct fst_node *n)
{
    return (double)fst_shape_count(&n->out);
}

static void scale_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    fst__scale(a->in, (float)n->u.scale.factor, a->out, (size_t)(a->batch * fst_shape_count(&n->out)));
}

static void scale_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    if (a->grad_in)
        fst__scale(a->grad_out, (float)n->u.scale.factor, a->grad_in, (size_t)(a->batch * fst_shape_count(&n->out)));
}

const struct fst_op_type fst__op_scale = {
    .name = "scale",
    .shape = scale_shape,
    .flops = scale_flops,
    .forward = scale_forward,
    .backward = FST__GRADIENT(scale_backward),
};

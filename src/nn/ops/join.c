/* add and concat: ops of several inputs. */
#include <string.h>

#include "ops.h"

/* ---- add ------------------------------------------------------------------------------------- */

static fst_status add_shape(struct fst_node *n, fst_error *err)
{
    char a[64], b[64];
    if (n->nmore != 1)
        return fst_fail(err, FST_E_ARGUMENT, "takes two inputs");
    if (!fst_shape_equal(&n->in, &n->more_in[0]))
        return fst_fail(err, FST_E_ARGUMENT, "%s and %s differ", fst_shape_text(&n->in, a, sizeof a),
                        fst_shape_text(&n->more_in[0], b, sizeof b));
    n->out = n->in;
    return FST_OK;
}

static double add_flops(const struct fst_node *n)
{
    return (double)fst_shape_count(&n->out);
}

static void add_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    fst__add(a->in, a->more_in[0], a->out, false, (size_t)(a->batch * fst_shape_count(&n->out)));
}

/* The first input's gradient is the output's, in place. */
static void add_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    if (a->more_grad_in[0])
        memcpy(a->more_grad_in[0], a->grad_out, (size_t)(a->batch * fst_shape_count(&n->out)) * sizeof(float));
}

const struct fst_op_type fst__op_add = {
    .name = "add",
    .shape = add_shape,
    .flops = add_flops,
    .forward = add_forward,
    .backward = FST__GRADIENT(add_backward),
    .takes_complex = true,
};

/* ---- concat -------------------------------------------------------------------------------------- */

static const fst_shape *input_shape(const struct fst_node *n, int j)
{
    return j ? &n->more_in[j - 1] : &n->in;
}

static fst_status concat_shape(struct fst_node *n, fst_error *err)
{
    char a[64], b[64];
    n->out = n->in;
    for (int j = 1; j <= n->nmore; j++) {
        fst_shape s = *input_shape(n, j);
        n->out.dim[0] += s.dim[0];
        s.dim[0] = n->in.dim[0];
        if (!fst_shape_equal(&s, &n->in))
            return fst_fail(err, FST_E_ARGUMENT, "%s and %s differ after the first dimension",
                            fst_shape_text(&n->in, a, sizeof a), fst_shape_text(input_shape(n, j), b, sizeof b));
    }
    return FST_OK;
}

static void concat_copy(const struct fst_node *n, const struct fst_op_args *a, bool forward)
{
    size_t row = (size_t)fst_shape_count(&n->out), at = 0;
    for (int j = 0; j <= n->nmore; j++) {
        size_t part = (size_t)fst_shape_count(input_shape(n, j));
        const float *in = j ? a->more_in[j - 1] : a->in;
        float *grad = j ? a->more_grad_in[j - 1] : a->grad_in;
        for (int64_t b = 0; b < a->batch; b++) {
            if (forward)
                memcpy(a->out + (size_t)b * row + at, in + (size_t)b * part, part * sizeof(float));
            else if (grad)
                memcpy(grad + (size_t)b * part, a->grad_out + (size_t)b * row + at, part * sizeof(float));
        }
        at += part;
    }
}

static void concat_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    concat_copy(n, a, true);
}

static void concat_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    concat_copy(n, a, false);
}

const struct fst_op_type fst__op_concat = {
    .name = "concat",
    .shape = concat_shape,
    .forward = concat_forward,
    .backward = FST__GRADIENT(concat_backward),
    .takes_complex = true,
};

/* Into complex values, out of them again, and their magnitude. A complex batch of N samples is 2N rows: the real parts
 * of all samples, then the imaginary parts. */
#include <math.h>
#include <string.h>

#include "backend.h"

static fst_status needs_complex(const struct fst_node *n, fst_error *err)
{
    return n->in_planes == 2 ? FST_OK : fst_fail(err, FST_E_ARGUMENT, "takes complex values, not real ones");
}

/* ---- parts --------------------------------------------------------------------------------------- */

static fst_status from_shape(struct fst_node *n, fst_error *err)
{
    char text[64];
    if (n->in_planes != 1)
        return fst_fail(err, FST_E_ARGUMENT, "takes real values, not complex ones");
    if (n->in.rank < 2 || n->in.dim[0] != 2)
        return fst_fail(err, FST_E_ARGUMENT, "needs (2, ...): real and imaginary part, got %s",
                        fst_shape_text(&n->in, text, sizeof text));
    n->planes = 2;
    n->out.rank = n->in.rank - 1;
    memcpy(n->out.dim, n->in.dim + 1, (size_t)n->out.rank * sizeof *n->out.dim);
    return FST_OK;
}

static fst_status to_shape(struct fst_node *n, fst_error *err)
{
    fst_status s = needs_complex(n, err);
    if (s)
        return s;
    if (n->in.rank > 3)
        return fst_fail(err, FST_E_ARGUMENT, "takes up to three dimensions, got %d", n->in.rank);
    n->planes = 1;
    n->out = (fst_shape){.rank = n->in.rank + 1, .dim = {2}};
    memcpy(n->out.dim + 1, n->in.dim, (size_t)n->in.rank * sizeof *n->in.dim);
    return FST_OK;
}

/* Between samples of two parts and two planes of samples. */
static void gather(const float *samples, float *planes, int64_t batch, size_t part)
{
    for (int64_t b = 0; b < batch; b++)
        for (int64_t p = 0; p < 2; p++)
            memcpy(planes + (size_t)(p * batch + b) * part, samples + (size_t)(2 * b + p) * part,
                   part * sizeof *planes);
}

static void scatter(const float *planes, float *samples, int64_t batch, size_t part)
{
    for (int64_t b = 0; b < batch; b++)
        for (int64_t p = 0; p < 2; p++)
            memcpy(samples + (size_t)(2 * b + p) * part, planes + (size_t)(p * batch + b) * part,
                   part * sizeof *planes);
}

static void from_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    gather(a->in, a->out, a->batch, (size_t)fst_shape_count(&n->out));
}

static void from_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    if (a->grad_in)
        scatter(a->grad_out, a->grad_in, a->batch, (size_t)fst_shape_count(&n->out));
}

static void to_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    scatter(a->in, a->out, a->batch, (size_t)fst_shape_count(&n->in));
}

static void to_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    if (a->grad_in)
        gather(a->grad_out, a->grad_in, a->batch, (size_t)fst_shape_count(&n->in));
}

const struct fst_op_type fst__op_complex_from_parts = {
    .name = "complex_from_parts",
    .shape = from_shape,
    .forward = from_forward,
    .backward = FST__GRADIENT(from_backward),
};

const struct fst_op_type fst__op_complex_to_parts = {
    .name = "complex_to_parts",
    .shape = to_shape,
    .forward = to_forward,
    .backward = FST__GRADIENT(to_backward),
    .takes_complex = true,
};

/* ---- magnitude --------------------------------------------------------------------------------------- */

static fst_status magnitude_shape(struct fst_node *n, fst_error *err)
{
    n->planes = 1;
    n->out = n->in;
    return needs_complex(n, err);
}

static double magnitude_flops(const struct fst_node *n)
{
    return 4.0 * (double)fst_shape_count(&n->out);
}

static void magnitude_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t count = a->batch * fst_shape_count(&n->out);
    for (int64_t i = 0; i < count; i++)
        a->out[i] = (float)hypot((double)a->in[i], (double)a->in[count + i]);
}

static void magnitude_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t count = a->batch * fst_shape_count(&n->out);
    for (int64_t i = 0; a->grad_in && i < count; i++) {
        double re = (double)a->in[i], im = (double)a->in[count + i], m = hypot(re, im), g = (double)a->grad_out[i];
        a->grad_in[i] = m > 0 ? (float)(g * re / m) : 0;
        a->grad_in[count + i] = m > 0 ? (float)(g * im / m) : 0;
    }
}

const struct fst_op_type fst__op_magnitude = {
    .name = "magnitude",
    .shape = magnitude_shape,
    .flops = magnitude_flops,
    .forward = magnitude_forward,
    .backward = FST__GRADIENT(magnitude_backward),
    .takes_complex = true,
};

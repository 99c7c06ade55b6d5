/* Element-wise activations beside ReLU, and softmax over the last dimension. */
#include <math.h>

#include "ops.h"

static fst_status same_shape(struct fst_node *n, fst_error *err)
{
    (void)err;
    n->out = n->in;
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    return (double)fst_shape_count(&n->out);
}

static int64_t elements(const struct fst_node *n, const struct fst_op_args *a)
{
    return a->batch * fst_shape_count(&n->out);
}

/* ---- relu6 --------------------------------------------------------------------------------------- */

static void relu6_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    fst__relu6_forward(a->in, a->out, (size_t)elements(n, a));
}

static void relu6_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    for (int64_t i = 0; a->grad_in && i < elements(n, a); i++)
        a->grad_in[i] = a->out[i] > 0 && a->out[i] < 6 ? a->grad_out[i] : 0;
}

const struct fst_op_type fst__op_relu6 = {
    .name = "relu6",
    .shape = same_shape,
    .flops = flops,
    .forward = relu6_forward,
    .backward = FST__GRADIENT(relu6_backward),
};

/* ---- sigmoid -------------------------------------------------------------------------------------- */

static void sigmoid_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    for (int64_t i = 0; i < elements(n, a); i++)
        a->out[i] = (float)(1 / (1 + exp(-(double)a->in[i])));
}

static void sigmoid_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    for (int64_t i = 0; a->grad_in && i < elements(n, a); i++) {
        /* from the input: 1 - y of a rounded y would lose the gradient where y is near 1 */
        double e = exp(-fabs((double)a->in[i]));
        a->grad_in[i] = (float)((double)a->grad_out[i] * e / ((1 + e) * (1 + e)));
    }
}

const struct fst_op_type fst__op_sigmoid = {
    .name = "sigmoid",
    .shape = same_shape,
    .flops = flops,
    .forward = sigmoid_forward,
    .backward = FST__GRADIENT(sigmoid_backward),
};

/* ---- gelu ------------------------------------------------------------------------------------------- */

static const double root_2_over_pi = 0.79788456080286535588;

static void gelu_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    for (int64_t i = 0; i < elements(n, a); i++) {
        double x = (double)a->in[i];
        a->out[i] = (float)(0.5 * x * (1 + tanh(root_2_over_pi * (x + 0.044715 * x * x * x))));
    }
}

static void gelu_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    for (int64_t i = 0; a->grad_in && i < elements(n, a); i++) {
        double x = (double)a->in[i], t = tanh(root_2_over_pi * (x + 0.044715 * x * x * x));
        double slope = root_2_over_pi * (1 + 3 * 0.044715 * x * x);
        a->grad_in[i] = (float)((double)a->grad_out[i] * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * slope));
    }
}

const struct fst_op_type fst__op_gelu_tanh = {
    .name = "gelu_tanh",
    .shape = same_shape,
    .flops = flops,
    .forward = gelu_forward,
    .backward = FST__GRADIENT(gelu_backward),
};

/* ---- softmax ---------------------------------------------------------------------------------------- */

static void softmax_forward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t width = n->out.dim[n->out.rank - 1];
    for (int64_t r = 0; r < elements(n, a) / width; r++) {
        const float *x = a->in + r * width;
        double max = (double)x[0], sum = 0;
        for (int64_t i = 1; i < width; i++)
            max = (double)x[i] > max ? (double)x[i] : max;
        for (int64_t i = 0; i < width; i++)
            sum += exp((double)x[i] - max);
        for (int64_t i = 0; i < width; i++)
            a->out[r * width + i] = (float)(exp((double)x[i] - max) / sum);
    }
}

static void softmax_backward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t width = n->out.dim[n->out.rank - 1];
    for (int64_t r = 0; a->grad_in && r < elements(n, a) / width; r++) {
        const float *y = a->out + r * width, *g = a->grad_out + r * width;
        double dot = 0;
        for (int64_t i = 0; i < width; i++)
            dot += (double)y[i] * (double)g[i];
        for (int64_t i = 0; i < width; i++)
            a->grad_in[r * width + i] = (float)((double)y[i] * ((double)g[i] - dot));
    }
}

const struct fst_op_type fst__op_softmax = {
    .name = "softmax",
    .shape = same_shape,
    .flops = flops,
    .forward = softmax_forward,
    .backward = FST__GRADIENT(softmax_backward),
};

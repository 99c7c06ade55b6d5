/*
 * spectral_linear: a linear layer with the weight W / sigma, sigma = u . (W v) an estimate of W's largest singular
 * value (Miyato et al., Spectral normalization for generative adversarial networks, ICLR 2018). A training pass takes
 * one power iteration first; u and v are constants to the gradient, sigma is not.
 */
#include <math.h>

#include "matmul.h"
#include "ops.h"

static fst_status shape(struct fst_node *n, fst_error *err)
{
    return fst__op_linear.shape(n, err);
}

static double flops(const struct fst_node *n)
{
    return fst__op_linear.flops(n);
}

size_t fst__spectral_weights(const struct fst_node *n)
{
    size_t bytes = sizeof(float) * (size_t)(n->u.linear.out * n->in.dim[n->in.rank - 1]);
    return (bytes + 63) / 64 * 64;
}

/* W / sigma, then sigma, u and v as they were used. */
size_t fst__spectral_saved(const struct fst_node *n)
{
    return fst__spectral_weights(n) + sizeof(double) * (size_t)(1 + n->u.linear.out + n->in.dim[n->in.rank - 1]);
}

static size_t saved(const struct fst_node *n, int64_t batch)
{
    (void)batch;
    return fst__spectral_saved(n);
}

/* to = normalise(W from), or (transposed) normalise(W^T from). */
static void iterate(const float *w, int64_t rows, int64_t columns, bool transposed, const double *from, double *to)
{
    int64_t m = transposed ? columns : rows, k = transposed ? rows : columns;
    double square = 0;
    fst__product(
        &(struct fst_product){.m = 1,
                              .n = m,
                              .k = k,
                              .a = {.d = from, .column = 1},
                              .b = {.f = w, .row = transposed ? columns : 1, .column = transposed ? 1 : columns},
                              .sum = to,
                              .stride = m});
    for (int64_t i = 0; i < m; i++)
        square += to[i] * to[i];
    double norm = fmax(sqrt(square), 1e-12);
    for (int64_t i = 0; i < m; i++)
        to[i] /= norm;
}

void fst__spectral_prepare(const struct fst_node *n, const struct fst_op_args *a, void *to)
{
    int64_t rows = n->u.linear.out, columns = n->in.dim[n->in.rank - 1];
    const float *w = a->param[0];
    float *weight = to;
    double *sigma = (double *)((char *)to + fst__spectral_weights(n)), *u = sigma + 1, *v = u + rows;
    for (int64_t i = 0; i < rows; i++)
        u[i] = (double)a->buffer[0][i];
    for (int64_t j = 0; j < columns; j++)
        v[j] = (double)a->buffer[1][j];
    if (a->training && !a->frozen) {
        iterate(w, rows, columns, true, u, v);
        iterate(w, rows, columns, false, v, u);
        for (int64_t i = 0; i < rows; i++)
            a->buffer[0][i] = (float)u[i];
        for (int64_t j = 0; j < columns; j++)
            a->buffer[1][j] = (float)v[j];
    }
    *sigma = 0;
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++)
            *sigma += u[i] * (double)w[i * columns + j] * v[j];
    for (int64_t i = 0; i < rows * columns; i++)
        weight[i] = (float)((double)w[i] / *sigma);
}

/* dW = G / sigma - <G, W> / sigma^2 u v^T, from the gradient G of W / sigma, in place. */
void fst__spectral_gradient(const struct fst_node *n, const struct fst_op_args *a, const void *kept)
{
    int64_t rows = n->u.linear.out, columns = n->in.dim[n->in.rank - 1];
    const double *sigma = (const double *)((const char *)kept + fst__spectral_weights(n)), *u = sigma + 1,
                 *v = u + rows;
    float *grad = a->grad_param[0];
    double dot = 0;
    for (int64_t i = 0; i < rows * columns; i++)
        dot += (double)grad[i] * (double)a->param[0][i];
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < columns; j++) {
            float *g = &grad[i * columns + j];
            *g = (float)(((double)*g - dot / *sigma * u[i] * v[j]) / *sigma);
        }
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    fst__spectral_prepare(n, a, a->saved);
    fst__linear_forward(n, a, a->saved);
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    fst__linear_backward(n, a, a->saved);
    fst__spectral_gradient(n, a, a->saved);
}

const struct fst_op_type fst__op_spectral_linear = {
    .name = "spectral_linear",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .saved = saved,
};

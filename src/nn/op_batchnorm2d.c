/* batchnorm2d: per channel over batch, height and width (Ioffe and Szegedy 2015). */
#include <math.h>

#include "ops.h"

static fst_status shape(struct fst_node *n, fst_error *err)
{
    if (n->in.rank != 3)
        return fst_fail(err, FST_E_ARGUMENT, "needs (channels, height, width), got rank %d", n->in.rank);
    if (!(n->u.norm.eps > 0) || !(n->u.norm.momentum >= 0 && n->u.norm.momentum <= 1))
        return fst_fail(err, FST_E_ARGUMENT, "eps must be above 0 and momentum in [0, 1]");
    n->out = n->in;
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    return 2.0 * (double)fst_shape_count(&n->out);
}

static size_t saved(const struct fst_node *n, int64_t batch)
{
    (void)batch;
    return (size_t)n->in.dim[0] * 2 * sizeof(float); /* batch mean, biased batch variance */
}

void fst__batchnorm_update(const struct fst_node *n, const struct fst_op_args *a, const float *mean, const float *var)
{
    double m = n->u.norm.momentum, count = (double)(a->batch * n->in.dim[1] * n->in.dim[2]);
    double unbias = count > 1 ? count / (count - 1) : 1;
    if (count <= 1) /* no variance: the running one would shrink towards 0 */
        return;
    for (int64_t c = 0; c < n->in.dim[0]; c++) {
        a->buffer[0][c] = (float)((1 - m) * (double)a->buffer[0][c] + m * (double)mean[c]);
        a->buffer[1][c] = (float)((1 - m) * (double)a->buffer[1][c] + m * unbias * (double)var[c]);
    }
    if (a->counter)
        (*a->counter)++;
}

static bool batch_statistics(const struct fst_op_args *a)
{
    return a->training && !a->frozen;
}

static void statistics(const struct fst_node *n, const struct fst_op_args *a, int64_t c, double *mean, double *var)
{
    if (!batch_statistics(a)) {
        *mean = (double)a->buffer[0][c];
        *var = (double)a->buffer[1][c];
        return;
    }
    int64_t channels = n->in.dim[0], plane = n->in.dim[1] * n->in.dim[2];
    double sum = 0, square = 0;
    for (int64_t b = 0; b < a->batch; b++)
        for (int64_t i = 0; i < plane; i++)
            sum += (double)a->in[(b * channels + c) * plane + i];
    *mean = sum / (double)(a->batch * plane);
    for (int64_t b = 0; b < a->batch; b++)
        for (int64_t i = 0; i < plane; i++) {
            double d = (double)a->in[(b * channels + c) * plane + i] - *mean;
            square += d * d;
        }
    *var = square / (double)(a->batch * plane);
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t channels = n->in.dim[0], plane = n->in.dim[1] * n->in.dim[2];
    float *keep = a->saved;
    for (int64_t c = 0; c < channels; c++) {
        double mean, var;
        statistics(n, a, c, &mean, &var);
        if (batch_statistics(a)) {
            keep[c] = (float)mean;
            keep[channels + c] = (float)var;
        }
        double scale = (double)a->param[0][c] / sqrt(var + n->u.norm.eps);
        for (int64_t b = 0; b < a->batch; b++)
            for (int64_t i = 0; i < plane; i++) {
                int64_t at = (b * channels + c) * plane + i;
                a->out[at] = (float)(((double)a->in[at] - mean) * scale + (double)a->param[1][c]);
            }
    }
    if (batch_statistics(a))
        fst__batchnorm_update(n, a, keep, keep + channels);
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t channels = n->in.dim[0], plane = n->in.dim[1] * n->in.dim[2];
    double count = (double)(a->batch * plane);
    bool fixed = !batch_statistics(a);
    for (int64_t c = 0; c < channels; c++) {
        double mean, var, gsum = 0, gdot = 0;
        statistics(n, a, c, &mean, &var);
        double inv = 1.0 / sqrt(var + n->u.norm.eps), gamma = (double)a->param[0][c];
        for (int64_t b = 0; b < a->batch; b++)
            for (int64_t i = 0; i < plane; i++) {
                int64_t at = (b * channels + c) * plane + i;
                gsum += (double)a->grad_out[at];
                gdot += (double)a->grad_out[at] * ((double)a->in[at] - mean) * inv;
            }
        a->grad_param[0][c] = (float)gdot;
        a->grad_param[1][c] = (float)gsum;
        for (int64_t b = 0; a->grad_in && b < a->batch; b++)
            for (int64_t i = 0; i < plane; i++) {
                int64_t at = (b * channels + c) * plane + i;
                double hat = ((double)a->in[at] - mean) * inv;
                double through = fixed ? 0 : (gsum + hat * gdot) / count; /* by way of mean and variance */
                a->grad_in[at] = (float)(gamma * inv * ((double)a->grad_out[at] - through));
            }
    }
}

const struct fst_op_type fst__op_batchnorm2d = {
    .name = "batchnorm2d",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = backward,
    .saved = saved,
};

/* groupnorm and layernorm: every sample (group, row) is normalised by its own mean and biased variance, so
 * there are no running statistics, and training and inference are the same. */
#include <math.h>

#include "backend.h"

/* Both are one thing: `rows` stretches of `length` values; element i of a stretch has scale and shift
 * number channel(row, i). */
struct stretch {
    int64_t rows, length, channels, groups, plane; /* plane: values of one channel; layernorm: 0 */
};

static int64_t channel_of(const struct stretch *s, int64_t row, int64_t i)
{
    return s->plane ? row % s->groups * (s->channels / s->groups) + i / s->plane : i;
}

static struct stretch stretch_of(const struct fst_node *n, int64_t batch)
{
    struct stretch s = {.groups = 1};
    if (n->kind == FST_OP_GROUPNORM) {
        s.groups = n->u.norm.groups;
        s.channels = n->in.dim[0];
        s.plane = fst_shape_count(&n->in) / s.channels;
        s.length = s.channels / s.groups * s.plane;
    } else {
        s.channels = s.length = n->in.dim[n->in.rank - 1];
    }
    s.rows = batch * fst_shape_count(&n->in) / s.length;
    return s;
}

static fst_status shape(struct fst_node *n, fst_error *err)
{
    if (!(n->u.norm.eps > 0))
        return fst_fail(err, FST_E_ARGUMENT, "eps must be above 0");
    if (n->kind == FST_OP_GROUPNORM && (n->u.norm.groups < 1 || n->in.dim[0] % n->u.norm.groups))
        return fst_fail(err, FST_E_ARGUMENT, "%lld channels do not divide into %lld groups", (long long)n->in.dim[0],
                        (long long)n->u.norm.groups);
    n->out = n->in;
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    return 5.0 * (double)fst_shape_count(&n->out);
}

static void statistics(const float *x, int64_t n, double eps, double *mean, double *inverse)
{
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i];
    *mean = sum / (double)n;
    for (int64_t i = 0; i < n; i++)
        square += ((double)x[i] - *mean) * ((double)x[i] - *mean);
    *inverse = 1 / sqrt(square / (double)n + eps);
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct stretch s = stretch_of(n, a->batch);
    for (int64_t r = 0; r < s.rows; r++) {
        const float *x = a->in + r * s.length;
        double mean, inverse;
        statistics(x, s.length, n->u.norm.eps, &mean, &inverse);
        for (int64_t i = 0; i < s.length; i++) {
            int64_t c = channel_of(&s, r, i);
            a->out[r * s.length + i] =
                (float)(((double)x[i] - mean) * inverse * (double)a->param[0][c] + (double)a->param[1][c]);
        }
    }
}

static void backward_row(const struct fst_node *n, const struct fst_op_args *a, const struct stretch *s, int64_t r,
                         double *scale, double *shift)
{
    const float *x = a->in + r * s->length, *g = a->grad_out + r * s->length;
    double mean, inverse, sum = 0, dot = 0;
    statistics(x, s->length, n->u.norm.eps, &mean, &inverse);
    for (int64_t i = 0; i < s->length; i++) {
        int64_t c = channel_of(s, r, i);
        double hat = ((double)x[i] - mean) * inverse, d = (double)g[i] * (double)a->param[0][c];
        scale[c] += (double)g[i] * hat;
        shift[c] += (double)g[i];
        sum += d;
        dot += d * hat;
    }
    for (int64_t i = 0; a->grad_in && i < s->length; i++) {
        double hat = ((double)x[i] - mean) * inverse, d = (double)g[i] * (double)a->param[0][channel_of(s, r, i)];
        a->grad_in[r * s->length + i] = (float)(inverse * (d - (sum + hat * dot) / (double)s->length));
    }
}

static size_t saved(const struct fst_node *n, int64_t batch)
{
    (void)batch;
    return 2 * sizeof(double) * (size_t)n->in.dim[n->kind == FST_OP_GROUPNORM ? 0 : n->in.rank - 1];
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct stretch s = stretch_of(n, a->batch);
    double *scale = a->saved, *shift = scale + s.channels;
    for (int64_t c = 0; c < s.channels; c++)
        scale[c] = shift[c] = 0;
    for (int64_t r = 0; r < s.rows; r++)
        backward_row(n, a, &s, r, scale, shift);
    for (int64_t c = 0; c < s.channels; c++) {
        a->grad_param[0][c] = (float)scale[c];
        a->grad_param[1][c] = (float)shift[c];
    }
}

const struct fst_op_type fst__op_groupnorm = {
    .name = "groupnorm",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .saved = saved,
};
const struct fst_op_type fst__op_layernorm = {
    .name = "layernorm",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .saved = saved,
};

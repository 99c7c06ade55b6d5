/*
 * batchnorm2d: per channel over batch, height and width (Ioffe and Szegedy 2015). A batch may be cut into shards: each
 * leaves its sums in shared memory (struct fst_peers), and what a channel is made of, from the sums of all, is here for
 * all backends.
 */
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

static size_t shared(const struct fst_node *n)
{
    return (size_t)n->in.dim[0] * sizeof(struct fst_norm_shared);
}

/* ---- a channel ------------------------------------------------------------------------------------------ */

bool fst__batch_statistics(const struct fst_op_args *a)
{
    return a->training && !a->frozen;
}

double fst__norm_values(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t rows = 0;
    for (int s = 0; s < a->peers->shards; s++)
        rows += a->peers->rows[s];
    return (double)(rows * n->in.dim[1] * n->in.dim[2]);
}

void fst__norm_count(const struct fst_node *n, const struct fst_op_args *a)
{
    if (fst__batch_statistics(a) && a->peers->shard == 0 && a->counter && fst__norm_values(n, a) > 1)
        (*a->counter)++;
}

struct fst_norm_channel fst__norm_channel(const struct fst_node *n, const struct fst_op_args *a, int64_t c)
{
    double plane = (double)(n->in.dim[1] * n->in.dim[2]), count = fst__norm_values(n, a), mean = 0, square = 0;
    if (!fst__batch_statistics(a)) {
        double var = (double)a->buffer[1][c];
        return (struct fst_norm_channel){(double)a->buffer[0][c], 1 / sqrt(var + n->u.norm.eps)};
    }
    for (int s = 0; s < a->peers->shards; s++)
        mean += fst__norm_shared(a, s)[c].forward[0] * ((double)a->peers->rows[s] * plane / count);
    for (int s = 0; s < a->peers->shards; s++) {
        const double *part = fst__norm_shared(a, s)[c].forward;
        square += part[1] + (double)a->peers->rows[s] * plane * (part[0] - mean) * (part[0] - mean);
    }
    if (a->peers->shard == 0 && count > 1) { /* one value has no variance: the running one would shrink towards 0 */
        double m = n->u.norm.momentum, unbiased = square / (count - 1);
        a->buffer[0][c] = (float)((1 - m) * (double)a->buffer[0][c] + m * mean);
        a->buffer[1][c] = (float)((1 - m) * (double)a->buffer[1][c] + m * unbiased);
    }
    return (struct fst_norm_channel){mean, 1 / sqrt(square / count + n->u.norm.eps)};
}

void fst__norm_means(const struct fst_node *n, const struct fst_op_args *a, int64_t c, double mean[2])
{
    mean[0] = mean[1] = 0;
    if (!fst__batch_statistics(a))
        return;
    for (int s = 0; s < a->peers->shards; s++)
        for (int k = 0; k < 2; k++)
            mean[k] += fst__norm_shared(a, s)[c].backward[k];
    for (int k = 0; k < 2; k++)
        mean[k] /= fst__norm_values(n, a);
}

/* ---- the reference ------------------------------------------------------------------------------------------ */

static size_t saved(const struct fst_node *n, int64_t batch)
{
    (void)batch;
    return (size_t)n->in.dim[0] * sizeof(struct fst_norm_channel);
}

struct values { /* of a channel: rows, each a plane */
    int64_t plane, row, at;
};

static struct values values_of(const struct fst_node *n, int64_t c)
{
    int64_t plane = n->in.dim[1] * n->in.dim[2];
    return (struct values){plane, n->in.dim[0] * plane, c * plane};
}

static int64_t element(const struct values *v, int64_t i)
{
    return i / v->plane * v->row + v->at + i % v->plane;
}

static void forward_sums(const struct fst_node *n, const struct fst_op_args *a)
{
    for (int64_t c = 0; c < n->in.dim[0]; c++) {
        struct values v = values_of(n, c);
        double *part = fst__norm_shared(a, a->peers->shard)[c].forward;
        int64_t count = fst__rows(a) * v.plane;
        part[0] = part[1] = 0;
        for (int64_t i = 0; i < count; i++)
            part[0] += (double)a->in[element(&v, i)] / (double)count;
        for (int64_t i = 0; i < count; i++) {
            double d = (double)a->in[element(&v, i)] - part[0];
            part[1] += d * d;
        }
    }
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct fst_norm_channel *keep = a->saved;
    for (int64_t c = 0; c < n->in.dim[0]; c++) {
        struct values v = values_of(n, c);
        struct fst_norm_channel k = keep[c] = fst__norm_channel(n, a, c);
        for (int64_t i = 0; i < a->batch * v.plane; i++) {
            int64_t at = element(&v, i);
            a->out[at] =
                (float)(((double)a->in[at] - k.mean) * k.inverse * (double)a->param[0][c] + (double)a->param[1][c]);
        }
    }
    fst__norm_count(n, a);
}

static void backward_sums(const struct fst_node *n, const struct fst_op_args *a)
{
    const struct fst_norm_channel *keep = a->saved;
    for (int64_t c = 0; c < n->in.dim[0]; c++) {
        struct values v = values_of(n, c);
        double *part = fst__norm_shared(a, a->peers->shard)[c].backward;
        part[0] = part[1] = 0;
        for (int64_t i = 0; i < fst__rows(a) * v.plane; i++) {
            double g = (double)a->grad_out[element(&v, i)];
            part[0] += g;
            part[1] += g * ((double)a->in[element(&v, i)] - keep[c].mean) * keep[c].inverse;
        }
        a->grad_param[0][c] = (float)part[1];
        a->grad_param[1][c] = (float)part[0];
    }
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    const struct fst_norm_channel *keep = a->saved;
    for (int64_t c = 0; a->grad_in && c < n->in.dim[0]; c++) {
        struct values v = values_of(n, c);
        double mean[2], scale = (double)a->param[0][c] * keep[c].inverse;
        fst__norm_means(n, a, c, mean);
        for (int64_t i = 0; i < a->batch * v.plane; i++) {
            int64_t at = element(&v, i);
            double hat = ((double)a->in[at] - keep[c].mean) * keep[c].inverse;
            bool counts = i < fst__rows(a) * v.plane;
            a->grad_in[at] = counts ? (float)(scale * ((double)a->grad_out[at] - mean[0] - hat * mean[1])) : 0;
        }
    }
}

const struct fst_op_type fst__op_batchnorm2d = {
    .name = "batchnorm2d",
    .shape = shape,
    .flops = flops,
    .forward_sums = forward_sums,
    .backward_sums = FST__GRADIENT(backward_sums),
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .saved = saved,
    .shared = shared,
};

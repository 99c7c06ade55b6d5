/*
 * complex_batchnorm: real and imaginary part of a channel are whitened together by the inverse square root of their 2x2
 * covariance, then scaled by a symmetric matrix and shifted (Trabelsi et al. 2018). What a channel needs beside sums
 * over its values is here for all backends.
 */
#include <math.h>

#include "ops.h"

static fst_status shape(struct fst_node *n, fst_error *err)
{
    if (n->in_planes != 2)
        return fst_fail(err, FST_E_ARGUMENT, "takes complex values, not real ones");
    return fst__op_batchnorm2d.shape(n, err);
}

static double flops(const struct fst_node *n)
{
    return 8.0 * (double)fst_shape_count(&n->out);
}

/* ---- a channel ------------------------------------------------------------------------------------------ */

/* C^(-1/2) = [[ii + s, -ri], [-ri, rr + s]] / (s t), s = sqrt(det C), t = sqrt(trace C + 2 s). */
struct root {
    double rr, ii, ri, s, t;
};

static struct root root_of(const double covar[3], double eps)
{
    struct root r = {.rr = covar[0] + eps, .ii = covar[1] + eps, .ri = covar[2]};
    double det = r.rr * r.ii - r.ri * r.ri;
    r.s = det > eps * eps ? sqrt(det) : eps; /* det is at least eps^2 but for rounding */
    r.t = sqrt(r.rr + r.ii + 2 * r.s);
    return r;
}

void fst__whiten(struct fst_whitening *w, const float weight[3], double eps)
{
    struct root r = root_of(w->covar, eps);
    double q = 1 / (r.s * r.t), grr = (double)weight[0], gii = (double)weight[1], gri = (double)weight[2];
    double *u = w->root;
    u[0] = (r.ii + r.s) * q;
    u[1] = (r.rr + r.s) * q;
    u[2] = -r.ri * q;
    w->a[0] = grr * u[0] + gri * u[2];
    w->a[1] = grr * u[2] + gri * u[1];
    w->a[2] = gri * u[0] + gii * u[2];
    w->a[3] = gri * u[2] + gii * u[1];
}

/* From the gradient of the root's entries (rr, ii, ri) to that of the covariance's. */
static void root_backward(const struct root *r, const double g[3], double out[3])
{
    double q = 1 / (r->s * r->t);
    double k = g[0] * (r->ii + r->s) + g[1] * (r->rr + r->s) - g[2] * r->ri; /* times dq, q's own change */
    double by_t = -k * q / r->t;
    double by_s = q * (g[0] + g[1]) - k * q / r->s + by_t / r->t;
    out[0] = q * g[1] + by_t / (2 * r->t) + by_s * r->ii / (2 * r->s);
    out[1] = q * g[0] + by_t / (2 * r->t) + by_s * r->rr / (2 * r->s);
    out[2] = -q * g[2] - by_s * r->ri / r->s;
}

void fst__whiten_backward(const struct fst_whitening *w, const float weight[3], double eps, const double sum[2],
                          const double dot[4], double count, bool fixed, struct fst_whitening_grad *out)
{
    const double *u = w->root, *a = w->a;
    double grr = (double)weight[0], gii = (double)weight[1], gri = (double)weight[2], covar[3];
    /* G's gradient is dot R, the root's is G dot; both symmetric, so the off-diagonal entries add up. */
    out->weight[0] = dot[0] * u[0] + dot[1] * u[2];
    out->weight[1] = dot[2] * u[2] + dot[3] * u[1];
    out->weight[2] = dot[0] * u[2] + dot[1] * u[1] + dot[2] * u[0] + dot[3] * u[2];
    out->bias[0] = sum[0];
    out->bias[1] = sum[1];
    for (int i = 0; i < 3; i++)
        out->b[i] = 0;
    out->c[0] = out->c[1] = 0;
    if (fixed)
        return;
    double g[3] = {grr * dot[0] + gri * dot[2], gri * dot[1] + gii * dot[3],
                   grr * dot[1] + gri * dot[3] + gri * dot[0] + gii * dot[2]};
    struct root r = root_of(w->covar, eps);
    root_backward(&r, g, covar);
    out->b[0] = 2 * covar[0] / count;
    out->b[1] = 2 * covar[1] / count;
    out->b[2] = covar[2] / count;
    out->c[0] = -(a[0] * sum[0] + a[2] * sum[1]) / count;
    out->c[1] = -(a[1] * sum[0] + a[3] * sum[1]) / count;
}

static void move_running(const struct fst_node *n, const struct fst_op_args *a, int64_t c,
                         const struct fst_whitening *w, double count)
{
    double m = n->u.norm.momentum, unbias = count / (count - 1);
    for (int k = 0; k < 2; k++) {
        float *mean = &a->buffer[0][2 * c + k];
        *mean = (float)((1 - m) * (double)*mean + m * w->mean[k]);
    }
    for (int k = 0; k < 3; k++) {
        float *covar = &a->buffer[1][3 * c + k];
        *covar = (float)((1 - m) * (double)*covar + m * unbias * w->covar[k]);
    }
}

/* Parts of all shards by the rule of Chan, Golub and LeVeque (1979), for two variables. */
static void join_shards(const struct fst_node *n, const struct fst_op_args *a, int64_t c, struct fst_whitening *w)
{
    double count = fst__norm_values(n, a), plane = (double)(n->in.dim[1] * n->in.dim[2]);
    w->mean[0] = w->mean[1] = w->covar[0] = w->covar[1] = w->covar[2] = 0;
    for (int s = 0; s < a->peers->shards; s++)
        for (int k = 0; k < 2; k++)
            w->mean[k] += fst__whitening_shared(a, s)[c].mean[k] * ((double)a->peers->rows[s] * plane / count);
    for (int s = 0; s < a->peers->shards; s++) {
        const struct fst_whitening_shared *part = &fst__whitening_shared(a, s)[c];
        double own = (double)a->peers->rows[s] * plane;
        double d[2] = {part->mean[0] - w->mean[0], part->mean[1] - w->mean[1]};
        const double by[3] = {d[0] * d[0], d[1] * d[1], d[0] * d[1]};
        for (int k = 0; k < 3; k++)
            w->covar[k] += (part->product[k] + own * by[k]) / count;
    }
    if (a->peers->shard == 0 && count > 1)
        move_running(n, a, c, w, count);
}

void fst__whitening_channel(const struct fst_node *n, const struct fst_op_args *a, int64_t c, struct fst_whitening *w)
{
    if (fst__batch_statistics(a)) {
        join_shards(n, a, c, w);
    } else {
        for (int k = 0; k < 3; k++)
            w->covar[k] = (double)a->buffer[1][3 * c + k];
        for (int k = 0; k < 2; k++)
            w->mean[k] = (double)a->buffer[0][2 * c + k];
    }
    fst__whiten(w, a->param[0] + 3 * c, n->u.norm.eps);
}

void fst__whitening_sums(const struct fst_op_args *a, int64_t c, double sum[2], double dot[4])
{
    sum[0] = sum[1] = dot[0] = dot[1] = dot[2] = dot[3] = 0;
    for (int s = 0; s < a->peers->shards; s++) {
        const struct fst_whitening_shared *part = &fst__whitening_shared(a, s)[c];
        for (int k = 0; k < 2; k++)
            sum[k] += part->sum[k];
        for (int k = 0; k < 4; k++)
            dot[k] += part->dot[k];
    }
}

static size_t saved(const struct fst_node *n, int64_t batch)
{
    (void)batch;
    return (size_t)n->in.dim[0] * sizeof(struct fst_whitening);
}

static size_t shared(const struct fst_node *n)
{
    return (size_t)n->in.dim[0] * sizeof(struct fst_whitening_shared);
}

/* ---- the reference ------------------------------------------------------------------------------------------ */

struct walk { /* over the values of a channel; the imaginary part lies `imaginary` after the real one */
    int64_t channels, plane, samples, imaginary;
};

static struct walk walk_of(const struct fst_node *n, const struct fst_op_args *a)
{
    struct walk w = {n->in.dim[0], n->in.dim[1] * n->in.dim[2], a->batch / 2, 0};
    w.imaginary = w.samples * w.channels * w.plane;
    return w;
}

static int64_t element(const struct walk *w, int64_t c, int64_t i)
{
    return (i / w->plane * w->channels + c) * w->plane + i % w->plane;
}

static void forward_sums(const struct fst_node *n, const struct fst_op_args *a)
{
    struct walk w = walk_of(n, a);
    int64_t count = fst__rows(a) * w.plane;
    for (int64_t c = 0; c < w.channels; c++) {
        struct fst_whitening_shared *s = &fst__whitening_shared(a, a->peers->shard)[c];
        *s = (struct fst_whitening_shared){0};
        for (int64_t i = 0; i < count; i++)
            for (int k = 0; k < 2; k++)
                s->mean[k] += (double)a->in[element(&w, c, i) + k * w.imaginary] / (double)count;
        for (int64_t i = 0; i < count; i++) {
            const float *z = a->in + element(&w, c, i);
            double re = (double)z[0] - s->mean[0], im = (double)z[w.imaginary] - s->mean[1];
            s->product[0] += re * re;
            s->product[1] += im * im;
            s->product[2] += re * im;
        }
    }
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct fst_whitening *keep = a->saved;
    struct walk w = walk_of(n, a);
    for (int64_t c = 0; c < w.channels; c++) {
        struct fst_whitening *s = &keep[c];
        fst__whitening_channel(n, a, c, s);
        for (int64_t i = 0; i < w.samples * w.plane; i++) {
            int64_t at = element(&w, c, i);
            double re = (double)a->in[at] - s->mean[0], im = (double)a->in[at + w.imaginary] - s->mean[1];
            a->out[at] = (float)(s->a[0] * re + s->a[1] * im + (double)a->param[1][2 * c]);
            a->out[at + w.imaginary] = (float)(s->a[2] * re + s->a[3] * im + (double)a->param[1][2 * c + 1]);
        }
    }
    fst__norm_count(n, a);
}

static void backward_sums(const struct fst_node *n, const struct fst_op_args *a)
{
    const struct fst_whitening *keep = a->saved;
    struct walk w = walk_of(n, a);
    for (int64_t c = 0; c < w.channels; c++) {
        struct fst_whitening_shared *s = &fst__whitening_shared(a, a->peers->shard)[c];
        struct fst_whitening_grad g;
        for (int k = 0; k < 4; k++)
            s->dot[k] = s->sum[k / 2] = 0;
        for (int64_t i = 0; i < fst__rows(a) * w.plane; i++) {
            int64_t at = element(&w, c, i);
            double d[2] = {(double)a->in[at] - keep[c].mean[0], (double)a->in[at + w.imaginary] - keep[c].mean[1]};
            for (int k = 0; k < 2; k++) {
                double go = (double)a->grad_out[at + k * w.imaginary];
                s->sum[k] += go;
                s->dot[2 * k] += go * d[0];
                s->dot[2 * k + 1] += go * d[1];
            }
        }
        /* a parameter's gradient is the sum over the shards of theirs: the optimiser adds them up */
        fst__whiten_backward(&keep[c], a->param[0] + 3 * c, n->u.norm.eps, s->sum, s->dot, 1, true, &g);
        for (int k = 0; k < 3; k++)
            a->grad_param[0][3 * c + k] = (float)g.weight[k];
        for (int k = 0; k < 2; k++)
            a->grad_param[1][2 * c + k] = (float)g.bias[k];
    }
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    const struct fst_whitening *keep = a->saved;
    struct walk w = walk_of(n, a);
    for (int64_t c = 0; a->grad_in && c < w.channels; c++) {
        const struct fst_whitening *s = &keep[c];
        struct fst_whitening_grad g;
        double sum[2], dot[4];
        fst__whitening_sums(a, c, sum, dot);
        fst__whiten_backward(s, a->param[0] + 3 * c, n->u.norm.eps, sum, dot, fst__norm_values(n, a),
                             !fst__batch_statistics(a), &g);
        for (int64_t i = 0; i < w.samples * w.plane; i++) {
            int64_t at = element(&w, c, i), im_at = at + w.imaginary;
            double re = (double)a->in[at] - s->mean[0], im = (double)a->in[im_at] - s->mean[1];
            double gr = (double)a->grad_out[at], gi = (double)a->grad_out[im_at];
            bool counts = i < fst__rows(a) * w.plane;
            double to_re = s->a[0] * gr + s->a[2] * gi + g.b[0] * re + g.b[2] * im + g.c[0];
            double to_im = s->a[1] * gr + s->a[3] * gi + g.b[2] * re + g.b[1] * im + g.c[1];
            a->grad_in[at] = counts ? (float)to_re : 0;
            a->grad_in[im_at] = counts ? (float)to_im : 0;
        }
    }
}

const struct fst_op_type fst__op_complex_batchnorm = {
    .name = "complex_batchnorm",
    .shape = shape,
    .flops = flops,
    .forward_sums = forward_sums,
    .backward_sums = FST__GRADIENT(backward_sums),
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .saved = saved,
    .shared = shared,
    .takes_complex = true,
};

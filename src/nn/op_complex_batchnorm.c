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

void fst__whitening_update(const struct fst_node *n, const struct fst_op_args *a, int64_t c,
                           const struct fst_whitening *w)
{
    double m = n->u.norm.momentum, count = (double)(a->batch / 2 * n->in.dim[1] * n->in.dim[2]);
    double unbias = count > 1 ? count / (count - 1) : 1;
    if (count <= 1)
        return;
    for (int k = 0; k < 2; k++) {
        float *mean = &a->buffer[0][2 * c + k];
        *mean = (float)((1 - m) * (double)*mean + m * w->mean[k]);
    }
    for (int k = 0; k < 3; k++) {
        float *covar = &a->buffer[1][3 * c + k];
        *covar = (float)((1 - m) * (double)*covar + m * unbias * w->covar[k]);
    }
}

void fst__whitening_count(const struct fst_node *n, const struct fst_op_args *a)
{
    if (a->training && !a->frozen && a->counter && a->batch / 2 * n->in.dim[1] * n->in.dim[2] > 1)
        (*a->counter)++;
}

/* ---- the reference ------------------------------------------------------------------------------------------ */

struct walk { /* over the values of a channel; the imaginary part lies `imaginary` behind the real one */
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

static struct fst_whitening statistics(const struct fst_node *n, const struct fst_op_args *a, int64_t c)
{
    struct fst_whitening s = {0};
    struct walk w = walk_of(n, a);
    int64_t count = w.samples * w.plane;
    if (!a->training || a->frozen) {
        for (int k = 0; k < 3; k++)
            s.covar[k] = (double)a->buffer[1][3 * c + k];
        s.mean[0] = (double)a->buffer[0][2 * c];
        s.mean[1] = (double)a->buffer[0][2 * c + 1];
    } else {
        for (int64_t i = 0; i < count; i++)
            for (int k = 0; k < 2; k++)
                s.mean[k] += (double)a->in[element(&w, c, i) + k * w.imaginary] / (double)count;
        for (int64_t i = 0; i < count; i++) {
            const float *z = a->in + element(&w, c, i);
            double re = (double)z[0] - s.mean[0], im = (double)z[w.imaginary] - s.mean[1];
            s.covar[0] += re * re / (double)count;
            s.covar[1] += im * im / (double)count;
            s.covar[2] += re * im / (double)count;
        }
    }
    fst__whiten(&s, a->param[0] + 3 * c, n->u.norm.eps);
    return s;
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct walk w = walk_of(n, a);
    for (int64_t c = 0; c < w.channels; c++) {
        struct fst_whitening s = statistics(n, a, c);
        for (int64_t i = 0; i < w.samples * w.plane; i++) {
            int64_t at = element(&w, c, i);
            double re = (double)a->in[at] - s.mean[0], im = (double)a->in[at + w.imaginary] - s.mean[1];
            a->out[at] = (float)(s.a[0] * re + s.a[1] * im + (double)a->param[1][2 * c]);
            a->out[at + w.imaginary] = (float)(s.a[2] * re + s.a[3] * im + (double)a->param[1][2 * c + 1]);
        }
        if (a->training && !a->frozen)
            fst__whitening_update(n, a, c, &s);
    }
    fst__whitening_count(n, a);
}

static void input_gradient(const struct fst_op_args *a, const struct walk *w, int64_t c, const struct fst_whitening *s,
                           const struct fst_whitening_grad *g)
{
    for (int64_t i = 0; i < w->samples * w->plane; i++) {
        int64_t at = element(w, c, i), im_at = at + w->imaginary;
        double re = (double)a->in[at] - s->mean[0], im = (double)a->in[im_at] - s->mean[1];
        double gr = (double)a->grad_out[at], gi = (double)a->grad_out[im_at];
        a->grad_in[at] = (float)(s->a[0] * gr + s->a[2] * gi + g->b[0] * re + g->b[2] * im + g->c[0]);
        a->grad_in[im_at] = (float)(s->a[1] * gr + s->a[3] * gi + g->b[2] * re + g->b[1] * im + g->c[1]);
    }
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct walk w = walk_of(n, a);
    bool fixed = !a->training || a->frozen;
    for (int64_t c = 0; c < w.channels; c++) {
        struct fst_whitening s = statistics(n, a, c);
        struct fst_whitening_grad g;
        double sum[2] = {0}, dot[4] = {0};
        for (int64_t i = 0; i < w.samples * w.plane; i++) {
            int64_t at = element(&w, c, i);
            double d[2] = {(double)a->in[at] - s.mean[0], (double)a->in[at + w.imaginary] - s.mean[1]};
            for (int k = 0; k < 2; k++) {
                double go = (double)a->grad_out[at + k * w.imaginary];
                sum[k] += go;
                dot[2 * k] += go * d[0];
                dot[2 * k + 1] += go * d[1];
            }
        }
        fst__whiten_backward(&s, a->param[0] + 3 * c, n->u.norm.eps, sum, dot, (double)(w.samples * w.plane), fixed,
                             &g);
        for (int k = 0; k < 3; k++)
            a->grad_param[0][3 * c + k] = (float)g.weight[k];
        for (int k = 0; k < 2; k++)
            a->grad_param[1][2 * c + k] = (float)g.bias[k];
        if (a->grad_in)
            input_gradient(a, &w, c, &s, &g);
    }
}

const struct fst_op_type fst__op_complex_batchnorm = {
    .name = "complex_batchnorm",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = backward,
    .takes_complex = true,
};

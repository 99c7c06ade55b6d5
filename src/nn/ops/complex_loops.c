/*
 * Complex batch norm over runs (complex_loops.h), and the passes around complex convolutions. Sums are float over at
 * most CHUNK elements of a run, lane by lane, and double over those; their order depends on the shape alone.
 */
#include <string.h>

#include "complex_loops.h"

enum { LANES = FST_LANES, CHUNK = 64 * LANES };
#define ALWAYS static inline __attribute__((always_inline))

struct fst_runs fst__runs(const struct fst_node *n, int64_t batch, int64_t block)
{
    struct fst_runs r = {
        .samples = batch / 2, .rows = batch / 2, .channels = n->in.dim[0], .plane = n->in.dim[1] * n->in.dim[2]};
    /* One position: plain is the same as whole blocks. */
    r.block = block == 1 && r.plane == 1 && r.channels % LANES == 0 ? LANES : block;
    r.count = (r.channels + r.block - 1) / r.block;
    r.length = r.plane * r.block;
    r.row = r.count * r.length;
    r.imaginary = r.samples * r.row;
    return r;
}

/* A lane's channel in a run; -1: padding. */
static int64_t channel_of(const struct fst_runs *r, int64_t run, int lane)
{
    int64_t c = run * r->block + lane % r->block;
    return c < r->channels ? c : -1;
}

/* Sums by lane to sums by channel of the run: lanes of a channel follow each other at the block's distance. */
static double lanes_of(const struct fst_runs *r, const double *lane, int64_t c)
{
    double sum = 0;
    for (int64_t l = c; l < LANES; l += r->block)
        sum += lane[l];
    return sum;
}

/* ---- statistics ---------------------------------------------------------------------------------------------- */

struct sums {
    double v[6][LANES];
};

ALWAYS void sum_step(const float *restrict re, const float *restrict im, float s[2][LANES], int64_t n)
{
    for (int64_t l = 0; l < n; l++) {
        s[0][l] += re[l];
        s[1][l] += im[l];
    }
}

FST_HOT static void sum_values(const float *in, const struct fst_runs *r, struct sums *t)
{
    for (int64_t b = 0; b < r->rows; b++)
        for (int64_t from = 0; from < r->length; from += CHUNK) {
            const float *re = in + b * r->row + from, *im = re + r->imaginary;
            int64_t n = r->length - from < CHUNK ? r->length - from : CHUNK, i = 0;
            float s[2][LANES] = {0};
            for (; i + LANES <= n; i += LANES)
                sum_step(re + i, im + i, s, LANES);
            sum_step(re + i, im + i, s, n - i);
            for (int l = 0; l < LANES; l++) {
                t->v[0][l] += (double)s[0][l];
                t->v[1][l] += (double)s[1][l];
            }
        }
}

ALWAYS void product_step(const float *restrict re, const float *restrict im, const float mean[2][LANES],
                         float s[3][LANES], int64_t n)
{
    for (int64_t l = 0; l < n; l++) {
        float x = re[l] - mean[0][l], y = im[l] - mean[1][l];
        s[0][l] += x * x;
        s[1][l] += y * y;
        s[2][l] += x * y;
    }
}

FST_HOT static void sum_products(const float *in, const struct fst_runs *r, const float mean[2][LANES], struct sums *t)
{
    for (int64_t b = 0; b < r->rows; b++)
        for (int64_t from = 0; from < r->length; from += CHUNK) {
            const float *re = in + b * r->row + from, *im = re + r->imaginary;
            int64_t n = r->length - from < CHUNK ? r->length - from : CHUNK, i = 0;
            float s[3][LANES] = {0};
            for (; i + LANES <= n; i += LANES)
                product_step(re + i, im + i, mean, s, LANES);
            product_step(re + i, im + i, mean, s, n - i);
            for (int k = 0; k < 3; k++)
                for (int l = 0; l < LANES; l++)
                    t->v[k][l] += (double)s[k][l];
        }
}

/* Means in float, as the loops take them; what the rounding left out is put right in double. */
static void lane_means(const struct fst_runs *r, int64_t run, const struct fst_whitening *kept, float mean[2][LANES])
{
    for (int l = 0; l < LANES; l++) {
        int64_t c = channel_of(r, run, l);
        for (int k = 0; k < 2; k++)
            mean[k][l] = c < 0 ? 0 : (float)kept[c].mean[k];
    }
}

void fst__complex_norm_sums(const struct fst_runs *r, const struct fst_op_args *a, int64_t run)
{
    const float *in = a->in + run * r->length;
    struct fst_whitening_shared *shared = fst__whitening_shared(a, a->peers->shard) + run * r->block;
    double count = (double)(r->rows * r->plane);
    struct sums sum = {0}, product = {0};
    float mean[2][LANES] = {0};
    sum_values(in, r, &sum);
    for (int64_t c = 0; c < r->block && channel_of(r, run, (int)c) >= 0; c++)
        for (int k = 0; k < 2; k++) {
            shared[c].mean[k] = lanes_of(r, sum.v[k], c) / count;
            for (int64_t l = c; l < LANES; l += r->block)
                mean[k][l] = (float)shared[c].mean[k];
        }
    sum_products(in, r, mean, &product);
    for (int64_t c = 0; c < r->block && channel_of(r, run, (int)c) >= 0; c++) {
        double off[2] = {shared[c].mean[0] - (double)mean[0][c], shared[c].mean[1] - (double)mean[1][c]};
        double by[3] = {off[0] * off[0], off[1] * off[1], off[0] * off[1]}, *to = shared[c].product;
        for (int k = 0; k < 3; k++)
            to[k] = lanes_of(r, product.v[k], c) - count * by[k];
        for (int k = 0; k < 2; k++) /* of equal values nothing is left but rounding */
            to[k] = to[k] > 0 || to[k] != to[k] ? to[k] : 0;
    }
}

/* ---- forward --------------------------------------------------------------------------------------------------- */

struct affine { /* by lane */
    float mean[2][LANES], a[4][LANES], b[3][LANES], c[2][LANES];
};

ALWAYS void forward_step(const float *restrict re, const float *restrict im, const struct affine *k,
                         float *restrict out_re, float *restrict out_im, bool relu, int64_t n)
{
    for (int64_t l = 0; l < n; l++) {
        float x = re[l] - k->mean[0][l], y = im[l] - k->mean[1][l];
        float u = k->a[0][l] * x + k->a[1][l] * y + k->c[0][l], v = k->a[2][l] * x + k->a[3][l] * y + k->c[1][l];
        out_re[l] = relu && !(u > 0) ? 0 : u;
        out_im[l] = relu && !(v > 0) ? 0 : v;
    }
}

ALWAYS void forward_runs(const float *in, float *out, const struct fst_runs *r, const struct affine *k, bool relu)
{
    for (int64_t b = 0; b < r->samples; b++) {
        int64_t at = b * r->row, i = 0;
        const float *re = in + at, *im = re + r->imaginary;
        float *out_re = out + at, *out_im = out_re + r->imaginary;
        for (; i + LANES <= r->length; i += LANES)
            forward_step(re + i, im + i, k, out_re + i, out_im + i, relu, LANES);
        forward_step(re + i, im + i, k, out_re + i, out_im + i, relu, r->length - i);
    }
}

FST_HOT static void whiten_runs(const float *in, float *out, const struct fst_runs *r, const struct affine *k,
                                bool relu)
{
    if (relu)
        forward_runs(in, out, r, k, true);
    else
        forward_runs(in, out, r, k, false);
}

void fst__complex_norm_forward(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                               int64_t run, bool relu, struct fst_whitening *kept)
{
    const float *in = a->in + run * r->length;
    struct affine k = {0};
    for (int64_t i = 0; i < r->block && channel_of(r, run, (int)i) >= 0; i++)
        fst__whitening_channel(n, a, run * r->block + i, &kept[run * r->block + i]);
    lane_means(r, run, kept, k.mean);
    for (int l = 0; l < LANES; l++) {
        int64_t c = channel_of(r, run, l);
        if (c < 0)
            continue;
        const struct fst_whitening *w = &kept[c];
        double off[2] = {(double)k.mean[0][l] - w->mean[0], (double)k.mean[1][l] - w->mean[1]};
        for (int j = 0; j < 4; j++)
            k.a[j][l] = (float)w->a[j];
        for (int j = 0; j < 2; j++)
            k.c[j][l] = (float)(w->a[2 * j] * off[0] + w->a[2 * j + 1] * off[1] + (double)a->param[1][2 * c + j]);
    }
    whiten_runs(in, a->out + run * r->length, r, &k, relu);
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

struct views { /* of a run, its imaginary parts, from one sample */
    const float *in[2], *out[2], *g[2];
    float *to[2];
};

ALWAYS struct views views_at(const struct views *base, const struct fst_runs *r, int64_t b, int64_t i)
{
    struct views v;
    int64_t at = b * r->row + i;
    for (int k = 0; k < 2; k++) {
        v.in[k] = base->in[k] + at;
        v.out[k] = base->out[k] + at;
        v.g[k] = base->g[k] + at;
        v.to[k] = base->to[k] + at;
    }
    return v;
}

ALWAYS void gradient_step(const struct views *v, const float mean[2][LANES], float s[6][LANES], bool mask, int64_t n)
{
    const float *restrict re = v->in[0], *restrict im = v->in[1], *restrict gre = v->g[0], *restrict gim = v->g[1];
    const float *restrict out_re = v->out[0], *restrict out_im = v->out[1];
    for (int64_t l = 0; l < n; l++) {
        float x = re[l] - mean[0][l], y = im[l] - mean[1][l];
        float p = gre[l], q = gim[l]; /* read in any case: then the choice is a blend of vectors */
        if (mask) {
            p = out_re[l] > 0 ? p : 0;
            q = out_im[l] > 0 ? q : 0;
        }
        s[0][l] += p;
        s[1][l] += q;
        s[2][l] += p * x;
        s[3][l] += p * y;
        s[4][l] += q * x;
        s[5][l] += q * y;
    }
}

ALWAYS void gradient_sums(const struct views *base, const struct fst_runs *r, const float mean[2][LANES],
                          struct sums *t, bool mask)
{
    for (int64_t b = 0; b < r->rows; b++)
        for (int64_t from = 0; from < r->length; from += CHUNK) {
            int64_t n = r->length - from < CHUNK ? r->length - from : CHUNK, i = 0;
            float s[6][LANES] = {0};
            for (; i + LANES <= n; i += LANES) {
                struct views v = views_at(base, r, b, from + i);
                gradient_step(&v, mean, s, mask, LANES);
            }
            struct views v = views_at(base, r, b, from + i);
            gradient_step(&v, mean, s, mask, n - i);
            for (int k = 0; k < 6; k++)
                for (int l = 0; l < LANES; l++)
                    t->v[k][l] += (double)s[k][l];
        }
}

FST_HOT static void sum_gradients(const struct views *base, const struct fst_runs *r, const float mean[2][LANES],
                                  struct sums *t, bool mask)
{
    if (mask)
        gradient_sums(base, r, mean, t, true);
    else
        gradient_sums(base, r, mean, t, false);
}

ALWAYS void backward_step(const struct views *v, const struct affine *k, bool mask, int64_t n)
{
    const float *restrict re = v->in[0], *restrict im = v->in[1], *restrict gre = v->g[0], *restrict gim = v->g[1];
    const float *restrict out_re = v->out[0], *restrict out_im = v->out[1];
    float *restrict to_re = v->to[0], *restrict to_im = v->to[1];
    for (int64_t l = 0; l < n; l++) {
        float x = re[l] - k->mean[0][l], y = im[l] - k->mean[1][l];
        float p = gre[l], q = gim[l]; /* read in any case: then the choice is a blend of vectors */
        if (mask) {
            p = out_re[l] > 0 ? p : 0;
            q = out_im[l] > 0 ? q : 0;
        }
        to_re[l] = k->a[0][l] * p + k->a[2][l] * q + k->b[0][l] * x + k->b[2][l] * y + k->c[0][l];
        to_im[l] = k->a[1][l] * p + k->a[3][l] * q + k->b[2][l] * x + k->b[1][l] * y + k->c[1][l];
    }
}

ALWAYS void backward_runs(const struct views *base, const struct fst_runs *r, const struct affine *k, bool mask)
{
    for (int64_t b = 0; b < r->rows; b++) {
        int64_t i = 0;
        for (; i + LANES <= r->length; i += LANES) {
            struct views v = views_at(base, r, b, i);
            backward_step(&v, k, mask, LANES);
        }
        struct views v = views_at(base, r, b, i);
        backward_step(&v, k, mask, r->length - i);
    }
}

FST_HOT static void input_gradients(const struct views *base, const struct fst_runs *r, const struct affine *k,
                                    bool mask)
{
    if (mask)
        backward_runs(base, r, k, true);
    else
        backward_runs(base, r, k, false);
}

static struct views views_of(const struct fst_runs *r, const struct fst_op_args *a, int64_t run, bool mask)
{
    struct views base;
    float *to = a->grad_in ? a->grad_in : a->grad_out; /* not written when nobody wants it */
    for (int j = 0; j < 2; j++) {
        int64_t at = run * r->length + j * r->imaginary;
        base.in[j] = a->in + at;
        base.out[j] = (mask ? a->out : a->in) + at;
        base.g[j] = a->grad_out + at;
        base.to[j] = to + at;
    }
    return base;
}

void fst__complex_norm_gradient_sums(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                                     int64_t run, bool mask, const struct fst_whitening *kept)
{
    struct sums t = {0};
    struct views base = views_of(r, a, run, mask);
    float mean[2][LANES];
    lane_means(r, run, kept, mean);
    sum_gradients(&base, r, mean, &t, mask);
    for (int64_t i = 0; i < r->block && channel_of(r, run, (int)i) >= 0; i++) {
        int64_t c = run * r->block + i;
        struct fst_whitening_shared *s = &fst__whitening_shared(a, a->peers->shard)[c];
        struct fst_whitening_grad g;
        for (int j = 0; j < 2; j++)
            s->sum[j] = lanes_of(r, t.v[j], i);
        for (int j = 0; j < 4; j++)
            s->dot[j] = lanes_of(r, t.v[2 + j], i) - s->sum[j / 2] * (kept[c].mean[j % 2] - (double)mean[j % 2][i]);
        /* a parameter's gradient is the sum over the shards of theirs: the optimiser adds them up */
        fst__whiten_backward(&kept[c], a->param[0] + 3 * c, n->u.norm.eps, s->sum, s->dot, 1, true, &g);
        for (int j = 0; j < 3; j++)
            a->grad_param[0][3 * c + j] = (float)g.weight[j];
        for (int j = 0; j < 2; j++)
            a->grad_param[1][2 * c + j] = (float)g.bias[j];
    }
}

/* The lane's coefficients of the input's gradient. */
static void channel_backward(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                             int64_t run, int64_t i, const struct fst_whitening *w, struct affine *k)
{
    int64_t c = run * r->block + i;
    struct fst_whitening_grad g;
    double sum[2], dot[4], off[2];
    fst__whitening_sums(a, c, sum, dot);
    fst__whiten_backward(w, a->param[0] + 3 * c, n->u.norm.eps, sum, dot, fst__norm_values(n, a),
                         !fst__batch_statistics(a), &g);
    for (int j = 0; j < 2; j++)
        off[j] = w->mean[j] - (double)k->mean[j][i];
    for (int64_t l = i; l < LANES; l += r->block) {
        for (int j = 0; j < 4; j++)
            k->a[j][l] = (float)w->a[j];
        for (int j = 0; j < 3; j++)
            k->b[j][l] = (float)g.b[j];
        k->c[0][l] = (float)(g.c[0] - g.b[0] * off[0] - g.b[2] * off[1]);
        k->c[1][l] = (float)(g.c[1] - g.b[2] * off[0] - g.b[1] * off[1]);
    }
}

void fst__complex_norm_backward(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                                int64_t run, bool mask, const struct fst_whitening *kept)
{
    struct affine k = {0};
    struct views base = views_of(r, a, run, mask);
    if (!a->grad_in)
        return;
    lane_means(r, run, kept, k.mean);
    for (int64_t i = 0; i < r->block && channel_of(r, run, (int)i) >= 0; i++)
        channel_backward(n, r, a, run, i, &kept[run * r->block + i], &k);
    input_gradients(&base, r, &k, mask);
    for (int64_t b = r->rows; b < r->samples; b++) /* padding has no gradient */
        for (int j = 0; j < 2; j++)
            memset(base.to[j] + b * r->row, 0, (size_t)r->length * sizeof(float));
}

/* ---- around complex convolutions ------------------------------------------------------------------------------------
 */

FST_HOT void fst__complex_combine(const float *restrict pair, float *restrict out, int64_t size, int64_t samples,
                                  int64_t from, int64_t count)
{
    for (int64_t b = from; b < from + count; b++) {
        const float *re = pair + 2 * b * size, *im = pair + 2 * (samples + b) * size;
        float *out_re = out + b * size, *out_im = out + (samples + b) * size;
        for (int64_t i = 0; i < size; i++) {
            out_re[i] = re[i] - im[size + i];
            out_im[i] = im[i] + re[size + i];
        }
    }
}

FST_HOT void fst__complex_spread(const float *restrict grad, float *restrict pair, int64_t size, int64_t samples,
                                 int64_t from, int64_t count)
{
    for (int64_t b = from; b < from + count; b++) {
        const float *re = grad + b * size, *im = grad + (samples + b) * size;
        float *to_re = pair + 2 * b * size, *to_im = pair + 2 * (samples + b) * size;
        for (int64_t i = 0; i < size; i++) {
            to_re[i] = re[i];
            to_re[size + i] = im[i];
            to_im[i] = im[i];
            to_im[size + i] = -re[i];
        }
    }
}

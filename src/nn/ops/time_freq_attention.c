/*
 * time_freq_attention: gates on the magnitude of complex values, by channel and by position, the phase put back. The
 * reference kernels take a sample at a time, everything in double; backward computes forward again.
 */
#include <math.h>
#include <string.h>

#include "ops.h"

enum { SIDE = 7, TAPS = SIDE * SIDE };

static fst_status shape(struct fst_node *n, fst_error *err)
{
    if (n->in_planes != 2)
        return fst_fail(err, FST_E_ARGUMENT, "takes complex values, not real ones");
    if (n->in.rank != 3)
        return fst_fail(err, FST_E_ARGUMENT, "needs (channels, height, width), got rank %d", n->in.rank);
    int64_t reduction = n->u.time_freq.reduction;
    if (reduction < 1 || reduction > n->in.dim[0])
        return fst_fail(err, FST_E_ARGUMENT, "a reduction of %lld leaves nothing of %lld channels",
                        (long long)reduction, (long long)n->in.dim[0]);
    if (!(n->u.time_freq.floor >= 0) || !(n->u.time_freq.ceiling > n->u.time_freq.floor) ||
        !isfinite(n->u.time_freq.ceiling) || !isfinite(n->u.time_freq.phase_eps))
        return fst_fail(err, FST_E_ARGUMENT, "floor must be at least 0, ceiling above it");
    n->u.time_freq.hidden = n->in.dim[0] / reduction;
    n->out = n->in;
    return FST_OK;
}

static double flops(const struct fst_node *n)
{
    double plane = (double)(n->in.dim[1] * n->in.dim[2]);
    return 20.0 * (double)fst_shape_count(&n->out) + 4.0 * (double)(n->in.dim[0] * n->u.time_freq.hidden) +
           plane * (4.0 * TAPS);
}

struct sample {                 /* one sample's forward pass, C channels, P positions, H hidden units */
    double *m0, *m1;            /* C P: |z| + floor, and gated by channel */
    double *average, *gate;     /* C */
    double *hidden;             /* H, after the ReLU */
    double *maps, *attention;   /* 2 P: mean and maximum; P */
    double *dm;                 /* C P */
    double *dgate, *dhidden;    /* C, H */
    double *dmaps, *dattention; /* 2 P; P */
    double *dweight;            /* of fc1, fc2, conv: sums over samples */
    int64_t *winner;            /* P: the channel of the maximum */
};

static int64_t weights(const struct fst_node *n)
{
    return 2 * n->in.dim[0] * n->u.time_freq.hidden + 2 * TAPS;
}

static size_t scratch(const struct fst_node *n, int64_t batch)
{
    (void)batch;
    int64_t c = n->in.dim[0], p = n->in.dim[1] * n->in.dim[2], h = n->u.time_freq.hidden;
    return sizeof(double) * (size_t)(3 * c * p + 3 * c + 2 * h + 7 * p + weights(n));
}

static struct sample lay_out(const struct fst_node *n, void *memory)
{
    int64_t c = n->in.dim[0], p = n->in.dim[1] * n->in.dim[2], h = n->u.time_freq.hidden;
    struct sample s;
    double *at = memory;
    s.m0 = at, at += c * p;
    s.m1 = at, at += c * p;
    s.dm = at, at += c * p;
    s.average = at, at += c;
    s.gate = at, at += c;
    s.dgate = at, at += c;
    s.hidden = at, at += h;
    s.dhidden = at, at += h;
    s.maps = at, at += 2 * p;
    s.dmaps = at, at += 2 * p;
    s.attention = at, at += p;
    s.dattention = at, at += p;
    s.dweight = at, at += weights(n);
    s.winner = (int64_t *)at;
    return s;
}

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

static void channel_gate(const struct fst_node *n, const struct fst_op_args *a, const float *re, const float *im,
                         struct sample *s)
{
    int64_t channels = n->in.dim[0], plane = n->in.dim[1] * n->in.dim[2], units = n->u.time_freq.hidden;
    for (int64_t c = 0; c < channels; c++) {
        s->average[c] = 0;
        for (int64_t i = c * plane; i < (c + 1) * plane; i++) {
            s->m0[i] = hypot((double)re[i], (double)im[i]) + n->u.time_freq.floor;
            s->average[c] += s->m0[i] / (double)plane;
        }
    }
    for (int64_t h = 0; h < units; h++) {
        double sum = 0;
        for (int64_t c = 0; c < channels; c++)
            sum += (double)a->param[0][h * channels + c] * s->average[c];
        s->hidden[h] = sum > 0 ? sum : 0;
    }
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0;
        for (int64_t h = 0; h < units; h++)
            sum += (double)a->param[1][c * units + h] * s->hidden[h];
        s->gate[c] = sigmoid(sum);
        for (int64_t i = c * plane; i < (c + 1) * plane; i++)
            s->m1[i] = s->m0[i] * s->gate[c];
    }
}

/* The position under a tap of the window around `at`; -1 outside the picture. */
static int64_t under(const struct fst_node *n, int64_t at, int tap)
{
    int64_t y = at / n->in.dim[2] + tap / SIDE - SIDE / 2, x = at % n->in.dim[2] + tap % SIDE - SIDE / 2;
    return y >= 0 && y < n->in.dim[1] && x >= 0 && x < n->in.dim[2] ? y * n->in.dim[2] + x : -1;
}

static void position_gate(const struct fst_node *n, const struct fst_op_args *a, struct sample *s)
{
    int64_t channels = n->in.dim[0], plane = n->in.dim[1] * n->in.dim[2];
    for (int64_t i = 0; i < plane; i++) {
        double sum = 0;
        s->winner[i] = 0;
        for (int64_t c = 0; c < channels; c++) {
            sum += s->m1[c * plane + i];
            if (s->m1[c * plane + i] > s->m1[s->winner[i] * plane + i])
                s->winner[i] = c;
        }
        s->maps[i] = sum / (double)channels;
        s->maps[plane + i] = s->m1[s->winner[i] * plane + i];
    }
    for (int64_t i = 0; i < plane; i++) {
        double sum = 0;
        for (int tap = 0; tap < TAPS; tap++) {
            int64_t at = under(n, i, tap);
            for (int k = 0; at >= 0 && k < 2; k++)
                sum += (double)a->param[2][k * TAPS + tap] * s->maps[k * plane + at];
        }
        s->attention[i] = sigmoid(sum);
    }
}

static double clamped(const struct fst_node *n, double m)
{
    return m < n->u.time_freq.floor ? n->u.time_freq.floor : m > n->u.time_freq.ceiling ? n->u.time_freq.ceiling : m;
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct sample s = lay_out(n, a->scratch);
    int64_t size = fst_shape_count(&n->in), plane = n->in.dim[1] * n->in.dim[2], samples = a->batch / 2;
    for (int64_t b = 0; b < samples; b++) {
        const float *re = a->in + b * size, *im = re + samples * size;
        channel_gate(n, a, re, im, &s);
        position_gate(n, a, &s);
        for (int64_t i = 0; i < size; i++) {
            double m = clamped(n, s.m1[i] * s.attention[i % plane]), eps = n->u.time_freq.phase_eps;
            double phase = atan2((double)im[i] + eps, (double)re[i] + eps);
            a->out[b * size + i] = (float)(m * cos(phase));
            a->out[(samples + b) * size + i] = (float)(m * sin(phase));
        }
    }
}

/* ---- backward ------------------------------------------------------------------------------------------------ */

/* From the output to m1 (dm), the attention map, and, by way of the phase, to the input. */
static void output_backward(const struct fst_node *n, const float *re, const float *im, const float *gr,
                            const float *gi, struct sample *s, float *dre, float *dim)
{
    int64_t size = fst_shape_count(&n->in), plane = n->in.dim[1] * n->in.dim[2];
    memset(s->dattention, 0, (size_t)plane * sizeof(double));
    for (int64_t i = 0; i < size; i++) {
        double x = (double)re[i] + n->u.time_freq.phase_eps, y = (double)im[i] + n->u.time_freq.phase_eps;
        double phase = atan2(y, x), square = x * x + y * y, m2 = s->m1[i] * s->attention[i % plane];
        double m = clamped(n, m2), g = (double)gr[i] * cos(phase) + (double)gi[i] * sin(phase);
        double turn = m * ((double)gi[i] * cos(phase) - (double)gr[i] * sin(phase));
        if (dre) {
            dre[i] = square > 0 ? (float)(-turn * y / square) : 0;
            dim[i] = square > 0 ? (float)(turn * x / square) : 0;
        }
        if (m2 < n->u.time_freq.floor || m2 > n->u.time_freq.ceiling)
            g = 0;
        s->dattention[i % plane] += g * s->m1[i];
        s->dm[i] = g * s->attention[i % plane];
    }
}

static void position_backward(const struct fst_node *n, const struct fst_op_args *a, struct sample *s, double *dconv)
{
    int64_t channels = n->in.dim[0], plane = n->in.dim[1] * n->in.dim[2];
    memset(s->dmaps, 0, (size_t)(2 * plane) * sizeof(double));
    for (int64_t i = 0; i < plane; i++) {
        double g = s->dattention[i] * s->attention[i] * (1 - s->attention[i]);
        for (int tap = 0; tap < TAPS; tap++) {
            int64_t at = under(n, i, tap);
            for (int k = 0; at >= 0 && k < 2; k++) {
                dconv[k * TAPS + tap] += g * s->maps[k * plane + at];
                s->dmaps[k * plane + at] += g * (double)a->param[2][k * TAPS + tap];
            }
        }
    }
    for (int64_t i = 0; i < plane; i++) {
        for (int64_t c = 0; c < channels; c++)
            s->dm[c * plane + i] += s->dmaps[i] / (double)channels;
        s->dm[s->winner[i] * plane + i] += s->dmaps[plane + i];
    }
}

/* dm becomes the gradient of m0. */
static void channel_backward(const struct fst_node *n, const struct fst_op_args *a, struct sample *s)
{
    int64_t channels = n->in.dim[0], plane = n->in.dim[1] * n->in.dim[2], units = n->u.time_freq.hidden;
    double *dfc1 = s->dweight, *dfc2 = dfc1 + channels * units;
    memset(s->dhidden, 0, (size_t)units * sizeof(double));
    for (int64_t c = 0; c < channels; c++) {
        double g = 0;
        for (int64_t i = c * plane; i < (c + 1) * plane; i++) {
            g += s->dm[i] * s->m0[i];
            s->dm[i] *= s->gate[c];
        }
        g *= s->gate[c] * (1 - s->gate[c]);
        for (int64_t h = 0; h < units; h++) {
            dfc2[c * units + h] += g * s->hidden[h];
            s->dhidden[h] += s->hidden[h] > 0 ? g * (double)a->param[1][c * units + h] : 0;
        }
    }
    for (int64_t c = 0; c < channels; c++) {
        double g = 0;
        for (int64_t h = 0; h < units; h++) {
            dfc1[h * channels + c] += s->dhidden[h] * s->average[c];
            g += s->dhidden[h] * (double)a->param[0][h * channels + c];
        }
        for (int64_t i = c * plane; i < (c + 1) * plane; i++)
            s->dm[i] += g / (double)plane;
    }
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct sample s = lay_out(n, a->scratch);
    int64_t size = fst_shape_count(&n->in), samples = a->batch / 2, fc = n->in.dim[0] * n->u.time_freq.hidden;
    memset(s.dweight, 0, (size_t)weights(n) * sizeof(double));
    for (int64_t b = 0; b < samples; b++) {
        int64_t re_at = b * size, im_at = (samples + b) * size;
        const float *re = a->in + re_at, *im = a->in + im_at;
        float *dre = a->grad_in ? a->grad_in + re_at : NULL, *dim = a->grad_in ? a->grad_in + im_at : NULL;
        channel_gate(n, a, re, im, &s);
        position_gate(n, a, &s);
        output_backward(n, re, im, a->grad_out + re_at, a->grad_out + im_at, &s, dre, dim);
        position_backward(n, a, &s, s.dweight + 2 * fc);
        channel_backward(n, a, &s);
        for (int64_t i = 0; dre && i < size; i++) {
            double m = hypot((double)re[i], (double)im[i]);
            dre[i] += m > 0 ? (float)(s.dm[i] * (double)re[i] / m) : 0;
            dim[i] += m > 0 ? (float)(s.dm[i] * (double)im[i] / m) : 0;
        }
    }
    for (int64_t i = 0; i < fc; i++) {
        a->grad_param[0][i] = (float)s.dweight[i];
        a->grad_param[1][i] = (float)s.dweight[fc + i];
    }
    for (int64_t i = 0; i < 2 * TAPS; i++)
        a->grad_param[2][i] = (float)s.dweight[2 * fc + i];
}

const struct fst_op_type fst__op_time_freq_attention = {
    .name = "time_freq_attention",
    .shape = shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .scratch = scratch,
    .takes_complex = true,
};

/*
 * Losses on rows of logits: value and gradient together, written from log-softmax so that logits of
 * +-1e4 stay finite. Work is in double: a row is short beside the network that made it.
 */
#include <math.h>
#include <string.h>

#include "fedstill/nn.h"

const char *fst_kd_form_name(fst_kd_form f)
{
    static const char *const names[] = {"kl", "cross_entropy", "mse_logits", "mse_probabilities"};
    return (size_t)f < sizeof names / sizeof *names ? names[f] : "?";
}

/* max and log(sum exp(z/t - max/t)) of a row: log p_j = (z_j - max)/t - lse. */
static double log_sum(const float *z, int n, double t, double *max)
{
    double m = (double)z[0], sum = 0;
    for (int j = 1; j < n; j++)
        m = (double)z[j] > m ? (double)z[j] : m;
    for (int j = 0; j < n; j++)
        sum += exp(((double)z[j] - m) / t);
    *max = m;
    return log(sum);
}

void fst_soften(const float *logits, size_t rows, int classes, double temperature, float *out)
{
    for (size_t r = 0; r < rows; r++) {
        const float *z = logits + r * (size_t)classes;
        double max, lse = log_sum(z, classes, temperature, &max);
        for (int j = 0; j < classes; j++)
            out[r * (size_t)classes + (size_t)j] = (float)exp(((double)z[j] - max) / temperature - lse);
    }
}

/* (1-e) onehot + e/K as the target; adds scale times the gradient, returns the row's loss. */
static double cross_entropy(const float *z, int n, int32_t label, double smoothing, double scale, float *grad)
{
    double max, lse = log_sum(z, n, 1.0, &max), loss = 0;
    for (int j = 0; j < n; j++) {
        double lp = (double)z[j] - max - lse;
        double target = (j == label ? 1 - smoothing : 0) + smoothing / n;
        if (target > 0)
            loss -= target * lp;
        grad[j] += (float)(scale * (exp(lp) - target));
    }
    return loss;
}

static double tempered(const float *z, const float *q, int n, double t, bool kl, double scale, float *grad)
{
    double max, lse = log_sum(z, n, t, &max), loss = 0, mass = 0;
    for (int j = 0; j < n; j++)
        mass += (double)q[j];
    for (int j = 0; j < n; j++) {
        double lp = ((double)z[j] - max) / t - lse, qj = (double)q[j];
        if (qj > 0)
            loss += qj * ((kl ? log(qj) : 0) - lp);
        grad[j] += (float)(scale * t * (mass * exp(lp) - qj));
    }
    return t * t * loss;
}

static double mse_logits(const float *z, const float *q, int n, double scale, float *grad)
{
    double loss = 0;
    for (int j = 0; j < n; j++) {
        double d = (double)z[j] - (double)q[j];
        loss += d * d / n;
        grad[j] += (float)(scale * 2 * d / n);
    }
    return loss;
}

static double mse_probabilities(const float *z, const float *q, int n, double scale, float *grad)
{
    double max, lse = log_sum(z, n, 1.0, &max), loss = 0, dot = 0;
    for (int j = 0; j < n; j++) {
        double p = exp((double)z[j] - max - lse), d = p - (double)q[j];
        loss += d * d / n;
        dot += 2 * d / n * p;
    }
    for (int j = 0; j < n; j++) {
        double p = exp((double)z[j] - max - lse), d = p - (double)q[j];
        grad[j] += (float)(scale * p * (2 * d / n - dot));
    }
    return loss;
}

static double distil(const fst_loss *l, const float *z, const float *q, int n, double scale, float *grad)
{
    switch (l->kd_form) {
    case FST_KD_MSE_LOGITS:
        return mse_logits(z, q, n, scale, grad);
    case FST_KD_MSE_PROBABILITIES:
        return mse_probabilities(z, q, n, scale, grad);
    default:
        return tempered(z, q, n, l->temperature, l->kd_form == FST_KD_KL, scale, grad);
    }
}

void fst_loss_rows(const fst_loss *l, const fst_loss_input *in, float *grad, double *row_loss, double *row_ce,
                   double *row_kd)
{
    size_t n = (size_t)in->classes;
    memset(grad, 0, in->rows * n * sizeof *grad);
    for (size_t r = 0; r < in->rows; r++) {
        const float *z = in->logits + r * n;
        double w = in->weight ? (double)in->weight[r] : 1, ce = 0, kd = 0;
        if (l->ce_weight != 0)
            ce = w * cross_entropy(z, in->classes, in->labels[r], l->label_smoothing, w * l->ce_weight / in->divisor,
                                   grad + r * n);
        if (l->kd_weight != 0)
            kd = distil(l, z, in->soft + r * n, in->classes, l->kd_weight / in->divisor, grad + r * n);
        row_loss[r] = l->ce_weight * ce + l->kd_weight * kd;
        if (row_ce)
            row_ce[r] = ce;
        if (row_kd)
            row_kd[r] = kd;
    }
}

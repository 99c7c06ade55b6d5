/*
 * Losses on rows of logits: value and gradient together, written from log-softmax so that logits of
 * +-1e4 stay finite. Work is in double: a row is short beside the network that made it.
 */
#include <math.h>
#include <string.h>

#include "loss.h"

const char *fst_kd_form_name(fst_kd_form f)
{
    static const char *const names[] = {"kl",           "cross_entropy", "mse_logits", "mse_probabilities",
                                        "standardised", "dkd",           "ntd",        "mae_logits"};
    return (size_t)f < sizeof names / sizeof *names ? names[f] : "?";
}

bool fst_kd_takes_logits(fst_kd_form f)
{
    return f == FST_KD_MSE_LOGITS || f == FST_KD_STANDARDISED || f == FST_KD_DKD || f == FST_KD_NTD ||
           f == FST_KD_MAE_LOGITS;
}

bool fst_kd_needs_labels(fst_kd_form f)
{
    return f == FST_KD_DKD || f == FST_KD_NTD;
}

void fst_log_softmax(const float *logits, int classes, double temperature, double *out)
{
    fst__norm norm = fst__norm_of(logits, classes, -1, temperature);
    for (int j = 0; j < classes; j++)
        out[j] = fst__log_p(&norm, logits[j]);
}

void fst_softmax(const float *logits, size_t rows, int classes, double temperature, float *out)
{
    for (size_t r = 0; r < rows; r++) {
        const float *z = logits + r * (size_t)classes;
        fst__norm norm = fst__norm_of(z, classes, -1, temperature);
        for (int j = 0; j < classes; j++)
            out[r * (size_t)classes + (size_t)j] = (float)exp(fst__log_p(&norm, z[j]));
    }
}

/* (1-e) onehot + e/K as the target, times the weight of each class (NULL: 1); adds scale times the gradient, returns
 * the row's loss. */
static double cross_entropy(const float *z, int n, int32_t label, double smoothing, const double *weight, double scale,
                            float *grad)
{
    fst__norm norm = fst__norm_of(z, n, -1, 1.0);
    double loss = 0, mass = weight ? 0 : 1;
    for (int j = 0; weight && j < n; j++)
        mass += weight[j] * ((j == label ? 1 - smoothing : 0) + smoothing / n);
    for (int j = 0; j < n; j++) {
        double lp = fst__log_p(&norm, z[j]);
        double target = (j == label ? 1 - smoothing : 0) + smoothing / n;
        if (weight)
            target *= weight[j];
        if (target > 0)
            loss -= target * lp;
        grad[j] += (float)(scale * (mass * exp(lp) - target));
    }
    return loss;
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

static double mae_logits(const float *z, const float *q, int n, double scale, float *grad)
{
    double loss = 0;
    for (int j = 0; j < n; j++) {
        double d = (double)z[j] - (double)q[j];
        loss += fabs(d) / n;
        grad[j] += (float)(scale * ((d > 0) - (d < 0)) / n);
    }
    return loss;
}

static double mse_probabilities(const float *z, const float *q, int n, double scale, float *grad)
{
    fst__norm norm = fst__norm_of(z, n, -1, 1.0);
    double loss = 0, dot = 0;
    for (int j = 0; j < n; j++) {
        double p = exp(fst__log_p(&norm, z[j])), d = p - (double)q[j];
        loss += d * d / n;
        dot += 2 * d / n * p;
    }
    for (int j = 0; j < n; j++) {
        double p = exp(fst__log_p(&norm, z[j])), d = p - (double)q[j];
        grad[j] += (float)(scale * p * (2 * d / n - dot));
    }
    return loss;
}

/* The row's distillation loss; label is -1 when the batch has none. */
static double distil(const fst_loss *l, const float *z, const float *q, int n, int32_t label, double scale, float *grad)
{
    double t = l->temperature;
    switch (l->kd_form) {
    case FST_KD_MSE_LOGITS:
        return mse_logits(z, q, n, scale, grad);
    case FST_KD_MAE_LOGITS:
        return mae_logits(z, q, n, scale, grad);
    case FST_KD_MSE_PROBABILITIES:
        return mse_probabilities(z, q, n, scale, grad);
    case FST_KD_STANDARDISED:
        return fst__loss_standardised(z, q, n, t, scale, grad);
    case FST_KD_DKD:
        return fst__loss_dkd(l, z, q, n, label, scale, grad);
    case FST_KD_NTD:
        return fst__loss_ntd(z, q, n, label, t, scale, grad);
    default:
        if (l->soft_logits)
            return fst__loss_tempered_logits(z, q, n, t, l->kd_form == FST_KD_KL, scale, grad);
        return fst__loss_tempered(z, q, n, t, l->kd_form == FST_KD_KL, scale, grad);
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
            ce = w * cross_entropy(z, in->classes, in->labels[r], l->label_smoothing, in->class_weight,
                                   w * l->ce_weight / in->divisor, grad + r * n);
        if (l->kd_weight != 0)
            kd = distil(l, z, in->soft + r * n, in->classes, in->labels ? in->labels[r] : -1,
                        l->kd_weight / in->divisor, grad + r * n);
        row_loss[r] = l->ce_weight * ce + l->kd_weight * kd;
        if (row_ce)
            row_ce[r] = ce;
        if (row_kd)
            row_kd[r] = kd;
    }
}

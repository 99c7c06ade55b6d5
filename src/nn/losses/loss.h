/* What the files of losses share: log-softmax of a row without overflow, and one function a family. A loss
 * takes one row, adds scale times its gradient to grad and returns the row's value; work is in double. */
#ifndef FST_NN_LOSS_H
#define FST_NN_LOSS_H

#include <math.h>

#include "fedstill/nn.h"

/* log p_j = (z_j - max)/t - lse; differences of logits first, so that +-1e4 does not cost digits. */
typedef struct fst__norm {
    double max, lse, t;
} fst__norm;

/* Of the row without element `skip` (-1: all of it); at least one must be left. */
static inline fst__norm fst__norm_of(const float *z, int n, int skip, double t)
{
    fst__norm norm = {-INFINITY, 0, t};
    double sum = 0;
    for (int j = 0; j < n; j++)
        if (j != skip && (double)z[j] > norm.max)
            norm.max = (double)z[j];
    for (int j = 0; j < n; j++)
        if (j != skip)
            sum += exp(((double)z[j] - norm.max) / t);
    norm.lse = log(sum);
    return norm;
}

static inline double fst__log_p(const fst__norm *norm, float z)
{
    return ((double)z - norm->max) / norm->t - norm->lse;
}

/* q: the teacher's probabilities at the temperature; kl: the KL, else the cross entropy. */
double fst__loss_tempered(const float *z, const float *q, int n, double t, bool kl, double scale, float *grad);
/* teacher: its logits. */
double fst__loss_tempered_logits(const float *z, const float *teacher, int n, double t, bool kl, double scale,
                                 float *grad);
double fst__loss_standardised(const float *z, const float *teacher, int n, double t, double scale, float *grad);
double fst__loss_dkd(const fst_loss *l, const float *z, const float *teacher, int n, int32_t label, double scale,
                     float *grad);
double fst__loss_ntd(const float *z, const float *teacher, int n, int32_t label, double t, double scale, float *grad);

#endif

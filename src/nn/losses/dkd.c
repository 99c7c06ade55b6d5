/* Decoupled knowledge distillation (Zhao et al., CVPR 2022): the KL between teacher and student falls into
 * a part about the label against all others (TCKD) and a part among the others (NCKD), weighed apart. The
 * label's logit is left out of NCKD, not lowered by a large number as in public code. */
#include "loss.h"

/* Log-probabilities of the label and of all others together, as a softmax of two: the label's logit, and
 * the log-sum-exp of the others. */
struct binary {
    fst__norm rest;
    double log_label, log_other;
};

static struct binary binary_of(const float *z, int n, int32_t label, double t)
{
    struct binary b = {.rest = fst__norm_of(z, n, label, t)};
    double d = ((double)z[label] - b.rest.max) / t - b.rest.lse; /* the label's logit less the others' */
    b.log_label = d > 0 ? -log1p(exp(-d)) : d - log1p(exp(d));
    b.log_other = d > 0 ? -d - log1p(exp(-d)) : -log1p(exp(d));
    return b;
}

static double target_class(const float *z, const float *teacher, int n, int32_t label, double t, double scale,
                           float *grad)
{
    struct binary s = binary_of(z, n, label, t), m = binary_of(teacher, n, label, t);
    double q = exp(m.log_label), other = exp(m.log_other), loss = 0;
    if (q > 0)
        loss += q * (m.log_label - s.log_label);
    if (other > 0)
        loss += other * (m.log_other - s.log_other);
    /* of two equal differences the one of the smaller numbers has the digits */
    double pull = q > 0.5 ? other - exp(s.log_other) : exp(s.log_label) - q;
    for (int j = 0; j < n; j++)
        grad[j] += (float)(scale * t * (j == label ? pull : -pull * exp(fst__log_p(&s.rest, z[j]))));
    return t * t * loss;
}

double fst__loss_dkd(const fst_loss *l, const float *z, const float *teacher, int n, int32_t label, double scale,
                     float *grad)
{
    double loss = 0, t = l->temperature;
    if (n < 2) /* one class: both distributions are certain of it */
        return 0;
    if (l->tckd_weight != 0)
        loss += l->tckd_weight * target_class(z, teacher, n, label, t, scale * l->tckd_weight, grad);
    if (l->nckd_weight != 0)
        loss += l->nckd_weight * fst__loss_ntd(z, teacher, n, label, t, scale * l->nckd_weight, grad);
    return loss;
}

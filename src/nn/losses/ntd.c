/* Not-true distillation (FedNTD, Lee et al., NeurIPS 2022): teacher and student compared over the classes
 * that are not the label, so that what is said about the label is left to the cross entropy. */
#include "loss.h"

double fst__loss_ntd(const float *z, const float *teacher, int n, int32_t label, double t, double scale, float *grad)
{
    double loss = 0;
    if (n < 2) /* no other class, nothing to compare */
        return 0;
    fst__norm student = fst__norm_of(z, n, label, t), model = fst__norm_of(teacher, n, label, t);
    for (int j = 0; j < n; j++) {
        if (j == label)
            continue;
        double lp = fst__log_p(&student, z[j]), lq = fst__log_p(&model, teacher[j]), q = exp(lq);
        if (q > 0)
            loss += q * (lq - lp);
        grad[j] += (float)(scale * t * (exp(lp) - q));
    }
    return t * t * loss;
}

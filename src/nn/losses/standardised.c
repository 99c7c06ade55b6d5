/* Distillation of standardised logits (Sun et al., CVPR 2024): a student need not reach its teacher's range
 * of logits, only their order and proportions. As a softmax does not see the mean, softmax(standardised/T)
 * is softmax(z / (T (1e-7 + std))): a temperature for each row, which the gradient goes through. */
#include "loss.h"

#define EPS 1e-7

struct moments {
    double mean, std;
};

/* std with n-1. Differences from the first element are exact where rows are flat. */
static struct moments moments_of(const float *z, int n)
{
    double sum = 0, squares = 0;
    for (int j = 0; j < n; j++)
        sum += (double)z[j] - (double)z[0];
    double offset = sum / n;
    for (int j = 0; j < n; j++) {
        double d = (double)z[j] - (double)z[0] - offset;
        squares += d * d;
    }
    return (struct moments){(double)z[0] + offset, n > 1 ? sqrt(squares / (n - 1)) : 0};
}

/*
 * With u = (z - mean)/w, w = 1e-7 + std, and g the gradient for u:
 *     dz_j = (g_j - mean(g))/w - u_j sum(g u) / ((n-1) std)
 * (g sums to 0.) A flat row has no std to differentiate; PyTorch gives NaN there, here the row is left alone.
 */
double fst__loss_standardised(const float *z, const float *teacher, int n, double t, double scale, float *grad)
{
    struct moments s = moments_of(z, n), m = moments_of(teacher, n);
    double w = EPS + s.std, loss = 0, dot = 0;
    fst__norm student = fst__norm_of(z, n, -1, t * w), model = fst__norm_of(teacher, n, -1, t * (EPS + m.std));
    for (int j = 0; j < n; j++) {
        double lp = fst__log_p(&student, z[j]), lq = fst__log_p(&model, teacher[j]), q = exp(lq);
        if (q > 0)
            loss += q * (lq - lp);
        dot += t * (exp(lp) - q) * ((double)z[j] - s.mean) / w;
    }
    for (int j = 0; s.std > 0 && j < n; j++) {
        double g = t * (exp(fst__log_p(&student, z[j])) - exp(fst__log_p(&model, teacher[j])));
        double u = ((double)z[j] - s.mean) / w;
        grad[j] += (float)(scale * (g / w - u * dot / ((n - 1) * s.std)));
    }
    return t * t * loss;
}

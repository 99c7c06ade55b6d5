/*
 * Distillation at a temperature (Hinton, Vinyals, Dean 2015): T^2 KL(q || p) or T^2 H(q, p), with the teacher's
 * probabilities as they were kept or made here from its logits; and how the former depends on the temperature, for
 * those who learn it (Li et al., Curriculum temperature for knowledge distillation, AAAI 2023).
 */
#include "loss.h"

double fst__loss_tempered(const float *z, const float *q, int n, double t, bool kl, double scale, float *grad)
{
    fst__norm norm = fst__norm_of(z, n, -1, t);
    double loss = 0, mass = 0;
    for (int j = 0; j < n; j++)
        mass += (double)q[j];
    for (int j = 0; j < n; j++) {
        double lp = fst__log_p(&norm, z[j]), qj = (double)q[j];
        if (qj > 0)
            loss += qj * ((kl ? log(qj) : 0) - lp);
        grad[j] += (float)(scale * t * (mass * exp(lp) - qj));
    }
    return t * t * loss;
}

double fst__loss_tempered_logits(const float *z, const float *teacher, int n, double t, bool kl, double scale,
                                 float *grad)
{
    fst__norm student = fst__norm_of(z, n, -1, t), model = fst__norm_of(teacher, n, -1, t);
    double loss = 0;
    for (int j = 0; j < n; j++) {
        double lp = fst__log_p(&student, z[j]), lq = fst__log_p(&model, teacher[j]), q = exp(lq);
        if (q > 0)
            loss += q * ((kl ? lq : 0) - lp);
        grad[j] += (float)(scale * t * (exp(lp) - q));
    }
    return t * t * loss;
}

/*
 * With u = 1/T: d log q/du = v - E_q[v], d log p/du = z - E_p[z], so that
 *     dKL/du = sum_j dq_j/du (log q_j - log p_j) + E_q[v - E_q v] - E_q[z] + E_p[z]
 *            = Cov_q(v, log q - log p) - (E_q[z] - E_p[z]),
 * and dT^2 KL/dT = 2 T KL - dKL/du. Logits enter by their distance from the row's largest.
 */
static double temperature_grad(const float *z, const float *teacher, int n, double t)
{
    fst__norm student = fst__norm_of(z, n, -1, t), model = fst__norm_of(teacher, n, -1, t);
    double kl = 0, mean_v = 0, mean_vd = 0, q_z = 0, p_z = 0;
    for (int j = 0; j < n; j++) {
        double lp = fst__log_p(&student, z[j]), lq = fst__log_p(&model, teacher[j]), q = exp(lq), p = exp(lp);
        double dz = (double)z[j] - student.max, dv = (double)teacher[j] - model.max;
        kl += q > 0 ? q * (lq - lp) : 0;
        mean_v += q > 0 ? q * dv : 0;
        mean_vd += q > 0 ? q * dv * (lq - lp) : 0;
        q_z += q * dz;
        p_z += p * dz;
    }
    return 2 * t * kl - (mean_vd - mean_v * kl) + q_z - p_z;
}

void fst_loss_temperature_rows(const fst_loss *l, const fst_loss_input *in, double *row)
{
    size_t n = (size_t)in->classes;
    for (size_t r = 0; r < in->rows; r++)
        row[r] = temperature_grad(in->logits + r * n, in->soft + r * n, in->classes, l->temperature);
}

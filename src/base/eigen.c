/* Eigenvectors of symmetric matrices by Jacobi's rotations (1846): slow for large ones, exact to rounding, and always
 * in the same order. */
#include <math.h>
#include <string.h>

#include "fedstill/base.h"

enum { SWEEPS = 40 };

static void turn(double *x, double *y, double cosine, double sine)
{
    double a = *x, b = *y;
    *x = cosine * a - sine * b;
    *y = sine * a + cosine * b;
}

/* Makes element (p, q) 0; rows of `vectors` are turned along. */
static void rotate(double *m, double *vectors, size_t n, size_t p, size_t q)
{
    double slope = (m[q * n + q] - m[p * n + p]) / (2 * m[p * n + q]);
    double tangent = (slope < 0 ? -1 : 1) / (fabs(slope) + sqrt(slope * slope + 1));
    double cosine = 1 / sqrt(tangent * tangent + 1), sine = tangent * cosine;
    for (size_t k = 0; k < n; k++)
        turn(&m[k * n + p], &m[k * n + q], cosine, sine);
    for (size_t k = 0; k < n; k++)
        turn(&m[p * n + k], &m[q * n + k], cosine, sine);
    for (size_t k = 0; k < n; k++)
        turn(&vectors[p * n + k], &vectors[q * n + k], cosine, sine);
    m[p * n + q] = m[q * n + p] = 0;
}

void fst_eigenvectors(double *m, double *vectors, size_t n)
{
    double trace = 0;
    memset(vectors, 0, n * n * sizeof *vectors);
    for (size_t i = 0; i < n; i++) {
        vectors[i * n + i] = 1;
        trace += fabs(m[i * n + i]);
    }
    bool turned = true;
    for (int sweep = 0; turned && sweep < SWEEPS; sweep++) {
        turned = false;
        for (size_t p = 0; p < n; p++)
            for (size_t q = p + 1; q < n; q++)
                if (fabs(m[p * n + q]) > 1e-15 * trace / (double)n) {
                    rotate(m, vectors, n, p, q);
                    turned = true;
                }
    }
}

/* Eigenvectors by what makes them so: they are orthonormal, and the matrix only stretches them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/base.h"

enum { MOST = 24 };

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static void check(const double *wanted, size_t n)
{
    double m[MOST * MOST], vectors[MOST * MOST], size = 0, trace = 0;
    memcpy(m, wanted, n * n * sizeof *m);
    fst_eigenvectors(m, vectors, n);
    for (size_t i = 0; i < n * n; i++)
        size += fabs(wanted[i]);
    for (size_t i = 0; i < n; i++) {
        const double *v = vectors + i * n;
        trace += m[i * n + i] - wanted[i * n + i];
        for (size_t k = 0; k < n; k++) {
            assert_true(fabs(dot(v, vectors + k * n, n) - (i == k)) < 1e-12);
            assert_true(fabs(dot(wanted + k * n, v, n) - m[i * n + i] * v[k]) <= 1e-12 * size);
        }
    }
    assert_true(fabs(trace) <= 1e-12 * size);
}

static void drawn_matrices(void **state)
{
    (void)state;
    for (size_t n = 1; n <= MOST; n++) {
        double m[MOST * MOST];
        fst_rng r;
        fst_rng_init(&r, n, "test.eigen", 0);
        for (size_t i = 0; i < n; i++)
            for (size_t k = 0; k <= i; k++)
                m[i * n + k] = m[k * n + i] = fst_rng_normal(&r);
        check(m, n);
    }
}

/* Equal eigenvalues, none, and signs. */
static void plain_matrices(void **state)
{
    (void)state;
    static const double nothing[9] = {0}, same[9] = {2, 0, 0, 0, 2, 0, 0, 0, 2};
    static const double swapped[4] = {0, 1, 1, 0}, flat[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
    check(nothing, 3);
    check(same, 3);
    check(swapped, 2);
    check(flat, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(drawn_matrices), cmocka_unit_test(plain_matrices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

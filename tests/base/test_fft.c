/* The Fourier transform against the sum that it is, in double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "fedstill/base.h"

enum { LONGEST = 256 };
#define TURN 6.283185307179586476925287

static void is_the_sum(size_t n)
{
    float turns[2 * LONGEST], re[LONGEST], im[LONGEST];
    double a[LONGEST], b[LONGEST];
    fst_rng r;
    fst_rng_init(&r, 1, "test.fft", n);
    for (size_t i = 0; i < n; i++) {
        a[i] = (double)(re[i] = (float)fst_rng_normal(&r));
        b[i] = (double)(im[i] = (float)fst_rng_normal(&r));
    }
    fst_fft_twiddles(turns, n);
    fst_fft(turns, n, re, im);
    for (size_t k = 0; k < n; k++) {
        double x = 0, y = 0;
        for (size_t i = 0; i < n; i++) {
            double w = -TURN * (double)(i * k % n) / (double)n;
            x += a[i] * cos(w) - b[i] * sin(w);
            y += a[i] * sin(w) + b[i] * cos(w);
        }
        assert_true(fabs((double)re[k] - x) < 1e-6 * (double)(n + 10));
        assert_true(fabs((double)im[k] - y) < 1e-6 * (double)(n + 10));
    }
}

static void of_every_length(void **state)
{
    (void)state;
    for (size_t n = 1; n <= LONGEST; n *= 2)
        is_the_sum(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(of_every_length)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

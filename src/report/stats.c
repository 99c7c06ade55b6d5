/* Means, spreads and paired tests over a few seeds. Nothing is approximated but Student's distribution, whose
 * incomplete beta function is a continued fraction (Lentz; Press et al., Numerical Recipes, 6.4). */
#include <math.h>

#include "fedstill/compare.h"

fst_spread fst_spread_of(const double *values, size_t n)
{
    fst_spread s = {n, NAN, NAN};
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    if (n)
        s.mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (values[i] - s.mean) * (values[i] - s.mean);
    if (n > 1)
        s.sd = sqrt(squares / (double)(n - 1));
    return s;
}

/* ---- Student's t ------------------------------------------------------------------------------- */

static double not_zero(double x)
{
    return fabs(x) < 1e-300 ? 1e-300 : x;
}

static double beta_fraction(double a, double b, double x)
{
    double c = 1, d = 1 / not_zero(1 - (a + b) * x / (a + 1)), h = d;
    for (int m = 1; m <= 10000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 / not_zero(1 + even * d);
        c = not_zero(1 + even / c);
        h *= d * c;
        d = 1 / not_zero(1 + odd * d);
        c = not_zero(1 + odd / c);
        h *= d * c;
        if (fabs(d * c - 1) < 1e-16)
            break;
    }
    return h;
}

/* The regularised incomplete beta function; 0 < a, b. */
static double beta_share(double a, double b, double x)
{
    if (x <= 0 || x >= 1)
        return x >= 1;
    double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    return x < (a + 1) / (a + b + 2) ? front * beta_fraction(a, b, x) / a : 1 - front * beta_fraction(b, a, 1 - x) / b;
}

double fst_t_two_sided(double t, double df)
{
    if (isnan(t) || !(df >= 1))
        return NAN;
    return isinf(t) ? 0 : beta_share(df / 2, 0.5, df / (df + t * t));
}

double fst_t_critical(double p, double df)
{
    double low = 0, high = 1;
    if (!(p > 0 && p < 1 && df >= 1))
        return NAN;
    while (fst_t_two_sided(high, df) > p && high < 1e150)
        high *= 2;
    for (int i = 0; i < 200; i++) {
        double middle = low + (high - low) / 2;
        if (fst_t_two_sided(middle, df) > p)
            low = middle;
        else
            high = middle;
    }
    return low + (high - low) / 2;
}

/* ---- pairs ---------------------------------------------------------------------------------------- */

/* Ways to sign the differences from the i-th on whose sum is at least as far from 0 as `far`. */
static size_t ways(const double *d, size_t n, size_t i, double sum, double far)
{
    return i == n ? fabs(sum) >= far : ways(d, n, i + 1, sum + d[i], far) + ways(d, n, i + 1, sum - d[i], far);
}

static double flip_test(const double *d, size_t n)
{
    double sum = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        sum += d[i];
        size += fabs(d[i]);
    }
    /* sums of the same numbers in another order of signs may differ in their last bits */
    return (double)ways(d, n, 0, 0, fabs(sum) - 1e-12 * size) / (double)((size_t)1 << n);
}

fst_paired fst_paired_of(const double *a, const double *b, size_t n)
{
    fst_paired r = {n, NAN, NAN, NAN, NAN, NAN, NAN};
    double *d = fst_alloc((n + 1) * sizeof *d), least = INFINITY, most = -INFINITY;
    for (size_t i = 0; d && i < n; i++) {
        d[i] = a[i] - b[i];
        least = fmin(least, d[i]);
        most = fmax(most, d[i]);
    }
    fst_spread s = d ? fst_spread_of(d, n) : (fst_spread){n, NAN, NAN};
    r.mean = s.mean;
    r.sd = s.sd;
    /* differences that are equal but for their last bits have no spread to speak of */
    if (n > 1 && isfinite(s.sd) && most - least > 1e-12 * (fabs(most) + fabs(least))) {
        double error = s.sd / sqrt((double)n), reach = fst_t_critical(0.05, (double)(n - 1)) * error;
        r.low = s.mean - reach;
        r.high = s.mean + reach;
        r.p_t = fst_t_two_sided(s.mean / error, (double)(n - 1));
    }
    if (n > 1 && n <= FST_FLIP_PAIRS && isfinite(s.mean))
        r.p_flip = flip_test(d, n);
    fst_free(d);
    return r;
}

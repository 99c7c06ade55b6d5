/*
 * Block arithmetic of the generators: normals, phasors, a filter, power. Loops of plain float operations that the
 * compiler turns into vectors; polynomials in place of the C library, since these take most of the time.
 */
#include <math.h>
#include <string.h>

#include "synth_private.h"

enum { BLOCK = 256 };

/* sin(2 pi t) for |t| <= 1/2: folded to a quarter, then Taylor's series to the 11th power (6e-8 at its end). */
static inline float sin_turns(float t)
{
    float q = 0.25f - fabsf(0.25f - fabsf(t)), x = q * 6.2831853f, z = x * x;
    float p = -2.5052108e-8f;
    p = p * z + 2.7557319e-6f;
    p = p * z - 1.9841270e-4f;
    p = p * z + 8.3333333e-3f;
    p = p * z - 0.16666667f;
    return copysignf(x + x * z * p, t);
}

/* cos(2 pi t) = sin(2 pi (1/4 - |t|)) */
static inline float cos_turns(float t)
{
    return sin_turns(0.25f - fabsf(t));
}

/* To -1/2 ... 1/2: adding 1.5 * 2^23 rounds to the nearest whole number. */
static inline float fraction(float t)
{
    float whole = (t + 12582912.0f) - 12582912.0f;
    return t - whole;
}

/* ln of a number above 0, not denormal: mantissa in sqrt(1/2) ... sqrt(2), then the series of 2 artanh. */
static inline float logarithm(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    int32_t e = (int32_t)(bits - 0x3F3504F3u) >> 23;
    bits -= (uint32_t)e << 23;
    memcpy(&x, &bits, sizeof x);
    float z = (x - 1) / (x + 1), w = z * z;
    float p = ((0.22222222f * w + 0.28571429f) * w + 0.4f) * w + 0.66666667f;
    return (float)e * 0.69314718f + z * (2 + w * p);
}

/* Box and Muller 1958: two normals of two words. */
FST__CLONES static void pairs(const uint32_t *w, float *a, float *b, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float u = ((float)(int32_t)(w[i] >> 8) + 0.5f) * 0x1p-24f;
        float t = (float)(int32_t)w[n + i] * 0x1p-32f;
        float r = sqrtf(-2 * logarithm(u));
        a[i] = r * cos_turns(t);
        b[i] = r * sin_turns(t);
    }
}

void fst__normals(fst_rng *r, float *out, size_t n)
{
    uint32_t w[2 * BLOCK];
    float pair[2 * BLOCK];
    r->used = 4; /* blocks of the stream are whole */
    for (size_t i = 0; i < n; i += sizeof pair / sizeof *pair) {
        size_t left = n - i < sizeof pair / sizeof *pair ? n - i : sizeof pair / sizeof *pair;
        fst_rng_fill(r, w, 2 * BLOCK);
        pairs(w, pair, pair + BLOCK, BLOCK);
        memcpy(out + i, pair, left * sizeof *out);
    }
}

FST__CLONES void fst__phasors(const float *turns, float *c, float *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float t = fraction(turns[i]);
        c[i] = cos_turns(t);
        s[i] = sin_turns(t);
    }
}

/* Blocks of outputs stay in registers or the first cache while the taps go by. */
FST__CLONES void fst__filter(const float *xr, const float *xi, float *yr, float *yi, size_t n,
                             const float h[FST__TAPS][2])
{
    for (size_t from = 0; from < n; from += BLOCK) {
        size_t len = n - from < BLOCK ? n - from : BLOCK;
        float ar[BLOCK] = {0}, ai[BLOCK] = {0};
        for (int k = 0; k < FST__TAPS; k++) {
            const float *pr = xr + from + FST__LEAD - k, *pi = xi + from + FST__LEAD - k, hr = h[k][0], hi = h[k][1];
            for (size_t i = 0; i < len; i++) {
                ar[i] += hr * pr[i] - hi * pi[i];
                ai[i] += hr * pi[i] + hi * pr[i];
            }
        }
        memcpy(yr + from, ar, len * sizeof *yr);
        memcpy(yi + from, ai, len * sizeof *yi);
    }
}

double fst__power(const float *re, const float *im, size_t n)
{
    double sum[4] = {0};
    for (size_t i = 0; i < n; i++)
        sum[i % 4] += (double)re[i] * (double)re[i] + (double)im[i] * (double)im[i];
    return ((sum[0] + sum[1]) + (sum[2] + sum[3])) / (double)n;
}

/* The Fourier transform of signals of a power of two's length. The turns of each stage stand in a row, so that the
 * inner loop runs over neighbours and becomes vector code. */
#include <math.h>

#include "fedstill/base.h"

/* Stage `half` has its cosines from turns[2 * half], its sines after them. */
void fst_fft_twiddles(float *turns, size_t n)
{
    const double turn = 6.283185307179586476925287;
    turns[0] = turns[1] = 0;
    for (size_t half = 1; half < n; half *= 2)
        for (size_t k = 0; k < half; k++) {
            double angle = -turn * (double)k / (double)(2 * half);
            turns[2 * half + k] = (float)cos(angle);
            turns[3 * half + k] = (float)sin(angle);
        }
}

static void swap(float *v, size_t a, size_t b)
{
    float x = v[a];
    v[a] = v[b];
    v[b] = x;
}

static void reverse_bits(float *re, float *im, size_t n)
{
    for (size_t i = 1, j = 0; i < n; i++) {
        size_t bit = n >> 1;
        for (; j & bit; bit >>= 1)
            j ^= bit;
        j ^= bit;
        if (i < j) {
            swap(re, i, j);
            swap(im, i, j);
        }
    }
}

/* Joins two transforms of length `half`, at re, im and at re + half, im + half. */
static void join(const float *restrict c, const float *restrict s, size_t half, float *restrict re, float *restrict im)
{
    for (size_t k = 0; k < half; k++) {
        float x = re[half + k] * c[k] - im[half + k] * s[k], y = re[half + k] * s[k] + im[half + k] * c[k];
        re[half + k] = re[k] - x;
        im[half + k] = im[k] - y;
        re[k] += x;
        im[k] += y;
    }
}

void fst_fft(const float *turns, size_t n, float *re, float *im)
{
    reverse_bits(re, im, n);
    for (size_t half = 1; half < n; half *= 2)
        for (size_t from = 0; from < n; from += 2 * half)
            join(turns + 2 * half, turns + 3 * half, half, re + from, im + from);
}

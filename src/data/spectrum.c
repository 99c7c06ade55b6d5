/*
 * The spectrum of a window of complex samples, as networks like it: Hann window, discrete Fourier transform, zero
 * frequency in the middle, magnitudes compressed by asinh and phases kept. In place on the float32 of one sample; no
 * other lengths than powers of two.
 */
#include <math.h>

#include "transform.h"

enum { MAX_LENGTH = 1 << 16 };

fst_status fst__spectrum_check(const fst_transform *t, const fst_source *s, fst_error *err)
{
    char text[256];
    int64_t n = s->shape.rank == 2 ? s->shape.dim[1] : 0;
    if (!(t->spectrum > 0) || !isfinite(t->spectrum))
        return fst_fail(err, FST_E_CONFIG, "spectrum: the scale %g must be above 0", t->spectrum);
    if (s->dtype != FST_F32 || n < 2 || s->shape.dim[0] != 2 || n > MAX_LENGTH || n & (n - 1))
        return fst_fail(err, FST_E_CONFIG,
                        "%s: a spectrum is taken of float samples (2, L), L a power of two up to %d, not of %s",
                        s->name, MAX_LENGTH, fst_shape_text(&s->shape, text, sizeof text));
    return FST_OK;
}

/* window[n]: Hann of mean square 1 over sqrt(n), the sign alternating, which moves zero frequency to the middle; behind
 * it cosines and sines of the n/2 turns. */
void fst__spectrum_fill(float *table, size_t n)
{
    const double turn = 6.283185307179586476925287;
    for (size_t i = 0; i < n; i++) {
        double hann = sqrt(2.0 / 3.0) * (1 - cos(turn * (double)i / (double)n));
        table[i] = (float)((i & 1 ? -hann : hann) / sqrt((double)n));
    }
    for (size_t i = 0; i < n / 2; i++) {
        table[n + i] = (float)cos(turn * (double)i / (double)n);
        table[n + n / 2 + i] = (float)-sin(turn * (double)i / (double)n);
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

/* Cooley and Tukey 1965, radix 2, decimation in time. */
static void transform(float *re, float *im, const float *cosines, const float *sines, size_t n)
{
    reverse_bits(re, im, n);
    for (size_t half = 1; half < n; half *= 2) {
        size_t stride = n / (2 * half);
        for (size_t from = 0; from < n; from += 2 * half)
            for (size_t k = 0; k < half; k++) {
                size_t a = from + k, b = a + half;
                float c = cosines[k * stride], s = sines[k * stride];
                float x = re[b] * c - im[b] * s, y = re[b] * s + im[b] * c;
                re[b] = re[a] - x;
                im[b] = im[a] - y;
                re[a] += x;
                im[a] += y;
            }
    }
}

void fst__spectrum_apply(const float *table, double scale, size_t n, const float *raw, float *dst)
{
    float *re = dst, *im = dst + n, inverse = (float)(1 / scale);
    for (size_t i = 0; i < n; i++) {
        re[i] = raw[i] * table[i];
        im[i] = raw[n + i] * table[i];
    }
    transform(re, im, table + n, table + n + n / 2, n);
    for (size_t i = 0; i < n; i++) {
        float size = sqrtf(re[i] * re[i] + im[i] * im[i]);
        float gain = size > 0 ? asinhf(size * inverse) / size : inverse;
        re[i] *= gain;
        im[i] *= gain;
    }
}

/*
 * The radio frequency fingerprint of a window of complex samples: what a transmitter's faults leave in it, by
 * statistics that no carrier phase and no gain can change. fedstill/data.h says what stands where; docs/signals.md why.
 */
#include <math.h>
#include <string.h>

#include "transform.h"

enum { MIN_LENGTH = 64, MAX_LENGTH = 4096, BINS = 4, ZOOM = 32 };

/* Work of one sample: y scaled to mean power 1, |y|^2, and what is being transformed. */
struct work {
    size_t n;
    const float *hann, *turns;
    float re[MAX_LENGTH], im[MAX_LENGTH], power[MAX_LENGTH];
    float a[MAX_LENGTH], b[MAX_LENGTH];
};

fst_status fst__fingerprint_check(const fst_source *s, fst_error *err)
{
    char text[256];
    int64_t n = s->shape.rank == 2 ? s->shape.dim[1] : 0;
    if (s->dtype != FST_F32 || n < MIN_LENGTH || s->shape.dim[0] != 2 || n > MAX_LENGTH || n & (n - 1))
        return fst_fail(err, FST_E_CONFIG,
                        "%s: a fingerprint is taken of float samples (2, L), L a power of two from %d to %d, not of %s",
                        s->name, MIN_LENGTH, MAX_LENGTH, fst_shape_text(&s->shape, text, sizeof text));
    return FST_OK;
}

/* The mean amplitude of each run of BINS of n sorted amplitudes, were they Rayleigh distributed with mean square 1. */
static void rayleigh(float *to, size_t n)
{
    for (size_t i = 0; i < n / BINS; i++) {
        double sum = 0;
        for (size_t k = i * BINS; k < (i + 1) * BINS; k++)
            sum += sqrt(-log(1 - ((double)k + 0.5) / (double)n));
        to[i] = (float)(sum / BINS);
    }
}

/* n floats of a Hann window of mean square 1 over sqrt(n), the sign alternating, which moves zero frequency to the
 * middle; 2n turns; n / BINS amplitudes of Rayleigh's. */
size_t fst__fingerprint_table(size_t n)
{
    return 3 * n + n / BINS;
}

void fst__fingerprint_fill(float *table, size_t n)
{
    const double turn = 6.283185307179586476925287;
    for (size_t i = 0; i < n; i++) {
        double hann = sqrt(2.0 / 3.0) * (1 - cos(turn * (double)i / (double)n));
        table[i] = (float)((i & 1 ? -hann : hann) / sqrt((double)n));
    }
    fst_fft_twiddles(table + n, n);
    rayleigh(table + 3 * n, n);
}

static void scale_to_power_one(struct work *w, const float *raw)
{
    double sum = 0;
    for (size_t i = 0; i < w->n; i++)
        sum += (double)raw[i] * (double)raw[i] + (double)raw[w->n + i] * (double)raw[w->n + i];
    float gain = sum > 0 ? (float)sqrt((double)w->n / sum) : 0;
    for (size_t i = 0; i < w->n; i++) {
        w->re[i] = raw[i] * gain;
        w->im[i] = raw[w->n + i] * gain;
        w->power[i] = w->re[i] * w->re[i] + w->im[i] * w->im[i];
    }
}

/* a + ib: the transform of y |y|^(2 order), or with `square` of y^2 |y|^(2 order). */
static void transform_of(struct work *w, bool square, int order)
{
    for (size_t i = 0; i < w->n; i++) {
        float re = w->re[i], im = w->im[i], gain = w->hann[i];
        for (int k = 0; k < order; k++)
            gain *= w->power[i];
        w->a[i] = gain * (square ? re * re - im * im : re);
        w->b[i] = gain * (square ? 2 * re * im : im);
    }
    fst_fft(w->turns, w->n, w->a, w->b);
}

static void transform_of_envelope(struct work *w)
{
    for (size_t i = 0; i < w->n; i++) {
        w->a[i] = w->hann[i] * (w->power[i] - 1);
        w->b[i] = 0;
    }
    fst_fft(w->turns, w->n, w->a, w->b);
}

/* Powers from 0 to 1 lie between -2.75 and 0.25: networks like numbers of that size. */
static float level(float power)
{
    return 0.5f * log10f(power + 1e-6f) + 0.25f;
}

/* n / BINS levels of the mean power of BINS neighbours. */
static void levels(const struct work *w, float *to)
{
    for (size_t i = 0; i < w->n / BINS; i++) {
        float sum = 0;
        for (size_t k = i * BINS; k < (i + 1) * BINS; k++)
            sum += w->a[k] * w->a[k] + w->b[k] * w->b[k];
        to[i] = level(sum / BINS);
    }
}

/* Rows of n / ZOOM values, each twice: the levels of y and of y^2 around zero frequency, then real and imaginary part
 * of Y(f)^2 conj(Y2(2f)), the phase between carrier leak and image whatever the carrier's own is; its size to the power
 * of one third. re, im: the transform of y there; that of y^2 is in w->a, w->b. */
static void zoom(const struct work *w, const float *re, const float *im, float *to)
{
    size_t row = w->n / ZOOM, middle = w->n / 2;
    for (size_t i = 0; i < row; i++) {
        size_t f = middle + i - row / 2, f2 = middle + 2 * i - row;
        float x = re[i] * re[i] - im[i] * im[i], y = 2 * re[i] * im[i];
        float p = x * w->a[f2] + y * w->b[f2], q = y * w->a[f2] - x * w->b[f2];
        float size = cbrtf(sqrtf(p * p + q * q));
        float gain = size > 0 ? 50 / sqrtf((float)w->n) / (size * size) : 0;
        to[i] = level(re[i] * re[i] + im[i] * im[i]);
        to[2 * row + i] = level(w->a[f] * w->a[f] + w->b[f] * w->b[f]);
        to[4 * row + i] = gain * p;
        to[6 * row + i] = gain * q;
    }
    for (size_t k = 0; k < 8; k += 2)
        memcpy(to + (k + 1) * row, to + k * row, row * sizeof *to);
}

/* Positive floats sort as their bits do: three rounds by 11 bits each. */
static void sort(uint32_t *v, uint32_t *other, size_t n)
{
    for (int shift = 0; shift < 33; shift += 11) {
        uint32_t at[2048] = {0};
        for (size_t i = 0; i < n; i++)
            at[v[i] >> shift & 2047]++;
        for (uint32_t k = 0, sum = 0; k < 2048; k++) {
            uint32_t count = at[k];
            at[k] = sum;
            sum += count;
        }
        for (size_t i = 0; i < n; i++)
            other[at[v[i] >> shift & 2047]++] = v[i];
        uint32_t *t = v;
        v = other;
        other = t;
    }
}

/* n / BINS: how far the sorted amplitudes lie from Rayleigh's. */
static void amplitudes(struct work *w, const float *expected, float *to)
{
    uint32_t bits[MAX_LENGTH], other[MAX_LENGTH];
    memcpy(bits, w->power, w->n * sizeof *bits);
    sort(bits, other, w->n); /* an odd number of rounds: the result is in `other` */
    memcpy(w->a, other, w->n * sizeof *other);
    for (size_t i = 0; i < w->n / BINS; i++) {
        float sum = 0;
        for (size_t k = i * BINS; k < (i + 1) * BINS; k++)
            sum += sqrtf(w->a[k]);
        to[i] = 10 * (sum / BINS - expected[i]);
    }
}

void fst__fingerprint_apply(const float *table, size_t n, const float *raw, float *dst)
{
    struct work w;
    float re[MAX_LENGTH / ZOOM], im[MAX_LENGTH / ZOOM];
    size_t block = n / BINS, row = n / ZOOM, low = n / 2 - row / 2;
    w.n = n;
    w.hann = table;
    w.turns = table + n;
    scale_to_power_one(&w, raw);
    transform_of(&w, false, 0);
    levels(&w, dst);
    memcpy(re, w.a + low, row * sizeof *re);
    memcpy(im, w.b + low, row * sizeof *im);
    transform_of(&w, false, 1);
    levels(&w, dst + block);
    transform_of(&w, false, 2);
    levels(&w, dst + 2 * block);
    transform_of(&w, true, 0);
    levels(&w, dst + 3 * block);
    zoom(&w, re, im, dst + 6 * block);
    transform_of(&w, true, 1);
    levels(&w, dst + 4 * block);
    transform_of_envelope(&w);
    levels(&w, dst + 5 * block);
    amplitudes(&w, table + 3 * n, dst + 7 * block);
}

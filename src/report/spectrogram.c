/* Short-time spectra as pictures: a radix-2 FFT, Hann windows, decibels, viridis. For looking at windows of some
 * thousand samples; no library of transforms. */
#include <math.h>
#include <string.h>

#include "surface.h"

#define TAU 6.283185307179586
#define RANGE_DB 60.0

/* Ten of viridis' 256 colours, evenly spaced (Smith and van der Walt, matplotlib; CC0); between them it is all but
 * linear. */
static const unsigned char viridis[10][3] = {
    {0x44, 0x01, 0x54}, {0x48, 0x28, 0x78}, {0x3E, 0x4A, 0x89}, {0x31, 0x68, 0x8E}, {0x26, 0x82, 0x8E},
    {0x1F, 0x9E, 0x89}, {0x35, 0xB7, 0x79}, {0x6D, 0xCD, 0x59}, {0xB4, 0xDE, 0x2C}, {0xFD, 0xE7, 0x25},
};

fst__colour fst__viridis(double x)
{
    double at = x > 0 ? (x < 1 ? x : 1) * 9 : 0;
    int i = at >= 9 ? 8 : (int)at;
    double f = at - i;
    unsigned char c[3];
    for (int k = 0; k < 3; k++)
        c[k] = (unsigned char)lround(viridis[i][k] * (1 - f) + viridis[i + 1][k] * f);
    return (fst__colour){c[0], c[1], c[2]};
}

static void reverse_bits(double *re, double *im, size_t n)
{
    for (size_t i = 1, j = 0; i < n; i++) {
        size_t bit = n >> 1;
        for (; j & bit; bit >>= 1)
            j ^= bit;
        j ^= bit;
        if (i < j) {
            double r = re[i], m = im[i];
            re[i] = re[j], im[i] = im[j];
            re[j] = r, im[j] = m;
        }
    }
}

void fst__fft(double *re, double *im, size_t n)
{
    reverse_bits(re, im, n);
    for (size_t half = 1; half < n; half *= 2) {
        for (size_t k = 0; k < half; k++) {
            double angle = -TAU * (double)k / (double)(2 * half), c = cos(angle), s = sin(angle);
            for (size_t i = k; i < n; i += 2 * half) {
                size_t j = i + half;
                double r = re[j] * c - im[j] * s, m = re[j] * s + im[j] * c;
                re[j] = re[i] - r, im[j] = im[i] - m;
                re[i] += r, im[i] += m;
            }
        }
    }
}

static double sound(float x)
{
    return isfinite(x) ? (double)x : 0;
}

/* One column: power of the windowed piece that begins at `from`, lowest frequency first. */
static void spectrum(const float *re, const float *im, size_t n, size_t from, size_t size, double *work, double *power)
{
    double *a = work, *b = work + size;
    for (size_t i = 0; i < size; i++) {
        double w = 0.5 - 0.5 * cos(TAU * ((double)i + 0.5) / (double)size);
        a[i] = from + i < n ? w * sound(re[from + i]) : 0;
        b[i] = from + i < n && im ? w * sound(im[from + i]) : 0;
    }
    fst__fft(a, b, size);
    for (size_t i = 0; i < size; i++) {
        size_t k = (i + size / 2) % size;
        power[i] = a[k] * a[k] + b[k] * b[k];
    }
}

static void paint(const double *power, size_t columns, size_t size, fst__image *out)
{
    double most = 0;
    for (size_t i = 0; i < columns * size; i++)
        most = power[i] > most ? power[i] : most;
    for (size_t x = 0; x < columns; x++)
        for (size_t y = 0; y < size; y++) {
            double p = power[x * size + y], db = most > 0 && p > 0 ? 10 * log10(p / most) : -INFINITY;
            fst__colour c = fst__viridis(1 + db / RANGE_DB);
            memcpy(out->rgb + 3 * ((size - 1 - y) * columns + x), &c, 3);
        }
}

fst_status fst__spectrogram(const float *re, const float *im, size_t n, fst__image *out, fst_error *err)
{
    fst__image m = {0};
    size_t size = 16;
    while (size < 128 && size * size < 8 * n) /* about twice as many columns as rows */
        size *= 2;
    size_t columns = n > size ? (n - size) / (size / 8) + 1 : 1;
    size_t step = size / 8;
    if (columns > 512) {
        columns = 512;
        step = (n - size) / 511;
    }
    double *power = fst_alloc(columns * size * sizeof *power), *work = fst_alloc(2 * size * sizeof *work);
    fst_status st =
        power && work ? fst__image_init(&m, columns, size, err) : fst_fail_memory(err, columns * size * sizeof *power);
    for (size_t i = 0; !st && i < columns; i++)
        spectrum(re, im, n, i * step, size, work, power + i * size);
    if (!st) {
        paint(power, columns, size, &m);
        *out = m;
    }
    fst_free(power);
    fst_free(work);
    return st;
}

/* Short-time spectra as pictures: Hann windows, decibels, viridis. */
#include <float.h>
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

static float sound(float x)
{
    return isfinite(x) ? x : 0;
}

/* The samples, how many, and 1 over the largest of them, so that none overflows. */
struct signal {
    const float *re, *im;
    size_t n;
    float scale;
};

static float scale_of(const float *re, const float *im, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++) {
        float a = fabsf(sound(re[i])), b = im ? fabsf(sound(im[i])) : 0;
        most = fmaxf(most, fmaxf(a, b));
    }
    return most > FLT_MIN ? 1 / most : 1;
}

/* One column: power of the windowed piece that begins at `from`, lowest frequency first. `work` has 4 * size floats,
 * the last half of them turns. */
static void spectrum(const struct signal *x, size_t from, size_t size, float *work, double *power)
{
    float *a = work, *b = work + size;
    for (size_t i = 0; i < size; i++) {
        float w = x->scale * (float)(0.5 - 0.5 * cos(TAU * ((double)i + 0.5) / (double)size));
        a[i] = from + i < x->n ? w * sound(x->re[from + i]) : 0;
        b[i] = from + i < x->n && x->im ? w * sound(x->im[from + i]) : 0;
    }
    fst_fft(work + 2 * size, size, a, b);
    for (size_t i = 0; i < size; i++) {
        size_t k = (i + size / 2) % size;
        power[i] = (double)a[k] * (double)a[k] + (double)b[k] * (double)b[k];
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
    double *power = fst_alloc(columns * size * sizeof *power);
    float *work = fst_alloc(4 * size * sizeof *work);
    fst_status st =
        power && work ? fst__image_init(&m, columns, size, err) : fst_fail_memory(err, columns * size * sizeof *power);
    if (!st) {
        const struct signal x = {re, im, n, scale_of(re, im, n)};
        fst_fft_twiddles(work + 2 * size, size);
        for (size_t i = 0; i < columns; i++)
            spectrum(&x, i * step, size, work, power + i * size);
        paint(power, columns, size, &m);
        *out = m;
    }
    fst_free(power);
    fst_free(work);
    return st;
}

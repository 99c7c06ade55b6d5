/* The fingerprint transform against its definition in fedstill/data.h, by a plain DFT in double; what it must not see
 * (gain, carrier phase); and what it refuses. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fedstill/data.h"

enum { LENGTH = 256, BLOCK = LENGTH / 4, ROW = LENGTH / 32, COUNT = 3 };
#define TURN 6.283185307179586476925287

typedef struct {
    double re, im;
} complex_number;

/* A tone, a carrier leak, an image and noise. */
static void make(float *x, size_t count)
{
    fst_rng r;
    fst_rng_init(&r, 5, "test.fingerprint", 0);
    for (size_t s = 0; s < count; s++, x += (ptrdiff_t)2 * LENGTH)
        for (size_t i = 0; i < LENGTH; i++) {
            double at = TURN * 0.17 * (double)i;
            x[i] = (float)(1.1 * cos(at) + 0.05 + 0.2 * fst_rng_normal(&r));
            x[LENGTH + i] = (float)(0.9 * sin(at) - 0.02 + 0.2 * fst_rng_normal(&r));
        }
}

static void scaled(const float *x, complex_number *y)
{
    double power = 0;
    for (int i = 0; i < 2 * LENGTH; i++)
        power += (double)x[i] * (double)x[i] / LENGTH;
    for (int i = 0; i < LENGTH; i++)
        y[i] = (complex_number){(double)x[i] / sqrt(power), (double)x[LENGTH + i] / sqrt(power)};
}

/* V at frequency f - LENGTH / 2 of statistic `kind`: blocks 0 ... 5. */
static complex_number dft(const complex_number *y, int kind, int f)
{
    complex_number v = {0, 0};
    for (int i = 0; i < LENGTH; i++) {
        double p = y[i].re * y[i].re + y[i].im * y[i].im, re = y[i].re, im = y[i].im;
        double hann = sqrt(8.0 / 3.0) * pow(sin(TURN / 2 * i / LENGTH), 2) / sqrt(LENGTH);
        if (kind == 3 || kind == 4)
            re = y[i].re * y[i].re - y[i].im * y[i].im, im = 2 * y[i].re * y[i].im;
        double gain = hann * (kind == 1 || kind == 4 ? p : kind == 2 ? p * p : 1);
        if (kind == 5)
            re = p - 1, im = 0;
        double angle = -TURN * (f - LENGTH / 2) * i / LENGTH, c = cos(angle), s = sin(angle);
        v.re += gain * (re * c - im * s);
        v.im += gain * (re * s + im * c);
    }
    return v;
}

static double level(double power)
{
    return 0.5 * log10(power + 1e-6) + 0.25;
}

static double power_of(complex_number v)
{
    return v.re * v.re + v.im * v.im;
}

static void close_to(float got, double want, int block, int i)
{
    if (fabs((double)got - want) > 2e-3)
        fail_msg("block %d, %d: %g, not %g", block, i, (double)got, want);
}

static void check_levels(const float *got, const complex_number *y)
{
    for (int kind = 0; kind < 6; kind++)
        for (int i = 0; i < BLOCK; i++) {
            double sum = 0;
            for (int k = 0; k < 4; k++)
                sum += power_of(dft(y, kind, 4 * i + k)) / 4;
            close_to(got[kind * BLOCK + i], level(sum), kind, i);
        }
}

static void check_zoom(const float *got, const complex_number *y)
{
    for (int i = 0; i < ROW; i++) {
        int f = i - ROW / 2;
        complex_number a = dft(y, 0, LENGTH / 2 + f), b = dft(y, 3, LENGTH / 2 + f), d = dft(y, 3, LENGTH / 2 + 2 * f);
        double phase = 2 * atan2(a.im, a.re) - atan2(d.im, d.re);
        double size = 50 / sqrt(LENGTH) * cbrt(power_of(a) * sqrt(power_of(d)));
        const double want[4] = {level(power_of(a)), level(power_of(b)), size * cos(phase), size * sin(phase)};
        for (int k = 0; k < 4; k++)
            for (int twice = 0; twice < 2; twice++)
                close_to(got[6 * BLOCK + (2 * k + twice) * ROW + i], want[k], 6, (2 * k + twice) * ROW + i);
    }
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void check_amplitudes(const float *got, const complex_number *y)
{
    double v[LENGTH];
    for (int i = 0; i < LENGTH; i++)
        v[i] = sqrt(power_of(y[i]));
    qsort(v, LENGTH, sizeof *v, rising);
    for (int i = 0; i < BLOCK; i++) {
        double sum = 0;
        for (int k = 4 * i; k < 4 * i + 4; k++)
            sum += v[k] - sqrt(-log(1 - (k + 0.5) / LENGTH));
        close_to(got[7 * BLOCK + i], 10 * sum / 4, 7, i);
    }
}

/* The loader's output for `count` samples of LENGTH, copied. */
static void load(const float *x, size_t count, const fst_transform *t, float *out)
{
    const int32_t labels[COUNT] = {0, 1, 0};
    fst_shape shape = FST_SHAPE(2, LENGTH);
    fst_source *source = NULL;
    fst_loader *loader = NULL;
    fst_batch batch;
    fst_error err = {0};
    assert_int_equal(fst_source_from_memory(&source, "made", FST_F32, &shape, count, x, labels, 2, &err), FST_OK);
    fst_loader_spec spec = {.source = source, .batch_size = COUNT, .transform = *t};
    assert_int_equal(fst_loader_new(&loader, &spec, &err), FST_OK);
    assert_int_equal(fst_loader_start(loader, 0, 0, &err), FST_OK);
    assert_int_equal(fst_loader_next(loader, &batch, &err), FST_OK);
    assert_int_equal(batch.rows, count);
    memcpy(out, batch.x, count * 2 * LENGTH * sizeof *out);
    fst_loader_free(loader);
    fst_source_close(source);
}

static void follows_its_definition(void **state)
{
    static float x[COUNT * 2 * LENGTH], got[COUNT * 2 * LENGTH];
    static complex_number y[LENGTH];
    (void)state;
    make(x, COUNT);
    load(x, COUNT, &(fst_transform){.fingerprint = true}, got);
    for (int s = 0; s < COUNT; s++) {
        const float *g = got + s * 2 * LENGTH;
        scaled(x + s * 2 * LENGTH, y);
        check_levels(g, y);
        check_zoom(g, y);
        check_amplitudes(g, y);
    }
}

static void gain_and_carrier_phase_do_not_show(void **state)
{
    static float x[2 * LENGTH], turned[2 * LENGTH], a[2 * LENGTH], b[2 * LENGTH];
    (void)state;
    make(x, 1);
    for (int i = 0; i < LENGTH; i++) {
        turned[i] = (float)(37 * (cos(1.3) * (double)x[i] - sin(1.3) * (double)x[LENGTH + i]));
        turned[LENGTH + i] = (float)(37 * (sin(1.3) * (double)x[i] + cos(1.3) * (double)x[LENGTH + i]));
    }
    load(x, 1, &(fst_transform){.fingerprint = true}, a);
    load(turned, 1, &(fst_transform){.fingerprint = true}, b);
    for (int i = 0; i < 2 * LENGTH; i++)
        close_to(b[i], (double)a[i], i / BLOCK, i % BLOCK);
}

static void is_normalised_after_it(void **state)
{
    static float x[2 * LENGTH], a[2 * LENGTH], b[2 * LENGTH];
    (void)state;
    make(x, 1);
    load(x, 1, &(fst_transform){.fingerprint = true}, a);
    load(x, 1, &(fst_transform){.fingerprint = true, .channels = 1, .mean = {0.5f}, .std = {2.0f}}, b);
    for (int i = 0; i < 2 * LENGTH; i++)
        assert_true(b[i] == (a[i] - 0.5f) / 2.0f);
}

static void one_sample_at_a_time_is_the_same(void **state)
{
    static float x[2 * LENGTH], a[2 * LENGTH], b[2 * LENGTH];
    const fst_transform t = {.fingerprint = true, .channels = 1, .mean = {0.5f}, .std = {2.0f}};
    const int32_t label = 0;
    fst_shape shape = FST_SHAPE(2, LENGTH);
    fst_source *source = NULL;
    fst_transformer *transformer = NULL;
    fst_error err = {0};
    (void)state;
    make(x, 1);
    load(x, 1, &t, a);
    assert_int_equal(fst_source_from_memory(&source, "made", FST_F32, &shape, 1, x, &label, 1, &err), FST_OK);
    assert_int_equal(fst_transformer_new(&transformer, &t, source, &err), FST_OK);
    fst_transformer_apply(transformer, x, b);
    assert_memory_equal(a, b, sizeof a);
    fst_transformer_free(transformer);
    fst_source_close(source);
}

static void silence_is_finite(void **state)
{
    static float x[2 * LENGTH], got[2 * LENGTH];
    (void)state;
    load(x, 1, &(fst_transform){.fingerprint = true}, got);
    for (int i = 0; i < 2 * LENGTH; i++)
        assert_true(isfinite(got[i]));
}

static void refused(fst_shape shape, const char *says)
{
    static float x[2 * 8192];
    const int32_t label = 0;
    fst_source *source = NULL;
    fst_loader *loader = NULL;
    fst_error err = {0};
    assert_int_equal(fst_source_from_memory(&source, "odd", FST_F32, &shape, 1, x, &label, 1, &err), FST_OK);
    fst_loader_spec spec = {.source = source, .batch_size = 1, .transform = {.fingerprint = true}};
    assert_int_equal(fst_loader_new(&loader, &spec, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, says));
    assert_null(loader);
    fst_source_close(source);
}

static void what_has_no_fingerprint_is_refused(void **state)
{
    (void)state;
    refused(FST_SHAPE(2, 100), "a power of two");
    refused(FST_SHAPE(2, 32), "from 64 to 4096");
    refused(FST_SHAPE(2, 8192), "from 64 to 4096");
    refused(FST_SHAPE(1, 64), "(2, L)");
    refused(FST_SHAPE(2, 8, 8), "(2, L)");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_its_definition), cmocka_unit_test(gain_and_carrier_phase_do_not_show),
        cmocka_unit_test(is_normalised_after_it), cmocka_unit_test(one_sample_at_a_time_is_the_same),
        cmocka_unit_test(silence_is_finite),      cmocka_unit_test(what_has_no_fingerprint_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

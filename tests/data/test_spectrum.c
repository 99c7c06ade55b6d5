/* The spectrum transform against a plain DFT in double, and what it refuses. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "fedstill/data.h"

enum { LENGTH = 64, COUNT = 3 };
#define TURN 6.283185307179586476925287

static void make(float *x)
{
    fst_rng r;
    fst_rng_init(&r, 5, "test.spectrum", 0);
    for (size_t i = 0; i < (size_t)COUNT * 2 * LENGTH; i++)
        x[i] = (float)fst_rng_normal(&r);
}

/* Element `bin` (zero frequency at LENGTH/2) of the windowed DFT, magnitude compressed. */
static void expected(const float *x, int bin, double scale, double *re, double *im)
{
    double a = 0, b = 0;
    for (int n = 0; n < LENGTH; n++) {
        double hann = sqrt(8.0 / 3.0) * pow(sin(TURN / 2 * n / LENGTH), 2) / sqrt(LENGTH);
        double angle = -TURN * (bin - LENGTH / 2) * n / LENGTH, c = cos(angle), s = sin(angle);
        a += hann * ((double)x[n] * c - (double)x[LENGTH + n] * s);
        b += hann * ((double)x[n] * s + (double)x[LENGTH + n] * c);
    }
    double m = hypot(a, b), gain = asinh(m / scale) / m;
    *re = a * gain;
    *im = b * gain;
}

static void equals_a_plain_transform(void **state)
{
    static float x[COUNT * 2 * LENGTH];
    const int32_t labels[COUNT] = {0, 1, 0};
    fst_shape shape = FST_SHAPE(2, LENGTH);
    fst_source *source = NULL;
    fst_loader *loader = NULL;
    fst_batch batch;
    fst_error err = {0};
    (void)state;
    make(x);
    assert_int_equal(fst_source_from_memory(&source, "made", FST_F32, &shape, COUNT, x, labels, 2, &err), FST_OK);
    fst_loader_spec spec = {.source = source,
                            .batch_size = COUNT,
                            .transform = {.spectrum = 0.05, .channels = 1, .mean = {0.5f}, .std = {2.0f}}};
    assert_int_equal(fst_loader_new(&loader, &spec, &err), FST_OK);
    assert_int_equal(fst_loader_start(loader, 0, 0, &err), FST_OK);
    assert_int_equal(fst_loader_next(loader, &batch, &err), FST_OK);
    assert_int_equal(batch.rows, COUNT);
    for (int i = 0; i < COUNT; i++)
        for (int bin = 0; bin < LENGTH; bin++) {
            double re, im;
            expected(x + i * 2 * LENGTH, bin, 0.05, &re, &im);
            const float *got = batch.x + i * 2 * LENGTH;
            assert_true(fabs((double)got[bin] - (re - 0.5) / 2) < 2e-5);
            assert_true(fabs((double)got[LENGTH + bin] - (im - 0.5) / 2) < 2e-5);
        }
    fst_loader_free(loader);
    fst_source_close(source);
}

static void silence_stays_silence(void **state)
{
    static float x[2 * LENGTH];
    const int32_t label = 0;
    fst_shape shape = FST_SHAPE(2, LENGTH);
    fst_source *source = NULL;
    fst_loader *loader = NULL;
    fst_batch batch;
    fst_error err = {0};
    (void)state;
    assert_int_equal(fst_source_from_memory(&source, "silent", FST_F32, &shape, 1, x, &label, 1, &err), FST_OK);
    fst_loader_spec spec = {.source = source, .batch_size = 1, .transform = {.spectrum = 1}};
    assert_int_equal(fst_loader_new(&loader, &spec, &err), FST_OK);
    assert_int_equal(fst_loader_start(loader, 0, 0, &err), FST_OK);
    assert_int_equal(fst_loader_next(loader, &batch, &err), FST_OK);
    for (int i = 0; i < 2 * LENGTH; i++)
        assert_true(batch.x[i] == 0);
    fst_loader_free(loader);
    fst_source_close(source);
}

static void refused(fst_shape shape, double scale, const char *says)
{
    static float x[2 * 1024];
    const int32_t label = 0;
    fst_source *source = NULL;
    fst_loader *loader = NULL;
    fst_error err = {0};
    assert_int_equal(fst_source_from_memory(&source, "odd", FST_F32, &shape, 1, x, &label, 1, &err), FST_OK);
    fst_loader_spec spec = {.source = source, .batch_size = 1, .transform = {.spectrum = scale}};
    assert_int_equal(fst_loader_new(&loader, &spec, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, says));
    assert_null(loader);
    fst_source_close(source);
}

static void what_has_no_spectrum_is_refused(void **state)
{
    (void)state;
    refused(FST_SHAPE(2, 100), 1, "a power of two");
    refused(FST_SHAPE(1, 64), 1, "(2, L)");
    refused(FST_SHAPE(2, 8, 8), 1, "(2, L)");
    refused(FST_SHAPE(2, 64), -1, "above 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_a_plain_transform),
        cmocka_unit_test(silence_stays_silence),
        cmocka_unit_test(what_has_no_spectrum_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

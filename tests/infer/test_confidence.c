/* Confidences, calibration, ECE and AUROC against values computed by hand and against their definitions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "fedstill/infer.h"

static double of(fst_confidence_kind k, const float *z, int classes, double t)
{
    double c = -1;
    assert_int_equal(fst_confidence(k, z, 1, classes, t, &c, NULL), FST_OK);
    return c;
}

/* softmax of log 1, log 2, log 5 is 1/8, 2/8, 5/8 */
static void by_hand(void **state)
{
    (void)state;
    const float z[] = {0, (float)log(2), (float)log(5)};
    double h = -(0.125 * log(0.125) + 0.25 * log(0.25) + 0.625 * log(0.625));
    assert_true(fabs(of(FST_CONFIDENCE_MAX, z, 3, 1) - 0.625) < 1e-7);
    assert_true(fabs(of(FST_CONFIDENCE_MARGIN, z, 3, 1) - 0.375) < 1e-7);
    assert_true(fabs(of(FST_CONFIDENCE_ENTROPY, z, 3, 1) - (1 - h / log(3))) < 1e-7);
    /* s = log 8 */
    assert_true(fabs(of(FST_CONFIDENCE_ENERGY, z, 3, 1) - 0.5 * (1 + log(8) / (1 + log(8)))) < 1e-7);
    /* at T = 1/2: 1, 4, 25 of 30 */
    assert_true(fabs(of(FST_CONFIDENCE_MAX, z, 3, 0.5) - 25.0 / 30) < 1e-6);
    assert_true(fabs(of(FST_CONFIDENCE_MARGIN, z, 3, 0.5) - 21.0 / 30) < 1e-6);
}

static void limits(void **state)
{
    (void)state;
    const float even[] = {3, 3, 3, 3}, steep[] = {-1e30f, 1e30f, 0}, one[] = {-7}, bad[] = {1, NAN};
    double c = 5;
    assert_true(of(FST_CONFIDENCE_MAX, even, 4, 1) == 0.25);
    assert_true(of(FST_CONFIDENCE_MARGIN, even, 4, 1) == 0);
    assert_true(of(FST_CONFIDENCE_ENTROPY, even, 4, 1) < 1e-12);
    for (fst_confidence_kind k = FST_CONFIDENCE_MAX; k <= FST_CONFIDENCE_ENTROPY; k++) {
        assert_true(of(k, steep, 3, 1) == 1);
        assert_true(of(k, one, 1, 1) == 1);
    }
    assert_true(of(FST_CONFIDENCE_ENERGY, even, 4, 1) < of(FST_CONFIDENCE_ENERGY, steep, 3, 1));
    /* s = -7 */
    assert_true(of(FST_CONFIDENCE_ENERGY, one, 1, 1) == 0.5 * (1 - 7.0 / 8));
    assert_int_equal(fst_confidence(FST_CONFIDENCE_MAX, bad, 1, 2, 1, &c, NULL), FST_E_NUMERIC);
    assert_int_equal(fst_confidence(FST_CONFIDENCE_MAX, even, 1, 4, 0, &c, NULL), FST_E_ARGUMENT);
    assert_true(c == 5);
}

static void names(void **state)
{
    (void)state;
    fst_confidence_kind k;
    for (fst_confidence_kind i = FST_CONFIDENCE_MAX; i <= FST_CONFIDENCE_ENERGY; i++) {
        assert_true(fst_confidence_parse(fst_confidence_name(i), &k));
        assert_int_equal(k, i);
    }
    assert_false(fst_confidence_parse("maximum", &k));
}

static void first_of_equals(void **state)
{
    (void)state;
    const float z[] = {1, 2, 2, 0, 5, 4, 3, 5};
    int32_t answer[2];
    fst_predict(z, 2, 4, answer);
    assert_int_equal(answer[0], 1);
    assert_int_equal(answer[1], 0);
}

/* ---- calibration ------------------------------------------------------------------------------ */

/* Logits (2, 0), right in 3 of 4: the cross entropy is least where softmax gives 3/4, at T = 2/log 3. */
static void known_temperature(void **state)
{
    (void)state;
    const float z[] = {2, 0, 2, 0, 2, 0, 2, 0};
    const int32_t y[] = {0, 0, 1, 0};
    double p = 1 / (1 + exp(-2));
    fst_calibration c;
    assert_int_equal(fst_calibrate(&c, z, y, 4, 2, NULL), FST_OK);
    assert_true(fabs(c.temperature - 2 / log(3)) < 1e-9);
    assert_false(c.at_limit);
    assert_true(fabs(c.nll_after + 0.75 * log(0.75) + 0.25 * log(0.25)) < 1e-9);
    assert_true(fabs(c.nll_before + 0.75 * log(p) + 0.25 * log(1 - p)) < 1e-7);
    assert_true(fabs(c.ece_before - (p - 0.75)) < 1e-7);
    assert_true(c.ece_after < 1e-9);
    assert_int_equal(c.samples, 4);
}

/* Labels drawn from softmax(z/T): the temperature found is near T, and no other is better. */
static void drawn(void **state)
{
    (void)state;
    enum { ROWS = 4000, CLASSES = 5 };
    static float z[ROWS * CLASSES], scaled[ROWS * CLASSES];
    static int32_t y[ROWS];
    fst_rng r;
    fst_calibration c, other;
    fst_rng_init(&r, 3, "test.calibration", 0);
    for (int i = 0; i < ROWS; i++) {
        double e[CLASSES], sum = 0, u = fst_rng_uniform(&r);
        for (int j = 0; j < CLASSES; j++) {
            z[i * CLASSES + j] = (float)(3 * fst_rng_normal(&r));
            sum += e[j] = exp(z[i * CLASSES + j] / 2.5);
        }
        for (y[i] = 0; y[i] < CLASSES - 1 && u * sum > e[y[i]]; y[i]++)
            u -= e[y[i]] / sum;
    }
    assert_int_equal(fst_calibrate(&c, z, y, ROWS, CLASSES, NULL), FST_OK);
    assert_true(fabs(c.temperature - 2.5) < 0.15);
    assert_true(c.nll_after < c.nll_before);
    assert_true(c.ece_after < c.ece_before);
    for (int sign = -1; sign <= 1; sign += 2) {
        for (int i = 0; i < ROWS * CLASSES; i++)
            scaled[i] = (float)(z[i] / (c.temperature * (1 + 0.01 * sign)));
        assert_int_equal(fst_calibrate(&other, scaled, y, ROWS, CLASSES, NULL), FST_OK);
        assert_true(other.nll_before > c.nll_after);
        /* and scaling the logits scales the temperature */
        assert_true(fabs(other.temperature * (1 + 0.01 * sign) - 1) < 1e-6);
    }
}

static void calibration_limits(void **state)
{
    (void)state;
    const float z[] = {2, 0, 2, 0}, bad[] = {INFINITY, 0};
    const int32_t right[] = {0, 0}, wrong[] = {1, 1}, beyond[] = {0, 2};
    fst_calibration c;
    assert_int_equal(fst_calibrate(&c, z, right, 2, 2, NULL), FST_OK);
    assert_true(c.at_limit);
    assert_true(fabs(c.temperature - FST_TEMPERATURE_MIN) < 1e-12);
    assert_int_equal(fst_calibrate(&c, z, wrong, 2, 2, NULL), FST_OK);
    assert_true(c.at_limit);
    assert_true(fabs(c.temperature - FST_TEMPERATURE_MAX) < 1e-12);
    assert_int_equal(fst_calibrate(&c, z, right, 0, 2, NULL), FST_E_ARGUMENT);
    assert_int_equal(fst_calibrate(&c, z, beyond, 2, 2, NULL), FST_E_ARGUMENT);
    assert_int_equal(fst_calibrate(&c, bad, right, 1, 2, NULL), FST_E_NUMERIC);
}

/* ---- trust -------------------------------------------------------------------------------------- */

static void ece(void **state)
{
    (void)state;
    /* bins (13/15, 14/15]: 0.9 twice, one right: |1 - 1.8|; (8/15, 9/15]: 0.6 = 9/15 right: |1 - 0.6|; last: exact */
    const double c[] = {0.9, 0.9, 0.6, 1.0};
    const uint8_t right[] = {1, 0, 1, 1};
    assert_true(fabs(fst_ece(c, right, 4) - (0.8 + 0.4) / 4) < 1e-12);
    assert_true(isnan(fst_ece(c, right, 0)));
}

static void auroc(void **state)
{
    (void)state;
    /* right: 0.9 0.5 0.5; wrong: 0.5 0.1. Pairs: 0.9 wins 2; each 0.5 ties 1 and wins 1: (2 + 1.5 + 1.5)/6 */
    const double c[] = {0.5, 0.9, 0.1, 0.5, 0.5};
    const uint8_t right[] = {1, 1, 0, 0, 1}, all[] = {1, 1, 1, 1, 1}, none[5] = {0};
    double a;
    assert_int_equal(fst_auroc(c, right, 5, &a, NULL), FST_OK);
    assert_true(fabs(a - 5.0 / 6) < 1e-12);
    assert_int_equal(fst_auroc(c, all, 5, &a, NULL), FST_OK);
    assert_true(isnan(a));
    assert_int_equal(fst_auroc(c, none, 5, &a, NULL), FST_OK);
    assert_true(isnan(a));
    assert_int_equal(fst_auroc(c, right, 0, &a, NULL), FST_OK);
    assert_true(isnan(a));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),
        cmocka_unit_test(limits),
        cmocka_unit_test(names),
        cmocka_unit_test(first_of_equals),
        cmocka_unit_test(known_temperature),
        cmocka_unit_test(drawn),
        cmocka_unit_test(calibration_limits),
        cmocka_unit_test(ece),
        cmocka_unit_test(auroc),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

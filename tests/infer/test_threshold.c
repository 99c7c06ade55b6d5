/* Thresholds by target: ties, targets that cannot be met, and that the order of the samples does not matter. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>

#include "fedstill/infer.h"

enum { N = 10 };
/* two ties: of three samples at 0.3 and of two at 0.8 */
static const double confidence[N] = {0.9, 0.3, 0.8, 0.1, 0.3, 0.95, 0.8, 0.3, 0.6, 0.2};
static const uint8_t edge_right[N] = {1, 0, 1, 0, 1, 1, 0, 0, 1, 0};
static const uint8_t cloud_right[N] = {1, 1, 1, 0, 1, 1, 1, 1, 0, 1};

static double seconds_of(void *ctx, double threshold)
{
    double each = *(const double *)ctx, below = 0;
    for (int i = 0; i < N; i++)
        below += confidence[i] < threshold;
    return 1 + each * below;
}

static fst_threshold choose(fst_threshold_kind kind, double value)
{
    static double each = 0.5;
    fst_threshold_input in = {N, confidence, edge_right, cloud_right, seconds_of, &each};
    fst_threshold t;
    assert_int_equal(fst_threshold_choose(&t, kind, value, &in, NULL), FST_OK);
    return t;
}

static int below(double threshold)
{
    int n = 0;
    for (int i = 0; i < N; i++)
        n += confidence[i] < threshold;
    return n;
}

static void fixed(void **state)
{
    (void)state;
    fst_threshold_input nothing = {0};
    fst_threshold t = choose(FST_THRESHOLD_FIXED, 0.3);
    assert_true(t.value == 0.3 && t.met && t.gap == 0);
    assert_true(t.offload == 0.2); /* those at 0.3 stay */
    assert_true(isnan(t.target) && isnan(t.reached));
    assert_int_equal(fst_threshold_choose(&t, FST_THRESHOLD_FIXED, 0.7, &nothing, NULL), FST_OK);
    assert_true(t.value == 0.7 && isnan(t.offload));
}

static void offload(void **state)
{
    (void)state;
    const struct {
        double target;
        int sent;
        bool met;
    } cases[] = {{0, 0, true},   {0.1, 1, true}, {0.2, 2, true},  {0.25, 2, true}, {0.3, 2, false}, {0.49, 2, false},
                 {0.5, 5, true}, {0.6, 6, true}, {0.7, 6, false}, {0.8, 8, true},  {1, 10, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_threshold t = choose(FST_THRESHOLD_OFFLOAD, cases[i].target);
        assert_int_equal(below(t.value), cases[i].sent);
        assert_int_equal(t.met, cases[i].met);
        assert_true(t.offload == cases[i].sent / 10.0 && t.reached == t.offload);
        assert_true(fabs(t.gap - (t.met ? 0 : cases[i].target - t.offload)) < 1e-12);
    }
}

/* By hand, sent -> right: 0 5, 1 5, 2 6, 5 8, 6 7, 8 8, 9 8, 10 8 */
static void accuracy(void **state)
{
    (void)state;
    const struct {
        double target, reached;
        int sent;
        bool met;
    } cases[] = {{0.4, 0.5, 0, true}, {0.5, 0.5, 0, true}, {0.55, 0.6, 2, true},
                 {0.7, 0.8, 5, true}, {0.8, 0.8, 5, true}, {0.9, 0.8, 5, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_threshold t = choose(FST_THRESHOLD_ACCURACY, cases[i].target);
        assert_int_equal(below(t.value), cases[i].sent);
        assert_true(t.reached == cases[i].reached);
        assert_int_equal(t.met, cases[i].met);
        assert_true(fabs(t.gap - (t.met ? 0 : cases[i].target - t.reached)) < 1e-12);
    }
}

/* 1 s and half a second for each that is sent */
static void time_limit(void **state)
{
    (void)state;
    fst_threshold t = choose(FST_THRESHOLD_TIME, 3.4);
    assert_int_equal(below(t.value), 2); /* four would do, but three are tied */
    assert_true(t.met && t.reached == 2);
    t = choose(FST_THRESHOLD_TIME, 100);
    assert_int_equal(below(t.value), N);
    t = choose(FST_THRESHOLD_TIME, 0.75);
    assert_int_equal(below(t.value), 0);
    assert_false(t.met);
    assert_true(t.reached == 1 && t.gap == 0.25);
}

static void order_is_nothing(void **state)
{
    (void)state;
    double c[N];
    uint8_t e[N], k[N];
    fst_threshold_input in = {N, c, e, k, NULL, NULL};
    fst_threshold t;
    for (int i = 0; i < N; i++) {
        c[i] = confidence[(i * 7 + 3) % N];
        e[i] = edge_right[(i * 7 + 3) % N];
        k[i] = cloud_right[(i * 7 + 3) % N];
    }
    for (double target = 0; target <= 1; target += 0.05) {
        assert_int_equal(fst_threshold_choose(&t, FST_THRESHOLD_ACCURACY, target, &in, NULL), FST_OK);
        assert_true(t.value == choose(FST_THRESHOLD_ACCURACY, target).value);
        assert_int_equal(fst_threshold_choose(&t, FST_THRESHOLD_OFFLOAD, target, &in, NULL), FST_OK);
        assert_true(t.value == choose(FST_THRESHOLD_OFFLOAD, target).value);
    }
}

/* Certainties of exactly 1 can still be sent, all of them or none. */
static void certain(void **state)
{
    (void)state;
    const double ones[] = {1, 1, 1};
    const uint8_t wrong[] = {0, 0, 0}, right[] = {1, 1, 1};
    fst_threshold_input in = {3, ones, wrong, right, NULL, NULL};
    fst_threshold t;
    assert_int_equal(fst_threshold_choose(&t, FST_THRESHOLD_ACCURACY, 0.5, &in, NULL), FST_OK);
    assert_true(t.value > 1 && t.met && t.reached == 1);
    assert_int_equal(fst_threshold_choose(&t, FST_THRESHOLD_OFFLOAD, 0.9, &in, NULL), FST_OK);
    assert_true(t.value == 0 && !t.met && t.gap == 0.9);
}

static void refused(void **state)
{
    (void)state;
    const double bad[] = {0.5, NAN};
    fst_threshold t = {.value = 7};
    fst_error e;
    fst_threshold_input none = {0}, nan = {2, bad, edge_right, cloud_right, NULL, NULL};
    assert_int_equal(fst_threshold_choose(&t, FST_THRESHOLD_OFFLOAD, 0.5, &none, &e), FST_E_ARGUMENT);
    assert_int_equal(fst_threshold_choose(&t, FST_THRESHOLD_FIXED, NAN, &none, &e), FST_E_ARGUMENT);
    assert_int_equal(fst_threshold_choose(&t, FST_THRESHOLD_OFFLOAD, 0.5, &nan, &e), FST_E_NUMERIC);
    assert_int_equal(fst_threshold_choose(&t, FST_THRESHOLD_TIME, 0.5, &nan, &e), FST_E_ARGUMENT);
    nan.cloud_right = NULL;
    assert_int_equal(fst_threshold_choose(&t, FST_THRESHOLD_ACCURACY, 0.5, &nan, &e), FST_E_ARGUMENT);
    assert_true(t.value == 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fixed),      cmocka_unit_test(offload),          cmocka_unit_test(accuracy),
        cmocka_unit_test(time_limit), cmocka_unit_test(order_is_nothing), cmocka_unit_test(certain),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

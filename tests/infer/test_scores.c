/* Macro F1 and balanced accuracy against values worked out by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fedstill/infer.h"

static void test_values(void **state)
{
    (void)state;
    /* truth 0 0 0 0 1 1 2, answers 0 0 0 1 1 3 2: F1 6/7, 1/2, 1, 0; recall 3/4, 1/2, 1 */
    const int64_t samples[] = {4, 2, 1, 0, 0}, answers[] = {3, 2, 1, 1, 0}, right[] = {3, 1, 1, 0, 0};
    double f1, balanced;
    fst_macro_scores(samples, answers, right, 5, &f1, &balanced);
    assert_float_equal(f1, (6.0 / 7 + 0.5 + 1 + 0) / 4, 1e-15);
    assert_float_equal(balanced, (0.75 + 0.5 + 1) / 3, 1e-15);
    fst_macro_scores(samples, answers, right, 5, NULL, NULL);
}

static void test_rare_classes_count(void **state)
{
    (void)state;
    /* always the larger of two classes: accuracy 0.9 */
    const int64_t samples[] = {90, 10}, answers[] = {100, 0}, right[] = {90, 0};
    double f1, balanced;
    fst_macro_scores(samples, answers, right, 2, &f1, &balanced);
    assert_float_equal(f1, 180.0 / 190 / 2, 1e-15);
    assert_float_equal(balanced, 0.5, 1e-15);
}

static void test_nothing(void **state)
{
    (void)state;
    const int64_t none[] = {0, 0};
    double f1 = 0, balanced = 0;
    fst_macro_scores(none, none, none, 2, &f1, &balanced);
    assert_true(isnan(f1) && isnan(balanced));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_rare_classes_count),
        cmocka_unit_test(test_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

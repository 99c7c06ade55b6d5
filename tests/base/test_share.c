/* Shares are rounded as the decimal numbers that people write. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fedstill/base.h"

/* Each share p/1000 of n, in whole numbers: (p * n + 500) / 1000. */
static void shares_are_those_written(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 3000; n++)
        for (size_t p = 0; p <= 1000; p++)
            if (fst_share_of(n, (double)p / 1000) != (p * n + 500) / 1000)
                fail_msg("%zu/1000 of %zu is not %zu", p, n, fst_share_of(n, (double)p / 1000));
    assert_int_equal(fst_share_of(100, 0.29), 29);
    assert_int_equal(fst_share_of(100, 0.145), 15);
    assert_int_equal(fst_share_of(60000, 0.35), 21000);
    assert_int_equal(fst_share_of((size_t)1 << 40, 1), (size_t)1 << 40);
}

static void nonsense_is_nothing_or_all(void **state)
{
    (void)state;
    assert_int_equal(fst_share_of(10, -0.5), 0);
    assert_int_equal(fst_share_of(10, 0.0 / 0.0), 0);
    assert_int_equal(fst_share_of(10, 7), 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_those_written),
        cmocka_unit_test(nonsense_is_nothing_or_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

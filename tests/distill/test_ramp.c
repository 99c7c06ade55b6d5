/* Values that change over the epochs, against values computed by hand. */
#include "nn/support.h"

#include "fedstill/distill.h"

static void about(double value, double wanted)
{
    if (!(fabs(value - wanted) < 1e-12))
        fail_msg("%.17g, not %.17g", value, wanted);
}

static void linear_and_cosine_reach_both_ends(void **state)
{
    fst_ramp r = {.kind = FST_RAMP_LINEAR, .from = 8, .to = 2, .epochs = 4};
    (void)state;
    about(fst_ramp_at(&r, 0, NAN), 8);
    about(fst_ramp_at(&r, 1, NAN), 6);
    about(fst_ramp_at(&r, 3, NAN), 2);
    about(fst_ramp_at(&r, 100, NAN), 2);
    r.kind = FST_RAMP_COSINE;
    about(fst_ramp_at(&r, 0, NAN), 8);
    about(fst_ramp_at(&r, 1, NAN), 6.5); /* 8 - 6 (1 - cos 60 degrees)/2 */
    about(fst_ramp_at(&r, 2, NAN), 3.5);
    about(fst_ramp_at(&r, 3, NAN), 2);
    r.epochs = 1;
    about(fst_ramp_at(&r, 0, NAN), 2);
}

static void steps_are_equal_jumps(void **state)
{
    fst_ramp r = {.kind = FST_RAMP_STEP, .from = 0, .to = 0.9, .milestones = {2, 5, 9}, .milestone_count = 3};
    (void)state;
    about(fst_ramp_at(&r, 1, NAN), 0);
    about(fst_ramp_at(&r, 2, NAN), 0.3);
    about(fst_ramp_at(&r, 4, NAN), 0.3);
    about(fst_ramp_at(&r, 5, NAN), 0.6);
    about(fst_ramp_at(&r, 9, NAN), 0.9);
}

static void accuracy_leads(void **state)
{
    fst_ramp r = {.kind = FST_RAMP_ACCURACY, .from = 1, .to = 0.2, .low = 0.5, .high = 0.9};
    (void)state;
    about(fst_ramp_at(&r, 7, NAN), 1);
    about(fst_ramp_at(&r, 7, 0.3), 1);
    about(fst_ramp_at(&r, 7, 0.6), 0.8);
    about(fst_ramp_at(&r, 1, 0.7), 0.6);
    about(fst_ramp_at(&r, 1, 0.95), 0.2);
}

static void kinds_have_names(void **state)
{
    (void)state;
    assert_string_equal(fst_ramp_kind_name(FST_RAMP_LINEAR), "linear");
    assert_string_equal(fst_ramp_kind_name(FST_RAMP_ACCURACY), "accuracy");
    assert_string_equal(fst_ramp_kind_name((fst_ramp_kind)99), "?");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(linear_and_cosine_reach_both_ends),
        cmocka_unit_test(steps_are_equal_jumps),
        cmocka_unit_test(accuracy_leads),
        cmocka_unit_test(kinds_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

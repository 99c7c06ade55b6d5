/* A temperature that is learnt against the student: steps by hand, and where it leads. */
#include "nn/support.h"

#include "fedstill/distill.h"

static const fst_optim_spec sgd = {.kind = FST_OPTIM_SGD, .learning_rate = 0.1};

static void strength_grows_along_a_cosine(void **state)
{
    fst_curriculum c = {.epochs = 10};
    (void)state;
    assert_true(fabs(fst_curriculum_strength(&c, 0)) < 1e-12);
    assert_true(fabs(fst_curriculum_strength(&c, 5) - 0.5) < 1e-12);
    assert_true(fabs(fst_curriculum_strength(&c, 1) - 0.0244717418524232) < 1e-12); /* (1 - cos 18 degrees)/2 */
    assert_true(fabs(fst_curriculum_strength(&c, 10) - 1) < 1e-12 && fst_curriculum_strength(&c, 500) == 1);
    c.epochs = 0;
    assert_true(fst_curriculum_strength(&c, 0) == 1);
}

/* theta' = theta + rate strength grad range s(1 - s), with s = sigmoid(theta); it starts at 1. */
static void a_step_climbs_the_loss(void **state)
{
    fst_curriculum c;
    (void)state;
    assert_ok(fst_curriculum_init(&c, 1, 20, 10, &sgd, err));
    assert_true(fabs(fst_curriculum_temperature(&c) - 15.6211715726) < 1e-6); /* 1 + 20/(1 + 1/e) */
    fst_curriculum_step(&c, 0, 3, 0.1);                                       /* no strength yet */
    assert_true(c.theta == 1);
    fst_curriculum_step(&c, 5, 0.25, 0.1); /* 1 + 0.1 * 0.5 * 0.25 * 20 * 0.19661193324 */
    assert_true(fabs((double)c.theta - 1.0491529833) < 1e-6);
    double up = fst_curriculum_temperature(&c);
    fst_curriculum_step(&c, 50, -0.25, 0.1);
    assert_true(fst_curriculum_temperature(&c) < up);
    fst_curriculum_release(&c);
}

/* Whatever the slope says, the temperature stays between start and start + range. */
static void it_stays_in_its_range(void **state)
{
    fst_curriculum c;
    (void)state;
    for (int way = -1; way <= 1; way += 2) {
        assert_ok(fst_curriculum_init(&c, 2, 4, 0, &sgd, err));
        for (int i = 0; i < 1000; i++)
            fst_curriculum_step(&c, 1, way * 100, 1);
        double t = fst_curriculum_temperature(&c);
        assert_true(t >= 2 && t <= 6 && (way < 0 ? t < 2.5 : t > 5.5));
        fst_curriculum_release(&c);
    }
}

/* On a fixed student and teacher it finds the temperature at which they differ most: where the slope is zero. */
static void it_finds_the_hardest_temperature(void **state)
{
    const float z[4] = {2, 0, -1, 0.5f}, v[4] = {-1, 3, 0, 1};
    fst_loss l = {.kd_weight = 1, .soft_logits = true};
    fst_loss_input in = {.logits = z, .rows = 1, .classes = 4, .soft = v, .divisor = 1};
    fst_curriculum c;
    double slope, here, row, best = 0;
    float grad[4];
    (void)state;
    assert_ok(fst_curriculum_init(&c, 0.5, 9, 0, &sgd, err));
    for (int i = 0; i < 3000; i++) {
        l.temperature = fst_curriculum_temperature(&c);
        fst_loss_temperature_rows(&l, &in, &slope);
        fst_curriculum_step(&c, 0, slope, 0.05);
    }
    l.temperature = fst_curriculum_temperature(&c);
    fst_loss_rows(&l, &in, grad, &here, NULL, NULL);
    for (l.temperature = 0.55; l.temperature < 9.5; l.temperature += 0.05) {
        fst_loss_rows(&l, &in, grad, &row, NULL, NULL);
        best = row > best ? row : best;
    }
    assert_true(here > 0.999 * best);
    fst_curriculum_release(&c);
}

static void it_refuses_an_empty_range(void **state)
{
    fst_curriculum c;
    (void)state;
    assert_fails(fst_curriculum_init(&c, 0, 20, 10, &sgd, err), FST_E_CONFIG, "above 0");
    assert_fails(fst_curriculum_init(&c, 1, -1, 10, &sgd, err), FST_E_CONFIG, "above 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strength_grows_along_a_cosine), cmocka_unit_test(a_step_climbs_the_loss),
        cmocka_unit_test(it_stays_in_its_range),         cmocka_unit_test(it_finds_the_hardest_temperature),
        cmocka_unit_test(it_refuses_an_empty_range),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

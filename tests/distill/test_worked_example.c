/*
 * A worked example that is published with wrong numbers (1.51, 1.23 and 2.47, which no base of logarithm gives): five
 * samples of two classes, a student's and a teacher's probabilities, alpha 0.5, T 2. The right values, with natural
 * logarithms, are computed by hand from the definitions; here the losses that students are trained with must give them.
 */
#include "nn/support.h"

#include "fedstill/nn.h"

enum { ROWS = 5, CLASSES = 2 };

static const double student[ROWS] = {0.6, 0.4, 0.7, 0.3, 0.6}; /* of the first class */
static const double teacher[ROWS] = {0.8, 0.3, 0.9, 0.2, 0.7};
static const int32_t labels[ROWS] = {0, 1, 0, 1, 0};

/* log p: logits whose softmax at temperature 1 are the listed values; times t, at temperature t. */
static void logits_of(const double *p, double t, float *out)
{
    for (int r = 0; r < ROWS; r++) {
        out[2 * r] = (float)(t * log(p[r]));
        out[2 * r + 1] = (float)(t * log(1 - p[r]));
    }
}

struct sums {
    double ce, kd, all; /* over the rows */
};

static struct sums sums_of(const fst_loss *l, const float *logits, const float *soft)
{
    float grad[ROWS * CLASSES];
    double rows[ROWS], ce[ROWS], kd[ROWS];
    struct sums s = {0};
    fst_loss_input in = {
        .logits = logits, .rows = ROWS, .classes = CLASSES, .labels = labels, .soft = soft, .divisor = ROWS};
    fst_loss_rows(l, &in, grad, rows, ce, kd);
    for (int r = 0; r < ROWS; r++) {
        s.ce += ce[r];
        s.kd += kd[r];
        s.all += rows[r];
    }
    return s;
}

static void near(double value, double wanted)
{
    if (!(fabs(value - wanted) < 2e-6))
        fail_msg("%.7f, not %.6f", value, wanted);
}

/* The listed values are what softmax gives at temperature 1, and T^2 = 4 weighs the sum, as the example has it. */
static void as_listed(void **state)
{
    float z[ROWS * CLASSES], q[ROWS * CLASSES];
    fst_loss l = {.ce_weight = 0.5, .kd_weight = 0.5 * 4, .temperature = 1, .kd_form = FST_KD_CROSS_ENTROPY};
    (void)state;
    logits_of(student, 1, z);
    logits_of(teacher, 1, q);
    fst_softmax(q, ROWS, CLASSES, 1, q);
    struct sums s = sums_of(&l, z, q);
    near(s.ce, 2.245827);
    near(s.kd, 2.824388);
    near(s.all, 6.771690);
    near(s.ce / ROWS, 0.449165);
    near(s.kd / ROWS, 0.564878);
    near(s.all / ROWS, 1.354338);
    l.kd_form = FST_KD_KL;
    s = sums_of(&l, z, q);
    near(s.kd, 0.276772);
    near(s.all, 1.676457);
    near(s.kd / ROWS, 0.055354);
    near(s.all / ROWS, 0.335291);
}

/* Both are tempered from T = 1 to T = 2, as training does it, with the teacher's probabilities or its logits. */
static void tempered(void **state)
{
    float z[ROWS * CLASSES], teachers[ROWS * CLASSES], q[ROWS * CLASSES];
    fst_loss l = {.ce_weight = 0.5, .kd_weight = 0.5, .temperature = 2};
    (void)state;
    logits_of(student, 1, z);
    logits_of(teacher, 1, teachers);
    fst_softmax(teachers, ROWS, CLASSES, 2, q);
    near(sums_of(&l, z, q).all, 1.313440);
    near(sums_of(&l, z, q).all / ROWS, 0.262688);
    l.soft_logits = true;
    near(sums_of(&l, z, teachers).all, 1.313440);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(as_listed),
        cmocka_unit_test(tempered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

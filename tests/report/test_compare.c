/* Comparisons: the statistics against published examples and closed forms, and which rounds of events.jsonl belong to
 * the model that a stage left. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "compare.h"

static void near(double got, double wanted, double relative)
{
    if (!(fabs(got - wanted) <= relative * fabs(wanted)))
        fail_msg("%.17g is not %.17g", got, wanted);
}

/* ---- statistics --------------------------------------------------------------------------------------- */

static void test_spread(void **state)
{
    (void)state;
    const double v[] = {2, 4, 4, 4, 5, 5, 7, 9}; /* mean 5, squares of deviations 32 */
    fst_spread s = fst_spread_of(v, 8);
    near(s.mean, 5, 1e-15);
    near(s.sd, sqrt(32.0 / 7), 1e-15);
    s = fst_spread_of(v, 1);
    assert_true(s.mean == 2 && isnan(s.sd));
    assert_true(isnan(fst_spread_of(v, 0).mean));
    assert_true(isnan(fst_spread_of((const double[]){1, NAN}, 2).mean));
}

/* P(|T| >= t) for whole degrees of freedom has closed forms (Abramowitz and Stegun 26.7.3 and 26.7.4): by atan, cosines
 * and sums of their powers, computed in Python. The t that is exceeded with 0.05, from the same by halving. */
static void test_student(void **state)
{
    (void)state;
    static const double at[] = {0.1, 1, 2.5, 12};
    static const struct {
        double df, p[4], critical;
    } cases[] = {
        {1, {0.936548965138893, 0.5, 0.242237883181687, 0.0529293521191798}, 12.70620473617},
        {2, {0.92946543841414, 0.422649730810374, 0.129611720221511, 0.00687293367715847}, 4.302652729749},
        {3, {0.926652348800806, 0.391002218955771, 0.0877066470080654, 0.00124501580078928}, 3.182446305284},
        {7, {0.923148059604792, 0.350616662820207, 0.0409922185857529, 6.3583103780962e-06}, 2.364624251593},
        {10, {0.922320718564408, 0.34089313230206, 0.0314468442366088, 2.92140882596215e-07}, 2.228138851986},
        {29, {0.921032444487374, 0.325581988016194, 0.0183253443384263, 9.05941988094128e-13}, 2.045229642133},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (size_t k = 0; k < 4; k++) /* the closed form has 1 - x: the last digits of small values are lost there */
            near(fst_t_two_sided(at[k], cases[i].df), cases[i].p[k], 1e-12 + 3e-16 / cases[i].p[k]);
        near(fst_t_critical(0.05, cases[i].df), cases[i].critical, 1e-11);
    }
    assert_true(fst_t_two_sided(0, 5) == 1 && fst_t_two_sided(-INFINITY, 5) == 0);
    near(fst_t_two_sided(-2.5, 7), cases[3].p[2], 1e-12);
    near(fst_t_critical(0.05, 1e7), 1.959963984540, 1e-6); /* the normal distribution's */
    assert_true(isnan(fst_t_two_sided(NAN, 3)) && isnan(fst_t_two_sided(1, 0)) && isnan(fst_t_critical(0, 3)));
}

/* R. A. Fisher, The Design of Experiments (1935), III: Darwin's 15 pairs of maize plants. t = 2.148, which is exceeded
 * with 0.0497; of the 32,768 ways to sign the differences 863 have a sum of 314 or more, and as many one of -314 or
 * less. */
static void test_darwin(void **state)
{
    (void)state;
    static const double d[15] = {49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48}, zero[15] = {0};
    fst_paired p = fst_paired_of(d, zero, 15);
    assert_int_equal(p.n, 15);
    near(p.mean, 314.0 / 15, 1e-15);
    near(p.mean / (p.sd / sqrt(15)), 2.148, 1e-4);
    near(p.p_t, 0.0497029440218009, 1e-12);
    near(p.low, 0.0311933183929796, 1e-9);
    near(p.p_flip, 2 * 863.0 / 32768, 1e-15);
    fst_paired q = fst_paired_of(zero, d, 15);
    assert_true(q.mean == -p.mean && q.p_t == p.p_t && q.p_flip == p.p_flip && q.high == -p.low);
}

static void test_few_pairs(void **state)
{
    (void)state;
    /* Student's sleep data (1908): t = -4.0621 with 9 degrees of freedom, p = 0.002833, interval -2.4598858 ...
     * -0.7001142 (the example of R's t.test) */
    const double one[] = {0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0, 2},
                 two[] = {1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4};
    fst_paired p = fst_paired_of(one, two, 10);
    near(p.p_t, 0.00283289, 1e-5);
    near(p.low, -2.4598858, 1e-7);
    near(p.high, -0.7001142, 1e-6);
    /* accuracies, by Python's statistics and the closed form for 4 degrees of freedom; 4 of 32 ways */
    const double a[] = {0.91, 0.87, 0.93, 0.905, 0.88}, b[] = {0.9, 0.84, 0.935, 0.87, 0.86};
    p = fst_paired_of(a, b, 5);
    near(p.mean, 0.018, 1e-12);
    near(p.sd, 0.0160468065358812, 1e-12);
    near(p.p_t, 0.0661816350863372, 1e-11);
    near(p.low, -0.00192474196174456, 1e-9);
    near(p.p_flip, 0.125, 1e-15);
    /* one pair says nothing, none neither; equal differences have no spread, but signs */
    p = fst_paired_of(a, b, 1);
    assert_true(isfinite(p.mean) && isnan(p.sd) && isnan(p.low) && isnan(p.p_t) && isnan(p.p_flip));
    p = fst_paired_of(a, b, 0);
    assert_true(isnan(p.mean) && isnan(p.p_flip));
    p = fst_paired_of((const double[]){0.9, 0.5, 0.3}, (const double[]){0.8, 0.4, 0.2}, 3);
    assert_true(isnan(p.p_t) && isnan(p.low) && isnan(p.high));
    near(p.mean, 0.1, 1e-12);
    near(p.p_flip, 0.25, 1e-15);
    p = fst_paired_of(a, a, 5);
    assert_true(p.mean == 0 && p.p_flip == 1);
    double many[FST_FLIP_PAIRS + 1], none[FST_FLIP_PAIRS + 1] = {0};
    for (int i = 0; i <= FST_FLIP_PAIRS; i++)
        many[i] = i;
    p = fst_paired_of(many, none, FST_FLIP_PAIRS + 1);
    assert_true(isfinite(p.p_t) && isnan(p.p_flip));
}

/* ---- rounds ----------------------------------------------------------------------------------------------- */

#define LINE(stage, rest) "{\"time\": \"t\", \"run\": 1, \"stage\": \"" stage "\", \"event\": " rest "}\n"
#define START LINE("", "\"start\"")
#define RUNS(resumes) LINE("f", "\"stage\", \"state\": \"runs\", \"resumes\": \"" resumes "\"")
#define ROUND(n, accuracy)                                                                                            \
    LINE("f", "\"round\", \"round\": " #n ", \"test_accuracy\": " #accuracy ", \"bytes_up\": 10, \"bytes_down\": 1, " \
              "\"seconds\": 0.5")
#define RESULT(digest) LINE("f", "\"result\", \"digest\": \"" digest "\"") LINE("f", "\"stage\", \"state\": \"done\"")
#define DONE LINE("", "\"run\", \"status\": \"done\"")

static struct fst__curve curve_of(const char *text, const char *digest)
{
    fst_buf b = {0};
    fst_error e = {0};
    struct fst__curve c;
    assert_int_equal(fst_buf_append(&b, text, strlen(text), NULL), FST_OK);
    if (fst__curve_parse(&c, &b, "f", digest, &e))
        fail_msg("%s", e.message);
    fst_buf_release(&b);
    return c;
}

/* accuracies: ends with 0. */
static void expect_curve(const char *text, const char *digest, const double *accuracies)
{
    struct fst__curve c = curve_of(text, digest);
    size_t n = 0;
    while (accuracies[n])
        n++;
    assert_int_equal(c.found, n > 0);
    assert_int_equal(c.found ? c.rounds : 0, n);
    for (size_t i = 0; i < n; i++) {
        assert_true(c.round[i].accuracy == accuracies[i]);
        assert_true(c.round[i].x[FST__BY_ROUND] == (double)i + 1);
        near(c.round[i].x[FST__BY_BYTES], 11 * ((double)i + 1), 1e-12);
        near(c.round[i].x[FST__BY_TIME], 0.5 * ((double)i + 1), 1e-12);
    }
    fst_free(c.round);
}

static void test_rounds_of_a_model(void **state)
{
    (void)state;
    /* other settings before and behind; the folder shows each in turn */
    static const char two[] = START RUNS("aa") ROUND(1, 0.1) ROUND(2, 0.2) RESULT("m1") DONE START RUNS("bb")
        ROUND(1, 0.5) ROUND(2, 0.6) ROUND(3, 0.7) RESULT("m2") DONE;
    expect_curve(two, "m1", (const double[]){0.1, 0.2, 0});
    expect_curve(two, "m2", (const double[]){0.5, 0.6, 0.7, 0});
    expect_curve(two, "m3", (const double[]){0}); /* it came from elsewhere */
    /* more rounds of the same settings, with others in between: both models have theirs */
    static const char more[] = START RUNS("aa") ROUND(1, 0.1) ROUND(2, 0.2) RESULT("m1") DONE START RUNS("bb")
        ROUND(1, 0.5) RESULT("m2") DONE START RUNS("aa") ROUND(3, 0.3) RESULT("m3") DONE;
    expect_curve(more, "m1", (const double[]){0.1, 0.2, 0});
    expect_curve(more, "m3", (const double[]){0.1, 0.2, 0.3, 0});
    /* killed twice, and a round that was played again after one of them */
    static const char killed[] = START RUNS("aa") ROUND(1, 0.1) ROUND(2, 0.9) START RUNS("aa") ROUND(2, 0.2)
        START RUNS("aa") ROUND(3, 0.3) RESULT("m1") DONE;
    expect_curve(killed, "m1", (const double[]){0.1, 0.2, 0.3, 0});
    /* killed, and other settings at once */
    static const char changed[] = START RUNS("aa") ROUND(1, 0.1) START RUNS("bb") ROUND(1, 0.5) RESULT("m1") DONE;
    expect_curve(changed, "m1", (const double[]){0.5, 0});
    /* earlier versions did not say what goes on: rounds that are missing are not made up */
    static const char old[] = LINE("f", "\"stage\", \"state\": \"runs\"") ROUND(1, 0.1) RESULT("m1")
        LINE("f", "\"stage\", \"state\": \"runs\"") ROUND(2, 0.2) RESULT("m2");
    expect_curve(old, "m1", (const double[]){0.1, 0});
    expect_curve(old, "m2", (const double[]){0});
    expect_curve("no line\n", "m1", (const double[]){0});
}

static void test_runs_that_did_not_end(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool unfinished;
    } cases[] = {{START RUNS("aa") ROUND(1, 0.1) RESULT("m1") DONE, false},
                 {START RUNS("aa") ROUND(1, 0.1) RESULT("m1"), true},
                 {START RUNS("aa") ROUND(1, 0.1) RESULT("m1") DONE START RUNS("bb"), true},
                 {START RUNS("aa") ROUND(1, 0.1) RESULT("m1") LINE("", "\"run\", \"status\": \"failed\""), true},
                 {RUNS("aa") ROUND(1, 0.1) RESULT("m1"), false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fst__curve c = curve_of(cases[i].text, "m1");
        assert_int_equal(c.unfinished, cases[i].unfinished);
        assert_true(c.found);
        fst_free(c.round);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_student),
        cmocka_unit_test(test_darwin),
        cmocka_unit_test(test_few_pairs),
        cmocka_unit_test(test_rounds_of_a_model),
        cmocka_unit_test(test_runs_that_did_not_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Where models meet samples: what fits, what is refused, and that a model's own transform is what its samples get. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "fedstill/infer.h"

static char *animals[] = {"bird", "cat", "dog"}, *moved[] = {"cat", "bird", "dog"}, *numbers[] = {"0", "1", "2"},
            *unsorted[] = {"0", "10", "2"};

/* Two inputs, three classes: logits are x0, x1, -x0 - x1. */
static fst_model model_of(char *const *names)
{
    fst_model m;
    fst_error e = {0};
    fst_model_config c = {.classes = 3, .input = FST_SHAPE(1, 1, 2)};
    if (fst_model_init(&m, "logistic_regression", &c, &e))
        fail_msg("%s", e.message);
    const float w[] = {1, 0, 0, 1, -1, -1};
    assert_int_equal(m.state.param_count, 9);
    memcpy(m.state.params, w, sizeof w);
    if (names && fst_model_set_class_names(&m, names, 3, &e))
        fail_msg("%s", e.message);
    return m;
}

static const float points[] = {2, 0, 0, 2, -2, -2, 2, 1};
static const int32_t labels[] = {0, 1, 2, 1};

static fst_source *source_of(fst_shape shape, size_t count, int classes, char **names)
{
    fst_source *s;
    fst_error e = {0};
    if (fst_source_from_memory(&s, "samples", FST_F32, &shape, count, points, labels, classes, &e))
        fail_msg("%s", e.message);
    s->class_names = names;
    return s;
}

static void close_source(fst_source *s)
{
    s->class_names = NULL; /* not its own */
    fst_source_close(s);
}

static size_t warnings;
static void count_warnings(void *ctx, fst_log_level level, const char *message)
{
    (void)ctx;
    (void)message;
    warnings += level == FST_LOG_WARN;
}

static void check(char *const *of_model, char **of_data, int classes, const char *wrong, size_t warned)
{
    fst_error e = {0};
    fst_model m = model_of(of_model);
    fst_source *s = source_of(FST_SHAPE(1, 1, 2), classes < 3 ? 2 : 4, classes, of_data);
    warnings = 0;
    fst_log_set(count_warnings, NULL);
    fst_status st = fst_model_check_source(&m, "m.safetensors", s, &e);
    assert_int_equal(st, wrong ? FST_E_MISMATCH : FST_OK);
    if (wrong)
        assert_non_null(strstr(e.message, wrong));
    assert_int_equal(warnings, warned);
    assert_int_equal(fst_model_check_source(&m, NULL, s, NULL), st);
    assert_int_equal(warnings, warned);
    fst_log_set(NULL, NULL);
    close_source(s);
    fst_model_release(&m);
}

static void classes_by_name(void **state)
{
    (void)state;
    check(animals, animals, 3, NULL, 0);
    check(animals, animals, 2, NULL, 0); /* the last class has no samples */
    check(animals, moved, 3, "class 0 is \"cat\", the model calls it \"bird\" (the model m.safetensors)", 0);
    check(animals, NULL, 3, NULL, 0);
    check(NULL, animals, 3, NULL, 0);
    check(NULL, NULL, 3, NULL, 0);
    check(animals, numbers, 3, NULL, 0);
    check(numbers, animals, 3, NULL, 0);
    check(NULL, unsorted, 3, NULL, 1);
    check(unsorted, NULL, 3, NULL, 1);
    check(unsorted, unsorted, 3, NULL, 0);
    check(animals, unsorted, 3, "class 0 is \"0\", the model calls it \"bird\"", 0);
    check(animals, NULL, 4, "has 4 classes, but the model m.safetensors knows 3", 0);
}

static void shapes(void **state)
{
    (void)state;
    fst_error e = {0};
    fst_model m = model_of(NULL);
    fst_source *flat = source_of(FST_SHAPE(2), 4, 3, NULL), *wide = source_of(FST_SHAPE(1, 1, 4), 2, 3, NULL);
    assert_int_equal(fst_model_check_source(&m, NULL, flat, &e), FST_OK);
    assert_int_equal(fst_model_check_source(&m, NULL, wide, &e), FST_E_MISMATCH);
    assert_non_null(strstr(e.message, "samples have shape (1, 1, 4), but the model takes (1, 1, 2)"));
    close_source(flat);
    close_source(wide);
    fst_model_release(&m);
}

/* The last point is of class 1 and taken for class 0 as it is. Normalised by mean 1, std 0.5 it is (2, 0): the same;
 * the first becomes (2, -2), the second (-2, 2), the third (-6, -6). With mean (2, -?) nothing else changes:
 * probabilities do. */
static void own_transform(void **state)
{
    (void)state;
    fst_error e = {0};
    fst_model m = model_of(animals);
    fst_source *s = source_of(FST_SHAPE(1, 1, 2), 4, 3, animals);
    fst_evaluation v;
    assert_int_equal(fst_model_evaluate(&v, &m, NULL, s, 1, &e), FST_OK);
    assert_int_equal(v.samples, 4);
    assert_int_equal(v.correct, 3);
    assert_true(v.accuracy == 0.75);
    double plain = v.loss;
    /* -log softmax of the right one: (2, 0, -2), (0, 2, -2), (-2, -2, 4), (2, 1, -3) */
    double want =
        (log(exp(2) + 1 + exp(-2)) - 2) * 2 + log(2 * exp(-2) + exp(4)) - 4 + log(exp(2) + exp(1) + exp(-3)) - 1;
    assert_true(fabs(plain - want / 4) < 1e-6);

    float p[12], logits[12];
    fst_classifier *c;
    m.channels = 1;
    m.mean[0] = 1;
    m.std[0] = 0.5f;
    assert_int_equal(fst_classifier_new(&c, &m, 3, 1, &e), FST_OK);
    assert_int_equal(fst_classifier_run(c, NULL, FST_F32, points, 4, p, &e), FST_OK);
    fst_measure_spec spec = {.source = s, .batch_size = 3, .threads = 1};
    assert_int_equal(fst_infer_logits(&m, &spec, logits, &e), FST_OK);
    const double x[4][2] = {{2, -2}, {-2, 2}, {-6, -6}, {2, 0}};
    for (int i = 0; i < 4; i++) {
        const double z[] = {x[i][0], x[i][1], -x[i][0] - x[i][1]};
        double sum = exp(z[0]) + exp(z[1]) + exp(z[2]);
        for (int k = 0; k < 3; k++) {
            assert_true(fabs((double)logits[3 * i + k] - z[k]) < 1e-6);
            assert_true(fabs((double)p[3 * i + k] - exp(z[k]) / sum) < 1e-6);
        }
    }
    assert_int_equal(fst_model_evaluate(&v, &m, NULL, s, 1, &e), FST_OK);
    assert_true(fabs(v.loss - plain) > 0.1);

    m.std[0] = 1e-38f; /* (2 - 1) / 1e-38 overflows in the sum */
    assert_int_equal(fst_classifier_run(c, "x.npy", FST_F32, points, 4, p, &e), FST_E_NUMERIC);
    assert_non_null(strstr(e.message, "x.npy: sample "));
    fst_classifier_free(c);
    fst_classifier_free(NULL);
    close_source(s);
    fst_model_release(&m);
}

static void refused_everywhere(void **state)
{
    (void)state;
    fst_error e = {0};
    float logits[12];
    fst_evaluation v = {.correct = 77};
    fst_measured t;
    fst_model m = model_of(animals);
    fst_source *s = source_of(FST_SHAPE(1, 1, 2), 4, 3, moved);
    fst_measure_spec spec = {.source = s, .batch_size = 2, .threads = 1, .repeats = 1};
    assert_int_equal(fst_model_evaluate(&v, &m, "a", s, 1, &e), FST_E_MISMATCH);
    assert_int_equal(v.correct, 77);
    assert_int_equal(fst_infer_logits(&m, &spec, logits, &e), FST_E_MISMATCH);
    assert_int_equal(fst_measure(&t, &m, &spec, &e), FST_E_MISMATCH);
    close_source(s);
    fst_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(classes_by_name),
        cmocka_unit_test(shapes),
        cmocka_unit_test(own_transform),
        cmocka_unit_test(refused_everywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

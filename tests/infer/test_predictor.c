/* A model file as one handle: what it tells, that its numbers are the softmax of known logits, and what it refuses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fedstill/infer.h"

static char path[] = "/tmp/fedstill-predictor-XXXXXX";
static fst_error error;

#define assert_ok(call)                    \
    do {                                   \
        if (call)                          \
            fail_msg("%s", error.message); \
    } while (0)

/* Two inputs, three classes: logits are x0, x1, -x0 - x1 of the normalised (x - 0.5) / 2. */
static int save(void **state)
{
    static char *names[] = {"bird", "cat", "dog"};
    const float w[] = {1, 0, 0, 1, -1, -1};
    fst_model m;
    fst_model_config c = {.classes = 3, .input = FST_SHAPE(1, 1, 2)};
    int file = mkstemp(path);
    (void)state;
    if (file < 0)
        return -1;
    close(file);
    assert_ok(fst_model_init(&m, "logistic_regression", &c, &error));
    memcpy(m.state.params, w, sizeof w);
    m.channels = 1;
    m.mean[0] = 0.5f;
    m.std[0] = 2;
    assert_ok(fst_model_set_class_names(&m, names, 3, &error));
    assert_ok(fst_model_save(&m, path, NULL, 0, NULL, &error));
    fst_model_release(&m);
    return 0;
}

static int clear(void **state)
{
    (void)state;
    return unlink(path);
}

static void what_it_tells(void **state)
{
    fst_predictor *p = NULL;
    (void)state;
    assert_ok(fst_predictor_open(&p, path, 1, &error));
    assert_string_equal(fst_predictor_arch(p), "logistic_regression");
    assert_int_equal(fst_predictor_classes(p), 3);
    assert_string_equal(fst_predictor_class_name(p, 2), "dog");
    assert_null(fst_predictor_class_name(p, 3));
    assert_null(fst_predictor_class_name(p, -1));
    assert_int_equal(fst_predictor_rank(p), 3);
    assert_int_equal(fst_predictor_dim(p, 1), 1);
    assert_int_equal(fst_predictor_dim(p, 2), 2);
    assert_int_equal(fst_predictor_dim(p, 3), 0);
    fst_predictor_free(p);
}

static void check_row(const float *p, double x0, double x1)
{
    double a = (x0 - 0.5) / 2, b = (x1 - 0.5) / 2, z[] = {exp(a), exp(b), exp(-a - b)};
    for (int i = 0; i < 3; i++)
        assert_true(fabs((double)p[i] - z[i] / (z[0] + z[1] + z[2])) < 1e-6);
}

/* One, several, more than go together, several others: each row is that of its sample. */
static void numbers_are_known(void **state)
{
    enum { MANY = 131 };
    const size_t counts[] = {1, 3, MANY, 2, 1, 0};
    fst_predictor *p = NULL;
    float x[2 * MANY], out[3 * MANY];
    uint8_t bytes[2 * MANY];
    (void)state;
    for (size_t i = 0; i < 2 * MANY; i++) {
        bytes[i] = (uint8_t)(i * 37);
        x[i] = (float)((double)i / 50 - 2);
    }
    assert_ok(fst_predictor_open(&p, path, 2, &error));
    for (size_t k = 0; k < sizeof counts / sizeof *counts; k++) {
        assert_ok(fst_predictor_run_f32(p, x, counts[k], out, &error));
        for (size_t i = 0; i < counts[k]; i++)
            check_row(out + 3 * i, (double)x[2 * i], (double)x[2 * i + 1]);
        assert_ok(fst_predictor_run_u8(p, bytes, counts[k], out, &error));
        for (size_t i = 0; i < counts[k]; i++)
            check_row(out + 3 * i, bytes[2 * i] / 255.0, bytes[2 * i + 1] / 255.0);
    }
    fst_predictor_free(p);
}

static void what_it_refuses(void **state)
{
    const float x[] = {0, 1, 2, NAN};
    float out[6] = {0};
    fst_predictor *p = NULL;
    (void)state;
    assert_int_equal(fst_predictor_open(&p, "/nowhere/model.safetensors", 1, &error), FST_E_IO);
    assert_int_equal(fst_predictor_open(&p, path, -1, &error), FST_E_ARGUMENT);
    assert_null(p);
    assert_ok(fst_predictor_open(&p, path, 1, &error));
    assert_int_equal(fst_predictor_run_f32(p, x, 2, out, &error), FST_E_NUMERIC);
    assert_non_null(strstr(error.message, "sample 1, element 1"));
    assert_true(out[0] < 0.5f && out[0] > -0.5f);
    assert_ok(fst_predictor_run_f32(p, x, 1, out, &error));
    fst_predictor_free(p);
    fst_predictor_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_tells),
        cmocka_unit_test(numbers_are_known),
        cmocka_unit_test(what_it_refuses),
    };
    return cmocka_run_group_tests(tests, save, clear);
}

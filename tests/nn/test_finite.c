/* check_finite: the first layer that spoils a step is named, and a sound step is the same with it and without. */
#include <math.h>

#include "nn/support.h"

enum { ROWS = 8, CLASSES = 4, SIDE = 8 };

static fst_graph *network(void)
{
    const fst_conv2d c = {
        .out_channels = 16, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}, .groups = 1, .bias = true};
    fst_graph *g = NULL;
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &FST_SHAPE(3, SIDE, SIDE));
    x = fst_graph_relu(g, fst_graph_conv2d(g, x, "conv1", &c));
    x = fst_graph_maxpool2d(g, fst_graph_relu(g, fst_graph_conv2d(g, x, "conv2", &c)), 2, 2, 0);
    x = fst_graph_linear(g, fst_graph_flatten(g, x), "fc", CLASSES, true);
    assert_ok(fst_graph_finish(g, x, err));
    return g;
}

struct fixture {
    fst_graph *g;
    fst_state state;
    fst_trainer *t;
    fst_optim o;
    float *x;
    int32_t labels[ROWS];
};

static void begin(struct fixture *f, const char *backend, bool check)
{
    const fst_trainer_options to = {.batch_size = ROWS, .threads = 1, .backend = backend, .check_finite = check};
    const fst_optim_spec os = {.kind = FST_OPTIM_SGD, .learning_rate = 0.1};
    *f = (struct fixture){.g = network()};
    assert_ok(fst_state_init(&f->state, f->g, err));
    fst_state_randomise(&f->state, f->g, 5);
    assert_ok(fst_trainer_new(&f->t, f->g, &to, err));
    assert_ok(fst_optim_init(&f->o, &os, f->state.param_count, err));
    f->x = new_floats(ROWS * 3 * SIDE * SIDE);
    fill_normal(f->x, ROWS * 3 * SIDE * SIDE, 1, "test.x", 1);
    fill_labels(f->labels, ROWS, CLASSES, 1);
}

static void end(struct fixture *f)
{
    fst_trainer_free(f->t);
    fst_optim_release(&f->o);
    fst_state_release(&f->state);
    fst_graph_free(f->g);
    free(f->x);
}

static fst_error why; /* of the last step */

static fst_status step(struct fixture *f)
{
    fst_step_result r;
    const fst_step_input in = {
        .rows = ROWS, .x = f->x, .labels = f->labels, .loss = FST_LOSS_CROSS_ENTROPY, .learning_rate = 0.1};
    why = (fst_error){0};
    return fst_trainer_step(f->t, &f->state, &f->o, &in, &r, &why);
}

static float *parameter(struct fixture *f, const char *name)
{
    for (size_t i = 0; i < fst_graph_params(f->g); i++)
        if (!strcmp(fst_graph_param(f->g, i).name, name))
            return f->state.params + fst_graph_param(f->g, i).offset;
    fail_msg("no parameter %s", name);
    return NULL;
}

static void expect_named(struct fixture *f, const char *text)
{
    float *before = new_floats(f->state.param_count);
    memcpy(before, f->state.params, f->state.param_count * sizeof *before);
    if (step(f) != FST_E_NUMERIC)
        fail_msg("the step did not fail; wanted: %s", text);
    if (!strstr(why.message, text))
        fail_msg("\"%s\" does not say \"%s\"", why.message, text);
    assert_memory_equal(before, f->state.params, f->state.param_count * sizeof *before);
    free(before);
}

static void test_names_the_layer(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct fixture f;
        begin(&f, *b, true);
        float *w = parameter(&f, "conv2.weight"), *first = parameter(&f, "conv1.weight"), keep = *w;
        assert_ok(step(&f));
        *w = NAN;
        expect_named(&f, "a parameter of layer conv2 (conv2d)");
        *w = keep;
        f.x[7] = INFINITY;
        expect_named(&f, "the input of layer conv1");
        f.x[7] = 0.5f;
        *first = 3e38f; /* itself finite; its products are not */
        expect_named(&f, "the output of layer conv1 (conv2d)");
        end(&f);
    }
}

/* Small activations before large weights: logits and loss are finite, and so is the gradient that comes to conv2's
 * output, but not its sum over all positions, which is the gradient of the bias. */
static void test_names_the_gradient(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct fixture f;
        begin(&f, *b, true);
        float *fc = parameter(&f, "fc.weight"), *w = parameter(&f, "conv2.weight"), *bias = parameter(&f, "conv2.bias");
        const size_t row = 16 * SIDE * SIDE / 4;
        for (size_t i = 0; i < CLASSES * row; i++)
            fc[i] = i < row ? 1e38f : -1e38f; /* everything is taken for class 0 ... */
        for (int i = 0; i < 16 * 16 * 9; i++)
            w[i] *= 1e-4f;
        for (int i = 0; i < 16; i++)
            bias[i] = 1e-3f;
        for (int i = 0; i < ROWS; i++)
            f.labels[i] = 1; /* ... and is of class 1 */
        expect_named(&f, "a gradient of layer conv2");
        end(&f);
    }
}

static void test_changes_nothing(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct fixture with, without;
        begin(&with, *b, true);
        begin(&without, *b, false);
        for (int i = 0; i < 3; i++) {
            assert_ok(step(&with));
            assert_ok(step(&without));
        }
        assert_memory_equal(with.state.params, without.state.params, with.state.param_count * sizeof(float));
        end(&with);
        end(&without);
    }
}

static void test_bf16(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        if (!fst_backend_supports(*b, FST_PRECISION_BF16))
            continue;
        struct fixture f;
        begin(&f, *b, true);
        fst_trainer_free(f.t);
        const fst_trainer_options to = {
            .batch_size = ROWS, .threads = 1, .backend = *b, .precision = FST_PRECISION_BF16, .check_finite = true};
        assert_ok(fst_trainer_new(&f.t, f.g, &to, err));
        assert_ok(step(&f));
        *parameter(&f, "conv1.weight") = 3e38f;
        expect_named(&f, "of layer conv1");
        end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_the_layer),
        cmocka_unit_test(test_names_the_gradient),
        cmocka_unit_test(test_changes_nothing),
        cmocka_unit_test(test_bf16),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Inference of a single sample, whose large layers are computed in halves by two threads: every output is where it is
 * when two samples are inferred at once, which cuts nothing, and no bit depends on the threads. */
#include <math.h>

#include "nn/support.h"

enum { CLASSES = 32, MOST_THREADS = 3, CALLS = 8 };

static fst_value conv(fst_graph *g, fst_value x, const char *name, int64_t out, int64_t kernel, int64_t stride)
{
    const fst_conv2d o = {.out_channels = out,
                          .kernel = {kernel, kernel},
                          .stride = {stride, stride},
                          .padding = {kernel / 2, kernel / 2},
                          .bias = true};
    return fst_graph_conv2d(g, x, name, &o);
}

static fst_graph *finished(fst_graph *g, fst_value x)
{
    assert_ok(fst_graph_finish(g, fst_graph_linear(g, x, "out", CLASSES, true), err));
    return g;
}

/* Convolutions that are worth halves: with and without norms and ReLUs, with strides, and to a single pixel. */
static fst_graph *convolutions(void)
{
    fst_graph *g = NULL;
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &FST_SHAPE(32, 13, 11));
    x = fst_graph_relu(g, fst_graph_batchnorm2d(g, conv(g, x, "norm", 96, 3, 1), "bn", 1e-5, 0.1));
    x = conv(g, x, "bare", 192, 1, 1);
    x = fst_graph_relu6(g, conv(g, x, "strided", 160, 3, 2));
    fst_value same = conv(g, x, "residual", 160, 3, 1);
    x = fst_graph_relu(g, fst_graph_add(g, x, same));
    x = fst_graph_relu(g, conv(g, x, "pixel", 64, 7, 7));
    return finished(g, fst_graph_flatten(g, x));
}

/* Long rows of weights, with and without a bias. */
static fst_graph *linears(void)
{
    fst_graph *g = NULL;
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &FST_SHAPE(700));
    x = fst_graph_relu(g, fst_graph_linear(g, x, "first", 640, true));
    return finished(g, fst_graph_linear(g, x, "second", 512, false));
}

/* A state of moderate values: norms of any variance, weights that keep the values' size. */
static void draw_state(fst_state *s, const fst_graph *g, uint64_t seed)
{
    fst_state_randomise(s, g, seed);
    for (size_t i = 0; i < s->buffer_count; i++)
        s->buffers[i] = 0.5f + (float)(i % 7) * 0.25f;
}

static void infer(const fst_graph *g, size_t batch, int threads, const fst_state *s, const float *x, float *logits)
{
    fst_runner *r = NULL;
    fst_trainer_options o = {.batch_size = batch, .threads = threads};
    assert_ok(fst_runner_new(&r, g, &o, err));
    fst_runner_hold(r, s);
    for (int i = 0; i < CALLS; i++)
        assert_ok(fst_runner_logits(r, s, x, batch, logits, err));
    uint64_t before = fst_alloc_count();
    assert_ok(fst_runner_logits(r, s, x, batch, logits, err));
    assert_int_equal(fst_alloc_count(), before);
    fst_runner_free(r);
}

static void check(fst_graph *g)
{
    const fst_shape in = fst_graph_input_shape(g);
    const size_t sample = (size_t)fst_shape_count(&in);
    float *x = new_floats(2 * sample), two[2 * CLASSES], alone[CLASSES], again[CLASSES];
    fst_state s = {0};
    assert_ok(fst_state_init(&s, g, err));
    fill_normal(x, 2 * sample, 1, "test.x", 1);
    for (uint64_t seed = 1; seed <= 2; seed++) {
        draw_state(&s, g, seed);
        infer(g, 2, 1, &s, x, two);
        for (size_t row = 0; row < 2; row++) {
            infer(g, 1, 1, &s, x + row * sample, alone);
            for (int i = 0; i < CLASSES; i++)
                if (fabsf(alone[i] - two[row * CLASSES + (size_t)i]) > 1e-4f * (1 + fabsf(alone[i])))
                    fail_msg("row %zu, class %d: %g alone, %g in company", row, i, (double)alone[i],
                             (double)two[row * CLASSES + (size_t)i]);
            for (int threads = 2; threads <= MOST_THREADS; threads++) {
                infer(g, 1, threads, &s, x + row * sample, again);
                assert_memory_equal(again, alone, sizeof alone);
            }
        }
        assert_memory_not_equal(two, two + CLASSES, sizeof alone);
    }
    free(x);
    fst_state_release(&s);
    fst_graph_free(g);
}

/* Of the backend that is taken when none is named. */
static void halves_are_the_whole(void **state)
{
    (void)state;
    check(convolutions());
    check(linears());
}

/* Without a promise that the state stays, what is made of the weights is made at every call. */
static void another_state_counts(void **state)
{
    (void)state;
    fst_graph *g = convolutions();
    const fst_shape in = fst_graph_input_shape(g);
    float *x = new_floats((size_t)fst_shape_count(&in)), first[CLASSES], second[CLASSES];
    fst_trainer_options o = {.batch_size = 1, .threads = 2};
    fst_runner *r = NULL;
    fst_state s = {0};
    assert_ok(fst_state_init(&s, g, err));
    fill_normal(x, (size_t)fst_shape_count(&in), 1, "test.x", 1);
    assert_ok(fst_runner_new(&r, g, &o, err));
    draw_state(&s, g, 1);
    assert_ok(fst_runner_logits(r, &s, x, 1, first, err));
    draw_state(&s, g, 2);
    assert_ok(fst_runner_logits(r, &s, x, 1, second, err));
    assert_memory_not_equal(first, second, sizeof first);
    draw_state(&s, g, 1);
    assert_ok(fst_runner_logits(r, &s, x, 1, second, err));
    assert_memory_equal(first, second, sizeof first);
    fst_runner_free(r);
    free(x);
    fst_state_release(&s);
    fst_graph_free(g);
}

/* Whatever allocation fails while a runner is made, that is said and nothing is lost. */
static void memory_may_run_out(void **state)
{
    enum { ENOUGH = 2000 };
    (void)state;
    fst_graph *g = convolutions();
    fst_trainer_options o = {.batch_size = 1, .threads = 2};
    uint64_t n = 1;
    for (fst_runner *r = NULL; n < ENOUGH; n++) {
        fst_error e = {0};
        fst_alloc_fail_at(n);
        fst_status s = fst_runner_new(&r, g, &o, &e);
        fst_alloc_fail_at(0);
        if (!s) {
            fst_runner_free(r);
            break;
        }
        assert_int_equal(s, FST_E_MEMORY);
        assert_null(r);
    }
    assert_true(n > 10 && n < ENOUGH);
    fst_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(halves_are_the_whole),
        cmocka_unit_test(another_state_counts),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

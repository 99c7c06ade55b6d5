/* Batch norms that see one value a channel: such a batch has no variance, so that it changes neither running statistics
 * nor their counter; all other batches and norms do as always. */
#include "nn/support.h"

enum { CHANNELS = 3, CLASSES = 2 };

/* A norm over 2x2, a convolution to 1x1, a norm over that. Complex ones take pairs of channels. */
static fst_graph *network(bool complex_values)
{
    fst_graph *g = NULL;
    fst_conv2d to_one = {.out_channels = CHANNELS, .kernel = {2, 2}, .stride = {1, 1}};
    fst_shape in = complex_values ? FST_SHAPE(2, CHANNELS, 2, 2) : FST_SHAPE(CHANNELS, 2, 2);
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &in);
    if (complex_values) {
        x = fst_graph_complex_batchnorm(g, fst_graph_complex_from_parts(g, x), "wide", 1e-5, 0.1);
        x = fst_graph_complex_batchnorm(g, fst_graph_complex_conv2d(g, x, "conv", &to_one), "one", 1e-5, 0.1);
        x = fst_graph_magnitude(g, x);
    } else {
        x = fst_graph_batchnorm2d(g, x, "wide", 1e-5, 0.1);
        x = fst_graph_batchnorm2d(g, fst_graph_conv2d(g, x, "conv", &to_one), "one", 1e-5, 0.1);
    }
    x = fst_graph_linear(g, fst_graph_flatten(g, x), "fc", CLASSES, true);
    assert_ok(fst_graph_finish(g, x, err));
    return g;
}

/* The span of a buffer by name. */
static const float *buffer(const fst_graph *g, const fst_state *s, const char *name, size_t *count)
{
    for (size_t i = 0; i < fst_graph_buffers(g); i++) {
        fst_param_info p = fst_graph_buffer(g, i);
        if (!strcmp(p.name, name)) {
            *count = (size_t)fst_shape_count(&p.shape);
            return s->buffers + p.offset;
        }
    }
    fail_msg("no buffer %s", name);
    return NULL;
}

static int64_t counter(const fst_graph *g, const fst_state *s, const char *name)
{
    for (size_t i = 0; i < fst_graph_counters(g); i++)
        if (!strcmp(fst_graph_counter(g, i), name))
            return s->counters[i];
    fail_msg("no counter %s", name);
    return -1;
}

static bool moved(const fst_graph *g, const fst_state *before, const fst_state *now, const char *name)
{
    size_t n = 0;
    const float *a = buffer(g, before, name, &n), *b = buffer(g, now, name, &n);
    return memcmp(a, b, n * sizeof *a) != 0;
}

static void step(const fst_graph *g, const char *backend, fst_state *s, size_t batch, size_t rows)
{
    fst_trainer *t = NULL;
    fst_optim o = {0};
    fst_optim_spec spec = {.kind = FST_OPTIM_SGD, .learning_rate = 0.1};
    fst_trainer_options options = {.batch_size = batch, .threads = 1, .backend = backend};
    float *x = new_floats(batch * sample_floats(g));
    int32_t labels[4] = {1, 0, 1, 0};
    fst_step_result r;
    fill_normal(x, batch * sample_floats(g), 11, "test.x", 1);
    assert_ok(fst_trainer_new(&t, g, &options, err));
    assert_ok(fst_optim_init(&o, &spec, s->param_count, err));
    fst_step_input in = {.rows = rows, .x = x, .labels = labels, .loss = FST_LOSS_CROSS_ENTROPY, .learning_rate = 0.1};
    assert_ok(fst_trainer_step(t, s, &o, &in, &r, err));
    fst_optim_release(&o);
    fst_trainer_free(t);
    free(x);
}

static void check(bool complex_values, const char *backend)
{
    const char *variance = complex_values ? "one.running_covar" : "one.running_var";
    fst_graph *g = network(complex_values);
    fst_state s, before;
    assert_ok(fst_state_init(&s, g, err));
    assert_ok(fst_state_init(&before, g, err));
    fst_state_randomise(&s, g, 5);
    fst_state_copy(&before, &s);
    assert_string_equal(fst_graph_single_value_norm(g, 1), "one");
    assert_null(fst_graph_single_value_norm(g, 2));

    for (size_t batch = 1; batch <= 4; batch += 3) { /* alone, and as the rest of an epoch */
        step(g, backend, &s, batch, 1);
        assert_false(moved(g, &before, &s, variance));
        assert_false(moved(g, &before, &s, "one.running_mean"));
        assert_int_equal(counter(g, &s, "one.num_batches_tracked"), 0);
        assert_true(moved(g, &before, &s, "wide.running_mean"));
        assert_int_equal(counter(g, &s, "wide.num_batches_tracked"), batch == 1 ? 1 : 2);
    }
    step(g, backend, &s, 4, 2);
    assert_true(moved(g, &before, &s, variance));
    assert_true(moved(g, &before, &s, "one.running_mean"));
    assert_int_equal(counter(g, &s, "one.num_batches_tracked"), 1);
    fst_state_release(&s);
    fst_state_release(&before);
    fst_graph_free(g);
}

static void real_values(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        check(false, *b);
}

static void complex_values(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        check(true, *b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(real_values), cmocka_unit_test(complex_values)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Networks of many parameters: the shards' gradients pass through windows, and their sum is what it would be without.
 */
#include "nn/support.h"

enum { CLASSES = 10, ROWS = 6, SHARD = 2, STEPS = 2, WIDTH = 960, LAYERS = 10, CHANNELS = 256 };

/* 9.2 M parameters, no batch norm. */
static fst_graph *deep(void)
{
    fst_graph *g = NULL;
    fst_shape in = {1, {WIDTH}};
    assert_ok(fst_graph_new(&g, err));
    fst_value v = fst_graph_input(g, &in);
    for (int i = 0; i < LAYERS; i++) {
        char name[16];
        snprintf(name, sizeof name, "fc%d", i);
        v = fst_graph_relu(g, fst_graph_linear(g, v, name, WIDTH, true));
    }
    assert_ok(fst_graph_finish(g, fst_graph_linear(g, v, "head", CLASSES, true), err));
    return g;
}

/* 1.8 M parameters, shards that meet. */
static fst_graph *normed(void)
{
    fst_graph *g = NULL;
    fst_shape in = {3, {CHANNELS, 2, 2}};
    fst_conv2d conv = {.out_channels = CHANNELS, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}};
    assert_ok(fst_graph_new(&g, err));
    fst_value v = fst_graph_input(g, &in);
    for (int i = 0; i < 3; i++) {
        char name[2][16];
        snprintf(name[0], sizeof name[0], "conv%d", i);
        snprintf(name[1], sizeof name[1], "bn%d", i);
        v = fst_graph_batchnorm2d(g, fst_graph_conv2d(g, v, name[0], &conv), name[1], 1e-5, 0.1);
        v = fst_graph_relu(g, v);
    }
    v = fst_graph_linear(g, fst_graph_global_avgpool(g, v), "head", CLASSES, true);
    assert_ok(fst_graph_finish(g, v, err));
    return g;
}

struct set {
    fst_graph *graph;
    fst_state state;
    fst_optim optim;
    float *x;
    int32_t labels[ROWS];
};

static const fst_optim_spec descent = {.kind = FST_OPTIM_SGD, .learning_rate = 0.05, .momentum = 0.9};

static void open_set(struct set *s, fst_graph *g)
{
    *s = (struct set){.graph = g, .x = new_floats(ROWS * sample_floats(g))};
    assert_ok(fst_state_init(&s->state, g, err));
    fst_state_randomise(&s->state, g, 11);
    assert_ok(fst_optim_init(&s->optim, &descent, s->state.param_count, err));
    fill_normal(s->x, ROWS * sample_floats(g), 11, "test.x", 1);
    fill_labels(s->labels, ROWS, CLASSES, 11);
}

static void close_set(struct set *s)
{
    free(s->x);
    fst_optim_release(&s->optim);
    fst_state_release(&s->state);
    fst_graph_free(s->graph);
}

static size_t rows_of_step(int step) /* the second step's last shard is not full */
{
    return step % 2 ? ROWS - 1 : ROWS;
}

static fst_trainer *new_trainer(const struct set *s, const char *backend, size_t shard, int threads)
{
    fst_trainer *t = NULL;
    fst_trainer_options o = {.batch_size = ROWS, .shard_size = shard, .threads = threads, .backend = backend};
    assert_ok(fst_trainer_new(&t, s->graph, &o, err));
    return t;
}

static fst_step_input input_of(const struct set *s, int step)
{
    return (fst_step_input){.rows = rows_of_step(step),
                            .x = s->x,
                            .labels = s->labels,
                            .loss = FST_LOSS_CROSS_ENTROPY,
                            .learning_rate = descent.learning_rate};
}

static void train(struct set *s, const char *backend, size_t shard, int threads)
{
    fst_trainer *t = new_trainer(s, backend, shard, threads);
    for (int step = 0; step < STEPS; step++) {
        fst_step_input in = input_of(s, step);
        fst_step_result r;
        assert_ok(fst_trainer_step(t, &s->state, &s->optim, &in, &r, err));
    }
    fst_trainer_free(t);
}

/* A shard by a plan of its own, with a gradient of its own: rows behind the last are zeros, with zero gradients. */
static void pass(struct set *s, fst_plan *plan, size_t first, size_t rows, float *grads)
{
    size_t sample = sample_floats(s->graph), own = rows - first < SHARD ? rows - first : SHARD;
    float *x = new_floats(SHARD * sample);
    const float *logits;
    double losses[SHARD];
    fst_loss loss = FST_LOSS_CROSS_ENTROPY;
    memcpy(x, s->x + first * sample, own * sample * sizeof *x);
    assert_ok(fst_plan_forward(plan, &s->state, x, NULL, &logits, err));
    float *to = fst_plan_output_grad(plan);
    memset(to, 0, (size_t)SHARD * CLASSES * sizeof *to);
    fst_loss_input in = {
        .logits = logits, .rows = own, .classes = CLASSES, .labels = s->labels + first, .divisor = (double)rows};
    fst_loss_rows(&loss, &in, to, losses, NULL, NULL);
    assert_ok(fst_plan_backward(plan, &s->state, grads, err));
    free(x);
}

static void train_by_hand(struct set *s, const char *backend)
{
    enum { PARTS = ROWS / SHARD };
    fst_plan *plan = NULL;
    fst_plan_options o = {.batch = SHARD, .training = true, .backend = backend};
    float *grads[PARTS];
    assert_ok(fst_plan_new(&plan, s->graph, &o, err));
    for (int i = 0; i < PARTS; i++)
        grads[i] = new_floats(s->state.param_count);
    for (int step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < PARTS; i++)
            pass(s, plan, i * SHARD, rows_of_step(step), grads[i]);
        fst_optim_input in = {.grads = grads, .parts = PARTS, .learning_rate = descent.learning_rate};
        fst_optim_step(&s->optim, s->state.params, &in, NULL);
    }
    for (int i = 0; i < PARTS; i++)
        free(grads[i]);
    fst_plan_free(plan);
}

static void sums_are_those_of_whole_gradients(void **unused)
{
    (void)unused;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct set wanted, got[2];
        open_set(&wanted, deep());
        train_by_hand(&wanted, *b);
        for (int i = 0; i < 2; i++) {
            open_set(&got[i], deep());
            train(&got[i], *b, SHARD, i ? 3 : 1);
            assert_memory_equal(got[i].state.params, wanted.state.params, wanted.state.param_count * sizeof(float));
            close_set(&got[i]);
        }
        close_set(&wanted);
    }
}

static double off(const struct set *a, const struct set *b)
{
    double apart = 0, size = 0;
    for (size_t i = 0; i < a->state.param_count; i++) {
        apart += pow((double)a->state.params[i] - (double)b->state.params[i], 2);
        size += pow((double)b->state.params[i], 2);
    }
    return sqrt(apart / size);
}

static void norms_and_windows_agree(void **unused)
{
    (void)unused;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct set whole, one, three;
        open_set(&whole, normed());
        open_set(&one, normed());
        open_set(&three, normed());
        train(&whole, *b, ROWS, 1);
        train(&one, *b, SHARD, 1);
        train(&three, *b, SHARD, 3);
        assert_memory_equal(one.state.params, three.state.params, one.state.param_count * sizeof(float));
        assert_memory_equal(one.state.buffers, three.state.buffers, one.state.buffer_count * sizeof(float));
        assert_true(off(&one, &whole) < 1e-5);
        close_set(&whole);
        close_set(&one);
        close_set(&three);
    }
}

static void bad_numbers_touch_nothing(void **unused)
{
    (void)unused;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct set s, was;
        open_set(&s, deep());
        open_set(&was, deep());
        fst_trainer *t = new_trainer(&s, *b, SHARD, 2);
        fst_step_input in = input_of(&s, 0);
        fst_step_result r;
        float good = s.x[3 * WIDTH + 5]; /* of the second shard, whose gradients pass through a window */
        s.x[3 * WIDTH + 5] = NAN;
        assert_fails(fst_trainer_step(t, &s.state, &s.optim, &in, &r, err), FST_E_NUMERIC, "finite");
        assert_memory_equal(s.state.params, was.state.params, s.state.param_count * sizeof(float));
        s.x[3 * WIDTH + 5] = good;
        assert_ok(fst_trainer_step(t, &s.state, &s.optim, &in, &r, err));
        fst_trainer_free(t);
        t = new_trainer(&was, *b, SHARD, 1);
        assert_ok(fst_trainer_step(t, &was.state, &was.optim, &in, &r, err));
        assert_memory_equal(s.state.params, was.state.params, s.state.param_count * sizeof(float));
        fst_trainer_free(t);
        close_set(&s);
        close_set(&was);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sums_are_those_of_whole_gradients),
        cmocka_unit_test(norms_and_windows_agree),
        cmocka_unit_test(bad_numbers_touch_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

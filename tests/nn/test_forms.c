/* Layers whose gradients a trainer keeps in forms, as factors or in blocks: steps are those of gradients that are made.
 */
#include "forms.h"
#include "nn/support.h"

enum { CLASSES = 10, ROWS = 7, SHARD = 2, IN = 333, OUT = 601, STEPS = 4 };

static fst_graph *wide(void)
{
    fst_graph *g = NULL;
    fst_shape in = {1, {IN}};
    assert_ok(fst_graph_new(&g, err));
    fst_value v = fst_graph_relu(g, fst_graph_linear(g, fst_graph_input(g, &in), "fc1", OUT, true));
    assert_ok(fst_graph_finish(g, fst_graph_linear(g, v, "fc2", CLASSES, true), err));
    return g;
}

/* Kernels of 9, 1 and 25 taps, over more inputs than a tile of any has. */
static fst_graph *convolutions(void)
{
    static const int64_t channels[] = {64, 144, 32}, taps[] = {3, 1, 5};
    fst_graph *g = NULL;
    fst_shape in = {3, {64, 5, 6}};
    assert_ok(fst_graph_new(&g, err));
    fst_value v = fst_graph_input(g, &in);
    for (int i = 0; i < 3; i++) {
        char name[16];
        fst_conv2d conv = {.out_channels = channels[i],
                           .kernel = {taps[i], taps[i]},
                           .stride = {1, 1},
                           .padding = {taps[i] / 2, taps[i] / 2},
                           .bias = i == 1};
        snprintf(name, sizeof name, "conv%d", i);
        v = fst_graph_relu(g, fst_graph_conv2d(g, v, name, &conv));
    }
    v = fst_graph_linear(g, fst_graph_global_avgpool(g, v), "head", CLASSES, true);
    assert_ok(fst_graph_finish(g, v, err));
    return g;
}

typedef fst_graph *maker(void);
static maker *const makers[] = {wide, convolutions};
enum { MAKERS = sizeof makers / sizeof *makers };

struct set {
    fst_graph *graph;
    fst_state state;
    fst_optim optim;
    float *x, *anchor, *shift;
    int32_t labels[ROWS];
};

static void open_set(struct set *s, maker *make, const fst_optim_spec *spec)
{
    *s = (struct set){.graph = make()};
    size_t values = ROWS * sample_floats(s->graph);
    s->x = new_floats(values);
    assert_ok(fst_state_init(&s->state, s->graph, err));
    fst_state_randomise(&s->state, s->graph, 5);
    assert_ok(fst_optim_init(&s->optim, spec, s->state.param_count, err));
    fill_normal(s->x, values, 5, "test.x", 1);
    fill_labels(s->labels, ROWS, CLASSES, 5);
    s->anchor = new_floats(s->state.param_count);
    s->shift = new_floats(s->state.param_count);
    fill_normal(s->anchor, s->state.param_count, 5, "test.anchor", 0.1);
    fill_normal(s->shift, s->state.param_count, 5, "test.shift", 1e-3);
}

static void close_set(struct set *s)
{
    free(s->x);
    free(s->anchor);
    free(s->shift);
    fst_optim_release(&s->optim);
    fst_state_release(&s->state);
    fst_graph_free(s->graph);
}

static const fst_optim_spec specs[] = {
    {.kind = FST_OPTIM_SGD, .learning_rate = 0.1},
    {.kind = FST_OPTIM_SGD, .learning_rate = 0.1, .momentum = 0.9, .weight_decay = 1e-2, .clip_norm = 0.5},
    {.kind = FST_OPTIM_ADAM, .learning_rate = 0.01, .eps = 1e-2},
};
enum { SPECS = sizeof specs / sizeof *specs };

static size_t rows_of_step(int step) /* full; the last shard not full; shards left out; full */
{
    static const size_t rows[STEPS] = {ROWS, ROWS - 2, SHARD - 1, ROWS};
    return rows[step];
}

static bool pulled(int step) /* towards an anchor, and shifted */
{
    return step % 2;
}

static fst_trainer *new_trainer(const struct set *s, const char *backend, int threads)
{
    fst_trainer *t = NULL;
    fst_trainer_options o = {.batch_size = ROWS, .shard_size = SHARD, .threads = threads, .backend = backend};
    assert_ok(fst_trainer_new(&t, s->graph, &o, err));
    return t;
}

static fst_step_input input_of(const struct set *s, int step)
{
    return (fst_step_input){.rows = rows_of_step(step),
                            .x = s->x,
                            .labels = s->labels,
                            .loss = FST_LOSS_CROSS_ENTROPY,
                            .learning_rate = s->optim.spec.learning_rate,
                            .prox_mu = pulled(step) ? 0.3 : 0,
                            .anchor = s->anchor,
                            .shift = pulled(step) ? s->shift : NULL};
}

static void train(struct set *s, const char *backend, int threads, double *norms)
{
    fst_trainer *t = new_trainer(s, backend, threads);
    for (int step = 0; step < STEPS; step++) {
        fst_step_input in = input_of(s, step);
        fst_step_result r;
        assert_ok(fst_trainer_step(t, &s->state, &s->optim, &in, &r, err));
        norms[step] = r.grad_norm;
    }
    fst_trainer_free(t);
}

/* The whole batch by a plan, which makes its gradient. */
static void train_by_hand(struct set *s, const char *backend, double *norms)
{
    float *grads = new_floats(s->state.param_count);
    for (int step = 0; step < STEPS; step++) {
        fst_plan *plan = NULL;
        size_t rows = rows_of_step(step);
        fst_plan_options o = {.batch = (int64_t)rows, .training = true, .backend = backend};
        const float *logits;
        double losses[ROWS];
        fst_loss loss = FST_LOSS_CROSS_ENTROPY;
        assert_ok(fst_plan_new(&plan, s->graph, &o, err));
        assert_ok(fst_plan_forward(plan, &s->state, s->x, NULL, &logits, err));
        fst_loss_input li = {
            .logits = logits, .rows = rows, .classes = CLASSES, .labels = s->labels, .divisor = (double)rows};
        fst_loss_rows(&loss, &li, fst_plan_output_grad(plan), losses, NULL, NULL);
        assert_ok(fst_plan_backward(plan, &s->state, grads, err));
        fst_optim_input in = {.grads = &grads,
                              .parts = 1,
                              .learning_rate = s->optim.spec.learning_rate,
                              .prox_mu = pulled(step) ? 0.3 : 0,
                              .anchor = s->anchor,
                              .shift = pulled(step) ? s->shift : NULL};
        norms[step] = fst_optim_step(&s->optim, s->state.params, &in, NULL);
        fst_plan_free(plan);
    }
    free(grads);
}

static void steps_are_those_of_whole_gradients(void **unused)
{
    (void)unused;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (int i = 0; i < SPECS * MAKERS; i++) {
            struct set wanted, one, three;
            double norms[3][STEPS];
            open_set(&wanted, makers[i / SPECS], &specs[i % SPECS]);
            open_set(&one, makers[i / SPECS], &specs[i % SPECS]);
            open_set(&three, makers[i / SPECS], &specs[i % SPECS]);
            train_by_hand(&wanted, *b, norms[0]);
            train(&one, *b, 1, norms[1]);
            train(&three, *b, 3, norms[2]);
            for (size_t k = 0; k < wanted.state.param_count; k++)
                assert_true(fabsf(one.state.params[k] - wanted.state.params[k]) < 1e-5f);
            assert_memory_equal(one.state.params, three.state.params, one.state.param_count * sizeof(float));
            for (int step = 0; step < STEPS; step++)
                assert_true(fabs(norms[1][step] - norms[0][step]) < 1e-5 && norms[1][step] == norms[2][step]);
            close_set(&wanted);
            close_set(&one);
            close_set(&three);
        }
}

/* Where the backend leaves factors, it is of the layer that is large. */
static void large_layers_alone(void **unused)
{
    (void)unused;
    fst_graph *g = wide();
    for (const char *const *b = fst_backend_names(); *b; b++) {
        const struct fst_form *f = NULL;
        fst_plan *plan = NULL;
        fst_plan_options o = {.batch = SHARD, .training = true, .backend = *b};
        struct fst_plan_more more = {.batch_rows = ROWS, .blocks = true};
        assert_ok(fst__plan_new(&plan, g, &o, &more, err));
        size_t n = fst__plan_forms(plan, &f);
        assert_int_equal(n, !strcmp(*b, "onednn") ? 1 : 0);
        if (n)
            assert_true(f->from == 0 && f->out == OUT && f->in == IN && f->rows == ROWS);
        fst_plan_free(plan);
    }
    fst_graph_free(g);
}

static void bad_numbers_touch_nothing(void **unused)
{
    (void)unused;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct set s, was;
        open_set(&s, wide, &specs[1]);
        open_set(&was, wide, &specs[1]);
        fst_trainer *t = new_trainer(&s, *b, 2);
        fst_step_input in = input_of(&s, 0);
        fst_step_result r;
        float good = s.x[3 * IN + 5]; /* of the second shard */
        s.x[3 * IN + 5] = INFINITY;
        assert_fails(fst_trainer_step(t, &s.state, &s.optim, &in, &r, err), FST_E_NUMERIC, "finite");
        assert_memory_equal(s.state.params, was.state.params, s.state.param_count * sizeof(float));
        s.x[3 * IN + 5] = good;
        assert_ok(fst_trainer_step(t, &s.state, &s.optim, &in, &r, err));
        fst_trainer_free(t);
        t = new_trainer(&was, *b, 1);
        assert_ok(fst_trainer_step(t, &was.state, &was.optim, &in, &r, err));
        assert_memory_equal(s.state.params, was.state.params, s.state.param_count * sizeof(float));
        fst_trainer_free(t);
        close_set(&s);
        close_set(&was);
    }
}

static void convolutions_leave_blocks(void **unused)
{
    (void)unused;
    fst_graph *g = convolutions();
    for (const char *const *b = fst_backend_names(); *b; b++) {
        const struct fst_form *f = NULL;
        fst_plan *plan = NULL;
        fst_plan_options o = {.batch = SHARD, .training = true, .backend = *b};
        struct fst_plan_more more = {.blocks = true};
        assert_ok(fst__plan_new(&plan, g, &o, &more, err));
        size_t n = fst__plan_forms(plan, &f);
        assert_int_equal(n, strstr(fst_backend_describe(*b), ", avx") ? 3 : 0); /* else its kernels have no blocks */
        for (size_t i = 0; i < n; i++)
            assert_true((f[i].block == 16 || f[i].block == 8) && f[i].taps == (i == 0 ? 9 : i == 1 ? 1 : 25));
        fst_plan_free(plan);
    }
    fst_graph_free(g);
}

/* What stands where, by the definition of blocks. */
static void blocks_become_weights(void **unused)
{
    enum { MOST = 16 * 16 * 25 * 3 };
    static const size_t shapes[][3] = {{16, 9, 3}, {16, 1, 2}, {8, 9, 2}, {8, 25, 1}, {16, 6, 1}};
    (void)unused;
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        size_t block = shapes[s][0], taps = shapes[s][1], blocks = shapes[s][2], columns = blocks * block * taps;
        struct fst_form f = {.block = block, .taps = taps, .in = columns, .out = block};
        float from[MOST], to[MOST];
        for (size_t i = 0; i < MOST; i++)
            from[i] = (float)i;
        fst__blocks_tile(&f, from, blocks, to);
        for (size_t o = 0; o < block; o++)
            for (size_t i = 0; i < blocks * block; i++)
                for (size_t k = 0; k < taps; k++) {
                    size_t wanted = ((i / block * taps + k) * block + i % block) * block + o;
                    assert_true(to[o * columns + i * taps + k] == (float)wanted);
                }
    }
}

/* Products are told finite or not by their values, also where a bound on them does not tell. */
static void products_that_overflow(void **unused)
{
    enum { A = 5, B = 40, N = 3, AT = 7 };
    const struct fst_form f = {.from = AT, .out = A, .in = B, .rows = N};
    float *grads = new_floats(AT + A * B), *out = grads + AT, *in = out + N * A;
    (void)unused;
    out[1 * A + 2] = 1e30f;
    in[2 * B + 39] = 1e30f; /* another row: they do not meet */
    assert_true(fst__factors_finite(&f, grads, 0, N));
    in[1 * B + 39] = -1e30f;
    assert_false(fst__factors_finite(&f, grads, 0, N));
    assert_false(fst__factors_finite(&f, grads, 1, 1));
    assert_true(fst__factors_finite(&f, grads, 2, 1));
    in[1 * B + 39] = NAN;
    assert_false(fst__factors_finite(&f, grads, 0, N));
    free(grads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_are_those_of_whole_gradients),
        cmocka_unit_test(large_layers_alone),
        cmocka_unit_test(bad_numbers_touch_nothing),
        cmocka_unit_test(convolutions_leave_blocks),
        cmocka_unit_test(blocks_become_weights),
        cmocka_unit_test(products_that_overflow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

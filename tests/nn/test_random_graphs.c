/*
 * Every backend against the reference backend on graphs drawn at random (random_graph.h): outputs, gradients of inputs
 * and parameters, running statistics; in training, training with frozen statistics, and inference; in f32 and, where
 * the machine has it, bf16. FEDSTILL_GRAPHS says how many graphs, FEDSTILL_TEST_SEED picks one.
 */
#include "nn/agree.h"
#include "nn/random_graph.h"

struct mode {
    const char *name;
    bool training, frozen;
};
static const struct mode modes[] = {
    {"training", true, false}, {"training, frozen", true, true}, {"inference", false, false}};

static uint64_t graphs(void)
{
    const char *n = getenv("FEDSTILL_GRAPHS");
    return n ? strtoull(n, NULL, 10) : 200;
}

typedef void (*visit)(struct draft *d, const struct subject *s, struct tally *t);

/* Calls fn for every graph, or for the one that the environment names. */
static void each_graph(uint64_t count, visit fn, size_t compared_for_one_left_out, struct tally *t)
{
    const char *one = getenv("FEDSTILL_TEST_SEED");
    uint64_t from = one ? strtoull(one, NULL, 10) : 0;
    for (uint64_t seed = from; seed < (one ? from + 1 : count); seed++) {
        struct draft d;
        draw_graph(&d, seed);
        struct subject s = {d.graph, d.batch, seed, d.text};
        fn(&d, &s, t);
        fst_graph_free(d.graph);
    }
    if (!one) {
        print_message("%zu tensors compared, %zu left out\n", t->compared, t->left_out);
        assert_true(t->left_out * compared_for_one_left_out < t->compared);
    }
}

static void in_all_modes(struct draft *d, const struct subject *s, struct tally *t)
{
    (void)d;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        /* Now and then nobody asks for the inputs' gradients: whole branches then need none. */
        fst_plan_options po = {.training = modes[i].training,
                               .frozen = modes[i].frozen,
                               .input_grad = modes[i].training && s->seed % 4 != 1};
        check_subject(s, po, modes[i].name, t);
    }
}

static void backends_agree(void **state)
{
    struct tally t = {0};
    (void)state;
    each_graph(graphs(), in_all_modes, 10, &t);
    assert_true(t.compared > graphs() || getenv("FEDSTILL_TEST_SEED"));
}

/* bf16 keeps 8 bits: each value that is stored is off by up to 2^-9 of itself. What the reference makes of inputs moved
 * by some times as much, again and again, says how far the result may be off and where a kink is near. */
static void in_bf16(struct draft *d, const struct subject *s, struct tally *t)
{
    static const struct bounds bounds = {
        .noise = 1.0 / 64, .off = 0.15, .jump = 0.15, .least = 0.2, .wild = 1, .moved = 6};
    (void)d;
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++) {
        fst_plan_options po = {.batch = s->batch,
                               .training = modes[i].training,
                               .frozen = modes[i].frozen,
                               .input_grad = modes[i].training};
        struct measure m;
        char what[96];
        open_measure(&m, s, po, &bounds);
        po.precision = FST_PRECISION_BF16;
        snprintf(what, sizeof what, "bf16, %s", modes[i].name);
        check_against(&m, s, &po, &bounds, what, t);
        free(m.want.data);
    }
}

static void bf16_agrees(void **state)
{
    struct tally t = {0};
    (void)state;
    if (!fst_backend_supports(NULL, FST_PRECISION_BF16)) {
        print_message("no bf16 on this machine\n");
        return;
    }
    each_graph(graphs() / 4 + 1, in_bf16, 2, &t);
}

/* A plan gives the same bits every time, whatever it ran before. */
static void twice_on(struct draft *d, const struct subject *s, const char *backend, fst_precision precision)
{
    fst_plan *plan = NULL;
    fst_state state = {0};
    float *x[AGREE_INPUTS], *other[AGREE_INPUTS];
    const float *y;
    size_t count[AGREE_INPUTS], inputs = subject_inputs(s, (struct noise){0}, x, count), m;
    const fst_draws draws = {s->seed, 1, 0};
    fst_plan_options po = {
        .batch = d->batch, .training = true, .frozen = true, .backend = backend, .precision = precision};
    (void)subject_inputs(s, (struct noise){100, 0}, other, count);
    m = (size_t)d->batch * output_floats(d->graph);
    assert_ok(fst_state_init(&state, d->graph, err));
    fill_state(&state, d->graph, s->seed);
    assert_ok(fst_plan_new(&plan, d->graph, &po, err));
    float *first = new_floats(m + state.param_count), *grads = new_floats(state.param_count);
    for (int round = 0; round < 3; round++) {
        const float *const *in = (const float *const *)(round == 1 ? other : x);
        assert_ok(fst_plan_forward_inputs(plan, &state, in, &draws, &y, err));
        if (round == 0)
            memcpy(first, y, m * sizeof *y);
        else if (round == 2)
            assert_memory_equal(first, y, m * sizeof *y);
        fill_normal(fst_plan_output_grad(plan), m, s->seed + (round == 1), "test.grad", 1);
        assert_ok(fst_plan_backward(plan, &state, grads, err));
        if (round == 0)
            memcpy(first + m, grads, state.param_count * sizeof *grads);
        else if (round == 2)
            assert_memory_equal(first + m, grads, state.param_count * sizeof *grads);
    }
    for (size_t i = 0; i < inputs; i++) {
        free(x[i]);
        free(other[i]);
    }
    free(first);
    free(grads);
    fst_plan_free(plan);
    fst_state_release(&state);
}

static void twice(struct draft *d, const struct subject *s, struct tally *t)
{
    t->compared++;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (int p = FST_PRECISION_F32; p <= FST_PRECISION_BF16; p++)
            if (fst_backend_supports(*b, (fst_precision)p))
                twice_on(d, s, *b, (fst_precision)p);
}

static void plans_have_no_memory(void **state)
{
    struct tally t = {0};
    (void)state;
    each_graph(graphs() / 8 + 1, twice, 1, &t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(backends_agree),
        cmocka_unit_test(bf16_agrees),
        cmocka_unit_test(plans_have_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

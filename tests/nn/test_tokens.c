/* Sequences and tokens: gradients of their ops against finite differences, what the builders refuse, and what is known
 * of spectral norms and of attention without computing them. */
#include "nn/probe.h"

#include "fedstill/models.h"

/* ---- gradients ------------------------------------------------------------------------------------- */

static fst_value conv1d_padded(fst_graph *g, fst_value x)
{
    return fst_graph_conv1d(g, x, "op",
                            &(fst_conv1d){.out_channels = 5, .kernel = 3, .stride = 1, .padding = 1, .bias = true});
}

static fst_value conv1d_groups(fst_graph *g, fst_value x)
{
    return fst_graph_conv1d(g, x, "op",
                            &(fst_conv1d){.out_channels = 6, .kernel = 4, .stride = 3, .padding = 2, .groups = 2});
}

static void convolutions(void **state)
{
    (void)state;
    check(conv1d_padded, FST_SHAPE(3, 11), 2, false, 0.1f, 0.25);
    check(conv1d_groups, FST_SHAPE(4, 9), 2, false, 0.1f, 0.25);
    check(conv1d_padded, FST_SHAPE(17, 1), 3, false, 0.1f, 0.25);
}

static fst_value linear(fst_graph *g, fst_value x)
{
    return fst_graph_linear(g, x, "op", 4, true);
}

static fst_value token_network(fst_graph *g, fst_value x)
{
    x = fst_graph_gelu_tanh(g, fst_graph_linear(g, x, "first", 7, false));
    return fst_graph_linear(g, fst_graph_transpose(g, fst_graph_scale(g, x, -0.7)), "second", 3, true);
}

static void tokens(void **state)
{
    (void)state;
    check(linear, FST_SHAPE(5, 3), 2, false, 0.1f, 0.25);
    check(linear, FST_SHAPE(1, 6), 1, false, 0.1f, 0.25);
    check(token_network, FST_SHAPE(5, 4), 3, false, 0.1f, 0.02);
    check(fst_graph_transpose, FST_SHAPE(3, 5), 2, false, 0.1f, 0.25);
}

static fst_value mean_of_three(fst_graph *g, fst_value x)
{
    return fst_graph_mean(g, (fst_value[]){x, x + 1, x}, 3);
}

static fst_value spectral(fst_graph *g, fst_value x)
{
    return fst_graph_spectral_linear(g, x, "op", 5, true);
}

/* Frozen: the power iteration is a constant to the gradient but not to a finite difference. */
static void spectral_norms(void **state)
{
    const fst_shape pair[] = {FST_SHAPE(3, 2), FST_SHAPE(3, 2)};
    (void)state;
    check(spectral, FST_SHAPE(4), 3, true, 0.1f, 2e-3);
    check(spectral, FST_SHAPE(3, 4), 2, true, 0.1f, 2e-3);
    check_inputs(mean_of_three, pair, 2, 2, false, 0.1f, 0.25);
}

static fst_value attention(fst_graph *g, fst_value q)
{
    return fst_graph_attention(g, q, q + 1, q + 2, 2);
}

static fst_value self_attention(fst_graph *g, fst_value x)
{
    return fst_graph_attention(g, x, x, x, 3);
}

static fst_value keys_are_values(fst_graph *g, fst_value x)
{
    return fst_graph_attention(g, x, x + 1, x + 1, 1);
}

static fst_value cross(fst_graph *g, fst_value x)
{
    fst_cross_attention o = {.heads = 2, .width = 6, .bias = true, .dropout = 0.2, .eps = 1e-5};
    return fst_graph_cross_attention(g, x, x + 1, "op", &o);
}

static void attentions(void **state)
{
    const fst_shape three[] = {FST_SHAPE(3, 4), FST_SHAPE(5, 4), FST_SHAPE(5, 6)};
    const fst_shape many[] = {FST_SHAPE(67, 2), FST_SHAPE(3, 2), FST_SHAPE(3, 2)}; /* more queries than go together */
    const fst_shape two[] = {FST_SHAPE(4, 5), FST_SHAPE(3, 7)}, equal[] = {FST_SHAPE(2, 3), FST_SHAPE(4, 3)};
    (void)state;
    check_inputs(attention, three, 3, 2, false, 0.1f, 0.1);
    check_inputs(attention, many, 3, 1, false, 0.01f, 1);
    check_inputs(keys_are_values, equal, 2, 2, false, 0.1f, 0.1);
    check(self_attention, FST_SHAPE(4, 6), 2, false, 0.05f, 0.2);
    check_inputs(cross, two, 2, 2, false, 0.1f, 0.01);
}

/* ---- what is known without computing it ---------------------------------------------------------------- */

struct setup {
    fst_graph *graph;
    fst_plan *plan;
    fst_state state;
};

static void open_setup(struct setup *s, const char *backend, builder build, const fst_shape *input, size_t inputs,
                       bool training)
{
    fst_plan_options o = {.batch = 1, .training = training, .backend = backend};
    *s = (struct setup){0};
    assert_ok(fst_graph_new(&s->graph, err));
    fst_value x = fst_graph_input(s->graph, &input[0]);
    for (size_t i = 1; i < inputs; i++)
        (void)fst_graph_input(s->graph, &input[i]);
    assert_ok(fst_graph_finish(s->graph, build(s->graph, x), err));
    assert_ok(fst_state_init(&s->state, s->graph, err));
    fst_state_randomise(&s->state, s->graph, 5);
    assert_ok(fst_plan_new(&s->plan, s->graph, &o, err));
}

static void close_setup(struct setup *s)
{
    fst_plan_free(s->plan);
    fst_state_release(&s->state);
    fst_graph_free(s->graph);
}

static fst_value bare_spectral(fst_graph *g, fst_value x)
{
    return fst_graph_spectral_linear(g, x, "op", 3, false);
}

/* After many passes the layer's largest singular value is 1: of diag(3, -2, 1), the unit vectors become 1, -2/3, 1/3.
 * An inference plan takes the weight as it is at its first pass, and again when told. */
static void power_iterations_converge(void **state)
{
    static const float diagonal[3] = {3, -2, 1}, want[3] = {1, -2.0f / 3, 1.0f / 3};
    const fst_shape in = FST_SHAPE(3);
    const float one[3] = {1, 1, 1}, *y;
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct setup s;
        fst_plan *inference = NULL;
        fst_plan_options o = {.batch = 1, .backend = *b};
        open_setup(&s, *b, bare_spectral, &in, 1, true);
        for (int i = 0; i < 9; i++)
            s.state.params[i] = i % 4 ? 0 : diagonal[i / 4];
        assert_ok(fst_plan_new(&inference, s.graph, &o, err));
        for (int pass = 0; pass < 60; pass++)
            assert_ok(fst_plan_forward(s.plan, &s.state, one, NULL, &y, err));
        for (int i = 0; i < 3; i++)
            assert_true(fabsf(y[i] - want[i]) < 1e-6f);
        assert_ok(fst_plan_forward(inference, &s.state, one, NULL, &y, err));
        for (int i = 0; i < 3; i++)
            assert_true(fabsf(y[i] - want[i]) < 1e-6f);
        for (int i = 0; i < 3; i++)
            assert_true(fabsf(s.state.buffers[i] - (float)(i == 0) * s.state.buffers[0]) < 1e-4f);
        s.state.params[4] = 1.5f;
        fst_plan_renew(inference);
        assert_ok(fst_plan_forward(inference, &s.state, one, NULL, &y, err));
        assert_true(fabsf(y[1] - 0.5f) < 1e-6f && fabsf(y[0] - 1) < 1e-6f);
        fst_plan_free(inference);
        close_setup(&s);
    }
}

/* Equal keys: every query gets the mean of the values. One key that fits by far: its value alone. */
static void attention_weighs(void **state)
{
    const fst_shape in[] = {FST_SHAPE(2, 2), FST_SHAPE(3, 2), FST_SHAPE(3, 2)};
    const float q[4] = {300, 300, 1, -1}, equal[6] = {1, 2, 1, 2, 1, 2}, one[6] = {0, 0, 9, 9, 0, 0};
    const float v[6] = {1, 10, 2, 20, 6, 60}, *y;
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct setup s;
        open_setup(&s, *b, attention, in, 3, false);
        assert_ok(fst_plan_forward_inputs(s.plan, &s.state, (const float *const[]){q, equal, v}, NULL, &y, err));
        for (int i = 0; i < 4; i++)
            assert_true(fabsf(y[i] - (i % 2 ? 30.0f : 3.0f)) < 1e-5f);
        assert_ok(fst_plan_forward_inputs(s.plan, &s.state, (const float *const[]){q, one, v}, NULL, &y, err));
        assert_true(y[0] == 2 && y[1] == 20);
        close_setup(&s);
    }
}

/* ---- what is refused ------------------------------------------------------------------------------------- */

static fst_value conv1d_flat(fst_graph *g, fst_value x)
{
    return conv1d_padded(g, fst_graph_flatten(g, x));
}

static fst_value conv1d_long(fst_graph *g, fst_value x)
{
    return fst_graph_conv1d(g, x, "op", &(fst_conv1d){.out_channels = 2, .kernel = 99, .stride = 1});
}

static fst_value transpose_flat(fst_graph *g, fst_value x)
{
    return fst_graph_transpose(g, fst_graph_flatten(g, x));
}

static fst_value scale_nan(fst_graph *g, fst_value x)
{
    return fst_graph_scale(g, x, NAN);
}

static fst_value no_heads(fst_graph *g, fst_value x)
{
    return fst_graph_attention(g, x, x, x, 0);
}

static fst_value odd_heads(fst_graph *g, fst_value x)
{
    return fst_graph_attention(g, x, x, x, 4);
}

static fst_value keys_differ(fst_graph *g, fst_value x)
{
    return fst_graph_attention(g, x, fst_graph_linear(g, x, "k", 5, false), x, 1);
}

static fst_value values_differ(fst_graph *g, fst_value x)
{
    fst_value t = fst_graph_transpose(g, x);
    return fst_graph_attention(g, x, x, t, 1);
}

static fst_value key_missing(fst_graph *g, fst_value x)
{
    return fst_graph_attention(g, x, 12, x, 1);
}

static fst_value cross_flat(fst_graph *g, fst_value x)
{
    fst_cross_attention o = {.heads = 1, .width = 4, .eps = 1e-5};
    return fst_graph_cross_attention(g, fst_graph_flatten(g, x), x, "op", &o);
}

static fst_value mean_of_none(fst_graph *g, fst_value x)
{
    return fst_graph_mean(g, &x, 0);
}

static fst_value name_twice(fst_graph *g, fst_value x)
{
    return fst_graph_layernorm(g, fst_graph_spectral_linear(g, x, "op", 3, true), "op", 1e-5);
}

static void mistakes_are_named(void **state)
{
    static const struct {
        builder build;
        const char *text;
    } cases[] = {
        {conv1d_flat, "needs (channels, length)"},
        {conv1d_long, "does not fit"},
        {transpose_flat, "needs (rows, columns)"},
        {scale_nan, "not a usable number"},
        {no_heads, "into 0 heads"},
        {odd_heads, "into 4 heads"},
        {keys_differ, "do not belong together"},
        {values_differ, "do not belong together"},
        {key_missing, "there is no value 12"},
        {cross_flat, "needs (tokens, width)"},
        {mean_of_none, "of no values"},
        {name_twice, "the name is taken"},
    };
    const fst_shape in = FST_SHAPE(3, 6);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_graph *g = NULL;
        assert_ok(fst_graph_new(&g, err));
        fst_value y = cases[i].build(g, fst_graph_input(g, &in));
        assert_fails(fst_graph_finish(g, y, err), FST_E_ARGUMENT, cases[i].text);
        fst_graph_free(g);
    }
}

static void adapters_are_checked(void **state)
{
    fst_graph *g = NULL;
    fst_mergenet c = FST_MERGENET_DEFAULTS;
    (void)state;
    c.target[0] = c.target[1] = c.source[0] = c.source[1] = 4;
    c.layers = 0;
    assert_fails(fst_mergenet_graph(&g, &c, err), FST_E_ARGUMENT, "layers");
    c.layers = 1;
    c.source[1] = 0;
    assert_fails(fst_mergenet_graph(&g, &c, err), FST_E_ARGUMENT, "dimensions");
    assert_null(g);
    c.source[1] = 7;
    assert_ok(fst_mergenet_graph(&g, &c, err));
    assert_int_equal(fst_graph_inputs(g), 2);
    fst_shape out = fst_graph_output_shape(g);
    assert_true(out.rank == 2 && out.dim[0] == 4 && out.dim[1] == 4);
    fst_graph_free(g);
}

/* The nth allocation of a graph, plan and pass with everything of this file fails. */
static fst_status whole_life(const char *backend, fst_error *err)
{
    fst_graph *g = NULL;
    fst_plan *plan = NULL;
    fst_state state = {0};
    fst_mergenet c = FST_MERGENET_DEFAULTS;
    float a[6] = {1, 2, 3, 4, 5, 6}, grads[4096];
    const float *y, *const x[] = {a, a};
    c.target[0] = c.source[1] = 3;
    c.target[1] = c.source[0] = 2;
    c.heads = c.layers = 1;
    c.min_width = 4;
    fst_status s = fst_mergenet_graph(&g, &c, err);
    fst_plan_options o = {.batch = 1, .training = true, .backend = backend};
    if (!s)
        s = fst_state_init(&state, g, err);
    if (!s)
        s = fst_plan_new(&plan, g, &o, err);
    if (!s)
        s = fst_plan_forward_inputs(plan, &state, x, NULL, &y, err);
    if (!s)
        s = fst_plan_backward(plan, &state, grads, err);
    fst_plan_free(plan);
    fst_state_release(&state);
    fst_graph_free(g);
    return s;
}

static void any_allocation_may_fail(void **state)
{
    enum { ENOUGH = 5000 };
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        uint64_t n = 1;
        for (; n < ENOUGH; n++) {
            fst_error e = {0};
            fst_alloc_fail_at(n);
            fst_status s = whole_life(*b, &e);
            fst_alloc_fail_at(0);
            if (!s)
                break;
            if (s != FST_E_MEMORY || e.status != FST_E_MEMORY)
                fail_msg("%s: allocation %d failed and gave %s: %s", *b, (int)n, fst_status_name(s), e.message);
        }
        assert_true(n > 40 && n < ENOUGH);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),
        cmocka_unit_test(tokens),
        cmocka_unit_test(spectral_norms),
        cmocka_unit_test(attentions),
        cmocka_unit_test(power_iterations_converge),
        cmocka_unit_test(attention_weighs),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(adapters_are_checked),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

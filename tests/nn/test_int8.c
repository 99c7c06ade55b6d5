/*
 * Networks in int8: what a layer computes by hand, that both backends give the same bits, what is folded, rounded and
 * shared when a graph is made over, and what is refused.
 */
#include "nn/support.h"

/* ---- helpers ----------------------------------------------------------------------------------------- */

struct pair { /* a network in f32 and the same in int8 */
    fst_graph *f32, *int8;
    fst_state f32_state, int8_state;
};

static size_t values(const fst_graph *g)
{
    return fst_graph_layers(g);
}

/* Every layer that can be int8 is, with an input scale that rounds some values to the range's ends. */
static void make_int8(struct pair *p, uint64_t seed, float scale)
{
    float *scales = new_floats(values(p->f32));
    for (size_t i = 0; i < values(p->f32); i++) {
        fst_node_info n = fst_graph_node(p->f32, (fst_value)i);
        bool is_unsigned = n.inputs && fst_graph_is_positive(p->f32, n.input[0]);
        if (fst_graph_int8_takes(p->f32, (fst_value)i, NULL))
            scales[i] = is_unsigned ? scale / 2 : scale;
    }
    assert_ok(fst_graph_int8(&p->int8, p->f32, scales, err));
    free(scales);
    assert_ok(fst_state_init(&p->f32_state, p->f32, err));
    fill_state(&p->f32_state, p->f32, seed);
    assert_ok(fst_state_init(&p->int8_state, p->int8, err));
    fst_state_int8(&p->int8_state, p->int8, &p->f32_state, p->f32);
}

static void release(struct pair *p)
{
    fst_state_release(&p->f32_state);
    fst_state_release(&p->int8_state);
    fst_graph_free(p->f32);
    fst_graph_free(p->int8);
}

static void run(const fst_graph *g, fst_state *s, const char *backend, int threads, int64_t batch, const float *x,
                float *out)
{
    fst_plan *plan;
    const float *y;
    fst_plan_options o = {.batch = batch, .threads = threads, .backend = backend};
    assert_ok(fst_plan_new(&plan, g, &o, err));
    assert_ok(fst_plan_forward(plan, s, x, NULL, &y, err));
    memcpy(out, y, (size_t)batch * output_floats(g) * sizeof *out);
    fst_plan_free(plan);
}

/* Both backends on the same samples, with one thread and with two: the same bits. */
static void assert_same_bits(struct pair *p, int64_t batch, double size)
{
    size_t n = (size_t)batch * output_floats(p->int8);
    float *x = new_floats((size_t)batch * sample_floats(p->int8)), *want = new_floats(n), *got = new_floats(n);
    fill_normal(x, (size_t)batch * sample_floats(p->int8), 7, "test.int8", size);
    run(p->int8, &p->int8_state, "reference", 1, batch, x, want);
    assert_true(distance(want, NULL, n) > 0);
    for (int i = 0; fst_backend_names()[i]; i++)
        for (int threads = 1; threads <= 2; threads++) {
            run(p->int8, &p->int8_state, fst_backend_names()[i], threads, batch, x, got);
            assert_memory_equal(got, want, n * sizeof *want);
        }
    free(x);
    free(want);
    free(got);
}

static fst_value conv(fst_graph *g, fst_value x, const char *name, int64_t out, int64_t kernel, int64_t stride,
                      int64_t padding, int64_t groups, bool bias)
{
    fst_conv2d c = {.out_channels = out,
                    .kernel = {kernel, kernel},
                    .stride = {stride, stride},
                    .padding = {padding, padding},
                    .groups = groups,
                    .bias = bias};
    return fst_graph_conv2d(g, x, name, &c);
}

/* ---- by hand ------------------------------------------------------------------------------------------- */

/* y = W q 0.5 s + b of 3 inputs and 2 outputs, all numbers such that f32 is exact. */
static void test_by_hand(void **state)
{
    (void)state;
    struct pair p = {0};
    float scale[2] = {0, 0.5F}, x[3] = {1.25F, -0.75F, 100};
    assert_ok(fst_graph_new(&p.f32, err));
    fst_value v = fst_graph_linear(p.f32, fst_graph_input(p.f32, &FST_SHAPE(3)), "fc", 2, true);
    assert_ok(fst_graph_finish(p.f32, v, err));
    assert_ok(fst_graph_int8(&p.int8, p.f32, scale, err));
    assert_ok(fst_state_init(&p.f32_state, p.f32, err));
    assert_ok(fst_state_init(&p.int8_state, p.int8, err));
    const float params[] = {127, -63.5F, 0.5F, 1, -2, 0, 3, -1}; /* rows of W, then b */
    memcpy(p.f32_state.params, params, sizeof params);
    fst_state_int8(&p.int8_state, p.int8, &p.f32_state, p.f32);
    /* scales 1 and 2/127; -63.5 is half way between two whole numbers, and so is 0.5: to the even ones */
    const float rounded[] = {127, -64, 0, 64, -127, 0};
    assert_memory_equal(p.int8_state.params, rounded, sizeof rounded);
    assert_float_equal(p.int8_state.params[6], 1, 0);
    assert_float_equal(p.int8_state.params[7], 2.0F / 127, 0);
    /* x / 0.5 is 2.5, -1.5 and 200: 2 and -2, the even ones, and 127, the end of the range */
    float want0 = (127 * 2 + 64 * 2) * 0.5F + 3, want1 = (float)(64 * 2 + 127 * 2) * (0.5F * (2.0F / 127)) - 1;
    for (int i = 0; fst_backend_names()[i]; i++) {
        float y[2];
        run(p.int8, &p.int8_state, fst_backend_names()[i], 1, 1, x, y);
        assert_float_equal(y[0], want0, 0);
        assert_float_equal(y[1], want1, 0);
    }
    bool is_unsigned = true;
    assert_float_equal(fst_graph_int8_scale(p.int8, 2, &is_unsigned), 0.5F, 0);
    assert_false(is_unsigned);
    release(&p);
}

/* ---- the backends agree ---------------------------------------------------------------------------------- */

static void test_convolutions(void **state)
{
    (void)state;
    static const struct {
        int64_t in, height, width, out, kernel, stride, padding, groups, batch;
        bool relu;
    } cases[] = {
        {1, 28, 28, 16, 3, 1, 1, 1, 3, false}, {2, 9, 7, 5, 3, 2, 1, 1, 2, false},
        {3, 8, 8, 8, 5, 1, 2, 1, 1, true},     {16, 14, 14, 32, 3, 1, 1, 1, 2, true},
        {16, 6, 6, 16, 1, 1, 0, 1, 5, true},   {24, 7, 7, 24, 3, 1, 1, 24, 2, true},
        {24, 7, 7, 24, 3, 2, 1, 24, 2, false}, {8, 5, 5, 12, 3, 1, 1, 4, 2, true},
        {33, 4, 4, 17, 3, 1, 1, 1, 4, false},  {256, 4, 4, 64, 3, 1, 1, 1, 2, true},
        {256, 4, 4, 64, 3, 1, 1, 1, 2, false}, {64, 1, 1, 10, 1, 1, 0, 1, 33, true},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct pair p = {0};
        assert_ok(fst_graph_new(&p.f32, err));
        fst_shape in = FST_SHAPE(cases[i].in, cases[i].height, cases[i].width);
        fst_value v = fst_graph_input(p.f32, &in);
        if (cases[i].relu)
            v = fst_graph_relu(p.f32, v);
        v = conv(p.f32, v, "c", cases[i].out, cases[i].kernel, cases[i].stride, cases[i].padding, cases[i].groups,
                 true);
        assert_ok(fst_graph_finish(p.f32, v, err));
        make_int8(&p, i, 0.02F);
        assert_same_bits(&p, cases[i].batch, 1);
        assert_same_bits(&p, cases[i].batch, 100); /* all at the ends of the range: sums as large as they get */
        release(&p);
    }
}

/* All weights and inputs at the ends of their ranges, all of one sign: sums that no float holds. */
static void test_largest_sums(void **state)
{
    (void)state;
    for (int positive = 0; positive < 2; positive++) {
        struct pair p = {0};
        enum { IN = 512, BATCH = 3 };
        float x[BATCH * IN], want[BATCH], got[BATCH];
        assert_ok(fst_graph_new(&p.f32, err));
        fst_value v = fst_graph_input(p.f32, &FST_SHAPE(IN, 1, 1));
        v = positive ? fst_graph_relu(p.f32, v) : v;
        v = fst_graph_flatten(p.f32, conv(p.f32, v, "c", 1, 1, 1, 0, 1, true));
        assert_ok(fst_graph_finish(p.f32, v, err));
        make_int8(&p, 1, 1);
        for (size_t k = 0; k < IN; k++)
            p.int8_state.params[k] = k % 7 ? 127 : 126;
        for (size_t k = 0; k < BATCH * IN; k++)
            x[k] = (float)(1000 - (int)(k % 3) * 900);
        run(p.int8, &p.int8_state, "reference", 1, BATCH, x, want);
        for (int i = 0; fst_backend_names()[i]; i++) {
            run(p.int8, &p.int8_state, fst_backend_names()[i], 1, BATCH, x, got);
            assert_memory_equal(got, want, sizeof want);
        }
        release(&p);
    }
}

/* The parts of networks: norms, sums, shared inputs, pooling and dropout between layers, tokens. */
static fst_value block(fst_graph *g, fst_value x, const char *name, int64_t out, int64_t stride, bool narrow)
{
    char text[4][32];
    for (int i = 0; i < 4; i++)
        snprintf(text[i], sizeof text[i], "%s.%d", name, i);
    fst_value y = fst_graph_batchnorm2d(g, conv(g, x, text[0], out, 3, stride, 1, 1, false), text[1], 1e-5, 0.1);
    y = narrow ? fst_graph_relu6(g, y) : fst_graph_relu(g, y);
    y = conv(g, y, text[2], out, 3, 1, 1, 1, true);
    if (stride > 1)
        x = conv(g, x, text[3], out, 1, stride, 0, 1, false);
    return narrow ? fst_graph_add(g, y, x) : fst_graph_relu(g, fst_graph_add(g, y, x));
}

static fst_graph *small_network(void)
{
    fst_graph *g;
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &FST_SHAPE(3, 16, 16));
    x = fst_graph_relu(g, fst_graph_batchnorm2d(g, conv(g, x, "stem", 8, 3, 1, 1, 1, false), "bn", 1e-5, 0.1));
    x = fst_graph_maxpool2d(g, x, 2, 2, 0);
    x = block(g, x, "a", 8, 1, false);
    x = block(g, x, "b", 16, 2, false);
    x = block(g, x, "c", 16, 1, true);
    x = fst_graph_maxpool2d(g, x, 3, 2, 1); /* of values of both signs */
    x = fst_graph_dropout(g, fst_graph_flatten(g, x), 0.5);
    x = fst_graph_relu(g, fst_graph_linear(g, x, "fc1", 24, true));
    x = fst_graph_dropout(g, x, 0.5);
    fst_value tokens = fst_graph_linear(g, fst_graph_reshape(g, x, &FST_SHAPE(4, 6)), "tokens", 5, false);
    x = fst_graph_linear(g, fst_graph_flatten(g, tokens), "fc2", 7, true);
    assert_ok(fst_graph_finish(g, x, err));
    return g;
}

static void test_networks(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 4; seed++) {
        struct pair p = {.f32 = small_network()};
        make_int8(&p, seed, 0.03F);
        assert_same_bits(&p, (int64_t)(2 * seed - 1), 1);
        release(&p);
    }
}

/* With scales that cover what the values are, int8 is next to f32; a norm that were not folded would be far off. */
static void test_near_f32(void **state)
{
    (void)state;
    enum { BATCH = 16 };
    struct pair p = {.f32 = small_network()};
    make_int8(&p, 3, 0.04F);
    size_t n = BATCH * output_floats(p.f32), in = BATCH * sample_floats(p.f32);
    float *x = new_floats(in), *want = new_floats(n), *got = new_floats(n);
    fill_normal(x, in, 5, "test.int8", 1);
    run(p.f32, &p.f32_state, NULL, 1, BATCH, x, want);
    run(p.int8, &p.int8_state, NULL, 1, BATCH, x, got);
    double off = distance(got, want, n) / distance(want, NULL, n);
    if (off < 1e-4 || off > 0.05)
        fail_msg("int8 is %.4f of its size away from f32", off);
    free(x);
    free(want);
    free(got);
    release(&p);
}

/* ---- what is made -------------------------------------------------------------------------------------------- */

static size_t count_ops(const fst_graph *g, const char *op)
{
    size_t n = 0;
    for (size_t i = 0; i < values(g); i++)
        n += !strcmp(fst_graph_layer(g, i).op, op);
    return n;
}

static void test_what_is_made(void **state)
{
    (void)state;
    struct pair p = {.f32 = small_network()};
    make_int8(&p, 1, 0.03F);
    assert_true(fst_graph_is_int8(p.int8));
    assert_false(fst_graph_is_int8(p.f32));
    assert_int_equal(count_ops(p.int8, "int8_conv2d"), 8);
    assert_int_equal(count_ops(p.int8, "int8_linear"), 3);
    assert_int_equal(count_ops(p.int8, "batchnorm2d"), 0);
    assert_int_equal(count_ops(p.int8, "dropout"), 0);
    /* one for every value that layers read: the two that read a block's input share it */
    assert_int_equal(count_ops(p.int8, "quantise"), 10);
    assert_int_equal(fst_graph_buffers(p.int8), 0);
    release(&p);
}

/* A layer that is left out stays f32, with its norm. */
static void test_some_layers(void **state)
{
    (void)state;
    struct pair p = {.f32 = small_network()};
    float *scales = new_floats(values(p.f32));
    for (size_t i = 0; i < values(p.f32); i++)
        scales[i] = !strcmp(fst_graph_layer(p.f32, i).name, "a.2") ? 0.1F : 0;
    assert_ok(fst_graph_int8(&p.int8, p.f32, scales, err));
    assert_int_equal(count_ops(p.int8, "int8_conv2d"), 1);
    assert_int_equal(count_ops(p.int8, "conv2d"), 7);
    assert_int_equal(count_ops(p.int8, "batchnorm2d"), 4);
    assert_ok(fst_state_init(&p.f32_state, p.f32, err));
    fill_state(&p.f32_state, p.f32, 1);
    assert_ok(fst_state_init(&p.int8_state, p.int8, err));
    fst_state_int8(&p.int8_state, p.int8, &p.f32_state, p.f32);
    for (size_t i = 0; i < fst_graph_params(p.f32); i++) {
        fst_param_info a = fst_graph_param(p.f32, i);
        for (size_t k = 0; !strstr(a.name, "a.2.") && k < fst_graph_params(p.int8); k++) {
            fst_param_info b = fst_graph_param(p.int8, k);
            if (!strcmp(a.name, b.name))
                assert_memory_equal(p.int8_state.params + b.offset, p.f32_state.params + a.offset,
                                    a.count * sizeof(float));
        }
    }
    assert_memory_equal(p.int8_state.buffers, p.f32_state.buffers, p.f32_state.buffer_count * sizeof(float));
    free(scales);
    release(&p);
}

/* ---- what is refused ----------------------------------------------------------------------------------------- */

static void test_refusals(void **state)
{
    (void)state;
    struct pair p = {.f32 = small_network()};
    fst_graph *g = NULL;
    fst_plan *plan = NULL;
    const char *why;
    float *scales = new_floats(values(p.f32));
    assert_fails(fst_graph_int8(&g, p.f32, scales, err), FST_E_UNSUPPORTED, "no layer");
    scales[1] = -1;
    assert_fails(fst_graph_int8(&g, p.f32, scales, err), FST_E_ARGUMENT, "stem");
    scales[1] = INFINITY;
    assert_fails(fst_graph_int8(&g, p.f32, scales, err), FST_E_ARGUMENT, "stem");
    scales[1] = 1;
    scales[2] = 1;
    assert_fails(fst_graph_int8(&g, p.f32, scales, err), FST_E_UNSUPPORTED, "batchnorm2d \"bn\" cannot be int8");
    assert_false(fst_graph_int8_takes(p.f32, 2, &why));
    assert_non_null(strstr(why, "conv2d"));
    make_int8(&p, 1, 0.1F);
    fst_plan_options o = {.batch = 1, .training = true};
    assert_fails(fst_plan_new(&plan, p.int8, &o, err), FST_E_UNSUPPORTED, "do not learn");
    memset(scales, 0, values(p.f32) * sizeof *scales);
    scales[1] = 1;
    assert_fails(fst_graph_int8(&g, p.int8, scales, err), FST_E_ARGUMENT, "f32 graph");
    assert_null(g);
    free(scales);
    release(&p);
    assert_ok(fst_graph_new(&p.f32, err));
    fst_value v = fst_graph_linear(p.f32, fst_graph_input(p.f32, &FST_SHAPE(66312)), "fc", 1, true);
    assert_ok(fst_graph_finish(p.f32, v, err));
    assert_false(fst_graph_int8_takes(p.f32, v, &why));
    assert_non_null(strstr(why, "32 bits"));
    fst_graph_free(p.f32);
}

/* What is no number is reported, not rounded to one. */
static void test_not_a_number(void **state)
{
    (void)state;
    struct pair p = {.f32 = small_network()};
    make_int8(&p, 1, 0.1F);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float *x = new_floats(sample_floats(p.f32));
    for (int i = 0; fst_backend_names()[i]; i++)
        for (int k = 0; k < 3; k++) {
            fst_plan *plan;
            const float *y;
            fst_plan_options o = {.batch = 1, .backend = fst_backend_names()[i]};
            x[700] = bad[k];
            assert_ok(fst_plan_new(&plan, p.int8, &o, err));
            assert_fails(fst_plan_forward(plan, &p.int8_state, x, NULL, &y, err), FST_E_NUMERIC, "not a number");
            fst_plan_free(plan);
        }
    free(x);
    release(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),     cmocka_unit_test(test_convolutions), cmocka_unit_test(test_largest_sums),
        cmocka_unit_test(test_networks),    cmocka_unit_test(test_near_f32),     cmocka_unit_test(test_what_is_made),
        cmocka_unit_test(test_some_layers), cmocka_unit_test(test_refusals),     cmocka_unit_test(test_not_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

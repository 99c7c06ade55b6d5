/* Building graphs: what is refused and how it is said; memory that runs out at any point. */
#include "fedstill/models.h"
#include "nn/support.h"

typedef fst_value (*builder)(fst_graph *g, fst_value x);

static const fst_conv2d conv3 = {.out_channels = 4, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}};

static void expect(builder build, fst_shape input, fst_status status, const char *op, const char *name,
                   const char *text)
{
    fst_graph *g = NULL;
    assert_ok(fst_graph_new(&g, err));
    fst_value out = build(g, fst_graph_input(g, &input));
    assert_true(out < 0);
    assert_fails(fst_graph_finish(g, out, err), status, op);
    assert_fails(fst_graph_finish(g, out, err), status, name);
    assert_fails(fst_graph_finish(g, out, err), status, text);
    fst_graph_free(g);
}

static fst_value conv_with(fst_graph *g, fst_value x, fst_conv2d c)
{
    return fst_graph_conv2d(g, x, "block.conv", &c);
}

static fst_value conv_plain(fst_graph *g, fst_value x)
{
    return conv_with(g, x, conv3);
}

static fst_value conv_groups(fst_graph *g, fst_value x)
{
    fst_conv2d c = conv3;
    c.groups = 3;
    return conv_with(g, x, c);
}

static fst_value conv_large(fst_graph *g, fst_value x)
{
    fst_conv2d c = conv3;
    c.kernel[1] = 9;
    return conv_with(g, x, c);
}

static fst_value conv_no_stride(fst_graph *g, fst_value x)
{
    fst_conv2d c = conv3;
    c.stride[0] = 0;
    return conv_with(g, x, c);
}

static fst_value conv_no_channels(fst_graph *g, fst_value x)
{
    fst_conv2d c = conv3;
    c.out_channels = 0;
    return conv_with(g, x, c);
}

static fst_value conv_huge_padding(fst_graph *g, fst_value x)
{
    fst_conv2d c = conv3;
    c.padding[0] = INT64_MAX / 2 + 1;
    return conv_with(g, x, c);
}

static fst_value conv_huge(fst_graph *g, fst_value x)
{
    fst_conv2d c = conv3;
    c.out_channels = INT64_MAX / 4;
    return conv_with(g, x, c);
}

static fst_value linear(fst_graph *g, fst_value x)
{
    return fst_graph_linear(g, x, "head.fc", 10, true);
}

static fst_value linear_nothing(fst_graph *g, fst_value x)
{
    return fst_graph_linear(g, x, "head.fc", 0, true);
}

static fst_value linear_huge(fst_graph *g, fst_value x)
{
    return fst_graph_linear(g, x, "head.fc", 1 << 30, false);
}

static fst_value pool_padding(fst_graph *g, fst_value x)
{
    return fst_graph_maxpool2d(g, x, 2, 2, 2);
}

static fst_value pool_large(fst_graph *g, fst_value x)
{
    return fst_graph_maxpool2d(g, x, 7, 1, 0);
}

static fst_value pool_huge(fst_graph *g, fst_value x)
{
    return fst_graph_maxpool2d(g, x, INT64_MAX, 1, INT64_MAX);
}

static fst_value dropout_all(fst_graph *g, fst_value x)
{
    return fst_graph_dropout(g, x, 1.0);
}

static fst_value dropout_nan(fst_graph *g, fst_value x)
{
    return fst_graph_dropout(g, x, NAN);
}

static fst_value norm(fst_graph *g, fst_value x)
{
    return fst_graph_batchnorm2d(g, x, "stem.bn", 1e-5, 0.1);
}

static fst_value norm_eps(fst_graph *g, fst_value x)
{
    return fst_graph_batchnorm2d(g, x, "stem.bn", 0, 0.1);
}

static fst_value norm_momentum(fst_graph *g, fst_value x)
{
    return fst_graph_batchnorm2d(g, x, "stem.bn", 1e-5, 1.5);
}

static fst_value name_taken(fst_graph *g, fst_value x)
{
    return fst_graph_linear(g, linear(g, x), "head.fc", 3, true);
}

static fst_value name_empty(fst_graph *g, fst_value x)
{
    return fst_graph_linear(g, x, "", 3, true);
}

static fst_value name_long(fst_graph *g, fst_value x)
{
    char name[200];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = 0;
    return fst_graph_linear(g, x, name, 3, true);
}

static void shapes_are_checked(void **state)
{
    const fst_shape image = FST_SHAPE(2, 6, 6), flat = FST_SHAPE(12);
    (void)state;
    expect(conv_plain, flat, FST_E_ARGUMENT, "conv2d", "block.conv", "rank 1");
    expect(conv_groups, image, FST_E_ARGUMENT, "conv2d", "block.conv", "3 groups");
    expect(conv_large, image, FST_E_ARGUMENT, "conv2d", "block.conv", "kernel of 9 does not fit an input of 6");
    expect(conv_no_stride, image, FST_E_ARGUMENT, "conv2d", "block.conv", "above 0");
    expect(conv_no_channels, image, FST_E_ARGUMENT, "conv2d", "block.conv", "0 channels");
    expect(conv_huge_padding, image, FST_E_LIMIT, "conv2d", "block.conv", "at most");
    expect(conv_huge, image, FST_E_LIMIT, "conv2d", "block.conv", "more than");
    expect(linear, image, FST_E_ARGUMENT, "linear", "head.fc", "flatten first");
    expect(linear_nothing, flat, FST_E_ARGUMENT, "linear", "head.fc", "at least one");
    expect(linear_huge, flat, FST_E_LIMIT, "", "head.fc", "more than");
    expect(pool_padding, image, FST_E_ARGUMENT, "maxpool2d", "", "half the kernel");
    expect(pool_large, image, FST_E_ARGUMENT, "maxpool2d", "", "does not fit an input of 6");
    expect(pool_huge, image, FST_E_LIMIT, "maxpool2d", "", "at most");
    expect(dropout_all, flat, FST_E_ARGUMENT, "dropout", "", "[0, 1)");
    expect(dropout_nan, flat, FST_E_ARGUMENT, "dropout", "", "[0, 1)");
    expect(norm, flat, FST_E_ARGUMENT, "batchnorm2d", "stem.bn", "rank 1");
    expect(norm_eps, image, FST_E_ARGUMENT, "batchnorm2d", "stem.bn", "eps");
    expect(norm_momentum, image, FST_E_ARGUMENT, "batchnorm2d", "stem.bn", "momentum");
    expect(name_taken, flat, FST_E_ARGUMENT, "linear", "head.fc", "taken");
    expect(name_empty, flat, FST_E_ARGUMENT, "linear", "", "1 to 70 characters");
    expect(name_long, flat, FST_E_ARGUMENT, "linear", "nnnn", "1 to 70 characters");
}

static void inputs_are_checked(void **state)
{
    const fst_shape wrong[] = {{0}, {5, {1, 1, 1, 1, 1}}, {2, {3, 0}}, {1, {-4}}, {3, {1 << 24, 1 << 24, 1 << 24}}};
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        fst_graph *g = NULL;
        assert_ok(fst_graph_new(&g, err));
        fst_value x = fst_graph_input(g, &wrong[i]);
        assert_true(x < 0);
        fst_status s = fst_graph_finish(g, x, NULL);
        assert_true(s == FST_E_ARGUMENT || s == FST_E_LIMIT);
        fst_graph_free(g);
    }
}

/* The first error stays, whatever is built after it. */
static void errors_stick(void **state)
{
    (void)state;
    fst_graph *g = NULL;
    const fst_shape in = FST_SHAPE(2, 6, 6);
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &in);
    x = fst_graph_linear(g, x, "early", 3, true);
    assert_int_equal(x, -1);
    size_t layers = fst_graph_layers(g);
    x = fst_graph_relu(g, fst_graph_conv2d(g, x, "late", &conv3));
    x = fst_graph_batchnorm2d(g, fst_graph_maxpool2d(g, fst_graph_flatten(g, x), 9, 9, 9), "later", -1, 7);
    assert_int_equal(fst_graph_input(g, &in), -1);
    assert_int_equal(fst_graph_layers(g), layers);
    assert_fails(fst_graph_finish(g, x, err), FST_E_ARGUMENT, "linear \"early\"");
    fst_plan *plan = NULL;
    fst_plan_options o = {.batch = 1};
    assert_fails(fst_plan_new(&plan, g, &o, err), FST_E_ARGUMENT, "not finished");
    assert_null(plan);
    fst_graph_free(g);
}

static void every_value_is_read(void **state)
{
    (void)state;
    const fst_shape in = FST_SHAPE(6);
    for (int kind = 0; kind < 5; kind++) {
        fst_graph *g = NULL;
        assert_ok(fst_graph_new(&g, err));
        fst_value x = fst_graph_input(g, &in), y = fst_graph_linear(g, x, "first", 4, true);
        if (kind == 0) { /* a reader whose own output nobody reads */
            fst_value a = fst_graph_relu(g, y);
            (void)fst_graph_linear(g, y, "second", 3, true);
            assert_fails(fst_graph_finish(g, a, err), FST_E_ARGUMENT, "linear \"second\") is not read");
        } else if (kind == 1) { /* after the output */
            (void)fst_graph_relu(g, y);
            assert_fails(fst_graph_finish(g, y, err), FST_E_ARGUMENT, "relu");
        } else if (kind == 2) { /* never read */
            assert_fails(fst_graph_finish(g, x, err), FST_E_ARGUMENT, "not read");
        } else if (kind == 3) {
            assert_fails(fst_graph_finish(g, 17, err), FST_E_ARGUMENT, "not a value");
        } else {
            (void)fst_graph_relu(g, 9);
            assert_fails(fst_graph_finish(g, y, err), FST_E_ARGUMENT, "there is no value 9");
        }
        fst_graph_free(g);
    }
}

static void finished_graphs_stay(void **state)
{
    (void)state;
    fst_graph *g = NULL;
    const fst_shape in = FST_SHAPE(6);
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &in), y = fst_graph_linear(g, x, "first", 4, true);
    assert_ok(fst_graph_finish(g, y, err));
    assert_int_equal(fst_graph_relu(g, y), -1);
    assert_fails(fst_graph_finish(g, y, err), FST_E_ARGUMENT, "finished");
    assert_int_equal(fst_graph_layers(g), 2);
    fst_graph_free(g);
    g = NULL;
    assert_ok(fst_graph_new(&g, err));
    assert_fails(fst_graph_finish(g, 0, err), FST_E_ARGUMENT, "not a value");
    fst_graph_free(g);
}

/* Places in the spans: in order, without gap or overlap; PyTorch's names. */
static void spans_are_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < fst_models(); i++) {
        fst_graph *g = NULL;
        size_t at = 0, params = 0;
        assert_ok(fst_model_graph(&g, fst_model_at(i).name, NULL, err));
        for (size_t k = 0; k < fst_graph_params(g); k++) {
            fst_param_info p = fst_graph_param(g, k);
            assert_int_equal(p.offset, at);
            assert_int_equal(p.count, (size_t)fst_shape_count(&p.shape));
            assert_non_null(strchr(p.name, '.'));
            at += p.count;
        }
        assert_int_equal(at, fst_graph_param_count(g));
        for (size_t k = 0; k < fst_graph_layers(g); k++)
            params += fst_graph_layer(g, k).params;
        assert_int_equal(params, at);
        assert_true(fst_graph_flops(g) > 0);
        fst_graph_free(g);
    }
}

/* ---- memory that runs out ------------------------------------------------------------------------------- */

static fst_status build_chain(fst_graph **out, fst_error *err)
{
    fst_graph *g = NULL;
    const fst_shape in = FST_SHAPE(3, 8, 8);
    fst_status s = fst_graph_new(&g, err);
    if (s)
        return s;
    fst_value x = fst_graph_batchnorm2d(g, fst_graph_conv2d(g, fst_graph_input(g, &in), "c1", &conv3), "n1", 1e-5, 0.1);
    x = fst_graph_maxpool2d(g, fst_graph_relu(g, x), 2, 2, 0);
    x = fst_graph_maxpool2d(g, fst_graph_relu(g, fst_graph_conv2d(g, x, "c2", &conv3)), 2, 2, 0);
    x = fst_graph_dropout(g, fst_graph_flatten(g, x), 0.5);
    x = fst_graph_linear(g, x, "fc", 3, true);
    s = fst_graph_finish(g, x, err);
    if (s)
        fst_graph_free(g);
    else
        *out = g;
    return s;
}

/* One step and one inference from nothing. */
static fst_status whole_life(const char *backend, bool norm_free, fst_error *err)
{
    float x[4 * 3 * 8 * 8], logits[4 * 10];
    const int32_t labels[4] = {0, 1, 2, 0};
    const fst_optim_spec spec = {.kind = FST_OPTIM_ADAM, .learning_rate = 0.1};
    fst_trainer_options o = {.batch_size = 4, .threads = 2, .shard_size = 2, .backend = backend};
    const fst_model_config config = {.classes = 3, .input = FST_SHAPE(3, 6, 6)};
    fst_graph *g = NULL;
    fst_state state = {0};
    fst_optim optim = {0};
    fst_trainer *t = NULL;
    fst_runner *r = NULL;
    fst_step_result result;
    fill_normal(x, 4 * 3 * 8 * 8, 1, "test.x", 1);
    fst_status s = norm_free ? fst_model_graph(&g, "pfl_cifar", &config, err) : build_chain(&g, err);
    if (!s)
        s = fst_state_init(&state, g, err);
    if (!s)
        s = fst_optim_init(&optim, &spec, state.param_count, err);
    if (!s)
        s = fst_trainer_new(&t, g, &o, err);
    for (size_t rows = 4; !s && rows > 2; rows--) { /* with batch norm, smaller batches build plans */
        fst_step_input in = {
            .rows = rows, .x = x, .labels = labels, .loss = FST_LOSS_CROSS_ENTROPY, .learning_rate = 0.1};
        s = fst_trainer_step(t, &state, &optim, &in, &result, err);
    }
    if (!s)
        s = fst_runner_new(&r, g, &o, err);
    if (!s)
        s = fst_runner_logits(r, &state, x, 4, logits, err);
    fst_runner_free(r);
    fst_trainer_free(t);
    fst_optim_release(&optim);
    fst_state_release(&state);
    fst_graph_free(g);
    return s;
}

static void torture(const char *backend, bool norm_free)
{
    enum { ENOUGH = 5000 };
    uint64_t n = 1;
    assert_ok(whole_life(backend, norm_free, err));
    for (; n < ENOUGH; n++) {
        fst_error e = {0};
        fst_alloc_fail_at(n);
        fst_status s = whole_life(backend, norm_free, &e);
        fst_alloc_fail_at(0);
        if (!s)
            break;
        if (s != FST_E_MEMORY || e.status != FST_E_MEMORY || !e.message[0])
            fail_msg("%s: allocation %d failed and gave %s: %s", backend, (int)n, fst_status_name(s), e.message);
    }
    assert_true(n > 40 && n < ENOUGH);
    assert_ok(whole_life(backend, norm_free, err));
}

static void any_allocation_may_fail(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        torture(*b, false);
        torture(*b, true);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_checked),
        cmocka_unit_test(inputs_are_checked),
        cmocka_unit_test(errors_stick),
        cmocka_unit_test(every_value_is_read),
        cmocka_unit_test(finished_graphs_stay),
        cmocka_unit_test(spans_are_whole),
        cmocka_unit_test(any_allocation_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

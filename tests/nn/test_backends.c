/*
 * Every backend against the reference backend on random chains of ops: outputs, gradients of the input and
 * of every parameter, running statistics; in training, training with frozen statistics, and inference.
 *
 * Where the function has a kink at hand, or a gradient is the small rest of large terms, two correct
 * backends may differ at will. Such tensors are found without looking at the backend under test: the
 * reference runs a second time on an input moved by parts in a million, and what that changes visibly is not
 * compared. How much was left out is limited below.
 */
#include "nn/support.h"

enum { MAX_OPS = 7, MAX_FLOATS = 2000, MAX_TENSORS = 64 };

struct draft { /* a graph under construction */
    fst_graph *graph;
    fst_value at;
    fst_shape shape;
    fst_rng rng;
    int named;
    bool normed; /* nothing since the last batch norm that breaks its scale */
    int64_t batch;
    char text[512];
};

static int64_t pick(fst_rng *r, const int64_t *from, size_t n)
{
    return from[fst_rng_below(r, n)];
}
#define PICK(r, ...) pick(r, (const int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static void note(struct draft *d, const char *fmt, ...)
{
    size_t at = strlen(d->text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->text + at, sizeof d->text - at, fmt, ap);
    va_end(ap);
}

static const char *next_name(struct draft *d)
{
    static char name[16];
    snprintf(name, sizeof name, "layer%d", d->named++);
    return name;
}

static bool add_conv(struct draft *d)
{
    fst_conv2d c = {.bias = fst_rng_below(&d->rng, 2)};
    int64_t in = d->shape.dim[0];
    c.out_channels = PICK(&d->rng, 1, 2, 3, 4, 5, 8, 16, 17, 24, 33);
    switch (fst_rng_below(&d->rng, 4)) {
    case 0:
        c.groups = in; /* depthwise */
        c.out_channels = in * (int64_t)(1 + fst_rng_below(&d->rng, 2));
        break;
    case 1:
        c.groups = in % 2 ? 1 : 2;
        c.out_channels += c.out_channels % c.groups;
        break;
    default:
        break;
    }
    for (int i = 0; i < 2; i++) {
        c.kernel[i] = PICK(&d->rng, 1, 2, 3, 3, 3, 5);
        c.stride[i] = PICK(&d->rng, 1, 1, 1, 2, 3);
        c.padding[i] = (int64_t)fst_rng_below(&d->rng, (uint64_t)c.kernel[i]);
        if (d->shape.dim[1 + i] + 2 * c.padding[i] < c.kernel[i])
            return false;
    }
    note(d, " conv(%d, %dx%d/%dx%d+%dx%d, g%d%s)", (int)c.out_channels, (int)c.kernel[0], (int)c.kernel[1],
         (int)c.stride[0], (int)c.stride[1], (int)c.padding[0], (int)c.padding[1], (int)c.groups, c.bias ? ", b" : "");
    d->at = fst_graph_conv2d(d->graph, d->at, next_name(d), &c);
    d->normed = false;
    for (int i = 0; i < 2; i++)
        d->shape.dim[1 + i] = (d->shape.dim[1 + i] + 2 * c.padding[i] - c.kernel[i]) / c.stride[i] + 1;
    d->shape.dim[0] = c.out_channels;
    return true;
}

static bool add_pool(struct draft *d)
{
    int64_t k = PICK(&d->rng, 1, 2, 2, 3), s = PICK(&d->rng, 1, 2, 2, 3), p = k > 1 ? PICK(&d->rng, 0, 0, 1) : 0;
    for (int i = 1; i < 3; i++)
        if (d->shape.dim[i] + 2 * p < k)
            return false;
    note(d, " pool(%d/%d+%d)", (int)k, (int)s, (int)p);
    d->at = fst_graph_maxpool2d(d->graph, d->at, k, s, p);
    for (int i = 1; i < 3; i++)
        d->shape.dim[i] = (d->shape.dim[i] + 2 * p - k) / s + 1;
    return true;
}

static bool add_norm(struct draft *d)
{
    /* Of few values the normalised ones hardly depend on the input. */
    if (d->normed || d->batch * d->shape.dim[1] * d->shape.dim[2] < 8)
        return false;
    note(d, " norm");
    d->at = fst_graph_batchnorm2d(d->graph, d->at, next_name(d), 1e-3, 0.1);
    d->normed = true;
    return true;
}

static bool add_linear(struct draft *d)
{
    int64_t out = PICK(&d->rng, 1, 2, 3, 7, 10, 16, 33);
    bool bias = fst_rng_below(&d->rng, 3) > 0;
    note(d, " linear(%d%s)", (int)out, bias ? ", b" : "");
    d->at = fst_graph_linear(d->graph, d->at, next_name(d), out, bias);
    d->shape = FST_SHAPE(out);
    return true;
}

static bool add_flatten(struct draft *d)
{
    note(d, " flatten");
    d->at = fst_graph_flatten(d->graph, d->at);
    d->shape = FST_SHAPE(fst_shape_count(&d->shape));
    return true;
}

static bool add_relu(struct draft *d)
{
    note(d, " relu");
    d->at = fst_graph_relu(d->graph, d->at);
    d->normed = false;
    return true;
}

static bool add_dropout(struct draft *d)
{
    note(d, " dropout");
    d->at = fst_graph_dropout(d->graph, d->at, 0.25);
    return true;
}

static bool add_op(struct draft *d)
{
    uint64_t what = fst_rng_below(&d->rng, 12);
    if (d->shape.rank != 3) {
        if (d->shape.rank != 1)
            return what < 6 ? add_flatten(d) : add_relu(d);
        return what < 6 ? add_linear(d) : what < 9 ? add_relu(d) : what < 11 ? add_dropout(d) : add_flatten(d);
    }
    switch (what) {
    case 0:
    case 1:
    case 2:
        return add_conv(d);
    case 3:
    case 4:
        return add_pool(d);
    case 5:
    case 6:
        return add_norm(d);
    case 7: /* the sequences that backends fuse */
        return add_conv(d) && add_relu(d) && add_pool(d);
    case 8:
        return add_norm(d) && add_relu(d);
    case 9:
        return add_dropout(d);
    case 10:
        return add_flatten(d);
    default:
        return add_relu(d);
    }
}

static void draw_graph(struct draft *d, uint64_t seed)
{
    *d = (struct draft){0};
    fst_rng_init(&d->rng, seed, "test.graph", 0);
    d->batch = PICK(&d->rng, 1, 2, 3, 5, 8, 16, 33);
    int64_t side = PICK(&d->rng, 1, 2, 4, 7, 8, 11);
    switch (fst_rng_below(&d->rng, 10)) {
    case 0:
        d->shape = FST_SHAPE(PICK(&d->rng, 1, 5, 32, 47));
        break;
    case 1:
        d->shape = FST_SHAPE(3, 4);
        break;
    case 2:
        d->shape = FST_SHAPE(2, 3, 2, 2);
        break;
    default:
        d->shape = FST_SHAPE(PICK(&d->rng, 1, 2, 3, 5, 8, 16, 19), side, PICK(&d->rng, 1, 3, side, side));
        break;
    }
    char shape[64];
    note(d, "batch %d of %s:", (int)d->batch, fst_shape_text(&d->shape, shape, sizeof shape));
    assert_ok(fst_graph_new(&d->graph, err));
    d->at = fst_graph_input(d->graph, &d->shape);
    int ops = 1 + (int)fst_rng_below(&d->rng, MAX_OPS);
    for (int i = 0; i < ops && fst_shape_count(&d->shape) < MAX_FLOATS; i++)
        (void)add_op(d);
    assert_ok(fst_graph_finish(d->graph, d->at, err));
}

/* ---- running ---------------------------------------------------------------------------------------- */

struct mode {
    const char *name;
    bool training, frozen;
};

struct outcome { /* everything that a pass leaves, as one list of tensors over one block */
    float *data;
    size_t at[MAX_TENSORS + 1];
    const char *name[MAX_TENSORS];
    size_t tensors;
    int64_t counters;
};

static void add_tensor(struct outcome *o, const char *name, const float *v, size_t n)
{
    assert_true(o->tensors < MAX_TENSORS);
    size_t at = o->at[o->tensors];
    o->data = realloc(o->data, (at + n + 1) * sizeof *o->data);
    assert_non_null(o->data);
    memcpy(o->data + at, v, n * sizeof *v);
    o->name[o->tensors++] = name;
    o->at[o->tensors] = at + n;
}

static void run(const struct draft *d, const fst_plan_options *po, uint64_t seed, const float *x, struct outcome *o)
{
    fst_plan *plan = NULL;
    fst_state state = {0};
    const fst_draws draws = {seed, 2, 0};
    const float *y;
    size_t n = (size_t)d->batch * output_floats(d->graph);
    *o = (struct outcome){0};
    assert_ok(fst_state_init(&state, d->graph, err));
    fill_state(&state, d->graph, seed);
    assert_ok(fst_plan_new(&plan, d->graph, po, err));
    assert_ok(fst_plan_forward(plan, &state, x, &draws, &y, err));
    add_tensor(o, "the output", y, n);
    if (po->training) {
        float *grads = new_floats(state.param_count);
        for (size_t i = 0; i < state.param_count; i++)
            grads[i] = NAN; /* all of it must be written */
        fill_normal(fst_plan_output_grad(plan), n, seed, "test.grad", 1);
        assert_ok(fst_plan_backward(plan, &state, grads, err));
        add_tensor(o, "the input's gradient", fst_plan_input_grad(plan), (size_t)d->batch * sample_floats(d->graph));
        for (size_t i = 0; i < fst_graph_params(d->graph); i++) {
            fst_param_info p = fst_graph_param(d->graph, i);
            add_tensor(o, p.name, grads + p.offset, p.count);
        }
        free(grads);
    }
    for (size_t i = 0; i < fst_graph_buffers(d->graph); i++) {
        fst_param_info p = fst_graph_buffer(d->graph, i);
        add_tensor(o, p.name, state.buffers + p.offset, p.count);
    }
    for (size_t i = 0; i < state.counter_count; i++)
        o->counters += state.counters[i];
    fst_plan_free(plan);
    fst_state_release(&state);
}

struct tally {
    size_t compared, left_out;
};

static void compare(const struct draft *d, const struct outcome *want, const struct outcome *moved,
                    const struct outcome *got, const char *backend, const char *mode, uint64_t seed, struct tally *t)
{
    assert_int_equal(want->tensors, got->tensors);
    assert_int_equal(want->counters, got->counters);
    for (size_t i = 0; i < want->tensors; i++) {
        size_t at = want->at[i], n = want->at[i + 1] - at;
        double norm = distance(want->data + at, NULL, n), jump = distance(moved->data + at, want->data + at, n);
        double off = distance(got->data + at, want->data + at, n);
        if (jump > 1e-4 * norm) {
            t->left_out++;
            continue;
        }
        t->compared++;
        if (!(off <= 2e-4 * norm))
            fail_msg("seed %d, %s, %s: %s differs by %.3g of %.3g\n%s", (int)seed, backend, mode, want->name[i], off,
                     norm, d->text);
    }
}

/* Runs the drafted graph everywhere and frees it. */
static void check_draft(struct draft *d, uint64_t seed, const struct mode *m, struct tally *t)
{
    struct outcome want, moved, got;
    size_t n = (size_t)d->batch * sample_floats(d->graph);
    float *x = new_floats(n), *near = new_floats(n);
    fill_normal(x, n, seed, "test.x", 1);
    fill_normal(near, n, seed, "test.near", 3e-6);
    for (size_t i = 0; i < n; i++)
        near[i] += x[i];
    fst_plan_options po = {.batch = d->batch,
                           .training = m->training,
                           .input_grad = m->training,
                           .frozen = m->frozen,
                           .backend = "reference"};
    run(d, &po, seed, x, &want);
    run(d, &po, seed, near, &moved);
    for (const char *const *b = fst_backend_names(); *b; b++) {
        if (b != fst_backend_names() && !strcmp(*b, "reference"))
            continue;
        po.backend = *b;
        po.threads = seed % 10 == 3 ? 2 : 1;
        run(d, &po, seed, x, &got);
        compare(d, &want, &moved, &got, *b, m->name, seed, t);
        free(got.data);
    }
    free(want.data);
    free(moved.data);
    free(x);
    free(near);
    fst_graph_free(d->graph);
}

static void check_case(uint64_t seed, const struct mode *m, struct tally *t)
{
    struct draft d;
    draw_graph(&d, seed);
    check_draft(&d, seed, m, t);
}

static void check_mode(const struct mode *m, uint64_t from, uint64_t to)
{
    struct tally t = {0};
    const char *one = getenv("FEDSTILL_TEST_SEED");
    if (one) {
        check_case(strtoull(one, NULL, 10), m, &t);
        return;
    }
    for (uint64_t seed = from; seed < to; seed++)
        check_case(seed, m, &t);
    print_message("%s: %zu tensors compared, %zu left out\n", m->name, t.compared, t.left_out);
    assert_true(t.compared >= to - from);
    assert_true(t.left_out * 5 < t.compared);
}

static void training(void **state)
{
    (void)state;
    check_mode(&(struct mode){"training", true, false}, 0, 160);
}

static void frozen(void **state)
{
    (void)state;
    check_mode(&(struct mode){"training, frozen", true, true}, 300, 360);
}

static void inference(void **state)
{
    (void)state;
    check_mode(&(struct mode){"inference", false, false}, 400, 460);
}

/* c: a convolution drawn at random, p: pooling, n: batch norm, r: ReLU, d: dropout, f: flatten, l: linear */
static void draw_chain(struct draft *d, uint64_t seed, fst_shape shape, int64_t batch, const char *ops)
{
    *d = (struct draft){.shape = shape, .batch = batch};
    fst_rng_init(&d->rng, seed, "test.graph", 0);
    assert_ok(fst_graph_new(&d->graph, err));
    d->at = fst_graph_input(d->graph, &shape);
    note(d, "chain %s:", ops);
    for (const char *o = ops; *o; o++) {
        d->normed = false;
        if (*o == 'p')
            d->at = fst_graph_maxpool2d(d->graph, d->at, 3, 2, 1);
        else if (*o == 'c')
            while (!add_conv(d))
                ;
        else
            assert_true(*o == 'n'   ? add_norm(d)
                        : *o == 'r' ? add_relu(d)
                        : *o == 'd' ? add_dropout(d)
                        : *o == 'f' ? add_flatten(d)
                                    : add_linear(d));
    }
    assert_ok(fst_graph_finish(d->graph, d->at, err));
}

/* Sequences that backends fuse, all of them and not left to the draw. */
static void check_chain(uint64_t seed, fst_shape shape, int64_t batch, const char *ops, struct tally *t)
{
    static const struct mode modes[] = {
        {"training", true, false}, {"training, frozen", true, true}, {"inference", false, false}};
    for (size_t k = 0; k < 3; k++) {
        struct draft d;
        draw_chain(&d, seed, shape, batch, ops);
        check_draft(&d, seed, &modes[k], t);
    }
}

static void known_chains(void **state)
{
    static const char *const chains[] = {"crp", "crrp", "cnrp", "cnp", "cpn",        "cpr",      "crdp",     "cprn",
                                         "rp",  "pr",   "crcr", "nrp", "cr",         "cnr",      "crf",      "crpfl",
                                         "d",   "f",    "fr",   "fd",  "crpcrpflrl", "cnrcnrfl", "crdcrdfl", "p",
                                         "n",   "r",    "c",    "rr",  "cdnrp",      "cpp"};
    struct tally t = {0};
    (void)state;
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++)
        for (uint64_t seed = 0; seed < 2; seed++) {
            check_chain(1000 + seed, FST_SHAPE(5, 9, 10), 3, chains[i], &t);
            check_chain(2000 + seed, FST_SHAPE(16, 7, 7), 6, chains[i], &t);
        }
    print_message("%zu tensors compared, %zu left out\n", t.compared, t.left_out);
    assert_true(t.left_out * 5 < t.compared);
}

/* Equal maxima: the first in row-major order takes the gradient, in every backend. */
static void ties_go_to_the_first(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (int64_t channels = 1; channels <= 17; channels += 16) {
            fst_graph *g = NULL;
            fst_plan *plan = NULL;
            fst_state s = {0};
            const float *y;
            assert_ok(fst_graph_new(&g, err));
            fst_shape in = FST_SHAPE(channels, 2, 2);
            fst_value x = fst_graph_input(g, &in);
            assert_ok(fst_graph_finish(g, fst_graph_maxpool2d(g, x, 2, 2, 0), err));
            assert_ok(fst_state_init(&s, g, err));
            fst_plan_options po = {.batch = 1, .training = true, .input_grad = true, .backend = *b};
            assert_ok(fst_plan_new(&plan, g, &po, err));
            float data[17 * 4];
            for (int i = 0; i < 17 * 4; i++)
                data[i] = i % 4 == 0 ? -1 : 2.5f;
            assert_ok(fst_plan_forward(plan, &s, data, NULL, &y, err));
            for (int64_t c = 0; c < channels; c++)
                fst_plan_output_grad(plan)[c] = (float)(c + 1);
            assert_ok(fst_plan_backward(plan, &s, s.params, err));
            for (int64_t i = 0; i < channels * 4; i++)
                assert_true(fst_plan_input_grad(plan)[i] == (i % 4 == 1 ? (float)(i / 4 + 1) : 0));
            fst_plan_free(plan);
            fst_state_release(&s);
            fst_graph_free(g);
        }
}

/* A plan gives the same bits every time, whatever it ran before. */
static void plans_have_no_memory(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (uint64_t seed = 500; seed < 520; seed++) {
            struct draft d;
            fst_plan *plan = NULL;
            fst_state s = {0};
            const float *y;
            const fst_draws draws = {seed, 1, 0};
            draw_graph(&d, seed);
            size_t n = (size_t)d.batch * sample_floats(d.graph), m = (size_t)d.batch * output_floats(d.graph);
            fst_plan_options po = {.batch = d.batch, .training = true, .backend = *b};
            assert_ok(fst_state_init(&s, d.graph, err));
            fill_state(&s, d.graph, seed);
            assert_ok(fst_plan_new(&plan, d.graph, &po, err));
            float *x = new_floats(n), *other = new_floats(n), *first = new_floats(m + s.param_count);
            float *grads = new_floats(s.param_count);
            fill_normal(x, n, seed, "test.x", 1);
            fill_normal(other, n, seed, "test.other", 100);
            for (int round = 0; round < 3; round++) {
                assert_ok(fst_plan_forward(plan, &s, round == 1 ? other : x, &draws, &y, err));
                if (round == 0)
                    memcpy(first, y, m * sizeof *y);
                else if (round == 2)
                    assert_memory_equal(first, y, m * sizeof *y);
                fill_normal(fst_plan_output_grad(plan), m, seed + (round == 1), "test.grad", 1);
                assert_ok(fst_plan_backward(plan, &s, grads, err));
                if (round == 0)
                    memcpy(first + m, grads, s.param_count * sizeof *grads);
                else if (round == 2)
                    assert_memory_equal(first + m, grads, s.param_count * sizeof *grads);
            }
            free(x);
            free(other);
            free(first);
            free(grads);
            fst_plan_free(plan);
            fst_state_release(&s);
            fst_graph_free(d.graph);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(training),
        cmocka_unit_test(frozen),
        cmocka_unit_test(inference),
        cmocka_unit_test(known_chains),
        cmocka_unit_test(ties_go_to_the_first),
        cmocka_unit_test(plans_have_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

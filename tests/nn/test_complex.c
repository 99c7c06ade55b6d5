/* Ops on complex values: gradients against finite differences, backends against each other, odd cases, refusals. */
#include "nn/probe.h"

static fst_value into(fst_graph *g, fst_value x)
{
    return fst_graph_complex_from_parts(g, x);
}

static fst_value out_of(fst_graph *g, fst_value z)
{
    return fst_graph_complex_to_parts(g, z);
}

static fst_value conv(fst_graph *g, fst_value z, const char *name, int64_t out, int64_t kernel, int64_t stride,
                      bool bias)
{
    fst_conv2d c = {.out_channels = out,
                    .kernel = {kernel, kernel},
                    .stride = {stride, stride},
                    .padding = {kernel / 2, kernel / 2},
                    .bias = bias};
    return fst_graph_complex_conv2d(g, z, name, &c);
}

static fst_value norm(fst_graph *g, fst_value z)
{
    return fst_graph_complex_batchnorm(g, z, "norm", 1e-3, 0.1);
}

/* ---- gradients ------------------------------------------------------------------------------------------ */

static fst_value parts(fst_graph *g, fst_value x)
{
    return out_of(g, into(g, x));
}

static fst_value magnitude(fst_graph *g, fst_value x)
{
    return fst_graph_magnitude(g, into(g, x));
}

static fst_value shared_ops(fst_graph *g, fst_value x)
{
    fst_value z = into(g, x), y = fst_graph_relu(g, fst_graph_add(g, z, fst_graph_relu(g, z)));
    y = fst_graph_maxpool2d(g, fst_graph_concat(g, (fst_value[]){y, z}, 2), 2, 2, 0);
    return out_of(g, fst_graph_global_avgpool(g, y));
}

static fst_value conv_3x3(fst_graph *g, fst_value x)
{
    return out_of(g, conv(g, into(g, x), "op", 4, 3, 1, false));
}

static fst_value conv_strided(fst_graph *g, fst_value x)
{
    return out_of(g, conv(g, into(g, x), "op", 3, 3, 2, true));
}

static fst_value conv_blocks(fst_graph *g, fst_value x) /* whole blocks of channels */
{
    return out_of(g, conv(g, into(g, x), "op", 16, 3, 1, true));
}

static fst_value conv_corner(fst_graph *g, fst_value x) /* one output position, part of the input */
{
    return out_of(g, conv(g, into(g, x), "op", 5, 1, 2, false));
}

static fst_value conv_centre(fst_graph *g, fst_value x) /* one output position, part of the kernel */
{
    return out_of(g, conv(g, into(g, x), "op", 5, 3, 2, true));
}

static fst_value rectangle(fst_graph *g, fst_value x)
{
    fst_conv2d c = {.out_channels = 3, .kernel = {2, 3}, .stride = {2, 3}, .padding = {0, 2}};
    return out_of(g, fst_graph_complex_conv2d(g, into(g, x), "op", &c));
}

static fst_value linear(fst_graph *g, fst_value x)
{
    return out_of(g, fst_graph_complex_linear(g, into(g, x), "op", 5, true));
}

static fst_value linear_plain(fst_graph *g, fst_value x)
{
    return out_of(g, fst_graph_complex_linear(g, into(g, x), "op", 3, false));
}

static void weighted_gradients(void **state)
{
    (void)state;
    check(conv_3x3, FST_SHAPE(2, 3, 5, 4), 2, false, 0.1f, 0.25);
    check(conv_strided, FST_SHAPE(2, 2, 6, 5), 2, false, 0.1f, 0.25);
    check(conv_blocks, FST_SHAPE(2, 2, 3, 4), 2, false, 0.1f, 0.25);
    check(conv_corner, FST_SHAPE(2, 3, 2, 2), 3, false, 0.1f, 0.25);
    check(conv_centre, FST_SHAPE(2, 3, 1, 1), 3, false, 0.1f, 0.25);
    check(conv_centre, FST_SHAPE(2, 3, 2, 2), 3, false, 0.1f, 0.25);
    check(conv_centre, FST_SHAPE(2, 3, 2, 1), 3, false, 0.1f, 0.25);
    check(rectangle, FST_SHAPE(2, 2, 4, 5), 2, false, 0.1f, 0.25);
    check(linear, FST_SHAPE(2, 7), 3, false, 0.1f, 0.25);
    check(linear_plain, FST_SHAPE(2, 1), 2, false, 0.1f, 0.25);
}

static void plain_gradients(void **state)
{
    (void)state;
    check(parts, FST_SHAPE(2, 3, 4), 2, false, 1, 0.01);
    check(magnitude, FST_SHAPE(2, 9), 3, false, 1, 0.002);
    check(shared_ops, FST_SHAPE(2, 3, 4, 4), 2, false, 1, 0.01);
}

static fst_value norm_only(fst_graph *g, fst_value x)
{
    return out_of(g, norm(g, into(g, x)));
}

static fst_value norm_blocks(fst_graph *g, fst_value x)
{
    return out_of(g, norm(g, conv(g, into(g, x), "op", 16, 1, 1, false)));
}

static fst_value norm_relu(fst_graph *g, fst_value x)
{
    return out_of(g, fst_graph_relu(g, norm(g, into(g, x))));
}

static void norm_gradients(void **state)
{
    (void)state;
    check(norm_only, FST_SHAPE(2, 3, 3, 4), 3, false, 0.1f, 0.05);
    check(norm_only, FST_SHAPE(2, 17, 1, 1), 6, false, 0.1f, 0.05);
    check(norm_only, FST_SHAPE(2, 16, 1, 1), 6, false, 0.1f, 0.05);
    check(norm_only, FST_SHAPE(2, 3, 3, 4), 3, true, 0.1f, 0.05);
    check(norm_blocks, FST_SHAPE(2, 2, 3, 3), 3, false, 0.1f, 0.02);
    check(norm_relu, FST_SHAPE(2, 2, 2, 2), 3, false, 0.1f, 0.005);
}

/* With a ceiling that some magnitudes reach. */
static fst_value attention(fst_graph *g, fst_value x)
{
    static const fst_time_freq_attention o = {.reduction = 8, .floor = 1e-8, .ceiling = 2, .phase_eps = 1e-8};
    return out_of(g, fst_graph_time_freq_attention(g, into(g, x), "op", &o));
}

static void attention_gradients(void **state)
{
    (void)state;
    check(attention, FST_SHAPE(2, 16, 3, 2), 2, false, 0.02f, 0.02);
    check(attention, FST_SHAPE(2, 9, 2, 3), 2, false, 0.02f, 0.02);
    check(attention, FST_SHAPE(2, 16, 1, 1), 3, false, 0.02f, 0.02);
}

/* ---- backends ----------------------------------------------------------------------------------------------- */

struct pass { /* what a training pass leaves */
    float *y, *gx, *grads;
    fst_state state;
    size_t inputs, outputs;
};

static void run_pass(struct pass *p, const fst_graph *g, const fst_plan_options *o, const float *x)
{
    fst_plan *plan = NULL;
    const float *y;
    *p = (struct pass){.inputs = (size_t)o->batch * sample_floats(g), .outputs = (size_t)o->batch * output_floats(g)};
    assert_ok(fst_state_init(&p->state, g, err));
    fill_state(&p->state, g, 5);
    assert_ok(fst_plan_new(&plan, g, o, err));
    assert_ok(fst_plan_forward(plan, &p->state, x, NULL, &y, err));
    p->y = new_floats(p->outputs);
    p->gx = new_floats(p->inputs);
    p->grads = new_floats(p->state.param_count);
    memcpy(p->y, y, p->outputs * sizeof *y);
    if (o->training) {
        for (size_t i = 0; i < p->state.param_count; i++)
            p->grads[i] = NAN; /* all of it must be written */
        fill_normal(fst_plan_output_grad(plan), p->outputs, 6, "test.grad", 1);
        assert_ok(fst_plan_backward(plan, &p->state, p->grads, err));
        memcpy(p->gx, fst_plan_input_grad(plan), p->inputs * sizeof *p->gx);
    }
    fst_plan_free(plan);
}

static void free_pass(struct pass *p)
{
    fst_state_release(&p->state);
    free(p->y);
    free(p->gx);
    free(p->grads);
}

static void near(const char *what, const float *got, const float *want, size_t n, double tolerance)
{
    double size = distance(want, NULL, n), off = distance(got, want, n);
    if (!(off <= tolerance * size))
        fail_msg("%s differs by %.3g of %.3g", what, off, size);
}

static fst_graph *graph_of(builder build, fst_shape input)
{
    fst_graph *g = NULL;
    assert_ok(fst_graph_new(&g, err));
    assert_ok(fst_graph_finish(g, build(g, fst_graph_input(g, &input)), err));
    return g;
}

/* A bottleneck with attention; no ReLU in front of a kink that rounding could push over. */
static fst_value block(fst_graph *g, fst_value x)
{
    static const fst_time_freq_attention o = {.reduction = 16, .floor = 1e-8, .ceiling = 10, .phase_eps = 1e-8};
    fst_value z = conv(g, into(g, x), "stem", 32, 3, 1, false);
    fst_value y = fst_graph_complex_batchnorm(g, z, "a.norm", 1e-5, 0.1);
    y = conv(g, y, "b", 32, 3, 1, false);
    y = fst_graph_add(g, fst_graph_complex_batchnorm(g, y, "b.norm", 1e-5, 0.1), z);
    y = fst_graph_time_freq_attention(g, y, "c", &o);
    y = conv(g, conv(g, y, "d", 48, 3, 2, false), "e", 17, 1, 1, false);
    y = fst_graph_complex_batchnorm(g, y, "e.norm", 1e-5, 0.1);
    y = fst_graph_complex_linear(g, fst_graph_global_avgpool(g, y), "f", 7, true);
    return fst_graph_magnitude(g, y);
}

static void backends_agree(void **state)
{
    (void)state;
    static const struct {
        bool training, frozen;
    } modes[] = {{true, false}, {true, true}, {false, false}};
    static const int64_t sides[] = {2, 5, 8};
    enum { BATCH = 5 };
    for (size_t s = 0; s < 3; s++)
        for (size_t m = 0; m < 3; m++) {
            fst_graph *g = graph_of(block, FST_SHAPE(2, 3, sides[s], sides[s]));
            float *x = new_floats(BATCH * sample_floats(g));
            fill_normal(x, BATCH * sample_floats(g), 9, "test.x", 1);
            struct pass want = {0}, got;
            for (const char *const *b = fst_backend_names(); *b; b++) {
                fst_plan_options o = {.batch = BATCH,
                                      .training = modes[m].training,
                                      .frozen = modes[m].frozen,
                                      .input_grad = modes[m].training,
                                      .threads = 2,
                                      .backend = *b};
                run_pass(b == fst_backend_names() ? &want : &got, g, &o, x);
                if (b == fst_backend_names())
                    continue;
                near("the output", got.y, want.y, want.outputs, 1e-5);
                near("the input's gradient", got.gx, want.gx, want.inputs, 1e-4);
                for (size_t i = 0; i < fst_graph_params(g); i++) {
                    fst_param_info p = fst_graph_param(g, i);
                    near(p.name, got.grads + p.offset, want.grads + p.offset, p.count, 2e-4);
                }
                near("buffers", got.state.buffers, want.state.buffers, want.state.buffer_count, 1e-5);
                free_pass(&got);
            }
            free_pass(&want);
            free(x);
            fst_graph_free(g);
        }
}

/* Complex ops compute in f32 whatever the plan's precision. */
static void bf16_plans_keep_complex_values_whole(void **state)
{
    (void)state;
    enum { BATCH = 4 };
    if (!fst_backend_supports(NULL, FST_PRECISION_BF16))
        return;
    fst_graph *g = graph_of(block, FST_SHAPE(2, 3, 8, 8));
    float *x = new_floats(BATCH * sample_floats(g));
    fill_normal(x, BATCH * sample_floats(g), 9, "test.x", 1);
    struct pass want, got;
    fst_plan_options o = {.batch = BATCH, .training = true, .input_grad = true, .threads = 2};
    run_pass(&want, g, &o, x);
    o.precision = FST_PRECISION_BF16;
    run_pass(&got, g, &o, x);
    near("the output", got.y, want.y, want.outputs, 1e-6);
    near("the input's gradient", got.gx, want.gx, want.inputs, 1e-5);
    near("gradients", got.grads, want.grads, want.state.param_count, 1e-5);
    free_pass(&want);
    free_pass(&got);
    free(x);
    fst_graph_free(g);
}

static fst_value loops_only(fst_graph *g, fst_value x)
{
    static const fst_time_freq_attention o = {.reduction = 4, .floor = 1e-8, .ceiling = 10, .phase_eps = 1e-8};
    fst_value z = fst_graph_relu(g, norm(g, into(g, x)));
    return out_of(g, fst_graph_time_freq_attention(g, z, "op", &o));
}

/* Norms, ReLU and attention are cut among threads without a trace in their sums. */
static void threads_leave_no_trace(void **state)
{
    (void)state;
    enum { BATCH = 6 };
    fst_graph *g = graph_of(loops_only, FST_SHAPE(2, 48, 16, 12));
    float *x = new_floats(BATCH * sample_floats(g));
    fill_normal(x, BATCH * sample_floats(g), 9, "test.x", 1);
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct pass one, three;
        fst_plan_options o = {.batch = BATCH, .training = true, .input_grad = true, .threads = 1, .backend = *b};
        run_pass(&one, g, &o, x);
        o.threads = 3;
        run_pass(&three, g, &o, x);
        assert_memory_equal(one.y, three.y, one.outputs * sizeof *one.y);
        assert_memory_equal(one.gx, three.gx, one.inputs * sizeof *one.gx);
        assert_memory_equal(one.grads, three.grads, one.state.param_count * sizeof *one.grads);
        assert_memory_equal(one.state.buffers, three.state.buffers, one.state.buffer_count * sizeof(float));
        free_pass(&one);
        free_pass(&three);
    }
    free(x);
    fst_graph_free(g);
}

/* ---- odd cases ----------------------------------------------------------------------------------------------- */

/* Channels of one value: nothing to whiten, the output is the bias; eps keeps all finite. */
static void constant_channels(void **state)
{
    (void)state;
    enum { BATCH = 4 };
    static const int64_t channels[] = {3, 16};
    for (size_t i = 0; i < 2; i++)
        for (const char *const *b = fst_backend_names(); *b; b++) {
            fst_graph *g = graph_of(norm_only, FST_SHAPE(2, channels[i], 3, 3));
            fst_plan_options o = {.batch = BATCH, .training = true, .input_grad = true, .threads = 2, .backend = *b};
            size_t n = BATCH * sample_floats(g), each = 9;
            float *x = new_floats(n);
            struct pass p;
            for (size_t k = 0; k < n; k++)
                x[k] = (float)(0.1 * (double)(k / each % (size_t)channels[i])) + 1000;
            run_pass(&p, g, &o, x);
            const float *bias = p.state.params + fst_graph_param(g, 1).offset;
            for (size_t k = 0; k < p.outputs; k++) {
                size_t c = k / each % (size_t)channels[i], part = k / each / (size_t)channels[i] % 2;
                assert_true(fabs((double)p.y[k] - (double)bias[2 * c + part]) < 1e-2);
                assert_true(isfinite(p.gx[k]));
            }
            for (size_t k = 0; k < p.state.param_count; k++)
                assert_true(isfinite(p.grads[k]));
            for (size_t k = 0; k < p.state.buffer_count; k++)
                assert_true(isfinite(p.state.buffers[k]));
            free_pass(&p);
            free(x);
            fst_graph_free(g);
        }
}

/* Zeros after a ReLU have no phase of their own: everything stays finite. */
static void zeros_stay_finite(void **state)
{
    (void)state;
    enum { BATCH = 2 };
    fst_graph *g = graph_of(attention, FST_SHAPE(2, 16, 3, 3));
    float *x = new_floats(BATCH * sample_floats(g));
    for (size_t i = 0; i < 40; i++)
        x[7 * i] = i % 3 ? 0.5f : -1e-8f; /* with phase_eps: exactly 0 */
    for (const char *const *b = fst_backend_names(); *b; b++) {
        fst_plan_options o = {.batch = BATCH, .training = true, .input_grad = true, .backend = *b};
        struct pass p;
        run_pass(&p, g, &o, x);
        for (size_t i = 0; i < p.outputs; i++)
            assert_true(isfinite(p.y[i]) && isfinite(p.gx[i]));
        for (size_t i = 0; i < p.state.param_count; i++)
            assert_true(isfinite(p.grads[i]));
        free_pass(&p);
    }
    free(x);
    fst_graph_free(g);
}

static void new_norms_start_at_root_two(void **state)
{
    (void)state;
    fst_graph *g = graph_of(norm_only, FST_SHAPE(2, 4, 2, 2));
    fst_state s;
    assert_ok(fst_state_init(&s, g, err));
    fst_state_randomise(&s, g, 1);
    const float *weight = s.params + fst_graph_param(g, 0).offset, *covar = s.buffers + fst_graph_buffer(g, 1).offset;
    for (size_t i = 0; i < 12; i++) {
        assert_true(weight[i] == (i % 3 < 2 ? sqrtf(2) : 0));
        assert_true(covar[i] == weight[i]);
    }
    assert_string_equal(fst_graph_param(g, 1).name, "norm.bias");
    assert_string_equal(fst_graph_buffer(g, 1).name, "norm.running_covar");
    assert_string_equal(fst_graph_counter(g, 0), "norm.num_batches_tracked");
    fst_state_release(&s);
    fst_graph_free(g);
}

/* In the order of state_dict. */
static void pairs_are_whole(void **state)
{
    (void)state;
    static const char *const names[] = {"op.fc_r.weight", "op.fc_r.bias", "op.fc_i.weight", "op.fc_i.bias"};
    fst_graph *g = graph_of(linear, FST_SHAPE(2, 7));
    size_t count = fst_graph_param_count(g);
    assert_int_equal(fst_graph_params(g), 4);
    assert_int_equal(count, 2 * (5 * 7 + 5));
    for (size_t i = 0, at = 0; i < 4; i++) {
        fst_param_info p = fst_graph_param(g, i);
        assert_string_equal(p.name, names[i]);
        assert_int_equal(p.count, i % 2 ? 5 : 35);
        assert_int_equal(p.offset, at);
        at += p.count;
    }
    fst_graph_free(g);
}

/* A trainer with a state, an optimiser and a batch of samples. */
enum { STEP_BATCH = 8 };
struct stepping {
    fst_state state;
    fst_trainer *trainer;
    fst_optim optim;
    float *x;
    int32_t labels[STEP_BATCH];
    fst_step_input in;
};

static void stepping_init(struct stepping *w, const fst_graph *g, const fst_optim_spec *spec, fst_trainer_options o)
{
    size_t n = STEP_BATCH * sample_floats(g);
    *w = (struct stepping){.x = new_floats(n)};
    o.batch_size = STEP_BATCH;
    fill_normal(w->x, n, 9, "test.x", 1);
    fill_labels(w->labels, STEP_BATCH, 7, 2);
    assert_ok(fst_state_init(&w->state, g, err));
    fst_state_randomise(&w->state, g, 3);
    assert_ok(fst_trainer_new(&w->trainer, g, &o, err));
    assert_ok(fst_optim_init(&w->optim, spec, w->state.param_count, err));
    w->in = (fst_step_input){.rows = STEP_BATCH,
                             .x = w->x,
                             .labels = w->labels,
                             .loss = FST_LOSS_CROSS_ENTROPY,
                             .learning_rate = spec->learning_rate};
}

static void stepping_release(struct stepping *w)
{
    fst_trainer_free(w->trainer);
    fst_optim_release(&w->optim);
    fst_state_release(&w->state);
    free(w->x);
}

static void steps_allocate_nothing(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        fst_graph *g = graph_of(block, FST_SHAPE(2, 2, 8, 8));
        const fst_optim_spec adam = {.kind = FST_OPTIM_ADAM, .learning_rate = 1e-3};
        struct stepping w;
        fst_step_result r;
        double first = 0;
        uint64_t before = 0;
        stepping_init(&w, g, &adam, (fst_trainer_options){.threads = 2, .backend = *b});
        for (w.in.step = 0; w.in.step < 12; w.in.step++) {
            before = w.in.step == 2 ? fst_alloc_count() : before;
            assert_ok(fst_trainer_step(w.trainer, &w.state, &w.optim, &w.in, &r, err));
            first = w.in.step ? first : r.loss_sum;
        }
        assert_int_equal(fst_alloc_count(), before);
        assert_true(r.loss_sum < 0.8 * first); /* it learns */
        stepping_release(&w);
        fst_graph_free(g);
    }
}

/* Parameters, then running statistics, after steps over batches of 8 and of 5 rows in shards of `shard`. */
static float *trained(fst_graph *g, const char *backend, size_t shard, int threads, size_t *count)
{
    const fst_optim_spec sgd = {.learning_rate = 0.05};
    struct stepping w;
    fst_step_result r;
    stepping_init(&w, g, &sgd, (fst_trainer_options){.threads = threads, .shard_size = shard, .backend = backend});
    for (w.in.step = 0; w.in.step < 4; w.in.step++) {
        w.in.rows = w.in.step % 2 ? 5 : STEP_BATCH;
        assert_ok(fst_trainer_step(w.trainer, &w.state, &w.optim, &w.in, &r, err));
    }
    const fst_state *s = &w.state;
    assert_int_equal(s->counters[0], 4);
    *count = s->param_count + s->buffer_count;
    float *all = new_floats(*count);
    memcpy(all, s->params, s->param_count * sizeof *all);
    memcpy(all + s->param_count, s->buffers, s->buffer_count * sizeof *all);
    stepping_release(&w);
    return all;
}

/* Shards that meet at every norm give the whole batch's statistics, and the same bits on any number of threads. */
static void shards_meet_at_norms(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        fst_graph *g = graph_of(block, FST_SHAPE(2, 2, 8, 8));
        size_t n = 0;
        float *whole = trained(g, *b, 8, 1, &n), *one = trained(g, *b, 3, 1, &n);
        for (int threads = 2; threads <= 3; threads++) {
            float *more = trained(g, *b, 3, threads, &n);
            assert_memory_equal(one, more, n * sizeof *one);
            free(more);
        }
        for (size_t i = 0; i < n; i++)
            assert_true(fabs((double)one[i] - (double)whole[i]) < 1e-4 * (1 + fabs((double)whole[i])));
        free(whole);
        free(one);
        fst_graph_free(g);
    }
}

/* ---- refusals --------------------------------------------------------------------------------------------------- */

static void refuse(builder build, fst_shape input, const char *text)
{
    fst_graph *g = NULL;
    assert_ok(fst_graph_new(&g, err));
    fst_value y = build(g, fst_graph_input(g, &input));
    fst_error error = {0};
    assert_true(fst_graph_finish(g, y, &error) != FST_OK);
    if (!strstr(error.message, text))
        fail_msg("\"%s\" does not say \"%s\"", error.message, text);
    fst_graph_free(g);
}

static fst_value real_into_norm(fst_graph *g, fst_value x)
{
    return norm(g, x);
}

static fst_value real_into_conv(fst_graph *g, fst_value x)
{
    return conv(g, x, "op", 2, 1, 1, false);
}

static fst_value complex_into_linear(fst_graph *g, fst_value x)
{
    return fst_graph_linear(g, into(g, x), "op", 3, true);
}

static fst_value complex_twice(fst_graph *g, fst_value x)
{
    return out_of(g, into(g, into(g, x)));
}

static fst_value real_magnitude(fst_graph *g, fst_value x)
{
    return fst_graph_magnitude(g, x);
}

static fst_value mixed_add(fst_graph *g, fst_value x)
{
    fst_value z = into(g, x);
    return out_of(g, fst_graph_add(g, z, fst_graph_magnitude(g, z)));
}

static fst_value grouped(fst_graph *g, fst_value x)
{
    fst_conv2d c = {.out_channels = 2, .kernel = {1, 1}, .stride = {1, 1}, .groups = 2};
    return out_of(g, fst_graph_complex_conv2d(g, into(g, x), "op", &c));
}

static fst_value hardly_reduced(fst_graph *g, fst_value x)
{
    fst_time_freq_attention o = {.reduction = 16, .ceiling = 10};
    return out_of(g, fst_graph_time_freq_attention(g, into(g, x), "op", &o));
}

static void wrong_graphs_are_refused(void **state)
{
    (void)state;
    fst_shape picture = FST_SHAPE(2, 2, 3, 3);
    refuse(into, picture, "the output is complex");
    refuse(parts, FST_SHAPE(3, 4), "real and imaginary part");
    refuse(parts, FST_SHAPE(2), "real and imaginary part");
    refuse(complex_twice, FST_SHAPE(2, 2, 3), "takes real values");
    refuse(real_magnitude, FST_SHAPE(4), "takes complex values");
    refuse(real_into_norm, FST_SHAPE(2, 3, 3), "takes complex values");
    refuse(real_into_conv, FST_SHAPE(2, 3, 3), "takes complex values");
    refuse(complex_into_linear, FST_SHAPE(2, 4), "takes real values");
    refuse(mixed_add, FST_SHAPE(2, 4), "not both");
    refuse(grouped, picture, "has no groups");
    refuse(hardly_reduced, picture, "reduction of 16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weighted_gradients),     cmocka_unit_test(plain_gradients),
        cmocka_unit_test(norm_gradients),         cmocka_unit_test(attention_gradients),
        cmocka_unit_test(backends_agree),         cmocka_unit_test(bf16_plans_keep_complex_values_whole),
        cmocka_unit_test(threads_leave_no_trace), cmocka_unit_test(constant_channels),
        cmocka_unit_test(zeros_stay_finite),      cmocka_unit_test(new_norms_start_at_root_two),
        cmocka_unit_test(pairs_are_whole),        cmocka_unit_test(shards_meet_at_norms),
        cmocka_unit_test(steps_allocate_nothing), cmocka_unit_test(wrong_graphs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

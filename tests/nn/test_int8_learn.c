/*
 * Training towards int8. Finite differences do not hold through rounding; the oracle is the same step worked out by
 * itself in double, rounding included and straight-through: loss and every gradient, on both backends. Then: what is
 * learnt from is what the network in int8 computes, and threads change nothing.
 */
#include "nn/support.h"

enum { ROWS = 6, IN = 7, HIDDEN = 9, CLASSES = 4 };

static fst_graph *two_layers(void)
{
    fst_graph *g;
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &FST_SHAPE(IN));
    x = fst_graph_relu(g, fst_graph_linear(g, x, "fc1", HIDDEN, true));
    assert_ok(fst_graph_finish(g, fst_graph_linear(g, x, "fc2", CLASSES, true), err));
    return g;
}

/* ---- the step in double ------------------------------------------------------------------------------------- */

/* x becomes whole numbers times a scale: the largest magnitude over `steps`. */
static void round_to(double *x, int n, double steps)
{
    double most = 0;
    for (int i = 0; i < n; i++)
        most = fmax(most, fabs(x[i]));
    double scale = (double)(float)(most / steps);
    for (int i = 0; i < n && most > 0; i++)
        x[i] = nearbyint(x[i] / scale) * scale;
}

struct network {
    double w1[HIDDEN][IN], b1[HIDDEN], w2[CLASSES][HIDDEN], b2[CLASSES];
};

static void unpack(struct network *n, const float *p)
{
    double *to[] = {n->w1[0], n->b1, n->w2[0], n->b2};
    static const int count[] = {HIDDEN * IN, HIDDEN, CLASSES * HIDDEN, CLASSES};
    for (int k = 0; k < 4; p += count[k++])
        for (int i = 0; i < count[k]; i++)
            to[k][i] = (double)p[i];
}

struct pass {
    double x[ROWS][IN], h[ROWS][HIDDEN], r[ROWS][HIDDEN], z[ROWS][CLASSES]; /* r: h rounded */
};

static void forward(const struct network *n, const float *x, struct pass *p)
{
    for (int i = 0; i < ROWS * IN; i++)
        p->x[i / IN][i % IN] = (double)x[i];
    round_to(p->x[0], ROWS * IN, 127);
    for (int r = 0; r < ROWS; r++)
        for (int o = 0; o < HIDDEN; o++) {
            p->h[r][o] = n->b1[o];
            for (int i = 0; i < IN; i++)
                p->h[r][o] += n->w1[o][i] * p->x[r][i];
            p->h[r][o] = p->r[r][o] = fmax(p->h[r][o], 0);
        }
    round_to(p->r[0], ROWS * HIDDEN, 255);
    for (int r = 0; r < ROWS; r++)
        for (int o = 0; o < CLASSES; o++) {
            p->z[r][o] = n->b2[o];
            for (int i = 0; i < HIDDEN; i++)
                p->z[r][o] += n->w2[o][i] * p->r[r][i];
        }
}

/* Mean cross entropy with soft targets of a teacher; its gradient by the logits. */
static double loss_of(const struct pass *p, const int32_t *labels, const float *soft, double grad[ROWS][CLASSES])
{
    double loss = 0;
    for (int r = 0; r < ROWS; r++) {
        double sum = 0;
        for (int c = 0; c < CLASSES; c++)
            sum += exp(p->z[r][c]);
        for (int c = 0; c < CLASSES; c++) {
            double q = exp(p->z[r][c]) / sum, hard = labels[r] == c, t = (double)soft[r * CLASSES + c];
            grad[r][c] = (0.3 * (q - hard) + 0.7 * (q - t)) / ROWS;
            loss -= (0.3 * hard + 0.7 * t) * log(q);
        }
    }
    return loss;
}

static void backward(const struct network *n, const struct pass *p, double dz[ROWS][CLASSES], struct network *g)
{
    memset(g, 0, sizeof *g);
    for (int r = 0; r < ROWS; r++)
        for (int o = 0; o < HIDDEN; o++) {
            double dh = 0;
            for (int c = 0; c < CLASSES; c++) {
                g->w2[c][o] += dz[r][c] * p->r[r][o];
                g->b2[c] += o ? 0 : dz[r][c];
                dh += dz[r][c] * n->w2[c][o]; /* straight through the rounding of h */
            }
            dh = p->h[r][o] > 0 ? dh : 0;
            g->b1[o] += dh;
            for (int i = 0; i < IN; i++)
                g->w1[o][i] += dh * p->x[r][i];
        }
}

static void test_a_step_by_hand(void **state)
{
    (void)state;
    fst_graph *g = two_layers(), *learn = NULL;
    fst_state s;
    assert_ok(fst_graph_int8_learn(&learn, g, err));
    assert_ok(fst_state_init(&s, g, err));
    float x[ROWS * IN], soft[ROWS * CLASSES], before[256];
    int32_t labels[ROWS];
    assert_true(s.param_count <= 256 && fst_graph_param_count(learn) == s.param_count);
    fill_normal(x, ROWS * IN, 1, "test.learn", 1);
    fill_normal(soft, ROWS * CLASSES, 2, "test.learn", 1);
    fst_softmax(soft, ROWS, CLASSES, 1, soft);
    fill_labels(labels, ROWS, CLASSES, 3);
    for (int b = 0; fst_backend_names()[b]; b++) {
        fst_trainer *t;
        fst_optim optim;
        fst_step_result result;
        fst_trainer_options to = {
            .batch_size = ROWS, .shard_size = ROWS, .threads = 1, .backend = fst_backend_names()[b]};
        fst_optim_spec spec = {.kind = FST_OPTIM_SGD, .learning_rate = 1};
        fst_step_input in = {
            .rows = ROWS,
            .x = x,
            .labels = labels,
            .soft = soft,
            .learning_rate = 1,
            .loss = {.ce_weight = 0.3, .kd_weight = 0.7, .temperature = 1, .kd_form = FST_KD_CROSS_ENTROPY}};
        fill_state(&s, g, 4);
        memcpy(before, s.params, s.param_count * sizeof *before);
        assert_ok(fst_trainer_new(&t, learn, &to, err));
        assert_ok(fst_optim_init(&optim, &spec, s.param_count, err));
        assert_ok(fst_trainer_step(t, &s, &optim, &in, &result, err));

        struct network n, grad;
        struct pass p;
        double dz[ROWS][CLASSES], most = 0, *want = grad.w1[0];
        unpack(&n, before);
        for (int o = 0; o < HIDDEN; o++)
            round_to(n.w1[o], IN, 127);
        for (int o = 0; o < CLASSES; o++)
            round_to(n.w2[o], HIDDEN, 127);
        forward(&n, x, &p);
        double loss = loss_of(&p, labels, soft, dz);
        backward(&n, &p, dz, &grad);
        assert_float_equal(result.loss_sum, loss, 1e-6 * loss);
        _Static_assert(sizeof grad == sizeof(double) * (HIDDEN * IN + HIDDEN + CLASSES * HIDDEN + CLASSES), "no gaps");
        for (size_t i = 0; i < s.param_count; i++) {
            double got = (double)before[i] - (double)s.params[i]; /* the optimiser moved the weights as they were */
            assert_float_equal(got, want[i], 2e-6);
            most = fmax(most, fabs(want[i]));
        }
        assert_true(most > 0.05);
        fst_optim_release(&optim);
        fst_trainer_free(t);
    }
    fst_state_release(&s);
    fst_graph_free(learn);
    fst_graph_free(g);
}

/* ---- what is learnt from is what int8 computes ----------------------------------------------------------------- */

static fst_value conv(fst_graph *g, fst_value x, const char *name, int64_t out, int64_t stride)
{
    fst_conv2d c = {.out_channels = out, .kernel = {3, 3}, .stride = {stride, stride}, .padding = {1, 1}, .groups = 1};
    return fst_graph_conv2d(g, x, name, &c);
}

static fst_graph *residual(void)
{
    fst_graph *g;
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &FST_SHAPE(3, 8, 8));
    x = fst_graph_relu(g, fst_graph_batchnorm2d(g, conv(g, x, "stem", 8, 1), "bn1", 1e-5, 0.1));
    x = fst_graph_maxpool2d(g, x, 2, 2, 0);
    fst_value y = fst_graph_relu(g, fst_graph_batchnorm2d(g, conv(g, x, "a", 8, 1), "bn2", 1e-5, 0.1));
    x = fst_graph_relu(g, fst_graph_add(g, fst_graph_batchnorm2d(g, conv(g, y, "b", 8, 1), "bn3", 1e-5, 0.1), x));
    x = fst_graph_linear(g, fst_graph_global_avgpool(g, x), "fc", 5, true);
    assert_ok(fst_graph_finish(g, x, err));
    return g;
}

static void run(const fst_graph *g, fst_state *s, const float *x, int64_t batch, float *out)
{
    fst_plan *plan;
    const float *y;
    fst_plan_options o = {.batch = batch};
    assert_ok(fst_plan_new(&plan, g, &o, err));
    assert_ok(fst_plan_forward(plan, s, x, NULL, &y, err));
    memcpy(out, y, (size_t)batch * output_floats(g) * sizeof *out);
    fst_plan_free(plan);
}

/* The scale of a value, by what a tap sees of it. */
static float scale_of(const fst_graph *g, fst_state *s, fst_value v, const float *x, int64_t batch)
{
    size_t n = (size_t)batch * sample_floats(g);
    const float *seen = x;
    float *row = NULL, most = 0;
    fst_shape shape = fst_graph_value_shape(g, v);
    if (v > 0) {
        fst_graph *tapped;
        fst_value out;
        assert_ok(fst_graph_copy(&tapped, g, &out, err));
        assert_ok(fst_graph_finish_tapped(tapped, out, &v, 1, err));
        n = (size_t)batch * output_floats(tapped);
        row = new_floats(n);
        run(tapped, s, x, batch, row);
        for (size_t i = 0; i < n; i++) /* the head is not the value */
            row[i] = i % output_floats(tapped) < 5 ? 0 : row[i];
        seen = row;
        fst_graph_free(tapped);
    }
    assert_true(fst_shape_count(&shape) > 0);
    for (size_t i = 0; i < n; i++)
        most = fmaxf(most, fabsf(seen[i]));
    free(row);
    return most / (fst_graph_is_positive(g, v) ? 255 : 127);
}

static void test_int8_computes_it(void **state)
{
    (void)state;
    enum { BATCH = 12 };
    fst_graph *g = residual(), *learn, *q;
    fst_state s, rounded, qs;
    assert_ok(fst_graph_int8_learn(&learn, g, err));
    assert_ok(fst_state_init(&s, g, err));
    fill_state(&s, g, 9);
    assert_ok(fst_state_init(&rounded, g, err));
    fst_state_copy(&rounded, &s);
    for (size_t i = 0; i < fst_graph_params(g); i++) { /* weights by output channel */
        fst_param_info p = fst_graph_param(g, i);
        size_t depth = p.count / (size_t)p.shape.dim[0];
        for (size_t o = 0; p.shape.rank > 1 && o < (size_t)p.shape.dim[0]; o++) {
            float *w = rounded.params + p.offset + o * depth, most = 0;
            for (size_t k = 0; k < depth; k++)
                most = fmaxf(most, fabsf(w[k]));
            for (size_t k = 0; k < depth; k++)
                w[k] = nearbyintf(w[k] / (most / 127)) * (most / 127);
        }
    }
    size_t n = BATCH * output_floats(g), values = fst_graph_layers(g);
    float *x = new_floats(BATCH * sample_floats(g)), *want = new_floats(n), *got = new_floats(n), *f32 = new_floats(n),
          *scales = new_floats(values);
    fill_normal(x, BATCH * sample_floats(g), 5, "test.learn", 1);
    run(learn, &rounded, x, BATCH, got);
    run(g, &s, x, BATCH, f32);
    for (size_t i = 0; i < values; i++)
        if (fst_graph_int8_takes(g, (fst_value)i, NULL))
            scales[i] = scale_of(g, &s, fst_graph_node(g, (fst_value)i).input[0], x, BATCH);
    assert_ok(fst_graph_int8(&q, g, scales, err));
    assert_ok(fst_state_init(&qs, q, err));
    fst_state_int8(&qs, q, &s, g);
    run(q, &qs, x, BATCH, want);
    /* scales by the f32 network are not quite those of the rounded one: a fraction of what rounding does at all */
    double apart = distance(got, want, n), rounding = distance(f32, want, n), size = distance(f32, NULL, n);
    if (!(rounding > 1e-3 * size) || apart > 0.7 * rounding)
        fail_msg("int8 is %g of %g from f32, and %g from what was learnt from", rounding, size, apart);
    free(x);
    free(want);
    free(got);
    free(f32);
    free(scales);
    fst_state_release(&s);
    fst_state_release(&rounded);
    fst_state_release(&qs);
    fst_graph_free(g);
    fst_graph_free(learn);
    fst_graph_free(q);
}

/* ---- steps ---------------------------------------------------------------------------------------------------------
 */

static double train(const fst_graph *g, fst_state *s, int threads, int steps)
{
    enum { BATCH = 40 };
    fst_trainer *t;
    fst_optim optim;
    fst_step_result r = {0};
    fst_trainer_options to = {.batch_size = BATCH, .threads = threads};
    fst_optim_spec spec = {.kind = FST_OPTIM_ADAM, .learning_rate = 0.01};
    float *x = new_floats(BATCH * sample_floats(g));
    int32_t labels[BATCH];
    fill_labels(labels, BATCH, 5, 8);
    fill_normal(x, BATCH * sample_floats(g), 6, "test.learn", 1);
    assert_ok(fst_trainer_new(&t, g, &to, err));
    assert_ok(fst_optim_init(&optim, &spec, s->param_count, err));
    for (int i = 0; i < steps; i++) {
        fst_step_input in = {.rows = i % 2 ? BATCH : BATCH - 3,
                             .x = x,
                             .labels = labels,
                             .learning_rate = 0.01,
                             .loss = FST_LOSS_CROSS_ENTROPY};
        assert_ok(fst_trainer_step(t, s, &optim, &in, &r, err));
    }
    fst_optim_release(&optim);
    fst_trainer_free(t);
    free(x);
    return r.loss_sum / BATCH;
}

static void test_threads_change_nothing(void **state)
{
    (void)state;
    fst_graph *g = residual(), *learn;
    fst_state one, three;
    assert_ok(fst_graph_int8_learn(&learn, g, err));
    assert_ok(fst_state_init(&one, g, err));
    assert_ok(fst_state_init(&three, g, err));
    fill_state(&one, g, 2);
    fst_state_copy(&three, &one);
    double first = train(learn, &one, 1, 2), last;
    (void)train(learn, &three, 3, 2);
    assert_memory_equal(one.params, three.params, one.param_count * sizeof(float));
    assert_memory_equal(one.buffers, three.buffers, one.buffer_count * sizeof(float));
    last = train(learn, &one, 2, 40);
    if (!(last < 0.5 * first))
        fail_msg("the loss went from %g to %g", first, last);
    fst_state_release(&one);
    fst_state_release(&three);
    fst_graph_free(learn);
    fst_graph_free(g);
}

static void test_refusals(void **state)
{
    (void)state;
    fst_graph *g = residual(), *learn, *again = NULL;
    fst_trainer *t;
    fst_trainer_options to = {.batch_size = 4, .precision = FST_PRECISION_BF16};
    assert_ok(fst_graph_int8_learn(&learn, g, err));
    assert_fails(fst_graph_int8_learn(&again, learn, err), FST_E_ARGUMENT, "f32 graph");
    if (fst_backend_supports(NULL, FST_PRECISION_BF16))
        assert_fails(fst_trainer_new(&t, learn, &to, err), FST_E_UNSUPPORTED, "bf16");
    fst_graph_free(learn);
    fst_graph_free(g);
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_relu(g, fst_graph_input(g, &FST_SHAPE(5)));
    assert_ok(fst_graph_finish(g, x, err));
    assert_fails(fst_graph_int8_learn(&again, g, err), FST_E_UNSUPPORTED, "no layer");
    fst_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_step_by_hand),
        cmocka_unit_test(test_int8_computes_it),
        cmocka_unit_test(test_threads_change_nothing),
        cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

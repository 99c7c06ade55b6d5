/*
 * Tapped networks and what is learnt at their taps: losses of feature maps against PyTorch's numbers, gradients through
 * the network by finite differences, threads, halves of a step, and the temperature's slope.
 */
#include "fedstill/models.h"
#include "nn/support.h"

enum { BATCH = 9, CLASSES = 5, MAP = 4 * 6 * 6, TARGETS = 3 * 6 * 6 };

/* ---- the losses ------------------------------------------------------------------------------------ */

static void wave(float *v, size_t n, double factor, double shift)
{
    for (size_t i = 0; i < n; i++)
        v[i] = (float)sin((double)i * factor + shift);
}

/* By make_features.py. */
static const double mse_grad[24] = {-0.024132077, -0.022859062, 0.071364583,  0.143721864,  0.072542999,  -0.085080018,
                                    -0.154741377, -0.073647764, 0.035854225,  0.047183055,  -0.000950570, 0.012733042,
                                    0.090532536,  0.101888698,  -0.017546852, -0.149201627, -0.138765037, -0.004116535,
                                    0.092085872,  0.064425938,  0.003752023,  0.020414700,  0.072508447,  0.035491355};
static const double attention_grad[24] = {
    -0.005742610, -0.033047652, 0.007455769,  0.011632521,  -0.013762081, 0.020386335,  -0.006847875, -0.013796854,
    0.031676488,  -0.005369269, 0.005448674,  0.014366886,  0.022577884,  -0.008566475, 0.030867580,  0.009637122,
    -0.026975683, 0.020622460,  -0.008988477, -0.007732209, 0.028256298,  -0.030295409, -0.013929293, 0.004933799};

static void check_form(fst_feature_form form, int64_t channels, double factor, double shift, double loss,
                       const double *wanted)
{
    float map[24], target[2 * 5 * 4], grad[24] = {0};
    double row[2];
    fst_feature_input in = {.map = map,
                            .target = target,
                            .stride = 12,
                            .target_stride = (size_t)channels * 4,
                            .shape = FST_SHAPE(3, 2, 2),
                            .target_shape = FST_SHAPE(channels, 2, 2),
                            .rows = 2,
                            .divisor = 2};
    wave(map, 24, 0.7, 0.1);
    wave(target, 2 * (size_t)channels * 4, factor, shift);
    assert_ok(fst_feature_check(form, &in.shape, &in.target_shape, err));
    fst_feature_rows(form, &in, 10, grad, row);
    assert_true(fabs((row[0] + row[1]) / 2 - loss) < 1e-7);
    for (int i = 0; i < 24; i++)
        assert_true(fabs((double)grad[i] - 10 * wanted[i]) < 1e-6);
}

static void losses_are_those_of_pytorch(void **state)
{
    (void)state;
    check_form(FST_FEATURE_MSE, 3, 1.3, 0.4, 0.914376949, mse_grad);
    check_form(FST_FEATURE_ATTENTION, 5, 1.1, 0.3, 0.077739494, attention_grad);
}

/* Of few positions or many, a gradient is the slope along a direction. */
static void attention_has_a_slope_at_any_size(void **state)
{
    (void)state;
    for (int64_t positions = 50; positions <= 5000; positions *= 100) {
        size_t n = 3 * (size_t)positions;
        float *map = new_floats(n), *target = new_floats(n), *way = new_floats(n), *grad = new_floats(n),
              *moved = new_floats(n), *unused = new_floats(n);
        double row, up, down, slope = 0, h = 1.0 / 512;
        fst_feature_input in = {.map = map,
                                .target = target,
                                .stride = n,
                                .target_stride = n,
                                .shape = FST_SHAPE(3, 1, positions),
                                .target_shape = FST_SHAPE(3, 1, positions),
                                .rows = 1,
                                .divisor = 1};
        wave(map, n, 0.7, 0.1);
        wave(target, n, 1.3, 0.4);
        wave(way, n, 0.31, 0.2);
        fst_feature_rows(FST_FEATURE_ATTENTION, &in, 1, grad, &row);
        in.map = moved;
        for (size_t i = 0; i < n; i++) {
            slope += (double)way[i] * (double)grad[i];
            moved[i] = (float)((double)map[i] + h * (double)way[i]);
        }
        fst_feature_rows(FST_FEATURE_ATTENTION, &in, 1, unused, &up);
        for (size_t i = 0; i < n; i++)
            moved[i] = (float)((double)map[i] - h * (double)way[i]);
        fst_feature_rows(FST_FEATURE_ATTENTION, &in, 1, unused, &down);
        if (!(fabs(slope) > 1e-9 && fabs((up - down) / (2 * h) - slope) < 2e-3 * fabs(slope)))
            fail_msg("%d positions: slope %.9g, gradient %.9g", (int)positions, (up - down) / (2 * h), slope);
        free(map);
        free(target);
        free(way);
        free(grad);
        free(moved);
        free(unused);
    }
}

static void maps_must_fit(void **state)
{
    fst_shape a = FST_SHAPE(3, 4, 4), wide = FST_SHAPE(8, 4, 4), small = FST_SHAPE(3, 2, 4), flat = FST_SHAPE(48);
    float zero[48] = {0}, map[48], grad[48] = {0};
    double row;
    (void)state;
    assert_ok(fst_feature_check(FST_FEATURE_ATTENTION, &a, &wide, err));
    assert_fails(fst_feature_check(FST_FEATURE_MSE, &a, &wide, err), FST_E_MISMATCH, "must be equal");
    assert_fails(fst_feature_check(FST_FEATURE_ATTENTION, &a, &small, err), FST_E_MISMATCH, "equal height");
    assert_fails(fst_feature_check(FST_FEATURE_ATTENTION, &flat, &flat, err), FST_E_MISMATCH, "equal height");
    wave(map, 48, 1, 0); /* a map without any energy */
    fst_feature_input in = {.map = zero,
                            .target = map,
                            .stride = 48,
                            .target_stride = 48,
                            .shape = a,
                            .target_shape = a,
                            .rows = 1,
                            .divisor = 1};
    fst_feature_rows(FST_FEATURE_ATTENTION, &in, 1, grad, &row);
    assert_true(row > 0 && distance(grad, NULL, 48) == 0);
}

/* ---- through a network ------------------------------------------------------------------------------- */

/* Smooth: (2, 6, 6) -> two convolutions -> classes, tapped at the first, and by a regressor at the second. */
static fst_graph *plain_net(void)
{
    fst_graph *g = NULL;
    fst_conv2d c = {.out_channels = 4, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}, .bias = true};
    assert_ok(fst_graph_new(&g, err));
    fst_value x = fst_graph_input(g, &FST_SHAPE(2, 6, 6));
    x = fst_graph_gelu_tanh(g, fst_graph_conv2d(g, x, "first", &c));
    x = fst_graph_sigmoid(g, fst_graph_conv2d(g, x, "second.conv", &c));
    x = fst_graph_linear(g, fst_graph_flatten(g, x), "fc", CLASSES, true);
    assert_ok(fst_graph_finish(g, x, err));
    return g;
}

static fst_graph *tapped_net(const fst_graph *plain)
{
    fst_graph *g = NULL;
    fst_value logits, taps[2];
    fst_conv2d regressor = {.out_channels = 3, .kernel = {1, 1}, .stride = {1, 1}, .bias = true};
    assert_ok(fst_graph_copy(&g, plain, &logits, err));
    taps[0] = fst_graph_feature(g, "first");
    taps[1] = fst_graph_conv2d(g, fst_graph_feature(g, "second"), "regressor", &regressor);
    assert_ok(fst_graph_finish_tapped(g, logits, taps, 2, err));
    return g;
}

struct lab {
    fst_graph *plain, *graph;
    fst_trainer *trainer;
    fst_state state;
    fst_optim optim;
    float x[BATCH * 72], soft[BATCH * CLASSES], *teacher, *target;
    int32_t labels[BATCH];
    fst_feature_loss features[2];
    fst_step_input in;
};

static const fst_optim_spec plain_sgd = {.kind = FST_OPTIM_SGD, .learning_rate = 1};

static void open_lab(struct lab *l, const char *backend, int threads, bool halves)
{
    fst_trainer_options o = {
        .batch_size = BATCH, .threads = threads, .shard_size = 4, .backend = backend, .halves = halves};
    *l = (struct lab){.plain = plain_net()};
    l->graph = tapped_net(l->plain);
    assert_ok(fst_trainer_new(&l->trainer, l->graph, &o, err));
    assert_ok(fst_state_init(&l->state, l->graph, err));
    fst_state_randomise(&l->state, l->graph, 5);
    assert_ok(fst_optim_init(&l->optim, &plain_sgd, l->state.param_count, err));
    l->teacher = new_floats(BATCH * 2 * 36);
    l->target = new_floats(BATCH * TARGETS);
    fill_normal(l->x, BATCH * 72, 1, "test.x", 1);
    fill_normal(l->soft, BATCH * CLASSES, 2, "test.soft", 2);
    fill_normal(l->teacher, BATCH * 2 * 36, 3, "test.map", 1);
    fill_normal(l->target, BATCH * TARGETS, 4, "test.target", 1);
    fill_labels(l->labels, BATCH, CLASSES, 6);
    l->features[0] = (fst_feature_loss){.form = FST_FEATURE_ATTENTION,
                                        .weight = 200,
                                        .target = l->teacher,
                                        .target_stride = 72,
                                        .target_shape = FST_SHAPE(2, 6, 6)};
    l->features[1] = (fst_feature_loss){.form = FST_FEATURE_MSE,
                                        .weight = 3,
                                        .tap = 1,
                                        .target = l->target,
                                        .target_stride = TARGETS,
                                        .target_shape = FST_SHAPE(3, 6, 6)};
    l->in = (fst_step_input){.rows = BATCH,
                             .x = l->x,
                             .labels = l->labels,
                             .soft = l->soft,
                             .loss = {.ce_weight = 0.4, .kd_weight = 0.6, .temperature = 3, .soft_logits = true},
                             .features = l->features,
                             .feature_count = 2,
                             .want_temperature_grad = true};
}

static void close_lab(struct lab *l)
{
    fst_trainer_free(l->trainer);
    fst_state_release(&l->state);
    fst_optim_release(&l->optim);
    fst_graph_free(l->graph);
    fst_graph_free(l->plain);
    free(l->teacher);
    free(l->target);
}

static double loss_of(struct lab *l, double *temperature_grad)
{
    fst_step_result r;
    l->in.learning_rate = 0;
    assert_ok(fst_trainer_step(l->trainer, &l->state, &l->optim, &l->in, &r, err));
    if (temperature_grad)
        *temperature_grad = r.temperature_grad;
    return r.loss_sum / BATCH;
}

/* Along each tensor of parameters, in a random direction, and along the temperature. */
static void gradients_are_slopes(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct lab l;
        fst_step_result r;
        open_lab(&l, *b, 2, false);
        size_t n = l.state.param_count;
        float *before = new_floats(n), *grad = new_floats(n), *way = new_floats(n);
        memcpy(before, l.state.params, n * sizeof *before);
        l.in.learning_rate = 1;
        assert_ok(fst_trainer_step(l.trainer, &l.state, &l.optim, &l.in, &r, err));
        for (size_t i = 0; i < n; i++)
            grad[i] = before[i] - l.state.params[i];
        for (size_t p = 0; p < fst_graph_params(l.graph); p++) {
            fst_param_info info = fst_graph_param(l.graph, p);
            const double h = 1.0 / 64, step[4] = {-2, -1, 1, 2}, factor[4] = {1, -8, 8, -1};
            double slope = 0, wanted = 0;
            memset(way, 0, n * sizeof *way);
            fill_normal(way + info.offset, info.count, 7 + p, "test.way", 1);
            for (size_t i = 0; i < n; i++)
                wanted += (double)way[i] * (double)grad[i];
            for (int k = 0; k < 4; k++) {
                for (size_t i = 0; i < n; i++)
                    l.state.params[i] = (float)((double)before[i] + step[k] * h * (double)way[i]);
                slope += factor[k] * loss_of(&l, NULL) / (12 * h);
            }
            if (!(fabs(slope - wanted) < 2e-3 * (0.1 + fabs(wanted))))
                fail_msg("%s, %s: slope %.7g, gradient %.7g", *b, info.name, slope, wanted);
            assert_true(fabs(wanted) > 1e-4);
        }
        double slope, h = 1e-3;
        memcpy(l.state.params, before, n * sizeof *before);
        (void)loss_of(&l, &slope);
        l.in.loss.temperature = 3 + h;
        double above = loss_of(&l, NULL);
        l.in.loss.temperature = 3 - h;
        assert_true(fabs((above - loss_of(&l, NULL)) / (2 * h) - slope) < 1e-5);
        free(before);
        free(grad);
        free(way);
        close_lab(&l);
    }
}

/* Three steps; the bits must not show how many threads took them, nor whether they were taken in halves. */
static void bits_show_no_threads_and_no_halves(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct lab first;
        float logits[BATCH * CLASSES];
        fst_step_result r, q;
        open_lab(&first, *b, 1, false);
        first.in.learning_rate = 0.05;
        for (first.in.step = 0; first.in.step < 3; first.in.step++)
            assert_ok(fst_trainer_step(first.trainer, &first.state, &first.optim, &first.in, &r, err));
        for (int threads = 1; threads <= 4; threads++) {
            struct lab other;
            open_lab(&other, *b, threads, threads != 2);
            other.in.learning_rate = 0.05;
            for (other.in.step = 0; other.in.step < 3; other.in.step++) {
                if (threads == 2) {
                    assert_ok(fst_trainer_step(other.trainer, &other.state, &other.optim, &other.in, &q, err));
                    continue;
                }
                assert_ok(fst_trainer_forward(other.trainer, &other.state, &other.in, logits, err));
                assert_ok(fst_trainer_finish(other.trainer, &other.optim, &other.in, &q, err));
            }
            assert_memory_equal(first.state.params, other.state.params, first.state.param_count * sizeof(float));
            assert_true(r.loss_sum == q.loss_sum && r.temperature_grad == q.temperature_grad);
            close_lab(&other);
        }
        close_lab(&first);
    }
}

/* A last batch of two rows in a trainer for nine is the step of a trainer for two. */
static void padding_adds_nothing(void **state)
{
    struct lab large, exact;
    fst_trainer_options two = {.batch_size = 2, .threads = 1};
    fst_step_result r, q;
    (void)state;
    open_lab(&large, NULL, 2, false);
    open_lab(&exact, NULL, 1, false);
    fst_trainer_free(exact.trainer);
    assert_ok(fst_trainer_new(&exact.trainer, exact.graph, &two, err));
    (void)loss_of(&large, NULL);
    large.in.learning_rate = exact.in.learning_rate = 0.5;
    large.in.rows = exact.in.rows = 2;
    assert_ok(fst_trainer_step(large.trainer, &large.state, &large.optim, &large.in, &r, err));
    assert_ok(fst_trainer_step(exact.trainer, &exact.state, &exact.optim, &exact.in, &q, err));
    assert_true(distance(large.state.params, exact.state.params, large.state.param_count) < 1e-5);
    assert_true(fabs(r.loss_sum - q.loss_sum) < 1e-4);
    close_lab(&large);
    close_lab(&exact);
}

/* The first half gives the logits of the training pass, before and after which nothing has moved but batch norm. */
static void first_halves_give_logits(void **state)
{
    fst_graph *g = NULL;
    fst_model_config c = {.classes = CLASSES, .input = FST_SHAPE(3, 8, 8)};
    fst_trainer *t = NULL;
    fst_runner *runner = NULL;
    fst_state s = {0}, still = {0};
    fst_optim o = {0};
    fst_trainer_options to = {.batch_size = BATCH, .threads = 2, .shard_size = 4, .halves = true};
    float x[BATCH * 192], logits[BATCH * CLASSES], again[BATCH * CLASSES];
    int32_t labels[BATCH];
    fst_step_result r;
    (void)state;
    fill_normal(x, BATCH * 192, 1, "test.x", 1);
    fill_labels(labels, BATCH, CLASSES, 2);
    assert_ok(fst_model_graph(&g, "resnet8", &c, err));
    assert_ok(fst_trainer_new(&t, g, &to, err));
    assert_ok(fst_state_init(&s, g, err));
    assert_ok(fst_state_init(&still, g, err));
    fst_state_randomise(&s, g, 3);
    fst_state_copy(&still, &s);
    assert_ok(fst_optim_init(&o, &plain_sgd, s.param_count, err));
    fst_step_input in = {.rows = BATCH, .x = x, .labels = labels, .loss = FST_LOSS_CROSS_ENTROPY};
    assert_fails(fst_trainer_finish(t, &o, &in, &r, err), FST_E_ARGUMENT, "after the first");
    assert_ok(fst_trainer_forward(t, &s, &in, logits, err));
    assert_memory_equal(s.params, still.params, s.param_count * sizeof(float));
    assert_ok(fst_trainer_finish(t, &o, &in, &r, err));
    double sum = 0; /* the loss of the logits that were given */
    for (int i = 0; i < BATCH; i++) {
        double z[CLASSES];
        fst_log_softmax(logits + i * CLASSES, CLASSES, 1, z);
        sum -= z[labels[i]];
    }
    assert_true(fabs(r.loss_sum - sum) < 1e-6);
    assert_ok(fst_trainer_forward(t, &still, &in, again, err));
    assert_memory_equal(logits, again, sizeof logits);
    assert_memory_equal(s.buffers, still.buffers, s.buffer_count * sizeof(float));
    fst_runner_free(runner);
    fst_trainer_free(t);
    fst_state_release(&s);
    fst_state_release(&still);
    fst_optim_release(&o);
    fst_graph_free(g);
}

/* ---- graphs -------------------------------------------------------------------------------------------- */

static void copies_begin_as_their_model(void **state)
{
    fst_graph *plain = plain_net(), *g = tapped_net(plain);
    (void)state;
    assert_int_equal(fst_graph_taps(g), 2);
    assert_int_equal(fst_graph_head(g), CLASSES);
    assert_int_equal(fst_graph_head(plain), CLASSES);
    assert_int_equal(fst_graph_tap(g, 0).at, CLASSES);
    assert_int_equal(fst_graph_tap(g, 1).at, CLASSES + MAP);
    assert_int_equal(output_floats(g), CLASSES + MAP + TARGETS);
    for (size_t i = 0; i < fst_graph_params(plain); i++) {
        fst_param_info a = fst_graph_param(plain, i), b = fst_graph_param(g, i);
        assert_string_equal(a.name, b.name);
        assert_int_equal(a.offset, b.offset);
    }
    assert_string_equal(fst_graph_param(g, fst_graph_params(plain)).name, "regressor.weight");
    fst_graph_free(plain); /* the copy stands alone */
    assert_int_equal(fst_graph_param_count(g) > 0, true);
    fst_graph_free(g);
}

/* For a ResNet: the outputs of its stages, after the addition and the ReLU. */
static void layers_are_found_by_name(void **state)
{
    fst_graph *g = NULL;
    fst_model_config c = {.classes = CLASSES, .input = FST_SHAPE(3, 8, 8)};
    (void)state;
    assert_ok(fst_model_graph(&g, "resnet20", &c, err));
    fst_value one = fst_graph_feature(g, "layer1"), three = fst_graph_feature(g, "layer3");
    fst_shape a = fst_graph_value_shape(g, one), b = fst_graph_value_shape(g, three);
    assert_true(fst_shape_equal(&a, &FST_SHAPE(16, 8, 8)) && fst_shape_equal(&b, &FST_SHAPE(64, 2, 2)));
    assert_string_equal(fst_graph_layer(g, (size_t)one).op, "relu");
    assert_string_equal(fst_graph_layer(g, (size_t)three).op, "relu");
    assert_int_equal(fst_graph_feature(g, "layer1.2"), one);
    assert_int_equal(fst_graph_feature(g, "layer"), -1);
    assert_int_equal(fst_graph_feature(g, ""), -1);
    assert_int_equal(fst_graph_value_shape(g, -1).rank, 0);
    fst_graph_free(g);
}

static void graphs_refuse_what_cannot_be_tapped(void **state)
{
    fst_graph *plain = plain_net(), *g = NULL, *again = NULL;
    fst_value logits, tap[FST_MAX_TAPS + 1];
    (void)state;
    assert_ok(fst_graph_copy(&g, plain, &logits, err));
    assert_fails(fst_graph_copy(&again, g, &logits, err), FST_E_ARGUMENT, "finished");
    for (int i = 0; i <= FST_MAX_TAPS; i++)
        tap[i] = fst_graph_feature(g, "first");
    assert_fails(fst_graph_finish_tapped(g, logits, tap, FST_MAX_TAPS + 1, err), FST_E_ARGUMENT, "1 to 8 taps");
    fst_graph_free(g);
    assert_ok(fst_graph_copy(&g, plain, &logits, err));
    tap[0] = 0; /* the input */
    assert_fails(fst_graph_finish_tapped(g, logits, tap, 1, err), FST_E_ARGUMENT, "that the graph computes");
    fst_graph_free(g);
    assert_ok(fst_graph_copy(&g, plain, &logits, err));
    for (int i = 0; i < FST_MAX_TAPS; i++) /* more than one concatenation holds */
        tap[i] = fst_graph_feature(g, "first");
    assert_ok(fst_graph_finish_tapped(g, logits, tap, FST_MAX_TAPS, err));
    assert_int_equal(output_floats(g), CLASSES + FST_MAX_TAPS * MAP);
    fst_graph_free(g);
    fst_graph_free(plain);
}

/* A runner gives the whole row: logits as without taps, and the maps that follow them. */
static void runners_give_the_whole_row(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct lab l;
        fst_runner *with = NULL, *without = NULL;
        fst_trainer_options o = {.batch_size = 4, .threads = 2, .backend = *b};
        const size_t width = CLASSES + MAP + TARGETS;
        float logits[BATCH * CLASSES], *rows = new_floats(BATCH * width);
        open_lab(&l, *b, 1, false);
        assert_ok(fst_runner_new(&with, l.graph, &o, err));
        assert_ok(fst_runner_new(&without, l.plain, &o, err));
        assert_ok(fst_runner_logits(with, &l.state, l.x, BATCH, rows, err));
        assert_ok(fst_runner_logits(without, &l.state, l.x, BATCH, logits, err));
        for (int i = 0; i < BATCH; i++) {
            assert_true(distance(rows + (size_t)i * width, logits + i * CLASSES, CLASSES) < 1e-5);
            assert_true(distance(rows + (size_t)i * width + CLASSES, NULL, MAP) > 0.1);
        }
        fst_runner_free(with);
        fst_runner_free(without);
        free(rows);
        close_lab(&l);
    }
}

static void steps_refuse_what_does_not_fit(void **state)
{
    struct lab l;
    fst_step_result r;
    float logits[BATCH * CLASSES];
    (void)state;
    open_lab(&l, NULL, 1, false);
    assert_fails(fst_trainer_forward(l.trainer, &l.state, &l.in, logits, err), FST_E_ARGUMENT, "made for halves");
    l.features[0].tap = 2;
    assert_fails(fst_trainer_step(l.trainer, &l.state, &l.optim, &l.in, &r, err), FST_E_ARGUMENT, "no tap 2");
    l.features[0].tap = 1; /* 3 channels of 6x6: attention takes it, the squares of 4 channels do not */
    l.features[0].form = FST_FEATURE_MSE;
    assert_fails(fst_trainer_step(l.trainer, &l.state, &l.optim, &l.in, &r, err), FST_E_MISMATCH, "must be equal");
    l.features[0].form = FST_FEATURE_ATTENTION;
    l.in.loss.kd_form = FST_KD_CROSS_ENTROPY;
    assert_fails(fst_trainer_step(l.trainer, &l.state, &l.optim, &l.in, &r, err), FST_E_ARGUMENT, "only of kl");
    close_lab(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(losses_are_those_of_pytorch),
        cmocka_unit_test(attention_has_a_slope_at_any_size),
        cmocka_unit_test(maps_must_fit),
        cmocka_unit_test(gradients_are_slopes),
        cmocka_unit_test(bits_show_no_threads_and_no_halves),
        cmocka_unit_test(padding_adds_nothing),
        cmocka_unit_test(first_halves_give_logits),
        cmocka_unit_test(copies_begin_as_their_model),
        cmocka_unit_test(layers_are_found_by_name),
        cmocka_unit_test(graphs_refuse_what_cannot_be_tapped),
        cmocka_unit_test(runners_give_the_whole_row),
        cmocka_unit_test(steps_refuse_what_does_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

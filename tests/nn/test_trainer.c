/* Training steps and inference: what may not depend on threads, shards, padding or company. */
#include <pthread.h>

#include "fedstill/models.h"
#include "nn/support.h"

enum { BATCH = 24, CLASSES = 10, STEPS = 4 };

struct job { /* a short training, described; then its result */
    const char *model, *backend;
    fst_shape input;
    size_t batch, shard, last; /* last: rows of every other batch, the rest of an epoch */
    int threads;
    fst_optim_spec optim;
    fst_loss loss;
    double prox_mu;
    bool by_class; /* classes have weights */
    uint64_t seed;
    fst_state state;
    double loss_sum;
    size_t correct;
};

static const fst_optim_spec adam = {.kind = FST_OPTIM_ADAM, .learning_rate = 1e-2, .clip_norm = 1.0};

static fst_graph *new_model(const char *name, fst_shape input)
{
    fst_graph *g = NULL;
    fst_model_config c = {.classes = CLASSES, .input = input};
    assert_ok(fst_model_graph(&g, name, &c, err));
    return g;
}

struct data {
    float *x, *soft;
    int32_t labels[64];
};

static void new_data(struct data *d, const fst_graph *g, size_t rows, uint64_t seed)
{
    d->x = new_floats(rows * sample_floats(g));
    d->soft = new_floats(rows * CLASSES);
    fill_normal(d->x, rows * sample_floats(g), seed, "test.x", 1);
    fill_normal(d->soft, rows * CLASSES, seed, "test.soft", 2);
    fst_softmax(d->soft, rows, CLASSES, 4, d->soft);
    fill_labels(d->labels, rows, CLASSES, seed);
}

static void free_data(struct data *d)
{
    free(d->x);
    free(d->soft);
}

static const double class_weight[CLASSES] = {0.3, 2, 0.7, 1.1, 5, 0.9, 0, 1.3, 0.1, 1.7};

/* Runs the job; NULL or the message of what failed. Not with assertions: it runs on threads of its own, too. */
static const char *train(struct job *j)
{
    static _Thread_local fst_error err;
    fst_graph *g = new_model(j->model, j->input);
    fst_trainer *t = NULL;
    fst_optim o = {0};
    fst_trainer_options to = {
        .batch_size = j->batch, .threads = j->threads, .shard_size = j->shard, .backend = j->backend};
    fst_status s = fst_state_init(&j->state, g, &err);
    fst_state_randomise(&j->state, g, j->seed);
    if (!s)
        s = fst_trainer_new(&t, g, &to, &err);
    if (!s)
        s = fst_optim_init(&o, &j->optim, j->state.param_count, &err);
    float *anchor = new_floats(j->state.param_count);
    memcpy(anchor, j->state.params, j->state.param_count * sizeof *anchor);
    for (uint64_t step = 0; !s && step < STEPS; step++) {
        struct data d;
        fst_step_result r;
        new_data(&d, g, j->batch, j->seed + step);
        fst_step_input in = {.rows = j->last && step % 2 ? j->last : j->batch,
                             .x = d.x,
                             .labels = d.labels,
                             .soft = j->loss.kd_weight != 0 ? d.soft : NULL,
                             .loss = j->loss,
                             .class_weight = j->by_class ? class_weight : NULL,
                             .learning_rate = j->optim.learning_rate,
                             .prox_mu = j->prox_mu,
                             .anchor = anchor,
                             .seed = j->seed,
                             .step = step};
        s = fst_trainer_step(t, &j->state, &o, &in, &r, &err);
        if (!s) {
            j->loss_sum += r.loss_sum;
            j->correct += r.correct;
        }
        free_data(&d);
    }
    free(anchor);
    fst_trainer_free(t);
    fst_optim_release(&o);
    fst_graph_free(g);
    return s ? err.message : NULL;
}

static void train_ok(struct job *j)
{
    const char *message = train(j);
    if (message)
        fail_msg("%s: %s", j->model, message);
}

static void same_bits(const struct job *a, const struct job *b)
{
    if (memcmp(a->state.params, b->state.params, a->state.param_count * sizeof(float)))
        fail_msg("%s, %s: %d and %d threads give parameters that differ by %g", a->model, a->backend, a->threads,
                 b->threads, distance(a->state.params, b->state.params, a->state.param_count));
    assert_memory_equal(a->state.buffers, b->state.buffers, a->state.buffer_count * sizeof(float));
    assert_memory_equal(a->state.counters, b->state.counters, a->state.counter_count * sizeof(int64_t));
    assert_true(a->loss_sum == b->loss_sum);
    assert_int_equal(a->correct, b->correct);
}

static const struct job jobs[] = {
    {.model = "mnist_student", .input = {3, {1, 6, 6}}, .batch = BATCH, .shard = 5, .last = 7},
    {.model = "mnist_student", .input = {3, {1, 6, 6}}, .batch = BATCH, .last = 7},
    {.model = "pfl_cifar", .input = {3, {3, 6, 6}}, .batch = BATCH, .shard = 6, .last = 11},
    {.model = "pfl_cifar", .input = {3, {3, 6, 6}}, .batch = BATCH, .last = 1},
    {.model = "logistic_regression", .input = {3, {1, 20, 20}}, .batch = BATCH, .shard = 2, .last = 3},
    {.model = "mnist_student", .input = {3, {1, 6, 6}}, .batch = BATCH, .shard = BATCH, .last = 7},
    {.model = "mnist_student", .input = {3, {1, 6, 6}}, .batch = BATCH, .shard = 5, .last = 7, .by_class = true},
    /* batch norm: their shards meet */
    {.model = "fedgen_mnist", .input = {3, {1, 6, 6}}, .batch = BATCH, .shard = 5, .last = 6, .by_class = true},
    {.model = "fedgen_mnist", .input = {3, {1, 6, 6}}, .batch = BATCH, .last = 9},
    {.model = "fedgen_mnist", .input = {3, {1, 6, 6}}, .batch = BATCH, .shard = 5, .last = 6},
    {.model = "resnet8", .input = {3, {3, 8, 8}}, .batch = BATCH, .shard = 7, .last = 8},
};
enum { JOBS = sizeof jobs / sizeof *jobs };

static void bits_do_not_depend_on_threads(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (size_t i = 0; i < JOBS; i++) {
            struct job one = jobs[i];
            one.backend = *b;
            one.threads = 1;
            one.seed = 40 + i;
            one.optim = adam;
            one.loss = (fst_loss){.ce_weight = 0.3, .kd_weight = 0.7, .temperature = 4};
            one.prox_mu = 0.01;
            struct job again = one;
            train_ok(&one);
            for (int threads = 1; threads <= 4; threads++) {
                struct job other = again;
                other.threads = threads;
                train_ok(&other);
                same_bits(&one, &other);
                fst_state_release(&other.state);
            }
            fst_state_release(&one.state);
        }
}

/* Shards only cut the sum: a step with many equals a step with one, but for rounding. */
static void shards_add_up(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (size_t i = 0; i < JOBS; i++) {
            struct job whole = jobs[i];
            whole.backend = *b;
            whole.threads = 1;
            whole.optim = (fst_optim_spec){.learning_rate = 0.05, .momentum = 0.9};
            whole.loss = FST_LOSS_CROSS_ENTROPY;
            whole.shard = BATCH;
            struct job cut = whole;
            train_ok(&whole);
            for (size_t shard = 1; shard <= 7; shard += 3) {
                struct job other = cut;
                other.shard = shard;
                train_ok(&other);
                double off = distance(other.state.params, whole.state.params, whole.state.param_count);
                assert_true(off < 1e-4);
                assert_true(off < 1e-5 * distance(whole.state.params, NULL, whole.state.param_count));
                assert_true(fabs(other.loss_sum - whole.loss_sum) < 1e-3);
                fst_state_release(&other.state);
            }
            fst_state_release(&whole.state);
        }
}

/* ---- single steps ------------------------------------------------------------------------------------- */

struct bench { /* a trainer with everything that a step needs */
    fst_graph *graph;
    fst_trainer *trainer;
    fst_state state;
    fst_optim optim;
    struct data data;
    fst_step_input in;
};

static void open_bench(struct bench *s, const char *model, fst_shape input, const fst_trainer_options *o,
                       const fst_optim_spec *optim)
{
    *s = (struct bench){.graph = new_model(model, input)};
    assert_ok(fst_trainer_new(&s->trainer, s->graph, o, err));
    assert_ok(fst_state_init(&s->state, s->graph, err));
    fst_state_randomise(&s->state, s->graph, 1);
    assert_ok(fst_optim_init(&s->optim, optim, s->state.param_count, err));
    new_data(&s->data, s->graph, BATCH, 9);
    s->in = (fst_step_input){.rows = BATCH,
                             .x = s->data.x,
                             .labels = s->data.labels,
                             .loss = FST_LOSS_CROSS_ENTROPY,
                             .learning_rate = optim->learning_rate};
}

static void close_bench(struct bench *s)
{
    fst_trainer_free(s->trainer);
    fst_state_release(&s->state);
    fst_optim_release(&s->optim);
    free_data(&s->data);
    fst_graph_free(s->graph);
}

/* A batch of 5 in a trainer of 24 is the same step as in a trainer of 5, whatever the trainer saw before. */
static void padding_adds_nothing(void **state)
{
    static const char *const models[] = {"mnist_student", "pfl_cifar", "fedgen_mnist"};
    static const fst_optim_spec sgd = {.learning_rate = 0.1};
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (size_t i = 0; i < 3; i++) {
            struct bench large, exact;
            fst_step_result r, q;
            fst_state start = {0};
            fst_trainer_options lo = {.batch_size = BATCH, .threads = 2, .shard_size = 8, .backend = *b};
            fst_trainer_options eo = {.batch_size = 5, .threads = 1, .backend = *b};
            open_bench(&large, models[i], FST_SHAPE(1, 6, 6), &lo, &sgd);
            open_bench(&exact, models[i], FST_SHAPE(1, 6, 6), &eo, &sgd);
            assert_ok(fst_state_init(&start, large.graph, err));
            fst_state_copy(&start, &large.state);
            assert_ok(fst_trainer_step(large.trainer, &large.state, &large.optim, &large.in, &r, err));
            fst_state_copy(&large.state, &start);
            large.in.rows = exact.in.rows = 5;
            assert_ok(fst_trainer_step(large.trainer, &large.state, &large.optim, &large.in, &r, err));
            assert_ok(fst_trainer_step(exact.trainer, &exact.state, &exact.optim, &exact.in, &q, err));
            assert_true(distance(large.state.params, exact.state.params, start.param_count) < 1e-5);
            assert_true(distance(large.state.params, start.params, start.param_count) > 1e-3);
            assert_true(distance(large.state.buffers, exact.state.buffers, start.buffer_count) < 1e-5);
            assert_memory_equal(large.state.counters, exact.state.counters, start.counter_count * sizeof(int64_t));
            assert_true(fabs(r.loss_sum - q.loss_sum) < 1e-4);
            fst_state_release(&start);
            close_bench(&large);
            close_bench(&exact);
        }
}

/* The step's own numbers, from the logits that a runner gives. */
static void results_describe_the_step(void **state)
{
    static const fst_optim_spec sgd = {.learning_rate = 0, .clip_norm = 1e9};
    (void)state;
    struct bench s;
    fst_runner *runner = NULL;
    fst_step_result r;
    float logits[BATCH * CLASSES];
    fst_trainer_options o = {.batch_size = BATCH, .threads = 2, .shard_size = 7};
    open_bench(&s, "mnist_student", FST_SHAPE(1, 6, 6), &o, &sgd);
    assert_ok(fst_runner_new(&runner, s.graph, &o, err));
    assert_ok(fst_runner_logits(runner, &s.state, s.in.x, BATCH, logits, err));
    assert_ok(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err));
    double loss = 0;
    size_t correct = 0;
    for (int i = 0; i < BATCH; i++) {
        double sum = 0;
        bool best = true;
        const float *z = logits + i * CLASSES, label = z[s.data.labels[i]];
        for (int j = 0; j < CLASSES; j++) {
            sum += exp((double)z[j]);
            best = best && z[j] <= label;
        }
        loss += log(sum) - (double)label;
        correct += best;
    }
    assert_true(fabs(r.loss_sum - loss) < 1e-3);
    assert_int_equal(r.correct, correct);
    assert_true(r.grad_norm > 0);
    fst_runner_free(runner);
    close_bench(&s);
}

static void poison(struct bench *s, float bad)
{
    fst_state was = {0};
    fst_step_result r = {.loss_sum = -7};
    fst_error e = {0};
    assert_ok(fst_state_init(&was, s->graph, err));
    assert_ok(fst_trainer_step(s->trainer, &s->state, &s->optim, &s->in, &r, err));
    fst_state_copy(&was, &s->state);
    double before = r.loss_sum;
    uint64_t steps = s->optim.steps;
    float good = s->data.x[17];
    s->data.x[17] = bad;
    fst_status st = fst_trainer_step(s->trainer, &s->state, &s->optim, &s->in, &r, &e);
    s->data.x[17] = good;
    assert_int_equal(st, FST_E_NUMERIC);
    assert_non_null(strstr(e.message, "finite"));
    assert_true(r.loss_sum == before);
    assert_int_equal(s->optim.steps, steps);
    assert_memory_equal(was.params, s->state.params, was.param_count * sizeof(float));
    assert_memory_equal(was.buffers, s->state.buffers, was.buffer_count * sizeof(float));
    assert_memory_equal(was.counters, s->state.counters, was.counter_count * sizeof(int64_t));
    /* and the next good batch is a step like any other */
    assert_ok(fst_trainer_step(s->trainer, &s->state, &s->optim, &s->in, &r, err));
    assert_true(isfinite(distance(s->state.params, NULL, was.param_count)));
    fst_state_release(&was);
}

static void bad_numbers_touch_nothing(void **state)
{
    static const char *const models[] = {"mnist_student", "pfl_cifar", "fedgen_mnist", "logistic_regression"};
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (size_t i = 0; i < 4; i++)
            for (int k = 0; k < 3; k++) {
                struct bench s;
                fst_trainer_options o = {.batch_size = BATCH, .threads = 2, .shard_size = 8, .backend = *b};
                open_bench(&s, models[i], FST_SHAPE(1, 6, 6), &o, &adam);
                poison(&s, k == 0 ? NAN : k == 1 ? INFINITY : -INFINITY);
                close_bench(&s);
            }
}

static void steps_allocate_nothing(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (size_t i = 0; i < JOBS; i++) {
            struct bench s;
            fst_step_result r;
            fst_trainer_options o = {.batch_size = BATCH, .threads = 2, .shard_size = jobs[i].shard, .backend = *b};
            open_bench(&s, jobs[i].model, jobs[i].input, &o, &adam);
            s.in.soft = s.data.soft;
            s.in.loss = (fst_loss){.ce_weight = 0.5, .kd_weight = 0.5, .temperature = 4};
            s.in.prox_mu = 0.1;
            float *anchor = new_floats(s.state.param_count);
            s.in.anchor = anchor;
            for (s.in.step = 0; s.in.step < 2; s.in.step++) { /* both batch sizes once */
                s.in.rows = s.in.step ? jobs[i].last : BATCH;
                assert_ok(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err));
            }
            uint64_t before = fst_alloc_count();
            for (; s.in.step < 6; s.in.step++) {
                s.in.rows = s.in.step % 2 ? jobs[i].last : BATCH;
                assert_ok(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err));
            }
            assert_int_equal(fst_alloc_count(), before);
            free(anchor);
            close_bench(&s);
        }
}

/* A linear layer over three features. Rows of its logits are the rows of x when its weight is the unit matrix. */
static fst_graph *new_unit_graph(void)
{
    fst_graph *g = NULL;
    assert_ok(fst_graph_new(&g, err));
    assert_ok(fst_graph_finish(
        g, fst_graph_linear(g, fst_graph_flatten(g, fst_graph_input(g, &FST_SHAPE(3, 1, 1))), "fc", 3, true), err));
    return g;
}

/* One step of plain descent at rate 1: the bias loses the sum of the logits' gradients over the batch. */
static void unit_step(size_t shard, fst_loss loss, const double *weight, double *value, double bias[3])
{
    static const float x[] = {1.5f, -0.5f, 0.25f, 0, 2, -1, -0.75f, 0.5f, 1.25f, 3, -2, 0.5f};
    static const float teacher[] = {0, 1, -1, 0.5f, 0.5f, 0, 2, -1, 0, -0.5f, 0.25f, 1};
    static const int32_t labels[] = {0, 2, 1, 0};
    static const fst_optim_spec descent = {.kind = FST_OPTIM_SGD, .learning_rate = 1};
    fst_graph *g = new_unit_graph();
    fst_trainer *t = NULL;
    fst_optim o = {0};
    fst_state s;
    fst_step_result r;
    float soft[12];
    fst_trainer_options to = {.batch_size = 5, .shard_size = shard, .threads = 1, .backend = "reference"};
    fst_softmax(teacher, 4, 3, 2, soft);
    assert_ok(fst_state_init(&s, g, err));
    assert_ok(fst_optim_init(&o, &descent, s.param_count, err));
    assert_ok(fst_trainer_new(&t, g, &to, err));
    fst_param_info w = fst_graph_param(g, 0), b = fst_graph_param(g, 1);
    assert_string_equal(w.name, "fc.weight");
    for (size_t i = 0; i < 3; i++)
        s.params[w.offset + 4 * i] = 1;
    fst_step_input in = {
        .rows = 4, .x = x, .labels = labels, .soft = soft, .loss = loss, .class_weight = weight, .learning_rate = 1};
    assert_ok(fst_trainer_step(t, &s, &o, &in, &r, err));
    *value = r.loss_sum / 4;
    for (size_t i = 0; i < 3; i++)
        bias[i] = (double)s.params[b.offset + i];
    fst_trainer_free(t);
    fst_optim_release(&o);
    fst_state_release(&s);
    fst_graph_free(g);
}

/* PyTorch 1.13, float64: CrossEntropyLoss(weight=[0.5, 2, 4], label_smoothing=e) alone, and 0.3 of it with 0.7 of
 * 4 KLDivLoss(reduction="batchmean") at temperature 2: the one is divided by weights, the other by rows. */
static void class_weights_are_those_of_pytorch(void **state)
{
    static const double weight[] = {0.5, 2, 4};
    static const struct {
        double smoothing, kd, loss, bias[3];
    } cases[] = {{0, 0, 2.19250286995, {0.0622868505, 0.287642033, -0.349928883}},
                 {0, 0.7, 1.72816508973, {0.0718979995, 0.0482819728, -0.120179972}},
                 {0.1, 0, 2.21863856189, {0.10287114, 0.259132003, -0.362003143}},
                 {0.1, 0.7, 1.73600579731, {0.0840732863, 0.0397289638, -0.12380225}}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (size_t shard = 1; shard <= 5; shard++) {
            fst_loss l = {.ce_weight = 1 - cases[i].kd,
                          .kd_weight = cases[i].kd,
                          .temperature = 2,
                          .label_smoothing = cases[i].smoothing};
            double loss, bias[3];
            unit_step(shard, l, weight, &loss, bias);
            assert_true(fabs(loss - cases[i].loss) < 1e-6);
            for (int k = 0; k < 3; k++)
                assert_true(fabs(bias[k] + cases[i].bias[k]) < 1e-6);
        }
}

/* Where no row of a batch counts, there is no cross entropy; a common factor of the weights means nothing. */
static void class_weights_are_relative(void **state)
{
    static const double ones[] = {1, 1, 1}, fours[] = {4, 4, 4}, odd[] = {0.3, 7, 11}, same[] = {0.6, 14, 22};
    static const double none[] = {0, 0, 0};
    const fst_loss l = FST_LOSS_CROSS_ENTROPY;
    double loss[5], bias[5][3];
    (void)state;
    unit_step(2, l, NULL, &loss[0], bias[0]);
    unit_step(2, l, ones, &loss[1], bias[1]);
    unit_step(2, l, fours, &loss[2], bias[2]);
    assert_true(loss[0] == loss[1] && loss[0] == loss[2]);
    assert_memory_equal(bias[0], bias[1], sizeof bias[0]);
    assert_memory_equal(bias[0], bias[2], sizeof bias[0]);
    unit_step(2, l, odd, &loss[3], bias[3]);
    unit_step(2, l, same, &loss[4], bias[4]);
    assert_true(loss[3] == loss[4] && fabs(loss[3] - loss[0]) > 0.1);
    assert_memory_equal(bias[3], bias[4], sizeof bias[3]);
    unit_step(2, l, none, &loss[4], bias[4]);
    assert_true(loss[4] == 0);
    for (int k = 0; k < 3; k++)
        assert_true(bias[4][k] == 0);
}

static void wrong_steps_are_refused(void **state)
{
    (void)state;
    struct bench s;
    fst_step_result r;
    fst_trainer *none = NULL;
    fst_trainer_options o = {.batch_size = BATCH, .threads = 1, .shard_size = 8};
    open_bench(&s, "mnist_student", FST_SHAPE(1, 6, 6), &o, &adam);
    s.in.rows = 0;
    assert_fails(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err), FST_E_ARGUMENT, "1 to 24 rows");
    s.in.rows = BATCH + 1;
    assert_fails(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err), FST_E_ARGUMENT, "not 25");
    s.in.rows = BATCH;
    s.in.loss.kd_weight = 1;
    assert_fails(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err), FST_E_ARGUMENT, "soft targets");
    float soft[BATCH * CLASSES] = {0};
    const int32_t *labels = s.in.labels;
    s.in.soft = soft;
    s.in.labels = NULL;
    s.in.loss = (fst_loss){.kd_weight = 1, .temperature = 1, .kd_form = FST_KD_NTD};
    assert_fails(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err), FST_E_ARGUMENT, "ntd needs labels");
    s.in.labels = labels;
    s.in.soft = NULL;
    s.in.loss = FST_LOSS_CROSS_ENTROPY;
    s.in.prox_mu = 0.1;
    assert_fails(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err), FST_E_ARGUMENT, "anchor");
    s.in.prox_mu = 0;
    double weight[CLASSES] = {1, 1, -0.5};
    s.in.class_weight = weight;
    assert_fails(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err), FST_E_ARGUMENT, "class 2 is -0.5");
    weight[2] = NAN;
    assert_fails(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err), FST_E_ARGUMENT, "class 2");
    s.in.class_weight = NULL;
    s.data.labels[3] = CLASSES;
    assert_fails(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err), FST_E_MISMATCH, "label 10");
    s.data.labels[3] = -1;
    assert_fails(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err), FST_E_MISMATCH, "label -1");
    s.in.labels = NULL;
    assert_fails(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err), FST_E_ARGUMENT, "labels");
    /* what a teacher says is enough to learn from */
    s.in.loss = (fst_loss){.kd_weight = 1, .temperature = 4};
    s.in.soft = s.data.soft;
    assert_ok(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err));
    assert_int_equal(r.correct, 0);
    o.batch_size = 0;
    assert_fails(fst_trainer_new(&none, s.graph, &o, err), FST_E_ARGUMENT, "batch size");
    o = (fst_trainer_options){.batch_size = 4, .threads = 1, .backend = "abacus"};
    assert_fails(fst_trainer_new(&none, s.graph, &o, err), FST_E_UNSUPPORTED, "reference");
    fst_graph *open = NULL;
    assert_ok(fst_graph_new(&open, err));
    o.backend = NULL;
    assert_fails(fst_trainer_new(&none, open, &o, err), FST_E_ARGUMENT, "not finished");
    assert_null(none);
    fst_graph_free(open);
    close_bench(&s);
}

/* ---- company ------------------------------------------------------------------------------------------- */

static void *train_thread(void *arg)
{
    return (void *)train(arg);
}

static void trainers_do_not_disturb_each_other(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (size_t i = 0; i < JOBS; i += 2) {
            struct job alone[2], together[2];
            pthread_t thread[2];
            for (int k = 0; k < 2; k++) {
                alone[k] = jobs[i];
                alone[k].backend = *b;
                alone[k].threads = 2;
                alone[k].optim = adam;
                alone[k].loss = FST_LOSS_CROSS_ENTROPY;
                alone[k].seed = 70 + (uint64_t)k;
                together[k] = alone[k];
                train_ok(&alone[k]);
            }
            for (int k = 0; k < 2; k++)
                assert_int_equal(pthread_create(&thread[k], NULL, train_thread, &together[k]), 0);
            for (int k = 0; k < 2; k++) {
                void *message = NULL;
                assert_int_equal(pthread_join(thread[k], &message), 0);
                assert_null(message);
                same_bits(&alone[k], &together[k]);
                fst_state_release(&alone[k].state);
                fst_state_release(&together[k].state);
            }
        }
}

/* ---- inference ------------------------------------------------------------------------------------------ */

static void logits_do_not_depend_on_company(void **state)
{
    enum { ROWS = 61, SHARD = 8 };
    static const size_t rows[] = {1, SHARD - 1, SHARD, SHARD + 1, 24, 25, ROWS};
    static const char *const models[] = {"mnist_student", "pfl_cifar", "fedgen_mnist"};
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (size_t i = 0; i < 3; i++) {
            fst_graph *g = new_model(models[i], FST_SHAPE(1, 6, 6));
            fst_state s = {0};
            float all[ROWS * CLASSES], some[ROWS * CLASSES], *x = new_floats(ROWS * sample_floats(g));
            fill_normal(x, ROWS * sample_floats(g), 4, "test.x", 1);
            assert_ok(fst_state_init(&s, g, err));
            fill_state(&s, g, 8);
            for (int threads = 1; threads <= 4; threads++) {
                fst_runner *r = NULL;
                fst_trainer_options o = {.batch_size = 24, .threads = threads, .shard_size = SHARD, .backend = *b};
                assert_ok(fst_runner_new(&r, g, &o, err));
                if (threads == 1)
                    assert_ok(fst_runner_logits(r, &s, x, ROWS, all, err));
                for (size_t k = 0; k < sizeof rows / sizeof *rows; k++) {
                    memset(some, 0, sizeof some);
                    assert_ok(fst_runner_logits(r, &s, x, rows[k], some, err));
                    assert_memory_equal(some, all, rows[k] * CLASSES * sizeof *some);
                    for (size_t j = rows[k] * CLASSES; j < ROWS * CLASSES; j++)
                        assert_true(some[j] == 0);
                }
                uint64_t before = fst_alloc_count();
                assert_ok(fst_runner_logits(r, &s, x, ROWS, some, err));
                assert_int_equal(fst_alloc_count(), before);
                fst_runner_free(r);
            }
            assert_int_equal(s.counter_count ? s.counters[0] : 0, 0);
            free(x);
            fst_state_release(&s);
            fst_graph_free(g);
        }
}

struct profile {
    size_t kernels;
    double seconds;
};

static void count_kernel(void *ctx, const fst_kernel_info *k, double seconds)
{
    struct profile *p = ctx;
    assert_true(k->name[0] && k->op[0] && seconds >= 0 && !k->prepare);
    p->kernels++;
    p->seconds += seconds;
}

/* Kernels run alone after a step, also when the step's own input is gone (a sanitizer sees it if not). */
static void profiles_run_behind_a_step(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct bench s;
        fst_step_result r;
        struct profile training = {0}, inference = {0};
        fst_runner *runner = NULL;
        float logits[BATCH * CLASSES];
        fst_trainer_options o = {.batch_size = BATCH, .threads = 2, .shard_size = 8, .backend = *b};
        open_bench(&s, "pfl_cifar", FST_SHAPE(3, 6, 6), &o, &adam);
        assert_fails(fst_trainer_profile(s.trainer, 1e-5, count_kernel, &training, err), FST_E_ARGUMENT, "run a step");
        s.in.rows = 1; /* of the plans only one has work */
        assert_ok(fst_trainer_step(s.trainer, &s.state, &s.optim, &s.in, &r, err));
        assert_ok(fst_trainer_profile(s.trainer, 1e-5, count_kernel, &training, err));
        assert_true(training.kernels >= 10 && training.seconds > 0);
        assert_ok(fst_runner_new(&runner, s.graph, &o, err));
        assert_fails(fst_runner_profile(runner, 1e-5, count_kernel, &inference, err), FST_E_ARGUMENT, "run a batch");
        assert_ok(fst_runner_logits(runner, &s.state, s.in.x, BATCH, logits, err));
        assert_ok(fst_runner_profile(runner, 1e-5, count_kernel, &inference, err));
        assert_true(inference.kernels >= 5 && inference.kernels < training.kernels && inference.seconds > 0);
        fst_runner_free(runner);
        close_bench(&s);
    }
}

static void same_logits(fst_runner *a, fst_runner *b, const fst_state *s, const float *x)
{
    float first[BATCH * CLASSES], second[BATCH * CLASSES];
    assert_ok(fst_runner_logits(a, s, x, BATCH, first, err));
    assert_ok(fst_runner_logits(b, s, x, BATCH, second, err));
    assert_memory_equal(first, second, sizeof first);
}

/* What a runner keeps of weights (layouts, folded batch norms) is that of the state in use, also when a held state
 * has changed between two promises, or another one came in between. */
static void held_states_are_the_ones_in_use(void **unused)
{
    (void)unused;
    for (const char *const *b = fst_backend_names(); *b; b++) {
        fst_graph *g = new_model("resnet8", FST_SHAPE(3, 8, 8));
        fst_trainer_options o = {.batch_size = BATCH, .threads = 2, .shard_size = 8, .backend = *b};
        fst_runner *held = NULL, *free_one = NULL;
        fst_state s, other;
        float x[BATCH * 3 * 8 * 8];
        fill_normal(x, BATCH * 3 * 8 * 8, 9, "test.held", 1);
        assert_ok(fst_state_init(&s, g, err));
        assert_ok(fst_state_init(&other, g, err));
        fst_state_randomise(&s, g, 1);
        fst_state_randomise(&other, g, 2);
        assert_ok(fst_runner_new(&held, g, &o, err));
        assert_ok(fst_runner_new(&free_one, g, &o, err));
        fst_runner_hold(held, &s);
        same_logits(held, free_one, &s, x);
        same_logits(held, free_one, &s, x);
        same_logits(held, free_one, &other, x);
        same_logits(held, free_one, &s, x);
        for (size_t i = 0; i < s.buffer_count; i++)
            s.buffers[i] = s.buffers[i] * 1.5f + 0.25f; /* running statistics */
        fst_runner_hold(held, &s);
        same_logits(held, free_one, &s, x);
        fst_runner_hold(held, NULL);
        s.params[0] += 1;
        same_logits(held, free_one, &s, x);
        fst_runner_free(held);
        fst_runner_free(free_one);
        fst_state_release(&s);
        fst_state_release(&other);
        fst_graph_free(g);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_do_not_depend_on_threads),
        cmocka_unit_test(shards_add_up),
        cmocka_unit_test(padding_adds_nothing),
        cmocka_unit_test(results_describe_the_step),
        cmocka_unit_test(bad_numbers_touch_nothing),
        cmocka_unit_test(steps_allocate_nothing),
        cmocka_unit_test(class_weights_are_those_of_pytorch),
        cmocka_unit_test(class_weights_are_relative),
        cmocka_unit_test(wrong_steps_are_refused),
        cmocka_unit_test(trainers_do_not_disturb_each_other),
        cmocka_unit_test(logits_do_not_depend_on_company),
        cmocka_unit_test(profiles_run_behind_a_step),
        cmocka_unit_test(held_states_are_the_ones_in_use),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * fedstill bench: the workloads of the PyTorch peer, on synthetic data in memory, so that no loader is
 * measured. A training sample has been through forward, loss, backward and the optimiser's step.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "cmd.h"
#include "fedstill/data.h"
#include "fedstill/fed.h"
#include "fedstill/models.h"
#include "fedstill/report.h"

enum { POOL = 8, SEGMENTS = 5 }; /* batches of data that are cycled through; timed segments */

struct workload {
    const char *name, *model, *teacher; /* teacher: distil from it */
    bool cached;                        /* its soft labels are made before the clock starts */
    size_t batch;
    fst_optim_spec optim;
    fst_model_config config;
};

#define ADAM                                          \
    {                                                 \
        .kind = FST_OPTIM_ADAM, .learning_rate = 1e-3 \
    }
#define SGD                                          \
    {                                                \
        .kind = FST_OPTIM_SGD, .learning_rate = 0.01 \
    }
#define MOMENTUM                                                      \
    {                                                                 \
        .kind = FST_OPTIM_SGD, .learning_rate = 0.01, .momentum = 0.9 \
    }
#define NO_OPTIONS \
    {              \
        0          \
    }
#define CIFAR_100 .classes = 100, .input = {3, {3, 32, 32}}

static const struct workload workloads[] = {
    {"mnist_teacher", "mnist_teacher", NULL, false, 128, ADAM, NO_OPTIONS},
    {"mnist_student_kd_online", "mnist_student", "mnist_teacher", false, 128, ADAM, NO_OPTIONS},
    {"mnist_student_kd_cached", "mnist_student", "mnist_teacher", true, 128, ADAM, NO_OPTIONS},
    {"cifar_teacher", "cifar_teacher", NULL, false, 64, SGD, NO_OPTIONS},
    {"pfl_cifar", "pfl_cifar", NULL, false, 10, SGD, NO_OPTIONS},
    {"resnet20", "resnet20", NULL, false, 128, MOMENTUM, NO_OPTIONS},
    {"real_resnet20_link11_h", "real_resnet20_link11_h", NULL, false, 32, ADAM, NO_OPTIONS},
    {"mobilenet_v2_cifar",
     "mobilenet_v2",
     NULL,
     false,
     64,
     MOMENTUM,
     {CIFAR_100, .stem_stride = 1, .stage_strides = {1, 2, 2, 2, 1, 1, 1}}},
    {"resnet50_cifar", "resnet50", NULL, false, 16, MOMENTUM, {CIFAR_100, .stem = FST_STEM_CIFAR}},
};
enum { WORKLOADS = sizeof workloads / sizeof *workloads };
static const char federated_name[] = "fl_mnist_lr";

static const char *const precisions[] = {"f32", NULL};

static const struct option_spec options[] = {
    {.name = "threads",
     .letter = 't',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 1024,
     .help = "Threads (default: the CPUs)."},
    {.name = "precision",
     .letter = 'p',
     .argument = "P",
     .type = OPTION_STRING,
     .fallback = "f32",
     .choices = precisions,
     .help = "Arithmetic of activations and weights."},
    {.name = "seconds",
     .argument = "S",
     .type = OPTION_DOUBLE,
     .low = 0.01,
     .high = 600,
     .fallback = "1",
     .help = "Length of each of the five timed segments, of which the median counts."},
    {.name = "shard",
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 65536,
     .help = "Samples of a shard, for trying out (default: by rule)."},
    {.name = "backend", .argument = "NAME", .type = OPTION_STRING, .help = "onednn or reference."},
    {.name = "profile", .type = OPTION_FLAG, .help = "Also show the time of every kernel."},
    {.name = "json", .type = OPTION_FLAG, .help = "A JSON object a line."},
    {0},
};

static const struct operand_spec operands[] = {
    {"WORKLOAD", 0, -1,
     "mnist_teacher, mnist_student_kd_online, mnist_student_kd_cached, cifar_teacher, pfl_cifar, resnet20, "
     "real_resnet20_link11_h, mobilenet_v2_cifar, resnet50_cifar, fl_mnist_lr; all when "
     "none is given."},
    {0},
};

static const char *const examples[] = {
    "fedstill bench mnist_teacher --threads 2 --json",
    "Measures training of the MNIST teacher on two threads.",
    NULL,
};

struct result {
    double samples_per_s, step_s, kernel_s, seconds; /* seconds: of a federated run, else 0 */
};

/* ---- one training workload ------------------------------------------------------------------------- */

struct bench {
    const struct options *o;
    const struct workload *w;
    int threads;
    fst_model model, teacher;
    fst_trainer *trainer;
    fst_runner *runner;
    fst_optim optim;
    float *x, *soft, *logits;
    int32_t *labels;
    size_t sample, classes;
    uint64_t step;
};

static fst_status fill(struct bench *b, fst_error *err)
{
    size_t rows = POOL * b->w->batch;
    fst_rng r;
    b->x = fst_alloc(rows * b->sample * sizeof *b->x);
    b->soft = fst_alloc(rows * b->classes * sizeof *b->soft);
    b->logits = fst_alloc(rows * b->classes * sizeof *b->logits);
    b->labels = fst_alloc(rows * sizeof *b->labels);
    if (!b->x || !b->soft || !b->logits || !b->labels)
        return fst_fail_memory(err, rows * b->sample * sizeof *b->x);
    fst_rng_init(&r, 0, "bench.data", 0);
    for (size_t i = 0; i < rows * b->sample; i++)
        b->x[i] = (float)fst_rng_normal(&r);
    for (size_t i = 0; i < rows; i++)
        b->labels[i] = (int32_t)fst_rng_below(&r, b->classes);
    return FST_OK;
}

static fst_status soften(struct bench *b, size_t k, fst_error *err)
{
    size_t row = k * b->w->batch;
    fst_status s = fst_runner_logits(b->runner, &b->teacher.state, b->x + row * b->sample, b->w->batch, b->logits, err);
    if (!s)
        fst_soften(b->logits, b->w->batch, (int)b->classes, 4.0, b->soft + row * b->classes);
    return s;
}

static fst_status setup(struct bench *b, fst_error *err)
{
    const char *backend = option_string(b->o, "backend");
    fst_trainer_options to = {.batch_size = b->w->batch,
                              .threads = b->threads,
                              .shard_size = (size_t)option_int(b->o, "shard"),
                              .backend = backend};
    fst_status s = fst_model_init(&b->model, b->w->model, &b->w->config, err);
    if (s)
        return s;
    fst_shape in = fst_graph_input_shape(b->model.graph);
    b->sample = (size_t)fst_shape_count(&in);
    b->classes = (size_t)b->model.classes;
    fst_state_randomise(&b->model.state, b->model.graph, 1);
    s = fill(b, err);
    if (!s)
        s = fst_trainer_new(&b->trainer, b->model.graph, &to, err);
    if (!s)
        s = fst_optim_init(&b->optim, &b->w->optim, b->model.state.param_count, err);
    if (s || !b->w->teacher)
        return s;
    s = fst_model_init(&b->teacher, b->w->teacher, NULL, err);
    if (!s)
        fst_state_randomise(&b->teacher.state, b->teacher.graph, 2);
    if (!s)
        s = fst_runner_new(&b->runner, b->teacher.graph, &to, err);
    for (size_t k = 0; !s && b->w->cached && k < POOL; k++)
        s = soften(b, k, err);
    return s;
}

static void teardown(struct bench *b)
{
    fst_trainer_free(b->trainer);
    fst_runner_free(b->runner);
    fst_optim_release(&b->optim);
    fst_model_release(&b->model);
    fst_model_release(&b->teacher);
    fst_free(b->x);
    fst_free(b->soft);
    fst_free(b->logits);
    fst_free(b->labels);
}

static fst_status one_step(struct bench *b, fst_error *err)
{
    size_t k = b->step % POOL, row = k * b->w->batch;
    fst_step_result r;
    fst_step_input in = {.rows = b->w->batch,
                         .x = b->x + row * b->sample,
                         .labels = b->labels + row,
                         .loss = FST_LOSS_CROSS_ENTROPY,
                         .learning_rate = b->w->optim.learning_rate,
                         .step = b->step};
    fst_status s = FST_OK;
    if (b->w->teacher) {
        if (!b->w->cached)
            s = soften(b, k, err);
        in.soft = b->soft + row * b->classes;
        in.loss = (fst_loss){.ce_weight = 0.5, .kd_weight = 0.5, .temperature = 4.0};
    }
    b->step++;
    return s ? s : fst_trainer_step(b->trainer, &b->model.state, &b->optim, &in, &r, err);
}

static fst_status segment(struct bench *b, double seconds, double *step_s, fst_error *err)
{
    double start = fst_clock_seconds(), now = start;
    uint64_t steps = 0;
    while (now - start < seconds) {
        fst_status s = one_step(b, err);
        if (s)
            return s;
        steps++;
        now = fst_clock_seconds();
    }
    *step_s = (now - start) / (double)steps;
    return FST_OK;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static void print_kernel(void *ctx, const fst_kernel_info *k, double seconds)
{
    double *sum = ctx;
    if (k->compute)
        *sum += seconds;
    printf("  %-44s %s %8.3f ms%s\n", k->name, k->backward ? "backward" : "forward ", 1e3 * seconds,
           k->compute ? "" : "  (moves data; not counted)");
}

static fst_status measure(struct bench *b, struct result *out, fst_error *err)
{
    double seconds = option_double(b->o, "seconds"), steps[SEGMENTS];
    fst_status s = segment(b, seconds < 1 ? seconds : 1, &steps[0], err);
    for (int i = 0; !s && i < SEGMENTS; i++)
        s = segment(b, seconds, &steps[i], err);
    if (s)
        return s;
    qsort(steps, SEGMENTS, sizeof *steps, by_value);
    out->step_s = steps[SEGMENTS / 2];
    out->samples_per_s = (double)b->w->batch / out->step_s;
    if (!option_flag(b->o, "profile"))
        return fst_trainer_kernel_seconds(b->trainer, 0.01, &out->kernel_s, err);
    out->kernel_s = 0;
    return fst_trainer_profile(b->trainer, 0.01, print_kernel, &out->kernel_s, err);
}

static fst_status run_training(const struct options *o, const struct workload *w, int threads, struct result *out,
                               fst_error *err)
{
    struct bench b = {.o = o, .w = w, .threads = threads};
    fst_status s = setup(&b, err);
    if (!s)
        s = measure(&b, out, err);
    teardown(&b);
    return s;
}

/* ---- federated logistic regression -------------------------------------------------------------------- */

enum { CLIENTS = 1000, SAMPLES = 60, FEATURES = 784, COHORT = 10, ROUNDS = 100, LOCAL_BATCH = 10 };

struct fleet {
    fst_model model;
    fst_trainer **trainers; /* by worker */
    fst_optim *optims;
    int workers;
    float *x;
    int32_t *labels;
    int64_t samples[CLIENTS];
};

static fst_status train_client(void *ctx, int worker, uint32_t client, uint64_t round, const fst_train_hints *hints,
                               const fst_fed_view *global, fst_fed_state *update, fst_train_result *result,
                               fst_error *err)
{
    struct fleet *f = ctx;
    fst_state state = {.params = update->params, .param_count = update->size.params};
    size_t first = (size_t)client * SAMPLES;
    (void)round, (void)hints, (void)global;
    fst_optim_reset(&f->optims[worker]);
    for (size_t i = 0; i < SAMPLES; i += LOCAL_BATCH) {
        fst_step_result r;
        fst_step_input in = {.rows = LOCAL_BATCH,
                             .x = f->x + (first + i) * FEATURES,
                             .labels = f->labels + first + i,
                             .loss = FST_LOSS_CROSS_ENTROPY,
                             .learning_rate = 0.03};
        fst_status s = fst_trainer_step(f->trainers[worker], &state, &f->optims[worker], &in, &r, err);
        if (s)
            return s;
        result->loss += r.loss_sum / SAMPLES;
    }
    return FST_OK;
}

static fst_status fleet_setup(struct fleet *f, const char *backend, fst_error *err)
{
    fst_trainer_options to = {.batch_size = LOCAL_BATCH, .threads = 1, .shard_size = LOCAL_BATCH, .backend = backend};
    fst_optim_spec os = {.kind = FST_OPTIM_SGD, .learning_rate = 0.03};
    size_t n = (size_t)CLIENTS * SAMPLES;
    fst_rng r;
    f->x = fst_alloc(n * FEATURES * sizeof *f->x);
    f->labels = fst_alloc(n * sizeof *f->labels);
    f->trainers = fst_calloc((size_t)f->workers, sizeof *f->trainers);
    f->optims = fst_calloc((size_t)f->workers, sizeof *f->optims);
    if (!f->x || !f->labels || !f->trainers || !f->optims)
        return fst_fail_memory(err, n * FEATURES * sizeof *f->x);
    fst_rng_init(&r, 0, "bench.fleet", 0);
    for (size_t i = 0; i < n * FEATURES; i++)
        f->x[i] = (float)(fst_rng_u32(&r) * 0x1p-31) - 1;
    for (size_t i = 0; i < n; i++)
        f->labels[i] = (int32_t)fst_rng_below(&r, 10);
    for (int i = 0; i < CLIENTS; i++)
        f->samples[i] = SAMPLES;
    fst_status s = fst_model_init(&f->model, "logistic_regression", NULL, err);
    for (int i = 0; !s && i < f->workers; i++) {
        s = fst_trainer_new(&f->trainers[i], f->model.graph, &to, err);
        if (!s)
            s = fst_optim_init(&f->optims[i], &os, f->model.state.param_count, err);
    }
    return s;
}

static void fleet_teardown(struct fleet *f)
{
    for (int i = 0; i < f->workers; i++) {
        if (f->trainers)
            fst_trainer_free(f->trainers[i]);
        if (f->optims)
            fst_optim_release(&f->optims[i]);
    }
    fst_free(f->trainers);
    fst_free(f->optims);
    fst_free(f->x);
    fst_free(f->labels);
    fst_model_release(&f->model);
}

static fst_status run_rounds(struct fleet *f, double *seconds, fst_error *err)
{
    fst_strategy *strategy = NULL;
    double start = fst_clock_seconds();
    fst_state_randomise(&f->model.state, f->model.graph, 1);
    fst_fed_state global = {.params = f->model.state.params, .size = {.params = f->model.state.param_count}};
    fst_status s = fst_strategy_new(&strategy, "fedavg", NULL, global.size, err);
    fst_simulate_spec spec = {.seed = 1,
                              .clients = CLIENTS,
                              .samples = f->samples,
                              .rounds = ROUNDS,
                              .cohort = COHORT,
                              .workers = f->workers,
                              .strategy = strategy,
                              .ctx = f,
                              .train = train_client};
    if (!s)
        s = fst_simulate(&spec, &global, err);
    fst_strategy_free(strategy);
    *seconds = fst_clock_seconds() - start;
    return s;
}

static fst_status one_client_step(struct fleet *f, fst_error *err)
{
    fst_step_result r;
    fst_step_input in = {
        .rows = LOCAL_BATCH, .x = f->x, .labels = f->labels, .loss = FST_LOSS_CROSS_ENTROPY, .learning_rate = 0.03};
    return fst_trainer_step(f->trainers[0], &f->model.state, &f->optims[0], &in, &r, err);
}

static fst_status run_federated(const struct options *o, int threads, struct result *out, fst_error *err)
{
    static struct fleet f; /* large, and one at a time */
    double seconds[SEGMENTS + 1];
    f = (struct fleet){.workers = threads};
    fst_status s = fleet_setup(&f, option_string(o, "backend"), err);
    for (int i = 0; !s && i <= SEGMENTS; i++)
        s = run_rounds(&f, &seconds[i], err);
    if (!s) {
        qsort(seconds + 1, SEGMENTS, sizeof *seconds, by_value); /* the first one warmed up */
        out->seconds = seconds[1 + SEGMENTS / 2];
        out->samples_per_s = (double)ROUNDS * COHORT * SAMPLES / out->seconds;
        out->step_s = out->seconds * threads / ((double)ROUNDS * COHORT * SAMPLES / LOCAL_BATCH);
        s = one_client_step(&f, err); /* a profile stands behind a step whose state is still there */
    }
    if (!s)
        s = fst_trainer_kernel_seconds(f.trainers[0], 0.01, &out->kernel_s, err);
    fleet_teardown(&f);
    return s;
}

/* ---- the command ------------------------------------------------------------------------------------------ */

static double peak_rss(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return 1024.0 * (double)u.ru_maxrss;
}

static void print_result(const char *name, int threads, const struct result *r, bool json)
{
    char rss[FST_HUMAN];
    double bytes = peak_rss();
    if (json) {
        printf("{\"workload\": \"%s\", \"threads\": %d, \"precision\": \"f32\", \"samples_per_s\": %.1f, "
               "\"step_ms\": %.6f, \"kernel_ms\": %.6f, \"peak_rss_bytes\": %.0f",
               name, threads, r->samples_per_s, 1e3 * r->step_s, 1e3 * r->kernel_s, bytes);
        printf(r->seconds > 0 ? ", \"seconds\": %.6f}\n" : "}\n", r->seconds);
    } else {
        printf("%-26s %9.0f samples/s  step %9.3f ms  kernels %9.3f ms (x %.2f)  peak %s", name, r->samples_per_s,
               1e3 * r->step_s, 1e3 * r->kernel_s, r->step_s / r->kernel_s, fst_human_bytes(bytes, rss));
        printf(r->seconds > 0 ? "  whole run %.3f s\n" : "\n", r->seconds);
    }
    fflush(stdout);
}

static fst_status run_one(const struct options *o, const char *name, fst_error *err)
{
    int threads = option_given(o, "threads") ? (int)option_int(o, "threads") : fst_cpu_count();
    struct result r = {0};
    fst_status s = FST_E_CONFIG;
    if (!strcmp(name, federated_name)) {
        s = run_federated(o, threads, &r, err);
    } else {
        const struct workload *w = NULL;
        for (int i = 0; i < WORKLOADS; i++)
            if (!strcmp(workloads[i].name, name))
                w = &workloads[i];
        s = w ? run_training(o, w, threads, &r, err)
              : fst_fail(err, FST_E_CONFIG, "no workload \"%s\"; see fedstill bench --help", name);
    }
    if (!s)
        print_result(name, threads, &r, option_flag(o, "json"));
    return s;
}

static fst_status run(const struct options *o, fst_error *err)
{
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < operand_count(o); i++)
        s = run_one(o, operand(o, i), err);
    for (int i = 0; !s && !operand_count(o) && i < WORKLOADS; i++)
        s = run_one(o, workloads[i].name, err);
    if (!s && !operand_count(o))
        s = run_one(o, federated_name, err);
    return s;
}

const struct command cmd_bench = {
    .name = "bench",
    .summary = "Measure training speed on this machine",
    .description =
        "Trains on synthetic data in memory. Kernels are the sum of the compute kernels of a step, each run alone: the "
        "step's lower bound. For fl_mnist_lr (1000 clients of 60 samples, 10 a round, 100 rounds, batches of 10) the "
        "time "
        "of the whole run is given too.\n\nPeak memory is the process': measure one workload at a time to compare it.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

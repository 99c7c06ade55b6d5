/* fedstill bench: training and inference of one model on synthetic data in memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "bench.h"

enum { POOL = 8 };        /* batches of data that are cycled through */
enum { CALLS = 1 << 20 }; /* of an inference that are timed one by one; later ones count in the mean only */

struct bench {
    const struct bench_settings *set;
    const struct workload *w;
    fst_model model, teacher;
    fst_trainer *trainer;
    fst_runner *runner;
    fst_optim optim;
    float *x, *soft, *logits;
    int32_t *labels;
    size_t sample, classes;
    uint64_t step;
    double *calls; /* seconds of each call of an inference */
    size_t ncalls;
};

static fst_status fill(struct bench *b, fst_error *err)
{
    size_t rows = POOL * b->w->batch;
    fst_rng r;
    b->x = fst_alloc(rows * b->sample * sizeof *b->x);
    b->soft = fst_alloc(rows * b->classes * sizeof *b->soft);
    b->logits = fst_alloc(rows * b->classes * sizeof *b->logits);
    b->labels = fst_alloc(rows * sizeof *b->labels);
    b->calls = fst_alloc((b->w->inference ? CALLS : 1) * sizeof *b->calls);
    if (!b->x || !b->soft || !b->logits || !b->labels || !b->calls)
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
        fst_softmax(b->logits, b->w->batch, (int)b->classes, 4.0, b->soft + row * b->classes);
    return s;
}

static fst_status setup(struct bench *b, fst_error *err)
{
    fst_trainer_options to = {.batch_size = b->w->batch,
                              .threads = b->set->threads,
                              .shard_size = b->set->shard,
                              .backend = b->set->backend,
                              .precision = b->set->precision};
    fst_status s = b->w->file ? fst_model_load(&b->model, b->w->file, err)
                              : fst_model_init(&b->model, b->w->model, &b->w->config, err);
    if (s)
        return s;
    fst_shape in = fst_graph_input_shape(b->model.graph);
    b->sample = (size_t)fst_shape_count(&in);
    b->classes = (size_t)b->model.classes;
    if (!b->w->file)
        fst_state_randomise(&b->model.state, b->model.graph, 1);
    if (to.precision != FST_PRECISION_F32 && fst_model_is_int8(&b->model))
        return fst_fail(err, FST_E_CONFIG, "--precision %s has no effect: %s is int8, and f32 otherwise",
                        fst_precision_name(to.precision), b->w->file);
    s = fill(b, err);
    if (!s && b->w->inference) {
        s = fst_runner_new(&b->runner, b->model.graph, &to, err);
        if (!s)
            fst_runner_hold(b->runner, &b->model.state);
        return s;
    }
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
    if (!s)
        fst_runner_hold(b->runner, &b->teacher.state);
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
    fst_free(b->calls);
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
    if (b->w->inference) {
        b->step++;
        return fst_runner_logits(b->runner, &b->model.state, in.x, in.rows, b->logits, err);
    }
    if (b->w->teacher) {
        if (!b->w->cached)
            s = soften(b, k, err);
        in.soft = b->soft + row * b->classes;
        in.loss = (fst_loss){.ce_weight = 0.5, .kd_weight = 0.5, .temperature = 4.0};
    }
    b->step++;
    return s ? s : fst_trainer_step(b->trainer, &b->model.state, &b->optim, &in, &r, err);
}

/* All threads' time in this process; the system's is part of it. */
static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

/* Seconds a step took, by the clock and of the processors' time. */
static fst_status segment(struct bench *b, double seconds, double *step_s, double *cpu_s, fst_error *err)
{
    double start = fst_clock_seconds(), now = start, cpu = cpu_seconds();
    uint64_t steps = 0;
    while (now - start < seconds) {
        double before = now;
        fst_status s = one_step(b, err);
        if (s)
            return s;
        steps++;
        now = fst_clock_seconds();
        if (b->w->inference && b->ncalls < CALLS)
            b->calls[b->ncalls++] = now - before;
    }
    *step_s = (now - start) / (double)steps;
    *cpu_s = (cpu_seconds() - cpu) / (double)steps;
    return FST_OK;
}

int bench_by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

void bench_add_kernel(void *ctx, const fst_kernel_info *k, double seconds)
{
    struct result *r = ctx;
    int i = 0;
    if (k->compute)
        r->kernel_s += seconds;
    while (i < r->op_count && (strcmp(r->ops[i].op, k->op) || r->ops[i].compute != k->compute))
        i++;
    if (i == BENCH_OPS)
        return;
    if (i == r->op_count)
        r->ops[r->op_count++] = (struct op_time){.op = k->op, .compute = k->compute};
    r->ops[i].seconds += seconds;
}

static void print_kernel(void *ctx, const fst_kernel_info *k, double seconds)
{
    bench_add_kernel(ctx, k, seconds);
    printf("  %-44s %s %8.3f ms%s\n", k->name, k->backward ? "backward" : "forward ", 1e3 * seconds,
           k->compute ? "" : "  (moves data; not counted)");
}

static fst_status measure(struct bench *b, struct result *out, fst_error *err)
{
    const struct bench_settings *set = b->set;
    fst_kernel_visit visit = set->profile ? print_kernel : bench_add_kernel;
    double steps[BENCH_SEGMENTS], cpu[BENCH_SEGMENTS];
    fst_status s = segment(b, set->seconds < 1 ? set->seconds : 1, &steps[0], &cpu[0], err);
    b->ncalls = 0;
    for (int i = 0; !s && i < BENCH_SEGMENTS; i++)
        s = segment(b, set->seconds, &steps[i], &cpu[i], err);
    if (s)
        return s;
    qsort(steps, BENCH_SEGMENTS, sizeof *steps, bench_by_value);
    qsort(cpu, BENCH_SEGMENTS, sizeof *cpu, bench_by_value);
    out->cpu_s = cpu[BENCH_SEGMENTS / 2];
    out->step_s = steps[BENCH_SEGMENTS / 2];
    out->samples_per_s = (double)b->w->batch / out->step_s;
    if (b->ncalls) {
        qsort(b->calls, b->ncalls, sizeof *b->calls, bench_by_value);
        out->p50_s = b->calls[b->ncalls / 2];
        out->p99_s = b->calls[b->ncalls - 1 - b->ncalls / 100];
    }
    out->flops = (b->w->inference ? 1 : 3) * (double)b->w->batch * fst_graph_flops(b->model.graph);
    bool online = b->w->teacher && !b->w->cached;
    if (online) /* the teacher's pass is part of the step */
        out->flops += (double)b->w->batch * fst_graph_flops(b->teacher.graph);
    if (set->steps_only)
        return FST_OK;
    if (online || b->w->inference)
        s = fst_runner_profile(b->runner, 0.01, visit, out, err);
    return s || b->w->inference ? s : fst_trainer_profile(b->trainer, 0.01, visit, out, err);
}

fst_status bench_model(const struct bench_settings *set, const struct workload *w, struct result *out, fst_error *err)
{
    struct bench b = {.set = set, .w = w};
    fst_status s = setup(&b, err);
    if (!s)
        s = measure(&b, out, err);
    teardown(&b);
    return s;
}

/* fedstill bench: a whole simulated federation of logistic regressions. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "fedstill/fed.h"

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

fst_status bench_fleet(const struct bench_settings *set, struct result *out, fst_error *err)
{
    static struct fleet f; /* large, and one at a time */
    double seconds[BENCH_SEGMENTS + 1];
    f = (struct fleet){.workers = set->threads};
    fst_status s = fleet_setup(&f, set->backend, err);
    for (int i = 0; !s && i <= BENCH_SEGMENTS; i++)
        s = run_rounds(&f, &seconds[i], err);
    if (!s) {
        qsort(seconds + 1, BENCH_SEGMENTS, sizeof *seconds, bench_by_value); /* the first one warmed up */
        out->seconds = seconds[1 + BENCH_SEGMENTS / 2];
        out->samples_per_s = (double)ROUNDS * COHORT * SAMPLES / out->seconds;
        out->step_s = out->seconds * set->threads / ((double)ROUNDS * COHORT * SAMPLES / LOCAL_BATCH);
        out->flops = 3 * LOCAL_BATCH * fst_graph_flops(f.model.graph);
        s = one_client_step(&f, err); /* a profile stands behind a step whose state is still there */
    }
    if (!s)
        s = fst_trainer_profile(f.trainers[0], 0.01, bench_add_kernel, out, err);
    fleet_teardown(&f);
    return s;
}

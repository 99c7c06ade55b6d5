/* fedstill bench: a whole simulated federation of logistic regressions. */
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "fedstill/fed.h"

enum { CLIENTS = 1000, SAMPLES = 60, FEATURES = 784, COHORT = 10, ROUNDS = 100, LOCAL_BATCH = 10 };

struct fleet {
    fst_model model;
    const char *backend;
    fst_trainer *trainer; /* for the profile */
    fst_optim optim;
    int workers;
    float *x;
    int32_t *labels;
    uint32_t *index;
    fst_source *source;
    int64_t samples[CLIENTS];
};

static fst_status client_env(void *ctx, int worker, uint32_t client, fst_client_env *out, fst_error *err)
{
    const struct fleet *f = ctx;
    (void)worker, (void)err;
    *out = (fst_client_env){.seed = 1,
                            .stream = "bench",
                            .client = client,
                            .classes = 10,
                            .graph = f->model.graph,
                            .source = f->source,
                            .subset = f->index + (size_t)client * SAMPLES,
                            .count = SAMPLES,
                            .plan = {.epochs = 1,
                                     .batch_size = LOCAL_BATCH,
                                     .optim = {.kind = FST_OPTIM_SGD, .learning_rate = 0.03},
                                     .compute = {.backend = f->backend}}};
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
    f->index = fst_alloc(n * sizeof *f->index);
    f->backend = backend;
    if (!f->x || !f->labels || !f->index)
        return fst_fail_memory(err, n * FEATURES * sizeof *f->x);
    fst_rng_init(&r, 0, "bench.fleet", 0);
    for (size_t i = 0; i < n * FEATURES; i++)
        f->x[i] = (float)(fst_rng_u32(&r) * 0x1p-31) - 1;
    for (size_t i = 0; i < n; i++) {
        f->labels[i] = (int32_t)fst_rng_below(&r, 10);
        f->index[i] = (uint32_t)i;
    }
    for (int i = 0; i < CLIENTS; i++)
        f->samples[i] = SAMPLES;
    fst_status s = fst_model_init(&f->model, "logistic_regression", NULL, err);
    fst_shape shape = s ? FST_SHAPE(FEATURES) : fst_graph_input_shape(f->model.graph);
    if (!s)
        s = fst_source_from_memory(&f->source, "noise", FST_F32, &shape, n, f->x, f->labels, 10, err);
    if (!s)
        s = fst_trainer_new(&f->trainer, f->model.graph, &to, err);
    if (!s)
        s = fst_optim_init(&f->optim, &os, f->model.state.param_count, err);
    return s;
}

static void fleet_teardown(struct fleet *f)
{
    fst_trainer_free(f->trainer);
    fst_optim_release(&f->optim);
    fst_source_close(f->source);
    fst_free(f->index);
    fst_free(f->x);
    fst_free(f->labels);
    fst_model_release(&f->model);
}

static fst_status run_rounds(struct fleet *f, double *seconds, fst_error *err)
{
    const fst_strategy_ops *ops = fst_strategy_find("fedavg");
    fst_strategy *strategy = NULL;
    fst_virtual *clients = NULL;
    double start = fst_clock_seconds();
    fst_state_randomise(&f->model.state, f->model.graph, 1);
    fst_fed_state global = {.params = f->model.state.params, .size = {.params = f->model.state.param_count}};
    const fst_server_env env = {.clients = CLIENTS, .classes = 10, .global = &global};
    const fst_virtual_spec vs = {.ops = ops, .clients = CLIENTS, .workers = f->workers, .ctx = f, .env = client_env};
    fst_status s = fst_strategy_new(&strategy, ops, NULL, 0, &env, err);
    if (!s)
        s = fst_virtual_new(&clients, &vs, err);
    fst_simulate_spec spec = {.seed = 1,
                              .clients = CLIENTS,
                              .samples = f->samples,
                              .rounds = ROUNDS,
                              .cohort = COHORT,
                              .workers = f->workers,
                              .strategy = strategy,
                              .ctx = clients,
                              .work = fst_virtual_work,
                              .settle = fst_virtual_settle};
    if (!s)
        s = fst_simulate(&spec, err);
    fst_virtual_free(clients);
    fst_strategy_free(strategy);
    *seconds = fst_clock_seconds() - start;
    return s;
}

static fst_status one_client_step(struct fleet *f, fst_error *err)
{
    fst_step_result r;
    fst_step_input in = {
        .rows = LOCAL_BATCH, .x = f->x, .labels = f->labels, .loss = FST_LOSS_CROSS_ENTROPY, .learning_rate = 0.03};
    return fst_trainer_step(f->trainer, &f->model.state, &f->optim, &in, &r, err);
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
    if (!s && !set->steps_only)
        s = fst_trainer_profile(f.trainer, 0.01, bench_add_kernel, out, err);
    fleet_teardown(&f);
    return s;
}

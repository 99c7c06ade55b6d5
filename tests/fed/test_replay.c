/* Whole small runs against the same runs computed in float64 by replay/replay.py, which knows nothing of this code: the
 * weights after the last round agree within 1e-5 of their length. The table of runs is the script's. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "computed.h"

enum { CLIENTS = 5, FEATURES = 6, HIDDEN = 8, CLASSES = 4, SEED = 7, SETTINGS = 10 };
#define TOLERANCE 1e-5

struct run {
    const char *name, *strategy;
    uint32_t cohort;
    double rate, momentum, decay;
    int64_t steps;       /* instead of epochs */
    int64_t more_epochs; /* client k trains for so many epochs more, times k */
    bool nesterov;
    bool adam;
    bool keeps; /* clients keep their moments */
    bool norms; /* the network has a batch norm; batches are of 7 samples, so that none has a single one */
    bool loses; /* in rounds of odd number what client 1 sends is lost on the way */
    fst_setting setting[SETTINGS];
    fst_codecs codecs;
};

#define FEDGEN                                                                                            \
    {"generator_noise", 3}, {"generator_hidden", 5}, {"generator_steps", 4}, {"generator_batch_size", 6}, \
        {"generator_learning_rate", 0.01}, {"generated_batch_size", 5}, {"generated_weight", 2},          \
        {"generated_kl_weight", 3},                                                                       \
    {                                                                                                     \
        "generated_decay", 0.9                                                                            \
    }

static const struct run runs[] = {
    {.name = "fedavg", .strategy = "fedavg", .cohort = 3, .rate = 0.1},
    {.name = "fedprox", .strategy = "fedprox", .cohort = 3, .rate = 0.1, .setting = {{"prox_mu", 0.5}}},
    {.name = "coded_int8",
     .strategy = "fedavg",
     .cohort = 3,
     .rate = 0.2,
     .codecs = {{.kind = FST_CODEC_INT8, .per_channel = true, .feedback = true},
                {.kind = FST_CODEC_INT8, .feedback = true, .zstd = true}}},
    {.name = "coded_int4",
     .strategy = "fedavg",
     .cohort = 3,
     .rate = 0.25,
     .codecs = {.up = {.kind = FST_CODEC_INT4, .feedback = true}}},
    {.name = "coded_top_k",
     .strategy = "fedavg",
     .cohort = 3,
     .rate = 0.1,
     .codecs = {.up = {.kind = FST_CODEC_TOP_K, .share = 0.2, .feedback = true}}},
    {.name = "coded_top_k_both",
     .strategy = "fedavg",
     .cohort = 2,
     .rate = 0.25,
     .codecs = {{.kind = FST_CODEC_TOP_K, .share = 0.15, .feedback = true, .zstd = true},
                {.kind = FST_CODEC_TOP_K, .share = 0.2, .feedback = true, .change = true}}},
    {.name = "fedavgm", .strategy = "fedavgm", .cohort = 3, .rate = 0.1},
    {.name = "fedadagrad",
     .strategy = "fedadagrad",
     .cohort = 3,
     .rate = 0.1,
     .setting = {{"server.learning_rate", 0.05}, {"server.tau", 0.01}}},
    {.name = "fedadam",
     .strategy = "fedadam",
     .cohort = 3,
     .rate = 0.1,
     .setting = {{"server.learning_rate", 0.05}, {"server.tau", 0.01}}},
    {.name = "fedyogi",
     .strategy = "fedyogi",
     .cohort = 3,
     .rate = 0.1,
     .setting = {{"server.learning_rate", 0.05}, {"server.tau", 0.01}}},
    {.name = "scaffold", .strategy = "scaffold", .cohort = 3, .rate = 0.1},
    {.name = "scaffold_rate",
     .strategy = "scaffold",
     .cohort = 5,
     .rate = 0.1,
     .decay = 0.01,
     .more_epochs = 1,
     .setting = {{"server.learning_rate", 0.5}}},
    {.name = "scaffold_momentum", .strategy = "scaffold", .cohort = 3, .rate = 0.02, .momentum = 0.8},
    {.name = "scaffold_lost", .strategy = "scaffold", .cohort = 5, .rate = 0.1, .loses = true},
    {.name = "fednova", .strategy = "fednova", .cohort = 3, .rate = 0.1, .more_epochs = 1},
    {.name = "fednova_momentum", .strategy = "fednova", .cohort = 3, .rate = 0.02, .momentum = 0.8, .more_epochs = 1},
    {.name = "fednova_nesterov",
     .strategy = "fednova",
     .cohort = 3,
     .rate = 0.02,
     .momentum = 0.8,
     .more_epochs = 1,
     .nesterov = true},
    {.name = "fednova_mu",
     .strategy = "fednova",
     .cohort = 3,
     .rate = 0.1,
     .more_epochs = 1,
     .setting = {{"fednova_mu", 1}}},
    {.name = "fedntd",
     .strategy = "fedntd",
     .cohort = 3,
     .rate = 0.1,
     .setting = {{"ntd_beta", 2}, {"ntd_temperature", 3}}},
    {.name = "median", .strategy = "median", .cohort = 4, .rate = 0.1},
    {.name = "trimmed_mean", .strategy = "trimmed_mean", .cohort = 5, .rate = 0.1, .setting = {{"trim", 0.2}}},
    {.name = "krum", .strategy = "krum", .cohort = 5, .rate = 0.1},
    {.name = "krum_few", .strategy = "krum", .cohort = 3, .rate = 0.1},
    {.name = "multi_krum", .strategy = "multi_krum", .cohort = 5, .rate = 0.1, .setting = {{"chosen", 3}}},
    {.name = "bulyan", .strategy = "bulyan", .cohort = 5, .rate = 0.1, .setting = {{"faulty", 0}}},
    {.name = "geometric_median", .strategy = "geometric_median", .cohort = 5, .rate = 0.1},
    {.name = "norm_clipping", .strategy = "norm_clipping", .cohort = 5, .rate = 0.1, .setting = {{"max_norm", 0.6}}},
    {.name = "fedavg_steps", .strategy = "fedavg", .cohort = 3, .rate = 0.1, .steps = 7},
    {.name = "fresh_adam", .strategy = "fedavg", .cohort = 3, .rate = 0.01, .adam = true},
    {.name = "kept_adam", .strategy = "fedavg", .cohort = 3, .rate = 0.01, .adam = true, .keeps = true},
    {.name = "kept_momentum", .strategy = "fedavg", .cohort = 3, .rate = 0.02, .momentum = 0.8, .keeps = true},
    {.name = "kept_lost",
     .strategy = "fedavg",
     .cohort = 5,
     .rate = 0.02,
     .momentum = 0.8,
     .nesterov = true,
     .keeps = true,
     .loses = true},
    {.name = "fedbuff", .strategy = "fedbuff", .cohort = 2, .rate = 0.1},
    {.name = "fedbuff_few",
     .strategy = "fedbuff",
     .cohort = 1,
     .rate = 0.1,
     .setting = {{"server.learning_rate", 0.5}, {"concurrency", 4}, {"speed_spread", 0.8}, {"max_staleness", 2}}},
    {.name = "fedgen", .strategy = "fedgen", .cohort = 3, .rate = 0.1, .setting = {FEDGEN}},
    {.name = "fedgen_alike",
     .strategy = "fedgen",
     .cohort = 3,
     .rate = 0.1,
     .setting = {FEDGEN, {"generator_diversity", 0}}},
    {.name = "fedavg_norms", .strategy = "fedavg", .cohort = 3, .rate = 0.1, .norms = true},
    {.name = "fedbn", .strategy = "fedbn", .cohort = 3, .rate = 0.1, .norms = true},
};
enum { RUNS = sizeof runs / sizeof *runs, ROUNDS = 6 };

/* What the script wrote, and the network. */
struct world {
    struct computed from;
    fst_graph *graph, *networks[2];
    const struct run *run;
    fst_virtual *clients;
    int64_t steps[CLIENTS], most_steps; /* of each client in all rounds, and of those of the last round the most */
};

static fst_graph *network(bool norms)
{
    fst_graph *g = NULL;
    fst_error err;
    ok(fst_graph_new(&g, &err), &err);
    fst_value x = fst_graph_input(g, &FST_SHAPE(FEATURES));
    x = fst_graph_linear(g, x, "a", HIDDEN, true);
    if (norms) {
        x = fst_graph_batchnorm2d(g, fst_graph_reshape(g, x, &FST_SHAPE(HIDDEN, 1, 1)), "norm", 1e-5, 0.1);
        x = fst_graph_flatten(g, x);
    }
    x = fst_graph_relu(g, x);
    ok(fst_graph_finish(g, fst_graph_linear(g, x, "b", CLASSES, true), &err), &err);
    return g;
}

static int set_up(void **state)
{
    static struct world w;
    open_computed(&w.from, "replay", FEATURES, CLASSES);
    for (int i = 0; i < 2; i++)
        w.networks[i] = network(i);
    *state = &w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    close_computed(&w->from);
    for (int i = 0; i < 2; i++)
        fst_graph_free(w->networks[i]);
    return 0;
}

static fst_status client_env(void *ctx, int worker, uint32_t client, fst_client_env *out, fst_error *err)
{
    struct world *w = ctx;
    const struct run *r = w->run;
    (void)worker, (void)err;
    *out = (fst_client_env){.seed = SEED,
                            .stream = "replay",
                            .client = client,
                            .classes = CLASSES,
                            .graph = w->graph,
                            .source = w->from.source,
                            .subset = w->from.index[client],
                            .count = w->from.count[client],
                            .codecs = r->codecs,
                            .plan = {.epochs = 2 + r->more_epochs * client,
                                     .steps = r->steps,
                                     .batch_size = r->norms ? 7 : 8,
                                     .keep_optim = r->keeps,
                                     .optim = {.kind = r->adam ? FST_OPTIM_ADAM : FST_OPTIM_SGD,
                                               .learning_rate = r->rate,
                                               .momentum = r->momentum,
                                               .weight_decay = r->decay,
                                               .nesterov = r->nesterov}}};
    return FST_OK;
}

static fst_status work(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    struct world *w = ctx;
    fst_status st = fst_virtual_work(w->clients, worker, down, up, err);
    if (!st && w->run->loses && down->client == 1 && down->round % 2)
        return fst_fail(err, FST_E_IO, "lost");
    return st;
}

static void settle(void *ctx, const fst_round_report *report)
{
    struct world *w = ctx;
    fst_virtual_settle(w->clients, report);
    w->most_steps = 0;
    for (uint32_t i = 0; i < report->reported; i++) {
        int64_t *its = &w->steps[report->reported_client[i]];
        *its += 2 * (int64_t)((w->from.count[report->reported_client[i]] + 6) / 7);
        w->most_steps = *its > w->most_steps ? *its : w->most_steps;
    }
}

/* The script's first weights; a norm layer's are 1 and 0, its running statistics 0 and 1. */
static void start(const struct world *w, fst_fed_state *s)
{
    const float *first = computed(&w->from, "first");
    for (size_t i = 0; i < fst_graph_params(w->graph); i++) {
        fst_param_info p = fst_graph_param(w->graph, i);
        bool norm = !strncmp(p.name, "norm.", 5);
        for (size_t k = 0; k < p.count; k++)
            s->params[p.offset + k] = norm ? !strcmp(p.name, "norm.weight") : *first++;
    }
    for (size_t k = 0; k < s->size.buffers; k++)
        s->buffers[k] = k >= HIDDEN;
}

/* Plays all rounds of w->run; global starts as the script's first weights. */
static void play(struct world *w, int workers, fst_fed_state *global)
{
    const struct run *r = w->run;
    const fst_strategy_ops *ops = NULL;
    fst_strategy *s = NULL;
    fst_error err;
    int64_t samples[CLIENTS];
    for (int c = 0; c < CLIENTS; c++)
        samples[c] = (int64_t)w->from.count[c];
    ok(fst_strategy_of(&ops, r->strategy, &err), &err);
    const fst_server_env env = {
        .clients = CLIENTS, .classes = CLASSES, .global = global, .graph = w->graph, .codecs = r->codecs};
    const fst_virtual_spec vs = {.ops = ops,
                                 .settings = r->setting,
                                 .nsettings = settings_in(r->setting, SETTINGS),
                                 .clients = CLIENTS,
                                 .workers = workers,
                                 .ctx = w,
                                 .env = client_env};
    ok(fst_fed_state_init(global, fst_graph_fed_size(w->graph), &err), &err);
    memset(w->steps, 0, sizeof w->steps);
    start(w, global);
    ok(fst_strategy_new(&s, ops, r->setting, settings_in(r->setting, SETTINGS), &env, &err), &err);
    ok(fst_virtual_new(&w->clients, &vs, &err), &err);
    fst_simulate_spec spec = {.seed = SEED,
                              .clients = CLIENTS,
                              .samples = samples,
                              .rounds = ROUNDS,
                              .cohort = r->cohort,
                              .workers = workers,
                              .strategy = s,
                              .ctx = w,
                              .work = work,
                              .settle = settle};
    ok(fst_simulate(&spec, &err), &err);
    fst_virtual_free(w->clients);
    fst_strategy_free(s);
}

static void test_replayed(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < RUNS; i++) {
        fst_fed_state global = {0}, again = {0};
        w->run = &runs[i];
        w->graph = w->networks[w->run->norms];
        play(w, 1, &global);
        play(w, 3, &again);
        assert_memory_equal(global.params, again.params, 4 * global.size.params);
        assert_memory_equal(global.buffers, again.buffers, 4 * global.size.buffers);
        const double *want = computed(&w->from, runs[i].name);
        double off = 0, length = 0;
        size_t params = global.size.params, all = params + global.size.buffers;
        for (size_t k = 0; k < all; k++) {
            off += pow((double)(k < params ? global.params[k] : global.buffers[k - params]) - want[k], 2);
            length += want[k] * want[k];
        }
        print_message("%-20s off by %.1e of its length\n", runs[i].name, sqrt(off / length));
        assert_true(sqrt(off / length) < TOLERANCE);
        if (!strcmp(runs[i].name, "fedbn")) /* a norm layer counts the batches that its client has seen */
            assert_int_equal(global.counters[0], w->most_steps);
        fst_fed_state_release(&global);
        fst_fed_state_release(&again);
    }
}

/* Two liars of eleven; any order of the clients gives the same bits. */
static void test_bulyan(void **state)
{
    enum { N = 11, COUNT = 40 };
    struct world *w = *state;
    const float *updates = computed(&w->from, "updates");
    const double *want = computed(&w->from, "bulyan_2");
    float got[2][COUNT];
    fst_fed_view v[N];
    fst_error err;
    for (int order = 0; order < 2; order++) {
        fst_fed_state out = {.params = got[order], .size = {COUNT, 0, 0}};
        for (size_t k = 0; k < N; k++)
            v[k] = (fst_fed_view){.params = updates + COUNT * (order ? (k * 4 + 3) % N : k), .size = {COUNT, 0, 0}};
        ok(fst_robust_bulyan(v, N, 2, &out, &err), &err);
        assert_int_equal(fst_robust_bulyan(v, N - 1, 2, &out, &err), FST_E_ARGUMENT);
    }
    for (int i = 0; i < COUNT; i++)
        assert_true(fabs((double)got[0][i] - want[i]) < 1e-6 && got[0][i] == got[1][i]);
}

/* Runs that are meant to differ do: otherwise a strategy that does nothing would pass. */
static void test_runs_differ(void **state)
{
    struct world *w = *state;
    for (size_t i = 1; i < RUNS; i++) {
        const char *plain = runs[i].norms ? "fedavg_norms" : "fedavg";
        if (!strcmp(plain, runs[i].name))
            continue;
        const double *a = computed(&w->from, plain), *b = computed(&w->from, runs[i].name);
        double off = 0;
        for (size_t k = 0; k < fst_graph_param_count(w->networks[runs[i].norms]); k++)
            off += pow(a[k] - b[k], 2);
        assert_true(sqrt(off) > 100 * TOLERANCE);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_replayed), cmocka_unit_test(test_bulyan),
                                       cmocka_unit_test(test_runs_differ)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

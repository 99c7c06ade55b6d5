/* What the tests of all strategies share: the cases, small networks, and a federation of five clients in a simulation.
 * A strategy joins by a line in `cases`. */
#ifndef FST_TEST_CONFORMANCE_H
#define FST_TEST_CONFORMANCE_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/fed.h"
#include "fedstill/fuse.h"

/* What is coded, and how. */
enum {
    PLAIN,
    HALF,
    WHOLE,
    SIGNS,
    SPARSE,
    SPARSE_BOTH,
    THIN,
    THIN_BOTH,
    /* of rows: predictions and statistics */
    ROWS_HALF,
    ROWS_WHOLE,
    ROWS_COARSE,
    VOTES,
    LEVELS_UP,
    LIKE_CFD,
    CODED
};
static const fst_codecs codecs[CODED] = {
    [HALF] = {{.kind = FST_CODEC_F16}, {.kind = FST_CODEC_F16, .feedback = true}},
    [WHOLE] = {{.kind = FST_CODEC_INT8, .per_channel = true, .feedback = true, .zstd = true},
               {.kind = FST_CODEC_INT8, .stochastic = true, .feedback = true}},
    [SIGNS] = {{.kind = FST_CODEC_INT4, .stochastic = true, .feedback = true},
               {.kind = FST_CODEC_INT4, .per_channel = true, .feedback = true, .change = true}},
    [SPARSE] = {{.kind = FST_CODEC_TOP_K, .share = 0.1, .values = FST_VALUES_INT8, .feedback = true, .zstd = true},
                {.kind = FST_CODEC_NONE}},
    [SPARSE_BOTH] =
        {{.kind = FST_CODEC_TOP_K, .share = 0.05, .values = FST_VALUES_F32},
         {.kind = FST_CODEC_TOP_K, .share = 0.3, .values = FST_VALUES_F16, .feedback = true, .change = true}},
    [THIN] = {{.kind = FST_CODEC_LOW_RANK, .energy = 0.5, .values = FST_VALUES_F16, .feedback = true},
              {.kind = FST_CODEC_NONE}},
    [THIN_BOTH] = {{.kind = FST_CODEC_NONE},
                   {.kind = FST_CODEC_LOW_RANK, .energy = 0.7, .feedback = true, .zstd = true, .change = true}},
    [ROWS_HALF] = {{.kind = FST_CODEC_F16, .zstd = true}, {.kind = FST_CODEC_F16}},
    [ROWS_WHOLE] = {{.kind = FST_CODEC_INT8, .per_channel = true, .zstd = true},
                    {.kind = FST_CODEC_INT8, .stochastic = true, .change = true}},
    [ROWS_COARSE] = {{.kind = FST_CODEC_INT4, .stochastic = true},
                     {.kind = FST_CODEC_INT8, .zstd = true, .change = true}},
    [VOTES] = {{.kind = FST_CODEC_LEVELS, .bits = 1, .zstd = true},
               {.kind = FST_CODEC_LEVELS, .bits = 3, .zstd = true, .change = true}},
    [LIKE_CFD] = {{.kind = FST_CODEC_LEVELS, .bits = 3}, {.kind = FST_CODEC_LEVELS, .bits = 7}},
    [LEVELS_UP] = {{.kind = FST_CODEC_LEVELS, .bits = 6}, {.kind = FST_CODEC_NONE}},
};

static const struct test_case {
    const char *name;
    fst_setting set[3];
} cases[] = {
    {"fedavg", {{0}}},
    {"fedprox", {{"prox_mu", 0.5}}},
    {"fedavgm", {{0}}},
    {"fedadagrad", {{0}}},
    {"fedadam", {{"server.learning_rate", 0.05}}},
    {"fedyogi", {{0}}},
    {"scaffold", {{0}}},
    {"scaffold", {{"server.learning_rate", 0.5}}},
    {"fednova", {{0}}},
    {"fednova", {{"fednova_mu", 0.5}}},
    {"fedntd", {{"ntd_temperature", 2}}},
    {"fedbn", {{0}}},
    {"median", {{0}}},
    {"trimmed_mean", {{"trim", 0.25}}},
    {"krum", {{0}}},
    {"multi_krum", {{"chosen", 2}}},
    {"bulyan", {{"faulty", 0}}},
    {"geometric_median", {{0}}},
    {"norm_clipping", {{"max_norm", 0.1}}},
    {"fedmd", {{"transfer_epochs", 1}}},
    {"fedmd", {{"public_samples", 5}, {"digest_epochs", 2}}},
    {"fd", {{"gamma", 0.5}}},
    {"fd_plus", {{"gamma", 0.5}}},
    {"fedensemble", {{0}}},
    {"fedbuff", {{"max_staleness", 2}}},
    {"fedbuff", {{"concurrency", 4}, {"speed_spread", 2}, {"max_staleness", 1}}},
    {"dsfl", {{0}}},
    {"dsfl", {{"public_samples", 5}, {"sharpen", 1}}},
    {"cfd", {{0}}},
    {"fedproto", {{"proto_weight", 0.5}}},
    {"feddf", {{"distil_steps", 6}, {"distil_batch_size", 5}, {"distil_patience", 0}}},
    {"feddf", {{"distil_steps", 30}, {"distil_learning_rate", 0.02}, {"public_samples", 9}}},
    {"fedgen", {{"generator_steps", 4}, {"generator_batch_size", 6}, {"generator_hidden", 5}}},
    {"cfd", {{"public_samples", 5}, {"up_bits", 3}, {"down_bits", 7}}},
    {"cfd", {{"server_epochs", 2}, {"public_samples", 9}}},
    {"local", {{0}}},
    {"fedkd", {{"hidden_weight", 0}, {"energy_start", 0.5}}},
    {"fedkd", {{"hidden_weight", 0.5}, {"energy_start", 0.9}, {"energy_end", 1}}},
    /* whose clients keep their optimisers' moments */
    {"fedavg", {{0}}},
    {"fedbuff", {{"max_staleness", 2}}},
    {"fedmd", {{"public_samples", 5}, {"transfer_epochs", 1}}},
    {"fedproto", {{"proto_weight", 0.5}}},
    /* with codecs */
    {"fedavg", {{0}}},
    {"fedavg", {{0}}},
    {"fedavg", {{0}}},
    {"fedavg", {{0}}},
    {"fedavg", {{0}}},
    {"fedavg", {{0}}},
    {"fedavg", {{0}}},
    {"fedprox", {{"prox_mu", 0.5}}},
    {"fedavgm", {{0}}},
    {"fedadam", {{"server.learning_rate", 0.05}}},
    {"scaffold", {{0}}},
    {"scaffold", {{0}}},
    {"fednova", {{0}}},
    {"fedntd", {{0}}},
    {"fedbn", {{0}}},
    {"median", {{0}}},
    {"krum", {{0}}},
    {"norm_clipping", {{"max_norm", 0.1}}},
    {"fd_plus", {{"gamma", 0.5}}},
    {"fedensemble", {{0}}},
    {"fedbuff", {{"max_staleness", 2}}},
    {"feddf", {{"distil_steps", 6}, {"distil_batch_size", 5}, {"distil_patience", 0}}},
    {"fedgen", {{"generator_steps", 4}, {"generator_batch_size", 6}, {"generator_hidden", 5}}},
    {"fedmd", {{0}}},
    {"fedmd", {{"public_samples", 5}}},
    {"fedmd", {{0}}},
    {"dsfl", {{0}}},
    {"dsfl", {{"public_samples", 5}, {"sharpen", 1}}},
    {"dsfl", {{"public_samples", 9}}},
    {"dsfl", {{0}}},
    {"dsfl", {{0}}},
    {"dsfl", {{"public_samples", 5}, {"sharpen", 2}}},
    {"fd", {{"gamma", 0.5}}},
    {"fd", {{"gamma", 0.5}}},
    {"fd", {{"gamma", 0.5}}},
    {"fd", {{"gamma", 0.5}}},
    {"fedproto", {{"proto_weight", 0.5}}},
    {"fedproto", {{"proto_weight", 0.5}}},
    /* with a fusion after their step */
    {"fedavg", {{0}}},
    {"fedavg", {{0}}},
    {"fedadam", {{"server.learning_rate", 0.05}}},
    {"scaffold", {{0}}},
    {"feddf", {{"distil_steps", 3}, {"distil_batch_size", 5}, {"distil_patience", 0}}},
};
enum { CASES = sizeof cases / sizeof *cases };
/* Of the cases with codecs and the first one with a fusion. */
static const int codings[] = {HALF,        WHOLE,      SIGNS,       SPARSE,     SPARSE_BOTH, THIN,        THIN_BOTH,
                              SPARSE_BOTH, SIGNS,      SPARSE_BOTH, WHOLE,      SPARSE_BOTH, SPARSE,      HALF,
                              SPARSE_BOTH, WHOLE,      SIGNS,       THIN,       SIGNS,       SPARSE_BOTH, SPARSE,
                              SIGNS,       WHOLE,      ROWS_HALF,   ROWS_WHOLE, ROWS_COARSE, ROWS_WHOLE,  ROWS_COARSE,
                              VOTES,       VOTES,      LEVELS_UP,   LIKE_CFD,   ROWS_HALF,   ROWS_WHOLE,  VOTES,
                              LEVELS_UP,   ROWS_WHOLE, ROWS_COARSE, SPARSE_BOTH};
enum { CODINGS = sizeof codings / sizeof *codings, FIRST_CODED = CASES - 4 - CODINGS, FIRST_KEPT = FIRST_CODED - 4 };
static inline const fst_codecs *codecs_of(const struct test_case *c)
{
    ptrdiff_t i = c - cases - FIRST_CODED;
    return &codecs[i >= 0 && i < CODINGS ? codings[i] : PLAIN];
}
static inline bool keeps_optim(const struct test_case *c)
{
    return c - cases >= FIRST_KEPT && c - cases < FIRST_CODED;
}
static const enum fusion {
    UNFUSED,
    FROM_AVERAGE,
    FROM_PUBLIC
} fusions[CASES] = {[CASES - 5] = FROM_AVERAGE,
                    [CASES - 4] = FROM_AVERAGE,
                    [CASES - 3] = FROM_PUBLIC,
                    [CASES - 2] = FROM_AVERAGE,
                    [CASES - 1] = FROM_PUBLIC};
enum {
    CLIENTS = 5,
    SAMPLES = 64,
    CLASSES = 3,
    SIDE = 4,
    ELEMENTS = SIDE * SIDE,
    PUBLIC = 14,
    ROUNDS = 3,
    NETWORKS = 2,
    WORKERS = 4 /* at most */
};

static inline void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

/* ---- data and networks ---- */

static float pixels[SAMPLES * ELEMENTS];
static int32_t labels[SAMPLES];
static fst_source *source;
static fst_graph *network[NETWORKS], *teacher;
static uint32_t position[SAMPLES]; /* of client k: [begin[k], begin[k + 1]); the public ones after the last */
static const size_t begin[CLIENTS + 1] = {0, 12, 17, 30, 41, SAMPLES - PUBLIC};

static inline fst_graph *build(bool hidden)
{
    fst_graph *g = NULL;
    fst_error err;
    ok(fst_graph_new(&g, &err), &err);
    fst_value x = fst_graph_input(g, &FST_SHAPE(1, SIDE, SIDE));
    if (hidden) {
        x = fst_graph_conv2d(g, x, "conv",
                             &(fst_conv2d){.out_channels = 3, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}});
        x = fst_graph_relu(g, fst_graph_batchnorm2d(g, x, "bn", 1e-5, 0.1));
    }
    x = fst_graph_linear(g, fst_graph_flatten(g, x), "fc", CLASSES, true);
    ok(fst_graph_finish(g, x, &err), &err);
    return g;
}

static inline fst_graph *build_teacher(void)
{
    fst_graph *g = NULL;
    fst_error err;
    ok(fst_graph_new(&g, &err), &err);
    fst_value x = fst_graph_flatten(g, fst_graph_input(g, &FST_SHAPE(1, SIDE, SIDE)));
    x = fst_graph_relu(g, fst_graph_linear(g, x, "a", 20, true));
    ok(fst_graph_finish(g, fst_graph_linear(g, x, "b", CLASSES, true), &err), &err);
    return g;
}

static inline int set_up(void **state)
{
    fst_rng r;
    fst_error err;
    (void)state;
    fst_rng_init(&r, 5, "test.data", 0);
    for (uint32_t i = 0; i < SAMPLES; i++) {
        labels[i] = (int32_t)fst_rng_below(&r, CLASSES);
        for (int k = 0; k < ELEMENTS; k++)
            pixels[i * ELEMENTS + (uint32_t)k] = (float)fst_rng_normal(&r) + (k % CLASSES == labels[i] ? 1.0f : 0.0f);
        position[i] = i;
    }
    fst_rng_shuffle_u32(&r, position, SAMPLES);
    for (int k = 0; k < CLIENTS; k++) /* a client's samples stand in rising order, as partitions have them */
        for (size_t i = begin[k]; i < begin[k + 1]; i++)
            for (size_t j = i + 1; j < begin[k + 1]; j++)
                if (position[j] < position[i]) {
                    uint32_t t = position[i];
                    position[i] = position[j];
                    position[j] = t;
                }
    ok(fst_source_from_memory(&source, "pixels", FST_F32, &FST_SHAPE(1, SIDE, SIDE), SAMPLES, pixels, labels, CLASSES,
                              &err),
       &err);
    network[0] = build(true);
    network[1] = build(false);
    teacher = build_teacher();
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    fst_source_close(source);
    for (int i = 0; i < NETWORKS; i++)
        fst_graph_free(network[i]);
    fst_graph_free(teacher);
    return 0;
}

/* ---- a federation ---- */

struct world {
    const struct test_case *c;
    const fst_strategy_ops *ops;
    size_t settings;
    fst_fed_state global, initial[CLIENTS];
    fst_public pub;
    fst_strategy *strategy;
    fst_fuser *fuser;
    fst_virtual *clients; /* of the simulation */
    /* where each client is on its own */
    fst_source *site[CLIENTS];
    fst_public site_pub[CLIENTS];
    fst_client *client[CLIENTS];
    fst_buf kept[CLIENTS], next[CLIENTS];
    fst_client *away[WORKERS]; /* of workers elsewhere */
    fst_buf sent[WORKERS], answer[WORKERS];
    uint64_t stop_after; /* the simulation ends there */
    uint64_t lost_round;
    uint32_t lost; /* client that fails in lost_round; CLIENTS: none */
};

static inline fst_graph *network_of(const struct world *w, uint32_t client)
{
    bool same = w->ops->flags & (FST_SAME_MODEL | FST_SAME_FEATURES);
    if (w->ops->flags & FST_MENTORS) /* only one of the networks has features to compare */
        same = w->c->set[0].value > 0;
    return network[same ? 0 : client % NETWORKS];
}

static inline void randomise(fst_fed_state *s, const fst_graph *g, uint64_t seed)
{
    fst_error err;
    fst_state nn;
    ok(fst_fed_state_init(s, fst_graph_fed_size(g), &err), &err);
    nn = (fst_state){s->params, s->buffers, s->counters, s->size.params, s->size.buffers, s->size.counters};
    fst_state_randomise(&nn, g, seed);
}

static inline const fst_fed_view *view_of(const fst_fed_state *s)
{
    static _Thread_local fst_fed_view v;
    v = fst_fed_state_view(s);
    return &v;
}

static inline fst_client_env env_of(struct world *w, uint32_t client)
{
    return (fst_client_env){
        .seed = 77,
        .stream = "step.test",
        .client = client,
        .classes = CLASSES,
        .graph = network_of(w, client),
        .shared = network[0],
        .initial = view_of(&w->initial[client]),
        .source = source,
        .subset = position + begin[client],
        .count = begin[client + 1] - begin[client],
        .transform = {.flip = true, .crop_padding = 1},
        .augment = true,
        .pub = &w->pub,
        .codecs = *codecs_of(w->c),
        .plan = {.compute = {.backend = "reference"}, /* no kernels to make: many worlds are opened */
                 .epochs = 2,
                 .batch_size = 4,
                 .keep_optim = keeps_optim(w->c),
                 .optim = {.kind = FST_OPTIM_SGD, .learning_rate = 0.1, .momentum = 0.5},
                 .has_schedule = true,
                 .schedule = {.kind = FST_SCHEDULE_STEP, .gamma = 0.5, .step_size = 2}}};
}

static inline fst_status env_at(void *ctx, int worker, uint32_t client, fst_client_env *out, fst_error *err)
{
    (void)worker, (void)err;
    *out = env_of(ctx, client);
    return FST_OK;
}

static inline void make_fuser(struct world *w, enum fusion kind, const fst_server_env *env)
{
    fst_fed_state large = {0};
    fst_error err;
    const fst_fuser_spec spec = {.fusion = {.rank = kind == FROM_PUBLIC ? 2 : 0,
                                            .d_attention = 4,
                                            .heads = 2,
                                            .layers = 1,
                                            .merge_dropout = 0.2,
                                            .gate = 0.1,
                                            .weight_decay = 1e-3,
                                            .clip_norm = 50},
                                 .target = "conv.weight",
                                 .source = "b.weight",
                                 .start_round = 1,
                                 .every = 1,
                                 .steps = 3,
                                 .learning_rate = 0.01,
                                 .rounds = ROUNDS,
                                 .proxy = kind == FROM_PUBLIC,
                                 .proxy_learning_rate = 0.1,
                                 .proxy_batch_size = 5};
    randomise(&large, teacher, 4);
    ok(fst_fuser_new(&w->fuser, &spec, env, teacher, large.params, &err), &err);
    fst_fed_state_release(&large);
}

/* Another process' part in it: bytes come, bytes go. */
static inline fst_status play_away(void *ctx, int worker, const void *kept, size_t len, const fst_message *down,
                                   fst_message *up, fst_buf *keep, fst_error *err)
{
    struct world *w = ctx;
    fst_client_env env = env_of(w, down->client);
    fst_message in, out;
    w->sent[worker].len = w->answer[worker].len = 0;
    fst_status st = fst_message_pack(down, &w->sent[worker], err);
    if (!st)
        st = fst_message_parse(&in, w->sent[worker].data, w->sent[worker].len, err);
    if (!st && !w->away[worker])
        st = fst_client_new(&w->away[worker], w->ops, w->c->set, w->settings, err);
    if (!st)
        st = fst_client_work(w->away[worker], &env, kept, len, &in, &out, keep, err);
    if (!st)
        st = fst_message_pack(&out, &w->answer[worker], err);
    return st ? st : fst_message_parse(up, w->answer[worker].data, w->answer[worker].len, err);
}

static int elsewhere;       /* of the workers of the worlds that are opened */
static const char *kept_in; /* a folder for what clients keep; NULL: memory */

static inline void open_world(struct world *w, const struct test_case *c, int workers)
{
    fst_error err;
    *w = (struct world){.c = c, .ops = fst_strategy_find(c->name), .stop_after = UINT64_MAX, .lost = CLIENTS};
    if (!w->ops)
        fail_msg("there is no strategy \"%s\"", c->name);
    while (w->settings < 3 && c->set[w->settings].name)
        w->settings++;
    randomise(&w->global, network[0], 1);
    for (uint32_t k = 0; k < CLIENTS; k++)
        randomise(&w->initial[k], network_of(w, k), 10 + k);
    ok(fst_public_init(&w->pub, source, position + begin[CLIENTS], PUBLIC, &(fst_transform){0}, &err), &err);
    fst_server_env env = {.seed = 77,
                          .clients = CLIENTS,
                          .classes = CLASSES,
                          .global = &w->global,
                          .graph = network[0],
                          .pub = &w->pub,
                          .codecs = *codecs_of(c),
                          .compute = {.batch_size = 4, .threads = 1, .backend = "reference"}};
    if (fusions[c - cases]) {
        make_fuser(w, fusions[c - cases], &env);
        env.after = fst_fuser_after(w->fuser);
    }
    ok(fst_strategy_new(&w->strategy, w->ops, c->set, w->settings, &env, &err), &err);
    const fst_virtual_spec vs = {.ops = w->ops,
                                 .settings = c->set,
                                 .nsettings = w->settings,
                                 .clients = CLIENTS,
                                 .workers = workers,
                                 .ctx = w,
                                 .env = env_at,
                                 .elsewhere = elsewhere,
                                 .play = play_away,
                                 .folder = kept_in,
                                 .budget = 600};
    ok(fst_virtual_new(&w->clients, &vs, &err), &err);
}

static inline void close_world(struct world *w)
{
    fst_strategy_free(w->strategy);
    fst_fuser_free(w->fuser);
    fst_virtual_free(w->clients);
    for (int i = 0; i < WORKERS; i++) {
        fst_client_free(w->away[i]);
        fst_buf_release(&w->sent[i]);
        fst_buf_release(&w->answer[i]);
    }
    fst_fed_state_release(&w->global);
    fst_public_release(&w->pub);
    for (int k = 0; k < CLIENTS; k++) {
        fst_fed_state_release(&w->initial[k]);
        fst_client_free(w->client[k]);
        fst_public_release(&w->site_pub[k]);
        fst_source_close(w->site[k]);
        fst_buf_release(&w->kept[k]);
        fst_buf_release(&w->next[k]);
    }
}

/* Everything that lasts: the shared model, what the strategy keeps, what clients keep. */
static inline void state_of(const struct world *w, fst_buf *out)
{
    fst_error err;
    const fst_fed_size n = w->global.size;
    out->len = 0;
    ok(fst_buf_append(out, w->global.params, 4 * n.params, &err), &err);
    ok(fst_buf_append(out, w->global.buffers, 4 * n.buffers, &err), &err);
    ok(fst_buf_append(out, w->global.counters, 8 * n.counters, &err), &err);
    ok(fst_strategy_save(w->strategy, out, &err), &err);
    for (uint32_t k = 0; k < CLIENTS; k++) {
        size_t len;
        const void *kept;
        fst_buf room = {0};
        ok(fst_virtual_read(w->clients, k, &room, &kept, &len, &err), &err);
        if (w->client[k])
            ok(fst_buf_append(out, w->kept[k].data, w->kept[k].len, &err), &err);
        else if (len)
            ok(fst_buf_append(out, kept, len, &err), &err);
        fst_buf_release(&room);
    }
}

static inline void assert_same(const struct world *w, const fst_buf *want)
{
    fst_buf got = {0};
    state_of(w, &got);
    if (got.len != want->len || memcmp(got.data, want->data, got.len))
        fail_msg("%s: another result", w->c->name);
    fst_buf_release(&got);
}

/* ---- the simulation ---- */

static inline fst_status play(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    struct world *w = ctx;
    if (down->client == w->lost && down->round == w->lost_round)
        return fst_fail(err, FST_E_IO, "no power");
    return fst_virtual_work(w->clients, worker, down, up, err);
}

static inline void settle(void *ctx, const fst_round_report *r)
{
    fst_virtual_settle(((struct world *)ctx)->clients, r);
}

static inline fst_status after_round(void *ctx, const fst_server *server, const fst_round_report *r, fst_error *err)
{
    (void)server;
    return r->round == ((struct world *)ctx)->stop_after ? fst_fail(err, FST_E_CANCELLED, "stop") : FST_OK;
}

static inline fst_status simulate(struct world *w, int workers, uint64_t first, uint32_t cohort)
{
    fst_error err = {0};
    const fst_simulate_spec spec = {.seed = 3,
                                    .clients = CLIENTS,
                                    .first_round = first,
                                    .rounds = ROUNDS,
                                    .cohort = cohort,
                                    .workers = workers,
                                    .strategy = w->strategy,
                                    .ctx = w,
                                    .work = play,
                                    .settle = settle,
                                    .round_done = after_round};
    fst_status st = fst_simulate(&spec, &err);
    if (st && st != FST_E_CANCELLED)
        fail_msg("%s: %s", w->c->name, err.message);
    return st;
}

#endif

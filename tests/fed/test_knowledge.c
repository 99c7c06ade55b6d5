/* Whole small runs of strategies that share knowledge, against the same runs computed in float64 by
 * knowledge/knowledge.py, which knows nothing of this code: every client's weights after the last round agree within
 * 1e-5 of their length. Then what dsfl and cfd refuse, and what cfd costs on the wire. */
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

enum { CLIENTS = 4, FEATURES = 6, HIDDEN = 8, CLASSES = 4, PUBLIC = 16, ROUNDS = 4, SETTINGS = 4 };
#define TOLERANCE 1e-5

struct run {
    const char *name, *strategy;
    fst_setting setting[SETTINGS];
    const fst_codecs *codecs; /* NULL: none */
};

static const fst_codecs of_fd = {.up = {.kind = FST_CODEC_INT8, .zstd = true}, .down = {.kind = FST_CODEC_INT4}},
                        of_fedproto = {.up = {.kind = FST_CODEC_INT4, .per_channel = true},
                                       .down = {.kind = FST_CODEC_INT8, .change = true}};
static const struct run runs[] = {
    {"fedmd", "fedmd", {{"digest_epochs", 2}}, NULL},
    {"fedmd_transfer", "fedmd", {{"digest_epochs", 2}, {"transfer_epochs", 3}}, NULL},
    {"fd", "fd", {{"gamma", 0.5}}, NULL},
    {"fd_plus", "fd_plus", {{"gamma", 0.5}}, NULL},
    {"dsfl_era", "dsfl", {{"digest_epochs", 2}}, NULL},
    {"dsfl_enhanced_era", "dsfl", {{"digest_epochs", 2}, {"sharpen", 1}, {"sharpen_beta", 3}}, NULL},
    {"dsfl_none", "dsfl", {{"digest_epochs", 2}, {"sharpen", 2}}, NULL},
    {"cfd_1", "cfd", {{"digest_epochs", 2}}, NULL},
    {"cfd_3_5", "cfd", {{"digest_epochs", 2}, {"up_bits", 3}, {"down_bits", 5}}, NULL},
    {"cfd_server", "cfd", {{"digest_epochs", 2}, {"server_epochs", 200}, {"down_bits", 3}}, NULL},
    {"feddf", "feddf", {{"distil_steps", 40}, {"distil_learning_rate", 0.01}, {"distil_patience", 0}}, NULL},
    {"fedproto_0", "fedproto", {{"proto_weight", 0}}, NULL},
    {"fedproto", "fedproto", {{"proto_weight", 0.7}}, NULL},
    {"fd_coded", "fd", {{"gamma", 0.5}}, &of_fd},
    {"fedproto_coded", "fedproto", {{"proto_weight", 0.7}}, &of_fedproto},
};
enum { RUNS = sizeof runs / sizeof *runs };

/* What the script wrote, and the two networks. */
struct world {
    struct computed from;
    fst_graph *network[2];
    fst_public pub;
    fst_fed_view first[CLIENTS];
    fst_virtual *clients;
    fst_strategy *strategy;
    fst_codecs codecs;
    bool shared; /* one model */
    bool alike;  /* all have the network of client 1 */
    fst_fed_state global;
    uint64_t up[ROUNDS], down[ROUNDS];
    uint64_t rounds;        /* that are played */
    uint64_t done, stop_at; /* steps of the server in its last round; 0: it is not stopped */
};

static const void *expected(const struct world *w, const char *name, size_t k)
{
    char full[80];
    if (k < CLIENTS)
        snprintf(full, sizeof full, "%s.%zu", name, k);
    else
        snprintf(full, sizeof full, "%s", name);
    return computed(&w->from, full);
}

static fst_graph *network(bool hidden)
{
    fst_graph *g = NULL;
    fst_error err;
    ok(fst_graph_new(&g, &err), &err);
    fst_value x = fst_graph_input(g, &FST_SHAPE(FEATURES));
    if (hidden)
        x = fst_graph_relu(g, fst_graph_linear(g, x, "a", HIDDEN, true));
    ok(fst_graph_finish(g, fst_graph_linear(g, x, "b", CLASSES, true), &err), &err);
    return g;
}

static int set_up(void **state)
{
    static struct world w;
    fst_error err;
    open_computed(&w.from, "knowledge", FEATURES, CLASSES);
    assert_int_equal(w.from.count[CLIENTS], PUBLIC);
    ok(fst_public_init(&w.pub, w.from.source, w.from.index[CLIENTS], PUBLIC, &(fst_transform){0}, &err), &err);
    for (size_t k = 0; k < CLIENTS; k++) {
        if (k < 2)
            w.network[k] = network(k == 1);
        w.first[k] = (fst_fed_view){.params = expected(&w, "first", k), .size = fst_graph_fed_size(w.network[k % 2])};
    }
    w.rounds = ROUNDS;
    *state = &w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    fst_public_release(&w->pub);
    close_computed(&w->from);
    fst_graph_free(w->network[0]);
    fst_graph_free(w->network[1]);
    return 0;
}

static fst_status client_env(void *ctx, int worker, uint32_t client, fst_client_env *out, fst_error *err)
{
    struct world *w = ctx;
    (void)worker, (void)err;
    *out = (fst_client_env){.seed = 1,
                            .stream = "knowledge",
                            .client = client,
                            .classes = CLASSES,
                            .graph = w->network[w->alike ? 1 : client % 2],
                            .initial = &w->first[w->alike ? 1 : client],
                            .source = w->from.source,
                            .subset = w->from.index[client],
                            .count = w->from.count[client],
                            .pub = &w->pub,
                            .codecs = w->codecs,
                            .plan = {.epochs = 3,
                                     .batch_size = 32, /* all of them */
                                     .compute = {.backend = "reference"},
                                     .optim = {.learning_rate = 0.2, .momentum = 0.5}}};
    return FST_OK;
}

static void settle(void *ctx, const fst_round_report *report)
{
    struct world *w = ctx;
    fst_virtual_settle(w->clients, report);
    w->up[report->round] = report->bytes_up;
    w->down[report->round] = report->bytes_down;
}

static fst_status work(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    return fst_virtual_work(((struct world *)ctx)->clients, worker, down, up, err);
}

static void open_strategy(struct world *w, const struct run *r)
{
    const fst_strategy_ops *ops = NULL;
    fst_error err;
    ok(fst_strategy_of(&ops, r->strategy, &err), &err);
    w->codecs = r->codecs ? *r->codecs : (fst_codecs){.up = {.kind = FST_CODEC_NONE}};
    w->shared = ops->flags & FST_SAME_MODEL;
    w->alike = ops->flags & (FST_SAME_MODEL | FST_SAME_FEATURES);
    ok(fst_fed_state_init(&w->global, w->first[1].size, &err), &err);
    fst_fed_state_copy(&w->global, &w->first[1]);
    const fst_server_env env = {.seed = 1,
                                .clients = CLIENTS,
                                .classes = CLASSES,
                                .global = w->shared ? &w->global : NULL,
                                .graph = w->network[1],
                                .pub = &w->pub,
                                .codecs = w->codecs,
                                .compute = {.threads = 1, .backend = "reference"}};
    const fst_virtual_spec vs = {.ops = ops,
                                 .settings = r->setting,
                                 .nsettings = settings_in(r->setting, SETTINGS),
                                 .clients = CLIENTS,
                                 .workers = 1,
                                 .ctx = w,
                                 .env = client_env};
    ok(fst_strategy_new(&w->strategy, ops, r->setting, settings_in(r->setting, SETTINGS), &env, &err), &err);
    ok(fst_virtual_new(&w->clients, &vs, &err), &err);
}

static void close_strategy(struct world *w)
{
    fst_virtual_free(w->clients);
    fst_strategy_free(w->strategy);
    fst_fed_state_release(&w->global);
}

static bool stopped(void *ctx)
{
    const struct world *w = ctx;
    return w->stop_at && w->done >= w->stop_at;
}

static void progress(void *ctx, uint64_t done, uint64_t total)
{
    (void)total;
    ((struct world *)ctx)->done = done;
}

static fst_status try_to_play(struct world *w, const struct run *r, fst_error *err)
{
    const fst_work aggregating = {.ctx = w, .stopped = stopped, .progress = progress};
    open_strategy(w, r);
    w->done = 0;
    fst_simulate_spec spec = {.seed = 1,
                              .clients = CLIENTS,
                              .rounds = w->rounds,
                              .workers = 1,
                              .strategy = w->strategy,
                              .aggregating = &aggregating,
                              .ctx = w,
                              .work = work,
                              .settle = settle};
    return fst_simulate(&spec, err);
}

static void play(struct world *w, const struct run *r)
{
    fst_error err;
    ok(try_to_play(w, r, &err), &err);
}

static double distance(const double *a, const float *b, const double *c, size_t n)
{
    double off = 0;
    for (size_t i = 0; i < n; i++)
        off += pow(a[i] - (b ? (double)b[i] : c[i]), 2);
    return sqrt(off);
}

static fst_fed_view model_of(const struct world *w, uint32_t client)
{
    fst_fed_view v = {0};
    fst_error err;
    size_t len;
    const void *kept = fst_virtual_kept(w->clients, client, &len);
    ok(fst_client_model(kept, len, w->first[w->alike ? 1 : client].size, &v, &err), &err);
    return v;
}

static void test_against_numpy(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < RUNS; i++) {
        double most = 0;
        play(w, &runs[i]);
        for (uint32_t k = 0; k < (w->shared ? 1 : CLIENTS); k++) {
            const double *want = expected(w, runs[i].name, k), zero[100] = {0};
            fst_fed_view v = fst_fed_state_view(&w->global);
            if (!w->shared)
                v = model_of(w, k);
            double off = distance(want, v.params, NULL, v.size.params);
            off /= distance(want, NULL, zero, v.size.params);
            most = off > most ? off : most;
        }
        print_message("%-20s off by %.1e of its length\n", runs[i].name, most);
        assert_true(most < TOLERANCE);
        close_strategy(w);
    }
}

static bool same_network(const char *strategy)
{
    return fst_strategy_find(strategy)->flags & (FST_SAME_MODEL | FST_SAME_FEATURES);
}

/* The runs are told apart: otherwise a strategy that shares nothing, or another's, would pass. */
static void test_runs_differ(void **state)
{
    struct world *w = *state;
    size_t shared = fst_graph_param_count(w->network[1]);
    assert_true(distance(expected(w, "feddf", 0), NULL, expected(w, "fedavg", 0), shared) > 100 * TOLERANCE);
    assert_true(distance(expected(w, "fd_plus", 0), NULL, expected(w, "fedavg", 0), shared) > 100 * TOLERANCE);
    for (size_t k = 0; k < CLIENTS; k++)
        for (int coded = 0; coded < 2; coded++)
            assert_true(distance(expected(w, "fedproto", k), NULL,
                                 expected(w, coded ? "fedproto_coded" : "fedproto_0", k), shared) > 100 * TOLERANCE);
    for (size_t i = 0; i < RUNS; i++)
        for (uint32_t k = 0; k < CLIENTS && !same_network(runs[i].strategy); k++) {
            size_t n = w->first[k].size.params;
            const double *its = expected(w, runs[i].name, k);
            assert_true(distance(its, NULL, expected(w, "alone", k), n) > 100 * TOLERANCE);
            for (size_t j = 0; j < i && !same_network(runs[j].strategy); j++)
                assert_true(distance(its, NULL, expected(w, runs[j].name, k), n) > 100 * TOLERANCE);
        }
}

/* Steps that spoil the student end early, and what is shared is where they began: the bits are fedavg's. Without
 * patience they are not. */
static void test_feddf_ends_early(void **state)
{
    struct world *w = *state;
    const struct run average = {"", "fedavg", {{0}}, NULL};
    struct run spoilt = {
        "", "feddf", {{"distil_learning_rate", 5}, {"distil_steps", 100}, {"distil_patience", 20}}, NULL};
    float want[100];
    size_t bytes = 4 * w->first[1].size.params;
    play(w, &average);
    memcpy(want, w->global.params, bytes);
    close_strategy(w);
    play(w, &spoilt);
    assert_memory_equal(w->global.params, want, bytes);
    assert_int_equal(w->done, 25); /* the first look at the samples kept apart after 20 steps that did not help */
    close_strategy(w);
    spoilt.setting[2].value = 0;
    play(w, &spoilt);
    assert_memory_not_equal(w->global.params, want, bytes);
    close_strategy(w);
}

/* As long as steps help, patience starts anew. */
static void test_feddf_goes_on(void **state)
{
    struct world *w = *state;
    const struct run helps = {
        "", "feddf", {{"distil_learning_rate", 0.001}, {"distil_steps", 60}, {"distil_patience", 30}}, NULL};
    play(w, &helps);
    assert_int_equal(w->done, 60);
    close_strategy(w);
}

/* The one sample of 16 that is kept apart is not learnt from: the model is the same as without it, with all others, and
 * another than with all. */
static void test_feddf_keeps_apart(void **state)
{
    struct world *w = *state;
    const struct run apart = {
        "", "feddf", {{"distil_learning_rate", 0.001}, {"distil_steps", 20}, {"distil_patience", 1e6}}, NULL};
    struct run all = apart;
    const fst_public whole = w->pub;
    fst_error err;
    double want[100], length = 0;
    size_t n = w->first[1].size.params, same = 0;
    w->rounds = 1;
    all.setting[2].value = 0;
    play(w, &apart);
    for (size_t i = 0; i < n; i++) {
        want[i] = w->global.params[i];
        length += want[i] * want[i];
    }
    close_strategy(w);
    for (size_t without = 0; without <= PUBLIC; without++) {
        uint32_t rest[PUBLIC];
        size_t count = 0;
        for (size_t i = 0; i < PUBLIC; i++)
            if (i != without)
                rest[count++] = w->from.index[CLIENTS][i];
        ok(fst_public_init(&w->pub, w->from.source, rest, count, &(fst_transform){0}, &err), &err);
        play(w, &all);
        bool its = distance(want, w->global.params, NULL, n) < TOLERANCE * sqrt(length);
        assert_false(its && without == PUBLIC);
        same += its;
        close_strategy(w);
        fst_public_release(&w->pub);
    }
    assert_int_equal(same, 1);
    w->pub = whole;
    w->rounds = ROUNDS;
}

/* A server that is stopped while it learns: what is shared is what it was, and can be saved. */
static void test_feddf_stopped(void **state)
{
    struct world *w = *state;
    const struct run r = {"", "feddf", {{"distil_steps", 1000}, {"distil_patience", 0}}, NULL};
    fst_buf saved = {0};
    fst_error err;
    w->stop_at = 10;
    assert_int_equal(try_to_play(w, &r, &err), FST_E_CANCELLED);
    assert_int_equal(w->done, 10);
    assert_memory_equal(w->global.params, w->first[1].params, 4 * w->first[1].size.params);
    ok(fst_strategy_save(w->strategy, &saved, &err), &err);
    w->stop_at = 0;
    fst_buf_release(&saved);
    close_strategy(w);
}

/* ---- one client, one message ---- */

/* The model of client 0, which has a linear network, after its round 5. */
static void client_after(struct world *w, const struct run *r, const fst_buf *kept, const fst_message *down,
                         double *out)
{
    fst_client *c = NULL;
    fst_client_env env;
    fst_message up;
    fst_buf keep = {0};
    fst_fed_view v;
    fst_error err = {0};
    const fst_strategy_ops *ops = fst_strategy_find(r->strategy);
    w->alike = ops->flags & FST_SAME_FEATURES;
    ok(client_env(w, 0, 0, &env, &err), &err);
    ok(fst_client_new(&c, ops, r->setting, settings_in(r->setting, SETTINGS), &err), &err);
    ok(fst_client_work(c, &env, kept ? kept->data : NULL, kept ? kept->len : 0, down, &up, &keep, &err), &err);
    ok(fst_client_model(keep.data, keep.len, fst_graph_fed_size(env.graph), &v, &err), &err);
    for (size_t i = 0; i < v.size.params; i++)
        out[i] = v.params[i];
    fst_buf_release(&keep);
    fst_client_free(c);
}

static fst_message message_of_round_5(const struct world *w, const char *kind)
{
    fst_message m = fst_message_of(kind);
    fst_error err;
    m.round = 5;
    ok(fst_message_add(&m, "public", FST_U64, FST_SHAPE(2), &w->pub.digest, &err), &err);
    return m;
}

/* softmax(W x + b) of client 0's first model. */
static void first_probabilities(const struct world *w, uint32_t position, float *p)
{
    const float *weight = w->first[0].params, *x = (const float *)expected(w, "x", CLIENTS) + position * FEATURES;
    double sum = 0, e[CLASSES];
    for (int c = 0; c < CLASSES; c++) {
        double z = weight[CLASSES * FEATURES + c];
        for (int j = 0; j < FEATURES; j++)
            z += (double)weight[c * FEATURES + j] * (double)x[j];
        sum += e[c] = exp(z);
    }
    for (int c = 0; c < CLASSES; c++)
        p[c] = (float)(e[c] / sum);
}

/* A client that is told what it says already learns nothing from it, if it takes the rows for the samples of the round
 * that they were made in. */
static void test_rows_are_of_their_round(void **state)
{
    enum { FEW = 5, MADE = 2 };
    struct world *w = *state;
    const struct run r = {"", "dsfl", {{"public_samples", FEW}, {"digest_epochs", 5}}, NULL};
    uint32_t row[PUBLIC];
    float p[FEW * CLASSES];
    double alone[100], told[100], misled[100];
    size_t n = w->first[0].size.params;
    fst_error err;
    fst_message m = message_of_round_5(w, "probabilities");
    client_after(w, &r, NULL, &m, alone);
    ok(fst_message_add(&m, "probabilities", FST_F32, FST_SHAPE(FEW, CLASSES), p, &err), &err);
    m.base = MADE + 1;
    assert_int_equal(fst_public_draw(&w->pub, 1, MADE, FEW, row), FEW);
    for (size_t i = 0; i < FEW; i++)
        first_probabilities(w, w->pub.index[row[i]], p + i * CLASSES);
    client_after(w, &r, NULL, &m, told);
    m.base = MADE + 2;
    client_after(w, &r, NULL, &m, misled);
    assert_true(distance(told, NULL, alone, n) < 1e-5);
    assert_true(distance(misled, NULL, alone, n) > 1e-2);
}

/* Only who has kept nothing learns the public labels, whatever the round. */
static void test_transfer_comes_first(void **state)
{
    struct world *w = *state;
    const struct run with = {"", "fedmd", {{"transfer_epochs", 2}}, NULL}, without = {"", "fedmd", {{0}}, NULL};
    double a[100], b[100];
    size_t n = w->first[0].size.params;
    fst_buf kept = {0};
    fst_error err;
    const fst_message m = message_of_round_5(w, "logits");
    fst_message k = fst_message_of("kept");
    ok(fst_message_add_state(&k, &w->first[0], &err), &err);
    ok(fst_message_pack(&k, &kept, &err), &err);
    client_after(w, &without, NULL, &m, a);
    client_after(w, &with, NULL, &m, b);
    assert_true(distance(a, NULL, b, n) > 1e-2);
    client_after(w, &with, &kept, &m, b);
    assert_true(distance(a, NULL, b, n) == 0);
    fst_buf_release(&kept);
}

/* Prototypes of labels that nobody held pull nothing. */
static void test_labels_that_nobody_held(void **state)
{
    struct world *w = *state;
    static const float mean[CLASSES * HIDDEN];
    uint8_t held[CLASSES] = {0};
    const struct run r = {"", "fedproto", {{"proto_weight", 1}}, NULL};
    double alone[100], none[100], all[100];
    size_t n = w->first[1].size.params;
    fst_error err;
    fst_message m = message_of_round_5(w, "prototypes");
    client_after(w, &r, NULL, &m, alone);
    m.base = 3;
    ok(fst_message_add(&m, "prototypes", FST_F32, FST_SHAPE(CLASSES, HIDDEN), mean, &err), &err);
    ok(fst_message_add(&m, "held", FST_U8, FST_SHAPE(CLASSES), held, &err), &err);
    client_after(w, &r, NULL, &m, none);
    memset(held, 1, sizeof held);
    client_after(w, &r, NULL, &m, all);
    assert_true(distance(none, NULL, alone, n) < 1e-6);
    assert_true(distance(all, NULL, alone, n) > 1e-2);
}

/* ---- what it costs ---- */

/* 16 samples of 4 classes: 256 bytes as floats; 2 bits each and one in front as votes. Beside them, the digest. */
static void test_bytes(void **state)
{
    struct world *w = *state;
    enum { DIGEST = 16, FLOATS = PUBLIC * CLASSES * 4, VOTES = (1 + 2 * PUBLIC + 7) / 8 };
    play(w, &runs[4]);
    assert_int_equal(w->up[3], CLIENTS * (DIGEST + FLOATS));
    assert_int_equal(w->down[3], CLIENTS * (DIGEST + FLOATS));
    close_strategy(w);
    play(w, &runs[7]);
    assert_int_equal(w->down[0], CLIENTS * DIGEST);
    assert_int_equal(w->up[0], CLIENTS * (DIGEST + VOTES)); /* nothing is known yet */
    for (int r = 1; r < ROUNDS; r++) {
        assert_int_equal(w->down[r], CLIENTS * (DIGEST + VOTES));
        assert_true(w->up[r] <= CLIENTS * (DIGEST + VOTES));
    }
    assert_true(w->up[3] < CLIENTS * (DIGEST + VOTES)); /* most votes are those of the last round */
    close_strategy(w);
}

/* ---- refusals ---- */

struct wrong {
    const char *strategy, *tensor, *says;
    fst_status status;
    fst_dtype dtype;
    fst_shape shape;
    const void *data;
};

static void test_refused(void **state)
{
    struct world *w = *state;
    static float p[PUBLIC * CLASSES], nan[PUBLIC * CLASSES], heavy[PUBLIC * CLASSES];
    static const uint8_t votes[6], rest[5] = {0, 0, 0, 0, 0xfe}, threes[5] = {0xfe, 0xff, 0xff, 0xff, 1};
    for (int i = 0; i < PUBLIC * CLASSES; i++)
        p[i] = nan[i] = heavy[i] = 0.25f;
    nan[PUBLIC * CLASSES - 1] = NAN;
    heavy[PUBLIC * CLASSES - 1] = 0.5f;
    const struct wrong cases[] = {
        {"dsfl", "probabilities", NULL, FST_OK, FST_F32, FST_SHAPE(PUBLIC, CLASSES), p},
        {"dsfl", "probabilities", "row 15, class 3: nan is no probability", FST_E_NUMERIC, FST_F32,
         FST_SHAPE(PUBLIC, CLASSES), nan},
        {"dsfl", "probabilities", "row 15: the probabilities add up to 1.25", FST_E_NUMERIC, FST_F32,
         FST_SHAPE(PUBLIC, CLASSES), heavy},
        {"dsfl", "probabilities", NULL, FST_E_MISMATCH, FST_F32, FST_SHAPE(CLASSES, PUBLIC), p},
        {"dsfl", "logits", "probabilities", FST_E_MISMATCH, FST_F32, FST_SHAPE(PUBLIC, CLASSES), p},
        {"cfd", "labels", NULL, FST_OK, FST_U8, FST_SHAPE(5), votes},
        {"cfd", "labels", NULL, FST_OK, FST_U8, FST_SHAPE(5), threes},
        {"cfd", "labels", "too few", FST_E_MISMATCH, FST_U8, FST_SHAPE(4), votes},
        {"cfd", "labels", "at most 5", FST_E_MISMATCH, FST_U8, FST_SHAPE(6), votes},
        {"cfd", "labels", "after the last row", FST_E_MISMATCH, FST_U8, FST_SHAPE(5), rest},
        {"cfd", "labels", "of bytes", FST_E_MISMATCH, FST_F32, FST_SHAPE(1), p},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct wrong *c = &cases[i];
        const struct run r = {"", c->strategy, {{0}}, NULL};
        fst_message m = fst_message_of(c->tensor), other;
        fst_error err = {0};
        open_strategy(w, &r);
        fst_strategy_begin(w->strategy, 0);
        m.samples = 5;
        ok(fst_message_add(&m, c->tensor, c->dtype, c->shape, c->data, &err), &err);
        other = m;
        ok(fst_message_add(&m, "public", FST_U64, FST_SHAPE(2), &w->pub.digest, &err), &err);
        fst_status st = fst_strategy_fold(w->strategy, &m, &err);
        if (st != c->status || (st && c->says && !strstr(err.message, c->says)))
            fail_msg("case %zu: %d %s", i, (int)st, err.message);
        ok(fst_message_add(&other, "public", FST_U64, FST_SHAPE(2), (uint64_t[]){1, 2}, &err), &err);
        assert_int_equal(fst_strategy_fold(w->strategy, &other, &err), FST_E_MISMATCH); /* other public samples */
        m.base = 1;
        if (!strcmp(c->strategy, "cfd"))
            assert_int_equal(fst_strategy_fold(w->strategy, &m, &err), FST_E_MISMATCH);
        assert_int_equal(w->strategy->updates, st ? 0 : 1);
        close_strategy(w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_numpy),
                                       cmocka_unit_test(test_runs_differ),
                                       cmocka_unit_test(test_feddf_ends_early),
                                       cmocka_unit_test(test_feddf_goes_on),
                                       cmocka_unit_test(test_feddf_keeps_apart),
                                       cmocka_unit_test(test_feddf_stopped),
                                       cmocka_unit_test(test_rows_are_of_their_round),
                                       cmocka_unit_test(test_transfer_comes_first),
                                       cmocka_unit_test(test_labels_that_nobody_held),
                                       cmocka_unit_test(test_bytes),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

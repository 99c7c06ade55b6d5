<<<<<<< HEAD
/* Whole small runs of strategies that share knowledge, against the same runs computed in float64 by
 * knowledge/knowledge.py, which knows nothing of this code: every client's weights after the last round agree within
 * 1e-5 of their length. Then what dsfl and cfd refuse, and what cfd costs on the wire. */
=======
/* FedMD and FD as whole small runs, against an independent computation in float64 (make_knowledge.py), and public
 * samples. One client is lost in the second round. */
>>>>>>> d6b5a7c (tests, task: FedMD and FD against float64 runs; the reference lists what strategies need and leak)
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
<<<<<<< HEAD
#include <stdlib.h>
=======
>>>>>>> d6b5a7c (tests, task: FedMD and FD against float64 runs; the reference lists what strategies need and leak)
#include <string.h>
#include <cmocka.h>

#include "fedstill/fed.h"
<<<<<<< HEAD

enum { CLIENTS = 4, FEATURES = 6, HIDDEN = 8, CLASSES = 4, PUBLIC = 16, SAMPLES = 70, ROUNDS = 4, SETTINGS = 4 };
#define TOLERANCE 1e-5

struct run {
    const char *name, *strategy;
    fst_setting setting[SETTINGS];
};

static const struct run runs[] = {
    {"fedmd", "fedmd", {{"digest_epochs", 2}}},
    {"fd", "fd", {{"gamma", 0.5}}},
    {"dsfl_era", "dsfl", {{"digest_epochs", 2}}},
    {"dsfl_enhanced_era", "dsfl", {{"digest_epochs", 2}, {"sharpen", 1}, {"sharpen_beta", 3}}},
    {"dsfl_none", "dsfl", {{"digest_epochs", 2}, {"sharpen", 2}}},
    {"cfd_1", "cfd", {{"digest_epochs", 2}}},
    {"cfd_3_5", "cfd", {{"digest_epochs", 2}, {"up_bits", 3}, {"down_bits", 5}}},
};
enum { RUNS = sizeof runs / sizeof *runs };

/* What the script wrote, and the two networks. */
struct world {
    fst_buf bytes;
    fst_safetensors *file;
    fst_source *source;
    fst_graph *network[2];
    uint32_t index[CLIENTS + 1][SAMPLES];
    size_t count[CLIENTS + 1];
    fst_public pub;
    fst_fed_view first[CLIENTS];
    fst_virtual *clients;
    fst_strategy *strategy;
    uint64_t up[ROUNDS], down[ROUNDS];
};
=======
#include "knowledge.h"

enum { CLASSES = 3, INPUTS = 4, CLIENTS = 3, TOTAL = 22, MODEL = CLASSES * INPUTS + CLASSES };
static const size_t begin[CLIENTS + 1] = {0, 5, 12, 16};
static float x[TOTAL][INPUTS], first[CLIENTS][MODEL];
static int32_t labels[TOTAL];
static uint32_t position[TOTAL];
static fst_source *source;
static fst_graph *graph;
static fst_public pub;
static fst_virtual *clients;
static fst_fed_view initial[CLIENTS];
>>>>>>> d6b5a7c (tests, task: FedMD and FD against float64 runs; the reference lists what strategies need and leak)

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

<<<<<<< HEAD
static const void *expected(const struct world *w, const char *name, size_t k)
{
    char full[80];
    size_t i = 0;
    if (k < CLIENTS)
        snprintf(full, sizeof full, "%s.%zu", name, k);
    else
        snprintf(full, sizeof full, "%s", name);
    if (!fst_safetensors_find(w->file, full, &i))
        fail_msg("knowledge.safetensors has no %s: run tests/fed/knowledge/knowledge.py", full);
    return fst_safetensors_data(w->file, i);
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
    char path[4096];
    fst_error err;
    const char *root = getenv("FEDSTILL_SOURCE");
    snprintf(path, sizeof path, "%s/tests/fed/knowledge/knowledge.safetensors", root ? root : "../..");
    ok(fst_file_read(path, 1 << 20, &w.bytes, &err), &err);
    ok(fst_safetensors_open_memory(&w.file, path, w.bytes.data, w.bytes.len, &err), &err);
    const int32_t *owner = expected(&w, "owner", CLIENTS);
    ok(fst_source_from_memory(&w.source, "knowledge", FST_F32, &FST_SHAPE(FEATURES), SAMPLES,
                              expected(&w, "x", CLIENTS), expected(&w, "y", CLIENTS), CLASSES, &err),
       &err);
    for (uint32_t i = 0; i < SAMPLES; i++)
        w.index[owner[i]][w.count[owner[i]]++] = i;
    assert_int_equal(w.count[CLIENTS], PUBLIC);
    ok(fst_public_init(&w.pub, w.source, w.index[CLIENTS], PUBLIC, &(fst_transform){0}, &err), &err);
    for (size_t k = 0; k < CLIENTS; k++) {
        if (k < 2)
            w.network[k] = network(k == 1);
        w.first[k] = (fst_fed_view){.params = expected(&w, "first", k), .size = fst_graph_fed_size(w.network[k % 2])};
    }
    *state = &w;
=======
static int set_up(void **state)
{
    fst_error err;
    (void)state;
    for (uint32_t i = 0; i < TOTAL; i++) {
        for (int j = 0; j < INPUTS; j++)
            x[i][j] = (float)sin(7.0 * i + 3.0 * j + 1);
        labels[i] = (int32_t)(i * i % 7 % CLASSES);
        position[i] = i;
    }
    for (int k = 0; k < CLIENTS; k++) {
        for (int i = 0; i < MODEL; i++)
            first[k][i] = (float)cos(5.0 * i + k);
        initial[k] = (fst_fed_view){.params = first[k], .size = {.params = MODEL}};
    }
    ok(fst_source_from_memory(&source, "sines", FST_F32, &FST_SHAPE(INPUTS), TOTAL, x, labels, CLASSES, &err), &err);
    ok(fst_graph_new(&graph, &err), &err);
    fst_value in = fst_graph_input(graph, &FST_SHAPE(INPUTS));
    ok(fst_graph_finish(graph, fst_graph_linear(graph, in, "fc", CLASSES, true), &err), &err);
    ok(fst_public_init(&pub, source, position + begin[CLIENTS], TOTAL - begin[CLIENTS], &(fst_transform){0}, &err),
       &err);
>>>>>>> d6b5a7c (tests, task: FedMD and FD against float64 runs; the reference lists what strategies need and leak)
    return 0;
}

static int tear_down(void **state)
{
<<<<<<< HEAD
    struct world *w = *state;
    fst_public_release(&w->pub);
    fst_source_close(w->source);
    fst_safetensors_free(w->file);
    fst_buf_release(&w->bytes);
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
                            .graph = w->network[client % 2],
                            .initial = &w->first[client],
                            .source = w->source,
                            .subset = w->index[client],
                            .count = w->count[client],
                            .pub = &w->pub,
                            .plan = {.epochs = 3,
                                     .batch_size = 32, /* all of them */
                                     .compute = {.backend = "reference"},
                                     .optim = {.learning_rate = 0.2, .momentum = 0.5}}};
    return FST_OK;
}

static size_t settings_of(const struct run *r)
{
    size_t n = 0;
    while (n < SETTINGS && r->setting[n].name)
        n++;
    return n;
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
    const fst_server_env env = {.seed = 1, .clients = CLIENTS, .classes = CLASSES, .pub = &w->pub};
    const fst_virtual_spec vs = {.ops = ops,
                                 .settings = r->setting,
                                 .nsettings = settings_of(r),
                                 .clients = CLIENTS,
                                 .workers = 1,
                                 .ctx = w,
                                 .env = client_env};
    ok(fst_strategy_new(&w->strategy, ops, r->setting, settings_of(r), &env, &err), &err);
    ok(fst_virtual_new(&w->clients, &vs, &err), &err);
}

static void close_strategy(struct world *w)
{
    fst_virtual_free(w->clients);
    fst_strategy_free(w->strategy);
}

static void play(struct world *w, const struct run *r)
{
    fst_error err;
    open_strategy(w, r);
    fst_simulate_spec spec = {.seed = 1,
                              .clients = CLIENTS,
                              .rounds = ROUNDS,
                              .workers = 1,
                              .strategy = w->strategy,
                              .ctx = w,
                              .work = work,
                              .settle = settle};
    ok(fst_simulate(&spec, &err), &err);
}

static double distance(const double *a, const float *b, const double *c, size_t n)
{
    double off = 0;
    for (size_t i = 0; i < n; i++)
        off += pow(a[i] - (b ? (double)b[i] : c[i]), 2);
    return sqrt(off);
}

static void test_against_numpy(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < RUNS; i++) {
        double most = 0;
        play(w, &runs[i]);
        for (uint32_t k = 0; k < CLIENTS; k++) {
            const double *want = expected(w, runs[i].name, k), zero[100] = {0};
            fst_fed_view v;
            fst_error err;
            size_t len;
            const void *kept = fst_virtual_kept(w->clients, k, &len);
            ok(fst_client_model(kept, len, w->first[k].size, &v, &err), &err);
            double off = distance(want, v.params, NULL, v.size.params);
            off /= distance(want, NULL, zero, v.size.params);
            most = off > most ? off : most;
        }
        print_message("%-20s off by %.1e of its length\n", runs[i].name, most);
        assert_true(most < TOLERANCE);
        close_strategy(w);
    }
}

/* The runs are told apart: otherwise a strategy that shares nothing, or another's, would pass. */
static void test_runs_differ(void **state)
{
    struct world *w = *state;
    for (size_t i = 0; i < RUNS; i++)
        for (uint32_t k = 0; k < CLIENTS; k++) {
            size_t n = w->first[k].size.params;
            const double *its = expected(w, runs[i].name, k);
            assert_true(distance(its, NULL, expected(w, "alone", k), n) > 100 * TOLERANCE);
            for (size_t j = 0; j < i; j++)
                assert_true(distance(its, NULL, expected(w, runs[j].name, k), n) > 100 * TOLERANCE);
        }
}

/* ---- what it costs ---- */

/* 16 samples of 4 classes: 256 bytes as floats; 2 bits each and one in front as votes. Beside them, the digest. */
static void test_bytes(void **state)
{
    struct world *w = *state;
    enum { DIGEST = 16, FLOATS = PUBLIC * CLASSES * 4, VOTES = (1 + 2 * PUBLIC + 7) / 8 };
    play(w, &runs[2]);
    assert_int_equal(w->up[3], CLIENTS * (DIGEST + FLOATS));
    assert_int_equal(w->down[3], CLIENTS * (DIGEST + FLOATS));
    close_strategy(w);
    play(w, &runs[5]);
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
        const struct run r = {"", c->strategy, {{0}}};
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
=======
    (void)state;
    fst_public_release(&pub);
    fst_graph_free(graph);
    fst_source_close(source);
    return 0;
}

static fst_status env(void *ctx, int worker, uint32_t client, fst_client_env *out, fst_error *err)
{
    (void)ctx, (void)worker, (void)err;
    *out = (fst_client_env){.seed = 1,
                            .stream = "step.test",
                            .client = client,
                            .classes = CLASSES,
                            .graph = graph,
                            .initial = &initial[client],
                            .source = source,
                            .subset = position + begin[client],
                            .count = begin[client + 1] - begin[client],
                            .pub = &pub,
                            .plan = {.compute = {.backend = "reference"},
                                     .epochs = 2,
                                     .batch_size = 32,
                                     .optim = {.kind = FST_OPTIM_SGD, .learning_rate = 0.25}}};
    return FST_OK;
}

static fst_status work(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    if (down->round == 1 && down->client == 2)
        return fst_fail(err, FST_E_IO, "no power");
    return fst_virtual_work(ctx, worker, down, up, err);
}

static void run(const char *name, const fst_setting *set, size_t n, const double expected[CLIENTS][MODEL])
{
    const fst_strategy_ops *ops = fst_strategy_find(name);
    fst_strategy *strategy = NULL;
    fst_error err = {0};
    const fst_server_env server = {.seed = 1, .clients = CLIENTS, .classes = CLASSES, .pub = &pub};
    const fst_virtual_spec vs = {
        .ops = ops, .settings = set, .nsettings = n, .clients = CLIENTS, .workers = 1, .env = env};
    ok(fst_strategy_new(&strategy, ops, set, n, &server, &err), &err);
    ok(fst_virtual_new(&clients, &vs, &err), &err);
    const fst_simulate_spec spec = {.clients = CLIENTS,
                                    .rounds = 3,
                                    .workers = 1,
                                    .strategy = strategy,
                                    .ctx = clients,
                                    .work = work,
                                    .settle = fst_virtual_settle};
    ok(fst_simulate(&spec, &err), &err);
    for (uint32_t k = 0; k < CLIENTS; k++) {
        fst_fed_view v;
        size_t len;
        const void *kept = fst_virtual_kept(clients, k, &len);
        ok(fst_client_model(kept, len, (fst_fed_size){.params = MODEL}, &v, &err), &err);
        for (int i = 0; i < MODEL; i++)
            if (!(fabs((double)v.params[i] - expected[k][i]) <= 1e-5 * (fabs(expected[k][i]) + 0.1)))
                fail_msg("%s: parameter %d of client %u is %.9g, not %.9g", name, i, (unsigned)k, (double)v.params[i],
                         expected[k][i]);
    }
    fst_virtual_free(clients);
    fst_strategy_free(strategy);
}

static void test_fedmd(void **state)
{
    (void)state;
    run("fedmd", NULL, 0, expected_fedmd);
}

static void test_fd(void **state)
{
    (void)state;
    run("fd", &(fst_setting){"gamma", 0.5}, 1, expected_fd);
}

/* Rows are in the order of the keys, so that any order of any source gives the same rows; equal samples count once. */
static void test_public_samples_are_joined_by_key(void **state)
{
    (void)state;
    static const uint32_t mixed[] = {3, 9, 1, 20, 7}, again[] = {7, 20, 3, 1, 9, 3, 20};
    fst_public a, b, c;
    fst_hash128 key, before = {0};
    uint32_t row[TOTAL], other[TOTAL];
    fst_error err;
    ok(fst_public_init(&a, source, mixed, 5, &(fst_transform){0}, &err), &err);
    ok(fst_public_init(&b, source, again, 7, &(fst_transform){0}, &err), &err);
    ok(fst_public_init(&c, source, mixed, 4, &(fst_transform){0}, &err), &err);
    assert_int_equal(b.count, 5);
    assert_memory_equal(a.index, b.index, 5 * sizeof *a.index);
    assert_memory_equal(&a.digest, &b.digest, sizeof a.digest);
    assert_memory_not_equal(&a.digest, &c.digest, sizeof a.digest);
    for (int i = 0; i < 5; i++) {
        ok(fst_source_key(source, a.index[i], &key, &err), &err);
        assert_true(key.hi > before.hi || (key.hi == before.hi && key.lo > before.lo));
        before = key;
    }
    assert_int_equal(fst_public_draw(&pub, 1, 0, 0, row), 6);
    assert_int_equal(fst_public_draw(&pub, 1, 0, 99, row), 6);
    bool differ = false;
    for (uint64_t round = 0; round < 20; round++) {
        assert_int_equal(fst_public_draw(&pub, 1, round, 3, row), 3);
        assert_true(row[0] < row[1] && row[1] < row[2] && row[2] < 6);
        assert_int_equal(fst_public_draw(&pub, 1, round, 3, other), 3);
        assert_memory_equal(row, other, 3 * sizeof *row);
        (void)fst_public_draw(&pub, 1, round + 1, 3, other);
        differ |= memcmp(row, other, 3 * sizeof *row) != 0;
    }
    assert_true(differ);
    fst_public_release(&a);
    fst_public_release(&b);
    fst_public_release(&c);
}

/* A client whose public samples are others than the server's is told so, and not trained on them. */
static void test_other_public_samples(void **state)
{
    (void)state;
    const fst_strategy_ops *ops = fst_strategy_find("fedmd");
    const fst_server_env server = {.seed = 1, .clients = CLIENTS, .classes = CLASSES, .pub = &pub};
    fst_strategy *strategy = NULL;
    fst_client *client = NULL;
    fst_client_env e;
    fst_message down, up;
    fst_buf keep = {0};
    fst_public fewer;
    fst_error err;
    ok(fst_public_init(&fewer, source, position + 17, 5, &(fst_transform){0}, &err), &err);
    ok(fst_strategy_new(&strategy, ops, NULL, 0, &server, &err), &err);
    ok(fst_client_new(&client, ops, NULL, 0, &err), &err);
    ok(env(NULL, 0, 0, &e, &err), &err);
    e.pub = &fewer;
    fst_strategy_begin(strategy, 0);
    ok(fst_strategy_down(strategy, 0, &down, &err), &err);
    assert_int_equal(fst_client_work(client, &e, NULL, 0, &down, &up, &keep, &err), FST_E_MISMATCH);
    assert_non_null(strstr(err.message, "other public samples"));
    assert_int_equal(keep.len, 0);
    e.pub = NULL;
    assert_int_equal(fst_client_work(client, &e, NULL, 0, &down, &up, &keep, &err), FST_E_CONFIG);
    fst_client_free(client);
    fst_strategy_free(strategy);
    fst_public_release(&fewer);
>>>>>>> d6b5a7c (tests, task: FedMD and FD against float64 runs; the reference lists what strategies need and leak)
}

int main(void)
{
<<<<<<< HEAD
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_numpy), cmocka_unit_test(test_runs_differ),
                                       cmocka_unit_test(test_bytes), cmocka_unit_test(test_refused)};
=======
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fedmd),
        cmocka_unit_test(test_fd),
        cmocka_unit_test(test_public_samples_are_joined_by_key),
        cmocka_unit_test(test_other_public_samples),
    };
>>>>>>> d6b5a7c (tests, task: FedMD and FD against float64 runs; the reference lists what strategies need and leak)
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* FedKD against the same small runs computed in float64 by fedkd/fedkd.py, which knows nothing of this code: mentee and
 * mentors agree within 1e-5 of their length, and what travels has as many floats. Then its low-rank factors against
 * numpy's singular value decomposition, what the server sends to whom, and what is refused. */
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
#include "packed_change.h"

enum { CLIENTS = 3, FEATURES = 6, MENTEE = 12, CLASSES = 4, ROUNDS = 4, SETTINGS = 4 };
static const int mentor_hidden[CLIENTS] = {9, 5, 9};
#define TOLERANCE 1e-5

struct run {
    const char *name;
    fst_setting setting[SETTINGS];
};
static const struct run runs[] = {
    {"answers", {{"hidden_weight", 0}, {"energy_start", 0.8}, {"energy_end", 0.9}, {"energy_rounds", 3}}},
    {"hidden", {{"hidden_weight", 0.7}, {"energy_start", 0.95}, {"energy_end", 0.98}, {"energy_rounds", 4}}},
    {"whole", {{"hidden_weight", 0.7}, {"energy_start", 1}, {"energy_end", 1}, {"energy_rounds", 1}}},
};
enum { RUNS = sizeof runs / sizeof *runs };

struct world {
    struct computed from;
    fst_graph *mentee, *mentor[CLIENTS];
    fst_fed_view first[CLIENTS];
    fst_virtual *clients;
    fst_strategy *strategy;
    fst_fed_state global;
    uint64_t up[ROUNDS][CLIENTS], down[ROUNDS][CLIENTS];
    uint32_t lost;   /* client that answers nothing in round 1 */
    uint32_t quorum; /* a round of fewer is skipped */
    uint32_t reported[ROUNDS];
};

static fst_graph *network(int hidden)
{
    fst_graph *g = NULL;
    fst_error err;
    ok(fst_graph_new(&g, &err), &err);
    fst_value x = fst_graph_input(g, &FST_SHAPE(FEATURES));
    x = fst_graph_relu(g, fst_graph_linear(g, x, "a", hidden, true));
    ok(fst_graph_finish(g, fst_graph_linear(g, x, "b", CLASSES, true), &err), &err);
    return g;
}

static int set_up(void **state)
{
    static struct world w;
    char name[32];
    open_computed(&w.from, "fedkd", FEATURES, CLASSES);
    w.mentee = network(MENTEE);
    for (int k = 0; k < CLIENTS; k++) {
        snprintf(name, sizeof name, "mentor.%d", k);
        w.mentor[k] = network(mentor_hidden[k]);
        w.first[k] = (fst_fed_view){.params = computed(&w.from, name), .size = fst_graph_fed_size(w.mentor[k])};
    }
    *state = &w;
    return 0;
}

static int tear_down(void **state)
{
    struct world *w = *state;
    close_computed(&w->from);
    fst_graph_free(w->mentee);
    for (int k = 0; k < CLIENTS; k++)
        fst_graph_free(w->mentor[k]);
    return 0;
}

/* ---- a federation ---- */

static fst_status client_env(void *ctx, int worker, uint32_t client, fst_client_env *out, fst_error *err)
{
    struct world *w = ctx;
    (void)worker, (void)err;
    *out = (fst_client_env){.seed = 1,
                            .stream = "fedkd",
                            .client = client,
                            .classes = CLASSES,
                            .graph = w->mentor[client],
                            .shared = w->mentee,
                            .initial = &w->first[client],
                            .source = w->from.source,
                            .subset = w->from.index[client],
                            .count = w->from.count[client],
                            .plan = {.epochs = 3,
                                     .batch_size = 32, /* all of them */
                                     .compute = {.backend = "reference"},
                                     .optim = {.learning_rate = 0.1, .momentum = 0.5}}};
    return FST_OK;
}

static void settle(void *ctx, const fst_round_report *r)
{
    struct world *w = ctx;
    fst_virtual_settle(w->clients, r);
    w->reported[r->round] = r->reported;
    for (uint32_t i = 0; i < r->selected; i++) {
        w->up[r->round][r->by_client[i].client] = r->by_client[i].bytes_up;
        w->down[r->round][r->by_client[i].client] = r->by_client[i].bytes_down;
    }
}

static fst_status work(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    struct world *w = ctx;
    if (down->client == w->lost && down->round == 1)
        return fst_fail(err, FST_E_IO, "no power");
    return fst_virtual_work(w->clients, worker, down, up, err);
}

static void play(struct world *w, const struct run *r, uint32_t lost)
{
    const fst_strategy_ops *ops = fst_strategy_find("fedkd");
    const fst_fed_view first = {.params = computed(&w->from, "mentee"), .size = fst_graph_fed_size(w->mentee)};
    fst_error err;
    w->lost = lost;
    ok(fst_fed_state_init(&w->global, first.size, &err), &err);
    fst_fed_state_copy(&w->global, &first);
    const fst_server_env env = {
        .seed = 1, .clients = CLIENTS, .classes = CLASSES, .global = &w->global, .graph = w->mentee};
    const fst_virtual_spec vs = {.ops = ops,
                                 .settings = r->setting,
                                 .nsettings = SETTINGS,
                                 .clients = CLIENTS,
                                 .workers = 1,
                                 .ctx = w,
                                 .env = client_env};
    ok(fst_strategy_new(&w->strategy, ops, r->setting, SETTINGS, &env, &err), &err);
    ok(fst_virtual_new(&w->clients, &vs, &err), &err);
    const fst_simulate_spec spec = {.seed = 1,
                                    .clients = CLIENTS,
                                    .rounds = ROUNDS,
                                    .quorum = w->quorum,
                                    .policy = FST_QUORUM_SKIP,
                                    .workers = 1,
                                    .strategy = w->strategy,
                                    .ctx = w,
                                    .work = work,
                                    .settle = settle};
    ok(fst_simulate(&spec, &err), &err);
}

static void stop(struct world *w)
{
    fst_virtual_free(w->clients);
    fst_strategy_free(w->strategy);
    fst_fed_state_release(&w->global);
}

static double off_by(const double *want, const float *got, size_t n)
{
    double off = 0, length = 0;
    for (size_t i = 0; i < n; i++) {
        off += pow(want[i] - (double)got[i], 2);
        length += want[i] * want[i];
    }
    return sqrt(off / length);
}

/* ---- whole runs ---- */

static void check_mentors(const struct world *w, const char *run)
{
    for (uint32_t k = 0; k < CLIENTS; k++) {
        char name[64];
        fst_fed_view v;
        fst_error err;
        size_t len;
        const void *kept = fst_virtual_kept(w->clients, k, &len);
        snprintf(name, sizeof name, "%s.mentor.%u", run, (unsigned)k);
        ok(fst_client_model(kept, len, w->first[k].size, &v, &err), &err);
        assert_true(off_by(computed(&w->from, name), v.params, v.size.params) < TOLERANCE);
    }
}

static void test_against_numpy(void **state)
{
    struct world *w = *state;
    const size_t ranks = 4 * sizeof(int32_t), whole = 4 * fst_graph_param_count(w->mentee);
    for (size_t i = 0; i < RUNS; i++) {
        char name[64];
        play(w, &runs[i], CLIENTS);
        snprintf(name, sizeof name, "%s.mentee", runs[i].name);
        double off = off_by(computed(&w->from, name), w->global.params, w->global.size.params);
        print_message("%-10s off by %.1e of its length\n", runs[i].name, off);
        assert_true(off < TOLERANCE);
        check_mentors(w, runs[i].name);
        snprintf(name, sizeof name, "%s.floats", runs[i].name);
        const double *floats = computed(&w->from, name);
        for (size_t r = 0; r < ROUNDS; r++)
            for (size_t k = 0; k < CLIENTS; k++) {
                size_t up = ranks + 4 * (size_t)floats[r * (CLIENTS + 1) + k];
                size_t down = r ? ranks + 4 * (size_t)floats[(r - 1) * (CLIENTS + 1) + CLIENTS] : whole;
                assert_int_equal(w->up[r][k], up);
                assert_int_equal(w->down[r][k], down);
            }
        stop(w);
    }
}

/* The runs are told apart. */
static void test_runs_differ(void **state)
{
    struct world *w = *state;
    size_t n = fst_graph_param_count(w->mentee);
    for (size_t i = 0; i < RUNS; i++)
        for (size_t j = 0; j < i; j++) {
            float other[200];
            char a[64], b[64];
            snprintf(a, sizeof a, "%s.mentee", runs[i].name);
            snprintf(b, sizeof b, "%s.mentee", runs[j].name);
            for (size_t e = 0; e < n; e++)
                other[e] = (float)((const double *)computed(&w->from, b))[e];
            assert_true(off_by(computed(&w->from, a), other, n) > 100 * TOLERANCE);
        }
}

/* Who was not in the last step gets the whole model, and what it computes is what it would have computed with the step:
 * the exact model, whatever it had. */
static void test_who_missed_a_step(void **state)
{
    struct world *w = *state;
    const size_t whole = 4 * fst_graph_param_count(w->mentee);
    play(w, &runs[1], 1);
    assert_int_equal(w->down[1][1], w->down[1][0]); /* it was in the step of round 0 */
    assert_int_equal(w->down[2][1], whole);
    assert_true(w->down[2][0] < whole);
    assert_true(w->down[3][1] < whole);
    stop(w);
}

/* The shared model as a client was sent it last, among what it keeps: behind two numbers. */
static void kept_x(const struct world *w, uint32_t client, float *x)
{
    fst_message m;
    fst_error err;
    size_t len, n = fst_graph_param_count(w->mentee);
    const void *kept = fst_virtual_kept(w->clients, client, &len);
    ok(fst_message_parse(&m, kept, len, &err), &err);
    const fst_message_tensor *t = fst_message_find(&m, "strategy");
    assert_non_null(t);
    memcpy(x, (const char *)t->data + 2 * sizeof(uint64_t), n * sizeof *x);
}

/* A round that is skipped changes nothing, at the clients neither: those that took part in it go on from the step
 * before it, and end with the model that the one that was lost is sent whole. */
static void test_skipped_round(void **state)
{
    struct world *w = *state;
    const size_t n = fst_graph_param_count(w->mentee);
    float first[200], other[200];
    w->quorum = CLIENTS;
    play(w, &runs[1], 1);
    w->quorum = 0;
    assert_int_equal(w->reported[1], CLIENTS - 1);
    assert_int_equal(w->reported[2], CLIENTS);
    assert_int_equal(w->reported[3], CLIENTS);
    assert_int_equal(w->down[2][0], w->down[1][0]); /* the same step again */
    kept_x(w, 0, first);
    for (uint32_t k = 1; k < CLIENTS; k++) {
        kept_x(w, k, other);
        assert_memory_equal(first, other, n * sizeof *first);
    }
    stop(w);
}

/* ---- low rank ---- */

/* A graph whose parameters are one matrix. */
static fst_graph *matrix_graph(size_t rows, size_t cols)
{
    fst_graph *g = NULL;
    fst_error err;
    ok(fst_graph_new(&g, &err), &err);
    fst_value x = fst_graph_input(g, &FST_SHAPE((int64_t)cols));
    ok(fst_graph_finish(g, fst_graph_linear(g, x, "a", (int64_t)rows, false), &err), &err);
    return g;
}

static size_t pack(size_t rows, size_t cols, const float *a, double energy, float *back)
{
    fst_graph *g = matrix_graph(rows, cols);
    struct fst__matrices m;
    int32_t rank[8] = {0};
    fst_error err;
    float *out = fst_calloc(rows * cols, sizeof *out);
    ok(fst__matrices_init(&m, g, &err), &err);
    assert_true(m.count <= 8);
    size_t n = fst__change_pack(&m, a, energy, rank, out);
    ok(fst__change_check(&m, rank, n, &err), &err);
    assert_int_equal(fst__change_check(&m, rank, n + 1, &err), FST_E_MISMATCH);
    fst__change_unpack(&m, rank, out, back);
    fst__matrices_release(&m);
    fst_free(out);
    fst_graph_free(g);
    return n;
}

static void test_low_rank_against_numpy(void **state)
{
    static const size_t side[][2] = {{7, 20}, {20, 7}, {5, 5}, {1, 9}};
    static const double energy[] = {0.5, 0.9, 0.95, 0.999};
    struct world *w = *state;
    for (int i = 0; i < 4; i++)
        for (int e = 0; e < 4; e++) {
            char name[64];
            float back[200];
            snprintf(name, sizeof name, "matrix.%d", i);
            const float *a = computed(&w->from, name);
            size_t n = pack(side[i][0], side[i][1], a, energy[e], back);
            snprintf(name, sizeof name, "size.%d.%d", i, e);
            assert_int_equal(n, (size_t) * (const double *)computed(&w->from, name));
            snprintf(name, sizeof name, "approximation.%d.%d", i, e);
            assert_true(off_by(computed(&w->from, name), back, side[i][0] * side[i][1]) < 1e-6);
        }
}

/* A large matrix is cut, and one of few directions is what it was. */
static void test_cut_in_pieces(void **state)
{
    enum { ROWS = 300, COLS = 260, RANK = 3 };
    static float a[ROWS * COLS], back[ROWS * COLS];
    static double want[ROWS * COLS];
    double u[RANK][ROWS], v[RANK][COLS];
    fst_rng r;
    (void)state;
    fst_rng_init(&r, 3, "test.lowrank", 0);
    for (int k = 0; k < RANK; k++) {
        for (int i = 0; i < ROWS; i++)
            u[k][i] = fst_rng_normal(&r);
        for (int j = 0; j < COLS; j++)
            v[k][j] = fst_rng_normal(&r);
    }
    for (int i = 0; i < ROWS * COLS; i++) {
        double sum = 0;
        for (int k = 0; k < RANK; k++)
            sum += u[k][i / COLS] * v[k][i % COLS];
        a[i] = (float)sum;
        want[i] = (double)a[i];
    }
    size_t n = pack(ROWS, COLS, a, 0.9999, back);
    assert_int_equal(n, RANK * (256 + COLS) + RANK * (ROWS - 256 + COLS));
    assert_true(off_by(want, back, ROWS * COLS) < 1e-6);
}

static void test_nothing_changed(void **state)
{
    static const float zero[35];
    float back[35] = {1};
    (void)state;
    assert_int_equal(pack(5, 7, zero, 0.9, back), 0);
    assert_memory_equal(back, zero, sizeof zero);
}

/* ---- refusals ---- */

static void test_refused(void **state)
{
    struct world *w = *state;
    fst_error err;
    play(w, &runs[1], CLIENTS);
    static float factors[200];
    const int32_t shapes[][4] = {{13, 0, -1, -1}, {-2, -1, -1, -1}, {6, -1, -1, -1}, {-1, 1, -1, -1}};
    fst_strategy_begin(w->strategy, ROUNDS);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        fst_message m = fst_message_of("factors");
        m.round = ROUNDS;
        m.samples = 3;
        ok(fst_message_add(&m, "rank", FST_I32, FST_SHAPE(4), shapes[i], &err), &err);
        ok(fst_message_add(&m, "factors", FST_F32, FST_SHAPE(136), factors, &err), &err);
        ok(fst_message_add(&m, "buffers", FST_F32, FST_SHAPE(0), factors, &err), &err);
        ok(fst_message_add(&m, "counters", FST_I64, FST_SHAPE(0), factors, &err), &err);
        assert_int_equal(fst_strategy_fold(w->strategy, &m, &err), FST_E_MISMATCH);
    }
    assert_int_equal(w->strategy->updates, 0);
    stop(w);
}

/* A network without features is told so before it trains. */
static void test_no_features(void **state)
{
    const fst_strategy_ops *ops = fst_strategy_find("fedkd");
    const fst_local_plan plan = {.epochs = 1, .batch_size = 4};
    const fst_setting off = {"hidden_weight", 0};
    fst_graph *g = matrix_graph(CLASSES, FEATURES);
    fst_error err;
    (void)state;
    assert_int_equal(fst_strategy_check_plan(ops, NULL, 0, g, &plan, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "set hidden_weight to 0"));
    ok(fst_strategy_check_plan(ops, &off, 1, g, &plan, &err), &err);
    fst_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_against_numpy),     cmocka_unit_test(test_runs_differ),
        cmocka_unit_test(test_who_missed_a_step), cmocka_unit_test(test_low_rank_against_numpy),
        cmocka_unit_test(test_skipped_round),     cmocka_unit_test(test_cut_in_pieces),
        cmocka_unit_test(test_nothing_changed),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_no_features),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

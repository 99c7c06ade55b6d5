/* What every strategy must do, run over the whole registry; then what is particular to one. A new
 * built-in strategy is covered by being registered. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/fed.h"

enum { CLIENTS = 7 };
static const fst_fed_size SIZE = {2500, 37, 3};
static const int64_t SAMPLES[CLIENTS] = {600, 150, 37, 1, 9999, 42, 7};

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

/* Those of one model that all send and get; they stand first. */
static size_t strategies(void)
{
    size_t n = 0;
    while (fst_strategy_at(n) && (fst_strategy_at(n)->flags & FST_SAME_MODEL))
        n++;
    return n;
}

static fst_status make_by(fst_strategy **out, const char *name, const fst_setting *settings, size_t n,
                          fst_fed_state *global, fst_error *err)
{
    const fst_server_env env = {.clients = 64, .global = global};
    const fst_strategy_ops *ops = NULL;
    fst_status st = fst_strategy_of(&ops, name, err);
    return st ? st : fst_strategy_new(out, ops, settings, n, &env, err);
}

static fst_strategy *make(size_t i, fst_fed_state *global)
{
    fst_strategy *s = NULL;
    fst_error err;
    ok(make_by(&s, fst_strategy_at(i)->name, NULL, 0, global, &err), &err);
    return s;
}

static fst_fed_state random_state(uint64_t index)
{
    fst_fed_state s;
    fst_error err;
    fst_rng r;
    ok(fst_fed_state_init(&s, SIZE, &err), &err);
    fst_rng_init(&r, 11, "test.state", index);
    for (size_t i = 0; i < SIZE.params; i++)
        s.params[i] = (float)fst_rng_normal(&r);
    for (size_t i = 0; i < SIZE.buffers; i++)
        s.buffers[i] = (float)fst_rng_uniform(&r);
    for (size_t i = 0; i < SIZE.counters; i++)
        s.counters[i] = (int64_t)fst_rng_below(&r, 1000) - 500;
    return s;
}

/* What some strategies' clients send besides their state. */
static void add_the_rest(const fst_strategy *s, fst_message *m)
{
    static const float reach[2] = {3, 5};
    static float control[2500];
    fst_error err;
    for (size_t i = 0; i < SIZE.params; i++)
        control[i] = (float)(i % 7) / 8;
    if (!strcmp(s->ops->name, "scaffold"))
        ok(fst_message_add(m, "control", FST_F32, FST_SHAPE((int64_t)s->env.global->size.params), control, &err), &err);
    if (!strcmp(s->ops->name, "fednova"))
        ok(fst_message_add(m, "reach", FST_F32, FST_SHAPE(1), &reach[m->client % 2], &err), &err);
}

static fst_message update_of(const fst_strategy *strategy, const fst_fed_state *s, uint32_t client, uint64_t round)
{
    fst_message m = fst_message_of("state"), down;
    fst_fed_view v = fst_fed_state_view(s);
    fst_error err;
    ok(fst_strategy_down(strategy, client, &down, &err), &err);
    m.base = down.base;
    m.client = client;
    m.round = round;
    m.samples = SAMPLES[client];
    ok(fst_message_add_state(&m, &v, &err), &err);
    add_the_rest(strategy, &m);
    return m;
}

static void assert_same_state(const fst_fed_state *a, const fst_fed_state *b)
{
    assert_memory_equal(a->params, b->params, 4 * SIZE.params);
    assert_memory_equal(a->buffers, b->buffers, 4 * SIZE.buffers);
    assert_memory_equal(a->counters, b->counters, 8 * SIZE.counters);
}

/* Runs one round over the clients in `order`. */
static fst_aggregate_stats one_round(fst_strategy *s, uint64_t round, const fst_fed_state *client,
                                     const uint32_t *order, size_t n, fst_fed_state *global)
{
    fst_aggregate_stats stats;
    fst_error err;
    assert_ptr_equal(s->env.global, global);
    fst_strategy_begin(s, round);
    for (size_t k = 0; k < n; k++) {
        fst_message u = update_of(s, &client[order[k]], order[k], round);
        ok(fst_strategy_fold(s, &u, &err), &err);
    }
    ok(fst_strategy_aggregate(s, NULL, &stats, &err), &err);
    return stats;
}

struct setting {
    fst_fed_state client[CLIENTS], start;
};

static int set_up(void **state)
{
    static struct setting t;
    for (uint32_t c = 0; c < CLIENTS; c++)
        t.client[c] = random_state(c);
    t.start = random_state(1000);
    *state = &t;
    return 0;
}

static int tear_down(void **state)
{
    struct setting *t = *state;
    for (uint32_t c = 0; c < CLIENTS; c++)
        fst_fed_state_release(&t->client[c]);
    fst_fed_state_release(&t->start);
    return 0;
}

/* ---- conformance ---- */

static double distance(const float *a, const float *b, size_t n)
{
    double square = 0;
    for (size_t i = 0; i < n; i++)
        square += pow((double)a[i] - (double)b[i], 2);
    return sqrt(square);
}

/* When all clients agree on a model, an average is that model. A server that optimises takes a step towards it with
 * every parameter, and still averages what is not trained. */
static void same_model_comes_back(size_t which, struct setting *t)
{
    fst_fed_state same[CLIENTS], global = random_state(1000);
    fst_strategy *s = make(which, &global);
    for (int c = 0; c < CLIENTS; c++)
        same[c] = t->client[3];
    fst_aggregate_stats stats = one_round(s, 0, same, (uint32_t[]){0, 1, 2, 3, 4, 5, 6}, CLIENTS, &global);
    if (fst_strategy_at(which)->flags & FST_AVERAGES) {
        assert_same_state(&global, &t->client[3]);
    } else {
        assert_memory_equal(global.buffers, t->client[3].buffers, 4 * SIZE.buffers);
        assert_memory_equal(global.counters, t->client[3].counters, 8 * SIZE.counters);
        for (size_t i = 0; i < SIZE.params; i++) {
            float wanted = t->client[3].params[i] - t->start.params[i], went = global.params[i] - t->start.params[i];
            assert_true(wanted > 0 ? went > 0 : went < 0);
        }
    }
    assert_int_equal(stats.updates, CLIENTS);
    assert_int_equal(stats.samples, 600 + 150 + 37 + 1 + 9999 + 42 + 7);
    double length = distance(global.params, t->start.params, SIZE.params);
    assert_true(fabs(stats.update_norm - length) < 1e-12 * length);
    fst_fed_state_release(&global);
    fst_strategy_free(s);
}

/* Clients that return what they got move nothing, in whichever round it is, as long as nothing moved before. */
static void unchanged_stays_unchanged(size_t which, struct setting *t)
{
    fst_fed_state same[CLIENTS], global = random_state(1000);
    fst_strategy *s = make(which, &global);
    for (int c = 0; c < CLIENTS; c++)
        same[c] = t->start;
    for (uint64_t round = 0; round < 3; round++) {
        fst_aggregate_stats stats = one_round(s, round, same, (uint32_t[]){3, 1, 2}, 3, &global);
        assert_same_state(&global, &t->start);
        assert_true(stats.update_norm == 0);
    }
    fst_fed_state_release(&global);
    fst_strategy_free(s);
}

/* Three rounds, as server state must not depend on the order either; fewer clients in later rounds. */
static void order_does_not_matter(size_t which, struct setting *t)
{
    fst_fed_state first = random_state(1000);
    fst_rng r;
    fst_rng_init(&r, 1, "test.order", which);
    for (int trial = 0; trial < 10; trial++) {
        fst_fed_state global = random_state(1000);
        fst_strategy *s = make(which, &global);
        for (uint64_t round = 0; round < 3; round++) {
            uint32_t order[CLIENTS] = {0, 1, 2, 3, 4, 5, 6};
            size_t n = CLIENTS - round;
            if (trial)
                fst_rng_shuffle_u32(&r, order, n);
            (void)one_round(s, round, t->client, order, n, &global);
        }
        if (trial)
            assert_same_state(&first, &global);
        else
            fst_fed_state_copy(&first, &(fst_fed_view){global.params, global.buffers, global.counters, SIZE});
        fst_fed_state_release(&global);
        fst_strategy_free(s);
    }
    fst_fed_state_release(&first);
}

static void refused_leaves_no_trace(size_t which, struct setting *t)
{
    const uint32_t order[] = {0, 2, 5};
    fst_error err;
    fst_fed_state want = random_state(1000), got = random_state(1000), bad = random_state(4);
    fst_strategy *clean = make(which, &want), *tried = make(which, &got);
    (void)one_round(clean, 4, t->client, order, 3, &want);
    fst_strategy_begin(tried, 4);
    for (int k = 0; k < 3; k++) {
        float *spoilt[] = {&bad.params[SIZE.params - 1], &bad.buffers[SIZE.buffers - 1], &bad.params[0]};
        const float with[] = {NAN, INFINITY, -3e9f};
        float keep = *spoilt[k];
        *spoilt[k] = with[k];
        fst_message u = update_of(tried, &bad, 4, 4);
        assert_int_equal(fst_strategy_fold(tried, &u, &err), FST_E_NUMERIC);
        assert_non_null(strstr(err.message, "the update: "));
        *spoilt[k] = keep;
        u = update_of(tried, &t->client[order[k]], order[k], 4);
        ok(fst_strategy_fold(tried, &u, &err), &err);
    }
    fst_message u = update_of(tried, &bad, 4, 3);
    assert_int_equal(fst_strategy_fold(tried, &u, &err), FST_E_MISMATCH); /* of another round */
    u = update_of(tried, &bad, 4, 4);
    u.samples = 0;
    assert_int_equal(fst_strategy_fold(tried, &u, &err), FST_E_ARGUMENT);
    u = update_of(tried, &bad, 4, 4);
    u.tensor[0].shape.dim[0]--;
    assert_int_equal(fst_strategy_fold(tried, &u, &err), FST_E_MISMATCH);
    ok(fst_strategy_aggregate(tried, NULL, NULL, &err), &err);
    assert_same_state(&want, &got);
    assert_int_equal(fst_strategy_fold(tried, &u, &err), FST_E_ARGUMENT); /* no round is open */
    fst_fed_state_release(&want);
    fst_fed_state_release(&got);
    fst_fed_state_release(&bad);
    fst_strategy_free(clean);
    fst_strategy_free(tried);
}

static void nothing_folded_nothing_published(size_t which, struct setting *t)
{
    fst_error err;
    fst_fed_state global = random_state(1000);
    fst_strategy *s = make(which, &global);
    assert_int_equal(fst_strategy_aggregate(s, NULL, NULL, &err), FST_E_ARGUMENT);
    fst_strategy_begin(s, 0);
    assert_int_equal(fst_strategy_aggregate(s, NULL, NULL, &err), FST_E_ARGUMENT);
    fst_message u = update_of(s, &t->client[0], 0, 0);
    ok(fst_strategy_fold(s, &u, &err), &err);
    fst_strategy_begin(s, 1); /* forgets it */
    assert_int_equal(fst_strategy_aggregate(s, NULL, NULL, &err), FST_E_ARGUMENT);
    assert_same_state(&global, &t->start);
    fst_fed_state_release(&global);
    fst_strategy_free(s);
}

/* Saved after a round and loaded into a fresh instance, the next rounds go the same way. */
static void saving_continues(size_t which, struct setting *t)
{
    const uint32_t order[] = {6, 1, 4};
    fst_error err;
    fst_buf saved = {0};
    fst_fed_state a = random_state(1000), b = random_state(1000);
    fst_strategy *s = make(which, &a), *again = make(which, &b);
    (void)one_round(s, 0, t->client, order, 2, &a);
    ok(fst_strategy_save(s, &saved, &err), &err);
    for (size_t n = 0; n < saved.len; n++)
        assert_int_equal(fst_strategy_load(again, saved.data, n, &err), FST_E_FORMAT);
    saved.data[saved.len / 2] ^= 1;
    assert_int_not_equal(fst_strategy_load(again, saved.data, saved.len, &err), FST_OK);
    saved.data[saved.len / 2] ^= 1;
    ok(fst_strategy_load(again, saved.data, saved.len, &err), &err);
    fst_fed_state_copy(&b, &(fst_fed_view){a.params, a.buffers, a.counters, SIZE});
    for (uint64_t round = 1; round < 3; round++) {
        (void)one_round(s, round, t->client, order, 3, &a);
        (void)one_round(again, round, t->client, order, 3, &b);
    }
    assert_same_state(&a, &b);
    for (size_t i = 0; i < strategies(); i++) {
        fst_strategy *other = make(i, &a);
        if (i != which)
            assert_int_equal(fst_strategy_load(other, saved.data, saved.len, &err), FST_E_MISMATCH);
        fst_strategy_free(other);
    }
    fst_buf_release(&saved);
    fst_fed_state_release(&a);
    fst_fed_state_release(&b);
    fst_strategy_free(s);
    fst_strategy_free(again);
}

static void steady_state_takes_no_memory(size_t which, struct setting *t)
{
    fst_strategy *s = NULL;
    fst_fed_state global = random_state(1000);
    fst_error err;
    fst_status st = FST_E_MEMORY;
    for (uint64_t n = 1; st == FST_E_MEMORY && n < 100; n++) {
        fst_alloc_fail_at(n);
        st = make_by(&s, fst_strategy_at(which)->name, NULL, 0, &global, &err);
        fst_alloc_fail_at(0);
        assert_true((st == FST_OK) == (s != NULL));
    }
    assert_int_equal(st, FST_OK);
    uint64_t before = fst_alloc_count();
    for (uint64_t round = 0; round < 5; round++)
        (void)one_round(s, round, t->client, (uint32_t[]){0, 1, 2}, 3, &global);
    if (!(fst_strategy_at(which)->flags & FST_ALL_UPDATES)) /* those hold updates, and rules take room to sort them */
        assert_true(fst_alloc_count() == before);
    fst_fed_state_release(&global);
    fst_strategy_free(s);
}

static void for_all(struct setting *t, void (*check)(size_t, struct setting *))
{
    for (size_t i = 0; i < strategies(); i++)
        check(i, t);
    assert_true(strategies() >= 6);
}

static void test_same_model(void **state)
{
    for_all(*state, same_model_comes_back);
}

static void test_unchanged(void **state)
{
    for_all(*state, unchanged_stays_unchanged);
}

static void test_order(void **state)
{
    for_all(*state, order_does_not_matter);
}

static void test_refusal(void **state)
{
    for_all(*state, refused_leaves_no_trace);
}

static void test_nothing(void **state)
{
    for_all(*state, nothing_folded_nothing_published);
}

static void test_saving(void **state)
{
    for_all(*state, saving_continues);
}

static void test_memory(void **state)
{
    for_all(*state, steady_state_takes_no_memory);
}

/* ---- the averaging ones ---- */

/* Against a long double mean over those that reported, with their samples as weights. */
static void test_weighted_mean_of_those_that_reported(void **state)
{
    struct setting *t = *state;
    const char *names[] = {"fedavg", "fedprox"};
    const uint32_t who[] = {4, 1, 6};
    for (int k = 0; k < 2; k++) {
        fst_strategy *s = NULL;
        fst_error err;
        fst_fed_state global = random_state(1000);
        ok(make_by(&s, names[k], NULL, 0, &global, &err), &err);
        (void)one_round(s, 0, t->client, who, 3, &global);
        for (size_t i = 0; i < SIZE.params + SIZE.buffers; i++) {
            bool p = i < SIZE.params;
            size_t j = p ? i : i - SIZE.params;
            long double sum = 0;
            for (int c = 0; c < 3; c++)
                sum += (long double)SAMPLES[who[c]] * (p ? t->client[who[c]].params : t->client[who[c]].buffers)[j];
            assert_true((p ? global.params : global.buffers)[j] == (float)(sum / (9999 + 150 + 7)));
        }
        for (size_t i = 0; i < SIZE.counters; i++) {
            int64_t a = t->client[4].counters[i], b = t->client[1].counters[i], c = t->client[6].counters[i];
            int64_t most = a > b ? a : b;
            assert_int_equal(global.counters[i], most > c ? most : c);
        }
        fst_fed_state_release(&global);
        fst_strategy_free(s);
    }
}

static void test_counters_below_zero(void **state)
{
    struct setting *t = *state;
    fst_fed_state client[1] = {random_state(0)}, global = random_state(1000);
    fst_strategy *s = make(0, &global);
    (void)t;
    for (size_t i = 0; i < SIZE.counters; i++)
        client[0].counters[i] = INT64_MIN + (int64_t)i;
    (void)one_round(s, 0, client, (uint32_t[]){0}, 1, &global);
    assert_same_state(&global, &client[0]);
    fst_fed_state_release(&client[0]);
    fst_fed_state_release(&global);
    fst_strategy_free(s);
}

static void test_options_and_names(void **state)
{
    (void)state;
    fst_strategy *s = NULL;
    fst_error err;
    fst_fed_state global = random_state(1000);
    assert_int_equal(make_by(&s, "fedavgg", NULL, 0, &global, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "unknown strategy \"fedavgg\"; known are fedavg, fedprox, fedavgm, "));
    const double wrong[] = {-0.1, NAN, INFINITY};
    for (int i = 0; i < 3; i++) {
        const fst_setting o = {"prox_mu", wrong[i]};
        assert_int_equal(make_by(&s, "fedprox", &o, 1, &global, &err), FST_E_CONFIG);
    }
    const fst_setting mu = {"prox_mu", 0.25};
    double value[FST_STRATEGY_OPTIONS];
    ok(fst_strategy_options(fst_strategy_find("fedprox"), &mu, 1, value, &err), &err);
    assert_true(value[0] == 0.25);
    ok(fst_strategy_options(fst_strategy_find("fedprox"), NULL, 0, value, &err), &err);
    assert_true(value[0] == 0.01);
    assert_int_equal(make_by(&s, "fedavg", &mu, 1, &global, &err), FST_E_CONFIG);
    assert_string_equal(err.message, "strategy fedavg has no option \"prox_mu\"");
    assert_null(s);
    ok(make_by(&s, "fedprox", &mu, 1, &global, &err), &err);
    fst_message down;
    fst_strategy_begin(s, 3);
    ok(fst_strategy_down(s, 5, &down, &err), &err);
    assert_string_equal(down.kind, "state");
    assert_true(down.client == 5 && down.round == 3);
    assert_true(fst_message_bytes(&down) == 4 * 2537 + 8 * 3);
    assert_ptr_equal(fst_message_find(&down, "params")->data, global.params);
    fst_strategy_free(s);
    fst_fed_state_release(&global);
    assert_int_equal(make_by(&s, "fedavg", NULL, 0, NULL, &err), FST_E_ARGUMENT); /* no model to share */
    fst_strategy_free(NULL);
    assert_ptr_equal(fst_strategy_find("fedprox"), fst_strategy_at(1));
    assert_null(fst_strategy_find("FedAvg"));
}

/* ---- the optimising ones ---- */

static const char *const optimising[] = {"fedavgm", "fedadagrad", "fedadam", "fedyogi"};
enum { OPTIMISING = 4 };

/* Two rounds of one client against the papers' formulas, written out a second time in long double. */
static void test_server_steps(void **state)
{
    struct setting *t = *state;
    const fst_setting o[OPTIMISING][4] = {
        {{"server.learning_rate", 0.25}, {"server.momentum", 0.5}},
        {{"server.learning_rate", 0.25}, {"server.tau", 0.125}},
        {{"server.learning_rate", 0.25}, {"server.tau", 0.125}, {"server.beta1", 0.75}, {"server.beta2", 0.875}},
        {{"server.learning_rate", 0.25}, {"server.tau", 0.125}, {"server.beta1", 0.75}, {"server.beta2", 0.875}}};
    const size_t SETTINGS[OPTIMISING] = {2, 2, 4, 4};
    for (int k = 0; k < OPTIMISING; k++) {
        fst_strategy *s = NULL;
        fst_error err;
        fst_fed_state global = random_state(1000);
        ok(make_by(&s, optimising[k], o[k], SETTINGS[k], &global, &err), &err);
        for (uint64_t round = 0; round < 2; round++)
            (void)one_round(s, round, t->client, (uint32_t[]){(uint32_t)round}, 1, &global);
        for (size_t i = 0; i < SIZE.params; i++) {
            long double x = t->start.params[i], m = 0, v = 0.125L * 0.125L;
            for (int round = 0; round < 2; round++) {
                long double d = t->client[round].params[i] - x, b1 = k == 1 ? 0 : 0.75L, q = d * d;
                if (k == 0) {
                    m = 0.5L * m + d;
                    x += 0.25L * m;
                    continue;
                }
                m = b1 * m + (1 - b1) * d;
                v = k == 1 ? v + q : k == 2 ? 0.875L * v + 0.125L * q : v - 0.125L * q * ((v > q) - (v < q));
                x += 0.25L * m / (sqrtl(v) + 0.125L);
            }
            assert_true(fabsl(global.params[i] - x) < 2e-6L * (1 + fabsl(x)));
        }
        assert_memory_equal(global.buffers, t->client[1].buffers, 4 * SIZE.buffers);
        fst_fed_state_release(&global);
        fst_strategy_free(s);
    }
}

/* Momentum goes on when the clients do not; what is saved is what is needed for that. */
static void test_momentum_lasts(void **state)
{
    struct setting *t = *state;
    fst_error err;
    for (int k = 0; k < OPTIMISING; k++) {
        if (k == 1) /* Adagrad has no momentum */
            continue;
        fst_strategy *s = NULL, *fresh = NULL;
        fst_fed_state global = random_state(1000), stays = random_state(1000), echo = random_state(1000);
        ok(make_by(&s, optimising[k], NULL, 0, &global, &err), &err);
        ok(make_by(&fresh, optimising[k], NULL, 0, &stays, &err), &err);
        (void)one_round(s, 0, t->client, (uint32_t[]){0}, 1, &global);
        fst_fed_view now = fst_fed_state_view(&global);
        fst_fed_state_copy(&echo, &now);
        fst_fed_state_copy(&stays, &now);
        assert_true(one_round(s, 1, &echo, (uint32_t[]){0}, 1, &global).update_norm > 1e-3);
        assert_true(one_round(fresh, 1, &echo, (uint32_t[]){0}, 1, &stays).update_norm == 0);
        fst_fed_state_release(&global);
        fst_fed_state_release(&stays);
        fst_fed_state_release(&echo);
        fst_strategy_free(s);
        fst_strategy_free(fresh);
    }
}

static void test_wrong_server_options(void **state)
{
    (void)state;
    const struct {
        int first, last;
        fst_setting o;
        const char *says;
    } wrong[] = {{0, 3, {"server.learning_rate", -1}, "learning_rate"},
                 {0, 3, {"server.learning_rate", NAN}, "learning_rate"},
                 {0, 3, {"server.learning_rate", INFINITY}, "learning_rate"},
                 {0, 0, {"server.momentum", 1}, "momentum"},
                 {0, 0, {"server.momentum", -0.5}, "momentum"},
                 {2, 3, {"server.beta1", 1}, "beta1"},
                 {2, 3, {"server.beta2", 1.5}, "beta2"},
                 {1, 3, {"server.tau", -1e-3}, "tau"},
                 {1, 3, {"server.tau", 0}, "tau"},
                 {1, 3, {"server.tau", NAN}, "tau"}};
    fst_fed_state global = random_state(1000);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        for (int k = wrong[i].first; k <= wrong[i].last; k++) {
            fst_strategy *s = NULL;
            fst_error err;
            assert_int_equal(make_by(&s, optimising[k], &wrong[i].o, 1, &global, &err), FST_E_CONFIG);
            assert_non_null(strstr(err.message, wrong[i].says));
            assert_non_null(strstr(err.message, optimising[k]));
            assert_null(s);
        }
    fst_fed_state_release(&global);
}

/* Sound in its envelope, but no moments: NaN, or a second moment below 0. */
static void test_wrong_moments(void **state)
{
    (void)state;
    float x = 0;
    fst_fed_state one = {.params = &x, .size = {1, 0, 0}};
    fst_strategy *s = NULL;
    fst_error err;
    ok(make_by(&s, "fedadam", NULL, 0, &one, &err), &err);
    const float bodies[][2] = {{NAN, 1}, {0, -1}, {0, INFINITY}, {0.5f, 0.25f}};
    for (int i = 0; i < 4; i++)
        assert_int_equal(s->ops->server->load(s, bodies[i], sizeof bodies[i], &err), i < 3 ? FST_E_FORMAT : FST_OK);
    assert_int_equal(s->ops->server->load(s, bodies[3], 4, &err), FST_E_FORMAT);
    fst_buf saved = {0};
    ok(s->ops->server->save(s, &saved, &err), &err);
    assert_int_equal(saved.len, sizeof bodies[3]);
    assert_memory_equal(saved.data, bodies[3], sizeof bodies[3]);
    fst_buf_release(&saved);
    fst_strategy_free(s);
}

/* A model may have no buffers, no counters, even no parameters. */
static void test_empty_spans(void **state)
{
    (void)state;
    const fst_fed_size sizes[] = {{5, 0, 0}, {0, 5, 0}, {0, 0, 5}, {0, 0, 0}};
    for (size_t k = 0; k < 4 * strategies(); k++) {
        fst_strategy *s = NULL;
        fst_error err;
        fst_fed_state global, client;
        fst_buf saved = {0};
        ok(fst_fed_state_init(&global, sizes[k % 4], &err), &err);
        ok(make_by(&s, fst_strategy_at(k / 4)->name, NULL, 0, &global, &err), &err);
        ok(fst_fed_state_init(&client, sizes[k % 4], &err), &err);
        fst_strategy_begin(s, 0);
        fst_message u = update_of(s, &client, 0, 0);
        ok(fst_strategy_fold(s, &u, &err), &err);
        ok(fst_strategy_aggregate(s, NULL, NULL, &err), &err);
        ok(fst_strategy_save(s, &saved, &err), &err);
        ok(fst_strategy_load(s, saved.data, saved.len, &err), &err);
        fst_buf_release(&saved);
        fst_fed_state_release(&global);
        fst_fed_state_release(&client);
        fst_strategy_free(s);
    }
}

/* A strategy from outside that keeps a number and returns less than it is sent. */
struct keeper {
    fst_strategy base;
    uint64_t rounds;
};

static const fst_option keeper_options[] = {{"luck", FST_OPTION_WHOLE, .max = 100, .help = "how much"}, {0}};

static fst_status keeper_init(fst_strategy *s, fst_error *err)
{
    return s->option[0] == 100 ? fst_fail(err, FST_E_CONFIG, "no") : FST_OK;
}

static fst_status keeper_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    (void)client;
    return fst_message_add(m, "number", FST_U64, FST_SHAPE(1), &((const struct keeper *)s)->rounds, err);
}

static void keeper_begin(fst_strategy *s, uint64_t round)
{
    (void)round;
    ((struct keeper *)s)->rounds++;
}

static fst_status keeper_fold(fst_strategy *s, const fst_message *u, fst_error *err)
{
    const void *p;
    fst_status st = fst_message_get(u, "params", FST_F32, FST_SHAPE((int64_t)SIZE.params), &p, err);
    (void)s;
    if (st)
        return st;
    return u->samples == 13 ? fst_fail(err, FST_E_NUMERIC, "bad luck") : FST_OK;
}

static fst_status keeper_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    (void)err, (void)work;
    s->env.global->counters[0] = (int64_t)((struct keeper *)s)->rounds;
    stats->update_norm = 2;
    return FST_OK;
}

static fst_status keeper_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    return fst_buf_append(out, &((const struct keeper *)s)->rounds, 8, err);
}

static fst_status keeper_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    if (len != 8)
        return fst_fail(err, FST_E_FORMAT, "8 bytes are needed, not %zu", len);
    memcpy(&((struct keeper *)s)->rounds, data, 8);
    return FST_OK;
}

static void test_strategy_from_outside(void **state)
{
    struct setting *t = *state;
    static const fst_server_ops server = {.bytes = sizeof(struct keeper),
                                          .init = keeper_init,
                                          .begin = keeper_begin,
                                          .down = keeper_down,
                                          .fold = keeper_fold,
                                          .aggregate = keeper_aggregate,
                                          .save = keeper_save,
                                          .load = keeper_load};
    static const fst_strategy_ops ops = {.name = "keeper",
                                         .summary = "keeps a number",
                                         .leaks = "Nothing.",
                                         .options = keeper_options,
                                         .server = &server};
    fst_strategy *s = NULL, *again = NULL;
    fst_fed_state global = random_state(1000);
    const fst_server_env env = {.clients = 8, .global = &global};
    fst_buf saved = {0};
    fst_error err;
    assert_int_equal(fst_strategy_new(&s, &ops, &(fst_setting){"luck", 100}, 1, &env, &err), FST_E_CONFIG);
    assert_null(s);
    ok(fst_strategy_new(&s, &ops, NULL, 0, &env, &err), &err);
    ok(fst_strategy_new(&again, &ops, NULL, 0, &env, &err), &err);
    fst_strategy_begin(s, 0);
    fst_strategy_begin(s, 1);
    fst_message u = update_of(s, &t->client[0], 0, 1);
    u.tensor[0].dtype = FST_F16;
    assert_int_equal(fst_strategy_fold(s, &u, &err), FST_E_MISMATCH);
    u.tensor[0].dtype = FST_F32;
    u.samples = 13;
    assert_int_equal(fst_strategy_fold(s, &u, &err), FST_E_NUMERIC);
    assert_string_equal(err.message, "the update: bad luck");
    u.samples = 14;
    ok(fst_strategy_fold(s, &u, &err), &err);
    assert_int_equal(fst_strategy_save(s, &saved, &err), FST_E_ARGUMENT); /* its fold would be lost */
    fst_strategy_abandon(s);
    ok(fst_strategy_save(s, &saved, &err), &err);
    for (size_t i = 0; i < saved.len; i++) {
        saved.data[i] ^= 4;
        fst_status st = fst_strategy_load(again, saved.data, saved.len, &err);
        assert_true(st == FST_E_FORMAT || st == FST_E_MISMATCH);
        saved.data[i] ^= 4;
    }
    assert_int_equal(((struct keeper *)again)->rounds, 0);
    ok(fst_strategy_load(again, saved.data, saved.len, &err), &err);
    fst_strategy_begin(again, 1);
    ok(fst_strategy_fold(again, &u, &err), &err);
    fst_aggregate_stats stats;
    ok(fst_strategy_aggregate(again, NULL, &stats, &err), &err);
    assert_int_equal(global.counters[0], 3);
    assert_true(stats.update_norm == 2 && stats.updates == 1 && stats.samples == 14);
    fst_buf_release(&saved);
    fst_fed_state_release(&global);
    fst_strategy_free(s);
    fst_strategy_free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_model),
        cmocka_unit_test(test_unchanged),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_refusal),
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_saving),
        cmocka_unit_test(test_memory),
        cmocka_unit_test(test_weighted_mean_of_those_that_reported),
        cmocka_unit_test(test_counters_below_zero),
        cmocka_unit_test(test_options_and_names),
        cmocka_unit_test(test_server_steps),
        cmocka_unit_test(test_momentum_lasts),
        cmocka_unit_test(test_wrong_server_options),
        cmocka_unit_test(test_wrong_moments),
        cmocka_unit_test(test_empty_spans),
        cmocka_unit_test(test_strategy_from_outside),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

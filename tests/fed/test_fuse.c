/* A fusion after a strategy's step: what it changes and what it leaves, running statistics, rounds that fail, bytes
 * that are damaged. Orders, workers, places and resuming are test_conformance.c's. */
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

enum { SAMPLES = 24, CLASSES = 3, SIDE = 4, ELEMENTS = SIDE * SIDE, CHANNELS = 4, CLIENTS = 3 };

static float pixels[SAMPLES * ELEMENTS];
static int32_t labels[SAMPLES];
static fst_source *source;
static fst_public pub;
static fst_graph *small, *large;
static fst_fed_state teacher;

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static fst_graph *network(int64_t hidden, const char *first, const char *last, bool norm)
{
    fst_graph *g = NULL;
    fst_error err;
    ok(fst_graph_new(&g, &err), &err);
    fst_value x = fst_graph_input(g, &FST_SHAPE(1, SIDE, SIDE));
    const fst_conv2d c = {.out_channels = hidden, .kernel = {3, 3}, .stride = {1, 1}, .padding = {1, 1}};
    x = fst_graph_conv2d(g, x, first, &c);
    if (norm)
        x = fst_graph_batchnorm2d(g, x, "bn", 1e-5, 0.1);
    x = fst_graph_flatten(g, fst_graph_relu(g, x));
    ok(fst_graph_finish(g, fst_graph_linear(g, x, last, CLASSES, true), &err), &err);
    return g;
}

static void randomise(fst_fed_state *s, const fst_graph *g, uint64_t seed)
{
    fst_error err;
    ok(fst_fed_state_init(s, fst_graph_fed_size(g), &err), &err);
    fst_state nn = {s->params, s->buffers, s->counters, s->size.params, s->size.buffers, s->size.counters};
    fst_state_randomise(&nn, g, seed);
}

static int set_up(void **state)
{
    fst_rng r;
    fst_error err;
    (void)state;
    fst_rng_init(&r, 5, "test.data", 0);
    for (int i = 0; i < SAMPLES; i++) {
        labels[i] = (int32_t)fst_rng_below(&r, CLASSES);
        for (int k = 0; k < ELEMENTS; k++)
            pixels[i * ELEMENTS + k] = (float)fst_rng_normal(&r) + (k % CLASSES == labels[i] ? 1.0f : 0.0f);
    }
    ok(fst_source_from_memory(&source, "pixels", FST_F32, &FST_SHAPE(1, SIDE, SIDE), SAMPLES, pixels, labels, CLASSES,
                              &err),
       &err);
    ok(fst_public_init(&pub, source, NULL, 0, &(fst_transform){0}, &err), &err);
    small = network(CHANNELS, "conv", "fc", true);
    large = network(10, "first", "last", false);
    randomise(&teacher, large, 9);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fst_public_release(&pub);
    fst_source_close(source);
    fst_graph_free(small);
    fst_graph_free(large);
    fst_fed_state_release(&teacher);
    return 0;
}

/* ---- a server ---- */

struct server {
    fst_fed_state global;
    fst_fuser *fuser;
    fst_strategy *strategy;
};

static fst_fuser_spec plain_spec(bool proxy)
{
    return (fst_fuser_spec){.fusion = {.d_attention = 4,
                                       .heads = 2,
                                       .layers = 1,
                                       .attention_dropout = 0.1,
                                       .gate = 0.2,
                                       .weight_decay = 1e-3,
                                       .clip_norm = 50},
                            .target = "conv.weight",
                            .source = "first.weight",
                            .start_round = 1,
                            .every = 1,
                            .steps = 2,
                            .learning_rate = 0.01,
                            .proxy = proxy,
                            .proxy_learning_rate = 0.1,
                            .proxy_batch_size = SAMPLES};
}

static fst_server_env env_of(struct server *s)
{
    return (fst_server_env){.seed = 7,
                            .clients = CLIENTS,
                            .classes = CLASSES,
                            .global = &s->global,
                            .graph = small,
                            .pub = &pub,
                            .compute = {.batch_size = 8, .threads = 1, .backend = "reference"}};
}

static void open_server(struct server *s, const char *strategy, const fst_fuser_spec *spec)
{
    fst_error err;
    *s = (struct server){0};
    randomise(&s->global, small, 1);
    fst_server_env env = env_of(s);
    if (spec) {
        ok(fst_fuser_new(&s->fuser, spec, &env, large, teacher.params, &err), &err);
        env.after = fst_fuser_after(s->fuser);
    }
    ok(fst_strategy_new(&s->strategy, fst_strategy_find(strategy), NULL, 0, &env, &err), &err);
}

static void close_server(struct server *s)
{
    fst_strategy_free(s->strategy);
    fst_fuser_free(s->fuser);
    fst_fed_state_release(&s->global);
}

/* Folds what clients would have made of it: the shared model, moved by a little of their own. */
static void fold_all(struct server *s, uint64_t round)
{
    fst_fed_state up = {0};
    fst_error err;
    fst_rng r;
    ok(fst_fed_state_init(&up, s->global.size, &err), &err);
    fst_strategy_begin(s->strategy, round);
    for (uint32_t k = 0; k < CLIENTS; k++) {
        fst_message m = fst_message_of("state");
        fst_fed_view v = fst_fed_state_view(&s->global);
        fst_fed_state_copy(&up, &v);
        fst_rng_init(&r, 3, "client", round * CLIENTS + k);
        for (size_t i = 0; i < up.size.params; i++)
            up.params[i] += (float)(0.02 * fst_rng_normal(&r));
        v = fst_fed_state_view(&up);
        m.client = k;
        m.round = m.base = round;
        m.samples = 10 + k;
        ok(fst_message_add_state(&m, &v, &err), &err);
        ok(fst_strategy_fold(s->strategy, &m, &err), &err);
    }
    fst_fed_state_release(&up);
}

static void play(struct server *s, uint64_t round)
{
    fst_error err;
    fold_all(s, round);
    ok(fst_strategy_aggregate(s->strategy, NULL, NULL, &err), &err);
}

static void bytes_of(const struct server *s, fst_buf *out)
{
    fst_error err;
    out->len = 0;
    ok(fst_buf_append(out, s->global.params, 4 * s->global.size.params, &err), &err);
    ok(fst_buf_append(out, s->global.buffers, 4 * s->global.size.buffers, &err), &err);
    ok(fst_strategy_save(s->strategy, out, &err), &err);
}

static bool same(const fst_buf *a, const fst_buf *b)
{
    return a->len == b->len && !memcmp(a->data, b->data, a->len);
}

static fst_param_info target(void)
{
    fst_param_info p;
    fst_error err;
    ok(fst_fusion_find(small, "conv.weight", &p, &err), &err);
    return p;
}

/* ---- what changes ---- */

static void only_the_target_changes(void **state)
{
    struct server plain, fused;
    const fst_fuser_spec spec = plain_spec(false);
    fst_param_info t = target();
    (void)state;
    open_server(&plain, "fedavg", NULL);
    open_server(&fused, "fedavg", &spec);
    play(&plain, 0);
    play(&fused, 0);
    size_t differ = 0;
    for (size_t i = 0; i < plain.global.size.params; i++) {
        bool inside = i >= t.offset && i < t.offset + t.count;
        differ += plain.global.params[i] != fused.global.params[i];
        if (!inside)
            assert_true(plain.global.params[i] == fused.global.params[i]);
    }
    assert_true(differ > t.count / 2);
    assert_true(fst_fuser_sends_other(fused.fuser));
    fst_fuser_show(fused.fuser, fused.global.params,
                   true); /* measured without, since its statistics are the average's */
    assert_memory_equal(plain.global.params, fused.global.params, 4 * plain.global.size.params);
    fst_fuser_show(fused.fuser, fused.global.params, false);
    assert_true(memcmp(plain.global.params, fused.global.params, 4 * plain.global.size.params) != 0);
    assert_memory_equal(plain.global.buffers, fused.global.buffers, 4 * plain.global.size.buffers);
    close_server(&plain);
    close_server(&fused);
}

/* A gate that stays 0 leaves the federation as it is without. */
static void a_closed_gate_is_no_fusion(void **state)
{
    struct server plain, fused;
    fst_fuser_spec spec = plain_spec(false);
    (void)state;
    spec.fusion.gate = 0;
    spec.fusion.learns = FST_FUSION_NOTHING;
    open_server(&plain, "fedadam", NULL);
    open_server(&fused, "fedadam", &spec);
    for (uint64_t round = 0; round < 3; round++) {
        play(&plain, round);
        play(&fused, round);
        assert_memory_equal(plain.global.params, fused.global.params, 4 * plain.global.size.params);
    }
    close_server(&plain);
    close_server(&fused);
}

static void rounds_that_fuse_and_learn(void **state)
{
    static const bool fuses[] = {false, true, false, true, false}, learns[] = {false, false, true, false, true};
    (void)state;
    for (int proxy = 0; proxy < 2; proxy++) {
        struct server s;
        fst_fuser_spec spec = plain_spec(proxy);
        spec.start_round = 2;
        spec.every = 2;
        open_server(&s, "fedavg", &spec);
        for (uint64_t round = 0; round < 5; round++) {
            play(&s, round);
            const fst_fuser_report *r = fst_fuser_last(s.fuser);
            assert_int_equal(r->round, round);
            assert_int_equal(r->fused, fuses[round]);
            assert_int_equal(r->learnt, proxy ? fuses[round] : learns[round]);
            assert_int_equal(r->moved > 0, fuses[round]);
        }
        close_server(&s);
    }
}

/* The round after learns from the average: with a gate of 0 at first, it moves by learning_rate a step, towards where
 * the clients went. */
static void the_gate_opens_in_the_next_round(void **state)
{
    struct server s;
    fst_fuser_spec spec = plain_spec(false);
    (void)state;
    spec.fusion.gate = 0;
    spec.steps = 1;
    open_server(&s, "fedavg", &spec);
    play(&s, 0);
    assert_true(fst_fuser_gate(s.fuser) == 0);
    play(&s, 1);
    assert_true(fabs(fabs(fst_fuser_gate(s.fuser)) - spec.learning_rate) < 1e-6);
    close_server(&s);
}

/* With public samples the statistics are those of the fused model: means over them, here in one batch. */
static void statistics_are_made_anew(void **state)
{
    struct server s;
    const fst_fuser_spec spec = plain_spec(true);
    fst_param_info t = target();
    (void)state;
    open_server(&s, "fedavg", &spec);
    play(&s, 0);
    assert_false(fst_fuser_sends_other(s.fuser));
    const float *w = s.global.params + t.offset;
    for (int c = 0; c < CHANNELS; c++) {
        double sum = 0, squares = 0, n = (double)pub.count * ELEMENTS;
        for (size_t i = 0; i < pub.count; i++)
            for (int y = 0; y < SIDE; y++)
                for (int x = 0; x < SIDE; x++) {
                    double v = 0;
                    for (int k = 0; k < 9; k++) {
                        int yy = y + k / 3 - 1, xx = x + k % 3 - 1;
                        if (yy >= 0 && yy < SIDE && xx >= 0 && xx < SIDE)
                            v += (double)w[c * 9 + k] * (double)pixels[pub.index[i] * ELEMENTS + yy * SIDE + xx];
                    }
                    sum += v;
                    squares += v * v;
                }
        double mean = sum / n, variance = (squares / n - mean * mean) * n / (n - 1);
        assert_true(fabs((double)s.global.buffers[c] - mean) < 1e-5);
        assert_true(fabs((double)s.global.buffers[CHANNELS + c] - variance) < 1e-5 * (1 + variance));
    }
    close_server(&s);
}

/* ---- rounds that fail, and what is kept ---- */

static bool stopped(void *ctx)
{
    return --*(int *)ctx < 0;
}

/* Stopped anywhere inside a fusion, the round is as if it had not begun; done again it comes out the same. */
static void a_stopped_round_leaves_nothing(void **state)
{
    (void)state;
    for (int proxy = 0; proxy < 2; proxy++) {
        struct server s, whole;
        const fst_fuser_spec spec = plain_spec(proxy);
        fst_buf before = {0}, after = {0}, want = {0};
        fst_error err;
        open_server(&s, "fedadam", &spec);
        open_server(&whole, "fedadam", &spec);
        play(&s, 0);
        play(&whole, 0);
        play(&whole, 1);
        bytes_of(&whole, &want);
        bytes_of(&s, &before);
        int stops = 0;
        for (int calls = 0; stops == calls; calls++) {
            int left = calls;
            const fst_work work = {.ctx = &left, .stopped = stopped};
            fold_all(&s, 1);
            fst_status st = fst_strategy_aggregate(s.strategy, &work, NULL, &err);
            if (!st)
                break;
            assert_int_equal(st, FST_E_CANCELLED);
            fst_strategy_abandon(s.strategy);
            bytes_of(&s, &after);
            assert_true(same(&before, &after));
            stops++;
        }
        assert_int_equal(stops, proxy ? 3 : 2);
        bytes_of(&s, &after);
        assert_true(same(&want, &after));
        fst_buf_release(&before);
        fst_buf_release(&after);
        fst_buf_release(&want);
        close_server(&s);
        close_server(&whole);
    }
}

static void damaged_bytes_change_nothing(void **state)
{
    struct server s;
    const fst_fuser_spec spec = plain_spec(false);
    const fst_after *a;
    fst_buf kept = {0}, now = {0};
    fst_error err;
    (void)state;
    open_server(&s, "fedadam", &spec);
    play(&s, 0);
    a = fst_fuser_after(s.fuser);
    ok(a->save(a->ctx, &kept, &err), &err);
    assert_int_equal(a->load(a->ctx, kept.data, kept.len - 4, &err), FST_E_FORMAT);
    assert_int_equal(a->load(a->ctx, kept.data, 3, &err), FST_E_FORMAT);
    const float nan = NAN;
    for (size_t at = 8; at + 4 <= kept.len; at += kept.len / 9 / 4 * 4) {
        fst_buf bad = {0};
        ok(fst_buf_append(&bad, kept.data, kept.len, &err), &err);
        memcpy(bad.data + at, &nan, sizeof nan);
        assert_int_equal(a->load(a->ctx, bad.data, bad.len, &err), FST_E_FORMAT);
        fst_buf_release(&bad);
    }
    ok(a->save(a->ctx, &now, &err), &err);
    assert_true(same(&kept, &now));
    fst_buf_release(&kept);
    fst_buf_release(&now);
    close_server(&s);
}

static void refusals(void **state)
{
    struct server s;
    fst_fuser *f = NULL;
    fst_strategy *none = NULL;
    fst_error err;
    fst_fuser_spec spec = plain_spec(false);
    (void)state;
    open_server(&s, "fedavg", &spec);
    fst_server_env env = env_of(&s);
    env.after = fst_fuser_after(s.fuser);
    assert_int_equal(fst_strategy_new(&none, fst_strategy_find("fedbuff"), NULL, 0, &env, &err), FST_E_CONFIG);
    assert_int_equal(fst_strategy_new(&none, fst_strategy_find("fedmd"), NULL, 0, &env, &err), FST_E_CONFIG);
    spec.target = "bn.weight";
    assert_int_equal(fst_fuser_new(&f, &spec, &env, large, teacher.params, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "bn.weight"));
    spec = plain_spec(true);
    env.pub = NULL;
    assert_int_equal(fst_fuser_new(&f, &spec, &env, large, teacher.params, &err), FST_E_CONFIG);
    spec = plain_spec(false);
    spec.fusion.rank = 5;
    assert_int_equal(fst_fuser_new(&f, &spec, &env, large, teacher.params, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "4 x 9"));
    assert_non_null(strstr(err.message, "10 x 9"));
    close_server(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_the_target_changes),      cmocka_unit_test(a_closed_gate_is_no_fusion),
        cmocka_unit_test(rounds_that_fuse_and_learn),   cmocka_unit_test(the_gate_opens_in_the_next_round),
        cmocka_unit_test(statistics_are_made_anew),     cmocka_unit_test(a_stopped_round_leaves_nothing),
        cmocka_unit_test(damaged_bytes_change_nothing), cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

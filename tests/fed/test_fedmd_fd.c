/* FedMD and FD as whole small runs, against an independent computation in float64 (make_fedmd_fd.py), and public
 * samples. One client is lost in the second round. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/fed.h"
#include "fedmd_fd.h"

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

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

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
    return 0;
}

static int tear_down(void **state)
{
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
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fedmd),
        cmocka_unit_test(test_fd),
        cmocka_unit_test(test_public_samples_are_joined_by_key),
        cmocka_unit_test(test_other_public_samples),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

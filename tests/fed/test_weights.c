/* What is particular to single strategies that share weights, besides the whole runs of test_replay.c and what
 * test_strategy.c asks of all. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/fed.h"

enum { CLIENTS = 7, ALL = 64, PARAMS = 2500 };
static const fst_fed_size SIZE = {PARAMS, 37, 3};

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static fst_fed_state random_state(uint64_t index)
{
    fst_fed_state s;
    fst_error err;
    fst_rng r;
    ok(fst_fed_state_init(&s, SIZE, &err), &err);
    fst_rng_init(&r, 12, "test.state", index);
    for (size_t i = 0; i < SIZE.params; i++)
        s.params[i] = (float)fst_rng_normal(&r);
    for (size_t i = 0; i < SIZE.buffers; i++)
        s.buffers[i] = (float)fst_rng_uniform(&r);
    return s;
}

static fst_strategy *make(const char *name, const fst_setting *settings, size_t n, fst_fed_state *global)
{
    fst_strategy *s = NULL;
    fst_error err;
    const fst_server_env env = {.clients = ALL, .global = global};
    ok(fst_strategy_new(&s, fst_strategy_find(name), settings, n, &env, &err), &err);
    return s;
}

static fst_message update_of(const fst_fed_state *state, uint32_t client, uint64_t round)
{
    fst_message m = fst_message_of("state");
    fst_fed_view v = fst_fed_state_view(state);
    fst_error err;
    m.client = client;
    m.round = m.base = round;
    m.samples = 10 + client;
    ok(fst_message_add_state(&m, &v, &err), &err);
    return m;
}

struct setting {
    fst_fed_state client[CLIENTS];
};

static int set_up(void **state)
{
    static struct setting t;
    for (uint32_t c = 0; c < CLIENTS; c++)
        t.client[c] = random_state(c);
    *state = &t;
    return 0;
}

static int tear_down(void **state)
{
    struct setting *t = *state;
    for (uint32_t c = 0; c < CLIENTS; c++)
        fst_fed_state_release(&t->client[c]);
    return 0;
}

static void test_what_comes_beside_the_state(void **state)
{
    struct setting *t = *state;
    float control[PARAMS] = {0};
    const float reach[] = {0, -1, NAN, INFINITY};
    fst_fed_state global = random_state(1000);
    fst_strategy *nova = make("fednova", NULL, 0, &global), *scaffold = make("scaffold", NULL, 0, &global);
    fst_error err;
    fst_strategy_begin(nova, 0);
    fst_strategy_begin(scaffold, 0);
    for (int i = 0; i < 4; i++) {
        const fst_message plain = update_of(&t->client[0], 0, 0);
        assert_int_equal(fst_strategy_fold(nova, &plain, &err), FST_E_MISMATCH);
        assert_int_equal(fst_strategy_fold(scaffold, &plain, &err), FST_E_MISMATCH);
        fst_message m = plain;
        ok(fst_message_add(&m, "reach", FST_F32, FST_SHAPE(1), &reach[i], &err), &err);
        assert_int_equal(fst_strategy_fold(nova, &m, &err), FST_E_NUMERIC);
        m = plain;
        control[i] = i % 2 ? NAN : INFINITY;
        ok(fst_message_add(&m, "control", FST_F32, FST_SHAPE(PARAMS), control, &err), &err);
        assert_int_equal(fst_strategy_fold(scaffold, &m, &err), FST_E_NUMERIC);
        assert_non_null(strstr(err.message, "control variate: element"));
        control[i] = 0;
    }
    assert_true(nova->updates == 0 && scaffold->updates == 0);
    fst_strategy_free(nova);
    fst_strategy_free(scaffold);
    fst_fed_state_release(&global);
}

/* c moves by the sum of the changes over all clients, whether they took part or not; in the mean of the weights every
 * client counts the same. */
static void test_control_variate_of_the_server(void **state)
{
    struct setting *t = *state;
    const uint32_t who[] = {4, 1, 6};
    float control[PARAMS];
    fst_fed_state global = random_state(1000);
    fst_strategy *s = make("scaffold", NULL, 0, &global);
    fst_message down;
    fst_error err;
    for (size_t i = 0; i < PARAMS; i++)
        control[i] = (float)(i % 7) / 8;
    fst_strategy_begin(s, 0);
    for (int k = 0; k < 3; k++) {
        fst_message m = update_of(&t->client[who[k]], who[k], 0);
        ok(fst_message_add(&m, "control", FST_F32, FST_SHAPE(PARAMS), control, &err), &err);
        ok(fst_strategy_fold(s, &m, &err), &err);
    }
    ok(fst_strategy_aggregate(s, NULL, NULL, &err), &err);
    fst_strategy_begin(s, 1);
    ok(fst_strategy_down(s, 2, &down, &err), &err);
    const float *c = fst_message_find(&down, "control")->data;
    for (size_t i = 0; i < PARAMS; i++) {
        long double sum = 0;
        for (int k = 0; k < 3; k++)
            sum += t->client[who[k]].params[i];
        assert_true(c[i] == (float)(3.0 * (double)control[i] / ALL));
        assert_true(global.params[i] == (float)(sum / 3));
    }
    fst_strategy_free(s);
    fst_fed_state_release(&global);
}

static void test_plans_that_do_not_fit(void **state)
{
    (void)state;
    fst_error err;
    fst_local_plan plan = {.optim = {.kind = FST_OPTIM_ADAM, .learning_rate = 0.5}};
    const fst_setting mu = {"fednova_mu", 2};
    const fst_strategy_ops *scaffold = fst_strategy_find("scaffold"), *nova = fst_strategy_find("fednova");
    ok(fst_strategy_check_plan(fst_strategy_find("fedavg"), NULL, 0, NULL, &plan, &err), &err);
    assert_int_equal(fst_strategy_check_plan(scaffold, NULL, 0, NULL, &plan, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "strategy scaffold: control variates"));
    ok(fst_strategy_check_plan(nova, NULL, 0, NULL, &plan, &err), &err);
    assert_int_equal(fst_strategy_check_plan(nova, &mu, 1, NULL, &plan, &err), FST_E_CONFIG);
    plan.optim.kind = FST_OPTIM_SGD;
    ok(fst_strategy_check_plan(scaffold, NULL, 0, NULL, &plan, &err), &err);
    assert_int_equal(fst_strategy_check_plan(nova, &mu, 1, NULL, &plan, &err), FST_E_CONFIG);
    plan.optim.learning_rate = 0.25;
    ok(fst_strategy_check_plan(nova, &mu, 1, NULL, &plan, &err), &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_comes_beside_the_state),
        cmocka_unit_test(test_control_variate_of_the_server),
        cmocka_unit_test(test_plans_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* The server on its own: what becomes of updates that come twice, late or damaged, what it asks its caller to do and in
 * which order, and its state at the boundaries of rounds. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/fed.h"

enum { CLIENTS = 3 };
static float shared[2], sent[CLIENTS][2] = {{1, 10}, {2, 20}, {6, 60}};

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

struct world {
    fst_fed_state global;
    fst_strategy *strategy;
    fst_server *server;
};

static void open_world(struct world *w, fst_round_spec spec)
{
    fst_error err;
    *w = (struct world){.global = {.params = shared, .size = {.params = 2}}};
    shared[0] = shared[1] = 0;
    const fst_server_env env = {.clients = CLIENTS, .global = &w->global};
    ok(fst_strategy_new(&w->strategy, fst_strategy_find("fedavg"), NULL, 0, &env, &err), &err);
    spec.clients = spec.min_clients = CLIENTS;
    spec.fraction = 1;
    ok(fst_server_new(&w->server, &spec, w->strategy, "site", &err), &err);
}

static void close_world(struct world *w)
{
    fst_server_free(w->server);
    fst_strategy_free(w->strategy);
}

static void tell(struct world *w, fst_fed_event_kind kind, uint32_t client, double now)
{
    const fst_fed_event ev = {.kind = kind, .client = client, .now = now};
    fst_error err;
    ok(fst_server_event(w->server, &ev, NULL, NULL, NULL, &err), &err);
}

static fst_fed_why update(struct world *w, uint32_t client, uint64_t round, int64_t samples)
{
    const fst_fed_event ev = {.kind = FST_EVENT_UPDATE};
    const fst_fed_view v = {.params = sent[client], .size = {.params = 2}};
    fst_message m = fst_message_of("state");
    fst_fed_why why;
    fst_error err;
    m.client = client;
    m.round = round;
    m.samples = samples;
    ok(fst_message_add_state(&m, &v, &err), &err);
    ok(fst_server_event(w->server, &ev, &m, NULL, &why, &err), &err);
    return why;
}

/* The next order must be of this kind. */
static fst_order next(struct world *w, fst_order_kind kind)
{
    fst_order o = {0};
    assert_true(fst_server_next(w->server, &o));
    assert_int_equal(o.kind, kind);
    return o;
}

static void nothing_more(struct world *w)
{
    fst_order o;
    assert_false(fst_server_next(w->server, &o));
}

static void join_all(struct world *w)
{
    bool asked[CLIENTS] = {0};
    for (uint32_t k = 0; k < CLIENTS; k++)
        tell(w, FST_EVENT_JOINED, k, 0);
    for (int k = 0; k < CLIENTS; k++)
        asked[next(w, FST_ORDER_SEND).client] = true;
    assert_true(asked[0] && asked[1] && asked[2]);
}

static void test_duplicates_and_strays(void **state)
{
    (void)state;
    struct world w;
    fst_error err;
    open_world(&w, (fst_round_spec){.rounds = 2});
    join_all(&w);
    nothing_more(&w);
    assert_int_equal(update(&w, 0, 0, 1), FST_WHY_NONE);
    assert_int_equal(update(&w, 0, 0, 5), FST_WHY_DUPLICATE);
    assert_int_equal(update(&w, 1, 1, 1), FST_WHY_FUTURE);
    sent[2][1] = NAN;
    assert_int_equal(update(&w, 2, 0, 2), FST_WHY_NONE); /* judged, and refused by the strategy */
    sent[2][1] = 60;
    assert_int_equal(update(&w, 2, 0, 2), FST_WHY_REFUSED_BEFORE);
    nothing_more(&w);
    assert_int_equal(update(&w, 1, 0, 3), FST_WHY_NONE);
    next(&w, FST_ORDER_AGGREGATE);
    assert_int_equal(update(&w, 0, 0, 1), FST_WHY_DUPLICATE);
    ok(fst_server_aggregate(w.server, NULL, 0, &err), &err);
    next(&w, FST_ORDER_EVALUATE);
    assert_true(shared[0] == 1.75f && shared[1] == 17.5f); /* (1 + 3 * 2) / 4 */
    const fst_round_report *r = fst_server_report(w.server);
    assert_true(r->aggregated && r->selected == 3 && r->reported == 2 && r->lost == 1 && r->samples == 4);
    assert_int_equal(r->lost_first[0].client, 2);
    assert_non_null(strstr(r->lost_first[0].message, "nan"));
    for (int i = 0; i < CLIENTS; i++)
        if (r->by_client[i].client == 0)
            assert_int_equal(r->by_client[i].samples, 1); /* not the duplicate's */
    assert_int_equal(r->bytes_up, 3 * 8);
    nothing_more(&w);
    ok(fst_server_publish(w.server, 0, &err), &err);
    for (int k = 0; k < CLIENTS; k++)
        assert_int_equal(next(&w, FST_ORDER_SEND).round, 1);
    assert_int_equal(update(&w, 0, 0, 1), FST_WHY_STALE);
    close_world(&w);
}

/* With a deadline and policy skip: timers are asked for, a round that nobody answered changes nothing and is reported
 * before the next one is sent. */
static void test_deadline_and_skip(void **state)
{
    (void)state;
    struct world w;
    fst_error err;
    open_world(&w, (fst_round_spec){.rounds = 2, .deadline = 10, .policy = FST_QUORUM_SKIP});
    for (uint32_t k = 0; k < CLIENTS; k++)
        tell(&w, FST_EVENT_JOINED, k, 1);
    assert_true(next(&w, FST_ORDER_TIMER).at == 11);
    for (int k = 0; k < CLIENTS; k++)
        next(&w, FST_ORDER_SEND);
    tell(&w, FST_EVENT_TIMER, 0, 11);
    next(&w, FST_ORDER_EVALUATE);
    assert_false(fst_server_report(w.server)->aggregated);
    assert_int_equal(fst_server_report(w.server)->why, FST_WHY_NO_QUORUM);
    assert_string_equal(fst_server_report(w.server)->by_client[0].lost, "it did not answer");
    ok(fst_server_publish(w.server, 11, &err), &err);
    assert_true(next(&w, FST_ORDER_TIMER).at == 21);
    for (int k = 0; k < CLIENTS; k++)
        assert_int_equal(next(&w, FST_ORDER_SEND).round, 1);
    assert_true(shared[0] == 0);
    assert_int_equal(update(&w, 1, 1, 1), FST_WHY_NONE);
    tell(&w, FST_EVENT_TIMER, 0, 21);
    next(&w, FST_ORDER_AGGREGATE);
    ok(fst_server_aggregate(w.server, NULL, 21, &err), &err);
    next(&w, FST_ORDER_EVALUATE);
    assert_int_equal(fst_server_report(w.server)->why, FST_WHY_DEADLINE);
    ok(fst_server_publish(w.server, 21, &err), &err);
    next(&w, FST_ORDER_FINISHED);
    nothing_more(&w);
    close_world(&w);
}

/* Crash after some updates of round 2: what was saved at the boundary starts that round again, and the updates that are
 * delivered again count once. */
static void test_crash_and_deliver_again(void **state)
{
    (void)state;
    struct world w, again;
    fst_buf saved = {0}, mid = {0};
    fst_error err;
    float boundary[2];
    open_world(&w, (fst_round_spec){.rounds = 2});
    join_all(&w);
    for (uint32_t k = 0; k < CLIENTS; k++)
        assert_int_equal(update(&w, k, 0, 1), FST_WHY_NONE);
    next(&w, FST_ORDER_AGGREGATE);
    assert_int_equal(fst_server_save(w.server, &mid, &err), FST_E_ARGUMENT);
    ok(fst_server_aggregate(w.server, NULL, 0, &err), &err);
    next(&w, FST_ORDER_EVALUATE);
    ok(fst_server_save(w.server, &saved, &err), &err);
    memcpy(boundary, shared, sizeof shared);
    ok(fst_server_publish(w.server, 0, &err), &err);
    assert_int_equal(update(&w, 1, 1, 1), FST_WHY_NONE);
    assert_int_equal(fst_server_save(w.server, &mid, &err), FST_E_ARGUMENT);
    assert_int_equal(mid.len, 0);
    close_world(&w);

    open_world(&again, (fst_round_spec){.rounds = 2});
    for (size_t n = 0; n < saved.len; n++)
        assert_int_equal(fst_server_load(again.server, saved.data, n, &err), FST_E_FORMAT);
    ok(fst_server_load(again.server, saved.data, saved.len, &err), &err);
    memcpy(shared, boundary, sizeof shared);
    join_all(&again);
    assert_int_equal(fst_server_look(again.server).round, 1);
    for (uint32_t k = 0; k < CLIENTS; k++)
        assert_int_equal(update(&again, k, 1, 1), FST_WHY_NONE);
    next(&again, FST_ORDER_AGGREGATE);
    ok(fst_server_aggregate(again.server, NULL, 0, &err), &err);
    assert_true(shared[0] == 3 && shared[1] == 30);
    assert_int_equal(fst_server_load(again.server, saved.data, saved.len, &err), FST_E_ARGUMENT); /* too late */
    close_world(&again);
    open_world(&again, (fst_round_spec){.rounds = 0});
    next(&again, FST_ORDER_FINISHED);
    assert_int_equal(fst_server_load(again.server, saved.data, saved.len, &err), FST_E_MISMATCH); /* of more rounds */
    close_world(&again);
    fst_buf_release(&saved);
    fst_buf_release(&mid);
}

static void test_failure_says_who(void **state)
{
    (void)state;
    struct world w;
    fst_error err = {0}, why = {0};
    open_world(&w, (fst_round_spec){.rounds = 1, .quorum = 3});
    join_all(&w);
    (void)fst_fail(&why, FST_E_IO, "the disk is full");
    for (uint32_t k = 0; k < CLIENTS; k++) {
        const fst_fed_event ev = {.kind = FST_EVENT_REFUSED, .client = k};
        ok(fst_server_event(w.server, &ev, NULL, k == 1 ? &why : NULL, NULL, &err), &err);
    }
    next(&w, FST_ORDER_FAILED);
    assert_int_not_equal(fst_server_failure(w.server, &err), FST_OK);
    assert_non_null(strstr(err.message, "round 1: 0 updates, the quorum is 3; 3 sites failed, site "));
    const fst_fed_event folded = {.kind = FST_EVENT_FOLDED};
    assert_int_equal(fst_server_event(w.server, &folded, NULL, NULL, NULL, &err), FST_E_ARGUMENT);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_duplicates_and_strays),
        cmocka_unit_test(test_deadline_and_skip),
        cmocka_unit_test(test_crash_and_deliver_again),
        cmocka_unit_test(test_failure_says_who),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

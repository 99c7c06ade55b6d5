/* The round engine: stories with known endings, and more than a million random events whose actions are
 * checked against an account kept outside the engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/fed.h"

enum { MOST = 14 };

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static fst_round_engine *engine_of(const fst_round_spec *spec)
{
    fst_round_engine *e = NULL;
    fst_error err;
    ok(fst_round_new(&e, spec, &err), &err);
    return e;
}

/* ---- stories ---- */

static void feed(fst_round_engine *e, fst_fed_event ev)
{
    fst_error err;
    ok(fst_round_event(e, &ev, &err), &err);
}

/* Fetches everything; returns how many actions of `kind` there were, the last of them in *last. */
static int fetch(fst_round_engine *e, fst_fed_action_kind kind, fst_fed_action *last)
{
    fst_fed_action a;
    int n = 0;
    while (fst_round_next_action(e, &a))
        if (a.kind == kind) {
            n++;
            if (last)
                *last = a;
        }
    return n;
}

static void join_all(fst_round_engine *e, uint32_t n)
{
    for (uint32_t c = 0; c < n; c++) {
        feed(e, (fst_fed_event){.kind = FST_EVENT_JOINED, .client = c});
        if (c + 1 < n)
            fetch(e, FST_ACTION_LOG, NULL);
    }
}

static void report(fst_round_engine *e, uint32_t client, uint64_t round, int64_t samples)
{
    fst_fed_action a;
    feed(e, (fst_fed_event){.kind = FST_EVENT_UPDATE, .client = client, .round = round, .samples = samples});
    assert_int_equal(fetch(e, FST_ACTION_FOLD, &a), 1);
    assert_int_equal(a.client, client);
    feed(e, (fst_fed_event){.kind = FST_EVENT_FOLDED, .client = client, .round = round, .samples = samples});
}

static fst_fed_why discarded(fst_round_engine *e, uint32_t client, uint64_t round, int64_t samples)
{
    fst_fed_action a = {0};
    feed(e, (fst_fed_event){.kind = FST_EVENT_UPDATE, .client = client, .round = round, .samples = samples});
    assert_int_equal(fetch(e, FST_ACTION_DISCARD, &a), 1);
    return a.why;
}

static void finish_round(fst_round_engine *e, uint64_t round)
{
    feed(e, (fst_fed_event){.kind = FST_EVENT_AGGREGATED, .round = round});
    assert_int_equal(fetch(e, FST_ACTION_PUBLISH, NULL), 1);
    feed(e, (fst_fed_event){.kind = FST_EVENT_PUBLISHED, .round = round});
}

static void test_two_plain_rounds(void **state)
{
    (void)state;
    fst_fed_action a;
    fst_round_engine *e = engine_of(&(fst_round_spec){.clients = 3, .rounds = 2, .fraction = 1, .min_clients = 3});
    join_all(e, 3);
    for (uint64_t round = 0; round < 2; round++) {
        assert_int_equal(fetch(e, FST_ACTION_ANNOUNCE, &a), 3);
        assert_int_equal(a.round, round);
        report(e, 2, round, 10);
        assert_int_equal(fetch(e, FST_ACTION_CLOSE, NULL), 0);
        assert_int_equal(discarded(e, 2, round, 10), FST_WHY_DUPLICATE);
        assert_int_equal(discarded(e, 1, round + 1, 10), FST_WHY_FUTURE);
        assert_int_equal(discarded(e, 3, round, 10), FST_WHY_UNKNOWN_CLIENT);
        if (round)
            assert_int_equal(discarded(e, 0, round - 1, 10), FST_WHY_STALE);
        report(e, 0, round, 20);
        fetch(e, FST_ACTION_LOG, NULL);
        report(e, 1, round, 30);
        assert_int_equal(fst_round_look(e).samples, 60);
        assert_int_equal(fetch(e, FST_ACTION_CLOSE, &a), 1);
        assert_int_equal(a.why, FST_WHY_ALL_REPORTED);
        assert_int_equal(a.count, 3);
        assert_int_equal(discarded(e, 1, round, 30), FST_WHY_DUPLICATE);
        finish_round(e, round);
    }
    assert_int_equal(fetch(e, FST_ACTION_FINISHED, NULL), 1);
    assert_int_equal(discarded(e, 1, 1, 30), FST_WHY_ENDED);
    fst_round_free(e);
}

/* A second copy that comes while the first is being folded, and answers that nobody waits for. */
static void test_copies_and_stray_answers(void **state)
{
    (void)state;
    fst_fed_action a;
    fst_round_engine *e = engine_of(&(fst_round_spec){.clients = 2, .rounds = 1, .fraction = 1, .min_clients = 2});
    join_all(e, 2);
    fetch(e, FST_ACTION_LOG, NULL);
    feed(e, (fst_fed_event){.kind = FST_EVENT_UPDATE, .client = 1, .samples = 3});
    assert_int_equal(fetch(e, FST_ACTION_FOLD, NULL), 1);
    assert_int_equal(discarded(e, 1, 0, 3), FST_WHY_DUPLICATE);
    const fst_fed_event stray[] = {{.kind = FST_EVENT_FOLDED, .client = 0},
                                   {.kind = FST_EVENT_FOLDED, .client = 1, .round = 1},
                                   {.kind = FST_EVENT_REFUSED, .client = 2},
                                   {.kind = FST_EVENT_AGGREGATED},
                                   {.kind = FST_EVENT_PUBLISHED}};
    fst_round_view before = fst_round_look(e);
    for (size_t i = 0; i < sizeof stray / sizeof *stray; i++) {
        feed(e, stray[i]);
        assert_int_equal(fetch(e, FST_ACTION_LOG, &a), 1);
        assert_int_equal(a.why, FST_WHY_IGNORED);
    }
    fst_round_view after = fst_round_look(e);
    assert_true(before.folding == 1 && after.folding == 1 && after.folded == 0 && after.pending == before.pending);
    fst_round_free(e);
}

static void test_late_lost_and_deadline(void **state)
{
    (void)state;
    fst_fed_action a;
    fst_round_spec spec = {.clients = 4, .rounds = 1, .cohort = 4, .quorum = 2, .min_clients = 4, .deadline = 10};
    fst_round_engine *e = engine_of(&spec);
    join_all(e, 4);
    assert_int_equal(fetch(e, FST_ACTION_SET_TIMER, &a), 1);
    assert_true(a.at == 10);
    report(e, 0, 0, 5);
    fetch(e, FST_ACTION_LOG, NULL);
    feed(e, (fst_fed_event){.kind = FST_EVENT_LOST, .client = 0, .now = 1}); /* reported: counts */
    assert_int_equal(fetch(e, FST_ACTION_LOG, &a), 1);
    assert_int_equal(a.why, FST_WHY_LOST_COUNTED);
    feed(e, (fst_fed_event){.kind = FST_EVENT_LOST, .client = 1, .now = 1});
    assert_int_equal(fetch(e, FST_ACTION_LOG, &a), 1);
    assert_int_equal(a.why, FST_WHY_LOST_PENDING);
    report(e, 1, 0, 5); /* taken for lost, but its update came */
    fetch(e, FST_ACTION_LOG, NULL);
    feed(e, (fst_fed_event){.kind = FST_EVENT_TIMER, .now = 9.5}); /* too early */
    assert_int_equal(fetch(e, FST_ACTION_SET_TIMER, &a), 1);
    feed(e, (fst_fed_event){.kind = FST_EVENT_TIMER, .now = 10});
    assert_int_equal(fetch(e, FST_ACTION_CLOSE, &a), 1);
    assert_int_equal(a.why, FST_WHY_DEADLINE);
    assert_int_equal(a.count, 2);
    assert_int_equal(discarded(e, 2, 0, 5), FST_WHY_LATE);
    fst_round_free(e);
}

static void test_everyone_lost(void **state)
{
    (void)state;
    const fst_fed_action_kind end[] = {FST_ACTION_FAILED, FST_ACTION_FINISHED, FST_ACTION_FAILED};
    for (int policy = FST_QUORUM_FAIL; policy <= FST_QUORUM_EXTEND; policy++) {
        fst_round_spec spec = {
            .clients = 2, .rounds = 1, .fraction = 1, .min_clients = 2, .policy = (fst_quorum_policy)policy};
        fst_round_engine *e = engine_of(&spec);
        fst_fed_action a;
        int ended = 0;
        join_all(e, 2);
        fetch(e, FST_ACTION_LOG, NULL);
        feed(e, (fst_fed_event){.kind = FST_EVENT_LOST, .client = 0});
        fetch(e, FST_ACTION_LOG, NULL);
        feed(e, (fst_fed_event){.kind = FST_EVENT_LOST, .client = 1});
        while (fst_round_next_action(e, &a)) {
            assert_int_not_equal(a.kind, FST_ACTION_AGGREGATE);
            if (a.kind == FST_ACTION_CLOSE)
                assert_int_equal(a.why, FST_WHY_NO_QUORUM);
            ended += a.kind == end[policy];
        }
        assert_int_equal(ended, 1);
        fst_round_free(e);
    }
}

static void test_extension_asks_others(void **state)
{
    (void)state;
    fst_fed_action a = {0};
    fst_round_spec spec = {.clients = 5,
                           .rounds = 1,
                           .cohort = 2,
                           .quorum = 2,
                           .min_clients = 5,
                           .deadline = 10,
                           .policy = FST_QUORUM_EXTEND,
                           .max_extensions = 1};
    fst_round_engine *e = engine_of(&spec);
    join_all(e, 5);
    assert_int_equal(fetch(e, FST_ACTION_ANNOUNCE, &a), 2);
    feed(e, (fst_fed_event){.kind = FST_EVENT_REFUSED, .client = a.client});
    assert_int_equal(fetch(e, FST_ACTION_LOG, NULL), 1);
    assert_int_equal(discarded(e, a.client, 0, 4), FST_WHY_REFUSED_BEFORE);
    feed(e, (fst_fed_event){.kind = FST_EVENT_TIMER, .now = 11});
    fst_fed_action more = {0};
    assert_int_equal(fetch(e, FST_ACTION_ANNOUNCE, &more), 1); /* one is refused, one still pending */
    assert_int_equal(more.why, FST_WHY_EXTENDED);
    assert_int_not_equal(more.client, a.client);
    report(e, more.client, 0, 4);
    fetch(e, FST_ACTION_LOG, NULL);
    feed(e, (fst_fed_event){.kind = FST_EVENT_TIMER, .now = 21}); /* no extension is left */
    assert_int_equal(fetch(e, FST_ACTION_FAILED, &a), 1);
    assert_int_equal(a.why, FST_WHY_NO_QUORUM);
    assert_int_equal(a.count, 1);
    fst_round_free(e);
}

static void test_waiting_for_clients(void **state)
{
    (void)state;
    fst_fed_action a;
    fst_round_spec spec = {.clients = 5, .rounds = 1, .fraction = 0.5, .min_clients = 4, .join_deadline = 30};
    fst_round_engine *e = engine_of(&spec);
    feed(e, (fst_fed_event){.kind = FST_EVENT_JOINED, .client = 3, .now = -100});
    assert_int_equal(fetch(e, FST_ACTION_SET_TIMER, &a), 1);
    assert_true(a.at == -70);
    feed(e, (fst_fed_event){.kind = FST_EVENT_TIMER, .now = -70});
    assert_int_equal(fetch(e, FST_ACTION_FAILED, &a), 1);
    assert_int_equal(a.why, FST_WHY_NO_CLIENTS);
    fst_round_free(e);
}

static void test_zero_samples_and_rejoin(void **state)
{
    (void)state;
    fst_fed_action a;
    fst_round_engine *e = engine_of(&(fst_round_spec){.clients = 3, .rounds = 1, .fraction = 1, .min_clients = 3});
    join_all(e, 3);
    fetch(e, FST_ACTION_LOG, NULL);
    assert_int_equal(discarded(e, 0, 0, 0), FST_WHY_BAD_SAMPLES);
    assert_int_equal(discarded(e, 0, 0, 7), FST_WHY_REFUSED_BEFORE);
    feed(e, (fst_fed_event){.kind = FST_EVENT_LOST, .client = 1});
    fetch(e, FST_ACTION_LOG, NULL);
    feed(e, (fst_fed_event){.kind = FST_EVENT_JOINED, .client = 1});
    assert_int_equal(fetch(e, FST_ACTION_ANNOUNCE, &a), 1);
    assert_int_equal(a.why, FST_WHY_REJOINED);
    report(e, 1, 0, 3);
    fetch(e, FST_ACTION_LOG, NULL);
    report(e, 2, 0, 3);
    assert_int_equal(fetch(e, FST_ACTION_CLOSE, &a), 1);
    assert_int_equal(a.why, FST_WHY_ALL_ANSWERED);
    assert_int_equal(a.count, 2);
    fst_round_free(e);
}

static void test_over_selection(void **state)
{
    (void)state;
    fst_fed_action a;
    fst_round_spec spec = {.clients = 10, .rounds = 1, .cohort = 4, .over_select = 0.5, .min_clients = 10};
    fst_round_engine *e = engine_of(&spec);
    uint32_t asked[10], n = 0;
    join_all(e, 10);
    while (fst_round_next_action(e, &a))
        if (a.kind == FST_ACTION_ANNOUNCE)
            asked[n++] = a.client;
    assert_int_equal(n, 6);
    for (uint32_t i = 0; i < 4; i++) {
        fetch(e, FST_ACTION_LOG, NULL);
        report(e, asked[i + 1], 0, 1);
    }
    assert_int_equal(fetch(e, FST_ACTION_CLOSE, &a), 1);
    assert_int_equal(a.why, FST_WHY_ENOUGH);
    fst_round_free(e);
}

/* Every client comes up about equally often, never twice a round, and seeds differ. */
static void test_selection_is_fair(void **state)
{
    (void)state;
    enum { ROUNDS = 4000 };
    uint32_t count[2][10] = {{0}};
    uint64_t same = 0;
    static uint32_t mask[2][ROUNDS];
    for (int s = 0; s < 2; s++) {
        fst_round_spec spec = {.seed = (uint64_t)s, .clients = 10, .rounds = ROUNDS, .cohort = 3, .min_clients = 10};
        fst_round_engine *e = engine_of(&spec);
        join_all(e, 10);
        for (uint64_t round = 0; round < ROUNDS; round++) {
            uint32_t asked[10], n = 0;
            fst_fed_action a;
            while (fst_round_next_action(e, &a))
                if (a.kind == FST_ACTION_ANNOUNCE)
                    asked[n++] = a.client;
            assert_int_equal(n, 3);
            for (uint32_t i = 0; i < n; i++) {
                assert_false(mask[s][round] >> asked[i] & 1);
                mask[s][round] |= 1u << asked[i];
                count[s][asked[i]]++;
                fetch(e, FST_ACTION_LOG, NULL);
                report(e, asked[i], round, 1);
            }
            fetch(e, FST_ACTION_LOG, NULL);
            finish_round(e, round);
        }
        fst_round_free(e);
    }
    for (int c = 0; c < 10; c++)
        assert_in_range(count[0][c], 1200 - 145, 1200 + 145); /* five standard deviations */
    for (int r = 0; r < ROUNDS; r++)
        same += mask[0][r] == mask[1][r];
    assert_true(same < ROUNDS / 120 * 2); /* 1 in 120 by chance */
}

static void test_wrong_specs(void **state)
{
    (void)state;
    const fst_round_spec wrong[] = {
        {.clients = 0, .rounds = 1, .fraction = 1},
        {.clients = 3, .rounds = 1},
        {.clients = 3, .rounds = 1, .fraction = 1.5},
        {.clients = 3, .rounds = 1, .cohort = 4},
        {.clients = 3, .rounds = 1, .cohort = 2, .quorum = 3},
        {.clients = 3, .rounds = 1, .fraction = 1, .quorum = 4},
        {.clients = 3, .rounds = 1, .fraction = 1, .min_clients = 4},
        {.clients = 3, .rounds = 1, .fraction = 1, .over_select = -1},
        {.clients = 3, .rounds = 1, .fraction = 1, .deadline = -1},
        {.clients = 3, .rounds = 1, .first_round = 2, .fraction = 1},
        {.clients = 3, .rounds = 1, .fraction = 1, .policy = (fst_quorum_policy)7},
        {.clients = 3, .rounds = 1, .fraction = 1, .max_extensions = 256},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        fst_round_engine *e = NULL;
        fst_error err = {0};
        assert_int_equal(fst_round_new(&e, &wrong[i], &err), FST_E_CONFIG);
        assert_null(e);
        assert_true(strlen(err.message) > 10);
    }
    fst_round_engine *e = engine_of(&(fst_round_spec){.clients = 2, .rounds = 1, .fraction = 1});
    fst_error err;
    assert_int_equal(fst_round_event(e, &(fst_fed_event){.kind = (fst_fed_event_kind)99}, &err), FST_E_ARGUMENT);
    assert_int_equal(fst_round_event(e, &(fst_fed_event){.now = 0.0 / 0.0}, &err), FST_E_ARGUMENT);
    feed(e, (fst_fed_event){.kind = FST_EVENT_JOINED}); /* its actions are not fetched */
    assert_int_equal(fst_round_event(e, &(fst_fed_event){.kind = FST_EVENT_TIMER}, &err), FST_E_ARGUMENT);
    fst_round_free(e);
}

static void test_texts(void **state)
{
    (void)state;
    char line[200];
    fst_fed_action a = {.kind = FST_ACTION_DISCARD, .why = FST_WHY_STALE, .client = 7, .round = 3};
    assert_string_equal(fst_fed_action_text(&a, line, sizeof line),
                        "round 4: client 8: discarded: of an earlier round");
    a = (fst_fed_action){.kind = FST_ACTION_LOG, .why = FST_WHY_OPENED, .count = 5};
    assert_string_equal(fst_fed_action_text(&a, line, sizeof line), "round 1: opened, clients asked: 5");
    for (int w = FST_WHY_SELECTED; w < FST_WHY_COUNT; w++)
        assert_true(strlen(fst_fed_why_text((fst_fed_why)w)) > 3);
    assert_string_equal(fst_fed_why_text(FST_WHY_COUNT), "unknown reason");
    assert_string_equal(fst_round_phase_name(FST_PHASE_COLLECT), "collect");
    fst_fed_action_text(&a, line, 5);
    assert_string_equal(line, "roun");
}

/* ---- random histories ---- */

/* What an observer knows who sees only events and actions. */
struct account {
    fst_round_spec spec;
    uint64_t round;
    uint32_t asked[MOST], folded, folding;
    bool open, closed, aggregate, publish, over;
    bool in[MOST], waits[MOST];
    uint64_t closes, events;
    double timer;
    bool has_timer;
    uint64_t to_fold;
};

/* Every round closes once before the next one opens. */
static void observe_opened(struct account *k, uint64_t round)
{
    assert_false(k->open);
    assert_true(round == (k->closes ? k->round + 1 : k->spec.first_round));
    k->round = round;
    k->open = true;
    k->closed = k->aggregate = k->publish = false;
    k->folded = 0;
    memset(k->asked, 0, sizeof k->asked);
    memset(k->in, 0, sizeof k->in);
}

static void observe(struct account *k, const fst_fed_event *ev, const fst_fed_action *a)
{
    uint32_t quorum = k->spec.quorum ? k->spec.quorum : 1;
    assert_false(k->over);
    switch (a->kind) {
    case FST_ACTION_ANNOUNCE:
        assert_true(a->client < k->spec.clients && k->open && a->round == k->round);
        assert_false(k->in[a->client]);
        if (a->why != FST_WHY_REJOINED)
            assert_int_equal(k->asked[a->client], 0); /* without replacement */
        k->asked[a->client]++;
        break;
    case FST_ACTION_FOLD:
        assert_int_equal(ev->kind, FST_EVENT_UPDATE);
        assert_true(k->open && a->round == k->round && ev->round == k->round && a->client == ev->client);
        assert_true(k->asked[a->client] && ev->samples > 0);
        assert_false(k->in[a->client] || k->waits[a->client]);
        k->waits[a->client] = true;
        k->folding++;
        break;
    case FST_ACTION_DISCARD:
        assert_int_equal(ev->kind, FST_EVENT_UPDATE);
        assert_true(a->why >= FST_WHY_DUPLICATE && a->why <= FST_WHY_ENDED);
        break;
    case FST_ACTION_CLOSE:
        assert_true(k->open && k->folding == 0 && a->round == k->round && a->count == k->folded);
        assert_true((a->why == FST_WHY_NO_QUORUM) == (k->folded < quorum));
        k->open = false;
        k->closed = true;
        k->closes++;
        break;
    case FST_ACTION_AGGREGATE:
        assert_true(k->closed && !k->aggregate && k->folded >= quorum);
        k->aggregate = true;
        break;
    case FST_ACTION_PUBLISH:
        assert_true(k->aggregate && !k->publish);
        k->publish = true;
        break;
    case FST_ACTION_SET_TIMER:
        k->has_timer = true;
        k->timer = a->at;
        break;
    case FST_ACTION_FINISHED:
    case FST_ACTION_FAILED:
        break;
    case FST_ACTION_LOG:
        if (a->why == FST_WHY_OPENED)
            observe_opened(k, a->round);
        break;
    }
    if (a->kind == FST_ACTION_FINISHED)
        assert_true(k->closes == k->spec.rounds - k->spec.first_round);
}

static void account_answer(struct account *k, const fst_fed_event *ev)
{
    if (ev->kind == FST_EVENT_PUBLISHED && ev->round == k->round && k->publish)
        k->aggregate = k->publish = false;
    bool mine = ev->client < k->spec.clients && ev->round == k->round && k->waits[ev->client];
    if ((ev->kind != FST_EVENT_FOLDED && ev->kind != FST_EVENT_REFUSED) || !mine)
        return;
    k->waits[ev->client] = false;
    k->folding--;
    if (ev->kind == FST_EVENT_FOLDED) {
        k->in[ev->client] = true;
        k->folded++;
    }
}

static fst_round_spec random_spec(fst_rng *r)
{
    fst_round_spec s = {.seed = fst_rng_u64(r), .clients = 1 + (uint32_t)fst_rng_below(r, MOST)};
    s.rounds = 1 + fst_rng_below(r, 12);
    s.first_round = fst_rng_below(r, s.rounds);
    if (fst_rng_below(r, 2))
        s.cohort = 1 + (uint32_t)fst_rng_below(r, s.clients);
    s.fraction = 0.05 + 0.95 * fst_rng_uniform(r);
    if (fst_rng_below(r, 3) == 0)
        s.over_select = fst_rng_uniform(r);
    s.quorum = (uint32_t)fst_rng_below(r, (s.cohort ? s.cohort : s.clients) + 1);
    s.min_clients = (uint32_t)fst_rng_below(r, s.clients + 1);
    s.deadline = fst_rng_below(r, 3) ? 1 + 20 * fst_rng_uniform(r) : 0;
    s.join_deadline = fst_rng_below(r, 4) ? 0 : 50;
    s.policy = (fst_quorum_policy)fst_rng_below(r, 3);
    s.max_extensions = (uint32_t)fst_rng_below(r, 5);
    return s;
}

/* Mostly what could happen, sometimes nonsense. */
static fst_fed_event random_event(fst_rng *r, const struct account *k, double now)
{
    fst_fed_event ev = {.now = now, .round = k->round, .samples = 1 + (int64_t)fst_rng_below(r, 100)};
    ev.client = (uint32_t)fst_rng_below(r, k->spec.clients + (fst_rng_below(r, 20) == 0));
    uint64_t dice = fst_rng_below(r, 100);
    if (k->aggregate && dice < 40) {
        ev.kind = k->publish ? FST_EVENT_PUBLISHED : FST_EVENT_AGGREGATED;
    } else if (k->folding && dice < 50) {
        while (ev.client >= k->spec.clients || !k->waits[ev.client])
            ev.client = (uint32_t)fst_rng_below(r, k->spec.clients);
        ev.kind = dice < 44 ? FST_EVENT_FOLDED : FST_EVENT_REFUSED;
    } else if (dice < 72) {
        ev.kind = FST_EVENT_UPDATE;
        if (dice < 56)
            ev.round += fst_rng_below(r, 3) - 1;
        if (dice == 70)
            ev.samples = -(int64_t)fst_rng_below(r, 3);
        if (dice == 71)
            ev.samples = INT64_MAX;
    } else if (dice < 86) {
        ev.kind = FST_EVENT_JOINED;
    } else if (dice < 90) {
        ev.kind = FST_EVENT_LOST;
    } else if (dice < 96) {
        ev.kind = FST_EVENT_TIMER;
    } else {
        ev.kind = (fst_fed_event_kind)fst_rng_below(r, 8);
        if (ev.kind != FST_EVENT_TIMER)
            ev.round += fst_rng_below(r, 3);
    }
    return ev;
}

static bool same_action(const fst_fed_action *a, const fst_fed_action *b)
{
    return a->kind == b->kind && a->why == b->why && a->client == b->client && a->round == b->round &&
           a->count == b->count && a->at == b->at;
}

/* Replaces *e by what its bytes restore to, where it may be saved at all. */
static void reincarnate(fst_round_engine **e)
{
    fst_buf before = {0}, after = {0};
    fst_error err;
    fst_round_engine *again = NULL;
    fst_round_view v = fst_round_look(*e);
    if (v.folded || v.folding || v.phase == FST_PHASE_AGGREGATE || v.phase == FST_PHASE_PUBLISH) {
        assert_int_equal(fst_round_save(*e, &before, &err), FST_E_ARGUMENT);
        assert_int_equal(before.len, 0);
        return;
    }
    ok(fst_round_save(*e, &before, &err), &err);
    ok(fst_round_restore(&again, before.data, before.len, &err), &err);
    ok(fst_round_save(again, &after, &err), &err);
    assert_int_equal(before.len, after.len);
    assert_memory_equal(before.data, after.data, before.len);
    fst_round_view a = fst_round_look(*e), b = fst_round_look(again);
    assert_true(a.joined == b.joined && a.pending == b.pending && a.folding == b.folding && a.folded == b.folded &&
                a.lost == b.lost && a.refused == b.refused && a.samples == b.samples && a.phase == b.phase);
    fst_round_free(*e);
    *e = again;
    fst_buf_release(&before);
    fst_buf_release(&after);
}

/* One history: `twin` sees the same events and is saved, killed and restored at random points, between
 * events and between fetched actions. */
static void one_history(fst_rng *r, struct account *k)
{
    *k = (struct account){.spec = random_spec(r)};
    fst_round_engine *e = engine_of(&k->spec), *twin = engine_of(&k->spec);
    fst_error err;
    double now = 100 * fst_rng_uniform(r) - 50;
    k->round = k->spec.first_round;
    for (int i = 0; i < 20000 && !k->over; i++) {
        fst_fed_action a, b;
        now += fst_rng_uniform(r) * (fst_rng_below(r, 30) ? 0.1 : 10);
        fst_fed_event ev = random_event(r, k, now - (fst_rng_below(r, 50) ? 0 : 5));
        if (fst_rng_below(r, 16) == 0)
            reincarnate(&twin);
        ok(fst_round_event(e, &ev, &err), &err);
        ok(fst_round_event(twin, &ev, &err), &err);
        k->events++;
        account_answer(k, &ev);
        bool ended = false;
        while (fst_round_next_action(e, &a)) {
            if (fst_rng_below(r, 16) == 0)
                reincarnate(&twin);
            assert_true(fst_round_next_action(twin, &b));
            assert_true(same_action(&a, &b));
            observe(k, &ev, &a);
            ended |= a.kind == FST_ACTION_FINISHED || a.kind == FST_ACTION_FAILED;
        }
        assert_false(fst_round_next_action(twin, &b));
        k->over = ended;
    }
    assert_true(k->over); /* among joins and timers every history comes to an end */
    fst_round_free(e);
    fst_round_free(twin);
}

static void test_random_histories(void **state)
{
    (void)state;
    static struct account k;
    uint64_t events = 0, histories = 0, rounds = 0;
    fst_rng r;
    fst_rng_init(&r, 20240607, "test.round", 0);
    while (events < 1200000) {
        one_history(&r, &k);
        events += k.events;
        rounds += k.closes;
        histories++;
    }
    assert_true(histories > 1000 && rounds > 5000); /* they did get somewhere */
    print_message("%llu events, %llu histories, %llu rounds\n", (unsigned long long)events,
                  (unsigned long long)histories, (unsigned long long)rounds);
}

/* A crash after an update was folded: its sum is not in the engine's bytes, so an engine that comes out of them must
 * take the update again when it is delivered again. It does, or there are no such bytes. */
static void test_redelivered_after_a_crash(void **state)
{
    (void)state;
    fst_round_spec spec = {.clients = 3, .rounds = 2, .fraction = 1, .min_clients = 3};
    const fst_fed_event update = {.kind = FST_EVENT_UPDATE, .client = 1, .samples = 5};
    fst_fed_event folded = update;
    fst_round_engine *e = engine_of(&spec), *again = NULL;
    fst_buf saved = {0};
    fst_fed_action a;
    fst_error err;
    join_all(e, 3);
    while (fst_round_next_action(e, &a))
        ;
    ok(fst_round_save(e, &saved, &err), &err); /* before the first update it may be saved */
    saved.len = 0;
    folded.kind = FST_EVENT_FOLDED;
    ok(fst_round_event(e, &update, &err), &err);
    assert_true(fst_round_next_action(e, &a) && a.kind == FST_ACTION_FOLD);
    ok(fst_round_event(e, &folded, &err), &err);
    while (fst_round_next_action(e, &a))
        ;
    if (!fst_round_save(e, &saved, &err)) {
        ok(fst_round_restore(&again, saved.data, saved.len, &err), &err);
        ok(fst_round_event(again, &update, &err), &err);
        assert_true(fst_round_next_action(again, &a));
        assert_int_equal(a.kind, FST_ACTION_FOLD);
    } else {
        assert_int_equal(err.status, FST_E_ARGUMENT);
        assert_non_null(strstr(err.message, "round 1 has taken updates"));
    }
    fst_buf_release(&saved);
    fst_round_free(again);
    fst_round_free(e);
}

/* ---- damaged bytes, memory ---- */

static void test_damaged_bytes(void **state)
{
    (void)state;
    fst_buf saved = {0};
    fst_error err;
    fst_round_spec spec = {.clients = 6, .rounds = 3, .cohort = 3, .min_clients = 6, .deadline = 3};
    fst_round_engine *e = engine_of(&spec), *none = NULL;
    join_all(e, 6);
    ok(fst_round_save(e, &saved, &err), &err);
    for (size_t n = 0; n < saved.len; n++)
        assert_int_equal(fst_round_restore(&none, saved.data, n, &err), FST_E_FORMAT);
    for (size_t i = 0; i < saved.len * 8; i++) {
        saved.data[i / 8] ^= (char)(1 << (i % 8));
        assert_int_equal(fst_round_restore(&none, saved.data, saved.len, &err), FST_E_FORMAT);
        /* with the hash made good again nothing worse than a refusal or a sane engine comes out */
        uint64_t keep, hash = fst_hash(saved.data, saved.len - 8, 0).lo;
        memcpy(&keep, saved.data + saved.len - 8, 8);
        memcpy(saved.data + saved.len - 8, &hash, 8);
        fst_round_engine *odd = NULL;
        if (i / 8 < saved.len - 8 && fst_round_restore(&odd, saved.data, saved.len, NULL) == FST_OK) {
            fst_fed_action a;
            for (uint32_t k = 0; k < 40; k++) {
                while (fst_round_next_action(odd, &a))
                    assert_true((a.kind != FST_ACTION_ANNOUNCE && a.kind != FST_ACTION_FOLD) || a.client < 6);
                fst_fed_event ev = {.kind = (fst_fed_event_kind)(k % 8), .client = k % 7, .samples = 1, .now = k};
                ev.round = fst_round_look(odd).round;
                ok(fst_round_event(odd, &ev, &err), &err);
            }
            fst_round_free(odd);
        }
        memcpy(saved.data + saved.len - 8, &keep, 8);
        saved.data[i / 8] ^= (char)(1 << (i % 8));
    }
    assert_null(none);
    fst_buf_release(&saved);
    fst_round_free(e);
}

static void test_memory(void **state)
{
    (void)state;
    fst_error err;
    fst_round_spec spec = {.clients = 4, .rounds = 50, .fraction = 1, .min_clients = 4};
    fst_round_engine *e = NULL;
    for (uint64_t n = 1; n <= 3; n++) {
        fst_alloc_fail_at(n);
        assert_int_equal(fst_round_new(&e, &spec, &err), FST_E_MEMORY);
        fst_alloc_fail_at(0);
        assert_null(e);
    }
    e = engine_of(&spec);
    join_all(e, 4);
    uint64_t before = fst_alloc_count();
    for (uint64_t round = 0; round < 50; round++) {
        for (uint32_t c = 0; c < 4; c++) {
            fetch(e, FST_ACTION_LOG, NULL);
            report(e, c, round, 1);
        }
        fetch(e, FST_ACTION_LOG, NULL);
        finish_round(e, round);
    }
    assert_true(fst_alloc_count() == before);
    assert_int_equal(fst_round_look(e).phase, FST_PHASE_FINISHED);
    fst_round_free(e);
    fst_round_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_two_plain_rounds),
        cmocka_unit_test(test_copies_and_stray_answers),
        cmocka_unit_test(test_late_lost_and_deadline),
        cmocka_unit_test(test_everyone_lost),
        cmocka_unit_test(test_extension_asks_others),
        cmocka_unit_test(test_waiting_for_clients),
        cmocka_unit_test(test_zero_samples_and_rejoin),
        cmocka_unit_test(test_over_selection),
        cmocka_unit_test(test_selection_is_fair),
        cmocka_unit_test(test_wrong_specs),
        cmocka_unit_test(test_texts),
        cmocka_unit_test(test_random_histories),
        cmocka_unit_test(test_redelivered_after_a_crash),
        cmocka_unit_test(test_damaged_bytes),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* The simulation: the same bits for any number of workers and any timing, faults that stay where they are,
 * resuming, the report's numbers, and the price of a round. Also meant for the thread sanitizer. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "fedstill/fed.h"

enum { CLIENTS = 30, ROUNDS = 8, WORKERS = 4 };
static const fst_fed_size SIZE = {1000, 10, 2};

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

/* One run: how clients behave, and what was seen of it. */
struct run {
    int64_t samples[CLIENTS];
    uint32_t failing, nan_client, zero_client; /* CLIENTS: none */
    uint64_t cancel_round;                     /* UINT64_MAX: never */
    atomic_int let_through;                    /* of that round: so many clients answer before it is cancelled */
    uint64_t stop_after;                       /* round_done cancels there */
    bool everybody_fails;
    atomic_int inside[WORKERS], trained;
    fst_round_report report[ROUNDS];
    int reports;
    fst_client_report client[CLIENTS]; /* of the last round, `seen` of them */
    size_t seen;
    char why[80]; /* what became of `failing` there */
};

/* The one that fails is also slow: with several workers, others that fail after it are ready before it. */
static void pause_a_little(uint32_t client, uint64_t round, bool slow)
{
    struct timespec t = {0, (long)((client * 7919u + round * 104729u) % 5u) * 100000L + (slow ? 5000000L : 0)};
    nanosleep(&t, NULL);
}

/* A worker's room for a client's model. */
static fst_fed_state *room_of(int worker)
{
    static fst_fed_state room[WORKERS];
    fst_error err;
    if (!room[worker].params)
        ok(fst_fed_state_init(&room[worker], SIZE, &err), &err);
    return &room[worker];
}

static fst_status train(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    struct run *r = ctx;
    uint32_t client = down->client;
    uint64_t round = down->round;
    fst_rng rng;
    fst_fed_view global;
    assert_true(worker >= 0 && worker < WORKERS);
    assert_int_equal(atomic_fetch_add(&r->inside[worker], 1), 0);
    atomic_fetch_add(&r->trained, 1);
    pause_a_little(client, round, client == r->failing);
    fst_rng_init(&rng, round, "test.train", client);
    ok(fst_message_state(down, SIZE, &global, err), err);
    assert_true(up->client == client && up->round == round && up->samples == r->samples[client]);
    fst_fed_state *update = room_of(worker);
    fst_fed_state_copy(update, &global);
    for (size_t i = 0; i < SIZE.params; i++)
        update->params[i] += (float)(0.1 * fst_rng_normal(&rng)) - 0.125f * update->params[i];
    for (size_t i = 0; i < SIZE.buffers; i++)
        update->buffers[i] = (float)fst_rng_uniform(&rng);
    update->counters[0] += client;
    up->loss = fst_rng_uniform(&rng);
    up->accuracy = fst_rng_uniform(&rng);
    if (client == r->nan_client)
        update->buffers[3] = NAN;
    if (client == r->zero_client)
        up->samples = 0;
    fst_fed_view view = fst_fed_state_view(update);
    ok(fst_message_add_state(up, &view, err), err);
    fst_status st = FST_OK;
    if (client == r->failing || r->everybody_fails)
        st = fst_fail(err, FST_E_IO, "disk %u is on fire", (unsigned)client);
    else if (round == r->cancel_round && atomic_fetch_sub(&r->let_through, 1) <= 0)
        st = FST_E_CANCELLED;
    atomic_fetch_sub(&r->inside[worker], 1);
    return st;
}

static fst_status round_done(void *ctx, const fst_server *server, const fst_round_report *report, fst_error *err)
{
    struct run *r = ctx;
    assert_non_null(server);
    assert_true(r->reports < ROUNDS);
    for (uint32_t i = 0; i < report->reported; i++) {
        uint32_t c = report->reported_client[i];
        assert_true(c < CLIENTS && r->samples[c] > 0 && c != r->failing && c != r->nan_client);
    }
    r->seen = report->selected;
    assert_true(r->seen <= CLIENTS);
    memcpy(r->client, report->by_client, r->seen * sizeof *r->client);
    for (size_t i = 0; i < r->seen; i++)
        if (r->client[i].client == r->failing)
            snprintf(r->why, sizeof r->why, "%s", report->by_client[i].lost);
    r->report[r->reports] = *report;
    r->report[r->reports].by_client = NULL;
    r->report[r->reports++].reported_client = NULL; /* valid here only */
    return report->round == r->stop_after ? fst_fail(err, FST_E_CANCELLED, "enough") : FST_OK;
}

static struct run plain_run(void)
{
    struct run r = {.failing = CLIENTS,
                    .nan_client = CLIENTS,
                    .zero_client = CLIENTS,
                    .cancel_round = UINT64_MAX,
                    .stop_after = UINT64_MAX};
    for (int c = 0; c < CLIENTS; c++)
        r.samples[c] = 10 + 37 * c;
    return r;
}

static fst_simulate_spec plain_spec(struct run *r)
{
    return (fst_simulate_spec){.seed = 5,
                               .clients = CLIENTS,
                               .samples = r->samples,
                               .rounds = ROUNDS,
                               .cohort = 9,
                               .workers = 1,
                               .ctx = r,
                               .work = train,
                               .round_done = round_done};
}

static fst_fed_state start_state(void)
{
    fst_fed_state s;
    fst_error err;
    ok(fst_fed_state_init(&s, SIZE, &err), &err);
    for (size_t i = 0; i < SIZE.params; i++)
        s.params[i] = (float)i / 1000;
    return s;
}

static fst_strategy *strategy_of(const char *name, fst_fed_state *global)
{
    fst_strategy *s = NULL;
    fst_error err;
    const fst_server_env env = {.clients = CLIENTS, .global = global};
    ok(fst_strategy_new(&s, fst_strategy_find(name), NULL, 0, &env, &err), &err);
    return s;
}

static fst_status simulate(fst_simulate_spec spec, fst_fed_state *global, fst_error *err)
{
    fst_strategy *s = strategy_of("fedavg", global);
    spec.strategy = s;
    fst_status st = fst_simulate(&spec, err);
    fst_strategy_free(s);
    return st;
}

static void assert_same_state(const fst_fed_state *a, const fst_fed_state *b)
{
    assert_memory_equal(a->params, b->params, 4 * SIZE.params);
    assert_memory_equal(a->buffers, b->buffers, 4 * SIZE.buffers);
    assert_memory_equal(a->counters, b->counters, 8 * SIZE.counters);
}

static void assert_same_report(fst_round_report a, fst_round_report b)
{
    a.seconds = b.seconds = 0;
    assert_true(a.round == b.round && a.selected == b.selected && a.reported == b.reported && a.lost == b.lost);
    assert_true(a.aggregated == b.aggregated && a.why == b.why && a.samples == b.samples);
    assert_memory_equal(&a.loss, &b.loss, sizeof a.loss);
    assert_memory_equal(&a.accuracy, &b.accuracy, sizeof a.accuracy);
    assert_true(a.update_norm == b.update_norm && a.bytes_up == b.bytes_up && a.bytes_down == b.bytes_down);
    assert_int_equal(a.lost_named, b.lost_named);
    for (uint32_t i = 0; i < a.lost_named; i++) {
        assert_int_equal(a.lost_first[i].client, b.lost_first[i].client);
        assert_string_equal(a.lost_first[i].message, b.lost_first[i].message);
    }
}

static void test_workers_do_not_matter(void **state)
{
    (void)state;
    static struct run first;
    fst_fed_state want = start_state();
    fst_error err;
    for (int workers = 1; workers <= WORKERS; workers++) {
        struct run r = plain_run();
        r.failing = 3;
        r.nan_client = 11;
        r.zero_client = 20;
        fst_fed_state global = start_state();
        fst_simulate_spec spec = plain_spec(&r);
        spec.workers = workers;
        spec.fraction = 0.9;
        spec.cohort = 0;
        ok(simulate(spec, workers == 1 ? &want : &global, &err), &err);
        assert_int_equal(r.reports, ROUNDS);
        assert_int_equal(r.trained, ROUNDS * 27);
        if (workers == 1)
            memcpy(&first, &r, sizeof first);
        else
            assert_same_state(&want, &global);
        for (int k = 0; k < ROUNDS; k++)
            assert_same_report(first.report[k], r.report[k]);
        fst_fed_state_release(&global);
    }
    fst_fed_state_release(&want);
}

/* Of the last round, as they were seen in round_done. */
static void check_clients(const struct run *r, uint64_t bytes)
{
    const fst_round_report *last = &r->report[r->reports - 1];
    double loss = 0;
    size_t reported = 0;
    assert_int_equal(r->seen, 29);
    for (size_t i = 0; i < r->seen; i++) {
        const fst_client_report *c = &r->client[i];
        bool fails = c->client == (uint32_t)r->failing, nan = c->client == (uint32_t)r->nan_client;
        assert_int_equal(c->reported, !fails && !nan);
        assert_int_equal(c->samples, r->samples[c->client]);
        assert_int_equal(c->bytes_down, bytes);
        assert_int_equal(c->bytes_up, fails ? 0 : bytes);
        assert_true(c->seconds >= 0);
        assert_true(isnan(c->loss) == fails);
        if (c->reported) {
            assert_null(c->lost);
            loss += c->loss * (double)c->samples;
            reported++;
        } else if (fails) {
            assert_string_equal(r->why, "disk 3 is on fire");
        }
    }
    assert_int_equal(reported, last->reported);
    assert_true(fabs(loss / (double)last->samples - last->loss) < 1e-12);
}

static void test_report_numbers(void **state)
{
    (void)state;
    struct run r = plain_run();
    fst_fed_state global = start_state();
    fst_error err;
    fst_simulate_spec spec = plain_spec(&r);
    spec.cohort = 0;
    spec.workers = 2;
    r.samples[7] = 0; /* never takes part */
    r.failing = 3;
    r.nan_client = 11;
    ok(simulate(spec, &global, &err), &err);
    const fst_round_report *p = &r.report[2];
    uint64_t bytes = 4 * (1000 + 10) + 8 * 2;
    double loss = 0, accuracy = 0, samples = 0;
    for (uint32_t c = 0; c < CLIENTS; c++) {
        fst_rng rng;
        if (c == 7 || c == 3 || c == 11)
            continue;
        fst_rng_init(&rng, 2, "test.train", c);
        for (size_t i = 0; i < SIZE.params; i++)
            (void)fst_rng_normal(&rng);
        for (size_t i = 0; i < SIZE.buffers; i++)
            (void)fst_rng_uniform(&rng);
        loss += fst_rng_uniform(&rng) * (double)r.samples[c];
        accuracy += fst_rng_uniform(&rng) * (double)r.samples[c];
        samples += (double)r.samples[c];
    }
    assert_int_equal(p->round, 2);
    assert_int_equal(p->selected, 29);
    assert_int_equal(p->reported, 27);
    assert_int_equal(p->lost, 2);
    assert_int_equal(p->lost_named, 2);
    assert_true(p->aggregated);
    assert_int_equal(p->why, FST_WHY_ALL_ANSWERED);
    assert_int_equal(p->samples, (uint64_t)samples);
    assert_true(fabs(p->loss - loss / samples) < 1e-12);
    assert_true(fabs(p->accuracy - accuracy / samples) < 1e-12);
    assert_int_equal(p->bytes_down, 29 * bytes);
    assert_int_equal(p->bytes_up, 28 * bytes); /* the one with NaN was sent */
    assert_true(p->update_norm > 0 && p->seconds >= 0);
    check_clients(&r, bytes);
    bool fire = false, nan = false;
    for (int i = 0; i < 2; i++) {
        fire |= p->lost_first[i].client == 3 && strcmp(p->lost_first[i].message, "disk 3 is on fire") == 0;
        nan |= p->lost_first[i].client == 11 && strstr(p->lost_first[i].message, "nan");
    }
    assert_true(fire && nan);
    assert_int_equal(global.counters[0], 29 * ROUNDS); /* the largest, round by round */
    fst_fed_state_release(&global);
}

static void test_resume_is_the_same(void **state)
{
    (void)state;
    struct run whole = plain_run(), part = plain_run();
    fst_fed_state want = start_state(), global = start_state();
    fst_error err;
    ok(simulate(plain_spec(&whole), &want, &err), &err);
    part.stop_after = 4;
    assert_int_equal(simulate(plain_spec(&part), &global, &err), FST_E_CANCELLED);
    assert_string_equal(err.message, "enough");
    assert_int_equal(part.reports, 5);
    struct run rest = plain_run();
    fst_simulate_spec spec = plain_spec(&rest);
    spec.first_round = 5;
    spec.workers = 3;
    ok(simulate(spec, &global, &err), &err);
    assert_same_state(&want, &global);
    for (int k = 0; k < ROUNDS; k++)
        assert_same_report(whole.report[k], k < 5 ? part.report[k] : rest.report[k - 5]);
    spec.first_round = ROUNDS; /* nothing left to do */
    ok(simulate(spec, &global, &err), &err);
    assert_same_state(&want, &global);
    fst_fed_state_release(&want);
    fst_fed_state_release(&global);
}

/* What is shared and what the strategy keeps are then the last complete round's, and can be saved, though updates of
 * the open round were folded. */
static void test_cancelled_inside_a_round(void **state)
{
    (void)state;
    for (int workers = 1; workers <= 2; workers++) {
        struct run r = plain_run(), shorter = plain_run();
        fst_fed_state global = start_state(), want = start_state();
        fst_strategy *cancelled = strategy_of("fedadam", &global), *whole = strategy_of("fedadam", &want);
        fst_buf saved = {0}, expected = {0};
        fst_error err;
        fst_simulate_spec spec = plain_spec(&r);
        spec.workers = workers;
        spec.strategy = cancelled;
        r.cancel_round = 3;
        r.let_through = 4;
        assert_int_equal(fst_simulate(&spec, &err), FST_E_CANCELLED);
        assert_int_equal(r.reports, 3);
        spec = plain_spec(&shorter);
        spec.rounds = 3;
        spec.strategy = whole;
        ok(fst_simulate(&spec, &err), &err);
        assert_same_state(&want, &global);
        ok(fst_strategy_save(cancelled, &saved, &err), &err);
        ok(fst_strategy_save(whole, &expected, &err), &err);
        assert_int_equal(saved.len, expected.len);
        assert_memory_equal(saved.data, expected.data, saved.len);
        fst_buf_release(&saved);
        fst_buf_release(&expected);
        fst_strategy_free(cancelled);
        fst_strategy_free(whole);
        fst_fed_state_release(&global);
        fst_fed_state_release(&want);
    }
}

static void test_nobody_reports(void **state)
{
    (void)state;
    for (int policy = FST_QUORUM_FAIL; policy <= FST_QUORUM_EXTEND; policy++) {
        struct run r = plain_run();
        fst_fed_state global = start_state(), start = start_state();
        fst_error err;
        fst_simulate_spec spec = plain_spec(&r);
        spec.workers = 2;
        spec.policy = (fst_quorum_policy)policy;
        spec.max_extensions = 100;
        r.everybody_fails = true;
        fst_status st = simulate(spec, &global, &err);
        assert_int_equal(st, policy == FST_QUORUM_SKIP ? FST_OK : FST_E_IO);
        assert_same_state(&start, &global);
        assert_int_equal(r.reports, policy == FST_QUORUM_SKIP ? ROUNDS : 0);
        assert_int_equal(r.trained, policy == FST_QUORUM_SKIP ? 9 * ROUNDS : policy == FST_QUORUM_FAIL ? 9 : CLIENTS);
        if (policy != FST_QUORUM_SKIP)
            assert_non_null(strstr(err.message, "is on fire"));
        for (int k = 0; k < r.reports; k++) {
            assert_false(r.report[k].aggregated);
            assert_int_equal(r.report[k].lost, 9);
            assert_int_equal(r.report[k].lost_named, FST_REPORT_LOST);
            assert_int_equal(r.report[k].why, FST_WHY_NO_QUORUM);
            assert_true(isnan(r.report[k].loss));
        }
        fst_fed_state_release(&global);
        fst_fed_state_release(&start);
    }
}

/* With a quorum of the whole cohort, one failure is made good by asking another client. */
static void test_extension_fills_up(void **state)
{
    (void)state;
    fst_fed_state want = start_state();
    for (int workers = 1; workers <= WORKERS; workers++) {
        struct run r = plain_run();
        fst_fed_state global = start_state();
        fst_error err;
        fst_simulate_spec spec = plain_spec(&r);
        spec.workers = workers;
        spec.quorum = 9;
        spec.policy = FST_QUORUM_EXTEND;
        spec.max_extensions = 3;
        r.failing = 3;
        r.nan_client = 4;
        ok(simulate(spec, workers == 1 ? &want : &global, &err), &err);
        uint32_t lost = 0;
        for (int k = 0; k < ROUNDS; k++) {
            assert_int_equal(r.report[k].reported, 9);
            assert_int_equal(r.report[k].selected, 9 + r.report[k].lost);
            lost += r.report[k].lost;
        }
        assert_true(lost > 0);
        if (workers > 1)
            assert_same_state(&want, &global);
        fst_fed_state_release(&global);
    }
    fst_fed_state_release(&want);
}

static void test_wrong_specs(void **state)
{
    (void)state;
    struct run r = plain_run();
    fst_fed_state global = start_state();
    fst_error err;
    fst_simulate_spec spec = plain_spec(&r);
    spec.workers = 0;
    assert_int_equal(simulate(spec, &global, &err), FST_E_ARGUMENT);
    spec = plain_spec(&r);
    spec.cohort = 31;
    assert_int_equal(simulate(spec, &global, &err), FST_E_CONFIG);
    spec = plain_spec(&r);
    assert_int_equal(fst_simulate(&spec, &err), FST_E_ARGUMENT); /* no strategy */
    memset(r.samples, 0, sizeof r.samples);
    assert_int_equal(simulate(spec, &global, &err), FST_E_CONFIG);
    r.samples[2] = -1;
    assert_int_equal(simulate(spec, &global, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "client 3 has -1 samples"));
    fst_fed_state_release(&global);
}

static void test_out_of_memory(void **state)
{
    (void)state;
    fst_error err;
    fst_status st = FST_E_MEMORY;
    fst_fed_state start = start_state();
    (void)room_of(0), (void)room_of(1);
    for (uint64_t n = 1; st == FST_E_MEMORY && n < 100; n++) {
        struct run r = plain_run();
        fst_fed_state global = start_state();
        fst_strategy *s = strategy_of("fedavg", &global);
        fst_simulate_spec spec = plain_spec(&r);
        spec.rounds = 1;
        spec.workers = 2;
        spec.strategy = s;
        fst_alloc_fail_at(n);
        st = fst_simulate(&spec, &err);
        fst_alloc_fail_at(0);
        if (st)
            assert_same_state(&start, &global);
        fst_fed_state_release(&global);
        fst_strategy_free(s);
    }
    assert_int_equal(st, FST_OK);
    fst_fed_state_release(&start);
}

/* ---- what a round costs ---- */

static fst_status send_it_back(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    fst_fed_view v;
    fst_status st = fst_message_state(down, *(const fst_fed_size *)ctx, &v, err);
    (void)worker;
    up->samples = 1;
    return st ? st : fst_message_add_state(up, &v, err);
}

static void test_rounds_allocate_nothing(void **state)
{
    (void)state;
    fst_fed_state global;
    fst_error err;
    fst_fed_size size = {8192, 0, 0};
    ok(fst_fed_state_init(&global, size, &err), &err);
    fst_strategy *s = strategy_of("fedavg", &global);
    for (int workers = 1; workers <= 2; workers++) {
        fst_simulate_spec spec = {
            .clients = 10, .rounds = 1000, .workers = workers, .strategy = s, .ctx = &size, .work = send_it_back};
        uint64_t allocations = fst_alloc_count();
        ok(fst_simulate(&spec, &err), &err);
        assert_true(fst_alloc_count() - allocations < 30); /* none a round */
    }
    fst_fed_state_release(&global);
    fst_strategy_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_workers_do_not_matter),
        cmocka_unit_test(test_report_numbers),
        cmocka_unit_test(test_resume_is_the_same),
        cmocka_unit_test(test_cancelled_inside_a_round),
        cmocka_unit_test(test_nobody_reports),
        cmocka_unit_test(test_extension_fills_up),
        cmocka_unit_test(test_wrong_specs),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_rounds_allocate_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

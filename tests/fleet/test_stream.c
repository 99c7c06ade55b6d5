/*
 * Windows and answers over a transport that loses, doubles and reorders, in simulated time: devices, an edge and a
 * cloud that are killed and started again, with the machines of stream.h and an arithmetic in place of models. No
 * window is lost, none has two answers that differ, and nobody has more unanswered than he was allowed.
 * FEDSTILL_HISTORIES seeds (default 200).
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/transport.h"
#include "stream.h"

enum { DEVICES = 2, WINDOWS = 150, BATCH = 4, BYTES = 8 };
static const double LONGEST = 3000; /* simulated seconds */
static const fst_shape SHAPE = {1, {BYTES}};

/* What a model would say of a window: its class at the edge and at the cloud, and whether the edge is sure. */
static uint16_t edge_class(const unsigned char *w)
{
    return (uint16_t)(w[0] % 7);
}
static uint16_t cloud_class(const unsigned char *w)
{
    return (uint16_t)(10 + w[1] % 7);
}
static bool is_sure(const unsigned char *w)
{
    return w[2] % 3 != 0;
}
static void window_of(uint32_t device, uint64_t i, unsigned char out[BYTES])
{
    fst_rng r;
    fst_rng_init(&r, device, "test.window", i);
    for (int k = 0; k < BYTES; k++)
        out[k] = (unsigned char)fst_rng_u64(&r);
}

struct world;

struct asking {
    struct world *world;
    uint32_t number;
    fst_transport *transport;
    struct asker *asker;
    uint64_t lives, added, in_flight;
    uint32_t credit;
    double up_at;
    bool has[WINDOWS];
    struct stream_answer answer[WINDOWS];
    uint64_t answered;
};

struct world {
    fst_inproc *hub;
    fst_rng rng;
    double now, patience;
    struct asking device[DEVICES];
    fst_transport *edge, *cloud;
    struct answerer *at_edge, *at_cloud;
    struct asker *to_cloud;
    double edge_up_at, cloud_up_at;
    uint64_t lives, kills, unsure, by_cloud;
};

static void ok(fst_status st, const fst_error *err)
{
    if (st)
        fail_msg("%s", err->message);
}

static uint64_t next_life(struct world *w)
{
    return 1000 + ++w->lives;
}

/* ---- who answers -------------------------------------------------------------------------------------------- */

static struct answerer *new_answerer(uint32_t askers)
{
    struct answerer *a;
    fst_error err;
    const struct answerer_spec spec = {
        .askers = askers, .dtype = FST_U8, .shape = SHAPE, .budget = 12 * BYTES * askers, .batch = BATCH};
    ok(fst__answerer_new(&a, &spec, &err), &err);
    return a;
}

static void to_answerer(struct answerer *a, const char *topic, const char *prefix, double now, const void *data,
                        size_t len, bool adopt)
{
    struct windows m;
    uint32_t who = (uint32_t)atoi(topic + strlen(prefix));
    assert_true(fst__windows_read(&m, data, len));
    (void)fst__answerer_windows(a, now, who, &m, adopt);
}

static void say(struct answerer *a, fst_transport *t, double now, const char *prefix, double every)
{
    char topic[64];
    uint32_t who;
    fst_buf body = {0};
    while (fst__answerer_next(a, now, every, &who, &body)) {
        snprintf(topic, sizeof topic, "%s%u", prefix, (unsigned)who);
        if (fst_transport_publish(t, topic, body.data, body.len, NULL)) {
            fst__answerer_unsent(a, who);
            break;
        }
    }
    fst_buf_release(&body);
}

/* ---- the cloud ------------------------------------------------------------------------------------------------ */

static void cloud_hears(void *ctx, const char *topic, const void *data, size_t len)
{
    struct world *w = ctx;
    to_answerer(w->at_cloud, topic, "c/", w->now, data, len, true);
}

static void start_cloud(struct world *w)
{
    fst_error err;
    const fst_transport_events on = {.ctx = w, .message = cloud_hears};
    ok(fst_inproc_open(&w->cloud, w->hub, "cloud", &on, NULL, &err), &err);
    ok(fst_transport_subscribe(w->cloud, "c/+", &err), &err);
    w->at_cloud = new_answerer(1);
    w->cloud_up_at = INFINITY;
}

static void run_cloud(struct world *w)
{
    fst_error err;
    struct asked *h;
    if (!w->cloud) {
        if (w->now >= w->cloud_up_at)
            start_cloud(w);
        return;
    }
    ok(fst_transport_poll(w->cloud, 0, &err), &err);
    for (int n = 0; n < BATCH && (h = fst__answerer_take(w->at_cloud, w->now)); n++) {
        h->answer = (struct stream_answer){.answer = cloud_class(h->data), .tier = TIER_CLOUD};
        fst__answerer_answer(w->at_cloud, h);
    }
    say(w->at_cloud, w->cloud, w->now, "e/", 0.5);
}

static void kill_cloud(struct world *w)
{
    if (!w->cloud)
        return;
    fst_inproc_kill(w->cloud);
    fst__answerer_free(w->at_cloud);
    w->cloud = NULL;
    w->cloud_up_at = w->now + 10 * fst_rng_uniform(&w->rng);
    w->kills++;
}

/* ---- the edge ------------------------------------------------------------------------------------------------- */

static void finish(struct world *w, struct asked *h, uint16_t answer, uint8_t tier, uint8_t marks)
{
    h->answer = (struct stream_answer){.answer = answer, .first = edge_class(h->data), .tier = tier, .marks = marks};
    w->unsure += marks != 0;
    w->by_cloud += tier;
    fst__answerer_answer(w->at_edge, h);
}

static void cloud_answered(void *ctx, uint64_t what, double seconds, const struct stream_answer *a)
{
    (void)seconds;
    finish(ctx, (struct asked *)(uintptr_t)what, a->answer, TIER_CLOUD, 0);
}

static void edge_hears(void *ctx, const char *topic, const void *data, size_t len)
{
    struct world *w = ctx;
    struct answers m;
    if (topic[0] == 'q') {
        to_answerer(w->at_edge, topic, "q/", w->now, data, len, true);
        return;
    }
    assert_true(fst__answers_read(&m, data, len));
    fst__asker_answers(w->to_cloud, w->now, &m, cloud_answered, w);
}

static void start_edge(struct world *w)
{
    fst_error err;
    const fst_transport_events on = {.ctx = w, .message = edge_hears};
    ok(fst_inproc_open(&w->edge, w->hub, "edge", &on, NULL, &err), &err);
    ok(fst_transport_subscribe(w->edge, "q/+", &err), &err);
    ok(fst_transport_subscribe(w->edge, "e/0", &err), &err);
    w->at_edge = new_answerer(DEVICES);
    ok(fst__asker_new(&w->to_cloud, next_life(w), BATCH, &err), &err);
    w->edge_up_at = INFINITY;
}

static void kill_edge(struct world *w)
{
    uint64_t what;
    if (!w->edge)
        return;
    while (fst__asker_give_up(w->to_cloud, 0, -INFINITY, &what))
        fst_free((void *)(uintptr_t)what);
    fst__asker_free(w->to_cloud);
    fst_inproc_kill(w->edge);
    fst__answerer_free(w->at_edge);
    w->edge = NULL;
    w->edge_up_at = w->now + 10 * fst_rng_uniform(&w->rng);
    w->kills++;
}

static fst_status send_run(fst_transport *t, const char *topic, uint64_t stream, uint64_t first, uint32_t count,
                           const unsigned char *bytes)
{
    struct windows m = {
        .stream = stream, .first = first, .count = count, .dtype = FST_U8, .shape = SHAPE, .bytes = BYTES};
    fst_buf body = {0};
    fst_error err;
    ok(fst__windows_head(&m, &body, &err), &err);
    ok(fst_buf_append(&body, bytes, count * BYTES, &err), &err);
    fst_status st = fst_transport_publish(t, topic, body.data, body.len, NULL);
    fst_buf_release(&body);
    return st;
}

static void ask_cloud(struct world *w)
{
    uint64_t first, what[BATCH];
    uint32_t count;
    unsigned char bytes[BATCH * BYTES];
    while (fst__asker_next(w->to_cloud, w->now, BATCH, &first, &count, what)) {
        for (uint32_t i = 0; i < count; i++)
            memcpy(bytes + i * BYTES, ((struct asked *)(uintptr_t)what[i])->data, BYTES);
        if (send_run(w->edge, "c/0", fst__asker_stream(w->to_cloud), first, count, bytes)) {
            fst__asker_unsent(w->to_cloud, first, count);
            return;
        }
    }
}

static void run_edge(struct world *w)
{
    fst_error err;
    struct asked *h;
    uint64_t what;
    if (!w->edge) {
        if (w->now >= w->edge_up_at)
            start_edge(w);
        return;
    }
    ok(fst_transport_poll(w->edge, 0, &err), &err);
    for (int n = 0; n < BATCH && (h = fst__answerer_take(w->at_edge, w->now)); n++) {
        if (is_sure(h->data))
            finish(w, h, edge_class(h->data), TIER_EDGE, 0);
        else
            assert_true(fst__asker_add(w->to_cloud, w->now, (uint64_t)(uintptr_t)h, &err));
    }
    while (fst__asker_give_up(w->to_cloud, w->now, w->patience, &what)) {
        h = (struct asked *)(uintptr_t)what;
        finish(w, h, edge_class(h->data), TIER_EDGE, MARK_UNSURE);
    }
    ask_cloud(w);
    say(w->at_edge, w->edge, w->now, "a/", 2);
}

/* ---- devices ----------------------------------------------------------------------------------------------------- */

static void answered(void *ctx, uint64_t what, double seconds, const struct stream_answer *a)
{
    struct asking *d = ctx;
    unsigned char w[BYTES];
    window_of(d->number, what, w);
    assert_false(d->has[what]); /* once in a life of the device */
    d->has[what] = true;
    d->answer[what] = *a;
    d->answered++;
    assert_true(seconds >= 0);
    assert_int_equal(a->first, edge_class(w));
    if (is_sure(w)) {
        assert_int_equal(a->tier, TIER_EDGE);
        assert_int_equal(a->marks, 0);
        assert_int_equal(a->answer, edge_class(w));
    } else if (a->marks) {
        assert_int_equal(a->answer, edge_class(w));
    } else {
        assert_int_equal(a->tier, TIER_CLOUD);
        assert_int_equal(a->answer, cloud_class(w));
    }
}

/* A question that was answered and comes again has the same answer, as long as the edge lives. */
static void device_hears(void *ctx, const char *topic, const void *data, size_t len)
{
    struct asking *d = ctx;
    struct answers m;
    (void)topic;
    assert_true(fst__answers_read(&m, data, len));
    if (m.stream != fst__asker_stream(d->asker))
        return;
    for (uint32_t i = 0; i < m.count; i++) {
        const struct stream_answer a = fst__answers_at(&m, i);
        assert_true(a.seq < d->added);
        if (d->has[a.seq] && isinf(d->world->patience)) {
            assert_int_equal(a.answer, d->answer[a.seq].answer);
            assert_int_equal(a.tier, d->answer[a.seq].tier);
        }
    }
    d->credit = m.credit;
    fst__asker_answers(d->asker, d->world->now, &m, answered, d);
}

static void start_device(struct asking *d)
{
    fst_error err;
    char name[32], filter[32];
    const fst_transport_events on = {.ctx = d, .message = device_hears};
    snprintf(name, sizeof name, "device-%u", (unsigned)d->number);
    snprintf(filter, sizeof filter, "a/%u", (unsigned)d->number);
    ok(fst_inproc_open(&d->transport, d->world->hub, name, &on, NULL, &err), &err);
    ok(fst_transport_subscribe(d->transport, filter, &err), &err);
    ok(fst__asker_new(&d->asker, next_life(d->world), BATCH, &err), &err);
    memset(d->has, 0, sizeof d->has);
    d->answered = d->added = 0;
    d->up_at = INFINITY;
}

static void kill_device(struct asking *d)
{
    if (!d->transport)
        return;
    fst_inproc_kill(d->transport);
    fst__asker_free(d->asker);
    d->transport = NULL;
    d->up_at = d->world->now + 10 * fst_rng_uniform(&d->world->rng);
    d->world->kills++;
}

static void run_device(struct asking *d)
{
    fst_error err;
    char topic[32];
    uint64_t first, what[BATCH];
    uint32_t count;
    unsigned char bytes[BATCH * BYTES];
    if (!d->transport) {
        if (d->world->now >= d->up_at)
            start_device(d);
        return;
    }
    ok(fst_transport_poll(d->transport, 0, &err), &err);
    for (; d->added < WINDOWS; d->added++)
        assert_true(fst__asker_add(d->asker, d->world->now, d->added, &err));
    snprintf(topic, sizeof topic, "q/%u", (unsigned)d->number);
    while (fst__asker_next(d->asker, d->world->now, BATCH, &first, &count, what)) {
        for (uint32_t i = 0; i < count; i++) {
            assert_int_equal(what[i], first + i);
            window_of(d->number, what[i], bytes + i * BYTES);
        }
        if (send_run(d->transport, topic, fst__asker_stream(d->asker), first, count, bytes)) {
            fst__asker_unsent(d->asker, first, count);
            break;
        }
    }
}

/* ---- histories ------------------------------------------------------------------------------------------------------
 */

static void disturb(struct world *w)
{
    double x = fst_rng_uniform(&w->rng);
    if (x < 0.02)
        kill_cloud(w);
    else if (x < 0.04)
        kill_edge(w);
    else if (x < 0.05)
        kill_device(&w->device[fst_rng_u64(&w->rng) % DEVICES]);
}

static void play(uint64_t seed, double patience, struct world *w)
{
    fst_error err;
    struct fst_inproc_options o = {.simulated_time = true};
    memset(w, 0, sizeof *w);
    fst_rng_init(&w->rng, seed, "test.stream", 0);
    o.faults = (fst_inproc_faults){.seed = seed,
                                   .drop = 0.2 * fst_rng_uniform(&w->rng),
                                   .twice = 0.2 * fst_rng_uniform(&w->rng),
                                   .late = 0.2 * fst_rng_uniform(&w->rng),
                                   .delay = 0.02,
                                   .lateness = 8 * fst_rng_uniform(&w->rng)};
    w->patience = patience;
    ok(fst_inproc_new(&w->hub, &o, &err), &err);
    start_cloud(w);
    start_edge(w);
    for (uint32_t d = 0; d < DEVICES; d++) {
        w->device[d] = (struct asking){.world = w, .number = d};
        start_device(&w->device[d]);
    }
    bool done = false;
    while (!done) {
        assert_true(w->now < LONGEST);
        w->now += 0.05;
        fst_inproc_advance(w->hub, w->now);
        if (w->now < 60)
            disturb(w);
        run_cloud(w);
        run_edge(w);
        done = w->now > 60;
        for (uint32_t d = 0; d < DEVICES; d++) {
            run_device(&w->device[d]);
            done = done && w->device[d].transport && w->device[d].answered == WINDOWS;
        }
    }
    kill_cloud(w);
    kill_edge(w);
    for (uint32_t d = 0; d < DEVICES; d++) {
        for (int i = 0; i < WINDOWS; i++)
            assert_true(w->device[d].has[i]);
        kill_device(&w->device[d]);
    }
    fst_inproc_free(w->hub);
}

static uint64_t histories(void)
{
    const char *n = getenv("FEDSTILL_HISTORIES");
    return n ? strtoull(n, NULL, 10) : 200;
}

static void no_window_is_lost(void **state)
{
    static struct world w;
    uint64_t kills = 0, by_cloud = 0;
    (void)state;
    for (uint64_t seed = 0; seed < histories(); seed++) {
        play(seed, INFINITY, &w);
        assert_int_equal(w.unsure, 0);
        kills += w.kills;
        by_cloud += w.by_cloud;
    }
    assert_true(kills > 10 * histories());
    assert_true(by_cloud > 0);
}

static void an_edge_answers_itself_when_the_cloud_is_away(void **state)
{
    static struct world w;
    uint64_t unsure = 0;
    (void)state;
    for (uint64_t seed = 0; seed < histories(); seed++) {
        play(1000000 + seed, 2, &w);
        unsure += w.unsure;
    }
    assert_true(unsure > 0);
}

/* ---- one machine at a time
 * --------------------------------------------------------------------------------------------- */

static void credit_is_kept(void **state)
{
    struct answerer *a = new_answerer(2);
    struct windows m = {.stream = 5, .count = 40, .dtype = FST_U8, .shape = SHAPE, .bytes = BYTES};
    unsigned char bytes[40 * BYTES] = {0};
    fst_error err;
    (void)state;
    m.data = bytes;
    ok(fst__answerer_begin(a, 0, 5, &err), &err);
    ok(fst__answerer_begin(a, 1, 6, &err), &err);
    assert_true(fst__answerer_windows(a, 0, 0, &m, false));
    assert_int_equal(fst__answerer_waiting(a), 12); /* half of the budget */
    assert_int_equal(fst__answerer_count(a)->dropped, 28);
    assert_true(fst__answerer_windows(a, 0, 0, &m, false));
    assert_int_equal(fst__answerer_count(a)->twice, 12);
    m.stream = 7;
    assert_false(fst__answerer_windows(a, 0, 0, &m, false));
    assert_int_equal(fst__answerer_count(a)->foreign, 1);
    fst__answerer_free(a);
}

static void a_repeated_question_has_the_same_answer(void **state)
{
    struct answerer *a = new_answerer(1);
    unsigned char bytes[BYTES] = {0};
    struct windows m = {.stream = 5, .count = 1, .dtype = FST_U8, .shape = SHAPE, .bytes = BYTES, .data = bytes};
    struct answers said;
    fst_buf body = {0};
    uint32_t who;
    (void)state;
    assert_true(fst__answerer_windows(a, 0, 0, &m, true));
    struct asked *h = fst__answerer_take(a, 1);
    assert_non_null(h);
    h->answer = (struct stream_answer){.answer = 3, .confidence = 0.5};
    fst__answerer_answer(a, h);
    for (int i = 0; i < 3; i++) {
        assert_true(fst__answerer_next(a, 2, INFINITY, &who, &body));
        assert_true(fst__answers_read(&said, body.data, body.len));
        assert_int_equal(said.count, 1);
        assert_int_equal(fst__answers_at(&said, 0).answer, 3);
        assert_false(fst__answerer_next(a, 2, INFINITY, &who, &body));
        assert_true(fst__answerer_windows(a, 3, 0, &m, true));
        assert_int_equal(fst__answerer_waiting(a), 0);
    }
    fst_buf_release(&body);
    fst__answerer_free(a);
}

static void another_shape_is_refused_in_words(void **state)
{
    struct answerer *a = new_answerer(1);
    unsigned char bytes[4 * BYTES] = {0};
    struct windows m = {.stream = 5, .count = 1, .dtype = FST_F32, .shape = SHAPE, .bytes = 4 * BYTES, .data = bytes};
    struct answers said;
    fst_buf body = {0};
    uint32_t who;
    (void)state;
    assert_true(fst__answerer_windows(a, 0, 0, &m, true));
    assert_int_equal(fst__answerer_waiting(a), 0);
    assert_true(fst__answerer_next(a, 2, INFINITY, &who, &body));
    assert_true(fst__answers_read(&said, body.data, body.len));
    assert_int_equal(fst__answers_at(&said, 0).marks, MARK_REFUSED);
    assert_int_equal(fst__answers_at(&said, 0).answer, FST__NO_CLASS);
    fst_buf_release(&body);
    fst__answerer_free(a);
}

static void the_wait_doubles(void **state)
{
    struct asker *a;
    fst_error err;
    uint64_t first, what[4];
    uint32_t count;
    double asked[6] = {0};
    int n = 0;
    (void)state;
    ok(fst__asker_new(&a, 9, 1, &err), &err);
    assert_true(fst__asker_add(a, 0, 77, &err));
    assert_true(fst__asker_add(a, 0, 78, &err)); /* beyond the credit */
    for (double now = 0; n < 6; now += 0.125)
        if (fst__asker_next(a, now, 4, &first, &count, what)) {
            assert_int_equal(count, 1);
            assert_int_equal(what[0], 77);
            asked[n++] = now;
        }
    for (int i = 1; i < 6; i++)
        assert_true(asked[i] - asked[i - 1] == (double)(1 << (i - 1)));
    assert_int_equal(fst__asker_asked_again(a), 5);
    fst__asker_free(a);
}

static void count_answer(void *ctx, uint64_t what, double seconds, const struct stream_answer *answer)
{
    (void)what;
    (void)seconds;
    (void)answer;
    ++*(uint64_t *)ctx;
}

/* One answer, to window `seq` of stream 9. */
static void answer_one(struct asker *a, double now, uint64_t seq)
{
    const struct answers head = {.stream = 9, .credit = 8, .count = 1};
    const struct stream_answer one = {.seq = seq, .confidence = 1};
    struct answers m;
    fst_buf body = {0};
    fst_error err;
    uint64_t answered = 0;
    ok(fst__answers_head(&head, &body, &err), &err);
    ok(fst__answer_write(&one, &body, &err), &err);
    assert_true(fst__answers_read(&m, body.data, body.len));
    fst__asker_answers(a, now, &m, count_answer, &answered);
    assert_int_equal(answered, 1);
    fst_buf_release(&body);
}

/* Five windows are sent a tenth of a second apart and three of them answered 0.9 seconds apart, in their order: nothing
 * is lost. Then the fourth is left out: what was asked later was answered, so that it is asked again. */
static void who_is_slow_is_not_asked_twice(void **state)
{
    struct asker *a;
    fst_error err;
    uint64_t first, what[4];
    uint32_t count;
    (void)state;
    ok(fst__asker_new(&a, 9, 8, &err), &err);
    for (uint64_t k = 0; k < 5; k++) {
        assert_true(fst__asker_add(a, 0.1 * (double)k, k, &err));
        assert_true(fst__asker_next(a, 0.1 * (double)k, 4, &first, &count, what));
        assert_int_equal(first, k);
    }
    for (uint64_t k = 0; k < 3; k++) {
        answer_one(a, 0.9 * (double)(k + 1), k);
        assert_false(fst__asker_next(a, 0.9 * (double)(k + 1) + 0.5, 4, &first, &count, what));
    }
    answer_one(a, 3.5, 4);
    assert_true(fst__asker_next(a, 3.5, 4, &first, &count, what));
    assert_int_equal(first, 3);
    assert_int_equal(count, 1);
    assert_int_equal(fst__asker_asked_again(a), 1);
    fst__asker_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(credit_is_kept),
        cmocka_unit_test(a_repeated_question_has_the_same_answer),
        cmocka_unit_test(another_shape_is_refused_in_words),
        cmocka_unit_test(the_wait_doubles),
        cmocka_unit_test(who_is_slow_is_not_asked_twice),
        cmocka_unit_test(no_window_is_lost),
        cmocka_unit_test(an_edge_answers_itself_when_the_cloud_is_away),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A coordinator between queues in one process, in simulated time, and sites whose every message is the test's own. */
#ifndef FST_TESTS_FLEET_COORDINATOR_WORLD_H
#define FST_TESTS_FLEET_COORDINATOR_WORLD_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "coordinator.h"

static const fst_fed_size SIZE = {24, 2, 1};
enum { RUN = 77, MOST = 9, FETCHES = 8 };
static const int64_t SAMPLES[MOST] = {5, 5, 5, 5, 5, 5, 5, 5, 5};
static const char *const IDS[MOST] = {"edge-1", "edge-2", "edge-3", "edge-4", "edge-5",
                                      "edge-6", "edge-7", "edge-8", "edge-9"};

struct world {
    fst_inproc *hub;
    fst_transport *cloud, *sites[MOST];
    uint32_t count, speaker; /* speaker: who says what is said */
    double now;
    fst_fed_state global;
    fst_strategy *strategy;
    fst_server *server;
    fst_simulate_spec spec;
    int64_t counted[MOST];
    struct coordinator *coordinator;
    uint64_t seq;
    unsigned orders, gets;
    uint32_t asked[MOST];   /* parts */
    struct receipt receipt; /* the last one */
    struct refusal refusal; /* the last one */
    bool has_receipt, has_refusal;
};

static inline void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static inline void to_cloud(void *ctx, const char *topic, const void *data, size_t len)
{
    struct world *w = ctx;
    fst__coordinator_message(w->coordinator, w->now, topic, data, len);
}

static inline void cloud_link(void *ctx, bool up, const char *why)
{
    struct world *w = ctx;
    (void)why;
    fst__coordinator_link(w->coordinator, w->now, up);
}

static inline void to_site(void *ctx, const char *topic, const void *data, size_t len)
{
    struct world *w = ctx;
    fst_frame f;
    fst_blob_get g;
    int k = topic[strlen("fst/dn/edge-")] - '1';
    assert_int_equal(fst_frame_decode(&f, data, len), FST_TAKEN);
    w->orders += f.kind == FST_KIND_ORDER;
    w->gets += f.kind == FST_KIND_GET;
    if (f.kind == FST_KIND_GET && fst_blob_get_read(&g, f.body, f.body_len))
        w->asked[k] += g.count;
    if (f.kind == FST_KIND_RECEIPT)
        w->has_receipt = !fst__read_receipt(&w->receipt, f.body, f.body_len, NULL);
    if (f.kind == FST_KIND_REFUSAL)
        w->has_refusal = !fst__read_refusal(&w->refusal, f.body, f.body_len, NULL);
}

static inline void open_world_with(struct world *w, uint32_t count, uint32_t extensions)
{
    fst_error err = {0};
    const fst_inproc_options options = {.simulated_time = true};
    const fst_strategy_ops *ops;
    const fst_server_env env = {.seed = 1, .clients = count, .classes = 2, .global = &w->global};
    const fst_transport_events cloud = {.ctx = w, .message = to_cloud, .link = cloud_link};
    const fst_transport_events site = {.ctx = w, .message = to_site};
    fst_round_spec rounds;
    *w = (struct world){.counted = {-1, -1, -1, -1, -1, -1, -1, -1, -1}, .count = count};
    ok(fst_inproc_new(&w->hub, &options, &err), &err);
    ok(fst_fed_state_init(&w->global, SIZE, &err), &err);
    ok(fst_strategy_of(&ops, "fedavg", &err), &err);
    ok(fst_strategy_new(&w->strategy, ops, NULL, 0, &env, &err), &err);
    w->spec = (fst_simulate_spec){.seed = 4,
                                  .clients = count,
                                  .samples = SAMPLES,
                                  .rounds = 1,
                                  .cohort = count,
                                  .quorum = count,
                                  .policy = FST_QUORUM_EXTEND,
                                  .max_extensions = extensions,
                                  .workers = 1,
                                  .noun = "edge",
                                  .strategy = w->strategy};
    ok(fst_simulate_rounds(&w->spec, &rounds, &err), &err);
    rounds.deadline = rounds.join_deadline = 600;
    ok(fst_server_new(&w->server, &rounds, w->strategy, "edge", &err), &err);
    ok(fst_inproc_open(&w->cloud, w->hub, "cloud", &cloud, NULL, &err), &err);
    for (uint32_t k = 0; k < count; k++) {
        char filter[FST_TOPIC];
        snprintf(filter, sizeof filter, "fst/dn/%s/#", IDS[k]);
        ok(fst_inproc_open(&w->sites[k], w->hub, IDS[k], &site, NULL, &err), &err);
        ok(fst_transport_subscribe(w->sites[k], filter, &err), &err);
    }
    struct coordinator_spec spec = {.ids = IDS,
                                    .clients = count,
                                    .run = RUN,
                                    .epoch = 1,
                                    .settings = "",
                                    .numerics = "",
                                    .transport = w->cloud,
                                    .now = w->now};
    memset(spec.task, 'a', FST_DIGEST_HEX - 1);
    ok(fst__coordinator_new(&w->coordinator, &spec, &err), &err);
    ok(fst__coordinator_begin(w->coordinator, 0, "federated", &w->spec, w->server, w->counted, &err), &err);
}

static inline void open_world_of(struct world *w, uint32_t count)
{
    open_world_with(w, count, 255);
}

static inline void open_world(struct world *w)
{
    open_world_of(w, 1);
}

static inline void close_world(struct world *w)
{
    fst__coordinator_free(w->coordinator);
    fst_transport_close(w->cloud);
    for (uint32_t k = 0; k < w->count; k++)
        fst_transport_close(w->sites[k]);
    fst_server_free(w->server);
    fst_strategy_free(w->strategy);
    fst_fed_state_release(&w->global);
    fst_inproc_free(w->hub);
}

/* Time passes; everything that was said arrives. */
static inline void turn(struct world *w, double seconds)
{
    fst_error err = {0};
    for (double end = w->now + seconds; w->now < end;) {
        w->now += 0.25;
        fst_inproc_advance(w->hub, w->now);
        ok(fst_transport_poll(w->cloud, 0, &err), &err);
        ok(fst__coordinator_tick(w->coordinator, w->now, &err), &err);
        for (uint32_t k = 0; k < w->count; k++)
            ok(fst_transport_poll(w->sites[k], 0, &err), &err);
    }
}

static inline void say(struct world *w, const char *leaf, fst_frame_kind kind, const fst_buf *body)
{
    fst_error err = {0};
    char topic[FST_TOPIC];
    fst_buf bytes = {0};
    fst_frame f = {.kind = kind, .run = RUN, .epoch = 1, .seq = ++w->seq, .body = body->data, .body_len = body->len};
    snprintf(f.sender, sizeof f.sender, "%s", IDS[w->speaker]);
    ok(fst_frame_encode(&f, &bytes, &err), &err);
    ok(fst_transport_publish(w->sites[w->speaker], fst_topic_up(topic, f.sender, leaf), bytes.data, bytes.len, &err),
       &err);
    fst_buf_release(&bytes);
}

static inline void say_hello(struct world *w, const char *instance)
{
    fst_error err = {0};
    fst_buf body = {0};
    struct hello h = {.role = "edge", .client = w->speaker, .learn = (uint64_t)SAMPLES[0]};
    snprintf(h.id, sizeof h.id, "%s", IDS[w->speaker]);
    memset(h.task, 'a', FST_DIGEST_HEX - 1);
    memset(h.data, 'b', FST_DIGEST_HEX - 1);
    snprintf(h.instance, sizeof h.instance, "%s", instance);
    ok(fst__write_hello(&h, &body, &err), &err);
    say(w, "ctl", FST_KIND_HELLO, &body);
    fst_buf_release(&body);
}

static const char *const one = "0000000000000001", *const two = "0000000000000002";

static inline void say_bye(struct world *w)
{
    fst_buf body = {.data = (char[]){"{}"}, .len = 2};
    say(w, "ctl", FST_KIND_BYE, &body);
}

static inline void offer(struct world *w, const char *instance, const fst_blob_manifest *blob)
{
    fst_error err = {0};
    fst_buf body = {0};
    struct result r = {.stage = "federated", .seconds = NAN, .blob = *blob};
    snprintf(r.instance, sizeof r.instance, "%s", instance);
    ok(fst__write_result(&r, &body, &err), &err);
    say(w, "ctl", FST_KIND_RESULT, &body);
    fst_buf_release(&body);
}

static inline fst_blob_manifest manifest_of(const void *bytes, size_t len)
{
    fst_sha256 sha;
    fst_blob_manifest m = {
        .bytes = len, .raw_bytes = len, .parts = (uint32_t)((len + FST_BLOB_PART - 1) / FST_BLOB_PART)};
    fst_sha256_init(&sha);
    fst_sha256_update(&sha, bytes, len);
    fst_sha256_final(&sha, m.digest);
    return m;
}

/* The only part of a small blob, with bytes of the caller's choice. */
static inline void send_part(struct world *w, const fst_blob_manifest *m, const void *bytes)
{
    fst_error err = {0};
    fst_blob_server *s;
    uint32_t who;
    fst_buf body = {0};
    const fst_blob_get all = {.count = 1};
    fst_blob_get g = all;
    memcpy(g.digest, m->digest, sizeof g.digest);
    ok(fst_blob_server_new(&s, 4, &err), &err);
    ok(fst_blob_server_add(s, m, bytes, &err), &err);
    assert_int_equal(fst_blob_server_ask(s, 0, &g), 1);
    assert_true(fst_blob_server_next(s, &who, &body));
    say(w, "part", FST_KIND_PART, &body);
    fst_buf_release(&body);
    fst_blob_server_free(s);
}

/* All of them, and the first one speaks. */
static inline void all_join(struct world *w)
{
    turn(w, 0.25);
    for (w->speaker = 0; w->speaker < w->count; w->speaker++)
        say_hello(w, one);
    w->speaker = 0;
    turn(w, 1);
    assert_true(w->orders > 0);
}

static inline void join_and_offer(struct world *w, const fst_blob_manifest *m)
{
    turn(w, 0.25);
    say_hello(w, one);
    turn(w, 1);
    assert_true(w->orders > 0);
    offer(w, one, m);
    turn(w, 1);
}

enum {
    NO_NUMBER = 1,
    INFINITE,
    FEWER_PARAMETERS,
    OF_ANOTHER,
    OF_ANOTHER_ROUND,
    TOO_MANY_SAMPLES,
    NO_SAMPLES,
    NO_MESSAGE
};

/* An update of edge-1's, right but for what `wrong` says; 0: right. */
static inline void make_update(fst_buf *out, int wrong)
{
    fst_error err = {0};
    fst_fed_state room;
    fst_message up = fst_message_of("state");
    fst_fed_size size = SIZE;
    size.params -= wrong == FEWER_PARAMETERS;
    ok(fst_fed_state_init(&room, size, &err), &err);
    for (size_t i = 0; i < size.params; i++)
        room.params[i] = 0.5f;
    if (wrong == NO_NUMBER)
        room.params[3] = NAN;
    if (wrong == INFINITE)
        room.params[3] = -INFINITY;
    up.client = wrong == OF_ANOTHER;
    up.round = wrong == OF_ANOTHER_ROUND;
    up.samples = wrong == TOO_MANY_SAMPLES ? (int64_t)1 << 31 : wrong == NO_SAMPLES ? 0 : SAMPLES[0];
    up.loss = 1;
    fst_fed_view v = fst_fed_state_view(&room);
    ok(fst_message_add_state(&up, &v, &err), &err);
    ok(fst_message_pack(&up, out, &err), &err);
    if (wrong == NO_MESSAGE)
        memset(out->data, 'x', out->len);
    fst_fed_state_release(&room);
}

#endif

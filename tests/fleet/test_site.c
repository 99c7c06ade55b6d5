/* A site and clouds of the test's own: what it obeys, and what is of another run, another cloud or too late. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "no_store.h"

struct world {
    fst_inproc *hub;
    fst_transport *cloud, *transport;
    struct site *site;
    double now;
    uint64_t seq;
    unsigned hellos, results;
    struct cannot cannot; /* the last one */
};

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

/* ---- both ends ---- */

static void to_site(void *ctx, const char *topic, const void *data, size_t len)
{
    struct world *w = ctx;
    fst_error err = {0};
    ok(fst__site_message(w->site, w->now, topic, data, len, &err), &err);
}

static void site_link(void *ctx, bool up, const char *why)
{
    struct world *w = ctx;
    (void)why;
    fst__site_link(w->site, w->now, up);
}

static void to_cloud(void *ctx, const char *topic, const void *data, size_t len)
{
    struct world *w = ctx;
    fst_frame f;
    (void)topic;
    assert_int_equal(fst_frame_decode(&f, data, len), FST_TAKEN);
    w->hellos += f.kind == FST_KIND_HELLO;
    w->results += f.kind == FST_KIND_RESULT;
    if (f.kind == FST_KIND_CANNOT)
        assert_int_equal(fst__read_cannot(&w->cannot, f.body, f.body_len, NULL), FST_OK);
}

static const char *const instance = "0000000000000001";

static bool keeps_all(void *ctx, const char *stage)
{
    (void)ctx, (void)stage;
    return true;
}

static void open_world_of(struct world *w, bool (*keeps)(void *ctx, const char *stage))
{
    fst_error err = {0};
    const fst_inproc_options options = {.simulated_time = true};
    const fst_transport_events site = {.ctx = w, .message = to_site, .link = site_link};
    const fst_transport_events cloud = {.ctx = w, .message = to_cloud};
    *w = (struct world){.now = 0};
    ok(fst_inproc_new(&w->hub, &options, &err), &err);
    ok(fst_inproc_open(&w->transport, w->hub, "edge-1", &site, NULL, &err), &err);
    ok(fst_inproc_open(&w->cloud, w->hub, "cloud", &cloud, NULL, &err), &err);
    ok(fst_transport_subscribe(w->cloud, "fst/up/#", &err), &err);
    struct site_spec spec = {.id = "edge-1",
                             .hello = {.role = "edge", .learn = 5},
                             .transport = w->transport,
                             .store = no_store,
                             .keeps = keeps,
                             .most = 1 << 20};
    memset(spec.hello.task, 'a', FST_DIGEST_HEX - 1);
    memset(spec.hello.data, 'b', FST_DIGEST_HEX - 1);
    snprintf(spec.instance, sizeof spec.instance, "%s", instance);
    ok(fst__site_new(&w->site, &spec, &err), &err);
}

static void open_world(struct world *w)
{
    open_world_of(w, keeps_nothing);
}

static void close_world(struct world *w)
{
    fst__site_free(w->site);
    fst_transport_close(w->transport);
    fst_transport_close(w->cloud);
    fst_inproc_free(w->hub);
}

static void turn(struct world *w, double seconds)
{
    fst_error err = {0};
    for (double end = w->now + seconds; w->now < end;) {
        w->now += 0.25;
        fst_inproc_advance(w->hub, w->now);
        ok(fst_transport_poll(w->transport, 0, &err), &err);
        ok(fst__site_tick(w->site, w->now, &err), &err);
        ok(fst_transport_poll(w->cloud, 0, &err), &err);
    }
}

/* seq 0: the next one */
static void say(struct world *w, uint64_t run, uint64_t epoch, uint64_t seq, fst_frame_kind kind, const fst_buf *body)
{
    fst_error err = {0};
    fst_buf bytes = {0};
    const fst_frame f = {.kind = kind,
                         .run = run,
                         .epoch = epoch,
                         .seq = seq ? seq : ++w->seq,
                         .sender = "cloud",
                         .body = body->data,
                         .body_len = body->len};
    ok(fst_frame_encode(&f, &bytes, &err), &err);
    ok(fst_transport_publish(w->cloud, "fst/dn/edge-1/ctl", bytes.data, bytes.len, &err), &err);
    fst_buf_release(&bytes);
}

static void welcome(struct world *w, uint64_t run, uint64_t epoch, bool hello)
{
    fst_error err = {0};
    fst_buf body = {0};
    ok(fst__write_welcome(&(struct welcome){hello}, &body, &err), &err);
    say(w, run, epoch, 0, FST_KIND_WELCOME, &body);
    fst_buf_release(&body);
}

static void order_after(struct world *w, uint64_t run, uint64_t epoch, uint64_t seq, uint64_t round, int64_t counted)
{
    fst_error err = {0};
    fst_buf body = {0};
    struct order o = {.kind = ORDER_TRAIN,
                      .stage = "s",
                      .round = round,
                      .counted = counted,
                      .base = {.bytes = 9, .raw_bytes = 9, .parts = 1}};
    memset(o.base.digest, 'c', FST_DIGEST_HEX - 1);
    ok(fst__write_order(&o, &body, &err), &err);
    say(w, run, epoch, seq, FST_KIND_ORDER, &body);
    fst_buf_release(&body);
}

static void order(struct world *w, uint64_t run, uint64_t epoch, uint64_t seq, uint64_t round)
{
    order_after(w, run, epoch, seq, round, -1);
}

static fst__site_state state_of(const struct world *w, uint64_t *round)
{
    char stage[FST__STAGE_NAME];
    return fst__site_state_of(w->site, stage, round);
}

/* ---- what it does ---- */

/* Epochs are of a run. A site that heard a high one of another run, before it was in any, obeys a cloud that was begun
 * anew. */
static void test_epochs_of_another_run(void **state)
{
    struct world w;
    uint64_t round = 0;
    (void)state;
    open_world(&w);
    turn(&w, 1);
    assert_true(w.hellos > 0);
    welcome(&w, 7, 9, true);
    turn(&w, 1);
    welcome(&w, 8, 1, false);
    turn(&w, 1);
    assert_int_equal(state_of(&w, &round), SITE_IDLE);
    order(&w, 8, 1, 0, 4);
    turn(&w, 1);
    assert_int_equal(state_of(&w, &round), SITE_FETCH);
    assert_int_equal(round, 4);
    close_world(&w);
}

/* In its run: a coordinator that has been replaced is not obeyed, nor an order that was overtaken, nor one of another
 * run. */
static void test_old_orders(void **state)
{
    struct world w;
    uint64_t round = 0;
    (void)state;
    open_world(&w);
    turn(&w, 1);
    welcome(&w, 8, 2, false);
    order(&w, 8, 2, 50, 4);
    turn(&w, 1);
    (void)state_of(&w, &round);
    assert_int_equal(round, 4);
    order(&w, 8, 2, 49, 3); /* overtaken */
    order(&w, 8, 1, 90, 2); /* replaced */
    order(&w, 9, 5, 91, 1); /* another run */
    turn(&w, 2);
    (void)state_of(&w, &round);
    assert_int_equal(round, 4);
    order(&w, 8, 3, 1, 5); /* a new epoch counts from the beginning */
    turn(&w, 1);
    (void)state_of(&w, &round);
    assert_int_equal(round, 5);
    close_world(&w);
}

/* A refusal of another process of this id is not this one's. */
static void test_refusals(void **state)
{
    struct world w;
    fst_error err = {0};
    fst_buf body = {0};
    const char *why;
    struct refusal no = {.final = true, .instance = "0000000000000002", .reason = "two of them"};
    (void)state;
    open_world(&w);
    turn(&w, 1);
    ok(fst__write_refusal(&no, &body, &err), &err);
    say(&w, 8, 1, 0, FST_KIND_REFUSAL, &body);
    turn(&w, 1);
    assert_false(fst__site_ended(w.site, &why));
    memcpy(no.instance, instance, sizeof no.instance);
    body.len = 0;
    ok(fst__write_refusal(&no, &body, &err), &err);
    say(&w, 8, 1, 0, FST_KIND_REFUSAL, &body);
    turn(&w, 1);
    assert_true(fst__site_ended(w.site, &why));
    assert_string_equal(why, "two of them");
    fst_buf_release(&body);
    close_world(&w);
}

struct heard {
    unsigned lines;
    char last[256];
};

static void hear(void *ctx, fst_log_level level, const char *message)
{
    struct heard *h = ctx;
    (void)level;
    h->lines++;
    snprintf(h->last, sizeof h->last, "%s", message);
}

/* What a cloud of another version says it cannot read, a refusal neither. It says so, once for a while, and goes on
 * waiting: a byte that was damaged on the way looks the same. */
static void test_another_version(void **state)
{
    struct world w;
    struct heard heard = {.lines = 0};
    fst_error err = {0};
    fst_buf body = {0}, bytes = {0};
    const char *why;
    const struct refusal no = {.final = true, .reason = "another version"};
    fst_frame f = {.kind = FST_KIND_REFUSAL, .run = 8, .epoch = 1, .seq = 1, .sender = "cloud"};
    (void)state;
    open_world(&w);
    turn(&w, 1);
    ok(fst__write_refusal(&no, &body, &err), &err);
    f.body = body.data;
    f.body_len = body.len;
    ok(fst_frame_encode(&f, &bytes, &err), &err);
    bytes.data[6] = 2;
    fst_log_set(hear, &heard);
    for (int i = 0; i < 20; i++) {
        ok(fst_transport_publish(w.cloud, "fst/dn/edge-1/ctl", bytes.data, bytes.len, &err), &err);
        turn(&w, 1);
    }
    assert_int_equal(heard.lines, 1);
    assert_non_null(strstr(heard.last, "of version 2 of the protocol, this program speaks version 1"));
    turn(&w, 30);
    ok(fst_transport_publish(w.cloud, "fst/dn/edge-1/ctl", bytes.data, bytes.len, &err), &err);
    turn(&w, 1);
    assert_int_equal(heard.lines, 2);
    fst_log_set(NULL, NULL);
    assert_false(fst__site_ended(w.site, &why));
    welcome(&w, 8, 1, false); /* of its own version, which it obeys */
    turn(&w, 1);
    uint64_t round;
    assert_int_equal(state_of(&w, &round), SITE_IDLE);
    fst_buf_release(&body);
    fst_buf_release(&bytes);
    close_world(&w);
}

/* A site that lost its disk in the middle of a run: where the method needs what it kept there it says that it cannot,
 * and why; otherwise it trains. */
static void test_lost_disk(void **state)
{
    (void)state;
    for (int keeps = 0; keeps < 2; keeps++) {
        struct world w;
        uint64_t round = 0;
        open_world_of(&w, keeps ? keeps_all : keeps_nothing);
        turn(&w, 1);
        welcome(&w, 8, 1, false);
        turn(&w, 1);
        order_after(&w, 8, 1, 0, 4, 2); /* it counted in the third round */
        turn(&w, 1);
        assert_int_equal(state_of(&w, &round), keeps ? SITE_OFFER : SITE_FETCH);
        assert_int_equal(round, 4);
        if (keeps)
            assert_non_null(strstr(w.cannot.reason, "kept of round 3 is gone (its folder was lost"));
        else
            assert_string_equal(w.cannot.reason, "");
        close_world(&w);
    }
}

/* Files that are not what was written are no beginning: it says which one, and does nothing. */
static fst_status get_damaged(void *ctx, const char *name, fst_buf *out, bool *found, fst_error *err)
{
    const char *const *file = ctx; /* pairs of name and text; NULL */
    *found = false;
    for (; *file && !*found; file += 2)
        if (!strcmp(file[0], name)) {
            *found = true;
            return fst_buf_append(out, file[1], strlen(file[1]), err);
        }
    return FST_OK;
}

static void test_damaged_files(void **state)
{
#define RUN "{\"run\": \"0000000000000008\", \"epoch\": 1, \"stage\": \"s\", \"round\": 0, \"seconds\": 0.5}\n"
    static const char *const files[][5] = {{"site", ""},
                                           {"site", "{\"run\": 8"},
                                           {"site", RUN, "kept", "\x01\x02"},
                                           {"site", RUN, "outbox", RUN "an update without its manifest"}};
    fst_error err = {0};
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        struct world w;
        struct site *s = NULL;
        open_world(&w);
        struct site_spec spec = {.id = "edge-1",
                                 .hello = {.role = "edge", .learn = 5},
                                 .transport = w.transport,
                                 .store = no_store,
                                 .keeps = keeps_nothing,
                                 .most = 1 << 20};
        spec.store.get = get_damaged;
        spec.store.ctx = (void *)(uintptr_t)files[i];
        assert_int_equal(fst__site_new(&s, &spec, &err), FST_E_FORMAT);
        assert_null(s);
        assert_non_null(strstr(err.message, files[i][2] ? files[i][2] : "site"));
        close_world(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_epochs_of_another_run),
                                       cmocka_unit_test(test_old_orders),
                                       cmocka_unit_test(test_refusals),
                                       cmocka_unit_test(test_another_version),
                                       cmocka_unit_test(test_damaged_files),
                                       cmocka_unit_test(test_lost_disk)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

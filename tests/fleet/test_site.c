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
}

static const char *const instance = "0000000000000001";

static void open_world(struct world *w)
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
                             .keeps = keeps_nothing,
                             .most = 1 << 20};
    memset(spec.hello.task, 'a', FST_DIGEST_HEX - 1);
    memset(spec.hello.data, 'b', FST_DIGEST_HEX - 1);
    snprintf(spec.instance, sizeof spec.instance, "%s", instance);
    ok(fst__site_new(&w->site, &spec, &err), &err);
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

static void order(struct world *w, uint64_t run, uint64_t epoch, uint64_t seq, uint64_t round)
{
    fst_error err = {0};
    fst_buf body = {0};
    struct order o = {.kind = ORDER_TRAIN,
                      .stage = "s",
                      .round = round,
                      .counted = -1,
                      .base = {.bytes = 9, .raw_bytes = 9, .parts = 1}};
    memset(o.base.digest, 'c', FST_DIGEST_HEX - 1);
    ok(fst__write_order(&o, &body, &err), &err);
    say(w, run, epoch, seq, FST_KIND_ORDER, &body);
    fst_buf_release(&body);
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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_epochs_of_another_run), cmocka_unit_test(test_old_orders),
                                       cmocka_unit_test(test_refusals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * What every transport must do, over each that is here: queues in one process, and MQTT with a broker that the test
 * starts on a free port of this host, in plain text. Encryption and rights are tests/fleet's part.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "fedstill/fleet.h"
#include "fedstill/transport.h"

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

/* ---- the two kinds ---- */

static fst_inproc *hub;
static int port;
static fst_broker *broker;
static bool over_mqtt;

static void start_broker(void)
{
    fst_error err = {0};
    char conf[] = "/tmp/fedstill-conf-XXXXXX", log[] = "/tmp/fedstill-log-XXXXXX", text[256];
    int fd = mkstemp(conf), fd_log = mkstemp(log);
    assert_true(fd >= 0 && fd_log >= 0);
    close(fd);
    close(fd_log);
    snprintf(text, sizeof text, "listener %d 127.0.0.1\nallow_anonymous true\nmax_packet_size 1050000\nuser root\n",
             port);
    ok(fst_file_write(conf, text, strlen(text), &err), &err);
    ok(fst_broker_start(&broker, conf, log, port, &err), &err);
    unlink(conf);
    unlink(log);
}

static void stop_broker(void)
{
    fst_broker_stop(broker);
}

/* ---- one end ---- */

struct end {
    fst_transport *t;
    int links, downs, messages;
    bool up;
    char topic[128], text[64];
    size_t bytes;
};

static void on_message(void *ctx, const char *topic, const void *data, size_t len)
{
    struct end *e = ctx;
    e->messages++;
    e->bytes += len;
    snprintf(e->topic, sizeof e->topic, "%s", topic);
    snprintf(e->text, sizeof e->text, "%.*s", (int)(len < 60 ? len : 60), (const char *)data);
}

static void on_link(void *ctx, bool up, const char *why)
{
    struct end *e = ctx;
    (void)why;
    e->up = up;
    e->links += up;
    e->downs += !up;
}

static void open_end(struct end *e, const char *id, const char *will)
{
    fst_error err = {0};
    char url[64];
    const fst_transport_events on = {.ctx = e, .message = on_message, .link = on_link};
    const fst_transport_will w = {will, "gone", 4};
    *e = (struct end){.up = false};
    snprintf(url, sizeof url, "mqtt://127.0.0.1:%d", port);
    const fst_mqtt_options o = {.url = url, .id = id, .will = w};
    ok(over_mqtt ? fst_mqtt_open(&e->t, &o, &on, &err) : fst_inproc_open(&e->t, hub, id, &on, &w, &err), &err);
}

static void poll_for(struct end *e, double seconds)
{
    fst_error err = {0};
    ok(fst_transport_poll(e->t, fst_clock_seconds() + seconds, &err), &err);
}

static void wait_up(struct end *e)
{
    for (double end = fst_clock_seconds() + 20; !e->up && fst_clock_seconds() < end;)
        poll_for(e, 0.1);
    assert_true(e->up);
}

/* Until e has seen so many messages. A broker may answer a subscription before it counts, so `again` is said until it
 * is heard. */
static void wait_for(struct end *e, int messages, struct end *from, const char *topic, const char *text)
{
    for (double end = fst_clock_seconds() + 20; e->messages < messages && fst_clock_seconds() < end;) {
        if (from && !fst_transport_publish(from->t, topic, text, strlen(text), NULL))
            poll_for(from, 0.01);
        poll_for(e, 0.05);
    }
    assert_true(e->messages >= messages);
}

/* ---- the suite ---- */

static void test_carries(void **state)
{
    struct end a, b;
    fst_error err = {0};
    (void)state;
    open_end(&a, "alpha", NULL);
    open_end(&b, "beta", NULL);
    assert_int_equal(fst_transport_publish(a.t, "x/y", "early", 5, &err), FST_E_BUSY); /* no link yet */
    ok(fst_transport_subscribe(b.t, "x/+/z", &err), &err);
    ok(fst_transport_subscribe(b.t, "deep/#", &err), &err);
    wait_up(&a);
    wait_up(&b);
    wait_for(&b, 1, &a, "x/one/z", "hello");
    assert_string_equal(b.topic, "x/one/z");
    assert_string_equal(b.text, "hello");
    while (b.messages)
        b.messages = 0, poll_for(&b, 0.2);
    wait_for(&b, 1, &a, "deep/a/b/c", "");
    assert_string_equal(b.topic, "deep/a/b/c");
    b.messages = 0;
    ok(fst_transport_publish(a.t, "x/one/other", "no", 2, &err), &err);
    poll_for(&a, 0.05);
    for (int i = 0; i < 4; i++)
        poll_for(&b, 0.05);
    assert_string_not_equal(b.topic, "x/one/other");
    /* no longer subscribed */
    ok(fst_transport_unsubscribe(b.t, "deep/#", &err), &err);
    for (int i = 0; i < 6; i++)
        poll_for(&b, 0.05);
    b.messages = 0;
    ok(fst_transport_publish(a.t, "deep/a", "no", 2, &err), &err);
    poll_for(&a, 0.05);
    for (int i = 0; i < 6; i++)
        poll_for(&b, 0.05);
    assert_int_equal(b.messages, 0);
    fst_transport_close(a.t);
    fst_transport_close(b.t);
}

static void test_refuses(void **state)
{
    static const char *const bad[] = {"", "a/+", "#", "a b", "$SYS/x", "a/\x01"};
    struct end a;
    char *large = calloc(1, FST_TRANSPORT_MESSAGE + 1);
    fst_error err = {0};
    (void)state;
    open_end(&a, "alpha", NULL);
    wait_up(&a);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(fst_transport_publish(a.t, bad[i], "x", 1, &err), FST_E_ARGUMENT);
    assert_int_equal(fst_transport_publish(a.t, "x", large, FST_TRANSPORT_MESSAGE + 1, &err), FST_E_LIMIT);
    assert_int_equal(fst_transport_subscribe(a.t, "a/#/b", &err), FST_E_ARGUMENT);
    assert_int_equal(fst_transport_subscribe(a.t, "a+/b", &err), FST_E_ARGUMENT);
    free(large);
    fst_transport_close(a.t);
}

/* The largest message, whole; and more than fits is refused and not lost without a word. */
static void test_large(void **state)
{
    struct end a, b;
    fst_error err = {0};
    char *large = malloc(FST_TRANSPORT_MESSAGE);
    (void)state;
    memset(large, 'x', FST_TRANSPORT_MESSAGE);
    open_end(&a, "alpha", NULL);
    open_end(&b, "beta", NULL);
    ok(fst_transport_subscribe(b.t, "big", &err), &err);
    wait_up(&a);
    wait_up(&b);
    wait_for(&b, 1, &a, "big", "ready");
    for (int i = 0; i < 10; i++)
        poll_for(&b, 0.02);
    b.messages = 0;
    b.bytes = 0;
    size_t taken = 0;
    for (int i = 0; i < 40; i++) {
        fst_status st = fst_transport_publish(a.t, "big", large, FST_TRANSPORT_MESSAGE, &err);
        assert_true(st == FST_OK || st == FST_E_BUSY);
        taken += st == FST_OK;
        poll_for(&a, 0.001);
        poll_for(&b, 0.001);
    }
    for (double end = fst_clock_seconds() + 20; (size_t)b.messages < taken && fst_clock_seconds() < end;) {
        poll_for(&a, 0.001);
        poll_for(&b, 0.01);
    }
    assert_true(taken >= 10);
    assert_int_equal(b.messages, taken);
    assert_int_equal(b.bytes, taken * FST_TRANSPORT_MESSAGE);
    free(large);
    fst_transport_close(a.t);
    fst_transport_close(b.t);
}

/* A second one of the same id throws the first one out, whose will is published. */
static void test_take_over(void **state)
{
    struct end a, b, c;
    fst_error err = {0};
    (void)state;
    open_end(&b, "beta", NULL);
    ok(fst_transport_subscribe(b.t, "will/alpha", &err), &err);
    wait_up(&b);
    for (int i = 0; i < 6; i++)
        poll_for(&b, 0.05);
    open_end(&a, "alpha", "will/alpha");
    wait_up(&a);
    open_end(&c, "alpha", "will/alpha");
    wait_up(&c);
    for (double end = fst_clock_seconds() + 20; (a.downs == 0 || b.messages == 0) && fst_clock_seconds() < end;) {
        poll_for(&a, 0.02);
        poll_for(&b, 0.02);
        if (a.downs) /* over MQTT it would come back and throw the other one out */
            break;
    }
    wait_for(&b, 1, NULL, NULL, NULL);
    assert_string_equal(b.text, "gone");
    assert_true(a.downs >= 1);
    fst_transport_close(a.t);
    fst_transport_close(b.t);
    fst_transport_close(c.t);
}

static void test_wakes(void **state)
{
    struct end a;
    (void)state;
    open_end(&a, "alpha", NULL);
    wait_up(&a);
    fst_transport_wake(a.t);
    double began = fst_clock_seconds();
    poll_for(&a, 30);
    assert_true(fst_clock_seconds() - began < 20);
    fst_transport_close(a.t);
}

/* The broker goes and comes back: the link too, with its subscriptions. */
static void test_comes_back(void **state)
{
    struct end a, b;
    fst_error err = {0};
    (void)state;
    open_end(&a, "alpha", NULL);
    open_end(&b, "beta", NULL);
    ok(fst_transport_subscribe(b.t, "x", &err), &err);
    wait_up(&a);
    wait_up(&b);
    if (over_mqtt) {
        stop_broker();
    } else {
        fst_inproc_cut(hub, "alpha");
        fst_inproc_cut(hub, "beta");
    }
    for (double end = fst_clock_seconds() + 20; (a.up || b.up) && fst_clock_seconds() < end;) {
        poll_for(&a, 0.05);
        poll_for(&b, 0.05);
    }
    assert_false(a.up || b.up);
    assert_int_equal(fst_transport_publish(a.t, "x", "lost", 4, &err), FST_E_BUSY);
    if (over_mqtt) {
        start_broker();
    } else {
        fst_inproc_heal(hub, "alpha");
        fst_inproc_heal(hub, "beta");
    }
    wait_up(&a);
    wait_up(&b);
    wait_for(&b, 1, &a, "x", "again");
    assert_string_equal(b.text, "again");
    fst_transport_close(a.t);
    fst_transport_close(b.t);
}

/* What an MQTT client is told before it starts. */
static void test_settings(void **state)
{
    fst_transport *t;
    fst_error err = {0};
    (void)state;
    static const char *const bad[] = {"http://x", "mqtt://", "mqtt://h:0", "mqtt://h:99999", "mqtt://h:1/x", "h:1883"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(fst_mqtt_open(&t, &(fst_mqtt_options){.url = bad[i], .id = "a"}, NULL, &err), FST_E_CONFIG);
    assert_int_equal(fst_mqtt_open(&t, &(fst_mqtt_options){.url = "mqtts://h", .id = "a"}, NULL, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "needs a certificate authority"));
    assert_int_equal(
        fst_mqtt_open(
            &t, &(fst_mqtt_options){.url = "mqtts://h", .id = "a", .ca = "/none", .cert = "/none", .key = "/none"},
            NULL, &err),
        FST_E_CONFIG);
    assert_non_null(strstr(err.message, "/none"));
    assert_int_equal(fst_mqtt_open(&t, &(fst_mqtt_options){.url = "mqtt://h", .id = "a", .ca = "/x"}, NULL, &err),
                     FST_E_CONFIG);
    assert_non_null(strstr(err.message, "plain text"));
}

static int in_one_process(void **state)
{
    fst_error err = {0};
    (void)state;
    over_mqtt = false;
    return fst_inproc_new(&hub, NULL, &err);
}

static int end_process(void **state)
{
    (void)state;
    fst_inproc_free(hub);
    return 0;
}

static int with_broker(void **state)
{
    (void)state;
    over_mqtt = true;
    fst_error err = {0};
    ok(fst_free_port(&port, &err), &err);
    start_broker();
    return 0;
}

static int end_broker(void **state)
{
    (void)state;
    stop_broker();
    return 0;
}

int main(void)
{
    const struct CMUnitTest suite[] = {cmocka_unit_test(test_carries), cmocka_unit_test(test_refuses),
                                       cmocka_unit_test(test_large),   cmocka_unit_test(test_take_over),
                                       cmocka_unit_test(test_wakes),   cmocka_unit_test(test_comes_back)};
    const struct CMUnitTest settings[] = {cmocka_unit_test(test_settings)};
    int failed = cmocka_run_group_tests_name("inproc", suite, in_one_process, end_process);
    failed += cmocka_run_group_tests_name("mqtt", suite, with_broker, end_broker);
    return failed + cmocka_run_group_tests_name("settings", settings, NULL, NULL);
}

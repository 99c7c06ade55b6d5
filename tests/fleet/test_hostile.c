/*
 * A coordinator and an enrolled site that lies: every message is well-formed as a frame, and what they say does not
 * belong together. The coordinator names it, goes on, and reads no byte that is not there (seen by sanitizers).
 */
#include "fleet/coordinator_world.h"

/* It offers a small blob, leaves, comes back, offers a large one, and sends the part of the small one: what was fetched
 * must not be read with the length of what was announced since. */
static void test_another_manifest(void **state)
{
    struct world w;
    const char small[16] = "not a message";
    const fst_blob_manifest m = manifest_of(small, sizeof small);
    fst_blob_manifest large = m;
    (void)state;
    memset(large.digest, 'c', FST_DIGEST_HEX - 1);
    large.bytes = large.raw_bytes = 4 * FST_BLOB_PART;
    large.parts = 4;
    open_world(&w);
    join_and_offer(&w, &m);
    assert_int_equal(w.gets, 1);
    say_bye(&w);
    turn(&w, 0.5);
    say_hello(&w, two);
    turn(&w, 0.5);
    offer(&w, two, &large);
    send_part(&w, &m, small);
    turn(&w, 1);
    assert_false(w.has_receipt); /* it is asked for the large one now */
    assert_true(w.gets > 1);
    assert_int_equal(fst__coordinator_site(w.coordinator, 0).parts, 4);
    close_world(&w);
}

/* ---- updates that are of no use ---- */

/* Each is refused for what it is and told so; the model is untouched, and the round waits for others. The right one is
 * folded. */
static void test_useless_updates(void **state)
{
    static const char *const why[] = {[NO_NUMBER] = "nan",
                                      [INFINITE] = "inf",
                                      [FEWER_PARAMETERS] = "23",
                                      [OF_ANOTHER] = "client 2",
                                      [OF_ANOTHER_ROUND] = "round 2",
                                      [TOO_MANY_SAMPLES] = "2147483648 samples",
                                      [NO_SAMPLES] = "0 samples",
                                      [NO_MESSAGE] = "a message"};
    (void)state;
    for (int wrong = 0; wrong <= NO_MESSAGE; wrong++) {
        struct world w;
        fst_buf update = {0};
        make_update(&update, wrong);
        const fst_blob_manifest m = manifest_of(update.data, update.len);
        open_world_of(&w, 2);
        all_join(&w);
        offer(&w, one, &m);
        turn(&w, 1);
        send_part(&w, &m, update.data);
        turn(&w, 1);
        assert_true(w.has_receipt);
        assert_int_equal(w.receipt.folded, !wrong);
        assert_non_null(strstr(w.receipt.why, wrong ? why[wrong] : ""));
        assert_int_equal(fst__coordinator_count(w.coordinator)->discarded[FST_WHY_NONE], wrong != 0);
        assert_int_equal(fst__coordinator_wants(w.coordinator), WANT_NOTHING);
        for (size_t i = 0; i < SIZE.params; i++)
            assert_true(w.global.params[i] == 0);
        fst_buf_release(&update);
        close_world(&w);
    }
}

/* Parts that never make up the digest: the site is refused after a few, and not fetched from for ever. */
static void test_wrong_parts(void **state)
{
    struct world w;
    const char told[16] = "this is hashed", sent[16] = "this is sent";
    const fst_blob_manifest m = manifest_of(told, sizeof told);
    (void)state;
    open_world(&w);
    join_and_offer(&w, &m);
    for (int i = 0; i < 10 && !w.has_receipt; i++) {
        send_part(&w, &m, sent);
        turn(&w, 1);
    }
    assert_true(w.has_receipt);
    assert_false(w.receipt.folded);
    assert_non_null(strstr(w.receipt.why, "do not make up the blob"));
    assert_false(fst__coordinator_site(w.coordinator, 0).fetching);
    close_world(&w);
}

/* More than an update can have is refused by name, at once; nothing is asked for. */
static void test_huge_manifest(void **state)
{
    struct world w;
    fst_blob_manifest m = {.bytes = FST_BLOB_MAX, .raw_bytes = FST_BLOB_MAX};
    (void)state;
    memset(m.digest, 'c', FST_DIGEST_HEX - 1);
    m.parts = (uint32_t)((m.bytes + FST_BLOB_PART - 1) / FST_BLOB_PART);
    open_world(&w);
    join_and_offer(&w, &m);
    assert_int_equal(w.gets, 0);
    assert_true(w.has_receipt);
    assert_false(w.receipt.folded);
    assert_non_null(strstr(w.receipt.why, "are expected at most"));
    close_world(&w);
}

/* A stage that ends while an update is fetched leaves nothing of it: the site is not fetched from any more. */
static void test_end_while_fetching(void **state)
{
    struct world w;
    const char small[16] = "not a message";
    const fst_blob_manifest m = manifest_of(small, sizeof small);
    (void)state;
    open_world(&w);
    join_and_offer(&w, &m);
    assert_true(fst__coordinator_site(w.coordinator, 0).fetching);
    fst__coordinator_end(w.coordinator);
    turn(&w, 0.25);
    assert_false(fst__coordinator_site(w.coordinator, 0).fetching);
    send_part(&w, &m, small);
    turn(&w, 1);
    assert_false(w.has_receipt);
    close_world(&w);
}

/* It said who it is before anybody knew what samples it should have: it is sent away when the stage begins, and when it
 * comes back. */
static void test_other_samples(void **state)
{
    struct world w;
    fst_error err = {0};
    char other[1][FST_DIGEST_HEX] = {""}, same[1][FST_DIGEST_HEX] = {""};
    (void)state;
    memset(other[0], 'c', FST_DIGEST_HEX - 1);
    memset(same[0], 'b', FST_DIGEST_HEX - 1);
    open_world(&w);
    fst__coordinator_end(w.coordinator);
    turn(&w, 0.25);
    say_hello(&w, one);
    turn(&w, 1);
    assert_true(fst__coordinator_site(w.coordinator, 0).present);
    w.spec.data = (const char(*)[FST_DIGEST_HEX])other;
    ok(fst__coordinator_begin(w.coordinator, w.now, "federated", &w.spec, w.server, w.counted, &err), &err);
    for (int i = 0; i < 2; i++) {
        turn(&w, 2);
        assert_true(w.has_refusal && w.refusal.final);
        assert_non_null(strstr(w.refusal.reason, "its samples are not those"));
        assert_false(fst__coordinator_site(w.coordinator, 0).present);
        w.has_refusal = false;
        say_hello(&w, two);
    }
    turn(&w, 2);
    assert_int_equal(w.orders, 0);
    w.spec.data = (const char(*)[FST_DIGEST_HEX])same;
    say_hello(&w, two);
    turn(&w, 2);
    assert_true(w.orders > 0);
    close_world(&w);
}

/* A message of a process that is gone does not send its successor away; two that live and take each other's place for
 * long are one too many, and the older one goes. */
static void test_two_processes(void **state)
{
    struct world w;
    (void)state;
    open_world(&w);
    turn(&w, 0.25);
    say_hello(&w, one);
    turn(&w, 1);
    say_hello(&w, two);
    say_hello(&w, one); /* late */
    turn(&w, 2);
    say_hello(&w, two);
    turn(&w, 2);
    assert_false(w.has_refusal);
    for (int i = 0; i < 20 && !w.has_refusal; i++) {
        say_hello(&w, i % 2 ? two : one);
        turn(&w, 2);
    }
    assert_true(w.has_refusal && w.refusal.final);
    assert_string_equal(w.refusal.instance, one);
    close_world(&w);
}

/* ---- what is refused is counted, each for its reason ---- */

static void publish(struct world *w, const char *topic, const fst_buf *bytes)
{
    fst_error err = {0};
    ok(fst_transport_publish(w->sites[0], topic, bytes->data, bytes->len, &err), &err);
}

/* A sound frame of the site, with a BEAT of no use in it. */
static void beat(fst_buf *out, fst_frame_kind kind, const char *sender, uint64_t run, const char *body)
{
    fst_error err = {0};
    const fst_frame f = {.kind = kind, .run = run, .epoch = 1, .seq = 1, .body = body, .body_len = strlen(body)};
    fst_frame named = f;
    snprintf(named.sender, sizeof named.sender, "%s", sender);
    out->len = 0;
    ok(fst_frame_encode(&named, out, &err), &err);
}

static void counts_one(struct world *w, fst_frame_refusal reason, const char *topic, const fst_buf *bytes)
{
    uint64_t before[FST_REFUSALS];
    memcpy(before, fst__coordinator_refused(w->coordinator), sizeof before);
    publish(w, topic, bytes);
    turn(w, 0.5);
    for (int r = FST_TAKEN + 1; r < FST_REFUSALS; r++)
        assert_int_equal(fst__coordinator_refused(w->coordinator)[r] - before[r], r == (int)reason);
}

static void test_counts(void **state)
{
    static const char *const ctl = "fst/up/edge-1/ctl";
    struct world w;
    fst_error err = {0};
    fst_buf b = {0};
    (void)state;
    open_world(&w);
    turn(&w, 0.25);
    say_hello(&w, one);
    turn(&w, 1);
    beat(&b, FST_KIND_BEAT, "edge-1", RUN, "{}");
    counts_one(&w, FST_REFUSED_BODY, ctl, &b);
    counts_one(&w, FST_REFUSED_TOPIC, "fst/up/edge-9/ctl", &b); /* nobody has that id */
    beat(&b, FST_KIND_BEAT, "edge-2", RUN, "{}");
    counts_one(&w, FST_REFUSED_TOPIC, ctl, &b); /* a sender that is not the topic's */
    beat(&b, FST_KIND_BEAT, "edge-1", RUN + 1, "{}");
    counts_one(&w, FST_REFUSED_RUN, ctl, &b);
    beat(&b, FST_KIND_ORDER, "edge-1", RUN, "{}");
    counts_one(&w, FST_REFUSED_TOPIC, ctl, &b); /* what only a cloud says */
    beat(&b, FST_KIND_BEAT, "edge-1", RUN, "{}");
    b.data[0] ^= 1;
    counts_one(&w, FST_REFUSED_MAGIC, ctl, &b);
    b.data[0] ^= 1;
    b.data[69] ^= 1;
    counts_one(&w, FST_REFUSED_HASH, ctl, &b);
    b.data[69] ^= 1;
    b.len--;
    counts_one(&w, FST_REFUSED_LENGTH, ctl, &b);
    b.len++;
    b.data[6] = 9;
    counts_one(&w, FST_REFUSED_VERSION, ctl, &b);
    assert_true(w.has_refusal); /* and it is told which versions there are */
    assert_non_null(strstr(w.refusal.reason, "version 9"));
    /* a flood: a thousand a second are heard */
    beat(&b, FST_KIND_BEAT, "edge-1", RUN, "{}");
    turn(&w, 2);
    uint64_t before = fst__coordinator_refused(w.coordinator)[FST_REFUSED_RATE];
    for (int i = 0; i < 1500; i++)
        publish(&w, ctl, &b);
    for (int i = 0; i < 100; i++) /* a poll takes some of them */
        ok(fst_transport_poll(w.cloud, 0, &err), &err);
    assert_int_equal(fst__coordinator_refused(w.coordinator)[FST_REFUSED_RATE] - before, 500);
    fst_buf_release(&b);
    close_world(&w);
}

/* A site that speaks of another run or a later cloud is not believed, unless links end at once again and again, as they
 * do when two clouds have one name at the broker. */
static void test_two_clouds(void **state)
{
    static const struct {
        uint64_t run, epoch;
        bool joined, goes;
        const char *why;
    } cases[] = {{RUN, 1, false, false, NULL},
                 {RUN + 1, 1, false, true, "with run"},
                 {RUN + 1, 1, true, false, NULL}, /* sites know it: it is the other one that has to go */
                 {RUN, 2, true, true, "began after this one"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct world w;
        fst_error err = {0};
        fst_buf bytes = {0};
        fst_frame f = {
            .kind = FST_KIND_BEAT, .run = cases[i].run, .epoch = cases[i].epoch, .body = "{}", .body_len = 2};
        snprintf(f.sender, sizeof f.sender, "edge-1");
        open_world(&w);
        turn(&w, 0.25);
        if (cases[i].joined)
            say_hello(&w, one);
        turn(&w, 1);
        ok(fst_frame_encode(&f, &bytes, &err), &err);
        publish(&w, "fst/up/edge-1/ctl", &bytes);
        turn(&w, 10);
        ok(fst__coordinator_alone(w.coordinator, &err), &err);
        for (int n = 0; n < 3; n++) {
            ok(fst__coordinator_alone(w.coordinator, &err), &err);
            fst__coordinator_link(w.coordinator, w.now + 10 * n, true);
            fst__coordinator_link(w.coordinator, w.now + 10 * n + 0.1, false);
        }
        assert_int_equal(fst__coordinator_alone(w.coordinator, &err), cases[i].goes ? FST_E_CONFIG : FST_OK);
        assert_true(!cases[i].goes || strstr(err.message, cases[i].why));
        fst__coordinator_link(w.coordinator, w.now + 40, true); /* a link that holds: it was the network */
        fst__coordinator_link(w.coordinator, w.now + 50, false);
        ok(fst__coordinator_alone(w.coordinator, &err), &err);
        fst_buf_release(&bytes);
        close_world(&w);
    }
}

/* ---- what it says for people does not reach the log as it is ---- */

struct heard {
    unsigned lines, odd;
    char all[8192];
};

static void hear(void *ctx, fst_log_level level, const char *message)
{
    struct heard *h = ctx;
    size_t n = strlen(h->all);
    (void)level;
    h->lines++;
    for (const char *p = message; *p; p++)
        h->odd += (unsigned char)*p < ' ' || *p == 0x7f;
    snprintf(h->all + n, sizeof h->all - n, "%s\n", message);
}

static void test_control_characters(void **state)
{
    struct world w;
    fst_error err = {0};
    fst_buf body = {0};
    struct heard heard = {.lines = 0};
    struct hello h = {
        .id = "edge-1", .role = "edge", .learn = (uint64_t)SAMPLES[0], .settings = (char[]){"a\x1b[2Jb=1\n"}};
    struct cannot c = {.stage = "federated", .reason = "no\r\x1b]0;title\x07 space"};
    (void)state;
    memset(h.task, 'f', FST_DIGEST_HEX - 1); /* another task: the refusal quotes its settings */
    memset(h.data, 'b', FST_DIGEST_HEX - 1);
    snprintf(h.instance, sizeof h.instance, "%s", one);
    snprintf(h.missing, sizeof h.missing, "E-2D\x1b[31m\n");
    snprintf(h.numerics, sizeof h.numerics, "onednn\x7f\t");
    open_world(&w);
    fst_log_set(hear, &heard);
    ok(fst__write_hello(&h, &body, &err), &err);
    turn(&w, 2);
    say(&w, "ctl", FST_KIND_HELLO, &body);
    turn(&w, 2);
    assert_true(w.has_refusal);
    assert_non_null(strstr(heard.all, "a?[2Jb=1"));
    memset(h.task, 'a', FST_DIGEST_HEX - 1);
    body.len = 0;
    ok(fst__write_hello(&h, &body, &err), &err);
    say(&w, "ctl", FST_KIND_HELLO, &body);
    turn(&w, 2);
    assert_non_null(strstr(heard.all, "edge-1 joined: 5 samples, none of E-2D?[31m?"));
    snprintf(c.instance, sizeof c.instance, "%s", one);
    body.len = 0;
    ok(fst__write_cannot(&c, &body, &err), &err);
    say(&w, "ctl", FST_KIND_CANNOT, &body);
    turn(&w, 1);
    assert_non_null(strstr(fst_server_lost(w.server, 0), "no??]0;title? space"));
    fst_log_set(NULL, NULL);
    assert_true(heard.lines >= 2);
    assert_int_equal(heard.odd, 0);
    fst_buf_release(&body);
    close_world(&w);
}

static struct {
    int lines, flood, held, joined;
} logged;

static void count_line(void *ctx, fst_log_level level, const char *message)
{
    (void)ctx, (void)level;
    logged.lines++;
    logged.flood += strstr(message, "more than 1000 messages a second") != NULL;
    logged.held += strstr(message, "times more") != NULL;
    logged.joined += strstr(message, "joined: ") != NULL;
}

/* A site that comes and goes as fast as it can: what is said of it is said once in a while, what it is sent is
 * packed once, and what is above the limit is dropped and counted. The round goes on with the others. */
static void test_flood(void **state)
{
    enum { TURNS = 40, EACH = 300 }; /* 2 * 300 messages in a quarter of a second */
    struct world w;
    (void)state;
    open_world_of(&w, 2);
    memset(&logged, 0, sizeof logged);
    fst_log_set(count_line, NULL);
    for (w.speaker = 0; w.speaker < 2; w.speaker++) {
        turn(&w, 0.25);
        say_hello(&w, one);
        turn(&w, 1);
    }
    assert_true(w.orders >= 2);
    assert_int_equal(fst__coordinator_count(w.coordinator)->packed, 1); /* two sites, one message */
    w.speaker = 0;
    for (int i = 0; i < TURNS; i++) {
        for (int k = 0; k < EACH; k++) {
            say_bye(&w);
            say_hello(&w, one);
        }
        for (int k = 0; k < 20; k++)
            ok(fst_transport_poll(w.cloud, 0, NULL), NULL);
        turn(&w, 0.25);
    }
    fst_log_set(NULL, NULL);
    assert_int_equal(fst__coordinator_count(w.coordinator)->packed, 1);
    uint64_t dropped = fst__coordinator_site(w.coordinator, 0).dropped;
    assert_int_equal(fst__coordinator_refused(w.coordinator)[FST_REFUSED_RATE], dropped);
    assert_true(dropped > (uint64_t)TURNS * EACH / 4);
    assert_int_equal(fst__coordinator_site(w.coordinator, 1).dropped, 0);
    assert_true(logged.flood >= 1 && logged.held >= 1 && logged.joined >= 2);
    assert_true(logged.lines < 30); /* of some 10,000 that there would be */
    assert_true(fst__coordinator_site(w.coordinator, 1).present);
    close_world(&w);
}

/* Sites that offer large blobs, one after the other. */
static void all_offer(struct world *w)
{
    fst_blob_manifest large = {
        .bytes = 40 * (uint64_t)FST_BLOB_PART, .raw_bytes = 40 * (uint64_t)FST_BLOB_PART, .parts = 40};
    for (w->speaker = 0; w->speaker < w->count; w->speaker++) {
        turn(w, 0.25);
        say_hello(w, one);
    }
    turn(w, 1);
    for (w->speaker = 0; w->speaker < w->count; w->speaker++) {
        memset(large.digest, 'a' + (int)w->speaker % 6, FST_DIGEST_HEX - 1);
        large.digest[0] = (char)('0' + w->speaker);
        offer(w, one, &large);
        turn(w, 0.5);
    }
}

/* Two sites that offer much and send nothing: those that come after them are asked for parts all the same. */
static void test_slow_sites(void **state)
{
    struct world w;
    (void)state;
    open_world_of(&w, 4);
    all_offer(&w);
    assert_int_equal(w.asked[0] + w.asked[1], 16); /* all that may be on their way */
    assert_int_equal(w.asked[2], 2);
    assert_int_equal(w.asked[3], 2);
    close_world(&w);
}

/* As many as are fetched from at a time, and none sends: the next one gets the place of one of them. */
static void test_slow_fetches(void **state)
{
    struct world w;
    uint32_t fetching = 0;
    (void)state;
    open_world_of(&w, FETCHES + 1);
    all_offer(&w);
    assert_int_equal(w.asked[FETCHES], 0);
    turn(&w, 8);
    assert_true(w.asked[FETCHES] >= 2);
    for (uint32_t k = 0; k <= FETCHES; k++)
        fetching += fst__coordinator_site(w.coordinator, k).fetching;
    assert_int_equal(fetching, FETCHES);
    assert_false(fst__coordinator_site(w.coordinator, 0).fetching); /* it was silent for longest */
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counts),           cmocka_unit_test(test_control_characters),
        cmocka_unit_test(test_another_manifest), cmocka_unit_test(test_wrong_parts),
        cmocka_unit_test(test_huge_manifest),    cmocka_unit_test(test_end_while_fetching),
        cmocka_unit_test(test_other_samples),    cmocka_unit_test(test_two_processes),
        cmocka_unit_test(test_two_clouds),       cmocka_unit_test(test_flood),
        cmocka_unit_test(test_useless_updates),  cmocka_unit_test(test_slow_sites),
        cmocka_unit_test(test_slow_fetches)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Control messages: what is written is read again; what lacks a key or has a wrong value is refused with nothing taken.
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

#include "wire.h"

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static fst_blob_manifest manifest(void)
{
    fst_blob_manifest m = {.bytes = 9, .raw_bytes = 20, .codec = FST_BLOB_ZSTD, .parts = 1};
    memset(m.digest, 'c', 64);
    return m;
}

static void test_hello(void **state)
{
    struct hello h = {.id = "edge-1",
                      .role = "edge",
                      .instance = "0123456789abcdef",
                      .program = "0.1",
                      .client = 4,
                      .run = UINT64_C(0xfedcba9876543210),
                      .learn = 7,
                      .validate = 2,
                      .missing = "a",
                      .numerics = "x"};
    struct hello back;
    fst_buf b = {0};
    fst_error err;
    (void)state;
    memset(h.task, 'a', 64);
    memset(h.data, 'b', 64);
    h.settings = "seed=1\nx=2\n";
    ok(fst__write_hello(&h, &b, &err), &err);
    ok(fst__read_hello(&back, b.data, b.len, &err), &err);
    assert_true(back.client == 4 && back.run == h.run && back.learn == 7 && back.validate == 2);
    assert_string_equal(back.id, "edge-1");
    assert_string_equal(back.settings, h.settings);
    fst__hello_release(&back);
    /* each byte that is cut off is missed */
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(fst__read_hello(&back, b.data, n, &err), FST_E_FORMAT);
    fst_buf_release(&b);
}

static void test_order(void **state)
{
    struct order o = {.kind = ORDER_TRAIN, .stage = "federated_train", .round = 3, .counted = 2, .base = manifest()},
                 back;
    fst_buf b = {0};
    fst_error err;
    (void)state;
    ok(fst__write_order(&o, &b, &err), &err);
    ok(fst__read_order(&back, 0, b.data, b.len, &err), &err);
    assert_true(back.round == 3 && back.counted == 2 && fst_blob_manifest_equal(&back.base, &o.base));
    assert_int_equal(fst__read_order(&back, 10, b.data, b.len, &err), FST_E_LIMIT); /* a blob larger than expected */
    o.counted = 3;
    b.len = 0;
    ok(fst__write_order(&o, &b, &err), &err);
    assert_int_equal(fst__read_order(&back, 0, b.data, b.len, &err), FST_E_FORMAT); /* counted after it */
    b.len = 0;
    ok(fst__write_order(&(struct order){.kind = ORDER_STOP}, &b, &err), &err);
    ok(fst__read_order(&back, 0, b.data, b.len, &err), &err);
    assert_int_equal(back.kind, ORDER_STOP);
    fst_buf_release(&b);
}

static void test_others(void **state)
{
    struct result r = {.instance = "0123456789abcdef", .stage = "s", .round = 1, .seconds = NAN, .blob = manifest()},
                  r2;
    struct beat beat = {.instance = "0123456789abcdef", .stage = "", .round = 0, .state = SITE_KEEP}, beat2;
    struct cannot c = {.instance = "0123456789abcdef", .stage = "s", .reason = "no \"space\"\n", .round = 1}, c2;
    struct receipt receipt = {.stage = "s", .why = "late", .round = 9, .folded = false}, receipt2;
    struct refusal no = {.final = true, .reason = "\xff\xfe"}, no2;
    struct refusal meant = {.instance = "0123456789abcdef", .final = true};
    fst_buf b = {0};
    fst_error err;
    (void)state;
    ok(fst__write_result(&r, &b, &err), &err);
    ok(fst__read_result(&r2, 0, b.data, b.len, &err), &err);
    assert_true(isnan(r2.seconds) && r2.round == 1);
    b.len = 0;
    ok(fst__write_beat(&beat, &b, &err), &err);
    ok(fst__read_beat(&beat2, b.data, b.len, &err), &err);
    assert_int_equal(beat2.state, SITE_KEEP);
    assert_string_equal(beat2.waits, "");
    assert_null(strstr(b.data, "waits"));
    b.len = 0;
    snprintf(beat.waits, sizeof beat.waits, "no space\x1b left");
    ok(fst__write_beat(&beat, &b, &err), &err);
    ok(fst__read_beat(&beat2, b.data, b.len, &err), &err);
    assert_string_equal(beat2.waits, "no space? left"); /* it is for a terminal */
    assert_int_equal(beat2.windows, 0);
    beat.windows = 70;
    beat.offloaded = 21;
    b.len = 0;
    ok(fst__write_beat(&beat, &b, &err), &err);
    ok(fst__read_beat(&beat2, b.data, b.len, &err), &err);
    assert_int_equal(beat2.windows, 70);
    assert_int_equal(beat2.offloaded, 21);
    beat.offloaded = 71; /* of 70 */
    b.len = 0;
    ok(fst__write_beat(&beat, &b, &err), &err);
    assert_int_equal(fst__read_beat(&beat2, b.data, b.len, &err), FST_E_FORMAT);
    b.len = 0;
    ok(fst__write_cannot(&c, &b, &err), &err);
    ok(fst__read_cannot(&c2, b.data, b.len, &err), &err);
    assert_string_equal(c2.reason, "no \"space\"?"); /* nothing that a terminal obeys */
    b.len = 0;
    ok(fst__write_receipt(&receipt, &b, &err), &err);
    ok(fst__read_receipt(&receipt2, b.data, b.len, &err), &err);
    assert_true(receipt2.round == 9 && !receipt2.folded);
    b.len = 0;
    ok(fst__write_refusal(&no, &b, &err), &err);
    ok(fst__read_refusal(&no2, b.data, b.len, &err), &err);
    assert_string_equal(no2.reason, "??");
    assert_string_equal(no2.instance, "");
    b.len = 0;
    ok(fst__write_refusal(&meant, &b, &err), &err);
    ok(fst__read_refusal(&no2, b.data, b.len, &err), &err);
    assert_string_equal(no2.instance, meant.instance);
    struct figures
        f = {.instance = "0123456789abcdef",
             .stage = "s",
             .round = 3,
             .own = {.has = true, .accuracy = 0.1, .loss = 1.0 / 3, .samples = 40, .arch = "mnist_student width=0.5"}},
        f2;
    memset(f.fingerprint, 'd', 64);
    b.len = 0;
    ok(fst__write_figures(&f, &b, &err), &err);
    ok(fst__read_figures(&f2, b.data, b.len, &err), &err);
    assert_true(f2.own.accuracy == 0.1 && f2.own.loss == 1.0 / 3 && f2.own.samples == 40); /* the same doubles */
    assert_string_equal(f2.own.arch, f.own.arch);
    assert_string_equal(f2.own.digest, "");
    assert_string_equal(f2.fingerprint, f.fingerprint);
    static const double none[] = {-0.01, 1.01, 1e300};
    for (size_t i = 0; i < 3; i++) { /* no share of samples is so right */
        f.own.accuracy = none[i];
        b.len = 0;
        ok(fst__write_figures(&f, &b, &err), &err);
        assert_int_equal(fst__read_figures(&f2, b.data, b.len, &err), FST_E_FORMAT);
        assert_non_null(strstr(err.message, "0 to 1"));
    }
    f.own.accuracy = NAN; /* not measured */
    assert_int_equal(f2.own.own_samples, 0);
    f.own.own_samples = 7;
    f.own.own_accuracy = 3.0 / 7;
    f.own.own_global_accuracy = NAN; /* started from none */
    b.len = 0;
    ok(fst__write_figures(&f, &b, &err), &err);
    ok(fst__read_figures(&f2, b.data, b.len, &err), &err);
    assert_true(f2.own.own_samples == 7 && f2.own.own_accuracy == 3.0 / 7 && isnan(f2.own.own_global_accuracy));
    f.own.own_global_accuracy = 1.5;
    b.len = 0;
    ok(fst__write_figures(&f, &b, &err), &err);
    assert_int_equal(fst__read_figures(&f2, b.data, b.len, &err), FST_E_FORMAT);
    assert_non_null(strstr(err.message, "own_validation"));
    f.own.own_samples = 0;
    b.len = 0;
    ok(fst__write_figures(&f, &b, &err), &err);
    ok(fst__read_figures(&f2, b.data, b.len, &err), &err);
    assert_true(isnan(f2.own.accuracy));
    struct order m = {.kind = ORDER_MEASURE, .stage = "s", .round = 3, .counted = 1}, m2;
    b.len = 0;
    ok(fst__write_order(&m, &b, &err), &err);
    ok(fst__read_order(&m2, 0, b.data, b.len, &err), &err);
    assert_true(m2.kind == ORDER_MEASURE && m2.counted == 1 && m2.round == 3);
    fst_buf_release(&b);
}

/* What is there only where sites have files of their own, or are given something. */
static void test_places(void **state)
{
    struct hello h = {.id = "edge-1",
                      .role = "edge",
                      .instance = "0123456789abcdef",
                      .samples = "F32 (2, 1024), SNR",
                      .classes = 7,
                      .plain = true},
                 h2;
    struct order m = {.kind = ORDER_MEASURE, .stage = "s", .round = 2, .counted = -1, .base = manifest(), .classes = 7},
                 m2;
    struct figures f = {.instance = "0123456789abcdef", .stage = "s", .own = {.samples = 9, .right = 9}}, f2;
    fst_buf b = {0};
    fst_error err;
    (void)state;
    memset(h.data, 'b', 64); /* it has no task: "" */
    memset(h.names, 'e', 64);
    ok(fst__write_hello(&h, &b, &err), &err);
    ok(fst__read_hello(&h2, b.data, b.len, &err), &err);
    assert_string_equal(h2.samples, h.samples);
    assert_string_equal(h2.names, h.names);
    assert_string_equal(h2.common, "");
    assert_string_equal(h2.task, "");
    assert_true(h2.classes == 7 && h2.plain);
    fst__hello_release(&h2);
    h.classes = FST_MAX_CLASSES + 1;
    b.len = 0;
    ok(fst__write_hello(&h, &b, &err), &err);
    assert_int_equal(fst__read_hello(&h2, b.data, b.len, &err), FST_E_FORMAT);
    memset(m.data, 'd', 64);
    b.len = 0;
    ok(fst__write_order(&m, &b, &err), &err);
    ok(fst__read_order(&m2, 0, b.data, b.len, &err), &err);
    assert_true(m2.kind == ORDER_MEASURE && m2.classes == 7 && fst_blob_manifest_equal(&m2.base, &m.base));
    assert_string_equal(m2.data, m.data);
    assert_int_equal(fst__read_order(&m2, 10, b.data, b.len, &err), FST_E_LIMIT);
    memset(f.given, 'c', 64);
    b.len = 0;
    ok(fst__write_figures(&f, &b, &err), &err);
    ok(fst__read_figures(&f2, b.data, b.len, &err), &err);
    assert_true(f2.own.samples == 9 && f2.own.right == 9);
    assert_string_equal(f2.given, f.given);
    f.own.right = 10; /* of nine */
    b.len = 0;
    ok(fst__write_figures(&f, &b, &err), &err);
    assert_int_equal(fst__read_figures(&f2, b.data, b.len, &err), FST_E_FORMAT);
    fst_buf_release(&b);
}

/* Wrong values, one at a time, in a message that is right without them. */
static void test_refused(void **state)
{
    static const char right[] =
        "{\"instance\": \"0123456789abcdef\", \"stage\": \"s\", \"round\": 1, \"state\": \"idle\"}";
    static const struct {
        const char *from, *to;
    } wrong[] = {{"0123456789abcdef", "0123456789abcde"},
                 {"0123456789abcdef", "0123456789ABCDEF"},
                 {"\"s\"", "3"},
                 {"\"s\"", "\"0123456789012345678901234567890123456789012345678901234567890123\""},
                 {": 1,", ": -1,"},
                 {": 1,", ": 1.5,"},
                 {": 1,", ": 1e300,"},
                 {": 1,", ": \"1\","},
                 {"idle", "asleep"},
                 {"state", "round"},
                 {"{", "["}};
    struct beat b = {.round = 77};
    fst_error err;
    (void)state;
    ok(fst__read_beat(&b, right, strlen(right), &err), &err);
    b.round = 77;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char text[400];
        const char *at = strstr(right, wrong[i].from);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - right), right, wrong[i].to, at + strlen(wrong[i].from));
        assert_int_equal(fst__read_beat(&b, text, strlen(text), &err), FST_E_FORMAT);
        assert_int_equal(b.round, 77);
    }
    char *large = calloc(1, FST_FRAME_CONTROL + 2);
    memset(large, ' ', FST_FRAME_CONTROL + 1);
    memcpy(large, right, strlen(right));
    assert_int_equal(fst__read_beat(&b, large, FST_FRAME_CONTROL + 1, &err), FST_E_FORMAT);
    free(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hello), cmocka_unit_test(test_order),
                                       cmocka_unit_test(test_others), cmocka_unit_test(test_places),
                                       cmocka_unit_test(test_refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

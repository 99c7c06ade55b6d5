/* Frames: what is written is read; damage, foreign bytes and wrong lengths are refused by name; topics. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/frame.h"

static const fst_frame SOME = {.kind = FST_KIND_RESULT,
                               .run = UINT64_C(0x0123456789abcdef),
                               .epoch = 7,
                               .seq = 1,
                               .sender = "edge-1",
                               .body = "{}",
                               .body_len = 2};

static fst_buf encoded(const fst_frame *f)
{
    fst_buf b = {0};
    fst_error err;
    if (fst_frame_encode(f, &b, &err))
        fail_msg("%s", err.message);
    return b;
}

static void test_layout(void **state)
{
    fst_buf b = encoded(&SOME);
    const unsigned char *p = (const unsigned char *)b.data;
    (void)state;
    assert_int_equal(b.len, 78);
    assert_memory_equal(p, "FST1\x03\x00\x01\x00", 8);
    assert_memory_equal(p + 8, "\xef\xcd\xab\x89\x67\x45\x23\x01", 8);
    assert_memory_equal(p + 16, "\x07\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02\0\0\0", 20);
    assert_string_equal((const char *)p + 36, "edge-1");
    assert_memory_equal(p + 68, "{}", 2);
    fst_buf_release(&b);
}

static void test_back(void **state)
{
    fst_buf b = encoded(&SOME);
    fst_frame f;
    (void)state;
    assert_int_equal(fst_frame_decode(&f, b.data, b.len), FST_TAKEN);
    assert_true(f.kind == SOME.kind && f.run == SOME.run && f.epoch == 7 && f.seq == 1 && f.body_len == 2);
    assert_string_equal(f.sender, "edge-1");
    assert_memory_equal(f.body, "{}", 2);
    fst_buf_release(&b);
}

/* Every single bit that flips is seen. */
static void test_damage(void **state)
{
    fst_buf b = encoded(&SOME);
    fst_frame f;
    (void)state;
    for (size_t bit = 0; bit < 8 * b.len; bit++) {
        b.data[bit / 8] = (char)(b.data[bit / 8] ^ 1 << bit % 8);
        assert_int_not_equal(fst_frame_decode(&f, b.data, b.len), FST_TAKEN);
        b.data[bit / 8] = (char)(b.data[bit / 8] ^ 1 << bit % 8);
    }
    for (size_t n = 0; n < b.len; n++)
        assert_int_equal(fst_frame_decode(&f, b.data, n), FST_REFUSED_LENGTH);
    fst_buf_release(&b);
}

static void test_version(void **state)
{
    fst_buf b = encoded(&SOME);
    fst_frame f = {.version = 0};
    (void)state;
    b.data[6] = 9;
    assert_int_equal(fst_frame_decode(&f, b.data, b.len), FST_REFUSED_VERSION);
    assert_int_equal(f.version, 9);
    b.data[0] = 'X';
    assert_int_equal(fst_frame_decode(&f, b.data, b.len), FST_REFUSED_MAGIC);
    fst_buf_release(&b);
}

static void test_limits(void **state)
{
    static char large[FST_FRAME_MAX];
    fst_frame f = SOME;
    fst_buf b = {0};
    fst_error err;
    (void)state;
    f.body = large;
    f.body_len = FST_FRAME_CONTROL + 1;
    assert_int_equal(fst_frame_encode(&f, &b, &err), FST_E_LIMIT);
    f.kind = FST_KIND_PART;
    f.body_len = FST_FRAME_MAX - FST_FRAME_OVERHEAD + 1;
    assert_int_equal(fst_frame_encode(&f, &b, &err), FST_E_LIMIT);
    f.body_len--;
    assert_int_equal(fst_frame_encode(&f, &b, &err), FST_OK);
    assert_int_equal(b.len, FST_FRAME_MAX);
    assert_int_equal(fst_frame_decode(&f, b.data, b.len), FST_TAKEN);
    fst_buf_release(&b);
    memcpy(f.sender, "Edge_1", 7);
    assert_int_equal(fst_frame_encode(&f, &b, &err), FST_E_ARGUMENT);
    assert_int_equal(b.len, 0);
    fst_buf_release(&b);
}

static void test_topics(void **state)
{
    char topic[FST_TOPIC], site[FST_SITE_ID];
    const char *leaf;
    bool up;
    (void)state;
    assert_string_equal(fst_topic_up(topic, "edge-1", "ctl"), "fst/up/edge-1/ctl");
    assert_true(fst_topic_split(topic, &up, site, &leaf));
    assert_true(up);
    assert_string_equal(site, "edge-1");
    assert_string_equal(leaf, "ctl");
    assert_string_equal(fst_topic_down(topic, "+", "get"), "fst/dn/+/get");
    static const char *const bad[] = {"",
                                      "fst/up/",
                                      "fst/up/a",
                                      "fst/up//ctl",
                                      "fst/up/a/",
                                      "fst/up/A/ctl",
                                      "fst/xx/a/ctl",
                                      "fst/up/a/b/c",
                                      "fst/up/0123456789012345678901234567890123/ctl"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_false(fst_topic_split(bad[i], &up, site, &leaf));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_layout), cmocka_unit_test(test_back),
                                       cmocka_unit_test(test_damage), cmocka_unit_test(test_version),
                                       cmocka_unit_test(test_limits), cmocka_unit_test(test_topics)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

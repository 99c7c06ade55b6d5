/* Frames between ranks: what is read is what was written; a length or a number that is another is refused, whatever it
 * would lead to, and nothing is put out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "rank_frame.h"

static fst_buf frame_of(struct fst__rank_head h, const char *message, const char *kept)
{
    fst_buf b = {0};
    h.kept = strlen(kept);
    if (fst__rank_frame_begin(&b, NULL) || fst_buf_append(&b, message, strlen(message), NULL) ||
        fst__rank_frame_finish(&b, h, kept, NULL))
        fail();
    return b;
}

static fst_status read_as(const fst_buf *b, bool answer)
{
    struct fst__rank_head h = {.what = 77};
    const char *message = NULL, *kept = NULL;
    fst_status st = fst__rank_frame_read(b->data, b->len, answer, &h, &message, &kept, NULL);
    if (st && (h.what != 77 || message || kept))
        fail_msg("a frame that is refused is put out");
    return st;
}

static void test_read(void **state)
{
    fst_buf b =
        frame_of((struct fst__rank_head){.what = FST__RANK_PLAY, .client = 3, .stage = 2}, "hello", "kept by 3");
    struct fst__rank_head h;
    const char *message = NULL, *kept = NULL;
    (void)state;
    assert_int_equal(fst__rank_frame_read(b.data, b.len, false, &h, &message, &kept, NULL), FST_OK);
    assert_int_equal(h.client, 3);
    assert_int_equal(h.stage, 2);
    assert_int_equal(h.message, 5);
    assert_int_equal(h.kept, 9);
    assert_memory_equal(message, "hello\0\0\0kept by 3", 17);
    assert_ptr_equal(kept, message + 8);
    assert_int_equal(read_as(&b, true), FST_E_FORMAT);
    for (; b.len; b.len--)
        assert_int_equal(read_as(&b, false), b.len == h.message + h.kept + 3 + sizeof h ? FST_OK : FST_E_FORMAT);
    fst_buf_release(&b);
}

/* One number of a frame that is right is another. */
static void refused(struct fst__rank_head right, const char *message, const char *kept, size_t at, uint64_t value,
                    size_t size)
{
    fst_buf b = frame_of(right, message, kept);
    bool answer = right.what >= FST__RANK_OPENED;
    assert_int_equal(read_as(&b, answer), FST_OK);
    memcpy(b.data + at, &value, size);
    assert_int_equal(read_as(&b, answer), FST_E_FORMAT);
    fst_buf_release(&b);
}

#define REFUSED(right, message, kept, member, value)                              \
    refused(right, message, kept, offsetof(struct fst__rank_head, member), value, \
            sizeof((struct fst__rank_head *)NULL)->member)

static void test_refused(void **state)
{
    const struct fst__rank_head play = {.what = FST__RANK_PLAY}, end = {.what = FST__RANK_END},
                                played = {.what = FST__RANK_PLAYED}, cannot = {.what = FST__RANK_CANNOT},
                                failed = {.what = FST__RANK_FAILED, .status = FST_E_NUMERIC};
    (void)state;
    /* (6, 7 and 8 would be another message in the same bytes) */
    const uint64_t lengths[] = {0, 4, 17, UINT64_C(1) << 31, UINT64_C(1) << 63, UINT64_MAX - 7, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        REFUSED(play, "hello", "kept by 3", message, lengths[i]);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++)
        REFUSED(played, "hello", "kept by 3", kept, lengths[i]);
    REFUSED(play, "hello", "", what, 9);
    REFUSED(play, "hello", "", what, FST__RANK_OPEN); /* two digests are not five bytes */
    REFUSED(play, "hello", "", status, FST_E_FORMAT);
    REFUSED(end, "", "", client, 1);
    REFUSED(played, "hello", "", stage, 1);
    REFUSED(played, "hello", "", status, FST_E_NUMERIC);
    REFUSED(failed, "why", "", status, FST_OK);
    REFUSED(failed, "why", "", status, FST_STATUSES);
    REFUSED(cannot, "why", "", status, FST_E_NUMERIC);
    REFUSED(played, "hello", "kept", what, FST__RANK_CANNOT); /* a text, and nothing is kept */
}

/* A text that would not fit an error, and bytes where there should be none. */
static void test_texts(void **state)
{
    char text[sizeof((fst_error *)NULL)->message + 1];
    (void)state;
    memset(text, 'x', sizeof text);
    text[sizeof text - 2] = 0;
    fst_buf b = frame_of((struct fst__rank_head){.what = FST__RANK_CANNOT}, text, "");
    assert_int_equal(read_as(&b, true), FST_OK);
    b.data[b.len - 1] = 'y';
    assert_int_equal(read_as(&b, true), FST_E_FORMAT);
    fst_buf_release(&b);
    text[sizeof text - 2] = 'x';
    text[sizeof text - 1] = 0;
    b = frame_of((struct fst__rank_head){.what = FST__RANK_CANNOT}, text, "");
    assert_int_equal(read_as(&b, true), FST_E_FORMAT);
    fst_buf_release(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_read), cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_texts)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

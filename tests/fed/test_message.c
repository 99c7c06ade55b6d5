/* Messages: there and back over bytes, in any order of tensors, with exact numbers; what is refused, and before what.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/strategy.h"

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static float params[5] = {1.5f, -2, INFINITY, 0, 3e-40f}, buffers[2] = {7, 8};
static int64_t counters[1] = {INT64_MIN};
static uint8_t flags[3] = {0, 1, 255};

static fst_message sample(void)
{
    fst_message m = fst_message_of("state");
    const fst_fed_view v = {params, buffers, counters, {5, 2, 1}};
    fst_error err;
    m.client = 4294967295u;
    m.round = UINT64_MAX;
    m.base = 12;
    m.samples = INT64_MAX;
    m.loss = 0.1;
    ok(fst_message_add(&m, "flags", FST_U8, FST_SHAPE(3, 1), flags, &err), &err);
    ok(fst_message_add_state(&m, &v, &err), &err);
    return m;
}

static void test_there_and_back(void **state)
{
    (void)state;
    fst_message m = sample(), got;
    fst_buf bytes = {0};
    fst_fed_view v;
    fst_error err;
    assert_int_equal(fst_message_bytes(&m), 3 + 4 * 7 + 8);
    ok(fst_message_pack(&m, &bytes, &err), &err);
    ok(fst_message_parse(&got, bytes.data, bytes.len, &err), &err);
    assert_string_equal(got.kind, "state");
    assert_true(got.client == m.client && got.round == m.round && got.base == 12 && got.samples == m.samples);
    assert_true(got.loss == 0.1 && isnan(got.accuracy));
    assert_int_equal(got.count, 4);
    ok(fst_message_state(&got, (fst_fed_size){5, 2, 1}, &v, &err), &err);
    assert_memory_equal(v.params, params, sizeof params);
    assert_memory_equal(v.buffers, buffers, sizeof buffers);
    assert_int_equal(v.counters[0], INT64_MIN);
    const fst_message_tensor *t = fst_message_find(&got, "flags");
    assert_non_null(t);
    assert_memory_equal(t->data, flags, sizeof flags);
    assert_true(t->shape.rank == 2 && t->shape.dim[0] == 3 && t->shape.dim[1] == 1);
    assert_true((const char *)t->data >= bytes.data && (const char *)t->data < bytes.data + bytes.len); /* a view */
    fst_buf_release(&bytes);
}

/* The bytes are those of the message, whatever order its tensors were added in. */
static void test_bytes_are_canonical(void **state)
{
    (void)state;
    fst_message a = sample(), b = fst_message_of("state");
    fst_buf x = {0}, y = {0};
    fst_error err;
    b.client = a.client, b.round = a.round, b.base = a.base, b.samples = a.samples, b.loss = a.loss;
    for (size_t i = a.count; i-- > 0;)
        ok(fst_message_add(&b, a.tensor[i].name, a.tensor[i].dtype, a.tensor[i].shape, a.tensor[i].data, &err), &err);
    ok(fst_message_pack(&a, &x, &err), &err);
    ok(fst_message_pack(&b, &y, &err), &err);
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    fst_buf_release(&x);
    fst_buf_release(&y);
}

static void test_cut_and_changed(void **state)
{
    (void)state;
    fst_message m = sample(), got = fst_message_of("untouched");
    fst_buf bytes = {0};
    fst_error err;
    ok(fst_message_pack(&m, &bytes, &err), &err);
    for (size_t n = 0; n < bytes.len; n++) {
        fst_status st = fst_message_parse(&got, bytes.data, n, &err);
        assert_true(st == FST_E_FORMAT || st == FST_E_LIMIT);
    }
    assert_string_equal(got.kind, "untouched");
    assert_int_equal(fst_message_parse(&got, bytes.data + 1, bytes.len - 1, &err), FST_E_ARGUMENT); /* not aligned */
    char *round = strstr(bytes.data + 8, "\"round\":\"1844674407370955161");
    assert_non_null(round);
    round[9] = '9'; /* more than 64 bits */
    assert_int_equal(fst_message_parse(&got, bytes.data, bytes.len, &err), FST_E_FORMAT);
    assert_non_null(strstr(err.message, "round"));
    fst_buf_release(&bytes);
}

/* A header above the limit is refused before memory is taken for it. */
static void test_limits_before_memory(void **state)
{
    (void)state;
    static uint64_t huge[20000];
    fst_message got, m = fst_message_of("x");
    fst_error err;
    huge[0] = sizeof huge - 8;
    uint64_t before = fst_alloc_count();
    assert_int_equal(fst_message_parse(&got, huge, sizeof huge, &err), FST_E_LIMIT);
    assert_true(fst_alloc_count() == before);
    char name[16];
    for (int i = 0; i < FST_MESSAGE_TENSORS; i++) {
        snprintf(name, sizeof name, "t%d", i);
        ok(fst_message_add(&m, name, FST_U8, FST_SHAPE(3), flags, &err), &err);
    }
    assert_int_equal(fst_message_add(&m, "more", FST_U8, FST_SHAPE(3), flags, &err), FST_E_LIMIT);
    m.count = 1;
    assert_int_equal(fst_message_add(&m, "t0", FST_U8, FST_SHAPE(3), flags, &err), FST_E_ARGUMENT);
    assert_int_equal(fst_message_add(&m, "", FST_U8, FST_SHAPE(3), flags, &err), FST_E_ARGUMENT);
    assert_int_equal(fst_message_add(&m, "a name of thirty-two characters!", FST_U8, FST_SHAPE(3), flags, &err),
                     FST_E_ARGUMENT);
}

static void test_what_is_not_there(void **state)
{
    (void)state;
    fst_message m = sample();
    fst_fed_view v;
    const void *p;
    fst_error err;
    assert_int_equal(fst_message_state(&m, (fst_fed_size){6, 2, 1}, &v, &err), FST_E_MISMATCH);
    assert_string_equal(err.message, "\"params\" is F32 (5,), F32 (6,) is needed");
    assert_int_equal(fst_message_get(&m, "flags", FST_BOOL, FST_SHAPE(3, 1), &p, &err), FST_E_MISMATCH);
    assert_int_equal(fst_message_get(&m, "logits", FST_F32, FST_SHAPE(3), &p, &err), FST_E_MISMATCH);
    assert_string_equal(err.message, "has no tensor \"logits\" (state)");
    assert_null(fst_message_find(&m, "logits"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_there_and_back),    cmocka_unit_test(test_bytes_are_canonical),
        cmocka_unit_test(test_cut_and_changed),   cmocka_unit_test(test_limits_before_memory),
        cmocka_unit_test(test_what_is_not_there),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* CFD's levels and their packing: rows worked out by hand, the nearest of all possible rows by trying all, whatever was
 * packed comes back, and damaged bytes are refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/distill.h"

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static void test_levels_by_hand(void **state)
{
    uint16_t level[4];
    float p[4];
    (void)state;
    const float a[] = {0.1f, 0.45f, 0.2f, 0.25f};
    fst_cfd_quantise(a, 1, 4, 1, level);
    assert_memory_equal(level, ((uint16_t[]){0, 1, 0, 0}), sizeof level);
    /* times 3: 0.3 1.35 0.6 0.75, rounded down 0 1 0 0; two are missing and go to 0.75 and 0.6 */
    fst_cfd_quantise(a, 1, 4, 2, level);
    assert_memory_equal(level, ((uint16_t[]){0, 1, 1, 1}), sizeof level);
    fst_cfd_values(level, 1, 4, 2, p);
    assert_memory_equal(p, ((float[]){0, 1.0f / 3, 1.0f / 3, 1.0f / 3}), sizeof p);
    /* times 7: 0.7 3.15 1.4 1.75 -> 0 3 1 1, then 0.75 and 0.7 */
    fst_cfd_quantise(a, 1, 4, 3, level);
    assert_memory_equal(level, ((uint16_t[]){1, 3, 1, 2}), sizeof level);
    /* of equals the first */
    fst_cfd_quantise((float[]){0.25f, 0.25f, 0.25f, 0.25f}, 1, 4, 1, level);
    assert_memory_equal(level, ((uint16_t[]){1, 0, 0, 0}), sizeof level);
    /* a row that does not quite add up to 1 is taken as one that does */
    fst_cfd_quantise((float[]){0, 1.00001f, 0, 0}, 1, 4, 16, level);
    assert_memory_equal(level, ((uint16_t[]){0, 65535, 0, 0}), sizeof level);
}

/* No row of levels that add up to 7 is nearer. */
static void test_nearest(void **state)
{
    fst_rng r;
    (void)state;
    fst_rng_init(&r, 1, "test.cfd", 0);
    for (int trial = 0; trial < 200; trial++) {
        double q[3], sum = 0, least = INFINITY, its = 0;
        float p[3];
        uint16_t level[3];
        for (int j = 0; j < 3; j++)
            sum += q[j] = fst_rng_uniform(&r);
        for (int j = 0; j < 3; j++)
            p[j] = (float)(q[j] / sum);
        fst_cfd_quantise(p, 1, 3, 3, level);
        assert_int_equal(level[0] + level[1] + level[2], 7);
        for (int j = 0; j < 3; j++)
            its += fabs((double)p[j] - level[j] / 7.0);
        for (int a = 0; a <= 7; a++)
            for (int b = 0; a + b <= 7; b++) {
                double d = fabs((double)p[0] - a / 7.0) + fabs((double)p[1] - b / 7.0) +
                           fabs((double)p[2] - (7 - a - b) / 7.0);
                least = d < least ? d : least;
            }
        assert_true(its < least + 1e-6);
    }
}

static void test_bytes_by_hand(void **state)
{
    uint8_t out[8];
    uint16_t level[9];
    fst_error err;
    (void)state;
    /* 1 bit, 3 classes: two bits a row. Classes 2, 0, 1 behind a mark of 0: 0 01 00 10 from the low end */
    const uint16_t votes[] = {0, 0, 1, 1, 0, 0, 0, 1, 0};
    assert_int_equal(fst_cfd_most_bytes(3, 3, 1), 1);
    assert_int_equal(fst_cfd_pack(votes, NULL, 3, 3, 1, out), 1);
    assert_int_equal(out[0], 0x24);
    /* against the same rows: a mark of 1, three zeros */
    assert_int_equal(fst_cfd_pack(votes, votes, 3, 3, 1, out), 1);
    assert_int_equal(out[0], 1);
    ok(fst_cfd_unpack(out, 1, votes, 3, 3, 1, level, &err), &err);
    assert_memory_equal(level, votes, sizeof votes);
    /* the last is not known, the first differs: 1, 1 01, 0, 10 */
    const uint16_t known[] = {1, 0, 0, 1, 0, 0, 0, 0, 0};
    assert_int_equal(fst_cfd_pack(votes, known, 3, 3, 1, out), 1);
    assert_int_equal(out[0] & 1, 0); /* saves two bits and costs two: not worth it */
    ok(fst_cfd_unpack((const uint8_t[]){0x2b}, 1, known, 3, 3, 1, level, &err), &err);
    assert_memory_equal(level, votes, sizeof votes);
    /* 2 bits, 3 classes: 3 0 (0), 1 1 (1) -> 0, 11 00, 10 10 from the low end */
    const uint16_t twos[] = {3, 0, 0, 1, 1, 1};
    assert_int_equal(fst_cfd_pack(twos, NULL, 2, 3, 2, out), 2);
    assert_int_equal(out[0], 0xa6);
    assert_int_equal(out[1], 0);
    ok(fst_cfd_unpack(out, 2, NULL, 2, 3, 2, level, &err), &err);
    assert_memory_equal(level, twos, sizeof twos);
}

static void test_comes_back(void **state)
{
    enum { ROWS = 37, CLASSES = 10 };
    static float p[ROWS * CLASSES];
    static uint16_t level[ROWS * CLASSES], known[ROWS * CLASSES], back[ROWS * CLASSES];
    static uint8_t out[1000], cut[1001];
    fst_error err;
    fst_rng r;
    (void)state;
    fst_rng_init(&r, 2, "test.cfd", 0);
    for (int bits = 1; bits <= FST_CFD_MAX_BITS; bits++) {
        for (size_t i = 0; i < ROWS * CLASSES; i++)
            p[i] = (float)exp(3 * fst_rng_normal(&r));
        fst_cfd_quantise(p, ROWS, CLASSES, bits, level);
        memcpy(known, level, sizeof level);
        memset(known, 0, 5 * CLASSES * sizeof *known); /* five are not known, three differ */
        for (size_t i = 10; i < 13; i++)
            for (size_t j = 0; j < CLASSES; j++)
                known[i * CLASSES + j] = level[i * CLASSES + (j + 1) % CLASSES];
        size_t whole = fst_cfd_pack(level, NULL, ROWS, CLASSES, bits, out);
        assert_int_equal(whole, fst_cfd_most_bytes(ROWS, CLASSES, bits));
        ok(fst_cfd_unpack(out, whole, NULL, ROWS, CLASSES, bits, back, &err), &err);
        assert_memory_equal(back, level, sizeof level);
        size_t len = fst_cfd_pack(level, known, ROWS, CLASSES, bits, out), row = bits == 1 ? 4 : (size_t)bits * 9;
        assert_int_equal(len, (1 + 32 + 8 * row + 7) / 8);
        ok(fst_cfd_unpack(out, len, known, ROWS, CLASSES, bits, back, &err), &err);
        assert_memory_equal(back, level, sizeof level);
        memcpy(cut, out, len);
        cut[len] = 0;
        assert_int_equal(fst_cfd_unpack(cut, len - 1, known, ROWS, CLASSES, bits, back, &err), FST_E_FORMAT);
        assert_int_equal(fst_cfd_unpack(cut, len + 1, known, ROWS, CLASSES, bits, back, &err), FST_E_FORMAT);
    }
    /* a class beyond the last, levels beyond the sum, nothing at all */
    assert_int_equal(fst_cfd_unpack((const uint8_t[]){0x06}, 1, NULL, 1, 3, 1, back, &err), FST_E_FORMAT);
    assert_int_equal(fst_cfd_unpack((const uint8_t[]){0x1e}, 1, NULL, 1, 3, 2, back, &err), FST_E_FORMAT);
    assert_int_equal(fst_cfd_unpack(out, 0, NULL, 1, 3, 1, back, &err), FST_E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_levels_by_hand), cmocka_unit_test(test_nearest),
                                       cmocka_unit_test(test_bytes_by_hand), cmocka_unit_test(test_comes_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Exact sums against an __int128 sum of terms made from the float's own bits, and
 * hand-computed values. Nothing here rounds through double on the way. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fed_private.h"

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static float from_bits(uint32_t b)
{
    float f;
    memcpy(&f, &b, sizeof f);
    return f;
}

static uint32_t to_bits(float f)
{
    uint32_t b;
    memcpy(&b, &f, sizeof b);
    return b;
}

/* x * 2^62 as an integer, from the bits; what lies below rounds to nearest, ties to even. */
static __int128 fixed62(float x)
{
    uint32_t b = to_bits(x);
    int exponent = (int)(b >> 23 & 255);
    __int128 m = b & 0x7FFFFF;
    if (exponent)
        m |= 0x800000;
    else
        exponent = 1;
    int shift = exponent - 150 + 62;
    if (shift >= 0) {
        m <<= shift;
    } else if (shift < -40) {
        m = 0;
    } else {
        __int128 half = (__int128)1 << (-shift - 1), rest = m & (2 * half - 1);
        m >>= -shift;
        if (rest > half || (rest == half && (m & 1)))
            m++;
    }
    return b >> 31 ? -m : m;
}

/* sum / weight * 2^-62 to the nearest float, ties to even, digit by digit. */
static float oracle_mean(__int128 sum, uint64_t weight)
{
    bool negative = sum < 0;
    unsigned __int128 v = negative ? -(unsigned __int128)sum : (unsigned __int128)sum;
    if (v == 0)
        return 0;
    /* find e with 2^23 <= v / (weight 2^e) < 2^24, then divide once */
    int e = 0;
    unsigned __int128 d = weight;
    while (v / d >= 1u << 24) {
        d <<= 1;
        e++;
    }
    while (v / d < 1u << 23) {
        v <<= 1;
        e--;
    }
    unsigned __int128 q = v / d, r = v % d;
    if (2 * r > d || (2 * r == d && (q & 1)))
        q++;
    float f = ldexpf((float)(uint64_t)q, e - 62);
    return negative ? -f : f;
}

static __int128 element(const fst_accumulator *a, size_t i)
{
    return (__int128)((unsigned __int128)(uint64_t)a->hi[i] << 64 | a->lo[i]);
}

/* Floats of every exponent below 2^31, both signs, subnormals, zeros and powers of two. */
static float any_float(fst_rng *r)
{
    uint32_t b = fst_rng_u32(r);
    uint32_t exponent = (uint32_t)fst_rng_below(r, 158);
    if (fst_rng_below(r, 2)) /* mostly around the edge of precision and ordinary weights */
        exponent = 127 - 45 + (uint32_t)fst_rng_below(r, 50);
    b = (b & 0x807FFFFFu) | exponent << 23;
    switch (fst_rng_below(r, 16)) {
    case 0:
        b &= 0xFF800000u;
        break;
    case 1:
        b |= 0x007FFFFFu;
        break;
    case 2:
        b &= 0x80000000u;
        break;
    default:
        break;
    }
    return from_bits(b);
}

static void test_sum_equals_oracle(void **state)
{
    (void)state;
    enum { N = 1003, ADDS = 40 };
    fst_error err;
    for (int level = 0; level < 3; level++) {
        fst_accumulator a;
        fst_rng r;
        static __int128 want[N];
        static float x[N], mean[N];
        uint64_t weight = 0;
        memset(want, 0, sizeof want);
        fst_rng_init(&r, 7, "test.accumulate", 0);
        ok(fst_accumulator_init(&a, N, &err), &err);
        for (int k = 0; k < ADDS; k++) {
            int32_t w = k % 3 ? (int32_t)fst_rng_below(&r, 5000) : (int32_t)fst_rng_below(&r, 1u << 26);
            for (size_t i = 0; i < N; i++) {
                x[i] = any_float(&r);
                want[i] += fixed62(x[i]) * w;
            }
            fst__accumulator_add_level(&a, x, w, level);
            weight += (uint64_t)w;
        }
        assert_int_equal(a.weight, weight);
        ok(fst_accumulator_mean(&a, mean, &err), &err);
        for (size_t i = 0; i < N; i++) {
            assert_true(element(&a, i) == want[i] * 4);
            assert_int_equal(to_bits(mean[i]), to_bits(oracle_mean(want[i], weight)));
        }
        fst_accumulator_release(&a);
    }
}

static void test_order_and_merging(void **state)
{
    (void)state;
    enum { N = 517, K = 12 };
    static float x[K][N], first[N], mean[N];
    int64_t w[K];
    uint32_t order[K];
    fst_error err;
    fst_rng r;
    fst_rng_init(&r, 8, "test.order", 0);
    for (uint32_t k = 0; k < K; k++) {
        order[k] = k;
        w[k] = 1 + (int64_t)fst_rng_below(&r, 100000);
        for (size_t i = 0; i < N; i++)
            x[k][i] = any_float(&r);
    }
    for (int trial = 0; trial < 20; trial++) {
        fst_accumulator part[3];
        for (int p = 0; p < 3; p++)
            ok(fst_accumulator_init(&part[p], N, &err), &err);
        for (int k = 0; k < K; k++)
            ok(fst_accumulator_add(&part[fst_rng_below(&r, trial ? 3 : 1)], x[order[k]], w[order[k]], &err), &err);
        ok(fst_accumulator_merge(&part[0], &part[2], &err), &err);
        ok(fst_accumulator_merge(&part[0], &part[1], &err), &err);
        ok(fst_accumulator_mean(&part[0], trial ? mean : first, &err), &err);
        if (trial)
            assert_memory_equal(mean, first, sizeof mean);
        for (int p = 0; p < 3; p++)
            fst_accumulator_release(&part[p]);
        fst_rng_shuffle_u32(&r, order, K);
    }
}

static float mean_of_two(float x, int64_t wx, float y, int64_t wy)
{
    fst_accumulator a;
    fst_error err;
    float out;
    ok(fst_accumulator_init(&a, 1, &err), &err);
    ok(fst_accumulator_add(&a, &x, wx, &err), &err);
    ok(fst_accumulator_add(&a, &y, wy, &err), &err);
    ok(fst_accumulator_mean(&a, &out, &err), &err);
    fst_accumulator_release(&a);
    return out;
}

static void test_known_values(void **state)
{
    (void)state;
    /* cancellation: what float and double sums lose */
    assert_true(mean_of_two(2147483520.0f, 1, -2147483520.0f, 1) == 0);
    assert_true(mean_of_two(2147483520.0f, 2000000000, -2147483520.0f, 2000000000) == 0);
    assert_int_equal(to_bits(mean_of_two(-1.0f, 1, 1.0f, 1)), 0); /* +0 */
    assert_true(mean_of_two(1e9f, 1, 0x1p-39f, 1) == 5e8f);
    /* halfway between two floats goes to the even one, a hair more goes up */
    assert_true(mean_of_two(1.0f, 1, 0x1.000002p0f, 1) == 1.0f);
    assert_true(mean_of_two(0x1.000002p0f, 1, 0x1.000004p0f, 1) == 0x1.000004p0f);
    assert_true(mean_of_two(-1.0f, 1, -0x1.000002p0f, 1) == -1.0f);
    assert_true(mean_of_two(1.0f, 1, 0x1.000002p0f, 2) == 0x1.000002p0f);
    /* the edge of precision: exact from 2^-39 on, rounded to multiples of 2^-62 below */
    assert_true(mean_of_two(0x1.fffffep-39f, 3, 0x1.fffffep-39f, 4) == 0x1.fffffep-39f);
    assert_true(mean_of_two(0x1p-62f, 5, 0x1p-62f, 6) == 0x1p-62f);
    assert_true(mean_of_two(0x1.8p-63f, 5, 0x1.8p-63f, 6) == 0x1p-62f);
    assert_true(mean_of_two(0x1p-64f, 5, -0x1p-64f, 6) == 0);
    assert_true(mean_of_two(from_bits(1), 1, from_bits(0x807FFFFF), 1) == 0); /* subnormals */
    /* weights */
    assert_true(mean_of_two(4.0f, 3, 8.0f, 1) == 5.0f);
    assert_true(mean_of_two(4.0f, 0, 8.0f, 1) == 8.0f);
    assert_true(mean_of_two(0x1.fffffep30f, INT32_MAX, 0x1.fffffep30f, INT32_MAX) == 0x1.fffffep30f);
    assert_true(mean_of_two(-0x1.fffffep30f, INT32_MAX, -0x1.fffffep30f, INT32_MAX) == -0x1.fffffep30f);
}

static void test_identical_inputs_come_back(void **state)
{
    (void)state;
    enum { N = 4096 };
    static float x[N], mean[N];
    fst_accumulator a;
    fst_error err;
    fst_rng r;
    fst_rng_init(&r, 3, "test.same", 0);
    ok(fst_accumulator_init(&a, N, &err), &err);
    for (size_t i = 0; i < N; i++)
        x[i] = (float)fst_rng_normal(&r);
    for (int k = 0; k < 7; k++)
        ok(fst_accumulator_add(&a, x, 1 + 37 * k, &err), &err);
    ok(fst_accumulator_mean(&a, mean, &err), &err);
    assert_memory_equal(mean, x, sizeof mean);
    ok(fst_accumulator_mean_range(&a, 100, 1000, mean, &err), &err);
    assert_memory_equal(mean, x + 100, 1000 * sizeof *mean);
    assert_int_equal(fst_accumulator_mean_range(&a, 100, N, mean, &err), FST_E_ARGUMENT);
    fst_accumulator_clear(&a);
    assert_int_equal(fst_accumulator_mean(&a, mean, &err), FST_E_ARGUMENT);
    fst_accumulator_release(&a);
}

static void test_refusals_change_nothing(void **state)
{
    (void)state;
    enum { N = 100 };
    const float bad[] = {NAN, -NAN, INFINITY, -INFINITY, 0x1p31f, -0x1p31f, 3.4e38f};
    float x[N], before[N], after[N];
    fst_accumulator a, b;
    fst_error err;
    ok(fst_accumulator_init(&a, N, &err), &err);
    ok(fst_accumulator_init(&b, N + 1, &err), &err);
    for (size_t i = 0; i < N; i++)
        x[i] = (float)i - 50;
    ok(fst_accumulator_add(&a, x, 9, &err), &err);
    ok(fst_accumulator_mean(&a, before, &err), &err);
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
        size_t at = k * 16 + 3;
        float good = x[at];
        x[at] = bad[k];
        assert_int_equal(fst_accumulator_add(&a, x, 1, &err), FST_E_NUMERIC);
        char want[32];
        snprintf(want, sizeof want, "element %zu of 100", at);
        assert_non_null(strstr(err.message, want));
        assert_int_equal(fst_accumulator_add(&a, x, 1, NULL), FST_E_NUMERIC);
        x[at] = good;
    }
    assert_int_equal(fst_accumulator_add(&a, x, -1, &err), FST_E_ARGUMENT);
    assert_int_equal(fst_accumulator_add(&a, x, (int64_t)INT32_MAX + 1, &err), FST_E_ARGUMENT);
    assert_int_equal(fst_accumulator_merge(&a, &b, &err), FST_E_MISMATCH);
    assert_int_equal(a.weight, 9);
    ok(fst_accumulator_mean(&a, after, &err), &err);
    assert_memory_equal(before, after, sizeof after);
    ok(fst_accumulator_add(&a, x, INT32_MAX, &err), &err);
    assert_int_equal(fst_accumulator_add(&a, x, INT32_MAX, &err), FST_E_LIMIT); /* 9 too many */
    ok(fst_accumulator_add(&a, x, INT32_MAX - 8, &err), &err);
    assert_true(a.weight == FST_ACCUMULATOR_MAX_TOTAL);
    ok(fst_accumulator_mean(&a, after, &err), &err);
    assert_memory_equal(before, after, sizeof after);
    fst_accumulator_release(&a);
    fst_accumulator_release(&b);
    fst_accumulator_release(NULL);
}

/* Means of two with equal weights are ties half of the time: the slow path must be right, too. */
static void test_ties(void **state)
{
    (void)state;
    enum { N = 20000 };
    static float x[N], y[N], mean[N];
    fst_accumulator a;
    fst_error err;
    fst_rng r;
    fst_rng_init(&r, 5, "test.ties", 0);
    for (size_t i = 0; i < N; i++) {
        x[i] = any_float(&r);
        y[i] = from_bits(to_bits(x[i]) ^ (fst_rng_u32(&r) & 7)); /* a close neighbour */
    }
    ok(fst_accumulator_init(&a, N, &err), &err);
    ok(fst_accumulator_add(&a, x, 77, &err), &err);
    ok(fst_accumulator_add(&a, y, 77, &err), &err);
    ok(fst_accumulator_mean(&a, mean, &err), &err);
    for (size_t i = 0; i < N; i++)
        assert_int_equal(to_bits(mean[i]), to_bits(oracle_mean((fixed62(x[i]) + fixed62(y[i])) * 77, 154)));
    fst_accumulator_release(&a);
}

static void test_empty_and_out_of_memory(void **state)
{
    (void)state;
    fst_accumulator a = {0};
    fst_error err;
    float none;
    ok(fst_accumulator_init(&a, 0, &err), &err);
    ok(fst_accumulator_add(&a, &none, 3, &err), &err);
    ok(fst_accumulator_mean(&a, &none, &err), &err);
    fst_accumulator_release(&a);
    fst_alloc_fail_at(1);
    assert_int_equal(fst_accumulator_init(&a, 10, &err), FST_E_MEMORY);
    fst_alloc_fail_at(0);
    assert_null(a.lo);
    assert_int_equal(fst_accumulator_init(&a, SIZE_MAX / 8, &err), FST_E_MEMORY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sum_equals_oracle),
        cmocka_unit_test(test_order_and_merging),
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_identical_inputs_come_back),
        cmocka_unit_test(test_refusals_change_nothing),
        cmocka_unit_test(test_ties),
        cmocka_unit_test(test_empty_and_out_of_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

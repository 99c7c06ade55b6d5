/* Totals divided among classes, and samples picked of every class. */
#define _XOPEN_SOURCE 700 /* nftw */
#include "files.h"
#include "formats.h"

enum { MAX = 200, CLASSES = 7 };

static void totals_are_divided_as_classes_are(void **state)
{
    static const size_t n[] = {60, 36, 4}, all[] = {60, 36, 4};
    size_t out[3];
    (void)state;
    assert_ok(fst__apportion(n, all, 3, 10, false, 0, out, err));
    assert_memory_equal(out, ((size_t[]){6, 4, 0}), sizeof out);
    assert_ok(fst__apportion(n, all, 3, 10, true, 0, out, err));
    assert_memory_equal(out, ((size_t[]){6, 3, 1}), sizeof out);
    assert_ok(fst__apportion(n, all, 3, 29, false, 0, out, err));
    assert_memory_equal(out, ((size_t[]){17, 11, 1}), sizeof out); /* 17.4, 10.44, 1.16 */
    assert_ok(fst__apportion(n, all, 3, 2, true, 0, out, err));    /* no room for all */
    assert_memory_equal(out, ((size_t[]){1, 1, 0}), sizeof out);
    static const size_t alike[] = {5, 5, 5};
    assert_ok(fst__apportion(alike, alike, 3, 2, false, 2, out, err)); /* the third has precedence, then the first */
    assert_memory_equal(out, ((size_t[]){1, 0, 1}), sizeof out);
    assert_ok(fst__apportion(n, (size_t[]){2, 36, 4}, 3, 50, false, 0, out, err)); /* the others take what one cannot */
    assert_int_equal(out[0], 2);
    assert_int_equal(out[0] + out[1] + out[2], 42);
}

static void sums_are_right(void **state)
{
    fst_rng r;
    (void)state;
    fst_rng_init(&r, 5, "strata", 0);
    for (int round = 0; round < 2000; round++) {
        size_t n[CLASSES], out[CLASSES], all = 0, there = 0, sum = 0;
        for (int c = 0; c < CLASSES; c++) {
            n[c] = fst_rng_below(&r, 3) ? (size_t)fst_rng_below(&r, 40) : 0;
            all += n[c];
            there += n[c] > 0;
        }
        size_t total = all ? (size_t)fst_rng_below(&r, all + 1) : 0;
        bool each = fst_rng_below(&r, 2) == 1;
        assert_ok(fst__apportion(n, n, CLASSES, total, each, 0, out, err));
        for (int c = 0; c < CLASSES; c++) {
            assert_true(out[c] <= n[c]);
            if (!each) /* the quota, to the nearest sample below or above */
                assert_true(out[c] * all < n[c] * total + (all ? all : 1) && (out[c] + 1) * all >= n[c] * total);
            else if (total >= there)
                assert_true(out[c] > 0 || !n[c]);
            sum += out[c];
        }
        assert_int_equal(sum, total);
    }
}

static void picks_are_spread(void **state)
{
    int32_t labels[MAX];
    uint32_t index[MAX];
    (void)state;
    for (int i = 0; i < 100; i++) /* sorted by class */
        labels[i] = i < 60 ? 0 : i < 96 ? 1 : 2;
    assert_ok(fst_stratified_pick(labels, 100, 10, index, err));
    assert_memory_equal(index, ((uint32_t[]){0, 10, 20, 30, 40, 50, 60, 72, 84, 96}), 10 * sizeof *index);
    assert_ok(fst_stratified_pick(labels, 100, 1000, index, err));
    for (uint32_t i = 0; i < 100; i++)
        assert_int_equal(index[i], i);
    for (size_t limit = 1; limit < 100; limit++) {
        size_t n = 0;
        assert_ok(fst_stratified_pick(labels, 100, limit, index, err));
        for (size_t i = 0; i < limit; i++) {
            assert_true(index[i] < 100 && (!i || index[i] > index[i - 1]));
            n += labels[index[i]] == 2;
        }
        assert_true(n > 0 || limit < 3);
    }
}

static void memory_may_run_out(void **state)
{
    static const int32_t labels[] = {0, 1, 2, 0};
    uint32_t index[4];
    (void)state;
    for (uint64_t n = 1;; n++) {
        fst_alloc_fail_at(n);
        fst_status st = fst_stratified_pick(labels, 4, 2, index, NULL);
        fst_alloc_fail_at(0);
        if (!st)
            break;
        assert_int_equal(st, FST_E_MEMORY);
        assert_true(n < 10);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(totals_are_divided_as_classes_are),
        cmocka_unit_test(sums_are_right),
        cmocka_unit_test(picks_are_spread),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

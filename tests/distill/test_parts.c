/* Parts A and B: disjoint, of the right sizes, fresh in every round, and the same whatever was drawn before. */
#include "nn/support.h"

#include "fedstill/distill.h"

enum { N = 100, MOST = 1000 };

static void mark(const uint32_t *index, size_t n, int *seen)
{
    memset(seen, 0, MOST * sizeof *seen);
    for (size_t i = 0; i < n; i++) {
        assert_true(index[i] < MOST && index[i] % 7 == 3); /* one of those that were given, */
        assert_int_equal(seen[index[i]]++, 0);             /* once */
    }
}

static void parts_are_disjoint_and_fresh(void **state)
{
    uint32_t samples[N];
    const uint32_t *index;
    int a[MOST], b[MOST], again[MOST], others = 0;
    fst_parts p, q;
    (void)state;
    for (uint32_t i = 0; i < N; i++)
        samples[i] = 7 * i + 3;
    assert_ok(fst_parts_init(&p, samples, N, 0.4, 0.5, 9, err));
    assert_ok(fst_parts_init(&q, samples, N, 0.4, 0.5, 9, err));
    assert_int_equal(fst_parts_of(&p, 0, &index), 40);
    mark(index, 40, a);
    for (uint64_t round = 1; round <= 3; round++) {
        assert_int_equal(fst_parts_of(&p, round, &index), 30);
        mark(index, 30, b);
        for (int i = 0; i < MOST; i++)
            assert_false(a[i] && b[i]);
    }
    assert_int_equal(fst_parts_of(&q, 3, &index), 30); /* without the rounds before */
    mark(index, 30, again);
    assert_memory_equal(b, again, sizeof b);
    (void)fst_parts_of(&q, 2, &index);
    mark(index, 30, again);
    for (int i = 0; i < MOST; i++)
        others += b[i] && !again[i];
    assert_true(others >= 5);
    fst_parts_release(&p);
    fst_parts_release(&q);
}

static void empty_parts_are_refused(void **state)
{
    uint32_t samples[3] = {0, 1, 2};
    fst_parts p;
    (void)state;
    assert_fails(fst_parts_init(&p, samples, 3, 0.1, 0.5, 1, err), FST_E_CONFIG, "part A has 0");
    assert_fails(fst_parts_init(&p, samples, 3, 0.9, 0.5, 1, err), FST_E_CONFIG, "a part B 0");
    assert_fails(fst_parts_init(&p, samples, 3, 0.7, 0.4, 1, err), FST_E_CONFIG, "a part B 0");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_are_disjoint_and_fresh),
        cmocka_unit_test(empty_parts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

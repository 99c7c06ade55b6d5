/* Sources made of samples of others, and partitions that keep what belongs together. */
#define _GNU_SOURCE
#include <math.h>

#include "files.h"
#include "partition.h"

static fst_error why; /* of the last call that was to fail */

enum { N = 60, CLASSES = 3 };

static unsigned char pixels[N], others[N];
static int32_t labels[N];
static float snr[N];
static int64_t group[N];
static fst_source *one, *two;

static int set_up(void **state)
{
    (void)state;
    for (int i = 0; i < N; i++) {
        pixels[i] = (unsigned char)i;
        others[i] = (unsigned char)(200 - i);
        group[i] = 7 - i % 20; /* 20 groups of three samples, which do not lie together */
        labels[i] = (int32_t)(i % 20) % CLASSES;
        snr[i] = (float)i / 2;
    }
    if (fst_source_from_memory(&one, "one", FST_U8, &FST_SHAPE(1), N, pixels, labels, CLASSES, NULL) ||
        fst_source_from_memory(&two, "two", FST_U8, &FST_SHAPE(1), N, others, labels, CLASSES, NULL))
        return -1;
    one->snr = two->snr = snr;
    one->group = two->group = group;
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fst_source_close(one);
    fst_source_close(two);
    return 0;
}

static void test_part(void **state)
{
    const uint32_t index[] = {5, 3, 59, 3};
    const unsigned char expected[] = {5, 3, 59, 3};
    const fst_source_part part = {one, index, 4};
    fst_source *s = NULL, *same = NULL;
    int32_t y[4];
    (void)state;
    assert_ok(fst_source_compose(&s, "part", &part, 1, err));
    assert_int_equal(s->count, 4);
    assert_int_equal(s->classes, CLASSES);
    for (int i = 0; i < 4; i++) {
        unsigned char x = 0;
        assert_ok(s->v->get(s, (size_t)i, &x, err));
        assert_int_equal(x, expected[i]);
        assert_int_equal(s->labels[i], labels[index[i]]);
        assert_true(s->snr[i] == snr[index[i]]);
        assert_int_equal(s->group[i], group[index[i]]);
        y[i] = s->labels[i];
    }
    assert_ok(fst_source_from_memory(&same, "same", FST_U8, &FST_SHAPE(1), 4, expected, y, CLASSES, err));
    assert_string_equal(s->digest, same->digest);
    unsigned char x;
    assert_int_equal(s->v->get(s, 4, &x, &why), FST_E_ARGUMENT);
    fst_source_close(s);
    fst_source_close(same);
}

/* Group 7 of one source is not group 7 of the other. */
static void test_several(void **state)
{
    const fst_source_part parts[] = {{one, NULL, 0}, {two, NULL, 0}};
    fst_source *s = NULL;
    (void)state;
    assert_ok(fst_source_compose(&s, "both", parts, 2, err));
    assert_int_equal(s->count, 2 * N);
    for (int i = 0; i < N; i++) {
        unsigned char a = 0, b = 0;
        assert_ok(s->v->get(s, (size_t)i, &a, err));
        assert_ok(s->v->get(s, (size_t)(N + i), &b, err));
        assert_int_equal(a, pixels[i]);
        assert_int_equal(b, others[i]);
        for (int k = 0; k < N; k++) {
            assert_int_equal(s->group[i] == s->group[k], group[i] == group[k]);
            assert_int_equal(s->group[N + i] == s->group[N + k], group[i] == group[k]);
            assert_int_not_equal(s->group[i], s->group[N + k]);
        }
    }
    fst_source_close(s);
    two->snr = NULL; /* known of one only: not known of the whole */
    two->group = NULL;
    assert_ok(fst_source_compose(&s, "both", parts, 2, err));
    assert_null(s->snr);
    assert_null(s->group);
    fst_source_close(s);
    two->snr = snr;
    two->group = group;
}

static void test_refused(void **state)
{
    static const unsigned char wide[2] = {0};
    static const int32_t label[1] = {0};
    const uint32_t beyond[] = {0, N};
    fst_source *other = NULL, *s = NULL;
    char *a[] = {"x", "y", "z"}, *b[] = {"x", "q", "z"};
    (void)state;
    assert_ok(fst_source_from_memory(&other, "wide", FST_U8, &FST_SHAPE(2), 1, wide, label, 1, err));
    const fst_source_part unlike[] = {{one, NULL, 0}, {other, NULL, 0}}, far = {one, beyond, 2},
                          none = {one, beyond, 0};
    const fst_source_part both[] = {{one, NULL, 0}, {two, NULL, 0}};
    assert_int_equal(fst_source_compose(&s, "s", unlike, 2, &why), FST_E_MISMATCH);
    assert_non_null(strstr(why.message, "wide"));
    assert_int_equal(fst_source_compose(&s, "s", &far, 1, &why), FST_E_ARGUMENT);
    assert_int_equal(fst_source_compose(&s, "s", &none, 1, &why), FST_E_ARGUMENT);
    assert_int_equal(fst_source_compose(&s, "s", &far, 0, &why), FST_E_ARGUMENT);
    one->class_names = a;
    two->class_names = b;
    assert_int_equal(fst_source_compose(&s, "s", both, 2, &why), FST_E_MISMATCH);
    assert_non_null(strstr(why.message, "\"q\""));
    one->class_names = two->class_names = NULL;
    assert_null(s);
    fst_source_close(other);
}

static void test_partitions_keep_groups(void **state)
{
    (void)state;
    for (int kind = FST_PARTITION_IID; kind <= FST_PARTITION_QUANTITY; kind++) {
        const fst_partition_spec spec = {
            .kind = (fst_partition_kind)kind, .clients = 4, .alpha = 0.5, .classes_per_client = 2, .seed = 3};
        int64_t owner[N], counts[4 * CLASSES] = {0};
        fst_partition p = {0};
        assert_ok(fst_partition_make(&p, one, &spec, err));
        assert_int_equal(p.samples, N);
        assert_int_equal(p.begin[4], N);
        for (int k = 0; k < 4; k++) {
            assert_true(p.begin[k + 1] > p.begin[k]);
            for (size_t i = p.begin[k]; i < p.begin[k + 1]; i++) {
                owner[p.index[i]] = k;
                counts[k * CLASSES + labels[p.index[i]]]++;
            }
        }
        for (int i = 0; i < N; i++)
            assert_int_equal(owner[i], owner[i % 20]); /* the first of its group */
        assert_memory_equal(p.counts, counts, sizeof counts);
        fst_partition_release(&p);
    }
}

/* Groups of one sample each are as good as none. */
static void test_single_groups_change_nothing(void **state)
{
    int64_t single[N];
    fst_partition a = {0}, b = {0};
    const fst_partition_spec spec = {.kind = FST_PARTITION_DIRICHLET, .clients = 5, .alpha = 0.4, .seed = 9};
    (void)state;
    for (int i = 0; i < N; i++)
        single[i] = 1000 - 3 * i;
    one->group = NULL;
    assert_ok(fst_partition_make(&a, one, &spec, err));
    one->group = single;
    assert_ok(fst_partition_make(&b, one, &spec, err));
    one->group = group;
    assert_memory_equal(a.begin, b.begin, 6 * sizeof *a.begin);
    assert_memory_equal(a.index, b.index, N * sizeof *a.index);
    fst_partition_release(&a);
    fst_partition_release(&b);
}

static void test_too_few_groups(void **state)
{
    fst_partition p = {0};
    const fst_partition_spec spec = {.kind = FST_PARTITION_IID, .clients = 21, .seed = 1};
    (void)state;
    assert_int_equal(fst_partition_make(&p, one, &spec, &why), FST_E_CONFIG);
    assert_non_null(strstr(why.message, "20 bursts"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_part),
        cmocka_unit_test(test_several),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_partitions_keep_groups),
        cmocka_unit_test(test_single_groups_change_nothing),
        cmocka_unit_test(test_too_few_groups),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

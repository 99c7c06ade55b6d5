/* Splits for cloud and edges: bursts whole, shares kept for classes and SNR, the same everywhere; and files of samples
 * that read back as they were. */
#define _GNU_SOURCE
#include <math.h>
#include <sys/stat.h>

#include "files.h"

enum { CLASSES = 4, BURSTS = 100, WINDOWS = 3, N = CLASSES * BURSTS * WINDOWS };

static float x[N * 2], snr[N];
static int32_t labels[N];
static int64_t groups[N];

/* Bursts of each class have SNR 0 ... 9 dB, ten each; windows of a burst do not stand side by side. */
static void make_data(void)
{
    for (int i = 0; i < N; i++) {
        int burst = i % (CLASSES * BURSTS);
        labels[i] = burst % CLASSES;
        snr[i] = (float)(burst / CLASSES % 10);
        groups[i] = 1000 - 2 * burst;
        x[2 * i] = (float)i;
        x[2 * i + 1] = -0.5f * (float)i;
    }
}

static fst_source *open_data(bool grouped)
{
    fst_source *s = NULL;
    make_data();
    assert_ok(fst_source_from_memory(&s, "m", FST_F32, &FST_SHAPE(2), N, x, labels, CLASSES, err));
    s->snr = snr;
    s->group = grouped ? groups : NULL;
    return s;
}

static const fst_tiers_spec usual = {.cloud = 0.5, .edges = 3, .alpha = 1, .val = 0.1, .test = 0.2, .seed = 7};

static int64_t count(const fst_tiers *t, int site, int part, int class)
{
    return t->counts[(site * FST_PARTS + part) * t->classes + class];
}

static void bursts_are_never_cut(void **state)
{
    fst_tiers t = {0};
    fst_source *s = open_data(true);
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        fst_tiers_spec spec = usual;
        spec.seed = seed;
        assert_ok(fst_tiers_make(&t, s, &spec, err));
        assert_true(t.by_group);
        assert_int_equal(t.groups, CLASSES * BURSTS);
        for (int i = CLASSES * BURSTS; i < N; i++) {
            assert_int_equal(t.site[i], t.site[i % (CLASSES * BURSTS)]);
            assert_int_equal(t.part[i], t.part[i % (CLASSES * BURSTS)]);
        }
        fst_tiers_release(&t);
    }
    fst_source_close(s);
}

static void shares_hold_for_every_class(void **state)
{
    fst_tiers t = {0};
    fst_source *s = open_data(true);
    (void)state;
    assert_ok(fst_tiers_make(&t, s, &usual, err));
    for (int c = 0; c < CLASSES; c++) {
        int64_t all = 0;
        assert_int_equal(count(&t, 0, FST_PART_TRAIN, c), 35 * WINDOWS); /* 50 of 100 bursts, 70 % of them */
        assert_int_equal(count(&t, 0, FST_PART_VAL, c), 5 * WINDOWS);
        assert_int_equal(count(&t, 0, FST_PART_TEST, c), 10 * WINDOWS);
        for (int site = 0; site < 4; site++) {
            int64_t own = 0;
            for (int p = 0; p < FST_PARTS; p++)
                own += count(&t, site, p, c);
            all += own;
            if (own) /* what a site knows it can learn */
                assert_true(count(&t, site, FST_PART_TRAIN, c) > 0);
            assert_true(fabs((double)count(&t, site, FST_PART_TEST, c) - 0.2 * (double)own) <= WINDOWS);
            assert_true(fabs((double)count(&t, site, FST_PART_VAL, c) - 0.1 * (double)own) <= WINDOWS);
        }
        assert_int_equal(all, BURSTS * WINDOWS);
    }
    fst_tiers_release(&t);
    fst_source_close(s);
}

/* 10 bursts of each class and SNR: five for the cloud, give or take one. */
static void every_snr_is_everywhere(void **state)
{
    fst_tiers t = {0};
    fst_source *s = open_data(true);
    int cloud[CLASSES][10] = {{0}}, test[10] = {0};
    (void)state;
    assert_ok(fst_tiers_make(&t, s, &usual, err));
    for (int i = 0; i < CLASSES * BURSTS; i++) {
        cloud[labels[i]][(int)snr[i]] += t.site[i] == 0;
        test[(int)snr[i]] += t.site[i] == 0 && t.part[i] == FST_PART_TEST;
    }
    for (int d = 0; d < 10; d++) {
        for (int c = 0; c < CLASSES; c++)
            assert_in_range(cloud[c][d], 4, 6);
        assert_in_range(test[d], 1, 8); /* 4 of 20 */
    }
    fst_tiers_release(&t);
    fst_source_close(s);
}

static void it_depends_on_the_seed_alone(void **state)
{
    fst_tiers a = {0}, b = {0}, other = {0};
    fst_source *s = open_data(true);
    fst_tiers_spec spec = usual;
    (void)state;
    assert_ok(fst_tiers_make(&a, s, &spec, err));
    assert_ok(fst_tiers_make(&b, s, &spec, err));
    spec.seed++;
    assert_ok(fst_tiers_make(&other, s, &spec, err));
    assert_memory_equal(a.site, b.site, sizeof *a.site * N);
    assert_memory_equal(a.part, b.part, sizeof *a.part * N);
    assert_memory_not_equal(a.site, other.site, sizeof *a.site * N);
    fst_tiers_release(&a);
    fst_tiers_release(&b);
    fst_tiers_release(&other);
    fst_source_close(s);
}

static void alpha_says_how_uneven(void **state)
{
    fst_source *s = open_data(true);
    double uneven[2] = {0, 0};
    (void)state;
    for (int k = 0; k < 2; k++)
        for (uint64_t seed = 0; seed < 10; seed++) {
            fst_tiers t = {0};
            fst_tiers_spec spec = {.edges = 2, .alpha = k ? 100 : 0.3, .val = 0.1, .test = 0.1, .seed = seed};
            assert_ok(fst_tiers_make(&t, s, &spec, err));
            for (int c = 0; c < CLASSES; c++)
                uneven[k] += fabs((double)(count(&t, 1, 0, c) - count(&t, 2, 0, c)));
            for (int p = 0; p < FST_PARTS; p++)
                assert_int_equal(count(&t, 0, p, 0), 0); /* no cloud */
            fst_tiers_release(&t);
        }
    assert_true(uneven[0] > 3 * uneven[1]);
    fst_source_close(s);
}

static void without_bursts_samples_are_dealt(void **state)
{
    fst_tiers t = {0};
    fst_source *s = open_data(false);
    fst_tiers_spec spec = {.cloud = 1, .alpha = 1, .val = 0, .test = 0.25, .seed = 1};
    (void)state;
    assert_ok(fst_tiers_make(&t, s, &spec, err));
    assert_false(t.by_group);
    assert_int_equal(t.groups, N);
    assert_int_equal(count(&t, 0, FST_PART_TEST, 2), BURSTS * WINDOWS / 4);
    assert_int_equal(count(&t, 0, FST_PART_VAL, 2), 0);
    fst_tiers_release(&t);
    fst_source_close(s);
}

static void nonsense_is_refused(void **state)
{
    static const struct {
        fst_tiers_spec spec;
        const char *says;
    } cases[] = {
        {{.cloud = 1.5, .edges = 1, .alpha = 1}, "share must be 0 ... 1"},
        {{.cloud = NAN, .edges = 1, .alpha = 1}, "share must be 0 ... 1"},
        {{.cloud = 0.5, .edges = 0, .alpha = 1}, "0 edges"},
        {{.cloud = 1, .edges = 1, .alpha = 1}, "1 edges"},
        {{.cloud = 0.5, .edges = 1001, .alpha = 1}, "1001 edges"},
        {{.cloud = 0.5, .edges = 2, .alpha = 0}, "alpha must be"},
        {{.cloud = 0.5, .edges = 2, .alpha = 1, .val = 0.5, .test = 0.5}, "leave something for training"},
        {{.cloud = 0.5, .edges = 2, .alpha = 1, .val = -0.1}, "leave something for training"},
        {{.cloud = 0.99, .edges = 500, .alpha = 1, .val = 0.1, .test = 0.1}, "without any sample"},
    };
    fst_source *s = open_data(true);
    fst_tiers t = {0};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_fails(fst_tiers_make(&t, s, &cases[i].spec, err), FST_E_CONFIG, cases[i].says);
        assert_null(t.site);
    }
    fst_source_close(s);
}

/* ---- files ---------------------------------------------------------------------------------- */

static void samples_read_back(void **state)
{
    static const uint32_t some[3] = {5, 0, N - 1};
    static const char *const names[] = {"w.safetensors", "w.npz"};
    fst_source *s = open_data(true), *back = NULL;
    char digest[FST_DIGEST_HEX], again[FST_DIGEST_HEX];
    (void)state;
    for (int k = 0; k < 2; k++) {
        assert_ok(fst_source_write(s, NULL, 0, in_work(names[k]), digest, err));
        assert_ok(fst_sha256_file(in_work(names[k]), again, err));
        assert_string_equal(digest, again);
        assert_ok(fst_source_open(&back, &(fst_source_spec){.path = in_work(names[k])}, err));
        assert_string_equal(back->digest, s->digest);
        assert_memory_equal(back->snr, snr, sizeof snr);
        assert_memory_equal(back->group, groups, sizeof groups);
        assert_string_equal(back->class_names[3], "3");
        fst_source_close(back);
        assert_ok(fst_source_write(s, some, 3, in_work(names[k]), NULL, err));
        assert_ok(fst_source_open(&back, &(fst_source_spec){.path = in_work(names[k])}, err));
        assert_int_equal(back->count, 3);
        assert_int_equal(back->classes, CLASSES); /* though 2 are there */
        for (int i = 0; i < 3; i++) {
            float v[2];
            assert_ok(back->v->get(back, (size_t)i, v, err));
            assert_memory_equal(v, x + 2 * some[i], sizeof v);
            assert_int_equal(back->labels[i], labels[some[i]]);
            assert_int_equal(back->group[i], groups[some[i]]);
        }
        fst_source_close(back);
    }
    assert_fails(fst_source_write(s, (uint32_t[]){N}, 1, in_work("no.npz"), NULL, err), FST_E_ARGUMENT, "no sample");
    assert_fails(fst_source_write(s, NULL, 0, in_work("no.csv"), NULL, err), FST_E_CONFIG, ".safetensors or .npz");
    assert_false(fst_file_exists(in_work("no.npz")));
    fst_source_close(s);
}

static void a_split_is_written_whole(void **state)
{
    fst_source *s = open_data(true), *part = NULL;
    fst_tiers t = {0};
    size_t samples = 0;
    (void)state;
    assert_ok(fst_tiers_make(&t, s, &usual, err));
    assert_ok(fst_tiers_write(&t, s, in_work("split"), false, err));
    for (int site = 0; site < 4; site++) {
        char path[64];
        snprintf(path, sizeof path, site ? "split/edge_%d/train.safetensors" : "split/cloud/train.safetensors", site);
        assert_ok(fst_source_open(&part, &(fst_source_spec){.path = in_work(path)}, err));
        assert_int_equal(part->classes, CLASSES);
        samples += part->count;
        for (size_t i = 0; i < part->count; i++) { /* samples tell by themselves which they are */
            float v[2];
            assert_ok(part->v->get(part, i, v, err));
            assert_int_equal(t.site[(int)v[0]], site);
            assert_int_equal(t.part[(int)v[0]], FST_PART_TRAIN);
        }
        fst_source_close(part);
    }
    size_t wanted = 0;
    for (int i = 0; i < N; i++)
        wanted += t.part[i] == FST_PART_TRAIN;
    assert_int_equal(samples, wanted);
    assert_fails(fst_tiers_write(&t, s, in_work("split"), false, err), FST_E_IO, "is there already");
    assert_ok(fst_tiers_write(&t, s, in_work("split"), true, err));
    put_file("split/cloud/mine.txt", "x", 1);
    assert_fails(fst_tiers_write(&t, s, in_work("split"), true, err), FST_E_IO, "holds more than a split");
    assert_true(fst_file_exists(in_work("split/cloud/mine.txt")));
    put_file("file", "x", 1);
    assert_fails(fst_tiers_write(&t, s, in_work("file"), true, err), FST_E_IO, "is no folder");
    s->digest[0] = s->digest[0] == '0' ? '1' : '0';
    assert_fails(fst_tiers_write(&t, s, in_work("other"), false, err), FST_E_MISMATCH, "other data");
    assert_false(fst_file_exists(in_work("other")));
    fst_tiers_release(&t);
    fst_source_close(s);
}

/* What fails on the way leaves nothing behind, and an older split as it was. */
static void a_failure_leaves_nothing(void **state)
{
    static const fst_tiers_spec small = {.cloud = 0.5, .edges = 1, .alpha = 1, .seed = 1}; /* two files */
    fst_source *s = open_data(true);
    fst_tiers t = {0};
    (void)state;
    for (uint64_t n = 1;; n++) {
        assert_true(n < 10000);
        fst_alloc_fail_at(n);
        fst_status made = fst_tiers_make(&t, s, &small, NULL);
        fst_alloc_fail_at(0);
        if (!made)
            break;
        assert_int_equal(made, FST_E_MEMORY);
    }
    for (uint64_t n = 1;; n++) {
        assert_true(n < 10000);
        fst_alloc_fail_at(n);
        fst_status written = fst_tiers_write(&t, s, in_work("torn/split"), false, NULL);
        fst_alloc_fail_at(0);
        if (!written)
            break;
        assert_false(fst_file_exists(in_work("torn/split")));
        if (fst_file_exists(in_work("torn"))) /* empty: nothing half-made stands in it */
            assert_int_equal(rmdir(in_work("torn")), 0);
    }
    assert_true(fst_file_exists(in_work("torn/split/split.json")));
    fst_tiers_release(&t);
    fst_source_close(s);
}

/* The shares of all samples, whatever the classes: cloud, validation and test to the nearest sample. */
static void single_samples_add_up(void **state)
{
    static int32_t uneven[100];
    static float values[100];
    static const double shares[] = {0.29, 0.1, 0.009, 0.145, 0.33, 0.05};
    fst_source *s = NULL;
    (void)state;
    for (int i = 0; i < 100; i++)
        uneven[i] = i < 60 ? 0 : i < 96 ? 1 : 2;
    assert_ok(fst_source_from_memory(&s, "uneven", FST_F32, &FST_SHAPE(1), 100, values, uneven, 3, err));
    for (int k = 0; k < 6; k++)
        for (uint64_t seed = 0; seed < 50; seed++) {
            fst_tiers t = {0};
            size_t parts[FST_PARTS] = {0}, cloud = 0;
            const fst_tiers_spec one = {.cloud = 1, .alpha = 1, .val = shares[k], .test = 0.2, .seed = seed};
            const fst_tiers_spec two = {.cloud = shares[k] + 0.5, .edges = 1, .alpha = 1, .seed = seed};
            assert_ok(fst_tiers_make(&t, s, &one, err));
            for (int i = 0; i < 100; i++)
                parts[t.part[i]]++;
            assert_int_equal(parts[FST_PART_VAL], fst_share_of(100, shares[k]));
            assert_int_equal(parts[FST_PART_TEST], 20);
            for (int c = 0; c < 3; c++) { /* and those of each class to about one */
                double n = c == 0 ? 60 : c == 1 ? 36 : 4;
                assert_true(fabs((double)t.counts[FST_PART_VAL * 3 + c] - shares[k] * n) < 1.5);
                assert_true(t.counts[FST_PART_TRAIN * 3 + c] > 0);
            }
            fst_tiers_release(&t);
            assert_ok(fst_tiers_make(&t, s, &two, err));
            for (int i = 0; i < 100; i++)
                cloud += t.site[i] == 0;
            assert_int_equal(cloud, fst_share_of(100, shares[k] + 0.5));
            fst_tiers_release(&t);
        }
    fst_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bursts_are_never_cut),     cmocka_unit_test(shares_hold_for_every_class),
        cmocka_unit_test(every_snr_is_everywhere),  cmocka_unit_test(it_depends_on_the_seed_alone),
        cmocka_unit_test(alpha_says_how_uneven),    cmocka_unit_test(without_bursts_samples_are_dealt),
        cmocka_unit_test(nonsense_is_refused),      cmocka_unit_test(samples_read_back),
        cmocka_unit_test(a_split_is_written_whole), cmocka_unit_test(a_failure_leaves_nothing),
        cmocka_unit_test(single_samples_add_up),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}

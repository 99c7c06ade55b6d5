/* The loader and its transforms: coverage, order, resuming, threads, augmentation, soft targets. */
#define _GNU_SOURCE
#include <math.h>
#include <time.h>

#include "files.h"

enum { N = 103, C = 2, H = 4, W = 5, ELEMENTS = C * H * W, CLASSES = 7 };

static unsigned char pixels[N * ELEMENTS];
static int32_t labels[N];
static fst_source *source;

static int make_source(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pixels; i++)
        pixels[i] = (unsigned char)(i * 31 + i / ELEMENTS);
    for (int i = 0; i < N; i++)
        labels[i] = i % CLASSES;
    return (int)fst_source_from_memory(&source, "pixels", FST_U8, &FST_SHAPE(C, H, W), N, pixels, labels, CLASSES,
                                       NULL);
}

static int close_source(void **state)
{
    (void)state;
    fst_source_close(source);
    return 0;
}

static fst_loader *loader(fst_loader_spec spec)
{
    fst_loader *l = NULL;
    if (!spec.source)
        spec.source = source;
    assert_ok(fst_loader_new(&l, &spec, err));
    return l;
}

/* Everything of an epoch from batch `first` on, copied. */
struct epoch {
    size_t batches, rows;
    uint32_t index[2 * N];
    int32_t labels[2 * N];
    float x[2 * N][ELEMENTS];
    size_t size[2 * N];
};

static void run(struct epoch *e, fst_loader *l, uint64_t number, size_t first)
{
    fst_batch b;
    memset(e, 0, sizeof *e);
    assert_ok(fst_loader_start(l, number, first, err));
    for (;;) {
        assert_ok(fst_loader_next(l, &b, err));
        if (!b.rows)
            break;
        assert_int_equal((uintptr_t)b.x % 64, 0);
        for (size_t i = 0; i < b.rows; i++) {
            e->index[e->rows] = b.index[i];
            e->labels[e->rows] = b.labels[i];
            memcpy(e->x[e->rows++], b.x + i * ELEMENTS, sizeof e->x[0]);
        }
        e->size[e->batches++] = b.rows;
    }
    /* and it stays at its end */
    assert_ok(fst_loader_next(l, &b, err));
    assert_int_equal(b.rows, 0);
}

static struct epoch one, two;

static void each_sample_once(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        fst_loader *l = loader((fst_loader_spec){.batch_size = 10, .shuffle = k & 1, .background = k & 2, .seed = 3});
        int seen[N] = {0};
        assert_int_equal(fst_loader_batches(l), 11);
        run(&one, l, 0, 0);
        assert_int_equal(one.batches, 11);
        assert_int_equal(one.rows, N);
        assert_int_equal(one.size[10], 3);
        for (size_t i = 0; i < N; i++) {
            seen[one.index[i]]++;
            assert_int_equal(one.labels[i], labels[one.index[i]]);
            for (size_t j = 0; j < ELEMENTS; j++)
                assert_true(one.x[i][j] == (float)pixels[one.index[i] * ELEMENTS + j] / 255.0f);
        }
        for (int i = 0; i < N; i++)
            assert_int_equal(seen[i], 1);
        fst_loader_free(l);
    }
}

static void order_is_a_function_of_seed_and_epoch(void **state)
{
    fst_loader *a = loader((fst_loader_spec){.batch_size = 10, .shuffle = true, .seed = 3});
    fst_loader *b = loader((fst_loader_spec){.batch_size = 10, .shuffle = true, .seed = 4});
    (void)state;
    run(&one, a, 5, 0);
    run(&two, b, 5, 0);
    assert_memory_not_equal(one.index, two.index, sizeof one.index);
    run(&two, a, 6, 0);
    assert_memory_not_equal(one.index, two.index, sizeof one.index);
    run(&two, a, 5, 0);
    assert_memory_equal(&one, &two, sizeof one);
    fst_loader_free(a);
    fst_loader_free(b);
    a = loader((fst_loader_spec){.batch_size = 10});
    run(&one, a, 1, 0);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(one.index[i], i);
    fst_loader_free(a);
}

static fst_loader_spec augmented(bool background)
{
    return (fst_loader_spec){
        .batch_size = 8,
        .shuffle = true,
        .augment = true,
        .seed = 11,
        .background = background,
        .transform = {.channels = 2, .mean = {0.5f, 0.25f}, .std = {0.5f, 2}, .crop_padding = 2, .flip = true}};
}

static void background_equals_foreground(void **state)
{
    fst_loader *a = loader(augmented(false)), *b = loader(augmented(true));
    (void)state;
    for (uint64_t e = 0; e < 20; e++) {
        run(&one, a, e, 0);
        run(&two, b, e, 0);
        assert_memory_equal(&one, &two, sizeof one);
    }
    fst_loader_free(a);
    fst_loader_free(b);
}

static void resumed_equals_uninterrupted(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        fst_loader *a = loader(augmented(k));
        run(&one, a, 3, 0);
        run(&two, a, 3, 5);
        assert_int_equal(two.batches, one.batches - 5);
        assert_memory_equal(two.index, one.index + 40, two.rows * sizeof *two.index);
        assert_memory_equal(two.x, one.x + 40, two.rows * sizeof *two.x);
        run(&two, a, 3, fst_loader_batches(a));
        assert_int_equal(two.batches, 0);
        assert_fails(fst_loader_start(a, 3, fst_loader_batches(a) + 1, err), FST_E_ARGUMENT, "cannot start at batch");
        fst_loader_free(a);
    }
}

static void an_epoch_can_be_left(void **state)
{
    fst_loader *a = loader(augmented(false)), *b = loader(augmented(true));
    fst_batch batch;
    (void)state;
    assert_fails(fst_loader_next(b, &batch, err), FST_E_ARGUMENT, "start an epoch");
    run(&one, a, 1, 0);
    for (size_t n = 0; n < 6; n++) {
        assert_ok(fst_loader_start(b, 0, 0, err));
        for (size_t i = 0; i < n; i++)
            assert_ok(fst_loader_next(b, &batch, err));
        run(&two, b, 1, 0);
        assert_memory_equal(&one, &two, sizeof one);
    }
    assert_ok(fst_loader_start(b, 0, 0, err));
    fst_loader_free(b); /* with batches under way */
    fst_loader_free(a);
    fst_loader_free(NULL);
}

static void a_batch_stays_until_the_next_call(void **state)
{
    fst_loader *l = loader((fst_loader_spec){.batch_size = 4, .background = true});
    fst_batch b;
    (void)state;
    assert_ok(fst_loader_start(l, 0, 0, err));
    for (uint32_t k = 0; k < 20; k++) {
        assert_ok(fst_loader_next(l, &b, err));
        /* time for the thread to run ahead as far as it may */
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
        for (uint32_t i = 0; i < 4; i++) {
            assert_int_equal(b.index[i], 4 * k + i);
            assert_true(b.x[i * ELEMENTS] == (float)pixels[b.index[i] * ELEMENTS] / 255.0f);
        }
    }
    fst_loader_free(l);
}

static void last_batch_can_be_dropped(void **state)
{
    static const uint32_t few[3] = {1, 2, 3};
    fst_loader *l = loader((fst_loader_spec){.batch_size = 10, .drop_last = true});
    (void)state;
    assert_int_equal(fst_loader_batches(l), 10);
    run(&one, l, 0, 0);
    assert_int_equal(one.rows, 100);
    fst_loader_free(l);
    l = loader((fst_loader_spec){.batch_size = 10, .drop_last = true, .subset = few, .subset_count = 3});
    assert_int_equal(fst_loader_batches(l), 0);
    run(&one, l, 0, 0);
    assert_int_equal(one.rows, 0);
    fst_loader_free(l);
}

static void subsets_are_kept_to(void **state)
{
    static const uint32_t some[5] = {100, 7, 7, 0, 55};
    fst_loader *l = loader((fst_loader_spec){.batch_size = 2, .subset = some, .subset_count = 5});
    (void)state;
    run(&one, l, 0, 0);
    assert_int_equal(one.rows, 5);
    assert_memory_equal(one.index, some, sizeof some);
    fst_loader_free(l);
}

/* ---- augmentation --------------------------------------------------------------------------- */

/* A sample's augmented image does not depend on order, batch size or who else is in the subset. */
static void augmentation_belongs_to_the_sample(void **state)
{
    static const uint32_t some[3] = {90, 4, 17};
    fst_loader_spec spec = augmented(false);
    fst_loader *a = loader(spec);
    (void)state;
    spec.shuffle = false;
    spec.batch_size = 1;
    spec.subset = some;
    spec.subset_count = 3;
    fst_loader *b = loader(spec);
    run(&one, a, 2, 0);
    run(&two, b, 2, 0);
    for (size_t i = 0; i < 3; i++)
        for (size_t j = 0; j < N; j++)
            if (one.index[j] == two.index[i])
                assert_memory_equal(one.x[j], two.x[i], sizeof one.x[0]);
    run(&one, b, 3, 0);
    assert_memory_not_equal(one.x, two.x, 3 * sizeof one.x[0]); /* but on the epoch */
    fst_loader_free(a);
    fst_loader_free(b);
}

/* A site has only its own samples, at other positions than in the source of all sites: it must draw the same crops and
 * flips. */
static void augmentation_belongs_to_the_sample_at_its_site(void **state)
{
    static const uint32_t own[4] = {3, 40, 41, 99};
    fst_source *site = NULL;
    const fst_source_part part = {source, own, 4};
    fst_loader_spec spec = augmented(false);
    (void)state;
    assert_ok(fst_source_compose(&site, "site", &part, 1, err));
    spec.batch_size = 3;
    spec.subset = own;
    spec.subset_count = 4;
    fst_loader *simulated = loader(spec);
    spec.source = site;
    spec.subset = NULL;
    fst_loader *at_site = loader(spec);
    for (uint64_t epoch = 0; epoch < 3; epoch++) {
        run(&one, simulated, epoch, 0);
        run(&two, at_site, epoch, 0);
        assert_int_equal(one.rows, 4);
        for (size_t i = 0; i < 4; i++)
            assert_int_equal(one.index[i], own[two.index[i]]);
        assert_memory_equal(one.x, two.x, 4 * sizeof one.x[0]);
    }
    fst_loader_free(simulated);
    fst_loader_free(at_site);
    fst_source_close(site);
}

/* What crop (dy, dx) and flip must give, from the definition: pad with zeros, cut, mirror, normalise. */
static float defined(const fst_transform *t, uint32_t sample, int c, int y, int x, int dy, int dx, bool flip)
{
    int sx = (flip ? W - 1 - x : x) + dx - t->crop_padding, sy = y + dy - t->crop_padding;
    float v = 0;
    if (sx >= 0 && sx < W && sy >= 0 && sy < H)
        v = (float)pixels[sample * ELEMENTS + (uint32_t)((c * H + sy) * W + sx)] / 255.0f;
    return (v - t->mean[c]) / t->std[c];
}

static bool is_window(const fst_transform *t, uint32_t sample, const float *got, int dy, int dx, bool flip)
{
    for (int c = 0; c < C; c++)
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++)
                if (fabsf(got[(c * H + y) * W + x] - defined(t, sample, c, y, x, dy, dx, flip)) > 1e-6f)
                    return false;
    return true;
}

static void every_window_occurs(void **state)
{
    fst_loader_spec spec = augmented(false);
    fst_loader *l = loader(spec);
    int seen[5][5][2] = {{{0}}};
    (void)state;
    for (uint64_t e = 0; e < 20; e++) {
        run(&one, l, e, 0);
        for (size_t i = 0; i < one.rows; i++) {
            int found = 0;
            for (int k = 0; k < 50; k++) {
                int dy = k / 10, dx = k / 2 % 5, flip = k % 2;
                if (is_window(&spec.transform, one.index[i], one.x[i], dy, dx, flip)) {
                    seen[dy][dx][flip]++;
                    found++;
                }
            }
            assert_int_equal(found, 1);
        }
    }
    /* 2060 draws of 50 windows: about 41 each */
    for (int k = 0; k < 50; k++)
        assert_in_range(seen[k / 10][k / 2 % 5][k % 2], 15, 80);
    fst_loader_free(l);
}

static void augmentation_can_be_off(void **state)
{
    fst_loader_spec spec = augmented(false);
    (void)state;
    spec.augment = false;
    fst_loader *l = loader(spec);
    run(&one, l, 0, 0);
    for (size_t i = 0; i < one.rows; i++)
        assert_true(is_window(&spec.transform, one.index[i], one.x[i], 2, 2, false));
    fst_loader_free(l);
}

/* ---- soft targets, errors, memory ----------------------------------------------------------- */

struct soft_context {
    size_t fail_at, calls;
};

static fst_status fill_soft(void *ctx, const uint32_t *index, size_t rows, float *soft, fst_error *err)
{
    struct soft_context *c = ctx;
    if (c->calls++ == c->fail_at)
        return fst_fail(err, FST_E_MISMATCH, "no soft label for sample %lu", (unsigned long)index[0]);
    for (size_t i = 0; i < rows; i++)
        for (int k = 0; k < CLASSES; k++)
            soft[i * CLASSES + (size_t)k] = (float)index[i] + (float)k / 8;
    return FST_OK;
}

static void soft_targets_come_along(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct soft_context c = {SIZE_MAX, 0};
        fst_loader *l = loader((fst_loader_spec){.batch_size = 10,
                                                 .shuffle = true,
                                                 .background = k,
                                                 .soft = fill_soft,
                                                 .soft_ctx = &c,
                                                 .soft_width = CLASSES});
        fst_batch b;
        size_t rows = 0;
        assert_ok(fst_loader_start(l, 0, 0, err));
        for (;;) {
            assert_ok(fst_loader_next(l, &b, err));
            if (!b.rows)
                break;
            for (size_t i = 0; i < b.rows; i++)
                assert_true(b.soft[i * CLASSES + 6] == (float)b.index[i] + 0.75f);
            rows += b.rows;
        }
        assert_int_equal(rows, N);
        assert_int_equal(c.calls, 11);
        fst_loader_free(l);
    }
    fst_loader *l = loader((fst_loader_spec){.batch_size = 10});
    fst_batch b;
    assert_ok(fst_loader_start(l, 0, 0, err));
    assert_ok(fst_loader_next(l, &b, err));
    assert_null(b.soft);
    fst_loader_free(l);
}

static void errors_arrive_in_their_place(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        struct soft_context c = {4, 0};
        fst_loader *l = loader((fst_loader_spec){
            .batch_size = 10, .background = k, .soft = fill_soft, .soft_ctx = &c, .soft_width = CLASSES});
        fst_batch b = {0}, before;
        assert_ok(fst_loader_start(l, 0, 0, err));
        for (int i = 0; i < 4; i++)
            assert_ok(fst_loader_next(l, &b, err));
        before = b;
        for (int i = 0; i < 2; i++) /* it does not go away by asking again */
            assert_fails(fst_loader_next(l, &b, err), FST_E_MISMATCH, "no soft label for sample 40");
        assert_memory_equal(&b, &before, sizeof b);
        assert_int_equal(fst_loader_next(l, &b, NULL), FST_E_MISMATCH);
        /* a new start does */
        assert_ok(fst_loader_start(l, 0, 4, err));
        assert_ok(fst_loader_next(l, &b, err));
        assert_int_equal(b.index[0], 40);
        fst_loader_free(l);
    }
}

static void running_allocates_nothing(void **state)
{
    (void)state;
    for (int k = 0; k < 2; k++) {
        fst_loader *l = loader(augmented(k));
        uint64_t before = fst_alloc_count();
        for (uint64_t e = 0; e < 3; e++)
            run(&one, l, e, 0);
        assert_int_equal(fst_alloc_count(), before);
        fst_loader_free(l);
    }
}

static void memory_may_run_out(void **state)
{
    fst_loader *l = NULL;
    fst_loader_spec spec = augmented(true);
    (void)state;
    spec.source = source;
    for (uint64_t n = 1; n < 3; n++) {
        fst_alloc_fail_at(n);
        fst_status s = fst_loader_new(&l, &spec, NULL);
        fst_alloc_fail_at(0);
        assert_int_equal(s, FST_E_MEMORY);
        assert_null(l);
    }
}

static void nonsense_is_refused(void **state)
{
    static const uint32_t beyond[2] = {0, N};
    fst_source *flat = NULL;
    fst_loader *l = NULL;
    fst_loader_spec spec = {.source = source};
    (void)state;
    assert_ok(fst_source_from_memory(&flat, "flat", FST_U8, &FST_SHAPE(ELEMENTS), N, pixels, labels, CLASSES, err));
    assert_fails(fst_loader_new(&l, &spec, err), FST_E_ARGUMENT, "batch size");
    spec.batch_size = 4;
    spec.subset = beyond;
    assert_fails(fst_loader_new(&l, &spec, err), FST_E_ARGUMENT, "empty subset");
    spec.subset_count = 2;
    assert_fails(fst_loader_new(&l, &spec, err), FST_E_ARGUMENT, "entry 1 of the subset is sample 103");
    spec.subset = NULL;
    spec.transform = (fst_transform){.channels = 3, .std = {1, 1, 1}};
    assert_fails(fst_loader_new(&l, &spec, err), FST_E_CONFIG, "3 channels do not fit");
    spec.transform = (fst_transform){.channels = 1};
    assert_fails(fst_loader_new(&l, &spec, err), FST_E_CONFIG, "std must be above 0");
    spec.transform = (fst_transform){.crop_padding = 4};
    assert_fails(fst_loader_new(&l, &spec, err), FST_E_CONFIG, "crop padding of 4");
    spec.source = flat;
    spec.transform = (fst_transform){.flip = true};
    assert_fails(fst_loader_new(&l, &spec, err), FST_E_CONFIG, "crop and flip need");
    spec.transform = (fst_transform){0};
    spec.soft = fill_soft;
    assert_fails(fst_loader_new(&l, &spec, err), FST_E_ARGUMENT, "width above 0");
    assert_null(l);
    fst_source_close(flat);
}

/* ---- floats and statistics ------------------------------------------------------------------ */

static void floats_are_normalised(void **state)
{
    static const float x[2 * ELEMENTS] = {1, 2, 3};
    fst_source *s = NULL;
    (void)state;
    assert_ok(fst_source_from_memory(&s, "f", FST_F32, &FST_SHAPE(C, H, W), 2, x, labels, 2, err));
    fst_loader *l = loader(
        (fst_loader_spec){.source = s, .batch_size = 2, .transform = {.channels = 1, .mean = {1}, .std = {0.5f}}});
    run(&one, l, 0, 0);
    assert_true(one.x[0][0] == 0 && one.x[0][1] == 2 && one.x[0][2] == 4 && one.x[1][0] == -2);
    fst_loader_free(l);
    fst_source_close(s);
}

static void statistics_are_right(void **state)
{
    /* channel 0: 0 and 255 in equal parts; channel 1: always 51 */
    static const unsigned char x[8] = {0, 255, 51, 51, 255, 0, 51, 51};
    static const float far[6] = {1e6f, 1e6f + 1, 1e6f + 2, 1e6f + 1, 1e6f, 1e6f + 2};
    fst_source *s = NULL;
    fst_transform t;
    (void)state;
    assert_ok(fst_source_from_memory(&s, "u8", FST_U8, &FST_SHAPE(2, 1, 2), 2, x, labels, 2, err));
    assert_ok(fst_source_statistics(s, &t, err));
    assert_int_equal(t.channels, 2);
    assert_true(t.mean[0] == 0.5f && t.std[0] == 0.5f);
    assert_true(fabsf(t.mean[1] - 0.2f) < 1e-7f);
    fst_source_close(s);
    assert_ok(fst_source_from_memory(&s, "f32", FST_F32, &FST_SHAPE(1, 3), 2, far, labels, 2, err));
    assert_ok(fst_source_statistics(s, &t, err));
    assert_int_equal(t.channels, 1);
    assert_true(t.mean[0] == 1e6f + 1);
    assert_true(fabsf(t.std[0] - 0.8164966f) < 1e-6f); /* sqrt(2 / 3) */
    fst_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_sample_once),
        cmocka_unit_test(order_is_a_function_of_seed_and_epoch),
        cmocka_unit_test(background_equals_foreground),
        cmocka_unit_test(resumed_equals_uninterrupted),
        cmocka_unit_test(an_epoch_can_be_left),
        cmocka_unit_test(a_batch_stays_until_the_next_call),
        cmocka_unit_test(last_batch_can_be_dropped),
        cmocka_unit_test(subsets_are_kept_to),
        cmocka_unit_test(augmentation_belongs_to_the_sample),
        cmocka_unit_test(augmentation_belongs_to_the_sample_at_its_site),
        cmocka_unit_test(every_window_occurs),
        cmocka_unit_test(augmentation_can_be_off),
        cmocka_unit_test(soft_targets_come_along),
        cmocka_unit_test(errors_arrive_in_their_place),
        cmocka_unit_test(running_allocates_nothing),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(floats_are_normalised),
        cmocka_unit_test(statistics_are_right),
    };
    return cmocka_run_group_tests(tests, make_source, close_source);
}

/*
 * A limit reads only the samples that it leaves: whatever the file's type, order and packing, they are those that
 * fst_stratified_pick picks of the whole source, with all that is known of them, and damage is found all the same.
 */
#define _GNU_SOURCE
#include <math.h>
#include <zip.h>

#include "files.h"

enum { N = 700, ROW = 240, CIFAR_RECORD = 3073 }; /* rows of several blocks of 64 KiB */

static const fst_source_spec no_spec;

/* A byte of sample i. */
static unsigned char value(size_t i, size_t j)
{
    return (unsigned char)(i * 31 + j * 7 + i * j % 13);
}

/* Classes of different sizes, in no order. */
static int64_t label(size_t i)
{
    return (int64_t)(i * i % 7 > 4 ? 3 : i * i % 7);
}

/* An npy file whose header says this, with `bytes` of data. */
static void put_npy(const char *name, const char *descr, bool fortran, const char *shape, const void *data,
                    size_t bytes)
{
    unsigned char *file = calloc(1, 128 + bytes);
    memcpy(file, "\x93NUMPY\1\0v\0", 10);
    int n = snprintf((char *)file + 10, 118, "{'descr': '%s', 'fortran_order': %s, 'shape': (%s), }", descr,
                     fortran ? "True" : "False", shape);
    memset(file + 10 + n, ' ', (size_t)(117 - n));
    file[127] = '\n';
    memcpy(file + 128, data, bytes);
    put_file(name, file, 128 + bytes);
    free(file);
}

static void put_labels(const char *name)
{
    int64_t y[N];
    for (size_t i = 0; i < N; i++)
        y[i] = label(i);
    put_npy(name, "<i8", false, "700,", y, sizeof y);
}

/* A deflated npz of x.npy and y.npy in a folder. */
static void put_npz(const char *name, const char *folder)
{
    int code;
    zip_t *z = zip_open(in_work(name), ZIP_CREATE | ZIP_TRUNCATE, &code);
    assert_non_null(z);
    for (int i = 0; i < 2; i++) {
        char member[64];
        snprintf(member, sizeof member, "%s/%s", folder, i ? "y.npy" : "x.npy");
        zip_int64_t at = zip_file_add(z, i ? "y.npy" : "x.npy", zip_source_file(z, in_work(member), 0, -1), 0);
        assert_true(at >= 0);
        assert_int_equal(zip_set_file_compression(z, (zip_uint64_t)at, ZIP_CM_DEFLATE, 6), 0);
    }
    assert_int_equal(zip_close(z), 0);
}

/* The limited source is the picked part of the whole one. */
static void check_limit(const fst_source *whole, fst_source_spec spec)
{
    fst_source *part = NULL, *want = NULL;
    uint32_t *index = calloc(whole->count, sizeof *index);
    assert_ok(fst_stratified_pick(whole->labels, whole->count, spec.limit, index, err));
    assert_ok(fst_source_compose(&want, "part", &(fst_source_part){whole, index, spec.limit}, 1, err));
    assert_ok(fst_source_open(&part, &spec, err));
    assert_int_equal(part->count, spec.limit);
    assert_int_equal(part->classes, whole->classes);
    assert_int_equal(part->dtype, whole->dtype);
    assert_true(fst_shape_equal(&part->shape, &whole->shape));
    assert_string_equal(part->digest, want->digest); /* of type, shape, labels and all samples */
    assert_int_equal(part->snr != NULL, whole->snr != NULL);
    assert_int_equal(part->group != NULL, whole->group != NULL);
    for (size_t i = 0; i < part->count; i++) {
        if (whole->snr)
            assert_memory_equal(&part->snr[i], &whole->snr[index[i]], sizeof *whole->snr);
        if (whole->group)
            assert_int_equal(part->group[i], whole->group[index[i]]);
    }
    fst_source_close(part);
    fst_source_close(want);
    free(index);
}

static void check_limits(fst_source_spec spec)
{
    fst_source *whole = NULL;
    assert_ok(fst_source_open(&whole, &spec, err));
    const size_t limits[] = {1, 2, 5, 17, whole->count / 2, whole->count - 1};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        spec.limit = limits[i];
        if (spec.limit && spec.limit < whole->count)
            check_limit(whole, spec);
    }
    fst_source_close(whole);
}

/* As npy, and as a deflated npz. */
static void check_npy(const char *descr, bool fortran, const char *shape, const void *x, size_t bytes)
{
    put_npy("npy/x.npy", descr, fortran, shape, x, bytes);
    put_labels("npy/y.npy");
    put_npz("packed.npz", "npy");
    fst_source_spec spec = no_spec;
    spec.path = in_work("npy");
    check_limits(spec);
    spec.path = in_work("packed.npz");
    check_limits(spec);
}

static void npy_and_npz_of_all_kinds(void **state)
{
    static unsigned char x[N * ROW];
    static float f32[N * 24];
    static double f64[N * 24], big[N * 24];
    static uint16_t f16[N * 24];
    (void)state;
    for (size_t i = 0; i < sizeof x; i++)
        x[i] = value(i / ROW, i % ROW);
    for (size_t i = 0; i < N * 24; i++) {
        f32[i] = (float)value(i / 24, i % 24) - 100.25f;
        f64[i] = (double)f32[i] / 3;
        f16[i] = fst_f16_from_f32(f32[i]);
        uint64_t bits;
        memcpy(&bits, &f64[i], 8);
        bits = __builtin_bswap64(bits);
        memcpy(&big[i], &bits, 8);
    }
    check_npy("|u1", false, "700, 3, 10, 8", x, sizeof x);
    check_npy("|u1", true, "700, 3, 10, 8", x, sizeof x);
    check_npy("<f4", false, "700, 2, 12", f32, sizeof f32);
    check_npy("<f4", true, "700, 2, 12", f32, sizeof f32);
    check_npy("<f8", false, "700, 2, 12", f64, sizeof f64);
    check_npy(">f8", false, "700, 2, 12", big, sizeof big);
    check_npy(">f8", true, "700, 2, 12", big, sizeof big);
    check_npy("<f2", false, "700, 2, 12", f16, sizeof f16);
    check_npy("<c8", false, "700, 12", f32, sizeof f32);
    check_npy("<c8", true, "700, 2, 6", f32, sizeof f32);
    check_npy("<f4", false, "700,", f32, N * 4);
}

static void rows_larger_than_a_block(void **state)
{
    enum { WIDE = 70001, FEW = 7 };
    unsigned char *x = malloc(FEW * WIDE);
    int64_t y[FEW] = {0, 1, 1, 0, 2, 1, 0};
    fst_source_spec spec = no_spec;
    (void)state;
    for (size_t i = 0; i < FEW * WIDE; i++)
        x[i] = value(i / WIDE, i % WIDE);
    put_npy("wide/x.npy", "|u1", false, "7, 70001", x, FEW * WIDE);
    put_npy("wide/y.npy", "<i8", false, "7,", y, sizeof y);
    put_npz("wide.npz", "wide");
    spec.path = in_work("wide");
    check_limits(spec);
    spec.path = in_work("wide.npz");
    check_limits(spec);
    free(x);
}

/* Samples of a type in a safetensors file, with SNR and bursts beside, and one-hot labels. */
static void check_tensor(fst_dtype dtype, const fst_shape *shape, void *x, fst_layout layout)
{
    float snr[N];
    int32_t burst[N];
    static unsigned char hot[N * 5];
    for (size_t i = 0; i < N; i++) {
        snr[i] = (float)(i % 41) - 20;
        burst[i] = (int32_t)(i / 3);
        memset(hot + 5 * i, 0, 5);
        hot[5 * i + (size_t)label(i)] = 1;
    }
    const fst_tensor t[] = {{"x", dtype, *shape, x},
                            {"y", FST_U8, FST_SHAPE(N, 5), hot},
                            {"snr", FST_F32, FST_SHAPE(N), snr},
                            {"burst", FST_I32, FST_SHAPE(N), burst}};
    assert_ok(fst_safetensors_write(in_work("t.safetensors"), NULL, 0, t, 4, NULL, err));
    fst_source_spec spec = no_spec;
    spec.path = in_work("t.safetensors");
    spec.layout = layout;
    check_limits(spec);
}

static void safetensors_of_all_kinds(void **state)
{
    static unsigned char x[N * ROW];
    static double f64[N * 24];
    static float f32[N * 24];
    static uint16_t f16[N * 24], bf16[N * 24];
    const fst_shape signals = FST_SHAPE(N, 2, 12);
    (void)state;
    for (size_t i = 0; i < sizeof x; i++)
        x[i] = value(i / ROW, i % ROW);
    for (size_t i = 0; i < N * 24; i++) {
        uint32_t bits;
        f32[i] = (float)value(i / 24, i % 24) / 7;
        f64[i] = (double)f32[i] / 3;
        f16[i] = fst_f16_from_f32(f32[i]);
        memcpy(&bits, &f32[i], 4);
        bf16[i] = (uint16_t)(bits >> 16);
    }
    check_tensor(FST_U8, &FST_SHAPE(N, 3, 10, 8), x, FST_LAYOUT_AUTO);
    check_tensor(FST_U8, &FST_SHAPE(N, 10, 8, 3), x, FST_LAYOUT_NHWC);
    check_tensor(FST_U8, &FST_SHAPE(N, 24, 10), x, FST_LAYOUT_AUTO);
    check_tensor(FST_F32, &signals, f32, FST_LAYOUT_AUTO);
    check_tensor(FST_F64, &signals, f64, FST_LAYOUT_AUTO);
    check_tensor(FST_F16, &signals, f16, FST_LAYOUT_AUTO);
    check_tensor(FST_BF16, &signals, bf16, FST_LAYOUT_AUTO);
    check_tensor(FST_F32, &FST_SHAPE(N, 12, 2), f32, FST_LAYOUT_NHWC);
}

/* The library writes no complex tensors: 700 rows of 12, the header by hand. */
static void complex_safetensors(void **state)
{
    static const char header[] = "{\"x\":{\"dtype\":\"C64\",\"shape\":[700,12],\"data_offsets\":[0,67200]},"
                                 "\"y\":{\"dtype\":\"I64\",\"shape\":[700],\"data_offsets\":[67200,72800]}}";
    unsigned char *file = calloc(1, 8 + sizeof header + 72800), *at = file;
    fst_source_spec spec = no_spec;
    (void)state;
    *at = (unsigned char)(sizeof header - 1);
    at = mempcpy(at + 8, header, sizeof header - 1);
    for (size_t i = 0; i < N * 24; i++) {
        float v = (float)value(i / 24, i % 24);
        at = mempcpy(at, &v, 4);
    }
    for (size_t i = 0; i < N; i++)
        at = mempcpy(at, (int64_t[]){label(i)}, 8);
    put_file("c.safetensors", file, (size_t)(at - file));
    free(file);
    spec.path = in_work("c.safetensors");
    check_limits(spec);
}

static void cifar_of_both_kinds(void **state)
{
    static unsigned char file[20 * CIFAR_RECORD];
    const char *source = getenv("FEDSTILL_SOURCE");
    char path[1024], name[32];
    fst_source_spec spec = no_spec;
    (void)state;
    for (size_t b = 0; b < 5; b++) { /* files of 20, 17, 14, 11 and 8 records */
        size_t n = 20 - 3 * b;
        for (size_t i = 0; i < n * CIFAR_RECORD; i++)
            file[i] = value(50 * b + i / CIFAR_RECORD, i % CIFAR_RECORD);
        for (size_t i = 0; i < n; i++)
            file[i * CIFAR_RECORD] = (unsigned char)((b + i * i) % 10);
        snprintf(name, sizeof name, "cifar/data_batch_%zu.bin", b + 1);
        put_file(name, file, n * CIFAR_RECORD);
    }
    spec.path = in_work("cifar");
    check_limits(spec);
    snprintf(path, sizeof path, "%s/tests/data/pickles/cifar-10-batches-py", source ? source : ".");
    spec.path = path;
    check_limits(spec);
    snprintf(path, sizeof path, "%s/tests/data/pickles/cifar-100-python", source ? source : ".");
    check_limits(spec);
}

static void pickles_of_signals(void **state)
{
    static const char *const names[] = {"radioml2", "radioml4", "python2", "doubles", "splits"};
    const char *source = getenv("FEDSTILL_SOURCE");
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[1024];
        fst_source_spec spec = no_spec;
        snprintf(path, sizeof path, "%s/tests/data/pickles/%s.pkl", source ? source : ".", names[i]);
        spec.path = path;
        check_limits(spec);
    }
}

/* ---- what is wrong is found with a limit too ------------------------------------------------- */

static fst_status open_limited(const char *name, size_t limit, fst_error *err)
{
    fst_source *s = NULL;
    fst_status st = fst_source_open(&s, &(fst_source_spec){.path = in_work(name), .limit = limit}, err);
    fst_source_close(s);
    return st;
}

static void other_numbers_of_rows(void **state)
{
    static float x[N * 2];
    int64_t y[3] = {0, 1, 1};
    (void)state;
    put_npy("odd/x.npy", "<f4", false, "700, 2", x, sizeof x);
    put_npy("odd/y.npy", "<i8", false, "3,", y, sizeof y);
    put_npz("odd.npz", "odd");
    assert_fails(open_limited("odd", 2, err), FST_E_MISMATCH, "shape (700, 2), where 3 rows are needed");
    assert_fails(open_limited("odd.npz", 2, err), FST_E_MISMATCH, "shape (700, 2), where 3 rows are needed");
    put_npy("odd/x.npy", "<f4", false, "", x, 4);
    assert_fails(open_limited("odd", 2, err), FST_E_MISMATCH, "3 rows are needed");
    const fst_tensor t[] = {{"x", FST_F32, FST_SHAPE(N, 2), x}, {"y", FST_I64, FST_SHAPE(3), y}};
    assert_ok(fst_safetensors_write(in_work("odd.safetensors"), NULL, 0, t, 2, NULL, err));
    assert_fails(open_limited("odd.safetensors", 2, err), FST_E_MISMATCH, "(700, 2) do not fit 3 labels");
}

/* The 3rd of class 1's samples is kept by a limit of half: the message names its place in the file. */
static void numbers_that_are_none(void **state)
{
    static float x[N * 2];
    uint32_t index[N / 2];
    int32_t y[N];
    char text[64];
    (void)state;
    for (size_t i = 0; i < N; i++)
        y[i] = (int32_t)label(i);
    assert_ok(fst_stratified_pick(y, N, N / 2, index, err));
    x[2 * index[123] + 1] = NAN;
    snprintf(text, sizeof text, "sample %u, element 1 is nan", index[123]);
    put_npy("nan/x.npy", "<f4", false, "700, 2", x, sizeof x);
    put_labels("nan/y.npy");
    assert_fails(open_limited("nan", N / 2, err), FST_E_NUMERIC, text);
}

/* A member of which the last byte is wrong, and no kept row reaches it. */
static void damage_after_the_last_row(void **state)
{
    static unsigned char x[N * ROW];
    fst_buf b = {0};
    (void)state;
    for (size_t i = 0; i < sizeof x; i++)
        x[i] = value(i / ROW, i % ROW);
    put_npy("rot/x.npy", "|u1", false, "700, 3, 10, 8", x, sizeof x);
    put_labels("rot/y.npy");
    put_npz("rot.npz", "rot");
    assert_int_equal(open_limited("rot.npz", 1, NULL), FST_OK);
    assert_ok(fst_file_read(in_work("rot.npz"), 1 << 20, &b, err));
    char *end = memmem(b.data + 4, b.len - 4, "PK\3\4", 4); /* of the first member, x.npy */
    assert_non_null(end);
    end[-40] = (char)~end[-40];
    put_file("rot.npz", b.data, b.len);
    fst_buf_release(&b);
    assert_fails(open_limited("rot.npz", 1, err), FST_E_FORMAT, "rot.npz[x]");
}

/* The class that only unpicked samples have is no reason for a warning, and counts. */
static void classes_are_those_of_all(void **state)
{
    static unsigned char x[6 * 4];
    int64_t y[6] = {0, 0, 0, 0, 1, 2};
    fst_source *s = NULL;
    (void)state;
    put_npy("rare/x.npy", "|u1", false, "6, 4", x, sizeof x);
    put_npy("rare/y.npy", "<i8", false, "6,", y, sizeof y);
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work("rare"), .limit = 1}, err));
    assert_int_equal(s->count, 1);
    assert_int_equal(s->classes, 3);
    fst_source_close(s);
}

static int warned;
static char warning[512];

static void listen(void *ctx, fst_log_level level, const char *text)
{
    (void)ctx;
    warned += level == FST_LOG_WARN;
    snprintf(warning, sizeof warning, "%s", text);
}

/* A limit below the number of classes cannot keep one of each, and says so, in every format that has labels. */
static void limits_below_the_classes_are_told(void **state)
{
    static unsigned char x[6 * 4], records[3 * CIFAR_RECORD];
    int64_t y[6] = {0, 0, 1, 2, 3, 4};
    (void)state;
    put_npy("five/x.npy", "|u1", false, "6, 4", x, sizeof x);
    put_npy("five/y.npy", "<i8", false, "6,", y, sizeof y);
    for (unsigned char i = 0; i < 3; i++)
        records[i * CIFAR_RECORD] = i;
    put_file("three/data_batch_1.bin", records, sizeof records);
    fst_log_set(listen, NULL);
    warned = 0;
    assert_ok(open_limited("five", 5, err));
    assert_ok(open_limited("three", 3, err));
    assert_int_equal(warned, 0);
    assert_ok(open_limited("five", 3, err));
    assert_int_equal(warned, 1);
    assert_non_null(strstr(warning, "a limit of 3 leaves 2 of its 5 classes without samples"));
    assert_ok(open_limited("three", 2, err));
    assert_int_equal(warned, 2);
    fst_log_set(NULL, NULL);
}

/* One-hot rows say how many classes there are, and not that each has samples: labels from 1, made one-hot. */
static void columns_of_zeros_are_told(void **state)
{
    static unsigned char x[4 * 4], y[4 * 3] = {0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1};
    fst_source *s = NULL;
    (void)state;
    put_npy("hot/x.npy", "|u1", false, "4, 4", x, sizeof x);
    put_npy("hot/y.npy", "|u1", false, "4, 3", y, sizeof y);
    fst_log_set(listen, NULL);
    warned = 0;
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work("hot")}, err));
    fst_log_set(NULL, NULL);
    assert_int_equal(warned, 1);
    assert_non_null(strstr(warning, "labels begin at 1"));
    assert_int_equal(s->classes, 3);
    fst_source_close(s);
}

/* RadioML's pickles too: labels from 1 in the split form, a cell without samples in the other. */
static void pickles_without_some_class_are_told(void **state)
{
    static const char *const names[] = {"from_one", "empty_cell"};
    static const char *const says[] = {"labels begin at 1", "1 of 2 classes have no samples: 0"};
    const char *source = getenv("FEDSTILL_SOURCE");
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        char path[1024];
        fst_source *s = NULL;
        snprintf(path, sizeof path, "%s/tests/data/pickles/%s.pkl", source ? source : ".", names[i]);
        fst_log_set(listen, NULL);
        warned = 0;
        assert_ok(fst_source_open(&s, &(fst_source_spec){.path = path}, err));
        fst_log_set(NULL, NULL);
        assert_int_equal(warned, 1);
        assert_non_null(strstr(warning, says[i]));
        fst_source_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(npy_and_npz_of_all_kinds),
        cmocka_unit_test(rows_larger_than_a_block),
        cmocka_unit_test(safetensors_of_all_kinds),
        cmocka_unit_test(complex_safetensors),
        cmocka_unit_test(cifar_of_both_kinds),
        cmocka_unit_test(pickles_of_signals),
        cmocka_unit_test(other_numbers_of_rows),
        cmocka_unit_test(numbers_that_are_none),
        cmocka_unit_test(damage_after_the_last_row),
        cmocka_unit_test(classes_are_those_of_all),
        cmocka_unit_test(limits_below_the_classes_are_told),
        cmocka_unit_test(columns_of_zeros_are_told),
        cmocka_unit_test(pickles_without_some_class_are_told),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}

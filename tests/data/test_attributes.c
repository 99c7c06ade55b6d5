/* What stands beside samples and labels: SNR, bursts, names of classes; from safetensors, npz and npy. */
#define _GNU_SOURCE
#include <math.h>
#include <zip.h>

#include "files.h"

enum { N = 4 };

static const float values[N * 2] = {0, 1, -2, 0.5f, 4, -0.25f, 1, 3};
static const int32_t classes[N] = {0, 2, 1, 0};
static const float decibels[N] = {-10, 0.5f, 30, NAN};
static const int64_t bursts[N] = {7, 7, INT64_C(5000000000), -1};

static fst_tensor samples(const char *name)
{
    return (fst_tensor){name, FST_F32, FST_SHAPE(N, 2), (void *)(uintptr_t)values};
}
static fst_tensor labels(const char *name)
{
    return (fst_tensor){name, FST_I32, FST_SHAPE(N), (void *)(uintptr_t)classes};
}
static fst_tensor snr(const char *name)
{
    return (fst_tensor){name, FST_F32, FST_SHAPE(N), (void *)(uintptr_t)decibels};
}
static fst_tensor burst(const char *name)
{
    return (fst_tensor){name, FST_I64, FST_SHAPE(N), (void *)(uintptr_t)bursts};
}

static void check_attributes(const fst_source *s)
{
    assert_non_null(s->snr);
    assert_non_null(s->group);
    for (int i = 0; i < N - 1; i++)
        assert_true(s->snr[i] == decibels[i]);
    assert_true(isnan(s->snr[N - 1]));
    for (int i = 0; i < N; i++)
        assert_int_equal(s->group[i], bursts[i]);
}

static void check_names(const fst_source *s)
{
    assert_int_equal(s->classes, 4);
    assert_non_null(s->class_names);
    assert_string_equal(s->class_names[0], "E-2D_1");
    assert_string_equal(s->class_names[2], "P-8A \xC3\xA9");
    assert_string_equal(s->class_names[3], "d");
}

static void put(const char *name, const char *format, const char *names, const fst_tensor *t, size_t n)
{
    fst_pair meta[2] = {{"format", format}, {"classes", names}};
    assert_ok(fst_safetensors_write(in_work(name), meta, names ? 2 : 1, t, n, NULL, err));
}

static fst_status open_at(fst_source **s, const char *name, const char *split, fst_error *err)
{
    return fst_source_open(s, &(fst_source_spec){.path = in_work(name), .split = split}, err);
}

#define NAMES "[\"E-2D_1\", \"b\", \"P-8A \\u00e9\", \"d\"]"

static void safetensors_have_them(void **state)
{
    fst_source *s = NULL, *bare = NULL;
    (void)state;
    put("all.safetensors", "fedstill-data-1", NAMES,
        (fst_tensor[]){samples("x"), labels("y"), snr("snr"), burst("burst")}, 4);
    assert_ok(open_at(&s, "all.safetensors", NULL, err));
    check_attributes(s);
    check_names(s);
    put("bare.safetensors", "fedstill-data-1", NULL, (fst_tensor[]){samples("x"), labels("y")}, 2);
    assert_ok(open_at(&bare, "bare.safetensors", NULL, err));
    assert_null(bare->snr);
    assert_null(bare->group);
    assert_null(bare->class_names);
    assert_string_equal(bare->digest, s->digest); /* they are no part of the data */
    fst_source_close(bare);
    fst_source_close(s);
}

static void they_are_named_as_the_samples(void **state)
{
    static const int64_t other[N] = {1, 2, 3, 4};
    fst_tensor t[] = {samples("x_train"),   labels("y_train"),
                      samples("x_test"),    labels("y_test"),
                      burst("burst_train"), {"burst", FST_I64, FST_SHAPE(N), (void *)(uintptr_t)other}};
    fst_source *s = NULL;
    (void)state;
    put("split.safetensors", "x", NULL, t, 6);
    assert_ok(open_at(&s, "split.safetensors", "train", err));
    assert_non_null(s->group);
    assert_int_equal(s->group[0], 7);
    fst_source_close(s);
    assert_ok(open_at(&s, "split.safetensors", "test", err));
    assert_null(s->group); /* plain `burst` is not of x_test */
    fst_source_close(s);
}

static void npy_files_have_them(void **state)
{
    fst_source *s = NULL;
    (void)state;
    assert_ok(fst_make_folders(in_work("npy"), err));
    for (int i = 0; i < 4; i++) {
        static const char *const names[] = {"npy/x.npy", "npy/y.npy", "npy/snr.npy", "npy/burst.npy"};
        fst_tensor t[] = {samples("x"), labels("y"), snr("snr"), burst("burst")};
        assert_ok(fst_npy_write(in_work(names[i]), &t[i], err));
    }
    assert_ok(open_at(&s, "npy", NULL, err));
    check_attributes(s);
    fst_source_close(s);
    assert_ok(open_at(&s, "npy/x.npy", NULL, err));
    check_attributes(s);
    fst_source_close(s);
}

/* ---- npz ------------------------------------------------------------------------------------ */

/* An npy of any type, whose header NumPy would write so. */
static void put_npy(const char *name, const char *type, const char *shape, const void *data, size_t len)
{
    unsigned char file[4096] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, 118, 0};
    snprintf((char *)file + 10, 119, "{'descr': '%s', 'fortran_order': False, 'shape': %s, }%*s", type, shape, 60, "");
    memset(file + 10 + strlen((char *)file + 10), ' ', 118 - strlen((char *)file + 10));
    file[127] = '\n';
    memcpy(file + 128, data, len);
    put_file(name, file, 128 + len);
}

static void put_npz(const char *name, const char *const *members, size_t n)
{
    int code;
    zip_t *z = zip_open(in_work(name), ZIP_CREATE | ZIP_TRUNCATE, &code);
    assert_non_null(z);
    for (size_t i = 0; i < n; i++)
        assert_true(zip_file_add(z, members[i], zip_source_file(z, in_work(members[i]), 0, -1), 0) >= 0);
    assert_int_equal(zip_close(z), 0);
}

static void npz_has_them(void **state)
{
    static const char *const members[] = {"x.npy", "y.npy", "snr.npy", "burst.npy", "classes.npy"};
    static const char bytes[4 * 7] = "E-2D_1\0b\0\0\0\0\0\0P-8A \xC3\xA9"
                                     "d\0\0\0\0\0";
    static const uint32_t wide[4 * 6] = {'E', '-', '2', 'D', '_', '1',  'b', 0, 0, 0, 0, 0,
                                         'P', '-', '8', 'A', ' ', 0xE9, 'd', 0, 0, 0, 0, 0};
    fst_tensor t[] = {samples("x"), labels("y"), snr("snr"), burst("burst")};
    fst_source *s = NULL;
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_ok(fst_npy_write(in_work(members[i]), &t[i], err));
    for (int kind = 0; kind < 2; kind++) {
        if (kind)
            put_npy("classes.npy", "<U6", "(4,)", wide, sizeof wide);
        else
            put_npy("classes.npy", "|S7", "(4,)", bytes, sizeof bytes);
        put_npz("all.npz", members, 5);
        assert_ok(open_at(&s, "all.npz", NULL, err));
        check_attributes(s);
        check_names(s);
        fst_source_close(s);
    }
    s = NULL;
    put_npy("classes.npy", "|S1", "(2,)", "ab", 2);
    put_npz("few.npz", members, 5);
    assert_fails(open_at(&s, "few.npz", NULL, err), FST_E_FORMAT, "sample 1 has label 2, labels must be 0 ... 1");
    put_npy("classes.npy", "<i4", "(1,)", "abcd", 4);
    put_npz("few.npz", members, 5);
    assert_fails(open_at(&s, "few.npz", NULL, err), FST_E_FORMAT, "texts ('S32', 'U32') are needed");
    put_npy("classes.npy", "<U1", "(1,)", (uint32_t[]){0xD800}, 4);
    put_npz("few.npz", members, 5);
    assert_fails(open_at(&s, "few.npz", NULL, err), FST_E_FORMAT, "no character");
    assert_null(s);
}

/* ---- what is wrong -------------------------------------------------------------------------- */

static void check_refused(const fst_tensor *extra, const char *format, const char *names, fst_status want,
                          const char *text)
{
    fst_source *s = NULL;
    fst_tensor t[3] = {samples("x"), labels("y"), extra ? *extra : snr("other")};
    put("bad.safetensors", format, names, t, 3);
    assert_fails(open_at(&s, "bad.safetensors", NULL, err), want, text);
    assert_null(s);
}

static void what_does_not_fit_is_refused(void **state)
{
    static const float endless[N] = {0, INFINITY, 0, 0};
    fst_tensor t = {"snr", FST_F32, FST_SHAPE(N - 1), (void *)(uintptr_t)decibels};
    (void)state;
    check_refused(&t, "x", NULL, FST_E_MISMATCH, "snr of shape (3,) does not fit 4 labels");
    t = (fst_tensor){"snr", FST_F32, FST_SHAPE(N), (void *)(uintptr_t)endless};
    check_refused(&t, "x", NULL, FST_E_NUMERIC, "snr of sample 1 is infinite");
    t = (fst_tensor){"burst", FST_F32, FST_SHAPE(N), (void *)(uintptr_t)values};
    check_refused(&t, "x", NULL, FST_E_FORMAT, "burst is F32; integers are needed");
    t = (fst_tensor){"burst", FST_I64, FST_SHAPE(2, 2), (void *)(uintptr_t)bursts};
    check_refused(&t, "x", NULL, FST_E_MISMATCH, "burst of shape (2, 2)");
    check_refused(NULL, "fedstill-data-2", NULL, FST_E_UNSUPPORTED, "fedstill-data-1 is read here");
    check_refused(NULL, "fedstill-data-1", "7", FST_E_FORMAT, "must be a JSON list");
    check_refused(NULL, "fedstill-data-1", "[\"a\", 1]", FST_E_FORMAT, "must be a JSON list");
    check_refused(NULL, "fedstill-data-1", "[\"a\"]", FST_E_FORMAT, "labels must be 0 ... 0");
}

/* Somebody else's metadata may use the word for anything. */
static void foreign_metadata_is_no_error(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put("foreign.safetensors", "other", "7", (fst_tensor[]){samples("x"), labels("y")}, 2);
    assert_ok(open_at(&s, "foreign.safetensors", NULL, err));
    assert_null(s->class_names);
    assert_int_equal(s->classes, 3);
    fst_source_close(s);
}

static void the_first_bad_sample_is_named(void **state)
{
    static const float bad[N * 2] = {0, 0, 0, 0, -INFINITY, 0, 0, NAN};
    fst_source *s = NULL;
    fst_tensor x = {"x", FST_F32, FST_SHAPE(N, 2), (void *)(uintptr_t)bad};
    (void)state;
    put("nan.safetensors", "fedstill-data-1", NULL, (fst_tensor[]){x, labels("y")}, 2);
    assert_fails(open_at(&s, "nan.safetensors", NULL, err), FST_E_NUMERIC, "sample 2, element 0 is -inf");
}

static void memory_may_run_out(void **state)
{
    fst_source_spec spec = {.path = in_work("all.npz")};
    fst_source *s = NULL;
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        spec.path = in_work(kind ? "all.npz" : "all.safetensors");
        for (uint64_t n = 1;; n++) {
            assert_true(n < 10000);
            fst_alloc_fail_at(n);
            fst_status st = fst_source_open(&s, &spec, NULL);
            fst_alloc_fail_at(0);
            if (!st)
                break;
            assert_null(s);
        }
        fst_source_close(s);
        s = NULL;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(safetensors_have_them),         cmocka_unit_test(they_are_named_as_the_samples),
        cmocka_unit_test(npy_files_have_them),           cmocka_unit_test(npz_has_them),
        cmocka_unit_test(what_does_not_fit_is_refused),  cmocka_unit_test(foreign_metadata_is_no_error),
        cmocka_unit_test(the_first_bad_sample_is_named), cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}

/* safetensors: round trips, canonical bytes, conversion to floats, and headers that lie. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fedstill/tensor.h"

static char folder[512], path[600];

static int set_up(void **state)
{
    const char *base = getenv("TMPDIR");
    (void)state;
    snprintf(folder, sizeof folder, "%s/fedstill-st-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/file.safetensors", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

static float f32[6] = {1, -2, 0.5f, 4, 1e-30f, 6};
static int64_t i64[2] = {INT64_MIN, 77};
static unsigned char u8[3] = {0, 128, 255};

static const fst_pair meta[] = {{"zebra", "last"}, {"format", "test \"1\"\n"}, {"empty", ""}};

static void write_three(char digest[FST_DIGEST_HEX], bool other_order)
{
    fst_tensor t[3] = {{"b.weight", FST_F32, FST_SHAPE(2, 3), f32},
                       {"a", FST_U8, FST_SHAPE(3), u8},
                       {"n", FST_I64, FST_SHAPE(2), i64}};
    fst_tensor r[3] = {t[2], t[0], t[1]};
    assert_int_equal(fst_safetensors_write(path, meta, 3, other_order ? r : t, 3, digest, NULL), FST_OK);
}

static void tensors_come_back(void **state)
{
    fst_safetensors *f = NULL;
    char digest[FST_DIGEST_HEX], real[FST_DIGEST_HEX];
    size_t i;
    float x[6];
    unsigned char b[3];
    (void)state;
    write_three(digest, false);
    assert_int_equal(fst_sha256_file(path, real, NULL), FST_OK);
    assert_string_equal(digest, real);
    assert_int_equal(fst_safetensors_open(&f, path, NULL), FST_OK);
    assert_int_equal(fst_safetensors_count(f), 3);
    assert_string_equal(fst_safetensors_at(f, 0).name, "n"); /* 8-byte types first */
    assert_true(fst_safetensors_find(f, "b.weight", &i));
    fst_tensor t = fst_safetensors_at(f, i);
    assert_int_equal(t.dtype, FST_F32);
    assert_true(fst_shape_equal(&t.shape, &FST_SHAPE(2, 3)));
    assert_int_equal(fst_safetensors_read(f, i, x, sizeof x, NULL), FST_OK);
    assert_memory_equal(x, f32, sizeof x);
    assert_int_equal(fst_safetensors_read(f, i, x, 20, NULL), FST_E_MISMATCH);
    assert_true(fst_safetensors_find(f, "a", &i));
    assert_int_equal(fst_safetensors_read(f, i, b, 3, NULL), FST_OK);
    assert_memory_equal(b, u8, 3);
    assert_int_equal(fst_safetensors_read_f32(f, i, x, 3, NULL), FST_OK);
    assert_true(x[0] == 0 && x[1] == 128 && x[2] == 255);
    assert_int_equal(fst_safetensors_read_f32(f, i, x, 2, NULL), FST_E_MISMATCH);
    assert_false(fst_safetensors_find(f, "absent", &i));
    fst_safetensors_free(f);
    fst_safetensors_free(NULL);
}

static void metadata_comes_back(void **state)
{
    fst_safetensors *f = NULL;
    fst_pair p;
    (void)state;
    write_three(NULL, false);
    assert_int_equal(fst_safetensors_open(&f, path, NULL), FST_OK);
    assert_string_equal(fst_safetensors_meta(f, "format"), "test \"1\"\n");
    assert_string_equal(fst_safetensors_meta(f, "empty"), "");
    assert_null(fst_safetensors_meta(f, "absent"));
    assert_true(fst_safetensors_meta_at(f, 0, &p));
    assert_string_equal(p.key, "empty");
    assert_true(fst_safetensors_meta_at(f, 2, &p));
    assert_string_equal(p.key, "zebra");
    assert_false(fst_safetensors_meta_at(f, 3, &p));
    fst_safetensors_free(f);
}

static void bytes_do_not_depend_on_order(void **state)
{
    char first[FST_DIGEST_HEX], second[FST_DIGEST_HEX];
    (void)state;
    write_three(first, false);
    write_three(second, true);
    assert_string_equal(first, second);
}

static void every_number_becomes_a_float(void **state)
{
    static double f64 = -2.5;
    static uint16_t f16 = 0xC100, bf16 = 0xC020; /* -2.5 in both */
    static int8_t i8 = -3;
    static uint16_t u16 = 65535;
    static int16_t i16 = -4;
    static uint32_t u32 = 16777216;
    static int32_t i32 = -5;
    static uint64_t u64 = 1ull << 63;
    static unsigned char one = 1;
    static const struct {
        fst_dtype dtype;
        void *data;
        float want;
    } cases[] = {{FST_F64, &f64, -2.5f},
                 {FST_F16, &f16, -2.5f},
                 {FST_BF16, &bf16, -2.5f},
                 {FST_I8, &i8, -3},
                 {FST_U16, &u16, 65535},
                 {FST_I16, &i16, -4},
                 {FST_U32, &u32, 16777216.0f},
                 {FST_I32, &i32, -5},
                 {FST_U64, &u64, 9223372036854775808.0f},
                 {FST_I64, &i64[1], 77},
                 {FST_BOOL, &one, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_safetensors *f = NULL;
        float got = 0;
        fst_tensor t = {"x", cases[i].dtype, {0}, cases[i].data};
        assert_int_equal(fst_safetensors_write(path, NULL, 0, &t, 1, NULL, NULL), FST_OK);
        assert_int_equal(fst_safetensors_open(&f, path, NULL), FST_OK);
        assert_int_equal(fst_safetensors_read_f32(f, 0, &got, 1, NULL), FST_OK);
        assert_true(got == cases[i].want);
        fst_safetensors_free(f);
    }
}

static void long_tensors_are_converted_in_blocks(void **state)
{
    enum { N = 5000 };
    static double x[N];
    static float y[N];
    fst_safetensors *f = NULL;
    (void)state;
    for (int i = 0; i < N; i++)
        x[i] = i * 0.5;
    fst_tensor t = {"x", FST_F64, FST_SHAPE(N), x};
    assert_int_equal(fst_safetensors_write(path, NULL, 0, &t, 1, NULL, NULL), FST_OK);
    assert_int_equal(fst_safetensors_open(&f, path, NULL), FST_OK);
    assert_int_equal(fst_safetensors_read_f32(f, 0, y, N, NULL), FST_OK);
    for (int i = 0; i < N; i++)
        assert_true(y[i] == (float)i * 0.5f);
    fst_safetensors_free(f);
}

/* A file over memory: 8 bytes of length, the header, `data` bytes of zeros; from an exact copy. */
static fst_status open_text(fst_safetensors **f, const char *header, uint64_t len, size_t data, unsigned char **bytes,
                            fst_error *err)
{
    size_t n = strlen(header);
    unsigned char *b = calloc(1, 8 + n + data);
    for (int i = 0; i < 8; i++)
        b[i] = (unsigned char)(len >> 8 * i);
    memcpy(b + 8, header, n);
    *bytes = b;
    return fst_safetensors_open_memory(f, "bytes", b, 8 + n + data, err);
}

static void bad_headers_are_refused(void **state)
{
    static const struct {
        const char *header;
        size_t data;
        const char *text;
    } cases[] = {
        {"", 0, "not a JSON object"},
        {"[]", 0, "not a JSON object"},
        {"{\"x\":1}", 0, "unknown dtype"},
        {"{\"x\":{\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "unknown dtype"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":1,\"data_offsets\":[0,4]}}", 4, "shape must be a list"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "shape must be"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "dimension 0"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, "dimension 0"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 4, "do not lie inside"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 4, "do not lie inside"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 4, "do not lie inside"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 4, "do not lie inside"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "do not lie inside"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,4]}}", 4, "do not fit its shape"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904,4],\"data_offsets\":[0,4]}}", 4, "do not fit"},
        {"{\"x\":{\"dtype\":\"F32\",\"shape\":[4611686018427387905],\"data_offsets\":[0,4]}}", 4, "do not fit"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[0,3]},"
         "\"y\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[2,4]}}",
         4, "overlap"},
        {"{\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
         "\"x\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
         2, "not a JSON object"},
        {"{\"__metadata__\":[]}", 0, "__metadata__ is not"},
        {"{\"__metadata__\":{\"a\":1}}", 0, "entry \"a\" is not a string"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_safetensors *f = NULL;
        fst_error e = {0};
        unsigned char *bytes;
        fst_status s = open_text(&f, cases[i].header, strlen(cases[i].header), cases[i].data, &bytes, &e);
        if (s != FST_E_FORMAT || !strstr(e.message, cases[i].text))
            fail_msg("case %zu: status %s, \"%s\"", i, fst_status_name(s), e.message);
        assert_null(f);
        free(bytes);
    }
}

static void complex_tensors_become_planes(void **state)
{
    static const char header[] = "{\"x\":{\"dtype\":\"C64\",\"shape\":[1,2],\"data_offsets\":[0,16]}}";
    static const float pairs[4] = {1, -1, 2, -2}, planes[4] = {1, 2, -1, -2};
    fst_safetensors *f = NULL;
    unsigned char *bytes;
    float x[4];
    (void)state;
    assert_int_equal(open_text(&f, header, sizeof header - 1, 16, &bytes, NULL), FST_OK);
    memcpy(bytes + 8 + sizeof header - 1, pairs, sizeof pairs);
    fst_tensor t = fst_safetensors_at(f, 0);
    assert_int_equal(t.dtype, FST_F32);
    assert_true(fst_shape_equal(&t.shape, &FST_SHAPE(1, 2, 2)));
    assert_int_equal(fst_safetensors_read(f, 0, x, sizeof x, NULL), FST_OK);
    assert_memory_equal(x, planes, sizeof x);
    memset(x, 0, sizeof x);
    assert_int_equal(fst_safetensors_read_f32(f, 0, x, 4, NULL), FST_OK);
    assert_memory_equal(x, planes, sizeof x);
    fst_safetensors_free(f);
    free(bytes);
}

static void whole_numbers_may_have_a_point(void **state)
{
    static const char header[] = "{\"x\":{\"dtype\":\"U8\",\"shape\":[2.0,1e0],\"data_offsets\":[0.0,2E+0]}}";
    fst_safetensors *f = NULL;
    unsigned char *bytes;
    (void)state;
    assert_int_equal(open_text(&f, header, sizeof header - 1, 2, &bytes, NULL), FST_OK);
    fst_tensor t = fst_safetensors_at(f, 0);
    assert_true(fst_shape_equal(&t.shape, &FST_SHAPE(2, 1)));
    fst_safetensors_free(f);
    free(bytes);
}

static void lengths_are_checked(void **state)
{
    static const uint64_t lengths[] = {3, 1000, (uint64_t)1 << 40, UINT64_MAX};
    (void)state;
    for (int i = 0; i < 4; i++) {
        fst_safetensors *f = NULL;
        unsigned char *bytes;
        assert_int_equal(open_text(&f, "{}", lengths[i], 0, &bytes, NULL), FST_E_FORMAT);
        free(bytes);
    }
    fst_safetensors *f = NULL;
    for (size_t n = 0; n < 8; n++)
        assert_int_equal(fst_safetensors_open_memory(&f, "short", "\0\0\0\0\0\0\0", n, NULL), FST_E_FORMAT);
    assert_null(f);
}

static void small_but_right_files_are_read(void **state)
{
    fst_safetensors *f = NULL;
    unsigned char *bytes;
    (void)state;
    assert_int_equal(open_text(&f, "{}", 2, 0, &bytes, NULL), FST_OK);
    assert_int_equal(fst_safetensors_count(f), 0);
    assert_null(fst_safetensors_meta(f, "a"));
    fst_safetensors_free(f);
    free(bytes);
    static const char empty[] = "{\"x\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[0,0]}}  ";
    assert_int_equal(open_text(&f, empty, strlen(empty), 0, &bytes, NULL), FST_OK);
    assert_int_equal(fst_safetensors_count(f), 1);
    assert_int_equal(fst_safetensors_read(f, 0, u8, 0, NULL), FST_OK);
    fst_safetensors_free(f);
    free(bytes);
}

static void failures_leave_nothing_behind(void **state)
{
    fst_safetensors *f = NULL;
    fst_tensor bad = {"\xFF", FST_U8, FST_SHAPE(3), u8};
    (void)state;
    unlink(path);
    assert_int_equal(fst_safetensors_write(path, NULL, 0, &bad, 1, NULL, NULL), FST_E_ARGUMENT);
    assert_false(fst_file_exists(path));
    assert_int_equal(fst_safetensors_open(&f, path, NULL), FST_E_IO);
    assert_int_equal(fst_safetensors_open(&f, folder, NULL), FST_E_IO);
    write_three(NULL, false);
    for (uint64_t n = 1;; n++) {
        fst_alloc_fail_at(n);
        fst_status s = fst_safetensors_open(&f, path, NULL);
        fst_alloc_fail_at(0);
        if (!s)
            break;
        assert_int_equal(s, FST_E_MEMORY);
        assert_null(f);
    }
    fst_safetensors_free(f);
}

/* Reading the pairs one by one takes neither memory nor a search for each of them. */
static void many_pairs_are_read_in_order(void **state)
{
    enum { PAIRS = 20000 };
    static char text[PAIRS * 20 + 64];
    fst_safetensors *f = NULL;
    fst_pair pair;
    size_t at = 8, n = 0;
    char last[16] = "";
    (void)state;
    at += (size_t)sprintf(text + at, "{\"__metadata__\":{");
    for (int i = 0; i < PAIRS; i++)
        at += (size_t)sprintf(text + at, "%s\"k%d\":\"v\"", i ? "," : "", (i * 7919) % PAIRS);
    at += (size_t)sprintf(text + at, "}}");
    for (int i = 0; i < 8; i++)
        text[i] = (char)((at - 8) >> 8 * i & 255);
    assert_int_equal(fst_safetensors_open_memory(&f, "m", text, at, NULL), FST_OK);
    uint64_t before = fst_alloc_count();
    for (; fst_safetensors_meta_at(f, n, &pair); n++) {
        assert_true(strcmp(last, pair.key) < 0);
        snprintf(last, sizeof last, "%s", pair.key);
    }
    assert_int_equal(n, PAIRS);
    assert_int_equal(fst_alloc_count() - before, 0);
    fst_safetensors_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tensors_come_back),
        cmocka_unit_test(metadata_comes_back),
        cmocka_unit_test(bytes_do_not_depend_on_order),
        cmocka_unit_test(every_number_becomes_a_float),
        cmocka_unit_test(long_tensors_are_converted_in_blocks),
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(complex_tensors_become_planes),
        cmocka_unit_test(whole_numbers_may_have_a_point),
        cmocka_unit_test(lengths_are_checked),
        cmocka_unit_test(small_but_right_files_are_read),
        cmocka_unit_test(failures_leave_nothing_behind),
        cmocka_unit_test(many_pairs_are_read_in_order),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* npy and npz: files made by hand after NumPy's format description, round trips, and bad files. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zip.h>

#include <cmocka.h>

#include "npy_private.h"

static char folder[512], path[600];

static int set_up(void **state)
{
    const char *base = getenv("TMPDIR");
    (void)state;
    snprintf(folder, sizeof folder, "%s/fedstill-npy-XXXXXX", base ? base : "/tmp");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/file", folder);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder);
}

/* One npy file: header of the version, dictionary, data. */
struct file {
    unsigned char bytes[4096];
    size_t len;
};

static struct file npy(int version, const char *dictionary, const void *data, size_t len)
{
    struct file f = {{0x93, 'N', 'U', 'M', 'P', 'Y', (unsigned char)version, 0}, 8};
    size_t n = strlen(dictionary), width = version == 1 ? 2 : 4;
    for (size_t i = 0; i < width; i++)
        f.bytes[f.len++] = (unsigned char)(n >> 8 * i);
    memcpy(f.bytes + f.len, dictionary, n);
    f.len += n;
    if (len)
        memcpy(f.bytes + f.len, data, len);
    f.len += len;
    return f;
}

/* From an exact copy, so that a sanitizer sees a read after the end. */
static fst_status parse(fst_array *out, const struct file *f, fst_error *err)
{
    unsigned char *exact = malloc(f->len ? f->len : 1);
    memcpy(exact, f->bytes, f->len);
    fst_status s = fst_npy_parse(out, "bytes", exact, f->len, 1 << 20, err);
    free(exact);
    return s;
}

static void check(struct file f, fst_dtype dtype, const fst_shape *shape, const void *data)
{
    fst_array a = {0};
    fst_error e = {0};
    if (parse(&a, &f, &e))
        fail_msg("%s", e.message);
    assert_int_equal(a.dtype, dtype);
    assert_true(fst_shape_equal(&a.shape, shape));
    assert_memory_equal(a.data, data, (size_t)fst_shape_count(shape) * fst_dtype_size(dtype));
    assert_string_equal(a.name, "");
    fst_array_release(&a);
}

static void refused(struct file f, fst_status want, const char *text)
{
    fst_array a = {.name = (char *)(uintptr_t) "untouched"};
    fst_error e = {0};
    fst_status s = parse(&a, &f, &e);
    if (s != want || !strstr(e.message, text))
        fail_msg("status %s, \"%s\"; wanted %s with \"%s\"", fst_status_name(s), e.message, fst_status_name(want),
                 text);
    assert_string_equal(a.name, "untouched");
}

static void versions_are_read(void **state)
{
    static const unsigned char data[6] = {1, 2, 3, 4, 5, 6};
    (void)state;
    for (int v = 1; v <= 3; v++)
        check(npy(v, "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 3), }           \n", data, 6), FST_U8,
              &FST_SHAPE(2, 3), data);
}

static void spellings_are_read(void **state)
{
    static const unsigned char data[3] = {1, 2, 3};
    fst_shape three = FST_SHAPE(3);
    (void)state;
    check(npy(1, "{\"shape\":(3,),\"descr\":\"<u1\",\"fortran_order\":True}", data, 3), FST_U8, &three, data);
    check(npy(1, "{'descr': '>u1', 'fortran_order': False, 'shape': (3L,)}\n", data, 3), FST_U8, &three, data);
    check(npy(1, " { 'descr' : '=u1' , 'fortran_order' : False , 'shape' : ( 3 , ) , } ", data, 3), FST_U8, &three,
          data);
    check(npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (), }", data, 1), FST_U8, &(fst_shape){0}, data);
    check(npy(1, "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 3), }", data, 0), FST_F64, &FST_SHAPE(0, 3),
          data);
}

static void big_endian_is_turned(void **state)
{
    static const unsigned char be16[4] = {0x01, 0x02, 0xFF, 0xFE}, be64[8] = {0, 0, 0, 0, 0, 0, 1, 2};
    static const unsigned char be32[8] = {0x3F, 0x80, 0, 0, 0xC0, 0x40, 0, 0}; /* 1, -3 */
    (void)state;
    check(npy(1, "{'descr': '>i2', 'fortran_order': False, 'shape': (2,), }", be16, 4), FST_I16, &FST_SHAPE(2),
          (int16_t[]){258, -2});
    check(npy(1, "{'descr': '>f4', 'fortran_order': False, 'shape': (2,), }", be32, 8), FST_F32, &FST_SHAPE(2),
          (float[]){1, -3});
    check(npy(1, "{'descr': '>u8', 'fortran_order': False, 'shape': (), }", be64, 8), FST_U64, &(fst_shape){0},
          (uint64_t[]){258});
}

static void fortran_order_is_turned(void **state)
{
    /* element (i, j, k) of a (2, 3, 4) array holds 100 i + 10 j + k; the first index runs fastest */
    uint16_t columns[24], rows[24];
    (void)state;
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 3; j++)
            for (int k = 0; k < 4; k++) {
                columns[i + 2 * j + 6 * k] = (uint16_t)(100 * i + 10 * j + k);
                rows[12 * i + 4 * j + k] = (uint16_t)(100 * i + 10 * j + k);
            }
    check(npy(1, "{'descr': '<u2', 'fortran_order': True, 'shape': (2, 3, 4), }", columns, 48), FST_U16,
          &FST_SHAPE(2, 3, 4), rows);
    /* (2, 2), big-endian too */
    static const unsigned char both[8] = {0, 1, 0, 3, 0, 2, 0, 4};
    check(npy(2, "{'descr': '>i2', 'fortran_order': True, 'shape': (2, 2), }", both, 8), FST_I16, &FST_SHAPE(2, 2),
          (int16_t[]){1, 2, 3, 4});
    check(npy(1, "{'descr': '<u2', 'fortran_order': True, 'shape': (2, 0), }", both, 0), FST_U16, &FST_SHAPE(2, 0),
          rows);
}

/* Complex numbers become real parts and imaginary parts, in rows of their own. */
static void complex_numbers_become_planes(void **state)
{
    static const float pairs[12] = {1, -1, 2, -2, 3, -3, 4, -4, 5, -5, 6, -6};
    static const float rows[12] = {1, 2, 3, -1, -2, -3, 4, 5, 6, -4, -5, -6};
    static const float columns[12] = {1, -1, 4, -4, 2, -2, 5, -5, 3, -3, 6, -6};
    static const double wide[4] = {0.5, -0.25, 8, 16}, wide_rows[4] = {0.5, 8, -0.25, 16};
    static const unsigned char be[8] = {0x3F, 0x80, 0, 0, 0xC0, 0x40, 0, 0}; /* 1 - 3j */
    static const float tall[20] = {0, 10, 1, 11, 2, 12, 3, 13, 4, 14, 5, 15, 6, 16, 7, 17, 8, 18, 9, 19};
    static const float tall_planes[20] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
    (void)state;
    check(npy(1, "{'descr': '<c8', 'fortran_order': False, 'shape': (2, 3), }", pairs, 48), FST_F32,
          &FST_SHAPE(2, 2, 3), rows);
    check(npy(1, "{'descr': '<c8', 'fortran_order': True, 'shape': (2, 3), }", columns, 48), FST_F32,
          &FST_SHAPE(2, 2, 3), rows);
    check(npy(1, "{'descr': '<c16', 'fortran_order': False, 'shape': (1, 2), }", wide, 32), FST_F64,
          &FST_SHAPE(1, 2, 2), wide_rows);
    check(npy(1, "{'descr': '>c8', 'fortran_order': False, 'shape': (1,), }", be, 8), FST_F32, &FST_SHAPE(1, 2),
          (float[]){1, -3});
    check(npy(1, "{'descr': '>c8', 'fortran_order': False, 'shape': (), }", be, 8), FST_F32, &FST_SHAPE(2),
          (float[]){1, -3});
    /* channels that are there stay, two for each: (1, 2, 3) is (1, 4, 3); five rows are an image */
    check(npy(1, "{'descr': '<c8', 'fortran_order': False, 'shape': (1, 2, 3), }", pairs, 48), FST_F32,
          &FST_SHAPE(1, 4, 3), rows);
    check(npy(1, "{'descr': '<c8', 'fortran_order': False, 'shape': (1, 1, 2, 3), }", pairs, 48), FST_F32,
          &FST_SHAPE(1, 2, 2, 3), (float[]){1, 2, 3, 4, 5, 6, -1, -2, -3, -4, -5, -6});
    check(npy(1, "{'descr': '<c8', 'fortran_order': False, 'shape': (1, 5, 2), }", tall, 80), FST_F32,
          &FST_SHAPE(1, 2, 5, 2), tall_planes);
    check(npy(1, "{'descr': '<c8', 'fortran_order': False, 'shape': (0, 3), }", pairs, 0), FST_F32, &FST_SHAPE(0, 2, 3),
          rows);
}

static void bad_headers_are_refused(void **state)
{
    static const unsigned char d[64];
    static const struct {
        const char *dictionary;
        size_t len;
        fst_status status;
        const char *text;
    } cases[] = {
        {"", 0, FST_E_FORMAT, "a dictionary is expected"},
        {"{}", 0, FST_E_FORMAT, "are needed"},
        {"{'descr': '<f4', 'shape': (1,), }", 4, FST_E_FORMAT, "are needed"},
        {"{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}", 4, FST_E_FORMAT, "there twice"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}", 4, FST_E_FORMAT, "'more' is unknown"},
        {"{'descr': '<f4', 'fortran_order': 0, 'shape': (1,), }", 4, FST_E_FORMAT, "True or False"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1), }", 4, FST_E_FORMAT, "its comma"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': 1, }", 4, FST_E_FORMAT, "must be a tuple"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (-1,), }", 4, FST_E_FORMAT, "not a whole number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1 1), }", 4, FST_E_FORMAT, "comma or )"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,", 4, FST_E_FORMAT, "not a whole number"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,1,1,1,1,1,1,1,1), }", 4, FST_E_FORMAT, "too many"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 4, FST_E_FORMAT, "whole"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4), }", 4, FST_E_FORMAT,
         "any memory"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (2,), }", 4, FST_E_FORMAT, "needs 8 bytes of data, 4 are"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }", 5, FST_E_FORMAT, "needs 4 bytes of data, 5 are"},
        {"{'descr': '<f4', 'fortran_order': False, 'shape': (1,), } x", 4, FST_E_FORMAT, "something follows"},
        {"{'descr': '|f4', 'fortran_order': False, 'shape': (1,), }", 4, FST_E_FORMAT, "byte order"},
        {"{'descr': 'f4', 'fortran_order': False, 'shape': (1,), }", 4, FST_E_FORMAT, "a type such as"},
        {"{'descr': '', 'fortran_order': False, 'shape': (1,), }", 4, FST_E_FORMAT, "a type such as"},
        {"{'descr': '<f4, 'fortran_order': False, 'shape': (1,), }", 4, FST_E_UNSUPPORTED, "are not read"},
        {"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }", 8, FST_E_UNSUPPORTED, "pickle"},
        {"{'descr': '<U3', 'fortran_order': False, 'shape': (1,), }", 12, FST_E_UNSUPPORTED, "numpy.unique(labels,"},
        {"{'descr': '|S4', 'fortran_order': False, 'shape': (1,), }", 4, FST_E_UNSUPPORTED, "texts ('|S4')"},
        {"{'descr': '<c32', 'fortran_order': False, 'shape': (1,), }", 32, FST_E_UNSUPPORTED, "'<c32' are not read"},
        {"{'descr': '|c8', 'fortran_order': False, 'shape': (1,), }", 8, FST_E_FORMAT, "byte order"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (2,), }", 8, FST_E_FORMAT, "needs 16 bytes of data, 8 are"},
        {"{'descr': '<c8', 'fortran_order': False, 'shape': (4611686018427387904,), }", 8, FST_E_FORMAT, "any memory"},
        {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }", 4, FST_E_UNSUPPORTED, "structured"},
        {"__import__('os')", 4, FST_E_FORMAT, "a dictionary is expected"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        refused(npy(1, cases[i].dictionary, d, cases[i].len), cases[i].status, cases[i].text);
    struct file f = npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", d, 1);
    struct file g = f;
    g.bytes[0] = 'N';
    refused(g, FST_E_FORMAT, "does not begin");
    g = f;
    g.bytes[6] = 4;
    refused(g, FST_E_UNSUPPORTED, "version 4.0");
    g = f;
    g.bytes[20] = 0;
    refused(g, FST_E_FORMAT, "NUL");
    g = npy(2, "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", d, 1);
    g.bytes[11] = 0x7F;
    refused(g, FST_E_LIMIT, "header of 2130706");
    for (size_t n = 0; n < f.len; n++) {
        g = f;
        g.len = n;
        refused(g, FST_E_FORMAT, "");
    }
}

static void limits_come_before_memory(void **state)
{
    static const unsigned char d[64];
    struct file f = npy(1, "{'descr': '|u1', 'fortran_order': False, 'shape': (64,), }", d, 64);
    fst_array a = {0};
    fst_error e = {0};
    (void)state;
    assert_int_equal(fst_npy_parse(&a, "bytes", f.bytes, f.len, 63, &e), FST_E_LIMIT);
    assert_non_null(strstr(e.message, "64 bytes, at most 63"));
    assert_null(a.data);
}

static const fst_dtype writable[] = {FST_F32, FST_F64, FST_F16, FST_U8,  FST_I8,  FST_U16,
                                     FST_I16, FST_U32, FST_I32, FST_U64, FST_I64, FST_BOOL};

static void every_type_comes_back(void **state)
{
    static const fst_shape shapes[] = {{0}, {1, {5}}, {3, {1, 2, 3}}, {8, {1, 1, 1, 2, 1, 1, 1, 3}}, {2, {0, 7}}};
    unsigned char data[6 * 8];
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 37 + 1);
    for (size_t t = 0; t < sizeof writable / sizeof *writable; t++)
        for (size_t k = 0; k < sizeof shapes / sizeof *shapes; k++) {
            fst_array a = {0};
            assert_int_equal(fst_npy_write(path, &(fst_tensor){"", writable[t], shapes[k], data}, NULL), FST_OK);
            assert_int_equal(fst_npy_read(&a, path, 1 << 20, NULL), FST_OK);
            assert_int_equal(a.dtype, writable[t]);
            assert_true(fst_shape_equal(&a.shape, &shapes[k]));
            size_t bytes = (size_t)fst_shape_count(&shapes[k]) * fst_dtype_size(writable[t]);
            assert_memory_equal(a.data, data, bytes);
            fst_array_release(&a);
        }
}

/* The very bytes that numpy.save writes for numpy.array([[1, 2], [3, 4]], '<i4'). */
static void bytes_are_numpys(void **state)
{
    static const char dictionary[] = "{'descr': '<i4', 'fortran_order': False, 'shape': (2, 2), }";
    static const int32_t data[4] = {1, 2, 3, 4};
    fst_buf file = {0};
    (void)state;
    assert_int_equal(fst_npy_write(path, &(fst_tensor){"", FST_I32, FST_SHAPE(2, 2), (void *)(uintptr_t)data}, NULL),
                     FST_OK);
    assert_int_equal(fst_file_read(path, 4096, &file, NULL), FST_OK);
    assert_int_equal(file.len, 128 + 16);
    assert_memory_equal(file.data, "\x93NUMPY\x01\x00\x76\x00", 10);
    assert_memory_equal(file.data + 10, dictionary, sizeof dictionary - 1);
    for (size_t i = 10 + sizeof dictionary - 1; i < 127; i++)
        assert_int_equal(file.data[i], ' ');
    assert_int_equal(file.data[127], '\n');
    assert_memory_equal(file.data + 128, data, 16);
    fst_buf_release(&file);
}

static void files_have_errors_too(void **state)
{
    fst_array a = {0};
    fst_error e = {0};
    float x = 1;
    (void)state;
    assert_int_equal(fst_npy_read(&a, "/nowhere/x.npy", 100, &e), FST_E_IO);
    assert_non_null(strstr(e.message, "/nowhere/x.npy"));
    assert_int_equal(fst_npy_read(&a, folder, 100, &e), FST_E_IO);
    assert_int_equal(fst_npy_write("/nowhere/x.npy", &(fst_tensor){"", FST_F32, FST_SHAPE(1), &x}, &e), FST_E_IO);
    assert_int_equal(fst_npy_write(path, &(fst_tensor){"", FST_BF16, FST_SHAPE(1), &x}, &e), FST_E_UNSUPPORTED);
    assert_int_equal(fst_npy_write(path, &(fst_tensor){"", FST_F32, FST_SHAPE(-1), &x}, &e), FST_E_ARGUMENT);
    assert_int_equal(fst_npz_read(&a, "/nowhere/x.npz", "x", 100, &e), FST_E_IO);
    fst_array_release(&a);
    fst_array_release(NULL);
}

/* ---- npz ------------------------------------------------------------------------------------ */

static const char u1x3[] = "{'descr': '|u1', 'fortran_order': False, 'shape': (3,), }";

static void add(zip_t *z, const char *name, const void *data, size_t len, int method)
{
    zip_int64_t at = zip_file_add(z, name, zip_source_buffer(z, data, len, 0), 0);
    assert_true(at >= 0);
    assert_int_equal(zip_set_file_compression(z, (zip_uint64_t)at, method, 0), 0);
}

/* The archive as bytes; free it. */
static unsigned char *archive(size_t *len)
{
    static struct file a, b;
    int code;
    fst_buf file = {0};
    a = npy(1, u1x3, "\1\2\3", 3);
    b = npy(1, u1x3, "\4\5\6", 3);
    zip_t *z = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &code);
    assert_non_null(z);
    add(z, "images.npy", a.bytes, a.len, ZIP_CM_DEFLATE);
    add(z, "labels.npy", b.bytes, b.len, ZIP_CM_STORE);
    add(z, "notes.txt", "hello", 5, ZIP_CM_STORE);
    add(z, ".npy", b.bytes, b.len, ZIP_CM_STORE);
    assert_int_equal(zip_close(z), 0);
    assert_int_equal(fst_file_read(path, 1 << 16, &file, NULL), FST_OK);
    unsigned char *copy = malloc(file.len);
    memcpy(copy, file.data, file.len);
    *len = file.len;
    fst_buf_release(&file);
    return copy;
}

static void members_are_read(void **state)
{
    size_t len = 0, count = 0;
    unsigned char *bytes = archive(&len);
    char **names = NULL;
    fst_array a = {0};
    fst_error e = {0};
    (void)state;
    assert_int_equal(fst_npz_read(&a, path, "images", 100, &e), FST_OK);
    assert_string_equal(a.name, "images");
    assert_memory_equal(a.data, "\1\2\3", 3);
    fst_array_release(&a);
    assert_int_equal(fst__npz_read_memory(&a, "m", bytes, len, "labels", NULL, 3, &e), FST_OK);
    assert_memory_equal(a.data, "\4\5\6", 3);
    fst_array_release(&a);
    assert_int_equal(fst_npz_read(&a, path, "labels", 2, &e), FST_E_LIMIT);
    assert_int_equal(fst_npz_read(&a, path, "notes", 100, &e), FST_E_FORMAT);
    assert_non_null(strstr(e.message, "no array \"notes\""));
    assert_int_equal(fst_npz_list(path, &names, &count, &e), FST_OK);
    assert_int_equal(count, 2);
    assert_string_equal(names[0], "images");
    assert_string_equal(names[1], "labels");
    fst_free(names);
    free(bytes);
}

static unsigned char *find(unsigned char *bytes, size_t len, const void *what, size_t n)
{
    unsigned char *p = memmem(bytes, len, what, n);
    assert_non_null(p);
    return p;
}

static void damaged_archives_are_refused(void **state)
{
    size_t len = 0;
    unsigned char *bytes = archive(&len);
    fst_array a = {0};
    fst_error e = {0};
    (void)state;
    for (size_t n = 0; n < len; n++)
        assert_int_not_equal(fst__npz_read_memory(&a, "cut", bytes, n, "images", NULL, 100, &e), FST_OK);
    /* stored data that changed: the checksum tells */
    unsigned char *data = find(bytes, len, "\4\5\6", 3);
    data[0] ^= 1;
    assert_int_equal(fst__npz_read_memory(&a, "rot", bytes, len, "labels", NULL, 100, &e), FST_E_FORMAT);
    assert_non_null(strstr(e.message, "damaged"));
    data[0] ^= 1;
    /* the directory promises 1 GB for the deflated member (entry: signature, ..., size at 24) */
    unsigned char *entry = find(bytes, len, "PK\1\2", 4);
    memcpy(entry + 24, "\0\0\0\x40", 4);
    assert_int_equal(fst__npz_read_memory(&a, "lie", bytes, len, "images", NULL, SIZE_MAX, &e), FST_E_FORMAT);
    assert_null(a.data);
    free(bytes);
}

static void memory_may_run_out(void **state)
{
    struct file f = npy(1, "{'descr': '<u2', 'fortran_order': True, 'shape': (2, 2), }", "abcdefgh", 8);
    (void)state;
    for (uint64_t n = 1; n < 100; n++) {
        fst_array a = {0};
        fst_alloc_fail_at(n);
        fst_status s = parse(&a, &f, NULL);
        fst_alloc_fail_at(0);
        if (!s) {
            assert_true(n > 3);
            fst_array_release(&a);
            return;
        }
        assert_int_equal(s, FST_E_MEMORY);
        assert_null(a.data);
    }
    fail_msg("it never succeeded");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(versions_are_read),
        cmocka_unit_test(spellings_are_read),
        cmocka_unit_test(big_endian_is_turned),
        cmocka_unit_test(fortran_order_is_turned),
        cmocka_unit_test(complex_numbers_become_planes),
        cmocka_unit_test(bad_headers_are_refused),
        cmocka_unit_test(limits_come_before_memory),
        cmocka_unit_test(every_type_comes_back),
        cmocka_unit_test(bytes_are_numpys),
        cmocka_unit_test(files_have_errors_too),
        cmocka_unit_test(members_are_read),
        cmocka_unit_test(damaged_archives_are_refused),
        cmocka_unit_test(memory_may_run_out),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

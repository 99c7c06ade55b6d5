/* Every format through the conformance suite, and what all sources share. */
#define _GNU_SOURCE
#include "conformance.h"
#include "formats.h"

enum { N = 5, IDX_BYTES = 3 * 4 };

/* Sample 3 repeats sample 0. */
static void pattern(unsigned char *x, size_t bytes)
{
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < bytes; j++)
            x[i * bytes + j] = (unsigned char)((i == 3 ? 0 : i) * 50 + j * 7);
}

static const int32_t labels[N] = {2, 0, 1, 4, 0};
static const unsigned char label_bytes[N] = {2, 0, 1, 4, 0};

static void put_idx(const char *folder, bool zip)
{
    unsigned char x[N * IDX_BYTES], file[256], packed[512];
    char name[128];
    pattern(x, IDX_BYTES);
    for (int i = 0; i < 2; i++) {
        size_t n = i ? idx_bytes(file, 1, (uint32_t[]){N}, label_bytes, N)
                     : idx_bytes(file, 3, (uint32_t[]){N, 3, 4}, x, sizeof x);
        size_t m = gzip_bytes(packed, sizeof packed, file, n);
        snprintf(name, sizeof name, "%s/train-%s%s", folder, i ? "labels-idx1-ubyte" : "images-idx3-ubyte",
                 zip ? ".gz" : "");
        put_file(name, zip ? packed : file, zip ? m : n);
    }
}

static void idx_conforms(void **state)
{
    unsigned char x[N * IDX_BYTES];
    struct expected want = {FST_U8, FST_SHAPE(1, 3, 4), N, 5, x, labels};
    (void)state;
    pattern(x, IDX_BYTES);
    put_idx("idx-plain", false);
    conformance(&(fst_source_spec){.format = "idx", .path = in_work("idx-plain")}, &want);
    put_idx("idx-gzip", true);
    conformance(&(fst_source_spec){.format = "idx", .path = in_work("idx-gzip")}, &want);
}

static void cifar10_conforms(void **state)
{
    static unsigned char x[N * 3072], file[2 * 3073];
    static const int32_t all[N] = {2, 0, 1, 4, 9};
    (void)state;
    pattern(x, 3072);
    for (size_t i = 0; i < N; i++) {
        char name[64];
        snprintf(name, sizeof name, "cifar/data_batch_%zu.bin", i + 1);
        file[0] = (unsigned char)all[i];
        memcpy(file + 1, x + i * 3072, 3072);
        put_file(name, file, 3073);
    }
    conformance(&(fst_source_spec){.format = "cifar10", .path = in_work("cifar")},
                &(struct expected){FST_U8, FST_SHAPE(3, 32, 32), N, 10, x, all});
}

static void folder_conforms(void **state)
{
    /* grey images; the classes' names sort to 0, 1, 2, and the files' within a class */
    static const char *const names[N] = {"ant/1.png", "ant/2.PNG", "bee/a.png", "bee/b.png", "cat/z.png"};
    static const int32_t classes[N] = {0, 0, 1, 1, 2};
    unsigned char x[N * 30];
    (void)state;
    pattern(x, 30);
    for (int i = N - 1; i >= 0; i--) {
        char name[64];
        snprintf(name, sizeof name, "folder/%s", names[i]);
        put_png(name, 1, 6, 5, x + 30 * i);
    }
    put_file("folder/bee/notes.txt", "not an image", 12);
    put_file("folder/.hidden/1.png", "not an image", 12);
    conformance(&(fst_source_spec){.format = "folder", .path = in_work("folder"), .image_channels = 1},
                &(struct expected){FST_U8, FST_SHAPE(1, 5, 6), N, 3, x, classes});
}

static void array_conforms(void **state)
{
    float x[N * 8];
    int64_t y[N];
    (void)state;
    for (size_t i = 0; i < N; i++) {
        y[i] = labels[i];
        for (size_t j = 0; j < 8; j++)
            x[8 * i + j] = (float)(i == 3 ? 0 : i) - 0.25f * (float)j;
    }
    fst_tensor t[2] = {{"x", FST_F32, FST_SHAPE(N, 2, 4), x}, {"y", FST_I64, FST_SHAPE(N), y}};
    struct expected want = {FST_F32, FST_SHAPE(2, 4), N, 5, x, labels};
    assert_ok(fst_safetensors_write(in_work("a.safetensors"), NULL, 0, t, 2, NULL, err));
    conformance(&(fst_source_spec){.format = "array", .path = in_work("a.safetensors")}, &want);
    assert_ok(fst_make_folders(in_work("npy"), err));
    assert_ok(fst_npy_write(in_work("npy/x.npy"), &t[0], err));
    assert_ok(fst_npy_write(in_work("npy/y.npy"), &t[1], err));
    conformance(&(fst_source_spec){.format = "array", .path = in_work("npy")}, &want);
    conformance(&(fst_source_spec){.format = "array", .path = in_work("npy/x.npy")}, &want);
}

/* The digest is documented: it must not change from release to release, nor by platform. Computed with
 * hashlib.sha256(b"U8 (1, 2) 2\n" + b"\1\0\0\0\0\0\0\0" + bytes([7, 8, 9, 255])). */
static void digest_is_as_documented(void **state)
{
    static const unsigned char x[4] = {7, 8, 9, 255};
    static const int32_t y[2] = {1, 0};
    fst_source *s = NULL;
    (void)state;
    assert_ok(fst_source_from_memory(&s, "m", FST_U8, &FST_SHAPE(1, 2), 2, x, y, 0, err));
    assert_string_equal(s->digest, "10e4c29c365c142ad1acbe2bee5014978d5741dd80727f3e876042236fd0af56");
    assert_int_equal(s->classes, 2);
    fst_source_close(s);
}

static void keys_know_type_and_shape(void **state)
{
    static const float x[4] = {1, 2, 3, 4};
    static const int32_t y[1] = {0};
    static const fst_shape shapes[3] = {{1, {4}}, {2, {2, 2}}, {1, {16}}};
    fst_hash128 keys[3];
    (void)state;
    for (int i = 0; i < 3; i++) {
        fst_source *s = NULL;
        assert_ok(fst_source_from_memory(&s, "m", i == 2 ? FST_U8 : FST_F32, &shapes[i], 1, x, y, 1, err));
        assert_ok(fst_source_key(s, 0, &keys[i], err));
        fst_source_close(s);
    }
    assert_false(same_key(keys[0], keys[1]));
    assert_false(same_key(keys[0], keys[2]));
    assert_false(same_key(keys[1], keys[2]));
}

static void memory_refuses_nonsense(void **state)
{
    static const unsigned char x[4];
    static const int32_t y[2] = {0, 3}, negative[2] = {-1, 0}, huge[2] = {0, FST_MAX_CLASSES};
    fst_source *s = NULL;
    fst_shape two = FST_SHAPE(2), none = FST_SHAPE(0), vast = FST_SHAPE(1 << 30, 1 << 30);
    (void)state;
    assert_fails(fst_source_from_memory(&s, "m", FST_I32, &two, 2, x, y, 4, err), FST_E_ARGUMENT, "I32");
    assert_fails(fst_source_from_memory(&s, "m", FST_U8, &two, 0, x, y, 4, err), FST_E_FORMAT, "no samples");
    assert_fails(fst_source_from_memory(&s, "m", FST_U8, &none, 2, x, y, 4, err), FST_E_FORMAT, "holds nothing");
    assert_fails(fst_source_from_memory(&s, "m", FST_U8, &vast, 2, x, y, 4, err), FST_E_LIMIT, "(1073741824");
    assert_fails(fst_source_from_memory(&s, "m", FST_U8, &two, 2, x, y, 3, err), FST_E_FORMAT,
                 "sample 1 has label 3, labels must be 0 ... 2");
    assert_fails(fst_source_from_memory(&s, "m", FST_U8, &two, 2, x, negative, 0, err), FST_E_FORMAT,
                 "sample 0 has label -1, labels must be 0 ... 65535");
    assert_fails(fst_source_from_memory(&s, "m", FST_U8, &two, 2, x, huge, 0, err), FST_E_FORMAT, "label 65536");
    assert_fails(fst_source_from_memory(&s, "m", FST_U8, &two, 2, x, y, FST_MAX_CLASSES + 1, err), FST_E_ARGUMENT,
                 "classes");
    assert_null(s);
}

static void opening_needs_a_known_thing(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put_file("unknown/readme.txt", "hello", 5);
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("unknown")}, err), FST_E_FORMAT,
                 "no data set that is known");
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = ""}, err), FST_E_ARGUMENT, "path");
    assert_fails(fst_source_open(&s, &(fst_source_spec){0}, err), FST_E_ARGUMENT, "path");
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("unknown"), .classes = -1}, err), FST_E_CONFIG,
                 "classes");
}

static void formats_are_listed(void **state)
{
    const char *const *names = fst_source_formats();
    fst_source *s = NULL;
    int n = 0;
    (void)state;
    for (; names[n]; n++) {
        fst_error e = {0};
        /* each is known: what fails is the path */
        assert_int_not_equal(fst_source_open(&s, &(fst_source_spec){.format = names[n], .path = "/nowhere/at/all"}, &e),
                             FST_OK);
        assert_null(strstr(e.message, "unknown data format"));
    }
    assert_int_equal(n, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(idx_conforms),
        cmocka_unit_test(cifar10_conforms),
        cmocka_unit_test(folder_conforms),
        cmocka_unit_test(array_conforms),
        cmocka_unit_test(digest_is_as_documented),
        cmocka_unit_test(keys_know_type_and_shape),
        cmocka_unit_test(memory_refuses_nonsense),
        cmocka_unit_test(opening_needs_a_known_thing),
        cmocka_unit_test(formats_are_listed),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}

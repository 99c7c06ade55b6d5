/* Checkpoints: exact values, and nothing loaded from one that is damaged, of other inputs or of another
 * shape. */
#define _GNU_SOURCE
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fedstill/store.h"
#include "scratch.h"

static float weights[6] = {1, -2, 3.5f, NAN, 1e-40f, 0};
static int64_t steps[1] = {123456789012345};
static uint8_t order[5] = {9, 8, 7, 6, 5};

static const fst_tensor tensors[] = {
    {"fc.weight", FST_F32, {2, {2, 3}}, weights},
    {"steps", FST_I64, {0, {0}}, steps},
    {"order", FST_U8, {1, {5}}, order},
    {"empty", FST_F32, {1, {0}}, NULL},
};
enum { TENSORS = sizeof tensors / sizeof *tensors };

static void must(fst_status s, const fst_error *err)
{
    if (s)
        fail_msg("%s", err->message);
}

static void write_sample(const char *name)
{
    fst_checkpoint_writer *w = NULL;
    fst_error err = {0};
    must(fst_checkpoint_writer_new(&w, "print-A", &err), &err);
    must(fst_checkpoint_add_all(w, tensors, TENSORS, &err), &err);
    must(fst_checkpoint_put_int(w, "epoch", INT64_MIN, &err), &err);
    must(fst_checkpoint_put_uint(w, "seed", UINT64_MAX, &err), &err);
    must(fst_checkpoint_put_double(w, "loss", 0.1, &err), &err);
    must(fst_checkpoint_put_text(w, "stage", "edge_kd", &err), &err);
    must(fst_checkpoint_write(w, scratch(name), NULL, &err), &err);
    fst_checkpoint_writer_free(w);
}

static void test_round_trip(void **state)
{
    (void)state;
    fst_checkpoint *c = NULL;
    fst_error err = {0};
    write_sample("round.ckpt");
    must(fst_checkpoint_open(&c, scratch("round.ckpt"), "print-A", &err), &err);
    assert_string_equal(fst_checkpoint_fingerprint(c), "print-A");
    assert_int_equal(fst_checkpoint_count(c), TENSORS);
    float w[6];
    int64_t n = 0;
    uint8_t o[5];
    fst_tensor wanted[] = {tensors[2], tensors[0], tensors[1], tensors[3]}; /* any order */
    wanted[0].data = o;
    wanted[1].data = w;
    wanted[2].data = &n;
    must(fst_checkpoint_load(c, wanted, 4, &err), &err);
    assert_memory_equal(w, weights, sizeof w);
    assert_memory_equal(o, order, sizeof o);
    assert_true(n == steps[0]);
    int64_t epoch = 0;
    uint64_t seed = 0;
    double loss = 0;
    const char *stage = NULL;
    must(fst_checkpoint_int(c, "epoch", &epoch, &err), &err);
    must(fst_checkpoint_uint(c, "seed", &seed, &err), &err);
    must(fst_checkpoint_double(c, "loss", &loss, &err), &err);
    must(fst_checkpoint_text(c, "stage", &stage, &err), &err);
    assert_true(epoch == INT64_MIN && seed == UINT64_MAX && loss == 0.1);
    assert_string_equal(stage, "edge_kd");
    for (size_t i = 0; i < TENSORS; i++) {
        fst_tensor t = fst_checkpoint_at(c, i);
        if (!strcmp(t.name, "order"))
            assert_memory_equal(t.data, order, sizeof order);
    }
    fst_checkpoint_free(c);
}

static void test_doubles_are_exact(void **state)
{
    (void)state;
    static const double values[] = {0.0,     -0.0,   1.0 / 3,  -1e-300,   DBL_MAX,  -DBL_MAX,
                                    DBL_MIN, 5e-324, INFINITY, -INFINITY, 4.9e-320, 123456789.125};
    enum { N = sizeof values / sizeof *values };
    fst_checkpoint_writer *w = NULL;
    fst_checkpoint *c = NULL;
    fst_error err = {0};
    char key[16];
    must(fst_checkpoint_writer_new(&w, "f", &err), &err);
    for (int i = 0; i < N; i++) {
        snprintf(key, sizeof key, "v%d", i);
        must(fst_checkpoint_put_double(w, key, values[i], &err), &err);
    }
    must(fst_checkpoint_put_double(w, "nan", -NAN, &err), &err);
    must(fst_checkpoint_write(w, scratch("doubles.ckpt"), NULL, &err), &err);
    fst_checkpoint_writer_free(w);
    must(fst_checkpoint_open(&c, scratch("doubles.ckpt"), NULL, &err), &err);
    for (int i = 0; i < N; i++) {
        double x = 77;
        snprintf(key, sizeof key, "v%d", i);
        must(fst_checkpoint_double(c, key, &x, &err), &err);
        assert_memory_equal(&x, &values[i], sizeof x);
    }
    double x = 0;
    must(fst_checkpoint_double(c, "nan", &x, &err), &err);
    assert_true(isnan(x));
    fst_checkpoint_free(c);
}

static void test_values_of_another_kind(void **state)
{
    (void)state;
    fst_checkpoint *c = NULL;
    fst_error err = {0};
    int64_t i = 5;
    uint64_t u = 5;
    double d = 5;
    const char *t = "untouched";
    write_sample("kinds.ckpt");
    must(fst_checkpoint_open(&c, scratch("kinds.ckpt"), NULL, &err), &err);
    assert_int_equal(fst_checkpoint_int(c, "stage", &i, &err), FST_E_MISMATCH);
    assert_non_null(strstr(err.message, "edge_kd"));
    assert_int_equal(fst_checkpoint_int(c, "seed", &i, &err), FST_E_MISMATCH); /* too large */
    assert_int_equal(fst_checkpoint_uint(c, "epoch", &u, &err), FST_E_MISMATCH);
    assert_int_equal(fst_checkpoint_double(c, "stage", &d, &err), FST_E_MISMATCH);
    assert_int_equal(fst_checkpoint_text(c, "absent", &t, &err), FST_E_MISMATCH);
    assert_non_null(strstr(err.message, "absent"));
    assert_true(i == 5 && u == 5 && d == 5);
    assert_string_equal(t, "untouched");
    fst_checkpoint_free(c);
}

static void test_another_fingerprint(void **state)
{
    (void)state;
    fst_checkpoint *c = NULL;
    fst_error err = {0};
    write_sample("print.ckpt");
    assert_int_equal(fst_checkpoint_open(&c, scratch("print.ckpt"), "print-B", &err), FST_E_MISMATCH);
    assert_null(c);
    assert_non_null(strstr(err.message, "print-A"));
    assert_non_null(strstr(err.message, "print-B"));
}

/* One wanted tensor is wrong, the others are right and come first: none may be written. */
static void test_wrong_layouts_leave_the_destination_alone(void **state)
{
    (void)state;
    static const fst_tensor wrong[] = {
        {"order", FST_U8, {1, {4}}, NULL},    /* shape */
        {"order", FST_U8, {2, {5, 1}}, NULL}, /* rank */
        {"order", FST_I8, {1, {5}}, NULL},    /* type */
        {"ordering", FST_U8, {1, {5}}, NULL}, /* name */
    };
    fst_checkpoint *c = NULL;
    fst_error err = {0};
    write_sample("layout.ckpt");
    must(fst_checkpoint_open(&c, scratch("layout.ckpt"), NULL, &err), &err);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        float w[6] = {7, 7, 7, 7, 7, 7};
        uint8_t o[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        fst_tensor wanted[] = {tensors[0], wrong[i]};
        wanted[0].data = w;
        wanted[1].data = o;
        assert_int_equal(fst_checkpoint_load(c, wanted, 2, &err), FST_E_MISMATCH);
        assert_non_null(strstr(err.message, wrong[i].name));
        for (int k = 0; k < 6; k++)
            assert_true(w[k] == 7);
        for (int k = 0; k < 8; k++)
            assert_int_equal(o[k], 1);
    }
    fst_checkpoint_free(c);
}

/* Every bit of the file, header and data. A flip may only go unnoticed where it changes nothing that counts
 * (blanks after the header, the escape of a character): then all content must be as it was. */
static void test_every_flipped_bit_is_found(void **state)
{
    (void)state;
    fst_buf b = {0};
    size_t unnoticed = 0;
    write_sample("flip.ckpt");
    assert_int_equal(fst_file_read(scratch("flip.ckpt"), 1 << 20, &b, NULL), FST_OK);
    for (size_t bit = 0; bit < b.len * 8; bit++) {
        fst_checkpoint *c = NULL;
        float w[6] = {0};
        fst_tensor wanted = tensors[0];
        wanted.data = w;
        b.data[bit / 8] ^= (char)(1 << bit % 8);
        FILE *f = fopen(scratch("flip.ckpt"), "wb"); /* without the syncs of an atomic write */
        assert_int_equal(fwrite(b.data, 1, b.len, f), b.len);
        fclose(f);
        fst_status s = fst_checkpoint_open(&c, scratch("flip.ckpt"), "print-A", NULL);
        if (!s) {
            unnoticed++;
            assert_int_equal(fst_checkpoint_load(c, &wanted, 1, NULL), FST_OK);
            assert_memory_equal(w, weights, sizeof w);
        } else {
            assert_null(c);
        }
        fst_checkpoint_free(c);
        b.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_true(unnoticed < 64);
    fst_buf_release(&b);
}

static void test_a_flipped_bit_is_named(void **state)
{
    (void)state;
    fst_buf b = {0};
    fst_checkpoint *c = NULL;
    fst_error err = {0};
    write_sample("named.ckpt");
    assert_int_equal(fst_file_read(scratch("named.ckpt"), 1 << 20, &b, NULL), FST_OK);
    b.data[b.len - 3] ^= 4;
    assert_int_equal(fst_file_write(scratch("named.ckpt"), b.data, b.len, NULL), FST_OK);
    fst_buf_release(&b);
    assert_int_equal(fst_checkpoint_open(&c, scratch("named.ckpt"), "print-A", &err), FST_E_FORMAT);
    assert_non_null(strstr(err.message, "damaged"));
    assert_non_null(strstr(err.message, "named.ckpt"));
}

static void test_every_truncation_is_found(void **state)
{
    (void)state;
    fst_buf b = {0};
    write_sample("short.ckpt");
    assert_int_equal(fst_file_read(scratch("short.ckpt"), 1 << 20, &b, NULL), FST_OK);
    for (size_t len = b.len; len-- > 0;) {
        fst_checkpoint *c = NULL;
        assert_int_equal(truncate(scratch("short.ckpt"), (off_t)len), 0);
        assert_int_equal(fst_checkpoint_open(&c, scratch("short.ckpt"), "print-A", NULL), FST_E_FORMAT);
        assert_null(c);
    }
    fst_buf_release(&b);
}

static void test_other_files(void **state)
{
    (void)state;
    fst_checkpoint *c = NULL;
    fst_error err = {0};
    assert_int_equal(fst_checkpoint_open(&c, scratch("absent.ckpt"), NULL, &err), FST_E_IO);
    assert_int_equal(fst_safetensors_write(scratch("model.safetensors"), NULL, 0, tensors, 1, NULL, NULL), FST_OK);
    assert_int_equal(fst_checkpoint_open(&c, scratch("model.safetensors"), NULL, &err), FST_E_FORMAT);
    assert_non_null(strstr(err.message, "no checkpoint"));
    assert_null(c);
}

static void test_wrong_use_of_the_writer(void **state)
{
    (void)state;
    fst_checkpoint_writer *w = NULL;
    fst_error err = {0};
    must(fst_checkpoint_writer_new(&w, "f", &err), &err);
    must(fst_checkpoint_add(w, &tensors[0], &err), &err);
    assert_int_equal(fst_checkpoint_add(w, &tensors[0], &err), FST_E_ARGUMENT);
    assert_non_null(strstr(err.message, "fc.weight"));
    must(fst_checkpoint_put_int(w, "epoch", 1, &err), &err);
    assert_int_equal(fst_checkpoint_put_int(w, "epoch", 2, &err), FST_E_ARGUMENT);
    assert_int_equal(fst_checkpoint_put_text(w, "fedstill.hash", "0", &err), FST_E_ARGUMENT);
    fst_tensor bad = {"x", FST_F32, {1, {-1}}, weights};
    assert_int_equal(fst_checkpoint_add(w, &bad, &err), FST_E_ARGUMENT);
    bad = (fst_tensor){"y", FST_F32, {1, {1}}, NULL};
    assert_int_equal(fst_checkpoint_add(w, &bad, &err), FST_E_ARGUMENT);
    fst_checkpoint_writer_free(w);
}

/* The writer reads its tensors anew, and the same content gives the same bytes. */
static void test_writing_again(void **state)
{
    (void)state;
    float x[2] = {1, 2};
    fst_tensor t = {"x", FST_F32, {1, {2}}, x};
    char a[FST_DIGEST_HEX], b[FST_DIGEST_HEX], c[FST_DIGEST_HEX];
    fst_checkpoint_writer *w = NULL;
    fst_error err = {0};
    must(fst_checkpoint_writer_new(&w, "f", &err), &err);
    must(fst_checkpoint_add(w, &t, &err), &err);
    must(fst_checkpoint_write(w, scratch("again.ckpt"), a, &err), &err);
    x[1] = 3;
    must(fst_checkpoint_write(w, scratch("again.ckpt"), b, &err), &err);
    x[1] = 2;
    must(fst_checkpoint_write(w, scratch("again.ckpt"), c, &err), &err);
    assert_string_equal(a, c);
    assert_string_not_equal(a, b);
    fst_checkpoint_writer_free(w);
    fst_checkpoint *back = NULL;
    must(fst_checkpoint_open(&back, scratch("again.ckpt"), "f", &err), &err);
    fst_checkpoint_free(back);
}

static fst_status write_and_read(void)
{
    fst_checkpoint_writer *w = NULL;
    fst_checkpoint *c = NULL;
    fst_status s = fst_checkpoint_writer_new(&w, "f", NULL);
    if (!s)
        s = fst_checkpoint_add_all(w, tensors, TENSORS, NULL);
    if (!s)
        s = fst_checkpoint_put_int(w, "epoch", 3, NULL);
    if (!s)
        s = fst_checkpoint_write(w, scratch("torture.ckpt"), NULL, NULL);
    if (!s)
        s = fst_checkpoint_open(&c, scratch("torture.ckpt"), "f", NULL);
    fst_checkpoint_writer_free(w);
    fst_checkpoint_free(c);
    return s;
}

static void test_failing_allocations(void **state)
{
    (void)state;
    fst_status s = FST_E_MEMORY;
    uint64_t n = 1;
    for (; s && n < 1000; n++) {
        fst_alloc_fail_at(n);
        s = write_and_read();
        fst_alloc_fail_at(0);
    }
    assert_int_equal(s, FST_OK);
    assert_true(n > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_doubles_are_exact),
        cmocka_unit_test(test_values_of_another_kind),
        cmocka_unit_test(test_another_fingerprint),
        cmocka_unit_test(test_wrong_layouts_leave_the_destination_alone),
        cmocka_unit_test(test_every_flipped_bit_is_found),
        cmocka_unit_test(test_a_flipped_bit_is_named),
        cmocka_unit_test(test_every_truncation_is_found),
        cmocka_unit_test(test_other_files),
        cmocka_unit_test(test_wrong_use_of_the_writer),
        cmocka_unit_test(test_writing_again),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}

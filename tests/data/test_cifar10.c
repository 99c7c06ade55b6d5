/* CIFAR-10, binary and Python version, and CIFAR-100: files, names of classes, and what is refused. */
#define _GNU_SOURCE
#include "files.h"
#include "formats.h"

enum { RECORD = 3073 };

/* n records, labels first ... first + n - 1. */
static void put_records(const char *name, int n, int first)
{
    unsigned char *file = malloc((size_t)n * RECORD);
    for (int i = 0; i < n; i++) {
        memset(file + i * RECORD, i + 1, RECORD);
        file[i * RECORD] = (unsigned char)(first + i);
    }
    put_file(name, file, (size_t)n * RECORD);
    free(file);
}

static void put_train(const char *folder, int files)
{
    for (int i = 1; i <= files; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s/data_batch_%d.bin", folder, i);
        put_records(name, 2, i);
    }
}

static void batches_follow_each_other(void **state)
{
    static const int32_t want[10] = {1, 2, 2, 3, 3, 4, 4, 5, 5, 6};
    fst_source *s = NULL;
    (void)state;
    put_train("all", 5);
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work("all")}, err));
    assert_int_equal(s->count, 10);
    assert_memory_equal(s->labels, want, sizeof want);
    assert_null(s->class_names);
    fst_source_close(s);
}

static void names_are_read(void **state)
{
    static const char text[] = "airplane\nautomobile\r\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n\n";
    fst_source *s = NULL;
    fst_source_spec spec = {.path = in_work("named"), .split = "test"};
    (void)state;
    put_records("named/cifar-10-batches-bin/data_batch_1.bin", 1, 0);
    put_records("named/cifar-10-batches-bin/test_batch.bin", 10, 0);
    put_file("named/cifar-10-batches-bin/batches.meta.txt", text, strlen(text));
    assert_ok(fst_source_open(&s, &spec, err));
    assert_int_equal(s->count, 10);
    assert_string_equal(s->class_names[1], "automobile");
    assert_string_equal(s->class_names[9], "truck");
    fst_source_close(s);
    s = NULL;
    put_file("named/cifar-10-batches-bin/batches.meta.txt", text, 20);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "names 2 classes");
    assert_null(s);
}

static void missing_batches_are_missed(void **state)
{
    fst_source *s = NULL;
    fst_source_spec spec = {.path = in_work("four")};
    (void)state;
    put_train("four", 4);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_IO, "data_batch_5.bin");
    spec.limit = 8; /* reaches no further than the fourth */
    assert_ok(fst_source_open(&s, &spec, err));
    assert_int_equal(s->count, 8);
    fst_source_close(s);
    spec.split = "test";
    assert_fails(fst_source_open(&s, &spec, err), FST_E_ABSENT, "test_batch.bin");
}

static void damage_is_refused(void **state)
{
    static unsigned char records[2 * RECORD], packed[RECORD];
    fst_source *s = NULL;
    fst_source_spec spec = {.format = "cifar10", .path = in_work("bad"), .split = "test"};
    (void)state;
    put_file("bad/test_batch.bin", records, 2 * RECORD - 1);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "6145 bytes are not whole records");
    put_file("bad/test_batch.bin", records, 0);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "not whole records");
    records[RECORD] = 10;
    put_file("bad/test_batch.bin", records, sizeof records);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "sample 1 has label 10, labels must be 0 ... 9");
    put_file("bad/test_batch.bin", packed, gzip_bytes(packed, sizeof packed, records, sizeof records));
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "compressed");
    spec.classes = 100;
    assert_fails(fst_source_open(&s, &spec, err), FST_E_CONFIG, "10 classes, not 100");
}

/* ---- the Python version, made by make_pickles.py ----------------------------------------------------- */

static const char *pickles(const char *name)
{
    static char paths[4][1024];
    static int next;
    char *p = paths[next++ % 4];
    const char *source = getenv("FEDSTILL_SOURCE");
    snprintf(p, sizeof paths[0], "%s/tests/data/pickles%s", source ? source : ".", name);
    return p;
}

/* Sample i is `value` everywhere, but one more at its first byte. */
static void check_image(const fst_source *s, size_t i, int value, int label)
{
    unsigned char raw[RECORD - 1];
    assert_ok(s->v->get(s, i, raw, err));
    assert_int_equal(raw[0], value + 1);
    for (size_t k = 1; k < sizeof raw; k++)
        assert_int_equal(raw[k], value);
    assert_int_equal(s->labels[i], label);
}

static void python_batches_are_read(void **state)
{
    const char *const paths[] = {"", "/cifar-10-batches-py"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        fst_source *s = NULL;
        fst_source_spec spec = {.format = i ? NULL : "cifar10", .path = pickles(paths[i])};
        assert_ok(fst_source_open(&s, &spec, err));
        assert_int_equal(s->count, 10);
        assert_int_equal(s->classes, 10);
        assert_true(fst_shape_equal(&s->shape, &FST_SHAPE(3, 32, 32)));
        for (int k = 0; k < 10; k++)
            check_image(s, (size_t)k, 10 * (k / 2 + 1) + k % 2, k / 2 + 1 + k % 2);
        assert_string_equal(s->class_names[9], "class 9");
        fst_source_close(s);
        spec.split = "test";
        assert_ok(fst_source_open(&s, &spec, err));
        assert_int_equal(s->count, 2);
        check_image(s, 1, 1, 1);
        fst_source_close(s);
        spec = (fst_source_spec){.format = "cifar10", .path = pickles(paths[i]), .limit = 3};
        assert_ok(fst_source_open(&s, &spec, err));
        assert_int_equal(s->count, 3);
        check_image(s, 2, 31, 4); /* one each of classes that have two */
        fst_source_close(s);
    }
}

static void cifar100_is_read(void **state)
{
    const char *const paths[] = {"", "/cifar-100-python"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        fst_source *s = NULL;
        fst_source_spec spec = {.format = i ? NULL : "cifar100", .path = pickles(paths[i])};
        assert_ok(fst_source_open(&s, &spec, err));
        assert_string_equal(s->v->format, "cifar100");
        assert_int_equal(s->count, 2);
        assert_int_equal(s->classes, 100);
        check_image(s, 0, 5, 5);
        check_image(s, 1, 99, 99);
        assert_string_equal(s->class_names[99], "fine 99");
        fst_source_close(s);
        spec.split = "test";
        assert_ok(fst_source_open(&s, &spec, err));
        check_image(s, 0, 6, 6);
        fst_source_close(s);
        spec.classes = 20;
        assert_fails(fst_source_open(&s, &spec, err), FST_E_CONFIG, "has 100 classes, not 20");
    }
}

/* The binary version goes first; what is no batch is refused. */
static void bad_batches_are_refused(void **state)
{
    fst_source *s = NULL;
    fst_source_spec spec = {.path = in_work("python")};
    (void)state;
    put_file("python/data_batch_1", "\x80\x02}.", 4);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "\"data\" must be an array and \"labels\" a list");
    put_file("python/data_batch_1", "\x80\x02}", 3);
    assert_int_not_equal(fst_source_open(&s, &spec, NULL), FST_OK);
    put_file("python/data_batch_1", "", 0);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "the file is empty");
    put_train("python", 5);
    assert_ok(fst_source_open(&s, &spec, err));
    assert_int_equal(s->count, 10);
    fst_source_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_follow_each_other),  cmocka_unit_test(names_are_read),
        cmocka_unit_test(missing_batches_are_missed), cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(python_batches_are_read),    cmocka_unit_test(cifar100_is_read),
        cmocka_unit_test(bad_batches_are_refused),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}

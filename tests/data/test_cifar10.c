/* CIFAR-10, binary version: files, names of classes, and what is refused. */
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
    assert_fails(fst_source_open(&s, &spec, err), FST_E_IO, "test_batch.bin");
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

static void pickles_are_refused(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put_file("python/data_batch_1", "\x80\x02}", 3);
    assert_fails(fst_source_open(&s, &(fst_source_spec){.format = "cifar10", .path = in_work("python")}, err),
                 FST_E_FORMAT, "Python version");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_follow_each_other),  cmocka_unit_test(names_are_read),
        cmocka_unit_test(missing_batches_are_missed), cmocka_unit_test(damage_is_refused),
        cmocka_unit_test(pickles_are_refused),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}

/* The reader of pickles: every protocol gives the same values, arrays come as they were, and whatever would run
 * something is refused by name. The files are made by tests/data/make_pickles.py. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

#include "pickle_same.h"

static const char *file(const char *name)
{
    static char path[1024];
    const char *source = getenv("FEDSTILL_SOURCE");
    snprintf(path, sizeof path, "%s/tests/data/pickles/%s.pkl", source ? source : ".", name);
    return path;
}

static fst_pickle *load(const char *name)
{
    fst_pickle *p = NULL;
    fst_error err = {0};
    if (fst_pickle_read(&p, file(name), 1 << 20, &err))
        fail_msg("%s", err.message);
    return p;
}

static void check_text(const fst_pickle_value *v, int kind, const void *want, size_t n)
{
    assert_non_null(v);
    assert_int_equal(v->kind, kind);
    assert_int_equal(v->text.length, n);
    assert_memory_equal(v->text.data, want, n);
}

static void check_int(const fst_pickle_value *v, int kind, int64_t want)
{
    assert_non_null(v);
    assert_int_equal(v->kind, kind);
    assert_true(v->integer == want);
}

static const fst_pickle_value *item(const fst_pickle_value *v, int kind, size_t count, size_t i)
{
    assert_non_null(v);
    assert_int_equal(v->kind, kind);
    assert_int_equal(v->list.count, count);
    return i < count ? v->list.items[i] : NULL;
}

static void values_survive_every_protocol(void **state)
{
    static const char hello[] = "Gr\xC3\xBC\xC3\x9F"
                                "e \xE4\xB8\xAD\xF0\x9F\x93\xA1 \\ \n";
    unsigned char all[256];
    (void)state;
    for (int i = 0; i < 256; i++)
        all[i] = (unsigned char)i;
    for (int protocol = 0; protocol <= 5; protocol++) {
        char name[32];
        snprintf(name, sizeof name, "values%d", protocol);
        fst_pickle *p = load(name);
        const fst_pickle_value *d = fst_pickle_root(p), *v;
        assert_int_equal(fst_pickle_find(d, "none")->kind, FST_PICKLE_NONE);
        check_int(fst_pickle_find(d, "yes"), FST_PICKLE_BOOL, 1);
        check_int(fst_pickle_find(d, "no"), FST_PICKLE_BOOL, 0);
        check_int(fst_pickle_find(d, "small"), FST_PICKLE_INT, 7);
        check_int(fst_pickle_find(d, "negative"), FST_PICKLE_INT, -70000);
        check_int(fst_pickle_find(d, "long"), FST_PICKLE_INT, INT64_C(1) << 40);
        check_int(fst_pickle_find(d, "deep"), FST_PICKLE_INT, -(INT64_C(1) << 62));
        v = fst_pickle_find(d, "real");
        assert_int_equal(v->kind, FST_PICKLE_FLOAT);
        assert_true(v->real == -1.5);
        check_text(fst_pickle_find(d, "text"), FST_PICKLE_TEXT, hello, sizeof hello - 1);
        check_text(fst_pickle_find(d, "bytes"), FST_PICKLE_BYTES, all, 256);
        v = fst_pickle_find(d, "tuple");
        check_int(item(item(v, FST_PICKLE_TUPLE, 3, 1), FST_PICKLE_TUPLE, 2, 1), FST_PICKLE_INT, 3);
        (void)item(item(v, FST_PICKLE_TUPLE, 3, 2), FST_PICKLE_TUPLE, 0, 0);
        check_int(item(fst_pickle_find(d, "four"), FST_PICKLE_TUPLE, 4, 3), FST_PICKLE_INT, 4);
        v = fst_pickle_find(d, "list");
        assert_true(item(item(v, FST_PICKLE_LIST, 3, 1), FST_PICKLE_LIST, 1, 0)->real == 2.5);
        v = fst_pickle_find(d, "shared");
        assert_ptr_equal(item(v, FST_PICKLE_LIST, 2, 0), item(v, FST_PICKLE_LIST, 2, 1));
        v = fst_pickle_find(d, "ordered");
        check_text(item(v, FST_PICKLE_DICT, 4, 0), FST_PICKLE_TEXT, "b", 1);
        check_int(fst_pickle_find(v, "a"), FST_PICKLE_INT, 2);
        assert_null(fst_pickle_find(d, "nothing"));
        fst_pickle_free(p);
    }
}

static void check_array(const fst_pickle_value *v, fst_dtype dtype, const fst_shape *shape, const void *want)
{
    assert_non_null(v);
    assert_int_equal(v->kind, FST_PICKLE_ARRAY);
    assert_int_equal(v->array->dtype, dtype);
    assert_true(fst_shape_equal(&v->array->shape, shape));
    size_t bytes = (size_t)fst_shape_count(shape) * fst_dtype_size(dtype);
    if (bytes)
        assert_memory_equal(v->array->data, want, bytes);
}

static void arrays_survive_every_protocol(void **state)
{
    static const float six[6] = {0, 1, 2, 3, 4, 5};
    static const double two[2] = {1.25, -2};
    static const int16_t big[3] = {1, -2, 300};
    static const uint8_t small[6] = {0, 1, 2, 3, 4, 5}, flags[2] = {1, 0};
    static const int32_t four = 4;
    static const uint16_t half[2] = {0x3800, 0xC000};
    (void)state;
    for (int protocol = 0; protocol <= 5; protocol++) {
        char name[32];
        snprintf(name, sizeof name, "arrays%d", protocol);
        fst_pickle *p = load(name);
        const fst_pickle_value *d = fst_pickle_root(p), *v;
        check_array(fst_pickle_find(d, "f4"), FST_F32, &FST_SHAPE(2, 3), six);
        check_array(fst_pickle_find(d, "f8"), FST_F64, &FST_SHAPE(2), two);
        check_array(fst_pickle_find(d, "big"), FST_I16, &FST_SHAPE(3), big);
        check_array(fst_pickle_find(d, "fortran"), FST_U8, &FST_SHAPE(2, 3), small);
        check_array(fst_pickle_find(d, "bool"), FST_BOOL, &FST_SHAPE(2), flags);
        check_array(fst_pickle_find(d, "empty"), FST_F32, &FST_SHAPE(0, 2), NULL);
        check_array(fst_pickle_find(d, "rank0"), FST_I32, &(fst_shape){0}, &four);
        check_array(fst_pickle_find(d, "half"), FST_F16, &FST_SHAPE(2), half);
        v = fst_pickle_find(d, "scalar");
        assert_int_equal(v->kind, FST_PICKLE_FLOAT);
        assert_true(v->real == 0.5);
        check_int(fst_pickle_find(d, "integer"), FST_PICKLE_INT, -3);
        check_int(fst_pickle_find(d, "u8"), FST_PICKLE_INT, 200);
        fst_pickle_free(p);
    }
}

static void python2_texts_are_bytes(void **state)
{
    fst_pickle *p = load("python2_0");
    const fst_pickle_value *d = fst_pickle_root(p);
    (void)state;
    check_text(item(d, FST_PICKLE_DICT, 8, 0), FST_PICKLE_BYTES, "a\0\n'\\\xFF", 6);
    check_int(fst_pickle_find(d, "it's"), FST_PICKLE_INT, INT64_C(12345678901));
    assert_true(fst_pickle_find(d, "gr\xC3\xBC\xE4\xB8\xAD")->real == -0.25);
    check_int(item(d, FST_PICKLE_DICT, 8, 6), FST_PICKLE_BOOL, 1);
    fst_pickle_free(p);
}

static void what_is_not_plain_is_refused(void **state)
{
    static const struct {
        const char *name;
        fst_status want;
        const char *says;
    } cases[] = {
        {"evil0", FST_E_FORMAT, "posix.system is not allowed"},
        {"evil4", FST_E_FORMAT, "posix.system is not allowed"},
        {"eval2", FST_E_FORMAT, "__builtin__.eval is not allowed"},
        {"instance", FST_E_FORMAT, "os.system is not allowed"},
        {"newobj", FST_E_FORMAT, "an instance of a class"},
        {"object_array", FST_E_UNSUPPORTED, "arrays of type 'O8' are not read"},
        {"structured", FST_E_UNSUPPORTED, "arrays of type 'V4' are not read"},
        {"complex", FST_E_UNSUPPORTED, "arrays of type 'c8' are not read"},
        {"set", FST_E_FORMAT, "sets are not read"},
        {"marks", FST_E_LIMIT, "nested more than 1000 deep"},
        {"memo", FST_E_FORMAT, "a memo number that is too large"},
        {"huge_text", FST_E_FORMAT, "byte 9 of the pickle: the pickle is cut off"},
        {"huge_long", FST_E_FORMAT, "more than 64 bits"},
        {"lying_array", FST_E_FORMAT, "shape and type do not fit its bytes"},
        {"two_values", FST_E_FORMAT, "more or less than one value"},
        {"nothing", FST_E_FORMAT, "more or less than one value"},
        {"trailing", FST_E_FORMAT, "bytes follow"},
        {"protocol9", FST_E_UNSUPPORTED, "pickle protocol 9; 0 to 5 are read"},
    };
    char sentinel;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_pickle *p = (fst_pickle *)(void *)&sentinel;
        fst_error err = {0};
        fst_status s = fst_pickle_read(&p, file(cases[i].name), 1 << 20, &err);
        if (s != cases[i].want || !strstr(err.message, cases[i].says))
            fail_msg("%s: status %s, \"%s\"", cases[i].name, fst_status_name(s), err.message);
        assert_ptr_equal(p, &sentinel);
    }
    assert_int_not_equal(access("/tmp/fedstill-was-here", F_OK), 0);
}

/* The names of globals are somebody else's: nothing of them reaches a terminal as it is. */
static void names_in_messages_are_printable(void **state)
{
    static const char hostile[] = "c\033[31mred\nx\n.";
    fst_pickle *p = NULL;
    fst_error err = {0};
    (void)state;
    assert_int_equal(fst_pickle_parse(&p, "h", hostile, sizeof hostile - 1, 1 << 20, &err), FST_E_FORMAT);
    assert_non_null(strstr(err.message, "?[31mred.x is not allowed"));
    assert_null(strchr(err.message, '\033'));
}

static void a_list_may_hold_itself(void **state)
{
    fst_pickle *p = load("self");
    const fst_pickle_value *v = fst_pickle_root(p);
    (void)state;
    assert_ptr_equal(item(v, FST_PICKLE_LIST, 1, 0), v);
    fst_pickle_free(p);
}

static void every_cut_is_an_error(void **state)
{
    static const char *const names[] = {"arrays0", "arrays5", "values1", "values4", "python2"};
    (void)state;
    for (size_t k = 0; k < sizeof names / sizeof *names; k++) {
        fst_buf b = {0};
        assert_int_equal(fst_file_read(file(names[k]), 1 << 20, &b, NULL), FST_OK);
        for (size_t n = 0; n < b.len; n++) {
            fst_pickle *p = NULL;
            unsigned char *exact = malloc(n ? n : 1);
            memcpy(exact, b.data, n);
            fst_status s = fst_pickle_parse(&p, "cut", exact, n, 1 << 20, NULL);
            if (s != FST_E_FORMAT)
                fail_msg("%s cut to %zu bytes: %s", names[k], n, fst_status_name(s));
            free(exact);
        }
        fst_buf_release(&b);
    }
}

static void limits_hold(void **state)
{
    fst_pickle *p = NULL;
    fst_error err = {0};
    fst_buf b = {0};
    (void)state;
    assert_int_equal(fst_file_read(file("values4"), 1 << 20, &b, NULL), FST_OK);
    assert_int_equal(fst_pickle_parse(&p, "small", b.data, b.len, 256, &err), FST_E_LIMIT);
    assert_non_null(strstr(err.message, "more than the 256 bytes"));
    assert_int_equal(fst_pickle_read(&p, file("values4"), 100, &err), FST_E_LIMIT);
    assert_null(p);
    fst_buf_release(&b);
}

static void memory_may_run_out(void **state)
{
    static const char *const names[] = {"arrays0", "values4"};
    (void)state;
    for (int k = 0; k < 2; k++)
        for (uint64_t n = 1;; n++) {
            fst_pickle *p = NULL;
            assert_true(n < 1000);
            fst_alloc_fail_at(n);
            fst_status s = fst_pickle_read(&p, file(names[k]), 1 << 20, NULL);
            fst_alloc_fail_at(0);
            fst_pickle_free(p);
            if (!s)
                break;
            assert_int_equal(s, FST_E_MEMORY);
        }
}

/* Whatever stays in the file, the values are those that a reader of the whole has. */
static void values_may_stay_in_the_file(void **state)
{
    static const char *const names[] = {"values0",   "values1",   "values2",  "values3", "values4", "values5",
                                        "arrays0",   "arrays1",   "arrays2",  "arrays3", "arrays4", "arrays5",
                                        "radioml0",  "radioml2",  "radioml5", "python2", "doubles", "splits",
                                        "python2_0", "huge_text", "none",     "memo",    "marks"};
    static const size_t holes[] = {1, 2, 7, 100, 65536};
    (void)state;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (size_t k = 0; k < sizeof holes / sizeof *holes; k++) {
            fst_pickle *p = NULL, *f = NULL;
            fst_error err = {0}, why = {0};
            int budget = 10000;
            fst_status a = fst_pickle_read(&p, file(names[i]), 1 << 20, &err);
            fst_status b = fst__pickle_open(&f, file(names[i]), 1 << 20, holes[k], &why);
            assert_int_equal(a, b);
            assert_string_equal(err.message, why.message);
            if (!a && !same_values(f, fst_pickle_root(p), fst_pickle_root(f), 0, &budget))
                fail_msg("%s: differs with a hole of %zu", names[i], holes[k]);
            fst_pickle_free(p);
            fst_pickle_free(f);
        }
}

static size_t peak(void)
{
    struct rusage r;
    assert_int_equal(getrusage(RUSAGE_SELF, &r), 0);
    return (size_t)r.ru_maxrss << 10;
}

/* 256 MB of which nobody wants more than the end; a file that is cut off behind the reader's back is an error. */
static void what_nobody_wants_takes_no_memory(void **state)
{
    enum { BYTES = 1 << 28 };
    static const unsigned char head[] = {0x80, 3, 'B', 0, 0, 0, 0x10}, tail[] = {'x', '.'};
    char path[] = "/tmp/fedstill-pickle-XXXXXX", end[8];
    int fd = mkstemp(path);
    fst_pickle *p = NULL;
    fst_error err = {0};
    (void)state;
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, head, sizeof head, 0), sizeof head);
    assert_int_equal(pwrite(fd, tail, sizeof tail, sizeof head + BYTES - 1), sizeof tail);
    size_t before = peak();
    assert_int_equal(fst_pickle_open(&p, path, (size_t)1 << 30, &err), FST_OK);
    const fst_pickle_value *v = fst_pickle_root(p);
    assert_int_equal(v->kind, FST_PICKLE_BYTES);
    assert_int_equal(v->text.length, BYTES);
    assert_int_equal(fst_pickle_copy(p, end, v->text.data + BYTES - sizeof end, sizeof end, &err), FST_OK);
    assert_memory_equal(end, "\0\0\0\0\0\0\0x", sizeof end);
    assert_true(peak() - before < BYTES / 2); /* a sanitizer's own notes are an eighth */
    assert_int_equal(ftruncate(fd, 1000), 0);
    assert_int_equal(fst_pickle_copy(p, end, v->text.data + BYTES - sizeof end, sizeof end, &err), FST_E_IO);
    assert_non_null(strstr(err.message, "became shorter while it was read"));
    fst_pickle_free(p);
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_survive_every_protocol),
        cmocka_unit_test(arrays_survive_every_protocol),
        cmocka_unit_test(python2_texts_are_bytes),
        cmocka_unit_test(what_is_not_plain_is_refused),
        cmocka_unit_test(names_in_messages_are_printable),
        cmocka_unit_test(a_list_may_hold_itself),
        cmocka_unit_test(every_cut_is_an_error),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(memory_may_run_out),
        cmocka_unit_test(values_may_stay_in_the_file),
        cmocka_unit_test(what_nobody_wants_takes_no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

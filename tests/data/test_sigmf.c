/* SigMF recordings: conformance, every data type, windows, groups, folders, and what is wrong in each way. */
#define _GNU_SOURCE
#include <math.h>
#include <sodium.h>

#include "conformance.h"

enum { L = 4 };

static void put_text(const char *name, const char *text)
{
    put_file(name, text, strlen(text));
}

#define GLOBAL(type, more) "{\"global\": {\"core:datatype\": \"" type "\", \"core:version\": \"1.0.0\"" more "},\n"
#define NOTES(list) "\"captures\": [{\"core:sample_start\": 0}], \"annotations\": [" list "]}"
#define NOTE(start, count, label, more) \
    "{\"core:sample_start\": " #start ", \"core:sample_count\": " #count ", \"core:label\": \"" label "\"" more "}"
#define BURST(b, snr) ", \"fedstill:burst\": " #b ", \"fedstill:snr_db\": " #snr

static fst_status open_sigmf(fst_source **s, const char *name, size_t window, fst_error *err)
{
    return fst_source_open(s, &(fst_source_spec){.format = "sigmf", .path = in_work(name), .window = window}, err);
}

static void it_conforms(void **state)
{
    /* five windows, the fourth equal to the first; labels sort to alpha, beta, gamma */
    static const int32_t labels[5] = {2, 0, 1, 2, 0};
    float file[5 * L * 2], x[5 * 2 * L];
    (void)state;
    for (int w = 0; w < 5; w++)
        for (int i = 0; i < L; i++)
            for (int q = 0; q < 2; q++) {
                float v = (float)(w == 3 ? 0 : w) + 0.125f * (float)i - (float)q;
                file[(w * L + i) * 2 + q] = v;
                x[w * 2 * L + q * L + i] = v;
            }
    put_file("good/a.sigmf-data", file, sizeof file);
    put_text("good/a.sigmf-meta",
             GLOBAL("cf32_le", "") NOTES(NOTE(0, 4, "gamma", "") ", " NOTE(4, 4, "alpha", "") ", " NOTE(
                 8, 4, "beta", "") ", " NOTE(12, 4, "gamma", "") ", " NOTE(16, 4, "alpha", "")));
    struct expected want = {FST_F32, FST_SHAPE(2, L), 5, 3, x, labels};
    conformance(&(fst_source_spec){.format = "sigmf", .path = in_work("good")}, &want);
    conformance(&(fst_source_spec){.format = "sigmf", .path = in_work("good/a.sigmf-meta")}, &want);
    conformance(&(fst_source_spec){.format = "sigmf", .path = in_work("good/a.sigmf-data")}, &want);
}

static void integers_are_scaled(void **state)
{
    static const unsigned char bytes[4] = {0, 255, 51, 204};
    static const unsigned char words[8] = {0x00, 0x80, 0xFF, 0x7F, 0x00, 0x40, 0xFF, 0xFF};
    static const float from_bytes[4] = {-1, -0.6f, 1, 0.6f};
    static const float from_words[4] = {-1, 0.5f, 32767.0f / 32768, -1.0f / 32768};
    fst_source *s = NULL;
    float x[4];
    (void)state;
    put_file("b.sigmf-data", bytes, sizeof bytes);
    put_text("b.sigmf-meta", GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a", "")));
    assert_ok(open_sigmf(&s, "b.sigmf-meta", 0, err));
    assert_ok(s->v->get(s, 0, x, err));
    for (int i = 0; i < 4; i++)
        assert_float_equal(x[i], from_bytes[i], 1e-7f);
    fst_source_close(s);
    put_file("w.sigmf-data", words, sizeof words);
    put_text("w.sigmf-meta", GLOBAL("ci16_le", "") NOTES(NOTE(0, 2, "a", "")));
    assert_ok(open_sigmf(&s, "w.sigmf-meta", 0, err));
    assert_ok(s->v->get(s, 0, x, err));
    assert_memory_equal(x, from_words, sizeof x);
    fst_source_close(s);
}

/* cu8 samples whose I counts up and whose Q is 255 - I. */
static void put_counting(const char *name, int samples)
{
    unsigned char raw[512];
    for (int i = 0; i < samples; i++) {
        raw[2 * i] = (unsigned char)i;
        raw[2 * i + 1] = (unsigned char)(255 - i);
    }
    put_file(name, raw, (size_t)samples * 2);
}

static int first_sample(const fst_source *s, size_t i)
{
    float x[64];
    assert_ok(s->v->get(s, i, x, err));
    return (int)lrintf(x[0] * 127.5f + 127.5f);
}

static void annotations_are_cut_into_windows(void **state)
{
    static const int starts[] = {10, 13, 40, 43, 46, 3};
    static const int64_t groups[] = {8, 8, 7, 7, 7, 9};
    fst_source *s = NULL;
    (void)state;
    put_counting("cut.sigmf-data", 60);
    /* the first two are 8 and 11 long: two and three windows of 3; the last has no burst and gets the next number */
    put_text("cut.sigmf-meta",
             GLOBAL("cu8", "")
                 NOTES(NOTE(10, 8, "b", BURST(8, -4.5)) "," NOTE(40, 11, "a", BURST(7, 20)) "," NOTE(3, 3, "b", "")));
    assert_ok(open_sigmf(&s, "cut.sigmf-meta", 3, err));
    assert_int_equal(s->count, 6);
    assert_true(fst_shape_equal(&s->shape, &FST_SHAPE(2, 3)));
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(first_sample(s, i), starts[i]);
        assert_int_equal(s->group[i], groups[i]);
        assert_int_equal(s->labels[i], i < 2 || i == 5);
    }
    assert_true(s->snr[1] == -4.5f && s->snr[2] == 20 && isnan(s->snr[5]));
    assert_string_equal(s->class_names[0], "a");
    fst_source_close(s);
    s = NULL;
    assert_fails(open_sigmf(&s, "cut.sigmf-meta", 0, err), FST_E_CONFIG,
                 "annotation 1 has 11 samples, others have 8: choose a window");
    assert_fails(open_sigmf(&s, "cut.sigmf-meta", 4, err), FST_E_FORMAT,
                 "annotation 2 has 3 samples, fewer than a window of 4");
    assert_null(s);
}

static void a_folder_is_one_source(void **state)
{
    static const int starts[] = {1, 2, 3, 4};
    static const int64_t groups[] = {5, 0, 6, 7};
    fst_source *s = NULL, *test = NULL;
    (void)state;
    put_counting("all/train/1.sigmf-data", 8);
    put_counting("all/train/2.sigmf-data", 8);
    put_counting("all/test/1.sigmf-data", 8);
    /* bursts 5 and 0; the second recording's burst 0 is another one: 6, and what has no burst follows */
    put_text("all/train/1.sigmf-meta",
             GLOBAL("cu8", "") NOTES(NOTE(1, 1, "z", BURST(5, 0)) "," NOTE(2, 1, "m", BURST(0, 0))));
    put_text("all/train/2.sigmf-meta", GLOBAL("cu8", "") NOTES(NOTE(3, 1, "a", BURST(0, 0)) "," NOTE(4, 1, "m", "")));
    put_text("all/test/1.sigmf-meta", GLOBAL("cu8", "") NOTES(NOTE(6, 1, "m", "")));
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work("all")}, err));
    assert_string_equal(s->v->format, "sigmf");
    assert_int_equal(s->count, 4);
    assert_int_equal(s->classes, 3);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(first_sample(s, i), starts[i]);
        assert_int_equal(s->group[i], groups[i]);
    }
    assert_ok(fst_source_open(&test, &(fst_source_spec){.path = in_work("all"), .split = "test"}, err));
    assert_int_equal(test->classes, 3); /* training's, though it has one */
    assert_int_equal(test->labels[0], 1);
    assert_string_equal(test->class_names[2], "z");
    assert_null(test->snr); /* no annotation says it */
    fst_source_close(test);
    fst_source_close(s);
    s = NULL;
    put_text("all/test/1.sigmf-meta", GLOBAL("cu8", "") NOTES(NOTE(6, 1, "new", "")));
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("all"), .split = "test"}, err), FST_E_MISMATCH,
                 "label \"new\" is not in the training recordings");
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("all"), .split = "val"}, err), FST_E_IO,
                 "needs folders train and val");
}

/* `fedstill data synth` says in which order its classes are; a class may have no window. */
static void classes_may_have_an_order(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put_counting("order/1.sigmf-data", 8);
    put_text("order/1.sigmf-meta", GLOBAL("cu8", ", \"fedstill:classes\": [\"z\", \"b\", \"a\"]")
                                       NOTES(NOTE(1, 1, "a", "") "," NOTE(2, 1, "z", "")));
    assert_ok(open_sigmf(&s, "order/1.sigmf-meta", 0, err));
    assert_int_equal(s->classes, 3);
    assert_int_equal(s->labels[0], 2);
    assert_int_equal(s->labels[1], 0);
    assert_string_equal(s->class_names[1], "b");
    fst_source_close(s);
    /* where the orders differ, names decide */
    put_counting("order/2.sigmf-data", 8);
    put_text("order/2.sigmf-meta", GLOBAL("cu8", ", \"fedstill:classes\": [\"a\"]") NOTES(NOTE(1, 1, "a", "")));
    assert_ok(open_sigmf(&s, "order", 0, err));
    assert_int_equal(s->classes, 2);
    assert_int_equal(s->labels[0], 0);
    fst_source_close(s);
    s = NULL;
    put_text("order/2.sigmf-meta", GLOBAL("cu8", ", \"fedstill:classes\": [\"b\"]") NOTES(NOTE(1, 1, "a", "")));
    assert_fails(open_sigmf(&s, "order/2.sigmf-meta", 0, err), FST_E_MISMATCH,
                 "label \"a\" is not in fedstill:classes");
    put_text("order/2.sigmf-meta", GLOBAL("cu8", ", \"fedstill:classes\": [\"b\", \"b\"]") NOTES(NOTE(1, 1, "b", "")));
    assert_fails(open_sigmf(&s, "order/2.sigmf-meta", 0, err), FST_E_FORMAT, "different texts");
    assert_null(s);
}

static void offsets_are_absolute(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put_counting("late.sigmf-data", 8);
    put_text("late.sigmf-meta", GLOBAL("cu8", ", \"core:offset\": 1000") NOTES(NOTE(1003, 2, "a", "")));
    assert_ok(open_sigmf(&s, "late.sigmf-meta", 0, err));
    assert_int_equal(first_sample(s, 0), 3);
    fst_source_close(s);
}

static void the_digest_is_checked(void **state)
{
    static const char before[] = GLOBAL("cu8", ", \"core:sha512\": \"%s\"") NOTES(NOTE(0, 8, "a", ""));
    unsigned char raw[16], digest[64];
    char hex[129], text[1024];
    fst_source *s = NULL;
    (void)state;
    put_counting("sum.sigmf-data", 8);
    for (int i = 0; i < 8; i++)
        raw[2 * i] = (unsigned char)i, raw[2 * i + 1] = (unsigned char)(255 - i);
    crypto_hash_sha512(digest, raw, sizeof raw);
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    snprintf(text, sizeof text, before, hex);
    put_text("sum.sigmf-meta", text);
    assert_ok(open_sigmf(&s, "sum.sigmf-meta", 0, err));
    fst_source_close(s);
    s = NULL;
    put_counting("sum.sigmf-data", 9);
    assert_fails(open_sigmf(&s, "sum.sigmf-meta", 0, err), FST_E_MISMATCH, "damaged or changed");
    put_text("sum.sigmf-meta", GLOBAL("cu8", ", \"core:sha512\": \"abc\"") NOTES(NOTE(0, 8, "a", "")));
    assert_fails(open_sigmf(&s, "sum.sigmf-meta", 0, err), FST_E_FORMAT, "128 hexadecimal digits");
}

static void what_is_wrong_is_said(void **state)
{
    static const struct {
        const char *text;
        fst_status want;
        const char *says;
    } cases[] = {
        {"{\"global\": {\n\"a\" 1}", FST_E_FORMAT, "bad.sigmf-meta:2:"},
        {"[]", FST_E_FORMAT, "no object \"global\""},
        {"{\"global\": {\"core:datatype\": \"cu8\"}}", FST_E_FORMAT, "no core:version"},
        {"{\"global\": {\"core:datatype\": \"cu8\", \"core:version\": \"2.0.0\"}}", FST_E_UNSUPPORTED,
         "core:version is \"2.0.0\""},
        {"{\"global\": {\"core:version\": \"1.2.0\"}}", FST_E_FORMAT, "no core:datatype"},
        {GLOBAL("rf32_le", "") NOTES(""), FST_E_UNSUPPORTED, "core:datatype is \"rf32_le\"; cf32_le, ci16_le and cu8"},
        {GLOBAL("cu8", ", \"core:num_channels\": 2") NOTES(""), FST_E_UNSUPPORTED, "one channel"},
        {GLOBAL("cu8", ", \"core:dataset\": \"x.bin\"") NOTES(""), FST_E_UNSUPPORTED, "core:dataset"},
        {GLOBAL("cu8", ", \"core:metadata_only\": true") NOTES(""), FST_E_UNSUPPORTED, "metadata_only"},
        {GLOBAL("cu8", ", \"core:trailing_bytes\": 4") NOTES(""), FST_E_UNSUPPORTED, "trailing_bytes"},
        {GLOBAL("cu8", ", \"core:extensions\": [{\"name\": \"odd\", \"version\": \"1\", \"optional\": false}]")
             NOTES(""),
         FST_E_UNSUPPORTED, "extension \"odd\""},
        {GLOBAL("cu8", "") "\"captures\": [{\"core:header_bytes\": 4}]}", FST_E_UNSUPPORTED, "capture 0"},
        {GLOBAL("cu8", "") NOTES(""), FST_E_FORMAT, "no annotations"},
        {GLOBAL("cu8", "") NOTES("1"), FST_E_FORMAT, "annotation 0 is no object"},
        {GLOBAL("cu8", "") NOTES("{\"core:sample_count\": 1}"), FST_E_FORMAT, "core:sample_start must be"},
        {GLOBAL("cu8", "") NOTES("{\"core:sample_start\": 0}"), FST_E_FORMAT, "core:sample_count must be"},
        {GLOBAL("cu8", "") NOTES(NOTE(-1, 2, "a", "")), FST_E_FORMAT, "core:sample_start must be"},
        {GLOBAL("cu8", "") NOTES("{\"core:sample_start\": 0, \"core:sample_count\": 2}"), FST_E_FORMAT,
         "annotation 0 has no core:label"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a", "") "," NOTE(7, 2, "a", "")), FST_E_FORMAT,
         "annotation 1 (samples 7, 2 of them) goes past the end of its data file, which has 8"},
        {GLOBAL("cu8", "") NOTES(NOTE(9223372036854775807, 9223372036854775807, "a", "")), FST_E_FORMAT,
         "goes past the end"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 0, "a", "")), FST_E_FORMAT, "annotation 0 has no samples"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a", BURST(-1, 0))), FST_E_FORMAT, "fedstill:burst must be"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a", BURST(4294967296, 0))), FST_E_LIMIT, "fedstill:burst is 4294967296"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a", BURST(0, "x"))), FST_E_FORMAT, "fedstill:snr_db"},
        {GLOBAL("cu8", ", \"core:offset\": 5") NOTES(NOTE(0, 2, "a", "")), FST_E_FORMAT, "before core:offset 5"},
        {GLOBAL("cf32_le", "") NOTES(NOTE(0, 2, "a", "")), FST_E_NUMERIC,
         "bad.sigmf-data: sample 0 (annotation 0): I is -nan"},
        {GLOBAL("ci16_le", "") NOTES(NOTE(0, 5, "a", "")), FST_E_FORMAT, "which has 4"},
    };
    unsigned char data[16];
    fst_source *s = NULL;
    (void)state;
    memset(data, 0xFF, sizeof data);
    put_file("bad.sigmf-data", data, sizeof data);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        put_text("bad.sigmf-meta", cases[i].text);
        assert_fails(open_sigmf(&s, "bad.sigmf-meta", 0, err), cases[i].want, cases[i].says);
        assert_null(s);
    }
    put_text("bad.sigmf-meta", GLOBAL("ci16_le", "") NOTES(NOTE(0, 2, "a", "")));
    put_file("bad.sigmf-data", data, 15);
    assert_fails(open_sigmf(&s, "bad.sigmf-meta", 0, err), FST_E_FORMAT, "15 bytes, not whole samples of 4: cut off");
    assert_int_equal(unlink(in_work("bad.sigmf-data")), 0);
    assert_fails(open_sigmf(&s, "bad.sigmf-meta", 0, err), FST_E_IO, "bad.sigmf-data");
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("b.sigmf-meta"), .split = "test"}, err),
                 FST_E_FORMAT, "one recording has no test split");
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("b.sigmf-meta"), .classes = 2}, err),
                 FST_E_CONFIG, "has 1 classes, but 2");
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_conforms),
        cmocka_unit_test(integers_are_scaled),
        cmocka_unit_test(annotations_are_cut_into_windows),
        cmocka_unit_test(a_folder_is_one_source),
        cmocka_unit_test(classes_may_have_an_order),
        cmocka_unit_test(offsets_are_absolute),
        cmocka_unit_test(the_digest_is_checked),
        cmocka_unit_test(what_is_wrong_is_said),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}

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

/* 0.5 and -0.25 (or, unsigned, nearly so) in every type of the standard and both byte orders. */
static void every_type_is_read(void **state)
{
    static const struct {
        const char *type;
        unsigned char i[8], q[8]; /* little-endian */
        unsigned width;
        float tolerance;
    } cases[] = {
        {"cf32", {0, 0, 0, 0x3F}, {0, 0, 0x80, 0xBE}, 4, 0},
        {"cf64", {0, 0, 0, 0, 0, 0, 0xE0, 0x3F}, {0, 0, 0, 0, 0, 0, 0xD0, 0xBF}, 8, 0},
        {"ci8", {64}, {0xE0}, 1, 0},
        {"ci16", {0, 64}, {0, 0xE0}, 2, 0},
        {"ci32", {0, 0, 0, 64}, {0, 0, 0, 0xE0}, 4, 0},
        {"cu8", {192}, {96}, 1, 6e-3f},
        {"cu16", {0, 192}, {0, 96}, 2, 3e-5f},
        {"cu32", {0, 0, 0, 192}, {0, 0, 0, 96}, 4, 1e-9f},
    };
    (void)state;
    for (size_t k = 0; k < 2 * sizeof cases / sizeof *cases; k++) {
        unsigned w = cases[k / 2].width;
        unsigned char raw[16];
        char text[512];
        float x[2];
        fst_source *s = NULL;
        for (unsigned b = 0; b < w; b++) {
            raw[k % 2 ? w - 1 - b : b] = cases[k / 2].i[b];
            raw[w + (k % 2 ? w - 1 - b : b)] = cases[k / 2].q[b];
        }
        put_file("type.sigmf-data", raw, 2 * w);
        snprintf(text, sizeof text, GLOBAL("%s%s", "") NOTES(NOTE(0, 1, "a", "")), cases[k / 2].type,
                 w == 1  ? ""
                 : k % 2 ? "_be"
                         : "_le");
        put_text("type.sigmf-meta", text);
        assert_ok(open_sigmf(&s, "type.sigmf-meta", 0, err));
        assert_ok(s->v->get(s, 0, x, err));
        assert_float_equal(x[0], 0.5f, cases[k / 2].tolerance);
        assert_float_equal(x[1], -0.25f, cases[k / 2].tolerance);
        fst_source_close(s);
    }
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

/* Windows' editors begin a text with a byte order mark, and some file systems know capitals only. */
static void marks_and_capitals(void **state)
{
    static const char *const paths[] = {"WIN/A.SIGMF-META", "WIN/A.SIGMF-DATA", "WIN"};
    (void)state;
    put_counting("WIN/A.SIGMF-DATA", 20);
    put_text("WIN/A.SIGMF-META", "\xEF\xBB\xBF" GLOBAL("cu8", "") NOTES(NOTE(5, 4, "a", "") "," NOTE(9, 4, "b", "")));
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        fst_source *s = NULL;
        assert_ok(open_sigmf(&s, paths[i], 0, err));
        assert_int_equal(s->count, 2);
        assert_int_equal(first_sample(s, 1), 9);
        fst_source_close(s);
    }
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
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("all"), .split = "val"}, err), FST_E_ABSENT,
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

/* Data files that are not the standard's own: another name, bytes before captures and after the last sample. */
static void headers_and_trailers_are_skipped(void **state)
{
    unsigned char raw[3 + 2 * 4 + 5 + 2 * 6 + 2];
    float x[8];
    fst_source *s = NULL;
    (void)state;
    memset(raw, 0xEE, sizeof raw);
    for (unsigned char i = 0; i < 10; i++) {
        unsigned char *at = raw + 3 + 2 * i + (i < 4 ? 0 : 5);
        at[0] = i;
        at[1] = (unsigned char)(255 - i);
    }
    put_file("odd.bin", raw, sizeof raw);
    put_text("odd.sigmf-meta",
             GLOBAL("cu8", ", \"core:dataset\": \"odd.bin\", \"core:trailing_bytes\": 2.0, \"core:offset\": "
                           "100.0") "\"captures\": [{\"core:sample_start\": 1e2, \"core:header_bytes\": "
                                    "3.0}, {\"core:sample_start\": 104, "
                                    "\"core:header_bytes\": 5}], \"annotations\": [" NOTE(100, 4, "a", "") "," NOTE(
                                        102, 4.0, "b", "") "," NOTE(104, 4, "a", "") "," NOTE(106, 4, "b", "") "]}");
    assert_ok(open_sigmf(&s, "odd.sigmf-meta", 0, err));
    assert_int_equal(s->count, 4);
    for (size_t w = 0; w < 4; w++) {
        assert_ok(s->v->get(s, w, x, err));
        for (size_t i = 0; i < 4; i++) { /* the second window has a header inside */
            assert_int_equal(lrintf(x[i] * 127.5f + 127.5f), 2 * w + i);
            assert_int_equal(lrintf(x[4 + i] * 127.5f + 127.5f), 255 - (2 * w + i));
        }
    }
    fst_source_close(s);
    s = NULL;
    put_text(
        "odd.sigmf-meta",
        GLOBAL("cu8",
               ", \"core:dataset\": \"odd.bin\", \"core:trailing_bytes\": 2") "\"captures\": [{\"core:sample_start\": "
                                                                              "0, \"core:header_bytes\": 8}], "
                                                                              "\"annotations\": [" NOTE(8, 3, "a",
                                                                                                        "") "]}");
    assert_fails(open_sigmf(&s, "odd.sigmf-meta", 0, err), FST_E_FORMAT, "which has 10");
    /* samples are there, whatever the metadata say */
    put_counting("only.sigmf-data", 8);
    put_text("only.sigmf-meta", GLOBAL("cu8", ", \"core:metadata_only\": true") NOTES(NOTE(3, 2, "a", "")));
    assert_ok(open_sigmf(&s, "only.sigmf-meta", 0, err));
    assert_int_equal(first_sample(s, 0), 3);
    fst_source_close(s);
}

static void annotations_may_end_with_their_capture(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put_counting("open.sigmf-data", 30);
    put_text(
        "open.sigmf-meta",
        GLOBAL(
            "cu8",
            "") "\"captures\": [{\"core:sample_start\": 20}, {\"core:sample_start\": 0}, {\"core:sample_start\": 40}], "
                "\"annotations\": [{\"core:sample_start\": 10, \"core:label\": \"a\"}, {\"core:sample_start\": 20, "
                "\"core:label\": \"b\"}]}");
    assert_ok(open_sigmf(&s, "open.sigmf-meta", 0, err));
    assert_int_equal(s->count, 2);
    assert_true(fst_shape_equal(&s->shape, &FST_SHAPE(2, 10))); /* to the next capture, and to the end of the data */
    assert_int_equal(first_sample(s, 1), 20);
    fst_source_close(s);
    s = NULL;
    put_text("open.sigmf-meta", GLOBAL("cu8", "") NOTES("{\"core:sample_start\": 31, \"core:label\": \"a\"}"));
    assert_fails(open_sigmf(&s, "open.sigmf-meta", 0, err), FST_E_FORMAT, "goes past the end");
}

static char heard[512];

static void hear(void *ctx, fst_log_level level, const char *message)
{
    (void)ctx;
    (void)level;
    snprintf(heard, sizeof heard, "%s", message);
}

static void older_labels_and_missing_ones(void **state)
{
    fst_source *s = NULL;
    (void)state;
    put_counting("old.sigmf-data", 8);
    put_text("old.sigmf-meta",
             GLOBAL("cu8", "") NOTES("{\"core:sample_start\": 0, \"core:sample_count\": 2, \"core:description\": "
                                     "\"x\"}, {\"core:sample_start\": 2,"
                                     "\"core:sample_count\": 2, \"core:description\": \"b\", \"core:label\": null}"));
    assert_ok(open_sigmf(&s, "old.sigmf-meta", 0, err));
    assert_int_equal(s->classes, 2);
    assert_string_equal(s->class_names[1], "x");
    assert_int_equal(s->labels[0], 1);
    fst_source_close(s);
    s = NULL;
    /* with a core:label anywhere, a description is prose; what has no label is left out, and its other keys do not
     * matter */
    put_text("old.sigmf-meta",
             GLOBAL("cu8", "") NOTES("{\"core:sample_start\": 0, \"core:sample_count\": 2, \"core:description\": "
                                     "\"prose\"}, {\"core:comment\": 1},"
                                     "{\"core:label\": \"\"}, " NOTE(4, 2, "b", "") "," NOTE(6, 2, "a", "")));
    fst_log_set(hear, NULL);
    assert_ok(open_sigmf(&s, "old.sigmf-meta", 0, err));
    fst_log_set(NULL, NULL);
    assert_non_null(strstr(heard, "old.sigmf-meta: 3 of 5 annotations have no core:label and are left out"));
    assert_int_equal(s->count, 2);
    assert_int_equal(first_sample(s, 0), 4);
    assert_int_equal(s->labels[0], 1);
    fst_source_close(s);
    s = NULL;
    put_text("old.sigmf-meta", GLOBAL("cu8", "") NOTES("{}, " NOTE(6, 3, "a", "")));
    assert_fails(open_sigmf(&s, "old.sigmf-meta", 0, err), FST_E_FORMAT, "annotation 1 (samples 6, 3 of them)");
    /* a recording of a folder may say nothing */
    put_counting("some/1.sigmf-data", 8);
    put_text("some/1.sigmf-meta", GLOBAL("cu8", "") NOTES(""));
    put_counting("some/2.sigmf-data", 8);
    put_text("some/2.sigmf-meta", GLOBAL("cu8", "") NOTES(NOTE(5, 2, "a", "")));
    fst_log_set(hear, NULL);
    assert_ok(open_sigmf(&s, "some", 0, err));
    fst_log_set(NULL, NULL);
    assert_non_null(strstr(heard, "some: 1 of 2 recordings have no annotation with a core:label"));
    assert_int_equal(first_sample(s, 0), 5);
    fst_source_close(s);
}

/* ---- archives ----------------------------------------------------------------------------------- */

static size_t put_member(unsigned char *at, const char *name, char type, const void *data, size_t len)
{
    unsigned sum = 0;
    memset(at, 0, 512);
    snprintf((char *)at, 100, "%s", name);
    memcpy(at + 100, "0000644", 8);
    memcpy(at + 108, "0000000", 8);
    memcpy(at + 116, "0000000", 8);
    snprintf((char *)at + 124, 12, "%011o", (unsigned)len);
    memcpy(at + 136, "00000000000", 12);
    memset(at + 148, ' ', 8);
    at[156] = (unsigned char)type;
    memcpy(at + 257, "ustar\00000", 8);
    for (int i = 0; i < 512; i++)
        sum += at[i];
    snprintf((char *)at + 148, 8, "%06o", sum);
    memset(at + 512, 0, (len + 511) / 512 * 512);
    memcpy(at + 512, data, len);
    return 512 + (len + 511) / 512 * 512;
}

static void archives_are_read(void **state)
{
    static const char first[] = GLOBAL("cu8", "") NOTES(NOTE(2, 2, "z", "")),
                      second[] = GLOBAL("cu8", ", \"core:dataset\": \"b.raw\"") NOTES(NOTE(4, 2, "y", ""));
    unsigned char tar[16384], raw[16];
    size_t n = 0, begin;
    fst_source *s = NULL;
    (void)state;
    for (int i = 0; i < 16; i++)
        raw[i] = (unsigned char)(i / 2);
    n += put_member(tar + n, "r/", '5', "", 0);
    n += put_member(tar + n, "r/b.sigmf-meta", '0', second, sizeof second - 1);
    n += put_member(tar + n, "r/b.raw", '0', raw, sizeof raw);
    n += put_member(tar + n, "r/a.sigmf-data", '0', raw, sizeof raw);
    begin = n;
    n += put_member(tar + n, "r/a.sigmf-meta", '0', first, sizeof first - 1);
    memset(tar + n, 0, 1024);
    put_file("two.sigmf", tar, n + 1024);
    fst_error why;
    if (open_sigmf(&s, "two.sigmf", 0, &why) == FST_E_UNSUPPORTED) { /* built without it */
        assert_non_null(strstr(why.message, "without libarchive"));
        return;
    }
    assert_non_null(s);
    assert_int_equal(s->count, 2);
    assert_int_equal(first_sample(s, 0), 2); /* recordings by name */
    assert_int_equal(first_sample(s, 1), 4);
    assert_string_equal(s->class_names[0], "y");
    assert_int_equal(s->labels[0], 1);
    fst_source_close(s);
    s = NULL;
    /* a plain tar file is one too, by its name alone */
    put_file("two.tar", tar, n + 1024);
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work("two.tar")}, err));
    assert_int_equal(s->count, 2);
    fst_source_close(s);
    s = NULL;
    put_text("two.tar.gz", "\x1f\x8b");
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("two.tar.gz")}, err), FST_E_FORMAT,
                 "a compressed archive: unpack it");
    /* beside others in a folder, known by its name */
    put_file("mixed/two.sigmf", tar, n + 1024);
    put_counting("mixed/x.sigmf-data", 8);
    put_text("mixed/x.sigmf-meta", GLOBAL("cu8", "") NOTES(NOTE(6, 2, "x", "")));
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work("mixed")}, err));
    assert_int_equal(s->count, 3);
    assert_int_equal(s->classes, 3);
    assert_int_equal(first_sample(s, 2), 6);
    fst_source_close(s);
    s = NULL;
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("two.sigmf"), .split = "test"}, err),
                 FST_E_ABSENT, "one archive has no test split");
    put_file("two.sigmf", tar, begin);
    assert_ok(open_sigmf(&s, "two.sigmf", 0, err)); /* no end mark: what is there is whole */
    assert_int_equal(s->count, 1);
    fst_source_close(s);
    s = NULL;
    put_file("two.sigmf", tar, begin - 510);
    assert_fails(open_sigmf(&s, "two.sigmf", 0, err), FST_E_FORMAT, "two.sigmf: ");
    n = put_member(tar, "a.sigmf-meta", '0', first, sizeof first - 1);
    put_file("two.sigmf", tar, n);
    assert_fails(open_sigmf(&s, "two.sigmf", 0, err), FST_E_FORMAT, "there is no a.sigmf-data in the archive");
    n = put_member(tar, "a.sigmf-data", '0', raw, sizeof raw);
    put_file("two.sigmf", tar, n);
    assert_fails(open_sigmf(&s, "two.sigmf", 0, err), FST_E_FORMAT, "no .sigmf-meta file in this archive");
    put_text("two.sigmf", "no tar file at all, but a text");
    assert_fails(open_sigmf(&s, "two.sigmf", 0, err), FST_E_FORMAT, "no SigMF archive");
    memcpy(tar + 124, "77777777777", 11); /* 8 GB, the file says */
    memset(tar + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++)
        sum += tar[i];
    snprintf((char *)tar + 148, 8, "%06o", sum);
    put_file("two.sigmf", tar, n);
    assert_fails(open_sigmf(&s, "two.sigmf", 0, err), FST_E_FORMAT, "8589934591 bytes, more than the archive");
    tar[156] = 'S'; /* tar --sparse: 64 bytes are there of 8 GB */
    memcpy(tar + 124, "00000000100", 11);
    memcpy(tar + 257, "ustar  ", 8);
    memcpy(tar + 386, "00000000000\00000000000100", 23);
    memcpy(tar + 483, "77777777777", 11);
    memset(tar + 148, ' ', 8);
    sum = 0;
    for (int i = 0; i < 512; i++)
        sum += tar[i];
    snprintf((char *)tar + 148, 8, "%06o", sum);
    put_file("two.sigmf", tar, n);
    assert_fails(open_sigmf(&s, "two.sigmf", 0, err), FST_E_FORMAT, "packed with holes (tar --sparse)");
}

/* ---- limits ------------------------------------------------------------------------------------- */

static void small_files_do_not_take_much_memory(void **state)
{
    enum { NOTES_COUNT = 2000, SAMPLES = 8192 };
    static char text[NOTES_COUNT * 80 + 200], brackets[9 << 20];
    static unsigned char raw[2 * SAMPLES];
    size_t n = 0;
    fst_source *s = NULL;
    (void)state;
    put_file("often.sigmf-data", raw, sizeof raw);
    n += (size_t)snprintf(text, sizeof text, GLOBAL("cu8", "") "\"annotations\": [");
    for (int i = 0; i < NOTES_COUNT; i++)
        n += (size_t)snprintf(text + n, sizeof text - n, "%s" NOTE(0, 8192, "a", ""), i ? "," : "");
    snprintf(text + n, sizeof text - n, "]}");
    put_text("often.sigmf-meta", text);
    assert_fails(open_sigmf(&s, "often.sigmf-meta", 0, err), FST_E_LIMIT, "annotations overlap: 2000 windows of 8192");
    assert_ok(fst_source_open(&s, &(fst_source_spec){.path = in_work("often.sigmf-meta"), .limit = 20}, err));
    assert_int_equal(s->count, 20);
    fst_source_close(s);
    s = NULL;
    memset(brackets, '[', sizeof brackets);
    put_file("often.sigmf-meta", brackets, sizeof brackets);
    uint64_t before = fst_alloc_count();
    assert_fails(open_sigmf(&s, "often.sigmf-meta", 0, err), FST_E_LIMIT, "its JSON takes more memory");
    assert_true(fst_alloc_count() - before < 100);
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

#define A64 "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

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
        {GLOBAL("rf32_le", "") NOTES(""), FST_E_UNSUPPORTED, "core:datatype is \"rf32_le\", real samples"},
        {GLOBAL("cf16_le", "") NOTES(""), FST_E_UNSUPPORTED, "core:datatype is \"cf16_le\"; cf32, cf64, ci16"},
        {GLOBAL("ci16", "") NOTES(""), FST_E_UNSUPPORTED, "\"ci16\" without a byte order: ci16_le or ci16_be"},
        {GLOBAL("c", "") NOTES(""), FST_E_UNSUPPORTED, "core:datatype is \"c\""},
        {GLOBAL("_le", "") NOTES(""), FST_E_UNSUPPORTED, "core:datatype is \"_le\""},
        {GLOBAL("cu8", ", \"core:num_channels\": 2") NOTES(""), FST_E_UNSUPPORTED, "one channel"},
        {GLOBAL("cu8", ", \"core:num_channels\": 1.5") NOTES(""), FST_E_FORMAT,
         "core:num_channels must be a whole number >= 1, not 1.5"},
        {GLOBAL("cu8", ", \"core:num_channels\": \"1\"") NOTES(""), FST_E_FORMAT, "not \"1\""},
        {GLOBAL("cu8", ", \"core:dataset\": \"../x.bin\"") NOTES(""), FST_E_FORMAT, "core:dataset must be the name"},
        {GLOBAL("cu8", ", \"core:dataset\": \"..\"") NOTES(""), FST_E_FORMAT, "core:dataset must be the name"},
        {GLOBAL("cu8", ", \"core:dataset\": 7") NOTES(""), FST_E_FORMAT, "core:dataset must be the name"},
        {GLOBAL("cu8", ", \"core:dataset\": \"missing.bin\"") NOTES(NOTE(0, 2, "a", "")), FST_E_IO, "missing.bin"},
        {GLOBAL("cu8", ", \"core:metadata_only\": \"yes\"") NOTES(""), FST_E_FORMAT, "true or false, not \"yes\""},
        {GLOBAL("cu8", ", \"core:trailing_bytes\": 17") NOTES(""), FST_E_FORMAT, "more than the 16 bytes"},
        {GLOBAL("cu8", ", \"core:trailing_bytes\": true") NOTES(""), FST_E_FORMAT, "trailing_bytes must be"},
        {GLOBAL("cu8", ", \"core:trailing_bytes\": 3") NOTES(NOTE(0, 2, "a", "")), FST_E_FORMAT, "cut off"},
        {GLOBAL("cu8", ", \"core:offset\": \"0\"") NOTES(""), FST_E_FORMAT, "core:offset must be"},
        {GLOBAL("cu8", ", \"core:extensions\": [{\"name\": \"odd\", \"version\": \"1\", \"optional\": false}]")
             NOTES(""),
         FST_E_UNSUPPORTED, "extension \"odd\""},
        {GLOBAL("cu8", "") "\"captures\": [{\"core:header_bytes\": -4}]}", FST_E_FORMAT,
         "capture 0: core:header_bytes must be a whole number >= 0, not -4"},
        {GLOBAL("cu8", "") "\"captures\": [{\"core:header_bytes\": 18}]}", FST_E_FORMAT, "more than the 16 bytes"},
        {GLOBAL("cu8", "") "\"captures\": [{}, {}]}", FST_E_FORMAT, "capture 1: core:sample_start is missing"},
        {GLOBAL("cu8",
                "") "\"captures\": [{\"core:sample_start\": 4}, {\"core:sample_start\": 0, \"core:header_bytes\": "
                    "1}]}",
         FST_E_FORMAT, "captures are not sorted"},
        {GLOBAL("cu8", "") "\"captures\": [{\"core:header_bytes\": 9223372036854775807}, {\"core:sample_start\": 1, "
                           "\"core:header_bytes\": 9223372036854775807}, {\"core:sample_start\": 2, "
                           "\"core:header_bytes\": 2}]}",
         FST_E_FORMAT, "more than any file has"},
        {GLOBAL("cu8", "") NOTES(""), FST_E_FORMAT, "no annotations"},
        {GLOBAL("cu8", "") NOTES("1"), FST_E_FORMAT, "annotation 0 is no object"},
        {GLOBAL("cu8", "") NOTES("{\"core:sample_count\": 1, \"core:label\": \"a\"}"), FST_E_FORMAT,
         "core:sample_start must be"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, "2", "a", "")), FST_E_FORMAT,
         "annotation 0: core:sample_count must be a whole number >= 0, not \"2\""},
        {GLOBAL("cu8", "") NOTES(NOTE(0.5, 2, "a", "")), FST_E_FORMAT, "core:sample_start must be a whole number"},
        {GLOBAL("cu8", "") NOTES("{\"core:sample_start\": 0, \"core:sample_count\": 2, \"core:label\": 7}"),
         FST_E_FORMAT, "annotation 0: core:label 7 is no text"},
        {GLOBAL("cu8", "") NOTES("{\"core:sample_start\": 0, \"core:sample_count\": 2, \"core:description\": [7]}"),
         FST_E_FORMAT, "annotation 0: core:description a list is no text"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a\\u001b[31m", "")), FST_E_FORMAT, "has control characters"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a\\u009b", "")), FST_E_FORMAT, "has control characters"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a\\u202e", "")), FST_E_FORMAT, "has control characters"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, A64 A64 A64 A64, "")), FST_E_FORMAT, "is longer than 255 bytes"},
        {GLOBAL("cu8", ", \"fedstill:classes\": [\"a\", \"" A64 A64 A64 A64 "\"]") NOTES(""), FST_E_FORMAT,
         "different texts; one is longer"},
        {GLOBAL("cu8", "") NOTES(NOTE(-1, 2, "a", "")), FST_E_FORMAT, "core:sample_start must be"},
        {GLOBAL("cu8", "") NOTES("{\"core:sample_start\": 0, \"core:sample_count\": 2}"), FST_E_FORMAT,
         "none of 1 annotations has a core:label"},
        {GLOBAL("cu8", "") "\"annotations\": {}}", FST_E_FORMAT, "annotations must be a list"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a", "") "," NOTE(7, 2, "a", "")), FST_E_FORMAT,
         "annotation 1 (samples 7, 2 of them) goes past the end of its data file, which has 8"},
        {GLOBAL("cu8", "") NOTES(NOTE(9223372036854775807, 9223372036854775807, "a", "")), FST_E_FORMAT,
         "goes past the end"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 0, "a", "")), FST_E_FORMAT, "annotation 0 has no samples"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a", BURST(-1, 0))), FST_E_FORMAT, "fedstill:burst must be"},
        {GLOBAL("cu8", "") NOTES(NOTE(0, 2, "a", BURST(4294967296, 0))), FST_E_FORMAT,
         "fedstill:burst must be a whole number from 0 to 2147483647, not 4294967296"},
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
    assert_fails(open_sigmf(&s, "bad.sigmf-meta", 0, err), FST_E_FORMAT,
                 "15 bytes of samples, not whole samples of 4: cut off");
    assert_int_equal(unlink(in_work("bad.sigmf-data")), 0);
    assert_fails(open_sigmf(&s, "bad.sigmf-meta", 0, err), FST_E_IO, "bad.sigmf-data");
    put_text("bad.sigmf-meta", GLOBAL("ci16_le", ", \"core:metadata_only\": true") NOTES(NOTE(0, 2, "a", "")));
    assert_fails(open_sigmf(&s, "bad.sigmf-meta", 0, err), FST_E_UNSUPPORTED, "core:metadata_only, and no samples at");
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("b.sigmf-meta"), .split = "test"}, err),
                 FST_E_ABSENT, "one recording has no test split");
    assert_fails(fst_source_open(&s, &(fst_source_spec){.path = in_work("b.sigmf-meta"), .classes = 2}, err),
                 FST_E_CONFIG, "has 1 classes, but 2");
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_conforms),
        cmocka_unit_test(integers_are_scaled),
        cmocka_unit_test(every_type_is_read),
        cmocka_unit_test(headers_and_trailers_are_skipped),
        cmocka_unit_test(annotations_may_end_with_their_capture),
        cmocka_unit_test(older_labels_and_missing_ones),
        cmocka_unit_test(archives_are_read),
        cmocka_unit_test(small_files_do_not_take_much_memory),
        cmocka_unit_test(annotations_are_cut_into_windows),
        cmocka_unit_test(marks_and_capitals),
        cmocka_unit_test(a_folder_is_one_source),
        cmocka_unit_test(classes_may_have_an_order),
        cmocka_unit_test(offsets_are_absolute),
        cmocka_unit_test(the_digest_is_checked),
        cmocka_unit_test(what_is_wrong_is_said),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}

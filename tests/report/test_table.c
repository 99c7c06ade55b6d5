/* Tables, pictures and units, compared with what a person would draw by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "fedstill/report.h"

static const fst_column columns[] = {{"name", FST_LEFT}, {"n", FST_RIGHT}, {"note", FST_LEFT}};

static fst_table *sample(void)
{
    static const char *const cells[] = {
        "a", "1", "first", "Zürich", "1000", "", "東京", "-5", "two\nlines\tand\x1b[0m"};
    fst_table *t = NULL;
    assert_int_equal(fst_table_new(&t, columns, 3, NULL), FST_OK);
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        assert_int_equal(fst_table_cell(t, NULL, "%s", cells[i]), FST_OK);
    return t;
}

static void test_columns_stand_under_each_other(void **state)
{
    (void)state;
    fst_table *t = sample();
    fst_buf out = {0};
    assert_int_equal(fst_table_rows(t), 3);
    assert_int_equal(fst_table_write(t, true, &out, NULL), FST_OK);
    assert_string_equal(out.data, "name       n  note\n"
                                  "------  ----  -----------------\n"
                                  "a          1  first\n"
                                  "Zürich  1000\n"
                                  "東京      -5  two lines and [0m\n");
    fst_buf_release(&out);
    fst_table_free(t);
}

static void test_rules_and_unfinished_rows(void **state)
{
    (void)state;
    fst_table *t = NULL;
    fst_buf out = {0};
    assert_int_equal(fst_buf_append(&out, "before ", 7, NULL), FST_OK);
    assert_int_equal(fst_table_new(&t, columns, 3, NULL), FST_OK);
    assert_int_equal(fst_table_cell(t, NULL, "%d %%", 5), FST_OK);
    assert_int_equal(fst_table_rule(t, NULL), FST_OK);
    assert_int_equal(fst_table_cell(t, NULL, "sum"), FST_OK);
    assert_int_equal(fst_table_cell(t, NULL, "7"), FST_OK);
    assert_int_equal(fst_table_rows(t), 2);
    assert_int_equal(fst_table_write(t, false, &out, NULL), FST_OK);
    assert_string_equal(out.data, "before name  n  note\n"
                                  "────  ─  ────\n"
                                  "5 %\n"
                                  "────  ─  ────\n"
                                  "sum   7\n");
    fst_buf_release(&out);
    fst_table_free(t);
    assert_int_equal(fst_table_new(&t, columns, 0, NULL), FST_E_ARGUMENT);
}

static fst_status build_and_write(fst_buf *out)
{
    fst_table *t = NULL;
    fst_status s = fst_table_new(&t, columns, 3, NULL);
    for (int i = 0; !s && i < 90; i++)
        s = fst_table_cell(t, NULL, "cell %d", i);
    if (!s)
        s = fst_table_rule(t, NULL);
    if (!s)
        s = fst_table_write(t, false, out, NULL);
    fst_table_free(t);
    return s;
}

static void test_failing_allocations_leave_the_output_alone(void **state)
{
    (void)state;
    fst_status s = FST_E_MEMORY;
    uint64_t n = 1;
    for (; s; n++) {
        fst_buf out = {0};
        assert_int_equal(fst_buf_append(&out, "x", 1, NULL), FST_OK);
        fst_alloc_fail_at(n);
        s = build_and_write(&out);
        fst_alloc_fail_at(0);
        assert_true(s == FST_OK || s == FST_E_MEMORY);
        if (s)
            assert_string_equal(out.data, "x");
        fst_buf_release(&out);
    }
    assert_true(n > 90);
}

/* Columns are left out by rank, then text is wrapped; numbers stay whole. */
static void test_a_table_fits(void **state)
{
    (void)state;
    static const struct {
        size_t width;
        const char *wanted;
    } cases[] = {
        {0, "name                      n  note       more\n"
            "------------------  -------  ---------  ----\n"
            "two or three words  1234567  long-word  x\n"
            "b                         1\n"},
        {44, "name                      n  note       more\n"
             "------------------  -------  ---------  ----\n"
             "two or three words  1234567  long-word  x\n"
             "b                         1\n"},
        {43, "name                      n  note\n"
             "------------------  -------  ---------\n"
             "two or three words  1234567  long-word\n"
             "b                         1\n"},
        {30, "name              n  note\n"
             "----------  -------  ---------\n"
             "two or      1234567  long-word\n"
             "three\n"
             "words\n"
             "b                 1\n"},
        {1, "name            n  note\n"
            "--------  -------  --------\n"
            "two or    1234567  long-wor\n"
            "three              d\n"
            "words\n"
            "b               1\n"},
    };
    static const fst_column four[] = {{"name", FST_LEFT}, {"n", FST_RIGHT}, {"note", FST_LEFT}, {"more", FST_LEFT}};
    static const char *const cells[] = {"two or three words", "1234567", "long-word", "x", "b", "1"};
    fst_table *t = NULL;
    assert_int_equal(fst_table_new(&t, four, 4, NULL), FST_OK);
    for (size_t i = 0; i < sizeof cells / sizeof *cells; i++)
        assert_int_equal(fst_table_cell(t, NULL, "%s", cells[i]), FST_OK);
    fst_table_rank(t, 3, 1);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_buf out = {0};
        fst_table_fit(t, cases[i].width);
        assert_int_equal(fst_table_write(t, true, &out, NULL), FST_OK);
        assert_string_equal(out.data, cases[i].wanted);
        fst_buf_release(&out);
    }
    fst_table_free(t);
}

static void cleans(const char *text, const char *line, const char *lines)
{
    char own[64];
    snprintf(own, sizeof own, "%s", text);
    fst_text_clean(own, false);
    assert_string_equal(own, line);
    snprintf(own, sizeof own, "%s", text);
    fst_text_clean(own, true);
    assert_string_equal(own, lines);
}

static void test_foreign_text(void **state)
{
    (void)state;
    cleans("", "", "");
    cleans("Zürich 東京 \xF0\x9F\x98\x80 e\xCC\x81", "Zürich 東京 \xF0\x9F\x98\x80 e\xCC\x81",
           "Zürich 東京 \xF0\x9F\x98\x80 e\xCC\x81");
    cleans("a\n\tb\rc", "a  b c", "a\n\tb?c");
    cleans("\x1b[31m\x7f", " [31m ", "?[31m?");
    cleans("\xC2\x9B"
           "31m",
           "?31m", "?31m"); /* CSI as one character */
    cleans("\x9B"
           "31m",
           "?31m", "?31m"); /* and as a byte of Latin-1 */
    cleans("a\xE2\x80\xAE"
           "fdp.exe",
           "a?fdp.exe", "a?fdp.exe");                  /* U+202E */
    cleans("\xE2\x81\xA6x\xE2\x81\xA9", "?x?", "?x?"); /* isolates */
    cleans("a\xE2\x80\x8B"
           "b\xEF\xBB\xBF",
           "a?b?", "a?b?"); /* invisible */
    cleans("a\xE2\x80\x8D"
           "b",
           "a\xE2\x80\x8D"
           "b",
           "a\xE2\x80\x8D"
           "b"); /* a joiner */
    cleans("\xE0\x80\x9B"
           "1m",
           "?1m", "?1m");                   /* escape in too long a form */
    cleans("\xED\xA0\x80\xC3", "??", "??"); /* a surrogate; a character that is cut off */
    cleans("\xF3\xA0\x81\x81", "?", "?");   /* a tag */
}

static void test_foreign_text_in_json(void **state)
{
    (void)state;
    fst_buf out = {0};
    assert_int_equal(fst_text_json(&out, "{\n\t\"a\": \"\xC2\x9B \xE2\x80\xAE ü \x7F \xF3\xA0\x81\x81\"}", NULL),
                     FST_OK);
    assert_string_equal(out.data, "{\n\t\"a\": \"\\u009b \\u202e ü \\u007f \\udb40\\udc41\"}");
    fst_buf_release(&out);
}

static void test_widths(void **state)
{
    (void)state;
    assert_int_equal(fst_text_width(""), 0);
    assert_int_equal(fst_text_width("abc"), 3);
    assert_int_equal(fst_text_width("e\xCC\x81"), 1);     /* e and a combining accent */
    assert_int_equal(fst_text_width("\xE6\x9D\xB1"), 2);  /* wide */
    assert_int_equal(fst_text_width("\xFF\xC3"), 2);      /* not UTF-8: a column a byte */
    assert_int_equal(fst_text_width("\xE2\x96\x88|"), 2); /* a block */
}

static void test_heat_map(void **state)
{
    (void)state;
    static const double values[] = {0, 1, 100, 25, 26, 50, 75, 76, -1, NAN, INFINITY, 0};
    static const char *const rows[] = {"c1", "c10", "c100"};
    fst_heat_map m = {"client", "class", rows, NULL, 3, 4, values};
    fst_buf out = {0};
    assert_int_equal(fst_report_heat_map(&m, true, &out, NULL), FST_OK);
    assert_string_equal(out.data, "       class\n"
                                  "client 0 1 2 3\n"
                                  "    c1|  ..##..|\n"
                                  "   c10|::::**##|\n"
                                  "  c100|??????  |\n"
                                  "       blank: 0  ..: to 25  ::: to 50  **: to 75  ##: to 100\n");
    out.len = 0;
    assert_int_equal(fst_report_heat_map(&m, false, &out, NULL), FST_OK);
    assert_non_null(strstr(out.data, "    c1│  ░░██░░│\n   c10│▒▒▒▒▓▓██│\n"));
    fst_buf_release(&out);
    m.columns = 0;
    assert_int_equal(fst_report_heat_map(&m, true, &out, NULL), FST_E_ARGUMENT);
}

/* Two-digit names do not touch each other, and each stands over its own column. */
static void test_heat_map_with_many_columns(void **state)
{
    (void)state;
    double values[13];
    for (int i = 0; i < 13; i++)
        values[i] = i;
    fst_heat_map m = {NULL, NULL, NULL, NULL, 1, 13, values};
    fst_buf out = {0};
    assert_int_equal(fst_report_heat_map(&m, true, &out, NULL), FST_OK);
    char *end = strchr(out.data, '\n');
    *end = 0;
    assert_string_equal(out.data, "  0 1 2 3 4 5 6 7 8 9 10  12");
    assert_int_equal(strlen(strtok(end + 1, "\n")), strlen("0||") + 26);
    fst_buf_release(&out);
}

static void test_all_zero_heat_map(void **state)
{
    (void)state;
    static const double zero[2] = {0, 0};
    fst_heat_map m = {NULL, NULL, NULL, NULL, 2, 1, zero};
    fst_buf out = {0};
    assert_int_equal(fst_report_heat_map(&m, true, &out, NULL), FST_OK);
    assert_string_equal(out.data, "  0\n0|  |\n1|  |\n  blank: 0\n");
    fst_buf_release(&out);
}

static void test_bars(void **state)
{
    (void)state;
    static const fst_bar bars[] = {{"a", 8, NULL},    {"long", 4, "four"}, {"tiny", 0.001, NULL},
                                   {"zero", 0, NULL}, {"nan", NAN, NULL},  {"neg", -3, NULL}};
    fst_buf out = {0};
    assert_int_equal(fst_report_bars(bars, 6, 8, 0, true, &out, NULL), FST_OK);
    assert_string_equal(out.data, "a     ######## 8\n"
                                  "long  #### four\n"
                                  "tiny  # 0.001\n"
                                  "zero  0\n"
                                  "nan   -\n"
                                  "neg   -3\n");
    out.len = 0;
    assert_int_equal(fst_report_bars(bars, 2, 4, 64, false, &out, NULL), FST_OK);
    assert_string_equal(out.data, "a     ▌ 8\n"
                                  "long  ▎ four\n");
    fst_buf_release(&out);
}

static void test_one_bar(void **state)
{
    (void)state;
    static const struct {
        double share;
        const char *ascii, *utf8;
    } cases[] = {{0, "", ""},  {0.5, "##", "██"}, {0.4, "##", "█▋"}, {1, "####", "████"},       {7, "####", "████"},
                 {-1, "", ""}, {NAN, "", ""},     {1e-9, "#", "▏"},  {INFINITY, "####", "████"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_buf out = {0};
        assert_int_equal(fst_buf_append(&out, "|", 1, NULL), FST_OK);
        assert_int_equal(fst_report_bar(cases[i].share, 4, true, &out, NULL), FST_OK);
        assert_int_equal(fst_buf_append(&out, "|", 1, NULL), FST_OK);
        assert_int_equal(fst_report_bar(cases[i].share, 4, false, &out, NULL), FST_OK);
        char wanted[64];
        snprintf(wanted, sizeof wanted, "|%s|%s", cases[i].ascii, cases[i].utf8);
        assert_string_equal(out.data, wanted);
        fst_buf_release(&out);
    }
}

typedef const char *(*format_fn)(double, char[FST_HUMAN]);

static void check(format_fn fn, double x, const char *wanted)
{
    char out[FST_HUMAN];
    assert_string_equal(fn(x, out), wanted);
}

static void test_units(void **state)
{
    (void)state;
    check(fst_human_bytes, 0, "0 B");
    check(fst_human_bytes, 999, "999 B");
    check(fst_human_bytes, 1000, "1.0 kB");
    check(fst_human_bytes, 1234567, "1.2 MB");
    check(fst_human_bytes, 99.96e6, "100 MB");
    check(fst_human_bytes, 999.6e6, "1.0 GB");
    check(fst_human_bytes, -2e9, "-2.0 GB");
    check(fst_human_bytes, 5e18, "5000 PB");
    check(fst_human_bytes, NAN, "-");
    check(fst_human_count, 12345, "12.3k");
    check(fst_human_count, 999, "999");
    check(fst_human_count, 0.8765, "0.876");
    check(fst_human_count, 1.25, "1.2");
    check(fst_human_count, 4.5e6, "4.5M");
    check(fst_human_count, INFINITY, "-");
    check(fst_human_seconds, 0, "0 s");
    check(fst_human_seconds, 0.0000125, "12.5 µs");
    check(fst_human_seconds, 0.0012, "1.2 ms");
    check(fst_human_seconds, 3.44, "3.4 s");
    check(fst_human_seconds, 59.99, "1 min 00 s");
    check(fst_human_seconds, 125, "2 min 05 s");
    check(fst_human_seconds, 3599.9, "1 h 00 min");
    check(fst_human_seconds, 11235, "3 h 07 min");
    check(fst_human_percent, 0.9871, "98.71 %");
    check(fst_human_percent, NAN, "-");
}

static void test_time(void **state)
{
    (void)state;
    char out[FST_HUMAN];
    setenv("TZ", "UTC", 1);
    tzset();
    assert_string_equal(fst_human_time(1738324805999, out), "2025-01-31 12:00:05");
    assert_string_equal(fst_human_time(0, out), "-");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_columns_stand_under_each_other),
        cmocka_unit_test(test_rules_and_unfinished_rows),
        cmocka_unit_test(test_failing_allocations_leave_the_output_alone),
        cmocka_unit_test(test_a_table_fits),
        cmocka_unit_test(test_foreign_text),
        cmocka_unit_test(test_foreign_text_in_json),
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_heat_map),
        cmocka_unit_test(test_heat_map_with_many_columns),
        cmocka_unit_test(test_all_zero_heat_map),
        cmocka_unit_test(test_bars),
        cmocka_unit_test(test_one_bar),
        cmocka_unit_test(test_units),
        cmocka_unit_test(test_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

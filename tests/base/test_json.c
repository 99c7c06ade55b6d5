/* Whole numbers of JSON, however they are written, and what is none. */
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "fedstill/base.h"

static json_t *parse(const char *text)
{
    json_t *j = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(j);
    return j;
}

static void whole_numbers_have_many_spellings(void **state)
{
    static const struct {
        const char *text;
        int64_t want;
    } cases[] = {{"100", 100},
                 {"100.0", 100},
                 {"1.6E+1", 16},
                 {"-2e0", -2},
                 {"-0.0", 0},
                 {"9007199254740992.0", INT64_C(9007199254740992)},
                 {"9223372036854775807", INT64_MAX}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t v = 7;
        json_t *j = parse(cases[i].text);
        assert_true(fst_json_is_whole(j, &v));
        assert_int_equal(v, cases[i].want);
        json_decref(j);
    }
}

static void others_are_not_read_as_numbers(void **state)
{
    static const char *const texts[] = {"1.5", "1e16", "-1e300", "\"1\"", "true", "false", "null", "[1]", "{}"};
    int64_t v = 7;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        json_t *j = parse(texts[i]);
        assert_false(fst_json_is_whole(j, &v));
        json_decref(j);
    }
    assert_false(fst_json_is_whole(NULL, &v));
    assert_false(fst_whole_of_double(NAN, &v));
    assert_false(fst_whole_of_double(INFINITY, &v));
    assert_int_equal(v, 7);
}

static void members_say_what_was_found(void **state)
{
    static const struct {
        const char *value, *says;
    } cases[] = {
        {"1.5", "n must be a whole number from 0 to 9, not 1.5"},
        {"10", "n must be a whole number from 0 to 9, not 10"},
        {"\"7\"", "n must be a whole number from 0 to 9, not \"7\""},
        {"true", "n must be a whole number from 0 to 9, not true"},
        {"null", "n must be a whole number from 0 to 9, not null"},
        {"[7]", "n must be a whole number from 0 to 9, not a list"},
        {"{}", "n must be a whole number from 0 to 9, not an object"},
        /* cut between characters, not inside one */
        {"\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\xC3\xBC\xC3\xBC\"",
         "n must be a whole number from 0 to 9, not \"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa...\""},
    };
    fst_error err;
    char text[128];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t v = 7;
        snprintf(text, sizeof text, "{\"n\": %s}", cases[i].value);
        json_t *j = parse(text);
        assert_int_equal(fst_json_whole(j, "n", 0, 9, &v, &err), FST_E_FORMAT);
        assert_string_equal(err.message, cases[i].says);
        assert_int_equal(fst_json_whole(j, "n", 20, INT64_MAX, &v, &err), FST_E_FORMAT);
        assert_non_null(strstr(err.message, "a whole number >= 20, not "));
        assert_int_equal(fst_json_whole(j, "m", 0, 9, &v, &err), FST_OK); /* missing: as it was */
        assert_int_equal(v, 7);
        json_decref(j);
    }
    json_t *j = parse("{\"n\": 9.0}");
    int64_t v = 7;
    assert_int_equal(fst_json_whole(j, "n", 0, 9, &v, &err), FST_OK);
    assert_int_equal(v, 9);
    json_decref(j);
}

/* What jansson refuses to make a value of. */
static void values_of_anything(void **state)
{
    (void)state;
    static const double no_numbers[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < sizeof no_numbers / sizeof *no_numbers; i++) {
        json_t *j = fst_json_number(no_numbers[i]);
        assert_true(json_is_null(j));
        json_decref(j);
    }
    json_t *half = fst_json_number(-0.5), *latin = fst_json_text("caf\xE9"), *utf8 = fst_json_text("caf\xC3\xA9"),
           *none = fst_json_text(NULL);
    assert_true(json_real_value(half) == -0.5);
    assert_string_equal(json_string_value(latin), "caf?");
    assert_string_equal(json_string_value(utf8), "caf\xC3\xA9");
    assert_true(json_is_null(none));
    json_decref(half);
    json_decref(latin);
    json_decref(utf8);
    json_decref(none);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_anything),
        cmocka_unit_test(whole_numbers_have_many_spellings),
        cmocka_unit_test(others_are_not_read_as_numbers),
        cmocka_unit_test(members_say_what_was_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

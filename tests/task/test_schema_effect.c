/* Conditions of the schema's tables: keys that have no effect are refused, what is written leaves them out, and the
 * tables of the task file are sound. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "task_file.h"

struct sampler {
    int order;
    double width;
    int64_t seed, parts;
    bool twice, either;
};
struct plan {
    char *file;
    bool has_sampler;
    int64_t rounds;
    double share;
    struct sampler sampler;
    struct sampler *more;
    size_t nmore;
};
static const char *const orders[] = {"sorted", "random", "blocks", NULL};
static const fst__field sampler_fields[] = {
    FST__F_ENUM(struct sampler, order, orders, "sorted", "which comes first"),
    FST__F_DOUBLE(struct sampler, width, 0, 9, "2", "how wide", .when = {FST__WITH("order", "random", "blocks")}),
    FST__F_INT(struct sampler, seed, 0, 9, "0", "of the draw",
               .when = {FST__WITH("order", "random"), FST__WITH_ANY("rounds")}),
    FST__F_INT(struct sampler, parts, 0, 9, "1", "how many", .when = {FST__WITHOUT("order", "sorted")}),
    FST__F_BOOL(struct sampler, twice, "false", "again", .when = {FST__WITHOUT_ANY("share")}),
    FST__F_BOOL(struct sampler, either, "false", "both", .when = {FST__WITH_EITHER("rounds", "file")}),
};
static const fst__schema sampler_schema = FST__SCHEMA(struct sampler, sampler_fields, .shorthand = "order");
static const fst__field plan_fields[] = {
    FST__F_STRING(struct plan, file, NULL, "a file", .when = {FST__WITH("sampler.order", "blocks")}),
    FST__F_INT(struct plan, rounds, 0, 9, "0", "rounds"),
    FST__F_DOUBLE(struct plan, share, 0, 1, "0", "share", .when = {FST__WITH_ANY("sampler")}),
    FST__F_OPTIONAL(struct plan, sampler, has_sampler, &sampler_schema, "draws"),
    FST__F_MAPS(struct plan, more, struct sampler, nmore, 3, &sampler_schema, NULL, "draws",
                .when = {FST__WITH_ANY("rounds")}),
};
static const fst__schema plan_schema = FST__SCHEMA(struct plan, plan_fields);

/* message NULL: it is accepted. */
static void assert_effect(const char *text, const char *set, fst__unused unused, const char *message)
{
    struct plan p;
    fst_error err = {0};
    fst_status st = fst__schema_load_as(&plan_schema, "p", text, strlen(text), &set, set ? 1 : 0, unused, &p, &err);
    assert_int_equal(st, message ? FST_E_CONFIG : FST_OK);
    assert_string_equal(err.message, message ? message : "");
    if (!st)
        fst__schema_release(&plan_schema, &p);
}

static int warnings;
static char warning[300];
static void count_warning(void *ctx, fst_log_level level, const char *text)
{
    (void)ctx;
    warnings += level == FST_LOG_WARN;
    snprintf(warning, sizeof warning, "%s", text);
}

static void test_keys_without_effect(void **state)
{
    (void)state;
    const fst__unused refused = FST__UNUSED_REFUSED;
    assert_effect("sampler: {order: random, width: 3, parts: 2}", NULL, refused, NULL);
    assert_effect("sampler: {width: 3}", NULL, refused,
                  "p:1:11: sampler.width: has no effect with order sorted, only with order random or blocks");
    assert_effect("sampler: {either: true}", NULL, refused,
                  "p:1:11: sampler.either: has no effect without rounds or file: set that too, or leave this out");
    assert_effect("rounds: 1\nsampler: {either: true}", NULL, refused, NULL);
    assert_effect("file: f\nsampler: {order: blocks, either: true}", NULL, refused, NULL);
    assert_effect("sampler: {parts: 2}", NULL, refused,
                  "p:1:11: sampler.parts: has no effect with order sorted, only with order other than sorted");
    /* a field of a map around it; both conditions must hold */
    assert_effect("rounds: 1\nsampler: {order: random, seed: 2}", NULL, refused, NULL);
    assert_effect("sampler: {order: random, seed: 2}", NULL, refused,
                  "p:1:26: sampler.seed: has no effect without rounds: set that too, or leave this out");
    assert_effect("rounds: 1\nsampler: {order: blocks, seed: 2}", NULL, refused,
                  "p:2:26: sampler.seed: has no effect with order blocks, only with order random");
    assert_effect("share: 0.5\nsampler: {twice: true}", NULL, refused,
                  "p:2:11: sampler.twice: has no effect with share: leave out one of the two");
    /* a field of another map, whether that is there or not */
    assert_effect("file: x\nsampler: blocks", NULL, refused, NULL);
    assert_effect("file: x", NULL, refused, "p:1:1: file: has no effect, only with sampler.order blocks");
    assert_effect("share: 0.5", NULL, refused,
                  "p:1:1: share: has no effect without sampler: set that too, or leave this out");
    /* lists; an override says its own text */
    assert_effect("rounds: 2\nmore: [random, {width: 1}]", NULL, refused,
                  "p:2:17: more[1].width: has no effect with order sorted, only with order random or blocks");
    assert_effect("more: [random]", NULL, refused,
                  "p:1:1: more: has no effect without rounds: set that too, or leave this out");
    assert_effect("rounds: 2", "sampler.width=1", refused,
                  "--set sampler.width=1: sampler.width: has no effect with order sorted, only with order random or "
                  "blocks");
    /* what asks for nothing is accepted, and so are defaults and null */
    assert_effect("sampler: {width: 0, parts: 0, twice: false, seed: null}", NULL, refused, NULL);
    assert_effect("share: 0.1\nsampler: {twice: false}", NULL, refused, NULL);
    /* all of them at once */
    assert_effect("file: x\nsampler: {width: 3, parts: 2}", NULL, refused,
                  "p:1:1: file: has no effect with sampler.order sorted, only with sampler.order blocks\n"
                  "p:2:11: sampler.width: has no effect with order sorted, only with order random or blocks\n"
                  "p:2:21: sampler.parts: has no effect with order sorted, only with order other than sorted");
}

static void test_keys_without_effect_tolerated(void **state)
{
    (void)state;
    fst_log_set(count_warning, NULL);
    assert_effect("sampler: {width: 3}", NULL, FST__UNUSED_WARNED, NULL);
    assert_int_equal(warnings, 1);
    assert_string_equal(warning, "p: sampler.width: has no effect with order sorted, only with order random or blocks");
    assert_effect("sampler: {width: 3}", NULL, FST__UNUSED_IGNORED, NULL);
    assert_int_equal(warnings, 1);
    fst_log_set(NULL, NULL);
    assert_effect("sampler: sorted", "sampler.width=1", FST__UNUSED_WARNED,
                  "--set sampler.width=1: sampler.width: has no effect with order sorted, only with order random or "
                  "blocks");
}

/* What is written has no such keys, so that it can be read again; the reference names the conditions. */
static void test_conditions_are_written(void **state)
{
    (void)state;
    struct plan p;
    fst_buf b = {0};
    fst_error err = {0};
    const char text[] = "sampler: {order: random}\n";
    assert_int_equal(fst__schema_load(&plan_schema, "p", text, strlen(text), NULL, 0, &p, &err), FST_OK);
    assert_int_equal(fst__schema_dump(&plan_schema, &p, &b, &err), FST_OK);
    assert_string_equal(b.data,
                        "rounds: 0\nshare: 0\nsampler:\n  order: random\n  width: 2\n  parts: 1\n  twice: false\n");
    fst__schema_release(&plan_schema, &p);
    b.len = 0;
    assert_int_equal(fst__schema_reference(&plan_schema, "Plan", 1, &b, &err), FST_OK);
    assert_non_null(strstr(b.data, "| how wide; only with order random or blocks |"));
    assert_non_null(strstr(b.data, "| of the draw; only with order random and with rounds |"));
    assert_non_null(strstr(b.data, "| again; only without share |"));
    assert_non_null(strstr(b.data, "| both; only with rounds or file |"));
    fst_buf_release(&b);
    assert_int_equal(fst__schema_verify(&plan_schema, &err), FST_OK);
}

static void test_verifies_conditions(void **state)
{
    (void)state;
    const fst__field wrong[][2] = {
        {FST__F_ENUM(struct sampler, order, orders, "sorted", "x"),
         FST__F_INT(struct sampler, seed, 0, 9, "0", "x", .when = {FST__WITH_ANY("sede")})},
        {FST__F_ENUM(struct sampler, order, orders, "sorted", "x"),
         FST__F_INT(struct sampler, seed, 0, 9, "0", "x", .when = {FST__WITH_ANY("seed")})},
        {FST__F_ENUM(struct sampler, order, orders, "sorted", "x"),
         FST__F_INT(struct sampler, seed, 0, 9, "0", "x", .when = {FST__WITH("order", "sotred")})},
        {FST__F_ENUM(struct sampler, order, orders, "sorted", "x"),
         FST__F_INT(struct sampler, seed, 0, 9, "0", "x", .when = {FST__WITH_ANY("order")})},
    };
    const char *const messages[] = {"names no other field", "names no other field",
                                    "names a value that the other field does not have", "exactly where"};
    for (size_t i = 0; i < sizeof messages / sizeof *messages; i++) {
        const fst__schema s = FST__SCHEMA(struct sampler, wrong[i]);
        fst_error err = {0};
        assert_int_equal(fst__schema_verify(&s, &err), FST_E_ARGUMENT);
        assert_non_null(strstr(err.message, messages[i]));
    }
}

static void test_task_file_tables(void **state)
{
    (void)state;
    fst_error err = {0};
    assert_null(fst__strategy_options_clash()); /* options of one name are one field */
    if (fst__schema_verify(&fst__task_schema, &err))
        fail_msg("%s", err.message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keys_without_effect),    cmocka_unit_test(test_keys_without_effect_tolerated),
        cmocka_unit_test(test_conditions_are_written), cmocka_unit_test(test_verifies_conditions),
        cmocka_unit_test(test_task_file_tables),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

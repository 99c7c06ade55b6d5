/* The option parser on a table that uses all it offers: types, ranges, choices, lists, fallbacks, operands. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../cmd/fedstill/opt.c"

static const char *const modes[] = {"inproc", "nats", "mpi", NULL};
static const struct option_spec table[] = {
    {.name = "workers",
     .letter = 'w',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 64,
     .fallback = "4",
     .help = "."},
    {.name = "offset", .argument = "N", .type = OPTION_INT, .help = "."},
    {.name = "rate", .letter = 'r', .argument = "X", .type = OPTION_DOUBLE, .low = 0, .high = 1, .help = "."},
    {.name = "scale", .argument = "X", .type = OPTION_DOUBLE, .fallback = "2.5", .help = "."},
    {.name = "mode", .argument = "M", .type = OPTION_STRING, .choices = modes, .fallback = "nats", .help = "."},
    {.name = "stage", .argument = "S", .type = OPTION_STRING, .help = "."},
    {.name = "set", .letter = 's', .argument = "K=V", .type = OPTION_LIST, .help = "."},
    {.name = "fresh", .letter = 'f', .type = OPTION_FLAG, .help = "."},
    {0},
};
static const struct operand_spec words[] = {{"TASK", 1, 1, "."}, {"RUN", 0, -1, "."}, {0}};
static const struct command command = {.name = "test", .summary = "t", .options = table, .operands = words};

/* The words up to NULL. */
static fst_status parse(struct options **o, fst_error *err, char **argv)
{
    int argc = 0;
    while (argv[argc])
        argc++;
    return options_parse(o, &command, argc, argv, err);
}

#define WORDS(...) ((char *[]){__VA_ARGS__, NULL})

static void refused(char **argv, const char *saying)
{
    struct options *o = NULL;
    fst_error err = {0};
    assert_int_equal(parse(&o, &err, argv), FST_E_ARGUMENT);
    assert_null(o);
    if (!strstr(err.message, saying))
        fail_msg("\"%s\" does not say \"%s\"", err.message, saying);
}

static struct options *accepted(char **argv)
{
    struct options *o = NULL;
    fst_error err = {0};
    if (parse(&o, &err, argv))
        fail_msg("%s", err.message);
    return o;
}

static void test_all_types(void **state)
{
    (void)state;
    struct options *o = accepted(WORDS("--workers=8", "mnist", "-r", "0.25", "--set", "a=1", "-sb=2", "--set=c==", "-f",
                                       "--mode", "mpi", "7", "--stage="));
    size_t n = 0;
    assert_int_equal(option_int(o, "workers"), 8);
    assert_true(option_double(o, "rate") == 0.25);
    assert_true(option_flag(o, "fresh"));
    assert_false(option_flag(o, "quiet"));
    assert_string_equal(option_string(o, "mode"), "mpi");
    assert_string_equal(option_string(o, "stage"), "");
    const char *const *list = option_list(o, "set", &n);
    assert_int_equal(n, 3);
    assert_string_equal(list[0], "a=1");
    assert_string_equal(list[1], "b=2");
    assert_string_equal(list[2], "c==");
    assert_int_equal(operand_count(o), 2);
    assert_string_equal(operand(o, 0), "mnist");
    assert_string_equal(operand(o, 1), "7");
    assert_null(operand(o, 2));
    options_free(o);
}

static void test_fallbacks(void **state)
{
    (void)state;
    struct options *o = accepted(WORDS("mnist"));
    size_t n = 5;
    assert_int_equal(option_int(o, "workers"), 4);
    assert_false(option_given(o, "workers"));
    assert_int_equal(option_int(o, "offset"), 0);
    assert_true(option_double(o, "scale") == 2.5);
    assert_string_equal(option_string(o, "mode"), "nats");
    assert_null(option_string(o, "stage"));
    option_list(o, "set", &n);
    assert_int_equal(n, 0);
    options_free(o);
    o = accepted(WORDS("mnist", "--workers", "4", "--workers", "5"));
    assert_true(option_given(o, "workers"));
    assert_int_equal(option_int(o, "workers"), 5); /* the last counts */
    options_free(o);
}

static void test_dashes(void **state)
{
    (void)state;
    struct options *o = accepted(WORDS("-fqw3", "-", "--", "--workers", "-x", "--"));
    assert_true(option_flag(o, "fresh") && option_flag(o, "quiet"));
    assert_int_equal(option_int(o, "workers"), 3);
    assert_int_equal(operand_count(o), 4);
    assert_string_equal(operand(o, 0), "-");
    assert_string_equal(operand(o, 3), "--");
    options_free(o);
    o = accepted(WORDS("t", "--offset", "-9223372036854775808", "--scale=-1e-3"));
    assert_true(option_int(o, "offset") == INT64_MIN);
    assert_true(option_double(o, "scale") == -1e-3);
    options_free(o);
}

static void test_wrong_numbers(void **state)
{
    (void)state;
    static const char *const no_int[] = {"", "x", "3x", "3.0", " 3", "3 ", "0x10", "1e3", "--3"};
    static const char *const no_double[] = {"", "x", "0.5x", " 0.5", "nan", "inf", "1e999", "0,5"};
    char text[64];
    for (size_t i = 0; i < sizeof no_int / sizeof *no_int; i++) {
        snprintf(text, sizeof text, "--workers=%s", no_int[i]);
        refused(WORDS("t", text), "--workers needs a whole number");
    }
    for (size_t i = 0; i < sizeof no_double / sizeof *no_double; i++) {
        snprintf(text, sizeof text, "--rate=%s", no_double[i]);
        refused(WORDS("t", text), "--rate needs a number");
    }
    refused(WORDS("t", "--workers", "0"), "1 to 64");
    refused(WORDS("t", "-w65"), "1 to 64");
    refused(WORDS("t", "--offset=9223372036854775808"), "too large");
    refused(WORDS("t", "--rate", "1.001"), "0 to 1");
    refused(WORDS("t", "--rate", "-0.1"), "0 to 1");
}

static void test_wrong_words(void **state)
{
    (void)state;
    refused(WORDS("t", "--wrokers=3"), "did you mean --workers?");
    refused(WORDS("t", "--work", "3"), "did you mean --workers?");
    refused(WORDS("t", "--mode", "natz"), "did you mean nats?");
    refused(WORDS("t", "--mode", "carrier-pigeon"), "inproc, nats, mpi");
    refused(WORDS("t", "--fresh=1"), "takes no argument");
    refused(WORDS("t", "--stage"), "--stage=S");
    refused(WORDS("t", "-fw"), "--workers needs an argument");
    refused(WORDS("t", "-fz"), "unknown option -z");
    refused(WORDS("t", "--="), "unknown option");
    refused(WORDS("--fresh"), "TASK is missing");
}

static void test_nothing_near_is_not_suggested(void **state)
{
    (void)state;
    static const char *const names[] = {"run", "runs", "data synth"};
    assert_string_equal(nearest("rnu", names, 3), "run");
    assert_string_equal(nearest("runss", names, 3), "runs");
    assert_string_equal(nearest("data snyth", names, 3), "data synth");
    assert_null(nearest("xylophone", names, 3));
    assert_null(nearest("q", (const char *const[]){"workers"}, 1));
    char endless[300];
    memset(endless, 'r', sizeof endless - 1);
    endless[sizeof endless - 1] = 0;
    assert_null(nearest(endless, names, 3));
}

static void test_help_stops_parsing(void **state)
{
    (void)state;
    struct options *o = accepted(WORDS("--help", "--nonsense"));
    assert_true(option_flag(o, "help"));
    options_free(o);
}

static void test_failing_allocations(void **state)
{
    (void)state;
    fst_status s = FST_E_MEMORY;
    uint64_t n = 1;
    for (; s; n++) {
        struct options *o = NULL;
        fst_alloc_fail_at(n);
        s = parse(&o, NULL, WORDS("t", "--set=a", "--set=b"));
        fst_alloc_fail_at(0);
        assert_true(s == FST_OK || s == FST_E_MEMORY);
        options_free(o);
    }
    assert_true(n > 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_types),
        cmocka_unit_test(test_fallbacks),
        cmocka_unit_test(test_dashes),
        cmocka_unit_test(test_wrong_numbers),
        cmocka_unit_test(test_wrong_words),
        cmocka_unit_test(test_nothing_near_is_not_suggested),
        cmocka_unit_test(test_help_stops_parsing),
        cmocka_unit_test(test_failing_allocations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

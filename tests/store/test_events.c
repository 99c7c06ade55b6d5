/* Events: every line is JSON that another parser reads, cut-off lines are ended, odd numbers and bytes do
 * no harm, writers do not tear each other's lines. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "fedstill/store.h"
#include "scratch.h"

static fst_events *open_events(const char *name, int64_t run)
{
    fst_events *e = NULL;
    fst_error err = {0};
    if (fst_events_open(&e, scratch(name), run, &err))
        fail_msg("%s", err.message);
    return e;
}

static fst_buf contents(const char *name)
{
    fst_buf b = {0};
    assert_int_equal(fst_file_read(scratch(name), 1 << 24, &b, NULL), FST_OK);
    return b;
}

static void test_a_line_is_json(void **state)
{
    (void)state;
    fst_events *e = open_events("line.jsonl", 7);
    fst_events_stage(e, "edge_kd");
    const fst_field fields[] = {
        FST_INT("epoch", INT64_MIN),  FST_DOUBLE("loss", 0.1),    FST_STRING("path", "a\"b\\c\n\x01\xFFz\xC3\xA9"),
        FST_BOOLEAN("best", true),    FST_DOUBLE("nan", NAN),     FST_DOUBLE("inf", -INFINITY),
        FST_DOUBLE("whole", 3),       FST_DOUBLE("tiny", 5e-324), FST_STRING("none", NULL),
        FST_DOUBLE("third", 1 / 3.0), FST_DOUBLE("huge", 1e300),
    };
    assert_int_equal(fst_events_emit(e, "epoch", fields, sizeof fields / sizeof *fields, NULL), FST_OK);
    fst_events_free(e);
    fst_buf b = contents("line.jsonl");
    assert_int_equal(b.data[b.len - 1], '\n');
    assert_ptr_equal(strchr(b.data, '\n'), b.data + b.len - 1);
    json_t *j = json_loads(b.data, 0, NULL);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "stage")), "edge_kd");
    assert_string_equal(json_string_value(json_object_get(j, "event")), "epoch");
    assert_int_equal(json_integer_value(json_object_get(j, "run")), 7);
    const char *time = json_string_value(json_object_get(j, "time"));
    assert_int_equal(strlen(time), strlen("2025-01-31T12:00:00.123Z"));
    assert_true(time[10] == 'T' && time[19] == '.' && time[23] == 'Z' && !strncmp(time, "20", 2));
    assert_true(json_integer_value(json_object_get(j, "epoch")) == INT64_MIN);
    assert_true(json_real_value(json_object_get(j, "loss")) == 0.1);
    assert_true(json_real_value(json_object_get(j, "third")) == 1 / 3.0);
    assert_true(json_real_value(json_object_get(j, "tiny")) == 5e-324);
    assert_true(json_real_value(json_object_get(j, "huge")) == 1e300);
    assert_true(json_is_real(json_object_get(j, "whole")));
    assert_non_null(strstr(b.data, "\"loss\": 0.1,"));
    assert_string_equal(json_string_value(json_object_get(j, "path")), "a\"b\\c\n\x01\xEF\xBF\xBDz\xC3\xA9");
    assert_true(json_is_true(json_object_get(j, "best")));
    assert_true(json_is_null(json_object_get(j, "nan")));
    assert_true(json_is_null(json_object_get(j, "inf")));
    assert_true(json_is_null(json_object_get(j, "none")));
    json_decref(j);
    fst_buf_release(&b);
}

static void test_strings_that_are_not_utf8(void **state)
{
    (void)state;
    static const char *const bad[] = {"\xC0\xAF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80",
                                      "\xC3",     "\xE2\x82",     "\xF0\x9F\x98", "\x80"};
    fst_events *e = open_events("utf8.jsonl", 1);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(fst_events_emit(e, "x", &FST_STRING("s", bad[i]), 1, NULL), FST_OK);
    assert_int_equal(fst_events_emit(e, "x", &FST_STRING("s", "\xF0\x9F\x98\x80"), 1, NULL), FST_OK);
    fst_events_free(e);
    fst_buf b = contents("utf8.jsonl");
    size_t lines = 0;
    const char *last = NULL;
    for (char *p = strtok(b.data, "\n"); p; p = strtok(NULL, "\n"), lines++) {
        json_t *j = json_loads(p, 0, NULL);
        assert_non_null(j);
        json_decref(j);
        last = p;
    }
    assert_int_equal(lines, sizeof bad / sizeof *bad + 1);
    assert_non_null(strstr(last, "\xF0\x9F\x98\x80"));
    fst_buf_release(&b);
}

struct seen {
    size_t count, fields;
    char names[8][32];
    double loss;
    int64_t run, epoch;
    fst_field_type types[8];
};

static bool keep(void *ctx, const fst_event *e)
{
    struct seen *s = ctx;
    if (s->count < 8)
        snprintf(s->names[s->count], sizeof s->names[0], "%s", e->event);
    s->count++;
    s->run = e->run;
    s->fields = e->nfields;
    s->loss = fst_event_number(e, "loss");
    const fst_field *f = fst_event_field(e, "epoch");
    s->epoch = f && f->type == FST_FIELD_INT ? f->value.integer : -1;
    for (size_t i = 0; i < e->nfields && i < 8; i++)
        s->types[i] = e->fields[i].type;
    return true;
}

static void test_reading_back(void **state)
{
    (void)state;
    fst_events *e = open_events("back.jsonl", 3);
    const fst_field fields[] = {FST_INT("epoch", 4), FST_DOUBLE("loss", 2), FST_BOOLEAN("ok", false),
                                FST_STRING("who", "edge-1")};
    assert_int_equal(fst_events_emit(e, "epoch", fields, 4, NULL), FST_OK);
    fst_events_free(e);
    struct seen s = {0};
    size_t skipped = 9;
    assert_int_equal(fst_events_read(scratch("back.jsonl"), keep, &s, &skipped, NULL), FST_OK);
    assert_int_equal(skipped, 0);
    assert_int_equal(s.count, 1);
    assert_int_equal(s.run, 3);
    assert_int_equal(s.epoch, 4);
    assert_true(s.loss == 2);
    assert_int_equal(s.fields, 4);
    assert_int_equal(s.types[0], FST_FIELD_INT);
    assert_int_equal(s.types[1], FST_FIELD_DOUBLE); /* 2.0 stays a double */
    assert_int_equal(s.types[2], FST_FIELD_BOOL);
    assert_int_equal(s.types[3], FST_FIELD_STRING);
}

static void test_a_cut_off_line_is_ended(void **state)
{
    (void)state;
    fst_events *e = open_events("cut.jsonl", 1);
    assert_int_equal(fst_events_emit(e, "one", NULL, 0, NULL), FST_OK);
    assert_int_equal(fst_events_emit(e, "two", NULL, 0, NULL), FST_OK);
    fst_events_free(e);
    fst_buf b = contents("cut.jsonl");
    assert_int_equal(truncate(scratch("cut.jsonl"), (off_t)b.len - 9), 0);
    fst_buf_release(&b);
    e = open_events("cut.jsonl", 1);
    assert_int_equal(fst_events_emit(e, "three", NULL, 0, NULL), FST_OK);
    assert_int_equal(fst_events_emit(e, "four", NULL, 0, NULL), FST_OK);
    fst_events_free(e);
    struct seen s = {0};
    size_t skipped = 0;
    assert_int_equal(fst_events_read(scratch("cut.jsonl"), keep, &s, &skipped, NULL), FST_OK);
    assert_int_equal(skipped, 1);
    assert_int_equal(s.count, 3);
    assert_string_equal(s.names[0], "one");
    assert_string_equal(s.names[1], "three");
    assert_string_equal(s.names[2], "four");
}

static void test_a_failed_write_is_reported_and_survived(void **state)
{
    (void)state;
    signal(SIGXFSZ, SIG_IGN);
    fst_events *e = open_events("full.jsonl", 1);
    fst_error err = {0};
    struct rlimit old, small;
    assert_int_equal(fst_events_emit(e, "one", NULL, 0, NULL), FST_OK);
    fst_buf b = contents("full.jsonl");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = b.len + 5;
    fst_buf_release(&b);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    fst_status half = fst_events_emit(e, "two", NULL, 0, &err), none = fst_events_emit(e, "three", NULL, 0, NULL);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(half, FST_E_IO);
    assert_int_equal(none, FST_E_IO);
    assert_non_null(strstr(err.message, "full.jsonl"));
    assert_int_equal(fst_events_emit(e, "four", NULL, 0, NULL), FST_OK);
    fst_events_free(e);
    struct seen s = {0};
    size_t skipped = 0;
    assert_int_equal(fst_events_read(scratch("full.jsonl"), keep, &s, &skipped, NULL), FST_OK);
    assert_int_equal(s.count, 2);
    assert_int_equal(skipped, 1);
    assert_string_equal(s.names[1], "four");
}

static void test_wrong_use(void **state)
{
    (void)state;
    fst_events *e = open_events("wrong.jsonl", 1);
    fst_error err = {0};
    assert_int_equal(fst_events_emit(e, "x", &FST_INT("time", 1), 1, &err), FST_E_ARGUMENT);
    assert_non_null(strstr(err.message, "time"));
    assert_int_equal(fst_events_emit(NULL, "x", NULL, 0, &err), FST_OK);
    fst_events_free(e);
    fst_buf b = contents("wrong.jsonl");
    assert_int_equal(b.len, 0);
    fst_buf_release(&b);
    e = NULL;
    assert_int_equal(fst_events_open(&e, scratch("no/such/folder.jsonl"), 1, &err), FST_E_IO);
    assert_null(e);
    assert_non_null(strstr(err.message, "folder.jsonl"));
}

enum { WRITERS = 3, LINES = 200 };

static void test_processes_do_not_tear_lines(void **state)
{
    (void)state;
    pid_t child[WRITERS];
    char text[600];
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = 0;
    for (int w = 0; w < WRITERS; w++)
        if ((child[w] = fork()) == 0) {
            fst_events *e = NULL;
            if (fst_events_open(&e, scratch("tear.jsonl"), w, NULL))
                _exit(1);
            for (int i = 0; i < LINES; i++)
                if (fst_events_emit(e, "e", &FST_STRING("text", text), 1, NULL))
                    _exit(2);
            _exit(0);
        }
    for (int w = 0; w < WRITERS; w++) {
        int status = -1;
        assert_int_equal(waitpid(child[w], &status, 0), child[w]);
        assert_int_equal(status, 0);
    }
    struct seen s = {0};
    size_t skipped = 1;
    assert_int_equal(fst_events_read(scratch("tear.jsonl"), keep, &s, &skipped, NULL), FST_OK);
    assert_int_equal(s.count, WRITERS * LINES);
    assert_int_equal(skipped, 0);
}

static bool stop(void *ctx, const fst_event *e)
{
    (void)e;
    return ++*(int *)ctx < 2;
}

static void test_parsing_foreign_lines(void **state)
{
    (void)state;
    static const char text[] =
        "{\"time\": \"t\", \"run\": 1, \"event\": \"a\", \"loss\": null, \"deep\": {\"x\": [1]}}\r\n"
        "\n"
        "[1, 2]\n"
        "{\"time\": 5, \"run\": 1, \"event\": \"b\"}\n"
        "{\"run\": 1, \"event\": \"c\"}\n"
        "{\"time\": \"t\", \"run\": 1, \"run\": 2, \"event\": \"d\"}\n"
        "{\"time\": \"t\", \"run\": 99999999999999999999, \"event\": \"e\"}\n"
        "{\"time\": \"t\", \"run\": 1, \"event\": \"f\"} {}\n"
        "{\"time\": \"t\", \"run\": 2, \"event\": \"g\", \"epoch\": 3}";
    struct seen s = {0};
    size_t skipped = 0;
    assert_int_equal(fst_events_parse(text, sizeof text - 1, keep, &s, &skipped, NULL), FST_OK);
    assert_int_equal(s.count, 2);
    assert_int_equal(skipped, 6);
    assert_string_equal(s.names[0], "a");
    assert_string_equal(s.names[1], "g");
    assert_int_equal(s.epoch, 3);
    assert_true(isnan(s.loss));
    int calls = 0;
    assert_int_equal(fst_events_parse("{\"time\":\"t\",\"run\":1,\"event\":\"a\"}\n{\"time\":\"t\",\"run\":1,\"event\":"
                                      "\"a\"}\n{\"time\":\"t\",\"run\":1,\"event\":\"a\"}\n",
                                      108, stop, &calls, NULL, NULL),
                     FST_OK);
    assert_int_equal(calls, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_line_is_json),
        cmocka_unit_test(test_strings_that_are_not_utf8),
        cmocka_unit_test(test_reading_back),
        cmocka_unit_test(test_a_cut_off_line_is_ended),
        cmocka_unit_test(test_a_failed_write_is_reported_and_survived),
        cmocka_unit_test(test_wrong_use),
        cmocka_unit_test(test_processes_do_not_tear_lines),
        cmocka_unit_test(test_parsing_foreign_lines),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}

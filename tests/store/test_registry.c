/* The run registry: what is written reads back, runs continue or not, several processes, dead processes,
 * damaged and foreign files, failing allocations. */
#define _GNU_SOURCE
#include <math.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <cmocka.h>

#include "fedstill/store.h"
#include "scratch.h"

struct seen {
    size_t runs, figures;
    int64_t ids[64];
    char task[64], stage[64], message[64], output[512], text[64];
    uint64_t seed;
    fst_run_status status;
    double last, best, value, low, high, seconds;
    int64_t ended;
};

static bool keep(void *ctx, const fst_run *r)
{
    struct seen *s = ctx;
    if (s->runs < 64)
        s->ids[s->runs] = r->id;
    if (s->runs++ == 0) {
        snprintf(s->task, sizeof s->task, "%s", r->task);
        snprintf(s->stage, sizeof s->stage, "%s", r->stage);
        snprintf(s->message, sizeof s->message, "%s", r->message);
        snprintf(s->output, sizeof s->output, "%s", r->output);
        s->seed = r->seed;
        s->status = r->status;
        s->last = r->last_accuracy;
        s->best = r->best_accuracy;
        s->ended = r->ended_ms;
        s->seconds = r->seconds;
    }
    return true;
}

static bool keep_loss(void *ctx, const fst_figure *f)
{
    struct seen *s = ctx;
    s->figures++;
    if (!strcmp(f->key, "loss")) {
        s->value = f->value;
        s->low = f->low;
        s->high = f->high;
    } else if (!strcmp(f->key, "digest")) {
        snprintf(s->text, sizeof s->text, "%s", f->text ? f->text : "(number)");
    }
    return true;
}

static fst_registry *open_new(const char *name)
{
    fst_registry *r = NULL;
    fst_error err = {0};
    if (fst_registry_open(&r, scratch(name), &err))
        fail_msg("%s", err.message);
    return r;
}

static const char *with_settings; /* of the runs that begin() begins */

static int64_t begin(fst_registry *r, const char *task, const char *output, uint64_t seed, bool fresh, bool *resumed)
{
    fst_error err = {0};
    int64_t id = 0;
    fst_run_start start = {task, "tasks/x", output, seed, fresh, with_settings};
    if (fst_registry_begin(r, &start, &id, resumed, &err))
        fail_msg("%s", err.message);
    return id;
}

static void test_round_trip(void **state)
{
    (void)state;
    static const char nasty[] = "x'); DROP TABLE runs; --";
    fst_registry *r = open_new("round/trip.sqlite");
    bool resumed = true;
    int64_t id = begin(r, nasty, scratch_folder, UINT64_MAX - 1, false, &resumed);
    assert_false(resumed);
    assert_int_equal(fst_registry_stage(r, id, "edge_kd", "epoch 2 of 5", NULL), FST_OK);
    assert_int_equal(fst_registry_figure(r, id, "edge_kd", "accuracy", 0.5, NULL), FST_OK);
    assert_int_equal(fst_registry_figure(r, id, "edge_kd", "accuracy", 0.875, NULL), FST_OK);
    assert_int_equal(fst_registry_figure(r, id, "edge_kd", "accuracy", 0.75, NULL), FST_OK);
    assert_int_equal(fst_registry_figure(r, id, "edge_kd", "loss", 2, NULL), FST_OK);
    assert_int_equal(fst_registry_figure(r, id, "edge_kd", "loss", NAN, NULL), FST_OK);
    assert_int_equal(fst_registry_figure(r, id, "edge_kd", "loss", 1.25, NULL), FST_OK);
    assert_int_equal(fst_registry_figure_text(r, id, "edge_kd", "digest", "abc", NULL), FST_OK);
    struct seen s = {0};
    assert_int_equal(fst_registry_list(r, 0, keep, &s, NULL), FST_OK);
    assert_int_equal(s.runs, 1);
    assert_string_equal(s.task, nasty);
    assert_string_equal(s.stage, "edge_kd");
    assert_string_equal(s.message, "epoch 2 of 5");
    assert_true(s.seed == UINT64_MAX - 1);
    assert_int_equal(s.status, FST_RUN_RUNNING);
    assert_int_equal(s.ended, 0);
    assert_true(s.last == 0.75 && s.best == 0.875);
    assert_int_equal(fst_registry_figures(r, id, keep_loss, &s, NULL), FST_OK);
    assert_int_equal(s.figures, 3);
    assert_true(s.value == 1.25 && s.low == 1.25 && s.high == 2);
    assert_string_equal(s.text, "abc");
    assert_int_equal(fst_registry_finish(r, id, FST_RUN_DONE, "all stages", NULL), FST_OK);
    fst_registry_free(r);

    r = open_new("round/trip.sqlite"); /* and again from the file */
    struct seen t = {0};
    assert_int_equal(fst_registry_find(r, nasty, keep, &t, NULL), FST_OK);
    assert_int_equal(t.status, FST_RUN_DONE);
    assert_string_equal(t.message, "all stages");
    assert_true(t.ended > 0);
    fst_registry_free(r);
}

static void test_a_run_continues_only_as_itself(void **state)
{
    (void)state;
    fst_registry *r = open_new("continue.sqlite");
    bool resumed = true;
    const char *out = scratch("out-a");
    int64_t first = begin(r, "mnist", out, 42, false, &resumed);
    assert_int_equal(fst_registry_figure(r, first, "s", "accuracy", 0.5, NULL), FST_OK);
    assert_int_equal(fst_registry_finish(r, first, FST_RUN_STOPPED, "signal", NULL), FST_OK);
    assert_int_equal(begin(r, "mnist", out, 42, false, &resumed), first);
    assert_true(resumed);
    struct seen s = {0};
    assert_int_equal(fst_registry_find(r, "mnist", keep, &s, NULL), FST_OK);
    assert_int_equal(s.status, FST_RUN_RUNNING);
    assert_string_equal(s.message, "");
    assert_true(s.best == 0.5);
    assert_true(begin(r, "mnist", scratch("out-b"), 42, false, &resumed) > first);
    assert_false(resumed);
    int64_t other_seed = begin(r, "mnist", out, 43, false, &resumed);
    assert_false(resumed);
    /* What seed 42 left there is kept, so that it continues; and it is the one that was at work last. */
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL); /* times are in milliseconds */
    assert_int_equal(begin(r, "mnist", out, 42, false, &resumed), first);
    assert_true(resumed);
    struct seen t = {0};
    assert_int_equal(fst_registry_find(r, out, keep, &t, NULL), FST_OK);
    assert_int_equal(t.ids[0], first);
    int64_t fresh = begin(r, "mnist", out, 42, true, &resumed);
    assert_false(resumed);
    assert_true(fresh > other_seed);
    fst_registry_free(r);
}

static void test_settings_make_runs(void **state)
{
    (void)state;
    fst_registry *r = open_new("settings.sqlite");
    bool resumed = true;
    struct seen s = {0};
    with_settings = "rounds=10\n";
    int64_t ten = begin(r, "t", scratch("o"), 1, false, &resumed);
    assert_false(resumed);
    with_settings = "rounds=20\n";
    int64_t twenty = begin(r, "t", scratch("o"), 1, false, &resumed);
    assert_false(resumed);
    assert_true(twenty > ten);
    with_settings = "rounds=10\n";
    assert_int_equal(begin(r, "t", scratch("o"), 1, false, &resumed), ten);
    assert_true(resumed);
    with_settings = NULL; /* not known: neither of them */
    assert_true(begin(r, "t", scratch("o"), 1, false, &resumed) > twenty);
    assert_int_equal(fst_registry_list(r, 0, keep, &s, NULL), FST_OK);
    assert_int_equal(s.runs, 3);
    fst_registry_free(r);
}

/* While another process holds the file, a run waits for it shortly, and is told. */
static void test_a_stalled_registry_is_an_error_soon(void **state)
{
    (void)state;
    sqlite3 *db = NULL;
    fst_error err = {0};
    fst_registry *r = open_new("stalled.sqlite");
    int64_t id = begin(r, "t", scratch("o"), 1, false, NULL);
    assert_int_equal(sqlite3_open(scratch("stalled.sqlite"), &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(fst_registry_touch(r, id, &err), FST_E_IO);
    assert_non_null(strstr(err.message, "another process holds it"));
    sqlite3_close(db);
    assert_int_equal(fst_registry_touch(r, id, &err), FST_OK);
    fst_registry_free(r);
}

static void test_find_and_limit(void **state)
{
    (void)state;
    fst_registry *r = open_new("find.sqlite");
    fst_error err = {0};
    assert_int_equal(mkdir(scratch("folder"), 0777), 0);
    int64_t a = begin(r, "alpha", scratch("folder"), 1, false, NULL);
    int64_t b = begin(r, "beta", scratch("b"), 1, false, NULL);
    int64_t c = begin(r, "alpha", scratch("c"), 1, false, NULL);
    char id[32], odd[600];
    struct seen s[4] = {{0}};
    snprintf(id, sizeof id, "%lld", (long long)b);
    assert_int_equal(fst_registry_find(r, id, keep, &s[0], NULL), FST_OK);
    assert_int_equal(s[0].ids[0], b);
    assert_int_equal(fst_registry_find(r, "alpha", keep, &s[1], NULL), FST_OK);
    assert_int_equal(s[1].runs, 1);
    assert_int_equal(s[1].ids[0], c);
    snprintf(odd, sizeof odd, "%s/./c/../folder/", scratch_folder);
    assert_int_equal(mkdir(scratch("c"), 0777), 0);
    assert_int_equal(fst_registry_find(r, odd, keep, &s[2], NULL), FST_OK);
    assert_int_equal(s[2].ids[0], a);
    assert_int_equal(fst_registry_find(r, "gamma", keep, &s[3], &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "gamma"));
    assert_int_equal(s[3].runs, 0);
    assert_int_equal(fst_registry_list(r, 2, keep, &s[3], NULL), FST_OK);
    assert_int_equal(s[3].runs, 2);
    assert_true(s[3].ids[0] == c && s[3].ids[1] == b);
    fst_registry_free(r);
}

static void test_unknown_runs_are_refused(void **state)
{
    (void)state;
    fst_registry *r = open_new("unknown.sqlite");
    fst_error err = {0};
    assert_int_equal(fst_registry_stage(r, 7, "s", NULL, &err), FST_E_ARGUMENT);
    assert_non_null(strstr(err.message, "7"));
    assert_int_equal(fst_registry_figure(r, 7, "s", "loss", 1, &err), FST_E_ARGUMENT);
    assert_int_equal(fst_registry_figure_text(r, 7, "s", "digest", "x", &err), FST_E_ARGUMENT);
    assert_int_equal(fst_registry_finish(r, 7, FST_RUN_DONE, NULL, &err), FST_E_ARGUMENT);
    int64_t id = begin(r, "t", scratch("o"), 1, false, NULL);
    assert_int_equal(fst_registry_finish(r, id, FST_RUN_INTERRUPTED, NULL, &err), FST_E_ARGUMENT);
    fst_registry_free(r);
}

/* In a child: registers a run and ends without a word. */
static void vanish(const char *name, const char *task)
{
    pid_t child = fork();
    if (child == 0) {
        fst_registry *r = NULL;
        int64_t id;
        fst_run_start start = {task, "", scratch("vanish"), 1, false, NULL};
        if (fst_registry_open(&r, scratch(name), NULL) || fst_registry_begin(r, &start, &id, NULL, NULL))
            _exit(1);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void test_a_dead_process_shows_as_interrupted(void **state)
{
    (void)state;
    vanish("dead.sqlite", "gone");
    fst_registry *r = open_new("dead.sqlite");
    struct seen s = {0}, t = {0};
    assert_int_equal(fst_registry_find(r, "gone", keep, &s, NULL), FST_OK);
    assert_int_equal(s.status, FST_RUN_INTERRUPTED);
    assert_string_equal(fst_run_status_name(s.status), "interrupted");
    bool resumed = false;
    assert_int_equal(begin(r, "gone", scratch("vanish"), 1, false, &resumed), s.ids[0]);
    assert_true(resumed);
    assert_int_equal(fst_registry_find(r, "gone", keep, &t, NULL), FST_OK);
    assert_int_equal(t.status, FST_RUN_RUNNING);
    fst_registry_free(r);
}

static void alter(const char *path, const char *sql)
{
    sqlite3 *db = NULL;
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void test_reused_process_numbers_and_other_hosts(void **state)
{
    (void)state;
    static const struct {
        const char *sql;
        fst_run_status status;
    } cases[] = {
        {"UPDATE runs SET pid_start = pid_start + 1", FST_RUN_INTERRUPTED}, /* our number, another process */
        {"UPDATE runs SET pid_start = pid_start - 1, boot = 'another boot'", FST_RUN_INTERRUPTED},
        {"UPDATE runs SET host = 'elsewhere.example', pid = 2147483000", FST_RUN_RUNNING}, /* cannot be known */
    };
    fst_registry *r = open_new("reused.sqlite");
    begin(r, "t", scratch("o"), 1, false, NULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct seen s = {0};
        alter(scratch("reused.sqlite"), cases[i].sql);
        assert_int_equal(fst_registry_list(r, 0, keep, &s, NULL), FST_OK);
        assert_int_equal(s.status, cases[i].status);
    }
    fst_registry_free(r);
}

enum { WRITERS = 3, RUNS_EACH = 8 };

static int write_many(int writer)
{
    fst_registry *r = NULL;
    char output[64];
    fst_error err = {0};
    if (fst_registry_open(&r, scratch("many.sqlite"), &err)) {
        print_error("%s\n", err.message); /* the exit status alone would not say why */
        return 1;
    }
    for (int i = 0; i < RUNS_EACH; i++) {
        int64_t id = 0;
        snprintf(output, sizeof output, "/nowhere/%d-%d", writer, i);
        fst_run_start start = {"many", "", output, 1, false, NULL};
        if (fst_registry_begin(r, &start, &id, NULL, NULL))
            return 2;
        for (int k = 0; k < 5; k++)
            if (fst_registry_figure(r, id, "s", "accuracy", k / 8.0, NULL))
                return 3;
        if (fst_registry_finish(r, id, FST_RUN_DONE, NULL, NULL))
            return 4;
    }
    fst_registry_free(r);
    return 0;
}

/* All start on a file that does not exist yet. */
static void test_several_processes_write_at_once(void **state)
{
    (void)state;
    pid_t child[WRITERS];
    for (int i = 0; i < WRITERS; i++)
        if ((child[i] = fork()) == 0)
            _exit(write_many(i));
    for (int i = 0; i < WRITERS; i++) {
        int status = -1;
        assert_int_equal(waitpid(child[i], &status, 0), child[i]);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 0);
    }
    fst_registry *r = open_new("many.sqlite");
    struct seen s = {0};
    assert_int_equal(fst_registry_list(r, 0, keep, &s, NULL), FST_OK);
    assert_int_equal(s.runs, WRITERS * RUNS_EACH);
    for (size_t i = 1; i < s.runs; i++)
        assert_true(s.ids[i] < s.ids[i - 1]);
    assert_int_equal(s.status, FST_RUN_DONE);
    assert_true(s.best == 0.5);
    fst_registry_free(r);
}

static void write_bytes(const char *path, const char *text, size_t len)
{
    assert_int_equal(fst_file_write(path, text, len, NULL), FST_OK);
}

static void test_damaged_and_foreign_files(void **state)
{
    (void)state;
    fst_registry *r = NULL;
    fst_error err = {0};
    char garbage[4096];
    for (size_t i = 0; i < sizeof garbage; i++)
        garbage[i] = (char)(i * 31 + 7);
    write_bytes(scratch("garbage.sqlite"), garbage, sizeof garbage);
    assert_int_equal(fst_registry_open(&r, scratch("garbage.sqlite"), &err), FST_E_FORMAT);
    assert_null(r);
    assert_non_null(strstr(err.message, scratch("garbage.sqlite")));
    assert_non_null(strstr(err.message, "move it away"));

    alter(scratch("foreign.sqlite"), "CREATE TABLE bookmarks(url TEXT)");
    assert_int_equal(fst_registry_open(&r, scratch("foreign.sqlite"), &err), FST_E_FORMAT);
    assert_non_null(strstr(err.message, "another program"));

    fst_registry_free(open_new("newer.sqlite"));
    alter(scratch("newer.sqlite"), "PRAGMA user_version = 99");
    assert_int_equal(fst_registry_open(&r, scratch("newer.sqlite"), &err), FST_E_UNSUPPORTED);
    assert_non_null(strstr(err.message, "99"));

    assert_int_equal(mkdir(scratch("folder.sqlite"), 0777), 0);
    assert_int_equal(fst_registry_open(&r, scratch("folder.sqlite"), &err), FST_E_IO);
    write_bytes(scratch("file"), "x", 1);
    assert_int_equal(fst_registry_open(&r, scratch("file/runs.sqlite"), &err), FST_E_IO);
    assert_null(r);
}

/* Pages overwritten after an intact first page: an error, never a crash or a wrong "no runs". */
static void test_damage_behind_the_header(void **state)
{
    (void)state;
    fst_registry *r = open_new("pages.sqlite");
    begin(r, "t", scratch("o"), 1, false, NULL);
    fst_registry_free(r);
    fst_buf b = {0};
    assert_int_equal(fst_file_read(scratch("pages.sqlite"), 1 << 24, &b, NULL), FST_OK);
    assert_true(b.len > 8192);
    memset(b.data + 4096, 0xA5, b.len - 4096);
    write_bytes(scratch("pages.sqlite"), b.data, b.len);
    fst_buf_release(&b);
    fst_error err = {0};
    struct seen s = {0};
    r = NULL;
    fst_status st = fst_registry_open(&r, scratch("pages.sqlite"), &err);
    if (!st)
        st = fst_registry_list(r, 0, keep, &s, &err);
    assert_int_equal(st, FST_E_FORMAT);
    assert_non_null(strstr(err.message, "damaged"));
    fst_registry_free(r);
}

static void expect_path(const char *wanted)
{
    char *p = NULL;
    assert_int_equal(fst_registry_path(&p, NULL), FST_OK);
    assert_string_equal(p, wanted);
    fst_free(p);
}

static void test_where_it_is(void **state)
{
    (void)state;
    setenv("HOME", "/home/u", 1);
    setenv("XDG_STATE_HOME", "/state", 1);
    setenv("FEDSTILL_HOME", "/own", 1);
    expect_path("/own/runs.sqlite");
    setenv("FEDSTILL_HOME", "", 1);
    expect_path("/state/fedstill/runs.sqlite");
    setenv("XDG_STATE_HOME", "relative", 1);
    expect_path("/home/u/.local/state/fedstill/runs.sqlite");
    unsetenv("XDG_STATE_HOME");
    unsetenv("HOME");
    fst_error err = {0};
    char *p = NULL;
    assert_int_equal(fst_registry_path(&p, &err), FST_E_CONFIG);
    assert_null(p);
    assert_non_null(strstr(err.message, "FEDSTILL_HOME"));
}

static void test_failing_allocations(void **state)
{
    (void)state;
    fst_status s = FST_E_MEMORY;
    uint64_t n = 1;
    for (; s; n++) {
        fst_registry *r = NULL;
        fst_alloc_fail_at(n);
        s = fst_registry_open(&r, scratch("torture/runs.sqlite"), NULL);
        fst_alloc_fail_at(0);
        assert_true(s == FST_OK || s == FST_E_MEMORY);
        assert_true((r != NULL) == (s == FST_OK));
        fst_registry_free(r);
    }
    assert_true(n > 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_a_run_continues_only_as_itself),
        cmocka_unit_test(test_settings_make_runs),
        cmocka_unit_test(test_a_stalled_registry_is_an_error_soon),
        cmocka_unit_test(test_find_and_limit),
        cmocka_unit_test(test_unknown_runs_are_refused),
        cmocka_unit_test(test_a_dead_process_shows_as_interrupted),
        cmocka_unit_test(test_reused_process_numbers_and_other_hosts),
        cmocka_unit_test(test_several_processes_write_at_once),
        cmocka_unit_test(test_damaged_and_foreign_files),
        cmocka_unit_test(test_damage_behind_the_header),
        cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_where_it_is),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}

/* Readers in child processes (src/data/confined.h): what comes through, and every way in which a child may fail. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "confined.h"
#include "files.h"

enum { MANY = 3 << 20 };

static const fst__confined_spec spec = {"libtest", "FILE", (size_t)64 << 20, 10, 600};

static fst_error err;

/* Starts fn with ctx and takes n bytes. */
static fst_status run(const fst__confined_spec *how, fst__confined_fn fn, void *ctx, void *out, size_t n)
{
    fst__confined c;
    fst_status s = fst__confined_start(&c, how, fn, ctx, &err);
    if (!s)
        s = fst__confined_take(&c, out, n, &err);
    if (!s)
        s = fst__confined_finish(&c, &err);
    fst__confined_stop(&c);
    assert_int_equal(c.pid, 0);
    return s;
}

static void assert_ends(fst__confined_fn fn, void *ctx, fst_status want, const char *says)
{
    char out[8];
    err = (fst_error){0};
    assert_int_equal(run(&spec, fn, ctx, out, sizeof out), want);
    assert_string_equal(err.message, says);
}

/* ---- what is sent ------------------------------------------------------------------------------ */

static unsigned char byte_at(size_t i)
{
    return (unsigned char)(i * 2654435761U >> 24);
}

static fst_status send_many(void *ctx, fst__confined *c, fst_error *e)
{
    unsigned char *all = fst_alloc(MANY);
    size_t step = *(size_t *)ctx;
    fst_status s = all ? FST_OK : fst_fail_memory(e, MANY);
    for (size_t i = 0; !s && i < MANY; i++)
        all[i] = byte_at(i);
    for (size_t at = 0; !s && at < MANY; at += step)
        s = fst__confined_send(c, all + at, MANY - at < step ? MANY - at : step, e);
    fst_free(all);
    return s;
}

static void everything_comes_through(void **state)
{
    unsigned char *out = malloc(MANY);
    (void)state;
    for (size_t step = 100003; step <= MANY; step *= 31) {
        memset(out, 0, MANY);
        assert_int_equal(run(&spec, send_many, &step, out, MANY), FST_OK);
        for (size_t i = 0; i < MANY; i++)
            if (out[i] != byte_at(i))
                fail_msg("byte %zu of pieces of %zu", i, step);
    }
    free(out);
}

static void *open_many(void *arg)
{
    size_t step = MANY;
    unsigned char *out = malloc(MANY);
    int *wrong = arg;
    for (int i = 0; i < 5; i++) {
        fst__confined c;
        *wrong += fst__confined_start(&c, &spec, send_many, &step, NULL) || fst__confined_take(&c, out, MANY, NULL) ||
                  fst__confined_finish(&c, NULL) || out[MANY - 1] != byte_at(MANY - 1);
        fst__confined_stop(&c);
    }
    free(out);
    return NULL;
}

static void threads_have_children_of_their_own(void **state)
{
    pthread_t t[4];
    int wrong[4] = {0};
    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&t[i], NULL, open_many, &wrong[i]), 0);
    for (int i = 0; i < 4; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(wrong[i], 0);
    }
}

/* ---- ends --------------------------------------------------------------------------------------- */

static fst_status kill_itself(void *ctx, fst__confined *c, fst_error *e)
{
    (void)c, (void)e;
    signal(SIGABRT, SIG_DFL);
    if (*(int *)ctx == SIGABRT)
        abort();
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    raise(*(int *)ctx);
    return FST_OK;
}

static fst_status write_to_nowhere(void *ctx, fst__confined *c, fst_error *e)
{
    volatile char *p = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    (void)ctx, (void)c, (void)e;
    *p = 1;
    return FST_OK;
}

static fst_status exit_early(void *ctx, fst__confined *c, fst_error *e)
{
    (void)ctx, (void)c, (void)e;
    _exit(3);
}

static fst_status say_what_is_wrong(void *ctx, fst__confined *c, fst_error *e)
{
    fst_status s = fst__confined_send(c, "four", 4, e);
    return s ? s : fst_fail(e, FST_E_MISMATCH, "%s", (const char *)ctx);
}

static fst_status send_little(void *ctx, fst__confined *c, fst_error *e)
{
    (void)ctx;
    return fst__confined_send(c, "four", 4, e);
}

static fst_status send_much(void *ctx, fst__confined *c, fst_error *e)
{
    (void)ctx;
    return fst__confined_send(c, "nine bits", 9, e);
}

static fst_status take_memory(void *ctx, fst__confined *c, fst_error *e)
{
    (void)c;
    for (size_t all = 0; all < *(size_t *)ctx; all += 1 << 20) {
        char *p = mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED)
            return fst_fail(e, FST_E_MEMORY, "no more");
        memset(p, 1, 1 << 20);
    }
    return fst_fail(e, FST_E_ARGUMENT, "all of it");
}

static void a_childs_end_is_an_error(void **state)
{
    static const int numbers[] = {SIGABRT, SIGBUS, SIGFPE};
    char want[128];
    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        int number = numbers[i];
        snprintf(want, sizeof want, "FILE: libtest died of signal %d while reading it; the file is damaged", number);
        assert_ends(kill_itself, &number, FST_E_FORMAT, want);
    }
    assert_ends(write_to_nowhere, NULL, FST_E_FORMAT,
                "FILE: libtest died of signal 11 while reading it; the file is damaged");
    assert_ends(exit_early, NULL, FST_E_FORMAT, "FILE: libtest ended while reading it; the file is damaged");
    int number = SIGKILL;
    assert_ends(kill_itself, &number, FST_E_IO,
                "FILE: libtest was killed while reading it, as the system does when memory is short");
    assert_ends(say_what_is_wrong, "FILE: is wrong", FST_E_MISMATCH, "FILE: is wrong");
    assert_ends(send_little, NULL, FST_E_FORMAT, "FILE: libtest went astray while reading it; the file is damaged");
    assert_ends(send_much, NULL, FST_E_FORMAT, "FILE: libtest went astray while reading it; the file is damaged");
}

/* An application that does not want to know of its children learns no reason, and gets an error all the same. */
static void children_that_nobody_waits_for(void **state)
{
    int number = SIGABRT;
    size_t step = MANY;
    unsigned char *out = malloc(MANY);
    (void)state;
    void (*before)(int) = signal(SIGCHLD, SIG_IGN);
    assert_int_equal(run(&spec, send_many, &step, out, MANY), FST_OK);
    assert_ends(kill_itself, &number, FST_E_FORMAT, "FILE: libtest ended while reading it; the file is damaged");
    signal(SIGCHLD, before);
    free(out);
}

/* ---- limits ------------------------------------------------------------------------------------- */

static fst_status work_for_ever(void *ctx, fst__confined *c, fst_error *e)
{
    (void)ctx, (void)e;
    while (*(fst__confined *volatile *)&c)
        ;
    return FST_OK;
}

static fst_status sleep_for_ever(void *ctx, fst__confined *c, fst_error *e)
{
    (void)ctx, (void)e;
    while (c)
        pause();
    return FST_OK;
}

static void limits_hold(void **state)
{
    char out[8];
    size_t most = (size_t)4 << 30, few = (size_t)32 << 20;
    fst__confined_spec tight = spec;
    (void)state;
    assert_ends(take_memory, &most, FST_E_MEMORY, "no more");
    assert_ends(take_memory, &few, FST_E_ARGUMENT, "all of it");
    tight.busy_seconds = 0; /* a second */
    assert_int_equal(run(&tight, work_for_ever, NULL, out, sizeof out), FST_E_LIMIT);
    assert_non_null(strstr(err.message, "FILE: libtest works on a part of it for more than"));
    tight = spec;
    tight.silent_seconds = 1;
    assert_int_equal(run(&tight, sleep_for_ever, NULL, out, sizeof out), FST_E_LIMIT);
    assert_string_equal(err.message, "FILE: libtest gives no sign for 1 seconds");
}

static void no_process_is_an_error(void **state)
{
    char out[8];
    struct rlimit before, none;
    (void)state;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    none = before;
    none.rlim_cur = 3; /* there is no room for a pipe */
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    fst_status s = run(&spec, send_little, NULL, out, sizeof out);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_int_equal(s, FST_E_IO);
    assert_non_null(strstr(err.message, "FILE: no pipe to the process that would read it"));
}

/* ---- what the child has -------------------------------------------------------------------------- */

static fst_status count_descriptors(void *ctx, fst__confined *c, fst_error *e)
{
    int64_t n = 0;
    struct rlimit core, size;
    (void)ctx;
    for (int i = 0; i < 1000; i++)
        n += fcntl(i, F_GETFD) >= 0;
    if (getrlimit(RLIMIT_CORE, &core) || getrlimit(RLIMIT_FSIZE, &size) || core.rlim_cur || size.rlim_cur ||
        prctl(PR_GET_DUMPABLE))
        n = -1;
    printf("not to be seen");
    fst_log(FST_LOG_ERROR, "not to be heard");
    return fst__confined_send(c, &n, sizeof n, e);
}

static void hear(void *ctx, fst_log_level level, const char *message)
{
    (void)level, (void)message;
    ++*(int *)ctx;
}

static void a_child_has_nothing_of_the_parents(void **state)
{
    int64_t n = 0;
    int heard = 0;
    FILE *f = fopen(in_work("text"), "w"); /* its buffer is the child's too, and must not be written twice */
    (void)state;
    assert_non_null(f);
    fputs("once", f);
    fst_log_set(hear, &heard);
    assert_int_equal(run(&spec, count_descriptors, NULL, &n, sizeof n), FST_OK);
    fst_log_set(NULL, NULL);
    assert_int_equal(n, 4);
    assert_int_equal(heard, 0);
    assert_int_equal(fclose(f), 0);
    fst_buf b = {0};
    assert_int_equal(fst_file_read(in_work("text"), 100, &b, NULL), FST_OK);
    assert_string_equal(b.data, "once");
    fst_buf_release(&b);
}

/* This process becomes the parent of those whose parents die, and waits for both. */
static void a_child_ends_with_its_parent(void **state)
{
    int ready[2], status;
    char c;
    (void)state;
    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    assert_int_equal(pipe(ready), 0);
    pid_t parent = fork();
    if (parent == 0) {
        fst__confined child;
        if (fst__confined_start(&child, &spec, sleep_for_ever, NULL, NULL) || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    assert_int_equal(kill(parent, SIGKILL), 0);
    assert_int_equal(waitpid(parent, &status, 0), parent);
    assert_true(waitpid(-1, &status, 0) > 0); /* the child, now this process's: without its death no end */
    assert_int_equal(waitpid(-1, &status, 0), -1);
    close(ready[0]);
    close(ready[1]);
}

/* ---- a child that has been taken over ------------------------------------------------------------ */

struct bytes {
    const void *data;
    size_t size;
};

static fst_status write_raw(void *ctx, fst__confined *c, fst_error *e)
{
    const struct bytes *b = ctx;
    (void)e;
    if (write(c->fd, b->data, b->size) != (ssize_t)b->size)
        _exit(1);
    _exit(0);
}

static void what_a_child_says_is_checked(void **state)
{
    static const struct {
        uint32_t word[4];
        size_t size;
        const char *says;
    } cases[] = {
        {{9, 8}, 16, "FILE: libtest went astray while reading it; the file is damaged"},   /* no such kind */
        {{1, 0}, 16, "FILE: libtest went astray while reading it; the file is damaged"},   /* an empty piece */
        {{2, 8}, 16, "FILE: libtest went astray while reading it; the file is damaged"},   /* an end with bytes */
        {{3, 4}, 16, "FILE: libtest went astray while reading it; the file is damaged"},   /* a failure's size */
        {{1, UINT32_MAX}, 8, "FILE: libtest ended while reading it; the file is damaged"}, /* cut off */
        {{1, 8}, 3, "FILE: libtest ended while reading it; the file is damaged"},
    };
    uint32_t failure[259];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_ends(write_raw, &(struct bytes){cases[i].word, cases[i].size}, FST_E_FORMAT, cases[i].says);
    memset(failure, 'x', sizeof failure); /* a text without an end; no status, then one */
    failure[0] = 3;
    failure[1] = sizeof failure - 8;
    struct bytes b = {failure, sizeof failure};
    for (uint32_t status = 0; status < 20; status += 19) {
        failure[2] = status;
        assert_ends(write_raw, &b, FST_E_FORMAT, "FILE: libtest went astray while reading it; the file is damaged");
    }
    char out[8];
    failure[2] = FST_E_FORMAT;
    assert_int_equal(run(&spec, write_raw, &b, out, sizeof out), FST_E_FORMAT);
    assert_int_equal(strspn(err.message, "x"), strlen(err.message));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(everything_comes_through),
        cmocka_unit_test(threads_have_children_of_their_own),
        cmocka_unit_test(a_childs_end_is_an_error),
        cmocka_unit_test(children_that_nobody_waits_for),
        cmocka_unit_test(limits_hold),
        cmocka_unit_test(no_process_is_an_error),
        cmocka_unit_test(a_child_has_nothing_of_the_parents),
        cmocka_unit_test(a_child_ends_with_its_parent),
        cmocka_unit_test(what_a_child_says_is_checked),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}

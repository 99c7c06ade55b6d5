/* Files that appear whole or not at all: temporary names, links, devices, what killed writers leave, messages that fit.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "fedstill/base.h"

static char folder[64];

static int make_folder(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/fedstill-test-atomic-XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", folder);
    return system(command);
}

static const char *in(const char *name)
{
    static char paths[4][400];
    static unsigned next;
    char *p = paths[next++ % 4];
    snprintf(p, sizeof paths[0], "%s/%s", folder, name);
    return p;
}

static void write_text(const char *path, const char *text)
{
    fst_error err = {0};
    if (fst_file_write(path, text, strlen(text), &err))
        fail_msg("%s", err.message);
}

static void assert_text(const char *path, const char *wanted)
{
    fst_buf b = {0};
    assert_int_equal(fst_file_read(path, 1000, &b, NULL), FST_OK);
    assert_string_equal(b.data, wanted);
    fst_buf_release(&b);
}

static int entries(void)
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    while (readdir(d))
        n++;
    closedir(d);
    return n - 2;
}

static void test_names_are_new_each_time(void **state)
{
    char *a = NULL, *b = NULL;
    (void)state;
    assert_int_equal(fst_temporary_name(&a, "x/model.safetensors", NULL), FST_OK);
    assert_int_equal(fst_temporary_name(&b, "x/model.safetensors", NULL), FST_OK);
    assert_string_not_equal(a, b);
    assert_int_equal(strncmp(a, "x/.model.safetensors.tmp.fedstill-", 34), 0);
    assert_true(fst_is_temporary_name(a + 2));
    fst_free(a);
    fst_free(b);
    /* a file's name may be as long as the system allows, and its temporary's still fits */
    char name[256];
    memset(name, 'n', 255);
    name[255] = 0;
    write_text(in(name), "long");
    assert_text(in(name), "long");
    unlink(in(name));
    static const char *const others[] = {"thesis.tmp.2024",
                                         "model.safetensors.tmp.1234",
                                         "model.tmp.fedstill-0123456789abcdef", /* no dot in front */
                                         ".model.tmp.fedstill-0123456789abcde",
                                         ".model.tmp.fedstill-0123456789abcdef0",
                                         ".model.tmp.fedstill-0123456789ABCDEF",
                                         ".tmp.fedstill",
                                         ""};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(fst_is_temporary_name(others[i]));
    assert_true(fst_is_temporary_name(".x.tmp.fedstill-1.tmp.fedstill-0123456789abcdef"));
}

/* Two writers of one target at once: the last to commit wins, whole. */
static void test_two_writers(void **state)
{
    fst_atomic_file a = {0}, b = {0};
    (void)state;
    assert_int_equal(fst_atomic_open(&a, in("both"), NULL), FST_OK);
    assert_int_equal(fst_atomic_open(&b, in("both"), NULL), FST_OK);
    assert_int_equal(fst_atomic_write(&a, "aaaa", 4, NULL), FST_OK);
    assert_int_equal(fst_atomic_write(&b, "bb", 2, NULL), FST_OK);
    assert_int_equal(fst_atomic_commit(&a, NULL), FST_OK);
    assert_text(in("both"), "aaaa");
    assert_int_equal(fst_atomic_commit(&b, NULL), FST_OK);
    assert_text(in("both"), "bb");
    unlink(in("both"));
    assert_int_equal(entries(), 0);
}

static void test_links_stay_links(void **state)
{
    struct stat st;
    fst_error err = {0};
    (void)state;
    assert_int_equal(mkdir(in("store"), 0777), 0);
    write_text(in("store/real"), "old");
    assert_int_equal(chmod(in("store/real"), 0600), 0);
    assert_int_equal(symlink("store/real", in("link")), 0);
    assert_int_equal(symlink("link", in("second")), 0);
    write_text(in("second"), "new");
    assert_text(in("store/real"), "new");
    assert_int_equal(lstat(in("second"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(lstat(in("store/real"), &st), 0);
    assert_true(S_ISREG(st.st_mode));
    assert_int_equal(st.st_mode & 0777, 0600); /* who may read it has not changed */
    /* one that points to nothing yet makes the file that it names */
    assert_int_equal(unlink(in("store/real")), 0);
    write_text(in("link"), "again");
    assert_text(in("store/real"), "again");
    assert_int_equal(symlink("circle", in("circle")), 0);
    assert_int_equal(fst_file_write(in("circle"), "x", 1, &err), FST_E_IO);
    assert_non_null(strstr(err.message, "circle"));
    for (const char *const *p = (const char *const[]){"circle", "second", "link", "store/real", NULL}; *p; p++)
        unlink(in(*p));
    rmdir(in("store"));
}

static void test_what_is_no_file_is_refused(void **state)
{
    fst_error err = {0};
    struct stat st;
    (void)state;
    assert_int_equal(mkfifo(in("pipe"), 0600), 0);
    assert_int_equal(symlink("pipe", in("to-pipe")), 0);
    assert_int_equal(mkdir(in("sub"), 0777), 0);
    for (const char *const *p = (const char *const[]){"pipe", "to-pipe", "sub", "sub/", NULL}; *p; p++) {
        assert_int_equal(fst_file_write(in(*p), "x", 1, &err), FST_E_IO);
        assert_non_null(strstr(err.message, in(*p)));
    }
    assert_int_equal(lstat(in("pipe"), &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    assert_int_equal(lstat(in("to-pipe"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    /* what /dev/stdout is: the test does not touch /dev */
    assert_int_equal(symlink("/proc/self/fd/1", in("stdout")), 0);
    assert_int_equal(fst_file_write(in("stdout"), "x", 1, &err), FST_E_IO);
    assert_non_null(strstr(err.message, "open already"));
    assert_int_equal(lstat(in("stdout"), &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    assert_int_equal(fst_file_write("/proc/self/fd/1", "x", 1, &err), FST_E_IO);
    unlink(in("stdout"));
    unlink(in("pipe"));
    unlink(in("to-pipe"));
    rmdir(in("sub"));
}

/* In a child: opens a file, says so, and waits for its end. Returns its number. */
static pid_t writer(const char *path)
{
    int ready[2];
    char c;
    assert_int_equal(pipe(ready), 0);
    pid_t child = fork();
    if (child == 0) {
        fst_atomic_file f = {0};
        if (fst_atomic_open(&f, path, NULL) || fst_atomic_write(&f, "half", 4, NULL) || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
    close(ready[1]);
    return child;
}

static void test_only_what_dead_writers_left_is_removed(void **state)
{
    int status;
    (void)state;
    static const char *const foreign[] = {"thesis.tmp.2024", ".x.tmp.1234", "x.tmp.fedstill-0123456789abcdef"};
    for (size_t i = 0; i < 3; i++)
        write_text(in(foreign[i]), "mine");
    assert_int_equal(mkdir(in(".x.tmp.fedstill-00000000000000aa"), 0777), 0);
    assert_int_equal(symlink("thesis.tmp.2024", in(".x.tmp.fedstill-00000000000000bb")), 0);
    pid_t alive = writer(in("y")), dead = writer(in("x"));
    assert_int_equal(entries(), 7);
    assert_int_equal(kill(dead, SIGKILL), 0);
    assert_int_equal(waitpid(dead, &status, 0), dead);
    fst_atomic_sweep(folder);
    assert_int_equal(entries(), 6);
    for (size_t i = 0; i < 3; i++)
        assert_text(in(foreign[i]), "mine");
    assert_int_equal(kill(alive, SIGKILL), 0);
    assert_int_equal(waitpid(alive, &status, 0), alive);
    write_text(in("z"), "z"); /* any write cleans up in its folder */
    assert_int_equal(entries(), 6);
    for (size_t i = 0; i < 3; i++)
        unlink(in(foreign[i]));
    unlink(in("z"));
    rmdir(in(".x.tmp.fedstill-00000000000000aa"));
    unlink(in(".x.tmp.fedstill-00000000000000bb"));
    assert_int_equal(entries(), 0);
}

static void test_ending_at_once_leaves_nothing(void **state)
{
    int status;
    (void)state;
    pid_t child = fork();
    if (child == 0) {
        fst_atomic_file f = {0}, g = {0};
        if (fst_atomic_open(&f, in("f"), NULL) || fst_atomic_open(&g, in("g"), NULL) || entries() != 2)
            _exit(1);
        fst_atomic_discard_all();
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(entries(), 0);
}

static void test_a_pipe_without_a_writer_does_not_hang(void **state)
{
    fst_error err = {0};
    fst_buf b = {0};
    int status;
    (void)state;
    assert_int_equal(mkfifo(in("pipe"), 0600), 0);
    assert_int_equal(fst_file_read(in("pipe"), 100, &b, &err), FST_E_IO);
    assert_non_null(strstr(err.message, "pipe"));
    pid_t child = fork();
    if (child == 0) {
        FILE *f = fopen(in("pipe"), "w");
        _exit(!f || fputs("through", f) < 0 || fclose(f));
    }
    assert_int_equal(fst_file_read(in("pipe"), 100, &b, &err), FST_OK);
    assert_string_equal(b.data, "through");
    fst_buf_release(&b);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    unlink(in("pipe"));
}

static void test_reasons_survive_long_paths(void **state)
{
    char path[4000];
    fst_error err = {0};
    (void)state;
    memset(path, 'd', sizeof path - 1);
    path[sizeof path - 1] = 0;
    for (size_t i = 0; i < sizeof path - 1; i += 200)
        path[i] = '/';
    memcpy(path, "/first", 6);
    memcpy(path + sizeof path - 6, "/last", 6);
    fst_fail(&err, FST_E_IO, "cannot write %s: it is a folder, and a file is wanted", path);
    assert_non_null(strstr(err.message, "cannot write /first"));
    assert_non_null(strstr(err.message, "..."));
    assert_non_null(strstr(err.message, "/last: it is a folder, and a file is wanted"));
    assert_true(strlen(err.message) > 900);
    fst_fail(&err, FST_E_IO, "this is the reason");
    fst_fail_in(&err, FST_E_IO, "%s and %s", path, path);
    assert_non_null(strstr(err.message, "this is the reason"));
    assert_int_equal(fst_file_write(path, "", 0, &err), FST_E_IO);
    assert_non_null(strstr(err.message, "No such file or directory"));
    /* many short words: the middle of the whole goes */
    for (size_t i = 0; i < sizeof path - 1; i += 4)
        path[i] = ' ';
    fst_fail(&err, FST_E_IO, "start%send", path);
    assert_int_equal(strncmp(err.message, "start", 5), 0);
    assert_string_equal(err.message + strlen(err.message) - 3, "end");
    /* no character is cut in two */
    for (size_t i = 0; i + 2 < sizeof path; i += 3)
        memcpy(path + i, "\xE2\x82\xAC", 3);
    for (int shift = 0; shift < 3; shift++) {
        fst_fail(&err, FST_E_IO, "%.*s%s", shift, "xx", path);
        for (const char *p = err.message + shift; *p;) {
            size_t n = *p == '.' ? 1 : 3;
            assert_true(n == 1 || !memcmp(p, "\xE2\x82\xAC", 3));
            p += n;
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names_are_new_each_time),
        cmocka_unit_test(test_two_writers),
        cmocka_unit_test(test_links_stay_links),
        cmocka_unit_test(test_what_is_no_file_is_refused),
        cmocka_unit_test(test_only_what_dead_writers_left_is_removed),
        cmocka_unit_test(test_ending_at_once_leaves_nothing),
        cmocka_unit_test(test_a_pipe_without_a_writer_does_not_hang),
        cmocka_unit_test(test_reasons_survive_long_paths),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}

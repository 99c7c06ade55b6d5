/* The commit of a task's folder, from repositories written by hand: what git leaves, and what only looks like it. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "session.h"

#define ONE "0123456789abcdef0123456789abcdef01234567"
#define TWO "89abcdef0123456789abcdef0123456789abcdef0123456789abcdef01234567"

static char top[] = "/tmp/fedstill-commit-XXXXXX";

static void put(const char *name, const char *text)
{
    char path[256], folder[256];
    snprintf(path, sizeof path, "%s/%s", top, name);
    snprintf(folder, sizeof folder, "%s", path);
    *strrchr(folder, '/') = 0;
    assert_int_equal(fst_make_folders(folder, NULL), FST_OK);
    assert_int_equal(fst_file_write(path, text, strlen(text), NULL), FST_OK);
}

static void finds(const char *folder, const char *wanted)
{
    char path[256], hash[FST_DIGEST_HEX] = "none";
    snprintf(path, sizeof path, "%s/%s", top, folder);
    bool found = fst__commit_of(path, hash);
    assert_string_equal(found ? hash : "none", wanted);
}

static void test_commits(void **state)
{
    (void)state;
    put("detached/.git/HEAD", ONE "\n");
    put("detached/a/b/c", "");
    finds("detached", ONE);
    finds("detached/a/b", ONE);
    put("branch/.git/HEAD", "ref: refs/heads/some/branch\n");
    finds("branch", "none"); /* no commit yet */
    put("branch/.git/packed-refs",
        "# pack-refs with: peeled\n" ONE " refs/heads/some\n" TWO " refs/heads/some/branch\n^" ONE "\n");
    finds("branch", TWO);
    put("branch/.git/refs/heads/some/branch", ONE "\n");
    finds("branch", ONE);
    put("tree/.git", "gitdir: ../branch/.git/worktrees/tree\n");
    put("branch/.git/worktrees/tree/HEAD", "ref: refs/heads/other\n");
    put("branch/.git/worktrees/tree/commondir", "../..\n");
    put("branch/.git/refs/heads/other", TWO "\n");
    finds("tree", TWO);
}

static void test_no_commits(void **state)
{
    (void)state;
    finds("", "none");
    finds("not/there", "none");
    put("short/.git/HEAD", "0123456789abcdef\n");
    finds("short", "none");
    put("long/.git/HEAD", ONE "0\n");
    finds("long", "none");
    put("out/.git/HEAD", "ref: refs/../../secret\n");
    put("out/secret", ONE "\n");
    finds("out", "none");
    put("other/.git/HEAD", "ref: ../secret\n");
    put("other/secret", ONE "\n");
    finds("other", "none");
    put("file/.git", "something\n");
    finds("file", "none");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_commits), cmocka_unit_test(test_no_commits)};
    char command[128];
    if (!mkdtemp(top))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    snprintf(command, sizeof command, "rm -rf %s", top);
    return system(command) ? 1 : failed;
}

/* What virtual clients keep beyond the budget of memory stands in files: for every strategy the same bits as in memory,
 * in one go, continued by another process, and after a kill; and what becomes of files that are lost. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

#include "conformance.h"

static size_t files_in(const char *folder)
{
    size_t n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e = d ? readdir(d) : NULL; e; e = readdir(d))
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

/* What a checkpoint would hold of each client: its bytes, or what file they are in. */
static void hand_over(struct world *from, struct world *to)
{
    fst_buf saved = {0};
    fst_error err;
    ok(fst_strategy_save(from->strategy, &saved, &err), &err);
    ok(fst_strategy_load(to->strategy, saved.data, saved.len, &err), &err);
    fst_fed_state_copy(&to->global, view_of(&from->global));
    for (uint32_t k = 0; k < CLIENTS; k++) {
        size_t len;
        const void *kept = fst_virtual_kept(from->clients, k, &len);
        fst_virtual_file in = fst_virtual_file_of(from->clients, k);
        if (in.stamp)
            ok(fst_virtual_restore_file(to->clients, k, &in, &err), &err);
        else
            ok(fst_virtual_restore(to->clients, k, kept, len, &err), &err);
    }
    fst_buf_release(&saved);
}

/* What does not fit in memory goes to files: the bits are the same, also when another process goes on from them, and
 * even when the first went on after it was saved, as one that is killed did. Nothing is left behind. */
static void test_files_do_not_matter(void **state)
{
    char folder[] = "/tmp/fedstill-clients-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(folder));
    for (int i = 0; i < CASES; i++) {
        struct world whole, first, rest;
        fst_buf want = {0};
        size_t files = 0;
        open_world(&whole, &cases[i], 1);
        ok(simulate(&whole, 1, 0, 3), NULL);
        state_of(&whole, &want);
        kept_in = folder;
        open_world(&first, &cases[i], 3);
        open_world(&rest, &cases[i], 2);
        first.stop_after = 0;
        assert_int_equal(simulate(&first, 3, 0, 3), FST_E_CANCELLED);
        fst_virtual_saved(first.clients);
        hand_over(&first, &rest);
        first.stop_after = UINT64_MAX;
        ok(simulate(&first, 3, 1, 3), NULL);
        assert_same(&first, &want);
        for (uint32_t k = 0; k < CLIENTS; k++)
            files += fst_virtual_file_of(first.clients, k).stamp > 0;
        assert_true(files || !fst_strategy_keeps(whole.ops) || want.len < 4000);
        ok(simulate(&rest, 2, 1, 3), NULL);
        assert_same(&rest, &want);
        fst_virtual_sweep(rest.clients);
        files = 0;
        for (uint32_t k = 0; k < CLIENTS; k++)
            files += fst_virtual_file_of(rest.clients, k).stamp > 0;
        assert_int_equal(files_in(folder), files);
        close_world(&whole);
        close_world(&first);
        close_world(&rest);
        fst_virtual_remove(folder);
        assert_int_equal(files_in(folder), 0);
        kept_in = NULL;
        fst_buf_release(&want);
    }
    rmdir(folder);
}

/* A file that was changed or is gone is found out when it is restored, and when its client plays. */
static void test_lost_files(void **state)
{
    const struct test_case *c = cases;
    char folder[] = "/tmp/fedstill-clients-XXXXXX", path[200];
    struct world w, other;
    fst_error err = {0};
    uint32_t k = 0;
    (void)state;
    while (strcmp(c->name, "fedmd"))
        c++;
    assert_non_null(mkdtemp(folder));
    kept_in = folder;
    open_world(&w, c, 1);
    open_world(&other, c, 1);
    w.stop_after = 0;
    assert_int_equal(simulate(&w, 1, 0, 0), FST_E_CANCELLED);
    while (k < CLIENTS && !fst_virtual_file_of(w.clients, k).stamp)
        k++;
    assert_true(k < CLIENTS);
    fst_virtual_file in = fst_virtual_file_of(w.clients, k), wrong = in;
    ok(fst_virtual_restore_file(other.clients, k, &in, &err), &err);
    wrong.hash.lo ^= 1;
    assert_int_equal(fst_virtual_restore_file(other.clients, k, &wrong, &err), FST_E_FORMAT);
    assert_non_null(strstr(err.message, "was changed"));
    snprintf(path, sizeof path, "%s/%u.%llu", folder, (unsigned)k + 1, (unsigned long long)in.stamp);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(fst_virtual_restore_file(other.clients, k, &in, &err), FST_E_IO);
    w.stop_after = UINT64_MAX;
    assert_int_equal(simulate(&w, 1, 1, 0), FST_E_CANCELLED); /* the run ends rather than go on without */
    close_world(&w);
    close_world(&other);
    fst_virtual_remove(folder);
    kept_in = NULL;
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_files_do_not_matter), cmocka_unit_test(test_lost_files)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

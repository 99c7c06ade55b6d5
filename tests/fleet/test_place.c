/* What a process of a fleet gives back to the system. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>

#include "place.h"

/* Resident pages of files: code and constants. */
static long file_kb(void)
{
    char line[128];
    long kb = -1;
    FILE *f = fopen("/proc/self/status", "re");
    while (f && kb < 0 && fgets(line, sizeof line, f))
        (void)sscanf(line, "RssFile: %ld", &kb);
    if (f)
        fclose(f);
    return kb;
}

static void pages_of_libraries_go_and_come_back(void **state)
{
    char before[256], after[256];
    (void)state;
    fst__numerics(&(fst_task_options){.threads = 1}, before, sizeof before);
    long kb = file_kb();
    fst__return_memory();
    long now = file_kb();
    assert_true(now > 0);
    if (now > kb - kb / 4)
        fail_msg("%ld KiB of files before, %ld now", kb, now);
    fst__numerics(&(fst_task_options){.threads = 1}, after, sizeof after);
    assert_string_equal(before, after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(pages_of_libraries_go_and_come_back)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

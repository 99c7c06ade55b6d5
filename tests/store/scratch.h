/* A folder for one test program, gone when it ends. */
#ifndef FST_TEST_SCRATCH_H
#define FST_TEST_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char scratch_folder[256];

/* What cmocka calls before the first test of a group and after the last. */
static inline int scratch_make(void **state)
{
    (void)state;
    const char *tmp = getenv("TMPDIR");
    snprintf(scratch_folder, sizeof scratch_folder, "%s/fedstill-test-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    return mkdtemp(scratch_folder) ? 0 : -1;
}

static inline int scratch_remove(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch_folder);
    return system(command);
}

/* The path of `name` in it; valid until the fourth call from now. */
static inline const char *scratch(const char *name)
{
    static char paths[4][400];
    static unsigned next;
    char *p = paths[next++ % 4];
    snprintf(p, sizeof paths[0], "%s/%s", scratch_folder, name);
    return p;
}

#endif

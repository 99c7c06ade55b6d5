/* Two names for model files in a folder of the test program's own, gone when it ends. */
#ifndef FST_TEST_TWO_FILES_H
#define FST_TEST_TWO_FILES_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char folder[] = "/tmp/fedstill-models-XXXXXX";
static char path[128], other[128];

static inline int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    snprintf(other, sizeof other, "%s/other.safetensors", folder);
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    (void)unlink(path);
    (void)unlink(other);
    return rmdir(folder);
}

#endif

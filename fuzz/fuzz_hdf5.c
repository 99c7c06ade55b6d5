/* RadioML 2018's HDF5 file, read as everywhere: by children that call libhdf5, and a parent that takes what they send
 * (src/data/confined.h). So a child that dies or hangs is no finding; what the parent does of it is. AFL++ sees the
 * coverage of both, libFuzzer the parent's. libhdf5 wants a file with a name of its own: one in memory, where there is
 * such a folder. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "formats.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static char path[40];

static void remove_file(void)
{
    unlink(path);
}

/* The descriptor of this process's file; -1: there is none. */
static int the_file(void)
{
    static int fd = -1;
    if (*path)
        return fd;
    snprintf(path, sizeof path, "%s/fuzz-hdf5-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    fd = mkstemp(path);
    if (fd >= 0)
        atexit(remove_file);
    return fd;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_source *s = NULL;
    fst_error err;
    int fd = size >= 8 && !memcmp(data, "\x89HDF\r\n\x1A\n", 8) ? the_file() : -1;
    const fst_source_spec spec = {.format = "radioml", .path = path, .limit = size & 3};
    if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
        return 0;
    if (!fst_source_open(&s, &spec, &err)) {
        fst_hash128 key;
        if (fst_source_key(s, s->count - 1, &key, &err))
            __builtin_trap();
    }
    fst_source_close(s);
    return 0;
}

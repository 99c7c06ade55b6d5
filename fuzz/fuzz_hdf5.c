/* RadioML 2018's HDF5 file. libhdf5 reads files by name: the bytes go into one in memory. */
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "formats.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    char path[40];
    fst_source *s = NULL;
    fst_error err;
    int fd = size >= 8 && !memcmp(data, "\x89HDF\r\n\x1A\n", 8) ? memfd_create("fuzz", MFD_CLOEXEC) : -1;
    if (fd < 0)
        return 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const fst_source_spec spec = {.format = "radioml", .path = path, .limit = size & 3};
    if (write(fd, data, size) == (ssize_t)size && !fst_source_open(&s, &spec, &err)) {
        fst_hash128 key;
        if (fst_source_key(s, s->count - 1, &key, &err))
            __builtin_trap();
    }
    fst_source_close(s);
    close(fd);
    return 0;
}

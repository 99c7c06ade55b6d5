/* RadioML 2018's HDF5 file, read as everywhere: by children that call libhdf5, and a parent that takes what they send
 * (src/data/confined.h). So a child that dies or hangs is no finding; what the parent does of it is. AFL++ sees the
 * coverage of both, libFuzzer the parent's. Bytes that are no HDF5 file are what children sent that a file has taken
 * over: the first byte says, in eighths, how many come from the first of them.
 *
 * libhdf5 wants a file with a name of its own: one in memory, where there is such a folder. */
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

/* ---- what children send -------------------------------------------------------------------------- */

static struct bytes {
    const unsigned char *data;
    size_t size;
} labels, rows;

static fst_status send_raw(const struct bytes *b, fst__confined *c)
{
    size_t done = 0;
    while (done < b->size) {
        ssize_t n = write(c->fd, b->data + done, b->size - done);
        if (n <= 0)
            _exit(1);
        done += (size_t)n;
    }
    _exit(0);
}

static fst_status send_labels(void *ctx, fst__confined *c, fst_error *err)
{
    (void)ctx, (void)err;
    return send_raw(&labels, c);
}

static fst_status send_rows(void *ctx, fst__confined *c, fst_error *err)
{
    (void)ctx, (void)err;
    return send_raw(&rows, c);
}

static fst_status open_sent(const fst_source_spec *spec, const unsigned char *data, size_t size, fst_source **out,
                            fst_error *err)
{
    static const fst_source_vtable vtable = {"radioml", fst__held_get, fst__held_close};
    fst__held *h = NULL;
    size_t first = (size - 1) * (data[0] & 7) / 8;
    labels = (struct bytes){data + 1, first};
    rows = (struct bytes){data + 1 + first, size - 1 - first};
    fst_status s = fst__held_new(&h, &vtable, "sent", err);
    if (!s)
        s = fst__radioml_hdf5_from(h, spec, send_labels, send_rows, out, err);
    if (s)
        fst__held_close(h ? &h->base : NULL);
    return s;
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_source *s = NULL;
    fst_error err;
    int fd = size ? the_file() : -1;
    bool file = size >= 8 && !memcmp(data, "\x89HDF\r\n\x1A\n", 8);
    const fst_source_spec spec = {.format = "radioml", .path = path, .split = "train", .limit = size & 3};
    if (fd < 0 || ftruncate(fd, 0) || pwrite(fd, data, size, 0) != (ssize_t)size)
        return 0;
    if (!(file ? fst_source_open(&s, &spec, &err) : open_sent(&spec, data, size, &s, &err))) {
        fst_hash128 key;
        if (fst_source_key(s, s->count - 1, &key, &err))
            __builtin_trap();
    }
    fst_source_close(s);
    return 0;
}

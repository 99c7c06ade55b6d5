/* What a page's clients send beside the request itself (Last-Event-ID, Host), and any bytes as the file of events. The
 * input: the length of the id, the id, then the file. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "dashboard.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

struct reading {
    const char *file;
    size_t size, at;
    fst_buf out;
};

/* Every line is one of the file, whole, and ids only rise. */
static bool take(void *ctx, uint64_t end, const char *line, size_t len)
{
    struct reading *r = ctx;
    if (end <= r->at || end > r->size || len + 1 > end || r->file[end - 1] != '\n' ||
        memcmp(r->file + end - 1 - len, line, len) || memchr(line, '\n', len))
        abort();
    r->at = end;
    r->out.len = 0;
    if (!fst__stream_event(&r->out, NULL, end, line, len) &&
        strstr(r->out.data, "\n\n") != r->out.data + r->out.len - 2 && strlen(r->out.data) == r->out.len)
        abort(); /* it would be two events */
    return true;
}

static void read_all(const char *file, size_t size, const char *id)
{
    static char line[FST__EVENT_LINE];
    struct reading r = {.file = file, .size = size};
    struct fst__lines lines;
    char path[64];
    int fd = memfd_create("events", MFD_CLOEXEC);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (fd < 0 || write(fd, file, size) != (ssize_t)size)
        abort();
    fst__lines_open(&lines, fst_strdup(path));
    (void)fst__lines_look(&lines);
    struct fst__lines_at at = fst__lines_from(&lines, id);
    if (at.at > size || (at.at && !at.skipping && file[at.at - 1] != '\n'))
        abort();
    r.at = (size_t)at.at;
    while (fst__lines_read(&lines, &at, line, take, &r))
        ;
    fst_buf_release(&r.out);
    fst__lines_close(&lines);
    close(fd);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    char id[256];
    size_t n = size ? data[0] : 0;
    if (size < 1 || n + 1 > size)
        return 0;
    memcpy(id, data + 1, n);
    id[n] = 0;
    (void)fst__is_loopback_host(id);
    read_all((const char *)data + 1 + n, size - 1 - n, id);
    return 0;
}

/*
 * A pickle in a file that is larger than what is wanted of it. There is room for all of its bytes, so that values point
 * to theirs as they do in memory; but only those that the parser looks at are read into it, and those of long texts,
 * which arrays are made of, are passed over. Whoever wants an array's bytes has them copied out of the file; the few
 * whose order of bytes or of elements changes are read at once.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "pickle_private.h"

enum { BLOCK = 65536, HOLE = 65536 };

static fst_status read_at(const fst_pickle *p, size_t at, void *dst, size_t len, fst_error *err)
{
    unsigned char *to = dst;
    while (len) {
        ssize_t n = pread(p->fd, to, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fst_fail_errno(err, "%s", p->name);
        if (n == 0)
            return fst_fail(err, FST_E_IO, "%s: became shorter while it was read", p->name);
        to += n;
        at += (size_t)n;
        len -= (size_t)n;
    }
    return FST_OK;
}

fst_status fst__pickle_need(fst_pickle *p, size_t n, fst_error *err)
{
    if (n <= p->passed - p->at)
        return FST_OK;
    size_t more = n - (p->passed - p->at), left = p->len - p->passed;
    more = more > BLOCK ? more : BLOCK;
    more = more < left ? more : left;
    fst_status s = read_at(p, p->passed, p->room + p->passed, more, err);
    if (!s)
        p->passed += more;
    return s;
}

fst_status fst__pickle_line(fst_pickle *p, const char **line, size_t *len, fst_error *err)
{
    const unsigned char *from = p->data + p->at, *end = NULL;
    for (size_t seen = 0; !end;) {
        size_t there = p->passed - p->at;
        end = there > seen ? memchr(from + seen, '\n', there - seen) : NULL;
        if (!end && p->passed == p->len)
            return fst__pickle_fail(p, err, "the pickle is cut off");
        fst_status s = end ? FST_OK : fst__pickle_need(p, there + 1, err);
        if (s)
            return s;
        seen = there;
    }
    *line = (const char *)from;
    *len = (size_t)(end - from);
    p->at += *len + 1;
    return FST_OK;
}

/* Where in the file the bytes at data are; SIZE_MAX: in memory. */
static size_t place_of(const fst_pickle *p, const void *data)
{
    uintptr_t first = (uintptr_t)p->data, at = (uintptr_t)data;
    return p->fd >= 0 && at >= first && at - first <= p->len ? (size_t)(at - first) : SIZE_MAX;
}

fst_status fst__pickle_fill(fst_pickle *p, const void *text, size_t n, fst_error *err)
{
    size_t at = place_of(p, text);
    return at == SIZE_MAX || n < p->hole ? FST_OK : read_at(p, at, p->room + at, n, err);
}

fst_status fst_pickle_copy(const fst_pickle *p, void *dst, const void *data, size_t len, fst_error *err)
{
    size_t at = place_of(p, data);
    if (at != SIZE_MAX)
        return read_at(p, at, dst, len, err);
    if (len)
        memcpy(dst, data, len);
    return FST_OK;
}

void fst__pickle_close(fst_pickle *p)
{
    if (p->fd < 0)
        return;
    close(p->fd);
    munmap(p->room, p->len);
}

/* fd is closed by *out, on failure by the caller. */
static fst_status open_fd(fst_pickle **out, int fd, const char *path, size_t len, size_t max_bytes, size_t hole,
                          fst_error *err)
{
    /* pages of zeros, of which those that nobody writes take no memory, whoever looks at them */
    void *room = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    bool there = room != MAP_FAILED;
    const fst_pickle all = {
        .name = (char *)(uintptr_t)path, .data = room, .len = len, .fd = fd, .room = room, .hole = hole};
    fst_status s = there ? fst__pickle_parse_as(out, &all, max_bytes, NULL, err) : fst_fail_memory(err, len);
    if (s && there)
        munmap(room, len);
    return s;
}

fst_status fst__pickle_open(fst_pickle **out, const char *path, size_t max_bytes, size_t hole, fst_error *err)
{
    struct stat st;
    int fd = -1;
    fst_status s = fst_file_open(&fd, path, err);
    if (s)
        return s;
    bool plain = !fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_size > 0 && (uint64_t)st.st_size <= max_bytes;
    if (plain)
        s = open_fd(out, fd, path, (size_t)st.st_size, max_bytes, hole, err);
    if (s || !plain)
        close(fd);
    return plain ? s : fst_pickle_read(out, path, max_bytes, err); /* a pipe, and what that has to say of the rest */
}

fst_status fst_pickle_open(fst_pickle **out, const char *path, size_t max_bytes, fst_error *err)
{
    return fst__pickle_open(out, path, max_bytes, HOLE, err);
}

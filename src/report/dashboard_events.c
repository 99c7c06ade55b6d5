/*
 * A growing file of lines, read by many at their own pace, and the form that server-sent events have. An event's id is
 * where its line ends in the file: going on from one is a seek, and needs no memory of what was sent.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dashboard.h"

void fst__lines_open(struct fst__lines *l, char *path)
{
    *l = (struct fst__lines){.path = path, .fd = -1};
}

void fst__lines_close(struct fst__lines *l)
{
    if (l->fd >= 0)
        close(l->fd);
    fst_free(l->path);
}

static void anew(struct fst__lines *l)
{
    l->generation++;
    l->size = 0;
}

bool fst__lines_look(struct fst__lines *l)
{
    struct stat named, is;
    unsigned generation = l->generation;
    uint64_t size = l->size;
    if (!l->path || stat(l->path, &named) || !S_ISREG(named.st_mode))
        return false;
    if (l->fd >= 0 && (uint64_t)named.st_ino != l->file) {
        close(l->fd);
        l->fd = -1;
        anew(l);
    }
    if (l->fd < 0)
        l->fd = open(l->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (l->fd < 0 || fstat(l->fd, &is))
        return false;
    l->file = (uint64_t)is.st_ino;
    if ((uint64_t)is.st_size < l->size)
        anew(l);
    l->size = (uint64_t)is.st_size;
    return l->size != size || l->generation != generation;
}

static ssize_t read_at(int fd, char *buf, size_t len, uint64_t at)
{
    ssize_t n;
    do
        n = pread(fd, buf, len, (off_t)at);
    while (n < 0 && errno == EINTR);
    return n;
}

bool fst__lines_read(const struct fst__lines *l, struct fst__lines_at *at, char *buf, fst__line_fn fn, void *ctx)
{
    if (at->generation != l->generation)
        *at = (struct fst__lines_at){.generation = l->generation};
    uint64_t rest = l->size > at->at ? l->size - at->at : 0, begin = at->at;
    ssize_t n =
        l->fd < 0 || !rest ? 0 : read_at(l->fd, buf, rest < FST__EVENT_LINE ? (size_t)rest : FST__EVENT_LINE, begin);
    bool more = true;
    for (const char *p = buf; more && n > 0 && p < buf + n;) {
        const char *end = memchr(p, '\n', (size_t)(buf + n - p));
        if (!end)
            break;
        at->at = begin + (uint64_t)(end - buf) + 1;
        if (!at->skipping)
            more = fn(ctx, at->at, p, (size_t)(end - p));
        at->skipping = false;
        p = end + 1;
    }
    if (n == FST__EVENT_LINE && at->at == begin) { /* too long a line */
        at->at += (uint64_t)n;
        at->skipping = true;
    }
    return at->at != begin;
}

struct fst__lines_at fst__lines_from(const struct fst__lines *l, const char *id)
{
    struct fst__lines_at from = {.generation = l->generation};
    char before, *end = NULL;
    errno = 0;
    unsigned long long n = id && *id >= '0' && *id <= '9' ? strtoull(id, &end, 10) : 0;
    if (end && !*end && !errno && n <= l->size &&
        (n == 0 || (read_at(l->fd, &before, 1, n - 1) == 1 && before == '\n')))
        from.at = n;
    else if (l->size > FST__EVENTS_BACK)
        from = (struct fst__lines_at){l->size - FST__EVENTS_BACK, l->generation, true};
    return from;
}

fst_status fst__stream_event(fst_buf *out, const char *name, uint64_t id, const char *data, size_t len)
{
    fst_status s = name ? fst_buf_printf(out, NULL, "event: %s\n", name) : FST_OK;
    if (!s && id)
        s = fst_buf_printf(out, NULL, "id: %llu\n", (unsigned long long)id);
    if (!s)
        s = fst_buf_append(out, "data: ", 6, NULL);
    size_t at = out->len;
    if (!s)
        s = fst_buf_append(out, data, len, NULL);
    for (; !s && at < out->len; at++) /* either would end the data */
        if (out->data[at] == '\n' || out->data[at] == '\r')
            out->data[at] = ' ';
    return s ? s : fst_buf_append(out, "\n\n", 2, NULL);
}

/*
 * Room for a blob, see blob_room.h. A large one is a file of its full length from the first moment on, so that a full
 * disk shows before anything is fetched, and FILE.have beside it: the digest, a line end, and a '1' or '0' for each
 * part. A part is written before its '1'. A process that is killed leaves both, and the next one goes on. After a power
 * cut the list may say more than is there: then the digest is wrong, and all is fetched again.
 */
#include "blob_room.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HEAD = FST_DIGEST_HEX /* with the line end */ };

static uint64_t at(uint32_t index)
{
    return (uint64_t)index * FST_BLOB_PART;
}

/* All of it, into `to` or out of `from`, or false. */
static bool move(int fd, char *to, const char *from, size_t len, uint64_t where)
{
    for (size_t at = 0; at < len;) {
        off_t next = (off_t)(where + at);
        ssize_t n = to ? pread(fd, to + at, len - at, next) : pwrite(fd, from + at, len - at, next);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        at += (size_t)n;
    }
    return true;
}

static bool write_at(int fd, const void *data, size_t len, uint64_t where)
{
    return move(fd, NULL, data, len, where);
}

static bool read_at(int fd, void *data, size_t len, uint64_t where)
{
    return move(fd, data, NULL, len, where);
}

/* What an earlier process left of this blob. */
static bool take_up(struct room *r, const fst_blob_manifest *m, bool *here)
{
    struct stat data, list;
    char head[HEAD];
    if (fstat(r->fd, &data) || fstat(r->listed, &list) || (uint64_t)data.st_size != m->bytes ||
        (uint64_t)list.st_size != HEAD + (uint64_t)m->parts || !read_at(r->listed, head, HEAD, 0) ||
        head[HEAD - 1] != '\n' || memcmp(head, m->digest, HEAD - 1))
        return false;
    for (uint32_t i = 0; i < m->parts; i++) {
        char c = '0';
        here[i] = read_at(r->listed, &c, 1, HEAD + (uint64_t)i) && c == '1';
    }
    return true;
}

static fst_status begin(struct room *r, const fst_blob_manifest *m, fst_error *err)
{
    char head[HEAD];
    if (ftruncate(r->listed, 0) || ftruncate(r->fd, 0))
        return fst_fail_errno(err, "%s", r->path);
    errno = posix_fallocate(r->fd, 0, (off_t)m->bytes);
    if (errno) {
        (void)fst_fail_errno(err, "no space for %llu MB in %s", (unsigned long long)(m->bytes / 1000000), r->path);
        (void)!ftruncate(r->fd, 0);
        return FST_E_IO;
    }
    memcpy(head, m->digest, HEAD - 1);
    head[HEAD - 1] = '\n';
    if (!write_at(r->listed, head, HEAD, 0))
        return fst_fail_errno(err, "%s", r->list);
    fst__room_forget(r, m->parts);
    return FST_OK;
}

static fst_status open_files(struct room *r, const fst_blob_manifest *m, const char *file, bool *here, fst_error *err)
{
    size_t n = strlen(file) + sizeof ".have";
    r->path = fst_strdup(file);
    r->list = fst_alloc(n);
    r->part = fst_alloc(FST_BLOB_PART);
    if (!r->path || !r->list || !r->part)
        return fst_fail_memory(err, FST_BLOB_PART);
    snprintf(r->list, n, "%s.have", file);
    r->fd = open(r->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    r->listed = r->fd < 0 ? -1 : open(r->list, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (r->listed < 0)
        return fst_fail_errno(err, "%s", r->path);
    return take_up(r, m, here) ? FST_OK : begin(r, m, err);
}

fst_status fst__room_open(struct room *r, const fst_blob_manifest *m, const char *file, bool *here, fst_error *err)
{
    *r = (struct room){.bytes = m->bytes, .fd = -1, .listed = -1};
    if (!file) {
        r->memory = fst_alloc((size_t)m->bytes);
        return r->memory ? FST_OK : fst_fail_memory(err, (size_t)m->bytes);
    }
    fst_status st = open_files(r, m, file, here, err);
    if (st)
        fst__room_close(r, false);
    return st;
}

void fst__room_close(struct room *r, bool remove)
{
    if (r->map)
        munmap(r->map, r->length);
    if (r->fd >= 0)
        close(r->fd);
    if (r->listed >= 0)
        close(r->listed);
    if (remove && r->path) {
        unlink(r->path);
        unlink(r->list);
    }
    fst_free(r->path);
    fst_free(r->list);
    fst_free(r->part);
    fst_free(r->memory);
    *r = (struct room){.fd = -1, .listed = -1};
}

bool fst__room_put(struct room *r, uint32_t index, const void *data, size_t len)
{
    if (r->memory) {
        memcpy(r->memory + at(index), data, len);
        return true;
    }
    if (write_at(r->fd, data, len, at(index)) && write_at(r->listed, "1", 1, HEAD + (uint64_t)index))
        return true;
    fst_log(FST_LOG_WARN, "%s: %s", r->path, strerror(errno));
    return false;
}

const void *fst__room_get(struct room *r, uint32_t index, size_t len)
{
    if (r->memory)
        return r->memory + at(index);
    return read_at(r->fd, r->part, len, at(index)) ? r->part : NULL;
}

void fst__room_forget(struct room *r, uint32_t parts)
{
    char none[4096];
    memset(none, '0', sizeof none);
    for (uint32_t i = 0; !r->memory && i < parts; i += sizeof none) {
        size_t n = parts - i < sizeof none ? parts - i : sizeof none;
        if (!write_at(r->listed, none, n, HEAD + (uint64_t)i))
            fst_log(FST_LOG_WARN, "%s: %s", r->list, strerror(errno));
    }
}

fst_status fst__room_view(struct room *r, const void **out, fst_error *err)
{
    if (r->memory) {
        *out = r->memory;
        return FST_OK;
    }
    if (!r->map) {
        void *map = mmap(NULL, (size_t)r->bytes, PROT_READ, MAP_SHARED, r->fd, 0);
        if (map == MAP_FAILED)
            return fst_fail_errno(err, "%s", r->path);
        r->map = map;
        r->length = (size_t)r->bytes;
    }
    *out = r->map;
    return FST_OK;
}

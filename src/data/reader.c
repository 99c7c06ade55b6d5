/* Sequential reading of plain and gzip bytes from a file or from memory. It knows no format, seeks
 * nowhere, and keeps one block of input; the output goes straight to where the caller wants it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "formats.h"

enum { BLOCK = 65536, GZIP_WINDOW = 15 + 16 };
/* A deflated byte cannot stand for more than this many (zlib's technical notes: 1032:1). */
enum { DEFLATE_MOST = 1032 };

static void *zlib_alloc(void *ctx, unsigned count, unsigned size)
{
    (void)ctx;
    return fst_calloc(count, size);
}

static void zlib_free(void *ctx, void *p)
{
    (void)ctx;
    fst_free(p);
}

/* The next stored bytes, as they are. */
static fst_status stored(fst__reader *r, void *dst, size_t len, size_t *got, fst_error *err)
{
    unsigned char *p = dst;
    size_t done = 0;
    if (r->fd < 0) {
        done = len < r->size - r->at ? len : (size_t)(r->size - r->at);
        if (done)
            memcpy(dst, r->memory + r->at, done);
    }
    while (r->fd >= 0 && done < len) {
        ssize_t n = pread(r->fd, p + done, len - done, (off_t)(r->at + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fst_fail_errno(err, "%s", r->name);
        if (n == 0)
            break;
        done += (size_t)n;
    }
    r->at += done;
    *got = done;
    return FST_OK;
}

static fst_status recognise(fst__reader *r, fst_error *err)
{
    unsigned char magic[2] = {0};
    size_t got = 0;
    fst_status s = stored(r, magic, 2, &got, err);
    r->at = 0;
    r->compressed = !s && got == 2 && magic[0] == 0x1F && magic[1] == 0x8B;
    return s;
}

fst_status fst__reader_open(fst__reader *r, const char *path, fst_error *err)
{
    fst__reader n = {.name = path, .fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)};
    struct stat st;
    fst_status s = FST_OK;
    if (n.fd < 0)
        return fst_fail_errno(err, "%s", path);
    if (fstat(n.fd, &st))
        s = fst_fail_errno(err, "%s", path);
    else if (!S_ISREG(st.st_mode))
        s = fst_fail(err, FST_E_IO, "%s: not a file", path);
    else
        n.size = (uint64_t)st.st_size;
    if (!s)
        s = recognise(&n, err);
    if (s)
        close(n.fd);
    else
        *r = n;
    return s;
}

fst_status fst__reader_open_memory(fst__reader *r, const char *name, const void *data, size_t len, fst_error *err)
{
    *r = (fst__reader){.name = name, .fd = -1, .memory = data, .size = len};
    return recognise(r, err);
}

void fst__reader_close(fst__reader *r)
{
    if (r->started)
        inflateEnd(&r->z);
    if (r->fd >= 0)
        close(r->fd);
    fst_free(r->block);
    *r = (fst__reader){.fd = -1};
}

uint64_t fst__reader_most(const fst__reader *r)
{
    if (!r->compressed)
        return r->size;
    return r->size > UINT64_MAX / DEFLATE_MOST ? UINT64_MAX : r->size * DEFLATE_MOST;
}

/* Not at opening: zlib remembers where its state stands, and a reader may be moved until it reads. */
static fst_status inflate_start(fst__reader *r, fst_error *err)
{
    r->block = fst_alloc(BLOCK);
    if (!r->block)
        return fst_fail_memory(err, BLOCK);
    r->z.zalloc = zlib_alloc;
    r->z.zfree = zlib_free;
    if (inflateInit2(&r->z, GZIP_WINDOW) != Z_OK)
        return fst_fail_memory(err, BLOCK);
    r->started = true;
    return FST_OK;
}

static fst_status refill(fst__reader *r, fst_error *err)
{
    size_t got = 0;
    fst_status s = stored(r, r->block, BLOCK, &got, err);
    r->z.next_in = r->block;
    r->z.avail_in = (unsigned)got;
    return s;
}

/* One call of inflate; a gzip file may be several streams, one after the other. */
static fst_status inflate_step(fst__reader *r, fst_error *err)
{
    if (r->z.avail_in == 0) {
        fst_status s = refill(r, err);
        if (s)
            return s;
        if (r->z.avail_in == 0) {
            if (!r->ended)
                return fst_fail(err, FST_E_FORMAT, "%s: the gzip data is cut off", r->name);
            return FST_OK;
        }
    }
    if (r->ended) {
        r->ended = false;
        inflateReset(&r->z);
    }
    int e = inflate(&r->z, Z_NO_FLUSH);
    if (e == Z_MEM_ERROR)
        return fst_fail_memory(err, BLOCK);
    if (e != Z_OK && e != Z_STREAM_END)
        return fst_fail(err, FST_E_FORMAT, "%s: the gzip data is damaged: %s", r->name, r->z.msg ? r->z.msg : "?");
    r->ended = e == Z_STREAM_END;
    return FST_OK;
}

static fst_status inflated(fst__reader *r, unsigned char *dst, size_t len, size_t *got, fst_error *err)
{
    size_t done = 0;
    fst_status s = r->started ? FST_OK : inflate_start(r, err);
    while (!s && done < len) {
        unsigned want = len - done < INT_MAX ? (unsigned)(len - done) : INT_MAX;
        r->z.next_out = dst + done;
        r->z.avail_out = want;
        s = inflate_step(r, err);
        done += want - r->z.avail_out;
        if (!s && r->ended && r->z.avail_in == 0 && r->at == r->size)
            break;
    }
    *got = done;
    return s;
}

static fst_status read_some(fst__reader *r, void *dst, size_t len, size_t *got, fst_error *err)
{
    return r->compressed ? inflated(r, dst, len, got, err) : stored(r, dst, len, got, err);
}

fst_status fst__reader_exact(fst__reader *r, void *dst, size_t len, const char *what, fst_error *err)
{
    size_t got = 0;
    fst_status s = read_some(r, dst, len, &got, err);
    if (!s && got < len)
        return fst_fail(err, FST_E_FORMAT, "%s: cut off: %s needs %zu bytes, %zu are there", r->name, what, len, got);
    return s;
}

/* Stored bytes are stepped over, compressed ones inflated into nothing. */
fst_status fst__reader_skip(fst__reader *r, uint64_t len, const char *what, fst_error *err)
{
    unsigned char block[4096];
    if (!r->compressed && len <= r->size - r->at) {
        r->at += len;
        return FST_OK;
    }
    fst_status s = FST_OK;
    while (!s && len) {
        size_t part = len < sizeof block ? (size_t)len : sizeof block;
        s = fst__reader_exact(r, block, part, what, err);
        len -= part;
    }
    return s;
}

void fst__reader_rewind(fst__reader *r)
{
    r->at = 0;
}

fst_status fst__reader_finish(fst__reader *r, fst_error *err)
{
    unsigned char extra;
    size_t got = 0;
    fst_status s = read_some(r, &extra, 1, &got, err);
    if (!s && got)
        return fst_fail(err, FST_E_FORMAT, "%s: bytes follow where the file should end", r->name);
    return s;
}

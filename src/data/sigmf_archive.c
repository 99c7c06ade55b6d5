/*
 * SigMF archives: tar files of recordings, read by libarchive. Archives of the standard are not compressed, and no
 * others are read, so that what is read takes no more memory than the archive has bytes. Only plain files are taken;
 * links and folders are passed over, and nothing is written to disk.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#ifdef FST_WITH_LIBARCHIVE
#include <archive.h>
#include <archive_entry.h>
#endif

#include "sigmf.h"

enum { MAX_MEMBERS = 1 << 17, BLOCK = 1 << 16 };

void fst__archive_release(fst__archive *a)
{
    for (size_t i = 0; i < a->count; i++) {
        fst_free(a->member[i].name);
        fst_free(a->member[i].data);
    }
    fst_free(a->member);
    *a = (fst__archive){0};
}

#ifdef FST_WITH_LIBARCHIVE

struct reading {
    struct archive *tar;
    const char *name;
    uint64_t left; /* bytes that members may still have */
    fst__archive *out;
};

static fst_status damaged(const struct reading *r, fst_error *err)
{
    const char *why = archive_error_string(r->tar);
    if (archive_errno(r->tar) == ENOMEM)
        return fst_fail_memory(err, BLOCK);
    return fst_fail(err, FST_E_FORMAT, "%s: no SigMF archive (a tar file that is not compressed), or damaged: %s",
                    r->name, why ? why : "?");
}

static fst_status room(fst__archive *a, fst_error *err)
{
    if (a->count < a->room)
        return FST_OK;
    size_t more = a->room ? 2 * a->room : 16;
    struct fst__member *member = fst_realloc(a->member, a->room * sizeof *member, more * sizeof *member);
    if (!member)
        return fst_fail_memory(err, more * sizeof *member);
    a->member = member;
    a->room = more;
    return FST_OK;
}

static fst_status take_member(struct reading *r, const char *name, uint64_t size, bool holes, fst_error *err)
{
    fst__archive *a = r->out;
    if (size > r->left) /* also what a sparse file only claims to have */
        return fst_fail(err, FST_E_FORMAT, "%s: %s has %" PRIu64 " bytes, more than the archive%s", r->name, name, size,
                        holes ? ": it was packed with holes (tar --sparse); pack it without" : "");
    if (a->count == MAX_MEMBERS)
        return fst_fail(err, FST_E_LIMIT, "%s: more than %d files", r->name, MAX_MEMBERS);
    fst_status s = room(a, err);
    if (s)
        return s;
    struct fst__member *m = &a->member[a->count++];
    *m = (struct fst__member){fst_strdup(name), fst_alloc(size + 1), (size_t)size};
    if (!m->name || !m->data)
        return fst_fail_memory(err, (size_t)size);
    for (size_t at = 0; at < size;) {
        la_ssize_t n = archive_read_data(r->tar, m->data + at, (size_t)size - at);
        if (n < 0)
            return damaged(r, err);
        if (n == 0)
            return fst_fail(err, FST_E_FORMAT, "%s: %s is cut off", r->name, name);
        at += (size_t)n;
    }
    m->data[size] = 0;
    r->left -= size;
    return FST_OK;
}

static fst_status take_all(struct reading *r, fst_error *err)
{
    for (;;) {
        struct archive_entry *e = NULL;
        int c = archive_read_next_header(r->tar, &e);
        if (c == ARCHIVE_EOF)
            return FST_OK;
        if (c != ARCHIVE_OK && c != ARCHIVE_WARN)
            return damaged(r, err);
        const char *name = archive_entry_pathname(e) ? archive_entry_pathname(e) : archive_entry_pathname_utf8(e);
        if (!name || archive_entry_filetype(e) != AE_IFREG || archive_entry_hardlink(e))
            continue;
        int64_t size = archive_entry_size(e);
        fst_status s = take_member(r, name, size > 0 ? (uint64_t)size : 0, archive_entry_sparse_count(e) > 0, err);
        if (s)
            return s;
    }
}

/* From `data`, or from the file `name` when that is NULL. */
static fst_status read_tar(fst__archive *out, const char *name, const void *data, uint64_t len, fst_error *err)
{
    fst__archive a = {0};
    struct reading r = {archive_read_new(), name, len, &a};
    fst_status s = r.tar ? FST_OK : fst_fail_memory(err, BLOCK);
    if (!s && archive_read_support_format_tar(r.tar) != ARCHIVE_OK)
        s = damaged(&r, err);
    if (!s && (data ? archive_read_open_memory(r.tar, data, (size_t)len)
                    : archive_read_open_filename(r.tar, name, BLOCK)) != ARCHIVE_OK)
        s = damaged(&r, err);
    if (!s)
        s = take_all(&r, err);
    archive_read_free(r.tar);
    if (s)
        fst__archive_release(&a);
    else
        *out = a;
    return s;
}

fst_status fst__archive_read_memory(fst__archive *out, const char *name, const void *data, size_t len, fst_error *err)
{
    return read_tar(out, name, data, len, err);
}

fst_status fst__archive_read(fst__archive *out, const char *path, fst_error *err)
{
    struct stat st;
    if (stat(path, &st))
        return fst_fail_errno(err, "%s", path);
    if (!S_ISREG(st.st_mode))
        return fst_fail(err, FST_E_IO, "%s: not a file", path);
    if ((uint64_t)st.st_size > FST_SOURCE_MAX_BYTES)
        return fst_fail(err, FST_E_LIMIT, "%s: archives of up to %zu MB are read; unpack it with tar -xf", path,
                        FST_SOURCE_MAX_BYTES >> 20);
    return read_tar(out, path, NULL, (uint64_t)st.st_size, err);
}

#else

fst_status fst__archive_read_memory(fst__archive *out, const char *name, const void *data, size_t len, fst_error *err)
{
    (void)out, (void)data, (void)len;
    return fst_fail(err, FST_E_UNSUPPORTED,
                    "%s: a SigMF archive, and this build is without libarchive: unpack it with tar -xf", name);
}

fst_status fst__archive_read(fst__archive *out, const char *path, fst_error *err)
{
    return fst__archive_read_memory(out, path, NULL, 0, err);
}

#endif

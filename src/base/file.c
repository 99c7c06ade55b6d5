/* Reading whole files, folders, locks. atomic.c writes. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fedstill/base.h"

enum { PIPE_WAIT_MS = 1000 };

static ssize_t read_some(int fd, void *p, size_t n)
{
    ssize_t r;
    do
        r = read(fd, p, n);
    while (r < 0 && errno == EINTR);
    return r;
}

static fst_status read_fd(int fd, const char *path, size_t max_bytes, fst_buf *out, fst_error *err)
{
    struct stat st;
    fst_buf b = {0};
    if (fstat(fd, &st))
        return fst_fail_errno(err, "%s", path);
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max_bytes)
        return fst_fail(err, FST_E_LIMIT, "%s: %lld bytes, at most %zu are read", path, (long long)st.st_size,
                        max_bytes);
    /* A file's size, one byte to see its end, and the NUL; what has no size (a pipe) in blocks that double. */
    size_t first = S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size + 2 : 65536;
    size_t most = max_bytes < SIZE_MAX - 2 ? max_bytes + 2 : SIZE_MAX;
    for (;;) {
        if (b.cap - b.len < 2) {
            size_t cap = !b.cap ? first : b.cap < most / 2 ? 2 * b.cap : most;
            char *p = fst_realloc(b.data, b.len, cap);
            if (!p) {
                fst_buf_release(&b);
                return fst_fail_memory(err, cap);
            }
            b.data = p;
            b.cap = cap;
        }
        ssize_t r = read_some(fd, b.data + b.len, b.cap - b.len - 1);
        if (r < 0) {
            fst_status s = fst_fail_errno(err, "%s", path);
            fst_buf_release(&b);
            return s;
        }
        if (r == 0)
            break;
        b.len += (size_t)r;
        if (b.len > max_bytes) {
            fst_buf_release(&b);
            return fst_fail(err, FST_E_LIMIT, "%s: more than %zu bytes", path, max_bytes);
        }
    }
    b.data[b.len] = 0;
    *out = b;
    return FST_OK;
}

/* A pipe that nobody writes to would be waited for without end. A shell's <(command) has its writer from the start. */
static fst_status await_writer(int fd, const char *path, fst_error *err)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    int n;
    do
        n = poll(&p, 1, PIPE_WAIT_MS);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return fst_fail_errno(err, "%s", path);
    return n ? FST_OK : fst_fail(err, FST_E_IO, "%s: is a pipe that nobody writes to; a file is needed", path);
}

fst_status fst_file_open(int *fd, const char *path, fst_error *err)
{
    struct stat st;
    int f = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (f < 0)
        return fst_fail_errno(err, "%s", path);
    int flags = fcntl(f, F_GETFL);
    fst_status s =
        flags < 0 || fcntl(f, F_SETFL, flags & ~O_NONBLOCK) || fstat(f, &st) ? fst_fail_errno(err, "%s", path) : FST_OK;
    if (!s && S_ISDIR(st.st_mode))
        s = fst_fail(err, FST_E_IO, "%s: is a folder, a file is needed", path);
    else if (!s && S_ISFIFO(st.st_mode))
        s = await_writer(f, path, err);
    if (s)
        close(f);
    else
        *fd = f;
    return s;
}

fst_status fst_file_read(const char *path, size_t max_bytes, fst_buf *out, fst_error *err)
{
    int fd = -1;
    fst_status s = fst_file_open(&fd, path, err);
    if (s)
        return s;
    s = read_fd(fd, path, max_bytes, out, err);
    close(fd);
    return s;
}

static fst_status make_folder(const char *path, fst_error *err)
{
    struct stat st;
    if (!mkdir(path, 0777))
        return fst_sync_folder_of(path, err);
    if (errno != EEXIST)
        return fst_fail_errno(err, "cannot make folder %s", path);
    if (stat(path, &st))
        return fst_fail_errno(err, "cannot make folder %s: its name is taken by a broken link", path);
    if (!S_ISDIR(st.st_mode))
        return fst_fail(err, FST_E_IO, "cannot make folder %s: there is a file of this name", path);
    return FST_OK;
}

fst_status fst_make_folders(const char *path, fst_error *err)
{
    char *copy = fst_strdup(path);
    if (!copy)
        return fst_fail_memory(err, strlen(path));
    fst_status s = FST_OK;
    for (char *p = copy + 1; !s; p++) {
        if (*p != '/' && *p)
            continue;
        char c = *p;
        *p = 0;
        s = make_folder(copy, err);
        *p = c;
        if (!c)
            break;
    }
    fst_free(copy);
    return s;
}

bool fst_file_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

char *fst_path_join(const char *a, const char *b)
{
    if (b[0] == '/' || !a[0])
        return fst_strdup(b);
    size_t na = strlen(a), nb = strlen(b);
    char *p = fst_alloc(na + nb + 2);
    if (!p)
        return NULL;
    memcpy(p, a, na);
    if (a[na - 1] != '/')
        p[na++] = '/';
    memcpy(p + na, b, nb + 1);
    return p;
}

fst_status fst_file_lock(int *fd, const char *path, fst_error *err)
{
    int f = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
    struct stat is;
    if (f < 0 && errno == ELOOP)
        return fst_fail(err, FST_E_IO, "%s: is a symbolic link, which is not followed: remove it", path);
    if (f >= 0 && (fstat(f, &is) || !S_ISREG(is.st_mode))) {
        close(f);
        return fst_fail(err, FST_E_IO, "%s: is no file, so it cannot be locked: remove it", path);
    }
    if (f < 0)
        return fst_fail_errno(err, "cannot open lock %s", path);
    if (flock(f, LOCK_EX | LOCK_NB)) {
        fst_status s =
            errno == EWOULDBLOCK
                ? fst_fail(err, FST_E_IO, "%s: another process is working here; wait for it or stop it", path)
                : fst_fail_errno(err, "cannot lock %s", path);
        close(f);
        return s;
    }
    *fd = f;
    return FST_OK;
}

void fst_file_unlock(int fd)
{
    if (fd >= 0)
        close(fd);
}

/* Files that are whole or absent, folders, locks. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fedstill/base.h"

#define TEMPORARY ".tmp."

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
    if (S_ISDIR(st.st_mode))
        return fst_fail(err, FST_E_IO, "%s: is a folder, a file is needed", path);
    if (S_ISREG(st.st_mode) && (uint64_t)st.st_size > max_bytes)
        return fst_fail(err, FST_E_LIMIT, "%s: %lld bytes, at most %zu are read", path, (long long)st.st_size,
                        max_bytes);
    size_t chunk = S_ISREG(st.st_mode) && st.st_size > 0 ? (size_t)st.st_size + 1 : 65536;
    for (;;) {
        if (b.cap - b.len < chunk + 1) {
            size_t cap = b.len + chunk + 1;
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
        chunk = 65536;
    }
    b.data[b.len] = 0;
    *out = b;
    return FST_OK;
}

fst_status fst_file_read(const char *path, size_t max_bytes, fst_buf *out, fst_error *err)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return fst_fail_errno(err, "%s", path);
    fst_status s = read_fd(fd, path, max_bytes, out, err);
    close(fd);
    return s;
}

fst_status fst_atomic_open(fst_atomic_file *f, const char *path, fst_error *err)
{
    fst_atomic_file a = {.fd = -1};
    fst_buf name = {0};
    struct stat there;
    /* The rename would put a file in the place of a device such as /dev/null. */
    if (!stat(path, &there) && !S_ISREG(there.st_mode) && !S_ISDIR(there.st_mode))
        return fst_fail(err, FST_E_IO, "cannot write %s: it is a device or a pipe, and only files are replaced", path);
    fst_status s = fst_buf_printf(&name, err, "%s" TEMPORARY "%ld", path, (long)getpid());
    if (s)
        return s;
    a.temporary = name.data;
    a.path = fst_strdup(path);
    if (!a.path) {
        fst_buf_release(&name);
        return fst_fail_memory(err, strlen(path));
    }
    a.fd = open(a.temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (a.fd < 0) {
        s = fst_fail_errno(err, "cannot write %s", path);
        fst_free(a.path);
        fst_free(a.temporary);
        return s;
    }
    a.open = true;
    *f = a;
    return FST_OK;
}

fst_status fst_atomic_write(fst_atomic_file *f, const void *data, size_t len, fst_error *err)
{
    const char *p = data;
    while (len) {
        ssize_t w = write(f->fd, p, len);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return fst_fail_errno(err, "cannot write %s", f->path);
        p += w;
        len -= (size_t)w;
    }
    return FST_OK;
}

static void sync_folder_of(const char *path)
{
    char *copy = fst_strdup(path);
    if (!copy)
        return;
    char *slash = strrchr(copy, '/');
    const char *folder = ".";
    if (slash == copy)
        folder = "/";
    else if (slash) {
        *slash = 0;
        folder = copy;
    }
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!fsync(fd); /* some file systems cannot sync a folder; the rename stands all the same */
        close(fd);
    }
    fst_free(copy);
}

static void atomic_forget(fst_atomic_file *f)
{
    fst_free(f->path);
    fst_free(f->temporary);
    *f = (fst_atomic_file){0};
}

fst_status fst_atomic_commit(fst_atomic_file *f, fst_error *err)
{
    fst_status s = FST_OK;
    if (fsync(f->fd))
        s = fst_fail_errno(err, "cannot write %s", f->path);
    if (close(f->fd) && !s)
        s = fst_fail_errno(err, "cannot write %s", f->path);
    f->fd = -1;
    if (!s && rename(f->temporary, f->path))
        s = fst_fail_errno(err, "cannot write %s", f->path);
    if (s)
        unlink(f->temporary);
    else
        sync_folder_of(f->path);
    atomic_forget(f);
    return s;
}

void fst_atomic_abort(fst_atomic_file *f)
{
    if (!f || !f->open)
        return;
    if (f->fd >= 0)
        close(f->fd);
    unlink(f->temporary);
    atomic_forget(f);
}

fst_status fst_file_write(const char *path, const void *data, size_t len, fst_error *err)
{
    fst_atomic_file f = {0};
    fst_status s = fst_atomic_open(&f, path, err);
    if (!s)
        s = fst_atomic_write(&f, data, len, err);
    if (!s)
        return fst_atomic_commit(&f, err);
    fst_atomic_abort(&f);
    return s;
}

/* NAME.tmp.PID, as fst_atomic_open makes them, of another process. */
static bool is_left_over(const char *name)
{
    char own[32];
    const char *at = NULL;
    for (const char *p = strstr(name, TEMPORARY); p; p = strstr(p + 1, TEMPORARY))
        at = p;
    if (!at || at == name)
        return false;
    at += strlen(TEMPORARY);
    snprintf(own, sizeof own, "%ld", (long)getpid());
    return *at && at[strspn(at, "0123456789")] == 0 && strcmp(at, own) != 0;
}

void fst_atomic_sweep(const char *folder)
{
    DIR *d = opendir(folder);
    if (!d)
        return;
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        if (is_left_over(e->d_name))
            (void)!unlinkat(dirfd(d), e->d_name, 0); /* a folder of that name is refused */
    closedir(d);
}

static fst_status make_folder(const char *path, fst_error *err)
{
    struct stat st;
    if (!mkdir(path, 0777)) {
        sync_folder_of(path);
        return FST_OK;
    }
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
    int f = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (f < 0)
        return fst_fail_errno(err, "cannot open lock %s", path);
    if (flock(f, LOCK_EX | LOCK_NB)) {
        fst_status s = errno == EWOULDBLOCK
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

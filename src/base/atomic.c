/*
 * Files that appear whole or not at all. The bytes go into a temporary file beside the target, which is synced and then
 * renamed over the target; at last the folder is synced, so that the new name survives a power cut.
 *
 * Temporary files are called ".NAME.tmp.fedstill-RANDOM". Nobody can guess the 64 random bits, and the file is created
 * with O_EXCL and O_NOFOLLOW, so that neither another writer of the same target nor a planted link gets into the way.
 * Their writer holds a lock on them (flock) as long as it lives. What has such a name and is not locked was left behind
 * by a process that was killed: every new write removes it from its folder. Nothing else is ever removed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "fedstill/base.h"

#define MARK ".tmp.fedstill-"
enum {
    RANDOM_DIGITS = 16,
    MAX_STEM = 100, /* of the target's name in a temporary's */
    MAX_TRIES = 100,
    MAX_LINKS = 40, /* as the kernel's own limit */
    MAX_OPEN = 64   /* temporary files that fst_atomic_discard_all knows of */
};

/* ---- names ---------------------------------------------------------------------------------- */

/* The folder of a path, "." and "/" included; new memory. */
static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *copy = fst_strdup(slash ? path : ".");
    if (copy && slash)
        copy[slash == path ? 1 : slash - path] = 0;
    return copy;
}

fst_status fst_temporary_name(char **out, const char *path, fst_error *err)
{
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    uint64_t random = 0;
    fst_buf b = {0};
    ssize_t got;
    do
        got = getrandom(&random, sizeof random, 0);
    while (got < 0 && errno == EINTR);
    if (got != (ssize_t)sizeof random)
        return fst_fail_errno(err, "cannot write %s: no random number for the name of a temporary file", path);
    fst_status s = fst_buf_printf(&b, err, "%.*s.%.*s" MARK "%0*llx", (int)(name - path), path, MAX_STEM, name,
                                  RANDOM_DIGITS, (unsigned long long)random);
    if (!s)
        *out = b.data;
    return s;
}

bool fst_is_temporary_name(const char *name)
{
    const char *at = *name == '.' ? strstr(name + 1, MARK) : NULL;
    for (const char *next = at; next; next = strstr(next + 1, MARK))
        at = next;
    return at && strspn(at + strlen(MARK), "0123456789abcdef") == RANDOM_DIGITS && !at[strlen(MARK) + RANDOM_DIGITS];
}

/* /dev/stdout leads to a link there; what such a link names is an open file, which a rename cannot replace. */
static bool on_procfs(const char *folder)
{
    struct statfs fs;
    return !statfs(folder, &fs) && fs.f_type == PROC_SUPER_MAGIC;
}

/* Replaces *path by where the link there points to. */
static fst_status follow(char **path, const char *given, fst_error *err)
{
    char target[PATH_MAX];
    ssize_t n = readlink(*path, target, sizeof target - 1);
    if (n < 0)
        return fst_fail_errno(err, "cannot write %s", given);
    target[n] = 0;
    char *folder = folder_of(*path);
    if (!folder)
        return fst_fail_memory(err, strlen(*path));
    if (on_procfs(folder)) {
        fst_free(folder);
        return fst_fail(err, FST_E_IO,
                        "cannot write %s: it stands for a file that is open already; give the name of a file", given);
    }
    char *next = fst_path_join(folder, target);
    fst_free(folder);
    if (!next)
        return fst_fail_memory(err, strlen(*path) + (size_t)n);
    fst_free(*path);
    *path = next;
    return FST_OK;
}

/* Where a path leads through symbolic links: a link stays a link, and the file that it points to is replaced. Only
 * files can be: a rename would put one in the place of a device such as /dev/null. */
static fst_status resolve(char **out, mode_t *mode, const char *path, fst_error *err)
{
    struct stat st;
    fst_status s = FST_OK;
    char *at = fst_strdup(path);
    if (!at)
        return fst_fail_memory(err, strlen(path));
    for (int links = 0; !s; links++) {
        if (lstat(at, &st)) /* what else is wrong with the path, opening the file tells */
            break;
        if (S_ISLNK(st.st_mode)) {
            s = links < MAX_LINKS ? follow(&at, path, err)
                                  : fst_fail(err, FST_E_IO, "cannot write %s: symbolic links in a circle", path);
        } else if (S_ISREG(st.st_mode)) {
            *mode = st.st_mode & 0777;
            break;
        } else if (S_ISDIR(st.st_mode)) {
            s = fst_fail(err, FST_E_IO, "cannot write %s: it is a folder, and a file is wanted", path);
        } else {
            s = fst_fail(err, FST_E_IO, "cannot write %s: it is a device or a pipe, and only files are replaced", path);
        }
    }
    if (s)
        fst_free(at);
    else
        *out = at;
    return s;
}

/* ---- folders ---------------------------------------------------------------------------------- */

/* Without fst_alloc: it comes after the rename, when all has been done that could fail for want of memory. */
fst_status fst_sync_folder_of(const char *path, fst_error *err)
{
    char folder[PATH_MAX];
    const char *slash = strrchr(path, '/');
    int n =
        snprintf(folder, sizeof folder, "%.*s", slash ? (int)(slash - path) + (slash == path) : 1, slash ? path : ".");
    fst_status s = FST_OK;
    if (n < 0 || (size_t)n >= sizeof folder)
        return fst_fail(err, FST_E_IO, "%s: the name is too long", path);
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno != EACCES) /* a folder may be writable and not readable; then nothing can be done */
        s = fst_fail_errno(err, "%s may not survive a power cut: folder %s", path, folder);
    /* EINVAL and its like: this file system syncs no folders */
    else if (fd >= 0 && fsync(fd) && errno != EINVAL && errno != ENOTSUP && errno != EROFS)
        s = fst_fail_errno(err, "%s may not survive a power cut: folder %s", path, folder);
    if (fd >= 0)
        close(fd);
    return s;
}

/* ---- what killed processes left --------------------------------------------------------------- */

/* Removes a temporary file whose writer is gone: nobody holds its lock. */
static void remove_orphan(int folder, const char *name)
{
    struct stat st;
    int fd = openat(folder, name, O_RDWR | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0)
        return;
    if (!fstat(fd, &st) && S_ISREG(st.st_mode) && st.st_uid == geteuid() && !flock(fd, LOCK_EX | LOCK_NB))
        (void)!unlinkat(folder, name, 0);
    close(fd);
}

void fst_atomic_sweep(const char *folder)
{
    DIR *d = opendir(folder);
    if (!d)
        return;
    for (struct dirent *e = readdir(d); e; e = readdir(d))
        if (fst_is_temporary_name(e->d_name))
            remove_orphan(dirfd(d), e->d_name);
    closedir(d);
}

/* Names of the temporary files that this process has open, for a process that is told to end at once. */
static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static const char *open_names[MAX_OPEN];

static void remember(const char *name)
{
    pthread_mutex_lock(&open_lock);
    for (int i = 0; i < MAX_OPEN; i++)
        if (!open_names[i]) {
            open_names[i] = name;
            break;
        }
    pthread_mutex_unlock(&open_lock);
}

static void no_longer_open(const char *name)
{
    pthread_mutex_lock(&open_lock);
    for (int i = 0; i < MAX_OPEN; i++)
        if (open_names[i] == name)
            open_names[i] = NULL;
    pthread_mutex_unlock(&open_lock);
}

void fst_atomic_discard_all(void)
{
    pthread_mutex_lock(&open_lock); /* never given back: nothing is opened or renamed any more */
    for (int i = 0; i < MAX_OPEN; i++)
        if (open_names[i])
            unlink(open_names[i]);
}

/* ---- writing ------------------------------------------------------------------------------------ */

/* Locked, and still there: a sweep of another process may have come between the two. */
static bool own(int fd)
{
    struct stat st;
    if (flock(fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK)
        return false; /* other errors: no locks on this file system, and so no sweeps */
    return !fstat(fd, &st) && st.st_nlink > 0;
}

static fst_status open_temporary(fst_atomic_file *a, const char *given, mode_t mode, fst_error *err)
{
    for (int i = 0; i < MAX_TRIES; i++) {
        fst_status s = fst_temporary_name(&a->temporary, a->path, err);
        if (s)
            return s;
        a->fd = open(a->temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, mode);
        if (a->fd < 0 && errno != EEXIST)
            return fst_fail_errno(err, "cannot write %s", given);
        if (a->fd >= 0 && own(a->fd))
            return FST_OK;
        if (a->fd >= 0)
            close(a->fd);
        a->fd = -1;
        fst_free(a->temporary);
        a->temporary = NULL;
    }
    return fst_fail(err, FST_E_IO, "cannot write %s: no name for a temporary file is free", given);
}

/* forced: the permissions from the first moment on, 0 for those of every new file or of the one that is replaced. */
static fst_status open_as(fst_atomic_file *f, const char *path, mode_t forced, fst_error *err)
{
    fst_atomic_file a = {.fd = -1};
    mode_t mode = 0;
    fst_status s = resolve(&a.path, &mode, path, err);
    if (s)
        return s;
    char *folder = folder_of(a.path);
    if (folder)
        fst_atomic_sweep(folder);
    s = folder ? open_temporary(&a, path, forced ? forced : 0644, err) : fst_fail_memory(err, strlen(path));
    fst_free(folder);
    if (s) {
        fst_free(a.path);
        fst_free(a.temporary);
        return s;
    }
    if (mode && !forced) /* who may read the file stays as it was; that this cannot be set is no reason not to write */
        (void)!fchmod(a.fd, mode);
    remember(a.temporary);
    a.open = true;
    *f = a;
    return FST_OK;
}

fst_status fst_atomic_open(fst_atomic_file *f, const char *path, fst_error *err)
{
    return open_as(f, path, 0, err);
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

static void atomic_forget(fst_atomic_file *f)
{
    no_longer_open(f->temporary);
    fst_free(f->path);
    fst_free(f->temporary);
    *f = (fst_atomic_file){0};
}

fst_status fst_atomic_commit(fst_atomic_file *f, fst_error *err)
{
    fst_status s = FST_OK;
    if (fsync(f->fd))
        s = fst_fail_errno(err, "cannot write %s", f->path);
    /* Renamed before it is closed, because closing gives the lock back. */
    if (!s && rename(f->temporary, f->path))
        s = fst_fail_errno(err, "cannot write %s", f->path);
    if (s)
        unlink(f->temporary);
    if (close(f->fd) && !s)
        s = fst_fail_errno(err, "cannot write %s", f->path);
    f->fd = -1;
    if (!s)
        s = fst_sync_folder_of(f->path, err);
    atomic_forget(f);
    return s;
}

void fst_atomic_abort(fst_atomic_file *f)
{
    if (!f || !f->open)
        return;
    unlink(f->temporary);
    if (f->fd >= 0)
        close(f->fd);
    atomic_forget(f);
}

static fst_status write_as(const char *path, mode_t forced, const void *data, size_t len, fst_error *err)
{
    fst_atomic_file f = {0};
    fst_status s = open_as(&f, path, forced, err);
    if (!s)
        s = fst_atomic_write(&f, data, len, err);
    if (!s)
        return fst_atomic_commit(&f, err);
    fst_atomic_abort(&f);
    return s;
}

fst_status fst_file_write(const char *path, const void *data, size_t len, fst_error *err)
{
    return write_as(path, 0, data, len, err);
}

fst_status fst_file_write_private(const char *path, const void *data, size_t len, fst_error *err)
{
    return write_as(path, 0600, data, len, err);
}

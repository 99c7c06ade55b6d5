/*
 * LD_PRELOAD: counts the file operations below one folder, and makes the n-th of them go wrong, or sends the process a
 * signal once it has written some text there.
 *
 *   FAULT_PREFIX  the folder; its absolute path
 *   FAULT_MODE    fail: the n-th operation returns an error
 *                 stuck: that one and all after it
 *                 short: the n-th write takes half of its bytes
 *                 kill: SIGKILL before the n-th operation
 *                 count: nothing goes wrong
 *                 term: SIGTERM, two milliseconds after the first write that has FAULT_TEXT in it
 *                 full: FAULT_WHILE is made before that write, and nothing can be written while it is there
 *                 deny: that write fails; die: SIGKILL instead of it; stop: SIGSTOP before it
 *   FAULT_N       which operation, from 1
 *   FAULT_ERRNO   the error (default ENOSPC)
 *   FAULT_LOG     a file that gets a line an operation, "N OPERATION PATH"
 *   FAULT_TEXT, FAULT_WHILE
 *
 * It sees opening for writing and reading, write, fsync, close, rename, unlink, mkdir, ftruncate and link. It knows
 * paths by the names that files were opened with.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { MAX_FD = 1024 };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *prefix, *mode, *text, *full_while;
static long wanted, seen;
static int error_number = ENOSPC, log_fd = -1;
static char *names[MAX_FD]; /* of descriptors that stand for files below the folder */

/* The next function of that name, as a pointer of its type; through memcpy, as ISO C has it. */
#define NEXT(name)                             \
    static __typeof__(&name) next;             \
    if (!next) {                               \
        void *found = dlsym(RTLD_NEXT, #name); \
        memcpy(&next, &found, sizeof next);    \
    }                                          \
    (void)0

static void __attribute__((constructor)) set_up(void)
{
    const char *n = getenv("FAULT_N"), *number = getenv("FAULT_ERRNO"), *path = getenv("FAULT_LOG");
    prefix = getenv("FAULT_PREFIX");
    mode = getenv("FAULT_MODE");
    text = getenv("FAULT_TEXT");
    full_while = getenv("FAULT_WHILE");
    wanted = n ? atol(n) : 0;
    if (number)
        error_number = atoi(number);
    if (path)
        log_fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
}

/* The absolute path, if it is below the folder, else "". */
static void below(const char *path, char out[2 * PATH_MAX])
{
    out[0] = 0;
    if (!prefix || !path)
        return;
    if (path[0] == '/')
        snprintf(out, 2 * PATH_MAX, "%s", path);
    else if (getcwd(out, PATH_MAX))
        snprintf(out + strlen(out), PATH_MAX, "/%s", path);
    if (strncmp(out, prefix, strlen(prefix)) != 0)
        out[0] = 0;
}

/* Counts one operation; true when it is to go wrong. Does not come back from a kill. */
static bool struck(const char *operation, const char *path)
{
    char line[2 * PATH_MAX + 64];
    pthread_mutex_lock(&lock);
    long n = ++seen;
    if (log_fd >= 0) {
        int len = snprintf(line, sizeof line, "%ld %s %s\n", n, operation, path);
        if (write(log_fd, line, (size_t)len) < 0)
            log_fd = -1;
    }
    pthread_mutex_unlock(&lock);
    if (!mode)
        return false;
    if (!strcmp(mode, "kill") && n == wanted) {
        kill(getpid(), SIGKILL);
        for (;;)
            pause();
    }
    return (!strcmp(mode, "fail") && n == wanted) || (!strcmp(mode, "stuck") && n >= wanted) ||
           (!strcmp(mode, "short") && n == wanted);
}

/* A disk without room: files can be made and removed, and nothing goes into them. */
static bool is_full(void)
{
    return full_while && mode && !strcmp(mode, "full") && !access(full_while, F_OK);
}

static void fill_up(void)
{
    int fd = full_while ? open(full_while, O_WRONLY | O_CREAT | O_CLOEXEC, 0644) : -1;
    if (fd >= 0)
        close(fd);
}

static const char *name_of(int fd)
{
    return fd >= 0 && fd < MAX_FD ? names[fd] : NULL;
}

static int opened(int fd, const char *path)
{
    if (fd >= 0 && fd < MAX_FD) {
        free(names[fd]);
        names[fd] = path[0] ? strdup(path) : NULL;
    }
    return fd;
}

#define OPEN(call, path)                                                                                        \
    char full[2 * PATH_MAX];                                                                                    \
    mode_t bits = 0;                                                                                            \
    if (flags & (O_CREAT | O_TMPFILE)) {                                                                        \
        va_list ap;                                                                                             \
        va_start(ap, flags);                                                                                    \
        bits = va_arg(ap, mode_t);                                                                              \
        va_end(ap);                                                                                             \
    }                                                                                                           \
    below(path, full);                                                                                          \
    if (full[0] && struck(flags & (O_WRONLY | O_RDWR) ? "open" : "read", full) && strcmp(mode, "short") != 0) { \
        errno = error_number;                                                                                   \
        return -1;                                                                                              \
    }                                                                                                           \
    return opened(call, full)

int open(const char *path, int flags, ...)
{
    NEXT(open);
    OPEN(next(path, flags, bits), path);
}

int open64(const char *path, int flags, ...)
{
    NEXT(open64);
    OPEN(next(path, flags, bits), path);
}

static void *terminate(void *unused)
{
    nanosleep(&(struct timespec){.tv_nsec = 2000000}, NULL);
    kill(getpid(), SIGTERM);
    return unused;
}

/* True once, for the first write that has the text in it. */
static bool has_text(const void *data, size_t len)
{
    pthread_mutex_lock(&lock);
    bool found = text && mode && memmem(data, len, text, strlen(text));
    if (found)
        text = NULL;
    pthread_mutex_unlock(&lock);
    return found;
}

/* Into what comes after the text, not into writing it. */
static void terminate_soon(void)
{
    pthread_t thread;
    if (!pthread_create(&thread, NULL, terminate, NULL))
        pthread_detach(thread);
}

ssize_t write(int fd, const void *data, size_t len)
{
    NEXT(write);
    const char *name = name_of(fd);
    bool found = name && has_text(data, len), denied = found && !strcmp(mode, "deny");
    if (found && !strcmp(mode, "term"))
        terminate_soon();
    if (found && !strcmp(mode, "die"))
        raise(SIGKILL);
    if (found && !strcmp(mode, "stop"))
        raise(SIGSTOP);
    if (found && !strcmp(mode, "full"))
        fill_up();
    if (name && is_full()) {
        errno = error_number;
        return -1;
    }
    if (!name || !(struck("write", name) || denied))
        return next(fd, data, len);
    if (!strcmp(mode, "short"))
        return next(fd, data, len > 1 ? len / 2 : len);
    if (len > 1 && next(fd, data, len / 2) < 0) /* a disk that fills up takes a part */
        return -1;
    errno = error_number;
    return -1;
}

static bool fails(const char *operation, const char *path)
{
    char full[2 * PATH_MAX];
    below(path, full);
    if (!full[0] || !struck(operation, full) || !strcmp(mode, "short"))
        return false;
    errno = error_number;
    return true;
}

int fsync(int fd)
{
    NEXT(fsync);
    return name_of(fd) && fails("fsync", name_of(fd)) ? -1 : next(fd);
}

int close(int fd)
{
    NEXT(close);
    bool bad = name_of(fd) && fails("close", name_of(fd));
    opened(fd, "");
    int r = next(fd); /* the descriptor is gone in any case, as Linux has it */
    if (bad)
        errno = error_number;
    return bad ? -1 : r;
}

int ftruncate(int fd, off_t size)
{
    NEXT(ftruncate);
    return name_of(fd) && fails("ftruncate", name_of(fd)) ? -1 : next(fd, size);
}

int posix_fallocate(int fd, off_t from, off_t len)
{
    NEXT(posix_fallocate);
    return name_of(fd) && is_full() ? error_number : next(fd, from, len);
}

int rename(const char *from, const char *to)
{
    NEXT(rename);
    return fails("rename", to) ? -1 : next(from, to);
}

int unlink(const char *path)
{
    NEXT(unlink);
    return fails("unlink", path) ? -1 : next(path);
}

int mkdir(const char *path, mode_t bits)
{
    NEXT(mkdir);
    return fails("mkdir", path) ? -1 : next(path, bits);
}

int link(const char *from, const char *to)
{
    NEXT(link);
    return fails("link", to) ? -1 : next(from, to);
}

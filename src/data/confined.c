/* A reader in a child process: confined.h. The pipe carries pieces, each behind a head of kind and size. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "confined.h"

enum { TICK_MS = 1000, PIPE_FD = 3, MOST_FDS = 65536 };

enum kind { PIECE = 1, DONE, FAILED }; /* FAILED: a struct failure */

struct head {
    uint32_t kind, bytes;
};

struct failure {
    uint32_t status;
    char message[sizeof(((fst_error *)0)->message)];
};

/* ---- the child ---------------------------------------------------------------------------------- */

/* Sanitizers keep for a while what was freed, and take memory of their own. */
#if defined __has_feature
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SLACK (256 << 20)
#endif
#elif defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
#define SLACK (256 << 20)
#endif
#ifndef SLACK
#define SLACK 0
#endif

/* The numbers of /proc/self/statm, in pages; 0 where it is not there. */
enum { ALL_PAGES, DATA_PAGES = 5, PAGE_COUNTS = 7 };
static void count_pages(uint64_t pages[PAGE_COUNTS])
{
    char text[256];
    int fd = open("/proc/self/statm", O_RDONLY | O_CLOEXEC), k = 0;
    ssize_t n = fd < 0 ? 0 : read(fd, text, sizeof text);
    if (fd >= 0)
        close(fd);
    memset(pages, 0, PAGE_COUNTS * sizeof *pages);
    for (ssize_t i = 0; i < n && k < PAGE_COUNTS; i++)
        if (text[i] >= '0' && text[i] <= '9')
            pages[k] = pages[k] * 10 + (uint64_t)(text[i] - '0');
        else
            k++;
}

/* Sets the limit that counts, never above the one that stands. */
static void limit(int what, uint64_t most)
{
    struct rlimit r;
    if (getrlimit(what, &r))
        return;
    r.rlim_cur = most < r.rlim_max ? (rlim_t)most : r.rlim_max;
    (void)setrlimit(what, &r);
}

/* From now on it has so much processor time. */
static void wind_clock(int seconds)
{
    struct rusage u;
    if (!getrusage(RUSAGE_SELF, &u))
        limit(RLIMIT_CPU, (uint64_t)(u.ru_utime.tv_sec + u.ru_stime.tv_sec + seconds) + 1);
}

/* The signals of the user and of a terminal are the parent's, whose end is the child's; it may wish to end in order. */
static void take_no_signals(void)
{
    sigset_t most;
    for (int i = 1; i < NSIG; i++)
        (void)signal(i, SIG_DFL);
    sigfillset(&most);
    sigdelset(&most, SIGXCPU);
    sigprocmask(SIG_SETMASK, &most, NULL);
}

static void close_all_but_pipe(fst__confined *c)
{
    if (dup2(c->fd, PIPE_FD) != PIPE_FD)
        _exit(1);
    c->fd = PIPE_FD;
    if (syscall(SYS_close_range, PIPE_FD + 1, ~0U, 0)) /* Linux before 5.9 */
        for (int i = PIPE_FD + 1; i < MOST_FDS; i++)
            close(i);
    int null = open("/dev/null", O_RDWR);
    for (int i = 0; i < PIPE_FD; i++)
        if (null < 0)
            close(i);
        else
            dup2(null, i);
    if (null > PIPE_FD)
        close(null);
}

/* Address space, and of it what is written to: a sanitizer reserves its space ahead, and fills it. */
static void limit_memory(size_t more)
{
    uint64_t pages[PAGE_COUNTS], page = (uint64_t)sysconf(_SC_PAGESIZE);
    count_pages(pages);
    if (pages[ALL_PAGES])
        limit(RLIMIT_AS, pages[ALL_PAGES] * page + more + SLACK);
    if (pages[DATA_PAGES])
        limit(RLIMIT_DATA, pages[DATA_PAGES] * page + more + SLACK);
}

static void confine(fst__confined *c)
{
    fst_log_set(NULL, NULL);
    take_no_signals();
    prctl(PR_SET_DUMPABLE, 0); /* also where cores go to a program */
    limit(RLIMIT_CORE, 0);
    limit(RLIMIT_FSIZE, 0);
    limit_memory(c->spec->memory);
    close_all_but_pipe(c);
    wind_clock(c->spec->busy_seconds);
}

static bool write_all(int fd, const void *data, size_t n)
{
    const char *p = data;
    while (n) {
        ssize_t w = write(fd, p, n);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0)
            return false;
        p += w;
        n -= (size_t)w;
    }
    return true;
}

fst_status fst__confined_send(fst__confined *c, const void *data, size_t n, fst_error *err)
{
    const char *p = data;
    while (n) {
        struct head h = {PIECE, n < 1U << 30 ? (uint32_t)n : 1U << 30};
        if (!write_all(c->fd, &h, sizeof h) || !write_all(c->fd, p, h.bytes))
            return fst_fail_errno(err, "%s", c->spec->path);
        p += h.bytes;
        n -= h.bytes;
    }
    wind_clock(c->spec->busy_seconds);
    return FST_OK;
}

static _Noreturn void be_child(fst__confined *c, pid_t parent, fst__confined_fn fn, void *ctx)
{
    fst_error e = {0};
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    confine(c);
    fst_status s = fn(ctx, c, &e);
    struct failure f = {.status = s};
    struct head h = {s ? FAILED : DONE, s ? sizeof f : 0};
    memcpy(f.message, e.message, sizeof f.message);
    _exit(!write_all(c->fd, &h, sizeof h) ||
          !write_all(c->fd, &f, h.bytes)); /* nothing of the parent's runs or is written */
}

/* ---- the parent --------------------------------------------------------------------------------- */

fst_status fst__confined_start(fst__confined *c, const fst__confined_spec *spec, fst__confined_fn fn, void *ctx,
                               fst_error *err)
{
    sigset_t all, before;
    int ends[2];
    pid_t parent = getpid();
    *c = (fst__confined){.spec = spec, .fd = -1, .status = -1};
    if (pipe2(ends, O_CLOEXEC))
        return fst_fail_errno(err, "%s: no pipe to the process that would read it", spec->path);
    sigfillset(&all); /* the parent's handlers do not run in the child */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t pid = fork();
    if (pid == 0) {
        c->fd = ends[1];
        be_child(c, parent, fn, ctx);
    }
    int why = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    close(ends[1]);
    if (pid > 0) {
        c->pid = pid;
        c->fd = ends[0];
        return FST_OK;
    }
    close(ends[0]);
    errno = why;
    return fst_fail_errno(err, "%s: no process could be started to read it", spec->path);
}

/* Was the child waited for, now or before? */
static bool is_gone(fst__confined *c, int flags)
{
    pid_t got;
    if (!c->pid)
        return true;
    do
        got = waitpid(c->pid, &c->status, flags);
    while (got < 0 && errno == EINTR);
    if (got == 0)
        return false;
    if (got < 0) /* who ignores SIGCHLD, or waits for every child, has it */
        c->status = -1;
    c->pid = 0;
    return true;
}

/* A child that has died already keeps its reason. */
static void end_child(fst__confined *c)
{
    if (!is_gone(c, WNOHANG)) {
        kill(c->pid, SIGKILL);
        is_gone(c, 0);
    }
}

static fst_status died(fst__confined *c, fst_error *err)
{
    const fst__confined_spec *p = c->spec;
    end_child(c);
    int signal = c->status >= 0 && WIFSIGNALED(c->status) ? WTERMSIG(c->status) : 0;
    if (signal == SIGXCPU)
        return fst_fail(err, FST_E_LIMIT, "%s: %s works on a part of it for more than %d seconds; the file is damaged",
                        p->path, p->library, p->busy_seconds);
    if (signal == SIGKILL)
        return fst_fail(err, FST_E_IO, "%s: %s was killed while reading it, as the system does when memory is short",
                        p->path, p->library);
    if (signal)
        return fst_fail(err, FST_E_FORMAT, "%s: %s died of signal %d while reading it; the file is damaged", p->path,
                        p->library, signal);
    return fst_fail(err, FST_E_FORMAT, "%s: %s ended while reading it; the file is damaged", p->path, p->library);
}

/* Waits until something can be read, or the pipe's other end is closed. The clock is counted in ticks: whoever is
 * stopped along with the child loses none of its time. */
static fst_status wait_for_bytes(fst__confined *c, fst_error *err)
{
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    for (int silent = 0; silent < c->spec->silent_seconds;) {
        bool gone = is_gone(c, WNOHANG); /* before the look at the pipe, which may have its last words */
        int n = poll(&p, 1, gone ? 0 : TICK_MS);
        if (n > 0)
            return FST_OK;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return fst_fail_errno(err, "%s: the pipe of the process that reads it", c->spec->path);
        if (n == 0 && gone) /* another process has a copy of the pipe's other end */
            return died(c, err);
        silent += n == 0;
    }
    return fst_fail(err, FST_E_LIMIT, "%s: %s gives no sign for %d seconds", c->spec->path, c->spec->library,
                    c->spec->silent_seconds);
}

static fst_status read_all(fst__confined *c, void *out, size_t n, fst_error *err)
{
    char *p = out;
    while (n) {
        fst_status s = wait_for_bytes(c, err);
        if (s)
            return s;
        ssize_t r = read(c->fd, p, n);
        if (r < 0 && errno != EINTR)
            return fst_fail_errno(err, "%s: the pipe of the process that reads it", c->spec->path);
        if (r == 0)
            return died(c, err);
        p += r > 0 ? r : 0;
        n -= r > 0 ? (size_t)r : 0;
    }
    return FST_OK;
}

static fst_status nonsense(const fst__confined *c, fst_error *err)
{
    return fst_fail(err, FST_E_FORMAT, "%s: %s went astray while reading it; the file is damaged", c->spec->path,
                    c->spec->library);
}

static fst_status take_failure(fst__confined *c, fst_error *err)
{
    struct failure f;
    fst_status s = read_all(c, &f, sizeof f, err);
    if (s)
        return s;
    f.message[sizeof f.message - 1] = 0;
    if (f.status == FST_OK || f.status >= FST_STATUSES)
        return nonsense(c, err);
    return fst_fail(err, (fst_status)f.status, "%s", f.message);
}

/* The next head: *kind is PIECE, whose bytes are then left, or DONE. */
static fst_status next_piece(fst__confined *c, enum kind *kind, fst_error *err)
{
    struct head h;
    fst_status s = read_all(c, &h, sizeof h, err);
    if (s)
        return s;
    if (h.kind == FAILED && h.bytes == sizeof(struct failure))
        return take_failure(c, err);
    if (!(h.kind == PIECE && h.bytes) && !(h.kind == DONE && !h.bytes))
        return nonsense(c, err);
    c->left = h.bytes;
    *kind = (enum kind)h.kind;
    return FST_OK;
}

fst_status fst__confined_take(fst__confined *c, void *out, size_t n, fst_error *err)
{
    char *p = out;
    fst_status s = FST_OK;
    while (!s && n) {
        enum kind kind = PIECE;
        if (!c->left)
            s = next_piece(c, &kind, err);
        if (!s && kind == DONE)
            s = nonsense(c, err);
        size_t k = c->left < n ? c->left : n;
        if (!s)
            s = read_all(c, p, k, err);
        if (!s) {
            p += k;
            n -= k;
            c->left -= k;
        }
    }
    return s;
}

fst_status fst__confined_finish(fst__confined *c, fst_error *err)
{
    enum kind kind = PIECE;
    fst_status s = c->left ? FST_OK : next_piece(c, &kind, err);
    return s ? s : kind == DONE ? FST_OK : nonsense(c, err);
}

void fst__confined_stop(fst__confined *c)
{
    end_child(c);
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

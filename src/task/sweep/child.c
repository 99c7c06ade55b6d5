/*
 * The process of a run: `fedstill run` with the run's settings, its own group, output in its log. It dies with the
 * sweep: the kernel kills it when the thread that started it ends.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sweep_private.h"

enum { MORE_WORDS = 32, LOG_TAIL = 4096 };

struct words {
    const char **word;
    size_t count;
    char until[FST__SWEEP_NAME + 32], threads[16];
};

static void add(struct words *w, const char *a, const char *b)
{
    w->word[w->count++] = a;
    if (b)
        w->word[w->count++] = b;
}

/* The words of the command; those that make no difference to the result only where `threads` is given. */
static fst_status command(const fst_sweep *s, const struct run *r, const char *stage, int64_t count, int threads,
                          struct words *w, fst_error *err)
{
    const fst_sweep_spec *p = s->spec;
    w->count = 0;
    w->word = fst_calloc(2 * r->nsets + MORE_WORDS, sizeof *w->word);
    if (!w->word)
        return fst_fail_memory(err, r->nsets * sizeof *w->word);
    add(w, "fedstill", "run");
    add(w, p->task, NULL);
    if (p->mode)
        add(w, "--mode", p->mode);
    if (p->backend)
        add(w, "--backend", p->backend);
    for (size_t i = 0; i < r->nsets; i++)
        add(w, "--set", r->sets[i]);
    add(w, "--output", r->folder);
    add(w, "--beside", s->runs_folder);
    if (p->no_reuse)
        add(w, "--no-reuse", NULL);
    if (threads) {
        snprintf(w->threads, sizeof w->threads, "%d", threads);
        add(w, "--threads", w->threads);
        add(w, "--workers", w->threads);
    }
    if (stage && count)
        snprintf(w->until, sizeof w->until, "%s=%lld", stage, (long long)count);
    if (stage)
        add(w, "--until", count ? w->until : stage);
    return FST_OK;
}

static fst_status add_quoted(const char *word, fst_buf *out, fst_error *err)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-+=./:,@%";
    if (*word && strspn(word, plain) == strlen(word))
        return fst_buf_printf(out, err, "%s", word);
    fst_status st = fst_buf_append(out, "'", 1, err);
    for (; !st && *word; word++)
        st = *word == '\'' ? fst_buf_printf(out, err, "'\\''") : fst_buf_append(out, word, 1, err);
    return st ? st : fst_buf_append(out, "'", 1, err);
}

static fst_status as_text(const struct words *w, fst_buf *out, fst_error *err)
{
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < w->count; i++) {
        if (i)
            st = fst_buf_append(out, " ", 1, err);
        if (!st)
            st = add_quoted(w->word[i], out, err);
    }
    return st;
}

fst_status fst_sweep_command(const fst_sweep *s, size_t i, fst_buf *out, fst_error *err)
{
    struct words w;
    fst_status st = command(s, &s->run[i], NULL, 0, 0, &w, err);
    if (!st)
        st = as_text(&w, out, err);
    fst_free(w.word);
    return st;
}

/* What was started when, for who reads the log. */
static fst_status open_log(const struct run *r, const struct words *w, int *fd, fst_error *err)
{
    fst_buf line = {0};
    char when[32] = "";
    time_t now = time(NULL);
    struct tm tm;
    if (gmtime_r(&now, &tm))
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    *fd = open(r->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (*fd < 0)
        return fst_fail_errno(err, "%s", r->log);
    fst_status st = fst_buf_printf(&line, err, "# %s  ", when);
    if (!st)
        st = as_text(w, &line, err);
    if (!st)
        st = fst_buf_append(&line, "\n", 1, err);
    if (!st && write(*fd, line.data, line.len) != (ssize_t)line.len)
        st = fst_fail_errno(err, "%s", r->log);
    fst_buf_release(&line);
    if (st)
        close(*fd);
    return st;
}

/* In the child; only what is safe after a fork. */
static void become(const char *program, const char *const *word, int log, pid_t parent)
{
    sigset_t none;
    int null = open("/dev/null", O_RDONLY);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent || null < 0 || dup2(null, 0) < 0 || dup2(log, 1) < 0 || dup2(log, 2) < 0)
        _exit(126);
    setpgid(0, 0); /* a terminal's Ctrl-C is the sweep's, which passes it on once */
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(program, (char *const *)word);
    _exit(127);
}

/* What stands there now tells a record that this process will write from an older one. */
static void note_records(const fst_sweep *s, struct run *r)
{
    for (size_t k = 0; k < r->needs; k++) {
        struct stat is = {0};
        char *folder = fst_path_join(r->folder, s->item[r->need[k].item].stage),
             *path = folder ? fst_path_join(folder, "stage.json") : NULL;
        if (path && stat(path, &is))
            is = (struct stat){0};
        r->need[k].ino = is.st_ino;
        r->need[k].time = is.st_mtim;
        fst_free(folder);
        fst_free(path);
    }
}

fst_status fst__child_start(fst_sweep *s, size_t i, const char *stage, int64_t count, int threads, fst_error *err)
{
    struct run *r = &s->run[i];
    struct words w = {.word = NULL};
    int log = -1;
    pid_t parent = getpid();
    fst_status st = fst_make_folders(r->folder, err);
    if (!st)
        st = command(s, r, stage, count, threads, &w, err);
    if (!st)
        st = open_log(r, &w, &log, err);
    if (!st) {
        note_records(s, r);
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0)
            become(s->spec->program ? s->spec->program : "/proc/self/exe", w.word, log, parent);
        if (pid < 0)
            st = fst_fail_errno(err, "no process for %s", r->name);
        else
            r->pid = pid;
        close(log);
    }
    fst_free(w.word);
    return st;
}

bool fst__child_ended(struct run *r, int *status)
{
    pid_t got;
    do
        got = waitpid(r->pid, status, WNOHANG);
    while (got < 0 && errno == EINTR);
    if (got != r->pid && !(got < 0 && errno == ECHILD))
        return false;
    if (got < 0) /* somebody else waited for it */
        *status = 0x100;
    r->pid = 0;
    return true;
}

char *fst__child_said(const struct run *r)
{
    static const char *const mark = "fedstill run: ";
    char tail[LOG_TAIL + 1], *last = NULL;
    int fd = open(r->log, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t n = fd < 0 ? 0 : pread(fd, tail, LOG_TAIL, size > LOG_TAIL ? size - LOG_TAIL : 0);
    if (fd >= 0)
        close(fd);
    tail[n > 0 ? n : 0] = 0;
    for (char *line = strtok(tail, "\n"); line; line = strtok(NULL, "\n"))
        if (!strncmp(line, mark, strlen(mark)))
            last = line + strlen(mark);
        else if (!last && *line != '#')
            last = line;
    return fst_strdup(last ? last : "it said nothing");
}

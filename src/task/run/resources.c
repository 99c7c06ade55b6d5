/*
 * What a run uses while it goes: events "resources" with the process's CPU time and resident memory, written by a
 * thread of their own. It only reads clocks and /proc, so no result depends on it. A sample a second at first, then
 * ever fewer: the pause grows with the time passed, so that a run of days writes some thousand lines. Whoever reads
 * them takes differences: of CPU time over seconds.
 */
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "books.h"

struct fst__sampler {
    pthread_t thread;
    pthread_mutex_t lock; /* guards stop */
    pthread_cond_t wake;
    bool stop;
    struct books *books;
    double began;
};

static double cpu_seconds(void)
{
    struct timespec t;
    return clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t) ? NAN : (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double resident_bytes(void)
{
    unsigned long size, resident;
    FILE *f = fopen("/proc/self/statm", "re");
    bool ok = f && fscanf(f, "%lu %lu", &size, &resident) == 2;
    if (f)
        fclose(f);
    return ok ? (double)resident * (double)sysconf(_SC_PAGESIZE) : NAN;
}

static void write_sample(const struct fst__sampler *r)
{
    double resident = resident_bytes();
    fst_field f[] = {FST_DOUBLE("seconds", fst_clock_seconds() - r->began), FST_DOUBLE("cpu_seconds", cpu_seconds()),
                     FST_INT("rss_bytes", (int64_t)(isfinite(resident) ? resident : 0))};
    fst__emit(r->books, "resources", f, isfinite(resident) ? 3 : 2);
}

/* Waits until `seconds` have passed or somebody asks to stop. */
static bool wait_for(struct fst__sampler *r, double seconds)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += (time_t)seconds;
    until.tv_nsec += (long)(1e9 * (seconds - floor(seconds)));
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    pthread_mutex_lock(&r->lock);
    int why = 0;
    while (!r->stop && !why)
        why = pthread_cond_timedwait(&r->wake, &r->lock, &until);
    bool stop = r->stop;
    pthread_mutex_unlock(&r->lock);
    return !stop;
}

/* Ends early when events can no longer be written. */
static void *sample(void *arg)
{
    struct fst__sampler *r = arg;
    double pause = 1;
    while (!r->books->events_failed && wait_for(r, pause)) {
        write_sample(r);
        pause = fmax(1, (fst_clock_seconds() - r->began) / 200);
    }
    return NULL;
}

void fst__resources_begin(struct books *b)
{
    struct fst__sampler *r = b->events ? fst_calloc(1, sizeof *r) : NULL;
    pthread_condattr_t monotonic;
    sigset_t all, before;
    if (!r) /* a run without samples is as good */
        return;
    r->books = b;
    r->began = fst_clock_seconds();
    pthread_mutex_init(&r->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&r->wake, &monotonic);
    pthread_condattr_destroy(&monotonic);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* signals are the program's */
    bool runs = !pthread_create(&r->thread, NULL, sample, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (runs) {
        b->sampler = r;
        return;
    }
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    fst_free(r);
}

void fst__resources_sample(const struct books *b)
{
    if (b->sampler)
        write_sample(b->sampler);
}

void fst__resources_end(struct books *b)
{
    struct fst__sampler *r = b->sampler;
    if (!r)
        return;
    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_signal(&r->wake);
    pthread_mutex_unlock(&r->lock);
    pthread_join(r->thread, NULL);
    pthread_cond_destroy(&r->wake);
    pthread_mutex_destroy(&r->lock);
    fst_free(r);
    b->sampler = NULL;
}

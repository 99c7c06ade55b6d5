/* The thread pool and the clock. Jobs are claimed one by one; which worker runs which job is left open, so nothing may
 * depend on it. */
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <time.h>

#include "fedstill/base.h"

double fst_clock_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

int64_t fst_clock_unix_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int fst_thread_start(pthread_t *thread, void *(*fn)(void *), void *arg)
{
    sigset_t all, before;
    sigfillset(&all);
    int e = pthread_sigmask(SIG_SETMASK, &all, &before); /* the new thread inherits it */
    if (e)
        return e;
    e = pthread_create(thread, NULL, fn, arg);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return e;
}

struct worker {
    fst_pool *pool;
    pthread_t thread;
    int index;
};

/*
 * A run is over when its jobs are done, not when every worker has looked at it: on a busy machine a worker may
 * be woken long after the others have finished, and nobody waits for it. So that such a latecomer cannot take a job of
 * the next run by mistake, a ticket holds the run's number beside the number of jobs that nobody has taken yet, and is
 * taken by compare and exchange. Whoever has taken one keeps its run from ending, so that what it has to do may be read
 * without the lock: a worker that waits awake begins, works and ends without a call of the system.
 */
struct fst_pool {
    int threads, started;
    struct worker *workers;
    pthread_mutex_t lock;
    pthread_cond_t wake, done;
    _Atomic uint32_t generation; /* of the run; rises with every one */
    _Atomic uint64_t ticket;     /* generation << 32 | jobs to take */
    _Atomic size_t left;         /* jobs of this run that are not done */
    _Atomic bool stop;
    uint64_t slept; /* runs whose caller slept until the last jobs were done */
    bool spin;      /* there is a CPU for every thread, so that waiting a little awake harms nobody */
    /* of this run; read with a ticket of it in hand */
    fst_job_fn fn;
    void *ctx;
    size_t jobs;
};

/* The next job of this run; false when there is none, or another run has begun. */
static bool take_ticket(fst_pool *p, uint32_t generation, size_t *job)
{
    uint64_t t = atomic_load(&p->ticket);
    for (;;) {
        size_t untaken = (size_t)(t & UINT32_MAX);
        if (t >> 32 != generation || untaken == 0)
            return false;
        if (atomic_compare_exchange_weak(&p->ticket, &t, t - 1)) {
            *job = p->jobs - untaken;
            return true;
        }
    }
}

static void claim(fst_pool *p, uint32_t generation, int worker)
{
    size_t job;
    while (take_ticket(p, generation, &job)) {
        p->fn(p->ctx, worker, job);
        if (atomic_fetch_sub(&p->left, 1) == 1 && worker) { /* worker 0 is who waits */
            pthread_mutex_lock(&p->lock);                   /* and has looked at `left` under it */
            pthread_cond_signal(&p->done);
            pthread_mutex_unlock(&p->lock);
        }
    }
}

/* Runs follow each other within microseconds in a training step; sleeping and waking takes longer than that. */
enum { SPINS = 4000 };

static inline void breathe(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
}

static void await_run(const fst_pool *p, uint32_t seen)
{
    for (int i = 0; p->spin && i < SPINS && atomic_load(&p->generation) == seen && !atomic_load(&p->stop); i++)
        breathe();
}

static void await_end(const fst_pool *p)
{
    for (int i = 0; p->spin && i < SPINS && atomic_load(&p->left); i++)
        breathe();
}

static void *work(void *arg)
{
    struct worker *w = arg;
    fst_pool *p = w->pool;
    for (uint32_t seen = 0;;) {
        await_run(p, seen);
        if (atomic_load(&p->generation) == seen) {
            pthread_mutex_lock(&p->lock);
            while (!p->stop && p->generation == seen)
                pthread_cond_wait(&p->wake, &p->lock);
            pthread_mutex_unlock(&p->lock);
        }
        if (atomic_load(&p->stop))
            return NULL;
        seen = atomic_load(&p->generation);
        claim(p, seen, w->index);
    }
}

fst_status fst_pool_new(fst_pool **out, int threads, fst_error *err)
{
    if (threads < 1 || threads > 1024)
        return fst_fail(err, FST_E_ARGUMENT, "a pool has 1 to 1024 threads, not %d", threads);
    fst_pool *p = fst_calloc(1, sizeof *p);
    if (!p)
        return fst_fail_memory(err, sizeof *p);
    p->threads = threads;
    p->spin = threads <= fst_cpu_count();
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->wake, NULL);
    pthread_cond_init(&p->done, NULL);
    p->workers = fst_calloc((size_t)threads, sizeof *p->workers);
    if (!p->workers) {
        fst_pool_free(p);
        return fst_fail_memory(err, (size_t)threads * sizeof *p->workers);
    }
    for (int i = 1; i < threads; i++) {
        struct worker *w = &p->workers[p->started];
        *w = (struct worker){.pool = p, .index = i};
        int e = fst_thread_start(&w->thread, work, w);
        if (e) {
            fst_pool_free(p);
            return fst_fail(err, FST_E_MEMORY, "cannot start thread %d of %d: %s", i, threads, strerror(e));
        }
        p->started++;
    }
    *out = p;
    return FST_OK;
}

void fst_pool_run(fst_pool *p, fst_job_fn fn, void *ctx, size_t jobs)
{
    if (p->started == 0 || jobs <= 1) {
        for (size_t i = 0; i < jobs; i++)
            fn(ctx, 0, i);
        return;
    }
    pthread_mutex_lock(&p->lock);
    uint32_t generation = p->generation + 1;
    p->fn = fn;
    p->ctx = ctx;
    p->jobs = jobs;
    p->left = jobs;
    p->ticket = (uint64_t)generation << 32 | jobs;
    p->generation = generation;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    claim(p, generation, 0);
    await_end(p);
    if (!atomic_load(&p->left))
        return;
    pthread_mutex_lock(&p->lock);
    p->slept += p->left > 0;
    while (p->left)
        pthread_cond_wait(&p->done, &p->lock);
    pthread_mutex_unlock(&p->lock);
}

uint64_t fst_pool_slept(const fst_pool *p)
{
    return p->slept;
}

int fst_pool_threads(const fst_pool *p)
{
    return p->threads;
}

void fst_pool_free(fst_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->wake);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->started; i++)
        pthread_join(p->workers[i].thread, NULL);
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->wake);
    pthread_cond_destroy(&p->done);
    fst_free(p->workers);
    fst_free(p);
}

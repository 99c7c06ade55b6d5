/*
 * Inference over any number of rows, shard by shard, and the time of each kernel. Shards, plans and threads are a
 * trainer's; only its plans are of another kind. It changes no state.
 */
#include <stdlib.h>
#include <string.h>

#include "trainer.h"

/* ---- profile -------------------------------------------------------------------------------------- */

struct profile_job {
    fst_trainer *t;
    size_t kernel;
    int repeats;
};

static void profile_kernel(void *ctx, int worker, size_t job)
{
    struct profile_job *p = ctx;
    (void)worker;
    for (int i = 0; i < p->repeats; i++)
        p->t->status[job] = fst_plan_run_kernel(p->t->plans[job], p->kernel, &p->t->errors[job]);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double run_repeats(fst_trainer *t, size_t kernel, int repeats)
{
    struct profile_job p = {.t = t, .kernel = kernel, .repeats = repeats};
    double start = fst_clock_seconds();
    fst_pool_run(t->pool, profile_kernel, &p, (size_t)t->plans_count);
    return (fst_clock_seconds() - start) / repeats;
}

/* Seconds of one kernel for a whole step: all plans run it at the same time, shards / plans times. A
 * round lasts milliseconds, beside which the waking of the workers is nothing. */
static double kernel_seconds(fst_trainer *t, size_t kernel, double round_seconds)
{
    enum { ROUNDS = 5 };
    double seconds[ROUNDS], once = run_repeats(t, kernel, 3);
    int repeats = once * 10000 > round_seconds ? (int)(round_seconds / once) + 1 : 10000;
    for (int i = 0; i < ROUNDS; i++)
        seconds[i] = run_repeats(t, kernel, repeats);
    qsort(seconds, ROUNDS, sizeof *seconds, by_value);
    size_t turns = (t->shards + (size_t)t->plans_count - 1) / (size_t)t->plans_count;
    return seconds[ROUNDS / 2] * (double)turns;
}

/* Which plans a step used is a matter of timing, and its input may be gone: a pass on memory of the
 * trainer's own makes all plans ready. Where shards meet, each has its plan, which a full step has made ready. */
static fst_status rehearse(fst_trainer *t, bool backward, fst_error *err)
{
    const fst_draws draws = {0};
    const float *logits;
    fst_status s = t->state ? FST_OK : fst_fail(err, FST_E_ARGUMENT, "run a step before its kernels");
    for (int i = 0; !s && !t->meets && i < t->plans_count; i++) {
        s = fst_plan_forward(t->plans[i], t->state, t->rest[i], &draws, &logits, err);
        if (!s && backward)
            s = fst_plan_backward(t->plans[i], t->state, t->grads[i], err);
    }
    return s;
}

static fst_status profile(fst_trainer *t, double round_seconds, fst_kernel_visit visit, void *ctx, fst_error *err)
{
    size_t n = fst_plan_kernels(t->plans[0]);
    for (size_t i = 0; i < n; i++) {
        fst_kernel_info k = fst_plan_kernel(t->plans[0], i);
        if (k.prepare)
            continue;
        t->status[0] = FST_OK;
        double seconds = kernel_seconds(t, i, round_seconds);
        if (t->status[0]) {
            if (err)
                *err = t->errors[0];
            return t->status[0];
        }
        visit(ctx, &k, seconds);
    }
    return FST_OK;
}

fst_status fst_trainer_profile(fst_trainer *t, double round_seconds, fst_kernel_visit visit, void *ctx, fst_error *err)
{
    fst_status s = rehearse(t, true, err);
    return s ? s : profile(t, round_seconds, visit, ctx, err);
}

/* ---- runner ---------------------------------------------------------------------------------------- */

struct fst_runner {
    fst_trainer *t; /* shards, plans and pool are the same affair; only the plans differ */
    const float *x;
    const fst_state *state;
    float *logits;
    size_t rows;
    const fst_state *held; /* does not change: what plans made from it stays good */
};

fst_status fst_runner_new(fst_runner **out, const fst_graph *g, const fst_trainer_options *o, fst_error *err)
{
    fst_runner *r = fst_calloc(1, sizeof *r);
    if (!r)
        return fst_fail_memory(err, sizeof *r);
    fst_trainer_options own = *o;
    if (fst_graph_is_int8(g))
        own.precision = FST_PRECISION_F32;
    fst_status s = fst__trainer_new(&r->t, g, &own, false, err);
    if (s) {
        fst_free(r);
        return s;
    }
    *out = r;
    return FST_OK;
}

void fst_runner_free(fst_runner *r)
{
    if (!r)
        return;
    fst_trainer_free(r->t);
    fst_free(r);
}

const fst_graph *fst_runner_graph(const fst_runner *r)
{
    return r->t->graph;
}

void fst_runner_hold(fst_runner *r, const fst_state *state)
{
    r->held = state;
    r->state = NULL; /* the next call prepares anew */
}

fst_status fst_runner_profile(fst_runner *r, double round_seconds, fst_kernel_visit visit, void *ctx, fst_error *err)
{
    if (!r->state)
        return fst_fail(err, FST_E_ARGUMENT, "run a batch before its kernels");
    r->t->state = (fst_state *)r->state; /* inference plans read it only */
    fst_status s = rehearse(r->t, false, err);
    return s ? s : profile(r->t, round_seconds, visit, ctx, err);
}

static void infer_job(void *ctx, int worker, size_t job)
{
    fst_runner *r = ctx;
    fst_trainer *t = r->t;
    size_t first = job * t->shard, rows = r->rows - first, classes = t->width;
    const float *x = r->x + first * t->sample, *logits;
    if (rows > t->shard)
        rows = t->shard;
    if (rows < t->shard) {
        memcpy(t->rest[worker], x, rows * t->sample * sizeof(float));
        memset(t->rest[worker] + rows * t->sample, 0, (t->shard - rows) * t->sample * sizeof(float));
        x = t->rest[worker];
    }
    /* an inference plan reads the state only */
    size_t slot = job % t->shards;
    fst_status s = fst_plan_forward(t->plans[worker], (fst_state *)r->state, x, NULL, &logits, &t->errors[slot]);
    if (s)
        t->status[slot] = s;
    else
        memcpy(r->logits + first * classes, logits, rows * classes * sizeof *logits);
}

fst_status fst_runner_logits(fst_runner *r, const fst_state *state, const float *x, size_t rows, float *logits,
                             fst_error *err)
{
    fst_trainer *t = r->t;
    if (state != r->held || state != r->state) {
        r->state = NULL;
        fst_status s = fst__plan_prepare(t->plans[0], state, err);
        if (s)
            return s;
    }
    r->state = state;
    /* at most t->shards jobs at a time, so that each has a status of its own */
    for (size_t done = 0; done < rows; done += t->batch) {
        r->x = x + done * t->sample;
        r->logits = logits + done * t->width;
        r->rows = rows - done < t->batch ? rows - done : t->batch;
        size_t jobs = (r->rows + t->shard - 1) / t->shard;
        memset(t->status, 0, t->shards * sizeof *t->status);
        fst_pool_run(t->pool, infer_job, r, jobs);
        fst_status s = fst__trainer_failure(t, jobs, err);
        if (s)
            return s;
    }
    return FST_OK;
}

/*
 * Training steps and inference over shards. A shard is a slice of the batch with kernels, memory and
 * gradients of its own; a worker runs whole shards, so there is no barrier inside a step but the one before
 * the optimiser, and nothing depends on which worker ran which shard.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "backend.h"

enum { MIN_SHARD = 8, AUTO_SHARD = 32, MAX_SHARD_PARAMS = 8 << 20, FLOPS_A_PARAM = 800 };

struct fst_trainer {
    const fst_graph *graph;
    fst_pool *pool;
    int threads, plans_count;
    fst_plan **plans; /* by worker; one only when the batch is not cut */
    size_t batch, shard, shards;
    int classes;
    size_t sample;      /* floats */
    float **grads;      /* by shard */
    float **rest;       /* by worker: input rows of a last, partly filled shard; the rest stays 0 */
    double *row_loss;   /* by row */
    size_t *correct;    /* by shard */
    fst_status *status; /* by shard */
    fst_error *errors;  /* by shard */
    /* the step that is under way */
    fst_state *state;
    const fst_step_input *in;
    /* plans of other batch sizes, for models that cannot be padded; the last used */
    fst_plan *odd;
    size_t odd_rows;
    const char *backend;
    fst_precision precision;
    bool check_finite;
    bool whole;             /* batch statistics: the batch is one shard, never padded */
    bool training;          /* else a runner's */
    bool inside;            /* one shard by rule: the threads work inside kernels */
    float *kept;            /* whole: running statistics before the step, */
    int64_t *kept_counters; /* to be put back when it fails */
};

static bool has_batch_norm(const fst_graph *g)
{
    for (int i = 0; i < g->count; i++)
        if (fst__is_batch_norm(g->nodes[i].kind))
            return true;
    return false;
}

const char *fst_graph_single_value_norm(const fst_graph *g, size_t rows)
{
    for (int i = 0; rows == 1 && i < g->count; i++) {
        const struct fst_node *n = &g->nodes[i];
        if (fst__is_batch_norm(n->kind) && n->in.dim[1] * n->in.dim[2] == 1)
            return n->name;
    }
    return NULL;
}

bool fst_graph_sharded(const fst_graph *g)
{
    return !has_batch_norm(g) && g->param_count <= MAX_SHARD_PARAMS;
}

/* Shards small enough that a shard's activations stay near the core, large enough that writing and adding up
 * gradients stays cheap beside the work; a small batch still gives work to four threads, one of a model with
 * many parameters for its work to two. Never dependent on the number of threads. Measured in docs/rationale.md. */
static size_t shard_rule(const fst_graph *g, const fst_trainer_options *o)
{
    if (!fst_graph_sharded(g))
        return o->batch_size;
    size_t quarter = (o->batch_size + 3) / 4;
    size_t shard = quarter < MIN_SHARD ? MIN_SHARD : quarter < AUTO_SHARD ? quarter : AUTO_SHARD;
    double worth = FLOPS_A_PARAM * (double)g->param_count / (3 * fst_graph_flops(g) + 1);
    size_t half = (o->batch_size + 1) / 2;
    if (worth > (double)shard)
        shard = worth < (double)half ? (size_t)worth : half;
    if (o->shard_size)
        shard = o->shard_size;
    if (shard >= o->batch_size)
        return o->batch_size;
    /* equal shards: the last one would otherwise be mostly padding */
    size_t count = o->shard_size ? (o->batch_size + shard - 1) / shard : o->batch_size / shard;
    return (o->batch_size + count - 1) / count;
}

void fst_trainer_free(fst_trainer *t)
{
    if (!t)
        return;
    for (int i = 0; t->plans && i < t->plans_count; i++)
        fst_plan_free(t->plans[i]);
    for (size_t i = 0; t->grads && i < t->shards; i++)
        fst_free(t->grads[i]);
    for (int i = 0; t->rest && i < t->plans_count; i++)
        fst_free(t->rest[i]);
    fst_plan_free(t->odd);
    fst_free(t->plans);
    fst_free(t->grads);
    fst_free(t->rest);
    fst_free(t->kept);
    fst_free(t->kept_counters);
    fst_free(t->row_loss);
    fst_free(t->correct);
    fst_free(t->status);
    fst_free(t->errors);
    fst_pool_free(t->pool);
    fst_free(t);
}

static fst_status allocate(fst_trainer *t, fst_error *err)
{
    t->plans = fst_calloc((size_t)t->plans_count, sizeof *t->plans);
    t->rest = fst_calloc((size_t)t->plans_count, sizeof *t->rest);
    t->grads = fst_calloc(t->shards, sizeof *t->grads);
    t->row_loss = fst_calloc(t->batch, sizeof *t->row_loss);
    t->correct = fst_calloc(t->shards, sizeof *t->correct);
    t->status = fst_calloc(t->shards, sizeof *t->status);
    t->errors = fst_calloc(t->shards, sizeof *t->errors);
    if (!t->plans || !t->rest || !t->grads || !t->row_loss || !t->correct || !t->status || !t->errors)
        return fst_fail_memory(err, t->batch * sizeof *t->row_loss);
    if (t->whole) {
        t->kept = fst_calloc(t->graph->buffer_count + 1, sizeof *t->kept);
        t->kept_counters = fst_calloc(t->graph->ncounters + 1, sizeof *t->kept_counters);
        if (!t->kept || !t->kept_counters)
            return fst_fail_memory(err, t->graph->buffer_count * sizeof *t->kept);
    }
    for (size_t i = 0; t->training && i < t->shards; i++) {
        t->grads[i] = fst_calloc(t->graph->param_count + 1, sizeof(float));
        if (!t->grads[i])
            return fst_fail_memory(err, t->graph->param_count * sizeof(float));
    }
    for (int i = 0; !t->whole && i < t->plans_count; i++) {
        t->rest[i] = fst_calloc(t->shard * t->sample, sizeof(float));
        if (!t->rest[i])
            return fst_fail_memory(err, t->shard * t->sample * sizeof(float));
    }
    return FST_OK;
}

static fst_plan_options plan_options(const fst_trainer *t, size_t rows, bool training)
{
    return (fst_plan_options){.batch = (int64_t)rows,
                              .training = training,
                              .threads = t->inside ? t->threads : 1, /* sums inside kernels depend on it */
                              .backend = t->backend,
                              .precision = t->precision,
                              .check_finite = t->check_finite && training};
}

static fst_status make(fst_trainer *t, const fst_trainer_options *o, bool training, fst_error *err)
{
    t->threads = o->threads > 0 ? o->threads : fst_cpu_count();
    t->batch = o->batch_size;
    t->backend = o->backend;
    t->precision = o->precision;
    t->check_finite = o->check_finite;
    t->training = training;
    t->whole = training && has_batch_norm(t->graph);
    t->shard = training ? shard_rule(t->graph, o) : (o->shard_size ? o->shard_size : AUTO_SHARD);
    if (t->shard > t->batch)
        t->shard = t->batch;
    t->shards = (t->batch + t->shard - 1) / t->shard;
    t->inside = training ? !fst_graph_sharded(t->graph) : t->shards == 1;
    fst_shape in = fst_graph_input_shape(t->graph), out = fst_graph_output_shape(t->graph);
    t->sample = (size_t)fst_shape_count(&in);
    t->classes = (int)fst_shape_count(&out);
    t->plans_count = t->shards < (size_t)t->threads ? (int)t->shards : t->threads;
    fst_status s = allocate(t, err);
    if (!s)
        s = fst_pool_new(&t->pool, t->shards > 1 ? t->plans_count : t->threads, err); /* a plan a worker */
    for (int i = 0; !s && i < t->plans_count; i++) {
        fst_plan_options po = plan_options(t, t->shard, training);
        s = fst_plan_new(&t->plans[i], t->graph, &po, err);
    }
    return s;
}

static fst_status new_trainer(fst_trainer **out, const fst_graph *g, const fst_trainer_options *o, bool training,
                              fst_error *err)
{
    if (!g->finished)
        return fst_fail(err, FST_E_ARGUMENT, "the graph is not finished");
    if (g->inputs != 1)
        return fst_fail(err, FST_E_ARGUMENT, "the graph has %d inputs; a trainer or runner feeds one", g->inputs);
    if (o->batch_size < 1 || o->batch_size > 1 << 20)
        return fst_fail(err, FST_E_ARGUMENT, "the batch size must be 1 to %d, not %zu", 1 << 20, o->batch_size);
    fst_trainer *t = fst_calloc(1, sizeof *t);
    if (!t)
        return fst_fail_memory(err, sizeof *t);
    t->graph = g;
    fst_status s = make(t, o, training, err);
    if (s) {
        fst_trainer_free(t);
        return s;
    }
    *out = t;
    return FST_OK;
}

fst_status fst_trainer_new(fst_trainer **out, const fst_graph *g, const fst_trainer_options *o, fst_error *err)
{
    return new_trainer(out, g, o, true, err);
}

int fst_trainer_threads(const fst_trainer *t)
{
    return t->threads;
}

size_t fst_trainer_shard(const fst_trainer *t)
{
    return t->shard;
}

static size_t best_class(const float *z, int n)
{
    int best = 0;
    for (int j = 1; j < n; j++)
        if (z[j] > z[best])
            best = j;
    return (size_t)best;
}

struct finite_check {
    const float *v;
    size_t n;
    _Atomic bool bad;
};

enum { FINITE_BLOCK = 1 << 16 };

static void check_block(void *ctx, int worker, size_t block)
{
    struct finite_check *c = ctx;
    size_t at = block * FINITE_BLOCK, left = c->n - at;
    (void)worker;
    if (!fst__all_finite(c->v + at, (left < FINITE_BLOCK ? left : FINITE_BLOCK) * sizeof(float), false))
        c->bad = true;
}

/* A ReLU turns a NaN into 0, so the loss alone may not show it. On the plan's threads when they work inside kernels; a
 * shard's thread has its gradients to itself. */
static bool gradients_finite(const fst_trainer *t, fst_plan *plan, const float *grads)
{
    struct finite_check c = {.v = grads, .n = t->graph->param_count};
    struct fst_crew crew = fst__plan_crew(plan);
    if (!t->inside || !crew.run)
        return fst__all_finite(grads, c.n * sizeof(float), false);
    crew.run(crew.ctx, check_block, &c, (c.n + FINITE_BLOCK - 1) / FINITE_BLOCK);
    return !c.bad;
}

/* Forward, loss, backward of `rows` rows from `first` on a plan of at least as many. */
static fst_status run_shard(fst_trainer *t, fst_plan *plan, size_t plan_rows, const float *x, size_t first, size_t rows,
                            size_t shard, fst_error *err)
{
    const fst_step_input *in = t->in;
    size_t classes = (size_t)t->classes;
    fst_draws draws = {in->seed, in->step, (uint32_t)first};
    const float *logits = NULL;
    fst_status s = fst_plan_forward(plan, t->state, x, &draws, &logits, err);
    if (s)
        return s;
    float *grad = fst_plan_output_grad(plan);
    fst_loss_input li = {.logits = logits,
                         .rows = rows,
                         .classes = t->classes,
                         .labels = in->labels ? in->labels + first : NULL,
                         .soft = in->soft ? in->soft + first * classes : NULL,
                         .divisor = (double)in->rows};
    fst_loss_rows(&in->loss, &li, grad, t->row_loss + first, NULL, NULL);
    memset(grad + rows * classes, 0, (plan_rows - rows) * classes * sizeof *grad);
    t->correct[shard] = 0;
    for (size_t r = 0; in->labels && r < rows; r++)
        t->correct[shard] += best_class(logits + r * classes, t->classes) == (size_t)in->labels[first + r];
    s = fst_plan_backward(plan, t->state, t->grads[shard], err);
    if (!s && !gradients_finite(t, plan, t->grads[shard]))
        s = fst_fail(err, FST_E_NUMERIC, "the gradients of this step are not all finite numbers");
    return s;
}

static void shard_job(void *ctx, int worker, size_t shard)
{
    fst_trainer *t = ctx;
    size_t first = shard * t->shard, rows = t->in->rows - first;
    const float *x = t->in->x + first * t->sample;
    if (rows > t->shard)
        rows = t->shard;
    if (rows < t->shard) { /* rows behind the end stand as zeros with zero gradients */
        memcpy(t->rest[worker], x, rows * t->sample * sizeof(float));
        memset(t->rest[worker] + rows * t->sample, 0, (t->shard - rows) * t->sample * sizeof(float));
        x = t->rest[worker];
    }
    t->status[shard] = run_shard(t, t->plans[worker], t->shard, x, first, rows, shard, &t->errors[shard]);
}

/* A batch that cannot be padded because its rows share statistics: a plan of its exact size. */
static fst_status run_whole(fst_trainer *t, fst_error *err)
{
    size_t rows = t->in->rows;
    fst_plan *plan = t->plans[0];
    if (rows != t->shard) {
        if (!t->odd || t->odd_rows != rows) {
            fst_plan_free(t->odd);
            t->odd = NULL;
            fst_plan_options po = plan_options(t, rows, true);
            fst_status s = fst_plan_new(&t->odd, t->graph, &po, err);
            if (s)
                return s;
            t->odd_rows = rows;
        }
        plan = t->odd;
    }
    return run_shard(t, plan, rows, t->in->x, 0, rows, 0, err);
}

static fst_status run_shards(fst_trainer *t, size_t shards, fst_error *err)
{
    if (t->whole) {
        memcpy(t->kept, t->state->buffers, t->graph->buffer_count * sizeof *t->kept);
        memcpy(t->kept_counters, t->state->counters, t->graph->ncounters * sizeof *t->kept_counters);
        return run_whole(t, err);
    }
    fst_pool_run(t->pool, shard_job, t, shards);
    for (size_t i = 0; i < shards; i++)
        if (t->status[i]) {
            if (err)
                *err = t->errors[i];
            return t->status[i];
        }
    return FST_OK;
}

/* A failed step leaves the running statistics as they were. */
static void put_back(fst_trainer *t)
{
    if (!t->whole)
        return;
    memcpy(t->state->buffers, t->kept, t->graph->buffer_count * sizeof *t->kept);
    memcpy(t->state->counters, t->kept_counters, t->graph->ncounters * sizeof *t->kept_counters);
}

static fst_status check_input(const fst_trainer *t, const fst_step_input *in, fst_error *err)
{
    if (in->rows < 1 || in->rows > t->batch)
        return fst_fail(err, FST_E_ARGUMENT, "a step takes 1 to %zu rows, not %zu", t->batch, in->rows);
    if (in->loss.kd_weight != 0 && !in->soft)
        return fst_fail(err, FST_E_ARGUMENT, "a distillation loss needs soft targets");
    if (in->loss.ce_weight != 0 && !in->labels)
        return fst_fail(err, FST_E_ARGUMENT, "a cross entropy needs labels");
    if (in->loss.kd_weight != 0 && fst_kd_needs_labels(in->loss.kd_form) && !in->labels)
        return fst_fail(err, FST_E_ARGUMENT, "the distillation loss %s needs labels",
                        fst_kd_form_name(in->loss.kd_form));
    if (in->prox_mu > 0 && !in->anchor)
        return fst_fail(err, FST_E_ARGUMENT, "a proximal term needs an anchor");
    for (size_t r = 0; in->labels && r < in->rows; r++)
        if (in->labels[r] < 0 || in->labels[r] >= t->classes)
            return fst_fail(err, FST_E_MISMATCH, "row %zu has label %d, the model's classes are 0 to %d", r,
                            (int)in->labels[r], t->classes - 1);
    return FST_OK;
}

fst_status fst_trainer_step(fst_trainer *t, fst_state *state, fst_optim *optim, const fst_step_input *in,
                            fst_step_result *out, fst_error *err)
{
    fst_status s = check_input(t, in, err);
    if (s)
        return s;
    size_t shards = (in->rows + t->shard - 1) / t->shard;
    t->state = state;
    t->in = in;
    s = run_shards(t, shards, err);
    fst_step_result r = {0};
    for (size_t i = 0; !s && i < in->rows; i++)
        r.loss_sum += t->row_loss[i];
    for (size_t i = 0; !s && i < shards; i++)
        r.correct += t->correct[i];
    if (!s && !isfinite(r.loss_sum))
        s = fst_fail(err, FST_E_NUMERIC, "the loss is not a finite number (%g)", r.loss_sum / (double)in->rows);
    if (s) {
        put_back(t);
        return s;
    }
    fst_optim_input oi = {.grads = t->grads,
                          .parts = shards,
                          .learning_rate = in->learning_rate,
                          .prox_mu = in->prox_mu,
                          .anchor = in->anchor};
    struct fst_crew inside = fst__plan_crew(t->plans[0]);
    r.grad_norm = t->inside && inside.run ? fst__optim_step(optim, state->params, &oi, &inside)
                                          : fst_optim_step(optim, state->params, &oi, t->pool);
    *out = r;
    return FST_OK;
}

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
 * trainer's own makes all plans ready. Without batch norm it leaves no trace in the state. */
static fst_status rehearse(fst_trainer *t, bool backward, fst_error *err)
{
    const fst_draws draws = {0};
    const float *logits;
    fst_status s = t->state ? FST_OK : fst_fail(err, FST_E_ARGUMENT, "run a step before its kernels");
    for (int i = 0; !s && !t->whole && i < t->plans_count; i++) {
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
    fst_status s = new_trainer(&r->t, g, o, false, err);
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
    size_t first = job * t->shard, rows = r->rows - first, classes = (size_t)t->classes;
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
    if (state != r->held || state != r->state)
        for (int i = 0; i < t->plans_count; i++)
            fst_plan_renew(t->plans[i]);
    r->state = state;
    /* at most t->shards jobs at a time, so that each has a status of its own */
    for (size_t done = 0; done < rows; done += t->batch) {
        r->x = x + done * t->sample;
        r->logits = logits + done * (size_t)t->classes;
        r->rows = rows - done < t->batch ? rows - done : t->batch;
        size_t jobs = (r->rows + t->shard - 1) / t->shard;
        memset(t->status, 0, t->shards * sizeof *t->status);
        fst_pool_run(t->pool, infer_job, r, jobs);
        for (size_t i = 0; i < jobs; i++)
            if (t->status[i]) {
                if (err)
                    *err = t->errors[i];
                return t->status[i];
            }
    }
    return FST_OK;
}

/*
 * Training steps and inference over shards. A shard is a slice of the batch with kernels, memory and gradients of its
 * own, and nothing depends on which worker ran which shard. Networks without batch norm have a plan a worker: it runs
 * whole shards, with no barrier inside a step but the one before the optimiser. Networks with batch norm, and those of
 * many parameters, have a plan a shard: all shards run a part of the step, meet, and run the next, since each norm
 * needs sums over the whole batch (struct fst_peers), and gradients that are kept once are added part by part. Rows
 * after the end of a batch stand as zeros with zero gradients; batch norm does not count them.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "ops.h"
#include "trainer.h"

enum { MIN_SHARD = 8, AUTO_SHARD = 32, FLOPS_A_PARAM = 800, FLOPS_A_FORK = 16000000 };
/* More parameters than that, and a gradient for each shard would cost more than adding them part by part; networks
 * whose shards meet anyway do so earlier. A window is the gradients of one part, which the cores' caches should hold.
 */
enum { MANY_PARAMS = 8 << 20, MANY_WHERE_SHARDS_MEET = 1 << 20, WINDOW = 1 << 20 };

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

/* Shards small enough that a shard's activations stay near the core, large enough that writing and adding up
 * gradients stays cheap beside the work; a small batch still gives work to four threads, one of a model with
 * many parameters for its work to two. Never dependent on the number of threads. Measured in docs/rationale.md. */
static size_t shard_rule(const fst_graph *g, const fst_trainer_options *o)
{
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

/* In inference there are no gradients to add up, and smaller shards cost nothing: a batch that one shard would do is
 * cut in as many as four, so that threads share it without waiting for each other at every layer. */
static size_t inference_rule(const fst_trainer_options *o)
{
    if (o->shard_size)
        return o->shard_size;
    if (o->batch_size > AUTO_SHARD || o->batch_size < 2 * MIN_SHARD)
        return AUTO_SHARD;
    size_t count = o->batch_size / MIN_SHARD;
    return (o->batch_size + count - 1) / count;
}

/* Threads inside kernels wake and meet at every one of them, which takes some tens of microseconds: a layer must have
 * the work to pay for it. Measured in docs/rationale.md. */
static bool worth_a_fork(const fst_graph *g, size_t rows)
{
    int layers = 0;
    for (size_t i = 0; i < fst_graph_layers(g); i++)
        layers += fst_graph_layer(g, i).flops > 0;
    return fst_graph_flops(g) * (double)rows >= (double)FLOPS_A_FORK * layers;
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
    for (int i = 0; t->head && i < t->plans_count; i++)
        fst_free(t->head[i]);
    fst_free(t->head);
    fst_free(t->row_more);
    fst_free(t->row_slope);
    fst_free(t->plans);
    fst_free(t->grads);
    fst_free(t->rest);
    fst_free(t->peers);
    fst_free(t->rows);
    fst_free(t->memory);
    fst_free(t->kept);
    fst_free(t->kept_counters);
    fst_free(t->row_loss);
    fst_free(t->weight);
    fst_free(t->rounded.params);
    fst_free(t->correct);
    fst_free(t->status);
    fst_free(t->errors);
    fst_pool_free(t->pool);
    fst_free(t);
}

/* What shards that meet need besides. */
static fst_status allocate_peers(fst_trainer *t, fst_error *err)
{
    t->kept = fst_calloc(t->graph->buffer_count + 1, sizeof *t->kept);
    t->kept_counters = fst_calloc(t->graph->ncounters + 1, sizeof *t->kept_counters);
    t->peers = fst_calloc(t->shards, sizeof *t->peers);
    t->rows = fst_calloc(t->shards, sizeof *t->rows);
    t->memory = fst_calloc(t->shards, sizeof *t->memory);
    if (!t->kept || !t->kept_counters || !t->peers || !t->rows || !t->memory)
        return fst_fail_memory(err, t->graph->buffer_count * sizeof *t->kept);
    return FST_OK;
}

/* What losses beside that of the logits need. */
static fst_status allocate_more(fst_trainer *t, fst_error *err)
{
    size_t head = 2 * t->shard * (size_t)t->classes;
    t->row_more = fst_calloc(t->batch, sizeof *t->row_more);
    t->row_slope = fst_calloc(t->batch, sizeof *t->row_slope);
    t->head = fst_calloc((size_t)t->plans_count, sizeof *t->head);
    bool ok = t->row_more && t->row_slope && t->head;
    for (int i = 0; ok && fst_graph_taps(t->graph) && i < t->plans_count; i++)
        ok = (t->head[i] = fst_calloc(head, sizeof(float))) != NULL;
    return ok ? FST_OK : fst_fail_memory(err, head * sizeof(float));
}

static fst_status allocate(fst_trainer *t, fst_error *err)
{
    t->plans = fst_calloc((size_t)t->plans_count, sizeof *t->plans);
    t->rest = fst_calloc((size_t)t->plans_count, sizeof *t->rest);
    t->grads = fst_calloc(t->shards, sizeof *t->grads);
    t->row_loss = fst_calloc(t->batch, sizeof *t->row_loss);
    t->weight = fst_calloc((size_t)t->classes, sizeof *t->weight);
    t->correct = fst_calloc(t->shards, sizeof *t->correct);
    t->status = fst_calloc(t->shards, sizeof *t->status);
    t->errors = fst_calloc(t->shards, sizeof *t->errors);
    if (!t->plans || !t->rest || !t->grads || !t->row_loss || !t->weight || !t->correct || !t->status || !t->errors)
        return fst_fail_memory(err, t->batch * sizeof *t->row_loss);
    if (t->training && fst__graph_rounds(t->graph)) {
        t->rounded.params = fst_calloc(t->graph->param_count + 1, sizeof(float));
        if (!t->rounded.params)
            return fst_fail_memory(err, t->graph->param_count * sizeof(float));
    }
    for (int i = 0; i < t->plans_count; i++) {
        t->rest[i] = fst_calloc(t->shard * t->sample, sizeof(float));
        if (!t->rest[i])
            return fst_fail_memory(err, t->shard * t->sample * sizeof(float));
    }
    fst_status s = allocate_more(t, err);
    return !s && t->meets ? allocate_peers(t, err) : s;
}

/* Zeros, but where gradients are kept as factors: what nobody touches takes no memory. */
static float *new_gradient(const fst_trainer *t, bool factors)
{
    float *g = fst_alloc((t->graph->param_count + 1) * sizeof *g);
    size_t from = 0;
    for (size_t i = 0; g && i <= t->nforms; i++) {
        const struct fst_form *f = i < t->nforms ? &t->forms[i] : NULL;
        if (f && f->block)
            continue;
        size_t to = !f ? t->graph->param_count + 1 : f->from + (factors ? f->rows * (f->out + f->in) : 0);
        memset(g + from, 0, (to - from) * sizeof *g);
        from = f ? f->from + f->out * f->in : to;
    }
    return g;
}

static fst_status allocate_gradients(fst_trainer *t, fst_error *err)
{
    t->nforms = fst__plan_forms(t->plans[0], &t->forms);
    for (size_t i = 0; i < t->shards && !(t->windowed && i > 0); i++) {
        t->grads[i] = new_gradient(t, i == 0);
        if (!t->grads[i])
            return fst_fail_memory(err, t->graph->param_count * sizeof(float));
    }
    for (int i = 0; i < t->plans_count; i++)
        fst__plan_factor_rows(t->plans[i], t->grads[0], (size_t)i * t->shard);
    return FST_OK;
}

/* Room for the gradients of one part, whichever has most. */
static fst_status allocate_windows(fst_trainer *t, fst_error *err)
{
    struct fst_parts parts = fst__plan_parts(t->plans[0]);
    size_t most = 1;
    for (int i = parts.forward; i < parts.all; i++) {
        size_t count = fst__plan_part_grads(t->plans[0], i).count;
        most = count > most ? count : most;
    }
    for (size_t i = 1; i < t->shards; i++) {
        t->grads[i] = fst_calloc(most, sizeof(float));
        if (!t->grads[i])
            return fst_fail_memory(err, most * sizeof(float));
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

static void introduce(fst_trainer *t)
{
    for (size_t i = 0; i < t->shards; i++) {
        t->memory[i] = fst__plan_shared(t->plans[i]);
        t->peers[i] = (struct fst_peers){.shard = (int)i, .rows = t->rows, .memory = t->memory};
        fst__plan_join(t->plans[i], &t->peers[i]);
    }
}

static fst_status make(fst_trainer *t, const fst_trainer_options *o, bool training, fst_error *err)
{
    t->threads = o->threads > 0 ? o->threads : fst_cpu_count();
    t->batch = o->batch_size;
    t->backend = o->backend;
    t->precision = o->precision;
    t->check_finite = o->check_finite;
    t->training = training;
    t->meets = training && (o->halves || has_batch_norm(t->graph));
    t->windowed = training && t->graph->param_count > (t->meets ? MANY_WHERE_SHARDS_MEET : MANY_PARAMS);
    t->meets = t->meets || t->windowed;
    t->shard = training ? shard_rule(t->graph, o) : inference_rule(o);
    if (t->shard > t->batch)
        t->shard = t->batch;
    t->shards = (t->batch + t->shard - 1) / t->shard;
    t->inside = !training && t->shards == 1 && worth_a_fork(t->graph, t->shard);
    t->shared = !training && t->batch == 1 && !t->inside;
    fst_shape in = fst_graph_input_shape(t->graph), out = fst_graph_output_shape(t->graph);
    t->sample = (size_t)fst_shape_count(&in);
    t->classes = (int)fst_graph_head(t->graph);
    t->width = (size_t)fst_shape_count(&out);
    int workers = t->shards < (size_t)t->threads ? (int)t->shards : t->threads;
    bool alone = t->shards == 1 && training; /* its optimiser has all threads */
    t->plans_count = t->meets ? (int)t->shards : workers;
    int sharing = t->threads > 1 && fst_cpu_count() > 1 ? 2 : 1; /* threads beyond the CPUs would only wait */
    fst_status s = allocate(t, err);
    if (!s)
        s = fst_pool_new(&t->pool, alone ? t->threads : t->shared ? sharing : workers, err);
    for (int i = 0; !s && i < t->plans_count; i++) {
        fst_plan_options po = plan_options(t, t->shard, training);
        struct fst_plan_more more = {
            .window = t->windowed ? WINDOW : 0,
            .share = t->shared,
            .pool = t->shared && sharing > 1 ? t->pool : NULL,
            .owner = i && !training ? t->plans[0] : NULL, /* weights in the kernels' layouts once for all */
            .batch_rows = t->windowed ? 0 : t->shards * t->shard,
            .blocks = training,
        };
        s = fst__plan_new(&t->plans[i], t->graph, &po, &more, err);
    }
    if (!s && training)
        s = allocate_gradients(t, err);
    if (!s && t->windowed)
        s = allocate_windows(t, err);
    if (!s && t->meets)
        introduce(t);
    return s;
}

fst_status fst__trainer_new(fst_trainer **out, const fst_graph *g, const fst_trainer_options *o, bool training,
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
    return fst__trainer_new(out, g, o, true, err);
}

int fst_trainer_threads(const fst_trainer *t)
{
    return t->threads;
}

size_t fst_trainer_shard(const fst_trainer *t)
{
    return t->shard;
}

size_t fst_trainer_plans(const fst_trainer *t)
{
    return (size_t)t->plans_count;
}

static size_t best_class(const float *z, int n)
{
    int best = 0;
    for (int j = 1; j < n; j++)
        if (z[j] > z[best])
            best = j;
    return (size_t)best;
}

struct slice { /* of the step's batch: a shard's rows */
    size_t shard, first, rows;
    const float *x; /* as many rows as the plan takes */
};

/* rest: room for the rows of a shard that is not full. */
static struct slice slice_of(const fst_trainer *t, size_t shard, float *rest)
{
    struct slice s = {.shard = shard, .first = shard * t->shard};
    s.rows = t->in->rows - s.first;
    s.x = t->in->x + s.first * t->sample;
    if (s.rows >= t->shard) {
        s.rows = t->shard;
        return s;
    }
    memcpy(rest, s.x, s.rows * t->sample * sizeof(float));
    memset(rest + s.rows * t->sample, 0, (t->shard - s.rows) * t->sample * sizeof(float));
    s.x = rest;
    return s;
}

static fst_draws draws_of(const fst_trainer *t, const struct slice *s)
{
    return (fst_draws){t->in->seed, t->in->step, (uint32_t)s->first};
}

/* Rows of logits out of rows of a wider output, or back. */
static void copy_rows(float *to, size_t to_width, const float *from, size_t from_width, size_t rows, size_t n)
{
    for (size_t r = 0; r < rows; r++)
        memcpy(to + r * to_width, from + r * from_width, n * sizeof *to);
}

/* The losses of feature maps are added to the rows' losses, and their gradients stand behind that of the logits. */
static void take_features(fst_trainer *t, const struct slice *s, const float *out, float *grad)
{
    const fst_step_input *in = t->in;
    for (size_t i = 0; i < in->feature_count; i++) {
        const fst_feature_loss *f = &in->features[i];
        fst_tap tap = fst_graph_tap(t->graph, f->tap);
        fst_feature_input fi = {.map = out + tap.at,
                                .target = f->target + s->first * f->target_stride,
                                .stride = t->width,
                                .target_stride = f->target_stride,
                                .shape = tap.shape,
                                .target_shape = f->target_shape,
                                .rows = s->rows,
                                .divisor = (double)in->rows,
                                .row_weight = f->row_weight ? f->row_weight + s->first : NULL};
        fst_feature_rows(f->form, &fi, f->weight, grad + tap.at, t->row_more + s->first);
        for (size_t r = s->first; r < s->first + s->rows; r++)
            t->row_loss[r] += f->weight * t->row_more[r];
    }
}

/* Between the passes: the loss of the slice's rows and its gradient. `place` is the plan's number. */
static void take_loss(fst_trainer *t, int place, const struct slice *s, const float *out)
{
    const fst_step_input *in = t->in;
    size_t classes = (size_t)t->classes;
    float *out_grad = fst_plan_output_grad(t->plans[place]), *head = t->head[place], *grad = out_grad;
    const float *logits = out;
    if (head) { /* the loss wants rows without gaps */
        copy_rows(head, classes, out, t->width, s->rows, classes);
        logits = head;
        grad = head + t->shard * classes;
    }
    fst_loss_input li = {.logits = logits,
                         .rows = s->rows,
                         .classes = t->classes,
                         .labels = in->labels ? in->labels + s->first : NULL,
                         .soft = in->soft ? in->soft + s->first * classes : NULL,
                         .class_weight = in->class_weight ? t->weight : NULL,
                         .divisor = (double)in->rows};
    fst_loss_rows(&in->loss, &li, grad, t->row_loss + s->first, NULL, NULL);
    if (in->want_temperature_grad)
        fst_loss_temperature_rows(&in->loss, &li, t->row_slope + s->first);
    if (head) {
        memset(out_grad, 0, t->shard * t->width * sizeof *out_grad);
        copy_rows(out_grad, t->width, grad, classes, s->rows, classes);
        take_features(t, s, out, out_grad);
    } else {
        memset(grad + s->rows * classes, 0, (t->shard - s->rows) * classes * sizeof *grad);
    }
    t->correct[s->shard] = 0;
    for (size_t r = 0; in->labels && r < s->rows; r++)
        t->correct[s->shard] += best_class(logits + r * classes, t->classes) == (size_t)in->labels[s->first + r];
}

static fst_status fail_gradients(fst_error *err)
{
    return fst_fail(err, FST_E_NUMERIC, "the gradients of this step are not all finite numbers");
}

/* A ReLU turns a NaN into 0, so the loss alone may not show it. */
static fst_status check_gradients(const float *grads, size_t count, fst_error *err)
{
    return fst__all_finite(grads, count * sizeof *grads, false) ? FST_OK : fail_gradients(err);
}

/* Those of one shard, whether made or left as factors. */
static fst_status check_shard(const fst_trainer *t, size_t shard, fst_error *err)
{
    size_t from = 0;
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < t->nforms; i++) {
        const struct fst_form *f = &t->forms[i];
        if (f->block)
            continue;
        s = check_gradients(t->grads[shard] + from, f->from - from, err);
        if (!s && !fst__factors_finite(f, t->grads[0], shard * t->shard, t->shard))
            s = fail_gradients(err);
        from = f->from + f->out * f->in;
    }
    return s ? s : check_gradients(t->grads[shard] + from, t->graph->param_count - from, err);
}

/* A shard from end to end on a worker's plan. */
static void shard_job(void *ctx, int worker, size_t shard)
{
    fst_trainer *t = ctx;
    fst_plan *plan = t->plans[worker];
    fst_error *err = &t->errors[shard];
    struct slice s = slice_of(t, shard, t->rest[worker]);
    fst_draws draws = draws_of(t, &s);
    const float *logits = NULL;
    fst_status st = fst_plan_forward(plan, t->bound, s.x, &draws, &logits, err);
    if (!st) {
        take_loss(t, worker, &s, logits);
        fst__plan_factor_rows(plan, t->grads[0], s.first);
        st = fst_plan_backward(plan, t->bound, t->grads[shard], err);
    }
    t->status[shard] = st ? st : check_shard(t, shard, err);
}

/* A shard's pass through one part. The gradients of the first go to their place in the sum, those of the others into
 * their windows, from where join_block adds them. */
static fst_status run_part(fst_trainer *t, size_t shard, int part, fst_error *err)
{
    fst_plan *plan = t->plans[shard];
    if (t->windowed && shard > 0 && part >= fst__plan_parts(plan).forward)
        fst__plan_divert(plan, part, t->grads[shard]);
    return fst__plan_run_part(plan, part, err);
}

/* One part of a step on a shard's own plan. The loss stands between the passes, so the last part of the forward pass
 * and the first of the backward pass are one, unless the step is taken in halves. */
static void part_job(void *ctx, int worker, size_t shard)
{
    fst_trainer *t = ctx;
    fst_plan *plan = t->plans[shard];
    fst_error *err = &t->errors[shard];
    struct fst_parts parts = fst__plan_parts(plan);
    bool turn = t->part == parts.forward - 1;
    struct slice s = {.shard = shard, .first = shard * t->shard, .rows = (size_t)t->rows[shard]};
    fst_status st = FST_OK;
    (void)worker;
    if (t->part == 0 && t->half != FINISH) {
        s = slice_of(t, shard, t->rest[shard]);
        fst_draws draws = draws_of(t, &s);
        fst__plan_bind(plan, t->bound, t->windowed && shard > 0 ? NULL : t->grads[shard], s.x, &draws);
    }
    if (!turn || t->half != FINISH)
        st = run_part(t, shard, t->part, err);
    if (!st && turn && t->half == FORWARD)
        copy_rows(t->answers + s.first * (size_t)t->classes, (size_t)t->classes, fst__plan_output(plan), t->width,
                  s.rows, (size_t)t->classes);
    if (!st && turn && t->half != FORWARD) {
        take_loss(t, (int)shard, &s, fst__plan_output(plan));
        st = run_part(t, shard, parts.forward, err);
    }
    int last = turn && t->half != FORWARD ? parts.forward : t->part;
    if (!st && last == parts.all - 1 && !t->windowed)
        st = check_shard(t, shard, err);
    t->status[shard] = st;
}

fst_status fst__trainer_failure(const fst_trainer *t, size_t shards, fst_error *err)
{
    for (size_t i = 0; i < shards; i++)
        if (t->status[i]) {
            if (err)
                *err = t->errors[i];
            return t->status[i];
        }
    return FST_OK;
}

static void begin_parts(fst_trainer *t, size_t shards)
{
    memcpy(t->kept, t->state->buffers, t->graph->buffer_count * sizeof *t->kept);
    memcpy(t->kept_counters, t->state->counters, t->graph->ncounters * sizeof *t->kept_counters);
    for (size_t i = 0; i < shards; i++) {
        size_t left = t->in->rows - i * t->shard;
        t->rows[i] = (int64_t)(left < t->shard ? left : t->shard);
        t->peers[i].shards = (int)shards;
    }
}

struct join { /* of the gradients of one part, in the order of the shards */
    fst_trainer *t;
    struct fst_span span;
    size_t shards;
    _Atomic bool bad;
};

enum { JOIN_BLOCK = 1 << 14 };

FST_HOT static void add_to(float *restrict sum, const float *restrict x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += x[i];
}

static void join_block(void *ctx, int worker, size_t block)
{
    struct join *j = ctx;
    size_t at = block * JOIN_BLOCK, left = j->span.count - at, count = left < JOIN_BLOCK ? left : JOIN_BLOCK;
    float *sum = j->t->grads[0] + j->span.from + at;
    (void)worker;
    for (size_t i = 1; i < j->shards; i++)
        add_to(sum, j->t->grads[i] + at, count);
    if (check_gradients(sum, count, NULL))
        j->bad = true;
}

static fst_status join_gradients(fst_trainer *t, size_t shards, int part, fst_error *err)
{
    struct join j = {.t = t, .span = fst__plan_part_grads(t->plans[0], part), .shards = shards};
    fst_pool_run(t->pool, join_block, &j, (j.span.count + JOIN_BLOCK - 1) / JOIN_BLOCK);
    return j.bad ? fail_gradients(err) : FST_OK;
}

static fst_status run_parts(fst_trainer *t, size_t shards, fst_error *err)
{
    struct fst_parts parts = fst__plan_parts(t->plans[0]);
    int turn = parts.forward - 1;
    fst_status s = FST_OK;
    if (t->half != FINISH)
        begin_parts(t, shards);
    for (t->part = t->half == FINISH ? turn : 0; !s && t->part < (t->half == FORWARD ? turn + 1 : parts.all);
         t->part++) {
        fst_pool_run(t->pool, part_job, t, shards);
        s = fst__trainer_failure(t, shards, err);
        if (t->part == turn && t->half != FORWARD)
            t->part++;
        if (!s && t->windowed && t->part > turn)
            s = join_gradients(t, shards, t->part, err);
    }
    return s;
}

static fst_status run_shards(fst_trainer *t, size_t shards, fst_error *err)
{
    if (t->meets)
        return run_parts(t, shards, err);
    fst_pool_run(t->pool, shard_job, t, shards);
    return fst__trainer_failure(t, shards, err);
}

/* A failed step leaves the running statistics as they were. */
static void put_back(fst_trainer *t)
{
    if (!t->meets)
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
    for (int c = 0; in->class_weight && c < t->classes; c++)
        if (!(in->class_weight[c] >= 0 && isfinite(in->class_weight[c])))
            return fst_fail(err, FST_E_ARGUMENT, "the weight of class %d is %g, not a finite number >= 0", c,
                            in->class_weight[c]);
    if (in->prox_mu > 0 && !in->anchor)
        return fst_fail(err, FST_E_ARGUMENT, "a proximal term needs an anchor");
    for (size_t r = 0; in->labels && r < in->rows; r++)
        if (in->labels[r] < 0 || in->labels[r] >= t->classes)
            return fst_fail(err, FST_E_MISMATCH, "row %zu has label %d, the model's classes are 0 to %d", r,
                            (int)in->labels[r], t->classes - 1);
    return FST_OK;
}

/*
 * The cross entropy is divided by the sum of the rows' weights, the distillation by their number, and the shards know
 * neither. Weights over their mean in the batch make one divisor of the two: sum(w/mean ce)/rows = sum(w ce)/sum(w).
 */
static void weigh(fst_trainer *t, const fst_step_input *in)
{
    double sum = 0;
    for (size_t r = 0; r < in->rows; r++)
        sum += in->class_weight[in->labels[r]];
    for (int c = 0; c < t->classes; c++)
        t->weight[c] = sum > 0 ? in->class_weight[c] / sum * (double)in->rows : 0;
}

static fst_status check_features(const fst_trainer *t, const fst_step_input *in, fst_error *err)
{
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < in->feature_count; i++) {
        const fst_feature_loss *f = &in->features[i];
        if (f->tap >= fst_graph_taps(t->graph) || !f->target)
            return fst_fail(err, FST_E_ARGUMENT, "feature loss %zu: there is no tap %zu, or no target", i, f->tap);
        fst_tap tap = fst_graph_tap(t->graph, f->tap);
        s = fst_feature_check(f->form, &tap.shape, &f->target_shape, err);
    }
    if (!s && in->want_temperature_grad && !(in->loss.soft_logits && in->loss.kd_form == FST_KD_KL))
        return fst_fail(err, FST_E_ARGUMENT, "the temperature has a gradient only of kl, with logits as soft labels");
    return s;
}

/* The passes of a step, or its second half, and what it comes to. */
static fst_status run_passes(fst_trainer *t, size_t shards, fst_step_result *r, fst_error *err)
{
    const fst_step_input *in = t->in;
    fst_status s = run_shards(t, shards, err);
    *r = (fst_step_result){0};
    for (size_t i = 0; !s && i < in->rows; i++)
        r->loss_sum += t->row_loss[i];
    for (size_t i = 0; !s && i < shards; i++)
        r->correct += t->correct[i];
    for (size_t i = 0; !s && in->want_temperature_grad && i < in->rows; i++)
        r->temperature_grad += in->loss.kd_weight * t->row_slope[i] / (double)in->rows;
    if (!s && !isfinite(r->loss_sum))
        s = fst_fail(err, FST_E_NUMERIC, "the loss is not a finite number (%g)", r->loss_sum / (double)in->rows);
    return s;
}

/* Plans compute with the state, or with its weights rounded; the second half of a step with what the first one did. */
static void bind(fst_trainer *t, fst_state *state)
{
    float *params = t->rounded.params;
    t->state = t->bound = state;
    if (!params)
        return;
    if (t->half != FINISH)
        fst__graph_round_weights(t->graph, state->params, params);
    t->rounded = *state;
    t->rounded.params = params;
    t->bound = &t->rounded;
}

static fst_status take_step(fst_trainer *t, fst_state *state, fst_optim *optim, const fst_step_input *in,
                            fst_step_result *out, fst_error *err)
{
    fst_status s = check_input(t, in, err);
    if (!s)
        s = check_features(t, in, err);
    if (s)
        return s;
    size_t shards = (in->rows + t->shard - 1) / t->shard;
    fst_step_result r;
    bind(t, state);
    t->in = in;
    if (in->class_weight && in->labels)
        weigh(t, in);
    s = run_passes(t, shards, &r, err);
    if (s) {
        put_back(t);
        return s;
    }
    fst_optim_input oi = {.grads = t->grads,
                          .parts = t->windowed ? 1 : shards,
                          .learning_rate = in->learning_rate,
                          .prox_mu = in->prox_mu,
                          .anchor = in->anchor,
                          .shift = in->shift};
    const struct fst_forms forms = {t->forms, t->nforms, shards * t->shard, t->grads[0]};
    r.grad_norm = fst__optim_step(optim, state->params, &oi, &forms, t->pool);
    *out = r;
    return FST_OK;
}

fst_status fst_trainer_step(fst_trainer *t, fst_state *state, fst_optim *optim, const fst_step_input *in,
                            fst_step_result *out, fst_error *err)
{
    t->half = WHOLE;
    return take_step(t, state, optim, in, out, err);
}

fst_status fst_trainer_forward(fst_trainer *t, fst_state *state, const fst_step_input *in, float *logits,
                               fst_error *err)
{
    if (!t->meets || in->rows < 1 || in->rows > t->batch)
        return fst_fail(err, FST_E_ARGUMENT, "half a step needs a trainer made for halves, and 1 to %zu rows",
                        t->batch);
    t->half = FORWARD;
    bind(t, state);
    t->in = in;
    t->answers = logits;
    fst_status s = run_shards(t, (in->rows + t->shard - 1) / t->shard, err);
    if (s)
        put_back(t);
    return s;
}

fst_status fst_trainer_tap(const fst_trainer *t, size_t tap, float *out, fst_error *err)
{
    if (t->half != FORWARD || tap >= fst_graph_taps(t->graph))
        return fst_fail(err, FST_E_ARGUMENT, "taps are read between the halves of a step; there are %zu",
                        fst_graph_taps(t->graph));
    fst_tap p = fst_graph_tap(t->graph, tap);
    for (size_t i = 0, first = 0; first < t->in->rows; i++, first += t->shard)
        copy_rows(out + first * p.count, p.count, fst__plan_output(t->plans[i]) + p.at, t->width, (size_t)t->rows[i],
                  p.count);
    return FST_OK;
}

fst_status fst_trainer_finish(fst_trainer *t, fst_optim *optim, const fst_step_input *in, fst_step_result *out,
                              fst_error *err)
{
    if (t->half != FORWARD)
        return fst_fail(err, FST_E_ARGUMENT, "the second half of a step comes after the first");
    t->half = FINISH;
    return take_step(t, t->state, optim, in, out, err);
}

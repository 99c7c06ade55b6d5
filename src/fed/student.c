/* A server's own model on public samples: rows of a round -> positions in the source -> batches and their targets ->
 * steps of Adam. The random order of the batches is a stream of the round. */
#include <math.h>
#include <string.h>

#include "student.h"

enum { BATCH = 32, INFER_BATCH = 256 };
#define RATE 0.001

static fst_status make_loaders(struct fst__student *s, const char *stream, fst_error *err)
{
    const fst_public *pub = s->env->pub;
    fst_rng seed;
    fst_rng_init(&seed, s->env->seed, stream, 1);
    fst_loader_spec all = {.source = pub->source,
                           .subset = s->index,
                           .subset_count = s->rows,
                           .batch_size = INFER_BATCH,
                           .transform = pub->transform};
    fst_loader_spec learning = all;
    learning.batch_size = s->batch;
    learning.shuffle = true;
    learning.seed = fst_rng_u64(&seed);
    fst_status st = fst_loader_new(&s->all, &all, err);
    return st ? st : fst_loader_new(&s->learning, &learning, err);
}

static fst_status make_networks(struct fst__student *s, const char *stream, fst_error *err)
{
    const fst_optim_spec adam = {.kind = FST_OPTIM_ADAM, .learning_rate = RATE};
    const fst_graph *g = s->env->graph;
    fst_trainer_options train = s->env->compute, infer = train;
    fst_rng seed;
    train.batch_size = s->batch;
    infer.batch_size = INFER_BATCH;
    train.shard_size = infer.shard_size = 0;
    fst_status st = fst_trainer_new(&s->trainer, g, &train, err);
    if (!st)
        st = fst_runner_new(&s->runner, g, &infer, err);
    if (!st)
        st = fst_optim_init(&s->optim, &adam, fst_graph_param_count(g), err);
    s->has_optim = !st;
    if (!st)
        st = fst_fed_state_init(&s->model, fst_graph_fed_size(g), err);
    if (!st)
        st = fst_fed_state_init(&s->before, fst_graph_fed_size(g), err);
    if (st)
        return st;
    fst_state nn = fst__nn_state(&s->model);
    fst_rng_init(&seed, s->env->seed, stream, 0);
    fst_state_randomise(&nn, g, fst_rng_u64(&seed));
    return FST_OK;
}

fst_status fst__student_init(struct fst__student *s, const fst_server_env *env, const char *stream, size_t rows,
                             fst_error *err)
{
    *s = (struct fst__student){.env = env, .rows = rows, .classes = (size_t)env->classes};
    if (!env->graph)
        return fst_fail(err, FST_E_ARGUMENT, "a model at the server needs a network");
    s->batch = rows < BATCH ? rows : BATCH;
    s->index = fst_calloc(rows, sizeof *s->index);
    s->row_at = fst_calloc(env->pub->source->count, sizeof *s->row_at);
    s->soft = fst_calloc(s->batch * s->classes, sizeof *s->soft);
    if (!s->index || !s->row_at || !s->soft)
        return fst_fail_memory(err, (rows + env->pub->source->count) * sizeof *s->index);
    fst_status st = make_loaders(s, stream, err);
    return st ? st : make_networks(s, stream, err);
}

void fst__student_release(struct fst__student *s)
{
    fst_free(s->index);
    fst_free(s->row_at);
    fst_free(s->soft);
    fst_loader_free(s->learning);
    fst_loader_free(s->all);
    fst_trainer_free(s->trainer);
    fst_runner_free(s->runner);
    if (s->has_optim)
        fst_optim_release(&s->optim);
    fst_fed_state_release(&s->model);
    fst_fed_state_release(&s->before);
    *s = (struct fst__student){0};
}

static fst_status step(struct fst__student *s, const fst_batch *b, const float *target, uint64_t round, uint64_t number,
                       uint64_t steps, fst_error *err)
{
    const fst_schedule cosine = {.kind = FST_SCHEDULE_COSINE, .total = (int64_t)steps};
    fst_state nn = fst__nn_state(&s->model);
    fst_step_result r;
    for (size_t i = 0; i < b->rows; i++)
        memcpy(s->soft + i * s->classes, target + s->row_at[b->index[i]] * s->classes, s->classes * sizeof *s->soft);
    const fst_step_input in = {.rows = b->rows,
                               .x = b->x,
                               .soft = s->soft,
                               .loss = fst__fit_probabilities,
                               .learning_rate = fst_schedule_rate(&cosine, RATE, (int64_t)number),
                               .seed = s->env->seed ^ round,
                               .step = number};
    return fst_trainer_step(s->trainer, &nn, &s->optim, &in, &r, err);
}

static fst_status learn(struct fst__student *s, uint64_t round, const uint32_t *row, const float *target,
                        int64_t epochs, const fst_work *work, fst_error *err)
{
    const fst_public *pub = s->env->pub;
    uint64_t steps = (uint64_t)epochs * ((s->rows + s->batch - 1) / s->batch), done = 0;
    fst_status st = FST_OK;
    for (size_t i = 0; i < s->rows; i++) {
        s->index[i] = pub->index[row[i]];
        s->row_at[s->index[i]] = (uint32_t)i;
    }
    fst_optim_reset(&s->optim);
    for (int64_t e = 0; !st && e < epochs; e++) {
        st = fst_loader_start(s->learning, round << 32 | (uint64_t)e, 0, err);
        for (fst_batch b = {.rows = 1}; !st && b.rows;) {
            if (fst_work_stopped(work))
                return fst_fail(err, FST_E_CANCELLED, "stopped");
            st = fst_loader_next(s->learning, &b, err);
            if (!st && b.rows)
                st = step(s, &b, target, round, done++, steps, err);
            if (!st && b.rows && work && work->progress)
                work->progress(work->ctx, done, steps);
        }
    }
    return st;
}

static fst_status say(struct fst__student *s, float *p, fst_error *err)
{
    fst_state nn = fst__nn_state(&s->model);
    size_t at = 0;
    fst_status st = fst_loader_start(s->all, 0, 0, err);
    for (fst_batch b = {.rows = 1}; !st && b.rows; at += st ? 0 : b.rows) {
        st = fst_loader_next(s->all, &b, err);
        if (!st && b.rows)
            st = fst_runner_logits(s->runner, &nn, b.x, b.rows, p + at * s->classes, err);
    }
    if (st)
        return st;
    fst_softmax(p, s->rows, (int)s->classes, 1, p);
    for (size_t i = 0; i < s->rows * s->classes; i++)
        if (!isfinite(p[i]))
            return fst_fail(err, FST_E_NUMERIC, "it says %g of public sample %zu", (double)p[i], i / s->classes);
    return FST_OK;
}

fst_status fst__student_round(struct fst__student *s, uint64_t round, const uint32_t *row, float *p, int64_t epochs,
                              const fst_work *work, fst_error *err)
{
    fst_fed_view now = fst_fed_state_view(&s->model), before = fst_fed_state_view(&s->before);
    fst_fed_state_copy(&s->before, &now);
    fst_status st = learn(s, round, row, p, epochs, work, err);
    if (!st)
        st = say(s, p, err);
    if (!st)
        return FST_OK;
    fst_fed_state_copy(&s->model, &before);
    return fst_fail_in(err, st, "the model at the server");
}

fst_status fst__student_save(const struct fst__student *s, fst_buf *out, fst_error *err)
{
    const fst_fed_state *m = &s->model;
    fst_status st = fst_buf_append(out, m->params, m->size.params * sizeof *m->params, err);
    if (!st)
        st = fst_buf_append(out, m->buffers, m->size.buffers * sizeof *m->buffers, err);
    return st ? st : fst_buf_append(out, m->counters, m->size.counters * sizeof *m->counters, err);
}

fst_status fst__student_load(struct fst__student *s, const void *data, fst_error *err)
{
    const char *p = data;
    fst_fed_state *m = &s->before; /* room until it is checked */
    size_t params = m->size.params * sizeof *m->params, buffers = m->size.buffers * sizeof *m->buffers;
    memcpy(m->params, p, params);
    memcpy(m->buffers, p + params, buffers);
    memcpy(m->counters, p + params + buffers, m->size.counters * sizeof *m->counters);
    if (fst_accumulator_check(m->params, m->size.params, err) ||
        fst_accumulator_check(m->buffers, m->size.buffers, err))
        return fst_fail_in(err, FST_E_FORMAT, "the saved model of the server");
    fst_fed_view v = fst_fed_state_view(m);
    fst_fed_state_copy(&s->model, &v);
    return FST_OK;
}

/* Rows of a round -> positions in the source -> batches and their targets -> steps of Adam. The random order of the
 * batches is a stream of the round; nothing is kept from one training to the next. */
#include <string.h>

#include "distiller.h"

enum { INFER_BATCH = 256 };

/* They look at `index` when they are started, so what a round draws goes there. */
static fst_status make_loaders(struct fst__distiller *d, fst_error *err)
{
    const fst_public *pub = d->env->pub;
    fst_loader_spec all = {.source = pub->source,
                           .subset = d->index,
                           .subset_count = d->spec.rows,
                           .batch_size = INFER_BATCH,
                           .transform = pub->transform};
    fst_loader_spec checking = all, learning = all;
    checking.subset_count = d->spec.apart;
    learning.subset += d->spec.apart;
    learning.subset_count -= d->spec.apart;
    learning.batch_size = d->spec.batch;
    learning.shuffle = true;
    learning.seed = d->spec.seed;
    fst_status st = fst_loader_new(&d->all, &all, err);
    if (!st)
        st = fst_loader_new(&d->learning, &learning, err);
    return st || !d->spec.apart ? st : fst_loader_new(&d->checking, &checking, err);
}

static fst_status make_networks(struct fst__distiller *d, fst_error *err)
{
    fst_trainer_options train = d->env->compute, infer = train;
    const fst_optim_spec adam = {.kind = FST_OPTIM_ADAM, .learning_rate = d->spec.rate};
    train.batch_size = d->spec.batch;
    infer.batch_size = INFER_BATCH;
    train.shard_size = infer.shard_size = 0;
    fst_status st = fst_trainer_new(&d->trainer, d->env->graph, &train, err);
    if (!st)
        st = fst_runner_new(&d->runner, d->env->graph, &infer, err);
    if (!st)
        st = fst_optim_init(&d->optim, &adam, fst_graph_param_count(d->env->graph), err);
    d->has_optim = !st;
    return st;
}

fst_status fst__distiller_init(struct fst__distiller *d, const fst_server_env *env,
                               const struct fst__distiller_spec *spec, fst_error *err)
{
    size_t positions = env->pub->source->count, learnt = spec->rows - spec->apart;
    *d = (struct fst__distiller){.env = env, .spec = *spec, .classes = (size_t)env->classes};
    if (!env->graph || env->classes < 1)
        return fst_fail(err, FST_E_ARGUMENT, "a model at the server needs a network and classes");
    d->spec.batch = spec->batch < learnt ? spec->batch : learnt;
    d->index = fst_calloc(spec->rows, sizeof *d->index);
    d->row_at = fst_calloc(positions, sizeof *d->row_at);
    d->soft = fst_calloc(d->spec.batch * d->classes, sizeof *d->soft);
    if (!d->index || !d->row_at || !d->soft)
        return fst_fail_memory(err, (spec->rows + positions) * sizeof *d->index);
    fst_status st = make_loaders(d, err);
    return st ? st : make_networks(d, err);
}

void fst__distiller_release(struct fst__distiller *d)
{
    fst_free(d->index);
    fst_free(d->row_at);
    fst_free(d->soft);
    fst_loader_free(d->all);
    fst_loader_free(d->learning);
    fst_loader_free(d->checking);
    fst_trainer_free(d->trainer);
    fst_runner_free(d->runner);
    if (d->has_optim)
        fst_optim_release(&d->optim);
    *d = (struct fst__distiller){0};
}

void fst__distiller_draw(struct fst__distiller *d, const uint32_t *row)
{
    for (size_t i = 0; i < d->spec.rows; i++) {
        d->index[i] = d->env->pub->index[row[i]];
        d->row_at[d->index[i]] = (uint32_t)i;
    }
}

fst_status fst__distiller_begin(struct fst__distiller *d, uint64_t round, uint64_t steps, fst_error *err)
{
    d->round = round;
    d->epoch = round << 32;
    d->done = 0;
    d->steps = steps;
    fst_optim_reset(&d->optim);
    return fst_loader_start(d->learning, d->epoch, 0, err);
}

static fst_status next_batch(struct fst__distiller *d, fst_batch *b, fst_error *err)
{
    fst_status st = fst_loader_next(d->learning, b, err);
    if (st || b->rows)
        return st;
    st = fst_loader_start(d->learning, ++d->epoch, 0, err);
    return st ? st : fst_loader_next(d->learning, b, err);
}

fst_status fst__distiller_step(struct fst__distiller *d, fst_fed_state *model, const float *target,
                               const fst_work *work, fst_error *err)
{
    const fst_schedule cosine = {.kind = FST_SCHEDULE_COSINE, .total = (int64_t)d->steps};
    fst_state nn = fst__nn_state(model);
    fst_step_result r;
    fst_batch b;
    if (fst_work_stopped(work))
        return fst_fail(err, FST_E_CANCELLED, "stopped");
    fst_status st = next_batch(d, &b, err);
    if (st)
        return st;
    for (size_t i = 0; i < b.rows; i++)
        memcpy(d->soft + i * d->classes, target + d->row_at[b.index[i]] * d->classes, d->classes * sizeof *d->soft);
    const fst_step_input in = {.rows = b.rows,
                               .x = b.x,
                               .soft = d->soft,
                               .loss = {.kd_weight = 1, .temperature = 1, .kd_form = d->spec.form},
                               .learning_rate = fst_schedule_rate(&cosine, d->spec.rate, (int64_t)d->done),
                               .seed = d->env->seed ^ d->round,
                               .step = d->done};
    st = fst_trainer_step(d->trainer, &nn, &d->optim, &in, &r, err);
    d->done += !st;
    if (!st && work && work->progress)
        work->progress(work->ctx, d->done, d->steps);
    return st;
}

fst_status fst__distiller_logits(struct fst__distiller *d, bool apart, const fst_fed_state *model, float *logits,
                                 fst_error *err)
{
    fst_loader *loader = apart ? d->checking : d->all;
    fst_state nn = fst__nn_state(model);
    size_t at = 0;
    fst_status st = fst_loader_start(loader, 0, 0, err);
    for (fst_batch b = {.rows = 1}; !st && b.rows; at += st ? 0 : b.rows) {
        st = fst_loader_next(loader, &b, err);
        if (!st && b.rows)
            st = fst_runner_logits(d->runner, &nn, b.x, b.rows, logits + at * d->classes, err);
    }
    return st;
}

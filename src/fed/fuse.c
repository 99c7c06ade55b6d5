/*
 * MergeNet at the server: when it fuses, what it learns from, running statistics. The arithmetic of a fusion is
 * distill's.
 *
 * Data flow of a round: average -> what the last fusion became -> steps of the adapter; average's matrix -> `before` ->
 * with public samples: copies of the average, fused, a step each -> steps of the adapter; -> fused matrix -> shared
 * model -> running statistics.
 */
#include <math.h>
#include <string.h>

#include "fed_private.h"
#include "fedstill/fuse.h"

enum { STATISTICS_BATCHES = 64 };

struct fst_fuser {
    fst_fuser_spec spec;
    fst_server_env env;
    fst_after after;
    fst_fusion *fusion;
    fst_param_info target;
    float *before, *fused; /* the matrix before and after the last fusion */
    bool open;       /* the last average was fused: the two hold something, and the next one says what became of it */
    bool statistics; /* the network has running statistics */
    fst_fed_state copy; /* of the shared model, for steps on public samples */
    fst_trainer *trainer;
    fst_loader *loader;
    fst_optim optim;
    float *answers; /* batch x classes */
    double *sums;   /* buffers */
    fst_fuser_report last;
};

/* ---- setting up ---- */

static bool has_statistics(const fst_graph *g)
{
    for (size_t i = 0; i < fst_graph_buffers(g); i++)
        if (fst_graph_buffer_momentum(g, i) > 0)
            return true;
    return false;
}

static fst_status make_proxy(struct fst_fuser *f, fst_error *err)
{
    const fst_public *pub = f->env.pub;
    const fst_optim_spec sgd = {.kind = FST_OPTIM_SGD, .learning_rate = f->spec.proxy_learning_rate};
    size_t batch = f->spec.proxy_batch_size < pub->count ? f->spec.proxy_batch_size : pub->count;
    fst_trainer_options o = f->env.compute;
    fst_rng seed;
    fst_rng_init(&seed, f->env.seed, "fusion.batches", 0);
    const fst_loader_spec spec = {.source = pub->source,
                                  .subset = pub->index,
                                  .subset_count = pub->count,
                                  .batch_size = batch,
                                  .transform = pub->transform,
                                  .shuffle = true,
                                  .drop_last = true,
                                  .seed = fst_rng_u64(&seed)};
    o.batch_size = batch;
    o.shard_size = 0;
    o.halves = true;
    fst_status st = fst_fed_state_init(&f->copy, f->env.global->size, err);
    if (!st)
        st = fst_trainer_new(&f->trainer, f->env.graph, &o, err);
    if (!st)
        st = fst_loader_new(&f->loader, &spec, err);
    if (!st)
        st = fst_optim_init(&f->optim, &sgd, f->env.global->size.params, err);
    f->answers = fst_calloc(batch * (size_t)f->env.classes, sizeof *f->answers);
    f->sums = fst_calloc(f->env.global->size.buffers + 1, sizeof *f->sums);
    return st || (f->answers && f->sums) ? st : fst_fail_memory(err, batch * sizeof *f->answers);
}

static fst_status check_spec(const fst_fuser_spec *o, const fst_server_env *env, fst_error *err)
{
    if (!env->graph || !env->global || env->classes < 1)
        return fst_fail(err, FST_E_ARGUMENT, "a fusion needs a shared model and its network");
    if (o->start_round < 1 || o->every < 1 || o->steps < 1 || !(o->learning_rate > 0))
        return fst_fail(err, FST_E_CONFIG,
                        "a fusion's first round, distance of rounds, steps and learning rate are above 0");
    if (o->proxy && (!env->pub || env->pub->count < 2))
        return fst_fail(err, FST_E_CONFIG, "a fusion that learns from public samples needs at least two of them");
    if (o->proxy && (o->proxy_batch_size < 2 || !(o->proxy_learning_rate > 0)))
        return fst_fail(err, FST_E_CONFIG, "steps on public samples need batches of 2 at least and a learning rate");
    return FST_OK;
}

static fst_status find_both(const fst_fuser_spec *o, const fst_graph *graph, const fst_graph *teacher,
                            fst_param_info *target, fst_param_info *source, fst_error *err)
{
    fst_status st = fst_fusion_find(graph, o->target, target, err);
    if (st)
        return fst_fail_in(err, st, "target");
    st = fst_fusion_find(teacher, o->source, source, err);
    return st ? fst_fail_in(err, st, "source") : FST_OK;
}

static fst_status after_run(void *ctx, uint64_t round, fst_fed_state *global, const fst_work *work, fst_error *err);
static fst_status after_save(const void *ctx, fst_buf *out, fst_error *err);
static fst_status after_load(void *ctx, const void *data, size_t len, fst_error *err);

fst_status fst_fuser_new(fst_fuser **out, const fst_fuser_spec *spec, const fst_server_env *env,
                         const fst_graph *teacher, const float *teacher_params, fst_error *err)
{
    fst_param_info source;
    fst_status st = check_spec(spec, env, err);
    fst_fuser *f = st ? NULL : fst_calloc(1, sizeof *f);
    if (st || !f)
        return st ? st : fst_fail_memory(err, sizeof *f);
    f->spec = *spec;
    f->env = *env;
    f->spec.fusion.seed = env->seed;
    f->spec.fusion.backend = env->compute.backend;
    f->after = (fst_after){f, after_run, after_save, after_load};
    f->statistics = has_statistics(env->graph);
    st = find_both(spec, env->graph, teacher, &f->target, &source, err);
    if (!st)
        st = fst_fusion_new(&f->fusion, &f->spec.fusion, &f->target, &source, err);
    if (!st)
        st = fst_fusion_source(f->fusion, teacher_params + source.offset, err);
    f->before = st ? NULL : fst_calloc(f->target.count, sizeof *f->before);
    f->fused = st ? NULL : fst_calloc(f->target.count, sizeof *f->fused);
    if (!st && !(f->before && f->fused))
        st = fst_fail_memory(err, 2 * f->target.count * sizeof *f->before);
    if (!st && spec->proxy)
        st = make_proxy(f, err);
    if (st)
        fst_fuser_free(f);
    else
        *out = f;
    return st;
}

void fst_fuser_free(fst_fuser *f)
{
    if (!f)
        return;
    fst_fusion_free(f->fusion);
    fst_trainer_free(f->trainer);
    fst_loader_free(f->loader);
    fst_optim_release(&f->optim);
    fst_fed_state_release(&f->copy);
    fst_free(f->before);
    fst_free(f->fused);
    fst_free(f->answers);
    fst_free(f->sums);
    fst_free(f);
}

const fst_after *fst_fuser_after(const fst_fuser *f)
{
    return &f->after;
}

const fst_fuser_report *fst_fuser_last(const fst_fuser *f)
{
    return &f->last;
}

double fst_fuser_gate(const fst_fuser *f)
{
    return fst_fusion_gate(f->fusion);
}

fst_status fst_fuser_measure(const fst_fuser_spec *spec, const fst_graph *graph, const fst_graph *teacher,
                             fst_fusion_size *out, fst_error *err)
{
    fst_param_info target, source;
    fst_fed_size size = fst_graph_fed_size(graph);
    fst_status st = find_both(spec, graph, teacher, &target, &source, err);
    if (!st)
        st = fst_fusion_measure(&spec->fusion, &target, &source, out, err);
    if (st)
        return st;
    size_t adapter = 3 * (out->parameters + 1); /* what a failed round is put back from */
    out->bytes += 4 * (adapter + 2 * target.count) + (size_t)fst_fed_size_bytes(size);
    if (spec->proxy)
        out->bytes += (size_t)fst_fed_size_bytes(size);
    return FST_OK;
}

/* ---- a round ---- */

static fst_status next_batch(struct fst_fuser *f, uint64_t *epoch, fst_batch *b, fst_error *err)
{
    fst_status st = fst_loader_next(f->loader, b, err);
    if (st || b->rows)
        return st;
    st = fst_loader_start(f->loader, ++*epoch, 0, err);
    return st ? st : fst_loader_next(f->loader, b, err);
}

static double rate_of(const struct fst_fuser *f, uint64_t round)
{
    const fst_schedule cosine = {.kind = FST_SCHEDULE_COSINE, .total = (int64_t)f->spec.rounds};
    return f->spec.rounds ? fst_schedule_rate(&cosine, f->spec.learning_rate, (int64_t)round) : f->spec.learning_rate;
}

static void add_step(struct fst_fuser *f, const fst_fusion_step *s)
{
    f->last.learnt = true;
    f->last.loss += s->loss / (double)f->spec.steps;
    f->last.grad_norm += s->grad_norm / (double)f->spec.steps;
}

/* What the clients made of the last fusion. */
static fst_status learn_from_average(struct fst_fuser *f, uint64_t round, const fst_fed_state *global,
                                     const fst_work *work, fst_error *err)
{
    fst_status st = FST_OK;
    for (uint64_t i = 0; !st && i < f->spec.steps; i++) {
        fst_fusion_step s;
        if (fst_work_stopped(work))
            return fst_fail(err, FST_E_CANCELLED, "stopped");
        st = fst_fusion_learn(f->fusion, f->before, global->params + f->target.offset, rate_of(f, round), &s, err);
        if (!st)
            add_step(f, &s);
    }
    return st;
}

static fst_status proxy_step(struct fst_fuser *f, uint64_t round, uint64_t number, const fst_batch *b, fst_error *err)
{
    fst_state nn = fst__nn_state(&f->copy);
    fst_step_result r;
    const fst_step_input in = {.rows = b->rows,
                               .x = b->x,
                               .labels = b->labels,
                               .loss = FST_LOSS_CROSS_ENTROPY,
                               .learning_rate = f->spec.proxy_learning_rate,
                               .seed = f->env.seed ^ round,
                               .step = number};
    fst_optim_reset(&f->optim);
    return fst_trainer_step(f->trainer, &nn, &f->optim, &in, &r, err);
}

/* The server's own steps: from the average each, none of which is kept. */
static fst_status learn_from_public(struct fst_fuser *f, uint64_t round, const fst_fed_state *global,
                                    const fst_work *work, fst_error *err)
{
    fst_fed_view average = fst_fed_state_view(global);
    float *theta = f->copy.params + f->target.offset;
    uint64_t epoch = round << 32;
    fst_status st = fst_loader_start(f->loader, epoch, 0, err);
    for (uint64_t i = 0; !st && i < f->spec.steps; i++) {
        fst_batch b;
        fst_fusion_step s;
        if (fst_work_stopped(work))
            return fst_fail(err, FST_E_CANCELLED, "stopped");
        fst_fed_state_copy(&f->copy, &average);
        st = fst_fusion_fuse(f->fusion, f->before, theta, err);
        if (!st)
            st = next_batch(f, &epoch, &b, err);
        if (!st)
            st = proxy_step(f, round, i, &b, err);
        if (!st)
            st = fst_fusion_learn(f->fusion, f->before, theta, rate_of(f, round), &s, err);
        if (!st)
            add_step(f, &s);
        if (!st && work && work->progress)
            work->progress(work->ctx, i + 1, f->spec.steps);
    }
    return st;
}

/* Running statistics of a batch alone, added up: they begin at 0 and take momentum times the batch's. */
static fst_status one_batch(struct fst_fuser *f, const fst_batch *b, uint64_t number, fst_error *err)
{
    const fst_graph *g = f->env.graph;
    fst_state nn = fst__nn_state(&f->copy);
    const fst_step_input in = {.rows = b->rows,
                               .x = b->x,
                               .labels = b->labels,
                               .loss = FST_LOSS_CROSS_ENTROPY,
                               .seed = f->env.seed,
                               .step = number};
    for (size_t i = 0; i < fst_graph_buffers(g); i++)
        if (fst_graph_buffer_momentum(g, i) > 0)
            memset(f->copy.buffers + fst_graph_buffer(g, i).offset, 0, fst_graph_buffer(g, i).count * sizeof(float));
    fst_status st = fst_trainer_forward(f->trainer, &nn, &in, f->answers, err);
    for (size_t i = 0; !st && i < fst_graph_buffers(g); i++) {
        fst_param_info p = fst_graph_buffer(g, i);
        double momentum = fst_graph_buffer_momentum(g, i);
        for (size_t k = 0; momentum > 0 && k < p.count; k++)
            f->sums[p.offset + k] += (double)f->copy.buffers[p.offset + k] / momentum;
    }
    return st;
}

static fst_status renew_statistics(struct fst_fuser *f, uint64_t round, fst_fed_state *global, const fst_work *work,
                                   fst_error *err)
{
    const fst_graph *g = f->env.graph;
    fst_fed_view v = fst_fed_state_view(global);
    size_t batches = fst_loader_batches(f->loader);
    batches = batches < STATISTICS_BATCHES ? batches : STATISTICS_BATCHES;
    memset(f->sums, 0, global->size.buffers * sizeof *f->sums);
    fst_fed_state_copy(&f->copy, &v);
    fst_status st = fst_loader_start(f->loader, round << 32, 0, err);
    for (size_t i = 0; !st && i < batches; i++) {
        fst_batch b;
        if (fst_work_stopped(work))
            return fst_fail(err, FST_E_CANCELLED, "stopped");
        st = fst_loader_next(f->loader, &b, err);
        if (!st)
            st = one_batch(f, &b, i, err);
    }
    for (size_t i = 0; !st && i < fst_graph_buffers(g); i++) {
        fst_param_info p = fst_graph_buffer(g, i);
        for (size_t k = 0; fst_graph_buffer_momentum(g, i) > 0 && k < p.count; k++)
            global->buffers[p.offset + k] = (float)(f->sums[p.offset + k] / (double)batches);
    }
    return st;
}

static double distance(const float *a, const float *b, size_t n)
{
    double far = 0, length = 0;
    for (size_t i = 0; i < n; i++) {
        far += ((double)b[i] - (double)a[i]) * ((double)b[i] - (double)a[i]);
        length += (double)a[i] * (double)a[i];
    }
    return length > 0 ? sqrt(far / length) : 0;
}

static bool fuses(const struct fst_fuser *f, uint64_t round)
{
    return round + 1 >= f->spec.start_round && (round + 1 - f->spec.start_round) % f->spec.every == 0;
}

static fst_status fuse(struct fst_fuser *f, uint64_t round, fst_fed_state *global, const fst_work *work, fst_error *err)
{
    float *theta = global->params + f->target.offset;
    size_t bytes = f->target.count * sizeof *theta;
    fst_status st = FST_OK;
    memcpy(f->before, theta, bytes);
    if (f->spec.proxy && f->spec.fusion.learns != FST_FUSION_NOTHING)
        st = learn_from_public(f, round, global, work, err);
    if (!st)
        st = fst_fusion_fuse(f->fusion, f->before, f->fused, err);
    if (st)
        return st;
    memcpy(theta, f->fused, bytes);
    f->last.fused = f->open = true;
    f->last.moved = distance(f->before, f->fused, f->target.count);
    return f->spec.proxy && f->statistics ? renew_statistics(f, round, global, work, err) : FST_OK;
}

static fst_status after_run(void *ctx, uint64_t round, fst_fed_state *global, const fst_work *work, fst_error *err)
{
    struct fst_fuser *f = ctx;
    double began = fst_clock_seconds();
    bool learns = f->open && !f->spec.proxy && f->spec.fusion.learns != FST_FUSION_NOTHING;
    f->last = (fst_fuser_report){.round = round};
    fst_status st = learns ? learn_from_average(f, round, global, work, err) : FST_OK;
    f->open = false;
    if (!st && fuses(f, round))
        st = fuse(f, round, global, work, err);
    f->last.gate = fst_fuser_gate(f);
    f->last.seconds = fst_clock_seconds() - began;
    return st ? fst_fail_in(err, st, "the fusion") : FST_OK;
}

/* ---- what is sent, and what is shown ---- */

bool fst_fuser_sends_other(const fst_fuser *f)
{
    return f->statistics && !f->spec.proxy;
}

void fst_fuser_show(const fst_fuser *f, float *params, bool plain)
{
    if (f->open && fst_fuser_sends_other(f))
        memcpy(params + f->target.offset, plain ? f->before : f->fused, f->target.count * sizeof *params);
}

/* ---- what lasts: whether the last average was fused, the matrix before and after, the adapter ---- */

static fst_status after_save(const void *ctx, fst_buf *out, fst_error *err)
{
    const struct fst_fuser *f = ctx;
    uint64_t open = f->open;
    size_t bytes = f->target.count * sizeof *f->before, was = out->len;
    fst_status st = fst_buf_append(out, &open, sizeof open, err);
    if (!st)
        st = fst_buf_append(out, f->before, bytes, err);
    if (!st)
        st = fst_buf_append(out, f->fused, bytes, err);
    if (!st)
        st = fst_fusion_save(f->fusion, out, err);
    if (st)
        out->len = was;
    return st;
}

static fst_status after_load(void *ctx, const void *data, size_t len, fst_error *err)
{
    struct fst_fuser *f = ctx;
    const unsigned char *at = data;
    uint64_t open = 2;
    size_t bytes = f->target.count * sizeof *f->before, head = sizeof open + 2 * bytes;
    if (len >= sizeof open)
        memcpy(&open, at, sizeof open);
    if (len < head || open > 1)
        return fst_fail(err, FST_E_FORMAT, "the saved fusion has %zu bytes, more than %zu are needed", len, head);
    for (size_t i = sizeof open; i < head; i += sizeof(float)) {
        float v;
        memcpy(&v, at + i, sizeof v);
        if (!isfinite(v))
            return fst_fail(err, FST_E_FORMAT, "the saved fusion holds a number that is not finite");
    }
    fst_status st = fst_fusion_load(f->fusion, at + head, len - head, err);
    if (st)
        return st;
    f->open = open;
    memcpy(f->before, at + sizeof open, bytes);
    memcpy(f->fused, at + sizeof open + bytes, bytes);
    return FST_OK;
}

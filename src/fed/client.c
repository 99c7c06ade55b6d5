/* One client of a federation: local training, and what a client keeps between rounds. It knows no session and no
 * server; a simulation's worker and a process at a site run this same code.
 *
 * Data flow: fst_client_work reads what the client kept -> the strategy's client half, which calls fst_client_train and
 * fst_client_logits -> a message up, whose tensors are views into the kit of the client's network, and the bytes to
 * keep. What is made once per network (trainer, runner, optimisers, room for a state) is its kit, and stays.
 *
 * A kit has two optimisers. One begins without moments in every job. The other is the client's that is played, where
 * its plan keeps it: its moments come from what the client kept when a job first asks for it, and go there again. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coded.h"

struct moments {
    fst_optim optim;
    fst_optim_spec asked; /* optim.spec has numbers in place of zeroes */
};

struct kit {
    const fst_graph *graph;
    size_t batch;
    fst_trainer *trainer;
    fst_runner *runner;
    struct moments fresh, lasting;
    fst_optim *optim;    /* of the job that runs: one of these */
    fst_fed_state model; /* room: of the client that is played */
    float *soft;         /* batch x classes */
};

struct fst_client {
    fst_client_half *half;
    struct kit **kit;
    size_t kits;
    fst_buf scratch;
    struct fst__coded_client coded;
    const fst_message *had;   /* what the client that is played has kept */
    const fst_optim *lasting; /* of the client that is played; NULL: no job has asked for it in this round */
};

/* ---- kits ---- */

static void free_kit(struct kit *k)
{
    if (!k)
        return;
    fst_trainer_free(k->trainer);
    fst_runner_free(k->runner);
    fst_optim_release(&k->fresh.optim);
    fst_optim_release(&k->lasting.optim);
    fst_fed_state_release(&k->model);
    fst_free(k->soft);
    fst_free(k);
}

static fst_status kit_of(fst_client *c, const fst_graph *graph, struct kit **out, fst_error *err)
{
    for (size_t i = 0; i < c->kits; i++)
        if (c->kit[i]->graph == graph) {
            *out = c->kit[i];
            return FST_OK;
        }
    struct kit **p = fst_realloc(c->kit, c->kits * sizeof *p, (c->kits + 1) * sizeof *p);
    if (!p)
        return fst_fail_memory(err, (c->kits + 1) * sizeof *p);
    c->kit = p;
    struct kit *k = fst_calloc(1, sizeof *k);
    if (!k)
        return fst_fail_memory(err, sizeof *k);
    k->graph = graph;
    fst_status st = fst_fed_state_init(&k->model, fst_graph_fed_size(graph), err);
    if (st) {
        free_kit(k);
        return st;
    }
    c->kit[c->kits++] = *out = k;
    return FST_OK;
}

/* A client is one core's work: one shard of the whole batch. */
fst_trainer_options fst__client_compute(const fst_client_env *env, size_t batch)
{
    fst_trainer_options o = env->plan.compute;
    o.batch_size = o.shard_size = batch;
    o.threads = 1;
    return o;
}

/* ---- moments ---- */

/* As the job says, and fresh. */
static fst_status ready_moments(struct moments *m, const fst_local_job *job, size_t count, fst_error *err)
{
    if (m->optim.count && !memcmp(&m->asked, &job->optim, sizeof job->optim)) {
        fst_optim_reset(&m->optim);
        return FST_OK;
    }
    fst_optim_release(&m->optim);
    m->asked = job->optim;
    return fst_optim_init(&m->optim, &job->optim, count, err);
}

static const char *const moment_names[] = {"optim:moment1", "optim:moment2"};

static fst_status take_moments(fst_optim *o, const fst_message *had, fst_error *err)
{
    const fst_shape shape = FST_SHAPE((int64_t)o->count);
    const void *data[2] = {NULL, NULL}, *steps = NULL;
    float *moment[2] = {o->moment1, o->moment2};
    fst_status st = fst_message_get(had, "optim:steps", FST_U64, FST_SHAPE(1), &steps, err);
    for (int i = 0; !st && i < 2; i++)
        st = moment[i] ? fst_message_get(had, moment_names[i], FST_F32, shape, &data[i], err) : FST_OK;
    if (st)
        return fst_fail_in(err, st, "what it kept");
    memcpy(&o->steps, steps, sizeof o->steps);
    for (int i = 0; i < 2; i++)
        if (data[i])
            memcpy(moment[i], data[i], o->count * sizeof *moment[i]);
    return FST_OK;
}

static fst_status keep_moments(const fst_optim *o, fst_message *m, fst_error *err)
{
    const fst_shape shape = FST_SHAPE((int64_t)o->count);
    const float *moment[2] = {o->moment1, o->moment2};
    fst_status st = fst_message_add(m, "optim:steps", FST_U64, FST_SHAPE(1), &o->steps, err);
    for (int i = 0; !st && i < 2; i++)
        st = moment[i] ? fst_message_add(m, moment_names[i], FST_F32, shape, moment[i], err) : FST_OK;
    return st;
}

static fst_status choose_optim(fst_client *c, struct kit *k, const fst_local_job *job, fst_error *err)
{
    struct moments *m = job->keep_optim ? &k->lasting : &k->fresh;
    k->optim = &m->optim;
    if (c->lasting == k->optim) /* another job of this round went before */
        return FST_OK;
    fst_status st = ready_moments(m, job, k->model.size.params, err);
    if (!st && job->keep_optim && c->had->count)
        st = take_moments(&m->optim, c->had, err);
    if (!st && job->keep_optim)
        c->lasting = &m->optim;
    return st;
}

/* ---- training ---- */

static fst_status ready_to_train(fst_client *c, struct kit *k, const fst_client_env *env, const fst_local_job *job,
                                 fst_error *err)
{
    fst_status st = FST_OK;
    if (!k->trainer || k->batch != job->batch_size) {
        fst_trainer_options o = fst__client_compute(env, job->batch_size);
        fst_trainer_free(k->trainer);
        k->trainer = NULL;
        st = fst_trainer_new(&k->trainer, k->graph, &o, err);
        if (st)
            return st;
        k->batch = job->batch_size;
        fst_free(k->soft);
        k->soft = NULL;
    }
    if (job->soft && !k->soft) {
        size_t n = k->batch * (size_t)fst_shape_count(&(fst_shape[]){fst_graph_output_shape(k->graph)}[0]);
        k->soft = fst_calloc(n, sizeof *k->soft);
        if (!k->soft)
            return fst_fail_memory(err, n * sizeof *k->soft);
    }
    return choose_optim(c, k, job, err);
}

uint64_t fst_client_seed(const fst_client_half *c, const char *purpose)
{
    char name[160];
    fst_rng r;
    snprintf(name, sizeof name, "%s.%s", c->env->stream, purpose);
    fst_rng_init(&r, c->env->seed, name, c->round << 32 | c->env->client);
    return fst_rng_u64(&r);
}

double fst_local_rate(const fst_local_plan *p, uint64_t round)
{
    double rate = p->optim.learning_rate;
    return p->has_schedule ? fst_schedule_rate(&p->schedule, rate, (int64_t)round) : rate;
}

fst_local_job fst_client_job(fst_client_half *c)
{
    const fst_client_env *e = c->env;
    const fst_local_plan *p = &e->plan;
    bool given = p->loss.ce_weight > 0 || p->loss.kd_weight > 0;
    return (fst_local_job){.graph = e->graph,
                           .state = &c->model,
                           .source = e->source,
                           .subset = e->subset,
                           .count = e->count,
                           .transform = e->transform,
                           .augment = e->augment,
                           .drop_last = p->drop_last,
                           .epochs = p->epochs,
                           .steps = p->steps,
                           .batch_size = p->batch_size,
                           .seed = fst_client_seed(c, "client"),
                           .learning_rate = fst_local_rate(p, c->round),
                           .optim = p->optim,
                           .keep_optim = p->keep_optim,
                           .loss = given ? p->loss : FST_LOSS_CROSS_ENTROPY,
                           .class_weight = e->class_weight,
                           .soft = p->soft,
                           .soft_ctx = p->soft_ctx};
}

static fst_status step(struct kit *k, const fst_local_job *job, const fst_batch *b, uint64_t number, fst_step_result *r,
                       fst_error *err)
{
    if (job->take)
        return job->take(job->take_ctx, b, number, r, err);
    fst_state state = fst__nn_state(job->state);
    fst_step_input in = {.rows = b->rows,
                         .x = b->x,
                         .labels = job->without_labels ? NULL : b->labels,
                         .soft = job->soft ? k->soft : NULL,
                         .loss = job->loss,
                         .class_weight = job->class_weight,
                         .learning_rate = job->learning_rate,
                         .prox_mu = job->prox_mu,
                         .anchor = job->anchor,
                         .shift = job->shift,
                         .seed = job->seed,
                         .step = number,
                         .features = job->features,
                         .feature_count = job->feature_count};
    fst_status st = job->before ? job->before(job->before_ctx, b, err) : FST_OK;
    if (!st && job->soft)
        st = job->soft(job->soft_ctx, b, k->soft, err);
    if (!st)
        st = fst_trainer_step(k->trainer, &state, k->optim, &in, r, err);
    return st;
}

struct sums {
    double loss;
    size_t rows, correct;
    uint64_t steps;
};

static bool enough(const struct sums *sum, const fst_local_job *job, int64_t epoch)
{
    return job->steps > 0 ? sum->steps >= (uint64_t)job->steps : epoch >= job->epochs;
}

static fst_status epoch(const fst_client_half *c, struct kit *k, const fst_local_job *job, fst_loader *loader,
                        int64_t e, struct sums *sum, fst_error *err)
{
    uint64_t before = sum->steps;
    fst_status st = fst_loader_start(loader, (uint64_t)e, 0, err);
    for (fst_batch b = {.rows = 1}; !st && b.rows && !(job->steps > 0 && enough(sum, job, e));) {
        fst_step_result r = {0};
        if (fst_work_stopped(c->env->work))
            st = fst_fail(err, FST_E_CANCELLED, "stopped");
        if (!st)
            st = fst_loader_next(loader, &b, err);
        if (!st && b.rows) {
            st = step(k, job, &b, sum->steps, &r, err);
            if (st)
                st =
                    fst_fail_in(err, st, "epoch %lld, step %llu", (long long)e + 1, (unsigned long long)sum->steps + 1);
            sum->steps += !st;
        }
        sum->loss += r.loss_sum;
        sum->correct += r.correct;
        sum->rows += st ? 0 : b.rows;
    }
    if (!st && job->steps > 0 && sum->steps == before)
        st = fst_fail(err, FST_E_CONFIG, "there is no batch of %zu samples to take a step on", job->batch_size);
    return st;
}

fst_status fst_client_train(fst_client_half *c, const fst_local_job *job, fst_local_result *result, fst_error *err)
{
    struct kit *k = NULL;
    struct sums sum = {0};
    fst_loader *loader = NULL;
    fst_loader_spec ls = {.source = job->source,
                          .subset = job->subset,
                          .subset_count = job->count,
                          .batch_size = job->batch_size,
                          .transform = job->transform,
                          .augment = job->augment,
                          .shuffle = true,
                          .drop_last = job->drop_last,
                          .seed = job->seed};
    fst_status st = job->take ? FST_OK : kit_of(c->lender, job->graph, &k, err);
    if (!st && !job->take)
        st = ready_to_train(c->lender, k, c->env, job, err);
    if (!st)
        st = fst_loader_new(&loader, &ls, err);
    for (int64_t e = 0; !st && !enough(&sum, job, e); e++)
        st = epoch(c, k, job, loader, e, &sum, err);
    fst_loader_free(loader);
    if (st)
        return st;
    double rows = (double)sum.rows;
    *result = (fst_local_result){.rows = sum.rows,
                                 .steps = sum.steps,
                                 .loss = sum.loss / rows,
                                 .accuracy = job->without_labels ? NAN : (double)sum.correct / rows};
    return FST_OK;
}

/* ---- inference ---- */

enum { LOGITS_BATCH = 256 };

static fst_status ready_to_infer(const fst_client_half *c, struct kit *k, fst_error *err)
{
    fst_trainer_options o = fst__client_compute(c->env, LOGITS_BATCH);
    o.shard_size = 0;
    return k->runner ? FST_OK : fst_runner_new(&k->runner, k->graph, &o, err);
}

fst_status fst_client_batch_logits(fst_client_half *c, const fst_graph *graph, const fst_fed_state *state,
                                   const float *x, size_t rows, float *logits, fst_error *err)
{
    struct kit *k = NULL;
    fst_state nn = fst__nn_state(state);
    fst_status st = kit_of(c->lender, graph, &k, err);
    if (!st)
        st = ready_to_infer(c, k, err);
    return st ? st : fst_runner_logits(k->runner, &nn, x, rows, logits, err);
}

fst_status fst_client_logits(fst_client_half *c, const fst_graph *graph, const fst_fed_state *state,
                             const fst_source *source, const uint32_t *subset, size_t count,
                             const fst_transform *transform, float *logits, fst_error *err)
{
    struct kit *k = NULL;
    fst_loader *loader = NULL;
    fst_shape out = fst_graph_output_shape(graph);
    size_t classes = (size_t)fst_shape_count(&out), at = 0;
    fst_state nn = fst__nn_state(state);
    fst_loader_spec ls = {
        .source = source, .subset = subset, .subset_count = count, .batch_size = LOGITS_BATCH, .transform = *transform};
    fst_status st = kit_of(c->lender, graph, &k, err);
    if (!st)
        st = ready_to_infer(c, k, err);
    if (!st)
        st = fst_loader_new(&loader, &ls, err);
    if (!st)
        st = fst_loader_start(loader, 0, 0, err);
    for (fst_batch b = {.rows = 1}; !st && b.rows; at += st ? 0 : b.rows) {
        if (fst_work_stopped(c->env->work))
            st = fst_fail(err, FST_E_CANCELLED, "stopped");
        if (!st)
            st = fst_loader_next(loader, &b, err);
        if (!st && b.rows)
            st = fst_runner_logits(k->runner, &nn, b.x, b.rows, logits + at * classes, err);
    }
    fst_loader_free(loader);
    return st;
}

/* ---- a round ---- */

/* The model and the strategy's part of what the client kept. */
static fst_status remember(fst_client_half *h, const void *kept, size_t len, fst_message *out, fst_error *err)
{
    const fst_client_ops *ops = h->ops->client;
    bool own = h->ops->flags & FST_OWN_MODEL;
    fst_message m = {.count = 0};
    fst_fed_view v;
    fst_status st = len ? fst_message_parse(&m, kept, len, err) : FST_OK;
    if (!st && len && own)
        st = fst_message_state(&m, h->model.size, &v, err);
    if (!st && len && own)
        fst_fed_state_copy(&h->model, &v);
    if (!st && !len && own && h->env->initial) {
        if (!fst_fed_size_equal(h->env->initial->size, h->model.size))
            return fst_fail(err, FST_E_MISMATCH, "the first model is of another network");
        fst_fed_state_copy(&h->model, h->env->initial);
    }
    if (!st && ops->load) {
        const fst_message_tensor *t = fst_message_find(&m, "strategy");
        st = ops->load(h, t ? t->data : NULL, t ? (size_t)fst_shape_count(&t->shape) : 0, err);
    }
    *out = m;
    return st ? fst_fail_in(err, st, "what it kept") : FST_OK;
}

static fst_status keep_for_later(fst_client *c, fst_buf *keep, fst_error *err)
{
    fst_client_half *h = c->half;
    const fst_client_ops *ops = h->ops->client;
    fst_message m = fst_message_of("kept");
    fst_fed_view v = fst_fed_state_view(&h->model);
    fst_status st = FST_OK;
    if (!fst_strategy_keeps(h->ops) && !fst_codecs_keep(&h->env->codecs) && !h->env->plan.keep_optim)
        return FST_OK;
    m.client = h->env->client;
    m.round = m.base = h->round;
    if (h->ops->flags & FST_OWN_MODEL)
        st = fst_message_add_state(&m, &v, err);
    c->scratch.len = 0;
    if (!st && ops->save)
        st = ops->save(h, &c->scratch, err);
    if (!st && c->scratch.len)
        st = fst_message_add(&m, "strategy", FST_U8, FST_SHAPE((int64_t)c->scratch.len), c->scratch.data, err);
    if (!st)
        st = fst__coded_keep(&c->coded, h, &m, err);
    if (!st && c->lasting)
        st = keep_moments(c->lasting, &m, err);
    return st ? st : fst_message_pack(&m, keep, err);
}

fst_status fst_client_work(fst_client *c, const fst_client_env *env, const void *kept, size_t len,
                           const fst_message *down, fst_message *up, fst_buf *keep, fst_error *err)
{
    fst_client_half *h = c->half;
    struct kit *k = NULL;
    fst_status st = kit_of(c, env->graph, &k, err);
    if (st)
        return st;
    if ((h->ops->flags & FST_PUBLIC_DATA) && !env->pub)
        return fst_fail(err, FST_E_CONFIG, "strategy %s needs public samples", h->ops->name);
    if (h->ops->client->check && (st = h->ops->client->check(h->option, env->graph, &env->plan, err)))
        return fst_fail_in(err, st, "strategy %s", h->ops->name);
    h->env = env;
    h->round = down->round;
    h->first = !len;
    h->model = k->model; /* the same memory */
    fst_message had, sent = *down, m = fst_message_of("");
    c->had = &had;
    c->lasting = NULL;
    st = remember(h, kept, len, &had, err);
    if (!st)
        st = fst__coded_take(&c->coded, h, &had, &sent, err);
    m.client = env->client;
    m.round = down->round;
    m.base = down->base;
    m.samples = (int64_t)env->count;
    if (!st)
        st = h->ops->client->work(h, &sent, &m, err);
    if (!st)
        st = fst__coded_give(&c->coded, h, &m, err);
    if (!st)
        st = keep_for_later(c, keep, err);
    c->had = NULL;
    c->lasting = NULL;
    if (!st)
        *up = m;
    return st;
}

fst_status fst_client_model(const void *kept, size_t len, fst_fed_size size, fst_fed_view *out, fst_error *err)
{
    fst_message m;
    fst_status st = fst_message_parse(&m, kept, len, err);
    return st ? st : fst_message_state(&m, size, out, err);
}

fst_status fst_client_new(fst_client **out, const fst_strategy_ops *ops, const fst_setting *settings, size_t n,
                          fst_error *err)
{
    size_t bytes = ops->client->bytes ? ops->client->bytes : sizeof(fst_client_half);
    fst_client *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    fst_status st = FST_OK;
    if (!(c->half = fst_calloc(1, bytes)))
        st = fst_fail_memory(err, bytes);
    if (!st) {
        c->half->ops = ops;
        c->half->lender = c;
        st = fst_strategy_options(ops, settings, n, c->half->option, err);
    }
    if (st)
        fst_client_free(c);
    else
        *out = c;
    return st;
}

void fst_client_free(fst_client *c)
{
    if (!c)
        return;
    if (c->half && c->half->ops && c->half->ops->client->release)
        c->half->ops->client->release(c->half);
    fst_free(c->half);
    for (size_t i = 0; i < c->kits; i++)
        free_kit(c->kit[i]);
    fst_free(c->kit);
    fst_buf_release(&c->scratch);
    fst__coded_client_release(&c->coded);
    fst_free(c);
}

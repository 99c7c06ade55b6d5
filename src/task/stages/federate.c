/*
 * federated_train: rounds over clients that live in this process. What a client does stands in src/fed/client.c and in
 * the strategy; here it is told what it has, and rounds are evaluated, reported and saved.
 *
 * Data flow: task file -> partition, first model, strategy -> fst_simulate -> play_client on the workers, round_done
 * after every round -> checkpoint, events -> the models of the last (or best) round.
 */
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fedstill/fed.h"
#include "federate.h"

struct federation {
    struct session *s;
    struct step *own;
    const struct federated_section *section;
    fst_model *model;
    fst_fed_state global; /* the model's state */
    fst_partition partition;
    int64_t *samples;   /* by client */
    int64_t *rounds_of; /* by client: rounds that its update entered */
    double **weight;    /* by worker: room, by class: what the client's classes count */
    fst_work work;
    fst_local_plan plan;
    const fst_strategy_ops *ops;
    fst_strategy *strategy;
    fst_virtual *clients;
    char *checkpoint, *last;
    uint64_t round, bytes_up, bytes_down;
    fst_state best;       /* select: best, the global model of best_round */
    double best_accuracy; /* on the edges' validation samples; below 0: none yet */
    uint64_t best_round;  /* from 1 */
    fst_state *edge;      /* by edge: its last local model; NULL without a topology */
    uint64_t saved_round; /* the checkpoint holds the state after so many rounds; 0: there is none */
    double seconds_before, started;
    struct save_clock saves;
};

/* ---- a client --------------------------------------------------------------------------------------- */

static bool stopped(void *ctx)
{
    return fst__session_stopped(ctx);
}

static fst_local_plan plan_of(const struct federation *f)
{
    const struct federated_section *c = f->section;
    return (fst_local_plan){.epochs = c->local_epochs,
                            .batch_size = (size_t)c->batch_size,
                            .drop_last = c->drop_last,
                            .optim = fst__optim_spec(&c->optimizer, c->clip_norm),
                            .has_schedule = c->has_schedule,
                            .schedule = fst__schedule(&c->schedule, c->rounds),
                            .compute = fst__trainer_options(&f->s->machine, (size_t)c->batch_size, 1)};
}

/* What a client has: called on its worker. */
static fst_status client_env(void *ctx, int worker, uint32_t client, fst_client_env *out, fst_error *err)
{
    struct federation *f = ctx;
    struct session *s = f->s;
    int classes = f->partition.classes;
    const int64_t *counts = f->partition.counts + (size_t)client * (size_t)classes;
    (void)err;
    *out = (fst_client_env){.seed = (uint64_t)s->task->file.seed,
                            .stream = "step.federated_train",
                            .client = client,
                            .classes = classes,
                            .graph = f->model->graph,
                            .source = s->data.train,
                            .subset = f->partition.index + f->partition.begin[client],
                            .count = f->partition.begin[client + 1] - f->partition.begin[client],
                            .transform = s->data.transform,
                            .augment = s->data.transform.crop_padding > 0 || s->data.transform.flip,
                            .class_weight = fst__weights_of(&f->section->weights, counts, classes, f->weight[worker]),
                            .plan = f->plan,
                            .work = &f->work};
    return FST_OK;
}

/* An update that the server refuses is nobody's model: the edge's last one stays. */
static bool can_be_folded(const fst_fed_view *v)
{
    return !fst_accumulator_check(v->params, v->size.params, NULL) &&
           !fst_accumulator_check(v->buffers, v->size.buffers, NULL);
}

static fst_status play_client(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    struct federation *f = ctx;
    fst_fed_view v;
    fst_status st = fst_virtual_work(f->clients, worker, down, up, err);
    if (!st && f->edge && !fst_message_state(up, fst_graph_fed_size(f->model->graph), &v, NULL) && can_be_folded(&v)) {
        fst_state *e = &f->edge[down->client];
        fst_fed_state to = {e->params, e->buffers, e->counters, v.size};
        fst_fed_state_copy(&to, &v);
    }
    return st;
}

static void settle_clients(void *ctx, const fst_round_report *r)
{
    fst_virtual_settle(((struct federation *)ctx)->clients, r);
}

/* ---- checkpoints ------------------------------------------------------------------------------------- */

enum { MAX_TENSORS = 3 * (FST__MAX_EDGES + 2) + 2 };

/* A checkpoint's tensors and their names. */
struct kept {
    fst_tensor t[MAX_TENSORS];
    char name[MAX_TENSORS][40];
    size_t n;
};

static void keep(struct kept *k, const char *prefix, const fst_state *s)
{
    const fst_tensor t[] = {{"params", FST_F32, FST_SHAPE((int64_t)s->param_count), s->params},
                            {"buffers", FST_F32, FST_SHAPE((int64_t)s->buffer_count), s->buffers},
                            {"counters", FST_I64, FST_SHAPE((int64_t)s->counter_count), s->counters}};
    for (int i = 0; i < 3; i++, k->n++) {
        snprintf(k->name[k->n], sizeof k->name[k->n], "%s%s", prefix, t[i].name);
        k->t[k->n] = t[i];
        k->t[k->n].name = k->name[k->n];
    }
}

static void tensors(const struct federation *f, struct kept *k)
{
    k->n = 0;
    keep(k, "", &f->model->state);
    snprintf(k->name[k->n], sizeof k->name[k->n], "rounds_of");
    k->t[k->n] = (fst_tensor){k->name[k->n], FST_I64, FST_SHAPE(f->partition.clients), f->rounds_of};
    k->n++;
    if (f->best.params)
        keep(k, "best.", &f->best);
    for (size_t e = 0; f->edge && e < f->s->data.edges; e++) {
        char prefix[24];
        snprintf(prefix, sizeof prefix, "edge_%d.", (int)e + 1);
        keep(k, prefix, &f->edge[e]);
    }
}

static fst_status put_state(struct federation *f, fst_checkpoint_writer *w, fst_buf *kept, fst_error *err)
{
    struct kept k;
    tensors(f, &k);
    fst_status st = fst_strategy_save(f->strategy, kept, err);
    if (!st && kept->len)
        k.t[k.n++] = (fst_tensor){"strategy", FST_U8, FST_SHAPE((int64_t)kept->len), kept->data};
    if (!st)
        st = fst_checkpoint_add_all(w, k.t, k.n, err);
    if (!st)
        st = fst_checkpoint_put_double(w, "best_accuracy", f->best_accuracy, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "best_round", f->best_round, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "round", f->round, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "bytes_up", f->bytes_up, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "bytes_down", f->bytes_down, err);
    if (!st)
        st = fst_checkpoint_put_double(w, "seconds", f->seconds_before + fst_clock_seconds() - f->started, err);
    return st;
}

static fst_status save(struct federation *f, const char *path, fst_error *err)
{
    double began = fst_clock_seconds();
    fst_checkpoint_writer *w = NULL;
    fst_buf kept = {0};
    fst_status st = fst_checkpoint_writer_new(&w, f->own->resumes, err);
    if (!st)
        st = put_state(f, w, &kept, err);
    if (!st)
        st = fst_checkpoint_write(w, path, NULL, err);
    fst_checkpoint_writer_free(w);
    fst_buf_release(&kept);
    f->saves = fst__saved(began);
    if (st)
        return fst_fail_in(err, st, "%s: saving progress", f->own->stage->name);
    f->saved_round = f->round;
    return FST_OK;
}

static fst_status load_strategy(struct federation *f, const fst_checkpoint *k, fst_error *err)
{
    for (size_t i = 0; i < fst_checkpoint_count(k); i++) {
        fst_tensor t = fst_checkpoint_at(k, i);
        if (!strcmp(t.name, "strategy"))
            return fst_strategy_load(f->strategy, t.data, (size_t)fst_shape_count(&t.shape), err);
    }
    return FST_OK;
}

/* Outputs are untouched on failure, but for the strategy, which checks its bytes before it takes them. */
static fst_status take(struct federation *f, const fst_checkpoint *k, fst_error *err)
{
    struct kept own;
    struct federation n = *f;
    fst_status st = fst_checkpoint_uint(k, "round", &n.round, err);
    if (!st)
        st = fst_checkpoint_uint(k, "bytes_up", &n.bytes_up, err);
    if (!st)
        st = fst_checkpoint_uint(k, "bytes_down", &n.bytes_down, err);
    if (!st)
        st = fst_checkpoint_double(k, "seconds", &n.seconds_before, err);
    if (!st)
        st = fst_checkpoint_double(k, "best_accuracy", &n.best_accuracy, err);
    if (!st)
        st = fst_checkpoint_uint(k, "best_round", &n.best_round, err);
    if (!st && (n.round > (uint64_t)f->section->rounds || n.best_round > n.round))
        st = fst_fail(err, FST_E_MISMATCH, "%s: its round is not of this training", f->checkpoint);
    if (!st)
        st = load_strategy(f, k, err);
    tensors(f, &own);
    if (!st)
        st = fst_checkpoint_load(k, own.t, own.n, err);
    if (st)
        return st;
    n.saved_round = n.round;
    *f = n;
    return FST_OK;
}

/* Goes on from a checkpoint when there is a sound one of exactly these inputs and not of more rounds. */
static fst_status resume_from(struct federation *f, const char *path, bool *resumed, fst_error *err)
{
    fst_checkpoint *k = NULL;
    fst_error why = {0};
    uint64_t round = 0;
    if (*resumed || !fst_file_exists(path))
        return FST_OK;
    fst_status st = fst_checkpoint_open(&k, path, f->own->resumes, &why);
    if (!st && !fst_checkpoint_uint(k, "round", &round, NULL) && round > (uint64_t)f->section->rounds)
        st = fst_fail(&why, FST_E_MISMATCH, "%s is of %llu rounds already", path, (unsigned long long)round);
    if (st) {
        fst_checkpoint_free(k);
        fst_log(st == FST_E_MISMATCH ? FST_LOG_INFO : FST_LOG_WARN, "%s: starting anew: %s", f->own->stage->name,
                why.message);
        return FST_OK;
    }
    st = take(f, k, err);
    fst_checkpoint_free(k);
    if (st)
        return fst_fail_in(err, st, "%s cannot go on; --fresh starts over", f->own->stage->name);
    fst_log(FST_LOG_INFO, "%s: going on at round %llu", f->own->stage->name, (unsigned long long)f->round + 1);
    *resumed = true;
    return FST_OK;
}

/* From where it was stopped, or from the end of a run of fewer rounds. */
static fst_status resume(struct federation *f, fst_error *err)
{
    bool resumed = false;
    fst_status st = resume_from(f, f->checkpoint, &resumed, err);
    if (st || resumed)
        return st;
    st = resume_from(f, f->last, &resumed, err);
    f->saved_round = 0; /* the rounds that come have no checkpoint of their own yet */
    return st;
}

enum { MAX_CLIENT_EVENTS = 64 }; /* a round */

/* ---- rounds ----------------------------------------------------------------------------------------- */

static const char *noun(const struct session *s)
{
    return s->data.edges ? "edge" : "client";
}

/* Every client that was drawn for the round, up to a number that keeps the file readable in large federations. */
static void tell_clients(struct federation *f, const fst_round_report *r)
{
    for (uint32_t i = 0; i < r->selected && i < MAX_CLIENT_EVENTS; i++) {
        const fst_client_report *c = &r->by_client[i];
        fst_field fields[] = {FST_INT("round", (int64_t)r->round + 1),
                              FST_INT(noun(f->s), (int64_t)c->client + 1),
                              FST_BOOLEAN("reported", c->reported),
                              FST_INT("samples", c->samples),
                              FST_DOUBLE("train_loss", c->loss),
                              FST_DOUBLE("seconds", c->seconds),
                              FST_INT("bytes_up", (int64_t)c->bytes_up),
                              FST_INT("bytes_down", (int64_t)c->bytes_down),
                              FST_STRING("reason", c->lost)};
        size_t n = sizeof fields / sizeof *fields;
        fst__emit(&f->s->books, "client", fields, c->lost ? n : n - 1);
    }
}

static void tell_round(struct federation *f, const fst_round_report *r, const struct score *score, double validation)
{
    const char *kind =
        fst__weighs_classes(&f->section->weights) ? "cross entropy (weighted by class)" : "cross entropy";
    fst_field fields[] = {FST_INT("round", (int64_t)r->round + 1),
                          FST_INT("selected", r->selected),
                          FST_INT("reported", r->reported),
                          FST_INT("lost", r->lost),
                          FST_BOOLEAN("aggregated", r->aggregated),
                          FST_STRING("closed", fst_fed_why_text(r->why)),
                          FST_INT("samples", (int64_t)r->samples),
                          FST_DOUBLE("train_loss", r->loss),
                          FST_STRING("loss_kind", kind),
                          FST_DOUBLE("update_norm", r->update_norm),
                          FST_INT("bytes_up", (int64_t)r->bytes_up),
                          FST_INT("bytes_down", (int64_t)r->bytes_down),
                          FST_DOUBLE("test_accuracy", score->accuracy),
                          FST_DOUBLE("test_loss", score->loss),
                          FST_DOUBLE("validation_accuracy", validation),
                          FST_DOUBLE("seconds", r->seconds)};
    char note[96];
    fst__emit(&f->s->books, "round", fields, sizeof fields / sizeof *fields);
    tell_clients(f, r);
    for (uint32_t i = 0; i < r->lost_named; i++) {
        int64_t number = (int64_t)r->lost_first[i].client + 1;
        fst_field lost[] = {FST_INT("round", (int64_t)r->round + 1), FST_INT(noun(f->s), number),
                            FST_STRING("reason", r->lost_first[i].message)};
        fst__emit(&f->s->books, "client_lost", lost, 3);
        fst_log(FST_LOG_WARN, "round %llu: %s %lld was lost: %s", (unsigned long long)r->round + 1, noun(f->s),
                (long long)number, r->lost_first[i].message);
    }
    snprintf(note, sizeof note, "loss %.4f  accuracy %.2f %%", r->loss, 100 * score->accuracy);
    fst__watch_update(f->s, r->round + 1, note);
}

/* The accuracy of a model on an edge's own validation samples; NaN when it has none. */
static fst_status on_edge(struct federation *f, size_t k, const fst_state *state, struct score *out, fst_error *err)
{
    const struct share *h = &f->s->data.edge[k];
    *out = FST__NO_SCORE;
    if (!h->validate)
        return FST_OK;
    return fst__evaluate(f->s, f->model->graph, state, f->s->data.train, h->index + h->learn, h->validate, out, err);
}

/* Each edge measures the aggregated model on samples of its own and tells the share that it got right; the best round
 * is that with most right in all. */
static fst_status choose_round(struct federation *f, double *accuracy, fst_error *err)
{
    double right = 0, samples = 0;
    fst_status st = FST_OK;
    for (size_t k = 0; !st && k < f->s->data.edges; k++) {
        struct score v;
        st = on_edge(f, k, &f->model->state, &v, err);
        if (!st && v.samples) {
            right += v.accuracy * (double)v.samples;
            samples += (double)v.samples;
        }
    }
    if (st)
        return st;
    *accuracy = right / samples;
    if (*accuracy > f->best_accuracy) {
        f->best_accuracy = *accuracy;
        f->best_round = f->round;
        fst_state_copy(&f->best, &f->model->state);
    }
    return FST_OK;
}

static fst_status round_done(void *ctx, const fst_server *server, const fst_round_report *r, fst_error *err)
{
    struct federation *f = ctx;
    const struct checkpoint_section *k = &f->s->task->file.checkpoint;
    struct score score = FST__NO_SCORE;
    (void)server; /* the shared model is the stage's own */
    f->round = r->round + 1;
    f->bytes_up += r->bytes_up;
    f->bytes_down += r->bytes_down;
    for (uint32_t i = 0; i < r->reported; i++)
        f->rounds_of[r->reported_client[i]]++;
    double validation = NAN;
    fst_status st = f->best.params ? choose_round(f, &validation, err) : FST_OK;
    if (!st && f->round % (uint64_t)f->section->evaluate_every == 0)
        st = fst__evaluate_test(f->s, f->model->graph, &f->model->state, &score, err);
    if (!st)
        tell_round(f, r, &score, validation);
    if (!st && (k->steps || fst__save_due(&f->saves, k->seconds) || fst__session_stopped(f->s)))
        st = save(f, f->checkpoint, err);
    if (!st && fst__session_stopped(f->s))
        st = fst_fail(err, FST_E_CANCELLED, "%s: stopped; progress is saved", f->own->stage->name);
    return st;
}

/* Whatever ended the run inside a round, the rounds before it are kept. */
static fst_status keep_rounds(struct federation *f, fst_status st, fst_error *err)
{
    fst_error why = {0};
    if (f->round > f->saved_round && save(f, f->checkpoint, &why))
        fst_log(FST_LOG_WARN, "%s", why.message);
    if (st == FST_E_CANCELLED)
        return st;
    if (!f->saved_round)
        return fst_fail_in(err, st, "%s", f->own->stage->name);
    return fst_fail_in(err, st, "%s (the last good state, after round %llu, is in %s)", f->own->stage->name,
                       (unsigned long long)f->saved_round, f->checkpoint);
}

static fst_fed_state fed_state(const fst_state *s)
{
    return (fst_fed_state){s->params, s->buffers, s->counters, {s->param_count, s->buffer_count, s->counter_count}};
}

static fst_status rounds(struct federation *f, fst_error *err)
{
    struct session *s = f->s;
    const struct federated_section *c = f->section;
    fst_simulate_spec spec = {.seed = fst__step_seed(s, f->own, "rounds", 0),
                              .clients = (uint32_t)f->partition.clients,
                              .samples = f->samples,
                              .first_round = f->round,
                              .rounds = (uint64_t)c->rounds,
                              .cohort = (uint32_t)c->clients_per_round,
                              .fraction = c->fraction,
                              .quorum = (uint32_t)c->quorum,
                              .workers = s->machine.workers,
                              .noun = noun(s),
                              .strategy = f->strategy,
                              .ctx = f,
                              .work = play_client,
                              .settle = settle_clients,
                              .round_done = round_done};
    f->started = fst_clock_seconds();
    f->saves = fst__saved(f->started);
    fst__watch_begin(s, f->own->stage->name, (uint64_t)c->rounds, "rounds");
    fst__watch_update(s, f->round, NULL); /* none of this run's work */
    fst_status st = fst_simulate(&spec, err);
    if (st)
        st = keep_rounds(f, st, err);
    fst__watch_end(s, st ? "stopped" : NULL);
    return st;
}

/* ---- the step ----------------------------------------------------------------------------------------- */

static fst_status make_partition(struct federation *f, fst_error *err)
{
    fst_status st = fst__clients(&f->s->data, f->s->task, &f->partition, err);
    if (st)
        return st;
    f->samples = fst_calloc((size_t)f->partition.clients, sizeof *f->samples);
    f->rounds_of = fst_calloc((size_t)f->partition.clients, sizeof *f->rounds_of);
    if (!f->samples || !f->rounds_of)
        return fst_fail_memory(err, (size_t)f->partition.clients * sizeof *f->samples);
    for (int k = 0; k < f->partition.clients; k++)
        f->samples[k] = (int64_t)(f->partition.begin[k + 1] - f->partition.begin[k]);
    return FST_OK;
}

/* Beside the model and as late, so that a run that fails leaves the files of the last one that did not. */
static fst_status write_partition(const struct federation *f, struct record *r, fst_error *err)
{
    snprintf(r->extra, sizeof r->extra, "partition.safetensors");
    char *path = fst__step_path(f->s, f->own, r->extra);
    fst_status st =
        path ? fst_partition_write(&f->partition, path, r->extra_digest, err) : fst_fail_memory(err, sizeof r->extra);
    fst_free(path);
    return st;
}

static fst_status first_model(struct federation *f, fst_error *err)
{
    bool given;
    fst_status st = fst__start_from(f->s, f->own, f->model, &given, err);
    if (!st && !given)
        fst_state_randomise(&f->model->state, f->model->graph, fst__step_seed(f->s, f->own, "init", 0));
    return st;
}

static fst_status make_clients(struct federation *f, const fst_setting *settings, size_t n, fst_error *err)
{
    struct session *s = f->s;
    const fst_virtual_spec spec = {.ops = f->ops,
                                   .settings = settings,
                                   .nsettings = n,
                                   .clients = (uint32_t)f->partition.clients,
                                   .workers = s->machine.workers,
                                   .ctx = f,
                                   .env = client_env};
    f->work = (fst_work){.ctx = s, .stopped = stopped};
    f->plan = plan_of(f);
    f->weight = fst_calloc((size_t)s->machine.workers, sizeof *f->weight);
    for (int i = 0; f->weight && i < s->machine.workers; i++)
        if (!(f->weight[i] = fst_calloc((size_t)s->data.train->classes, sizeof(double))))
            return fst_fail_memory(err, (size_t)s->data.train->classes * sizeof(double));
    return f->weight ? fst_virtual_new(&f->clients, &spec, err)
                     : fst_fail_memory(err, (size_t)s->machine.workers * sizeof *f->weight);
}

static fst_status make_strategy(struct federation *f, fst_error *err)
{
    fst_setting settings[FST_STRATEGY_OPTIONS];
    size_t n = fst__strategy_settings(&f->section->options, f->ops, settings);
    const fst_server_env env = {
        .seed = (uint64_t)f->s->task->file.seed,
        .clients = (uint32_t)f->partition.clients,
        .classes = f->partition.classes,
        .global = &f->global,
        .graph = f->model->graph,
        .compute = fst__trainer_options(&f->s->machine, (size_t)f->section->batch_size, f->s->machine.threads)};
    f->global = fed_state(&f->model->state);
    fst_status st = fst_strategy_new(&f->strategy, f->ops, settings, n, &env, err);
    return st ? st : make_clients(f, settings, n, err);
}

/* Room for each edge's last model and for the best global one. */
static fst_status make_states(struct federation *f, fst_error *err)
{
    size_t n = f->s->data.edges;
    fst_status st = f->section->select == 0 ? fst_state_init(&f->best, f->model->graph, err) : FST_OK;
    if (st || !n)
        return st;
    f->edge = fst_calloc(n, sizeof *f->edge);
    if (!f->edge)
        return fst_fail_memory(err, n * sizeof *f->edge);
    for (size_t k = 0; !st && k < n; k++)
        st = fst_state_init(&f->edge[k], f->model->graph, err);
    return st;
}

static fst_status prepare(struct federation *f, fst_error *err)
{
    f->ops = fst_strategy_at((size_t)f->section->strategy);
    f->checkpoint = fst__step_path(f->s, f->own, FST__CHECKPOINT);
    f->last = fst__step_path(f->s, f->own, FST__LAST);
    fst_status st = f->checkpoint && f->last ? make_partition(f, err) : fst_fail_memory(err, 256);
    if (!st)
        st = first_model(f, err);
    if (!st)
        st = make_strategy(f, err);
    if (!st)
        st = make_states(f, err);
    return st ? st : resume(f, err);
}

static void release(struct federation *f)
{
    for (int i = 0; f->weight && i < f->s->machine.workers; i++)
        fst_free(f->weight[i]);
    fst_free(f->weight);
    fst_virtual_free(f->clients);
    for (size_t k = 0; f->edge && k < f->s->data.edges; k++)
        fst_state_release(&f->edge[k]);
    fst_free(f->edge);
    fst_state_release(&f->best);
    fst_strategy_free(f->strategy);
    fst_partition_release(&f->partition);
    fst_free(f->samples);
    fst_free(f->rounds_of);
    fst_free(f->checkpoint);
    fst_free(f->last);
}

/* Notes, not errors: a skewed split does that, and the rounds go on all the same. */
static void note_missing(const struct session *s)
{
    char missing[200];
    for (size_t k = 0; k < s->data.edges; k++)
        if (fst__missing_classes(&s->data, &s->data.edge[k], missing, sizeof missing))
            fst_log(FST_LOG_INFO, "edge %zu has no samples of %s", k + 1, missing);
}

static fst_status save_edge(struct federation *f, size_t k, struct record *r, struct score *test, struct score *own,
                            fst_error *err)
{
    char name[64];
    fst_model m = *f->model;
    m.state = f->edge[k];
    snprintf(name, sizeof name, FST__EDGE_MODEL, (int)k + 1);
    fst_status st = fst__evaluate_test(f->s, m.graph, &m.state, test, err);
    if (!st)
        st = on_edge(f, k, &m.state, own, err);
    return st ? st : fst__write_model(f->s, f->own, &m, r, name, test->accuracy, r->edge[k].digest, err);
}

/* An edge that never finished a round has no model; one of an earlier run must not stand for it. */
static fst_status remove_edge(struct federation *f, size_t k, fst_error *err)
{
    char name[64];
    snprintf(name, sizeof name, FST__EDGE_MODEL, (int)k + 1);
    char *path = fst__step_path(f->s, f->own, name);
    if (!path)
        return fst_fail_memory(err, sizeof name);
    fst_status st = unlink(path) && errno != ENOENT ? fst_fail_errno(err, "%s", path) : FST_OK;
    fst_free(path);
    return st;
}

/* The edges' last local models, beside the global one. */
static fst_status save_edges(struct federation *f, struct record *r, fst_error *err)
{
    struct session *s = f->s;
    fst_status st = FST_OK;
    for (size_t k = 0; !st && k < s->data.edges; k++) {
        struct edge_figures *e = &r->edge[k];
        struct score test = FST__NO_SCORE, own = test, global = test;
        e->rounds = f->rounds_of[k];
        st = e->rounds ? save_edge(f, k, r, &test, &own, err) : remove_edge(f, k, err);
        if (!st)
            st = on_edge(f, k, &f->model->state, &global, err);
        e->samples = (int64_t)s->data.edge[k].learn;
        e->validation = (int64_t)s->data.edge[k].validate;
        e->accuracy = test.accuracy;
        e->own_accuracy = own.accuracy;
        e->global_accuracy = global.accuracy;
        fst__missing_classes(&s->data, &s->data.edge[k], e->missing, sizeof e->missing);
        fst_field fields[] = {FST_INT("edge", (int64_t)k + 1),
                              FST_INT("samples", e->samples),
                              FST_DOUBLE("test_accuracy", e->accuracy),
                              FST_DOUBLE("own_accuracy", e->own_accuracy),
                              FST_INT("rounds", e->rounds),
                              FST_STRING("missing_classes", e->missing)};
        if (!st)
            fst__emit(&s->books, "edge", fields, sizeof fields / sizeof *fields);
    }
    r->edges = st ? 0 : s->data.edges;
    return st;
}

/* Samples of clients whose update entered a round. */
static int64_t learnt_from(const struct federation *f)
{
    const char *who = noun(f->s);
    int64_t n = 0;
    int without = 0, first = 0;
    for (int k = 0; k < f->partition.clients; k++) {
        n += f->rounds_of[k] ? f->samples[k] : 0;
        first = !f->rounds_of[k] && !without ? k + 1 : first;
        without += !f->rounds_of[k];
    }
    if (without == 1)
        fst_log(FST_LOG_INFO, "%s: nothing of %s %d entered the model", f->own->stage->name, who, first);
    else if (without)
        fst_log(FST_LOG_INFO, "%s: nothing of %d of %d %ss entered the model", f->own->stage->name, without,
                f->partition.clients, who);
    return n;
}

fst_status fst__federate(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    fst_model model;
    struct federation f = {.s = s, .own = own, .section = own->stage->settings, .model = &model, .best_accuracy = -1};
    fst_status st = fst__new_model(&s->data, own->stage->kind->network(own->stage), &model, err);
    if (st)
        return st;
    note_missing(s);
    st = prepare(&f, err);
    if (!st)
        st = rounds(&f, err);
    if (!st && fst__extendable(own))
        st = save(&f, f.last, err);
    if (!st) {
        if (f.best_round)
            fst_state_copy(&model.state, &f.best);
        r->best_round = (int64_t)f.best_round;
        r->seconds = f.seconds_before + fst_clock_seconds() - f.started;
        r->bytes_up = f.bytes_up;
        r->bytes_down = f.bytes_down;
        r->samples = learnt_from(&f);
        st = fst__save_model(s, own, &model, r, err);
        if (!st)
            st = save_edges(&f, r, err);
        if (!st)
            st = write_partition(&f, r, err);
    }
    release(&f);
    fst__forget_runner(s);
    fst_model_release(&model);
    return st;
}

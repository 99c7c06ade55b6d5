/*
 * federated_train: rounds over clients that live in this process. What a client does stands in src/fed/client.c and in
 * the strategy; here it is told what it has, and rounds are evaluated, reported and saved.
 *
 * Data flow: task file -> partition, first model, strategy -> fst_simulate -> fst__federate_play on the workers,
 * round_done after every round -> checkpoint, events -> the models of the last (or best) round.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "federate.h"

enum { MAX_CLIENT_EVENTS = 64 }; /* a round */

/* ---- rounds ----------------------------------------------------------------------------------------- */

/* Every client that was drawn for the round, up to a number that keeps the file readable in large federations. */
static void tell_clients(struct federation *f, const fst_round_report *r)
{
    for (uint32_t i = 0; i < r->selected && i < MAX_CLIENT_EVENTS; i++) {
        const fst_client_report *c = &r->by_client[i];
        fst_field fields[] = {FST_INT("round", (int64_t)r->round + 1),
                              FST_INT(fst__federate_noun(f->s), (int64_t)c->client + 1),
                              FST_BOOLEAN("reported", c->reported),
                              FST_INT("samples", c->samples),
                              FST_DOUBLE("train_loss", c->loss),
                              FST_DOUBLE("seconds", c->seconds),
                              FST_INT("bytes_up", (int64_t)c->bytes_up),
                              FST_INT("bytes_down", (int64_t)c->bytes_down),
                              FST_INT("raw_bytes_up", (int64_t)c->raw_up),
                              FST_INT("raw_bytes_down", (int64_t)c->raw_down),
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
                          FST_DOUBLE("learning_rate", fst_local_rate(&f->plan, r->round)),
                          FST_DOUBLE("update_norm", r->update_norm),
                          FST_INT("bytes_up", (int64_t)r->bytes_up),
                          FST_INT("bytes_down", (int64_t)r->bytes_down),
                          FST_INT("raw_bytes_up", (int64_t)r->raw_up),
                          FST_INT("raw_bytes_down", (int64_t)r->raw_down),
                          FST_DOUBLE("test_accuracy", score->accuracy),
                          FST_DOUBLE("test_loss", score->loss),
                          FST_DOUBLE("validation_accuracy", validation),
                          FST_DOUBLE("seconds", r->seconds)};
    char note[96];
    fst__emit(&f->s->books, "round", fields, sizeof fields / sizeof *fields);
    tell_clients(f, r);
    for (uint32_t i = 0; i < r->lost_named; i++) {
        int64_t number = (int64_t)r->lost_first[i].client + 1;
        fst_field lost[] = {FST_INT("round", (int64_t)r->round + 1), FST_INT(fst__federate_noun(f->s), number),
                            FST_STRING("reason", r->lost_first[i].message)};
        fst__emit(&f->s->books, "client_lost", lost, 3);
        fst_log(FST_LOG_WARN, "round %llu: %s %lld was lost: %s", (unsigned long long)r->round + 1,
                fst__federate_noun(f->s), (long long)number, r->lost_first[i].message);
    }
    int used = snprintf(note, sizeof note, "loss %.4f", r->loss);
    if (isfinite(score->accuracy)) /* not every round is evaluated */
        snprintf(note + used, sizeof note - (size_t)used, "  accuracy %.2f %%", 100 * score->accuracy);
    fst__watch_update(f->s, r->round + 1, note);
}

/* Each edge measures the aggregated model on samples of its own and tells how many it got right; the best round is that
 * with most right in all. */
static fst_status choose_round(struct federation *f, double *accuracy, fst_error *err)
{
    const fst_state *global = &f->model->state;
    double right = 0, samples = 0;
    fst_status st = fst__federate_validate(f, &global, 1, f->worth, err);
    if (st)
        return st;
    for (size_t k = 0; k < f->s->data.edges; k++)
        if (f->worth[k].samples) {
            right += f->worth[k].accuracy * (double)f->worth[k].samples;
            samples += (double)f->worth[k].samples;
        }
    *accuracy = right / samples;
    if (*accuracy > f->best_accuracy) {
        f->best_accuracy = *accuracy;
        f->best_round = f->round;
        fst_state_copy(&f->best, &f->model->state);
    }
    return FST_OK;
}

/* Where no round is chosen, what the model is worth on validation samples is told all the same: the test samples choose
 * nothing. */
static fst_status measure_round(struct federation *f, double *accuracy, fst_error *err)
{
    struct score score = FST__NO_SCORE;
    fst_status st = fst__evaluate_validation(f->s, f->own->stage, f->model->graph, &f->model->state, &score, err);
    *accuracy = score.accuracy;
    return st;
}

/* Of a fleet, whose sites have worked for it, a full disk does not end the run: it waits. */
static fst_status save_round(struct federation *f, fst_error *err)
{
    const fst_task_options *o = f->s->options;
    fst_error why = {0};
    fst_status st = fst__federate_save(f, f->checkpoint, &why);
    while (st == FST_E_IO && o->wait_for_room && o->wait_for_room(o->rounds_ctx, &why))
        st = fst__federate_save(f, f->checkpoint, &why);
    return st ? fst_fail(err, st, "%s", why.message) : FST_OK;
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
    f->raw_up += r->raw_up;
    f->raw_down += r->raw_down;
    for (uint32_t i = 0; i < r->reported; i++)
        f->rounds_of[r->reported_client[i]]++;
    bool last = f->round == (uint64_t)f->section->rounds || fst__pauses(f->s, f->own, (int64_t)f->round);
    bool due = f->round % (uint64_t)f->section->evaluate_every == 0;
    double validation = NAN;
    if (f->fuser) /* what is measured is what may be kept */
        fst_fuser_show(f->fuser, f->model->state.params, true);
    fst_status st = f->best.params ? choose_round(f, &validation, err) : FST_OK;
    if (!st && !f->best.params && !f->apart && (due || last))
        st = measure_round(f, &validation, err);
    if (!st && due && f->apart)
        st = fst__federate_score(f, "", &score, f->figures, err);
    else if (!st && due)
        st = fst__evaluate_test(f->s, f->model->graph, &f->model->state, &score, err);
    if (f->s->options->wait_for_room) /* and its events may be written again */
        atomic_store(&f->s->books.events_failed, false);
    if (!st)
        tell_round(f, r, &score, validation);
    if (!st && f->fuser && r->aggregated)
        fst__federate_tell_fusion(f);
    if (f->fuser)
        fst_fuser_show(f->fuser, f->model->state.params, false);
    /* sites elsewhere are told of the next round only when this one is on disk */
    if (!st && (k->steps || f->s->options->rounds || fst__save_due(&f->saves, k->seconds) ||
                fst__session_stopped(f->s) || fst__pauses(f->s, f->own, (int64_t)f->round)))
        st = save_round(f, err);
    if (!st)
        st = fst__pause(f->s, f->own, (int64_t)f->round, err);
    if (!st && fst__session_stopped(f->s))
        st = fst_fail(err, FST_E_CANCELLED, "%s: stopped; progress is saved", f->own->stage->name);
    return st;
}

/* Whatever ended the run inside a round, the rounds before it are kept. */
static fst_status keep_rounds(struct federation *f, fst_status st, fst_error *err)
{
    fst_error why = {0};
    if (f->round > f->saved_round && fst__federate_save(f, f->checkpoint, &why))
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
                              .noun = fst__federate_noun(s),
                              .strategy = f->strategy,
                              .keeps = fst__clients_keep(c),
                              .aggregating = &f->work,
                              .ctx = f,
                              .work = fst__federate_play,
                              .settle = fst__federate_settle,
                              .data = (const char(*)[FST_DIGEST_HEX])f->data,
                              .arrived = f->edge ? fst__federate_arrived : NULL,
                              .round_done = round_done};
    f->started = fst_clock_seconds();
    f->saves = fst__saved(f->started);
    fst__watch_begin(s, f->own->stage->name, (uint64_t)c->rounds, "rounds");
    fst__watch_update(s, f->round, NULL); /* none of this run's work */
    fst_status st = s->options->rounds ? s->options->rounds(s->options->rounds_ctx, f->own->stage->name, &spec, err)
                                       : fst_simulate(&spec, err);
    if (st)
        st = keep_rounds(f, st, err);
    fst__watch_end(s, st ? "stopped" : NULL);
    return st;
}

/* ---- the step ----------------------------------------------------------------------------------------- */

/* Sites say what samples they have, and are held to what they should have. */
static fst_status make_digests(struct federation *f, fst_error *err)
{
    fst_status st = FST_OK;
    f->data = fst_calloc((size_t)f->partition.clients, sizeof *f->data);
    if (!f->data)
        return fst_fail_memory(err, (size_t)f->partition.clients * sizeof *f->data);
    for (int k = 0; f->s->data.elsewhere && k < f->partition.clients; k++)
        memcpy(f->data[k], f->s->data.place[k], sizeof f->data[k]);
    for (int k = 0; !st && !f->s->data.elsewhere && k < f->partition.clients; k++)
        st = fst__client_digest(&f->s->data, &f->partition, (uint32_t)k, f->data[k], err);
    return st;
}

static fst_status make_partition(struct federation *f, fst_error *err)
{
    fst_status st = fst__clients(&f->s->data, f->s->task, &f->partition, err);
    if (st)
        return st;
    f->samples = fst_calloc((size_t)f->partition.clients, sizeof *f->samples);
    f->rounds_of = fst_calloc((size_t)f->partition.clients, sizeof *f->rounds_of);
    size_t edges = f->s->data.edges, models = f->ops->flags & FST_OWN_MODEL ? (size_t)f->partition.clients : edges;
    f->figures = fst_calloc(models, sizeof *f->figures);
    f->worth = fst_calloc(edges, sizeof *f->worth);
    if (!f->samples || !f->rounds_of || !f->figures || !f->worth)
        return fst_fail_memory(err, (size_t)f->partition.clients * sizeof *f->samples);
    for (int k = 0; k < f->partition.clients; k++)
        f->samples[k] = (int64_t)(f->partition.begin[k + 1] - f->partition.begin[k]);
    return f->s->options->rounds ? make_digests(f, err) : FST_OK;
}

/* Beside the model and as late, so that a run that fails leaves the files of the last one that did not. Which of an
 * edge's own files it learns from, only the edge knows. */
static fst_status write_partition(const struct federation *f, struct record *r, fst_error *err)
{
    if (f->s->data.elsewhere)
        return FST_OK;
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

static fst_status make_strategy(struct federation *f, fst_error *err)
{
    struct session *s = f->s;
    const struct share *public = &s->data.public;
    fst_setting settings[FST_STRATEGY_OPTIONS];
    size_t n = fst__strategy_settings(&f->section->options, f->ops, settings);
    fst_status st = FST_OK;
    if (public->learn)
        st = fst_public_init(&f->public, s->data.train, public->index, public->learn, &s->data.transform, err);
    f->global = fed_state(&f->model->state);
    if (!st)
        st = fst__crew_begin(f, err);
    if (!st)
        st = fst__federate_clients(f, settings, n, err);
    if (st)
        return st;
    fst_server_env env = {.seed = (uint64_t)s->task->file.seed,
                          .clients = (uint32_t)f->partition.clients,
                          .classes = f->partition.classes,
                          .global = f->apart ? NULL : &f->global,
                          .graph = f->apart ? f->network[0].graph : f->model->graph,
                          .pub = public->learn ? &f->public : NULL,
                          .codecs = f->codecs,
                          .compute =
                              fst__trainer_options(&s->machine, (size_t)f->section->batch_size, s->machine.threads)};
    if (f->section->has_fusion)
        st = fst__federate_fuser(f, &env, err);
    env.after = f->fuser ? fst_fuser_after(f->fuser) : NULL;
    return st ? st : fst_strategy_new(&f->strategy, f->ops, settings, n, &env, err);
}

/* Room for each edge's last model and for the best global one. */
static fst_status make_states(struct federation *f, fst_error *err)
{
    size_t n = f->apart || f->mentors ? 0 : f->s->data.edges;
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
    f->apart = !(f->ops->flags & FST_SAME_MODEL);
    f->mentors = f->ops->flags & FST_MENTORS;
    f->checkpoint = fst__step_path(f->s, f->own, FST__CHECKPOINT);
    f->last = fst__step_path(f->s, f->own, FST__LAST);
    f->folder = fst__step_path(f->s, f->own, FST__KEPT_BY_CLIENTS);
    fst_status st = f->s->options->rounds ? fst__federate_elsewhere(f->own, err) : FST_OK;
    if (!st)
        st = f->checkpoint && f->last && f->folder ? make_partition(f, err) : fst_fail_memory(err, 256);
    if (!st)
        st = first_model(f, err);
    if (!st)
        st = fst__federate_own_samples(f, err);
    if (!st)
        st = make_strategy(f, err);
    if (!st)
        st = make_states(f, err);
    if (!st)
        st = fst__federate_resume(f, err);
    if (!st)
        st = fst__federate_give_first(f, err);
    if (!st)
        fst_virtual_sweep(f->clients);
    return st;
}

static void release(struct federation *f)
{
    fst__federate_clients_release(f);
    fst__crew_free(f);
    for (size_t k = 0; f->edge && k < f->s->data.edges; k++)
        fst_state_release(&f->edge[k]);
    fst_free(f->edge);
    fst_state_release(&f->best);
    fst_strategy_free(f->strategy);
    fst_fuser_free(f->fuser);
    fst_partition_release(&f->partition);
    fst_partition_release(&f->validation);
    fst_free(f->samples);
    fst_free(f->rounds_of);
    fst_free(f->figures);
    fst_free(f->worth);
    fst_free(f->data);
    fst_free(f->checkpoint);
    fst_free(f->last);
    fst_free(f->folder);
    fst_buf_release(&f->room);
}

/* Notes, not errors: a skewed split does that, and the rounds go on all the same. */
static void note_missing(const struct session *s)
{
    char missing[200];
    for (size_t k = 0; k < s->data.edges; k++)
        if (fst__missing_classes(&s->data, &s->data.edge[k], missing, sizeof missing))
            fst_log(FST_LOG_INFO, "edge %zu has no samples of %s", k + 1, missing);
}

/* Clients' models beside the shared one; those of edges are saved already. */
static fst_status save_ensemble(struct federation *f, struct record *r, fst_error *err)
{
    fst_status st = f->s->data.edges ? FST_OK : fst__federate_write_clients(f, r, err);
    return st ? st : fst__federate_ensemble(f, err);
}

/* Samples of clients whose update entered a round. */
static int64_t learnt_from(const struct federation *f)
{
    const char *who = fst__federate_noun(f->s);
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
        st = fst__pause(s, own, (int64_t)f.round, err); /* it was there already */
    if (!st)
        st = rounds(&f, err);
    if (!st && fst__extendable(own))
        st = fst__federate_save_last(&f, err);
    if (!st) {
        if (f.best_round)
            fst_state_copy(&model.state, &f.best);
        else if (f.fuser)
            fst_fuser_show(f.fuser, model.state.params, true);
        if (f.fuser)
            fst__federate_record_fusion(&f, r);
        r->best_round = (int64_t)f.best_round;
        r->seconds = f.seconds_before + fst_clock_seconds() - f.started;
        r->bytes_up = f.bytes_up;
        r->bytes_down = f.bytes_down;
        r->raw_up = f.section->has_codec ? f.raw_up : 0;
        r->raw_down = f.section->has_codec ? f.raw_down : 0;
        r->samples = learnt_from(&f);
        st = f.apart ? fst__federate_write_clients(&f, r, err) : fst__save_model(s, own, &model, r, err);
        if (!isfinite(r->validation) && f.best_round) /* measured by the edges, which are elsewhere */
            r->validation = f.best_accuracy;
        if (!st && f.mentors)
            st = fst__federate_write_clients(&f, r, err);
        else if (!st && !f.apart)
            st = fst__federate_save_edges(&f, r, err);
        if (!st && !f.apart && !f.mentors && f.ops->flags & FST_OWN_MODEL)
            st = save_ensemble(&f, r, err);
        if (!st)
            st = write_partition(&f, r, err);
    }
    fst__forget_runner(s);
    release(&f);
    fst_model_release(&model);
    return st;
}

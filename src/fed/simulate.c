/* Many virtual clients on a few workers, in one process. It carries out the round engine's actions: trains
 * the announced clients on the pool, folds each update as it comes, publishes, reports. It refuses to
 * keep anything a client beyond one small record of the current cohort.
 *
 * What may run in any order (training, folding) has results that do not depend on the order: sums are
 * exact, and everything else goes into the cohort's slots and is added up in their order. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "fed_private.h"

/* What is remembered of one client of the cohort. */
struct slot {
    uint32_t client;
    bool uploaded, folded;
    int64_t samples;
    double loss, accuracy, seconds;
    char *lost; /* why, of one that was lost */
};

struct simulation {
    const fst_simulate_spec *spec;
    fst_fed_state *global;
    fst_fed_view view;
    fst_fed_size down, up;
    fst_round_engine *engine;
    fst_pool *pool;
    fst_fed_state *update; /* [workers] */

    struct slot *slot;           /* the cohort in the order of drawing; only the calling thread grows it */
    size_t nslots, slots, asked; /* in use, allocated, already trained */
    uint32_t *folded;            /* [slots] of a closed round: whose updates entered it */
    fst_client_report *told;     /* [slots] of a closed round */

    pthread_mutex_t lock;              /* guards what follows while the pool runs, the engine and the strategy */
    size_t answered;                   /* of the batch that runs */
    size_t lost_slot[FST_REPORT_LOST]; /* of report.lost_first */
    fst_status lost_status[FST_REPORT_LOST];
    fst_round_report report;
    fst_error failure; /* that ends the run; of the lowest slot that has one */
    size_t failure_slot;

    atomic_bool stop;
    double started;
    bool finished;
};

static const char *noun(const struct simulation *s)
{
    return s->spec->noun ? s->spec->noun : "client";
}

/* ---- called by the workers, under the lock ---- */

/* Keeps the messages of the first few slots, whichever comes first in time. */
static void note_lost(struct simulation *s, size_t slot, fst_status why, const char *message)
{
    fst_round_report *r = &s->report;
    uint32_t at = r->lost_named;
    r->lost++;
    fst_free(s->slot[slot].lost);
    s->slot[slot].lost = fst_strdup(message);
    while (at > 0 && s->lost_slot[at - 1] > slot)
        at--;
    if (at == FST_REPORT_LOST)
        return;
    if (r->lost_named < FST_REPORT_LOST)
        r->lost_named++;
    for (uint32_t i = r->lost_named - 1; i > at; i--) {
        s->lost_slot[i] = s->lost_slot[i - 1];
        s->lost_status[i] = s->lost_status[i - 1];
        r->lost_first[i] = r->lost_first[i - 1];
    }
    s->lost_slot[at] = slot;
    s->lost_status[at] = why;
    r->lost_first[at].client = s->slot[slot].client;
    snprintf(r->lost_first[at].message, sizeof r->lost_first[at].message, "%s", message);
}

static void end_run(struct simulation *s, size_t slot, const fst_error *why)
{
    if (s->failure.status == FST_OK || slot < s->failure_slot) {
        s->failure = *why;
        s->failure_slot = slot;
    }
    atomic_store(&s->stop, true);
}

static void send(struct simulation *s, size_t slot, fst_fed_event_kind kind)
{
    fst_error err = {0};
    fst_fed_event ev = {
        .kind = kind, .client = s->slot[slot].client, .round = s->report.round, .samples = s->slot[slot].samples};
    if (fst_round_event(s->engine, &ev, &err))
        end_run(s, slot, &err);
}

static void lose(struct simulation *s, size_t slot, const fst_error *why)
{
    note_lost(s, slot, why->status, why->message);
    send(s, slot, FST_EVENT_REFUSED);
}

static void fold(struct simulation *s, size_t slot, const fst_fed_state *update)
{
    fst_error err = {0};
    fst_update u = {s->slot[slot].client, s->report.round, s->slot[slot].samples, fst_fed_state_view(update)};
    u.state.size = s->up;
    fst_status st = fst_strategy_fold(s->spec->strategy, &u, &err);
    if (st == FST_OK) {
        s->slot[slot].folded = true;
        send(s, slot, FST_EVENT_FOLDED);
    } else if (st == FST_E_NUMERIC) {
        lose(s, slot, &err);
    } else {
        fst_error named = {0};
        (void)fst_fail(&named, st, "%s %llu: %s", noun(s), (unsigned long long)u.client + 1, err.message);
        end_run(s, slot, &named);
    }
}

/* Offers an update to the engine, whose first action says what becomes of it. */
static void offer(struct simulation *s, size_t slot, const fst_fed_state *update)
{
    fst_fed_action a;
    s->slot[slot].uploaded = true;
    send(s, slot, FST_EVENT_UPDATE);
    if (!fst_round_next_action(s->engine, &a))
        return;
    if (a.kind == FST_ACTION_FOLD)
        fold(s, slot, update);
    else
        note_lost(s, slot, FST_E_ARGUMENT, fst_fed_why_text(a.why));
}

static void answer(struct simulation *s, size_t slot, fst_status trained, const fst_error *why,
                   const fst_train_result *result, double seconds, const fst_fed_state *update, size_t batch)
{
    fst_fed_action a;
    if (atomic_load(&s->stop) && trained != FST_E_CANCELLED)
        return;
    if (trained == FST_E_CANCELLED) {
        end_run(s, slot, why);
        return;
    }
    s->slot[slot].samples = result->samples;
    s->slot[slot].loss = trained ? NAN : result->loss;
    s->slot[slot].accuracy = trained ? NAN : result->accuracy;
    s->slot[slot].seconds = seconds;
    if (trained)
        lose(s, slot, why);
    else
        offer(s, slot, update);
    /* What follows the last answer (closing, new announcements) is left to the calling thread. */
    if (++s->answered < batch)
        while (fst_round_next_action(s->engine, &a))
            ;
}

/* ---- the workers ---- */

struct batch {
    struct simulation *s;
    size_t first, count;
};

static void train_one(void *ctx, int worker, size_t job)
{
    struct batch *b = ctx;
    struct simulation *s = b->s;
    const fst_simulate_spec *spec = s->spec;
    size_t slot = b->first + job;
    if (atomic_load(&s->stop))
        return;
    uint32_t client = s->slot[slot].client;
    uint64_t round = s->report.round;
    fst_fed_state *update = &s->update[worker];
    fst_train_hints hints = fst_strategy_hints(spec->strategy, round, client);
    fst_train_result result = {.samples = spec->samples ? spec->samples[client] : 0, .accuracy = NAN};
    fst_error err = {0};
    fst_fed_state_copy(update, &s->view);
    double began = fst_clock_seconds();
    fst_status st = spec->train(spec->ctx, worker, client, round, &hints, &s->view, update, &result, &err);
    if (st && !err.message[0])
        (void)fst_fail(&err, st, "training failed: %s", fst_status_name(st));
    err.status = st;
    double seconds = fst_clock_seconds() - began;
    pthread_mutex_lock(&s->lock);
    answer(s, slot, st, &err, &result, seconds, update, b->count);
    pthread_mutex_unlock(&s->lock);
}

/* ---- rounds, on the calling thread ---- */

static void forget_slots(struct simulation *s)
{
    for (size_t i = 0; i < s->nslots; i++)
        fst_free(s->slot[i].lost);
    s->nslots = 0;
}

static void open_round(struct simulation *s, uint64_t round)
{
    forget_slots(s);
    s->asked = 0;
    s->report = (fst_round_report){.round = round};
    s->started = fst_clock_seconds();
    fst_strategy_begin(s->spec->strategy, round);
}

static fst_status add_slot(struct simulation *s, uint32_t client, fst_error *err)
{
    if (s->nslots == s->slots) {
        size_t n = s->slots ? 2 * s->slots : 16;
        struct slot *p = fst_realloc(s->slot, s->nslots * sizeof *p, n * sizeof *p);
        if (!p)
            return fst_fail_memory(err, n * sizeof *p);
        s->slot = p;
        uint32_t *folded = fst_realloc(s->folded, s->slots * sizeof *folded, n * sizeof *folded);
        if (!folded)
            return fst_fail_memory(err, n * sizeof *folded);
        s->folded = folded;
        fst_client_report *told = fst_realloc(s->told, s->slots * sizeof *told, n * sizeof *told);
        if (!told)
            return fst_fail_memory(err, n * sizeof *told);
        s->told = told;
        s->slots = n;
    }
    s->slot[s->nslots++] = (struct slot){.client = client};
    return FST_OK;
}

static void tell_clients(struct simulation *s)
{
    uint64_t down = fst_fed_size_bytes(s->down), up = fst_fed_size_bytes(s->up);
    for (size_t i = 0; i < s->nslots; i++) {
        const struct slot *c = &s->slot[i];
        s->told[i] = (fst_client_report){.client = c->client,
                                         .reported = c->folded,
                                         .samples = c->samples,
                                         .loss = c->loss,
                                         .accuracy = c->accuracy,
                                         .bytes_down = down,
                                         .bytes_up = c->uploaded ? up : 0,
                                         .seconds = c->seconds};
        if (!c->folded)
            s->told[i].lost = c->lost ? c->lost : "it did not answer";
    }
    s->report.by_client = s->told;
}

/* Sums over the slots in their order, so that no bit depends on who was ready first. */
static fst_status close_report(struct simulation *s, fst_error *err)
{
    fst_round_report *r = &s->report;
    double loss = 0, accuracy = 0;
    uint64_t uploads = 0;
    for (size_t i = 0; i < s->nslots; i++) {
        const struct slot *c = &s->slot[i];
        uploads += c->uploaded;
        if (!c->folded)
            continue;
        s->folded[r->reported++] = c->client;
        r->samples += (uint64_t)c->samples;
        loss += c->loss * (double)c->samples;
        accuracy += c->accuracy * (double)c->samples;
    }
    tell_clients(s);
    r->reported_client = s->folded;
    r->selected = (uint32_t)s->nslots;
    r->loss = r->samples ? loss / (double)r->samples : NAN;
    r->accuracy = r->samples ? accuracy / (double)r->samples : NAN;
    r->bytes_down = s->nslots * fst_fed_size_bytes(s->down);
    r->bytes_up = uploads * fst_fed_size_bytes(s->up);
    r->seconds = fst_clock_seconds() - s->started;
    if (!s->spec->round_done)
        return FST_OK;
    fst_error why = {0};
    fst_status st = s->spec->round_done(s->spec->ctx, &s->view, r, &why);
    if (st && err) {
        *err = why;
        err->status = st;
        if (!err->message[0])
            return fst_fail(err, st, "stopped after round %llu: %s", (unsigned long long)r->round + 1,
                            fst_status_name(st));
    }
    return st;
}

static fst_status tell(struct simulation *s, fst_fed_event_kind kind, uint32_t client, fst_error *err)
{
    fst_fed_event ev = {.kind = kind, .client = client, .round = s->report.round};
    return fst_round_event(s->engine, &ev, err);
}

static fst_status publish(struct simulation *s, fst_error *err)
{
    fst_publish_stats stats;
    fst_status st = fst_strategy_publish(s->spec->strategy, s->global, &stats, err);
    if (st)
        return fst_fail_in(err, st, "round %llu", (unsigned long long)s->report.round + 1);
    s->report.aggregated = true;
    s->report.update_norm = stats.update_norm;
    st = close_report(s, err);
    return st ? st : tell(s, FST_EVENT_PUBLISHED, 0, err);
}

static fst_status run_failed(const struct simulation *s, const fst_fed_action *a, fst_error *err)
{
    const fst_round_report *r = &s->report;
    uint32_t quorum = s->spec->quorum ? s->spec->quorum : 1;
    if (r->lost_named == 0)
        return fst_fail(err, FST_E_CONFIG, "round %llu: %s", (unsigned long long)a->round + 1,
                        fst_fed_why_text(a->why));
    return fst_fail(err, s->lost_status[0], "round %llu: %llu updates, the quorum is %u; %u %s%s failed, %s %llu: %s",
                    (unsigned long long)a->round + 1, (unsigned long long)a->count, (unsigned)quorum, (unsigned)r->lost,
                    noun(s), r->lost == 1 ? "" : "s", noun(s), (unsigned long long)r->lost_first[0].client + 1,
                    r->lost_first[0].message);
}

static fst_status act(struct simulation *s, const fst_fed_action *a, fst_error *err)
{
    switch (a->kind) {
    case FST_ACTION_LOG:
        if (a->why == FST_WHY_OPENED)
            open_round(s, a->round);
        return FST_OK;
    case FST_ACTION_ANNOUNCE:
        return add_slot(s, a->client, err);
    case FST_ACTION_CLOSE:
        s->report.why = a->why;
        if (a->why == FST_WHY_NO_QUORUM && s->spec->policy == FST_QUORUM_SKIP)
            return close_report(s, err);
        return FST_OK;
    case FST_ACTION_AGGREGATE: /* everything was folded as it came */
        return tell(s, FST_EVENT_AGGREGATED, 0, err);
    case FST_ACTION_PUBLISH:
        return publish(s, err);
    case FST_ACTION_FINISHED:
        s->finished = true;
        return FST_OK;
    case FST_ACTION_FAILED:
        return run_failed(s, a, err);
    default:
        return FST_OK;
    }
}

static fst_status drain(struct simulation *s, fst_error *err)
{
    fst_fed_action a;
    fst_status st = FST_OK;
    while (!st && fst_round_next_action(s->engine, &a))
        st = act(s, &a, err);
    return st;
}

static fst_status train_batch(struct simulation *s, fst_error *err)
{
    struct batch b = {s, s->asked, s->nslots - s->asked};
    if (b.count == 0)
        return fst_fail(err, FST_E_CONFIG, "round %llu waits for %ss that there are not",
                        (unsigned long long)s->report.round + 1, noun(s));
    s->asked = s->nslots;
    s->answered = 0;
    fst_pool_run(s->pool, train_one, &b, b.count);
    if (s->failure.status && err)
        *err = s->failure;
    return s->failure.status;
}

static fst_status run_rounds(struct simulation *s, fst_error *err)
{
    fst_status st = drain(s, err); /* no round may be left to do */
    for (uint32_t c = 0; !st && !s->finished && c < s->spec->clients; c++) {
        if (s->spec->samples && s->spec->samples[c] == 0)
            continue;
        st = tell(s, FST_EVENT_JOINED, c, err);
        if (!st)
            st = drain(s, err);
    }
    while (!st && !s->finished) {
        st = train_batch(s, err);
        if (!st)
            st = drain(s, err);
    }
    return st;
}

/* ---- setting up ---- */

static fst_status count_clients(const fst_simulate_spec *spec, uint32_t *active, fst_error *err)
{
    uint32_t n = 0;
    for (uint32_t c = 0; c < spec->clients; c++) {
        int64_t k = spec->samples ? spec->samples[c] : 1;
        if (k < 0 || k > FST_ACCUMULATOR_MAX_WEIGHT)
            return fst_fail(err, FST_E_CONFIG, "%s %llu has %lld samples; 0 to 2147483647 are allowed",
                            spec->noun ? spec->noun : "client", (unsigned long long)c + 1, (long long)k);
        n += k > 0;
    }
    uint32_t quorum = spec->quorum ? spec->quorum : 1;
    if (n < quorum)
        return fst_fail(err, FST_E_CONFIG, "%u of %u %ss have samples; the quorum is %u", (unsigned)n,
                        (unsigned)spec->clients, spec->noun ? spec->noun : "client", (unsigned)quorum);
    *active = n;
    return FST_OK;
}

static fst_status make_engine(struct simulation *s, fst_error *err)
{
    const fst_simulate_spec *spec = s->spec;
    uint32_t active = 0;
    fst_status st = count_clients(spec, &active, err);
    if (st)
        return st;
    fst_round_spec r = {.seed = spec->seed,
                        .clients = spec->clients,
                        .first_round = spec->first_round,
                        .rounds = spec->rounds,
                        .cohort = spec->cohort,
                        .fraction = spec->cohort == 0 && spec->fraction == 0 ? 1 : spec->fraction,
                        .quorum = spec->quorum,
                        .min_clients = active,
                        .policy = spec->policy,
                        .max_extensions = spec->max_extensions};
    return fst_round_new(&s->engine, &r, err);
}

static fst_status set_up(struct simulation *s, fst_error *err)
{
    const fst_simulate_spec *spec = s->spec;
    if (!fst_fed_size_equal(spec->strategy->size, s->global->size))
        return fst_fail(err, FST_E_MISMATCH, "the strategy was made for a model of another size");
    fst_strategy_sizes(spec->strategy, &s->down, &s->up);
    if (s->up.params > s->global->size.params || s->up.buffers > s->global->size.buffers ||
        s->up.counters > s->global->size.counters)
        return fst_fail(err, FST_E_UNSUPPORTED, "strategy %s returns more than a model's state",
                        spec->strategy->ops->name);
    fst_status st = make_engine(s, err);
    if (!st)
        st = fst_pool_new(&s->pool, spec->workers, err);
    if (st)
        return st;
    s->update = fst_calloc((size_t)spec->workers, sizeof *s->update);
    if (!s->update)
        return fst_fail_memory(err, (size_t)spec->workers * sizeof *s->update);
    for (int i = 0; !st && i < spec->workers; i++)
        st = fst_fed_state_init(&s->update[i], s->global->size, err);
    return st;
}

static void tear_down(struct simulation *s)
{
    fst_pool_free(s->pool);
    for (int i = 0; s->update && i < s->spec->workers; i++)
        fst_fed_state_release(&s->update[i]);
    fst_free(s->update);
    forget_slots(s);
    fst_free(s->slot);
    fst_free(s->folded);
    fst_free(s->told);
    fst_round_free(s->engine);
    pthread_mutex_destroy(&s->lock);
}

fst_status fst_simulate(const fst_simulate_spec *spec, fst_fed_state *global, fst_error *err)
{
    if (!spec->strategy || !spec->train)
        return fst_fail(err, FST_E_ARGUMENT, "a simulation needs a strategy and a train function");
    struct simulation s = {.spec = spec, .global = global, .view = fst_fed_state_view(global)};
    atomic_init(&s.stop, false);
    pthread_mutex_init(&s.lock, NULL);
    fst_status st = set_up(&s, err);
    if (!st)
        st = run_rounds(&s, err);
    tear_down(&s);
    return st;
}

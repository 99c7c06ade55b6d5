/* Many virtual clients on a few workers, in one process: a loop around a server. It carries out its orders: has the
 * announced clients play on the pool, hands each message to the server as it comes, aggregates, reports.
 *
 * What may run in any order (training, folding) has results that do not depend on the order; see server.c. */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "fed_private.h"

struct simulation {
    const fst_simulate_spec *spec;
    fst_server *server;
    fst_pool *pool;
    uint32_t *batch; /* clients that the next run of the pool plays, in the order of selection */
    size_t count, room;

    pthread_mutex_t lock; /* guards what follows while the pool runs, and the server */
    fst_error failure;    /* that ends the run; of the lowest place in the batch that has one */
    size_t failure_at;

    atomic_bool stop;
    double started;
    bool finished, opened;
};

static const char *noun(const struct simulation *s)
{
    return s->spec->noun ? s->spec->noun : "client";
}

/* ---- the workers ---- */

static void end_run(struct simulation *s, size_t at, const fst_error *why)
{
    if (s->failure.status == FST_OK || at < s->failure_at) {
        s->failure = *why;
        s->failure_at = at;
    }
    atomic_store(&s->stop, true);
}

/* Under the lock. */
static void answer(struct simulation *s, size_t at, fst_status worked, const fst_error *why, const fst_message *up,
                   double seconds)
{
    fst_error err = {0};
    fst_fed_event ev = {.kind = worked ? FST_EVENT_REFUSED : FST_EVENT_UPDATE,
                        .client = s->batch[at],
                        .round = up->round,
                        .samples = up->samples};
    if (atomic_load(&s->stop) && worked != FST_E_CANCELLED)
        return;
    if (worked == FST_E_CANCELLED) {
        end_run(s, at, why);
        return;
    }
    fst_server_took(s->server, s->batch[at], seconds);
    if (!worked && s->spec->arrived)
        s->spec->arrived(s->spec->ctx, up);
    if (fst_server_event(s->server, &ev, up, why, NULL, &err))
        end_run(s, at, &err);
}

static void play_one(void *ctx, int worker, size_t at)
{
    struct simulation *s = ctx;
    const fst_simulate_spec *spec = s->spec;
    uint32_t client = s->batch[at];
    fst_message down, up = fst_message_of("");
    fst_error err = {0};
    if (atomic_load(&s->stop))
        return;
    fst_status st = fst_server_message(s->server, client, &down, &err);
    double began = fst_clock_seconds();
    if (!st) {
        up.client = client;
        up.round = down.round;
        up.base = down.base;
        up.samples = spec->samples ? spec->samples[client] : 0;
        up.loss = 0;
        st = spec->work(spec->ctx, worker, &down, &up, &err);
    }
    if (st && !err.message[0])
        (void)fst_fail(&err, st, "training failed: %s", fst_status_name(st));
    err.status = st;
    double seconds = fst_clock_seconds() - began;
    up.client = client;
    up.round = down.round;
    pthread_mutex_lock(&s->lock);
    answer(s, at, st, &err, &up, seconds);
    pthread_mutex_unlock(&s->lock);
}

/* ---- orders, on the calling thread ---- */

static fst_status add_to_batch(struct simulation *s, uint32_t client, fst_error *err)
{
    if (!s->opened)
        s->started = fst_clock_seconds();
    s->opened = true;
    if (s->count == s->room) {
        size_t n = s->room ? 2 * s->room : 16;
        uint32_t *p = fst_realloc(s->batch, s->room * sizeof *p, n * sizeof *p);
        if (!p)
            return fst_fail_memory(err, n * sizeof *p);
        s->batch = p;
        s->room = n;
    }
    s->batch[s->count++] = client;
    return FST_OK;
}

static fst_status round_over(struct simulation *s, fst_error *err)
{
    const fst_simulate_spec *spec = s->spec;
    fst_round_report *r = fst_server_report(s->server);
    fst_error why = {0};
    r->seconds = fst_clock_seconds() - s->started;
    s->opened = false;
    if (spec->settle)
        spec->settle(spec->ctx, r);
    fst_status st = spec->round_done ? spec->round_done(spec->ctx, s->server, r, &why) : FST_OK;
    if (!st)
        return fst_server_publish(s->server, 0, err);
    if (err) {
        *err = why;
        err->status = st;
        if (!err->message[0])
            return fst_fail(err, st, "stopped after round %llu: %s", (unsigned long long)r->round + 1,
                            fst_status_name(st));
    }
    return st;
}

static fst_status obey(struct simulation *s, const fst_order *o, fst_error *err)
{
    switch (o->kind) {
    case FST_ORDER_SEND:
        return add_to_batch(s, o->client, err);
    case FST_ORDER_AGGREGATE:
        return fst_server_aggregate(s->server, s->spec->aggregating, 0, err);
    case FST_ORDER_EVALUATE:
        return round_over(s, err);
    case FST_ORDER_FINISHED:
        s->finished = true;
        return FST_OK;
    case FST_ORDER_FAILED:
        return fst_server_failure(s->server, err);
    case FST_ORDER_TIMER: /* there are no deadlines here */
        break;
    }
    return FST_OK;
}

static fst_status obey_all(struct simulation *s, fst_error *err)
{
    fst_order o;
    fst_status st = FST_OK;
    while (!st && fst_server_next(s->server, &o))
        st = obey(s, &o, err);
    return st;
}

static fst_status play_batch(struct simulation *s, fst_error *err)
{
    if (s->count == 0)
        return fst_fail(err, FST_E_CONFIG, "round %llu waits for %ss that there are not",
                        (unsigned long long)fst_server_look(s->server).round + 1, noun(s));
    fst_pool_run(s->pool, play_one, s, s->count);
    s->count = 0;
    if (s->failure.status && err)
        *err = s->failure;
    return s->failure.status;
}

static fst_status run_rounds(struct simulation *s, fst_error *err)
{
    fst_status st = obey_all(s, err); /* no round may be left to do */
    for (uint32_t c = 0; !st && !s->finished && c < s->spec->clients; c++) {
        fst_fed_event joined = {.kind = FST_EVENT_JOINED, .client = c};
        if (s->spec->samples && s->spec->samples[c] == 0)
            continue;
        st = fst_server_event(s->server, &joined, NULL, NULL, NULL, err);
    }
    if (!st)
        st = obey_all(s, err);
    while (!st && !s->finished) {
        st = play_batch(s, err);
        if (!st)
            st = obey_all(s, err);
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

fst_status fst_simulate_rounds(const fst_simulate_spec *spec, fst_round_spec *out, fst_error *err)
{
    uint32_t active = 0;
    fst_status st = count_clients(spec, &active, err);
    if (st)
        return st;
    *out = (fst_round_spec){.seed = spec->seed,
                            .clients = spec->clients,
                            .first_round = spec->first_round,
                            .rounds = spec->rounds,
                            .cohort = spec->cohort,
                            .fraction = spec->cohort == 0 && spec->fraction == 0 ? 1 : spec->fraction,
                            .quorum = spec->quorum,
                            .min_clients = active,
                            .policy = spec->policy,
                            .max_extensions = spec->max_extensions};
    return FST_OK;
}

fst_status fst_simulate(const fst_simulate_spec *spec, fst_error *err)
{
    if (!spec->strategy || !spec->work)
        return fst_fail(err, FST_E_ARGUMENT, "a simulation needs a strategy and a work function");
    struct simulation s = {.spec = spec};
    atomic_init(&s.stop, false);
    pthread_mutex_init(&s.lock, NULL);
    fst_round_spec rounds;
    fst_status st = fst_simulate_rounds(spec, &rounds, err);
    if (!st)
        st = fst_server_new(&s.server, &rounds, spec->strategy, spec->noun, err);
    if (!st)
        st = fst_pool_new(&s.pool, spec->workers, err);
    if (!st)
        st = run_rounds(&s, err);
    if (st)
        fst_strategy_abandon(spec->strategy); /* of a round that was open: what is kept is that of the last one */
    fst_pool_free(s.pool);
    fst_server_free(s.server);
    fst_free(s.batch);
    pthread_mutex_destroy(&s.lock);
    return st;
}

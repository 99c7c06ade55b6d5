/* FedBuff (Nguyen et al., Federated learning with buffered asynchronous aggregation, AISTATS 2022): clients train all
 * the time, each from the model that there was when it began, and the server takes a step whenever so many updates have
 * come in as a round has clients:
 *     x += lr/K sum_k (y_k - x_k)/sqrt(1 + tau_k),   tau_k = how many steps x took since client k was given x_k.
 *
 * When whom is done is not left to a clock: every client has a speed of its own, from stream (seed, "fedbuff.speed",
 * client): its training takes exp(spread normal) of virtual time, always as long. So many as `concurrency` says train
 * at a time. A round is those that are done first; who has reported waits for the step, and then as many of those that
 * are idle are drawn to begin, by stream (seed, "fedbuff.next", step). The schedule depends on nothing else, so results
 * depend neither on workers nor on places.
 *
 * Data flow: select: schedule -> the round's clients. down: the model of the step that a client began at, from a ring.
 * fold: (its state - that model), rounded, times round(2^20/sqrt(1 + tau)) -> exact sum. aggregate: sum -> step ->
 * ring; schedule moves on. A client that would be more than max_staleness steps behind begins anew. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

enum { RATE, CONCURRENCY, SPREAD, STALENESS };
enum { ONE = 1 << 20, MOST_UPDATES = 4095 }; /* the weight of a fresh update; as many as an exact sum takes */
static const fst_option options[] = {
    [RATE] = FST__SERVER_RATE,
    [CONCURRENCY] = {"concurrency", FST_OPTION_WHOLE, .max = 1e6, .help = "clients that train at a time; 0: all"},
    [SPREAD] = {"speed_spread", FST_OPTION_NUMBER, .fallback = 0.5, .max = 10,
                .help = "standard deviation of the logarithm of how long a client trains"},
    [STALENESS] = {"max_staleness", FST_OPTION_WHOLE, .fallback = 10, .min = 0, .max = 1000,
                   .help = "steps of the server after which a client that is not done begins anew"},
    {0},
};

struct flight {     /* what a client is doing */
    uint64_t begun; /* at which step of the server */
    double done;    /* virtual time; below 0: idle */
};

struct fedbuff {
    struct fst__averaging base;
    fst_fed_state *ring; /* max_staleness + 1: the model after step i at i mod that */
    size_t slots;
    uint64_t step; /* that the server has taken */
    double now;    /* virtual time of the last */
    double *takes; /* clients */
    struct flight *flight;
    uint8_t *chosen; /* clients: reported, or were to report, in the open round */
    uint32_t *idle;
    float *delta;
};

static struct fedbuff *of(fst_strategy *s)
{
    return (struct fedbuff *)s;
}

static fst_fed_state *model_at(const struct fedbuff *f, uint64_t step)
{
    return &f->ring[step % f->slots];
}

/* So many idle clients begin, at the server's present step. */
static void begin_training(struct fedbuff *f, size_t want)
{
    const fst_server_env *e = &f->base.base.env;
    size_t n = 0;
    fst_rng r;
    for (uint32_t k = 0; k < e->clients; k++)
        if (f->flight[k].done < 0)
            f->idle[n++] = k;
    fst_rng_init(&r, e->seed, "fedbuff.next", f->step);
    for (size_t i = 0; i < want && i < n; i++) {
        size_t j = i + (size_t)fst_rng_below(&r, n - i);
        uint32_t k = f->idle[j];
        f->idle[j] = f->idle[i];
        f->flight[k] = (struct flight){f->step, f->now + f->takes[k]};
    }
}

static fst_status fedbuff_init(fst_strategy *s, fst_error *err)
{
    struct fedbuff *f = of(s);
    size_t n = s->env.clients, at_a_time = (size_t)s->option[CONCURRENCY];
    fst_status st = fst__averaging_init(s, err);
    f->slots = (size_t)s->option[STALENESS] + 1;
    f->ring = fst_calloc(f->slots, sizeof *f->ring);
    f->takes = fst_calloc(n, sizeof *f->takes);
    f->flight = fst_calloc(n, sizeof *f->flight);
    f->chosen = fst_calloc(n, sizeof *f->chosen);
    f->idle = fst_calloc(n, sizeof *f->idle);
    f->delta = fst_calloc(s->env.global->size.params, sizeof *f->delta);
    if (!st && !(f->ring && f->takes && f->flight && f->chosen && f->idle && f->delta))
        st = fst_fail_memory(err, s->env.global->size.params * sizeof *f->delta);
    for (size_t i = 0; !st && i < f->slots; i++)
        st = fst_fed_state_init(&f->ring[i], s->env.global->size, err);
    if (st)
        return st;
    for (uint32_t k = 0; k < n; k++) {
        fst_rng r;
        fst_rng_init(&r, s->env.seed, "fedbuff.speed", k);
        f->takes[k] = exp(s->option[SPREAD] * fst_rng_normal(&r));
        f->flight[k].done = -1;
    }
    begin_training(f, at_a_time ? at_a_time : n);
    return FST_OK;
}

static void fedbuff_release(fst_strategy *s)
{
    struct fedbuff *f = of(s);
    fst__averaging_release(s);
    for (size_t i = 0; f->ring && i < f->slots; i++)
        fst_fed_state_release(&f->ring[i]);
    fst_free(f->ring);
    fst_free(f->takes);
    fst_free(f->flight);
    fst_free(f->chosen);
    fst_free(f->idle);
    fst_free(f->delta);
}

/* Is a done before b? Those that are idle come last. */
static bool sooner(const struct fedbuff *f, uint32_t a, uint32_t b)
{
    double x = f->flight[a].done, y = f->flight[b].done;
    if (x < 0 || y < 0 || x == y)
        return (x < 0) != (y < 0) ? y < 0 : a < b;
    return x < y;
}

static void fedbuff_select(fst_strategy *s, uint32_t *client, size_t count, size_t want)
{
    struct fedbuff *f = of(s);
    memset(f->chosen, 0, s->env.clients);
    for (size_t i = 0; i < want && i < count; i++) {
        size_t first = i;
        for (size_t j = i + 1; j < count; j++)
            first = sooner(f, client[j], client[first]) ? j : first;
        uint32_t k = client[first];
        client[first] = client[i];
        client[i] = k;
        f->chosen[k] = 1;
    }
}

static void fedbuff_begin(fst_strategy *s, uint64_t round)
{
    struct fedbuff *f = of(s);
    fst__averaging_begin(s, round);
    fst_fed_view now = fst_fed_state_view(s->env.global); /* the first, or one that was loaded */
    fst_fed_state_copy(model_at(f, f->step), &now);
}

/* Of a client that is asked although it is idle: the present step. */
static uint64_t begun_of(const struct fedbuff *f, uint32_t client)
{
    return f->flight[client].done < 0 ? f->step : f->flight[client].begun;
}

static fst_status fedbuff_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    const struct fedbuff *f = (const struct fedbuff *)s;
    m->base = begun_of(f, client);
    fst_fed_view v = fst_fed_state_view(model_at(f, m->base));
    fst_message_name(m, "state");
    return fst_message_add_state(m, &v, err);
}

static fst_status fedbuff_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct fedbuff *f = of(s);
    uint64_t begun = begun_of(f, m->client);
    fst_fed_view v;
    if (m->base != begun)
        return fst_fail(err, FST_E_MISMATCH, "began at step %llu of the server, not at step %llu",
                        (unsigned long long)m->base, (unsigned long long)begun);
    fst_status st = fst_message_state(m, s->env.global->size, &v, err);
    if (!st)
        st = fst_accumulator_check(v.params, v.size.params, err);
    if (st)
        return st;
    const fst_fed_state *base = model_at(f, begun);
    for (size_t i = 0; i < v.size.params; i++)
        f->delta[i] = (float)((double)v.params[i] - (double)base->params[i]);
    v.params = f->delta;
    st = fst__average_fold(&f->base.average, &v, llround(ONE / sqrt(1.0 + (double)(f->step - begun))), err);
    if (!st)
        f->chosen[m->client] = 1;
    return st;
}

/* Who reported is idle; as many begin as were busy; whoever is too far behind begins anew. */
static void move_on(struct fedbuff *f)
{
    const fst_server_env *e = &f->base.base.env;
    size_t free_now = 0;
    for (uint32_t k = 0; k < e->clients; k++) {
        if (!f->chosen[k] || f->flight[k].done < 0)
            continue;
        f->now = f->flight[k].done > f->now ? f->flight[k].done : f->now;
        f->flight[k].done = -1;
        free_now++;
    }
    f->step++;
    for (uint32_t k = 0; k < e->clients; k++)
        if (f->flight[k].done >= 0 && f->step - f->flight[k].begun >= f->slots)
            f->flight[k] = (struct flight){f->step, f->now + f->takes[k]};
    begin_training(f, free_now);
    memset(f->chosen, 0, e->clients);
}

static fst_status fedbuff_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct fedbuff *f = of(s);
    const fst__average *a = &f->base.average;
    double rate = s->option[RATE] > 0 ? s->option[RATE] : 1;
    (void)work;
    fst_status st = fst__average_step(a, rate * (double)a->params.weight / (ONE * (double)s->updates), s->env.global,
                                      &stats->update_norm, err);
    if (st)
        return st;
    move_on(f);
    fst_fed_view now = fst_fed_state_view(s->env.global);
    fst_fed_state_copy(model_at(f, f->step), &now);
    return FST_OK;
}

/* As many as train at a time would all have begun at the step before: none would ever be stale. */
static size_t fedbuff_most(const double *option, size_t clients)
{
    size_t busy =
        option[CONCURRENCY] > 0 && option[CONCURRENCY] < (double)clients ? (size_t)option[CONCURRENCY] : clients;
    return busy - 1 < MOST_UPDATES ? busy - 1 : MOST_UPDATES;
}

/* ---- what lasts: step, time, what every client does, and the models that somebody may have begun with ---- */

static size_t saved_bytes(const struct fedbuff *f)
{
    const fst_server_env *e = &f->base.base.env;
    fst_fed_size n = e->global->size;
    return sizeof f->step + sizeof f->now + e->clients * sizeof *f->flight +
           f->slots * (4 * n.params + 4 * n.buffers + 8 * n.counters);
}

/* Reads or writes all of it in one order. */
static fst_status visit(struct fedbuff *f, fst_status (*part)(void *ctx, void *data, size_t bytes, fst_error *err),
                        void *ctx, fst_error *err)
{
    fst_status st = part(ctx, &f->step, sizeof f->step, err);
    if (!st)
        st = part(ctx, &f->now, sizeof f->now, err);
    if (!st)
        st = part(ctx, f->flight, f->base.base.env.clients * sizeof *f->flight, err);
    for (size_t i = 0; !st && i < f->slots; i++) {
        fst_fed_state *m = &f->ring[i];
        st = part(ctx, m->params, 4 * m->size.params, err);
        if (!st)
            st = part(ctx, m->buffers, 4 * m->size.buffers, err);
        if (!st)
            st = part(ctx, m->counters, 8 * m->size.counters, err);
    }
    return st;
}

static fst_status put(void *ctx, void *data, size_t bytes, fst_error *err)
{
    return bytes ? fst_buf_append(ctx, data, bytes, err) : FST_OK;
}

static fst_status get(void *ctx, void *data, size_t bytes, fst_error *err)
{
    const unsigned char **at = ctx;
    (void)err;
    if (bytes)
        memcpy(data, *at, bytes);
    *at += bytes;
    return FST_OK;
}

static fst_status fedbuff_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    return visit((struct fedbuff *)s, put, out, err); /* only read */
}

static fst_status fedbuff_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    struct fedbuff *f = of(s);
    const unsigned char *p = data;
    uint64_t step;
    double now;
    if (len != saved_bytes(f))
        return fst_fail(err, FST_E_FORMAT, "the saved schedule has %zu bytes, %zu are needed", len, saved_bytes(f));
    memcpy(&step, p, sizeof step);
    memcpy(&now, p + sizeof step, sizeof now);
    for (uint32_t k = 0; k < s->env.clients; k++) {
        struct flight c;
        memcpy(&c, p + sizeof step + sizeof now + k * sizeof c, sizeof c);
        if (!isfinite(c.done) || !(now >= 0) || (c.done >= 0 && (c.begun > step || step - c.begun >= f->slots)))
            return fst_fail(err, FST_E_FORMAT, "the saved schedule of client %lu makes no sense", (unsigned long)k + 1);
    }
    return visit(f, get, &p, err);
}

static const fst_server_ops server = {
    .bytes = sizeof(struct fedbuff),
    .init = fedbuff_init,
    .release = fedbuff_release,
    .most = fedbuff_most,
    .select = fedbuff_select,
    .begin = fedbuff_begin,
    .down = fedbuff_down,
    .fold = fedbuff_fold,
    .aggregate = fedbuff_aggregate,
    .save = fedbuff_save,
    .load = fedbuff_load,
};

const fst_strategy_ops fst__fedbuff = {
    .name = "fedbuff",
    .summary = "asynchronous: clients train on from models of different age, and old updates count less",
    .leaks = "The server sees every client's weights, and how fast it is.",
    .options = options,
    .flags = FST_SAME_MODEL | FST_KEEPS_SHARED | FST_SENDS_STATE,
    .codes = fst__codes_model,
    .server = FST__HALF(&server),
    .client = FST__HALF(&fst__averaging_client),
};

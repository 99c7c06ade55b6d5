/* The registry of strategies, and what is the same for all of them: options, checked arguments, counting, and the
 * envelope of a saved server state. Adding a strategy adds a line to `registry`. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coded.h"

static const fst_strategy_ops *const registry[] = {
    /* of a shared model: they average it, or take a step along the mean */
    &fst__fedavg,
    &fst__fedprox,
    &fst__fedavgm,
    &fst__fedadagrad,
    &fst__fedadam,
    &fst__fedyogi,
    /* of a shared model, with more than the model in their messages */
    &fst__scaffold,
    &fst__fednova,
    &fst__fedensemble,
    &fst__fedbuff,
    &fst__fedntd,
    &fst__fedbn,
    /* of a shared model, by a robust rule */
    &fst__median,
    &fst__trimmed_mean,
    &fst__krum,
    &fst__multi_krum,
    &fst__bulyan,
    &fst__geometric_median,
    &fst__norm_clipping,
    /* of what models say */
    &fst__fedmd,
    &fst__fd,
    &fst__fd_plus,
    &fst__dsfl,
    &fst__cfd,
    &fst__feddf,
    &fst__fedgen,
    &fst__fedproto,
    /* of a shared model beside one of each client's own */
    &fst__fedkd,
    /* alone */
    &fst__local,
};
enum { REGISTERED = sizeof registry / sizeof *registry };

const fst_strategy_ops *fst_strategy_at(size_t i)
{
    return i < REGISTERED ? registry[i] : NULL;
}

const fst_strategy_ops *fst_strategy_find(const char *name)
{
    for (size_t i = 0; i < REGISTERED; i++)
        if (strcmp(registry[i]->name, name) == 0)
            return registry[i];
    return NULL;
}

const char *fst_strategy_names(unsigned with, unsigned without, char *out, size_t size)
{
    size_t at = 0;
    *out = 0;
    for (size_t i = 0; i < REGISTERED; i++) {
        const fst_strategy_ops *s = registry[i];
        if ((s->flags & with) != with || (s->flags & without) || at + strlen(s->name) + 3 > size)
            continue;
        at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "", s->name);
    }
    return out;
}

fst_status fst_strategy_of(const fst_strategy_ops **out, const char *name, fst_error *err)
{
    char known[400];
    const fst_strategy_ops *ops = fst_strategy_find(name);
    if (!ops)
        return fst_fail(err, FST_E_CONFIG, "unknown strategy \"%s\"; known are %s", name,
                        fst_strategy_names(0, 0, known, sizeof known));
    *out = ops;
    return FST_OK;
}

/* ---- options ---- */

static fst_status check_value(const fst_strategy_ops *ops, const fst_option *o, double v, fst_error *err)
{
    double most = o->max;
    if (o->type == FST_OPTION_FLAG)
        most = 1;
    for (size_t n = 0; o->type == FST_OPTION_CHOICE && o->choices[n]; n++)
        most = (double)n;
    bool whole = o->type == FST_OPTION_NUMBER || (isfinite(v) && v == floor(v));
    if (whole && isfinite(v) && v <= most && (o->above ? v > o->min : v >= o->min))
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG, "%s: %s is %g; %s %s %g and at most %g is needed", ops->name, o->name, v,
                    o->type == FST_OPTION_NUMBER ? "a number" : "a whole number", o->above ? "above" : "of at least",
                    o->min, most);
}

fst_status fst_strategy_options(const fst_strategy_ops *ops, const fst_setting *settings, size_t n,
                                double value[FST_STRATEGY_OPTIONS], fst_error *err)
{
    double v[FST_STRATEGY_OPTIONS] = {0};
    for (size_t i = 0; ops->options && ops->options[i].name; i++)
        v[i] = ops->options[i].fallback;
    for (size_t k = 0; k < n; k++) {
        size_t i = 0;
        while (ops->options && ops->options[i].name && strcmp(ops->options[i].name, settings[k].name))
            i++;
        if (!ops->options || !ops->options[i].name)
            return fst_fail(err, FST_E_CONFIG, "strategy %s has no option \"%s\"", ops->name, settings[k].name);
        fst_status s = check_value(ops, &ops->options[i], settings[k].value, err);
        if (s)
            return s;
        v[i] = settings[k].value;
    }
    memcpy(value, v, sizeof v);
    return FST_OK;
}

fst_status fst_strategy_check_plan(const fst_strategy_ops *ops, const fst_setting *settings, size_t n,
                                   const fst_graph *graph, const fst_local_plan *plan, fst_error *err)
{
    double value[FST_STRATEGY_OPTIONS];
    fst_status st = fst_strategy_options(ops, settings, n, value, err);
    if (st || !ops->client || !ops->client->check)
        return st;
    st = ops->client->check(value, graph, plan, err);
    return st ? fst_fail_in(err, st, "strategy %s", ops->name) : FST_OK;
}

fst_status fst_strategy_check_cohort(const fst_strategy_ops *ops, const fst_setting *settings, size_t n, size_t cohort,
                                     fst_error *err)
{
    double value[FST_STRATEGY_OPTIONS];
    fst_status st = fst_strategy_options(ops, settings, n, value, err);
    size_t fewest = !st && ops->server && ops->server->fewest ? ops->server->fewest(value) : 1;
    if (st || cohort >= fewest)
        return st;
    return fst_fail(err, FST_E_CONFIG, "strategy %s: needs the updates of %zu clients in a round; there are %zu",
                    ops->name, fewest, cohort);
}

bool fst_strategy_keeps(const fst_strategy_ops *ops)
{
    return (ops->flags & FST_OWN_MODEL) || (ops->client && ops->client->save);
}

fst_status fst_strategy_check_drawn(const fst_strategy_ops *ops, const fst_setting *settings, size_t n, size_t drawn,
                                    size_t clients, fst_error *err)
{
    double value[FST_STRATEGY_OPTIONS];
    fst_status st = fst_strategy_options(ops, settings, n, value, err);
    size_t most = !st && ops->server && ops->server->most ? ops->server->most(value, clients) : clients;
    if (st || drawn <= most)
        return st;
    return fst_fail(err, FST_E_CONFIG,
                    "strategy %s: with these settings at most %zu of %zu clients can make a round, not "
                    "%zu: others must be training meanwhile",
                    ops->name, most, clients, drawn);
}

/* ---- an instance ---- */

static fst_status check_env(const fst_strategy_ops *ops, const fst_server_env *env, fst_error *err)
{
    if ((ops->flags & FST_SAME_MODEL) && !env->global)
        return fst_fail(err, FST_E_ARGUMENT, "strategy %s shares a model; none was given", ops->name);
    if ((ops->flags & FST_PUBLIC_DATA) && (!env->pub || !env->pub->count))
        return fst_fail(err, FST_E_CONFIG, "strategy %s needs public samples", ops->name);
    if (env->after && (!(ops->flags & FST_SAME_MODEL) || (ops->flags & FST_KEEPS_SHARED)))
        return fst_fail(err, FST_E_CONFIG, "strategy %s: nobody else may change the model that it shares", ops->name);
    if (ops->server->bytes < sizeof(fst_strategy))
        return fst_fail(err, FST_E_ARGUMENT, "strategy %s: an instance must start with fst_strategy", ops->name);
    return FST_OK;
}

fst_status fst_strategy_new(fst_strategy **out, const fst_strategy_ops *ops, const fst_setting *settings, size_t n,
                            const fst_server_env *env, fst_error *err)
{
    fst_status st = check_env(ops, env, err);
    if (!st)
        st = fst_strategy_check_cohort(ops, settings, n, env->clients, err);
    if (st)
        return st;
    fst_strategy *s = fst_calloc(1, ops->server->bytes);
    if (!s)
        return fst_fail_memory(err, ops->server->bytes);
    s->ops = ops;
    s->env = *env;
    st = fst_strategy_options(ops, settings, n, s->option, err);
    if (!st)
        st = ops->server->init(s, err);
    if (!st)
        st = fst__coded_server_new(&s->coded, s, err);
    if (st) {
        fst_strategy_free(s);
        return st;
    }
    *out = s;
    return FST_OK;
}

void fst_strategy_free(fst_strategy *s)
{
    if (!s)
        return;
    if (s->ops->server->release)
        s->ops->server->release(s);
    fst__coded_server_free(s->coded);
    fst_free(s);
}

bool fst_work_stopped(const fst_work *w)
{
    return w && w->stopped && w->stopped(w->ctx);
}

/* ---- a round ---- */

void fst_strategy_begin(fst_strategy *s, uint64_t round)
{
    s->round = round;
    s->updates = s->samples = 0;
    s->open = true;
    fst__coded_begin(s->coded, s);
    s->ops->server->begin(s, round);
}

void fst_strategy_abandon(fst_strategy *s)
{
    s->updates = s->samples = 0;
    s->open = false;
}

fst_status fst_strategy_down(const fst_strategy *s, uint32_t client, fst_message *out, fst_error *err)
{
    fst_message m = fst_message_of("");
    m.client = client;
    m.round = m.base = s->round;
    fst_status st = s->ops->server->down(s, client, &m, err);
    if (!st)
        st = fst__coded_down(s->coded, client, &m, err);
    if (st)
        return fst_fail_in(err, st, "strategy %s", s->ops->name);
    *out = m;
    return FST_OK;
}

static fst_status check_message(const fst_strategy *s, const fst_message *m, fst_error *err)
{
    if (!s->open)
        return fst_fail(err, FST_E_ARGUMENT, "no round is open: begin one first");
    if (m->round != s->round)
        return fst_fail(err, FST_E_MISMATCH, "is of round %llu, round %llu is open", (unsigned long long)m->round + 1,
                        (unsigned long long)s->round + 1);
    if (m->client >= s->env.clients)
        return fst_fail(err, FST_E_ARGUMENT, "is of client %lu of %lu", (unsigned long)m->client + 1,
                        (unsigned long)s->env.clients);
    if (m->samples < 1 || m->samples > FST_ACCUMULATOR_MAX_WEIGHT)
        return fst_fail(err, FST_E_ARGUMENT, "has %lld samples; 1 to 2147483647 are allowed", (long long)m->samples);
    return FST_OK;
}

fst_status fst_strategy_decode(fst_strategy *s, const fst_message *m, fst_message *out, fst_error *err)
{
    fst_message plain = *m;
    fst_status st = check_message(s, m, err);
    if (!st)
        st = fst__coded_read(s->coded, s, &plain, err);
    if (!st)
        *out = plain;
    return st;
}

uint64_t fst_strategy_raw_bytes(const fst_strategy *s, const fst_message *m)
{
    return fst__coded_raw_bytes(s->coded, m);
}

fst_status fst_strategy_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    fst_message plain;
    fst_status st = fst_strategy_decode(s, m, &plain, err);
    if (!st)
        st = s->ops->server->fold(s, &plain, err);
    if (st)
        return fst_fail_in(err, st, "the update");
    fst__coded_folded(s->coded, m->client);
    s->updates++;
    s->samples += (uint64_t)m->samples;
    return FST_OK;
}

/* ---- what comes after a strategy's step ---- */

/* Everything that a round changes, as it was before. */
struct before {
    fst_fed_state global;
    fst_buf strategy, after, coded;
};

static fst_status save_body(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    return s->ops->server->save ? s->ops->server->save(s, out, err) : FST_OK;
}

static fst_status remember(const fst_strategy *s, struct before *b, fst_error *err)
{
    fst_status st = FST_OK;
    if (s->env.global) {
        fst_fed_view v = fst_fed_state_view(s->env.global);
        st = fst_fed_state_init(&b->global, v.size, err);
        if (!st)
            fst_fed_state_copy(&b->global, &v);
    }
    if (!st)
        st = save_body(s, &b->strategy, err);
    if (!st && s->coded)
        st = fst__coded_save(s->coded, &b->coded, err);
    return st || !s->env.after ? st : s->env.after->save(s->env.after->ctx, &b->after, err);
}

static fst_status put_back(fst_strategy *s, const struct before *b, fst_error *err)
{
    fst_fed_view v = fst_fed_state_view(&b->global);
    if (s->env.global)
        fst_fed_state_copy(s->env.global, &v);
    fst_status st = FST_OK;
    if (s->ops->server->load)
        st = s->ops->server->load(s, b->strategy.len ? b->strategy.data : "", b->strategy.len, err);
    if (!st && s->coded)
        st = fst__coded_load(s->coded, b->coded.data, b->coded.len, err);
    return st || !s->env.after ? st : s->env.after->load(s->env.after->ctx, b->after.data, b->after.len, err);
}

static fst_status after_step(fst_strategy *s, const fst_work *work, const struct before *b, fst_aggregate_stats *done,
                             fst_error *err)
{
    double lane[FST__LANES] = {0};
    fst_status st = s->env.after->run(s->env.after->ctx, s->round, s->env.global, work, err);
    if (st)
        return st;
    fst__add_squares(lane, s->env.global->params, b->global.params, b->global.size.params);
    done->update_norm = sqrt(fst__sum_lanes(lane));
    return FST_OK;
}

static fst_status aggregate_and_after(fst_strategy *s, const fst_work *work, fst_aggregate_stats *done, fst_error *err)
{
    struct before b = {0};
    fst_status st = remember(s, &b, err);
    bool touched = !st;
    if (!st)
        st = s->ops->server->aggregate(s, work, done, err);
    if (!st && s->env.after)
        st = after_step(s, work, &b, done, err);
    if (!st && fst__coded_publishes(s->coded))
        st = fst__coded_publish(s->coded, s, b.global.params, &done->update_norm, err);
    if (st && touched) {
        fst_error why;
        if (put_back(s, &b, &why))
            fst_log(FST_LOG_ERROR, "%s", why.message);
    }
    fst_fed_state_release(&b.global);
    fst_buf_release(&b.strategy);
    fst_buf_release(&b.after);
    fst_buf_release(&b.coded);
    return st;
}

fst_status fst_strategy_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    fst_aggregate_stats done = {s->updates, s->samples, 0};
    if (!s->open || s->updates == 0)
        return fst_fail(err, FST_E_ARGUMENT, "nothing was folded in this round: there is nothing to aggregate");
    bool more = s->env.after || fst__coded_publishes(s->coded);
    fst_status st = more ? aggregate_and_after(s, work, &done, err) : s->ops->server->aggregate(s, work, &done, err);
    if (st)
        return fst_fail_in(err, st, "strategy %s", s->ops->name);
    s->open = false;
    if (stats)
        *stats = done;
    return FST_OK;
}

/* ---- saving ---- */

/* The envelope: "FSTSTRAT", the name padded to 24, three sizes, the body's length and its hash. Integers
 * are little-endian as everywhere on the machines that this runs on. */
struct envelope {
    char magic[8], name[24];
    uint64_t params, buffers, counters, length, hash;
};

static struct envelope envelope_of(const fst_strategy *s, const void *body, size_t len)
{
    struct envelope e = {.magic = {'F', 'S', 'T', 'S', 'T', 'R', 'A', 'T'}};
    for (size_t i = 0; i + 1 < sizeof e.name && s->ops->name[i]; i++)
        e.name[i] = s->ops->name[i];
    if (s->env.global) {
        e.params = s->env.global->size.params;
        e.buffers = s->env.global->size.buffers;
        e.counters = s->env.global->size.counters;
    }
    e.length = len;
    e.hash = fst_hash(body, len, 0).lo;
    return e;
}

/* What lasts, in place behind room for the envelope: an adapter may be large. */
static fst_status save_in_place(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    struct envelope e = {0};
    size_t at = out->len, body = at + sizeof e;
    fst_status st = fst_buf_append(out, &e, sizeof e, err);
    if (!st)
        st = save_body(s, out, err);
    uint64_t own = out->len - body;
    if (!st && s->env.after)
        st = s->env.after->save(s->env.after->ctx, out, err);
    if (!st && s->env.after) /* last, so that the two come apart again */
        st = fst_buf_append(out, &own, sizeof own, err);
    uint64_t coded = out->len;
    if (!st && s->coded)
        st = fst__coded_save(s->coded, out, err);
    coded = out->len - coded;
    if (!st && s->coded) /* likewise */
        st = fst_buf_append(out, &coded, sizeof coded, err);
    if (st)
        return st;
    e = envelope_of(s, out->data + body, out->len - body);
    memcpy(out->data + at, &e, sizeof e);
    return FST_OK;
}

fst_status fst_strategy_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    size_t before = out->len;
    if (s->open && s->updates)
        return fst_fail(err, FST_E_ARGUMENT,
                        "round %llu is open with %llu updates folded: a strategy is saved between rounds",
                        (unsigned long long)s->round + 1, (unsigned long long)s->updates);
    fst_status st = save_in_place(s, out, err);
    if (st)
        out->len = before;
    return st;
}

static fst_status load_own(fst_strategy *s, const unsigned char *body, size_t len, fst_error *err)
{
    if (s->ops->server->load)
        return s->ops->server->load(s, body, len, err);
    return len ? fst_fail(err, FST_E_FORMAT, "%zu bytes too many: %s keeps no state", len, s->ops->name) : FST_OK;
}

static fst_status load_both(fst_strategy *s, const unsigned char *body, size_t len, fst_error *err)
{
    uint64_t own = 0;
    size_t both = len < sizeof own ? 0 : len - sizeof own;
    if (len >= sizeof own)
        memcpy(&own, body + both, sizeof own);
    if (len < sizeof own || own > both)
        return fst_fail(err, FST_E_FORMAT, "the saved strategy does not hold what comes after its step");
    fst_buf before = {0};
    fst_status st = s->env.after->save(s->env.after->ctx, &before, err);
    if (!st)
        st = s->env.after->load(s->env.after->ctx, body + own, both - (size_t)own, err);
    fst_error why;
    if (!st && (st = load_own(s, body, (size_t)own, err)) != FST_OK &&
        s->env.after->load(s->env.after->ctx, before.data, before.len, &why))
        fst_log(FST_LOG_ERROR, "%s", why.message);
    fst_buf_release(&before);
    return st;
}

/* The strategy's part, with what comes after its step. */
static fst_status load_step(fst_strategy *s, const unsigned char *body, size_t len, fst_error *err)
{
    return s->env.after ? load_both(s, body, len, err) : load_own(s, body, len, err);
}

static fst_status load_coded(fst_strategy *s, const unsigned char *body, size_t len, fst_error *err)
{
    uint64_t coded = 0;
    fst_buf before = {0};
    fst_error why;
    size_t both = len < sizeof coded ? 0 : len - sizeof coded;
    if (len >= sizeof coded)
        memcpy(&coded, body + both, sizeof coded);
    if (len < sizeof coded || coded > both)
        return fst_fail(err, FST_E_FORMAT, "the saved strategy does not hold what its codecs keep");
    size_t step = both - (size_t)coded;
    fst_status st = fst__coded_save(s->coded, &before, err);
    if (!st)
        st = fst__coded_load(s->coded, body + step, (size_t)coded, err);
    if (!st && (st = load_step(s, body, step, err)) != FST_OK &&
        fst__coded_load(s->coded, before.data, before.len, &why))
        fst_log(FST_LOG_ERROR, "%s", why.message);
    fst_buf_release(&before);
    return st;
}

fst_status fst_strategy_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    struct envelope got;
    if (len < sizeof got)
        return fst_fail(err, FST_E_FORMAT, "a saved strategy has at least %zu bytes, not %zu", sizeof got, len);
    memcpy(&got, data, sizeof got);
    const unsigned char *body = (const unsigned char *)data + sizeof got;
    size_t body_len = len - sizeof got;
    struct envelope want = envelope_of(s, body, body_len);
    if (memcmp(got.magic, want.magic, sizeof got.magic) != 0)
        return fst_fail(err, FST_E_FORMAT, "these bytes are no saved strategy");
    if (got.length != want.length || got.hash != want.hash)
        return fst_fail(err, FST_E_FORMAT, "the saved strategy is cut short or was changed");
    if (memcmp(got.name, want.name, sizeof got.name) != 0)
        return fst_fail(err, FST_E_MISMATCH, "saved by the strategy \"%.*s\", not by \"%s\"",
                        (int)strnlen(got.name, sizeof got.name), got.name, s->ops->name);
    if (got.params != want.params || got.buffers != want.buffers || got.counters != want.counters)
        return fst_fail(err, FST_E_MISMATCH, "saved for a model of another size");
    if (s->open && s->updates)
        return fst_fail(err, FST_E_ARGUMENT, "a strategy is loaded between rounds");
    return s->coded ? load_coded(s, body, body_len, err) : load_step(s, body, body_len, err);
}

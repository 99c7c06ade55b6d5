/* FedKD (Wu, Wu, Lyu, Huang, Xie, Communication-efficient federated learning via knowledge distillation, Nature
 * Communications 13, 2022). Each client has a large network of its own, the mentor, which it keeps with its optimiser's
 * moments, and a small one that all share, the mentee; the two learn from each other (mutual.c). What travels is the
 * mentee's change, its matrices cut down by a singular value decomposition (packed_change.c) to the fewest values that
 * hold more than a share T of the energy; T climbs from energy_start to energy_end over energy_rounds rounds:
 *
 *   client  y = x, trained; sends y - x, packed
 *   server  d = sum p_k (y_k - x), packed by the same rule; x += d unpacked; d goes down
 *
 * The paper sends a gradient a step; here it is the change of a round, which with one step of SGD is that gradient
 * times the rate. Running statistics and counters go whole. Only a client whose update is in d has the x that d starts
 * from, so others get x itself; the server remembers who they are, a byte a client.
 *
 * Data flow: down "state" (x) or "factors" (d) -> mentee -> mutual training -> up "factors" -> exact mean -> packed ->
 * x and the next d. base counts the steps that x has taken. */
#include <math.h>
#include <string.h>

#include "packed_change.h"
#include "mutual.h"

enum { HIDDEN_WEIGHT, ENERGY_START, ENERGY_END, ENERGY_ROUNDS };
static const fst_option options[] = {
    [HIDDEN_WEIGHT] = {"hidden_weight", FST_OPTION_NUMBER, .fallback = 1, .max = 1e6,
                       .help = "of the difference of mentor's and mentee's features in their losses; 0: only answers "
                               "are compared"},
    [ENERGY_START] = {"energy_start", FST_OPTION_NUMBER, .fallback = 0.95, .above = true, .max = 1,
                      .help = "energy that a packed change holds in the first round; 1: all"},
    [ENERGY_END] = {"energy_end", FST_OPTION_NUMBER, .fallback = 0.98, .above = true, .max = 1,
                    .help = "the same from round energy_rounds on"},
    [ENERGY_ROUNDS] = {"energy_rounds", FST_OPTION_WHOLE, .fallback = 10, .min = 1, .max = 1e6,
                       .help = "rounds over which it climbs from one to the other"},
    {0},
};

static double energy_of(const double *option, uint64_t round)
{
    double rounds = option[ENERGY_ROUNDS], t = rounds > 1 ? (double)round / (rounds - 1) : 1;
    return option[ENERGY_START] + (option[ENERGY_END] - option[ENERGY_START]) * (t < 1 ? t : 1);
}

/* ---- a packed change ---- */

struct packed {
    struct fst__matrices matrices;
    int32_t *rank;
    float *factor, *change; /* params each */
    size_t floats;          /* of factor */
};

static fst_status packed_init(struct packed *p, const fst_graph *g, fst_error *err)
{
    fst_status st = fst__matrices_init(&p->matrices, g, err);
    if (st)
        return st;
    size_t n = p->matrices.params;
    p->rank = fst_calloc(p->matrices.count, sizeof *p->rank);
    p->factor = fst_calloc(n, sizeof *p->factor);
    p->change = fst_calloc(n, sizeof *p->change);
    return p->rank && p->factor && p->change ? FST_OK : fst_fail_memory(err, 2 * n * sizeof *p->factor);
}

static void packed_release(struct packed *p)
{
    fst__matrices_release(&p->matrices);
    fst_free(p->rank);
    fst_free(p->factor);
    fst_free(p->change);
}

/* factor, of change. */
static void pack(struct packed *p, double energy)
{
    p->floats = fst__change_pack(&p->matrices, p->change, energy, p->rank, p->factor);
}

static void unpack(struct packed *p)
{
    fst__change_unpack(&p->matrices, p->rank, p->factor, p->change);
}

static void step(float *x, const float *change, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] += change[i];
}

/* Adds it, and what goes whole: buffers and counters of `rest`. */
static fst_status send(const struct packed *p, const fst_fed_view *rest, fst_message *m, fst_error *err)
{
    fst_message_name(m, "factors");
    fst_status st = fst_message_add(m, "rank", FST_I32, FST_SHAPE((int64_t)p->matrices.count), p->rank, err);
    if (!st)
        st = fst_message_add(m, "factors", FST_F32, FST_SHAPE((int64_t)p->floats), p->factor, err);
    if (!st)
        st = fst_message_add(m, "buffers", FST_F32, FST_SHAPE((int64_t)rest->size.buffers), rest->buffers, err);
    return st ? st
              : fst_message_add(m, "counters", FST_I64, FST_SHAPE((int64_t)rest->size.counters), rest->counters, err);
}

/* p->change becomes what was sent, and rest's buffers and counters views of the message. */
static fst_status receive(struct packed *p, const fst_message *m, fst_fed_view *rest, fst_error *err)
{
    const fst_message_tensor *t = fst_message_find(m, "factors");
    const void *rank, *factor, *buffers, *counters;
    int64_t floats = t && t->shape.rank == 1 ? t->shape.dim[0] : 0;
    fst_status st = fst_message_get(m, "rank", FST_I32, FST_SHAPE((int64_t)p->matrices.count), &rank, err);
    if (!st)
        st = fst_message_get(m, "factors", FST_F32, FST_SHAPE(floats), &factor, err);
    if (!st)
        st = fst_message_get(m, "buffers", FST_F32, FST_SHAPE((int64_t)rest->size.buffers), &buffers, err);
    if (!st)
        st = fst_message_get(m, "counters", FST_I64, FST_SHAPE((int64_t)rest->size.counters), &counters, err);
    if (!st)
        st = fst__change_check(&p->matrices, rank, (size_t)floats, err);
    if (!st)
        st = fst_accumulator_check(factor, (size_t)floats, err);
    if (st)
        return st;
    fst__change_unpack(&p->matrices, rank, factor, p->change);
    rest->params = p->change;
    rest->buffers = buffers;
    rest->counters = counters;
    return fst_accumulator_check(p->change, p->matrices.params, err);
}

/* ---- the server half ---- */

struct fedkd {
    struct fst__averaging base; /* its sum of parameters is that of the changes */
    struct packed arrived;      /* room for one client's */
    struct packed last;         /* d of the last step */
    uint64_t steps;             /* of x so far */
    uint8_t *in_last, *in_open; /* by client: is its update in the last step; in the open round */
};

static fst_status fedkd_init(fst_strategy *s, fst_error *err)
{
    struct fedkd *f = (struct fedkd *)s;
    if (!s->env.graph)
        return fst_fail(err, FST_E_ARGUMENT, "strategy fedkd needs the shared network");
    fst_status st = fst__averaging_init(s, err);
    if (!st)
        st = packed_init(&f->arrived, s->env.graph, err);
    if (!st)
        st = packed_init(&f->last, s->env.graph, err);
    f->in_last = fst_calloc(s->env.clients, 1);
    f->in_open = fst_calloc(s->env.clients, 1);
    return st || (f->in_last && f->in_open) ? st : fst_fail_memory(err, 2 * (size_t)s->env.clients);
}

static void fedkd_release(fst_strategy *s)
{
    struct fedkd *f = (struct fedkd *)s;
    packed_release(&f->arrived);
    packed_release(&f->last);
    fst_free(f->in_last);
    fst_free(f->in_open);
    fst__averaging_release(s);
}

static void fedkd_begin(fst_strategy *s, uint64_t round)
{
    struct fedkd *f = (struct fedkd *)s;
    fst__averaging_begin(s, round);
    memset(f->in_open, 0, s->env.clients);
}

static fst_status fedkd_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    const struct fedkd *f = (const struct fedkd *)s;
    fst_fed_view v = fst_fed_state_view(s->env.global);
    m->base = f->steps;
    return f->in_last[client] ? send(&f->last, &v, m, err) : fst__averaging_down(s, client, m, err);
}

static fst_status fedkd_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct fedkd *f = (struct fedkd *)s;
    fst_fed_view v = {.size = s->env.global->size};
    fst_status st = receive(&f->arrived, m, &v, err);
    if (!st)
        st = fst__average_fold(&f->base.average, &v, m->samples, err);
    if (!st)
        f->in_open[m->client] = 1;
    return st;
}

static fst_status fedkd_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct fedkd *f = (struct fedkd *)s;
    fst_fed_state *x = s->env.global;
    double lane[FST__LANES] = {0};
    (void)work;
    fst_status st = fst_accumulator_mean(&f->base.average.params, f->last.change, err);
    if (st)
        return st;
    pack(&f->last, energy_of(s->option, s->round));
    unpack(&f->last);
    memcpy(f->arrived.change, x->params, x->size.params * sizeof *x->params);
    step(x->params, f->last.change, x->size.params);
    fst__add_squares(lane, x->params, f->arrived.change, x->size.params);
    stats->update_norm = sqrt(fst__sum_lanes(lane));
    uint8_t *in = f->in_last;
    f->in_last = f->in_open;
    f->in_open = in;
    f->steps++;
    return fst__average_publish_rest(&f->base.average, x, err);
}

static fst_status fedkd_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    const struct fedkd *f = (const struct fedkd *)s;
    const struct packed *p = &f->last;
    uint64_t floats = p->floats;
    fst_status st = fst_buf_append(out, &f->steps, sizeof f->steps, err);
    if (!st)
        st = fst_buf_append(out, &floats, sizeof floats, err);
    if (!st)
        st = fst_buf_append(out, p->rank, p->matrices.count * sizeof *p->rank, err);
    if (!st)
        st = fst_buf_append(out, p->factor, p->floats * sizeof *p->factor, err);
    return st ? st : fst_buf_append(out, f->in_last, s->env.clients, err);
}

static fst_status check_saved(const struct fedkd *f, const struct packed *p, const uint8_t *in, fst_error *err)
{
    for (uint32_t i = 0; i < f->base.base.env.clients; i++)
        if (in[i] > 1)
            return fst_fail(err, FST_E_FORMAT, "client %lu is in the last step %u times", (unsigned long)i + 1, in[i]);
    if (fst__change_check(&p->matrices, p->rank, p->floats, err) || fst_accumulator_check(p->factor, p->floats, err))
        return fst_fail_in(err, FST_E_FORMAT, "the saved step");
    return FST_OK;
}

static fst_status fedkd_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    struct fedkd *f = (struct fedkd *)s;
    struct packed *p = &f->arrived; /* room: what is shared is untouched until all is checked */
    const uint8_t *at = data;
    uint64_t head[2] = {0};
    size_t ranks = p->matrices.count * sizeof *p->rank, fixed = sizeof head + ranks + s->env.clients;
    if (len >= fixed)
        memcpy(head, at, sizeof head);
    if (len < fixed || head[1] > p->matrices.params || len != fixed + head[1] * sizeof *p->factor)
        return fst_fail(err, FST_E_FORMAT, "the saved step has %zu bytes, which are not those of %zu clients", len,
                        (size_t)s->env.clients);
    p->floats = (size_t)head[1];
    memcpy(p->rank, at + sizeof head, ranks);
    memcpy(p->factor, at + sizeof head + ranks, p->floats * sizeof *p->factor);
    at += len - s->env.clients;
    fst_status st = head[0] ? check_saved(f, p, at, err) : FST_OK;
    if (st)
        return st;
    memcpy(f->last.rank, p->rank, ranks);
    memcpy(f->last.factor, p->factor, p->floats * sizeof *p->factor);
    memcpy(f->in_last, at, s->env.clients);
    f->last.floats = p->floats;
    f->steps = head[0];
    return FST_OK;
}

static const fst_server_ops server = {
    .bytes = sizeof(struct fedkd),
    .init = fedkd_init,
    .release = fedkd_release,
    .begin = fedkd_begin,
    .down = fedkd_down,
    .fold = fedkd_fold,
    .aggregate = fedkd_aggregate,
    .save = fedkd_save,
    .load = fedkd_load,
};

/* ---- the client half ---- */

struct room { /* for clients of one network */
    struct fst__mutual mutual;
    struct packed packed;
    fst_fed_state x; /* as it was sent */
};

struct fedkd_client {
    fst_client_half base;
    struct room *room;
    size_t rooms;
    struct room *now; /* of the client that is played */
    uint64_t steps;   /* of its x; valid unless base.first */
};

static fst_status fedkd_check(const double *option, const fst_graph *graph, const fst_local_plan *plan, fst_error *err)
{
    if (plan->keep_optim)
        return fst_fail(err, FST_E_CONFIG,
                        "the mentor's optimiser is kept and the mentee's is fresh in every round, whatever "
                        "optimizer_state says: leave it out");
    if (option[HIDDEN_WEIGHT] == 0 || fst__last_width(graph))
        return FST_OK;
    return fst_fail(
        err, FST_E_CONFIG,
        "mentor and mentee compare the features that their last layers read, and this network has none: set "
        "hidden_weight to 0");
}

static void room_release(struct room *r)
{
    fst__mutual_release(&r->mutual);
    packed_release(&r->packed);
    fst_fed_state_release(&r->x);
}

static void fedkd_client_release(fst_client_half *h)
{
    struct fedkd_client *c = (struct fedkd_client *)h;
    for (size_t i = 0; i < c->rooms; i++)
        room_release(&c->room[i]);
    fst_free(c->room);
}

static fst_status room_of(struct fedkd_client *c, fst_error *err)
{
    const fst_client_env *e = c->base.env;
    if (!e->shared)
        return fst_fail(err, FST_E_ARGUMENT, "strategy fedkd needs the shared network beside the client's own");
    for (size_t i = 0; i < c->rooms; i++) {
        const struct fst__mutual *m = &c->room[i].mutual;
        c->now = &c->room[i];
        if (m->own == e->graph && m->shared == e->shared && m->batch == e->plan.batch_size)
            return FST_OK;
    }
    struct room *more = fst_realloc(c->room, c->rooms * sizeof *more, (c->rooms + 1) * sizeof *more);
    if (!more)
        return fst_fail_memory(err, (c->rooms + 1) * sizeof *more);
    c->room = more;
    struct room *r = c->now = &more[c->rooms];
    *r = (struct room){.packed = {.floats = 0}};
    fst_status st = fst__mutual_init(&r->mutual, e->graph, e, c->base.option[HIDDEN_WEIGHT], err);
    if (!st)
        st = packed_init(&r->packed, e->shared, err);
    if (!st)
        st = fst_fed_state_init(&r->x, fst_graph_fed_size(e->shared), err);
    if (st)
        room_release(r);
    else
        c->rooms++;
    return st;
}

/* What is kept, in this order: visits each part. */
typedef fst_status (*part_fn)(void *ctx, void *part, size_t bytes, fst_error *err);
static fst_status visit(struct fedkd_client *c, part_fn fn, void *ctx, fst_error *err)
{
    struct room *r = c->now;
    fst_optim *o = &r->mutual.partner[FST__MENTOR].optim;
    size_t own = r->x.size.params, map = r->mutual.mentee.size.params - own;
    const struct {
        void *part;
        size_t bytes;
    } parts[] = {
        {&c->steps, sizeof c->steps},
        {&o->steps, sizeof o->steps},
        {r->x.params, 4 * own},
        {r->x.buffers, 4 * r->x.size.buffers},
        {r->x.counters, 8 * r->x.size.counters},
        {r->mutual.mentee.params + own, 4 * map},
        {o->moment1, o->moment1 ? 4 * o->count : 0},
        {o->moment2, o->moment2 ? 4 * o->count : 0},
    };
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < sizeof parts / sizeof *parts; i++)
        st = parts[i].bytes ? fn(ctx, parts[i].part, parts[i].bytes, err) : FST_OK;
    return st;
}

static fst_status add_size(void *ctx, void *part, size_t bytes, fst_error *err)
{
    (void)part, (void)err;
    *(size_t *)ctx += bytes;
    return FST_OK;
}

static fst_status put(void *ctx, void *part, size_t bytes, fst_error *err)
{
    return fst_buf_append(ctx, part, bytes, err);
}

static fst_status get(void *ctx, void *part, size_t bytes, fst_error *err)
{
    const char **at = ctx;
    (void)err;
    memcpy(part, *at, bytes);
    *at += bytes;
    return FST_OK;
}

static fst_status fedkd_client_load(fst_client_half *h, const void *data, size_t len, fst_error *err)
{
    struct fedkd_client *c = (struct fedkd_client *)h;
    const char *at = data;
    size_t want = 0;
    fst_status st = room_of(c, err);
    if (!st)
        st = visit(c, add_size, &want, err);
    if (!st && len && len != want)
        st = fst_fail(err, FST_E_FORMAT, "mentee and optimiser have %zu bytes, %zu are needed", len, want);
    if (st)
        return st;
    struct fst__mutual *m = &c->now->mutual;
    fst_optim_reset(&m->partner[FST__MENTEE].optim);
    fst_optim_reset(&m->partner[FST__MENTOR].optim);
    c->steps = 0;
    memset(m->mentee.params, 0, m->mentee.size.params * sizeof *m->mentee.params);
    return len ? visit(c, get, &at, err) : FST_OK;
}

static fst_status fedkd_client_save(const fst_client_half *h, fst_buf *out, fst_error *err)
{
    struct fedkd_client *c = (struct fedkd_client *)h;
    return c->now ? visit(c, put, out, err) : FST_OK;
}

/* x becomes what the server shares: what it sends, or the kept one and the step that it sends. */
static fst_status take_x(struct fedkd_client *c, const fst_message *down, fst_error *err)
{
    struct room *r = c->now;
    fst_fed_view v = {.size = r->x.size};
    if (strcmp(down->kind, "factors")) {
        fst_status st = fst_message_state(down, r->x.size, &v, err);
        if (st)
            return st;
        fst_fed_state_copy(&r->x, &v);
    } else {
        fst_status st = receive(&r->packed, down, &v, err);
        if (!st && (c->base.first || (c->steps + 1 != down->base && c->steps != down->base)))
            st = fst_fail(err, FST_E_MISMATCH,
                          "is step %llu of the shared model, and this client has not the one before",
                          (unsigned long long)down->base);
        if (st)
            return st;
        if (c->steps != down->base) /* it has taken this step when a round was given up in between */
            step(r->x.params, v.params, r->x.size.params);
        v.params = r->x.params;
        if (v.size.buffers)
            memcpy(r->x.buffers, v.buffers, v.size.buffers * sizeof *r->x.buffers);
        if (v.size.counters)
            memcpy(r->x.counters, v.counters, v.size.counters * sizeof *r->x.counters);
    }
    c->steps = down->base;
    return FST_OK;
}

static fst_status fedkd_work(fst_client_half *h, const fst_message *down, fst_message *up, fst_error *err)
{
    struct fedkd_client *c = (struct fedkd_client *)h;
    struct room *r = c->now;
    fst_fed_state *y = &r->mutual.mentee;
    fst_local_result result = {0};
    fst_status st = take_x(c, down, err);
    if (st)
        return fst_fail_in(err, st, "what the server sent");
    fst_fed_view x = fst_fed_state_view(&r->x);
    memcpy(y->params, x.params, x.size.params * sizeof *y->params);
    if (x.size.buffers)
        memcpy(y->buffers, x.buffers, x.size.buffers * sizeof *y->buffers);
    if (x.size.counters)
        memcpy(y->counters, x.counters, x.size.counters * sizeof *y->counters);
    st = fst__mutual_train(&r->mutual, h, &result, err);
    for (size_t i = 0; !st && i < x.size.params; i++)
        r->packed.change[i] = y->params[i] - x.params[i];
    if (!st)
        st = fst_accumulator_check(r->packed.change, x.size.params, err);
    if (st)
        return st;
    pack(&r->packed, energy_of(h->option, h->round));
    up->loss = result.loss;
    up->accuracy = result.accuracy;
    const fst_fed_view rest = {y->params, y->buffers, y->counters, x.size};
    return send(&r->packed, &rest, up, err);
}

static const fst_client_ops client = {
    .bytes = sizeof(struct fedkd_client),
    .check = fedkd_check,
    .release = fedkd_client_release,
    .work = fedkd_work,
    .save = fedkd_client_save,
    .load = fedkd_client_load,
};

const fst_strategy_ops fst__fedkd = {
    .name = "fedkd",
    .summary =
        "a small shared model and a large one of each client learn from each other; changes go as low-rank factors",
    .leaks =
        "The server sees the change of every client's small model, cut down to a few singular values, and its number "
        "of samples, from which training samples can be reconstructed in part; the large models stay at the "
        "clients.",
    .options = options,
    .flags = FST_SAME_MODEL | FST_OWN_MODEL | FST_OWN_LOSS | FST_KEEPS_SHARED | FST_MENTORS,
    .server = FST__HALF(&server),
    .client = FST__HALF(&client),
};

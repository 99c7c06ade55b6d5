/* One driver of rounds for both worlds: events and messages go to the round engine and the strategy, orders come out. A
 * simulation and a fleet are loops around it. There are no threads, sockets, files or clocks here.
 *
 * Data flow: fst_server_event -> engine event -> its actions, carried out at once (`drain`): fold, open, close; what
 * only the caller can do goes into a queue of orders. What is known of a client of the cohort stands in its slot, in
 * the order of selection, and is added up in that order when the round closes, so that no bit depends on who was ready
 * first. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fed_private.h"

/* What is remembered of one client of the cohort. */
struct slot {
    uint32_t client;
    bool uploaded, folded;
    int64_t samples;
    double loss, accuracy, seconds;
    uint64_t down, up; /* bytes */
    uint64_t raw_down, raw_up;
    char *lost; /* why, of one that was lost */
};

struct fst_server {
    fst_round_spec spec;
    fst_strategy *strategy;
    fst_round_engine *engine;
    const char *noun;
    bool begun; /* an event came */
    double now;

    fst_order *order; /* a queue */
    size_t orders, fetched, order_room;

    struct slot *slot; /* of the open round, in the order of selection */
    size_t slots, room;
    uint32_t *slot_of; /* [clients]: valid for clients of the round */
    fst_status lost_status[FST_REPORT_LOST];
    size_t lost_slot[FST_REPORT_LOST]; /* of open.lost_first */
    fst_round_report open;             /* is filled while the round is open */

    fst_round_report done;   /* of the round that closed last */
    uint32_t *reported;      /* [room] */
    fst_client_report *told; /* [room]; their texts are in why */
    char **why;              /* [room] */
    size_t whys;

    const fst_message *message; /* of the event at hand */
    bool fold;                  /* the engine wants it folded */
    fst_fed_why discarded;      /* or why it does not count */
    fst_fed_why failed;
    uint64_t failed_count;
    bool has_failed;
};

static const char *noun(const struct fst_server *s)
{
    return s->noun ? s->noun : "client";
}

/* ---- room ---- */

static fst_status grow(void **p, size_t have, size_t want, size_t size, fst_error *err)
{
    void *n = fst_realloc(*p, have * size, want * size);
    if (!n)
        return fst_fail_memory(err, want * size);
    memset((char *)n + have * size, 0, (want - have) * size);
    *p = n;
    return FST_OK;
}

static fst_status push(struct fst_server *s, fst_order o, fst_error *err)
{
    if (s->fetched == s->orders)
        s->fetched = s->orders = 0;
    if (s->orders == s->order_room) {
        size_t n = s->order_room ? 2 * s->order_room : 16;
        fst_status st = grow((void **)&s->order, s->order_room, n, sizeof *s->order, err);
        if (st)
            return st;
        s->order_room = n;
    }
    s->order[s->orders++] = o;
    return FST_OK;
}

static fst_status add_slot(struct fst_server *s, uint32_t client, fst_error *err)
{
    if (s->slots == s->room) {
        size_t n = s->room ? 2 * s->room : 16;
        fst_status st = grow((void **)&s->slot, s->room, n, sizeof *s->slot, err);
        if (!st)
            st = grow((void **)&s->reported, s->room, n, sizeof *s->reported, err);
        if (!st)
            st = grow((void **)&s->told, s->room, n, sizeof *s->told, err);
        if (!st)
            st = grow((void **)&s->why, s->room, n, sizeof *s->why, err);
        if (st)
            return st;
        s->room = n;
    }
    s->slot_of[client] = (uint32_t)s->slots;
    s->slot[s->slots++] = (struct slot){.client = client, .loss = NAN, .accuracy = NAN};
    return FST_OK;
}

/* The slot of a client in the open round; NULL when it was not selected. */
static struct slot *find_slot(const struct fst_server *s, uint32_t client)
{
    if (client >= s->spec.clients || s->slot_of[client] >= s->slots)
        return NULL;
    struct slot *c = &s->slot[s->slot_of[client]];
    return c->client == client ? c : NULL;
}

/* ---- those that were lost ---- */

/* Keeps the messages of the first few slots, whichever comes first in time. */
static void note_lost(struct fst_server *s, struct slot *c, fst_status why, const char *message)
{
    fst_round_report *r = &s->open;
    size_t slot = (size_t)(c - s->slot);
    uint32_t at = r->lost_named;
    r->lost++;
    fst_free(c->lost);
    c->lost = fst_strdup(message);
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
    r->lost_first[at].client = c->client;
    snprintf(r->lost_first[at].message, sizeof r->lost_first[at].message, "%s", message);
}

/* ---- opening and closing a round ---- */

static void open_round(struct fst_server *s, uint64_t round)
{
    for (size_t i = 0; i < s->slots; i++)
        fst_free(s->slot[i].lost);
    s->slots = 0;
    s->open = (fst_round_report){.round = round};
    fst_strategy_begin(s->strategy, round);
}

static void forget_texts(struct fst_server *s)
{
    for (size_t i = 0; i < s->whys; i++)
        fst_free(s->why[i]);
    s->whys = 0;
}

static void tell_client(struct fst_server *s, size_t i)
{
    struct slot *c = &s->slot[i];
    s->told[i] = (fst_client_report){.client = c->client,
                                     .reported = c->folded,
                                     .samples = c->samples,
                                     .loss = c->loss,
                                     .accuracy = c->accuracy,
                                     .bytes_down = c->down,
                                     .bytes_up = c->up,
                                     .raw_down = c->raw_down,
                                     .raw_up = c->raw_up,
                                     .seconds = c->seconds};
    s->why[i] = c->lost;
    c->lost = NULL;
    if (!c->folded)
        s->told[i].lost = s->why[i] ? s->why[i] : "it did not answer";
}

/* The report of the round that closes: sums over the slots in their order. */
static fst_status close_report(struct fst_server *s, fst_error *err)
{
    fst_round_report *r = &s->open;
    double loss = 0, accuracy = 0;
    forget_texts(s);
    r->reported = 0;
    for (size_t i = 0; i < s->slots; i++) {
        const struct slot *c = &s->slot[i];
        r->bytes_up += c->up;
        r->bytes_down += c->down;
        r->raw_up += c->raw_up;
        r->raw_down += c->raw_down;
        tell_client(s, i);
        if (!c->folded)
            continue;
        s->reported[r->reported++] = c->client;
        r->samples += (uint64_t)c->samples;
        loss += c->loss * (double)c->samples;
        accuracy += c->accuracy * (double)c->samples;
    }
    s->whys = s->slots;
    r->by_client = s->told;
    r->reported_client = s->reported;
    r->selected = (uint32_t)s->slots;
    r->loss = r->samples ? loss / (double)r->samples : NAN;
    r->accuracy = r->samples ? accuracy / (double)r->samples : NAN;
    s->done = *r;
    return push(s, (fst_order){.kind = FST_ORDER_EVALUATE, .round = r->round}, err);
}

/* ---- the engine's actions ---- */

static fst_status announce(struct fst_server *s, const fst_fed_action *a, fst_error *err)
{
    fst_message m;
    fst_status st = find_slot(s, a->client) ? FST_OK : add_slot(s, a->client, err);
    if (!st)
        st = fst_strategy_down(s->strategy, a->client, &m, err);
    if (st)
        return st;
    find_slot(s, a->client)->down += fst_message_bytes(&m);
    find_slot(s, a->client)->raw_down += fst_strategy_raw_bytes(s->strategy, &m);
    return push(s, (fst_order){.kind = FST_ORDER_SEND, .client = a->client, .round = a->round, .why = a->why}, err);
}

static fst_status close_round(struct fst_server *s, const fst_fed_action *a, fst_error *err)
{
    s->open.why = a->why;
    if (a->why != FST_WHY_NO_QUORUM || s->spec.policy != FST_QUORUM_SKIP)
        return FST_OK;
    fst_strategy_abandon(s->strategy);
    return close_report(s, err);
}

static fst_status act(struct fst_server *s, const fst_fed_action *a, fst_error *err)
{
    switch (a->kind) {
    case FST_ACTION_LOG:
        if (a->why == FST_WHY_OPENED)
            open_round(s, a->round);
        return FST_OK;
    case FST_ACTION_ANNOUNCE:
        return announce(s, a, err);
    case FST_ACTION_FOLD:
        s->fold = true;
        return FST_OK;
    case FST_ACTION_DISCARD:
        s->discarded = a->why;
        return FST_OK;
    case FST_ACTION_CLOSE:
        return close_round(s, a, err);
    case FST_ACTION_AGGREGATE:
        return push(s, (fst_order){.kind = FST_ORDER_AGGREGATE, .round = a->round}, err);
    case FST_ACTION_PUBLISH:
        return close_report(s, err);
    case FST_ACTION_SET_TIMER:
        return push(s, (fst_order){.kind = FST_ORDER_TIMER, .round = a->round, .at = a->at}, err);
    case FST_ACTION_FINISHED:
        return push(s, (fst_order){.kind = FST_ORDER_FINISHED, .round = a->round}, err);
    case FST_ACTION_FAILED:
        s->has_failed = true;
        s->failed = a->why;
        s->failed_count = a->count;
        s->open.round = a->round;
        return push(s, (fst_order){.kind = FST_ORDER_FAILED, .round = a->round, .why = a->why}, err);
    }
    return FST_OK;
}

static fst_status drain(struct fst_server *s, fst_error *err)
{
    fst_fed_action a;
    fst_status st = FST_OK;
    while (!st && fst_round_next_action(s->engine, &a))
        st = act(s, &a, err);
    return st;
}

static fst_status tell(struct fst_server *s, const fst_fed_event *ev, fst_error *err)
{
    fst_status st = fst_round_event(s->engine, ev, err);
    return st ? st : drain(s, err);
}

/* ---- events ---- */

static bool refuses(fst_status st)
{
    return st == FST_E_NUMERIC || st == FST_E_MISMATCH || st == FST_E_ARGUMENT;
}

/* The engine takes the update: so does the strategy, or it refuses it. */
static fst_status fold(struct fst_server *s, double now, fst_error *err)
{
    const fst_message *m = s->message;
    struct slot *c = find_slot(s, m->client);
    fst_error why = {0};
    fst_fed_event ev = {.kind = FST_EVENT_FOLDED, .now = now, .client = m->client, .round = m->round};
    c->uploaded = true;
    c->samples = ev.samples = m->samples;
    c->loss = m->loss;
    c->accuracy = m->accuracy;
    c->up += fst_message_bytes(m);
    fst_status st = fst_strategy_fold(s->strategy, m, &why);
    if (st && !refuses(st))
        return fst_fail(err, st, "%s %llu: %s", noun(s), (unsigned long long)m->client + 1, why.message);
    if (st) {
        c->raw_up += fst_message_bytes(m);
        note_lost(s, c, st, why.message);
        ev.kind = FST_EVENT_REFUSED;
    } else {
        c->raw_up += fst_strategy_raw_bytes(s->strategy, m);
        c->folded = true;
    }
    return tell(s, &ev, err);
}

static fst_status on_update(struct fst_server *s, const fst_fed_event *event, const fst_message *m, fst_error *err)
{
    fst_fed_event ev = *event;
    if (!m)
        return fst_fail(err, FST_E_ARGUMENT, "an update needs its message");
    ev.client = m->client;
    ev.round = m->round;
    ev.samples = m->samples;
    s->message = m;
    s->fold = false;
    struct slot *c = find_slot(s, m->client);
    bool open = c && m->round == s->open.round && fst_round_look(s->engine).phase == FST_PHASE_COLLECT;
    if (open && (m->samples < 1 || m->samples > FST_ACCUMULATOR_MAX_WEIGHT) && !c->uploaded && !c->lost) {
        c->uploaded = true; /* it will be discarded, and the round may close with that */
        c->samples = m->samples;
        c->loss = m->loss;
        c->accuracy = m->accuracy;
        c->up += fst_message_bytes(m);
        c->raw_up += fst_message_bytes(m);
        note_lost(s, c, FST_E_ARGUMENT, fst_fed_why_text(FST_WHY_BAD_SAMPLES));
    }
    fst_status st = tell(s, &ev, err);
    if (!st && s->fold)
        st = fold(s, ev.now, err);
    s->message = NULL;
    return st;
}

static void on_refusal(struct fst_server *s, const fst_fed_event *ev, const fst_error *why)
{
    struct slot *c = find_slot(s, ev->client);
    if (!c || ev->round != s->open.round || c->folded || c->lost ||
        fst_round_look(s->engine).phase != FST_PHASE_COLLECT)
        return;
    c->samples = ev->samples;
    note_lost(s, c, why && why->status ? why->status : FST_E_ARGUMENT,
              why && why->message[0] ? why->message : "it could not train");
}

fst_status fst_server_event(fst_server *s, const fst_fed_event *event, const fst_message *message, const fst_error *why,
                            fst_fed_why *discarded, fst_error *err)
{
    fst_status st;
    s->begun = true;
    s->discarded = FST_WHY_NONE;
    switch (event->kind) {
    case FST_EVENT_UPDATE:
        st = on_update(s, event, message, err);
        break;
    case FST_EVENT_REFUSED:
        on_refusal(s, event, why);
        st = tell(s, event, err);
        break;
    case FST_EVENT_JOINED:
    case FST_EVENT_TIMER:
    case FST_EVENT_LOST:
        st = tell(s, event, err);
        break;
    default:
        st =
            fst_fail(err, FST_E_ARGUMENT, "the server answers itself that something was folded, aggregated, published");
    }
    if (discarded)
        *discarded = s->discarded;
    return st;
}

uint64_t fst_server_raw_bytes(const fst_server *s, const fst_message *m)
{
    return fst_strategy_raw_bytes(s->strategy, m);
}

bool fst_server_folded(const fst_server *s, uint32_t client)
{
    const struct slot *c = find_slot(s, client);
    return c && c->folded;
}

const char *fst_server_lost(const fst_server *s, uint32_t client)
{
    const struct slot *c = find_slot(s, client);
    return c ? c->lost : NULL;
}

void fst_server_took(fst_server *s, uint32_t client, double seconds)
{
    struct slot *c = find_slot(s, client);
    if (c)
        c->seconds = seconds;
}

/* ---- orders ---- */

bool fst_server_next(fst_server *s, fst_order *out)
{
    if (s->fetched == s->orders)
        return false;
    *out = s->order[s->fetched++];
    return true;
}

fst_status fst_server_message(const fst_server *s, uint32_t client, fst_message *out, fst_error *err)
{
    return fst_strategy_down(s->strategy, client, out, err);
}

fst_status fst_server_aggregate(fst_server *s, const fst_work *work, double now, fst_error *err)
{
    fst_aggregate_stats stats;
    fst_fed_event ev = {.kind = FST_EVENT_AGGREGATED, .now = now, .round = s->open.round};
    if (fst_round_look(s->engine).phase != FST_PHASE_AGGREGATE)
        return fst_fail(err, FST_E_ARGUMENT, "no round waits to be aggregated");
    fst_status st = fst_strategy_aggregate(s->strategy, work, &stats, err);
    if (st)
        return fst_fail_in(err, st, "round %llu", (unsigned long long)s->open.round + 1);
    s->open.aggregated = true;
    s->open.update_norm = stats.update_norm;
    return tell(s, &ev, err);
}

fst_status fst_server_publish(fst_server *s, double now, fst_error *err)
{
    fst_fed_event ev = {.kind = FST_EVENT_PUBLISHED, .now = now, .round = s->open.round};
    if (fst_round_look(s->engine).phase != FST_PHASE_PUBLISH)
        return FST_OK; /* of a skipped round, after which the engine goes on by itself */
    return tell(s, &ev, err);
}

fst_round_report *fst_server_report(fst_server *s)
{
    return &s->done;
}

fst_round_view fst_server_look(const fst_server *s)
{
    return fst_round_look(s->engine);
}

fst_status fst_server_failure(const fst_server *s, fst_error *err)
{
    const fst_round_report *r = &s->open;
    uint32_t quorum = s->spec.quorum ? s->spec.quorum : 1;
    if (!s->has_failed)
        return FST_OK;
    if (r->lost_named == 0)
        return fst_fail(err, FST_E_CONFIG, "round %llu: %s", (unsigned long long)r->round + 1,
                        fst_fed_why_text(s->failed));
    return fst_fail(err, s->lost_status[0], "round %llu: %llu updates, the quorum is %u; %u %s%s failed, %s %llu: %s",
                    (unsigned long long)r->round + 1, (unsigned long long)s->failed_count, (unsigned)quorum,
                    (unsigned)r->lost, noun(s), r->lost == 1 ? "" : "s", noun(s),
                    (unsigned long long)r->lost_first[0].client + 1, r->lost_first[0].message);
}

/* ---- setting up ---- */

static void choose(void *ctx, uint32_t *client, size_t count, size_t want)
{
    fst_strategy *s = ctx;
    s->ops->server->select(s, client, count, want);
}

fst_status fst_server_new(fst_server **out, const fst_round_spec *rounds, fst_strategy *strategy, const char *noun,
                          fst_error *err)
{
    fst_server *s = fst_calloc(1, sizeof *s);
    if (!s)
        return fst_fail_memory(err, sizeof *s);
    s->spec = *rounds;
    s->strategy = strategy;
    s->noun = noun;
    if (strategy->ops->server->select) {
        s->spec.select = choose;
        s->spec.select_ctx = strategy;
    }
    fst_status st = fst_round_new(&s->engine, &s->spec, err);
    if (!st && !(s->slot_of = fst_calloc(rounds->clients, sizeof *s->slot_of)))
        st = fst_fail_memory(err, rounds->clients * sizeof *s->slot_of);
    if (!st)
        st = drain(s, err); /* no round may be left to do */
    if (st)
        fst_server_free(s);
    else
        *out = s;
    return st;
}

void fst_server_free(fst_server *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->slots; i++)
        fst_free(s->slot[i].lost);
    forget_texts(s);
    fst_free(s->slot);
    fst_free(s->slot_of);
    fst_free(s->reported);
    fst_free(s->told);
    fst_free(s->why);
    fst_free(s->order);
    fst_round_free(s->engine);
    fst_free(s);
}

/* ---- saving: "FSTSRVR1", the number of rounds done, then the strategy's own envelope ---- */

static const char magic[8] = {'F', 'S', 'T', 'S', 'R', 'V', 'R', '1'};

fst_status fst_server_save(const fst_server *s, fst_buf *out, fst_error *err)
{
    fst_round_view v = fst_round_look(s->engine);
    uint64_t done = v.round + (v.phase == FST_PHASE_PUBLISH);
    size_t before = out->len;
    if (v.phase == FST_PHASE_AGGREGATE || v.phase == FST_PHASE_FAILED || v.folded + v.folding > 0) {
        if (v.phase != FST_PHASE_PUBLISH)
            return fst_fail(err, FST_E_ARGUMENT, "round %llu is open: a server is saved between rounds",
                            (unsigned long long)v.round + 1);
    }
    fst_status st = fst_buf_append(out, magic, sizeof magic, err);
    if (!st)
        st = fst_buf_append(out, &done, sizeof done, err);
    if (!st)
        st = fst_strategy_save(s->strategy, out, err);
    if (st)
        out->len = before;
    return st;
}

fst_status fst_server_load(fst_server *s, const void *data, size_t len, fst_error *err)
{
    uint64_t done = 0;
    if (s->begun)
        return fst_fail(err, FST_E_ARGUMENT, "a server is loaded before its first event");
    if (len < sizeof magic + sizeof done || memcmp(data, magic, sizeof magic) != 0)
        return fst_fail(err, FST_E_FORMAT, "these bytes are no saved server");
    memcpy(&done, (const char *)data + sizeof magic, sizeof done);
    if (done > s->spec.rounds)
        return fst_fail(err, FST_E_MISMATCH, "a server that has done %llu rounds of %llu", (unsigned long long)done,
                        (unsigned long long)s->spec.rounds);
    fst_round_engine *engine = NULL;
    fst_round_spec spec = s->spec;
    spec.first_round = done;
    fst_status st = fst_round_new(&engine, &spec, err);
    if (!st)
        st = fst_strategy_load(s->strategy, (const char *)data + sizeof magic + sizeof done,
                               len - sizeof magic - sizeof done, err);
    if (st) {
        fst_round_free(engine);
        return st;
    }
    fst_round_free(s->engine);
    s->engine = engine;
    s->spec = spec;
    s->orders = s->fetched = 0;
    return drain(s, err);
}

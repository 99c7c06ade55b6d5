/*
 * The server's half of the protocol, see coordinator.h.
 *
 * Data flow: a message -> what is known of its site. `reconcile` compares that with what the fst_server was told:
 * JOINED, LOST, updates that were fetched, timers -> its orders: SEND makes the site wanted, with a blob of what it is
 * sent; everything else waits for the caller. `talk` repeats to each site what it has not answered.
 */
#include "coordinator_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum {
    FETCHES = 8,
    PARTS_IN_FLIGHT = 16,
    LEAST_PARTS = 2, /* that a fetch may have on their way, whatever the others do */
    MOST_SPOILED = 3 /* frames are hashed: such parts were made */
};
static const double order_every = 2, ask_every = 0.25, fetch_patience = 60, slot_patience = 10, complain_every = 30;
#define LEAST_ROOM ((uint64_t)64 << 20) /* bytes that an update may always have */

/* drop: its file too; otherwise the same blob goes on there. */
static void end_fetch(struct coordinator *c, uint32_t k, bool drop)
{
    struct known *s = &c->site[k];
    char filter[FST_TOPIC];
    if (s->part_topic)
        (void)!fst_transport_unsubscribe(c->spec.transport, fst_topic_up(filter, c->spec.ids[k], "part"), NULL);
    s->part_topic = false;
    if (s->fetch) {
        c->fetches--;
        c->count.again += fst_blob_fetch_count(s->fetch)->again;
    }
    if (drop)
        fst_blob_fetch_drop(s->fetch);
    else
        fst_blob_fetch_free(s->fetch);
    s->fetch = NULL;
}

/* ---- the server's orders --------------------------------------------------------------------------------- */

static void drop_down(struct coordinator *c, struct down *d)
{
    fst_blob_server_remove(c->blobs, d->manifest.digest);
    if (d->plain.parts)
        fst_blob_server_remove(c->blobs, d->plain.digest);
    fst_buf_release(&d->raw);
    fst_buf_release(&d->coded);
}

static void drop_downs(struct coordinator *c)
{
    for (size_t i = 0; i < c->down_count; i++)
        drop_down(c, &c->downs[i]);
    c->down_count = 0;
    for (uint32_t k = 0; k < c->spec.clients; k++)
        c->site[k].has_down = false;
}

static bool same_number(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0; /* NaN too */
}

/* Views of the same memory, which does not change while a round is open: then the packed bytes are the same. */
static bool is_same_message(const fst_message *a, const fst_message *b)
{
    bool same = !strcmp(a->kind, b->kind) && a->round == b->round && a->base == b->base && a->samples == b->samples &&
                same_number(a->loss, b->loss) && same_number(a->accuracy, b->accuracy) && a->count == b->count;
    for (size_t i = 0; same && i < a->count; i++) {
        const fst_message_tensor *x = &a->tensor[i], *y = &b->tensor[i];
        same = x->data == y->data && x->dtype == y->dtype && !strcmp(x->name, y->name) &&
               fst_shape_equal(&x->shape, &y->shape);
    }
    return same;
}

static void use_down(struct coordinator *c, uint32_t k, size_t i)
{
    c->site[k].down = i;
    c->site[k].has_down = true;
}

/* The blob of what client k is sent, which is that of another client when they are the same. */
static fst_status make_down(struct coordinator *c, uint32_t k, fst_error *err)
{
    struct down d = {.raw = {0}};
    if (c->site[k].has_down) /* it joined again: what it is sent in this round is what it was */
        return FST_OK;
    fst_status st = fst_server_message(c->server, k, &d.message, err);
    d.message.client = 0; /* the site knows who it is */
    for (size_t i = 0; !st && i < c->down_count; i++)
        if (is_same_message(&c->downs[i].message, &d.message)) {
            use_down(c, k, i);
            return FST_OK;
        }
    if (!st)
        st = fst_message_pack(&d.message, &d.raw, err);
    c->count.packed += !st;
    for (size_t i = 0; !st && i < c->down_count; i++)
        if (c->downs[i].raw.len == d.raw.len && !memcmp(c->downs[i].raw.data, d.raw.data, d.raw.len)) {
            use_down(c, k, i);
            fst_buf_release(&d.raw);
            return FST_OK;
        }
    if (!st)
        st = fst_blob_encode(d.raw.data, d.raw.len, &d.coded, &d.manifest, err);
    if (!st && c->down_count == c->down_room) {
        size_t n = c->down_room ? 2 * c->down_room : 4;
        struct down *p = fst_realloc(c->downs, c->down_room * sizeof *p, n * sizeof *p);
        st = p ? FST_OK : fst_fail_memory(err, n * sizeof *p);
        c->downs = p ? p : c->downs;
        c->down_room = p ? n : c->down_room;
    }
    if (!st)
        st = fst_blob_server_add(c->blobs, &d.manifest, d.manifest.codec == FST_BLOB_PLAIN ? d.raw.data : d.coded.data,
                                 err);
    if (st) {
        fst_buf_release(&d.raw);
        fst_buf_release(&d.coded);
        return st;
    }
    uint64_t whole = fst_server_raw_bytes(c->server, &d.message); /* an update may be coded less than what is sent */
    whole = d.manifest.raw_bytes > whole ? d.manifest.raw_bytes : whole;
    if (whole > (c->most - LEAST_ROOM) / 2) /* never less: a fetch may be under way */
        c->most = 2 * whole + LEAST_ROOM;
    use_down(c, k, c->down_count);
    c->downs[c->down_count++] = d;
    return FST_OK;
}

static fst_status want_site(struct coordinator *c, double now, const fst_order *o, fst_error *err)
{
    struct known *s = &c->site[o->client];
    if (!c->open || o->round != c->open_round) {
        drop_downs(c);
        c->opened_at = now;
        c->open = true;
        c->open_round = o->round;
    }
    fst_status st = make_down(c, o->client, err);
    s->wanted = true;
    s->answered = s->offered = s->cannot = false;
    s->say_at = now;
    return st;
}

/* "edge-1, edge-3": whose update of the open round is not there, or who has not joined where none is open. */
static void list_awaited(const struct coordinator *c, char list[AWAITED])
{
    size_t at = 0;
    bool more = false;
    *list = 0;
    for (uint32_t k = 0; k < c->spec.clients; k++) {
        const struct known *s = &c->site[k];
        bool awaited = c->open ? s->wanted : !s->present && (!c->of->samples || c->of->samples[k]);
        bool room = at < AWAITED - FST_SITE_ID - sizeof ", " - sizeof " and others";
        if (awaited && room)
            at += (size_t)snprintf(list + at, AWAITED - at, "%s%s", at ? ", " : "", c->spec.ids[k]);
        more = more || (awaited && !room);
    }
    if (more)
        snprintf(list + at, AWAITED - at, " and others");
}

/* Nobody is waited for any longer. The next tick ends the fetches: this may be another thread than the transport's. */
static void close_round(struct coordinator *c)
{
    c->open = false;
    for (uint32_t k = 0; k < c->spec.clients; k++)
        c->site[k].wanted = c->site[k].offered = c->site[k].cannot = false;
}

static void want(struct coordinator *c, fst__want what)
{
    c->want = what;
    c->busy = true;
    c->engine = fst_server_look(c->server); /* the last time until it is done */
    if (what == WANT_FAIL) {
        char list[AWAITED];
        list_awaited(c, list);
        snprintf(c->missing, sizeof c->missing, "%s%s", list,
                 !*list    ? ""
                 : c->open ? " did not report"
                           : " did not join");
    }
    if (what != WANT_AGGREGATE)
        close_round(c);
}

static void note_counted(struct coordinator *c)
{
    const fst_round_report *r = fst_server_report(c->server);
    for (uint32_t i = 0; i < r->reported; i++)
        c->counted[r->reported_client[i]] = (int64_t)r->round;
}

static fst_status obey(struct coordinator *c, double now, fst_error *err)
{
    fst_order o;
    fst_status st = FST_OK;
    while (!st && !c->busy && fst_server_next(c->server, &o)) {
        switch (o.kind) {
        case FST_ORDER_SEND:
            st = want_site(c, now, &o, err);
            break;
        case FST_ORDER_TIMER:
            c->timer_at = o.at;
            break;
        case FST_ORDER_AGGREGATE:
            want(c, WANT_AGGREGATE);
            break;
        case FST_ORDER_EVALUATE:
            note_counted(c);
            want(c, WANT_EVALUATE);
            break;
        case FST_ORDER_FINISHED:
            want(c, WANT_FINISH);
            break;
        case FST_ORDER_FAILED:
            want(c, WANT_FAIL);
            break;
        }
    }
    return st;
}

static fst_status tell(struct coordinator *c, double now, fst_fed_event ev, const fst_message *m, const fst_error *why,
                       fst_fed_why *discarded, fst_error *err)
{
    ev.now = now;
    fst_status st = fst_server_event(c->server, &ev, m, why, discarded, err);
    return st ? st : obey(c, now, err);
}

/* ---- updates --------------------------------------------------------------------------------------------- */

/* The site's update is of no use: it is lost in this round. */
static fst_status refuse_update(struct coordinator *c, uint32_t k, double now, const char *why, fst_error *err)
{
    fst_error reason = {.status = FST_E_FORMAT};
    snprintf(reason.message, sizeof reason.message, "%s", why);
    c->site[k].wanted = c->site[k].offered = false;
    c->count.discarded[FST_WHY_NONE]++;
    fst__note_receipt(c, k, c->stage, c->open_round, false, why);
    const fst_fed_event ev = {.kind = FST_EVENT_REFUSED, .client = k, .round = c->open_round};
    return tell(c, now, ev, NULL, &reason, NULL, err);
}

static fst_status take_update(struct coordinator *c, uint32_t k, double now, const fst_message *m, fst_error *err)
{
    struct known *s = &c->site[k];
    fst_fed_why discarded;
    uint64_t round = c->open_round;
    char stage[FST__STAGE_NAME];
    memcpy(stage, c->stage, sizeof stage);
    s->wanted = s->offered = false;
    fst__count_update(c, s->result.seconds);
    fst_server_took(c->server, k, s->result.seconds);
    if (c->of->arrived)
        c->of->arrived(c->of->ctx, m);
    const fst_fed_event ev = {.kind = FST_EVENT_UPDATE, .client = k, .round = round, .samples = m->samples};
    fst_status st = tell(c, now, ev, m, NULL, &discarded, err);
    if (st)
        return st;
    const char *lost = fst_server_lost(c->server, k);
    bool folded = discarded == FST_WHY_NONE && fst_server_folded(c->server, k);
    c->count.discarded[discarded] += !folded;
    fst__note_receipt(c, k, stage, round, folded,
                      folded      ? ""
                      : discarded ? fst_fed_why_text(discarded)
                      : lost      ? lost
                                  : "it was refused");
    return FST_OK;
}

/* The blob is here: decoded, parsed, checked, folded. */
static fst_status take_blob(struct coordinator *c, uint32_t k, double now, fst_error *err)
{
    struct known *s = &c->site[k];
    const fst_blob_manifest *blob = fst_blob_fetch_manifest(s->fetch);
    const void *coded = NULL;
    fst_buf raw = {0};
    fst_message m;
    fst_error why = {0};
    fst_status st = fst_blob_fetch_finish(s->fetch, &coded, &why);
    const void *bytes = coded;
    size_t len = (size_t)blob->bytes;
    if (!st && (blob->codec != FST_BLOB_PLAIN || (uintptr_t)coded % 8)) {
        st = blob->codec == FST_BLOB_PLAIN ? fst_buf_append(&raw, coded, len, &why)
                                           : fst_blob_decode(blob, coded, c->most, &raw, &why);
        bytes = raw.data;
        len = raw.len;
    }
    if (!st)
        st = fst_message_parse(&m, bytes, len, &why);
    if (!st && (m.client != k || m.round != c->open_round))
        st = fst_fail(&why, FST_E_MISMATCH, "it is of client %lu and round %llu", (unsigned long)m.client + 1,
                      (unsigned long long)m.round + 1);
    if (!st && c->of->samples && m.samples != c->of->samples[k])
        st = fst_fail(&why, FST_E_MISMATCH, "it counts %lld samples, the client has %lld", (long long)m.samples,
                      (long long)c->of->samples[k]);
    st = st ? refuse_update(c, k, now, why.message, err) : take_update(c, k, now, &m, err);
    end_fetch(c, k, true);
    fst_buf_release(&raw);
    return st;
}

static fst_status begin_fetch(struct coordinator *c, uint32_t k, double now, fst_error *err)
{
    struct known *s = &c->site[k];
    char filter[FST_TOPIC], name[FST_SITE_ID + 8];
    fst_error why = {0};
    snprintf(name, sizeof name, "from-%s", c->spec.ids[k]);
    char *path = c->spec.path ? c->spec.path(c->spec.ctx, name) : NULL;
    const fst_blob_fetch_spec spec = {
        .manifest = s->result.blob, .most = c->most, .now = now, .file = path, .in_memory = c->spec.in_memory};
    fst_status st = fst_transport_subscribe(c->spec.transport, fst_topic_up(filter, c->spec.ids[k], "part"), err);
    s->part_topic = !st;
    if (!st)
        st = fst_blob_fetch_new(&s->fetch, &spec, &why);
    c->fetches += !st;
    fst_free(path);
    if (st != FST_E_IO)
        return st && why.status ? fst_fail(err, st, "%s", why.message) : st;
    s->offered = false; /* the disk is full; it offers again */
    fst_log(FST_LOG_WARN, "the update of %s cannot be fetched yet: %s", c->spec.ids[k], why.message);
    return FST_OK;
}

/* How many parts more may be asked of it. All fetches share what is on its way, but none can keep the others from their
 * least: slow sites hold what they were asked for as long as they like. */
static uint32_t room_of(const struct coordinator *c, uint32_t k, uint32_t in_flight)
{
    uint32_t own = fst_blob_fetch_in_flight(c->site[k].fetch), share = PARTS_IN_FLIGHT / (uint32_t)c->fetches;
    uint32_t most = share > LEAST_PARTS ? share : LEAST_PARTS;
    uint32_t free_parts = in_flight < PARTS_IN_FLIGHT ? PARTS_IN_FLIGHT - in_flight : 0;
    uint32_t least = own < LEAST_PARTS ? LEAST_PARTS - own : 0, rest = own < most ? most - own : 0;
    return free_parts < least ? least : free_parts < rest ? free_parts : rest;
}

static fst_status go_on_fetching(struct coordinator *c, uint32_t k, double now, uint32_t *in_flight, fst_error *err)
{
    struct known *s = &c->site[k];
    fst_blob_get g;
    fst_buf body = {0};
    (void)!fst_blob_fetch_ask(s->fetch, now, 0, &g); /* hashes what has come, also when nothing may be asked for */
    for (uint32_t room; c->up && (room = room_of(c, k, *in_flight)) && fst_blob_fetch_ask(s->fetch, now, room, &g);) {
        unsigned char bytes[FST_BLOB_GET];
        fst_blob_get_write(&g, bytes);
        body.len = 0;
        if (fst_buf_append(&body, bytes, sizeof bytes, NULL) || fst__tell_site(c, k, "get", FST_KIND_GET, &body)) {
            fst_blob_fetch_unasked(s->fetch, &g);
            break;
        }
        *in_flight += g.count;
    }
    fst_buf_release(&body);
    if (fst_blob_fetch_where(s->fetch) != FST_FETCH_GOING)
        return take_blob(c, k, now, err);
    if (fst_blob_fetch_count(s->fetch)->spoiled >= MOST_SPOILED) {
        end_fetch(c, k, true);
        return refuse_update(c, k, now, "its parts do not make up the blob that it announced", err);
    }
    if (fst_blob_fetch_idle(s->fetch, now) > fetch_patience) { /* it offers again when it is back */
        end_fetch(c, k, false);
        s->offered = false;
    }
    return FST_OK;
}

/* ---- what is, against what the server was told ----------------------------------------------------------- */

static void look_for_lost(struct coordinator *c, uint32_t k, double now)
{
    struct known *s = &c->site[k];
    if (!s->present || !c->up)
        return;
    if (now - s->heard < c->spec.lost_after && now - s->gone_at < c->spec.grace)
        return;
    s->present = false;
    fst__note(c, k, now, NOTE_LOST, FST_LOG_WARN, "is lost: %s",
              isfinite(s->gone_at) ? "its connection broke and did not come back" : "nothing was heard of it");
}

/* Another site waits to be fetched from: the fetch that got nothing for longest, and for long, ends. Its site offers
 * again. */
static void make_room(struct coordinator *c, double now)
{
    double idle = slot_patience;
    uint32_t slowest = c->spec.clients;
    for (uint32_t k = 0; k < c->spec.clients; k++)
        if (c->site[k].fetch && fst_blob_fetch_idle(c->site[k].fetch, now) > idle) {
            idle = fst_blob_fetch_idle(c->site[k].fetch, now);
            slowest = k;
        }
    if (slowest == c->spec.clients)
        return;
    end_fetch(c, slowest, false);
    c->site[slowest].offered = false;
}

static fst_status reconcile_site(struct coordinator *c, uint32_t k, double now, uint32_t *in_flight, fst_error *err)
{
    struct known *s = &c->site[k];
    bool counts = !c->of->samples || c->of->samples[k] > 0;
    fst_status st = FST_OK;
    if (s->present != s->joined && counts) {
        fst_fed_event ev = {.kind = s->present ? FST_EVENT_JOINED : FST_EVENT_LOST, .client = k};
        s->joined = s->present;
        st = tell(c, now, ev, NULL, NULL, NULL, err);
    }
    if (!st && !c->busy && s->wanted && s->cannot) {
        s->cannot = false;
        st = refuse_update(c, k, now, s->reason, err);
    }
    if (!st && !c->busy && s->wanted && s->offered && !s->fetch && c->fetches == FETCHES)
        make_room(c, now);
    if (!st && !c->busy && s->wanted && s->offered && !s->fetch && c->fetches < FETCHES)
        st = begin_fetch(c, k, now, err);
    if (!st && !c->busy && s->fetch)
        st = go_on_fetching(c, k, now, in_flight, err);
    return st;
}

/* A fetch is of what its site offered last for the open round, or it ends: a site that joined again may offer another
 * blob. */
static void end_stale_fetches(struct coordinator *c)
{
    for (uint32_t k = 0; k < c->spec.clients; k++) {
        const struct known *s = &c->site[k];
        if (s->fetch && (!s->wanted ||
                         (s->offered && !fst_blob_manifest_equal(&s->result.blob, fst_blob_fetch_manifest(s->fetch)))))
            end_fetch(c, k, true);
    }
}

static fst_status reconcile(struct coordinator *c, double now, fst_error *err)
{
    uint32_t in_flight = 0;
    fst_status st = obey(c, now, err);
    if (!st && !c->busy && now >= c->timer_at) {
        c->timer_at = INFINITY;
        st = tell(c, now, (fst_fed_event){.kind = FST_EVENT_TIMER}, NULL, NULL, NULL, err);
    }
    for (uint32_t k = 0; k < c->spec.clients; k++)
        in_flight += c->site[k].fetch ? fst_blob_fetch_in_flight(c->site[k].fetch) : 0;
    for (uint32_t k = 0; !st && !c->busy && k < c->spec.clients; k++)
        st = reconcile_site(c, k, now, &in_flight, err);
    return st;
}

/* ---- time ------------------------------------------------------------------------------------------------ */

static void serve(struct coordinator *c)
{
    uint32_t who;
    fst_buf body = {0};
    while (c->up && fst_blob_server_next(c->blobs, &who, &body))
        if (fst__tell_site(c, who, "part", FST_KIND_PART, &body)) {
            fst_blob_server_put_back(c->blobs);
            break;
        }
    fst_buf_release(&body);
}

static void talk(struct coordinator *c, double now)
{
    for (uint32_t k = 0; k < c->spec.clients; k++) {
        struct known *s = &c->site[k];
        if (s->receipt_due)
            fst__say_receipt(c, k);
        s->receipt_due = false;
        if (!s->present)
            continue;
        bool due = c->stopping || (c->measuring && s->asked && !s->measured) ||
                   (s->wanted && !s->answered && !s->offered && c->open);
        if (due && now >= s->say_at) {
            fst__say_order(c, k);
            s->say_at = now + order_every;
        }
    }
}

/* Whoever waits long is told for whom. */
static void complain(struct coordinator *c, double now)
{
    char list[AWAITED];
    if (!c->server || c->busy || now < c->complain_at)
        return;
    bool first = !isfinite(c->complain_at);
    c->complain_at = now + complain_every;
    list_awaited(c, list);
    if (*list && !first)
        fst_log(FST_LOG_INFO, "%s: waiting for %s%s", c->open ? "round" : "to begin", list, c->open ? "" : " to join");
}

fst_status fst__coordinator_tick(struct coordinator *c, double now, fst_error *err)
{
    fst_status st = FST_OK;
    for (uint32_t k = 0; k < c->spec.clients; k++)
        look_for_lost(c, k, now);
    end_stale_fetches(c);
    if (c->server && !c->busy)
        st = reconcile(c, now, err);
    if (c->up) {
        serve(c);
        talk(c, now);
    }
    complain(c, now);
    fst__tell_held(c, now);
    if (c->server && !c->busy)
        c->engine = fst_server_look(c->server);
    c->ask_at = now + ask_every;
    return st;
}

double fst__coordinator_due(const struct coordinator *c)
{
    return c->ask_at;
}

/* ---- stages ---------------------------------------------------------------------------------------------- */

fst_status fst__coordinator_begin(struct coordinator *c, double now, const char *stage, const fst_simulate_spec *spec,
                                  fst_server *server, int64_t *counted, fst_error *err)
{
    c->engine = (fst_round_view){.round = spec->first_round};
    if (spec->clients != c->spec.clients)
        return fst_fail(err, FST_E_ARGUMENT, "%lu clients for a stage of %lu", (unsigned long)c->spec.clients,
                        (unsigned long)spec->clients);
    snprintf(c->stage, sizeof c->stage, "%s", stage);
    c->of = spec;
    c->server = server;
    c->counted = counted;
    c->timer_at = now; /* the wait for sites has a limit from now on, also where none ever comes */
    c->open = c->busy = false;
    c->want = WANT_NOTHING;
    c->complain_at = now + complain_every;
    for (uint32_t k = 0; k < c->spec.clients; k++)
        c->site[k].joined = c->site[k].wanted = c->site[k].offered = c->site[k].cannot = false;
    for (uint32_t k = 0; k < c->spec.clients; k++)
        fst__check_samples(c, k, now);
    return FST_OK;
}

fst__want fst__coordinator_wants(const struct coordinator *c)
{
    return c->want;
}

const char *fst__coordinator_missing(const struct coordinator *c)
{
    return c->missing;
}

double fst__coordinator_opened(const struct coordinator *c)
{
    return c->opened_at;
}

void fst__coordinator_done(struct coordinator *c, double now)
{
    c->want = WANT_NOTHING;
    c->busy = false;
    c->complain_at = now + complain_every;
}

void fst__coordinator_expect(struct coordinator *c, double now, const fst_task_identity *want)
{
    c->expects = true;
    c->expected = *want;
    for (uint32_t k = 0; k < c->spec.clients; k++)
        fst__check_samples(c, k, now);
}

bool fst__coordinator_identity(const struct coordinator *c, uint32_t k, fst_task_identity *out)
{
    const struct hello *h = &c->site[k].hello;
    if (!c->site[k].known)
        return false;
    *out = (fst_task_identity){
        .client = k, .learn = h->learn, .validate = h->validate, .classes = h->classes ? h->classes : 1};
    memcpy(out->data, h->data, sizeof out->data);
    memcpy(out->missing, h->missing, sizeof out->missing);
    memcpy(out->samples, h->samples, sizeof out->samples);
    memcpy(out->names, h->names, sizeof out->names);
    return true;
}

void fst__coordinator_tell_all(struct coordinator *c, int classes, const char *data)
{
    c->classes = classes;
    snprintf(c->data, sizeof c->data, "%s", data);
}

static void drop_gifts(struct coordinator *c)
{
    for (size_t i = 0; i < c->gift_count; i++)
        drop_down(c, &c->gifts[i]);
    fst_free(c->gifts);
    c->gifts = NULL;
    c->gift_count = 0;
}

static void ask_for_figures(struct coordinator *c, double now, const char *stage, uint64_t rounds,
                            const char *fingerprint)
{
    c->measure = (struct order){.kind = ORDER_MEASURE, .round = rounds};
    snprintf(c->measure.stage, sizeof c->measure.stage, "%s", stage);
    snprintf(c->measure.fingerprint, sizeof c->measure.fingerprint, "%s", fingerprint);
    c->measuring = true;
    for (uint32_t k = 0; k < c->spec.clients; k++) {
        c->site[k].measured = false;
        c->site[k].say_at = now;
    }
}

void fst__coordinator_measure(struct coordinator *c, double now, const char *stage, uint64_t rounds,
                              const char *fingerprint)
{
    for (uint32_t k = 0; k < c->spec.clients; k++)
        c->site[k].asked = c->counted[k] >= 0;
    ask_for_figures(c, now, stage, rounds, fingerprint);
}

static fst_status make_gift(struct coordinator *c, const fst_buf *given, fst_error *err)
{
    struct down *g = &c->gifts[c->gift_count];
    fst_status st = fst_buf_append(&g->raw, given->data, given->len, err);
    if (!st)
        st = fst_blob_encode(g->raw.data, g->raw.len, &g->coded, &g->manifest, err);
    c->gift_count++;
    return st ? st
              : fst_blob_server_add(c->blobs, &g->manifest,
                                    g->manifest.codec == FST_BLOB_PLAIN ? g->raw.data : g->coded.data, err);
}

fst_status fst__coordinator_give(struct coordinator *c, double now, const char *stage, uint64_t rounds,
                                 const fst_buf *given, size_t count, fst_error *err)
{
    fst_status st = FST_OK;
    c->gifts = fst_calloc(count + 1, sizeof *c->gifts);
    if (!c->gifts)
        return fst_fail_memory(err, count * sizeof *c->gifts);
    for (uint32_t k = 0; k < c->spec.clients; k++) {
        size_t i = count == 1 ? 0 : k;
        c->site[k].asked = i < count && given[i].len > 0;
        if (!st && c->site[k].asked && (!k || count > 1 || !c->gift_count))
            st = make_gift(c, &given[i], err);
        c->site[k].given = c->gift_count ? c->gift_count - 1 : 0;
    }
    if (st)
        drop_gifts(c);
    else
        ask_for_figures(c, now, stage, rounds, "");
    return st;
}

bool fst__coordinator_measured(const struct coordinator *c, uint32_t *missing)
{
    *missing = 0;
    if (!c->measuring)
        return false;
    for (; *missing < c->spec.clients; ++*missing)
        if (c->site[*missing].asked && !c->site[*missing].measured)
            return false;
    return true;
}

fst_status fst__coordinator_figures(struct coordinator *c, fst_client_figures *each, fst_error *err)
{
    fst_status st = FST_OK;
    c->measuring = false;
    drop_gifts(c);
    for (uint32_t k = 0; k < c->spec.clients; k++) {
        if (!c->site[k].measured)
            continue;
        each[k] = c->site[k].figures.own;
        if (!st && c->site[k].figures.failed[0])
            st = fst_fail(err, FST_E_CONFIG, "%s could not do what %s asks: %s", c->spec.ids[k], c->measure.stage,
                          c->site[k].figures.failed);
    }
    return st;
}

void fst__coordinator_end(struct coordinator *c)
{
    close_round(c);
    drop_downs(c);
    c->server = NULL;
    c->of = NULL;
    c->busy = false;
    c->want = WANT_NOTHING;
}

bool fst__coordinator_stop(struct coordinator *c, double now)
{
    bool all = true;
    for (uint32_t k = 0; !c->stopping && k < c->spec.clients; k++)
        c->site[k].say_at = now;
    c->stopping = true;
    for (uint32_t k = 0; k < c->spec.clients; k++)
        all = all && !c->site[k].present;
    return all;
}

/* ---- beginning and end ----------------------------------------------------------------------------------- */

fst_status fst__coordinator_new(struct coordinator **out, const struct coordinator_spec *spec, fst_error *err)
{
    static const char *const leaves[] = {"ctl", "will", "get"};
    struct coordinator *c = fst_calloc(1, sizeof *c);
    char filter[FST_TOPIC];
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    c->spec = *spec;
    c->most = LEAST_ROOM;
    c->timer_at = c->complain_at = c->judge_from = INFINITY;
    c->spec.lost_after = spec->lost_after > 0 ? spec->lost_after : 13; /* three beats of a site, and a second */
    c->spec.grace = spec->grace > 0 ? spec->grace : 10;
    c->site = fst_calloc(spec->clients, sizeof *c->site);
    fst_status st = c->site ? fst_blob_server_new(&c->blobs, 0, err) : fst_fail_memory(err, spec->clients);
    for (uint32_t k = 0; !st && k < spec->clients; k++)
        c->site[k].gone_at = c->site[k].heard = INFINITY;
    for (int i = 0; !st && i < 3; i++)
        st = fst_transport_subscribe(spec->transport, fst_topic_up(filter, "+", leaves[i]), err);
    if (st)
        fst__coordinator_free(c);
    else
        *out = c;
    return st;
}

void fst__coordinator_free(struct coordinator *c)
{
    if (!c)
        return;
    for (uint32_t k = 0; c->site && k < c->spec.clients; k++)
        end_fetch(c, k, false);
    if (c->blobs) {
        drop_downs(c);
        drop_gifts(c);
    }
    fst_blob_server_free(c->blobs);
    fst_free(c->downs);
    fst_free(c->site);
    fst_free(c);
}

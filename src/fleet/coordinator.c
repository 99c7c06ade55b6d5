/*
 * The server's half of the protocol, see coordinator.h.
 *
 * Data flow: a message -> what is known of its site. `reconcile` compares that with what the fst_server was told: JOINED,
 * LOST, updates that were fetched, timers -> its orders: SEND makes the site wanted, with a blob of what it is sent;
 * everything else waits for the caller. `talk` repeats to each site what it has not answered.
 */
#include "coordinator.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { FETCHES = 8, PARTS_IN_FLIGHT = 16, RATE = 1000 /* messages a second */ };
static const double order_every = 2, welcome_every = 1, ask_every = 0.25, fetch_patience = 60, complain_every = 30;
#define LEAST_ROOM ((uint64_t)64 << 20) /* bytes that an update may always have */

/* What is sent to sites of a round: one for all of them when it is the same. */
struct down {
    fst_blob_manifest manifest;
    fst_buf raw, coded;
};

struct known {
    bool known;   /* said hello to this process */
    bool present, left;
    bool joined;  /* so the server was told */
    char instance[FST__INSTANCE];
    double heard, gone_at; /* gone_at: INFINITY, or when its will came */
    fst__site_state state;
    char stage[FST__STAGE_NAME];
    uint64_t round;

    bool wanted;   /* drawn for the open round and not yet answered */
    bool answered; /* it has the order, as its beats say */
    size_t down;   /* of c->downs */
    double say_at; /* the order again */
    double welcome_at;

    bool offered, cannot;
    struct result result;
    char reason[FST__REASON];
    fst_blob_fetch *fetch;
    bool part_topic;
    bool receipt_due;
    struct receipt receipt;
    double second;  /* for the rate */
    uint32_t in_second;
};

struct coordinator {
    struct coordinator_spec spec;
    struct known *site;
    uint64_t seq;
    bool up, busy, stopping;
    double ask_at, complain_at;

    char stage[FST__STAGE_NAME];
    const fst_simulate_spec *of;
    fst_server *server;
    int64_t *counted;
    double timer_at;
    fst__want want;
    uint64_t open_round;
    bool open;

    struct down *downs;
    size_t down_count, down_room;
    fst_blob_server *blobs;
    int fetches;
    uint64_t most;
    struct coordinator_counters count;
};

/* ---- saying --------------------------------------------------------------------------------------------- */

static fst_status publish(struct coordinator *c, uint32_t k, const char *leaf, fst_frame_kind kind, const fst_buf *body)
{
    char topic[FST_TOPIC];
    fst_buf bytes = {0};
    fst_frame f = {.kind = kind, .run = c->spec.run, .epoch = c->spec.epoch, .seq = ++c->seq, .sender = FST__CLOUD,
                   .body = body->data, .body_len = body->len};
    fst_status st = fst_frame_encode(&f, &bytes, NULL);
    if (!st)
        st = fst_transport_publish(c->spec.transport, fst_topic_down(topic, c->spec.ids[k], leaf), bytes.data,
                                   bytes.len, NULL);
    if (!st)
        c->count.bytes_out += bytes.len;
    fst_buf_release(&bytes);
    return st;
}

/* What does not get through is said again by `talk`, or in answer to a question that is repeated. */
static void say(struct coordinator *c, uint32_t k, fst_frame_kind kind, fst_status written, const fst_buf *body)
{
    if (!written)
        written = publish(c, k, "ctl", kind, body);
    if (written && written != FST_E_BUSY)
        fst_log(FST_LOG_WARN, "%s: a message could not be sent: %s", c->spec.ids[k], fst_status_name(written));
}

static void say_welcome(struct coordinator *c, uint32_t k, double now, bool hello)
{
    fst_buf body = {0};
    const struct welcome m = {.hello = hello};
    if (now < c->site[k].welcome_at)
        return;
    c->site[k].welcome_at = now + (hello ? welcome_every : 0);
    fst_status st = fst__write_welcome(&m, &body, NULL);
    say(c, k, FST_KIND_WELCOME, st, &body);
    fst_buf_release(&body);
}

static void say_refusal(struct coordinator *c, uint32_t k, double now, bool final, const char *reason)
{
    fst_buf body = {0};
    struct refusal m = {.final = final};
    if (now < c->site[k].welcome_at)
        return;
    c->site[k].welcome_at = now + welcome_every;
    snprintf(m.reason, sizeof m.reason, "%s", reason);
    fst_log(FST_LOG_WARN, "%s: refused: %s", c->spec.ids[k], m.reason);
    fst_status st = fst__write_refusal(&m, &body, NULL);
    say(c, k, FST_KIND_REFUSAL, st, &body);
    fst_buf_release(&body);
}

static void say_order(struct coordinator *c, uint32_t k)
{
    fst_buf body = {0};
    struct order m = {.kind = ORDER_STOP};
    if (!c->stopping) {
        m = (struct order){.kind = ORDER_TRAIN, .round = c->open_round, .counted = c->counted[k]};
        memcpy(m.stage, c->stage, sizeof m.stage);
        m.base = c->downs[c->site[k].down].manifest;
    }
    fst_status st = fst__write_order(&m, &body, NULL);
    say(c, k, FST_KIND_ORDER, st, &body);
    fst_buf_release(&body);
}

static void say_receipt(struct coordinator *c, uint32_t k)
{
    fst_buf body = {0};
    fst_status st = fst__write_receipt(&c->site[k].receipt, &body, NULL);
    say(c, k, FST_KIND_RECEIPT, st, &body);
    fst_buf_release(&body);
}

static void receipt(struct coordinator *c, uint32_t k, const char *stage, uint64_t round, bool folded, const char *why)
{
    struct receipt *r = &c->site[k].receipt;
    *r = (struct receipt){.round = round, .folded = folded};
    snprintf(r->stage, sizeof r->stage, "%s", stage);
    snprintf(r->why, sizeof r->why, "%s", why);
    c->site[k].receipt_due = true;
}

/* ---- hello ---------------------------------------------------------------------------------------------- */

/* The first line in which two lists of settings differ, as "key: A here, B there". */
static void first_difference(const char *ours, const char *theirs, char *out, size_t size)
{
    while (*ours && *theirs) {
        size_t a = strcspn(ours, "\n"), b = strcspn(theirs, "\n");
        if (a != b || memcmp(ours, theirs, a) != 0) {
            snprintf(out, size, "the tasks differ: the cloud has %.*s, this site %.*s", (int)(a < 180 ? a : 180), ours,
                     (int)(b < 180 ? b : 180), theirs);
            return;
        }
        ours += a + (ours[a] == '\n');
        theirs += b + (theirs[b] == '\n');
    }
    snprintf(out, size, "the tasks differ: one has more settings, from \"%.160s\" on", *ours ? ours : theirs);
}

/* "" when it may take part. */
static void judge(const struct coordinator *c, uint32_t k, const struct hello *h, char *why, size_t size)
{
    *why = 0;
    if (h->client != k)
        snprintf(why, size, "it says that it is client %lu, %s is client %lu", (unsigned long)h->client + 1,
                 c->spec.ids[k], (unsigned long)k + 1);
    else if (strcmp(h->task, c->spec.task) != 0 && h->settings)
        first_difference(c->spec.settings, h->settings, why, size);
    else if (strcmp(h->task, c->spec.task) != 0)
        snprintf(why, size, "the tasks differ: %.12s at the cloud, %.12s here", c->spec.task, h->task);
    else if (h->run && h->run != c->spec.run)
        snprintf(why, size,
                 "it is in the middle of run %016llx, the cloud runs %016llx: start the cloud with the output of that "
                 "run, or this site with --fresh",
                 (unsigned long long)h->run, (unsigned long long)c->spec.run);
    else if (c->of && c->of->samples && (uint64_t)c->of->samples[k] != h->learn)
        snprintf(why, size, "it has %llu samples, the cloud counts %lld for it", (unsigned long long)h->learn,
                 (long long)c->of->samples[k]);
}

static void end_fetch(struct coordinator *c, uint32_t k)
{
    struct known *s = &c->site[k];
    char filter[FST_TOPIC];
    if (s->part_topic)
        (void)!fst_transport_unsubscribe(c->spec.transport, fst_topic_up(filter, c->spec.ids[k], "part"), NULL);
    s->part_topic = false;
    if (s->fetch)
        c->fetches--;
    fst_blob_fetch_free(s->fetch);
    s->fetch = NULL;
}

static void on_hello(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    struct hello h;
    char why[FST__REASON];
    if (fst__read_hello(&h, f->body, f->body_len, NULL)) {
        c->count.refused[FST_REFUSED_BODY]++;
        return;
    }
    c->count.hellos++;
    judge(c, k, &h, why, sizeof why);
    if (*why) {
        say_refusal(c, k, now, true, why);
        fst__hello_release(&h);
        return;
    }
    if (s->known && s->present && strcmp(s->instance, h.instance)) {
        fst_log(FST_LOG_INFO, "%s started again", c->spec.ids[k]);
        s->answered = false;
        s->say_at = now;
    } else if (!s->known || !s->present) {
        fst_log(FST_LOG_INFO, "%s joined: %llu samples%s%s", c->spec.ids[k], (unsigned long long)h.learn,
                h.missing[0] ? ", none of " : "", h.missing);
        if (c->spec.numerics[0] && strcmp(c->spec.numerics, h.numerics))
            fst_log(FST_LOG_INFO, "%s computes in another way (%s; here %s): bits may differ from one process's",
                    c->spec.ids[k], h.numerics, c->spec.numerics);
    }
    memcpy(s->instance, h.instance, sizeof s->instance);
    s->known = s->present = true;
    s->left = false;
    s->heard = now;
    s->gone_at = INFINITY;
    s->welcome_at = 0;
    say_welcome(c, k, now, false);
    fst__hello_release(&h);
}

/* ---- other messages -------------------------------------------------------------------------------------- */

/* Whether the message is of the process that is the site now; an older one is told that it is not. */
static bool is_current(struct coordinator *c, uint32_t k, double now, const char *instance)
{
    struct known *s = &c->site[k];
    char why[FST__REASON];
    if (!strcmp(s->instance, instance))
        return true;
    snprintf(why, sizeof why, "another instance of %s joined", c->spec.ids[k]);
    say_refusal(c, k, now, false, why);
    return false;
}

static bool is_open(const struct coordinator *c, const char *stage, uint64_t round)
{
    return c->server && c->open && !strcmp(stage, c->stage) && round == c->open_round;
}

static void on_beat(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    struct beat b;
    if (fst__read_beat(&b, f->body, f->body_len, NULL)) {
        c->count.refused[FST_REFUSED_BODY]++;
        return;
    }
    if (!is_current(c, k, now, b.instance))
        return;
    s->state = b.state;
    s->round = b.round;
    memcpy(s->stage, b.stage, sizeof s->stage);
    s->answered = is_open(c, b.stage, b.round) && b.state >= SITE_FETCH;
    if (s->answered && b.state == SITE_KEEP && s->wanted && !s->offered)
        s->answered = false; /* it believes that it is done: the order again makes it offer */
}

static void on_result(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    struct result r;
    if (fst__read_result(&r, c->most, f->body, f->body_len, NULL)) {
        c->count.refused[FST_REFUSED_BODY]++;
        return;
    }
    if (!is_current(c, k, now, r.instance))
        return;
    s->state = SITE_OFFER;
    s->round = r.round;
    if (!is_open(c, r.stage, r.round)) {
        if (c->server && !c->busy) {
            c->count.discarded++;
            receipt(c, k, r.stage, r.round, false, "its round is over");
        }
        return;
    }
    s->answered = true;
    if (!c->busy && fst_server_folded(c->server, k)) {
        receipt(c, k, r.stage, r.round, true, "");
        return;
    }
    if (!s->wanted || s->offered)
        return;
    s->offered = true;
    s->result = r;
}

static void on_cannot(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    struct cannot m;
    if (fst__read_cannot(&m, f->body, f->body_len, NULL)) {
        c->count.refused[FST_REFUSED_BODY]++;
        return;
    }
    if (!is_current(c, k, now, m.instance) || !is_open(c, m.stage, m.round))
        return;
    s->answered = true;
    if (s->wanted && !s->cannot) {
        s->cannot = true;
        memcpy(s->reason, m.reason, sizeof s->reason);
    }
    receipt(c, k, m.stage, m.round, false, "noted");
}

static void on_bye(struct coordinator *c, uint32_t k)
{
    struct known *s = &c->site[k];
    s->present = false;
    s->left = true;
    if (!c->stopping)
        fst_log(FST_LOG_INFO, "%s left", c->spec.ids[k]);
}

static void on_ctl(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    if (f->kind == FST_KIND_HELLO) {
        on_hello(c, k, now, f);
        return;
    }
    if (f->run != c->spec.run) {
        c->count.refused[FST_REFUSED_RUN]++;
        return;
    }
    if (!s->known || (!s->present && f->kind != FST_KIND_BYE)) {
        say_welcome(c, k, now, true); /* of before we started, or we gave it up: let it introduce itself */
        return;
    }
    s->heard = now;
    s->gone_at = INFINITY;
    if (f->kind == FST_KIND_BEAT)
        on_beat(c, k, now, f);
    else if (f->kind == FST_KIND_RESULT)
        on_result(c, k, now, f);
    else if (f->kind == FST_KIND_CANNOT)
        on_cannot(c, k, now, f);
    else if (f->kind == FST_KIND_BYE)
        on_bye(c, k);
    else
        c->count.refused[FST_REFUSED_TOPIC]++;
}

static void on_part(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    struct known *s = &c->site[k];
    s->heard = now;
    if (s->fetch && f->kind == FST_KIND_PART)
        (void)fst_blob_fetch_part(s->fetch, now, f->body, f->body_len);
}

static void on_get(struct coordinator *c, uint32_t k, double now, const fst_frame *f)
{
    fst_blob_get g;
    c->site[k].heard = now;
    if (f->kind == FST_KIND_GET && fst_blob_get_read(&g, f->body, f->body_len))
        (void)fst_blob_server_ask(c->blobs, k, &g);
    else
        c->count.refused[FST_REFUSED_BODY]++;
}

static bool find_site(const struct coordinator *c, const char *id, uint32_t *k)
{
    for (*k = 0; *k < c->spec.clients; ++*k)
        if (!strcmp(c->spec.ids[*k], id))
            return true;
    return false;
}

/* A site that floods is cut short; the others go on. */
static bool too_many(struct known *s, double now)
{
    if (now - s->second >= 1) {
        s->second = now;
        s->in_second = 0;
    }
    return ++s->in_second > RATE;
}

void fst__coordinator_message(struct coordinator *c, double now, const char *topic, const void *data, size_t len)
{
    bool up;
    char site[FST_SITE_ID], why[FST__REASON];
    const char *leaf;
    uint32_t k;
    fst_frame f = {.version = 0};
    c->count.bytes_in += len;
    if (!fst_topic_split(topic, &up, site, &leaf) || !up || !find_site(c, site, &k)) {
        c->count.refused[FST_REFUSED_TOPIC]++;
        return;
    }
    if (!strcmp(leaf, "will")) { /* of the broker: no frame of the site's own */
        if (c->site[k].known && c->site[k].present && !isfinite(c->site[k].gone_at))
            c->site[k].gone_at = now;
        return;
    }
    fst_frame_refusal no = too_many(&c->site[k], now) ? FST_REFUSED_RATE : fst_frame_decode(&f, data, len);
    if (!no && strcmp(f.sender, site))
        no = FST_REFUSED_TOPIC;
    c->count.refused[no]++;
    if (no == FST_REFUSED_VERSION) {
        snprintf(why, sizeof why, "it speaks version %u of the protocol, the cloud version %u", (unsigned)f.version,
                 (unsigned)FST_FRAME_VERSION);
        say_refusal(c, k, now, true, why);
    }
    if (no)
        return;
    if (!strcmp(leaf, "ctl"))
        on_ctl(c, k, now, &f);
    else if (f.run != c->spec.run)
        c->count.refused[FST_REFUSED_RUN]++;
    else if (!strcmp(leaf, "part"))
        on_part(c, k, now, &f);
    else if (!strcmp(leaf, "get"))
        on_get(c, k, now, &f);
}

void fst__coordinator_link(struct coordinator *c, double now, bool up)
{
    c->up = up;
    for (uint32_t k = 0; up && k < c->spec.clients; k++) { /* silence while it was down was ours */
        c->site[k].say_at = now;
        if (c->site[k].present)
            c->site[k].heard = now;
    }
}

/* ---- the server's orders --------------------------------------------------------------------------------- */

static void drop_downs(struct coordinator *c)
{
    for (size_t i = 0; i < c->down_count; i++) {
        fst_blob_server_remove(c->blobs, c->downs[i].manifest.digest);
        fst_buf_release(&c->downs[i].raw);
        fst_buf_release(&c->downs[i].coded);
    }
    c->down_count = 0;
}

/* The blob of what client k is sent, which is that of another client when they are the same. */
static fst_status make_down(struct coordinator *c, uint32_t k, fst_error *err)
{
    fst_message m;
    struct down d = {.raw = {0}};
    fst_status st = fst_server_message(c->server, k, &m, err);
    m.client = 0; /* the site knows who it is */
    if (!st)
        st = fst_message_pack(&m, &d.raw, err);
    for (size_t i = 0; !st && i < c->down_count; i++)
        if (c->downs[i].raw.len == d.raw.len && !memcmp(c->downs[i].raw.data, d.raw.data, d.raw.len)) {
            c->site[k].down = i;
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
        st = fst_blob_server_add(c->blobs, &d.manifest,
                                 d.manifest.codec == FST_BLOB_PLAIN ? d.raw.data : d.coded.data, err);
    if (st) {
        fst_buf_release(&d.raw);
        fst_buf_release(&d.coded);
        return st;
    }
    c->most = d.manifest.raw_bytes > LEAST_ROOM / 2 ? 2 * d.manifest.raw_bytes + LEAST_ROOM : LEAST_ROOM;
    c->site[k].down = c->down_count;
    c->downs[c->down_count++] = d;
    return FST_OK;
}

static fst_status want_site(struct coordinator *c, double now, const fst_order *o, fst_error *err)
{
    struct known *s = &c->site[o->client];
    if (!c->open || o->round != c->open_round) {
        drop_downs(c);
        c->open = true;
        c->open_round = o->round;
    }
    fst_status st = make_down(c, o->client, err);
    s->wanted = true;
    s->answered = s->offered = s->cannot = false;
    s->say_at = now;
    return st;
}

/* Nobody is waited for any longer. */
static void close_round(struct coordinator *c)
{
    c->open = false;
    for (uint32_t k = 0; k < c->spec.clients; k++) {
        c->site[k].wanted = c->site[k].offered = c->site[k].cannot = false;
        end_fetch(c, k);
    }
}

static void want(struct coordinator *c, fst__want what)
{
    c->want = what;
    c->busy = true;
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
    c->count.discarded++;
    receipt(c, k, c->stage, c->open_round, false, why);
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
    c->count.fetched++;
    fst_server_took(c->server, k, s->result.seconds);
    if (c->of->arrived)
        c->of->arrived(c->of->ctx, m);
    const fst_fed_event ev = {.kind = FST_EVENT_UPDATE, .client = k, .round = round, .samples = m->samples};
    fst_status st = tell(c, now, ev, m, NULL, &discarded, err);
    if (st)
        return st;
    const char *lost = fst_server_lost(c->server, k);
    bool folded = discarded == FST_WHY_NONE && fst_server_folded(c->server, k);
    receipt(c, k, stage, round, folded,
            folded ? "" : discarded ? fst_fed_why_text(discarded) : lost ? lost : "it was refused");
    return FST_OK;
}

/* The blob is here: decoded, parsed, checked, folded. */
static fst_status take_blob(struct coordinator *c, uint32_t k, double now, fst_error *err)
{
    struct known *s = &c->site[k];
    const void *coded = NULL;
    fst_buf raw = {0};
    fst_message m;
    fst_error why = {0};
    fst_status st = fst_blob_fetch_finish(s->fetch, &coded, &why);
    const void *bytes = coded;
    size_t len = (size_t)s->result.blob.bytes;
    if (!st && (s->result.blob.codec != FST_BLOB_PLAIN || (uintptr_t)coded % 8)) {
        st = s->result.blob.codec == FST_BLOB_PLAIN ? fst_buf_append(&raw, coded, len, &why)
                                                    : fst_blob_decode(&s->result.blob, coded, c->most, &raw, &why);
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
    end_fetch(c, k);
    fst_buf_release(&raw);
    return st;
}

static fst_status begin_fetch(struct coordinator *c, uint32_t k, double now, fst_error *err)
{
    struct known *s = &c->site[k];
    char filter[FST_TOPIC];
    const fst_blob_fetch_spec spec = {.manifest = s->result.blob, .most = c->most, .now = now};
    fst_status st = fst_transport_subscribe(c->spec.transport, fst_topic_up(filter, c->spec.ids[k], "part"), err);
    s->part_topic = !st;
    if (!st)
        st = fst_blob_fetch_new(&s->fetch, &spec, err);
    c->fetches += !st;
    return st;
}

static fst_status go_on_fetching(struct coordinator *c, uint32_t k, double now, uint32_t *in_flight, fst_error *err)
{
    struct known *s = &c->site[k];
    fst_blob_get g;
    fst_buf body = {0};
    uint32_t before = fst_blob_fetch_in_flight(s->fetch);
    while (c->up && *in_flight < PARTS_IN_FLIGHT && fst_blob_fetch_ask(s->fetch, now, PARTS_IN_FLIGHT - *in_flight, &g)) {
        unsigned char bytes[FST_BLOB_GET];
        fst_blob_get_write(&g, bytes);
        body.len = 0;
        if (fst_buf_append(&body, bytes, sizeof bytes, NULL) || publish(c, k, "get", FST_KIND_GET, &body)) {
            fst_blob_fetch_unasked(s->fetch, &g);
            break;
        }
        *in_flight += g.count;
    }
    (void)before;
    fst_buf_release(&body);
    if (fst_blob_fetch_where(s->fetch) != FST_FETCH_GOING)
        return take_blob(c, k, now, err);
    if (fst_blob_fetch_idle(s->fetch, now) > fetch_patience) { /* it offers again when it is back */
        end_fetch(c, k);
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
    c->count.lost++;
    fst_log(FST_LOG_WARN, "%s is lost: %s", c->spec.ids[k],
            isfinite(s->gone_at) ? "its connection broke and did not come back" : "nothing was heard of it");
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
    if (!st && !c->busy && s->wanted && s->offered && !s->fetch && c->fetches < FETCHES)
        st = begin_fetch(c, k, now, err);
    if (!st && !c->busy && s->fetch)
        st = go_on_fetching(c, k, now, in_flight, err);
    return st;
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
        if (publish(c, who, "part", FST_KIND_PART, &body)) {
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
            say_receipt(c, k);
        s->receipt_due = false;
        if (!s->present)
            continue;
        bool due = c->stopping || (s->wanted && !s->answered && !s->offered && c->open);
        if (due && now >= s->say_at) {
            say_order(c, k);
            s->say_at = now + order_every;
        }
    }
}

/* Whoever waits long is told for whom. */
static void complain(struct coordinator *c, double now)
{
    char list[256] = "";
    size_t at = 0, more = 0;
    if (!c->server || c->busy || now < c->complain_at)
        return;
    bool first = !isfinite(c->complain_at);
    c->complain_at = now + complain_every;
    for (uint32_t k = 0; k < c->spec.clients; k++) {
        const struct known *s = &c->site[k];
        bool awaited = c->open ? s->wanted : !s->present && (!c->of->samples || c->of->samples[k]);
        if (!awaited)
            continue;
        if (at < sizeof list - FST_SITE_ID - 2)
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", c->spec.ids[k]);
        else
            more++;
    }
    if (at && !first)
        fst_log(FST_LOG_INFO, "%s: waiting for %s%s%s", c->open ? "round" : "to begin", list, more ? " and others" : "",
                c->open ? "" : " to join");
}

fst_status fst__coordinator_tick(struct coordinator *c, double now, fst_error *err)
{
    fst_status st = FST_OK;
    for (uint32_t k = 0; k < c->spec.clients; k++)
        look_for_lost(c, k, now);
    if (c->server && !c->busy)
        st = reconcile(c, now, err);
    if (c->up) {
        serve(c);
        talk(c, now);
    }
    complain(c, now);
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
    if (spec->clients != c->spec.clients)
        return fst_fail(err, FST_E_ARGUMENT, "%lu clients for a stage of %lu", (unsigned long)c->spec.clients,
                        (unsigned long)spec->clients);
    snprintf(c->stage, sizeof c->stage, "%s", stage);
    c->of = spec;
    c->server = server;
    c->counted = counted;
    c->timer_at = INFINITY;
    c->open = c->busy = false;
    c->want = WANT_NOTHING;
    c->complain_at = now + complain_every;
    for (uint32_t k = 0; k < c->spec.clients; k++)
        c->site[k].joined = c->site[k].wanted = c->site[k].offered = c->site[k].cannot = false;
    return FST_OK;
}

fst__want fst__coordinator_wants(const struct coordinator *c)
{
    return c->want;
}

void fst__coordinator_done(struct coordinator *c, double now)
{
    c->want = WANT_NOTHING;
    c->busy = false;
    c->complain_at = now + complain_every;
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

struct site_view fst__coordinator_site(const struct coordinator *c, uint32_t k)
{
    const struct known *s = &c->site[k];
    struct site_view v = {.id = c->spec.ids[k],
                          .known = s->known,
                          .present = s->present,
                          .wanted = s->wanted,
                          .fetching = s->fetch != NULL,
                          .state = s->state,
                          .round = s->round,
                          .heard = s->heard};
    if (s->fetch) {
        v.parts = fst_blob_fetch_manifest(s->fetch)->parts;
        v.parts_here = fst_blob_fetch_here(s->fetch);
    }
    v.folded = c->server && !c->busy && fst_server_folded(c->server, k);
    return v;
}

const struct coordinator_counters *fst__coordinator_count(const struct coordinator *c)
{
    return &c->count;
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
    c->timer_at = c->complain_at = INFINITY;
    c->spec.lost_after = spec->lost_after > 0 ? spec->lost_after : 15;
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
        end_fetch(c, k);
    if (c->blobs)
        drop_downs(c);
    fst_blob_server_free(c->blobs);
    fst_free(c->downs);
    fst_free(c->site);
    fst_free(c);
}

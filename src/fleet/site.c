/* The site's half of the protocol, see site.h.
 *
 * Data flow: ORDER -> `order` -> fetch of its base -> `down` -> job -> fst__site_trained -> files "next" (what the
 * client keeps if this round counts) and "outbox" (the update), in this order -> RESULT until a RECEIPT.
 *
 * Files: "site" {run, epoch}; "outbox" and "next" and "kept": a line of JSON {run, stage, round, ...}, then bytes. */
#include "site.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "lines.h"

static const double beat_every = 5, offer_every = 5, hello_first = 0.5, hello_most = 30;

struct site {
    struct site_spec spec;
    uint64_t run, epoch, seq;
    uint64_t ordered; /* seq of the last order, in this epoch: an order that was overtaken is void */
    bool up, welcome, ended;
    char why[FST__REASON];
    double hello_at, hello_wait, beat_at, say_at;
    fst__site_state state;
    struct order order;   /* of FETCH, TRAIN, OFFER and KEEP */
    struct order waiting; /* that came while another one trains */
    bool has_waiting;
    fst_blob_fetch *fetch;
    char fetched[FST_DIGEST_HEX]; /* of `down` */
    fst_buf down;                 /* the message, decoded */
    fst_buf kept, next;           /* files without their head */
    struct line_of_file kept_of, next_of, outbox_of;
    fst_buf outbox;             /* coded */
    fst_blob_manifest manifest; /* of the outbox */
    fst_blob_server *server;
    double seconds;
    char cannot[FST__REASON]; /* why it could not train; "" */
    bool asked;               /* the job was handed out */
    uint64_t measure_epoch;   /* whose order it is */
    struct order measure;     /* to be done, under way, or answered */
    bool to_measure, measuring, measured;
    struct figures figures;
    bool save; /* run or epoch changed */
    char served[FST_DIGEST_HEX];
};

/* ---- saying --------------------------------------------------------------------------------------------- */

static fst_status publish(struct site *s, const char *leaf, fst_frame_kind kind, const fst_buf *body, fst_error *err)
{
    char topic[FST_TOPIC];
    fst_buf bytes = {0};
    fst_frame f = {
        .kind = kind, .run = s->run, .epoch = s->epoch, .seq = ++s->seq, .body = body->data, .body_len = body->len};
    snprintf(f.sender, sizeof f.sender, "%s", s->spec.id);
    fst_status st = fst_frame_encode(&f, &bytes, err);
    if (!st)
        st =
            fst_transport_publish(s->spec.transport, fst_topic_up(topic, s->spec.id, leaf), bytes.data, bytes.len, err);
    fst_buf_release(&bytes);
    return st;
}

/* Everything that is said here is said again when it was not answered, so what did not get through is no failure. */
static void say(struct site *s, fst_frame_kind kind, fst_status written, const fst_buf *body)
{
    if (!written)
        written = publish(s, "ctl", kind, body, NULL);
    if (written && written != FST_E_BUSY)
        fst_log(FST_LOG_WARN, "a message could not be sent: %s", fst_status_name(written));
}

static void say_hello(struct site *s)
{
    fst_buf body = {0};
    struct hello h = s->spec.hello;
    snprintf(h.id, sizeof h.id, "%s", s->spec.id);
    memcpy(h.instance, s->spec.instance, sizeof h.instance);
    h.run = s->run;
    fst_status st = fst__write_hello(&h, &body, NULL);
    say(s, FST_KIND_HELLO, st, &body);
    fst_buf_release(&body);
}

static void say_beat(struct site *s)
{
    fst_buf body = {0};
    struct beat b = {.round = s->order.round, .state = s->state};
    memcpy(b.instance, s->spec.instance, sizeof b.instance);
    memcpy(b.stage, s->order.stage, sizeof b.stage);
    fst_status st = fst__write_beat(&b, &body, NULL);
    say(s, FST_KIND_BEAT, st, &body);
    fst_buf_release(&body);
}

static void say_result(struct site *s)
{
    fst_buf body = {0};
    struct result r = {.round = s->order.round, .seconds = s->seconds, .blob = s->manifest};
    memcpy(r.instance, s->spec.instance, sizeof r.instance);
    memcpy(r.stage, s->order.stage, sizeof r.stage);
    fst_status st = fst__write_result(&r, &body, NULL);
    say(s, FST_KIND_RESULT, st, &body);
    fst_buf_release(&body);
}

static void say_cannot(struct site *s)
{
    fst_buf body = {0};
    struct cannot c = {.round = s->order.round};
    memcpy(c.instance, s->spec.instance, sizeof c.instance);
    memcpy(c.stage, s->order.stage, sizeof c.stage);
    memcpy(c.reason, s->cannot, sizeof c.reason);
    fst_status st = fst__write_cannot(&c, &body, NULL);
    say(s, FST_KIND_CANNOT, st, &body);
    fst_buf_release(&body);
}

static void say_bye(struct site *s)
{
    fst_buf body = {0};
    fst_status st = fst_buf_append(&body, "{}", 2, NULL);
    say(s, FST_KIND_BYE, st, &body);
    fst_buf_release(&body);
}

/* ---- files ---------------------------------------------------------------------------------------------- */

static fst_status put(struct site *s, const char *name, const struct line_of_file *head, const fst_buf *bytes,
                      fst_error *err)
{
    fst_buf file = {0};
    fst_status st = fst__line_write(head, &file, err);
    if (!st && bytes->len)
        st = fst_buf_append(&file, bytes->data, bytes->len, err);
    if (!st)
        st = s->spec.store.put(s->spec.store.ctx, name, file.data, file.len, err);
    fst_buf_release(&file);
    return st;
}

/* head.round < 0: there is none. */
static fst_status get(struct site *s, const char *name, struct line_of_file *head, fst_buf *bytes, fst_error *err)
{
    fst_buf file = {0};
    bool found = false;
    size_t at = 0;
    *head = FST__NO_LINE;
    bytes->len = 0;
    fst_status st = s->spec.store.get(s->spec.store.ctx, name, &file, &found, err);
    if (!st && found) {
        st = fst__line_read(head, file.data, file.len, &at, err);
        if (!st)
            st = fst_buf_append(bytes, file.data + at, file.len - at, err);
        if (st)
            st = fst_fail_in(err, st, "%s", name);
    }
    fst_buf_release(&file);
    return st;
}

static fst_status save_run(struct site *s, fst_error *err)
{
    const struct line_of_file head = {.run = s->run, .epoch = s->epoch, .round = 0};
    fst_buf none = {0};
    s->save = false;
    return put(s, "site", &head, &none, err);
}

static void serve_outbox(struct site *s)
{
    if (s->served[0])
        fst_blob_server_remove(s->server, s->served);
    s->served[0] = 0;
    if (s->outbox_of.round >= 0 && !fst_blob_server_add(s->server, &s->manifest, s->outbox.data, NULL))
        memcpy(s->served, s->manifest.digest, sizeof s->served);
}

/* Another run, or the end of one: what was kept for it is nobody's. */
static void forget_run(struct site *s)
{
    const struct store *k = &s->spec.store;
    k->drop(k->ctx, "outbox");
    k->drop(k->ctx, "next");
    k->drop(k->ctx, "kept");
    k->drop(k->ctx, "site");
    s->outbox_of = s->next_of = s->kept_of = FST__NO_LINE;
    s->outbox.len = s->next.len = s->kept.len = 0;
    s->run = 0;
    serve_outbox(s);
}

/* ---- what the client keeps ------------------------------------------------------------------------------- */

static bool is_of(const struct line_of_file *f, const char *stage, int64_t round)
{
    return f->round >= 0 && f->round == round && !strcmp(f->stage, stage);
}

/* Before a round: what was kept becomes what the server has counted. */
static fst_status settle_kept(struct site *s, const struct order *o, fst_error *err)
{
    if (o->counted < 0) {
        s->kept.len = 0;
        s->kept_of = FST__NO_LINE;
        return FST_OK;
    }
    if (is_of(&s->kept_of, o->stage, o->counted))
        return FST_OK;
    if (is_of(&s->next_of, o->stage, o->counted)) {
        fst_status st = put(s, "kept", &s->next_of, &s->next, err);
        fst_buf old = s->kept;
        if (st)
            return st;
        s->kept = s->next;
        s->kept_of = s->next_of;
        s->next = old;
        s->next_of = FST__NO_LINE;
        return FST_OK;
    }
    s->kept.len = 0;
    s->kept_of = FST__NO_LINE;
    if (s->spec.keeps(s->spec.ctx, o->stage))
        snprintf(
            s->cannot, sizeof s->cannot,
            "what this client kept of round %lld is gone (its folder was lost or exchanged), and the method needs it",
            (long long)o->counted + 1);
    return FST_OK;
}

/* To measure, both stay as they are: the round may not be saved yet, and be played again. */
static const fst_buf *kept_after(const struct site *s, const struct order *o)
{
    return is_of(&s->kept_of, o->stage, o->counted)   ? &s->kept
           : is_of(&s->next_of, o->stage, o->counted) ? &s->next
                                                      : NULL;
}

/* ---- a round --------------------------------------------------------------------------------------------- */

static void enter(struct site *s, fst__site_state state, double now)
{
    s->state = state;
    s->beat_at = s->say_at = now;
}

static void end_fetch(struct site *s)
{
    fst_blob_fetch_free(s->fetch);
    s->fetch = NULL;
}

static fst_status begin_round(struct site *s, const struct order *o, double now, fst_error *err)
{
    s->order = *o;
    s->cannot[0] = 0;
    s->asked = false;
    end_fetch(s);
    if (is_of(&s->outbox_of, o->stage, (int64_t)o->round)) { /* the server lost it, or we did the receipt */
        enter(s, SITE_OFFER, now);
        return FST_OK;
    }
    fst_status st = settle_kept(s, o, err);
    if (st)
        return st;
    if (s->outbox_of.round >= 0) {
        s->spec.store.drop(s->spec.store.ctx, "outbox");
        s->outbox_of = FST__NO_LINE;
        serve_outbox(s);
    }
    if (s->cannot[0]) {
        enter(s, SITE_OFFER, now);
        return FST_OK;
    }
    if (s->down.len && !strcmp(s->fetched, o->base.digest)) {
        enter(s, SITE_TRAIN, now);
        return FST_OK;
    }
    const fst_blob_fetch_spec spec = {.manifest = o->base, .most = s->spec.most, .now = now};
    s->down.len = 0;
    s->fetched[0] = 0;
    enter(s, SITE_FETCH, now);
    return fst_blob_fetch_new(&s->fetch, &spec, err);
}

static fst_status fetched(struct site *s, double now, fst_error *err)
{
    const void *coded = NULL;
    fst_error why = {0};
    fst_status st = fst_blob_fetch_finish(s->fetch, &coded, &why);
    s->down.len = 0;
    if (!st && s->order.base.codec == FST_BLOB_PLAIN)
        st = fst_buf_append(&s->down, coded, (size_t)s->order.base.bytes, &why);
    else if (!st) {
        fst_buf_release(&s->down);
        s->down = (fst_buf){0};
        st = fst_blob_decode(&s->order.base, coded, s->spec.most, &s->down, &why);
    }
    end_fetch(s);
    if (st == FST_E_MEMORY)
        return fst_fail_in(err, st, "%s", why.message);
    if (st) { /* what the server sent is no blob of its manifest */
        snprintf(s->cannot, sizeof s->cannot, "what was sent cannot be decoded: %.400s", why.message);
        enter(s, SITE_OFFER, now);
        return FST_OK;
    }
    memcpy(s->fetched, s->order.base.digest, sizeof s->fetched);
    enter(s, SITE_TRAIN, now);
    return FST_OK;
}

bool fst__site_job(struct site *s, struct site_job *out)
{
    if (s->to_measure && !s->asked) {
        s->to_measure = false;
        s->measuring = true;
        const fst_buf *kept = kept_after(s, &s->measure);
        *out = (struct site_job){.measure = true,
                                 .stage = s->measure.stage,
                                 .fingerprint = s->measure.fingerprint,
                                 .round = s->measure.round,
                                 .kept = kept ? kept->data : NULL,
                                 .kept_len = kept ? kept->len : 0};
        return true;
    }
    if (s->measuring)
        return false;
    if (s->state != SITE_TRAIN || s->asked)
        return false;
    s->asked = true;
    *out = (struct site_job){.stage = s->order.stage,
                             .round = s->order.round,
                             .down = s->down.data,
                             .down_len = s->down.len,
                             .kept = s->kept.data,
                             .kept_len = s->kept.len};
    return true;
}

static fst_status keep_update(struct site *s, const void *up, size_t len, const void *keep, size_t keep_len,
                              fst_error *err)
{
    struct line_of_file head = {
        .run = s->run, .epoch = s->epoch, .round = (int64_t)s->order.round, .seconds = s->seconds};
    memcpy(head.stage, s->order.stage, sizeof head.stage);
    s->next.len = s->outbox.len = 0;
    s->next_of = s->outbox_of = FST__NO_LINE;
    fst_status st = keep_len ? fst_buf_append(&s->next, keep, keep_len, err) : FST_OK;
    if (!st)
        st = put(s, "next", &head, &s->next, err);
    if (!st)
        st = fst_blob_encode(up, len, &s->outbox, &s->manifest, err);
    if (!st && s->manifest.codec == FST_BLOB_PLAIN)
        st = fst_buf_append(&s->outbox, up, len, err);
    if (st)
        return st;
    s->next_of = head;
    head.manifest = s->manifest;
    head.has_manifest = true;
    st = put(s, "outbox", &head, &s->outbox, err);
    if (st)
        return st;
    s->outbox_of = head;
    return FST_OK;
}

fst_status fst__site_trained(struct site *s, double now, const void *up, size_t len, const void *keep, size_t keep_len,
                             double seconds, const char *failed, fst_error *err)
{
    fst_error why = {0};
    fst_status st = FST_OK;
    s->asked = false;
    if (s->has_waiting) { /* the server has gone on: nobody wants this one */
        s->has_waiting = false;
        s->state = SITE_IDLE;
        return begin_round(s, &s->waiting, now, err);
    }
    if (s->state != SITE_TRAIN)
        return FST_OK;
    s->seconds = seconds;
    if (!failed)
        st = keep_update(s, up, len, keep, keep_len, &why);
    if (failed || st)
        snprintf(s->cannot, sizeof s->cannot, "%.500s", failed ? failed : why.message);
    else
        serve_outbox(s);
    enter(s, SITE_OFFER, now);
    return FST_OK;
}

/* ---- what the server says -------------------------------------------------------------------------------- */

static void end(struct site *s, const char *why)
{
    s->ended = true;
    snprintf(s->why, sizeof s->why, "%s", why);
}

static void on_welcome(struct site *s, double now, const fst_frame *f)
{
    struct welcome m;
    if (fst__read_welcome(&m, f->body, f->body_len, NULL))
        return;
    if (m.hello) { /* the server does not know us, or not any more */
        s->welcome = false;
        s->hello_at = now;
        s->hello_wait = hello_first;
        return;
    }
    if (s->run && f->run != s->run)
        return;             /* it refuses such a hello; this is another's or an old one */
    if (s->run != f->run) { /* epochs are of a run: those that were heard before are another one's */
        s->run = f->run;
        s->epoch = f->epoch;
        s->ordered = 0;
        s->save = true;
    }
    s->welcome = true;
    if (s->state == SITE_JOIN)
        enter(s, SITE_IDLE, now);
    s->beat_at = s->say_at = now;
}

static bool is_another(const struct site *s, const struct order *o)
{
    if (s->state <= SITE_IDLE)
        return true;
    return strcmp(o->stage, s->order.stage) || o->round != s->order.round;
}

static void say_figures(struct site *s)
{
    fst_buf body = {0};
    fst_status st = fst__write_figures(&s->figures, &body, NULL);
    say(s, FST_KIND_FIGURES, st, &body);
    fst_buf_release(&body);
}

void fst__site_measured(struct site *s, double now, const fst_client_figures *own, const char *failed)
{
    s->measuring = false;
    if (s->measure_epoch != s->epoch) /* the round may be played again: the server asks anew */
        return;
    s->measured = true;
    s->beat_at = now;
    s->figures = (struct figures){.round = s->measure.round, .own = *own};
    memcpy(s->figures.instance, s->spec.instance, sizeof s->figures.instance);
    memcpy(s->figures.stage, s->measure.stage, sizeof s->figures.stage);
    memcpy(s->figures.fingerprint, s->measure.fingerprint, sizeof s->figures.fingerprint);
    snprintf(s->figures.failed, sizeof s->figures.failed, "%s", failed ? failed : "");
    say_figures(s);
}

/* Measuring waits for training to end: the server asks again. */
static void on_measure(struct site *s, const struct order *o)
{
    const struct order *m = &s->measure;
    bool same = m->round == o->round && m->counted == o->counted && !strcmp(m->stage, o->stage) &&
                !strcmp(m->fingerprint, o->fingerprint); /* a round that is played again may count others */
    if (same && s->measured)
        say_figures(s);
    if (s->asked || s->to_measure || s->measuring || (same && s->measured))
        return;
    s->measure = *o;
    s->measure_epoch = s->epoch;
    s->measured = false;
    s->to_measure = true;
}

static fst_status on_order(struct site *s, double now, const fst_frame *f, fst_error *err)
{
    struct order o;
    if (f->seq <= s->ordered || fst__read_order(&o, s->spec.most, f->body, f->body_len, NULL))
        return FST_OK;
    s->ordered = f->seq;
    if (o.kind == ORDER_STOP) {
        say_bye(s);
        forget_run(s);
        end(s, "");
        return FST_OK;
    }
    if (o.kind == ORDER_MEASURE) {
        on_measure(s, &o);
        return FST_OK;
    }
    if (s->measuring || s->to_measure) /* its round is over; the order comes again */
        return FST_OK;
    if (s->state == SITE_TRAIN && s->asked) {
        s->has_waiting = is_another(s, &o);
        s->waiting = o;
        s->beat_at = now;
        return FST_OK;
    }
    if (is_another(s, &o))
        return begin_round(s, &o, now, err);
    if (s->state == SITE_KEEP) /* it wants the update after all */
        enter(s, SITE_OFFER, now);
    s->beat_at = now;
    return FST_OK;
}

static void on_receipt(struct site *s, double now, const fst_frame *f)
{
    struct receipt m;
    if (fst__read_receipt(&m, f->body, f->body_len, NULL) || s->state != SITE_OFFER || m.round != s->order.round ||
        strcmp(m.stage, s->order.stage))
        return;
    if (!m.folded)
        fst_log(FST_LOG_WARN, "round %llu: the server did not take the update: %s", (unsigned long long)m.round + 1,
                m.why);
    enter(s, SITE_KEEP, now);
}

static void on_refusal(struct site *s, const fst_frame *f)
{
    struct refusal m;
    if (!fst__read_refusal(&m, f->body, f->body_len, NULL) && m.final &&
        (!*m.instance || !strcmp(m.instance, s->spec.instance)))
        end(s, m.reason);
}

static void on_get(struct site *s, const fst_frame *f)
{
    fst_blob_get g;
    if (fst_blob_get_read(&g, f->body, f->body_len))
        (void)fst_blob_server_ask(s->server, 0, &g);
}

static fst_status on_frame(struct site *s, double now, const fst_frame *f, const char *leaf, fst_error *err)
{
    bool ctl = !strcmp(leaf, "ctl"), ours = s->run && f->run == s->run;
    if (ours && f->epoch < s->epoch && f->kind != FST_KIND_REFUSAL)
        return FST_OK; /* of a coordinator that has been replaced */
    if (ours && f->epoch > s->epoch) {
        s->epoch = f->epoch;
        s->ordered = 0;
        s->save = true;
    }
    if (ctl && f->kind == FST_KIND_WELCOME)
        on_welcome(s, now, f);
    else if (ctl && f->kind == FST_KIND_REFUSAL)
        on_refusal(s, f);
    else if (!ours)
        return FST_OK;
    else if (ctl && f->kind == FST_KIND_ORDER && s->welcome)
        return on_order(s, now, f, err);
    else if (ctl && f->kind == FST_KIND_RECEIPT)
        on_receipt(s, now, f);
    else if (!strcmp(leaf, "get") && f->kind == FST_KIND_GET)
        on_get(s, f);
    else if (!strcmp(leaf, "part") && f->kind == FST_KIND_PART && s->fetch)
        (void)fst_blob_fetch_part(s->fetch, now, f->body, f->body_len);
    return FST_OK;
}

fst_status fst__site_message(struct site *s, double now, const char *topic, const void *data, size_t len,
                             fst_error *err)
{
    bool up;
    char site[FST_SITE_ID];
    const char *leaf;
    fst_frame f;
    if (s->ended || !fst_topic_split(topic, &up, site, &leaf) || up || strcmp(site, s->spec.id))
        return FST_OK;
    fst_frame_refusal no = fst_frame_decode(&f, data, len);
    if (no || strcmp(f.sender, FST__CLOUD))
        return FST_OK;
    return on_frame(s, now, &f, leaf, err);
}

void fst__site_link(struct site *s, double now, bool up)
{
    s->up = up;
    if (!up)
        return;
    s->hello_at = now;
    s->hello_wait = hello_first;
    s->beat_at = s->say_at = now;
}

/* ---- time ------------------------------------------------------------------------------------------------ */

static fst_status go_on_fetching(struct site *s, double now, fst_error *err)
{
    fst_blob_get g;
    fst_buf body = {0};
    fst_status st = FST_OK;
    while (s->up && fst_blob_fetch_ask(s->fetch, now, FST_BLOB_WINDOW, &g)) {
        unsigned char bytes[FST_BLOB_GET];
        fst_blob_get_write(&g, bytes);
        body.len = 0;
        if (fst_buf_append(&body, bytes, sizeof bytes, NULL) || publish(s, "get", FST_KIND_GET, &body, NULL)) {
            fst_blob_fetch_unasked(s->fetch, &g);
            break;
        }
    }
    if (fst_blob_fetch_where(s->fetch) != FST_FETCH_GOING)
        st = fetched(s, now, err);
    fst_buf_release(&body);
    return st;
}

static void serve(struct site *s)
{
    uint32_t who;
    fst_buf body = {0};
    while (s->up && fst_blob_server_next(s->server, &who, &body))
        if (publish(s, "part", FST_KIND_PART, &body, NULL)) {
            fst_blob_server_put_back(s->server);
            break;
        }
    fst_buf_release(&body);
}

fst_status fst__site_tick(struct site *s, double now, fst_error *err)
{
    fst_status st = s->save ? save_run(s, err) : FST_OK;
    if (!st && s->fetch)
        st = go_on_fetching(s, now, err);
    if (st || s->ended || !s->up)
        return st;
    serve(s);
    if (!s->welcome) {
        if (now < s->hello_at)
            return FST_OK;
        say_hello(s);
        s->hello_at = now + s->hello_wait;
        s->hello_wait = fmin(2 * s->hello_wait, hello_most);
        return FST_OK;
    }
    if (s->state == SITE_OFFER && now >= s->say_at) {
        if (s->cannot[0])
            say_cannot(s);
        else
            say_result(s);
        s->say_at = now + offer_every;
    }
    if (now >= s->beat_at) {
        say_beat(s);
        s->beat_at = now + beat_every;
    }
    return FST_OK;
}

double fst__site_due(const struct site *s)
{
    double at = INFINITY;
    if (s->ended || !s->up)
        return at;
    at = s->welcome ? s->beat_at : s->hello_at;
    if (s->welcome && s->state == SITE_OFFER)
        at = fmin(at, s->say_at);
    if (s->fetch)
        at = fmin(at, fst_blob_fetch_due(s->fetch));
    return at;
}

fst__site_state fst__site_state_of(const struct site *s, char stage[FST__STAGE_NAME], uint64_t *round)
{
    memcpy(stage, s->order.stage, FST__STAGE_NAME);
    *round = s->order.round;
    return s->welcome ? s->state : SITE_JOIN;
}

bool fst__site_ended(const struct site *s, const char **why)
{
    *why = s->why;
    return s->ended;
}

/* ---- beginning and end ----------------------------------------------------------------------------------- */

static fst_status take_up(struct site *s, fst_error *err)
{
    struct line_of_file head;
    fst_buf none = {0};
    fst_status st = get(s, "site", &head, &none, err);
    fst_buf_release(&none);
    if (st || head.round < 0)
        return st;
    s->run = head.run;
    s->epoch = head.epoch;
    st = get(s, "kept", &s->kept_of, &s->kept, err);
    if (!st)
        st = get(s, "next", &s->next_of, &s->next, err);
    if (!st)
        st = get(s, "outbox", &s->outbox_of, &s->outbox, err);
    if (!st && s->outbox_of.round >= 0 && (!s->outbox_of.has_manifest || s->outbox_of.manifest.bytes != s->outbox.len))
        st = fst_fail(err, FST_E_FORMAT, "outbox: not as long as it says");
    if (st || s->outbox_of.round < 0)
        return st;
    s->manifest = s->outbox_of.manifest;
    s->seconds = s->outbox_of.seconds;
    serve_outbox(s);
    return FST_OK;
}

fst_status fst__site_new(struct site **out, const struct site_spec *spec, fst_error *err)
{
    struct site *s = fst_calloc(1, sizeof *s);
    char filter[FST_TOPIC];
    if (!s)
        return fst_fail_memory(err, sizeof *s);
    s->spec = *spec;
    s->hello_wait = hello_first;
    s->kept_of = s->next_of = s->outbox_of = FST__NO_LINE;
    fst_status st = fst_blob_server_new(&s->server, 0, err);
    static const char *const leaves[] = {"ctl", "get", "part"};
    for (int i = 0; !st && i < 3; i++)
        st = fst_transport_subscribe(spec->transport, fst_topic_down(filter, spec->id, leaves[i]), err);
    if (!st)
        st = take_up(s, err);
    if (st)
        fst__site_free(s);
    else
        *out = s;
    return st;
}

void fst__site_free(struct site *s)
{
    if (!s)
        return;
    end_fetch(s);
    fst_blob_server_free(s->server);
    fst_buf_release(&s->down);
    fst_buf_release(&s->kept);
    fst_buf_release(&s->next);
    fst_buf_release(&s->outbox);
    fst_free(s);
}

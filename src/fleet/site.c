/* The site's half of the protocol, see site.h.
 *
 * Data flow: ORDER -> `order` -> fetch of its base -> `down` -> job -> fst__site_trained -> files "next" (what the
 * client keeps if this round counts) and "outbox" (the update), in this order -> RESULT until a RECEIPT. Files are
 * site_files.c. */
#include "site_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double beat_every = 4, offer_every = 5, hello_first = 0.5, hello_most = 30, files_every = 1,
                    version_every = 30;

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
    struct beat b = {.round = s->order.round, .state = s->state, .windows = s->windows, .offloaded = s->offloaded};
    memcpy(b.instance, s->spec.instance, sizeof b.instance);
    memcpy(b.stage, s->order.stage, sizeof b.stage);
    memcpy(b.waits, s->waits, sizeof b.waits);
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

/* ---- a round --------------------------------------------------------------------------------------------- */

static void enter(struct site *s, fst__site_state state, double now)
{
    s->state = state;
    s->beat_at = s->say_at = now;
}

/* The disk is full, or not there: whoever looks after it is told, here and at the server, and it is tried again. */
static void hold(struct site *s, double now, const char *why)
{
    char short_why[FST__REASON];
    snprintf(short_why, sizeof short_why, "%.500s", why);
    if (!strcmp(s->waits, short_why))
        return;
    memcpy(s->waits, short_why, sizeof s->waits);
    s->beat_at = now;
    fst_log(FST_LOG_WARN, "%s; waiting until that goes", short_why);
}

static void end_fetch(fst_blob_fetch **f)
{
    fst_blob_fetch_free(*f);
    *f = NULL;
}

/* A blob of the server's; name: of its file, if it is large. */
static fst_status begin_fetch(struct site *s, fst_blob_fetch **f, const fst_blob_manifest *m, const char *name,
                              double now, fst_error *err)
{
    char *path = s->spec.store.path ? s->spec.store.path(s->spec.store.ctx, name) : NULL;
    const fst_blob_fetch_spec spec = {
        .manifest = *m, .most = s->spec.most, .now = now, .file = path, .in_memory = fst__site_in_memory(s)};
    fst_error why = {0};
    fst_status st = fst_blob_fetch_new(f, &spec, &why);
    fst_free(path);
    if (!st || st == FST_E_IO || f != &s->fetch || st == FST_E_MEMORY)
        return st ? fst_fail(err, st, "%s", why.message) : FST_OK;
    snprintf(s->cannot, sizeof s->cannot, "%.500s", why.message); /* it is too large */
    enter(s, SITE_OFFER, now);
    return FST_OK;
}

static fst_status enter_round(struct site *s, const struct order *o, double now, fst_error *err)
{
    if (fst__site_is_of(&s->outbox_of, o->stage, (int64_t)o->round)) { /* the server lost it, or we did the receipt */
        enter(s, SITE_OFFER, now);
        return FST_OK;
    }
    fst_status st = fst__site_settle_kept(s, o, err);
    if (st)
        return st;
    if (s->outbox_of.round >= 0) {
        fst__site_hide_outbox(s);
        s->spec.store.drop(s->spec.store.ctx, "outbox");
        s->outbox_of = FST__NO_LINE;
        fst_buf_release(&s->outbox);
        s->outbox = (fst_buf){.len = 0};
    }
    if (s->cannot[0]) {
        enter(s, SITE_OFFER, now);
        return FST_OK;
    }
    if (s->down.data && !strcmp(s->fetched, o->base.digest)) {
        enter(s, SITE_TRAIN, now);
        return FST_OK;
    }
    fst__site_let_go(&s->down, true);
    s->fetched[0] = 0;
    enter(s, SITE_FETCH, now);
    return begin_fetch(s, &s->fetch, &o->base, "base", now, err);
}

/* What cannot be written yet is no reason to be left out of the round: it is begun again until it can, or until the
 * server goes on. */
static fst_status begin_round(struct site *s, const struct order *o, double now, fst_error *err)
{
    fst_error why = {0};
    s->order = *o;
    s->cannot[0] = 0;
    s->asked = false;
    s->again_at = INFINITY;
    end_fetch(&s->fetch);
    fst_status st = enter_round(s, &s->order, now, &why);
    if (st && st != FST_E_IO)
        return fst_fail(err, st, "%s", why.message);
    if (!st) {
        s->waits[0] = 0;
        return FST_OK;
    }
    s->state = SITE_FETCH;
    s->again_at = now + files_every;
    hold(s, now, why.message);
    return FST_OK;
}

/* What was fetched, decoded; the fetch is over. */
static fst_status decode(const struct site *s, fst_blob_fetch **f, struct held *out, fst_error *err)
{
    const fst_blob_manifest *m = fst_blob_fetch_manifest(*f);
    const void *coded = NULL;
    fst_status st = fst_blob_fetch_finish(*f, &coded, err);
    fst__site_let_go(out, false);
    if (!st && m->codec == FST_BLOB_PLAIN) {
        *out = (struct held){.fetch = *f, .data = coded, .len = (size_t)m->bytes};
        *f = NULL;
        return FST_OK;
    }
    if (!st)
        st = fst_blob_decode(m, coded, s->spec.most, &out->raw, err);
    if (!st) {
        out->data = out->raw.data;
        out->len = out->raw.len;
    }
    fst_blob_fetch_drop(*f);
    *f = NULL;
    return st;
}

static fst_status fetched(struct site *s, double now, fst_error *err)
{
    fst_error why = {0};
    fst_status st = decode(s, &s->fetch, &s->down, &why);
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
        const fst_buf *kept = fst__site_kept_after(s, &s->measure);
        *out = (struct site_job){.measure = true,
                                 .stage = s->measure.stage,
                                 .fingerprint = s->measure.fingerprint,
                                 .round = s->measure.round,
                                 .classes = s->measure.classes,
                                 .data = s->measure.data,
                                 .down = s->measure.base.parts ? s->given.data : NULL,
                                 .down_len = s->measure.base.parts ? s->given.len : 0,
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
                             .classes = s->order.classes,
                             .data = s->order.data,
                             .down = s->down.data,
                             .down_len = s->down.len,
                             .kept = s->kept.data,
                             .kept_len = s->kept.len};
    return true;
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
        st = fst__site_keep_update(s, up, len, keep, keep_len, &why);
    if (st == FST_E_IO) {
        s->asked = true;
        hold(s, now, why.message);
        return fst_fail(err, FST_E_BUSY, "%s", why.message);
    }
    s->waits[0] = 0;
    if (failed || st)
        snprintf(s->cannot, sizeof s->cannot, "%.500s", failed ? failed : why.message);
    else
        fst__site_serve_outbox(s);
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
    fst__site_let_go(&s->given, true);
    if (s->measure_epoch != s->epoch) /* the round may be played again: the server asks anew */
        return;
    s->measured = true;
    s->beat_at = now;
    s->figures = (struct figures){.round = s->measure.round, .own = *own};
    memcpy(s->figures.instance, s->spec.instance, sizeof s->figures.instance);
    memcpy(s->figures.stage, s->measure.stage, sizeof s->figures.stage);
    memcpy(s->figures.fingerprint, s->measure.fingerprint, sizeof s->figures.fingerprint);
    if (s->measure.base.parts)
        memcpy(s->figures.given, s->measure.base.digest, sizeof s->figures.given);
    snprintf(s->figures.failed, sizeof s->figures.failed, "%s", failed ? failed : "");
    say_figures(s);
}

/* Measuring waits for training to end: the server asks again. */
static fst_status on_measure(struct site *s, double now, const struct order *o, fst_error *err)
{
    const struct order *m = &s->measure;
    bool same = m->round == o->round && m->counted == o->counted && !strcmp(m->stage, o->stage) &&
                !strcmp(m->fingerprint, o->fingerprint) && /* a round that is played again may count others */
                m->base.parts == o->base.parts && !strcmp(m->base.digest, o->base.digest);
    if (same && s->measured)
        say_figures(s);
    if (s->asked || s->to_measure || s->measuring || (same && (s->measured || s->giving)))
        return FST_OK;
    end_fetch(&s->giving);
    s->measure = *o;
    s->measure_epoch = s->epoch;
    s->measured = false;
    s->to_measure = !o->base.parts;
    fst_error why = {0};
    fst_status st = s->to_measure ? FST_OK : begin_fetch(s, &s->giving, &o->base, "given", now, &why);
    if (st == FST_E_IO) { /* the order comes again */
        hold(s, now, why.message);
        return FST_OK;
    }
    return st ? fst_fail(err, st, "%s", why.message) : FST_OK;
}

static fst_status on_order(struct site *s, double now, const fst_frame *f, fst_error *err)
{
    struct order o;
    if (f->seq <= s->ordered || fst__read_order(&o, s->spec.most, f->body, f->body_len, NULL))
        return FST_OK;
    s->ordered = f->seq;
    if (o.kind == ORDER_STOP) {
        say_bye(s);
        fst__site_forget_run(s);
        end(s, "");
        return FST_OK;
    }
    if (o.kind == ORDER_MEASURE)
        return on_measure(s, now, &o, err);
    end_fetch(&s->giving);             /* the round is played again: what was given is not asked for any more */
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
    s->receipt = m;
    s->receipts++;
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
    else if (!strcmp(leaf, "part") && f->kind == FST_KIND_PART) {
        if (!s->fetch || !fst_blob_fetch_part(s->fetch, now, f->body, f->body_len))
            if (s->giving)
                (void)fst_blob_fetch_part(s->giving, now, f->body, f->body_len);
    }
    return FST_OK;
}

/* It cannot be read what it says, and its hash neither: that it is no reason to end. */
static void complain_of_version(struct site *s, double now, unsigned version)
{
    if (now < s->version_at)
        return;
    s->version_at = now + version_every;
    fst_log(FST_LOG_WARN,
            "%s: what comes from the cloud is of version %u of the protocol, this program speaks version %u; waiting",
            s->spec.id, version, (unsigned)FST_FRAME_VERSION);
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
    if (no == FST_REFUSED_VERSION)
        complain_of_version(s, now, f.version);
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

/* Asks for parts; true once all are here. */
static bool pull(struct site *s, double now, fst_blob_fetch *f)
{
    fst_blob_get g;
    fst_buf body = {0};
    while (s->up && fst_blob_fetch_ask(f, now, FST_BLOB_WINDOW, &g)) {
        unsigned char bytes[FST_BLOB_GET];
        fst_blob_get_write(&g, bytes);
        body.len = 0;
        if (fst_buf_append(&body, bytes, sizeof bytes, NULL) || publish(s, "get", FST_KIND_GET, &body, NULL)) {
            fst_blob_fetch_unasked(f, &g);
            break;
        }
    }
    fst_buf_release(&body);
    return fst_blob_fetch_where(f) != FST_FETCH_GOING;
}

/* What is to be measured is here, or cannot be: that is an answer too. */
static fst_status take_given(struct site *s, double now, fst_error *err)
{
    const fst_client_figures none = {.has = false};
    fst_error why = {0};
    fst_status st = decode(s, &s->giving, &s->given, &why);
    if (st == FST_E_MEMORY)
        return fst_fail_in(err, st, "%s", why.message);
    s->to_measure = !st;
    if (st)
        fst__site_measured(s, now, &none, why.message);
    return FST_OK;
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

/* Run and epoch: a process that comes after this one, without them, is told by the server. */
static fst_status save_run(struct site *s, double now, fst_error *err)
{
    fst_error why = {0};
    fst_status st = fst__site_save_run(s, &why);
    if (st != FST_E_IO)
        return st ? fst_fail(err, st, "%s", why.message) : FST_OK;
    s->save = true;
    s->save_at = now + files_every;
    hold(s, now, why.message);
    return FST_OK;
}

fst_status fst__site_tick(struct site *s, double now, fst_error *err)
{
    fst_status st = s->save && now >= s->save_at ? save_run(s, now, err) : FST_OK;
    if (!st && now >= s->again_at)
        st = begin_round(s, &s->order, now, err);
    if (!st && s->fetch && pull(s, now, s->fetch))
        st = fetched(s, now, err);
    if (!st && s->giving && pull(s, now, s->giving))
        st = take_given(s, now, err);
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
    if (s->giving)
        at = fmin(at, fst_blob_fetch_due(s->giving));
    if (s->save)
        at = fmin(at, s->save_at);
    return fmin(at, s->again_at);
}

fst__site_state fst__site_state_of(const struct site *s, char stage[FST__STAGE_NAME], uint64_t *round)
{
    memcpy(stage, s->order.stage, FST__STAGE_NAME);
    *round = s->order.round;
    return s->welcome ? s->state : SITE_JOIN;
}

void fst__site_used(struct site *s)
{
    fst__site_let_go(&s->down, true);
    s->fetched[0] = 0;
}

void fst__site_windows(struct site *s, uint64_t windows, uint64_t offloaded)
{
    s->windows = windows;
    s->offloaded = offloaded;
}

uint64_t fst__site_run(const struct site *s)
{
    return s->run;
}

uint64_t fst__site_epoch(const struct site *s)
{
    return s->epoch;
}

const struct receipt *fst__site_receipt(const struct site *s, uint64_t *count)
{
    *count = s->receipts;
    return &s->receipt;
}

bool fst__site_ended(const struct site *s, const char **why)
{
    *why = s->why;
    return s->ended;
}

/* ---- beginning and end ----------------------------------------------------------------------------------- */

fst_status fst__site_new(struct site **out, const struct site_spec *spec, fst_error *err)
{
    struct site *s = fst_calloc(1, sizeof *s);
    char filter[FST_TOPIC];
    if (!s)
        return fst_fail_memory(err, sizeof *s);
    s->spec = *spec;
    s->hello_wait = hello_first;
    s->again_at = INFINITY;
    s->kept_of = s->next_of = s->outbox_of = FST__NO_LINE;
    fst_status st = fst_blob_server_new(&s->server, 0, err);
    static const char *const leaves[] = {"ctl", "get", "part"};
    for (int i = 0; !st && i < 3; i++)
        st = fst_transport_subscribe(spec->transport, fst_topic_down(filter, spec->id, leaves[i]), err);
    if (!st)
        st = fst__site_take_up(s, err);
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
    end_fetch(&s->fetch);
    end_fetch(&s->giving);
    if (s->server)
        fst__site_hide_outbox(s);
    fst_blob_server_free(s->server);
    fst__site_let_go(&s->down, false);
    fst__site_let_go(&s->given, true);
    fst_buf_release(&s->kept);
    fst_buf_release(&s->next);
    fst_buf_release(&s->outbox);
    fst_free(s);
}

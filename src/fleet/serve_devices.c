/* What devices say to their edge, and what the edge says to them besides answers: hello, what they were answered,
 * goodbye. See serve.h and docs/protocol.md. */
#include "serve_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double dismiss_every = 0.3;

/* ---- saying --------------------------------------------------------------------------------------------- */

fst_status fst__serve_tell(struct serve *s, const struct device *d, const char *leaf, fst_frame_kind kind,
                           const fst_buf *body)
{
    char topic[FST_TOPIC];
    fst_buf bytes = {0};
    fst_frame f = {.kind = kind, .seq = ++s->seq, .body = body->data, .body_len = body->len};
    snprintf(f.sender, sizeof f.sender, "%s", s->id);
    fst_status st = fst_frame_encode(&f, &bytes, NULL);
    if (!st)
        st = fst_transport_publish(s->local, fst__topic_reply(topic, d->id, leaf), bytes.data, bytes.len, NULL);
    fst_buf_release(&bytes);
    return st;
}

/* Said again when the device asks again. */
static void tell(struct serve *s, const struct device *d, fst_frame_kind kind, fst_status written, fst_buf *body)
{
    if (!written)
        (void)!fst__serve_tell(s, d, "ctl", kind, body);
    fst_buf_release(body);
}

static void refuse(struct serve *s, const struct device *d, const char *instance, const char *why)
{
    fst_buf body = {0};
    struct refusal m = {.final = true};
    snprintf(m.reason, sizeof m.reason, "%s", why);
    snprintf(m.instance, sizeof m.instance, "%s", instance);
    fst__serve_say(s, FST_LOG_WARN, "%s: refused: %s", d->id, why);
    tell(s, d, FST_KIND_REFUSAL, fst__write_refusal(&m, &body, NULL), &body);
}

static void receipt(struct serve *s, const struct device *d, const char *why)
{
    fst_buf body = {0};
    struct receipt m = {.folded = !*why};
    snprintf(m.why, sizeof m.why, "%.500s", why);
    tell(s, d, FST_KIND_RECEIPT, fst__write_receipt(&m, &body, NULL), &body);
}

void fst__serve_call(struct serve *s)
{
    const struct welcome m = {.hello = true};
    for (uint32_t k = 0; k < s->devices; k++) {
        fst_buf body = {0};
        tell(s, &s->device[k], FST_KIND_WELCOME, fst__write_welcome(&m, &body, NULL), &body);
    }
}

/* ---- hearing -------------------------------------------------------------------------------------------- */

static void end_fetch(struct device *d)
{
    fst_blob_fetch_free(d->fetch);
    d->fetch = NULL;
    d->offered = false;
}

/* Another stream: the device started again, and asks everything again. */
static void begin_stream(struct serve *s, uint32_t k, uint64_t stream)
{
    struct device *d = &s->device[k];
    if (d->known && d->stream == stream)
        return;
    fst__serve_say(s, d->known ? FST_LOG_INFO : FST_LOG_DEBUG, "%s %s", d->id, d->known ? "started again" : "joined");
    d->known = true;
    d->received = d->answered = 0;
    d->bye = false;
    d->stream = stream;
    d->done = false;
    end_fetch(d);
}

static void judge(const struct serve *s, const struct device *d, const struct hello *h, char *why, size_t size)
{
    *why = 0;
    if (strcmp(h->id, d->id) || strcmp(h->role, "device") || h->client != d->number)
        snprintf(why, size, "it says that it is %s %s, number %lu", h->role, h->id, (unsigned long)h->client + 1);
    else if (strcmp(h->task, s->task))
        snprintf(why, size, "the tasks differ: %.12s at %s, %.12s here", s->task, s->id, h->task);
    else if (s->at_work && h->learn != s->at_work->bundle.windows[d->number])
        snprintf(why, size, "it has %llu windows, the cloud's data give it %lu", (unsigned long long)h->learn,
                 (unsigned long)s->at_work->bundle.windows[d->number]);
}

static void on_hello(struct serve *s, uint32_t k, const fst_frame *f)
{
    struct device *d = &s->device[k];
    struct hello h = {.settings = NULL};
    char why[FST__REASON];
    if (fst__read_hello(&h, f->body, f->body_len, NULL))
        return;
    judge(s, d, &h, why, sizeof why);
    if (*why) {
        refuse(s, d, h.instance, why);
    } else {
        begin_stream(s, k, h.run);
        if (s->answers)
            (void)!fst__answerer_begin(s->answers, k, h.run, NULL);
    }
    fst__hello_release(&h);
}

static void on_result(struct serve *s, uint32_t k, const fst_frame *f)
{
    struct device *d = &s->device[k];
    struct result r;
    if (!s->at_work || fst__read_result(&r, FST_BLOB_MAX, f->body, f->body_len, NULL))
        return;
    if (d->done) {
        receipt(s, d, "");
        return;
    }
    /* 42 bytes a window, and a header */
    uint64_t most = 64 * (uint64_t)s->at_work->bundle.windows[d->number] + 65536;
    const fst_blob_fetch_spec spec = {.manifest = r.blob, .most = most, .now = fst_clock_seconds()};
    if (d->fetch && fst_blob_manifest_equal(&r.blob, &d->result.blob))
        return;
    end_fetch(d);
    d->result = r;
    d->offered = !fst_blob_fetch_new(&d->fetch, &spec, NULL);
    if (!d->offered)
        receipt(s, d, "it is longer than the answers to its windows are");
}

static void on_ctl(struct serve *s, uint32_t k, const fst_frame *f)
{
    if (f->kind == FST_KIND_HELLO)
        on_hello(s, k, f);
    else if (f->kind == FST_KIND_RESULT)
        on_result(s, k, f);
    else if (f->kind == FST_KIND_BYE)
        s->device[k].bye = true;
}

static void take_in(struct serve *s, uint32_t k, uint32_t asker, const struct windows *m, bool adopt)
{
    uint64_t before = fst__answerer_count(s->answers)->windows;
    (void)fst__answerer_windows(s->answers, fst_clock_seconds(), asker, m, adopt);
    uint64_t more = fst__answerer_count(s->answers)->windows - before;
    s->device[k].received += more;
    s->count.received += more;
}

static void on_windows(struct serve *s, uint32_t k, const fst_frame *f)
{
    struct windows m;
    if (!s->answers || f->kind != FST_KIND_WINDOWS || !fst__windows_read(&m, f->body, f->body_len))
        return;
    if (!s->device[k].known) /* this edge started again */
        begin_stream(s, k, m.stream);
    if (s->device[k].stream == m.stream)
        take_in(s, k, k, &m, false);
}

/* One window's bytes, without a frame: the edge numbers it. */
static void on_raw(struct serve *s, uint32_t k, const void *data, size_t len)
{
    if (!s->answers)
        return;
    const fst_tier_spec *t = &s->at_work->bundle.tier;
    struct windows m = {.stream = 1, .first = s->device[k].raw, .count = 1, .dtype = t->dtype, .shape = t->shape};
    m.bytes = fst__window_bytes(m.dtype, &m.shape);
    m.data = data;
    if (len != m.bytes) {
        fst__serve_say(s, FST_LOG_WARN, "%s: a bare window of %zu bytes; %lu are right", s->device[k].id, len,
                       (unsigned long)m.bytes);
        return;
    }
    s->device[k].raw++;
    take_in(s, k, s->devices + k, &m, true);
}

void fst__serve_device_message(struct serve *s, const char *topic, const void *data, size_t len)
{
    char id[FST_SITE_ID];
    const char *leaf;
    fst_frame f;
    uint32_t k = 0;
    if (!fst__topic_ask_split(topic, s->id, id, &leaf))
        return;
    while (k < s->devices && strcmp(s->device[k].id, id))
        k++;
    if (k == s->devices)
        return;
    s->device[k].heard = fst_clock_seconds();
    if (!strcmp(leaf, "raw")) {
        on_raw(s, k, data, len);
        return;
    }
    if (fst_frame_decode(&f, data, len) || strcmp(f.sender, id))
        return;
    if (!strcmp(leaf, "ctl"))
        on_ctl(s, k, &f);
    else if (!strcmp(leaf, "ask"))
        on_windows(s, k, &f);
    else if (!strcmp(leaf, "part") && f.kind == FST_KIND_PART && s->device[k].fetch)
        (void)fst_blob_fetch_part(s->device[k].fetch, fst_clock_seconds(), f.body, f.body_len);
}

/* ---- what they were answered ----------------------------------------------------------------------------- */

/* Its bytes, decoded, are kept; what they say is checked. */
static fst_status take_record(struct serve *s, struct device *d, fst_error *err)
{
    const fst_blob_manifest *blob = fst_blob_fetch_manifest(d->fetch);
    const fst_cascade_bundle *b = &s->at_work->bundle;
    const void *coded;
    fst_message m;
    fst_cascade_answers one;
    fst_status st = fst_blob_fetch_finish(d->fetch, &coded, err);
    fst_buf_release(&d->record);
    d->record = (fst_buf){0};
    if (!st && blob->codec == FST_BLOB_PLAIN)
        st = fst_buf_append(&d->record, coded, (size_t)blob->bytes, err);
    else if (!st)
        st = fst_blob_decode(blob, coded, 64 * (uint64_t)b->windows[d->number] + 65536, &d->record, err);
    if (!st)
        st = fst_message_parse(&m, d->record.data, d->record.len, err);
    if (!st)
        st = fst_cascade_answers_init(&one, b->windows[d->number], 1, err);
    if (!st) {
        st = fst_cascade_answers_read(&one, 0, 0, one.windows, 1, b->model.classes, &m, err);
        fst_cascade_answers_release(&one);
    }
    return st;
}

static void go_on(struct serve *s, struct device *d, double now)
{
    fst_blob_get g;
    fst_buf body = {0};
    fst_error why = {0};
    while (s->up && fst_blob_fetch_ask(d->fetch, now, FST_BLOB_WINDOW, &g)) {
        unsigned char bytes[FST_BLOB_GET];
        fst_blob_get_write(&g, bytes);
        body.len = 0;
        if (fst_buf_append(&body, bytes, sizeof bytes, NULL) || fst__serve_tell(s, d, "get", FST_KIND_GET, &body)) {
            fst_blob_fetch_unasked(d->fetch, &g);
            break;
        }
    }
    fst_buf_release(&body);
    if (fst_blob_fetch_where(d->fetch) != FST_FETCH_FETCHED)
        return;
    d->done = !take_record(s, d, &why);
    if (!d->done)
        fst__serve_say(s, FST_LOG_WARN, "%s: what it says that it was answered is of no use: %s", d->id, why.message);
    receipt(s, d, d->done ? "" : why.message);
    end_fetch(d);
}

void fst__serve_fetch(struct serve *s, double now)
{
    for (uint32_t k = 0; k < s->devices; k++)
        if (s->device[k].fetch)
            go_on(s, &s->device[k], now);
}

double fst__serve_fetch_due(const struct serve *s)
{
    double due = INFINITY;
    for (uint32_t k = 0; k < s->devices; k++)
        if (s->device[k].fetch)
            due = fmin(due, fst_blob_fetch_due(s->device[k].fetch));
    return due;
}

bool fst__serve_dismiss(struct serve *s, double now)
{
    bool all = true;
    const struct order m = {.kind = ORDER_STOP};
    for (uint32_t k = 0; k < s->devices; k++)
        all = all && (s->device[k].bye || !s->device[k].known);
    if (all || now >= s->stop_until)
        return true;
    if (now < s->stop_at)
        return false;
    s->stop_at = now + dismiss_every;
    for (uint32_t k = 0; k < s->devices; k++) {
        fst_buf body = {0};
        tell(s, &s->device[k], FST_KIND_ORDER, fst__write_order(&m, &body, NULL), &body);
    }
    return false;
}

void fst__serve_devices_free(struct serve *s)
{
    for (uint32_t k = 0; s->device && k < s->devices; k++) {
        fst_blob_fetch_free(s->device[k].fetch);
        fst_buf_release(&s->device[k].record);
    }
    fst_free(s->device);
}

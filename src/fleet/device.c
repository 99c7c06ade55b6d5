/*
 * A device as a process: its windows go to its edge, and it notes what it was answered and how long that took.
 *
 * Data flow: windows of the task's data, as they become due -> asker -> WINDOWS -> the edge -> ANSWERS -> the record.
 * When every window has its answer, the record is offered to the edge, again and again until the edge lets the device
 * go. It keeps no file: started again, it asks everything again.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/cascade_run.h"
#include "place.h"
#include "stream.h"

static const double hello_first = 0.25, hello_most = 2, offer_first = 0.5, offer_most = 5, silence = 5,
                    first_complaint = 30;

struct gadget {
    const fst_fleet_options *options;
    const char *id;
    char edge[FST_SITE_ID], instance[FST__INSTANCE], said[FST__SAID], why[FST__REASON];
    fst_task_device *device;
    const fst_task_device_info *info;
    fst_transport *transport;
    bool up, ended, welcome; /* welcome: the edge has said what we may send */
    uint64_t seq;
    struct asker *asker;
    size_t added; /* windows that were handed over */
    double began; /* INFINITY: nothing was sent */
    double last;  /* answer */
    bool called;  /* the edge asks who we are */
    double hello_at, hello_wait, offer_at, offer_wait, heard, complain_at;
    fst_cascade_answers record;
    fst_buf packed, coded; /* of the record, when it is complete */
    fst_blob_manifest manifest;
    fst_blob_server *blobs;
    unsigned char *room; /* a message of windows */
    fst_buf body;
};

static bool stopped(const struct gadget *g)
{
    return g->options->task.stop && atomic_load(g->options->task.stop);
}

/* ---- saying --------------------------------------------------------------------------------------------- */

static fst_status publish(struct gadget *g, const char *leaf, fst_frame_kind kind, const fst_buf *body)
{
    char topic[FST_TOPIC];
    fst_buf bytes = {0};
    fst_frame f = {.kind = kind, .seq = ++g->seq, .body = body->data, .body_len = body->len};
    snprintf(f.sender, sizeof f.sender, "%s", g->id);
    fst_status st = fst_frame_encode(&f, &bytes, NULL);
    if (!st)
        st = fst_transport_publish(g->transport, fst__topic_ask(topic, g->edge, g->id, leaf), bytes.data, bytes.len,
                                   NULL);
    fst_buf_release(&bytes);
    return st;
}

/* Everything here is said again until it is answered. */
static void say(struct gadget *g, fst_frame_kind kind, fst_status written, fst_buf *body)
{
    if (!written)
        (void)!publish(g, "ctl", kind, body);
    fst_buf_release(body);
}

static void say_hello(struct gadget *g)
{
    fst_buf body = {0};
    struct hello h = {.client = g->info->device, .run = fst__asker_stream(g->asker), .learn = g->info->windows};
    snprintf(h.id, sizeof h.id, "%s", g->id);
    snprintf(h.role, sizeof h.role, "device");
    snprintf(h.program, sizeof h.program, "%s", FST_VERSION);
    memcpy(h.instance, g->instance, sizeof h.instance);
    memcpy(h.task, g->info->task, sizeof h.task);
    memcpy(h.data, g->info->task, sizeof h.data); /* windows are not compared yet */
    say(g, FST_KIND_HELLO, fst__write_hello(&h, &body, NULL), &body);
}

static void say_result(struct gadget *g)
{
    fst_buf body = {0};
    struct result r = {.seconds = g->last - g->began, .blob = g->manifest};
    memcpy(r.instance, g->instance, sizeof r.instance);
    say(g, FST_KIND_RESULT, fst__write_result(&r, &body, NULL), &body);
}

/* ---- windows --------------------------------------------------------------------------------------------- */

/* How many are there to be asked about: batch k is complete `k x interval` after the first. */
static size_t at_hand(const struct gadget *g, double now)
{
    const fst_task_device_info *i = g->info;
    if (i->interval <= 0)
        return i->windows;
    double batches = isfinite(g->began) ? floor((now - g->began) / i->interval) + 1 : 1;
    double n = batches * (double)i->batch;
    return n < (double)i->windows ? (size_t)n : i->windows;
}

static void hand_over(struct gadget *g, double now)
{
    for (size_t n = at_hand(g, now); g->added < n && fst__asker_add(g->asker, now, g->added, NULL);)
        g->added++;
}

static fst_status send_windows(struct gadget *g, uint64_t first, uint32_t count, const uint64_t *what, fst_error *err)
{
    struct windows m = {.stream = fst__asker_stream(g->asker),
                        .first = first,
                        .count = count,
                        .dtype = g->info->dtype,
                        .shape = g->info->shape,
                        .bytes = (uint32_t)g->info->bytes};
    g->body.len = 0;
    fst_status st = fst__windows_head(&m, &g->body, err);
    for (uint32_t i = 0; !st && i < count; i++)
        st = fst_task_device_window(g->device, (size_t)what[i], g->room + i * g->info->bytes, err);
    if (!st)
        st = fst_buf_append(&g->body, g->room, count * g->info->bytes, err);
    if (st)
        return st;
    if (publish(g, "ask", FST_KIND_WINDOWS, &g->body))
        fst__asker_unsent(g->asker, first, count);
    else if (!isfinite(g->began))
        g->began = fst_clock_seconds();
    return FST_OK;
}

static fst_status ask(struct gadget *g, double now, fst_error *err)
{
    const struct windows of = {.shape = g->info->shape, .bytes = (uint32_t)g->info->bytes};
    uint32_t most = fst__windows_most(&of), count = 0;
    uint64_t first, what[256];
    fst_status st = FST_OK;
    most = most < 256 ? most : 256;
    if (most > g->info->batch)
        most = (uint32_t)g->info->batch;
    hand_over(g, now);
    while (!st && g->up && g->welcome && fst_transport_unsent(g->transport) < FST_TRANSPORT_UNSENT / 2 &&
           fst__asker_next(g->asker, now, most, &first, &count, what))
        st = send_windows(g, first, count, what, err);
    return st;
}

/* ---- what it was answered ---------------------------------------------------------------------------------- */

static int32_t class_of(uint16_t class_)
{
    return class_ == FST__NO_CLASS ? -1 : class_;
}

static void on_answer(void *ctx, uint64_t what, double seconds, const struct stream_answer *a)
{
    struct gadget *g = ctx;
    size_t i = (size_t)what;
    g->record.answer[i] = class_of(a->answer);
    g->record.first[i] = class_of(a->first);
    g->record.tier[i] = a->tier;
    g->record.marks[i] = a->marks;
    g->record.confidence[i] = a->confidence;
    g->record.total[i] = seconds;
    g->record.queue[i] = a->queue_us / 1e6;
    g->record.compute[i] = a->compute_us / 1e6;
    g->last = fst_clock_seconds();
}

/* The record is complete: a blob of a message. */
static fst_status close_record(struct gadget *g, fst_error *err)
{
    fst_message m = fst_message_of(FST_CASCADE_ANSWERS);
    size_t unsure = 0, refused = 0, cloud = 0;
    g->record.seconds[0] = isfinite(g->began) ? g->last - g->began : 0;
    g->record.again[0] = (int64_t)fst__asker_asked_again(g->asker);
    fst_status st = fst_cascade_answers_write(&g->record, &m, err);
    if (!st)
        st = fst_message_pack(&m, &g->packed, err);
    if (!st)
        st = fst_blob_encode(g->packed.data, g->packed.len, &g->coded, &g->manifest, err);
    if (!st)
        st = fst_blob_server_add(g->blobs, &g->manifest,
                                 g->manifest.codec == FST_BLOB_PLAIN ? g->packed.data : g->coded.data, err);
    for (size_t i = 0; i < g->record.windows; i++) {
        unsure += (g->record.marks[i] & FST_ANSWER_UNSURE) != 0;
        refused += (g->record.marks[i] & FST_ANSWER_REFUSED) != 0;
        cloud += g->record.tier[i] == TIER_CLOUD;
    }
    if (!st)
        fst_log(
            FST_LOG_INFO,
            "%s: %zu windows answered in %.3f s (of this host's clock: %.3f to %.3f), %zu by the cloud, %zu by an edge "
            "that did not reach it%s",
            g->id, g->record.windows, g->record.seconds[0], g->last - g->record.seconds[0], g->last, cloud, unsure,
            refused ? ", some could not be classified" : "");
    g->offer_at = 0;
    g->offer_wait = offer_first;
    return st;
}

/* ---- what the edge says ------------------------------------------------------------------------------------ */

static void on_answers(struct gadget *g, const fst_frame *f)
{
    struct answers m;
    if (f->kind != FST_KIND_ANSWERS || !fst__answers_read(&m, f->body, f->body_len) ||
        m.stream != fst__asker_stream(g->asker))
        return;
    if (!g->welcome)
        fst__asker_again(g->asker, fst_clock_seconds());
    g->welcome = true;
    fst__asker_answers(g->asker, fst_clock_seconds(), &m, on_answer, g);
}

static void on_ctl(struct gadget *g, const fst_frame *f)
{
    struct order order;
    struct refusal refusal;
    struct receipt receipt;
    struct welcome welcome;
    fst_buf body = {0};
    if (f->kind == FST_KIND_WELCOME && !fst__read_welcome(&welcome, f->body, f->body_len, NULL)) {
        g->called = welcome.hello;
    } else if (f->kind == FST_KIND_ORDER && !fst__read_order(&order, 0, f->body, f->body_len, NULL) &&
               order.kind == ORDER_STOP) {
        say(g, FST_KIND_BYE, fst_buf_append(&body, "{}", 2, NULL), &body);
        g->ended = true;
    } else if (f->kind == FST_KIND_REFUSAL && !fst__read_refusal(&refusal, f->body, f->body_len, NULL) &&
               refusal.final && (!*refusal.instance || !strcmp(refusal.instance, g->instance))) {
        memcpy(g->why, refusal.reason, sizeof g->why);
        g->ended = true;
    } else if (f->kind == FST_KIND_RECEIPT && !fst__read_receipt(&receipt, f->body, f->body_len, NULL)) {
        g->offer_wait = offer_most; /* in case the edge loses it */
        g->offer_at = fst_clock_seconds() + offer_most;
        if (!receipt.folded)
            fst_log(FST_LOG_WARN, "%s: %s did not take what it was answered: %s", g->id, g->edge, receipt.why);
    }
}

static void on_message(void *ctx, const char *topic, const void *data, size_t len)
{
    struct gadget *g = ctx;
    const char *leaf;
    fst_frame f;
    fst_blob_get get;
    if (!fst__topic_reply_split(topic, g->id, &leaf) || fst_frame_decode(&f, data, len) || strcmp(f.sender, g->edge))
        return;
    g->heard = fst_clock_seconds();
    if (!strcmp(leaf, "answer"))
        on_answers(g, &f);
    else if (!strcmp(leaf, "ctl"))
        on_ctl(g, &f);
    else if (!strcmp(leaf, "get") && f.kind == FST_KIND_GET && fst_blob_get_read(&get, f.body, f.body_len))
        (void)fst_blob_server_ask(g->blobs, 0, &get);
}

static void on_link(void *ctx, bool up, const char *why)
{
    struct gadget *g = ctx;
    double now = fst_clock_seconds();
    g->up = up;
    if (up) {
        g->hello_at = g->offer_at = now;
        g->hello_wait = hello_first;
        fst__asker_again(g->asker, now);
    }
    fst__tell_link(g->said, g->options->link.url, up, why);
}

/* ---- the loop ----------------------------------------------------------------------------------------------- */

/* Until the edge has said what may be sent, and when it has been silent although something is unanswered. */
static void introduce(struct gadget *g, double now)
{
    bool waits = fst__asker_left(g->asker) > 0 && now - g->heard > silence;
    if (!g->called && ((g->welcome && !waits) || now < g->hello_at))
        return;
    g->called = false;
    say_hello(g);
    g->hello_at = now + g->hello_wait;
    g->hello_wait = fmin(2 * g->hello_wait, hello_most);
}

static bool complete(const struct gadget *g)
{
    return g->added == g->info->windows && !fst__asker_left(g->asker);
}

static void serve(struct gadget *g)
{
    uint32_t who;
    g->body.len = 0;
    while (g->up && fst_blob_server_next(g->blobs, &who, &g->body))
        if (publish(g, "part", FST_KIND_PART, &g->body)) {
            fst_blob_server_put_back(g->blobs);
            break;
        }
}

static void offer(struct gadget *g, double now)
{
    if (now < g->offer_at)
        return;
    say_result(g);
    g->offer_at = now + g->offer_wait;
    g->offer_wait = fmin(2 * g->offer_wait, offer_most);
}

static void complain(struct gadget *g, double now)
{
    double silent = now - g->heard;
    if (silent < first_complaint || now < g->complain_at)
        return;
    g->complain_at = now + silent;
    if (g->up)
        fst_log(FST_LOG_INFO, "%s: nothing was heard of %s for %.0f s; waiting", g->id, g->edge, silent);
    else
        fst_log(FST_LOG_INFO, "%s: no connection to %s: %s; trying again", g->id, g->options->link.url, g->said);
}

static double due(const struct gadget *g, double now)
{
    double at = fmin(now + 0.25, fst__asker_due(g->asker, INFINITY));
    if (!g->up)
        return now + 0.25;
    if (g->info->interval > 0 && isfinite(g->began) && g->added < g->info->windows)
        at = fmin(at, g->began + (double)(g->added / g->info->batch) * g->info->interval);
    return g->welcome ? at : fmin(at, g->hello_at);
}

static fst_status turn(struct gadget *g, fst_error *err)
{
    double now = fst_clock_seconds();
    fst_status st = fst_transport_poll(g->transport, due(g, now), err);
    now = fst_clock_seconds();
    complain(g, now);
    if (st || !g->up || g->ended)
        return st;
    introduce(g, now);
    st = ask(g, now, err);
    if (st || !complete(g))
        return st;
    if (!g->packed.len)
        st = close_record(g, err);
    if (st)
        return st;
    serve(g);
    if (g->welcome)
        offer(g, now);
    return FST_OK;
}

static fst_status run(struct gadget *g, fst_error *err)
{
    fst_status st = FST_OK;
    g->heard = fst_clock_seconds();
    while (!st && !g->ended && !stopped(g))
        st = turn(g, err);
    if (st || (stopped(g) && !g->ended))
        return st ? st : fst_fail(err, FST_E_CANCELLED, "%s: stopped", g->id);
    for (double end = fst_clock_seconds() + 2; fst_transport_unsent(g->transport) && fst_clock_seconds() < end;)
        if (fst_transport_poll(g->transport, end, err))
            break;
    if (*g->why)
        return fst_fail(err, FST_E_CONFIG, "%s: refused by %s: %s", g->id, g->edge, g->why);
    fst_log(FST_LOG_INFO, "%s: %s is done", g->id, g->edge);
    return FST_OK;
}

/* ---- beginning and end --------------------------------------------------------------------------------------- */

/* "device-3" -> 2 */
static fst_status number_of(const char *id, uint32_t *out, fst_error *err)
{
    char *end = NULL;
    long k = !strncmp(id, "device-", 7) && id[7] >= '1' && id[7] <= '9' ? strtol(id + 7, &end, 10) : 0;
    if (!fst_site_id_valid(id) || k < 1 || *end || k > INT32_MAX)
        return fst_fail(err, FST_E_CONFIG, "\"%s\" is no device: they are device-1, device-2 ...", id);
    *out = (uint32_t)k - 1;
    return FST_OK;
}

static fst_status prepare(struct gadget *g, fst_error *err)
{
    char name[FST__INSTANCE];
    unsigned long long stream = 0;
    g->info = fst_task_device_look(g->device);
    snprintf(g->edge, sizeof g->edge, "edge-%lu", (unsigned long)g->info->edge + 1);
    fst__draw_name(g->instance);
    fst__draw_name(name);
    (void)sscanf(name, "%16llx", &stream);
    if (fst__window_bytes(g->info->dtype, &g->info->shape) != g->info->bytes)
        return fst_fail(err, FST_E_LIMIT, "windows of %zu bytes do not travel: 512 KiB are the most, of U8 or F32",
                        g->info->bytes);
    g->room = fst_alloc(256 * g->info->bytes < FST_FRAME_MAX ? 256 * g->info->bytes : FST_FRAME_MAX);
    fst_status st = g->room ? FST_OK : fst_fail_memory(err, FST_FRAME_MAX);
    if (!st)
        st = fst_cascade_answers_init(&g->record, g->info->windows, 1, err);
    if (!st)
        st = fst_blob_server_new(&g->blobs, 0, err);
    return st ? st : fst__asker_new(&g->asker, stream, 0, err);
}

static fst_status connect_edge(struct gadget *g, fst_error *err)
{
    const fst_transport_events on = {.ctx = g, .message = on_message, .link = on_link};
    char filter[FST_TOPIC];
    fst_status st = fst__link_open(&g->transport, &g->options->link, g->id, false, &on, err);
    return st ? st : fst_transport_subscribe(g->transport, fst__topic_reply(filter, g->id, "+"), err);
}

fst_status fst_fleet_device(fst_task *t, const char *id, const fst_fleet_options *o, fst_error *err)
{
    struct gadget g = {.options = o, .id = id, .began = INFINITY, .hello_wait = hello_first};
    uint32_t number = 0;
    fst__keep_memory();
    fst_status st = number_of(id, &number, err);
    if (!st)
        st = fst_task_device_open(&g.device, t, &o->task, number, err);
    if (!st)
        st = prepare(&g, err);
    if (!st)
        st = connect_edge(&g, err);
    if (!st)
        st = run(&g, err);
    fst_transport_close(g.transport);
    fst__asker_free(g.asker);
    fst_blob_server_free(g.blobs);
    fst_cascade_answers_release(&g.record);
    fst_task_device_close(g.device);
    fst_buf_release(&g.packed);
    fst_buf_release(&g.coded);
    fst_buf_release(&g.body);
    fst_free(g.room);
    return st;
}

/*
 * An edge answers its devices, see serve.h.
 *
 * Data flow: a device's windows -> answerer, which holds them -> a batch through the model -> answered when the model
 * is sure; otherwise -> asker -> mailbox -> edge.c -> cloud, whose answers come back through the other mailbox. When
 * all devices have said what they were answered, fst__serve_wait has its result.
 */
#include "serve_private.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

enum { BUDGET = 8 << 20 }; /* bytes of windows that wait here */
static const double dismiss_for = 2, longest_wait = 0.25;

/* ---- mailboxes, under the lock ------------------------------------------------------------------------- */

static bool post(struct mailbox *m, const fst_buf *body)
{
    if (m->count == m->room)
        return false;
    fst_buf *to = &m->body[(m->first + m->count) % m->room];
    to->len = 0;
    if (fst_buf_append(to, body->data, body->len, NULL))
        return false;
    m->count++;
    return true;
}

static bool collect(struct mailbox *m, fst_buf *body)
{
    if (!m->count)
        return false;
    fst_buf old = *body;
    *body = m->body[m->first];
    m->body[m->first] = old; /* its room is used again */
    m->first = (m->first + 1) % m->room;
    m->count--;
    return true;
}

static fst_status mailbox_init(struct mailbox *m, size_t room, fst_error *err)
{
    m->room = room;
    m->body = fst_calloc(room, sizeof *m->body);
    return m->body ? FST_OK : fst_fail_memory(err, room * sizeof *m->body);
}

static void mailbox_release(struct mailbox *m)
{
    for (size_t i = 0; m->body && i < m->room; i++)
        fst_buf_release(&m->body[i]);
    fst_free(m->body);
}

void fst__serve_heard(struct serve *s, const void *body, size_t len)
{
    const fst_buf view = {.data = (char *)(uintptr_t)body, .len = len};
    pthread_mutex_lock(&s->lock);
    (void)post(&s->in, &view); /* no room: the questions are asked again */
    pthread_mutex_unlock(&s->lock);
    fst_transport_wake(s->local);
}

bool fst__serve_pass_on(struct serve *s, fst_buf *body)
{
    pthread_mutex_lock(&s->lock);
    bool any = collect(&s->out, body);
    pthread_mutex_unlock(&s->lock);
    return any;
}

void fst__serve_link(struct serve *s, bool up)
{
    pthread_mutex_lock(&s->lock);
    s->link_up = up;
    pthread_mutex_unlock(&s->lock);
    fst_transport_wake(s->local);
}

/* ---- what devices are answered with ---------------------------------------------------------------------- */

static void loaded_free(struct loaded *l)
{
    if (!l)
        return;
    fst_tier_free(l->tier);
    fst_cascade_bundle_release(&l->bundle);
    fst_free(l);
}

static void digest_of(const void *bytes, size_t len, unsigned char out[FST__STREAM_DIGEST])
{
    char hex[FST_DIGEST_HEX];
    fst_sha256 sha;
    unsigned byte = 0;
    fst_sha256_init(&sha);
    fst_sha256_update(&sha, bytes, len);
    fst_sha256_final(&sha, hex);
    for (int i = 0; i < FST__STREAM_DIGEST; i++) {
        (void)sscanf(hex + 2 * i, "%2x", &byte);
        out[i] = (unsigned char)byte;
    }
}

static fst_status load(struct loaded **out, const char *folder, const fst_message *down, const void *bytes, size_t len,
                       fst_error *err)
{
    fst_error why = {0};
    struct loaded *l = fst_calloc(1, sizeof *l);
    if (!l)
        return fst_fail_memory(err, sizeof *l);
    digest_of(bytes, len, l->digest);
    fst_status st = fst_cascade_bundle_read(&l->bundle, down, err);
    if (!st && !l->bundle.relay)
        st = fst_tier_new(&l->tier, &l->bundle.model, &l->bundle.tier, err);
    if (!st && l->tier && fst_tier_settle(l->tier, &l->bundle.model, folder, &why))
        fst_log(FST_LOG_WARN, "the model's parameters stay in memory twice: %s", why.message);
    if (!st && !fst__window_bytes(l->bundle.tier.dtype, &l->bundle.tier.shape))
        st = fst_fail(err, FST_E_LIMIT, "windows of more than 512 KiB do not travel");
    if (st)
        loaded_free(l);
    else
        *out = l;
    return st;
}

/* Windows that are at the cloud are given up: their devices ask again. */
static void drop_asked(struct serve *s)
{
    uint64_t what;
    while (s->cloud && fst__asker_give_up(s->cloud, 0, -INFINITY, &what))
        fst_free((struct asked *)(uintptr_t)what);
    fst__asker_free(s->cloud);
    s->cloud = NULL;
}

static void unload(struct serve *s)
{
    drop_asked(s);
    fst__answerer_free(s->answers);
    s->answers = NULL;
    loaded_free(s->at_work);
    s->at_work = NULL;
    fst_free(s->logits);
    fst_free(s->batch);
    s->logits = NULL;
    s->batch = NULL;
}

static uint64_t draw(void)
{
    char name[FST__INSTANCE];
    unsigned long long x = 0;
    fst__draw_name(name);
    (void)sscanf(name, "%16llx", &x);
    return x;
}

static fst_status install(struct serve *s, struct loaded *l, fst_error *err)
{
    const fst_tier_spec *t = &l->bundle.tier;
    struct answerer_spec spec = {
        .askers = 2 * s->devices, .dtype = t->dtype, .shape = t->shape, .budget = BUDGET, .batch = (uint32_t)t->batch};
    memcpy(spec.digest, l->digest, sizeof spec.digest);
    unload(s);
    s->at_work = l;
    s->logits = fst_alloc(t->batch * (size_t)l->bundle.model.classes * sizeof *s->logits);
    s->batch = fst_calloc(t->batch, sizeof(struct asked *));
    fst_status st = s->logits && s->batch ? FST_OK : fst_fail_memory(err, t->batch * sizeof(struct asked *));
    if (!st)
        st = fst__answerer_new(&s->answers, &spec, err);
    if (!st)
        st = fst__asker_new(&s->cloud, draw(), (uint32_t)t->batch, err);
    for (uint32_t k = 0; !st && k < s->devices; k++) {
        struct device *d = &s->device[k];
        d->windows = l->bundle.windows[d->number];
        d->done = false;
        if (d->known)
            st = fst__answerer_begin(s->answers, k, d->stream, err);
    }
    return st;
}

/* A bundle that waits takes effect between two batches. */
static fst_status switch_bundle(struct serve *s, fst_error *err)
{
    pthread_mutex_lock(&s->lock);
    struct loaded *l = s->pending;
    s->pending = NULL;
    pthread_mutex_unlock(&s->lock);
    if (!l)
        return FST_OK;
    if (s->at_work && !memcmp(s->at_work->digest, l->digest, sizeof l->digest)) {
        loaded_free(l); /* the same again */
        return FST_OK;
    }
    return install(s, l, err);
}

/* ---- computing ------------------------------------------------------------------------------------------- */

static uint32_t microseconds(double seconds)
{
    double us = seconds * 1e6;
    return us < 0 ? 0 : us < (double)UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static uint32_t plus(uint32_t a, uint32_t b)
{
    return a > UINT32_MAX - b ? UINT32_MAX : a + b;
}

/* Its answer stands. */
static void finish(struct serve *s, struct asked *h)
{
    struct device *d = &s->device[h->asker % s->devices];
    const struct stream_answer answer = h->answer;
    double seconds = fst_clock_seconds() - h->came;
    if (!fst__answerer_answer(s->answers, h))
        return;
    d->answered++;
    fst__answered_add(&s->count, &answer, seconds);
}

static void answer_here(struct serve *s, struct asked *h, uint8_t marks)
{
    h->answer.answer = h->answer.first;
    h->answer.tier = TIER_EDGE;
    h->answer.marks = marks;
    finish(s, h);
}

/* otherwise: what it is marked with when there is no room to ask. */
static void pass_to_cloud(struct serve *s, struct asked *h, double now, uint8_t otherwise)
{
    if (fst__asker_add(s->cloud, now, (uint64_t)(uintptr_t)h, NULL))
        s->count.passed++;
    else
        answer_here(s, h, otherwise);
}

static void decide(struct serve *s, struct asked *h, const float *logits, double now, double seconds)
{
    fst_tier_answer a;
    fst_tier_judge(s->at_work->tier, logits, &a);
    h->answer = (struct stream_answer){.seq = h->seq,
                                       .first = a.answer < 0 ? FST__NO_CLASS : (uint16_t)a.answer,
                                       .confidence = a.confidence,
                                       .queue_us = microseconds(h->taken - h->came),
                                       .compute_us = microseconds(seconds)};
    s->count.decided++;
    if (a.answer < 0)
        answer_here(s, h, MARK_REFUSED);
    else if (a.sure)
        answer_here(s, h, 0);
    else
        pass_to_cloud(s, h, now, MARK_UNSURE);
}

/* Nothing is decided here: the cloud answers. */
static void relay(struct serve *s)
{
    double now = fst_clock_seconds();
    for (struct asked *h; !fst__asker_full(s->cloud) && (h = fst__answerer_take(s->answers, now));) {
        h->answer =
            (struct stream_answer){.seq = h->seq, .first = FST__NO_CLASS, .queue_us = microseconds(h->taken - h->came)};
        s->count.decided++;
        pass_to_cloud(s, h, now, MARK_REFUSED);
    }
}

static fst_status compute(struct serve *s, fst_error *err)
{
    if (s->at_work->bundle.relay) {
        relay(s);
        return FST_OK;
    }
    const void *rows[1024];
    size_t n = 0, most = s->at_work->bundle.tier.batch, classes = (size_t)s->at_work->bundle.model.classes;
    double began = fst_clock_seconds();
    while (n < most && n < sizeof rows / sizeof *rows && (s->batch[n] = fst__answerer_take(s->answers, began))) {
        rows[n] = s->batch[n]->data;
        n++;
    }
    fst_status st = n ? fst_tier_logits(s->at_work->tier, rows, n, s->logits, err) : FST_OK;
    double now = fst_clock_seconds();
    for (size_t i = 0; i < n; i++) {
        if (st)
            fst_free(s->batch[i]);
        else
            decide(s, s->batch[i], s->logits + i * classes, now, now - began);
    }
    s->count.batches += n > 0;
    s->count.computed += n ? now - began : 0;
    s->count.deciding += n ? fst_clock_seconds() - now : 0;
    return st;
}

/* ---- the cloud --------------------------------------------------------------------------------------------- */

static void on_answer(void *ctx, uint64_t what, double seconds, const struct stream_answer *a)
{
    struct serve *s = ctx;
    struct asked *h = (struct asked *)(uintptr_t)what;
    (void)seconds;
    if ((a->marks & MARK_REFUSED) || a->answer >= s->at_work->bundle.model.classes) {
        answer_here(s, h, s->at_work->bundle.relay ? MARK_REFUSED : MARK_UNSURE);
        return;
    }
    h->answer.answer = a->answer;
    if (s->at_work->bundle.relay)
        h->answer.first = a->answer;
    h->answer.tier = TIER_CLOUD;
    h->answer.queue_us = plus(h->answer.queue_us, a->queue_us);
    h->answer.compute_us = plus(h->answer.compute_us, a->compute_us);
    finish(s, h);
}

static void hear_cloud(struct serve *s, double now)
{
    bool any = true;
    while (any) {
        struct answers m;
        pthread_mutex_lock(&s->lock);
        any = collect(&s->in, &s->body);
        pthread_mutex_unlock(&s->lock);
        if (any && s->cloud && fst__answers_read(&m, s->body.data, s->body.len))
            fst__asker_answers(s->cloud, now, &m, on_answer, s);
    }
    pthread_mutex_lock(&s->lock);
    bool came_up = s->link_up && !s->cloud_up;
    s->cloud_up = s->link_up;
    pthread_mutex_unlock(&s->lock);
    if (came_up && s->cloud)
        fst__asker_again(s->cloud, now);
}

/* The windows' bytes behind a head. */
static bool pack(struct serve *s, uint64_t first, uint32_t count, const uint64_t *what, fst_buf *body)
{
    const fst_tier_spec *t = &s->at_work->bundle.tier;
    struct windows m = {.stream = fst__asker_stream(s->cloud),
                        .first = first,
                        .count = count,
                        .dtype = t->dtype,
                        .shape = t->shape,
                        .bytes = fst__window_bytes(t->dtype, &t->shape)};
    body->len = 0;
    fst_status st = fst__windows_head(&m, body, NULL);
    for (uint32_t i = 0; !st && i < count; i++)
        st = fst_buf_append(body, ((const struct asked *)(uintptr_t)what[i])->data, m.bytes, NULL);
    return !st;
}

static void ask_cloud(struct serve *s, double now)
{
    const fst_tier_spec *t = &s->at_work->bundle.tier;
    const struct windows of = {.shape = t->shape, .bytes = fst__window_bytes(t->dtype, &t->shape)};
    uint32_t most = fst__windows_most(&of), count = 0;
    uint64_t first, what[256];
    bool posted = true, any = false;
    most = most < 256 ? most : 256;
    while (posted && s->cloud_up && fst__asker_next(s->cloud, now, most, &first, &count, what)) {
        posted = pack(s, first, count, what, &s->body);
        pthread_mutex_lock(&s->lock);
        posted = posted && post(&s->out, &s->body);
        pthread_mutex_unlock(&s->lock);
        any = any || posted;
        if (!posted)
            fst__asker_unsent(s->cloud, first, count);
    }
    if (any)
        fst_transport_wake(s->spec.hub);
}

static double patience(const struct serve *s)
{
    double t = s->at_work->bundle.ask_timeout;
    return t > 0 ? t : INFINITY;
}

static void give_up(struct serve *s, double now)
{
    uint64_t what;
    while (fst__asker_give_up(s->cloud, now, patience(s), &what))
        answer_here(s, (struct asked *)(uintptr_t)what, MARK_UNSURE);
}

/* ---- saying ------------------------------------------------------------------------------------------------- */

/* A class's name, without what has a meaning in JSON. */
static void name_of(const fst_model *m, int answer, char *out, size_t size)
{
    snprintf(out, size, "%s", m->class_names ? m->class_names[answer] : "");
    for (char *p = out; *p; p++)
        if ((unsigned char)*p < ' ' || *p == '"' || *p == '\\' || *p == 0x7f)
            *p = '?';
}

/* A bare window's answer is a line of JSON. */
static fst_status say_class(struct serve *s, const struct device *d, const struct stream_answer *a)
{
    char topic[FST_TOPIC];
    const fst_model *m = &s->at_work->bundle.model;
    bool known = a->answer < m->classes;
    char name[128] = "";
    fst_buf text = {0};
    if (known)
        name_of(m, a->answer, name, sizeof name);
    fst_status st = fst_buf_printf(
        &text, NULL, "{\"window\":%llu,\"class\":%d,\"name\":\"%s\",\"confidence\":%.4f,\"tier\":\"%s\"%s}",
        (unsigned long long)a->seq, known ? (int)a->answer : -1, name, a->confidence,
        a->tier == TIER_CLOUD ? "cloud" : "edge", a->marks & MARK_UNSURE ? ",\"unsure\":true" : "");
    if (!st)
        st = fst_transport_publish(s->local, fst__topic_reply(topic, d->id, "class"), text.data, text.len, NULL);
    fst_buf_release(&text);
    return st;
}

static fst_status say(struct serve *s, uint32_t asker, const fst_buf *body)
{
    struct answers m;
    fst_status st = FST_OK;
    if (asker < s->devices)
        return fst__serve_tell(s, &s->device[asker], "answer", FST_KIND_ANSWERS, body);
    if (!fst__answers_read(&m, body->data, body->len))
        return FST_OK;
    for (uint32_t i = 0; !st && i < m.count; i++) {
        const struct stream_answer a = fst__answers_at(&m, i);
        st = say_class(s, &s->device[asker - s->devices], &a);
    }
    return st;
}

static void say_answers(struct serve *s, double now)
{
    uint32_t asker;
    while (s->up && fst__answerer_next(s->answers, now, INFINITY, &asker, &s->body))
        if (say(s, asker, &s->body)) {
            fst__answerer_unsent(s->answers, asker);
            break;
        }
}

/* ---- the result -------------------------------------------------------------------------------------------- */

static fst_status gather(struct serve *s, fst_cascade_answers *out, fst_error *err)
{
    size_t windows = 0, at = 0;
    for (uint32_t k = 0; k < s->devices; k++)
        windows += s->device[k].windows;
    fst_status st = fst_cascade_answers_init(out, windows, s->devices, err);
    for (uint32_t k = 0; !st && k < s->devices; k++) {
        struct device *d = &s->device[k];
        fst_message m;
        if (!d->windows)
            continue;
        st = fst_message_parse(&m, d->record.data, d->record.len, err);
        if (!st)
            st = fst_cascade_answers_read(out, at, k, d->windows, 1, s->at_work->bundle.model.classes, &m, err);
        at += d->windows;
    }
    return st;
}

static double resident_mb(void)
{
    unsigned long all = 0, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");
    if (f && fscanf(f, "%lu %lu", &all, &resident) != 2)
        resident = 0;
    if (f)
        fclose(f);
    return (double)resident * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

static fst_status look_for_end(struct serve *s, fst_error *err)
{
    fst_cascade_answers all;
    pthread_mutex_lock(&s->lock);
    bool done = !s->complete && s->at_work && !s->pending;
    pthread_mutex_unlock(&s->lock);
    for (uint32_t k = 0; k < s->devices; k++)
        done = done && (s->device[k].done || !s->device[k].windows);
    if (!done)
        return FST_OK;
    fst_status st = gather(s, &all, err);
    if (st)
        return st;
    s->look_at = 0; /* who hears that it is complete sees all of it */
    fst__serve_show(s, fst_clock_seconds());
    fst_log(
        FST_LOG_INFO,
        "%s: %llu windows answered here, %llu by the cloud, %llu here since the cloud was away; %llu batches, %.4f s "
        "of computing, %.4f s of deciding; %.0f MB",
        s->id, (unsigned long long)s->count.windows[TIER_EDGE], (unsigned long long)s->count.windows[TIER_CLOUD],
        (unsigned long long)s->count.unsure, (unsigned long long)s->count.batches, s->count.computed, s->count.deciding,
        resident_mb());
    pthread_mutex_lock(&s->lock);
    fst_cascade_answers_release(&s->result);
    s->result = all;
    s->complete = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    return FST_OK;
}

/* ---- the thread --------------------------------------------------------------------------------------------- */

static void on_message(void *ctx, const char *topic, const void *data, size_t len)
{
    fst__serve_device_message(ctx, topic, data, len);
}

static void on_link(void *ctx, bool up, const char *why)
{
    struct serve *s = ctx;
    s->up = s->call = up;
    fst__tell_link(s->said, s->spec.local->url, up, why);
}

static double due(const struct serve *s, double now)
{
    double at = fmin(now + longest_wait, fst__serve_fetch_due(s));
    bool relays = s->at_work && s->at_work->bundle.relay; /* what waits then has no room */
    if (s->answers && fst__answerer_waiting(s->answers) && !relays)
        return now;
    return s->cloud ? fmin(at, fst__asker_due(s->cloud, patience(s))) : at;
}

/* What is there before a batch is computed: a poll may end with the first message, and few rows cost as much as many.
 */
static fst_status listen(struct serve *s, fst_error *err)
{
    const fst_transport_counters *count = fst_transport_count(s->local);
    uint64_t before = count->messages_in;
    fst_status st = fst_transport_poll(s->local, due(s, fst_clock_seconds()), err);
    while (!st && s->answers && count->messages_in != before &&
           fst__answerer_waiting(s->answers) < s->at_work->bundle.tier.batch) {
        before = count->messages_in;
        st = fst_transport_poll(s->local, 0, err);
    }
    return st;
}

static fst_status turn(struct serve *s, fst_error *err)
{
    fst_status st = listen(s, err);
    if (s->call)
        fst__serve_call(s);
    s->call = false;
    if (!st)
        st = switch_bundle(s, err);
    double now = fst_clock_seconds();
    hear_cloud(s, now);
    fst__serve_show(s, now);
    if (st || !s->at_work)
        return st;
    st = compute(s, err);
    now = fst_clock_seconds();
    give_up(s, now);
    ask_cloud(s, now);
    say_answers(s, now);
    fst__serve_fetch(s, now);
    return st ? st : look_for_end(s, err);
}

/* Those that were asked to end are told their devices may go. */
static void dismiss(struct serve *s)
{
    fst_status st = FST_OK;
    s->stop_until = fst_clock_seconds() + dismiss_for;
    while (!st && !fst__serve_dismiss(s, fst_clock_seconds()))
        st = fst_transport_poll(s->local, fst_clock_seconds() + 0.1, NULL);
}

static void *serve_thread(void *ctx)
{
    struct serve *s = ctx;
    fst_error err = {0};
    fst_status st = FST_OK;
    bool end = false, tell = false;
    while (!st && !end) {
        st = turn(s, &err);
        pthread_mutex_lock(&s->lock);
        end = s->end;
        tell = s->tell;
        if (st) {
            s->failed = st;
            s->why = err;
            pthread_cond_broadcast(&s->changed);
        }
        pthread_mutex_unlock(&s->lock);
    }
    if (tell)
        dismiss(s);
    return NULL;
}

/* ---- work, on the thread of edge.c's jobs --------------------------------------------------------------------- */

static fst_status wait_for_result(struct serve *s, const fst_atomic_int *stop, fst_error *err)
{
    fst_status st = FST_OK;
    pthread_mutex_lock(&s->lock);
    while (!s->complete && !s->failed && !s->cancelled && !(stop && atomic_load(stop))) {
        struct timespec at;
        clock_gettime(CLOCK_REALTIME, &at);
        at.tv_nsec += 100000000;
        at.tv_sec += at.tv_nsec / 1000000000;
        at.tv_nsec %= 1000000000;
        (void)pthread_cond_timedwait(&s->changed, &s->lock, &at);
    }
    if (s->failed) {
        *err = s->why;
        st = s->failed;
    } else if (!s->complete) {
        st = fst_fail(err, FST_E_CANCELLED, "stopped");
    }
    pthread_mutex_unlock(&s->lock);
    return st;
}

fst_status fst__serve_load(struct serve *s, const fst_message *down, const void *bytes, size_t len, fst_error *err)
{
    struct loaded *l = NULL;
    fst_status st = load(&l, s->spec.folder, down, bytes, len, err);
    for (uint32_t k = 0; !st && k < s->devices; k++)
        if (s->device[k].number >= l->bundle.devices || l->bundle.edge_of[s->device[k].number] != s->spec.edge)
            st = fst_fail(err, FST_E_MISMATCH, "the cloud gives %s to another edge", s->device[k].id);
    if (st) {
        loaded_free(l);
        return st;
    }
    fst__serve_say(s, FST_LOG_INFO, "%s: answering %lu device%s", s->id, (unsigned long)s->devices,
                   s->devices == 1 ? "" : "s");
    pthread_mutex_lock(&s->lock);
    loaded_free(s->pending);
    s->pending = l;
    s->complete = false;
    pthread_mutex_unlock(&s->lock);
    fst_transport_wake(s->local);
    return FST_OK;
}

fst_status fst__serve_wait(struct serve *s, const fst_atomic_int *stop, fst_message *up, fst_error *err)
{
    fst_status st = wait_for_result(s, stop, err);
    if (st)
        return st;
    up->samples = s->result.windows ? (int64_t)s->result.windows : 1;
    up->loss = up->accuracy = NAN;
    return fst_cascade_answers_write(&s->result, up, err);
}

/* ---- beginning and end ----------------------------------------------------------------------------------------- */

static fst_status list_devices(struct serve *s, fst_error *err)
{
    uint32_t all = 0, *edge_of = NULL;
    fst_status st = fst_task_devices(s->spec.task, &all, &edge_of, err);
    if (!st && (!(s->device = fst_calloc(all + 1, sizeof *s->device)) ||
                !(s->seen_device = fst_calloc(all + 1, sizeof *s->seen_device))))
        st = fst_fail_memory(err, all * sizeof *s->device);
    for (uint32_t d = 0; !st && d < all; d++) {
        if (edge_of[d] != s->spec.edge)
            continue;
        struct device *k = &s->device[s->devices++];
        k->number = d;
        k->heard = -INFINITY;
        snprintf(k->id, sizeof k->id, "device-%lu", (unsigned long)d + 1);
    }
    fst_free(edge_of);
    return st;
}

static fst_status connect_devices(struct serve *s, fst_error *err)
{
    const fst_transport_events on = {.ctx = s, .message = on_message, .link = on_link};
    char name[FST_SITE_ID + 8], filter[FST_TOPIC];
    fst_fleet_link link = *s->spec.local;
    if (!link.url)
        return fst_fail(err, FST_E_CONFIG,
                        "%s has devices in this task, and no broker for them: enroll them at the hub and start the "
                        "edge's broker, or say --local URL",
                        s->id);
    snprintf(name, sizeof name, "%s-local", s->id);
    fst_status st = fst__link_open(&s->local, &link, name, false, &on, err);
    return st ? st : fst_transport_subscribe(s->local, fst__topic_ask(filter, s->id, "+", "+"), err);
}

fst_status fst__serve_start(struct serve **out, const struct serve_spec *spec, fst_error *err)
{
    struct serve *s = fst_calloc(1, sizeof *s);
    if (!s)
        return fst_fail_memory(err, sizeof *s);
    s->spec = *spec;
    snprintf(s->id, sizeof s->id, "%s", spec->id);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->changed, NULL);
    fst_status st = mailbox_init(&s->out, FST__OUTBOX, err);
    if (!st)
        st = mailbox_init(&s->in, FST__INBOX, err);
    if (!st)
        st = fst_task_site_digest(spec->task, s->task, err);
    if (!st)
        st = list_devices(s, err);
    if (!st)
        st = connect_devices(s, err);
    if (!st && pthread_create(&s->thread, NULL, serve_thread, s))
        st = fst_fail(err, FST_E_MEMORY, "no thread to answer devices on");
    s->running = !st;
    if (st)
        fst__serve_stop(s, false);
    else
        *out = s;
    return st;
}

void fst__serve_cancel(struct serve *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->cancelled = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
}

void fst__serve_stop(struct serve *s, bool tell)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->end = true;
    s->tell = tell;
    pthread_mutex_unlock(&s->lock);
    if (s->running) {
        fst_transport_wake(s->local);
        pthread_join(s->thread, NULL);
    }
    unload(s);
    loaded_free(s->pending);
    fst_transport_close(s->local);
    fst__serve_devices_free(s);
    mailbox_release(&s->out);
    mailbox_release(&s->in);
    fst_cascade_answers_release(&s->result);
    fst_buf_release(&s->body);
    fst_free(s->seen_device);
    pthread_cond_destroy(&s->changed);
    pthread_mutex_destroy(&s->lock);
    fst_free(s);
}

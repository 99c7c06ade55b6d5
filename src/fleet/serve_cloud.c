/*
 * The cloud answers its edges, see serve.h.
 *
 * Data flow: the network's thread hands in messages and sends what is to be said; a thread of its own computes batches
 * of what is held. The machine is under one lock, and nothing is computed or sent under it.
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "serve.h"
#include "stream.h"

enum { BUDGET = 64 << 20 };
static const double say_every = 0.5; /* an edge whose windows are here is told that we are */

struct teacher {
    fst_tier *tier;
    const char *const *ids;
    uint32_t edges;
    uint64_t run, epoch, seq;
    fst_transport *transport;
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t work;
    bool end;
    struct answerer *answers;
    struct asked **batch;
    float *logits;
    fst_buf body;
    struct answered count;
    uint64_t before, before_batches; /* of `count`: answered by others */
    double before_computed;
};

static uint32_t microseconds(double seconds)
{
    double us = seconds * 1e6;
    return us < 0 ? 0 : us < (double)UINT32_MAX ? (uint32_t)us : UINT32_MAX;
}

static void judge(const struct teacher *t, struct asked *h, const float *logits, double seconds)
{
    fst_tier_answer a;
    fst_tier_judge(t->tier, logits, &a);
    uint16_t class_ = a.answer < 0 ? FST__NO_CLASS : (uint16_t)a.answer;
    h->answer = (struct stream_answer){.seq = h->seq,
                                       .answer = class_,
                                       .first = class_,
                                       .tier = TIER_CLOUD,
                                       .marks = a.answer < 0 ? MARK_REFUSED : 0,
                                       .confidence = a.confidence,
                                       .queue_us = microseconds(h->taken - h->came),
                                       .compute_us = microseconds(seconds)};
}

/* Waits for windows; 0: it is over. */
static size_t take_batch(struct teacher *t)
{
    size_t n = 0, most = fst_tier_look(t->tier)->batch;
    pthread_mutex_lock(&t->lock);
    while (!t->end && !fst__answerer_waiting(t->answers))
        pthread_cond_wait(&t->work, &t->lock);
    double now = fst_clock_seconds();
    while (!t->end && n < most && (t->batch[n] = fst__answerer_take(t->answers, now)))
        n++;
    bool end = t->end;
    pthread_mutex_unlock(&t->lock);
    return end ? 0 : n ? n : SIZE_MAX;
}

void fst__teacher_count(struct teacher *t, struct answered *out)
{
    pthread_mutex_lock(&t->lock);
    *out = t->count;
    out->waiting = (uint32_t)fst__answerer_waiting(t->answers);
    pthread_mutex_unlock(&t->lock);
}

static void *teach(void *ctx)
{
    struct teacher *t = ctx;
    const fst_tier_spec *spec = fst_tier_look(t->tier);
    size_t classes = (size_t)fst_tier_model(t->tier)->classes;
    const void **rows = fst_calloc(spec->batch, sizeof *rows);
    fst_error err = {0};
    for (size_t n; rows && (n = take_batch(t)) > 0;) {
        if (n == SIZE_MAX) /* those that waited were of a stream that is over */
            continue;
        double began = fst_clock_seconds();
        for (size_t i = 0; i < n; i++)
            rows[i] = t->batch[i]->data;
        fst_status st = fst_tier_logits(t->tier, rows, n, t->logits, &err);
        double seconds = fst_clock_seconds() - began;
        if (st)
            fst_log(FST_LOG_WARN, "windows of edges: %s", err.message);
        pthread_mutex_lock(&t->lock);
        t->count.batches++;
        t->count.computed += seconds;
        for (size_t i = 0; i < n; i++) {
            if (st)
                t->batch[i]->answer = (struct stream_answer){
                    .answer = FST__NO_CLASS, .first = FST__NO_CLASS, .tier = TIER_CLOUD, .marks = MARK_REFUSED};
            else
                judge(t, t->batch[i], t->logits + i * classes, seconds);
            fst__answered_add(&t->count, &t->batch[i]->answer, t->batch[i]->taken - t->batch[i]->came + seconds);
            (void)fst__answerer_answer(t->answers, t->batch[i]);
        }
        pthread_mutex_unlock(&t->lock);
        fst_transport_wake(t->transport);
    }
    fst_free(rows);
    return NULL;
}

fst_status fst__teacher_new(struct teacher **out, fst_tier *tier, const char *const *ids, uint32_t edges, uint64_t run,
                            uint64_t epoch, fst_transport *transport, const struct answered *before, fst_error *err)
{
    const fst_tier_spec *spec = fst_tier_look(tier);
    struct answerer_spec a = {
        .askers = edges, .dtype = spec->dtype, .shape = spec->shape, .budget = BUDGET, .batch = (uint32_t)spec->batch};
    struct teacher *t = fst_calloc(1, sizeof *t);
    if (!t)
        return fst_fail_memory(err, sizeof *t);
    *t = (struct teacher){.tier = tier,
                          .ids = ids,
                          .edges = edges,
                          .run = run,
                          .epoch = epoch,
                          .transport = transport,
                          .count = *before,
                          .before = fst__answered_all(before),
                          .before_batches = before->batches,
                          .before_computed = before->computed};
    pthread_mutex_init(&t->lock, NULL);
    pthread_cond_init(&t->work, NULL);
    t->batch = fst_calloc(spec->batch, sizeof(struct asked *));
    t->logits = fst_alloc(spec->batch * (size_t)fst_tier_model(tier)->classes * sizeof *t->logits);
    fst_status st = t->batch && t->logits ? FST_OK : fst_fail_memory(err, spec->batch * sizeof(struct asked *));
    if (!st && !fst__window_bytes(a.dtype, &a.shape))
        st = fst_fail(err, FST_E_LIMIT, "windows of more than 512 KiB do not travel");
    if (!st)
        st = fst__answerer_new(&t->answers, &a, err);
    if (!st && pthread_create(&t->thread, NULL, teach, t))
        st = fst_fail(err, FST_E_MEMORY, "no thread to answer edges on");
    t->running = !st;
    if (st)
        fst__teacher_free(t, NULL);
    else
        *out = t;
    return st;
}

void fst__teacher_free(struct teacher *t, struct answered *count)
{
    if (!t)
        return;
    pthread_mutex_lock(&t->lock);
    t->end = true;
    pthread_cond_broadcast(&t->work);
    pthread_mutex_unlock(&t->lock);
    if (t->running) {
        pthread_join(t->thread, NULL);
        fst_log(FST_LOG_INFO, "cloud: %llu windows answered in %llu batches, %.4f s of computing",
                (unsigned long long)(fst__answered_all(&t->count) - t->before),
                (unsigned long long)(t->count.batches - t->before_batches), t->count.computed - t->before_computed);
    }
    if (count)
        *count = t->count; /* nothing waits any more */
    fst__answerer_free(t->answers);
    fst_free(t->batch);
    fst_free(t->logits);
    fst_buf_release(&t->body);
    pthread_cond_destroy(&t->work);
    pthread_mutex_destroy(&t->lock);
    fst_free(t);
}

void fst__teacher_message(struct teacher *t, const char *topic, const void *data, size_t len)
{
    bool up;
    char site[FST_SITE_ID];
    const char *leaf;
    fst_frame f;
    struct windows m;
    uint32_t k = 0;
    if (!fst_topic_split(topic, &up, site, &leaf) || !up || fst_frame_decode(&f, data, len) ||
        f.kind != FST_KIND_WINDOWS || strcmp(f.sender, site) || f.run != t->run)
        return;
    while (k < t->edges && strcmp(t->ids[k], site))
        k++;
    if (k == t->edges || !fst__windows_read(&m, f.body, f.body_len))
        return;
    pthread_mutex_lock(&t->lock);
    uint64_t known = fst__answerer_count(t->answers)->windows;
    (void)fst__answerer_windows(t->answers, fst_clock_seconds(), k, &m, true);
    t->count.received += fst__answerer_count(t->answers)->windows - known;
    if (fst__answerer_waiting(t->answers))
        pthread_cond_signal(&t->work);
    pthread_mutex_unlock(&t->lock);
}

/* To one edge, once. */
static fst_status tell(struct teacher *t, uint32_t k, const fst_buf *body)
{
    char topic[FST_TOPIC];
    fst_buf bytes = {0};
    const fst_frame f = {.kind = FST_KIND_ANSWERS,
                         .run = t->run,
                         .epoch = t->epoch,
                         .seq = ++t->seq,
                         .sender = FST__CLOUD,
                         .body = body->data,
                         .body_len = body->len};
    fst_status st = fst_frame_encode(&f, &bytes, NULL);
    if (!st)
        st = fst_transport_publish(t->transport, fst_topic_down(topic, t->ids[k], "answer"), bytes.data, bytes.len,
                                   NULL);
    fst_buf_release(&bytes);
    return st;
}

void fst__teacher_talk(struct teacher *t)
{
    uint32_t k;
    bool any = true;
    while (any) {
        pthread_mutex_lock(&t->lock);
        any = fst__answerer_next(t->answers, fst_clock_seconds(), say_every, &k, &t->body);
        pthread_mutex_unlock(&t->lock);
        if (any && tell(t, k, &t->body)) {
            pthread_mutex_lock(&t->lock);
            fst__answerer_unsent(t->answers, k);
            pthread_mutex_unlock(&t->lock);
            any = false;
        }
    }
}

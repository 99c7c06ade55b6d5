/*
 * A broker in memory, and transports on it.
 *
 * Data flow: publish -> the hub copies the message into the queue of every member with a matching filter, drawn faults
 * applied: lost, twice, late -> the member's poll takes what is due and calls its handlers. One mutex guards all; it is
 * not held while handlers run.
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "fedstill/transport.h"

enum { ID = 64, A_POLL = 64 };

struct letter {
    double due;
    struct letter *next;
    size_t len;
    char topic[FST_TRANSPORT_TOPIC];
    unsigned char data[];
};

struct member {
    fst_transport base;
    fst_inproc *hub;
    struct member *next;
    char id[ID];
    char (*filter)[FST_TRANSPORT_TOPIC];
    size_t filters;
    struct letter *inbox; /* by due, then as they were sent */
    size_t queued;
    bool linked, said_up, thrown, cut, woken, wants_room;
    char will_topic[FST_TRANSPORT_TOPIC];
    unsigned char *will;
    size_t will_len;
};

struct fst_inproc {
    pthread_mutex_t lock;
    pthread_cond_t stirred;
    fst_inproc_options options;
    struct member *members;
    double now; /* simulated */
    uint64_t number;
};

static double now_of(const fst_inproc *h)
{
    return h->options.simulated_time ? h->now : fst_clock_seconds();
}

/* ---- the hub, under its lock ---- */

static void put_letter(fst_inproc *h, struct member *m, const char *topic, const void *data, size_t len, double due)
{
    size_t most = h->options.queue ? h->options.queue : (size_t)64 << 20;
    struct letter *l = m->queued + len <= most ? fst_alloc(sizeof *l + len) : NULL;
    if (!l)
        return;
    l->due = due;
    l->len = len;
    snprintf(l->topic, sizeof l->topic, "%s", topic);
    if (len)
        memcpy(l->data, data, len);
    struct letter **at = &m->inbox;
    while (*at && (*at)->due <= due)
        at = &(*at)->next;
    l->next = *at;
    *at = l;
    m->queued += len;
}

static bool wants(const struct member *m, const char *topic)
{
    for (size_t i = 0; i < m->filters; i++)
        if (fst_topic_matches(m->filter[i], topic))
            return true;
    return false;
}

static void deliver(fst_inproc *h, const char *topic, const void *data, size_t len)
{
    const fst_inproc_faults *f = &h->options.faults;
    for (struct member *m = h->members; m; m = m->next) {
        fst_rng r;
        if (!m->linked || !wants(m, topic))
            continue;
        fst_rng_init(&r, f->seed, "inproc", ++h->number);
        double lost = fst_rng_uniform(&r), twice = fst_rng_uniform(&r), due = now_of(h) + f->delay;
        for (int copies = twice < f->twice ? 2 : 1; copies > 0; copies--) {
            double late = fst_rng_uniform(&r), by = fst_rng_uniform(&r) * f->lateness;
            if (lost >= f->drop)
                put_letter(h, m, topic, data, len, late < f->late ? due + by : due);
        }
    }
    pthread_cond_broadcast(&h->stirred);
}

static void empty_inbox(struct member *m)
{
    while (m->inbox) {
        struct letter *l = m->inbox;
        m->inbox = l->next;
        fst_free(l);
    }
    m->queued = 0;
}

static void unlink_member(struct member *m, bool with_will)
{
    if (!m->linked)
        return;
    m->linked = false;
    empty_inbox(m);
    if (with_will && m->will_topic[0])
        deliver(m->hub, m->will_topic, m->will, m->will_len);
    pthread_cond_broadcast(&m->hub->stirred);
}

/* ---- the transport ---- */

static fst_status subscribe(fst_transport *t, const char *filter, fst_error *err)
{
    struct member *m = (struct member *)t;
    fst_status st = FST_OK;
    pthread_mutex_lock(&m->hub->lock);
    bool there = false;
    for (size_t i = 0; i < m->filters; i++)
        there = there || !strcmp(m->filter[i], filter);
    if (!there && m->filters == FST_TRANSPORT_FILTERS) {
        st = fst_fail(err, FST_E_LIMIT, "more than %d subscriptions", (int)FST_TRANSPORT_FILTERS);
    } else if (!there) {
        void *p = fst_realloc(m->filter, m->filters * sizeof *m->filter, (m->filters + 1) * sizeof *m->filter);
        if (p) {
            m->filter = p;
            snprintf(m->filter[m->filters++], sizeof *m->filter, "%s", filter);
        } else {
            st = fst_fail_memory(err, sizeof *m->filter);
        }
    }
    pthread_mutex_unlock(&m->hub->lock);
    return st;
}

static fst_status unsubscribe(fst_transport *t, const char *filter, fst_error *err)
{
    struct member *m = (struct member *)t;
    (void)err;
    pthread_mutex_lock(&m->hub->lock);
    for (size_t i = 0; i < m->filters; i++)
        if (!strcmp(m->filter[i], filter)) {
            memmove(m->filter[i], m->filter[--m->filters], sizeof *m->filter);
            break;
        }
    pthread_mutex_unlock(&m->hub->lock);
    return FST_OK;
}

static fst_status publish(fst_transport *t, const char *topic, const void *data, size_t len, fst_error *err)
{
    struct member *m = (struct member *)t;
    fst_status st = FST_OK;
    pthread_mutex_lock(&m->hub->lock);
    if (!m->linked) {
        m->wants_room = true;
        st = fst_fail(err, FST_E_BUSY, "the link is down");
    } else {
        deliver(m->hub, topic, data, len);
    }
    pthread_mutex_unlock(&m->hub->lock);
    return st;
}

/* Link changes that the handlers do not know yet. Under the lock, which is given up for the call. */
static bool tell_link(struct member *m)
{
    bool may = !m->thrown && !m->cut;
    if (may && !m->linked)
        m->linked = true;
    if (m->linked == m->said_up)
        return false;
    m->said_up = m->linked;
    bool up = m->linked, room = up && m->wants_room;
    const char *why = up ? "" : m->thrown ? "another client of this id took its place" : "the link was cut";
    m->base.count.links += up;
    m->wants_room = m->wants_room && !up;
    pthread_mutex_unlock(&m->hub->lock);
    if (m->base.on.link)
        m->base.on.link(m->base.on.ctx, up, why);
    if (room && m->base.on.room)
        m->base.on.room(m->base.on.ctx);
    pthread_mutex_lock(&m->hub->lock);
    return true;
}

static bool hand_over(struct member *m)
{
    bool any = false;
    for (int i = 0; i < A_POLL && m->inbox && m->inbox->due <= now_of(m->hub); i++) {
        struct letter *l = m->inbox;
        m->inbox = l->next;
        m->queued -= l->len;
        m->base.count.messages_in++;
        m->base.count.bytes_in += l->len;
        pthread_mutex_unlock(&m->hub->lock);
        if (m->base.on.message)
            m->base.on.message(m->base.on.ctx, l->topic, l->data, l->len);
        fst_free(l);
        pthread_mutex_lock(&m->hub->lock);
        any = true;
    }
    return any;
}

static void wait_until(struct member *m, double deadline)
{
    struct timespec at;
    double now = fst_clock_seconds(), until = deadline;
    if (m->inbox && m->inbox->due < until)
        until = m->inbox->due;
    if (until <= now)
        return;
    double wait = until - now < 3600 ? until - now : 3600;
    clock_gettime(CLOCK_MONOTONIC, &at);
    double sum = (double)at.tv_nsec * 1e-9 + wait;
    at.tv_sec += (time_t)sum;
    at.tv_nsec = (long)((sum - floor(sum)) * 1e9);
    (void)pthread_cond_timedwait(&m->hub->stirred, &m->hub->lock, &at);
}

static fst_status poll_member(fst_transport *t, double deadline, fst_error *err)
{
    struct member *m = (struct member *)t;
    (void)err;
    pthread_mutex_lock(&m->hub->lock);
    for (;;) {
        bool any = tell_link(m);
        any = hand_over(m) || any;
        if (any || m->woken || m->hub->options.simulated_time || fst_clock_seconds() >= deadline)
            break;
        wait_until(m, deadline);
    }
    m->woken = false;
    pthread_mutex_unlock(&m->hub->lock);
    return FST_OK;
}

static void wake(fst_transport *t)
{
    struct member *m = (struct member *)t;
    pthread_mutex_lock(&m->hub->lock);
    m->woken = true;
    pthread_cond_broadcast(&m->hub->stirred);
    pthread_mutex_unlock(&m->hub->lock);
}

static size_t unsent(const fst_transport *t)
{
    (void)t;
    return 0;
}

static void leave(struct member *m, bool with_will)
{
    fst_inproc *h = m->hub;
    pthread_mutex_lock(&h->lock);
    unlink_member(m, with_will);
    for (struct member **at = &h->members; *at; at = &(*at)->next)
        if (*at == m) {
            *at = m->next;
            break;
        }
    pthread_mutex_unlock(&h->lock);
    fst_free(m->filter);
    fst_free(m->will);
    fst_free(m);
}

static void close_member(fst_transport *t)
{
    leave((struct member *)t, false);
}

static const fst_transport_ops inproc_ops = {.name = "inproc",
                                             .subscribe = subscribe,
                                             .unsubscribe = unsubscribe,
                                             .publish = publish,
                                             .poll = poll_member,
                                             .wake = wake,
                                             .unsent = unsent,
                                             .close = close_member};

fst_status fst_inproc_open(fst_transport **out, fst_inproc *hub, const char *id, const fst_transport_events *on,
                           const fst_transport_will *will, fst_error *err)
{
    size_t n = id ? strlen(id) : 0;
    if (n == 0 || n >= ID)
        return fst_fail(err, FST_E_ARGUMENT, "an id has 1 to %d bytes", ID - 1);
    struct member *m = fst_calloc(1, sizeof *m);
    if (!m)
        return fst_fail_memory(err, sizeof *m);
    m->base.ops = &inproc_ops;
    if (on)
        m->base.on = *on;
    m->hub = hub;
    memcpy(m->id, id, n);
    if (will && will->topic) {
        snprintf(m->will_topic, sizeof m->will_topic, "%s", will->topic);
        m->will_len = will->len;
        m->will = fst_alloc(will->len + 1);
        if (!m->will) {
            fst_free(m);
            return fst_fail_memory(err, will->len);
        }
        if (will->len)
            memcpy(m->will, will->data, will->len);
    }
    pthread_mutex_lock(&hub->lock);
    for (struct member *other = hub->members; other; other = other->next)
        if (!strcmp(other->id, id)) {
            unlink_member(other, true);
            other->thrown = true;
        }
    m->next = hub->members;
    hub->members = m;
    pthread_mutex_unlock(&hub->lock);
    *out = &m->base;
    return FST_OK;
}

void fst_inproc_kill(fst_transport *t)
{
    leave((struct member *)t, true);
}

/* ---- the hub's owner ---- */

fst_status fst_inproc_new(fst_inproc **out, const fst_inproc_options *options, fst_error *err)
{
    fst_inproc *h = fst_calloc(1, sizeof *h);
    pthread_condattr_t attributes;
    if (!h)
        return fst_fail_memory(err, sizeof *h);
    if (options)
        h->options = *options;
    pthread_mutex_init(&h->lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&h->stirred, &attributes);
    pthread_condattr_destroy(&attributes);
    *out = h;
    return FST_OK;
}

void fst_inproc_free(fst_inproc *h)
{
    if (!h)
        return;
    pthread_mutex_destroy(&h->lock);
    pthread_cond_destroy(&h->stirred);
    fst_free(h);
}

void fst_inproc_advance(fst_inproc *h, double now)
{
    pthread_mutex_lock(&h->lock);
    if (now > h->now)
        h->now = now;
    pthread_mutex_unlock(&h->lock);
}

static void set_cut(fst_inproc *h, const char *id, bool cut)
{
    pthread_mutex_lock(&h->lock);
    for (struct member *m = h->members; m; m = m->next)
        if (!strcmp(m->id, id) && !m->thrown) {
            m->cut = cut;
            if (cut)
                unlink_member(m, true);
        }
    pthread_cond_broadcast(&h->stirred);
    pthread_mutex_unlock(&h->lock);
}

void fst_inproc_cut(fst_inproc *h, const char *id)
{
    set_cut(h, id, true);
}

void fst_inproc_heal(fst_inproc *h, const char *id)
{
    set_cut(h, id, false);
}

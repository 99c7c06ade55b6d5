/*
 * A site as a process: the machine of site.c, a transport, a folder, and a thread that trains.
 *
 * Data flow: the calling thread polls the transport and turns the machine; a job goes to the thread, which parses the
 * message, plays the round (fst_task_site_work), packs the update, and wakes the poll; the machine then keeps and
 * offers it. Beats go on meanwhile.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/fed.h"
#include "place.h"

static const double first_complaint = 30;

struct training {
    pthread_t thread;
    bool running;
    atomic_bool done;
    struct site_job job;
    fst_buf up, keep;
    fst_client_figures own;
    fst_status status;
    double seconds;
    fst_error why;
};

struct edge {
    const fst_fleet_options *options;
    const char *id;
    fst_task_site *task;
    struct place place;
    fst_transport *transport;
    struct site *site;
    struct training training;
    fst_status failed; /* of the machine, in a handler */
    fst_error why;
    char said[FST__SAID];
    bool up;
    double silent_since, complain_at;
};

static bool stopped(const struct edge *e)
{
    return e->options->task.stop && atomic_load(e->options->task.stop);
}

/* ---- training, on its thread ---- */

static fst_status play(struct edge *e, fst_error *err)
{
    struct training *t = &e->training;
    fst_message down, up = fst_message_of("");
    fst_status st = fst_task_site_learn_of(e->task, t->job.classes, t->job.data, err);
    if (!st && t->job.measure && t->job.down)
        return fst_task_site_answer(e->task, t->job.stage, t->job.down, t->job.down_len, &t->own, err);
    if (!st && t->job.measure)
        return fst_task_site_measure(e->task, t->job.stage, t->job.kept, t->job.kept_len, t->job.fingerprint, &t->own,
                                     err);
    if (!st)
        st = fst_message_parse(&down, t->job.down, t->job.down_len, err);
    if (st)
        return st;
    down.client = up.client = fst_task_site_identity(e->task)->client;
    st = fst_task_site_work(e->task, t->job.stage, t->job.kept, t->job.kept_len, &down, &up, &t->keep, err);
    return st ? st : fst_message_pack(&up, &t->up, err);
}

static void *train(void *ctx)
{
    struct edge *e = ctx;
    struct training *t = &e->training;
    double began = fst_clock_seconds();
    t->up.len = t->keep.len = 0;
    t->why = (fst_error){.status = FST_OK};
    t->status = play(e, &t->why);
    t->seconds = fst_clock_seconds() - began;
    atomic_store(&t->done, true);
    fst_transport_wake(e->transport);
    return NULL;
}

static fst_status begin_training(struct edge *e, fst_error *err)
{
    struct training *t = &e->training;
    if (t->running || !fst__site_job(e->site, &t->job))
        return FST_OK;
    if (!t->job.measure)
        fst_log(FST_LOG_INFO, "%s: round %llu", t->job.stage, (unsigned long long)t->job.round + 1);
    atomic_store(&t->done, false);
    if (pthread_create(&t->thread, NULL, train, e))
        return fst_fail(err, FST_E_MEMORY, "no thread to train on");
    t->running = true;
    return FST_OK;
}

static fst_status end_training(struct edge *e, fst_error *err)
{
    struct training *t = &e->training;
    if (!t->running || !atomic_load(&t->done))
        return FST_OK;
    pthread_join(t->thread, NULL);
    t->running = false;
    if (t->status == FST_E_CANCELLED)
        return FST_OK; /* the process is about to end */
    const char *failed = t->status ? t->why.message[0] ? t->why.message : fst_status_name(t->status) : NULL;
    if (failed)
        fst_log(FST_LOG_WARN, "round %llu: %s", (unsigned long long)t->job.round + 1, failed);
    if (t->job.measure) {
        fst__site_measured(e->site, fst_clock_seconds(), &t->own, failed);
        return FST_OK;
    }
    fst_status st = fst__site_trained(e->site, fst_clock_seconds(), t->up.data, t->up.len, t->keep.data, t->keep.len,
                                      t->seconds, failed, err);
    fst_buf_release(&t->up); /* the machine has its own, on its disk if it is large */
    t->up = (fst_buf){0};
    return st;
}

/* ---- the transport's handlers ---- */

static void on_message(void *ctx, const char *topic, const void *data, size_t len)
{
    struct edge *e = ctx;
    e->silent_since = fst_clock_seconds();
    if (!e->failed)
        e->failed = fst__site_message(e->site, fst_clock_seconds(), topic, data, len, &e->why);
}

static void on_link(void *ctx, bool up, const char *why)
{
    struct edge *e = ctx;
    e->up = up;
    fst__site_link(e->site, fst_clock_seconds(), up);
    fst__tell_link(e->said, e->options->link.url, up, why);
}

static bool keeps(void *ctx, const char *stage)
{
    return fst_task_site_keeps(((struct edge *)ctx)->task, stage);
}

/* ---- the loop ---- */

/* Whoever waits long is told for what, at ever longer intervals. */
static void complain(struct edge *e)
{
    double now = fst_clock_seconds(), silent = now - e->silent_since;
    if (silent < first_complaint || e->training.running)
        e->complain_at = now + fmax(first_complaint - silent, 0);
    if (now < e->complain_at || silent < first_complaint)
        return;
    e->complain_at = now + silent;
    if (e->up)
        fst_log(FST_LOG_INFO, "%s: nothing was heard of the cloud for %.0f s; waiting", e->id, silent);
    else
        fst_log(FST_LOG_INFO, "%s: no connection to %s: %s; trying again", e->id, e->options->link.url, e->said);
}

static fst_status turn(struct edge *e, fst_error *err)
{
    double now = fst_clock_seconds(), until = fmin(fst__site_due(e->site), now + 0.25);
    fst_status st = fst_transport_poll(e->transport, until, err);
    if (!st && e->failed) {
        *err = e->why;
        st = e->failed;
    }
    if (!st)
        st = end_training(e, err);
    if (!st)
        st = fst__site_tick(e->site, fst_clock_seconds(), err);
    complain(e);
    return st ? st : begin_training(e, err);
}

static fst_status run(struct edge *e, fst_error *err)
{
    const char *why;
    fst_status st = FST_OK;
    e->silent_since = fst_clock_seconds();
    while (!st && !stopped(e) && !fst__site_ended(e->site, &why))
        st = turn(e, err);
    if (st || stopped(e))
        return st ? st : fst_fail(err, FST_E_CANCELLED, "%s: stopped; its files are kept", e->id);
    for (double end = fst_clock_seconds() + 2; fst_transport_unsent(e->transport) && fst_clock_seconds() < end;)
        if (fst_transport_poll(e->transport, end, err))
            break;
    if (*why)
        return fst_fail(err, FST_E_CONFIG, "%s: refused by the cloud: %s", e->id, why);
    fst_log(FST_LOG_INFO, "%s: the cloud is done", e->id);
    return FST_OK;
}

/* "edge-2" -> 1 */
static fst_status client_of(const fst_task *t, const char *id, uint32_t *out, fst_error *err)
{
    uint32_t count;
    const char *noun;
    char *end = NULL;
    fst_status st = fst_task_clients(t, &count, &noun, err);
    if (st)
        return st;
    size_t n = strlen(noun);
    long k = !strncmp(id, noun, n) && id[n] == '-' && id[n + 1] >= '1' && id[n + 1] <= '9'
                 ? strtol(id + n + 1, &end, 10)
                 : 0;
    if (!fst_site_id_valid(id) || k < 1 || *end || (uint64_t)k > count)
        return fst_fail(err, FST_E_CONFIG, "\"%s\" is no site of this task: there are %s-1 to %s-%lu", id, noun, noun,
                        (unsigned long)count);
    *out = (uint32_t)k - 1;
    return FST_OK;
}

static fst_status make_site(struct edge *e, fst_task *t, fst_error *err)
{
    const fst_task_identity *id = fst_task_site_identity(e->task);
    const fst_transport_events on = {.ctx = e, .message = on_message, .link = on_link};
    fst_buf settings = {0};
    struct site_spec spec = {.id = e->id,
                             .hello = {.client = id->client, .learn = id->learn, .validate = id->validate},
                             .store = fst__place_store(&e->place),
                             .keeps = keeps,
                             .ctx = e,
                             .most = FST_BLOB_MAX,
                             .in_memory = fst__in_memory(),
                             .now = fst_clock_seconds()};
    snprintf(spec.hello.role, sizeof spec.hello.role, "edge");
    snprintf(spec.hello.program, sizeof spec.hello.program, "%s", FST_VERSION);
    memcpy(spec.hello.task, id->task, sizeof spec.hello.task);
    memcpy(spec.hello.data, id->data, sizeof spec.hello.data);
    snprintf(spec.hello.missing, sizeof spec.hello.missing, "%s", id->missing);
    memcpy(spec.hello.samples, id->samples, sizeof spec.hello.samples);
    memcpy(spec.hello.names, id->names, sizeof spec.hello.names);
    memcpy(spec.hello.common, id->common, sizeof spec.hello.common);
    spec.hello.classes = id->classes;
    fst__numerics(&e->options->task, spec.hello.numerics, sizeof spec.hello.numerics);
    fst__draw_name(spec.instance);
    fst_status st = fst_task_site_settings(t, &settings, err);
    if (!st)
        st = fst_buf_append(&settings, "", 1, err);
    spec.hello.settings = settings.data;
    if (!st)
        st = fst__link_open(&e->transport, &e->options->link, e->id, true, &on, err);
    spec.transport = e->transport;
    if (!st)
        st = fst__site_new(&e->site, &spec, err);
    if (st == FST_E_FORMAT)
        st = fst_fail_in(err, st, "%s", e->place.folder);
    if (!st)
        st = run(e, err);
    fst_buf_release(&settings);
    return st;
}

fst_status fst_fleet_site_run(fst_task *t, const char *id, const fst_fleet_options *o, fst_error *err)
{
    struct edge e = {.options = o, .id = id, .place = {.lock = -1}};
    uint32_t client = 0;
    atomic_init(&e.training.done, false);
    fst__keep_memory();
    fst_status st = client_of(t, id, &client, err);
    if (!st)
        st = fst__place_open(&e.place, fst_task_output(t), id, err);
    if (!st)
        st = fst_task_site_open(&e.task, t, &o->task, client, err);
    if (!st)
        st = make_site(&e, t, err);
    if (e.training.running) {
        pthread_join(e.training.thread, NULL); /* a stop ends it after the batch at hand */
        e.training.running = false;
    }
    fst__site_free(e.site);
    fst_transport_close(e.transport);
    fst_task_site_close(e.task);
    fst__place_close(&e.place);
    fst_buf_release(&e.training.up);
    fst_buf_release(&e.training.keep);
    return st;
}

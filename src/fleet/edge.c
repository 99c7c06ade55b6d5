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
#include "watch.h"

static const double first_complaint = 30;

struct training {
    pthread_t thread;
    bool running, joined; /* joined: the thread has ended, and what it made could not be kept yet */
    double again_at;      /* when that is tried again */
    atomic_bool done;
    atomic_bool used; /* what was sent is not needed any more, though the job goes on */
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
    const fst_task *of;
    fst_task_site *task;
    struct serve *serve; /* its devices, from the first order of such a stage on; NULL: none */
    uint64_t passed;     /* messages to the cloud's teacher */
    struct place place;
    fst_transport *transport;
    struct site *site;
    struct training training;
    fst_status failed; /* of the machine, in a handler */
    fst_error why;
    char said[FST__SAID];
    bool up;
    double silent_since, complain_at, heard; /* heard: of the cloud; INFINITY: never */
    uint64_t receipts;                       /* that were told of */
    struct watch *watch;                     /* its page; NULL: none */
    pthread_mutex_t lock;                    /* of what others see: */
    struct edge_view view;
};

static bool stopped(const struct edge *e)
{
    return e->options->task.stop && atomic_load(e->options->task.stop);
}

/* ---- what others see ---- */

/* Any thread. */
static void note(void *ctx, const char *text)
{
    struct edge *e = ctx;
    pthread_mutex_lock(&e->lock);
    fst__note_keep(&e->view.notes, fst_clock_seconds(), text);
    pthread_mutex_unlock(&e->lock);
}

static void note_round(struct edge *e, const char *stage, uint64_t round, const char *what)
{
    char text[FST__REASON + 200];
    snprintf(text, sizeof text, "%.60s, round %llu: %.500s", stage, (unsigned long long)round + 1, what);
    note(e, text);
}

static void note_receipt(struct edge *e)
{
    char text[FST__REASON + 60];
    uint64_t count;
    const struct receipt *r = fst__site_receipt(e->site, &count);
    if (count == e->receipts)
        return;
    e->receipts = count;
    snprintf(text, sizeof text, "the cloud did not take the update: %s", r->why);
    note_round(e, r->stage, r->round,
               !r->folded                             ? text
               : fst_task_is_cascade(e->of, r->stage) ? "the cloud has what devices were answered"
                                                      : "the cloud has the update");
}

static void show(struct edge *e)
{
    note_receipt(e);
    pthread_mutex_lock(&e->lock);
    struct edge_view *v = &e->view;
    v->up = e->up;
    v->heard = e->heard;
    v->state = fst__site_state_of(e->site, v->stage, &v->round);
    v->run = fst__site_run(e->site);
    v->epoch = fst__site_epoch(e->site);
    v->answers = fst_task_is_cascade(e->of, v->stage);
    v->traffic = *fst_transport_count(e->transport);
    v->serve = e->serve;
    pthread_mutex_unlock(&e->lock);
}

static fst_status open_page(struct edge *e, fst_error *err)
{
    const struct watch_edge spec = {.http = &e->options->http,
                                    .id = e->id,
                                    .task = fst_task_name(e->of),
                                    .output = fst_task_output(e->of),
                                    .url = e->options->link.url,
                                    .lock = &e->lock,
                                    .view = &e->view};
    if (!e->options->http.address)
        return FST_OK;
    show(e);
    return fst__watch_edge(&e->watch, &spec, err);
}

/* ---- training, on its thread ---- */

/* A round in which its devices are answered. Nothing of it needs the samples. */
static fst_status answer_devices(struct edge *e, const fst_message *down, fst_error *err)
{
    struct training *t = &e->training;
    fst_cascade_answers none = {.windows = 0};
    fst_message up = fst_message_of("");
    up.client = fst_task_site_identity(e->task)->client;
    up.round = down->round;
    up.samples = 1;
    fst_buf_release(&t->up);
    fst_buf_release(&t->keep);
    fst_task_site_rest(e->task);
    fst__return_memory();
    fst_status st = e->serve ? fst__serve_load(e->serve, down, t->job.down, t->job.down_len, err)
                             : fst_cascade_answers_init(&none, 0, 0, err);
    if (!st && e->serve) {
        atomic_store(&t->used, true);
        fst_transport_wake(e->transport);
        st = fst__serve_wait(e->serve, e->options->task.stop, &up, err);
    }
    if (!st && !e->serve)
        st = fst_cascade_answers_write(&none, &up, err);
    if (!st)
        st = fst_message_pack(&up, &t->up, err);
    fst_cascade_answers_release(&none);
    return st;
}

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
    if (!strcmp(down.kind, FST_CASCADE_BUNDLE))
        return answer_devices(e, &down, err);
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

static void note_work(struct edge *e, const char *failed)
{
    struct training *t = &e->training;
    char text[FST__REASON + 60];
    if (t->job.measure)
        snprintf(text, sizeof text, "a model was measured in %.2f s", t->seconds);
    else
        snprintf(text, sizeof text, "%.2f s of %s", t->seconds,
                 fst_task_is_cascade(e->of, t->job.stage) ? "answering" : "training");
    note_round(e, t->job.stage, t->job.round, failed ? failed : text);
    pthread_mutex_lock(&e->lock);
    e->view.rounds += !t->job.measure;
    e->view.seconds += t->job.measure ? 0 : t->seconds;
    pthread_mutex_unlock(&e->lock);
}

static fst_status end_training(struct edge *e, fst_error *err)
{
    struct training *t = &e->training;
    if (!t->running || !atomic_load(&t->done) || (t->joined && fst_clock_seconds() < t->again_at))
        return FST_OK;
    if (!t->joined)
        pthread_join(t->thread, NULL);
    t->running = t->joined = false;
    if (t->status == FST_E_CANCELLED)
        return FST_OK; /* the process is about to end */
    const char *failed = t->status ? t->why.message[0] ? t->why.message : fst_status_name(t->status) : NULL;
    if (failed)
        fst_log(FST_LOG_WARN, "round %llu: %s", (unsigned long long)t->job.round + 1, failed);
    note_work(e, failed);
    if (t->job.measure) {
        fst__site_measured(e->site, fst_clock_seconds(), &t->own, failed);
        return FST_OK;
    }
    fst_status st = fst__site_trained(e->site, fst_clock_seconds(), t->up.data, t->up.len, t->keep.data, t->keep.len,
                                      t->seconds, failed, err);
    if (st == FST_E_BUSY) {
        t->running = t->joined = true;
        t->again_at = fst_clock_seconds() + 1;
        return FST_OK;
    }
    fst_buf_release(&t->up); /* the machine has its own, on its disk if it is large */
    t->up = (fst_buf){0};
    return st;
}

/* ---- its devices ---- */

/* What beats say of them. */
static void tell_windows(struct edge *e)
{
    struct serve_view v;
    if (!e->serve)
        return;
    fst__serve_look(e->serve, &v, NULL, 0);
    fst__site_windows(e->site, v.count.decided, v.count.passed);
}

/* The first order of a stage in which it answers them. */
static fst_status begin_serving(struct edge *e, fst_error *err)
{
    char stage[FST__STAGE_NAME], filter[FST_TOPIC];
    uint64_t round;
    uint32_t all = 0, mine = 0, *edge_of = NULL;
    if (e->serve || fst__site_state_of(e->site, stage, &round) < SITE_FETCH || !fst_task_is_cascade(e->of, stage))
        return FST_OK;
    const struct serve_spec spec = {.id = e->id,
                                    .edge = fst_task_site_identity(e->task)->client,
                                    .task = e->of,
                                    .local = &e->options->local,
                                    .hub = e->transport,
                                    .folder = e->place.folder,
                                    .note = note,
                                    .ctx = e};
    fst_status st = fst_task_devices(e->of, &all, &edge_of, err);
    for (uint32_t d = 0; !st && d < all; d++)
        mine += edge_of[d] == spec.edge;
    fst_free(edge_of);
    if (st || !mine)
        return st;
    st = fst_transport_subscribe(e->transport, fst_topic_down(filter, e->id, "answer"), err);
    if (!st)
        st = fst__serve_start(&e->serve, &spec, err);
    if (!st)
        fst__serve_link(e->serve, e->up);
    return st;
}

/* What its devices' answers need of the cloud. */
static void pass_on(struct edge *e)
{
    char topic[FST_TOPIC];
    fst_buf body = {0}, bytes = {0};
    while (e->up && e->serve && fst__serve_pass_on(e->serve, &body)) {
        fst_frame f = {.kind = FST_KIND_WINDOWS,
                       .run = fst__site_run(e->site),
                       .seq = ++e->passed,
                       .body = body.data,
                       .body_len = body.len};
        snprintf(f.sender, sizeof f.sender, "%s", e->id);
        bytes.len = 0;
        fst_status st = fst_frame_encode(&f, &bytes, NULL);
        if (!st) /* what does not get through is asked again */
            (void)!fst_transport_publish(e->transport, fst_topic_up(topic, e->id, "ask"), bytes.data, bytes.len, NULL);
    }
    fst_buf_release(&body);
    fst_buf_release(&bytes);
}

/* Whether it was an answer of the cloud for one of its devices. */
static bool is_answer(struct edge *e, const char *topic, const void *data, size_t len)
{
    bool up;
    char site[FST_SITE_ID];
    const char *leaf;
    fst_frame f;
    if (!fst_topic_split(topic, &up, site, &leaf) || up || strcmp(leaf, "answer"))
        return false;
    if (e->serve && !fst_frame_decode(&f, data, len) && f.kind == FST_KIND_ANSWERS && !strcmp(f.sender, FST__CLOUD) &&
        f.run == fst__site_run(e->site))
        fst__serve_heard(e->serve, f.body, f.body_len);
    return true;
}

/* ---- the transport's handlers ---- */

static void on_message(void *ctx, const char *topic, const void *data, size_t len)
{
    struct edge *e = ctx;
    e->silent_since = e->heard = fst_clock_seconds();
    if (!is_answer(e, topic, data, len) && !e->failed)
        e->failed = fst__site_message(e->site, fst_clock_seconds(), topic, data, len, &e->why);
}

static void on_link(void *ctx, bool up, const char *why)
{
    struct edge *e = ctx;
    e->up = up;
    if (e->serve)
        fst__serve_link(e->serve, up);
    fst__site_link(e->site, fst_clock_seconds(), up);
    if (up || strcmp(why, e->said)) {
        char text[FST__SAID + 100];
        snprintf(text, sizeof text, "%s: %s", e->options->link.url, up ? "connected" : why);
        note(e, text);
    }
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
    if (e->training.running) {
        e->complain_at = now + first_complaint;
        return;
    }
    if (silent < first_complaint)
        e->complain_at = now + first_complaint - silent;
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
    tell_windows(e);
    if (!st)
        st = fst__site_tick(e->site, fst_clock_seconds(), err);
    if (!st)
        st = begin_serving(e, err);
    if (atomic_exchange(&e->training.used, false)) {
        fst__site_used(e->site);
        fst__return_memory();
    }
    pass_on(e);
    complain(e);
    show(e);
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
        st = open_page(e, err);
    if (!st)
        st = run(e, err);
    fst_buf_release(&settings);
    return st;
}

fst_status fst_fleet_site_run(fst_task *t, const char *id, const fst_fleet_options *o, fst_error *err)
{
    struct edge e = {.options = o, .id = id, .of = t, .heard = INFINITY, .place = {.lock = -1}};
    uint32_t client = 0;
    atomic_init(&e.training.done, false);
    atomic_init(&e.training.used, false);
    pthread_mutex_init(&e.lock, NULL);
    fst__keep_memory();
    fst_status st = client_of(t, id, &client, err);
    if (!st)
        st = fst__place_open(&e.place, fst_task_output(t), id, err);
    if (!st)
        st = fst_task_site_open(&e.task, t, &o->task, client, err);
    if (!st)
        st = make_site(&e, t, err);
    fst__serve_cancel(e.serve);
    if (e.training.running && !e.training.joined)
        pthread_join(e.training.thread, NULL); /* a stop ends it after the batch at hand */
    e.training.running = false;
    fst__watch_close(e.watch);
    fst__serve_stop(e.serve, !st);
    fst__site_free(e.site);
    fst_transport_close(e.transport);
    fst_task_site_close(e.task);
    fst__place_close(&e.place);
    fst_buf_release(&e.training.up);
    fst_buf_release(&e.training.keep);
    pthread_mutex_destroy(&e.lock);
    return st;
}

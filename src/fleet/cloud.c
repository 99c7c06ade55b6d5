/*
 * The cloud as a process: fst_task_run on the calling thread, with the rounds of federated stages played by sites, and
 * a thread that talks to them.
 *
 * Data flow: the network thread polls the transport and turns the coordinator, all the time, so that sites are welcomed
 * and kept while the task pretrains. A federated stage brings its fst_server (`rounds`); the coordinator drives it, and
 * what takes long is done on the task's thread, which waits in `rounds` for it. One mutex guards the coordinator; the
 * fst_server is the task thread's while the coordinator wants something done, and the coordinator's otherwise.
 */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "books.h"
#include "coordinator.h"
#include "fedstill/fed.h"
#include "serve.h"
#include "watch.h"

static const double goodbye = 10, stop_look = 0.1, patience = 30, room_look = 1;

struct cloud {
    const fst_fleet_options *options;
    struct place place;
    struct fleet_books books;
    char **ids;
    uint32_t clients;
    char numerics[200];
    fst_buf settings;
    fst_transport *transport;
    struct coordinator *coordinator;
    struct watch *watch;
    fst_transport_counters traffic; /* as it was a moment ago, for others than the network thread */
    struct answered answered;       /* the same of windows */
    struct teacher *teacher;        /* of edges' windows, while a stage of the cascade runs */
    bool hears_windows;             /* it was subscribed to them */
    pthread_t thread;
    bool running;
    atomic_bool end; /* the thread is to end */
    pthread_mutex_t lock;
    pthread_cond_t wanted;
    fst_status failed; /* of the thread */
    fst_error why;
    char said[FST__SAID];
    int64_t *counted;
    fst_fleet_view *shown;
    double shown_at;
    double no_room_said; /* when it is said again that the disk is full */
};

static bool stopped(const struct cloud *c)
{
    return c->options->task.stop && atomic_load(c->options->task.stop);
}

/* ---- the network thread ---------------------------------------------------------------------------------- */

static void on_message(void *ctx, const char *topic, const void *data, size_t len)
{
    struct cloud *c = ctx;
    const char *leaf = strrchr(topic, '/');
    pthread_mutex_lock(&c->lock);
    if (leaf && !strcmp(leaf, "/ask")) {
        if (c->teacher)
            fst__teacher_message(c->teacher, topic, data, len);
    } else {
        fst__coordinator_message(c->coordinator, fst_clock_seconds(), topic, data, len);
    }
    pthread_mutex_unlock(&c->lock);
}

static void on_link(void *ctx, bool up, const char *why)
{
    struct cloud *c = ctx;
    pthread_mutex_lock(&c->lock);
    fst__coordinator_link(c->coordinator, fst_clock_seconds(), up);
    pthread_mutex_unlock(&c->lock);
    fst__tell_link(c->said, c->options->link.url, up, why);
}

static void show_sites(struct cloud *c, double now)
{
    if (!c->options->sites || now < c->shown_at)
        return;
    c->shown_at = now + 1;
    pthread_mutex_lock(&c->lock);
    for (uint32_t k = 0; k < c->clients; k++) {
        struct site_view v = fst__coordinator_site(c->coordinator, k);
        c->shown[k] = (fst_fleet_view){.id = v.id,
                                       .state = !v.known     ? "not seen"
                                                : !v.present ? "gone"
                                                : v.fetching ? "sends"
                                                             : fst__site_state_name(v.state),
                                       .present = v.present,
                                       .heard = now - v.heard};
    }
    pthread_mutex_unlock(&c->lock);
    c->options->sites(c->options->ctx, c->shown, c->clients);
}

/* Windows of edges, while there is somebody to answer them. */
static fst_status teach(struct cloud *c, fst_error *err)
{
    char filter[FST_TOPIC];
    fst_status st = FST_OK;
    if (c->teacher && !c->hears_windows)
        st = fst_transport_subscribe(c->transport, fst_topic_up(filter, "+", "ask"), err);
    c->hears_windows = c->hears_windows || (c->teacher && !st);
    if (!st && c->teacher)
        fst__teacher_talk(c->teacher);
    return st;
}

static void *talk(void *ctx)
{
    struct cloud *c = ctx;
    fst_status st = FST_OK;
    fst_error err = {0};
    while (!st && !atomic_load(&c->end)) {
        double now = fst_clock_seconds();
        pthread_mutex_lock(&c->lock);
        double until = fmin(fst__coordinator_due(c->coordinator), now + 0.25);
        pthread_mutex_unlock(&c->lock);
        st = fst_transport_poll(c->transport, until, &err);
        pthread_mutex_lock(&c->lock);
        c->traffic = *fst_transport_count(c->transport);
        if (c->teacher)
            fst__teacher_count(c->teacher, &c->answered);
        if (!st)
            st = fst__coordinator_alone(c->coordinator, &err);
        if (!st)
            st = teach(c, &err);
        if (!st)
            st = fst__coordinator_tick(c->coordinator, fst_clock_seconds(), &err);
        uint32_t missing;
        if (st || fst__coordinator_wants(c->coordinator) || fst__coordinator_measured(c->coordinator, &missing))
            pthread_cond_signal(&c->wanted);
        if (st) {
            c->failed = st;
            c->why = err;
        }
        pthread_mutex_unlock(&c->lock);
        show_sites(c, now);
    }
    return NULL;
}

/* ---- the task's thread ----------------------------------------------------------------------------------- */

static void wait_a_little(struct cloud *c)
{
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    at.tv_nsec += (long)(stop_look * 1e9);
    if (at.tv_nsec >= 1000000000) {
        at.tv_sec++;
        at.tv_nsec -= 1000000000;
    }
    (void)pthread_cond_timedwait(&c->wanted, &c->lock, &at);
}

/* Until the coordinator wants something. */
static fst_status wait_for_want(struct cloud *c, fst__want *want, double *opened, fst_error *err)
{
    fst_status st = FST_OK;
    pthread_mutex_lock(&c->lock);
    while (!c->failed && !stopped(c) && fst__coordinator_wants(c->coordinator) == WANT_NOTHING)
        wait_a_little(c);
    *want = fst__coordinator_wants(c->coordinator);
    *opened = fst__coordinator_opened(c->coordinator);
    if (c->failed) {
        *err = c->why;
        st = c->failed;
    } else if (*want == WANT_NOTHING) {
        st = fst_fail(err, FST_E_CANCELLED, "stopped; progress is saved");
    }
    pthread_mutex_unlock(&c->lock);
    return st;
}

static void done(struct cloud *c)
{
    pthread_mutex_lock(&c->lock);
    fst__coordinator_done(c->coordinator, fst_clock_seconds());
    pthread_mutex_unlock(&c->lock);
    fst_transport_wake(c->transport);
}

/* fst_task_options.wait_for_room */
static bool wait_for_room(void *ctx, const fst_error *why)
{
    struct cloud *c = ctx;
    double now = fst_clock_seconds(), end = now + room_look;
    if (now >= c->no_room_said) {
        c->no_room_said = now + patience;
        fst_log(FST_LOG_WARN, "%s; the round waits until that goes", why->message);
    }
    pthread_mutex_lock(&c->lock);
    while (!c->failed && !stopped(c) && fst_clock_seconds() < end)
        wait_a_little(c);
    bool again = !c->failed && !stopped(c);
    pthread_mutex_unlock(&c->lock);
    return again;
}

static fst_status note_round(struct cloud *c, const char *stage, uint64_t round, fst_error *err)
{
    fst_error why = {0};
    fst_status st = fst__books_round(&c->books, stage, round, c->counted, &why);
    while (st == FST_E_IO && wait_for_room(c, &why))
        st = fst__books_round(&c->books, stage, round, c->counted, &why);
    return st ? fst_fail(err, st, "%s", why.message) : FST_OK;
}

static fst_status round_over(struct cloud *c, const char *stage, const fst_simulate_spec *spec, fst_server *server,
                             double opened, fst_error *err)
{
    fst_round_report *r = fst_server_report(server);
    r->seconds = fst_clock_seconds() - opened;
    fst_status st = note_round(c, stage, r->round, err);
    if (!st && spec->settle)
        spec->settle(spec->ctx, r);
    if (!st && spec->round_done)
        st = spec->round_done(spec->ctx, server, r, err);
    return st ? st : fst_server_publish(server, fst_clock_seconds(), err);
}

static fst_status failure(struct cloud *c, const fst_server *server, fst_error *err)
{
    fst_error why = {0};
    fst_status st = fst_server_failure(server, &why);
    pthread_mutex_lock(&c->lock);
    const char *missing = fst__coordinator_missing(c->coordinator);
    st = fst_fail(err, st, "%s%s%s", why.message, *missing ? "; " : "", missing);
    pthread_mutex_unlock(&c->lock);
    return st;
}

static fst_status drive(struct cloud *c, const char *stage, const fst_simulate_spec *spec, fst_server *server,
                        fst_error *err)
{
    for (;;) {
        fst__want want;
        double opened;
        fst_status st = wait_for_want(c, &want, &opened, err);
        if (st || want == WANT_FINISH)
            return st;
        if (want == WANT_FAIL)
            return failure(c, server, err);
        st = want == WANT_AGGREGATE ? fst_server_aggregate(server, spec->aggregating, fst_clock_seconds(), err)
                                    : round_over(c, stage, spec, server, opened, err);
        if (st)
            return st;
        done(c);
    }
}

/* fst_task_options.rounds */
static fst_status rounds(void *ctx, const char *stage, const fst_simulate_spec *spec, fst_error *err)
{
    struct cloud *c = ctx;
    const fst_fleet_limits *l = &c->options->limits;
    fst_round_spec r;
    fst_server *server = NULL;
    fst_status st = fst_simulate_rounds(spec, &r, err);
    r.join_deadline = l->join_deadline > 0 ? l->join_deadline : 600;
    r.deadline = l->deadline > 0 ? l->deadline : 600;
    r.policy = FST_QUORUM_EXTEND;
    r.max_extensions = l->extensions ? l->extensions : 3;
    if (!st && spec->clients != c->clients)
        st = fst_fail(err, FST_E_CONFIG, "%s has %lu clients, the fleet %lu", stage, (unsigned long)spec->clients,
                      (unsigned long)c->clients);
    if (!st)
        st = fst__books_counted(&c->books, stage, spec->first_round, spec->keeps, c->counted, err);
    if (!st)
        st = fst_server_new(&server, &r, spec->strategy, spec->noun, err);
    if (st)
        return st;
    pthread_mutex_lock(&c->lock);
    st = fst__coordinator_begin(c->coordinator, fst_clock_seconds(), stage, spec, server, c->counted, err);
    pthread_mutex_unlock(&c->lock);
    if (!st)
        st = drive(c, stage, spec, server, err);
    pthread_mutex_lock(&c->lock);
    fst__coordinator_end(c->coordinator);
    pthread_mutex_unlock(&c->lock);
    if (st)
        fst_strategy_abandon(spec->strategy); /* of a round that was open */
    fst_server_free(server);
    return st;
}

/* Until all that were asked have answered. `missing` becomes the first that did not, or is as many as there are. */
static fst_status wait_for_figures(struct cloud *c, const char *stage, double seconds, fst_client_figures *each,
                                   uint32_t *missing, fst_error *err)
{
    double now = fst_clock_seconds(), end = now + seconds, say = now + patience;
    bool all = fst__coordinator_measured(c->coordinator, missing);
    fst_transport_wake(c->transport);
    while (!all && !c->failed && !stopped(c) && fst_clock_seconds() < end) {
        wait_a_little(c);
        all = fst__coordinator_measured(c->coordinator, missing);
        if (!all && fst_clock_seconds() > say) {
            say += patience;
            fst_log(FST_LOG_INFO, "%s: waiting for the figures of %s", stage, c->ids[*missing]);
        }
    }
    fst_status st = fst__coordinator_figures(c->coordinator, each, err);
    if (!st && c->failed) {
        *err = c->why;
        st = c->failed;
    }
    if (!st && !all && stopped(c))
        st = fst_fail(err, FST_E_CANCELLED, "%s: stopped; progress is saved", stage);
    return st;
}

static double seconds_of(double limit)
{
    return limit > 0 ? limit : 600;
}

/* fst_task_options.ask: whoever is asked has to join first. */
static fst_status ask(void *ctx, const char *stage, uint64_t done, const fst_buf *given, size_t count,
                      fst_client_figures *each, fst_error *err)
{
    struct cloud *c = ctx;
    const fst_fleet_limits *l = &c->options->limits;
    uint32_t missing = c->clients;
    pthread_mutex_lock(&c->lock);
    fst_status st = fst__coordinator_give(c->coordinator, fst_clock_seconds(), stage, done, given, count, err);
    if (!st)
        st = wait_for_figures(c, stage, seconds_of(l->join_deadline) + seconds_of(l->deadline), each, &missing, err);
    pthread_mutex_unlock(&c->lock);
    if (!st && missing < c->clients)
        st = fst_fail(err, FST_E_CONFIG, "%s: %s did not answer", stage, c->ids[missing]);
    return st;
}

/* "edge-1, edge-3": who has not joined; returns how many. */
static uint32_t list_missing(const struct cloud *c, char *out, size_t size)
{
    size_t at = 0;
    uint32_t missing = 0;
    fst_task_identity none;
    *out = 0;
    for (uint32_t k = 0; k < c->clients; k++) {
        if (fst__coordinator_identity(c->coordinator, k, &none))
            continue;
        if (missing++ < 8 && at < size)
            at += (size_t)snprintf(out + at, size - at, "%s%s", at ? ", " : "", c->ids[k]);
    }
    return missing;
}

static fst_status wait_for_all(struct cloud *c, fst_error *err)
{
    char list[400];
    double now = fst_clock_seconds(), end = now + seconds_of(c->options->limits.join_deadline), say = now + patience;
    uint32_t missing;
    while ((missing = list_missing(c, list, sizeof list)) && !c->failed && !stopped(c) && fst_clock_seconds() < end) {
        wait_a_little(c);
        if (fst_clock_seconds() > say) {
            say += patience;
            fst_log(FST_LOG_INFO, "waiting for %s%s to join, which have the samples", list, missing > 8 ? " ..." : "");
        }
    }
    if (c->failed) {
        *err = c->why;
        return c->failed;
    }
    if (missing && stopped(c))
        return fst_fail(err, FST_E_CANCELLED, "stopped before all sites had joined");
    return missing ? fst_fail(err, FST_E_CONFIG, "%s%s did not join, and their samples are theirs alone", list,
                              missing > 8 ? " ..." : "")
                   : FST_OK;
}

/* fst_task_options.places: what they said when the run began holds for all of it. */
static fst_status places(void *ctx, const fst_task_identity *want, fst_task_identity *each, size_t count,
                         fst_error *err)
{
    struct cloud *c = ctx;
    fst_status st = FST_OK;
    if (count != c->clients)
        return fst_fail(err, FST_E_ARGUMENT, "%zu places for %lu sites", count, (unsigned long)c->clients);
    pthread_mutex_lock(&c->lock);
    fst__coordinator_expect(c->coordinator, fst_clock_seconds(), want);
    bool known = fst__books_places(&c->books, each);
    if (!known)
        st = wait_for_all(c, err);
    for (uint32_t k = 0; !st && !known && k < c->clients; k++)
        (void)fst__coordinator_identity(c->coordinator, k, &each[k]);
    pthread_mutex_unlock(&c->lock);
    return st || known ? st : fst__books_note_places(&c->books, each, err);
}

/* fst_task_options.whole */
static void whole(void *ctx, int classes, const char *data)
{
    struct cloud *c = ctx;
    pthread_mutex_lock(&c->lock);
    fst__coordinator_tell_all(c->coordinator, classes, data);
    pthread_mutex_unlock(&c->lock);
}

/* fst_task_options.measure */
static fst_status measure(void *ctx, const char *stage, uint64_t done, const char *fingerprint,
                          fst_client_figures *each, fst_error *err)
{
    struct cloud *c = ctx;
    uint32_t missing = c->clients;
    pthread_mutex_lock(&c->lock);
    fst__coordinator_measure(c->coordinator, fst_clock_seconds(), stage, done, fingerprint);
    fst_status st = wait_for_figures(c, stage, seconds_of(c->options->limits.deadline), each, &missing, err);
    pthread_mutex_unlock(&c->lock);
    bool all = missing == c->clients;
    if (!st && !all && *fingerprint) /* without its model the stage is not complete; the rounds are kept */
        st = fst_fail(err, FST_E_CONFIG, "%s: %s did not say what its model is worth", stage, c->ids[missing]);
    else if (!st && !all)
        fst_log(FST_LOG_WARN, "%s: %s did not say what its model is worth", stage, c->ids[missing]);
    return st;
}

/* fst_task_options.teacher */
static fst_status set_teacher(void *ctx, fst_tier *tier, fst_error *err)
{
    struct cloud *c = ctx;
    struct teacher *t = NULL;
    pthread_mutex_lock(&c->lock);
    struct teacher *old = c->teacher;
    struct answered count = c->answered;
    c->teacher = NULL;
    pthread_mutex_unlock(&c->lock);
    fst__teacher_free(old, &count);
    fst_status st = tier ? fst__teacher_new(&t, tier, (const char *const *)c->ids, c->clients, c->books.run,
                                            c->books.epoch, c->transport, &count, err)
                         : FST_OK;
    pthread_mutex_lock(&c->lock);
    c->answered = count;
    c->teacher = t;
    pthread_mutex_unlock(&c->lock);
    return st;
}

/* Sites are let go, and those that do not say goodbye are named. */
static void let_go(struct cloud *c)
{
    bool all = false;
    bool failed = false;
    for (double end = fst_clock_seconds() + goodbye; !all && fst_clock_seconds() < end && !failed && !stopped(c);) {
        struct timespec t = {.tv_nsec = 50000000};
        pthread_mutex_lock(&c->lock);
        all = fst__coordinator_stop(c->coordinator, fst_clock_seconds());
        failed = c->failed != FST_OK;
        pthread_mutex_unlock(&c->lock);
        fst_transport_wake(c->transport);
        nanosleep(&t, NULL);
    }
    for (uint32_t k = 0; !all && k < c->clients; k++) {
        pthread_mutex_lock(&c->lock);
        bool present = fst__coordinator_site(c->coordinator, k).present;
        pthread_mutex_unlock(&c->lock);
        if (present)
            fst_log(FST_LOG_WARN, "%s did not say goodbye", c->ids[k]);
    }
}

/* Something is wrong at a site, at the broker or on the way when messages are refused: it must not go unsaid. */
static void tell_refused(const struct cloud *c)
{
    const uint64_t *refused = fst__coordinator_refused(c->coordinator);
    const fst_transport_counters *t = fst_transport_count(c->transport);
    char list[400] = "";
    size_t at = 0;
    for (int r = FST_TAKEN + 1; r < FST_REFUSALS && at < sizeof list; r++)
        if (refused[r])
            at += (size_t)snprintf(list + at, sizeof list - at, "%s%s %llu", at ? ", " : "",
                                   fst_frame_refusal_name((fst_frame_refusal)r), (unsigned long long)refused[r]);
    uint64_t other = t->refused_long + t->refused_retained + t->refused_topic;
    if (other && at < sizeof list)
        snprintf(list + at, sizeof list - at, "%stransport %llu", at ? ", " : "", (unsigned long long)other);
    if (*list)
        fst_log(FST_LOG_WARN, "messages that were refused, by reason: %s", list);
}

/* ---- beginning and end ----------------------------------------------------------------------------------- */

static fst_status name_clients(struct cloud *c, const fst_task *t, fst_error *err)
{
    const char *noun;
    fst_status st = fst_task_clients(t, &c->clients, &noun, err);
    if (st)
        return st;
    c->ids = fst_calloc(c->clients, sizeof *c->ids);
    c->counted = fst_calloc(c->clients, sizeof *c->counted);
    c->shown = fst_calloc(c->clients, sizeof *c->shown);
    if (!c->ids || !c->counted || !c->shown)
        return fst_fail_memory(err, c->clients * sizeof *c->ids);
    for (uint32_t k = 0; k < c->clients; k++) {
        char id[FST_SITE_ID];
        snprintf(id, sizeof id, "%.16s-%lu", noun, (unsigned long)k + 1);
        if (!(c->ids[k] = fst_strdup(id)))
            return fst_fail_memory(err, sizeof id);
    }
    return FST_OK;
}

static fst_status connect_cloud(struct cloud *c, const char *task, fst_error *err)
{
    const fst_transport_events on = {.ctx = c, .message = on_message, .link = on_link};
    fst_status st = fst__link_open(&c->transport, &c->options->link, FST__CLOUD, false, &on, err);
    struct coordinator_spec spec = {.ids = (const char *const *)c->ids,
                                    .clients = c->clients,
                                    .run = c->books.run,
                                    .epoch = c->books.epoch,
                                    .settings = c->settings.data,
                                    .numerics = c->numerics,
                                    .transport = c->transport,
                                    .path = c->books.store.path,
                                    .ctx = c->books.store.ctx,
                                    .in_memory = fst__in_memory(),
                                    .now = fst_clock_seconds()};
    memcpy(spec.task, task, sizeof spec.task);
    if (!st)
        st = fst__coordinator_new(&c->coordinator, &spec, err);
    if (!st && pthread_create(&c->thread, NULL, talk, c))
        st = fst_fail(err, FST_E_MEMORY, "no thread for the network");
    c->running = !st;
    return st;
}

static fst_status open_page(struct cloud *c, const fst_task *t, fst_error *err)
{
    const struct watch_cloud spec = {.http = &c->options->http,
                                     .task = fst_task_name(t),
                                     .output = fst_task_output(t),
                                     .url = c->options->link.url,
                                     .run = c->books.run,
                                     .epoch = c->books.epoch,
                                     .clients = c->clients,
                                     .lock = &c->lock,
                                     .coordinator = c->coordinator,
                                     .traffic = &c->traffic,
                                     .answered = &c->answered};
    return c->options->http.address ? fst__watch_cloud(&c->watch, &spec, err) : FST_OK;
}

static fst_status prepare(struct cloud *c, fst_task *t, fst_error *err)
{
    char task[FST_DIGEST_HEX];
    fst_status st = name_clients(c, t, err);
    if (!st)
        st = fst__place_open(&c->place, fst_task_output(t), FST__CLOUD, err);
    if (!st)
        st = fst_task_site_digest(t, task, err);
    if (!st)
        st = fst_task_site_settings(t, &c->settings, err);
    if (!st)
        st = fst_buf_append(&c->settings, "", 1, err);
    if (!st)
        st = fst__books_open_fleet(&c->books, fst__place_store(&c->place), task, c->clients, c->options->task.fresh,
                                   err);
    fst__numerics(&c->options->task, c->numerics, sizeof c->numerics);
    if (!st)
        st = connect_cloud(c, task, err);
    return st ? st : open_page(c, t, err);
}

static void release(struct cloud *c)
{
    fst__watch_close(c->watch);
    atomic_store(&c->end, true);
    if (c->running) {
        fst_transport_wake(c->transport);
        pthread_join(c->thread, NULL);
    }
    if (c->coordinator)
        tell_refused(c);
    fst__coordinator_free(c->coordinator);
    fst_transport_close(c->transport);
    fst__books_close_fleet(&c->books);
    fst__place_close(&c->place);
    for (uint32_t k = 0; c->ids && k < c->clients; k++)
        fst_free(c->ids[k]);
    fst_free(c->ids);
    fst_free(c->counted);
    fst_free(c->shown);
    fst_buf_release(&c->settings);
    pthread_cond_destroy(&c->wanted);
    pthread_mutex_destroy(&c->lock);
}

fst_status fst_fleet_cloud(fst_task *t, const fst_fleet_options *o, fst_error *err)
{
    struct cloud c = {.options = o, .place = {.lock = -1}};
    fst_task_options task = o->task;
    pthread_condattr_t attributes;
    pthread_mutex_init(&c.lock, NULL);
    pthread_condattr_init(&attributes);
    pthread_condattr_setclock(&attributes, CLOCK_MONOTONIC);
    pthread_cond_init(&c.wanted, &attributes);
    pthread_condattr_destroy(&attributes);
    atomic_init(&c.end, false);
    fst__keep_memory();
    fst_status st = prepare(&c, t, err);
    task.rounds = rounds;
    task.measure = measure;
    task.ask = ask;
    task.places = places;
    task.whole = whole;
    task.wait_for_room = wait_for_room;
    task.teacher = o->no_devices ? NULL : set_teacher;
    task.rounds_ctx = &c;
    if (!st)
        st = fst_task_run(t, &task, err);
    if (!st)
        let_go(&c);
    release(&c);
    return st;
}

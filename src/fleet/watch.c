/*
 * The cloud seen from outside, see watch.h: /state as JSON for the page, /metrics for Prometheus. Everything here runs
 * on the web server's thread; the coordinator is looked at with its lock held, just long enough to copy what is said.
 */
#include "watch.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "fedstill/dashboard.h"
#include "fedstill/fleet.h"

static const double roster_every = 60;

/* What is copied of the coordinator. */
struct seen {
    struct coordinator_view view;
    char stage[FST__STAGE_NAME];
    struct coordinator_counters count;
    fst_transport_counters traffic;
    struct taught taught;
    uint64_t refused[FST_REFUSALS];
    struct coordinator_note note[FST__NOTES];
    size_t notes;
    struct site_view *site;
    char (*why)[120];
};

struct watch {
    struct watch_spec spec;
    fst_dashboard *page;
    char *events;
    struct tally tally;
    struct seen seen;
    fst_fleet_site *roster;
    size_t enrolled;
    double roster_at;
    int64_t began_ms;
};

static void look(struct watch *w)
{
    struct seen *s = &w->seen;
    pthread_mutex_lock(w->spec.lock);
    const struct coordinator *c = w->spec.coordinator;
    s->view = fst__coordinator_look(c);
    snprintf(s->stage, sizeof s->stage, "%s", s->view.stage);
    s->count = *fst__coordinator_count(c);
    s->traffic = *w->spec.traffic;
    s->taught = *w->spec.taught;
    memcpy(s->refused, fst__coordinator_refused(c), sizeof s->refused);
    s->notes = fst__coordinator_notes(c, s->note);
    for (uint32_t k = 0; k < w->spec.clients; k++) {
        s->site[k] = fst__coordinator_site(c, k);
        snprintf(s->why[k], sizeof s->why[k], "%s", s->site[k].why);
        s->site[k].why = s->why[k];
    }
    pthread_mutex_unlock(w->spec.lock);
}

static void on_event(void *ctx, const char *line, size_t len)
{
    fst__tally_line(&((struct watch *)ctx)->tally, line, len);
}

/* ---- words ------------------------------------------------------------------------------------------------ */

static const char *const phases[] = {"central",  "announce", "collect", "aggregate", "publish",
                                     "finished", "failed",   "measure", "ending"};

static const char *phase_of(const struct coordinator_view *v)
{
    static const char *const by_want[] = {"publish", "aggregate", "publish", "finished", "failed"};
    return v->stopping    ? "ending"
           : v->measuring ? "measure"
           : !v->in_stage ? "central"
           : v->busy      ? by_want[v->want]
                          : fst_round_phase_name(v->engine.phase);
}

static const char *state_of(const struct site_view *s)
{
    return !s->known ? "absent" : !s->present ? "lost" : s->fetching ? "send" : fst__site_state_name(s->state);
}

/* From 1; 0: no round was opened. */
static double round_of(const struct coordinator_view *v)
{
    return v->in_stage ? (double)v->engine.round + 1 : 0;
}

/* Unix time of a moment of the monotonic clock, to the second: so that it stays the same. */
static int64_t unix_of(double at)
{
    return llround((double)fst_clock_unix_ms() / 1000 + at - fst_clock_seconds());
}

/* ---- certificates ----------------------------------------------------------------------------------------- */

static void read_roster(struct watch *w)
{
    double now = fst_clock_seconds();
    fst_fleet_site *list = NULL;
    size_t n = 0;
    if (!w->spec.http->roster || now < w->roster_at)
        return;
    w->roster_at = now + roster_every;
    if (fst_fleet_list(&list, &n, w->spec.http->roster, NULL))
        return; /* a cloud on another host than the hub has no roster */
    fst_free(w->roster);
    w->roster = list;
    w->enrolled = n;
}

static int64_t days_left(const fst_fleet_site *s)
{
    return (s->until - fst_clock_unix_ms() / 1000) / 86400;
}

/* ---- /state ------------------------------------------------------------------------------------------------- */

static json_t *site_json(const struct site_view *s)
{
    return json_pack(
        "{s:s, s:s, s:b, s:o, s:I, s:b, s:b, s:b, s:s, s:I, s:I, s:I}", "id", s->id, "state", state_of(s), "present",
        s->present, "heard", s->known && isfinite(s->heard) ? json_integer(unix_of(s->heard)) : json_null(), "round",
        (json_int_t)s->round + 1, "drawn", s->drawn, "awaited", s->awaited, "folded", s->folded, "why", s->why, "parts",
        (json_int_t)s->parts, "here", (json_int_t)s->here, "dropped", (json_int_t)s->dropped);
}

static json_t *sites_json(const struct watch *w)
{
    json_t *list = json_array();
    for (uint32_t k = 0; k < w->spec.clients; k++)
        json_array_append_new(list, site_json(&w->seen.site[k]));
    return list;
}

static json_t *notes_json(const struct seen *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->notes; i++)
        json_array_append_new(
            list, json_pack("{s:I, s:s}", "time", (json_int_t)unix_of(s->note[i].at), "text", s->note[i].text));
    return list;
}

static json_t *models_json(const struct tally *t)
{
    json_t *list = json_array();
    for (size_t i = 0; i < t->models; i++)
        json_array_append_new(list, json_pack("{s:s, s:o, s:o}", "name", t->model[i].name, "accuracy",
                                              fst_json_number(t->model[i].accuracy), "loss",
                                              fst_json_number(t->model[i].loss)));
    return list;
}

static json_t *certificates_json(const struct watch *w)
{
    json_t *list = json_array();
    for (size_t i = 0; i < w->enrolled; i++)
        if (!w->roster[i].revoked)
            json_array_append_new(
                list, json_pack("{s:s, s:I}", "id", w->roster[i].id, "days", (json_int_t)days_left(&w->roster[i])));
    return list;
}

static json_t *refused_json(const struct seen *s)
{
    json_t *o = json_object();
    for (int r = FST_TAKEN + 1; r < FST_REFUSALS; r++)
        if (s->refused[r])
            json_object_set_new(o, fst_frame_refusal_name((fst_frame_refusal)r),
                                json_integer((json_int_t)s->refused[r]));
    return o;
}

static json_t *cohort_json(const fst_round_view *e)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "joined", (json_int_t)e->joined, "selected",
                     (json_int_t)e->selected, "pending", (json_int_t)e->pending, "folded", (json_int_t)e->folded,
                     "lost", (json_int_t)e->lost, "refused", (json_int_t)e->refused, "extensions",
                     (json_int_t)e->extensions);
}

static fst_status write_state(void *ctx, fst_buf *out, fst_error *err)
{
    struct watch *w = ctx;
    const struct seen *s = &w->seen;
    char run[FST__INSTANCE];
    look(w);
    read_roster(w);
    snprintf(run, sizeof run, "%016" PRIx64, w->spec.run);
    json_t *j = json_pack("{s:s, s:s, s:s, s:I, s:s, s:b, s:I, s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o}",
                          "task", w->spec.task, "version", FST_VERSION, "run", run, "epoch", (json_int_t)w->spec.epoch,
                          "broker", w->spec.url, "connected", s->view.up, "began", (json_int_t)(w->began_ms / 1000),
                          "stage", s->view.in_stage ? s->stage : w->tally.stage, "phase", phase_of(&s->view), "round",
                          (json_int_t)round_of(&s->view), "rounds", (json_int_t)s->view.rounds, "opened",
                          s->view.open ? json_integer(unix_of(s->view.opened)) : json_null(), "cohort",
                          s->view.in_stage ? cohort_json(&s->view.engine) : json_null(), "sites", sites_json(w),
                          "models", models_json(&w->tally), "notes", notes_json(s), "certificates",
                          certificates_json(w), "refused", refused_json(s));
    bool ok =
        j && !json_object_set_new(j, "bytes",
                                  json_pack("{s:I, s:I, s:I, s:I}", "up", (json_int_t)w->tally.bytes_up, "down",
                                            (json_int_t)w->tally.bytes_down, "wire_in", (json_int_t)s->traffic.bytes_in,
                                            "wire_out", (json_int_t)s->traffic.bytes_out));
    ok = ok && !json_object_set_new(j, "windows", json_integer((json_int_t)s->taught.answered));
    char *text = ok ? json_dumps(j, JSON_COMPACT) : NULL;
    fst_status st = text ? fst_buf_append(out, text, strlen(text), err) : fst_fail_memory(err, 4096);
    free(text);
    json_decref(j);
    return st;
}

/* ---- /metrics ------------------------------------------------------------------------------------------------ */

/* A family of one sample without a label. */
static fst_status one(fst_buf *out, const char *name, const char *type, const char *help, double value, fst_error *err)
{
    fst_status s = fst_metric_head(out, name, type, help, err);
    return s ? s : fst_metric(out, name, NULL, NULL, value, err);
}

static fst_status write_run(const struct watch *w, fst_buf *out, fst_error *err)
{
    const struct seen *s = &w->seen;
    const struct {
        const char *name, *type, *help;
        double value;
    } all[] = {
        {"fedstill_round", "gauge", "The open round, from 1; 0 outside of federated stages.", round_of(&s->view)},
        {"fedstill_rounds", "gauge", "Rounds that the federated stage has.", (double)s->view.rounds},
        {"fedstill_rounds_total", "counter", "Rounds that ended, as the run's events say.", (double)w->tally.rounds},
        {"fedstill_epoch", "gauge", "How often this run's cloud was started.", (double)w->spec.epoch},
        {"fedstill_is_leader", "gauge", "1: this cloud leads.", 1},
        {"fedstill_connected", "gauge", "1: the link to the broker is up.", s->view.up},
        {"fedstill_links_total", "counter", "How often the link came up.", (double)s->traffic.links},
        {"fedstill_parts_asked_again_total", "counter", "Parts of updates that did not come at first.",
         (double)s->count.again},
        {"fedstill_messages_packed_total", "counter", "Different messages that were packed for sites.",
         (double)s->count.packed}};
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < sizeof all / sizeof *all; i++)
        st = one(out, all[i].name, all[i].type, all[i].help, all[i].value, err);
    if (!st)
        st = fst_metric_head(out, "fedstill_phase", "gauge", "1 for what the cloud does now.", err);
    for (size_t i = 0; !st && i < sizeof phases / sizeof *phases; i++)
        st = fst_metric(out, "fedstill_phase", "phase", phases[i], !strcmp(phases[i], phase_of(&s->view)), err);
    return st;
}

static fst_status write_sites(const struct watch *w, fst_buf *out, fst_error *err)
{
    static const char *const states[] = {"absent", "lost", "join", "idle", "fetch", "train", "offer", "send", "keep"};
    enum { STATES = sizeof states / sizeof *states };
    unsigned count[STATES] = {0};
    uint64_t dropped = 0;
    for (uint32_t k = 0; k < w->spec.clients; k++) {
        dropped += w->seen.site[k].dropped;
        for (size_t i = 0; i < STATES; i++)
            count[i] += !strcmp(states[i], state_of(&w->seen.site[k]));
    }
    fst_status st = fst_metric_head(out, "fedstill_clients", "gauge", "Sites, by what they do.", err);
    for (size_t i = 0; !st && i < STATES; i++)
        st = fst_metric(out, "fedstill_clients", "state", states[i], count[i], err);
    if (!st)
        st = one(out, "fedstill_messages_dropped_total", "counter", "Messages of sites above the limit a second.",
                 (double)dropped, err);
    if (!st && w->enrolled)
        st = fst_metric_head(out, "fedstill_certificate_days", "gauge", "Days until a certificate ends.", err);
    for (size_t i = 0; !st && i < w->enrolled; i++)
        if (!w->roster[i].revoked)
            st = fst_metric(out, "fedstill_certificate_days", "id", w->roster[i].id, (double)days_left(&w->roster[i]),
                            err);
    return st;
}

static fst_status write_updates(const struct watch *w, fst_buf *out, fst_error *err)
{
    static const char name[] = "fedstill_update_seconds_bucket";
    const struct coordinator_counters *c = &w->seen.count;
    uint64_t below = 0;
    char bound[32];
    fst_status st = fst_metric_head(out, "fedstill_update_seconds", "histogram",
                                    "How long sites trained for the updates that came since this cloud began.", err);
    for (size_t i = 0; !st && i < FST__UPDATE_BUCKETS; i++) {
        below += c->update_in[i];
        snprintf(bound, sizeof bound, "%g", fst__update_bucket[i]);
        st = fst_metric(out, name, "le", bound, (double)below, err);
    }
    if (!st)
        st = fst_metric(out, name, "le", "+Inf", (double)c->updates, err);
    if (!st)
        st = fst_metric(out, "fedstill_update_seconds_sum", NULL, NULL, c->update_seconds, err);
    if (!st)
        st = fst_metric(out, "fedstill_update_seconds_count", NULL, NULL, (double)c->updates, err);
    if (!st)
        st = fst_metric_head(out, "fedstill_clients_total", "counter", "Answers of clients in rounds that ended.", err);
    if (!st)
        st = fst_metric(out, "fedstill_clients_total", "result", "reported", (double)w->tally.reported, err);
    return st ? st : fst_metric(out, "fedstill_clients_total", "result", "lost", (double)w->tally.lost, err);
}

static fst_status write_windows(const struct watch *w, fst_buf *out, fst_error *err)
{
    static const char name[] = "fedstill_latency_seconds_bucket";
    const struct taught *t = &w->seen.taught;
    uint64_t below = 0;
    char bound[32];
    fst_status st = fst_metric_head(out, "fedstill_windows_total", "counter",
                                    "Windows of edges that were answered here since this cloud began.", err);
    if (!st)
        st = fst_metric(out, "fedstill_windows_total", "tier", "cloud", (double)t->answered, err);
    if (!st)
        st = one(out, "fedstill_windows_waiting", "gauge", "Windows that wait here.", t->waiting, err);
    if (!st)
        st = one(out, "fedstill_batches_total", "counter", "Batches of windows that were computed here.",
                 (double)t->batches, err);
    if (!st)
        st = one(out, "fedstill_compute_seconds_total", "counter", "Seconds that computing them took.", t->computed,
                 err);
    if (!st)
        st = fst_metric_head(out, "fedstill_latency_seconds", "histogram",
                             "From a window's arrival here to its answer.", err);
    for (size_t i = 0; !st && i < FST__LATENCY_BUCKETS; i++) {
        below += t->in[i];
        snprintf(bound, sizeof bound, "%g", fst__latency_bucket[i]);
        st = fst_metric(out, name, "le", bound, (double)below, err);
    }
    if (!st)
        st = fst_metric(out, name, "le", "+Inf", (double)t->answered, err);
    if (!st)
        st = fst_metric(out, "fedstill_latency_seconds_sum", NULL, NULL, t->seconds, err);
    return st ? st : fst_metric(out, "fedstill_latency_seconds_count", NULL, NULL, (double)t->answered, err);
}

static fst_status write_bytes(const struct watch *w, fst_buf *out, fst_error *err)
{
    const char *name = "fedstill_bytes_total";
    const struct tally *t = &w->tally;
    const fst_transport_counters *l = &w->seen.traffic;
    fst_status st = fst_metric_head(out, name, "counter",
                                    "update: messages of strategies in rounds that ended, as events count them; wire: "
                                    "all payloads at the broker since this cloud began.",
                                    err);
    if (!st)
        st = fst_metric2(out, name, "dir", "up", "kind", "update", (double)t->bytes_up, err);
    if (!st)
        st = fst_metric2(out, name, "dir", "down", "kind", "update", (double)t->bytes_down, err);
    if (!st)
        st = fst_metric2(out, name, "dir", "up", "kind", "wire", (double)l->bytes_in, err);
    if (!st)
        st = fst_metric2(out, name, "dir", "down", "kind", "wire", (double)l->bytes_out, err);
    if (!st)
        st = fst_metric_head(out, "fedstill_messages_total", "counter", "Messages at the broker.", err);
    if (!st)
        st = fst_metric(out, "fedstill_messages_total", "dir", "up", (double)l->messages_in, err);
    return st ? st : fst_metric(out, "fedstill_messages_total", "dir", "down", (double)l->messages_out, err);
}

static fst_status write_refusals(const struct watch *w, fst_buf *out, fst_error *err)
{
    const struct seen *s = &w->seen;
    const char *name = "fedstill_messages_refused_total";
    fst_status st = fst_metric_head(out, name, "counter", "Messages that were refused.", err);
    for (int r = FST_TAKEN + 1; !st && r < FST_REFUSALS; r++)
        st = fst_metric(out, name, "reason", fst_frame_refusal_name((fst_frame_refusal)r), (double)s->refused[r], err);
    if (!st)
        st = fst_metric_head(out, "fedstill_discarded_total", "counter", "Updates that did not count.", err);
    for (int i = 0; !st && i < FST_WHY_COUNT; i++)
        if (s->count.discarded[i] || i == FST_WHY_NONE || i == FST_WHY_DUPLICATE || i == FST_WHY_LATE)
            st = fst_metric(out, "fedstill_discarded_total", "why",
                            i == FST_WHY_NONE ? "refused" : fst_fed_why_text((fst_fed_why)i),
                            (double)s->count.discarded[i], err);
    return st;
}

static fst_status write_models(const struct watch *w, fst_buf *out, fst_error *err)
{
    const struct tally *t = &w->tally;
    struct statvfs disk;
    fst_status st = fst_metric_head(out, "fedstill_accuracy", "gauge",
                                    "Share of the test samples that the stage's model gets right.", err);
    for (size_t i = 0; !st && i < t->models; i++)
        st = fst_metric(out, "fedstill_accuracy", "model", t->model[i].name, t->model[i].accuracy, err);
    if (!st)
        st = fst_metric_head(out, "fedstill_loss", "gauge", "Its loss there.", err);
    for (size_t i = 0; !st && i < t->models; i++)
        st = fst_metric(out, "fedstill_loss", "model", t->model[i].name, t->model[i].loss, err);
    if (!st && !statvfs(w->spec.output, &disk))
        st = one(out, "fedstill_disk_free_bytes", "gauge", "Room where the run's output is.",
                 (double)disk.f_bavail * (double)disk.f_frsize, err);
    return st;
}

static fst_status write_metrics(void *ctx, fst_buf *out, fst_error *err)
{
    fst_status (*const parts[])(const struct watch *, fst_buf *, fst_error *) = {
        write_run, write_sites, write_updates, write_windows, write_bytes, write_refusals, write_models};
    struct watch *w = ctx;
    fst_status s = FST_OK;
    look(w);
    read_roster(w);
    for (size_t i = 0; !s && i < sizeof parts / sizeof *parts; i++)
        s = parts[i](w, out, err);
    return s ? s : fst_metrics_process(out, err);
}

/* ---- beginning and end ---------------------------------------------------------------------------------------- */

fst_status fst__watch_open(struct watch **out, const struct watch_spec *spec, fst_error *err)
{
    struct watch *w = fst_calloc(1, sizeof *w);
    if (!w)
        return fst_fail_memory(err, sizeof *w);
    w->spec = *spec;
    w->began_ms = fst_clock_unix_ms();
    w->seen.site = fst_calloc(spec->clients, sizeof *w->seen.site);
    w->seen.why = fst_calloc(spec->clients, sizeof *w->seen.why);
    w->events = fst_path_join(spec->output, "events.jsonl");
    const fst_dashboard_options o = {.address = spec->http->address,
                                     .token_file = spec->http->token_file,
                                     .events = w->events,
                                     .ctx = w,
                                     .state = write_state,
                                     .metrics = write_metrics,
                                     .event = on_event};
    fst_status s = w->seen.site && w->seen.why && w->events ? fst_dashboard_open(&w->page, &o, err)
                                                            : fst_fail_memory(err, spec->clients * sizeof *w->seen.why);
    if (s) {
        fst__watch_close(w);
        return s;
    }
    fst_log(FST_LOG_INFO, "page: %s (metrics: %smetrics)", fst_dashboard_url(w->page), fst_dashboard_url(w->page));
    *out = w;
    return FST_OK;
}

void fst__watch_close(struct watch *w)
{
    if (!w)
        return;
    fst_dashboard_close(w->page);
    fst_free(w->seen.site);
    fst_free(w->seen.why);
    fst_free(w->events);
    fst_free(w->roster);
    fst_free(w);
}

/*
 * The cloud seen from outside, see watch.h: /state as JSON for the page, /metrics for Prometheus. Everything here runs
 * on the web server's thread; the coordinator is looked at with its lock held, just long enough to copy what is said.
 */
#include "watch_private.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fedstill/fleet.h"

static const double roster_every = 60;

/* What is copied of the coordinator. */
struct seen {
    struct coordinator_view view;
    char stage[FST__STAGE_NAME];
    struct coordinator_counters count;
    fst_transport_counters traffic;
    struct answered answered;
    uint64_t refused[FST_REFUSALS];
    struct note note[FST__NOTES];
    size_t notes;
    struct site_view *site;
    char (*why)[120];
};

struct view {
    struct watch_cloud spec;
    struct tally tally;
    struct seen seen;
    fst_fleet_site *roster;
    size_t enrolled;
    double roster_at;
    int64_t began_ms;
};

static void look(struct view *w)
{
    struct seen *s = &w->seen;
    pthread_mutex_lock(w->spec.lock);
    const struct coordinator *c = w->spec.coordinator;
    s->view = fst__coordinator_look(c);
    snprintf(s->stage, sizeof s->stage, "%s", s->view.stage);
    s->count = *fst__coordinator_count(c);
    s->traffic = *w->spec.traffic;
    s->answered = *w->spec.answered;
    memcpy(s->refused, fst__coordinator_refused(c), sizeof s->refused);
    s->notes = fst__coordinator_notes(c, s->note);
    for (uint32_t k = 0; k < w->spec.clients; k++) {
        s->site[k] = fst__coordinator_site(c, k);
        snprintf(s->why[k], sizeof s->why[k], "%s", s->site[k].why);
        s->site[k].why = s->why[k];
        s->answered.decided += s->site[k].windows;
        s->answered.passed += s->site[k].offloaded;
    }
    pthread_mutex_unlock(w->spec.lock);
}

static void on_event(void *ctx, const char *line, size_t len)
{
    fst__tally_line(&((struct view *)ctx)->tally, line, len);
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

/* ---- certificates ----------------------------------------------------------------------------------------- */

static void read_roster(struct view *w)
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
    return json_pack("{s:s, s:s, s:b, s:o, s:I, s:b, s:b, s:b, s:s, s:I, s:I, s:I, s:I, s:I}", "id", s->id, "state",
                     state_of(s), "present", s->present, "heard", fst__watch_time(s->known ? s->heard : INFINITY),
                     "round", (json_int_t)s->round + 1, "drawn", s->drawn, "awaited", s->awaited, "folded", s->folded,
                     "why", s->why, "parts", (json_int_t)s->parts, "here", (json_int_t)s->here, "dropped",
                     (json_int_t)s->dropped, "windows", (json_int_t)s->windows, "offloaded", (json_int_t)s->offloaded);
}

static json_t *sites_json(const struct view *w)
{
    json_t *list = json_array();
    for (uint32_t k = 0; k < w->spec.clients; k++)
        json_array_append_new(list, site_json(&w->seen.site[k]));
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

static json_t *certificates_json(const struct view *w)
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
    struct view *w = ctx;
    const struct seen *s = &w->seen;
    char run[FST__INSTANCE];
    look(w);
    read_roster(w);
    snprintf(run, sizeof run, "%016" PRIx64, w->spec.run);
    json_t *j = json_pack(
        "{s:s, s:s, s:s, s:s, s:I, s:s, s:b, s:I, s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "tier",
        "cloud", "task", w->spec.task, "version", FST_VERSION, "run", run, "epoch", (json_int_t)w->spec.epoch, "broker",
        w->spec.url, "connected", s->view.up, "began", (json_int_t)(w->began_ms / 1000), "stage",
        s->view.in_stage ? s->stage : w->tally.stage, "phase", phase_of(&s->view), "round",
        (json_int_t)round_of(&s->view), "rounds", (json_int_t)s->view.rounds, "opened",
        fst__watch_time(s->view.open ? s->view.opened : INFINITY), "cohort",
        s->view.in_stage ? cohort_json(&s->view.engine) : json_null(), "sites", sites_json(w), "models",
        models_json(&w->tally), "notes", fst__watch_notes(s->note, s->notes), "certificates", certificates_json(w),
        "refused", refused_json(s), "cascade", fst__watch_answered(&s->answered));
    if (j)
        json_object_set_new(j, "bytes",
                            json_pack("{s:I, s:I, s:I, s:I}", "up", (json_int_t)w->tally.bytes_up, "down",
                                      (json_int_t)w->tally.bytes_down, "wire_in", (json_int_t)s->traffic.bytes_in,
                                      "wire_out", (json_int_t)s->traffic.bytes_out));
    return fst__watch_write(j, out, err);
}

/* ---- /metrics ------------------------------------------------------------------------------------------------ */

static fst_status write_run(const struct view *w, fst_buf *out, fst_error *err)
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
    fst_status st = fst__metric_info(out, "cloud", FST__CLOUD, err);
    for (size_t i = 0; !st && i < sizeof all / sizeof *all; i++)
        st = fst__metric_one(out, all[i].name, all[i].type, all[i].help, all[i].value, err);
    return st ? st
              : fst__metric_which(out, "fedstill_phase", "1 for what the cloud does now.", "phase", phases,
                                  sizeof phases / sizeof *phases, phase_of(&s->view), err);
}

static fst_status write_sites(const struct view *w, fst_buf *out, fst_error *err)
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
        st = fst__metric_one(out, "fedstill_messages_dropped_total", "counter",
                             "Messages of sites above the limit a second.", (double)dropped, err);
    if (!st && w->enrolled)
        st = fst_metric_head(out, "fedstill_certificate_days", "gauge", "Days until a certificate ends.", err);
    for (size_t i = 0; !st && i < w->enrolled; i++)
        if (!w->roster[i].revoked)
            st = fst_metric(out, "fedstill_certificate_days", "id", w->roster[i].id, (double)days_left(&w->roster[i]),
                            err);
    return st;
}

static fst_status write_updates(const struct view *w, fst_buf *out, fst_error *err)
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

static fst_status write_windows(const struct view *w, fst_buf *out, fst_error *err)
{
    return fst__metric_answered(out, &w->seen.answered, err);
}

static fst_status write_bytes(const struct view *w, fst_buf *out, fst_error *err)
{
    const struct tally *t = &w->tally;
    const fst_transport_counters *l = &w->seen.traffic;
    fst_status st = fst_metric_head(out, "fedstill_bytes_total", "counter",
                                    "update: messages of strategies in rounds that ended, as events count them; wire: "
                                    "all payloads at the broker since this cloud began.",
                                    err);
    if (!st)
        st = fst__metric_bytes(out, "update", (double)t->bytes_up, (double)t->bytes_down, err);
    if (!st)
        st = fst__metric_bytes(out, "wire", (double)l->bytes_in, (double)l->bytes_out, err);
    if (!st)
        st = fst_metric_head(out, "fedstill_messages_total", "counter", "Messages at the broker.", err);
    if (!st)
        st = fst_metric(out, "fedstill_messages_total", "dir", "up", (double)l->messages_in, err);
    return st ? st : fst_metric(out, "fedstill_messages_total", "dir", "down", (double)l->messages_out, err);
}

static fst_status write_refusals(const struct view *w, fst_buf *out, fst_error *err)
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

static fst_status write_models(const struct view *w, fst_buf *out, fst_error *err)
{
    const struct tally *t = &w->tally;
    fst_status st = fst_metric_head(out, "fedstill_accuracy", "gauge",
                                    "Share of the test samples that the stage's model gets right.", err);
    for (size_t i = 0; !st && i < t->models; i++)
        st = fst_metric(out, "fedstill_accuracy", "model", t->model[i].name, t->model[i].accuracy, err);
    if (!st)
        st = fst_metric_head(out, "fedstill_loss", "gauge", "Its loss there.", err);
    for (size_t i = 0; !st && i < t->models; i++)
        st = fst_metric(out, "fedstill_loss", "model", t->model[i].name, t->model[i].loss, err);
    return st ? st : fst__metric_disk(out, w->spec.output, err);
}

static fst_status write_metrics(void *ctx, fst_buf *out, fst_error *err)
{
    fst_status (*const parts[])(const struct view *, fst_buf *, fst_error *) = {
        write_run, write_sites, write_updates, write_windows, write_bytes, write_refusals, write_models};
    struct view *w = ctx;
    fst_status s = FST_OK;
    look(w);
    read_roster(w);
    for (size_t i = 0; !s && i < sizeof parts / sizeof *parts; i++)
        s = parts[i](w, out, err);
    return s ? s : fst_metrics_process(out, err);
}

/* ---- beginning and end ---------------------------------------------------------------------------------------- */

static void release(void *ctx)
{
    struct view *w = ctx;
    fst_free(w->seen.site);
    fst_free(w->seen.why);
    fst_free(w->roster);
    fst_free(w);
}

fst_status fst__watch_cloud(struct watch **out, const struct watch_cloud *spec, fst_error *err)
{
    static const struct watch_kind kind = {write_state, write_metrics, on_event, release};
    struct view *w = fst_calloc(1, sizeof *w);
    if (!w)
        return fst_fail_memory(err, sizeof *w);
    w->spec = *spec;
    w->began_ms = fst_clock_unix_ms();
    w->seen.site = fst_calloc(spec->clients, sizeof *w->seen.site);
    w->seen.why = fst_calloc(spec->clients, sizeof *w->seen.why);
    char *events = fst_path_join(spec->output, "events.jsonl");
    fst_status s = FST_OK;
    if (w->seen.site && w->seen.why && events) {
        s = fst__watch_open(out, &kind, w, spec->http, events, err);
    } else {
        s = fst_fail_memory(err, spec->clients * sizeof *w->seen.why);
        release(w);
    }
    fst_free(events);
    return s;
}

/*
 * An edge seen from outside, see watch.h: what it does for the cloud, which of its devices are there, and what they
 * were answered. Everything here runs on the web server's thread, from copies that the edge's threads leave.
 */
#include "watch_private.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* A device whose windows are unanswered says something every five seconds at least (docs/protocol.md). */
static const double silent_after = 15;

struct view {
    struct watch_edge spec;
    int64_t began_ms;
    struct edge_view seen;
    struct serve_view serve; /* all 0 before it has devices */
    struct device_view *device;
    uint32_t room;
    struct note note[FST__NOTES];
    size_t notes;
};

static fst_status look(struct view *w, fst_error *err)
{
    pthread_mutex_lock(w->spec.lock);
    w->seen = *w->spec.view;
    pthread_mutex_unlock(w->spec.lock);
    w->notes = fst__notes_copy(&w->seen.notes, w->note);
    w->serve = (struct serve_view){.devices = 0};
    if (!w->seen.serve)
        return FST_OK;
    fst__serve_look(w->seen.serve, &w->serve, w->device, w->room);
    if (w->serve.devices <= w->room)
        return FST_OK;
    fst_free(w->device);
    w->room = w->serve.devices; /* it stays the same */
    w->device = fst_calloc(w->room, sizeof *w->device);
    if (!w->device) {
        w->room = 0;
        return fst_fail_memory(err, w->serve.devices * sizeof *w->device);
    }
    fst__serve_look(w->seen.serve, &w->serve, w->device, w->room);
    return FST_OK;
}

/* ---- words -------------------------------------------------------------------------------------------------- */

static const char *const phases[] = {"join", "idle", "fetch", "train", "answer", "offer", "keep"};

static const char *phase_of(const struct edge_view *v)
{
    return v->answers && v->state == SITE_TRAIN ? "answer" : fst__site_state_name(v->state);
}

static double round_of(const struct edge_view *v)
{
    return v->state > SITE_IDLE ? (double)v->round + 1 : 0;
}

static const char *const states[] = {"absent", "lost", "join", "ask", "done", "left"};
enum { STATES = sizeof states / sizeof *states };

static bool is_present(const struct device_view *d)
{
    return d->known && !d->bye && fst_clock_seconds() - d->heard < silent_after;
}

static const char *state_of(const struct view *w, const struct device_view *d)
{
    return !d->known         ? "absent"
           : d->bye          ? "left"
           : d->done         ? "done"
           : !is_present(d)  ? "lost"
           : w->serve.loaded ? "ask"
                             : "join";
}

/* ---- /state ------------------------------------------------------------------------------------------------- */

static json_t *devices_json(const struct view *w)
{
    json_t *list = json_array();
    for (uint32_t k = 0; k < w->serve.devices; k++) {
        const struct device_view *d = &w->device[k];
        json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:o, s:I, s:I, s:I}", "id", d->id, "state",
                                              state_of(w, d), "present", is_present(d), "heard",
                                              fst__watch_time(d->heard), "windows", (json_int_t)d->windows, "received",
                                              (json_int_t)d->received, "answered", (json_int_t)d->answered));
    }
    return list;
}

/* What it answers with. */
static json_t *decides_json(const struct serve_view *s)
{
    return !s->loaded ? json_null()
                      : json_pack("{s:b, s:o, s:o, s:s, s:I}", "relay", s->relay, "threshold",
                                  fst_json_number(s->threshold), "temperature", fst_json_number(s->temperature),
                                  "confidence", s->confidence, "batch", (json_int_t)s->batch);
}

/* The hub's link as its broker counts it: up is from here to there. */
static json_t *bytes_json(const struct view *w)
{
    return json_pack("{s:I, s:I, s:I, s:I}", "up", (json_int_t)w->seen.traffic.bytes_out, "down",
                     (json_int_t)w->seen.traffic.bytes_in, "devices_up", (json_int_t)w->serve.traffic.bytes_in,
                     "devices_down", (json_int_t)w->serve.traffic.bytes_out);
}

static fst_status write_state(void *ctx, fst_buf *out, fst_error *err)
{
    struct view *w = ctx;
    char run[FST__INSTANCE];
    fst_status st = look(w, err);
    if (st)
        return st;
    const struct edge_view *v = &w->seen;
    snprintf(run, sizeof run, "%016" PRIx64, v->run);
    json_t *j = json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:b, s:o, s:I, s:s, s:s, s:I, s:I, s:o, s:b, s:o, s:o, s:o, s:o, s:o}",
        "tier", "edge", "id", w->spec.id, "task", w->spec.task, "version", FST_VERSION, "run", run, "epoch",
        (json_int_t)v->epoch, "broker", w->spec.url, "connected", v->up, "heard", fst__watch_time(v->heard), "began",
        (json_int_t)(w->began_ms / 1000), "stage", v->stage, "phase", phase_of(v), "round", (json_int_t)round_of(v),
        "rounds_done", (json_int_t)v->rounds, "seconds", fst_json_number(v->seconds), "devices_connected", w->serve.up,
        "devices", devices_json(w), "decides", decides_json(&w->serve), "cascade", fst__watch_answered(&w->serve.count),
        "bytes", bytes_json(w), "notes", fst__watch_notes(w->note, w->notes));
    return fst__watch_write(j, out, err);
}

/* ---- /metrics ------------------------------------------------------------------------------------------------ */

static fst_status write_work(const struct view *w, fst_buf *out, fst_error *err)
{
    const struct edge_view *v = &w->seen;
    const struct {
        const char *name, *type, *help;
        double value;
    } all[] = {
        {"fedstill_round", "gauge", "The round at hand, from 1; 0: none.", round_of(v)},
        {"fedstill_rounds_total", "counter", "Rounds that were worked on since this process began.", (double)v->rounds},
        {"fedstill_work_seconds_total", "counter", "Seconds that these took.", v->seconds},
        {"fedstill_epoch", "gauge", "How often the run's cloud was started, as far as was heard.", (double)v->epoch},
        {"fedstill_connected", "gauge", "1: the link to the hub's broker is up.", v->up},
        {"fedstill_devices_connected", "gauge", "1: the link to the devices' broker is up.", w->serve.up},
        {"fedstill_cloud_heard_seconds", "gauge", "Seconds since something was heard of the cloud; NaN: never.",
         isfinite(v->heard) ? fst_clock_seconds() - v->heard : NAN},
        {"fedstill_links_total", "counter", "How often the link to the hub came up.", (double)v->traffic.links}};
    fst_status st = fst__metric_info(out, "edge", w->spec.id, err);
    for (size_t i = 0; !st && i < sizeof all / sizeof *all; i++)
        st = fst__metric_one(out, all[i].name, all[i].type, all[i].help, all[i].value, err);
    return st ? st
              : fst__metric_which(out, "fedstill_phase", "1 for what the edge does now.", "phase", phases,
                                  sizeof phases / sizeof *phases, phase_of(v), err);
}

static fst_status write_devices(const struct view *w, fst_buf *out, fst_error *err)
{
    unsigned count[STATES] = {0};
    for (uint32_t k = 0; k < w->serve.devices; k++)
        for (size_t i = 0; i < STATES; i++)
            count[i] += !strcmp(states[i], state_of(w, &w->device[k]));
    fst_status st = fst_metric_head(out, "fedstill_devices", "gauge", "Devices, by what they do.", err);
    for (size_t i = 0; !st && i < STATES; i++)
        st = fst_metric(out, "fedstill_devices", "state", states[i], count[i], err);
    if (!st)
        st = fst__metric_answered(out, &w->serve.count, err);
    if (!st)
        st = fst__metric_one(out, "fedstill_windows_away", "gauge", "Windows that the cloud has not answered yet.",
                             w->serve.count.away, err);
    return st ? st
              : fst__metric_one(out, "fedstill_windows_unsure_total", "counter",
                                "Windows that were answered here since the cloud was not heard.",
                                (double)w->serve.count.unsure, err);
}

static fst_status write_bytes(const struct view *w, fst_buf *out, fst_error *err)
{
    const fst_transport_counters *hub = &w->seen.traffic, *local = &w->serve.traffic;
    fst_status st = fst_metric_head(out, "fedstill_bytes_total", "counter",
                                    "Payloads since this process began; wire: to the cloud and from it; devices: from "
                                    "devices and to them.",
                                    err);
    if (!st)
        st = fst__metric_bytes(out, "wire", (double)hub->bytes_out, (double)hub->bytes_in, err);
    return st ? st : fst__metric_bytes(out, "devices", (double)local->bytes_in, (double)local->bytes_out, err);
}

static fst_status write_metrics(void *ctx, fst_buf *out, fst_error *err)
{
    struct view *w = ctx;
    fst_status st = look(w, err);
    if (!st)
        st = write_work(w, out, err);
    if (!st)
        st = write_devices(w, out, err);
    if (!st)
        st = write_bytes(w, out, err);
    if (!st)
        st = fst__metric_disk(out, w->spec.output, err);
    return st ? st : fst_metrics_process(out, err);
}

/* ---- beginning and end ---------------------------------------------------------------------------------------- */

static void release(void *ctx)
{
    struct view *w = ctx;
    fst_free(w->device);
    fst_free(w);
}

fst_status fst__watch_edge(struct watch **out, const struct watch_edge *spec, fst_error *err)
{
    static const struct watch_kind kind = {write_state, write_metrics, NULL, release};
    struct view *w = fst_calloc(1, sizeof *w);
    if (!w)
        return fst_fail_memory(err, sizeof *w);
    w->spec = *spec;
    w->began_ms = fst_clock_unix_ms();
    return fst__watch_open(out, &kind, w, spec->http, NULL, err);
}

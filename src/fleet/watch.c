/* What the pages of cloud and edge have alike, see watch_private.h. */
#include "watch_private.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

struct watch {
    const struct watch_kind *kind;
    void *view;
    fst_dashboard *page;
};

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

fst_status fst__watch_write(json_t *j, fst_buf *out, fst_error *err)
{
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    fst_status st = text ? fst_buf_append(out, text, strlen(text), err) : fst_fail_memory(err, 4096);
    free(text);
    json_decref(j);
    return st;
}

json_t *fst__watch_time(double at)
{
    return isfinite(at) ? json_integer(llround((double)fst_clock_unix_ms() / 1000 + at - fst_clock_seconds()))
                        : json_null();
}

json_t *fst__watch_notes(const struct note *note, size_t count)
{
    json_t *list = json_array();
    for (size_t i = 0; i < count; i++)
        json_array_append_new(list, json_pack("{s:o, s:s}", "time", fst__watch_time(note[i].at), "text", note[i].text));
    return list;
}

json_t *fst__watch_answered(const struct answered *a)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:o, s:o, s:o}", "received",
                     (json_int_t)a->received, "decided", (json_int_t)a->decided, "passed", (json_int_t)a->passed,
                     "edge", (json_int_t)a->windows[TIER_EDGE], "cloud", (json_int_t)a->windows[TIER_CLOUD], "unsure",
                     (json_int_t)a->unsure, "refused", (json_int_t)a->refused, "waiting", (json_int_t)a->waiting,
                     "away", (json_int_t)a->away, "batches", (json_int_t)a->batches, "offload_ratio",
                     fst_json_number(fst__offload_ratio(a)), "p50", fst_json_number(fst__answered_within(a, 0.5)),
                     "p99", fst_json_number(fst__answered_within(a, 0.99)));
}

/* ---- metrics ---------------------------------------------------------------------------------------------------- */

fst_status fst__metric_one(fst_buf *out, const char *name, const char *type, const char *help, double value,
                           fst_error *err)
{
    fst_status s = fst_metric_head(out, name, type, help, err);
    return s ? s : fst_metric(out, name, NULL, NULL, value, err);
}

fst_status fst__metric_which(fst_buf *out, const char *name, const char *help, const char *label,
                             const char *const *names, size_t count, const char *is, fst_error *err)
{
    fst_status st = fst_metric_head(out, name, "gauge", help, err);
    for (size_t i = 0; !st && i < count; i++)
        st = fst_metric(out, name, label, names[i], !strcmp(names[i], is), err);
    return st;
}

fst_status fst__metric_info(fst_buf *out, const char *tier, const char *id, fst_error *err)
{
    fst_status st = fst_metric_head(out, "fedstill_info", "gauge", "Who this is: its tier and its id.", err);
    return st ? st : fst_metric2(out, "fedstill_info", "tier", tier, "id", id, 1, err);
}

static const char *const tiers[FST__TIERS] = {"edge", "cloud"};

static fst_status write_latency(fst_buf *out, const struct answered *a, int tier, fst_error *err)
{
    static const char name[] = "fedstill_latency_seconds_bucket";
    uint64_t below = 0;
    char bound[32];
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < FST__LATENCY_BUCKETS; i++) {
        below += a->in[tier][i];
        snprintf(bound, sizeof bound, "%g", fst__latency_bucket[i]);
        st = fst_metric2(out, name, "tier", tiers[tier], "le", bound, (double)below, err);
    }
    if (!st)
        st = fst_metric2(out, name, "tier", tiers[tier], "le", "+Inf", (double)a->windows[tier], err);
    if (!st)
        st = fst_metric(out, "fedstill_latency_seconds_sum", "tier", tiers[tier], a->seconds[tier], err);
    return st ? st
              : fst_metric(out, "fedstill_latency_seconds_count", "tier", tiers[tier], (double)a->windows[tier], err);
}

fst_status fst__metric_answered(fst_buf *out, const struct answered *a, fst_error *err)
{
    const struct {
        const char *name, *type, *help;
        double value;
    } all[] = {{"fedstill_windows_received_total", "counter", "Windows that were taken in here.", (double)a->received},
               {"fedstill_windows_decided_total", "counter",
                "Windows that edges have judged; at the cloud, as their beats say.", (double)a->decided},
               {"fedstill_windows_offloaded_total", "counter", "Windows of these that the cloud is to answer.",
                (double)a->passed},
               {"fedstill_offload_ratio", "gauge", "The share of these; NaN before any.", fst__offload_ratio(a)},
               {"fedstill_windows_waiting", "gauge", "Windows that wait here to be computed.", a->waiting},
               {"fedstill_batches_total", "counter", "Batches of windows that were computed here.", (double)a->batches},
               {"fedstill_compute_seconds_total", "counter", "Seconds that computing them took.", a->computed}};
    fst_status st = fst_metric_head(out, "fedstill_windows_total", "counter",
                                    "Windows that were answered since this process began, by whose answer it is.", err);
    for (int t = 0; !st && t < FST__TIERS; t++)
        st = fst_metric(out, "fedstill_windows_total", "tier", tiers[t], (double)a->windows[t], err);
    for (size_t i = 0; !st && i < sizeof all / sizeof *all; i++)
        st = fst__metric_one(out, all[i].name, all[i].type, all[i].help, all[i].value, err);
    if (!st)
        st = fst_metric_head(out, "fedstill_latency_seconds", "histogram",
                             "From a window's arrival here to its answer, by whose answer it is.", err);
    for (int t = 0; !st && t < FST__TIERS; t++)
        st = write_latency(out, a, t, err);
    return st;
}

fst_status fst__metric_bytes(fst_buf *out, const char *kind, double up, double down, fst_error *err)
{
    fst_status st = fst_metric2(out, "fedstill_bytes_total", "dir", "up", "kind", kind, up, err);
    return st ? st : fst_metric2(out, "fedstill_bytes_total", "dir", "down", "kind", kind, down, err);
}

fst_status fst__metric_disk(fst_buf *out, const char *folder, fst_error *err)
{
    struct statvfs disk;
    return statvfs(folder, &disk)
               ? FST_OK
               : fst__metric_one(out, "fedstill_disk_free_bytes", "gauge", "Room where its files are.",
                                 (double)disk.f_bavail * (double)disk.f_frsize, err);
}

/* ---- beginning and end ------------------------------------------------------------------------------------------ */

fst_status fst__watch_open(struct watch **out, const struct watch_kind *kind, void *view, const fst_fleet_http *http,
                           const char *events, fst_error *err)
{
    const fst_dashboard_options o = {.address = http->address,
                                     .token_file = http->token_file,
                                     .events = events,
                                     .ctx = view,
                                     .state = kind->state,
                                     .metrics = kind->metrics,
                                     .event = kind->event};
    struct watch *w = fst_calloc(1, sizeof *w);
    if (!w) {
        kind->release(view);
        return fst_fail_memory(err, sizeof *w);
    }
    *w = (struct watch){.kind = kind, .view = view};
    fst_status s = fst_dashboard_open(&w->page, &o, err);
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
    w->kind->release(w->view);
    fst_free(w);
}

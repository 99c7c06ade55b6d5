/* The JSON report of a cascade, format fedstill-cascade-1 (docs/formats.md). Turns structs into text and judges
 * nothing. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/infer.h"

static json_t *text(const char *s)
{
    return s && *s ? json_string(s) : json_null();
}

static json_t *whole(size_t n)
{
    return json_integer((json_int_t)n);
}

static double share(size_t part, size_t n)
{
    return n ? (double)part / (double)n : NAN;
}

static void set(json_t *j, const char *key, json_t *value)
{
    json_object_set_new(j, key, value);
}

/* ---- accuracy --------------------------------------------------------------------------------------- */

static double cloud_accuracy(const fst_cascade_group *g)
{
    return g->cloud_known == g->samples ? share(g->cloud_right, g->samples) : NAN;
}

static json_t *group(const fst_cascade_report *r, const fst_cascade_group *g)
{
    const fst_cascade *c = r->cascade;
    bool edge = r->route != FST_REPORT_CLOUD_ONLY, cloud = r->route != FST_REPORT_EDGE_ONLY;
    json_t *j = json_object();
    set(j, "samples", whole(g->samples));
    set(j, "offloaded", whole(g->offloaded));
    set(j, "offload_ratio", fst_json_number(share(g->offloaded, g->samples)));
    set(j, "accuracy", fst_json_number(c->labelled ? share(g->right, g->samples) : NAN));
    set(j, "edge_accuracy", fst_json_number(c->labelled && edge ? share(g->edge_right, g->samples) : NAN));
    set(j, "cloud_accuracy", fst_json_number(c->labelled && cloud ? cloud_accuracy(g) : NAN));
    return j;
}

static json_t *groups_by_class(const fst_cascade_report *r)
{
    const fst_cascade *c = r->cascade;
    json_t *list = c->by_class ? json_array() : json_null();
    for (int i = 0; c->by_class && i < c->classes; i++) {
        json_t *g = group(r, &c->by_class[i]);
        set(g, "class", json_integer(i));
        set(g, "name", text(r->class_names ? r->class_names[i] : NULL));
        json_array_append_new(list, g);
    }
    return list;
}

static json_t *groups_by_device(const fst_cascade_report *r)
{
    const fst_cascade *c = r->cascade;
    json_t *list = json_array();
    for (size_t i = 0; i < c->devices; i++) {
        json_t *g = group(r, &c->by_device[i]);
        set(g, "device", whole(i));
        json_array_append_new(list, g);
    }
    return list;
}

static json_t *groups_by_snr(const fst_cascade_report *r)
{
    const fst_cascade *c = r->cascade;
    json_t *j, *list;
    if (!c->by_snr)
        return json_null();
    list = json_array();
    for (size_t i = 0; i < c->snr_bins; i++) {
        json_t *g = group(r, &c->by_snr[i]);
        set(g, "from", fst_json_number(c->snr_from[i]));
        set(g, "to", fst_json_number(c->snr_from[i] + c->snr_bin));
        json_array_append_new(list, g);
    }
    j = json_object();
    set(j, "unit", json_string("dB"));
    set(j, "unknown", whole(c->snr_unknown));
    set(j, "bins", list);
    return j;
}

static json_t *matrix(const int64_t *m, int classes)
{
    json_t *rows = m ? json_array() : json_null();
    for (int i = 0; m && i < classes; i++) {
        json_t *row = json_array();
        for (int k = 0; k < classes; k++)
            json_array_append_new(row, json_integer((json_int_t)m[(size_t)i * (size_t)classes + (size_t)k]));
        json_array_append_new(rows, row);
    }
    return rows;
}

static json_t *confusion(const fst_cascade_report *r)
{
    const fst_cascade *c = r->cascade;
    json_t *j = json_object();
    set(j, "edge", matrix(r->route == FST_REPORT_CLOUD_ONLY ? NULL : c->edge_confusion, c->classes));
    set(j, "cloud", matrix(r->route == FST_REPORT_EDGE_ONLY ? NULL : c->cloud_confusion, c->classes));
    set(j, "cascade", matrix(c->confusion, c->classes));
    return j;
}

static json_t *accuracy(const fst_cascade_report *r)
{
    const fst_cascade *c = r->cascade;
    bool both = r->route == FST_REPORT_CASCADE, known = both && c->all.cloud_known == c->all.samples;
    json_t *j = group(r, &c->all), *tiers = json_object();
    set(tiers, "edge", group(r, &c->at_edge));
    set(tiers, "cloud", group(r, &c->at_cloud));
    set(j, "agreement", fst_json_number(both ? share(c->agree_offloaded, c->all.offloaded) : NAN));
    set(j, "agreement_all", fst_json_number(known ? share(c->agree, c->all.samples) : NAN));
    set(j, "corrected", c->labelled && both ? whole(c->corrected) : json_null());
    set(j, "spoiled", c->labelled && both ? whole(c->spoiled) : json_null());
    set(j, "by_tier", tiers);
    set(j, "by_class", groups_by_class(r));
    set(j, "by_device", groups_by_device(r));
    set(j, "by_snr", groups_by_snr(r));
    set(j, "confusion", confusion(r));
    return j;
}

/* ---- confidence ---------------------------------------------------------------------------------------- */

static json_t *confidence(const fst_cascade_report *r)
{
    const fst_cascade *c = r->cascade;
    const fst_calibration *k = r->calibration;
    json_t *j = json_object(), *calibration = k ? json_object() : json_null();
    if (k) {
        set(calibration, "temperature", fst_json_number(k->temperature));
        set(calibration, "at_limit", json_boolean(k->at_limit));
        set(calibration, "nll_before", fst_json_number(k->nll_before));
        set(calibration, "nll_after", fst_json_number(k->nll_after));
        set(calibration, "ece_before", fst_json_number(k->ece_before));
        set(calibration, "ece_after", fst_json_number(k->ece_after));
        set(calibration, "samples", whole(k->samples));
    }
    set(j, "kind", json_string(fst_confidence_name(c->kind)));
    set(j, "temperature", fst_json_number(c->temperature));
    set(j, "ece_before", fst_json_number(c->ece_before));
    set(j, "ece_after", fst_json_number(c->ece_after));
    set(j, "auroc", fst_json_number(c->auroc));
    set(j, "calibration", calibration);
    return j;
}

static json_t *threshold(const fst_cascade_report *r)
{
    const fst_threshold *t = r->choice;
    json_t *j = json_object();
    if (r->route == FST_REPORT_CLOUD_ONLY) {
        json_decref(j);
        return json_null();
    }
    set(j, "value", fst_json_number(t ? t->value : r->cascade->threshold));
    set(j, "kind", json_string(fst_threshold_name(t ? t->kind : FST_THRESHOLD_FIXED)));
    set(j, "target", fst_json_number(t ? t->target : NAN));
    set(j, "reached", fst_json_number(t ? t->reached : NAN));
    set(j, "met", t && t->kind != FST_THRESHOLD_FIXED ? json_boolean(t->met) : json_null());
    set(j, "gap", fst_json_number(t && t->kind != FST_THRESHOLD_FIXED ? t->gap : NAN));
    set(j, "low_confidence", whole(r->route == FST_REPORT_EDGE_ONLY ? r->low_confidence : r->cascade->all.offloaded));
    return j;
}

static json_t *curve(const fst_cascade_report *r)
{
    const fst_cascade *c = r->cascade;
    json_t *list = json_array();
    for (size_t i = 0; r->route == FST_REPORT_CASCADE && i < c->points; i++) {
        json_t *j = json_object();
        set(j, "threshold", fst_json_number(c->curve[i].threshold));
        set(j, "offload_ratio", fst_json_number(c->curve[i].offload));
        set(j, "accuracy", fst_json_number(c->curve[i].accuracy));
        set(j, "seconds", fst_json_number(c->curve[i].seconds));
        json_array_append_new(list, j);
    }
    return list;
}

/* ---- time ------------------------------------------------------------------------------------------------ */

static json_t *use(const fst_use *u, bool link)
{
    json_t *j = json_object();
    set(j, link ? "messages" : "batches", json_integer((json_int_t)u->messages));
    if (link)
        set(j, "bytes", fst_json_number(u->bytes));
    set(j, "busy_seconds", fst_json_number(u->busy));
    set(j, "busiest_seconds", fst_json_number(u->busiest));
    return j;
}

static json_t *timing(const fst_timing *t)
{
    json_t *j = json_object(), *latency = json_object(), *links = json_object();
    set(j, "seconds", fst_json_number(t->seconds));
    set(j, "planning", fst_json_number(t->planning));
    set(j, "transfer", fst_json_number(t->transfer));
    set(j, "compute", fst_json_number(t->compute));
    set(latency, "mean", fst_json_number(t->mean * 1e3));
    set(latency, "p50", fst_json_number(t->p50 * 1e3));
    set(latency, "p95", fst_json_number(t->p95 * 1e3));
    set(latency, "p99", fst_json_number(t->p99 * 1e3));
    set(j, "latency_ms", latency);
    set(j, "answered", whole(t->answered));
    set(j, "bytes_per_sample", fst_json_number(t->bytes_per_sample));
    set(links, "device_edge", use(&t->device_edge, true));
    set(links, "edge_cloud", use(&t->edge_cloud, true));
    set(links, "device_cloud", use(&t->device_cloud, true));
    set(links, "answers", use(&t->answers, true));
    set(j, "links", links);
    set(j, "edge", use(&t->edge, false));
    set(j, "cloud", use(&t->cloud, false));
    return j;
}

static json_t *link_json(const fst_link *l)
{
    json_t *j = json_object();
    set(j, "rate", fst_json_number(l->rate));
    set(j, "latency", fst_json_number(l->latency));
    set(j, "shared", json_boolean(l->shared));
    return j;
}

static json_t *network(const fst_network *f, const fst_workload *w)
{
    json_t *j = json_object(), *links = json_object();
    if (w) {
        set(j, "batch", whole(w->batch));
        set(j, "interval", fst_json_number(w->interval));
        set(j, "sample_bytes", fst_json_number(w->sample_bytes));
        set(j, "answer_bytes", fst_json_number(w->answer_bytes));
    }
    set(j, "devices", whole(f->devices));
    set(j, "edges", whole(f->edges));
    set(links, "device_edge", link_json(&f->device_edge));
    set(links, "edge_cloud", link_json(&f->edge_cloud));
    set(links, "device_cloud", link_json(&f->device_cloud));
    set(j, "links", links);
    return j;
}

/* The field trial's figures: the staged time of every run, and their mean. */
static json_t *trial(const fst_cascade_report *r, bool cloud)
{
    if (r->route == (cloud ? FST_REPORT_EDGE_ONLY : FST_REPORT_CLOUD_ONLY))
        return json_null();
    json_t *j = json_object(), *runs = json_array();
    double sum[4] = {0};
    for (size_t i = 0; i < r->runs; i++) {
        const fst_timing *t = cloud ? &r->times[i].cloud_staged : &r->times[i].cascade_staged;
        json_array_append_new(runs, fst_json_number(t->seconds));
        sum[0] += t->seconds;
        sum[1] += t->planning;
        sum[2] += t->transfer;
        sum[3] += t->compute;
    }
    set(j, "seconds", fst_json_number(sum[0] / (double)r->runs));
    set(j, "planning", fst_json_number(sum[1] / (double)r->runs));
    set(j, "transfer", fst_json_number(sum[2] / (double)r->runs));
    set(j, "compute", fst_json_number(sum[3] / (double)r->runs));
    set(j, "runs", runs);
    return j;
}

/* Mean over the runs; NaN of a way that the report is not about. */
static double mean(const fst_cascade_report *r, bool cloud, bool staged)
{
    double sum = 0;
    for (size_t i = 0; i < r->runs; i++) {
        const fst_cascade_times *t = &r->times[i];
        sum += cloud ? (staged ? t->cloud_staged.seconds : t->cloud.seconds)
                     : (staged ? t->cascade_staged.seconds : t->cascade.seconds);
    }
    return r->runs && r->route != (cloud ? FST_REPORT_EDGE_ONLY : FST_REPORT_CLOUD_ONLY) ? sum / (double)r->runs : NAN;
}

/* T2/T1; NaN where the cloud was asked nothing: the times would compare two models, not a cascade with one. */
static double ratio(const fst_cascade_report *r, bool staged)
{
    double t1 = mean(r, false, staged), t2 = mean(r, true, staged);
    return r->cascade->all.offloaded && t1 > 0 ? t2 / t1 : NAN;
}

static json_t *times(const fst_cascade_report *r)
{
    if (!r->network || !r->runs)
        return json_null();
    json_t *j = json_object(), *pipeline = json_object(), *cascades = json_array(), *clouds = json_array();
    set(j, "t1", trial(r, false));
    set(j, "t2", trial(r, true));
    set(j, "ratio", fst_json_number(ratio(r, true)));
    for (size_t i = 0; i < r->runs; i++) {
        if (r->route != FST_REPORT_CLOUD_ONLY)
            json_array_append_new(cascades, timing(&r->times[i].cascade));
        if (r->route != FST_REPORT_EDGE_ONLY)
            json_array_append_new(clouds, timing(&r->times[i].cloud));
    }
    set(pipeline, "t1", fst_json_number(mean(r, false, false)));
    set(pipeline, "t2", fst_json_number(mean(r, true, false)));
    set(pipeline, "ratio", fst_json_number(ratio(r, false)));
    set(pipeline, "cascade", cascades);
    set(pipeline, "cloud_only", clouds);
    set(j, "pipeline", pipeline);
    set(j, "network", network(r->network, r->workload));
    return j;
}

static json_t *measured(const fst_measured *m, size_t runs)
{
    if (!runs)
        return json_null();
    json_t *j = json_object(), *list = json_array(), *latency = json_object();
    for (size_t i = 0; i < runs; i++) {
        json_t *run = json_object(), *batches = json_array();
        for (size_t k = 0; k < m[i].cost.points; k++) {
            json_t *p = json_object();
            set(p, "rows", whole(m[i].cost.rows[k]));
            set(p, "seconds", fst_json_number(m[i].cost.seconds[k]));
            json_array_append_new(batches, p);
        }
        set(run, "planning", fst_json_number(m[i].planning));
        set(run, "batches", batches);
        json_array_append_new(list, run);
    }
    set(latency, "p50", fst_json_number(m->p50 * 1e3));
    set(latency, "p95", fst_json_number(m->p95 * 1e3));
    set(latency, "p99", fst_json_number(m->p99 * 1e3));
    set(latency, "samples", whole(m->singles));
    set(j, "runs", list);
    set(j, "latency_ms", latency);
    set(j, "peak_bytes", fst_json_number(m[runs - 1].peak_bytes));
    return j;
}

static json_t *fleet(const fst_cascade_fleet *f)
{
    json_t *j = json_object(), *ms = json_object();
    set(ms, "mean", fst_json_number(f->mean * 1e3));
    set(ms, "p50", fst_json_number(f->p50 * 1e3));
    set(ms, "p95", fst_json_number(f->p95 * 1e3));
    set(ms, "p99", fst_json_number(f->p99 * 1e3));
    set(ms, "transfer", fst_json_number(f->transfer * 1e3));
    set(ms, "queue", fst_json_number(f->queue * 1e3));
    set(ms, "compute", fst_json_number(f->compute * 1e3));
    set(j, "devices", whole(f->devices));
    set(j, "windows", whole(f->windows));
    set(j, "unsure", whole(f->unsure));
    set(j, "differ", whole(f->differ));
    set(j, "asked_again", whole((size_t)f->asked_again));
    set(j, "seconds", fst_json_number(f->seconds));
    set(j, "latency_ms", ms);
    return j;
}

/* ---- the whole ----------------------------------------------------------------------------------------------- */

static json_t *model(const char *name, const char *digest, const fst_measured *m, size_t runs)
{
    json_t *j = json_object();
    set(j, "model", text(name));
    set(j, "digest", text(digest));
    set(j, "measured", measured(m, runs));
    return j;
}

/* What people ask first, once more and in one place. */
static json_t *summary(const fst_cascade_report *r)
{
    const fst_cascade *c = r->cascade;
    json_t *j = group(r, &c->all);
    double threshold = r->choice ? r->choice->value : c->threshold;
    set(j, "threshold",
        fst_json_number(r->route == FST_REPORT_CLOUD_ONLY ? NAN : threshold)); /* nobody was asked first */
    set(j, "temperature", fst_json_number(c->temperature));
    set(j, "t1", fst_json_number(mean(r, false, true)));
    set(j, "t2", fst_json_number(mean(r, true, true)));
    set(j, "ratio", fst_json_number(ratio(r, true)));
    set(j, "corrected", c->labelled && r->route == FST_REPORT_CASCADE ? whole(c->corrected) : json_null());
    set(j, "spoiled", c->labelled && r->route == FST_REPORT_CASCADE ? whole(c->spoiled) : json_null());
    set(j, "edge_latency_p99_ms", fst_json_number(r->edge_runs ? r->edge_measured->p99 * 1e3 : NAN));
    return j;
}

static const char *const routes[] = {"cascade", "edge_only", "cloud_only"};

fst_status fst_cascade_report_json(const fst_cascade_report *r, fst_buf *out, fst_error *err)
{
    json_t *j = json_object();
    set(j, "format", json_string("fedstill-cascade-1"));
    set(j, "route", json_string(routes[r->route]));
    set(j, "task", text(r->task));
    set(j, "data_digest", text(r->data_digest));
    set(j, "summary", summary(r));
    set(j, "edge", model(r->edge_model, r->edge_digest, r->edge_measured, r->edge_runs));
    set(j, "cloud", model(r->cloud_model, r->cloud_digest, r->cloud_measured, r->cloud_runs));
    set(j, "threshold", threshold(r));
    set(j, "confidence", confidence(r));
    set(j, "accuracy", accuracy(r));
    set(j, "time", times(r));
    if (r->fleet)
        set(j, "fleet", fleet(r->fleet));
    set(j, "curve", curve(r));
    char *s = j ? json_dumps(j, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    fst_status st = s ? fst_buf_append(out, s, strlen(s), err) : fst_fail_memory(err, 1 << 16);
    if (!st)
        st = fst_buf_append(out, "\n", 1, err);
    free(s);
    json_decref(j);
    return st;
}

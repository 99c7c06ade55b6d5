/* The section on the cascade: what the edge asks of the cloud, what that brings, and how long it takes. From the
 * reports of edge_infer, cloud_infer and cloud_direct_infer (fedstill-cascade-1). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "html.h"

enum { MAX_CURVE = 5000, MAX_DEVICES = 200 };

static json_t *at(json_t *j, const char *a, const char *b)
{
    return json_object_get(json_object_get(j, a), b);
}

static void percent(fst__page *p, const char *name, double x)
{
    char text[FST_HUMAN];
    fst__fact_number(p, name, x, fst_human_percent(x, text));
}

static void plain(fst__page *p, const char *name, double x, const char *format_unit)
{
    char text[64];
    snprintf(text, sizeof text, "%.4g%s", x, format_unit);
    fst__fact_number(p, name, x, text);
}

static void count(fst__page *p, const char *name, double x)
{
    char text[64];
    snprintf(text, sizeof text, "%.0f", x);
    fst__fact_number(p, name, x, fabs(x) < 1e15 ? text : "many");
}

static void seconds(fst__page *p, const char *name, double x)
{
    char text[FST_HUMAN];
    fst__fact_number(p, name, x, fst_human_seconds(x, text));
}

/* ---- answers ------------------------------------------------------------------------------------------- */

static void answers(fst__page *p, json_t *j)
{
    json_t *a = json_object_get(j, "accuracy");
    fst__subtitle(p, "Answers");
    fst__facts_begin(p);
    count(p, "samples", fst__json_number(a, "samples"));
    percent(p, "sent to the cloud", fst__json_number(a, "offload_ratio"));
    percent(p, "accuracy of both together", fst__json_number(a, "accuracy"));
    percent(p, "accuracy of the edge alone", fst__json_number(a, "edge_accuracy"));
    percent(p, "accuracy of the cloud alone", fst__json_number(a, "cloud_accuracy"));
    percent(p, "edge and cloud agree, of what was sent", fst__json_number(a, "agreement"));
    percent(p, "edge and cloud agree, of all", fst__json_number(a, "agreement_all"));
    count(p, "mistakes that the cloud corrected", fst__json_number(a, "corrected"));
    count(p, "right answers that the cloud got wrong", fst__json_number(a, "spoiled"));
    fst__facts_end(p);
}

static void sureness(fst__page *p, json_t *j)
{
    json_t *c = json_object_get(j, "confidence"), *t = json_object_get(j, "threshold");
    fst__subtitle(p, "Confidence and threshold");
    fst__facts_begin(p);
    fst__fact(p, "measure of confidence", fst__json_text(c, "kind"));
    plain(p, "temperature", fst__json_number(c, "temperature"), "");
    plain(p, "calibration error (ECE) before", fst__json_number(c, "ece_before"), "");
    plain(p, "calibration error (ECE) after", fst__json_number(c, "ece_after"), "");
    plain(p, "AUROC of right against wrong", fst__json_number(c, "auroc"), "");
    plain(p, "threshold", fst__json_number(t, "value"), "");
    fst__fact(p, "chosen by", fst__json_text(t, "kind"));
    plain(p, "target", fst__json_number(t, "target"), "");
    plain(p, "reached", fst__json_number(t, "reached"), "");
    if (json_is_boolean(json_object_get(t, "met")))
        fst__fact(p, "target met", json_is_true(json_object_get(t, "met")) ? "yes" : "no");
    fst__facts_end(p);
}

static double *curve_column(fst__page *p, json_t *curve, size_t n, const char *key)
{
    double *v = fst_alloc((n + 1) * sizeof *v);
    if (!v && !p->status)
        p->status = fst_fail_memory(p->err, (n + 1) * sizeof *v);
    for (size_t i = 0; v && i < n; i++)
        v[i] = fst__json_number(json_array_get(curve, i), key);
    return v;
}

static void sweep(fst__page *p, json_t *j)
{
    json_t *curve = json_object_get(j, "curve"), *a = json_object_get(j, "accuracy");
    size_t n = json_array_size(curve);
    n = n < MAX_CURVE ? n : MAX_CURVE;
    if (!n)
        return;
    double *x = curve_column(p, curve, n, "offload_ratio"), *y = curve_column(p, curve, n, "accuracy"),
           *s = curve_column(p, curve, n, "seconds");
    if (x && y && s) {
        const fst__series accuracy = {"edge and cloud together", x, y, n, NULL, NULL},
                          time = {"edge and cloud together", x, s, n, NULL, NULL};
        fst__chart c = {.title = "Accuracy against what is sent to the cloud",
                        .x_title = "sent to the cloud",
                        .series = &accuracy,
                        .count = 1,
                        .percent = true,
                        .x_percent = true,
                        .mark_x = fst__json_number(a, "offload_ratio"),
                        .mark_y = fst__json_number(a, "accuracy"),
                        .mark = "as it ran"};
        fst__put(p, "<div class=\"charts\">\n");
        fst__line_chart(p, &c);
        c.title = "Seconds against what is sent to the cloud";
        c.series = &time;
        c.percent = false;
        c.mark = NULL;
        fst__line_chart(p, &c);
        fst__put(p, "</div>\n");
    }
    fst_free(x);
    fst_free(y);
    fst_free(s);
}

/* ---- time -------------------------------------------------------------------------------------------------- */

static void trial_bars(fst__page *p, json_t *time)
{
    static const char *const parts[] = {"planning", "transfer", "compute"};
    static const char *const keys[] = {"t1", "t2"}, *const names[] = {"T1: device, edge, cloud", "T2: device, cloud"};
    fst__bar_row rows[2];
    char label[2][FST_HUMAN];
    size_t n = 0;
    for (size_t i = 0; i < 2; i++) {
        json_t *t = json_object_get(time, keys[i]);
        double all = fst__json_number(t, "seconds");
        if (!isfinite(all))
            continue;
        rows[n] = (fst__bar_row){.name = names[i], .label = fst_human_seconds(all, label[i])};
        for (size_t k = 0; k < 3; k++)
            rows[n].part[k] = fst__json_number(t, parts[k]);
        n++;
    }
    fst__bar_chart(p, "Time of all samples, one leg of the way after the other", parts, 3, rows, n);
}

/* Of the first run. */
static json_t *first(json_t *time, const char *way)
{
    return json_array_get(at(time, "pipeline", way), 0);
}

static void link_bars(fst__page *p, json_t *time)
{
    static const char *const ways[] = {"cascade", "cloud_only"};
    static const char *const links[] = {"device_edge", "edge_cloud", "device_cloud", "answers"};
    static const char *const legend[] = {"device to edge", "edge to cloud", "device to cloud", "answers back"};
    static const char *const names[] = {"edge and cloud", "cloud alone"};
    fst__bar_row rows[2];
    char label[2][FST_HUMAN];
    size_t n = 0;
    for (size_t i = 0; i < 2; i++) {
        json_t *j = json_object_get(first(time, ways[i]), "links");
        double all = 0;
        if (!j)
            continue;
        rows[n] = (fst__bar_row){.name = names[i]};
        for (size_t k = 0; k < 4; k++) {
            rows[n].part[k] = fst__json_number(json_object_get(j, links[k]), "bytes");
            all += isfinite(rows[n].part[k]) ? rows[n].part[k] : 0;
        }
        rows[n++].label = fst_human_bytes(all, label[i]);
    }
    fst__bar_chart(p, "Bytes by link", legend, 4, rows, n);
}

static void latency_row(fst__page *p, const char *name, json_t *l)
{
    if (!isfinite(fst__json_number(l, "mean")) && !isfinite(fst__json_number(l, "p50")))
        return;
    fst__row_begin(p);
    fst__cell_head(p, name);
    fst__cell_plain(p, fst__json_number(l, "mean"));
    fst__cell_plain(p, fst__json_number(l, "p50"));
    fst__cell_plain(p, fst__json_number(l, "p95"));
    fst__cell_plain(p, fst__json_number(l, "p99"));
    fst__row_end(p);
}

static void latencies(fst__page *p, json_t *j)
{
    static const char *const columns[] = {"of", "#mean", "#half (p50)", "#p95", "#p99", NULL};
    json_t *time = json_object_get(j, "time");
    json_t *l[] = {json_object_get(first(time, "cascade"), "latency_ms"),
                   json_object_get(first(time, "cloud_only"), "latency_ms"),
                   json_object_get(at(j, "edge", "measured"), "latency_ms"),
                   json_object_get(at(j, "cloud", "measured"), "latency_ms")};
    if (!l[0] && !l[1] && !l[2] && !l[3])
        return;
    fst__table_begin(p, "latency", "Latency of a sample in milliseconds", columns);
    latency_row(p, "edge and cloud, as a pipeline", l[0]);
    latency_row(p, "cloud alone, as a pipeline", l[1]);
    latency_row(p, "the edge's model, one sample, one thread", l[2]);
    latency_row(p, "the cloud's model, one sample, one thread", l[3]);
    fst__table_end(p);
}

static void times(fst__page *p, json_t *j)
{
    json_t *time = json_object_get(j, "time"), *pipeline = json_object_get(time, "pipeline");
    if (!json_is_object(time)) {
        latencies(p, j);
        return;
    }
    fst__subtitle(p, "Time and bytes");
    fst__facts_begin(p);
    seconds(p, "T1, edge and cloud", fst__json_number(json_object_get(time, "t1"), "seconds"));
    seconds(p, "T2, cloud alone", fst__json_number(json_object_get(time, "t2"), "seconds"));
    plain(p, "T2 / T1", fst__json_number(time, "ratio"), "");
    seconds(p, "as a pipeline: edge and cloud", fst__json_number(pipeline, "t1"));
    seconds(p, "as a pipeline: cloud alone", fst__json_number(pipeline, "t2"));
    plain(p, "as a pipeline: T2 / T1", fst__json_number(pipeline, "ratio"), "");
    fst__facts_end(p);
    fst__put(p, "<div class=\"charts\">\n");
    trial_bars(p, time);
    link_bars(p, time);
    fst__put(p, "</div>\n");
    latencies(p, j);
}

/* ---- devices, the whole ------------------------------------------------------------------------------------- */

static void devices(fst__page *p, json_t *j)
{
    static const char *const columns[] = {"device", "#samples", "#sent to the cloud", "#accuracy", NULL};
    json_t *list = at(j, "accuracy", "by_device"), *d;
    char name[32];
    size_t i;
    if (json_array_size(list) < 2)
        return;
    fst__table_begin(p, "devices",
                     json_array_size(list) > MAX_DEVICES ? "Devices (the first 200; the CSV file has all)" : "Devices",
                     columns);
    json_array_foreach(list, i, d)
    {
        p->only_csv = i >= MAX_DEVICES;
        snprintf(name, sizeof name, "device %zu", i + 1);
        fst__row_begin(p);
        fst__cell_head(p, name);
        fst__cell_count(p, fst__json_number(d, "samples"));
        fst__cell_percent(p, fst__json_number(d, "offload_ratio"));
        fst__cell_percent(p, fst__json_number(d, "accuracy"));
        fst__row_end(p);
    }
    p->only_csv = false;
    fst__table_end(p);
}

static const char *const titles[] = {
    [PIECE_EDGE] = "Edge alone", [PIECE_CLOUD] = "Edge and cloud", [PIECE_DIRECT] = "Cloud alone"};

/* edge_infer's answers are part of cloud_infer's report, and so are the cloud's where it compared them. */
static bool is_told(const struct fst__html *h, int i)
{
    json_t *both = h->piece[PIECE_CLOUD].json;
    return (i == PIECE_EDGE && both) ||
           (i == PIECE_DIRECT && isfinite(fst__json_number(json_object_get(both, "accuracy"), "cloud_accuracy")));
}

void fst__html_cascade(const struct fst__html *h, fst__page *p)
{
    static const int order[] = {PIECE_CLOUD, PIECE_EDGE, PIECE_DIRECT};
    bool begun = false;
    for (size_t k = 0; k < 3; k++) {
        const struct fst__piece *f = &h->piece[order[k]];
        if (!f->there || (f->json && is_told(h, order[k])))
            continue;
        if (!begun)
            fst__section(p, "cascade", "Cascade");
        begun = true;
        if (!f->json) {
            fst__missing(p, "A report cannot be used:", f->why);
            continue;
        }
        if (k)
            fst__subtitle(p, titles[order[k]]);
        if (!json_is_object(json_object_get(f->json, "accuracy")))
            fst__missing(p, f->path, "says nothing of accuracy.");
        answers(p, f->json);
        sureness(p, f->json);
        sweep(p, f->json);
        times(p, f->json);
        devices(p, f->json);
    }
}

/* Sections on who is right where: by class, by SNR, confusion, and what the most confused classes look like. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "html.h"
#include "sample.h"

enum { COLUMNS = 12, MAX_ROWS = 200, PAIRS = 3, MAX_MATRICES = 12, SNR_POINTS = 1000 };

/* ---- what there is of it ------------------------------------------------------------------------------ */

/* A confusion matrix, of a model that was tried or of a report. */
struct matrix {
    char title[160];
    char name[64];    /* of its CSV file */
    const char *step; /* whose mistakes; the name that example is asked with */
    size_t n;
    const int64_t *v;
    int64_t *own; /* v, when it is this file's */
};

static const struct {
    enum piece piece;
    const char *key;
} sources[] = {{PIECE_CLOUD, "edge"},
               {PIECE_CLOUD, "cloud"},
               {PIECE_CLOUD, "cascade"},
               {PIECE_EDGE, "edge"},
               {PIECE_DIRECT, "cloud"}};

/* cloud_infer's report knows what those of the edge and the cloud alone know; these count where it is missing. */
static bool stands_in(const struct fst__html *h, size_t i)
{
    if (sources[i].piece == PIECE_CLOUD || !h->piece[PIECE_CLOUD].json)
        return true;
    json_t *all = json_object_get(json_object_get(h->piece[PIECE_CLOUD].json, "accuracy"), "confusion");
    return !json_array_size(json_object_get(all, sources[i].key));
}

/* A model that was tried and is a role of the cascade too has one matrix, under both names. */
static size_t gather(const struct fst__html *h, struct matrix out[MAX_MATRICES])
{
    size_t count = 0;
    for (size_t i = 0; i < sizeof sources / sizeof *sources; i++) {
        struct matrix *m = &out[count];
        json_t *all = json_object_get(json_object_get(h->piece[sources[i].piece].json, "accuracy"), "confusion");
        m->own = stands_in(h, i) ? fst__json_matrix(json_object_get(all, sources[i].key), &m->n) : NULL;
        if (!m->own)
            continue;
        char title[FST__MODEL_TITLE];
        const char *key = sources[i].key, *step = strcmp(key, "cascade") ? fst__role_step(h, key) : NULL;
        m->v = m->own;
        m->step = step ? step : "";
        snprintf(m->name, sizeof m->name, "confusion-%s", key);
        if (strcmp(key, "cascade"))
            snprintf(m->title, sizeof m->title, "Answers of the %s", fst__role_title(h, key, title));
        else
            snprintf(m->title, sizeof m->title, "Answers of edge and cloud together");
        count++;
    }
    for (size_t i = 0; i < h->r->model_count && count < MAX_MATRICES && h->r->classes > 0; i++) {
        const fst_tried_model *t = &h->r->models[i];
        char title[FST__MODEL_TITLE];
        if (fst__tried_role(h, t))
            continue;
        struct matrix *m = &out[count++];
        *m = (struct matrix){.step = t->step, .n = (size_t)h->r->classes, .v = t->confusion};
        snprintf(m->name, sizeof m->name, "confusion-%.40s", t->step);
        snprintf(m->title, sizeof m->title, "Answers of the %s", fst__model_title(h, t->step, title));
    }
    return count;
}

static void release(struct matrix *m, size_t n)
{
    for (size_t i = 0; i < n; i++)
        fst_free(m[i].own);
}

/* Names of n classes, from the caller or a report; texts live as long as h. NULL when they are not known. */
static const char **class_names(const struct fst__html *h, size_t n, fst__page *p)
{
    json_t *list = NULL;
    bool own = h->r->class_names && (size_t)h->r->classes == n;
    for (int i = PIECE_EDGE; !own && !list && i <= PIECE_DIRECT; i++) {
        json_t *l = json_object_get(json_object_get(h->piece[i].json, "accuracy"), "by_class");
        list = n && json_array_size(l) == n ? l : NULL;
    }
    const char **names = own || list ? fst_alloc(n * sizeof *names) : NULL;
    if ((own || list) && !names && !p->status)
        p->status = fst_fail_memory(p->err, n * sizeof *names);
    for (size_t i = 0; names && i < n; i++) {
        names[i] = own ? h->r->class_names[i] : fst__json_text(json_array_get(list, i), "name");
        if (!names[i]) {
            fst_free(names);
            return NULL;
        }
    }
    return names;
}

/* ---- by class -------------------------------------------------------------------------------------------- */

static const struct {
    enum piece piece;
    const char *key, *title;
    const char *role; /* whose title comes first; NULL: title alone */
} by[] = {{PIECE_CLOUD, "edge_accuracy", "edge", "edge"},   {PIECE_CLOUD, "cloud_accuracy", "cloud", "cloud"},
          {PIECE_CLOUD, "accuracy", "both together", NULL}, {PIECE_CLOUD, "offload_ratio", "sent to the cloud", NULL},
          {PIECE_EDGE, "edge_accuracy", "edge", "edge"},    {PIECE_DIRECT, "cloud_accuracy", "cloud", "cloud"}};

static const char *by_title(const struct fst__html *h, size_t k, char out[FST__MODEL_TITLE])
{
    if (by[k].role)
        return fst__role_title(h, by[k].role, out);
    snprintf(out, FST__MODEL_TITLE, "%s", by[k].title);
    return out;
}

static json_t *class_list(const struct fst__html *h, enum piece piece)
{
    return json_object_get(json_object_get(h->piece[piece].json, "accuracy"), "by_class");
}

static double recall(const fst_tried_model *m, size_t n, size_t i, double *samples)
{
    *samples = 0;
    for (size_t k = 0; k < n; k++)
        *samples += (double)m->confusion[i * n + k];
    return *samples > 0 ? (double)m->confusion[i * n + i] / *samples : NAN;
}

static void class_row(const struct fst__html *h, fst__page *p, size_t i, const char *name, const bool used[])
{
    char number[24];
    double samples = NAN;
    for (int k = PIECE_EDGE; k <= PIECE_DIRECT && !isfinite(samples); k++)
        samples = fst__json_number(json_array_get(class_list(h, k), i), "samples");
    for (size_t k = 0; k < h->r->model_count && !isfinite(samples) && i < (size_t)h->r->classes; k++)
        (void)recall(&h->r->models[k], (size_t)h->r->classes, i, &samples);
    snprintf(number, sizeof number, "%zu", i);
    fst__row_begin(p);
    fst__cell_head(p, name ? name : number);
    fst__cell_count(p, samples);
    for (size_t k = 0; k < sizeof by / sizeof *by; k++)
        if (used[k])
            fst__cell_percent(p, fst__json_number(json_array_get(class_list(h, by[k].piece), i), by[k].key));
    for (size_t k = 0; k < h->r->model_count && k < COLUMNS / 2; k++)
        if (!fst__tried_role(h, &h->r->models[k]))
            fst__cell_percent(
                p, i < (size_t)h->r->classes ? recall(&h->r->models[k], (size_t)h->r->classes, i, &(double){0}) : NAN);
    fst__row_end(p);
}

void fst__html_by_class(const struct fst__html *h, fst__page *p)
{
    const char *titles[COLUMNS + 6] = {"class", "#samples"};
    bool used[sizeof by / sizeof *by];
    char text[COLUMNS + 6][FST__MODEL_TITLE + 1], title[FST__MODEL_TITLE];
    size_t n = h->r->model_count && h->r->classes > 0 ? (size_t)h->r->classes : 0, columns = 2;
    for (size_t k = 0; k < sizeof by / sizeof *by; k++) {
        json_t *list = class_list(h, by[k].piece), *c;
        size_t i;
        used[k] = false;
        if (by[k].piece != PIECE_CLOUD && h->piece[PIECE_CLOUD].json)
            continue;
        json_array_foreach(list, i, c) used[k] = used[k] || isfinite(fst__json_number(c, by[k].key));
        n = json_array_size(list) > n ? json_array_size(list) : n;
        if (!used[k])
            continue;
        snprintf(text[columns], sizeof text[0], "#%s", by_title(h, k, title));
        titles[columns] = text[columns];
        columns++;
    }
    for (size_t k = 0; k < h->r->model_count && k < COLUMNS / 2; k++) {
        if (fst__tried_role(h, &h->r->models[k]))
            continue;
        snprintf(text[columns], sizeof text[0], "#%s", fst__model_title(h, h->r->models[k].step, title));
        titles[columns] = text[columns];
        columns++;
    }
    if (!n || columns == 2)
        return;
    fst__section(p, "classes", "Accuracy by class");
    const char **names = class_names(h, n, p);
    fst__table_begin(p, "classes", "Share of each class's test samples that are answered right", titles);
    for (size_t i = 0; i < n; i++) {
        p->only_csv = i >= MAX_ROWS;
        class_row(h, p, i, names ? names[i] : NULL, used);
    }
    p->only_csv = false;
    fst__table_end(p);
    if (n > MAX_ROWS)
        fst__missing(p, "Not shown:", "classes after the first 200; the CSV file has them.");
    fst_free(names);
}

/* ---- by SNR -------------------------------------------------------------------------------------------------- */

struct snr_chart {
    double x[COLUMNS][SNR_POINTS], y[COLUMNS][SNR_POINTS];
    fst__series series[COLUMNS];
    char name[COLUMNS][FST__MODEL_TITLE];
    size_t count;
};

static void add_point(struct snr_chart *c, double from, double to, double y)
{
    fst__series *s = &c->series[c->count];
    if (s->n == SNR_POINTS)
        return;
    c->x[c->count][s->n] = (from + to) / 2;
    c->y[c->count][s->n++] = y;
}

static void end_series(struct snr_chart *c, const char *name)
{
    fst__series *s = &c->series[c->count];
    bool any = false;
    for (size_t i = 0; i < s->n; i++)
        any = any || (isfinite(c->x[c->count][i]) && isfinite(c->y[c->count][i]));
    if (!any || c->count + 1 == COLUMNS) {
        s->n = 0;
        return;
    }
    snprintf(c->name[c->count], sizeof c->name[0], "%s", name);
    s->name = c->name[c->count];
    s->x = c->x[c->count];
    s->y = c->y[c->count];
    c->count++;
}

static void snr_of_reports(const struct fst__html *h, struct snr_chart *c)
{
    char title[FST__MODEL_TITLE];
    for (size_t k = 0; k < sizeof by / sizeof *by; k++) {
        json_t *bins = json_object_get(
                   json_object_get(json_object_get(h->piece[by[k].piece].json, "accuracy"), "by_snr"), "bins"),
               *b;
        size_t i;
        if (k == 3 || (by[k].piece != PIECE_CLOUD && h->piece[PIECE_CLOUD].json))
            continue;
        json_array_foreach(bins, i, b)
            add_point(c, fst__json_number(b, "from"), fst__json_number(b, "to"), fst__json_number(b, by[k].key));
        end_series(c, by_title(h, k, title));
    }
}

/* A model that is there under this title. */
static bool is_in(const struct snr_chart *c, const char *title)
{
    for (size_t k = 0; k < c->count; k++)
        if (!strcmp(c->name[k], title))
            return true;
    return false;
}

static void snr_of_stages(const struct fst__html *h, struct snr_chart *c)
{
    const char *step;
    char title[FST__MODEL_TITLE];
    json_t *j, *b;
    size_t i;
    json_object_foreach(json_object_get(h->piece[PIECE_SUMMARY].json, "stages"), step, j)
    {
        if (is_in(c, fst__model_title(h, step, title)))
            continue;
        json_array_foreach(json_object_get(j, "accuracy_by_snr"), i, b)
            add_point(c, fst__json_number(b, "from_db"), fst__json_number(b, "to_db"), fst__json_number(b, "accuracy"));
        end_series(c, title);
    }
    for (size_t k = 0; k < h->r->model_count; k++) {
        const fst_tried_model *m = &h->r->models[k];
        if (is_in(c, fst__model_title(h, m->step, title)))
            continue;
        bool known = json_array_size(json_object_get(fst__stage_json(h, m->step), "accuracy_by_snr")) > 0;
        for (i = 0; !known && i < m->snr_bins; i++)
            add_point(c, m->snr[i].from, m->snr[i].to,
                      m->snr[i].samples ? (double)m->snr[i].right / (double)m->snr[i].samples : NAN);
        end_series(c, title);
    }
}

/* A row for each SNR of the first series; the others' values where they have the same one. */
static void snr_table(const struct snr_chart *c, fst__page *p)
{
    const char *titles[COLUMNS + 2] = {"#SNR, dB"};
    char named[COLUMNS][FST__MODEL_TITLE + 1];
    for (size_t k = 0; k < c->count; k++) {
        snprintf(named[k], sizeof named[k], "#%s", c->name[k]);
        titles[k + 1] = named[k];
    }
    fst__put(p, "<details><summary>As a table</summary>\n");
    fst__table_begin(p, "snr", "Accuracy by SNR (middle of the bin)", titles);
    for (size_t i = 0; i < c->series[0].n && i < MAX_ROWS; i++) {
        fst__row_begin(p);
        fst__cell_plain(p, c->x[0][i]);
        for (size_t k = 0; k < c->count; k++) {
            size_t at = 0;
            while (at < c->series[k].n && c->x[k][at] != c->x[0][i])
                at++;
            fst__cell_percent(p, at < c->series[k].n ? c->y[k][at] : NAN);
        }
        fst__row_end(p);
    }
    fst__table_end(p);
    fst__put(p, "</details>\n");
}

void fst__html_by_snr(const struct fst__html *h, fst__page *p)
{
    struct snr_chart *c = fst_calloc(1, sizeof *c);
    if (!c) {
        p->status = p->status ? p->status : fst_fail_memory(p->err, sizeof *c);
        return;
    }
    snr_of_reports(h, c);
    snr_of_stages(h, c);
    if (c->count) {
        const fst__chart chart = {.title = "Accuracy by signal-to-noise ratio",
                                  .x_title = "SNR, dB",
                                  .series = c->series,
                                  .count = c->count,
                                  .percent = true};
        fst__section(p, "snr", "Accuracy by SNR");
        fst__line_chart(p, &chart);
        snr_table(c, p);
    }
    fst_free(c);
}

/* ---- confusion -------------------------------------------------------------------------------------------- */

void fst__html_confusion(const struct fst__html *h, fst__page *p)
{
    struct matrix m[MAX_MATRICES] = {0};
    size_t count = gather(h, m);
    if (count) {
        fst__section(p, "confusion", "Confusion");
        fst__say_in(p, "p",
                    "A row for each true class, a column for what was answered, shaded by its share of the row.");
        fst__putf(p, "<div class=\"%s\">\n", m[0].n <= 12 ? "charts" : "");
    }
    for (size_t i = 0; i < count; i++) {
        const char **names = class_names(h, m[i].n, p);
        fst__confusion(p, m[i].name, m[i].title, m[i].n, names, m[i].v);
        fst_free(names);
    }
    fst__put(p, count ? "</div>\n" : "");
    release(m, count);
}

struct pair {
    size_t truth, taken;
    int64_t n;
};

/* The largest counts off the diagonal, falling; of equal ones the first. */
static size_t worst(const struct matrix *m, struct pair out[PAIRS])
{
    size_t count = 0;
    for (size_t i = 0; i < m->n * m->n; i++) {
        struct pair p = {i / m->n, i % m->n, m->v[i]};
        size_t at = count;
        if (p.truth == p.taken || p.n <= 0)
            continue;
        while (at && out[at - 1].n < p.n)
            at--;
        if (at == PAIRS)
            continue;
        count += count < PAIRS;
        for (size_t k = count - 1; k > at; k--)
            out[k] = out[k - 1];
        out[at] = p;
    }
    return count;
}

static void place_picture(fst__page *p, const fst_sample *s, const char *caption)
{
    fst__image m = {0};
    char text[48];
    p->status = fst__sample_tile(s, &m, p->err);
    if (p->status)
        return;
    fst__putf(p, "<figure class=\"sample\"><img class=\"pixels%s\" alt=\"", fst__sample_is_image(s) ? "" : " wide");
    fst__say(p, caption);
    fst__put(p, "\" src=\"");
    if (!p->status)
        p->status = fst__image_address(&m, p->out, p->err);
    fst__put(p, "\"/><figcaption>");
    fst__say(p, caption);
    snprintf(text, sizeof text, ", %.1f dB", s->snr);
    fst__say(p, isfinite(s->snr) ? text : "");
    fst__put(p, "</figcaption></figure>\n");
    fst__image_release(&m);
}

/* A sample of `truth`; one that was not answered so is only shown when any will do. Whether there is one. */
static bool picture(const struct fst__html *h, fst__page *p, const char *step, size_t truth, size_t taken, bool any,
                    const char *name, const char *answered)
{
    fst_sample s = {.snr = NAN};
    bool there = false, exact = false;
    char caption[256];
    if (p->status)
        return false;
    p->status = h->r->example(h->r->ctx, step, (int)truth, (int)taken, &s, &there, &exact, p->err);
    if (p->status || !there || (!exact && !any))
        return false;
    snprintf(caption, sizeof caption, "%.90s, %s%.90s", name,
             !exact           ? "a sample"
             : truth == taken ? "answered right"
                              : "taken for ",
             truth == taken || !exact ? "" : answered);
    place_picture(p, &s, caption);
    return true;
}

static void show_pair(const struct fst__html *h, fst__page *p, const struct matrix *m, const struct pair *w,
                      const char *const *names)
{
    char a[96], b[96], text[256];
    snprintf(a, sizeof a, "%zu", w->truth);
    snprintf(b, sizeof b, "%zu", w->taken);
    if (names) {
        snprintf(a, sizeof a, "%.90s", names[w->truth]);
        snprintf(b, sizeof b, "%.90s", names[w->taken]);
    }
    snprintf(text, sizeof text, "%s taken for %s: %lld time%s", a, b, (long long)w->n, w->n > 1 ? "s" : "");
    fst__subtitle(p, text);
    fst__put(p, "<div class=\"samples\">\n");
    bool mistaken = picture(h, p, m->step, w->truth, w->taken, false, a, b);
    (void)picture(h, p, m->step, w->truth, w->truth, !mistaken, a, b);
    (void)picture(h, p, m->step, w->taken, w->taken, true, b, b);
    fst__put(p, "</div>\n");
}

/* Of one matrix: that of the federated student, else the last. */
void fst__html_pairs(const struct fst__html *h, fst__page *p)
{
    struct matrix m[MAX_MATRICES] = {0};
    struct pair pairs[PAIRS];
    if (!h->r->example)
        return;
    size_t count = gather(h, m), at = count;
    while (at && (m[at - 1].n != (size_t)h->r->classes || strcmp(m[at - 1].step, fst__last_of(h, "federated_train"))))
        at--;
    for (size_t i = count; !at && i; i--)
        at = m[i - 1].n == (size_t)h->r->classes ? i : 0;
    size_t found = at ? worst(&m[at - 1], pairs) : 0;
    if (found) {
        char text[160];
        const char **names = class_names(h, m[at - 1].n, p);
        fst__section(p, "pairs", "Most confused classes");
        snprintf(text, sizeof text, "%s. Signals are shown as spectrograms: time across, frequency up.",
                 m[at - 1].title);
        fst__say_in(p, "p", text);
        for (size_t i = 0; i < found; i++)
            show_pair(h, p, &m[at - 1], &pairs[i], names);
        fst_free(names);
    }
    release(m, count);
}

/* Sections on training: stages, curves, rounds. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "html.h"

static const struct {
    const char *kind, *title, *named; /* named: of a stage that has a name of its own */
} titles[] = {{"cloud_pretrain", "teacher", "on labels"},
              {"cloud_kd", "soft labels", "soft labels"},
              {"edge_alone", "student alone (hard labels)", "alone on labels"},
              {"edge_kd", "student distilled", "distilled"},
              {"federated_train", "student federated", "federated"},
              {"prune", "model pruned", "pruned"},
              {"quantise", "model in int8", "int8"},
              {"device_load", "devices' batches", "devices' batches"},
              {"edge_infer", "answers at the edge", "answers at the edge"},
              {"cloud_infer", "answers of edge and cloud", "answers of edge and cloud"},
              {"cloud_direct_infer", "answers of the cloud alone", "answers of the cloud alone"}};

const char *fst__step_kind(const struct fst__html *h, const char *step)
{
    const char *kind = fst__json_text(fst__stage_json(h, step), "kind");
    return kind ? kind : step;
}

const char *fst__last_of(const struct fst__html *h, const char *kind)
{
    const char *step, *last = kind;
    json_t *j;
    json_object_foreach(json_object_get(h->piece[PIECE_SUMMARY].json, "stages"), step, j)
    {
        if (!strcmp(fst__step_kind(h, step), kind))
            last = step;
    }
    return last;
}

const char *fst__step_title(const struct fst__html *h, const char *step, char out[FST__MODEL_TITLE])
{
    const char *kind = fst__step_kind(h, step), *title = kind;
    for (size_t i = 0; i < sizeof titles / sizeof *titles; i++)
        title = strcmp(titles[i].kind, kind) ? title : strcmp(kind, step) ? titles[i].named : titles[i].title;
    if (strcmp(kind, step))
        snprintf(out, FST__MODEL_TITLE, "%.40s (%.40s)", step, title);
    else
        snprintf(out, FST__MODEL_TITLE, "%.90s", title);
    return out;
}

json_t *fst__stage_json(const struct fst__html *h, const char *step)
{
    return json_object_get(json_object_get(h->piece[PIECE_SUMMARY].json, "stages"), step);
}

/* ---- stages -------------------------------------------------------------------------------------------- */

static const char *state_text(const struct fst__stage_history *s, char out[96])
{
    if (!s || !s->state[0])
        return "";
    if (s->resumed)
        snprintf(out, 96, "%s, resumed %d time%s", s->state, s->resumed, s->resumed > 1 ? "s" : "");
    else
        snprintf(out, 96, "%s", s->state);
    return out;
}

static void stage_row(const struct fst__html *h, fst__page *p, const char *step, json_t *j)
{
    char state[96], title[FST__MODEL_TITLE];
    fst__row_begin(p);
    fst__cell_head(p, fst__step_title(h, step, title));
    fst__cell_count(p, fst__json_number(j, "samples"));
    fst__cell_seconds(p, fst__json_number(j, "seconds"));
    fst__cell_bytes(p, fst__json_number(j, "bytes_up"));
    fst__cell_bytes(p, fst__json_number(j, "bytes_down"));
    fst__cell(p, state_text(fst__history_find(&h->history, step), state));
    fst__row_end(p);
}

/* name: of the table and its file. */
static void edges_table(fst__page *p, const char *name_of, const char *title, json_t *edges)
{
    static const char *const columns[] = {"edge",
                                          "#samples",
                                          "#validation",
                                          "#its own model",
                                          "#own model, own samples",
                                          "#global model, own samples",
                                          "classes that it lacks",
                                          NULL};
    size_t i;
    json_t *e;
    char name[32];
    if (!json_array_size(edges))
        return;
    fst__table_begin(p, name_of, title, columns);
    json_array_foreach(edges, i, e)
    {
        if (i == 1000)
            break;
        snprintf(name, sizeof name, "edge %zu", i + 1);
        fst__row_begin(p);
        fst__cell_head(p, name);
        fst__cell_count(p, fst__json_number(e, "samples"));
        fst__cell_count(p, fst__json_number(e, "validation"));
        if (isfinite(fst__json_number(e, "accuracy")))
            fst__cell_percent(p, fst__json_number(e, "accuracy"));
        else
            fst__cell(p, "did not take part");
        fst__cell_percent(p, fst__json_number(e, "own_accuracy"));
        fst__cell_percent(p, fst__json_number(e, "global_accuracy"));
        fst__cell(p, fst__json_text(e, "missing_classes"));
        fst__row_end(p);
    }
    fst__table_end(p);
}

void fst__html_stages(const struct fst__html *h, fst__page *p)
{
    static const char *const columns[] = {"stage", "#samples", "#time", "#sent up", "#sent down", "state", NULL};
    const struct fst__piece *f = &h->piece[PIECE_SUMMARY];
    json_t *stages = json_object_get(f->json, "stages"), *j;
    const char *step;
    size_t shown = 0;
    fst__section(p, "stages", "Stages");
    if (!f->there || f->why[0])
        fst__missing(p, f->there ? "summary.json cannot be used:" : "summary.json is missing:",
                     f->there ? f->why : "no stage has finished yet, or the folder is not a run's output.");
    if (f->json && !json_object_size(stages))
        fst__missing(p, "No stages:", "summary.json names none.");
    if (!json_object_size(stages))
        return;
    fst__table_begin(p, "stages", "Work of each stage; sent: from and to the edges", columns);
    json_object_foreach(stages, step, j) if (shown++ < FST__SHOWN_STAGES) stage_row(h, p, step, j);
    fst__table_end(p);
    json_object_foreach(stages, step, j)
    {
        static const char said[] = "Edges: accuracy of their last local model and of the global one";
        char name[64], title[200], of[FST__MODEL_TITLE];
        bool plain = !strcmp(fst__step_kind(h, step), step);
        snprintf(name, sizeof name, plain ? "edges" : "edges-%.40s", step);
        snprintf(title, sizeof title, plain ? "%s" : "%s, %.90s", said, fst__step_title(h, step, of));
        edges_table(p, name, title, json_object_get(j, "edges"));
    }
}

/* ---- curves ---------------------------------------------------------------------------------------------- */

/* Columns of a stage's points: number, loss, accuracy, other_loss, other_accuracy, then the rest. */
static double *column(const struct fst__stage_history *s, size_t offset, fst__page *p)
{
    double *v = fst_alloc((s->points + 1) * sizeof *v);
    if (!v && !p->status)
        p->status = fst_fail_memory(p->err, s->points * sizeof *v);
    for (size_t i = 0; v && i < s->points; i++)
        v[i] = *(const double *)((const char *)&s->point[i] + offset);
    return v;
}

struct curve {
    const char *name;
    size_t offset;
};

/* One chart of up to four columns. */
static void chart_of(fst__page *p, const struct fst__stage_history *s, const char *title, bool percent,
                     const struct curve *curve, size_t n)
{
    fst__series series[4];
    double *x = column(s, offsetof(struct fst__step_point, number), p), *y[4] = {0};
    size_t used = 0;
    for (size_t i = 0; x && i < n && (y[i] = column(s, curve[i].offset, p)); i++) {
        bool any = false;
        for (size_t k = 0; k < s->points; k++)
            any = any || isfinite(y[i][k]);
        if (any)
            series[used++] = (fst__series){curve[i].name, x, y[i], s->points, NULL, NULL};
    }
    const fst__chart c = {.title = title,
                          .x_title = s->rounds ? "round" : "epoch",
                          .series = series,
                          .count = used,
                          .percent = percent,
                          .whole = true};
    if (used && !p->status)
        fst__line_chart(p, &c);
    fst_free(x);
    for (size_t i = 0; i < n; i++)
        fst_free(y[i]);
}

#define OF(m) offsetof(struct fst__step_point, m)

static bool has(const struct fst__stage_history *s, size_t offset)
{
    for (size_t i = 0; i < s->points; i++)
        if (isfinite(*(const double *)((const char *)&s->point[i] + offset)))
            return true;
    return false;
}

/* ---- tables of points --------------------------------------------------------------------------------------- */

/* A column of a table: the double at an offset of each point, and how it is shown. */
struct column {
    const char *title;
    size_t at;
    void (*cell)(fst__page *p, double value);
};
enum { MAX_COLUMNS = 16 };

/* Folded up under `summary`. Of many rows the page has every step-th and the last; the CSV file has all. */
static void table_of(fst__page *p, const char *summary, const char *name, const char *title,
                     const struct column *columns, size_t n, const void *points, size_t count, size_t size, size_t step)
{
    const char *heads[MAX_COLUMNS + 1] = {NULL};
    for (size_t c = 0; c < n; c++)
        heads[c] = columns[c].title;
    fst__putf(p, "<details><summary>%s</summary>\n", summary);
    fst__table_begin(p, name, title, heads);
    for (size_t i = 0; i < count; i++) {
        const char *point = (const char *)points + i * size;
        p->only_csv = i % step && i + 1 < count;
        fst__row_begin(p);
        for (size_t c = 0; c < n; c++)
            columns[c].cell(p, *(const double *)(const void *)(point + columns[c].at));
        fst__row_end(p);
    }
    p->only_csv = false;
    fst__table_end(p);
    fst__put(p, "</details>\n");
}

static void epochs_table(fst__page *p, const struct fst__stage_history *s)
{
    static const struct column columns[] = {{"#epoch", OF(number), fst__cell_count},
                                            {"#training loss", OF(loss), fst__cell_plain},
                                            {"#training accuracy", OF(accuracy), fst__cell_percent},
                                            {"#validation loss", OF(other_loss), fst__cell_plain},
                                            {"#validation accuracy", OF(other_accuracy), fst__cell_percent},
                                            {"#learning rate", OF(rate), fst__cell_plain},
                                            {"#time so far", OF(seconds), fst__cell_seconds}};
    char name[96];
    snprintf(name, sizeof name, "epochs-%.60s", s->name);
    table_of(p, "All epochs as a table", name, "Epochs", columns, sizeof columns / sizeof *columns, s->point, s->points,
             sizeof *s->point, 1);
}

/* What the training loss is where events do not say it: those of older runs. */
static const char *loss_kind(const struct fst__stage_history *s)
{
    if (s->loss_kind[0])
        return s->loss_kind;
    return strcmp(s->name, "edge_kd") ? "cross entropy" : "cross entropy and distillation, weighted";
}

/* Losses of different kinds have a chart each, since their values cannot be compared. */
static void loss_charts(fst__page *p, const struct fst__stage_history *s)
{
    static const struct curve both[] = {{"training", OF(loss)}, {"validation", OF(other_loss)}};
    const char *kind = loss_kind(s);
    char title[320];
    if (!strcmp(kind, "cross entropy")) {
        chart_of(p, s, "Loss: cross entropy", false, both, 2);
        return;
    }
    snprintf(title, sizeof title, "Training loss: %s", kind);
    chart_of(p, s, title, false, both, 1);
    chart_of(p, s, "Validation loss: cross entropy", false, both + 1, 1);
}

static void stage_curves(const struct fst__html *h, fst__page *p, const struct fst__stage_history *s)
{
    static const struct curve accuracy[] = {{"training", OF(accuracy)}, {"validation", OF(other_accuracy)}};
    static const struct curve rate[] = {{"Learning rate", OF(rate)}};
    char title[FST__MODEL_TITLE];
    fst__subtitle(p, fst__step_title(h, s->name, title));
    fst__put(p, "<div class=\"charts\">\n");
    loss_charts(p, s);
    chart_of(p, s, has(s, OF(other_accuracy)) ? "Accuracy" : "Training accuracy", true, accuracy, 2);
    chart_of(p, s, "Learning rate", false, rate, 1);
    fst__put(p, "</div>\n");
    epochs_table(p, s);
}

static void events_note(const struct fst__html *h, fst__page *p)
{
    char text[96];
    const struct fst__piece *f = &h->piece[PIECE_EVENTS];
    if (f->there && f->why[0])
        fst__missing(p, "events.jsonl cannot be used:", f->why);
    if (h->history.skipped) {
        snprintf(text, sizeof text, "%zu of events.jsonl are no events.", h->history.skipped);
        fst__missing(p, "Lines left out:", text);
    }
}

void fst__html_curves(const struct fst__html *h, fst__page *p)
{
    bool begun = false;
    const struct fst__piece *f = &h->piece[PIECE_EVENTS];
    for (size_t i = 0; i < h->history.stages; i++) {
        const struct fst__stage_history *s = &h->history.stage[i];
        if (s->rounds || !s->points)
            continue;
        if (!begun)
            fst__section(p, "curves", "Training");
        if (!begun)
            events_note(h, p);
        begun = true;
        stage_curves(h, p, s);
    }
    if (!begun && ((f->there && f->why[0]) || h->history.skipped)) {
        fst__section(p, "curves", "Training");
        events_note(h, p);
    }
}

/* ---- rounds ------------------------------------------------------------------------------------------------ */

/* Did codecs make what was sent fewer bytes? Then the last two columns say how many there would have been. */
static bool is_coded(const struct fst__stage_history *s)
{
    bool is = false;
    for (size_t i = 0; i < s->points; i++)
        is |= s->point[i].raw_up > s->point[i].bytes_up || s->point[i].raw_down > s->point[i].bytes_down;
    return is;
}
enum { RAW_COLUMNS = 2 };

static void rounds_table(fst__page *p, const struct fst__stage_history *s)
{
    static const struct column columns[] = {{"#round", OF(number), fst__cell_count},
                                            {"#test accuracy", OF(other_accuracy), fst__cell_percent},
                                            {"#validation accuracy", OF(validation), fst__cell_percent},
                                            {"#test loss", OF(other_loss), fst__cell_plain},
                                            {"#training loss", OF(loss), fst__cell_plain},
                                            {"#asked", OF(selected), fst__cell_count},
                                            {"#reported", OF(reported), fst__cell_count},
                                            {"#lost", OF(lost), fst__cell_count},
                                            {"#sent up", OF(bytes_up), fst__cell_bytes},
                                            {"#sent down", OF(bytes_down), fst__cell_bytes},
                                            {"#update's norm", OF(norm), fst__cell_plain},
                                            {"#time", OF(seconds), fst__cell_seconds},
                                            {"#up without codecs", OF(raw_up), fst__cell_bytes},
                                            {"#down without codecs", OF(raw_down), fst__cell_bytes}};
    size_t step = s->points > 500 ? s->points / 250 : 1;
    table_of(p, "All rounds as a table", "rounds",
             step > 1 ? "Rounds (not all of them; the CSV file has all)" : "Rounds", columns,
             sizeof columns / sizeof *columns - (is_coded(s) ? 0 : RAW_COLUMNS), s->point, s->points, sizeof *s->point,
             step);
}

#define OF_CLIENT(m) offsetof(struct fst__client_point, m)
static void clients_table(fst__page *p, const struct fst__stage_history *s)
{
    static const struct column columns[] = {{"#client", OF_CLIENT(client), fst__cell_count},
                                            {"#reported", OF_CLIENT(reported), fst__cell_count},
                                            {"#samples", OF_CLIENT(samples), fst__cell_count},
                                            {"#training loss", OF_CLIENT(loss), fst__cell_plain},
                                            {"#training time", OF_CLIENT(seconds), fst__cell_seconds},
                                            {"#sent up", OF_CLIENT(bytes_up), fst__cell_bytes},
                                            {"#sent down", OF_CLIENT(bytes_down), fst__cell_bytes},
                                            {"#up without codecs", OF_CLIENT(raw_up), fst__cell_bytes},
                                            {"#down without codecs", OF_CLIENT(raw_down), fst__cell_bytes}};
    if (s->clients)
        table_of(p, "The clients of the last round as a table", "clients",
                 "Clients of the last round (reported: 1, lost: 0)", columns,
                 sizeof columns / sizeof *columns - (is_coded(s) ? 0 : RAW_COLUMNS), s->client, s->clients,
                 sizeof *s->client, 1);
}

static void rounds_facts(const struct fst__html *h, fst__page *p, const struct fst__stage_history *s)
{
    char text[FST_HUMAN];
    double up = 0, down = 0, raw = 0, selected = 0, reported = 0;
    json_t *j = fst__stage_json(h, s->name);
    for (size_t i = 0; i < s->points; i++) {
        const struct fst__step_point *t = &s->point[i];
        up += isfinite(t->bytes_up) ? t->bytes_up : 0;
        down += isfinite(t->bytes_down) ? t->bytes_down : 0;
        raw += t->raw_up + t->raw_down;
        selected += isfinite(t->selected) ? t->selected : 0;
        reported += isfinite(t->reported) ? t->reported : 0;
    }
    fst__facts_begin(p);
    snprintf(text, sizeof text, "%zu", s->points);
    fst__fact_number(p, "rounds", (double)s->points, text);
    snprintf(text, sizeof text, "%.0f", fst__json_number(j, "best_round"));
    fst__fact_number(p, "kept the model of round", fst__json_number(j, "best_round"), text);
    json_t *fusion = json_object_get(j, "fusion");
    fst__fact(p, "fused with a larger model; learnt from", fst__json_text(fusion, "learnt_from"));
    snprintf(text, sizeof text, "%.3f", fst__json_number(fusion, "gate"));
    fst__fact_number(p, "gate of the fusion", fst__json_number(fusion, "gate"), text);
    fst__fact_number(p, "clients that reported, of those asked", selected > 0 ? reported / selected : NAN,
                     fst_human_percent(reported / selected, text));
    json_t *own = json_object_get(j, "own_validation");
    double after = fst__json_number(own, "accuracy"), before = fst__json_number(own, "global_accuracy");
    fst__fact_number(p, "clients' own models, on validation samples of their own", after,
                     fst_human_percent(after, text));
    fst__fact_number(p, "the model that all have or started from, on the same samples", before,
                     fst_human_percent(before, text));
    fst__fact_number(p, "sent up", up, fst_human_bytes(up, text));
    fst__fact_number(p, "sent down", down, fst_human_bytes(down, text));
    fst__fact_number(p, "both, had codecs not coded them", is_coded(s) ? raw : NAN, fst_human_bytes(raw, text));
    fst__facts_end(p);
}

void fst__html_rounds(const struct fst__html *h, fst__page *p)
{
    static const struct curve accuracy[] = {{"test", OF(other_accuracy)}, {"edges' validation", OF(validation)}};
    static const struct curve plain[] = {{"test", OF(other_loss)}, {"training, mean of the clients", OF(loss)}};
    static const struct curve weighted[] = {{"test", OF(other_loss)},
                                            {"training, mean of the clients, weighted by class", OF(loss)}};
    static const struct curve rate[] = {{"learning rate", OF(rate)}};
    static const struct curve clients[] = {{"asked", OF(selected)}, {"reported", OF(reported)}, {"lost", OF(lost)}};
    static const struct curve bytes[] = {{"up", OF(mb_up)}, {"down", OF(mb_down)}};
    size_t shown = 0;
    for (size_t i = 0; i < h->history.stages; i++) {
        const struct fst__stage_history *s = &h->history.stage[i];
        char title[FST__MODEL_TITLE];
        if (!s->rounds || !s->points)
            continue;
        if (!shown++)
            fst__section(p, "rounds", "Federated rounds");
        if (strcmp(fst__step_kind(h, s->name), s->name))
            fst__subtitle(p, fst__step_title(h, s->name, title));
        rounds_facts(h, p, s);
        fst__put(p, "<div class=\"charts\">\n");
        chart_of(p, s, "Accuracy by round", true, accuracy, 2);
        chart_of(p, s, "Loss by round: cross entropy", false, strstr(s->loss_kind, "weighted") ? weighted : plain, 2);
        chart_of(p, s, "Learning rate of the clients", false, rate, 1);
        chart_of(p, s, "Clients by round", false, clients, 3);
        chart_of(p, s, "Megabytes by round", false, bytes, 2);
        fst__put(p, "</div>\n");
        rounds_table(p, s);
        clients_table(p, s);
    }
}

/* Everything that a run wrote down, as CSV: a table for each kind of event, whose columns are the fields that any of
 * them has, and the stages of the summary. Written by the report's CSV writer. */
#include <math.h>
#include <string.h>

#include "export.h"
#include "page.h"

/* Kinds of events, and what their tables are called. A kind of a later version is not here and has no table. */
static const struct {
    const char *event, *table;
} kinds[] = {{"epoch", "epochs"},
             {"round", "rounds"},
             {"client", "clients"},
             {"client_lost", "lost_clients"},
             {"client_model", "client_models"},
             {"edge", "edges"},
             {"peer", "peers"},
             {"fusion", "fusions"},
             {"prune", "pruned"},
             {"result", "results"},
             {"early_stopping", "early_stopping"},
             {"resources", "resources"},
             {"stage", "states"},
             {"start", "processes"},
             {"run", "ends"}};
enum { KINDS = sizeof kinds / sizeof *kinds, MAX_COLUMNS = 64 };

struct table {
    char *title[MAX_COLUMNS + 1]; /* ends with NULL */
    size_t columns, rows;
};

struct gather {
    struct table table[KINDS];
    size_t now; /* the table that is written */
    fst__page *page;
    fst_status status;
    fst_error *err;
};

static size_t kind_of(const char *event)
{
    size_t k = 0;
    while (k < KINDS && strcmp(kinds[k].event, event) != 0)
        k++;
    return k;
}

static bool has_column(const struct table *t, const char *title)
{
    for (size_t i = 0; i < t->columns; i++)
        if (!strcmp(t->title[i], title))
            return true;
    return false;
}

static fst_status add_column(struct table *t, const char *event, const char *title, fst_error *err)
{
    if (t->columns == MAX_COLUMNS)
        return fst_fail(err, FST_E_LIMIT, "events \"%s\" have more than %d different fields", event, MAX_COLUMNS);
    t->title[t->columns] = fst_strdup(title);
    if (!t->title[t->columns])
        return fst_fail_memory(err, strlen(title));
    t->columns++;
    return FST_OK;
}

static bool count(void *ctx, const fst_event *e)
{
    struct gather *g = ctx;
    size_t k = kind_of(e->event);
    if (k == KINDS)
        return true;
    struct table *t = &g->table[k];
    static const char *const first[] = {"time", "run", "stage"};
    for (size_t i = 0; !g->status && !t->rows && i < sizeof first / sizeof *first; i++)
        g->status = add_column(t, e->event, first[i], g->err);
    for (size_t i = 0; !g->status && i < e->nfields; i++)
        if (!has_column(t, e->fields[i].key))
            g->status = add_column(t, e->event, e->fields[i].key, g->err);
    t->rows++;
    return !g->status;
}

static void field(fst__page *p, const fst_field *f)
{
    if (!f)
        fst__record_text(p, "");
    else if (f->type == FST_FIELD_STRING)
        fst__record_text(p, f->value.string);
    else if (f->type == FST_FIELD_BOOL)
        fst__record_text(p, f->value.boolean ? "true" : "false");
    else
        fst__record_number(p, f->type == FST_FIELD_INT ? (double)f->value.integer : f->value.number, NULL);
}

static bool write_row(void *ctx, const fst_event *e)
{
    struct gather *g = ctx;
    const struct table *t = &g->table[g->now];
    if (kind_of(e->event) != g->now)
        return true;
    fst__record_text(g->page, e->time);
    fst__record_number(g->page, (double)e->run, NULL);
    fst__record_text(g->page, e->stage);
    for (size_t i = 3; i < t->columns; i++)
        field(g->page, fst_event_field(e, t->title[i]));
    fst__record_row(g->page);
    return !g->page->status;
}

static fst_status write_events(const struct fst__export *x, fst__page *p, fst_error *err)
{
    struct gather *g = fst_calloc(1, sizeof *g);
    if (!g)
        return fst_fail_memory(err, sizeof *g);
    g->page = p;
    g->err = err;
    fst_status st = fst__log_each(&x->log, &x->events, count, g, err);
    st = st ? st : g->status;
    for (g->now = 0; !st && g->now < KINDS; g->now++) {
        if (!g->table[g->now].rows)
            continue;
        fst__record_begin(p, kinds[g->now].table, (const char *const *)g->table[g->now].title, false);
        st = fst__log_each(&x->log, &x->events, write_row, g, err);
        fst__record_end(p, false);
        st = st ? st : p->status;
    }
    for (size_t k = 0; k < KINDS; k++)
        for (size_t i = 0; i < g->table[k].columns; i++)
            fst_free(g->table[k].title[i]);
    fst_free(g);
    return st;
}

static void write_stages(const struct fst__export *x, fst__page *p)
{
    static const char *const numbers[] = {"accuracy",          "top5_accuracy", "loss",      "macro_f1",
                                          "balanced_accuracy", "parameters",    "samples",   "seconds",
                                          "bytes_up",          "bytes_down",    "best_round"};
    enum { N = sizeof numbers / sizeof *numbers };
    const char *titles[N + 4] = {"stage", "kind"}, *name;
    json_t *j;
    memcpy(titles + 2, numbers, sizeof numbers);
    titles[N + 2] = "digest";
    fst__record_begin(p, "stages", titles, false);
    json_object_foreach(json_object_get(x->summary, "stages"), name, j)
    {
        json_t *file = json_object_get(j, "model");
        fst__record_text(p, name);
        fst__record_text(p, json_string_value(json_object_get(j, "kind")));
        for (size_t i = 0; i < N; i++) {
            json_t *v = json_object_get(j, numbers[i]);
            fst__record_number(p, json_is_number(v) ? json_number_value(v) : NAN, NULL);
        }
        fst__record_text(p, json_string_value(json_object_get(file ? file : json_object_get(j, "artifact"), "digest")));
        fst__record_row(p);
    }
    fst__record_end(p, false);
}

fst_status fst__export_csv(const struct fst__export *x, fst_csv_fn table, void *ctx, fst_error *err)
{
    fst_buf none = {0};
    fst__page p = {.out = &none, .err = err, .only_csv = true};
    if (json_object_size(json_object_get(x->summary, "stages")))
        write_stages(x, &p);
    fst_status st = p.status ? p.status : write_events(x, &p, err);
    for (size_t i = 0; !st && i < p.csv_count; i++)
        st = table(ctx, p.csv[i].name, &p.csv[i].text, err);
    fst__page_release(&p);
    fst_buf_release(&none);
    return st;
}

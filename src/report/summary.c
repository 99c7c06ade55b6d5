/* The closing table of a run, made from its summary.json. It keeps to 80 columns; files, whose paths may be long, stand
 * in lines of their own below it. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fedstill/report.h"

enum { MAX_SUMMARY = 16 << 20, WIDTH = 80 };

enum { TITLE = 96 };

static const struct {
    const char *kind, *title, *named; /* named: of a stage that has a name of its own */
} rows[] = {
    {"cloud_pretrain", "teacher", "on labels"},    {"edge_alone", "student alone", "alone"},
    {"edge_kd", "student distilled", "distilled"}, {"federated_train", "student federated", "federated"},
    {"prune", "model pruned", "pruned"},           {"quantise", "model in int8", "int8"},
};

/* What kind of stage it is; summaries of earlier versions have one of each, under the kind's name. */
static const char *kind_of(json_t *stages, const char *name)
{
    const char *kind = json_string_value(json_object_get(json_object_get(stages, name), "kind"));
    return kind ? kind : name;
}

/* What there is of the models that a stage leaves: one, or, where each client has its own, the list of them. */
static json_t *models_of(json_t *stages, const char *name)
{
    json_t *step = json_object_get(stages, name), *model = json_object_get(step, "model");
    bool apart = !model && !strcmp(kind_of(stages, name), "federated_train");
    return apart ? json_object_get(step, "artifact") : model;
}

/* "student distilled", or of a stage with a name of its own "small (distilled)". */
static const char *title_of(json_t *stages, const char *name, char out[TITLE])
{
    const char *kind = kind_of(stages, name), *title = kind;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        title = strcmp(rows[i].kind, kind) ? title : strcmp(kind, name) ? rows[i].named : rows[i].title;
    if (models_of(stages, name) && !json_object_get(json_object_get(stages, name), "model"))
        title = "clients' own, mean";
    if (strcmp(kind, name))
        snprintf(out, TITLE, "%.40s (%.40s)", name, title);
    else
        snprintf(out, TITLE, "%.90s", title);
    return out;
}

static double number(json_t *j, const char *key)
{
    json_t *v = json_object_get(j, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static fst_status model_row(fst_table *t, const char *title, json_t *j, fst_error *err)
{
    char accuracy[FST_HUMAN], parameters[FST_HUMAN], seconds[FST_HUMAN], bytes[FST_HUMAN];
    double loss = number(j, "loss");
    const char *cells[] = {fst_human_percent(number(j, "accuracy"), accuracy),
                           fst_human_count(number(j, "parameters"), parameters),
                           fst_human_seconds(number(j, "seconds"), seconds),
                           fst_human_bytes(number(j, "bytes_up") + number(j, "bytes_down"), bytes)};
    fst_status st = fst_table_cell(t, err, "%s", title);
    for (size_t i = 0; !st && i < sizeof cells / sizeof *cells; i++) {
        st = fst_table_cell(t, err, "%s", cells[i]);
        if (!st && i == 0)
            st = isfinite(loss) ? fst_table_cell(t, err, "%.4f", loss) : fst_table_cell(t, err, "-");
    }
    return st;
}

/* The edges' last local models. */
static fst_status edge_rows(fst_table *t, json_t *step, fst_error *err)
{
    fst_status st = FST_OK;
    size_t i;
    json_t *e;
    json_array_foreach(json_object_get(step, "edges"), i, e)
    {
        char accuracy[FST_HUMAN];
        double a = number(e, "accuracy");
        if (st)
            return st;
        st = fst_table_cell(t, err, "  edge %zu, local", i + 1);
        if (!st)
            st = fst_table_cell(t, err, "%s", fst_human_percent(a, accuracy));
        for (int k = 0; !st && k < 4; k++)
            st = fst_table_cell(t, err, "-");
    }
    return st;
}

static fst_status file_line(fst_buf *out, int width, const char *title, const char *path, fst_error *err)
{
    char *clean = fst_strdup(path);
    if (!clean)
        return fst_fail_memory(err, strlen(path));
    fst_text_clean(clean, false);
    fst_status st = fst_buf_printf(out, err, "%-*s %s\n", width, title, clean);
    fst_free(clean);
    return st;
}

static fst_status absent_edges(json_t *edges, fst_buf *out, fst_error *err)
{
    fst_status st = FST_OK;
    size_t i;
    json_t *e;
    json_array_foreach(edges, i, e)
    {
        if (!st && !isfinite(number(e, "accuracy")))
            st = fst_buf_printf(out, err, "edge %zu did not take part\n", i + 1);
    }
    return st;
}

/* Where the models are. */
static fst_status files(json_t *stages, fst_buf *out, fst_error *err)
{
    fst_status st = fst_buf_append(out, "\n", 1, err);
    const char *name;
    json_t *step;
    int width = 18;
    json_object_foreach(stages, name, step)
    {
        char title[TITLE];
        int n = (int)strlen(title_of(stages, name, title));
        width = models_of(stages, name) && n > width ? n : width;
    }
    json_object_foreach(stages, name, step)
    {
        const char *path = json_string_value(json_object_get(models_of(stages, name), "path"));
        const char *slash = path ? strrchr(path, '/') : NULL;
        char edges[512], title[TITLE];
        if (!path || st)
            continue;
        st = file_line(out, width, title_of(stages, name, title), path, err);
        if (st || !json_array_size(json_object_get(step, "edges")))
            continue;
        snprintf(edges, sizeof edges, "%.*sedge_K_model.safetensors", slash ? (int)(slash + 1 - path) : 0, path);
        st = file_line(out, width, "  of edge K, local", edges, err);
        if (!st)
            st = absent_edges(json_object_get(step, "edges"), out, err);
    }
    return st;
}

static const struct {
    const char *kind, *title, *accuracy, *time;
} ways[] = {
    {"edge_infer", "edge alone", "edge_accuracy", "t1"},
    {"cloud_infer", "edge and cloud", "accuracy", "t1"},
    {"cloud_direct_infer", "cloud alone", "cloud_accuracy", "t2"},
};
enum { WAYS = sizeof ways / sizeof *ways };

static fst_status way_row(fst_table *table, size_t way, const char *name, json_t *j, fst_error *err)
{
    char a[FST_HUMAN], b[FST_HUMAN], c[FST_HUMAN], title[TITLE];
    double sent = way == 0 ? 0 : way == 2 ? 1 : number(j, "offload_ratio");
    if (name)
        snprintf(title, sizeof title, "%.40s (%s)", name, ways[way].title);
    else
        snprintf(title, sizeof title, "%s", ways[way].title);
    const char *cells[] = {title, fst_human_percent(number(j, ways[way].accuracy), a), fst_human_percent(sent, b),
                           fst_human_seconds(number(j, ways[way].time), c)};
    fst_status st = FST_OK;
    for (size_t k = 0; !st && k < 4; k++)
        st = fst_table_cell(table, err, "%s", cells[k]);
    return st;
}

/* The rows of one way: a stage of that kind each. The cloud alone is what cloud_infer knows of it where it has not been
 * run by itself. */
static fst_status way_rows(fst_table *table, size_t way, json_t *stages, json_t *cascade, fst_error *err)
{
    fst_status st = FST_OK;
    bool any = false;
    const char *name;
    json_t *j;
    for (int own = 1; own >= 0 && !any; own--)
        json_object_foreach(cascade, name, j)
        {
            const char *kind = kind_of(stages, name);
            if (st || strcmp(kind, own ? ways[way].kind : way == 2 ? "cloud_infer" : ""))
                continue;
            any = true;
            st = way_row(table, way, strcmp(kind, name) ? name : NULL, j, err);
        }
    return st;
}

/* A row for each way to an answer. Time is that of the model of links and servers. */
static fst_status cascade_table(json_t *stages, json_t *cascade, bool ascii, fst_buf *out, fst_error *err)
{
    static const fst_column columns[] = {
        {"answers by", FST_LEFT}, {"accuracy", FST_RIGHT}, {"to the cloud", FST_RIGHT}, {"time", FST_RIGHT}};
    fst_table *table = NULL;
    fst_status st = fst_table_new(&table, columns, sizeof columns / sizeof *columns, err);
    for (size_t i = 0; !st && i < WAYS; i++)
        st = way_rows(table, i, stages, cascade, err);
    if (!st)
        fst_table_fit(table, WIDTH);
    if (!st)
        st = fst_buf_append(out, "\n", 1, err);
    if (!st)
        st = fst_table_write(table, ascii, out, err);
    fst_table_free(table);
    return st;
}

static fst_status lines_of(const char *name, json_t *j, fst_buf *out, fst_error *err)
{
    char p99[FST_HUMAN];
    fst_status st = name ? fst_buf_printf(out, err, "\n%s:", name) : FST_OK;
    if (!st && isfinite(number(j, "threshold")))
        st = fst_buf_printf(out, err, "\nthreshold %.4g at temperature %.4g; an edge takes %s for a sample (p99)\n",
                            number(j, "threshold"), number(j, "temperature"),
                            fst_human_seconds(number(j, "edge_latency_p99_ms") / 1e3, p99));
    if (!st && isfinite(number(j, "corrected")))
        st = fst_buf_printf(out, err, "the cloud corrected %.0f answers and got %.0f right ones wrong\n",
                            number(j, "corrected"), number(j, "spoiled"));
    if (!st && isfinite(number(j, "ratio")))
        st = fst_buf_printf(out, err, "cloud alone / edge and cloud: T2/T1 = %.2f\n", number(j, "ratio"));
    return st;
}

/* Of every cascade, or of every edge where there is none. */
static fst_status cascade_lines(json_t *stages, json_t *cascade, fst_buf *out, fst_error *err)
{
    fst_status st = FST_OK;
    bool any = false;
    const char *name;
    json_t *j;
    for (int way = 1; way >= 0 && !any; way--)
        json_object_foreach(cascade, name, j)
        {
            const char *kind = kind_of(stages, name);
            if (st || strcmp(kind, ways[way].kind))
                continue;
            any = true;
            st = lines_of(strcmp(kind, name) ? name : NULL, j, out, err);
        }
    return st;
}

fst_status fst_report_summary(const char *path, bool ascii, fst_buf *out, fst_error *err)
{
    static const fst_column columns[] = {{"model", FST_LEFT},       {"accuracy", FST_RIGHT}, {"loss", FST_RIGHT},
                                         {"parameters", FST_RIGHT}, {"time", FST_RIGHT},     {"exchanged", FST_RIGHT}};
    fst_buf text = {0};
    fst_table *table = NULL;
    json_error_t je = {0};
    fst_status st = fst_file_read(path, MAX_SUMMARY, &text, err);
    if (!st)
        st = fst_json_fits(path, text.data, text.len, text.len, err);
    json_t *j = st ? NULL : json_loadb(text.data, text.len, 0, &je);
    if (!st && !j)
        st = fst_fail(err, FST_E_FORMAT, "%s:%d:%d: %s", path, je.line, je.column, je.text);
    if (!st)
        st = fst_table_new(&table, columns, sizeof columns / sizeof *columns, err);
    json_t *stages = json_object_get(j, "stages"), *step;
    const char *name;
    json_object_foreach(stages, name, step)
    {
        char title[TITLE];
        if (!st && models_of(stages, name))
            st = model_row(table, title_of(stages, name, title), step, err);
        if (!st && json_object_get(step, "model"))
            st = edge_rows(table, step, err);
    }
    json_t *cascade = json_object_get(j, "cascade");
    if (!st)
        fst_table_fit(table, WIDTH);
    if (!st && (fst_table_rows(table) || !cascade))
        st = fst_table_write(table, ascii, out, err);
    if (!st && fst_table_rows(table))
        st = files(stages, out, err);
    if (!st && cascade)
        st = cascade_table(stages, cascade, ascii, out, err);
    if (!st && cascade)
        st = cascade_lines(stages, cascade, out, err);
    fst_table_free(table);
    json_decref(j);
    fst_buf_release(&text);
    return st;
}

/* fedstill runs: what the run registry knows. It only looks; it neither starts nor deletes anything. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "fedstill/store.h"

enum { MAX_FIGURE = 24 };

static const struct option_spec options[] = {
    {.name = "limit",
     .letter = 'n',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 1000000,
     .fallback = "20",
     .help = "Show the newest N runs."},
    {.name = "json", .type = OPTION_FLAG, .help = "Write JSON: an array of runs, or one run with its figures."},
    {0},
};

static const struct operand_spec operands[] = {
    {"RUN", 0, 1, "A run's number, a task's name (its newest run) or an output folder: shows that run in detail."},
    {0},
};

static const char *const examples[] = {
    "fedstill runs --limit 5",
    "Lists the newest five runs.",
    "fedstill runs mnist",
    "Shows the newest run of the task mnist with the key figures of its stages.",
    NULL,
};

/* ---- as a table --------------------------------------------------------------------------- */

struct listing {
    fst_table *table;
    fst_status status;
    fst_error *err;
};

static bool table_row(void *ctx, const fst_run *r)
{
    struct listing *l = ctx;
    char started[FST_HUMAN], lasted[FST_HUMAN], last[FST_HUMAN], best[FST_HUMAN];
    const char *cells[] = {r->task,
                           fst_run_status_name(r->status),
                           r->stage,
                           fst_human_time(r->started_ms, started),
                           fst_human_seconds(r->seconds, lasted),
                           fst_human_percent(r->last_accuracy, last),
                           fst_human_percent(r->best_accuracy, best)};
    l->status = fst_table_cell(l->table, l->err, "%lld", (long long)r->id);
    for (size_t i = 0; !l->status && i < sizeof cells / sizeof *cells; i++)
        l->status = fst_table_cell(l->table, l->err, "%s", cells[i]);
    return !l->status;
}

static fst_status print_table(fst_table *t, fst_error *err)
{
    fst_buf out = {0};
    return finish_output(&out, write_table(t, !output_is_utf8(), &out, err));
}

static fst_status list_table(fst_registry *registry, size_t limit, fst_error *err)
{
    static const fst_column columns[] = {
        {"run", FST_RIGHT},    {"task", FST_LEFT},      {"status", FST_LEFT},    {"stage", FST_LEFT},
        {"started", FST_LEFT}, {"duration", FST_RIGHT}, {"accuracy", FST_RIGHT}, {"best", FST_RIGHT},
    };
    struct listing l = {.err = err};
    fst_status s = fst_table_new(&l.table, columns, sizeof columns / sizeof *columns, err);
    if (!s)
        s = fst_registry_list(registry, limit, table_row, &l, err);
    s = s ? s : l.status;
    if (!s) { /* the stage stands in --json and in the run's own page */
        fst_table_rank(l.table, 3, 3);
        fst_table_rank(l.table, 7, 2);
        fst_table_rank(l.table, 5, 1);
    }
    if (!s && fst_table_rows(l.table) == 0)
        puts("no runs yet");
    else if (!s)
        s = print_table(l.table, err);
    fst_table_free(l.table);
    return s;
}

/* ---- one run ------------------------------------------------------------------------------ */

static void detail(const char *name, const char *text)
{
    char *clean = fst_strdup(text);
    if (clean)
        fst_text_clean(clean, false);
    printf("%-10s %s\n", name, clean ? clean : "?");
    fst_free(clean);
}

static bool print_run(void *ctx, const fst_run *r)
{
    char text[FST_HUMAN];
    *(int64_t *)ctx = r->id;
    printf("%-10s %lld\n", "run", (long long)r->id);
    detail("task", r->task);
    detail("from", r->task_path);
    detail("output", r->output);
    printf("%-10s %llu\n", "seed", (unsigned long long)r->seed);
    detail("status", fst_run_status_name(r->status));
    detail("stage", r->stage);
    detail("message", r->message);
    detail("started", fst_human_time(r->started_ms, text));
    detail("last sign", fst_human_time(r->updated_ms, text));
    detail("ended", fst_human_time(r->ended_ms, text));
    detail("worked", fst_human_seconds(r->seconds, text));
    printf("%-10s %lld on ", "process", (long long)r->pid);
    put_plain(stdout, r->host);
    putchar('\n');
    return false;
}

static fst_status number_cell(fst_table *t, double x, fst_error *err)
{
    return isfinite(x) ? fst_table_cell(t, err, "%.6g", x) : fst_table_cell(t, err, "-");
}

static bool figure_row(void *ctx, const fst_figure *f)
{
    struct listing *l = ctx;
    fst_status s = fst_table_cell(l->table, l->err, "%s", f->stage);
    if (!s)
        s = fst_table_cell(l->table, l->err, "%s", f->key);
    if (!s && f->text && strlen(f->text) > MAX_FIGURE) /* a digest; --json has all of it */
        s = fst_table_cell(l->table, l->err, "%.12s...", f->text);
    else if (!s)
        s = f->text ? fst_table_cell(l->table, l->err, "%s", f->text) : number_cell(l->table, f->value, l->err);
    if (!s)
        s = number_cell(l->table, f->low, l->err);
    if (!s)
        s = number_cell(l->table, f->high, l->err);
    l->status = s;
    return !s;
}

static fst_status show_run(fst_registry *registry, const char *name, fst_error *err)
{
    static const fst_column columns[] = {
        {"stage", FST_LEFT}, {"figure", FST_LEFT}, {"value", FST_RIGHT}, {"lowest", FST_RIGHT}, {"highest", FST_RIGHT},
    };
    int64_t id = 0;
    struct listing l = {.err = err};
    fst_status s = fst_registry_find(registry, name, print_run, &id, err);
    if (!s)
        s = fst_table_new(&l.table, columns, sizeof columns / sizeof *columns, err);
    if (!s)
        s = fst_registry_figures(registry, id, figure_row, &l, err);
    s = s ? s : l.status;
    if (!s && fst_table_rows(l.table)) {
        putchar('\n');
        s = print_table(l.table, err);
    }
    fst_table_free(l.table);
    return s;
}

/* ---- as JSON ------------------------------------------------------------------------------ */

static json_t *run_json(const fst_run *r)
{
    char seed[24]; /* as text: JSON readers keep 53 bits */
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)r->seed);
    return json_pack("{s:I, s:o, s:o, s:o, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:o, s:I, s:o, s:o, s:o}", "id",
                     (json_int_t)r->id, "task", text_json(r->task), "task_path", text_json(r->task_path), "output",
                     text_json(r->output), "seed", seed, "status", fst_run_status_name(r->status), "stage",
                     text_json(r->stage), "message", text_json(r->message), "started_ms", (json_int_t)r->started_ms,
                     "updated_ms", (json_int_t)r->updated_ms, "ended_ms", (json_int_t)r->ended_ms, "seconds",
                     number_json(r->seconds), "pid", (json_int_t)r->pid, "host", text_json(r->host), "accuracy",
                     number_json(r->last_accuracy), "best_accuracy", number_json(r->best_accuracy));
}

static bool append_run(void *ctx, const fst_run *r)
{
    return !json_array_append_new(ctx, run_json(r));
}

static bool append_figure(void *ctx, const fst_figure *f)
{
    json_t *j = json_pack("{s:o, s:o, s:o, s:o, s:o, s:I}", "stage", text_json(f->stage), "key", text_json(f->key),
                          "value", f->text ? text_json(f->text) : number_json(f->value), "low", number_json(f->low),
                          "high", number_json(f->high), "time_ms", (json_int_t)f->time_ms);
    return !json_array_append_new(ctx, j);
}

static fst_status print_json(json_t *j, fst_error *err)
{
    fst_buf out = {0};
    char *text = json_dumps(j, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    fst_status s = text ? fst_text_json(&out, text, err) : fst_fail_memory(err, 1);
    if (!s)
        puts(out.data);
    free(text);
    fst_buf_release(&out);
    return s;
}

static fst_status run_as_json(fst_registry *registry, json_t *runs, const char *name, fst_error *err)
{
    json_t *figures = json_array();
    fst_status s = fst_registry_find(registry, name, append_run, runs, err);
    json_t *run = json_array_get(runs, 0);
    if (!s)
        s = fst_registry_figures(registry, json_integer_value(json_object_get(run, "id")), append_figure, figures, err);
    if (!s)
        json_object_set(run, "figures", figures);
    json_decref(figures);
    return s ? s : print_json(run, err);
}

static fst_status as_json(fst_registry *registry, const char *name, size_t limit, fst_error *err)
{
    json_t *runs = json_array();
    fst_status s;
    if (name) {
        s = run_as_json(registry, runs, name, err);
    } else {
        s = fst_registry_list(registry, limit, append_run, runs, err);
        if (!s)
            s = print_json(runs, err);
    }
    json_decref(runs);
    return s;
}

/* ---- the command -------------------------------------------------------------------------- */

static fst_status look(const struct options *o, const char *path, fst_error *err)
{
    fst_registry *registry = NULL;
    const char *name = operand(o, 0);
    size_t limit = (size_t)option_int(o, "limit");
    fst_status s = fst_registry_open(&registry, path, err);
    if (s)
        return s;
    if (option_flag(o, "json"))
        s = as_json(registry, name, limit, err);
    else
        s = name ? show_run(registry, name, err) : list_table(registry, limit, err);
    fst_registry_free(registry);
    return s;
}

static fst_status run(const struct options *o, fst_error *err)
{
    char *path = NULL;
    fst_status s = fst_registry_path(&path, err);
    if (s)
        return s;
    if (fst_file_exists(path))
        s = look(o, path, err);
    else if (operand(o, 0)) /* looking makes no file */
        s = fst_fail(err, FST_E_CONFIG, "no run \"%s\": there is no run registry %s yet", operand(o, 0), path);
    else
        puts(option_flag(o, "json") ? "[]" : "no runs yet");
    fst_free(path);
    return s;
}

const struct command cmd_runs = {
    .name = "runs",
    .summary = "List the runs of this machine, or show one",
    .description = "Lists what ran, newest first: number, task, status, stage, start, working time, last and best "
                   "accuracy. A run whose process ended without saying so is shown as interrupted; running its task "
                   "again continues it.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

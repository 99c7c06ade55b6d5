/* fedstill runs: what the run registry knows. It starts nothing, and deletes only with --prune, of one run's output. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "fedstill/store.h"
#include "fedstill/task.h"

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
    {.name = "prune",
     .argument = "N",
     .type = OPTION_INT,
     .min = 0,
     .max = 1000000,
     .help =
         "Remove what runs with other settings left in the output of RUN (output/kept), all but the newest N of each "
         "stage. Runs with those settings then compute anew."},
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
    "fedstill runs mnist --prune 3",
    "Keeps only the last three models of each stage from runs with other settings in that run's output.",
    NULL,
};

/* ---- what a run reached ------------------------------------------------------------------- */

/* A teacher, a student and a cascade are different things, and each is compared with its like only. */
struct reached {
    double teacher, student, cascade; /* accuracies; NaN: none */
    int of_student, of_cascade;       /* later stages replace earlier ones */
    const char *settings;             /* of the run */
};

/* The kind of a stage, which the run's settings say ("stages.small.kind=edge_kd") where it is not its name; a baseline
 * is that of the student in whose name it has "_alone". */
static void kind_of(const char *settings, const char *stage, char out[64])
{
    static const char baseline[] = "_alone";
    char line[96];
    size_t n = strlen(stage), m = sizeof baseline - 1;
    snprintf(line, sizeof line, "stages.%.60s.kind=", stage);
    const char *at = settings ? strstr(settings, line) : NULL;
    bool found = at && (at == settings || at[-1] == '\n');
    snprintf(out, 64, "%.60s", stage);
    if (found)
        snprintf(out, 64, "%.*s", (int)strcspn(at + strlen(line), "\n"), at + strlen(line));
    else if (strcmp(stage, "edge_alone") && n > m && !strcmp(stage + n - m, baseline))
        snprintf(out, 64, "edge_alone");
}

static bool take_accuracy(void *ctx, const fst_figure *f)
{
    static const char *const students[] = {"edge_alone", "edge_kd", "federated_train"};
    static const char *const cascades[] = {"edge_infer", "cloud_infer"};
    struct reached *r = ctx;
    char kind[64];
    if (strcmp(f->key, "accuracy") != 0 || f->text)
        return true;
    kind_of(r->settings, f->stage, kind);
    if (!strcmp(kind, "cloud_pretrain"))
        r->teacher = f->value;
    for (int i = 0; i < 3; i++)
        if (!strcmp(kind, students[i]) && r->of_student <= i) {
            r->student = f->value;
            r->of_student = i;
        }
    for (int i = 0; i < 2; i++)
        if (!strcmp(kind, cascades[i]) && r->of_cascade <= i) {
            r->cascade = f->value;
            r->of_cascade = i;
        }
    return true;
}

static struct reached reached_by(fst_registry *registry, int64_t id, const char *settings)
{
    struct reached r = {NAN, NAN, NAN, 0, 0, settings};
    (void)!fst_registry_figures(registry, id, take_accuracy, &r, NULL);
    return r;
}

/* ---- as a table --------------------------------------------------------------------------- */

enum { CELLS = 11, SETTINGS = 2, OUTPUT = 3, STAGE = 5, CASCADE = 10, MOST_SETTINGS = 3 };

struct row {
    char *task, *settings, *output; /* owned */
    char *cells[CELLS];             /* owned */
};

struct listing {
    fst_registry *registry;
    fst_table *table;
    struct row *rows;
    size_t count, cap;
    fst_status status;
    fst_error *err;
};

static bool set_cell(struct row *row, size_t i, const char *text)
{
    row->cells[i] = fst_strdup(text);
    return row->cells[i] != NULL;
}

static bool fill_row(struct row *row, const fst_run *r, const struct reached *a)
{
    char id[24], started[FST_HUMAN], lasted[FST_HUMAN], percent[3][FST_HUMAN];
    const char *slash = strrchr(r->output, '/');
    const char *texts[CELLS] = {id,
                                r->task,
                                "",
                                slash && slash[1] ? slash + 1 : r->output,
                                fst_run_status_name(r->status),
                                r->stage,
                                fst_human_time(r->started_ms, started),
                                fst_human_seconds(r->seconds, lasted),
                                fst_human_percent(a->teacher, percent[0]),
                                fst_human_percent(a->student, percent[1]),
                                fst_human_percent(a->cascade, percent[2])};
    snprintf(id, sizeof id, "%lld", (long long)r->id);
    row->task = fst_strdup(r->task);
    row->settings = fst_strdup(r->settings);
    row->output = fst_strdup(r->output);
    bool good = row->task && row->settings && row->output;
    for (size_t i = 0; good && i < CELLS; i++)
        good = i == SETTINGS || set_cell(row, i, texts[i]);
    return good;
}

static bool keep_row(void *ctx, const fst_run *r)
{
    struct listing *l = ctx;
    if (l->count == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 32;
        struct row *rows = fst_realloc(l->rows, l->count * sizeof *rows, cap * sizeof *rows);
        if (!rows) {
            l->status = fst_fail_memory(l->err, cap * sizeof *rows);
            return false;
        }
        l->rows = rows;
        l->cap = cap;
    }
    struct reached a = reached_by(l->registry, r->id, r->settings);
    l->rows[l->count] = (struct row){.task = NULL};
    if (!fill_row(&l->rows[l->count++], r, &a))
        l->status = fst_fail_memory(l->err, 256);
    return !l->status;
}

/* Is there a line text[0] ... text[len - 1]? */
static bool has_line(const char *lines, const char *text, size_t len)
{
    for (const char *at = lines; *at; at += strcspn(at, "\n") + 1)
        if (strcspn(at, "\n") == len && !memcmp(at, text, len))
            return true;
    return false;
}

/* Another run of the task, whose settings are known, has not this line. */
static bool differs(const struct listing *l, const struct row *row, const char *line, size_t len)
{
    for (size_t i = 0; i < l->count; i++) {
        const struct row *other = &l->rows[i];
        if (other != row && *other->settings && !strcmp(other->task, row->task) &&
            !has_line(other->settings, line, len))
            return true;
    }
    return false;
}

/* "federated_train.rounds=20, seed=7": what tells this run from the others of its task. */
static fst_status settings_cell(const struct listing *l, struct row *row, fst_error *err)
{
    fst_buf text = {0};
    fst_status s = FST_OK;
    size_t shown = 0, more = 0;
    for (const char *at = row->settings; !s && *at; at += strcspn(at, "\n") + 1) {
        size_t len = strcspn(at, "\n"), skip = !strncmp(at, "stages.", 7) ? 7 : 0;
        if (!differs(l, row, at, len))
            continue;
        if (shown == MOST_SETTINGS)
            more++;
        else
            s = fst_buf_printf(&text, err, "%s%.*s", shown++ ? ", " : "", (int)(len - skip), at + skip);
    }
    if (!s && more)
        s = fst_buf_printf(&text, err, ", %zu more", more);
    if (!s && !set_cell(row, SETTINGS, text.data ? text.data : "-"))
        s = fst_fail_memory(err, text.len);
    fst_buf_release(&text);
    return s;
}

/* A column that tells nothing is left out: settings and outputs that are the same in all runs of every task, and
 * the cascade where there is none. */
static bool column_tells(const struct listing *l, size_t column)
{
    bool tells = column != SETTINGS && column != OUTPUT && column != CASCADE;
    for (size_t i = 0; !tells && i < l->count; i++)
        if (column != OUTPUT)
            tells = strcmp(l->rows[i].cells[column], "-") != 0;
        else
            for (size_t k = 0; !tells && k < i; k++)
                tells = !strcmp(l->rows[i].task, l->rows[k].task) && strcmp(l->rows[i].output, l->rows[k].output);
    return tells;
}

static fst_status print_table(fst_table *t, fst_error *err)
{
    fst_buf out = {0};
    return finish_output(&out, write_table(t, !output_is_utf8(), &out, err));
}

static fst_status print_rows(struct listing *l, fst_error *err)
{
    static const fst_column columns[CELLS] = {
        {"run", FST_RIGHT},     {"task", FST_LEFT},     {"settings", FST_LEFT}, {"output", FST_LEFT},
        {"status", FST_LEFT},   {"stage", FST_LEFT},    {"started", FST_LEFT},  {"duration", FST_RIGHT},
        {"teacher", FST_RIGHT}, {"student", FST_RIGHT}, {"cascade", FST_RIGHT},
    };
    static const int ranks[CELLS] = {[STAGE] = 4, [6] = 3, [OUTPUT] = 1};
    fst_column used[CELLS];
    size_t index[CELLS], n = 0;
    for (size_t c = 0; c < CELLS; c++)
        if (column_tells(l, c)) {
            used[n] = columns[c];
            index[n++] = c;
        }
    fst_status s = fst_table_new(&l->table, used, n, err);
    for (size_t c = 0; !s && c < n; c++)
        fst_table_rank(l->table, c, ranks[index[c]]);
    for (size_t i = 0; !s && i < l->count; i++)
        for (size_t c = 0; !s && c < n; c++)
            s = fst_table_cell(l->table, err, "%s", l->rows[i].cells[index[c]]);
    return s ? s : print_table(l->table, err);
}

static fst_status list_table(fst_registry *registry, size_t limit, fst_error *err)
{
    struct listing l = {.registry = registry, .err = err};
    fst_status s = fst_registry_list(registry, limit, keep_row, &l, err);
    s = s ? s : l.status;
    for (size_t i = 0; !s && i < l.count; i++)
        s = settings_cell(&l, &l.rows[i], err);
    if (!s && !l.count)
        puts("no runs yet");
    else if (!s)
        s = print_rows(&l, err);
    for (size_t i = 0; i < l.count; i++) {
        fst_free(l.rows[i].task);
        fst_free(l.rows[i].settings);
        fst_free(l.rows[i].output);
        for (size_t c = 0; c < CELLS; c++)
            fst_free(l.rows[i].cells[c]);
    }
    fst_free(l.rows);
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
    for (const char *at = r->settings; *at; at += strcspn(at, "\n") + 1) {
        char line[512];
        snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\n"), at);
        detail(at == r->settings ? "settings" : "", line);
    }
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

/* {"stages.edge_kd.epochs": "5", ...} */
static json_t *settings_json(const char *lines)
{
    json_t *j = json_object();
    for (const char *at = lines; *at; at += strcspn(at, "\n") + 1) {
        size_t len = strcspn(at, "\n"), key = strcspn(at, "=");
        char *line = key < len ? fst_strdup(at) : NULL;
        if (line) {
            line[len] = line[key] = 0;
            json_object_set_new(j, line, fst_json_text(line + key + 1));
        }
        fst_free(line);
    }
    return j;
}

static json_t *run_json(fst_registry *registry, const fst_run *r)
{
    struct reached a = reached_by(registry, r->id, r->settings);
    char seed[24]; /* as text: JSON readers keep 53 bits */
    snprintf(seed, sizeof seed, "%llu", (unsigned long long)r->seed);
    json_t *j = json_pack("{s:I, s:o, s:o, s:o, s:s, s:s, s:o, s:o, s:I, s:I, s:I, s:o, s:I, s:o, s:o, s:o}", "id",
                          (json_int_t)r->id, "task", fst_json_text(r->task), "task_path", fst_json_text(r->task_path),
                          "output", fst_json_text(r->output), "seed", seed, "status", fst_run_status_name(r->status),
                          "stage", fst_json_text(r->stage), "message", fst_json_text(r->message), "started_ms",
                          (json_int_t)r->started_ms, "updated_ms", (json_int_t)r->updated_ms, "ended_ms",
                          (json_int_t)r->ended_ms, "seconds", fst_json_number(r->seconds), "pid", (json_int_t)r->pid,
                          "host", fst_json_text(r->host), "accuracy", fst_json_number(r->last_accuracy),
                          "best_accuracy", fst_json_number(r->best_accuracy));
    json_object_set_new(j, "teacher_accuracy", fst_json_number(a.teacher));
    json_object_set_new(j, "student_accuracy", fst_json_number(a.student));
    json_object_set_new(j, "cascade_accuracy", fst_json_number(a.cascade));
    json_object_set_new(j, "settings", settings_json(r->settings));
    return j;
}

struct runs {
    fst_registry *registry;
    json_t *list;
};

static bool append_run(void *ctx, const fst_run *r)
{
    struct runs *runs = ctx;
    return !json_array_append_new(runs->list, run_json(runs->registry, r));
}

static bool append_figure(void *ctx, const fst_figure *f)
{
    json_t *j =
        json_pack("{s:o, s:o, s:o, s:o, s:o, s:I}", "stage", fst_json_text(f->stage), "key", fst_json_text(f->key),
                  "value", f->text ? fst_json_text(f->text) : fst_json_number(f->value), "low", fst_json_number(f->low),
                  "high", fst_json_number(f->high), "time_ms", (json_int_t)f->time_ms);
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
    fst_status s = fst_registry_find(registry, name, append_run, &(struct runs){registry, runs}, err);
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
        s = fst_registry_list(registry, limit, append_run, &(struct runs){registry, runs}, err);
        if (!s)
            s = print_json(runs, err);
    }
    json_decref(runs);
    return s;
}

/* ---- the command -------------------------------------------------------------------------- */

static bool take_output(void *ctx, const fst_run *r)
{
    char **output = ctx;
    *output = fst_strdup(r->output);
    return true;
}

static fst_status prune(fst_registry *registry, const struct options *o, fst_error *err)
{
    char *output = NULL, size[FST_HUMAN];
    size_t removed = 0;
    uint64_t bytes = 0;
    if (!operand(o, 0))
        return fst_fail(err, FST_E_CONFIG, "--prune needs a RUN: it removes files of one output");
    fst_status s = fst_registry_find(registry, operand(o, 0), take_output, &output, err);
    if (!s)
        s = output ? fst_task_prune(output, (size_t)option_int(o, "prune"), &removed, &bytes, err)
                   : fst_fail_memory(err, 256);
    if (!s)
        printf("%zu kept stages removed from %s, %s\n", removed, output, fst_human_bytes((double)bytes, size));
    fst_free(output);
    return s;
}

static fst_status look(const struct options *o, const char *path, fst_error *err)
{
    fst_registry *registry = NULL;
    const char *name = operand(o, 0);
    size_t limit = (size_t)option_int(o, "limit");
    fst_status s = fst_registry_open(&registry, path, err);
    if (s)
        return s;
    if (option_given(o, "prune"))
        s = prune(registry, o, err);
    else if (option_flag(o, "json"))
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
    .description =
        "Lists what ran, that which was at work last first: number, task, the settings in which the runs of a "
        "task differ, output, status, stage, start, working time (of all resumptions together), and the "
        "accuracy of teacher, student (of the last stage that trained one) and cascade. Each set of settings "
        "of an output folder is a run of its own. A run whose process ended without saying so is shown as interrupted; "
        "running its task "
        "again continues it.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

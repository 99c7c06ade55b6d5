/* fedstill sweep: many runs of one task. What it does is fedstill/sweep.h's affair; here are options, lines and tables.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common.h"
#include "fedstill/sweep.h"
#include "task_run.h"

static const char *const mode_names[] = {TASK_MODES, NULL};

static const struct option_spec options[] = {
    {.name = "grid",
     .letter = 'g',
     .argument = "KEY=A,B,C",
     .type = OPTION_LIST,
     .help = "Values that a key of the task file takes, each as in --set: stages.edge_kd.epochs=5,10. A value with "
             "commas is written in quotes or brackets. All combinations of all grids are run."},
    {.name = "point",
     .letter = 'p',
     .argument = "KEY=A,OTHER=B",
     .type = OPTION_LIST,
     .help = "Settings that belong together, where not all combinations make sense: one with strategy=fedavg, one with "
             "strategy=fedprox,prox_mu=0.1 (with their full keys). Each is combined with all grids."},
    {.name = "seeds",
     .argument = "N|A,B,C",
     .type = OPTION_STRING,
     .fallback = "1",
     .help = "How many seeds each combination is run with, the task's own, the next one and so on; or which, with "
             "commas."},
    SET_OPTION,
    {.name = "jobs",
     .letter = 'j',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = FST_SWEEP_MAX_JOBS,
     .fallback = "1",
     .help = "Runs at the same time, each a process with its share of the threads. No result depends on it."},
    THREADS_OPTION("Threads of all jobs together (default: the CPUs)."),
    MODE_OPTION(mode_names),
    BACKEND_OPTION,
    OUTPUT_OPTION("The sweep's folder (default: sweep in the task's folder)."),
    {.name = "halving",
     .type = OPTION_FLAG,
     .help = "Stop the worse half of the combinations again and again, by their accuracy on validation samples. Which "
             "are stopped does not depend on --jobs or on who is faster: a run waits only while it is not certain to "
             "which half it belongs."},
    {.name = "by",
     .argument = "STAGE",
     .type = OPTION_STRING,
     .help = "The stage whose accuracy counts, in the table and with --halving (default: the last that trains a "
             "model)."},
    {.name = "fail-fast", .type = OPTION_FLAG, .help = "End with the first run that fails."},
    NO_REUSE_OPTION("Take no finished stages from outputs other than this sweep's own."),
    DRY_RUN_OPTION("List the runs, what they share and what is there already; write nothing."),
    JSON_RESULT_OPTION("sweep.json"),
    {0},
};

static const struct operand_spec operands[] = {
    TASK_OPERAND,
    {0},
};

static const char *const examples[] = {
    "fedstill sweep tasks/mnist --grid clients.alpha=0.1,0.3,1 --seeds 3 --jobs 2",
    "Nine runs, two at a time; those with one seed share teacher, soft labels and student.",
    "fedstill sweep tasks/mnist --set data.validation=0.1 --grid stages.federated_train.optimizer.learning_rate="
    "0.001,0.01,0.1,1 --halving",
    "Four learning rates; two of them are stopped after a quarter of the rounds, one more after half.",
    NULL,
};

/* ---- progress -------------------------------------------------------------------------------------------- */

static void on_checking(void *ctx, size_t done, size_t runs)
{
    char line[96];
    (void)ctx;
    snprintf(line, sizeof line, "checking: run %zu of %zu", done + 1, runs);
    progress_show(done < runs ? line : NULL);
}

static const char *share_text(double x, char out[FST_HUMAN])
{
    return isfinite(x) ? fst_human_percent(x, out) : "-";
}

/* "; about 4 min left", or nothing */
static const char *left_text(const fst_sweep_progress *p, char *out, size_t size)
{
    char a[FST_HUMAN];
    *out = 0;
    if (isfinite(p->left) && p->left >= 1)
        snprintf(out, size, "; about %s left%s", fst_human_seconds(p->left, a), p->rung ? " to this rung" : "");
    return out;
}

/* On a terminal broken at blanks, where it is too long for one line. */
static void say(const char *line)
{
    enum { WIDTH = 79, INDENT = 6 };
    fst_buf out = {0};
    size_t column = 0;
    bool wraps = isatty(STDERR_FILENO);
    fst_status s = FST_OK;
    for (const char *at = line; !s && *at;) {
        size_t n = strcspn(at, " ");
        bool breaks = wraps && column > INDENT && column + 1 + n > WIDTH;
        if (at > line)
            s = breaks ? fst_buf_printf(&out, NULL, "\n%*s", INDENT, "") : fst_buf_append(&out, " ", 1, NULL);
        column = breaks ? INDENT : column + (at > line);
        if (!s)
            s = fst_buf_append(&out, at, n, NULL);
        column += n;
        at += n + (at[n] == ' ');
    }
    progress_say(s ? line : out.data);
    fst_buf_release(&out);
}

static void on_tick(void *ctx, const fst_sweep_progress *p)
{
    char line[400], left[96];
    (void)ctx;
    snprintf(line, sizeof line, "%zu/%zu done, %zu at work%s%s%s", p->done + p->failed + p->stopped, p->runs, p->active,
             left_text(p, left, sizeof left), *p->now ? ": " : "", p->now);
    progress_show(line);
}

static void on_run(void *ctx, const fst_sweep_run_view *r, const fst_sweep_progress *p)
{
    char a[FST_HUMAN], b[FST_HUMAN], c[FST_HUMAN], left[96];
    fst_buf line = {0};
    fst_status s = fst_buf_printf(&line, NULL, "[%zu/%zu] %s: ", p->done + p->failed + p->stopped, p->runs, r->name);
    left_text(p, left, sizeof left);
    if (s)
        return;
    switch (r->state) {
    case FST_SWEEP_DONE:
        s = fst_buf_printf(&line, NULL, "done in %s, validation %s, test %s%s", fst_human_seconds(r->seconds, a),
                           share_text(r->validation, b), share_text(r->test, c), left);
        break;
    case FST_SWEEP_PAUSED:
        s = fst_buf_printf(&line, NULL, "waits at the rung%s", left);
        break;
    case FST_SWEEP_RUNNING:
        s = fst_buf_printf(&line, NULL, "runs%s", left);
        break;
    case FST_SWEEP_FAILED:
    case FST_SWEEP_STOPPED:
        s = fst_buf_printf(&line, NULL, "%s, %s", fst_sweep_state_name(r->state), r->why);
        break;
    case FST_SWEEP_MISSING:
        s = fst_buf_printf(&line, NULL, "interrupted");
        break;
    }
    if (!s)
        say(line.data);
    fst_buf_release(&line);
    on_tick(ctx, p);
}

static void on_note(void *ctx, const char *line)
{
    (void)ctx;
    say(line);
}

/* The same warning of every run is one. */
static void log_once(void *ctx, fst_log_level level, const char *message)
{
    enum { KNOWN = 64 };
    static fst_hash128 known[KNOWN];
    static size_t n;
    fst_hash128 h = fst_hash(message, strlen(message), (uint64_t)level);
    for (size_t i = 0; i < n; i++)
        if (known[i].lo == h.lo && known[i].hi == h.hi)
            return;
    if (n < KNOWN)
        known[n++] = h;
    progress_log(ctx, level, message);
}

/* ---- what is to be done ---------------------------------------------------------------------------------- */

enum { THERE, SHARED, MAKE, WAYS };
enum { MAX_STAGES = 128 };

struct tally { /* of one stage over all runs */
    const char *stage;
    size_t runs[WAYS];
};

struct plan {
    struct tally stage[MAX_STAGES];
    size_t stages, done;
};

static int way_of(const char *how)
{
    return !strcmp(how, "make") ? MAKE : !strncmp(how, "shared with ", 12) ? SHARED : THERE;
}

static void count_stage(struct plan *p, const char *stage, int way)
{
    size_t i = 0;
    while (i < p->stages && strcmp(p->stage[i].stage, stage))
        i++;
    if (i == MAX_STAGES)
        return;
    if (i == p->stages)
        p->stage[p->stages++] = (struct tally){.stage = stage};
    p->stage[i].runs[way]++;
}

static fst_status plan_row(fst_sweep *w, size_t i, fst_table *t, struct plan *p, fst_error *err)
{
    fst_buf make = {0};
    size_t n[WAYS] = {0};
    const char *stage, *how;
    fst_sweep_run_view r = fst_sweep_run_at(w, i);
    fst_status s = FST_OK;
    p->done += r.state == FST_SWEEP_DONE;
    for (size_t k = 0; !s && fst_sweep_stage_at(w, i, k, &stage, &how); k++) {
        int way = way_of(how);
        n[way]++;
        count_stage(p, stage, way);
        if (way == MAKE)
            s = fst_buf_printf(&make, err, "%s%s", make.len ? ", " : "", stage);
    }
    if (!s)
        s = fst_table_cell(t, err, "%s", *r.setting ? r.setting : "as the task says");
    if (!s)
        s = fst_table_cell(t, err, "%lld", (long long)r.seed);
    if (!s)
        s = fst_table_cell(t, err, "%zu", n[THERE]);
    if (!s)
        s = fst_table_cell(t, err, "%zu", n[SHARED]);
    if (!s)
        s = fst_table_cell(t, err, "%s", make.len ? make.data : r.state == FST_SWEEP_DONE ? "done" : "-");
    fst_buf_release(&make);
    return s;
}

static fst_status list_stages(const struct plan *p, fst_buf *out, fst_error *err)
{
    static const fst_column columns[] = {
        {"stage", FST_LEFT}, {"there", FST_RIGHT}, {"shared", FST_RIGHT}, {"to be made", FST_RIGHT}};
    fst_table *t = NULL;
    size_t all[WAYS] = {0};
    fst_status s = fst_table_new(&t, columns, sizeof columns / sizeof *columns, err);
    for (size_t i = 0; !s && i <= p->stages; i++) {
        const size_t *n = i < p->stages ? p->stage[i].runs : all;
        if (i == p->stages)
            s = fst_table_rule(t, err);
        if (!s)
            s = fst_table_cell(t, err, "%s", i < p->stages ? p->stage[i].stage : "all");
        for (int way = 0; !s && way < WAYS; way++) {
            s = fst_table_cell(t, err, "%zu", n[way]);
            all[way] += i < p->stages ? n[way] : 0;
        }
    }
    if (!s)
        s = write_table(t, !output_is_utf8(), out, err);
    fst_table_free(t);
    return s;
}

static fst_status list_runs(fst_sweep *w, fst_error *err)
{
    static const fst_column columns[] = {{"setting", FST_LEFT},
                                         {"seed", FST_RIGHT},
                                         {"there", FST_RIGHT},
                                         {"shared", FST_RIGHT},
                                         {"to be made", FST_LEFT}};
    fst_table *t = NULL;
    fst_buf out = {0};
    struct plan p = {.stages = 0};
    fst_status s = fst_table_new(&t, columns, sizeof columns / sizeof *columns, err);
    for (size_t i = 0; !s && i < fst_sweep_runs(w); i++)
        s = plan_row(w, i, t, &p, err);
    if (!s)
        s = write_table(t, !output_is_utf8(), &out, err);
    if (!s)
        s = fst_buf_printf(&out, err, "\n%zu runs in %s, %zu of them done.\n\n", fst_sweep_runs(w), fst_sweep_folder(w),
                           p.done);
    if (!s)
        s = list_stages(&p, &out, err);
    if (!s)
        s = fst_buf_printf(&out, err,
                           "\nthere: finished before, here or in another output\nshared: made by another run "
                           "of the sweep\n");
    fst_table_free(t);
    return finish_output(&out, s);
}

/* ---- what came of it ------------------------------------------------------------------------------------- */

struct spread {
    size_t n;
    double mean, deviation; /* of a sample: by n - 1; NaN below two */
};

static struct spread spread_of(const fst_sweep *w, size_t setting, bool validation)
{
    struct spread s = {.mean = 0, .deviation = NAN};
    double squares = 0;
    size_t seeds = fst_sweep_seeds(w);
    for (int pass = 0; pass < 2; pass++) {
        for (size_t k = 0; k < seeds; k++) {
            fst_sweep_run_view r = fst_sweep_run_at(w, setting * seeds + k);
            double x = validation ? r.validation : r.test;
            if (r.state != FST_SWEEP_DONE || !isfinite(x))
                continue;
            s.n += pass == 0;
            s.mean += pass == 0 ? x : 0;
            squares += pass == 1 ? (x - s.mean) * (x - s.mean) : 0;
        }
        if (pass == 0)
            s.mean = s.n ? s.mean / (double)s.n : NAN;
    }
    if (s.n > 1)
        s.deviation = sqrt(squares / (double)(s.n - 1));
    return s;
}

static fst_status spread_cell(fst_table *t, const struct spread *s, fst_error *err)
{
    if (!isfinite(s->mean))
        return fst_table_cell(t, err, "-");
    if (!isfinite(s->deviation))
        return fst_table_cell(t, err, "%.2f %%", 100 * s->mean);
    return fst_table_cell(t, err, "%.2f (%.2f) %%", 100 * s->mean, 100 * s->deviation);
}

/* A setting that a halving stopped has no row. */
static bool is_stopped(const fst_sweep *w, size_t i)
{
    bool stopped = false;
    for (size_t k = 0; k < fst_sweep_seeds(w); k++)
        stopped = stopped || fst_sweep_run_at(w, i * fst_sweep_seeds(w) + k).state == FST_SWEEP_STOPPED;
    return stopped;
}

static const char *setting_text(const fst_sweep *w, size_t i)
{
    const char *text = fst_sweep_run_at(w, i * fst_sweep_seeds(w)).setting;
    return *text ? text : "as the task says";
}

static fst_status setting_row(const fst_sweep *w, size_t i, fst_table *t, fst_error *err)
{
    size_t done = 0, seeds = fst_sweep_seeds(w);
    struct spread validation = spread_of(w, i, true), test = spread_of(w, i, false);
    for (size_t k = 0; k < seeds; k++)
        done += fst_sweep_run_at(w, i * seeds + k).state == FST_SWEEP_DONE;
    fst_status s = fst_table_cell(t, err, "%s", setting_text(w, i));
    if (!s)
        s = fst_table_cell(t, err, "%zu/%zu", done, seeds);
    if (!s)
        s = spread_cell(t, &validation, err);
    return s ? s : spread_cell(t, &test, err);
}

/* Best validation first; what has none after it, in the order of the grid. */
static size_t next_setting(const fst_sweep *w, const bool *shown)
{
    size_t best = SIZE_MAX;
    double value = NAN;
    for (size_t i = 0; i < fst_sweep_settings(w); i++) {
        double x = shown[i] ? NAN : spread_of(w, i, true).mean;
        if (!shown[i] && (best == SIZE_MAX || (isfinite(x) && !(value >= x)))) {
            best = i;
            value = x;
        }
    }
    return best;
}

static const char *advice(const fst_sweep *w, bool validated)
{
    bool done = false;
    for (size_t i = 0; i < fst_sweep_runs(w); i++)
        done = done || fst_sweep_run_at(w, i).state == FST_SWEEP_DONE;
    return !done       ? "No run has come to its end."
           : validated ? "Choose by validation; the test column is there to know, not to choose."
                       : "There are no validation samples to choose by: data.validation keeps some apart.";
}

static fst_status show_settings(const fst_sweep *w, fst_buf *out, fst_error *err)
{
    static const fst_column columns[] = {
        {"setting", FST_LEFT}, {"seeds", FST_RIGHT}, {"validation", FST_RIGHT}, {"test", FST_RIGHT}};
    fst_table *t = NULL;
    bool *shown = fst_calloc(fst_sweep_settings(w), sizeof *shown), any = false;
    fst_status s = shown ? fst_table_new(&t, columns, sizeof columns / sizeof *columns, err)
                         : fst_fail_memory(err, fst_sweep_settings(w));
    for (size_t n = 0; !s && n < fst_sweep_settings(w); n++) {
        size_t i = next_setting(w, shown);
        shown[i] = true;
        any = any || isfinite(spread_of(w, i, true).mean);
        if (!is_stopped(w, i))
            s = setting_row(w, i, t, err);
    }
    if (!s)
        s = write_table(t, !output_is_utf8(), out, err);
    if (!s)
        s = fst_buf_printf(out, err, "\nAccuracy of %s, mean (standard deviation) over the seeds.\n%s\n",
                           fst_sweep_stage(w), advice(w, any));
    fst_table_free(t);
    fst_free(shown);
    return s;
}

static fst_status show_stopped(const fst_sweep *w, fst_buf *out, fst_error *err)
{
    fst_status s = FST_OK;
    bool any = false;
    for (size_t i = 0; !s && i < fst_sweep_settings(w); i++) {
        const char *why = "";
        for (size_t k = 0; k < fst_sweep_seeds(w); k++) {
            fst_sweep_run_view r = fst_sweep_run_at(w, i * fst_sweep_seeds(w) + k);
            why = r.state == FST_SWEEP_STOPPED ? r.why : why;
        }
        if (*why)
            s = fst_buf_printf(out, err, "%s  %s\n    %s\n", any ? "" : "\nStopped before their end:\n",
                               setting_text(w, i), why);
        any = any || *why;
    }
    return s;
}

static fst_status show_failures(const fst_sweep *w, fst_buf *out, fst_error *err)
{
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < fst_sweep_runs(w); i++) {
        fst_sweep_run_view r = fst_sweep_run_at(w, i);
        if (r.state != FST_SWEEP_FAILED)
            continue;
        s = fst_buf_printf(out, err, "\n%s failed: %s\n  log: %s\n  again: ", r.name, r.why, r.log);
        if (!s)
            s = fst_sweep_command(w, i, out, err);
        if (!s)
            s = fst_buf_append(out, "\n", 1, err);
    }
    return s;
}

static size_t count_failed(const fst_sweep *w)
{
    size_t n = 0;
    for (size_t i = 0; i < fst_sweep_runs(w); i++)
        n += fst_sweep_run_at(w, i).state == FST_SWEEP_FAILED;
    return n;
}

static fst_status show(const fst_sweep *w, bool json, fst_error *err)
{
    fst_buf out = {0}, text = {0};
    fst_status s = FST_OK;
    if (json) {
        char *path = fst_path_join(fst_sweep_folder(w), "sweep.json");
        s = path ? fst_file_read(path, 1 << 26, &text, err) : fst_fail_memory(err, 256);
        if (!s)
            s = fst_text_json(&out, text.data, err);
        if (!s)
            s = fst_buf_append(&out, "\n", 1, err);
        fst_buf_release(&text);
        fst_free(path);
        return finish_output(&out, s);
    }
    s = show_settings(w, &out, err);
    if (!s)
        s = show_stopped(w, &out, err);
    if (!s)
        s = show_failures(w, &out, err);
    if (!s)
        s = fst_buf_printf(&out, err, "\nfedstill compare %s\n", fst_sweep_folder(w));
    return finish_output(&out, s);
}

/* ---- the command ----------------------------------------------------------------------------------------- */

static fst_status work(fst_sweep *w, bool json, fst_error *err)
{
    signals_stop_by(&task_stop);
    fst_status s = fst_sweep_run(w, err);
    progress_show(NULL);
    if (s == FST_E_CANCELLED)
        return task_say_how_to_go_on(err);
    if (!s || (count_failed(w) && !json)) { /* a full disk may have kept the sweep from its last word */
        fst_error e = {0};
        fst_status shown = show(w, json, s ? &e : err);
        s = s ? s : shown;
    }
    size_t failed = count_failed(w);
    if (!s && failed)
        s = fst_fail(err, FST_E_IO, "%zu of %zu runs failed; the same command runs them again", failed,
                     fst_sweep_runs(w));
    return s;
}

static fst_status run(const struct options *o, fst_error *err)
{
    fst_sweep *w = NULL;
    fst_sweep_spec spec = {.task = operand(o, 0),
                           .seeds = option_string(o, "seeds"),
                           .output = option_string(o, "output"),
                           .mode = option_given(o, "mode") ? option_string(o, "mode") : NULL,
                           .backend = option_string(o, "backend"),
                           .by = option_string(o, "by"),
                           .jobs = (int)option_int(o, "jobs"),
                           .threads = (int)option_int(o, "threads"),
                           .no_reuse = option_flag(o, "no-reuse"),
                           .fail_fast = option_flag(o, "fail-fast"),
                           .halving = option_flag(o, "halving"),
                           .stop = &task_stop,
                           .observer = {NULL, on_checking, on_run, on_note, on_tick}};
    spec.sets = option_list(o, "set", &spec.nsets);
    spec.grid = option_list(o, "grid", &spec.ngrid);
    spec.point = option_list(o, "point", &spec.npoints);
    fst_log_set(log_once, NULL);
    fst_status s = fst_sweep_open(&w, &spec, err);
    if (!s)
        s = fst_sweep_plan(w, err);
    progress_show(NULL);
    if (!s)
        s = option_flag(o, "dry-run") ? list_runs(w, err) : work(w, option_flag(o, "json"), err);
    fst_sweep_free(w);
    return s;
}

const struct command cmd_sweep = {
    .name = "sweep",
    .summary = "Run a task with many settings and seeds",
    .description =
        "Runs every combination of the grid's values with every seed, each as a process of its own, and ends with a "
        "table. What is there already is not run again: after a kill, or with more values, the same command goes on "
        "where it was. Stages that several runs have in common are made once.\n\nFOLDER/runs/NAME is the output of a "
        "run, FOLDER/logs/NAME.log what it said, and FOLDER/sweep.json says how far all are. A run that fails does not "
        "end the sweep; at its end it says how to repeat it, and the exit status is 1.\n\n--halving never looks at "
        "test "
        "samples: without samples for validation (data.validation) it is refused.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

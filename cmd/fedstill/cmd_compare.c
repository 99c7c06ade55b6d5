/* fedstill compare: several runs side by side. Finds the runs and what they were asked to do; what is said of them is
 * the library's business (fedstill/compare.h). */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common.h"
#include "fedstill/compare.h"
#include "find_run.h"

static const char *const formats[] = {"text", "markdown", "csv", "json", "html", NULL}; /* as fst_compare_format */

static const struct option_spec options[] = {
    {.name = "stage",
     .letter = 's',
     .argument = "STAGE",
     .type = OPTION_LIST,
     .help =
         "Compare this stage of each run; may be given several times, for a row each. Default: of each run the last "
         "one that left a model."},
    {.name = "target",
     .argument = "ACCURACY",
     .type = OPTION_LIST,
     .help = "Count rounds, bytes and seconds to this accuracy on the test samples, 0.9 for 90 %; may be given several "
             "times. Default: 90 % of the reference's last round, and that round less one point."},
    {.name = "against",
     .argument = "ROW",
     .type = OPTION_STRING,
     .help = "The reference of the differences: a row's number, or what it is called. Default: the first row."},
    {.name = "format",
     .letter = 'f',
     .argument = "FORMAT",
     .type = OPTION_STRING,
     .fallback = "text",
     .choices = formats,
     .help = "How to write it. csv is the table of methods; json has everything."},
    {.name = "out",
     .letter = 'o',
     .argument = "FILE",
     .type = OPTION_STRING,
     .help = "The file to write, - for standard output (the default, but of html compare.html)."},
    {.name = "csv",
     .argument = "DIR",
     .type = OPTION_STRING,
     .help = "Also write every table, the curves and the runs into this folder as NAME.csv, with all digits."},
    {0},
};

static const struct operand_spec operands[] = {
    {"RUN", 1, -1,
     "A task's folder, a run's output folder, a run's number or name as `fedstill runs` shows them, or a sweep's "
     "folder "
     "(all its runs)."},
    {0},
};

static const char *const examples[] = {
    "fedstill compare out/fedavg-1 out/fedavg-2 out/fedprox-1 out/fedprox-2",
    "Two methods with two seeds each; the second one's difference to the first.",
    "fedstill compare out/* --target 0.9 --format html --out compare.html",
    "A page with curves, and the rounds, bytes and seconds to 90 %.",
    "fedstill compare out/* --stage federated --stage fused --against fused",
    "Two stages of the same runs.",
    NULL,
};

/* ---- which runs? --------------------------------------------------------------------------------------------- */

struct list {
    fst_compare_run *run; /* strings are owned */
    size_t count, room;
    size_t unfinished; /* of sweeps: runs that have not come to their end */
};

static void list_release(struct list *l)
{
    for (size_t i = 0; i < l->count; i++) {
        fst_free((char *)l->run[i].name);
        fst_free((char *)l->run[i].output);
        fst_free((char *)l->run[i].settings);
    }
    fst_free(l->run);
}

/* What the output's last run was asked to do: output/task.yaml, else what the registry says of it. */
static fst_status settings_of(const struct found_run *f, char **out, fst_error *err)
{
    fst_task *kept = NULL;
    fst_buf lines = {0};
    char *path = fst_path_join(f->output, "task.yaml");
    if (!path)
        return fst_fail_memory(err, strlen(f->output));
    fst_status s = FST_OK;
    *out = NULL;
    if (!fst_task_load_kept(&kept, path, NULL) && !fst_task_settings(kept, &lines, NULL)) {
        *out = fst_strdup(lines.data ? lines.data : "");
        s = *out ? FST_OK : fst_fail_memory(err, lines.len);
    } else if (f->known && *f->run.settings) {
        *out = fst_strdup(f->run.settings);
        s = *out ? FST_OK : fst_fail_memory(err, strlen(f->run.settings));
    }
    fst_task_free(kept);
    fst_buf_release(&lines);
    fst_free(path);
    return s;
}

/* An output folder that was named twice counts once. */
static bool is_there(const struct list *l, const char *output)
{
    char *path = realpath(output, NULL);
    bool there = false;
    for (size_t i = 0; path && i < l->count && !there; i++) {
        char *other = realpath(l->run[i].output, NULL);
        there = other && !strcmp(path, other);
        free(other);
    }
    free(path);
    return there;
}

static fst_status add_run(struct list *l, const char *name, fst_error *err)
{
    struct found_run f = {.output = NULL};
    char *settings = NULL;
    fst_status s = find_run(&f, name, err);
    if (!s && !is_output(f.output))
        s = fst_fail(err, FST_E_CONFIG, "%s holds no summary.json and no events.jsonl: nothing has run there yet",
                     f.output);
    if (!s && is_there(l, f.output)) {
        found_run_release(&f);
        return FST_OK;
    }
    if (!s)
        s = settings_of(&f, &settings, err);
    if (!s && l->count == l->room) {
        size_t room = l->room ? 2 * l->room : 16;
        fst_compare_run *more = fst_realloc(l->run, l->room * sizeof *more, room * sizeof *more);
        if (more) {
            l->run = more;
            l->room = room;
        } else {
            s = fst_fail_memory(err, room * sizeof *more);
        }
    }
    if (!s) {
        fst_compare_run r = {fst_strdup(name), fst_strdup(f.output), settings};
        settings = NULL;
        l->run[l->count++] = r;
        s = r.name && r.output ? FST_OK : fst_fail_memory(err, strlen(name));
    }
    fst_free(settings);
    found_run_release(&f);
    return s;
}

static int is_visible(const struct dirent *e)
{
    return e->d_name[0] != '.';
}

/* The runs that FOLDER/sweep.json lists; NULL where it lists none. */
static fst_status listed_runs(const char *folder, json_t **out, fst_error *err)
{
    enum { MAX_SWEEP = 16 << 20 };
    fst_buf text = {0};
    char *path = fst_path_join(folder, "sweep.json");
    fst_status s = path ? fst_file_read(path, MAX_SWEEP, &text, err) : fst_fail_memory(err, strlen(folder));
    if (!s)
        s = fst_json_fits(path, text.data, text.len, text.len, err);
    json_t *j = s ? NULL : json_loadb(text.data, text.len, 0, NULL);
    if (!s && !j)
        s = fst_fail(err, FST_E_FORMAT, "%s: is no JSON", path);
    *out = json_incref(json_object_get(j, "runs"));
    json_decref(j);
    fst_buf_release(&text);
    fst_free(path);
    return s;
}

/* Did the sweep bring it to its end? What it does not list (a run of another grid, earlier) has a summary or not. */
static bool has_ended(const json_t *runs, const char *name)
{
    size_t i;
    json_t *run;
    json_array_foreach(runs, i, run)
    {
        const char *n = json_string_value(json_object_get(run, "name")),
                   *status = json_string_value(json_object_get(run, "status"));
        if (n && status && !strcmp(n, name))
            return !strcmp(status, "done");
    }
    return true;
}

/* Every folder of FOLDER/runs that has a summary, but for those that were stopped on their way or failed. */
static fst_status add_sweep(struct list *l, const char *folder, fst_error *err)
{
    struct dirent **entries = NULL;
    json_t *listed = NULL;
    char *runs = fst_path_join(folder, "runs");
    int n = runs ? scandir(runs, &entries, is_visible, versionsort) : 0;
    fst_status s = !runs   ? fst_fail_memory(err, strlen(folder))
                   : n < 0 ? fst_fail(err, FST_E_IO, "%s: the sweep's runs cannot be listed", runs)
                           : listed_runs(folder, &listed, err);
    size_t before = l->count;
    for (int i = 0; i < n; i++) {
        char *path = s ? NULL : fst_path_join(runs, entries[i]->d_name);
        if (!s && !path)
            s = fst_fail_memory(err, strlen(runs));
        else if (!s && has_ended(listed, entries[i]->d_name) && holds_file(path, "summary.json"))
            s = add_run(l, path, err);
        else if (!s)
            l->unfinished++;
        fst_free(path);
        free(entries[i]);
    }
    if (!s && l->count == before)
        s = fst_fail(err, FST_E_CONFIG, "%s: no run of this sweep has come to its end yet", folder);
    json_decref(listed);
    free(entries);
    fst_free(runs);
    return s;
}

static fst_status find_all(const struct options *o, struct list *l, fst_error *err)
{
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < operand_count(o); i++)
        s = holds_file(operand(o, i), "sweep.json") ? add_sweep(l, operand(o, i), err) : add_run(l, operand(o, i), err);
    if (!s && l->unfinished)
        fst_log(FST_LOG_WARN,
                "%zu runs of the sweep have not come to their end (stopped, failed, or not run yet) and are left out",
                l->unfinished);
    return s;
}

/* ---- the output ------------------------------------------------------------------------------------------------ */

static fst_status read_targets(const struct options *o, double *out, size_t *n, fst_error *err)
{
    const char *const *texts = option_list(o, "target", n);
    if (*n > 16)
        return fst_fail(err, FST_E_CONFIG, "--target: at most 16 accuracies");
    for (size_t i = 0; i < *n; i++) {
        char *end;
        out[i] = strtod(texts[i], &end);
        if (end == texts[i] || *end || !(out[i] > 0 && out[i] <= 1))
            return fst_fail(err, FST_E_CONFIG, "--target %s: an accuracy is a share above 0 and up to 1, as 0.9",
                            texts[i]);
    }
    return FST_OK;
}

static fst_status write_all(const struct options *o, fst_compare *c, fst_error *err)
{
    fst_buf text = {0};
    int format = 0;
    while (strcmp(formats[format], option_string(o, "format")))
        format++;
    const char *out = option_string(o, "out"), *csv = option_string(o, "csv");
    if (!out && format == FST_COMPARE_HTML)
        out = "compare.html";
    bool to_file = out && strcmp(out, "-");
    fst_status s = fst_compare_write(c, (fst_compare_format)format, to_file ? 0 : output_width(),
                                     !to_file && !output_is_utf8(), &text, err);
    if (!s && csv)
        s = fst_make_folders(csv, err);
    if (!s && csv)
        s = fst_compare_csv(c, write_csv, (void *)csv, err);
    if (!s && to_file) {
        s = fst_file_write(out, text.data, text.len, err);
        if (!s)
            printf("%s\n", out);
    } else if (!s) {
        fwrite(text.data, 1, text.len, stdout);
    }
    fst_buf_release(&text);
    return s;
}

static fst_status run(const struct options *o, fst_error *err)
{
    struct list l = {.run = NULL};
    double targets[16];
    fst_compare_options c = {.targets = targets, .against = option_string(o, "against")};
    fst_compare *all = NULL;
    c.stages = option_list(o, "stage", &c.stage_count);
    fst_status s = read_targets(o, targets, &c.target_count, err);
    if (!s)
        s = find_all(o, &l, err);
    if (!s)
        s = fst_compare_new(&all, l.run, l.count, &c, err);
    if (!s)
        s = write_all(o, all, err);
    fst_compare_free(all);
    list_release(&l);
    return s;
}

const struct command cmd_compare = {
    .name = "compare",
    .summary = "Put runs side by side: curves, costs, differences",
    .description =
        "Runs that differ in nothing but the seed are one method, a row with mean and standard deviation; rows are "
        "called by the settings in which they differ. Shown are accuracy and other scores, best and last round, "
        "rounds, "
        "bytes and seconds to given accuracies, accuracy over rounds, bytes and time, and each method's difference to "
        "the reference, paired by seed, with an interval of 95 % and two tests.\n\n"
        "The best round is chosen on validation samples where the run measured any (select: best); otherwise it is "
        "marked \"on test\". Runs whose last process did not come to its end are left out, runs that are there twice "
        "count once, and rows that were measured on other test samples than the reference are marked; all of that is "
        "said in notes. Nothing is computed anew: what a run did not measure is missing.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

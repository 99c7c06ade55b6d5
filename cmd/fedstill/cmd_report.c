/* fedstill report: one HTML page about a run. Finds the run's files; what the page says is the library's business. */
#include <stdio.h>
#include <string.h>

#include "cmd_report.h"
#include "fedstill/store.h"

enum { MAX_SETTINGS = 1 << 20 };

static const struct option_spec options[] = {
    {.name = "out",
     .letter = 'o',
     .argument = "FILE",
     .type = OPTION_STRING,
     .help = "The file to write, - for standard output (default: report.html in the run's output folder)."},
    {.name = "csv",
     .argument = "DIR",
     .type = OPTION_STRING,
     .help = "Also write every table of the page into this folder as NAME.csv, with all digits."},
    {.name = "evaluate",
     .letter = 'e',
     .type = OPTION_FLAG,
     .help =
         "Try the run's models on its test samples: confusion, accuracy by class and by SNR of every model, and the "
         "samples that were mistaken."},
    {.name = "no-data",
     .type = OPTION_FLAG,
     .help = "Do not open the data: no counts by class, no examples. For data that are large or far away."},
    THREADS_OPTION("Threads of --evaluate (default: the CPUs)."),
    {0},
};

static const struct operand_spec operands[] = {
    {"RUN", 1, 1, "A task's folder, a run's output folder, or a run's number or name as `fedstill runs` shows them."},
    {0},
};

static const char *const examples[] = {
    "fedstill report tasks/mnist --evaluate",
    "Writes tasks/mnist/output/report.html, with confusion matrices of all models.",
    "fedstill report 7 --out /tmp/run7.html",
    "A page about the seventh run.",
    "fedstill report tasks/mnist --csv figures",
    "The page, and figures/models.csv, figures/rounds.csv and so on.",
    NULL,
};

/* A run of the registry; strings of `run` are copies. */
struct found {
    fst_run run;
    char *text[6];
    bool known;
};

static bool keep_run(void *ctx, const fst_run *r)
{
    struct found *f = ctx;
    const char *texts[6] = {r->task, r->task_path, r->output, r->stage, r->message, r->host};
    bool ok = true;
    for (int i = 0; i < 6; i++)
        ok = (f->text[i] = fst_strdup(texts[i])) && ok;
    f->run = *r;
    f->run.task = f->text[0];
    f->run.task_path = f->text[1];
    f->run.output = f->text[2];
    f->run.stage = f->text[3];
    f->run.message = f->text[4];
    f->run.host = f->text[5];
    f->run.settings = "";
    f->known = ok;
    return false;
}

struct job {
    char *output; /* the run's folder */
    char *folder; /* what the task's relative paths start from; NULL: not known */
    fst_task *task;
    fst_buf settings;
    const char *settings_note;
    char why[1200]; /* the note, when the task's file cannot be read */
    struct found found;
};

static void job_release(struct job *j)
{
    fst_free(j->output);
    fst_free(j->folder);
    fst_task_free(j->task);
    fst_buf_release(&j->settings);
    for (int i = 0; i < 6; i++)
        fst_free(j->found.text[i]);
}

/* ---- which run? -------------------------------------------------------------------------------------------- */

static bool holds(const char *folder, const char *name)
{
    char *path = fst_path_join(folder, name);
    bool there = path && fst_file_exists(path);
    fst_free(path);
    return there;
}

static fst_status folder_of(char **out, const char *path, fst_error *err)
{
    const char *slash = strrchr(path, '/');
    char *folder = fst_strdup(slash ? path : ".");
    if (!folder)
        return fst_fail_memory(err, strlen(path));
    if (slash)
        folder[slash == path ? 1 : slash - path] = 0;
    *out = folder;
    return FST_OK;
}

/* Looks into the registry, where there is one. */
static fst_status look_up(struct found *f, const char *name, fst_error *err)
{
    char *path = NULL;
    fst_registry *registry = NULL;
    fst_status s = fst_registry_path(&path, err);
    if (!s && !fst_file_exists(path))
        s = fst_fail(err, FST_E_CONFIG,
                     "\"%s\" is no folder of a task or of its output, and there is no run registry %s yet", name, path);
    if (!s)
        s = fst_registry_open(&registry, path, err);
    if (!s)
        s = fst_registry_find(registry, name, keep_run, f, err);
    if (!s && !f->known)
        s = fst_fail_memory(err, sizeof *f);
    fst_registry_free(registry);
    fst_free(path);
    return s;
}

static fst_status copy(char **out, const char *text, fst_error *err)
{
    *out = fst_strdup(text);
    return *out ? FST_OK : fst_fail_memory(err, strlen(text));
}

/* The file of a task, or its folder; a run's number and a task's name are no files. */
static bool is_task(const char *name)
{
    size_t n = strlen(name);
    return holds(name, "task.yaml") || (n > 5 && !strcmp(name + n - 5, ".yaml") && fst_file_exists(name));
}

static bool is_output(const char *folder)
{
    return holds(folder, "summary.json") || holds(folder, "events.jsonl");
}

/* A task's file that cannot be read is no reason to say nothing of its run, if that is where it usually is. */
static fst_status from_task(struct job *j, const char *name, fst_error *err)
{
    fst_error e = {0};
    bool folder = holds(name, "task.yaml");
    fst_status s = folder ? copy(&j->folder, name, err) : folder_of(&j->folder, name, err);
    if (s)
        return s;
    s = fst_task_load(&j->task, name, NULL, 0, &e);
    if (!s)
        return copy(&j->output, fst_task_output(j->task), err);
    if (!(j->output = fst_path_join(j->folder, "output")))
        return fst_fail_memory(err, strlen(j->folder));
    if (!is_output(j->output))
        return fst_fail(err, s, "%s", e.message);
    snprintf(j->why, sizeof j->why, "The task's file cannot be read: %s", e.message);
    j->settings_note = j->why;
    return FST_OK;
}

static bool keep_id(void *ctx, const fst_run *run)
{
    *(int64_t *)ctx = run->id;
    return false;
}

/* An output folder shows the run that was at work there last. The page of another one would have that one's figures. */
static fst_status check_current(const struct job *j, fst_error *err)
{
    fst_registry *registry = NULL;
    int64_t last = j->found.run.id;
    if (!fst_registry_open_existing(&registry, NULL))
        (void)!fst_registry_find(registry, j->output, keep_id, &last, NULL);
    fst_registry_free(registry);
    if (last == j->found.run.id)
        return FST_OK;
    return fst_fail(
        err, FST_E_CONFIG,
        "%s shows run %lld now, not run %lld: run the task again with the settings of run %lld, which computes "
        "nothing that is kept (fedstill runs %lld)",
        j->output, (long long)last, (long long)j->found.run.id, (long long)j->found.run.id, (long long)j->found.run.id);
}

static fst_status find_run(struct job *j, const char *name, fst_error *err)
{
    fst_status s;
    if (is_output(name)) {
        s = copy(&j->output, name, err);
    } else if (is_task(name)) {
        s = from_task(j, name, err);
    } else {
        s = look_up(&j->found, name, err);
        if (!s)
            s = copy(&j->output, j->found.run.output, err);
        return s ? s : check_current(j, err);
    }
    if (!s && look_up(&j->found, j->output, NULL) == FST_E_MEMORY)
        s = fst_fail_memory(err, sizeof j->found);
    return s;
}

/* ---- its settings --------------------------------------------------------------------------------------------- */

/* Where the task's relative paths start: usually the folder that holds the output. The registry has the path as it was
 * given, which may have been another folder's. */
static fst_status find_folder(struct job *j, fst_error *err)
{
    if (j->folder)
        return FST_OK;
    char *above = fst_path_join(j->output, "..");
    if (!above)
        return fst_fail_memory(err, strlen(j->output));
    j->folder = above;
    if (holds(above, "task.yaml") || !j->found.known || !fst_file_exists(j->found.run.task_path))
        return FST_OK;
    fst_free(above);
    j->folder = NULL;
    return folder_of(&j->folder, j->found.run.task_path, err);
}

/* output/task.yaml is what the last run was asked to do. */
static fst_status read_settings(struct job *j, fst_error *err)
{
    fst_task *kept = NULL;
    char *path = fst_path_join(j->output, "task.yaml");
    fst_status s = path ? find_folder(j, err) : fst_fail_memory(err, strlen(j->output));
    if (!s && !fst_task_load_kept(&kept, path, NULL) && !fst_file_read(path, MAX_SETTINGS, &j->settings, NULL)) {
        fst_task_free(j->task);
        j->task = kept;
        kept = NULL;
        j->settings_note = "As the last run of this task took them: all defaults filled in, and what --set changed.";
    } else if (!s && !j->task) {
        (void)!fst_task_load(&j->task, j->folder, NULL, 0, NULL);
    }
    fst_task_free(kept);
    if (!s && j->task && !j->settings.data) {
        s = fst_task_dump(j->task, &j->settings, err);
        j->settings_note =
            "As the task's file says now, all defaults filled in; what --set changed in the run is not known.";
    }
    fst_free(path);
    return s;
}

/* ---- the page --------------------------------------------------------------------------------------------------- */

static fst_status write_page(const struct options *o, const char *output, const fst_buf *page, fst_error *err)
{
    const char *out = option_string(o, "out");
    if (out && !strcmp(out, "-")) {
        fwrite(page->data, 1, page->len, stdout);
        return FST_OK;
    }
    char *path = out ? fst_strdup(out) : fst_path_join(output, "report.html");
    fst_status s = path ? fst_file_write(path, page->data, page->len, err) : fst_fail_memory(err, 256);
    if (!s)
        printf("%s\n", path);
    fst_free(path);
    return s;
}

static fst_status write_table_file(void *ctx, const char *name, const fst_buf *text, fst_error *err)
{
    char file[128];
    snprintf(file, sizeof file, "%.100s.csv", name);
    char *path = fst_path_join(ctx, file);
    fst_status s = path ? fst_file_write(path, text->data, text->len, err) : fst_fail_memory(err, sizeof file);
    fst_free(path);
    return s;
}

static fst_status make(const struct options *o, struct job *j, fst_error *err)
{
    fst_buf page = {0};
    struct report_data d = {0};
    fst_html_report r = {.output = j->output, .settings_note = j->settings_note};
    fst_status s = FST_OK;
    if (j->task && !option_flag(o, "no-data"))
        s = report_data_open(&d, j->task, j->folder, j->output, err);
    if (!s && option_flag(o, "evaluate") && !j->task)
        s = fst_fail(err, FST_E_CONFIG, "--evaluate needs the task's file, to find the data; %s says nothing of it",
                     j->output);
    if (!s && option_flag(o, "evaluate"))
        s = report_data_try(&d, j->output, (int)option_int(o, "threads"), err);
    report_data_fill(&d, &r);
    r.settings = j->settings.data;
    r.run = j->found.known ? &j->found.run : NULL;
    const char *csv = option_string(o, "csv");
    if (!s && csv)
        s = fst_make_folders(csv, err);
    if (!s)
        s = fst_report_html_csv(&r, &page, csv ? write_table_file : NULL, (void *)csv, err);
    if (!s)
        s = write_page(o, j->output, &page, err);
    fst_buf_release(&page);
    report_data_release(&d);
    return s;
}

static fst_status run(const struct options *o, fst_error *err)
{
    struct job j = {0};
    if (option_flag(o, "evaluate") && option_flag(o, "no-data"))
        return fst_fail(err, FST_E_CONFIG, "--evaluate and --no-data exclude each other");
    fst_status s = find_run(&j, operand(o, 0), err);
    if (!s && !is_output(j.output))
        s = fst_fail(err, FST_E_CONFIG, "%s holds no summary.json and no events.jsonl: nothing has run there yet",
                     j.output);
    if (!s)
        s = read_settings(&j, err);
    if (!s)
        s = make(o, &j, err);
    job_release(&j);
    return s;
}

const struct command cmd_report = {
    .name = "report",
    .summary = "Write an HTML page about a run",
    .description = "Writes one HTML file that needs nothing else, neither network nor script: stages, curves, "
                   "federated rounds, the "
                   "cascade, accuracy by class and by SNR, confusion, CPU and memory, data, settings, digests. What a "
                   "run does not "
                   "have is left out. "
                   "The page is written whole or not at all, and nothing else of the run is touched.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

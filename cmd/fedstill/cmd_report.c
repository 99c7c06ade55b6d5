/* fedstill report: one HTML page about a run. Finds the run's files; what the page says is the library's business. */
#include <stdio.h>
#include <string.h>

#include "cmd_report.h"
#include "find_run.h"

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

struct job {
    struct found_run at;
    fst_buf settings;
    const char *settings_note;
};

static void job_release(struct job *j)
{
    found_run_release(&j->at);
    fst_buf_release(&j->settings);
}

/* ---- its settings --------------------------------------------------------------------------------------------- */

/* Where the task's relative paths start: usually the folder that holds the output. The registry has the path as it was
 * given, which may have been another folder's. */
static fst_status find_folder(struct job *j, fst_error *err)
{
    if (j->at.folder)
        return FST_OK;
    char *above = fst_path_join(j->at.output, "..");
    if (!above)
        return fst_fail_memory(err, strlen(j->at.output));
    j->at.folder = above;
    if (holds_file(above, "task.yaml") || !j->at.known || !fst_file_exists(j->at.run.task_path))
        return FST_OK;
    fst_free(above);
    j->at.folder = NULL;
    return folder_of(&j->at.folder, j->at.run.task_path, err);
}

/* output/task.yaml is what the last run was asked to do. */
static fst_status read_settings(struct job *j, fst_error *err)
{
    fst_task *kept = NULL;
    if (j->at.why[0])
        j->settings_note = j->at.why;
    char *path = fst_path_join(j->at.output, "task.yaml");
    fst_status s = path ? find_folder(j, err) : fst_fail_memory(err, strlen(j->at.output));
    if (!s && !fst_task_load_kept(&kept, path, NULL) && !fst_file_read(path, MAX_SETTINGS, &j->settings, NULL)) {
        fst_task_free(j->at.task);
        j->at.task = kept;
        kept = NULL;
        j->settings_note = "As the last run of this task took them: all defaults filled in, and what --set changed.";
    } else if (!s && !j->at.task) {
        (void)!fst_task_load(&j->at.task, j->at.folder, NULL, 0, NULL);
    }
    fst_task_free(kept);
    if (!s && j->at.task && !j->settings.data) {
        s = fst_task_dump(j->at.task, &j->settings, err);
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

static fst_status make(const struct options *o, struct job *j, fst_error *err)
{
    fst_buf page = {0};
    struct report_data d = {0};
    fst_html_report r = {.output = j->at.output, .settings_note = j->settings_note};
    fst_status s = FST_OK;
    if (j->at.task && !option_flag(o, "no-data"))
        s = report_data_open(&d, j->at.task, j->at.folder, j->at.output, err);
    if (!s && option_flag(o, "evaluate") && !j->at.task)
        s = fst_fail(err, FST_E_CONFIG, "--evaluate needs the task's file, to find the data; %s says nothing of it",
                     j->at.output);
    if (!s && option_flag(o, "evaluate"))
        s = report_data_try(&d, j->at.output, (int)option_int(o, "threads"), err);
    report_data_fill(&d, &r);
    r.settings = j->settings.data;
    r.run = j->at.known ? &j->at.run : NULL;
    const char *csv = option_string(o, "csv");
    if (!s && csv)
        s = fst_make_folders(csv, err);
    if (!s)
        s = fst_report_html_csv(&r, &page, csv ? write_csv : NULL, (void *)csv, err);
    if (!s)
        s = write_page(o, j->at.output, &page, err);
    fst_buf_release(&page);
    report_data_release(&d);
    return s;
}

static fst_status run(const struct options *o, fst_error *err)
{
    struct job j = {0};
    if (option_flag(o, "evaluate") && option_flag(o, "no-data"))
        return fst_fail(err, FST_E_CONFIG, "--evaluate and --no-data exclude each other");
    fst_status s = find_run(&j.at, operand(o, 0), err);
    if (!s && !is_output(j.at.output))
        s = fst_fail(err, FST_E_CONFIG, "%s holds no summary.json and no events.jsonl: nothing has run there yet",
                     j.at.output);
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

/* Loading, watching and closing a task's run, see task_run.h. */
#include "task_run.h"

#include <stdio.h>
#include <string.h>

#include "fedstill/report.h"

atomic_int task_stop;

static void on_stage(void *ctx, const char *stage, const char *state)
{
    bool quiet = *(const bool *)ctx;
    if (!quiet && strcmp(state, "runs"))
        fprintf(stderr, "%s: %s\n", stage, state);
}

static void on_begin(void *ctx, const char *label, uint64_t total, const char *unit)
{
    (void)ctx;
    progress_begin(label, total, unit);
}

static void on_update(void *ctx, uint64_t done, const char *note)
{
    (void)ctx;
    progress_update(done, note);
}

static void on_end(void *ctx, const char *note)
{
    (void)ctx;
    progress_end(note);
}

fst_observer task_observer(const bool *quiet)
{
    return (fst_observer){(void *)quiet, on_stage, on_begin, on_update, on_end};
}

/* A file of JSON as it is, but for what a terminal would obey. */
static fst_status read_json(const char *path, fst_buf *out, fst_error *err)
{
    fst_buf text = {0};
    fst_status s = fst_file_read(path, 1 << 24, &text, err);
    if (!s && text.len)
        s = fst_text_json(out, text.data, err);
    fst_buf_release(&text);
    return s;
}

fst_status task_print_result(const fst_task *task, bool json, fst_error *err)
{
    fst_buf out = {0};
    char *path = fst_path_join(fst_task_output(task), "summary.json");
    fst_status s = path ? FST_OK : fst_fail_memory(err, 256);
    if (!s)
        s = json ? read_json(path, &out, err) : fst_report_summary(path, !output_is_utf8(), &out, err);
    if (!s)
        fwrite(out.data, 1, out.len, stdout);
    if (!s && !json) {
        fputc('\n', stdout);
        put_plain(stdout, fst_task_name(task));
        fputs(": models, summary.json and events.jsonl are in ", stdout);
        put_plain(stdout, fst_task_output(task));
        fputc('\n', stdout);
    }
    fst_buf_release(&out);
    fst_free(path);
    return s;
}

fst_status task_say_how_to_go_on(fst_error *err)
{
    fst_error why = *err;
    return fst_fail(err, FST_E_CANCELLED, "%s; run the same command again to go on", why.message);
}

enum { MORE_SETS = 2 }; /* from options of their own */

/* The overrides of --set, then those that have names; new memory for the list, not for its texts. */
fst_status task_load(fst_task **out, const struct options *o, fst_error *err)
{
    size_t n;
    const char *const *given = option_list(o, "set", &n);
    const char **sets = fst_calloc(n + MORE_SETS, sizeof *sets);
    char precision[32];
    if (!sets)
        return fst_fail_memory(err, n * sizeof *sets);
    for (size_t i = 0; i < n; i++)
        sets[i] = given[i];
    if (option_given(o, "precision")) {
        snprintf(precision, sizeof precision, "precision=%s", option_string(o, "precision"));
        sets[n++] = precision;
    }
    if (option_given(o, "check-finite"))
        sets[n++] = "check_finite=true";
    fst_task *task = NULL;
    fst_status s = fst_task_load(&task, operand(o, 0), sets, n, err);
    fst_free(sets);
    if (!s && option_given(o, "output"))
        s = *option_string(o, "output") ? fst_task_set_output(task, option_string(o, "output"), err)
                                        : fst_fail(err, FST_E_CONFIG, "--output needs the name of a folder");
    if (s)
        fst_task_free(task);
    else
        *out = task;
    return s;
}

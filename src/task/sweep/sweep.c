/* A sweep from its opening to its end: what is asked for is checked against the task, the folder is locked, the parts
 * do their work (sweep_private.h). */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sweep_private.h"

static const char *const state_names[] = {"missing", "running", "paused", "done", "failed", "stopped"};

const char *fst_sweep_state_name(fst_sweep_state s)
{
    return state_names[s];
}

/* ---- opening --------------------------------------------------------------------------------------------- */

static fst_status check_spec(const fst_sweep_spec *p, fst_error *err)
{
    if (p->jobs < 0 || p->jobs > FST_SWEEP_MAX_JOBS)
        return fst_fail(err, FST_E_CONFIG, "%d jobs; 1 to %d run at the same time", p->jobs, FST_SWEEP_MAX_JOBS);
    if (p->output && !*p->output)
        return fst_fail(err, FST_E_CONFIG, "--output needs the name of a folder");
    return FST_OK;
}

/* The folder as an absolute path: processes and people start elsewhere. */
static fst_status name_folders(fst_sweep *s, fst_task *t, fst_error *err)
{
    char *beside = s->spec->output ? NULL : fst_path_join(t->folder, "sweep");
    const char *output = s->spec->output ? s->spec->output : beside;
    fst_status st = output ? fst_task_set_output(t, output, err) : fst_fail_memory(err, 256);
    if (!st) {
        s->folder = fst_strdup(t->output);
        s->runs_folder = fst_path_join(t->output, "runs");
        s->logs_folder = fst_path_join(t->output, "logs");
        s->journal = fst_path_join(t->output, "sweep.json");
        if (!s->folder || !s->runs_folder || !s->logs_folder || !s->journal)
            st = fst_fail_memory(err, 256);
    }
    fst_free(beside);
    return st;
}

/* Every combination as a task, without its data; of all seeds the first. */
static fst_status check_setting(fst_sweep *s, size_t setting, char (*digest)[FST_DIGEST_HEX], fst_error *err)
{
    const struct run *r = &s->run[setting * s->seeds];
    fst_task *t = NULL;
    fst_buf text = {0};
    fst_status st = fst_task_load(&t, s->spec->task, r->sets, r->nsets, err);
    if (st && s->keys)
        st = fst_fail_in(err, st, "%s", s->setting[setting]);
    if (!st)
        st = fst_task_settings(t, &text, err);
    if (!st)
        fst__digest_text(text.data, text.len, digest[setting]);
    for (size_t k = 0; !st && k < setting; k++)
        if (!strcmp(digest[k], digest[setting]))
            st = fst_fail(err, FST_E_CONFIG, "%s and %s are the same settings: leave one of them out", s->setting[k],
                          s->setting[setting]);
    fst_buf_release(&text);
    fst_task_free(t);
    return st;
}

static fst_status check_settings(fst_sweep *s, fst_error *err)
{
    char(*digest)[FST_DIGEST_HEX] = fst_calloc(s->settings_count, sizeof *digest);
    fst_status st = digest ? FST_OK : fst_fail_memory(err, s->settings_count * sizeof *digest);
    for (size_t i = 0; !st && i < s->settings_count; i++)
        st = check_setting(s, i, digest, err);
    for (size_t i = 0; !st && i < s->runs; i++)
        for (size_t k = 0; !st && k < i; k++)
            if (!strcmp(s->run[i].name, s->run[k].name))
                st = fst_fail(err, FST_E_CONFIG, "two runs would have the name %s: leave one of them out",
                              s->run[i].name);
    fst_free(digest);
    return st;
}

static fst_status open_sweep(fst_sweep *s, fst_error *err)
{
    fst_task *t = NULL;
    fst_status st = check_spec(s->spec, err);
    if (!st)
        st = fst_task_load(&t, s->spec->task, s->spec->sets, s->spec->nsets, err);
    if (!st)
        st = fst_task_settings(t, &s->settings, err);
    if (!st && !(s->task_name = fst_strdup(fst_task_name(t))))
        st = fst_fail_memory(err, 256);
    if (!st)
        st = name_folders(s, t, err);
    if (!st)
        st = fst__sweep_ask(s, t->file.seed, err);
    if (!st)
        st = check_settings(s, err);
    if (!st)
        st = fst__journal_read(s, err);
    fst_task_free(t);
    return st;
}

fst_status fst_sweep_open(fst_sweep **out, const fst_sweep_spec *spec, fst_error *err)
{
    fst_sweep *s = fst_calloc(1, sizeof *s);
    if (!s)
        return fst_fail_memory(err, sizeof *s);
    s->spec = spec;
    s->lock = -1;
    fst_status st = open_sweep(s, err);
    if (st)
        fst_sweep_free(s);
    else
        *out = s;
    return st;
}

static void release_run(const fst_sweep *s, struct run *r)
{
    for (size_t k = s->spec->nsets; r->sets && k < r->nsets; k++)
        if (r->sets[k] != r->seed_set)
            fst_free((void *)r->sets[k]);
    fst_free(r->sets);
    fst_free(r->seed_set);
    fst_free(r->name);
    fst_free(r->folder);
    fst_free(r->log);
    fst_free(r->need);
    fst_free(r->why);
}

void fst_sweep_free(fst_sweep *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->runs; i++)
        release_run(s, &s->run[i]);
    for (size_t i = 0; i < s->keys; i++) {
        for (size_t k = 0; s->key[i].value && k < s->key[i].count; k++)
            fst_free(s->key[i].value[k]);
        fst_free(s->key[i].value);
        fst_free(s->key[i].key);
        fst_free(s->key[i].shown);
    }
    for (size_t i = 0; s->setting && i < s->settings_count; i++)
        fst_free(s->setting[i]);
    for (size_t i = 0; i < s->items; i++)
        fst_free(s->item[i].from);
    fst_free(s->run);
    fst_free(s->key);
    fst_free(s->setting);
    fst_free(s->item);
    fst_free(s->seed);
    fst_free(s->folder);
    fst_free(s->runs_folder);
    fst_free(s->logs_folder);
    fst_free(s->journal);
    fst_free(s->task_name);
    fst_buf_release(&s->settings);
    fst_file_unlock(s->lock);
    fst_free(s);
}

/* ---- running --------------------------------------------------------------------------------------------- */

static fst_status lock_folder(fst_sweep *s, fst_error *err)
{
    char *path = fst_path_join(s->folder, "lock");
    fst_status st = path ? fst_make_folders(s->runs_folder, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_make_folders(s->logs_folder, err);
    if (!st)
        st = fst_file_lock(&s->lock, path, err);
    fst_free(path);
    return st;
}

fst_status fst_sweep_run(fst_sweep *s, fst_error *err)
{
    if (!s->planned)
        return fst_fail(err, FST_E_ARGUMENT, "a sweep is run after it was planned");
    fst_status st = lock_folder(s, err);
    if (st)
        return st;
    fst_atomic_sweep(s->folder);
    st = fst__journal_write(s, err);
    if (!st)
        st = s->spec->halving ? fst__halving_run(s, err) : fst__sweep_work(s, NULL, NULL, err);
    fst_status wrote = fst__journal_write(s, st ? NULL : err);
    fst_file_unlock(s->lock);
    s->lock = -1;
    return st ? st : wrote;
}

/* ---- looking --------------------------------------------------------------------------------------------- */

const char *fst_sweep_folder(const fst_sweep *s)
{
    return s->folder;
}

const char *fst_sweep_stage(const fst_sweep *s)
{
    return s->by;
}

size_t fst_sweep_runs(const fst_sweep *s)
{
    return s->runs;
}

size_t fst_sweep_settings(const fst_sweep *s)
{
    return s->settings_count;
}

size_t fst_sweep_seeds(const fst_sweep *s)
{
    return s->seeds;
}

fst_sweep_run_view fst_sweep_run_at(const fst_sweep *s, size_t i)
{
    const struct run *r = &s->run[i];
    return (fst_sweep_run_view){.name = r->name,
                                .folder = r->folder,
                                .log = r->log,
                                .setting = s->setting[r->setting],
                                .setting_index = r->setting,
                                .seed = r->seed,
                                .state = r->state,
                                .why = r->why ? r->why : "",
                                .validation = r->validation,
                                .test = r->test,
                                .seconds = r->seconds};
}

bool fst_sweep_stage_at(fst_sweep *s, size_t i, size_t k, const char **stage, const char **how)
{
    const struct run *r = &s->run[i];
    if (k >= r->needs)
        return false;
    const struct item *item = &s->item[r->need[k].item];
    *stage = item->stage;
    if (r->need[k].here)
        *how = "there";
    else if (item->from)
        *how = item->from;
    else if (item->there)
        *how = "there, in another run";
    else if (item->first == i)
        *how = "make";
    else {
        snprintf(s->how, sizeof s->how, "shared with %s", s->run[item->first].name);
        *how = s->how;
    }
    return true;
}

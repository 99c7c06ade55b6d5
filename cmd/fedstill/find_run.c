/* Which run somebody means: a task, an output folder, or a run of the registry. See find_run.h. */
#include <stdio.h>
#include <string.h>

#include "find_run.h"

enum { TEXTS = FOUND_TEXTS };

static bool keep_run(void *ctx, const fst_run *r)
{
    struct found_run *f = ctx;
    const char *texts[TEXTS] = {r->task, r->task_path, r->output, r->stage, r->message, r->host, r->settings};
    bool ok = true;
    for (int i = 0; i < TEXTS; i++)
        ok = (f->text[i] = fst_strdup(texts[i])) && ok;
    f->run = *r;
    f->run.task = f->text[0];
    f->run.task_path = f->text[1];
    f->run.output = f->text[2];
    f->run.stage = f->text[3];
    f->run.message = f->text[4];
    f->run.host = f->text[5];
    f->run.settings = f->text[6];
    f->known = ok;
    return false;
}

void found_run_release(struct found_run *f)
{
    fst_free(f->output);
    fst_free(f->folder);
    fst_task_free(f->task);
    for (int i = 0; i < TEXTS; i++)
        fst_free(f->text[i]);
}

bool holds_file(const char *folder, const char *name)
{
    char *path = fst_path_join(folder, name);
    bool there = path && fst_file_exists(path);
    fst_free(path);
    return there;
}

fst_status folder_of(char **out, const char *path, fst_error *err)
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
static fst_status look_up(struct found_run *f, const char *name, fst_error *err)
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

/* A run's number and a task's name are no files. */
static bool is_task_file(const char *name)
{
    const char *end = strrchr(name, '.');
    return end && (!strcmp(end, ".yaml") || !strcmp(end, ".yml")) && fst_file_exists(name);
}

bool is_task(const char *path)
{
    return holds_file(path, "task.yaml") || holds_file(path, "input") || is_task_file(path);
}

bool is_output(const char *folder)
{
    return holds_file(folder, "summary.json") || holds_file(folder, "events.jsonl");
}

/* A task's file that cannot be read is no reason to say nothing of its run, if that is where it usually is. */
static fst_status from_task(struct found_run *f, const char *name, fst_error *err)
{
    fst_error e = {0};
    fst_status s = !is_task_file(name) ? copy(&f->folder, name, err) : folder_of(&f->folder, name, err);
    if (s)
        return s;
    s = fst_task_load(&f->task, name, NULL, 0, &e);
    if (!s)
        return copy(&f->output, fst_task_output(f->task), err);
    if (!(f->output = fst_path_join(f->folder, "output")))
        return fst_fail_memory(err, strlen(f->folder));
    if (!is_output(f->output))
        return fst_fail(err, s, "%s", e.message);
    snprintf(f->why, sizeof f->why, "The task's file cannot be read: %s", e.message);
    return FST_OK;
}

static bool keep_id(void *ctx, const fst_run *run)
{
    *(int64_t *)ctx = run->id;
    return false;
}

/* An output folder shows the run that was at work there last. The page of another one would have that one's figures. */
static fst_status check_current(const struct found_run *f, fst_error *err)
{
    fst_registry *registry = NULL;
    int64_t last = f->run.id;
    if (!fst_registry_open_existing(&registry, NULL))
        (void)!fst_registry_find(registry, f->output, keep_id, &last, NULL);
    fst_registry_free(registry);
    if (last == f->run.id)
        return FST_OK;
    return fst_fail(
        err, FST_E_CONFIG,
        "%s shows run %lld now, not run %lld: run the task again with the settings of run %lld, which computes "
        "nothing that is kept (fedstill runs %lld)",
        f->output, (long long)last, (long long)f->run.id, (long long)f->run.id, (long long)f->run.id);
}

fst_status find_run(struct found_run *f, const char *name, fst_error *err)
{
    fst_status s;
    if (is_output(name)) {
        s = copy(&f->output, name, err);
    } else if (is_task(name)) {
        s = from_task(f, name, err);
    } else {
        s = look_up(f, name, err);
        if (!s)
            s = copy(&f->output, f->run.output, err);
        return s ? s : check_current(f, err);
    }
    if (!s && look_up(f, f->output, NULL) == FST_E_MEMORY)
        s = fst_fail_memory(err, sizeof *f);
    return s;
}

/* Runs a task: which steps, in which order, which are up to date; registry and events. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "session.h"

enum stage { PRETRAIN, SOFT, DISTIL, FEDERATE, DEVICES, EDGE, CLOUD, DIRECT };
static const char *const stage_names[STAGES] = {"cloud_pretrain", "cloud_kd",   "edge_kd",     "federated_train",
                                                "device_load",    "edge_infer", "cloud_infer", "cloud_direct_infer"};

static const struct {
    const char *name;
    bool stages[STAGES];
} modes[] = {
    {"full_train", {[PRETRAIN] = true, [SOFT] = true, [DISTIL] = true, [FEDERATE] = true}},
    {"pretrain", {[PRETRAIN] = true}},
    {"knowledge_distillation", {[SOFT] = true, [DISTIL] = true}},
    {"federated_learning", {[FEDERATE] = true}},
    {"full_pipeline",
     {[PRETRAIN] = true,
      [SOFT] = true,
      [DISTIL] = true,
      [FEDERATE] = true,
      [DEVICES] = true,
      [EDGE] = true,
      [CLOUD] = true}},
    {"device_to_edge", {[DEVICES] = true, [EDGE] = true}},
    {"device_to_edge_to_cloud", {[DEVICES] = true, [EDGE] = true, [CLOUD] = true}},
    {"device_to_cloud", {[DEVICES] = true, [DIRECT] = true}},
};
enum { MODES = sizeof modes / sizeof *modes };

static int stage_index(const char *name)
{
    for (int i = 0; i < STAGES; i++)
        if (!strcmp(stage_names[i], name))
            return i;
    return -1;
}

static bool stage_in_task(const struct task_file *f, int stage)
{
    const struct stages_section *s = &f->stages;
    const bool has[STAGES] = {s->has_cloud_pretrain, s->has_cloud_kd,   s->has_edge_kd,     s->has_federated_train,
                              s->has_device_load,    s->has_edge_infer, s->has_cloud_infer, s->has_cloud_direct_infer};
    return has[stage];
}

static fst_status unknown(const char *what, const char *name, fst_error *err)
{
    char list[512] = "";
    bool mode = !strcmp(what, "mode");
    for (size_t i = 0, at = 0; i < (mode ? (size_t)MODES : (size_t)STAGES); i++)
        at +=
            (size_t)snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", mode ? modes[i].name : stage_names[i]);
    return fst_fail(err, FST_E_CONFIG, "no %s \"%s\"; there are %s", what, name, list);
}

fst_status fst__chosen_stages(const fst_task *t, const fst_task_options *o, bool chosen[STAGES], fst_error *err)
{
    const char *mode = o->mode ? o->mode : "full_train";
    size_t m = 0;
    bool any = false;
    if (!strcmp(mode, "federated_server") || !strcmp(mode, "federated_edge"))
        return fst_fail(err, FST_E_CONFIG,
                        "mode %s belongs to a fleet of several machines, which this version does not run yet; "
                        "federated_learning does the same rounds in one process",
                        mode);
    while (m < MODES && strcmp(modes[m].name, mode))
        m++;
    if (m == MODES)
        return unknown("mode", mode, err);
    int only = o->stage ? stage_index(o->stage) : -1;
    if (o->stage && only < 0)
        return unknown("stage", o->stage, err);
    if (o->stage && !stage_in_task(&t->file, only))
        return fst_fail(err, FST_E_CONFIG, "%s has no stage %s", t->path, o->stage);
    for (int i = 0; i < STAGES; i++) {
        chosen[i] = o->stage ? i == only : modes[m].stages[i] && stage_in_task(&t->file, i);
        any = any || chosen[i];
    }
    return any ? FST_OK : fst_fail(err, FST_E_CONFIG, "%s has none of the stages of mode %s", t->path, mode);
}

/* ---- one step ----------------------------------------------------------------------------------------- */

static bool step_wanted(const struct task_file *f, enum step step, const bool chosen[STAGES])
{
    int stage = stage_index(fst__step_stages[step]);
    return chosen[stage] && (step != STEP_ALONE || f->stages.edge_kd.baseline);
}

static void remove_file(const struct session *s, enum step step, const char *name)
{
    char *path = fst__step_path(s, step, name);
    if (path)
        unlink(path);
    fst_free(path);
}

static fst_status run_step(struct session *s, enum step step, fst_error *err)
{
    typedef fst_status (*runner)(struct session *, struct record *, fst_error *);
    static const runner runners[STEPS] = {fst__step_pretrain, fst__step_soft,     fst__step_alone,
                                          fst__step_distil,   fst__step_federate, fst__step_devices,
                                          fst__step_edge,     fst__step_cloud,    fst__step_direct};
    struct record r = {0};
    if (fst__session_stopped(s))
        return fst_fail(err, FST_E_CANCELLED, "stopped before %s", fst__step_names[step]);
    char *moved = NULL, *folder = fst__step_path(s, step, "");
    fst_status st = s->options->fresh ? FST_OK : fst__keep_aside(s, step, &moved, err);
    if (!st)
        st = folder ? fst_make_folders(folder, err) : fst_fail_memory(err, 256);
    if (!st && moved)
        st = fst__keep_state(s, step, moved, err);
    fst_free(folder);
    fst_free(moved);
    if (st)
        return st;
    memcpy(r.fingerprint, s->fingerprints[step], sizeof r.fingerprint);
    fst__books_stage(s, step, "runs");
    st = runners[step](s, &r, err);
    if (!st)
        st = fst__record_write(s, step, &r, err);
    if (st)
        return st;
    remove_file(s, step, "checkpoint.safetensors"); /* the record has taken its place */
    s->records[step] = r;
    s->done[step] = true;
    fst_field f[] = {FST_DOUBLE("accuracy", r.accuracy), FST_DOUBLE("loss", r.loss), FST_DOUBLE("seconds", r.seconds),
                     FST_STRING("digest", r.digest)};
    fst__emit(s, "result", f, 4);
    fst__books_figures(s, step);
    fst__books_stage(s, step, "done");
    return fst__summary_write(s, err);
}

/* A run that was killed between its record and this leaves a checkpoint that nobody will want again. One of
 * other settings may be wanted when these come back, and stays, and so does one of more epochs or rounds. */
static void drop_spent_checkpoint(const struct session *s, enum step step)
{
    const struct stages_section *f = &s->task->file.stages;
    fst_checkpoint *k = NULL;
    int64_t at = 0, total = step == STEP_FEDERATE   ? f->federated_train.rounds
                            : step == STEP_PRETRAIN ? f->cloud_pretrain.epochs
                                                    : f->edge_kd.training.epochs;
    char *path = fst__step_path(s, step, "checkpoint.safetensors");
    bool spent = path && fst_file_exists(path) && !fst_checkpoint_open(&k, path, s->resumes[step], NULL) &&
                 !fst_checkpoint_int(k, step == STEP_FEDERATE ? "round" : "epoch", &at, NULL) && at <= total;
    fst_checkpoint_free(k);
    if (spent)
        unlink(path);
    fst_free(path);
}

static fst_status one_step(struct session *s, enum step step, const bool chosen[STAGES], fst_error *err)
{
    const struct task_file *f = &s->task->file;
    bool wanted = step_wanted(f, step, chosen);
    char state[FST__STATE];
    if (!stage_in_task(f, stage_index(fst__step_stages[step])) || (step == STEP_ALONE && !f->stages.edge_kd.baseline))
        return FST_OK;
    fst_status st = fst__fingerprint(s, step, err);
    if (st)
        return st;
    if (fst__record_current(s, step, s->fingerprints[step], &s->records[step])) {
        s->done[step] = true;
        if (wanted) {
            fst__books_stage(s, step, "up to date");
            fst__books_figures(s, step);
        }
        if (!s->dry)
            drop_spent_checkpoint(s, step);
        return FST_OK;
    }
    if (!s->options->fresh || !wanted)
        st = fst__keep_find(s, step, s->fingerprints[step], state, err);
    if (!st && s->done[step] && wanted && !s->dry) {
        fst__books_stage(s, step, state);
        fst__books_figures(s, step);
    }
    if (st || s->done[step] || !wanted)
        return st;
    if (!s->options->fresh)
        fst__tell_causes(s, step);
    return run_step(s, step, err);
}

/* The steps that a step reads. */
static bool needs_step(const struct task_file *f, enum step step, enum step other)
{
    switch (step) {
    case STEP_SOFT:
        return other == STEP_PRETRAIN && !fst__teacher_file(f);
    case STEP_DISTIL:
        return other == STEP_SOFT && f->stages.edge_kd.kd_weight > 0;
    case STEP_FEDERATE:
        return other == fst__init_step(f);
    default:
        return step > STEP_FEDERATE && fst__infer_needs(f, step, other);
    }
}

/* --fresh: all at once and before anything runs, so that a run that is killed does not mix old and new. */
static void forget(const struct session *s, const bool chosen[STAGES])
{
    for (enum step step = 0; step < STEPS; step++) {
        if (!step_wanted(&s->task->file, step, chosen))
            continue;
        remove_file(s, step, "stage.json");
        remove_file(s, step, "checkpoint.safetensors");
        remove_file(s, step, FST__LAST);
    }
}

/* `planned`: a step that is going to run counts as done. */
static fst_status check_needs(const struct session *s, enum step step, const bool chosen[STAGES], bool planned,
                              fst_error *err)
{
    const struct task_file *f = &s->task->file;
    for (enum step other = 0; step_wanted(f, step, chosen) && other < step; other++)
        if (needs_step(f, step, other) && !s->done[other] && !(planned && step_wanted(f, other, chosen)))
            return fst_fail(err, FST_E_CONFIG, "%s needs %s, which is missing or out of date: run stage %s first",
                            fst__step_names[step], fst__step_names[other], fst__step_stages[other]);
    return FST_OK;
}

fst_status fst__check_needs(struct session *s, const bool chosen[STAGES], fst_error *err)
{
    fst_status st = FST_OK;
    enum step first = 0;
    while (first < STEPS && !step_wanted(&s->task->file, first, chosen))
        first++;
    for (enum step step = 0; !st && step < first; step++)
        st = one_step(s, step, chosen, err);
    for (enum step step = first; !st && step < STEPS; step++)
        st = check_needs(s, step, chosen, true, err);
    return st;
}

static fst_status run_steps(struct session *s, const bool chosen[STAGES], fst_error *err)
{
    fst_status st = fst__check_stages(s, chosen, err);
    if (!st)
        st = fst__check_needs(s, chosen, err);
    if (!st && s->options->fresh)
        forget(s, chosen);
    for (enum step step = 0; !st && step < STEPS; step++) {
        if (s->done[step])
            continue;
        st = check_needs(s, step, chosen, false, err);
        if (!st)
            st = one_step(s, step, chosen, err);
    }
    /* again: steps behind the last that ran may be up to date and belong into it */
    return st ? st : fst__summary_write(s, err);
}

/* ---- what is not run ------------------------------------------------------------------------------------ */

static bool mode_runs(const struct task_file *f, size_t mode, const bool wanted[STAGES])
{
    for (int i = 0; i < STAGES; i++)
        if (wanted[i] && stage_in_task(f, i) && !modes[mode].stages[i])
            return false;
    return true;
}

/* Stages of the file that a run of the default mode leaves out, and the mode that would run them with the others. */
static void tell_left_out(const fst_task *t, const fst_task_options *o, const bool chosen[STAGES])
{
    const struct task_file *f = &t->file;
    bool all[STAGES], out = false, inference = false;
    char list[256] = "";
    for (int i = 0; i < STAGES; i++) {
        bool left = stage_in_task(f, i) && !chosen[i];
        size_t at = strlen(list);
        all[i] = chosen[i] || left;
        inference = inference || (i >= DEVICES && stage_in_task(f, i));
        if (left)
            snprintf(list + at, sizeof list - at, "%s%s", out ? ", " : "", stage_names[i]);
        out = out || left;
    }
    if (o->mode && !strcmp(o->mode, "full_pipeline") && !inference)
        fst_log(FST_LOG_WARN,
                "%s has no stages of inference (device_load, edge_infer, cloud_infer): mode full_pipeline is "
                "the same as full_train here",
                t->path);
    if (!out || o->stage || o->mode) /* whoever chooses knows what */
        return;
    for (size_t m = 0; m < MODES; m++)
        if (mode_runs(f, m, all)) {
            fst_log(FST_LOG_INFO, "not run: %s; --mode %s runs them too", list, modes[m].name);
            return;
        }
    fst_log(FST_LOG_INFO, "not run: %s; --stage STAGE runs one of them", list);
}

/* ---- the run -------------------------------------------------------------------------------------------- */

/* What killed processes left. */
static void sweep(const struct session *s)
{
    fst_atomic_sweep(s->task->output);
    for (enum step step = 0; step < STEPS; step++) {
        char *folder = fst__step_path(s, step, "");
        if (folder)
            fst_atomic_sweep(folder);
        fst_free(folder);
    }
}

fst_status fst_task_run(fst_task *t, const fst_task_options *o, fst_error *err)
{
    fst_error own = {0};
    struct session s = {.nowned = 0};
    int lock = -1;
    bool chosen[STAGES];
    fst_status st = fst__chosen_stages(t, o, chosen, &own);
    if (!st)
        st = fst_make_folders(t->output, &own);
    char *path = fst_path_join(t->output, "lock");
    if (!st)
        st = path ? fst_file_lock(&lock, path, &own) : fst_fail_memory(&own, 256);
    fst_free(path);
    if (!st) {
        fst__session_init(&s, t, o);
        sweep(&s);
        fst__books_open(&s);
        fst__settings_write(&s);
        st = fst__session_open_data(&s, &own);
        if (!st)
            st = fst__note_samples(&s, &own);
        if (!st)
            st = run_steps(&s, chosen, &own);
        if (!st)
            tell_left_out(t, o, chosen);
        fst__books_close(&s, st, &own);
    }
    if (s.task)
        fst__session_close(&s);
    fst_file_unlock(lock);
    if (st && err)
        *err = own;
    return st;
}

/*
 * Runs a task. The options choose steps by mode or by name. Steps that are not chosen are only looked at: those that a
 * chosen one reads must be up to date, which is said before any work. Then the steps go in their order: fingerprint,
 * is there a record of it (here, in output/kept, in another output), else the kind's own run, its record, the summary.
 * Registry and events are told of each (books.c).
 */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fedstill/fed.h"
#include "session.h"

static const struct {
    const char *name;
    unsigned flag;
} modes[] = {
    {"full_train", FST__IN_FULL_TRAIN},
    {"pretrain", FST__IN_PRETRAIN},
    {"knowledge_distillation", FST__IN_DISTILLATION},
    {"federated_learning", FST__IN_FEDERATED},
    {"full_pipeline", FST__IN_PIPELINE},
    {"device_to_edge", FST__IN_DEVICE_EDGE},
    {"device_to_edge_to_cloud", FST__IN_DEVICE_EDGE_CLOUD},
    {"device_to_cloud", FST__IN_DEVICE_CLOUD},
};
enum { MODES = sizeof modes / sizeof *modes, LISTED = 512 };

/* The stage of the task file that a step belongs to. */
static const struct stage *stage_of(const struct step *step)
{
    return step->stage->of ? step->stage->of : step->stage;
}

static void list_name(char list[LISTED], const char *name)
{
    size_t n = strlen(list);
    snprintf(list + n, LISTED - n, "%s%s", n ? ", " : "", name);
}

/* ---- which steps ----------------------------------------------------------------------------------------- */

static fst_status unknown_mode(const char *name, fst_error *err)
{
    char list[LISTED] = "";
    for (size_t i = 0; i < MODES; i++)
        list_name(list, modes[i].name);
    return fst_fail(err, FST_E_CONFIG, "no mode \"%s\"; there are %s", name, list);
}

static fst_status unknown_stage(const fst_task *t, const char *name, fst_error *err)
{
    char list[LISTED] = "";
    const char *guess = fst__stage_guess(&t->stages, name);
    for (size_t i = 0; i < t->stages.count; i++)
        if (!t->stages.stage[i].of)
            list_name(list, t->stages.stage[i].name);
    return fst_fail(err, FST_E_CONFIG, "%s has no stage %s; %s%s%sthere are %s", t->path, name,
                    guess ? "did you mean \"" : "", guess ? guess : "", guess ? "\"? " : "", list);
}

static fst_status find_mode(const char *mode, size_t *out, fst_error *err)
{
    if (!strcmp(mode, "federated_server") || !strcmp(mode, "federated_edge"))
        return fst_fail(err, FST_E_CONFIG,
                        "mode %s is that of a process of a fleet (fst_fleet_cloud, fst_fleet_site_run); "
                        "federated_learning does the same rounds in one process",
                        mode);
    for (*out = 0; *out < MODES; ++*out)
        if (!strcmp(modes[*out].name, mode))
            return FST_OK;
    return unknown_mode(mode, err);
}

static fst_status check_until(const struct session *s, fst_error *err)
{
    const fst_task_options *o = s->options;
    const struct stage *stage = o->until ? fst__stage_named(&s->task->stages, o->until) : NULL;
    if (!o->until)
        return FST_OK;
    if (!stage)
        return unknown_stage(s->task, o->until, err);
    if (o->until_count && !stage->kind->counts)
        return fst_fail(err, FST_E_CONFIG, "a run cannot stop in %s, which has no epochs or rounds", o->until);
    if (!s->step[stage->at].chosen)
        return fst_fail(err, FST_E_CONFIG, "a run cannot stop in %s, which is not one of the stages that are run",
                        o->until);
    return FST_OK;
}

fst_status fst__choose_steps(struct session *s, fst_error *err)
{
    const fst_task *t = s->task;
    const fst_task_options *o = s->options;
    const char *mode = o->mode ? o->mode : "full_train";
    size_t m = 0;
    bool any = false;
    fst_status st = find_mode(mode, &m, err);
    if (st)
        return st;
    for (size_t i = 0; i < s->steps; i++) {
        const struct stage *stage = stage_of(&s->step[i]);
        s->step[i].chosen = o->stage ? !strcmp(stage->name, o->stage) : (stage->kind->modes & modes[m].flag) != 0;
        any = any || s->step[i].chosen;
    }
    if (any)
        return check_until(s, err);
    return o->stage ? unknown_stage(t, o->stage, err)
                    : fst_fail(err, FST_E_CONFIG, "%s has none of the stages of mode %s", t->path, mode);
}

/* ---- one step ----------------------------------------------------------------------------------------- */

static void remove_file(const struct session *s, const struct step *step, const char *name)
{
    char *path = fst__step_path(s, step, name);
    if (path)
        unlink(path);
    fst_free(path);
}

/* What clients kept in files, when no checkpoint names it any more. */
static void remove_kept(const struct session *s, const struct step *step)
{
    char *folder = fst__step_path(s, step, FST__KEPT_BY_CLIENTS);
    if (folder)
        fst_virtual_remove(folder);
    fst_free(folder);
}

/* An empty folder, or one that holds begun work of the same inputs. */
static fst_status make_folder(const struct session *s, const struct step *step, fst_error *err)
{
    char *moved = NULL, *folder = fst__step_path(s, step, "");
    fst_status st = s->options->fresh ? FST_OK : fst__keep_aside(s, step, &moved, err);
    if (!st)
        st = folder ? fst_make_folders(folder, err) : fst_fail_memory(err, 256);
    if (!st && moved)
        st = fst__keep_state(s, step, moved, err);
    fst_free(folder);
    fst_free(moved);
    return st;
}

static fst_status run_step(struct session *s, struct step *step, fst_error *err)
{
    if (fst__session_stopped(s))
        return fst_fail(err, FST_E_CANCELLED, "stopped before %s", step->stage->name);
    fst_status st = make_folder(s, step, err);
    struct record *r = st ? NULL : fst_calloc(1, sizeof *r);
    if (st || !r)
        return st ? st : fst_fail_memory(err, sizeof *r);
    memcpy(r->fingerprint, step->fingerprint, sizeof r->fingerprint);
    r->validation = NAN;
    fst__books_stage(s, step, "runs");
    st = step->stage->kind->run(s, step, r, err);
    if (!st)
        st = fst__record_write(s, step, r, err);
    if (!st) {
        remove_file(s, step, FST__CHECKPOINT); /* the record has taken its place */
        if (!fst__extendable(step))
            remove_kept(s, step);
        step->record = *r;
        step->done = true;
        fst_field f[] = {FST_DOUBLE("accuracy", r->accuracy), FST_DOUBLE("loss", r->loss),
                         FST_DOUBLE("seconds", r->seconds), FST_STRING("digest", r->digest)};
        fst__emit(&s->books, "result", f, 4);
        fst__books_figures(s, step);
        fst__books_stage(s, step, "done");
        st = fst__summary_write(s, err);
    }
    fst_free(r);
    return st;
}

/* A run that was killed between its record and this leaves a checkpoint that nobody will want again. One of
 * other settings may be wanted when these come back, and stays, and so does one of more epochs or rounds. */
static void drop_spent_checkpoint(const struct session *s, const struct step *step)
{
    const struct stage *own = step->stage;
    fst_checkpoint *k = NULL;
    int64_t at = 0;
    if (!own->kind->counts)
        return;
    char *path = fst__step_path(s, step, FST__CHECKPOINT);
    bool spent = path && fst_file_exists(path) && !fst_checkpoint_open(&k, path, step->resumes, NULL) &&
                 !fst_checkpoint_int(k, own->kind->counts, &at, NULL) && at <= own->kind->total(own);
    fst_checkpoint_free(k);
    if (spent)
        unlink(path);
    fst_free(path);
}

/* Runs it if it is wanted and not up to date; else only looks. */
static fst_status one_step(struct session *s, struct step *step, bool wanted, fst_error *err)
{
    char state[FST__STATE];
    fst_status st = fst__fingerprint(s, step, err);
    if (st)
        return st;
    if (fst__record_current(s, step, &step->record)) {
        step->done = true;
        if (wanted) {
            fst__books_stage(s, step, "up to date");
            fst__books_figures(s, step);
        }
        if (!s->dry)
            drop_spent_checkpoint(s, step);
        return FST_OK;
    }
    if (!s->options->fresh || !wanted)
        st = fst__keep_find(s, step, state, err);
    if (!st && step->done && wanted && !s->dry) {
        fst__books_stage(s, step, state);
        fst__books_figures(s, step);
        drop_spent_checkpoint(s, step); /* begun here, finished elsewhere */
    }
    if (st || step->done || !wanted)
        return st;
    if (!s->options->fresh)
        fst__tell_causes(s, step);
    return run_step(s, step, err);
}

/* ---- what a step needs ----------------------------------------------------------------------------------- */

/* The i-th step that must be done before this one; NULL: none, or only its settings are read. */
static struct step *needed(const struct session *s, const struct step *step, size_t i)
{
    const struct stage_read *r = &step->stage->reads[i];
    return r->stage && !r->ref->settings ? fst__step_of(s, r->stage) : NULL;
}

/* Are all that it needs done? Only then can its fingerprint be known. */
static bool needs_done(const struct session *s, const struct step *step)
{
    for (size_t i = 0; i < step->stage->read_count; i++) {
        const struct step *other = needed(s, step, i);
        if (other && !other->done)
            return false;
    }
    return true;
}

/* Is it or something that it needs, at any remove, going to run? Those that it needs come before it, and were asked. */
static bool is_planned(const struct session *s, const struct step *step)
{
    bool planned = step->chosen;
    for (size_t i = 0; !planned && i < step->stage->read_count; i++) {
        const struct step *other = needed(s, step, i);
        planned = other && !other->done && other->planned;
    }
    return planned;
}

/* before: of the run; what is going to run, or may be up to date after it, is no error yet. */
static fst_status check_needs(const struct session *s, const struct step *step, bool before, fst_error *err)
{
    for (size_t i = 0; i < step->stage->read_count; i++) {
        const struct step *other = needed(s, step, i);
        if (other && !other->done && !(before && other->planned))
            return fst_fail(err, FST_E_CONFIG, "%s needs %s, which is missing or out of date: run stage %s first",
                            step->stage->name, other->stage->name, stage_of(other)->name);
    }
    return FST_OK;
}

fst_status fst__check_needs(struct session *s, fst_error *err)
{
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < s->steps; i++)
        if (!s->step[i].chosen && needs_done(s, &s->step[i]))
            st = one_step(s, &s->step[i], false, err);
    for (size_t i = 0; i < s->steps; i++)
        s->step[i].planned = is_planned(s, &s->step[i]);
    for (size_t i = 0; !st && i < s->steps; i++)
        if (s->step[i].chosen)
            st = check_needs(s, &s->step[i], true, err);
    return st;
}

/* --fresh: all at once and before anything runs, so that a run that is killed does not mix old and new. */
static void forget(const struct session *s)
{
    for (size_t i = 0; i < s->steps; i++) {
        if (!s->step[i].chosen)
            continue;
        remove_file(s, &s->step[i], "stage.json");
        remove_file(s, &s->step[i], FST__CHECKPOINT);
        remove_file(s, &s->step[i], FST__LAST);
        remove_kept(s, &s->step[i]);
    }
}

/* Is this the stage that the run is to end with, and are there others to do? */
static bool ends_here(const struct session *s, const struct step *step)
{
    const char *until = s->options->until;
    bool more = false;
    for (size_t i = 0; i < s->steps; i++)
        more = more || (s->step[i].chosen && !s->step[i].done);
    return until && step->done && more && !strcmp(step->stage->name, until);
}

static fst_status end_here(const struct session *s, const struct step *step, fst_error *err)
{
    if (s->options->paused)
        *s->options->paused = true;
    return fst_fail(err, FST_E_CANCELLED, "stopped after %s, as was asked for", step->stage->name);
}

static fst_status run_steps(struct session *s, fst_error *err)
{
    fst_status st = fst__check_stages(s, err);
    if (!st)
        st = fst__check_needs(s, err);
    if (!st && s->options->fresh)
        forget(s);
    for (size_t i = 0; !st && i < s->steps; i++) {
        struct step *step = &s->step[i];
        if (step->done || (!step->chosen && !needs_done(s, step)))
            continue;
        if (step->chosen)
            st = check_needs(s, step, false, err);
        if (!st)
            st = one_step(s, step, step->chosen, err);
        if (!st && ends_here(s, step))
            st = end_here(s, step, err);
    }
    /* again: steps after the last that ran may be up to date and belong into it */
    return st ? st : fst__summary_write(s, err);
}

/* ---- what is not run ------------------------------------------------------------------------------------ */

/* How many stages that were left out, and are not `told`, mode m runs besides those of this run; they are told from now
 * on, and listed, if list is not NULL. 0: it leaves out one that this run has; `alone`: it may. */
static size_t mode_runs(const struct session *s, size_t m, bool alone, bool *told, char *list)
{
    size_t n = 0;
    for (size_t i = 0; i < s->steps; i++) {
        bool runs = stage_of(&s->step[i])->kind->modes & modes[m].flag;
        if (s->step[i].chosen && !runs && !alone)
            return 0;
        if (s->step[i].chosen || !runs || told[i] || s->step[i].stage->of)
            continue;
        n++;
        if (list) {
            told[i] = true;
            list_name(list, s->step[i].stage->name);
        }
    }
    return n;
}

/* "device_load, edge_infer (--mode full_pipeline), cloud_direct_infer (--mode device_to_cloud)": by as few modes as can
 * be, the first of which runs all of this run besides. */
static fst_status tell_modes(const struct session *s, fst_buf *out, fst_error *err)
{
    bool *told = fst_calloc(s->steps, sizeof *told);
    fst_status st = told ? FST_OK : fst_fail_memory(err, s->steps);
    for (size_t rounds = 0; !st && rounds < MODES; rounds++) {
        char list[LISTED] = "";
        size_t best = MODES, most = 0;
        for (size_t m = 0; m < MODES; m++) {
            size_t n = mode_runs(s, m, rounds > 0, told, NULL);
            best = n > most ? m : best;
            most = n > most ? n : most;
        }
        if (!most)
            continue;
        mode_runs(s, best, rounds > 0, told, list);
        st = fst_buf_printf(out, err, "%s%s (--mode %s)", out->len ? ", " : "", list, modes[best].name);
    }
    fst_free(told);
    return st;
}

/* Stages of the file that a run of the default mode leaves out, and the modes that would run them. */
static void tell_left_out(const struct session *s)
{
    const fst_task_options *o = s->options;
    bool inference = false, left = false;
    fst_buf how = {0};
    for (size_t i = 0; i < s->steps; i++) {
        const struct stage *stage = s->step[i].stage;
        inference = inference || !(stage_of(&s->step[i])->kind->modes & FST__IN_FULL_TRAIN);
        left = left || (!stage->of && !s->step[i].chosen);
    }
    if (o->mode && !strcmp(o->mode, "full_pipeline") && !inference)
        fst_log(FST_LOG_WARN,
                "%s has no stages of inference (device_load, edge_infer, cloud_infer): mode full_pipeline is "
                "the same as full_train here",
                s->task->path);
    if (left && !o->stage && !o->mode && !tell_modes(s, &how, NULL) && how.len) /* whoever chooses knows what */
        fst_log(FST_LOG_INFO, "not run: %s", how.data);
    fst_buf_release(&how);
}

/* ---- the run -------------------------------------------------------------------------------------------- */

/* What killed processes left. */
static void sweep(const struct session *s)
{
    fst_atomic_sweep(s->task->output);
    for (size_t i = 0; i < s->steps; i++) {
        char *folder = fst__step_path(s, &s->step[i], "");
        if (folder)
            fst_atomic_sweep(folder);
        fst_free(folder);
    }
}

/* With the output locked. */
static fst_status run_locked(struct session *s, fst_error *err)
{
    sweep(s);
    fst__books_open(s);
    fst__settings_write(s);
    fst_status st = fst__session_open_data(s, err);
    if (!st)
        st = fst__note_samples(&s->data, &s->task->file.data, err);
    if (!st)
        st = run_steps(s, err);
    if (!st)
        tell_left_out(s);
    fst__books_close(s, st, err);
    return st;
}

fst_status fst_task_run(fst_task *t, const fst_task_options *o, fst_error *err)
{
    fst_error own = {0};
    struct session *s = fst_calloc(1, sizeof *s);
    int lock = -1;
    if (!s)
        return fst_fail_memory(err, sizeof *s);
    fst_status st = fst__session_init(s, t, o, &own);
    s->place = o->places && fst_task_has_places(t) ? FST__ONLY_CLOUD : FST__ALL_PLACES;
    if (!st)
        st = fst__choose_steps(s, &own);
    if (!st)
        st = fst_make_folders(t->output, &own);
    char *path = fst_path_join(t->output, "lock");
    if (!st)
        st = path ? fst_file_lock(&lock, path, &own) : fst_fail_memory(&own, 256);
    fst_free(path);
    if (!st)
        st = run_locked(s, &own);
    fst__session_close(s);
    fst_free(s);
    fst_file_unlock(lock);
    if (st && err)
        *err = own;
    return st;
}

/*
 * What a run tells others while it works: the registry of runs, and its events. Neither is needed for a right result. A
 * registry that fails (another process holds it, a full disk) is left alone from then on, so that a run does not wait
 * for it again and again; when the run ends, it is tried once more, so that the list tells the truth where it can.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "session.h"

enum { TOUCH_SECONDS = 10 };

/* The first failure is said. */
static void note_failure(struct session *s, fst_status st, const fst_error *e)
{
    if (st && !s->registry_failed)
        fst_log(FST_LOG_WARN, "the run registry is left alone until the end of this run: %s", e->message);
    s->registry_failed = s->registry_failed || st;
}

static bool usable(const struct session *s)
{
    return s->registry && !s->registry_failed;
}

/* What computes from here on: events that follow are its work. */
static void tell_start(struct session *s)
{
    char commit[FST_DIGEST_HEX] = "";
    bool known = fst__commit_of(s->task->folder, commit);
    fst_field f[] = {FST_STRING("version", FST_VERSION), FST_STRING("commit", known ? commit : NULL),
                     FST_STRING("backend", s->backend), FST_INT("threads", s->threads), FST_INT("workers", s->workers)};
    fst__emit(s, "start", f, sizeof f / sizeof *f);
}

void fst__books_open(struct session *s)
{
    fst_error e = {0};
    bool resumed;
    fst_buf settings = {0};
    char *path = fst_path_join(s->task->output, "events.jsonl");
    fst_run_start start = {.task = s->task->file.name,
                           .task_path = s->task->path,
                           .output = s->task->output,
                           .seed = (uint64_t)s->task->file.seed,
                           .fresh = s->options->fresh};
    fst_status st = fst_registry_open(&s->registry, NULL, &e);
    if (!st)
        st = fst_task_settings(s->task, &settings, &e);
    start.settings = settings.data;
    if (!st)
        st = fst_registry_begin(s->registry, &start, &s->run, &resumed, &e);
    if (st) {
        fst_log(FST_LOG_WARN, "this run will not be listed by `fedstill runs`: %s", e.message);
        fst_registry_free(s->registry);
        s->registry = NULL;
    }
    s->touched = fst_clock_seconds();
    if (!path || fst_events_open(&s->events, path, s->run, &e))
        fst_log(FST_LOG_WARN, "no events are written: %s", e.message);
    fst_buf_release(&settings);
    fst_free(path);
    tell_start(s);
    fst__resources_begin(s);
}

/* What people see of a state: a stage that is done says how good its model is. */
static const char *with_accuracy(const struct record *r, enum step step, const char *state, char *text, size_t size)
{
    if (strcmp(state, "done") || !isfinite(r->accuracy) || !(r->has_model || step > STEP_FEDERATE))
        return state;
    snprintf(text, size, "%s, %.2f %% right on the test samples", state, 100 * r->accuracy);
    return text;
}

void fst__books_stage(struct session *s, enum step step, const char *state)
{
    const fst_observer *o = &s->options->observer;
    fst_error e = {0};
    char text[128];
    fst_field f[] = {FST_STRING("state", state)};
    if (strcmp(state,
               "up to date")) /* before the stage's name changes: what was used so far belongs to the one before */
        fst__resources_sample(s);
    fst_events_stage(s->events, fst__step_names[step]);
    fst__emit(s, "stage", f, 1);
    if (o->stage)
        o->stage(o->ctx, fst__step_names[step], with_accuracy(&s->records[step], step, state, text, sizeof text));
    if (usable(s))
        note_failure(s, fst_registry_stage(s->registry, s->run, fst__step_names[step], state, &e), &e);
}

static fst_status write_figures(struct session *s, enum step step, fst_error *err)
{
    const struct record *r = &s->records[step];
    const struct {
        const char *key;
        double value;
        bool model, late; /* only of models; not in records of earlier versions */
    } figures[] = {{"accuracy", r->accuracy, !isfinite(r->accuracy), false},
                   {"loss", r->loss, true, false},
                   {"macro_f1", r->macro_f1, true, true},
                   {"balanced_accuracy", r->balanced, true, true},
                   {"parameters", (double)r->parameters, true, false},
                   {"seconds", r->seconds, false, false},
                   {"bytes_up", (double)r->bytes_up, false, false},
                   {"bytes_down", (double)r->bytes_down, false, false}};
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < sizeof figures / sizeof *figures; i++)
        if ((r->has_model || !figures[i].model) && !(figures[i].late && !isfinite(figures[i].value)))
            st = fst_registry_figure(s->registry, s->run, fst__step_names[step], figures[i].key, figures[i].value, err);
    return st ? st : fst_registry_figure_text(s->registry, s->run, fst__step_names[step], "digest", r->digest, err);
}

void fst__books_figures(struct session *s, enum step step)
{
    fst_error e = {0};
    s->told[step] = true;
    if (usable(s))
        note_failure(s, write_figures(s, step, &e), &e);
}

void fst__books_touch(struct session *s)
{
    fst_error e = {0};
    double now = fst_clock_seconds();
    if (!usable(s) || now - s->touched < TOUCH_SECONDS)
        return;
    s->touched = now;
    note_failure(s, fst_registry_touch(s->registry, s->run, &e), &e);
}

void fst__books_close(struct session *s, fst_status st, const fst_error *why)
{
    fst_error e = {0};
    fst_run_status status = !st ? FST_RUN_DONE : st == FST_E_CANCELLED ? FST_RUN_STOPPED : FST_RUN_FAILED;
    const char *message = st ? why->message : "";
    fst_field f[] = {FST_STRING("status", fst_run_status_name(status)), FST_STRING("message", message)};
    fst__resources_end(s);
    fst_events_stage(s->events, NULL);
    fst__emit(s, "run", f, 2);
    if (!s->registry)
        return;
    fst_status wrote = FST_OK;
    for (enum step step = 0; !wrote && s->registry_failed && step < STEPS; step++)
        if (s->told[step])
            wrote = write_figures(s, step, &e);
    if (!wrote)
        wrote = fst_registry_finish(s->registry, s->run, status, st ? message : NULL, &e);
    note_failure(s, wrote, &e);
}

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
static void note_failure(struct books *b, fst_status st, const fst_error *e)
{
    if (st && !b->registry_failed)
        fst_log(FST_LOG_WARN, "the run registry is left alone until the end of this run: %s", e->message);
    b->registry_failed = b->registry_failed || st;
}

static bool usable(const struct books *b)
{
    return b->registry && !b->registry_failed;
}

/* What computes from here on: events that follow are its work. */
static void tell_start(struct session *s)
{
    char commit[FST_DIGEST_HEX] = "";
    bool known = fst__commit_of(s->task->folder, commit);
    fst_field f[] = {FST_STRING("version", FST_VERSION), FST_STRING("commit", known ? commit : NULL),
                     FST_STRING("backend", s->machine.backend), FST_INT("threads", s->machine.threads),
                     FST_INT("workers", s->machine.workers)};
    fst__emit(&s->books, "start", f, sizeof f / sizeof *f);
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
    fst_status st = fst_registry_open(&s->books.registry, NULL, &e);
    if (!st)
        st = fst_task_settings(s->task, &settings, &e);
    start.settings = settings.data;
    if (!st)
        st = fst_registry_begin(s->books.registry, &start, &s->books.run, &resumed, &e);
    if (st) {
        fst_log(FST_LOG_WARN, "this run will not be listed by `fedstill runs`: %s", e.message);
        fst_registry_free(s->books.registry);
        s->books.registry = NULL;
    }
    s->books.touched = fst_clock_seconds();
    if (!path || fst_events_open(&s->books.events, path, s->books.run, &e))
        fst_log(FST_LOG_WARN, "no events are written: %s", e.message);
    fst_buf_release(&settings);
    fst_free(path);
    tell_start(s);
    fst__resources_begin(&s->books);
}

/* What people see of a state: a stage that is done says how good its model is. */
static const char *with_accuracy(const struct step *step, const char *state, char *text, size_t size)
{
    const struct record *r = &step->record;
    if (strcmp(state, "done") || !isfinite(r->accuracy))
        return state;
    snprintf(text, size, "%s, %.2f %% right on the test samples", state, 100 * r->accuracy);
    return text;
}

void fst__books_stage(struct session *s, const struct step *step, const char *state)
{
    const fst_observer *o = &s->options->observer;
    fst_error e = {0};
    char text[128];
    /* "resumes" says which rounds of the file belong together: those of a run that had fewer of them too */
    fst_field f[] = {FST_STRING("state", state), FST_STRING("resumes", step->resumes)};
    if (strcmp(state,
               "up to date")) /* before the stage's name changes: what was used so far belongs to the one before */
        fst__resources_sample(&s->books);
    fst_events_stage(s->books.events, step->stage->name);
    fst__emit(&s->books, "stage", f, strcmp(state, "done") && step->resumes[0] ? 2 : 1);
    if (o->stage)
        o->stage(o->ctx, step->stage->name, with_accuracy(step, state, text, sizeof text));
    if (usable(&s->books))
        note_failure(&s->books, fst_registry_stage(s->books.registry, s->books.run, step->stage->name, state, &e), &e);
}

static fst_status write_figures(struct session *s, const struct step *step, fst_error *err)
{
    const struct record *r = &step->record;
    const struct {
        const char *key;
        double value;
        bool model, late; /* only of models; not in records of earlier versions */
    } figures[] = {{"accuracy", r->accuracy, !isfinite(r->accuracy), false},
                   {"loss", r->loss, true, false},
                   {"macro_f1", r->macro_f1, true, true},
                   {"balanced_accuracy", r->balanced, true, true},
                   {"top5_accuracy", r->top5, true, true},
                   {"parameters", (double)r->parameters, true, false},
                   {"seconds", r->seconds, false, false},
                   {"bytes_up", (double)r->bytes_up, false, false},
                   {"bytes_down", (double)r->bytes_down, false, false}};
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < sizeof figures / sizeof *figures; i++)
        if ((r->has_model || !figures[i].model) && !(figures[i].late && !isfinite(figures[i].value)))
            st = fst_registry_figure(s->books.registry, s->books.run, step->stage->name, figures[i].key,
                                     figures[i].value, err);
    return st ? st
              : fst_registry_figure_text(s->books.registry, s->books.run, step->stage->name, "digest", r->digest, err);
}

void fst__books_figures(struct session *s, struct step *step)
{
    fst_error e = {0};
    step->told = true;
    if (usable(&s->books))
        note_failure(&s->books, write_figures(s, step, &e), &e);
}

void fst__books_touch(struct books *b)
{
    fst_error e = {0};
    double now = fst_clock_seconds();
    if (!FST__TRAINS || !usable(b) || now - b->touched < TOUCH_SECONDS)
        return;
    b->touched = now;
    note_failure(b, fst_registry_touch(b->registry, b->run, &e), &e);
}

void fst__emit(struct books *b, const char *event, const fst_field *fields, size_t n)
{
    fst_error e = {0};
    if (b->events && !b->events_failed && fst_events_emit(b->events, event, fields, n, &e) &&
        !atomic_exchange(&b->events_failed, true))
        fst_log(FST_LOG_WARN, "events are no longer written: %s", e.message);
}

void fst__books_close(struct session *s, fst_status st, const fst_error *why)
{
    fst_error e = {0};
    fst_run_status status = !st ? FST_RUN_DONE : st == FST_E_CANCELLED ? FST_RUN_STOPPED : FST_RUN_FAILED;
    const char *message = st ? why->message : "";
    fst_field f[] = {FST_STRING("status", fst_run_status_name(status)), FST_STRING("message", message)};
    fst__resources_end(&s->books);
    fst_events_stage(s->books.events, NULL);
    fst__emit(&s->books, "run", f, 2);
    if (!s->books.registry)
        return;
    fst_status wrote = FST_OK;
    for (size_t i = 0; !wrote && s->books.registry_failed && i < s->steps; i++)
        if (s->step[i].told)
            wrote = write_figures(s, &s->step[i], &e);
    if (!wrote)
        wrote = fst_registry_finish(s->books.registry, s->books.run, status, st ? message : NULL, &e);
    note_failure(&s->books, wrote, &e);
}

/* The session of a run: what it computes with, its steps, and telling watchers of progress. */
#include <stdio.h>
#include <string.h>

#include "fedstill/ranks.h"
#include "session.h"

static fst_status make_steps(struct session *s, fst_error *err)
{
    const struct stage_list *l = &s->task->stages;
    s->step = fst_calloc(l->count + 1, sizeof *s->step);
    if (!s->step)
        return fst_fail_memory(err, l->count * sizeof *s->step);
    s->steps = l->count;
    for (size_t i = 0; i < l->count; i++)
        s->step[i].stage = &l->stage[i];
    return FST_OK;
}

fst_status fst__session_init(struct session *s, const fst_task *t, const fst_task_options *o, fst_error *err)
{
    int cpus = fst_cpu_count();
    fst_precision wanted = (fst_precision)t->file.precision;
    struct machine *m = &s->machine;
    s->task = t;
    s->options = o;
    *m = (struct machine){.backend = o->backend ? o->backend : fst_backend_names()[0],
                          .threads = o->threads > 0 ? o->threads : cpus,
                          .workers = o->ranks         ? fst_ranks_count(o->ranks)
                                     : o->workers > 0 ? o->workers
                                                      : cpus,
                          .precision = wanted,
                          .check_finite = t->file.check_finite};
    if (!fst_backend_supports(m->backend, wanted))
        m->precision = FST_PRECISION_F32;
    if (m->precision != wanted)
        fst_log(FST_LOG_WARN, "precision: this machine cannot compute in %s (backend %s): f32 is used",
                fst_precision_name(wanted), m->backend);
    return make_steps(s, err);
}

fst_trainer_options fst__trainer_options(const struct machine *m, size_t batch, int threads)
{
    return (fst_trainer_options){.batch_size = batch,
                                 .threads = threads,
                                 .backend = m->backend,
                                 .precision = m->precision,
                                 .check_finite = m->check_finite};
}

void fst__session_close(struct session *s)
{
    for (size_t i = 0; i < s->steps; i++)
        fst_free(s->step[i].inputs);
    fst_free(s->step);
    fst__samples_release(&s->data);
    fst_runner_free(s->runner);
    fst_events_free(s->books.events);
    if (FST__TRAINS)
        fst_registry_free(s->books.registry);
}

bool fst__session_stopped(const struct session *s)
{
    return s->options->stop && atomic_load(s->options->stop);
}

bool fst__pauses(const struct session *s, const struct step *step, int64_t done)
{
    const fst_task_options *o = s->options;
    return o->until && o->until_count && !strcmp(o->until, step->stage->name) && done >= o->until_count &&
           done < step->stage->kind->total(step->stage);
}

fst_status fst__pause(const struct session *s, const struct step *step, int64_t done, fst_error *err)
{
    if (!fst__pauses(s, step, done))
        return FST_OK;
    if (s->options->paused)
        *s->options->paused = true;
    return fst_fail(err, FST_E_CANCELLED, "%s: stopped after %s %lld, as was asked for; progress is saved",
                    step->stage->name, step->stage->kind->counts, (long long)done);
}

/* ---- steps --------------------------------------------------------------------------------------- */

struct step *fst__step_of(const struct session *s, const struct stage *stage)
{
    return &s->step[stage->at];
}

const struct step *fst__step_read(const struct session *s, const struct step *own, const char *key, size_t i)
{
    const struct stage *other = fst__stage_read(own->stage, key, i);
    return other ? fst__step_of(s, other) : NULL;
}

char *fst__step_path(const struct session *s, const struct step *step, const char *file)
{
    char *folder = fst_path_join(s->task->output, step->stage->name);
    char *path = folder ? fst_path_join(folder, file) : NULL;
    fst_free(folder);
    return path;
}

uint64_t fst__step_seed(const struct session *s, const struct step *step, const char *purpose, uint64_t index)
{
    char name[96];
    fst_rng r;
    const struct stage_kind *kind = step->stage->kind;
    snprintf(name, sizeof name, "step.%s.%s", kind->streams ? kind->streams : kind->name, purpose);
    fst_rng_init(&r, (uint64_t)s->task->file.seed, name, index);
    return fst_rng_u64(&r);
}

/* ---- watchers ------------------------------------------------------------------------------------ */

void fst__watch_begin(const struct session *s, const char *label, uint64_t total, const char *unit)
{
    const fst_observer *o = &s->options->observer;
    if (o->begin)
        o->begin(o->ctx, label, total, unit);
}

void fst__watch_update(struct session *s, uint64_t done, const char *note)
{
    const fst_observer *o = &s->options->observer;
    fst__books_touch(&s->books);
    if (o->update)
        o->update(o->ctx, done, note);
}

void fst__watch_end(const struct session *s, const char *note)
{
    const fst_observer *o = &s->options->observer;
    if (o->end)
        o->end(o->ctx, note);
}

struct save_clock fst__saved(double began)
{
    double now = fst_clock_seconds();
    return (struct save_clock){now, now - began};
}

bool fst__save_due(const struct save_clock *c, double seconds)
{
    double passed = fst_clock_seconds() - c->at;
    return passed >= seconds && (seconds == 0 || passed >= 19 * c->cost);
}

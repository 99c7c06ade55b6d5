/*
 * The runs of a sweep at work: a loop that starts processes, looks at them, and takes note of their ends.
 *
 * A run starts when no active run is making a stage that it needs: it then owns the items that are not there yet, until
 * their records appear or its process ends. Who waits takes them from beside, so nothing is made twice. Which process
 * is faster decides who makes an item, and nothing else.
 */
#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "sweep_private.h"

enum { KILLS = 3 };              /* a run that something kills is started again, up to so many times */
static const double rest = 0.02; /* seconds between two looks at processes, */
static const double look = 0.5;  /* at their events, */
static const double locked = 10; /* and for which an output may stay locked by a process that is being killed */
static const double grace = 60;  /* and in which a run that was asked to end may save its progress */

struct jobs {
    fst_sweep *s;
    int jobs;
    size_t active;
    bool ending;     /* nothing is started any more, and what runs was asked to end */
    double ended_at; /* since when */
    double told;
    fst_status first; /* of what failed with fail_fast */
};

/* ---- telling --------------------------------------------------------------------------------------------- */

bool fst__sweep_stopped(const fst_sweep *s)
{
    return s->spec->stop && atomic_load(s->spec->stop);
}

/* The next place, from `above` on, that runs which are missing, or active, are brought to; INT64_MAX: their end; 0:
 * none is beyond it. */
static int64_t next_until(const fst_sweep *s, int64_t above, bool active)
{
    int64_t next = 0;
    for (size_t i = 0; i < s->runs; i++) {
        const struct run *r = &s->run[i];
        int64_t until = r->until ? r->until : INT64_MAX;
        bool counts = r->state == FST_SWEEP_MISSING || (active && r->state == FST_SWEEP_RUNNING);
        if (counts && until > above && (!next || until < next))
            next = until;
    }
    return next;
}

void fst__sweep_progress(fst_sweep *s, fst_sweep_progress *out, char now[FST__NOW])
{
    int64_t rung = next_until(s, 0, true);
    *out = (fst_sweep_progress){.runs = s->runs, .rung = rung < INT64_MAX ? rung : 0, .now = now};
    size_t n = 0;
    now[0] = 0;
    for (size_t i = 0; i < s->runs; i++) {
        const struct run *r = &s->run[i];
        out->done += r->state == FST_SWEEP_DONE;
        out->failed += r->state == FST_SWEEP_FAILED;
        out->stopped += r->state == FST_SWEEP_STOPPED;
        out->active += r->pid > 0;
        if (r->pid > 0 && n < FST__NOW - 1)
            n += (size_t)snprintf(now + n, FST__NOW - n, "%s%s%s%s", n ? "; " : "", r->now, r->now[0] ? " of " : "",
                                  r->name);
    }
    int jobs = s->spec->jobs > 0 ? s->spec->jobs : 1;
    out->left = fst__sweep_left(s, (size_t)jobs);
}

void fst__sweep_tell(fst_sweep *s, size_t i)
{
    const fst_sweep_observer *w = &s->spec->observer;
    char now[FST__NOW];
    fst_sweep_progress p;
    fst_sweep_run_view v = fst_sweep_run_at(s, i);
    if (!w->run)
        return;
    fst__sweep_progress(s, &p, now);
    w->run(w->ctx, &v, &p);
}

static void tick(struct jobs *w)
{
    fst_sweep *s = w->s;
    const fst_sweep_observer *o = &s->spec->observer;
    double now = fst_clock_seconds();
    char text[FST__NOW];
    fst_sweep_progress p;
    for (size_t i = 0; i < s->runs; i++) {
        struct run *r = &s->run[i];
        if (r->pid > 0 && now - r->looked >= look) {
            r->looked = now;
            fst__sweep_look(s, r);
        }
    }
    if (!o->tick || now - w->told < look)
        return;
    w->told = now;
    fst__sweep_progress(s, &p, text);
    o->tick(o->ctx, &p);
}

static void set_why(struct run *r, const char *why)
{
    fst_free(r->why);
    r->why = why ? fst_strdup(why) : NULL;
}

/* ---- items ----------------------------------------------------------------------------------------------- */

static bool record_is_new(const fst_sweep *s, const struct run *r, const struct need *n)
{
    struct stat is;
    char *folder = fst_path_join(r->folder, s->item[n->item].stage),
         *path = folder ? fst_path_join(folder, "stage.json") : NULL;
    bool there = path && !stat(path, &is) &&
                 (is.st_ino != n->ino || is.st_mtim.tv_sec != n->time.tv_sec || is.st_mtim.tv_nsec != n->time.tv_nsec);
    fst_free(folder);
    fst_free(path);
    return there;
}

static double seconds_of(const struct run *r, const char *stage)
{
    char fingerprint[FST_DIGEST_HEX];
    double seconds = NAN;
    struct record *record = fst_calloc(1, sizeof *record);
    char *folder = fst_path_join(r->folder, stage);
    if (record && folder && fst__record_fingerprint(folder, fingerprint) &&
        fst__record_current_in(folder, fingerprint, record))
        seconds = record->seconds;
    fst_free(folder);
    fst_free(record);
    return seconds;
}

/* What an active run has made since the last look. */
static void take_note(fst_sweep *s, size_t run)
{
    struct run *r = &s->run[run];
    for (size_t k = 0; k < r->needs; k++) {
        struct need *n = &r->need[k];
        struct item *i = &s->item[n->item];
        if (n->here || !record_is_new(s, r, n))
            continue;
        n->here = true;
        if (i->owner != run)
            continue;
        i->there = true;
        i->owner = FST__NOBODY;
        i->seconds = seconds_of(r, i->stage);
    }
}

static void let_go(fst_sweep *s, size_t run)
{
    for (size_t k = 0; k < s->items; k++)
        if (s->item[k].owner == run) {
            s->item[k].owner = FST__NOBODY;
            s->item[k].began = s->item[k].part = 0;
        }
}

/* Is anything that it needs being made by another? */
static bool must_wait(const fst_sweep *s, const struct run *r)
{
    for (size_t k = 0; k < r->needs; k++)
        if (!s->item[r->need[k].item].there && s->item[r->need[k].item].owner != FST__NOBODY)
            return true;
    return false;
}

/* ---- starting -------------------------------------------------------------------------------------------- */

/* The task file must say what it said when the sweep was checked. */
static fst_status check_task(const fst_sweep *s, const struct run *r, fst_error *err)
{
    fst_task *t = NULL;
    fst_buf text = {0};
    char now[FST_DIGEST_HEX];
    fst_status st = fst_task_load(&t, s->spec->task, r->sets, r->nsets, err);
    if (!st)
        st = fst_task_settings(t, &text, err);
    if (!st) {
        fst__digest_text(text.data, text.len, now);
        if (strcmp(now, r->settings))
            st = fst_fail(err, FST_E_CONFIG, "%s was changed while the sweep ran", s->spec->task);
    }
    fst_buf_release(&text);
    fst_task_free(t);
    return st;
}

/* A process of a sweep that was killed may take a moment to end. */
static bool is_locked(struct run *r)
{
    int fd = -1;
    bool held;
    char *path = fst_path_join(r->folder, "lock");
    held = path && fst_file_exists(path) && fst_file_lock(&fd, path, NULL);
    fst_file_unlock(fd);
    fst_free(path);
    if (!held)
        return false;
    if (r->locked == 0)
        r->locked = fst_clock_seconds();
    return fst_clock_seconds() - r->locked < locked;
}

static size_t open_runs(const fst_sweep *s)
{
    size_t n = 0;
    for (size_t i = 0; i < s->runs; i++)
        n += s->run[i].state == FST_SWEEP_MISSING || s->run[i].state == FST_SWEEP_RUNNING;
    return n;
}

static void fail_run(struct jobs *w, size_t i, const char *why)
{
    struct run *r = &w->s->run[i];
    r->state = FST_SWEEP_FAILED;
    set_why(r, why);
    w->ending = w->ending || w->s->spec->fail_fast;
}

/* Does the other need something that this one would make? */
static bool waits_for(const fst_sweep *s, const struct run *other, const struct run *r, size_t *last)
{
    bool waits = false;
    for (size_t k = 0; k < r->needs; k++)
        for (size_t m = 0; m < other->needs && !s->item[r->need[k].item].there; m++)
            if (other->need[m].item == r->need[k].item) {
                waits = true;
                *last = *last > k ? *last : k;
            }
    return waits;
}

/* The last stage of a run that others need, where nobody else has anything to do before it is made; NULL: others have,
 * or it is the last that is wanted of the run anyway. */
static const char *stage_ahead(const struct jobs *w, size_t i)
{
    const fst_sweep *s = w->s;
    const struct run *r = &s->run[i];
    size_t last = 0, waiting = 0;
    if (w->jobs < 2 || w->active)
        return NULL;
    for (size_t k = 0; k < s->runs; k++) {
        if (k == i || s->run[k].state != FST_SWEEP_MISSING)
            continue;
        if (!waits_for(s, &s->run[k], r, &last))
            return NULL;
        waiting++;
    }
    for (size_t k = 0; r->until && k <= last; k++)
        if (!strcmp(s->item[r->need[k].item].stage, s->by))
            return NULL;
    return waiting && last + 1 < r->needs ? s->item[r->need[last].item].stage : NULL;
}

static int threads_of(const struct jobs *w, bool ahead)
{
    int cpus = w->s->spec->threads > 0 ? w->s->spec->threads : fst_cpu_count();
    size_t open = open_runs(w->s), share = open < (size_t)w->jobs ? open : (size_t)w->jobs;
    int threads = ahead ? cpus : cpus / (int)(share ? share : 1);
    return threads > 0 ? threads : 1;
}

static void start(struct jobs *w, size_t i)
{
    fst_sweep *s = w->s;
    struct run *r = &s->run[i];
    fst_error e = {0};
    bool told = r->ahead && !r->why; /* it goes on after what it made for all */
    const char *ahead = stage_ahead(w, i), *stage = ahead ? ahead : r->until ? s->by : NULL;
    fst_status st = check_task(s, r, &e);
    if (!st)
        st = fst__child_start(s, i, stage, ahead ? 0 : r->until, threads_of(w, ahead), &e);
    if (st) {
        fail_run(w, i, e.message);
    } else {
        r->state = FST_SWEEP_RUNNING;
        r->ahead = ahead;
        r->began = fst_clock_seconds();
        r->now[0] = 0;
        w->active++;
        for (size_t k = 0; k < r->needs; k++) {
            struct item *item = &s->item[r->need[k].item];
            if (!item->there)
                item->owner = i;
        }
    }
    fst__journal_note(s);
    if (st || !told)
        fst__sweep_tell(s, i);
}

/* All settings with the first seed, then with the next: one sees early what differs. */
static void start_some(struct jobs *w, int64_t until)
{
    fst_sweep *s = w->s;
    for (size_t k = 0; k < s->seeds; k++)
        for (size_t m = 0; m < s->settings_count; m++) {
            size_t i = m * s->seeds + k;
            struct run *r = &s->run[i];
            if (w->ending || w->active >= (size_t)w->jobs)
                return;
            if (r->state == FST_SWEEP_MISSING && (r->until ? r->until : INT64_MAX) == until && !must_wait(s, r) &&
                !is_locked(r))
                start(w, i);
        }
}

/* Those of the lowest rung first: what they are worth decides about others. */
static void start_all(struct jobs *w)
{
    for (int64_t until = next_until(w->s, 0, false); until; until = next_until(w->s, until, false))
        start_some(w, until);
}

/* ---- ending ---------------------------------------------------------------------------------------------- */

static void ended_well(struct jobs *w, size_t i)
{
    fst_sweep *s = w->s;
    struct run *r = &s->run[i];
    double stages = 0;
    set_why(r, NULL);
    if (r->ahead) /* the rest of it with its share of the threads, beside the others */
        return;
    r->state = r->until ? FST_SWEEP_PAUSED : FST_SWEEP_DONE;
    for (size_t k = 0; k < r->needs; k++) {
        const struct item *item = &s->item[r->need[k].item];
        stages += r->need[k].here && isfinite(item->seconds) ? item->seconds : 0;
    }
    if (r->until)
        return;
    fst__sweep_figures(s, r);
    if (r->seconds > stages) { /* starting, reading data, copying */
        s->wait_cost += r->seconds - stages;
        s->waited++;
    }
}

static void ended_badly(struct jobs *w, size_t i, int status)
{
    struct run *r = &w->s->run[i];
    char why[64];
    if (WIFSIGNALED(status)) {
        bool again = WTERMSIG(status) == SIGKILL && ++r->kills < KILLS && !w->ending;
        snprintf(why, sizeof why, "ended by signal %d", WTERMSIG(status));
        if (again) {
            fst_log(FST_LOG_WARN, "%s: killed; it is started again and goes on", r->name);
            r->state = FST_SWEEP_MISSING;
        } else if (!w->ending) {
            fail_run(w, i, why);
        }
        return;
    }
    if (w->ending) /* it was asked to */
        return;
    char *said = fst__child_said(r);
    fail_run(w, i, said ? said : "failed");
    fst_free(said);
}

/* True: its process has ended. */
static bool reap(struct jobs *w, size_t i)
{
    fst_sweep *s = w->s;
    struct run *r = &s->run[i];
    int status = 0;
    if (r->pid <= 0)
        return false;
    bool ended = fst__child_ended(r, &status);
    take_note(s, i);
    if (!ended)
        return false;
    w->active--;
    r->seconds += fst_clock_seconds() - r->began;
    r->locked = 0;
    let_go(s, i);
    r->state = FST_SWEEP_MISSING;
    if (WIFEXITED(status) && !WEXITSTATUS(status))
        ended_well(w, i);
    else
        ended_badly(w, i, status);
    fst__journal_note(s);
    if (r->state != FST_SWEEP_MISSING || !r->ahead || w->ending)
        fst__sweep_tell(s, i);
    return true;
}

static void signal_all(const fst_sweep *s, int number)
{
    for (size_t i = 0; i < s->runs; i++)
        if (s->run[i].pid > 0)
            kill(s->run[i].pid, number);
}

static void end_if_asked(struct jobs *w)
{
    double now = fst_clock_seconds();
    w->ending = w->ending || fst__sweep_stopped(w->s);
    if (w->ending && w->ended_at == 0) {
        w->ended_at = now;
        signal_all(w->s, SIGTERM);
    } else if (w->ending && now - w->ended_at > grace) {
        signal_all(w->s, SIGKILL);
    }
}

/* ---- the loop -------------------------------------------------------------------------------------------- */

static bool anything_left(const struct jobs *w)
{
    if (w->active)
        return true;
    for (size_t i = 0; i < w->s->runs && !w->ending; i++)
        if (w->s->run[i].state == FST_SWEEP_MISSING)
            return true;
    return false;
}

fst_status fst__sweep_work(fst_sweep *s, void (*ended)(void *ctx), void *ctx, fst_error *err)
{
    struct jobs w = {.s = s, .jobs = s->spec->jobs > 0 ? s->spec->jobs : 1};
    const struct timespec nap = {.tv_nsec = (long)(rest * 1e9)};
    if (ended) /* runs that are done already */
        ended(ctx);
    while (anything_left(&w)) {
        bool any = false;
        end_if_asked(&w);
        start_all(&w);
        nanosleep(&nap, NULL);
        for (size_t i = 0; i < s->runs; i++)
            any = reap(&w, i) || any;
        if (any && ended && !w.ending)
            ended(ctx);
        tick(&w);
    }
    if (fst__sweep_stopped(s))
        return fst_fail(err, FST_E_CANCELLED, "stopped; the runs' progress is saved");
    return FST_OK;
}

/*
 * What the runs of a sweep left: figures of their records, accuracies over epochs and rounds from their events, and
 * from the end of those how far an active run is.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "sweep_private.h"

enum { EVENTS_TAIL = 16384 };

void fst__sweep_figures(const fst_sweep *s, struct run *r)
{
    char fingerprint[FST_DIGEST_HEX];
    struct record *record = fst_calloc(1, sizeof *record);
    char *folder = fst_path_join(r->folder, s->by);
    r->validation = r->test = NAN;
    if (record && folder && fst__record_fingerprint(folder, fingerprint) &&
        fst__record_current_in(folder, fingerprint, record)) {
        r->test = record->accuracy;
        r->validation = record->validation;
        if (!isfinite(r->validation) && record->own.samples) /* of clients' models, on samples of their own */
            r->validation = record->own.accuracy;
    }
    fst_free(folder);
    fst_free(record);
}

/* ---- over epochs and rounds ------------------------------------------------------------------------------ */

struct curve {
    const fst_sweep *s;
    int64_t at;
    char wanted[FST_DIGEST_HEX]; /* "resumes" of the stage's last state: what belongs to the model that is there */
    bool follows;                /* the events at hand are of that */
    int64_t last;
    double value, best;
};

static const char *resumes_of(const struct curve *c, const fst_event *e)
{
    const fst_field *f = fst_event_field(e, "resumes");
    bool is = !strcmp(e->stage, c->s->by) && !strcmp(e->event, "stage") && f && f->type == FST_FIELD_STRING;
    return is ? f->value.string : NULL;
}

static bool find_last(void *ctx, const fst_event *e)
{
    struct curve *c = ctx;
    const char *resumes = resumes_of(c, e);
    if (resumes)
        snprintf(c->wanted, sizeof c->wanted, "%s", resumes);
    return true;
}

static bool follow_curve(void *ctx, const fst_event *e)
{
    struct curve *c = ctx;
    const char *resumes = resumes_of(c, e);
    double n = fst_event_number(e, c->s->unit), v = fst_event_number(e, "validation_accuracy");
    if (resumes)
        c->follows = !strcmp(resumes, c->wanted);
    if (!c->follows || strcmp(e->stage, c->s->by) || strcmp(e->event, c->s->unit))
        return true;
    if (!(n >= 1) || !(n <= (double)c->at) || !isfinite(v))
        return true;
    if ((int64_t)n >= c->last) {
        c->last = (int64_t)n;
        c->value = v;
    }
    c->best = isfinite(c->best) && c->best >= v ? c->best : v;
    return true;
}

double fst__sweep_value_at(const fst_sweep *s, const struct run *r, int64_t at)
{
    struct curve c = {.s = s, .at = at, .value = NAN, .best = NAN};
    char *path = fst_path_join(r->folder, "events.jsonl");
    bool read = path && !fst_events_read(path, find_last, &c, NULL, NULL) && c.wanted[0] &&
                !fst_events_read(path, follow_curve, &c, NULL, NULL);
    fst_free(path);
    return !read ? NAN : s->keeps_best ? c.best : c.value;
}

/* ---- what an active run is at ---------------------------------------------------------------------------- */

struct latest {
    char stage[64];
    int64_t at; /* epochs or rounds of it; 0: none yet */
};

static bool note_latest(void *ctx, const fst_event *e)
{
    struct latest *l = ctx;
    if (!e->stage || !*e->stage)
        return true;
    if (strcmp(l->stage, e->stage)) {
        snprintf(l->stage, sizeof l->stage, "%s", e->stage);
        l->at = 0;
    }
    if (!strcmp(e->event, "epoch") || !strcmp(e->event, "round")) {
        double n = fst_event_number(e, e->event);
        l->at = n >= 1 && n < 1e15 ? (int64_t)n : l->at;
    }
    return true;
}

static void read_tail(const struct run *r, struct latest *out)
{
    char tail[EVENTS_TAIL];
    char *path = fst_path_join(r->folder, "events.jsonl");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    ssize_t n = fd < 0 ? 0 : pread(fd, tail, sizeof tail, size > EVENTS_TAIL ? size - EVENTS_TAIL : 0);
    const char *from = n > 0 && size > EVENTS_TAIL ? memchr(tail, '\n', (size_t)n) : tail;
    if (n > 0 && from)
        (void)!fst_events_parse(from, (size_t)(tail + n - from), note_latest, out, NULL, NULL);
    if (fd >= 0)
        close(fd);
    fst_free(path);
}

void fst__sweep_look(fst_sweep *s, struct run *r)
{
    struct latest l = {.at = 0};
    read_tail(r, &l);
    snprintf(r->now, sizeof r->now, "%s", l.stage);
    for (size_t k = 0; k < r->needs; k++) {
        struct item *i = &s->item[r->need[k].item];
        if (strcmp(i->stage, l.stage) || i->there || i->owner == FST__NOBODY)
            continue;
        if (i->began == 0)
            i->began = fst_clock_seconds();
        if (i->total) {
            i->part = (double)l.at / (double)i->total;
            snprintf(r->now, sizeof r->now, "%s %lld/%lld", l.stage, (long long)l.at, (long long)i->total);
        }
    }
}

/* ---- how long it still takes ----------------------------------------------------------------------------- */

/* Seconds of one epoch, round, or whole stage of that name, as those that were made took them; NaN: none was. */
static double pace_of(const fst_sweep *s, const struct item *wanted)
{
    double seconds = 0, units = 0;
    for (size_t k = 0; k < s->items; k++) {
        const struct item *i = &s->item[k];
        if (i->there && isfinite(i->seconds) && !strcmp(i->stage, wanted->stage)) {
            seconds += i->seconds;
            units += i->total ? (double)i->total : 1;
        }
    }
    if (units > 0)
        return seconds / units;
    for (size_t k = 0; k < s->items; k++) {
        const struct item *i = &s->item[k];
        if (!strcmp(i->stage, wanted->stage) && i->part > 0 && i->began > 0) {
            seconds += fst_clock_seconds() - i->began;
            units += i->part * (double)i->total;
        }
    }
    return units > 0 ? seconds / units : NAN;
}

static bool is_open(const struct run *r)
{
    return r->state == FST_SWEEP_MISSING || r->state == FST_SWEEP_RUNNING;
}

/* The stages that open runs need, up to the one that they stop in. */
static size_t mark_wanted(fst_sweep *s)
{
    size_t runs = 0;
    for (size_t k = 0; k < s->items; k++)
        s->item[k].wanted = false;
    for (size_t n = 0; n < s->runs; n++) {
        const struct run *r = &s->run[n];
        bool over = !is_open(r);
        runs += !over;
        for (size_t m = 0; !over && m < r->needs; m++) {
            struct item *i = &s->item[r->need[m].item];
            over = r->until && !strcmp(i->stage, s->by);
            i->wanted = true;
            i->whole = over ? (double)r->until / (double)i->total : 1;
        }
    }
    return runs;
}

double fst__sweep_left(fst_sweep *s, size_t jobs)
{
    double left = 0, pace = NAN;
    size_t runs = mark_wanted(s);
    const char *stage = "";
    for (size_t k = 0; k < s->items; k++) {
        const struct item *i = &s->item[k];
        if (!i->wanted || i->there || i->part >= i->whole)
            continue;
        if (strcmp(stage, i->stage)) /* the same for its neighbours, mostly */
            pace = pace_of(s, i);
        stage = i->stage;
        left += pace * (i->total ? (double)i->total : 1) * (i->whole - i->part);
    }
    if (s->waited)
        left += s->wait_cost / (double)s->waited * (double)runs;
    return left / (double)(jobs < runs ? jobs : runs ? runs : 1);
}

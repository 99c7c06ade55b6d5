/*
 * The rounds of the model that a stage left, out of events.jsonl. That file grows over all runs of a folder: rounds of
 * other settings stand before and behind, and more rounds of the same settings go on later. What belongs together is
 * what began with the same "resumes" (a digest of everything but the number of rounds); which of these lines of work
 * left the model says the digest in its "result".
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare.h"

enum { MAX_ROUNDS = 1000000, MAX_LINES = 4096 };

struct work {
    char resumes[FST_DIGEST_HEX]; /* "": of an earlier version, which did not say */
    struct fst__round *round;     /* x as its event says: of this round alone */
    size_t rounds, room;
    bool epochs;
};

struct reader {
    const char *stage, *digest;
    struct work *work;
    size_t works, work_room, now; /* now: index of the open one; works: none */
    size_t won, won_rounds;       /* the one that left the model, and how many rounds it had then; works: none */
    double won_last;              /* number of its last round */
    bool open, started, ended;
    fst_status status;
    fst_error *err;
};

static const char *text_of(const fst_event *e, const char *key)
{
    const fst_field *f = fst_event_field(e, key);
    return f && f->type == FST_FIELD_STRING && f->value.string ? f->value.string : "";
}

static void *grow(struct reader *r, void *p, size_t *room, size_t size)
{
    size_t more = *room ? 2 * *room : 16;
    void *q = fst_realloc(p, *room * size, more * size);
    if (q)
        *room = more;
    else
        r->status = fst_fail_memory(r->err, more * size);
    return q;
}

/* The stage begins, or goes on. */
static void begin(struct reader *r, const char *resumes)
{
    bool goes_on = r->open && r->now < r->works && !strcmp(r->work[r->now].resumes, resumes);
    for (size_t i = r->works; !goes_on && *resumes && i-- > 0;)
        if (!strcmp(r->work[i].resumes, resumes)) {
            r->now = i;
            goes_on = true;
        }
    r->open = true;
    if (goes_on)
        return;
    r->now = MAX_LINES; /* none, should there be no room for it */
    if (r->works == MAX_LINES)
        return;
    if (r->works == r->work_room) {
        struct work *more = grow(r, r->work, &r->work_room, sizeof *more);
        if (!more)
            return;
        r->work = more;
    }
    r->now = r->works++;
    r->work[r->now] = (struct work){.room = 0};
    snprintf(r->work[r->now].resumes, sizeof r->work[r->now].resumes, "%s", resumes);
}

static void take_round(struct reader *r, const fst_event *e, bool epoch)
{
    struct work *w = &r->work[r->now];
    struct fst__round p = {.accuracy = epoch ? NAN : fst_event_number(e, "test_accuracy"),
                           .validation = fst_event_number(e, "validation_accuracy")};
    p.x[FST__BY_ROUND] = fst_event_number(e, epoch ? "epoch" : "round");
    p.x[FST__BY_BYTES] = epoch ? NAN : fst_event_number(e, "bytes_up") + fst_event_number(e, "bytes_down");
    p.x[FST__BY_TIME] = fst_event_number(e, "seconds");
    if (!(p.x[FST__BY_ROUND] >= 1 && p.x[FST__BY_ROUND] <= MAX_ROUNDS))
        return;
    while (w->rounds && (w->epochs != epoch || w->round[w->rounds - 1].x[FST__BY_ROUND] >= p.x[FST__BY_ROUND]))
        w->rounds--; /* done again */
    w->epochs = epoch;
    if (w->rounds == w->room) {
        struct fst__round *more = grow(r, w->round, &w->room, sizeof *more);
        if (!more)
            return;
        w->round = more;
    }
    w->round[w->rounds++] = p;
}

static bool take(void *ctx, const fst_event *e)
{
    struct reader *r = ctx;
    if (!strcmp(e->event, "start")) {
        r->started = true;
        r->ended = false;
    } else if (!strcmp(e->event, "run")) {
        r->ended = !strcmp(text_of(e, "status"), "done");
    }
    if (strcmp(e->stage, r->stage))
        return !r->status;
    bool known = r->now < r->works;
    if (!strcmp(e->event, "stage") && !strcmp(text_of(e, "state"), "runs")) {
        begin(r, text_of(e, "resumes"));
    } else if (known && (!strcmp(e->event, "round") || !strcmp(e->event, "epoch"))) {
        take_round(r, e, e->event[0] == 'e');
    } else if (!strcmp(e->event, "result")) {
        r->open = false;
        if (known && !strcmp(text_of(e, "digest"), r->digest)) {
            r->won = r->now;
            r->won_rounds = r->work[r->now].rounds;
        }
    }
    return !r->status;
}

/* From the first round to the last, none missing; sums over the rounds so far in place of each one's own. */
static void sum_up(struct fst__curve *c)
{
    double bytes = 0, seconds = 0;
    c->found = c->rounds > 0;
    for (size_t i = 0; i < c->rounds; i++) {
        struct fst__round *p = &c->round[i];
        c->found = c->found && fabs(p->x[FST__BY_ROUND] - (double)(i + 1)) < 0.5;
        c->validated = c->validated || isfinite(p->validation);
        if (!c->epochs) { /* the seconds of an epoch are those since the first one began */
            p->x[FST__BY_BYTES] = bytes += p->x[FST__BY_BYTES];
            p->x[FST__BY_TIME] = seconds += p->x[FST__BY_TIME];
        }
    }
}

fst_status fst__curve_parse(struct fst__curve *out, const fst_buf *events, const char *stage, const char *digest,
                            fst_error *err)
{
    struct reader r = {.stage = stage, .digest = digest, .won = MAX_LINES, .err = err};
    struct fst__curve c = {.round = NULL};
    fst_status st = fst_events_parse(events->data ? events->data : "", events->len, take, &r, NULL, err);
    st = st ? st : r.status;
    c.unfinished = r.started && !r.ended;
    if (!st && r.won < r.works && r.work[r.won].rounds >= r.won_rounds) {
        struct work *w = &r.work[r.won];
        c.round = w->round;
        c.rounds = r.won_rounds;
        c.epochs = w->epochs;
        w->round = NULL;
        sum_up(&c);
    }
    for (size_t i = 0; i < r.works; i++)
        fst_free(r.work[i].round);
    fst_free(r.work);
    if (!st)
        *out = c;
    return st;
}

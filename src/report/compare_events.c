/* The rounds of the model that a stage left, out of events.jsonl: their accuracies, and bytes and seconds summed up.
 * Which lines of that file belong to the model says run_log.h. */
#include <math.h>
#include <string.h>

#include "compare.h"
#include "run_log.h"

struct reader {
    const char *stage, *digest;
    struct fst__curve curve;
    size_t room;
    fst_status status;
    fst_error *err;
};

/* Of other stages nothing is wanted, so nothing of them need count. */
static const char *digest_of(void *ctx, const char *stage)
{
    const struct reader *r = ctx;
    return strcmp(stage, r->stage) ? "" : r->digest;
}

static bool take(void *ctx, const fst_event *e)
{
    struct reader *r = ctx;
    struct fst__curve *c = &r->curve;
    bool epoch = !strcmp(e->event, "epoch");
    if (strcmp(e->stage, r->stage) || (!epoch && strcmp(e->event, "round") != 0) || !isfinite(fst__event_step(e)))
        return true;
    if (c->rounds == r->room) {
        size_t room = r->room ? 2 * r->room : 64;
        struct fst__round *more = fst_realloc(c->round, r->room * sizeof *more, room * sizeof *more);
        if (!more) {
            r->status = fst_fail_memory(r->err, room * sizeof *more);
            return false;
        }
        c->round = more;
        r->room = room;
    }
    struct fst__round p = {.accuracy = epoch ? NAN : fst_event_number(e, "test_accuracy"),
                           .validation = fst_event_number(e, "validation_accuracy")};
    p.x[FST__BY_ROUND] = fst__event_step(e);
    p.x[FST__BY_BYTES] = epoch ? NAN : fst_event_number(e, "bytes_up") + fst_event_number(e, "bytes_down");
    p.x[FST__BY_TIME] = fst_event_number(e, "seconds");
    c->epochs = epoch;
    c->round[c->rounds++] = p;
    return true;
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
    struct reader r = {.stage = stage, .digest = digest, .err = err};
    struct fst__log log = {.counts = NULL};
    fst_status st = fst__log_read(&log, events, digest_of, &r, err);
    if (!st)
        st = fst__log_each(&log, events, take, &r, err);
    st = st ? st : r.status;
    r.curve.unfinished = log.unfinished;
    fst__log_release(&log);
    if (st) {
        fst_free(r.curve.round);
        return st;
    }
    sum_up(&r.curve);
    *out = r.curve;
    return FST_OK;
}

/* Who asks, see stream.h.
 *
 * Windows that are not answered stand in a ring of slots, from the oldest that is unanswered (`base`) to the newest. A
 * slot waits to be asked, was asked, or is done; those behind `base` are gone. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "stream.h"

enum { FIRST_ROOM = 64, TIMES = 64 };
static const double least_wait = 1, most_wait = 30, waits = 4, most_doubtful = 4;

typedef enum { SLOT_WAITS, SLOT_ASKED, SLOT_DONE } slot_state;

struct slot {
    uint64_t what;
    double added, asked, again, wait; /* asked: first; again: when it is asked again */
    slot_state state;
    bool twice;   /* asked again: its time says nothing */
    bool at_once; /* `again` counts, whatever is heard */
};

struct asker {
    uint64_t stream, base, unasked, end; /* unasked: none before it waits */
    struct slot *slot;
    size_t room; /* a power of two */
    uint32_t credit, in_flight;
    double heard;       /* anything from the other side */
    double overtaken;   /* when the newest was asked that was answered */
    double again_due;   /* no slot is asked again before that */
    double took[TIMES]; /* of the last answers */
    size_t taken;
    uint64_t left, asked_again;
};

static struct slot *at(const struct asker *a, uint64_t seq)
{
    return &a->slot[seq & (a->room - 1)];
}

fst_status fst__asker_new(struct asker **out, uint64_t stream, uint32_t credit, fst_error *err)
{
    struct asker *a = fst_calloc(1, sizeof *a);
    if (!a || !(a->slot = fst_calloc(FIRST_ROOM, sizeof *a->slot))) {
        fst_free(a);
        return fst_fail_memory(err, FIRST_ROOM * sizeof *a->slot);
    }
    a->stream = stream;
    a->credit = credit;
    a->room = FIRST_ROOM;
    a->heard = a->overtaken = -INFINITY;
    a->again_due = INFINITY;
    *out = a;
    return FST_OK;
}

void fst__asker_free(struct asker *a)
{
    if (!a)
        return;
    fst_free(a->slot);
    fst_free(a);
}

static fst_status grow(struct asker *a, fst_error *err)
{
    size_t n = 2 * a->room;
    struct slot *s = fst_calloc(n, sizeof *s);
    if (!s)
        return fst_fail_memory(err, n * sizeof *s);
    for (uint64_t k = a->base; k < a->end; k++)
        s[k & (n - 1)] = *at(a, k);
    fst_free(a->slot);
    a->slot = s;
    a->room = n;
    return FST_OK;
}

bool fst__asker_full(const struct asker *a)
{
    return a->end - a->base >= FST__ASKER_SPAN;
}

bool fst__asker_add(struct asker *a, double now, uint64_t what, fst_error *err)
{
    if (fst__asker_full(a))
        return false;
    if (a->end - a->base == a->room && grow(a, err))
        return false;
    *at(a, a->end++) = (struct slot){.what = what, .added = now};
    a->left++;
    return true;
}

/* ---- asking --------------------------------------------------------------------------------------------- */

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* How long an answer may take before the question is asked again. */
static double usual(const struct asker *a)
{
    double sorted[TIMES];
    size_t n = a->taken < TIMES ? a->taken : TIMES;
    if (!n)
        return least_wait;
    memcpy(sorted, a->took, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, rising);
    return fmin(fmax(least_wait, waits * sorted[(n * 95 + 99) / 100 - 1]), most_wait);
}

static void ask(struct asker *a, struct slot *s, double now, double wait)
{
    if (s->state == SLOT_WAITS) {
        s->state = SLOT_ASKED;
        s->asked = now;
        s->wait = wait;
        a->in_flight++;
    } else {
        s->twice = true;
        s->wait = fmin(2 * s->wait, most_wait);
        a->asked_again++;
    }
    s->at_once = false;
    s->again = now + s->wait;
    a->again_due = fmin(a->again_due, s->again);
}

/* Who answers is slow, and nothing is lost, as long as something is heard of him and nothing that was asked later was
 * answered: what waits at his side is answered in its order. */
static double due_of(const struct asker *a, const struct slot *s)
{
    return s->at_once || s->asked < a->overtaken ? s->again : fmax(s->again, a->heard + s->wait);
}

static bool is_due(const struct asker *a, const struct slot *s, double now)
{
    return s->state == SLOT_ASKED && due_of(a, s) <= now;
}

/* The first window to be asked again; a->end: none, and when one will be is known anew. */
static uint64_t first_due(struct asker *a, double now)
{
    if (now < a->again_due)
        return a->end;
    a->again_due = INFINITY;
    for (uint64_t k = a->base; k < a->end; k++) {
        const struct slot *s = at(a, k);
        if (is_due(a, s, now)) {
            a->again_due = now;
            return k;
        }
        if (s->state == SLOT_ASKED)
            a->again_due = fmin(a->again_due, due_of(a, s));
    }
    return a->end;
}

bool fst__asker_next(struct asker *a, double now, uint32_t most, uint64_t *first, uint32_t *count, uint64_t *what)
{
    double wait = usual(a);
    uint64_t k = first_due(a, now);
    *count = 0;
    *first = k;
    for (; k < a->end && *count < most && is_due(a, at(a, k), now); k++) {
        what[(*count)++] = at(a, k)->what;
        ask(a, at(a, k), now, wait);
    }
    if (*count)
        return true;
    while (a->unasked < a->end && at(a, a->unasked)->state != SLOT_WAITS)
        a->unasked++;
    *first = a->unasked;
    for (; a->unasked < a->end && *count < most && a->in_flight < a->credit; a->unasked++) {
        struct slot *s = at(a, a->unasked);
        if (s->state != SLOT_WAITS)
            break;
        what[(*count)++] = s->what;
        ask(a, s, now, wait);
    }
    return *count > 0;
}

void fst__asker_unsent(struct asker *a, uint64_t first, uint32_t count)
{
    for (uint64_t k = first; k < first + count; k++) {
        struct slot *s = at(a, k);
        if (k < a->base || s->state != SLOT_ASKED)
            continue;
        if (!s->twice) { /* nobody has heard of it */
            s->state = SLOT_WAITS;
            a->in_flight--;
            a->unasked = k < a->unasked ? k : a->unasked;
        }
    }
}

void fst__asker_again(struct asker *a, double now)
{
    for (uint64_t k = a->base; k < a->end; k++)
        if (at(a, k)->state == SLOT_ASKED) {
            at(a, k)->again = now;
            at(a, k)->at_once = true;
        }
    a->again_due = a->in_flight ? now : INFINITY;
}

/* ---- answers -------------------------------------------------------------------------------------------- */

static void finish(struct asker *a, struct slot *s)
{
    if (s->state == SLOT_ASKED)
        a->in_flight--;
    s->state = SLOT_DONE;
    a->left--;
    while (a->base < a->end && at(a, a->base)->state == SLOT_DONE)
        a->base++;
    if (a->unasked < a->base)
        a->unasked = a->base;
}

void fst__asker_answers(struct asker *a, double now, const struct answers *m, fst__answer_fn fn, void *ctx)
{
    if (m->stream != a->stream)
        return;
    a->heard = now;
    a->credit = m->credit < FST__ANSWERED ? m->credit : FST__ANSWERED;
    for (uint32_t i = 0; i < m->count; i++) {
        const struct stream_answer e = fst__answers_at(m, i);
        struct slot *s = e.seq >= a->base && e.seq < a->end ? at(a, e.seq) : NULL;
        if (!s || s->state != SLOT_ASKED) /* answered before, or never asked */
            continue;
        /* which question was answered is not known: at most the time since the first, so that who is slow is not asked
         * everything twice for ever; bounded, for it may have been lost */
        a->took[a->taken++ % TIMES] = s->twice ? fmin(now - s->asked, most_doubtful) : now - s->asked;
        uint64_t what = s->what;
        double seconds = now - s->asked;
        if (s->asked > a->overtaken) {
            a->overtaken = s->asked;
            a->again_due = fmin(a->again_due, now); /* looked at anew */
        }
        finish(a, s);
        fn(ctx, what, seconds, &e);
    }
}

bool fst__asker_give_up(struct asker *a, double now, double patience, uint64_t *what)
{
    for (uint64_t k = a->base; now - a->heard >= patience && k < a->end; k++) {
        struct slot *s = at(a, k);
        if (s->state == SLOT_DONE || now - s->added < patience)
            continue;
        *what = s->what;
        finish(a, s);
        return true;
    }
    return false;
}

double fst__asker_due(const struct asker *a, double patience)
{
    double due = a->in_flight ? a->again_due : INFINITY;
    for (uint64_t k = a->base; isfinite(patience) && k < a->end; k++)
        if (at(a, k)->state != SLOT_DONE) /* the oldest; they were added in their order */
            return fmin(due, fmax(at(a, k)->added, a->heard) + patience);
    return due;
}

uint64_t fst__asker_left(const struct asker *a)
{
    return a->left;
}

uint64_t fst__asker_asked_again(const struct asker *a)
{
    return a->asked_again;
}

uint64_t fst__asker_stream(const struct asker *a)
{
    return a->stream;
}

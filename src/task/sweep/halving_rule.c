/* Decisions of a halving that are certain (halving_rule.h). */
#include <math.h>
#include <stdlib.h>

#include "halving_rule.h"

struct fst__judged {
    size_t setting;
    double value;
};

fst_status fst__halving_init(struct fst__halving *h, size_t settings, int rungs, fst_error *err)
{
    struct fst__course *course = fst_calloc(settings, sizeof *course);
    struct fst__judged *order = fst_calloc(settings, sizeof *order);
    if (!course || !order) {
        fst_free(course);
        fst_free(order);
        return fst_fail_memory(err, settings * (sizeof *course + sizeof *order));
    }
    *h = (struct fst__halving){.settings = settings, .rungs = rungs, .course = course, .order = order};
    return FST_OK;
}

void fst__halving_release(struct fst__halving *h)
{
    fst_free(h->course);
    fst_free(h->order);
    *h = (struct fst__halving){.settings = 0};
}

void fst__halving_arrive(struct fst__halving *h, size_t setting, double value)
{
    struct fst__course *c = &h->course[setting];
    c->came[c->rung] = true;
    c->value[c->rung] = value;
}

void fst__halving_drop(struct fst__halving *h, size_t setting)
{
    h->course[setting].out = true;
}

/* Best first; of equals the one that stands first in the grid. */
static int by_value(const void *a, const void *b)
{
    const struct fst__judged *x = a, *y = b;
    if (x->value != y->value)
        return x->value > y->value ? -1 : 1;
    return x->setting < y->setting ? -1 : 1;
}

/* Those that have come to a rung with a value, in order; *open: how many may still come. */
static size_t sort_rung(struct fst__halving *h, int rung, size_t *open)
{
    size_t known = 0;
    *open = 0;
    for (size_t i = 0; i < h->settings; i++) {
        const struct fst__course *c = &h->course[i];
        if (c->came[rung] && isfinite(c->value[rung]))
            h->order[known++] = (struct fst__judged){i, c->value[rung]};
        *open += !c->came[rung] && !c->out;
    }
    qsort(h->order, known, sizeof *h->order, by_value);
    return known;
}

static bool waits_at(const struct fst__course *c, int rung)
{
    return c->rung == rung && c->came[rung] && !c->out;
}

static bool judge(struct fst__halving *h, int rung, struct fst__verdict *v)
{
    size_t open, known = sort_rung(h, rung, &open), keep = (known + open + 1) / 2;
    for (size_t i = 0; i < known; i++) {
        struct fst__course *c = &h->course[h->order[i].setting];
        bool goes_on = i + 1 + open <= keep, stops = i + 1 > keep;
        if (!waits_at(c, rung) || (!goes_on && !stops))
            continue;
        c->out = stops;
        c->rung += goes_on;
        *v = (struct fst__verdict){.kind = goes_on ? FST__GOES_ON : FST__STOPS,
                                   .setting = h->order[i].setting,
                                   .rung = rung,
                                   .value = h->order[i].value,
                                   .rank = i + 1,
                                   .of = known + open};
        return true;
    }
    if (open || h->over[rung])
        return false;
    h->over[rung] = true;
    if (known)
        *v = (struct fst__verdict){.kind = FST__OVER,
                                   .setting = h->order[0].setting,
                                   .rung = rung,
                                   .value = h->order[0].value,
                                   .rank = keep,
                                   .of = known};
    return known > 0;
}

bool fst__halving_next(struct fst__halving *h, struct fst__verdict *v)
{
    for (int rung = 0; rung < h->rungs; rung++) {
        for (size_t i = 0; i < h->settings; i++)
            if (waits_at(&h->course[i], rung) && !isfinite(h->course[i].value[rung])) {
                h->course[i].rung++;
                *v = (struct fst__verdict){.kind = FST__GOES_ON, .setting = i, .rung = rung, .value = NAN};
                return true;
            }
        if (judge(h, rung, v))
            return true;
    }
    return false;
}

size_t fst__halving_rank(struct fst__halving *h, int rung, size_t setting, size_t *of)
{
    size_t open, rank = 0;
    *of = sort_rung(h, rung, &open);
    for (size_t i = 0; i < *of; i++)
        if (h->order[i].setting == setting)
            rank = i + 1;
    return rank;
}

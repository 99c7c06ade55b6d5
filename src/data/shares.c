/*
 * Dealing samples to parts by fixed shares: training and test, cloud and edges. What belongs together (a burst, a
 * recording) stays together, and every class is dealt apart, so that the parts have the classes in like measure.
 * Skewed splits among clients are partition.c.
 */
#include <stdlib.h>
#include <string.h>

#include "partition.h"

static int by_group(const void *a, const void *b)
{
    const struct fst__member *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

void fst__groups_release(struct fst__groups *g)
{
    fst_free(g->of);
    fst_free(g->labels);
    fst_free(g->sizes);
    *g = (struct fst__groups){0};
}

/* Groups are numbered by their first sample, so that the numbers in the file do not matter. */
static void number_groups(struct fst__groups *g, const fst_source *s, const uint32_t *subset, size_t n,
                          struct fst__member *m)
{
    if (s->group)
        qsort(m, n, sizeof *m, by_group);
    for (size_t i = 0; i < n; i++) /* the first of each group is its smallest place */
        g->of[m[i].at] = i && s->group && m[i].group == m[i - 1].group ? g->of[m[i - 1].at] : m[i].at;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t first = g->of[i];
        if (first == i) {
            g->labels[g->count] = s->labels[subset ? subset[i] : i];
            g->sizes[g->count] = 1;
            g->of[i] = (uint32_t)g->count++;
        } else {
            g->of[i] = g->of[first]; /* already its number */
            g->sizes[g->of[i]]++;
        }
    }
}

fst_status fst__groups_find(struct fst__groups *out, const fst_source *s, const uint32_t *subset, size_t n,
                            fst_error *err)
{
    struct fst__groups g = {0};
    struct fst__member *m = fst_calloc(n, sizeof *m);
    g.of = fst_calloc(n, sizeof *g.of);
    g.labels = fst_calloc(n, sizeof *g.labels);
    g.sizes = fst_calloc(n, sizeof *g.sizes);
    if (!m || !g.of || !g.labels || !g.sizes) {
        fst_free(m);
        fst__groups_release(&g);
        return fst_fail_memory(err, n * sizeof *m);
    }
    for (size_t i = 0; i < n; i++)
        m[i] = (struct fst__member){s->group ? s->group[subset ? subset[i] : i] : 0, (uint32_t)i};
    number_groups(&g, s, subset, n, m);
    fst_free(m);
    *out = g;
    return FST_OK;
}

/* Deals one class: groups in drawn order, each to the part in whose share of the class its middle falls. */
static void deal_class(const struct fst__groups *g, const uint32_t *deck, size_t n, const double *share, size_t parts,
                       int32_t *part_of)
{
    double total = 0, before = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        total += (double)g->sizes[deck[i]];
    for (size_t p = 0; p < parts; p++)
        sum += share[p];
    for (size_t i = 0; i < n; i++) {
        double middle = (before + 0.5 * (double)g->sizes[deck[i]]) / total * sum, upto = 0;
        size_t p = 0;
        while (p + 1 < parts && middle >= (upto += share[p]))
            p++;
        while (p > 0 && share[p] == 0) /* rounding must not fill an empty share */
            p--;
        part_of[deck[i]] = (int32_t)p;
        before += (double)g->sizes[deck[i]];
    }
}

static fst_status deal(const struct fst__groups *g, int classes, const fst_shares *how, int32_t *part_of,
                       fst_error *err)
{
    uint32_t *deck = fst_calloc(g->count, sizeof *deck);
    fst_rng r;
    if (!deck)
        return fst_fail_memory(err, g->count * sizeof *deck);
    for (int c = 0; c < classes; c++) {
        size_t n = 0;
        for (size_t i = 0; i < g->count; i++)
            if (g->labels[i] == c)
                deck[n++] = (uint32_t)i;
        fst_rng_init(&r, how->seed, how->purpose, (uint64_t)c);
        fst_rng_shuffle_u32(&r, deck, n);
        deal_class(g, deck, n, how->share, how->parts, part_of);
    }
    fst_free(deck);
    return FST_OK;
}

fst_status fst_shares_deal(const fst_source *s, const uint32_t *subset, size_t count, const fst_shares *how,
                           int32_t *part, fst_error *err)
{
    struct fst__groups g = {0};
    double sum = 0;
    for (size_t p = 0; p < how->parts; p++) {
        if (!(how->share[p] >= 0 && how->share[p] <= 1))
            return fst_fail(err, FST_E_ARGUMENT, "a share is 0 to 1, not %g", how->share[p]);
        sum += how->share[p];
    }
    if (!(sum > 0) || !count)
        return fst_fail(err, FST_E_ARGUMENT, "there is nothing to deal");
    fst_status st = fst__groups_find(&g, s, subset, count, err);
    if (st)
        return st;
    int32_t *part_of = fst_calloc(g.count, sizeof *part_of);
    st = part_of ? deal(&g, s->classes, how, part_of, err) : fst_fail_memory(err, g.count * sizeof *part_of);
    for (size_t i = 0; !st && i < count; i++)
        part[i] = part_of[g.of[i]];
    fst_free(part_of);
    fst__groups_release(&g);
    return st;
}

/*
 * Which samples belong together: the windows of one burst, the parts of one recording. Partitions deal whole groups.
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

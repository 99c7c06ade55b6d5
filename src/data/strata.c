/*
 * Numbers of samples by class: a total is divided among classes as they share the samples, and a few samples of every
 * class are picked for a limit. Both follow from their inputs alone; nothing is drawn.
 */
#include <stdlib.h>
#include <string.h>

#include "formats.h"

struct remainder {
    uint64_t size;
    uint32_t class, place; /* place: from the class that is first among equals */
};

/* The largest first. */
static int by_remainder(const void *a, const void *b)
{
    const struct remainder *x = a, *y = b;
    if (x->size != y->size)
        return x->size > y->size ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

/* Adds one to the classes in their order until `left` are given away or nobody takes more. */
static void hand_out(const struct remainder *order, const size_t *most, size_t classes, size_t left, size_t *out)
{
    for (size_t before = left + 1; left && left < before;) {
        before = left;
        for (size_t i = 0; left && i < classes; i++)
            if (out[order[i].class] < most[order[i].class]) {
                out[order[i].class]++;
                left--;
            }
    }
}

/* Takes one from the classes against their order, until `over` are back; the last of a class stays. */
static void take_back(const struct remainder *order, size_t classes, size_t over, size_t *out)
{
    while (over)
        for (size_t i = classes; over && i > 0; i--)
            if (out[order[i - 1].class] > 1) {
                out[order[i - 1].class]--;
                over--;
            }
}

fst_status fst__apportion(const size_t *n, const size_t *most, size_t classes, size_t total, bool each, size_t first,
                          size_t *out, fst_error *err)
{
    struct remainder *order = fst_calloc(classes, sizeof *order);
    uint64_t all = 0, sum = 0, there = 0;
    if (!order)
        return fst_fail_memory(err, classes * sizeof *order);
    for (size_t c = 0; c < classes; c++) {
        all += n[c];
        there += n[c] > 0;
    }
    each = each && total >= there;
    for (size_t c = 0; c < classes; c++) {
        unsigned __int128 share = all ? (unsigned __int128)n[c] * total : 0;
        out[c] = all ? (size_t)(share / all) : 0;
        order[c] = (struct remainder){all ? (uint64_t)(share % all) : 0, (uint32_t)c,
                                      (uint32_t)((c + classes - first) % classes)};
        if (each && n[c] && !out[c])
            out[c] = 1;
        out[c] = out[c] < most[c] ? out[c] : most[c];
        sum += out[c];
    }
    qsort(order, classes, sizeof *order, by_remainder);
    if (sum < total)
        hand_out(order, most, classes, total - sum, out);
    else
        take_back(order, classes, sum - total, out);
    fst_free(order);
    return FST_OK;
}

/* Which of the class's samples, 0 ... n-1, are picked: the first and then evenly. */
static bool is_picked(size_t at, size_t n, size_t want)
{
    return (unsigned __int128)at * want / n != (at ? (unsigned __int128)(at - 1) * want / n : want);
}

fst_status fst_stratified_pick(const int32_t *labels, size_t n, size_t limit, uint32_t *index, fst_error *err)
{
    size_t classes = 1, picked = 0;
    for (size_t i = 0; i < n; i++)
        classes = labels[i] >= (int32_t)classes ? (size_t)labels[i] + 1 : classes;
    size_t *count = fst_calloc(classes, sizeof *count), *want = fst_calloc(classes, sizeof *want);
    size_t *seen = fst_calloc(classes, sizeof *seen);
    fst_status s = count && want && seen ? FST_OK : fst_fail_memory(err, 3 * classes * sizeof *count);
    for (size_t i = 0; !s && i < n; i++)
        count[labels[i]]++;
    if (!s)
        s = fst__apportion(count, count, classes, limit < n ? limit : n, true, 0, want, err);
    for (size_t i = 0; !s && i < n; i++) {
        size_t c = (size_t)labels[i];
        if (want[c] && is_picked(seen[c]++, count[c], want[c]))
            index[picked++] = (uint32_t)i;
    }
    fst_free(count);
    fst_free(want);
    fst_free(seen);
    return s;
}

/* Says when a limit of fewer samples than classes leaves some without. */
static void warn_few(const char *name, const int32_t *labels, size_t n, size_t limit)
{
    size_t classes = 0;
    bool *seen = fst_calloc(FST_MAX_CLASSES, sizeof *seen);
    for (size_t i = 0; seen && i < n; i++) {
        classes += !seen[labels[i]];
        seen[labels[i]] = true;
    }
    if (limit < classes)
        fst__warn_once("%s: a limit of %zu leaves %zu of its %zu classes without samples", name, limit, classes - limit,
                       classes);
    fst_free(seen);
}

fst_status fst__pick(fst__picks *out, const char *name, const int32_t *labels, size_t n, size_t limit, fst_error *err)
{
    fst__picks p = {.count = n};
    fst_status s = FST_OK;
    if (n > UINT32_MAX)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu samples are more than can be counted", name, n);
    if (limit && limit < n) {
        p.count = limit;
        p.index = fst_alloc(limit * sizeof *p.index);
        s = p.index ? fst_stratified_pick(labels, n, limit, p.index, err)
                    : fst_fail_memory(err, limit * sizeof *p.index);
    }
    if (s) {
        fst_free(p.index);
        return s;
    }
    if (p.index)
        warn_few(name, labels, n, limit);
    *out = p;
    return FST_OK;
}

size_t fst__picked(const fst__picks *p, size_t i)
{
    return p->index ? p->index[i] : i;
}

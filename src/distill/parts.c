/* Parts A and B of iterated soft targets: which samples a round learns from. It trains nothing. */
#include <math.h>
#include <string.h>

#include "fedstill/distill.h"

static void shuffle(uint32_t *v, size_t n, uint64_t seed, uint64_t round)
{
    fst_rng r;
    fst_rng_init(&r, seed, "distill.parts", round);
    for (size_t i = n; i > 1; i--) {
        size_t k = (size_t)fst_rng_below(&r, i);
        uint32_t last = v[i - 1];
        v[i - 1] = v[k];
        v[k] = last;
    }
}

fst_status fst_parts_init(fst_parts *p, const uint32_t *index, size_t count, double share_a, double share_b,
                          uint64_t seed, fst_error *err)
{
    fst_parts n = {.count = count, .seed = seed};
    n.a = (size_t)floor(share_a * (double)count + 0.5);
    n.b = n.a < count ? (size_t)floor(share_b * (double)(count - n.a) + 0.5) : 0;
    if (!n.a || !n.b)
        return fst_fail(err, FST_E_CONFIG, "of %zu samples part A has %zu and a part B %zu: both need some", count, n.a,
                        n.b);
    n.order = fst_calloc(count, sizeof *n.order);
    n.draw = fst_calloc(count, sizeof *n.draw);
    if (!n.order || !n.draw) {
        fst_parts_release(&n);
        return fst_fail_memory(err, 2 * count * sizeof *n.order);
    }
    memcpy(n.order, index, count * sizeof *n.order);
    shuffle(n.order, count, seed, 0);
    *p = n;
    return FST_OK;
}

void fst_parts_release(fst_parts *p)
{
    if (!p)
        return;
    fst_free(p->order);
    fst_free(p->draw);
    *p = (fst_parts){0};
}

size_t fst_parts_of(fst_parts *p, uint64_t round, const uint32_t **index)
{
    *index = p->order;
    if (!round)
        return p->a;
    memcpy(p->draw, p->order + p->a, (p->count - p->a) * sizeof *p->draw);
    shuffle(p->draw, p->count - p->a, p->seed, round);
    *index = p->draw;
    return p->b;
}

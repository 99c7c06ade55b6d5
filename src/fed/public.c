/* Public samples, which server and clients all have: in the order of their keys, so that a row of logits means the same
 * sample everywhere, and the rows that a round uses, which follow from a named stream. */
#include <stdlib.h>
#include <string.h>

#include "fed_private.h"

struct keyed {
    fst_hash128 key;
    uint32_t at;
};

static int by_key(const void *a, const void *b)
{
    const struct keyed *x = a, *y = b;
    if (x->key.hi != y->key.hi)
        return x->key.hi < y->key.hi ? -1 : 1;
    if (x->key.lo != y->key.lo)
        return x->key.lo < y->key.lo ? -1 : 1;
    return x->at < y->at ? -1 : x->at > y->at;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

fst_status fst_public_init(fst_public *out, const fst_source *source, const uint32_t *subset, size_t count,
                           const fst_transform *transform, fst_error *err)
{
    fst_public p = {.source = source, .transform = *transform};
    size_t n = subset ? count : source->count;
    struct keyed *k = fst_calloc(n ? n : 1, sizeof *k);
    fst_hash128 *keys = fst_calloc(n ? n : 1, sizeof *keys);
    p.index = fst_calloc(n ? n : 1, sizeof *p.index);
    fst_status st = k && keys && p.index ? FST_OK : fst_fail_memory(err, n * (sizeof *k + sizeof *keys));
    for (size_t i = 0; !st && i < n; i++) {
        k[i].at = subset ? subset[i] : (uint32_t)i;
        st = fst_source_key(source, k[i].at, &k[i].key, err);
    }
    if (!st)
        qsort(k, n, sizeof *k, by_key);
    for (size_t i = 0; !st && i < n; i++) {
        if (p.count && !memcmp(&keys[p.count - 1], &k[i].key, sizeof *keys))
            continue;
        keys[p.count] = k[i].key;
        p.index[p.count++] = k[i].at;
    }
    if (!st)
        p.digest = fst_hash(keys, p.count * sizeof *keys, 0);
    fst_free(k);
    fst_free(keys);
    if (st)
        fst_public_release(&p);
    else
        *out = p;
    return st;
}

void fst_public_release(fst_public *p)
{
    if (!p)
        return;
    fst_free(p->index);
    *p = (fst_public){0};
}

size_t fst_public_draw(const fst_public *p, uint64_t seed, uint64_t round, size_t want, uint32_t *row)
{
    fst_rng rng;
    for (size_t i = 0; i < p->count; i++)
        row[i] = (uint32_t)i;
    if (want == 0 || want >= p->count)
        return p->count;
    fst_rng_init(&rng, seed, "public.round", round);
    for (size_t i = 0; i < want; i++) {
        size_t j = i + (size_t)fst_rng_below(&rng, p->count - i);
        uint32_t t = row[i];
        row[i] = row[j];
        row[j] = t;
    }
    qsort(row, want, sizeof *row, by_value);
    return want;
}

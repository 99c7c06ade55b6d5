/*
 * Splitting a source among clients. Each kind first settles how many samples of which class every client
 * gets (or how many at all), then deals shuffled samples; every draw is from a stream named after the
 * kind, so that the same seed gives the same split everywhere. Files are in partition_file.c.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "partition.h"

/* Tries at drawing shares that leave every client its minimum, before samples are moved instead. */
enum { ATTEMPTS = 20 };

static const char *const kind_names[] = {"iid", "dirichlet", "shards", "quantity"};
enum { KINDS = sizeof kind_names / sizeof *kind_names };

const char *fst_partition_kind_name(fst_partition_kind k)
{
    return (size_t)k < KINDS ? kind_names[k] : "?";
}

bool fst_partition_kind_parse(const char *name, fst_partition_kind *out)
{
    for (int i = 0; i < KINDS; i++)
        if (!strcmp(name, kind_names[i])) {
            *out = (fst_partition_kind)i;
            return true;
        }
    return false;
}

void fst_partition_release(fst_partition *p)
{
    if (!p)
        return;
    fst_free(p->index);
    fst_free(p->begin);
    fst_free(p->counts);
    *p = (fst_partition){0};
}

fst_status fst__partition_reserve(fst_partition *p, fst_error *err)
{
    size_t clients = (size_t)p->clients, cells = clients * (size_t)p->classes;
    p->index = fst_calloc(p->samples, sizeof *p->index);
    p->begin = fst_calloc(clients + 1, sizeof *p->begin);
    p->counts = fst_calloc(cells, sizeof *p->counts);
    if (!p->index || !p->begin || !p->counts)
        return fst_fail_memory(err, p->samples * sizeof *p->index + cells * sizeof *p->counts);
    return FST_OK;
}

/* A counting sort by owner: each client's samples end up in rising order. */
void fst__partition_fill(fst_partition *p, const int32_t *owner)
{
    for (size_t i = 0; i < p->samples; i++)
        if (owner[i] >= 0)
            p->begin[owner[i] + 1]++;
    for (int k = 0; k < p->clients; k++)
        p->begin[k + 1] += p->begin[k];
    for (size_t i = 0; i < p->samples; i++)
        if (owner[i] >= 0)
            p->index[p->begin[owner[i]]++] = (uint32_t)i;
    /* each begin now stands where the next one stood */
    for (int k = p->clients; k > 0; k--)
        p->begin[k] = p->begin[k - 1];
    p->begin[0] = 0;
}

/* What making a partition works with. */
struct work {
    const fst_source *source;
    const fst_partition_spec *spec;
    size_t all;                       /* samples to deal */
    struct fst__groups groups;        /* what is dealt; empty: all samples of a source without groups */
    const int32_t *labels;            /* of what is dealt */
    size_t clients, classes, samples; /* samples: how many are dealt, groups where there are groups */
    size_t least;                     /* fewest of what is dealt that any client needs */
    int32_t *owner;                   /* samples */
    uint32_t *deck;                   /* samples: shuffled, or sorted by label */
    size_t *class_at; /* classes + 1: where each class begins in the deck once that is sorted by label */
    size_t *sizes;    /* clients */
    double *share;    /* clients */
    int64_t *counts;  /* clients x classes; quantity: clients; others: nothing */
};

static void shuffle(struct work *w, const char *purpose, uint64_t index, uint32_t *a, size_t n)
{
    fst_rng r;
    fst_rng_init(&r, w->spec->seed, purpose, index);
    fst_rng_shuffle_u32(&r, a, n);
}

static void deck_in_order(struct work *w)
{
    for (size_t i = 0; i < w->samples; i++)
        w->deck[i] = (uint32_t)i;
}

static void deck_by_label(struct work *w)
{
    memset(w->class_at, 0, (w->classes + 1) * sizeof *w->class_at);
    for (size_t i = 0; i < w->samples; i++)
        w->class_at[w->labels[i] + 1]++;
    for (size_t c = 0; c < w->classes; c++)
        w->class_at[c + 1] += w->class_at[c];
    for (size_t i = 0; i < w->samples; i++)
        w->deck[w->class_at[w->labels[i]]++] = (uint32_t)i;
    for (size_t c = w->classes; c > 0; c--)
        w->class_at[c] = w->class_at[c - 1];
    w->class_at[0] = 0;
}

/* Client k gets sizes[k] cards of the deck. */
static void deal_sizes(struct work *w)
{
    size_t at = 0;
    for (size_t k = 0; k < w->clients; k++)
        for (size_t i = 0; i < w->sizes[k]; i++)
            w->owner[w->deck[at++]] = (int32_t)k;
}

/* ---- shares --------------------------------------------------------------------------------- */

/* Dirichlet(alpha) over the clients. With a tiny alpha every gamma draw may be 0; the limit of the
 * distribution then is that one client has it all. */
static void draw_share(struct work *w, const char *purpose, uint64_t index)
{
    fst_rng r;
    double sum = 0;
    fst_rng_init(&r, w->spec->seed, purpose, index);
    for (size_t k = 0; k < w->clients; k++) {
        w->share[k] = fst_rng_gamma(&r, w->spec->alpha);
        sum += w->share[k];
    }
    if (!(sum > 0)) {
        w->share[fst_rng_below(&r, w->clients)] = 1;
        sum = 1;
    }
    for (size_t k = 0; k < w->clients; k++)
        w->share[k] /= sum;
}

/* Cuts n into the drawn shares: out[k * stride] is client k's. */
static void cut(const struct work *w, size_t n, int64_t *out, size_t stride)
{
    double sum = 0;
    size_t at = 0;
    for (size_t k = 0; k < w->clients; k++) {
        sum += w->share[k];
        double end = floor(sum * (double)n);
        size_t to = k + 1 == w->clients || end >= (double)n ? n : (size_t)end;
        to = to < at ? at : to;
        out[k * stride] = (int64_t)(to - at);
        at = to;
    }
}

/* sizes from counts (columns wide); true when everybody has the minimum. */
static bool enough(struct work *w, size_t columns)
{
    bool all = true;
    for (size_t k = 0; k < w->clients; k++) {
        int64_t sum = 0;
        for (size_t c = 0; c < columns; c++)
            sum += w->counts[k * columns + c];
        w->sizes[k] = (size_t)sum;
        all = all && w->sizes[k] >= w->least;
    }
    return all;
}

static size_t largest_client(const struct work *w)
{
    size_t best = 0;
    for (size_t k = 1; k < w->clients; k++)
        if (w->sizes[k] > w->sizes[best])
            best = k;
    return best;
}

/* Clients below the minimum get samples of the largest client's most frequent class. There is always a client
 * to take from, because clients * least <= samples. */
static void move_samples(struct work *w, size_t columns)
{
    for (size_t k = 0; k < w->clients; k++)
        while (w->sizes[k] < w->least) {
            size_t from = largest_client(w), c = 0;
            int64_t *giver = w->counts + from * columns, n = (int64_t)(w->least - w->sizes[k]);
            for (size_t i = 1; i < columns; i++)
                c = giver[i] > giver[c] ? i : c;
            /* half of what it can spare, so that no single client pays for all */
            int64_t spare = (int64_t)(w->sizes[from] - w->least + 1) / 2;
            n = n < spare ? n : spare;
            n = n < giver[c] ? n : giver[c];
            giver[c] -= n;
            w->counts[k * columns + c] += n;
            w->sizes[from] -= (size_t)n;
            w->sizes[k] += (size_t)n;
        }
}

/* ---- the kinds ------------------------------------------------------------------------------ */

static fst_status make_iid(struct work *w, fst_error *err)
{
    (void)err;
    deck_in_order(w);
    shuffle(w, "partition.iid", 0, w->deck, w->samples);
    for (size_t k = 0; k < w->clients; k++)
        w->sizes[k] = w->samples / w->clients + (k < w->samples % w->clients);
    deal_sizes(w);
    return FST_OK;
}

static fst_status make_quantity(struct work *w, fst_error *err)
{
    (void)err;
    bool done = false;
    for (uint64_t a = 0; a < ATTEMPTS && !done; a++) {
        draw_share(w, "partition.quantity.share", a);
        cut(w, w->samples, w->counts, 1);
        done = enough(w, 1);
    }
    if (!done)
        move_samples(w, 1);
    deck_in_order(w);
    shuffle(w, "partition.quantity.order", 0, w->deck, w->samples);
    deal_sizes(w);
    return FST_OK;
}

static fst_status make_dirichlet(struct work *w, fst_error *err)
{
    (void)err;
    bool done = false;
    deck_by_label(w);
    for (uint64_t a = 0; a < ATTEMPTS && !done; a++) {
        for (size_t c = 0; c < w->classes; c++) {
            draw_share(w, "partition.dirichlet.share", a * w->classes + c);
            cut(w, w->class_at[c + 1] - w->class_at[c], w->counts + c, w->classes);
        }
        done = enough(w, w->classes);
    }
    if (!done)
        move_samples(w, w->classes);
    for (size_t c = 0; c < w->classes; c++) {
        size_t at = w->class_at[c];
        shuffle(w, "partition.dirichlet.order", c, w->deck + at, w->class_at[c + 1] - at);
        for (size_t k = 0; k < w->clients; k++)
            for (int64_t i = 0; i < w->counts[k * w->classes + c]; i++)
                w->owner[w->deck[at++]] = (int32_t)k;
    }
    return FST_OK;
}

static fst_status make_shards(struct work *w, fst_error *err)
{
    size_t each = (size_t)w->spec->classes_per_client, shards = w->clients * each;
    if (shards > w->samples)
        return fst_fail(err, FST_E_CONFIG, "%s: %zu samples cannot be cut into %zu clients x %zu shards",
                        w->source->name, w->samples, w->clients, each);
    uint32_t *dealt = fst_alloc(shards * sizeof *dealt);
    if (!dealt)
        return fst_fail_memory(err, shards * sizeof *dealt);
    for (size_t i = 0; i < shards; i++)
        dealt[i] = (uint32_t)i;
    shuffle(w, "partition.shards", 0, dealt, shards);
    deck_by_label(w);
    for (size_t i = 0; i < shards; i++) {
        size_t from = (size_t)((unsigned __int128)dealt[i] * w->samples / shards);
        size_t to = (size_t)(((unsigned __int128)dealt[i] + 1) * w->samples / shards);
        w->sizes[i / each] += to - from;
        for (size_t at = from; at < to; at++)
            w->owner[w->deck[at]] = (int32_t)(i / each);
    }
    fst_free(dealt);
    for (size_t k = 0; !w->source->group && k < w->clients; k++)
        if (w->sizes[k] < w->least)
            return fst_fail(err, FST_E_CONFIG,
                            "%s: shards leave client %zu with %zu samples, min_samples is %zu: ask for fewer clients",
                            w->source->name, k, w->sizes[k], w->least);
    return FST_OK;
}

/* ---- groups and the minimum ------------------------------------------------------------------ */

static size_t size_of(const struct work *w, size_t unit)
{
    return w->groups.of ? w->groups.sizes[unit] : 1;
}

/* Groups may differ in size, so that as many of them need not be enough samples. */
static void count_samples(struct work *w)
{
    memset(w->sizes, 0, w->clients * sizeof *w->sizes);
    for (size_t u = 0; u < w->samples; u++)
        w->sizes[w->owner[u]] += size_of(w, u);
}

static bool spare(const struct work *w, size_t unit)
{
    return w->sizes[w->owner[unit]] >= size_of(w, unit) + w->spec->min_samples;
}

/* A group that its client can do without: of the largest client that has such, and there of the class that it has most
 * groups of. As many as there are groups: none. */
static size_t spare_group(struct work *w)
{
    size_t best = w->samples;
    for (size_t u = 0; u < w->samples; u++)
        if (spare(w, u) && (best == w->samples || w->sizes[w->owner[u]] > w->sizes[w->owner[best]]))
            best = u;
    if (best == w->samples)
        return best;
    int32_t from = w->owner[best];
    memset(w->class_at, 0, (w->classes + 1) * sizeof *w->class_at);
    for (size_t u = 0; u < w->samples; u++)
        w->class_at[w->labels[u]] += w->owner[u] == from;
    for (size_t u = 0; u < w->samples; u++)
        if (w->owner[u] == from && spare(w, u) && w->class_at[w->labels[u]] > w->class_at[w->labels[best]])
            best = u;
    return best;
}

/* Clients with too few samples get groups of the largest client, those of its most frequent class first. */
static fst_status move_groups(struct work *w, fst_error *err)
{
    size_t least = w->spec->min_samples;
    count_samples(w);
    for (size_t k = 0; k < w->clients; k++)
        while (w->sizes[k] < least) {
            size_t u = w->spec->kind == FST_PARTITION_SHARDS ? w->samples : spare_group(w);
            if (u == w->samples)
                return fst_fail(err, FST_E_CONFIG,
                                "%s: client %zu has %zu samples, min_samples is %zu, and no client can spare a whole "
                                "burst: ask for fewer clients or fewer samples",
                                w->source->name, k, w->sizes[k], least);
            w->sizes[w->owner[u]] -= size_of(w, u);
            w->sizes[k] += size_of(w, u);
            w->owner[u] = (int32_t)k;
        }
    return FST_OK;
}

/* A client needs at least so many groups: as many as it would of the largest. Where all are of one size that is it. */
static size_t least_groups(const struct work *w)
{
    size_t largest = 1, least = w->spec->min_samples ? w->spec->min_samples : 1;
    for (size_t u = 0; w->groups.of && u < w->samples; u++)
        largest = w->groups.sizes[u] > largest ? w->groups.sizes[u] : largest;
    return (least + largest - 1) / largest;
}

/* ---- all together --------------------------------------------------------------------------- */

static fst_status check(const struct work *w, fst_error *err)
{
    const fst_source *s = w->source;
    const fst_partition_spec *spec = w->spec;
    if ((size_t)spec->kind >= KINDS)
        return fst_fail(err, FST_E_ARGUMENT, "%s: unknown kind of partition (%d)", s->name, (int)spec->kind);
    if (spec->clients < 1 || spec->clients > FST__PARTITION_MAX_CLIENTS ||
        (size_t)spec->clients * (size_t)s->classes > FST__PARTITION_MAX_CELLS)
        return fst_fail(err, FST_E_CONFIG, "%s: %d clients; 1 to %d are possible, and clients x classes up to %zu",
                        s->name, spec->clients, FST__PARTITION_MAX_CLIENTS, FST__PARTITION_MAX_CELLS);
    bool drawn = spec->kind == FST_PARTITION_DIRICHLET || spec->kind == FST_PARTITION_QUANTITY;
    if (drawn && !(spec->alpha >= 1e-6 && spec->alpha <= 1e6))
        return fst_fail(err, FST_E_CONFIG, "%s: alpha must be 1e-6 ... 1e6, not %g", s->name, spec->alpha);
    if (spec->kind == FST_PARTITION_SHARDS && (spec->classes_per_client < 1 || spec->classes_per_client > s->classes))
        return fst_fail(err, FST_E_CONFIG, "%s: classes_per_client must be 1 ... %d, as many as there are, not %d",
                        s->name, s->classes, spec->classes_per_client);
    if (w->least <= w->samples / (size_t)spec->clients && spec->min_samples <= w->all / (size_t)spec->clients)
        return FST_OK;
    const char *whose = spec->whose ? spec->whose : "clients";
    if (!s->group)
        return fst_fail(err, FST_E_CONFIG, "%s: %zu samples are too few to give each of %d %s %zu", s->name, w->samples,
                        spec->clients, whose, w->least);
    return fst_fail(err, FST_E_CONFIG, "%s: %zu samples in %zu bursts are too few to give each of %d %s %zu", s->name,
                    w->all, w->samples, spec->clients, whose, spec->min_samples ? spec->min_samples : 1);
}

static fst_status work_reserve(struct work *w, fst_error *err)
{
    w->owner = fst_calloc(w->samples, sizeof *w->owner);
    w->deck = fst_calloc(w->samples, sizeof *w->deck);
    w->class_at = fst_calloc(w->classes + 1, sizeof *w->class_at);
    w->sizes = fst_calloc(w->clients, sizeof *w->sizes);
    w->share = fst_calloc(w->clients, sizeof *w->share);
    size_t by_class = w->spec->kind == FST_PARTITION_DIRICHLET ? w->classes : w->spec->kind == FST_PARTITION_QUANTITY;
    w->counts = fst_calloc(w->clients * by_class, sizeof *w->counts);
    if (w->owner && w->deck && w->class_at && w->sizes && w->share && w->counts)
        return FST_OK;
    return fst_fail_memory(err, w->samples * 8 + w->clients * (w->classes + 2) * 8);
}

static void work_release(struct work *w)
{
    fst_free(w->owner);
    fst_free(w->deck);
    fst_free(w->class_at);
    fst_free(w->sizes);
    fst_free(w->share);
    fst_free(w->counts);
    fst__groups_release(&w->groups);
}

static void describe(char *out, size_t size, const fst_partition_spec *spec)
{
    const char *name = fst_partition_kind_name(spec->kind);
    if (spec->kind == FST_PARTITION_IID)
        snprintf(out, size, "%s", name);
    else if (spec->kind == FST_PARTITION_SHARDS)
        snprintf(out, size, "%s(%d)", name, spec->classes_per_client);
    else
        snprintf(out, size, "%s(%.9g)", name, spec->alpha);
}

fst_status fst_partition_from_owners(fst_partition *out, const fst_source *s, const int32_t *owner, int clients,
                                     fst_error *err)
{
    fst_partition p = {.clients = clients, .classes = s->classes, .samples = s->count};
    fst_status st = fst__partition_reserve(&p, err);
    if (st) {
        fst_partition_release(&p);
        return st;
    }
    for (size_t i = 0; i < s->count; i++)
        if (owner[i] >= 0)
            p.counts[(size_t)owner[i] * (size_t)p.classes + (size_t)s->labels[i]]++;
    fst__partition_fill(&p, owner);
    memcpy(p.data_digest, s->digest, sizeof p.data_digest);
    *out = p;
    return FST_OK;
}

static fst_status finish(fst_partition *out, const struct work *w, fst_error *err)
{
    size_t n = w->source->count;
    int32_t *owner = fst_alloc(n * sizeof *owner);
    if (!owner)
        return fst_fail_memory(err, n * sizeof *owner);
    memset(owner, -1, n * sizeof *owner);
    for (size_t i = 0; i < w->all; i++)
        owner[w->spec->subset ? w->spec->subset[i] : i] = w->owner[w->groups.of ? w->groups.of[i] : i];
    fst_status s = fst_partition_from_owners(out, w->source, owner, (int)w->clients, err);
    fst_free(owner);
    if (s)
        return s;
    out->seed = w->spec->seed;
    describe(out->method, sizeof out->method, w->spec);
    return FST_OK;
}

fst_status fst_partition_make(fst_partition *out, const fst_source *s, const fst_partition_spec *spec, fst_error *err)
{
    static fst_status (*const makers[KINDS])(struct work *, fst_error *) = {make_iid, make_dirichlet, make_shards,
                                                                            make_quantity};
    struct work w = {.source = s,
                     .spec = spec,
                     .clients = (size_t)spec->clients,
                     .classes = (size_t)s->classes,
                     .all = spec->subset ? spec->subset_count : s->count,
                     .samples = s->count,
                     .labels = s->labels};
    fst_status st = w.all ? FST_OK : fst_fail(err, FST_E_ARGUMENT, "%s: no samples to deal", s->name);
    if (!st && (s->group || spec->subset)) {
        st = fst__groups_find(&w.groups, s, spec->subset, w.all, err);
        w.labels = w.groups.labels;
        w.samples = w.groups.count;
    }
    w.least = least_groups(&w);
    if (!st)
        st = check(&w, err);
    if (!st)
        st = work_reserve(&w, err);
    if (!st)
        st = makers[spec->kind](&w, err);
    if (!st && s->group)
        st = move_groups(&w, err);
    if (!st)
        st = finish(out, &w, err);
    work_release(&w);
    return st;
}

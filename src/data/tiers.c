/*
 * Who gets which samples for what: the cloud, the edges, and at each of them training, validation and test. Groups
 * (bursts, recordings) are the units that are dealt. Every deal takes a list of units, sorted by SNR, and shares, and
 * gives each unit to whom most is missing; where in the list it begins is drawn. Class by class a share can only hold
 * to about a unit, and these add up; so single samples are given out by numbers that are settled for all classes
 * together. Files are written in tiers_write.c.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "formats.h"

/* Draws of the edges' shares until every edge has something. */
enum { ATTEMPTS = 20 };

struct unit {
    size_t weight; /* samples */
    int32_t class;
    float snr; /* -infinity when not known */
    int32_t site;
    uint8_t part;
};

struct work {
    const fst_source *source;
    const fst_tiers_spec *spec;
    struct unit *units;
    size_t count;
    uint32_t *unit_of;   /* samples */
    uint32_t *deck;      /* units by class, then SNR, equal ones shuffled */
    size_t *class_at;    /* classes + 1: where each class begins in the deck */
    uint32_t *hand;      /* units: the list that is being dealt */
    uint32_t *to;        /* units: to whom each of the hand went */
    double *share, *got; /* edges, at least FST_PARTS */
    /* classes each: samples that are dealt, the most that may be given away, and what each taker but the first is to
     * get */
    size_t *held, *most, *wanted[FST_PARTS];
};

const char *fst_part_name(fst_part p)
{
    static const char *const names[FST_PARTS] = {"train", "val", "test"};
    return (size_t)p < FST_PARTS ? names[p] : "?";
}

void fst_tiers_release(fst_tiers *t)
{
    if (!t)
        return;
    fst_free(t->site);
    fst_free(t->part);
    fst_free(t->counts);
    *t = (fst_tiers){0};
}

static void work_release(struct work *w)
{
    fst_free(w->units);
    fst_free(w->unit_of);
    fst_free(w->deck);
    fst_free(w->class_at);
    fst_free(w->hand);
    fst_free(w->to);
    fst_free(w->share);
    fst_free(w->got);
    fst_free(w->held);
    fst_free(w->most);
    for (int i = 0; i < FST_PARTS; i++)
        fst_free(w->wanted[i]);
}

static fst_status work_reserve(struct work *w, fst_error *err)
{
    size_t n = w->source->count, most = w->spec->edges > FST_PARTS ? (size_t)w->spec->edges : FST_PARTS;
    size_t classes = (size_t)w->source->classes;
    w->units = fst_calloc(n, sizeof *w->units);
    w->unit_of = fst_calloc(n, sizeof *w->unit_of);
    w->deck = fst_calloc(n, sizeof *w->deck);
    w->class_at = fst_calloc((size_t)w->source->classes + 1, sizeof *w->class_at);
    w->hand = fst_calloc(n, sizeof *w->hand);
    w->to = fst_calloc(n, sizeof *w->to);
    w->share = fst_calloc(most, sizeof *w->share);
    w->got = fst_calloc(most, sizeof *w->got);
    w->held = fst_calloc(classes, sizeof *w->held);
    w->most = fst_calloc(classes, sizeof *w->most);
    bool all = w->units && w->unit_of && w->deck && w->class_at && w->hand && w->to && w->share && w->got && w->held &&
               w->most;
    for (int i = 0; i < FST_PARTS; i++)
        all = (w->wanted[i] = fst_calloc(classes, sizeof **w->wanted)) && all;
    if (all)
        return FST_OK;
    return fst_fail_memory(err, n * (sizeof *w->units + 16));
}

/* ---- units ---------------------------------------------------------------------------------- */

struct tagged {
    int64_t group;
    uint32_t sample;
};

static int by_group(const void *a, const void *b)
{
    const struct tagged *x = a, *y = b;
    if (x->group != y->group)
        return x->group < y->group ? -1 : 1;
    return (x->sample > y->sample) - (x->sample < y->sample);
}

static void count_sample(struct work *w, size_t sample, size_t unit, bool first)
{
    struct unit *u = &w->units[unit];
    if (first) {
        const float *snr = w->source->snr;
        u->class = w->source->labels[sample];
        u->snr = snr && !isnan(snr[sample]) ? snr[sample] : -INFINITY;
    }
    u->weight++;
    w->unit_of[sample] = (uint32_t)unit;
}

/* A group is of the class of its first sample. */
static fst_status make_units(struct work *w, fst_error *err)
{
    size_t n = w->source->count;
    if (!w->source->group) {
        for (size_t i = 0; i < n; i++)
            count_sample(w, i, i, true);
        w->count = n;
        return FST_OK;
    }
    struct tagged *tags = fst_alloc(n * sizeof *tags);
    if (!tags)
        return fst_fail_memory(err, n * sizeof *tags);
    for (size_t i = 0; i < n; i++)
        tags[i] = (struct tagged){w->source->group[i], (uint32_t)i};
    qsort(tags, n, sizeof *tags, by_group);
    for (size_t i = 0; i < n; i++) {
        bool first = i == 0 || tags[i].group != tags[i - 1].group;
        w->count += first;
        count_sample(w, tags[i].sample, w->count - 1, first);
    }
    fst_free(tags);
    return FST_OK;
}

struct card {
    float snr;
    uint32_t place, unit;
};

static int by_snr(const void *a, const void *b)
{
    const struct card *x = a, *y = b;
    if (x->snr < y->snr || x->snr > y->snr)
        return x->snr < y->snr ? -1 : 1;
    return (x->place > y->place) - (x->place < y->place);
}

/* Units by class; in a class by SNR, those of one SNR in an order that is drawn. */
static fst_status make_deck(struct work *w, fst_error *err)
{
    size_t classes = (size_t)w->source->classes;
    struct card *cards = fst_alloc(w->count * sizeof *cards);
    fst_rng r;
    if (!cards)
        return fst_fail_memory(err, w->count * sizeof *cards);
    for (size_t u = 0; u < w->count; u++)
        w->class_at[w->units[u].class + 1]++;
    for (size_t c = 0; c < classes; c++)
        w->class_at[c + 1] += w->class_at[c];
    for (size_t u = 0; u < w->count; u++)
        w->deck[w->class_at[w->units[u].class]++] = (uint32_t)u;
    for (size_t c = classes; c > 0; c--)
        w->class_at[c] = w->class_at[c - 1];
    w->class_at[0] = 0;
    for (size_t c = 0; c < classes; c++) {
        uint32_t *deck = w->deck + w->class_at[c];
        size_t n = w->class_at[c + 1] - w->class_at[c];
        fst_rng_init(&r, w->spec->seed, "tiers.order", c);
        fst_rng_shuffle_u32(&r, deck, n);
        for (size_t i = 0; i < n; i++)
            cards[i] = (struct card){w->units[deck[i]].snr, (uint32_t)i, deck[i]};
        qsort(cards, n, sizeof *cards, by_snr);
        for (size_t i = 0; i < n; i++)
            deck[i] = cards[i].unit;
    }
    fst_free(cards);
    return FST_OK;
}

/* ---- dealing -------------------------------------------------------------------------------- */

/* Deals hand[0 ... n-1] to `takers` by w->share: w->to[i] is who gets the i-th. What is missing of the shares sums to
 * the weight of the unit at hand, so some taker misses something, and one without a share never does. */
static void deal(struct work *w, size_t n, size_t takers, const char *purpose, uint64_t index)
{
    fst_rng r;
    double total = 0;
    if (n == 0)
        return;
    fst_rng_init(&r, w->spec->seed, purpose, index);
    size_t begin = (size_t)fst_rng_below(&r, n);
    memset(w->got, 0, takers * sizeof *w->got);
    for (size_t k = 0; k < n; k++) {
        size_t i = (begin + k) % n, best = 0;
        double weight = (double)w->units[w->hand[i]].weight;
        total += weight;
        for (size_t t = 1; t < takers; t++)
            if (w->share[t] * total - w->got[t] > w->share[best] * total - w->got[best])
                best = t;
        w->got[best] += weight;
        w->to[i] = (uint32_t)best;
    }
}

/* Which class has precedence where quotas are alike is drawn, so that it is not the same for validation and test. */
static size_t first_class(const struct work *w, uint64_t index)
{
    fst_rng r;
    fst_rng_init(&r, w->spec->seed, "tiers.first", index);
    return (size_t)fst_rng_below(&r, (uint64_t)w->source->classes);
}

/* Settles what taker t is to get of each class: its share of all samples, to the nearest one, as the classes have them.
 * What has been settled for others is no longer there, and some of each class stays with the first taker. */
static fst_status settle(struct work *w, int32_t site, size_t t, double share, fst_error *err)
{
    size_t classes = (size_t)w->source->classes, all = 0;
    for (size_t c = 0; c < classes; c++) {
        size_t gone = w->held[c] > 0;
        for (size_t i = 1; i < t; i++)
            gone += w->wanted[i][c];
        w->most[c] = w->held[c] > gone ? w->held[c] - gone : 0;
        all += w->held[c];
    }
    return fst__apportion(w->held, w->most, classes, fst_share_of(all, share), false,
                          first_class(w, (uint64_t)site * FST_PARTS + t), w->wanted[t], err);
}

/* Deals class c. Single samples that do not come out as settled are dealt again, by shares that are exactly so: which
 * samples a class gives away is left alone where it can be. */
static void deal_settled(struct work *w, size_t n, size_t takers, const char *purpose, uint64_t index, size_t c)
{
    bool right = true;
    deal(w, n, takers, purpose, index);
    if (w->source->group || n == 0)
        return;
    for (size_t t = 1; t < takers; t++)
        right = right && (size_t)w->got[t] == w->wanted[t][c];
    if (right)
        return;
    w->share[0] = 1;
    for (size_t t = 1; t < takers; t++) {
        w->share[t] = (double)w->wanted[t][c] / (double)n;
        w->share[0] -= w->share[t];
    }
    deal(w, n, takers, purpose, index);
}

/* The units of class c at `site` (-1: all of the class) become the hand; how many they are. */
static size_t pick(struct work *w, size_t c, int32_t site)
{
    size_t n = 0;
    for (size_t i = w->class_at[c]; i < w->class_at[c + 1]; i++)
        if (site < 0 || w->units[w->deck[i]].site == site)
            w->hand[n++] = w->deck[i];
    return n;
}

/* Site 0 is the cloud; 1 stands for all edges together, among whom deal_edges() then divides. */
static fst_status deal_cloud(struct work *w, fst_error *err)
{
    size_t classes = (size_t)w->source->classes, all = 0;
    for (size_t c = 0; c < classes; c++)
        all += w->held[c] = w->most[c] = w->class_at[c + 1] - w->class_at[c];
    fst_status s = fst__apportion(w->held, w->most, classes, fst_share_of(all, w->spec->cloud), false,
                                  first_class(w, 0), w->wanted[0], err);
    for (size_t c = 0; !s && c < classes; c++) {
        size_t n = pick(w, c, -1);
        w->wanted[1][c] = n - (w->source->group ? 0 : w->wanted[0][c]);
        w->share[0] = w->spec->cloud;
        w->share[1] = 1 - w->spec->cloud;
        deal_settled(w, n, 2, "tiers.cloud", c, c);
        for (size_t i = 0; i < n; i++)
            w->units[w->hand[i]].site = (int32_t)w->to[i];
    }
    return s;
}

/* Dirichlet(alpha); where all draws are 0, which a tiny alpha can bring, one edge has it all. */
static void draw_share(struct work *w, uint64_t index)
{
    fst_rng r;
    double sum = 0;
    size_t edges = (size_t)w->spec->edges;
    fst_rng_init(&r, w->spec->seed, "tiers.share", index);
    for (size_t k = 0; k < edges; k++)
        sum += w->share[k] = fst_rng_gamma(&r, w->spec->alpha);
    if (!(sum > 0)) {
        w->share[fst_rng_below(&r, edges)] = 1;
        sum = 1;
    }
    for (size_t k = 0; k < edges; k++)
        w->share[k] /= sum;
}

/* Shares the edges' units out; whether every edge got one. What an earlier try did is undone by it. */
static bool try_edges(struct work *w, uint64_t attempt)
{
    size_t classes = (size_t)w->source->classes, edges = (size_t)w->spec->edges, missing = 0;
    for (size_t c = 0; c < classes; c++) {
        size_t n = 0;
        for (size_t i = w->class_at[c]; i < w->class_at[c + 1]; i++)
            if (w->units[w->deck[i]].site != 0)
                w->hand[n++] = w->deck[i];
        draw_share(w, attempt * classes + c);
        deal(w, n, edges, "tiers.edges", attempt * classes + c);
        for (size_t i = 0; i < n; i++)
            w->units[w->hand[i]].site = (int32_t)w->to[i] + 1;
    }
    memset(w->got, 0, edges * sizeof *w->got);
    for (size_t u = 0; u < w->count; u++)
        if (w->units[u].site > 0)
            w->got[w->units[u].site - 1] = 1;
    for (size_t k = 0; k < edges; k++)
        missing += !(w->got[k] > 0);
    return missing == 0;
}

static fst_status deal_edges(struct work *w, fst_error *err)
{
    for (uint64_t a = 0; a < ATTEMPTS; a++)
        if (w->spec->edges == 0 || try_edges(w, a))
            return FST_OK;
    return fst_fail(err, FST_E_CONFIG,
                    "%s: %d draws left some of %d edges without any sample: ask for fewer edges, a larger alpha or a "
                    "smaller share of the cloud",
                    w->source->name, ATTEMPTS, w->spec->edges);
}

/* At a site with few units of a class the first of them is for training. */
static fst_status deal_parts_of(struct work *w, int32_t site, fst_error *err)
{
    size_t classes = (size_t)w->source->classes;
    for (size_t c = 0; c < classes; c++)
        w->held[c] = pick(w, c, site);
    fst_status s = settle(w, site, FST_PART_VAL, w->spec->val, err);
    if (!s)
        s = settle(w, site, FST_PART_TEST, w->spec->test, err);
    for (size_t c = 0; !s && c < classes; c++) {
        size_t n = pick(w, c, site), train = 0;
        w->share[FST_PART_TRAIN] = 1 - w->spec->val - w->spec->test;
        w->share[FST_PART_VAL] = w->spec->val;
        w->share[FST_PART_TEST] = w->spec->test;
        deal_settled(w, n, FST_PARTS, "tiers.parts", (uint64_t)site * classes + c, c);
        for (size_t i = 0; i < n; i++) {
            w->units[w->hand[i]].part = (uint8_t)w->to[i];
            train += w->to[i] == FST_PART_TRAIN;
        }
        if (n && !train)
            w->units[w->hand[0]].part = FST_PART_TRAIN;
    }
    return s;
}

/* ---- all together --------------------------------------------------------------------------- */

static fst_status check(const fst_source *s, const fst_tiers_spec *spec, fst_error *err)
{
    if (!(spec->cloud >= 0 && spec->cloud <= 1))
        return fst_fail(err, FST_E_CONFIG, "the cloud's share must be 0 ... 1, not %g", spec->cloud);
    if (spec->edges < 0 || spec->edges > FST_MAX_EDGES || (spec->edges == 0) != (spec->cloud >= 1))
        return fst_fail(err, FST_E_CONFIG, "%d edges; 1 to %d share what the cloud leaves (0 when it leaves nothing)",
                        spec->edges, FST_MAX_EDGES);
    if (!(spec->alpha >= 1e-6 && spec->alpha <= 1e6))
        return fst_fail(err, FST_E_CONFIG, "alpha must be 1e-6 ... 1e6, not %g", spec->alpha);
    if (!(spec->val >= 0 && spec->test >= 0 && spec->val + spec->test < 1))
        return fst_fail(err, FST_E_CONFIG, "val %g and test %g must be 0 or more and leave something for training",
                        spec->val, spec->test);
    if ((size_t)(1 + spec->edges) * (size_t)s->classes > (size_t)1 << 24)
        return fst_fail(err, FST_E_LIMIT, "%d edges with %d classes each are too many", spec->edges, s->classes);
    return FST_OK;
}

static fst_status finish(fst_tiers *out, const struct work *w, fst_error *err)
{
    const fst_source *s = w->source;
    fst_tiers t = {.spec = *w->spec,
                   .sites = 1 + w->spec->edges,
                   .classes = s->classes,
                   .samples = s->count,
                   .groups = w->count,
                   .by_group = s->group != NULL};
    size_t cells = (size_t)t.sites * FST_PARTS * (size_t)t.classes;
    t.site = fst_alloc(s->count * sizeof *t.site);
    t.part = fst_alloc(s->count * sizeof *t.part);
    t.counts = fst_calloc(cells, sizeof *t.counts);
    if (!t.site || !t.part || !t.counts) {
        fst_tiers_release(&t);
        return fst_fail_memory(err, s->count * 5 + cells * sizeof *t.counts);
    }
    for (size_t i = 0; i < s->count; i++) {
        const struct unit *u = &w->units[w->unit_of[i]];
        t.site[i] = u->site;
        t.part[i] = u->part;
        t.counts[((size_t)u->site * FST_PARTS + u->part) * (size_t)t.classes + (size_t)s->labels[i]]++;
    }
    memcpy(t.data_digest, s->digest, sizeof t.data_digest);
    *out = t;
    return FST_OK;
}

fst_status fst_tiers_make(fst_tiers *out, const fst_source *s, const fst_tiers_spec *spec, fst_error *err)
{
    struct work w = {.source = s, .spec = spec};
    fst_status st = check(s, spec, err);
    if (!st)
        st = work_reserve(&w, err);
    if (!st)
        st = make_units(&w, err);
    if (!st)
        st = make_deck(&w, err);
    if (!st)
        st = deal_cloud(&w, err);
    if (!st)
        st = deal_edges(&w, err);
    for (int32_t site = 0; !st && site <= spec->edges; site++)
        st = deal_parts_of(&w, site, err);
    if (!st)
        st = finish(out, &w, err);
    work_release(&w);
    return st;
}

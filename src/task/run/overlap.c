/*
 * What a user should know of the samples before numbers are made of them: classes that a part lacks, and samples that
 * stand in two parts, by their keys. It looks at what session_data.c settled and changes nothing; what cannot be meant
 * at all was refused there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "samples.h"

/* ---- missing classes ------------------------------------------------------------------------------------- */

static void note_missing(const char *what, const fst_source *source, const uint32_t *index, size_t n)
{
    char missing[200];
    if (n && fst__missing_of(source, index, n, missing, sizeof missing))
        fst_log(FST_LOG_INFO, "%s has no samples of %s", what, missing);
}

/* What an edge has no samples of is said when the rounds begin. */
static void note_classes(const struct samples *s)
{
    fst_source test = *s->test; /* classes are training's: the test samples' own may end sooner */
    test.classes = s->train->classes;
    test.class_names = s->train->class_names;
    note_missing(s->edges ? "the cloud" : "training", s->train, s->cloud.index, s->cloud.learn);
    note_missing(s->edges ? "the cloud's validation" : "validation", s->train, s->cloud.index + s->cloud.learn,
                 s->cloud.validate);
    note_missing("test", &test, NULL, test.count);
}

static void note_validation(const struct samples *s, const struct data_section *d)
{
    for (size_t k = 0; (d->validation > 0 || d->own_validation) && k <= s->edges; k++) {
        const struct share *h = k ? &s->edge[k - 1] : &s->cloud;
        char place[32] = "the cloud", why[64] = "";
        if (h->validate || !h->learn)
            continue;
        if (k)
            snprintf(place, sizeof place, "edge %zu", k);
        if (d->validation > 0)
            snprintf(why, sizeof why, ": data.validation is %g of its %zu samples", d->validation, h->learn);
        fst_log(FST_LOG_INFO, "%s has no validation samples%s", place, why);
    }
}

/* ---- samples that stand in two parts ------------------------------------------------------------------------ */

static int by_key(const void *a, const void *b)
{
    const fst_hash128 *x = a, *y = b;
    if (x->hi != y->hi)
        return x->hi < y->hi ? -1 : 1;
    return (x->lo > y->lo) - (x->lo < y->lo);
}

/* Appends the keys of a source's samples; index NULL: of all. */
static fst_status add_keys(fst_hash128 *keys, size_t *at, const fst_source *source, const uint32_t *index, size_t n,
                           fst_error *err)
{
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < n; i++)
        st = fst_source_key(source, index ? index[i] : i, &keys[(*at)++], err);
    return st;
}

/* How many of these keys are among the sorted ones. */
static size_t count_common(const fst_hash128 *keys, size_t n, const fst_hash128 *sorted, size_t m)
{
    size_t common = 0;
    for (size_t i = 0; i < n; i++)
        common += bsearch(&keys[i], sorted, m, sizeof *keys, by_key) != NULL;
    return common;
}

static void warn_common(const char *what, size_t common, size_t all, const char *others)
{
    if (common)
        fst_log(FST_LOG_WARN,
                "%zu of the %zu %s samples are also among the %s samples: what is measured on them is not "
                "measured on new samples",
                common, all, what, others);
}

static fst_status look_for_common(const struct samples *s, fst_hash128 *learn, fst_hash128 *validate, fst_hash128 *test,
                                  fst_error *err)
{
    size_t nlearn = 0, nvalidate = 0, ntest = 0;
    fst_status st = FST_OK;
    for (size_t k = 0; !st && k <= s->edges; k++) {
        const struct share *h = k ? &s->edge[k - 1] : &s->cloud;
        if (k && s->elsewhere) /* only they can tell */
            break;
        st = add_keys(learn, &nlearn, s->train, h->index, h->learn, err);
        if (!st)
            st = add_keys(validate, &nvalidate, s->train, h->index + h->learn, h->validate, err);
    }
    if (!st)
        st = add_keys(test, &ntest, s->test, NULL, s->test->count, err);
    if (st)
        return st;
    qsort(learn, nlearn, sizeof *learn, by_key);
    warn_common("validation", count_common(validate, nvalidate, learn, nlearn), nvalidate, "training");
    warn_common("test", count_common(test, ntest, learn, nlearn), ntest, "training");
    qsort(validate, nvalidate, sizeof *validate, by_key);
    warn_common("test", count_common(test, ntest, validate, nvalidate), ntest, "validation");
    return FST_OK;
}

static fst_status note_common(const struct samples *s, fst_error *err)
{
    size_t n = s->train->count, m = s->test->count;
    fst_hash128 *learn = fst_calloc(n, sizeof *learn), *validate = fst_calloc(n, sizeof *validate);
    fst_hash128 *test = fst_calloc(m, sizeof *test);
    fst_status st = learn && validate && test ? look_for_common(s, learn, validate, test, err)
                                              : fst_fail_memory(err, (2 * n + m) * sizeof *learn);
    fst_free(learn);
    fst_free(validate);
    fst_free(test);
    return st;
}

fst_status fst__note_samples(const struct samples *s, const struct data_section *settings, fst_error *err)
{
    note_classes(s);
    note_validation(s, settings);
    return note_common(s, err);
}

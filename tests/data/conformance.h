/*
 * conformance.h - what every source must do, whatever its format. A format joins by writing a small data
 * set of at least four samples, in which samples 0 and 3 are equal and 1 differs from them, and
 * calling conformance() with what should come out.
 */
#ifndef FEDSTILL_TESTS_DATA_CONFORMANCE_H
#define FEDSTILL_TESTS_DATA_CONFORMANCE_H

#include <pthread.h>

#include "files.h"

struct expected {
    fst_dtype dtype;
    fst_shape shape;
    size_t count;
    int classes;
    const void *x; /* count raw samples */
    const int32_t *labels;
};

struct reader_job {
    const fst_source *source;
    const struct expected *want;
    int wrong;
};

static inline void *read_everything(void *arg)
{
    struct reader_job *j = arg;
    size_t bytes = fst_source_sample_bytes(j->source);
    unsigned char *raw = malloc(bytes);
    for (int round = 0; round < 20; round++)
        for (size_t i = 0; i < j->want->count; i++) {
            memset(raw, 0xA5, bytes);
            if (j->source->v->get(j->source, i, raw, NULL) ||
                memcmp(raw, (const unsigned char *)j->want->x + i * bytes, bytes))
                j->wrong++;
        }
    free(raw);
    return NULL;
}

static inline void check_threads(const fst_source *s, const struct expected *want)
{
    pthread_t threads[4];
    struct reader_job jobs[4];
    for (int i = 0; i < 4; i++) {
        jobs[i] = (struct reader_job){s, want, 0};
        assert_int_equal(pthread_create(&threads[i], NULL, read_everything, &jobs[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(jobs[i].wrong, 0);
    }
}

static inline void check_contents(const fst_source *s, const struct expected *want)
{
    unsigned char few[65536];
    assert_int_equal(s->count, want->count);
    assert_int_equal(s->dtype, want->dtype);
    assert_int_equal(s->classes, want->classes);
    assert_true(fst_shape_equal(&s->shape, &want->shape));
    assert_non_null(s->name);
    for (size_t i = 0; i < s->count; i++)
        assert_int_equal(s->labels[i], want->labels[i]);
    assert_int_equal(strspn(s->digest, "0123456789abcdef"), 64);
    assert_int_equal(s->digest[64], 0);
    assert_fails(s->v->get(s, s->count, few, err), FST_E_ARGUMENT, "there is no sample");
    check_threads(s, want);
}

static inline bool same_key(fst_hash128 a, fst_hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

static inline void check_keys(const fst_source *s, const struct expected *want)
{
    fst_hash128 first, second, again, other;
    fst_source *copy = NULL;
    assert_ok(fst_source_key(s, 0, &first, err));
    assert_ok(fst_source_key(s, 1, &second, err));
    assert_ok(fst_source_key(s, 3, &again, err));
    assert_true(same_key(first, again));
    assert_false(same_key(first, second));
    assert_fails(fst_source_key(s, s->count, &other, err), FST_E_ARGUMENT, "there is no sample");
    /* the same samples from elsewhere have the same keys and, being the same data, the same digest */
    assert_ok(fst_source_from_memory(&copy, "copy", want->dtype, &want->shape, want->count, want->x, want->labels,
                                     want->classes, err));
    assert_ok(fst_source_key(copy, 1, &other, err));
    assert_true(same_key(second, other));
    assert_string_equal(copy->digest, s->digest);
    fst_source_close(copy);
}

/* The samples of `part` stand in `s`, in the same order, with all that is known of them. */
static inline void check_part(const fst_source *s, const fst_source *part)
{
    size_t bytes = fst_source_sample_bytes(s), at = 0;
    unsigned char *a = malloc(bytes), *b = malloc(bytes);
    for (size_t i = 0; i < part->count; i++, at++) {
        assert_ok(part->v->get(part, i, a, err));
        for (;; at++) {
            assert_true(at < s->count);
            assert_ok(s->v->get(s, at, b, err));
            if (s->labels[at] == part->labels[i] && !memcmp(a, b, bytes))
                break;
        }
        if (s->snr)
            assert_memory_equal(&s->snr[at], &part->snr[i], sizeof *s->snr);
        if (s->group)
            assert_int_equal(s->group[at], part->group[i]);
    }
    free(a);
    free(b);
}

/* Each class has its share of a limit, to about a sample, and one at least if there is room for all. */
static inline void check_shares(const fst_source *s, const fst_source *part)
{
    size_t *all = calloc((size_t)s->classes, sizeof *all), *own = calloc((size_t)s->classes, sizeof *own), there = 0;
    for (size_t i = 0; i < s->count; i++)
        there += !all[s->labels[i]]++;
    for (size_t i = 0; i < part->count; i++)
        own[part->labels[i]]++;
    for (int c = 0; c < s->classes; c++) {
        double share = (double)part->count * (double)all[c] / (double)s->count;
        assert_true((double)own[c] < share + 1);
        assert_true((double)own[c] > share - (double)there);
        assert_true(own[c] > 0 || !all[c] || part->count < there);
    }
    free(all);
    free(own);
}

static inline void check_limit(const fst_source *s, fst_source_spec spec)
{
    fst_source *part = NULL;
    for (spec.limit = 1; spec.limit < s->count; spec.limit++) {
        assert_ok(fst_source_open(&part, &spec, err));
        assert_int_equal(part->count, spec.limit);
        assert_int_equal(part->classes, s->classes);
        assert_string_not_equal(part->digest, s->digest);
        check_part(s, part);
        check_shares(s, part);
        fst_source_close(part);
    }
    spec.limit = s->count + 1000;
    assert_ok(fst_source_open(&part, &spec, err));
    assert_int_equal(part->count, s->count);
    assert_string_equal(part->digest, s->digest);
    fst_source_close(part);
}

static inline void check_bad_paths(fst_source_spec spec)
{
    char sentinel;
    fst_source *out = (fst_source *)(void *)&sentinel;
    const char *path = spec.path;
    char missing[1100];
    snprintf(missing, sizeof missing, "%s.not-there", path);
    spec.path = missing;
    fst_error e = {0};
    assert_int_not_equal(fst_source_open(&out, &spec, &e), FST_OK);
    assert_non_null(strstr(e.message, ".not-there"));
    spec.format = NULL;
    assert_fails(fst_source_open(&out, &spec, err), FST_E_IO, "no such file");
    spec.path = path;
    spec.split = "validation";
    assert_fails(fst_source_open(&out, &spec, err), FST_E_CONFIG, "\"train\" or \"test\"");
    spec.split = NULL;
    spec.format = "parquet";
    assert_fails(fst_source_open(&out, &spec, err), FST_E_CONFIG, "parquet");
    assert_ptr_equal(out, &sentinel);
}

/* Every allocation fails once: an error each time, and nothing is lost (the sanitizer looks). */
static inline void check_memory(const fst_source_spec *spec)
{
    fst_source *s = NULL;
    fst_error e;
    for (uint64_t n = 1;; n++) {
        assert_true(n < 10000);
        fst_alloc_fail_at(n);
        fst_status st = fst_source_open(&s, spec, &e);
        fst_alloc_fail_at(0);
        if (!st)
            break;
        assert_null(s);
    }
    fst_source_close(s);
}

static inline void conformance(const fst_source_spec *spec, const struct expected *want)
{
    fst_source *s = NULL, *again = NULL;
    fst_source_spec guess = *spec;
    guess.format = NULL;
    assert_ok(fst_source_open(&s, spec, err));
    assert_string_equal(s->v->format, spec->format);
    check_contents(s, want);
    check_keys(s, want);
    assert_ok(fst_source_open(&again, &guess, err));
    assert_string_equal(again->v->format, spec->format);
    assert_string_equal(again->digest, s->digest);
    check_limit(s, *spec);
    check_bad_paths(*spec);
    check_memory(spec);
    guess.limit = 2;
    check_memory(&guess);
    fst_source_close(again);
    fst_source_close(s);
}

#endif

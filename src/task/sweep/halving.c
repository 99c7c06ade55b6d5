/*
 * Successive halving (Jamieson and Talwalkar 2016): at rungs of the stage that counts the worse half of the settings is
 * stopped. Every run of a rung ends before any is judged, so that nobody's speed decides; what is judged is the
 * accuracy on validation samples, the mean over a setting's seeds.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sweep_private.h"

struct judged {
    size_t setting;
    double value; /* NaN: it is not judged */
};

/* How often the settings can be halved, as long as a rung has an epoch or round of its own. */
static int rungs_of(const fst_sweep *s)
{
    int k = 0;
    while (s->settings_count >> (k + 1) && s->total >> (k + 1))
        k++;
    return k;
}

/* The item of the stage that counts. */
static size_t item_of(const fst_sweep *s, size_t setting)
{
    const struct run *r = &s->run[setting * s->seeds];
    for (size_t k = 0; k < r->needs; k++)
        if (!strcmp(s->item[r->need[k].item].stage, s->by))
            return r->need[k].item;
    return FST__NOBODY;
}

static fst_status check_stages(const fst_sweep *s, fst_error *err)
{
    for (size_t i = 0; i < s->settings_count; i++)
        for (size_t k = 0; k < i; k++)
            if (item_of(s, i) == item_of(s, k))
                return fst_fail(
                    err, FST_E_CONFIG,
                    "--halving: %s and %s have stage %s in common, so it cannot tell them apart; --by names "
                    "another stage",
                    s->setting[k], s->setting[i], s->by);
    return FST_OK;
}

fst_status fst__halving_check(const fst_sweep *s, fst_error *err)
{
    if (s->settings_count < 2)
        return fst_fail(err, FST_E_CONFIG, "--halving has nothing to choose from: --grid gives it settings");
    if (!s->total)
        return fst_fail(
            err, FST_E_CONFIG,
            "--halving compares settings after as many %ss of stage %s, and the grid changes how many there "
            "are; --by names another stage",
            s->unit, s->by);
    if (!rungs_of(s))
        return fst_fail(err, FST_E_CONFIG, "--halving: stage %s has %lld %s: nothing to stop before", s->by,
                        (long long)s->total, s->unit);
    return check_stages(s, err);
}

static bool has_failed(const fst_sweep *s, size_t setting)
{
    bool failed = false;
    for (size_t k = 0; k < s->seeds; k++)
        failed = failed || s->run[setting * s->seeds + k].state == FST_SWEEP_FAILED;
    return failed;
}

static double mean_of(const fst_sweep *s, size_t setting, int64_t at)
{
    double sum = 0;
    for (size_t k = 0; k < s->seeds; k++)
        sum += fst__sweep_value_at(s, &s->run[setting * s->seeds + k], at);
    return sum / (double)s->seeds;
}

/* Best first; of equals the one that stands first in the grid. */
static int by_value(const void *a, const void *b)
{
    const struct judged *x = a, *y = b;
    if (x->value != y->value)
        return x->value > y->value ? -1 : 1;
    return x->setting < y->setting ? -1 : 1;
}

static void note(const fst_sweep *s, const char *line)
{
    if (s->spec->observer.note)
        s->spec->observer.note(s->spec->observer.ctx, line);
}

static void stop(fst_sweep *s, size_t setting, int64_t at, double value, size_t rank, size_t of)
{
    char why[400];
    s->out[setting] = true;
    if (rank)
        snprintf(why, sizeof why, "%s %lld of %s: %.2f %% on validation, rank %zu of %zu", s->unit, (long long)at,
                 s->by, 100 * value, rank, of);
    else
        snprintf(why, sizeof why, "%s %lld of %s: another seed of this setting failed", s->unit, (long long)at, s->by);
    for (size_t k = 0; k < s->seeds; k++) {
        struct run *r = &s->run[setting * s->seeds + k];
        if (r->state == FST_SWEEP_FAILED || r->state == FST_SWEEP_DONE)
            continue;
        r->state = FST_SWEEP_STOPPED;
        r->stopped_at = at;
        r->stopped_value = value;
        r->rank = (int64_t)rank;
        r->of = (int64_t)of;
        fst_free(r->why);
        r->why = fst_strdup(why);
        fst__sweep_tell(s, setting * s->seeds + k);
    }
}

/* Those that wait go on. */
static void resume(fst_sweep *s)
{
    for (size_t i = 0; i < s->runs; i++)
        if (s->run[i].state == FST_SWEEP_PAUSED)
            s->run[i].state = FST_SWEEP_MISSING;
}

static void tell_rung(const fst_sweep *s, int64_t at, const struct judged *j, size_t n, size_t keep)
{
    fst_buf line = {0};
    if (!fst_buf_printf(&line, NULL, "%s %lld of %s: %zu of %zu settings go on; the best is %s, %.2f %% on validation",
                        s->unit, (long long)at, s->by, keep, n, s->setting[j[0].setting], 100 * j[0].value))
        note(s, line.data);
    fst_buf_release(&line);
}

static fst_status judge(fst_sweep *s, int64_t at, fst_error *err)
{
    struct judged *j = fst_calloc(s->settings_count, sizeof *j);
    size_t n = 0;
    if (!j)
        return fst_fail_memory(err, s->settings_count * sizeof *j);
    for (size_t i = 0; i < s->settings_count; i++) {
        if (s->out[i])
            continue;
        if (has_failed(s, i)) {
            stop(s, i, at, NAN, 0, 0);
            continue;
        }
        double value = mean_of(s, i, at);
        if (isfinite(value)) {
            j[n++] = (struct judged){i, value};
        } else { /* finished elsewhere, where its events are */
            fst_log(FST_LOG_WARN, "%s: what it was worth after %s %lld is not known: it is kept and not compared",
                    s->setting[i], s->unit, (long long)at);
        }
    }
    size_t keep = (n + 1) / 2;
    qsort(j, n, sizeof *j, by_value);
    if (n)
        tell_rung(s, at, j, n, keep);
    for (size_t k = keep; k < n; k++)
        stop(s, j[k].setting, at, j[k].value, k + 1, n);
    fst_free(j);
    resume(s);
    fst__journal_note(s);
    return FST_OK;
}

static bool any_failed(const fst_sweep *s)
{
    bool failed = false;
    for (size_t i = 0; i < s->runs; i++)
        failed = failed || s->run[i].state == FST_SWEEP_FAILED;
    return failed;
}

fst_status fst__halving_run(fst_sweep *s, fst_error *err)
{
    fst_free(s->out);
    s->out = fst_calloc(s->settings_count, sizeof *s->out);
    fst_status st = s->out ? FST_OK : fst_fail_memory(err, s->settings_count);
    for (int k = rungs_of(s); !st && k > 0; k--) {
        int64_t at = (s->total + ((int64_t)1 << k) - 1) >> k;
        st = fst__sweep_work(s, at, err);
        if (!st && any_failed(s) && s->spec->fail_fast)
            return FST_OK;
        if (!st)
            st = judge(s, at, err);
    }
    return st ? st : fst__sweep_work(s, 0, err);
}

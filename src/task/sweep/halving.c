/*
 * Successive halving (Jamieson and Talwalkar 2016): at rungs of the stage that counts the worse half of the settings is
 * stopped. What is judged is the accuracy on validation samples, the mean over a setting's seeds. Nobody's speed
 * decides, and still few wait: what is certain before all have come to a rung is done then (halving_rule.h).
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "halving_rule.h"
#include "sweep_private.h"

struct halving {
    fst_sweep *s;
    struct fst__halving rule;
};

/* How often the settings can be halved, as long as a rung has an epoch or round of its own. */
static int rungs_of(const fst_sweep *s)
{
    int k = 0;
    while (k < FST__MOST_RUNGS && s->settings_count >> (k + 1) && s->total >> (k + 1))
        k++;
    return k;
}

/* How many epochs or rounds a rung stands for; of the end 0. */
static int64_t at_rung(const struct halving *h, int rung)
{
    int halvings = h->rule.rungs - rung;
    return halvings ? (h->s->total + ((int64_t)1 << halvings) - 1) >> halvings : 0;
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

static void note(const fst_sweep *s, const char *line)
{
    if (s->spec->observer.note)
        s->spec->observer.note(s->spec->observer.ctx, line);
}

/* rank 0: another seed of it failed. sure: all have come, so that rank and number are no longer the best case. */
static void stop(fst_sweep *s, size_t setting, int64_t at, double value, size_t rank, size_t of, bool sure)
{
    char why[400];
    if (rank)
        snprintf(why, sizeof why, "%s %lld of %s: %.2f %% on validation, rank %zu %sof %zu", s->unit, (long long)at,
                 s->by, 100 * value, rank, sure ? "" : "or worse ", of);
    else
        snprintf(why, sizeof why, "%s %lld of %s: another seed of this setting failed", s->unit, (long long)at, s->by);
    for (size_t k = 0; k < s->seeds; k++) {
        struct run *r = &s->run[setting * s->seeds + k];
        if (r->state == FST_SWEEP_FAILED || r->state == FST_SWEEP_DONE)
            continue;
        bool news = r->state != FST_SWEEP_STOPPED;
        r->state = FST_SWEEP_STOPPED;
        r->stopped_at = at;
        r->stopped_value = value;
        r->rank = (int64_t)rank;
        r->of = (int64_t)of;
        fst_free(r->why);
        r->why = fst_strdup(why);
        if (news)
            fst__sweep_tell(s, setting * s->seeds + k);
    }
}

/* Its runs that wait set out for the next rung. */
static void go_on(const struct halving *h, size_t setting)
{
    fst_sweep *s = h->s;
    for (size_t k = 0; k < s->seeds; k++) {
        struct run *r = &s->run[setting * s->seeds + k];
        r->until = at_rung(h, h->rule.course[setting].rung);
        if (r->state == FST_SWEEP_PAUSED)
            r->state = FST_SWEEP_MISSING;
    }
}

/* All have come: what was stopped early now has its rank. */
static void end_rung(struct halving *h, const struct fst__verdict *v)
{
    fst_sweep *s = h->s;
    int64_t at = at_rung(h, v->rung);
    fst_buf line = {0};
    if (!fst_buf_printf(&line, NULL, "%s %lld of %s: %zu of %zu settings go on; the best is %s, %.2f %% on validation",
                        s->unit, (long long)at, s->by, v->rank, v->of, s->setting[v->setting], 100 * v->value))
        note(s, line.data);
    fst_buf_release(&line);
    for (size_t i = 0; i < s->settings_count; i++) {
        const struct fst__course *c = &h->rule.course[i];
        size_t of = 0, rank = c->out && c->rung == v->rung ? fst__halving_rank(&h->rule, v->rung, i, &of) : 0;
        if (rank)
            stop(s, i, at, c->value[v->rung], rank, of, true);
    }
}

/* Has it come to its rung, in every seed, and was not yet counted? */
static bool has_come(const struct halving *h, size_t setting)
{
    const struct fst__course *c = &h->rule.course[setting];
    bool came = !c->out && c->rung < h->rule.rungs && !c->came[c->rung];
    for (size_t k = 0; came && k < h->s->seeds; k++) {
        fst_sweep_state state = h->s->run[setting * h->s->seeds + k].state;
        came = state != FST_SWEEP_MISSING && state != FST_SWEEP_RUNNING;
    }
    return came;
}

static bool count_arrivals(struct halving *h)
{
    fst_sweep *s = h->s;
    bool any = false;
    for (size_t i = 0; i < s->settings_count; i++) {
        if (!has_come(h, i))
            continue;
        int64_t at = at_rung(h, h->rule.course[i].rung);
        double value = mean_of(s, i, at);
        any = true;
        if (has_failed(s, i)) {
            fst__halving_drop(&h->rule, i);
            stop(s, i, at, NAN, 0, 0, true);
            continue;
        }
        if (!isfinite(value)) /* finished elsewhere, where its events are */
            fst_log(FST_LOG_WARN, "%s: what it was worth after %s %lld is not known: it is kept and not compared",
                    s->setting[i], s->unit, (long long)at);
        fst__halving_arrive(&h->rule, i, value);
    }
    return any;
}

/* Whenever runs have ended: what is certain now. */
static void decide(void *ctx)
{
    struct halving *h = ctx;
    struct fst__verdict v;
    bool any = false;
    while (count_arrivals(h))
        while (fst__halving_next(&h->rule, &v)) {
            any = true;
            if (v.kind == FST__GOES_ON)
                go_on(h, v.setting);
            else if (v.kind == FST__STOPS)
                stop(h->s, v.setting, at_rung(h, v.rung), v.value, v.rank, v.of, false);
            else
                end_rung(h, &v);
        }
    if (any)
        fst__journal_note(h->s);
}

fst_status fst__halving_run(fst_sweep *s, fst_error *err)
{
    struct halving h = {.s = s};
    fst_status st = fst__halving_init(&h.rule, s->settings_count, rungs_of(s), err);
    for (size_t i = 0; !st && i < s->settings_count; i++)
        go_on(&h, i);
    if (!st)
        st = fst__sweep_work(s, decide, &h, err);
    fst__halving_release(&h.rule);
    return st;
}

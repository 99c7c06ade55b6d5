/*
 * Curves of rows. The accuracy of a run at x is what its last measured round had, of those that ended by x: nothing is
 * interpolated, and nothing is said before the first one or beyond the last. Averages are over all seeds of a row or
 * they are not made: the seeds that went on longest, or were fastest, are not the average one.
 */
#include <math.h>
#include <stdlib.h>

#include "compare.h"

enum { MOST_POINTS = 400 };

fst_spread fst__row_spread(const struct fst__row *r, enum fst__figure figure)
{
    double *v = fst_calloc(r->count + 1, sizeof *v);
    fst_spread s = {r->count, NAN, NAN};
    for (size_t i = 0; v && i < r->count; i++)
        v[i] = r->result[i]->figure[figure];
    if (v)
        s = fst_spread_of(v, r->count);
    fst_free(v);
    return s;
}

/* ---- targets ----------------------------------------------------------------------------------------- */

void fst__reach_targets(fst_compare *c)
{
    for (size_t i = 0; i < c->results; i++)
        for (size_t t = 0; t < FST__TARGETS; t++) {
            struct fst__result *r = &c->result[i];
            size_t k = 0;
            while (k < r->curve.rounds && !(r->curve.round[k].accuracy >= c->target[t]))
                k++;
            bool got = t < c->targets && r->curve.found && k < r->curve.rounds;
            for (int a = 0; a < FST__AXES; a++)
                r->reached[t][a] = got ? r->curve.round[k].x[a] : NAN;
        }
}

fst_spread fst__row_reached(const struct fst__row *r, size_t target, enum fst__axis axis, size_t *got)
{
    double *v = fst_alloc((r->count + 1) * sizeof *v);
    *got = 0;
    for (size_t i = 0; v && i < r->count; i++)
        if (isfinite(r->result[i]->reached[target][FST__BY_ROUND]))
            v[(*got)++] = r->result[i]->reached[target][axis];
    fst_spread s = v ? fst_spread_of(v, *got) : (fst_spread){0, NAN, NAN};
    fst_free(v);
    return s;
}

/* ---- curves ------------------------------------------------------------------------------------------- */

/* Measured after at least two rounds. */
static bool has_curve(const struct fst__result *r)
{
    size_t measured = 0;
    for (size_t i = 0; i < r->curve.rounds; i++)
        measured += isfinite(r->curve.round[i].accuracy);
    return r->curve.found && measured > 0;
}

bool fst__row_has_curve(const struct fst__row *r)
{
    for (size_t i = 0; i < r->count; i++)
        if (!has_curve(r->result[i]))
            return false;
    return r->count > 0;
}

/* Rounding in sums of seconds or bytes must not put a round behind itself. */
static double slack(double x)
{
    return x * (1 + 1e-12);
}

static double last_x(const struct fst__result *r, enum fst__axis axis)
{
    double x = NAN;
    for (size_t i = 0; i < r->curve.rounds; i++)
        x = isfinite(r->curve.round[i].accuracy) ? r->curve.round[i].x[axis] : x;
    return x;
}

static double accuracy_at(const struct fst__result *r, enum fst__axis axis, double x)
{
    double a = NAN;
    if (!(x <= slack(last_x(r, axis))))
        return NAN;
    for (size_t i = 0; i < r->curve.rounds && r->curve.round[i].x[axis] <= slack(x); i++)
        a = isfinite(r->curve.round[i].accuracy) ? r->curve.round[i].accuracy : a;
    return a;
}

fst_spread fst__row_at(const struct fst__row *r, enum fst__axis axis, double x)
{
    double *v = fst_alloc((r->count + 1) * sizeof *v);
    for (size_t i = 0; v && i < r->count; i++)
        v[i] = accuracy_at(r->result[i], axis, x);
    fst_spread s = v ? fst_spread_of(v, r->count) : (fst_spread){0, NAN, NAN};
    fst_free(v);
    return s;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* All x where a run of the row was measured, sorted, none twice, thinned out. */
static size_t points_of(fst_compare *c, const struct fst__row *r, enum fst__axis axis, double **out)
{
    size_t n = 0, kept = 0;
    for (size_t i = 0; i < r->count; i++)
        n += r->result[i]->curve.rounds;
    double *x = fst__compare_room(c, n * sizeof *x);
    n = 0;
    for (size_t i = 0; x && i < r->count; i++)
        for (size_t k = 0; k < r->result[i]->curve.rounds; k++)
            if (isfinite(r->result[i]->curve.round[k].accuracy) && isfinite(r->result[i]->curve.round[k].x[axis]))
                x[n++] = r->result[i]->curve.round[k].x[axis];
    if (n)
        qsort(x, n, sizeof *x, by_size);
    for (size_t i = 0; i < n; i++)
        if (!kept || x[i] > slack(x[kept - 1]))
            x[kept++] = x[i];
    size_t step = kept / MOST_POINTS + 1;
    for (size_t i = 0; step > 1 && (i + 1) * step <= kept; i++)
        x[i] = x[(i + 1) * step - 1];
    *out = x;
    return kept / step;
}

struct fst__mean_curve fst__row_curve(fst_compare *c, const struct fst__row *r, enum fst__axis axis)
{
    struct fst__mean_curve m = {.n = 0};
    size_t n = points_of(c, r, axis, &m.x);
    m.mean = fst__compare_room(c, n * sizeof *m.mean);
    m.sd = fst__compare_room(c, n * sizeof *m.sd);
    m.low = fst__compare_room(c, n * sizeof *m.low);
    m.high = fst__compare_room(c, n * sizeof *m.high);
    for (size_t i = 0; !c->status && i < n; i++) {
        fst_spread s = fst__row_at(r, axis, m.x[i]);
        if (!isfinite(s.mean))
            continue;
        m.x[m.n] = m.x[i];
        m.mean[m.n] = s.mean;
        m.sd[m.n] = s.sd;
        m.low[m.n] = fmax(0, s.mean - s.sd);
        m.high[m.n] = fmin(1, s.mean + s.sd);
        if (!isfinite(s.sd))
            m.low[m.n] = m.high[m.n] = NAN;
        m.n++;
    }
    return m;
}

/* Where all seeds of a row still have a value. */
static double end_of(const struct fst__row *r, enum fst__axis axis)
{
    double end = INFINITY;
    for (size_t i = 0; i < r->count; i++)
        end = fmin(end, last_x(r->result[i], axis));
    return end;
}

size_t fst__budgets(const fst_compare *c, enum fst__axis axis, double out[FST__BUDGETS])
{
    double most = 0;
    size_t n = 0;
    for (size_t i = 0; i < c->rows; i++)
        if (fst__row_has_curve(&c->row[i]))
            most = fmax(most, end_of(&c->row[i], axis));
    for (size_t i = 1; i <= FST__BUDGETS && most > 0 && isfinite(most); i++) {
        double x = most * (double)i / FST__BUDGETS;
        x = axis == FST__BY_ROUND ? floor(x + 0.5) : x;
        if (x > 0 && (!n || x > out[n - 1]))
            out[n++] = x;
    }
    return n;
}

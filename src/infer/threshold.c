/* From which confidence on the edge is believed. A threshold is chosen among those that separate samples of different
 * confidence; the same samples in any order give the same threshold. */
#include <math.h>
#include <stdlib.h>

#include "fedstill/infer.h"
#include "confidence_order.h"

static const char *const kinds[] = {"fixed", "accuracy", "offload", "time"};

const char *fst_threshold_name(fst_threshold_kind k)
{
    return kinds[k];
}

static int rising(const void *a, const void *b)
{
    const struct fst__placed *x = a, *y = b;
    if (x->confidence != y->confidence)
        return x->confidence > y->confidence ? 1 : -1;
    return (x->sample > y->sample) - (x->sample < y->sample);
}

fst_status fst__place(struct fst__placed **out, const double *confidence, size_t n, fst_error *err)
{
    struct fst__placed *p = fst_alloc((n ? n : 1) * sizeof *p);
    if (!p)
        return fst_fail_memory(err, n * sizeof *p);
    for (size_t i = 0; i < n; i++)
        p[i] = (struct fst__placed){confidence[i], i};
    qsort(p, n, sizeof *p, rising);
    *out = p;
    return FST_OK;
}

double fst__cut(const struct fst__placed *p, size_t n, size_t k)
{
    if (k == 0)
        return 0;
    return k < n ? p[k].confidence : nextafter(p[n - 1].confidence, INFINITY);
}

bool fst__cut_at(const struct fst__placed *p, size_t n, size_t k)
{
    return k == 0 || k == n || p[k - 1].confidence < p[k].confidence;
}

/* ---- targets ------------------------------------------------------------------------------------------- */

struct choice {
    const fst_threshold_input *in;
    const struct fst__placed *order;
    fst_threshold *t;
    bool found;
};

static void take(struct choice *c, size_t k, double reached, bool met)
{
    c->found = true;
    c->t->value = fst__cut(c->order, c->in->samples, k);
    c->t->offload = (double)k / (double)c->in->samples;
    c->t->reached = reached;
    c->t->met = met;
}

/* The fewest that reach the target, or else the fewest of those that come closest. */
static void choose_accuracy(struct choice *c)
{
    const fst_threshold_input *in = c->in;
    size_t right = 0, n = in->samples;
    for (size_t i = 0; i < n; i++)
        right += in->edge_right[i] != 0;
    for (size_t k = 0; k <= n && !(c->found && c->t->met); k++) {
        double accuracy = (double)right / (double)n;
        if (fst__cut_at(c->order, n, k) && (!c->found || accuracy > c->t->reached))
            take(c, k, accuracy, accuracy >= c->t->target);
        if (k < n) {
            size_t s = c->order[k].sample;
            right = right - (in->edge_right[s] != 0) + (in->cloud_right[s] != 0);
        }
    }
    c->t->gap = c->t->met ? 0 : c->t->target - c->t->reached;
}

static void choose_offload(struct choice *c)
{
    /* 0.29 times 100 is a little less than 29 */
    double n = (double)c->in->samples, most = floor(c->t->target * n * (1 + 1e-12));
    for (size_t k = 0; (double)k <= most && k <= c->in->samples; k++)
        if (fst__cut_at(c->order, c->in->samples, k))
            take(c, k, (double)k / n, (double)k == most);
    c->t->gap = c->t->met ? 0 : c->t->target - c->t->reached;
}

/* Time need not rise with every sample, since what is joined into one batch may cost less: all that can be told apart
 * are looked at, or so many of them that each step is of at most 1/FST_CURVE_POINTS of the samples. */
static fst_status choose_time(struct choice *c, fst_error *err)
{
    size_t n = c->in->samples, step = n / FST_CURVE_POINTS + 1, last = 0;
    for (size_t k = 0; k <= n; k++) {
        if (!fst__cut_at(c->order, n, k) || (k && k != n && k - last < step))
            continue;
        last = k;
        double seconds = c->in->seconds(c->in->ctx, fst__cut(c->order, n, k));
        if (isnan(seconds))
            return fst_fail(err, FST_E_ARGUMENT, "a threshold for a target time needs times, and they are not known");
        if (seconds <= c->t->target)
            take(c, k, seconds, true);
        else if (!c->found || (!c->t->met && seconds < c->t->reached))
            take(c, k, seconds, false);
    }
    c->t->gap = c->t->met ? 0 : c->t->reached - c->t->target;
    return FST_OK;
}

static double share_below(const fst_threshold_input *in, double threshold)
{
    size_t below = 0;
    for (size_t i = 0; i < in->samples; i++)
        below += in->confidence[i] < threshold;
    return in->samples ? (double)below / (double)in->samples : NAN;
}

static fst_status check(fst_threshold_kind kind, double value, const fst_threshold_input *in, fst_error *err)
{
    if (!isfinite(value) || value < 0)
        return fst_fail(err, FST_E_ARGUMENT, "a threshold's %s is %g; it must be a number from 0 on", kinds[kind],
                        value);
    if (kind == FST_THRESHOLD_FIXED)
        return FST_OK;
    if (!in->samples)
        return fst_fail(err, FST_E_ARGUMENT, "a threshold for a target %s needs samples to choose it on", kinds[kind]);
    if ((kind == FST_THRESHOLD_ACCURACY && (!in->edge_right || !in->cloud_right)) ||
        (kind == FST_THRESHOLD_TIME && !in->seconds))
        return fst_fail(err, FST_E_ARGUMENT, "a threshold for a target %s needs %s", kinds[kind],
                        kind == FST_THRESHOLD_TIME ? "times" : "right and wrong answers of edge and cloud");
    for (size_t i = 0; i < in->samples; i++)
        if (!(in->confidence[i] >= 0 && in->confidence[i] <= 1))
            return fst_fail(err, FST_E_NUMERIC, "confidence %zu is %g, not within 0 ... 1", i, in->confidence[i]);
    return FST_OK;
}

fst_status fst_threshold_choose(fst_threshold *out, fst_threshold_kind kind, double value,
                                const fst_threshold_input *in, fst_error *err)
{
    fst_threshold t = {.kind = kind, .value = value, .target = NAN, .reached = NAN, .met = true};
    struct fst__placed *order = NULL;
    fst_status st = check(kind, value, in, err);
    if (!st && kind == FST_THRESHOLD_FIXED) {
        t.offload = share_below(in, value);
        *out = t;
        return FST_OK;
    }
    if (!st)
        st = fst__place(&order, in->confidence, in->samples, err);
    if (st)
        return st;
    struct choice c = {.in = in, .order = order, .t = &t};
    t.target = value;
    if (kind == FST_THRESHOLD_ACCURACY)
        choose_accuracy(&c);
    else if (kind == FST_THRESHOLD_OFFLOAD)
        choose_offload(&c);
    else
        st = choose_time(&c, err);
    fst_free(order);
    if (!st)
        *out = t;
    return st;
}

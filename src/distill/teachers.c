/*
 * Several teachers' logits become one target a sample. Rows are independent of each other; sums run over the
 * teachers in their order, in double. It refuses to train anything: the loss against a target is nn's.
 */
#include <math.h>
#include <string.h>

#include "fedstill/distill.h"

const char *fst_ensemble_name(fst_ensemble e)
{
    static const char *const names[] = {"mean_probabilities", "mean_logits", "entropy", "confidence"};
    return (size_t)e < sizeof names / sizeof *names ? names[e] : "?";
}

/* Teacher `skip` is left out (none when it is after the last). */
struct ensemble {
    const fst_teachers *t;
    fst_ensemble how;
    size_t skip, members;
    double *lp;     /* classes: one teacher's log-probabilities */
    double *weight; /* by teacher, of one row */
    double *q;      /* classes */
};

static fst_status check(const fst_teachers *t, fst_ensemble how, fst_error *err)
{
    if (t->count < 1 || t->classes < 1)
        return fst_fail(err, FST_E_ARGUMENT, "%zu teachers of %d classes; at least one of both is needed", t->count,
                        t->classes);
    if (how == FST_ENSEMBLE_CONFIDENCE && !t->labels)
        return fst_fail(err, FST_E_ARGUMENT, "teachers weighed by confidence need labels");
    for (size_t r = 0; how == FST_ENSEMBLE_CONFIDENCE && r < t->rows; r++)
        if (t->labels[r] < 0 || t->labels[r] >= t->classes)
            return fst_fail(err, FST_E_MISMATCH, "row %zu has label %d, the teachers' classes are 0 to %d", r,
                            (int)t->labels[r], t->classes - 1);
    for (size_t k = 0; k < t->count; k++)
        for (size_t i = 0; i < t->rows * (size_t)t->classes; i++)
            if (!isfinite(t->logits[k][i]))
                return fst_fail(err, FST_E_NUMERIC, "teacher %zu, row %zu: a logit is %g", k, i / (size_t)t->classes,
                                (double)t->logits[k][i]);
    return FST_OK;
}

static fst_status open_ensemble(struct ensemble *c, fst_error *err)
{
    size_t classes = (size_t)c->t->classes, floats = 2 * classes + c->t->count;
    fst_status st = check(c->t, c->how, err);
    if (st)
        return st;
    c->members = c->t->count - (c->skip < c->t->count);
    c->lp = fst_calloc(floats, sizeof *c->lp);
    if (!c->lp)
        return fst_fail_memory(err, floats * sizeof *c->lp);
    c->q = c->lp + classes;
    c->weight = c->q + classes;
    return FST_OK;
}

static const float *row_of(const struct ensemble *c, size_t k, size_t r)
{
    return c->t->logits[k] + r * (size_t)c->t->classes;
}

static double entropy_of(const double *lp, int n)
{
    double h = 0;
    for (int j = 0; j < n; j++)
        if (lp[j] > -745) /* below, exp is 0 */
            h -= exp(lp[j]) * lp[j];
    return h > 0 ? h : 0; /* rounding of log(1) */
}

/* What a teacher is weighed by: its entropy, or its cross entropy against the label. */
static double uncertainty_of(const struct ensemble *c, size_t k, size_t r)
{
    fst_log_softmax(row_of(c, k, r), c->t->classes, 1.0, c->lp);
    return c->how == FST_ENSEMBLE_ENTROPY ? entropy_of(c->lp, c->t->classes) : -c->lp[c->t->labels[r]];
}

/* Shares of uncertainty that sum to 1, in place: by proportion, or by softmax. False when there is no uncertainty at
 * all. */
static bool shares(const struct ensemble *c, double *uncertainty)
{
    double sum = 0, most = -INFINITY;
    bool proportion = c->how == FST_ENSEMBLE_ENTROPY;
    for (size_t k = 0; k < c->t->count; k++)
        most = k != c->skip && uncertainty[k] > most ? uncertainty[k] : most;
    for (size_t k = 0; k < c->t->count; k++) {
        if (!proportion)
            uncertainty[k] = exp(uncertainty[k] - most);
        sum += k != c->skip ? uncertainty[k] : 0;
    }
    for (size_t k = 0; sum > 0 && k < c->t->count; k++)
        uncertainty[k] /= sum;
    return sum > 0;
}

/* c->weight of row r. */
static void weigh(struct ensemble *c, size_t r)
{
    bool plain = c->how == FST_ENSEMBLE_MEAN_PROBABILITIES || c->how == FST_ENSEMBLE_MEAN_LOGITS || c->members < 2;
    for (size_t k = 0; !plain && k < c->t->count; k++)
        c->weight[k] = k == c->skip ? 0 : uncertainty_of(c, k, r);
    plain = plain || !shares(c, c->weight);
    for (size_t k = 0; k < c->t->count; k++)
        c->weight[k] = plain ? 1 / (double)c->members : (1 - c->weight[k]) / (double)(c->members - 1);
    if (c->skip < c->t->count)
        c->weight[c->skip] = 0;
}

static void mean_logits(struct ensemble *c, size_t r, double temperature)
{
    int n = c->t->classes;
    double most = -INFINITY, sum = 0;
    memset(c->q, 0, (size_t)n * sizeof *c->q);
    for (size_t k = 0; k < c->t->count; k++)
        for (int j = 0; k != c->skip && j < n; j++)
            c->q[j] += (double)row_of(c, k, r)[j] / (double)c->members;
    for (int j = 0; j < n; j++)
        most = c->q[j] > most ? c->q[j] : most;
    for (int j = 0; j < n; j++) {
        c->q[j] = exp((c->q[j] - most) / temperature);
        sum += c->q[j];
    }
    for (int j = 0; j < n; j++)
        c->q[j] /= sum;
}

static void mixture(struct ensemble *c, size_t r, double temperature)
{
    int n = c->t->classes;
    memset(c->q, 0, (size_t)n * sizeof *c->q);
    for (size_t k = 0; k < c->t->count; k++) {
        if (c->weight[k] == 0)
            continue;
        fst_log_softmax(row_of(c, k, r), n, temperature, c->lp);
        for (int j = 0; j < n; j++)
            c->q[j] += c->weight[k] * exp(c->lp[j]);
    }
}

/* sum_k w_k KL(q_k || q). Where q is 0, so is every q_k with a weight, unless q is of mean logits: then its
 * logarithm is held above that of the smallest double. */
static double spread_of(struct ensemble *c, size_t r, double temperature)
{
    int n = c->t->classes;
    double sum = 0;
    for (size_t k = 0; k < c->t->count; k++) {
        if (c->weight[k] == 0)
            continue;
        fst_log_softmax(row_of(c, k, r), n, temperature, c->lp);
        for (int j = 0; j < n; j++) {
            double p = exp(c->lp[j]);
            if (p > 0)
                sum += c->weight[k] * p * (c->lp[j] - (c->q[j] > 0 ? log(c->q[j]) : -745));
        }
    }
    return sum;
}

fst_status fst_teachers_weights(fst_ensemble how, const fst_teachers *t, double *weights, fst_error *err)
{
    struct ensemble c = {.t = t, .how = how, .skip = SIZE_MAX};
    fst_status st = open_ensemble(&c, err);
    for (size_t r = 0; !st && r < t->rows; r++) {
        weigh(&c, r);
        for (size_t k = 0; k < t->count; k++)
            weights[k * t->rows + r] = c.weight[k];
    }
    fst_free(c.lp);
    return st;
}

static fst_status make_target(struct ensemble *c, double temperature, float *target, double *spread, fst_error *err)
{
    int n = c->t->classes;
    if (!(temperature > 0) || isinf(temperature))
        return fst_fail(err, FST_E_ARGUMENT, "the temperature is %g; it must be above 0", temperature);
    fst_status st = open_ensemble(c, err);
    for (size_t r = 0; !st && r < c->t->rows; r++) {
        weigh(c, r);
        if (c->how == FST_ENSEMBLE_MEAN_LOGITS)
            mean_logits(c, r, temperature);
        else
            mixture(c, r, temperature);
        for (int j = 0; j < n; j++)
            target[r * (size_t)n + (size_t)j] = (float)c->q[j];
        if (spread)
            spread[r] = spread_of(c, r, temperature);
    }
    fst_free(c->lp);
    return st;
}

fst_status fst_teachers_target(fst_ensemble how, const fst_teachers *t, double temperature, float *target,
                               double *spread, fst_error *err)
{
    struct ensemble c = {.t = t, .how = how, .skip = SIZE_MAX};
    return make_target(&c, temperature, target, spread, err);
}

fst_status fst_peers_target(const fst_teachers *peers, size_t self, float *target, double *spread, fst_error *err)
{
    struct ensemble c = {.t = peers, .how = FST_ENSEMBLE_MEAN_PROBABILITIES, .skip = self};
    if (peers->count < 2 || self >= peers->count)
        return fst_fail(err, FST_E_ARGUMENT, "peer %zu of %zu; at least two peers learn from each other", self,
                        peers->count);
    return make_target(&c, 1.0, target, spread, err);
}

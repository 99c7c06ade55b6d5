/* How sure a model is: confidences of rows of logits, temperature scaling, and how far confidences can be trusted.
 * Knows nothing of tiers. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/infer.h"

static const char *const kinds[] = {"max", "margin", "entropy", "energy"};

const char *fst_confidence_name(fst_confidence_kind k)
{
    return kinds[k];
}

bool fst_confidence_parse(const char *name, fst_confidence_kind *out)
{
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (!strcmp(kinds[i], name)) {
            *out = (fst_confidence_kind)i;
            return true;
        }
    return false;
}

/* What all kinds are made of: with e_j = exp((z_j - max z)/T), the sum of all e and the second largest; and the sum of
 * e_j (z_j - max z)/T. */
struct row {
    double max, second, sum, weighted;
};

static struct row look(const float *z, int classes, double t)
{
    struct row r = {.max = -INFINITY};
    double second = -INFINITY;
    for (int j = 0; j < classes; j++)
        if (z[j] > r.max) {
            second = r.max;
            r.max = z[j];
        } else if (z[j] > second) {
            second = z[j];
        }
    for (int j = 0; j < classes; j++) {
        double d = (z[j] - r.max) / t, e = exp(d);
        r.sum += e;
        r.weighted += e * d;
    }
    r.second = exp((second - r.max) / t);
    return r;
}

static double confidence(fst_confidence_kind kind, const float *z, int classes, double t)
{
    struct row r = look(z, classes, t);
    double s = r.max + t * log(r.sum);
    switch (kind) {
    case FST_CONFIDENCE_MARGIN:
        return (1 - r.second) / r.sum;
    case FST_CONFIDENCE_ENTROPY:
        /* H = log(sum) - weighted/sum */
        return classes < 2 ? 1 : fmin(1, fmax(0, 1 - (log(r.sum) - r.weighted / r.sum) / log(classes)));
    case FST_CONFIDENCE_ENERGY:
        return 0.5 * (1 + s / (1 + fabs(s)));
    default:
        return 1 / r.sum;
    }
}

static fst_status check(const float *logits, size_t rows, int classes, double t, fst_error *err)
{
    if (classes < 1 || !(t > 0) || !isfinite(t))
        return fst_fail(err, FST_E_ARGUMENT, "confidence of %d classes at temperature %g: both must be above 0",
                        classes, t);
    for (size_t i = 0; i < rows * (size_t)classes; i++)
        if (!isfinite(logits[i]))
            return fst_fail(err, FST_E_NUMERIC, "row %zu: the logit of class %zu is %g, not a finite number",
                            i / (size_t)classes, i % (size_t)classes, (double)logits[i]);
    return FST_OK;
}

fst_status fst_confidence(fst_confidence_kind kind, const float *logits, size_t rows, int classes, double temperature,
                          double *out, fst_error *err)
{
    fst_status st = check(logits, rows, classes, temperature, err);
    for (size_t i = 0; !st && i < rows; i++)
        out[i] = confidence(kind, logits + i * (size_t)classes, classes, temperature);
    return st;
}

void fst_predict(const float *logits, size_t rows, int classes, int32_t *out)
{
    for (size_t i = 0; i < rows; i++) {
        const float *z = logits + i * (size_t)classes;
        int best = 0;
        for (int j = 1; j < classes; j++)
            best = z[j] > z[best] ? j : best;
        out[i] = best;
    }
}

/* ---- calibration ---------------------------------------------------------------------------------- */

struct labelled {
    const float *logits;
    const int32_t *labels;
    size_t rows;
    int classes;
};

/* Mean cross entropy at b = 1/T with its first two derivatives in b: E[z] - z_y and Var[z] under softmax(b z). */
static double cross_entropy(const struct labelled *l, double b, double *slope, double *bend)
{
    double nll = 0, d1 = 0, d2 = 0;
    for (size_t i = 0; i < l->rows; i++) {
        const float *z = l->logits + i * (size_t)l->classes;
        double max = z[0], sum = 0, mean = 0, square = 0;
        for (int j = 1; j < l->classes; j++)
            max = z[j] > max ? z[j] : max;
        for (int j = 0; j < l->classes; j++) {
            double d = z[j] - max, e = exp(b * d);
            sum += e;
            mean += e * d;
            square += e * d * d;
        }
        mean /= sum;
        double y = z[l->labels[i]] - max;
        nll += log(sum) - b * y;
        d1 += mean - y;
        d2 += square / sum - mean * mean;
    }
    *slope = d1 / (double)l->rows;
    *bend = d2 / (double)l->rows;
    return nll / (double)l->rows;
}

/* The root of a rising slope: Newton where that stays inside the bracket, else its geometric middle. */
static double minimise(const struct labelled *l, bool *at_limit)
{
    double low = 1 / FST_TEMPERATURE_MAX, high = 1 / FST_TEMPERATURE_MIN, b = 1, slope, bend;
    cross_entropy(l, low, &slope, &bend);
    *at_limit = true;
    if (slope >= 0)
        return low;
    cross_entropy(l, high, &slope, &bend);
    if (slope <= 0)
        return high;
    *at_limit = false;
    for (int i = 0; i < 100 && high / low > 1 + 1e-12; i++) {
        cross_entropy(l, b, &slope, &bend);
        if (slope == 0)
            break;
        if (slope < 0)
            low = b;
        else
            high = b;
        double next = b - slope / bend;
        if (!(next > low && next < high))
            next = sqrt(low * high);
        if (fabs(next - b) <= 1e-13 * b)
            break;
        b = next;
    }
    return b;
}

static fst_status ece_at(const struct labelled *l, double t, double *room, uint8_t *right, double *out, fst_error *err)
{
    fst_status st = fst_confidence(FST_CONFIDENCE_MAX, l->logits, l->rows, l->classes, t, room, err);
    for (size_t i = 0; !st && i < l->rows; i++) {
        int32_t answer;
        fst_predict(l->logits + i * (size_t)l->classes, 1, l->classes, &answer);
        right[i] = answer == l->labels[i];
    }
    if (!st)
        *out = fst_ece(room, right, l->rows);
    return st;
}

fst_status fst_calibrate(fst_calibration *out, const float *logits, const int32_t *labels, size_t rows, int classes,
                         fst_error *err)
{
    struct labelled l = {logits, labels, rows, classes};
    fst_calibration c = {.samples = rows};
    double unused[2];
    if (!rows)
        return fst_fail(err, FST_E_ARGUMENT, "calibration needs labelled samples, and there are none");
    fst_status st = check(logits, rows, classes, 1, err);
    for (size_t i = 0; !st && i < rows; i++)
        if (labels[i] < 0 || labels[i] >= classes)
            st =
                fst_fail(err, FST_E_ARGUMENT, "row %zu: label %d is not one of %d classes", i, (int)labels[i], classes);
    if (st)
        return st;
    double *room = fst_alloc(rows * sizeof *room);
    uint8_t *right = fst_alloc(rows);
    st = room && right ? FST_OK : fst_fail_memory(err, rows * sizeof *room);
    if (!st) {
        double b = minimise(&l, &c.at_limit);
        c.temperature = 1 / b;
        c.nll_before = cross_entropy(&l, 1, &unused[0], &unused[1]);
        c.nll_after = cross_entropy(&l, b, &unused[0], &unused[1]);
        st = ece_at(&l, 1, room, right, &c.ece_before, err);
    }
    if (!st)
        st = ece_at(&l, c.temperature, room, right, &c.ece_after, err);
    fst_free(room);
    fst_free(right);
    if (!st)
        *out = c;
    return st;
}

/* ---- can it be trusted? ------------------------------------------------------------------------------ */

double fst_ece(const double *confidence, const uint8_t *right, size_t n)
{
    double sum[FST_ECE_BINS] = {0}, hits[FST_ECE_BINS] = {0}, error = 0;
    if (!n)
        return NAN;
    for (size_t i = 0; i < n; i++) {
        int bin = (int)ceil(confidence[i] * FST_ECE_BINS) - 1;
        bin = bin < 0 ? 0 : bin >= FST_ECE_BINS ? FST_ECE_BINS - 1 : bin;
        sum[bin] += confidence[i];
        hits[bin] += right[i] != 0;
    }
    for (int k = 0; k < FST_ECE_BINS; k++)
        error += fabs(hits[k] - sum[k]) / (double)n;
    return error;
}

struct ranked {
    double confidence;
    bool right;
};

static int rising(const void *a, const void *b)
{
    double x = ((const struct ranked *)a)->confidence, y = ((const struct ranked *)b)->confidence;
    return (x > y) - (x < y);
}

fst_status fst_auroc(const double *confidence, const uint8_t *right, size_t n, double *out, fst_error *err)
{
    struct ranked *r = fst_alloc((n ? n : 1) * sizeof *r);
    double wrong_below = 0, pairs = 0, positives = 0;
    if (!r)
        return fst_fail_memory(err, n * sizeof *r);
    for (size_t i = 0; i < n; i++)
        r[i] = (struct ranked){confidence[i], right[i] != 0};
    qsort(r, n, sizeof *r, rising);
    for (size_t i = 0, end; i < n; i = end) {
        double good = 0, bad = 0;
        for (end = i; end < n && r[end].confidence == r[i].confidence; end++)
            *(r[end].right ? &good : &bad) += 1;
        pairs += good * (wrong_below + bad / 2);
        wrong_below += bad;
        positives += good;
    }
    *out = positives > 0 && wrong_below > 0 ? pairs / (positives * wrong_below) : NAN;
    fst_free(r);
    return FST_OK;
}

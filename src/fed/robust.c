/*
 * Robust aggregation over an array of client states. Each rule works on the states as they lie (two spans of floats
 * taken as one vector) and in one order that follows from contents, not from the clients' numbers. It
 * refuses to stream: what makes these rules robust is seeing all updates beside each other.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fed_private.h"

enum { SPANS = 2 };

static const float *span(const fst_fed_view *c, int which)
{
    return which ? c->buffers : c->params;
}

static size_t span_size(fst_fed_size size, int which)
{
    return which ? size.buffers : size.params;
}

static float *out_span(const fst_fed_state *s, int which)
{
    return which ? s->buffers : s->params;
}

static fst_status check(const fst_fed_view *client, size_t n, const fst_fed_state *out, fst_error *err)
{
    if (n < 1)
        return fst_fail(err, FST_E_ARGUMENT, "there are no clients to aggregate");
    for (size_t k = 0; k < n; k++) {
        if (!fst_fed_size_equal(client[k].size, out->size))
            return fst_fail(err, FST_E_MISMATCH, "client %zu has a state of another size than the result", k + 1);
        for (int w = 0; w < SPANS; w++)
            for (size_t i = 0; i < span_size(out->size, w); i++)
                if (!isfinite(span(&client[k], w)[i]))
                    return fst_fail(err, FST_E_NUMERIC, "client %zu: %s %zu is %g", k + 1, w ? "buffer" : "parameter",
                                    i, (double)span(&client[k], w)[i]);
    }
    return FST_OK;
}

static void largest_counters(const fst_fed_view *client, size_t n, fst_fed_state *out)
{
    for (size_t i = 0; i < out->size.counters; i++) {
        int64_t most = client[0].counters[i];
        for (size_t k = 1; k < n; k++)
            most = client[k].counters[i] > most ? client[k].counters[i] : most;
        out->counters[i] = most;
    }
}

/* ---- coordinate by coordinate ---------------------------------------------------------------- */

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void sort_values(float *v, size_t n)
{
    if (n > 32) {
        qsort(v, n, sizeof *v, by_value);
        return;
    }
    for (size_t i = 1; i < n; i++) {
        float x = v[i];
        size_t j = i;
        for (; j > 0 && v[j - 1] > x; j--)
            v[j] = v[j - 1];
        v[j] = x;
    }
}

/* The mean of each coordinate's sorted values cut ... n-cut-1. */
static fst_status middle(const fst_fed_view *client, size_t n, size_t cut, fst_fed_state *out, fst_error *err)
{
    fst_status st = check(client, n, out, err);
    if (st)
        return st;
    float *column = fst_calloc(n, sizeof *column);
    if (!column)
        return fst_fail_memory(err, n * sizeof *column);
    for (int w = 0; w < SPANS; w++)
        for (size_t i = 0; i < span_size(out->size, w); i++) {
            double sum = 0;
            for (size_t k = 0; k < n; k++)
                column[k] = span(&client[k], w)[i] + 0.0f; /* -0 becomes 0: sorting cannot tell them apart */
            sort_values(column, n);
            for (size_t k = cut; k < n - cut; k++)
                sum += (double)column[k];
            out_span(out, w)[i] = (float)(sum / (double)(n - 2 * cut));
        }
    largest_counters(client, n, out);
    fst_free(column);
    return FST_OK;
}

fst_status fst_robust_median(const fst_fed_view *client, size_t n, fst_fed_state *out, fst_error *err)
{
    return middle(client, n, n ? (n - 1) / 2 : 0, out, err);
}

fst_status fst_robust_trimmed_mean(const fst_fed_view *client, size_t n, double trim, fst_fed_state *out,
                                   fst_error *err)
{
    if (!(trim >= 0 && trim < 0.5))
        return fst_fail(err, FST_E_ARGUMENT, "trim is %g; it must be in [0, 0.5)", trim);
    return middle(client, n, (size_t)floor(trim * (double)n), out, err);
}

/* ---- whole vectors ----------------------------------------------------------------------------- */

/* What clients are ranked by: a key, then contents. Clients that are equal in both are interchangeable. */
struct rank {
    double key;
    const fst_fed_view *state;
    size_t number;
};

static int compare_contents(const fst_fed_view *a, const fst_fed_view *b)
{
    for (int w = 0; w < SPANS; w++) {
        const float *x = span(a, w), *y = span(b, w);
        for (size_t i = 0; i < span_size(a->size, w); i++)
            if (x[i] != y[i])
                return x[i] < y[i] ? -1 : 1;
    }
    return 0;
}

static int by_rank(const void *a, const void *b)
{
    const struct rank *x = a, *y = b;
    if (x->key != y->key)
        return x->key < y->key ? -1 : 1;
    int contents = compare_contents(x->state, y->state);
    return contents ? contents : (x->number > y->number) - (x->number < y->number);
}

static int by_double(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double squared_distance(const fst_fed_view *a, const fst_fed_view *b)
{
    double lane[FST__LANES] = {0};
    for (int w = 0; w < SPANS; w++)
        fst__add_squares(lane, span(a, w), span(b, w), span_size(a->size, w));
    return fst__sum_lanes(lane);
}

/* Scores of all clients. distance has n * n elements, near n. */
static void krum_scores(const fst_fed_view *client, size_t n, size_t f, double *distance, double *near,
                        struct rank *rank)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < i; j++)
            distance[i * n + j] = distance[j * n + i] = squared_distance(&client[i], &client[j]);
    for (size_t i = 0; i < n; i++) {
        size_t others = 0;
        for (size_t j = 0; j < n; j++)
            if (j != i)
                near[others++] = distance[i * n + j];
        qsort(near, others, sizeof *near, by_double);
        rank[i] = (struct rank){.state = &client[i], .number = i};
        for (size_t j = 0; j < n - f - 2; j++)
            rank[i].key += near[j];
    }
}

static void mean_of_best(const struct rank *rank, size_t m, fst_fed_state *out)
{
    for (int w = 0; w < SPANS; w++)
        for (size_t i = 0; i < span_size(out->size, w); i++) {
            double sum = 0;
            for (size_t k = 0; k < m; k++)
                sum += (double)span(rank[k].state, w)[i];
            out_span(out, w)[i] = (float)(sum / (double)m);
        }
}

fst_status fst_robust_krum(const fst_fed_view *client, size_t n, size_t f, size_t m, fst_fed_state *out, size_t *chosen,
                           double *score, fst_error *err)
{
    if (n < 3 || f > (n - 3) / 2)
        return fst_fail(err, FST_E_ARGUMENT, "krum: %zu clients cannot bear %zu liars; 2f+3 clients are needed", n, f);
    if (m < 1 || m > n - f)
        return fst_fail(err, FST_E_ARGUMENT, "krum: m is %zu; 1 to %zu are allowed", m, n - f);
    fst_status st = check(client, n, out, err);
    if (st)
        return st;
    double *distance = n < SIZE_MAX / n - 1 ? fst_calloc(n * (n + 1), sizeof *distance) : NULL;
    struct rank *rank = fst_calloc(n, sizeof *rank);
    if (distance && rank) {
        krum_scores(client, n, f, distance, distance + n * n, rank);
        for (size_t k = 0; score && k < n; k++)
            score[k] = rank[k].key;
        qsort(rank, n, sizeof *rank, by_rank);
        for (size_t k = 0; chosen && k < m; k++)
            chosen[k] = rank[k].number;
        mean_of_best(rank, m, out);
        largest_counters(client, n, out);
    } else {
        st = fst_fail_memory(err, n * (n + 1) * sizeof *distance);
    }
    fst_free(distance);
    fst_free(rank);
    return st;
}

/* ---- Bulyan ---- */

/* The best by Krum's score of those that are left, whose entry of `left` is set; near: room for n. */
static size_t best_left(const fst_fed_view *client, size_t n, size_t f, const double *distance, const bool *left,
                        double *near)
{
    struct rank best = {0};
    for (size_t i = 0; i < n; i++) {
        size_t others = 0;
        struct rank r = {.state = &client[i], .number = i};
        for (size_t j = 0; j < n; j++)
            if (left[i] && left[j] && j != i)
                near[others++] = distance[i * n + j];
        qsort(near, others, sizeof *near, by_double);
        for (size_t j = 0; j + f + 1 < others; j++) /* others is one less than those that are left */
            r.key += near[j];
        if (left[i] && (!best.state || by_rank(&r, &best) < 0))
            best = r;
    }
    return best.number;
}

/* The mean of the `keep` of n sorted values that are closest to their median. */
static double mean_near_median(const float *v, size_t n, size_t keep)
{
    double median = ((double)v[(n - 1) / 2] + (double)v[n / 2]) / 2, sum = 0;
    size_t low = 0, high = n;
    while (high - low > keep)
        if (median - (double)v[low] > (double)v[high - 1] - median)
            low++;
        else
            high--;
    for (size_t k = low; k < high; k++)
        sum += (double)v[k];
    return sum / (double)keep;
}

static void bulyan(const fst_fed_view *client, size_t n, size_t f, double *distance, bool *left, float *column,
                   fst_fed_state *out)
{
    size_t chosen = n - 2 * f;
    for (size_t i = 0; i < n; i++) {
        left[i] = true;
        for (size_t j = 0; j < i; j++)
            distance[i * n + j] = distance[j * n + i] = squared_distance(&client[i], &client[j]);
    }
    for (size_t k = 0; k < chosen; k++)
        left[best_left(client, n, f, distance, left, distance + n * n)] = false;
    for (int w = 0; w < SPANS; w++)
        for (size_t i = 0; i < span_size(out->size, w); i++) {
            size_t c = 0;
            for (size_t k = 0; k < n; k++)
                if (!left[k])
                    column[c++] = span(&client[k], w)[i] + 0.0f;
            sort_values(column, chosen);
            out_span(out, w)[i] = (float)mean_near_median(column, chosen, n - 4 * f);
        }
}

fst_status fst_robust_bulyan(const fst_fed_view *client, size_t n, size_t f, fst_fed_state *out, fst_error *err)
{
    if (n < 3 || f > (n - 3) / 4)
        return fst_fail(err, FST_E_ARGUMENT, "bulyan: %zu clients cannot bear %zu liars; 4f+3 clients are needed", n,
                        f);
    fst_status st = check(client, n, out, err);
    if (st)
        return st;
    double *distance = n < SIZE_MAX / n - 1 ? fst_calloc(n * (n + 1), sizeof *distance) : NULL;
    bool *left = fst_calloc(n, sizeof *left);
    float *column = fst_calloc(n, sizeof *column);
    if (distance && left && column) {
        bulyan(client, n, f, distance, left, column, out);
        largest_counters(client, n, out);
    } else {
        st = fst_fail_memory(err, n * (n + 1) * sizeof *distance);
    }
    fst_free(distance);
    fst_free(left);
    fst_free(column);
    return st;
}

/* ---- the geometric median ---- */

/* Weiszfeld's z as two spans of doubles in one array, and the clients in the order of weight and contents. */
struct weiszfeld {
    struct rank *rank; /* key: the weight */
    double *pull, *z;
    size_t n;
    fst_fed_size size;
};

/* z = sum(pull x)/sum(pull) */
static void settle(struct weiszfeld *s)
{
    double total = 0, *z = s->z;
    for (size_t k = 0; k < s->n; k++)
        total += s->pull[k];
    for (int w = 0; w < SPANS; w++)
        for (size_t i = 0; i < span_size(s->size, w); i++) {
            double sum = 0;
            for (size_t k = 0; k < s->n; k++)
                sum += s->pull[k] * (double)span(s->rank[k].state, w)[i];
            *z++ = sum / total;
        }
}

static double distance_to(const double *z, const fst_fed_view *x)
{
    double lane[FST__LANES] = {0};
    for (int w = 0; w < SPANS; w++) {
        const float *v = span(x, w);
        size_t n = span_size(x->size, w);
        for (size_t i = 0; i < n; i++) {
            double d = (double)v[i] - z[i];
            lane[i % FST__LANES] += d * d;
        }
        z += n;
    }
    return sqrt(fst__sum_lanes(lane));
}

static fst_status check_weights(const double *weight, size_t n, fst_error *err)
{
    double total = 0;
    for (size_t k = 0; weight && k < n; k++) {
        if (!(weight[k] >= 0) || isinf(weight[k]))
            return fst_fail(err, FST_E_ARGUMENT, "client %zu has weight %g; 0 or more is needed", k + 1, weight[k]);
        total += weight[k];
    }
    return weight && !(total > 0) ? fst_fail(err, FST_E_ARGUMENT, "all clients have weight 0") : FST_OK;
}

static void iterate(struct weiszfeld *s, int iterations, double eps, fst_fed_state *out)
{
    for (size_t k = 0; k < s->n; k++)
        s->pull[k] = s->rank[k].key;
    settle(s);
    for (int i = 0; i < iterations; i++) {
        for (size_t k = 0; k < s->n; k++)
            s->pull[k] = s->rank[k].key / fmax(distance_to(s->z, s->rank[k].state), eps);
        settle(s);
    }
    const double *z = s->z;
    for (int w = 0; w < SPANS; w++)
        for (size_t i = 0; i < span_size(s->size, w); i++)
            out_span(out, w)[i] = (float)*z++;
}

fst_status fst_robust_geometric_median(const fst_fed_view *client, const double *weight, size_t n, int iterations,
                                       double eps, fst_fed_state *out, fst_error *err)
{
    if (iterations < 0 || !(eps > 0))
        return fst_fail(err, FST_E_ARGUMENT, "geometric median: %d iterations, eps %g; eps must be above 0", iterations,
                        eps);
    fst_status st = check_weights(weight, n, err);
    if (!st)
        st = check(client, n, out, err);
    if (st)
        return st;
    size_t floats = out->size.params + out->size.buffers;
    struct weiszfeld s = {.rank = fst_calloc(n, sizeof *s.rank), .n = n, .size = out->size};
    s.pull = fst_calloc(n + floats, sizeof *s.pull);
    if (s.rank && s.pull) {
        s.z = s.pull + n;
        for (size_t k = 0; k < n; k++)
            s.rank[k] = (struct rank){weight ? weight[k] : 1, &client[k], k};
        qsort(s.rank, n, sizeof *s.rank, by_rank);
        iterate(&s, iterations, eps, out);
        largest_counters(client, n, out);
    } else {
        st = fst_fail_memory(err, (n + floats) * sizeof *s.pull);
    }
    fst_free(s.rank);
    fst_free(s.pull);
    return st;
}

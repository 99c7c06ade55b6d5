/* A matrix by its largest singular values: orthogonal iteration with a few vectors more than are wanted (Halko,
 * Martinsson, Tropp, Finding structure with randomness, SIAM Review 2011), then Jacobi's method on what is left. In
 * double and in one order: the same bits everywhere. It is exact when the vectors span all rows. */
#include <math.h>
#include <string.h>

#include "low_rank.h"

enum { MORE = 8, ITERATIONS = 12 };

struct work {
    const float *w;
    size_t rows, columns, k; /* k: vectors */
    double *q;               /* rows x k, orthonormal columns */
    double *p;               /* columns x k */
    double *gram, *turn;     /* k x k */
};

static size_t vectors(size_t rows, size_t columns, size_t rank)
{
    size_t most = rows < columns ? rows : columns;
    return rank + MORE < most ? rank + MORE : most;
}

size_t fst__low_rank_bytes(size_t rows, size_t columns, size_t rank)
{
    size_t k = vectors(rows, columns, rank);
    return (rows * k + columns * k + 2 * k * k) * sizeof(double);
}

static double column_dot(const double *q, size_t rows, size_t k, size_t a, size_t b)
{
    double sum = 0;
    for (size_t i = 0; i < rows; i++)
        sum += q[i * k + a] * q[i * k + b];
    return sum;
}

/* Gram and Schmidt, twice. A column that depends on those before it becomes zero. */
static void orthogonalise(double *q, size_t rows, size_t k)
{
    for (size_t c = 0; c < k; c++) {
        double before = sqrt(column_dot(q, rows, k, c, c));
        for (int twice = 0; twice < 2; twice++)
            for (size_t b = 0; b < c; b++) {
                double by = column_dot(q, rows, k, b, c);
                for (size_t i = 0; i < rows; i++)
                    q[i * k + c] -= by * q[i * k + b];
            }
        double length = sqrt(column_dot(q, rows, k, c, c));
        double by = length > 1e-12 * before && length > 0 ? 1 / length : 0;
        for (size_t i = 0; i < rows; i++)
            q[i * k + c] *= by;
    }
}

/* p = W^T q, or q = W p. */
static void multiply(struct work *o, bool transposed)
{
    double *out = transposed ? o->p : o->q;
    memset(out, 0, (transposed ? o->columns : o->rows) * o->k * sizeof *out);
    for (size_t i = 0; i < o->rows; i++)
        for (size_t j = 0; j < o->columns; j++) {
            double w = (double)o->w[i * o->columns + j], *p = o->p + j * o->k, *q = o->q + i * o->k;
            double *restrict to = transposed ? p : q;
            const double *restrict from = transposed ? q : p;
            for (size_t c = 0; c < o->k; c++)
                to[c] += w * from[c];
        }
}

/* Which eigenvalue comes next. */
static size_t largest(const double *gram, size_t k, const double *before)
{
    size_t best = k;
    for (size_t i = 0; i < k; i++)
        if (before[i] == 0 && (best == k || gram[i * k + i] > gram[best * k + best]))
            best = i;
    return best;
}

/* Pair number `at` of factors from eigenvector e; top: the largest eigenvalue. */
static void give(const struct work *o, size_t e, double top, size_t rank, size_t at, float *left, float *right)
{
    double value = o->gram[e * o->k + e], n = (double)o->columns, peak = 0;
    double s = value > 1e-14 * top ? sqrt(value) : 0; /* below it are rounding errors */
    for (size_t i = 0; i < o->rows; i++) {
        double u = 0;
        for (size_t c = 0; c < o->k; c++)
            u += o->q[i * o->k + c] * o->turn[e * o->k + c];
        left[i * rank + at] = (float)(u * s / sqrt(n));
        peak = fabs(u) > fabs(peak) ? u : peak;
    }
    for (size_t j = 0; j < o->columns; j++) {
        double v = 0;
        for (size_t c = 0; c < o->k; c++)
            v += o->p[j * o->k + c] * o->turn[e * o->k + c];
        right[at * o->columns + j] = s > 0 ? (float)((peak < 0 ? -v : v) / s * sqrt(n)) : 0;
    }
    for (size_t i = 0; peak < 0 && i < o->rows; i++)
        left[i * rank + at] = -left[i * rank + at];
}

static void factor(struct work *o, size_t rank, float *left, float *right)
{
    fst_rng r;
    size_t k = o->k;
    fst_rng_init(&r, 0, "low_rank", 0);
    for (size_t i = 0; i < o->rows * k; i++)
        o->q[i] = fst_rng_normal(&r);
    for (int i = 0; i < ITERATIONS; i++) {
        orthogonalise(o->q, o->rows, k);
        multiply(o, true);
        orthogonalise(o->p, o->columns, k);
        multiply(o, false);
    }
    orthogonalise(o->q, o->rows, k);
    multiply(o, true);
    for (size_t a = 0; a < k; a++)
        for (size_t b = 0; b < k; b++)
            o->gram[a * k + b] = column_dot(o->p, o->columns, k, a, b);
    fst_eigenvectors(o->gram, o->turn, k);
    double *used = o->q + o->rows * k;
    memset(used, 0, k * sizeof *used);
    double top = 0;
    for (size_t at = 0; at < rank; at++) {
        size_t e = largest(o->gram, k, used);
        used[e] = 1;
        top = at ? top : o->gram[e * k + e];
        give(o, e, top, rank, at, left, right);
    }
}

fst_status fst__low_rank(const float *w, size_t rows, size_t columns, size_t rank, float *left, float *right,
                         fst_error *err)
{
    struct work o = {.w = w, .rows = rows, .columns = columns, .k = vectors(rows, columns, rank)};
    size_t k = o.k, need = rows * k + k + columns * k + 2 * k * k;
    o.q = fst_calloc(need, sizeof *o.q);
    if (!o.q)
        return fst_fail_memory(err, need * sizeof *o.q);
    o.p = o.q + rows * k + k; /* after q: which pairs were given */
    o.gram = o.p + columns * k;
    o.turn = o.gram + k * k;
    factor(&o, rank, left, right);
    fst_free(o.q);
    return FST_OK;
}

/* See matmul.h. Knows no shapes, no graph; takes no memory but its stack. */
#include "matmul.h"

#include <string.h>

#include "graph.h"

enum { TILE = 64, DEPTH = 128, ROWS = 4, COLUMNS = 16 };

/* a lies as (row / ROWS, k, ROWS), b as (column / COLUMNS, k, COLUMNS), so that the inner loop reads straight on. */
struct tile {
    _Alignas(64) double a[TILE * DEPTH], b[DEPTH * TILE], c[TILE * TILE];
    int64_t m, n, k; /* what of it is in use */
};

static inline double element(const struct fst_matrix *x, int64_t i, int64_t j)
{
    int64_t at = i * x->row + j * x->column;
    return x->f ? (double)x->f[at] : x->d[at];
}

/* Rows after the end are 0. */
static void pack_a(struct tile *t, const struct fst_matrix *x, int64_t m0, int64_t k0)
{
    for (int64_t i = 0; i < (t->m + ROWS - 1) / ROWS * ROWS; i++) {
        double *to = t->a + i / ROWS * ROWS * t->k + i % ROWS;
        for (int64_t l = 0; l < t->k; l++)
            to[l * ROWS] = i < t->m ? element(x, m0 + i, k0 + l) : 0;
    }
}

static void pack_b(struct tile *t, const struct fst_matrix *x, int64_t k0, int64_t n0)
{
    int64_t padded = (t->n + COLUMNS - 1) / COLUMNS * COLUMNS;
    for (int64_t j0 = 0; j0 < padded; j0 += COLUMNS) {
        double *to = t->b + j0 * t->k;
        int64_t width = t->n - j0 < COLUMNS ? t->n - j0 : COLUMNS;
        for (int64_t l = 0; l < t->k; l++, to += COLUMNS)
            for (int64_t j = 0; j < COLUMNS; j++)
                to[j] = j < width ? element(x, k0 + l, n0 + j0 + j) : 0;
    }
}

/* ROWS x COLUMNS sums at a time, a row a variable, so that they stay in registers. */
FST_HOT static void multiply(struct tile *t)
{
    for (int64_t j0 = 0; j0 < t->n; j0 += COLUMNS)
        for (int64_t i = 0; i < t->m; i += ROWS) {
            const double *restrict a = t->a + i * t->k, *restrict b = t->b + j0 * t->k;
            double *restrict c = t->c + i * TILE + j0;
            double sum0[COLUMNS], sum1[COLUMNS], sum2[COLUMNS], sum3[COLUMNS];
            for (int j = 0; j < COLUMNS; j++) {
                sum0[j] = c[j];
                sum1[j] = c[TILE + j];
                sum2[j] = c[2 * TILE + j];
                sum3[j] = c[3 * TILE + j];
            }
            for (int64_t l = 0; l < t->k; l++, a += ROWS, b += COLUMNS)
                for (int j = 0; j < COLUMNS; j++) {
                    sum0[j] += a[0] * b[j];
                    sum1[j] += a[1] * b[j];
                    sum2[j] += a[2] * b[j];
                    sum3[j] += a[3] * b[j];
                }
            for (int j = 0; j < COLUMNS; j++) {
                c[j] = sum0[j];
                c[TILE + j] = sum1[j];
                c[2 * TILE + j] = sum2[j];
                c[3 * TILE + j] = sum3[j];
            }
        }
}

static void start(struct tile *t, const struct fst_product *p, int64_t m0, int64_t n0)
{
    memset(t->c, 0, sizeof *t->c * TILE * (size_t)((t->m + ROWS - 1) / ROWS * ROWS));
    for (int64_t i = 0; (p->of_row || p->of_column) && i < t->m; i++)
        for (int64_t j = 0; j < t->n; j++)
            t->c[i * TILE + j] = (double)(p->of_row ? p->of_row[m0 + i] : p->of_column[n0 + j]);
}

static void finish(const struct tile *t, const struct fst_product *p, int64_t m0, int64_t n0)
{
    for (int64_t i = 0; i < t->m; i++) {
        const double *c = t->c + i * TILE;
        int64_t to = (m0 + i) * p->stride + n0;
        for (int64_t j = 0; p->out && j < t->n; j++)
            p->out[to + j] = (float)c[j];
        for (int64_t j = 0; !p->out && j < t->n; j++)
            p->sum[to + j] = p->add ? p->sum[to + j] + c[j] : c[j];
    }
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

void fst__product(const struct fst_product *p)
{
    struct tile t;
    for (int64_t m0 = 0; m0 < p->m; m0 += TILE)
        for (int64_t n0 = 0; n0 < p->n; n0 += TILE) {
            t.m = least(TILE, p->m - m0);
            t.n = least(TILE, p->n - n0);
            start(&t, p, m0, n0);
            for (int64_t k0 = 0; k0 < p->k; k0 += DEPTH) {
                t.k = least(DEPTH, p->k - k0);
                pack_a(&t, &p->a, m0, k0);
                pack_b(&t, &p->b, k0, n0);
                multiply(&t);
            }
            finish(&t, p, m0, n0);
        }
}

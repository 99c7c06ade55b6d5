/*
 * Low rank approximations of changes of weights (FedKD's compression). Only the left or right singular vectors of the
 * shorter side are needed: they are the eigenvectors of A A^T (or A^T A), and the squares of the singular values its
 * eigenvalues. Squaring costs half of the digits, but of the small singular values only, which are what is left out.
 *
 * Data flow: matrix -> gram -> rotations of Jacobi until it is diagonal -> eigenvalues in falling order -> as many as
 * hold the wanted energy -> U and U^T A, as floats. One order of sums, no threads: the same bits everywhere.
 */
#include <math.h>
#include <string.h>

#include "packed_change.h"

/* ---- which matrices there are ---- */

static size_t pieces_of(const fst_param_info *p, size_t *rows, size_t *cols)
{
    *rows = p->shape.rank ? (size_t)p->shape.dim[0] : 1;
    *cols = *rows ? p->count / *rows : 0;
    bool cut = *rows > FST__LONGEST_SIDE && *cols > FST__LONGEST_SIDE;
    return cut ? (*rows + FST__LONGEST_SIDE - 1) / FST__LONGEST_SIDE : 1;
}

static size_t shorter(const struct fst__matrix *m)
{
    return m->rows < m->cols ? m->rows : m->cols;
}

static void add(struct fst__matrices *m, const fst_param_info *p)
{
    size_t rows, cols, pieces = pieces_of(p, &rows, &cols);
    for (size_t i = 0, first = 0; i < pieces; i++) {
        size_t n = pieces == 1 || rows - first < FST__LONGEST_SIDE ? rows - first : FST__LONGEST_SIDE;
        struct fst__matrix *a = &m->matrix[m->count++];
        *a = (struct fst__matrix){p->offset + first * cols, n, cols};
        m->side = shorter(a) > m->side ? shorter(a) : m->side;
        first += n;
    }
}

fst_status fst__matrices_init(struct fst__matrices *m, const fst_graph *g, fst_error *err)
{
    size_t count = 0, rows, cols;
    struct fst__matrices n = {.params = fst_graph_param_count(g)};
    for (size_t i = 0; i < fst_graph_params(g); i++) {
        fst_param_info p = fst_graph_param(g, i);
        count += pieces_of(&p, &rows, &cols);
    }
    n.matrix = fst_calloc(count, sizeof *n.matrix);
    if (!n.matrix)
        return fst_fail_memory(err, count * sizeof *n.matrix);
    for (size_t i = 0; i < fst_graph_params(g); i++) {
        fst_param_info p = fst_graph_param(g, i);
        add(&n, &p);
    }
    n.gram = fst_calloc(n.side * n.side, sizeof *n.gram);
    n.vector = fst_calloc(n.side * n.side, sizeof *n.vector);
    n.value = fst_calloc(n.side, sizeof *n.value);
    n.order = fst_calloc(n.side, sizeof *n.order);
    *m = n;
    if (n.gram && n.vector && n.value && n.order)
        return FST_OK;
    fst__matrices_release(m);
    return fst_fail_memory(err, 2 * n.side * n.side * sizeof *n.gram);
}

fst_status fst__matrices_init_one(struct fst__matrices *m, size_t rows, size_t cols, fst_error *err)
{
    struct fst__matrix *one = fst_calloc(1, sizeof *one);
    if (!one)
        return fst_fail_memory(err, sizeof *one);
    *one = (struct fst__matrix){0, rows, cols};
    *m = (struct fst__matrices){.matrix = one, .count = 1, .params = rows * cols};
    return FST_OK;
}

void fst__matrices_release(struct fst__matrices *m)
{
    fst_free(m->matrix);
    fst_free(m->gram);
    fst_free(m->vector);
    fst_free(m->value);
    fst_free(m->order);
    *m = (struct fst__matrices){0};
}

/* ---- eigenvectors ---- */

/* Element (i, j) with i along the shorter side. */
static size_t place(const struct fst__matrix *a, size_t i, size_t j)
{
    return a->rows <= a->cols ? i * a->cols + j : j * a->cols + i;
}

static void make_gram(const struct fst__matrix *a, const float *x, double *gram)
{
    size_t n = shorter(a), length = a->rows <= a->cols ? a->cols : a->rows;
    for (size_t p = 0; p < n; p++)
        for (size_t q = p; q < n; q++) {
            double sum = 0;
            for (size_t j = 0; j < length; j++)
                sum += (double)x[place(a, p, j)] * (double)x[place(a, q, j)];
            gram[p * n + q] = gram[q * n + p] = sum;
        }
}

/* Positions of the eigenvalues in falling order. Returns how many hold the energy. */
static size_t choose(struct fst__matrices *m, size_t n, double energy)
{
    double total = 0, held = 0;
    for (size_t i = 0; i < n; i++) {
        double v = m->gram[i * n + i] > 0 ? m->gram[i * n + i] : 0;
        size_t at = i;
        for (; at && m->value[at - 1] < v; at--) {
            m->value[at] = m->value[at - 1];
            m->order[at] = m->order[at - 1];
        }
        m->value[at] = v;
        m->order[at] = i;
        total += v;
    }
    size_t k = 0;
    while (k < n && total > 0 && !(held > energy * total))
        held += m->value[k++];
    return k;
}

/* ---- packing ---- */

/* The two thin matrices. Where the shorter side is that of the columns, the eigenvectors are V, and the product is
 * (A V) V^T. */
static void put_factors(const struct fst__matrices *m, const struct fst__matrix *a, const float *x, size_t k,
                        float *out)
{
    size_t n = shorter(a), length = a->rows <= a->cols ? a->cols : a->rows;
    bool wide = a->rows <= a->cols;
    float *left = out, *right = out + k * a->rows;
    for (size_t r = 0; r < k; r++) {
        const double *v = m->vector + m->order[r] * n;
        for (size_t i = 0; i < n; i++)
            *(wide ? &left[i * k + r] : &right[r * a->cols + i]) = (float)v[i];
        for (size_t j = 0; j < length; j++) {
            double sum = 0;
            for (size_t i = 0; i < n; i++)
                sum += v[i] * (double)x[place(a, i, j)];
            *(wide ? &right[r * a->cols + j] : &left[j * k + r]) = (float)sum;
        }
    }
}

size_t fst__change_pack(struct fst__matrices *m, const float *change, double energy, int32_t *rank, float *out)
{
    size_t at = 0;
    for (size_t i = 0; i < m->count; i++) {
        const struct fst__matrix *a = &m->matrix[i];
        const float *x = change + a->offset;
        size_t n = shorter(a), k = n;
        if (n > 1) {
            make_gram(a, x, m->gram);
            fst_eigenvectors(m->gram, m->vector, n);
            k = choose(m, n, energy);
        }
        bool whole = k * (a->rows + a->cols) >= a->rows * a->cols;
        rank[i] = whole ? -1 : (int32_t)k;
        if (whole)
            memcpy(out + at, x, a->rows * a->cols * sizeof *x);
        else
            put_factors(m, a, x, k, out + at);
        at += whole ? a->rows * a->cols : k * (a->rows + a->cols);
    }
    return at;
}

fst_status fst__change_check(const struct fst__matrices *m, const int32_t *rank, size_t floats, fst_error *err)
{
    size_t want = 0;
    for (size_t i = 0; i < m->count; i++) {
        const struct fst__matrix *a = &m->matrix[i];
        size_t all = a->rows * a->cols, k = rank[i] < 0 ? 0 : (size_t)rank[i];
        if (rank[i] < -1 || (k && (k > shorter(a) || k * (a->rows + a->cols) >= all)))
            return fst_fail(err, FST_E_MISMATCH, "matrix %zu of %zu x %zu is packed with rank %d", i, a->rows, a->cols,
                            (int)rank[i]);
        want += rank[i] < 0 ? all : k * (a->rows + a->cols);
    }
    if (floats == want)
        return FST_OK;
    return fst_fail(err, FST_E_MISMATCH, "is packed in %zu floats, its ranks need %zu", floats, want);
}

void fst__change_unpack(const struct fst__matrices *m, const int32_t *rank, const float *packed, float *change)
{
    for (size_t i = 0; i < m->count; i++) {
        const struct fst__matrix *a = &m->matrix[i];
        size_t all = a->rows * a->cols, k = rank[i] < 0 ? 0 : (size_t)rank[i];
        float *x = change + a->offset;
        const float *left = packed, *right = packed + k * a->rows;
        if (rank[i] < 0)
            memcpy(x, packed, all * sizeof *x);
        for (size_t e = 0; rank[i] >= 0 && e < all; e++) {
            double sum = 0;
            for (size_t r = 0; r < k; r++)
                sum += (double)left[e / a->cols * k + r] * (double)right[r * a->cols + e % a->cols];
            x[e] = (float)sum;
        }
        packed += rank[i] < 0 ? all : k * (a->rows + a->cols);
    }
}

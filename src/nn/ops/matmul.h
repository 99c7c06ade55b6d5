/* Products of matrices with sums in double: the arithmetic of the reference convolution, linear layer and attention.
 * Cut into tiles that stay in the cache, but every sum is taken in the order of its index, as the plain three loops
 * would take it. */
#ifndef FST_NN_MATMUL_H
#define FST_NN_MATMUL_H

#include <stdbool.h>
#include <stdint.h>

/* Element (i, j) is f[i * row + j * column], or d[...] where f is NULL. */
struct fst_matrix {
    const float *f;
    const double *d;
    int64_t row, column;
};

/* m x n sums over k products a(i, l) b(l, j). */
struct fst_product {
    int64_t m, n, k;
    struct fst_matrix a, b;
    const float *of_row, *of_column; /* what the sums start with; NULL: 0 */
    /* Where they go, row by row, rows `stride` apart: rounded to `out`, or, where that is NULL, put into or (add)
     * added to `sum`. */
    float *out;
    double *sum;
    bool add;
    int64_t stride;
};
void fst__product(const struct fst_product *p);

#endif

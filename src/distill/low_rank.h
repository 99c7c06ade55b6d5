/* low_rank.h - the largest singular values of a matrix, for fusion.c. */
#ifndef FST_DISTILL_LOW_RANK_H
#define FST_DISTILL_LOW_RANK_H

#include "fedstill/base.h"

/* W (rows x columns) = left right + rest: left = U S/sqrt(columns), rows x rank, right = sqrt(columns) V^T, rank x
 * columns, in falling order of the singular values, which were found by a few steps of orthogonal iteration from a
 * fixed stream. The entry of largest size of each column of U is positive. Values of nothing have rows of zeroes.
 * rank <= min(rows, columns). */
FST_MUST fst_status fst__low_rank(const float *w, size_t rows, size_t columns, size_t rank, float *left, float *right,
                                  fst_error *err);
/* Bytes that it works in. */
size_t fst__low_rank_bytes(size_t rows, size_t columns, size_t rank);

#endif

/* packed_change.h - changes of a network's weights in fewer floats: each matrix as the product of two thin ones. */
#ifndef FST_FED_PACKED_CHANGE_H
#define FST_FED_PACKED_CHANGE_H

#include "fed_private.h"

/* A matrix among the parameters: rows x cols floats from `offset` on, the rows being a weight's output channels. */
struct fst__matrix {
    size_t offset, rows, cols;
};

/* All parameters as matrices, in their order. What has one dimension (biases, scales) is a matrix of one column, which
 * has no shorter form. One whose both sides are longer than FST__LONGEST_SIDE is cut into that many rows each: the
 * work grows with the cube of the shorter side. */
enum { FST__LONGEST_SIDE = 256 };
struct fst__matrices {
    struct fst__matrix *matrix;
    size_t count, params;
    size_t side;                   /* of the largest shorter side */
    double *gram, *vector, *value; /* room of packing: side x side, the same, side */
    size_t *order;                 /* side */
};
FST_MUST fst_status fst__matrices_init(struct fst__matrices *m, const fst_graph *g, fst_error *err);
/* One matrix alone, without room for packing. */
FST_MUST fst_status fst__matrices_init_one(struct fst__matrices *m, size_t rows, size_t cols, fst_error *err);
void fst__matrices_release(struct fst__matrices *m);

/*
 * Packs `change` (params floats): of each matrix the fewest singular values whose squares add up to more than `energy`
 * (0 ... 1) of the sum of all. rank[i] becomes their number k, and the matrix k (rows + cols) floats: U, rows x k, then
 * U^T A, k x cols, whose product is the best approximation of that rank. -1: the matrix as it is, where that is not
 * longer. Returns the floats in `out`, at most params. Not for several threads at once.
 */
size_t fst__change_pack(struct fst__matrices *m, const float *change, double energy, int32_t *rank, float *out);
/* Whether so many floats with these ranks are a packed change: FST_E_MISMATCH. */
FST_MUST fst_status fst__change_check(const struct fst__matrices *m, const int32_t *rank, size_t floats,
                                      fst_error *err);
/* change: params floats. What was packed must have been checked. */
void fst__change_unpack(const struct fst__matrices *m, const int32_t *rank, const float *packed, float *change);

#endif

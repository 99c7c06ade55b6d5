/* Loops of op files that backends share. */
#ifndef FST_NN_OPS_H
#define FST_NN_OPS_H

#include "backend.h"

void fst__relu_forward(const float *x, float *y, size_t n);
/* g becomes 0 where y is not above 0. */
void fst__relu_mask(const float *y, float *g, size_t n);
/* running = (1 - momentum) running + momentum batch, the variance made unbiased from `n` values. */
void fst__batchnorm_update(const struct fst_node *node, const struct fst_op_args *a, const float *mean,
                           const float *var);

#endif

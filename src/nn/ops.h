/* Loops that backends share. _bf16: values are the upper halves of floats. */
#ifndef FST_NN_OPS_H
#define FST_NN_OPS_H

#include "backend.h"

void fst__relu_forward(const float *x, float *y, size_t n);
/* g becomes 0 where y is not above 0. */
void fst__relu_mask(const float *y, float *g, size_t n);
void fst__relu6_forward(const float *x, float *y, size_t n);
void fst__relu6_mask(const float *y, float *g, size_t n); /* 0 where y is not inside (0, 6) */
void fst__add(const float *x, const float *y, float *out, bool relu, size_t n);
void fst__accumulate(const float *x, float *out, size_t n); /* out += x */
void fst__relu_forward_bf16(const uint16_t *x, uint16_t *y, size_t n);
void fst__relu_mask_bf16(const uint16_t *y, uint16_t *g, size_t n);
void fst__relu6_forward_bf16(const uint16_t *x, uint16_t *y, size_t n);
void fst__relu6_mask_bf16(const uint16_t *y, uint16_t *g, size_t n);
void fst__add_bf16(const uint16_t *x, const uint16_t *y, uint16_t *out, bool relu, size_t n); /* out may be y */
/* Max pooling whose windows do not overlap (stride = kernel, no padding) over images whose channels lie in blocks of
 * `block` next to each other: (images, height, width, block). at: for each output, which element of its window won. */
struct fst_blocked_pool {
    int64_t images, height, width, out_height, out_width, kernel;
    bool half; /* values are bf16, else float */
};
enum { FST_POOL_BLOCK = 16 };
void fst__maxpool_blocked_forward(const struct fst_blocked_pool *p, const void *in, void *out, unsigned char *at);
/* mask: where out is not above 0 the gradient is 0 (of a ReLU before the pooling). */
void fst__maxpool_blocked_backward(const struct fst_blocked_pool *p, const void *out, const void *grad_out,
                                   const unsigned char *at, bool mask, void *grad_in);
/* running = (1 - momentum) running + momentum batch, the variance made unbiased from `n` values. */
void fst__batchnorm_update(const struct fst_node *node, const struct fst_op_args *a, const float *mean,
                           const float *var);

#endif

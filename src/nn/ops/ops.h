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
void fst__scale(const float *x, float factor, float *out, size_t n);
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
/* ---- batch norm ---- */

/* What a shard leaves of a channel for the others: forward, mean and sum of squared deviations from it over its own
 * rows; backward, the sums of g and of g (x - mean) / sqrt(var + eps). */
struct fst_norm_shared {
    double forward[2], backward[2];
};
static inline struct fst_norm_shared *fst__norm_shared(const struct fst_op_args *a, int shard)
{
    return fst__shared(a, shard);
}
/* What all shards make of it: the batch's mean and biased variance, or the running ones where those are in force. */
struct fst_norm_channel {
    double mean, inverse; /* 1 / sqrt(var + eps) */
};
bool fst__batch_statistics(const struct fst_op_args *a); /* of the batch, not running ones */
/* From the running statistics, or from all shards' parts (by the rule of Chan, Golub and LeVeque 1979); the running
 * ones move on when this is the first shard. */
struct fst_norm_channel fst__norm_channel(const struct fst_node *n, const struct fst_op_args *a, int64_t c);
/* The mean over the batch of g and of g times the normalised value; 0 with running statistics. */
void fst__norm_means(const struct fst_node *n, const struct fst_op_args *a, int64_t c, double mean[2]);
/* One batch more was taken into the running statistics; once a pass, the first shard's call counts. Neither this nor
 * the running statistics move in a batch of one value a channel, which has no variance. */
void fst__norm_count(const struct fst_node *n, const struct fst_op_args *a);

/* ---- int8 ---- */

/* graph_int8_learn.c. Does the graph learn for int8, so that steps go through rounded weights? */
bool fst__graph_rounds(const fst_graph *g);
/* `rounded` becomes the parameters with those weights rounded. */
void fst__graph_round_weights(const fst_graph *g, const float *params, float *rounded);
/* Of a channel whose largest weight is that. */
float fst__int8_weight_scale(double most);
/* What round_int8 does: whole numbers times a scale, by the largest magnitude of all n values. */
void fst__round_int8(const float *x, float *y, bool is_unsigned, size_t n);

enum { FST__INT8_DEPTH = 66311 }; /* products of 127 and 255 whose sum stays below 2^31 */
/* Products that an output of the layer (in f32 or int8) sums up. */
int64_t fst__int8_depth(const struct fst_node *n);
float fst__int8_low(const struct fst_int8_value *v);
float fst__int8_high(const struct fst_int8_value *v);
/* What quantise does, into bytes (of two's complement where the value is signed). false: x holds a NaN or infinity. */
bool fst__int8_round(const struct fst_int8_value *to, const float *x, uint8_t *q, size_t n);
fst_status fst__quantise_failed(fst_error *err); /* what is reported then */
/* What follows the sums of a layer: times factor plus shift, plus `more` (NULL: nothing), a ReLU or ReLU6, and what
 * quantise does into bytes, or floats. Factors and shifts of the channels, which lie next to each other, are repeated
 * in tables of `period` elements, so that few channels are worth a loop of vectors too. */
struct fst_int8_finish {
    size_t period;
    const float *factor, *shift;
    bool relu, relu6;
    const struct fst_int8_value *to; /* NULL: `out` is floats */
};
/* From the first channel of a position on. */
void fst__int8_finish(const struct fst_int8_finish *f, const float *sum, const float *more, void *out, size_t count);
size_t fst__int8_period(size_t channels);
/* Max pooling of an image of bytes whose channels are last. row: room for a row of it. */
struct fst_int8_pool {
    size_t height, width, channels, out_height, out_width, kernel, stride, padding;
    bool is_unsigned;
};
void fst__int8_maxpool(const struct fst_int8_pool *p, const void *in, void *row, void *out);

/* A linear layer with weights from anywhere; parameters and their gradients are a's. */
struct fst_linear_sizes {
    int64_t rows, in, out; /* rows: samples times tokens */
};
struct fst_linear_sizes fst__linear_sizes(const struct fst_node *n, int64_t batch);
void fst__linear_forward(const struct fst_node *n, const struct fst_op_args *a, const float *weight);
void fst__linear_backward(const struct fst_node *n, const struct fst_op_args *a, const float *weight);

/* Writes W / sigma to `to`, and after it (fst__spectral_weights bytes on) what the gradient needs. In training that is
 * not frozen, one power iteration first. */
void fst__spectral_prepare(const struct fst_node *n, const struct fst_op_args *a, void *to);
/* a->grad_param[0], the gradient of W / sigma, becomes that of W. kept: what fst__spectral_prepare has written. */
void fst__spectral_gradient(const struct fst_node *n, const struct fst_op_args *a, const void *kept);
size_t fst__spectral_weights(const struct fst_node *n);
size_t fst__spectral_saved(const struct fst_node *n); /* bytes of all of it */

/* One head of one sample: items 0 ... batch * heads - 1, which do not meet. scratch: as many bytes as told, for each
 * item that runs at the same time. */
size_t fst__attention_scratch(const struct fst_node *n);
void fst__attention_forward(const struct fst_node *n, const struct fst_op_args *a, int64_t item, double *scratch);
void fst__attention_backward(const struct fst_node *n, const struct fst_op_args *a, int64_t item, double *scratch);

/* ---- complex values ---- */

/* Complex batch norm of one channel: y = A (z - mean) + beta, A = G C^(-1/2), C the covariance with eps. */
struct fst_whitening {
    double mean[2], covar[3]; /* rr, ii, ri, without eps */
    double root[3];           /* C^(-1/2) */
    double a[4];              /* A by rows */
};
/* From mean and covar. weight: G's rr, ii, ri. */
void fst__whiten(struct fst_whitening *w, const float weight[3], double eps);
/* From the sums of g (2) and of g d^T (4, by rows), d = z - mean, over `count` values: gradients of weight and bias,
 * and what the gradient of z is made of: A^T g + b d + c, b symmetric (rr, ii, ri). fixed: mean and covar do not depend
 * on z. */
struct fst_whitening_grad {
    double weight[3], bias[2], b[3], c[2];
};
void fst__whiten_backward(const struct fst_whitening *w, const float weight[3], double eps, const double sum[2],
                          const double dot[4], double count, bool fixed, struct fst_whitening_grad *out);
/* What a shard leaves of a channel for the others: forward, means and sums of products (rr, ii, ri) of deviations from
 * them over its own rows; backward, `sum` and `dot`. */
struct fst_whitening_shared {
    double mean[2], product[3], sum[2], dot[4];
};
static inline struct fst_whitening_shared *fst__whitening_shared(const struct fst_op_args *a, int shard)
{
    return fst__shared(a, shard);
}
/* Mean and covariance from running ones or from all shards' parts, and what follows from them; running ones move on
 * when this is the first shard. */
void fst__whitening_channel(const struct fst_node *n, const struct fst_op_args *a, int64_t c, struct fst_whitening *w);
/* `sum` and `dot` of all shards. */
void fst__whitening_sums(const struct fst_op_args *a, int64_t c, double sum[2], double dot[4]);
double fst__norm_values(const struct fst_node *n, const struct fst_op_args *a); /* of a channel in the whole batch */

#endif

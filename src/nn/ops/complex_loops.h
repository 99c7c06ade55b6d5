/* Fast loops on complex values, for backends whose layouts are plain or have channels in blocks. */
#ifndef FST_NN_COMPLEX_LOOPS_H
#define FST_NN_COMPLEX_LOOPS_H

#include "ops.h"

enum { FST_LANES = 16 };

/*
 * How values lie: rows of (channels / block, height * width, block), the real parts of all samples, then the imaginary
 * ones. A run is what one block of channels has of a row; element i of it belongs to lane i % FST_LANES, so blocks (1,
 * 8, 16) divide FST_LANES. Channels are padded with zeros to whole blocks, and stay zeros.
 */
struct fst_runs {
    int64_t samples, rows, channels, plane, block; /* rows: samples that count, the first ones */
    int64_t count, length;                         /* runs of a row, elements of a run */
    int64_t row, imaginary;                        /* elements of a row; from a real part to its imaginary part */
};
/* batch: rows in memory, two a sample; all samples count. */
struct fst_runs fst__runs(const struct fst_node *n, int64_t batch, int64_t block);

/* Complex batch norm of run `run` of every row; kept: by channel, from forward to backward. rows: samples that count.
 * The sums stand before the pass that needs them, and are left in the shard's shared memory. */
void fst__complex_norm_sums(const struct fst_runs *r, const struct fst_op_args *a, int64_t run);
void fst__complex_norm_forward(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                               int64_t run, bool relu, struct fst_whitening *kept);
/* mask: the gradient is 0 where the output is not above 0. */
void fst__complex_norm_gradient_sums(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                                     int64_t run, bool mask, const struct fst_whitening *kept);
void fst__complex_norm_backward(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                                int64_t run, bool mask, const struct fst_whitening *kept);

/* Two convolutions' results side by side, (rows, [r, i], size), and the complex one's: its real part is r(re) - i(im),
 * its imaginary part r(im) + i(re). Samples from ... from+count-1 of `samples`. */
void fst__complex_combine(const float *pair, float *out, int64_t size, int64_t samples, int64_t from, int64_t count);
/* The other way for gradients: (g, g turned): rows (re, im) and (im, -re). */
void fst__complex_spread(const float *grad, float *pair, int64_t size, int64_t samples, int64_t from, int64_t count);

/* time_freq_attention: bytes of `saved` and `scratch` for a batch. */
size_t fst__time_freq_saved(const struct fst_node *n, const struct fst_runs *r);
size_t fst__time_freq_loop_scratch(const struct fst_node *n, const struct fst_runs *r);
/* Of samples from ... from+count-1. backward leaves in the scratch what the weights' gradients are made of. */
void fst__time_freq_forward(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                            int64_t from, int64_t count);
void fst__time_freq_backward(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                             float *grad_in, int64_t from, int64_t count);
/* Rows of the weights' gradients, of fst__time_freq_rows: fc2's, fc1's, and the convolution's as one. */
int64_t fst__time_freq_rows(const struct fst_node *n);
void fst__time_freq_weights(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                            int64_t from, int64_t count);

#endif

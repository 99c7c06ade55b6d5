/* Fast loops of batch norm over whatever layout a backend has; the arithmetic of a channel is batchnorm2d.c's. */
#ifndef FST_NN_NORM_LOOPS_H
#define FST_NN_NORM_LOOPS_H

#include "ops.h"

enum { FST_NORM_LANES = 16 };

/*
 * How the values of a batch lie. Channels come in runs, and a run's values in steps of up to 16 neighbours (lanes); the
 * channel of lane l is run * run_channels + l % run_channels:
 *  - plain (n, c, h, w): a run is a channel, its steps are pieces of its plane;
 *  - blocks (n, c / b, h, w, b), b 8 or 16: a run is a block; channels are padded with zeros to whole ones;
 *  - channels last (n, h, w, c): a run is 16 channels, its steps are the positions.
 */
struct fst_norm_walk {
    int64_t batch, rows; /* samples in memory; those that count, the first ones */
    int64_t channels, plane;
    int64_t runs, run_channels;
    int64_t run_at, row_at, step_at; /* elements from a run, sample, step to the next */
    int64_t steps;                   /* of a sample in a run */
    int lanes, tail;                 /* of a step; of one more step that is not full, 0: there is none */
    bool half;                       /* values are bf16, else float */
    bool ragged;                     /* channels last: the last run may have fewer lanes */
};

/* block: 1 plain, 8 or 16 blocks, 0 channels last. rows: samples that count. */
struct fst_norm_walk fst__norm_walk(const struct fst_node *n, int64_t batch, int64_t rows, int64_t block, bool half);

/* sums of the run's channels: (mean, sum of squared deviations from it) over this shard's rows. */
void fst__norm_sums(const struct fst_norm_walk *w, const void *in, int64_t run, double (*sums)[2]);
/* y = (x - mean) scale + shift by channel, then the ReLU; in all rows. */
struct fst_norm_line {
    float mean, scale, shift;
};
void fst__norm_forward(const struct fst_norm_walk *w, const void *in, void *out, int64_t run, bool relu,
                       const struct fst_norm_line *line);
/* sums of the run's channels: (g, g (x - mean)) over this shard's rows. out not NULL: g is 0 where out is not above 0.
 */
void fst__norm_gradient_sums(const struct fst_norm_walk *w, const void *in, const void *out, const void *grad,
                             int64_t run, const struct fst_norm_line *line, double (*sums)[2]);
/* g becomes g scale + (x - mean) slope + shift, and 0 in rows that do not count. */
struct fst_norm_slope {
    float mean, scale, slope, shift;
};
void fst__norm_gradient(const struct fst_norm_walk *w, const void *in, const void *out, void *grad, int64_t run,
                        const struct fst_norm_slope *slope);

#endif

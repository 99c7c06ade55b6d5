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
/* y = (x - mean) scale + shift by channel, in all rows; what stands after the norm is computed with it. */
struct fst_norm_line {
    float mean, scale, shift;
};
struct fst_norm_with {
    const void *other; /* a value that is added to the norm, laid out like it; NULL: none */
    bool relu;         /* then a ReLU, */
    float ceiling;     /* which lets nothing above this through: 6 for ReLU6, else infinity */
};
void fst__norm_forward(const struct fst_norm_walk *w, const void *in, void *out, int64_t run,
                       const struct fst_norm_line *line, const struct fst_norm_with *with);

/*
 * What the backward pass reads and writes. The ReLU's gradient is a mask: where the norm's result is above 0 and below
 * the ceiling. The forward pass's output need not be kept for that: the norm is computed again from its input, with the
 * same bits.
 */
struct fst_norm_gradient {
    const void *in, *grad;
    const void *out; /* the mask is taken from it: needed after a sum; NULL: from in */
    void *pass;      /* sums: where the gradient after the mask is left, for the sum's other value; NULL, or grad */
    void *to;        /* gradient: the input's; may be grad */
    bool relu;
    float ceiling;
};
/* sums of the run's channels: (g, g (x - mean)) over this shard's rows, g after the mask. `out` needs `pass`. */
void fst__norm_gradient_sums(const struct fst_norm_walk *w, const struct fst_norm_gradient *p, int64_t run,
                             const struct fst_norm_line *line, double (*sums)[2]);
/* to = g scale + (x - mean) slope + shift, g after the mask from in, and 0 in rows that do not count. */
struct fst_norm_slope {
    float scale, slope, shift;
};
void fst__norm_gradient(const struct fst_norm_walk *w, const struct fst_norm_gradient *p, int64_t run,
                        const struct fst_norm_line *line, const struct fst_norm_slope *slope);

#endif

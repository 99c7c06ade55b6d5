/*
 * Gradients of large linear layers as their factors. The gradient of such weights is the sum, over the rows of a batch,
 * of the output's gradient times the input: a handful of rows beside millions of products. A trainer's plans keep the
 * rows, those of all shards in one place, and the optimiser makes the products a tile at a time, in its core's cache.
 */
#ifndef FST_NN_FACTORS_H
#define FST_NN_FACTORS_H

#include "graph.h"

/* Of one layer's weights (out, in), which are parameters from ... from + out * in - 1. In a span of gradients their
 * factors begin at `from` too: rows x out gradients of the output, then rows x in inputs. */
struct fst_factors {
    size_t from, out, in, rows;
};

/* All layers of a network that are kept so, in the order of their parameters. */
struct fst_factored {
    const struct fst_factors *layers;
    size_t count, rows; /* rows: that count, the first of each layer's */
    const float *grads; /* the span where the factors lie */
};

/* Are the factors of a batch of that many rows so much smaller than the gradient? */
bool fst__worth_factors(size_t rows, size_t out, size_t in);
/* The gradient of weights (row ... row+rows-1, column ... column+columns-1), each the sum over the batch's rows
 * first ... first+count-1 in their order; to: rows x columns. */
struct fst_factors_tile {
    size_t row, rows, column, columns, first, count;
};
void fst__factors_tile(const struct fst_factors *f, const float *grads, const struct fst_factors_tile *t, float *to);
/* fst_optim_step where some layers' gradients are kept as factors. */
double fst__optim_step(fst_optim *o, float *params, const fst_optim_input *in, const struct fst_factored *factored,
                       fst_pool *pool);
/* No NaN and no infinity in what rows first ... first+count-1 of the batch bring to the gradient. */
bool fst__factors_finite(const struct fst_factors *f, const float *grads, size_t first, size_t count);

#endif

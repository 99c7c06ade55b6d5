/*
 * Forms of gradients: how a trainer's plans leave the gradient of a layer's weights for the optimiser, where that is
 * cheaper than to write it as the weights lie.
 *
 *  - Factors, of large linear layers. Their gradient is the sum, over the rows of a batch, of the output's gradient
 *    times the input: a handful of rows beside millions of products. The rows of all shards are kept in one place, and
 *    the optimiser makes the products a tile at a time, in its core's cache.
 *  - Blocks, of convolutions: as oneDNN's kernel makes it, (out / block, inputs / block, taps, block of inputs, block
 *    of out). Sums of shards do not mind; the optimiser puts each tile in the weights' order as it comes to it.
 */
#ifndef FST_NN_FORMS_H
#define FST_NN_FORMS_H

#include "graph.h"

/* Of one layer's weights (out, in), which are parameters from ... from + out * in - 1. In a span of gradients factors
 * begin at `from` too: rows x out gradients of the output, then rows x in inputs. */
struct fst_form {
    size_t from, out, in;
    size_t rows;              /* of factors */
    size_t block, taps;       /* of blocks; in is a multiple of block * taps. 0: factors */
    size_t first_unit, units; /* of an optimiser's step; fst__number_units */
};

/* All layers of a network whose gradients are kept so, in the order of their parameters. */
struct fst_forms {
    const struct fst_form *layers;
    size_t count, rows; /* rows: of factors, those that count, the first of each layer's */
    const float *grads; /* the span where the factors lie */
};

/* The optimiser works on so many values at a time; a block with all its taps must not have more. */
enum { FST_UNIT = 8192 };
void fst__number_units(struct fst_form *f, size_t count);

/* Are the factors of a batch of that many rows so much smaller than the gradient? */
bool fst__worth_factors(size_t rows, size_t out, size_t in);
/* The gradient of weights (row ... row+rows-1, column ... column+columns-1), each the sum over the batch's rows
 * first ... first+count-1 in their order; to: rows x columns. */
struct fst_factors_tile {
    size_t row, rows, column, columns, first, count;
};
void fst__factors_tile(const struct fst_form *f, const float *grads, const struct fst_factors_tile *t, float *to);
/* Blocks one after another of the inputs, of one block of out; to: block x (blocks * block * taps). */
void fst__blocks_tile(const struct fst_form *f, const float *from, size_t blocks, float *to);
/* fst_optim_step where some layers' gradients are kept in forms. */
double fst__optim_step(fst_optim *o, float *params, const fst_optim_input *in, const struct fst_forms *forms,
                       fst_pool *pool);
/* No NaN and no infinity in what rows first ... first+count-1 of the batch bring to the gradient. */
bool fst__factors_finite(const struct fst_form *f, const float *grads, size_t first, size_t count);

#endif

/*
 * vector.h - the backend for builds and machines without oneDNN: inference in plain C that the compiler makes vectors
 * of.
 *
 * A convolution or a linear layer is a product of matrices whose sums are LANES wide: 16 outputs at a time, each the
 * sum over l = 0 ... k-1 (input channel, then kernel row, then kernel column; or input feature) in float, in that
 * order, in one accumulator (tile.h). Which of two forms a layer takes is a matter of speed and not of bits:
 *
 *  - by place: lanes are places of the output, of the images of the batch one after the other; what they read is
 * written out as a panel (k, LANES) by columns.c.
 *  - by channel: lanes are output channels, the weights lie as panels (k, LANES) in the plan's memory. For linear
 * layers, and for maps of few places.
 *
 * A batch norm after a convolution is a factor and a summand of its sums, a ReLU is taken as they are stored. All other
 * ops, and training, are those of the reference backend, in double.
 */
#ifndef FST_NN_VECTOR_H
#define FST_NN_VECTOR_H

#include "ops.h"

enum { LANES = 16, FST__ROWS = 8, FST__PANELS = 4 };

/* sum(r, lane) = sum over l < k of a[r * a_row + l * a_step] * b[l * b_step + lane]; with one row and several panels
 * sum(p, lane) over b[p * b_panel + l * b_step + lane]. */
struct fst__tile {
    int64_t k;
    const float *a, *b;
    int64_t a_row, a_step, b_step, b_panel;
    int rows, panels; /* rows <= the maker's; panels > 1 (2 or FST__PANELS) only with one row */
    float *sum;       /* rows (or panels) x LANES */
};

struct fst__tiles { /* for one kind of processor */
    const char *name;
    int rows; /* at most so many at once */
    void (*multiply)(const struct fst__tile *t);
};
/* Those that this processor has, the best first; NULL after the last. */
const struct fst__tiles *fst__tiles_at(int i);
const struct fst__tiles *fst__tiles(void);

struct fst__weighted {                  /* a convolution or linear layer and how it is computed */
    const struct fst_node *node, *fold; /* fold: a batch norm, or NULL */
    const struct fst__tiles *tiles;
    bool by_channel, relu, relu6;
    int64_t groups, outputs, depth; /* outputs, depth: of a group; depth is k */
};
void fst__weighted_init(struct fst__weighted *w, const struct fst_op_request *r);
size_t fst__weighted_held(const struct fst__weighted *w);
size_t fst__weighted_scratch(const struct fst__weighted *w, int64_t batch);
/* Writes what is held: factors, summands, and the weights' panels. */
void fst__weighted_prepare(const struct fst__weighted *w, const struct fst_op_args *a);
void fst__weighted_forward(const struct fst__weighted *w, const struct fst_op_args *a);

/* columns.c. The input of a group's convolution with its padding, rows split by the stride: floats of each part. */
struct fst__padded {
    int64_t channels, rows, width, pieces, piece, channel, image;
};
int64_t fst__padded_floats(const struct fst_node *n, int64_t batch);
void fst__write_padded(const struct fst_node *n, const float *in, int64_t group, int64_t batch, float *to);
/* What outputs `first` ... first + count - 1 read, places counted over all images. Panel: (depth, LANES), lanes after
 * count are of no meaning; LANES floats after it are written too. Rows: (count, depth). */
void fst__write_panel(const struct fst_node *n, const float *padded, int64_t first, int64_t count, float *to);
void fst__write_rows(const struct fst_node *n, const float *padded, int64_t first, int64_t count, float *to);

/* pool.c. Of the op's arguments only in, out, batch and scratch are used. */
size_t fst__max_pool_scratch(const struct fst_node *n);
void fst__max_pool(const struct fst_node *n, const struct fst_op_args *a);

#endif

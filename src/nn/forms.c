/* Forms of gradients: products of factors, by the tiles of vector/, and blocks in the order of the weights. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "forms.h"
#include "ops.h"
#include "vector/vector.h"

enum { WORTH = 4 };

bool fst__worth_factors(size_t rows, size_t out, size_t in)
{
    return rows * (out + in) * WORTH <= out * in;
}

/* LANES columns of the inputs as a panel: their rows lie too far apart to stay in the first cache together. */
FST_HOT static void write_panel(const float *in, size_t stride, size_t lanes, size_t count, float *restrict panel)
{
    for (size_t i = 0; i < count && lanes == LANES; i++)
        for (size_t l = 0; l < LANES; l++)
            panel[i * LANES + l] = in[i * stride + l];
    for (size_t i = 0; i < count && lanes < LANES; i++)
        for (size_t l = 0; l < LANES; l++)
            panel[i * LANES + l] = l < lanes ? in[i * stride + l] : 0;
}

/* Adds what `count` rows of the batch bring to LANES columns, of which `lanes` count. */
static void add_panel(const struct fst_form *f, const struct fst_factors_tile *t, const float *out, const float *panel,
                      size_t count, size_t lanes, float *to)
{
    const struct fst__tiles *tiles = fst__tiles();
    for (size_t row = 0; row < t->rows; row += (size_t)tiles->rows) {
        size_t rows = t->rows - row < (size_t)tiles->rows ? t->rows - row : (size_t)tiles->rows;
        _Alignas(64) float sum[FST__ROWS * LANES];
        tiles->multiply(&(struct fst__tile){.k = (int64_t)count,
                                            .a = out + row,
                                            .a_row = 1,
                                            .a_step = (int64_t)f->out,
                                            .b = panel,
                                            .b_step = LANES,
                                            .rows = (int)rows,
                                            .panels = 1,
                                            .sum = sum});
        for (size_t r = 0; r < rows; r++)
            fst__accumulate(sum + r * LANES, to + (row + r) * t->columns, lanes);
    }
}

void fst__factors_tile(const struct fst_form *f, const float *grads, const struct fst_factors_tile *t, float *to)
{
    enum { AT_ONCE = 64 };
    _Alignas(64) float panel[AT_ONCE * LANES];
    const float *out = grads + f->from + t->row, *in = grads + f->from + f->rows * f->out + t->column;
    memset(to, 0, t->rows * t->columns * sizeof *to);
    for (size_t column = 0; column < t->columns; column += LANES)
        for (size_t i = t->first; i < t->first + t->count; i += AT_ONCE) {
            size_t left = t->first + t->count - i, count = left < AT_ONCE ? left : AT_ONCE;
            size_t lanes = t->columns - column < LANES ? t->columns - column : LANES;
            write_panel(in + i * f->in + column, f->in, lanes, count, panel);
            add_panel(f, t, out + i * f->out, panel, count, lanes, to + column);
        }
}

FST_HOT static float largest(const float *x, size_t count)
{
    float most = 0;
    for (size_t i = 0; i < count; i++)
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    return most;
}

static bool products_finite(const struct fst_form *f, const float *grads, size_t first, size_t count)
{
    enum { COLUMNS = 1024 };
    float products[COLUMNS];
    for (size_t row = 0; row < f->out; row++)
        for (size_t column = 0; column < f->in; column += COLUMNS) {
            size_t left = f->in - column, columns = left < COLUMNS ? left : COLUMNS;
            struct fst_factors_tile t = {row, 1, column, columns, first, count};
            fst__factors_tile(f, grads, &t, products);
            if (!fst__all_finite(products, columns * sizeof *products, false))
                return false;
        }
    return true;
}

bool fst__factors_finite(const struct fst_form *f, const float *grads, size_t first, size_t count)
{
    const float *out = grads + f->from + first * f->out;
    const float *in = grads + f->from + f->rows * f->out + first * f->in;
    if (!fst__all_finite(out, count * f->out * sizeof *out, false) ||
        !fst__all_finite(in, count * f->in * sizeof *in, false))
        return false;
    double bound = (double)largest(out, count * f->out) * (double)largest(in, count * f->in) * (double)f->rows;
    return bound < FLT_MAX || products_finite(f, grads, first, count);
}

typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

/* 4 x 4 values, rows of `from` at the four places, to columns. */
static inline void turn(const float *const from[4], float *to, size_t stride)
{
    four a = *(const four *)from[0], b = *(const four *)from[1], c = *(const four *)from[2], d = *(const four *)from[3];
    four ab = __builtin_shufflevector(a, b, 0, 4, 1, 5), cd = __builtin_shufflevector(c, d, 0, 4, 1, 5);
    *(four *)to = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(four *)(to + stride) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
    ab = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    cd = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    *(four *)(to + 2 * stride) = __builtin_shufflevector(ab, cd, 0, 1, 4, 5);
    *(four *)(to + 3 * stride) = __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/* One block of out and inputs with all taps; rows of `to` lie `stride` apart. */
static inline void turn_block(const float *from, size_t taps, size_t block, size_t stride, float *to)
{
    for (size_t o = 0; o < block; o += 4) {
        size_t i = 0, k = 0;
        for (size_t column = 0; column < block * taps; column += 4) {
            const float *at[4];
            for (int j = 0; j < 4; j++) {
                at[j] = from + (k * block + i) * block + o;
                if (++k == taps)
                    k = 0, i++;
            }
            turn(at, to + o * stride + column, stride);
        }
    }
}

static inline void turn_blocks(const float *from, size_t taps, size_t block, size_t blocks, float *to)
{
    for (size_t b = 0; b < blocks; b++)
        turn_block(from + b * block * block * taps, taps, block, blocks * block * taps, to + b * block * taps);
}

void fst__blocks_tile(const struct fst_form *f, const float *from, size_t blocks, float *to)
{
    if (f->taps == 9 && f->block == 16)
        turn_blocks(from, 9, 16, blocks, to);
    else if (f->taps == 1 && f->block == 16)
        turn_blocks(from, 1, 16, blocks, to);
    else
        turn_blocks(from, f->taps, f->block, blocks, to);
}

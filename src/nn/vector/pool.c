/* Max pooling in inference: the rows of a window first, over whole rows of the image, then its columns. A NaN wins, as
 * in the reference backend. */
#include <math.h>

#include "vector.h"

static inline float larger(float max, float x)
{
    float most = x > max ? x : max; /* one comparison a line: so loops of it become vectors */
    return x != x ? x : most;
}

FST_HOT static void raise_row(float *restrict max, const float *restrict x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        max[i] = larger(max[i], x[i]);
}

FST_HOT static void raise_by(float *restrict max, const float *restrict x, int64_t stride, int64_t n)
{
    if (stride == 2)
        for (int64_t i = 0; i < n; i++)
            max[i] = larger(max[i], x[2 * i]);
    else
        for (int64_t i = 0; i < n; i++)
            max[i] = larger(max[i], x[i * stride]);
}

/* Windows of 2x2 that do not overlap. */
FST_HOT static void pool_pairs(const float *restrict in, int64_t width, float *restrict out, int64_t rows,
                               int64_t columns)
{
    for (int64_t y = 0; y < rows; y++, in += 2 * width, out += columns) {
        const float *below = in + width;
        for (int64_t x = 0; x < columns; x++)
            out[x] = larger(larger(in[2 * x], in[2 * x + 1]), larger(below[2 * x], below[2 * x + 1]));
    }
}

static int64_t row_floats(const struct fst_node *n)
{
    return n->in.dim[2] + 2 * n->u.pool.padding + n->u.pool.stride;
}

size_t fst__max_pool_scratch(const struct fst_node *n)
{
    return (size_t)row_floats(n) * sizeof(float);
}

static void pool_row(const struct fst_node *n, const float *plane, int64_t y, float *row, float *out)
{
    int64_t k = n->u.pool.kernel, s = n->u.pool.stride, p = n->u.pool.padding, w = n->in.dim[2];
    int64_t top = y * s - p, bottom = top + k < n->in.dim[1] ? top + k : n->in.dim[1];
    for (int64_t i = 0; i < row_floats(n); i++)
        row[i] = -INFINITY;
    for (int64_t at = top < 0 ? 0 : top; at < bottom; at++)
        raise_row(row + p, plane + at * w, w);
    for (int64_t i = 0; i < n->out.dim[2]; i++)
        out[i] = -INFINITY;
    for (int64_t x = 0; x < k; x++)
        raise_by(out, row + x, s, n->out.dim[2]);
}

void fst__max_pool(const struct fst_node *n, const struct fst_op_args *a)
{
    int64_t planes = a->batch * n->out.dim[0], in = n->in.dim[1] * n->in.dim[2], out = n->out.dim[1] * n->out.dim[2];
    bool pairs = n->u.pool.kernel == 2 && n->u.pool.stride == 2 && n->u.pool.padding == 0;
    for (int64_t i = 0; pairs && i < planes; i++)
        pool_pairs(a->in + i * in, n->in.dim[2], a->out + i * out, n->out.dim[1], n->out.dim[2]);
    for (int64_t i = 0; !pairs && i < planes; i++)
        for (int64_t y = 0; y < n->out.dim[1]; y++)
            pool_row(n, a->in + i * in, y, a->scratch, a->out + i * out + y * n->out.dim[2]);
}

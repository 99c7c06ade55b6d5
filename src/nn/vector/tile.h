/*
 * tile.h - the products that everything in this folder is made of, for one width of vectors. tile.c includes it once
 * for each that the processor may have, with
 *
 *     WIDTH  floats in a vector
 *     ROWS   rows of sums that stay in registers together; ROWS * LANES / WIDTH vectors
 *     NAME(f) what f is called for this width
 *
 * A sum is over l from 0 to k-1, in that order, in one accumulator, whatever the width: sums are lanes, never spread
 * over lanes. Where the processor multiplies and adds in one step, each step rounds once; else twice. So all processors
 * of either kind make the same bits.
 */

typedef float NAME(vector) __attribute__((vector_size(WIDTH * sizeof(float)), aligned(sizeof(float)), may_alias));
enum { NAME(vectors) = LANES / WIDTH };

/* rows is a constant where this is inlined, so that sums are registers. */
static inline __attribute__((always_inline)) void NAME(rows)(const int rows, const struct fst__tile *t)
{
    NAME(vector) sum[ROWS][NAME(vectors)];
    const float *a = t->a, *b = t->b;
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < NAME(vectors); v++)
            sum[r][v] = (NAME(vector)){0};
    for (int64_t l = 0; l < t->k; l++, a += t->a_step, b += t->b_step) {
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
            for (int v = 0; v < NAME(vectors); v++)
                sum[r][v] += a[r * t->a_row] * *(const NAME(vector) *)(b + v * WIDTH);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < NAME(vectors); v++)
            *(NAME(vector) *)(t->sum + r * LANES + v * WIDTH) = sum[r][v];
}

/* One row over up to FST__PANELS panels of b, which lie b_panel apart: with one alone each sum would wait for the last.
 */
static inline __attribute__((always_inline)) void NAME(panels)(const int panels, const struct fst__tile *t)
{
    NAME(vector) sum[FST__PANELS][NAME(vectors)];
    const float *a = t->a, *b = t->b;
#pragma GCC unroll 8
    for (int p = 0; p < panels; p++)
#pragma GCC unroll 4
        for (int v = 0; v < NAME(vectors); v++)
            sum[p][v] = (NAME(vector)){0};
    for (int64_t l = 0; l < t->k; l++, a += t->a_step, b += t->b_step) {
#pragma GCC unroll 8
        for (int p = 0; p < panels; p++)
#pragma GCC unroll 4
            for (int v = 0; v < NAME(vectors); v++)
                sum[p][v] += *a * *(const NAME(vector) *)(b + p * t->b_panel + v * WIDTH);
    }
#pragma GCC unroll 8
    for (int p = 0; p < panels; p++)
#pragma GCC unroll 4
        for (int v = 0; v < NAME(vectors); v++)
            *(NAME(vector) *)(t->sum + p * LANES + v * WIDTH) = sum[p][v];
}

static void NAME(multiply)(const struct fst__tile *t)
{
    switch (t->rows) {
    case 1:
        if (t->panels == FST__PANELS)
            NAME(panels)(FST__PANELS, t);
        else if (t->panels == 2)
            NAME(panels)(2, t);
        else
            NAME(rows)(1, t);
        break;
#if ROWS > 2
    case 3:
        NAME(rows)(3, t);
        break;
    case 4:
        NAME(rows)(4, t);
        break;
#endif
#if ROWS > 4
    case 5:
        NAME(rows)(5, t);
        break;
    case 6:
        NAME(rows)(6, t);
        break;
    case 7:
        NAME(rows)(7, t);
        break;
    case 8:
        NAME(rows)(8, t);
        break;
#endif
    default:
        NAME(rows)(2, t);
        break;
    }
}

#undef WIDTH
#undef ROWS
#undef NAME

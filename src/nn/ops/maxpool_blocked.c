/* Max pooling whose windows do not overlap, over channels in blocks of 16, in f32 and bf16: which element of its window
 * won is kept as a byte. Plain layouts and other windows are maxpool2d.c's and the backends'. */
#include <string.h>

#include "ops.h"

enum { LANES = FST_POOL_BLOCK };

/* Four channels at a time, as vectors of the compiler's: wider ones it would take apart again when the
 * machine that it builds for has none. */
enum { WIDE = 4 };
typedef float wide_f __attribute__((vector_size(WIDE * 4)));
typedef int32_t wide_i __attribute__((vector_size(WIDE * 4)));

#define PICK(mask, a, b) (((mask) & (a)) | (~(mask) & (b)))

/* Elements i ... i+3, bf16 ones widened to float: what follows sees floats only and knows `half` as a constant. */
#define ALWAYS static inline __attribute__((always_inline))

ALWAYS wide_i load(const void *p, int64_t i, bool half)
{
    wide_i v = {0};
    if (!half) {
        memcpy(&v, (const float *)p + i, sizeof v);
        return v;
    }
    uint16_t h[WIDE];
    memcpy(h, (const uint16_t *)p + i, sizeof h);
    for (int k = 0; k < WIDE; k++)
        v[k] = (int32_t)((uint32_t)h[k] << 16);
    return v;
}

/* Exact for values that were bf16 before. */
ALWAYS void store(void *p, int64_t i, wide_i v, bool half)
{
    if (!half) {
        memcpy((float *)p + i, &v, sizeof v);
        return;
    }
    uint16_t h[WIDE];
    for (int k = 0; k < WIDE; k++)
        h[k] = (uint16_t)((uint32_t)v[k] >> 16);
    memcpy((uint16_t *)p + i, h, sizeof h);
}

ALWAYS void window_max(const void *restrict in, int64_t from, int64_t row, int64_t kernel, void *restrict out,
                       int64_t to, unsigned char *restrict at, bool half)
{
    for (int l = 0; l < LANES; l += WIDE) {
        wide_i best = load(in, from + l, half), where = {0};
        for (int64_t t = 1; t < kernel * kernel; t++) {
            wide_i x = load(in, from + t / kernel * row + t % kernel * LANES + l, half);
            wide_i more = ~((wide_f)x <= (wide_f)best); /* a NaN wins, to be seen */
            best = PICK(more, x, best);
            where = PICK(more, (wide_i){0} + (int32_t)t, where);
        }
        store(out, to + l, best, half);
        for (int i = 0; i < WIDE; i++)
            at[to + l + i] = (unsigned char)where[i];
    }
}

ALWAYS void pool_forward(const struct fst_blocked_pool *p, const void *in, void *out, unsigned char *at, bool half)
{
    int64_t row = p->width * LANES, k = p->kernel, to = 0;
    for (int64_t i = 0; i < p->images; i++)
        for (int64_t y = 0; y < p->out_height; y++) {
            int64_t from = (i * p->height + y * k) * row;
            for (int64_t x = 0; x < p->out_width; x++, to += LANES) {
                if (k == 2) /* a constant that the compiler unrolls */
                    window_max(in, from + x * 2 * LANES, row, 2, out, to, at, half);
                else
                    window_max(in, from + x * k * LANES, row, k, out, to, at, half);
            }
        }
}

FST_HOT void fst__maxpool_blocked_forward(const struct fst_blocked_pool *p, const void *in, void *out,
                                          unsigned char *at)
{
    if (p->half)
        pool_forward(p, in, out, at, true);
    else
        pool_forward(p, in, out, at, false);
}

ALWAYS void window_spread(void *restrict in, int64_t from, int64_t row, int64_t kernel, const void *out,
                          const void *grad, int64_t to, const unsigned char *at, bool mask, bool half)
{
    for (int l = 0; l < LANES; l += WIDE) {
        const unsigned char *w = at + to + l;
        wide_i g = load(grad, to + l, half), where = {w[0], w[1], w[2], w[3]};
        if (mask)
            g &= (wide_f)load(out, to + l, half) > (wide_f){0};
        for (int64_t t = 0; t < kernel * kernel; t++) {
            wide_i x = g & (where == (wide_i){0} + (int32_t)t);
            store(in, from + t / kernel * row + t % kernel * LANES + l, x, half);
        }
    }
}

ALWAYS void pool_backward(const struct fst_blocked_pool *p, const void *out, const void *grad_out,
                          const unsigned char *at, bool mask, void *grad_in, bool half)
{
    int64_t row = p->width * LANES, k = p->kernel, to = 0;
    bool ragged = p->out_height * k != p->height || p->out_width * k != p->width;
    if (ragged) /* what no window reaches */
        memset(grad_in, 0, (size_t)(p->images * p->height * row) * (half ? 2 : 4));
    for (int64_t i = 0; i < p->images; i++)
        for (int64_t y = 0; y < p->out_height; y++) {
            int64_t from = (i * p->height + y * k) * row;
            for (int64_t x = 0; x < p->out_width; x++, to += LANES) {
                if (k == 2) /* a constant that the compiler unrolls */
                    window_spread(grad_in, from + x * 2 * LANES, row, 2, out, grad_out, to, at, mask, half);
                else
                    window_spread(grad_in, from + x * k * LANES, row, k, out, grad_out, to, at, mask, half);
            }
        }
}

FST_HOT void fst__maxpool_blocked_backward(const struct fst_blocked_pool *p, const void *out, const void *grad_out,
                                           const unsigned char *at, bool mask, void *grad_in)
{
    if (p->half)
        pool_backward(p, out, grad_out, at, mask, grad_in, true);
    else
        pool_backward(p, out, grad_out, at, mask, grad_in, false);
}

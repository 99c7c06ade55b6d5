/* Element-wise loops that know no shape or layout: in float, and on bf16 values with float inside. */
#include <string.h>

#include "bf16.h"
#include "ops.h"

/* ---- float ---------------------------------------------------------------------------------------- */

FST_HOT void fst__relu_forward(const float *restrict x, float *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] > 0 ? x[i] : 0;
}

FST_HOT void fst__relu_mask(const float *restrict y, float *restrict g, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g[i] = y[i] > 0 ? g[i] : 0;
}

FST_HOT void fst__relu6_forward(const float *restrict x, float *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float z = x[i] > 0 ? x[i] : 0;
        y[i] = z < 6 ? z : 6;
    }
}

FST_HOT void fst__relu6_mask(const float *restrict y, float *restrict g, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g[i] = y[i] > 0 && y[i] < 6 ? g[i] : 0;
}

FST_HOT void fst__add(const float *restrict x, const float *restrict y, float *restrict out, bool relu, size_t n)
{
    if (relu)
        for (size_t i = 0; i < n; i++)
            out[i] = x[i] + y[i] > 0 ? x[i] + y[i] : 0;
    else
        for (size_t i = 0; i < n; i++)
            out[i] = x[i] + y[i];
}

FST_HOT void fst__accumulate(const float *restrict x, float *restrict out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] += x[i];
}

/* All-ones exponents are infinities and NaN. */
FST_HOT bool fst__all_finite(const void *values, size_t bytes, bool half)
{
    uint32_t bad = 0;
    for (size_t i = 0; half && i < bytes / 2; i++) {
        uint16_t bits;
        memcpy(&bits, (const char *)values + 2 * i, sizeof bits);
        bad |= (bits & 0x7f80u) == 0x7f80u;
    }
    for (size_t i = 0; !half && i < bytes / 4; i++) {
        uint32_t bits;
        memcpy(&bits, (const char *)values + 4 * i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return !bad;
}

FST_HOT void fst__scale(const float *restrict x, float factor, float *restrict out, size_t n)
{
    for (size_t i = 0; i < n; i++)
        out[i] = factor * x[i];
}

/* ---- bf16: the upper half of a float --------------------------------------------------------------- */

FST_HOT void fst__relu_forward_bf16(const uint16_t *restrict x, uint16_t *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] = (int16_t)x[i] > 0 ? x[i] : 0;
}

FST_HOT void fst__relu_mask_bf16(const uint16_t *restrict y, uint16_t *restrict g, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g[i] = (int16_t)y[i] > 0 ? g[i] : 0;
}

enum { SIX = 0x40c0 }; /* positive bf16 values compare as integers do */

FST_HOT void fst__relu6_forward_bf16(const uint16_t *restrict x, uint16_t *restrict y, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int16_t z = (int16_t)x[i];
        z = z > 0 ? z : 0;
        y[i] = (uint16_t)(z < SIX ? z : SIX);
    }
}

FST_HOT void fst__relu6_mask_bf16(const uint16_t *restrict y, uint16_t *restrict g, size_t n)
{
    for (size_t i = 0; i < n; i++)
        g[i] = (int16_t)y[i] > 0 && (int16_t)y[i] < SIX ? g[i] : 0;
}

/* out may be y. */
FST_HOT void fst__add_bf16(const uint16_t *x, const uint16_t *y, uint16_t *out, bool relu, size_t n)
{
    if (relu)
        for (size_t i = 0; i < n; i++) {
            float z = fst__widen(x[i]) + fst__widen(y[i]);
            out[i] = fst__narrow(z > 0 ? z : 0);
        }
    else
        for (size_t i = 0; i < n; i++)
            out[i] = fst__narrow(fst__widen(x[i]) + fst__widen(y[i]));
}

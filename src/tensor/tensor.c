/* Element types, shapes and half precision. */
#include <stdio.h>
#include <string.h>

#include "fedstill/tensor.h"

static const struct {
    const char *name;
    size_t size;
} dtypes[FST_DTYPE_COUNT] = {
    [FST_F32] = {"F32", 4},   [FST_F64] = {"F64", 8}, [FST_F16] = {"F16", 2}, [FST_BF16] = {"BF16", 2},
    [FST_U8] = {"U8", 1},     [FST_I8] = {"I8", 1},   [FST_U16] = {"U16", 2}, [FST_I16] = {"I16", 2},
    [FST_U32] = {"U32", 4},   [FST_I32] = {"I32", 4}, [FST_U64] = {"U64", 8}, [FST_I64] = {"I64", 8},
    [FST_BOOL] = {"BOOL", 1},
};

size_t fst_dtype_size(fst_dtype t)
{
    return (size_t)t < FST_DTYPE_COUNT ? dtypes[t].size : 0;
}

const char *fst_dtype_name(fst_dtype t)
{
    return (size_t)t < FST_DTYPE_COUNT ? dtypes[t].name : "?";
}

bool fst_dtype_parse(const char *name, fst_dtype *out)
{
    for (int i = 0; i < FST_DTYPE_COUNT; i++)
        if (!strcmp(name, dtypes[i].name)) {
            *out = (fst_dtype)i;
            return true;
        }
    return false;
}

int64_t fst_shape_count(const fst_shape *s)
{
    int64_t n = 1;
    if (s->rank < 0 || s->rank > FST_MAX_RANK)
        return -1;
    for (int i = 0; i < s->rank; i++)
        if (s->dim[i] < 0 || __builtin_mul_overflow(n, s->dim[i], &n))
            return -1;
    return n;
}

bool fst_shape_equal(const fst_shape *a, const fst_shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++)
        if (a->dim[i] != b->dim[i])
            return false;
    return true;
}

static fst_shape squeezed(const fst_shape *s)
{
    fst_shape r = {0};
    for (int i = 0; i < s->rank; i++)
        if (s->dim[i] != 1)
            r.dim[r.rank++] = s->dim[i];
    return r;
}

bool fst_shape_fits(const fst_shape *a, const fst_shape *b)
{
    fst_shape p = squeezed(a), q = squeezed(b);
    return fst_shape_equal(&p, &q);
}

const char *fst_shape_text(const fst_shape *s, char *out, size_t size)
{
    size_t at = 0;
    if (!size)
        return out;
    at += (size_t)snprintf(out, size, "(");
    for (int i = 0; i < s->rank && at < size; i++)
        at += (size_t)snprintf(out + at, size - at, i ? ", %lld" : "%lld", (long long)s->dim[i]);
    if (at < size)
        snprintf(out + at, size - at, s->rank == 1 ? ",)" : ")");
    return out;
}

uint16_t fst_f16_from_f32(float x)
{
    uint32_t b;
    memcpy(&b, &x, 4);
    uint32_t sign = b >> 16 & 0x8000, mag = b & 0x7FFFFFFF;
    if (mag > 0x7F800000)
        return (uint16_t)(sign | 0x7E00); /* NaN */
    if (mag >= 0x477FF000)
        return (uint16_t)(sign | 0x7C00); /* rounds to 65520 or more: infinity */
    if (mag < 0x38800000) {               /* subnormal half: count units of 2^-24 */
        float magnitude;
        memcpy(&magnitude, &mag, 4);
        /* Adding 0.5 makes the float's last bit worth 2^-24, and the addition rounds to even. */
        float shifted = magnitude + 0.5f;
        uint32_t s;
        memcpy(&s, &shifted, 4);
        return (uint16_t)(sign | (s - 0x3F000000));
    }
    uint32_t odd = mag >> 13 & 1;
    return (uint16_t)(sign | (mag - 0x38000000 + 0xFFF + odd) >> 13);
}

float fst_f32_from_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 0x3FF, b;
    float x;
    if (exponent == 0) {
        x = (float)fraction * 0x1p-24f;
        memcpy(&b, &x, 4);
        b |= sign;
    } else if (exponent == 31) {
        b = sign | 0x7F800000 | fraction << 13;
    } else {
        b = sign | (exponent + 112) << 23 | fraction << 13;
    }
    memcpy(&x, &b, 4);
    return x;
}

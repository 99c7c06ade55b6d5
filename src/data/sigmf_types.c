/*
 * Types of SigMF samples: their names and how they become floats. Complex ones of 8 to 64 bits are read, whatever their
 * byte order. Real ones are not: what their missing half should be is not for a reader to guess.
 */
#include <stdio.h>
#include <string.h>

#include "sigmf.h"

#define KNOWN "cf32, cf64, ci16, ci32, cu16 or cu32 with _le or _be, ci8 or cu8"

static const struct {
    char name[4];
    fst__sigmf_type type;
} types[] = {{"f32", {FST__FLOATING, 4, false}}, {"f64", {FST__FLOATING, 8, false}}, {"i8", {FST__SIGNED, 1, false}},
             {"i16", {FST__SIGNED, 2, false}},   {"i32", {FST__SIGNED, 4, false}},   {"u8", {FST__UNSIGNED, 1, false}},
             {"u16", {FST__UNSIGNED, 2, false}}, {"u32", {FST__UNSIGNED, 4, false}}};
enum { TYPES = sizeof types / sizeof *types };

fst_status fst__sigmf_type_parse(fst__sigmf_type *out, const char *name, fst_error *err)
{
    size_t n = strlen(name), i = 0;
    bool big = n > 3 && !strcmp(name + n - 3, "_be"), ordered = big || (n > 3 && !strcmp(name + n - 3, "_le"));
    size_t stem = ordered ? n - 3 : n;
    while (i < TYPES && (stem != strlen(types[i].name) + 1 || strncmp(name + 1, types[i].name, stem - 1)))
        i++;
    if (i == TYPES || (name[0] != 'c' && name[0] != 'r'))
        return fst_fail(err, FST_E_UNSUPPORTED, "core:datatype is \"%.32s\"; " KNOWN " is read", name);
    if (name[0] == 'r')
        return fst_fail(err, FST_E_UNSUPPORTED,
                        "core:datatype is \"%.32s\", real samples; complex baseband is needed: " KNOWN, name);
    if (!ordered && types[i].type.bytes > 1)
        return fst_fail(err, FST_E_UNSUPPORTED, "core:datatype is \"%.32s\" without a byte order: %.4s_le or %.4s_be",
                        name, name, name);
    *out = types[i].type;
    out->big_endian = big;
    return FST_OK;
}

size_t fst__sigmf_width(fst__sigmf_type t)
{
    return 2 * (size_t)t.bytes;
}

static float component(fst__sigmf_type t, const unsigned char *p)
{
    uint64_t bits = 0;
    for (unsigned k = 0; k < t.bytes; k++)
        bits |= (uint64_t)p[t.big_endian ? t.bytes - 1 - k : k] << 8 * k;
    if (t.kind == FST__FLOATING && t.bytes == 4) {
        uint32_t word = (uint32_t)bits;
        float f;
        memcpy(&f, &word, sizeof f);
        return f;
    }
    if (t.kind == FST__FLOATING) {
        double d;
        memcpy(&d, &bits, sizeof d);
        return (float)d;
    }
    double half = (double)(UINT64_C(1) << (8 * t.bytes - 1)); /* 2^(bits - 1) */
    if (t.kind == FST__UNSIGNED)
        return (float)(((double)bits - (half - 0.5)) / (half - 0.5));
    unsigned shift = 64 - 8 * t.bytes;
    return (float)((double)((int64_t)(bits << shift) >> shift) / half);
}

void fst__sigmf_convert(fst__sigmf_type t, const unsigned char *raw, size_t count, float *dst)
{
    for (size_t i = 0; i < count; i++) {
        dst[i] = component(t, raw + 2 * t.bytes * i);
        dst[count + i] = component(t, raw + 2 * t.bytes * i + t.bytes);
    }
}

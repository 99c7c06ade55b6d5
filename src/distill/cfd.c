/* Compressed federated distillation (CFD; Sattler et al., IEEE TNSE 2022): soft labels of a few bits, and their packing
 * against rows that the reader has already. Nothing here knows rounds or clients.
 *
 * Data flow: probabilities -> levels -> bits -> levels -> probabilities. */
#include <math.h>
#include <string.h>

#include "fedstill/distill.h"

/* ---- levels ---- */

static void quantise_row(const float *p, size_t n, double most, uint16_t *level)
{
    double mass = 0, missing = most;
    for (size_t j = 0; j < n; j++)
        mass += (double)p[j];
    for (size_t j = 0; j < n; j++) {
        level[j] = (uint16_t)floor((double)p[j] / mass * most);
        missing -= level[j];
    }
    for (; missing > 0; missing--) {
        size_t best = 0;
        double lost = -INFINITY;
        for (size_t j = 0; j < n; j++) {
            double its = (double)p[j] / mass * most - level[j];
            if (its > lost) {
                lost = its;
                best = j;
            }
        }
        level[best]++;
    }
}

void fst_cfd_quantise(const float *p, size_t rows, int classes, int bits, uint16_t *level)
{
    size_t n = (size_t)classes;
    for (size_t r = 0; r < rows; r++)
        quantise_row(p + r * n, n, (double)((1u << bits) - 1), level + r * n);
}

void fst_cfd_values(const uint16_t *level, size_t rows, int classes, int bits, float *p)
{
    double most = (double)((1u << bits) - 1);
    for (size_t i = 0; i < rows * (size_t)classes; i++)
        p[i] = (float)(level[i] / most);
}

/* ---- bits ---- */

struct bits {
    uint8_t *out;
    const uint8_t *in;
    size_t at, end; /* in bits */
};

static void put(struct bits *b, unsigned value, int count)
{
    for (int i = 0; i < count; i++, b->at++) {
        if (b->at % 8 == 0)
            b->out[b->at / 8] = 0;
        b->out[b->at / 8] |= (uint8_t)((value >> i & 1u) << b->at % 8);
    }
}

/* Beyond the end: zeros, and `at` tells. */
static unsigned get(struct bits *b, int count)
{
    unsigned value = 0;
    for (int i = 0; i < count; i++, b->at++)
        if (b->at < b->end)
            value |= (b->in[b->at / 8] >> b->at % 8 & 1u) << i;
    return value;
}

/* Bits that one of `values` different values takes. */
static int width_of(size_t values)
{
    int w = 0;
    while ((size_t)1 << w < values)
        w++;
    return w;
}

static size_t row_bits(size_t classes, int bits)
{
    return bits == 1 ? (size_t)width_of(classes) : (size_t)bits * (classes - 1);
}

static bool is_known(const uint16_t *row, size_t n)
{
    for (size_t j = 0; row && j < n; j++)
        if (row[j])
            return true;
    return false;
}

static void put_row(struct bits *b, const uint16_t *level, size_t n, int bits)
{
    size_t largest = 0;
    if (bits == 1) {
        while (!level[largest])
            largest++;
        put(b, (unsigned)largest, width_of(n));
        return;
    }
    for (size_t j = 0; j + 1 < n; j++)
        put(b, level[j], bits);
}

size_t fst_cfd_most_bytes(size_t rows, int classes, int bits)
{
    return (1 + rows * row_bits((size_t)classes, bits) + 7) / 8;
}

size_t fst_cfd_pack(const uint16_t *level, const uint16_t *known, size_t rows, int classes, int bits, uint8_t *out)
{
    size_t n = (size_t)classes, each = row_bits(n, bits), saved = 0, marks = 0;
    struct bits b = {.out = out};
    for (size_t r = 0; known && r < rows; r++)
        if (is_known(known + r * n, n)) {
            marks++;
            saved += memcmp(level + r * n, known + r * n, n * sizeof *level) ? 0 : each;
        }
    bool delta = saved > marks;
    put(&b, delta, 1);
    for (size_t r = 0; r < rows; r++) {
        const uint16_t *row = level + r * n;
        if (delta && is_known(known + r * n, n)) {
            bool differs = memcmp(row, known + r * n, n * sizeof *row) != 0;
            put(&b, differs, 1);
            if (!differs)
                continue;
        }
        put_row(&b, row, n, bits);
    }
    return (b.at + 7) / 8;
}

static fst_status get_row(struct bits *b, uint16_t *level, size_t n, int bits, size_t row, fst_error *err)
{
    unsigned rest = (1u << bits) - 1;
    if (bits == 1) {
        unsigned largest = get(b, width_of(n));
        if (largest >= n)
            return fst_fail(err, FST_E_FORMAT, "row %zu is class %u of %zu", row, largest + 1, n);
        memset(level, 0, n * sizeof *level);
        level[largest] = 1;
        return FST_OK;
    }
    for (size_t j = 0; j + 1 < n; j++) {
        unsigned v = get(b, bits);
        if (v > rest)
            return fst_fail(err, FST_E_FORMAT, "row %zu: its levels add up to more than %u", row, (1u << bits) - 1);
        level[j] = (uint16_t)v;
        rest -= v;
    }
    level[n - 1] = (uint16_t)rest;
    return FST_OK;
}

fst_status fst_cfd_unpack(const uint8_t *data, size_t len, const uint16_t *known, size_t rows, int classes, int bits,
                          uint16_t *level, fst_error *err)
{
    size_t n = (size_t)classes;
    if (len > fst_cfd_most_bytes(rows, classes, bits))
        return fst_fail(err, FST_E_FORMAT, "%zu bytes, %zu rows of %d classes take at most %zu", len, rows, classes,
                        fst_cfd_most_bytes(rows, classes, bits));
    struct bits b = {.in = data, .end = 8 * len};
    bool delta = get(&b, 1);
    for (size_t r = 0; r < rows && b.at <= b.end; r++) {
        if (delta && known && is_known(known + r * n, n) && !get(&b, 1)) {
            memcpy(level + r * n, known + r * n, n * sizeof *level);
            continue;
        }
        fst_status st = get_row(&b, level + r * n, n, bits, r, err);
        if (st)
            return st;
    }
    if (b.at > b.end || (b.at + 7) / 8 != len)
        return fst_fail(err, FST_E_FORMAT, "%zu bytes are %s for %zu rows", len, b.at > b.end ? "too few" : "too many",
                        rows);
    if (get(&b, (int)(b.end - b.at)))
        return fst_fail(err, FST_E_FORMAT, "there is something after the last row");
    return FST_OK;
}

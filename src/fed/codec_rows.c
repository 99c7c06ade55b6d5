/* Predictions: rows x classes of logits or probabilities, coded against what the reader has of some rows. Which rows
 * those are, and what they stand for, is the caller's to know.
 *
 * Data flow of f16, int8, int4: x - base -> a span like any other -> bytes -> a span -> base + it -> probabilities
 * again. Of levels: x -> levels (src/distill/cfd.c) -> bits, packed against the levels of base -> levels -> x; its
 * body is what fst_cfd_pack writes. */
#include <math.h>
#include <string.h>

#include "codec_private.h"

/* ---- levels ---- */

static size_t levels_most(const fst_coder *c)
{
    return fst_cfd_most_bytes(c->rows, c->classes, c->codec.bits);
}

static fst_status levels_encode(fst_coder *c, const float *x, fst_rng *rng, uint8_t *out, size_t *len, fst_error *err)
{
    size_t n = (size_t)c->classes;
    (void)rng;
    for (size_t r = 0; r < c->rows; r++) {
        double mass = 0;
        for (size_t j = 0; j < n; j++) {
            if (x[r * n + j] < 0)
                return fst_fail(err, FST_E_NUMERIC, "row %zu, class %zu: %g is no probability", r, j,
                                (double)x[r * n + j]);
            mass += (double)x[r * n + j];
        }
        if (!(mass > 0))
            return fst_fail(err, FST_E_NUMERIC, "row %zu: the probabilities add up to 0", r);
    }
    fst_cfd_quantise(x, c->rows, c->classes, c->codec.bits, c->level);
    *len = fst_cfd_pack(c->level, c->known, c->rows, c->classes, c->codec.bits, out);
    return FST_OK;
}

static fst_status levels_decode(fst_coder *c, const uint8_t *data, size_t len, float *x, fst_error *err)
{
    fst_status st = fst_cfd_unpack(data, len, c->known, c->rows, c->classes, c->codec.bits, c->level, err);
    if (!st)
        fst_cfd_values(c->level, c->rows, c->classes, c->codec.bits, x);
    return st;
}

const struct fst__codec_type fst__codec_levels = {"levels", levels_most, levels_encode, levels_decode};

/* c->known becomes the levels of what the reader has. */
static void know_levels(fst_coder *c, const float *base, const bool *known)
{
    size_t n = (size_t)c->classes;
    for (size_t r = 0; r < c->rows; r++)
        if (known && known[r])
            fst_cfd_quantise(base + r * n, 1, c->classes, c->codec.bits, c->known + r * n);
        else
            memset(c->known + r * n, 0, n * sizeof *c->known);
}

/* ---- differences ---- */

static void subtract_known(fst_coder *c, const float *x, const float *base, const bool *known)
{
    size_t n = (size_t)c->classes;
    for (size_t i = 0; i < c->count; i++)
        c->value[i] = known && known[i / n] ? x[i] - base[i] : x[i];
}

static void add_known(const fst_coder *c, const float *base, const bool *known, float *x)
{
    size_t n = (size_t)c->classes;
    for (size_t i = 0; known && i < c->count; i++)
        x[i] = known[i / n] ? base[i] + x[i] : x[i];
}

/* A row of numbers that are about probabilities becomes probabilities. */
static void make_probable(float *p, size_t n)
{
    double mass = 0;
    for (size_t j = 0; j < n; j++) {
        p[j] = p[j] > 0 ? p[j] : 0;
        mass += (double)p[j];
    }
    for (size_t j = 0; j < n; j++)
        p[j] = (float)(mass > 0 ? (double)p[j] / mass : 1.0 / (double)n);
}

/* ---- both ways ---- */

static fst_status no_rows(fst_error *err)
{
    return fst_fail(err, FST_E_ARGUMENT, "the coder is not for predictions");
}

/* Room was taken for all. */
fst_status fst_coder_rows(fst_coder *c, size_t rows, fst_error *err)
{
    if (!c->rows)
        return no_rows(err);
    if (!rows || rows > c->most_rows)
        return fst_fail(err, FST_E_ARGUMENT, "%zu rows, the coder is for 1 to %zu", rows, c->most_rows);
    c->rows = c->matrices.matrix[0].rows = rows;
    c->count = c->matrices.params = rows * (size_t)c->classes;
    return FST_OK;
}

fst_status fst_coder_encode_rows(fst_coder *c, const float *x, const float *base, const bool *known, fst_rng *rng,
                                 const uint8_t **out, size_t *len, fst_error *err)
{
    if (!c->rows)
        return no_rows(err);
    if (c->codec.kind == FST_CODEC_LEVELS) {
        know_levels(c, base, known);
        return fst_coder_encode(c, x, rng, out, len, err);
    }
    subtract_known(c, x, base, known);
    return fst_coder_encode(c, c->value, rng, out, len, err);
}

fst_status fst_coder_decode_rows(fst_coder *c, const void *data, size_t len, const float *base, const bool *known,
                                 float *x, fst_error *err)
{
    bool levels = c->codec.kind == FST_CODEC_LEVELS;
    if (!c->rows)
        return no_rows(err);
    if (levels)
        know_levels(c, base, known);
    fst_status st = fst_coder_decode(c, data, len, x, err);
    if (st || levels)
        return st;
    add_known(c, base, known, x);
    for (size_t i = 0; i < c->count; i++)
        if (!isfinite(x[i]))
            return fst_fail(err, FST_E_NUMERIC, "element %zu is %g", i, (double)x[i]);
    for (size_t r = 0; c->probabilities && r < c->rows; r++)
        make_probable(x + r * (size_t)c->classes, (size_t)c->classes);
    return FST_OK;
}

/* Codecs that leave out what counts little: top_k and low_rank.
 *
 *   top_k     k, u32; with int8 values their scale, f32; the k values in rising order of their places, f32, f16 or a
 *             signed byte; then the places, a gap each: how many elements lie between it and the one before (the first:
 *             before it). A gap g is g >> b ones and a zero, then the b low bits of g, b = floor(log2(count / k)):
 *             Golomb and Rice's code, bits from the lowest of a byte on, zeros up to a whole byte.
 *   low_rank  of each matrix its rank, i16 (-1: whole), then all floats of packed_change.h, f32 or f16.
 *
 * Of elements of the same size top_k takes those that come first, and none that is 0. */
#include <math.h>
#include <string.h>

#include "codec_private.h"

/* ---- which elements ---- */

static uint32_t size_bits(float x)
{
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u & 0x7fffffffu;
}

/* The least size bits that are among the `want` largest, found half by half; *over: how many are larger. */
static uint32_t threshold(fst_coder *c, const float *x, size_t want, size_t *over)
{
    uint32_t high = 0xffffu, low = 0xffffu;
    size_t above = 0;
    memset(c->tally, 0, sizeof(uint32_t) << 16);
    for (size_t i = 0; i < c->count; i++)
        c->tally[size_bits(x[i]) >> 16]++;
    while (above + c->tally[high] < want)
        above += c->tally[high--];
    memset(c->tally, 0, sizeof(uint32_t) << 16);
    for (size_t i = 0; i < c->count; i++)
        if (size_bits(x[i]) >> 16 == high)
            c->tally[size_bits(x[i]) & 0xffffu]++;
    while (above + c->tally[low] < want)
        above += c->tally[low--];
    *over = above;
    return high << 16 | low;
}

/* c->place and c->value; returns how many. */
static size_t choose(fst_coder *c, const float *x)
{
    size_t over = 0, k = 0;
    uint32_t least = threshold(c, x, c->keep, &over);
    size_t ties = c->keep - over;
    for (size_t i = 0; i < c->count && k < c->keep; i++) {
        uint32_t size = size_bits(x[i]);
        if (!size || size < least || (size == least && !ties))
            continue;
        ties -= size == least;
        c->place[k] = (uint32_t)i;
        c->value[k++] = x[i];
    }
    return k;
}

/* ---- places ---- */

static unsigned low_bits(size_t count, size_t k)
{
    unsigned b = 0;
    while (k && count / k >> (b + 1))
        b++;
    return b;
}

static size_t put_places(const fst_coder *c, size_t k, uint8_t *out)
{
    unsigned b = low_bits(c->count, k);
    size_t at = 0, next = 0;
    for (size_t i = 0; i < k; i++) {
        size_t gap = c->place[i] - next;
        next = c->place[i] + (size_t)1;
        for (size_t bit = 0, ones = gap >> b; bit < ones + 1 + b; bit++, at++) {
            unsigned v = bit < ones ? 1 : bit == ones ? 0 : gap >> (bit - ones - 1) & 1;
            out[at / 8] = (uint8_t)(at % 8 ? out[at / 8] | v << at % 8 : v);
        }
    }
    return (at + 7) / 8;
}

struct bits {
    const uint8_t *data;
    size_t at, end;
};

/* Beyond the end: 0. */
static unsigned next_bit(struct bits *b)
{
    unsigned v = b->at < b->end ? b->data[b->at / 8] >> b->at % 8 & 1 : 0;
    b->at++;
    return v;
}

static fst_status get_places(fst_coder *c, size_t k, const uint8_t *data, size_t len, fst_error *err)
{
    struct bits s = {data, 0, 8 * len};
    unsigned b = low_bits(c->count, k);
    size_t next = 0;
    for (size_t i = 0; i < k; i++) {
        size_t gap = 0;
        while (next_bit(&s))
            gap++;
        gap <<= b;
        for (unsigned bit = 0; bit < b; bit++)
            gap |= (size_t)next_bit(&s) << bit;
        if (s.at > s.end || gap >= c->count - next)
            return fst_fail(err, FST_E_FORMAT, "place %zu of %zu is not among %zu elements", i + 1, k, c->count);
        c->place[i] = (uint32_t)(next + gap);
        next += gap + 1;
        if (next >= c->count && i + 1 < k)
            return fst_fail(err, FST_E_FORMAT, "%zu places, the last element is that of place %zu", k, i + 1);
    }
    if ((s.at + 7) / 8 != len)
        return fst_fail(err, FST_E_FORMAT, "%zu bytes of places are too many", len);
    while (s.at < s.end)
        if (next_bit(&s))
            return fst_fail(err, FST_E_FORMAT, "there is something after the last place");
    return FST_OK;
}

/* ---- top_k ---- */

static size_t value_bytes(fst_codec_values v)
{
    return v == FST_VALUES_F32 ? 4 : v == FST_VALUES_F16 ? 2 : 1;
}

/* A place takes b + 1 bits and its share of count >> b ones. */
static size_t top_k_most(const fst_coder *c)
{
    return 12 + c->keep * (value_bytes(c->codec.values) + 5);
}

static fst_status put_values(const fst_coder *c, size_t k, fst_rng *rng, uint8_t *out, size_t *len, fst_error *err)
{
    fst_codec_values v = c->codec.values;
    *len = k * value_bytes(v) + (v == FST_VALUES_INT8 ? 4 : 0);
    if (v == FST_VALUES_F16)
        return fst__put_f16(c->value, k, out, err);
    if (v == FST_VALUES_F32) {
        memcpy(out, c->value, 4 * k);
        return FST_OK;
    }
    float scale = fst__scale_of(c->value, k, 127);
    memcpy(out, &scale, 4);
    for (size_t i = 0; i < k; i++)
        out[4 + i] = (uint8_t)(int8_t)fst__whole_of(c->value[i], scale, 127, c->codec.stochastic ? rng : NULL);
    return FST_OK;
}

static fst_status get_floats(const uint8_t *data, size_t n, float *x, fst_error *err)
{
    memcpy(x, data, 4 * n);
    for (size_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return fst_fail(err, FST_E_NUMERIC, "value %zu is not finite", i);
    return FST_OK;
}

static fst_status get_values(fst_coder *c, size_t k, const uint8_t *data, fst_error *err)
{
    float scale;
    if (c->codec.values == FST_VALUES_F16)
        return fst__get_f16(data, k, c->value, err);
    if (c->codec.values == FST_VALUES_F32)
        return get_floats(data, k, c->value, err);
    fst_status st = fst__get_scale(data, &scale, err);
    for (size_t i = 0; !st && i < k; i++) {
        int q = (int8_t)data[4 + i];
        if (q < -127)
            st = fst_fail(err, FST_E_FORMAT, "value %zu is %d; -127 to 127 are allowed", i, q);
        c->value[i] = (float)((double)q * (double)scale);
    }
    return st;
}

static fst_status top_k_encode(fst_coder *c, const float *x, fst_rng *rng, uint8_t *out, size_t *len, fst_error *err)
{
    size_t k = choose(c, x), values = 0;
    uint32_t n = (uint32_t)k;
    memcpy(out, &n, 4);
    fst_status st = put_values(c, k, rng, out + 4, &values, err);
    if (!st)
        *len = 4 + values + put_places(c, k, out + 4 + values);
    return st;
}

static fst_status top_k_decode(fst_coder *c, const uint8_t *data, size_t len, float *x, fst_error *err)
{
    uint32_t k = 0;
    if (len >= 4)
        memcpy(&k, data, 4);
    if (len < 4 || k > c->keep)
        return fst_fail(err, FST_E_FORMAT, "%lu elements of at most %zu", (unsigned long)k, c->keep);
    size_t values = k * value_bytes(c->codec.values) + (c->codec.values == FST_VALUES_INT8 ? 4 : 0);
    if (len - 4 < values)
        return fst_fail(err, FST_E_FORMAT, "%zu bytes are too few for %lu values", len, (unsigned long)k);
    fst_status st = get_values(c, k, data + 4, err);
    if (!st)
        st = get_places(c, k, data + 4 + values, len - 4 - values, err);
    if (st)
        return st;
    memset(x, 0, c->count * sizeof *x);
    for (size_t i = 0; i < k; i++)
        x[c->place[i]] = c->value[i];
    return FST_OK;
}

const struct fst__codec_type fst__codec_top_k = {"top_k", top_k_most, top_k_encode, top_k_decode};

/* ---- low_rank ---- */

static size_t low_rank_most(const fst_coder *c)
{
    return 2 * c->matrices.count + value_bytes(c->codec.values) * c->count;
}

static fst_status low_rank_encode(fst_coder *c, const float *x, fst_rng *rng, uint8_t *out, size_t *len, fst_error *err)
{
    size_t head = 2 * c->matrices.count, n = fst__change_pack(&c->matrices, x, c->codec.energy, c->rank, c->value);
    (void)rng;
    for (size_t i = 0; i < c->matrices.count; i++)
        memcpy(out + 2 * i, &(int16_t){(int16_t)c->rank[i]}, 2);
    *len = head + n * value_bytes(c->codec.values);
    if (c->codec.values == FST_VALUES_F16)
        return fst__put_f16(c->value, n, out + head, err);
    memcpy(out + head, c->value, 4 * n);
    return FST_OK;
}

static fst_status low_rank_decode(fst_coder *c, const uint8_t *data, size_t len, float *x, fst_error *err)
{
    size_t head = 2 * c->matrices.count, each = value_bytes(c->codec.values);
    if (len < head || (len - head) % each || (len - head) / each > c->count)
        return fst_fail(err, FST_E_FORMAT, "%zu bytes are no packed matrices", len);
    size_t n = (len - head) / each;
    for (size_t i = 0; i < c->matrices.count; i++) {
        int16_t r;
        memcpy(&r, data + 2 * i, 2);
        c->rank[i] = r;
    }
    if (fst__change_check(&c->matrices, c->rank, n, err))
        return fst_fail_in(err, FST_E_FORMAT, "ranks");
    fst_status st = c->codec.values == FST_VALUES_F16 ? fst__get_f16(data + head, n, c->value, err)
                                                      : get_floats(data + head, n, c->value, err);
    if (!st)
        fst__change_unpack(&c->matrices, c->rank, c->value, x);
    return st;
}

const struct fst__codec_type fst__codec_low_rank = {"low_rank", low_rank_most, low_rank_encode, low_rank_decode};

/* Philox4x32-10 and the distributions drawn from it. */
#include <math.h>
#include <string.h>

#include "fedstill/base.h"

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(FST_NO_MULTIVERSION)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

enum { LANES = 16 }; /* blocks that are made side by side */

void fst_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t p0 = (uint64_t)0xD2511F53u * c0;
        uint64_t p1 = (uint64_t)0xCD9E8D57u * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

/* FNV-1a of the purpose, then SplitMix64's finaliser over it and the index: 64 bits that name the
 * stream and sit in the upper half of Philox' counter, the lower half counting blocks. */
static uint64_t stream_name(const char *purpose, uint64_t index)
{
    uint64_t h = 0xCBF29CE484222325u;
    for (const unsigned char *p = (const unsigned char *)purpose; *p; p++)
        h = (h ^ *p) * 0x100000001B3u;
    uint64_t z = h + (index + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

void fst_rng_init(fst_rng *r, uint64_t seed, const char *purpose, uint64_t index)
{
    uint64_t name = stream_name(purpose, index);
    memset(r, 0, sizeof *r);
    r->key[0] = (uint32_t)seed;
    r->key[1] = (uint32_t)(seed >> 32);
    r->counter[2] = (uint32_t)name;
    r->counter[3] = (uint32_t)(name >> 32);
    r->used = 4;
}

uint32_t fst_rng_u32(fst_rng *r)
{
    if (r->used == 4) {
        fst_philox(r->counter, r->key, r->block);
        if (++r->counter[0] == 0)
            r->counter[1]++;
        r->used = 0;
    }
    return r->block[r->used++];
}

/* LANES blocks, the first of that counter: fst_philox, with vectors for words. */
CLONES static void blocks(const uint32_t counter[4], const uint32_t key[2], uint32_t *restrict out)
{
    uint32_t c0[LANES], c1[LANES], c2[LANES], c3[LANES], k0 = key[0], k1 = key[1];
    for (uint32_t i = 0; i < LANES; i++) {
        c0[i] = counter[0] + i;
        c1[i] = counter[1];
        c2[i] = counter[2];
        c3[i] = counter[3];
    }
    for (int round = 0; round < 10; round++) {
        for (int i = 0; i < LANES; i++) {
            uint64_t p0 = (uint64_t)0xD2511F53u * c0[i], p1 = (uint64_t)0xCD9E8D57u * c2[i];
            c0[i] = (uint32_t)(p1 >> 32) ^ c1[i] ^ k0;
            c1[i] = (uint32_t)p1;
            c2[i] = (uint32_t)(p0 >> 32) ^ c3[i] ^ k1;
            c3[i] = (uint32_t)p0;
        }
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (size_t i = 0; i < LANES; i++) {
        out[4 * i] = c0[i];
        out[4 * i + 1] = c1[i];
        out[4 * i + 2] = c2[i];
        out[4 * i + 3] = c3[i];
    }
}

void fst_rng_fill(fst_rng *r, uint32_t *out, size_t n)
{
    size_t i = 0;
    while (i < n) {
        bool whole = r->used == 4 && n - i >= 4 * LANES && r->counter[0] <= UINT32_MAX - LANES;
        if (!whole) {
            out[i++] = fst_rng_u32(r);
            continue;
        }
        blocks(r->counter, r->key, out + i);
        r->counter[0] += LANES;
        i += 4 * LANES;
    }
}

uint64_t fst_rng_u64(fst_rng *r)
{
    uint64_t lo = fst_rng_u32(r);
    return lo | (uint64_t)fst_rng_u32(r) << 32;
}

double fst_rng_uniform(fst_rng *r)
{
    return (double)(fst_rng_u64(r) >> 11) * 0x1p-53;
}

double fst_rng_normal(fst_rng *r)
{
    double u = 1.0 - fst_rng_uniform(r); /* (0, 1]: the logarithm is finite */
    double v = fst_rng_uniform(r);
    return sqrt(-2.0 * log(u)) * cos(6.283185307179586477 * v);
}

double fst_rng_gamma(fst_rng *r, double shape)
{
    if (shape < 1.0) {
        double u = 1.0 - fst_rng_uniform(r);
        return fst_rng_gamma(r, shape + 1.0) * pow(u, 1.0 / shape);
    }
    double d = shape - 1.0 / 3.0, c = 1.0 / sqrt(9.0 * d);
    for (;;) {
        double x = fst_rng_normal(r), v = 1.0 + c * x;
        if (v <= 0)
            continue;
        v = v * v * v;
        double u = 1.0 - fst_rng_uniform(r);
        if (log(u) < 0.5 * x * x + d - d * v + d * log(v))
            return d * v;
    }
}

uint64_t fst_rng_below(fst_rng *r, uint64_t n)
{
    /* Lemire 2019: multiply, and reject the few values that would favour some results. */
    unsigned __int128 m = (unsigned __int128)fst_rng_u64(r) * n;
    if ((uint64_t)m < n) {
        uint64_t floor = (0 - n) % n;
        while ((uint64_t)m < floor)
            m = (unsigned __int128)fst_rng_u64(r) * n;
    }
    return (uint64_t)(m >> 64);
}

void fst_rng_shuffle_u32(fst_rng *r, uint32_t *a, size_t n)
{
    for (size_t i = n; i > 1; i--) {
        size_t j = (size_t)fst_rng_below(r, i);
        uint32_t t = a[i - 1];
        a[i - 1] = a[j];
        a[j] = t;
    }
}

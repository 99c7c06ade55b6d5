/* bytes.h - numbers in little-endian bytes, and digests as bytes. */
#ifndef FST_TRANSPORT_BYTES_H
#define FST_TRANSPORT_BYTES_H

#include <stdint.h>

#include "fedstill/base.h"

static inline void fst__put16(unsigned char *p, uint16_t x)
{
    p[0] = (unsigned char)x;
    p[1] = (unsigned char)(x >> 8);
}

static inline void fst__put32(unsigned char *p, uint32_t x)
{
    fst__put16(p, (uint16_t)x);
    fst__put16(p + 2, (uint16_t)(x >> 16));
}

static inline void fst__put64(unsigned char *p, uint64_t x)
{
    fst__put32(p, (uint32_t)x);
    fst__put32(p + 4, (uint32_t)(x >> 32));
}

static inline uint16_t fst__get16(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t fst__get32(const unsigned char *p)
{
    return fst__get16(p) | (uint32_t)fst__get16(p + 2) << 16;
}

static inline uint64_t fst__get64(const unsigned char *p)
{
    return fst__get32(p) | (uint64_t)fst__get32(p + 4) << 32;
}

enum { FST__DIGEST_BYTES = 32 };

static inline int fst__digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* False unless hex is 64 digits. */
static inline bool fst__digest_bytes(const char *hex, unsigned char out[FST__DIGEST_BYTES])
{
    for (int i = 0; i < FST__DIGEST_BYTES; i++) {
        int a = fst__digit(hex[2 * i]), b = a < 0 ? -1 : fst__digit(hex[2 * i + 1]);
        if (a < 0 || b < 0)
            return false;
        out[i] = (unsigned char)(a << 4 | b);
    }
    return hex[2 * FST__DIGEST_BYTES] == 0;
}

static inline void fst__digest_hex(const unsigned char in[FST__DIGEST_BYTES], char out[FST_DIGEST_HEX])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < FST__DIGEST_BYTES; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
    out[2 * FST__DIGEST_BYTES] = 0;
}

#endif

/* Hashes: XXH3 for keys, SHA-256 (libsodium, whole blocks by the processor where it can) for digests. */
#include <errno.h>
#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "fedstill/base.h"
#include "sha256.h"

fst_hash128 fst_hash(const void *data, size_t len, uint64_t seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(data, len, seed);
    return (fst_hash128){h.low64, h.high64};
}

_Static_assert(sizeof(crypto_hash_sha256_state) <= sizeof(((fst_sha256 *)0)->opaque), "state fits");

void fst_sha256_init(fst_sha256 *s)
{
    crypto_hash_sha256_init((crypto_hash_sha256_state *)(void *)s->opaque);
}

void fst_sha256_update(fst_sha256 *s, const void *data, size_t len)
{
    crypto_hash_sha256_state *state = (crypto_hash_sha256_state *)(void *)s->opaque;
    const unsigned char *at = data;
    enum { BLOCK = 64 };
    size_t held = (size_t)(state->count / 8 % BLOCK), first = held ? BLOCK - held : 0; /* it counts bits */
    if (len >= first + BLOCK && fst__sha256_is_fast()) {
        size_t blocks = (len - first) / BLOCK;
        crypto_hash_sha256_update(state, at, first);
        fst__sha256_blocks(state->state, at + first, blocks);
        state->count += (uint64_t)blocks * BLOCK * 8;
        at += first + blocks * BLOCK;
        len -= first + blocks * BLOCK;
    }
    crypto_hash_sha256_update(state, at, len);
}

void fst_sha256_final(fst_sha256 *s, char hex[FST_DIGEST_HEX])
{
    unsigned char raw[crypto_hash_sha256_BYTES];
    crypto_hash_sha256_final((crypto_hash_sha256_state *)(void *)s->opaque, raw);
    for (size_t i = 0; i < sizeof raw; i++)
        snprintf(hex + 2 * i, 3, "%02x", raw[i]);
}

fst_status fst_sha256_file(const char *path, char hex[FST_DIGEST_HEX], fst_error *err)
{
    unsigned char block[65536];
    fst_sha256 s;
    ssize_t n;
    int fd = -1;
    fst_status opened = fst_file_open(&fd, path, err);
    if (opened)
        return opened;
    fst_sha256_init(&s);
    while ((n = read(fd, block, sizeof block)) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            fst_status st = fst_fail_errno(err, "%s", path);
            close(fd);
            return st;
        }
        fst_sha256_update(&s, block, (size_t)n);
    }
    close(fd);
    fst_sha256_final(&s, hex);
    return FST_OK;
}

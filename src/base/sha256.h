/* sha256.h - whole blocks of SHA-256 by the processor's own instructions. libsodium's code for every processor needs
 * four to eight times as long, and digests of data are most of what a run does before it begins. */
#ifndef FST_BASE_SHA256_H
#define FST_BASE_SHA256_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Does this processor have them? */
bool fst__sha256_is_fast(void);
/* Only where it does: the state after so many more blocks of 64 bytes. */
void fst__sha256_blocks(uint32_t state[8], const unsigned char *data, size_t blocks);

#endif

/* CFD's labels as they come over the wire, packed against rows that both sides have: what is accepted is levels that
 * add up, packs to no more bytes than it came as, and comes back the same. */
#include <stdlib.h>
#include <string.h>

#include "fedstill/distill.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

enum {
    HEAD = 4,
    MOST_ROWS = 64,
    MOST_CLASSES = 32,
    MOST_BYTES = (1 + MOST_ROWS * MOST_CLASSES * FST_CFD_MAX_BITS) / 8
};

static void must(bool fine)
{
    if (!fine)
        abort();
}

/* Rows that are known, with levels that add up: every `every`-th has all of them in one class. */
static void make_known(size_t rows, size_t classes, int bits, size_t every, uint16_t *known)
{
    memset(known, 0, rows * classes * sizeof *known);
    for (size_t r = 0; every && r < rows; r += every)
        known[r * classes + r % classes] = (uint16_t)((1u << bits) - 1);
}

static void check(const uint16_t *level, const uint16_t *known, size_t rows, int classes, int bits, size_t size)
{
    static uint16_t again[MOST_ROWS * MOST_CLASSES];
    static uint8_t packed[MOST_BYTES + 8];
    size_t n = (size_t)classes;
    for (size_t r = 0; r < rows; r++) {
        unsigned sum = 0;
        for (size_t j = 0; j < n; j++)
            sum += level[r * n + j];
        must(sum == (1u << bits) - 1);
    }
    size_t len = fst_cfd_pack(level, known, rows, classes, bits, packed);
    must(len <= size && len <= fst_cfd_most_bytes(rows, classes, bits));
    must(!fst_cfd_unpack(packed, len, known, rows, classes, bits, again, NULL));
    must(!memcmp(level, again, rows * n * sizeof *level));
}

/* The first four bytes say rows, classes, bits, and which rows are known; the labels follow. */
int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static uint16_t known[MOST_ROWS * MOST_CLASSES];
    fst_error err = {0};
    if (size < HEAD)
        return 0;
    size_t rows = data[0] % (MOST_ROWS + 1), len = size - HEAD;
    int classes = data[1] % MOST_CLASSES + 1, bits = data[2] % FST_CFD_MAX_BITS + 1;
    uint16_t *level = malloc((rows * (size_t)classes + 1) * sizeof *level); /* exact, so that a sanitizer sees more */
    if (!level)
        return 0;
    make_known(rows, (size_t)classes, bits, data[3], known);
    const uint16_t *its = data[3] ? known : NULL;
    fst_status st = fst_cfd_unpack(data + HEAD, len, its, rows, classes, bits, level, &err);
    must(st ? st == FST_E_FORMAT && err.message[0] : true);
    if (!st)
        check(level, its, rows, classes, bits, len);
    free(level);
    return 0;
}

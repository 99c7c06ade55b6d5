/* Coded predictions as they come over the wire, against rows that both sides have: what is accepted is finite, of
 * probabilities adds up to 1, and as levels comes back the same once it is coded again. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/codec.h"
#include "fedstill/distill.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

enum { HEAD = 4, ROWS = 24, CLASSES = 9 };

static void must(bool fine)
{
    if (!fine)
        abort();
}

/* The first byte says which codec, the next whether zstd is agreed on, scales, and what the rows are, then bits. */
static fst_codec codec_of(const unsigned char *data)
{
    static const fst_codec_kind kinds[] = {FST_CODEC_F16, FST_CODEC_INT8, FST_CODEC_INT4, FST_CODEC_LEVELS};
    return (fst_codec){.kind = kinds[data[0] % 4],
                       .zstd = data[1] & 1,
                       .per_channel = data[1] & 2,
                       .bits = 1 + data[2] % FST_CFD_MAX_BITS};
}

/* Every `every`-th row is known, and sure of a class. */
static void make_base(size_t rows, int classes, size_t every, float *base, bool *known)
{
    memset(base, 0, rows * (size_t)classes * sizeof *base);
    for (size_t r = 0; r < rows; r++) {
        known[r] = every && r % every == 0;
        if (known[r])
            base[r * (size_t)classes + r % (size_t)classes] = 1;
    }
}

static void check_probable(const float *p, size_t rows, int classes)
{
    for (size_t r = 0; r < rows; r++) {
        double mass = 0;
        for (int j = 0; j < classes; j++) {
            must(*p >= 0);
            mass += (double)*p++;
        }
        must(fabs(mass - 1) < 1e-5);
    }
}

static void again(fst_coder *c, const float *x, const float *base, const bool *known)
{
    static unsigned char copy[8 * ROWS * CLASSES + 64];
    static float y[ROWS * CLASSES];
    const uint8_t *bytes = NULL;
    size_t len = 0;
    must(!fst_coder_encode_rows(c, x, base, known, NULL, &bytes, &len, NULL));
    must(len <= fst_coder_most(c) && len <= sizeof copy);
    must(!fst_coder_decode_rows(c, memcpy(copy, bytes, len), len, base, known, y, NULL));
    must(!memcmp(x, y, fst_coder_count(c) * sizeof *x));
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    static float x[ROWS * CLASSES], base[ROWS * CLASSES];
    static bool known[ROWS];
    fst_coder *c = NULL;
    fst_error err = {0};
    if (size < HEAD)
        return 0;
    const fst_codec codec = codec_of(data);
    bool levels = codec.kind == FST_CODEC_LEVELS, probabilities = levels || data[1] & 4;
    size_t rows = 1 + data[3] % ROWS, len = size - HEAD;
    int classes = 1 + data[3] / ROWS % CLASSES;
    make_base(rows, classes, data[1] / 8 % 4, base, known);
    must(!fst_coder_new_predictions(&c, &codec, rows, classes, probabilities, &err));
    unsigned char *exact = malloc(len ? len : 1); /* so that a sanitizer sees what is read beyond */
    must(exact);
    memcpy(exact, data + HEAD, len);
    uint64_t before = fst_alloc_count();
    fst_status st = fst_coder_decode_rows(c, exact, len, base, known, x, &err);
    must(fst_alloc_count() == before);
    must(st ? (st == FST_E_FORMAT || st == FST_E_NUMERIC) && err.message[0] : true);
    for (size_t i = 0; !st && i < fst_coder_count(c); i++)
        must(isfinite(x[i]));
    if (!st && probabilities)
        check_probable(x, rows, classes);
    if (!st && levels)
        again(c, x, base, known);
    free(exact);
    fst_coder_free(c);
    return 0;
}

/* codec_private.h - the inside of a coder, shared by its frame (codec.c) and what each kind writes into it. */
#ifndef FST_FED_CODEC_PRIVATE_H
#define FST_FED_CODEC_PRIVATE_H

#include <zstd.h>

#include "fedstill/codec.h"
#include "fedstill/distill.h"
#include "packed_change.h"

struct fst_coder {
    fst_codec codec;
    struct fst__matrices matrices; /* of the span, one after the other */
    size_t count;                  /* floats */
    size_t most;                   /* bytes of a body at most */
    uint8_t *body;                 /* 1 + most: a mark, then what a kind writes, or what zstd gave back */
    uint8_t *packed;               /* 1 + ZSTD_compressBound(most); NULL without zstd */
    size_t packed_room;
    ZSTD_CCtx *press;
    ZSTD_DCtx *unpress;
    size_t keep;     /* top_k: elements at most */
    uint32_t *tally; /* top_k: 1 << 16 */
    uint32_t *place; /* top_k: [keep], rising */
    float *value;    /* top_k: [keep]; low_rank and predictions: [count] */
    int32_t *rank;   /* low_rank: by matrix */
    size_t rows;     /* of predictions; 0: it is for something else */
    size_t most_rows;
    int classes;
    bool probabilities;
    uint16_t *level, *known; /* levels: [count]; known: zeros in rows that the reader has not */
};

/* Each writes a body to `out`, of at most c->most bytes, and reads one back, all of whose bytes must be used. */
struct fst__codec_type {
    const char *name;
    size_t (*most)(const fst_coder *c);
    fst_status (*encode)(fst_coder *c, const float *x, fst_rng *rng, uint8_t *out, size_t *len, fst_error *err);
    fst_status (*decode)(fst_coder *c, const uint8_t *data, size_t len, float *x, fst_error *err);
};
extern const struct fst__codec_type fst__codec_f16, fst__codec_int8, fst__codec_int4, fst__codec_top_k,
    fst__codec_low_rank, fst__codec_levels;

/* ---- codec_whole.c: floats as half precision, as whole numbers ---- */
FST_MUST fst_status fst__put_f16(const float *x, size_t n, uint8_t *out, fst_error *err);
/* 2 n bytes; FST_E_NUMERIC: one is not finite. */
FST_MUST fst_status fst__get_f16(const uint8_t *data, size_t n, float *x, fst_error *err);
/* The scale that makes the largest of n floats `most`, and one of them in it. rng NULL: to the nearest. */
float fst__scale_of(const float *x, size_t n, int most);
int fst__whole_of(float x, float scale, int most, fst_rng *rng);
/* FST_E_FORMAT: negative or not finite. */
FST_MUST fst_status fst__get_scale(const uint8_t *data, float *scale, fst_error *err);

#endif

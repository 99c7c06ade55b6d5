/*
 * fedstill/codec.h - what server and clients send each other in fewer bytes.
 *
 * A codec turns a span of floats into bytes and back, with loss. Whoever codes also decodes, and goes on with what
 * the reader will have: the decoded value is the truth, and what is lost is added to what is sent next (feedback).
 *
 *   up    a client codes the change of the model, its own minus the one that it was sent; the server adds what it
 *         decodes to that model. What was lost, the residual, is the client's, and kept with what else it keeps.
 *   down  the server codes the shared model, or its change; what comes out is the shared model from then on, for
 *         itself too: it is evaluated, published and saved. What was lost is the server's.
 *
 * Of strategies whose clients send what their models say of public samples (predictions), or a row of numbers for each
 * label (statistics), it is the same with other words: up goes how a client's rows differ from those that were shared
 * last, for samples or labels that are in both, and down go those that are shared. They are made anew in every round,
 * so nothing that was lost is added to the next.
 *
 * Running statistics, counters and whatever else a strategy sends are never coded. docs/protocol.md has every byte.
 */
#ifndef FEDSTILL_CODEC_H
#define FEDSTILL_CODEC_H

#include "fedstill/nn.h"

FST_BEGIN_DECLS

typedef enum fst_codec_kind {
    FST_CODEC_NONE,     /* as it is */
    FST_CODEC_F16,      /* half precision; |x| >= 65520 is refused */
    FST_CODEC_INT8,     /* -127 ... 127 times a scale */
    FST_CODEC_INT4,     /* -7 ... 7 times a scale */
    FST_CODEC_TOP_K,    /* the elements of largest size, and where they stand */
    FST_CODEC_LOW_RANK, /* each matrix as the product of two thin ones (FedKD's, fed/packed_change.h) */
    FST_CODEC_LEVELS /* probabilities as whole levels of `bits` bits, which add up to 2^bits - 1 (CFD's, distill.h) */
} fst_codec_kind;
/* "none", "f16", ... */
FST_API const char *fst_codec_name(fst_codec_kind kind);

/* How top_k and low_rank write their floats. */
typedef enum fst_codec_values { FST_VALUES_F32, FST_VALUES_F16, FST_VALUES_INT8 } fst_codec_values;

/* One direction. Zeroes: nothing is coded. */
typedef struct fst_codec {
    fst_codec_kind kind;
    fst_codec_values values; /* top_k; low_rank: not int8 */
    double share;            /* top_k: of the elements, 0 < share <= 1 */
    double energy;           /* low_rank: of a matrix' squared singular values, 0 < energy <= 1 */
    int bits;                /* levels: 1 ... FST_CFD_MAX_BITS; 1: the most likely class alone */
    bool per_channel;        /* int8, int4: a scale for each output channel, of predictions for each sample; else for
                              * each parameter of the network, of predictions for all */
    bool stochastic;         /* whole numbers: rounded up with the probability of what is over, by a stream of the
                              * round; else to the nearest, ties to the even one */
    bool feedback;           /* what is lost is added to what is sent next */
    bool zstd;               /* where it makes the bytes fewer */
    bool change;             /* down: the change, for clients that have the model before; whole for others */
} fst_codec;
typedef struct fst_codecs {
    fst_codec up, down;
} fst_codecs;

/* Whether such a codec makes sense by itself: FST_E_CONFIG. */
FST_MUST FST_API fst_status fst_codec_check(const fst_codec *c, fst_error *err);

/* ---- spans ---------------------------------------------------------------------------------- */

/* Codes and decodes spans of one length. All memory is taken when it is made. Not for several threads at once. */
typedef struct fst_coder fst_coder;
/* For the parameters of a network: int8 and int4 have scales of each, low_rank takes each apart. levels: FST_E_CONFIG.
 */
FST_MUST FST_API fst_status fst_coder_new(fst_coder **out, const fst_codec *codec, const fst_graph *graph,
                                          fst_error *err);
/* For rows x columns floats, as one matrix. */
FST_MUST FST_API fst_status fst_coder_new_matrix(fst_coder **out, const fst_codec *codec, size_t rows, size_t columns,
                                                 fst_error *err);
FST_API void fst_coder_free(fst_coder *c);
/* Floats of a span. */
FST_API size_t fst_coder_count(const fst_coder *c);
/* The most bytes that a span becomes. */
FST_API size_t fst_coder_most(const fst_coder *c);
/* *out is the coder's and lives until its next call. rng: of stochastic rounding, may be NULL otherwise.
 * FST_E_NUMERIC: NaN, infinity, or too large for half precision. */
FST_MUST FST_API fst_status fst_coder_encode(fst_coder *c, const float *x, fst_rng *rng, const uint8_t **out,
                                             size_t *len, fst_error *err);
/* Believes nothing. FST_E_FORMAT: another length than such a span can have, an index out of range or twice, a scale
 * that is negative or no number, a rank that cannot be, anything after the end. FST_E_NUMERIC: values that are not
 * finite. Allocates nothing. x is undefined after a failure. */
FST_MUST FST_API fst_status fst_coder_decode(fst_coder *c, const void *data, size_t len, float *x, fst_error *err);

/* ---- predictions ---------------------------------------------------------------------------- */

/* For rows x classes floats, a row a sample: logits, or probabilities, whose rows add up to 1. f16, int8 and int4, with
 * probabilities also levels; others are FST_E_CONFIG. */
FST_MUST FST_API fst_status fst_coder_new_predictions(fst_coder **out, const fst_codec *codec, size_t rows, int classes,
                                                      bool probabilities, fst_error *err);
/* From now on spans have so many rows, at most those that the coder was made for; FST_E_ARGUMENT. */
FST_MUST FST_API fst_status fst_coder_rows(fst_coder *c, size_t rows, fst_error *err);
/*
 * Delta coding. base (rows x classes) is what the reader has already for the rows that `known` (rows) says; both NULL:
 * nothing. f16, int8 and int4 code the difference, of other rows the value itself; levels tells for each row that is
 * known whether it is the same, and only sends one that differs, where that is fewer bytes.
 *
 * What is decoded of probabilities are probabilities: below 0 becomes 0, then each row is divided by its sum; a row of
 * which nothing is left says the same of all classes. Otherwise as fst_coder_encode and fst_coder_decode.
 */
FST_MUST FST_API fst_status fst_coder_encode_rows(fst_coder *c, const float *x, const float *base, const bool *known,
                                                  fst_rng *rng, const uint8_t **out, size_t *len, fst_error *err);
FST_MUST FST_API fst_status fst_coder_decode_rows(fst_coder *c, const void *data, size_t len, const float *base,
                                                  const bool *known, float *x, fst_error *err);

FST_END_DECLS

#endif

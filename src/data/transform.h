/* transform.h - what the loader does to one sample: raw elements to normalised floats, with or without a
 * random crop and flip. Private to src/data. */
#ifndef FEDSTILL_DATA_TRANSFORM_H
#define FEDSTILL_DATA_TRANSFORM_H

#include "fedstill/data.h"

typedef struct fst__transformer {
    fst_dtype dtype;
    size_t elements;
    size_t channels, plane;      /* normalisation: `channels` runs of `plane` elements */
    size_t depth, height, width; /* of 3-D samples: for crop and flip */
    int crop_padding;
    bool flip;
    bool fingerprint;
    const float *table; /* u8: 256 floats a channel; fingerprint: window, turns, amplitudes */
    float mean[FST_MAX_CHANNELS], std[FST_MAX_CHANNELS];
} fst__transformer;

/* Checks t against the source's samples. */
FST_MUST fst_status fst__transformer_init(fst__transformer *out, const fst_transform *t, const fst_source *s,
                                          fst_error *err);
/* Floats that the table needs (0: none), and filling it; `table` is kept. */
size_t fst__transformer_table(const fst__transformer *t);
void fst__transformer_fill(fst__transformer *t, float *table);
/* fingerprint.c: of n complex samples; the table has so many floats. */
FST_MUST fst_status fst__fingerprint_check(const fst_source *s, fst_error *err);
size_t fst__fingerprint_table(size_t n);
void fst__fingerprint_fill(float *table, size_t n);
void fst__fingerprint_apply(const float *table, size_t n, const float *raw, float *dst);
/* Without augmentation it would leave floats as they are. */
bool fst__transformer_copies(const fst__transformer *t);
/* rng NULL: no augmentation. */
void fst__transformer_apply(const fst__transformer *t, const void *raw, float *dst, fst_rng *rng);

/* source.c: what fst_source_key hashes a sample's raw bytes with: its dtype and shape. */
uint64_t fst__source_kind(const fst_source *s);

#endif

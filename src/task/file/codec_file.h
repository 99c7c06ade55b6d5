/* Settings of the codecs of a federated stage: what is sent in fewer bytes, up and down. */
#ifndef FST_TASK_CODEC_FILE_H
#define FST_TASK_CODEC_FILE_H

#include "fedstill/codec.h"
#include "schema.h"

struct codec_section {
    int kind;     /* fst_codec_kind */
    int values;   /* fst_codec_values */
    int scale;    /* 0 parameter, 1 channel */
    int rounding; /* 0 nearest, 1 stochastic */
    double share, energy;
    int64_t bits;
    bool feedback, zstd, change;
};
struct codecs_section {
    struct codec_section up, down;
};
extern const fst__schema fst__codecs_schema;

fst_codecs fst__codecs_of(const struct codecs_section *c);

#endif

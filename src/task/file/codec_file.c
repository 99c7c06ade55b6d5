/* The tables of codecs. Which strategies can have them is theirs to say (fst_codecs_check). */
#include <stdio.h>

#include "codec_file.h"
#include "fedstill/distill.h"

static const char *const kinds[] = {"none", "f16", "int8", "int4", "top_k", "low_rank", "levels", NULL};
static const char *const values[] = {"f32", "f16", "int8", NULL};
static const char *const scales[] = {"parameter", "channel", NULL};
static const char *const roundings[] = {"nearest", "stochastic", NULL};

#define CODED FST__WITH("kind", "f16", "int8", "int4", "top_k", "low_rank", "levels")
#define LOSING FST__WITH("kind", "f16", "int8", "int4", "top_k", "low_rank")
/* Strategies that send rows, of which nothing is lost for good: the next ones are made anew. */
#define ADDED FST__WITHOUT("strategy", "fedmd", "dsfl", "fd", "fedproto")
#define CODEC_FIELDS                                                                                                 \
    FST__F_ENUM(struct codec_section, kind, kinds, "none",                                                           \
                "f16: half precision; int8, int4: whole numbers times a scale; top_k: the largest elements; "        \
                "low_rank: matrices as products of thin ones; levels: probabilities of few bits"),                   \
        FST__F_ABOVE(struct codec_section, share, 0, 1, "0.01", "of the elements that are sent",                     \
                     .when = {FST__WITH("kind", "top_k")}),                                                          \
        FST__F_DOUBLE(struct codec_section, energy, 0.01, 1, "0.9",                                                  \
                      "of a matrix' squared singular values that is sent", .when = {FST__WITH("kind", "low_rank")}), \
        FST__F_INT(struct codec_section, bits, 1, FST_CFD_MAX_BITS, "8",                                             \
                   "of a probability; 1: the most likely class alone", .when = {FST__WITH("kind", "levels")}),       \
        FST__F_ENUM(struct codec_section, values, values, "f16", "what is sent; int8: with top_k alone",             \
                    .when = {FST__WITH("kind", "top_k", "low_rank")}),                                               \
        FST__F_ENUM(struct codec_section, scale, scales, "parameter",                                                \
                    "one for each parameter of the network, or for each output channel of one; of "                  \
                    "predictions and statistics one for all, or for each sample or label",                           \
                    .when = {FST__WITH("kind", "int8", "int4")}),                                                    \
        FST__F_ENUM(struct codec_section, rounding, roundings, "nearest",                                            \
                    "of whole numbers: to the nearest, or up with the probability of what is over",                  \
                    .when = {FST__WITH("kind", "int8", "int4", "top_k")}),                                           \
        FST__F_BOOL(struct codec_section, feedback, "true", "what is lost is added to what is sent next",            \
                    .when = {LOSING, ADDED}),                                                                        \
        FST__F_BOOL(struct codec_section, zstd, "true", "pack the bytes once more, where that makes them fewer",     \
                    .when = {CODED})

static const fst__field up_fields[] = {CODEC_FIELDS};
static const fst__field down_fields[] = {
    CODEC_FIELDS,
    FST__F_BOOL(struct codec_section, change, "false",
                "the change since the last round, for clients that took part in it; others get all of it, not "
                "coded; needed for top_k and low_rank",
                .when = {CODED}),
};

static fst_codec codec_of(const struct codec_section *c)
{
    return (fst_codec){.kind = (fst_codec_kind)c->kind,
                       .values = (fst_codec_values)c->values,
                       .share = c->share,
                       .energy = c->energy,
                       .bits = (int)c->bits,
                       .per_channel = c->scale == 1,
                       .stochastic = c->rounding == 1,
                       .feedback = c->feedback,
                       .zstd = c->zstd,
                       .change = c->change};
}

fst_codecs fst__codecs_of(const struct codecs_section *c)
{
    return (fst_codecs){codec_of(&c->up), codec_of(&c->down)};
}

static bool check(const void *object, fst__complaint *c)
{
    const struct codec_section *s = object;
    const fst_codec codec = codec_of(s);
    fst_error err;
    if (fst_codec_check(&codec, &err)) {
        c->key = "values";
        snprintf(c->text, sizeof c->text, "%.200s", err.message);
        return false;
    }
    if (codec.kind == FST_CODEC_TOP_K && codec.stochastic && codec.values != FST_VALUES_INT8) {
        c->key = "rounding";
        snprintf(c->text, sizeof c->text, "has no effect: values are not int8");
        return false;
    }
    return true;
}

static const fst__schema up_schema = FST__SCHEMA(struct codec_section, up_fields, .shorthand = "kind", .check = check);
static const fst__schema down_schema =
    FST__SCHEMA(struct codec_section, down_fields, .shorthand = "kind", .check = check);
static const fst__field fields[] = {
    FST__F_MAP(
        struct codecs_section, up, &up_schema,
        "what clients send: the change of the model in their training, or of predictions and statistics what differs "
        "from those that were shared last"),
    FST__F_MAP(struct codecs_section, down, &down_schema,
               "the shared model, predictions or statistics; what comes out of the bytes is what is shared from then "
               "on, at the "
               "server too"),
};
const fst__schema fst__codecs_schema = FST__SCHEMA(struct codecs_section, fields);

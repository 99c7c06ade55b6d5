/* coded.h - codecs between the two halves of a strategy: what a message's tensors become on their way. coded.c has
 * those of a model, and whatever both kinds do; coded_rows.c those of rows: predictions and statistics.
 *
 * A coded tensor takes the place of the one that it stands for, with the codec's name after a colon: "params:int8", a
 * span of bytes. On the way up it is the change of what was sent down under that name ("params"), or the tensor itself
 * ("control"). On the way down it is the shared model, "params:int8", or its step, "step:int8" beside "version", which
 * counts the steps; then a client that has not the version before gets "params" as they are. Rows ("logits",
 * "probabilities", "mean", "prototypes") are named likewise. Their base, either way, is what was shared last, for
 * samples or labels that are in both: that goes down in every round, so both sides have it whatever the client has
 * kept. */
#ifndef FST_FED_CODED_H
#define FST_FED_CODED_H

#include "fed_private.h"
#include "fedstill/codec.h"

enum { FST__CODED = 2 }; /* tensors of an update, at most */

/* ---- names and tensors ---- */

/* "params:int8" */
const char *fst__coded_name(const char *tensor, const fst_codec *codec, char out[FST_MESSAGE_NAME]);
/* The tensor of that name in m, to be replaced; NULL: there is none. */
fst_message_tensor *fst__coded_find(fst_message *m, const char *name);
/* Replaces *t by a span of bytes. */
void fst__coded_put_bytes(fst_message_tensor *t, const char *name, size_t len, const void *data);
/* The bytes of such a tensor: FST_E_MISMATCH. */
FST_MUST fst_status fst__coded_get_bytes(const fst_message *m, const char *name, const void **data, size_t *len,
                                         fst_error *err);
bool fst__codec_equal(const fst_codec *a, const fst_codec *b);

/* ---- the server's ---- */

struct fst__coded_server;
/* *out stays NULL without codecs. */
FST_MUST fst_status fst__coded_server_new(struct fst__coded_server **out, const fst_strategy *s, fst_error *err);
void fst__coded_server_free(struct fst__coded_server *c);
/* Whether what is shared is coded, and aggregating must be followed by `publish`. */
bool fst__coded_publishes(const struct fst__coded_server *c);
/* A round opens; before the first one what is shared becomes what can be sent. A failure is that of `down`. */
void fst__coded_begin(struct fst__coded_server *c, const fst_strategy *s);
/* Codes what the strategy's step made of `before`, and puts what is decoded in its place. After a failure it must be
 * loaded. before: the model; NULL with rows. *norm, of the strategy's step, becomes that of what is shared. */
FST_MUST fst_status fst__coded_publish(struct fst__coded_server *c, const fst_strategy *s, const float *before,
                                       double *norm, fst_error *err);
/* m: the strategy's message for the client, whose model is replaced. */
FST_MUST fst_status fst__coded_down(const struct fst__coded_server *c, uint32_t client, fst_message *m, fst_error *err);
/* m, an update, becomes what it says; the views are c's until the next call. FST_E_MISMATCH, FST_E_NUMERIC. */
FST_MUST fst_status fst__coded_read(struct fst__coded_server *c, const fst_strategy *s, fst_message *m, fst_error *err);
/* Bytes of a message of either way, had nothing been coded. */
uint64_t fst__coded_raw_bytes(const struct fst__coded_server *c, const fst_message *m);
/* It counts. */
void fst__coded_folded(struct fst__coded_server *c, uint32_t client);
FST_MUST fst_status fst__coded_save(const struct fst__coded_server *c, fst_buf *out, fst_error *err);
FST_MUST fst_status fst__coded_load(struct fst__coded_server *c, const void *data, size_t len, fst_error *err);

/* ---- a client's ---- */

/* Of one fst_client: room, and what the client that is played keeps. */
struct fst__rows_client;
struct fst__coded_client {
    struct fst__rows_client *rows; /* of rows: the rest is not used then */
    const fst_graph *graph;        /* that the coders are for */
    fst_codecs codecs;
    fst_coder *up, *down;
    float *base;                 /* the model as it was sent */
    float *room;                 /* as long */
    float *residual[FST__CODED]; /* as long; zeroes at first */
    uint8_t *bytes[FST__CODED];  /* of an update */
    uint64_t version;            /* of base, where it is kept */
    bool has_base;
};
void fst__coded_client_release(struct fst__coded_client *c);
/* down becomes what it says, views of c's. kept: what the client kept (an empty message: nothing). */
FST_MUST fst_status fst__coded_take(struct fst__coded_client *c, const fst_client_half *h, const fst_message *kept,
                                    fst_message *down, fst_error *err);
/* up's tensors become coded ones, views of c's. */
FST_MUST fst_status fst__coded_give(struct fst__coded_client *c, fst_client_half *h, fst_message *up, fst_error *err);
/* Adds what the client keeps for its codecs. */
FST_MUST fst_status fst__coded_keep(const struct fst__coded_client *c, const fst_client_half *h, fst_message *kept,
                                    fst_error *err);

/* ---- rows: the same, each called by its namesake ---- */

struct fst__rows_server;
FST_MUST fst_status fst__rows_server_new(struct fst__rows_server **out, const fst_strategy *s, fst_error *err);
void fst__rows_server_free(struct fst__rows_server *c);
void fst__rows_begin(struct fst__rows_server *c, const fst_strategy *s);
FST_MUST fst_status fst__rows_publish(struct fst__rows_server *c, const fst_strategy *s, double *norm, fst_error *err);
FST_MUST fst_status fst__rows_down(const struct fst__rows_server *c, uint32_t client, fst_message *m, fst_error *err);
FST_MUST fst_status fst__rows_read(struct fst__rows_server *c, const fst_strategy *s, fst_message *m, fst_error *err);
void fst__rows_folded(struct fst__rows_server *c, uint32_t client);
size_t fst__rows_count(const struct fst__rows_server *c); /* floats of what is shared */
FST_MUST fst_status fst__rows_save(const struct fst__rows_server *c, fst_buf *out, fst_error *err);
FST_MUST fst_status fst__rows_load(struct fst__rows_server *c, const void *data, size_t len, fst_error *err);
void fst__rows_client_free(struct fst__rows_client *c);
/* *c is made by the first call. */
FST_MUST fst_status fst__rows_take(struct fst__rows_client **c, const fst_client_half *h, const fst_message *kept,
                                   fst_message *down, fst_error *err);
FST_MUST fst_status fst__rows_give(struct fst__rows_client *c, fst_client_half *h, fst_message *up, fst_error *err);
FST_MUST fst_status fst__rows_keep(struct fst__rows_client *c, const fst_client_half *h, fst_message *kept,
                                   fst_error *err);

#endif

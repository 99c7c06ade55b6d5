/* wire.h - what the control messages of a fleet say: bodies in JSON, of at most FST_FRAME_CONTROL bytes.
 * docs/protocol.md describes them for other programs. Keys that are not known are ignored; strings that are too long,
 * numbers that are no whole ones, and keys that are missing make FST_E_FORMAT, with nothing taken. */
#ifndef FST_FLEET_WIRE_H
#define FST_FLEET_WIRE_H

#include "fedstill/blob.h"
#include "fedstill/frame.h"
#include "fedstill/task.h"

enum {
    FST__PROTOCOL = FST_FRAME_VERSION,
    FST__STAGE_NAME = 64,
    FST__REASON = 512, /* a sentence for people */
    FST__INSTANCE = 17 /* 16 hex digits, drawn when a process starts */
};

/* Who the server is in frames and topics. */
#define FST__CLOUD "cloud"

/* Where a round stands at a site. */
typedef enum fst__site_state {
    SITE_JOIN,  /* not yet welcomed */
    SITE_IDLE,  /* nothing to do */
    SITE_FETCH, /* gets what the round starts from */
    SITE_TRAIN,
    SITE_OFFER, /* has an update, which is not yet folded */
    SITE_KEEP,  /* its update was folded or discarded */
    SITE_STATES
} fst__site_state;
const char *fst__site_state_name(fst__site_state s);

/* A site introduces itself, and again whenever it starts. */
struct hello {
    char id[FST_SITE_ID], role[16], instance[FST__INSTANCE], program[24];
    uint32_t client; /* from 0 */
    uint64_t run;    /* that it is in the middle of; 0: none */
    char task[FST_DIGEST_HEX], data[FST_DIGEST_HEX];
    uint64_t learn, validate;
    char missing[200], numerics[200];
    /* where sites have files of their own, what they must have alike (fst_task_identity); "" and 0 otherwise */
    char samples[80], names[FST_DIGEST_HEX], common[FST_DIGEST_HEX];
    int classes;
    bool plain;     /* it reads no codec but plain */
    char *settings; /* "key=value" lines; new memory, or NULL */
};
void fst__hello_release(struct hello *h);

struct beat {
    char instance[FST__INSTANCE], stage[FST__STAGE_NAME];
    uint64_t round;
    fst__site_state state;
    char waits[FST__REASON]; /* what keeps it from going on; "" */
    /* of its devices' windows, since its process began: how many it has decided, and sent on to the cloud of these */
    uint64_t windows, offloaded;
};

/* The server's answer to a hello, and to anybody who has not introduced himself: then `hello` is wanted. */
struct welcome {
    bool hello;
};

struct refusal {
    char instance[FST__INSTANCE]; /* the process that is meant; "": whichever has this id */
    bool final;                   /* nothing that the site can do by itself will change it: its process ends */
    char reason[FST__REASON];
};

typedef enum fst__order_kind { ORDER_TRAIN, ORDER_MEASURE, ORDER_STOP, ORDER_KINDS } fst__order_kind;

struct order {
    fst__order_kind kind;
    char stage[FST__STAGE_NAME];
    uint64_t round;         /* to measure: how many are done */
    int64_t counted;        /* the last round before it whose result holds this site's update; -1: none */
    fst_blob_manifest base; /* the message that the round starts from; to measure: what is given, parts 0: nothing */
    char fingerprint[FST_DIGEST_HEX]; /* to measure: of the stage, then the model is written too; "": it is not */
    int classes;                      /* of all sites' samples together; 0: not said */
    char data[FST_DIGEST_HEX];        /* digest of all training samples; "": not said */
};

/* In answer to an order to measure: what the client's own model is worth after so many rounds, or what became of what
 * it was given. */
struct figures {
    char instance[FST__INSTANCE], stage[FST__STAGE_NAME], fingerprint[FST_DIGEST_HEX];
    uint64_t round;
    char given[FST_DIGEST_HEX]; /* of the blob that came with the order; "": there was none */
    fst_client_figures own;
    char failed[FST__REASON]; /* "": it did not */
};

/* An update is there to be fetched. */
struct result {
    char instance[FST__INSTANCE], stage[FST__STAGE_NAME];
    uint64_t round;
    double seconds; /* of training */
    fst_blob_manifest blob;
};

struct cannot {
    char instance[FST__INSTANCE], stage[FST__STAGE_NAME], reason[FST__REASON];
    uint64_t round;
};

struct receipt {
    char stage[FST__STAGE_NAME], why[FST__REASON];
    uint64_t round;
    bool folded; /* false: discarded, why */
};

/* Append a body to out. */
fst_status fst__write_hello(const struct hello *m, fst_buf *out, fst_error *err);
fst_status fst__write_beat(const struct beat *m, fst_buf *out, fst_error *err);
fst_status fst__write_welcome(const struct welcome *m, fst_buf *out, fst_error *err);
fst_status fst__write_refusal(const struct refusal *m, fst_buf *out, fst_error *err);
fst_status fst__write_order(const struct order *m, fst_buf *out, fst_error *err);
fst_status fst__write_result(const struct result *m, fst_buf *out, fst_error *err);
fst_status fst__write_cannot(const struct cannot *m, fst_buf *out, fst_error *err);
fst_status fst__write_receipt(const struct receipt *m, fst_buf *out, fst_error *err);
fst_status fst__write_figures(const struct figures *m, fst_buf *out, fst_error *err);

/* Read a body; *out is untouched on failure. most: bytes that a blob may have. */
fst_status fst__read_hello(struct hello *out, const void *body, size_t len, fst_error *err);
fst_status fst__read_beat(struct beat *out, const void *body, size_t len, fst_error *err);
fst_status fst__read_welcome(struct welcome *out, const void *body, size_t len, fst_error *err);
fst_status fst__read_refusal(struct refusal *out, const void *body, size_t len, fst_error *err);
fst_status fst__read_order(struct order *out, uint64_t most, const void *body, size_t len, fst_error *err);
fst_status fst__read_result(struct result *out, uint64_t most, const void *body, size_t len, fst_error *err);
fst_status fst__read_cannot(struct cannot *out, const void *body, size_t len, fst_error *err);
fst_status fst__read_receipt(struct receipt *out, const void *body, size_t len, fst_error *err);
fst_status fst__read_figures(struct figures *out, const void *body, size_t len, fst_error *err);

#endif

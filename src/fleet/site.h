/*
 * site.h - a site of a fleet (an edge, or any client of a federation) as a state machine: messages, time and the
 * outcome of training in; messages, what to train, and files to keep out.
 *
 * It has no thread, socket, clock or path in it. Whoever runs it gives it a transport to publish with, a store, and
 * the time with every call, and does the training: fst__site_job says what, fst__site_trained takes what came of it. A
 * process that is killed anywhere and starts again with the same store goes on where it was, and does at most one round
 * again, to the same bits.
 *
 *   JOIN    says hello until it is welcome
 *   IDLE    waits for an order
 *   FETCH   gets the message that the round starts from
 *   TRAIN   waits for fst__site_trained
 *   OFFER   offers its update until the server has folded or discarded it
 *   KEEP    keeps the update until the next round begins, in case the server loses it
 */
#ifndef FST_FLEET_SITE_H
#define FST_FLEET_SITE_H

#include "fedstill/transport.h"
#include "wire.h"

/* Files that are written whole: `put` replaces (by `head`, which may be NULL, then data) and is durable when it
 * returns.
 */
struct store {
    void *ctx;
    fst_status (*put)(void *ctx, const char *name, const fst_buf *head, const void *data, size_t len, fst_error *err);
    /* Appends to out; *found says whether there is such a file. */
    fst_status (*get)(void *ctx, const char *name, fst_buf *out, bool *found, fst_error *err);
    void (*drop)(void *ctx, const char *name); /* one that is not there is ignored */
    /* The file of that name, for bytes that are too many for memory; new memory. NULL: there are no such files. */
    char *(*path)(void *ctx, const char *name);
    /* A view of a large file instead of a copy, until `unview`; may be NULL. */
    fst_status (*view)(void *ctx, const char *name, const void **data, size_t *len, fst_error *err);
    void (*unview)(void *ctx, const void *data, size_t len);
};

struct site_spec {
    const char *id;               /* "edge-1" */
    struct hello hello;           /* without instance and run; the text stays the caller's */
    char instance[FST__INSTANCE]; /* drawn by the caller, another one for each process */
    fst_transport *transport;
    struct store store;
    bool (*keeps)(void *ctx, const char *stage); /* whether its clients keep something from round to round */
    void *ctx;
    uint64_t most;      /* bytes that a message of the server may have */
    uint64_t in_memory; /* larger blobs are files, where the store has such; 0: FST_BLOB_IN_MEMORY */
    double now;
};

/* What is to be trained. Views live until fst__site_trained. */
struct site_job {
    bool measure; /* the client's own model, instead of training */
    const char *stage;
    const char *fingerprint; /* to measure */
    int classes;             /* and data: as the order says, see there */
    const char *data;
    uint64_t round;
    const void *down; /* the message that was sent, aligned to 8 bytes; to measure: what was given, or NULL */
    size_t down_len;
    const void *kept; /* as fst_client_work has it */
    size_t kept_len;
};

struct site;
/* Reads what a process before it left in the store. FST_E_FORMAT: it is damaged, and how to go on. */
fst_status fst__site_new(struct site **out, const struct site_spec *spec, fst_error *err);
void fst__site_free(struct site *s);
/* Of the transport: what came, and that the link came up. */
/* A failure is one of the store. */
fst_status fst__site_message(struct site *s, double now, const char *topic, const void *data, size_t len,
                             fst_error *err);
void fst__site_link(struct site *s, double now, bool up);
/* Says what is to be said by now. A failure is one of the store. Call it after every other call, and at fst__site_due.
 */
fst_status fst__site_tick(struct site *s, double now, fst_error *err);
double fst__site_due(const struct site *s);
/* Whether there is something to train that was not asked for before. */
bool fst__site_job(struct site *s, struct site_job *out);
/* What came of it: `up` packed, and what the client keeps; or why not (then up is NULL). FST_E_BUSY: it cannot be kept
 * now, as when the disk is full; to be said again a second later. */
fst_status fst__site_trained(struct site *s, double now, const void *up, size_t len, const void *keep, size_t keep_len,
                             double seconds, const char *failed, fst_error *err);
/* What came of measuring; failed: why it did not, or NULL. */
void fst__site_measured(struct site *s, double now, const fst_client_figures *own, const char *failed);
fst__site_state fst__site_state_of(const struct site *s, char stage[FST__STAGE_NAME], uint64_t *round);
/* The job needs its `down` no more, although it goes on: its memory is given back. */
void fst__site_used(struct site *s);
/* What its beats say of its devices' windows, see struct beat. */
void fst__site_windows(struct site *s, uint64_t windows, uint64_t offloaded);
/* The run that it takes part in; 0: none. And the highest epoch of it that was heard. */
uint64_t fst__site_run(const struct site *s);
uint64_t fst__site_epoch(const struct site *s);
/* The server's last word about an update, and how many there were. */
const struct receipt *fst__site_receipt(const struct site *s, uint64_t *count);
/* The server let it go; or refused it, with the reason (then *why is not empty). */
bool fst__site_ended(const struct site *s, const char **why);

#endif

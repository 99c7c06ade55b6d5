/*
 * serve.h - an edge answers its devices, and the cloud its edges, in a stage of the cascade.
 *
 * An edge has a thread of its own for it: it talks to the devices over a link of its own (the edge's broker), computes
 * what they send, a batch at a time, and passes on what it is not sure of. Windows for the cloud and the cloud's
 * answers go through two mailboxes, since the link to the hub belongs to the thread of edge.c.
 */
#ifndef FST_FLEET_SERVE_H
#define FST_FLEET_SERVE_H

#include "fedstill/cascade_run.h"
#include "place.h"

/* ---- at an edge (serve.c) -------------------------------------------------------------------------------- */

struct serve;
struct serve_spec {
    const char *id; /* "edge-1" */
    uint32_t edge;  /* from 0 */
    const fst_task *task;
    const fst_fleet_link *local; /* where its devices are; url NULL: nowhere */
    fst_transport *hub;          /* is woken when there is something to pass on */
    const char *folder;          /* of its files: room for what need not be in memory */
};
/* Opens the link and starts the thread. FST_E_CONFIG: the task gives it devices, and there is no link to them. */
fst_status fst__serve_start(struct serve **out, const struct serve_spec *spec, fst_error *err);
/* Answers its devices by the bundle in `down` (whose bytes are given too, and are not needed afterwards). Takes a
 * while: this and the next are not for the thread of the hub's link. */
fst_status fst__serve_load(struct serve *s, const fst_message *down, const void *bytes, size_t len, fst_error *err);
/* Until all devices have said what they were answered, which goes into *up, whose views live until the next load. */
fst_status fst__serve_wait(struct serve *s, const fst_atomic_int *stop, fst_message *up, fst_error *err);
/* Of the hub's link: a body of ANSWERS, and that it came up or broke. */
void fst__serve_heard(struct serve *s, const void *body, size_t len);
void fst__serve_link(struct serve *s, bool up);
/* The next body of WINDOWS for the cloud; false: none. */
bool fst__serve_pass_on(struct serve *s, fst_buf *body);
/* fst__serve_wait is to return: FST_E_CANCELLED. Takes NULL. */
void fst__serve_cancel(struct serve *s);
/* Lets the devices go, if `tell`, and ends. Takes NULL. */
void fst__serve_stop(struct serve *s, bool tell);

/* ---- at the cloud (serve_cloud.c) ------------------------------------------------------------------------ */

struct teacher;
/* Answers edges until it is freed. transport: of the caller, who alone uses it; it is woken when there is an answer. */
fst_status fst__teacher_new(struct teacher **out, fst_tier *tier, const char *const *ids, uint32_t edges, uint64_t run,
                            uint64_t epoch, fst_transport *transport, fst_error *err);
void fst__teacher_free(struct teacher *t);
/* What it answered, added to *to, and how many wait. Any thread. */
enum { FST__LATENCY_BUCKETS = 9 };
extern const double fst__latency_bucket[FST__LATENCY_BUCKETS]; /* seconds, rising */
struct taught {
    uint64_t answered, in[FST__LATENCY_BUCKETS + 1]; /* by the seconds from arrival to answer */
    double seconds;                                  /* of all */
    uint64_t batches;
    double computed; /* seconds */
    uint32_t waiting;
};
void fst__teacher_count(struct teacher *t, struct taught *to);
/* A message on fst/up/ID/ask. */
void fst__teacher_message(struct teacher *t, const char *topic, const void *data, size_t len);
/* Publishes what is to be said; for the thread of the transport. */
void fst__teacher_talk(struct teacher *t);

#endif

/*
 * serve.h - an edge answers its devices, and the cloud its edges, in a stage of the cascade.
 *
 * An edge has a thread of its own for it: it talks to the devices over a link of its own (the edge's broker), computes
 * what they send, a batch at a time, and passes on what it is not sure of. Windows for the cloud and the cloud's
 * answers go through two mailboxes, since the link to the hub belongs to the thread of edge.c.
 */
#ifndef FST_FLEET_SERVE_H
#define FST_FLEET_SERVE_H

#include "answered.h"
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
    /* A line that people want to know, besides the log; from its thread. */
    void (*note)(void *ctx, const char *text);
    void *ctx;
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
/* How it is, as of a moment ago. Any thread. */
struct device_view {
    char id[FST_SITE_ID];
    bool known, bye, done;       /* said hello; was let go; all its windows are answered, and it has said with what */
    double heard;                /* when; -INFINITY: never */
    uint32_t windows;            /* that it has in this stage */
    uint64_t received, answered; /* of its stream */
};
struct serve_view {
    bool up;     /* the link to its devices */
    bool loaded; /* it has a model, or passes everything on: */
    bool relay;
    double temperature, threshold;
    const char *confidence; /* its kind; static */
    size_t batch;
    uint32_t devices;
    struct answered count;
    fst_transport_counters traffic; /* with its devices */
};
/* each: of all its devices, for `room` of them. */
void fst__serve_look(struct serve *s, struct serve_view *out, struct device_view *each, uint32_t room);
/* fst__serve_wait is to return: FST_E_CANCELLED. Takes NULL. */
void fst__serve_cancel(struct serve *s);
/* Lets the devices go, if `tell`, and ends. Takes NULL. */
void fst__serve_stop(struct serve *s, bool tell);

/* ---- at the cloud (serve_cloud.c) ------------------------------------------------------------------------ */

struct teacher;
/* Answers edges until it is freed. transport: of the caller, who alone uses it; it is woken when there is an answer.
 * before: what others have answered here; it goes on counting from there. */
fst_status fst__teacher_new(struct teacher **out, fst_tier *tier, const char *const *ids, uint32_t edges, uint64_t run,
                            uint64_t epoch, fst_transport *transport, const struct answered *before, fst_error *err);
/* Ends it; *count (may be NULL): with all that it answered. Takes NULL. */
void fst__teacher_free(struct teacher *t, struct answered *count);
/* What was answered up to now. Any thread. */
void fst__teacher_count(struct teacher *t, struct answered *out);
/* A message on fst/up/ID/ask. */
void fst__teacher_message(struct teacher *t, const char *topic, const void *data, size_t len);
/* Publishes what is to be said; for the thread of the transport. */
void fst__teacher_talk(struct teacher *t);

#endif

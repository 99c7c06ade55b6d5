/*
 * coordinator.h - the server of a fleet as a state machine: it knows the sites, carries the orders of an fst_server to
 * them and their updates to it.
 *
 * No thread, clock or path in it. Whoever runs it gives it a transport to publish with and the time with every call;
 * what takes long (aggregating, evaluating, saving) it hands out: fst__coordinator_wants says what, and after
 * fst__coordinator_done it goes on. In between it keeps talking to the sites and does not touch the fst_server.
 *
 * What it tells the fst_server depends on how things are, not on which message came: before each answer it compares
 * what a site said last with what the server was told, so that lost, doubled and reordered messages make no difference.
 */
#ifndef FST_FLEET_COORDINATOR_H
#define FST_FLEET_COORDINATOR_H

#include "fedstill/fed.h"
#include "fedstill/transport.h"
#include "notes.h"
#include "wire.h"

struct coordinator_spec {
    const char *const *ids; /* of the clients, in their order; the caller's */
    uint32_t clients;
    uint64_t run, epoch;
    char task[FST_DIGEST_HEX];
    const char *settings; /* the lines that sites must agree with; the caller's */
    const char *numerics; /* "" or how this host computes; the caller's */
    fst_transport *transport;
    double lost_after; /* seconds without a message; 0: 13 */
    double grace;      /* seconds that a site may take to start again; 0: 10 */
    /* The file of that name, new memory, for updates of more than in_memory (0: FST_BLOB_IN_MEMORY); NULL: there are no
     * files. */
    char *(*path)(void *ctx, const char *name);
    void *ctx;
    uint64_t in_memory;
    double now;
};

typedef enum fst__want { WANT_NOTHING, WANT_AGGREGATE, WANT_EVALUATE, WANT_FINISH, WANT_FAIL } fst__want;

/* One site as it is known. */
struct site_view {
    const char *id;
    bool known, present, fetching;
    fst__site_state state;
    uint64_t round;
    double heard;        /* when, INFINITY: never */
    uint32_t parts;      /* of what is fetched; 0: nothing */
    uint32_t here;       /* ... that have come */
    bool drawn, awaited; /* drawn for the round at hand, and its update is neither folded nor refused */
    bool folded;         /* its last update was; else `why` it was not */
    const char *why;     /* "" when none was discarded; the coordinator's */
    uint64_t dropped;    /* messages above the limit a second */
    uint64_t windows;    /* of its devices, that it has decided, as it says; and sent on to the cloud of these */
    uint64_t offloaded;
};

/* Since this process began. Updates are those that were fetched whole and right, in the order of arrival. */
enum { FST__UPDATE_BUCKETS = 12 };
extern const double fst__update_bucket[FST__UPDATE_BUCKETS]; /* seconds, rising */
struct coordinator_counters {
    uint64_t again;  /* parts asked for again */
    uint64_t packed; /* messages that were packed to be sent */
    uint64_t updates, update_in[FST__UPDATE_BUCKETS + 1];
    double update_seconds;             /* of training, all together */
    uint64_t discarded[FST_WHY_COUNT]; /* updates, by reason; FST_WHY_NONE: refused for what they are */
};

/* The whole, for people. */
struct coordinator_view {
    bool up, in_stage, open, busy, measuring, stopping;
    const char *stage;
    fst__want want;
    uint64_t rounds;       /* of the stage */
    fst_round_view engine; /* as it was when the server was the coordinator's last */
    double opened;
};

struct coordinator;
fst_status fst__coordinator_new(struct coordinator **out, const struct coordinator_spec *spec, fst_error *err);
void fst__coordinator_free(struct coordinator *c);
void fst__coordinator_message(struct coordinator *c, double now, const char *topic, const void *data, size_t len);
void fst__coordinator_link(struct coordinator *c, double now, bool up);
/* FST_E_CONFIG: there is another cloud, and this is the one that has to go, with the reason. */
fst_status fst__coordinator_alone(const struct coordinator *c, fst_error *err);
/* Call it after every other call, and at fst__coordinator_due. A failure ends the run. */
fst_status fst__coordinator_tick(struct coordinator *c, double now, fst_error *err);
double fst__coordinator_due(const struct coordinator *c);

/* Opens a stage: its server and what it was made of, whose `arrived`, `samples` and `ctx` are used. counted: [clients],
 * the last round before the server's whose result holds the client's update, -1 for none; kept up to date. */
fst_status fst__coordinator_begin(struct coordinator *c, double now, const char *stage, const fst_simulate_spec *spec,
                                  fst_server *server, int64_t *counted, fst_error *err);
fst__want fst__coordinator_wants(const struct coordinator *c);
/* With WANT_FAIL: "edge-2, edge-3 did not report"; "": nobody was waited for. */
const char *fst__coordinator_missing(const struct coordinator *c);
/* When the open round was opened. */
double fst__coordinator_opened(const struct coordinator *c);
/* WANT_AGGREGATE and WANT_EVALUATE were done (with fst_server_aggregate, fst_server_publish). */
void fst__coordinator_done(struct coordinator *c, double now);
/*
 * Of sites that have files of their own: from now on they are held to `want` (samples, classes, names, common), as far
 * as they say something of it. */
void fst__coordinator_expect(struct coordinator *c, double now, const fst_task_identity *want);
/* What a site said of itself when it joined; false: it has not yet. */
bool fst__coordinator_identity(const struct coordinator *c, uint32_t client, fst_task_identity *out);
/* What orders say of all sites' samples together, see struct order. */
void fst__coordinator_tell_all(struct coordinator *c, int classes, const char *data);
/* Gives all sites some bytes, or each its own (count: 1 or that of the clients; those whose are empty are not asked),
 * and waits for their figures as after fst__coordinator_measure. Copies. */
fst_status fst__coordinator_give(struct coordinator *c, double now, const char *stage, uint64_t rounds,
                                 const fst_buf *given, size_t count, fst_error *err);
/*
 * The clients' own models after so many rounds of the stage: asked of all that counted in one of them, until
 * fst__coordinator_measured says that all have answered. Figures of those that have not are left as they are.
 */
void fst__coordinator_measure(struct coordinator *c, double now, const char *stage, uint64_t rounds,
                              const char *fingerprint);
bool fst__coordinator_measured(const struct coordinator *c, uint32_t *missing);
/* Ends it, and gives the figures; FST_E_CONFIG: the first one that failed, and why. */
fst_status fst__coordinator_figures(struct coordinator *c, fst_client_figures *each, fst_error *err);
/* The stage is over; the server is not used any more. */
void fst__coordinator_end(struct coordinator *c);
/* All sites are let go. True once all that are present have said goodbye; to be asked until the caller's patience ends.
 */
bool fst__coordinator_stop(struct coordinator *c, double now);

struct site_view fst__coordinator_site(const struct coordinator *c, uint32_t client);
struct coordinator_view fst__coordinator_look(const struct coordinator *c);
const struct coordinator_counters *fst__coordinator_count(const struct coordinator *c);
/* The newest notes, oldest first, as copies; returns how many. */
size_t fst__coordinator_notes(const struct coordinator *c, struct note out[FST__NOTES]);
/* Messages that were refused, by reason: [FST_REFUSALS]. */
const uint64_t *fst__coordinator_refused(const struct coordinator *c);

#endif

/* coordinator_private.h - the coordinator's inside, shared by what it hears and says (coordinator_talk.c) and what it
 * does (coordinator.c). */
#ifndef FST_FLEET_COORDINATOR_PRIVATE_H
#define FST_FLEET_COORDINATOR_PRIVATE_H

#include "coordinator.h"

/* What is sent to sites of a round: one for all of them when it is the same. */
struct down {
    fst_message message;               /* views that are alive as long as the round is open */
    fst_blob_manifest manifest, plain; /* plain: for sites that read no other codec; parts 0: nobody has asked */
    fst_buf raw, coded;
};

enum { SEEN = 6, SWAPS = 8, AWAITED = 280 /* bytes of a list of ids */ };

/* Of what a site makes the log speak: each kind at most once in some seconds, and then with a number. */
enum note_kind {
    NOTE_JOINED,
    NOTE_AGAIN,
    NOTE_NUMERICS,
    NOTE_LEFT,
    NOTE_LOST,
    NOTE_REFUSED,
    NOTE_FLOOD,
    NOTE_WAITS,
    NOTE_KINDS
};
struct quiet {
    double until;
    uint32_t held; /* lines since */
};

struct known {
    bool known; /* said hello to this process */
    bool present;
    bool joined; /* so the server was told */
    char instance[FST__INSTANCE];
    char seen[SEEN][FST__INSTANCE]; /* instances, in the order in which they came; the oldest are forgotten */
    int instances, swaps;           /* swaps: how often an older one took the place of a newer one */
    struct hello hello;             /* as it said, without its settings */
    double heard, gone_at;          /* gone_at: INFINITY, or when its will came */
    fst__site_state state;
    char stage[FST__STAGE_NAME];
    uint64_t round;

    bool wanted;   /* drawn for the open round and not yet answered */
    bool answered; /* it has the order, as its beats say */
    bool has_down;
    size_t down;   /* of c->downs */
    double say_at; /* the order again */
    double welcome_at;

    bool offered, cannot;
    struct result result;
    char reason[FST__REASON];
    char waits[FST__REASON];     /* what keeps it from going on, as its last beat said */
    uint64_t windows, offloaded; /* of its devices, as its last beat said */
    fst_blob_fetch *fetch;
    bool part_topic;
    bool asked;    /* it is to measure something */
    bool measured; /* it has answered the order to measure */
    size_t given;  /* of c->gifts */
    struct figures figures;
    bool receipt_due;
    struct receipt receipt;
    double second; /* for the rate */
    uint32_t in_second;
    uint64_t dropped; /* by it */
    struct quiet quiet[NOTE_KINDS];
};

struct coordinator {
    struct coordinator_spec spec;
    struct known *site;
    uint64_t seq;
    bool up, busy, stopping;
    double judge_from; /* when sites of other runs are judged; INFINITY: the link was never up */
    double up_at;
    uint32_t short_links; /* how many in a row ended at once */
    uint64_t other_run;   /* that sites are in; 0: none */
    bool newer;           /* sites heard a later coordinator of this run */
    double ask_at, complain_at;

    char stage[FST__STAGE_NAME];
    const fst_simulate_spec *of;
    fst_server *server;
    int64_t *counted;
    double timer_at, opened_at;
    fst__want want;
    uint64_t open_round;
    bool open;

    bool measuring;
    struct order measure;
    struct down *gifts; /* what sites are given to measure */
    size_t gift_count;

    bool expects; /* sites have files of their own, and must fit */
    fst_task_identity expected;
    int classes;
    char data[FST_DIGEST_HEX];

    struct down *downs;
    size_t down_count, down_room;
    fst_blob_server *blobs;
    int fetches;
    uint64_t most;
    uint64_t refused[FST_REFUSALS]; /* messages, by reason */

    struct coordinator_counters count;
    fst_round_view engine;
    struct notes notes;
    bool held; /* some site's line is */
    char missing[AWAITED + 20];
};

/* ---- coordinator_talk.c: to one site, once; who wants it heard says it again ---- */
fst_status fst__tell_site(struct coordinator *c, uint32_t k, const char *leaf, fst_frame_kind kind,
                          const fst_buf *body);
void fst__say_order(struct coordinator *c, uint32_t k);
void fst__say_receipt(struct coordinator *c, uint32_t k);
/* Of a stage that has begun: a site with other samples than the stage counts for it is sent away. */
void fst__check_samples(struct coordinator *c, uint32_t k, double now);
/* The manifest of what a site is sent, in a codec that it reads. */
const fst_blob_manifest *fst__manifest_for(struct coordinator *c, uint32_t k, struct down *d);
/* Notes what is to be said to a site about its update. */
void fst__note_receipt(struct coordinator *c, uint32_t k, const char *stage, uint64_t round, bool folded,
                       const char *why);

/* ---- coordinator_watch.c: what people see ---- */
/* A line about a site, in the log and among the notes; the text follows its id. */
void fst__note(struct coordinator *c, uint32_t k, double now, enum note_kind kind, fst_log_level level, const char *fmt,
               ...) FST_PRINTF(6, 7);
/* Says how many lines were held back, once their time is over. */
void fst__tell_held(struct coordinator *c, double now);
void fst__count_update(struct coordinator *c, double seconds);

#endif

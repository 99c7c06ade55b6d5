/*
 * fedstill/round.h - the round engine: who takes part, whose update counts, when a round closes.
 *
 * Rounds and clients are numbered from 0. Mapping names of sites to client numbers is the caller's.
 */
#ifndef FEDSTILL_ROUND_H
#define FEDSTILL_ROUND_H

#include "fedstill/base.h"

FST_BEGIN_DECLS

/* ---- the round engine --------------------------------------------------------------------- */

/*
 * Decides what happens when in a federated run, and does none of it: no I/O, no clock, no threads, no
 * allocation after fst_round_new. The caller feeds events and carries out the actions that come
 * back; the same events always give the same actions.
 *
 *   announce   waiting until enough clients have joined
 *   collect    the cohort was drawn and announced; updates come in
 *   aggregate  closed; waiting for `aggregated`
 *   publish    waiting for `published`; then the next round, or finished
 *
 * A crash loses nothing when the caller saves the engine where that is allowed (see fst_round_save) and lets clients
 * deliver updates again: an update is acknowledged to its sender only when its round is on disk.
 */
typedef enum fst_round_phase {
    FST_PHASE_ANNOUNCE,
    FST_PHASE_COLLECT,
    FST_PHASE_AGGREGATE,
    FST_PHASE_PUBLISH,
    FST_PHASE_FINISHED,
    FST_PHASE_FAILED
} fst_round_phase;

/* What to do when a round can no longer reach its quorum, or has not at its deadline. */
typedef enum fst_quorum_policy {
    FST_QUORUM_FAIL,   /* the run fails */
    FST_QUORUM_SKIP,   /* the round counts but changes nothing */
    FST_QUORUM_EXTEND, /* another deadline, and clients not asked yet fill the cohort; at most
                        * max_extensions times a round, then the run fails. Without a deadline the
                        * run fails when nobody is left to ask. */
} fst_quorum_policy;

typedef struct fst_round_spec {
    uint64_t seed;
    uint32_t clients;     /* client numbers are 0 ... clients-1; at least 1 */
    uint64_t first_round; /* where to start (resume); below rounds, or equal: finished at once */
    uint64_t rounds;      /* in total */
    uint32_t cohort;      /* clients a round; 0: use fraction */
    double fraction;      /* of the clients that are there, 0 < fraction <= 1, rounded, at least one */
    double over_select;   /* ask this part more (0.2: 20 %) and close when the cohort's number reported */
    uint32_t quorum;      /* updates below which nothing is aggregated; 0 means 1 */
    uint32_t min_clients; /* clients that must be there before a round opens; at least the quorum */
    double deadline;      /* seconds from announcing to closing; 0: none */
    double join_deadline; /* seconds to wait for min_clients before the run fails; 0: for ever */
    fst_quorum_policy policy;
    uint32_t max_extensions; /* at most 255 */
    /* Moves the `want` of `count` clients that a round opens with to the front of the rising list; NULL: drawn by
     * chance. Clients of an extension are always drawn. Not saved with the engine. */
    void (*select)(void *ctx, uint32_t *client, size_t count, size_t want);
    void *select_ctx;
} fst_round_spec;

typedef enum fst_fed_event_kind {
    FST_EVENT_JOINED,     /* client is there (again); one that is being waited for is announced to again */
    FST_EVENT_UPDATE,     /* client's update for round with samples arrived */
    FST_EVENT_FOLDED,     /* answer to FST_ACTION_FOLD: client's update is in */
    FST_EVENT_REFUSED,    /* the fold was refused, or the client says that it cannot: it does not count in
                           * this round and stays for the next */
    FST_EVENT_TIMER,      /* time passed */
    FST_EVENT_LOST,       /* client is gone; an update that it sent before still counts */
    FST_EVENT_AGGREGATED, /* answer to FST_ACTION_AGGREGATE */
    FST_EVENT_PUBLISHED   /* answer to FST_ACTION_PUBLISH */
} fst_fed_event_kind;

typedef struct fst_fed_event {
    fst_fed_event_kind kind;
    double now;      /* seconds since any origin, in every event; steps back are taken as standing still */
    uint32_t client; /* joined, update, folded, refused, lost */
    uint64_t round;  /* update, folded, refused, aggregated, published */
    int64_t samples; /* update; folded: of the update that was folded */
} fst_fed_event;

typedef enum fst_fed_action_kind {
    FST_ACTION_ANNOUNCE,  /* send round to client */
    FST_ACTION_FOLD,      /* fold client's update; answer with folded or refused */
    FST_ACTION_DISCARD,   /* throw client's update away; why */
    FST_ACTION_CLOSE,     /* round takes no more updates; why */
    FST_ACTION_AGGREGATE, /* answer with aggregated */
    FST_ACTION_PUBLISH,   /* answer with published */
    FST_ACTION_SET_TIMER, /* give a timer event at time `at` or soon after; replaces an earlier one */
    FST_ACTION_FINISHED,  /* all rounds are done */
    FST_ACTION_FAILED,    /* the run cannot go on; why */
    FST_ACTION_LOG        /* nothing to do; something was decided or noticed; why */
} fst_fed_action_kind;

typedef enum fst_fed_why {
    FST_WHY_NONE,
    /* announce */
    FST_WHY_SELECTED, /* drawn for the round */
    FST_WHY_REJOINED, /* was selected and joined again before it reported */
    FST_WHY_EXTENDED, /* drawn later, to fill the cohort */
    /* discard */
    FST_WHY_DUPLICATE,      /* has already reported in this round */
    FST_WHY_STALE,          /* of an earlier round */
    FST_WHY_FUTURE,         /* of a round that has not begun */
    FST_WHY_LATE,           /* of this round, after it closed */
    FST_WHY_NOT_SELECTED,   /* was not asked in this round */
    FST_WHY_BAD_SAMPLES,    /* samples outside 1 ... 2^31-1 */
    FST_WHY_REFUSED_BEFORE, /* an earlier update of it was refused in this round */
    FST_WHY_UNKNOWN_CLIENT, /* client >= spec.clients */
    FST_WHY_ENDED,          /* the run is over */
    /* close */
    FST_WHY_ALL_REPORTED, /* everybody asked reported */
    FST_WHY_ENOUGH,       /* the cohort's number reported; others were asked in reserve */
    FST_WHY_ALL_ANSWERED, /* nobody is left to wait for; some are lost or refused; the quorum is there */
    FST_WHY_DEADLINE,     /* deadline passed with a quorum */
    FST_WHY_NO_QUORUM,    /* close, failed: too few updates */
    /* failed */
    FST_WHY_NO_CLIENTS, /* too few clients joined before the join deadline */
    /* log */
    FST_WHY_JOINED,
    FST_WHY_OPENED,       /* a round was opened; count clients were selected */
    FST_WHY_WAITING,      /* count clients are there, too few to open a round */
    FST_WHY_LOST_PENDING, /* lost before it reported */
    FST_WHY_LOST_COUNTED, /* lost after it reported: its update counts */
    FST_WHY_LOST_IDLE,    /* lost while nothing was wanted from it */
    FST_WHY_REFUSED,      /* its update was refused, or it could not make one */
    FST_WHY_EXTENSION,    /* the deadline was extended; count clients more were selected */
    FST_WHY_IGNORED,      /* the event means nothing now (an answer nobody waits for, a client unknown) */
    FST_WHY_COUNT
} fst_fed_why;

typedef struct fst_fed_action {
    fst_fed_action_kind kind;
    fst_fed_why why;
    uint32_t client; /* announce, fold, discard, log about a client */
    uint64_t round;
    uint64_t count; /* close: updates folded; log: see the reason */
    double at;      /* set_timer */
} fst_fed_action;

/* Where the run stands. */
typedef struct fst_round_view {
    fst_round_phase phase;
    uint64_t round;
    uint32_t joined, selected, target, pending, folding, folded, lost, refused, extensions;
    uint64_t samples; /* of the updates folded in this round */
} fst_round_view;

typedef struct fst_round_engine fst_round_engine;

/* FST_E_CONFIG names the setting that is wrong. */
FST_MUST FST_API fst_status fst_round_new(fst_round_engine **out, const fst_round_spec *spec, fst_error *err);
FST_API void fst_round_free(fst_round_engine *e);
/* Takes one event. All actions of the event before must have been fetched (FST_E_ARGUMENT if not, or when
 * `now` or the kind is no value). Events that make no sense now are answered, not failed. */
FST_MUST FST_API fst_status fst_round_event(fst_round_engine *e, const fst_fed_event *event, fst_error *err);
/* The next action; false when there is none. */
FST_API bool fst_round_next_action(fst_round_engine *e, fst_fed_action *out);
FST_API fst_round_view fst_round_look(const fst_round_engine *e);
/* Appends the whole engine, its spec and the actions not yet fetched to out. FST_E_ARGUMENT from the first update of a
 * round that was given to fold until that round is published: the sums of those folds are not in these bytes, and an
 * engine that remembers them would discard the updates when they are delivered again. */
FST_MUST FST_API fst_status fst_round_save(const fst_round_engine *e, fst_buf *out, fst_error *err);
/* An engine that continues exactly where the saved one stood. Bytes that were changed are FST_E_FORMAT. */
FST_MUST FST_API fst_status fst_round_restore(fst_round_engine **out, const void *data, size_t len, fst_error *err);

FST_API const char *fst_fed_why_text(fst_fed_why why); /* "deadline passed with a quorum" */
FST_API const char *fst_round_phase_name(fst_round_phase phase);
/* One line for a log, "round 3: client 7: discarded: of an earlier round"; always terminated; returns out. */
FST_API const char *fst_fed_action_text(const fst_fed_action *a, char *out, size_t size);

FST_END_DECLS

#endif

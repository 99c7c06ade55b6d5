/* The round engine's inside, shared by what decides (round.c) and what saves (round_save.c). */
#ifndef FEDSTILL_ROUND_PRIVATE_H
#define FEDSTILL_ROUND_PRIVATE_H

#include "fed_private.h"

/* One byte a client. JOINED outlives rounds, the others are of the current one. SELECTED with none of
 * the next three: lost (LOST) or refused. */
enum {
    CLIENT_JOINED = 1,
    CLIENT_SELECTED = 2,
    CLIENT_PENDING = 4,
    CLIENT_FOLDING = 8,
    CLIENT_FOLDED = 16,
    CLIENT_LOST = 32,
    CLIENT_ALL = 63
};

/* No event leads to more than these besides the announcements, which are drawn from `order`. */
enum { QUEUE = 8 };

struct fst_round_engine {
    fst_round_spec spec;
    fst_round_view view;
    bool started;           /* an event came: `now` means something */
    bool expired;           /* the round's deadline passed and was not extended yet */
    double now;             /* latest time seen */
    bool armed;             /* a deadline is armed */
    double due;             /* when */
    uint32_t announced;     /* of order[0 ... view.selected-1] */
    uint32_t extended_from; /* order[] from here on was drawn by extensions */
    uint8_t *client;        /* [spec.clients] */
    uint32_t *order;        /* [spec.clients] the cohort in the order of drawing; behind it scratch */
    fst_fed_action queue[QUEUE];
    unsigned queued, fetched;
};

/* Both also serve fst_round_restore. */
FST_MUST fst_status fst__round_check_spec(const fst_round_spec *spec, fst_error *err);
FST_MUST fst_status fst__round_allocate(fst_round_engine **out, const fst_round_spec *spec, fst_error *err);

#endif

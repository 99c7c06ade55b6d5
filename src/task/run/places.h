/* places.h - the training samples while they are put together (session_data.c), and what is different where places have
 * files of their own (places.c). */
#ifndef FST_TASK_PLACES_H
#define FST_TASK_PLACES_H

#include "session.h"

/* A piece of the training samples while they are put together. */
struct piece {
    const fst_source *source;
    uint32_t *index; /* NULL: all */
    size_t count;
    size_t edge;     /* 0: the cloud, or the only place there is; else the edge from 1 */
    bool validation; /* the source's own split */
};

struct pieces {
    struct piece at[2 * FST__MAX_EDGES + 4];
    size_t n;
};

/* Whether this process opens the samples of a place: 0 the cloud, else an edge. */
bool fst__place_is_here(const struct session *s, size_t place);
/* With the shares of the places that are here: what each place has, at the cloud of a fleet as the others say it, and
 * the digest of all. */
fst_status fst__places(struct session *s, const struct pieces *p, fst_error *err);

#endif

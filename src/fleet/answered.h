/* answered.h - what an edge or the cloud has answered in the cascade since its process began, for people. Plain data:
 * copied under whatever lock its owner has. */
#ifndef FST_FLEET_ANSWERED_H
#define FST_FLEET_ANSWERED_H

#include "stream.h"

enum { FST__TIERS = 2 /* TIER_EDGE, TIER_CLOUD */, FST__LATENCY_BUCKETS = 9, FST__LATEST = 512 };
extern const double fst__latency_bucket[FST__LATENCY_BUCKETS]; /* seconds, rising */

struct answered {
    uint64_t received;            /* windows that were taken in */
    uint64_t decided, passed;     /* an edge's: how surely was seen; ... and the cloud is to answer */
    uint64_t windows[FST__TIERS]; /* that were answered, by whose answer it is */
    uint64_t unsure, refused;     /* of these, as MARK_UNSURE and MARK_REFUSED say */
    uint64_t in[FST__TIERS][FST__LATENCY_BUCKETS + 1]; /* by the seconds from arrival here to the answer */
    double seconds[FST__TIERS];                        /* of all */
    float latest[FST__LATEST];                         /* seconds of the newest, a ring */
    uint64_t batches;                                  /* that were computed here */
    double computed, deciding;                         /* seconds */
    uint32_t waiting;                                  /* windows here that are not taken up */
    uint32_t away;                                     /* an edge's: the cloud has not answered yet */
};

/* One window, answered after so many seconds. */
void fst__answered_add(struct answered *a, const struct stream_answer *answer, double seconds);
uint64_t fst__answered_all(const struct answered *a);
/* Share of the decided windows that went on to the cloud; NaN: there are none. */
double fst__offload_ratio(const struct answered *a);
/* Of the newest FST__LATEST answers, the seconds that a share q of them did not exceed; NaN: there are none. */
double fst__answered_within(const struct answered *a, double q);

#endif

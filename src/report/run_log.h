/*
 * Which lines of events.jsonl are about what a run's folder shows now. The file grows over all runs of a folder: rounds
 * of other settings stand before and behind, rounds are played again after a crash, and more rounds of the same
 * settings go on later. Epochs and rounds belong together when their stage began with the same "resumes" (a digest of
 * everything but their number), and those count whose "result" is the artifact that the stage shows; where no digest is
 * known, those that began last. Of what is there twice the later line counts.
 */
#ifndef FST_REPORT_RUN_LOG_H
#define FST_REPORT_RUN_LOG_H

#include "fedstill/store.h"

struct fst__log {
    unsigned char *counts; /* by event, in the order of the file */
    size_t events;
    bool unfinished; /* the last process that worked there did not come to its end */
};

/* The digest of what a stage shows; NULL: not known. */
typedef const char *(*fst__digest_fn)(void *ctx, const char *stage);
FST_MUST fst_status fst__log_read(struct fst__log *out, const fst_buf *events, fst__digest_fn digest, void *ctx,
                                  fst_error *err);
void fst__log_release(struct fst__log *l);
/* Calls fn with every event that counts; false ends it. */
FST_MUST fst_status fst__log_each(const struct fst__log *l, const fst_buf *events, fst_event_fn fn, void *ctx,
                                  fst_error *err);

/* "" for what is no text. */
const char *fst__event_text(const fst_event *e, const char *key);
/* The epoch or round that an event is about, from 1; NaN: of none. */
double fst__event_step(const fst_event *e);

#endif

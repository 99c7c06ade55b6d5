/*
 * books.h - what a run tells others while it works: the registry of runs, and its events. Neither is needed for a right
 * result, and neither stops a run: a first failure is logged, and the registry is then left alone until the run ends.
 */
#ifndef FST_TASK_BOOKS_H
#define FST_TASK_BOOKS_H

#include <stdatomic.h>

#include "fedstill/store.h"

struct books {
    fst_registry *registry; /* NULL: it could not be opened, which was said */
    bool registry_failed;   /* it is not used again before the run ends */
    double touched;         /* when it was given a sign of life */
    int64_t run;            /* its number there */
    fst_events *events;
    atomic_bool events_failed;    /* nothing more is written; a thread may still refer to them */
    struct fst__sampler *sampler; /* NULL: none */
};

/* Events never stop a run: a failure is logged once, whichever thread's event it was. */
void fst__emit(struct books *b, const char *event, const fst_field *fields, size_t n);
/* A sign of life, now and then: what a run that is killed has worked is known up to the last one. */
void fst__books_touch(struct books *b);

/* ---- resources.c ---- */
/* Starts and ends the thread that writes events "resources"; without events there is none. */
void fst__resources_begin(struct books *b);
void fst__resources_end(struct books *b);
/* One more of them now, so that every step begins and ends with one. */
void fst__resources_sample(const struct books *b);

#endif

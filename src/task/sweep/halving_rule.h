/*
 * halving_rule.h - which settings a halving stops, as soon as it is certain, and no sooner.
 *
 * At each rung the better half of the settings that come to it goes on, the others are stopped (halving.c). Whoever
 * waits until all have come knows which those are. But much is certain before: a setting goes on if it would with every
 * one that is still to come ahead of it, and is stopped if it would be with all of those behind it. So decisions are
 * taken early and are still those of the whole rung, whatever the order of arrivals: two sweeps of the same settings
 * never differ by who was faster. What is not certain waits.
 *
 * Numbers alone: no runs, no files. Settings count from 0, rungs from 0; `rungs` is the end.
 */
#ifndef FST_TASK_HALVING_RULE_H
#define FST_TASK_HALVING_RULE_H

#include "fedstill/base.h"

enum { FST__MOST_RUNGS = 10 }; /* a thousand settings can be halved nine times */

struct fst__course { /* of a setting */
    int rung;        /* that it is on its way to, or waits at */
    bool out;        /* stopped, at that rung */
    bool came[FST__MOST_RUNGS];
    double value[FST__MOST_RUNGS]; /* of those that it came to; NaN: not known */
};

struct fst__halving {
    size_t settings;
    int rungs;
    struct fst__course *course;
    bool over[FST__MOST_RUNGS]; /* all have come, and all were judged */
    struct fst__judged *order;  /* room for one rung */
};

enum fst__verdict_kind {
    FST__GOES_ON, /* setting, to the rung after `rung` */
    FST__STOPS,   /* setting, at `rung`: its value has rank `rank` among the `of` that have come, or may still come */
    FST__OVER     /* rung: all have come; `rank` of `of` go on, and setting is the best */
};

struct fst__verdict {
    enum fst__verdict_kind kind;
    size_t setting;
    int rung;
    double value;
    size_t rank, of;
};

FST_MUST fst_status fst__halving_init(struct fst__halving *h, size_t settings, int rungs, fst_error *err);
void fst__halving_release(struct fst__halving *h);
/* A setting has come to its rung. NaN: what it is worth is not known; it goes on and is compared with nobody. */
void fst__halving_arrive(struct fst__halving *h, size_t setting, double value);
/* It will come to no rung any more, and is not compared at this one. */
void fst__halving_drop(struct fst__halving *h, size_t setting);
/* The next decision that is certain, which is taken with this; false: none is. */
bool fst__halving_next(struct fst__halving *h, struct fst__verdict *v);
/* The place of a setting among all that have come to a rung with a value, best first, from 1; 0: it is not there. */
size_t fst__halving_rank(struct fst__halving *h, int rung, size_t setting, size_t *of);

#endif

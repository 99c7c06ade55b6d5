/* A trainer's inside, for trainer.c (steps) and runner.c (inference and profiles over the same shards). */
#ifndef FST_NN_TRAINER_H
#define FST_NN_TRAINER_H

#include "backend.h"

struct fst_trainer {
    const fst_graph *graph;
    fst_pool *pool;
    int threads, plans_count;
    fst_plan **plans; /* by worker, or by shard when they meet */
    size_t batch, shard, shards;
    int classes;
    size_t width;                 /* of a row of the output: the classes, and of a tapped graph its taps */
    size_t sample;                /* floats */
    float **grads;                /* by shard; windowed: the sum's, and by further shard those of a part */
    const struct fst_form *forms; /* layers whose gradient is kept in a form; factors in the first shard's span */
    size_t nforms;
    float **rest;       /* by plan: input rows of a last, partly filled shard; the rest stays 0 */
    double *row_loss;   /* by row */
    double *row_more;   /* by row: a feature's part of the loss, the slope along the temperature */
    double *row_slope;  /* by row: of the temperature */
    float **head;       /* by plan, of a tapped graph: logits of a shard, and their gradient after them */
    double *weight;     /* by class: the step's class weights over their mean in the batch */
    size_t *correct;    /* by shard */
    fst_status *status; /* by shard */
    fst_error *errors;  /* by shard */
    /* the step that is under way */
    fst_state *state, *bound; /* bound: what the plans compute with, the state or: */
    fst_state rounded;        /* the state with weights rounded, of a network that learns for int8; params: owned */
    const fst_step_input *in;
    const char *backend;
    fst_precision precision;
    bool check_finite;
    bool training;           /* else a runner's */
    bool inside;             /* a runner of one shard: the threads work inside kernels */
    bool shared;             /* a runner of single samples: two threads share each large layer */
    bool windowed;           /* many parameters: the shards' gradients are added part by part */
    bool meets;              /* windows, batch norm: the shards of a step meet between its parts */
    struct fst_peers *peers; /* meets: by shard, */
    int64_t *rows;           /* what they share */
    unsigned char **memory;
    int part;
    enum { WHOLE, FORWARD, FINISH } half; /* of the step */
    float *answers;                       /* FORWARD: rows x classes */
    float *kept;                          /* meets: running statistics before the step, */
    int64_t *kept_counters;               /* to be put back when it fails */
};

/* training: else a runner's, whose plans keep what they make of the weights. */
fst_status fst__trainer_new(fst_trainer **out, const fst_graph *g, const fst_trainer_options *o, bool training,
                            fst_error *err);
/* The first of the shards' failures. */
fst_status fst__trainer_failure(const fst_trainer *t, size_t shards, fst_error *err);

#endif

/* mutual.h - a client's two networks, which learn from each other on the same batches (FedKD). */
#ifndef FST_FED_MUTUAL_H
#define FST_FED_MUTUAL_H

#include "fed_private.h"

enum { FST__MENTOR, FST__MENTEE, FST__PAIR };

/* One of the two, and its answers to a batch. */
struct fst__partner {
    fst_graph *graph; /* a copy with its last features tapped; of the mentee with a linear map to as many as the
                       * mentor's, whose weights follow the network's own */
    fst_trainer *trainer;
    fst_optim optim;
    bool has_optim;
    float *logits, *soft; /* batch x classes; soft: what the other says, as probabilities */
    float *hidden;        /* batch x width */
};

struct fst__mutual {
    const fst_graph *own, *shared; /* that it was made for */
    size_t batch, width, classes;  /* width: the mentor's features; 0: they are not compared */
    double hidden_weight;
    struct fst__partner partner[FST__PAIR];
    fst_fed_state mentee; /* its network's and, behind the network's own parameters, the map's */
};

/* For clients whose network is `own`. FST_E_CONFIG when the features are to be compared and there are none. */
FST_MUST fst_status fst__mutual_init(struct fst__mutual *m, const fst_graph *own, const fst_client_env *env,
                                     double hidden_weight, fst_error *err);
void fst__mutual_release(struct fst__mutual *m);
/* Trains c->model, the mentor, and m->mentee as the plan says. *result is the mentee's, its loss the cross entropy. */
FST_MUST fst_status fst__mutual_train(struct fst__mutual *m, fst_client_half *c, fst_local_result *result,
                                      fst_error *err);
#endif

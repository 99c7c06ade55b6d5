/* machine.h - what a run computes with, settled before its first stage and the same for all of them. */
#ifndef FST_TASK_MACHINE_H
#define FST_TASK_MACHINE_H

#include "fedstill/nn.h"

struct machine {
    const char *backend;     /* never NULL */
    int threads;             /* of central training and evaluation */
    int workers;             /* clients at the same time */
    fst_precision precision; /* in effect */
    bool check_finite;
};

/* Of a training step or an evaluation with so many samples at a time. */
fst_trainer_options fst__trainer_options(const struct machine *m, size_t batch, int threads);

#endif

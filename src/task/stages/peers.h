/* peers.h - networks that are trained along with a student: deep mutual learning, or a teacher that grows with it. */
#ifndef FST_TASK_PEERS_H
#define FST_TASK_PEERS_H

#include "session.h"

enum { FST__PEER_TENSORS = 5 };

struct peers {
    size_t count;
    bool mutual;
    fst_model model[FST__MAX_PEERS];
    fst_trainer *trainer[FST__MAX_PEERS];
    fst_optim optim[FST__MAX_PEERS];
    uint64_t dropout[FST__MAX_PEERS];
    char name[FST__MAX_PEERS][FST__PEER_TENSORS][32]; /* of the tensors in a checkpoint */
    float *logits[1 + FST__MAX_PEERS];                /* a batch; the student's come first */
    float *target;
    size_t rows, correct[FST__MAX_PEERS]; /* of this epoch, since it was begun or resumed */
};

/* Makes the networks, with random weights of their own. Release it in any case. */
fst_status fst__peers_open(struct peers *p, const struct session *s, const struct step *own,
                           const struct online_section *o, const struct training *t, fst_error *err);
void fst__peers_release(struct peers *p);
/* What a checkpoint holds of them: FST__PEER_TENSORS each at most. Returns how many. */
size_t fst__peers_tensors(struct peers *p, fst_tensor *t);
/* As many optimiser steps as the student has taken. */
void fst__peers_resumed(struct peers *p, uint64_t steps);
/* One step of the student and all peers. `in` is the student's, whose soft labels are made here. */
fst_status fst__peers_step(struct peers *p, fst_trainer *trainer, fst_state *state, fst_optim *optim,
                           const fst_step_input *in, fst_step_result *out, fst_error *err);

#endif

/* federate.h - the rounds of the kind federated_train (federate.c), whose settings are federated_train.c. */
#ifndef FST_TASK_FEDERATE_H
#define FST_TASK_FEDERATE_H

#include "session.h"

/* Runs the rounds, and saves the global model and the edges' (stage_kind.run). */
fst_status fst__federate(struct session *s, struct step *own, struct record *r, fst_error *err);

#endif

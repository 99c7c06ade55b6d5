/* feature_maps.h - a student that learns from its teacher's feature maps (FitNets, attention transfer). The teacher
 * answers live, batch by batch, since maps are too large to be kept. */
#ifndef FST_TASK_FEATURE_MAPS_H
#define FST_TASK_FEATURE_MAPS_H

#include "session.h"

struct features {
    fst_graph *learner; /* the student's network, tapped, with a regressor behind its parameters */
    fst_graph *asked;   /* the teacher's, tapped */
    fst_feature_loss loss[FST_MAX_TAPS];
    size_t count;
    /* while it trains */
    fst_model teacher;
    fst_runner *runner;
    float *rows;     /* a batch of the teacher's output */
    fst_state state; /* of the learner */
};

/* Do the settings ask for it? */
bool fst__learns_features(const struct edge_kd_section *e);
/* Whether the layers are there and fit; what cannot be known yet (a teacher's file is read) is looked at. */
fst_status fst__features_check(const struct session *s, const struct step *own, fst_error *err);
/* For a student's model. Release it in any case. */
fst_status fst__features_open(struct features *f, const struct session *s, const struct step *own,
                              const fst_model *student, size_t batch, fst_error *err);
void fst__features_release(struct features *f);
/* The learner's parameters become those of the student's network, with a new regressor. */
void fst__features_start(struct features *f, const fst_model *student, uint64_t seed);
/* ... and back: what the student has learnt. */
void fst__features_give(const struct features *f, fst_model *student);
/* Asks the teacher; the losses' targets are then those of the batch. */
fst_status fst__features_ask(struct features *f, const float *x, size_t rows, fst_error *err);

#endif

/* local_fusion.h - MergeNet on one machine: a small and a large model train on the same batches, and every few batches
 * a matrix of the small one is fused with one of the large. */
#ifndef FST_TASK_LOCAL_FUSION_H
#define FST_TASK_LOCAL_FUSION_H

#include "fusion.h"

enum { FST__LOCAL_FUSION_TENSORS = 5 + FST_FUSION_PARTS };

struct local_fusion {
    const struct local_fusion_section *settings;
    fst_model teacher;
    fst_trainer *trainer; /* of the teacher */
    fst_optim optim;
    uint64_t dropout;
    fst_fusion *fusion;
    fst_param_info target, source;
    float *before; /* the target before the fusion of this batch */
    bool open;     /* it was fused */
    size_t rows, correct;
    double loss, seconds; /* sums of this epoch, since it was begun or resumed */
    size_t steps;
};

/* Release it in any case. */
fst_status fst__local_fusion_open(struct local_fusion *l, const struct session *s, const struct step *own,
                                  const struct local_fusion_section *settings, const fst_model *student,
                                  const struct training *t, fst_error *err);
void fst__local_fusion_release(struct local_fusion *l);
/* What a checkpoint holds of it; returns how many tensors. */
size_t fst__local_fusion_tensors(struct local_fusion *l, fst_tensor *t);
/* As many steps as the student has taken. */
void fst__local_fusion_resumed(struct local_fusion *l, uint64_t steps);
/* Before the student's step number `step`: fuses where it is time to. */
fst_status fst__local_fusion_before(struct local_fusion *l, fst_state *student, uint64_t step, fst_error *err);
/* After it: the teacher's step on the same batch (`in` is the student's), then the adapter's. epoch, epochs: of its
 * rate. */
fst_status fst__local_fusion_after(struct local_fusion *l, const fst_state *student, const fst_step_input *in,
                                   int64_t epoch, int64_t epochs, fst_error *err);
void fst__local_fusion_record(const struct local_fusion *l, struct record *r);
/* The event of an epoch. */
void fst__local_fusion_tell(struct local_fusion *l, struct session *s, int64_t epoch);

#endif

/* What running a model and timing it share. */
#ifndef FST_INFER_APPLY_H
#define FST_INFER_APPLY_H

#include "fedstill/infer.h"

/* How many samples a spec names. */
size_t fst__measured_samples(const fst_measure_spec *s);
/* Sizes of a spec, and whether the model can judge its samples. */
FST_MUST fst_status fst__check_measured(const fst_model *m, const fst_measure_spec *s, fst_error *err);
/* A runner of `batch` rows that holds the model's state. */
FST_MUST fst_status fst__model_runner(fst_runner **out, const fst_model *m, const fst_measure_spec *s, size_t batch,
                                      int threads, fst_error *err);

#endif

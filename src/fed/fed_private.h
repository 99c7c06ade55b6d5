/* What files of this layer share and nobody else sees. */
#ifndef FEDSTILL_FED_PRIVATE_H
#define FEDSTILL_FED_PRIVATE_H

#include "fedstill/fed.h"

/* fst_accumulator_add in two steps, so that several sums take an update together or not at all. */
FST_MUST fst_status fst__accumulator_check_weight(const fst_accumulator *a, int64_t weight, fst_error *err);
void fst__accumulator_add_checked(fst_accumulator *a, const float *x, int64_t weight);
/* The addition with at most instruction set `level` (0 plain, 1 AVX2, 2 AVX-512), for tests. */
void fst__accumulator_add_level(fst_accumulator *a, const float *x, int32_t weight, int level);

/* The sample-weighted mean of whole states, shared by the strategies that start from one. */
typedef struct fst__average {
    fst_accumulator params, buffers;
    int64_t *counters; /* the largest so far */
    size_t ncounters;
    bool any;
} fst__average;
FST_MUST fst_status fst__average_init(fst__average *a, fst_fed_size size, fst_error *err);
void fst__average_release(fst__average *a);
void fst__average_clear(fst__average *a);
FST_MUST fst_status fst__average_fold(fst__average *a, const fst_update *u, fst_error *err);
/* global becomes the mean; *step_norm the length of params' step. */
FST_MUST fst_status fst__average_publish(const fst__average *a, fst_fed_state *global, double *step_norm,
                                         fst_error *err);
/* The same for all that is not trained: buffers become the mean, counters the largest. */
FST_MUST fst_status fst__average_publish_rest(const fst__average *a, fst_fed_state *global, fst_error *err);
/* lane[i mod FST__LANES] += (a[i] - b[i])^2: a sum with one order, whatever vectors the compiler makes of it. */
enum { FST__LANES = 8 };
void fst__add_squares(double lane[FST__LANES], const float *a, const float *b, size_t n);
double fst__sum_lanes(const double lane[FST__LANES]);

extern const fst_strategy_ops fst__strategy_fedavg, fst__strategy_fedprox, fst__strategy_fedavgm,
    fst__strategy_fedadagrad, fst__strategy_fedadam, fst__strategy_fedyogi;

#endif

/*
 * fedstill/aggregate.h - how many clients' arrays become one: exact sums, server optimisers, robust rules.
 *
 * A model's state is seen as three plain spans, so nothing here knows a network:
 *   params    floats that are trained; averaged with the clients' sample counts as weights
 *   buffers   floats that are not trained (running statistics of batch norm); averaged the same way
 *   counters  integers (num_batches_tracked); the largest is taken
 */
#ifndef FEDSTILL_AGGREGATE_H
#define FEDSTILL_AGGREGATE_H

#include "fedstill/base.h"

FST_BEGIN_DECLS

/* ---- model state -------------------------------------------------------------------------- */

typedef struct fst_fed_size {
    size_t params, buffers, counters; /* elements */
} fst_fed_size;

/* A span may be NULL when its size is 0. */
typedef struct fst_fed_state {
    float *params, *buffers;
    int64_t *counters;
    fst_fed_size size;
} fst_fed_state;

typedef struct fst_fed_view {
    const float *params, *buffers;
    const int64_t *counters;
    fst_fed_size size;
} fst_fed_view;

FST_API fst_fed_view fst_fed_state_view(const fst_fed_state *s);
/* What such a state costs on the wire: 4 bytes a float, 8 a counter. */
FST_API uint64_t fst_fed_size_bytes(fst_fed_size size);
FST_API bool fst_fed_size_equal(fst_fed_size a, fst_fed_size b);
/* A zeroed state in one allocation. _release takes NULL and zeroed objects. */
FST_MUST FST_API fst_status fst_fed_state_init(fst_fed_state *s, fst_fed_size size, fst_error *err);
FST_API void fst_fed_state_release(fst_fed_state *s);
/* Sizes must be equal (the caller's duty). */
FST_API void fst_fed_state_copy(fst_fed_state *dst, const fst_fed_view *src);

/* ---- exact sums --------------------------------------------------------------------------- */

/*
 * The weighted sum of float arrays in 128-bit fixed point, whose bits do not depend on the order of
 * arrival, on the number of workers or on how partial sums were merged.
 *
 * Range:     every |x| must be below 2^31 and finite; one weight is 0 ... 2^31-1, the sum of the
 *            weights at most 2^32-1. Within that the sum cannot overflow.
 * Precision: an element is taken as a multiple of 2^-62. That is exact for 0 and for every
 *            |x| >= 2^-39; smaller ones (subnormals too) are rounded to the nearest multiple, which
 *            moves them by at most 2^-63. Products and sums after that are exact. The mean is
 *            rounded once, to the nearest float (ties to even): it is the correctly rounded mean of
 *            the elements as taken. A mean that is zero is +0.
 * Memory:    16 bytes an element. Adding and averaging do not allocate.
 *
 * The fields may be read (to save them); writing them is for this code only. Element i of the sum
 * is (hi[i] * 2^64 + lo[i]) * 2^-64.
 */
typedef struct fst_accumulator {
    size_t count;    /* elements */
    uint64_t weight; /* sum of the weights so far */
    uint64_t *lo;
    int64_t *hi;
} fst_accumulator;

#define FST_ACCUMULATOR_MAX_WEIGHT INT64_C(0x7FFFFFFF) /* of one addition */
#define FST_ACCUMULATOR_MAX_TOTAL UINT64_C(0xFFFFFFFF) /* of all */

FST_MUST FST_API fst_status fst_accumulator_init(fst_accumulator *a, size_t count, fst_error *err);
FST_API void fst_accumulator_release(fst_accumulator *a);
/* Back to an empty sum. */
FST_API void fst_accumulator_clear(fst_accumulator *a);
/* Whether x may be added: FST_E_NUMERIC names the first element that is not finite or too large. */
FST_MUST FST_API fst_status fst_accumulator_check(const float *x, size_t count, fst_error *err);
/* sum += weight * x. Everything is checked before the first element is added: after a failure
 * (FST_E_NUMERIC for x, FST_E_LIMIT for the total weight, FST_E_ARGUMENT for this weight) the sum is what
 * it was. A weight of 0 adds nothing. */
FST_MUST FST_API fst_status fst_accumulator_add(fst_accumulator *a, const float *x, int64_t weight, fst_error *err);
/* sum += the sum in b; exact. */
FST_MUST FST_API fst_status fst_accumulator_merge(fst_accumulator *a, const fst_accumulator *b, fst_error *err);
/* out[0 ... count-1] = mean of elements first ... first+count-1. FST_E_ARGUMENT when nothing with a weight
 * was added. */
FST_MUST FST_API fst_status fst_accumulator_mean_range(const fst_accumulator *a, size_t first, size_t count, float *out,
                                                       fst_error *err);
/* All of them: out has a->count elements. */
FST_MUST FST_API fst_status fst_accumulator_mean(const fst_accumulator *a, float *out, fst_error *err);

/* ---- server optimisers -------------------------------------------------------------------- */

/*
 * FedOpt (Reddi et al., Adaptive federated optimization, ICLR 2021; FedAvgM: Hsu et al. 2019): the server takes the
 * clients' mean step d = mean - x as a gradient that points the right way. Moments are kept in float, arithmetic is in
 * double, element by element: nothing depends on threads.
 *   momentum  m = momentum m + d;               x += lr m
 *   others    m = beta1 m + (1 - beta1) d;      x += lr m / (sqrt(v) + tau), without bias correction
 *     adagrad  v += d^2
 *     adam     v = beta2 v + (1 - beta2) d^2
 *     yogi     v -= (1 - beta2) d^2 sign(v - d^2)
 */
typedef enum fst_server_kind {
    FST_SERVER_MOMENTUM,
    FST_SERVER_ADAGRAD,
    FST_SERVER_ADAM,
    FST_SERVER_YOGI
} fst_server_kind;
FST_API const char *fst_server_kind_name(fst_server_kind k); /* "momentum", "adagrad", ... */

typedef struct fst_server_spec {
    fst_server_kind kind;
    double learning_rate; /* > 0 */
    double momentum;      /* momentum: [0, 1) */
    double beta1, beta2;  /* [0, 1); adagrad: the paper's beta1 is 0, beta2 is not used */
    double tau;           /* > 0: how adaptive; small is more */
    double v_init;        /* v before the first step, >= 0; 0 means tau^2 */
} fst_server_spec;

typedef struct fst_server_optim {
    fst_server_spec spec;
    size_t count;
    float *m, *v; /* count each; v is NULL for momentum */
} fst_server_optim;

FST_MUST FST_API fst_status fst_server_optim_init(fst_server_optim *o, const fst_server_spec *spec, size_t count,
                                                  fst_error *err);
FST_API void fst_server_optim_release(fst_server_optim *o);
/* Moves x[0 ... n-1], which are elements first ... first+n-1 of the span, along delta. A step of the whole span is any
 * number of such calls that cover each element once. */
FST_API void fst_server_optim_step(fst_server_optim *o, size_t first, size_t n, const double *delta, float *x);

/* ---- robust aggregation ------------------------------------------------------------------- */

/*
 * Aggregation rules that tolerate faulty or malicious clients. They need all updates at the same time:
 * memory is O(clients x model), by nature. Each takes n client states of one size and fills *out, of that size
 * too; parameters and buffers are treated alike, of counters the largest is taken. Nothing depends on the order of
 * the clients, bit for bit. Weights by samples are left out but in the geometric median: a client that lies may
 * lie about them.
 * FST_E_NUMERIC names a client with NaN or infinity; FST_E_MISMATCH one of another size.
 */
/* Of each coordinate; of an even number the mean of the middle two. Yin et al., ICML 2018. */
FST_MUST FST_API fst_status fst_robust_median(const fst_fed_view *client, size_t n, fst_fed_state *out, fst_error *err);
/* Mean of each coordinate without its floor(trim n) smallest and as many largest values, 0 <= trim < 0.5. Yin et al. */
FST_MUST FST_API fst_status fst_robust_trimmed_mean(const fst_fed_view *client, size_t n, double trim,
                                                    fst_fed_state *out, fst_error *err);
/*
 * Krum (m 1) and multi-Krum (Blanchard et al., NeurIPS 2017). A client's score is the sum of its n-f-2 smallest squared
 * distances to the others; the mean of the m best, 1 <= m <= n-f, is the result. Bears f liars of n >= 2f+3
 * (FST_E_ARGUMENT below that). chosen (m numbers, best first) and score (n) may be NULL. Equal scores are decided by
 * the contents.
 */
FST_MUST FST_API fst_status fst_robust_krum(const fst_fed_view *client, size_t n, size_t f, size_t m,
                                            fst_fed_state *out, size_t *chosen, double *score, fst_error *err);
/* Bulyan (El Mhamdi et al., ICML 2018): Krum chooses the best client of those that are left, n-2f times; then each
 * coordinate is the mean of the n-4f chosen values that are closest to their median (of two as close the smaller).
 * Bears f liars of n >= 4f+3 (FST_E_ARGUMENT below that). */
FST_MUST FST_API fst_status fst_robust_bulyan(const fst_fed_view *client, size_t n, size_t f, fst_fed_state *out,
                                              fst_error *err);
/* Weiszfeld's iteration for the point of the least weighted sum of distances: from the weighted mean, `iterations`
 * times z = sum(r x)/sum(r), r = weight/max(|x - z|, eps). weight NULL: 1 each. Pillutla et al., IEEE TSP 2022. */
FST_MUST FST_API fst_status fst_robust_geometric_median(const fst_fed_view *client, const double *weight, size_t n,
                                                        int iterations, double eps, fst_fed_state *out, fst_error *err);

FST_END_DECLS

#endif

/* The sample-weighted mean of whole model states, taken in as they arrive: what FedAvg publishes and
 * what several other strategies start from. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

enum { BLOCK = 1024 };

fst_status fst__average_init(fst__average *a, fst_fed_size size, fst_error *err)
{
    fst__average n = {.ncounters = size.counters};
    fst_status s = fst_accumulator_init(&n.params, size.params, err);
    if (!s)
        s = fst_accumulator_init(&n.buffers, size.buffers, err);
    if (!s && !(n.counters = fst_calloc(size.counters, sizeof *n.counters)))
        s = fst_fail_memory(err, size.counters * sizeof *n.counters);
    if (s)
        fst__average_release(&n);
    else
        *a = n;
    return s;
}

void fst__average_release(fst__average *a)
{
    fst_accumulator_release(&a->params);
    fst_accumulator_release(&a->buffers);
    fst_free(a->counters);
    *a = (fst__average){0};
}

void fst__average_clear(fst__average *a)
{
    fst_accumulator_clear(&a->params);
    fst_accumulator_clear(&a->buffers);
    a->any = false;
}

fst_status fst__average_fold(fst__average *a, const fst_fed_view *state, int64_t weight, fst_error *err)
{
    fst_status s = fst__accumulator_check_weight(&a->params, weight, err);
    if (s)
        return s;
    s = fst_accumulator_check(state->params, a->params.count, err);
    if (s)
        return fst_fail_in(err, s, "parameters");
    s = fst_accumulator_check(state->buffers, a->buffers.count, err);
    if (s)
        return fst_fail_in(err, s, "buffers");
    fst__accumulator_add_checked(&a->params, state->params, weight);
    fst__accumulator_add_checked(&a->buffers, state->buffers, weight);
    for (size_t i = 0; i < a->ncounters; i++)
        if (!a->any || state->counters[i] > a->counters[i])
            a->counters[i] = state->counters[i];
    a->any = true;
    return FST_OK;
}

void fst__add_squares(double lane[FST__LANES], const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i += FST__LANES)
        for (size_t j = 0; j < FST__LANES && i + j < n; j++) {
            double d = (double)a[i + j] - (double)b[i + j];
            lane[j] += d * d;
        }
}

double fst__sum_lanes(const double lane[FST__LANES])
{
    double sum = 0;
    for (int i = 0; i < FST__LANES; i++)
        sum += lane[i];
    return sum;
}

fst_status fst__average_publish_rest(const fst__average *a, fst_fed_state *global, fst_error *err)
{
    if (a->buffers.count) {
        fst_status s = fst_accumulator_mean(&a->buffers, global->buffers, err);
        if (s)
            return s;
    }
    if (a->ncounters)
        memcpy(global->counters, a->counters, a->ncounters * sizeof *a->counters);
    return FST_OK;
}

fst_status fst__average_step(const fst__average *a, double reach, fst_fed_state *global, double *step_norm,
                             fst_error *err)
{
    double weight = (double)a->params.weight, sum[BLOCK], lane[FST__LANES] = {0};
    float before[BLOCK];
    for (size_t at = 0; at < global->size.params; at += BLOCK) {
        size_t n = global->size.params - at < BLOCK ? global->size.params - at : BLOCK;
        float *x = global->params + at;
        memcpy(before, x, n * sizeof *x);
        fst__accumulator_sum_range(&a->params, at, n, sum);
        for (size_t i = 0; i < n; i++)
            x[i] = (float)((double)x[i] + reach * (sum[i] / weight));
        fst__add_squares(lane, x, before, n);
    }
    *step_norm = sqrt(fst__sum_lanes(lane));
    return fst__average_publish_rest(a, global, err);
}

fst_status fst__average_publish(const fst__average *a, fst_fed_state *global, double *step_norm, fst_error *err)
{
    float mean[BLOCK];
    double lane[FST__LANES] = {0};
    if (!a->any)
        return fst_fail(err, FST_E_ARGUMENT, "nothing was folded: there is no mean to publish");
    for (size_t at = 0; at < a->params.count; at += BLOCK) {
        size_t n = a->params.count - at < BLOCK ? a->params.count - at : BLOCK;
        fst_status s = fst_accumulator_mean_range(&a->params, at, n, mean, err);
        if (s)
            return s; /* only ever at the first block: the arguments of the others are as good */
        fst__add_squares(lane, mean, global->params + at, n);
        memcpy(global->params + at, mean, n * sizeof *mean);
    }
    *step_norm = sqrt(fst__sum_lanes(lane));
    return fst__average_publish_rest(a, global, err);
}

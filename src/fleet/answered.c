/* Counting answers, see answered.h. */
#include "answered.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

const double fst__latency_bucket[FST__LATENCY_BUCKETS] = {0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10};

void fst__answered_add(struct answered *a, const struct stream_answer *answer, double seconds)
{
    int tier = answer->tier == TIER_CLOUD ? TIER_CLOUD : TIER_EDGE;
    size_t i = 0;
    while (i < FST__LATENCY_BUCKETS && seconds > fst__latency_bucket[i])
        i++;
    a->latest[fst__answered_all(a) % FST__LATEST] = (float)seconds;
    a->in[tier][i]++;
    a->windows[tier]++;
    a->seconds[tier] += seconds;
    a->unsure += (answer->marks & MARK_UNSURE) != 0;
    a->refused += (answer->marks & MARK_REFUSED) != 0;
}

uint64_t fst__answered_all(const struct answered *a)
{
    return a->windows[TIER_EDGE] + a->windows[TIER_CLOUD];
}

double fst__offload_ratio(const struct answered *a)
{
    return a->decided ? (double)a->passed / (double)a->decided : NAN;
}

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

double fst__answered_within(const struct answered *a, double q)
{
    float sorted[FST__LATEST];
    uint64_t all = fst__answered_all(a);
    size_t n = all < FST__LATEST ? (size_t)all : FST__LATEST;
    if (!n)
        return NAN;
    memcpy(sorted, a->latest, n * sizeof *sorted);
    qsort(sorted, n, sizeof *sorted, by_size);
    size_t at = (size_t)ceil(q * (double)n);
    return sorted[at ? at - 1 : 0];
}

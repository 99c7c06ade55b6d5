/*
 * Temperatures and weights that change over the epochs. A value follows from the epoch and the last validation accuracy
 * alone, so that whoever resumes a training finds the same one.
 */
#include <math.h>

#include "fedstill/distill.h"

const char *fst_ramp_kind_name(fst_ramp_kind k)
{
    static const char *const names[] = {"linear", "cosine", "step", "accuracy"};
    return (size_t)k < sizeof names / sizeof *names ? names[k] : "?";
}

static double within(double x)
{
    return x > 0 ? x < 1 ? x : 1 : 0; /* a NaN is 0 */
}

/* How much of the way is done: 0 to 1. */
static double share_done(const fst_ramp *r, int64_t epoch, double accuracy)
{
    double share = r->epochs > 1 ? within((double)epoch / (double)(r->epochs - 1)) : 1;
    int passed = 0;
    switch (r->kind) {
    case FST_RAMP_LINEAR:
        return share;
    case FST_RAMP_COSINE:
        return (1 - cos(3.14159265358979323846 * share)) / 2;
    case FST_RAMP_STEP:
        for (int i = 0; i < r->milestone_count; i++)
            passed += epoch >= r->milestones[i];
        return r->milestone_count ? (double)passed / r->milestone_count : 1;
    default:
        return within((accuracy - r->low) / (r->high - r->low));
    }
}

double fst_ramp_at(const fst_ramp *r, int64_t epoch, double accuracy)
{
    double share = share_done(r, epoch, accuracy);
    return share < 1 ? r->from + (r->to - r->from) * share : r->to; /* `to` itself, not nearly */
}

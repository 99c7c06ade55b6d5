/* Learning rates by epoch. */
#include <math.h>

#include "fedstill/nn.h"

static double cosine(double base, double eta_min, double at, double total)
{
    if (total <= 0)
        return base;
    if (at >= total) /* after its end the formula would climb again */
        return eta_min;
    return eta_min + (base - eta_min) * (1 + cos(3.14159265358979323846 * at / total)) / 2;
}

static double multistep(const fst_schedule *s, double base, int64_t epoch)
{
    double rate = base;
    for (int i = 0; i < s->milestone_count; i++)
        if (epoch >= s->milestones[i])
            rate *= s->gamma;
    return rate;
}

double fst_schedule_rate(const fst_schedule *s, double base, int64_t epoch)
{
    switch (s->kind) {
    case FST_SCHEDULE_COSINE:
        return cosine(base, s->eta_min, (double)epoch, (double)s->total);
    case FST_SCHEDULE_MULTISTEP:
        return multistep(s, base, epoch);
    case FST_SCHEDULE_STEP:
        return s->step_size > 0 ? base * pow(s->gamma, (double)(epoch / s->step_size)) : base;
    case FST_SCHEDULE_WARMUP_COSINE:
        if (epoch < s->warmup)
            return base * (double)(epoch + 1) / (double)s->warmup;
        return cosine(base, s->eta_min, (double)(epoch - s->warmup), (double)(s->total - s->warmup));
    default:
        return base;
    }
}

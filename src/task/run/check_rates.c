/*
 * Learning rates and weights that never become what a task says, told before its stages start: a rate that would change
 * only behind the last epoch stays as it is, which is right now and then (a short first try) and seldom what was meant.
 * All follows from the task file; nothing is read or computed here.
 */
#include "session.h"

static int64_t first_milestone(const struct schedule_section *s)
{
    int64_t first = s->milestones[0];
    for (size_t i = 1; i < s->milestone_count; i++)
        first = s->milestones[i] < first ? s->milestones[i] : first;
    return first;
}

fst_status fst__check_schedule(const struct step *own, const struct schedule_section *s,
                               const struct optimizer_section *o, int64_t total, const char *unit, fst_error *err)
{
    const char *stage = own->stage->name;
    bool cosine = s->name == FST_SCHEDULE_COSINE || s->name == FST_SCHEDULE_WARMUP_COSINE;
    bool multistep = s->name == FST_SCHEDULE_MULTISTEP;
    int64_t first = multistep ? first_milestone(s) : s->step_size;
    if (cosine && s->eta_min > o->learning_rate)
        return fst_fail(err, FST_E_CONFIG,
                        "stages.%s.schedule.eta_min: is %g, above optimizer.learning_rate (%g), so that the rate would "
                        "rise: the lowest rate is meant",
                        stage, s->eta_min, o->learning_rate);
    if ((multistep || s->name == FST_SCHEDULE_STEP) && first >= total)
        fst_log(FST_LOG_WARN,
                "stages.%s.schedule.%s: the first change is after %lld %s, and there are %lld: the "
                "learning rate stays %g",
                stage, multistep ? "milestones" : "step_size", (long long)first, unit, (long long)total,
                o->learning_rate);
    if (s->name == FST_SCHEDULE_WARMUP_COSINE && s->warmup >= total)
        fst_log(FST_LOG_WARN,
                "stages.%s.schedule.warmup: is %lld, and there are %lld %s: the learning rate only rises, and the "
                "cosine never begins",
                stage, (long long)s->warmup, (long long)total, unit);
    return FST_OK;
}

/*
 * Learning rates and weights that never become what a task says, told before its stages start: a rate that would change
 * only behind the last epoch stays as it is, which is right now and then (a short first try) and seldom what was meant.
 * All follows from the task file; nothing is read or computed here.
 */
#include <string.h>

#include "session.h"

/* What a schedule belongs to. */
struct run_of {
    const char *stage; /* also the key: stages.STAGE */
    int64_t epochs;
    const char *unit; /* "epochs" or "rounds" */
};

static int64_t first_milestone(const struct schedule_section *s)
{
    int64_t first = s->milestones[0];
    for (size_t i = 1; i < s->milestone_count; i++)
        first = s->milestones[i] < first ? s->milestones[i] : first;
    return first;
}

static fst_status check_schedule(const struct run_of *r, const struct schedule_section *s,
                                 const struct optimizer_section *o, fst_error *err)
{
    bool cosine = s->name == FST_SCHEDULE_COSINE || s->name == FST_SCHEDULE_WARMUP_COSINE;
    bool multistep = s->name == FST_SCHEDULE_MULTISTEP;
    int64_t first = multistep ? first_milestone(s) : s->step_size;
    if (cosine && s->eta_min > o->learning_rate)
        return fst_fail(err, FST_E_CONFIG,
                        "stages.%s.schedule.eta_min: is %g, above optimizer.learning_rate (%g), so that the rate would "
                        "rise: the lowest rate is meant",
                        r->stage, s->eta_min, o->learning_rate);
    if ((multistep || s->name == FST_SCHEDULE_STEP) && first >= r->epochs)
        fst_log(FST_LOG_WARN,
                "stages.%s.schedule.%s: the first change is after %lld %s, and there are %lld: the "
                "learning rate stays %g",
                r->stage, multistep ? "milestones" : "step_size", (long long)first, r->unit, (long long)r->epochs,
                o->learning_rate);
    if (s->name == FST_SCHEDULE_WARMUP_COSINE && s->warmup >= r->epochs)
        fst_log(FST_LOG_WARN,
                "stages.%s.schedule.warmup: is %lld, and there are %lld %s: the learning rate only rises, and the "
                "cosine never begins",
                r->stage, (long long)s->warmup, (long long)r->epochs, r->unit);
    return FST_OK;
}

static fst_status check_training(const char *stage, const struct training *t, fst_error *err)
{
    return check_schedule(&(struct run_of){stage, t->epochs, "epochs"}, &t->schedule, &t->optimizer, err);
}

/* A value that never gets to where its setting says. */
static void check_ramp(const char *key, bool there, const struct ramp_section *r, int64_t epochs)
{
    int64_t last = r->over;
    for (size_t i = 0; r->name == FST_RAMP_STEP && i < r->milestone_count; i++)
        last = r->milestones[i] + 1 > last ? r->milestones[i] + 1 : last;
    if (there && last > epochs)
        fst_log(FST_LOG_WARN,
                "stages.edge_kd.%s: takes %lld epochs, and there are %lld: %.*s never gets to its last value", key,
                (long long)last, (long long)epochs, (int)(strlen(key) - strlen("_schedule")), key);
}

static fst_status check_distillation(const struct edge_kd_section *e, fst_error *err)
{
    if (e->kd_loss == FST_KD_DKD && e->dkd.warmup_epochs > e->training.epochs)
        fst_log(FST_LOG_WARN,
                "stages.edge_kd.dkd.warmup_epochs: is %lld, and there are %lld epochs: kd_weight never gets to %g",
                (long long)e->dkd.warmup_epochs, (long long)e->training.epochs, e->kd_weight);
    check_ramp("temperature_schedule", e->has_temperature_schedule, &e->temperature_schedule, e->training.epochs);
    check_ramp("ce_weight_schedule", e->has_ce_weight_schedule, &e->ce_weight_schedule, e->training.epochs);
    check_ramp("kd_weight_schedule", e->has_kd_weight_schedule, &e->kd_weight_schedule, e->training.epochs);
    return check_training("edge_kd", &e->training, err);
}

fst_status fst__check_rates(const struct session *s, const bool chosen[STAGES], fst_error *err)
{
    const struct stages_section *f = &s->task->file.stages;
    const struct federated_section *rounds = &f->federated_train;
    fst_status st = chosen[0] ? check_training("cloud_pretrain", &f->cloud_pretrain, err) : FST_OK;
    if (!st && chosen[2])
        st = check_distillation(&f->edge_kd, err);
    if (!st && chosen[3] && rounds->has_schedule)
        st = check_schedule(&(struct run_of){"federated_train", rounds->rounds, "rounds"}, &rounds->schedule,
                            &rounds->optimizer, err);
    return st;
}

/*
 * Supervised training of one model: epochs over the training samples, a checkpoint now and then, going
 * on from it bit for bit. The best epoch is kept when there are validation samples, else the last; test
 * samples are never looked at here.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "feature_maps.h"
#include "local_fusion.h"
#include "peers.h"
#include "session.h"

struct course {
    struct session *s;
    const struct lesson *lesson;
    fst_model *model;
    struct features features;   /* of a lesson that has them: then `state` is theirs */
    fst_state *state;           /* what is trained: the model's, or one that begins with it */
    fst_parts parts;            /* of a lesson that is iterated, */
    int64_t round;              /* whose part the loader has, */
    double round_best;          /* the best accuracy at the end of a round, */
    int64_t stale;              /* and rounds since */
    struct peers peers;         /* of a lesson with an online part */
    struct local_fusion fusion; /* of a lesson with a fusion */
    fst_graph *rounds; /* of a lesson for int8: the network with its rounding, which has the same state; else NULL */
    fst_trainer *trainer;
    fst_loader *loader;
    fst_optim optim;
    int64_t *counts;           /* by class, of the samples to learn from */
    double *room;              /* by class, for weights that follow from them */
    const double *weight;      /* by class; NULL: all 1 */
    fst_curriculum curriculum; /* of a lesson that learns its temperature */
    fst_state best;
    double best_accuracy; /* or what early stopping compares, more being better; of best_epoch */
    int64_t best_epoch;
    char *checkpoint, *last; /* paths; the latter: its end, FST__LAST */
    bool saved_once;         /* the checkpoint is there, and of this course */
    /* where we are */
    int64_t epoch;
    size_t batch, rows, correct;
    double loss_sum, seconds_before, started;
    double validated; /* the last validation accuracy; 0 before the first */
    struct save_clock saves;
    int64_t steps_since_save;
};

fst_optim_spec fst__optim_spec(const struct optimizer_section *o, double clip_norm)
{
    return (fst_optim_spec){.kind = (fst_optim_kind)o->name,
                            .learning_rate = o->learning_rate,
                            .weight_decay = o->weight_decay,
                            .momentum = o->momentum,
                            .nesterov = o->nesterov,
                            .beta1 = o->beta1,
                            .beta2 = o->beta2,
                            .eps = o->eps,
                            .clip_norm = clip_norm};
}

bool fst__total_free(const struct schedule_section *s)
{
    return s->name != FST_SCHEDULE_COSINE && s->name != FST_SCHEDULE_WARMUP_COSINE;
}

fst_schedule fst__schedule(const struct schedule_section *t, int64_t total)
{
    fst_schedule s = {.kind = (fst_schedule_kind)t->name,
                      .eta_min = t->eta_min,
                      .gamma = t->gamma,
                      .total = total,
                      .warmup = t->warmup,
                      .step_size = t->step_size,
                      .milestone_count = (int)t->milestone_count};
    memcpy(s.milestones, t->milestones, sizeof s.milestones);
    return s;
}

/* ---- checkpoints ---------------------------------------------------------------------------------- */

enum { MAX_TENSORS = 11 + FST__MAX_PEERS * FST__PEER_TENSORS + FST__LOCAL_FUSION_TENSORS };

static size_t course_tensors(struct course *c, fst_tensor *t)
{
    size_t n = 0;
    const fst_state *s = c->state, *b = &c->best;
    int64_t p = (int64_t)s->param_count, f = (int64_t)s->buffer_count, k = (int64_t)s->counter_count;
    int64_t best = (int64_t)b->param_count;
    t[n++] = (fst_tensor){"params", FST_F32, FST_SHAPE(p), s->params};
    t[n++] = (fst_tensor){"buffers", FST_F32, FST_SHAPE(f), s->buffers};
    t[n++] = (fst_tensor){"counters", FST_I64, FST_SHAPE(k), s->counters};
    if (c->optim.moment1)
        t[n++] = (fst_tensor){"moment1", FST_F32, FST_SHAPE(p), c->optim.moment1};
    if (c->optim.moment2)
        t[n++] = (fst_tensor){"moment2", FST_F32, FST_SHAPE(p), c->optim.moment2};
    if (c->lesson->curriculum) {
        fst_curriculum *learnt = &c->curriculum;
        t[n++] = (fst_tensor){"theta", FST_F32, FST_SHAPE(1), &learnt->theta};
        if (learnt->optim.moment1)
            t[n++] = (fst_tensor){"theta.moment1", FST_F32, FST_SHAPE(1), learnt->optim.moment1};
        if (learnt->optim.moment2)
            t[n++] = (fst_tensor){"theta.moment2", FST_F32, FST_SHAPE(1), learnt->optim.moment2};
    }
    if (b->params) {
        t[n++] = (fst_tensor){"best.params", FST_F32, FST_SHAPE(best), b->params};
        t[n++] = (fst_tensor){"best.buffers", FST_F32, FST_SHAPE(f), b->buffers};
        t[n++] = (fst_tensor){"best.counters", FST_I64, FST_SHAPE(k), b->counters};
    }
    n += fst__local_fusion_tensors(&c->fusion, t + n);
    return n + fst__peers_tensors(&c->peers, t + n);
}

static bool follows_accuracy(const struct lesson *l)
{
    bool so = false;
    for (int i = 0; i < MOVES; i++)
        so = so || (l->moves[i] && l->ramp[i].kind == FST_RAMP_ACCURACY);
    return so;
}

/* An iterated lesson has its epochs once for part A and once a round. */
static int64_t all_epochs(const struct lesson *l)
{
    return l->training->epochs * (l->iterated ? 1 + l->iterated->rounds : 1);
}

/* The epoch within its part: schedules begin anew with each. */
static int64_t epoch_of_part(const struct course *c)
{
    return c->lesson->iterated ? c->epoch % c->lesson->training->epochs : c->epoch;
}

static fst_status put_values(struct course *c, fst_checkpoint_writer *w, fst_error *err)
{
    fst_status st = fst_checkpoint_put_int(w, "epoch", c->epoch, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "batch", c->batch, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "steps", c->optim.steps, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "rows", c->rows, err);
    if (!st)
        st = fst_checkpoint_put_uint(w, "correct", c->correct, err);
    if (!st)
        st = fst_checkpoint_put_double(w, "loss_sum", c->loss_sum, err);
    if (!st)
        st = fst_checkpoint_put_double(w, "best_accuracy", c->best_accuracy, err);
    if (!st)
        st = fst_checkpoint_put_int(w, "best_epoch", c->best_epoch, err);
    if (!st && follows_accuracy(c->lesson))
        st = fst_checkpoint_put_double(w, "validated", c->validated, err);
    if (!st && c->lesson->iterated)
        st = fst_checkpoint_put_double(w, "round_best", c->round_best, err);
    if (!st && c->lesson->iterated)
        st = fst_checkpoint_put_int(w, "stale", c->stale, err);
    if (!st)
        st = fst_checkpoint_put_double(w, "seconds", c->seconds_before + fst_clock_seconds() - c->started, err);
    return st;
}

/* Puts before a message where the course was, and what is left of it. c->batch steps of the epoch are done. */
static fst_status explain(const struct course *c, fst_status st, fst_error *err)
{
    const struct lesson *l = c->lesson;
    size_t steps = fst_loader_batches(c->loader), at = c->batch < steps ? c->batch + 1 : steps;
    if (c->saved_once)
        return fst_fail_in(err, st, "%s: epoch %lld of %lld, step %zu of %zu (the last good state is in %s)",
                           l->step->stage->name, (long long)c->epoch + 1, (long long)all_epochs(l), at, steps,
                           c->checkpoint);
    return fst_fail_in(err, st, "%s: epoch %lld of %lld, step %zu of %zu (no checkpoint had been saved before)",
                       l->step->stage->name, (long long)c->epoch + 1, (long long)all_epochs(l), at, steps);
}

static fst_status save(struct course *c, const char *path, fst_error *err)
{
    double began = fst_clock_seconds();
    fst_tensor t[MAX_TENSORS];
    fst_checkpoint_writer *w = NULL;
    /* a spoilt state must not take the place of the last good one */
    fst_status st = fst__state_sound(c->state, err);
    if (st)
        return explain(c, st, err);
    st = fst_checkpoint_writer_new(&w, c->lesson->step->resumes, err);
    if (!st)
        st = fst_checkpoint_add_all(w, t, course_tensors(c, t), err);
    if (!st)
        st = put_values(c, w, err);
    if (!st)
        st = fst_checkpoint_write(w, path, NULL, err);
    fst_checkpoint_writer_free(w);
    c->saves = fst__saved(began);
    c->steps_since_save = 0;
    c->saved_once = c->saved_once || !st;
    return st ? fst_fail_in(err, st, "%s: saving progress", c->lesson->step->stage->name) : FST_OK;
}

/* Outputs are untouched on failure. */
static fst_status get_values(struct course *c, const fst_checkpoint *k, fst_error *err)
{
    struct course n = *c;
    uint64_t batch = 0, rows = 0, correct = 0;
    uint64_t most = c->lesson->iterated ? c->s->data.cloud.learn : fst_loader_batches(c->loader);
    fst_status st = fst_checkpoint_int(k, "epoch", &n.epoch, err);
    if (!st)
        st = fst_checkpoint_uint(k, "batch", &batch, err);
    if (!st)
        st = fst_checkpoint_uint(k, "steps", &n.optim.steps, err);
    if (!st)
        st = fst_checkpoint_uint(k, "rows", &rows, err);
    if (!st)
        st = fst_checkpoint_uint(k, "correct", &correct, err);
    if (!st)
        st = fst_checkpoint_double(k, "loss_sum", &n.loss_sum, err);
    if (!st)
        st = fst_checkpoint_double(k, "best_accuracy", &n.best_accuracy, err);
    if (!st)
        st = fst_checkpoint_int(k, "best_epoch", &n.best_epoch, err);
    if (!st && follows_accuracy(c->lesson))
        st = fst_checkpoint_double(k, "validated", &n.validated, err);
    if (!st && c->lesson->iterated)
        st = fst_checkpoint_double(k, "round_best", &n.round_best, err);
    if (!st && c->lesson->iterated)
        st = fst_checkpoint_int(k, "stale", &n.stale, err);
    if (!st)
        st = fst_checkpoint_double(k, "seconds", &n.seconds_before, err);
    if (!st && (n.epoch < 0 || n.epoch > all_epochs(c->lesson) || batch > most))
        st = fst_fail(err, FST_E_MISMATCH, "%s: its epoch and step are not of this training", c->checkpoint);
    if (st)
        return st;
    n.curriculum.optim.steps = n.optim.steps; /* one of its steps goes with each of the student's */
    n.batch = (size_t)batch;
    n.rows = (size_t)rows;
    n.correct = (size_t)correct;
    *c = n;
    return FST_OK;
}

/* Goes on from a checkpoint when there is a sound one of exactly these inputs; nothing changes otherwise. */
static bool resume_from(struct course *c, const char *path)
{
    fst_tensor t[MAX_TENSORS];
    struct course before = *c;
    fst_checkpoint *k = NULL;
    fst_error why = {0};
    int64_t epoch = 0;
    if (!fst_file_exists(path))
        return false;
    fst_status st = fst_checkpoint_open(&k, path, c->lesson->step->resumes, &why);
    bool longer = !st && !fst_checkpoint_int(k, "epoch", &epoch, NULL) && epoch > all_epochs(c->lesson);
    if (st == FST_E_MISMATCH || longer) {
        fst_checkpoint_free(k);
        fst_log(FST_LOG_INFO, "%s: %s since the last checkpoint; starting anew", c->lesson->step->stage->name,
                longer ? "there were more epochs" : "settings or inputs changed");
        return false;
    }
    if (!st)
        st = get_values(c, k, &why);
    if (!st)
        st = fst_checkpoint_load(k, t, course_tensors(c, t), &why);
    fst_checkpoint_free(k);
    if (st) {
        *c = before;
        fst_log(FST_LOG_WARN, "%s; starting anew", why.message);
    }
    if (!st && c->lesson->fusion)
        fst__local_fusion_resumed(&c->fusion, c->optim.steps);
    if (!st)
        fst__peers_resumed(&c->peers, c->optim.steps);
    c->saved_once = !st && path == c->checkpoint;
    return !st;
}

/* From where it was stopped, or from the end of one of fewer epochs. */
static bool resume(struct course *c)
{
    return resume_from(c, c->checkpoint) || resume_from(c, c->last);
}

static bool save_due(const struct course *c)
{
    const struct checkpoint_section *k = &c->s->task->file.checkpoint;
    return (k->steps && c->steps_since_save >= k->steps) || fst__save_due(&c->saves, k->seconds);
}

/* ---- training -------------------------------------------------------------------------------------- */

static fst_loss loss_of(const struct course *c)
{
    fst_loss l = c->lesson->loss;
    double *moving[MOVES] = {&l.temperature, &l.ce_weight, &l.kd_weight};
    for (int i = 0; i < MOVES; i++)
        if (c->lesson->moves[i])
            *moving[i] = fst_ramp_at(&c->lesson->ramp[i], epoch_of_part(c), c->validated);
    if (c->lesson->curriculum)
        l.temperature = fst_curriculum_temperature(&c->curriculum);
    if (epoch_of_part(c) + 1 < c->lesson->kd_warmup)
        l.kd_weight *= (double)(epoch_of_part(c) + 1) / (double)c->lesson->kd_warmup;
    if (c->lesson->iterated && c->epoch < c->lesson->training->epochs) { /* part A: labels alone */
        l.ce_weight = 1;
        l.kd_weight = 0;
    }
    return l;
}

static fst_status one_step(struct course *c, const fst_batch *b, double rate, fst_error *err)
{
    const struct lesson *l = c->lesson;
    fst_step_result r;
    fst_step_input in = {.rows = b->rows,
                         .x = b->x,
                         .labels = b->labels,
                         .soft = b->soft,
                         .loss = loss_of(c),
                         .class_weight = c->weight,
                         .learning_rate = rate,
                         .seed = fst__step_seed(c->s, l->step, "dropout", 0),
                         .step = c->optim.steps,
                         .want_temperature_grad = l->curriculum != NULL,
                         .features = c->features.loss,
                         .feature_count = c->features.count};
    fst_status st = l->features ? fst__features_ask(&c->features, b->x, b->rows, err) : FST_OK;
    if (!st && l->fusion)
        st = fst__local_fusion_before(&c->fusion, c->state, c->optim.steps, err);
    if (!st && l->online)
        st = fst__peers_step(&c->peers, c->trainer, c->state, &c->optim, &in, &r, err);
    else if (!st)
        st = fst_trainer_step(c->trainer, c->state, &c->optim, &in, &r, err);
    if (!st && l->fusion)
        st = fst__local_fusion_after(&c->fusion, c->state, &in, c->epoch, l->training->epochs, err);
    if (st)
        return explain(c, st, err);
    if (l->curriculum)
        fst_curriculum_step(&c->curriculum, c->epoch, r.temperature_grad, rate);
    c->loss_sum += r.loss_sum;
    c->correct += r.correct;
    c->rows += b->rows;
    c->batch++;
    c->steps_since_save++;
    return FST_OK;
}

static size_t epoch_rows(const struct course *c)
{
    const struct training *t = c->lesson->training;
    size_t rows = c->lesson->iterated ? (c->round ? c->parts.b : c->parts.a) : c->s->data.cloud.learn;
    return t->drop_last ? fst_loader_batches(c->loader) * (size_t)t->batch_size : rows;
}

static void watch(struct course *c)
{
    char note[96];
    snprintf(note, sizeof note, "epoch %lld/%lld  loss %.4f  accuracy %.2f %%", (long long)c->epoch + 1,
             (long long)all_epochs(c->lesson), c->loss_sum / (double)c->rows,
             100.0 * (double)c->correct / (double)c->rows);
    fst__watch_update(c->s, (uint64_t)c->epoch * epoch_rows(c) + c->rows, note);
}

static fst_status pause_if_asked(struct course *c, fst_error *err)
{
    if (fst__session_stopped(c->s)) {
        fst_status st = save(c, c->checkpoint, err);
        return st ? st : fst_fail(err, FST_E_CANCELLED, "%s: stopped; progress is saved", c->lesson->step->stage->name);
    }
    return save_due(c) ? save(c, c->checkpoint, err) : FST_OK;
}

static double rate_of(const struct course *c)
{
    const struct training *t = c->lesson->training;
    fst_schedule schedule = fst__schedule(&t->schedule, t->epochs);
    return fst_schedule_rate(&schedule, t->optimizer.learning_rate, epoch_of_part(c));
}

enum { LOSS_NAME = 240 };

/* What the training loss is, for people: losses of different kinds cannot be compared. */
static const char *loss_name(const struct lesson *l, char out[LOSS_NAME])
{
    const fst_loss *f = &l->loss;
    char smoothed[64] = "", value[MOVES][40];
    bool weighted = fst__weighs_classes(&l->training->weights);
    if (f->label_smoothing > 0)
        snprintf(smoothed, sizeof smoothed, " (%slabel smoothing %.4g)", weighted ? "weighted by class, " : "",
                 f->label_smoothing);
    else if (weighted)
        snprintf(smoothed, sizeof smoothed, " (weighted by class)");
    for (int i = 0; i < MOVES; i++) {
        const double last[MOVES] = {f->temperature, f->ce_weight, f->kd_weight};
        if (l->moves[i])
            snprintf(value[i], sizeof value[i], "%.4g to %.4g", l->ramp[i].from, last[i]);
        else
            snprintf(value[i], sizeof value[i], "%.4g", last[i]);
    }
    if (l->curriculum)
        snprintf(value[MOVES_TEMPERATURE], sizeof *value, "learnt from %.4g to %.4g", l->curriculum->t_start,
                 l->curriculum->t_start + l->curriculum->t_end);
    if (!(f->kd_weight > 0) && !l->moves[MOVES_CE_WEIGHT])
        snprintf(out, LOSS_NAME, "cross entropy%s", smoothed);
    else if (!(f->kd_weight > 0))
        snprintf(out, LOSS_NAME, "%s cross entropy%s", value[MOVES_CE_WEIGHT], smoothed);
    else
        snprintf(out, LOSS_NAME, "%s cross entropy%s + %s distillation (%s, temperature %s)", value[MOVES_CE_WEIGHT],
                 smoothed, value[MOVES_KD_WEIGHT], fst_kd_form_name(f->kd_form), value[MOVES_TEMPERATURE]);
    if (l->iterated)
        snprintf(out + strlen(out), LOSS_NAME - strlen(out), " after part A by labels");
    if (l->online)
        snprintf(out + strlen(out), LOSS_NAME - strlen(out), " from %zu peer%s", l->online->peer_count,
                 l->online->peer_count > 1 ? "s" : "");
    if (l->features)
        snprintf(out + strlen(out), LOSS_NAME - strlen(out), " + feature maps");
    if (l->fusion)
        snprintf(out + strlen(out), LOSS_NAME - strlen(out), ", fused");
    return out;
}

static fst_loader_spec loader_spec(const struct course *c)
{
    const struct session *s = c->s;
    const struct training *t = c->lesson->training;
    fst_loader_spec ls = {.source = s->data.train,
                          .subset = s->data.cloud.index,
                          .subset_count = s->data.cloud.learn,
                          .batch_size = (size_t)t->batch_size,
                          .transform = s->data.transform,
                          .augment = s->data.transform.crop_padding > 0 || s->data.transform.flip,
                          .shuffle = true,
                          .drop_last = t->drop_last,
                          .seed = fst__step_seed(s, c->lesson->step, "loader", 0),
                          .background = true};
    if (c->lesson->soft) {
        ls.soft = fst_soft_fetch;
        ls.soft_ctx = (void *)c->lesson->soft;
        ls.soft_width = c->model->classes;
    }
    return ls;
}

/* The loader of the epoch's part. */
static fst_status turn_to_part(struct course *c, fst_error *err)
{
    int64_t round = c->epoch / c->lesson->training->epochs;
    if (!c->lesson->iterated || (c->loader && round == c->round))
        return FST_OK;
    fst_loader_free(c->loader); /* before its samples are drawn anew */
    c->loader = NULL;
    fst_loader_spec spec = loader_spec(c);
    spec.subset_count = fst_parts_of(&c->parts, (uint64_t)round, &spec.subset);
    c->round = round;
    return fst_loader_new(&c->loader, &spec, err);
}

/* A round is judged by its last epoch. Follows from what a checkpoint holds. */
static void judge_round(struct course *c)
{
    if (!c->lesson->iterated || c->epoch % c->lesson->training->epochs)
        return;
    bool better = c->epoch == c->lesson->training->epochs || c->validated > c->round_best;
    c->stale = better ? 0 : c->stale + 1;
    if (better)
        c->round_best = c->validated;
}

static bool rounds_over(const struct course *c)
{
    return c->lesson->iterated && !c->batch && c->stale >= c->lesson->iterated->patience;
}

static fst_status one_epoch(struct course *c, fst_error *err)
{
    double rate = rate_of(c);
    fst_status st = turn_to_part(c, err);
    if (!st)
        st = fst_loader_start(c->loader, (uint64_t)c->epoch, c->batch, err);
    while (!st) {
        fst_batch b;
        st = fst_loader_next(c->loader, &b, err);
        if (st || !b.rows)
            break;
        st = one_step(c, &b, rate, err);
        if (!st) {
            watch(c);
            st = pause_if_asked(c, err);
        }
    }
    return st;
}

/* What epochs are compared by; more is better. */
static double worth(const struct course *c, const struct score *v)
{
    const struct training *t = c->lesson->training;
    int metric = t->has_early_stopping ? t->early_stopping.metric : 0;
    return metric == 1 ? v->macro_f1 : metric == 2 ? -v->loss : v->accuracy;
}

static bool is_better(const struct course *c, const struct score *v)
{
    const struct training *t = c->lesson->training;
    return c->best_epoch < 0 ||
           worth(c, v) > c->best_accuracy + (t->has_early_stopping ? t->early_stopping.min_delta : 0);
}

/* Follows from what a checkpoint holds, so that it is the same after an interruption. */
static bool stops_early(const struct course *c)
{
    const struct training *t = c->lesson->training;
    return t->has_early_stopping && !c->batch && c->best_epoch >= 0 &&
           c->epoch - 1 - c->best_epoch >= t->early_stopping.patience;
}

static fst_status close_epoch(struct course *c, fst_error *err)
{
    struct session *s = c->s;
    double accuracy = (double)c->correct / (double)c->rows, loss = c->loss_sum / (double)c->rows;
    struct score v = FST__NO_SCORE;
    /* kernels can hide a NaN from the loss: max(NaN, 0) may be 0 */
    fst_status st = fst__state_sound(c->state, err);
    if (st)
        return explain(c, st, err);
    if (c->lesson->features)
        fst__features_give(&c->features, c->model);
    if (s->data.cloud.validate) {
        st = fst__evaluate(s, c->model->graph, &c->model->state, s->data.train,
                           s->data.cloud.index + s->data.cloud.learn, s->data.cloud.validate, &v, err);
        if (st)
            return st;
        if (is_better(c, &v)) {
            c->best_accuracy = worth(c, &v);
            c->best_epoch = c->epoch;
            fst_state_copy(&c->best, &c->model->state);
        }
    }
    char name[LOSS_NAME];
    fst_loss now = loss_of(c);
    bool distils = c->lesson->soft || c->lesson->online;
    c->validated = isfinite(v.accuracy) ? v.accuracy : 0;
    fst_field f[] = {FST_INT("epoch", c->epoch + 1),
                     FST_DOUBLE("loss", loss),
                     FST_DOUBLE("accuracy", accuracy),
                     FST_STRING("loss_kind", loss_name(c->lesson, name)),
                     FST_DOUBLE("learning_rate", rate_of(c)),
                     FST_DOUBLE("validation_loss", v.loss),
                     FST_DOUBLE("validation_accuracy", v.accuracy),
                     FST_DOUBLE("seconds", c->seconds_before + fst_clock_seconds() - c->started),
                     FST_DOUBLE("ce_weight", now.ce_weight),
                     FST_DOUBLE("kd_weight", now.kd_weight),
                     FST_DOUBLE("temperature", now.temperature)};
    fst__emit(&s->books, "epoch", f, sizeof f / sizeof *f - (distils ? 0 : 3));
    for (size_t i = 0; i < c->peers.count; i++) {
        fst_field p[] = {FST_INT("epoch", c->epoch + 1), FST_INT("peer", (int64_t)i + 1),
                         FST_STRING("network", c->lesson->online->peers[i]),
                         FST_DOUBLE("accuracy", (double)c->peers.correct[i] / (double)c->peers.rows)};
        fst__emit(&s->books, "peer", p, sizeof p / sizeof *p);
        c->peers.correct[i] = 0;
    }
    c->peers.rows = 0;
    if (c->lesson->fusion)
        fst__local_fusion_tell(&c->fusion, s, c->epoch + 1);
    c->epoch++;
    c->batch = c->rows = c->correct = 0;
    c->loss_sum = 0;
    judge_round(c);
    return FST_OK;
}

static fst_status make_weights(struct course *c, fst_error *err)
{
    const struct session *s = c->s;
    size_t n = (size_t)s->data.train->classes;
    c->counts = fst_calloc(n, sizeof *c->counts);
    c->room = fst_calloc(n, sizeof *c->room);
    if (!c->counts || !c->room)
        return fst_fail_memory(err, n * sizeof *c->room);
    fst__count_classes(s->data.train, s->data.cloud.index, s->data.cloud.learn, c->counts);
    c->weight = fst__weights_of(&c->lesson->training->weights, c->counts, s->data.train->classes, c->room);
    return FST_OK;
}

static fst_status prepare(struct course *c, fst_error *err)
{
    struct session *s = c->s;
    const struct training *t = c->lesson->training;
    fst_trainer_options to = fst__trainer_options(&s->machine, (size_t)t->batch_size, s->machine.threads);
    fst_optim_spec os = fst__optim_spec(&t->optimizer, t->clip_norm);
    c->checkpoint = fst__step_path(s, c->lesson->step, FST__CHECKPOINT);
    c->last = fst__step_path(s, c->lesson->step, FST__LAST);
    fst_status st = c->checkpoint && c->last ? FST_OK : fst_fail_memory(err, 256);
    if (!st)
        st = make_weights(c, err);
    c->state = &c->model->state;
    to.halves = c->lesson->online;
    if (!st && c->lesson->online)
        st = fst__peers_open(&c->peers, s, c->lesson->step, c->lesson->online, t, err);
    if (!st && c->lesson->fusion)
        st = fst__local_fusion_open(&c->fusion, s, c->lesson->step, c->lesson->fusion, c->model, t, err);
    if (!st && c->lesson->features) {
        st = fst__features_open(&c->features, s, c->lesson->step, c->model, (size_t)t->batch_size, err);
        c->state = &c->features.state;
    }
    if (!st && t->has_quantise)
        st = fst_graph_int8_learn(&c->rounds, c->model->graph, err);
    const fst_graph *learner = c->lesson->features ? c->features.learner : c->rounds ? c->rounds : c->model->graph;
    if (!st)
        st = fst_trainer_new(&c->trainer, learner, &to, err);
    if (!st)
        st = fst_optim_init(&c->optim, &os, c->state->param_count, err);
    const struct curriculum_section *k = c->lesson->curriculum;
    if (!st && k)
        st = fst_curriculum_init(&c->curriculum, k->t_start, k->t_end, k->over, &os, err);
    if (!st && s->data.cloud.validate)
        st = fst_state_init(&c->best, c->model->graph, err);
    const struct iterated_section *parts = c->lesson->iterated;
    if (!st && parts)
        st = fst_parts_init(&c->parts, s->data.cloud.index, s->data.cloud.learn, parts->part_a, parts->part_b,
                            fst__step_seed(s, c->lesson->step, "parts", 0), err);
    fst_loader_spec ls = loader_spec(c);
    if (!st)
        st = parts ? turn_to_part(c, err) : fst_loader_new(&c->loader, &ls, err);
    return st;
}

static fst_status teach(struct course *c, fst_error *err)
{
    const struct training *t = c->lesson->training;
    fst_status st = FST_OK;
    if (!c->lesson->begun) {
        fst_state_randomise(&c->model->state, c->model->graph, fst__step_seed(c->s, c->lesson->step, "init", 0));
        st = fst__start_from(c->s, c->lesson->step, c->model, NULL, err);
    }
    if (!st && c->lesson->features)
        fst__features_start(&c->features, c->model, fst__step_seed(c->s, c->lesson->step, "init", 0));
    bool resumed = !st && resume(c);
    if (resumed && c->lesson->features)
        fst__features_give(&c->features, c->model);
    c->started = fst_clock_seconds();
    c->saves = fst__saved(c->started);
    if (resumed)
        fst_log(FST_LOG_INFO, "%s: going on at epoch %lld, step %zu", c->lesson->step->stage->name,
                (long long)c->epoch + 1, c->batch + 1);
    fst__watch_begin(c->s, c->lesson->step->stage->name, (uint64_t)all_epochs(c->lesson) * epoch_rows(c), "samples");
    fst__watch_update(c->s, (uint64_t)c->epoch * epoch_rows(c) + c->rows, NULL); /* none of this run's work */
    while (!st && c->epoch < all_epochs(c->lesson) && !stops_early(c) && !rounds_over(c)) {
        if (fst__pauses(c->s, c->lesson->step, c->epoch))
            st = save(c, c->checkpoint, err);
        if (!st)
            st = fst__pause(c->s, c->lesson->step, c->epoch, err);
        if (!st)
            st = one_epoch(c, err);
        if (!st)
            st = close_epoch(c, err);
    }
    if (!st && fst__extendable(c->lesson->step))
        st = save(c, c->last, err);
    if (!st && c->lesson->iterated)
        fst_log(FST_LOG_INFO, "%s: over after round %lld of at most %lld", c->lesson->step->stage->name,
                (long long)(c->epoch / t->epochs - 1), (long long)c->lesson->iterated->rounds);
    if (!st && stops_early(c) && c->epoch < t->epochs) {
        fst_field f[] = {FST_INT("epoch", c->epoch), FST_INT("best_epoch", c->best_epoch + 1)};
        fst__emit(&c->s->books, "early_stopping", f, 2);
        fst_log(FST_LOG_INFO, "%s: stopped after epoch %lld, epoch %lld was the best", c->lesson->step->stage->name,
                (long long)c->epoch, (long long)c->best_epoch + 1);
    }
    if (!st && c->best.params && c->best_epoch >= 0)
        fst_state_copy(&c->model->state, &c->best);
    return st;
}

fst_status fst__train(struct session *s, const struct lesson *l, fst_model *model, struct record *r, fst_error *err)
{
    struct course c = {.s = s, .lesson = l, .model = model, .best_accuracy = -1, .best_epoch = -1};
    fst_status st = prepare(&c, err);
    if (!st) {
        st = teach(&c, err);
        fst__watch_end(s, st ? "stopped" : NULL);
        r->seconds = c.seconds_before + fst_clock_seconds() - c.started;
        if (l->fusion)
            fst__local_fusion_record(&c.fusion, r);
    }
    fst_loader_free(c.loader);
    fst_trainer_free(c.trainer);
    fst_graph_free(c.rounds);
    fst_optim_release(&c.optim);
    fst_curriculum_release(&c.curriculum);
    fst__features_release(&c.features);
    fst__peers_release(&c.peers);
    fst__local_fusion_release(&c.fusion);
    fst_parts_release(&c.parts);
    fst_state_release(&c.best);
    fst_free(c.counts);
    fst_free(c.room);
    fst_free(c.checkpoint);
    fst_free(c.last);
    return st;
}

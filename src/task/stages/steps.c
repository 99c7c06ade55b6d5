/* The steps at the cloud and of one student: pretrain, soften, student alone, distil. */
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "fedstill/infer.h"
#include "session.h"

static fst_loss hard_loss(const struct training *t)
{
    fst_loss l = FST_LOSS_CROSS_ENTROPY;
    l.label_smoothing = t->label_smoothing;
    return l;
}

static fst_status learn(struct session *s, const struct lesson *l, struct record *r, fst_error *err)
{
    fst_model m;
    fst_status st = fst__new_model(s, l->training->model, &m, err);
    if (st)
        return st;
    st = fst__train(s, l, &m, &r->seconds, err);
    if (!st)
        st = fst__save_model(s, l->step, &m, r, err);
    r->samples = (int64_t)s->learn;
    /* the runner refers to this model's graph */
    fst_runner_free(s->runner);
    s->runner = NULL;
    s->runner_graph = NULL;
    fst_model_release(&m);
    return st;
}

fst_status fst__step_pretrain(struct session *s, struct record *r, fst_error *err)
{
    const struct training *t = &s->task->file.stages.cloud_pretrain;
    struct lesson l = {.step = STEP_PRETRAIN, .label = "cloud_pretrain", .training = t, .loss = hard_loss(t)};
    return learn(s, &l, r, err);
}

fst_status fst__step_alone(struct session *s, struct record *r, fst_error *err)
{
    const struct training *t = &s->task->file.stages.edge_kd.training;
    struct lesson l = {.step = STEP_ALONE, .label = "edge_alone", .training = t, .loss = hard_loss(t)};
    return learn(s, &l, r, err);
}

/* With a topology both teacher and student learn at the cloud, on its samples: nothing travels before the rounds. */

/* ---- soft labels ----------------------------------------------------------------------------------- */

fst_soft_spec fst__soft_spec(const struct session *s)
{
    const struct stages_section *f = &s->task->file.stages;
    const struct cloud_kd_section *k = &f->cloud_kd;
    bool wanted = f->has_edge_kd && fst__student_takes_logits(&f->edge_kd);
    bool logits = k->content == 2 || (k->content == 0 && wanted);
    fst_soft_spec spec = {.content = logits ? FST_SOFT_LOGITS : FST_SOFT_PROBABILITIES,
                          .temperature = k->temperature,
                          .encoding = (fst_soft_encoding)k->encoding,
                          .top_k = (int)k->top_k};
    memcpy(spec.teacher_digest, s->records[STEP_PRETRAIN].digest, sizeof spec.teacher_digest);
    if (k->teacher)
        (void)!fst__file_digest(s, k->teacher, spec.teacher_digest, NULL);
    return spec;
}

static void soft_progress(void *ctx, size_t done, size_t total)
{
    (void)total;
    fst__watch_update(ctx, done, NULL);
}

static fst_status soften(struct session *s, const fst_model *teacher, fst_soft_labels *labels, fst_error *err)
{
    fst_runner *runner = NULL;
    fst_trainer_options o = fst__trainer_options(s, 512, s->threads);
    fst_status st = fst_runner_new(&runner, teacher->graph, &o, err);
    if (!st)
        fst_runner_hold(runner, &teacher->state);
    fst_soft_spec spec = fst__soft_spec(s);
    fst_soft_make how = {.source = s->train,
                         .subset = s->order,
                         .subset_count = s->learn,
                         .transform = fst__teacher_file(&s->task->file) ? fst_model_transform(teacher) : s->transform,
                         .teacher = runner,
                         .teacher_state = &teacher->state,
                         .classes = teacher->classes,
                         .progress = soft_progress,
                         .ctx = s};
    fst__watch_begin(s, "cloud_kd", s->learn, "samples");
    fst__watch_update(s, 0, NULL);
    if (!st)
        st = fst_soft_labels_make(labels, &spec, &how, err);
    fst__watch_end(s, NULL);
    fst_runner_free(runner);
    return st;
}

static uint64_t file_bytes(const char *path)
{
    struct stat info;
    return stat(path, &info) ? 0 : (uint64_t)info.st_size;
}

fst_status fst__step_soft(struct session *s, struct record *r, fst_error *err)
{
    fst_model teacher;
    fst_soft_labels labels = {0};
    double start = fst_clock_seconds();
    const char *file = fst__teacher_file(&s->task->file);
    fst_status st = file ? fst__open_model_file(s, "stages.cloud_kd.teacher", file, &teacher, err)
                         : fst__load_step_model(s, STEP_PRETRAIN, &teacher, err);
    if (st)
        return st;
    snprintf(r->artifact, sizeof r->artifact, "soft_labels.safetensors");
    char *path = fst__step_path(s, STEP_SOFT, r->artifact);
    st = path ? soften(s, &teacher, &labels, err) : fst_fail_memory(err, 256);
    if (!st)
        st = fst_soft_labels_write(&labels, path, r->digest, err);
    if (!st) {
        r->samples = (int64_t)labels.samples;
        r->accuracy = r->loss = NAN;
        r->bytes_down = s->edges ? 0 : file_bytes(path); /* what an edge fetches */
        r->seconds = fst_clock_seconds() - start;
    }
    fst_free(path);
    fst_soft_labels_release(&labels);
    fst_model_release(&teacher);
    return st;
}

/* ---- the student ----------------------------------------------------------------------------------- */

/* What the student's loss expects the soft labels to be: its own settings, not the labels'. */
static fst_soft_spec expected(const struct session *s)
{
    const struct edge_kd_section *e = &s->task->file.stages.edge_kd;
    fst_soft_spec spec = fst__soft_spec(s);
    spec.content = fst__student_takes_logits(e) ? FST_SOFT_LOGITS : FST_SOFT_PROBABILITIES;
    if (e->kd_loss == FST_KD_MSE_PROBABILITIES)
        spec.temperature = 1;
    else if (e->temperature > 0)
        spec.temperature = e->temperature;
    return spec;
}

static void move(struct lesson *l, enum fst__moving what, bool there, const struct ramp_section *r, double to)
{
    fst_ramp *ramp = &l->ramp[what];
    l->moves[what] = there;
    if (!there)
        return;
    *ramp = (fst_ramp){.kind = (fst_ramp_kind)r->name,
                       .from = r->from,
                       .to = to,
                       .epochs = r->over ? r->over : l->training->epochs,
                       .milestone_count = (int)r->milestone_count,
                       .low = r->low,
                       .high = r->high};
    memcpy(ramp->milestones, r->milestones, sizeof ramp->milestones);
}

/* The student's loss, without soft labels yet. */
static struct lesson student_lesson(const struct edge_kd_section *e, double temperature)
{
    struct lesson l = {.step = STEP_DISTIL,
                       .label = "edge_kd",
                       .training = &e->training,
                       .loss = {.ce_weight = e->ce_weight,
                                .kd_weight = e->kd_weight,
                                .temperature = temperature,
                                .kd_form = (fst_kd_form)e->kd_loss,
                                .label_smoothing = e->training.label_smoothing,
                                .tckd_weight = e->dkd.alpha,
                                .nckd_weight = e->dkd.beta,
                                .soft_logits = fst__student_takes_logits(e)},
                       .kd_warmup = e->kd_loss == FST_KD_DKD ? e->dkd.warmup_epochs : 0};
    move(&l, MOVES_TEMPERATURE, e->has_temperature_schedule, &e->temperature_schedule, temperature);
    move(&l, MOVES_CE_WEIGHT, e->has_ce_weight_schedule, &e->ce_weight_schedule, e->ce_weight);
    move(&l, MOVES_KD_WEIGHT, e->has_kd_weight_schedule, &e->kd_weight_schedule, e->kd_weight);
    return l;
}

static fst_status distil(struct session *s, struct record *r, fst_error *err)
{
    const struct edge_kd_section *e = &s->task->file.stages.edge_kd;
    fst_soft_labels labels = {0};
    fst_soft_spec want = expected(s);
    fst_buf bytes = {0};
    char *path = fst__step_path(s, STEP_SOFT, s->records[STEP_SOFT].artifact);
    uint32_t *rows = fst_calloc(s->train->count, sizeof *rows);
    fst_status st = path && rows ? fst__read_artifact(s, STEP_SOFT, s->records[STEP_SOFT].artifact, &bytes, err)
                                 : fst_fail_memory(err, s->train->count * sizeof *rows);
    if (!st)
        st = fst_soft_labels_parse(&labels, path, bytes.data, bytes.len, err);
    size_t travelled = bytes.len; /* what an edge fetches */
    fst_buf_release(&bytes);
    if (!st)
        st = fst_soft_labels_bind(&labels, &want, s->train, s->order, s->learn, rows, err);
    if (!st) {
        fst_soft_binding binding = {&labels, rows};
        struct lesson l = student_lesson(e, want.temperature);
        l.soft = &binding;
        st = learn(s, &l, r, err);
        r->bytes_down = s->edges ? 0 : travelled;
    }
    fst_free(path);
    fst_free(rows);
    fst_soft_labels_release(&labels);
    return st;
}

fst_status fst__step_distil(struct session *s, struct record *r, fst_error *err)
{
    const struct edge_kd_section *e = &s->task->file.stages.edge_kd;
    if (e->kd_weight > 0)
        return distil(s, r, err);
    struct lesson l = student_lesson(e, 1);
    return learn(s, &l, r, err);
}

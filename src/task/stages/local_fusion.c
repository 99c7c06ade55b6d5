/*
 * MergeNet on one machine (Li et al., AAAI 2025): every few batches theta = phi(A, B) is loaded into the small model,
 * both models take their step, and the adapter learns from what the small model's step made of theta.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "local_fusion.h"

fst_status fst__local_fusion_open(struct local_fusion *l, const struct session *s, const struct step *own,
                                  const struct local_fusion_section *settings, const fst_model *student,
                                  const struct training *t, fst_error *err)
{
    fst_trainer_options to = fst__trainer_options(&s->machine, (size_t)t->batch_size, s->machine.threads);
    fst_optim_spec os = fst__optim_spec(&t->optimizer, t->clip_norm);
    fst_fusion_spec spec = fst__fusion_spec(&settings->fusion);
    spec.backend = s->machine.backend;
    spec.seed = fst__step_seed(s, own, "fusion", 0);
    *l = (struct local_fusion){.settings = settings, .dropout = fst__step_seed(s, own, "teacher.dropout", 0)};
    fst_status st = fst__fusion_teacher(s, own, &settings->fusion, &l->teacher, err);
    if (!st)
        st = fst_trainer_new(&l->trainer, l->teacher.graph, &to, err);
    if (!st)
        st = fst_optim_init(&l->optim, &os, l->teacher.state.param_count, err);
    if (!st)
        st = fst_fusion_find(student->graph, settings->fusion.target, &l->target, err);
    if (!st)
        st = fst_fusion_find(l->teacher.graph, settings->fusion.source, &l->source, err);
    if (!st)
        st = fst_fusion_new(&l->fusion, &spec, &l->target, &l->source, err);
    if (!st && !(l->before = fst_calloc(l->target.count, sizeof *l->before)))
        st = fst_fail_memory(err, l->target.count * sizeof *l->before);
    return st;
}

void fst__local_fusion_release(struct local_fusion *l)
{
    fst_fusion_free(l->fusion);
    fst_trainer_free(l->trainer);
    fst_optim_release(&l->optim);
    fst_model_release(&l->teacher);
    fst_free(l->before);
}

size_t fst__local_fusion_tensors(struct local_fusion *l, fst_tensor *t)
{
    size_t n = 0;
    const fst_state *s = &l->teacher.state;
    int64_t params = (int64_t)s->param_count;
    if (!l->fusion)
        return 0;
    t[n++] = (fst_tensor){"teacher.params", FST_F32, FST_SHAPE(params), s->params};
    t[n++] = (fst_tensor){"teacher.buffers", FST_F32, FST_SHAPE((int64_t)s->buffer_count), s->buffers};
    t[n++] = (fst_tensor){"teacher.counters", FST_I64, FST_SHAPE((int64_t)s->counter_count), s->counters};
    if (l->optim.moment1)
        t[n++] = (fst_tensor){"teacher.moment1", FST_F32, FST_SHAPE(params), l->optim.moment1};
    if (l->optim.moment2)
        t[n++] = (fst_tensor){"teacher.moment2", FST_F32, FST_SHAPE(params), l->optim.moment2};
    return n + fst_fusion_parts(l->fusion, t + n);
}

static uint64_t every(const struct local_fusion *l)
{
    return (uint64_t)l->settings->every;
}

void fst__local_fusion_resumed(struct local_fusion *l, uint64_t steps)
{
    l->optim.steps = steps;
    fst_fusion_resumed(l->fusion, (steps + every(l) - 1) / every(l));
}

fst_status fst__local_fusion_before(struct local_fusion *l, fst_state *student, uint64_t step, fst_error *err)
{
    double began = fst_clock_seconds();
    float *theta = student->params + l->target.offset;
    l->open = step % every(l) == 0;
    if (!l->open)
        return FST_OK;
    memcpy(l->before, theta, l->target.count * sizeof *theta);
    fst_status st = fst_fusion_source(l->fusion, l->teacher.state.params + l->source.offset, err);
    if (!st)
        st = fst_fusion_fuse(l->fusion, l->before, theta, err);
    l->seconds += fst_clock_seconds() - began;
    return st;
}

static fst_status teacher_step(struct local_fusion *l, const fst_step_input *student, fst_error *err)
{
    fst_step_result r = {0};
    fst_step_input in = *student;
    in.seed = l->dropout;
    in.step = l->optim.steps;
    fst_status st = fst_trainer_step(l->trainer, &l->teacher.state, &l->optim, &in, &r, err);
    l->rows += in.rows;
    l->correct += r.correct;
    return st ? fst_fail_in(err, st, "the large model") : FST_OK;
}

fst_status fst__local_fusion_after(struct local_fusion *l, const fst_state *student, const fst_step_input *in,
                                   int64_t epoch, int64_t epochs, fst_error *err)
{
    const struct fusion_section *f = &l->settings->fusion;
    const fst_schedule cosine = {.kind = FST_SCHEDULE_COSINE, .total = epochs};
    double rate = f->learning_rate;
    fst_fusion_step step;
    fst_status st = teacher_step(l, in, err);
    double began = fst_clock_seconds();
    if (f->schedule == FST__FUSION_COSINE)
        rate = fst_schedule_rate(&cosine, rate, epoch);
    if (st || !l->open)
        return st;
    st = fst_fusion_learn(l->fusion, l->before, student->params + l->target.offset, rate, &step, err);
    if (!st) {
        l->loss += step.loss;
        l->steps++;
    }
    l->seconds += fst_clock_seconds() - began;
    return st;
}

static const char *learnt_from(const struct local_fusion *l)
{
    return l->settings->fusion.learns == FST_FUSION_NOTHING ? "nothing" : "the step after each fusion";
}

void fst__local_fusion_record(const struct local_fusion *l, struct record *r)
{
    snprintf(r->fused_from, sizeof r->fused_from, "%s", learnt_from(l));
    r->gate = fst_fusion_gate(l->fusion);
}

void fst__local_fusion_tell(struct local_fusion *l, struct session *s, int64_t epoch)
{
    fst_field fields[] = {FST_INT("epoch", epoch),
                          FST_STRING("learnt_from", learnt_from(l)),
                          FST_INT("fusions", (int64_t)l->steps),
                          FST_DOUBLE("gate", fst_fusion_gate(l->fusion)),
                          FST_DOUBLE("loss", l->steps ? l->loss / (double)l->steps : (double)NAN),
                          FST_DOUBLE("teacher_accuracy", l->rows ? (double)l->correct / (double)l->rows : (double)NAN),
                          FST_DOUBLE("seconds", l->seconds)};
    fst__emit(&s->books, "fusion", fields, sizeof fields / sizeof *fields);
    l->rows = l->correct = l->steps = 0;
    l->loss = l->seconds = 0;
}

/* Losses, optimisers, schedules. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"

/* ---- losses ----------------------------------------------------------------------------------- */

static bool loss_of(const struct golden *g, fst_loss *l)
{
    const char *name = golden_text(g, "loss", "");
    *l = (fst_loss){.temperature = golden_number(g, "temperature", 1),
                    .label_smoothing = golden_number(g, "label_smoothing", 0)};
    if (!strcmp(name, "cross_entropy")) {
        l->ce_weight = 1;
    } else if (!strcmp(name, "kd")) {
        l->ce_weight = golden_number(g, "ce_weight", 0);
        l->kd_weight = golden_number(g, "kd_weight", 0);
        l->kd_form = strcmp(golden_text(g, "form", "kl"), "kl") ? FST_KD_CROSS_ENTROPY : FST_KD_KL;
    } else if (!strcmp(name, "mse_logits") || !strcmp(name, "mse_probabilities")) {
        l->kd_weight = 1;
        l->kd_form = !strcmp(name, "mse_logits") ? FST_KD_MSE_LOGITS : FST_KD_MSE_PROBABILITIES;
    } else {
        return false;
    }
    return true;
}

static float *soft_targets(struct golden *g, const fst_loss *l, const float *student, size_t rows, int classes)
{
    struct spec t;
    float *z = NULL, *q;
    if (l->kd_weight == 0)
        return NULL;
    if (golden_find(g, "inputs", "teacher", &t))
        z = golden_fill(g, &t);
    else if (strcmp(golden_text(g, "teacher", ""), "student"))
        golden_fail(g, "no teacher");
    q = fst_calloc(rows * (size_t)classes, sizeof *q);
    if (l->kd_form == FST_KD_MSE_LOGITS)
        memcpy(q, z ? z : student, rows * (size_t)classes * sizeof *q);
    else
        fst_soften(z ? z : student, rows, classes, l->kd_form == FST_KD_MSE_PROBABILITIES ? 1 : l->temperature, q);
    fst_free(z);
    return q;
}

void golden_loss(struct golden *g)
{
    struct spec s, labels, weight;
    fst_loss l;
    if (!loss_of(g, &l)) {
        golden_skip(g, golden_text(g, "loss", "?"));
        return;
    }
    if (!golden_find(g, "inputs", "student", &s) || s.shape.rank != 2) {
        golden_fail(g, "no student");
        return;
    }
    size_t rows = (size_t)s.shape.dim[0];
    int classes = (int)s.shape.dim[1];
    float *z = golden_fill(g, &s), *grad = fst_calloc(s.count, sizeof *grad), *w = NULL;
    float *soft = soft_targets(g, &l, z, rows, classes);
    int32_t *y = golden_find(g, "inputs", "labels", &labels) ? golden_labels(g, &labels) : NULL;
    double *row = fst_calloc(3 * rows, sizeof *row), sum[3] = {0}, divisor = (double)rows;
    if (golden_find(g, "inputs", "sample_weight", &weight)) {
        w = golden_fill(g, &weight);
        if (!strcmp(golden_text(g, "divide_by", ""), "sum_of_weights")) {
            divisor = 0;
            for (size_t i = 0; i < rows; i++)
                divisor += (double)w[i];
        }
    }
    fst_loss_input in = {z, rows, classes, y, soft, w, divisor};
    fst_loss_rows(&l, &in, grad, row, row + rows, row + 2 * rows);
    for (size_t k = 0; k < 3; k++)
        for (size_t i = 0; i < rows; i++)
            sum[k] += row[k * rows + i] / divisor;
    golden_compare_double(g, "loss", &sum[0], 1, 0);
    if (golden_has(g, "ce") && l.ce_weight != 0)
        golden_compare_double(g, "ce", &sum[1], 1, 0);
    if (golden_has(g, "kd"))
        golden_compare_double(g, "kd", &sum[2], 1, 0);
    golden_compare(g, "grad.student", grad, s.count, 0);
    fst_free(z);
    fst_free(grad);
    fst_free(w);
    fst_free(soft);
    fst_free(y);
    fst_free(row);
}

/* ---- optimisers ------------------------------------------------------------------------------- */

static bool optim_of(const struct golden *g, fst_optim_spec *o)
{
    const char *name = golden_text(g, "optimizer", "");
    json_t *betas = json_object_get(g->attrs, "betas");
    *o = (fst_optim_spec){.learning_rate = golden_number(g, "lr", 0),
                          .weight_decay = golden_number(g, "weight_decay", 0),
                          .momentum = golden_number(g, "momentum", 0),
                          .nesterov = golden_number(g, "nesterov", 0) != 0,
                          .beta1 = json_number_value(json_array_get(betas, 0)),
                          .beta2 = json_number_value(json_array_get(betas, 1)),
                          .eps = golden_number(g, "eps", 0),
                          .clip_norm = golden_number(g, "max_norm", 0)};
    if (!strcmp(name, "sgd"))
        o->kind = FST_OPTIM_SGD;
    else if (!strcmp(name, "adam"))
        o->kind = FST_OPTIM_ADAM;
    else if (!strcmp(name, "adamw"))
        o->kind = FST_OPTIM_ADAMW;
    else
        return false;
    return true;
}

static void optim_step(struct golden *g, fst_optim *optim, float *params, float *grads, int step)
{
    struct spec p, s;
    size_t at = 0;
    char name[160];
    for (size_t i = 0; golden_at(g, "params", i, &p); i++) {
        snprintf(name, sizeof name, "grad%d.%s", step, p.name);
        if (!golden_find(g, "gradients", name, &s)) {
            golden_fail(g, "no %s", name);
            return;
        }
        float *v = golden_fill(g, &s);
        memcpy(grads + at, v, s.count * sizeof *v);
        at += s.count;
        fst_free(v);
    }
    fst_optim_input in = {.grads = &grads, .parts = 1, .learning_rate = optim->spec.learning_rate};
    double norm = fst_optim_step(optim, params, &in, NULL);
    snprintf(name, sizeof name, "total_norm%d", step);
    if (golden_has(g, name))
        golden_compare_double(g, name, &norm, 1, 0);
    at = 0;
    for (size_t i = 0; golden_at(g, "params", i, &p); i++) {
        snprintf(name, sizeof name, "step%d.%s", step, p.name);
        golden_compare(g, name, params + at, p.count, 0);
        at += p.count;
    }
}

void golden_optim(struct golden *g)
{
    fst_optim_spec spec;
    fst_optim optim;
    struct spec p;
    size_t count = 0, at = 0;
    if (!optim_of(g, &spec)) {
        golden_skip(g, golden_text(g, "optimizer", "?"));
        return;
    }
    for (size_t i = 0; golden_at(g, "params", i, &p); i++)
        count += p.count;
    float *params = fst_calloc(count + 1, sizeof *params), *grads = fst_calloc(count + 1, sizeof *grads);
    for (size_t i = 0; golden_at(g, "params", i, &p); i++) {
        float *v = golden_fill(g, &p);
        memcpy(params + at, v, p.count * sizeof *v);
        at += p.count;
        fst_free(v);
    }
    int steps = (int)golden_number(g, "steps", 0);
    if (!count || steps < 1)
        golden_fail(g, "nothing to do");
    else if (fst_optim_init(&optim, &spec, count, NULL))
        golden_fail(g, "the optimiser refuses its numbers");
    else {
        for (int k = 1; k <= steps; k++)
            optim_step(g, &optim, params, grads, k);
        fst_optim_release(&optim);
    }
    fst_free(params);
    fst_free(grads);
}

/* ---- schedules -------------------------------------------------------------------------------- */

static bool schedule_of(const struct golden *g, fst_schedule *s)
{
    const char *name = golden_text(g, "schedule", "");
    json_t *milestones = json_object_get(g->attrs, "milestones");
    *s = (fst_schedule){.eta_min = golden_number(g, "eta_min", 0),
                        .gamma = golden_number(g, "gamma", 0),
                        .total = (int64_t)golden_number(g, "t_max", golden_number(g, "total", 0)),
                        .warmup = (int64_t)golden_number(g, "warmup", 0),
                        .step_size = (int64_t)golden_number(g, "step_size", 0)};
    for (size_t i = 0; i < json_array_size(milestones) && i < FST_MAX_MILESTONES; i++)
        s->milestones[s->milestone_count++] = json_integer_value(json_array_get(milestones, i));
    if (!strcmp(name, "cosine"))
        s->kind = FST_SCHEDULE_COSINE;
    else if (!strcmp(name, "multistep"))
        s->kind = FST_SCHEDULE_MULTISTEP;
    else if (!strcmp(name, "step"))
        s->kind = FST_SCHEDULE_STEP;
    else if (!strcmp(name, "warmup_cosine"))
        s->kind = FST_SCHEDULE_WARMUP_COSINE;
    else
        return false;
    return true;
}

void golden_schedule(struct golden *g)
{
    fst_schedule s;
    size_t epochs = (size_t)golden_number(g, "epochs", 0);
    if (!schedule_of(g, &s)) {
        golden_skip(g, golden_text(g, "schedule", "?"));
        return;
    }
    double *got = fst_calloc(epochs + 1, sizeof *got);
    for (size_t e = 0; e < epochs; e++)
        got[e] = fst_schedule_rate(&s, golden_number(g, "base_lr", 0), (int64_t)e);
    golden_compare_double(g, "lr", got, epochs, 0);
    fst_free(got);
}

/*
 * Clients' own models on samples of their own, which no stage learns from: the edges' validation samples, or
 * clients.validation of what a client has. Beside each stands the model that all have: the one that is published, or,
 * where nothing is shared, the one that all started from (init), so that a stage without exchange is a fine-tuning
 * with its accuracy before and after. In a fleet each site measures its own; a shared model it is given.
 */
#include <math.h>

#include "federate.h"

fst_status fst__federate_own_samples(struct federation *f, fst_error *err)
{
    const struct task_file *t = &f->s->task->file;
    bool here = !f->s->data.elsewhere && !f->s->options->measure;
    bool own = here && f->ops->flags & FST_OWN_MODEL && (f->s->data.edges || t->clients.validation > 0);
    return own ? fst__client_validation(&f->s->data, f->s->task, &f->validation, err) : FST_OK;
}

static fst_status on_own(struct federation *f, const uint32_t *index, size_t n, const fst_graph *graph,
                         const fst_state *state, double *accuracy, fst_error *err)
{
    struct score score = FST__NO_SCORE;
    fst_status st = fst__evaluate(f->s, graph, state, f->s->data.train, index, n, &score, err);
    *accuracy = score.accuracy;
    return st;
}

fst_status fst__federate_own(struct federation *f, uint32_t client, const fst_model *model, struct own_figures *out,
                             fst_error *err)
{
    const fst_partition *p = &f->validation;
    *out = (struct own_figures){.accuracy = NAN, .global_accuracy = NAN};
    if (!p->clients || p->begin[client] == p->begin[client + 1])
        return FST_OK;
    const uint32_t *index = p->index + p->begin[client];
    size_t n = p->begin[client + 1] - p->begin[client];
    bool shared = f->alone ? f->given : !f->apart || fst__stage_reads(f->own->stage, "init");
    fst_status st = on_own(f, index, n, model->graph, &model->state, &out->accuracy, err);
    if (!st && shared)
        st = on_own(f, index, n, f->model->graph, &f->model->state, &out->global_accuracy, err);
    out->samples = (int64_t)n;
    return st;
}

void fst__federate_own_add(struct own_figures *sum, const struct own_figures *one)
{
    double a = (double)sum->samples, b = (double)one->samples;
    if (!one->samples)
        return;
    sum->accuracy = ((a > 0 ? a * sum->accuracy : 0) + b * one->accuracy) / (a + b);
    sum->global_accuracy = ((a > 0 ? a * sum->global_accuracy : 0) + b * one->global_accuracy) / (a + b);
    sum->samples += one->samples;
}

/*
 * Distillation at the clients: the soft labels of a stage of the kind cloud_kd become targets of local training.
 *
 * Data flow: the stage's file -> fst__fetch_labels, which checks that it is of the wanted teacher, temperature and data
 * -> `rows`, the row of every client's sample -> soft_batch on the workers, which writes the targets of a batch -> the
 * loss of src/fed/client.c. Nothing is computed with the teacher here. In a fleet the cloud sees to it that the sites
 * have made theirs (cloud_kd_sites.c), and each site reads its own.
 */
#include "federate.h"
#include "supervised.h"

/* An fst_local_soft_fn: a batch's indexes are positions in the training samples. */
static fst_status soft_batch(void *ctx, const fst_batch *batch, float *soft, fst_error *err)
{
    struct federation *f = ctx;
    fst_soft_binding binding = {&f->labels, f->rows};
    return fst_soft_fetch(&binding, batch->index, batch->rows, soft, err);
}

fst_status fst__federate_labels(struct federation *f, fst_error *err)
{
    struct session *s = f->s;
    const struct local_kd_section *d = &f->section->distillation;
    const struct step *from = fst__step_read(s, f->own, FST__LOCAL_LABELS, 0);
    uint64_t sent;
    size_t bytes, begin = f->alone ? f->partition.begin[f->client] : 0;
    size_t count = f->partition.begin[f->alone ? f->client + 1 : (uint32_t)f->partition.clients] - begin;
    if (!from)
        return FST_OK;
    if (s->options->rounds)
        return fst__teach_clients(s, fst__step_of(s, from->stage), NULL, &sent, err);
    if (f->alone) {
        fst_status st = fst__recall_labels(s, fst__step_of(s, from->stage), err);
        if (st)
            return st;
    }
    const fst_soft_spec want = fst__expected_labels(s, f->own, d->kd_loss, d->temperature, from);
    f->rows = fst_calloc(s->data.train->count, sizeof *f->rows);
    if (!f->rows)
        return fst_fail_memory(err, s->data.train->count * sizeof *f->rows);
    f->plan.loss = (fst_loss){.ce_weight = d->ce_weight,
                              .kd_weight = d->kd_weight,
                              .temperature = want.temperature,
                              .kd_form = (fst_kd_form)d->kd_loss,
                              .tckd_weight = d->dkd.alpha,
                              .nckd_weight = d->dkd.beta,
                              .soft_logits = f->own->stage->kind->takes_logits(f->own->stage)};
    f->plan.soft = soft_batch;
    f->plan.soft_ctx = f;
    return fst__fetch_labels(s, from, &want, f->partition.index + begin, count, f->rows, &f->labels, &bytes, err);
}

void fst__federate_labels_release(struct federation *f)
{
    fst_soft_labels_release(&f->labels);
    fst_free(f->rows);
}

/* What the kinds share that train one model: checks before any work, what the result depends on, what a dry run says,
 * and the training itself, which is train.c. */
#include <stdio.h>
#include <string.h>

#include "supervised.h"

fst_loss fst__hard_loss(const struct training *t)
{
    fst_loss l = FST_LOSS_CROSS_ENTROPY;
    l.label_smoothing = t->label_smoothing;
    return l;
}

fst_status fst__learn(struct session *s, const struct lesson *l, struct record *r, fst_error *err)
{
    fst_model m;
    fst_status st = fst__new_model(&s->data, l->training->model, &m, err);
    if (st)
        return st;
    st = fst__train(s, l, &m, r, err);
    if (!st)
        st = fst__save_model(s, l->step, &m, r, err);
    r->samples = (int64_t)s->data.cloud.learn;
    fst__forget_runner(s);
    fst_model_release(&m);
    return st;
}

/* ---- members of kinds ------------------------------------------------------------------------------ */

const char *fst__training_network(const struct stage *own)
{
    return ((const struct training *)own->settings)->model;
}

int64_t fst__training_total(const struct stage *own)
{
    return ((const struct training *)own->settings)->epochs;
}

bool fst__training_extendable(const struct stage *own)
{
    return fst__total_free(&((const struct training *)own->settings)->schedule);
}

bool fst__training_complains(const struct task_file *f, const struct stage *own, fst__complaint *c)
{
    const struct training *t = own->settings;
    if (t->has_quantise && f->precision != FST_PRECISION_F32)
        return fst__complain(c, own, "quantise", "learning for int8 is in f32: leave precision: %s out",
                             fst_precision_name((fst_precision)f->precision));
    return t->has_early_stopping && !f->data.own_validation && f->data.validation == 0 &&
           fst__complain(c, own, "early_stopping", "needs samples to judge epochs by: set data.validation");
}

fst_status fst__check_learns_int8(const struct step *own, const fst_graph *network, fst_error *err)
{
    fst_graph *learns = NULL;
    char key[96];
    fst_status st = fst_graph_int8_learn(&learns, network, err);
    fst_graph_free(learns);
    return st ? fst_fail_in(err, FST_E_CONFIG, "%s", fst__stage_key(own->stage, "quantise", key, sizeof key)) : FST_OK;
}

static fst_status check_quantise(const struct session *s, const struct step *own, const char *network, fst_error *err)
{
    fst_graph *g = NULL;
    fst_status st = fst__model_graph(&s->data, network, &g, err);
    if (!st)
        st = fst__check_learns_int8(own, g, err);
    fst_graph_free(g);
    return st;
}

fst_status fst__training_check(const struct session *s, const struct step *own, fst_error *err)
{
    const struct training *t = own->stage->settings;
    fst_status st = fst__check_network(s, own, t->model, err);
    if (!st && t->has_quantise)
        st = check_quantise(s, own, t->model, err);
    if (!st)
        st = fst__check_init(s, own, err);
    if (!st)
        st = fst__check_class_weights(&s->data, own->stage->name, &t->weights, err);
    if (!st)
        st = fst__check_training_batches(s, own, t, NULL, err);
    return st ? st : fst__check_schedule(own, &t->schedule, &t->optimizer, t->epochs, "epochs", err);
}

fst_status fst__training_inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    return fst__add_reads(s, own, "init", text, err);
}

fst_status fst__training_tell(const struct session *s, const struct step *own, double bytes_down, fst_buf *out,
                              fst_error *err)
{
    const struct training *t = own->stage->settings;
    struct work w = {.network = t->model,
                     .samples = (double)s->data.cloud.learn * (double)t->epochs,
                     .training = true,
                     .batch = (size_t)t->batch_size,
                     .plans = s->machine.threads,
                     .bytes_down = bytes_down};
    return fst__tell_work(s, own, &w, out, err);
}

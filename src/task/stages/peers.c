/*
 * Online distillation (Zhang et al., Deep mutual learning, CVPR 2018). All networks take the first half of a step; the
 * mean of the others' softened answers, which are constants, is each one's target; then all take the second half. So
 * all learn from answers of the same moment, and no order among them shows. Peers that learn alone get no target.
 */
#include <stdio.h>
#include <string.h>

#include "peers.h"

static fst_status open_peer(struct peers *p, size_t i, const struct session *s, const struct step *own,
                            const char *network, const struct training *t, fst_error *err)
{
    static const char *const parts[FST__PEER_TENSORS] = {"params", "buffers", "counters", "moment1", "moment2"};
    fst_trainer_options to = fst__trainer_options(&s->machine, (size_t)t->batch_size, s->machine.threads);
    fst_optim_spec os = fst__optim_spec(&t->optimizer, t->clip_norm);
    to.halves = true;
    fst_status st = fst__new_model(&s->data, network, &p->model[i], err);
    if (st)
        return st;
    p->count = i + 1;
    fst_state_randomise(&p->model[i].state, p->model[i].graph, fst__step_seed(s, own, "peer.init", i));
    p->dropout[i] = fst__step_seed(s, own, "peer.dropout", i);
    for (int k = 0; k < FST__PEER_TENSORS; k++)
        snprintf(p->name[i][k], sizeof p->name[i][k], "peer%zu.%s", i + 1, parts[k]);
    st = fst_trainer_new(&p->trainer[i], p->model[i].graph, &to, err);
    return st ? st : fst_optim_init(&p->optim[i], &os, p->model[i].state.param_count, err);
}

fst_status fst__peers_open(struct peers *p, const struct session *s, const struct step *own,
                           const struct online_section *o, const struct training *t, fst_error *err)
{
    size_t n = (size_t)t->batch_size * (size_t)s->data.train->classes;
    fst_status st = FST_OK;
    *p = (struct peers){.mutual = o->learn != FST__PEERS_ALONE};
    for (size_t i = 0; !st && i < o->peer_count; i++)
        st = open_peer(p, i, s, own, o->peers[i], t, err);
    p->target = fst_calloc(n, sizeof *p->target);
    bool ok = p->target;
    for (size_t i = 0; ok && i <= p->count; i++)
        ok = (p->logits[i] = fst_calloc(n, sizeof(float))) != NULL;
    return st || ok ? st : fst_fail_memory(err, n * sizeof(float));
}

void fst__peers_release(struct peers *p)
{
    for (size_t i = 0; i < p->count; i++) {
        fst_trainer_free(p->trainer[i]);
        fst_optim_release(&p->optim[i]);
        fst_model_release(&p->model[i]);
    }
    for (size_t i = 0; i <= FST__MAX_PEERS; i++)
        fst_free(p->logits[i]);
    fst_free(p->target);
}

size_t fst__peers_tensors(struct peers *p, fst_tensor *t)
{
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++) {
        fst_state *s = &p->model[i].state;
        int64_t params = (int64_t)s->param_count;
        t[n++] = (fst_tensor){p->name[i][0], FST_F32, FST_SHAPE(params), s->params};
        t[n++] = (fst_tensor){p->name[i][1], FST_F32, FST_SHAPE((int64_t)s->buffer_count), s->buffers};
        t[n++] = (fst_tensor){p->name[i][2], FST_I64, FST_SHAPE((int64_t)s->counter_count), s->counters};
        if (p->optim[i].moment1)
            t[n++] = (fst_tensor){p->name[i][3], FST_F32, FST_SHAPE(params), p->optim[i].moment1};
        if (p->optim[i].moment2)
            t[n++] = (fst_tensor){p->name[i][4], FST_F32, FST_SHAPE(params), p->optim[i].moment2};
    }
    return n;
}

void fst__peers_resumed(struct peers *p, uint64_t steps)
{
    for (size_t i = 0; i < p->count; i++)
        p->optim[i].steps = steps;
}

/* What network `self` (0: the student) learns from the others' answers. */
static fst_status make_target(struct peers *p, size_t self, const fst_step_input *in, int classes, fst_error *err)
{
    const float *others[FST__MAX_PEERS];
    size_t n = 0;
    for (size_t i = 0; i <= p->count; i++)
        if (i != self)
            others[n++] = p->logits[i];
    fst_teachers t = {others, n, in->rows, classes, NULL};
    return fst_teachers_target(FST_ENSEMBLE_MEAN_PROBABILITIES, &t, in->loss.temperature, p->target, NULL, err);
}

static fst_step_input input_of(const struct peers *p, size_t i, const fst_step_input *student)
{
    fst_step_input in = *student;
    in.seed = p->dropout[i];
    in.features = NULL;
    in.feature_count = 0;
    if (!p->mutual) {
        in.loss.ce_weight = 1;
        in.loss.kd_weight = 0;
    }
    return in;
}

fst_status fst__peers_step(struct peers *p, fst_trainer *trainer, fst_state *state, fst_optim *optim,
                           const fst_step_input *in, fst_step_result *out, fst_error *err)
{
    int classes = p->model[0].classes;
    fst_step_input student = *in;
    fst_status st = fst_trainer_forward(trainer, state, &student, p->logits[0], err);
    for (size_t i = 0; !st && i < p->count; i++) {
        fst_step_input peer = input_of(p, i, in);
        st = fst_trainer_forward(p->trainer[i], &p->model[i].state, &peer, p->logits[1 + i], err);
    }
    student.soft = p->target;
    if (!st)
        st = make_target(p, 0, in, classes, err);
    if (!st)
        st = fst_trainer_finish(trainer, optim, &student, out, err);
    for (size_t i = 0; !st && i < p->count; i++) {
        fst_step_input peer = input_of(p, i, in);
        fst_step_result r = {0};
        peer.soft = p->target;
        if (p->mutual)
            st = make_target(p, 1 + i, in, classes, err);
        if (!st)
            st = fst_trainer_finish(p->trainer[i], &p->optim[i], &peer, &r, err);
        p->correct[i] += r.correct;
    }
    p->rows += in->rows;
    return st;
}

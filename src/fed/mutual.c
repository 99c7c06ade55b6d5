/*
 * Adaptive mutual distillation (Wu et al., Communication-efficient federated learning via knowledge distillation,
 * Nature Communications 2022). Mentor t and mentee s answer a batch before either of them is changed. With L_t and L_s,
 * the batch's cross entropies, both learn
 *
 *   CE + (KL(the other's p || own p) + hidden_weight MSE(H_t, W H_s)) / (L_t + L_s),
 *
 * H being the features that the last layers read and W a map that is learnt with the mentee. The worse both are, the
 * less they believe each other. The other's answers and the divisor are constants. The paper also compares attention
 * maps, which these networks do not have.
 */
#include <math.h>
#include <string.h>

#include "mutual.h"

/* ---- networks ---- */

size_t fst__last_width(const fst_graph *g)
{
    fst_shape s = fst_graph_value_shape(g, fst_graph_last_features(g));
    return s.rank ? (size_t)fst_shape_count(&s) : 0;
}

/* width: what the features are to be mapped to; 0: they stay as they are. */
static fst_status tap(fst_graph **out, const fst_graph *g, size_t width, fst_error *err)
{
    fst_value features = fst_graph_last_features(g), logits = -1;
    if (features < 0)
        return fst_fail(err, FST_E_CONFIG,
                        "mentor and mentee compare the features that their last layers read, and one of the networks "
                        "has none: set hidden_weight to 0");
    fst_status st = fst_graph_copy(out, g, &logits, err);
    if (!st && width)
        features = fst_graph_linear(*out, features, "hidden_map", (int64_t)width, false);
    return st ? st : fst_graph_finish_tapped(*out, logits, &features, 1, err);
}

static fst_status plain(fst_graph **out, const fst_graph *g, fst_error *err)
{
    fst_value logits = -1;
    fst_status st = fst_graph_copy(out, g, &logits, err);
    return st ? st : fst_graph_finish(*out, logits, err);
}

static fst_status open_partner(struct fst__mutual *m, int who, const fst_client_env *env, fst_error *err)
{
    struct fst__partner *p = &m->partner[who];
    fst_trainer_options o = fst__client_compute(env, m->batch);
    size_t width = m->width ? m->width : 1;
    o.halves = true;
    fst_status st = fst_trainer_new(&p->trainer, p->graph, &o, err);
    if (!st)
        st = fst_optim_init(&p->optim, &env->plan.optim, fst_graph_param_count(p->graph), err);
    p->has_optim = !st;
    p->logits = fst_calloc(m->batch * m->classes, sizeof *p->logits);
    p->soft = fst_calloc(m->batch * m->classes, sizeof *p->soft);
    p->hidden = fst_calloc(m->batch * width, sizeof *p->hidden);
    if (!st && !(p->logits && p->soft && p->hidden))
        st = fst_fail_memory(err, m->batch * (2 * m->classes + width) * sizeof *p->soft);
    return st;
}

fst_status fst__mutual_init(struct fst__mutual *m, const fst_graph *own, const fst_client_env *env,
                            double hidden_weight, fst_error *err)
{
    *m = (struct fst__mutual){.own = own,
                              .shared = env->shared,
                              .batch = env->plan.batch_size,
                              .classes = (size_t)env->classes,
                              .hidden_weight = hidden_weight};
    bool compares = hidden_weight > 0;
    m->width = compares ? fst__last_width(own) : 0;
    fst_status st =
        compares ? tap(&m->partner[FST__MENTOR].graph, own, 0, err) : plain(&m->partner[FST__MENTOR].graph, own, err);
    if (!st)
        st = compares ? tap(&m->partner[FST__MENTEE].graph, env->shared, m->width, err)
                      : plain(&m->partner[FST__MENTEE].graph, env->shared, err);
    for (int i = 0; !st && i < FST__PAIR; i++)
        st = open_partner(m, i, env, err);
    return st ? st : fst_fed_state_init(&m->mentee, fst_graph_fed_size(m->partner[FST__MENTEE].graph), err);
}

void fst__mutual_release(struct fst__mutual *m)
{
    for (int i = 0; i < FST__PAIR; i++) {
        struct fst__partner *p = &m->partner[i];
        fst_trainer_free(p->trainer);
        if (p->has_optim)
            fst_optim_release(&p->optim);
        fst_graph_free(p->graph);
        fst_free(p->logits);
        fst_free(p->soft);
        fst_free(p->hidden);
    }
    fst_fed_state_release(&m->mentee);
    *m = (struct fst__mutual){0};
}

/* ---- a step ---- */

struct lesson {
    struct fst__mutual *m;
    const fst_local_job *job;
    fst_state state[FST__PAIR];
    uint64_t seed[FST__PAIR];
};

static double cross_entropy(const float *logits, const int32_t *labels, size_t rows, size_t classes)
{
    double sum = 0;
    for (size_t r = 0; r < rows; r++) {
        const float *z = logits + r * classes;
        double high = z[0], total = 0;
        for (size_t c = 1; c < classes; c++)
            high = (double)z[c] > high ? (double)z[c] : high;
        for (size_t c = 0; c < classes; c++)
            total += exp((double)z[c] - high);
        sum += log(total) + high - (double)z[labels[r]];
    }
    return sum / (double)rows;
}

static fst_status answer(struct lesson *l, int who, const fst_step_input *in, fst_error *err)
{
    struct fst__mutual *m = l->m;
    struct fst__partner *p = &m->partner[who];
    fst_status st = fst_trainer_forward(p->trainer, &l->state[who], in, p->logits, err);
    if (!st && m->width)
        st = fst_trainer_tap(p->trainer, 0, p->hidden, err);
    if (!st)
        fst_softmax(p->logits, in->rows, (int)m->classes, 1, m->partner[!who].soft);
    return st;
}

static fst_status learn(struct lesson *l, int who, const fst_step_input *in, double belief, fst_step_result *out,
                        fst_error *err)
{
    struct fst__mutual *m = l->m;
    struct fst__partner *p = &m->partner[who];
    fst_step_input own = *in;
    const fst_feature_loss pull = {.form = FST_FEATURE_MSE,
                                   .weight = m->hidden_weight * belief,
                                   .target = m->partner[!who].hidden,
                                   .target_stride = m->width,
                                   .target_shape = FST_SHAPE((int64_t)m->width)};
    own.soft = p->soft;
    own.loss.kd_weight = belief;
    own.features = m->width ? &pull : NULL;
    own.feature_count = m->width > 0;
    return fst_trainer_finish(p->trainer, &p->optim, &own, out, err);
}

/* An fst_local_step_fn. */
static fst_status take(void *ctx, const fst_batch *b, uint64_t step, fst_step_result *out, fst_error *err)
{
    struct lesson *l = ctx;
    struct fst__mutual *m = l->m;
    fst_step_input in[FST__PAIR];
    double ce[FST__PAIR];
    fst_status st = FST_OK;
    for (int i = 0; !st && i < FST__PAIR; i++) {
        in[i] = (fst_step_input){.rows = b->rows,
                                 .x = b->x,
                                 .labels = b->labels,
                                 .loss = {.ce_weight = 1, .temperature = 1, .kd_form = FST_KD_KL},
                                 .class_weight = l->job->class_weight,
                                 .learning_rate = l->job->learning_rate,
                                 .seed = l->seed[i],
                                 .step = step};
        st = answer(l, i, &in[i], err);
    }
    for (int i = 0; !st && i < FST__PAIR; i++)
        ce[i] = cross_entropy(m->partner[i].logits, b->labels, b->rows, m->classes);
    double belief = st ? 0 : 1 / fmax(ce[FST__MENTOR] + ce[FST__MENTEE], 1e-8);
    for (int i = 0; !st && i < FST__PAIR; i++)
        st = learn(l, i, &in[i], belief, out, err);
    if (!st)
        out->loss_sum = ce[FST__MENTEE] * (double)b->rows;
    return st;
}

fst_status fst__mutual_train(struct fst__mutual *m, fst_client_half *c, fst_local_result *result, fst_error *err)
{
    fst_local_job job = fst_client_job(c);
    struct lesson l = {.m = m,
                       .job = &job,
                       .state = {fst__nn_state(&c->model), fst__nn_state(&m->mentee)},
                       .seed = {fst_client_seed(c, "mentor"), job.seed}};
    job.take = take;
    job.take_ctx = &l;
    return fst_client_train(c, &job, result, err);
}

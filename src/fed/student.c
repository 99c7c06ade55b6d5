/* A server's own model on public samples, which goes on learning from round to round: targets of a round -> steps
 * (distiller.c) -> what it then says of the samples. */
#include <math.h>
#include <string.h>

#include "student.h"

fst_status fst__student_init(struct fst__student *s, const fst_server_env *env, const char *stream, size_t rows,
                             fst_error *err)
{
    fst_rng order, seed;
    fst_rng_init(&order, env->seed, stream, 1);
    const struct fst__distiller_spec spec = {
        .rows = rows, .batch = 32, .rate = 0.001, .form = FST_KD_CROSS_ENTROPY, .seed = fst_rng_u64(&order)};
    *s = (struct fst__student){.before = {0}};
    fst_status st = fst__distiller_init(&s->by, env, &spec, err);
    if (!st)
        st = fst_fed_state_init(&s->model, fst_graph_fed_size(env->graph), err);
    if (!st)
        st = fst_fed_state_init(&s->before, fst_graph_fed_size(env->graph), err);
    if (st)
        return st;
    fst_state nn = fst__nn_state(&s->model);
    fst_rng_init(&seed, env->seed, stream, 0);
    fst_state_randomise(&nn, env->graph, fst_rng_u64(&seed));
    return FST_OK;
}

void fst__student_release(struct fst__student *s)
{
    fst__distiller_release(&s->by);
    fst_fed_state_release(&s->model);
    fst_fed_state_release(&s->before);
    *s = (struct fst__student){.before = {0}};
}

static fst_status learn(struct fst__student *s, uint64_t round, const float *target, int64_t epochs,
                        const fst_work *work, fst_error *err)
{
    const struct fst__distiller_spec *o = &s->by.spec;
    uint64_t steps = (uint64_t)epochs * ((o->rows + o->batch - 1) / o->batch);
    fst_status st = fst__distiller_begin(&s->by, round, steps, err);
    for (uint64_t i = 0; !st && i < steps; i++)
        st = fst__distiller_step(&s->by, &s->model, target, work, err);
    return st;
}

static fst_status say(struct fst__student *s, float *p, fst_error *err)
{
    size_t rows = s->by.spec.rows, classes = s->by.classes;
    fst_status st = fst__distiller_logits(&s->by, false, &s->model, p, err);
    if (st)
        return st;
    fst_softmax(p, rows, (int)classes, 1, p);
    for (size_t i = 0; i < rows * classes; i++)
        if (!isfinite(p[i]))
            return fst_fail(err, FST_E_NUMERIC, "it says %g of public sample %zu", (double)p[i], i / classes);
    return FST_OK;
}

fst_status fst__student_round(struct fst__student *s, uint64_t round, const uint32_t *row, float *p, int64_t epochs,
                              const fst_work *work, fst_error *err)
{
    fst_fed_view now = fst_fed_state_view(&s->model), before = fst_fed_state_view(&s->before);
    fst_fed_state_copy(&s->before, &now);
    fst__distiller_draw(&s->by, row);
    fst_status st = learn(s, round, p, epochs, work, err);
    if (!st)
        st = say(s, p, err);
    if (!st)
        return FST_OK;
    fst_fed_state_copy(&s->model, &before);
    return fst_fail_in(err, st, "the model at the server");
}

fst_status fst__student_save(const struct fst__student *s, fst_buf *out, fst_error *err)
{
    const fst_fed_state *m = &s->model;
    fst_status st = fst_buf_append(out, m->params, m->size.params * sizeof *m->params, err);
    if (!st)
        st = fst_buf_append(out, m->buffers, m->size.buffers * sizeof *m->buffers, err);
    return st ? st : fst_buf_append(out, m->counters, m->size.counters * sizeof *m->counters, err);
}

fst_status fst__student_load(struct fst__student *s, const void *data, fst_error *err)
{
    const char *p = data;
    fst_fed_state *m = &s->before; /* room until it is checked */
    size_t params = m->size.params * sizeof *m->params, buffers = m->size.buffers * sizeof *m->buffers;
    memcpy(m->params, p, params);
    memcpy(m->buffers, p + params, buffers);
    memcpy(m->counters, p + params + buffers, m->size.counters * sizeof *m->counters);
    if (fst_accumulator_check(m->params, m->size.params, err) ||
        fst_accumulator_check(m->buffers, m->size.buffers, err))
        return fst_fail_in(err, FST_E_FORMAT, "the saved model of the server");
    fst_fed_view v = fst_fed_state_view(m);
    fst_fed_state_copy(&s->model, &v);
    return FST_OK;
}

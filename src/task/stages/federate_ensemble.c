/*
 * Clients' models that answer together, where a strategy keeps them beside the shared one: the mean of their logits,
 * each counting the same, on the test samples. Clients that took part in no round have no model and no voice.
 */
#include "federate.h"

enum { BATCH = 256 };

struct ensemble {
    struct federation *f;
    fst_runner *runner;
    fst_loader *loader;
    size_t classes;
    float *logits; /* BATCH x classes */
    double *sum;   /* test samples x classes */
    int32_t *label;
};

static fst_status prepare(struct ensemble *e, fst_error *err)
{
    const struct session *s = e->f->s;
    const fst_source *test = s->data.test;
    const fst_trainer_options o = fst__trainer_options(&s->machine, BATCH, s->machine.threads);
    const fst_loader_spec spec = {.source = test, .batch_size = BATCH, .transform = s->data.transform};
    e->classes = (size_t)e->f->partition.classes;
    e->logits = fst_calloc(BATCH * e->classes, sizeof *e->logits);
    e->sum = fst_calloc(test->count * e->classes, sizeof *e->sum);
    e->label = fst_calloc(test->count, sizeof *e->label);
    if (!e->logits || !e->sum || !e->label)
        return fst_fail_memory(err, test->count * e->classes * sizeof *e->sum);
    fst_status st = fst_runner_new(&e->runner, e->f->network[0].graph, &o, err);
    return st ? st : fst_loader_new(&e->loader, &spec, err);
}

static fst_status add(struct ensemble *e, const fst_state *state, fst_error *err)
{
    size_t at = 0;
    fst_status st = fst_loader_start(e->loader, 0, 0, err);
    fst_runner_hold(e->runner, state);
    for (fst_batch b = {.rows = 1}; !st && b.rows;) {
        st = fst_loader_next(e->loader, &b, err);
        if (!st && b.rows)
            st = fst_runner_logits(e->runner, state, b.x, b.rows, e->logits, err);
        for (size_t i = 0; !st && i < b.rows; i++, at++) {
            e->label[at] = b.labels[i];
            for (size_t c = 0; c < e->classes; c++)
                e->sum[at * e->classes + c] += (double)e->logits[i * e->classes + c];
        }
    }
    fst_runner_hold(e->runner, NULL);
    return st;
}

static size_t right(const struct ensemble *e, size_t samples)
{
    size_t n = 0;
    for (size_t i = 0; i < samples; i++) {
        const double *z = e->sum + i * e->classes;
        size_t best = 0;
        for (size_t c = 1; c < e->classes; c++)
            best = z[c] > z[best] ? c : best;
        n += best == (size_t)e->label[i];
    }
    return n;
}

fst_status fst__federate_ensemble(struct federation *f, fst_error *err)
{
    struct ensemble e = {.f = f};
    size_t samples = f->s->data.test->count, voices = 0;
    fst_status st = prepare(&e, err);
    for (uint32_t c = 0; !st && c < (uint32_t)f->partition.clients; c++) {
        fst_state state;
        if (!fst__federate_model_of(f, c, &state, &st, err))
            continue;
        st = add(&e, &state, err);
        voices++;
    }
    if (!st && voices) {
        double accuracy = (double)right(&e, samples) / (double)samples;
        fst_field fields[] = {FST_INT("models", (int64_t)voices), FST_DOUBLE("test_accuracy", accuracy)};
        fst__emit(&f->s->books, "ensemble", fields, 2);
        fst_log(FST_LOG_INFO, "%s: %zu models together: accuracy %.2f %%", f->own->stage->name, voices, 100 * accuracy);
    }
    fst_runner_free(e.runner);
    fst_loader_free(e.loader);
    fst_free(e.logits);
    fst_free(e.sum);
    fst_free(e.label);
    return st;
}

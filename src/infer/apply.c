/*
 * Where a model meets samples: do they fit each other, what are the model's logits, its answers, its accuracy.
 *
 * Samples go from a source through a loader with the model's own transform (fst_model_transform) into a runner. No
 * function here takes a transform: the numbers that a model sees are those that its file says. Whether classes mean the
 * same on both sides is decided in one place, fst_model_check_source.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "apply.h"

enum { EVALUATE_BATCH = 256 };

fst_transform fst_model_transform(const fst_model *m)
{
    fst_transform t = {.channels = m->channels, .fingerprint = m->fingerprint};
    _Static_assert(sizeof t.mean == sizeof m->mean, "as many channels in models as in transforms");
    memcpy(t.mean, m->mean, sizeof t.mean);
    memcpy(t.std, m->std, sizeof t.std);
    return t;
}

/* ---- do they fit? -------------------------------------------------------------------------------------- */

static bool is_number(const char *name)
{
    return *name && name[strspn(name, "0123456789")] == 0;
}

/* "0", "1", ... in order: what stands in files of samples whose classes have no names. */
static bool only_numbered(char *const *names, int n)
{
    char own[16];
    for (int c = 0; names && c < n; c++) {
        snprintf(own, sizeof own, "%d", c);
        if (strcmp(names[c], own))
            return false;
    }
    return true;
}

/* One side has no names, so that numbers are all there is to go by. A name that is another class's number hints at an
 * order that is not the model's ("0", "1", "10", "2", as folders are sorted). */
static void warn_order(const char *model, const fst_source *s, char *const *names, int n, bool of_data)
{
    char own[16];
    for (int c = 0; model && names && c < n; c++) {
        snprintf(own, sizeof own, "%d", c);
        if (!is_number(names[c]) || !strcmp(names[c], own))
            continue;
        fst_log(FST_LOG_WARN,
                "%s: class %d is called \"%s\" in %s, and %s has no names for its classes: they are "
                "compared by number, which is wrong if its class %s is another",
                s->name, c, names[c], of_data ? "the data" : model, of_data ? model : "the data", names[c]);
        return;
    }
}

static fst_status check_classes(const fst_model *m, const char *model, bool named, const fst_source *s, fst_error *err)
{
    if (s->classes > m->classes)
        return fst_fail(err, FST_E_MISMATCH, "%s: has %d classes, but %s knows %d", s->name, s->classes, model,
                        m->classes);
    if (only_numbered(m->class_names, m->classes) || only_numbered(s->class_names, s->classes)) {
        warn_order(named ? model : NULL, s, s->class_names, s->classes, true);
        warn_order(named ? model : NULL, s, m->class_names, m->classes, false);
        return FST_OK;
    }
    for (int c = 0; c < s->classes; c++)
        if (strcmp(s->class_names[c], m->class_names[c]))
            return fst_fail(err, FST_E_MISMATCH,
                            "%s: class %d is \"%s\", the model calls it \"%s\" (%s): other classes, or another order",
                            s->name, c, s->class_names[c], m->class_names[c], model);
    return FST_OK;
}

fst_status fst_model_check_source(const fst_model *m, const char *name, const fst_source *s, fst_error *err)
{
    char a[256], b[256], model[320] = "the model";
    if (name)
        snprintf(model, sizeof model, "the model %s", name);
    if (!fst_shape_fits(&s->shape, &m->config.input))
        return fst_fail(err, FST_E_MISMATCH, "%s: samples have shape %s, but %s takes %s", s->name,
                        fst_shape_text(&s->shape, a, sizeof a), model, fst_shape_text(&m->config.input, b, sizeof b));
    return check_classes(m, model, name != NULL, s, err);
}

/* ---- logits --------------------------------------------------------------------------------------------- */

size_t fst__measured_samples(const fst_measure_spec *s)
{
    return s->subset ? s->count : s->source->count;
}

fst_status fst__check_measured(const fst_model *m, const fst_measure_spec *s, fst_error *err)
{
    if (!s->batch_size || s->repeats < 0)
        return fst_fail(err, FST_E_ARGUMENT, "batches of %zu, measured %d times", s->batch_size, s->repeats);
    return fst_model_check_source(m, NULL, s->source, err);
}

fst_status fst__model_runner(fst_runner **out, const fst_model *m, const fst_measure_spec *s, size_t batch, int threads,
                             fst_error *err)
{
    fst_trainer_options o = {.batch_size = batch, .threads = threads, .backend = s->backend, .precision = s->precision};
    fst_status st = fst_runner_new(out, m->graph, &o, err);
    if (!st)
        fst_runner_hold(*out, &m->state);
    return st;
}

/* Called with the logits of each batch, in the order of the samples; `first` counts them. */
typedef fst_status (*batch_fn)(void *ctx, const fst_batch *b, const float *logits, size_t first, fst_error *err);

/* logits: where those of sample 0 go and the others after them, or with `again` room for one batch. */
static fst_status run_model(const fst_model *m, const fst_measure_spec *s, float *logits, bool again, batch_fn visit,
                            void *ctx, fst_error *err)
{
    fst_runner *runner = NULL;
    fst_loader *loader = NULL;
    size_t done = 0, classes = (size_t)m->classes;
    fst_loader_spec l = {.source = s->source,
                         .subset = s->subset,
                         .subset_count = s->count,
                         .batch_size = s->batch_size,
                         .transform = fst_model_transform(m)};
    fst_status st = fst__model_runner(&runner, m, s, s->batch_size, s->threads, err);
    if (!st)
        st = fst_loader_new(&loader, &l, err);
    if (!st)
        st = fst_loader_start(loader, 0, 0, err);
    for (fst_batch b = {.rows = 1}; !st && b.rows; done += b.rows) {
        float *out = logits + (again ? 0 : done * classes);
        if (s->progress)
            st = s->progress(s->ctx, done, err);
        if (!st)
            st = fst_loader_next(loader, &b, err);
        if (!st && b.rows)
            st = fst_runner_logits(runner, &m->state, b.x, b.rows, out, err);
        if (!st && b.rows && visit)
            st = visit(ctx, &b, out, done, err);
    }
    fst_loader_free(loader);
    fst_runner_free(runner);
    return st;
}

fst_status fst_infer_logits(const fst_model *model, const fst_measure_spec *spec, float *logits, fst_error *err)
{
    fst_status st = fst__check_measured(model, spec, err);
    if (st || !fst__measured_samples(spec))
        return st;
    return run_model(model, spec, logits, false, NULL, NULL, err);
}

/* ---- evaluation ----------------------------------------------------------------------------------------- */

struct tally {
    int classes;
    float *grad;
    double *rows, loss;
    size_t correct, samples;
    const char *source;
};

static fst_status count(void *ctx, const fst_batch *b, const float *logits, size_t first, fst_error *err)
{
    struct tally *t = ctx;
    fst_loss ce = FST_LOSS_CROSS_ENTROPY;
    fst_loss_input in = {.logits = logits, .rows = b->rows, .classes = t->classes, .labels = b->labels, .divisor = 1};
    (void)first;
    fst_loss_rows(&ce, &in, t->grad, t->rows, NULL, NULL);
    for (size_t i = 0; i < b->rows; i++) {
        int32_t answer;
        if (!isfinite(t->rows[i]))
            return fst_fail(err, FST_E_NUMERIC, "%s: sample %lu makes the model's output infinite or not a number",
                            t->source, (unsigned long)b->index[i]);
        fst_predict(logits + i * (size_t)t->classes, 1, t->classes, &answer);
        t->correct += answer == b->labels[i];
        t->loss += t->rows[i];
    }
    t->samples += b->rows;
    return FST_OK;
}

fst_status fst_model_evaluate(fst_evaluation *out, const fst_model *m, const char *name, const fst_source *s,
                              int threads, fst_error *err)
{
    size_t batch = s->count < EVALUATE_BATCH ? s->count : EVALUATE_BATCH, n = batch * (size_t)m->classes;
    fst_measure_spec spec = {.source = s, .batch_size = batch, .threads = threads};
    struct tally t = {.classes = m->classes, .source = s->name};
    fst_status st = fst_model_check_source(m, name, s, err);
    if (st)
        return st;
    float *logits = fst_alloc(n * sizeof *logits);
    t.grad = fst_alloc(n * sizeof *t.grad);
    t.rows = fst_alloc(batch * sizeof *t.rows);
    st = logits && t.grad && t.rows ? run_model(m, &spec, logits, true, count, &t, err)
                                    : fst_fail_memory(err, n * sizeof *logits);
    fst_free(logits);
    fst_free(t.grad);
    fst_free(t.rows);
    if (!st)
        *out = (fst_evaluation){.samples = t.samples,
                                .correct = t.correct,
                                .accuracy = (double)t.correct / (double)t.samples,
                                .loss = t.loss / (double)t.samples};
    return st;
}

/* ---- a classifier ---------------------------------------------------------------------------------------- */

struct fst_classifier {
    const fst_model *model;
    fst_runner *runner;
    size_t batch;
};

fst_status fst_classifier_new(fst_classifier **out, const fst_model *m, size_t batch, int threads, fst_error *err)
{
    fst_measure_spec spec = {.batch_size = batch};
    fst_classifier *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    *c = (fst_classifier){.model = m, .batch = batch};
    fst_status st = fst__model_runner(&c->runner, m, &spec, batch, threads, err);
    if (st)
        fst_classifier_free(c);
    else
        *out = c;
    return st;
}

void fst_classifier_free(fst_classifier *c)
{
    if (!c)
        return;
    fst_runner_free(c->runner);
    fst_free(c);
}

static fst_status classify(fst_classifier *c, fst_loader *loader, const char *name, float *probability, fst_error *err)
{
    size_t done = 0, classes = (size_t)c->model->classes;
    fst_status st = fst_loader_start(loader, 0, 0, err);
    for (fst_batch b = {.rows = 1}; !st && b.rows; done += b.rows) {
        float *out = probability + done * classes; /* first the logits */
        st = fst_loader_next(loader, &b, err);
        if (st || !b.rows)
            continue;
        st = fst_runner_logits(c->runner, &c->model->state, b.x, b.rows, out, err);
        for (size_t i = 0; !st && i < b.rows * classes; i++)
            if (!isfinite(out[i]))
                st = fst_fail(err, FST_E_NUMERIC, "%s: sample %zu makes the model's output infinite or not a number",
                              name, done + i / classes);
        if (!st)
            fst_softmax(out, b.rows, c->model->classes, 1.0, out);
    }
    return st;
}

/* Through source and loader, so that samples meet the arithmetic that training had. */
fst_status fst_classifier_run(fst_classifier *c, const char *name, fst_dtype dtype, const void *samples, size_t n,
                              float *probability, fst_error *err)
{
    fst_source *source = NULL;
    fst_loader *loader = NULL;
    int32_t *labels = fst_calloc(n + 1, sizeof *labels); /* of no meaning */
    if (!labels)
        return fst_fail_memory(err, n * sizeof *labels);
    name = name ? name : "samples";
    fst_status st = fst_source_from_memory(&source, name, dtype, &c->model->config.input, n, samples, labels, 1, err);
    fst_loader_spec spec = {.source = source, .batch_size = c->batch, .transform = fst_model_transform(c->model)};
    if (!st)
        st = fst_loader_new(&loader, &spec, err);
    if (!st)
        st = classify(c, loader, name, probability, err);
    fst_loader_free(loader);
    fst_source_close(source);
    fst_free(labels);
    return st;
}

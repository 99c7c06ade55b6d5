/*
 * A model that answers windows as they come, to the bits of fst_infer_logits over the same samples.
 *
 * Logits depend on the plan that computes them, that is on the rows of a call, though not on what the other rows are.
 * So a tier has one runner of `batch` rows, which fills a call up with zeroes, as that of fst_infer_logits fills its
 * last batch up; and windows go through the arithmetic of a loader (the model's own transform).
 */
#include <math.h>

#include "apply.h"

struct fst_tier {
    const fst_model *model;
    fst_source *shape_of; /* one sample of zeroes: what the transformer learns the shape from */
    void *zeroes;
    int32_t label;
    fst_transformer *transformer;
    fst_runner *runner;
    fst_tier_spec spec;
    size_t elements, bytes;
    float *x;
};

static fst_status prepare(fst_tier *t, fst_error *err)
{
    const fst_measure_spec how = {
        .batch_size = t->spec.batch, .backend = t->spec.backend, .precision = t->spec.precision};
    const fst_transform own = fst_model_transform(t->model);
    t->elements = (size_t)fst_shape_count(&t->spec.shape);
    t->bytes = t->elements * fst_dtype_size(t->spec.dtype);
    t->zeroes = fst_calloc(t->bytes, 1);
    t->x = fst_alloc(t->spec.batch * t->elements * sizeof *t->x);
    if (!t->zeroes || !t->x)
        return fst_fail_memory(err, t->spec.batch * t->elements * sizeof *t->x);
    fst_status st = fst_source_from_memory(&t->shape_of, "windows", t->spec.dtype, &t->spec.shape, 1, t->zeroes,
                                           &t->label, t->model->classes, err);
    if (!st)
        st = fst_model_check_source(t->model, NULL, t->shape_of, err);
    if (!st)
        st = fst_transformer_new(&t->transformer, &own, t->shape_of, err);
    return st ? st : fst__model_runner(&t->runner, t->model, &how, t->spec.batch, t->spec.threads, err);
}

fst_status fst_tier_new(fst_tier **out, const fst_model *m, const fst_tier_spec *spec, fst_error *err)
{
    if (!spec->batch || (spec->dtype != FST_U8 && spec->dtype != FST_F32) || !(spec->temperature > 0))
        return fst_fail(err, FST_E_ARGUMENT, "a tier has a batch, samples of U8 or F32, and a temperature above 0");
    fst_tier *t = fst_calloc(1, sizeof *t);
    if (!t)
        return fst_fail_memory(err, sizeof *t);
    t->model = m;
    t->spec = *spec;
    fst_status st = prepare(t, err);
    if (st)
        fst_tier_free(t);
    else
        *out = t;
    return st;
}

void fst_tier_free(fst_tier *t)
{
    if (!t)
        return;
    fst_runner_free(t->runner);
    fst_transformer_free(t->transformer);
    fst_source_close(t->shape_of);
    fst_free(t->zeroes);
    fst_free(t->x);
    fst_free(t);
}

const fst_tier_spec *fst_tier_look(const fst_tier *t)
{
    return &t->spec;
}

const fst_model *fst_tier_model(const fst_tier *t)
{
    return t->model;
}

fst_status fst_tier_logits(fst_tier *t, const void *const *windows, size_t n, float *logits, fst_error *err)
{
    if (!n || n > t->spec.batch)
        return fst_fail(err, FST_E_ARGUMENT, "%zu windows for a tier of %zu", n, t->spec.batch);
    for (size_t i = 0; i < n; i++)
        fst_transformer_apply(t->transformer, windows[i], t->x + i * t->elements);
    return fst_runner_logits(t->runner, &t->model->state, t->x, n, logits, err);
}

void fst_tier_judge(const fst_tier *t, const float *logits, fst_tier_answer *out)
{
    int32_t answer = 0;
    double confidence = 0;
    for (int k = 0; k < t->model->classes; k++)
        if (!isfinite(logits[k])) {
            *out = (fst_tier_answer){.answer = -1};
            return;
        }
    fst_predict(logits, 1, t->model->classes, &answer);
    if (fst_confidence(t->spec.kind, logits, 1, t->model->classes, t->spec.temperature, &confidence, NULL))
        answer = -1;
    *out = (fst_tier_answer){.answer = answer, .confidence = confidence, .sure = confidence >= t->spec.threshold};
}

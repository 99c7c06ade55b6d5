/* A model file as one handle, for bindings: fst_model and fst_classifier behind calls that take and give only pointers
 * and numbers. Batches of one sample and of several have a classifier each, so that a program that mixes both does not
 * make plans all the time. */
#include <math.h>

#include "fedstill/infer.h"

enum { MOST = 64 }; /* rows of a batch, as `fedstill predict` has them */

struct made {
    fst_classifier *classifier;
    size_t batch;
};

struct fst_predictor {
    fst_model model;
    int threads;
    struct made one, several;
};

fst_status fst_predictor_open(fst_predictor **out, const char *path, int threads, fst_error *err)
{
    if (threads < 0)
        return fst_fail(err, FST_E_ARGUMENT, "%d threads: 0 (all CPUs) or more are needed", threads);
    fst_predictor *p = fst_calloc(1, sizeof *p);
    if (!p)
        return fst_fail_memory(err, sizeof *p);
    p->threads = threads;
    fst_status s = fst_model_load(&p->model, path, err);
    if (!s)
        s = fst_classifier_new(&p->one.classifier, &p->model, p->one.batch = 1, threads, err);
    if (s)
        fst_predictor_free(p);
    else
        *out = p;
    return s;
}

void fst_predictor_free(fst_predictor *p)
{
    if (!p)
        return;
    fst_classifier_free(p->one.classifier);
    fst_classifier_free(p->several.classifier);
    fst_model_release(&p->model);
    fst_free(p);
}

const char *fst_predictor_arch(const fst_predictor *p)
{
    return p->model.arch;
}

int fst_predictor_classes(const fst_predictor *p)
{
    return p->model.classes;
}

const char *fst_predictor_class_name(const fst_predictor *p, int class_number)
{
    bool named = p->model.class_names && class_number >= 0 && class_number < p->model.classes;
    return named ? p->model.class_names[class_number] : NULL;
}

int fst_predictor_rank(const fst_predictor *p)
{
    return p->model.config.input.rank;
}

int64_t fst_predictor_dim(const fst_predictor *p, int axis)
{
    return axis >= 0 && axis < p->model.config.input.rank ? p->model.config.input.dim[axis] : 0;
}

/* The rows of a plan are in the bits, so that there is one for each number of samples, as the program has it. */
static fst_status classifier_for(fst_predictor *p, size_t n, fst_classifier **out, fst_error *err)
{
    struct made *m = n > 1 ? &p->several : &p->one;
    size_t batch = n < MOST ? n : MOST;
    if (m->batch != batch) {
        fst_classifier *c = NULL;
        fst_status s = fst_classifier_new(&c, &p->model, batch, p->threads, err);
        if (s)
            return s;
        fst_classifier_free(m->classifier);
        *m = (struct made){c, batch};
    }
    *out = m->classifier;
    return FST_OK;
}

static fst_status check_finite(const fst_predictor *p, const float *x, size_t n, fst_error *err)
{
    size_t values = (size_t)fst_shape_count(&p->model.config.input);
    for (size_t i = 0; i < n * values; i++)
        if (!isfinite(x[i]))
            return fst_fail(err, FST_E_NUMERIC, "sample %zu, element %zu is %f; finite numbers are needed", i / values,
                            i % values, (double)x[i]);
    return FST_OK;
}

static fst_status run(fst_predictor *p, fst_dtype dtype, const void *samples, size_t n, float *probability,
                      fst_error *err)
{
    fst_classifier *c = NULL;
    fst_status s = n ? classifier_for(p, n, &c, err) : FST_OK;
    return s || !n ? s : fst_classifier_run(c, NULL, dtype, samples, n, probability, err);
}

fst_status fst_predictor_run_u8(fst_predictor *p, const uint8_t *samples, size_t n, float *probability, fst_error *err)
{
    return run(p, FST_U8, samples, n, probability, err);
}

fst_status fst_predictor_run_f32(fst_predictor *p, const float *samples, size_t n, float *probability, fst_error *err)
{
    fst_status s = check_finite(p, samples, n, err);
    return s ? s : run(p, FST_F32, samples, n, probability, err);
}

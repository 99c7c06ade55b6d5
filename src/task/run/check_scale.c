/*
 * The scale in which a network would see the samples, told before a stage starts: values in the hundreds (pixels that
 * were stored as floats) or around a thousandth (raw signals) train badly, and nothing later says why. Looked at are
 * a few samples as the task's transform leaves them, so that a normalisation of other data is found, too.
 */
#include <math.h>

#include "session.h"

enum { LOOKED_AT = 64 };

/* Root mean square of values that are not far from what networks are made for (1) lies between these. */
static const double too_small = 1.0 / 32, too_large = 32;

/* Mean square of some samples, spread over all. */
static fst_status mean_square(const struct session *s, double *out, fst_error *err)
{
    const fst_source *train = s->data.train;
    size_t elements = (size_t)fst_shape_count(&train->shape), n = train->count < LOOKED_AT ? train->count : LOOKED_AT;
    fst_transformer *t = NULL;
    float *x = fst_alloc(elements * sizeof *x);
    void *raw = fst_alloc(elements * fst_dtype_size(train->dtype));
    fst_transform plain = s->data.transform;
    plain.crop_padding = 0, plain.flip = false;
    double sum = 0;
    fst_status st = x && raw ? fst_transformer_new(&t, &plain, train, err) : fst_fail_memory(err, elements * sizeof *x);
    for (size_t i = 0; !st && i < n; i++) {
        st = train->v->get(train, i * train->count / n, raw, err);
        if (st)
            break;
        fst_transformer_apply(t, raw, x);
        for (size_t k = 0; k < elements; k++)
            sum += (double)x[k] * (double)x[k];
    }
    fst_transformer_free(t);
    fst_free(x);
    fst_free(raw);
    *out = st || !n ? 0 : sum / ((double)n * (double)elements);
    return st;
}

fst_status fst__check_scale(const struct session *s, fst_error *err)
{
    double square = 0;
    bool elsewhere = s->data.places && s->place != FST__ALL_PLACES; /* some of the samples */
    fst_status st = s->data.transform.fingerprint || elsewhere ? FST_OK : mean_square(s, &square, err);
    double size = sqrt(square);
    if (st || size == 0 || (size >= too_small && size <= too_large))
        return st;
    fst_log(
        FST_LOG_WARN,
        "data.normalise: %s the samples' values are around %.3g, where networks learn from values around 1: `fedstill "
        "data info` shows the mean and std to give here",
        s->data.transform.channels ? "with these mean and std" : "is not given, and", size);
    return FST_OK;
}

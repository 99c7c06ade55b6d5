/* How long this machine takes for a model's logits: from the bytes of samples, through the model's own transform. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "apply.h"

struct bench {
    const fst_model *model;
    const fst_measure_spec *spec;
    fst_transformer *transformer;
    unsigned char *raw; /* a batch of samples as they come in */
    float *x, *logits;  /* as the model sees them, and what comes of it */
    double *seconds;
    size_t rows; /* different samples in raw */
};

/* ---- time --------------------------------------------------------------------------------------------- */

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double rank(const double *sorted, size_t n, double p)
{
    size_t r = (size_t)ceil(p * (double)n - 1e-9);
    return sorted[r ? r - 1 : 0];
}

static size_t sample_elements(const struct bench *b)
{
    return (size_t)fst_shape_count(&b->spec->source->shape);
}

/* From the bytes of `rows` samples to logits. */
static fst_status timed(struct bench *b, fst_runner *runner, const unsigned char *raw, size_t rows, double *out,
                        fst_error *err)
{
    size_t bytes = fst_source_sample_bytes(b->spec->source), elements = sample_elements(b);
    double start = fst_clock_seconds();
    for (size_t i = 0; i < rows; i++)
        fst_transformer_apply(b->transformer, raw + i * bytes, b->x + i * elements);
    fst_status st = fst_runner_logits(runner, &b->model->state, b->x, rows, b->logits, err);
    *out = fst_clock_seconds() - start;
    return st;
}

static double median(double *x, int n)
{
    qsort(x, (size_t)n, sizeof *x, rising);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

/* The median of the repeats; one more run before them brings weights and caches into place. */
static fst_status point(struct bench *b, fst_runner *runner, size_t rows, double *out, fst_error *err)
{
    int n = b->spec->repeats;
    fst_status st = timed(b, runner, b->raw, rows, &b->seconds[0], err);
    for (int i = 0; !st && i < n; i++)
        st = timed(b, runner, b->raw, rows, &b->seconds[i], err);
    if (!st)
        *out = median(b->seconds, n);
    return st;
}

/* The decision on a batch whose logits are there. */
static fst_status planning(struct bench *b, double *out, fst_error *err)
{
    size_t rows = b->spec->batch_size;
    double *confidence = fst_alloc(rows * sizeof *confidence);
    int32_t *answer = fst_alloc(rows * sizeof *answer);
    uint8_t *low = fst_alloc(rows);
    fst_status st = confidence && answer && low ? FST_OK : fst_fail_memory(err, rows * sizeof *confidence);
    for (int i = 0; !st && i < b->spec->repeats; i++) {
        double start = fst_clock_seconds();
        st = fst_confidence(b->spec->kind, b->logits, rows, b->model->classes, b->spec->temperature, confidence, err);
        fst_predict(b->logits, rows, b->model->classes, answer);
        for (size_t k = 0; k < rows; k++)
            low[k] = confidence[k] < 0.5;
        b->seconds[i] = fst_clock_seconds() - start;
    }
    if (!st)
        *out = median(b->seconds, b->spec->repeats);
    fst_free(confidence);
    fst_free(answer);
    fst_free(low);
    return st;
}

/* One runner for all sizes, as a tier has one for whatever comes: few rows cost what the shard costs that they fill up.
 */
static fst_status points(struct bench *b, fst_cost *cost, fst_error *err)
{
    size_t full = b->spec->batch_size, rows[] = {1, full / 4, full / 2, full};
    fst_runner *runner = NULL;
    fst_status st = fst__model_runner(&runner, b->model, b->spec, full, b->spec->threads, err);
    for (size_t i = 0; !st && i < sizeof rows / sizeof *rows; i++) {
        double seconds;
        if (rows[i] <= (cost->points ? cost->rows[cost->points - 1] : 0))
            continue;
        st = point(b, runner, rows[i], &seconds, err);
        if (!st) {
            cost->rows[cost->points] = rows[i];
            cost->seconds[cost->points++] = seconds;
        }
    }
    for (size_t i = cost->points; i-- > 1;)
        if (cost->seconds[i - 1] > cost->seconds[i])
            cost->seconds[i - 1] = cost->seconds[i]; /* somebody else had the processor */
    fst_runner_free(runner);
    return st;
}

/* Different samples one after the other, on one thread. */
static fst_status singles(struct bench *b, fst_measured *m, fst_error *err)
{
    size_t n = b->spec->singles, bytes = fst_source_sample_bytes(b->spec->source);
    fst_runner *one = NULL;
    fst_status st = fst__model_runner(&one, b->model, b->spec, 1, 1, err);
    double unused;
    if (!st)
        st = timed(b, one, b->raw, 1, &unused, err);
    for (size_t i = 0; !st && i < n; i++)
        st = timed(b, one, b->raw + i % b->rows * bytes, 1, &b->seconds[i], err);
    if (!st) {
        qsort(b->seconds, n, sizeof *b->seconds, rising);
        m->p50 = rank(b->seconds, n, 0.5);
        m->p95 = rank(b->seconds, n, 0.95);
        m->p99 = rank(b->seconds, n, 0.99);
        m->singles = n;
    }
    fst_runner_free(one);
    return st;
}

/* A full batch of samples, the same again and again where there are too few. */
static fst_status fill(struct bench *b, fst_error *err)
{
    const fst_measure_spec *s = b->spec;
    size_t bytes = fst_source_sample_bytes(s->source), count = fst__measured_samples(s);
    fst_status st = FST_OK;
    b->rows = count < s->batch_size ? count : s->batch_size;
    for (size_t i = 0; !st && i < s->batch_size; i++) {
        size_t at = i % b->rows;
        st = s->source->v->get(s->source, s->subset ? s->subset[at] : at, b->raw + i * bytes, err);
    }
    return st;
}

static fst_status prepare(struct bench *b, fst_error *err)
{
    const fst_measure_spec *s = b->spec;
    size_t bytes = fst_source_sample_bytes(s->source), times = s->singles + (size_t)s->repeats + 1;
    b->raw = fst_alloc(s->batch_size * bytes);
    b->x = fst_alloc(s->batch_size * sample_elements(b) * sizeof *b->x);
    b->logits = fst_alloc(s->batch_size * (size_t)b->model->classes * sizeof *b->logits);
    b->seconds = fst_alloc(times * sizeof *b->seconds);
    if (!b->raw || !b->x || !b->logits || !b->seconds)
        return fst_fail_memory(err, s->batch_size * bytes);
    fst_transform own = fst_model_transform(b->model);
    fst_status st = fst_transformer_new(&b->transformer, &own, s->source, err);
    return st ? st : fill(b, err);
}

static double peak_bytes(void)
{
    struct rusage use;
    return getrusage(RUSAGE_SELF, &use) ? NAN : 1024.0 * (double)use.ru_maxrss;
}

fst_status fst_measure(fst_measured *out, const fst_model *model, const fst_measure_spec *spec, fst_error *err)
{
    struct bench b = {.model = model, .spec = spec};
    fst_measured m = {.p50 = NAN, .p95 = NAN, .p99 = NAN};
    fst_status st = fst__check_measured(model, spec, err);
    if (!st && (!spec->repeats || !fst__measured_samples(spec)))
        st = fst_fail(err, FST_E_ARGUMENT, "measuring needs samples and repeats: %zu, %d", fst__measured_samples(spec),
                      spec->repeats);
    if (!st)
        st = prepare(&b, err);
    if (!st)
        st = points(&b, &m.cost, err);
    if (!st && spec->planning)
        st = planning(&b, &m.planning, err);
    if (!st && spec->singles)
        st = singles(&b, &m, err);
    fst_transformer_free(b.transformer);
    fst_free(b.raw);
    fst_free(b.x);
    fst_free(b.logits);
    fst_free(b.seconds);
    if (st)
        return st;
    m.peak_bytes = peak_bytes();
    *out = m;
    return FST_OK;
}

/* Runs a model over samples: its logits, and how long this machine takes for them. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "fedstill/infer.h"

struct bench {
    const fst_model *model;
    const fst_measure_spec *spec;
    fst_transformer *transformer;
    unsigned char *raw; /* a batch of samples as they come in */
    float *x, *logits;  /* as the model sees them, and what comes of it */
    double *seconds;
    size_t rows; /* different samples in raw */
};

static size_t sample_count(const fst_measure_spec *s)
{
    return s->subset ? s->count : s->source->count;
}

static fst_status check(const fst_model *m, const fst_measure_spec *s, fst_error *err)
{
    char a[64], b[64];
    if (!s->batch_size || s->repeats < 0)
        return fst_fail(err, FST_E_ARGUMENT, "batches of %zu, measured %d times", s->batch_size, s->repeats);
    if (fst_shape_count(&s->source->shape) != fst_shape_count(&m->config.input))
        return fst_fail(err, FST_E_MISMATCH, "%s: samples have shape %s, but the model takes %s", s->source->name,
                        fst_shape_text(&s->source->shape, a, sizeof a), fst_shape_text(&m->config.input, b, sizeof b));
    return FST_OK;
}

static fst_status open_runner(fst_runner **out, const fst_model *m, const fst_measure_spec *s, size_t batch,
                              int threads, fst_error *err)
{
    fst_trainer_options o = {.batch_size = batch, .threads = threads, .backend = s->backend, .precision = s->precision};
    fst_status st = fst_runner_new(out, m->graph, &o, err);
    if (!st)
        fst_runner_hold(*out, &m->state);
    return st;
}

static fst_status open_loader(fst_loader **out, const fst_measure_spec *s, size_t batch, fst_error *err)
{
    fst_loader_spec l = {.source = s->source,
                         .subset = s->subset,
                         .subset_count = s->count,
                         .batch_size = batch,
                         .transform = s->transform};
    fst_status st = fst_loader_new(out, &l, err);
    return st ? st : fst_loader_start(*out, 0, 0, err);
}

fst_status fst_infer_logits(const fst_model *model, const fst_measure_spec *spec, float *logits, fst_error *err)
{
    fst_runner *runner = NULL;
    fst_loader *loader = NULL;
    size_t done = 0;
    fst_status st = check(model, spec, err);
    if (st || !sample_count(spec))
        return st;
    st = open_runner(&runner, model, spec, spec->batch_size, spec->threads, err);
    if (!st)
        st = open_loader(&loader, spec, spec->batch_size, err);
    for (fst_batch b = {.rows = 1}; !st && b.rows; done += b.rows) {
        if (spec->progress)
            st = spec->progress(spec->ctx, done, err);
        if (!st)
            st = fst_loader_next(loader, &b, err);
        if (!st && b.rows)
            st = fst_runner_logits(runner, &model->state, b.x, b.rows, logits + done * (size_t)model->classes, err);
    }
    fst_loader_free(loader);
    fst_runner_free(runner);
    return st;
}

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

/* The median of the repeats; one more run before them brings weights and caches into place. A runner fills a batch up
 * to its own size, so each size gets one. */
static fst_status point(struct bench *b, size_t rows, double *out, fst_error *err)
{
    int n = b->spec->repeats;
    fst_runner *runner = NULL;
    fst_status st = open_runner(&runner, b->model, b->spec, rows, b->spec->threads, err);
    if (!st)
        st = timed(b, runner, b->raw, rows, &b->seconds[0], err);
    for (int i = 0; !st && i < n; i++)
        st = timed(b, runner, b->raw, rows, &b->seconds[i], err);
    if (!st)
        *out = median(b->seconds, n);
    fst_runner_free(runner);
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

static fst_status points(struct bench *b, fst_cost *cost, fst_error *err)
{
    size_t full = b->spec->batch_size, rows[] = {1, full / 4, full / 2, full};
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < sizeof rows / sizeof *rows; i++) {
        double seconds;
        if (rows[i] <= (cost->points ? cost->rows[cost->points - 1] : 0))
            continue;
        st = point(b, rows[i], &seconds, err);
        if (!st) {
            cost->rows[cost->points] = rows[i];
            cost->seconds[cost->points++] = seconds;
        }
    }
    for (size_t i = cost->points; i-- > 1;)
        if (cost->seconds[i - 1] > cost->seconds[i])
            cost->seconds[i - 1] = cost->seconds[i]; /* somebody else had the processor */
    return st;
}

/* Different samples one after the other, on one thread. */
static fst_status singles(struct bench *b, fst_measured *m, fst_error *err)
{
    size_t n = b->spec->singles, bytes = fst_source_sample_bytes(b->spec->source);
    fst_runner *one = NULL;
    fst_status st = open_runner(&one, b->model, b->spec, 1, 1, err);
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
    size_t bytes = fst_source_sample_bytes(s->source), count = sample_count(s);
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
    fst_status st = fst_transformer_new(&b->transformer, &s->transform, s->source, err);
    return st ? st : fill(b, err);
}

fst_transform fst_model_transform(const fst_model *m)
{
    fst_transform t = {.channels = m->channels, .fingerprint = m->fingerprint};
    _Static_assert(sizeof t.mean == sizeof m->mean, "as many channels in models as in transforms");
    memcpy(t.mean, m->mean, sizeof t.mean);
    memcpy(t.std, m->std, sizeof t.std);
    return t;
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
    fst_status st = check(model, spec, err);
    if (!st && (!spec->repeats || !sample_count(spec)))
        st = fst_fail(err, FST_E_ARGUMENT, "measuring needs samples and repeats: %zu, %d", sample_count(spec),
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

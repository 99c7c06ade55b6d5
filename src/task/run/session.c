/* The session of a run: how it computes, its watchers, evaluation and model files. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/infer.h"
#include "session.h"

const char *const fst__step_names[STEPS] = {"cloud_pretrain", "cloud_kd",        "edge_alone",
                                            "edge_kd",        "federated_train", "device_load",
                                            "edge_infer",     "cloud_infer",     "cloud_direct_infer"};
const char *const fst__step_stages[STEPS] = {"cloud_pretrain", "cloud_kd",        "edge_kd",
                                             "edge_kd",        "federated_train", "device_load",
                                             "edge_infer",     "cloud_infer",     "cloud_direct_infer"};

enum { EVAL_BATCH = 512 };

void fst__session_init(struct session *s, const fst_task *t, const fst_task_options *o)
{
    int cpus = fst_cpu_count();
    fst_precision wanted = (fst_precision)t->file.precision;
    s->task = t;
    s->options = o;
    s->backend = o->backend ? o->backend : fst_backend_names()[0];
    s->threads = o->threads > 0 ? o->threads : cpus;
    s->workers = o->workers > 0 ? o->workers : cpus;
    s->precision = fst_backend_supports(s->backend, wanted) ? wanted : FST_PRECISION_F32;
    if (s->precision != wanted)
        fst_log(FST_LOG_WARN, "precision: this machine cannot compute in %s (backend %s): f32 is used",
                fst_precision_name(wanted), s->backend);
}

fst_trainer_options fst__trainer_options(const struct session *s, size_t batch, int threads)
{
    return (fst_trainer_options){.batch_size = batch,
                                 .threads = threads,
                                 .backend = s->backend,
                                 .precision = s->precision,
                                 .check_finite = s->task->file.check_finite};
}

void fst__session_close(struct session *s)
{
    for (enum step step = 0; step < STEPS; step++)
        fst_free(s->inputs[step]);
    while (s->nowned > 0)
        fst_source_close(s->owned[--s->nowned]);
    fst_free(s->order);
    fst_free(s->first.index);
    for (size_t k = 0; k < s->edges; k++)
        fst_free(s->edge[k].index);
    fst_free(s->made.x);
    fst_free(s->made.labels);
    fst_free(s->made.snr);
    fst_free(s->made.burst);
    fst_runner_free(s->runner);
    fst_events_free(s->events);
    fst_registry_free(s->registry);
}

bool fst__session_stopped(const struct session *s)
{
    return s->options->stop && atomic_load(s->options->stop);
}

char *fst__step_path(const struct session *s, enum step step, const char *name)
{
    char *folder = fst_path_join(s->task->output, fst__step_names[step]);
    char *path = folder ? fst_path_join(folder, name) : NULL;
    fst_free(folder);
    return path;
}

uint64_t fst__step_seed(const struct session *s, enum step step, const char *purpose, uint64_t index)
{
    char name[96];
    fst_rng r;
    /* The baseline starts from the same weights and sees the same batches as the student it is compared to. */
    step = step == STEP_ALONE ? STEP_DISTIL : step;
    snprintf(name, sizeof name, "step.%s.%s", fst__step_names[step], purpose);
    fst_rng_init(&r, (uint64_t)s->task->file.seed, name, index);
    return fst_rng_u64(&r);
}

/* ---- watchers ------------------------------------------------------------------------------------ */

void fst__watch_begin(const struct session *s, const char *label, uint64_t total, const char *unit)
{
    const fst_observer *o = &s->options->observer;
    if (o->begin)
        o->begin(o->ctx, label, total, unit);
}

void fst__watch_update(struct session *s, uint64_t done, const char *note)
{
    const fst_observer *o = &s->options->observer;
    fst__books_touch(s);
    if (o->update)
        o->update(o->ctx, done, note);
}

void fst__watch_end(const struct session *s, const char *note)
{
    const fst_observer *o = &s->options->observer;
    if (o->end)
        o->end(o->ctx, note);
}

struct save_clock fst__saved(double began)
{
    double now = fst_clock_seconds();
    return (struct save_clock){now, now - began};
}

bool fst__save_due(const struct save_clock *c, double seconds)
{
    double passed = fst_clock_seconds() - c->at;
    return passed >= seconds && (seconds == 0 || passed >= 19 * c->cost);
}

void fst__emit(struct session *s, const char *event, const fst_field *fields, size_t n)
{
    fst_error e = {0};
    if (s->events && !s->events_failed && fst_events_emit(s->events, event, fields, n, &e)) {
        fst_log(FST_LOG_WARN, "events are no longer written: %s", e.message);
        s->events_failed = true;
    }
}

/* ---- evaluation ----------------------------------------------------------------------------------- */

static fst_status runner_for(struct session *s, const fst_graph *graph, fst_error *err)
{
    if (s->runner && s->runner_graph == graph)
        return FST_OK;
    fst_runner_free(s->runner);
    s->runner = NULL;
    fst_trainer_options o = fst__trainer_options(s, EVAL_BATCH, s->threads);
    fst_status st = fst_runner_new(&s->runner, graph, &o, err);
    if (!st)
        s->runner_graph = graph;
    return st;
}

struct tally {
    const fst_graph *graph;
    const fst_state *state;
    const float *snr;        /* of the source */
    struct snr_table *table; /* NULL: not wanted */
    int classes;
    float *logits, *grad;
    double *rows, loss;
    size_t correct, samples;
    int64_t *of_class; /* classes each: samples, answers, right answers */
};

static int by_size(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return x < y ? -1 : x > y;
}

/* A bin for each ratio when there are few of them, as where signals were made at fixed ones; else bins of 5 dB, or
 * wider where the range is. */
static void fill_bins(struct snr_table *t, const float *sorted, size_t n)
{
    enum { FEW = 32 };
    double width = 5;
    size_t kinds = 0;
    for (size_t i = 0; i < n && kinds <= FEW; i++)
        if (!i || sorted[i] != sorted[i - 1]) {
            if (kinds < FEW)
                t->bin[kinds].from = t->bin[kinds].to = sorted[i];
            kinds++;
        }
    t->count = kinds;
    if (kinds <= FEW)
        return;
    while (floor(sorted[n - 1] / width) - floor(sorted[0] / width) + 1 > FST__SNR_BINS)
        width *= 2;
    double first = floor(sorted[0] / width);
    t->count = (size_t)(floor(sorted[n - 1] / width) - first) + 1;
    for (size_t i = 0; i < t->count; i++) {
        t->bin[i].from = (first + (double)i) * width;
        t->bin[i].to = t->bin[i].from + width;
    }
}

static fst_status make_bins(struct snr_table *t, const fst_source *source, fst_error *err)
{
    size_t n = 0;
    *t = (struct snr_table){.count = 0};
    float *sorted = fst_alloc(source->count * sizeof *sorted);
    if (!sorted)
        return fst_fail_memory(err, source->count * sizeof *sorted);
    for (size_t i = 0; i < source->count; i++)
        if (isfinite(source->snr[i]))
            sorted[n++] = source->snr[i];
    qsort(sorted, n, sizeof *sorted, by_size);
    if (n)
        fill_bins(t, sorted, n);
    fst_free(sorted);
    return FST_OK;
}

static void count_snr(struct snr_table *t, float snr, bool correct)
{
    double x = snr;
    for (size_t i = 0; i < t->count; i++)
        if (t->bin[i].from == t->bin[i].to ? x == t->bin[i].from : x >= t->bin[i].from && x < t->bin[i].to) {
            t->bin[i].samples++;
            t->bin[i].correct += correct;
            return;
        }
}

static fst_status count_batch(struct session *s, struct tally *t, const fst_batch *b, fst_error *err)
{
    fst_loss ce = FST_LOSS_CROSS_ENTROPY;
    fst_status st = fst_runner_logits(s->runner, t->state, b->x, b->rows, t->logits, err);
    if (st)
        return st;
    fst_loss_input in = {
        .logits = t->logits, .rows = b->rows, .classes = t->classes, .labels = b->labels, .divisor = 1};
    fst_loss_rows(&ce, &in, t->grad, t->rows, NULL, NULL);
    for (size_t i = 0; i < b->rows; i++) {
        const float *z = t->logits + i * (size_t)t->classes;
        int best = 0;
        for (int j = 1; j < t->classes; j++)
            best = z[j] > z[best] ? j : best;
        t->correct += best == b->labels[i];
        t->of_class[b->labels[i]]++;
        t->of_class[t->classes + best]++;
        t->of_class[2 * t->classes + best] += best == b->labels[i];
        if (t->table)
            count_snr(t->table, t->snr[b->index[i]], best == b->labels[i]);
        t->loss += t->rows[i];
    }
    t->samples += b->rows;
    return FST_OK;
}

static fst_status count_all(struct session *s, struct tally *t, fst_loader *loader, fst_error *err)
{
    size_t n = EVAL_BATCH * (size_t)t->classes;
    t->logits = fst_alloc(n * sizeof *t->logits);
    t->grad = fst_alloc(n * sizeof *t->grad);
    t->rows = fst_alloc(EVAL_BATCH * sizeof *t->rows);
    t->of_class = fst_calloc(3 * (size_t)t->classes, sizeof *t->of_class);
    if (!t->logits || !t->grad || !t->rows || !t->of_class)
        return fst_fail_memory(err, n * sizeof *t->logits);
    fst_status st = fst_loader_start(loader, 0, 0, err);
    for (fst_batch b = {.rows = 1}; !st && b.rows;) {
        st = fst_loader_next(loader, &b, err);
        if (!st && b.rows)
            st = count_batch(s, t, &b, err);
    }
    return st;
}

static fst_status evaluate(struct session *s, const fst_graph *graph, const fst_state *state, const fst_source *source,
                           const uint32_t *subset, size_t count, struct score *out, struct snr_table *table,
                           fst_error *err)
{
    fst_shape shape = fst_graph_output_shape(graph);
    struct tally t = {
        .graph = graph, .state = state, .snr = source->snr, .table = table, .classes = (int)fst_shape_count(&shape)};
    fst_loader *loader = NULL;
    fst_loader_spec spec = {.source = source,
                            .subset = subset,
                            .subset_count = count,
                            .batch_size = EVAL_BATCH,
                            .transform = s->transform,
                            .background = true};
    fst_status st = runner_for(s, graph, err);
    if (!st)
        st = fst_loader_new(&loader, &spec, err);
    if (!st) {
        fst_runner_hold(s->runner, state); /* it changes between evaluations, not within one */
        st = count_all(s, &t, loader, err);
        fst_runner_hold(s->runner, NULL);
    }
    fst_loader_free(loader);
    fst_free(t.logits);
    fst_free(t.grad);
    fst_free(t.rows);
    if (!st) {
        size_t n = (size_t)t.classes;
        *out = (struct score){.accuracy = (double)t.correct / (double)t.samples,
                              .loss = t.loss / (double)t.samples,
                              .samples = t.samples};
        fst_macro_scores(t.of_class, t.of_class + n, t.of_class + 2 * n, n, &out->macro_f1, &out->balanced);
    }
    fst_free(t.of_class);
    return st;
}

fst_status fst__evaluate(struct session *s, const fst_graph *graph, const fst_state *state, const fst_source *source,
                         const uint32_t *subset, size_t count, struct score *out, fst_error *err)
{
    return evaluate(s, graph, state, source, subset, count, out, NULL, err);
}

fst_status fst__evaluate_by_snr(struct session *s, const fst_graph *graph, const fst_state *state, struct score *out,
                                struct snr_table *table, fst_error *err)
{
    bool wanted = table && s->test->snr;
    fst_status st = wanted ? make_bins(table, s->test, err) : FST_OK;
    return st ? st : evaluate(s, graph, state, s->test, NULL, 0, out, wanted ? table : NULL, err);
}

fst_status fst__evaluate_test(struct session *s, const fst_graph *graph, const fst_state *state, struct score *out,
                              fst_error *err)
{
    return fst__evaluate_by_snr(s, graph, state, out, NULL, err);
}

/* ---- models ----------------------------------------------------------------------------------------- */

fst_status fst__model_config(const struct session *s, const char *model, char arch[FST__ARCH], fst_model_config *out,
                             fst_error *err)
{
    fst_model_config c = {.classes = s->train->classes, .input = s->train->shape};
    size_t n = strcspn(model, " ");
    fst_status st = FST_OK;
    snprintf(arch, FST__ARCH, "%.*s", (int)(n < FST__ARCH ? n : FST__ARCH), model);
    for (const char *at = model + n; !st && at[n = strspn(at, " ")];) {
        char setting[128];
        at += n;
        n = strcspn(at, " ");
        snprintf(setting, sizeof setting, "%.*s", (int)(n < sizeof setting ? n : sizeof setting - 1), at);
        if (!strncmp(setting, "classes=", 8) || !strncmp(setting, "input=", 6))
            return fst_fail(err, FST_E_CONFIG, "\"%s\": classes and input are those of the data", setting);
        st = fst_model_config_set(&c, arch, setting, err);
        at += n;
    }
    if (!st)
        *out = c;
    return st;
}

fst_status fst__model_graph(const struct session *s, const char *model, fst_graph **out, fst_error *err)
{
    char arch[FST__ARCH];
    fst_model_config c;
    fst_status st = fst__model_config(s, model, arch, &c, err);
    return st ? st : fst_model_graph(out, arch, &c, err);
}

fst_status fst__new_model(const struct session *s, const char *model, fst_model *out, fst_error *err)
{
    char arch[FST__ARCH];
    fst_model_config c;
    fst_status st = fst__model_config(s, model, arch, &c, err);
    if (!st)
        st = fst_model_init(out, arch, &c, err);
    if (st)
        return st;
    out->channels = s->transform.channels;
    out->fingerprint = s->transform.fingerprint;
    memcpy(out->mean, s->transform.mean, sizeof out->mean);
    memcpy(out->std, s->transform.std, sizeof out->std);
    if (s->train->class_names)
        st = fst_model_set_class_names(out, s->train->class_names, s->train->classes, err);
    if (st)
        fst_model_release(out);
    return st;
}

static bool all_finite(const float *x, size_t n)
{
    const uint32_t exponent = 0x7F800000u; /* all ones: infinity or NaN */
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad |= (bits & exponent) == exponent;
    }
    return !bad;
}

fst_status fst__state_sound(const fst_state *state, fst_error *err)
{
    if (all_finite(state->params, state->param_count) && all_finite(state->buffers, state->buffer_count))
        return FST_OK;
    return fst_fail(err, FST_E_NUMERIC, "a parameter of the model is no longer a finite number");
}

fst_status fst__write_model(struct session *s, enum step step, const fst_model *m, const struct record *r,
                            const char *name, double accuracy, char digest[FST_DIGEST_HEX], fst_error *err)
{
    char percent[32], seed[32];
    snprintf(percent, sizeof percent, "%.6f", accuracy);
    snprintf(seed, sizeof seed, "%lld", (long long)s->task->file.seed);
    fst_pair more[] = {
        {"task", s->task->file.name},       {"stage", fst__step_names[step]}, {"seed", seed},
        {"data_digest", s->train->digest},  {"test_accuracy", percent},       {"fingerprint", r->fingerprint},
        {"writer", "fedstill " FST_VERSION}};
    char *path = fst__step_path(s, step, name);
    fst_status st =
        path ? fst_model_save(m, path, more, sizeof more / sizeof *more, digest, err) : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

fst_status fst__save_model(struct session *s, enum step step, const fst_model *m, struct record *r, fst_error *err)
{
    struct score score;
    fst_status st = fst__state_sound(&m->state, err);
    if (!st)
        st = fst__evaluate_by_snr(s, m->graph, &m->state, &score, &r->snr, err);
    if (!st && !isfinite(score.loss))
        st = fst_fail(err, FST_E_NUMERIC, "the loss over the test samples is not a finite number (%g)", score.loss);
    if (st)
        return fst_fail_in(err, st, "%s: the model is not saved", fst__step_names[step]);
    snprintf(r->artifact, sizeof r->artifact, "model.safetensors");
    r->has_model = true;
    r->accuracy = score.accuracy;
    r->loss = score.loss;
    r->macro_f1 = score.macro_f1;
    r->balanced = score.balanced;
    r->parameters = (int64_t)m->state.param_count;
    return fst__write_model(s, step, m, r, r->artifact, score.accuracy, r->digest, err);
}

fst_status fst__load_model(const char *path, const char *wanted, fst_model *out, char digest[FST_DIGEST_HEX],
                           fst_error *err)
{
    fst_buf bytes = {0};
    fst_status st = fst__read_whole(path, wanted, &bytes, digest, err);
    if (!st)
        st = fst_model_load_memory(out, path, bytes.data, bytes.len, err);
    fst_buf_release(&bytes);
    return st;
}

fst_status fst__load_step_model(const struct session *s, enum step step, fst_model *out, fst_error *err)
{
    char *path = fst__step_path(s, step, s->records[step].artifact);
    fst_status st = path ? fst__load_model(path, s->records[step].digest, out, NULL, err) : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

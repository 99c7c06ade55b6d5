/* The session of a run: its data, its watchers, evaluation and model files. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "session.h"

const char *const fst__step_names[STEPS] = {"cloud_pretrain", "cloud_kd", "edge_alone", "edge_kd", "federated_train"};
const char *const fst__step_stages[STEPS] = {"cloud_pretrain", "cloud_kd", "edge_kd", "edge_kd", "federated_train"};

enum { EVAL_BATCH = 512 };

/* ---- data --------------------------------------------------------------------------------------- */

static fst_status open_source(const struct session *s, const char *split, fst_source **out, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    char *path = fst_path_join(s->task->folder, d->path);
    if (!path)
        return fst_fail_memory(err, strlen(d->path));
    fst_source_spec spec = {.format = d->source ? fst__data_sources[d->source] : NULL,
                            .path = path,
                            .split = split,
                            .x = d->x,
                            .y = d->y,
                            .classes = (int)d->classes,
                            .image_channels = (int)d->channels,
                            .image_height = (int)d->height,
                            .image_width = (int)d->width,
                            .window = (size_t)d->window,
                            .limit = (size_t)(strcmp(split, "test") ? d->limit : d->test_limit)};
    fst_status st = fst_source_open(out, &spec, err);
    fst_free(path);
    return st ? fst_fail_in(err, st, "%s samples", split) : FST_OK;
}

static fst_status make_transform(struct session *s, fst_error *err)
{
    const struct data_section *d = &s->task->file.data;
    fst_transform t = {.crop_padding = (int)d->crop_padding, .flip = d->flip};
    if (d->has_normalise) {
        t.channels = (int)d->normalise.mean_count;
        if (t.channels != 1 && t.channels != s->train->shape.dim[0])
            return fst_fail(err, FST_E_CONFIG, "data.normalise has %d values, the samples have %lld channels",
                            t.channels, (long long)s->train->shape.dim[0]);
        for (int i = 0; i < t.channels; i++) {
            t.mean[i] = (float)d->normalise.mean[i];
            t.std[i] = (float)d->normalise.std[i];
        }
    }
    s->transform = t;
    return FST_OK;
}

static fst_status share_out(struct session *s, fst_error *err)
{
    size_t n = s->train->count;
    fst_rng r;
    s->order = fst_calloc(n, sizeof *s->order);
    if (!s->order)
        return fst_fail_memory(err, n * sizeof *s->order);
    for (size_t i = 0; i < n; i++)
        s->order[i] = (uint32_t)i;
    s->validate = (size_t)((double)n * s->task->file.data.validation);
    s->learn = n - s->validate;
    if (s->validate) {
        fst_rng_init(&r, (uint64_t)s->task->file.seed, "data.validation", 0);
        fst_rng_shuffle_u32(&r, s->order, n);
    }
    return FST_OK;
}

fst_status fst__session_open_data(struct session *s, fst_error *err)
{
    char a[64], b[64];
    fst_status st = open_source(s, "train", &s->train, err);
    if (!st)
        st = open_source(s, "test", &s->test, err);
    if (!st && (!fst_shape_equal(&s->train->shape, &s->test->shape) || s->test->classes > s->train->classes))
        st = fst_fail(err, FST_E_MISMATCH, "training samples are %s with %d classes, test samples %s with %d",
                      fst_shape_text(&s->train->shape, a, sizeof a), s->train->classes,
                      fst_shape_text(&s->test->shape, b, sizeof b), s->test->classes);
    if (!st)
        st = make_transform(s, err);
    return st ? st : share_out(s, err);
}

void fst__session_close(struct session *s)
{
    fst_source_close(s->train);
    fst_source_close(s->test);
    fst_free(s->order);
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

void fst__watch_update(const struct session *s, uint64_t done, const char *note)
{
    const fst_observer *o = &s->options->observer;
    if (o->update)
        o->update(o->ctx, done, note);
}

void fst__watch_end(const struct session *s, const char *note)
{
    const fst_observer *o = &s->options->observer;
    if (o->end)
        o->end(o->ctx, note);
}

void fst__emit(struct session *s, const char *event, const fst_field *fields, size_t n)
{
    fst_error e = {0};
    if (s->events && fst_events_emit(s->events, event, fields, n, &e)) {
        fst_log(FST_LOG_WARN, "events are no longer written: %s", e.message);
        fst_events_free(s->events);
        s->events = NULL;
    }
}

/* ---- evaluation ----------------------------------------------------------------------------------- */

static fst_status runner_for(struct session *s, const fst_graph *graph, fst_error *err)
{
    if (s->runner && s->runner_graph == graph)
        return FST_OK;
    fst_runner_free(s->runner);
    s->runner = NULL;
    fst_trainer_options o = {.batch_size = EVAL_BATCH, .threads = s->threads, .backend = s->backend};
    fst_status st = fst_runner_new(&s->runner, graph, &o, err);
    if (!st)
        s->runner_graph = graph;
    return st;
}

struct tally {
    const fst_graph *graph;
    const fst_state *state;
    int classes;
    float *logits, *grad;
    double *rows, loss;
    size_t correct, samples;
};

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
    if (!t->logits || !t->grad || !t->rows)
        return fst_fail_memory(err, n * sizeof *t->logits);
    fst_status st = fst_loader_start(loader, 0, 0, err);
    for (fst_batch b = {.rows = 1}; !st && b.rows;) {
        st = fst_loader_next(loader, &b, err);
        if (!st && b.rows)
            st = count_batch(s, t, &b, err);
    }
    return st;
}

fst_status fst__evaluate(struct session *s, const fst_graph *graph, const fst_state *state, const fst_source *source,
                         const uint32_t *subset, size_t count, struct score *out, fst_error *err)
{
    fst_shape shape = fst_graph_output_shape(graph);
    struct tally t = {.graph = graph, .state = state, .classes = (int)fst_shape_count(&shape)};
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
    if (!st)
        st = count_all(s, &t, loader, err);
    fst_loader_free(loader);
    fst_free(t.logits);
    fst_free(t.grad);
    fst_free(t.rows);
    if (!st)
        *out = (struct score){(double)t.correct / (double)t.samples, t.loss / (double)t.samples, t.samples};
    return st;
}

fst_status fst__evaluate_test(struct session *s, const fst_graph *graph, const fst_state *state, struct score *out,
                              fst_error *err)
{
    return fst__evaluate(s, graph, state, s->test, NULL, 0, out, err);
}

/* ---- models ----------------------------------------------------------------------------------------- */

fst_status fst__new_model(const struct session *s, const char *arch, fst_model *out, fst_error *err)
{
    fst_model_config c = {.classes = s->train->classes, .input = s->train->shape};
    fst_status st = fst_model_init(out, arch, &c, err);
    if (st)
        return st;
    out->channels = s->transform.channels;
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

fst_status fst__save_model(struct session *s, enum step step, const fst_model *m, struct record *r, fst_error *err)
{
    char accuracy[32], seed[32];
    struct score score;
    fst_status st = fst__state_sound(&m->state, err);
    if (!st)
        st = fst__evaluate_test(s, m->graph, &m->state, &score, err);
    if (!st && !isfinite(score.loss))
        st = fst_fail(err, FST_E_NUMERIC, "the loss over the test samples is not a finite number (%g)", score.loss);
    if (st)
        return fst_fail_in(err, st, "%s: the model is not saved", fst__step_names[step]);
    snprintf(r->artifact, sizeof r->artifact, "model.safetensors");
    r->has_model = true;
    r->accuracy = score.accuracy;
    r->loss = score.loss;
    r->parameters = (int64_t)m->state.param_count;
    snprintf(accuracy, sizeof accuracy, "%.6f", score.accuracy);
    snprintf(seed, sizeof seed, "%lld", (long long)s->task->file.seed);
    fst_pair more[] = {{"task", s->task->file.name},  {"stage", fst__step_names[step]},
                       {"seed", seed},                {"data_digest", s->train->digest},
                       {"test_accuracy", accuracy},   {"fingerprint", r->fingerprint},
                       {"writer", "fedstill " FST_VERSION}};
    char *path = fst__step_path(s, step, r->artifact);
    st = path ? fst_model_save(m, path, more, sizeof more / sizeof *more, r->digest, err) : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

fst_status fst__load_step_model(const struct session *s, enum step step, fst_model *out, fst_error *err)
{
    char *path = fst__step_path(s, step, s->records[step].artifact);
    fst_status st = path ? fst_model_load(out, path, err) : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

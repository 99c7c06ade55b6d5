/*
 * The stages of the cascade: devices hand over their samples, the edge's student answers what it is sure of, the
 * cloud's teacher the rest, or everything. Answers follow from samples, models and settings; times are measured here
 * and now, on one machine for all tiers, and links exist in the model of time only.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cascade_fleet.h"

enum { SINGLES = 200 };

/* ---- what the steps share -------------------------------------------------------------------------- */

static fst_status progress(void *ctx, size_t done, fst_error *err)
{
    struct session *s = ctx;
    if (fst__session_stopped(s))
        return fst_fail(err, FST_E_CANCELLED, "stopped");
    fst__watch_update(s, done, NULL);
    return FST_OK;
}

struct settings { /* of a tier's computing */
    size_t batch;
    int threads, runs, repeats;
};

static struct settings edge_settings(const struct session *s, const struct edge_infer_section *e)
{
    return (struct settings){(size_t)e->batch_size, e->threads ? (int)e->threads : s->machine.threads, (int)e->runs,
                             (int)e->repeats};
}

static struct settings cloud_settings(const struct session *s, const struct cloud_infer_section *c)
{
    return (struct settings){(size_t)c->batch_size, c->threads ? (int)c->threads : s->machine.threads, (int)c->runs,
                             (int)c->repeats};
}

static fst_measure_spec spec_of(struct session *s, const struct settings *how, const fst_source *source,
                                const uint32_t *subset, size_t count)
{
    return (fst_measure_spec){.source = source,
                              .subset = subset,
                              .count = count,
                              .batch_size = how->batch,
                              .threads = how->threads,
                              .backend = s->machine.backend,
                              .precision = s->machine.precision,
                              .repeats = how->repeats,
                              .temperature = 1,
                              .progress = progress,
                              .ctx = s};
}

/* New memory: rows x classes. */
static fst_status logits_of(struct session *s, const struct tier_model *m, const fst_measure_spec *spec,
                            const char *label, float **out, fst_error *err)
{
    size_t n = spec->count * (size_t)m->model.classes;
    float *logits = fst_alloc((n + 1) * sizeof *logits);
    if (!logits)
        return fst_fail_memory(err, n * sizeof *logits);
    fst__watch_begin(s, label, spec->count, "samples");
    fst__watch_update(s, 0, NULL);
    fst_status st = fst_infer_logits(&m->model, spec, logits, err);
    fst__watch_end(s, st ? "stopped" : NULL);
    if (st)
        fst_free(logits);
    else
        *out = logits;
    return st;
}

/* Several runs of measuring; runs: FST__MAX_RUNS entries. Only the first times single samples. */
static fst_status measure(const struct session *s, const struct tier_model *m, fst_measure_spec spec,
                          const struct settings *how, fst_measured *runs, size_t *count, fst_error *err)
{
    fst_status st = FST_OK;
    for (*count = 0; !st && *count < (size_t)how->runs; spec.singles = 0) {
        if (fst__session_stopped(s))
            return fst_fail(err, FST_E_CANCELLED, "stopped");
        st = fst_measure(&runs[*count], &m->model, &spec, err);
        *count += !st;
    }
    return st;
}

/* ---- device_load --------------------------------------------------------------------------------------- */

/* Deals the test samples evenly, bursts whole. */
static fst_status deal_out(const struct session *s, const struct step *own, size_t devices, fst_partition *out,
                           fst_error *err)
{
    fst_partition_spec spec = {.kind = FST_PARTITION_IID,
                               .clients = (int)devices,
                               .seed = fst__step_seed(s, own, "deal", 0),
                               .whose = "devices"};
    fst_status st = fst_partition_make(out, s->data.test, &spec, err);
    return st ? fst_fail_in(err, st, "the shares of %zu devices of the test samples", devices) : FST_OK;
}

fst_status fst__check_devices(const struct session *s, const struct step *own, fst_error *err)
{
    struct topology_section t;
    fst_partition p = {0};
    fst_status st = fst__tiers(&s->task->file, &t, err);
    if (!st)
        st = deal_out(s, own, (size_t)t.devices, &p, err);
    fst_partition_release(&p);
    return st;
}

/* A device keeps the first of its own, in their order. */
fst_status fst__deal(const struct session *s, const struct step *own, struct batches *b, size_t devices, fst_error *err)
{
    const struct device_load_section *d = own->stage->settings;
    size_t n = s->data.test->count, most = d->num_batches ? (size_t)(d->num_batches * d->batch_size) : n;
    fst_partition p = {0};
    fst_status st = deal_out(s, own, devices, &p, err);
    if (st)
        return st;
    if (d->max_files && (size_t)d->max_files < most)
        most = (size_t)d->max_files;
    b->index = fst_calloc(n, sizeof *b->index);
    b->device = fst_calloc(n, sizeof *b->device);
    if (!b->index || !b->device)
        st = fst_fail_memory(err, n * sizeof *b->index);
    for (size_t k = 0; !st && k < devices; k++)
        for (size_t i = p.begin[k]; i < p.begin[k + 1] && i - p.begin[k] < most; i++) {
            b->index[b->count] = p.index[i];
            b->device[b->count++] = (uint32_t)k;
        }
    fst_partition_release(&p);
    return st;
}

fst_status fst__deal_devices(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    double start = fst_clock_seconds();
    struct topology_section t;
    struct batches b = {0};
    fst_status st = fst__tiers(&s->task->file, &t, err);
    if (!st)
        st = fst__deal(s, own, &b, (size_t)t.devices, err);
    if (!st)
        st = fst__batches_write(s, own, &b, r, err);
    r->samples = (int64_t)b.count;
    r->accuracy = r->loss = NAN;
    r->bytes_up = (uint64_t)b.count * fst_source_sample_bytes(s->data.test);
    r->seconds = fst_clock_seconds() - start;
    fst__batches_release(&b);
    return st;
}

/* ---- evaluation and report ------------------------------------------------------------------------------- */

/* What a report is made of; owns what fst__works_release frees. */
struct works {
    struct session *s;
    const struct step *step;
    struct batches b;
    struct tier_model edge_model, cloud_model;
    struct edge_result edge;
    float *cloud_logits;
    uint8_t *known; /* of cloud_logits; NULL: all */
    fst_measured cloud_runs[FST__MAX_RUNS];
    size_t cloud_run_count;
    struct clock clock;
    fst_cascade cascade;
    fst_cascade_times times[FST__MAX_RUNS];
    size_t time_count;
    struct fleet_answers fleet; /* all NULL: nobody was asked */
};

static void works_release(struct works *w)
{
    fst__batches_release(&w->b);
    fst_model_release(&w->edge_model.model);
    fst_model_release(&w->cloud_model.model);
    fst_free(w->edge.logits);
    fst_free(w->cloud_logits);
    fst_free(w->known);
    fst__clock_release(&w->clock);
    fst_cascade_release(&w->cascade);
    fst__fleet_release(&w->fleet);
    fst_free(w);
}

static fst_status works_new(struct works **out, struct session *s, const struct step *step, fst_error *err)
{
    struct works *w = fst_calloc(1, sizeof *w);
    if (!w)
        return fst_fail_memory(err, sizeof *w);
    w->s = s;
    w->step = step;
    w->edge.temperature = 1;
    fst_status st = fst__batches_read(s, step, &w->b, err);
    if (st)
        works_release(w);
    else
        *out = w;
    return st;
}

/* What edge_infer knows of the cloud's computing. */
static const struct cloud_infer_section *cloud_of(const struct works *w)
{
    return fst__stage_read(w->step->stage, "cloud", 0)->settings;
}

static fst_cascade_input input_of(const struct works *w, const float *edge, const float *cloud, double threshold,
                                  double snr_bin)
{
    return (fst_cascade_input){.samples = w->b.count,
                               .classes = w->s->data.train->classes,
                               .edge = edge,
                               .cloud = cloud,
                               .cloud_known = w->known,
                               .labels = w->b.labels,
                               .snr = w->b.snr,
                               .snr_bin = snr_bin,
                               .device = w->b.device,
                               .devices = w->clock.network.devices,
                               .kind = w->edge.kind,
                               .temperature = w->edge.temperature,
                               .threshold = threshold,
                               .answered = w->fleet.all.answer,
                               .by_cloud = w->fleet.by_cloud};
}

/* The times of every run, measured figures of both tiers paired run by run. */
static fst_status take_times(struct works *w, size_t runs, size_t cloud_batch, fst_error *err)
{
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < runs; i++) {
        const fst_measured *edge = w->edge.run_count ? &w->edge.runs[i % w->edge.run_count] : NULL;
        const fst_measured *cloud = w->cloud_run_count ? &w->cloud_runs[i % w->cloud_run_count] : NULL;
        fst__clock_set(&w->clock, edge, cloud, cloud_batch);
        st = fst__clock_times(&w->clock, w->cascade.offloaded, &w->times[i], err);
    }
    w->time_count = st ? 0 : runs;
    return st;
}

static fst_cascade_report report_of(const struct works *w, fst_report_route route)
{
    return (fst_cascade_report){.route = route,
                                .task = w->s->task->file.name,
                                .edge_model = w->edge_model.name,
                                .cloud_model = w->cloud_model.name,
                                .edge_digest = w->edge_model.digest,
                                .cloud_digest = w->cloud_model.digest,
                                .data_digest = w->s->data.test->digest,
                                .class_names = w->s->data.train->class_names,
                                .cascade = &w->cascade,
                                .calibration = w->edge.calibrated ? &w->edge.calibration : NULL,
                                .choice = route == FST_REPORT_CLOUD_ONLY ? NULL : &w->edge.choice,
                                .network = &w->clock.network,
                                .workload = &w->clock.workload,
                                .times = w->times,
                                .runs = w->time_count,
                                .edge_measured = w->edge.runs,
                                .edge_runs = w->edge.run_count,
                                .cloud_measured = w->cloud_runs,
                                .cloud_runs = w->cloud_run_count,
                                .fleet = w->fleet.by_cloud ? &w->fleet.figures : NULL};
}

static double share(size_t part, size_t n)
{
    return n ? (double)part / (double)n : NAN;
}

/* The record's figures of all answers; bytes are the stage's own. */
static void fill_record(const struct works *w, struct record *r, double start)
{
    r->samples = (int64_t)w->b.count;
    r->accuracy = share(w->cascade.all.right, w->cascade.all.samples);
    r->loss = NAN;
    r->seconds = fst_clock_seconds() - start;
}

/* ---- edge_infer -------------------------------------------------------------------------------------------- */

/* What is known of the validation samples: the cloud's, which has both models. */
struct trial {
    size_t count;
    const uint32_t *index;
    int32_t *labels;
    float *logits;
    double *confidence;
    uint8_t *edge_right, *cloud_right;
};

static void trial_release(struct trial *t)
{
    fst_free(t->labels);
    fst_free(t->logits);
    fst_free(t->confidence);
    fst_free(t->edge_right);
    fst_free(t->cloud_right);
}

static fst_status trial_init(struct works *w, struct trial *t, fst_error *err)
{
    struct session *s = w->s;
    const struct edge_infer_section *e = w->step->stage->settings;
    struct settings how = edge_settings(s, e);
    bool wanted = e->calibrate || e->threshold.has_target_accuracy || e->threshold.has_target_offload;
    t->index = s->data.cloud.index + s->data.cloud.learn;
    t->count = wanted ? s->data.cloud.validate : 0;
    t->labels = fst_calloc(t->count + 1, sizeof *t->labels);
    t->confidence = fst_calloc(t->count + 1, sizeof *t->confidence);
    t->edge_right = fst_calloc(t->count + 1, 1);
    t->cloud_right = fst_calloc(t->count + 1, 1);
    if (!t->labels || !t->confidence || !t->edge_right || !t->cloud_right)
        return fst_fail_memory(err, t->count * sizeof *t->confidence);
    for (size_t i = 0; i < t->count; i++)
        t->labels[i] = s->data.train->labels[t->index[i]];
    if (!t->count)
        return FST_OK;
    fst_measure_spec spec = spec_of(s, &how, s->data.train, t->index, t->count);
    char label[80];
    snprintf(label, sizeof label, "%s: validation", w->step->stage->name);
    return logits_of(s, &w->edge_model, &spec, label, &t->logits, err);
}

static void mark_right(const float *logits, const int32_t *labels, size_t n, int classes, uint8_t *right)
{
    for (size_t i = 0; i < n; i++) {
        int32_t answer;
        fst_predict(logits + i * (size_t)classes, 1, classes, &answer);
        right[i] = answer == labels[i];
    }
}

static fst_status ask_teacher(struct works *w, struct trial *t, fst_error *err)
{
    struct session *s = w->s;
    struct settings how = cloud_settings(s, cloud_of(w));
    float *logits = NULL;
    fst_measure_spec spec = spec_of(s, &how, s->data.train, t->index, t->count);
    char label[80];
    snprintf(label, sizeof label, "%s: teacher on validation", w->step->stage->name);
    fst_status st = logits_of(s, &w->cloud_model, &spec, label, &logits, err);
    if (!st)
        mark_right(logits, t->labels, t->count, s->data.train->classes, t->cloud_right);
    fst_free(logits);
    return st;
}

static fst_status calibrate(struct works *w, const struct trial *t, fst_error *err)
{
    const struct session *s = w->s;
    const struct edge_infer_section *e = w->step->stage->settings;
    if (!e->calibrate)
        return FST_OK;
    if (!t->count) {
        fst_log(FST_LOG_WARN,
                "%s: there are no validation samples (data.validation) to calibrate confidences on: the temperature "
                "stays 1",
                w->step->stage->name);
        return FST_OK;
    }
    fst_status st = fst_calibrate(&w->edge.calibration, t->logits, t->labels, t->count, s->data.train->classes, err);
    if (st)
        return st;
    w->edge.calibrated = true;
    if (w->edge.calibration.at_limit)
        fst_log(FST_LOG_WARN,
                "%s: on %zu validation samples the confidences fit ever better towards temperature "
                "%g, as they do when %s: the temperature stays 1",
                w->step->stage->name, t->count, w->edge.calibration.temperature,
                w->edge.calibration.temperature < 1 ? "no answer is wrong" : "answers are no better than guesses");
    else
        w->edge.temperature = w->edge.calibration.temperature;
    return FST_OK;
}

/* A target of accuracy or share is met on validation samples; one of time on the devices' own, whose labels it does not
 * need. */
static fst_status choose(struct works *w, struct trial *t, double *confidence, fst_error *err)
{
    struct session *s = w->s;
    const struct edge_infer_section *e = w->step->stage->settings;
    const struct threshold_section *h = &e->threshold;
    fst_threshold_kind kind = h->has_target_accuracy  ? FST_THRESHOLD_ACCURACY
                              : h->has_target_offload ? FST_THRESHOLD_OFFLOAD
                              : h->has_target_time    ? FST_THRESHOLD_TIME
                                                      : FST_THRESHOLD_FIXED;
    const double values[] = {h->has_value ? h->value : FST__THRESHOLD, h->target_accuracy, h->target_offload,
                             h->target_time};
    fst_threshold_input in = {t->count, t->confidence, t->edge_right, t->cloud_right, NULL, NULL};
    fst_status st = fst_confidence(w->edge.kind, t->logits, t->count, s->data.train->classes, w->edge.temperature,
                                   t->confidence, err);
    if (!st && kind == FST_THRESHOLD_ACCURACY) {
        mark_right(t->logits, t->labels, t->count, s->data.train->classes, t->edge_right);
        st = ask_teacher(w, t, err);
    }
    if (kind == FST_THRESHOLD_TIME) {
        w->clock.confidence = confidence;
        in = (fst_threshold_input){w->b.count, confidence, NULL, NULL, fst__clock_seconds, &w->clock};
        fst__clock_set(&w->clock, &w->edge.runs[0], &w->cloud_runs[0], (size_t)cloud_of(w)->batch_size);
    }
    if (!st)
        st = fst_threshold_choose(&w->edge.choice, kind, values[kind], &in, err);
    if (!st && !w->edge.choice.met)
        fst_log(FST_LOG_WARN, "%s: the target %s of %g cannot be met: %g is the closest, %g off", w->step->stage->name,
                fst_threshold_name(kind), w->edge.choice.target, w->edge.choice.reached, w->edge.choice.gap);
    return st;
}

static fst_status measure_tiers(struct works *w, fst_error *err)
{
    struct session *s = w->s;
    const struct edge_infer_section *e = w->step->stage->settings;
    struct settings how = edge_settings(s, e);
    fst_measure_spec spec = spec_of(s, &how, s->data.test, w->b.index, w->b.count);
    spec.planning = true;
    spec.kind = (fst_confidence_kind)e->confidence;
    spec.singles = SINGLES;
    fst_status st = measure(s, &w->edge_model, spec, &how, w->edge.runs, &w->edge.run_count, err);
    if (st || !e->threshold.has_target_time)
        return st;
    how = cloud_settings(s, cloud_of(w));
    how.runs = 1;
    spec = spec_of(s, &how, s->data.test, w->b.index, w->b.count);
    return measure(s, &w->cloud_model, spec, &how, w->cloud_runs, &w->cloud_run_count, err);
}

/* Temperature and threshold. */
static fst_status decide(struct works *w, fst_error *err)
{
    struct trial t = {0};
    double *confidence = fst_calloc(w->b.count + 1, sizeof *confidence);
    fst_status st = confidence ? trial_init(w, &t, err) : fst_fail_memory(err, w->b.count * sizeof *confidence);
    if (!st)
        st = calibrate(w, &t, err);
    if (!st)
        st = fst_confidence(w->edge.kind, w->edge.logits, w->b.count, w->s->data.train->classes, w->edge.temperature,
                            confidence, err);
    if (!st)
        st = choose(w, &t, confidence, err);
    w->clock.confidence = NULL;
    trial_release(&t);
    fst_free(confidence);
    return st;
}

static fst_status edge_files(struct works *w, struct record *r, double start, fst_error *err)
{
    size_t low = 0;
    uint8_t *below = fst_calloc(w->b.count + 1, 1);
    if (!below)
        return fst_fail_memory(err, w->b.count);
    for (size_t i = 0; i < w->b.count; i++)
        low += below[i] = w->cascade.confidence[i] < w->edge.choice.value;
    fst_cascade_report report = report_of(w, FST_REPORT_EDGE_ONLY);
    report.low_confidence = low;
    report.cloud_model = report.cloud_digest = NULL;
    report.cloud_runs = 0;
    struct answers a = {&w->b, &w->edge_model, w->s->data.train->classes, w->edge.logits, &w->cascade, &w->edge, below};
    snprintf(r->artifact, sizeof r->artifact, "predictions.safetensors");
    snprintf(r->extra, sizeof r->extra, "report.json");
    fst_status st = fst__answers_write(w->s, w->step, &a, r->digest, err);
    if (!st)
        st = fst__report_write(w->s, w->step, &report, r->extra_digest, err);
    fill_record(w, r, start);
    r->bytes_up = (uint64_t)low * fst_source_sample_bytes(w->s->data.test);
    fst_free(below);
    return st;
}

/* In a fleet, and no stage after this one asks the devices. */
static bool answers_alone(const struct session *s)
{
    return s->options->teacher && s->task->file.has_topology && s->options->mode &&
           !strcmp(s->options->mode, "device_to_edge");
}

static fst_status edge_work(struct works *w, struct record *r, double start, fst_error *err)
{
    struct session *s = w->s;
    const struct edge_infer_section *e = w->step->stage->settings;
    struct settings how = edge_settings(s, e);
    w->edge.kind = (fst_confidence_kind)e->confidence;
    fst_status st = fst__tier_model(s, w->step, "model", &w->edge_model, err);
    if (!st && fst__needs_teacher(e))
        st = fst__tier_model(s, w->step, FST__TEACHER, &w->cloud_model, err);
    if (!st)
        st = fst__clock_init(s, w->step, &w->b, NULL, &w->clock, err);
    if (!st) {
        fst_measure_spec spec = spec_of(s, &how, s->data.test, w->b.index, w->b.count);
        st = logits_of(s, &w->edge_model, &spec, w->step->stage->name, &w->edge.logits, err);
    }
    if (!st)
        st = measure_tiers(w, err);
    if (!st)
        st = decide(w, err);
    if (!st) { /* nobody asks the cloud here: threshold 0 */
        fst_cascade_input in = input_of(w, w->edge.logits, NULL, 0, e->snr_bin);
        st = fst_cascade_evaluate(&w->cascade, &in, err);
    }
    w->cloud_run_count = 0;
    if (!st && answers_alone(s))
        st = fst__fleet_ask(s, w->step, &w->b, &w->edge, NULL, &w->fleet, err);
    if (!st && w->fleet.by_cloud)
        fst__fleet_compare(&w->fleet, &w->cascade, 0, NULL, NULL);
    if (!st)
        st = take_times(w, w->edge.run_count, 0, err);
    return st ? st : edge_files(w, r, start, err);
}

fst_status fst__infer_edge(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    double start = fst_clock_seconds();
    struct works *w = NULL;
    fst_status st = works_new(&w, s, own, err);
    if (st)
        return st;
    st = edge_work(w, r, start, err);
    works_release(w);
    return st;
}

/* ---- cloud_infer ------------------------------------------------------------------------------------------------ */

/* The teacher's logits of the samples that `wanted` names (NULL: all), at their places; the others stay unknown. */
static fst_status teach(struct works *w, const struct settings *how, const uint8_t *wanted, fst_error *err)
{
    struct session *s = w->s;
    size_t k = (size_t)s->data.train->classes, n = 0;
    uint32_t *subset = fst_calloc(w->b.count + 1, sizeof *subset);
    float *some = NULL;
    w->cloud_logits = fst_calloc(w->b.count * k + 1, sizeof *w->cloud_logits);
    if (!subset || !w->cloud_logits) {
        fst_free(subset);
        return fst_fail_memory(err, w->b.count * k * sizeof *some);
    }
    for (size_t i = 0; i < w->b.count; i++)
        if (!wanted || wanted[i])
            subset[n++] = w->b.index[i];
    fst_measure_spec spec = spec_of(s, how, s->data.test, subset, n);
    fst_status st = n ? logits_of(s, &w->cloud_model, &spec, w->step->stage->name, &some, err) : FST_OK;
    for (size_t i = 0, from = 0; !st && i < w->b.count; i++)
        if (!wanted || wanted[i])
            memcpy(w->cloud_logits + i * k, some + from++ * k, k * sizeof *some);
    fst_free(some);
    fst_free(subset);
    return st;
}

static fst_status measure_cloud(struct works *w, const struct settings *how, fst_error *err)
{
    fst_measure_spec spec = spec_of(w->s, how, w->s->data.test, w->b.index, w->b.count);
    return measure(w->s, &w->cloud_model, spec, how, w->cloud_runs, &w->cloud_run_count, err);
}

/* Which samples the edge sends: recomputed from its logits, as it computed them. */
static fst_status sent(struct works *w, fst_error *err)
{
    double *confidence = fst_calloc(w->b.count + 1, sizeof *confidence);
    w->known = fst_calloc(w->b.count + 1, 1);
    fst_status st = confidence && w->known ? FST_OK : fst_fail_memory(err, w->b.count * sizeof *confidence);
    if (!st)
        st = fst_confidence(w->edge.kind, w->edge.logits, w->b.count, w->s->data.train->classes, w->edge.temperature,
                            confidence, err);
    for (size_t i = 0; !st && i < w->b.count; i++)
        w->known[i] = confidence[i] < w->edge.choice.value || (w->fleet.by_cloud && w->fleet.by_cloud[i]);
    fst_free(confidence);
    return st;
}

static fst_status evaluate_cascade(struct works *w, const struct cloud_infer_section *c, fst_error *err)
{
    fst_cascade_input in = input_of(w, w->edge.logits, w->cloud_logits, w->edge.choice.value, c->snr_bin);
    double *confidence = fst_calloc(w->b.count + 1, sizeof *confidence);
    if (!confidence)
        return fst_fail_memory(err, w->b.count * sizeof *confidence);
    fst_status st = fst_confidence(w->edge.kind, w->edge.logits, w->b.count, w->s->data.train->classes,
                                   w->edge.temperature, confidence, err);
    w->clock.confidence = confidence;
    fst__clock_set(&w->clock, &w->edge.runs[0], &w->cloud_runs[0], (size_t)c->batch_size);
    in.seconds = fst__clock_seconds;
    in.ctx = &w->clock;
    if (!st)
        st = fst_cascade_evaluate(&w->cascade, &in, err);
    w->clock.confidence = NULL;
    fst_free(confidence);
    return st;
}

static fst_status final_files(struct works *w, fst_report_route route, struct record *r, double start, fst_error *err)
{
    fst_cascade_report report = report_of(w, route);
    struct answers a = {&w->b, &w->cloud_model, w->s->data.train->classes, NULL, &w->cascade, NULL, NULL};
    a.offloaded = route == FST_REPORT_CASCADE ? w->cascade.offloaded : NULL;
    a.logits = route == FST_REPORT_CLOUD_ONLY ? w->cloud_logits : NULL;
    if (route == FST_REPORT_CLOUD_ONLY) {
        report.edge_model = NULL;
        report.edge_runs = 0;
    }
    snprintf(r->artifact, sizeof r->artifact, "report.json");
    snprintf(r->extra, sizeof r->extra, "predictions.safetensors");
    fst_status st = fst__answers_write(w->s, w->step, &a, r->extra_digest, err);
    if (!st)
        st = fst__report_write(w->s, w->step, &report, r->digest, err);
    fill_record(w, r, start);
    r->bytes_up = (uint64_t)w->cascade.all.offloaded * fst_source_sample_bytes(w->s->data.test);
    r->bytes_down = (uint64_t)w->cascade.all.offloaded * FST__ANSWER_BYTES;
    return st;
}

static fst_status cloud_work(struct works *w, struct record *r, double start, fst_error *err)
{
    struct session *s = w->s;
    const struct cloud_infer_section *c = w->step->stage->settings;
    struct settings how = cloud_settings(s, c);
    fst_status st = fst__edge_result_read(s, w->step, w->b.count, &w->edge, err);
    if (!st)
        st = fst__tier_model(s, w->step, FST__STUDENT, &w->edge_model, err);
    if (!st)
        st = fst__tier_model(s, w->step, "model", &w->cloud_model, err);
    if (!st)
        st = fst__clock_init(s, w->step, &w->b, NULL, &w->clock, err);
    if (!st && s->options->teacher && s->task->file.has_topology)
        st = fst__fleet_ask(s, w->step, &w->b, &w->edge, &w->cloud_model, &w->fleet, err);
    if (!st && !c->compare)
        st = sent(w, err);
    if (!st)
        st = teach(w, &how, w->known, err);
    if (!st)
        st = measure_cloud(w, &how, err);
    if (!st)
        st = evaluate_cascade(w, c, err);
    if (!st && w->fleet.by_cloud)
        fst__fleet_compare(&w->fleet, &w->cascade, w->edge.choice.value, w->cloud_logits, w->known);
    if (!st)
        st = take_times(w, w->cloud_run_count, how.batch, err);
    return st ? st : final_files(w, FST_REPORT_CASCADE, r, start, err);
}

fst_status fst__infer_cloud(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    double start = fst_clock_seconds();
    struct works *w = NULL;
    fst_status st = works_new(&w, s, own, err);
    if (st)
        return st;
    st = cloud_work(w, r, start, err);
    works_release(w);
    return st;
}

/* ---- cloud_direct_infer
 * ---------------------------------------------------------------------------------------------- */

enum { EVERYTHING = 2 }; /* a threshold that no confidence reaches */

static fst_status direct_work(struct works *w, struct record *r, double start, fst_error *err)
{
    struct session *s = w->s;
    const struct cloud_infer_section *c = w->step->stage->settings;
    struct settings how = cloud_settings(s, c);
    fst_status st = fst__tier_model(s, w->step, "model", &w->cloud_model, err);
    if (!st)
        st = fst__clock_init(s, w->step, &w->b, NULL, &w->clock, err);
    if (!st && s->options->teacher && s->task->file.has_topology)
        st = fst__fleet_ask(s, w->step, &w->b, NULL, &w->cloud_model, &w->fleet, err);
    if (!st)
        st = teach(w, &how, NULL, err);
    if (!st)
        st = measure_cloud(w, &how, err);
    if (!st) { /* everything is sent */
        fst_cascade_input in = input_of(w, w->cloud_logits, w->cloud_logits, EVERYTHING, c->snr_bin);
        st = fst_cascade_evaluate(&w->cascade, &in, err);
    }
    if (!st && w->fleet.by_cloud)
        fst__fleet_compare(&w->fleet, &w->cascade, EVERYTHING, w->cloud_logits, NULL);
    if (!st)
        st = take_times(w, w->cloud_run_count, how.batch, err);
    return st ? st : final_files(w, FST_REPORT_CLOUD_ONLY, r, start, err);
}

fst_status fst__infer_direct(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    double start = fst_clock_seconds();
    struct works *w = NULL;
    fst_status st = works_new(&w, s, own, err);
    if (st)
        return st;
    st = direct_work(w, r, start, err);
    works_release(w);
    return st;
}

/* What fedstill report says of the data: counts by class and place, examples, and confusions of the run's models. It
 * changes no file of the run. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "cmd_report.h"

enum { BATCH = 256, MAX_CLASSES = 1024, MAX_SUMMARY = 16 << 20 };

/* ---- opening -------------------------------------------------------------------------------------------- */

static void note(struct report_data *d, const char *what, const fst_error *e)
{
    size_t n = strlen(d->note);
    snprintf(d->note + n, sizeof d->note - n, "%s%s: %s.", n ? " " : "", what, e->message);
}

static int64_t *add_place(struct report_data *d, const char *name)
{
    int64_t *own = d->counts + d->place_count * (size_t)d->train->classes;
    snprintf(d->names[d->place_count], sizeof d->names[0], "%s", name);
    d->places[d->place_count] = (fst_place_counts){d->names[d->place_count], own};
    d->place_count++;
    return own;
}

/* A place's training samples, and apart those of validation where it has some. */
static void add_shares(struct report_data *d, const fst_task_place *p)
{
    char name[32];
    int64_t *own = add_place(d, p->name);
    for (size_t i = 0; i < p->learn; i++)
        own[d->train->labels[p->index[i]]]++;
    if (!p->validate)
        return;
    snprintf(name, sizeof name, "%.18s, validation", p->name);
    own = add_place(d, name);
    for (size_t i = p->learn; i < p->learn + p->validate; i++)
        own[d->train->labels[p->index[i]]]++;
}

static fst_status count_places(struct report_data *d, fst_error *err)
{
    char name[32];
    fst_task_place p;
    size_t classes = (size_t)d->train->classes, places = 1 + (size_t)d->partition.clients;
    for (size_t i = 0; fst_task_data_place(d->data, i, &p); i++)
        places += 2;
    d->counts = fst_calloc(places * classes, sizeof *d->counts);
    d->places = fst_calloc(places, sizeof *d->places);
    d->names = fst_calloc(places, sizeof *d->names);
    if (!d->counts || !d->places || !d->names)
        return fst_fail_memory(err, places * classes * sizeof *d->counts);
    for (size_t i = 0; fst_task_data_place(d->data, i, &p); i++)
        add_shares(d, &p);
    int64_t *test = add_place(d, "test");
    for (size_t i = 0; i < d->test->count; i++)
        test[d->test->labels[i]]++;
    for (int k = 0; k < d->partition.clients; k++) {
        snprintf(name, sizeof name, "client %d", k + 1);
        memcpy(add_place(d, name), d->partition.counts + (size_t)k * classes, classes * sizeof *d->counts);
    }
    return FST_OK;
}

/* ---- the stages of the run -------------------------------------------------------------------------------- */

/* The i-th of the stages in summary.json that left a model, in their order; false: no more. Without a summary, those
 * that a task without names of its own has. */
static bool model_step(json_t *stages, size_t i, char out[64])
{
    static const char *const usual[] = {"cloud_pretrain",  "edge_alone", "edge_kd",
                                        "federated_train", "prune",      "quantise"};
    const char *step;
    json_t *j;
    if (!stages && i < sizeof usual / sizeof *usual)
        snprintf(out, 64, "%s", usual[i]);
    if (!stages)
        return i < sizeof usual / sizeof *usual;
    json_object_foreach(stages, step, j)
    {
        if (!json_object_get(j, "model") || strchr(step, '/') || strlen(step) >= 64)
            continue;
        if (!i--) {
            snprintf(out, 64, "%s", step);
            return true;
        }
    }
    return false;
}

/* The stages of a run's summary, for the caller to release; NULL: there is none. */
static json_t *summary_stages(const char *output)
{
    char *path = fst_path_join(output, "summary.json");
    fst_buf text = {0};
    bool there = path && fst_file_exists(path) && !fst_file_read(path, MAX_SUMMARY, &text, NULL) &&
                 !fst_json_fits(path, text.data, text.len, text.len, NULL);
    json_t *all = there ? json_loadb(text.data, text.len, 0, NULL) : NULL;
    json_t *stages = json_incref(json_object_get(all, "stages"));
    json_decref(all);
    fst_buf_release(&text);
    fst_free(path);
    return stages;
}

/* The last stage of rounds; the samples of the clients are the same for all. */
static void rounds_step(const char *output, char out[64])
{
    json_t *stages = summary_stages(output), *j;
    const char *step;
    snprintf(out, 64, "federated_train");
    json_object_foreach(stages, step, j)
    {
        const char *kind = json_string_value(json_object_get(j, "kind"));
        if (kind && !strcmp(kind, "federated_train") && !strchr(step, '/') && strlen(step) < 64)
            snprintf(out, 64, "%s", step);
    }
    json_decref(stages);
}

/* A partition of other data says nothing of these. */
static void open_partition(struct report_data *d, const char *output)
{
    fst_error e = {0};
    char step[64], name[96];
    rounds_step(output, step);
    snprintf(name, sizeof name, "%s/partition.safetensors", step);
    char *path = fst_path_join(output, name);
    if (path && fst_file_exists(path)) {
        if (fst_partition_read(&d->partition, path, &e))
            note(d, "The split among the clients cannot be used", &e);
        else if (d->partition.classes != d->train->classes)
            fst_partition_release(&d->partition);
    }
    fst_free(path);
}

fst_status report_data_open(struct report_data *d, const fst_task *t, const char *folder, const char *output,
                            fst_error *err)
{
    fst_error e = {0};
    if (fst_task_data_open(&d->data, t, folder, output, &e)) {
        note(d, "The data cannot be opened, so that counts by class and examples are missing", &e);
        return e.status == FST_E_MEMORY ? fst_fail(err, e.status, "%s", e.message) : FST_OK;
    }
    d->train = fst_task_data_train(d->data);
    d->test = fst_task_data_test(d->data);
    if (d->train->classes > MAX_CLASSES) {
        snprintf(d->note, sizeof d->note, "Counts by class are shown of up to %d classes.", MAX_CLASSES);
        return FST_OK;
    }
    open_partition(d, output);
    return count_places(d, err);
}

/* ---- trying models --------------------------------------------------------------------------------------- */

struct trial {
    fst_model model;
    fst_runner *runner;
    fst_loader *loader;
    float *logits;
};

static void trial_release(struct trial *t)
{
    fst_loader_free(t->loader);
    fst_runner_free(t->runner);
    fst_model_release(&t->model);
    fst_free(t->logits);
}

static fst_status trial_open(struct trial *t, const struct report_data *d, const char *path, int threads,
                             fst_error *err)
{
    fst_status s = load_model(&t->model, path, err);
    if (!s && t->model.classes != d->train->classes)
        s = fst_fail(err, FST_E_MISMATCH, "%s: has %d classes, but the model %s knows %d", d->train->name,
                     d->train->classes, path, t->model.classes);
    if (!s)
        s = fst_model_check_source(&t->model, path, d->train->class_names ? d->train : d->test, err);
    fst_trainer_options to = {.batch_size = BATCH, .threads = threads};
    if (!s)
        s = fst_runner_new(&t->runner, t->model.graph, &to, err);
    if (!s)
        fst_runner_hold(t->runner, &t->model.state);
    fst_loader_spec spec = {
        .source = d->test, .batch_size = BATCH, .transform = fst_model_transform(&t->model), .background = true};
    if (!s)
        s = fst_loader_new(&t->loader, &spec, err);
    size_t n = (size_t)BATCH * (size_t)d->train->classes;
    if (!s && !(t->logits = fst_alloc(n * sizeof *t->logits)))
        s = fst_fail_memory(err, n * sizeof *t->logits);
    return s ? s : fst_loader_start(t->loader, 0, 0, err);
}

/* Whole decibels while there are few enough of them, else bins of a width that suffices. */
static double snr_width(const fst_source *s, double *from)
{
    double low = INFINITY, high = -INFINITY;
    for (size_t i = 0; s->snr && i < s->count; i++)
        if (isfinite(s->snr[i])) {
            low = fmin(low, (double)s->snr[i]);
            high = fmax(high, (double)s->snr[i]);
        }
    *from = floor(low);
    return !(low <= high) ? 0 : fmax(2, ceil((high - *from + 1) / REPORT_SNR_BINS));
}

static void count_snr(struct report_model *m, const fst_source *s, size_t i, bool right, double from, double width)
{
    if (!(width > 0) || !isfinite(s->snr[i]))
        return;
    size_t bin = (size_t)(((double)s->snr[i] - from) / width);
    bin = bin < REPORT_SNR_BINS ? bin : REPORT_SNR_BINS - 1;
    m->snr[bin].from = from + (double)bin * width;
    m->snr[bin].to = m->snr[bin].from + width;
    m->snr[bin].samples++;
    m->snr[bin].right += right;
}

static fst_status trial_run(struct trial *t, struct report_data *d, struct report_model *m, fst_error *err)
{
    size_t classes = (size_t)d->train->classes;
    double from, width = snr_width(d->test, &from);
    fst_status s = FST_OK;
    for (fst_batch b = {.rows = 1}; !s && b.rows;) {
        s = fst_loader_next(t->loader, &b, err);
        if (!s && b.rows)
            s = fst_runner_logits(t->runner, &t->model.state, b.x, b.rows, t->logits, err);
        for (size_t i = 0; !s && i < b.rows; i++) {
            const float *z = t->logits + i * classes;
            size_t best = 0, label = (size_t)b.labels[i];
            for (size_t k = 1; k < classes; k++)
                best = z[k] > z[best] ? k : best;
            if (!m->confusion[label * classes + best]++)
                m->example[label * classes + best] = (int64_t)b.index[i];
            count_snr(m, d->test, b.index[i], best == label, from, width);
        }
        progress_update((uint64_t)(b.rows ? b.index[b.rows - 1] + 1 : d->test->count), NULL);
    }
    return s;
}

static fst_status try_one(struct report_data *d, const char *step, const char *path, int threads, fst_error *err)
{
    struct report_model *m = &d->model[d->models];
    struct trial t = {0};
    size_t n = (size_t)d->train->classes * (size_t)d->train->classes;
    snprintf(m->name, sizeof m->name, "%s", step);
    m->confusion = fst_calloc(n, sizeof *m->confusion);
    m->example = fst_calloc(n, sizeof *m->example);
    for (size_t i = 0; m->example && i < n; i++)
        m->example[i] = -1;
    d->models++;
    if (!m->confusion || !m->example)
        return fst_fail_memory(err, n * sizeof *m->confusion);
    fst_status s = fst_sha256_file(path, m->digest, err);
    if (s)
        return s;
    progress_begin(step, d->test->count, "samples");
    progress_update(0, NULL);
    s = trial_open(&t, d, path, threads, err);
    if (!s)
        s = trial_run(&t, d, m, err);
    progress_end(NULL);
    trial_release(&t);
    return s;
}

static size_t pack_snr(struct report_model *m)
{
    size_t n = 0;
    for (size_t i = 0; i < REPORT_SNR_BINS; i++)
        if (m->snr[i].samples)
            m->snr[n++] = m->snr[i];
    return n;
}

fst_status report_data_try(struct report_data *d, const char *output, int threads, fst_error *err)
{
    fst_status s = FST_OK;
    if (!d->place_count)
        return fst_fail(err, FST_E_CONFIG, "--evaluate needs the run's data. %s", d->note);
    json_t *stages = summary_stages(output);
    char step[64];
    for (size_t i = 0; !s && d->models < REPORT_MODELS && model_step(stages, i, step); i++) {
        char name[96];
        snprintf(name, sizeof name, "%s/model.safetensors", step);
        char *path = fst_path_join(output, name);
        if (!path)
            s = fst_fail_memory(err, sizeof name);
        else if (fst_file_exists(path))
            s = try_one(d, step, path, threads, err);
        fst_free(path);
    }
    json_decref(stages);
    for (size_t i = 0; i < d->models; i++) {
        struct report_model *m = &d->model[i];
        d->tried[i] = (fst_tried_model){m->name, m->confusion, m->snr, pack_snr(m), m->digest};
    }
    return s;
}

/* ---- handing over ------------------------------------------------------------------------------------------ */

/* The sample that `step` answered so; where that is not known, any of the class. */
static int64_t find_example(const struct report_data *d, const char *step, int truth, int taken_for, bool *exact)
{
    size_t classes = (size_t)d->train->classes;
    for (size_t k = 0; k < d->models; k++)
        if (!strcmp(d->model[k].name, step)) {
            int64_t at = d->model[k].example[(size_t)truth * classes + (size_t)taken_for];
            if ((*exact = at >= 0))
                return at;
        }
    *exact = false;
    for (size_t i = 0; i < d->test->count; i++)
        if (d->test->labels[i] == truth)
            return (int64_t)i;
    return -1;
}

static fst_status example(void *ctx, const char *step, int truth, int taken_for, fst_sample *out, bool *there,
                          bool *exact, fst_error *err)
{
    struct report_data *d = ctx;
    int64_t i = find_example(d, step, truth, taken_for, exact);
    *there = i >= 0;
    if (i < 0)
        return FST_OK;
    if (!d->sample && !(d->sample = fst_alloc(fst_source_sample_bytes(d->test))))
        return fst_fail_memory(err, fst_source_sample_bytes(d->test));
    fst_status s = d->test->v->get(d->test, (size_t)i, d->sample, err);
    if (!s)
        *out =
            (fst_sample){d->test->dtype, d->test->shape, d->sample, NULL, d->test->snr ? (double)d->test->snr[i] : NAN};
    return s;
}

void report_data_fill(struct report_data *d, fst_html_report *r)
{
    r->places_note = d->note[0] ? d->note : NULL;
    if (!d->place_count)
        return;
    r->classes = d->train->classes;
    r->class_names = (const char *const *)d->train->class_names;
    r->places = d->places;
    r->place_count = d->place_count;
    r->models = d->tried;
    r->model_count = d->models;
    r->test_digest = d->test->digest;
    r->example = example;
    r->ctx = d;
}

void report_data_release(struct report_data *d)
{
    fst_task_data_free(d->data);
    fst_partition_release(&d->partition);
    fst_free(d->counts);
    fst_free(d->places);
    fst_free(d->names);
    for (size_t i = 0; i < d->models; i++) {
        fst_free(d->model[i].confusion);
        fst_free(d->model[i].example);
    }
    fst_free(d->sample);
}

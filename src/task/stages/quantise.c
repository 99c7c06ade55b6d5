/* The kind quantise: a finished model in int8, for what answers. The scales of its values come from samples for
 * validation, or where there are none from those that models learn from: the cloud's, or, if it has none, the edges'.
 * Nothing is trained. */
#include <math.h>

#include "fedstill/infer.h"
#include "infer_file.h"
#include "session.h"

enum { BATCH = 32 };

static const fst__field fields[] = {
    FST__F_STRING(
        struct quantise_section, model, NULL,
        "stage whose model it is, or a model file, relative to the task's folder; missing: federated_train or "
        "edge_kd, the first of them that the task has",
        .aside = true),
    FST__F_INT(struct quantise_section, samples, 1, 1 << 20, "1024",
               "at most so many show how large values become, of every class its share"),
};
static const fst__schema schema = FST__SCHEMA(struct quantise_section, fields);

static const struct stage_ref refs[] = {{.key = "model",
                                         .what = FST__LEAVES_MODEL,
                                         .file = true,
                                         .learns = true,
                                         .fallback = "federated_train edge_kd",
                                         .missing = "needs a model, or a stage that leaves one: set model"}};

static const char *network(const struct stage *own)
{
    const struct stage *other = fst__stage_read(own, "model", 0);
    return other ? other->kind->network(other) : NULL;
}

/* ---- samples -------------------------------------------------------------------------------------------- */

/* Those of a share that calibrate: *n of them. */
static const uint32_t *part(const struct share *h, bool validation, size_t *n)
{
    *n = h->index ? validation ? h->validate : h->learn : 0;
    return h->index ? h->index + (validation ? h->learn : 0) : NULL;
}

/* All candidates, in memory of their own. */
static fst_status candidates(const struct samples *d, uint32_t **out, size_t *count, fst_error *err)
{
    uint32_t *list = fst_alloc((d->train->count + 1) * sizeof *list);
    size_t total = 0, n;
    if (!list)
        return fst_fail_memory(err, d->train->count * sizeof *list);
    for (int turn = 0; !total && turn < 4; turn++) { /* the cloud's, then the edges'; validation first */
        bool edges = turn / 2, validation = turn % 2 == 0;
        for (size_t k = 0; k < (edges ? d->edges : 1); k++) {
            const uint32_t *from = part(edges ? &d->edge[k] : &d->cloud, validation, &n);
            for (size_t i = 0; i < n; i++)
                list[total++] = from[i];
        }
    }
    *out = list;
    *count = total;
    return FST_OK;
}

static fst_status choose(const struct samples *d, size_t most, uint32_t **out, size_t *count, fst_error *err)
{
    uint32_t *list = NULL;
    fst_status st = candidates(d, &list, count, err);
    if (st)
        return st;
    size_t limit = *count < most ? *count : most;
    uint32_t *picks = fst_alloc((limit + 1) * sizeof *picks);
    int32_t *labels = fst_alloc((*count + 1) * sizeof *labels);
    if (!picks || !labels)
        st = fst_fail_memory(err, *count * sizeof *labels);
    else if (!limit)
        st = fst_fail(err, FST_E_CONFIG, "there are no samples here that show how large values become");
    for (size_t i = 0; !st && i < *count; i++)
        labels[i] = d->train->labels[list[i]];
    if (!st)
        st = fst_stratified_pick(labels, *count, limit, picks, err);
    for (size_t i = 0; !st && i < limit; i++)
        picks[i] = list[picks[i]];
    fst_free(list);
    fst_free(labels);
    if (st) {
        fst_free(picks);
        return st;
    }
    *out = picks;
    *count = limit;
    return FST_OK;
}

/* ---- the work --------------------------------------------------------------------------------------------- */

static fst_status calibrate(struct session *s, const uint32_t *index, size_t count, fst_calibration *c, fst_error *err)
{
    fst_loader *loader = NULL;
    fst_loader_spec spec = {.source = s->data.train,
                            .subset = index,
                            .subset_count = count,
                            .batch_size = BATCH,
                            .transform = s->data.transform};
    fst_status st = fst_loader_new(&loader, &spec, err);
    if (!st)
        st = fst_loader_start(loader, 0, 0, err);
    size_t done = 0;
    for (fst_batch b = {.rows = 1}; !st && b.rows;) {
        st = fst_loader_next(loader, &b, err);
        if (!st && b.rows)
            st = fst_calibration_add(c, b.x, b.rows, err);
        fst__watch_update(s, done += b.rows, NULL);
        if (!st && fst__session_stopped(s))
            st = fst_fail(err, FST_E_CANCELLED, "stopped");
    }
    fst_loader_free(loader);
    return st;
}

static fst_status run(struct session *s, struct step *own, struct record *r, fst_error *err)
{
    const struct quantise_section *q = own->stage->settings;
    double start = fst_clock_seconds();
    fst_model m = {0}, int8 = {0};
    fst_calibration *c = NULL;
    uint32_t *index = NULL;
    size_t count = 0;
    fst_status st = fst__read_f32(s, own, "model", " already", &m, err);
    if (!st)
        st = choose(&s->data, (size_t)q->samples, &index, &count, err);
    if (!st)
        st = fst_calibration_new(&c, &m, BATCH, s->machine.threads, err);
    if (!st) {
        fst__watch_begin(s, own->stage->name, count, "samples");
        st = calibrate(s, index, count, c, err);
        fst__watch_end(s, NULL);
    }
    if (!st)
        st = fst_model_int8(&int8, &m, c, err);
    if (!st)
        st = fst__save_model(s, own, &int8, r, err);
    r->samples = (int64_t)count;
    r->seconds = fst_clock_seconds() - start;
    fst__forget_runner(s);
    fst_calibration_free(c);
    fst_free(index);
    fst_model_release(&int8);
    fst_model_release(&m);
    return st;
}

static fst_status check(const struct session *s, const struct step *own, fst_error *err)
{
    fst_model m = {0};
    fst_status st =
        fst__stage_file(own->stage, "model", 0) ? fst__read_f32(s, own, "model", " already", &m, err) : FST_OK;
    fst_model_release(&m);
    return st;
}

static fst_status inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err)
{
    fst_status st = fst__add_settings(own, text, err);
    return st ? st : fst__add_reads(s, own, "model", text, err);
}

static fst_status tell(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    const struct quantise_section *q = own->stage->settings;
    fst_model m = {0};
    struct work w = {.network = network(own->stage), .samples = (double)q->samples, .batch = BATCH, .plans = 1};
    bool later = !w.network && fst__stage_read(own->stage, "model", 0);
    if (later)
        return fst__tell_later(own, "model", out, err);
    fst_status st = w.network ? FST_OK : fst__read_model(s, own, "model", 0, &m, NULL, err);
    if (!st && !w.network) {
        w.network = m.arch;
        w.graph = m.graph;
    }
    if (!st)
        st = fst__tell_work(s, own, &w, out, err);
    fst_model_release(&m);
    return st;
}

const struct stage_kind fst__quantise = {
    .name = "quantise",
    .help = "a finished model in int8, a quarter of the size, for what answers",
    .schema = &schema,
    .modes = FST__IN_FULL_TRAIN | FST__IN_FEDERATED | FST__IN_PIPELINE,
    .leaves = FST__LEAVES_MODEL,
    .frozen = "an int8 model, which cannot be trained",
    .refs = refs,
    .ref_count = sizeof refs / sizeof *refs,
    .network = network,
    .check = check,
    .inputs = inputs,
    .tell = tell,
    .run = FST__TRAINS ? run : NULL,
};

/*
 * How good a model is on samples: loss, accuracy, scores over classes, and accuracy by signal-to-noise ratio. A loader
 * gives batches, a runner gives their logits, and a tally counts. The runner of the model that was evaluated last is
 * kept in the session, since rounds and epochs evaluate one graph again and again.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/infer.h"
#include "session.h"

enum { EVAL_BATCH = 512, FST__TOP = 5 };

static fst_status runner_for(struct session *s, const fst_graph *graph, fst_error *err)
{
    if (s->runner && s->runner_graph == graph)
        return FST_OK;
    fst_runner_free(s->runner);
    s->runner = NULL;
    fst_trainer_options o = fst__trainer_options(&s->machine, EVAL_BATCH, s->machine.threads);
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
    size_t correct, among_five, samples;
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

/* Is the class among the `most` largest? Of equal ones the first comes first, as for the answer. */
static bool is_among(const float *z, int classes, int label, int most)
{
    int before = 0;
    for (int j = 0; j < classes; j++)
        before += z[j] > z[label] || (z[j] == z[label] && j < label);
    return before < most;
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
        t->among_five += is_among(z, t->classes, b->labels[i], FST__TOP);
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
                            .transform = s->data.transform,
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
                              .samples = t.samples,
                              .top5 = n > FST__TOP ? (double)t.among_five / (double)t.samples : NAN};
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
    bool wanted = table && s->data.test->snr;
    fst_status st = wanted ? make_bins(table, s->data.test, err) : FST_OK;
    return st ? st : evaluate(s, graph, state, s->data.test, NULL, 0, out, wanted ? table : NULL, err);
}

fst_status fst__evaluate_test(struct session *s, const fst_graph *graph, const fst_state *state, struct score *out,
                              fst_error *err)
{
    return fst__evaluate_by_snr(s, graph, state, out, NULL, err);
}

fst_status fst__evaluate_validation(struct session *s, const struct stage *own, const fst_graph *graph,
                                    const fst_state *state, struct score *out, fst_error *err)
{
    const struct samples *d = &s->data;
    bool at_edges = d->edges && fst__at_clients(own);
    double right = 0, loss = 0;
    size_t samples = 0;
    fst_status st = FST_OK;
    for (size_t k = 0; !st && k < (at_edges ? d->edges : 1); k++) {
        const struct share *h = at_edges ? &d->edge[k] : &d->cloud;
        struct score one;
        if (!h->validate || !h->index)
            continue;
        st = fst__evaluate(s, graph, state, d->train, h->index + h->learn, h->validate, &one, err);
        if (!st) {
            right += one.accuracy * (double)one.samples;
            loss += one.loss * (double)one.samples;
            samples += one.samples;
        }
    }
    if (st)
        return st;
    *out = FST__NO_SCORE;
    if (samples) {
        out->accuracy = right / (double)samples;
        out->loss = loss / (double)samples;
        out->samples = samples;
    }
    return FST_OK;
}

void fst__forget_runner(struct session *s)
{
    fst_runner_free(s->runner);
    s->runner = NULL;
    s->runner_graph = NULL;
}

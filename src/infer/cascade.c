/* Evaluates a cascade from the logits of both tiers: who answers what, how well, for whom, and what any other threshold
 * would have given. Runs no network and knows no clock. */
#include <math.h>
#include <string.h>

#include "fedstill/infer.h"
#include "confidence_order.h"

/* ---- checks and memory ----------------------------------------------------------------------------- */

static bool known(const fst_cascade_input *in, size_t i)
{
    return in->cloud && (!in->cloud_known || in->cloud_known[i]);
}

static fst_status check(const fst_cascade_input *in, fst_error *err)
{
    size_t devices = in->devices ? in->devices : 1;
    if (in->classes < 1 || in->classes > FST_MAX_CLASSES)
        return fst_fail(err, FST_E_ARGUMENT, "a cascade of %d classes; 1 to %d are possible", in->classes,
                        FST_MAX_CLASSES);
    if (isnan(in->threshold) || !(in->temperature > 0))
        return fst_fail(err, FST_E_ARGUMENT, "a cascade with threshold %g at temperature %g", in->threshold,
                        in->temperature);
    if (!in->answered != !in->by_cloud)
        return fst_fail(err, FST_E_ARGUMENT, "answers of a fleet without their tiers");
    if (in->snr && !(in->snr_bin > 0))
        return fst_fail(err, FST_E_ARGUMENT, "bins of %g dB; their width must be above 0", in->snr_bin);
    for (size_t i = 0; i < in->samples; i++) {
        if (in->labels && (in->labels[i] < 0 || in->labels[i] >= in->classes))
            return fst_fail(err, FST_E_ARGUMENT, "sample %zu: label %d is not one of %d classes", i, (int)in->labels[i],
                            in->classes);
        if (in->answered && (in->answered[i] < 0 || in->answered[i] >= in->classes))
            return fst_fail(err, FST_E_ARGUMENT, "sample %zu: answer %d is not one of %d classes", i,
                            (int)in->answered[i], in->classes);
        if (in->device && in->device[i] >= devices)
            return fst_fail(err, FST_E_ARGUMENT, "sample %zu is of device %u, and there are %zu", i, in->device[i],
                            devices);
        for (int j = 0; known(in, i) && j < in->classes; j++)
            if (!isfinite(in->cloud[i * (size_t)in->classes + (size_t)j]))
                return fst_fail(err, FST_E_NUMERIC, "sample %zu: the cloud's logit of class %d is not a finite number",
                                i, j);
    }
    return FST_OK;
}

static void *take(size_t count, size_t size, size_t *missing)
{
    void *p = fst_calloc(count ? count : 1, size);
    if (!p)
        *missing += count * size;
    return p;
}

static fst_status reserve(fst_cascade *c, const fst_cascade_input *in, fst_error *err)
{
    size_t missing = 0, n = in->samples, k = (size_t)in->classes;
    c->confidence = take(n, sizeof *c->confidence, &missing);
    c->edge_answer = take(n, sizeof *c->edge_answer, &missing);
    c->answer = take(n, sizeof *c->answer, &missing);
    c->offloaded = take(n, 1, &missing);
    c->by_device = take(c->devices, sizeof *c->by_device, &missing);
    c->curve = take(FST_CURVE_POINTS, sizeof *c->curve, &missing);
    if (in->labels) {
        c->by_class = take(k, sizeof *c->by_class, &missing);
    }
    if (in->labels && in->classes <= FST_CONFUSION_CLASSES) {
        c->edge_confusion = take(k * k, sizeof *c->confusion, &missing);
        c->cloud_confusion = take(k * k, sizeof *c->confusion, &missing);
        c->confusion = take(k * k, sizeof *c->confusion, &missing);
    }
    if (in->snr) {
        c->by_snr = take(FST_SNR_BINS, sizeof *c->by_snr, &missing);
        c->snr_from = take(FST_SNR_BINS, sizeof *c->snr_from, &missing);
    }
    return missing ? fst_fail_memory(err, missing) : FST_OK;
}

void fst_cascade_release(fst_cascade *c)
{
    if (!c)
        return;
    void *all[] = {c->by_class,  c->by_device, c->by_snr, c->snr_from,  c->edge_confusion, c->cloud_confusion,
                   c->confusion, c->curve,     c->answer, c->offloaded, c->confidence,     c->edge_answer};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        fst_free(all[i]);
    memset(c, 0, sizeof *c);
}

/* ---- counting ---------------------------------------------------------------------------------------- */

struct sample {
    bool labelled, offloaded, known, edge_right, cloud_right, right;
};

static void count(fst_cascade_group *g, const struct sample *s)
{
    g->samples++;
    g->offloaded += s->offloaded;
    g->cloud_known += s->known;
    g->edge_right += s->edge_right;
    g->cloud_right += s->cloud_right;
    g->right += s->right;
}

static void confuse(fst_cascade *c, int32_t label, int32_t edge, int32_t cloud, int32_t answer)
{
    size_t row = (size_t)label * (size_t)c->classes;
    c->edge_confusion[row + (size_t)edge]++;
    c->confusion[row + (size_t)answer]++;
    if (cloud >= 0)
        c->cloud_confusion[row + (size_t)cloud]++;
}

static fst_status count_sample(fst_cascade *c, const fst_cascade_input *in, size_t i, struct sample *s, fst_error *err)
{
    int32_t cloud = -1, edge = c->edge_answer[i];
    s->offloaded = in->by_cloud ? in->by_cloud[i] != 0 : c->confidence[i] < in->threshold;
    s->known = known(in, i);
    if (s->offloaded && !s->known)
        return fst_fail(err, FST_E_ARGUMENT, "sample %zu (confidence %g) goes to the cloud, whose logits are not there",
                        i, c->confidence[i]);
    if (s->known)
        fst_predict(in->cloud + i * (size_t)in->classes, 1, in->classes, &cloud);
    c->offloaded[i] = s->offloaded;
    c->answer[i] = in->answered ? in->answered[i] : s->offloaded ? cloud : edge;
    s->labelled = in->labels != NULL;
    s->edge_right = s->labelled && edge == in->labels[i];
    s->cloud_right = s->labelled && s->known && cloud == in->labels[i];
    s->right = s->labelled && c->answer[i] == in->labels[i];
    c->agree += s->known && edge == cloud;
    c->agree_offloaded += s->offloaded && edge == cloud;
    c->corrected += s->offloaded && s->cloud_right && !s->edge_right;
    c->spoiled += s->offloaded && s->edge_right && !s->cloud_right;
    count(&c->all, s);
    count(s->offloaded ? &c->at_cloud : &c->at_edge, s);
    count(&c->by_device[in->device ? in->device[i] : 0], s);
    if (s->labelled) {
        count(&c->by_class[in->labels[i]], s);
        if (c->confusion)
            confuse(c, in->labels[i], edge, cloud, c->answer[i]);
    }
    return FST_OK;
}

/* The bin's place among those met so far, kept rising; a new one is made where it is missing. */
static fst_status snr_bin(fst_cascade *c, double from, size_t *place, fst_error *err)
{
    size_t at = 0;
    while (at < c->snr_bins && c->snr_from[at] < from)
        at++;
    *place = at;
    if (at < c->snr_bins && c->snr_from[at] == from)
        return FST_OK;
    if (c->snr_bins == FST_SNR_BINS)
        return fst_fail(err, FST_E_LIMIT, "more than %d bins of %g dB: choose wider ones", FST_SNR_BINS, c->snr_bin);
    memmove(c->snr_from + at + 1, c->snr_from + at, (c->snr_bins - at) * sizeof *c->snr_from);
    memmove(c->by_snr + at + 1, c->by_snr + at, (c->snr_bins - at) * sizeof *c->by_snr);
    c->snr_from[at] = from;
    c->by_snr[at] = (fst_cascade_group){0};
    c->snr_bins++;
    return FST_OK;
}

static fst_status count_snr(fst_cascade *c, double snr, const struct sample *s, fst_error *err)
{
    size_t place = 0;
    if (!isfinite(snr)) {
        c->snr_unknown++;
        return FST_OK;
    }
    fst_status st = snr_bin(c, floor(snr / c->snr_bin) * c->snr_bin, &place, err);
    if (!st)
        count(&c->by_snr[place], s);
    return st;
}

/* ---- trust -------------------------------------------------------------------------------------------- */

static fst_status trust(fst_cascade *c, const fst_cascade_input *in, uint8_t *right, fst_error *err)
{
    double *p = fst_alloc((in->samples ? in->samples : 1) * sizeof *p);
    fst_status st = p ? FST_OK : fst_fail_memory(err, in->samples * sizeof *p);
    c->ece_before = c->ece_after = c->auroc = NAN;
    if (!st && in->labels) {
        st = fst_confidence(FST_CONFIDENCE_MAX, in->edge, in->samples, in->classes, 1, p, err);
        if (!st) {
            c->ece_before = fst_ece(p, right, in->samples);
            st = fst_confidence(FST_CONFIDENCE_MAX, in->edge, in->samples, in->classes, in->temperature, p, err);
        }
        if (!st) {
            c->ece_after = fst_ece(p, right, in->samples);
            st = fst_auroc(c->confidence, right, in->samples, &c->auroc, err);
        }
    }
    fst_free(p);
    return st;
}

/* ---- the curve ------------------------------------------------------------------------------------------ */

/* Running sums of a cascade that sends the k least certain to the cloud. */
struct sweep {
    const fst_cascade_input *in;
    const struct fst__placed *order;
    const uint8_t *edge_right, *cloud_right;
    size_t k, right;
    bool known;
};

static void advance(struct sweep *w, size_t to)
{
    for (; w->k < to; w->k++) {
        size_t s = w->order[w->k].sample;
        w->known = w->known && known(w->in, s);
        w->right = w->right - (w->edge_right[s] != 0) + (w->cloud_right[s] != 0);
    }
}

static fst_cascade_point point_at(const struct sweep *w)
{
    size_t n = w->in->samples;
    fst_cascade_point p = {.threshold = fst__cut(w->order, n, w->k), .offload = (double)w->k / (double)n};
    p.accuracy = w->in->labels && w->known ? (double)w->right / (double)n : NAN;
    p.seconds = w->in->seconds ? w->in->seconds(w->in->ctx, p.threshold) : NAN;
    return p;
}

/* Every cut when there are few; else cuts evenly spread over the samples, the ends always among them. */
static void draw_curve(fst_cascade *c, struct sweep *w)
{
    size_t n = w->in->samples, cuts = 0;
    for (size_t k = 0; n && k <= n; k++)
        cuts += fst__cut_at(w->order, n, k);
    for (size_t k = 0, due = 0; n && k <= n; k++) {
        if (!fst__cut_at(w->order, n, k))
            continue;
        bool last = k == n, room = c->points < FST_CURVE_POINTS - 1;
        if (!last && (!room || (cuts > FST_CURVE_POINTS && k < due)))
            continue;
        advance(w, k);
        c->curve[c->points++] = point_at(w);
        due = c->points * n / (FST_CURVE_POINTS - 1);
    }
}

static fst_status sweep(fst_cascade *c, const fst_cascade_input *in, const uint8_t *edge_right,
                        const uint8_t *cloud_right, fst_error *err)
{
    struct fst__placed *order = NULL;
    fst_status st = fst__place(&order, c->confidence, in->samples, err);
    if (st)
        return st;
    struct sweep w = {.in = in,
                      .order = order,
                      .edge_right = edge_right,
                      .cloud_right = cloud_right,
                      .right = c->all.edge_right,
                      .known = true};
    draw_curve(c, &w);
    fst_free(order);
    return FST_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------- */

static fst_status evaluate(fst_cascade *c, const fst_cascade_input *in, uint8_t *edge_right, uint8_t *cloud_right,
                           fst_error *err)
{
    fst_status st = fst_confidence(in->kind, in->edge, in->samples, in->classes, in->temperature, c->confidence, err);
    if (!st)
        fst_predict(in->edge, in->samples, in->classes, c->edge_answer);
    for (size_t i = 0; !st && i < in->samples; i++) {
        struct sample s = {0};
        st = count_sample(c, in, i, &s, err);
        if (!st && in->snr)
            st = count_snr(c, in->snr[i], &s, err);
        edge_right[i] = s.edge_right;
        cloud_right[i] = s.cloud_right;
    }
    if (!st && c->cloud_confusion && c->all.cloud_known < c->all.samples) {
        fst_free(c->cloud_confusion);
        c->cloud_confusion = NULL;
    }
    if (!st)
        st = trust(c, in, edge_right, err);
    return st ? st : sweep(c, in, edge_right, cloud_right, err);
}

fst_status fst_cascade_evaluate(fst_cascade *out, const fst_cascade_input *in, fst_error *err)
{
    fst_cascade c = {.classes = in->classes,
                     .labelled = in->labels != NULL,
                     .kind = in->kind,
                     .temperature = in->temperature,
                     .threshold = in->threshold,
                     .devices = in->devices ? in->devices : 1,
                     .snr_bin = in->snr ? in->snr_bin : NAN};
    fst_status st = check(in, err);
    if (st)
        return st;
    uint8_t *right = fst_calloc(2 * in->samples + 1, 1);
    st = right ? reserve(&c, in, err) : fst_fail_memory(err, 2 * in->samples);
    if (!st)
        st = evaluate(&c, in, right, right + in->samples, err);
    fst_free(right);
    if (st)
        fst_cascade_release(&c);
    else
        *out = c;
    return st;
}

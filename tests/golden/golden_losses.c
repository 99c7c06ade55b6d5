/* Losses: those of one teacher by a call each, those of several teachers, peers or clients by the target that
 * they come down to and a call for the student. */
#include <stdio.h>
#include <string.h>

#include "fedstill/distill.h"
#include "golden.h"

enum { MAX_VOICES = 16 };

/* What every case has: the student's logits, labels where there are any, and room for results. */
struct pupil {
    size_t rows;
    int classes;
    float *logits, *grad;
    int32_t *labels;
    double *row; /* 3 x rows: loss, ce, kd */
};

static bool open_pupil(struct golden *g, const char *student, struct pupil *p)
{
    struct spec s, labels;
    *p = (struct pupil){0};
    if (!golden_find(g, "inputs", student, &s) || s.shape.rank != 2) {
        golden_fail(g, "no %s", student);
        return false;
    }
    p->rows = (size_t)s.shape.dim[0];
    p->classes = (int)s.shape.dim[1];
    p->logits = golden_fill(g, &s);
    p->grad = fst_calloc(s.count, sizeof *p->grad);
    p->labels = golden_find(g, "inputs", "labels", &labels) ? golden_labels(g, &labels) : NULL;
    p->row = fst_calloc(3 * p->rows, sizeof *p->row);
    return true;
}

static void close_pupil(struct pupil *p)
{
    fst_free(p->logits);
    fst_free(p->grad);
    fst_free(p->labels);
    fst_free(p->row);
}

static size_t pupil_count(const struct pupil *p)
{
    return p->rows * (size_t)p->classes;
}

struct sums {
    double loss, ce, kd;
};

static struct sums run_loss(struct pupil *p, const fst_loss *l, const float *soft, const float *weight, double divisor)
{
    struct sums s = {0, 0, 0};
    fst_loss_input in = {.logits = p->logits,
                         .rows = p->rows,
                         .classes = p->classes,
                         .labels = p->labels,
                         .soft = soft,
                         .weight = weight,
                         .divisor = divisor};
    fst_loss_rows(l, &in, p->grad, p->row, p->row + p->rows, p->row + 2 * p->rows);
    for (size_t i = 0; i < p->rows; i++) {
        s.loss += p->row[i] / divisor;
        s.ce += p->row[p->rows + i] / divisor;
        s.kd += p->row[2 * p->rows + i] / divisor;
    }
    return s;
}

static double mean_of(const double *v, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += v[i];
    return sum / (double)n;
}

static void compare_if_there(struct golden *g, const char *tensor, double value)
{
    if (golden_has(g, tensor))
        golden_compare_double(g, tensor, &value, 1, 0);
}

static void compare_floats_if_there(struct golden *g, const char *tensor, const float *v, size_t count)
{
    if (golden_has(g, tensor))
        golden_compare(g, tensor, v, count, 0);
}

/* ---- one teacher -------------------------------------------------------------------------------- */

static bool loss_of(const struct golden *g, fst_loss *l)
{
    const char *name = golden_text(g, "loss", "");
    *l = (fst_loss){.temperature = golden_number(g, "temperature", 1),
                    .label_smoothing = golden_number(g, "label_smoothing", 0),
                    .kd_weight = 1};
    if (!strcmp(name, "cross_entropy")) {
        l->ce_weight = 1;
        l->kd_weight = 0;
    } else if (!strcmp(name, "kd") || !strcmp(name, "kd_standardised")) {
        l->ce_weight = golden_number(g, "ce_weight", 0);
        l->kd_weight = golden_number(g, "kd_weight", 0);
        l->kd_form = strcmp(golden_text(g, "form", "kl"), "kl") ? FST_KD_CROSS_ENTROPY : FST_KD_KL;
        if (strcmp(name, "kd"))
            l->kd_form = FST_KD_STANDARDISED;
    } else if (!strcmp(name, "mse_logits") || !strcmp(name, "mse_probabilities")) {
        l->kd_form = !strcmp(name, "mse_logits") ? FST_KD_MSE_LOGITS : FST_KD_MSE_PROBABILITIES;
    } else if (!strcmp(name, "dkd")) {
        l->kd_form = FST_KD_DKD;
        l->ce_weight = golden_number(g, "ce_weight", 0);
        l->tckd_weight = golden_number(g, "alpha", 0);
        l->nckd_weight = golden_number(g, "beta", 0);
    } else if (!strcmp(name, "fedntd")) {
        l->kd_form = FST_KD_NTD;
        l->ce_weight = 1;
        l->kd_weight = golden_number(g, "beta", 0);
    } else {
        return false;
    }
    return true;
}

static float *soft_targets(struct golden *g, const fst_loss *l, const struct pupil *p)
{
    struct spec t;
    float *z = NULL, *q;
    const float *from = p->logits;
    if (l->kd_weight == 0)
        return NULL;
    if (golden_find(g, "inputs", "teacher", &t))
        from = z = golden_fill(g, &t);
    else if (strcmp(golden_text(g, "teacher", ""), "student"))
        golden_fail(g, "no teacher");
    q = fst_calloc(pupil_count(p), sizeof *q);
    if (fst_kd_takes_logits(l->kd_form))
        memcpy(q, from, pupil_count(p) * sizeof *q);
    else
        fst_softmax(from, p->rows, p->classes, l->kd_form == FST_KD_MSE_PROBABILITIES ? 1 : l->temperature, q);
    fst_free(z);
    return q;
}

/* Parts that the sums do not have are losses of their own, with the other weights 0. */
static void compare_parts(struct golden *g, const fst_loss *l, struct pupil *p, const float *soft, struct sums s,
                          double divisor)
{
    fst_loss part = *l;
    golden_compare_double(g, "loss", &s.loss, 1, 0);
    golden_compare(g, "grad.student", p->grad, pupil_count(p), 0);
    part.ce_weight = 1;
    if (golden_has(g, "ce"))
        compare_if_there(g, "ce", run_loss(p, &part, soft, NULL, divisor).ce);
    compare_if_there(g, "kd", s.kd);
    compare_if_there(g, "ntd", s.kd);
    part.tckd_weight = 1;
    part.nckd_weight = 0;
    if (golden_has(g, "tckd"))
        compare_if_there(g, "tckd", run_loss(p, &part, soft, NULL, divisor).kd);
    part.tckd_weight = 0;
    part.nckd_weight = 1;
    if (golden_has(g, "nckd"))
        compare_if_there(g, "nckd", run_loss(p, &part, soft, NULL, divisor).kd);
}

static void one_teacher(struct golden *g, const fst_loss *l)
{
    struct pupil p;
    struct spec weight;
    float *w = NULL;
    if (!open_pupil(g, "student", &p))
        return;
    float *soft = soft_targets(g, l, &p);
    double divisor = (double)p.rows;
    if (golden_find(g, "inputs", "sample_weight", &weight)) {
        w = golden_fill(g, &weight);
        if (!strcmp(golden_text(g, "divide_by", ""), "sum_of_weights")) {
            divisor = 0;
            for (size_t i = 0; i < p.rows; i++)
                divisor += (double)w[i];
        }
    }
    compare_parts(g, l, &p, soft, run_loss(&p, l, soft, w, divisor), divisor);
    fst_free(w);
    fst_free(soft);
    close_pupil(&p);
}

/* ---- several voices ------------------------------------------------------------------------------- */

struct voices {
    float *logits[MAX_VOICES];
    size_t count;
};

/* PREFIX<first> ... PREFIX<end-1>, each of the pupil's shape. */
static bool open_voices(struct golden *g, const char *prefix, size_t first, size_t end, const struct pupil *p,
                        struct voices *v)
{
    *v = (struct voices){.count = 0};
    if (end > first + MAX_VOICES) {
        golden_fail(g, "%zu of %s; this program takes %d", end - first, prefix, MAX_VOICES);
        return false;
    }
    for (size_t k = first; k < end; k++) {
        struct spec s;
        char name[64];
        snprintf(name, sizeof name, "%s%zu", prefix, k);
        if (!golden_find(g, "inputs", name, &s) || s.count != pupil_count(p)) {
            golden_fail(g, "no %s of the student's shape", name);
            return false;
        }
        v->logits[v->count++] = golden_fill(g, &s);
    }
    if (!v->count)
        golden_fail(g, "no %s", prefix);
    return v->count > 0;
}

static void close_voices(struct voices *v)
{
    for (size_t k = 0; k < v->count; k++)
        fst_free(v->logits[k]);
}

static void check_status(struct golden *g, fst_status s, const fst_error *err)
{
    if (s)
        golden_fail(g, "%s", err->message);
}

static bool ensemble_of(const struct golden *g, fst_ensemble *out)
{
    for (int k = FST_ENSEMBLE_MEAN_PROBABILITIES; k <= FST_ENSEMBLE_CONFIDENCE; k++) {
        *out = (fst_ensemble)k;
        if (!strcmp(golden_text(g, "average", ""), fst_ensemble_name(*out)))
            return true;
    }
    return false;
}

static void multi_teacher(struct golden *g)
{
    struct pupil p;
    struct voices v = {.count = 0};
    fst_ensemble how;
    fst_error err = {0};
    fst_loss l = {.kd_weight = 1, .temperature = golden_number(g, "temperature", 1)};
    if (!ensemble_of(g, &how)) {
        golden_skip(g, golden_text(g, "average", "?"));
        return;
    }
    if (!open_pupil(g, "student", &p))
        return;
    if (open_voices(g, "teacher", 0, (size_t)golden_number(g, "teachers", 0), &p, &v)) {
        fst_teachers t = {(const float *const *)v.logits, v.count, p.rows, p.classes, p.labels};
        float *target = fst_calloc(pupil_count(&p), sizeof *target);
        double *weights = fst_calloc(v.count * p.rows, sizeof *weights), *spread = fst_calloc(p.rows, sizeof *spread);
        check_status(g, fst_teachers_weights(how, &t, weights, &err), &err);
        check_status(g, fst_teachers_target(how, &t, l.temperature, target, spread, &err), &err);
        double loss = run_loss(&p, &l, target, NULL, (double)p.rows).loss;
        if (how == FST_ENSEMBLE_CONFIDENCE) /* the weighted sum of the teachers' losses */
            loss += l.temperature * l.temperature * mean_of(spread, p.rows);
        golden_compare_double(g, "loss", &loss, 1, 0);
        golden_compare(g, "grad.student", p.grad, pupil_count(&p), 0);
        compare_floats_if_there(g, "target", target, pupil_count(&p));
        if (golden_has(g, "teacher_weight"))
            golden_compare_double(g, "teacher_weight", weights, v.count * p.rows, 0);
        fst_free(target);
        fst_free(weights);
        fst_free(spread);
    }
    close_voices(&v);
    close_pupil(&p);
}

static double one_peer(struct golden *g, const fst_teachers *peers, size_t self)
{
    struct pupil p;
    char name[64];
    fst_error err = {0};
    fst_loss l = {.ce_weight = 1, .kd_weight = 1, .temperature = golden_number(g, "temperature", 1)};
    snprintf(name, sizeof name, "student%zu", self);
    if (!open_pupil(g, name, &p))
        return 0;
    float *target = fst_calloc(pupil_count(&p), sizeof *target);
    double *spread = fst_calloc(p.rows, sizeof *spread);
    check_status(g, fst_peers_target(peers, self, target, spread, &err), &err);
    double loss = run_loss(&p, &l, target, NULL, (double)p.rows).loss + mean_of(spread, p.rows);
    snprintf(name, sizeof name, "loss_%zu", self);
    golden_compare_double(g, name, &loss, 1, 0);
    snprintf(name, sizeof name, "grad.student%zu", self);
    golden_compare(g, name, p.grad, pupil_count(&p), 0);
    fst_free(target);
    fst_free(spread);
    close_pupil(&p);
    return loss;
}

static void mutual(struct golden *g)
{
    struct pupil first;
    struct voices v = {.count = 0};
    double loss = 0;
    if (golden_number(g, "temperature", 1) != 1) {
        golden_skip(g, "mutual learning at another temperature than 1");
        return;
    }
    if (!open_pupil(g, "student0", &first))
        return;
    if (open_voices(g, "student", 0, (size_t)golden_number(g, "peers", 0), &first, &v)) {
        fst_teachers peers = {(const float *const *)v.logits, v.count, first.rows, first.classes, NULL};
        for (size_t k = 0; k < v.count; k++)
            loss += one_peer(g, &peers, k);
        golden_compare_double(g, "loss", &loss, 1, 0);
    }
    close_voices(&v);
    close_pupil(&first);
}

/* ---- federated ------------------------------------------------------------------------------------- */

/* Label means of all clients, client 0 being the student. */
static void fd_statistics(struct golden *g, const struct pupil *p, const struct voices *v, float **mean,
                          int64_t **count)
{
    struct spec s;
    char name[64];
    fst_error err = {0};
    size_t n = (size_t)p->classes;
    for (size_t c = 0; c <= v->count; c++) {
        snprintf(name, sizeof name, "labels%zu", c);
        if (c && (!golden_find(g, "inputs", name, &s) || s.count != p->rows)) {
            golden_fail(g, "no %s", name);
            return;
        }
        int32_t *labels = c ? golden_labels(g, &s) : p->labels;
        check_status(g,
                     fst_fd_label_means(c ? v->logits[c - 1] : p->logits, labels, p->rows, p->classes,
                                        mean[0] + c * n * n, count[0] + c * n, &err),
                     &err);
        mean[c] = mean[0] + c * n * n;
        count[c] = count[0] + c * n;
        if (c)
            fst_free(labels);
    }
}

static void fd_compare(struct golden *g, struct pupil *p, size_t clients, float **mean, int64_t **count)
{
    size_t n = (size_t)p->classes;
    fst_error err = {0};
    fst_loss l = {.ce_weight = 1, .kd_weight = golden_number(g, "gamma", 0), .temperature = 1};
    float *others = fst_calloc(n * n, sizeof *others), *target = fst_calloc(pupil_count(p), sizeof *target);
    double *counts = fst_calloc(clients * n, sizeof *counts);
    l.kd_form = FST_KD_CROSS_ENTROPY;
    check_status(g,
                 fst_fd_leave_one_out((const float *const *)mean, (const int64_t *const *)count, clients, p->classes, 0,
                                      others, &err),
                 &err);
    check_status(g, fst_fd_target(others, p->labels, p->rows, p->classes, target, &err), &err);
    struct sums s = run_loss(p, &l, target, NULL, (double)p->rows);
    for (size_t i = 0; i < clients * n; i++)
        counts[i] = (double)count[0][i];
    golden_compare_double(g, "loss", &s.loss, 1, 0);
    golden_compare(g, "grad.student", p->grad, pupil_count(p), 0);
    compare_if_there(g, "ce", s.ce);
    compare_if_there(g, "regulariser", s.kd);
    compare_floats_if_there(g, "label_mean", mean[0], clients * n * n);
    compare_floats_if_there(g, "leave_one_out", others, n * n);
    if (golden_has(g, "label_count"))
        golden_compare_double(g, "label_count", counts, clients * n, 0);
    fst_free(others);
    fst_free(target);
    fst_free(counts);
}

static void federated_distillation(struct golden *g)
{
    struct pupil p;
    struct voices v = {.count = 0};
    if (!open_pupil(g, "student", &p))
        return;
    if (!p.labels)
        golden_fail(g, "no labels");
    else if (open_voices(g, "client", 1, (size_t)golden_number(g, "clients", 0), &p, &v)) {
        float *mean[MAX_VOICES + 1];
        int64_t *count[MAX_VOICES + 1];
        size_t n = (size_t)p.classes;
        mean[0] = fst_calloc((v.count + 1) * n * n, sizeof **mean);
        count[0] = fst_calloc((v.count + 1) * n, sizeof **count);
        fd_statistics(g, &p, &v, mean, count);
        if (g->outcome == PASSED)
            fd_compare(g, &p, v.count + 1, mean, count);
        fst_free(mean[0]);
        fst_free(count[0]);
    }
    close_voices(&v);
    close_pupil(&p);
}

static void dsfl(struct golden *g)
{
    struct pupil p;
    struct voices v = {.count = 0};
    fst_error err = {0};
    fst_loss l = {.kd_weight = 1, .temperature = 1, .kd_form = FST_KD_CROSS_ENTROPY};
    bool era = !strcmp(golden_text(g, "aggregation", ""), fst_sharpen_name(FST_SHARPEN_ERA));
    if (!era && strcmp(golden_text(g, "aggregation", ""), fst_sharpen_name(FST_SHARPEN_ENHANCED_ERA))) {
        golden_skip(g, golden_text(g, "aggregation", "?"));
        return;
    }
    if (!open_pupil(g, "student", &p))
        return;
    if (open_voices(g, "client", 0, (size_t)golden_number(g, "clients", 0), &p, &v)) {
        float *mean = fst_calloc(pupil_count(&p), sizeof *mean), *target = fst_calloc(pupil_count(&p), sizeof *target);
        for (size_t k = 0; k < v.count; k++)
            fst_softmax(v.logits[k], p.rows, p.classes, 1, v.logits[k]);
        check_status(g, fst_dsfl_mean((const float *const *)v.logits, v.count, p.rows, p.classes, mean, &err), &err);
        check_status(g,
                     fst_dsfl_sharpen(era ? FST_SHARPEN_ERA : FST_SHARPEN_ENHANCED_ERA,
                                      golden_number(g, era ? "temperature" : "beta", 0), mean, p.rows, p.classes,
                                      target, &err),
                     &err);
        struct sums s = run_loss(&p, &l, target, NULL, (double)p.rows);
        golden_compare_double(g, "loss", &s.loss, 1, 0);
        golden_compare(g, "grad.student", p.grad, pupil_count(&p), 0);
        compare_floats_if_there(g, "mean", mean, pupil_count(&p));
        compare_floats_if_there(g, "target", target, pupil_count(&p));
        fst_free(mean);
        fst_free(target);
    }
    close_voices(&v);
    close_pupil(&p);
}

void golden_loss(struct golden *g)
{
    static const struct {
        const char *name;
        void (*run)(struct golden *g);
    } several[] = {{"multi_teacher", multi_teacher}, {"dml", mutual}, {"fd", federated_distillation}, {"dsfl", dsfl}};
    const char *name = golden_text(g, "loss", "?");
    fst_loss l;
    for (size_t i = 0; i < sizeof several / sizeof *several; i++)
        if (!strcmp(name, several[i].name)) {
            several[i].run(g);
            return;
        }
    if (loss_of(g, &l))
        one_teacher(g, &l);
    else
        golden_skip(g, name);
}

/*
 * The models of a run, each once. A model is known by its file's digest: the student that was federated is the edge's
 * model in the cascade, and the teacher the cloud's, so that a row, a column or a matrix stands for both names. Scores
 * come from the stages' figures, and from a confusion matrix where one is known: of a model that was tried for this
 * page, or of the cascade's report.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "html.h"

static const char *const roles[] = {"edge", "cloud"};

/* ---- scores ------------------------------------------------------------------------------------ */

struct fst__scores fst__scores_of(size_t n, const int64_t *v)
{
    struct fst__scores s = {0, NAN, NAN, NAN, NAN};
    double right = 0, recalls = 0, f1 = 0;
    size_t true_classes = 0, classes = 0;
    for (size_t i = 0; v && i < n; i++) {
        double hit = (double)v[i * n + i], row = 0, column = 0;
        for (size_t k = 0; k < n; k++) {
            row += (double)v[i * n + k];
            column += (double)v[k * n + i];
        }
        s.samples += row;
        right += hit;
        if (row > 0) {
            recalls += hit / row;
            true_classes++;
        }
        if (row + column > 0) { /* a class that neither is there nor was answered says nothing */
            f1 += 2 * hit / (row + column);
            classes++;
        }
    }
    if (s.samples > 0) {
        s.accuracy = right / s.samples;
        s.balanced = recalls / (double)true_classes;
        s.macro_f1 = f1 / (double)classes;
    }
    return s;
}

double fst__recall(size_t n, const int64_t *v, size_t class)
{
    double row = 0;
    for (size_t k = 0; k < n; k++)
        row += (double)v[class * n + k];
    return row > 0 ? (double)v[class * n + class] / row : NAN;
}

/* ---- who is who ----------------------------------------------------------------------------------- */

static json_t *role_json(const struct fst__html *h, const char *role)
{
    static const enum piece order[] = {PIECE_CLOUD, PIECE_EDGE, PIECE_DIRECT};
    for (size_t i = 0; i < 3; i++) {
        json_t *j = json_object_get(h->piece[order[i]].json, role);
        if (fst__json_text(j, "digest"))
            return j;
    }
    return NULL;
}

const char *fst__step_digest(const struct fst__html *h, const char *step)
{
    return fst__json_text(json_object_get(fst__stage_json(h, step), "model"), "digest");
}

static bool equal(const char *a, const char *b)
{
    return a && b && *a && !strcmp(a, b);
}

const char *fst__role_step(const struct fst__html *h, const char *role)
{
    const char *digest = fst__json_text(role_json(h, role), "digest"), *step, *last = NULL;
    json_t *j;
    json_object_foreach(json_object_get(h->piece[PIECE_SUMMARY].json, "stages"), step,
                        j) if (equal(digest, fst__step_digest(h, step))) last = step;
    return last;
}

const char *fst__role_title(const struct fst__html *h, const char *role, char out[FST__MODEL_TITLE])
{
    const char *step = fst__role_step(h, role);
    char title[FST__MODEL_TITLE];
    if (step)
        snprintf(out, FST__MODEL_TITLE, "%.70s (%.20s)", fst__step_title(h, step, title), role);
    else
        snprintf(out, FST__MODEL_TITLE, "%.60s", role);
    return out;
}

const char *fst__model_title(const struct fst__html *h, const char *step, char out[FST__MODEL_TITLE])
{
    char title[FST__MODEL_TITLE];
    for (size_t i = 0; i < 2; i++)
        if (equal(fst__step_digest(h, step), fst__json_text(role_json(h, roles[i]), "digest"))) {
            snprintf(out, FST__MODEL_TITLE, "%.70s (%.20s)", fst__step_title(h, step, title), roles[i]);
            return out;
        }
    return fst__step_title(h, step, out);
}

/* The matrix of a role as new memory; NULL: there is none. */
static int64_t *role_matrix(const struct fst__html *h, const char *role, size_t *n)
{
    static const enum piece order[] = {PIECE_CLOUD, PIECE_EDGE, PIECE_DIRECT};
    int64_t *m = NULL;
    for (size_t i = 0; !m && i < 3; i++)
        m = fst__json_matrix(
            json_object_get(json_object_get(json_object_get(h->piece[order[i]].json, "accuracy"), "confusion"), role),
            n);
    return m;
}

const char *fst__tried_role(const struct fst__html *h, const fst_tried_model *t)
{
    for (size_t i = 0; i < 2; i++) {
        const char *digest = t->digest ? t->digest : fst__step_digest(h, t->step);
        size_t n = 0;
        int64_t *m =
            equal(digest, fst__json_text(role_json(h, roles[i]), "digest")) ? role_matrix(h, roles[i], &n) : NULL;
        bool same = m && n == (size_t)h->r->classes && !memcmp(m, t->confusion, n * n * sizeof *m);
        fst_free(m);
        if (same)
            return roles[i];
    }
    return NULL;
}

/* ---- the table ------------------------------------------------------------------------------------- */

static struct fst__scores step_scores(const struct fst__html *h, const char *step)
{
    struct fst__scores s = {0, NAN, NAN, NAN, NAN};
    json_t *j = fst__stage_json(h, step);
    for (size_t i = 0; i < h->r->model_count && h->r->classes > 0; i++)
        if (!strcmp(h->r->models[i].step, step))
            s = fst__scores_of((size_t)h->r->classes, h->r->models[i].confusion);
    for (size_t i = 0; i < 2 && !(s.samples > 0); i++)
        if (equal(fst__step_digest(h, step), fst__json_text(role_json(h, roles[i]), "digest"))) {
            size_t n = 0;
            int64_t *m = role_matrix(h, roles[i], &n);
            s = fst__scores_of(n, m);
            fst_free(m);
        }
    if (isfinite(fst__json_number(j, "balanced_accuracy")))
        s.balanced = fst__json_number(j, "balanced_accuracy");
    if (isfinite(fst__json_number(j, "macro_f1")))
        s.macro_f1 = fst__json_number(j, "macro_f1");
    s.top5 = fst__json_number(j, "top5_accuracy");
    if (isfinite(fst__json_number(j, "accuracy")))
        s.accuracy = fst__json_number(j, "accuracy");
    return s;
}

/* Was the share among the five likeliest classes measured? Not with five classes or fewer. */
static bool has_top5(const struct fst__html *h)
{
    const char *step;
    json_t *j;
    json_object_foreach(json_object_get(h->piece[PIECE_SUMMARY].json, "stages"), step, j)
    {
        if (isfinite(fst__json_number(j, "top5_accuracy")))
            return true;
    }
    return false;
}

static void model_row(const struct fst__html *h, fst__page *p, const char *name, const struct fst__scores *s,
                      double loss, double parameters)
{
    char text[FST_HUMAN];
    fst__row_begin(p);
    fst__cell_head(p, name);
    fst__cell_percent(p, s->accuracy);
    if (has_top5(h))
        fst__cell_percent(p, s->top5);
    fst__cell_percent(p, s->balanced);
    fst__cell_percent(p, s->macro_f1);
    fst__cell_plain(p, loss);
    fst__cell_number(p, parameters, fst_human_count(parameters, text));
    fst__row_end(p);
}

/* Whether a stage before has the same file. */
static bool shown_before(const struct fst__html *h, const char *step)
{
    const char *other;
    json_t *j;
    json_object_foreach(json_object_get(h->piece[PIECE_SUMMARY].json, "stages"), other, j)
    {
        if (!strcmp(other, step))
            return false;
        if (equal(fst__step_digest(h, other), fst__step_digest(h, step)))
            return true;
    }
    return false;
}

/* Both names where two stages have one file. */
static const char *row_title(const struct fst__html *h, const char *step, char out[2 * FST__MODEL_TITLE])
{
    char one[FST__MODEL_TITLE];
    const char *other;
    json_t *j;
    snprintf(out, 2 * FST__MODEL_TITLE, "%s", fst__model_title(h, step, one));
    json_object_foreach(json_object_get(h->piece[PIECE_SUMMARY].json, "stages"), other, j)
    {
        size_t n = strlen(out);
        if (strcmp(other, step) && equal(fst__step_digest(h, other), fst__step_digest(h, step)))
            snprintf(out + n, 2 * FST__MODEL_TITLE - n, ", %s", fst__step_title(h, other, one));
    }
    return out;
}

/* Models that no stage of this run made, and the answers of both together. */
static void cascade_rows(const struct fst__html *h, fst__page *p)
{
    for (size_t i = 0; i < 2; i++) {
        size_t n = 0;
        int64_t *m = fst__role_step(h, roles[i]) ? NULL : role_matrix(h, roles[i], &n);
        const struct fst__scores s = fst__scores_of(n, m);
        if (m)
            model_row(h, p, roles[i], &s, NAN, NAN);
        fst_free(m);
    }
    size_t n = 0;
    int64_t *both = role_matrix(h, "cascade", &n);
    struct fst__scores s = fst__scores_of(n, both);
    fst_free(both);
    if (!isfinite(s.accuracy))
        s.accuracy = fst__json_number(json_object_get(h->piece[PIECE_CLOUD].json, "accuracy"), "accuracy");
    if (isfinite(s.accuracy))
        model_row(h, p, "edge and cloud together", &s, NAN, NAN);
}

void fst__html_models(const struct fst__html *h, fst__page *p)
{
    static const char *const columns[] = {"model",       "#accuracy", "#balanced accuracy", "#macro-F1", "#loss",
                                          "#parameters", NULL},
                             *const with_top5[] = {"model",     "#accuracy", "#top-5",      "#balanced accuracy",
                                                   "#macro-F1", "#loss",     "#parameters", NULL};
    json_t *stages = json_object_get(h->piece[PIECE_SUMMARY].json, "stages"), *j;
    const char *step;
    size_t shown = 0;
    json_object_foreach(stages, step, j) shown += json_object_get(j, "model") != NULL;
    if (!shown && !h->piece[PIECE_CLOUD].json)
        return;
    fst__section(p, "models", "Models");
    fst__table_begin(p, "models", "On the test samples; loss: cross entropy", has_top5(h) ? with_top5 : columns);
    shown = 0;
    json_object_foreach(stages, step, j)
    {
        char title[2 * FST__MODEL_TITLE];
        if (!json_object_get(j, "model") || shown_before(h, step) || shown++ >= FST__SHOWN_STAGES)
            continue;
        const struct fst__scores s = step_scores(h, step);
        model_row(h, p, row_title(h, step, title), &s, fst__json_number(j, "loss"), fst__json_number(j, "parameters"));
    }
    cascade_rows(h, p);
    fst__table_end(p);
}

/*
 * What the first screen answers: are the edge's models good enough, what goes over the radio, what did the federation
 * bring? Each is a figure and sentences that say what it is compared with; an answer that the run has no figures for is
 * left out. Everything here stands in a section below too.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "html.h"

/* The stage that the answers are about: the last of a kind. */
static json_t *stage(const struct fst__html *h, const char *kind)
{
    return fst__stage_json(h, fst__last_of(h, kind));
}

static double figure(const struct fst__html *h, const char *kind, const char *key)
{
    return fst__json_number(stage(h, kind), key);
}

static json_t *cascade(const struct fst__html *h)
{
    return h->piece[PIECE_CLOUD].json;
}

/* ---- words --------------------------------------------------------------------------------------- */

static void card_begin(fst__page *p, const char *question, double value, const char *shown)
{
    fst__put(p, "<li><h2>");
    fst__say(p, question);
    fst__putf(p, "</h2><strong data-value=\"%.17g\">", value);
    fst__say(p, shown);
    fst__put(p, "</strong>\n");
}

static void card_end(fst__page *p)
{
    fst__put(p, "</li>\n");
}

/* "1.20 points above" */
static const char *points(double difference, char out[48])
{
    double shown = round(fabs(difference) * 1e4) / 100;
    if (shown == 0)
        snprintf(out, 48, "level with");
    else
        snprintf(out, 48, "%.2f point%s %s", shown, shown == 1 ? "" : "s", difference > 0 ? "above" : "below");
    return out;
}

/* Half the 95 % interval of an accuracy over n samples. */
static double uncertainty(double accuracy, double n)
{
    return 1.96 * sqrt(accuracy * (1 - accuracy) / n);
}

static double test_samples(const struct fst__html *h)
{
    return fst__json_number(json_object_get(h->piece[PIECE_SUMMARY].json, "data"), "test_samples");
}

/* ---- are the edge's models good enough? ------------------------------------------------------------------ */

/* The last model that edges got. */
static const char *edge_step(const struct fst__html *h)
{
    static const char *const kinds[] = {"federated_train", "edge_kd", "edge_alone"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (isfinite(figure(h, kinds[i], "accuracy")))
            return fst__last_of(h, kinds[i]);
    return NULL;
}

static void local_models(const struct fst__html *h, fst__page *p)
{
    json_t *edges = json_object_get(stage(h, "federated_train"), "edges"), *e;
    double low = INFINITY, high = -INFINITY;
    char a[FST_HUMAN], b[FST_HUMAN], text[160];
    size_t i, known = 0;
    json_array_foreach(edges, i, e)
    {
        double x = fst__json_number(e, "accuracy");
        if (!isfinite(x))
            continue;
        known++;
        low = fmin(low, x);
        high = fmax(high, x);
    }
    if (!known)
        return;
    if (known == 1)
        snprintf(text, sizeof text, "The edge's own last model reaches %s.", fst_human_percent(low, a));
    else
        snprintf(text, sizeof text, "The %zu edges' own last models reach %s to %s.", known, fst_human_percent(low, a),
                 fst_human_percent(high, b));
    fst__say_in(p, "p", text);
}

/* The class that a model of the edge gets right least, from its matrix or from the cascade's report. */
static void weakest_class(const struct fst__html *h, fst__page *p, const char *step)
{
    json_t *list = json_object_get(json_object_get(cascade(h), "accuracy"), "by_class"), *c;
    const char *role = fst__role_step(h, "edge"), *name = NULL;
    char number[24], a[FST_HUMAN], text[200];
    double least = INFINITY;
    size_t at = 0, i, n = h->r->classes > 0 ? (size_t)h->r->classes : 0;
    for (size_t k = 0; step && k < h->r->model_count; k++)
        for (i = 0; i < n && !strcmp(h->r->models[k].step, step); i++) {
            double x = fst__recall(n, h->r->models[k].confusion, i);
            if (x < least) {
                least = x;
                at = i;
                name = h->r->class_names ? h->r->class_names[i] : NULL;
            }
        }
    json_array_foreach(list, i, c)
    {
        double x = fst__json_number(c, "edge_accuracy");
        if (!isfinite(x) || x >= least || (step && (!role || strcmp(role, step))))
            continue;
        least = x;
        at = i;
        name = fst__json_text(c, "name");
    }
    if (!isfinite(least))
        return;
    snprintf(number, sizeof number, "%zu", at);
    snprintf(text, sizeof text, "Least often right: class %.80s (%s).", name ? name : number,
             fst_human_percent(least, a));
    fst__say_in(p, "p", text);
}

static void good_enough(const struct fst__html *h, fst__page *p)
{
    const char *step = edge_step(h);
    double a = step ? fst__json_number(fst__stage_json(h, step), "accuracy") : NAN,
           teacher = figure(h, "cloud_pretrain", "accuracy");
    double both = fst__json_number(json_object_get(cascade(h), "accuracy"), "accuracy"), n = test_samples(h);
    char shown[FST_HUMAN], other[FST_HUMAN], how[48], text[320], title[FST__MODEL_TITLE];
    if (!step) {
        a = fst__json_number(json_object_get(cascade(h), "accuracy"), "edge_accuracy");
        teacher = fst__json_number(json_object_get(cascade(h), "accuracy"), "cloud_accuracy");
    }
    if (!isfinite(a))
        return;
    card_begin(p, "Are the edge models good enough?", a, fst_human_percent(a, shown));
    snprintf(text, sizeof text, "of the test samples are right with the %s.",
             step ? fst__step_title(h, step, title) : "edge's model");
    fst__say_in(p, "p", text);
    if (isfinite(teacher)) {
        snprintf(text, sizeof text, "That is %s the %s (%s).", points(a - teacher, how),
                 step ? "teacher" : "cloud's model", fst_human_percent(teacher, other));
        fst__say_in(p, "p", text);
    }
    weakest_class(h, p, step);
    local_models(h, p);
    if (isfinite(both)) {
        snprintf(text, sizeof text, "Together with the cloud: %s.", fst_human_percent(both, other));
        fst__say_in(p, "p", text);
    }
    if (n > 0) {
        snprintf(text, sizeof text,
                 "%.0f test samples leave \xC2\xB1%.1f points open (95 %%, taking samples as independent).", n,
                 100 * uncertainty(a, n));
        fst__say_in(p, "p", text);
    }
    card_end(p);
}

/* ---- what goes over the radio? ------------------------------------------------------------------------- */

static double both_ways(const struct fst__html *h, const char *step)
{
    double up = figure(h, step, "bytes_up"), down = figure(h, step, "bytes_down");
    return (isfinite(up) ? up : 0) + (isfinite(down) ? down : 0);
}

/* Of a way of answering: bytes of all links in its first run. */
static double answer_bytes(const struct fst__html *h, const char *way)
{
    static const char *const links[] = {"device_edge", "edge_cloud", "device_cloud", "answers"};
    json_t *time = json_object_get(cascade(h), "time");
    json_t *j = json_array_get(json_object_get(json_object_get(time, "pipeline"), way), 0);
    double sum = NAN;
    for (size_t i = 0; i < sizeof links / sizeof *links; i++) {
        double x = fst__json_number(json_object_get(json_object_get(j, "links"), links[i]), "bytes");
        if (isfinite(x))
            sum = (isfinite(sum) ? sum : 0) + x;
    }
    return sum;
}

static void on_the_radio(const struct fst__html *h, fst__page *p)
{
    /* soft labels stand at cloud_kd, which makes them, and at edge_kd, which fetches them: they travel once */
    double training = both_ways(h, "federated_train") + both_ways(h, "edge_kd");
    double sent = fst__json_number(json_object_get(cascade(h), "accuracy"), "offload_ratio");
    double some = answer_bytes(h, "cascade"), all = answer_bytes(h, "cloud_only");
    const struct fst__stage_history *rounds = fst__history_find(&h->history, fst__last_of(h, "federated_train"));
    char a[FST_HUMAN], b[FST_HUMAN], text[320];
    if (!stage(h, "federated_train") && !isfinite(sent))
        return;
    if (stage(h, "federated_train"))
        card_begin(p, "What goes over the radio?", training, fst_human_bytes(training, a));
    else
        card_begin(p, "What goes over the radio?", sent, fst_human_percent(sent, a));
    if (stage(h, "federated_train")) {
        snprintf(text, sizeof text, "while training, of which the rounds' models %s up and %s down.",
                 fst_human_bytes(figure(h, "federated_train", "bytes_up"), a),
                 fst_human_bytes(figure(h, "federated_train", "bytes_down"), b));
        fst__say_in(p, "p", text);
    }
    if (rounds && rounds->rounds && rounds->points && stage(h, "federated_train")) {
        snprintf(text, sizeof text, "%zu round%s: %s each on average.", rounds->points, rounds->points > 1 ? "s" : "",
                 fst_human_bytes(both_ways(h, "federated_train") / (double)rounds->points, a));
        fst__say_in(p, "p", text);
    }
    if (isfinite(sent)) {
        snprintf(text, sizeof text, "When answering, %s of the samples are sent on to the cloud.",
                 fst_human_percent(sent, a));
        fst__say_in(p, "p", text);
    }
    if (isfinite(some) && isfinite(all)) {
        snprintf(text, sizeof text, "That is %s on all links, with the cloud alone %s.", fst_human_bytes(some, a),
                 fst_human_bytes(all, b));
        fst__say_in(p, "p", text);
    }
    card_end(p);
}

/* ---- what did the federation bring? -------------------------------------------------------------------- */

/* On how many edges the global model beats the edge's own, on samples of the edge. */
static void edges_gain(const struct fst__html *h, fst__page *p)
{
    json_t *edges = json_object_get(stage(h, "federated_train"), "edges"), *e;
    size_t i, better = 0, known = 0;
    char text[200];
    json_array_foreach(edges, i, e)
    {
        double own = fst__json_number(e, "own_accuracy"), global = fst__json_number(e, "global_accuracy");
        if (!isfinite(own) || !isfinite(global))
            continue;
        known++;
        better += global > own;
    }
    if (!known)
        return;
    snprintf(
        text, sizeof text,
        "On an edge's own validation samples the federated model is better than the edge's own at %zu of %zu edges.",
        better, known);
    fst__say_in(p, "p", text);
}

static void brought(const struct fst__html *h, fst__page *p)
{
    double after = figure(h, "federated_train", "accuracy"), before = figure(h, "edge_kd", "accuracy");
    double n = test_samples(h), gain = after - before, open = uncertainty(before, n) * sqrt(2);
    char shown[64], a[FST_HUMAN], b[FST_HUMAN], text[320];
    if (!isfinite(gain))
        return;
    snprintf(shown, sizeof shown, "%+.2f points", 100 * gain);
    card_begin(p, "What did the federation bring?", gain, shown);
    snprintf(text, sizeof text, "of test accuracy: %s with the federated student, %s with the student distilled.",
             fst_human_percent(after, a), fst_human_percent(before, b));
    fst__say_in(p, "p", text);
    if (n > 0 && fabs(gain) < open) {
        snprintf(text, sizeof text, "Less than %.1f points is what %.0f test samples may show by chance.", 100 * open,
                 n);
        fst__say_in(p, "p", text);
    }
    edges_gain(h, p);
    card_end(p);
}

void fst__html_answers(const struct fst__html *h, fst__page *p)
{
    fst__put(p, "<ul class=\"answers\">\n");
    good_enough(h, p);
    on_the_radio(h, p);
    brought(h, p);
    fst__put(p, "<li class=\"pad\"></li></ul>\n");
}

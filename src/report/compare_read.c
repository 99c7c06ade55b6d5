/* One run of a comparison: its summary.json, and the curve of the stage that is compared. A file that is damaged is a
 * reason to leave the run out, and the reason becomes a note. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compare.h"

enum { MAX_SUMMARY = 16 << 20 };

static double number(json_t *j, const char *key)
{
    json_t *v = json_object_get(j, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static const char *text(fst_compare *c, json_t *j, const char *key)
{
    const char *t = json_string_value(json_object_get(j, key));
    return fst__compare_text(c, "%s", t ? t : "");
}

static fst_status read_file(const char *folder, const char *name, size_t most, fst_buf *out, fst_error *err)
{
    char *path = fst_path_join(folder, name);
    fst_status st = path ? fst_file_read(path, most, out, err) : fst_fail_memory(err, strlen(folder));
    fst_free(path);
    return st;
}

/* NULL: *why says why. */
static json_t *parse_summary(const fst_buf *bytes, fst_error *why)
{
    json_error_t e;
    json_t *j = NULL;
    const char *json = bytes->data ? bytes->data : "";
    if (fst_json_fits("summary.json", json, bytes->len, bytes->len, why))
        return NULL;
    if (!(j = json_loadb(json, bytes->len, 0, &e))) {
        (void)!fst_fail(why, FST_E_FORMAT, "summary.json:%d:%d: %.160s", e.line, e.column, e.text);
        return NULL;
    }
    const char *format = json_string_value(json_object_get(j, "format"));
    if (!format || strcmp(format, "fedstill-summary-1")) {
        (void)!fst_fail(why, FST_E_FORMAT, "its summary.json is no fedstill-summary-1");
        json_decref(j);
        return NULL;
    }
    return j;
}

/* ---- which stages ---------------------------------------------------------------------------------- */

static bool left_a_model(json_t *stage)
{
    static const char *const kinds[] = {"cloud_pretrain",  "edge_alone", "edge_kd", "fusion_train",
                                        "federated_train", "prune",      "quantise"};
    const char *kind = json_string_value(json_object_get(stage, "kind"));
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (kind && !strcmp(kind, kinds[i]))
            return isfinite(number(stage, "accuracy"));
    return false;
}

/* The last stage that trained something that was measured. */
static const char *last_model(json_t *stages)
{
    const char *name, *last = NULL;
    json_t *j;
    json_object_foreach(stages, name, j) last = left_a_model(j) ? name : last;
    return last;
}

/* ---- figures ------------------------------------------------------------------------------------------- */

/* The round with the highest accuracy on `of`; rounds: none was measured. */
static size_t highest(const struct fst__curve *c, bool validation)
{
    size_t best = c->rounds;
    for (size_t i = 0; i < c->rounds; i++) {
        double v = validation ? c->round[i].validation : c->round[i].accuracy;
        double most = best == c->rounds ? NAN : validation ? c->round[best].validation : c->round[best].accuracy;
        if (isfinite(v) && !(v <= most))
            best = i;
    }
    return best;
}

/* Which accuracies are those of the best and of the last round? The stage's own is that of the model that it kept. */
static void choose(struct fst__result *r, bool round_chosen)
{
    const struct fst__curve *c = &r->curve;
    double kept = r->figure[FST__ACCURACY];
    r->figure[FST__BEST] = r->figure[FST__LAST] = NAN;
    if (c->found && c->epochs) { /* with validation samples the best epoch was kept, without them the last */
        r->validated = c->validated;
        r->figure[c->validated ? FST__BEST : FST__LAST] = kept;
    } else if (c->found) {
        size_t best = highest(c, c->validated);
        r->validated = c->validated;
        if (best < c->rounds)
            r->figure[FST__BEST] = round_chosen ? kept : c->round[best].accuracy;
        r->figure[FST__LAST] = round_chosen ? c->round[c->rounds - 1].accuracy : kept;
    }
    if (c->found && !c->epochs)
        r->figure[FST__ROUNDS] = (double)c->rounds;
}

static void fill(fst_compare *c, struct fst__result *r, json_t *summary, json_t *stage, const fst_compare_run *run)
{
    static const struct {
        enum fst__figure figure;
        const char *key;
    } keys[] = {{FST__ACCURACY, "accuracy"}, {FST__LOSS, "loss"},   {FST__TOP5, "top5_accuracy"}, {FST__F1, "macro_f1"},
                {FST__SECONDS, "seconds"},   {FST__UP, "bytes_up"}, {FST__DOWN, "bytes_down"}};
    json_t *data = json_object_get(summary, "data"), *file = json_object_get(stage, "model");
    r->name = fst__compare_text(c, "%s", run->name);
    r->output = fst__compare_text(c, "%s", run->output);
    r->settings = fst__compare_text(c, "%s", run->settings);
    r->task = text(c, summary, "task");
    r->kind = text(c, stage, "kind");
    r->digest = text(c, file ? file : json_object_get(stage, "artifact"), "digest");
    r->train = text(c, data, "train_digest");
    r->test = text(c, data, "test_digest");
    r->seed = json_integer_value(json_object_get(summary, "seed"));
    r->classes = number(data, "classes");
    r->test_samples = number(data, "test_samples");
    for (int i = 0; i < FST__FIGURES; i++)
        r->figure[i] = NAN;
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        r->figure[keys[i].figure] = number(stage, keys[i].key);
}

static struct fst__result *add(fst_compare *c)
{
    if (c->results == c->room) {
        size_t room = c->room ? 2 * c->room : 16;
        struct fst__result *more = fst_realloc(c->result, c->room * sizeof *more, room * sizeof *more);
        if (!more) {
            c->status = fst_fail_memory(c->err, room * sizeof *more);
            return NULL;
        }
        c->result = more;
        c->room = room;
    }
    c->result[c->results] = (struct fst__result){.seed = 0};
    return &c->result[c->results++];
}

/* The curve, without which everything but best, last and rounds is known all the same. */
static fst_status read_curve(fst_compare *c, struct fst__result *r, const fst_buf *events, fst_error *err)
{
    fst_status st = fst__curve_parse(&r->curve, events, r->stage, r->digest, err);
    if (!st && !r->curve.found)
        fst__compare_note(
            c,
            "%s: events.jsonl does not have the rounds of the model of %s, which came from another output "
            "or an earlier version: no curve, no best and no last round",
            r->name, r->stage);
    return st;
}

static fst_status read_stage(fst_compare *c, const fst_compare_run *run, json_t *summary, const char *name,
                             const fst_buf *events, fst_error *err)
{
    json_t *stage = json_object_get(json_object_get(summary, "stages"), name);
    if (!stage) {
        fst__compare_note(c, "%s has no finished stage %s", run->name, name);
        return c->status;
    }
    if (!isfinite(number(stage, "accuracy"))) {
        fst__compare_note(c, "%s: stage %s has no accuracy", run->name, name);
        return c->status;
    }
    struct fst__result *r = add(c);
    if (!r)
        return c->status;
    fill(c, r, summary, stage, run);
    r->stage = fst__compare_text(c, "%s", name);
    fst_status st = c->status ? c->status : read_curve(c, r, events, err);
    choose(r, isfinite(number(stage, "best_round")));
    return st;
}

fst_status fst__compare_take(fst_compare *c, const fst_compare_run *run, const fst_buf *summary_text,
                             const fst_buf *events, const fst_compare_options *o, fst_error *err)
{
    fst_error why = {0};
    fst_status st = FST_OK;
    json_t *summary = parse_summary(summary_text, &why);
    if (!summary) {
        fst__compare_note(c, "%s is left out: %s", run->name, why.message);
        return c->status;
    }
    json_t *stages = json_object_get(summary, "stages");
    const char *last = o->stage_count ? NULL : last_model(stages);
    struct fst__curve whole = {.round = NULL};
    st = fst__curve_parse(&whole, events, "", "", err); /* of no stage: did the last process come to its end? */
    fst_free(whole.round);
    if (!st && whole.unfinished) {
        fst__compare_note(c, "%s is left out: its last run has not come to its end", run->name);
        json_decref(summary);
        return c->status;
    }
    if (!o->stage_count && !last)
        fst__compare_note(c, "%s is left out: no stage of it has left a model yet", run->name);
    if (!st && last)
        st = read_stage(c, run, summary, last, events, err);
    for (size_t i = 0; !st && i < o->stage_count; i++)
        st = read_stage(c, run, summary, o->stages[i], events, err);
    json_decref(summary);
    return st ? st : c->status;
}

fst_status fst__compare_read(fst_compare *c, const fst_compare_run *run, const fst_compare_options *o, fst_error *err)
{
    fst_error why = {0};
    fst_buf summary = {0}, events = {0};
    fst_status st = FST_OK;
    if (!run->settings) {
        fst__compare_note(c, "%s is left out: its settings are not known (no task.yaml in %s)", run->name, run->output);
        return c->status;
    }
    if (read_file(run->output, "summary.json", MAX_SUMMARY, &summary, &why)) {
        fst__compare_note(c, "%s is left out: %s", run->name, why.message);
        return c->status;
    }
    if (read_file(run->output, "events.jsonl", FST_EVENTS_MAX_BYTES, &events, &why))
        fst__compare_note(c, "%s has no events: %s", run->name, why.message);
    st = fst__compare_take(c, run, &summary, &events, o, err);
    fst_buf_release(&summary);
    fst_buf_release(&events);
    return st;
}

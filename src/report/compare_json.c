/* A comparison as JSON: every figure of every run with all its digits, and what was made of them. */
#include <jansson.h>
#include <math.h>
#include <stdlib.h>

#include "compare.h"

static const struct {
    enum fst__figure figure;
    const char *key;
} keys[] = {{FST__ACCURACY, "accuracy"}, {FST__BEST, "best_accuracy"}, {FST__LAST, "last_accuracy"},
            {FST__LOSS, "loss"},         {FST__TOP5, "top5_accuracy"}, {FST__F1, "macro_f1"},
            {FST__ROUNDS, "rounds"},     {FST__SECONDS, "seconds"},    {FST__UP, "bytes_up"},
            {FST__DOWN, "bytes_down"}};
enum { KEYS = sizeof keys / sizeof *keys };
static const char *const axes[FST__AXES] = {"rounds", "bytes", "seconds"};

static json_t *spread(fst_spread s)
{
    return json_pack("{s:o, s:o, s:I}", "mean", fst_json_number(s.mean), "sd", fst_json_number(s.sd), "n",
                     (json_int_t)s.n);
}

static json_t *rounds_json(const struct fst__curve *c)
{
    json_t *list = json_array();
    for (size_t i = 0; c->found && i < c->rounds; i++) {
        const struct fst__round *r = &c->round[i];
        json_array_append_new(
            list,
            json_pack("{s:I, s:o, s:o, s:o, s:o}", c->epochs ? "epoch" : "round", (json_int_t)r->x[FST__BY_ROUND],
                      "bytes", fst_json_number(r->x[FST__BY_BYTES]), "seconds", fst_json_number(r->x[FST__BY_TIME]),
                      "accuracy", fst_json_number(r->accuracy), "validation_accuracy", fst_json_number(r->validation)));
    }
    return list;
}

static json_t *run_json(const struct fst__result *r)
{
    json_t *j = json_pack("{s:o, s:I, s:o, s:o, s:o, s:o, s:b}", "output", fst_json_text(r->output), "seed",
                          (json_int_t)r->seed, "model_digest", fst_json_text(r->digest), "train_digest",
                          fst_json_text(r->train), "test_digest", fst_json_text(r->test), "test_samples",
                          fst_json_number(r->test_samples), "best_on_validation", (int)r->validated);
    for (int i = 0; i < KEYS; i++)
        json_object_set_new(j, keys[i].key, fst_json_number(r->figure[keys[i].figure]));
    json_object_set_new(j, "curve", rounds_json(&r->curve));
    return j;
}

static json_t *targets_json(const fst_compare *c, const struct fst__row *r)
{
    json_t *list = json_array();
    for (size_t t = 0; t < c->targets; t++) {
        size_t got = 0;
        json_t *j = json_pack("{s:f}", "accuracy", c->target[t]);
        for (int a = 0; a < FST__AXES; a++)
            json_object_set_new(j, axes[a], spread(fst__row_reached(r, t, a, &got)));
        json_object_set_new(j, "reached", json_integer((json_int_t)got));
        json_object_set_new(j, "of", json_integer((json_int_t)r->count));
        json_array_append_new(list, j);
    }
    return list;
}

static json_t *curves_json(fst_compare *c, const struct fst__row *r)
{
    json_t *j = json_object();
    for (int a = 0; a < FST__AXES && fst__row_has_curve(r); a++) {
        struct fst__mean_curve m = fst__row_curve(c, r, a);
        json_t *list = json_array();
        for (size_t i = 0; i < m.n; i++)
            json_array_append_new(list, json_pack("[f, f, o]", m.x[i], m.mean[i], fst_json_number(m.sd[i])));
        json_object_set_new(j, axes[a], list);
    }
    return j;
}

static json_t *row_json(fst_compare *c, size_t i)
{
    const struct fst__row *r = &c->row[i];
    json_t *runs = json_array();
    for (size_t k = 0; k < r->count; k++)
        json_array_append_new(runs, run_json(r->result[k]));
    json_t *j = json_pack("{s:I, s:o, s:o, s:o, s:o, s:b, s:b}", "row", (json_int_t)i + 1, "method",
                          fst_json_text(r->label), "task", fst_json_text(r->result[0]->task), "stage",
                          fst_json_text(r->result[0]->stage), "settings", fst_json_text(r->differs), "other_test_data",
                          (int)r->other_test, "other_training_data", (int)r->other_train);
    for (int k = 0; k < KEYS; k++)
        json_object_set_new(j, keys[k].key, spread(fst__row_spread(r, keys[k].figure)));
    json_object_set_new(j, "targets", targets_json(c, r));
    json_object_set_new(j, "curves", curves_json(c, r));
    json_object_set_new(j, "runs", runs);
    return j;
}

static json_t *difference_json(const fst_compare *c, size_t i)
{
    const struct fst__difference *d = &c->difference[i];
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:o, s:o, s:o, s:o, s:o}", "row", (json_int_t)i + 1, "against",
                     (json_int_t)c->against + 1, "pairs", (json_int_t)d->test.n, "left_out", (json_int_t)d->left_out,
                     "mean", fst_json_number(d->test.mean), "sd", fst_json_number(d->test.sd), "low",
                     fst_json_number(d->test.low), "high", fst_json_number(d->test.high), "p_t",
                     fst_json_number(d->test.p_t), "p_signs", fst_json_number(d->test.p_flip));
}

fst_status fst__compare_json(fst_compare *c, fst_buf *out, fst_error *err)
{
    json_t *rows = json_array(), *differences = json_array(), *notes = json_array();
    for (size_t i = 0; i < c->rows; i++) {
        json_array_append_new(rows, row_json(c, i));
        if (i != c->against)
            json_array_append_new(differences, difference_json(c, i));
    }
    for (size_t i = 0; i < c->notes; i++)
        json_array_append_new(notes, fst_json_text(c->note[i]));
    json_t *j = json_pack("{s:s, s:I, s:o, s:o, s:o}", "format", "fedstill-compare-1", "against",
                          (json_int_t)c->against + 1, "rows", rows, "differences", differences, "notes", notes);
    char *dump = j ? json_dumps(j, JSON_INDENT(1) | JSON_REAL_PRECISION(17)) : NULL;
    fst_status st = dump ? fst_text_json(out, dump, err) : fst_fail_memory(err, 4096);
    free(dump);
    json_decref(j);
    return st ? st : fst_buf_append(out, "\n", 1, err);
}

/* output/summary.json: what the steps that are up to date left; output/task.yaml: what they were asked to do. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

static json_t *step_json(const struct session *s, const struct step *step)
{
    const struct record *r = &step->record;
    char *path = fst__step_path(s, step, r->artifact);
    json_t *file = json_pack("{s:s, s:s}", "path", path ? path : "", "digest", r->digest);
    json_t *j = json_object();
    json_object_set_new(j, "kind", json_string(step->stage->kind->name));
    fst__figures_json(r, j);
    json_object_set_new(j, "parameters", r->has_model ? json_integer(r->parameters) : json_null());
    json_object_set_new(j, "samples", json_integer(r->samples));
    json_object_set_new(j, "seconds", fst_json_number(r->seconds));
    json_object_set_new(j, "bytes_up", json_integer((json_int_t)r->bytes_up));
    json_object_set_new(j, "bytes_down", json_integer((json_int_t)r->bytes_down));
    fst__raw_bytes_json(r, j);
    json_object_set_new(j, r->has_model ? "model" : "artifact", file);
    if (r->best_round)
        json_object_set_new(j, "best_round", json_integer(r->best_round));
    if (r->fused_from[0])
        json_object_set_new(j, "fusion", fst__fusion_json(r));
    if (r->snr.count)
        json_object_set_new(j, "accuracy_by_snr", fst__snr_json(r));
    if (r->own.samples)
        json_object_set_new(j, "own_validation", fst__own_json(&r->own));
    if (r->edges)
        json_object_set_new(j, "edges", fst__edges_json(r));
    fst_free(path);
    return j;
}

/* Who has how many samples, and which classes not. */
static json_t *places_json(const struct session *s)
{
    json_t *list = json_array();
    for (size_t k = 0; k <= s->data.edges; k++) {
        const struct share *h = k ? &s->data.edge[k - 1] : &s->data.cloud;
        char name[32] = "cloud", missing[200];
        if (k)
            snprintf(name, sizeof name, "edge %zu", k);
        fst__missing_classes(&s->data, h, missing, sizeof missing);
        json_array_append_new(list, json_pack("{s:s, s:I, s:I, s:s}", "place", name, "samples", (json_int_t)h->learn,
                                              "validation", (json_int_t)h->validate, "missing_classes", missing));
    }
    return list;
}

/* A file that says the same already is left alone. */
static fst_status write_changed(const char *path, const char *text, fst_error *err)
{
    fst_buf old = {0};
    size_t n = strlen(text);
    bool same = !fst_file_read(path, n, &old, NULL) && old.len == n && !memcmp(old.data, text, n);
    fst_buf_release(&old);
    return same ? FST_OK : fst_file_write(path, text, n, err);
}

/* What the reports of the cascade's stages say first. */
static json_t *cascade_json(const struct session *s)
{
    json_t *all = json_object();
    for (size_t i = 0; i < s->steps; i++) {
        const struct step *step = &s->step[i];
        enum leaves what = step->stage->kind->leaves;
        bool wanted = step->done && what >= FST__LEAVES_ANSWERS;
        char *path = wanted ? fst__step_path(s, step, "report.json") : NULL;
        json_t *report = path ? json_load_file(path, 0, NULL) : NULL, *figures = json_object_get(report, "summary");
        if (figures)
            json_object_set(all, step->stage->name, figures);
        json_decref(report);
        fst_free(path);
    }
    return all;
}

fst_status fst__summary_write(const struct session *s, fst_error *err)
{
    json_t *stages = json_object();
    for (size_t i = 0; i < s->steps; i++)
        if (s->step[i].done)
            json_object_set_new(stages, s->step[i].stage->name, step_json(s, &s->step[i]));
    json_t *j =
        json_pack("{s:s, s:s, s:I, s:s, s:s, s:{s:s, s:s, s:I, s:I, s:I}, s:o}", "format", "fedstill-summary-1", "task",
                  s->task->file.name, "seed", (json_int_t)s->task->file.seed, "version", FST_VERSION, "backend",
                  fst_backend_describe(s->machine.backend), "data", "train_digest", s->data.train->digest,
                  "test_digest", s->data.test->digest, "train_samples", (json_int_t)s->data.cloud.learn, "test_samples",
                  (json_int_t)s->data.test->count, "classes", (json_int_t)s->data.train->classes, "stages", stages);
    json_t *cascade = cascade_json(s);
    if (j && json_object_size(cascade))
        json_object_set(j, "cascade", cascade);
    json_decref(cascade);
    if (j && s->data.edges)
        json_object_set_new(j, "places", places_json(s));
    if (j && s->task->file.precision != FST_PRECISION_F32)
        json_object_set_new(j, "precision", json_string(fst_precision_name(s->machine.precision)));
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    char *path = fst_path_join(s->task->output, "summary.json");
    fst_status st = text && path ? write_changed(path, text, err) : fst_fail_memory(err, 4096);
    free(text);
    fst_free(path);
    json_decref(j);
    return st;
}

void fst__settings_write(const struct session *s)
{
    fst_error e = {0};
    fst_buf text = {0};
    char *path = fst_path_join(s->task->output, "task.yaml");
    fst_status st = path ? fst_task_dump(s->task, &text, &e) : fst_fail_memory(&e, 256);
    if (!st)
        st = write_changed(path, text.data, &e);
    if (st)
        fst_log(FST_LOG_WARN, "the settings of this run are not kept: %s", e.message);
    fst_buf_release(&text);
    fst_free(path);
}

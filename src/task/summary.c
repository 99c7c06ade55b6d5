/* output/summary.json: what the steps that are up to date left. */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "session.h"

static json_t *real_or_null(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *step_json(const struct session *s, enum step step)
{
    const struct record *r = &s->records[step];
    char *path = fst__step_path(s, step, r->artifact);
    json_t *file = json_pack("{s:s, s:s}", "path", path ? path : "", "digest", r->digest);
    json_t *j = json_object();
    json_object_set_new(j, "accuracy", r->has_model ? real_or_null(r->accuracy) : json_null());
    json_object_set_new(j, "loss", r->has_model ? real_or_null(r->loss) : json_null());
    json_object_set_new(j, "parameters", r->has_model ? json_integer(r->parameters) : json_null());
    json_object_set_new(j, "samples", json_integer(r->samples));
    json_object_set_new(j, "seconds", real_or_null(r->seconds));
    json_object_set_new(j, "bytes_up", json_integer((json_int_t)r->bytes_up));
    json_object_set_new(j, "bytes_down", json_integer((json_int_t)r->bytes_down));
    json_object_set_new(j, r->has_model ? "model" : "artifact", file);
    fst_free(path);
    return j;
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

fst_status fst__summary_write(const struct session *s, fst_error *err)
{
    json_t *stages = json_object();
    for (int i = 0; i < STEPS; i++)
        if (s->done[i])
            json_object_set_new(stages, fst__step_names[i], step_json(s, (enum step)i));
    json_t *j = json_pack("{s:s, s:s, s:I, s:s, s:s, s:{s:s, s:s, s:I, s:I}, s:o}", "format", "fedstill-summary-1",
                          "task", s->task->file.name, "seed", (json_int_t)s->task->file.seed, "version", FST_VERSION,
                          "backend", fst_backend_describe(s->backend), "data", "train_digest", s->train->digest,
                          "test_digest", s->test->digest, "train_samples", (json_int_t)s->learn, "test_samples",
                          (json_int_t)s->test->count, "stages", stages);
    char *text = j ? json_dumps(j, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    char *path = fst_path_join(s->task->output, "summary.json");
    fst_status st = text && path ? write_changed(path, text, err) : fst_fail_memory(err, 4096);
    free(text);
    fst_free(path);
    json_decref(j);
    return st;
}

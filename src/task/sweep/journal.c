/*
 * FOLDER/sweep.json: what was asked for, and how far it is. People and `fedstill compare` read it; a sweep itself takes
 * from it only which runs had ended and of which task it is. Whether their stages are there, their records say.
 */
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sweep_private.h"

#define FORMAT "fedstill-sweep-1"
enum { MAX_JOURNAL = 16 << 20, SHOWN_CHANGES = 5 };

/* ---- writing --------------------------------------------------------------------------------------------- */

static json_t *texts(const char *const *list, size_t n)
{
    json_t *j = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(j, fst_json_text(list[i]));
    return j;
}

static json_t *grid_json(const fst_sweep *s)
{
    json_t *list = json_array();
    for (size_t i = 0; i < s->keys; i++)
        if (!s->key[i].of_points)
            json_array_append_new(list, json_pack("{s:o, s:o, s:o}", "key", fst_json_text(s->key[i].key), "name",
                                                  fst_json_text(s->key[i].shown), "values",
                                                  texts((const char *const *)s->key[i].value, s->key[i].count)));
    return list;
}

/* The values that a run has by grid and points. */
static json_t *values_json(const fst_sweep *s, const struct run *r)
{
    json_t *j = json_object();
    for (size_t k = s->spec->nsets; k + 1 < r->nsets; k++) { /* the last is the seed */
        const char *equals = strchr(r->sets[k], '=');
        char *key = fst_strdup(r->sets[k]);
        if (key) {
            key[equals - r->sets[k]] = 0;
            json_object_set_new(j, key, fst_json_text(equals + 1));
        }
        fst_free(key);
    }
    return j;
}

static json_t *run_json(const fst_sweep *s, const struct run *r)
{
    char folder[FST__SWEEP_NAME + 8], log[FST__SWEEP_NAME + 16];
    snprintf(folder, sizeof folder, "runs/%s", r->name);
    snprintf(log, sizeof log, "logs/%s.log", r->name);
    json_t *j = json_pack("{s:s, s:s, s:s, s:o, s:I, s:s}", "name", r->name, "folder", folder, "log", log, "settings",
                          values_json(s, r), "seed", (json_int_t)r->seed, "status", fst_sweep_state_name(r->state));
    if (r->why)
        json_object_set_new(j, "why", fst_json_text(r->why));
    json_object_set_new(j, "seconds", fst_json_number(r->seconds));
    if (r->state == FST_SWEEP_DONE) {
        json_object_set_new(j, "validation_accuracy", fst_json_number(r->validation));
        json_object_set_new(j, "test_accuracy", fst_json_number(r->test));
    }
    if (r->state == FST_SWEEP_STOPPED)
        json_object_set_new(j, "stopped",
                            json_pack("{s:s, s:s, s:I, s:o, s:I, s:I}", "stage", s->by, "unit", s->unit, "at",
                                      (json_int_t)r->stopped_at, "validation_accuracy",
                                      fst_json_number(r->stopped_value), "rank", (json_int_t)r->rank, "of",
                                      (json_int_t)r->of));
    return j;
}

static json_t *settings_json(const fst_sweep *s)
{
    json_t *list = json_array();
    for (const char *at = s->settings.data; at && *at;) {
        size_t n = strcspn(at, "\n");
        char *line = fst_alloc(n + 1);
        if (!line)
            break;
        memcpy(line, at, n);
        line[n] = 0;
        json_array_append_new(list, fst_json_text(line));
        fst_free(line);
        at += n + (at[n] != 0);
    }
    return list;
}

static json_t *sweep_json(const fst_sweep *s)
{
    const fst_sweep_spec *p = s->spec;
    char digest[FST_DIGEST_HEX];
    fst__digest_text(s->settings.data, s->settings.len, digest);
    json_t *seeds = json_array(), *runs = json_array();
    for (size_t i = 0; i < s->seeds; i++)
        json_array_append_new(seeds, json_integer(s->seed[i]));
    for (size_t i = 0; i < s->runs; i++)
        json_array_append_new(runs, run_json(s, &s->run[i]));
    json_t *j =
        json_pack("{s:s, s:s, s:{s:o, s:o, s:s, s:o}, s:s, s:o, s:o, s:o, s:o, s:s, s:b, s:o}", "format", FORMAT,
                  "version", FST_VERSION, "task", "name", fst_json_text(s->task_name), "path", fst_json_text(p->task),
                  "digest", digest, "settings", settings_json(s), "mode", p->mode ? p->mode : "full_train", "set",
                  texts(p->sets, p->nsets), "grid", grid_json(s), "points", texts(p->point, p->npoints), "seeds", seeds,
                  "stage", s->by, "halving", (int)p->halving, "runs", runs);
    return j;
}

fst_status fst__journal_write(const fst_sweep *s, fst_error *err)
{
    json_t *j = sweep_json(s);
    char *t = j ? json_dumps(j, JSON_INDENT(2) | JSON_PRESERVE_ORDER) : NULL;
    fst_status st = t ? fst_file_write(s->journal, t, strlen(t), err) : fst_fail_memory(err, 4096);
    free(t);
    json_decref(j);
    return st;
}

void fst__journal_note(fst_sweep *s)
{
    fst_error e = {0};
    if (!fst__journal_write(s, &e))
        return;
    if (!s->journal_failed)
        fst_log(FST_LOG_WARN, "how far the sweep is cannot be written down: %s", e.message);
    s->journal_failed = true;
}

/* ---- reading --------------------------------------------------------------------------------------------- */

/* Does the text have this line? */
static bool has_line(const char *lines, const char *line)
{
    size_t n = strlen(line);
    for (const char *at = lines; n && (at = strstr(at, line)); at += n)
        if ((at == lines || at[-1] == '\n') && (at[n] == '\n' || !at[n]))
            return true;
    return false;
}

/* Lines that were and are no more. */
static void tell_changes(const fst_sweep *s, json_t *was)
{
    fst_buf all = {0};
    size_t i, n = 0;
    json_t *j;
    json_array_foreach(was, i, j)
    {
        const char *line = json_string_value(j);
        if (!line || has_line(s->settings.data, line))
            continue;
        if (n++ < SHOWN_CHANGES)
            (void)!fst_buf_printf(&all, NULL, "%s%s", n > 1 ? ", " : "", line);
    }
    fst_log(FST_LOG_INFO,
            "the task's settings are not those that this sweep began with (then: %s%s); runs whose stages depend on "
            "that are run again, and what they left before is kept",
            n ? all.data : "fewer", n > SHOWN_CHANGES ? ", ..." : "");
    fst_buf_release(&all);
}

static void note_run(fst_sweep *s, json_t *j)
{
    const char *name = json_string_value(json_object_get(j, "name")),
               *status = json_string_value(json_object_get(j, "status"));
    for (size_t i = 0; name && status && i < s->runs; i++)
        if (!strcmp(s->run[i].name, name))
            s->run[i].journal_done = !strcmp(status, "done");
}

static fst_status take(fst_sweep *s, json_t *j, fst_error *err)
{
    json_t *task = json_object_get(j, "task"), *runs = json_object_get(j, "runs"), *r;
    const char *name = json_string_value(json_object_get(task, "name")),
               *digest = json_string_value(json_object_get(task, "digest"));
    char now[FST_DIGEST_HEX];
    size_t i;
    if (!name || !digest)
        return fst_fail(err, FST_E_FORMAT, "%s: does not name its task", s->journal);
    if (strcmp(name, s->task_name))
        return fst_fail(err, FST_E_CONFIG, "%s holds a sweep of task %s, not of %s: give another folder by --output",
                        s->folder, name, s->task_name);
    fst__digest_text(s->settings.data, s->settings.len, now);
    if (strcmp(digest, now))
        tell_changes(s, json_object_get(task, "settings"));
    json_array_foreach(runs, i, r) note_run(s, r);
    return FST_OK;
}

fst_status fst__journal_parse(fst_sweep *s, const char *bytes, size_t len, fst_error *err)
{
    json_error_t why;
    fst_status st = fst_json_fits(s->journal, bytes, len, len, err);
    json_t *j = st ? NULL : json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &why);
    if (!st && !j)
        st = fst_fail(err, FST_E_FORMAT, "%s:%d: %s", s->journal, why.line, why.text);
    const char *format = json_string_value(json_object_get(j, "format"));
    if (!st && (!format || strcmp(format, FORMAT)))
        st = fst_fail(err, FST_E_FORMAT, "%s: is not of the format " FORMAT, s->journal);
    if (!st)
        st = take(s, j, err);
    json_decref(j);
    return st;
}

fst_status fst__journal_read(fst_sweep *s, fst_error *err)
{
    fst_buf bytes = {0};
    if (!fst_file_exists(s->journal))
        return FST_OK;
    fst_status st = fst_file_read(s->journal, MAX_JOURNAL, &bytes, err);
    if (!st)
        st = fst__journal_parse(s, bytes.data, bytes.len, err);
    fst_buf_release(&bytes);
    if (st == FST_E_FORMAT)
        return fst_fail_in(err, st, "not a sweep's file; remove it, and the sweep goes on from the runs' own records");
    return st;
}

/* What the result of a run depends on, as lines "key=value": the registry tells runs of one output apart by them, and
 * people see in which settings runs differ. */
#define _GNU_SOURCE
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "task_file.h"

static fst_status add_value(const char *key, json_t *j, fst_buf *out, fst_error *err)
{
    const char *text = json_string_value(j);
    char *other = text ? NULL : json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(15));
    fst_status st = text || other ? fst_buf_printf(out, err, "%s=%s\n", key, text ? text : other)
                                  : fst_fail_memory(err, strlen(key));
    free(other);
    return st;
}

/* Line breaks in values would make two lines of one. */
static void one_line_each(char *text, size_t len)
{
    for (size_t i = 0; i + 1 < len; i++)
        if (text[i] == '\n' || text[i] == '\r')
            text[i] = ' ';
}

static fst_status flatten(const char *prefix, json_t *map, fst_buf *out, fst_error *err)
{
    fst_status st = FST_OK;
    const char *name;
    json_t *j;
    json_object_foreach(map, name, j)
    {
        fst_buf key = {0};
        if (st)
            break;
        st = fst_buf_printf(&key, err, "%s%s%s", prefix, *prefix ? "." : "", name);
        size_t before = out->len;
        if (!st)
            st = json_is_object(j) ? flatten(key.data, j, out, err) : add_value(key.data, j, out, err);
        if (!st && !json_is_object(j))
            one_line_each(out->data + before, out->len - before);
        fst_buf_release(&key);
    }
    return st;
}

/* What does not count for a stage's fingerprint because it is told by digests, or by what is computed with. */
static fst_status add_aside(const struct task_file *f, fst_buf *out, fst_error *err)
{
    size_t before = out->len;
    fst_status st = f->data.path ? fst_buf_printf(out, err, "data.path=%s\n", f->data.path) : FST_OK;
    one_line_each(out->data + before, out->len - before);
    for (size_t i = 0; !st && i < f->data.edge_path_count; i++) {
        before = out->len;
        st = fst_buf_printf(out, err, "data.edge_paths.%zu=%s\n", i, f->data.edge_paths[i]);
        one_line_each(out->data + before, out->len - before);
    }
    return st || !f->precision ? st : fst_buf_printf(out, err, "precision=bf16\n");
}

fst_status fst_task_settings(const fst_task *t, fst_buf *out, fst_error *err)
{
    fst_buf text = {0}, lines = {0};
    fst_status st = fst__schema_json(&fst__task_schema, &t->file, &text, err);
    json_t *j = st ? NULL : json_loadb(text.data, text.len, 0, NULL);
    if (!st && !j)
        st = fst_fail_memory(err, text.len);
    if (!st)
        st = flatten("", j, &lines, err);
    if (!st)
        st = add_aside(&t->file, &lines, err);
    json_decref(j);
    fst_buf_release(&text);
    if (st)
        fst_buf_release(&lines);
    else
        *out = lines;
    return st;
}

fst_status fst_task_set_output(fst_task *t, const char *output, fst_error *err)
{
    char *here = output[0] == '/' ? NULL : realpath(".", NULL);
    char *path = fst_path_join(here ? here : "", output), *copy = path ? fst_strdup(path) : NULL;
    free(here);
    if (!copy) {
        fst_free(path);
        return fst_fail_memory(err, strlen(output));
    }
    fst_free(t->output);
    fst_free(t->file.output);
    t->output = path;
    t->file.output = copy;
    return FST_OK;
}

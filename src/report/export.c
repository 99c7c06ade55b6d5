/* Reads what an export is made of. */
#include <string.h>

#include "export.h"

enum { MAX_SUMMARY = 16 << 20 };

void fst__export_release(struct fst__export *x)
{
    json_decref(x->summary);
    fst_buf_release(&x->events);
    fst__log_release(&x->log);
    x->summary = NULL;
}

/* The digest of what a stage shows: of its model, or of the other thing that it left. A stage that the summary does not
 * have shows nothing that is finished: its rounds so far count. */
static const char *digest_of(void *ctx, const char *stage)
{
    json_t *j = json_object_get(json_object_get(ctx, "stages"), stage), *file = json_object_get(j, "model");
    return json_string_value(json_object_get(file ? file : json_object_get(j, "artifact"), "digest"));
}

fst_status fst__export_parse(struct fst__export *out, fst_buf *summary, fst_buf *events, fst_error *err)
{
    *out = (struct fst__export){.events = *events};
    *events = (fst_buf){0};
    if (summary->data && !fst_json_fits("summary.json", summary->data, summary->len, summary->len, NULL))
        out->summary = json_loadb(summary->data, summary->len, 0, NULL);
    fst_buf_release(summary);
    return fst__log_read(&out->log, &out->events, digest_of, out->summary, err);
}

static fst_status read_file(const char *folder, const char *name, size_t most, fst_buf *out, fst_error *err)
{
    char *path = fst_path_join(folder, name);
    fst_status st = path ? FST_OK : fst_fail_memory(err, strlen(folder));
    if (!st && fst_file_exists(path))
        st = fst_file_read(path, most, out, err);
    fst_free(path);
    return st;
}

static fst_status open_folder(struct fst__export *x, const char *output, fst_error *err)
{
    fst_buf summary = {0}, events = {0};
    *x = (struct fst__export){.summary = NULL};
    fst_status st = read_file(output, "summary.json", MAX_SUMMARY, &summary, err);
    if (!st)
        st = read_file(output, "events.jsonl", FST_EVENTS_MAX_BYTES, &events, err);
    if (!st)
        st = fst__export_parse(x, &summary, &events, err);
    fst_buf_release(&summary);
    fst_buf_release(&events);
    return st;
}

fst_status fst_export_tensorboard(const char *output, fst_buf *out, char name[FST_EXPORT_NAME], size_t *scalars,
                                  fst_error *err)
{
    struct fst__export x;
    fst_buf file = {0};
    size_t n = 0;
    fst_status st = open_folder(&x, output, err);
    if (!st)
        st = fst__export_tensorboard(&x, &file, name, &n, err);
    if (!st && !n)
        st = fst_fail(err, FST_E_CONFIG, "%s: events.jsonl has no epochs, rounds or resources yet", output);
    if (!st)
        st = fst_buf_append(out, file.data, file.len, err);
    if (!st && scalars)
        *scalars = n;
    fst_buf_release(&file);
    fst__export_release(&x);
    return st;
}

fst_status fst_export_csv(const char *output, fst_csv_fn table, void *ctx, fst_error *err)
{
    struct fst__export x;
    fst_status st = open_folder(&x, output, err);
    if (!st)
        st = fst__export_csv(&x, table, ctx, err);
    fst__export_release(&x);
    return st;
}

/* Heads of files, see lines.h. */
#include "lines.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_LINE = 4096 };

fst_status fst__line_write(const struct line_of_file *l, fst_buf *out, fst_error *err)
{
    char run[FST__INSTANCE];
    fst_buf text = {0};
    snprintf(run, sizeof run, "%016llx", (unsigned long long)l->run);
    json_t *j = json_pack("{s:s, s:I, s:s, s:I, s:f}", "run", run, "epoch", (json_int_t)l->epoch, "stage", l->stage,
                          "round", (json_int_t)l->round, "seconds", l->seconds);
    if (j && l->has_manifest && !fst_blob_manifest_write(&l->manifest, &text, NULL))
        json_object_set_new(j, "blob", json_loadb(text.data, text.len, 0, NULL));
    char *line = j ? json_dumps(j, JSON_COMPACT) : NULL;
    fst_status st = line ? fst_buf_printf(out, err, "%s\n", line) : fst_fail_memory(err, MAX_LINE);
    free(line);
    json_decref(j);
    fst_buf_release(&text);
    return st;
}

static bool read_line(struct line_of_file *l, const json_t *j)
{
    int64_t epoch, round;
    const char *run = json_string_value(json_object_get(j, "run"));
    const char *stage = json_string_value(json_object_get(j, "stage"));
    const json_t *blob = json_object_get(j, "blob");
    if (!run || strlen(run) != FST__INSTANCE - 1 || !stage || strlen(stage) >= sizeof l->stage ||
        !fst_json_is_whole(json_object_get(j, "epoch"), &epoch) || epoch < 0 ||
        !fst_json_is_whole(json_object_get(j, "round"), &round) || round < 0)
        return false;
    l->run = strtoull(run, NULL, 16);
    l->epoch = (uint64_t)epoch;
    l->round = round;
    l->seconds = json_number_value(json_object_get(j, "seconds"));
    memcpy(l->stage, stage, strlen(stage) + 1);
    l->has_manifest = blob != NULL;
    return !blob || !fst_blob_manifest_read(&l->manifest, blob, 0, NULL);
}

fst_status fst__line_read(struct line_of_file *out, const void *data, size_t len, size_t *at, fst_error *err)
{
    const char *end = len ? memchr(data, '\n', len < MAX_LINE ? len : MAX_LINE) : NULL;
    struct line_of_file l = FST__NO_LINE;
    json_t *j = end ? json_loadb(data, (size_t)(end - (const char *)data), JSON_REJECT_DUPLICATES, NULL) : NULL;
    bool good = json_is_object(j) && read_line(&l, j);
    json_decref(j);
    if (!good)
        return fst_fail(err, FST_E_FORMAT, "this is no file of a site, or it was damaged");
    *out = l;
    *at = (size_t)(end - (const char *)data) + 1;
    return FST_OK;
}

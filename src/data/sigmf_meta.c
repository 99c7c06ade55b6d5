/*
 * A SigMF recording's metadata (https://sigmf.org, versions 1.x and the 0.x before them): JSON with a global object,
 * captures and annotations (sigmf_notes.c). Complex baseband of one channel is read, also from data files that do not
 * conform (core:dataset, core:header_bytes, core:trailing_bytes). What would change what a sample is (more channels,
 * unknown extensions that are not optional) is refused by name.
 */
#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "sigmf.h"

enum { MAX_CAPTURES = 1 << 24 };

void fst__sigmf_release(fst__sigmf *m)
{
    if (!m)
        return;
    json_decref(m->json);
    fst_free(m->captures);
    fst_free(m->notes);
    fst_free(m->name);
    *m = (fst__sigmf){0};
}

/* ---- the global object ---------------------------------------------------------------------- */

static fst_status parse_version(const fst__sigmf *m, json_t *global, fst_error *err)
{
    const char *v = json_string_value(json_object_get(global, "core:version"));
    if (!v)
        return fst_fail(err, FST_E_FORMAT, "%s: global has no core:version; \"1.0.0\" or the like is needed", m->name);
    const char *digits = v[0] == 'v' ? v + 1 : v; /* "v0.0.1" is seen in old files */
    if ((digits[0] != '0' && digits[0] != '1') || digits[1] != '.')
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: core:version is \"%.32s\"; versions 0.x and 1.x are read", m->name,
                        v);
    return FST_OK;
}

static fst_status parse_datatype(fst__sigmf *m, json_t *global, fst_error *err)
{
    const char *t = json_string_value(json_object_get(global, "core:datatype"));
    if (!t)
        return fst_fail(err, FST_E_FORMAT, "%s: global has no core:datatype", m->name);
    fst_status s = fst__sigmf_type_parse(&m->type, t, err);
    return s ? fst_fail_in(err, s, "%s", m->name) : s;
}

/* Extensions that one must understand. */
static fst_status check_extensions(const fst__sigmf *m, json_t *global, fst_error *err)
{
    size_t i;
    json_t *e, *list = json_object_get(global, "core:extensions");
    if (!json_is_array(list)) /* before 1.0 an object, with no word on whether they are needed */
        return FST_OK;
    json_array_foreach(list, i, e)
    {
        const char *name = json_string_value(json_object_get(e, "name"));
        if (json_is_false(json_object_get(e, "optional")) && name && strcmp(name, "fedstill"))
            return fst_fail(err, FST_E_UNSUPPORTED, "%s: needs the extension \"%.64s\", which is not known here",
                            m->name, name);
    }
    return FST_OK;
}

/* A file beside the metadata, never elsewhere: metadata come from strangers. */
static fst_status parse_dataset(fst__sigmf *m, json_t *global, fst_error *err)
{
    char found[FST_JSON_FOUND];
    json_t *j = json_object_get(global, "core:dataset");
    const char *name = json_string_value(j);
    if (!j)
        return FST_OK;
    if (!name || !name[0] || strchr(name, '/') || !strcmp(name, ".") || !strcmp(name, "..") ||
        fst__name_fault(name, json_string_length(j)))
        return fst_fail(err, FST_E_FORMAT, "core:dataset must be the name of a file in the metadata's folder, not %s",
                        fst_json_found(j, found));
    m->dataset = name;
    return FST_OK;
}

/* How samples lie in the data file, and where it is. */
static fst_status parse_layout(fst__sigmf *m, json_t *global, fst_error *err)
{
    char found[FST_JSON_FOUND];
    int64_t channels = 1, trailing = 0, offset = 0;
    json_t *only = json_object_get(global, "core:metadata_only");
    fst_status s = fst_json_whole(global, "core:num_channels", 1, INT64_MAX, &channels, err);
    if (!s && channels != 1)
        s = fst_fail(err, FST_E_UNSUPPORTED,
                     "core:num_channels is %" PRId64 "; one channel is read: write each as a recording of its own",
                     channels);
    if (!s)
        s = fst_json_whole(global, "core:trailing_bytes", 0, INT64_MAX, &trailing, err);
    if (!s)
        s = fst_json_whole(global, "core:offset", 0, INT64_MAX, &offset, err);
    if (!s && only && !json_is_boolean(only))
        s = fst_fail(err, FST_E_FORMAT, "core:metadata_only must be true or false, not %s",
                     fst_json_found(only, found));
    if (!s)
        s = parse_dataset(m, global, err);
    m->metadata_only = json_is_true(only);
    m->trailing = (uint64_t)trailing;
    m->offset = (uint64_t)offset;
    return s ? fst_fail_in(err, s, "%s", m->name) : s;
}

static fst_status parse_digest(fst__sigmf *m, json_t *global, fst_error *err)
{
    json_t *j = json_object_get(global, "core:sha512");
    const char *hex = json_string_value(j);
    if (!j)
        return FST_OK;
    if (!hex || strlen(hex) != 128 || strspn(hex, "0123456789abcdefABCDEF") != 128)
        return fst_fail(err, FST_E_FORMAT, "%s: core:sha512 is not 128 hexadecimal digits", m->name);
    m->sha512 = hex;
    return FST_OK;
}

/* fedstill:classes, which `fedstill data synth` writes: names in the order of their labels. */
static fst_status parse_classes(fst__sigmf *m, json_t *global, fst_error *err)
{
    size_t i;
    json_t *name, *list = json_object_get(global, "fedstill:classes"), *seen;
    const char *wrong = NULL;
    if (!list)
        return FST_OK;
    bool good = json_array_size(list) > 0 && json_array_size(list) <= FST_MAX_CLASSES && (seen = json_object());
    if (!good)
        return fst_fail(err, FST_E_FORMAT, "%s: fedstill:classes must be a list of 1 to %d names", m->name,
                        FST_MAX_CLASSES);
    json_array_foreach(list, i, name)
    {
        const char *text = json_string_value(name);
        if (good && text && !wrong)
            wrong = fst__name_fault(text, json_string_length(name));
        good = good && text && !json_object_get(seen, text) && !json_object_set_new(seen, text, json_true());
    }
    json_decref(seen);
    if (!good || wrong)
        return fst_fail(err, FST_E_FORMAT, "%s: fedstill:classes must be a list of different texts%s%s", m->name,
                        wrong ? "; one " : "", wrong ? wrong : "");
    m->classes = list;
    return FST_OK;
}

/* ---- captures ------------------------------------------------------------------------------- */

static int by_start(const void *a, const void *b)
{
    const fst__sigmf_capture *x = a, *y = b;
    return (x->start > y->start) - (x->start < y->start);
}

static fst_status parse_capture(const fst__sigmf *m, const json_t *c, size_t i, fst__sigmf_capture *out, fst_error *err)
{
    int64_t start = i ? -1 : 0, header = 0;
    fst_status s = fst_json_whole(c, "core:sample_start", 0, INT64_MAX, &start, err);
    if (!s && start < 0)
        s = fst_fail(err, FST_E_FORMAT, "core:sample_start is missing");
    if (!s)
        s = fst_json_whole(c, "core:header_bytes", 0, INT64_MAX, &header, err);
    if (s)
        return fst_fail_in(err, s, "%s: capture %zu", m->name, i);
    out->start = (uint64_t)start > m->offset ? (uint64_t)start - m->offset : 0;
    out->headers = (uint64_t)header;
    return FST_OK;
}

/* Headers are added up, so that a binary search finds where a sample lies. */
static fst_status parse_captures(fst__sigmf *m, json_t *root, fst_error *err)
{
    json_t *list = json_object_get(root, "captures"), *c;
    size_t n = json_array_size(list), i;
    bool sorted = true;
    uint64_t headers = 0;
    if (n > MAX_CAPTURES)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu captures, at most %d are read", m->name, n, MAX_CAPTURES);
    m->captures = fst_calloc(n + 1, sizeof *m->captures);
    if (!m->captures)
        return fst_fail_memory(err, n * sizeof *m->captures);
    json_array_foreach(list, i, c)
    {
        fst__sigmf_capture *now = &m->captures[i];
        fst_status s = parse_capture(m, c, i, now, err);
        if (s)
            return s;
        sorted = sorted && (i == 0 || now->start >= now[-1].start);
        if (__builtin_add_overflow(headers, now->headers, &headers))
            return fst_fail(err, FST_E_FORMAT, "%s: core:header_bytes are more than any file has", m->name);
        now->headers = headers;
    }
    m->capture_count = n;
    if (!sorted && headers)
        return fst_fail(err, FST_E_FORMAT,
                        "%s: captures are not sorted by core:sample_start, so where their core:header_bytes are is "
                        "not known",
                        m->name);
    if (!sorted)
        qsort(m->captures, n, sizeof *m->captures, by_start);
    return FST_OK;
}

/* ---- all together --------------------------------------------------------------------------- */

static fst_status parse(fst__sigmf *m, const char *text, size_t len, fst_error *err)
{
    json_error_t je;
    text = fst_text_without_mark(text, &len);
    fst_status s = fst_json_fits(m->name, text, len, len, err);
    if (s)
        return s;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    m->json = root;
    if (!root)
        return fst_fail(err, FST_E_FORMAT, "%s:%d:%d: not JSON: %s", m->name, je.line, je.column, je.text);
    json_t *global = json_object_get(root, "global");
    if (!json_is_object(global))
        return fst_fail(err, FST_E_FORMAT, "%s: no object \"global\": not SigMF metadata", m->name);
    s = parse_version(m, global, err);
    if (!s)
        s = parse_datatype(m, global, err);
    if (!s)
        s = check_extensions(m, global, err);
    if (!s)
        s = parse_layout(m, global, err);
    if (!s)
        s = parse_captures(m, root, err);
    if (!s)
        s = parse_digest(m, global, err);
    if (!s)
        s = parse_classes(m, global, err);
    return s ? s : fst__sigmf_parse_notes(m, root, err);
}

fst_status fst__sigmf_parse(fst__sigmf *out, const char *name, const char *text, size_t len, fst_error *err)
{
    fst__sigmf m = {.name = fst_strdup(name)};
    fst_status s = m.name ? parse(&m, text, len, err) : fst_fail_memory(err, strlen(name));
    if (s)
        fst__sigmf_release(&m);
    else
        *out = m;
    return s;
}

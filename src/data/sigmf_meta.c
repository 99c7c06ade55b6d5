/*
 * A SigMF recording's metadata (https://sigmf.org, versions 1.x and the 0.x before them): JSON with a global object
 * and annotations. Only complex baseband of one channel in one plain data file is read; everything that would
 * change what a sample is (headers inside the data, unknown extensions that are not optional) is refused by name.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "sigmf.h"

enum { MAX_NOTES = 1 << 24 };

static const struct {
    const char *name;
    fst__sigmf_type type;
    size_t width;
} types[] = {{"cf32_le", FST__CF32_LE, 8}, {"ci16_le", FST__CI16_LE, 4}, {"cu8", FST__CU8, 2}};
enum { TYPES = sizeof types / sizeof *types };

size_t fst__sigmf_width(fst__sigmf_type t)
{
    return types[t].width;
}

void fst__sigmf_release(fst__sigmf *m)
{
    if (!m)
        return;
    json_decref(m->json);
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
    for (size_t i = 0; i < TYPES; i++)
        if (!strcmp(t, types[i].name)) {
            m->type = types[i].type;
            return FST_OK;
        }
    return fst_fail(err, FST_E_UNSUPPORTED, "%s: core:datatype is \"%.32s\"; cf32_le, ci16_le and cu8 are read",
                    m->name, t);
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

/* Keys that say that the data file is not simply samples behind samples. */
static fst_status check_plain(const fst__sigmf *m, json_t *root, json_t *global, fst_error *err)
{
    size_t i;
    json_t *c, *channels = json_object_get(global, "core:num_channels");
    if (channels && json_integer_value(channels) != 1)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: core:num_channels is not 1; one channel is read", m->name);
    if (json_object_get(global, "core:dataset"))
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: core:dataset names a foreign data file; only .sigmf-data is read",
                        m->name);
    if (json_is_true(json_object_get(global, "core:metadata_only")))
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: core:metadata_only: there are no samples", m->name);
    if (json_integer_value(json_object_get(global, "core:trailing_bytes")) > 0)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: core:trailing_bytes; only plain samples are read", m->name);
    json_array_foreach(json_object_get(root, "captures"), i, c)
    {
        if (json_integer_value(json_object_get(c, "core:header_bytes")) > 0)
            return fst_fail(err, FST_E_UNSUPPORTED,
                            "%s: capture %zu has core:header_bytes; only plain samples are read", m->name, i);
    }
    return FST_OK;
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
    if (!list)
        return FST_OK;
    bool good = json_array_size(list) > 0 && json_array_size(list) <= FST_MAX_CLASSES && (seen = json_object());
    if (!good)
        return fst_fail(err, FST_E_FORMAT, "%s: fedstill:classes must be a list of 1 to %d names", m->name,
                        FST_MAX_CLASSES);
    json_array_foreach(list, i, name)
    {
        const char *text = json_string_value(name);
        good = good && text && !json_object_get(seen, text) && !json_object_set_new(seen, text, json_true());
    }
    json_decref(seen);
    if (!good)
        return fst_fail(err, FST_E_FORMAT, "%s: fedstill:classes must be a list of different texts", m->name);
    m->classes = list;
    return FST_OK;
}

/* ---- annotations ---------------------------------------------------------------------------- */

static fst_status whole_number(const fst__sigmf *m, size_t i, json_t *note, const char *key, uint64_t *out,
                               fst_error *err)
{
    json_t *j = json_object_get(note, key);
    if (!json_is_integer(j) || json_integer_value(j) < 0)
        return fst_fail(err, FST_E_FORMAT, "%s: annotation %zu: %s must be a whole number >= 0%s", m->name, i, key,
                        j ? "" : " and is missing");
    *out = (uint64_t)json_integer_value(j);
    return FST_OK;
}

static fst_status parse_ours(const fst__sigmf *m, size_t i, json_t *note, fst__sigmf_note *n, fst_error *err)
{
    json_t *snr = json_object_get(note, "fedstill:snr_db"), *burst = json_object_get(note, "fedstill:burst");
    n->snr = NAN;
    if (snr && !json_is_null(snr)) {
        if (!json_is_number(snr) || !(fabs(json_number_value(snr)) <= 1000))
            return fst_fail(err, FST_E_FORMAT, "%s: annotation %zu: fedstill:snr_db must be a number of dB", m->name,
                            i);
        n->snr = (float)json_number_value(snr);
    }
    if (burst) {
        uint64_t v = 0;
        fst_status s = whole_number(m, i, note, "fedstill:burst", &v, err);
        if (s)
            return s;
        if (v > INT32_MAX)
            return fst_fail(err, FST_E_LIMIT, "%s: annotation %zu: fedstill:burst is %" PRIu64 ", at most %d is read",
                            m->name, i, v, INT32_MAX);
        n->has_burst = true;
        n->burst = (int64_t)v;
    }
    return FST_OK;
}

static fst_status parse_note(const fst__sigmf *m, size_t i, json_t *note, uint64_t offset, fst__sigmf_note *n,
                             fst_error *err)
{
    if (!json_is_object(note))
        return fst_fail(err, FST_E_FORMAT, "%s: annotation %zu is no object", m->name, i);
    fst_status s = whole_number(m, i, note, "core:sample_start", &n->start, err);
    if (!s)
        s = whole_number(m, i, note, "core:sample_count", &n->count, err);
    if (s)
        return s;
    n->label = json_string_value(json_object_get(note, "core:label"));
    if (!n->label || !n->label[0])
        return fst_fail(err, FST_E_FORMAT, "%s: annotation %zu has no core:label; every window needs one", m->name, i);
    if (n->start < offset)
        return fst_fail(err, FST_E_FORMAT, "%s: annotation %zu starts at %" PRIu64 ", before core:offset %" PRIu64,
                        m->name, i, n->start, offset);
    n->start -= offset;
    return parse_ours(m, i, note, n, err);
}

static fst_status parse_notes(fst__sigmf *m, json_t *root, json_t *global, fst_error *err)
{
    json_t *list = json_object_get(root, "annotations"), *note, *first = json_object_get(global, "core:offset");
    uint64_t offset = json_integer_value(first) > 0 ? (uint64_t)json_integer_value(first) : 0;
    size_t n = json_array_size(list), i;
    if (n == 0)
        return fst_fail(err, FST_E_FORMAT, "%s: no annotations; they say which samples are of which class", m->name);
    if (n > MAX_NOTES)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu annotations, at most %d are read", m->name, n, MAX_NOTES);
    m->notes = fst_calloc(n, sizeof *m->notes);
    if (!m->notes)
        return fst_fail_memory(err, n * sizeof *m->notes);
    m->count = n;
    json_array_foreach(list, i, note)
    {
        fst_status s = parse_note(m, i, note, offset, &m->notes[i], err);
        if (s)
            return s;
    }
    return FST_OK;
}

/* ---- all together --------------------------------------------------------------------------- */

static fst_status parse(fst__sigmf *m, const char *text, size_t len, fst_error *err)
{
    json_error_t je;
    json_t *root = json_loadb(text, len, JSON_REJECT_DUPLICATES, &je);
    m->json = root;
    if (!root)
        return fst_fail(err, FST_E_FORMAT, "%s:%d:%d: not JSON: %s", m->name, je.line, je.column, je.text);
    json_t *global = json_object_get(root, "global");
    if (!json_is_object(global))
        return fst_fail(err, FST_E_FORMAT, "%s: no object \"global\": not SigMF metadata", m->name);
    fst_status s = parse_version(m, global, err);
    if (!s)
        s = parse_datatype(m, global, err);
    if (!s)
        s = check_extensions(m, global, err);
    if (!s)
        s = check_plain(m, root, global, err);
    if (!s)
        s = parse_digest(m, global, err);
    if (!s)
        s = parse_classes(m, global, err);
    return s ? s : parse_notes(m, root, global, err);
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

fst_status fst__sigmf_check_data(const fst__sigmf *m, uint64_t bytes, fst_error *err)
{
    size_t width = fst__sigmf_width(m->type);
    uint64_t samples = bytes / width;
    if (bytes % width)
        return fst_fail(err, FST_E_FORMAT, "%s: its data file has %" PRIu64 " bytes, not whole samples of %zu: cut off",
                        m->name, bytes, width);
    for (size_t i = 0; i < m->count; i++) {
        const fst__sigmf_note *n = &m->notes[i];
        if (n->start > samples || n->count > samples - n->start)
            return fst_fail(err, FST_E_FORMAT,
                            "%s: annotation %zu (samples %" PRIu64 ", %" PRIu64
                            " of them) goes past the end of its data file, which has %" PRIu64,
                            m->name, i, n->start, n->count, samples);
    }
    return FST_OK;
}

static float at(fst__sigmf_type t, const unsigned char *p)
{
    float f;
    if (t == FST__CU8)
        return ((float)p[0] - 127.5f) / 127.5f;
    if (t == FST__CI16_LE)
        return (float)(int16_t)(p[0] | p[1] << 8) / 32768.0f;
    memcpy(&f, p, sizeof f);
    return f;
}

void fst__sigmf_convert(fst__sigmf_type t, const unsigned char *raw, size_t count, float *dst)
{
    size_t half = fst__sigmf_width(t) / 2;
    for (size_t i = 0; i < count; i++) {
        dst[i] = at(t, raw + 2 * half * i);
        dst[count + i] = at(t, raw + 2 * half * i + half);
    }
}

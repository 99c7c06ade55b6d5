/*
 * SigMF annotations: which samples are of which class. Since 1.0 the label is core:label; files of the versions before
 * it have core:description in its place, which is taken where no annotation of the file has a core:label. Annotations
 * without either (of a noise floor, say) are left out and counted; a label that is no text is an error.
 */
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <string.h>

#include "sigmf.h"

enum { MAX_NOTES = 1 << 24 };

static fst_status in_note(const fst__sigmf *m, size_t i, fst_status s, fst_error *err)
{
    return fst_fail_in(err, s, "%s: annotation %zu", m->name, i);
}

static fst_status parse_ours(const json_t *note, fst__sigmf_note *n, fst_error *err)
{
    char found[FST_JSON_FOUND];
    const json_t *snr = json_object_get(note, "fedstill:snr_db");
    int64_t burst = -1;
    n->snr = NAN;
    if (snr && !json_is_null(snr)) {
        if (!json_is_number(snr) || !(fabs(json_number_value(snr)) <= 1000))
            return fst_fail(err, FST_E_FORMAT, "fedstill:snr_db must be a number of dB, not %s",
                            fst_json_found(snr, found));
        n->snr = (float)json_number_value(snr);
    }
    fst_status s = fst_json_whole(note, "fedstill:burst", 0, INT32_MAX, &burst, err);
    n->has_burst = burst >= 0;
    n->burst = burst;
    return s;
}

/* *label becomes NULL when there is none. */
static fst_status parse_label(const json_t *note, const char *key, const char **label, fst_error *err)
{
    char found[FST_JSON_FOUND];
    const json_t *j = json_object_get(note, key);
    *label = NULL;
    if (!j || json_is_null(j))
        return FST_OK;
    const char *text = json_string_value(j);
    if (!text)
        return fst_fail(err, FST_E_FORMAT, "%s %s is no text", key, fst_json_found(j, found));
    if (!text[0])
        return FST_OK;
    const char *wrong = fst__name_fault(text, json_string_length(j));
    if (wrong)
        return fst_fail(err, FST_E_FORMAT, "%s %s %s", key, fst_json_found(j, found), wrong);
    *label = text;
    return FST_OK;
}

static fst_status parse_range(const fst__sigmf *m, const json_t *note, fst__sigmf_note *n, fst_error *err)
{
    int64_t start = -1, count = -1;
    fst_status s = fst_json_whole(note, "core:sample_start", 0, INT64_MAX, &start, err);
    if (!s && start < 0)
        s = fst_fail(err, FST_E_FORMAT, "core:sample_start must be a whole number >= 0 and is missing");
    if (!s)
        s = fst_json_whole(note, "core:sample_count", 0, INT64_MAX, &count, err);
    if (!s && (uint64_t)start < m->offset)
        s = fst_fail(err, FST_E_FORMAT, "it starts at %" PRId64 ", before core:offset %" PRIu64, start, m->offset);
    if (s)
        return s;
    n->start = (uint64_t)start - m->offset;
    n->has_count = count >= 0;
    n->count = count >= 0 ? (uint64_t)count : 0;
    return FST_OK;
}

/* The next of the notes that are kept, unless it has no label. */
static fst_status parse_note(fst__sigmf *m, const json_t *note, const char *key, size_t i, fst_error *err)
{
    fst__sigmf_note *n = &m->notes[m->count];
    if (!json_is_object(note))
        return fst_fail(err, FST_E_FORMAT, "%s: annotation %zu is no object", m->name, i);
    fst_status s = parse_label(note, key, &n->label, err);
    if (!s && !n->label) {
        m->unlabelled++;
        return FST_OK;
    }
    if (!s)
        s = parse_range(m, note, n, err);
    if (!s)
        s = parse_ours(note, n, err);
    if (s)
        return in_note(m, i, s, err);
    n->index = i;
    m->count++;
    return FST_OK;
}

fst_status fst__sigmf_parse_notes(fst__sigmf *m, const json_t *root, fst_error *err)
{
    const json_t *list = json_object_get(root, "annotations");
    const char *key = "core:description";
    size_t n = json_array_size(list), i;
    json_t *note, *label;
    if (list && !json_is_array(list))
        return fst_fail(err, FST_E_FORMAT, "%s: annotations must be a list", m->name);
    if (n > MAX_NOTES)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu annotations, at most %d are read", m->name, n, MAX_NOTES);
    m->notes = fst_calloc(n + 1, sizeof *m->notes);
    if (!m->notes)
        return fst_fail_memory(err, n * sizeof *m->notes);
    json_array_foreach(list, i, note)
    {
        label = json_object_get(note, "core:label");
        if (label && !json_is_null(label))
            key = "core:label";
    }
    json_array_foreach(list, i, note)
    {
        fst_status s = parse_note(m, note, key, i, err);
        if (s)
            return s;
    }
    return FST_OK;
}

/* ---- against the data file ------------------------------------------------------------------ */

/* Captures are sorted: how many start at or before the sample. */
static size_t captures_until(const fst__sigmf *m, uint64_t sample)
{
    size_t low = 0, high = m->capture_count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (m->captures[middle].start <= sample)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

uint64_t fst__sigmf_place(const fst__sigmf *m, uint64_t sample, uint64_t *run)
{
    size_t k = captures_until(m, sample);
    *run = k < m->capture_count ? m->captures[k].start - sample : UINT64_MAX;
    return sample * fst__sigmf_width(m->type) + (k ? m->captures[k - 1].headers : 0);
}

static fst_status count_samples(const fst__sigmf *m, uint64_t bytes, uint64_t *samples, fst_error *err)
{
    size_t width = fst__sigmf_width(m->type);
    uint64_t other = m->capture_count ? m->captures[m->capture_count - 1].headers : 0;
    if (__builtin_add_overflow(other, m->trailing, &other) || other > bytes)
        return fst_fail(err, FST_E_FORMAT,
                        "%s: core:header_bytes and core:trailing_bytes are more than the %" PRIu64
                        " bytes of its data file",
                        m->name, bytes);
    if ((bytes - other) % width)
        return fst_fail(err, FST_E_FORMAT,
                        "%s: its data file has %" PRIu64 " bytes of samples, not whole samples of %zu: cut off",
                        m->name, bytes - other, width);
    *samples = (bytes - other) / width;
    return FST_OK;
}

fst_status fst__sigmf_check_data(fst__sigmf *m, uint64_t bytes, uint64_t *samples, fst_error *err)
{
    uint64_t all = 0;
    fst_status s = count_samples(m, bytes, &all, err);
    if (s)
        return s;
    for (size_t i = 0; i < m->count; i++) {
        fst__sigmf_note *n = &m->notes[i];
        if (!n->has_count && n->start <= all) {
            size_t k = captures_until(m, n->start);
            uint64_t end = k < m->capture_count && m->captures[k].start < all ? m->captures[k].start : all;
            n->count = end - n->start;
        }
        if (n->start > all || n->count > all - n->start)
            return fst_fail(err, FST_E_FORMAT,
                            "%s: annotation %zu (samples %" PRIu64 ", %" PRIu64
                            " of them) goes past the end of its data file, which has %" PRIu64,
                            m->name, n->index, n->start, n->count, all);
    }
    *samples = all;
    return FST_OK;
}

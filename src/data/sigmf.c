/*
 * SigMF recordings as a source: each annotation is cut into windows of one length, labelled with its core:label.
 * Windows of one annotation, or of annotations with the same fedstill:burst, are one group. A folder of recordings is
 * one source, and so is an archive. Recordings are found in sigmf_find.c, metadata parsed in sigmf_meta.c and
 * sigmf_notes.c.
 *
 * Recordings are found and checked first; then the classes are numbered over all of them; then windows are read,
 * converted and copied one by one, as many as `limit` wants. Memory is that of the windows, and of an archive while it
 * is read.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "sigmf.h"

static const fst_source_vtable vtable = {"sigmf", fst__held_get, fst__held_close};

enum { BLOCK = 1 << 16, MAX_WIDTH = 16 };
/* Windows may overlap, for several signals at a time, but not so often that a small file becomes a large memory. */
enum { MAX_OVERLAP = 64, ALWAYS_SAMPLES = 8 << 20 };

static void job_release(struct fst__sigmf_job *j)
{
    fst__sigmf_release_recordings(j);
    fst_free(j->index);
    fst_free(j->picks.index);
}

/* ---- labels --------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct fst__sigmf_named *)a)->name, ((const struct fst__sigmf_named *)b)->name);
}

/* The different labels of the recordings, sorted; n becomes how many. */
static fst_status different_labels(const struct fst__sigmf_job *j, const char ***out, size_t *n, fst_error *err)
{
    size_t all = 0, k = 0, kept = 0;
    for (size_t r = 0; r < j->count; r++)
        all += j->all[r].meta.count;
    const char **labels = fst_alloc(all * sizeof *labels);
    if (!labels)
        return fst_fail_memory(err, all * sizeof *labels);
    for (size_t r = 0; r < j->count; r++)
        for (size_t i = 0; i < j->all[r].meta.count; i++)
            labels[k++] = j->all[r].meta.notes[i].label;
    qsort(labels, all, sizeof *labels, by_text);
    for (size_t i = 0; i < all; i++)
        if (i == 0 || strcmp(labels[i], labels[kept - 1]) != 0)
            labels[kept++] = labels[i];
    *out = labels;
    *n = kept;
    return FST_OK;
}

/* The recordings' own order, where all have the same one; NULL otherwise. */
static const json_t *own_order(const struct fst__sigmf_job *j)
{
    json_t *first = j->all[0].meta.classes;
    for (size_t r = 1; r < j->count; r++)
        if (!first || !j->all[r].meta.classes || !json_equal(first, j->all[r].meta.classes))
            return NULL;
    return first;
}

/* Names of classes, and the index over them, from `n` names in the order of labels. */
static fst_status keep_names(struct fst__sigmf_job *j, const char *const *names, size_t n, fst_error *err)
{
    char ***kept = &j->held->base.class_names;
    if (n > FST_MAX_CLASSES)
        return fst_fail(err, FST_E_LIMIT, "%s: %zu different labels, at most %d are read", j->name, n, FST_MAX_CLASSES);
    j->index = fst_alloc(n * sizeof *j->index);
    if (!j->index)
        return fst_fail_memory(err, n * sizeof *j->index);
    fst_status s = fst__names_copy(kept, (char *const *)(uintptr_t)names, n, err);
    for (size_t i = 0; !s && i < n; i++)
        j->index[i] = (struct fst__sigmf_named){(*kept)[i], (int32_t)i};
    if (!s)
        qsort(j->index, n, sizeof *j->index, by_name);
    j->classes = n;
    return s;
}

/* Classes are numbered as fedstill:classes says, or else by name. */
static fst_status gather_labels(struct fst__sigmf_job *j, fst_error *err)
{
    const char **labels = NULL;
    size_t n = 0;
    const json_t *order = own_order(j);
    fst_status s = FST_OK;
    if (!order) {
        s = different_labels(j, &labels, &n, err);
    } else {
        n = json_array_size(order);
        labels = fst_alloc(n * sizeof *labels);
        for (size_t i = 0; labels && i < n; i++)
            labels[i] = json_string_value(json_array_get(order, i));
        if (!labels)
            s = fst_fail_memory(err, n * sizeof *labels);
    }
    if (!s)
        s = keep_names(j, labels, n, err);
    fst_free(labels);
    return s;
}

static fst_status class_of(const struct fst__sigmf_job *j, const fst__sigmf *m, size_t i, int32_t *out, fst_error *err)
{
    struct fst__sigmf_named wanted = {m->notes[i].label, 0};
    const struct fst__sigmf_named *hit = bsearch(&wanted, j->index, j->classes, sizeof wanted, by_name);
    if (!hit)
        return fst_fail(err, FST_E_MISMATCH, "%s: annotation %zu: label \"%.64s\" is not in %s", m->name,
                        m->notes[i].index, wanted.name,
                        m->classes ? "fedstill:classes, or not among those of training" : "the training recordings");
    *out = hit->class;
    return FST_OK;
}

/* ---- windows -------------------------------------------------------------------------------- */

static fst_status check_note(const fst__sigmf *m, const fst__sigmf_note *n, uint64_t window, fst_error *err)
{
    if (n->count == 0)
        return fst_fail(err, FST_E_FORMAT, "%s: annotation %zu has no samples (core:sample_count 0)", m->name,
                        n->index);
    if (n->count < window)
        return fst_fail(err, FST_E_FORMAT,
                        "%s: annotation %zu has %" PRIu64 " samples, fewer than a window of %" PRIu64, m->name,
                        n->index, n->count, window);
    return FST_OK;
}

/* A few bytes of metadata can name the same samples over and over. */
static fst_status check_overlap(const struct fst__sigmf_job *j, uint64_t total, uint64_t window, fst_error *err)
{
    uint64_t samples = 0, wanted = 0;
    for (size_t r = 0; r < j->count; r++)
        samples += j->all[r].samples;
    bool huge = __builtin_mul_overflow(fst__limited(total, j->limit), window, &wanted);
    if (!huge && (wanted <= ALWAYS_SAMPLES || wanted / MAX_OVERLAP <= samples))
        return FST_OK;
    return fst_fail(
        err, FST_E_LIMIT,
        "%s: annotations overlap: %" PRIu64 " windows of %" PRIu64 " samples out of %" PRIu64
        " samples, each more than %d times on average; fewer windows are read with data.limit in a task file, "
        "or by fedstill data import --limit",
        j->name, fst__limited(total, j->limit), window, samples, MAX_OVERLAP);
}

/* The window's length, and how many there are. */
static fst_status settle_window(struct fst__sigmf_job *j, uint64_t *total, fst_error *err)
{
    bool chosen = j->window > 0;
    uint64_t window = chosen ? j->window : j->all[0].meta.notes[0].count, sum = 0;
    for (size_t r = 0; r < j->count; r++)
        for (size_t i = 0; i < j->all[r].meta.count; i++) {
            const fst__sigmf *m = &j->all[r].meta;
            const fst__sigmf_note *n = &m->notes[i];
            if (!chosen && n->count != window)
                return fst_fail(err, FST_E_CONFIG,
                                "%s: annotation %zu has %" PRIu64 " samples, others have %" PRIu64
                                ": choose a window (option window) that all can be cut into",
                                m->name, n->index, n->count, window);
            fst_status s = check_note(m, n, window, err);
            if (s)
                return s;
            sum += n->count / window;
        }
    if (window > FST_SOURCE_MAX_BYTES / 8)
        return fst_fail(err, FST_E_LIMIT, "%s: a window of %" PRIu64 " samples is too long", j->name, window);
    j->window = (size_t)window;
    *total = sum;
    return check_overlap(j, sum, window, err);
}

static fst_status read_raw(const struct fst__recording *r, int fd, uint64_t at, unsigned char *dst, size_t len,
                           fst_error *err)
{
    if (r->memory) {
        memcpy(dst, r->memory + at, len);
        return FST_OK;
    }
    while (len) {
        ssize_t n = pread(fd, dst, len, (off_t)at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return fst_fail_errno(err, "%s", r->data_path);
        if (n == 0)
            return fst_fail(err, FST_E_FORMAT, "%s: the file became shorter while it was read", r->data_path);
        dst += n;
        at += (uint64_t)n;
        len -= (size_t)n;
    }
    return FST_OK;
}

/* `count` samples, which headers may interrupt. */
static fst_status read_samples(const struct fst__recording *r, int fd, uint64_t start, uint64_t count,
                               unsigned char *dst, fst_error *err)
{
    size_t width = fst__sigmf_width(r->meta.type);
    fst_status s = FST_OK;
    while (!s && count) {
        uint64_t run = 0, at = fst__sigmf_place(&r->meta, start, &run);
        run = run < count ? run : count;
        s = read_raw(r, fd, at, dst, (size_t)run * width, err);
        dst += (size_t)run * width;
        start += run;
        count -= run;
    }
    return s;
}

static fst_status check_digest(const struct fst__recording *r, int fd, fst_error *err)
{
    crypto_hash_sha512_state state;
    unsigned char block[BLOCK], digest[64];
    char hex[129];
    if (!r->meta.sha512)
        return FST_OK;
    crypto_hash_sha512_init(&state);
    for (uint64_t at = 0; at < r->bytes;) {
        size_t n = r->bytes - at < BLOCK ? (size_t)(r->bytes - at) : BLOCK;
        fst_status s = read_raw(r, fd, at, block, n, err);
        if (s)
            return s;
        crypto_hash_sha512_update(&state, block, n);
        at += n;
    }
    crypto_hash_sha512_final(&state, digest);
    sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
    if (strcasecmp(hex, r->meta.sha512) != 0)
        return fst_fail(err, FST_E_MISMATCH,
                        "%s: core:sha512 is %.16s..., its data file has %.16s...: damaged or changed", r->meta.name,
                        r->meta.sha512, hex);
    return FST_OK;
}

/* Where the next window goes, which window of all it is, and the number for the next group. */
struct cursor {
    size_t at;
    uint64_t seen;
    int64_t group_base, group_next;
};

static fst_status check_window(const struct fst__recording *r, size_t note, uint64_t start, const float *x,
                               size_t window, fst_error *err)
{
    for (size_t k = 0; k < 2 * window; k++)
        if (!isfinite(x[k]))
            return fst_fail(err, FST_E_NUMERIC,
                            "%s: sample %" PRIu64 " (annotation %zu): %s is %f; finite numbers are needed",
                            r->memory ? r->meta.name : r->data_path, start + k % window, note, k < window ? "I" : "Q",
                            (double)x[k]);
    return FST_OK;
}

static fst_status take_note(struct fst__sigmf_job *j, const struct fst__recording *r, int fd, size_t i,
                            unsigned char *raw, struct cursor *c, fst_error *err)
{
    const fst__sigmf_note *n = &r->meta.notes[i];
    size_t count = j->held->base.count;
    int32_t class = 0;
    int64_t group = n->has_burst ? c->group_base + n->burst : c->group_next++;
    fst_status s = class_of(j, &r->meta, i, &class, err);
    for (uint64_t w = 0; !s && w < n->count / j->window && c->at < count; w++) {
        if (fst__picked(&j->picks, c->at) != c->seen++)
            continue;
        s = read_samples(r, fd, n->start + w * j->window, j->window, raw, err);
        if (s)
            break;
        float *x = (float *)(void *)j->held->own_data + c->at * 2 * j->window;
        fst__sigmf_convert(r->meta.type, raw, j->window, x);
        s = check_window(r, n->index, n->start + w * j->window, x, j->window, err);
        j->held->own_labels[c->at] = class;
        j->held->own_snr[c->at] = n->snr;
        j->held->own_group[c->at] = group;
        c->at++;
    }
    return s;
}

/* Bursts are numbered within a recording: those of the next one count on from the last number used. */
static fst_status take_recording(struct fst__sigmf_job *j, const struct fst__recording *r, unsigned char *raw,
                                 struct cursor *c, fst_error *err)
{
    int64_t most = -1;
    int fd = -1;
    if (!r->memory && (fd = open(r->data_path, O_RDONLY | O_NONBLOCK | O_CLOEXEC)) < 0)
        return fst_fail_errno(err, "%s", r->data_path);
    for (size_t i = 0; i < r->meta.count; i++)
        if (r->meta.notes[i].has_burst && r->meta.notes[i].burst > most)
            most = r->meta.notes[i].burst;
    c->group_base = c->group_next;
    c->group_next += most + 1;
    fst_status s = check_digest(r, fd, err);
    for (size_t i = 0; !s && i < r->meta.count && c->at < j->held->base.count; i++)
        s = take_note(j, r, fd, i, raw, c, err);
    if (fd >= 0)
        close(fd);
    return s;
}

/* The labels are known before a window is read: with a limit only those that it leaves are. */
static fst_status choose_windows(struct fst__sigmf_job *j, uint64_t total, fst_error *err)
{
    size_t at = 0;
    if (total > UINT32_MAX)
        return fst_fail(err, FST_E_LIMIT, "%s: %" PRIu64 " windows are more than can be counted", j->name, total);
    int32_t *labels = fst_alloc((size_t)total * sizeof *labels);
    fst_status s = labels ? FST_OK : fst_fail_memory(err, (size_t)total * sizeof *labels);
    for (size_t r = 0; !s && r < j->count; r++)
        for (size_t i = 0; !s && i < j->all[r].meta.count; i++) {
            int32_t class = 0;
            s = class_of(j, &j->all[r].meta, i, &class, err);
            for (uint64_t w = 0; !s && w < j->all[r].meta.notes[i].count / j->window; w++)
                labels[at++] = class;
        }
    if (!s)
        s = fst__pick(&j->picks, j->name, labels, (size_t)total, j->limit, err);
    fst_free(labels);
    return s;
}

static fst_status reserve(struct fst__sigmf_job *j, fst_error *err)
{
    fst_shape shape = FST_SHAPE(2, (int64_t)j->window);
    fst__held *h = j->held;
    fst_status s = fst__held_reserve(h, FST_F32, &shape, j->picks.count, err);
    if (s)
        return s;
    h->own_labels = fst_alloc(h->base.count * sizeof *h->own_labels);
    h->own_snr = fst_alloc(h->base.count * sizeof *h->own_snr);
    h->own_group = fst_alloc(h->base.count * sizeof *h->own_group);
    if (!h->own_labels || !h->own_snr || !h->own_group)
        return fst_fail_memory(err, h->base.count * 16);
    return FST_OK;
}

static void forget_unknown_snr(fst__held *h)
{
    for (size_t i = 0; i < h->base.count; i++)
        if (!isnan(h->own_snr[i]))
            return;
    fst_free(h->own_snr);
    h->own_snr = NULL;
}

static fst_status take_all(struct fst__sigmf_job *j, fst_source **out, fst_error *err)
{
    uint64_t total = 0;
    struct cursor c = {0};
    unsigned char *raw = NULL;
    fst_status s = settle_window(j, &total, err);
    if (!s)
        s = choose_windows(j, total, err);
    if (!s)
        s = reserve(j, err);
    if (!s && !(raw = fst_alloc(j->window * MAX_WIDTH)))
        s = fst_fail_memory(err, j->window * MAX_WIDTH);
    for (size_t r = 0; !s && r < j->count && c.at < j->held->base.count; r++)
        s = take_recording(j, &j->all[r], raw, &c, err);
    fst_free(raw);
    if (s)
        return s;
    forget_unknown_snr(j->held);
    j->held->data = j->held->own_data;
    return fst__held_finish(j->held, j->held->own_labels, j->held->base.count, (int)j->classes, out, err);
}

/* ---- opening -------------------------------------------------------------------------------- */

/* A folder with folders train and test (or val) has a split; its classes are those of train. */
static fst_status add_split(struct fst__sigmf_job *j, const char *path, const char *split, fst_error *err)
{
    char *train = fst_path_join(path, "train"), *own = fst_path_join(path, split);
    fst_status s = train && own ? FST_OK : fst_fail_memory(err, strlen(path));
    bool parts = !s && fst__is_folder(train);
    if (!s && strcmp(split, "train") && !(parts && fst__is_folder(own)))
        s = fst_fail(err, fst_file_exists(own) ? FST_E_IO : FST_E_ABSENT,
                     "%s: a %s split needs folders train and %s here", path, split, split);
    if (!s)
        s = fst__sigmf_add_folder(j, parts ? train : path, err);
    if (!s)
        s = fst__sigmf_keep_labelled(j, err);
    if (!s)
        s = gather_labels(j, err);
    if (!s && strcmp(split, "train")) {
        fst__sigmf_release_recordings(j);
        s = fst__sigmf_add_folder(j, own, err);
        if (!s)
            s = fst__sigmf_keep_labelled(j, err);
    }
    fst_free(train);
    fst_free(own);
    return s;
}

static fst_status add_file(struct fst__sigmf_job *j, const char *path, const char *split, fst_error *err)
{
    if (strcmp(split, "train"))
        return fst_fail(err, FST_E_ABSENT, "%s: one %s has no %s split", path,
                        fst__sigmf_is_archive(path) ? "archive" : "recording", split);
    if (!fst__ends_with(path, FST__SIGMF_META) && !fst__ends_with(path, FST__SIGMF_DATA) &&
        !fst__sigmf_is_archive(path))
        return fst_fail(err, FST_E_FORMAT, "%s: a file that ends in %s, %s, %s or .tar is needed, or a folder of such",
                        path, FST__SIGMF_META, FST__SIGMF_DATA, FST__SIGMF_ARCHIVE);
    bool archive = fst__sigmf_is_archive(path);
    char *meta = archive ? NULL : fst__sigmf_sibling(path, FST__SIGMF_META);
    fst_status s = archive ? fst__sigmf_add_archive(j, path, err)
                   : meta  ? fst__sigmf_add_recording(j, meta, err)
                           : fst_fail_memory(err, strlen(path));
    fst_free(meta);
    if (!s)
        s = fst__sigmf_keep_labelled(j, err);
    return s ? s : gather_labels(j, err);
}

static fst_status open_sigmf(fst_source **out, const fst_source_spec *spec, fst_error *err)
{
    struct fst__sigmf_job j = {.name = spec->path, .window = spec->window, .limit = spec->limit};
    fst_status s = fst__held_new(&j.held, &vtable, spec->path, err);
    if (s)
        return s;
    s = fst__is_folder(spec->path) ? add_split(&j, spec->path, spec->split, err)
                                   : add_file(&j, spec->path, spec->split, err);
    if (!s && spec->classes && (size_t)spec->classes != j.classes)
        s = fst_fail(err, FST_E_CONFIG, "%s: has %zu classes, but %d were asked for", spec->path, j.classes,
                     spec->classes);
    if (!s)
        s = take_all(&j, out, err);
    if (s)
        fst__held_close(&j.held->base);
    job_release(&j);
    return s;
}

/* What was added becomes a source; j is released. */
static fst_status finish(struct fst__sigmf_job *j, fst_status s, fst_source **out, fst_error *err)
{
    if (!s)
        s = fst__sigmf_keep_labelled(j, err);
    if (!s)
        s = gather_labels(j, err);
    if (!s)
        s = take_all(j, out, err);
    if (s)
        fst__held_close(&j->held->base);
    job_release(j);
    return s;
}

fst_status fst__sigmf_read_memory(fst_source **out, const char *name, const char *meta, size_t meta_len,
                                  const void *data, size_t data_len, size_t window, fst_error *err)
{
    static const unsigned char nothing[1];
    struct fst__sigmf_job j = {.name = name, .window = window};
    fst_status s = fst__held_new(&j.held, &vtable, name, err);
    if (s)
        return s;
    s = fst__sigmf_room(&j, err);
    if (!s)
        s = fst__sigmf_parse(&j.all[0].meta, name, meta, meta_len, err);
    if (!s)
        s = fst__sigmf_check_data(&j.all[0].meta, data_len, &j.all[0].samples, err);
    if (!s) {
        j.all[0].memory = data_len ? data : nothing;
        j.all[0].bytes = data_len;
    }
    return finish(&j, s, out, err);
}

fst_status fst__sigmf_read_archive(fst_source **out, const char *name, const void *data, size_t len, size_t window,
                                   fst_error *err)
{
    fst__archive a = {0};
    struct fst__sigmf_job j = {.name = name, .window = window};
    fst_status s = fst__held_new(&j.held, &vtable, name, err);
    if (s)
        return s;
    s = fst__archive_read_memory(&a, name, data, len, err);
    if (!s)
        s = fst__sigmf_add_members(&j, &a, name, err);
    fst__archive_release(&a);
    return finish(&j, s, out, err);
}

const fst__format fst__format_sigmf = {"sigmf", fst__sigmf_probe, open_sigmf, true};

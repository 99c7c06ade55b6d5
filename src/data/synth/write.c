/*
 * Windows to files: safetensors, npz, SigMF. Samples go out a few MB at a time, labels are kept until the end; a file
 * has its name only when it is whole. Times are not written: the same call gives the same bytes.
 */
#define _GNU_SOURCE
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>
#include <zlib.h>

#include "synth_private.h"

#define FORMAT "fedstill-data-1"
enum { CHUNK_BYTES = 4 << 20, NAME_BYTES = 32, ZIP_MEMBERS = 5 };

struct writer {
    const fst_synth *g;
    fst_pool *pool;
    uint64_t first, count;
    size_t window, chunk; /* samples; windows at a time */
    fst_synth_progress_fn progress;
    void *ctx;
    const char *path;
    float *x; /* chunk windows */
    int32_t *labels;
    float *snr;
    int64_t *burst;
    fst_atomic_file file, data; /* data: SigMF's other file */
};

static void writer_release(struct writer *w)
{
    fst_atomic_abort(&w->file);
    fst_atomic_abort(&w->data);
    fst_free(w->x);
    fst_free(w->labels);
    fst_free(w->snr);
    fst_free(w->burst);
}

static fst_status writer_init(struct writer *w, fst_error *err)
{
    size_t each = 2 * w->window * sizeof(float), n = (size_t)w->count;
    w->chunk = CHUNK_BYTES / each > 0 ? CHUNK_BYTES / each : 1;
    if (w->count == 0 || w->count > INT64_MAX / each)
        return fst_fail(err, FST_E_CONFIG,
                        "%" PRIu64 " windows; at least one, and no more than a file holds, are needed", w->count);
    w->x = fst_alloc(w->chunk * each);
    w->labels = fst_alloc(n * sizeof *w->labels);
    w->snr = fst_alloc(n * sizeof *w->snr);
    w->burst = fst_alloc(n * sizeof *w->burst);
    return w->x && w->labels && w->snr && w->burst ? FST_OK : fst_fail_memory(err, w->chunk * each + n * 16);
}

typedef fst_status (*put_fn)(struct writer *w, void *ctx, size_t windows, fst_error *err);

/* All windows, chunk by chunk, to put, which may change w->x. */
static fst_status each_chunk(struct writer *w, put_fn put, void *ctx, fst_error *err)
{
    fst_status s = FST_OK;
    for (uint64_t at = 0; !s && at < w->count;) {
        size_t n = w->count - at < w->chunk ? (size_t)(w->count - at) : w->chunk;
        if (w->progress && !w->progress(w->ctx, at, w->count))
            return fst_fail(err, FST_E_CANCELLED, "%s: stopped", w->path);
        s = fst_synth_fill(w->g, w->pool, w->first + at, n, w->x, w->labels + at, w->snr + at, w->burst + at, err);
        if (!s)
            s = put(w, ctx, n, err);
        at += n;
    }
    if (!s && w->progress && !w->progress(w->ctx, w->count, w->count))
        return fst_fail(err, FST_E_CANCELLED, "%s: stopped", w->path);
    return s;
}

static fst_status put_plain(struct writer *w, void *ctx, size_t windows, fst_error *err)
{
    (void)ctx;
    return fst_atomic_write(&w->file, w->x, windows * 2 * w->window * sizeof *w->x, err);
}

/* ---- safetensors ---------------------------------------------------------------------------------- */

/* Text inside a JSON string that itself stands in a JSON string, when `quotes` are escaped. All of it is ASCII. */
static fst_status put_text(fst_buf *out, const char *text, bool escape, fst_error *err)
{
    fst_status s = FST_OK;
    for (; !s && *text; text++)
        s = *text == '"' && escape ? fst_buf_append(out, "\\\"", 2, err) : fst_buf_append(out, text, 1, err);
    return s;
}

static fst_status class_list(const fst_synth *g, fst_buf *out, fst_error *err)
{
    fst_status s = FST_OK;
    for (int i = 0; !s && i < fst_synth_classes(g); i++)
        s = fst_buf_printf(out, err, "%s\"%s\"", i ? "," : "[", fst_synth_class_name(g, i));
    return s ? s : fst_buf_append(out, "]", 1, err);
}

/* Everything that decides the signals besides seed and parameters' groups. */
static fst_status parameters(const struct writer *w, fst_buf *out, fst_error *err)
{
    const fst_synth_spec *spec = fst_synth_spec_of(w->g);
    fst_status s = fst_buf_printf(out, err, "{\"windows_per_burst\":%d,\"snr_db\":[%.17g,%.17g],\"first\":%" PRIu64 ",",
                                  spec->windows_per_burst, spec->snr_min, spec->snr_max, w->first);
    fst_buf groups = {0};
    if (!s)
        s = fst_synth_params_json(&spec->params, spec->kind, &groups, err);
    if (!s)
        s = fst_buf_printf(out, err, "%s", groups.data + 1);
    fst_buf_release(&groups);
    return s;
}

static fst_status metadata(const struct writer *w, fst_buf *out, fst_error *err)
{
    const fst_synth_spec *spec = fst_synth_spec_of(w->g);
    fst_buf text = {0};
    fst_status s = class_list(w->g, &text, err);
    if (!s)
        s = fst_buf_printf(out, err, "{\"__metadata__\":{\"classes\":\"");
    if (!s)
        s = put_text(out, text.data, true, err);
    fst_buf_release(&text);
    if (!s)
        s = fst_buf_printf(out, err, "\",\"format\":\"" FORMAT "\",\"generator\":\"%s\",\"parameters\":\"",
                           fst_synth_kind_name(spec->kind));
    if (!s)
        s = parameters(w, &text, err);
    if (!s)
        s = put_text(out, text.data, true, err);
    fst_buf_release(&text);
    return s ? s
             : fst_buf_printf(out, err, "\",\"sample_rate\":\"%.17g\",\"seed\":\"%" PRIu64 "\"}",
                              fst_synth_sample_rate(w->g), spec->seed);
}

static fst_status header(const struct writer *w, fst_buf *out, fst_error *err)
{
    uint64_t n = w->count, at[5] = {0, 2 * w->window * 4 * n};
    at[2] = at[1] + 8 * n;
    at[3] = at[2] + 4 * n;
    at[4] = at[3] + 4 * n;
    fst_status s = metadata(w, out, err);
    if (!s)
        s = fst_buf_printf(out, err,
                           ",\"x\":{\"dtype\":\"F32\",\"shape\":[%" PRIu64 ",2,%zu],\"data_offsets\":[0,%" PRIu64 "]}"
                           ",\"burst\":{\"dtype\":\"I64\",\"shape\":[%" PRIu64 "],\"data_offsets\":[%" PRIu64
                           ",%" PRIu64 "]}",
                           n, w->window, at[1], n, at[1], at[2]);
    if (!s)
        s = fst_buf_printf(
            out, err,
            ",\"snr\":{\"dtype\":\"F32\",\"shape\":[%" PRIu64 "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}"
            ",\"y\":{\"dtype\":\"I32\",\"shape\":[%" PRIu64 "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}}",
            n, at[2], at[3], n, at[3], at[4]);
    while (!s && out->len % 8)
        s = fst_buf_append(out, " ", 1, err);
    return s;
}

static fst_status write_safetensors(struct writer *w, fst_error *err)
{
    fst_buf text = {0};
    size_t n = (size_t)w->count;
    fst_status s = header(w, &text, err);
    uint64_t len = text.len; /* little-endian, as everything here */
    if (!s)
        s = fst_atomic_open(&w->file, w->path, err);
    if (!s)
        s = fst_atomic_write(&w->file, &len, sizeof len, err);
    if (!s)
        s = fst_atomic_write(&w->file, text.data, text.len, err);
    fst_buf_release(&text);
    if (!s)
        s = each_chunk(w, put_plain, NULL, err);
    if (!s)
        s = fst_atomic_write(&w->file, w->burst, n * sizeof *w->burst, err);
    if (!s)
        s = fst_atomic_write(&w->file, w->snr, n * sizeof *w->snr, err);
    if (!s)
        s = fst_atomic_write(&w->file, w->labels, n * sizeof *w->labels, err);
    return s ? s : fst_atomic_commit(&w->file, err);
}

/* ---- npz -------------------------------------------------------------------------------------------- */

/* A zip archive of stored members (APPNOTE 6.3, without zip64: 4 GiB in all). The checksum of a member goes
 * into its header when the member is written. */
struct zip {
    uint64_t at; /* bytes written */
    struct {
        const char *name;
        uint32_t crc, size, offset;
    } member[ZIP_MEMBERS];
    int count;
};

static void put16(unsigned char *p, unsigned v)
{
    p[0] = (unsigned char)v;
    p[1] = (unsigned char)(v >> 8);
}

static void put32(unsigned char *p, uint32_t v)
{
    put16(p, v & 0xFFFF);
    put16(p + 2, v >> 16);
}

static fst_status zip_put(struct writer *w, struct zip *z, const void *data, size_t len, fst_error *err)
{
    const unsigned char *p = data;
    for (size_t left = len; left;) {
        uInt part = left < 1 << 30 ? (uInt)left : 1u << 30;
        z->member[z->count].crc = (uint32_t)crc32(z->member[z->count].crc, p, part);
        p += part;
        left -= part;
    }
    z->at += len;
    return fst_atomic_write(&w->file, data, len, err);
}

/* The fields that local and central headers share, from version to the extra field's length: 26 bytes. Times are
 * 1980-01-01. */
static void zip_common(unsigned char h[26], uint32_t crc, uint32_t size, const char *name)
{
    memset(h, 0, 26);
    put16(h, 20);
    put16(h + 8, 1 | 1 << 5);
    put32(h + 10, crc);
    put32(h + 14, size);
    put32(h + 18, size);
    put16(h + 22, (unsigned)strlen(name));
}

static fst_status zip_begin(struct writer *w, struct zip *z, const char *name, uint64_t bytes, const char *descr,
                            const char *shape, fst_error *err)
{
    unsigned char local[30];
    char text[256], npy[320];
    /* magic, version 1.0, header length, then a dictionary padded so that data begin at a multiple of 64 */
    int n = snprintf(text, sizeof text, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", descr, shape);
    size_t all = (10 + (size_t)n + 1 + 63) / 64 * 64;
    memcpy(npy, "\x93NUMPY\x01\x00", 8);
    put16((unsigned char *)npy + 8, (unsigned)(all - 10));
    memset(npy + 10, ' ', all - 10);
    memcpy(npy + 10, text, (size_t)n);
    npy[all - 1] = '\n';
    if (z->at + bytes + all + 4096 > UINT32_MAX)
        return fst_fail(err, FST_E_LIMIT, "%s: an npz holds at most 4 GiB; write safetensors", w->path);
    z->member[z->count].name = name;
    z->member[z->count].offset = (uint32_t)z->at;
    z->member[z->count].size = (uint32_t)(bytes + all);
    put32(local, 0x04034B50);
    zip_common(local + 4, 0, z->member[z->count].size, name);
    fst_status s = fst_atomic_write(&w->file, local, sizeof local, err);
    if (!s)
        s = fst_atomic_write(&w->file, name, strlen(name), err);
    z->at += sizeof local + strlen(name);
    z->member[z->count].crc = (uint32_t)crc32(0, NULL, 0);
    return s ? s : zip_put(w, z, npy, all, err);
}

static fst_status zip_end(struct writer *w, struct zip *z, fst_error *err)
{
    unsigned char crc[4];
    put32(crc, z->member[z->count].crc);
    ssize_t n = pwrite(w->file.fd, crc, sizeof crc, (off_t)z->member[z->count].offset + 14);
    z->count++;
    return n == sizeof crc ? FST_OK : fst_fail_errno(err, "cannot write %s", w->path);
}

static fst_status zip_finish(struct writer *w, struct zip *z, fst_error *err)
{
    uint64_t begin = z->at;
    unsigned char end[22] = {0};
    fst_status s = FST_OK;
    for (int i = 0; !s && i < z->count; i++) {
        unsigned char h[46] = {0};
        const char *name = z->member[i].name;
        put32(h, 0x02014B50);
        put16(h + 4, 20);
        zip_common(h + 6, z->member[i].crc, z->member[i].size, name);
        put32(h + 42, z->member[i].offset);
        s = fst_atomic_write(&w->file, h, sizeof h, err);
        if (!s)
            s = fst_atomic_write(&w->file, name, strlen(name), err);
        z->at += sizeof h + strlen(name);
    }
    put32(end, 0x06054B50);
    put16(end + 8, (unsigned)z->count);
    put16(end + 10, (unsigned)z->count);
    put32(end + 12, (uint32_t)(z->at - begin));
    put32(end + 16, (uint32_t)begin);
    return s ? s : fst_atomic_write(&w->file, end, sizeof end, err);
}

static fst_status put_member(struct writer *w, void *ctx, size_t windows, fst_error *err)
{
    return zip_put(w, ctx, w->x, windows * 2 * w->window * sizeof *w->x, err);
}

static fst_status zip_array(struct writer *w, struct zip *z, const char *name, const char *descr, uint64_t count,
                            const void *data, size_t bytes, fst_error *err)
{
    char shape[32];
    snprintf(shape, sizeof shape, "%" PRIu64 ",", count);
    fst_status s = zip_begin(w, z, name, bytes, descr, shape, err);
    if (!s)
        s = zip_put(w, z, data, bytes, err);
    return s ? s : zip_end(w, z, err);
}

static fst_status write_npz(struct writer *w, fst_error *err)
{
    struct zip z = {0};
    char shape[64], names[16][NAME_BYTES] = {{0}};
    size_t n = (size_t)w->count, classes = (size_t)fst_synth_classes(w->g);
    for (size_t i = 0; i < classes; i++)
        snprintf(names[i], NAME_BYTES, "%s", fst_synth_class_name(w->g, (int)i));
    snprintf(shape, sizeof shape, "%zu, 2, %zu", n, w->window);
    fst_status s = fst_atomic_open(&w->file, w->path, err);
    if (!s)
        s = zip_begin(w, &z, "x.npy", w->count * 2 * w->window * sizeof(float), "<f4", shape, err);
    if (!s)
        s = each_chunk(w, put_member, &z, err);
    if (!s)
        s = zip_end(w, &z, err);
    if (!s)
        s = zip_array(w, &z, "y.npy", "<i4", n, w->labels, n * sizeof *w->labels, err);
    if (!s)
        s = zip_array(w, &z, "snr.npy", "<f4", n, w->snr, n * sizeof *w->snr, err);
    if (!s)
        s = zip_array(w, &z, "burst.npy", "<i8", n, w->burst, n * sizeof *w->burst, err);
    if (!s)
        s = zip_array(w, &z, "classes.npy", "|S32", classes, names, classes * NAME_BYTES, err);
    if (!s)
        s = zip_finish(w, &z, err);
    return s ? s : fst_atomic_commit(&w->file, err);
}

/* ---- SigMF -------------------------------------------------------------------------------------------- */

struct pairs {
    float *x; /* a window of them */
    crypto_hash_sha512_state sha;
    char digest[129];
};

/* Planes to pairs, window by window. */
static fst_status put_pairs(struct writer *w, void *ctx, size_t windows, fst_error *err)
{
    struct pairs *p = ctx;
    float *pairs = p->x;
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < windows; i++) {
        const float *x = w->x + i * 2 * w->window;
        for (size_t k = 0; k < w->window; k++) {
            pairs[2 * k] = x[k];
            pairs[2 * k + 1] = x[w->window + k];
        }
        crypto_hash_sha512_update(&p->sha, (const unsigned char *)pairs, 2 * w->window * sizeof *pairs);
        s = fst_atomic_write(&w->file, pairs, 2 * w->window * sizeof *pairs, err);
    }
    return s;
}

static fst_status sigmf_global(const struct writer *w, const char *digest, fst_buf *out, fst_error *err)
{
    const fst_synth_spec *spec = fst_synth_spec_of(w->g);
    fst_status s = fst_buf_printf(
        out, err,
        "{\"global\":{\"core:datatype\":\"cf32_le\",\"core:version\":\"1.2.0\",\"core:sample_rate\":%.17g,\"core:"
        "sha512\":\"%s\","
        "\"core:generator\":\"fedstill %s\",\"core:description\":\"synthetic %s\",\"core:extensions\":[{\"name\":"
        "\"fedstill\",\"version\":\"1.0.0\",\"optional\":true}],\"fedstill:seed\":\"%" PRIu64
        "\",\"fedstill:classes\":",
        fst_synth_sample_rate(w->g), digest, FST_VERSION, fst_synth_kind_name(spec->kind), spec->seed);
    if (!s)
        s = class_list(w->g, out, err);
    if (!s)
        s = fst_buf_printf(out, err, ",\"fedstill:parameters\":");
    if (!s)
        s = parameters(w, out, err);
    return s ? s : fst_buf_printf(out, err, "},\n\"captures\":[{\"core:sample_start\":0}],\n\"annotations\":[");
}

/* The digest ties this file to the data: one of them beside another's is refused when it is read. */
static fst_status write_meta(struct writer *w, const char *path, const char *digest, fst_error *err)
{
    fst_buf text = {0};
    fst_status s = sigmf_global(w, digest, &text, err);
    if (!s)
        s = fst_atomic_open(&w->file, path, err);
    for (size_t i = 0; !s && i < w->count; i++) {
        s = fst_buf_printf(&text, err,
                           "%s\n{\"core:sample_start\":%zu,\"core:sample_count\":%zu,\"core:label\":\"%s\","
                           "\"fedstill:snr_db\":%.9g,\"fedstill:burst\":%" PRId64 "}",
                           i ? "," : "", i * w->window, w->window, fst_synth_class_name(w->g, w->labels[i]),
                           (double)w->snr[i], w->burst[i]);
        if (!s && text.len > CHUNK_BYTES / 4) {
            s = fst_atomic_write(&w->file, text.data, text.len, err);
            text.len = 0;
        }
    }
    if (!s)
        s = fst_buf_printf(&text, err, "\n]}\n");
    if (!s)
        s = fst_atomic_write(&w->file, text.data, text.len, err);
    fst_buf_release(&text);
    return s;
}

static bool ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n > m && !strcasecmp(s + n - m, suffix);
}

/* PATH, PATH.sigmf, PATH.sigmf-data and PATH.sigmf-meta all mean the same two files. */
static fst_status sigmf_path(fst_buf *out, const char *path, const char *ending, fst_error *err)
{
    static const char *const endings[] = {".sigmf-meta", ".sigmf-data", ".sigmf"};
    size_t stem = strlen(path);
    for (size_t i = 0; i < 3; i++)
        if (ends_with(path, endings[i])) {
            stem -= strlen(endings[i]);
            break;
        }
    return fst_buf_printf(out, err, "%.*s%s", (int)stem, path, ending);
}

static fst_status write_sigmf(struct writer *w, fst_error *err)
{
    fst_buf data = {0}, meta = {0};
    struct pairs pairs = {.x = fst_alloc(2 * w->window * sizeof *pairs.x)};
    unsigned char digest[crypto_hash_sha512_BYTES];
    fst_status s = pairs.x ? FST_OK : fst_fail_memory(err, 2 * w->window * sizeof *pairs.x);
    crypto_hash_sha512_init(&pairs.sha);
    if (!s)
        s = sigmf_path(&data, w->path, ".sigmf-data", err);
    if (!s)
        s = sigmf_path(&meta, w->path, ".sigmf-meta", err);
    if (!s)
        s = fst_atomic_open(&w->file, data.data, err);
    if (!s)
        s = each_chunk(w, put_pairs, &pairs, err);
    crypto_hash_sha512_final(&pairs.sha, digest);
    sodium_bin2hex(pairs.digest, sizeof pairs.digest, digest, sizeof digest);
    w->data = w->file; /* both are written before either has its name */
    w->file = (fst_atomic_file){0};
    if (!s)
        s = write_meta(w, meta.data, pairs.digest, err);
    if (!s)
        s = fst_atomic_commit(&w->data, err);
    if (!s)
        s = fst_atomic_commit(&w->file, err);
    fst_buf_release(&data);
    fst_buf_release(&meta);
    fst_free(pairs.x);
    return s;
}

/* ---- which one ------------------------------------------------------------------------------------------- */

static const char *const format_names[] = {"safetensors", "npz", "sigmf"};

bool fst_synth_format_parse(const char *name, fst_synth_format *out)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, format_names[i])) {
            *out = (fst_synth_format)i;
            return true;
        }
    return false;
}

bool fst_synth_format_guess(const char *path, fst_synth_format *out)
{
    static const char *const endings[] = {".safetensors", ".npz", ".sigmf", ".sigmf-meta", ".sigmf-data"};
    for (int i = 0; i < 5; i++)
        if (ends_with(path, endings[i])) {
            *out = i < 2 ? (fst_synth_format)i : FST_SYNTH_SIGMF;
            return true;
        }
    return false;
}

bool fst_synth_exists(const char *path, fst_synth_format format)
{
    fst_buf data = {0}, meta = {0};
    if (format != FST_SYNTH_SIGMF)
        return fst_file_exists(path);
    bool there = !sigmf_path(&data, path, ".sigmf-data", NULL) && !sigmf_path(&meta, path, ".sigmf-meta", NULL) &&
                 (fst_file_exists(data.data) || fst_file_exists(meta.data));
    fst_buf_release(&data);
    fst_buf_release(&meta);
    return there;
}

fst_status fst_synth_write(const fst_synth *g, fst_pool *pool, uint64_t first, uint64_t count, const char *path,
                           fst_synth_format format, fst_synth_progress_fn progress, void *ctx, fst_error *err)
{
    struct writer w = {.g = g, .pool = pool, .first = first, .count = count, .progress = progress, .ctx = ctx};
    w.path = path;
    w.window = (size_t)fst_synth_spec_of(g)->params.burst.window;
    fst_status s = writer_init(&w, err);
    if (!s && format == FST_SYNTH_SAFETENSORS)
        s = write_safetensors(&w, err);
    else if (!s && format == FST_SYNTH_NPZ)
        s = write_npz(&w, err);
    else if (!s)
        s = write_sigmf(&w, err);
    writer_release(&w);
    return s;
}

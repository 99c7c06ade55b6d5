/* Manifests, coding, and the bodies of GET and PART. See fedstill/blob.h. */
#include "fedstill/blob.h"

#include <jansson.h>
#include <string.h>
#include <zstd.h>

#include "bytes.h"

enum { SAMPLE = 1 << 20, LEVEL = 1 };
static const char *const codecs[] = {"plain", "zstd"};

static uint32_t parts_of(uint64_t bytes)
{
    return (uint32_t)((bytes + FST_BLOB_PART - 1) / FST_BLOB_PART);
}

/* ---- manifests ---------------------------------------------------------------------------- */

bool fst_blob_manifest_equal(const fst_blob_manifest *a, const fst_blob_manifest *b)
{
    return !strcmp(a->digest, b->digest) && a->bytes == b->bytes && a->raw_bytes == b->raw_bytes &&
           a->codec == b->codec && a->parts == b->parts;
}

fst_status fst_blob_manifest_write(const fst_blob_manifest *m, fst_buf *out, fst_error *err)
{
    return fst_buf_printf(out, err,
                          "{\"blob\": \"%s\", \"bytes\": %llu, \"raw_bytes\": %llu, \"codec\": \"%s\", \"parts\": %lu}",
                          m->digest, (unsigned long long)m->bytes, (unsigned long long)m->raw_bytes, codecs[m->codec],
                          (unsigned long)m->parts);
}

static fst_status read_figures(fst_blob_manifest *m, const json_t *j, fst_error *err)
{
    int64_t bytes, raw, parts;
    const char *digest = json_string_value(json_object_get(j, "blob"));
    const char *codec = json_string_value(json_object_get(j, "codec"));
    unsigned char binary[FST__DIGEST_BYTES];
    if (!digest || strlen(digest) != FST_DIGEST_HEX - 1 || !fst__digest_bytes(digest, binary) || !codec ||
        !fst_json_is_whole(json_object_get(j, "bytes"), &bytes) || bytes < 1 ||
        !fst_json_is_whole(json_object_get(j, "raw_bytes"), &raw) || raw < 1 ||
        !fst_json_is_whole(json_object_get(j, "parts"), &parts))
        return fst_fail(err, FST_E_FORMAT, "this is no manifest of a blob");
    memcpy(m->digest, digest, FST_DIGEST_HEX);
    m->bytes = (uint64_t)bytes;
    m->raw_bytes = (uint64_t)raw;
    m->codec = !strcmp(codec, codecs[FST_BLOB_ZSTD]) ? FST_BLOB_ZSTD : FST_BLOB_PLAIN;
    if (strcmp(codec, codecs[m->codec]))
        return fst_fail(err, FST_E_FORMAT, "a codec that is not known");
    if (m->codec == FST_BLOB_PLAIN && bytes != raw)
        return fst_fail(err, FST_E_FORMAT, "a plain blob has as many bytes as it holds");
    if (m->bytes > FST_BLOB_MAX || m->raw_bytes > FST_BLOB_MAX)
        return fst_fail(err, FST_E_LIMIT, "a blob of %llu bytes", (unsigned long long)m->raw_bytes);
    m->parts = parts_of(m->bytes);
    return parts == (int64_t)m->parts ? FST_OK : fst_fail(err, FST_E_FORMAT, "the parts do not make up the bytes");
}

fst_status fst_blob_manifest_read(fst_blob_manifest *out, const struct json_t *object, uint64_t most, fst_error *err)
{
    fst_blob_manifest m = {.bytes = 0};
    fst_status st = read_figures(&m, object, err);
    if (!st && most && (m.bytes > most || m.raw_bytes > most))
        st = fst_fail(err, FST_E_LIMIT, "a blob of %llu bytes, %llu are expected at most",
                      (unsigned long long)(m.bytes > m.raw_bytes ? m.bytes : m.raw_bytes), (unsigned long long)most);
    if (!st)
        *out = m;
    return st;
}

/* ---- coding ------------------------------------------------------------------------------- */

static bool shrinks(const void *raw, size_t len)
{
    size_t n = len < SAMPLE ? len : SAMPLE, from = (len - n) / 2, bound = ZSTD_compressBound(n);
    void *room = fst_alloc(bound);
    if (!room)
        return false;
    size_t got = ZSTD_compress(room, bound, (const char *)raw + from, n, LEVEL);
    fst_free(room);
    return !ZSTD_isError(got) && got <= n - n / 10;
}

static void fill(fst_blob_manifest *m, fst_blob_codec codec, const void *bytes, size_t n, size_t raw_bytes)
{
    fst_sha256 sha;
    m->codec = codec;
    m->bytes = n;
    m->raw_bytes = raw_bytes;
    m->parts = parts_of(n);
    fst_sha256_init(&sha);
    fst_sha256_update(&sha, bytes, n);
    fst_sha256_final(&sha, m->digest);
}

fst_status fst_blob_plain(const void *raw, size_t len, fst_blob_manifest *m, fst_error *err)
{
    if (len < 1 || len > FST_BLOB_MAX)
        return fst_fail(err, FST_E_LIMIT, "a blob of %zu bytes", len);
    fill(m, FST_BLOB_PLAIN, raw, len, len);
    return FST_OK;
}

fst_status fst_blob_encode(const void *raw, size_t len, fst_buf *coded, fst_blob_manifest *m, fst_error *err)
{
    size_t at = coded->len;
    if (len < 1 || len > FST_BLOB_MAX)
        return fst_fail(err, FST_E_LIMIT, "a blob of %zu bytes", len);
    if (shrinks(raw, len)) {
        size_t bound = ZSTD_compressBound(len);
        void *room = fst_alloc(bound);
        size_t got = room ? ZSTD_compress(room, bound, raw, len, LEVEL) : 0;
        fst_status st = !room               ? fst_fail_memory(err, bound)
                        : ZSTD_isError(got) ? fst_fail(err, FST_E_MEMORY, "zstd: %s", ZSTD_getErrorName(got))
                                            : fst_buf_append(coded, room, got, err);
        fst_free(room);
        if (!st)
            fill(m, FST_BLOB_ZSTD, coded->data + at, got, len);
        return st;
    }
    fill(m, FST_BLOB_PLAIN, raw, len, len);
    return FST_OK;
}

fst_status fst_blob_decode(const fst_blob_manifest *m, const void *coded, uint64_t most, fst_buf *raw, fst_error *err)
{
    if (m->raw_bytes > most || m->raw_bytes > FST_BLOB_MAX)
        return fst_fail(err, FST_E_LIMIT, "a blob of %llu bytes, %llu are expected at most",
                        (unsigned long long)m->raw_bytes, (unsigned long long)most);
    size_t n = (size_t)m->raw_bytes;
    char *room = fst_alloc(n);
    if (!room)
        return fst_fail_memory(err, n);
    bool right = m->codec == FST_BLOB_ZSTD ? ZSTD_decompress(room, n, coded, (size_t)m->bytes) == n : m->bytes == n;
    if (right && m->codec == FST_BLOB_PLAIN)
        memcpy(room, coded, n);
    fst_status st = right ? fst_buf_append(raw, room, n, err)
                          : fst_fail(err, FST_E_FORMAT, "the blob does not hold the %llu bytes that it says",
                                     (unsigned long long)m->raw_bytes);
    fst_free(room);
    return st;
}

/* ---- GET and PART ------------------------------------------------------------------------- */

void fst_blob_get_write(const fst_blob_get *g, unsigned char body[FST_BLOB_GET])
{
    if (!fst__digest_bytes(g->digest, body))
        memset(body, 0, FST__DIGEST_BYTES);
    fst__put32(body + 32, g->from);
    fst__put32(body + 36, g->count);
}

bool fst_blob_get_read(fst_blob_get *out, const void *body, size_t len)
{
    const unsigned char *p = body;
    if (len != FST_BLOB_GET)
        return false;
    fst__digest_hex(p, out->digest);
    out->from = fst__get32(p + 32);
    out->count = fst__get32(p + 36);
    return out->count >= 1 && out->count <= FST_BLOB_WINDOW_MAX && out->from <= UINT32_MAX - out->count;
}

bool fst_blob_part_read(fst_blob_part *out, const void *body, size_t len)
{
    const unsigned char *p = body;
    fst_blob_part b;
    if (len <= FST_BLOB_PART_HEAD)
        return false;
    fst__digest_hex(p, b.digest);
    b.index = fst__get32(p + 32);
    b.parts = fst__get32(p + 36);
    b.total = fst__get64(p + 40);
    b.data = p + FST_BLOB_PART_HEAD;
    b.len = len - FST_BLOB_PART_HEAD;
    if (b.total < 1 || b.total > FST_BLOB_MAX || b.parts != parts_of(b.total) || b.index >= b.parts)
        return false;
    uint64_t at = (uint64_t)b.index * FST_BLOB_PART, rest = b.total - at;
    if (b.len != (rest < FST_BLOB_PART ? rest : FST_BLOB_PART))
        return false;
    *out = b;
    return true;
}

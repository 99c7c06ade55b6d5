/*
 * Writing npz: a zip archive (PKWARE's APPNOTE 6.3, without zip64) of stored npy files. Nothing is compressed, no times
 * are written, so that the same arrays give the same bytes.
 */
#include <stdio.h>
#include <string.h>
#include <zlib.h>

#include "npy_private.h"

enum { MAX_NAME = 256 };

struct member {
    char name[MAX_NAME];
    uint32_t crc, size, offset;
};

struct out {
    const char *path;
    fst_atomic_file file;
    fst_sha256 sha;
    uint64_t at;
    struct member *members;
    size_t count;
};

static fst_status put(struct out *o, const void *data, size_t len, fst_error *err)
{
    fst_sha256_update(&o->sha, data, len);
    o->at += len;
    return len ? fst_atomic_write(&o->file, data, len, err) : FST_OK;
}

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

static uint32_t checksum(uint32_t crc, const void *data, size_t len)
{
    const unsigned char *p = data;
    for (size_t left = len; left;) {
        uInt part = left < 1u << 30 ? (uInt)left : 1u << 30;
        crc = (uint32_t)crc32(crc, p, part);
        p += part;
        left -= part;
    }
    return crc;
}

/* What a local and a central header share: version needed ... length of the extra field. The time is 1980-01-01. */
static void common(unsigned char h[26], const struct member *m)
{
    memset(h, 0, 26);
    put16(h, 20);
    put16(h + 8, 1 | 1 << 5);
    put32(h + 10, m->crc);
    put32(h + 14, m->size);
    put32(h + 18, m->size);
    put16(h + 22, (unsigned)strlen(m->name));
}

static fst_status put_member(struct out *o, const char *name, const fst_buf *head, const void *data, size_t len,
                             fst_error *err)
{
    struct member *m = &o->members[o->count];
    unsigned char local[30];
    int n = snprintf(m->name, sizeof m->name, "%s.npy", name);
    if (n < 0 || n >= MAX_NAME)
        return fst_fail(err, FST_E_ARGUMENT, "%s: an array's name has at most %d letters", o->path, MAX_NAME - 5);
    if (o->at > UINT32_MAX || len > UINT32_MAX || o->at + sizeof local + (size_t)n + head->len + len > UINT32_MAX)
        return fst_fail(err, FST_E_LIMIT, "%s: an npz is written up to 4 GiB; write safetensors", o->path);
    m->offset = (uint32_t)o->at;
    m->size = (uint32_t)(head->len + len);
    m->crc = checksum(checksum((uint32_t)crc32(0, NULL, 0), head->data, head->len), data, len);
    o->count++;
    put32(local, 0x04034B50);
    common(local + 4, m);
    fst_status s = put(o, local, sizeof local, err);
    if (!s)
        s = put(o, m->name, (size_t)n, err);
    if (!s)
        s = put(o, head->data, head->len, err);
    return s ? s : put(o, data, len, err);
}

static fst_status put_array(struct out *o, const fst_tensor *t, fst_error *err)
{
    fst_buf head = {0};
    int64_t count = fst_shape_count(&t->shape);
    if (!fst__npy_type(t->dtype))
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: npy has no type for %s", o->path, fst_dtype_name(t->dtype));
    if (count < 0)
        return fst_fail(err, FST_E_ARGUMENT, "%s: the shape of %s is not one", o->path, t->name);
    fst_status s = fst__npy_header(&head, t, err);
    if (!s)
        s = put_member(o, t->name, &head, t->data, (size_t)count * fst_dtype_size(t->dtype), err);
    fst_buf_release(&head);
    return s;
}

/* "|S7": every text in as many bytes as the longest has. */
static fst_status put_texts(struct out *o, const char *name, char *const *texts, size_t n, fst_error *err)
{
    fst_buf head = {0};
    size_t width = 1;
    for (size_t i = 0; i < n; i++)
        width = strlen(texts[i]) > width ? strlen(texts[i]) : width;
    char *block = fst_calloc(n ? n : 1, width);
    if (!block)
        return fst_fail_memory(err, n * width);
    for (size_t i = 0; i < n; i++)
        memcpy(block + i * width, texts[i], strlen(texts[i]));
    fst_status s = fst__npy_texts_header(&head, n, width, err);
    if (!s)
        s = put_member(o, name, &head, block, n * width, err);
    fst_buf_release(&head);
    fst_free(block);
    return s;
}

static fst_status put_directory(struct out *o, fst_error *err)
{
    uint64_t begin = o->at;
    unsigned char end[22] = {0};
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < o->count; i++) {
        unsigned char h[46] = {0};
        put32(h, 0x02014B50);
        put16(h + 4, 20);
        common(h + 6, &o->members[i]);
        put32(h + 42, o->members[i].offset);
        s = put(o, h, sizeof h, err);
        if (!s)
            s = put(o, o->members[i].name, strlen(o->members[i].name), err);
    }
    if (o->at > UINT32_MAX || o->count > UINT16_MAX)
        return fst_fail(err, FST_E_LIMIT, "%s: an npz is written up to 4 GiB; write safetensors", o->path);
    put32(end, 0x06054B50);
    put16(end + 8, (unsigned)o->count);
    put16(end + 10, (unsigned)o->count);
    put32(end + 12, (uint32_t)(o->at - begin));
    put32(end + 16, (uint32_t)begin);
    return s ? s : put(o, end, sizeof end, err);
}

fst_status fst_npz_write(const char *path, const fst_tensor *arrays, size_t narrays, const char *texts_name,
                         char *const *texts, size_t ntexts, char digest[FST_DIGEST_HEX], fst_error *err)
{
    struct out o = {.path = path, .members = fst_calloc(narrays + 1, sizeof *o.members)};
    if (!o.members)
        return fst_fail_memory(err, narrays * sizeof *o.members);
    fst_sha256_init(&o.sha);
    fst_status s = fst_atomic_open(&o.file, path, err);
    for (size_t i = 0; !s && i < narrays; i++)
        s = put_array(&o, &arrays[i], err);
    if (!s && texts)
        s = put_texts(&o, texts_name, texts, ntexts, err);
    if (!s)
        s = put_directory(&o, err);
    if (!s)
        s = fst_atomic_commit(&o.file, err);
    fst_atomic_abort(&o.file);
    fst_free(o.members);
    if (!s && digest)
        fst_sha256_final(&o.sha, digest);
    return s;
}

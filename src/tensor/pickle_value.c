/*
 * What a pickle has become: its values, the memory they stand in, and who may ask for them. All that a stream makes
 * is charged to one limit, which grows with the bytes of the input (fst_budget), so that a few bytes cannot take
 * gigabytes by copying what they name again and again.
 */
#include <string.h>

#include "pickle_private.h"

enum { MAX_OBJECTS = 1 << 24, CHUNK = 1 << 16 };

struct fst__chunk {
    struct fst__chunk *next;
    size_t size, used;
    _Alignas(16) unsigned char data[];
};

/* ---- memory --------------------------------------------------------------------------------- */

fst_status fst__pickle_charge(fst_pickle *p, size_t bytes, fst_error *err)
{
    if (bytes > p->max_bytes - p->bytes)
        return fst_fail(err, FST_E_LIMIT, "%s: its values take more than the %zu bytes that are allowed", p->name,
                        p->max_bytes);
    bytes = (bytes + 15) / 16 * 16;
    p->bytes += bytes < p->max_bytes - p->bytes ? bytes : p->max_bytes - p->bytes;
    return FST_OK;
}

fst_status fst__pickle_take(fst_pickle *p, size_t bytes, void **out, fst_error *err)
{
    struct fst__chunk *c = p->chunks;
    fst_status s = fst__pickle_charge(p, bytes, err);
    if (s)
        return s;
    bytes = (bytes + 15) / 16 * 16;
    if (!c || bytes > c->size - c->used) {
        size_t size = bytes > CHUNK ? bytes : CHUNK;
        c = fst_alloc(sizeof *c + size);
        if (!c)
            return fst_fail_memory(err, size);
        *c = (struct fst__chunk){.next = p->chunks, .size = size};
        p->chunks = c;
    }
    *out = c->data + c->used;
    c->used += bytes;
    return FST_OK;
}

fst_status fst__pickle_value(fst_pickle *p, int kind, fst_pickle_value **out, fst_error *err)
{
    void *v = NULL;
    if (p->objects >= MAX_OBJECTS)
        return fst_fail(err, FST_E_LIMIT, "%s: more than %d values", p->name, MAX_OBJECTS);
    fst_status s = fst__pickle_take(p, sizeof **out, &v, err);
    if (s)
        return s;
    p->objects++;
    *out = v;
    **out = (fst_pickle_value){.kind = kind};
    return FST_OK;
}

/* The place of what may be shared in p->constants, -1 for what may not. */
static int constant_place(int kind, int64_t x)
{
    switch (kind) {
    case FST_PICKLE_NONE:
        return 0;
    case FST_PICKLE_BOOL:
        return x ? 1 : 2;
    case FST_PICKLE_TUPLE:
        return 3;
    default:
        return x >= 0 && x < FST__PICKLE_CONSTANTS - 4 ? 4 + (int)x : -1;
    }
}

fst_status fst__pickle_constant(fst_pickle *p, int kind, int64_t x, fst_pickle_value **out, fst_error *err)
{
    int at = constant_place(kind, x);
    if (at >= 0 && p->constants[at]) {
        *out = p->constants[at];
        return FST_OK;
    }
    fst_status s = fst__pickle_value(p, kind, out, err);
    if (s)
        return s;
    if (kind != FST_PICKLE_TUPLE)
        (*out)->integer = x;
    if (at >= 0)
        p->constants[at] = *out;
    return FST_OK;
}

fst_status fst__pickle_object(fst_pickle *p, const char *what, size_t len, fst_pickle_value **out, fst_error *err)
{
    fst_status s = fst__pickle_value(p, FST__PICKLE_OBJECT, out, err);
    if (!s) {
        (*out)->text.data = what;
        (*out)->text.length = len;
    }
    return s;
}

fst_status fst__pickle_add(fst_pickle *p, fst_pickle_value *v, fst_pickle_value *const *items, size_t n, fst_error *err)
{
    if (v->list.count + n > v->list.room) {
        size_t room = 2 * v->list.room > v->list.count + n ? 2 * v->list.room : v->list.count + n;
        void *more = NULL;
        fst_status s = fst__pickle_take(p, room * sizeof *items, &more, err);
        if (s)
            return s;
        if (v->list.count)
            memcpy(more, v->list.items, v->list.count * sizeof *items);
        v->list.items = more;
        v->list.room = room;
    }
    for (size_t i = 0; i < n; i++)
        v->list.items[v->list.count++] = items[i];
    return FST_OK;
}

fst_status fst__pickle_fail(const fst_pickle *p, fst_error *err, const char *what)
{
    return fst_fail(err, FST_E_FORMAT, "%s: byte %zu of the pickle: %s", p->name, p->at, what);
}

/* ---- reading --------------------------------------------------------------------------------- */

fst_status fst__pickle_parse(fst_pickle **out, const char *name, const void *data, size_t len, bool torch,
                             size_t max_bytes, size_t *used, fst_error *err)
{
    const fst_pickle all = {
        .name = (char *)(uintptr_t)name, .data = data, .len = len, .fd = -1, .passed = len, .torch = torch};
    return fst__pickle_parse_as(out, &all, max_bytes, used, err);
}

fst_status fst_pickle_parse(fst_pickle **out, const char *name, const void *data, size_t len, size_t max_bytes,
                            fst_error *err)
{
    return fst__pickle_parse(out, name, data, len, false, max_bytes, NULL, err);
}

fst_status fst_pickle_read(fst_pickle **out, const char *path, size_t max_bytes, fst_error *err)
{
    fst_buf file = {0};
    fst_pickle *p = NULL;
    fst_status s = fst_file_read(path, max_bytes, &file, err);
    if (!s)
        s = fst__pickle_parse(&p, path, file.data ? file.data : "", file.len, false, max_bytes, NULL, err);
    if (s) {
        fst_buf_release(&file);
        return s;
    }
    p->file = file;
    *out = p;
    return FST_OK;
}

const fst_pickle_value *fst_pickle_root(const fst_pickle *p)
{
    return p->root;
}

const fst_pickle_value *fst_pickle_find(const fst_pickle_value *v, const char *key)
{
    size_t n = strlen(key);
    if (!v || v->kind != FST_PICKLE_DICT)
        return NULL;
    for (size_t i = v->list.count; i >= 2; i -= 2) {
        const fst_pickle_value *k = v->list.items[i - 2];
        if ((k->kind == FST_PICKLE_TEXT || k->kind == FST_PICKLE_BYTES) && k->text.length == n &&
            !memcmp(k->text.data, key, n))
            return v->list.items[i - 1];
    }
    return NULL;
}

void fst_pickle_free(fst_pickle *p)
{
    if (!p)
        return;
    while (p->chunks) {
        struct fst__chunk *next = p->chunks->next;
        fst_free(p->chunks);
        p->chunks = next;
    }
    fst_buf_release(&p->file);
    fst__pickle_close(p);
    fst_free(p->name);
    fst_free(p);
}

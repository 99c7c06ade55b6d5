/* Aligned allocation that tests can count and make fail, the arena, and the growing buffer. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/base.h"

enum { ALIGNMENT = 64 };

static _Atomic uint64_t alloc_count, alloc_bytes;
static _Atomic uint64_t fail_at; /* value of alloc_count from which on allocations fail; 0: never */

uint64_t fst_alloc_count(void)
{
    return atomic_load(&alloc_count);
}

uint64_t fst_alloc_bytes(void)
{
    return atomic_load(&alloc_bytes);
}

void fst_alloc_fail_at(uint64_t n)
{
    atomic_store(&fail_at, n ? atomic_load(&alloc_count) + n : 0);
}

void *fst_alloc(size_t bytes)
{
    uint64_t n = atomic_fetch_add_explicit(&alloc_count, 1, memory_order_relaxed) + 1;
    uint64_t limit = atomic_load_explicit(&fail_at, memory_order_relaxed);
    if ((limit && n >= limit) || bytes > SIZE_MAX - ALIGNMENT)
        return NULL;
    atomic_fetch_add_explicit(&alloc_bytes, bytes, memory_order_relaxed);
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return aligned_alloc(ALIGNMENT, rounded ? rounded : ALIGNMENT);
}

void *fst_calloc(size_t count, size_t size)
{
    if (size && count > SIZE_MAX / size)
        return NULL;
    void *p = fst_alloc(count * size);
    if (p)
        memset(p, 0, count * size);
    return p;
}

void *fst_realloc(void *p, size_t old_bytes, size_t new_bytes)
{
    void *q = fst_alloc(new_bytes);
    if (!q)
        return NULL;
    if (p)
        memcpy(q, p, old_bytes < new_bytes ? old_bytes : new_bytes);
    fst_free(p);
    return q;
}

void fst_free(void *p)
{
    free(p);
}

char *fst_strdup(const char *s)
{
    size_t n = strlen(s) + 1;
    char *copy = fst_alloc(n);
    if (copy)
        memcpy(copy, s, n);
    return copy;
}

fst_status fst_arena_init(fst_arena *a, size_t size, fst_error *err)
{
    unsigned char *base = fst_alloc(size);
    if (!base)
        return fst_fail_memory(err, size);
    *a = (fst_arena){base, size, 0};
    return FST_OK;
}

void *fst_arena_take(fst_arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX - ALIGNMENT)
        return NULL;
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (rounded > a->size - a->used)
        return NULL;
    void *p = a->base + a->used;
    a->used += rounded;
    return p;
}

void fst_arena_release(fst_arena *a)
{
    if (!a)
        return;
    fst_free(a->base);
    *a = (fst_arena){0};
}

/* Room for `more` bytes: as many, or as much as doubling makes of it. */
static fst_status buf_make_room(fst_buf *b, size_t more, bool exact, fst_error *err)
{
    if (more > SIZE_MAX / 2 - b->len - 1)
        return fst_fail_memory(err, more);
    size_t want = b->len + more + 1;
    if (want <= b->cap)
        return FST_OK;
    size_t cap = exact ? want : b->cap ? b->cap : 256;
    while (cap < want)
        cap *= 2;
    char *p = fst_realloc(b->data, b->data ? b->len + 1 : 0, cap);
    if (!p)
        return fst_fail_memory(err, cap);
    b->data = p;
    b->cap = cap;
    return FST_OK;
}

fst_status fst_buf_reserve(fst_buf *b, size_t more, fst_error *err)
{
    return buf_make_room(b, more, true, err);
}

fst_status fst_buf_append(fst_buf *b, const void *data, size_t len, fst_error *err)
{
    fst_status s = buf_make_room(b, len, false, err);
    if (s)
        return s;
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    b->data[b->len] = 0;
    return FST_OK;
}

fst_status fst_buf_printf(fst_buf *b, fst_error *err, const char *fmt, ...)
{
    va_list ap, again;
    va_start(ap, fmt);
    va_copy(again, ap);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    fst_status s = n < 0 ? fst_fail(err, FST_E_ARGUMENT, "bad format string") : buf_make_room(b, (size_t)n, false, err);
    if (!s) {
        vsnprintf(b->data + b->len, (size_t)n + 1, fmt, again);
        b->len += (size_t)n;
    }
    va_end(again);
    return s;
}

void fst_buf_release(fst_buf *b)
{
    if (!b)
        return;
    fst_free(b->data);
    *b = (fst_buf){0};
}

/* Who has blobs: answers wait in one queue, in the order in which they were asked for. */
#include <string.h>

#include "bytes.h"
#include "fedstill/blob.h"

struct offer {
    fst_blob_manifest manifest;
    const unsigned char *coded;
};

struct wish {
    uint32_t who, index;
    char digest[FST_DIGEST_HEX];
};

struct fst_blob_server {
    struct offer *offer;
    size_t offers, room;
    struct wish *queue; /* a ring */
    size_t size, head, waiting;
    struct wish last;
};

enum { DEFAULT_QUEUE = 1024 };

fst_status fst_blob_server_new(fst_blob_server **out, size_t queue, fst_error *err)
{
    fst_blob_server *s = fst_calloc(1, sizeof *s);
    if (!s)
        return fst_fail_memory(err, sizeof *s);
    s->size = queue ? queue : DEFAULT_QUEUE;
    s->queue = fst_calloc(s->size, sizeof *s->queue);
    if (!s->queue) {
        fst_free(s);
        return fst_fail_memory(err, queue * sizeof *s->queue);
    }
    *out = s;
    return FST_OK;
}

void fst_blob_server_free(fst_blob_server *s)
{
    if (!s)
        return;
    fst_free(s->offer);
    fst_free(s->queue);
    fst_free(s);
}

static struct offer *find(const fst_blob_server *s, const char *digest)
{
    for (size_t i = 0; i < s->offers; i++)
        if (!strcmp(s->offer[i].manifest.digest, digest))
            return &s->offer[i];
    return NULL;
}

fst_status fst_blob_server_add(fst_blob_server *s, const fst_blob_manifest *m, const void *coded, fst_error *err)
{
    struct offer *o = find(s, m->digest);
    if (!o && s->offers == s->room) {
        size_t n = s->room ? 2 * s->room : 4;
        struct offer *p = fst_realloc(s->offer, s->room * sizeof *p, n * sizeof *p);
        if (!p)
            return fst_fail_memory(err, n * sizeof *p);
        s->offer = p;
        s->room = n;
    }
    if (!o)
        o = &s->offer[s->offers++];
    *o = (struct offer){*m, coded};
    return FST_OK;
}

/* Keeps the wishes for which `stays` is true, in their order. */
static void sift(fst_blob_server *s, bool (*stays)(const struct wish *w, const void *ctx), const void *ctx)
{
    size_t kept = 0;
    for (size_t i = 0; i < s->waiting; i++) {
        struct wish w = s->queue[(s->head + i) % s->size];
        if (stays(&w, ctx))
            s->queue[(s->head + kept++) % s->size] = w;
    }
    s->waiting = kept;
}

static bool of_another_blob(const struct wish *w, const void *digest)
{
    return strcmp(w->digest, digest) != 0;
}

static bool of_another_site(const struct wish *w, const void *who)
{
    return w->who != *(const uint32_t *)who;
}

void fst_blob_server_remove(fst_blob_server *s, const char *digest)
{
    char copy[FST_DIGEST_HEX]; /* it may be the offer's own text */
    struct offer *o = find(s, digest);
    if (!o)
        return;
    memcpy(copy, digest, sizeof copy);
    sift(s, of_another_blob, copy);
    *o = s->offer[--s->offers];
}

void fst_blob_server_forget(fst_blob_server *s, uint32_t who)
{
    sift(s, of_another_site, &who);
}

size_t fst_blob_server_ask(fst_blob_server *s, uint32_t who, const fst_blob_get *get)
{
    const struct offer *o = find(s, get->digest);
    size_t queued = 0, his = 0;
    uint64_t asked[(FST_BLOB_MAX / FST_BLOB_PART + 63) / 64];
    if (!o)
        return 0;
    memset(asked, 0, sizeof asked);
    for (size_t i = 0; i < s->waiting; i++) {
        const struct wish *w = &s->queue[(s->head + i) % s->size];
        his += w->who == who;
        if (w->who == who && !strcmp(w->digest, get->digest))
            asked[w->index / 64] |= UINT64_C(1) << w->index % 64;
    }
    for (uint32_t k = get->from; k < get->from + get->count && k < o->manifest.parts; k++) {
        if (asked[k / 64] >> k % 64 & 1 || s->waiting == s->size || his == FST_BLOB_WINDOW_MAX)
            continue;
        struct wish *w = &s->queue[(s->head + s->waiting++) % s->size];
        w->who = who;
        w->index = k;
        memcpy(w->digest, get->digest, sizeof w->digest);
        queued++;
        his++;
    }
    return queued;
}

bool fst_blob_server_next(fst_blob_server *s, uint32_t *who, fst_buf *body)
{
    unsigned char head[FST_BLOB_PART_HEAD];
    if (!s->waiting)
        return false;
    s->last = s->queue[s->head];
    const struct offer *o = find(s, s->last.digest); /* a wish goes when its blob is removed */
    uint64_t at = (uint64_t)s->last.index * FST_BLOB_PART, rest = o->manifest.bytes - at;
    size_t n = rest < FST_BLOB_PART ? (size_t)rest : FST_BLOB_PART;
    body->len = 0;
    if (!fst__digest_bytes(s->last.digest, head))
        return false;
    fst__put32(head + 32, s->last.index);
    fst__put32(head + 36, o->manifest.parts);
    fst__put64(head + 40, o->manifest.bytes);
    if (fst_buf_append(body, head, sizeof head, NULL) || fst_buf_append(body, o->coded + at, n, NULL))
        return false; /* no memory now: it waits */
    s->head = (s->head + 1) % s->size;
    s->waiting--;
    *who = s->last.who;
    return true;
}

void fst_blob_server_put_back(fst_blob_server *s)
{
    s->head = (s->head + s->size - 1) % s->size;
    s->queue[s->head] = s->last;
    s->waiting++;
}

size_t fst_blob_server_waiting(const fst_blob_server *s)
{
    return s->waiting;
}

/* WINDOWS and ANSWERS as bytes, and the topics between a device and its edge. Both readers allocate nothing: they check
 * all figures against the length of what came, and what they give are views. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "stream.h"

static void put(unsigned char *p, uint64_t x, int bytes)
{
    for (int i = 0; i < bytes; i++)
        p[i] = (unsigned char)(x >> 8 * i);
}

static uint64_t get(const unsigned char *p, int bytes)
{
    uint64_t x = 0;
    for (int i = 0; i < bytes; i++)
        x |= (uint64_t)p[i] << 8 * i;
    return x;
}

/* ---- windows -------------------------------------------------------------------------------------------- */

enum { W_STREAM = 0, W_FIRST = 8, W_COUNT = 16, W_TYPE = 18, W_RANK = 19, W_BYTES = 20, TYPE_U8 = 1, TYPE_F32 = 2 };
#define MOST ((uint64_t)(FST_FRAME_MAX - FST_FRAME_OVERHEAD))

uint32_t fst__window_bytes(fst_dtype dtype, const fst_shape *shape)
{
    uint64_t n = dtype == FST_U8 ? 1 : dtype == FST_F32 ? 4 : 0;
    if (shape->rank < 1 || shape->rank > FST_MAX_RANK)
        return 0;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] < 1 || (uint64_t)shape->dim[i] > MOST)
            return 0;
        n *= (uint64_t)shape->dim[i];
        if (n > MOST)
            return 0;
    }
    return n + FST__WINDOWS_HEAD + 4 * (uint64_t)shape->rank <= MOST ? (uint32_t)n : 0;
}

uint32_t fst__windows_most(const struct windows *of)
{
    uint64_t n = of->bytes ? (MOST - FST__WINDOWS_HEAD - 4 * (uint64_t)of->shape.rank) / of->bytes : 0;
    return n > UINT16_MAX ? UINT16_MAX : (uint32_t)n;
}

fst_status fst__windows_head(const struct windows *m, fst_buf *out, fst_error *err)
{
    unsigned char head[FST__WINDOWS_HEAD + 4 * FST_MAX_RANK];
    put(head + W_STREAM, m->stream, 8);
    put(head + W_FIRST, m->first, 8);
    put(head + W_COUNT, m->count, 2);
    head[W_TYPE] = m->dtype == FST_U8 ? TYPE_U8 : TYPE_F32;
    head[W_RANK] = (unsigned char)m->shape.rank;
    put(head + W_BYTES, m->bytes, 4);
    for (int i = 0; i < m->shape.rank; i++)
        put(head + FST__WINDOWS_HEAD + 4 * i, (uint64_t)m->shape.dim[i], 4);
    return fst_buf_append(out, head, FST__WINDOWS_HEAD + 4 * (size_t)m->shape.rank, err);
}

bool fst__windows_read(struct windows *out, const void *body, size_t len)
{
    const unsigned char *p = body;
    struct windows m = {.count = 0};
    if (len < FST__WINDOWS_HEAD || len > MOST || (p[W_TYPE] != TYPE_U8 && p[W_TYPE] != TYPE_F32) || p[W_RANK] < 1 ||
        p[W_RANK] > FST_MAX_RANK || len < FST__WINDOWS_HEAD + 4 * (size_t)p[W_RANK])
        return false;
    m.stream = get(p + W_STREAM, 8);
    m.first = get(p + W_FIRST, 8);
    m.count = (uint32_t)get(p + W_COUNT, 2);
    m.dtype = p[W_TYPE] == TYPE_U8 ? FST_U8 : FST_F32;
    m.shape.rank = p[W_RANK];
    for (int i = 0; i < m.shape.rank; i++)
        m.shape.dim[i] = (int64_t)get(p + FST__WINDOWS_HEAD + 4 * i, 4);
    m.bytes = fst__window_bytes(m.dtype, &m.shape);
    size_t head = FST__WINDOWS_HEAD + 4 * (size_t)m.shape.rank;
    if (!m.bytes || m.bytes != get(p + W_BYTES, 4) || !m.count || m.first > UINT64_MAX - m.count ||
        len - head != (uint64_t)m.count * m.bytes)
        return false;
    m.data = p + head;
    *out = m;
    return true;
}

/* ---- answers -------------------------------------------------------------------------------------------- */

enum { A_STREAM = 0, A_CREDIT = 8, A_COUNT = 12, A_DIGEST = 16 };
enum {
    E_SEQ = 0,
    E_ANSWER = 8,
    E_FIRST = 10,
    E_TIER = 12,
    E_MARKS = 13,
    E_CONFIDENCE = 16,
    E_QUEUE = 24,
    E_COMPUTE = 28
};

fst_status fst__answers_head(const struct answers *m, fst_buf *out, fst_error *err)
{
    unsigned char head[FST__ANSWERS_HEAD] = {0};
    put(head + A_STREAM, m->stream, 8);
    put(head + A_CREDIT, m->credit, 4);
    put(head + A_COUNT, m->count, 2);
    memcpy(head + A_DIGEST, m->digest, sizeof m->digest);
    return fst_buf_append(out, head, sizeof head, err);
}

fst_status fst__answer_write(const struct stream_answer *a, fst_buf *out, fst_error *err)
{
    unsigned char entry[FST__ANSWER] = {0};
    uint64_t confidence;
    memcpy(&confidence, &a->confidence, sizeof confidence);
    put(entry + E_SEQ, a->seq, 8);
    put(entry + E_ANSWER, a->answer, 2);
    put(entry + E_FIRST, a->first, 2);
    entry[E_TIER] = a->tier;
    entry[E_MARKS] = a->marks;
    put(entry + E_CONFIDENCE, confidence, 8);
    put(entry + E_QUEUE, a->queue_us, 4);
    put(entry + E_COMPUTE, a->compute_us, 4);
    return fst_buf_append(out, entry, sizeof entry, err);
}

struct stream_answer fst__answers_at(const struct answers *m, uint32_t i)
{
    const unsigned char *p = (const unsigned char *)m->data + (size_t)i * FST__ANSWER;
    uint64_t confidence = get(p + E_CONFIDENCE, 8);
    struct stream_answer a = {.seq = get(p + E_SEQ, 8),
                              .answer = (uint16_t)get(p + E_ANSWER, 2),
                              .first = (uint16_t)get(p + E_FIRST, 2),
                              .tier = p[E_TIER],
                              .marks = p[E_MARKS],
                              .queue_us = (uint32_t)get(p + E_QUEUE, 4),
                              .compute_us = (uint32_t)get(p + E_COMPUTE, 4)};
    memcpy(&a.confidence, &confidence, sizeof confidence);
    return a;
}

static bool sound(const struct stream_answer *a)
{
    bool refused = a->marks & MARK_REFUSED;
    return a->tier <= TIER_CLOUD && a->marks <= (MARK_UNSURE | MARK_REFUSED) && a->confidence >= 0 &&
           a->confidence <= 1 && refused == (a->answer == FST__NO_CLASS);
}

bool fst__answers_read(struct answers *out, const void *body, size_t len)
{
    const unsigned char *p = body;
    struct answers m = {.count = 0};
    if (len < FST__ANSWERS_HEAD)
        return false;
    m.stream = get(p + A_STREAM, 8);
    m.credit = (uint32_t)get(p + A_CREDIT, 4);
    m.count = (uint32_t)get(p + A_COUNT, 2);
    memcpy(m.digest, p + A_DIGEST, sizeof m.digest);
    m.data = p + FST__ANSWERS_HEAD;
    if (m.count > FST__ANSWERS_MOST || len - FST__ANSWERS_HEAD != (size_t)m.count * FST__ANSWER)
        return false;
    for (uint32_t i = 0; i < m.count; i++) {
        const struct stream_answer a = fst__answers_at(&m, i);
        if (!sound(&a))
            return false;
    }
    *out = m;
    return true;
}

/* ---- topics --------------------------------------------------------------------------------------------- */

char *fst__topic_ask(char out[FST_TOPIC], const char *edge, const char *device, const char *leaf)
{
    snprintf(out, FST_TOPIC, "fst/q/%.32s/%.32s/%.32s", edge, device, leaf);
    return out;
}

char *fst__topic_reply(char out[FST_TOPIC], const char *device, const char *leaf)
{
    snprintf(out, FST_TOPIC, "fst/a/%.32s/%.32s", device, leaf);
    return out;
}

/* The rest of the topic after "PREFIX ID /"; NULL when it begins otherwise. */
static const char *after(const char *topic, const char *prefix, const char *id)
{
    size_t n = strlen(prefix), m = strlen(id);
    return !strncmp(topic, prefix, n) && !strncmp(topic + n, id, m) && topic[n + m] == '/' ? topic + n + m + 1 : NULL;
}

bool fst__topic_ask_split(const char *topic, const char *edge, char device[FST_SITE_ID], const char **leaf)
{
    const char *rest = after(topic, "fst/q/", edge), *slash = rest ? strchr(rest, '/') : NULL;
    char id[FST_SITE_ID];
    if (!slash || slash - rest >= FST_SITE_ID || strchr(slash + 1, '/'))
        return false;
    snprintf(id, sizeof id, "%.*s", (int)(slash - rest), rest);
    if (!fst_site_id_valid(id))
        return false;
    memcpy(device, id, sizeof id);
    *leaf = slash + 1;
    return true;
}

bool fst__topic_reply_split(const char *topic, const char *device, const char **leaf)
{
    const char *rest = after(topic, "fst/a/", device);
    if (!rest || strchr(rest, '/'))
        return false;
    *leaf = rest;
    return true;
}

/* The envelope: a fixed header, the body, a hash. See fedstill/frame.h and docs/protocol.md. */
#include "fedstill/frame.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

#include "bytes.h"

static const char magic[4] = {'F', 'S', 'T', '1'};
enum { KIND = 4, FLAGS = 5, VERSION = 6, RUN = 8, EPOCH = 16, SEQ = 24, LENGTH = 32, SENDER = 36, SENDER_BYTES = 32 };

static const char *const kinds[FST_KINDS] = {"unknown", "hello",   "beat",    "result",  "cannot",  "bye",
                                             "get",     "part",    "windows", "welcome", "refusal", "order",
                                             "receipt", "answers", "lead",    "figures"};

const char *fst_frame_kind_name(fst_frame_kind kind)
{
    return kinds[(unsigned)kind < FST_KINDS ? kind : 0];
}

static const char *const refusals[FST_REFUSALS] = {"taken",  "length", "magic", "version", "hash", "kind",
                                                   "sender", "topic",  "run",   "epoch",   "body", "rate"};

const char *fst_frame_refusal_name(fst_frame_refusal r)
{
    return (unsigned)r < FST_REFUSALS ? refusals[r] : "unknown";
}

bool fst_site_id_valid(const char *id)
{
    size_t n = id ? strspn(id, "abcdefghijklmnopqrstuvwxyz0123456789-") : 0;
    return n > 0 && n < FST_SITE_ID && id[n] == 0;
}

size_t fst_frame_body_max(fst_frame_kind kind)
{
    bool large = kind == FST_KIND_PART || kind == FST_KIND_WINDOWS || kind == FST_KIND_ANSWERS;
    return large ? FST_FRAME_MAX - FST_FRAME_OVERHEAD : FST_FRAME_CONTROL;
}

fst_status fst_frame_encode(const fst_frame *f, fst_buf *out, fst_error *err)
{
    unsigned char head[FST_FRAME_HEADER] = {0}, tail[8];
    size_t at = out->len;
    if ((unsigned)f->kind - 1 >= FST_KINDS - 1 || !fst_site_id_valid(f->sender))
        return fst_fail(err, FST_E_ARGUMENT, "a frame needs a kind and a sender");
    if (f->body_len > fst_frame_body_max(f->kind))
        return fst_fail(err, FST_E_LIMIT, "a body of %zu bytes is too long for a message of the kind %s", f->body_len,
                        fst_frame_kind_name(f->kind));
    memcpy(head, magic, sizeof magic);
    head[KIND] = (unsigned char)f->kind;
    fst__put16(head + VERSION, FST_FRAME_VERSION);
    fst__put64(head + RUN, f->run);
    fst__put64(head + EPOCH, f->epoch);
    fst__put64(head + SEQ, f->seq);
    fst__put32(head + LENGTH, (uint32_t)f->body_len);
    memcpy(head + SENDER, f->sender, strlen(f->sender));
    fst_status st = fst_buf_append(out, head, sizeof head, err);
    if (!st && f->body_len)
        st = fst_buf_append(out, f->body, f->body_len, err);
    if (!st) {
        fst__put64(tail, XXH3_64bits(out->data + at, out->len - at));
        st = fst_buf_append(out, tail, sizeof tail, err);
    }
    if (st)
        out->len = at;
    return st;
}

/* The sender's bytes: an id, then zeroes. */
static bool read_sender(char out[FST_SITE_ID], const unsigned char *p)
{
    memcpy(out, p, SENDER_BYTES);
    out[SENDER_BYTES] = 0;
    for (size_t i = strlen(out); i < SENDER_BYTES; i++)
        if (out[i])
            return false;
    return fst_site_id_valid(out);
}

fst_frame_refusal fst_frame_decode(fst_frame *out, const void *data, size_t len)
{
    const unsigned char *p = data;
    fst_frame f = {.version = 0};
    if (len < FST_FRAME_OVERHEAD || len > FST_FRAME_MAX)
        return FST_REFUSED_LENGTH;
    if (memcmp(p, magic, sizeof magic) != 0)
        return FST_REFUSED_MAGIC;
    f.version = fst__get16(p + VERSION);
    if (f.version != FST_FRAME_VERSION) {
        *out = f;
        return FST_REFUSED_VERSION;
    }
    f.body_len = fst__get32(p + LENGTH);
    if (f.body_len != len - FST_FRAME_OVERHEAD)
        return FST_REFUSED_LENGTH;
    if (fst__get64(p + len - 8) != XXH3_64bits(p, len - 8))
        return FST_REFUSED_HASH;
    f.kind = (fst_frame_kind)p[KIND];
    if ((unsigned)f.kind - 1 >= FST_KINDS - 1 || p[FLAGS] != 0)
        return FST_REFUSED_KIND;
    if (f.body_len > fst_frame_body_max(f.kind))
        return FST_REFUSED_LENGTH;
    if (!read_sender(f.sender, p + SENDER))
        return FST_REFUSED_SENDER;
    f.run = fst__get64(p + RUN);
    f.epoch = fst__get64(p + EPOCH);
    f.seq = fst__get64(p + SEQ);
    f.body = p + FST_FRAME_HEADER;
    *out = f;
    return FST_TAKEN;
}

/* ---- topics ------------------------------------------------------------------------------- */

static char *topic(char out[FST_TOPIC], const char *way, const char *site, const char *leaf)
{
    snprintf(out, FST_TOPIC, "fst/%s/%s/%s", way, site, leaf);
    return out;
}

char *fst_topic_up(char out[FST_TOPIC], const char *site, const char *leaf)
{
    return topic(out, "up", site, leaf);
}

char *fst_topic_down(char out[FST_TOPIC], const char *site, const char *leaf)
{
    return topic(out, "dn", site, leaf);
}

bool fst_topic_split(const char *text, bool *up, char site[FST_SITE_ID], const char **leaf)
{
    bool is_up = !strncmp(text, "fst/up/", 7), is_down = !strncmp(text, "fst/dn/", 7);
    const char *id = text + 7, *end = is_up || is_down ? strchr(id, '/') : NULL;
    char copy[FST_SITE_ID];
    if (!end || (size_t)(end - id) >= sizeof copy)
        return false;
    memcpy(copy, id, (size_t)(end - id));
    copy[end - id] = 0;
    if (!fst_site_id_valid(copy) || !fst_site_id_valid(end + 1))
        return false;
    *up = is_up;
    memcpy(site, copy, sizeof copy);
    *leaf = end + 1;
    return true;
}

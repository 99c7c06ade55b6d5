/* Frames between ranks (rank_frame.h). A frame that is accepted is the only one that says what it says: writing it
 * again gives the same bytes, which the fuzzer checks. */
#include <string.h>

#include "rank_frame.h"

static size_t padding_after(uint64_t bytes)
{
    return (size_t)((8 - bytes % 8) % 8);
}

fst_status fst__rank_frame_begin(fst_buf *b, fst_error *err)
{
    const struct fst__rank_head none = {.what = FST__RANK_END};
    b->len = 0;
    return fst_buf_append(b, &none, sizeof none, err);
}

fst_status fst__rank_frame_finish(fst_buf *b, struct fst__rank_head h, const void *kept, fst_error *err)
{
    static const char zeroes[8] = {0};
    h.message = b->len - sizeof h;
    fst_status st = fst_buf_append(b, zeroes, padding_after(h.message), err);
    if (!st)
        st = fst_buf_append(b, kept, (size_t)h.kept, err);
    if (!st)
        memcpy(b->data, &h, sizeof h);
    return st;
}

/* Do the numbers belong together? How long things are is the next question. */
static bool is_question(const struct fst__rank_head *h)
{
    switch (h->what) {
    case FST__RANK_END:
        return !h->client && !h->status && !h->stage && !h->message && !h->kept;
    case FST__RANK_OPEN:
        return !h->client && !h->status && !h->kept && h->message == FST__RANK_DIGESTS;
    case FST__RANK_PLAY:
        return !h->status;
    default:
        return false;
    }
}

static bool is_answer(const struct fst__rank_head *h)
{
    bool text = h->message < sizeof((fst_error *)NULL)->message && !h->kept;
    if (h->client || h->stage)
        return false;
    switch (h->what) {
    case FST__RANK_OPENED:
        return !h->status && !h->message && !h->kept;
    case FST__RANK_PLAYED:
        return !h->status;
    case FST__RANK_FAILED:
        return text && h->status > FST_OK && h->status < FST_STATUSES;
    case FST__RANK_CANNOT:
        return text && !h->status;
    default:
        return false;
    }
}

fst_status fst__rank_frame_read(const void *frame, size_t len, bool answer, struct fst__rank_head *h,
                                const char **message, const char **kept, fst_error *err)
{
    static const char zeroes[8] = {0};
    struct fst__rank_head is;
    if (len < sizeof is)
        return fst_fail(err, FST_E_FORMAT, "%zu bytes are no frame of a rank", len);
    memcpy(&is, frame, sizeof is);
    if (!(answer ? is_answer(&is) : is_question(&is)))
        return fst_fail(err, FST_E_FORMAT, "a frame of a rank has numbers that do not belong together (kind %lu)",
                        (unsigned long)is.what);
    uint64_t left = len - sizeof is, padding = padding_after(is.message);
    if (is.message > left || padding > left - is.message || is.kept != left - is.message - padding)
        return fst_fail(err, FST_E_FORMAT, "a frame of a rank has %zu bytes and announces others", len);
    const char *data = (const char *)frame + sizeof is, *end = data + is.message;
    if (memcmp(end, zeroes, (size_t)padding))
        return fst_fail(err, FST_E_FORMAT, "a frame of a rank has bytes between its parts");
    *h = is;
    *message = data;
    *kept = end + padding;
    return FST_OK;
}

/* A frame between ranks, any bytes, as a question and as an answer: what is accepted lies within the bytes, where it
 * may be read as numbers, and is written to the same bytes; and its message goes where a rank would put it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fedstill/strategy.h"
#include "rank_frame.h"

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size);

static void check_views(const fst_buf *in, const struct fst__rank_head *h, const char *message, const char *kept)
{
    const char *end = in->data + in->len;
    if (message < in->data || message + h->message > kept || kept + h->kept != end)
        abort();
    if ((uintptr_t)message % 8 || (uintptr_t)kept % 8)
        abort();
}

static void write_again(const fst_buf *in, const struct fst__rank_head *h, const char *message, const char *kept)
{
    fst_buf again = {0};
    struct fst__rank_head own = *h;
    own.message = 0; /* filled in */
    if (fst__rank_frame_begin(&again, NULL) || fst_buf_append(&again, message, (size_t)h->message, NULL) ||
        fst__rank_frame_finish(&again, own, kept, NULL))
        abort();
    if (again.len != in->len || memcmp(again.data, in->data, in->len) != 0)
        abort();
    fst_buf_release(&again);
}

static void take_message(const struct fst__rank_head *h, const char *message)
{
    fst_message m;
    fst_error err;
    if ((h->what == FST__RANK_PLAY || h->what == FST__RANK_PLAYED) &&
        !fst_message_parse(&m, message, (size_t)h->message, &err) && m.count > FST_MESSAGE_TENSORS)
        abort();
    if (h->what == FST__RANK_FAILED || h->what == FST__RANK_CANNOT)
        (void)!fst_fail(&err, (fst_status)h->status, "rank 1: %.*s", (int)h->message, message);
}

int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size)
{
    fst_buf in = {0}; /* at a multiple of 64, as what a rank receives */
    if (fst_buf_append(&in, data, size, NULL))
        return 0;
    for (int answer = 0; answer < 2; answer++) {
        struct fst__rank_head h = {.what = FST__RANK_END};
        const char *message = NULL, *kept = NULL;
        fst_error err;
        if (!fst__rank_frame_read(in.data, in.len, answer != 0, &h, &message, &kept, &err)) {
            check_views(&in, &h, message, kept);
            write_again(&in, &h, message, kept);
            take_message(&h, message);
        } else if (message || kept || h.what != FST__RANK_END || err.status != FST_E_FORMAT) {
            abort();
        }
    }
    fst_buf_release(&in);
    return 0;
}

/*
 * rank_frame.h - what ranks say to each other about a federated stage, as bytes (federate_ranks.c says when). No ranks
 * in here, and no memory besides the buffer that is written to.
 *
 * A frame is a struct of numbers, then what it announces, each at a multiple of 8 bytes, with zeroes between. All ranks
 * are the same program on the same kind of processor, so numbers are as they lie in memory; but nothing in them is
 * believed before it is checked.
 */
#ifndef FST_TASK_RANK_FRAME_H
#define FST_TASK_RANK_FRAME_H

#include "fedstill/base.h"

enum fst__rank_what {
    FST__RANK_END,    /* rank 0 has ended; nothing follows */
    FST__RANK_OPEN,   /* of stage `stage`. Message: two digests, of the task and of the samples */
    FST__RANK_PLAY,   /* client `client` of it. Message: packed; kept: what that client kept */
    FST__RANK_OPENED, /* back: it has */
    FST__RANK_PLAYED, /* back: the update, and what the client keeps from now on */
    FST__RANK_FAILED, /* back: the client failed, as `status` and a text say */
    FST__RANK_CANNOT  /* back: this rank cannot take part, as a text says */
};

struct fst__rank_head {
    uint32_t what;    /* fst__rank_what */
    uint32_t client;  /* PLAY; otherwise 0 */
    uint32_t status;  /* FAILED; otherwise 0 */
    uint32_t stage;   /* OPEN, PLAY: its place in the task; otherwise 0 */
    uint64_t message; /* bytes: of a message, two digests, or a text of less than sizeof(fst_error.message) */
    uint64_t kept;    /* bytes: of what a client keeps; PLAY and PLAYED, otherwise 0 */
};

enum { FST__RANK_DIGESTS = 2 * FST_DIGEST_HEX };

/* Empties b and leaves room for the head; what is appended next is the message. */
FST_MUST fst_status fst__rank_frame_begin(fst_buf *b, fst_error *err);
/* Ends it: h.kept bytes of what is kept follow the message; h.message is filled in. */
FST_MUST fst_status fst__rank_frame_finish(fst_buf *b, struct fst__rank_head h, const void *kept, fst_error *err);
/*
 * What a frame holds; *message and *kept are views into it, at multiples of 8 from its first byte. answer: of rank 0's
 * questions or of what comes back. FST_E_FORMAT: it is no such frame; outputs are untouched.
 */
FST_MUST fst_status fst__rank_frame_read(const void *frame, size_t len, bool answer, struct fst__rank_head *h,
                                         const char **message, const char **kept, fst_error *err);

#endif

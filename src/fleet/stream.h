/*
 * stream.h - windows up, answers down: what a device says to its edge, and an edge to the cloud.
 *
 * One side has windows (samples of one shape, numbered by it from 0) and wants each classified; the other side
 * computes. Two pure machines, without thread, clock, socket or model in them:
 *
 *   asker     sends what the credit of the other side allows, asks again what is not answered in time
 *   answerer  holds the windows of several askers until they are computed, within a budget of memory; the last
 *             ANSWERED answers of each asker are kept, so that a question that comes twice has the same answer
 *
 * A stream is one life of an asker, named by a number that it draws when it starts. Whoever answers forgets what it
 * knew of an asker when another stream of it begins. docs/protocol.md has the messages byte by byte.
 */
#ifndef FST_FLEET_STREAM_H
#define FST_FLEET_STREAM_H

#include "fedstill/frame.h"
#include "fedstill/tensor.h"

enum {
    FST__WINDOWS_HEAD = 24, /* bytes before the dimensions, 4 bytes each */
    FST__ANSWERS_HEAD = 48,
    FST__ANSWER = 32,
    FST__ANSWERS_MOST = 4096, /* in one message */
    FST__ANSWERED = 4096,     /* answers that are kept of an asker, and windows that it may have unanswered */
    FST__STREAM_DIGEST = 32,  /* bytes */
    FST__NO_CLASS = 65535
};

/* ---- messages (stream_wire.c) ---------------------------------------------------------------------------- */

struct windows {
    uint64_t stream, first; /* number of the first; the others follow */
    uint32_t count;         /* 1 ... 65535 */
    fst_dtype dtype;        /* FST_U8 or FST_F32 */
    fst_shape shape;        /* of one window; 1 to FST_MAX_RANK dimensions */
    uint32_t bytes;         /* of one window */
    const void *data;       /* a view, count x bytes, without alignment */
};
/* What windows of this shape and type have; 0: they are none, or do not fit into a message. */
uint32_t fst__window_bytes(fst_dtype dtype, const fst_shape *shape);
/* How many of them a message may have. */
uint32_t fst__windows_most(const struct windows *of);
/* Appends the part before the windows' bytes. */
fst_status fst__windows_head(const struct windows *m, fst_buf *out, fst_error *err);
/* Allocates nothing; *out is untouched unless all figures belong together. */
bool fst__windows_read(struct windows *out, const void *body, size_t len);

enum { TIER_EDGE, TIER_CLOUD };
enum {
    MARK_UNSURE = 1, /* it should have gone to the cloud, which did not answer in time */
    MARK_REFUSED = 2 /* it could not be classified: class and first are FST__NO_CLASS */
};
struct stream_answer {
    uint64_t seq;
    uint16_t answer, first; /* classes: the answer, and what the edge's model says */
    uint8_t tier, marks;
    double confidence; /* of the edge's model, 0 ... 1 */
    uint32_t queue_us, compute_us;
};

struct answers {
    uint64_t stream;
    uint32_t credit;                          /* windows that may be unanswered */
    unsigned char digest[FST__STREAM_DIGEST]; /* of the models and settings that answered last */
    uint32_t count;                           /* 0 ... FST__ANSWERS_MOST */
    const void *data;                         /* a view, see fst__answers_at */
};
/* Appends the part before the answers. */
fst_status fst__answers_head(const struct answers *m, fst_buf *out, fst_error *err);
fst_status fst__answer_write(const struct stream_answer *a, fst_buf *out, fst_error *err);
bool fst__answers_read(struct answers *out, const void *body, size_t len);
struct stream_answer fst__answers_at(const struct answers *m, uint32_t i);

/* "fst/q/EDGE/DEVICE/LEAF" and "fst/a/DEVICE/LEAF"; devices' ids and edges' alone. */
char *fst__topic_ask(char out[FST_TOPIC], const char *edge, const char *device, const char *leaf);
char *fst__topic_reply(char out[FST_TOPIC], const char *device, const char *leaf);
/* The device and the leaf of such a topic; *leaf is a view. */
bool fst__topic_ask_split(const char *topic, const char *edge, char device[FST_SITE_ID], const char **leaf);
bool fst__topic_reply_split(const char *topic, const char *device, const char **leaf);

/* ---- who asks (stream_ask.c) ----------------------------------------------------------------------------- */

struct asker;
enum { FST__ASKER_SPAN = 16384 }; /* windows from the oldest that is unanswered to the newest */

/* credit: before anything is heard. */
fst_status fst__asker_new(struct asker **out, uint64_t stream, uint32_t credit, fst_error *err);
void fst__asker_free(struct asker *a);
/* One window more, to be asked about: it gets the next number. False: FST__ASKER_SPAN. what: the caller's name for it.
 */
bool fst__asker_add(struct asker *a, double now, uint64_t what, fst_error *err);
bool fst__asker_full(const struct asker *a);
/* What is to be sent now: *count windows (at most `most`) from number *first on, whose names are what[0 ... *count). */
bool fst__asker_next(struct asker *a, double now, uint32_t most, uint64_t *first, uint32_t *count, uint64_t *what);
/* That could not be sent. */
void fst__asker_unsent(struct asker *a, uint64_t first, uint32_t count);
/* Everything unanswered is asked again: the link came up, or the other side has. */
void fst__asker_again(struct asker *a, double now);
/* Calls fn for each answer that is the first to its window, with its name and the seconds since it was first asked. */
typedef void (*fst__answer_fn)(void *ctx, uint64_t what, double seconds, const struct stream_answer *answer);
void fst__asker_answers(struct asker *a, double now, const struct answers *m, fst__answer_fn fn, void *ctx);
/* The next window that nothing was heard about for `patience` seconds since it was added, nor anything else from the
 * other side; it counts as answered. */
bool fst__asker_give_up(struct asker *a, double now, double patience, uint64_t *what);
double fst__asker_due(const struct asker *a, double patience); /* patience INFINITY: never given up */
uint64_t fst__asker_left(const struct asker *a);               /* unanswered */
uint64_t fst__asker_asked_again(const struct asker *a);
uint64_t fst__asker_stream(const struct asker *a);

/* ---- who answers (stream_answer.c) ------------------------------------------------------------------------ */

struct answerer;
/* A window that waits for its answer. */
struct asked {
    struct asked *next;
    uint32_t asker;
    uint64_t life, seq; /* life: counts the streams that began, for a stream that was left may come again */
    double came, taken;
    struct stream_answer answer; /* the caller's, while it works on it */
    _Alignas(16) unsigned char data[];
};

struct answerer_spec {
    uint32_t askers;
    fst_dtype dtype;
    fst_shape shape;
    size_t budget;  /* bytes of windows that are held, over all askers */
    uint32_t batch; /* an asker's credit is one batch at least */
    unsigned char digest[FST__STREAM_DIGEST];
};
fst_status fst__answerer_new(struct answerer **out, const struct answerer_spec *spec, fst_error *err);
void fst__answerer_free(struct answerer *a);
/* A stream begins, or goes on: it is told its credit. */
fst_status fst__answerer_begin(struct answerer *a, uint32_t asker, uint64_t stream, fst_error *err);
/* Windows: those that were answered are answered again, those that are held are not held twice, those beyond the credit
 * are dropped, since they will be asked again. adopt: a stream that is not known begins. False: of another stream. */
bool fst__answerer_windows(struct answerer *a, double now, uint32_t asker, const struct windows *m, bool adopt);
/* The next window to be computed; NULL: none waits. It is the caller's until it is answered. */
struct asked *fst__answerer_take(struct answerer *a, double now);
size_t fst__answerer_waiting(const struct answerer *a);
/* h->answer stands; h is gone. False: its stream is over, and nobody hears it. */
bool fst__answerer_answer(struct answerer *a, struct asked *h);
/* The next body to send, and to whom; false: none. say_every: whoever has windows here hears of us that often, answers
 * or not (INFINITY: with answers alone). */
bool fst__answerer_next(struct answerer *a, double now, double say_every, uint32_t *asker, fst_buf *body);
void fst__answerer_unsent(struct answerer *a, uint32_t asker); /* it could not be sent */
uint64_t fst__answerer_stream(const struct answerer *a, uint32_t asker, bool *known);

struct answerer_counters {
    uint64_t windows, twice, answered_again, dropped, foreign;
};
const struct answerer_counters *fst__answerer_count(const struct answerer *a);

#endif

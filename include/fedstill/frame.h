/*
 * fedstill/frame.h - the envelope of every message of a fleet: who says it, in which run, and a hash.
 *
 * docs/protocol.md has the layout byte by byte. A frame is one message of a transport; what does not fit is a blob
 * (fedstill/blob.h). The hash finds damage, not forgery: that is the broker's access lists' and TLS' part.
 */
#ifndef FEDSTILL_FRAME_H
#define FEDSTILL_FRAME_H

#include "fedstill/base.h"

FST_BEGIN_DECLS

enum {
    FST_FRAME_VERSION = 1,
    FST_FRAME_HEADER = 68,
    FST_FRAME_OVERHEAD = FST_FRAME_HEADER + 8, /* the hash stands at the end */
    FST_FRAME_MAX = 512 * 1024 + 256,          /* bytes, header and hash included */
    FST_FRAME_CONTROL = 64 * 1024,             /* bytes of a body, of all kinds but PART, WINDOWS and ANSWERS */
    FST_SITE_ID = 33                           /* room for a site's id with its NUL */
};

typedef enum fst_frame_kind {
    /* from a site to the cloud */
    FST_KIND_HELLO = 1,
    FST_KIND_BEAT = 2,
    FST_KIND_RESULT = 3,
    FST_KIND_CANNOT = 4,
    FST_KIND_BYE = 5,
    /* either way: blobs */
    FST_KIND_GET = 6,
    FST_KIND_PART = 7,
    /* samples up, their classes down */
    FST_KIND_WINDOWS = 8,
    /* from the cloud to a site */
    FST_KIND_WELCOME = 9,
    FST_KIND_REFUSAL = 10,
    FST_KIND_ORDER = 11,
    FST_KIND_RECEIPT = 12,
    FST_KIND_ANSWERS = 13,
    /* between coordinators */
    FST_KIND_LEAD = 14,
    /* from a site to the cloud */
    FST_KIND_FIGURES = 15
} fst_frame_kind;
enum { FST_KINDS = 16 }; /* one more than the last */
/* "hello"; "unknown" for all else. */
FST_API const char *fst_frame_kind_name(fst_frame_kind kind);

typedef struct fst_frame {
    fst_frame_kind kind;
    uint16_t version;         /* decode fills it; encode writes FST_FRAME_VERSION */
    uint64_t run, epoch, seq; /* 0 where it is not known yet (run of a HELLO) */
    char sender[FST_SITE_ID]; /* [a-z0-9-]{1,32} */
    const void *body;         /* decode: a view into the message, without alignment */
    size_t body_len;
} fst_frame;

/* [a-z0-9-]{1,32}; NULL is not. */
FST_API bool fst_site_id_valid(const char *id);
/* Bytes that a body of this kind may have. */
FST_API size_t fst_frame_body_max(fst_frame_kind kind);

/* Appends the frame to out. A kind, sender or length that decode would refuse is a programmer's error:
 * FST_E_ARGUMENT, FST_E_LIMIT. */
FST_MUST FST_API fst_status fst_frame_encode(const fst_frame *f, fst_buf *out, fst_error *err);

/* Why a message is dropped. The first ones are decode's; the others are for those who know what they wait for, so that
 * all refusals are counted by one list of reasons. */
typedef enum fst_frame_refusal {
    FST_TAKEN = 0,
    FST_REFUSED_LENGTH,  /* shorter than a header, longer than allowed, or not as long as it says */
    FST_REFUSED_MAGIC,   /* not one of ours */
    FST_REFUSED_VERSION, /* another protocol; f->version says which. To be answered with REFUSAL */
    FST_REFUSED_HASH,    /* damaged */
    FST_REFUSED_KIND,    /* no such kind, or flags that are not 0 */
    FST_REFUSED_SENDER,  /* not an id */
    FST_REFUSED_TOPIC,   /* sender unlike the topic's, or a kind that does not belong there */
    FST_REFUSED_RUN,     /* another run. To be answered with REFUSAL */
    FST_REFUSED_EPOCH,   /* of a coordinator that has been replaced */
    FST_REFUSED_BODY,    /* its body does not follow its format */
    FST_REFUSED_RATE,    /* too many messages of that sender */
    FST_REFUSALS
} fst_frame_refusal;
/* "hash", "version" ...; "taken" for FST_TAKEN. */
FST_API const char *fst_frame_refusal_name(fst_frame_refusal r);

/* *out is a view into data. On refusal it is untouched, but for FST_REFUSED_VERSION, where out->version is set and all
 * else zero. Allocates nothing. */
FST_MUST FST_API fst_frame_refusal fst_frame_decode(fst_frame *out, const void *data, size_t len);

/* ---- topics ------------------------------------------------------------------------------- */

enum { FST_TOPIC = 128 }; /* room for a topic */

/* fst/up/SITE/LEAF and fst/dn/SITE/LEAF. Returns out. site and leaf must be ids ("+" too, for a filter). */
FST_API char *fst_topic_up(char out[FST_TOPIC], const char *site, const char *leaf);
FST_API char *fst_topic_down(char out[FST_TOPIC], const char *site, const char *leaf);
/* Takes fst/up/SITE/LEAF or fst/dn/SITE/LEAF apart; false for all else. *leaf is a view into topic. */
FST_API bool fst_topic_split(const char *topic, bool *up, char site[FST_SITE_ID], const char **leaf);

FST_END_DECLS

#endif

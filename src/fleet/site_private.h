/* site_private.h - the inside of a site, shared by what it says and does (site.c) and what it keeps (site_files.c). */
#ifndef FST_FLEET_SITE_PRIVATE_H
#define FST_FLEET_SITE_PRIVATE_H

#include "lines.h"
#include "site.h"

/* A blob that is here, decoded: a view of what was fetched, or bytes of its own. */
struct held {
    fst_blob_fetch *fetch;
    fst_buf raw;
    const void *data; /* NULL: there is none */
    size_t len;
};

struct site {
    struct site_spec spec;
    uint64_t run, epoch, seq;
    uint64_t ordered; /* seq of the last order, in this epoch: an order that was overtaken is void */
    bool up, welcome, ended;
    char why[FST__REASON];
    double hello_at, hello_wait, beat_at, say_at;
    fst__site_state state;
    struct order order;   /* of FETCH, TRAIN, OFFER and KEEP */
    struct order waiting; /* that came while another one trains */
    bool has_waiting;
    fst_blob_fetch *fetch;
    char fetched[FST_DIGEST_HEX]; /* of `down` */
    struct held down;             /* the message */
    fst_buf kept, next;           /* files without their head */
    struct line_of_file kept_of, next_of, outbox_of;
    fst_buf outbox; /* coded; empty: `shown` is a view of its file */
    const char *shown;
    size_t shown_len, shown_at; /* at: where the coded bytes begin */
    fst_blob_manifest manifest; /* of the outbox */
    fst_blob_server *server;
    double seconds;
    char cannot[FST__REASON]; /* why it could not train; "" */
    char waits[FST__REASON];  /* why its files cannot be written now; "" */
    double version_at;        /* before that nothing is said of a cloud's other version */
    double again_at, save_at; /* when that is tried again: the order of FETCH; run and epoch */
    bool asked;               /* the job was handed out */
    uint64_t measure_epoch;   /* whose order it is */
    struct order measure;     /* to be done, under way, or answered */
    bool to_measure, measuring, measured;
    fst_blob_fetch *giving; /* of what is to be measured, where it is not the client's own */
    struct held given;
    struct figures figures;
    bool save;              /* run or epoch changed */
    struct receipt receipt; /* the last one */
    uint64_t receipts;
    uint64_t windows, offloaded; /* of beats */
    char served[FST_DIGEST_HEX];
};

/* ---- site_files.c ---- */
uint64_t fst__site_in_memory(const struct site *s);
fst_status fst__site_save_run(struct site *s, fst_error *err);
/* What an earlier process left in the store. */
fst_status fst__site_take_up(struct site *s, fst_error *err);
/* Another run, or the end of one: what was kept for it is nobody's. */
void fst__site_forget_run(struct site *s);
/* remove: its file too. */
void fst__site_let_go(struct held *h, bool remove);
/* The update: kept on disk with what the client keeps if it counts, offered to the server, and not any more. */
fst_status fst__site_keep_update(struct site *s, const void *up, size_t len, const void *keep, size_t keep_len,
                                 fst_error *err);
void fst__site_serve_outbox(struct site *s);
void fst__site_hide_outbox(struct site *s);
bool fst__site_is_of(const struct line_of_file *f, const char *stage, int64_t round);
/* Before a round: what was kept becomes what the server has counted; `cannot` is set when that is gone. */
fst_status fst__site_settle_kept(struct site *s, const struct order *o, fst_error *err);
/* To measure, both stay as they are: the round may not be saved yet, and be played again. NULL: there is none. */
const fst_buf *fst__site_kept_after(const struct site *s, const struct order *o);

#endif

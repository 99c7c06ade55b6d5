/* watch_private.h - what the pages of cloud and edge are both made of (watch.c), and what the lines of events.jsonl add
 * up to (watch_tally.c). Everything runs on the web server's thread. */
#ifndef FST_FLEET_WATCH_PRIVATE_H
#define FST_FLEET_WATCH_PRIVATE_H

#include <jansson.h>

#include "fedstill/dashboard.h"
#include "watch.h"

/* ---- a page ---- */
struct watch_kind {
    /* As fst_dashboard_options has them; their ctx is the view. */
    fst_status (*state)(void *view, fst_buf *out, fst_error *err);
    fst_status (*metrics)(void *view, fst_buf *out, fst_error *err);
    void (*event)(void *view, const char *line, size_t len); /* may be NULL */
    void (*release)(void *view);                             /* and frees it */
};
/* Takes the view, also when it fails. events: the path of a file, or NULL. */
fst_status fst__watch_open(struct watch **out, const struct watch_kind *kind, void *view, const fst_fleet_http *http,
                           const char *events, fst_error *err);

/* ---- JSON ---- */
/* Appends it and drops it; NULL: there was no memory for it. */
fst_status fst__watch_write(json_t *j, fst_buf *out, fst_error *err);
/* Unix time of a moment of the monotonic clock, to the second, so that it stays the same; null: infinite. */
json_t *fst__watch_time(double at);
json_t *fst__watch_notes(const struct note *note, size_t count);
json_t *fst__watch_answered(const struct answered *a);

/* ---- metrics ---- */
/* A family of one sample without a label. */
fst_status fst__metric_one(fst_buf *out, const char *name, const char *type, const char *help, double value,
                           fst_error *err);
/* One sample for each of the names, 1 for the one that is. */
fst_status fst__metric_which(fst_buf *out, const char *name, const char *help, const char *label,
                             const char *const *names, size_t count, const char *is, fst_error *err);
/* Who this is. */
fst_status fst__metric_info(fst_buf *out, const char *tier, const char *id, fst_error *err);
fst_status fst__metric_answered(fst_buf *out, const struct answered *a, fst_error *err);
/* fedstill_bytes_total and fedstill_messages_total: samples of one kind, after their heads. */
fst_status fst__metric_bytes(fst_buf *out, const char *kind, double up, double down, fst_error *err);
fst_status fst__metric_disk(fst_buf *out, const char *folder, fst_error *err);

/* ---- watch_tally.c ---- */
enum { FST__TALLY_MODELS = 64 };
struct tally {
    int64_t run; /* the last one in the file; another one begins anew */
    char stage[64], state[64];
    uint64_t rounds, reported, lost, bytes_up, bytes_down;
    struct {
        char name[64]; /* of its stage */
        double accuracy, loss;
    } model[FST__TALLY_MODELS];
    size_t models;
};
void fst__tally_line(struct tally *t, const char *line, size_t len);

#endif

/* dashboard.h - between the web server (dashboard.c) and the streams of events that it serves (dashboard_events.c). */
#ifndef FST_REPORT_DASHBOARD_H
#define FST_REPORT_DASHBOARD_H

#include "fedstill/dashboard.h"

enum { FST__EVENT_LINE = 64 * 1024 /* bytes of a line; longer ones are left out */ };
#define FST__EVENTS_BACK ((uint64_t)4 << 20) /* what a stream without an id begins with, at most */

/* A file of lines that grows. It may not be there yet, and may be replaced or cut, which begins it anew. */
struct fst__lines {
    char *path;
    int fd; /* -1 */
    uint64_t size, file;
    unsigned generation; /* how often it began anew */
};
/* Where somebody reads. */
struct fst__lines_at {
    uint64_t at; /* of the next byte */
    unsigned generation;
    bool skipping; /* in the middle of a line that is left out */
};
void fst__lines_open(struct fst__lines *l, char *path);
void fst__lines_close(struct fst__lines *l);
/* Looks how long the file is now. True when there is more than the last time, or another file. */
bool fst__lines_look(struct fst__lines *l);
/* Calls fn with whole lines, without their line feeds, and where each ended, out of one read into buf (of
 * FST__EVENT_LINE bytes), until it returns false. False when there was nothing to read. Never more than the look saw.
 */
typedef bool (*fst__line_fn)(void *ctx, uint64_t end, const char *line, size_t len);
bool fst__lines_read(const struct fst__lines *l, struct fst__lines_at *at, char *buf, fst__line_fn fn, void *ctx);
/* Where a stream begins: behind the line that an id names, else up to FST__EVENTS_BACK before the end. id may be any
 * text or NULL. */
struct fst__lines_at fst__lines_from(const struct fst__lines *l, const char *id);

/* One event in the form of a stream. id 0: none. name NULL: none. */
FST_MUST fst_status fst__stream_event(fst_buf *out, const char *name, uint64_t id, const char *data, size_t len);

/* Whether a request's Host (may be NULL) is a loopback name, with or without a port. */
bool fst__is_loopback_host(const char *host);

extern const unsigned char fst__dashboard_page[];
extern const size_t fst__dashboard_page_size;

#endif

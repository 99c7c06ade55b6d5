/*
 * fedstill/dashboard.h - what a run is doing, for a browser and for Prometheus: a small web server that only answers.
 *
 *   /         a page, one HTML file, which asks nobody but this server
 *   /state    JSON, as the caller's `state` writes it
 *   /events   server-sent events (HTML Living Standard 9.2): the lines of a file of events (fedstill/store.h) as they
 *             are appended, each with an id that Last-Event-ID goes on from; and "state" whenever that has changed
 *   /metrics  text for Prometheus (exposition format 0.0.4), as the caller's `metrics` writes it
 *
 * Nothing can be changed through it. Requests are foreign bytes: 16 KiB of head, no body, 64 connections and 24 of one
 * address, 20 seconds for a request and its answer, 32 streams. On a loopback address without a token only requests to
 * a loopback name are answered, so that a page elsewhere whose name was made to point here reads nothing. On any other
 * address a token is needed: `Authorization: Bearer TOKEN`, compared in constant time; the page itself, which holds
 * nothing, asks for it. There is no TLS: a reverse proxy brings it.
 */
#ifndef FEDSTILL_DASHBOARD_H
#define FEDSTILL_DASHBOARD_H

#include "fedstill/base.h"

FST_BEGIN_DECLS

typedef struct fst_dashboard fst_dashboard;

typedef struct fst_dashboard_options {
    const char *address;    /* "PORT", "IPV4:PORT" or "[IPV6]:PORT"; without an address 127.0.0.1. Port 0: any */
    const char *token_file; /* one line of 16 to 256 printable characters, readable by its owner alone; NULL: none */
    const char *events;     /* a file of JSON lines that may not be there yet; NULL: none */
    /* All of these are called from the server's thread, one at a time. state appends one JSON text without line feeds,
     * metrics the text for Prometheus; a failure becomes an answer 500. event (may be NULL) gets every line of `events`
     * from the first one on, before state or metrics are asked. */
    void *ctx;
    fst_status (*state)(void *ctx, fst_buf *out, fst_error *err);
    fst_status (*metrics)(void *ctx, fst_buf *out, fst_error *err);
    void (*event)(void *ctx, const char *line, size_t len);
} fst_dashboard_options;

/* FST_E_CONFIG: no such address, no token where one is needed, or a token file that is none or others may read;
 * FST_E_IO: the port is taken. Strings are copied. */
FST_MUST FST_API fst_status fst_dashboard_open(fst_dashboard **out, const fst_dashboard_options *o, fst_error *err);
FST_API const char *fst_dashboard_url(const fst_dashboard *d); /* "http://127.0.0.1:8080/" */
/* Ends all streams, then stops. Takes NULL. */
FST_API void fst_dashboard_close(fst_dashboard *d);

/* ---- text for Prometheus ------------------------------------------------------------------- */

/* "# HELP" and "# TYPE"; type: "gauge", "counter" or "histogram". */
FST_MUST FST_API fst_status fst_metric_head(fst_buf *out, const char *name, const char *type, const char *help,
                                            fst_error *err);
/* One sample; label NULL: none. The label's value may be any text. */
FST_MUST FST_API fst_status fst_metric(fst_buf *out, const char *name, const char *label, const char *value,
                                       double number, fst_error *err);
/* The same with two labels. */
FST_MUST FST_API fst_status fst_metric2(fst_buf *out, const char *name, const char *label, const char *value,
                                        const char *label2, const char *value2, double number, fst_error *err);
/* process_* as Prometheus' own clients name them: CPU, memory, threads, open files, start. */
FST_MUST FST_API fst_status fst_metrics_process(fst_buf *out, fst_error *err);

FST_END_DECLS

#endif

/*
 * watch.h - the web page and the metrics of a cloud and of an edge: what each knows, as JSON for the page (/state) and
 * as text for Prometheus (/metrics). fedstill-edge has none and goes without libmicrohttpd (FST_NO_PAGE).
 */
#ifndef FST_FLEET_WATCH_H
#define FST_FLEET_WATCH_H

#include "coordinator.h"
#include "fedstill/fleet_run.h"
#include "serve.h"

struct watch;

/* ---- of the cloud (watch_cloud.c): all are the caller's, and live longer --------------------------------------- */

struct watch_cloud {
    const fst_fleet_http *http;
    const char *task, *output, *url; /* url: of the broker */
    uint64_t run, epoch;
    uint32_t clients;
    pthread_mutex_t *lock; /* held while the next three are read */
    const struct coordinator *coordinator;
    const fst_transport_counters *traffic;
    const struct answered *answered;
};
fst_status fst__watch_cloud(struct watch **out, const struct watch_cloud *spec, fst_error *err);

/* ---- of an edge (watch_edge.c) ---------------------------------------------------------------------------------- */

/* What it shows besides its devices. */
struct edge_view {
    bool up;               /* the link to the hub */
    double heard;          /* when, of the cloud; INFINITY: never */
    fst__site_state state; /* and the stage's name, the round from 0, run and epoch: as the site has them */
    char stage[FST__STAGE_NAME];
    uint64_t round, run, epoch;
    bool answers;                   /* the round at hand is one in which devices are answered */
    uint64_t rounds;                /* that it has worked on since this process began */
    double seconds;                 /* ... and how long */
    fst_transport_counters traffic; /* with the hub */
    struct notes notes;
    struct serve *serve; /* NULL: no devices yet */
};
struct watch_edge {
    const fst_fleet_http *http;
    const char *id, *task, *output, *url;
    pthread_mutex_t *lock; /* held while `view` is read; view->serve lives longer than the page */
    const struct edge_view *view;
};
#ifdef FST_NO_PAGE
static inline fst_status fst__watch_edge(struct watch **out, const struct watch_edge *spec, fst_error *err)
{
    (void)out, (void)spec;
    return fst_fail(err, FST_E_UNSUPPORTED, "this program has no page");
}
static inline void fst__watch_close(struct watch *w)
{
    (void)w;
}
#else
fst_status fst__watch_edge(struct watch **out, const struct watch_edge *spec, fst_error *err);
void fst__watch_close(struct watch *w); /* of either; takes NULL */
#endif

#endif

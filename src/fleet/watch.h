/* watch.h - the cloud's web page and metrics: what the coordinator knows, and what the run's events say. */
#ifndef FST_FLEET_WATCH_H
#define FST_FLEET_WATCH_H

#include "coordinator.h"
#include "fedstill/fleet_run.h"
#include "serve.h"

/* All are the caller's, and live longer. */
struct watch_spec {
    const fst_fleet_http *http;
    const char *task, *output, *url; /* url: of the broker */
    uint64_t run, epoch;
    uint32_t clients;
    pthread_mutex_t *lock; /* held while the next three are read */
    const struct coordinator *coordinator;
    const fst_transport_counters *traffic;
    const struct taught *taught;
};

struct watch;
fst_status fst__watch_open(struct watch **out, const struct watch_spec *spec, fst_error *err);
void fst__watch_close(struct watch *w); /* takes NULL */

/* ---- watch_tally.c: what the lines of events.jsonl add up to ---- */
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

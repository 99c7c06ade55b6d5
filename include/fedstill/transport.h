/*
 * fedstill/transport.h - what carries messages between the processes of a fleet: topics, bytes, and nothing else.
 *
 * A transport publishes bytes to topics and delivers bytes of topics that it subscribed to, at most once and in no
 * promised order: any message may be lost, doubled, delayed or overtaken. What is built on it (fedstill/frame.h,
 * fedstill/blob.h, the fleet's state machines) repeats what was not answered and refuses what does not belong. No
 * transport knows tensors, rounds or frames.
 *
 * Two of them are here: `inproc`, queues in one process with seeded faults for tests, and `mqtt`, a client of an MQTT
 * broker. tests/transport holds both to this header; a third one joins by passing the same suite.
 */
#ifndef FEDSTILL_TRANSPORT_H
#define FEDSTILL_TRANSPORT_H

#include "fedstill/base.h"

FST_BEGIN_DECLS

/* ---- limits ------------------------------------------------------------------------------- */

enum {
    FST_TRANSPORT_TOPIC = 128,                /* bytes of a topic or filter, with its NUL */
    FST_TRANSPORT_FILTERS = 4096,             /* subscriptions of one transport */
    FST_TRANSPORT_MESSAGE = 512 * 1024 + 256, /* bytes of a message, at most */
    FST_TRANSPORT_SMALL = 64 * 1024,          /* up to here a message may use the room that is kept for small ones */
    FST_TRANSPORT_UNSENT = 2 * 1024 * 1024,   /* bytes that were taken and are not on their way; then FST_E_BUSY */
    FST_TRANSPORT_RESERVE = 1024 * 1024       /* beyond that, for small messages only */
};

/* Topics are MQTT's: levels between slashes, 1 to 127 bytes of printable ASCII without "+" and "#". In a filter "+" is
 * any one level, and "#" as the last level stands for any number of them. Neither starts with "$". */
FST_API bool fst_topic_valid(const char *topic);
FST_API bool fst_filter_valid(const char *filter);
FST_API bool fst_topic_matches(const char *filter, const char *topic); /* both valid */

/* ---- transports --------------------------------------------------------------------------- */

typedef struct fst_transport fst_transport;

/*
 * What happens; called by fst_transport_poll, from its thread, and by nothing else. Any may be NULL. Handlers may
 * publish, subscribe and unsubscribe; they must not poll or close.
 */
typedef struct fst_transport_events {
    void *ctx;
    /* A message. topic and data are valid until the handler returns; data has no alignment. */
    void (*message)(void *ctx, const char *topic, const void *data, size_t len);
    /* The link came up (why is "") or went down, and the reason. It starts down. It comes back by itself, with all
     * subscriptions; what was unsent is lost. That it is up does not mean that anything arrives: only an answer does.
     */
    void (*link)(void *ctx, bool up, const char *why);
    /* There is room again after a publish that was FST_E_BUSY, or the link came up after one. */
    void (*room)(void *ctx);
} fst_transport_events;

/* What the broker publishes for us when the link breaks and not when it is closed. topic NULL: nothing. */
typedef struct fst_transport_will {
    const char *topic;
    const void *data;
    size_t len; /* at most FST_TRANSPORT_SMALL */
} fst_transport_will;

/* Since the transport was opened. Bytes are payloads; TLS, TCP and MQTT come on top. */
typedef struct fst_transport_counters {
    uint64_t messages_in, bytes_in;
    uint64_t messages_out, bytes_out; /* handed over, whether or not they arrived */
    uint64_t busy;                    /* publish: refused, no room or no link */
    uint64_t refused_long;            /* arrived, longer than FST_TRANSPORT_MESSAGE: dropped */
    uint64_t refused_retained;        /* arrived with the retain flag: dropped, since it may be of any age */
    uint64_t refused_topic;           /* arrived on a topic that is not valid here */
    uint64_t links;                   /* how often the link came up */
} fst_transport_counters;

/*
 * One way to carry messages. A transport is used by one thread at a time; only `wake` may be called by others. No call
 * but `poll` blocks, and `poll` not beyond its deadline by more than some milliseconds. All bytes and strings that come
 * in as arguments are copied.
 */
typedef struct fst_transport_ops {
    const char *name; /* "inproc", "mqtt" */
    /* Subscriptions count from the next poll on, are kept over lost links, and are idempotent. A message that matches
     * several filters may be delivered more than once. FST_E_ARGUMENT: not a filter; FST_E_LIMIT: too many. */
    fst_status (*subscribe)(fst_transport *t, const char *filter, fst_error *err);
    /* Messages that are on their way may still be delivered. One that was not subscribed to is no error. */
    fst_status (*unsubscribe)(fst_transport *t, const char *filter, fst_error *err);
    /* Takes the message and returns at once; poll sends it. FST_E_BUSY: not taken, since the link is down or too much
     * is unsent; `room` follows. FST_E_LIMIT: longer than FST_TRANSPORT_MESSAGE; FST_E_ARGUMENT: not a topic. */
    fst_status (*publish)(fst_transport *t, const char *topic, const void *data, size_t len, fst_error *err);
    /* Sends, receives and calls handlers, until at least one handler was called, or wake was, or the clock
     * (fst_clock_seconds) says `deadline`; a deadline in the past does what can be done without waiting. A handler is
     * called for what is there when poll looks, never for more than 64 messages a call. A broken link is no failure:
     * what fails (FST_E_MEMORY, FST_E_IO) is this process, and the transport is to be closed. */
    fst_status (*poll)(fst_transport *t, double deadline, fst_error *err);
    /* Makes the poll that is going on, or the next one, return. From any thread, also from a signal handler. */
    void (*wake)(fst_transport *t);
    /* Bytes that were taken and have not been given to the operating system (mqtt) or the hub (inproc). */
    size_t (*unsent)(const fst_transport *t);
    /* Says goodbye (there will be no will) if that goes without waiting, and frees. Unsent messages are lost: who wants
     * them sent polls until `unsent` is 0. */
    void (*close)(fst_transport *t);
} fst_transport_ops;

/* What every transport starts with. */
struct fst_transport {
    const fst_transport_ops *ops;
    fst_transport_events on;
    fst_transport_counters count;
};

FST_MUST FST_API fst_status fst_transport_subscribe(fst_transport *t, const char *filter, fst_error *err);
FST_MUST FST_API fst_status fst_transport_unsubscribe(fst_transport *t, const char *filter, fst_error *err);
FST_MUST FST_API fst_status fst_transport_publish(fst_transport *t, const char *topic, const void *data, size_t len,
                                                  fst_error *err);
FST_MUST FST_API fst_status fst_transport_poll(fst_transport *t, double deadline, fst_error *err);
FST_API void fst_transport_wake(fst_transport *t);
FST_API size_t fst_transport_unsent(const fst_transport *t);
FST_API const fst_transport_counters *fst_transport_count(const fst_transport *t);
FST_API void fst_transport_close(fst_transport *t); /* takes NULL */

/* ---- inproc ------------------------------------------------------------------------------- */

/* A broker in memory. It may be used by transports of several threads at the same time. */
typedef struct fst_inproc fst_inproc;

/* Faults, drawn by stream (seed, "inproc", number of the message): the same calls in the same order have the same
 * faults. All 0: none, and messages of one sender arrive in their order. */
typedef struct fst_inproc_faults {
    uint64_t seed;
    double drop;  /* probability that a message is lost on its way to a receiver */
    double twice; /* ... that it comes twice */
    double late;  /* ... that it comes up to `lateness` seconds later, so that others overtake it */
    double delay; /* seconds that every message takes */
    double lateness;
} fst_inproc_faults;

typedef struct fst_inproc_options {
    fst_inproc_faults faults;
    /* The hub's clock stands still until fst_inproc_advance, and poll never waits: for tests in simulated time. Without
     * it, time is fst_clock_seconds. */
    bool simulated_time;
    size_t queue; /* bytes that wait for one receiver; beyond, new ones are dropped, as brokers do. 0: 64 MiB */
} fst_inproc_options;

/* options NULL: all 0. */
FST_MUST FST_API fst_status fst_inproc_new(fst_inproc **out, const fst_inproc_options *options, fst_error *err);
/* All transports must be closed before. Takes NULL. */
FST_API void fst_inproc_free(fst_inproc *hub);
/* Sets simulated time; going back is ignored. */
FST_API void fst_inproc_advance(fst_inproc *hub, double now);

/* A transport that is linked to the hub from its first poll on. A second one of the same id throws the first one out,
 * as brokers do: its link goes down and stays down. id: 1 to 63 bytes. on and will NULL: none. */
FST_MUST FST_API fst_status fst_inproc_open(fst_transport **out, fst_inproc *hub, const char *id,
                                            const fst_transport_events *on, const fst_transport_will *will,
                                            fst_error *err);
/* Cuts the link of a transport: what was on its way to it or unsent is lost, its will is published, and it stays down
 * until healed. An id that is not there is ignored. */
FST_API void fst_inproc_cut(fst_inproc *hub, const char *id);
FST_API void fst_inproc_heal(fst_inproc *hub, const char *id);
/* As if its process had been killed: its will is published, and the memory freed. */
FST_API void fst_inproc_kill(fst_transport *t);

/* ---- mqtt --------------------------------------------------------------------------------- */

/*
 * A client of an MQTT broker (libmosquitto): QoS 0, clean start, no session, nothing retained, keepalive of 5 s.
 * TLS 1.3 with a certificate of its own; the broker's must be signed by `ca` and be for the URL's host. A link that
 * breaks or does not come up within 5 s is tried again after 0.1 s, doubling to 2 s, or to 30 s when the broker refuses
 * us; a random part of the wait keeps a fleet from coming back in one moment. Names are resolved on a thread of its
 * own.
 *
 * A certificate that expired, was revoked or is not known shows as a link that goes down again, with the reason.
 */
typedef struct fst_mqtt_options {
    const char *url;  /* "mqtts://HOST[:PORT]", port 8883; "mqtt://HOST[:PORT]" is plain text, port 1883. [::1] too */
    const char *id;   /* client id, 1 to 63 bytes; with certificates the broker may put their name in its place */
    const char *ca;   /* PEM files; all three with mqtts, none with mqtt */
    const char *cert; /* a chain, the client's own first */
    const char *key;
    fst_transport_will will;
    bool mqtt311;       /* MQTT 3.1.1 instead of 5 */
    unsigned keepalive; /* seconds, 0: 5 */
} fst_mqtt_options;

/* Checks URL, files, and that key and certificate belong together (FST_E_CONFIG, FST_E_IO) and returns without a link.
 * FST_E_UNSUPPORTED: built without libmosquitto. */
FST_MUST FST_API fst_status fst_mqtt_open(fst_transport **out, const fst_mqtt_options *options,
                                          const fst_transport_events *on, fst_error *err);

FST_END_DECLS

#endif

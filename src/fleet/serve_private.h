/* serve_private.h - the inside of an edge that answers its devices: the thread (serve.c) and what devices say besides
 * their windows (serve_devices.c). Everything but the mailboxes belongs to the thread. */
#ifndef FST_FLEET_SERVE_PRIVATE_H
#define FST_FLEET_SERVE_PRIVATE_H

#include <pthread.h>
#include <stdatomic.h>

#include "serve.h"
#include "stream.h"

enum { FST__OUTBOX = 16, FST__INBOX = 64 }; /* bodies */

/* One device as its edge knows it. */
struct device {
    char id[FST_SITE_ID];
    uint32_t number; /* in the task, from 0 */
    bool known;      /* it said hello, or sent windows */
    bool bye;
    double heard;
    uint64_t received, answered; /* windows of its stream */
    uint64_t stream;
    uint64_t raw; /* windows that came bare */
    uint32_t windows;
    bool offered, done; /* what it was answered */
    struct result result;
    fst_blob_fetch *fetch;
    fst_buf record; /* done: a message of the kind FST_CASCADE_ANSWERS */
};

struct mailbox {
    fst_buf *body;
    size_t room, first, count;
};

/* What the devices are answered with. */
struct loaded {
    fst_cascade_bundle bundle;
    fst_tier *tier;
    unsigned char digest[FST__STREAM_DIGEST];
};

struct serve {
    struct serve_spec spec;
    char id[FST_SITE_ID];
    char task[FST_DIGEST_HEX];
    fst_transport *local;
    char said[FST__SAID];
    bool up, call; /* call: devices are to say who they are */
    uint64_t seq;
    struct device *device;
    uint32_t devices;

    struct loaded *at_work;
    struct answerer *answers; /* askers: devices, then the same devices' bare windows */
    struct asker *cloud;
    bool cloud_up;
    float *logits;
    struct asked **batch;
    fst_buf body;
    struct answered count;
    double look_at; /* when `seen` is written anew */
    double stop_at, stop_until;

    pthread_t thread;
    bool running;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    struct mailbox out, in;
    struct loaded *pending;
    bool link_up, end, tell, cancelled;
    bool complete; /* all devices have said what they were answered */
    fst_cascade_answers result;
    fst_status failed;
    fst_error why;
    struct serve_view seen; /* for others than the thread, with */
    struct device_view *seen_device;
};

/* ---- serve_look.c ---- */
/* A line for the log and for who looks. */
void fst__serve_say(struct serve *s, fst_log_level level, const char *fmt, ...) FST_PRINTF(3, 4);

/* Leaves a copy for fst__serve_look, some times a second at most. */
void fst__serve_show(struct serve *s, double now);

/* ---- serve_devices.c ---- */
void fst__serve_device_message(struct serve *s, const char *topic, const void *data, size_t len);
/* A frame to a device, once. */
fst_status fst__serve_tell(struct serve *s, const struct device *d, const char *leaf, fst_frame_kind kind,
                           const fst_buf *body);
/* All of them are asked to say hello at once, so that they begin together and not when each says it again. */
void fst__serve_call(struct serve *s);
/* Fetches what devices were answered. */
void fst__serve_fetch(struct serve *s, double now);
double fst__serve_fetch_due(const struct serve *s);
/* Lets them go; true once all have gone that were there, or `until` is over. */
bool fst__serve_dismiss(struct serve *s, double now);
void fst__serve_devices_free(struct serve *s);

#endif

/*
 * fedstill/cascade_run.h - the cascade with its devices and edges elsewhere: what the cloud sends an edge, what comes
 * back, and a device's windows.
 *
 * A task's stage cloud_infer is then a round of its edges (fst_task_options.teacher): each is sent a bundle, the model,
 * temperature and threshold to answer its devices with, and returns what its devices were answered. Likewise
 * cloud_direct_infer, where edges pass on what devices send. How windows travel is the fleet's affair
 * (docs/protocol.md).
 */
#ifndef FEDSTILL_CASCADE_RUN_H
#define FEDSTILL_CASCADE_RUN_H

#include "fedstill/infer.h"
#include "fedstill/strategy.h"
#include "fedstill/task.h"

FST_BEGIN_DECLS

/* ---- what an edge is sent ------------------------------------------------------------------ */

/* The kind of such a message. */
#define FST_CASCADE_BUNDLE "cascade"

typedef struct fst_cascade_bundle {
    bool relay; /* the edge passes everything on to the cloud: there is no model but its number of classes */
    fst_model model;
    fst_tier_spec tier; /* backend NULL */
    double ask_timeout; /* seconds without a word from the cloud after which an edge answers itself; 0: it waits */
    uint32_t devices;   /* of all edges */
    uint32_t *edge_of;  /* [devices], from 0 */
    uint32_t *windows;  /* [devices]: how many each has */
} fst_cascade_bundle;
/* Everything is copied. FST_E_MISMATCH, FST_E_FORMAT: not such a message. */
FST_MUST FST_API fst_status fst_cascade_bundle_read(fst_cascade_bundle *out, const fst_message *m, fst_error *err);
FST_API void fst_cascade_bundle_release(fst_cascade_bundle *b);

/* ---- what comes back ------------------------------------------------------------------------ */

#define FST_CASCADE_ANSWERS "cascade_answers"
enum { FST_ANSWER_UNSURE = 1, FST_ANSWER_REFUSED = 2 };

/* Answers to windows of some devices, device by device, each in the order of its windows. */
typedef struct fst_cascade_answers {
    size_t windows, devices;
    int32_t *answer, *first;         /* [windows]: the class, and what the edge's model says; -1: refused */
    uint8_t *tier, *marks;           /* 0 the edge, 1 the cloud; FST_ANSWER_... */
    double *confidence;              /* of the edge's model */
    double *total, *queue, *compute; /* seconds, by the device's clock and those of the tiers */
    double *seconds;                 /* [devices]: from the first window sent to the last answer */
    int64_t *again;                  /* [devices]: windows that were sent again */
} fst_cascade_answers;
FST_MUST FST_API fst_status fst_cascade_answers_init(fst_cascade_answers *a, size_t windows, size_t devices,
                                                     fst_error *err);
FST_API void fst_cascade_answers_release(fst_cascade_answers *a);
/* Views: a must outlive the message. */
FST_MUST FST_API fst_status fst_cascade_answers_write(const fst_cascade_answers *a, fst_message *m, fst_error *err);
/* Copies them to places of a, from window and device `at` on. FST_E_MISMATCH, with nothing copied: others than so many,
 * or values that no answer has. classes: of the model. */
FST_MUST FST_API fst_status fst_cascade_answers_read(fst_cascade_answers *a, size_t at_window, size_t at_device,
                                                     size_t windows, size_t devices, int classes, const fst_message *m,
                                                     fst_error *err);

/* ---- a device ---------------------------------------------------------------------------------- */

typedef struct fst_task_device fst_task_device;
typedef struct fst_task_device_info {
    char task[FST_DIGEST_HEX]; /* as fst_task_identity has it */
    uint32_t device, edge;     /* from 0 */
    size_t windows, batch;     /* batch: handed over at a time */
    double interval;           /* seconds between two batches */
    fst_dtype dtype;
    fst_shape shape;
    size_t bytes; /* of a window */
} fst_task_device_info;
/* The share of device `device` (from 0) of the stage that deals out windows (device_load). Opens the task's data and
 * writes nothing but made signals. FST_E_CONFIG: no such device, or no such stage. t and o must outlive it. */
FST_MUST FST_API fst_status fst_task_device_open(fst_task_device **out, fst_task *t, const fst_task_options *o,
                                                 uint32_t device, fst_error *err);
FST_API void fst_task_device_close(fst_task_device *d);
FST_API const fst_task_device_info *fst_task_device_look(const fst_task_device *d);
/* The i-th window's bytes. */
FST_MUST FST_API fst_status fst_task_device_window(const fst_task_device *d, size_t i, void *out, fst_error *err);
/* How many devices the task's cascade has, and of each its edge ([*devices], new memory; may be NULL): 0 without a
 * topology or without stages that ask devices. Reads no samples. */
FST_MUST FST_API fst_status fst_task_devices(const fst_task *t, uint32_t *devices, uint32_t **edge_of, fst_error *err);
/* Whether a stage is one that devices take part in. */
FST_API bool fst_task_is_cascade(const fst_task *t, const char *stage);

FST_END_DECLS

#endif

/*
 * fedstill/store.h - what a run leaves behind besides its models: the registry of all runs of this
 * machine's user (SQLite), the events of one run (JSON lines), and checkpoints (safetensors).
 *
 * None of the three is needed for a right result except checkpoints: a caller whose registry or
 * event file cannot be written warns and goes on.
 */
#ifndef FEDSTILL_STORE_H
#define FEDSTILL_STORE_H

#include "fedstill/tensor.h"

FST_BEGIN_DECLS

/* ---- run registry ------------------------------------------------------------------------- */

/* One SQLite file that several processes use at the same time. An object belongs to one thread at a
 * time. */
typedef struct fst_registry fst_registry;

typedef enum fst_run_status {
    FST_RUN_RUNNING,
    FST_RUN_DONE,
    FST_RUN_FAILED,
    FST_RUN_STOPPED,    /* asked to stop (a signal, a deadline); can be resumed */
    FST_RUN_INTERRUPTED /* never stored: a "running" run whose process is no longer there */
} fst_run_status;

/* "running", "done", "failed", "stopped", "interrupted". */
FST_API const char *fst_run_status_name(fst_run_status s);

/* Where the registry is: $FEDSTILL_HOME/runs.sqlite, else $XDG_STATE_HOME/fedstill/runs.sqlite, else
 * $HOME/.local/state/fedstill/runs.sqlite. Empty variables count as unset, and so does a relative
 * XDG_STATE_HOME (as its specification wants). Free *out with fst_free. */
FST_MUST FST_API fst_status fst_registry_path(char **out, fst_error *err);
/* path NULL: fst_registry_path(). Creates file and folders. FST_E_FORMAT when the file is no registry
 * or is damaged, FST_E_UNSUPPORTED when a newer fedstill wrote it, FST_E_IO for the rest. */
FST_MUST FST_API fst_status fst_registry_open(fst_registry **out, const char *path, fst_error *err);
/* The default one, if there is one: FST_E_IO otherwise, and nothing is made. */
FST_MUST FST_API fst_status fst_registry_open_existing(fst_registry **out, fst_error *err);
FST_API void fst_registry_free(fst_registry *r);

typedef struct fst_run_start {
    const char *task;      /* the task's name */
    const char *task_path; /* its folder or file */
    const char *output;    /* output folder; its absolute path is what is stored */
    uint64_t seed;
    bool fresh;           /* always a new run, whatever the output folder held */
    const char *settings; /* what the result depends on, "key=value" a line; NULL: not known */
} fst_run_start;

/* Registers this process as running `start`. A run of the same output folder, task name, seed and settings continues
 * (same id, its figures stay, *resumed is true); of several the one that was at work last. */
FST_MUST FST_API fst_status fst_registry_begin(fst_registry *r, const fst_run_start *start, int64_t *id, bool *resumed,
                                               fst_error *err);
/* A sign of life: when the process is killed, it has worked at least until now. */
FST_MUST FST_API fst_status fst_registry_touch(fst_registry *r, int64_t id, fst_error *err);
/* What the run is doing now; message may be NULL. */
FST_MUST FST_API fst_status fst_registry_stage(fst_registry *r, int64_t id, const char *stage, const char *message,
                                               fst_error *err);
/* A key figure of a stage ("accuracy", "loss", "seconds", "bytes_up", "bytes_down", ...). Reported again it
 * replaces the value; the lowest and highest numbers so far are kept too. NaN is kept as NaN. */
FST_MUST FST_API fst_status fst_registry_figure(fst_registry *r, int64_t id, const char *stage, const char *key,
                                                double value, fst_error *err);
/* The same for text ("digest"). */
FST_MUST FST_API fst_status fst_registry_figure_text(fst_registry *r, int64_t id, const char *stage, const char *key,
                                                     const char *text, fst_error *err);
/* status: DONE, FAILED or STOPPED. message may be NULL. */
FST_MUST FST_API fst_status fst_registry_finish(fst_registry *r, int64_t id, fst_run_status status, const char *message,
                                                fst_error *err);

/* A run as it is read back. Strings are never NULL and live until the callback returns. */
typedef struct fst_run {
    int64_t id;
    const char *task, *task_path, *output, *stage, *message, *host;
    uint64_t seed;
    int64_t pid;
    int64_t started_ms, updated_ms, ended_ms; /* unix time; ended_ms is 0 while it has not ended */
    double seconds;                           /* time worked, without the pauses before it was resumed */
    fst_run_status status;
    double last_accuracy,
        best_accuracy;    /* the figure "accuracy" that was reported last, and its highest value so far (of
                           * the same stage: models of different stages are not compared); NaN: none */
    const char *settings; /* as in fst_run_start; "" when they are not known */
} fst_run;
typedef struct fst_figure {
    const char *stage, *key;
    const char *text;        /* NULL for a number */
    double value, low, high; /* last, lowest, highest; NaN for text */
    int64_t time_ms;
} fst_figure;
/* Return false to be called no more. A callback may read the registry, not write it. */
typedef bool (*fst_run_fn)(void *ctx, const fst_run *run);
typedef bool (*fst_figure_fn)(void *ctx, const fst_figure *figure);

/* That which was at work last comes first; at most `limit` (0: all). */
FST_MUST FST_API fst_status fst_registry_list(fst_registry *r, size_t limit, fst_run_fn fn, void *ctx, fst_error *err);
/* Calls fn once with the run that `name` means: an id, a task's name (its newest run), or an output
 * folder. FST_E_CONFIG when there is none. */
FST_MUST FST_API fst_status fst_registry_find(fst_registry *r, const char *name, fst_run_fn fn, void *ctx,
                                              fst_error *err);
/* All figures of a run, in the order in which they were first reported. */
FST_MUST FST_API fst_status fst_registry_figures(fst_registry *r, int64_t id, fst_figure_fn fn, void *ctx,
                                                 fst_error *err);

/* ---- events ------------------------------------------------------------------------------- */

/*
 * One JSON object a line:
 *   {"time": "2025-01-31T12:00:00.123Z", "run": 7, "stage": "edge_kd", "event": "epoch", "epoch": 3, "loss": 0.25}
 * Fields follow the four fixed keys in the caller's order. A double that is NaN or infinite is null.
 */
typedef enum fst_field_type { FST_FIELD_STRING, FST_FIELD_INT, FST_FIELD_DOUBLE, FST_FIELD_BOOL } fst_field_type;
typedef struct fst_field {
    const char *key;
    fst_field_type type;
    union {
        const char *string; /* NULL is written as null */
        int64_t integer;
        double number;
        bool boolean;
    } value;
} fst_field;
#define FST_STRING(k, v) ((fst_field){.key = (k), .type = FST_FIELD_STRING, .value.string = (v)})
#define FST_INT(k, v) ((fst_field){.key = (k), .type = FST_FIELD_INT, .value.integer = (v)})
#define FST_DOUBLE(k, v) ((fst_field){.key = (k), .type = FST_FIELD_DOUBLE, .value.number = (v)})
#define FST_BOOLEAN(k, v) ((fst_field){.key = (k), .type = FST_FIELD_BOOL, .value.boolean = (v)})

typedef struct fst_events fst_events;
/* Opens for appending (creating it); a last line that a crash cut off is ended first. run is written
 * into every event. */
FST_MUST FST_API fst_status fst_events_open(fst_events **out, const char *path, int64_t run, fst_error *err);
FST_API void fst_events_free(fst_events *e);
/* The stage of the events that follow; copied (cut at 63 bytes). NULL or "" for none. */
FST_API void fst_events_stage(fst_events *e, const char *stage);
/* Appends one line with one write(). e NULL does nothing. Never fails for what a number is; any
 * failure is only reported, and the next event may succeed. Bytes that are not UTF-8 become U+FFFD.
 * Safe to call from several threads. */
FST_API fst_status fst_events_emit(fst_events *e, const char *event, const fst_field *fields, size_t nfields,
                                   fst_error *err);

/* An event read back. null reads as a double NaN. Strings live until the callback returns. */
typedef struct fst_event {
    const char *time, *stage, *event;
    int64_t run;
    const fst_field *fields;
    size_t nfields;
} fst_event;
typedef bool (*fst_event_fn)(void *ctx, const fst_event *event); /* false: stop reading */

#define FST_EVENTS_MAX_BYTES ((size_t)1 << 30)
#define FST_EVENTS_MAX_LINE ((size_t)1 << 20)
/* Reads a file's events in order. Lines that are no events (cut off by a crash, longer than
 * FST_EVENTS_MAX_LINE) are counted in *skipped (may be NULL), not errors; nested values in an event
 * are left out. */
FST_MUST FST_API fst_status fst_events_read(const char *path, fst_event_fn fn, void *ctx, size_t *skipped,
                                            fst_error *err);
FST_MUST FST_API fst_status fst_events_parse(const void *data, size_t len, fst_event_fn fn, void *ctx, size_t *skipped,
                                             fst_error *err);
/* The field `key` of an event, NULL when it has none. */
FST_API const fst_field *fst_event_field(const fst_event *e, const char *key);
/* Its number (integers are converted); NaN when it is missing or is no number. */
FST_API double fst_event_number(const fst_event *e, const char *key);

/* ---- checkpoints -------------------------------------------------------------------------- */

/*
 * A checkpoint is a safetensors file that appears whole or not at all. Its metadata hold, besides the
 * caller's values, a fingerprint (a digest of everything the content depends on: configuration, data,
 * earlier stages) and an XXH3-128 hash over all values and tensors, so that neither a checkpoint of
 * other inputs nor one with a flipped bit is ever continued from.
 */

/* Collects what is written. Keys and names may not be given twice. */
typedef struct fst_checkpoint_writer fst_checkpoint_writer;
FST_MUST FST_API fst_status fst_checkpoint_writer_new(fst_checkpoint_writer **out, const char *fingerprint,
                                                      fst_error *err);
FST_API void fst_checkpoint_writer_free(fst_checkpoint_writer *w);
/* The name is copied, the data borrowed until fst_checkpoint_write. */
FST_MUST FST_API fst_status fst_checkpoint_add(fst_checkpoint_writer *w, const fst_tensor *t, fst_error *err);
FST_MUST FST_API fst_status fst_checkpoint_add_all(fst_checkpoint_writer *w, const fst_tensor *t, size_t n,
                                                   fst_error *err);
/* Values, kept as text that reads back to exactly the same value (doubles as %a, or "nan"). Keys that
 * start with "fedstill." are the library's own. */
FST_MUST FST_API fst_status fst_checkpoint_put_text(fst_checkpoint_writer *w, const char *key, const char *value,
                                                    fst_error *err);
FST_MUST FST_API fst_status fst_checkpoint_put_int(fst_checkpoint_writer *w, const char *key, int64_t value,
                                                   fst_error *err);
FST_MUST FST_API fst_status fst_checkpoint_put_uint(fst_checkpoint_writer *w, const char *key, uint64_t value,
                                                    fst_error *err);
FST_MUST FST_API fst_status fst_checkpoint_put_double(fst_checkpoint_writer *w, const char *key, double value,
                                                      fst_error *err);
/* Writes atomically; digest (may be NULL) becomes the SHA-256 of the file. The writer can be used again:
 * the data are read anew. */
FST_MUST FST_API fst_status fst_checkpoint_write(const fst_checkpoint_writer *w, const char *path,
                                                 char digest[FST_DIGEST_HEX], fst_error *err);

/* A checkpoint that was read whole into memory and found intact. */
typedef struct fst_checkpoint fst_checkpoint;
#define FST_CHECKPOINT_MAX_BYTES ((uint64_t)16 << 30)
/* FST_E_MISMATCH when it has another fingerprint (NULL: any), FST_E_FORMAT when it is cut off, changed or
 * no checkpoint, FST_E_IO when there is none. */
FST_MUST FST_API fst_status fst_checkpoint_open(fst_checkpoint **out, const char *path, const char *fingerprint,
                                                fst_error *err);
FST_API void fst_checkpoint_free(fst_checkpoint *c);
FST_API const char *fst_checkpoint_fingerprint(const fst_checkpoint *c);
FST_API size_t fst_checkpoint_count(const fst_checkpoint *c);
/* The i-th tensor; name and data live as long as c and must not be changed. */
FST_API fst_tensor fst_checkpoint_at(const fst_checkpoint *c, size_t i);
/* Fills the data of all n wanted tensors. Names, types and shapes of all are checked first: on
 * FST_E_MISMATCH nothing was written. The checkpoint may hold more. */
FST_MUST FST_API fst_status fst_checkpoint_load(const fst_checkpoint *c, const fst_tensor *wanted, size_t n,
                                                fst_error *err);
/* FST_E_MISMATCH when the key is missing or its text is no such value. *out of _text lives as long as c. */
FST_MUST FST_API fst_status fst_checkpoint_text(const fst_checkpoint *c, const char *key, const char **out,
                                                fst_error *err);
FST_MUST FST_API fst_status fst_checkpoint_int(const fst_checkpoint *c, const char *key, int64_t *out, fst_error *err);
FST_MUST FST_API fst_status fst_checkpoint_uint(const fst_checkpoint *c, const char *key, uint64_t *out,
                                                fst_error *err);
FST_MUST FST_API fst_status fst_checkpoint_double(const fst_checkpoint *c, const char *key, double *out,
                                                  fst_error *err);

FST_END_DECLS

#endif

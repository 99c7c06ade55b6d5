/*
 * fedstill/task.h - a task file, and running it: stages that leave artifacts, run again only when
 * their inputs changed, and go on where they stopped.
 */
#ifndef FEDSTILL_TASK_H
#define FEDSTILL_TASK_H

#include "fedstill/base.h"
#include "fedstill/data.h"

#ifdef __cplusplus
#include <atomic>
typedef std::atomic<int> fst_atomic_int;
#else
#include <stdatomic.h>
typedef atomic_int fst_atomic_int;
#endif

FST_BEGIN_DECLS

typedef struct fst_task fst_task;
struct fst_message;       /* fedstill/strategy.h */
struct fst_simulate_spec; /* fedstill/fed.h */
struct fst_tier;          /* fedstill/infer.h */

/* path: a folder with task.yaml (or with input/STAGE.json, docs/formats.md), or a file. sets: "key.path=value"
 * overrides. FST_E_CONFIG for what is wrong in it, with file, line, key and accepted values. */
FST_MUST FST_API fst_status fst_task_load(fst_task **out, const char *path, const char *const *sets, size_t nsets,
                                          fst_error *err);
/* output/task.yaml, which a run kept: keys without effect, which earlier versions wrote there, are ignored. */
FST_MUST FST_API fst_status fst_task_load_kept(fst_task **out, const char *path, fst_error *err);
FST_API void fst_task_free(fst_task *t);
FST_API const char *fst_task_name(const fst_task *t);
FST_API const char *fst_task_output(const fst_task *t); /* the folder that the program owns */
/* Another one instead of that of the file; a relative path starts from the current folder. */
FST_MUST FST_API fst_status fst_task_set_output(fst_task *t, const char *output, fst_error *err);
/* What results depend on, one "key=value" a line, defaults included: two runs with the same lines are the same run. */
FST_MUST FST_API fst_status fst_task_settings(const fst_task *t, fst_buf *out, fst_error *err);
/* The task with every default filled in, as YAML. */
FST_MUST FST_API fst_status fst_task_dump(const fst_task *t, fst_buf *out, fst_error *err);
/* The reference of the task file in Markdown. */
FST_MUST FST_API fst_status fst_task_reference(fst_buf *out, fst_error *err);

/* The samples of a task, opened and dealt as its stages do it; writes nothing. folder: what the task file's relative
 * paths start from; output: the run's folder; NULL: the task's own. t must outlive it. Where edges have files of their
 * own and these are not all here, as at a fleet's cloud, only the cloud's are opened, and the edges have no samples. */
typedef struct fst_task_data fst_task_data;
FST_MUST FST_API fst_status fst_task_data_open(fst_task_data **out, const fst_task *t, const char *folder,
                                               const char *output, fst_error *err);
FST_API void fst_task_data_free(fst_task_data *d);
FST_API const fst_source *fst_task_data_train(const fst_task_data *d); /* of all places */
FST_API const fst_source *fst_task_data_test(const fst_task_data *d);
typedef struct fst_task_place {
    const char *name;      /* "training", or with a topology "cloud", "edge 1"; valid until the next call */
    const uint32_t *index; /* its training samples: those to learn from, then those of validation */
    size_t learn, validate;
} fst_task_place;
/* The i-th place; false after the last. */
FST_API bool fst_task_data_place(fst_task_data *d, size_t i, fst_task_place *out);

/* Who wants to watch. Any member may be NULL. All calls come from the thread that runs the task. */
typedef struct fst_observer {
    void *ctx;
    void (*stage)(void *ctx, const char *stage, const char *state); /* "runs", "resumes", "up to date", "kept ...",
                                                                     * "taken from ...", or "done", which its accuracy
                                                                     * may follow: "done, 97.31 % right ..." */
    void (*begin)(void *ctx, const char *label, uint64_t total, const char *unit);
    void (*update)(void *ctx, uint64_t done, const char *note); /* the first, at once: 0, or where it resumes */
    void (*end)(void *ctx, const char *note);
} fst_observer;

/* What a model is worth at a client: its own on the test samples, or one that it was given on its validation samples.
 */
typedef struct fst_client_figures {
    bool has; /* false: it has no model yet, no samples for it, or is not there to be asked */
    double accuracy, loss;
    uint64_t samples, right;     /* that it was measured on, and those of them that it knew */
    char arch[64];               /* "mnist_student" */
    char digest[FST_DIGEST_HEX]; /* of its file; "" when none was written */
    /* Of its own model, with the file: on samples of the client that nobody learns from, and the model that all have,
     * or all started from, on the same; NaN where there is none. own_samples 0: the client has no such samples. */
    uint64_t own_samples;
    double own_accuracy, own_global_accuracy;
} fst_client_figures;

/* What a site has, for the server to compare and to show. */
typedef struct fst_task_identity {
    char task[FST_DIGEST_HEX]; /* of what results depend on */
    char data[FST_DIGEST_HEX]; /* of what the client has and which of it is for what, see fst_task_has_places */
    uint32_t client;           /* from 0 */
    uint64_t learn, validate;  /* its samples */
    char missing[200];         /* classes that it has no samples of; "" when it has all */
    /* Where sites have files of their own, what all must have alike: */
    char samples[80];            /* "F32 (2, 1024), SNR, bursts" */
    int classes;                 /* as far as its own samples show */
    char names[FST_DIGEST_HEX];  /* of the names of the classes; "" when they have none */
    char common[FST_DIGEST_HEX]; /* of the samples of data.path, "" where they are not needed */
} fst_task_identity;

typedef struct fst_task_options {
    const char *mode;    /* "full_train" (default), "pretrain", "knowledge_distillation", "federated_learning",
                          * "full_pipeline", "device_to_edge", "device_to_edge_to_cloud", "device_to_cloud" */
    const char *stage;   /* only this one (what it needs must be up to date); NULL: by mode */
    int workers;         /* clients trained at the same time; 0: CPUs */
    int threads;         /* of central training and evaluation; 0: CPUs */
    const char *backend; /* NULL: the default */
    bool fresh;          /* forget what is there and start anew */
    bool no_reuse;       /* take no finished stages from other outputs */
    const char *beside; /* a folder of outputs, such as the runs of a sweep: finished stages, and signals that were made
                         * for data.synth, are taken from there first, whatever no_reuse says. NULL: none */
    const char *until; /* a stage of the file, NULL: none. The run ends as if it had been stopped when this one is done,
                        * or has done `until_count` epochs or rounds (0: all); *paused (may be NULL) becomes true
                        * where something is left to do */
    int64_t until_count;
    bool *paused;
    fst_observer observer;
    /* Becomes non-zero, from any thread or signal handler: write a checkpoint and return FST_E_CANCELLED. */
    const fst_atomic_int *stop;
    /* Plays the rounds of a federated stage with clients elsewhere, to the bits of fst_simulate, which does it here
     * when this is NULL. Called on the thread that runs the task. */
    fst_status (*rounds)(void *ctx, const char *stage, const struct fst_simulate_spec *spec, fst_error *err);
    /* With it, for strategies that leave each client a model of its own: fills `each` of the stage's clients after so
     * many rounds. fingerprint "": only measured; otherwise their files are written, where they are. */
    fst_status (*measure)(void *ctx, const char *stage, uint64_t rounds, const char *fingerprint,
                          struct fst_client_figures *each, fst_error *err);
    /* With `rounds`, of a task whose edges have files of their own: only the cloud's are opened, and this says what
     * each of the edges has. want: samples, classes, names and common of the cloud, which they must fit. */
    fst_status (*places)(void *ctx, const fst_task_identity *want, fst_task_identity *each, size_t count,
                         fst_error *err);
    /* After `places`: the number of classes and the digest of all their samples together (fst_task_site_learn_of). */
    void (*whole)(void *ctx, int classes, const char *data);
    /* With `rounds`: gives clients some bytes and takes what fst_task_site_measure makes of them. given: one for all,
     * or one for each of the stage's clients, empty for those that are not asked. Fails when one of them does not
     * answer. */
    fst_status (*ask)(void *ctx, const char *stage, uint64_t rounds, const fst_buf *given, size_t count,
                      fst_client_figures *each, fst_error *err);
    /* With it and a topology, the windows of stage cloud_infer come from devices of a fleet (fedstill/cascade_run.h):
     * the stage is a round of `rounds`, and until this is called again with NULL, what edges are not sure of is
     * answered by the tier, which others may use meanwhile. */
    fst_status (*teacher)(void *ctx, struct fst_tier *tier, fst_error *err);
    /* With `rounds`: a round that has ended could not be kept on the disk (FST_E_IO), which may have room again later.
     * Waits a while and is true, and it is tried again; false: the run fails with what is in `why`. */
    bool (*wait_for_room)(void *ctx, const fst_error *why);
    void *rounds_ctx; /* of all of these */
    /* The other processes of mpirun, where fst_task_rank_serve runs: each plays clients of federated stages, one at a
     * time, as a worker of this process would, to the same bits; `workers` has no effect then. The caller's; not with
     * `rounds`. NULL: there are none. */
    struct fst_ranks *ranks;
} fst_task_options;

/* The output folder is locked; a second process is refused. */
FST_MUST FST_API fst_status fst_task_run(fst_task *t, const fst_task_options *o, fst_error *err);
/* ---- one client of a task's federated stages, as a process of its own ---- */

typedef struct fst_task_site fst_task_site;

/* Whether the edges have files of their own (data.edge_paths). A site then opens its own files and no others, but for
 * those of data.path where a strategy wants public or test samples at the sites, and the data digest is that of its
 * files and of which sample is for what. Otherwise every site opens all and takes its share, and the data digest is of
 * the share's samples and labels in their order, and of the test samples. */
FST_API bool fst_task_has_places(const fst_task *t);
/*
 * Opens the data and takes the share of `client` (from 0) in the task's federated stages. t and o must outlive it.
 * FST_E_CONFIG when there is no such client, or the task has no federated stage. Nothing is written but made signals,
 * in the output.
 */
FST_MUST FST_API fst_status fst_task_site_open(fst_task_site **out, fst_task *t, const fst_task_options *o,
                                               uint32_t client, fst_error *err);
FST_API void fst_task_site_close(fst_task_site *s);
FST_API const fst_task_identity *fst_task_site_identity(const fst_task_site *s);
/* What all sites' samples together are, as the server knows it: the number of classes (0: as this site's own), and the
 * digest of all training samples ("": as this site's own), for the files that it writes. Before the first round. */
FST_MUST FST_API fst_status fst_task_site_learn_of(fst_task_site *s, int classes, const char *data, fst_error *err);
/* Gives back the memory of the samples, and of what was trained with, until they are wanted again, by work or
 * measuring: a site that only answers its devices needs none. */
FST_API void fst_task_site_rest(fst_task_site *s);
/* Measures the model in what the client keeps (as fst_task_site_work gave it) on the task's test samples. fingerprint:
 * of the stage at the cloud, then it also becomes a file in the output, STAGE/NOUN_K_model.safetensors; "": it does
 * not. */
FST_MUST FST_API fst_status fst_task_site_measure(fst_task_site *s, const char *stage, const void *kept, size_t len,
                                                  const char *fingerprint, fst_client_figures *out, fst_error *err);
/* What it makes of bytes that the server sent (fst_task_options.ask): of a model, a message "state" of a federated
 * stage, what it is worth on the client's validation samples, or, where each client has a model of its own, the first
 * one, which it keeps in the output; of the teachers of a stage that labels at the clients,
 * the soft labels of its samples, which it keeps in the output (figures: how many, and the digest of the file). Labels
 * that are there already are not made again. given is aligned to 8 bytes. */
FST_MUST FST_API fst_status fst_task_site_answer(fst_task_site *s, const char *stage, const void *given, size_t len,
                                                 fst_client_figures *out, fst_error *err);
/* The lines of fst_task_settings that must be the same at server and sites, all but where files lie; and their digest.
 */
FST_MUST FST_API fst_status fst_task_site_settings(const fst_task *t, fst_buf *out, fst_error *err);
FST_MUST FST_API fst_status fst_task_site_digest(const fst_task *t, char out[FST_DIGEST_HEX], fst_error *err);
/* How many clients the task's federated stages have, and what one is called: "edge" or "client". FST_E_CONFIG when
 * there is no such stage. Reads no samples. */
FST_MUST FST_API fst_status fst_task_clients(const fst_task *t, uint32_t *count, const char **noun, fst_error *err);
/* Whether clients of a federated stage keep something from round to round. */
FST_API bool fst_task_site_keeps(const fst_task_site *s, const char *stage);
/*
 * Plays one round of `stage`: as fst_client_work, whose `kept`, `keep` and life of views it has. Not to be called by
 * two threads at a time.
 */
FST_MUST FST_API fst_status fst_task_site_work(fst_task_site *s, const char *stage, const void *kept, size_t len,
                                               const struct fst_message *down, struct fst_message *up, fst_buf *keep,
                                               fst_error *err);

/* ---- a process of mpirun that plays clients for that of number 0 ---- */

/*
 * On every other rank, until rank 0 says that it has ended (fst_task_ranks_end). It opens the same task and data, and
 * reads what earlier stages left in the output, which all ranks must see; it writes nothing. why: this rank cannot take
 * part (the task was not read, say), which rank 0 is told when it wants it to play; t may be NULL then. NULL: it can.
 * FST_E_CANCELLED: it was to stop.
 */
FST_MUST FST_API fst_status fst_task_rank_serve(struct fst_ranks *r, fst_task *t, const fst_task_options *o,
                                                const fst_error *why, fst_error *err);
/* On rank 0: lets the others end. Those that do not listen are left to the launcher. */
FST_API void fst_task_ranks_end(struct fst_ranks *r);

/* What a run would do: stages, samples, parameters, FLOPs, bytes over the network, memory. Touches nothing. */
FST_MUST FST_API fst_status fst_task_dry_run(fst_task *t, const fst_task_options *o, fst_buf *out, fst_error *err);
/* Removes what runs with other settings left in the folder `kept` of an output, all but the `newest` of each stage's;
 * *removed and *bytes say how many and how much. Runs with those settings compute anew. The output is locked. */
FST_MUST FST_API fst_status fst_task_prune(const char *output, size_t newest, size_t *removed, uint64_t *bytes,
                                           fst_error *err);
FST_END_DECLS

#endif

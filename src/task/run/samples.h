/*
 * samples.h - the samples of a run and who has which: the data of a place.
 *
 * fst__samples_open reads the sources that the task names, sets test samples apart, and deals the training samples to
 * the cloud and, with a topology, to the edges; each share is a list of positions in `train`, first those to train on,
 * then those of validation. Nothing changes after that, so every thread may read it. Who the clients are without a
 * topology is clients.c.
 *
 * Where the edges have files of their own (data.edge_paths), a process of a fleet opens those of its place alone:
 * shares of other edges have no list then (`index` is NULL), and at the cloud `elsewhere` says what they are.
 */
#ifndef FST_TASK_SAMPLES_H
#define FST_TASK_SAMPLES_H

#include "fedstill/data.h"
#include "fedstill/task.h"
#include "task_file.h"

/* Training samples of one place: first those to learn from, then those of validation. */
struct share {
    uint32_t *index; /* in `train` of the samples */
    size_t learn, validate;
};

struct made_signals { /* of a dry run, which has no file for them */
    float *x, *snr;
    int32_t *labels;
    int64_t *burst;
};

struct samples {
    fst_source *owned[2 * FST__MAX_EDGES + 8]; /* all that were opened; later ones may refer to earlier ones */
    size_t nowned;
    fst_source *train, *test; /* two of them */
    struct made_signals made;
    /* The first place's own training split, of which train begins with `count` samples: those at `index`, or all. */
    struct {
        const fst_source *source;
        uint32_t *index;
        size_t count;
    } first;
    fst_transform transform;
    struct share public; /* data.public, belonging to no place: all in `learn`; index NULL: none */
    struct share cloud;  /* of all training samples; with a topology the cloud's */
    size_t edges;        /* 0 without a topology */
    struct share edge[FST__MAX_EDGES];
    bool places;                                /* the edges have files of their own; then */
    char place[FST__MAX_EDGES][FST_DIGEST_HEX]; /* what each of them has, "" where that is not known here */
    fst_task_identity own;                      /* at an edge of a fleet: what must be alike at all places */
    fst_task_identity *elsewhere;               /* at the cloud of a fleet: [edges]; NULL: their samples are here */
};

/* Places whose samples a process opens. */
enum { FST__ALL_PLACES = 0, FST__ONLY_CLOUD = -1 /* from 1: only that edge */ };

/* ---- session_data.c ---- */
void fst__samples_release(struct samples *d);
/* "E-2D_1, P-3C_2": the classes that a share has no samples of. Returns how many. */
int fst__missing_classes(const struct samples *d, const struct share *h, char *out, size_t size);
/* The same of `n` samples of a source; index NULL: all that it has. */
int fst__missing_of(const fst_source *source, const uint32_t *index, size_t n, char *out, size_t size);
/* A digest of which samples a share has and which of them it learns from. */
void fst__share_digest(const struct share *h, char out[FST_DIGEST_HEX]);

/* One place's samples in parts, validation and test by share; bursts stay whole. subset NULL: the first n. */
fst_status fst__deal_parts(const fst_source *source, const uint32_t *subset, size_t n, double val, double test,
                           uint64_t seed, fst_tiers *out, fst_error *err);

/* ---- overlap.c ---- */
/* Says what a user should know of the samples before a number is made of them: classes that are missing from training,
 * validation or test, places without validation, and samples that stand in two of these. */
fst_status fst__note_samples(const struct samples *d, const struct data_section *settings, fst_error *err);

/* ---- clients.c ---- */
/* The clients of the rounds and their samples to learn from, positions in `train`. Samples of validation and, with a
 * topology, of the cloud belong to nobody. */
fst_status fst__clients(const struct samples *d, const fst_task *t, fst_partition *out, fst_error *err);
/* The same of the samples that each client keeps to measure its own model on: those of the edges, or clients.validation
 * of what a client has. A client may have none. */
fst_status fst__client_validation(const struct samples *d, const fst_task *t, fst_partition *out, fst_error *err);
/* A digest of who has which samples. */
void fst__clients_digest(const fst_partition *p, char out[FST_DIGEST_HEX]);

/* ---- class_weights.c ---- */
/* How many of n samples (index NULL: the first) of a source each class has; counts: as many as there are classes. */
void fst__count_classes(const fst_source *source, const uint32_t *index, size_t n, int64_t *counts);
/* scikit-learn's rule: n / (k n_c), k being the classes that have samples: a sample's mean weight is 1, and a class
 * without samples gets that too. */
void fst__balance(const int64_t *counts, int classes, double *weight);
/* The weights of a place with these samples: the setting's list, or `room` (as many as classes), filled; NULL: all 1.
 */
const double *fst__weights_of(const struct class_weights *w, const int64_t *counts, int classes, double *room);
/* Does a list of a stage fit the data? */
fst_status fst__check_class_weights(const struct samples *d, const char *stage, const struct class_weights *w,
                                    fst_error *err);

/* ---- topology.c ---- */
/* Which edge (from 0) a device (from 0) belongs to. */
int64_t fst__edge_of_device(const struct topology_section *t, int64_t device);

#endif

/*
 * step.h - a stage at run time: where it stands, and what it left.
 *
 * A run has a step for every stage of its task. Its fingerprint is the digest of everything that the result depends on,
 * computed once the stages that it reads are done, since their digests are part of it (record.c). A finished step
 * leaves output/NAME/stage.json, its record; a step is up to date when there is a record with its fingerprint and the
 * files are those that the record names.
 */
#ifndef FST_TASK_STEP_H
#define FST_TASK_STEP_H

#include "fedstill/base.h"
#include "stages.h"

#define FST__EDGE_MODEL "edge_%d_model.safetensors" /* K from 1 */
enum { FST__SNR_BINS = 64 };
/* Accuracy by signal-to-noise ratio, of the test samples whose ratio is known. */
struct snr_table {
    size_t count;
    struct {
        double from, to; /* dB, from <= snr < to; equal: just this one */
        int64_t samples, correct;
    } bin[FST__SNR_BINS];
};

/* What an edge got out of a stage of rounds. Its last local model is edge_K_model.safetensors, K from 1. */
struct edge_figures {
    char digest[FST_DIGEST_HEX];
    int64_t samples, validation;
    int64_t rounds;                /* that its update entered; 0: it has no model, and digest is "" */
    double accuracy, own_accuracy; /* of its model on the test samples and on its own validation samples (NaN: none) */
    double global_accuracy;        /* of the global model on its own validation samples */
    char missing[200];             /* classes that it has no samples of: "E-2D_1, P-3C_2" */
};

/* Clients' own models on samples of their own, which nobody learns from; NaN and 0 where there are none. */
struct own_figures {
    int64_t samples;
    double accuracy;        /* of a client's model; of several: weighted by these samples */
    double global_accuracy; /* of the model that all have, or all started from, on the same samples */
};

/* What a finished step left: output/NAME/stage.json. */
struct record {
    char fingerprint[FST_DIGEST_HEX];              /* of everything that the result depends on */
    char artifact[256];                            /* file name inside the step's folder */
    char digest[FST_DIGEST_HEX];                   /* of the artifact */
    char extra[256], extra_digest[FST_DIGEST_HEX]; /* a second file (the partition); "" for none */
    char clients_digest[FST_DIGEST_HEX];           /* of clients.json, which names the clients' models; "" for none */
    bool has_model;                                /* the artifact is a model, so accuracy, loss and parameters hold */
    double accuracy, loss, seconds;
    double macro_f1, balanced; /* of a model; NaN in records of earlier versions */
    double top5;               /* NaN too with five classes or fewer */
    double validation;         /* accuracy of the model on the validation samples; NaN: there are none */
    int64_t parameters, samples;
    uint64_t bytes_up, bytes_down;
    uint64_t raw_up, raw_down; /* had codecs not coded anything; 0: there are none */
    int64_t best_round;        /* of rounds: the round whose model was kept, from 1; 0: no choice was made */
    char fused_from[48];       /* what a fusion's adapter learnt from; "": there is none */
    double gate;               /* of the fusion, at the end */
    struct snr_table snr;
    struct own_figures own; /* of all clients together */
    size_t edges;           /* 0 without a topology */
    struct edge_figures edge[FST__MAX_EDGES];
};

struct step {
    const struct stage *stage;
    bool chosen;                 /* the options ask for it */
    bool planned;                /* it is chosen, or it may be up to date once what is chosen has run */
    bool done;                   /* `record` is of a step that is up to date */
    char taught[FST_DIGEST_HEX]; /* labels made at the clients of a fleet: the digest of the teachers that were sent to
                                  * them; "": none yet */
    bool told;                   /* its figures belong into the registry */
    char fingerprint[FST_DIGEST_HEX];
    char resumes[FST_DIGEST_HEX]; /* of checkpoints: the same whatever the number of epochs or rounds, where that many
                                   * more of them can follow (fst__extendable) */
    char *inputs;                 /* the text that the fingerprint is the digest of; NULL before */
    struct record record;
};

#endif

/* federate.h - the rounds of the kind federated_train (federate.c), whose settings are federated_train.c, and what the
 * files of the rounds share. */
#ifndef FST_TASK_FEDERATE_H
#define FST_TASK_FEDERATE_H

#include "fedstill/fed.h"
#include "fedstill/fuse.h"
#include "session.h"

/* The reference to the soft labels of local training. */
#define FST__LOCAL_LABELS "distillation.soft_labels"

/* Runs the rounds, and saves the global model and the edges', or the clients' own (stage_kind.run). */
fst_status fst__federate(struct session *s, struct step *own, struct record *r, fst_error *err);
/* The network of each client, as the task names it. */
fst_status fst__client_models(const struct session *s, const struct step *own, size_t clients, const char **name,
                              fst_error *err);

struct federation {
    struct session *s;
    struct step *own;
    const struct federated_section *section;
    fst_model *model;
    fst_fed_state global; /* the model's state */
    fst_partition partition;
    fst_partition validation;     /* of the clients' own models; no clients: there is none */
    int64_t *samples;             /* by client */
    int64_t *rounds_of;           /* by client: rounds that its update entered */
    fst_client_figures *figures;  /* by client, room for those of a round; of edges and of own models alone */
    char (*data)[FST_DIGEST_HEX]; /* by client, what it must have; NULL when they are all in this process */
    struct score *worth;          /* by edge: room for what a model is worth on its validation samples */
    bool alone;                   /* at a site: only `client` is here */
    uint32_t client;
    bool apart;         /* each client has a model of its own, and there is no other */
    bool mentors;       /* each client has a network of its own beside the shared one */
    bool given;         /* at a site, own models: the model that they start from is in `model` */
    fst_model *network; /* own models: the different networks; their states are not used */
    int networks;
    int *network_of;        /* own models: by client */
    fst_fed_state *initial; /* own models: [workers x networks], room for a new client's first model */
    fst_fed_view *first;    /* by worker: views of these */
    double **weight;        /* by worker: room, by class: what the client's classes count */
    fst_public public;      /* data.public; count 0: none */
    fst_work work;
    fst_local_plan plan;
    fst_soft_labels labels; /* of local training; none without distillation */
    uint32_t *rows;         /* by training sample: its row in them */
    const fst_strategy_ops *ops;
    fst_strategy *strategy;
    fst_fuser *fuser; /* NULL: no fusion */
    fst_virtual *clients;
    struct fst__crew *crew;           /* other ranks, which play clients too; NULL: there are none */
    char *checkpoint, *last, *folder; /* folder: of what clients keep in files */
    fst_buf room;                     /* for one client's */
    fst_codecs codecs;
    uint64_t round, bytes_up, bytes_down, raw_up, raw_down;
    fst_state best;       /* select: best, the global model of best_round */
    double best_accuracy; /* on the edges' validation samples; below 0: none yet */
    uint64_t best_round;  /* from 1 */
    fst_state *edge;      /* by edge: its last local model; NULL without a topology */
    uint64_t saved_round; /* the checkpoint holds the state after so many rounds; 0: there is none */
    double seconds_before, started;
    struct save_clock saves;
};

/* ---- federated_train.c ---- */
/* Zeroes: nothing is coded. */
fst_codecs fst__codecs(const struct federated_section *t);
/* Whether clients keep something from round to round: what their strategy, their codecs or their optimisers need. */
bool fst__clients_keep(const struct federated_section *t);

/* ---- federate_clients.c ---- */
/* "edge" or "client" */
const char *fst__federate_noun(const struct session *s);
/* The clients' networks, and the strategy's client halves. */
fst_status fst__federate_clients(struct federation *f, const fst_setting *settings, size_t n, fst_error *err);
void fst__federate_clients_release(struct federation *f);
/* An fst_work_fn; ctx is the federation. */
fst_status fst__federate_play(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err);
void fst__federate_settle(void *ctx, const fst_round_report *report);
/* Keeps an edge's update as its last model. */
void fst__federate_arrived(void *ctx, const fst_message *up);
/* What a client has; kept: whether it kept something from an earlier round. */
void fst__federate_env(struct federation *f, int worker, uint32_t client, bool kept, fst_client_env *out);
/* Mean accuracy and loss of the clients' own models on the test samples. each: [clients], figures by client.
 * fingerprint: where the clients are elsewhere, they also write their models' files; "": they do not. */
fst_status fst__federate_score(struct federation *f, const char *fingerprint, struct score *out,
                               fst_client_figures *each, fst_error *err);
/* "client_3_model.safetensors" */
void fst__client_file(const struct session *s, uint32_t client, char out[64]);
/* The model that a client keeps, as a view, until the next call; false when it has none yet, or *st became a failure.
 */
bool fst__federate_model_of(struct federation *f, uint32_t client, fst_state *out, fst_status *st, fst_error *err);
/* Writes every client's own model and clients.json, which becomes the record's artifact where there is no shared model.
 */
fst_status fst__federate_write_clients(struct federation *f, struct record *r, fst_error *err);

/* ---- federate_site.c ---- */
/* Of a client's samples and labels in their order, by keys, and of the test samples: the same wherever the files lie.
 */
fst_status fst__client_digest(const struct samples *d, const fst_partition *p, uint32_t client,
                              char out[FST_DIGEST_HEX], fst_error *err);
/* Whether the stage's clients may be processes of their own: FST_E_CONFIG says what they would need. */
fst_status fst__federate_elsewhere(const struct step *own, fst_error *err);

/* ---- federate_ranks.c: at rank 0 ---- */
/* Has the other ranks open the stage; *f gets a crew if there are others. Before fst__federate_clients; released by
 * fst__crew_free. */
FST_MUST fst_status fst__crew_begin(struct federation *f, fst_error *err);
void fst__crew_free(struct federation *f);
/* fst_virtual_spec.play; ctx is the federation. */
FST_MUST fst_status fst__crew_play(void *ctx, int worker, const void *kept, size_t len, const fst_message *down,
                                   fst_message *up, fst_buf *keep, fst_error *err);

/* ---- federate_first.c ---- */
/* Whether the clients' own models start from one that `init` names. */
bool fst__federate_wants_first(const struct federation *f);
/* A model as the bytes that clients elsewhere are given. */
fst_status fst__federate_pack(const struct federation *f, const fst_state *state, fst_buf *out, fst_error *err);
/* At the cloud of a fleet: sends it to all sites, where they need it. After fst__federate_resume. */
fst_status fst__federate_give_first(struct federation *f, fst_error *err);
/* At a site: keeps what was sent; finds what an earlier process kept; FST_E_CONFIG when a new client needs one that
 * is not there. */
fst_status fst__federate_take_first(struct federation *f, const void *given, size_t len, fst_error *err);
void fst__federate_recall_first(struct federation *f);
fst_status fst__federate_has_first(const struct federation *f, fst_error *err);

/* ---- federate_edges.c ---- */
/* What models are worth on the edges' own validation samples, where these are: of[k], or of[0] for all; NULL, and edges
 * without such samples: FST__NO_SCORE. score: [edges]. */
fst_status fst__federate_validate(struct federation *f, const fst_state *const *of, size_t models, struct score *score,
                                  fst_error *err);
/* The edges' last local models, beside the global one. */
fst_status fst__federate_save_edges(struct federation *f, struct record *r, fst_error *err);

/* ---- federate_ensemble.c ---- */
/* Tells how the clients' models, kept beside the shared one, answer together. */
fst_status fst__federate_ensemble(struct federation *f, fst_error *err);

/* ---- federate_fusion.c ---- */
/* Makes f->fuser, for the server of env. */
fst_status fst__federate_fuser(struct federation *f, const fst_server_env *env, fst_error *err);
/* What the stage's fusion takes at the server; FST_E_CONFIG with the full key when it cannot be. */
fst_status fst__federate_fusion_size(const struct session *s, const struct step *own, const char *network,
                                     fst_fusion_size *out, fst_error *err);
/* Warns where the fusions of a stage change nothing. */
void fst__federate_warn_fusion(const struct step *own);
void fst__federate_record_fusion(const struct federation *f, struct record *r);
/* The event of the round that is over. */
void fst__federate_tell_fusion(struct federation *f);

/* ---- federate_own.c ---- */
/* Which samples clients keep for their own models. */
fst_status fst__federate_own_samples(struct federation *f, fst_error *err);
/* A client's own model on them. */
fst_status fst__federate_own(struct federation *f, uint32_t client, const fst_model *model, struct own_figures *out,
                             fst_error *err);
/* Takes one client's figures into those of all. */
void fst__federate_own_add(struct own_figures *sum, const struct own_figures *one);

/* ---- federate_labels.c ---- */
/* The soft labels that the clients learn from, if any: fills labels, rows, and the plan's loss. */
fst_status fst__federate_labels(struct federation *f, fst_error *err);
void fst__federate_labels_release(struct federation *f);

/* ---- federate_save.c ---- */
/* Writes everything that the stage needs to continue after f->round rounds. */
fst_status fst__federate_save(struct federation *f, const char *path, fst_error *err);
/* The state at the end, from which more rounds can follow. */
fst_status fst__federate_save_last(struct federation *f, fst_error *err);
/* Continues from where it was stopped, or from the end of a run of fewer rounds; starts anew without either. */
fst_status fst__federate_resume(struct federation *f, fst_error *err);

#endif

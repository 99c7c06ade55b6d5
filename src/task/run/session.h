/* A running task, and what its steps share: data, records of finished steps, evaluation, checkpoints. */
#ifndef FST_TASK_SESSION_H
#define FST_TASK_SESSION_H

#include "fedstill/models.h"
#include "fedstill/store.h"
#include "task_file.h"

/* A step makes one artifact. edge_alone is the part of the stage edge_kd that trains the baseline. */
enum step {
    STEP_PRETRAIN,
    STEP_SOFT,
    STEP_ALONE,
    STEP_DISTIL,
    STEP_FEDERATE,
    STEP_DEVICES,
    STEP_EDGE,
    STEP_CLOUD,
    STEP_DIRECT,
    STEPS
};
enum { STAGES = 8 };
extern const char *const fst__step_names[STEPS];  /* folders under output/ */
extern const char *const fst__step_stages[STEPS]; /* the stage that a step belongs to */

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

/* What an edge got out of federated_train. Its last local model is edge_K_model.safetensors, K from 1. */
struct edge_figures {
    char digest[FST_DIGEST_HEX];
    int64_t samples, validation;
    int64_t rounds;                /* that its update entered; 0: it has no model, and digest is "" */
    double accuracy, own_accuracy; /* of its model on the test samples and on its own validation samples (NaN: none) */
    double global_accuracy;        /* of the global model on its own validation samples */
    char missing[200];             /* classes that it has no samples of: "E-2D_1, P-3C_2" */
};

/* What a finished step left: output/STEP/stage.json. */
struct record {
    char fingerprint[FST_DIGEST_HEX];              /* of everything that the result depends on */
    char artifact[256];                            /* file name inside the step's folder */
    char digest[FST_DIGEST_HEX];                   /* of the artifact */
    char extra[256], extra_digest[FST_DIGEST_HEX]; /* a second file (the partition); "" for none */
    bool has_model;                                /* the artifact is a model, so accuracy, loss and parameters hold */
    double accuracy, loss, seconds;
    double macro_f1, balanced; /* of a model; NaN in records of earlier versions */
    int64_t parameters, samples;
    uint64_t bytes_up, bytes_down;
    int64_t best_round; /* federated_train: the round whose model was kept, from 1; 0: no choice was made */
    struct snr_table snr;
    size_t edges; /* 0 without a topology */
    struct edge_figures edge[FST__MAX_EDGES];
};

/* Training samples of one place: first those to learn from, then those of validation. */
struct share {
    uint32_t *index; /* in session.train */
    size_t learn, validate;
};

struct made_signals { /* of a dry run, which has no file for them */
    float *x, *snr;
    int32_t *labels;
    int64_t *burst;
};

struct session {
    const fst_task *task;
    const fst_task_options *options;
    bool dry;            /* writes nothing */
    const char *backend; /* never NULL */
    int threads, workers;
    fst_precision precision;                   /* in effect */
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
    uint32_t *order; /* a share: of all training samples, with a topology the cloud's */
    size_t learn, validate;
    size_t edges; /* 0 without a topology */
    struct share edge[FST__MAX_EDGES];
    fst_runner *runner; /* of the model that was evaluated last */
    const fst_graph *runner_graph;
    fst_registry *registry; /* NULL: it could not be opened, which was said */
    bool registry_failed;   /* it is not used again before the run ends */
    double touched;         /* when it was given a sign of life */
    bool told[STEPS];       /* steps whose figures belong into it */
    fst_events *events;
    bool events_failed;           /* nothing more is written; a thread may still refer to them */
    struct fst__sampler *sampler; /* NULL: none */
    int64_t run;
    struct record records[STEPS];
    bool done[STEPS]; /* records[] holds a step that is up to date */
    char fingerprints[STEPS][FST_DIGEST_HEX];
    char *inputs[STEPS];                 /* the text that a fingerprint is the digest of; NULL before */
    char resumes[STEPS][FST_DIGEST_HEX]; /* of checkpoints: the same whatever the number of epochs or rounds, where that
                                          * many more of them can follow (fst__extendable) */
};

/* ---- session_data.c ---- */
/* Opens and checks the data, shares out test samples, validation and the places of a topology. */
fst_status fst__session_open_data(struct session *s, fst_error *err);
/* "E-2D_1, P-3C_2": the classes that a share has no samples of. Returns how many. */
int fst__missing_classes(const struct session *s, const struct share *h, char *out, size_t size);
/* The same of `n` samples of a source; index NULL: all that it has. */
int fst__missing_of(const fst_source *source, const uint32_t *index, size_t n, char *out, size_t size);
/* A digest of which samples a share has and which of them it learns from. */
void fst__share_digest(const struct share *h, char out[FST_DIGEST_HEX]);

/* ---- overlap.c ---- */
/* Says what a user should know of the samples before a number is made of them: classes that are missing from training,
 * validation or test, places without validation, and samples that stand in two of these. */
fst_status fst__note_samples(const struct session *s, fst_error *err);

/* ---- clients.c ---- */
/* The clients of federated_train and their samples to learn from, positions in session.train. Samples of validation
 * and, with a topology, of the cloud belong to nobody. */
fst_status fst__clients(const struct session *s, fst_partition *out, fst_error *err);
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
/* Do the lists of the chosen stages fit the data? */
fst_status fst__check_class_weights(const struct session *s, const bool chosen[STAGES], fst_error *err);

/* ---- synth_data.c ---- */
/* The path of the made signals, which are made if they are not there; new memory. A dry run has no folder to keep
 * them in: then *source is a source in memory, and *path NULL. */
fst_status fst__synth_data(struct session *s, char **path, fst_source **source, fst_error *err);

/* ---- topology.c ---- */
/* Which edge (from 0) a device (from 0) belongs to. */
int64_t fst__edge_of_device(const struct topology_section *t, int64_t device);

/* ---- session.c ---- */
/* Backend, threads and precision from task and options. Says so when the machine lacks the precision asked for. */
void fst__session_init(struct session *s, const fst_task *t, const fst_task_options *o);
void fst__session_close(struct session *s);
bool fst__session_stopped(const struct session *s);
/* output/STEP/NAME; new memory. */
char *fst__step_path(const struct session *s, enum step step, const char *name);
/* A seed for one purpose of a step, drawn from the task's. */
uint64_t fst__step_seed(const struct session *s, enum step step, const char *purpose, uint64_t index);
/* The first update, at once, tells what was done before: 0, or where a resumed stage goes on. */
void fst__watch_begin(const struct session *s, const char *label, uint64_t total, const char *unit);
void fst__watch_update(struct session *s, uint64_t done, const char *note);
void fst__watch_end(const struct session *s, const char *note);
/* When progress was saved last, and how long that took. */
struct save_clock {
    double at, cost;
};
/* Of a save that began then and is done now; of no save yet when it begins now. */
struct save_clock fst__saved(double began);
/* After `seconds`, but so seldom that saving takes a twentieth of the time at most; seconds 0: always. */
bool fst__save_due(const struct save_clock *c, double seconds);
/* Events never stop a run: a failure is logged once. */
void fst__emit(struct session *s, const char *event, const fst_field *fields, size_t n);

struct score {
    double accuracy, loss; /* NaN when there was nothing to measure on */
    size_t samples;
    double macro_f1, balanced; /* fst_macro_scores */
};
#define FST__NO_SCORE ((struct score){NAN, NAN, 0, NAN, NAN})
/* Mean cross entropy and accuracy of a model over a source (subset NULL: all). */
fst_status fst__evaluate(struct session *s, const fst_graph *graph, const fst_state *state, const fst_source *source,
                         const uint32_t *subset, size_t count, struct score *out, fst_error *err);
/* The same over the test samples, with the table by SNR where it is known (NULL: not wanted). */
fst_status fst__evaluate_by_snr(struct session *s, const fst_graph *graph, const fst_state *state, struct score *out,
                                struct snr_table *table, fst_error *err);
fst_status fst__evaluate_test(struct session *s, const fst_graph *graph, const fst_state *state, struct score *out,
                              fst_error *err);
enum { FST__ARCH = 64 };
/* The network and its options that a task names ("mobilenet_v2 width=0.5"), for the classes and shape of the data. */
fst_status fst__model_config(const struct session *s, const char *model, char arch[FST__ARCH], fst_model_config *out,
                             fst_error *err);
fst_status fst__model_graph(const struct session *s, const char *model, fst_graph **out, fst_error *err);
/* A network that fits the data, with normalisation and class names of the data. */
fst_status fst__new_model(const struct session *s, const char *model, fst_model *out, fst_error *err);
/* FST_E_NUMERIC when a parameter or buffer is no finite number: such a model is neither saved nor gone on from. */
fst_status fst__state_sound(const fst_state *state, fst_error *err);
/* Saves with provenance and fills the record's model figures. */
fst_status fst__save_model(struct session *s, enum step step, const fst_model *m, struct record *r, fst_error *err);
/* Writes one more model of a step, as `name`. */
fst_status fst__write_model(struct session *s, enum step step, const fst_model *m, const struct record *r,
                            const char *name, double accuracy, char digest[FST_DIGEST_HEX], fst_error *err);
/* Loads a model file. wanted: the digest that it must have, NULL for any; digest: the one it has (may be NULL). */
fst_status fst__load_model(const char *path, const char *wanted, fst_model *out, char digest[FST_DIGEST_HEX],
                           fst_error *err);
/* The model of a step that is up to date: exactly the file that its record names, see fst__read_artifact. */
fst_status fst__load_step_model(const struct session *s, enum step step, fst_model *out, fst_error *err);

/* ---- resources.c ---- */
/* Starts and ends the thread that writes events "resources"; without events there is none. */
void fst__resources_begin(struct session *s);
void fst__resources_end(struct session *s);
/* One more of them now, so that every step begins and ends with one. */
void fst__resources_sample(const struct session *s);

/* ---- commit.c ---- */
/* The commit that is checked out where the folder is; false: no repository, or none that can be read. */
bool fst__commit_of(const char *folder, char out[FST_DIGEST_HEX]);

/* ---- record.c ---- */
/* Fills fingerprints[step] and resumes[step]. */
fst_status fst__fingerprint(struct session *s, enum step step, fst_error *err);
/* Says which inputs of a finished step are others than those of its record, which is there with another fingerprint. */
void fst__tell_causes(const struct session *s, enum step step);
/* Whether a step that is done can go on to more epochs or rounds and be what it would have been with so many from the
 * start: no learning rate depends on their number. */
bool fst__extendable(const struct session *s, enum step step);
/* What such a step keeps: its state after the last epoch or round, as a checkpoint. */
#define FST__LAST "last.checkpoint"
/* Whether the step's record has this fingerprint and its files are there unchanged. */
bool fst__record_current(const struct session *s, enum step step, const char *fingerprint, struct record *out);
/* The same of any folder that holds a step. */
bool fst__record_current_in(const char *folder, const char *fingerprint, struct record *out);
/* The fingerprint of the record there; false when there is none. */
bool fst__record_fingerprint(const char *folder, char out[FST_DIGEST_HEX]);
/* Lists for stage.json and summary.json. */
struct json_t *fst__edges_json(const struct record *r);
struct json_t *fst__snr_json(const struct record *r);
/* All bytes of a file. wanted: the digest that they must have (FST_E_MISMATCH otherwise), NULL for any; digest: the one
 * they have (may be NULL). */
fst_status fst__read_whole(const char *path, const char *wanted, fst_buf *out, char digest[FST_DIGEST_HEX],
                           fst_error *err);
/* The artifact or the extra file of a step that is up to date: the bytes that its record names, even if somebody
 * exchanged the file after the record was checked. What is computed from it is then what fingerprints say it is. */
fst_status fst__read_artifact(const struct session *s, enum step step, const char *name, fst_buf *out, fst_error *err);
fst_status fst__record_write(const struct session *s, enum step step, const struct record *r, fst_error *err);

/* ---- model_files.c ---- */
/* The file of the teacher; NULL: the stage cloud_pretrain is. */
const char *fst__teacher_file(const struct task_file *f);
/* The step whose model federated_train starts from; STEPS: none. */
enum step fst__init_step(const struct task_file *f);
/* The file that it starts from, or NULL. */
const char *fst__init_file(const struct task_file *f);
/* The digest of a file, relative to the task's folder; "" when it cannot be read. */
fst_status fst__file_digest(const struct session *s, const char *file, char digest[FST_DIGEST_HEX], fst_error *err);
/* Appends it to the text of a fingerprint. */
fst_status fst__add_file(const struct session *s, const char *what, const char *file, fst_buf *text, fst_error *err);
/* Loads a model for the classes and shape of the data. key: of the setting, for messages; FST_E_CONFIG when it does not
 * fit. */
fst_status fst__open_model_file(const struct session *s, const char *key, const char *file, fst_model *out,
                                fst_error *err);
/* Copies the state of a model file into a model of the same network. */
fst_status fst__start_from(const struct session *s, const char *key, const char *file, fst_model *model,
                           fst_error *err);

/* ---- train.c ---- */
enum fst__moving { MOVES_TEMPERATURE, MOVES_CE_WEIGHT, MOVES_KD_WEIGHT, MOVES };
struct lesson { /* supervised training of one model */
    enum step step;
    const char *label;
    const struct training *training;
    fst_loss loss;
    int64_t kd_warmup;            /* kd_weight rises linearly over so many epochs: its whole in the last of them */
    const fst_soft_binding *soft; /* NULL: hard labels only */
    bool moves[MOVES];            /* parts of the loss that change over the epochs; `loss` has their last values */
    fst_ramp ramp[MOVES];
};
fst_status fst__train(struct session *s, const struct lesson *l, fst_model *model, double *seconds, fst_error *err);
fst_schedule fst__schedule(const struct schedule_section *s, int64_t total);
fst_optim_spec fst__optim_spec(const struct optimizer_section *o, double clip_norm);

/* ---- steps ---- */
/* check.c: what can be said before the first of the chosen stages starts; FST_E_CONFIG with the full key. */
fst_status fst__check_output(const char *output, fst_error *err);
fst_status fst__check_stages(const struct session *s, const bool chosen[STAGES], fst_error *err);
/* check_batches.c: sizes of the chosen stages' batches; a warning for batches of one value a channel. */
fst_status fst__check_batches(const struct session *s, const bool chosen[STAGES], fst_error *err);
/* check_rates.c: refuses schedules that contradict their learning rate, and warns of those that the epochs are too few
 * for. */
fst_status fst__check_rates(const struct session *s, const bool chosen[STAGES], fst_error *err);
fst_status fst__step_pretrain(struct session *s, struct record *r, fst_error *err);
fst_status fst__step_soft(struct session *s, struct record *r, fst_error *err);
fst_status fst__step_alone(struct session *s, struct record *r, fst_error *err);
fst_status fst__step_distil(struct session *s, struct record *r, fst_error *err);
fst_status fst__step_federate(struct session *s, struct record *r, fst_error *err);
/* What edge_kd needs of soft labels. */
fst_soft_spec fst__soft_spec(const struct session *s);
const char *fst__federated_model(const struct task_file *f);
fst_trainer_options fst__trainer_options(const struct session *s, size_t batch, int threads);

/* ---- cascade.c, cascade_inputs.c ---- */
fst_status fst__step_devices(struct session *s, struct record *r, fst_error *err);
fst_status fst__step_edge(struct session *s, struct record *r, fst_error *err);
fst_status fst__step_cloud(struct session *s, struct record *r, fst_error *err);
fst_status fst__step_direct(struct session *s, struct record *r, fst_error *err);
/* Whether a step of the cascade reads another's artifact. */
bool fst__infer_needs(const struct task_file *f, enum step step, enum step other);
/* What can be told about the chosen stages of the cascade beforehand. */
fst_status fst__check_cascade(const struct session *s, const bool chosen[STAGES], fst_error *err);
/* cascade.c: is there something to read for every device? */
fst_status fst__check_devices(const struct session *s, fst_error *err);
/* What the result of a step of the cascade depends on, besides data, seed and backend. */
fst_status fst__infer_inputs(const struct session *s, enum step step, fst_buf *text, fst_error *err);

/* The folder below the output for steps of other settings, and whether a name in it is of such a step: "STEP-...". */
#define FST__KEPT "kept"
bool fst__is_kept(const char *name, enum step step);

/* ---- keep.c ---- */
enum { FST__STATE = 600 };
/* Moves what output/STEP holds of other inputs (finished or begun) to output/kept. *moved (may be NULL) becomes its new
 * place, new memory, if anything was moved. */
fst_status fst__keep_aside(const struct session *s, enum step step, char **moved, fst_error *err);
/* Gives output/STEP the last state of the step that was moved there, if more epochs or rounds can go on from it. */
fst_status fst__keep_state(const struct session *s, enum step step, const char *moved, fst_error *err);
/* Looks for a finished step with this fingerprint in output/kept and in other outputs, and brings it to output/STEP:
 * then s->done[step] is true, and `state` says where it comes from. A dry run only looks. */
fst_status fst__keep_find(struct session *s, enum step step, const char *fingerprint, char state[FST__STATE],
                          fst_error *err);

/* ---- books.c ---- */
/* The registry and the events of the run. Neither stops it: the first failure of the registry is said, and the registry
 * is left alone from then on, until the run ends. */
void fst__books_open(struct session *s);
void fst__books_close(struct session *s, fst_status st, const fst_error *why);
/* The run is at work on a step: "runs", "done", "up to date", ... */
void fst__books_stage(struct session *s, enum step step, const char *state);
/* The figures of a step that is done, from its record. */
void fst__books_figures(struct session *s, enum step step);
/* A sign of life, now and then: what a run that is killed has worked is known up to the last one. */
void fst__books_touch(struct session *s);

/* ---- run.c ---- */
/* Looks at the steps before the first of the chosen stages: FST_E_CONFIG when one that they read is missing or out of
 * date. */
fst_status fst__check_needs(struct session *s, const bool chosen[STAGES], fst_error *err);
/* Which of the stages, in their order, the options ask for. */
fst_status fst__chosen_stages(const fst_task *t, const fst_task_options *o, bool chosen[STAGES], fst_error *err);

/* ---- summary.c ---- */
fst_status fst__summary_write(const struct session *s, fst_error *err);
/* The task with all defaults and --set, for the report. A failure is only logged. */
void fst__settings_write(const struct session *s);

#endif

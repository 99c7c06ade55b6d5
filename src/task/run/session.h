/*
 * session.h - a running task, and what its stages share.
 *
 * A session is the task and its options, the samples (samples.h), the machine (machine.h), the books (books.h) and a
 * step for each stage (step.h). run.c opens them in this order, then goes through the steps: one that is up to date is
 * left alone, one that the options ask for is run by its kind, and its record is written. Functions take the part that
 * they need; those that take the session watch for a stop, report progress, or read other stages.
 */
#ifndef FST_TASK_SESSION_H
#define FST_TASK_SESSION_H

#include "books.h"
#include "fedstill/fusion.h"
#include "fedstill/models.h"
#include "machine.h"
#include "samples.h"
#include "step.h"
#include "task_file.h"

struct session {
    const fst_task *task;
    const fst_task_options *options;
    bool dry;  /* writes nothing */
    int place; /* whose samples are opened: FST__ALL_PLACES, FST__ONLY_CLOUD, or an edge from 1 */
    struct machine machine;
    struct samples data;
    struct books books;
    struct step *step; /* in the order of running */
    size_t steps;
    fst_runner *runner; /* of the model that was evaluated last */
    const fst_graph *runner_graph;
};

/* ---- session.c ---- */
/* Machine and steps from task and options. Says so when the machine lacks the precision asked for. Close it in any
 * case. */
fst_status fst__session_init(struct session *s, const fst_task *t, const fst_task_options *o, fst_error *err);
void fst__session_close(struct session *s);
bool fst__session_stopped(const struct session *s);
/* Is a stage to be left for now when so many of its epochs or rounds are done (options.until)? One that has no more to
 * do is not: it ends. */
bool fst__pauses(const struct session *s, const struct step *step, int64_t done);
/* FST_E_CANCELLED with words when it is; the caller has saved its progress. */
fst_status fst__pause(const struct session *s, const struct step *step, int64_t done, fst_error *err);
/* ---- session_data.c ---- */
/* Opens and checks the data, shares out test samples, validation and the places of a topology. */
fst_status fst__session_open_data(struct session *s, fst_error *err);
/* synth_data.c: the path of the made signals, which are made if they are not there; new memory. A dry run has no folder
 * to keep them in: then *source is a source in memory, and *path NULL. */
fst_status fst__synth_data(struct session *s, char **path, fst_source **source, fst_error *err);

/* ---- steps (session.c) ---- */
/* The step of a stage. */
struct step *fst__step_of(const struct session *s, const struct stage *stage);
/* The step that the i-th stage of a reference has; NULL: none, or a file. */
const struct step *fst__step_read(const struct session *s, const struct step *own, const char *key, size_t i);
/* output/NAME/FILE; new memory. */
char *fst__step_path(const struct session *s, const struct step *step, const char *file);
/* A seed for one purpose of a step, drawn from the task's. It names the kind, not the stage: two stages of one kind
 * that differ in one setting start from the same weights and see the same batches. */
uint64_t fst__step_seed(const struct session *s, const struct step *step, const char *purpose, uint64_t index);

/* ---- progress (session.c) ---- */
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

/* ---- evaluation (evaluate.c) ---- */
struct score {
    double accuracy, loss; /* NaN when there was nothing to measure on */
    size_t samples;
    double macro_f1, balanced; /* fst_macro_scores */
    double top5;               /* share whose class is among the five likeliest; NaN: there are no more than five */
};
#define FST__NO_SCORE ((struct score){NAN, NAN, 0, NAN, NAN, NAN})
/* Mean cross entropy and accuracy of a model over a source (subset NULL: all). */
fst_status fst__evaluate(struct session *s, const fst_graph *graph, const fst_state *state, const fst_source *source,
                         const uint32_t *subset, size_t count, struct score *out, fst_error *err);
/* The same over the test samples, with the table by SNR where it is known (NULL: not wanted). */
fst_status fst__evaluate_by_snr(struct session *s, const fst_graph *graph, const fst_state *state, struct score *out,
                                struct snr_table *table, fst_error *err);
fst_status fst__evaluate_test(struct session *s, const fst_graph *graph, const fst_state *state, struct score *out,
                              fst_error *err);
/* The same over the validation samples of those who learn in the stage: the edges' of a topology's rounds, else those
 * of data.validation or the source's split val. Accuracy and loss are over all of them together; FST__NO_SCORE when
 * there are none, or they are elsewhere. */
fst_status fst__evaluate_validation(struct session *s, const struct stage *own, const fst_graph *graph,
                                    const fst_state *state, struct score *out, fst_error *err);
/* Forgets the model that was evaluated last, whose graph is about to go. */
void fst__forget_runner(struct session *s);

/* ---- models (models.c) ---- */
enum { FST__ARCH = 64 };
/* The network and its options that a task names ("mobilenet_v2 width=0.5"), for the classes and shape of the data. */
fst_status fst__model_config(const struct samples *d, const char *model, char arch[FST__ARCH], fst_model_config *out,
                             fst_error *err);
fst_status fst__model_graph(const struct samples *d, const char *model, fst_graph **out, fst_error *err);
/* A network that fits the data, with normalisation and class names of the data. */
fst_status fst__new_model(const struct samples *d, const char *model, fst_model *out, fst_error *err);
/* FST_E_NUMERIC when a parameter or buffer is no finite number: such a model is neither saved nor gone on from. */
fst_status fst__state_sound(const fst_state *state, fst_error *err);
/* Saves with provenance and fills the record's model figures. */
fst_status fst__save_model(struct session *s, const struct step *step, const fst_model *m, struct record *r,
                           fst_error *err);
/* Writes one more model of a step, as `name`. */
fst_status fst__write_model(struct session *s, const struct step *step, const fst_model *m, const struct record *r,
                            const char *name, double accuracy, char digest[FST_DIGEST_HEX], fst_error *err);
/* Loads a model file. wanted: the digest that it must have, NULL for any; digest: the one it has (may be NULL). */
fst_status fst__load_model(const char *path, const char *wanted, fst_model *out, char digest[FST_DIGEST_HEX],
                           fst_error *err);
/* The model of a step that is up to date: exactly the file that its record names, see fst__read_artifact. */
fst_status fst__load_step_model(const struct session *s, const struct step *step, fst_model *out, fst_error *err);

/* ---- commit.c ---- */
/* The commit that is checked out where the folder is; false: no repository, or none that can be read. */
bool fst__commit_of(const char *folder, char out[FST_DIGEST_HEX]);

/* ---- fingerprint.c ---- */
/* What a source knows of its samples besides values and labels; false: nothing. */
bool fst__facts_digest(const fst_source *source, char out[FST_DIGEST_HEX]);
/* Fills the step's fingerprint, resumes and inputs; the stages that it reads are done. */
fst_status fst__fingerprint(struct session *s, struct step *step, fst_error *err);
/* SHA-256 of a text. */
void fst__digest_text(const char *text, size_t len, char out[FST_DIGEST_HEX]);
/* For kinds: the stage's settings, as canonical JSON. */
fst_status fst__add_settings(const struct step *own, fst_buf *text, fst_error *err);
/* What the references of that key lead to: "KIND=DIGEST" for a stage, "KEY=DIGEST" for a file. */
fst_status fst__add_reads(const struct session *s, const struct step *own, const char *key, fst_buf *text,
                          fst_error *err);
/* Whether a step that is done can go on to more epochs or rounds and be what it would have been with so many from the
 * start. */
bool fst__extendable(const struct step *step);
/* causes.c: says which inputs of a finished step are others than those of its record, which is there with another
 * fingerprint. */
void fst__tell_causes(const struct session *s, const struct step *step);

/* ---- record.c ---- */
/* What such a step keeps: its state after the last epoch or round, as a checkpoint. */
#define FST__LAST "last.checkpoint"
#define FST__RECORD_FORMAT "fedstill-stage-1"
#define FST__CHECKPOINT "checkpoint.safetensors"
/* The folder of what clients keep in files between rounds; checkpoints name these files. */
#define FST__KEPT_BY_CLIENTS "clients"
/* Whether the step's record has this fingerprint and its files are there unchanged. */
bool fst__record_current(const struct session *s, const struct step *step, struct record *out);
/* The same of any folder that holds a step. */
bool fst__record_current_in(const char *folder, const char *fingerprint, struct record *out);
/* The fingerprint of the record there; false when there is none. */
bool fst__record_fingerprint(const char *folder, char out[FST_DIGEST_HEX]);
/* Lists for stage.json and summary.json. */
struct json_t *fst__edges_json(const struct record *r);
struct json_t *fst__snr_json(const struct record *r);
struct json_t *fst__own_json(const struct own_figures *f);
/* What would have been sent without codecs, where there are any. */
void fst__raw_bytes_json(const struct record *r, struct json_t *j);
/* Adds how good a stage's model is: accuracy, loss, and what else was measured. */
void fst__figures_json(const struct record *r, struct json_t *j);
struct json_t *fst__fusion_json(const struct record *r);
/* All bytes of a file. wanted: the digest that they must have (FST_E_MISMATCH otherwise), NULL for any; digest: the one
 * they have (may be NULL). */
fst_status fst__read_whole(const char *path, const char *wanted, fst_buf *out, char digest[FST_DIGEST_HEX],
                           fst_error *err);
/* The artifact or the extra file of a step that is up to date: the bytes that its record names, even if somebody
 * exchanged the file after the record was checked. What is computed from it is then what fingerprints say it is. */
fst_status fst__read_artifact(const struct session *s, const struct step *step, const char *name, fst_buf *out,
                              fst_error *err);
fst_status fst__record_write(const struct session *s, const struct step *step, const struct record *r, fst_error *err);

/* federated_train.c: who the clients are, as far as the digest of the data and the shares do not say it. */
fst_status fst__add_clients(const struct session *s, fst_buf *text, fst_error *err);

/* ---- model_files.c ---- */
/* The digest of a file, relative to the task's folder; "" when it cannot be read. */
fst_status fst__file_digest(const struct session *s, const char *file, char digest[FST_DIGEST_HEX], fst_error *err);
/* Loads a model for the classes and shape of the data. key: of the setting, for messages; FST_E_CONFIG when it does not
 * fit. */
fst_status fst__open_model_file(const struct session *s, const char *key, const char *file, fst_model *out,
                                fst_error *err);
/* The model that a reference leads to: of a finished stage, or a file. digest may be NULL. */
fst_status fst__read_model(const struct session *s, const struct step *own, const char *key, size_t i, fst_model *out,
                           char digest[FST_DIGEST_HEX], fst_error *err);
/* The same of a model in f32 that sees samples as the task has them; FST_E_CONFIG otherwise. refusal: what is
 * said of an int8 model, ", which cannot be pruned". */
fst_status fst__read_f32(const struct session *s, const struct step *own, const char *key, const char *refusal,
                         fst_model *out, fst_error *err);
/* Whether a network can start from what `init` of a stage refers to, as far as that is there. */
fst_status fst__check_init(const struct session *s, const struct step *own, fst_error *err);
/* Copies the state of what `init` refers to into a model of the same network; *from (may be NULL): whether it refers to
 * anything. */
fst_status fst__start_from(const struct session *s, const struct step *own, fst_model *model, bool *from,
                           fst_error *err);

/* ---- train.c ---- */
enum fst__moving { MOVES_TEMPERATURE, MOVES_CE_WEIGHT, MOVES_KD_WEIGHT, MOVES };
struct lesson { /* supervised training of one model */
    const struct step *step;
    const struct training *training;
    fst_loss loss;
    int64_t kd_warmup;            /* kd_weight rises linearly over so many epochs: its whole in the last of them */
    const fst_soft_binding *soft; /* NULL: hard labels only */
    bool moves[MOVES];            /* parts of the loss that change over the epochs; `loss` has their last values */
    fst_ramp ramp[MOVES];
    const struct curriculum_section *curriculum; /* the temperature is learnt; NULL: it is not */
    const struct iterated_section *iterated;     /* parts A and B, each `epochs` long; NULL: all samples */
    const struct online_section *online;         /* peers are its teachers (peers.h); NULL: none */
    const struct local_fusion_section *fusion;   /* with a large model that trains along (local_fusion.h); NULL: none */
    bool begun;                                  /* the model has weights to start from; else `init`, or random ones */
    bool features;                               /* it also learns from its teacher's feature maps (feature_maps.h) */
};
fst_status fst__train(struct session *s, const struct lesson *l, fst_model *model, struct record *r, fst_error *err);
fst_schedule fst__schedule(const struct schedule_section *s, int64_t total);
/* Does no rate of it depend on how many epochs there are in all? */
bool fst__total_free(const struct schedule_section *s);
fst_optim_spec fst__optim_spec(const struct optimizer_section *o, double clip_norm);

/* ---- check.c: what can be said before the first of the chosen stages starts; FST_E_CONFIG with the full key ---- */
fst_status fst__check_output(const char *output, fst_error *err);
fst_status fst__check_stages(const struct session *s, fst_error *err);
/* For kinds: can the data have this network? */
fst_status fst__check_network(const struct session *s, const struct step *own, const char *network, fst_error *err);
/* check_batches.c: sizes of a stage's batches; a warning for batches of one value a channel. */
/* network: NULL, that of t->model, or where there is none it is not known. */
fst_status fst__check_training_batches(const struct session *s, const struct step *own, const struct training *t,
                                       const fst_graph *network, fst_error *err);
fst_status fst__check_client_batches(const struct session *s, const struct step *own, fst_error *err);
/* check_rates.c: refuses schedules that contradict their learning rate, and warns of those that the epochs are too few
 * for. unit: "epochs" or "rounds". */
fst_status fst__check_schedule(const struct step *own, const struct schedule_section *s,
                               const struct optimizer_section *o, int64_t total, const char *unit, fst_error *err);
/* check_scale.c: warns of samples whose values are far from those that networks learn from. */
fst_status fst__check_scale(const struct session *s, fst_error *err);

/* ---- dry_run.c: for kinds, what the work is ---- */
struct work {
    const char *network;
    double samples; /* forward passes, or with training forward and backward */
    bool training;
    size_t batch;
    int plans;
    double bytes_up, bytes_down;
    double bytes_held;      /* by the server, of a round's updates side by side; 0: it adds them up */
    const fst_graph *graph; /* NULL: that of the network */
};
fst_status fst__tell_work(const struct session *s, const struct step *own, const struct work *w, fst_buf *out,
                          fst_error *err);
/* That the work depends on what the stage's reference `key` leads to, which is not there yet. */
fst_status fst__tell_later(const struct step *own, const char *key, fst_buf *out, fst_error *err);
/* What the adapter of a fusion is and takes. */
fst_status fst__tell_fusion(const fst_fusion_size *size, fst_buf *out, fst_error *err);
/* A sentence, in lines of at most 80 columns. */
fst_status fst__tell_sentence(const char *text, fst_buf *out, fst_error *err);
/* Bytes of a model of this network, as it travels. */
fst_status fst__state_bytes(const struct session *s, const char *network, double *out, fst_error *err);

/* ---- client_files.c ---- */
#define FST__CLIENTS "clients.json"
typedef fst_status (*fst_client_file_fn)(void *ctx, const char *name, const char *digest, fst_error *err);
/* Calls fn for each model that clients.json in the folder names, which must have this digest; stops at the first
 * failure. */
fst_status fst__client_files(const char *folder, const char *digest, fst_client_file_fn fn, void *ctx, fst_error *err);

/* ---- keep.c ---- */
/* The folder below the output for steps of other settings, each as NAME-FINGERPRINT. */
#define FST__KEPT "kept"
enum { FST__STATE = 600 };
/* Moves what output/STEP holds of other inputs (finished or begun) to output/kept. *moved (may be NULL) becomes its new
 * place, new memory, if anything was moved. */
fst_status fst__keep_aside(const struct session *s, const struct step *step, char **moved, fst_error *err);
/* Gives output/STEP the last state of the step that was moved there, if more epochs or rounds can go on from it. */
fst_status fst__keep_state(const struct session *s, const struct step *step, const char *moved, fst_error *err);
/* A second name for a file, or a copy where the file system has no links. */
fst_status fst__link_or_copy(const char *from, const char *to, fst_error *err);
/* Looks for a finished step with this fingerprint in output/kept and in other outputs, and brings it to output/STEP:
 * then the step is done, and `state` says where it comes from. A dry run only looks. */
fst_status fst__keep_find(struct session *s, struct step *step, char state[FST__STATE], fst_error *err);

/* ---- books.c ---- */
void fst__books_open(struct session *s);
void fst__books_close(struct session *s, fst_status st, const fst_error *why);
/* The run is at work on a step: "runs", "done", "up to date", ... */
void fst__books_stage(struct session *s, const struct step *step, const char *state);
/* The figures of a step that is done, from its record. */
void fst__books_figures(struct session *s, struct step *step);

/* ---- run.c ---- */
/* Looks at the steps that are not going to run and that no chosen one changes: FST_E_CONFIG when one that is read is
 * missing or out of date. */
fst_status fst__check_needs(struct session *s, fst_error *err);
/* Marks the steps that the options ask for. */
fst_status fst__choose_steps(struct session *s, fst_error *err);

/* ---- summary.c ---- */
fst_status fst__summary_write(const struct session *s, fst_error *err);
/* The task with all defaults and --set, for the report. A failure is only logged. */
void fst__settings_write(const struct session *s);

#endif

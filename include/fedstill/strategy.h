/*
 * fedstill/strategy.h - what server and clients send each other, and strategies: what each of them does with it.
 *
 * A strategy is one file with two halves, as an op is one file with forward and backward. The server half folds the
 * clients' messages into what all of them share (a model, mean logits, ...); the client half turns what is shared and
 * the client's own samples into a message. Neither knows processes, sockets, files or threads: a simulation and a fleet
 * of processes run the same code, and which of them it was must not show in a single bit.
 */
#ifndef FEDSTILL_STRATEGY_H
#define FEDSTILL_STRATEGY_H

#include "fedstill/aggregate.h"
#include "fedstill/codec.h"
#include "fedstill/distill.h"

FST_BEGIN_DECLS

/* ---- messages ----------------------------------------------------------------------------- */

enum { FST_MESSAGE_TENSORS = 24, FST_MESSAGE_NAME = 32, FST_MESSAGE_KIND = 24 };
#define FST_MESSAGE_MAX_HEADER ((size_t)64 * 1024)

typedef struct fst_message_tensor {
    char name[FST_MESSAGE_NAME];
    fst_dtype dtype;
    fst_shape shape;
    const void *data; /* not owned; aligned to the element's size */
} fst_message_tensor;

/* Named tensors and a small header, either way. Tensors are views: whoever made the message says how long they live.
 * May be copied by assignment. */
typedef struct fst_message {
    char kind[FST_MESSAGE_KIND]; /* "state", "logits", "label_means", ... */
    uint32_t client;             /* from or to which */
    uint64_t round, base;        /* base: what is shared is the result of so many rounds */
    int64_t samples;             /* its weight; 0 on the way down */
    double loss, accuracy;       /* NaN: not measured */
    size_t count;
    fst_message_tensor tensor[FST_MESSAGE_TENSORS];
} fst_message;

/* An empty message: no loss, no accuracy. */
FST_API fst_message fst_message_of(const char *kind);
FST_API void fst_message_name(fst_message *m, const char *kind);
/* Adds a view. More than FST_MESSAGE_TENSORS, a longer name, or a second one of that name is a programmer's error:
 * FST_E_LIMIT, FST_E_ARGUMENT. */
FST_MUST FST_API fst_status fst_message_add(fst_message *m, const char *name, fst_dtype dtype, fst_shape shape,
                                            const void *data, fst_error *err);
/* NULL when there is none of that name. */
FST_API const fst_message_tensor *fst_message_find(const fst_message *m, const char *name);
/* The data of tensor `name`, which must have this type and shape: FST_E_MISMATCH says what it is and would have to be.
 */
FST_MUST FST_API fst_status fst_message_get(const fst_message *m, const char *name, fst_dtype dtype, fst_shape shape,
                                            const void **data, fst_error *err);
/* A model's state as tensors "params" and "buffers" (F32) and "counters" (I64), and back; `size` is what it must have.
 */
FST_MUST FST_API fst_status fst_message_add_state(fst_message *m, const fst_fed_view *state, fst_error *err);
FST_MUST FST_API fst_status fst_message_state(const fst_message *m, fst_fed_size size, fst_fed_view *out,
                                              fst_error *err);
/* Bytes of all tensors: what it costs on the wire besides a header of less than a kilobyte or so. */
FST_API uint64_t fst_message_bytes(const fst_message *m);

/* On the wire: safetensors, format "fedstill-message-1", with the header in __metadata__. Appends to out. The bytes
 * depend on the message alone; packed at a multiple of 8 bytes they parse in place. */
FST_MUST FST_API fst_status fst_message_pack(const fst_message *m, fst_buf *out, fst_error *err);
/* The tensors become views into data, which must be aligned to 8 bytes and outlive them. Nothing is believed: a header
 * above FST_MESSAGE_MAX_HEADER or more tensors than fit is FST_E_LIMIT before anything is allocated for it, all else
 * that is wrong FST_E_FORMAT. *out is untouched on failure. */
FST_MUST FST_API fst_status fst_message_parse(fst_message *out, const void *data, size_t len, fst_error *err);

/* ---- options ------------------------------------------------------------------------------ */

typedef enum fst_option_type {
    FST_OPTION_NUMBER,
    FST_OPTION_WHOLE,
    FST_OPTION_CHOICE,
    FST_OPTION_FLAG
} fst_option_type;

/* One setting of a strategy. The task file's keys, their limits and docs/task-file.md are made from these tables. Two
 * strategies may have an option of the same name if it is the same in everything. */
typedef struct fst_option {
    const char *name; /* a key of the stage; "server.momentum": of its map `server`. NULL ends a table */
    fst_option_type type;
    double fallback;            /* of a choice: the index */
    double min, max;            /* numbers; whole numbers stay within +-2^53 */
    bool above;                 /* min itself is not allowed */
    const char *const *choices; /* NULL-terminated */
    const char *with, *choice;  /* it has an effect only while option `with` is `choice` (NULL: not 0); NULL: always */
    const char *help;           /* a few words, no full stop */
} fst_option;
enum { FST_STRATEGY_OPTIONS = 16 }; /* at most, of one strategy */

typedef struct fst_setting {
    const char *name;
    double value; /* of a choice the index, of a flag 0 or 1 */
} fst_setting;

/* ---- public samples ------------------------------------------------------------------------ */

/*
 * Samples that server and clients all have. They are ordered by their keys (fst_source_key), which every place can
 * compute, so that row i is the same sample everywhere, wherever it lies in a file. Two equal samples count once.
 * Labels are there but only for methods that ask for them.
 */
typedef struct fst_public {
    const fst_source *source;
    size_t count;
    uint32_t *index;         /* count: positions in the source, rising keys */
    fst_hash128 digest;      /* of all keys in their order: both sides must have the same */
    fst_transform transform; /* normalisation; never augmented */
} fst_public;
/* subset NULL: all of the source. Reads every sample once. */
FST_MUST FST_API fst_status fst_public_init(fst_public *out, const fst_source *source, const uint32_t *subset,
                                            size_t count, const fst_transform *transform, fst_error *err);
FST_API void fst_public_release(fst_public *p);
/* The rows that a round uses: `want` of them (0, or more than there are: all), drawn by stream (seed, "public.round",
 * round), rising. row: room for p->count; returns how many. */
FST_API size_t fst_public_draw(const fst_public *p, uint64_t seed, uint64_t round, size_t want, uint32_t *row);

/* ---- strategies --------------------------------------------------------------------------- */

/* What is asked of somebody who may work long. Both may be NULL. */
typedef struct fst_work {
    void *ctx;
    bool (*stopped)(void *ctx);
    void (*progress)(void *ctx, uint64_t done, uint64_t total);
} fst_work;
FST_API bool fst_work_stopped(const fst_work *w); /* w may be NULL */

/* What a strategy is and needs. */
enum {
    FST_SAME_MODEL = 1,  /* all clients train the shared model; without it each has a network of its own choice */
    FST_OWN_MODEL = 2,   /* each client keeps its model from round to round */
    FST_PUBLIC_DATA = 4, /* public samples */
    FST_ALL_UPDATES = 8, /* the server holds all updates of a round: memory O(clients) */
    FST_AVERAGES = 16,   /* what is published is the clients' weighted mean and nothing else */
    FST_SAME_FEATURES =
        32,               /* the clients' last layers read features of one width; env.graph is one of their networks */
    FST_SENDS_STATE = 64, /* either way the model's state and no other large tensor: what a run will send is known */
    FST_OWN_LOSS = 128,   /* the clients' loss is the strategy's: plan.loss and plan.soft are not used */
    FST_KEEPS_SHARED = 256, /* what was shared in earlier rounds is kept: nobody else may change the model */
    FST_MENTORS = 512       /* with FST_SAME_MODEL and FST_OWN_MODEL: env.graph and what a client keeps are a network of
                             * its own, the mentor, beside the shared one, env.shared */
};

/*
 * What becomes of the shared model between a strategy's step and its publication, whatever the strategy is. `run`
 * changes `global`; when it fails, model and strategy are put back to what they were before the round, and so is this,
 * by `load`. `save` and `load` are as those of a strategy, whose bytes come first. fst_fuser_after makes one.
 */
typedef struct fst_after {
    void *ctx;
    fst_status (*run)(void *ctx, uint64_t round, fst_fed_state *global, const fst_work *work, fst_error *err);
    fst_status (*save)(const void *ctx, fst_buf *out, fst_error *err);
    fst_status (*load)(void *ctx, const void *data, size_t len, fst_error *err);
} fst_after;

/* What the server half may use; the caller's, and lives as long as the strategy. */
typedef struct fst_server_env {
    uint64_t seed;
    uint32_t clients;
    int classes;                 /* of the task */
    fst_fed_state *global;       /* the shared model, which aggregate replaces; NULL: there is none */
    const fst_graph *graph;      /* its network, for strategies that train at the server; may be NULL otherwise */
    const fst_public *pub;       /* NULL: none */
    fst_trainer_options compute; /* how to train at the server */
    const fst_after *after;      /* NULL: the strategy's step is published as it is. Not with FST_KEEPS_SHARED */
    fst_codecs codecs;           /* zeroes: nothing is coded; else `graph` is needed, where a model is coded */
} fst_server_env;

/* What aggregating did. */
typedef struct fst_aggregate_stats {
    uint64_t updates;   /* that were folded */
    uint64_t samples;   /* their weight */
    double update_norm; /* Euclidean length of the step that what is shared took */
} fst_aggregate_stats;

typedef struct fst_strategy fst_strategy;       /* the server half at work */
typedef struct fst_client_half fst_client_half; /* the client half at work */

/*
 * The server half. Calls of one instance come one at a time, except `down`, which only reads and may be called from
 * many threads. Nothing may block, print, or look at a clock. The functions fst_strategy_* below check arguments before
 * they call these.
 *
 * A round is: begin, fold any number of times, aggregate. The outcome must not depend on the order of the folds, bit
 * for bit. All memory is taken in `init` and is O(what is shared), never O(clients), unless FST_ALL_UPDATES.
 */
typedef struct fst_server_ops {
    size_t bytes; /* of the struct that starts with fst_strategy */
    /* s->env and s->option are set and zeroes follow. Checks options beyond their limits (FST_E_CONFIG), allocates.
     * On failure `release` follows. */
    fst_status (*init)(fst_strategy *s, fst_error *err);
    void (*release)(fst_strategy *s);
    /* Fewest updates of a round that the method is defined for; NULL: one. A round that misses some of them, because
     * clients are lost, may fall back on another rule. */
    size_t (*fewest)(const double *option);
    /* Most updates of a round, of so many clients, with which the method is what it says; NULL: all. */
    size_t (*most)(const double *option, size_t clients);
    /* Who takes part in the round that opens: moves `want` of `count` clients that are there to the front of the list,
     * which comes in rising order. Depends on what was loaded and aggregated alone. NULL: drawn by chance. */
    void (*select)(fst_strategy *s, uint32_t *client, size_t count, size_t want);
    /* Forgets what was folded. */
    void (*begin)(fst_strategy *s, uint64_t round);
    /* What a client gets: m comes empty with client, round and base set. Views live until aggregate. Reads only what
     * aggregate makes: folds of other clients may run at the same time. */
    fst_status (*down)(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err);
    /* Takes a message completely or not at all; its memory is the caller's and may change after the call.
     * FST_E_NUMERIC, FST_E_MISMATCH and FST_E_ARGUMENT refuse this message; any other failure ends the run. */
    fst_status (*fold)(fst_strategy *s, const fst_message *m, fst_error *err);
    /* Makes what is shared in the next round. At least one message was folded. May take long. After a failure what is
     * shared is what it was. */
    fst_status (*aggregate)(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err);
    /* What is kept from round to round besides the shared model: called between rounds only. `save` appends; `load`
     * gets exactly those bytes, checks them (FST_E_FORMAT, FST_E_MISMATCH) and changes nothing on failure. Both NULL:
     * nothing is kept. */
    fst_status (*save)(const fst_strategy *s, fst_buf *out, fst_error *err);
    fst_status (*load)(fst_strategy *s, const void *data, size_t len, fst_error *err);
} fst_server_ops;

/* Soft targets of a batch: rows x classes. */
typedef fst_status (*fst_local_soft_fn)(void *ctx, const fst_batch *batch, float *soft, fst_error *err);

/* How a client trains in a round. */
typedef struct fst_local_plan {
    int64_t epochs;
    int64_t steps; /* > 0: so many batches, in as many epochs as that takes, whatever `epochs` is */
    size_t batch_size;
    bool drop_last;
    fst_optim_spec optim;
    bool keep_optim; /* a client's moments and count of steps go on in its next round; else fresh in every round */
    bool has_schedule;
    fst_schedule schedule; /* of the learning rate, over rounds */
    fst_loss loss;         /* both weights 0: cross entropy */
    /* Targets of the loss's distillation part; NULL: none. Called by several workers at the same time. A strategy that
     * brings a loss of its own does not use them. */
    fst_local_soft_fn soft;
    void *soft_ctx;
    fst_trainer_options compute;
} fst_local_plan;

/* The learning rate of a round. */
FST_API double fst_local_rate(const fst_local_plan *p, uint64_t round);

/* What the client half may use; whoever runs the client fills it, and it lives as long as a call. */
typedef struct fst_client_env {
    uint64_t seed;      /* of the task; with `stream`, a purpose, round and client it names every draw */
    const char *stream; /* "step.federated_train" */
    uint32_t client;
    int classes;
    const fst_graph *graph;      /* the client's network; lives as long as its fst_client */
    const fst_graph *shared;     /* FST_MENTORS: the network that all share; lives as long. NULL otherwise */
    const fst_fed_view *initial; /* the model of a client that has kept none; NULL: it starts from what is sent */
    const fst_source *source;    /* its own samples: `count` of them at `subset` (NULL: all) */
    const uint32_t *subset;
    size_t count;
    fst_transform transform;
    bool augment;
    const double *class_weight; /* classes; NULL: all 1 */
    const fst_public *pub;      /* NULL: none */
    fst_local_plan plan;
    fst_codecs codecs;    /* those of the server */
    const fst_work *work; /* may be NULL */
} fst_client_env;

/*
 * The client half. One instance may play many clients, one after the other: before each call `model` and what `load`
 * takes are that client's. Different instances work at the same time.
 */
typedef struct fst_client_ops {
    size_t bytes; /* of the struct that starts with fst_client_half; 0: just that */
    /* Whether clients can train this network by this plan: FST_E_CONFIG says what would be right. NULL: any will do. */
    fst_status (*check)(const double *option, const fst_graph *graph, const fst_local_plan *plan, fst_error *err);
    void (*release)(fst_client_half *c); /* may be NULL */
    /* Trains, and fills *up, which comes with client, round, base and the number of own samples set. Its views live
     * until the next call. */
    fst_status (*work)(fst_client_half *c, const fst_message *down, fst_message *up, fst_error *err);
    /* What a client keeps between rounds besides its model (FST_OWN_MODEL). `load` with len 0: it has kept nothing yet.
     * What a round changed counts only if its update entered the result; otherwise the client stays as it was before.
     * Both NULL: nothing is kept. */
    fst_status (*save)(const fst_client_half *c, fst_buf *out, fst_error *err);
    fst_status (*load)(fst_client_half *c, const void *data, size_t len, fst_error *err);
} fst_client_ops;

/* What clients say, a row for each public sample that a round draws or for each label, and what is shared of it. */
typedef struct fst_predictions {
    const char *name;   /* of the tensor, both ways: F32, rows x columns */
    const char *noun;   /* what it holds */
    bool probabilities; /* rows add up to 1 */
    /* What is shared, and *made: 1 + the round that it is of; 0: there is nothing yet. May be changed between aggregate
     * and the next round. */
    float *(*shared)(const fst_strategy *s, uint64_t *made);
    /* Rows are labels, of which messages say in "held" (U8, a flag each) or "holders" (I64, by how many) which are
     * there; the others are zeros. Whether this one is there in what is shared. NULL: rows are of public samples. */
    bool (*held)(const fst_strategy *s, size_t label);
    size_t (*columns)(const fst_graph *g); /* NULL: classes */
    size_t down_bytes;                     /* of an element on its way down, were there no codecs; 0: 4 */
    /* Told to a client: what the server will read in place of what it said. NULL: it does not matter to it. */
    void (*said)(fst_client_half *c, const float *x);
} fst_predictions;

typedef struct fst_strategy_ops {
    const char *name;          /* "fedavg" */
    const char *summary;       /* one line for people */
    const char *leaks;         /* one sentence: what the server can learn from what is sent */
    const fst_option *options; /* NULL: none; ended by one without a name */
    unsigned flags;            /* FST_SAME_MODEL and so on */
    /* F32 tensors of an update that codecs code, each as long as the model: the model itself first, whose change is
     * coded; ended by NULL. NULL: no model is coded. */
    const char *const *codes;
    const fst_predictions *predicts; /* what codecs code instead; NULL: nothing. Without both, codecs are refused */
    const fst_server_ops *server;
    const fst_client_ops *client;
} fst_strategy_ops;

/* The built-in ones; NULL after the last. */
FST_API const fst_strategy_ops *fst_strategy_at(size_t i);
FST_API const fst_strategy_ops *fst_strategy_find(const char *name);
/* FST_E_CONFIG for an unknown name, with the known ones listed. */
FST_MUST FST_API fst_status fst_strategy_of(const fst_strategy_ops **out, const char *name, fst_error *err);
/* The names of those with all flags in `with` and none in `without`: "fedmd, fd". Always terminated. Returns out. */
FST_API const char *fst_strategy_names(unsigned with, unsigned without, char *out, size_t size);
/* Whether its clients keep something from round to round: their model, or what the client half saves. (With a plan's
 * keep_optim they also keep moments.) */
FST_API bool fst_strategy_keeps(const fst_strategy_ops *ops);
/* The same of codecs: what was lost, or the model as it was sent. */
FST_API bool fst_codecs_keep(const fst_codecs *c);
/* Whether a strategy's messages can be coded so: FST_E_CONFIG says what can be. */
FST_MUST FST_API fst_status fst_codecs_check(const fst_codecs *c, const fst_strategy_ops *ops, fst_error *err);
/* Values in the order of the table: fallbacks, then settings. FST_E_CONFIG for an unknown name or a value outside its
 * limits. */
FST_MUST FST_API fst_status fst_strategy_options(const fst_strategy_ops *ops, const fst_setting *settings, size_t n,
                                                 double value[FST_STRATEGY_OPTIONS], fst_error *err);
/* Whether the strategy's clients can train this network by this plan, asked before any work: FST_E_CONFIG, with what
 * would be right. */
FST_MUST FST_API fst_status fst_strategy_check_plan(const fst_strategy_ops *ops, const fst_setting *settings, size_t n,
                                                    const fst_graph *graph, const fst_local_plan *plan, fst_error *err);
/* Whether rounds of so many clients are enough for the strategy, asked before any work: FST_E_CONFIG. */
FST_MUST FST_API fst_status fst_strategy_check_cohort(const fst_strategy_ops *ops, const fst_setting *settings,
                                                      size_t n, size_t cohort, fst_error *err);

/* Whether rounds of so many of these clients are not too many for it: FST_E_CONFIG. */
FST_MUST FST_API fst_status fst_strategy_check_drawn(const fst_strategy_ops *ops, const fst_setting *settings, size_t n,
                                                     size_t drawn, size_t clients, fst_error *err);

/* ---- the server half at work ---------------------------------------------------------------- */

/* What every instance starts with. Folded messages are counted by fst_strategy_fold. */
struct fst_strategy {
    const fst_strategy_ops *ops;
    fst_server_env env;
    double option[FST_STRATEGY_OPTIONS]; /* in the order of ops->options */
    uint64_t round, updates, samples;
    bool open;                       /* between begin and aggregate, or the first fold of it */
    struct fst__coded_server *coded; /* NULL: nothing is coded */
};

/* env is copied; what it points to must outlive the strategy. FST_E_CONFIG when something that the strategy needs is
 * not there: a shared model, public samples. */
FST_MUST FST_API fst_status fst_strategy_new(fst_strategy **out, const fst_strategy_ops *ops,
                                             const fst_setting *settings, size_t n, const fst_server_env *env,
                                             fst_error *err);
FST_API void fst_strategy_free(fst_strategy *s);
FST_API void fst_strategy_begin(fst_strategy *s, uint64_t round);
FST_MUST FST_API fst_status fst_strategy_down(const fst_strategy *s, uint32_t client, fst_message *out, fst_error *err);
/* FST_E_MISMATCH: not of this round, or of other tensors. FST_E_ARGUMENT: samples outside 1 ... 2^31-1. FST_E_NUMERIC:
 * NaN, infinity or |x| >= 2^31 inside. After any failure nothing of it was taken. */
FST_MUST FST_API fst_status fst_strategy_fold(fst_strategy *s, const fst_message *m, fst_error *err);
/* What a coded update says: m, of the open round, decoded into views that live until the next call of this or of
 * fst_strategy_fold. Without codecs m itself. */
FST_MUST FST_API fst_status fst_strategy_decode(fst_strategy *s, const fst_message *m, fst_message *out,
                                                fst_error *err);
/* fst_message_bytes of a message of either way, had nothing been coded. */
FST_API uint64_t fst_strategy_raw_bytes(const fst_strategy *s, const fst_message *m);
/* stats may be NULL. FST_E_ARGUMENT when nothing was folded; what is shared is untouched then. */
FST_MUST FST_API fst_status fst_strategy_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats,
                                                   fst_error *err);
/* Forgets an open round without a result. */
FST_API void fst_strategy_abandon(fst_strategy *s);
/* Between rounds: FST_E_ARGUMENT while one with folded messages is open, whose sums these bytes do not hold. They name
 * the strategy and the shared model's size; loading them into another is FST_E_MISMATCH. The shared model is the
 * caller's to keep. */
FST_MUST FST_API fst_status fst_strategy_save(const fst_strategy *s, fst_buf *out, fst_error *err);
FST_MUST FST_API fst_status fst_strategy_load(fst_strategy *s, const void *data, size_t len, fst_error *err);

/* ---- the client half at work ---------------------------------------------------------------- */

typedef struct fst_client fst_client; /* fedstill/fed.h */

/* What every instance starts with. */
struct fst_client_half {
    const fst_strategy_ops *ops;
    double option[FST_STRATEGY_OPTIONS];
    const fst_client_env *env;
    uint64_t round;
    fst_fed_state model; /* of env->graph: as it was kept, else env->initial, else zeros; work may change it */
    bool first;          /* it has kept nothing yet: its first round, or none of its updates entered a result */
    fst_client *lender;  /* of trainers */
};

/* A seed for one purpose of this client in this round. */
FST_API uint64_t fst_client_seed(const fst_client_half *c, const char *purpose);

/* Before every step: makes what job->features point to. */
typedef fst_status (*fst_local_before_fn)(void *ctx, const fst_batch *batch, fst_error *err);
/* Takes a step on a batch itself; step: so many came before in this training. Fills loss_sum and correct. */
typedef fst_status (*fst_local_step_fn)(void *ctx, const fst_batch *batch, uint64_t step, fst_step_result *out,
                                        fst_error *err);

/* Training of one network on some samples. */
typedef struct fst_local_job {
    const fst_graph *graph;
    fst_fed_state *state;
    const fst_source *source;
    const uint32_t *subset;
    size_t count;
    fst_transform transform;
    bool augment, drop_last;
    int64_t epochs, steps; /* as in the plan */
    size_t batch_size;
    uint64_t seed;
    double learning_rate;
    fst_optim_spec optim;
    bool keep_optim; /* as in the plan; such a job is of the client's own network. Else it begins without moments */
    fst_loss loss;
    bool without_labels; /* the loss does not see them; nothing is counted as correct */
    const double *class_weight;
    double prox_mu;
    const float *anchor;    /* of prox_mu */
    const float *shift;     /* added to every gradient; NULL: nothing */
    fst_local_soft_fn soft; /* NULL: none */
    void *soft_ctx;
    const fst_feature_loss *features; /* of a tapped graph; feature_count of them */
    size_t feature_count;
    fst_local_before_fn before; /* NULL: nothing */
    void *before_ctx;
    fst_local_step_fn take; /* instead of a step of the graph by optim and loss, which nobody reads then; NULL: none */
    void *take_ctx;
} fst_local_job;

typedef struct fst_local_result {
    size_t rows;
    uint64_t steps;
    double loss;     /* mean over the rows; NaN without any */
    double accuracy; /* NaN without labels */
} fst_local_result;

/* The client's own model on its own samples as its plan says, by cross entropy. */
FST_API fst_local_job fst_client_job(fst_client_half *c);
/* FST_E_NUMERIC when it diverges, FST_E_CANCELLED when it is stopped. */
FST_MUST FST_API fst_status fst_client_train(fst_client_half *c, const fst_local_job *job, fst_local_result *result,
                                             fst_error *err);
/* logits: count x classes, in the order of the subset; without augmentation. */
FST_MUST FST_API fst_status fst_client_logits(fst_client_half *c, const fst_graph *graph, const fst_fed_state *state,
                                              const fst_source *source, const uint32_t *subset, size_t count,
                                              const fst_transform *transform, float *logits, fst_error *err);
/* The same for one batch as it stands: x has `rows` samples; logits: rows x classes. For job.soft. */
FST_MUST FST_API fst_status fst_client_batch_logits(fst_client_half *c, const fst_graph *graph,
                                                    const fst_fed_state *state, const float *x, size_t rows,
                                                    float *logits, fst_error *err);

FST_END_DECLS

#endif

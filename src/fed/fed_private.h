/* What files of this layer share and nobody else sees. */
#ifndef FEDSTILL_FED_PRIVATE_H
#define FEDSTILL_FED_PRIVATE_H

#include "fedstill/fed.h"

/* The halves of a strategy in its table. fedstill-edge trains nothing: built for it, strategies have names and options
 * only, and what the halves take is linked by nobody. */
#ifdef FST_NO_TRAINING
#define FST__HALF(ops) (0 ? (ops) : NULL)
#else
#define FST__HALF(ops) (ops)
#endif

/* fst_accumulator_add in two steps, so that several sums take an update together or not at all. */
FST_MUST fst_status fst__accumulator_check_weight(const fst_accumulator *a, int64_t weight, fst_error *err);
void fst__accumulator_add_checked(fst_accumulator *a, const float *x, int64_t weight);
/* The addition with at most instruction set `level` (0 plain, 1 AVX2, 2 AVX-512), for tests. */
void fst__accumulator_add_level(fst_accumulator *a, const float *x, int32_t weight, int level);

/* out[i] = the sum of elements first ... first+count-1 as the nearest double. */
void fst__accumulator_sum_range(const fst_accumulator *a, size_t first, size_t count, double *out);

/* lane[i mod FST__LANES] += (a[i] - b[i])^2: a sum with one order, whatever vectors the compiler makes of it. */
enum { FST__LANES = 8 };
void fst__add_squares(double lane[FST__LANES], const float *a, const float *b, size_t n);
double fst__sum_lanes(const double lane[FST__LANES]);

/* A model's state as nn sees it, and back; views of the same memory. */
fst_state fst__nn_state(const fst_fed_state *s);

/* Floats that a network's last layer reads; 0: it does not end in a linear layer over features. */
size_t fst__last_width(const fst_graph *g);

/* ---- client.c ---- */
/* How a client trains on batches of this size. */
fst_trainer_options fst__client_compute(const fst_client_env *env, size_t batch);

/* ---- strategies/average.c: the sample-weighted mean of whole states ---- */
typedef struct fst__average {
    fst_accumulator params, buffers;
    int64_t *counters; /* the largest so far */
    size_t ncounters;
    bool any;
} fst__average;
FST_MUST fst_status fst__average_init(fst__average *a, fst_fed_size size, fst_error *err);
void fst__average_release(fst__average *a);
void fst__average_clear(fst__average *a);
FST_MUST fst_status fst__average_fold(fst__average *a, const fst_fed_view *state, int64_t weight, fst_error *err);
/* global becomes the mean; *step_norm the length of params' step. */
FST_MUST fst_status fst__average_publish(const fst__average *a, fst_fed_state *global, double *step_norm,
                                         fst_error *err);
/* global's params take a step along the mean, times `reach`; the rest is published. */
FST_MUST fst_status fst__average_step(const fst__average *a, double reach, fst_fed_state *global, double *step_norm,
                                      fst_error *err);
/* The same for all that is not trained: buffers become the mean, counters the largest. */
FST_MUST fst_status fst__average_publish_rest(const fst__average *a, fst_fed_state *global, fst_error *err);

/* ---- coded.c: what codecs code of the strategies of a shared model ---- */
extern const char *const fst__codes_model[];

/* ---- strategies/fedavg.c: what strategies of a shared model have in common ---- */
/* The server half that sends the shared model, folds messages "state", and publishes their mean. */
extern const fst_server_ops fst__averaging_server;
struct fst__averaging {
    fst_strategy base;
    fst__average average;
};
/* Parts of it, for server halves that do something else with the mean; the instance begins with struct fst__averaging.
 */
FST_MUST fst_status fst__averaging_init(fst_strategy *s, fst_error *err);
void fst__averaging_release(fst_strategy *s);
void fst__averaging_begin(fst_strategy *s, uint64_t round);
FST_MUST fst_status fst__averaging_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err);
FST_MUST fst_status fst__averaging_fold(fst_strategy *s, const fst_message *m, fst_error *err);
/* The client's half: the model that was sent becomes c->model; the job then trains it; what comes out is sent. */
FST_MUST fst_status fst__take_shared(fst_client_half *c, const fst_message *down, fst_fed_view *shared, fst_error *err);
FST_MUST fst_status fst__send_state(fst_client_half *c, const fst_local_result *r, fst_message *up, fst_error *err);
FST_MUST fst_status fst__train_and_send(fst_client_half *c, const fst_local_job *job, fst_message *up, fst_error *err);
/* The whole of it, for clients that train as their plan says. */
FST_MUST fst_status fst__averaging_work(fst_client_half *c, const fst_message *down, fst_message *up, fst_error *err);
extern const fst_client_ops fst__averaging_client;

/* ---- strategies/consensus.c: what strategies of public samples have in common ---- */
/*
 * The server half whose shared thing is one array, rows x classes: the unweighted mean of what the clients sent for the
 * public samples that a round draws. It goes down in the next rounds as tensor `name` with base = number of the round
 * that it is of, plus 1; base 0 and no tensor before the first. Both ways "public" is the digest of the public keys.
 */
struct fst__consensus {
    fst_strategy base;
    const char *name; /* "logits", "probabilities"; set by init's caller */
    size_t rows, classes;
    fst_accumulator sum;
    float *mean;   /* rows x classes */
    uint64_t made; /* 1 + the round of mean; 0: there is none */
    /* NULL, or what becomes of so many rows of the mean before they are shared; set by init's caller. It must not fail
     * on what `fold` lets in. */
    fst_status (*shape)(const struct fst__consensus *c, float *row, size_t rows, fst_error *err);
    float *block; /* block_rows x classes */
    size_t block_rows;
};
FST_MUST fst_status fst__consensus_init(struct fst__consensus *c, const char *name, fst_error *err);
void fst__consensus_release(fst_strategy *s);
void fst__consensus_begin(fst_strategy *s, uint64_t round);
FST_MUST fst_status fst__consensus_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err);
FST_MUST fst_status fst__consensus_fold(fst_strategy *s, const fst_message *m, fst_error *err);
FST_MUST fst_status fst__consensus_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats,
                                             fst_error *err);
float *fst__consensus_shared(const fst_strategy *s, uint64_t *made); /* of fst_predictions */
FST_MUST fst_status fst__consensus_save(const fst_strategy *s, fst_buf *out, fst_error *err);
FST_MUST fst_status fst__consensus_load(fst_strategy *s, const void *data, size_t len, fst_error *err);
/* The first options of strategies whose clients learn from public samples, in this order. */
enum { FST__PUBLIC_SAMPLES, FST__DIGEST_EPOCHS, FST__PUBLIC_OPTIONS };
#define FST__OPTION_PUBLIC_SAMPLES                                                                          \
    {                                                                                                       \
        "public_samples", FST_OPTION_WHOLE, .max = 1e9, .help = "public samples that a round draws; 0: all" \
    }
#define FST__OPTION_DIGEST_EPOCHS                                                            \
    {                                                                                        \
        "digest_epochs", FST_OPTION_WHOLE, .fallback = 1, .min = 1, .max = 1e5,              \
                                           .help = "epochs of a round on the public samples" \
    }
/* Adds the digest of the public samples, and: are they those of the other side? */
FST_MUST fst_status fst__add_public(const fst_public *p, fst_message *m, fst_error *err);
FST_MUST fst_status fst__check_public(const fst_public *p, const fst_message *m, fst_error *err);

/* The client's room for public samples; a client half begins with it. release frees it. */
struct fst__public_half {
    fst_client_half base;
    uint32_t *row;    /* of the drawn public samples */
    uint32_t *index;  /* their positions in the source */
    uint32_t *row_at; /* by position in the source: which of the drawn */
    float *out;       /* rows x classes: what is sent */
    size_t count, positions;
};
void fst__public_release(fst_client_half *h);
/* Draws a round's samples into index; returns how many in *n. */
FST_MUST fst_status fst__public_draw(struct fst__public_half *p, uint64_t round, size_t *n, fst_error *err);
/* Fits c->model to targets (rows x classes) for the drawn samples by `loss`, whose labels are not looked at. */
FST_MUST fst_status fst__public_fit(struct fst__public_half *p, size_t n, const float *target, const fst_loss *loss,
                                    fst_error *err);
/* Of targets that are probabilities: H(target, softmax(z)). */
extern const fst_loss fst__fit_probabilities;
/* Fits c->model to tensor `name` of a message with base > 0: rows for the samples of the round that it was made in. */
FST_MUST fst_status fst__public_digest(struct fst__public_half *p, const fst_message *down, const char *name,
                                       const fst_loss *loss, fst_error *err);
/* A client's round, whose last step is the strategy's: `learn` takes what was shared (base 0: nothing yet), the client
 * trains on its own samples, and p->out becomes the model's logits for this round's *n public samples. */
typedef fst_status (*fst__learn_fn)(struct fst__public_half *p, const fst_message *down, fst_error *err);
FST_MUST fst_status fst__public_round(struct fst__public_half *p, const fst_message *down, fst__learn_fn learn,
                                      fst_message *up, size_t *n, fst_error *err);
/* Adds p->out as tensor `name`, and the digest. */
FST_MUST fst_status fst__public_send(struct fst__public_half *p, const char *name, size_t n, fst_message *up,
                                     fst_error *err);

/* The step size at the server is one option, whichever strategies have it. 0 stands for the paper's. */
#define FST__SERVER_RATE                                                                         \
    {                                                                                            \
        "server.learning_rate", FST_OPTION_NUMBER,                                               \
            .max = 1000, .help = "step size; 0: 0.1 for fedadagrad, fedadam and fedyogi, else 1" \
    }

/* ---- strategies/fednova.c ---- */
/*
 * How far `steps` local steps go for a gradient of 1 and a learning rate of 1: the sum of the factors by which the
 * gradients of a round enter the client's update, |a|_1 of Wang et al. 2020. Plain SGD: steps. Momentum and the
 * proximal term's mu are taken as the optimiser takes them; weight decay counts as a part of the gradient. For Adam,
 * whose steps have a length of their own: steps.
 */
double fst__local_reach(const fst_optim_spec *optim, double learning_rate, double mu, uint64_t steps);

extern const fst_strategy_ops fst__scaffold, fst__fednova, fst__fedntd, fst__fedbn, fst__median, fst__trimmed_mean,
    fst__krum, fst__multi_krum, fst__bulyan, fst__geometric_median, fst__norm_clipping;

extern const fst_strategy_ops fst__fedavg, fst__fedprox, fst__fedavgm, fst__fedadagrad, fst__fedadam, fst__fedyogi,
    fst__fedmd, fst__fd, fst__dsfl, fst__cfd, fst__feddf, fst__fedgen, fst__fedproto, fst__fd_plus, fst__fedensemble,
    fst__fedbuff, fst__fedkd, fst__local;

#endif

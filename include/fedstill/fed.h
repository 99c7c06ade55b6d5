/*
 * fedstill/fed.h - federation: the round engine, exact streaming sums, strategies, and the
 * simulation of many clients in one process.
 *
 * A model's state is seen as three plain spans, so this layer knows no network:
 *   params    floats that are trained; averaged with the clients' sample counts as weights
 *   buffers   floats that are not trained (running statistics of batch norm); averaged the same way
 *   counters  integers (num_batches_tracked); the largest is taken
 *
 * Rounds and clients are numbered from 0. Mapping names of sites to client numbers is the caller's.
 */
#ifndef FEDSTILL_FED_H
#define FEDSTILL_FED_H

#include "fedstill/base.h"

FST_BEGIN_DECLS

/* ---- model state -------------------------------------------------------------------------- */

typedef struct fst_fed_size {
    size_t params, buffers, counters; /* elements */
} fst_fed_size;

/* A span may be NULL when its size is 0. */
typedef struct fst_fed_state {
    float *params, *buffers;
    int64_t *counters;
    fst_fed_size size;
} fst_fed_state;

typedef struct fst_fed_view {
    const float *params, *buffers;
    const int64_t *counters;
    fst_fed_size size;
} fst_fed_view;

FST_API fst_fed_view fst_fed_state_view(const fst_fed_state *s);
/* What such a state costs on the wire: 4 bytes a float, 8 a counter. */
FST_API uint64_t fst_fed_size_bytes(fst_fed_size size);
FST_API bool fst_fed_size_equal(fst_fed_size a, fst_fed_size b);
/* A zeroed state in one allocation. _release takes NULL and zeroed objects. */
FST_MUST FST_API fst_status fst_fed_state_init(fst_fed_state *s, fst_fed_size size, fst_error *err);
FST_API void fst_fed_state_release(fst_fed_state *s);
/* Sizes must be equal (the caller's duty). */
FST_API void fst_fed_state_copy(fst_fed_state *dst, const fst_fed_view *src);

/* ---- exact sums --------------------------------------------------------------------------- */

/*
 * The weighted sum of float arrays in 128-bit fixed point, whose bits do not depend on the order of
 * arrival, on the number of workers or on how partial sums were merged.
 *
 * Range:     every |x| must be below 2^31 and finite; one weight is 0 ... 2^31-1, the sum of the
 *            weights at most 2^32-1. Within that the sum cannot overflow.
 * Precision: an element is taken as a multiple of 2^-62. That is exact for 0 and for every
 *            |x| >= 2^-39; smaller ones (subnormals too) are rounded to the nearest multiple, which
 *            moves them by at most 2^-63. Products and sums after that are exact. The mean is
 *            rounded once, to the nearest float (ties to even): it is the correctly rounded mean of
 *            the elements as taken. A mean that is zero is +0.
 * Memory:    16 bytes an element. Adding and averaging do not allocate.
 *
 * The fields may be read (to save them); writing them is for this code only. Element i of the sum
 * is (hi[i] * 2^64 + lo[i]) * 2^-64.
 */
typedef struct fst_accumulator {
    size_t count;    /* elements */
    uint64_t weight; /* sum of the weights so far */
    uint64_t *lo;
    int64_t *hi;
} fst_accumulator;

#define FST_ACCUMULATOR_MAX_WEIGHT INT64_C(0x7FFFFFFF) /* of one addition */
#define FST_ACCUMULATOR_MAX_TOTAL UINT64_C(0xFFFFFFFF) /* of all */

FST_MUST FST_API fst_status fst_accumulator_init(fst_accumulator *a, size_t count, fst_error *err);
FST_API void fst_accumulator_release(fst_accumulator *a);
/* Back to an empty sum. */
FST_API void fst_accumulator_clear(fst_accumulator *a);
/* Whether x may be added: FST_E_NUMERIC names the first element that is not finite or too large. */
FST_MUST FST_API fst_status fst_accumulator_check(const float *x, size_t count, fst_error *err);
/* sum += weight * x. Everything is checked before the first element is added: after a failure
 * (FST_E_NUMERIC for x, FST_E_LIMIT for the total weight, FST_E_ARGUMENT for this weight) the sum is what
 * it was. A weight of 0 adds nothing. */
FST_MUST FST_API fst_status fst_accumulator_add(fst_accumulator *a, const float *x, int64_t weight, fst_error *err);
/* sum += the sum in b; exact. */
FST_MUST FST_API fst_status fst_accumulator_merge(fst_accumulator *a, const fst_accumulator *b, fst_error *err);
/* out[0 ... count-1] = mean of elements first ... first+count-1. FST_E_ARGUMENT when nothing with a weight
 * was added. */
FST_MUST FST_API fst_status fst_accumulator_mean_range(const fst_accumulator *a, size_t first, size_t count, float *out,
                                                       fst_error *err);
/* All of them: out has a->count elements. */
FST_MUST FST_API fst_status fst_accumulator_mean(const fst_accumulator *a, float *out, fst_error *err);

/* ---- server optimisers -------------------------------------------------------------------- */

/*
 * FedOpt (Reddi et al., Adaptive federated optimization, ICLR 2021; FedAvgM: Hsu et al. 2019): the server takes the
 * clients' mean step d = mean - x as a gradient that points the right way. Moments are kept in float, arithmetic is in
 * double, element by element: nothing depends on threads.
 *   momentum  m = momentum m + d;               x += lr m
 *   others    m = beta1 m + (1 - beta1) d;      x += lr m / (sqrt(v) + tau), without bias correction
 *     adagrad  v += d^2
 *     adam     v = beta2 v + (1 - beta2) d^2
 *     yogi     v -= (1 - beta2) d^2 sign(v - d^2)
 */
typedef enum fst_server_kind {
    FST_SERVER_MOMENTUM,
    FST_SERVER_ADAGRAD,
    FST_SERVER_ADAM,
    FST_SERVER_YOGI
} fst_server_kind;
FST_API const char *fst_server_kind_name(fst_server_kind k); /* "momentum", "adagrad", ... */

typedef struct fst_server_spec {
    fst_server_kind kind;
    double learning_rate; /* > 0 */
    double momentum;      /* momentum: [0, 1) */
    double beta1, beta2;  /* [0, 1); adagrad: the paper's beta1 is 0, beta2 is not used */
    double tau;           /* > 0: how adaptive; small is more */
    double v_init;        /* v before the first step, >= 0; 0 means tau^2 */
} fst_server_spec;

typedef struct fst_server_optim {
    fst_server_spec spec;
    size_t count;
    float *m, *v; /* count each; v is NULL for momentum */
} fst_server_optim;

FST_MUST FST_API fst_status fst_server_optim_init(fst_server_optim *o, const fst_server_spec *spec, size_t count,
                                                  fst_error *err);
FST_API void fst_server_optim_release(fst_server_optim *o);
/* Moves x[0 ... n-1], which are elements first ... first+n-1 of the span, along delta. A step of the whole span is any
 * number of such calls that cover each element once. */
FST_API void fst_server_optim_step(fst_server_optim *o, size_t first, size_t n, const double *delta, float *x);

/* ---- robust aggregation ------------------------------------------------------------------- */

/*
 * Rules that bear some clients sending nonsense. Unlike strategies they need all updates at the same time:
 * memory is O(clients x model), by nature. Each takes n client states of one size and fills *out, of that size
 * too; parameters and buffers are treated alike, of counters the largest is taken. Nothing depends on the order of
 * the clients, bit for bit. Weights by samples are left out but in the geometric median: a client that lies may
 * lie about them.
 * FST_E_NUMERIC names a client with NaN or infinity; FST_E_MISMATCH one of another size.
 */
/* Of each coordinate; of an even number the mean of the middle two. Yin et al., ICML 2018. */
FST_MUST FST_API fst_status fst_robust_median(const fst_fed_view *client, size_t n, fst_fed_state *out, fst_error *err);
/* Mean of each coordinate without its floor(trim n) smallest and as many largest values, 0 <= trim < 0.5. Yin et al. */
FST_MUST FST_API fst_status fst_robust_trimmed_mean(const fst_fed_view *client, size_t n, double trim,
                                                    fst_fed_state *out, fst_error *err);
/*
 * Krum (m 1) and multi-Krum (Blanchard et al., NeurIPS 2017). A client's score is the sum of its n-f-2 smallest squared
 * distances to the others; the mean of the m best, 1 <= m <= n-f, is the result. Bears f liars of n >= 2f+3
 * (FST_E_ARGUMENT below that). chosen (m numbers, best first) and score (n) may be NULL. Equal scores are decided by
 * the contents.
 */
FST_MUST FST_API fst_status fst_robust_krum(const fst_fed_view *client, size_t n, size_t f, size_t m,
                                            fst_fed_state *out, size_t *chosen, double *score, fst_error *err);
/* Weiszfeld's iteration for the point of the least weighted sum of distances: from the weighted mean, `iterations`
 * times z = sum(r x)/sum(r), r = weight/max(|x - z|, eps). weight NULL: 1 each. Pillutla et al., IEEE TSP 2022. */
FST_MUST FST_API fst_status fst_robust_geometric_median(const fst_fed_view *client, const double *weight, size_t n,
                                                        int iterations, double eps, fst_fed_state *out, fst_error *err);

/* ---- strategies --------------------------------------------------------------------------- */

typedef struct fst_strategy_options {
    double prox_mu; /* fedprox: weight of mu/2 |w - w_global|^2 in the clients' loss; >= 0 */
    /* fedavgm, fedadagrad, fedadam, fedyogi: the server's step, see fst_server_spec; 0 means the value in brackets */
    double server_learning_rate; /* [1 for fedavgm, else 0.1] */
    double server_momentum;      /* fedavgm [0.9] */
    double server_beta1;         /* fedadam, fedyogi [0.9] */
    double server_beta2;         /* fedadam, fedyogi [0.99] */
    double server_tau;           /* fedadagrad, fedadam, fedyogi [0.001] */
} fst_strategy_options;

/* What a client is told besides the state it starts from. */
typedef struct fst_train_hints {
    double prox_mu; /* 0: no proximal term */
} fst_train_hints;

/* What a client returns. */
typedef struct fst_update {
    uint32_t client;
    uint64_t round;
    int64_t samples; /* it trained on; its weight */
    fst_fed_view state;
} fst_update;

/* What publishing did. */
typedef struct fst_publish_stats {
    uint64_t updates;   /* that were folded */
    uint64_t samples;   /* their weight */
    double update_norm; /* Euclidean length of the step that params took */
} fst_publish_stats;

typedef struct fst_strategy fst_strategy;

/*
 * A strategy says what clients are sent and return and how returns become the next global state.
 * Calls of one instance come one at a time, except `sizes` and `hints`, which must only read and
 * may be called from many threads at once. Nothing may block, print, or look at a clock. The
 * functions fst_strategy_* below check arguments before they call these.
 *
 * A round is: begin, fold any number of times, publish. The outcome must not depend on the order
 * of the folds, bit for bit. All memory is taken in `init` and is O(model), never O(clients).
 */
typedef struct fst_strategy_ops {
    const char *name;      /* "fedavg" */
    const char *summary;   /* one line for people */
    size_t instance_bytes; /* of the struct that starts with fst_strategy */
    bool averages;         /* what is published is the clients' weighted mean and nothing else: when all return
                            * the same model, that model comes out */
    /* Checks the options (FST_E_CONFIG) and allocates. On failure `release` follows. */
    fst_status (*init)(fst_strategy *s, const fst_strategy_options *options, fst_error *err);
    void (*release)(fst_strategy *s);
    /* What goes over the wire to a client and back. NULL: the whole state both ways. */
    void (*sizes)(const fst_strategy *s, fst_fed_size *down, fst_fed_size *up);
    /* Hints for `client` in `round`; *hints comes zeroed. NULL: none. */
    void (*hints)(const fst_strategy *s, uint64_t round, uint32_t client, fst_train_hints *hints);
    /* Forgets what was folded. */
    void (*begin)(fst_strategy *s, uint64_t round);
    /* Takes one return completely or not at all; the update's memory is the caller's and may change
     * after the call. FST_E_NUMERIC refuses this update; any other failure ends the run. */
    fst_status (*fold)(fst_strategy *s, const fst_update *u, fst_error *err);
    /* Replaces the global state by the next one. At least one update was folded. */
    fst_status (*publish)(fst_strategy *s, fst_fed_state *global, fst_publish_stats *stats, fst_error *err);
    /* What the server keeps from round to round (momentum); called between rounds. `save` appends to
     * out; `load` gets exactly those bytes, checks them (FST_E_FORMAT, FST_E_MISMATCH) and changes nothing
     * on failure. Both NULL: the strategy keeps nothing. */
    fst_status (*save)(const fst_strategy *s, fst_buf *out, fst_error *err);
    fst_status (*load)(fst_strategy *s, const void *data, size_t len, fst_error *err);
} fst_strategy_ops;

/* What every instance starts with. Folded updates are counted by fst_strategy_fold. */
struct fst_strategy {
    const fst_strategy_ops *ops;
    fst_fed_size size;
    uint64_t round, updates, samples;
    bool open; /* between begin and publish */
};

/* The built-in ones: "fedavg", "fedprox", "fedavgm", "fedadagrad", "fedadam", "fedyogi". NULL behind the last. */
FST_API const fst_strategy_ops *fst_strategy_at(size_t i);
FST_API const fst_strategy_ops *fst_strategy_find(const char *name);

/* options NULL: all zero. FST_E_CONFIG for an unknown name, with the known ones listed. */
FST_MUST FST_API fst_status fst_strategy_new(fst_strategy **out, const char *name, const fst_strategy_options *options,
                                             fst_fed_size size, fst_error *err);
/* The same for a strategy that is not built in; ops must outlive it. */
FST_MUST FST_API fst_status fst_strategy_new_ops(fst_strategy **out, const fst_strategy_ops *ops,
                                                 const fst_strategy_options *options, fst_fed_size size,
                                                 fst_error *err);
FST_API void fst_strategy_free(fst_strategy *s);
FST_API void fst_strategy_sizes(const fst_strategy *s, fst_fed_size *down, fst_fed_size *up);
FST_API fst_train_hints fst_strategy_hints(const fst_strategy *s, uint64_t round, uint32_t client);
FST_API void fst_strategy_begin(fst_strategy *s, uint64_t round);
/* FST_E_MISMATCH: not of this round, or of another size. FST_E_ARGUMENT: samples outside 1 ... 2^31-1.
 * FST_E_NUMERIC: NaN, infinity or |x| >= 2^31 inside. After any failure nothing of it was taken. */
FST_MUST FST_API fst_status fst_strategy_fold(fst_strategy *s, const fst_update *u, fst_error *err);
/* stats may be NULL. FST_E_ARGUMENT when nothing was folded; global is untouched then. */
FST_MUST FST_API fst_status fst_strategy_publish(fst_strategy *s, fst_fed_state *global, fst_publish_stats *stats,
                                                 fst_error *err);
/* The bytes name the strategy and the model's size; loading them into another is FST_E_MISMATCH. */
FST_MUST FST_API fst_status fst_strategy_save(const fst_strategy *s, fst_buf *out, fst_error *err);
FST_MUST FST_API fst_status fst_strategy_load(fst_strategy *s, const void *data, size_t len, fst_error *err);

/* ---- the round engine --------------------------------------------------------------------- */

/*
 * Decides what happens when in a federated run, and does none of it: no I/O, no clock, no threads, no
 * allocation after fst_round_new. The caller feeds events and carries out the actions that come
 * back; the same events always give the same actions.
 *
 *   announce   waiting until enough clients have joined
 *   collect    the cohort was drawn and announced; updates come in
 *   aggregate  closed; waiting for `aggregated`
 *   publish    waiting for `published`; then the next round, or finished
 *
 * A crash loses nothing when the caller saves the engine after every event, before it acts on the
 * actions, and acts idempotently: actions not yet fetched are part of the saved bytes.
 */
typedef enum fst_round_phase {
    FST_PHASE_ANNOUNCE,
    FST_PHASE_COLLECT,
    FST_PHASE_AGGREGATE,
    FST_PHASE_PUBLISH,
    FST_PHASE_FINISHED,
    FST_PHASE_FAILED
} fst_round_phase;

/* What to do when a round can no longer reach its quorum, or has not at its deadline. */
typedef enum fst_quorum_policy {
    FST_QUORUM_FAIL,   /* the run fails */
    FST_QUORUM_SKIP,   /* the round counts but changes nothing */
    FST_QUORUM_EXTEND, /* another deadline, and clients not asked yet fill the cohort; at most
                        * max_extensions times a round, then the run fails. Without a deadline the
                        * run fails when nobody is left to ask. */
} fst_quorum_policy;

typedef struct fst_round_spec {
    uint64_t seed;
    uint32_t clients;     /* client numbers are 0 ... clients-1; at least 1 */
    uint64_t first_round; /* where to start (resume); below rounds, or equal: finished at once */
    uint64_t rounds;      /* in total */
    uint32_t cohort;      /* clients a round; 0: use fraction */
    double fraction;      /* of the clients that are there, 0 < fraction <= 1, rounded, at least one */
    double over_select;   /* ask this part more (0.2: 20 %) and close when the cohort's number reported */
    uint32_t quorum;      /* updates below which nothing is aggregated; 0 means 1 */
    uint32_t min_clients; /* clients that must be there before a round opens; at least the quorum */
    double deadline;      /* seconds from announcing to closing; 0: none */
    double join_deadline; /* seconds to wait for min_clients before the run fails; 0: for ever */
    fst_quorum_policy policy;
    uint32_t max_extensions; /* at most 255 */
} fst_round_spec;

typedef enum fst_fed_event_kind {
    FST_EVENT_JOINED,     /* client is there (again); one that is being waited for is announced to again */
    FST_EVENT_UPDATE,     /* client's update for round with samples arrived */
    FST_EVENT_FOLDED,     /* answer to FST_ACTION_FOLD: client's update is in */
    FST_EVENT_REFUSED,    /* the fold was refused, or the client says that it cannot: it does not count in
                           * this round and stays for the next */
    FST_EVENT_TIMER,      /* time passed */
    FST_EVENT_LOST,       /* client is gone; an update that it sent before still counts */
    FST_EVENT_AGGREGATED, /* answer to FST_ACTION_AGGREGATE */
    FST_EVENT_PUBLISHED   /* answer to FST_ACTION_PUBLISH */
} fst_fed_event_kind;

typedef struct fst_fed_event {
    fst_fed_event_kind kind;
    double now;      /* seconds since any origin, in every event; steps back are taken as standing still */
    uint32_t client; /* joined, update, folded, refused, lost */
    uint64_t round;  /* update, folded, refused, aggregated, published */
    int64_t samples; /* update; folded: of the update that was folded */
} fst_fed_event;

typedef enum fst_fed_action_kind {
    FST_ACTION_ANNOUNCE,  /* send round to client */
    FST_ACTION_FOLD,      /* fold client's update; answer with folded or refused */
    FST_ACTION_DISCARD,   /* throw client's update away; why */
    FST_ACTION_CLOSE,     /* round takes no more updates; why */
    FST_ACTION_AGGREGATE, /* answer with aggregated */
    FST_ACTION_PUBLISH,   /* answer with published */
    FST_ACTION_SET_TIMER, /* give a timer event at time `at` or soon after; replaces an earlier one */
    FST_ACTION_FINISHED,  /* all rounds are done */
    FST_ACTION_FAILED,    /* the run cannot go on; why */
    FST_ACTION_LOG        /* nothing to do; something was decided or noticed; why */
} fst_fed_action_kind;

typedef enum fst_fed_why {
    FST_WHY_NONE,
    /* announce */
    FST_WHY_SELECTED, /* drawn for the round */
    FST_WHY_REJOINED, /* was selected and joined again before it reported */
    FST_WHY_EXTENDED, /* drawn later, to fill the cohort */
    /* discard */
    FST_WHY_DUPLICATE,      /* has already reported in this round */
    FST_WHY_STALE,          /* of an earlier round */
    FST_WHY_FUTURE,         /* of a round that has not begun */
    FST_WHY_LATE,           /* of this round, after it closed */
    FST_WHY_NOT_SELECTED,   /* was not asked in this round */
    FST_WHY_BAD_SAMPLES,    /* samples outside 1 ... 2^31-1 */
    FST_WHY_REFUSED_BEFORE, /* an earlier update of it was refused in this round */
    FST_WHY_UNKNOWN_CLIENT, /* client >= spec.clients */
    FST_WHY_ENDED,          /* the run is over */
    /* close */
    FST_WHY_ALL_REPORTED, /* everybody asked reported */
    FST_WHY_ENOUGH,       /* the cohort's number reported; others were asked in reserve */
    FST_WHY_ALL_ANSWERED, /* nobody is left to wait for; some are lost or refused; the quorum is there */
    FST_WHY_DEADLINE,     /* deadline passed with a quorum */
    FST_WHY_NO_QUORUM,    /* close, failed: too few updates */
    /* failed */
    FST_WHY_NO_CLIENTS, /* too few clients joined before the join deadline */
    /* log */
    FST_WHY_JOINED,
    FST_WHY_OPENED,       /* a round was opened; count clients were selected */
    FST_WHY_WAITING,      /* count clients are there, too few to open a round */
    FST_WHY_LOST_PENDING, /* lost before it reported */
    FST_WHY_LOST_COUNTED, /* lost after it reported: its update counts */
    FST_WHY_LOST_IDLE,    /* lost while nothing was wanted from it */
    FST_WHY_REFUSED,      /* its update was refused, or it could not make one */
    FST_WHY_EXTENSION,    /* the deadline was extended; count clients more were selected */
    FST_WHY_IGNORED,      /* the event means nothing now (an answer nobody waits for, a client unknown) */
    FST_WHY_COUNT
} fst_fed_why;

typedef struct fst_fed_action {
    fst_fed_action_kind kind;
    fst_fed_why why;
    uint32_t client; /* announce, fold, discard, log about a client */
    uint64_t round;
    uint64_t count; /* close: updates folded; log: see the reason */
    double at;      /* set_timer */
} fst_fed_action;

/* Where the run stands. */
typedef struct fst_round_view {
    fst_round_phase phase;
    uint64_t round;
    uint32_t joined, selected, target, pending, folding, folded, lost, refused, extensions;
    uint64_t samples; /* of the updates folded in this round */
} fst_round_view;

typedef struct fst_round_engine fst_round_engine;

/* FST_E_CONFIG names the setting that is wrong. */
FST_MUST FST_API fst_status fst_round_new(fst_round_engine **out, const fst_round_spec *spec, fst_error *err);
FST_API void fst_round_free(fst_round_engine *e);
/* Takes one event. All actions of the event before must have been fetched (FST_E_ARGUMENT if not, or when
 * `now` or the kind is no value). Events that make no sense now are answered, not failed. */
FST_MUST FST_API fst_status fst_round_event(fst_round_engine *e, const fst_fed_event *event, fst_error *err);
/* The next action; false when there is none. */
FST_API bool fst_round_next_action(fst_round_engine *e, fst_fed_action *out);
FST_API fst_round_view fst_round_look(const fst_round_engine *e);
/* Appends the whole engine, its spec and the actions not yet fetched to out. */
FST_MUST FST_API fst_status fst_round_save(const fst_round_engine *e, fst_buf *out, fst_error *err);
/* An engine that goes on exactly where the saved one stood. Bytes that were changed are FST_E_FORMAT. */
FST_MUST FST_API fst_status fst_round_restore(fst_round_engine **out, const void *data, size_t len, fst_error *err);

FST_API const char *fst_fed_why_text(fst_fed_why why); /* "deadline passed with a quorum" */
FST_API const char *fst_round_phase_name(fst_round_phase phase);
/* One line for a log, "round 3: client 7: discarded: of an earlier round"; always terminated; returns out. */
FST_API const char *fst_fed_action_text(const fst_fed_action *a, char *out, size_t size);

/* ---- simulation --------------------------------------------------------------------------- */

typedef struct fst_train_result {
    int64_t samples; /* comes filled with the spec's count; 1 ... 2^31-1 */
    double loss;     /* mean over the samples; comes as 0 */
    double accuracy; /* 0 ... 1; comes as NaN: not measured */
} fst_train_result;

/* One client of a round. */
typedef struct fst_client_report {
    uint32_t client;
    bool reported;         /* its update entered the result; false: it was lost */
    const char *lost;      /* why; NULL when it reported */
    int64_t samples;       /* that it trained on */
    double loss, accuracy; /* as it told them; NaN when its training failed */
    uint64_t bytes_down, bytes_up;
    double seconds; /* of its training alone, wall clock; the only field that differs between two runs */
} fst_client_report;

#define FST_REPORT_LOST 4

/* Rounds and clients are counted from 0 here and in all calls, from 1 in every message and text. */
typedef struct fst_round_report {
    uint64_t round;
    uint32_t selected, reported, lost; /* lost: failed, or its update was refused */
    bool aggregated;                   /* false: skipped, the state did not change */
    fst_fed_why why;                   /* why the round closed */
    uint64_t samples;
    double loss, accuracy; /* means over those that reported, weighted by samples; NaN if none, and
                            * accuracy is NaN unless everybody measured it */
    double update_norm;
    uint64_t bytes_down, bytes_up;
    double seconds;                  /* wall clock; the only field that differs between two runs */
    const uint32_t *reported_client; /* `reported` entries: whose updates entered the result, in the order of selection;
                                      * valid during round_done */
    const fst_client_report *by_client; /* `selected` entries, in the order of selection; valid during round_done */
    uint32_t lost_named;
    struct {
        uint32_t client;
        char message[240];
    } lost_first[FST_REPORT_LOST]; /* in the order of selection */
} fst_round_report;

/*
 * Trains client from *global into *update, which comes holding a copy of *global, and fills *result.
 * Called at the same time from different workers (0 <= worker < workers), never twice at a time for
 * one worker, so that a caller can keep one plan a worker. What it computes must depend on
 * (client, round, global) alone; then the whole run does. A failure makes the client lost in this
 * round; FST_E_CANCELLED stops the run.
 */
typedef fst_status (*fst_train_fn)(void *ctx, int worker, uint32_t client, uint64_t round, const fst_train_hints *hints,
                                   const fst_fed_view *global, fst_fed_state *update, fst_train_result *result,
                                   fst_error *err);
/* After every round, skipped ones too, on the thread that called fst_simulate: evaluation, checkpoint
 * (of *global and, with fst_strategy_save, of the strategy), events. A failure stops the run with it. */
typedef fst_status (*fst_round_done_fn)(void *ctx, const fst_fed_view *global, const fst_round_report *report,
                                        fst_error *err);

typedef struct fst_simulate_spec {
    uint64_t seed;
    uint32_t clients;
    const int64_t *samples; /* of each client; one that has 0 never takes part. NULL: train says */
    uint64_t first_round;   /* resume: rounds before it are done, *global is their result */
    uint64_t rounds;        /* in total */
    uint32_t cohort;        /* as in fst_round_spec; both 0: everybody */
    double fraction;
    uint32_t quorum;
    fst_quorum_policy policy;
    uint32_t max_extensions;
    int workers;            /* at least 1 */
    const char *noun;       /* what messages call a client; NULL: "client" */
    fst_strategy *strategy; /* the caller's; of *global's size */
    void *ctx;              /* given to both */
    fst_train_fn train;
    fst_round_done_fn round_done; /* may be NULL */
} fst_simulate_spec;

/*
 * Runs rounds first_round ... rounds-1, replacing *global after each. The state's and the reports'
 * bits (but for seconds) are the same for any number of workers and any timing. Memory: the strategy's
 * and one update a worker. On failure *global is the state after the last complete round.
 */
FST_MUST FST_API fst_status fst_simulate(const fst_simulate_spec *spec, fst_fed_state *global, fst_error *err);

FST_END_DECLS

#endif

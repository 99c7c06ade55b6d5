/*
 * fedstill/fed.h - the two ends of a federation, and a simulation of many clients in one process.
 *
 *   fst_server   the round engine and a strategy's server half: events and messages in, orders out
 *   fst_client   a strategy's client half with trainers: a message in, a message out
 *   fst_virtual  many clients on a few workers, with what each keeps between rounds
 *   fst_simulate a loop over a server and virtual clients; a fleet of processes is another loop over the same two
 */
#ifndef FEDSTILL_FED_H
#define FEDSTILL_FED_H

#include "fedstill/aggregate.h"
#include "fedstill/round.h"
#include "fedstill/strategy.h"

FST_BEGIN_DECLS

/* ---- the server ----------------------------------------------------------------------------- */

/* One client of a round. */
typedef struct fst_client_report {
    uint32_t client;
    bool reported;                 /* its update entered the result; false: it was lost */
    const char *lost;              /* why; NULL when it reported */
    int64_t samples;               /* that it trained on */
    double loss, accuracy;         /* as it told them; NaN when its training failed */
    uint64_t bytes_down, bytes_up; /* fst_message_bytes: coded, where the task has codecs */
    uint64_t raw_down, raw_up;     /* had nothing been coded; of an update that was refused: as it came */
    double seconds;                /* of its training alone, wall clock; the only field that differs between two runs */
} fst_client_report;

#define FST_REPORT_LOST 4

/* Rounds and clients are counted from 0 here and in all calls, from 1 in every message and text. */
typedef struct fst_round_report {
    uint64_t round;
    uint32_t selected, reported, lost; /* lost: failed, or its update was refused */
    bool aggregated;                   /* false: skipped, what is shared did not change */
    fst_fed_why why;                   /* why the round closed */
    uint64_t samples;
    double loss, accuracy; /* means over those that reported, weighted by samples; NaN if none, and
                            * accuracy is NaN unless everybody measured it */
    double update_norm;
    uint64_t bytes_down, bytes_up, raw_down, raw_up;
    double seconds;                  /* wall clock, the caller's; the only field that differs between two runs */
    const uint32_t *reported_client; /* `reported` entries: whose updates entered the result, in the order of selection;
                                      * valid until the next round */
    const fst_client_report *by_client; /* `selected` entries, in the order of selection; valid until the next round */
    uint32_t lost_named;
    struct {
        uint32_t client;
        char message[240];
    } lost_first[FST_REPORT_LOST]; /* in the order of selection */
} fst_round_report;

typedef enum fst_order_kind {
    FST_ORDER_SEND,      /* send client what fst_server_message gives; again when it was sent before in this round */
    FST_ORDER_TIMER,     /* give a timer event at time `at` or soon after; replaces an earlier one */
    FST_ORDER_AGGREGATE, /* call fst_server_aggregate, here or on another thread */
    FST_ORDER_EVALUATE,  /* the round is over and its report stands: evaluate, then save; then fst_server_publish */
    FST_ORDER_FINISHED,  /* all rounds are done */
    FST_ORDER_FAILED     /* the run cannot continue; why */
} fst_order_kind;

typedef struct fst_order {
    fst_order_kind kind;
    uint32_t client; /* send */
    uint64_t round;
    fst_fed_why why; /* send, failed */
    double at;       /* timer */
} fst_order;

/*
 * Drives the round engine and the strategy for both worlds: no threads, sockets, files or clock in it. Calls come one
 * at a time, except fst_server_message, which only reads. All sums over clients are taken in the order of selection or
 * exactly, so that nothing depends on who was ready first. Memory: the strategy's, and one small record a client of the
 * cohort.
 */
typedef struct fst_server fst_server;

/* strategy is the caller's and must outlive it. noun: what messages call a client; NULL: "client". */
FST_MUST FST_API fst_status fst_server_new(fst_server **out, const fst_round_spec *rounds, fst_strategy *strategy,
                                           const char *noun, fst_error *err);
FST_API void fst_server_free(fst_server *s);
/*
 * Takes one event (joined, update, refused, lost, timer). With an update comes its message, which is folded before this
 * returns; with a refusal, why may hold what the client said. *discarded (may be NULL) says why an update did not
 * count; FST_WHY_NONE when it did. Events that make no sense now are ignored. A failure is one of the server and ends
 * the run.
 */
FST_MUST FST_API fst_status fst_server_event(fst_server *s, const fst_fed_event *event, const fst_message *message,
                                             const fst_error *why, fst_fed_why *discarded, fst_error *err);
/* Whether client's update was folded in the open round, or in the one that is over. */
FST_API bool fst_server_folded(const fst_server *s, uint32_t client);
/* Why a client of that round is lost; NULL when it is not, or no reason is known. Lives until the next round. */
FST_API const char *fst_server_lost(const fst_server *s, uint32_t client);
/* For the report: how long client's training took. */
FST_API void fst_server_took(fst_server *s, uint32_t client, double seconds);
/* The next order; false when there is none until the next event. */
FST_API bool fst_server_next(fst_server *s, fst_order *out);
/* What is sent to a client of the open round; views live until it is aggregated. */
FST_MUST FST_API fst_status fst_server_message(const fst_server *s, uint32_t client, fst_message *out, fst_error *err);
/* fst_message_bytes of a message of either way, had nothing been coded. */
FST_API uint64_t fst_server_raw_bytes(const fst_server *s, const fst_message *m);
FST_MUST FST_API fst_status fst_server_aggregate(fst_server *s, const fst_work *work, double now, fst_error *err);
/* Answers FST_ORDER_EVALUATE: the next round may open. */
FST_MUST FST_API fst_status fst_server_publish(fst_server *s, double now, fst_error *err);
/* Of the round that is over, from FST_ORDER_EVALUATE to fst_server_publish. The caller may set `seconds`. */
FST_API fst_round_report *fst_server_report(fst_server *s);
FST_API fst_round_view fst_server_look(const fst_server *s);
/* After FST_ORDER_FAILED: fills err with the round, the quorum and the first client that failed. */
FST_MUST FST_API fst_status fst_server_failure(const fst_server *s, fst_error *err);
/*
 * The state at a round's boundary: between FST_ORDER_EVALUATE and fst_server_publish, and before the first order and
 * after the last; FST_E_ARGUMENT at any other time. It holds the number of rounds done and what the strategy keeps; the
 * shared model is the caller's to save beside it. Loading, before the first event, makes the server start at that
 * round; clients then join and deliver again.
 */
FST_MUST FST_API fst_status fst_server_save(const fst_server *s, fst_buf *out, fst_error *err);
FST_MUST FST_API fst_status fst_server_load(fst_server *s, const void *data, size_t len, fst_error *err);

/* ---- a client ------------------------------------------------------------------------------- */

/* The client half of a strategy, and trainers by network, which are made when first needed and kept. */
FST_MUST FST_API fst_status fst_client_new(fst_client **out, const fst_strategy_ops *ops, const fst_setting *settings,
                                           size_t n, fst_error *err);
FST_API void fst_client_free(fst_client *c);
/*
 * One round of one client. kept: what it kept from its last round (len 0: nothing), as this function appended it to
 * *keep, which stays empty for strategies whose clients keep nothing. up's views live until the next call. A failure
 * leaves `kept` what it was.
 */
FST_MUST FST_API fst_status fst_client_work(fst_client *c, const fst_client_env *env, const void *kept, size_t len,
                                            const fst_message *down, fst_message *up, fst_buf *keep, fst_error *err);
/* The model in what a client kept, as views into it; FST_E_FORMAT for damaged bytes, FST_E_MISMATCH for another size.
 */
FST_MUST FST_API fst_status fst_client_model(const void *kept, size_t len, fst_fed_size size, fst_fed_view *out,
                                             fst_error *err);
FST_API fst_fed_size fst_graph_fed_size(const fst_graph *g);

/* ---- virtual clients ------------------------------------------------------------------------ */

typedef struct fst_virtual fst_virtual;
typedef struct fst_virtual_spec {
    const fst_strategy_ops *ops;
    const fst_setting *settings;
    size_t nsettings;
    uint32_t clients;
    int workers;
    void *ctx;
    /* Fills in what client has; called on its worker. */
    fst_status (*env)(void *ctx, int worker, uint32_t client, fst_client_env *out, fst_error *err);
    /* The last so many of the workers stand for processes elsewhere, where `play` has down->client played: as
     * fst_client_work, to its bits. 0: none, and play may be NULL. */
    int elsewhere;
    fst_status (*play)(void *ctx, int worker, const void *kept, size_t len, const fst_message *down, fst_message *up,
                       fst_buf *keep, fst_error *err);
    /* What clients keep beyond `budget` bytes goes to files in this folder, which is made when it is needed. NULL: all
     * stays in memory. No bit of a result depends on it. */
    const char *folder;
    uint64_t budget;
} fst_virtual_spec;
FST_MUST FST_API fst_status fst_virtual_new(fst_virtual **out, const fst_virtual_spec *spec, fst_error *err);
FST_API void fst_virtual_free(fst_virtual *v);
/* An fst_work_fn; ctx is the fst_virtual. */
FST_MUST FST_API fst_status fst_virtual_work(void *ctx, int worker, const fst_message *down, fst_message *up,
                                             fst_error *err);
/* What clients kept in a round becomes theirs if their update entered the result, and is forgotten otherwise. */
FST_API void fst_virtual_settle(void *ctx, const fst_round_report *report);
/* What a client keeps at a round's boundary; len 0: nothing. The bytes are this object's; NULL with a length: they are
 * in a file. */
FST_API const void *fst_virtual_kept(const fst_virtual *v, uint32_t client, size_t *len);
/* The same wherever it is: *kept is this object's, or lies in room. FST_E_IO, FST_E_FORMAT: its file is lost or was
 * changed. */
FST_MUST FST_API fst_status fst_virtual_read(const fst_virtual *v, uint32_t client, fst_buf *room, const void **kept,
                                             size_t *len, fst_error *err);
FST_MUST FST_API fst_status fst_virtual_restore(fst_virtual *v, uint32_t client, const void *kept, size_t len,
                                                fst_error *err);
/*
 * Files of what clients keep, for checkpoints: such a file never changes, and one that the last checkpoint may name is
 * there until fst_virtual_saved says that there is a newer one.
 */
typedef struct fst_virtual_file {
    uint64_t stamp; /* 1 + the round that it was kept in; 0: what the client keeps is in no file */
    uint64_t len;
    fst_hash128 hash;
} fst_virtual_file;
FST_API fst_virtual_file fst_virtual_file_of(const fst_virtual *v, uint32_t client);
/* The file is read and compared with the hash: FST_E_IO, FST_E_FORMAT. */
FST_MUST FST_API fst_status fst_virtual_restore_file(fst_virtual *v, uint32_t client, const fst_virtual_file *in,
                                                     fst_error *err);
FST_API void fst_virtual_saved(fst_virtual *v);
/* Removes the files in the folder that no client's state is in: those of rounds that were not saved. */
FST_API void fst_virtual_sweep(const fst_virtual *v);
/* Removes all such files of a folder, and the folder if nothing else is in it. */
FST_API void fst_virtual_remove(const char *folder);

/* ---- simulation --------------------------------------------------------------------------- */

/*
 * Plays client down->client in round down->round: fills *up, which comes with client, round, base and the spec's number
 * of samples. Called at the same time from different workers (0 <= worker < workers), never twice at a time for one
 * worker. What it computes must depend on the message, and on what the client kept, alone; then the whole run does. A
 * failure makes the client lost in this round; FST_E_CANCELLED stops the run. up's views live until the worker's next
 * call.
 */
typedef fst_status (*fst_work_fn)(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err);
/* After every round, skipped ones too, on the thread that called fst_simulate: evaluation, checkpoint (fst_server_save
 * and what clients keep), events. A failure stops the run with it. */
typedef fst_status (*fst_round_done_fn)(void *ctx, const fst_server *server, const fst_round_report *report,
                                        fst_error *err);

typedef struct fst_simulate_spec {
    uint64_t seed;
    uint32_t clients;
    const int64_t *samples; /* of each client; one that has 0 never takes part. NULL: the client says */
    uint64_t first_round;   /* resume: rounds before it are done */
    uint64_t rounds;        /* in total */
    uint32_t cohort;        /* as in fst_round_spec; both 0: everybody */
    double fraction;
    uint32_t quorum;
    fst_quorum_policy policy;
    uint32_t max_extensions;
    int workers;                 /* at least 1 */
    const char *noun;            /* what messages call a client; NULL: "client" */
    fst_strategy *strategy;      /* the caller's */
    bool keeps;                  /* clients keep something from round to round, whatever it is */
    const fst_work *aggregating; /* given to the strategy; may be NULL */
    void *ctx;                   /* given to all of these */
    fst_work_fn work;
    void (*settle)(void *ctx, const fst_round_report *report); /* may be NULL; before round_done */
    fst_round_done_fn round_done;                              /* may be NULL */
    /* [clients], what each client's samples are known by, for clients in other processes: one that has others is not
     * let in. NULL: not known. */
    const char (*data)[FST_DIGEST_HEX];
    /* An update, before the server takes or refuses it; may be NULL. Calls come one at a time. */
    void (*arrived)(void *ctx, const fst_message *up);
} fst_simulate_spec;

/* What a server of these rounds is made with: everybody with samples must be there before a round opens. FST_E_CONFIG:
 * too few have samples. */
FST_MUST FST_API fst_status fst_simulate_rounds(const fst_simulate_spec *spec, fst_round_spec *out, fst_error *err);

/*
 * Runs rounds first_round ... rounds-1. What is shared and the reports' bits (except seconds) are the same for any
 * number of workers and any timing. Memory: the strategy's and the workers'. On failure what is shared and what the
 * strategy and the clients keep are those after the last complete round, and can be saved.
 */
FST_MUST FST_API fst_status fst_simulate(const fst_simulate_spec *spec, fst_error *err);

FST_END_DECLS

#endif

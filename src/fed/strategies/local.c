/* No exchange: every client trains a model of its own on its own samples, and nothing is shared. What other strategies
 * have to beat; and, started from a model that a stage before has published, its fine-tuning at every client. */
#include <math.h>

#include "fed_private.h"

static fst_status local_init(fst_strategy *s, fst_error *err)
{
    (void)s, (void)err;
    return FST_OK;
}

static void local_begin(fst_strategy *s, uint64_t round)
{
    (void)s, (void)round;
}

static fst_status local_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    (void)s, (void)client, (void)err;
    fst_message_name(m, "nothing");
    return FST_OK;
}

static fst_status local_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    (void)s;
    return m->count ? fst_fail(err, FST_E_MISMATCH, "has %zu tensors, where none is sent", m->count) : FST_OK;
}

static fst_status local_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    (void)s, (void)work, (void)err;
    stats->update_norm = NAN; /* there is nothing that could move */
    return FST_OK;
}

static const fst_server_ops server = {.bytes = sizeof(fst_strategy),
                                      .init = local_init,
                                      .begin = local_begin,
                                      .down = local_down,
                                      .fold = local_fold,
                                      .aggregate = local_aggregate};

static fst_status local_work(fst_client_half *c, const fst_message *down, fst_message *up, fst_error *err)
{
    const fst_local_job job = fst_client_job(c);
    fst_local_result r;
    (void)down;
    fst_message_name(up, "nothing");
    fst_status st = fst_client_train(c, &job, &r, err);
    if (st)
        return st;
    up->loss = r.loss;
    up->accuracy = r.accuracy;
    return FST_OK;
}

static const fst_client_ops client = {.work = local_work};

const fst_strategy_ops fst__local = {
    .name = "local",
    .summary = "no exchange: every client trains its own model on its own samples, from `init` on where it names one",
    .leaks = "The server sees no model: only each client's number of samples, its training loss and how long it took.",
    .flags = FST_OWN_MODEL,
    .server = FST__HALF(&server),
    .client = FST__HALF(&client),
};

/* FedProx (Li et al., MLSys 2020): FedAvg whose clients add mu/2 |w - w_global|^2 to their loss, so that
 * those with unusual data do not run away. The server's half is FedAvg's. */
#include "fed_private.h"

enum { PROX_MU };
static const fst_option options[] = {
    [PROX_MU] = {"prox_mu", FST_OPTION_NUMBER, .fallback = 0.01, .max = 1e6, .help = "pull towards the global model"},
    {0},
};

static fst_status fedprox_work(fst_client_half *c, const fst_message *down, fst_message *up, fst_error *err)
{
    fst_fed_view shared = {0};
    fst_status st = fst__take_shared(c, down, &shared, err);
    fst_local_job job = fst_client_job(c);
    job.prox_mu = c->option[PROX_MU];
    job.anchor = shared.params;
    return st ? st : fst__train_and_send(c, &job, up, err);
}

static const fst_client_ops fedprox_client = {.work = fedprox_work};

const fst_strategy_ops fst__fedprox = {
    .name = "fedprox",
    .summary = "fedavg with a proximal term in the clients' loss (prox_mu)",
    .leaks = "The server sees every client's weights and number of samples, as with fedavg.",
    .options = options,
    .flags = FST_SAME_MODEL | FST_AVERAGES | FST_SENDS_STATE,
    .codes = fst__codes_model,
    .server = FST__HALF(&fst__averaging_server),
    .client = FST__HALF(&fedprox_client),
};

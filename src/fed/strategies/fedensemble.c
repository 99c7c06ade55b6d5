/* The ensemble that FedGen's table compares with (Zhu, Hong, Zhou, ICML 2021): FedAvg, but the clients' models are kept
 * as they came out of the last round that each took part in, and answer together by the mean of their logits. What is
 * shared, and what each round starts from, is FedAvg's mean. */
#include "fed_private.h"

const fst_strategy_ops fst__fedensemble = {
    .name = "fedensemble",
    .summary = "fedavg; each client's own model of its last round is kept, and all of them answer together",
    .leaks = "The server sees every client's weights and number of samples, as with fedavg.",
    .flags = FST_SAME_MODEL | FST_OWN_MODEL | FST_AVERAGES | FST_SENDS_STATE,
    .codes = fst__codes_model,
    .server = FST__HALF(&fst__averaging_server),
    .client = FST__HALF(&fst__averaging_client),
};

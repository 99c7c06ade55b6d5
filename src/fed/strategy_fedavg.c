/* FedAvg (McMahan et al., AISTATS 2017): the next model is the mean of those that reported, weighted by
 * their samples. The server keeps nothing from round to round. */
#include "fed_private.h"

struct fedavg {
    fst_strategy base;
    fst__average average;
};

static fst_status fedavg_init(fst_strategy *s, const fst_strategy_options *options, fst_error *err)
{
    (void)options;
    return fst__average_init(&((struct fedavg *)s)->average, s->size, err);
}

static void fedavg_release(fst_strategy *s)
{
    fst__average_release(&((struct fedavg *)s)->average);
}

static void fedavg_begin(fst_strategy *s, uint64_t round)
{
    (void)round;
    fst__average_clear(&((struct fedavg *)s)->average);
}

static fst_status fedavg_fold(fst_strategy *s, const fst_update *u, fst_error *err)
{
    return fst__average_fold(&((struct fedavg *)s)->average, u, err);
}

static fst_status fedavg_publish(fst_strategy *s, fst_fed_state *global, fst_publish_stats *stats, fst_error *err)
{
    return fst__average_publish(&((struct fedavg *)s)->average, global, &stats->update_norm, err);
}

const fst_strategy_ops fst__strategy_fedavg = {
    .name = "fedavg",
    .summary = "mean of the clients' models, weighted by samples",
    .instance_bytes = sizeof(struct fedavg),
    .averages = true,
    .init = fedavg_init,
    .release = fedavg_release,
    .begin = fedavg_begin,
    .fold = fedavg_fold,
    .publish = fedavg_publish,
};

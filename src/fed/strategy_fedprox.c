/* FedProx (Li et al., MLSys 2020): FedAvg whose clients add mu/2 |w - w_global|^2 to their loss, so that
 * those with unusual data do not run away. The server's side is FedAvg's. */
#include <math.h>

#include "fed_private.h"

struct fedprox {
    fst_strategy base;
    fst__average average;
    double mu;
};

static fst_status fedprox_init(fst_strategy *s, const fst_strategy_options *options, fst_error *err)
{
    struct fedprox *f = (struct fedprox *)s;
    if (!(options->prox_mu >= 0) || isinf(options->prox_mu))
        return fst_fail(err, FST_E_CONFIG, "fedprox: prox_mu is %g; 0 or more is needed", options->prox_mu);
    f->mu = options->prox_mu;
    return fst__average_init(&f->average, s->size, err);
}

static void fedprox_release(fst_strategy *s)
{
    fst__average_release(&((struct fedprox *)s)->average);
}

static void fedprox_hints(const fst_strategy *s, uint64_t round, uint32_t client, fst_train_hints *hints)
{
    (void)round;
    (void)client;
    hints->prox_mu = ((const struct fedprox *)s)->mu;
}

static void fedprox_begin(fst_strategy *s, uint64_t round)
{
    (void)round;
    fst__average_clear(&((struct fedprox *)s)->average);
}

static fst_status fedprox_fold(fst_strategy *s, const fst_update *u, fst_error *err)
{
    return fst__average_fold(&((struct fedprox *)s)->average, u, err);
}

static fst_status fedprox_publish(fst_strategy *s, fst_fed_state *global, fst_publish_stats *stats, fst_error *err)
{
    return fst__average_publish(&((struct fedprox *)s)->average, global, &stats->update_norm, err);
}

const fst_strategy_ops fst__strategy_fedprox = {
    .name = "fedprox",
    .summary = "fedavg with a proximal term in the clients' loss (prox_mu)",
    .instance_bytes = sizeof(struct fedprox),
    .averages = true,
    .init = fedprox_init,
    .release = fedprox_release,
    .hints = fedprox_hints,
    .begin = fedprox_begin,
    .fold = fedprox_fold,
    .publish = fedprox_publish,
};

/* FedNTD (Lee et al., Preservation of the global knowledge by not-true distillation in federated learning, NeurIPS
 * 2022): FedAvg whose clients add beta tau^2 KL(q || p) to their cross entropy, where q is what the shared model says
 * of a sample and p what the client's says, both softmax(z/tau) over the classes that are not the sample's: what is
 * said about other classes is kept, the label's own part stays free. The shared model sees the batch as the client's
 * does, in inference mode. The server's half is FedAvg's. */
#include "fed_private.h"

enum { BETA, TAU };
static const fst_option options[] = {
    [BETA] = {"ntd_beta", FST_OPTION_NUMBER, .fallback = 1, .max = 1e6, .help = "weight of the not-true distillation"},
    [TAU] = {"ntd_temperature", FST_OPTION_NUMBER, .fallback = 1, .above = true, .max = 1000,
             .help = "temperature of the not-true distillation"},
    {0},
};

struct teacher {
    fst_client_half *client;
    fst_fed_state shared;
};

static fst_status say(void *ctx, const fst_batch *b, float *soft, fst_error *err)
{
    struct teacher *t = ctx;
    return fst_client_batch_logits(t->client, t->client->env->graph, &t->shared, b->x, b->rows, soft, err);
}

static fst_status fedntd_work(fst_client_half *c, const fst_message *down, fst_message *up, fst_error *err)
{
    fst_fed_view v = {0};
    fst_status st = fst__take_shared(c, down, &v, err);
    /* only read */
    struct teacher t = {c, {(float *)v.params, (float *)v.buffers, (int64_t *)v.counters, v.size}};
    fst_local_job job = fst_client_job(c);
    if (c->option[BETA] > 0) {
        job.loss.kd_form = FST_KD_NTD;
        job.loss.kd_weight = c->option[BETA];
        job.loss.temperature = c->option[TAU];
        job.soft = say;
        job.soft_ctx = &t;
    }
    return st ? st : fst__train_and_send(c, &job, up, err);
}

static const fst_client_ops fedntd_client = {.work = fedntd_work};

const fst_strategy_ops fst__fedntd = {
    .name = "fedntd",
    .summary = "fedavg whose clients keep what the shared model says of the classes that are not the label",
    .leaks = "The server sees every client's weights and number of samples, as with fedavg.",
    .options = options,
    .flags = FST_SAME_MODEL | FST_AVERAGES | FST_SENDS_STATE | FST_OWN_LOSS,
    .codes = fst__codes_model,
    .server = FST__HALF(&fst__averaging_server),
    .client = FST__HALF(&fedntd_client),
};

/* FedMD (Li and Wang, FedMD: heterogeneous federated learning via model distillation, 2019). Every client has a model
 * of its own. A round is: digest (fit the mean logits of the last round on its public samples, by mean absolute error),
 * revisit (train on the client's own samples), communicate (send logits of this round's public samples). The server
 * returns their mean over the clients, each counting the same. The mean of logits is another thing than the mean of
 * probabilities, which dsfl takes. */
#include "fed_private.h"

enum { TRANSFER_EPOCHS = FST__PUBLIC_OPTIONS };
static const fst_option options[] = {
    [FST__PUBLIC_SAMPLES] = FST__OPTION_PUBLIC_SAMPLES,
    [FST__DIGEST_EPOCHS] = FST__OPTION_DIGEST_EPOCHS,
    [TRANSFER_EPOCHS] = {"transfer_epochs", FST_OPTION_WHOLE, .max = 1e5,
                         .help = "epochs on all public samples with their labels before a client's first round"},
    {0},
};

static fst_status fedmd_init(fst_strategy *s, fst_error *err)
{
    return fst__consensus_init((struct fst__consensus *)s, "logits", err);
}

static const fst_server_ops server = {
    .bytes = sizeof(struct fst__consensus),
    .init = fedmd_init,
    .release = fst__consensus_release,
    .begin = fst__consensus_begin,
    .down = fst__consensus_down,
    .fold = fst__consensus_fold,
    .aggregate = fst__consensus_aggregate,
    .save = fst__consensus_save,
    .load = fst__consensus_load,
};

/* ---- the client's half ---- */

/* What a new client learns from the public samples' labels. */
static fst_status transfer(struct fst__public_half *p, fst_error *err)
{
    const fst_public *pub = p->base.env->pub;
    fst_local_result r;
    fst_local_job job = fst_client_job(&p->base);
    job.source = pub->source;
    job.subset = pub->index;
    job.count = pub->count;
    job.transform = pub->transform;
    job.drop_last = job.keep_optim = false;
    job.class_weight = NULL;
    job.epochs = (int64_t)p->base.option[TRANSFER_EPOCHS];
    job.steps = 0;
    job.seed = fst_client_seed(&p->base, "transfer");
    return fst_client_train(&p->base, &job, &r, err);
}

static fst_status learn(struct fst__public_half *p, const fst_message *down, fst_error *err)
{
    static const fst_loss fit = {.kd_weight = 1, .temperature = 1, .kd_form = FST_KD_MAE_LOGITS};
    fst_status st = p->base.first && p->base.option[TRANSFER_EPOCHS] > 0 ? transfer(p, err) : FST_OK;
    return st || !down->base ? st : fst__public_digest(p, down, "logits", &fit, err);
}

static fst_status fedmd_work(fst_client_half *c, const fst_message *down, fst_message *up, fst_error *err)
{
    struct fst__public_half *p = (struct fst__public_half *)c;
    size_t n = 0;
    fst_status st = fst__public_round(p, down, learn, up, &n, err);
    return st ? st : fst__public_send(p, "logits", n, up, err);
}

static const fst_client_ops client = {
    .bytes = sizeof(struct fst__public_half), .release = fst__public_release, .work = fedmd_work};

static const fst_predictions predicts = {.name = "logits", .noun = "logits", .shared = fst__consensus_shared};

const fst_strategy_ops fst__fedmd = {
    .name = "fedmd",
    .summary = "different models learn from the mean of their logits on public samples",
    .leaks = "The server sees every client's logits of the public samples, which tell of the labels that the client "
             "holds and whether a public sample resembles its own.",
    .options = options,
    .flags = FST_OWN_MODEL | FST_PUBLIC_DATA,
    .predicts = &predicts,
    .server = FST__HALF(&server),
    .client = FST__HALF(&client),
};

/* FedAvg (McMahan et al., AISTATS 2017): the next model is the mean of those that reported, weighted by their samples.
 * The server keeps nothing from round to round, and neither do clients. Several other strategies of a shared model are
 * this one with another step at the server or another loss at the client. */
#include "fed_private.h"

/* ---- the server half ---- */

fst_status fst__averaging_init(fst_strategy *s, fst_error *err)
{
    return fst__average_init(&((struct fst__averaging *)s)->average, s->env.global->size, err);
}

void fst__averaging_release(fst_strategy *s)
{
    fst__average_release(&((struct fst__averaging *)s)->average);
}

void fst__averaging_begin(fst_strategy *s, uint64_t round)
{
    (void)round;
    fst__average_clear(&((struct fst__averaging *)s)->average);
}

fst_status fst__averaging_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    fst_fed_view v = fst_fed_state_view(s->env.global);
    (void)client;
    fst_message_name(m, "state");
    return fst_message_add_state(m, &v, err);
}

fst_status fst__averaging_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    fst_fed_view v;
    fst_status st = fst_message_state(m, s->env.global->size, &v, err);
    return st ? st : fst__average_fold(&((struct fst__averaging *)s)->average, &v, m->samples, err);
}

static fst_status averaging_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    (void)work;
    return fst__average_publish(&((struct fst__averaging *)s)->average, s->env.global, &stats->update_norm, err);
}

const fst_server_ops fst__averaging_server = {
    .bytes = sizeof(struct fst__averaging),
    .init = fst__averaging_init,
    .release = fst__averaging_release,
    .begin = fst__averaging_begin,
    .down = fst__averaging_down,
    .fold = fst__averaging_fold,
    .aggregate = averaging_aggregate,
};

/* ---- the client half ---- */

fst_status fst__take_shared(fst_client_half *c, const fst_message *down, fst_fed_view *shared, fst_error *err)
{
    fst_fed_view v;
    fst_status st = fst_message_state(down, c->model.size, &v, err);
    if (st)
        return fst_fail_in(err, st, "what the server sent");
    fst_fed_state_copy(&c->model, &v);
    if (shared)
        *shared = v;
    return FST_OK;
}

fst_status fst__send_state(fst_client_half *c, const fst_local_result *r, fst_message *up, fst_error *err)
{
    fst_fed_view v = fst_fed_state_view(&c->model);
    fst_message_name(up, "state");
    up->loss = r->loss;
    up->accuracy = r->accuracy;
    return fst_message_add_state(up, &v, err);
}

fst_status fst__train_and_send(fst_client_half *c, const fst_local_job *job, fst_message *up, fst_error *err)
{
    fst_local_result r;
    fst_status st = fst_client_train(c, job, &r, err);
    return st ? st : fst__send_state(c, &r, up, err);
}

fst_status fst__averaging_work(fst_client_half *c, const fst_message *down, fst_message *up, fst_error *err)
{
    fst_status st = fst__take_shared(c, down, NULL, err);
    fst_local_job job = fst_client_job(c);
    return st ? st : fst__train_and_send(c, &job, up, err);
}

const fst_client_ops fst__averaging_client = {.work = fst__averaging_work};

const fst_strategy_ops fst__fedavg = {
    .name = "fedavg",
    .summary = "mean of the clients' models, weighted by samples",
    .leaks = "The server sees every client's weights and number of samples, from which training samples can be "
             "reconstructed in part.",
    .flags = FST_SAME_MODEL | FST_AVERAGES | FST_SENDS_STATE,
    .codes = fst__codes_model,
    .server = FST__HALF(&fst__averaging_server),
    .client = FST__HALF(&fst__averaging_client),
};

/* FedNova (Wang et al., Tackling the objective inconsistency problem in heterogeneous federated optimization, NeurIPS
 * 2020). Clients that take more local steps pull the mean of FedAvg towards their own optimum. Here each client's
 * update is divided by how far its steps could go, a_k, and the mean of these directions is taken as far as the mean
 * client goes:
 *
 *   x += (sum p_k a_k) sum p_k (y_k - x)/a_k,   p_k = n_k / sum n
 *
 * a_k is the paper's |a_k|_1: the number of steps for plain SGD, and what it becomes with momentum and with a proximal
 * term (fednova_mu). When all a_k are the same this is FedAvg. Buffers and counters are joined as in FedAvg. */
#include "fed_private.h"

enum { MU };
static const fst_option options[] = {
    [MU] = {"fednova_mu", FST_OPTION_NUMBER, .max = 1e6,
            .help = "pull towards the global model, as prox_mu of fedprox"},
    {0},
};

double fst__local_reach(const fst_optim_spec *optim, double learning_rate, double mu, uint64_t steps)
{
    double reach = 0, momentum = 0;
    if (optim->kind != FST_OPTIM_SGD)
        return (double)steps;
    for (uint64_t k = 0; k < steps; k++) {
        double gradient = 1 - mu * learning_rate * reach;
        momentum = optim->momentum * momentum + gradient;
        reach += optim->nesterov ? gradient + optim->momentum * momentum : momentum;
    }
    return reach;
}

/* ---- the server half ---- */

struct fednova {
    struct fst__averaging base; /* its sum of parameters is that of the directions */
    fst_accumulator reach;      /* of one element: a_k */
    float *direction;           /* room for one client's */
};

static fst_status fednova_init(fst_strategy *s, fst_error *err)
{
    struct fednova *f = (struct fednova *)s;
    size_t n = s->env.global->size.params;
    fst_status st = fst__averaging_init(s, err);
    if (!st)
        st = fst_accumulator_init(&f->reach, 1, err);
    if (!st && !(f->direction = fst_calloc(n, sizeof *f->direction)))
        st = fst_fail_memory(err, n * sizeof *f->direction);
    return st;
}

static void fednova_release(fst_strategy *s)
{
    struct fednova *f = (struct fednova *)s;
    fst_accumulator_release(&f->reach);
    fst_free(f->direction);
    fst__averaging_release(s);
}

static void fednova_begin(fst_strategy *s, uint64_t round)
{
    fst__averaging_begin(s, round);
    fst_accumulator_clear(&((struct fednova *)s)->reach);
}

static fst_status fednova_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct fednova *f = (struct fednova *)s;
    const fst_fed_state *global = s->env.global;
    const void *reach = NULL;
    fst_fed_view v;
    fst_status st = fst_message_state(m, global->size, &v, err);
    if (!st)
        st = fst_message_get(m, "reach", FST_F32, FST_SHAPE(1), &reach, err);
    if (st)
        return st;
    float a = *(const float *)reach;
    if (!(a > 0 && a < 0x1p31f))
        return fst_fail(err, FST_E_NUMERIC, "its steps reach %g; a number above 0 is needed", (double)a);
    st = fst_accumulator_check(v.params, v.size.params, err);
    if (st)
        return fst_fail_in(err, st, "parameters");
    for (size_t i = 0; i < v.size.params; i++)
        f->direction[i] = (float)(((double)v.params[i] - (double)global->params[i]) / (double)a);
    v.params = f->direction;
    st = fst__average_fold(&f->base.average, &v, m->samples, err);
    if (!st)
        fst__accumulator_add_checked(&f->reach, &a, m->samples);
    return st;
}

static fst_status fednova_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct fednova *f = (struct fednova *)s;
    double reach;
    (void)work;
    fst__accumulator_sum_range(&f->reach, 0, 1, &reach);
    reach /= (double)f->reach.weight;
    return fst__average_step(&f->base.average, reach, s->env.global, &stats->update_norm, err);
}

static const fst_server_ops fednova_server = {
    .bytes = sizeof(struct fednova),
    .init = fednova_init,
    .release = fednova_release,
    .begin = fednova_begin,
    .down = fst__averaging_down,
    .fold = fednova_fold,
    .aggregate = fednova_aggregate,
};

/* ---- the client half ---- */

struct fednova_client {
    fst_client_half base;
    float reach;
};

static fst_status fednova_check(const double *option, const fst_graph *graph, const fst_local_plan *plan,
                                fst_error *err)
{
    (void)graph;
    double most = plan->optim.learning_rate * option[MU];
    if (plan->keep_optim)
        return fst_fail(err, FST_E_CONFIG,
                        "updates are normalised by the steps of one round, and a kept optimiser's have those of former "
                        "rounds in them: set optimizer_state to fresh");
    if (plan->optim.kind != FST_OPTIM_SGD && option[MU] > 0)
        return fst_fail(err, FST_E_CONFIG, "fednova_mu needs the clients' optimizer to be sgd");
    if (most >= 1)
        return fst_fail(err, FST_E_CONFIG, "fednova_mu times the clients' learning rate is %g: it must be below 1",
                        most);
    return FST_OK;
}

static fst_status fednova_work(fst_client_half *c, const fst_message *down, fst_message *up, fst_error *err)
{
    struct fednova_client *k = (struct fednova_client *)c;
    fst_fed_view shared = {0};
    fst_local_result r;
    fst_status st = fst__take_shared(c, down, &shared, err);
    fst_local_job job = fst_client_job(c);
    job.prox_mu = c->option[MU];
    job.anchor = shared.params;
    if (!st)
        st = fst_client_train(c, &job, &r, err);
    if (!st)
        st = fst__send_state(c, &r, up, err);
    if (st)
        return st;
    k->reach = (float)fst__local_reach(&job.optim, job.learning_rate, job.prox_mu, r.steps);
    return fst_message_add(up, "reach", FST_F32, FST_SHAPE(1), &k->reach, err);
}

static const fst_client_ops fednova_client = {
    .bytes = sizeof(struct fednova_client),
    .check = fednova_check,
    .work = fednova_work,
};

const fst_strategy_ops fst__fednova = {
    .name = "fednova",
    .summary = "fedavg with updates normalised by the clients' local steps",
    .leaks = "The server sees every client's weights, number of samples and number of local steps.",
    .options = options,
    .flags = FST_SAME_MODEL | FST_SENDS_STATE,
    .codes = fst__codes_model,
    .server = FST__HALF(&fednova_server),
    .client = FST__HALF(&fednova_client),
};

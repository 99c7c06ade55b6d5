/* FedOpt (Reddi et al., ICLR 2021) and FedAvgM (Hsu et al. 2019): the clients' mean, weighted by samples, is not
 * taken as it is but as the direction of a step of a server optimiser, whose moments last from round to round.
 * Buffers and counters are not optimised: they are averaged, or the largest is taken, as in FedAvg. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

struct fedopt {
    struct fst__averaging base;
    fst_server_optim optim;
};

enum { BLOCK = 1024 };

/* ---- options: an index is the place in all four tables, which differ in what they leave out ---- */

#define MOMENTUM                                                                             \
    {                                                                                        \
        "server.momentum", FST_OPTION_NUMBER, .fallback = 0.9, .above = true, .max = 0.9999, \
                                              .help = "of the mean updates"                  \
    }
#define BETA1                                                                               \
    {                                                                                       \
        "server.beta1", FST_OPTION_NUMBER, .fallback = 0.9, .above = true, .max = 0.999999, \
                                           .help = "decay of the mean of the updates"       \
    }
#define BETA2                                                                                 \
    {                                                                                         \
        "server.beta2", FST_OPTION_NUMBER, .fallback = 0.99, .above = true, .max = 0.999999,  \
                                           .help = "decay of the mean of the squared updates" \
    }
#define TAU                                                                             \
    {                                                                                   \
        "server.tau", FST_OPTION_NUMBER, .fallback = 0.001, .above = true, .max = 1000, \
                                         .help = "small is more adaptive"               \
    }
static const fst_option momentum_options[] = {FST__SERVER_RATE, MOMENTUM, {0}};
static const fst_option adagrad_options[] = {FST__SERVER_RATE, TAU, {0}};
static const fst_option adaptive_options[] = {FST__SERVER_RATE, TAU, BETA1, BETA2, {0}};

static fst_status fedopt_init(fst_strategy *s, fst_server_kind kind, fst_error *err)
{
    struct fedopt *f = (struct fedopt *)s;
    const double *o = s->option;
    bool momentum = kind == FST_SERVER_MOMENTUM, adagrad = kind == FST_SERVER_ADAGRAD;
    fst_server_spec spec = {.kind = kind, .learning_rate = o[0] > 0 ? o[0] : momentum ? 1 : 0.1, .tau = 0.001};
    if (momentum)
        spec.momentum = o[1];
    else
        spec.tau = o[1];
    if (!momentum && !adagrad) {
        spec.beta1 = o[2];
        spec.beta2 = o[3];
    }
    fst_status st = fst_server_optim_init(&f->optim, &spec, s->env.global->size.params, err);
    if (st)
        return fst_fail_in(err, st, "%s", s->ops->name);
    return fst__averaging_init(s, err);
}

static fst_status fedavgm_init(fst_strategy *s, fst_error *err)
{
    return fedopt_init(s, FST_SERVER_MOMENTUM, err);
}

static fst_status fedadagrad_init(fst_strategy *s, fst_error *err)
{
    return fedopt_init(s, FST_SERVER_ADAGRAD, err);
}

static fst_status fedadam_init(fst_strategy *s, fst_error *err)
{
    return fedopt_init(s, FST_SERVER_ADAM, err);
}

static fst_status fedyogi_init(fst_strategy *s, fst_error *err)
{
    return fedopt_init(s, FST_SERVER_YOGI, err);
}

static void fedopt_release(fst_strategy *s)
{
    fst__averaging_release(s);
    fst_server_optim_release(&((struct fedopt *)s)->optim);
}

static fst_status fedopt_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct fedopt *f = (struct fedopt *)s;
    fst_fed_state *global = s->env.global;
    (void)work;
    float mean[BLOCK], before[BLOCK];
    double delta[BLOCK], lane[FST__LANES] = {0};
    for (size_t at = 0; at < global->size.params; at += BLOCK) {
        size_t n = global->size.params - at < BLOCK ? global->size.params - at : BLOCK;
        float *x = global->params + at;
        fst_status st = fst_accumulator_mean_range(&f->base.average.params, at, n, mean, err);
        if (st)
            return st; /* only ever at the first block: the arguments of the others are as good */
        for (size_t i = 0; i < n; i++)
            delta[i] = (double)mean[i] - (double)x[i];
        memcpy(before, x, n * sizeof *x);
        fst_server_optim_step(&f->optim, at, n, delta, x);
        fst__add_squares(lane, x, before, n);
    }
    stats->update_norm = sqrt(fst__sum_lanes(lane));
    return fst__average_publish_rest(&f->base.average, global, err);
}

/* The moments as they lie: all of m, then all of v where there is one. */
static fst_status fedopt_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    const fst_server_optim *o = &((const struct fedopt *)s)->optim;
    size_t bytes = o->count * sizeof *o->m;
    fst_status st = bytes ? fst_buf_append(out, o->m, bytes, err) : FST_OK;
    return !st && bytes && o->v ? fst_buf_append(out, o->v, bytes, err) : st;
}

static fst_status check_moments(const unsigned char *data, size_t count, bool square, fst_error *err)
{
    for (size_t i = 0; i < count; i++) {
        float v;
        memcpy(&v, data + i * sizeof v, sizeof v);
        if (!isfinite(v) || (square && v < 0))
            return fst_fail(err, FST_E_FORMAT, "saved %s moment %zu is %g", square ? "second" : "first", i, (double)v);
    }
    return FST_OK;
}

static fst_status fedopt_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    fst_server_optim *o = &((struct fedopt *)s)->optim;
    const unsigned char *p = data;
    size_t bytes = o->count * sizeof *o->m, want = o->v ? 2 * bytes : bytes;
    if (len != want)
        return fst_fail(err, FST_E_FORMAT, "the saved moments have %zu bytes, %zu are needed", len, want);
    fst_status st = check_moments(p, o->count, false, err);
    if (!st && o->v)
        st = check_moments(p + bytes, o->count, true, err);
    if (st || !bytes)
        return st;
    memcpy(o->m, p, bytes);
    if (o->v)
        memcpy(o->v, p + bytes, bytes);
    return FST_OK;
}

#define SERVER(its_init)                                                                                              \
    {                                                                                                                 \
        .bytes = sizeof(struct fedopt), .init = its_init, .release = fedopt_release, .begin = fst__averaging_begin,   \
        .down = fst__averaging_down, .fold = fst__averaging_fold, .aggregate = fedopt_aggregate, .save = fedopt_save, \
        .load = fedopt_load                                                                                           \
    }
static const fst_server_ops fedavgm_server = SERVER(fedavgm_init), fedadagrad_server = SERVER(fedadagrad_init),
                            fedadam_server = SERVER(fedadam_init), fedyogi_server = SERVER(fedyogi_init);

#define FEDOPT(its_name, text, table, its_server)                                                                   \
    {                                                                                                               \
        .name = its_name, .summary = text,                                                                          \
        .leaks = "The server sees every client's weights and number of samples, as with fedavg.", .options = table, \
        .flags = FST_SAME_MODEL | FST_SENDS_STATE, .codes = fst__codes_model, .server = FST__HALF(&(its_server)),   \
        .client = FST__HALF(&fst__averaging_client)                                                                 \
    }
const fst_strategy_ops fst__fedavgm =
    FEDOPT("fedavgm", "fedavg with momentum at the server (server)", momentum_options, fedavgm_server);
const fst_strategy_ops fst__fedadagrad = FEDOPT(
    "fedadagrad", "Adagrad at the server on the clients' mean step (server)", adagrad_options, fedadagrad_server);
const fst_strategy_ops fst__fedadam =
    FEDOPT("fedadam", "Adam at the server on the clients' mean step (server)", adaptive_options, fedadam_server);
const fst_strategy_ops fst__fedyogi =
    FEDOPT("fedyogi", "Yogi at the server on the clients' mean step (server)", adaptive_options, fedyogi_server);

/* FedOpt (Reddi et al., ICLR 2021) and FedAvgM (Hsu et al. 2019): the clients' mean, weighted by samples, is not
 * taken as it is but as the direction of a step of a server optimiser, whose moments last from round to round.
 * Buffers and counters are not optimised: they are averaged, or the largest is taken, as in FedAvg. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

struct fedopt {
    fst_strategy base;
    fst__average average;
    fst_server_optim optim;
};

enum { BLOCK = 1024 };

static double or_else(double value, double otherwise)
{
    return value == 0 ? otherwise : value; /* NaN stays and is refused */
}

static fst_status fedopt_init(fst_strategy *s, fst_server_kind kind, const fst_strategy_options *o, fst_error *err)
{
    struct fedopt *f = (struct fedopt *)s;
    fst_server_spec spec = {.kind = kind,
                            .learning_rate = or_else(o->server_learning_rate, kind == FST_SERVER_MOMENTUM ? 1 : 0.1),
                            .momentum = or_else(o->server_momentum, 0.9),
                            .beta1 = kind == FST_SERVER_ADAGRAD ? 0 : or_else(o->server_beta1, 0.9),
                            .beta2 = or_else(o->server_beta2, 0.99),
                            .tau = or_else(o->server_tau, 0.001)};
    fst_status st = fst_server_optim_init(&f->optim, &spec, s->size.params, err);
    if (st)
        return fst_fail_in(err, st, "%s", s->ops->name);
    return fst__average_init(&f->average, s->size, err);
}

static fst_status fedavgm_init(fst_strategy *s, const fst_strategy_options *options, fst_error *err)
{
    return fedopt_init(s, FST_SERVER_MOMENTUM, options, err);
}

static fst_status fedadagrad_init(fst_strategy *s, const fst_strategy_options *options, fst_error *err)
{
    return fedopt_init(s, FST_SERVER_ADAGRAD, options, err);
}

static fst_status fedadam_init(fst_strategy *s, const fst_strategy_options *options, fst_error *err)
{
    return fedopt_init(s, FST_SERVER_ADAM, options, err);
}

static fst_status fedyogi_init(fst_strategy *s, const fst_strategy_options *options, fst_error *err)
{
    return fedopt_init(s, FST_SERVER_YOGI, options, err);
}

static void fedopt_release(fst_strategy *s)
{
    struct fedopt *f = (struct fedopt *)s;
    fst__average_release(&f->average);
    fst_server_optim_release(&f->optim);
}

static void fedopt_begin(fst_strategy *s, uint64_t round)
{
    (void)round;
    fst__average_clear(&((struct fedopt *)s)->average);
}

static fst_status fedopt_fold(fst_strategy *s, const fst_update *u, fst_error *err)
{
    return fst__average_fold(&((struct fedopt *)s)->average, u, err);
}

static fst_status fedopt_publish(fst_strategy *s, fst_fed_state *global, fst_publish_stats *stats, fst_error *err)
{
    struct fedopt *f = (struct fedopt *)s;
    float mean[BLOCK], before[BLOCK];
    double delta[BLOCK], lane[FST__LANES] = {0};
    for (size_t at = 0; at < global->size.params; at += BLOCK) {
        size_t n = global->size.params - at < BLOCK ? global->size.params - at : BLOCK;
        float *x = global->params + at;
        fst_status st = fst_accumulator_mean_range(&f->average.params, at, n, mean, err);
        if (st)
            return st; /* only ever at the first block: the arguments of the others are as good */
        for (size_t i = 0; i < n; i++)
            delta[i] = (double)mean[i] - (double)x[i];
        memcpy(before, x, n * sizeof *x);
        fst_server_optim_step(&f->optim, at, n, delta, x);
        fst__add_squares(lane, x, before, n);
    }
    stats->update_norm = sqrt(fst__sum_lanes(lane));
    return fst__average_publish_rest(&f->average, global, err);
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

#define FEDOPT(text, its_name, its_init)                                                                              \
    {                                                                                                                 \
        .name = its_name, .summary = text, .instance_bytes = sizeof(struct fedopt), .init = its_init,                 \
        .release = fedopt_release, .begin = fedopt_begin, .fold = fedopt_fold, .publish = fedopt_publish,             \
        .save = fedopt_save, .load = fedopt_load                                                                      \
    }

const fst_strategy_ops fst__strategy_fedavgm =
    FEDOPT("fedavg with momentum at the server (server)", "fedavgm", fedavgm_init);
const fst_strategy_ops fst__strategy_fedadagrad =
    FEDOPT("Adagrad at the server on the clients' mean step (server)", "fedadagrad", fedadagrad_init);
const fst_strategy_ops fst__strategy_fedadam =
    FEDOPT("Adam at the server on the clients' mean step (server)", "fedadam", fedadam_init);
const fst_strategy_ops fst__strategy_fedyogi =
    FEDOPT("Yogi at the server on the clients' mean step (server)", "fedyogi", fedyogi_init);

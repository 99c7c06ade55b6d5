/* Norm clipping (Sun et al., Can you really backdoor federated learning?, 2019): each client's update y - x is made no
 * longer than max_norm before the mean is taken, so that no client moves the model far:
 *
 *   x += mean((y - x) min(1, max_norm/|y - x|))
 *
 * Every client counts the same, as one that lies may lie about its samples. The norm is that of the parameters; buffers
 * are averaged as they are. Updates are added up as they arrive: the server does not hold them. */
#include <math.h>

#include "fed_private.h"

enum { MAX_NORM };
static const fst_option options[] = {
    [MAX_NORM] = {"max_norm", FST_OPTION_NUMBER, .fallback = 1, .above = true, .max = 1e9,
                  .help = "longest update of a client, as a Euclidean norm over all parameters"},
    {0},
};

struct clipping {
    struct fst__averaging base; /* its sum of parameters is that of the clipped updates */
    float *update;              /* room for one client's */
};

static fst_status clipping_init(fst_strategy *s, fst_error *err)
{
    struct clipping *f = (struct clipping *)s;
    size_t n = s->env.global->size.params;
    fst_status st = fst__averaging_init(s, err);
    if (!st && !(f->update = fst_calloc(n, sizeof *f->update)))
        st = fst_fail_memory(err, n * sizeof *f->update);
    return st;
}

static void clipping_release(fst_strategy *s)
{
    fst_free(((struct clipping *)s)->update);
    fst__averaging_release(s);
}

static fst_status clipping_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct clipping *f = (struct clipping *)s;
    const float *x = s->env.global->params;
    double lane[FST__LANES] = {0};
    fst_fed_view v;
    fst_status st = fst_message_state(m, s->env.global->size, &v, err);
    if (st)
        return st;
    st = fst_accumulator_check(v.params, v.size.params, err);
    if (st)
        return fst_fail_in(err, st, "parameters");
    fst__add_squares(lane, v.params, x, v.size.params);
    double norm = sqrt(fst__sum_lanes(lane)), most = s->option[MAX_NORM], scale = norm > most ? most / norm : 1;
    for (size_t i = 0; i < v.size.params; i++)
        f->update[i] = (float)(((double)v.params[i] - (double)x[i]) * scale);
    v.params = f->update;
    return fst__average_fold(&f->base.average, &v, 1, err);
}

static fst_status clipping_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    const struct clipping *f = (const struct clipping *)s;
    (void)work;
    return fst__average_step(&f->base.average, 1, s->env.global, &stats->update_norm, err);
}

static const fst_server_ops clipping_server = {
    .bytes = sizeof(struct clipping),
    .init = clipping_init,
    .release = clipping_release,
    .begin = fst__averaging_begin,
    .down = fst__averaging_down,
    .fold = clipping_fold,
    .aggregate = clipping_aggregate,
};

const fst_strategy_ops fst__norm_clipping = {
    .name = "norm_clipping",
    .summary = "mean of the clients' updates, none longer than max_norm (robust)",
    .leaks = "The server sees every client's weights, as with fedavg: they are clipped there.",
    .options = options,
    .flags = FST_SAME_MODEL | FST_SENDS_STATE,
    .codes = fst__codes_model,
    .server = FST__HALF(&clipping_server),
    .client = FST__HALF(&fst__averaging_client),
};

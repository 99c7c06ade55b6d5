/* SCAFFOLD (Karimireddy et al., ICML 2020), option II. Each client k keeps a control variate c_k, its estimate of its
 * own gradient, and the server keeps c, their mean. A client adds c - c_k to every gradient, so that clients with
 * unusual data do not drift apart during many local steps:
 *
 *   client  y = x; K times y -= eta (g(y) - c_k + c); c_k+ = c_k - c + (x - y)/(K eta); sends y and c_k+ - c_k
 *   server  x += lr mean(y - x); c += (1/N) sum(c_k+ - c_k), N all clients
 *
 * As in the paper every client counts the same, whatever its number of samples. Buffers are averaged likewise. With
 * momentum K is replaced by the sum of the factors by which the gradients enter y, so that c_k+ is a mean of gradients
 * still; optimisers whose steps are no sums of gradients are refused. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

enum { LEARNING_RATE };
static const fst_option options[] = {FST__SERVER_RATE, {0}};
static const char *const codes[] = {"params", "control", NULL};
enum { BLOCK = 1024 };

/* ---- the server half ---- */

struct scaffold {
    struct fst__averaging base;
    fst_accumulator change; /* of the control variates */
    float *control;         /* c: as many as parameters */
};

static fst_status scaffold_init(fst_strategy *s, fst_error *err)
{
    struct scaffold *f = (struct scaffold *)s;
    size_t n = s->env.global->size.params;
    fst_status st = fst__averaging_init(s, err);
    if (!st)
        st = fst_accumulator_init(&f->change, n, err);
    if (!st && !(f->control = fst_calloc(n, sizeof *f->control)))
        st = fst_fail_memory(err, n * sizeof *f->control);
    return st;
}

static void scaffold_release(fst_strategy *s)
{
    struct scaffold *f = (struct scaffold *)s;
    fst_accumulator_release(&f->change);
    fst_free(f->control);
    fst__averaging_release(s);
}

static void scaffold_begin(fst_strategy *s, uint64_t round)
{
    fst__averaging_begin(s, round);
    fst_accumulator_clear(&((struct scaffold *)s)->change);
}

static fst_status scaffold_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    const struct scaffold *f = (const struct scaffold *)s;
    fst_status st = fst__averaging_down(s, client, m, err);
    return st ? st : fst_message_add(m, "control", FST_F32, FST_SHAPE((int64_t)f->change.count), f->control, err);
}

static fst_status scaffold_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct scaffold *f = (struct scaffold *)s;
    const void *change = NULL;
    fst_fed_view v;
    fst_status st = fst_message_state(m, s->env.global->size, &v, err);
    if (!st)
        st = fst_message_get(m, "control", FST_F32, FST_SHAPE((int64_t)f->change.count), &change, err);
    if (st)
        return st;
    st = fst_accumulator_check(change, f->change.count, err);
    if (st)
        return fst_fail_in(err, st, "control variate");
    st = fst__average_fold(&f->base.average, &v, 1, err);
    if (!st)
        fst__accumulator_add_checked(&f->change, change, 1);
    return st;
}

static fst_status scaffold_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct scaffold *f = (struct scaffold *)s;
    fst_fed_state *global = s->env.global;
    double lr = s->option[LEARNING_RATE] > 0 ? s->option[LEARNING_RATE] : 1, sum[BLOCK], lane[FST__LANES] = {0};
    float mean[BLOCK], before[BLOCK];
    (void)work;
    for (size_t at = 0; at < global->size.params; at += BLOCK) {
        size_t n = global->size.params - at < BLOCK ? global->size.params - at : BLOCK;
        float *x = global->params + at;
        fst_status st = fst_accumulator_mean_range(&f->base.average.params, at, n, mean, err);
        if (st)
            return st; /* only ever at the first block: the arguments of the others are as good */
        memcpy(before, x, n * sizeof *x);
        for (size_t i = 0; i < n; i++)
            x[i] = lr == 1 ? mean[i] : (float)((double)x[i] + lr * ((double)mean[i] - (double)x[i]));
        fst__add_squares(lane, x, before, n);
        fst__accumulator_sum_range(&f->change, at, n, sum);
        for (size_t i = 0; i < n; i++)
            f->control[at + i] = (float)((double)f->control[at + i] + sum[i] / s->env.clients);
    }
    stats->update_norm = sqrt(fst__sum_lanes(lane));
    return fst__average_publish_rest(&f->base.average, global, err);
}

static fst_status check_control(const void *data, size_t len, size_t count, fst_error *err)
{
    if (len != count * sizeof(float))
        return fst_fail(err, FST_E_FORMAT, "the saved control variate has %zu bytes, %zu are needed", len,
                        count * sizeof(float));
    for (size_t i = 0; i < count; i++) {
        float v;
        memcpy(&v, (const char *)data + i * sizeof v, sizeof v);
        if (!isfinite(v))
            return fst_fail(err, FST_E_FORMAT, "element %zu of the saved control variate is %g", i, (double)v);
    }
    return FST_OK;
}

static fst_status scaffold_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    const struct scaffold *f = (const struct scaffold *)s;
    return f->change.count ? fst_buf_append(out, f->control, f->change.count * sizeof *f->control, err) : FST_OK;
}

static fst_status scaffold_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    struct scaffold *f = (struct scaffold *)s;
    fst_status st = check_control(data, len, f->change.count, err);
    if (!st && len)
        memcpy(f->control, data, len);
    return st;
}

static const fst_server_ops scaffold_server = {
    .bytes = sizeof(struct scaffold),
    .init = scaffold_init,
    .release = scaffold_release,
    .begin = scaffold_begin,
    .down = scaffold_down,
    .fold = scaffold_fold,
    .aggregate = scaffold_aggregate,
    .save = scaffold_save,
    .load = scaffold_load,
};

/* ---- the client half ---- */

struct scaffold_client {
    fst_client_half base;
    size_t count;   /* elements of each */
    float *control; /* c_k */
    float *shift;   /* c - c_k while it trains, then c_k+ - c_k */
};

static fst_status scaffold_check(const double *option, const fst_graph *graph, const fst_local_plan *plan,
                                 fst_error *err)
{
    (void)option, (void)graph;
    if (plan->keep_optim)
        return fst_fail(err, FST_E_CONFIG,
                        "control variates are means of the gradients of one round, and a kept optimiser's steps have "
                        "those of former rounds in them: set optimizer_state to fresh");
    if (plan->optim.kind == FST_OPTIM_SGD)
        return FST_OK;
    return fst_fail(err, FST_E_CONFIG,
                    "control variates are means of gradients, which only the steps of sgd (with or "
                    "without momentum) add up to: set the clients' optimizer to sgd");
}

static void scaffold_client_release(fst_client_half *c)
{
    struct scaffold_client *k = (struct scaffold_client *)c;
    fst_free(k->control);
    fst_free(k->shift);
}

static fst_status scaffold_client_load(fst_client_half *c, const void *data, size_t len, fst_error *err)
{
    struct scaffold_client *k = (struct scaffold_client *)c;
    size_t n = c->model.size.params;
    if (k->count != n) {
        scaffold_client_release(c);
        k->control = fst_calloc(n, sizeof *k->control);
        k->shift = fst_calloc(n, sizeof *k->shift);
        k->count = n;
    }
    if (!k->control || !k->shift) {
        k->count = SIZE_MAX;
        return fst_fail_memory(err, 2 * n * sizeof *k->control);
    }
    fst_status st = len ? check_control(data, len, n, err) : FST_OK;
    if (!st && len)
        memcpy(k->control, data, len);
    else if (!st && n)
        memset(k->control, 0, n * sizeof *k->control);
    return st;
}

static fst_status scaffold_client_save(const fst_client_half *c, fst_buf *out, fst_error *err)
{
    const struct scaffold_client *k = (const struct scaffold_client *)c;
    return k->count ? fst_buf_append(out, k->control, k->count * sizeof *k->control, err) : FST_OK;
}

/* c_k becomes c_k+ and shift the difference. reach: K eta. */
static void renew_control(struct scaffold_client *k, const float *c, const float *x, const float *y, double reach)
{
    for (size_t i = 0; i < k->count; i++) {
        double change = reach > 0 ? ((double)x[i] - (double)y[i]) / reach - (double)c[i] : 0;
        k->shift[i] = (float)change;
        k->control[i] = (float)((double)k->control[i] + change);
    }
}

static fst_status scaffold_work(fst_client_half *h, const fst_message *down, fst_message *up, fst_error *err)
{
    struct scaffold_client *k = (struct scaffold_client *)h;
    const fst_shape shape = FST_SHAPE((int64_t)k->count);
    const void *control = NULL;
    fst_fed_view shared = {0};
    fst_local_result r;
    fst_status st = fst__take_shared(h, down, &shared, err);
    if (!st)
        st = fst_message_get(down, "control", FST_F32, shape, &control, err);
    if (st)
        return st;
    const float *c = control;
    for (size_t i = 0; i < k->count; i++)
        k->shift[i] = c[i] - k->control[i];
    fst_local_job job = fst_client_job(h);
    job.shift = k->shift;
    st = fst_client_train(h, &job, &r, err);
    if (!st)
        st = fst__send_state(h, &r, up, err);
    if (st)
        return st;
    double reach = job.learning_rate * fst__local_reach(&job.optim, job.learning_rate, 0, r.steps);
    renew_control(k, c, shared.params, h->model.params, reach);
    return fst_message_add(up, "control", FST_F32, shape, k->shift, err);
}

static const fst_client_ops scaffold_client = {
    .bytes = sizeof(struct scaffold_client),
    .check = scaffold_check,
    .release = scaffold_client_release,
    .work = scaffold_work,
    .save = scaffold_client_save,
    .load = scaffold_client_load,
};

const fst_strategy_ops fst__scaffold = {
    .name = "scaffold",
    .summary = "control variates keep the clients' steps from drifting apart; every client counts the same",
    .leaks = "The server sees every client's weights and the change of its control variate, which is a mean of its "
             "gradients: more than with fedavg.",
    .options = options,
    .flags = FST_SAME_MODEL,
    .codes = codes,
    .server = FST__HALF(&scaffold_server),
    .client = FST__HALF(&scaffold_client),
};

/* FedBN (Li et al., FedBN: federated learning on non-iid features via local batch normalization, ICLR 2021): FedAvg,
 * but each client keeps the parameters, running statistics and counters of its norm layers from round to round instead
 * of taking the shared ones. Norms over a batch, a group of channels and a layer count alike.
 *
 * What a client sends is its whole state, so that the published model has norm layers too: their means. They are for
 * evaluation, and for a client's first round; no client trains on with them. Without norm layers this is FedAvg. */
#include <stdio.h>
#include <string.h>

#include "fed_private.h"

struct fedbn {
    fst_client_half base;
    fst_buf own; /* what the client kept of its norm layers; empty: nothing yet */
};

static bool is_norm(const char *op)
{
    static const char *const norms[] = {"batchnorm2d", "groupnorm", "layernorm", "complex_batchnorm"};
    for (size_t i = 0; i < sizeof norms / sizeof *norms; i++)
        if (!strcmp(op, norms[i]))
            return true;
    return false;
}

/* Does a tensor, NAME.weight or so, belong to a norm layer NAME? */
static bool of_norm(const fst_graph *g, const char *tensor)
{
    const char *dot = strrchr(tensor, '.');
    size_t len = dot ? (size_t)(dot - tensor) : 0;
    for (size_t i = 0; len && i < fst_graph_layers(g); i++) {
        fst_layer_info l = fst_graph_layer(g, i);
        if (is_norm(l.op) && strlen(l.name) == len && !memcmp(l.name, tensor, len))
            return true;
    }
    return false;
}

/* Visits the norm layers' parts of a state, always in the same order. */
typedef fst_status (*visit_fn)(void *ctx, void *part, size_t bytes, fst_error *err);
static fst_status visit(const fst_graph *g, const fst_fed_state *s, visit_fn fn, void *ctx, fst_error *err)
{
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < fst_graph_params(g); i++) {
        fst_param_info p = fst_graph_param(g, i);
        if (of_norm(g, p.name))
            st = fn(ctx, s->params + p.offset, p.count * sizeof *s->params, err);
    }
    for (size_t i = 0; !st && i < fst_graph_buffers(g); i++) {
        fst_param_info p = fst_graph_buffer(g, i);
        if (of_norm(g, p.name))
            st = fn(ctx, s->buffers + p.offset, p.count * sizeof *s->buffers, err);
    }
    for (size_t i = 0; !st && i < fst_graph_counters(g); i++)
        if (of_norm(g, fst_graph_counter(g, i)))
            st = fn(ctx, s->counters + i, sizeof *s->counters, err);
    return st;
}

static fst_status put(void *ctx, void *part, size_t bytes, fst_error *err)
{
    return fst_buf_append(ctx, part, bytes, err);
}

static fst_status add_size(void *ctx, void *part, size_t bytes, fst_error *err)
{
    (void)part, (void)err;
    *(size_t *)ctx += bytes;
    return FST_OK;
}

static fst_status get(void *ctx, void *part, size_t bytes, fst_error *err)
{
    const char **at = ctx;
    (void)err;
    memcpy(part, *at, bytes);
    *at += bytes;
    return FST_OK;
}

static fst_status fedbn_load(fst_client_half *c, const void *data, size_t len, fst_error *err)
{
    struct fedbn *k = (struct fedbn *)c;
    size_t want = 0;
    fst_status st = len ? visit(c->env->graph, &c->model, add_size, &want, err) : FST_OK;
    if (!st && len != want)
        st = fst_fail(err, FST_E_FORMAT, "its norm layers have %zu bytes, %zu are needed", len, want);
    k->own.len = 0;
    return !st && len ? fst_buf_append(&k->own, data, len, err) : st;
}

static fst_status fedbn_save(const fst_client_half *c, fst_buf *out, fst_error *err)
{
    return visit(c->env->graph, &c->model, put, out, err);
}

static fst_status fedbn_work(fst_client_half *c, const fst_message *down, fst_message *up, fst_error *err)
{
    struct fedbn *k = (struct fedbn *)c;
    const char *own = k->own.data;
    fst_status st = fst__take_shared(c, down, NULL, err);
    if (!st && k->own.len)
        st = visit(c->env->graph, &c->model, get, &own, err);
    fst_local_job job = fst_client_job(c);
    return st ? st : fst__train_and_send(c, &job, up, err);
}

/* Without norm layers all would be shared: FedAvg under another name. */
static fst_status fedbn_check(const double *option, const fst_graph *graph, const fst_local_plan *plan, fst_error *err)
{
    (void)option, (void)plan;
    for (size_t i = 0; i < fst_graph_layers(graph); i++)
        if (is_norm(fst_graph_layer(graph, i).op))
            return FST_OK;
    return fst_fail(err, FST_E_CONFIG, "clients keep their norm layers, and this network has none: use fedavg");
}

static void fedbn_release(fst_client_half *c)
{
    fst_buf_release(&((struct fedbn *)c)->own);
}

static const fst_client_ops fedbn_client = {
    .bytes = sizeof(struct fedbn),
    .check = fedbn_check,
    .release = fedbn_release,
    .work = fedbn_work,
    .save = fedbn_save,
    .load = fedbn_load,
};

const fst_strategy_ops fst__fedbn = {
    .name = "fedbn",
    .summary = "fedavg whose clients keep norm layers of their own; the published model has the means of them",
    .leaks = "The server sees every client's weights, the statistics of its norm layers among them, and its number of "
             "samples, as with fedavg.",
    .flags = FST_SAME_MODEL | FST_AVERAGES | FST_SENDS_STATE,
    .codes = fst__codes_model,
    .server = FST__HALF(&fst__averaging_server),
    .client = FST__HALF(&fedbn_client),
};

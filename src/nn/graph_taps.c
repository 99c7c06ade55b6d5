/*
 * Networks with taps: a copy of a graph to which a regressor or nothing is added, and whose output is a row of the
 * network's own output and the tapped values. To everything below (plans, backends, shards) that is an output like any
 * other, so that there is no second way for values and gradients to travel.
 */
#include <string.h>

#include "graph.h"

/* ---- copies -------------------------------------------------------------------------------------- */

/* As the builder would have grown it: to the next power of two. */
static void *copy_array(const void *from, size_t count, size_t size, bool *ok)
{
    size_t capacity = 1;
    while (capacity < count)
        capacity *= 2;
    void *to = count ? fst_calloc(capacity, size) : NULL;
    if (to)
        memcpy(to, from, count * size);
    *ok = *ok && (to || !count);
    return to;
}

fst_status fst_graph_copy(fst_graph **out, const fst_graph *g, fst_value *output, fst_error *err)
{
    fst_graph *c = NULL;
    bool ok = true;
    if (!g->finished || g->taps)
        return fst_fail(err, FST_E_ARGUMENT, "a graph can be copied when it is finished, and without taps");
    fst_status s = fst_graph_new(&c, err);
    if (s)
        return s;
    *c = *g;
    c->output = -1;
    c->finished = false;
    c->nodes = copy_array(g->nodes, (size_t)g->count, sizeof *g->nodes, &ok);
    c->params = copy_array(g->params, g->nparams, sizeof *g->params, &ok);
    c->buffers = copy_array(g->buffers, g->nbuffers, sizeof *g->buffers, &ok);
    c->counters = copy_array(g->counters, g->ncounters, sizeof *g->counters, &ok);
    if (!ok) {
        fst_graph_free(c);
        return fst_fail_memory(err, (size_t)g->count * sizeof *g->nodes);
    }
    *output = g->output;
    *out = c;
    return FST_OK;
}

/* ---- places ---------------------------------------------------------------------------------------- */

static bool reads(const struct fst_node *n, int value)
{
    bool so = n->input == value;
    for (int j = 0; j < n->nmore; j++)
        so = so || n->more[j] == value;
    return so;
}

/* What follows a value alone and only changes how its layer is read; NULL: nothing such. */
static const struct fst_node *follower(const fst_graph *g, int value)
{
    if (g->nodes[value].consumers != 1)
        return NULL;
    for (int i = value + 1; i < g->count; i++) {
        fst_op_kind k = g->nodes[i].kind;
        if (reads(&g->nodes[i], value))
            return fst__is_batch_norm(k) || k == FST_OP_RELU || k == FST_OP_RELU6 || k == FST_OP_ADD ? &g->nodes[i]
                                                                                                     : NULL;
    }
    return NULL;
}

fst_value fst_graph_feature(const fst_graph *g, const char *name)
{
    size_t n = strlen(name);
    int at = -1;
    for (int i = g->inputs; n && i < g->count; i++) {
        const char *own = g->nodes[i].name;
        if (!strncmp(own, name, n) && (!own[n] || own[n] == '.'))
            at = i;
    }
    for (const struct fst_node *next = at < 0 ? NULL : follower(g, at); next; next = follower(g, at))
        at = next->id;
    return at;
}

fst_value fst_graph_last_features(const fst_graph *g)
{
    const struct fst_node *last = g->output >= g->inputs ? &g->nodes[g->output] : NULL;
    if (!last || last->kind != FST_OP_LINEAR || last->in.rank != 1)
        return -1;
    int at = last->input;
    while (at >= g->inputs && g->nodes[at].kind == FST_OP_DROPOUT)
        at = g->nodes[at].input;
    int from = at;
    while (from >= g->inputs && g->nodes[from].kind == FST_OP_FLATTEN)
        from = g->nodes[from].input;
    return from >= g->inputs && g->nodes[at].planes == 1 ? at : -1;
}

fst_shape fst_graph_value_shape(const fst_graph *g, fst_value v)
{
    return v >= 0 && v < g->count ? g->nodes[v].out : (fst_shape){0};
}

/* ---- the row ----------------------------------------------------------------------------------------- */

static fst_status refuse(fst_graph *g, const char *why, fst_error *err)
{
    fst__graph_broken(g, fst_fail(&g->error, FST_E_ARGUMENT, "%s", why));
    if (err)
        *err = g->error;
    return g->status;
}

fst_status fst_graph_finish_tapped(fst_graph *g, fst_value output, const fst_value *taps, int count, fst_error *err)
{
    enum { JOINED = 1 + FST_NODE_MORE };
    fst_value part[JOINED] = {output};
    int parts = 1;
    size_t at = 0;
    if (count < 1 || count > FST_MAX_TAPS)
        return refuse(g, "a graph has 1 to 8 taps", err);
    if (!g->status && (output < 0 || output >= g->count || g->nodes[output].out.rank != 1))
        return refuse(g, "the output of a tapped graph must be flat", err);
    for (int i = 0; !g->status && i < count; i++) {
        if (taps[i] < g->inputs || taps[i] >= g->count || g->nodes[taps[i]].planes != 1)
            return refuse(g, "a tap must be a real value that the graph computes", err);
        fst_shape shape = g->nodes[taps[i]].out;
        g->tap[i] = (fst_tap){shape, at, (size_t)fst_shape_count(&shape)};
        at += g->tap[i].count;
        if (parts == JOINED) {
            part[0] = fst_graph_concat(g, part, parts);
            parts = 1;
        }
        part[parts++] = shape.rank == 1 ? taps[i] : fst_graph_flatten(g, taps[i]);
    }
    size_t head = g->status ? 0 : (size_t)g->nodes[output].out.dim[0];
    fst_value row = fst_graph_concat(g, part, parts);
    fst_status s = fst_graph_finish(g, row, err);
    if (s)
        return s;
    g->head = head;
    g->taps = (size_t)count;
    for (int i = 0; i < count; i++)
        g->tap[i].at += head;
    return FST_OK;
}

size_t fst_graph_taps(const fst_graph *g)
{
    return g->taps;
}

fst_tap fst_graph_tap(const fst_graph *g, size_t i)
{
    return g->tap[i];
}

size_t fst_graph_head(const fst_graph *g)
{
    fst_shape out = fst_graph_output_shape(g);
    return g->taps ? g->head : (size_t)fst_shape_count(&out);
}

/* Builders of what works on sequences and tokens: one-dimensional convolution, spectral norm, attention. Like graph.c
 * it computes nothing. */
#include <stdio.h>

#include "graph.h"

fst_value fst_graph_conv1d(fst_graph *g, fst_value x, const char *name, const fst_conv1d *o)
{
    if (g->status)
        return -1;
    if (x < 0 || x >= g->count || g->nodes[x].out.rank != 2)
        return fst__graph_broken(
            g, fst_fail(&g->error, FST_E_ARGUMENT, "conv1d \"%.80s\": needs (channels, length)", name));
    fst_shape flat = FST_SHAPE(g->nodes[x].out.dim[0], 1, g->nodes[x].out.dim[1]);
    fst_conv2d c = {.out_channels = o->out_channels,
                    .kernel = {1, o->kernel},
                    .stride = {1, o->stride},
                    .padding = {0, o->padding},
                    .groups = o->groups,
                    .bias = o->bias};
    fst_value y = fst_graph_conv2d(g, fst_graph_reshape(g, x, &flat), name, &c);
    if (y < 0)
        return y;
    fst_shape *weight = &g->params[g->nodes[y].first_param].shape; /* (out, in / groups, kernel) */
    *weight = FST_SHAPE(weight->dim[0], weight->dim[1], o->kernel);
    fst_shape out = FST_SHAPE(g->nodes[y].out.dim[0], g->nodes[y].out.dim[2]);
    return fst_graph_reshape(g, y, &out);
}

fst_value fst_graph_spectral_linear(fst_graph *g, fst_value x, const char *name, int64_t out, bool bias)
{
    struct fst_node a = {.u.linear = {out, bias}};
    struct fst_node *n = fst__graph_add(g, FST_OP_SPECTRAL_LINEAR, x, &a, name);
    if (!n)
        return -1;
    int64_t in = n->in.dim[n->in.rank - 1];
    bool ok = fst__graph_add_param(g, n, "weight_orig", FST_SHAPE(out, in), FST_INIT_UNIFORM, in);
    if (ok && bias)
        ok = fst__graph_add_param(g, n, "bias", FST_SHAPE(out), FST_INIT_UNIFORM, in);
    ok = ok && fst__graph_add_buffer(g, n, "weight_u", FST_SHAPE(out), FST_INIT_DIRECTION) &&
         fst__graph_add_buffer(g, n, "weight_v", FST_SHAPE(in), FST_INIT_DIRECTION);
    return fst__graph_made(g, n, ok);
}

fst_value fst_graph_transpose(fst_graph *g, fst_value x)
{
    return fst__graph_made(g, fst__graph_add(g, FST_OP_TRANSPOSE, x, &(struct fst_node){0}, ""), true);
}

fst_value fst_graph_scale(fst_graph *g, fst_value x, double factor)
{
    struct fst_node a = {.u.scale = {factor}};
    return fst__graph_made(g, fst__graph_add(g, FST_OP_SCALE, x, &a, ""), true);
}

fst_value fst_graph_mean(fst_graph *g, const fst_value *x, int count)
{
    if (!g->status && count < 1)
        return fst__graph_broken(g, fst_fail(&g->error, FST_E_ARGUMENT, "mean: of no values"));
    fst_value sum = x[0];
    for (int i = 1; i < count; i++)
        sum = fst_graph_add(g, sum, x[i]);
    return fst_graph_scale(g, sum, 1.0 / count);
}

fst_value fst_graph_attention(fst_graph *g, fst_value q, fst_value k, fst_value v, int64_t heads)
{
    struct fst_node a = {.u.attention = {heads}};
    return fst__graph_join(g, FST_OP_ATTENTION, (fst_value[]){q, k, v}, 3, &a);
}

fst_value fst_graph_cross_attention(fst_graph *g, fst_value q, fst_value context, const char *name,
                                    const fst_cross_attention *o)
{
    static const char *const part[] = {"q", "k", "v", "out", "norm"};
    char names[5][FST_NAME_MAX];
    if (g->status)
        return -1;
    if (q < 0 || q >= g->count || g->nodes[q].out.rank != 2)
        return fst__graph_broken(
            g, fst_fail(&g->error, FST_E_ARGUMENT, "cross_attention \"%.80s\": needs (tokens, width)", name));
    int64_t width = g->nodes[q].out.dim[1];
    for (int i = 0; i < 5; i++)
        snprintf(names[i], sizeof names[i], "%.80s.%s", name, part[i]);
    fst_value a = fst_graph_linear(g, q, names[0], o->width, o->bias);
    fst_value k = fst_graph_linear(g, context, names[1], o->width, o->bias);
    fst_value v = fst_graph_linear(g, context, names[2], o->width, o->bias);
    a = fst_graph_linear(g, fst_graph_attention(g, a, k, v, o->heads), names[3], width, o->bias);
    if (o->dropout > 0)
        a = fst_graph_dropout(g, a, o->dropout);
    return fst_graph_layernorm(g, fst_graph_add(g, q, a), names[4], o->eps);
}

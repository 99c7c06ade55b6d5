/*
 * The adapter of MergeNet (Li et al., MergeNet: knowledge migration across heterogeneous models, tasks and modalities,
 * AAAI 2025): cross attentions between the rows and columns of two weight matrices. Only the graph; what becomes of its
 * output is the business of distillation.
 */
#include <stdio.h>

#include "fedstill/models.h"

static fst_value attend(fst_graph *g, fst_value q, fst_value context, const fst_mergenet *c, int layer,
                        const char *name, int64_t dq, int64_t dk)
{
    char path[48];
    int64_t width = (dq + dk) / 2;
    if (width < c->min_width)
        width = c->min_width;
    fst_cross_attention o = {.heads = c->heads,
                             .width = width / c->heads * c->heads,
                             .bias = c->bias,
                             .dropout = c->attention_dropout,
                             .eps = 1e-12};
    snprintf(path, sizeof path, "layers.%d.%s", layer, name);
    return fst_graph_cross_attention(g, q, context, path, &o);
}

struct sides { /* both matrices, as rows and as columns */
    fst_value a, b, bt;
};

static fst_value merge_layer(fst_graph *g, const struct sides *s, const fst_mergenet *c, int layer)
{
    char w1[48], w2[48], norm[48];
    int64_t ra = c->target[0], ca = c->target[1], rb = c->source[0], cb = c->source[1];
    snprintf(w1, sizeof w1, "layers.%d.w1", layer);
    snprintf(w2, sizeof w2, "layers.%d.w2", layer);
    snprintf(norm, sizeof norm, "layers.%d.norm", layer);
    fst_value at = fst_graph_transpose(g, s->a), part[4];
    part[0] = attend(g, s->a, s->b, c, layer, "xx", ca, cb);
    part[1] = attend(g, s->a, s->bt, c, layer, "xy", ca, rb);
    part[2] = fst_graph_transpose(g, attend(g, at, s->b, c, layer, "yx", ra, cb));
    part[3] = fst_graph_transpose(g, attend(g, at, s->bt, c, layer, "yy", ra, rb));
    fst_value x = fst_graph_mean(g, part, 4);
    fst_value y = fst_graph_gelu_tanh(g, fst_graph_spectral_linear(g, x, w1, 2 * ca, c->bias));
    y = fst_graph_spectral_linear(g, y, w2, ca, c->bias);
    if (c->merge_dropout > 0)
        y = fst_graph_dropout(g, y, c->merge_dropout);
    return fst_graph_layernorm(g, fst_graph_add(g, x, y), norm, 1e-12);
}

fst_status fst_mergenet_graph(fst_graph **out, const fst_mergenet *config, fst_error *err)
{
    fst_graph *g = NULL;
    struct sides s;
    if (config->layers < 1 || config->layers > FST_MERGENET_LAYERS || config->heads < 1)
        return fst_fail(err, FST_E_ARGUMENT, "MergeNet has 1 to %d layers and at least one head, not %d and %d",
                        FST_MERGENET_LAYERS, config->layers, config->heads);
    fst_shape a = FST_SHAPE(config->target[0], config->target[1]), b = FST_SHAPE(config->source[0], config->source[1]);
    fst_status status = fst_graph_new(&g, err);
    if (status)
        return status;
    s.a = fst_graph_input(g, &a);
    s.b = fst_graph_input(g, &b);
    s.bt = fst_graph_transpose(g, s.b);
    for (int i = 0; i < config->layers; i++)
        s.a = merge_layer(g, &s, config, i);
    status = fst_graph_finish(g, s.a, err);
    if (status) {
        fst_graph_free(g);
        return status;
    }
    *out = g;
    return FST_OK;
}

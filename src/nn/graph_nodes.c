/* What a graph tells of one node: its op's attributes and the places of its tensors. Computes nothing. */
#include <string.h>

#include "graph.h"

static void pair(int64_t out[2], int64_t height, int64_t width)
{
    out[0] = height;
    out[1] = width;
}

static void window(fst_node_info *info, const int64_t kernel[2], const int64_t stride[2], const int64_t padding[2])
{
    pair(info->kernel, kernel[0], kernel[1]);
    pair(info->stride, stride[0], stride[1]);
    pair(info->padding, padding[0], padding[1]);
}

static void attributes(const struct fst_node *n, fst_node_info *info)
{
    switch (n->kind) {
    case FST_OP_CONV2D:
    case FST_OP_COMPLEX_CONV2D:
        window(info, n->u.conv.kernel, n->u.conv.stride, n->u.conv.padding);
        info->groups = n->u.conv.groups;
        info->bias = n->u.conv.bias;
        break;
    case FST_OP_LINEAR:
    case FST_OP_SPECTRAL_LINEAR:
    case FST_OP_COMPLEX_LINEAR:
        info->bias = n->u.linear.bias;
        break;
    case FST_OP_MAXPOOL2D:
        pair(info->kernel, n->u.pool.kernel, n->u.pool.kernel);
        pair(info->stride, n->u.pool.stride, n->u.pool.stride);
        pair(info->padding, n->u.pool.padding, n->u.pool.padding);
        break;
    case FST_OP_AVGPOOL2D:
        window(info, n->u.average.kernel, n->u.average.stride, n->u.average.padding);
        info->count_padding = n->u.average.count_padding;
        break;
    case FST_OP_BATCHNORM2D:
    case FST_OP_COMPLEX_BATCHNORM:
    case FST_OP_GROUPNORM:
    case FST_OP_LAYERNORM:
        info->eps = n->u.norm.eps;
        info->momentum = n->u.norm.momentum;
        info->groups = n->u.norm.groups;
        break;
    case FST_OP_TIME_FREQ_ATTENTION:
        info->attention = (fst_time_freq_attention){.reduction = n->u.time_freq.reduction,
                                                    .floor = n->u.time_freq.floor,
                                                    .ceiling = n->u.time_freq.ceiling,
                                                    .phase_eps = n->u.time_freq.phase_eps};
        break;
    default:
        break;
    }
}

fst_node_info fst_graph_node(const fst_graph *g, fst_value v)
{
    const struct fst_node *n = &g->nodes[v];
    fst_node_info info = {
        .op = fst__op_types[n->kind]->name,
        .name = n->params ? n->name : "",
        .inputs = n->kind == FST_OP_INPUT ? 0 : 1 + n->nmore,
        .out = n->out,
        .complex = n->planes == 2,
        .first_param = (size_t)n->first_param,
        .params = (size_t)n->params,
        .first_buffer = (size_t)n->first_buffer,
        .buffers = (size_t)n->buffers,
        .counter = n->counter,
    };
    info.input[0] = n->kind == FST_OP_INPUT ? 0 : n->input;
    for (int i = 0; i < n->nmore; i++)
        info.input[1 + i] = n->more[i];
    attributes(n, &info);
    return info;
}

fst_value fst_graph_output(const fst_graph *g)
{
    return g->output;
}

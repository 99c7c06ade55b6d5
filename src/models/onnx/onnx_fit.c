/*
 * Compares one of our networks with the layers of a file, from the output towards the input, and says where our tensors
 * come from. An addition is tried both ways round. A batch norm of ours may be there as itself or in the convolution
 * before it.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "onnx_fit.h"

enum { MOST_STEPS = 1 << 20 };

static bool is(const fst_node_info *n, const char *op)
{
    return !strcmp(n->op, op);
}

/* What computes nothing in inference is passed over: ours, as the file's was. */
static fst_value through(const fst_graph *g, fst_value v)
{
    for (;;) {
        fst_node_info n = fst_graph_node(g, v);
        if (!n.inputs)
            return v;
        fst_shape in = fst_graph_node(g, n.input[0]).out;
        if (!is(&n, "dropout") && !(is(&n, "flatten") && fst_shape_equal(&in, &n.out)))
            return v;
        v = n.input[0];
    }
}

static bool same_window(const fst_node_info *n, const struct fst__net_layer *l)
{
    for (int i = 0; i < 2; i++)
        if (n->kernel[i] != l->kernel[i] || (n->stride[i] != l->stride[i] && l->out.dim[1 + i] > 1) ||
            n->padding[i] != l->pads[i] || n->padding[i] != l->pads[2 + i])
            return false;
    return true;
}

static bool same_weight(const fst_graph *g, const fst_node_info *n, const struct fst__net_layer *l)
{
    fst_param_info p = fst_graph_param(g, n->first_param);
    return fst_shape_equal(&p.shape, &l->tensor[0].shape);
}

/* Whether the two are one layer; what they read is not looked at. norm_follows: a batch norm of ours reads it. */
static bool same_layer(const struct fst__onnx_fit *f, const fst_node_info *n, const struct fst__net_layer *l,
                       bool norm_follows)
{
    switch (l->kind) {
    case FST__NET_INPUT:
        return !n->inputs;
    case FST__NET_CONV: /* a bias that ours has not goes into the batch norm after it */
        return is(n, "conv2d") && n->groups == l->groups && same_window(n, l) && same_weight(f->g, n, l) &&
               (n->bias || l->tensors == 1 || norm_follows);
    case FST__NET_LINEAR:
        return is(n, "linear") && same_weight(f->g, n, l) && (n->bias || l->tensors == 1);
    case FST__NET_NORM:
        return is(n, "batchnorm2d") && n->out.dim[0] == l->out.dim[0];
    case FST__NET_RELU:
        return is(n, "relu");
    case FST__NET_RELU6:
        return is(n, "relu6");
    case FST__NET_ADD:
        return is(n, "add");
    case FST__NET_MAXPOOL:
        return is(n, "maxpool2d") && same_window(n, l);
    case FST__NET_AVGPOOL:
        return is(n, "avgpool2d") && same_window(n, l) &&
               (n->count_padding == l->count_padding || !(n->padding[0] || n->padding[1]));
    case FST__NET_RESHAPE:
        return is(n, "flatten");
    default:
        return false;
    }
}

static void give(struct fst__onnx_fit *f, fst_value v, int layer)
{
    f->layer[v] = layer;
    f->trail[f->found++] = v;
}

static void take_back(struct fst__onnx_fit *f, int found)
{
    while (f->found > found) {
        fst_value v = f->trail[--f->found];
        f->layer[v] = -1;
        f->folded[v] = false;
    }
}

static bool differ(struct fst__onnx_fit *f, fst_value v, int layer)
{
    if (f->found >= f->most) {
        f->most = f->found;
        f->value = v;
        f->other = layer;
    }
    return false;
}

static bool match(struct fst__onnx_fit *f, fst_value v, int layer, bool norm_follows);

/* Both ways round; which of them is ours shows soon. */
static bool match_sum(struct fst__onnx_fit *f, const fst_node_info *n, const struct fst__net_layer *l)
{
    int found = f->found;
    if (match(f, n->input[0], l->in[0], false) && match(f, n->input[1], l->in[1], false))
        return true;
    take_back(f, found);
    if (match(f, n->input[0], l->in[1], false) && match(f, n->input[1], l->in[0], false))
        return true;
    take_back(f, found);
    return false;
}

static bool match(struct fst__onnx_fit *f, fst_value v, int layer, bool norm_follows)
{
    const struct fst__net_layer *l = &f->net->layers[layer];
    v = through(f->g, v);
    fst_node_info n = fst_graph_node(f->g, v);
    if (f->layer[v] >= 0)
        return f->layer[v] == layer || differ(f, v, layer);
    if (++f->steps > MOST_STEPS || !fst_shape_equal(&n.out, &l->out))
        return differ(f, v, layer);
    if (is(&n, "batchnorm2d") && l->kind == FST__NET_CONV) {
        give(f, v, layer);
        f->folded[v] = true;
        return match(f, n.input[0], layer, true);
    }
    if (!same_layer(f, &n, l, norm_follows))
        return differ(f, v, layer);
    give(f, v, layer);
    if (l->kind == FST__NET_INPUT)
        return true;
    return l->kind == FST__NET_ADD ? match_sum(f, &n, l) : match(f, n.input[0], l->in[0], l->kind == FST__NET_NORM);
}

bool fst__onnx_fit(struct fst__onnx_fit *f)
{
    for (size_t i = 0; i < fst_graph_layers(f->g); i++) {
        f->layer[i] = -1;
        f->folded[i] = false;
    }
    f->found = f->most = 0;
    f->steps = 0;
    return match(f, fst_graph_output(f->g), f->net->output, false);
}

/* ---- in words ---------------------------------------------------------------------------------------------- */

static const char *describe(const fst_graph *g, fst_value v, char *out, size_t size)
{
    char shape[80];
    fst_node_info n = fst_graph_node(g, v);
    if (n.kernel[0])
        snprintf(out, size, "%s%s%s %lldx%lld, stride %lld, padding %lld, %lld to %lld channels", n.op,
                 n.name[0] ? " " : "", n.name, (long long)n.kernel[0], (long long)n.kernel[1], (long long)n.stride[0],
                 (long long)n.padding[0], (long long)fst_graph_node(g, n.input[0]).out.dim[0], (long long)n.out.dim[0]);
    else
        snprintf(out, size, "%s%s%s, to %s", n.op, n.name[0] ? " " : "", n.name,
                 fst_shape_text(&n.out, shape, sizeof shape));
    return out;
}

const char *fst__onnx_difference(const struct fst__onnx_fit *f, char *out, size_t size)
{
    char ours[200], theirs[200], shape[80];
    const struct fst__net_layer *l = &f->net->layers[f->other];
    snprintf(out, size, "has %s where the file has %s, to %s (node \"%.100s\")",
             describe(f->g, f->value, ours, sizeof ours), fst__net_describe(f->net, f->other, theirs, sizeof theirs),
             fst_shape_text(&l->out, shape, sizeof shape), fst__net_name(l));
    return out;
}

/* ---- tensors ------------------------------------------------------------------------------------------------- */

static struct fst__onnx_source as_it_is(const struct fst__onnx_tensor *t)
{
    return (struct fst__onnx_source){.rule = FST__ONNX_AS_IT_IS, .a = *t};
}

/* The convolution's bias that its own layer has no place for: it is in the batch norm, v, after it. NULL: none. */
static const struct fst__onnx_tensor *homeless_bias(const struct fst__onnx_fit *f, fst_value v)
{
    fst_value before = through(f->g, fst_graph_node(f->g, v).input[0]);
    fst_node_info conv = fst_graph_node(f->g, before);
    const struct fst__net_layer *l = &f->net->layers[f->layer[before]];
    return is(&conv, "conv2d") && !conv.bias && l->tensors == 2 ? &l->tensor[1] : NULL;
}

struct fst__onnx_source fst__onnx_param_source(const struct fst__onnx_fit *f, fst_value v, size_t k)
{
    static const struct fst__onnx_source zeros = {.rule = FST__ONNX_ZEROS}, ones = {.rule = FST__ONNX_ONES};
    const struct fst__net_layer *l = &f->net->layers[f->layer[v]];
    if (f->folded[v]) {
        const struct fst__onnx_tensor *bias = homeless_bias(f, v);
        return k == 0 ? ones : bias ? as_it_is(bias) : zeros;
    }
    return (int)k < l->tensors ? as_it_is(&l->tensor[k]) : zeros;
}

struct fst__onnx_source fst__onnx_buffer_source(const struct fst__onnx_fit *f, fst_value v, size_t k)
{
    const struct fst__net_layer *l = &f->net->layers[f->layer[v]];
    const struct fst__onnx_tensor *bias = homeless_bias(f, v);
    double eps = fst_graph_node(f->g, v).eps;
    if (f->folded[v]) /* what makes the norm divide by 1 */
        return k == 0 ? (struct fst__onnx_source){.rule = FST__ONNX_ZEROS}
                      : (struct fst__onnx_source){.rule = FST__ONNX_ONES, .add = (float)-eps};
    struct fst__onnx_source s = as_it_is(&l->tensor[2 + k]);
    if (k == 0 && bias) {
        s.rule = FST__ONNX_MEAN;
        s.b = *bias;
    } else if (k == 1 && l->eps != (float)eps) {
        s.rule = FST__ONNX_VARIANCE;
        s.add = (float)((double)l->eps - eps);
    }
    return s;
}

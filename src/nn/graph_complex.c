/* Builders of the ops on complex values. Computes nothing. */
#include "graph.h"

static fst_value simple(fst_graph *g, fst_op_kind kind, fst_value x)
{
    struct fst_node a = {0};
    return fst__graph_made(g, fst__graph_add(g, kind, x, &a, ""), true);
}

fst_value fst_graph_complex_from_parts(fst_graph *g, fst_value x)
{
    return simple(g, FST_OP_COMPLEX_FROM_PARTS, x);
}

fst_value fst_graph_complex_to_parts(fst_graph *g, fst_value x)
{
    return simple(g, FST_OP_COMPLEX_TO_PARTS, x);
}

fst_value fst_graph_magnitude(fst_graph *g, fst_value x)
{
    return simple(g, FST_OP_MAGNITUDE, x);
}

/* Two layers of one shape, in the order of state_dict. */
static bool pair(fst_graph *g, struct fst_node *n, const char *const leaf[4], fst_shape shape, bool bias,
                 int64_t fan_in)
{
    fst_shape out = FST_SHAPE(shape.dim[0]);
    bool ok = true;
    for (int k = 0; ok && k < 4; k++)
        if (k % 2 == 0 || bias)
            ok = fst__graph_add_param(g, n, leaf[k], k % 2 ? out : shape, FST_INIT_UNIFORM, fan_in);
    return ok;
}

fst_value fst_graph_complex_conv2d(fst_graph *g, fst_value x, const char *name, const fst_conv2d *o)
{
    static const char *const leaf[] = {"conv_r.weight", "conv_r.bias", "conv_i.weight", "conv_i.bias"};
    struct fst_node a = {.u.conv = *o};
    if (!a.u.conv.groups)
        a.u.conv.groups = 1;
    struct fst_node *n = fst__graph_add(g, FST_OP_COMPLEX_CONV2D, x, &a, name);
    if (!n)
        return -1;
    const fst_conv2d *c = &n->u.conv;
    int64_t in = n->in.dim[0];
    fst_shape shape = FST_SHAPE(c->out_channels, in, c->kernel[0], c->kernel[1]);
    return fst__graph_made(g, n, pair(g, n, leaf, shape, c->bias, in * c->kernel[0] * c->kernel[1]));
}

fst_value fst_graph_complex_linear(fst_graph *g, fst_value x, const char *name, int64_t out, bool bias)
{
    static const char *const leaf[] = {"fc_r.weight", "fc_r.bias", "fc_i.weight", "fc_i.bias"};
    struct fst_node a = {.u.linear = {out, bias}};
    struct fst_node *n = fst__graph_add(g, FST_OP_COMPLEX_LINEAR, x, &a, name);
    if (!n)
        return -1;
    return fst__graph_made(g, n, pair(g, n, leaf, FST_SHAPE(out, n->in.dim[0]), bias, n->in.dim[0]));
}

fst_value fst_graph_complex_batchnorm(fst_graph *g, fst_value x, const char *name, double eps, double momentum)
{
    struct fst_node a = {.u.norm = {.eps = eps, .momentum = momentum}};
    struct fst_node *n = fst__graph_add(g, FST_OP_COMPLEX_BATCHNORM, x, &a, name);
    if (!n)
        return -1;
    fst_shape two = FST_SHAPE(n->in.dim[0], 2), three = FST_SHAPE(n->in.dim[0], 3);
    bool ok = fst__graph_add_param(g, n, "weight", three, FST_INIT_COVARIANCE, 0) &&
              fst__graph_add_param(g, n, "bias", two, FST_INIT_ZERO, 0) &&
              fst__graph_add_buffer(g, n, "running_mean", two, FST_INIT_ZERO) &&
              fst__graph_add_buffer(g, n, "running_covar", three, FST_INIT_COVARIANCE) && fst__graph_add_counter(g, n);
    return fst__graph_made(g, n, ok);
}

fst_value fst_graph_time_freq_attention(fst_graph *g, fst_value x, const char *name, const fst_time_freq_attention *o)
{
    struct fst_node a = {.u.time_freq = {o->reduction, 0, o->floor, o->ceiling, o->phase_eps}};
    struct fst_node *n = fst__graph_add(g, FST_OP_TIME_FREQ_ATTENTION, x, &a, name);
    if (!n)
        return -1;
    int64_t channels = n->in.dim[0], hidden = n->u.time_freq.hidden;
    enum { TAPS = 2 * 7 * 7 };
    bool ok = fst__graph_add_param(g, n, "fc1.weight", FST_SHAPE(hidden, channels), FST_INIT_UNIFORM, channels) &&
              fst__graph_add_param(g, n, "fc2.weight", FST_SHAPE(channels, hidden), FST_INIT_UNIFORM, hidden) &&
              fst__graph_add_param(g, n, "conv.weight", FST_SHAPE(1, 2, 7, 7), FST_INIT_UNIFORM, TAPS);
    return fst__graph_made(g, n, ok);
}

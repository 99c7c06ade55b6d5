/* Builds graphs: nodes, shapes, the layout of parameter and buffer spans. Computes nothing. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "graph.h"

enum { MAX_NODE_NAME = 70 };
/* Sizes of plans are sums of a few of these times a batch of at most 2^20; they stay far from 2^63. */
#define MAX_VALUES ((int64_t)1 << 32)

static fst_status shape_input(struct fst_node *n, fst_error *err)
{
    (void)err;
    n->out = n->in;
    return FST_OK;
}

static const struct fst_op_type op_input = {.name = "input", .shape = shape_input};

const struct fst_op_type *const fst__op_types[FST_OP_KINDS] = {
    [FST_OP_INPUT] = &op_input,
    [FST_OP_CONV2D] = &fst__op_conv2d,
    [FST_OP_LINEAR] = &fst__op_linear,
    [FST_OP_RELU] = &fst__op_relu,
    [FST_OP_MAXPOOL2D] = &fst__op_maxpool2d,
    [FST_OP_FLATTEN] = &fst__op_flatten,
    [FST_OP_DROPOUT] = &fst__op_dropout,
    [FST_OP_BATCHNORM2D] = &fst__op_batchnorm2d,
    [FST_OP_ADD] = &fst__op_add,
    [FST_OP_CONCAT] = &fst__op_concat,
    [FST_OP_AVGPOOL2D] = &fst__op_avgpool2d,
    [FST_OP_RELU6] = &fst__op_relu6,
    [FST_OP_SIGMOID] = &fst__op_sigmoid,
    [FST_OP_GELU_TANH] = &fst__op_gelu_tanh,
    [FST_OP_SOFTMAX] = &fst__op_softmax,
    [FST_OP_GROUPNORM] = &fst__op_groupnorm,
    [FST_OP_LAYERNORM] = &fst__op_layernorm,
    [FST_OP_SPECTRAL_LINEAR] = &fst__op_spectral_linear,
    [FST_OP_TRANSPOSE] = &fst__op_transpose,
    [FST_OP_SCALE] = &fst__op_scale,
    [FST_OP_ATTENTION] = &fst__op_attention,
    [FST_OP_COMPLEX_FROM_PARTS] = &fst__op_complex_from_parts,
    [FST_OP_COMPLEX_TO_PARTS] = &fst__op_complex_to_parts,
    [FST_OP_MAGNITUDE] = &fst__op_magnitude,
    [FST_OP_COMPLEX_CONV2D] = &fst__op_complex_conv2d,
    [FST_OP_COMPLEX_LINEAR] = &fst__op_complex_linear,
    [FST_OP_COMPLEX_BATCHNORM] = &fst__op_complex_batchnorm,
    [FST_OP_TIME_FREQ_ATTENTION] = &fst__op_time_freq_attention,
    [FST_OP_QUANTISE] = &fst__op_quantise,
    [FST_OP_INT8_CONV2D] = &fst__op_int8_conv2d,
    [FST_OP_INT8_LINEAR] = &fst__op_int8_linear,
    [FST_OP_ROUND_INT8] = &fst__op_round_int8,
};

fst_status fst_graph_new(fst_graph **out, fst_error *err)
{
    fst_graph *g = fst_calloc(1, sizeof *g);
    if (!g)
        return fst_fail_memory(err, sizeof *g);
    g->output = -1;
    *out = g;
    return FST_OK;
}

void fst_graph_free(fst_graph *g)
{
    if (!g)
        return;
    fst_free(g->nodes);
    fst_free(g->params);
    fst_free(g->buffers);
    fst_free(g->counters);
    fst_free(g);
}

/* Makes room for one more element of `size` bytes; growth by doubling at powers of two. */
static fst_status grow(void **array, size_t count, size_t size, fst_error *err)
{
    if (count & (count - 1) || (count == 0 && *array))
        return FST_OK;
    size_t capacity = count ? 2 * count : 1;
    void *p = fst_realloc(*array, count * size, capacity * size);
    if (!p)
        return fst_fail_memory(err, capacity * size);
    *array = p;
    return FST_OK;
}

/* Names become keys of files, so they are whole and different. */
static fst_status check_name(const fst_graph *g, fst_op_kind kind, const char *name, fst_error *err)
{
    bool named = kind == FST_OP_CONV2D || kind == FST_OP_LINEAR || fst__is_batch_norm(kind) ||
                 kind == FST_OP_GROUPNORM || kind == FST_OP_LAYERNORM || kind == FST_OP_SPECTRAL_LINEAR ||
                 kind == FST_OP_COMPLEX_CONV2D || kind == FST_OP_COMPLEX_LINEAR || kind == FST_OP_TIME_FREQ_ATTENTION ||
                 fst__is_int8_layer(kind);
    if (!named)
        return FST_OK;
    if (!name[0] || strlen(name) > MAX_NODE_NAME)
        return fst_fail(err, FST_E_ARGUMENT, "a name has 1 to %d characters", MAX_NODE_NAME);
    for (int i = 1; i < g->count; i++)
        if (!strcmp(g->nodes[i].name, name))
            return fst_fail(err, FST_E_ARGUMENT, "the name is taken");
    return FST_OK;
}

fst_value fst__graph_broken(fst_graph *g, fst_status s)
{
    if (!g->status)
        g->status = s;
    return -1;
}

static fst_status check_planes(const fst_graph *g, const struct fst_node *n, fst_error *err)
{
    if (n->in_planes == 2 && !fst__op_types[n->kind]->takes_complex)
        return fst_fail(err, FST_E_ARGUMENT, "takes real values, not complex ones");
    for (int j = 0; j < n->nmore; j++)
        if (g->nodes[n->more[j]].planes != n->in_planes)
            return fst_fail(err, FST_E_ARGUMENT, "takes real or complex values, not both");
    return FST_OK;
}

static fst_status check_int8(const fst_graph *g, const struct fst_node *n, fst_error *err)
{
    bool int8 = n->in_int8.on;
    for (int j = 0; j < n->nmore; j++)
        int8 = int8 || g->nodes[n->more[j]].int8.on;
    if (int8 && !fst__op_types[n->kind]->takes_int8)
        return fst_fail(err, FST_E_ARGUMENT, "takes f32 values, not int8 ones");
    return FST_OK;
}

struct fst_node *fst__graph_add(fst_graph *g, fst_op_kind kind, int input, const struct fst_node *attributes,
                                const char *name)
{
    if (g->status)
        return NULL;
    if (g->finished) {
        fst__graph_broken(g, fst_fail(&g->error, FST_E_ARGUMENT, "the graph is finished"));
        return NULL;
    }
    if (kind != FST_OP_INPUT && (input < 0 || input >= g->count)) {
        fst__graph_broken(g, fst_fail(&g->error, FST_E_ARGUMENT, "%s \"%s\": there is no value %d",
                                      fst__op_types[kind]->name, name, input));
        return NULL;
    }
    fst_status s = grow((void **)&g->nodes, (size_t)g->count, sizeof *g->nodes, &g->error);
    if (s) {
        fst__graph_broken(g, s);
        return NULL;
    }
    struct fst_node *n = &g->nodes[g->count];
    *n = *attributes;
    n->kind = kind;
    n->id = g->count;
    n->input = kind == FST_OP_INPUT ? -1 : input;
    n->counter = -1;
    snprintf(n->name, sizeof n->name, "%s", name);
    if (kind != FST_OP_INPUT)
        n->in = g->nodes[input].out;
    n->in_planes = n->planes = kind == FST_OP_INPUT ? 1 : g->nodes[input].planes;
    n->in_int8 = n->int8 = kind == FST_OP_INPUT ? (struct fst_int8_value){0} : g->nodes[input].int8;
    for (int j = 0; j < n->nmore; j++)
        n->more_in[j] = g->nodes[n->more[j]].out;
    s = check_name(g, kind, name, &g->error);
    if (!s)
        s = check_planes(g, n, &g->error);
    if (!s)
        s = check_int8(g, n, &g->error);
    if (!s)
        s = fst__op_types[kind]->shape(n, &g->error);
    if (!s && (fst_shape_count(&n->out) < 1 || fst_shape_count(&n->out) > MAX_VALUES))
        s = fst_fail(&g->error, FST_E_LIMIT, "an output of more than %lld values a sample", (long long)MAX_VALUES);
    if (s) {
        fst__graph_broken(g, fst_fail_in(&g->error, s, "%s \"%.80s\"", fst__op_types[kind]->name, name));
        return NULL;
    }
    if (n->input >= 0)
        g->nodes[n->input].consumers++;
    for (int j = 0; j < n->nmore; j++)
        g->nodes[n->more[j]].consumers++;
    g->count++;
    return n;
}

static bool add_slot(fst_graph *g, struct fst_slot **slots, size_t *count, size_t *total, const char *node,
                     const char *leaf, fst_shape shape, fst_init_rule init, int64_t fan_in)
{
    int64_t values = fst_shape_count(&shape);
    fst_status s = grow((void **)slots, *count, sizeof **slots, &g->error);
    if (!s && (values < 1 || values > MAX_VALUES))
        s = fst_fail(&g->error, FST_E_LIMIT, "\"%.80s\": %s of more than %lld values", node, leaf,
                     (long long)MAX_VALUES);
    if (s) {
        fst__graph_broken(g, s);
        return false;
    }
    struct fst_slot *t = &(*slots)[*count];
    *t = (struct fst_slot){.shape = shape, .offset = *total, .init = init, .fan_in = fan_in};
    snprintf(t->name, sizeof t->name, "%.80s.%s", node, leaf);
    t->count = (size_t)values;
    *total += t->count;
    (*count)++;
    return true;
}

bool fst__graph_add_param(fst_graph *g, struct fst_node *n, const char *leaf, fst_shape shape, fst_init_rule init,
                          int64_t fan_in)
{
    if (!n->params)
        n->first_param = (int)g->nparams;
    n->params++;
    return add_slot(g, &g->params, &g->nparams, &g->param_count, n->name, leaf, shape, init, fan_in);
}

bool fst__graph_add_buffer(fst_graph *g, struct fst_node *n, const char *leaf, fst_shape shape, fst_init_rule init)
{
    if (!n->buffers)
        n->first_buffer = (int)g->nbuffers;
    n->buffers++;
    return add_slot(g, &g->buffers, &g->nbuffers, &g->buffer_count, n->name, leaf, shape, init, 0);
}

bool fst__graph_add_counter(fst_graph *g, struct fst_node *n)
{
    fst_status s = grow((void **)&g->counters, g->ncounters, sizeof *g->counters, &g->error);
    if (s) {
        fst__graph_broken(g, s);
        return false;
    }
    n->counter = (int)g->ncounters++;
    snprintf(g->counters[n->counter], FST_NAME_MAX, "%.70s.num_batches_tracked", n->name);
    return true;
}

fst_value fst__graph_made(const fst_graph *g, const struct fst_node *n, bool ok)
{
    return n && ok && !g->status ? n->id : -1;
}

fst_value fst_graph_input(fst_graph *g, const fst_shape *sample)
{
    struct fst_node a = {.in = *sample};
    if (!g->status && g->count != g->inputs)
        return fst__graph_broken(g, fst_fail(&g->error, FST_E_ARGUMENT, "the inputs are made before everything else"));
    if (!g->status && g->inputs == FST_GRAPH_INPUTS)
        return fst__graph_broken(
            g, fst_fail(&g->error, FST_E_ARGUMENT, "a graph has at most %d inputs", FST_GRAPH_INPUTS));
    if (!g->status && (sample->rank < 1 || sample->rank > 4 || fst_shape_count(sample) <= 0))
        return fst__graph_broken(g,
                                 fst_fail(&g->error, FST_E_ARGUMENT, "the input needs 1 to 4 dimensions, all above 0"));
    struct fst_node *n = fst__graph_add(g, FST_OP_INPUT, -1, &a, "input");
    g->inputs += n != NULL;
    return fst__graph_made(g, n, true);
}

fst_value fst_graph_conv2d(fst_graph *g, fst_value x, const char *name, const fst_conv2d *o)
{
    struct fst_node a = {.u.conv = *o};
    if (!a.u.conv.groups)
        a.u.conv.groups = 1;
    struct fst_node *n = fst__graph_add(g, FST_OP_CONV2D, x, &a, name);
    if (!n)
        return -1;
    const fst_conv2d *c = &n->u.conv;
    int64_t per_group = n->in.dim[0] / c->groups, fan_in = per_group * c->kernel[0] * c->kernel[1];
    bool ok = fst__graph_add_param(g, n, "weight", FST_SHAPE(c->out_channels, per_group, c->kernel[0], c->kernel[1]),
                                   FST_INIT_UNIFORM, fan_in);
    if (ok && c->bias)
        ok = fst__graph_add_param(g, n, "bias", FST_SHAPE(c->out_channels), FST_INIT_UNIFORM, fan_in);
    return fst__graph_made(g, n, ok);
}

fst_value fst_graph_linear(fst_graph *g, fst_value x, const char *name, int64_t out, bool bias)
{
    struct fst_node a = {.u.linear = {out, bias}};
    struct fst_node *n = fst__graph_add(g, FST_OP_LINEAR, x, &a, name);
    if (!n)
        return -1;
    int64_t in = n->in.dim[n->in.rank - 1];
    bool ok = fst__graph_add_param(g, n, "weight", FST_SHAPE(out, in), FST_INIT_UNIFORM, in);
    if (ok && bias)
        ok = fst__graph_add_param(g, n, "bias", FST_SHAPE(out), FST_INIT_UNIFORM, in);
    return fst__graph_made(g, n, ok);
}

fst_value fst_graph_relu(fst_graph *g, fst_value x)
{
    struct fst_node a = {0};
    return fst__graph_made(g, fst__graph_add(g, FST_OP_RELU, x, &a, ""), true);
}

fst_value fst_graph_maxpool2d(fst_graph *g, fst_value x, int64_t kernel, int64_t stride, int64_t padding)
{
    struct fst_node a = {.u.pool = {kernel, stride, padding}};
    return fst__graph_made(g, fst__graph_add(g, FST_OP_MAXPOOL2D, x, &a, ""), true);
}

fst_value fst_graph_reshape(fst_graph *g, fst_value x, const fst_shape *sample)
{
    struct fst_node a = {.u.reshape = {*sample}};
    return fst__graph_made(g, fst__graph_add(g, FST_OP_FLATTEN, x, &a, ""), true);
}

static fst_value simple(fst_graph *g, fst_op_kind kind, fst_value x)
{
    struct fst_node a = {0};
    return fst__graph_made(g, fst__graph_add(g, kind, x, &a, ""), true);
}

fst_value fst_graph_relu6(fst_graph *g, fst_value x)
{
    return simple(g, FST_OP_RELU6, x);
}

fst_value fst_graph_sigmoid(fst_graph *g, fst_value x)
{
    return simple(g, FST_OP_SIGMOID, x);
}

fst_value fst_graph_gelu_tanh(fst_graph *g, fst_value x)
{
    return simple(g, FST_OP_GELU_TANH, x);
}

fst_value fst_graph_softmax(fst_graph *g, fst_value x)
{
    return simple(g, FST_OP_SOFTMAX, x);
}

fst_value fst__graph_join(fst_graph *g, fst_op_kind kind, const fst_value *x, int count,
                          const struct fst_node *attributes)
{
    struct fst_node a = *attributes;
    const char *name = fst__op_types[kind]->name;
    if (!g->status && (count < 1 || count > 1 + FST_NODE_MORE))
        return fst__graph_broken(g, fst_fail(&g->error, FST_E_UNSUPPORTED, "%s takes 1 to %d inputs, not %d", name,
                                             1 + FST_NODE_MORE, count));
    for (int j = 1; !g->status && j < count; j++) {
        if (x[j] < 0 || x[j] >= g->count)
            return fst__graph_broken(g, fst_fail(&g->error, FST_E_ARGUMENT, "%s: there is no value %d", name, x[j]));
        a.more[j - 1] = x[j];
    }
    a.nmore = count - 1;
    return g->status ? -1 : fst__graph_made(g, fst__graph_add(g, kind, x[0], &a, ""), true);
}

fst_value fst_graph_add(fst_graph *g, fst_value x, fst_value y)
{
    return fst__graph_join(g, FST_OP_ADD, (fst_value[]){x, y}, 2, &(struct fst_node){0});
}

fst_value fst_graph_concat(fst_graph *g, const fst_value *x, int count)
{
    return fst__graph_join(g, FST_OP_CONCAT, x, count, &(struct fst_node){0});
}

fst_value fst_graph_avgpool2d(fst_graph *g, fst_value x, const int64_t kernel[2], const int64_t stride[2],
                              const int64_t padding[2], bool count_padding)
{
    struct fst_node a = {
        .u.average = {{kernel[0], kernel[1]}, {stride[0], stride[1]}, {padding[0], padding[1]}, count_padding}};
    return fst__graph_made(g, fst__graph_add(g, FST_OP_AVGPOOL2D, x, &a, ""), true);
}

fst_value fst_graph_global_avgpool(fst_graph *g, fst_value x)
{
    static const int64_t none[2] = {0, 0};
    if (g->status || x < 0 || x >= g->count || g->nodes[x].out.rank != 3)
        return g->status ? -1
                         : fst__graph_broken(g, fst_fail(&g->error, FST_E_ARGUMENT,
                                                         "global_avgpool: needs (channels, height, width)"));
    int64_t window[2] = {g->nodes[x].out.dim[1], g->nodes[x].out.dim[2]};
    return fst_graph_flatten(g, fst_graph_avgpool2d(g, x, window, window, none, true));
}

fst_value fst_graph_flatten(fst_graph *g, fst_value x)
{
    struct fst_node a = {0};
    return fst__graph_made(g, fst__graph_add(g, FST_OP_FLATTEN, x, &a, ""), true);
}

fst_value fst_graph_dropout(fst_graph *g, fst_value x, double p)
{
    struct fst_node a = {.u.dropout = {p}};
    return fst__graph_made(g, fst__graph_add(g, FST_OP_DROPOUT, x, &a, ""), true);
}

fst_value fst_graph_batchnorm2d(fst_graph *g, fst_value x, const char *name, double eps, double momentum)
{
    struct fst_node a = {.u.norm = {.eps = eps, .momentum = momentum}};
    struct fst_node *n = fst__graph_add(g, FST_OP_BATCHNORM2D, x, &a, name);
    if (!n)
        return -1;
    fst_shape c = FST_SHAPE(n->in.dim[0]);
    bool ok = fst__graph_add_param(g, n, "weight", c, FST_INIT_ONE, 0) &&
              fst__graph_add_param(g, n, "bias", c, FST_INIT_ZERO, 0) &&
              fst__graph_add_buffer(g, n, "running_mean", c, FST_INIT_ZERO) &&
              fst__graph_add_buffer(g, n, "running_var", c, FST_INIT_ONE);
    return fst__graph_made(g, n, ok && fst__graph_add_counter(g, n));
}

/* Scale and shift of `count` elements. */
static fst_value scaled(fst_graph *g, struct fst_node *n, int64_t count)
{
    return fst__graph_made(g, n,
                           n && fst__graph_add_param(g, n, "weight", FST_SHAPE(count), FST_INIT_ONE, 0) &&
                               fst__graph_add_param(g, n, "bias", FST_SHAPE(count), FST_INIT_ZERO, 0));
}

fst_value fst_graph_groupnorm(fst_graph *g, fst_value x, const char *name, int64_t groups, double eps)
{
    struct fst_node a = {.u.norm = {.eps = eps, .groups = groups}};
    struct fst_node *n = fst__graph_add(g, FST_OP_GROUPNORM, x, &a, name);
    return scaled(g, n, n ? n->in.dim[0] : 0);
}

fst_value fst_graph_layernorm(fst_graph *g, fst_value x, const char *name, double eps)
{
    struct fst_node a = {.u.norm = {.eps = eps}};
    struct fst_node *n = fst__graph_add(g, FST_OP_LAYERNORM, x, &a, name);
    return scaled(g, n, n ? n->in.dim[n->in.rank - 1] : 0);
}

fst_status fst_graph_finish(fst_graph *g, fst_value output, fst_error *err)
{
    if (!g->status && (output < 0 || output >= g->count))
        fst__graph_broken(g, fst_fail(&g->error, FST_E_ARGUMENT, "the output is not a value of this graph"));
    if (!g->status && g->nodes[output].planes != 1)
        fst__graph_broken(
            g, fst_fail(&g->error, FST_E_ARGUMENT, "the output is complex; take its magnitude, or its parts"));
    if (!g->status && g->nodes[output].int8.on)
        fst__graph_broken(g, fst_fail(&g->error, FST_E_ARGUMENT, "the output is int8; it must be f32"));
    for (int i = 0; !g->status && i < g->count; i++) {
        if (g->nodes[i].consumers == 0 && i != output)
            fst__graph_broken(g, fst_fail(&g->error, FST_E_ARGUMENT, "value %d (%s \"%s\") is not read by anything", i,
                                          fst__op_types[g->nodes[i].kind]->name, g->nodes[i].name));
    }
    if (g->status) {
        if (err)
            *err = g->error;
        return g->status;
    }
    g->output = output;
    g->finished = true;
    return FST_OK;
}

/* ---- what a graph tells --------------------------------------------------------------------- */

static fst_param_info info(const struct fst_slot *s)
{
    return (fst_param_info){s->name, s->shape, s->offset, s->count};
}

size_t fst_graph_params(const fst_graph *g)
{
    return g->nparams;
}

fst_param_info fst_graph_param(const fst_graph *g, size_t i)
{
    return info(&g->params[i]);
}

size_t fst_graph_param_count(const fst_graph *g)
{
    return g->param_count;
}

size_t fst_graph_buffers(const fst_graph *g)
{
    return g->nbuffers;
}

fst_param_info fst_graph_buffer(const fst_graph *g, size_t i)
{
    return info(&g->buffers[i]);
}

double fst_graph_buffer_momentum(const fst_graph *g, size_t i)
{
    for (int k = 0; k < g->count; k++) {
        const struct fst_node *n = &g->nodes[k];
        if (fst__is_batch_norm(n->kind) && (int)i >= n->first_buffer && (int)i < n->first_buffer + n->buffers)
            return n->u.norm.momentum;
    }
    return 0;
}

size_t fst_graph_buffer_count(const fst_graph *g)
{
    return g->buffer_count;
}

size_t fst_graph_counters(const fst_graph *g)
{
    return g->ncounters;
}

const char *fst_graph_counter(const fst_graph *g, size_t i)
{
    return g->counters[i];
}

size_t fst_graph_inputs(const fst_graph *g)
{
    return (size_t)g->inputs;
}

fst_shape fst_graph_input_shape_at(const fst_graph *g, size_t i)
{
    return g->nodes[i].out;
}

fst_shape fst_graph_input_shape(const fst_graph *g)
{
    return g->nodes[0].out;
}

fst_shape fst_graph_output_shape(const fst_graph *g)
{
    return g->nodes[g->output].out;
}

size_t fst_graph_layers(const fst_graph *g)
{
    return (size_t)g->count;
}

fst_layer_info fst_graph_layer(const fst_graph *g, size_t i)
{
    const struct fst_node *n = &g->nodes[i];
    const struct fst_op_type *t = fst__op_types[n->kind];
    fst_layer_info l = {t->name, n->params ? n->name : "", n->out, 0, t->flops ? t->flops(n) : 0};
    for (int k = 0; k < n->params; k++)
        l.params += g->params[n->first_param + k].count;
    return l;
}

double fst_graph_flops(const fst_graph *g)
{
    double sum = 0;
    for (int i = 0; i < g->count; i++)
        sum += fst_graph_layer(g, (size_t)i).flops;
    return sum;
}

/* ---- state ----------------------------------------------------------------------------------- */

/* Element k of a tensor that starts without randomness. */
static float constant(fst_init_rule rule, size_t k)
{
    if (rule == FST_INIT_COVARIANCE)
        return k % 3 < 2 ? (float)sqrt(2.0) : 0;
    return rule != FST_INIT_ZERO;
}

fst_status fst_state_init(fst_state *s, const fst_graph *g, fst_error *err)
{
    fst_state t = {.param_count = g->param_count, .buffer_count = g->buffer_count, .counter_count = g->ncounters};
    t.params = fst_calloc(t.param_count + 1, sizeof *t.params);
    t.buffers = fst_calloc(t.buffer_count + 1, sizeof *t.buffers);
    t.counters = fst_calloc(t.counter_count + 1, sizeof *t.counters);
    if (!t.params || !t.buffers || !t.counters) {
        fst_state_release(&t);
        return fst_fail_memory(err, (t.param_count + t.buffer_count) * sizeof(float));
    }
    for (size_t i = 0; i < g->nbuffers; i++)
        for (size_t k = 0; k < g->buffers[i].count; k++)
            t.buffers[g->buffers[i].offset + k] = constant(g->buffers[i].init, k);
    *s = t;
    return FST_OK;
}

void fst_state_release(fst_state *s)
{
    if (!s)
        return;
    fst_free(s->params);
    fst_free(s->buffers);
    fst_free(s->counters);
    *s = (fst_state){0};
}

static void randomise_slot(const struct fst_slot *t, uint64_t seed, float *span)
{
    char purpose[FST_NAME_MAX + 8];
    float *v = span + t->offset;
    double bound = t->init == FST_INIT_UNIFORM ? 1.0 / sqrt((double)t->fan_in) : 0, square = 0;
    fst_rng r;
    snprintf(purpose, sizeof purpose, "init.%s", t->name);
    fst_rng_init(&r, seed, purpose, 0);
    for (size_t k = 0; k < t->count; k++) {
        if (t->init == FST_INIT_DIRECTION) {
            double x = fst_rng_normal(&r);
            v[k] = (float)x;
            square += x * x;
        } else {
            v[k] = t->init == FST_INIT_UNIFORM ? (float)((2 * fst_rng_uniform(&r) - 1) * bound) : constant(t->init, k);
        }
    }
    for (size_t k = 0; t->init == FST_INIT_DIRECTION && k < t->count; k++)
        v[k] = (float)((double)v[k] / sqrt(square));
}

void fst_state_randomise(fst_state *s, const fst_graph *g, uint64_t seed)
{
    for (size_t i = 0; i < g->nparams; i++)
        randomise_slot(&g->params[i], seed, s->params);
    for (size_t i = 0; i < g->nbuffers; i++)
        if (g->buffers[i].init == FST_INIT_DIRECTION)
            randomise_slot(&g->buffers[i], seed, s->buffers);
}

void fst_state_copy(fst_state *dst, const fst_state *src)
{
    memcpy(dst->params, src->params, src->param_count * sizeof(float));
    memcpy(dst->buffers, src->buffers, src->buffer_count * sizeof(float));
    memcpy(dst->counters, src->counters, src->counter_count * sizeof(int64_t));
}

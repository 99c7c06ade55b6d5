/*
 * Channels that belong together, and the same network with fewer of them. A channel is a plane of a picture or a unit
 * of a linear layer. Layers make channels; what follows passes them on (ReLU, pooling, batch norms, depthwise
 * convolutions), flattens them, or adds them to others, which ties both. What is neither known to leave a channel of
 * zeroes at zero nor to pass it on alone (attention, group norms, concatenations, the network's input and output)
 * keeps all of its channels, and so do all that are tied to it. Says nothing about which channels are worth keeping.
 */
#include <string.h>

#include "graph.h"

struct fst_channels {
    const fst_graph *graph;
    int *root;       /* by value: one of the same set; itself if it is the set's first */
    bool *fixed;     /* by the set's first value: it keeps all channels */
    int64_t *repeat; /* by value: elements of the first dimension that are one channel; above 1 after flattening */
    int *group;      /* by value; -1: fixed */
    fst_channel_group *list;
    size_t count;
};

/* ---- which belong together ------------------------------------------------------------------------------- */

static int first_of(const struct fst_channels *c, int v)
{
    while (c->root[v] != v)
        v = c->root[v];
    return v;
}

static void fix(struct fst_channels *c, int v)
{
    c->fixed[first_of(c, v)] = true;
}

static void join(struct fst_channels *c, int a, int b)
{
    int x = first_of(c, a), y = first_of(c, b), low = x < y ? x : y;
    bool fixed = c->fixed[x] || c->fixed[y];
    c->root[x] = c->root[y] = low;
    c->fixed[low] = fixed;
}

/* Its output's channels are its own, whatever it reads. */
static bool makes_channels(const struct fst_node *n)
{
    switch (n->kind) {
    case FST_OP_CONV2D:
    case FST_OP_COMPLEX_CONV2D:
        return n->u.conv.groups <= 1;
    case FST_OP_LINEAR:
    case FST_OP_COMPLEX_LINEAR:
        return n->in.rank == 1;
    default:
        return false;
    }
}

/* A filter for each channel. One of a single channel cannot be told from any other convolution. */
static bool is_depthwise(const struct fst_node *n)
{
    return n->kind == FST_OP_CONV2D && n->u.conv.groups > 1 && n->u.conv.groups == n->in.dim[0] &&
           n->u.conv.out_channels == n->in.dim[0];
}

/* Each channel is made of the one it reads, and zeroes stay zeroes once weights and shifts of it are. */
static bool passes_channels(const struct fst_node *n)
{
    switch (n->kind) {
    case FST_OP_RELU:
    case FST_OP_RELU6:
    case FST_OP_GELU_TANH:
    case FST_OP_DROPOUT:
    case FST_OP_SCALE:
    case FST_OP_MAXPOOL2D:
    case FST_OP_AVGPOOL2D:
    case FST_OP_ADD:
        return true;
    case FST_OP_BATCHNORM2D:
    case FST_OP_COMPLEX_BATCHNORM:
        return n->in.rank == 3;
    default:
        return is_depthwise(n);
    }
}

static bool is_flatten(const struct fst_node *n)
{
    return n->kind == FST_OP_FLATTEN && !n->u.reshape.out.rank && n->out.rank == 1;
}

static void meet(struct fst_channels *c, const struct fst_node *n)
{
    bool known = is_flatten(n) || passes_channels(n);
    if (makes_channels(n))
        return;
    if (n->kind == FST_OP_INPUT) {
        fix(c, n->id);
        return;
    }
    join(c, n->id, n->input);
    c->repeat[n->id] = c->repeat[n->input];
    if (is_flatten(n))
        c->repeat[n->id] *= fst_shape_count(&n->in) / n->in.dim[0];
    for (int j = 0; j < n->nmore; j++) {
        known = known && c->repeat[n->more[j]] == c->repeat[n->input];
        join(c, n->id, n->more[j]);
    }
    if (!known)
        fix(c, n->id);
}

static void list_groups(struct fst_channels *c)
{
    const fst_graph *g = c->graph;
    for (int i = 0; i < g->count; i++)
        c->group[i] = -1;
    for (int i = 0; i < g->count; i++) {
        int first = first_of(c, i);
        if (c->fixed[first])
            continue;
        if (first == i) { /* a layer: what is not made here is joined to what comes before */
            c->group[i] = (int)c->count;
            c->list[c->count++] = (fst_channel_group){g->nodes[i].name, g->nodes[i].out.dim[0], 1};
        }
        c->group[i] = c->group[first];
        if (is_depthwise(&g->nodes[i]))
            c->list[c->group[i]].least = 2;
    }
}

void fst_channels_free(fst_channels *c)
{
    if (!c)
        return;
    fst_free(c->root);
    fst_free(c->fixed);
    fst_free(c->repeat);
    fst_free(c->group);
    fst_free(c->list);
    fst_free(c);
}

fst_status fst_channels_new(fst_channels **out, const fst_graph *g, fst_error *err)
{
    size_t n = (size_t)g->count;
    if (!g->finished || g->taps || fst_graph_is_int8(g))
        return fst_fail(err, FST_E_ARGUMENT, "channels are those of a finished f32 graph without taps");
    fst_channels *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    *c = (fst_channels){.graph = g,
                        .root = fst_calloc(n, sizeof *c->root),
                        .fixed = fst_calloc(n, sizeof *c->fixed),
                        .repeat = fst_calloc(n, sizeof *c->repeat),
                        .group = fst_calloc(n, sizeof *c->group),
                        .list = fst_calloc(n, sizeof *c->list)};
    if (!c->root || !c->fixed || !c->repeat || !c->group || !c->list) {
        fst_channels_free(c);
        return fst_fail_memory(err, n * sizeof *c->list);
    }
    for (int i = 0; i < g->count; i++) {
        c->root[i] = i;
        c->repeat[i] = 1;
    }
    for (int i = 0; i < g->count; i++)
        meet(c, &g->nodes[i]);
    fix(c, g->output);
    list_groups(c);
    *out = c;
    return FST_OK;
}

size_t fst_channels_groups(const fst_channels *c)
{
    return c->count;
}

fst_channel_group fst_channels_group(const fst_channels *c, size_t k)
{
    return c->list[k];
}

int fst_channels_of(const fst_channels *c, fst_value v)
{
    return c->group[v];
}

/* ---- fewer of them ----------------------------------------------------------------------------------------- */

static fst_value narrow_node(fst_graph *to, const fst_channels *c, const int *widths, const struct fst_node *n,
                             const fst_value *here)
{
    int group = c->group[n->id];
    int64_t out = group < 0 ? n->out.dim[0] : widths[group];
    fst_conv2d conv;
    switch (n->kind) {
    case FST_OP_CONV2D:
    case FST_OP_COMPLEX_CONV2D:
        conv = n->u.conv;
        conv.out_channels = out;
        if (is_depthwise(n))
            conv.groups = out;
        return n->kind == FST_OP_CONV2D ? fst_graph_conv2d(to, here[n->input], n->name, &conv)
                                        : fst_graph_complex_conv2d(to, here[n->input], n->name, &conv);
    case FST_OP_LINEAR:
        return fst_graph_linear(to, here[n->input], n->name, n->in.rank == 1 ? out : n->u.linear.out, n->u.linear.bias);
    case FST_OP_COMPLEX_LINEAR:
        return fst_graph_complex_linear(to, here[n->input], n->name, n->in.rank == 1 ? out : n->u.linear.out,
                                        n->u.linear.bias);
    case FST_OP_BATCHNORM2D:
        return fst_graph_batchnorm2d(to, here[n->input], n->name, n->u.norm.eps, n->u.norm.momentum);
    case FST_OP_COMPLEX_BATCHNORM:
        return fst_graph_complex_batchnorm(to, here[n->input], n->name, n->u.norm.eps, n->u.norm.momentum);
    default:
        return fst__graph_same_node(to, c->graph, n, here);
    }
}

static fst_status check_widths(const fst_channels *c, const int *widths, size_t count, fst_error *err)
{
    if (count != c->count)
        return fst_fail(err, FST_E_CONFIG, "%zu widths for %zu groups of channels", count, c->count);
    for (size_t k = 0; k < count; k++)
        if (widths[k] < c->list[k].least || widths[k] > c->list[k].channels)
            return fst_fail(err, FST_E_CONFIG, "width %zu (%s) is %d; %lld to %lld are possible", k + 1,
                            c->list[k].name, widths[k], (long long)c->list[k].least, (long long)c->list[k].channels);
    return FST_OK;
}

fst_status fst_graph_narrow(fst_graph **out, const fst_channels *c, const int *widths, size_t count, fst_error *err)
{
    const fst_graph *g = c->graph;
    fst_graph *to = NULL;
    fst_value *here = NULL;
    fst_status s = check_widths(c, widths, count, err);
    if (!s && !(here = fst_calloc((size_t)g->count, sizeof *here)))
        s = fst_fail_memory(err, (size_t)g->count * sizeof *here);
    if (!s)
        s = fst_graph_new(&to, err);
    for (int i = 0; !s && i < g->count; i++)
        here[i] = narrow_node(to, c, widths, &g->nodes[i], here);
    if (!s)
        s = fst_graph_finish(to, here[g->output], err);
    fst_free(here);
    if (s) {
        fst_graph_free(to);
        return s;
    }
    *out = to;
    return FST_OK;
}

/* ---- the state ------------------------------------------------------------------------------------------------ */

struct along {          /* a dimension of a tensor: which of its channels are taken, of `repeat` elements each */
    const int *channel; /* NULL: all */
    int64_t count, repeat;
};

static struct along along(const fst_channels *c, const fst_channel_pick *keep, int v, int64_t size)
{
    int k = c->group[v];
    return k < 0 ? (struct along){NULL, size, 1} : (struct along){keep[k].channel, keep[k].count, c->repeat[v]};
}

static int64_t element(const struct along *a, int64_t i)
{
    return a->channel ? a->channel[i / a->repeat] * a->repeat + i % a->repeat : i;
}

static void take(float *to, const float *from, const fst_shape *shape, struct along rows, struct along columns)
{
    int64_t width = shape->rank > 1 ? shape->dim[1] : 1;
    size_t inner = 1;
    for (int d = 2; d < shape->rank; d++)
        inner *= (size_t)shape->dim[d];
    for (int64_t r = 0; r < rows.count * rows.repeat; r++)
        for (int64_t k = 0; k < columns.count * columns.repeat; k++, to += inner)
            memcpy(to, from + (size_t)(element(&rows, r) * width + element(&columns, k)) * inner, inner * sizeof *to);
}

static void take_slot(float *to, const float *from, const struct fst_slot *t, const fst_channels *c,
                      const fst_channel_pick *keep, const struct fst_node *n, bool reads)
{
    int64_t width = t->shape.rank > 1 ? t->shape.dim[1] : 1;
    struct along columns = {NULL, width, 1};
    if (reads && t->shape.rank > 1)
        columns = along(c, keep, n->input, width);
    take(to, from + t->offset, &t->shape, along(c, keep, n->id, t->shape.dim[0]), columns);
}

void fst_state_narrow(fst_state *to, const fst_graph *narrow, const fst_state *s, const fst_channels *c,
                      const fst_channel_pick *keep)
{
    const fst_graph *g = c->graph;
    for (int i = 0; i < g->count; i++) {
        const struct fst_node *n = &g->nodes[i];
        for (int k = n->first_param; k < n->first_param + n->params; k++)
            take_slot(to->params + narrow->params[k].offset, s->params, &g->params[k], c, keep, n, makes_channels(n));
        for (int k = n->first_buffer; k < n->first_buffer + n->buffers; k++)
            take_slot(to->buffers + narrow->buffers[k].offset, s->buffers, &g->buffers[k], c, keep, n, false);
    }
    memcpy(to->counters, s->counters, s->counter_count * sizeof *s->counters);
}

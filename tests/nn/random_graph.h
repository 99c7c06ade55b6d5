/* Graphs drawn at random: shapes, ops and topology (branches, joins, values with several readers, several inputs), all
 * from one named stream, so that a seed is a graph. */
#ifndef FST_TESTS_NN_RANDOM_GRAPH_H
#define FST_TESTS_NN_RANDOM_GRAPH_H

#include "nn/support.h"

enum { MAX_ITEMS = 96, MAX_FLOATS = 1500, DRAFT_INPUTS = 4 };

struct item { /* a value of the graph under construction */
    fst_value value;
    fst_shape shape;
    int readers;
    bool normed; /* normalised, and nothing behind it that takes that away */
};

struct draft {
    fst_graph *graph;
    struct item item[MAX_ITEMS];
    int items, inputs, named;
    fst_rng rng;
    int64_t batch;
    char text[4096];
};

static inline int64_t pick(fst_rng *r, const int64_t *from, size_t n)
{
    return from[fst_rng_below(r, n)];
}
#define PICK(r, ...) pick(r, (const int64_t[]){__VA_ARGS__}, sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t))

static inline bool chance(struct draft *d, unsigned in)
{
    return fst_rng_below(&d->rng, in) == 0;
}

__attribute__((format(printf, 2, 3))) static inline void note(struct draft *d, const char *fmt, ...)
{
    size_t at = strlen(d->text);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(d->text + at, sizeof d->text - at, fmt, ap);
    va_end(ap);
}

static inline const char *next_name(struct draft *d)
{
    static char name[16];
    snprintf(name, sizeof name, "layer%d", d->named++);
    return name;
}

/* Takes a new value in, read from item x (and y, when not below 0). */
static inline int put(struct draft *d, fst_value v, int x, int y, const char *what)
{
    char shape[64];
    assert_true(v >= 0 && d->items < MAX_ITEMS);
    struct item *new = &d->item[d->items];
    *new = (struct item){.value = v, .shape = fst_graph_layer(d->graph, (size_t)v).out};
    d->item[x].readers++;
    if (y >= 0)
        d->item[y].readers++;
    note(d, "  v%d = %s(v%d", d->items, what, x);
    if (y >= 0)
        note(d, ", v%d", y);
    note(d, ") %s\n", fst_shape_text(&new->shape, shape, sizeof shape));
    return d->items++;
}

static inline int64_t floats_of(const struct draft *d, int i)
{
    return fst_shape_count(&d->item[i].shape);
}

/* ---- ops of images: (channels, height, width) ----------------------------------------------------------- */

static inline int draw_conv(struct draft *d, int x, bool keep)
{
    const fst_shape *in = &d->item[x].shape;
    fst_conv2d c = {.bias = chance(d, 2), .groups = 1};
    char what[96];
    c.out_channels = keep ? in->dim[0] : PICK(&d->rng, 1, 2, 3, 4, 5, 8, 16, 17, 24, 33);
    if (chance(d, 4)) { /* depthwise */
        c.groups = in->dim[0];
        c.out_channels = in->dim[0] * (keep || chance(d, 2) ? 1 : 2);
    } else if (chance(d, 4) && in->dim[0] % 2 == 0) {
        c.groups = 2;
        c.out_channels += c.out_channels % 2;
    }
    for (int i = 0; i < 2; i++) {
        c.kernel[i] = keep ? PICK(&d->rng, 1, 3, 3, 5) : PICK(&d->rng, 1, 2, 3, 3, 3, 5);
        c.stride[i] = keep ? 1 : PICK(&d->rng, 1, 1, 1, 2, 3);
        c.padding[i] = keep ? c.kernel[i] / 2 : (int64_t)fst_rng_below(&d->rng, (uint64_t)c.kernel[i]);
        if (in->dim[1 + i] + 2 * c.padding[i] < c.kernel[i])
            return -1;
    }
    if (c.out_channels * in->dim[1] * in->dim[2] > MAX_FLOATS && c.out_channels > in->dim[0])
        return -1;
    snprintf(what, sizeof what, "conv %d, %dx%d/%dx%d+%dx%d, groups %d%s: ", (int)c.out_channels, (int)c.kernel[0],
             (int)c.kernel[1], (int)c.stride[0], (int)c.stride[1], (int)c.padding[0], (int)c.padding[1], (int)c.groups,
             c.bias ? ", bias" : "");
    return put(d, fst_graph_conv2d(d->graph, d->item[x].value, next_name(d), &c), x, -1, what);
}

static inline int draw_pool(struct draft *d, int x)
{
    const fst_shape *in = &d->item[x].shape;
    bool max = chance(d, 2), counted = chance(d, 2);
    int64_t k = PICK(&d->rng, 1, 2, 2, 3), s = PICK(&d->rng, 1, 2, 2, 3), p = k > 1 ? PICK(&d->rng, 0, 0, 1) : 0;
    char what[64];
    for (int i = 1; i < 3; i++)
        if (in->dim[i] + 2 * p < k)
            return -1;
    fst_value v = d->item[x].value;
    v = max ? fst_graph_maxpool2d(d->graph, v, k, s, p)
            : fst_graph_avgpool2d(d->graph, v, (int64_t[]){k, k}, (int64_t[]){s, s}, (int64_t[]){p, p}, counted);
    snprintf(what, sizeof what, "%spool %d/%d+%d: ",
             max       ? "max"
             : counted ? "average"
                       : "inner average",
             (int)k, (int)s, (int)p);
    return put(d, v, x, -1, what);
}

/* Of few values the normalised ones hardly depend on the input. */
static inline int draw_batchnorm(struct draft *d, int x)
{
    struct item *in = &d->item[x];
    if (in->normed || d->batch * in->shape.dim[1] * in->shape.dim[2] < 8)
        return -1;
    int y = put(d, fst_graph_batchnorm2d(d->graph, in->value, next_name(d), 1e-3, 0.1), x, -1, "batch norm");
    d->item[y].normed = true;
    return y;
}

static inline int draw_groupnorm(struct draft *d, int x)
{
    struct item *in = &d->item[x];
    int64_t channels = in->shape.dim[0], groups = channels % 3 == 0 && chance(d, 2) ? 3 : chance(d, 2) ? 1 : channels;
    if (in->normed || floats_of(d, x) / groups < 6)
        return -1;
    int y = put(d, fst_graph_groupnorm(d->graph, in->value, next_name(d), groups, 1e-3), x, -1, "group norm");
    d->item[y].normed = true;
    return y;
}

/* ---- ops of tokens: (tokens, width) --------------------------------------------------------------------- */

static inline int draw_conv1d(struct draft *d, int x)
{
    const fst_shape *in = &d->item[x].shape;
    fst_conv1d c = {.out_channels = PICK(&d->rng, 1, 3, 6, 16, 17), .bias = chance(d, 2)};
    c.kernel = PICK(&d->rng, 1, 2, 3, 5);
    c.stride = PICK(&d->rng, 1, 1, 2);
    c.padding = (int64_t)fst_rng_below(&d->rng, (uint64_t)c.kernel);
    if (in->dim[1] + 2 * c.padding < c.kernel || c.out_channels * (in->dim[1] + 2 * c.padding) > MAX_FLOATS)
        return -1;
    return put(d, fst_graph_conv1d(d->graph, d->item[x].value, next_name(d), &c), x, -1, "conv1d");
}

static inline int draw_attention(struct draft *d, int x)
{
    int context = x;
    for (int i = 0; i < 4 && context == x; i++) {
        int other = (int)fst_rng_below(&d->rng, (uint64_t)d->items);
        if (d->item[other].shape.rank == 2)
            context = other;
    }
    fst_cross_attention o = {.heads = PICK(&d->rng, 1, 2, 3), .bias = chance(d, 2), .eps = 1e-3};
    o.width = o.heads * PICK(&d->rng, 1, 2, 4, 5);
    o.dropout = chance(d, 4) ? 0.2 : 0;
    if (d->item[x].shape.dim[1] < 4)
        return -1;
    fst_value v = fst_graph_cross_attention(d->graph, d->item[x].value, d->item[context].value, next_name(d), &o);
    int y = put(d, v, x, context, "cross attention");
    d->item[y].normed = true;
    return y;
}

/* ---- ops of anything ---------------------------------------------------------------------------------- */

static inline int draw_linear(struct draft *d, int x)
{
    bool spectral = chance(d, 5), bias = !chance(d, 3);
    int64_t out = PICK(&d->rng, 1, 2, 3, 7, 10, 16, 33);
    fst_value v = d->item[x].value;
    v = spectral ? fst_graph_spectral_linear(d->graph, v, next_name(d), out, bias)
                 : fst_graph_linear(d->graph, v, next_name(d), out, bias);
    return put(d, v, x, -1, spectral ? "spectral linear" : bias ? "linear, bias: " : "linear");
}

static inline int draw_elementwise(struct draft *d, int x)
{
    fst_graph *g = d->graph;
    fst_value v = d->item[x].value;
    switch (fst_rng_below(&d->rng, 9)) {
    case 0:
    case 1:
    case 2:
        return put(d, fst_graph_relu(g, v), x, -1, "relu");
    case 3:
    case 4:
        return put(d, fst_graph_relu6(g, v), x, -1, "relu6");
    case 5:
        return put(d, fst_graph_sigmoid(g, v), x, -1, "sigmoid");
    case 6:
        return put(d, fst_graph_gelu_tanh(g, v), x, -1, "gelu");
    case 7:
        return put(d, fst_graph_dropout(g, v, chance(d, 2) ? 0 : 0.25), x, -1, "dropout");
    default:
        return put(d, fst_graph_scale(g, v, chance(d, 2) ? -1.5 : 0.75), x, -1, "scale");
    }
}

static inline int draw_last_dimension(struct draft *d, int x)
{
    struct item *in = &d->item[x];
    int64_t last = in->shape.dim[in->shape.rank - 1];
    if (last < 2)
        return -1;
    if (chance(d, 2))
        return put(d, fst_graph_softmax(d->graph, in->value), x, -1, "softmax");
    if (in->normed || last < 6)
        return -1;
    int y = put(d, fst_graph_layernorm(d->graph, in->value, next_name(d), 1e-3), x, -1, "layer norm");
    d->item[y].normed = true;
    return y;
}

static inline int draw_reshape(struct draft *d, int x)
{
    const fst_shape *in = &d->item[x].shape;
    fst_shape s = FST_SHAPE(in->dim[0], fst_shape_count(in) / in->dim[0]);
    fst_value v = d->item[x].value;
    if (in->rank == 2 && chance(d, 2)) {
        s = FST_SHAPE(in->dim[0], 1, in->dim[1]);
        return put(d, fst_graph_reshape(d->graph, v, &s), x, -1, "reshape");
    }
    if (in->rank == 3 && chance(d, 2))
        return put(d, fst_graph_reshape(d->graph, v, &s), x, -1, "reshape");
    if (in->rank == 3 && chance(d, 2))
        return put(d, fst_graph_global_avgpool(d->graph, v), x, -1, "global average");
    return put(d, fst_graph_flatten(d->graph, v), x, -1, "flatten");
}

static inline bool joins(const fst_shape *a, const fst_shape *b, bool concat)
{
    fst_shape c = *b;
    if (concat)
        c.dim[0] = a->dim[0];
    return fst_shape_equal(a, &c);
}

/* A sum or a concatenation with a value that fits; with itself when there is no other. */
static inline int draw_join(struct draft *d, int x)
{
    bool concat = chance(d, 2);
    int y = x;
    for (int i = 0; i < 8 && y == x; i++) {
        int other = (int)fst_rng_below(&d->rng, (uint64_t)d->items);
        if (joins(&d->item[x].shape, &d->item[other].shape, concat))
            y = other;
    }
    if (concat && floats_of(d, x) + floats_of(d, y) > MAX_FLOATS)
        return -1;
    fst_value two[2] = {d->item[x].value, d->item[y].value};
    fst_value v = concat ? fst_graph_concat(d->graph, two, 2) : fst_graph_add(d->graph, two[0], two[1]);
    return put(d, v, x, y, concat ? "concat" : "add");
}

/* x + f(x), with or without the ReLU that backends fuse. */
static inline int draw_residual(struct draft *d, int x)
{
    int y = draw_conv(d, x, true);
    if (y < 0)
        return -1;
    int z = chance(d, 2) ? draw_batchnorm(d, y) : -1;
    y = z < 0 ? y : z;
    if (chance(d, 2))
        y = put(d, fst_graph_relu(d->graph, d->item[y].value), y, -1, "relu");
    bool first = chance(d, 2);
    int a = first ? x : y, b = first ? y : x;
    y = put(d, fst_graph_add(d->graph, d->item[a].value, d->item[b].value), a, b, "add");
    return chance(d, 2) ? put(d, fst_graph_relu(d->graph, d->item[y].value), y, -1, "relu") : y;
}

/* What backends fold and fuse: a convolution, a batch norm, a ReLU or ReLU6, a pooling; some of them missing. */
static inline int draw_chain(struct draft *d, int x)
{
    int y = draw_conv(d, x, false), z;
    if (y < 0)
        return -1;
    if (!chance(d, 4) && (z = draw_batchnorm(d, y)) >= 0)
        y = z;
    if (chance(d, 2))
        y = put(d, fst_graph_relu(d->graph, d->item[y].value), y, -1, "relu");
    else if (chance(d, 2))
        y = put(d, fst_graph_relu6(d->graph, d->item[y].value), y, -1, "relu6");
    return chance(d, 2) && (z = draw_pool(d, y)) >= 0 ? z : y;
}

/* Adds an op behind item x; -1 when the one that was drawn does not fit. */
static inline int draw_op(struct draft *d, int x)
{
    uint64_t what = fst_rng_below(&d->rng, 12);
    int rank = d->item[x].shape.rank;
    if (what < 2)
        return draw_elementwise(d, x);
    if (what == 2)
        return draw_join(d, x);
    if (what == 3)
        return draw_last_dimension(d, x);
    if (rank == 3)
        switch (what) {
        case 4:
        case 5:
            return draw_conv(d, x, false);
        case 6:
            return draw_pool(d, x);
        case 7:
            return draw_residual(d, x);
        case 8:
            return draw_batchnorm(d, x);
        case 9:
            return chance(d, 2) ? draw_reshape(d, x) : draw_groupnorm(d, x);
        default:
            return draw_chain(d, x);
        }
    if (rank == 2)
        switch (what) {
        case 4:
        case 5:
            return draw_attention(d, x);
        case 6:
            return draw_conv1d(d, x);
        case 7:
            return put(d, fst_graph_transpose(d->graph, d->item[x].value), x, -1, "transpose");
        case 8:
            return draw_reshape(d, x);
        default:
            return draw_linear(d, x);
        }
    return rank == 1 ? draw_linear(d, x) : draw_reshape(d, x);
}

/* Mostly the newest value that nobody reads, else any: so branches begin. */
static inline int draw_place(struct draft *d)
{
    if (chance(d, 3))
        return (int)fst_rng_below(&d->rng, (uint64_t)d->items);
    for (int i = d->items - 1; i >= 0; i--)
        if (!d->item[i].readers)
            return i;
    return d->items - 1;
}

static inline void draw_inputs(struct draft *d)
{
    int64_t side = PICK(&d->rng, 1, 2, 4, 7, 8, 11);
    char shape[64];
    d->inputs = chance(d, 4) ? 2 + (int)fst_rng_below(&d->rng, 2) : 1;
    for (int i = 0; i < d->inputs; i++) {
        fst_shape s;
        switch (fst_rng_below(&d->rng, 8)) {
        case 0:
            s = FST_SHAPE(PICK(&d->rng, 1, 5, 32, 47));
            break;
        case 1:
            s = FST_SHAPE(PICK(&d->rng, 1, 3, 6), PICK(&d->rng, 4, 7, 16));
            break;
        case 2:
            s = chance(d, 4) ? FST_SHAPE(2, 3, 2, 2) : FST_SHAPE(16, side, side);
            break;
        default:
            s = FST_SHAPE(PICK(&d->rng, 1, 2, 3, 5, 8, 16, 19), side, PICK(&d->rng, 1, 3, side, side));
            break;
        }
        d->item[d->items++] = (struct item){.value = fst_graph_input(d->graph, &s), .shape = s};
        note(d, "  v%d: %s\n", i, fst_shape_text(&s, shape, sizeof shape));
    }
}

/* Everything that nobody reads goes into the output. */
static inline int draw_output(struct draft *d)
{
    int out = -1;
    for (int i = 0; i < d->items; i++) {
        if (d->item[i].readers || i == out)
            continue;
        int x = i;
        if (out < 0) {
            out = i;
            continue;
        }
        if (d->item[out].shape.rank != 1)
            out = put(d, fst_graph_flatten(d->graph, d->item[out].value), out, -1, "flatten");
        if (d->item[x].shape.rank != 1)
            x = put(d, fst_graph_flatten(d->graph, d->item[x].value), x, -1, "flatten");
        fst_value two[2] = {d->item[out].value, d->item[x].value};
        out = put(d, fst_graph_concat(d->graph, two, 2), out, x, "concat");
        i = -1; /* what is new may stand unread only as `out` */
    }
    return out;
}

static inline void draw_graph(struct draft *d, uint64_t seed)
{
    *d = (struct draft){0};
    fst_rng_init(&d->rng, seed, "test.graph", 0);
    d->batch = PICK(&d->rng, 1, 2, 3, 5, 8, 16, 33);
    note(d, "batch %d\n", (int)d->batch);
    assert_ok(fst_graph_new(&d->graph, err));
    draw_inputs(d);
    int ops = 1 + (int)fst_rng_below(&d->rng, 12);
    for (int i = 0; i < ops; i++) {
        int x = draw_place(d);
        if (floats_of(d, x) < MAX_FLOATS)
            (void)draw_op(d, x);
    }
    for (int i = 0; i < d->inputs; i++) /* an input is not the output */
        if (!d->item[i].readers)
            (void)draw_elementwise(d, i);
    int out = draw_output(d);
    assert_ok(fst_graph_finish(d->graph, d->item[out].value, err));
}

#endif

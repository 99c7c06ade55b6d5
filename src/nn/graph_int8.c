/*
 * A network in int8 made of one in f32: its convolutions and linear layers become layers on whole numbers, batch norms
 * after convolutions go into their weights, and values are rounded once, where they arise. What has no such form, and
 * what the caller leaves out, stays as it is. Computes weights; runs nothing.
 */
#include <math.h>
#include <string.h>

#include "ops.h"

/* ---- builders ------------------------------------------------------------------------------------------ */

static fst_value quantise(fst_graph *g, fst_value x, float scale, bool is_unsigned)
{
    struct fst_node a = {.u.quantise = {.is_unsigned = is_unsigned, .scale = scale}};
    return fst__graph_made(g, fst__graph_add(g, FST_OP_QUANTISE, x, &a, ""), true);
}

/* conv2d or linear with the weights' shape, in int8. */
static fst_value int8_layer(fst_graph *g, fst_value x, const struct fst_node *from, const fst_shape *weight)
{
    struct fst_node a = {.u = from->u};
    fst_op_kind kind = from->kind == FST_OP_CONV2D ? FST_OP_INT8_CONV2D : FST_OP_INT8_LINEAR;
    struct fst_node *n = fst__graph_add(g, kind, x, &a, from->name);
    fst_shape out = FST_SHAPE(weight->dim[0]);
    bool ok = n && fst__graph_add_param(g, n, "weight", *weight, FST_INIT_ZERO, 0) &&
              fst__graph_add_param(g, n, "weight_scale", out, FST_INIT_ONE, 0) &&
              fst__graph_add_param(g, n, "bias", out, FST_INIT_ZERO, 0);
    return fst__graph_made(g, n, ok);
}

static const char *leaf_of(const struct fst_node *n, const struct fst_slot *t)
{
    return t->name + strlen(n->name) + 1;
}

fst_value fst__graph_same_node(fst_graph *to, const fst_graph *from, const struct fst_node *n, const fst_value *here)
{
    struct fst_node a = {.u = n->u, .nmore = n->nmore};
    if (n->kind == FST_OP_INPUT)
        return fst_graph_input(to, &n->out);
    for (int j = 0; j < n->nmore; j++)
        a.more[j] = here[n->more[j]];
    struct fst_node *c = fst__graph_add(to, n->kind, here[n->input], &a, n->name);
    bool ok = c != NULL;
    for (int k = 0; ok && k < n->params; k++) {
        const struct fst_slot *t = &from->params[n->first_param + k];
        ok = fst__graph_add_param(to, c, leaf_of(n, t), t->shape, t->init, t->fan_in);
    }
    for (int k = 0; ok && k < n->buffers; k++) {
        const struct fst_slot *t = &from->buffers[n->first_buffer + k];
        ok = fst__graph_add_buffer(to, c, leaf_of(n, t), t->shape, t->init);
    }
    if (ok && n->counter >= 0)
        ok = fst__graph_add_counter(to, c);
    return fst__graph_made(to, c, ok);
}

/* ---- which layers --------------------------------------------------------------------------------------- */

bool fst_graph_int8_takes(const fst_graph *g, fst_value v, const char **why)
{
    const char *reason = NULL;
    const struct fst_node *n = &g->nodes[v];
    if (n->kind == FST_OP_COMPLEX_CONV2D || n->kind == FST_OP_COMPLEX_LINEAR)
        reason = "it computes with complex values";
    else if (n->kind != FST_OP_CONV2D && n->kind != FST_OP_LINEAR)
        reason = "only conv2d and linear layers have a form in int8";
    else if (fst__int8_depth(n) > FST__INT8_DEPTH)
        reason = "its sums have too many products for 32 bits";
    if (why)
        *why = reason;
    return !reason;
}

bool fst_graph_is_int8(const fst_graph *g)
{
    for (int i = 0; i < g->count; i++)
        if (fst__is_int8_layer(g->nodes[i].kind))
            return true;
    return false;
}

float fst_graph_int8_scale(const fst_graph *g, fst_value v, bool *is_unsigned)
{
    const struct fst_node *n = &g->nodes[v];
    if (!fst__is_int8_layer(n->kind))
        return 0;
    if (is_unsigned)
        *is_unsigned = n->in_int8.is_unsigned;
    return n->in_int8.scale;
}

static bool input_is_positive(const fst_graph *g, const struct fst_node *n)
{
    bool all = fst_graph_is_positive(g, n->input);
    for (int j = 0; j < n->nmore; j++)
        all = all && fst_graph_is_positive(g, n->more[j]);
    return all;
}

bool fst_graph_is_positive(const fst_graph *g, fst_value v)
{
    const struct fst_node *n = &g->nodes[v];
    switch (n->kind) {
    case FST_OP_RELU:
    case FST_OP_RELU6:
    case FST_OP_SIGMOID:
    case FST_OP_SOFTMAX:
    case FST_OP_MAGNITUDE:
        return n->planes == 1;
    case FST_OP_MAXPOOL2D:
    case FST_OP_AVGPOOL2D:
    case FST_OP_FLATTEN:
    case FST_OP_DROPOUT:
    case FST_OP_ADD:
    case FST_OP_CONCAT:
    case FST_OP_TRANSPOSE:
        return n->planes == 1 && input_is_positive(g, n);
    default:
        return false;
    }
}

/* The batch norm that alone reads a convolution; NULL: none. */
static const struct fst_node *norm_after(const fst_graph *g, const struct fst_node *n)
{
    if (n->kind != FST_OP_CONV2D || n->consumers != 1 || n->id == g->output)
        return NULL;
    for (int i = n->id + 1; i < g->count; i++)
        if (g->nodes[i].input == n->id && g->nodes[i].kind == FST_OP_BATCHNORM2D)
            return &g->nodes[i];
    return NULL;
}

/* ---- the graph -------------------------------------------------------------------------------------------- */

struct form { /* of a value, while the graph is made over */
    bool want_f32, want_int8;
    float scale;      /* as int8 */
    fst_value f32, q; /* in the new graph; -1: not there */
};

struct maker {
    fst_graph *to;
    const fst_graph *from;
    const float *scale; /* by layer; 0: it stays f32 */
    struct form *form;  /* by value of `from` */
    fst_value *here;    /* the f32 ones of them, by value */
};

/* The order of numbers is all that it looks at: it may as well act on rounded ones, with the same result. */
static bool may_follow(const struct fst_node *n)
{
    bool flat = n->kind == FST_OP_FLATTEN && n->out.rank < 3; /* images are rounded as images: channels may go last */
    return n->kind == FST_OP_MAXPOOL2D || n->kind == FST_OP_DROPOUT || flat;
}

static void want(struct form *f, float scale)
{
    if (scale > 0 && (!f->want_int8 || f->scale == scale)) {
        f->want_int8 = true;
        f->scale = scale;
    } else {
        f->want_f32 = true;
    }
}

/* From the last value to the first: in which forms each is read. */
static void find_forms(struct maker *m)
{
    const fst_graph *g = m->from;
    m->form[g->output].want_f32 = true;
    for (int i = g->count - 1; i >= g->inputs; i--) {
        const struct fst_node *n = &g->nodes[i];
        struct form *f = &m->form[i];
        bool follows = may_follow(n) && f->want_int8 && !f->want_f32 && g->nodes[n->input].consumers == 1;
        if (m->scale[i] > 0)
            want(&m->form[n->input], m->scale[i]);
        else
            want(&m->form[n->input], follows ? f->scale : 0);
        for (int j = 0; j < n->nmore; j++)
            m->form[n->more[j]].want_f32 = true;
    }
}

/* The value as int8, with this scale. */
static fst_value rounded(struct maker *m, int v, float scale)
{
    struct form *f = &m->form[v];
    if (f->q >= 0 && f->scale == scale)
        return f->q;
    return quantise(m->to, f->f32, scale, fst_graph_is_positive(m->from, v));
}

static void make_value(struct maker *m, int i)
{
    const fst_graph *g = m->from;
    const struct fst_node *n = &g->nodes[i];
    struct form *f = &m->form[i];
    const struct fst_node *conv = n->kind == FST_OP_BATCHNORM2D ? &g->nodes[n->input] : NULL;
    if (conv && m->scale[conv->id] > 0 && norm_after(g, conv) == n) {
        f->f32 = m->form[conv->id].f32; /* it went into the layer's weights */
    } else if (m->scale[i] > 0) {
        f->f32 = int8_layer(m->to, rounded(m, n->input, m->scale[i]), n, &g->params[n->first_param].shape);
    } else if (n->kind == FST_OP_DROPOUT) { /* changes nothing in inference */
        f->f32 = m->form[n->input].f32;
        f->q = m->form[n->input].q;
    } else if (n->input >= 0 && m->form[n->input].f32 < 0) {
        m->here[n->input] = m->form[n->input].q; /* one that may follow, on rounded values */
        f->q = fst__graph_same_node(m->to, g, n, m->here);
        return;
    } else {
        f->f32 = fst__graph_same_node(m->to, g, n, m->here);
    }
    m->here[i] = f->f32;
    if (f->want_int8 && f->q < 0)
        f->q = quantise(m->to, f->f32, f->scale, fst_graph_is_positive(g, i));
    if (f->q >= 0 && !f->want_f32)
        f->f32 = -1;
}

static fst_status check_scales(const fst_graph *g, const float *scale, fst_error *err)
{
    const char *why;
    int layers = 0;
    if (!g->finished || g->taps || g->inputs != 1 || fst_graph_is_int8(g))
        return fst_fail(err, FST_E_ARGUMENT, "int8 is made of a finished f32 graph of one input, without taps");
    for (int i = 0; i < g->count; i++) {
        if (scale[i] == 0)
            continue;
        if (!(scale[i] > 0) || !isfinite(scale[i]) || !isfinite(1 / scale[i]))
            return fst_fail(err, FST_E_ARGUMENT, "%s: a scale is a number above 0 that has an inverse, not %g",
                            g->nodes[i].name, (double)scale[i]);
        if (!fst_graph_int8_takes(g, i, &why))
            return fst_fail(err, FST_E_UNSUPPORTED, "%s \"%s\" cannot be int8: %s",
                            fst__op_types[g->nodes[i].kind]->name, g->nodes[i].name, why);
        layers++;
    }
    return layers ? FST_OK : fst_fail(err, FST_E_UNSUPPORTED, "no layer of this network has a form in int8");
}

fst_status fst_graph_int8(fst_graph **out, const fst_graph *g, const float *scale, fst_error *err)
{
    fst_graph *to = NULL;
    fst_status s = check_scales(g, scale, err);
    if (!s)
        s = fst_graph_new(&to, err);
    if (s)
        return s;
    size_t n = (size_t)g->count;
    struct maker m = {.to = to,
                      .from = g,
                      .scale = scale,
                      .form = fst_calloc(n, sizeof *m.form),
                      .here = fst_calloc(n, sizeof *m.here)};
    if (!m.form || !m.here) {
        s = fst_fail_memory(err, n * sizeof *m.form);
    } else {
        for (int i = 0; i < g->count; i++)
            m.form[i].f32 = m.form[i].q = m.here[i] = -1;
        find_forms(&m);
        for (int i = 0; i < g->count; i++)
            make_value(&m, i);
        s = fst_graph_finish(to, m.here[g->output], err);
    }
    fst_free(m.form);
    fst_free(m.here);
    if (s) {
        fst_graph_free(to);
        return s;
    }
    *out = to;
    return FST_OK;
}

/* ---- the state ---------------------------------------------------------------------------------------------- */

/* Row `o` of a layer's weights with the norm after it, rounded; its scale and bias. */
static void round_row(const fst_graph *g, const fst_state *s, const struct fst_node *n, int64_t o, float *weight,
                      float *scale, float *bias)
{
    const struct fst_node *norm = norm_after(g, n);
    fst_norm_affine a = {.a = {1}};
    size_t depth = (size_t)fst__int8_depth(n);
    const float *from = s->params + g->params[n->first_param].offset + (size_t)o * depth;
    double most = 0, shift = 0;
    if (norm)
        a = fst_graph_norm_affine(g, s, norm->id, o);
    if (n->params > 1)
        shift = (double)s->params[g->params[n->first_param + 1].offset + (size_t)o];
    for (size_t i = 0; i < depth; i++)
        most = fmax(most, fabs((double)from[i] * a.a[0]));
    *scale = fst__int8_weight_scale(most);
    for (size_t i = 0; i < depth; i++)
        weight[i] = (float)fmin(fmax(nearbyint((double)from[i] * a.a[0] / (double)*scale), -127), 127) + 0.0F;
    *bias = (float)((shift - a.mean[0]) * a.a[0] + a.bias[0]);
}

static const struct fst_node *node_named(const fst_graph *g, const char *name)
{
    for (int i = g->inputs; i < g->count; i++)
        if (!strcmp(g->nodes[i].name, name))
            return &g->nodes[i];
    return NULL;
}

static void copy_node(const fst_graph *q, fst_state *to, const struct fst_node *n, const fst_graph *g,
                      const fst_state *s, const struct fst_node *from)
{
    for (int k = 0; k < n->params; k++)
        memcpy(to->params + q->params[n->first_param + k].offset, s->params + g->params[from->first_param + k].offset,
               q->params[n->first_param + k].count * sizeof(float));
    for (int k = 0; k < n->buffers; k++)
        memcpy(to->buffers + q->buffers[n->first_buffer + k].offset,
               s->buffers + g->buffers[from->first_buffer + k].offset,
               q->buffers[n->first_buffer + k].count * sizeof(float));
    if (n->counter >= 0)
        to->counters[n->counter] = s->counters[from->counter];
}

void fst_state_int8(fst_state *to, const fst_graph *q, const fst_state *s, const fst_graph *g)
{
    for (int i = q->inputs; i < q->count; i++) {
        const struct fst_node *n = &q->nodes[i], *from = n->params ? node_named(g, n->name) : NULL;
        if (!from)
            continue;
        if (!fst__is_int8_layer(n->kind)) {
            copy_node(q, to, n, g, s, from);
            continue;
        }
        float *span[3];
        for (int k = 0; k < 3; k++)
            span[k] = to->params + q->params[n->first_param + k].offset;
        for (int64_t o = 0; o < (int64_t)q->params[n->first_param + 1].count; o++)
            round_row(g, s, from, o, span[0] + (size_t)(o * fst__int8_depth(n)), &span[1][o], &span[2][o]);
    }
}

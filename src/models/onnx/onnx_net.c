/* Walks the nodes that lead to the output, in the file's order. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "onnx_net.h"

/* ---- names ---------------------------------------------------------------------------------------------- */

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct fst__net_value *)a)->name, ((const struct fst__net_value *)b)->name);
}

static struct fst__net_value *find(const struct fst__net *n, const char *name)
{
    struct fst__net_value key = {.name = name};
    return bsearch(&key, n->values, n->value_count, sizeof key, by_name);
}

static void name_value(struct fst__net *n, const char *name, int maker)
{
    if (name && name[0])
        n->values[n->value_count++] = (struct fst__net_value){.name = name, .maker = maker};
}

/* Every value of the graph by its name, each once. Initialisers may stand among the inputs too. */
static fst_status name_values(struct fst__net *n, fst_error *err)
{
    const Onnx__Graph *g = n->file->model->graph;
    fst_status s = FST_OK;
    size_t count = g->n_initializer + g->n_input;
    for (size_t i = 0; i < g->n_node; i++)
        count += g->node[i]->n_output;
    n->values = fst__onnx_array(n->file, count, sizeof *n->values, &s, err);
    if (s)
        return s;
    for (size_t i = 0; i < g->n_initializer; i++)
        name_value(n, g->initializer[i]->name, -1);
    for (size_t i = 0; i < g->n_node; i++)
        for (size_t k = 0; k < g->node[i]->n_output; k++)
            name_value(n, g->node[i]->output[k], (int)i);
    qsort(n->values, n->value_count, sizeof *n->values, by_name);
    for (size_t i = 1; i < n->value_count; i++)
        if (!strcmp(n->values[i].name, n->values[i - 1].name))
            return fst_fail(err, FST_E_FORMAT, "%s: the value \"%.100s\" is made twice", n->file->name,
                            n->values[i].name);
    for (size_t i = 0; i < g->n_initializer; i++) {
        const Onnx__Tensor *t = g->initializer[i];
        struct fst__net_value *v = t->name && t->name[0] ? find(n, t->name) : NULL;
        if (!v)
            continue;
        v->kind = FST__VALUE_TENSOR;
        v->tensor = (struct fst__onnx_tensor){.t = t, .shape = {.rank = (int)t->n_dims}};
        fst__onnx_copy(v->tensor.shape.dim, t->dims, t->n_dims);
    }
    return FST_OK;
}

const char *fst__net_name(const struct fst__net_layer *l)
{
    const Onnx__Node *n = l->node;
    if (!n)
        return "input";
    return n->name && n->name[0] ? n->name : n->n_output && n->output[0] ? n->output[0] : "(without a name)";
}

/* ---- for the operators ---------------------------------------------------------------------------------------- */

fst_status fst__net_refuse(const struct fst__net_node *n, const char *fmt, ...)
{
    char text[400];
    struct fst__net_layer l = {.node = n->node};
    va_list args;
    va_start(args, fmt);
    vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return fst_fail(n->err, FST_E_UNSUPPORTED, "%s: node \"%.150s\" (%.40s): %s", n->net->file->name, fst__net_name(&l),
                    n->node->op_type ? n->node->op_type : "", text);
}

const Onnx__Attribute *fst__net_attribute(const struct fst__net_node *n, const char *name)
{
    for (size_t i = 0; i < n->node->n_attribute; i++)
        if (n->node->attribute[i]->name && !strcmp(n->node->attribute[i]->name, name))
            return n->node->attribute[i];
    return NULL;
}

int64_t fst__net_int(const struct fst__net_node *n, const char *name, int64_t fallback)
{
    const Onnx__Attribute *a = fst__net_attribute(n, name);
    return a && a->has_i ? a->i : fallback;
}

fst_status fst__net_ints(const struct fst__net_node *n, const char *name, int64_t *out, int count, int64_t fallback)
{
    const Onnx__Attribute *a = fst__net_attribute(n, name);
    for (int i = 0; !a && i < count; i++)
        out[i] = fallback;
    if (a && a->n_ints != (size_t)count)
        return fst__net_refuse(n, "its %s are %zu, %d are read: two-dimensional pictures", name, a->n_ints, count);
    if (a)
        memcpy(out, a->ints, (size_t)count * sizeof *out);
    return FST_OK;
}

struct fst__net_value *fst__net_input(const struct fst__net_node *n, size_t i)
{
    if (i >= n->node->n_input || !n->node->input[i][0])
        return NULL;
    return find(n->net, n->node->input[i]);
}

static fst_status no_input(const struct fst__net_node *n, size_t i, const char *wanted)
{
    if (i >= n->node->n_input || !n->node->input[i][0])
        return fst__net_refuse(n, "its input %zu is missing", i);
    return fst__net_refuse(n, "its input \"%.100s\" is not %s", n->node->input[i], wanted);
}

fst_status fst__net_layer_input(const struct fst__net_node *n, size_t i, int *layer)
{
    const struct fst__net_value *v = fst__net_input(n, i);
    if (!v || v->kind != FST__VALUE_LAYER)
        return no_input(n, i, "a value of the network");
    enum fst__net_kind kind = n->net->layers[v->layer].kind;
    bool conv = n->node->op_type && !strcmp(n->node->op_type, "Conv");
    if (kind == FST__NET_SOFTMAX || (kind == FST__NET_PAD && !conv))
        return fst__net_refuse(n, "it reads \"%.100s\", and %s", v->name,
                               kind == FST__NET_PAD ? "a Pad may stand before a Conv only"
                                                    : "a softmax may stand at the end only");
    *layer = v->layer;
    return FST_OK;
}

fst_status fst__net_tensor_input(const struct fst__net_node *n, size_t i, struct fst__onnx_tensor *out)
{
    const struct fst__net_value *v = fst__net_input(n, i);
    if (!v || v->kind != FST__VALUE_TENSOR || !fst__onnx_is_float(&v->tensor))
        return no_input(n, i,
                        "a constant of floating-point numbers (weights that are computed, or quantised, are not read)");
    *out = v->tensor;
    return FST_OK;
}

fst_status fst__net_list_input(const struct fst__net_node *n, size_t i, int64_t out[FST__NET_LIST], int *length)
{
    const struct fst__net_value *v = fst__net_input(n, i);
    int count = -1;
    if (v && v->kind == FST__VALUE_TENSOR && v->tensor.shape.rank <= 1)
        count = fst__onnx_integers(&v->tensor, out, FST__NET_LIST);
    if (v && v->kind == FST__VALUE_LIST) {
        count = v->length;
        memcpy(out, v->list, sizeof v->list);
    }
    if (count < 0)
        return no_input(n, i, "a list of integers that is known before the network runs");
    *length = count;
    return FST_OK;
}

fst_status fst__net_add(const struct fst__net_node *n, enum fst__net_kind kind, int in, struct fst__net_layer **out)
{
    struct fst__net *net = n->net;
    struct fst__net_layer *l = &net->layers[net->count];
    *l = (struct fst__net_layer){.kind = kind, .in = {in, -1}, .node = n->node, .groups = 1};
    if (in >= 0)
        l->out = net->layers[in].out;
    n->out->kind = FST__VALUE_LAYER;
    n->out->layer = net->count++;
    if (out)
        *out = l;
    return FST_OK;
}

/* ---- the input ------------------------------------------------------------------------------------------------ */

static fst_status only_one(const struct fst__net *n, const char *what, size_t count, fst_error *err)
{
    return count == 1 ? FST_OK
                      : fst_fail(err, FST_E_UNSUPPORTED, "%s: a graph of %zu %s; networks here have one", n->file->name,
                                 count, what);
}

/* The sample's shape from the file; 0 where it leaves a size open. */
static fst_status declared(struct fst__net *n, const Onnx__Value *v, fst_shape *out, fst_error *err)
{
    const Onnx__TensorType *t = v->type ? v->type->tensor_type : NULL;
    const Onnx__Shape *shape = t ? t->shape : NULL;
    fst_shape sample = {0};
    if (t && t->has_elem_type && t->elem_type != FST__ONNX_FLOAT)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: its input \"%.100s\" is not of f32 (type %d)", n->file->name,
                        v->name ? v->name : "", (int)t->elem_type);
    if (shape && (shape->n_dim < 2 || shape->n_dim > 5))
        return fst_fail(err, FST_E_UNSUPPORTED,
                        "%s: its input has %zu dimensions; a batch of samples of 1 to 4 is read", n->file->name,
                        shape->n_dim);
    for (size_t i = 0; shape && i < shape->n_dim; i++) {
        const Onnx__Dimension *d = shape->dim[i];
        int64_t size = d->has_dim_value && d->dim_value > 0 ? d->dim_value : 0;
        if (size > 1 << 24)
            return fst_fail(err, FST_E_LIMIT, "%s: its input has a dimension of %lld", n->file->name, (long long)size);
        if (i == 0)
            n->batch = size;
        else
            sample.dim[sample.rank++] = size;
    }
    *out = sample;
    return FST_OK;
}

static fst_status read_input(struct fst__net *n, const fst_shape *wanted, fst_error *err)
{
    const Onnx__Graph *g = n->file->model->graph;
    const Onnx__Value *input = NULL;
    size_t count = 0;
    for (size_t i = 0; i < g->n_input; i++) {
        const char *name = g->input[i]->name;
        if (name && name[0] && !find(n, name)) { /* no initialiser */
            count++;
            input = g->input[i];
        }
    }
    fst_shape shape = {0};
    fst_status s = only_one(n, "inputs", count, err);
    if (!s)
        s = declared(n, input, &shape, err);
    if (s)
        return s;
    bool open = shape.rank == 0;
    for (int i = 0; i < shape.rank; i++)
        open = open || !shape.dim[i];
    if (wanted->rank)
        shape = *wanted;
    else if (open)
        return fst_fail(err, FST_E_CONFIG,
                        "%s leaves sizes of its input open: give the shape of a sample, such as 3,32,32",
                        n->file->name);
    if (fst_shape_count(&shape) < 1 || fst_shape_count(&shape) > INT32_MAX)
        return fst_fail(err, FST_E_LIMIT, "%s: a sample of more than %d values", n->file->name, INT32_MAX);
    n->layers[0] = (struct fst__net_layer){.kind = FST__NET_INPUT, .in = {-1, -1}, .out = shape};
    n->count = 1;
    name_value(n, input->name, -1);
    n->values[n->value_count - 1].kind = FST__VALUE_LAYER;
    qsort(n->values, n->value_count, sizeof *n->values, by_name);
    return FST_OK;
}

/* ---- nodes ------------------------------------------------------------------------------------------------------ */

/* From the output backwards. Values may only be read after the node that makes them. */
static fst_status find_needed(struct fst__net *n, int output_node, fst_error *err)
{
    const Onnx__Graph *g = n->file->model->graph;
    fst_status s = FST_OK;
    n->needed = fst__onnx_array(n->file, g->n_node, sizeof *n->needed, &s, err);
    if (s)
        return s;
    n->needed[output_node] = true;
    for (int i = output_node; i >= 0; i--)
        for (size_t k = 0; n->needed[i] && k < g->node[i]->n_input; k++) {
            const char *name = g->node[i]->input[k];
            const struct fst__net_value *v = name[0] ? find(n, name) : NULL;
            if (name[0] && (!v || v->maker >= i))
                return fst_fail(err, FST_E_FORMAT, "%s: a node (%.40s) reads \"%.100s\", which nothing before it makes",
                                n->file->name, g->node[i]->op_type ? g->node[i]->op_type : "", name);
            if (v && v->maker >= 0)
                n->needed[v->maker] = true;
        }
    return FST_OK;
}

static const struct fst__net_op *find_op(const char *name)
{
    const struct fst__net_op *const tables[] = {fst__net_layers, fst__net_shapes};
    for (int t = 0; t < 2; t++)
        for (const struct fst__net_op *op = tables[t]; op->name; op++)
            if (!strcmp(op->name, name))
                return op;
    return NULL;
}

static fst_status read_node(struct fst__net *n, const Onnx__Node *node, fst_error *err)
{
    struct fst__net_node at = {.net = n, .node = node, .err = err};
    const char *domain = node->domain ? node->domain : "";
    const struct fst__net_op *op = node->op_type ? find_op(node->op_type) : NULL;
    if (!op || (domain[0] && strcmp(domain, "ai.onnx")))
        return fst__net_refuse(&at,
                               "%s%.40sis no operator of the networks here; those are Conv, Gemm, MatMul, Add, "
                               "BatchNormalization, Relu, Clip to 0 ... 6, pooling, and what only moves values",
                               domain, domain[0] ? ": " : "");
    if (!node->n_output || !node->output[0][0])
        return fst__net_refuse(&at, "it makes nothing");
    at.out = find(n, node->output[0]);
    return op->read(&at);
}

fst_status fst__net_read(struct fst__net *n, struct fst__onnx_file *f, const fst_shape *input, fst_error *err)
{
    const Onnx__Graph *g = f->model->graph;
    fst_status s = FST_OK;
    *n = (struct fst__net){.file = f};
    n->layers = fst__onnx_array(f, 2 * g->n_node + 1, sizeof *n->layers, &s, err); /* a node is two at most */
    if (!s)
        s = name_values(n, err);
    if (!s)
        s = read_input(n, input, err);
    if (!s)
        s = only_one(n, "outputs", g->n_output, err);
    const char *name = !s && g->output[0]->name ? g->output[0]->name : "";
    const struct fst__net_value *out = s ? NULL : find(n, name);
    if (!s && (!out || out->maker < 0))
        s = fst_fail(err, FST_E_FORMAT, "%s: no node makes its output \"%.100s\"", f->name, name);
    if (!s)
        s = find_needed(n, out->maker, err);
    for (size_t i = 0; !s && i < g->n_node; i++)
        if (n->needed[i])
            s = read_node(n, g->node[i], err);
    if (!s && out->kind != FST__VALUE_LAYER)
        s = fst_fail(err, FST_E_UNSUPPORTED, "%s: its output does not depend on its input", f->name);
    if (!s) {
        n->output = out->layer;
        n->softmax = n->layers[n->output].kind == FST__NET_SOFTMAX;
        n->output = n->softmax ? n->layers[n->output].in[0] : n->output;
    }
    if (s)
        fst__net_release(n);
    return s;
}

void fst__net_release(struct fst__net *n)
{
    fst_free(n->layers);
    fst_free(n->values);
    fst_free(n->needed);
    *n = (struct fst__net){0};
}

/* ---- in words ------------------------------------------------------------------------------------------------------
 */

static const char *of_window(const struct fst__net_layer *l, char *out, size_t size)
{
    bool padded = l->pads[0] || l->pads[1] || l->pads[2] || l->pads[3];
    int at = snprintf(out, size, "%lldx%lld, stride %lld", (long long)l->kernel[0], (long long)l->kernel[1],
                      (long long)l->stride[0]);
    if (l->stride[0] != l->stride[1])
        at += snprintf(out + at, size - (size_t)at, "x%lld", (long long)l->stride[1]);
    if (padded)
        snprintf(out + at, size - (size_t)at, ", padding %lld,%lld,%lld,%lld", (long long)l->pads[0],
                 (long long)l->pads[1], (long long)l->pads[2], (long long)l->pads[3]);
    return out;
}

const char *fst__net_describe(const struct fst__net *n, int layer, char *out, size_t size)
{
    static const char *const plain[] = {
        [FST__NET_INPUT] = "the input",      [FST__NET_NORM] = "a batch norm", [FST__NET_RELU] = "a ReLU",
        [FST__NET_RELU6] = "a ReLU6",        [FST__NET_ADD] = "an addition",   [FST__NET_MAXPOOL] = "max pooling",
        [FST__NET_AVGPOOL] = "mean pooling", [FST__NET_RESHAPE] = "a reshape", [FST__NET_SOFTMAX] = "a softmax",
        [FST__NET_PAD] = "padding",
    };
    const struct fst__net_layer *l = &n->layers[layer];
    char window[120];
    if (l->kind == FST__NET_CONV)
        snprintf(out, size, "a convolution %s, %lld to %lld channels%s", of_window(l, window, sizeof window),
                 (long long)(l->tensor[0].shape.dim[1] * l->groups), (long long)l->out.dim[0],
                 l->groups > 1 ? ", in groups" : "");
    else if (l->kind == FST__NET_LINEAR)
        snprintf(out, size, "a linear layer, %lld to %lld", (long long)l->tensor[0].shape.dim[1],
                 (long long)l->out.dim[0]);
    else if (l->kind == FST__NET_MAXPOOL || l->kind == FST__NET_AVGPOOL)
        snprintf(out, size, "%s %s", plain[l->kind], of_window(l, window, sizeof window));
    else
        snprintf(out, size, "%s", plain[l->kind]);
    return out;
}

/* Operators that are layers of the engine: their attributes and weights, checked, and the shapes they make. */
#include <stdio.h>
#include <string.h>

#include "onnx_net.h"

enum { MOST = 1 << 14 }; /* kernel, stride, padding */

static struct fst__net_layer *layer_at(const struct fst__net_node *n, int i)
{
    return &n->net->layers[i];
}

/* ---- windows ---------------------------------------------------------------------------------------------------- */

static fst_status automatic_padding(const struct fst__net_node *n, const fst_shape *in, struct fst__net_layer *l)
{
    const Onnx__Attribute *a = fst__net_attribute(n, "auto_pad");
    char mode[16] = "NOTSET";
    if (a && a->has_s && a->s.len < sizeof mode) {
        snprintf(mode, sizeof mode, "%.*s", (int)a->s.len, a->s.len ? (const char *)a->s.data : "");
    }
    if (!strcmp(mode, "NOTSET"))
        return fst__net_ints(n, "pads", l->pads, 4, 0);
    memset(l->pads, 0, sizeof l->pads);
    if (!strcmp(mode, "VALID"))
        return FST_OK;
    if (strcmp(mode, "SAME_UPPER") && strcmp(mode, "SAME_LOWER"))
        return fst__net_refuse(n, "auto_pad %s is not known", mode);
    for (int i = 0; i < 2; i++) {
        int64_t size = in->dim[1 + i], out = (size + l->stride[i] - 1) / l->stride[i];
        int64_t more = (out - 1) * l->stride[i] + l->kernel[i] - size;
        more = more > 0 ? more : 0;
        l->pads[i] = !strcmp(mode, "SAME_UPPER") ? more / 2 : more - more / 2;
        l->pads[2 + i] = more - l->pads[i];
    }
    return FST_OK;
}

/* Strides, padding and the picture that comes out; kernel and channels are known. */
static fst_status window(const struct fst__net_node *n, const fst_shape *in, const int64_t extra[4], int64_t channels,
                         struct fst__net_layer *l)
{
    int64_t dilations[2];
    fst_status s = fst__net_ints(n, "strides", l->stride, 2, 1);
    if (!s)
        s = fst__net_ints(n, "dilations", dilations, 2, 1);
    for (int i = 0; !s && i < 2; i++)
        if (l->stride[i] < 1 || l->stride[i] > MOST || l->kernel[i] < 1 || l->kernel[i] > MOST)
            s = fst__net_refuse(n, "kernel and stride must be 1 to %d", MOST);
        else if (dilations[i] != 1)
            s = fst__net_refuse(n, "dilation %lld; only 1 is here", (long long)dilations[i]);
    if (!s)
        s = automatic_padding(n, in, l);
    l->out = FST_SHAPE(channels, 0, 0);
    for (int i = 0; !s && i < 4; i++) {
        if (l->pads[i] < 0 || l->pads[i] > MOST)
            return fst__net_refuse(n, "padding must be 0 to %d", MOST);
        l->pads[i] += extra[i];
    }
    for (int i = 0; !s && i < 2; i++) {
        int64_t free = in->dim[1 + i] + l->pads[i] + l->pads[2 + i] - l->kernel[i];
        if (free < 0)
            return fst__net_refuse(n, "a window of %lld does not fit a picture of %lld", (long long)l->kernel[i],
                                   (long long)in->dim[1 + i]);
        if (fst__net_int(n, "ceil_mode", 0) && free % l->stride[i])
            return fst__net_refuse(n,
                                   "ceil_mode makes a window over the edge of a picture of %lld; sizes round down here",
                                   (long long)in->dim[1 + i]);
        l->out.dim[1 + i] = free / l->stride[i] + 1;
    }
    return s;
}

static fst_status picture(const struct fst__net_node *n, int in)
{
    const fst_shape *s = &layer_at(n, in)->out;
    return s->rank == 3
               ? FST_OK
               : fst__net_refuse(n, "it reads samples of rank %d; (channels, height, width) is needed", s->rank);
}

/* A layer's weights, and its bias unless that is NULL: its second and third input. */
static fst_status weights_of(const struct fst__net_node *n, struct fst__onnx_tensor *w, struct fst__onnx_tensor *bias)
{
    fst_status s = fst__net_tensor_input(n, 1, w);
    return s || !bias ? s : fst__net_tensor_input(n, 2, bias);
}

static fst_status conv(const struct fst__net_node *n)
{
    static const int64_t none[4] = {0};
    struct fst__net_layer *l;
    struct fst__onnx_tensor w = {0}, b = {0};
    int64_t kernel[2], groups = fst__net_int(n, "group", 1);
    bool bias = fst__net_input(n, 2);
    int in;
    fst_status s = fst__net_layer_input(n, 0, &in);
    if (!s)
        s = picture(n, in);
    if (!s)
        s = weights_of(n, &w, bias ? &b : NULL);
    if (s)
        return s;
    const struct fst__net_layer *from = layer_at(n, in);
    const int64_t *extra = from->kind == FST__NET_PAD ? from->pads : none;
    in = from->kind == FST__NET_PAD ? from->in[0] : in;
    const fst_shape *shape = &layer_at(n, in)->out;
    if (w.shape.rank != 4 || fst_shape_count(&w.shape) < 1)
        return fst__net_refuse(n, "weights of rank %d; two-dimensional ones have 4", w.shape.rank);
    if (groups < 1 || groups > shape->dim[0] || shape->dim[0] != w.shape.dim[1] * groups || w.shape.dim[0] % groups)
        return fst__net_refuse(n, "weights for %lld channels in %lld groups do not fit a picture of %lld channels",
                               (long long)w.shape.dim[1], (long long)groups, (long long)shape->dim[0]);
    if (bias && fst_shape_count(&b.shape) != w.shape.dim[0])
        return fst__net_refuse(n, "its bias does not fit its %lld channels", (long long)w.shape.dim[0]);
    s = fst__net_ints(n, "kernel_shape", kernel, 2, 0);
    if (!s && kernel[0] && (kernel[0] != w.shape.dim[2] || kernel[1] != w.shape.dim[3]))
        s = fst__net_refuse(n, "kernel_shape is not that of its weights");
    if (!s)
        s = fst__net_add(n, FST__NET_CONV, in, &l);
    if (s)
        return s;
    l->groups = groups;
    l->kernel[0] = w.shape.dim[2];
    l->kernel[1] = w.shape.dim[3];
    l->tensor[0] = w;
    l->tensor[1] = b;
    l->tensors = bias ? 2 : 1;
    return window(n, shape, extra, w.shape.dim[0], l);
}

static fst_status pool(const struct fst__net_node *n, enum fst__net_kind kind)
{
    static const int64_t none[4] = {0};
    struct fst__net_layer *l;
    int in;
    fst_status s = fst__net_layer_input(n, 0, &in);
    if (!s)
        s = picture(n, in);
    if (!s)
        s = fst__net_add(n, kind, in, &l);
    if (!s)
        s = fst__net_ints(n, "kernel_shape", l->kernel, 2, 0);
    if (!s)
        s = window(n, &layer_at(n, in)->out, none, layer_at(n, in)->out.dim[0], l);
    if (!s)
        l->count_padding = fst__net_int(n, "count_include_pad", 0) != 0;
    return s;
}

static fst_status max_pool(const struct fst__net_node *n)
{
    return pool(n, FST__NET_MAXPOOL);
}

static fst_status average_pool(const struct fst__net_node *n)
{
    return pool(n, FST__NET_AVGPOOL);
}

/* The mean over the whole picture; *l is the layer of it. */
static fst_status whole_picture(const struct fst__net_node *n, struct fst__net_layer **l)
{
    int in;
    fst_status s = fst__net_layer_input(n, 0, &in);
    if (!s)
        s = picture(n, in);
    if (!s)
        s = fst__net_add(n, FST__NET_AVGPOOL, in, l);
    if (s)
        return s;
    for (int i = 0; i < 2; i++) {
        (*l)->kernel[i] = (*l)->stride[i] = (*l)->out.dim[1 + i];
        (*l)->out.dim[1 + i] = 1;
    }
    return FST_OK;
}

static fst_status global_pool(const struct fst__net_node *n)
{
    struct fst__net_layer *l;
    return whole_picture(n, &l);
}

static fst_status reduce_mean(const struct fst__net_node *n)
{
    struct fst__net_layer *l;
    const Onnx__Attribute *a = fst__net_attribute(n, "axes");
    int64_t axes[FST__NET_LIST] = {0};
    int count = 0;
    fst_status s = FST_OK;
    if (fst__net_input(n, 1))
        s = fst__net_list_input(n, 1, axes, &count);
    else if (a && a->n_ints <= FST__NET_LIST)
        fst__onnx_copy(axes, a->ints, (size_t)(count = (int)a->n_ints));
    if (s)
        return s;
    for (int i = 0; i < count && i < 2; i++)
        axes[i] += axes[i] < 0 ? 4 : 0;
    if (count != 2 || axes[0] + axes[1] != 5 || axes[0] < 2 || axes[1] < 2)
        return fst__net_refuse(n, "means are taken over height and width here (axes 2 and 3)");
    s = whole_picture(n, &l);
    if (!s && !fst__net_int(n, "keepdims", 1)) {
        fst_shape flat = FST_SHAPE(l->out.dim[0]);
        s = fst__net_add(n, FST__NET_RESHAPE, n->out->layer, &l);
        if (!s)
            l->out = flat;
    }
    return s;
}

/* ---- matrices -----------------------------------------------------------------------------------------------------
 */

/* A linear layer; `w` is (out, in). */
static fst_status linear(const struct fst__net_node *n, int in, const struct fst__onnx_tensor *w)
{
    struct fst__net_layer *l;
    const fst_shape *from = &layer_at(n, in)->out;
    if (from->rank != 1 || w->shape.rank != 2 || w->shape.dim[1] != from->dim[0] || w->shape.dim[0] < 1)
        return fst__net_refuse(n, "samples of rank %d and weights of rank %d, %lld to %lld, do not fit: flatten before",
                               from->rank, w->shape.rank, (long long)w->shape.dim[1], (long long)w->shape.dim[0]);
    fst_status s = fst__net_add(n, FST__NET_LINEAR, in, &l);
    if (s)
        return s;
    l->out = FST_SHAPE(w->shape.dim[0]);
    l->tensor[0] = *w;
    l->tensors = 1;
    return FST_OK;
}

static void turn(struct fst__onnx_tensor *t)
{
    int64_t rows = t->shape.dim[0];
    t->shape.dim[0] = t->shape.dim[1];
    t->shape.dim[1] = rows;
    t->transposed = !t->transposed;
}

static bool is_one(const struct fst__net_node *n, const char *name)
{
    const Onnx__Attribute *a = fst__net_attribute(n, name);
    return !a || !a->has_f || a->f == 1;
}

static fst_status gemm(const struct fst__net_node *n)
{
    struct fst__onnx_tensor w = {0}, b = {0};
    int in;
    bool bias = fst__net_input(n, 2);
    fst_status s = fst__net_layer_input(n, 0, &in);
    if (!s)
        s = weights_of(n, &w, bias ? &b : NULL);
    if (s)
        return s;
    if (!is_one(n, "alpha") || !is_one(n, "beta") || fst__net_int(n, "transA", 0))
        return fst__net_refuse(n, "alpha and beta must be 1, transA 0");
    if (!fst__net_int(n, "transB", 0) && w.shape.rank == 2)
        turn(&w);
    s = linear(n, in, &w);
    if (!s && bias &&
        (b.shape.rank < 1 || fst_shape_count(&b.shape) != w.shape.dim[0] ||
         b.shape.dim[b.shape.rank - 1] != w.shape.dim[0]))
        s = fst__net_refuse(n, "its bias does not fit its %lld outputs", (long long)w.shape.dim[0]);
    if (!s && bias) {
        layer_at(n, n->out->layer)->tensor[1] = b;
        layer_at(n, n->out->layer)->tensors = 2;
    }
    return s;
}

static fst_status matmul(const struct fst__net_node *n)
{
    struct fst__onnx_tensor w = {0};
    int in;
    fst_status s = fst__net_layer_input(n, 0, &in);
    if (!s)
        s = fst__net_tensor_input(n, 1, &w);
    if (s)
        return s;
    if (w.shape.rank == 2)
        turn(&w);
    return linear(n, in, &w);
}

/* A constant that is added: the bias of a layer that has none yet. */
static fst_status late_bias(const struct fst__net_node *n, size_t from, size_t constant)
{
    struct fst__onnx_tensor b = {0};
    struct fst__net_layer *l;
    int in;
    fst_status s = fst__net_layer_input(n, from, &in);
    if (!s)
        s = fst__net_tensor_input(n, constant, &b);
    if (s)
        return s;
    const struct fst__net_layer *to = layer_at(n, in);
    bool is_conv = to->kind == FST__NET_CONV, takes = is_conv || to->kind == FST__NET_LINEAR;
    int last = is_conv ? b.shape.rank - 3 : b.shape.rank - 1; /* the dimension of the channels */
    if (!takes || to->tensors != 1 || last < 0 || b.shape.dim[last] != to->out.dim[0] ||
        fst_shape_count(&b.shape) != to->out.dim[0])
        return fst__net_refuse(n, "it adds a constant; that is read as the bias of a Conv or MatMul without one");
    s = fst__net_add(n, to->kind, to->in[0], &l);
    if (s)
        return s;
    *l = *layer_at(n, in);
    l->tensor[1] = b;
    l->tensors = 2;
    return FST_OK;
}

static fst_status add(const struct fst__net_node *n)
{
    struct fst__net_layer *l;
    const struct fst__net_value *a = fst__net_input(n, 0), *b = fst__net_input(n, 1);
    int in[2];
    if (n->node->n_input != 2)
        return fst__net_refuse(n, "it adds %zu values; two is what layers here add", n->node->n_input);
    if (b && b->kind == FST__VALUE_TENSOR)
        return late_bias(n, 0, 1);
    if (a && a->kind == FST__VALUE_TENSOR)
        return late_bias(n, 1, 0);
    fst_status s = fst__net_layer_input(n, 0, &in[0]);
    if (!s)
        s = fst__net_layer_input(n, 1, &in[1]);
    if (s)
        return s;
    if (!fst_shape_equal(&layer_at(n, in[0])->out, &layer_at(n, in[1])->out))
        return fst__net_refuse(n, "it adds values of different shapes");
    s = fst__net_add(n, FST__NET_ADD, in[0], &l);
    if (!s)
        l->in[1] = in[1];
    return s;
}

/* ---- by element
 * ------------------------------------------------------------------------------------------------------ */

static fst_status norm(const struct fst__net_node *n)
{
    struct fst__onnx_tensor t[4] = {{0}};
    const Onnx__Attribute *eps = fst__net_attribute(n, "epsilon");
    struct fst__net_layer *l;
    int in;
    fst_status s = fst__net_layer_input(n, 0, &in);
    if (!s)
        s = picture(n, in);
    for (size_t i = 0; !s && i < 4; i++) {
        s = fst__net_tensor_input(n, 1 + i, &t[i]);
        if (!s && fst_shape_count(&t[i].shape) != layer_at(n, in)->out.dim[0])
            s = fst__net_refuse(n, "its input %zu does not fit %lld channels", 1 + i,
                                (long long)layer_at(n, in)->out.dim[0]);
    }
    if (!s && (fst__net_int(n, "training_mode", 0) || !fst__net_int(n, "spatial", 1)))
        s = fst__net_refuse(n, "it is in training mode, or not by channel: export the model in evaluation mode");
    if (!s)
        s = fst__net_add(n, FST__NET_NORM, in, &l);
    if (s)
        return s;
    memcpy(l->tensor, t, sizeof t);
    l->tensors = 4;
    l->eps = eps && eps->has_f ? eps->f : 1e-5F;
    return l->eps >= 0 && l->eps < 1 ? FST_OK : fst__net_refuse(n, "epsilon must be 0 to below 1");
}

static fst_status simple(const struct fst__net_node *n, enum fst__net_kind kind)
{
    int in;
    fst_status s = fst__net_layer_input(n, 0, &in);
    return s ? s : fst__net_add(n, kind, in, NULL);
}

static fst_status relu(const struct fst__net_node *n)
{
    return simple(n, FST__NET_RELU);
}

/* A limit of Clip, as an input or, in older opsets, as an attribute. */
static fst_status limit(const struct fst__net_node *n, size_t input, const char *name, float *out)
{
    const Onnx__Attribute *a = fst__net_attribute(n, name);
    struct fst__onnx_tensor t = {0};
    if (a && a->has_f)
        *out = a->f;
    if (!fst__net_input(n, input))
        return FST_OK;
    fst_status s = fst__net_tensor_input(n, input, &t);
    if (!s && fst_shape_count(&t.shape) != 1)
        s = fst__net_refuse(n, "its %s is not one number", name);
    if (!s)
        fst__onnx_floats(&t, out);
    return s;
}

static fst_status clip(const struct fst__net_node *n)
{
    float low = -3e38F, high = 3e38F;
    fst_status s = limit(n, 1, "min", &low);
    if (!s)
        s = limit(n, 2, "max", &high);
    if (!s && (low != 0 || !(high == 6 || high >= 3e38F)))
        s = fst__net_refuse(n, "it clips to %g ... %g; 0 ... 6 is what networks here have", (double)low, (double)high);
    return s ? s : simple(n, high == 6 ? FST__NET_RELU6 : FST__NET_RELU);
}

static fst_status softmax(const struct fst__net_node *n)
{
    int in;
    fst_status s = fst__net_layer_input(n, 0, &in);
    int64_t axis = fst__net_int(n, "axis", -1);
    if (!s && (layer_at(n, in)->out.rank != 1 || (axis != 1 && axis != -1)))
        s = fst__net_refuse(n, "a softmax may stand at the end only, over the classes");
    return s ? s : fst__net_add(n, FST__NET_SOFTMAX, in, NULL);
}

const struct fst__net_op fst__net_layers[] = {
    {"Conv", conv},
    {"Gemm", gemm},
    {"MatMul", matmul},
    {"Add", add},
    {"Sum", add},
    {"BatchNormalization", norm},
    {"Relu", relu},
    {"Clip", clip},
    {"MaxPool", max_pool},
    {"AveragePool", average_pool},
    {"GlobalAveragePool", global_pool},
    {"ReduceMean", reduce_mean},
    {"Softmax", softmax},
    {"LogSoftmax", softmax},
    {NULL, NULL},
};

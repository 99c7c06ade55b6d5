/* Operators that compute nothing: they name, move or reshape values, of the network or of constants, or say how large
 * something is. Sizes of the batch stay a sign (FST__NET_BATCH), so that graphs for one batch size serve any. */
#include <string.h>

#include "onnx_net.h"

static fst_status give_list(const struct fst__net_node *n, const int64_t *list, int length)
{
    n->out->kind = FST__VALUE_LIST;
    n->out->length = length;
    fst__onnx_copy(n->out->list, list, (size_t)length);
    return FST_OK;
}

static fst_status give_tensor(const struct fst__net_node *n, const struct fst__onnx_tensor *t)
{
    n->out->kind = FST__VALUE_TENSOR;
    n->out->tensor = *t;
    return FST_OK;
}

/* ---- the same value ------------------------------------------------------------------------------------------ */

static fst_status identity(const struct fst__net_node *n)
{
    const struct fst__net_value *v = fst__net_input(n, 0);
    if (!v || v->kind == FST__VALUE_NONE)
        return fst__net_refuse(n, "its input is missing, or a further output of another node");
    n->out->kind = v->kind;
    n->out->tensor = v->tensor;
    n->out->layer = v->layer;
    n->out->length = v->length;
    memcpy(n->out->list, v->list, sizeof v->list);
    return FST_OK;
}

static fst_status cast(const struct fst__net_node *n)
{
    const struct fst__net_value *v = fst__net_input(n, 0);
    int64_t to = fst__net_int(n, "to", 0);
    bool is_float = to == FST__ONNX_FLOAT;
    if (!v || (v->kind == FST__VALUE_LAYER && !is_float) ||
        (v->kind == FST__VALUE_LIST && to != FST__ONNX_INT64 && to != FST__ONNX_INT32) ||
        (v->kind == FST__VALUE_TENSOR && is_float != fst__onnx_is_float(&v->tensor)))
        return fst__net_refuse(n, "it changes the type of its values (to type %lld); the network must compute in f32",
                               (long long)to);
    return identity(n);
}

static fst_status constant(const struct fst__net_node *n)
{
    static const char *const names[] = {"value", "value_float", "value_int", "value_ints"};
    for (int i = 0; i < 4; i++) {
        const Onnx__Attribute *a = fst__net_attribute(n, names[i]);
        struct fst__onnx_tensor t = {.t = NULL};
        if (!a)
            continue;
        if (i == 0 && a->t) {
            t.t = a->t;
            t.shape.rank = (int)a->t->n_dims;
            fst__onnx_copy(t.shape.dim, a->t->dims, a->t->n_dims);
            return give_tensor(n, &t);
        }
        if (i == 1) {
            t.number = a->f;
            return give_tensor(n, &t);
        }
        if (i == 2)
            return give_list(n, &a->i, 1);
        if (i == 3 && a->n_ints <= FST__NET_LIST)
            return give_list(n, a->ints, (int)a->n_ints);
    }
    return fst__net_refuse(n, "it holds no dense tensor and no numbers");
}

/* ---- shapes ---------------------------------------------------------------------------------------------------- */

/* The same values of a sample as another shape. */
static fst_status reshaped(const struct fst__net_node *n, int in, const fst_shape *to)
{
    struct fst__net_layer *l;
    while (n->net->layers[in].kind == FST__NET_RESHAPE) /* only the last of several counts */
        in = n->net->layers[in].in[0];
    if (fst_shape_equal(&n->net->layers[in].out, to)) {
        n->out->kind = FST__VALUE_LAYER;
        n->out->layer = in;
        return FST_OK;
    }
    fst_status s = fst__net_add(n, FST__NET_RESHAPE, in, &l);
    if (!s)
        l->out = *to;
    return s;
}

/* A list of sizes, of which 0 copies one and -1 is what is left. The batch's own is the first. */
static fst_status resolve(const struct fst__net_node *n, const fst_shape *from, const int64_t *list, int length,
                          fst_shape *to)
{
    int64_t count = fst_shape_count(from), known = 1, first = length ? list[0] : 1;
    int open = -1;
    *to = (fst_shape){.rank = length - 1};
    if (length < 2 || length > 5)
        return fst__net_refuse(n, "it makes %d dimensions; a batch of samples of 1 to 4 is read", length);
    for (int i = 0; i < to->rank; i++) {
        int64_t size = list[1 + i];
        if (size == 0 && i < from->rank && !fst__net_int(n, "allowzero", 0))
            size = from->dim[i];
        if (size == -1 && open < 0)
            open = i;
        else if (size < 1 || size > count / known)
            return fst__net_refuse(n, "its shape does not fit, or depends on the batch's size");
        else
            known *= size;
        to->dim[i] = size;
    }
    if (open >= 0)
        to->dim[open] = count / known;
    bool batch = first == FST__NET_BATCH || first == 0 || (first == -1 && open < 0) ||
                 (first > 0 && (first == n->net->batch || open < 0));
    if (!batch || fst_shape_count(to) != count)
        return fst__net_refuse(n, "it mixes samples: the first dimension must stay the batch's");
    return FST_OK;
}

static fst_status reshape(const struct fst__net_node *n)
{
    const struct fst__net_value *v = fst__net_input(n, 0);
    const Onnx__Attribute *a = fst__net_attribute(n, "shape"); /* before opset 5 */
    int64_t list[FST__NET_LIST];
    int length = 0, in;
    fst_shape to;
    fst_status s = FST_OK;
    if (fst__net_input(n, 1))
        s = fst__net_list_input(n, 1, list, &length);
    else if (a && a->n_ints <= FST__NET_LIST)
        fst__onnx_copy(list, a->ints, (size_t)(length = (int)a->n_ints));
    if (s)
        return s;
    if (v && v->kind == FST__VALUE_TENSOR) {
        struct fst__onnx_tensor t = v->tensor;
        t.shape = (fst_shape){.rank = length};
        int64_t known = 1;
        for (int i = 0; i < length && i < FST_MAX_RANK; i++) {
            t.shape.dim[i] = list[i] == 0 && i < v->tensor.shape.rank ? v->tensor.shape.dim[i] : list[i];
            known *= t.shape.dim[i] > 0 && known < 1 << 30 && t.shape.dim[i] < 1 << 30 ? t.shape.dim[i] : 1;
        }
        for (int i = 0; i < length && i < FST_MAX_RANK; i++)
            if (t.shape.dim[i] == -1)
                t.shape.dim[i] = fst_shape_count(&v->tensor.shape) / known;
        if (length > FST_MAX_RANK || v->tensor.transposed ||
            fst_shape_count(&t.shape) != fst_shape_count(&v->tensor.shape))
            return fst__net_refuse(n, "its shape does not fit the constant");
        return give_tensor(n, &t);
    }
    s = fst__net_layer_input(n, 0, &in);
    if (!s)
        s = resolve(n, &n->net->layers[in].out, list, length, &to);
    return s ? s : reshaped(n, in, &to);
}

static fst_status flatten(const struct fst__net_node *n)
{
    int in;
    fst_status s = fst__net_layer_input(n, 0, &in);
    int64_t axis = fst__net_int(n, "axis", 1);
    if (s)
        return s;
    const fst_shape *from = &n->net->layers[in].out;
    if (axis != 1 && axis != -from->rank)
        return fst__net_refuse(n, "axis %lld; samples are flattened from axis 1 here", (long long)axis);
    return reshaped(n, in, &FST_SHAPE(fst_shape_count(from)));
}

/* The axes of Squeeze and Unsqueeze, an attribute first and then an input, made positive. */
static fst_status axes_of(const struct fst__net_node *n, int rank, int64_t axes[FST__NET_LIST], int *count)
{
    const Onnx__Attribute *a = fst__net_attribute(n, "axes");
    fst_status s = FST_OK;
    *count = 0;
    if (fst__net_input(n, 1))
        s = fst__net_list_input(n, 1, axes, count);
    else if (a && a->n_ints <= FST__NET_LIST)
        fst__onnx_copy(axes, a->ints, (size_t)(*count = (int)a->n_ints));
    for (int i = 0; !s && i < *count; i++) {
        axes[i] += axes[i] < 0 ? rank : 0;
        if (axes[i] < 0 || axes[i] >= rank)
            s = fst__net_refuse(n, "axis %lld is not there", (long long)axes[i]);
    }
    if (!s && !*count)
        s = fst__net_refuse(n, "it names no axes");
    return s;
}

static bool among(const int64_t *axes, int count, int64_t axis)
{
    bool found = false;
    for (int i = 0; i < count; i++)
        found = found || axes[i] == axis;
    return found;
}

static fst_status squeeze(const struct fst__net_node *n)
{
    const struct fst__net_value *v = fst__net_input(n, 0);
    int64_t axes[FST__NET_LIST];
    int in, count;
    fst_shape to = {0};
    if (v && v->kind == FST__VALUE_LIST) /* one number is a list of one here */
        return v->length == 1 ? identity(n) : fst__net_refuse(n, "it squeezes a list of sizes");
    fst_status s = fst__net_layer_input(n, 0, &in);
    const fst_shape *from = s ? NULL : &n->net->layers[in].out;
    if (!s)
        s = axes_of(n, 1 + from->rank, axes, &count);
    if (s)
        return s;
    for (int i = 0; i < from->rank; i++)
        if (!among(axes, count, 1 + i))
            to.dim[to.rank++] = from->dim[i];
    if (among(axes, count, 0) || !to.rank || fst_shape_count(&to) != fst_shape_count(from))
        return fst__net_refuse(n, "it takes a dimension away that is not 1, or the batch's");
    return reshaped(n, in, &to);
}

static fst_status unsqueeze(const struct fst__net_node *n)
{
    const struct fst__net_value *v = fst__net_input(n, 0);
    int64_t axes[FST__NET_LIST];
    int in, count = 0, from_at = 0;
    fst_shape to = {0};
    if (v && v->kind == FST__VALUE_LIST)
        return v->length == 1 ? identity(n) : fst__net_refuse(n, "it unsqueezes a list of sizes");
    fst_status s = fst__net_layer_input(n, 0, &in);
    const Onnx__Attribute *a = fst__net_attribute(n, "axes");
    int64_t some[FST__NET_LIST];
    int more = a ? (int)(a->n_ints < FST__NET_LIST ? a->n_ints : 0) : 0;
    if (!s && fst__net_input(n, 1))
        s = fst__net_list_input(n, 1, some, &more);
    const fst_shape *from = s ? NULL : &n->net->layers[in].out;
    if (!s && (more < 1 || from->rank + more > 4))
        s = fst__net_refuse(n, "it makes more than four dimensions of a sample, or none");
    if (!s)
        s = axes_of(n, 1 + from->rank + more, axes, &count);
    if (s)
        return s;
    to.rank = from->rank + more;
    for (int i = 0; i < to.rank; i++)
        to.dim[i] = among(axes, count, 1 + i) || from_at == from->rank ? 1 : from->dim[from_at++];
    if (among(axes, count, 0) || from_at != from->rank)
        return fst__net_refuse(n, "its axes do not fit, or are the batch's");
    return reshaped(n, in, &to);
}

static fst_status transpose(const struct fst__net_node *n)
{
    struct fst__onnx_tensor t = {0};
    const Onnx__Attribute *a = fst__net_attribute(n, "perm");
    const struct fst__net_value *v = fst__net_input(n, 0);
    bool same = a && a->n_ints > 0;
    for (size_t i = 0; a && i < a->n_ints; i++)
        same = same && a->ints[i] == (int64_t)i;
    if (same)
        return identity(n);
    if (!v || v->kind != FST__VALUE_TENSOR || v->tensor.shape.rank != 2)
        return fst__net_refuse(n, "it exchanges dimensions; networks here take channels first throughout");
    t = v->tensor;
    t.shape = FST_SHAPE(v->tensor.shape.dim[1], v->tensor.shape.dim[0]);
    t.transposed = !t.transposed;
    return give_tensor(n, &t);
}

/* ---- sizes as values ----------------------------------------------------------------------------------------------
 */

static fst_status shape_of(const struct fst__net_node *n)
{
    int64_t list[FST__NET_LIST] = {FST__NET_BATCH};
    int in;
    fst_status s = fst__net_layer_input(n, 0, &in);
    if (s)
        return s;
    if (fst__net_attribute(n, "start") || fst__net_attribute(n, "end"))
        return fst__net_refuse(n, "it takes a part of a shape");
    const fst_shape *from = &n->net->layers[in].out;
    memcpy(list + 1, from->dim, (size_t)from->rank * sizeof *list);
    return give_list(n, list, 1 + from->rank);
}

static fst_status gather(const struct fst__net_node *n)
{
    int64_t list[FST__NET_LIST], index[FST__NET_LIST];
    int length, count;
    fst_status s = fst__net_list_input(n, 0, list, &length);
    if (!s)
        s = fst__net_list_input(n, 1, index, &count);
    if (s)
        return s;
    for (int i = 0; i < count; i++) {
        index[i] += index[i] < 0 ? length : 0;
        if (index[i] < 0 || index[i] >= length)
            return fst__net_refuse(n, "size %lld of %d is not there", (long long)index[i], length);
        index[i] = list[index[i]];
    }
    return give_list(n, index, count);
}

static fst_status concat(const struct fst__net_node *n)
{
    int64_t all[FST__NET_LIST], list[FST__NET_LIST];
    int at = 0, length;
    for (size_t i = 0; i < n->node->n_input; i++) {
        const struct fst__net_value *v = fst__net_input(n, i);
        if (v && v->kind == FST__VALUE_LAYER)
            return fst__net_refuse(n, "networks here do not join channels");
        fst_status s = fst__net_list_input(n, i, list, &length);
        if (s)
            return s;
        if (at + length > FST__NET_LIST)
            return fst__net_refuse(n, "a list of more than %d sizes", FST__NET_LIST);
        memcpy(all + at, list, (size_t)length * sizeof *list);
        at += length;
    }
    return give_list(n, all, at);
}

/* ---- padding -------------------------------------------------------------------------------------------------------
 */

static fst_status pad(const struct fst__net_node *n)
{
    const Onnx__Attribute *mode = fst__net_attribute(n, "mode"), *a = fst__net_attribute(n, "pads"),
                          *value = fst__net_attribute(n, "value");
    struct fst__onnx_tensor with = {.t = NULL};
    struct fst__net_layer *l;
    int64_t pads[FST__NET_LIST];
    float fill = value && value->has_f ? value->f : 0;
    int in, count = 0;
    fst_status s = fst__net_layer_input(n, 0, &in);
    if (!s && fst__net_input(n, 1))
        s = fst__net_list_input(n, 1, pads, &count);
    else if (!s && a && a->n_ints <= FST__NET_LIST)
        fst__onnx_copy(pads, a->ints, (size_t)(count = (int)a->n_ints));
    if (!s && fst__net_input(n, 2))
        s = fst__net_tensor_input(n, 2, &with);
    if (s)
        return s;
    if (fst__net_input(n, 2) && fst_shape_count(&with.shape) == 1)
        fst__onnx_floats(&with, &fill);
    bool constant_mode = !mode || !mode->has_s || (mode->s.len == 8 && !memcmp(mode->s.data, "constant", 8));
    if (n->net->layers[in].out.rank != 3 || count != 8 || !constant_mode || fill != 0 || pads[0] || pads[1] ||
        pads[4] || pads[5])
        return fst__net_refuse(n, "only zeros around height and width are read, before a Conv");
    for (int i = 2; i < 8; i++)
        if (pads[i] < 0 || pads[i] > 1 << 14)
            return fst__net_refuse(n, "padding must be 0 to %d", 1 << 14);
    s = fst__net_add(n, FST__NET_PAD, in, &l);
    if (s)
        return s;
    for (int i = 0; i < 2; i++) {
        l->pads[i] = pads[2 + i];
        l->pads[2 + i] = pads[6 + i];
        l->out.dim[1 + i] += l->pads[i] + l->pads[2 + i];
    }
    return FST_OK;
}

const struct fst__net_op fst__net_shapes[] = {
    {"Identity", identity},
    {"Dropout", identity},
    {"Cast", cast},
    {"Constant", constant},
    {"Reshape", reshape},
    {"Flatten", flatten},
    {"Squeeze", squeeze},
    {"Unsqueeze", unsqueeze},
    {"Transpose", transpose},
    {"Shape", shape_of},
    {"Gather", gather},
    {"Concat", concat},
    {"Pad", pad},
    {NULL, NULL},
};

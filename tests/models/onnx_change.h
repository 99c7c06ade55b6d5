/*
 * Changes to an ONNX file's messages for test_onnx_import.c: the same network in other words, and what must be refused.
 * The file is a fedgen_mnist over (1, 9, 9) as fedstill writes it: conv1, bn1, relu.3, conv2, bn2, relu.6, flatten.7,
 * fc1, relu.9, fc2, with values NAME.out. Messages are changed in place; all memory is malloc's, as protobuf-c wants
 * it.
 */
#ifndef FST_TESTS_MODELS_ONNX_CHANGE_H
#define FST_TESTS_MODELS_ONNX_CHANGE_H

#include "models/onnx_files.h"

static uint64_t onnx_fail_at; /* the allocation of the next import that fails; 0: none */

static inline fst_status onnx_import(fst_model *out, const Onnx__Model *m, const fst_import_options *o, fst_error *err)
{
    fst_import_options none = {0};
    size_t len = onnx__model__get_packed_size(m);
    uint8_t *bytes = malloc(len + 1);
    assert_non_null(bytes);
    assert_int_equal(onnx__model__pack(m, bytes), len);
    fst_alloc_fail_at(onnx_fail_at);
    fst_status s = fst_model_import_memory(out, "made", bytes, len, o ? o : &none, NULL, err);
    fst_alloc_fail_at(0);
    free(bytes);
    return s;
}

/* ---- parts -------------------------------------------------------------------------------------------------- */

static inline void set_text(char **to, const char *text)
{
    free(*to);
    *to = strdup(text);
}

/* One more pointer in a list, at place `at`. */
static inline void insert(void ***list, size_t *count, size_t at, void *element)
{
    *list = realloc(*list, (*count + 1) * sizeof **list);
    memmove(*list + at + 1, *list + at, (*count - at) * sizeof **list);
    (*list)[at] = element;
    ++*count;
}

static inline size_t place_of(const Onnx__Model *m, const char *node)
{
    size_t i = 0;
    while (i < m->graph->n_node && strcmp(m->graph->node[i]->name, node))
        i++;
    assert_true(i < m->graph->n_node);
    return i;
}

static inline Onnx__Node *node_of(const Onnx__Model *m, const char *name)
{
    return m->graph->node[place_of(m, name)];
}

static inline Onnx__Tensor *tensor_of(const Onnx__Model *m, const char *name)
{
    for (size_t i = 0; i < m->graph->n_initializer; i++)
        if (!strcmp(m->graph->initializer[i]->name, name))
            return m->graph->initializer[i];
    fail_msg("no initialiser %s", name);
    return NULL;
}

static inline float *floats_of(const Onnx__Model *m, const char *name)
{
    return (float *)(void *)tensor_of(m, name)->raw_data.data;
}

/* A node at place `at`; its inputs by commas. */
static inline Onnx__Node *put_node(Onnx__Model *m, size_t at, const char *op, const char *inputs, const char *output)
{
    Onnx__Node *n = malloc(sizeof *n);
    char *text = strdup(inputs), *next = text;
    onnx__node__init(n);
    n->op_type = strdup(op);
    n->name = strdup(output);
    n->output = malloc(sizeof *n->output);
    n->output[n->n_output++] = strdup(output);
    for (char *word; *inputs && (word = strsep(&next, ","));)
        insert((void ***)&n->input, &n->n_input, n->n_input, strdup(word));
    free(text);
    insert((void ***)&m->graph->node, &m->graph->n_node, at, n);
    return n;
}

static inline Onnx__Attribute *attribute_of(Onnx__Node *n, const char *name)
{
    for (size_t i = 0; i < n->n_attribute; i++)
        if (!strcmp(n->attribute[i]->name, name))
            return n->attribute[i];
    Onnx__Attribute *a = malloc(sizeof *a);
    onnx__attribute__init(a);
    a->name = strdup(name);
    insert((void ***)&n->attribute, &n->n_attribute, n->n_attribute, a);
    return a;
}

static inline void set_int(Onnx__Node *n, const char *name, int64_t value)
{
    Onnx__Attribute *a = attribute_of(n, name);
    a->has_i = true;
    a->i = value;
}

static inline void set_float(Onnx__Node *n, const char *name, float value)
{
    Onnx__Attribute *a = attribute_of(n, name);
    a->has_f = true;
    a->f = value;
}

static inline void set_ints(Onnx__Node *n, const char *name, const int64_t *values, size_t count)
{
    Onnx__Attribute *a = attribute_of(n, name);
    a->ints = realloc(a->ints, count * sizeof *values);
    memcpy(a->ints, values, count * sizeof *values);
    a->n_ints = count;
}

static inline void put_integers(Onnx__Model *m, const char *name, const int64_t *values, size_t count, bool scalar)
{
    Onnx__Tensor *t = malloc(sizeof *t);
    onnx__tensor__init(t);
    t->name = strdup(name);
    t->has_data_type = true;
    t->data_type = 7;
    t->int64_data = malloc(count * sizeof *values);
    memcpy(t->int64_data, values, count * sizeof *values);
    t->n_int64_data = count;
    if (!scalar) {
        t->dims = malloc(sizeof *t->dims);
        t->dims[t->n_dims++] = (int64_t)count;
    }
    insert((void ***)&m->graph->initializer, &m->graph->n_initializer, 0, t);
}

/* Node `name` reads `from` in place of its input i. */
static inline void rewire(Onnx__Model *m, const char *name, size_t i, const char *from)
{
    set_text(&node_of(m, name)->input[i], from);
}

/* A node between the value `before` and the node `after` that reads it. */
static inline Onnx__Node *put_between(Onnx__Model *m, const char *before, const char *after, const char *op,
                                      const char *more)
{
    char inputs[128];
    snprintf(inputs, sizeof inputs, "%s%s", before, more);
    Onnx__Node *n = put_node(m, place_of(m, after), op, inputs, "between");
    rewire(m, after, 0, "between");
    return n;
}

static inline void end_in(Onnx__Model *m, const char *op)
{
    Onnx__Node *n = put_node(m, m->graph->n_node, op, "logits", "end");
    set_int(n, "axis", 1);
    set_text(&m->graph->output[0]->name, "end");
}

/* ---- the same in other words ------------------------------------------------------------------------------------ */

static inline void as_float_data(Onnx__Model *m)
{
    for (size_t i = 0; i < m->graph->n_initializer; i++) {
        Onnx__Tensor *t = m->graph->initializer[i];
        t->float_data = (float *)(void *)t->raw_data.data;
        t->n_float_data = t->raw_data.len / sizeof(float);
        t->has_raw_data = false;
        t->raw_data = (ProtobufCBinaryData){0, NULL};
    }
}

static inline void as_double(Onnx__Model *m)
{
    for (size_t i = 0; i < m->graph->n_initializer; i++) {
        Onnx__Tensor *t = m->graph->initializer[i];
        size_t n = t->raw_data.len / sizeof(float);
        double *d = malloc(n * sizeof *d);
        for (size_t k = 0; k < n; k++)
            d[k] = (double)((float *)(void *)t->raw_data.data)[k];
        t->data_type = 11;
        free(t->raw_data.data);
        t->raw_data = (ProtobufCBinaryData){n * sizeof *d, (uint8_t *)d};
        if (i % 2) {
            t->double_data = d;
            t->n_double_data = n;
            t->has_raw_data = false;
            t->raw_data = (ProtobufCBinaryData){0, NULL};
        }
    }
}

static inline void as_half(Onnx__Model *m, bool raw)
{
    for (size_t i = 0; i < m->graph->n_initializer; i++) {
        Onnx__Tensor *t = m->graph->initializer[i];
        size_t n = t->raw_data.len / sizeof(float);
        uint16_t *h = malloc(n * sizeof *h);
        int32_t *wide = malloc(n * sizeof *wide);
        for (size_t k = 0; k < n; k++)
            wide[k] = h[k] = fst_f16_from_f32(((float *)(void *)t->raw_data.data)[k]);
        t->data_type = 10;
        free(t->raw_data.data);
        t->has_raw_data = raw;
        t->raw_data = raw ? (ProtobufCBinaryData){n * sizeof *h, (uint8_t *)h} : (ProtobufCBinaryData){0, NULL};
        t->int32_data = raw ? NULL : wide;
        t->n_int32_data = raw ? 0 : n;
        free(raw ? (void *)wide : (void *)h);
    }
}

static inline void as_constants(Onnx__Model *m)
{
    while (m->graph->n_initializer) {
        Onnx__Tensor *t = m->graph->initializer[--m->graph->n_initializer];
        attribute_of(put_node(m, 0, "Constant", "", t->name), "value")->t = t;
    }
}

/* (rows, columns) to (columns, rows), the values too. */
static inline void turn_tensor(Onnx__Tensor *t)
{
    size_t rows = (size_t)t->dims[0], columns = (size_t)t->dims[1];
    float *from = (float *)(void *)t->raw_data.data, *to = malloc(t->raw_data.len);
    for (size_t i = 0; i < rows * columns; i++)
        to[i % columns * rows + i / columns] = from[i];
    free(from);
    t->raw_data.data = (uint8_t *)to;
    t->dims[0] = (int64_t)columns;
    t->dims[1] = (int64_t)rows;
}

static inline void turned_weights(Onnx__Model *m)
{
    turn_tensor(tensor_of(m, "fc1.weight"));
    set_int(node_of(m, "fc1"), "transB", 0);
}

static inline void with_transpose(Onnx__Model *m)
{
    turn_tensor(tensor_of(m, "fc2.weight"));
    set_ints(put_node(m, 0, "Transpose", "fc2.weight", "turned"), "perm", (const int64_t[]){1, 0}, 2);
    rewire(m, "fc2", 1, "turned");
}

static inline void as_matmul(Onnx__Model *m)
{
    turn_tensor(tensor_of(m, "fc1.weight"));
    Onnx__Node *n = node_of(m, "fc1");
    set_text(&n->op_type, "MatMul");
    free(n->input[--n->n_input]);
    while (n->n_attribute)
        onnx__attribute__free_unpacked(n->attribute[--n->n_attribute], NULL);
    put_node(m, place_of(m, "relu.9"), "Add", "fc1.bias,fc1.out", "shifted");
    rewire(m, "relu.9", 0, "shifted");
}

static inline void with_identities(Onnx__Model *m)
{
    put_node(m, 0, "Identity", "conv1.weight", "kernel");
    rewire(m, "conv1", 1, "kernel");
    set_int(put_between(m, "relu.3.out", "conv2", "Cast", ""), "to", 1);
    put_node(m, place_of(m, "fc2"), "Dropout", "relu.9.out", "dropped");
    put_node(m, place_of(m, "fc2"), "Identity", "dropped", "kept");
    rewire(m, "fc2", 0, "kept");
}

static inline void with_softmax(Onnx__Model *m)
{
    end_in(m, "Softmax");
}

static inline void with_log_softmax(Onnx__Model *m)
{
    end_in(m, "LogSoftmax");
}

static inline void batch_of_seven(Onnx__Model *m)
{
    Onnx__Dimension *d = m->graph->input[0]->type->tensor_type->shape->dim[0];
    free(d->dim_param);
    d->dim_param = NULL;
    d->has_dim_value = true;
    d->dim_value = 7;
    put_integers(m, "sizes", (const int64_t[]){7, -1}, 2, false);
    Onnx__Node *n = node_of(m, "flatten.7");
    set_text(&n->op_type, "Reshape");
    insert((void ***)&n->input, &n->n_input, 1, strdup("sizes"));
}

/* As PyTorch writes x.reshape(x.shape[0], -1). */
static inline void reshape_by_shape(Onnx__Model *m)
{
    put_integers(m, "zero", (const int64_t[]){0}, 1, true);
    put_integers(m, "rest", (const int64_t[]){-1}, 1, false);
    put_integers(m, "axes", (const int64_t[]){0}, 1, false);
    size_t at = place_of(m, "flatten.7");
    put_node(m, at, "Shape", "relu.6.out", "shape");
    set_int(put_node(m, at + 1, "Gather", "shape,zero", "size"), "axis", 0);
    put_node(m, at + 2, "Unsqueeze", "size,axes", "sizes");
    set_int(put_node(m, at + 3, "Concat", "sizes,rest", "both"), "axis", 0);
    Onnx__Node *n = node_of(m, "flatten.7");
    set_text(&n->op_type, "Reshape");
    insert((void ***)&n->input, &n->n_input, 1, strdup("both"));
}

static inline void pad_before(Onnx__Model *m)
{
    put_integers(m, "around", (const int64_t[]){0, 0, 1, 1, 0, 0, 1, 1}, 8, false);
    put_between(m, "input", "conv1", "Pad", ",around");
    set_ints(node_of(m, "conv1"), "pads", (const int64_t[]){0, 0, 0, 0}, 4);
    set_ints(put_between(m, "relu.3.out", "conv2", "Pad", ""), "pads", (const int64_t[]){0, 0, 1, 0, 0, 0, 0, 1}, 8);
    set_text(&node_of(m, "between")->output[0], "ring"); /* the first of that name */
    set_text(&node_of(m, "between")->name, "ring");
    rewire(m, "conv1", 0, "ring");
    set_ints(node_of(m, "conv2"), "pads", (const int64_t[]){0, 1, 1, 0}, 4);
}

static inline void auto_pad_upper(Onnx__Model *m)
{
    Onnx__Attribute *a = attribute_of(node_of(m, "conv1"), "auto_pad");
    a->has_s = true;
    a->s = (ProtobufCBinaryData){10, (uint8_t *)strdup("SAME_UPPER")};
}

/* As before IR 4: initialisers stand among the inputs. */
static inline void initialiser_input(Onnx__Model *m)
{
    Onnx__Value *v = malloc(sizeof *v);
    onnx__value__init(v);
    v->name = strdup("conv1.weight");
    insert((void ***)&m->graph->input, &m->graph->n_input, 0, v);
}

/* Without the convolution's bias, which the norm's mean takes over. */
static inline void by_mean_shift(Onnx__Model *m)
{
    float *bias = floats_of(m, "conv1.bias"), *mean = floats_of(m, "bn1.running_mean");
    for (size_t i = 0; i < 6; i++)
        mean[i] -= bias[i];
    Onnx__Node *n = node_of(m, "conv1");
    free(n->input[--n->n_input]);
}

static inline void by_epsilon(Onnx__Model *m)
{
    float *variance = floats_of(m, "bn1.running_var");
    for (size_t i = 0; i < 6; i++)
        variance[i] -= 1e-2F - 1e-5F;
    set_float(node_of(m, "bn1"), "epsilon", 1e-2F);
}

static inline void squeezed(Onnx__Model *m)
{
    static const int64_t axis[] = {-2};
    set_ints(put_node(m, place_of(m, "fc1"), "Unsqueeze", "flatten.7.out", "deeper"), "axes", axis, 1);
    set_ints(put_node(m, place_of(m, "fc1"), "Squeeze", "deeper", "flat"), "axes", axis, 1);
    rewire(m, "fc1", 0, "flat");
}

static inline void clip_is_relu(Onnx__Model *m)
{
    Onnx__Node *n = node_of(m, "relu.3");
    set_text(&n->op_type, "Clip");
    set_float(n, "min", 0);
}

/* ---- what must be refused -------------------------------------------------------------------------------------------
 */

#define CHANGE(name) static inline void name(Onnx__Model *m)
CHANGE(unknown_operator)
{
    set_text(&node_of(m, "relu.3")->op_type, "LRN");
}
CHANGE(other_domain)
{
    set_text(&node_of(m, "relu.6")->domain, "com.microsoft");
}
CHANGE(dilated)
{
    set_ints(node_of(m, "conv2"), "dilations", (const int64_t[]){2, 2}, 2);
}
CHANGE(lopsided)
{
    set_ints(node_of(m, "conv1"), "pads", (const int64_t[]){0, 0, 2, 2}, 4);
}
CHANGE(rounded_up)
{
    Onnx__Node *n = put_between(m, "relu.3.out", "conv2", "MaxPool", "");
    set_ints(n, "kernel_shape", (const int64_t[]){2, 2}, 2);
    set_ints(n, "strides", (const int64_t[]){2, 2}, 2);
    set_int(n, "ceil_mode", 1);
}
CHANGE(external)
{
    Onnx__Tensor *t = tensor_of(m, "fc1.weight");
    t->has_data_location = true;
    t->data_location = 1;
}
CHANGE(two_inputs)
{
    initialiser_input(m);
    set_text(&m->graph->input[0]->name, "another");
}
CHANGE(no_output)
{
    set_text(&m->graph->output[0]->name, "nowhere");
}
CHANGE(backwards)
{
    rewire(m, "conv2", 0, "relu.6.out");
}
CHANGE(itself)
{
    rewire(m, "conv2", 0, "conv2.out");
}
CHANGE(made_twice)
{
    set_text(&node_of(m, "relu.6")->output[0], "relu.3.out");
}
CHANGE(in_training)
{
    set_int(node_of(m, "bn2"), "training_mode", 1);
}
CHANGE(scaled)
{
    set_float(node_of(m, "fc2"), "alpha", 0.5F);
}
CHANGE(early_softmax)
{
    set_int(put_between(m, "relu.9.out", "fc2", "Softmax", ""), "axis", 1);
}
CHANGE(clipped)
{
    clip_is_relu(m);
    set_float(node_of(m, "relu.3"), "max", 5);
}
CHANGE(quantised)
{
    Onnx__Tensor *t = tensor_of(m, "conv1.weight");
    t->data_type = 3;
}
CHANGE(too_short)
{
    tensor_of(m, "conv2.weight")->raw_data.len -= 4;
}
CHANGE(torn)
{
    tensor_of(m, "conv2.weight")->raw_data.len -= 1;
}
CHANGE(negative)
{
    tensor_of(m, "conv2.bias")->dims[0] = -16;
}
CHANGE(vast)
{
    Onnx__Tensor *t = tensor_of(m, "fc1.weight");
    t->dims[0] = t->dims[1] = INT64_MAX;
}
CHANGE(many_dimensions)
{
    Onnx__Tensor *t = tensor_of(m, "fc1.bias");
    t->dims = realloc(t->dims, 9 * sizeof *t->dims);
    for (t->n_dims = 1; t->n_dims < 9; t->n_dims++)
        t->dims[t->n_dims] = 1;
}
CHANGE(one_more_layer)
{
    end_in(m, "Relu");
}
CHANGE(without_graph)
{
    while (m->graph->n_node)
        onnx__node__free_unpacked(m->graph->node[--m->graph->n_node], NULL);
}
CHANGE(mixed)
{
    put_integers(m, "sizes", (const int64_t[]){1, -1}, 2, false);
    Onnx__Node *n = node_of(m, "flatten.7");
    set_text(&n->op_type, "Reshape");
    insert((void ***)&n->input, &n->n_input, 1, strdup("sizes"));
}
CHANGE(pad_alone)
{
    set_ints(put_between(m, "conv1.out", "bn1", "Pad", ""), "pads", (const int64_t[]){0, 0, 1, 1, 0, 0, 1, 1}, 8);
}
CHANGE(pad_with_ones)
{
    pad_alone(m);
    set_float(node_of(m, "between"), "value", 1);
}
CHANGE(joined)
{
    set_int(put_between(m, "relu.3.out", "conv2", "Concat", ",relu.3.out"), "axis", 1);
}
CHANGE(channels_last)
{
    set_ints(put_between(m, "relu.3.out", "conv2", "Transpose", ""), "perm", (const int64_t[]){0, 2, 3, 1}, 4);
}
CHANGE(bytes_in)
{
    m->graph->input[0]->type->tensor_type->elem_type = 2;
}
CHANGE(unequal_sum)
{
    put_between(m, "relu.6.out", "flatten.7", "Add", ",relu.3.out");
}
CHANGE(weights_computed)
{
    rewire(m, "conv2", 1, "relu.3.out");
}
CHANGE(wide_kernel)
{
    set_ints(node_of(m, "conv2"), "kernel_shape", (const int64_t[]){3, 5}, 2);
}
CHANGE(no_stride)
{
    set_ints(node_of(m, "conv2"), "strides", (const int64_t[]){0, 1}, 2);
}
CHANGE(three_strides)
{
    set_ints(node_of(m, "conv2"), "strides", (const int64_t[]){1, 1, 1}, 3);
}
CHANGE(endless_padding)
{
    set_ints(node_of(m, "conv2"), "pads", (const int64_t[]){INT64_MAX, 0, 0, 0}, 4);
}
CHANGE(odd_groups)
{
    set_int(node_of(m, "conv2"), "group", INT64_MIN);
}
CHANGE(later_axis)
{
    set_int(node_of(m, "flatten.7"), "axis", 2);
}
CHANGE(not_a_number)
{
    floats_of(m, "fc1.weight")[5] = NAN;
}

static const struct {
    void (*change)(Onnx__Model *);
    fst_status status;
    const char *says;
} onnx_refused[] = {
    {unknown_operator, FST_E_UNSUPPORTED, "node \"relu.3\" (LRN): is no operator of the networks here"},
    {other_domain, FST_E_UNSUPPORTED, "node \"relu.6\" (Relu): com.microsoft: is no operator"},
    {dilated, FST_E_UNSUPPORTED, "node \"conv2\" (Conv): dilation 2"},
    {lopsided, FST_E_MISMATCH,
     "conv2d conv1 3x3, stride 2, padding 1, 1 to 6 channels where the file has a convolution "
     "3x3, stride 2, padding 0,0,2,2"},
    {rounded_up, FST_E_UNSUPPORTED, "ceil_mode makes a window over the edge of a picture of 5"},
    {external, FST_E_UNSUPPORTED, "the values of \"fc1.weight\" are in another file"},
    {two_inputs, FST_E_UNSUPPORTED, "a graph of 2 inputs"},
    {no_output, FST_E_FORMAT, "no node makes its output \"nowhere\""},
    {backwards, FST_E_FORMAT, "reads \"relu.6.out\", which nothing before it makes"},
    {itself, FST_E_FORMAT, "reads \"conv2.out\", which nothing before it makes"},
    {made_twice, FST_E_FORMAT, "the value \"relu.3.out\" is made twice"},
    {in_training, FST_E_UNSUPPORTED, "node \"bn2\" (BatchNormalization): it is in training mode"},
    {scaled, FST_E_UNSUPPORTED, "alpha and beta must be 1"},
    {early_softmax, FST_E_UNSUPPORTED, "a softmax may stand at the end only"},
    {clipped, FST_E_UNSUPPORTED, "it clips to 0 ... 5"},
    {quantised, FST_E_UNSUPPORTED, "quantised, are not read"},
    {too_short, FST_E_FORMAT, "\"conv2.weight\" does not hold the values that its shape promises"},
    {torn, FST_E_FORMAT, "\"conv2.weight\" does not hold"},
    {negative, FST_E_FORMAT, "\"conv2.bias\" does not hold"},
    {vast, FST_E_FORMAT, "\"fc1.weight\" does not hold"},
    {many_dimensions, FST_E_LIMIT, "\"fc1.bias\" has 9 dimensions, at most 8"},
    {one_more_layer, FST_E_MISMATCH, "is none of the networks here. Already at its end: "},
    {without_graph, FST_E_FORMAT, "no node makes its output"},
    {mixed, FST_E_UNSUPPORTED, "the first dimension must stay the batch's"},
    {pad_alone, FST_E_UNSUPPORTED, "a Pad may stand before a Conv only"},
    {pad_with_ones, FST_E_UNSUPPORTED, "only zeros around height and width"},
    {joined, FST_E_UNSUPPORTED, "do not join channels"},
    {channels_last, FST_E_UNSUPPORTED, "channels first throughout"},
    {bytes_in, FST_E_UNSUPPORTED, "its input \"input\" is not of f32"},
    {unequal_sum, FST_E_UNSUPPORTED, "adds values of different shapes"},
    {weights_computed, FST_E_UNSUPPORTED, "its input \"relu.3.out\" is not a constant"},
    {wide_kernel, FST_E_UNSUPPORTED, "kernel_shape is not that of its weights"},
    {no_stride, FST_E_UNSUPPORTED, "kernel and stride must be 1 to"},
    {three_strides, FST_E_UNSUPPORTED, "its strides are 3, 2 are read"},
    {endless_padding, FST_E_UNSUPPORTED, "padding must be 0 to"},
    {odd_groups, FST_E_UNSUPPORTED, "groups do not fit a picture of 6 channels"},
    {later_axis, FST_E_UNSUPPORTED, "flattened from axis 1"},
    {not_a_number, FST_E_NUMERIC, "fc1.weight has 1 values that are no number"},
};
static const size_t onnx_refusals = sizeof onnx_refused / sizeof *onnx_refused;

#endif

/*
 * The graph of an ONNX file as a chain of the engine's layers: constants resolved, identities and dropout gone, padding
 * in the convolutions, biases where they belong. Only what leads to the output is looked at. An operator that the
 * engine does not have, or not so, is refused by its name and its node's.
 */
#ifndef FST_MODELS_ONNX_NET_H
#define FST_MODELS_ONNX_NET_H

#include "onnx_file.h"

enum fst__net_kind {
    FST__NET_INPUT,
    FST__NET_CONV,   /* weight (out, in / groups, height, width), bias */
    FST__NET_LINEAR, /* weight (out, in), bias */
    FST__NET_NORM,   /* weight, bias, mean, variance */
    FST__NET_RELU,
    FST__NET_RELU6,
    FST__NET_ADD,
    FST__NET_MAXPOOL,
    FST__NET_AVGPOOL, /* over the whole picture: kernel of its size, no padding */
    FST__NET_RESHAPE,
    FST__NET_PAD,    /* zeros, before a convolution only: it takes them over */
    FST__NET_SOFTMAX /* at the end only, where it is left out */
};
enum { FST__NET_TENSORS = 4 };
struct fst__net_layer {
    enum fst__net_kind kind;
    int in[2];                                     /* layers; -1: none */
    const Onnx__Node *node;                        /* NULL: the input */
    fst_shape out;                                 /* of one sample */
    int64_t kernel[2], stride[2], pads[4], groups; /* pads: top, left, bottom, right */
    bool count_padding;
    float eps;
    struct fst__onnx_tensor tensor[FST__NET_TENSORS];
    int tensors; /* 1: without a bias */
};
struct fst__net {
    struct fst__onnx_file *file;
    struct fst__net_layer *layers; /* in the order of the file, the input first */
    int count, output;
    bool softmax;                  /* the file ends in one, which is left out */
    struct fst__net_value *values; /* by name */
    size_t value_count;
    int64_t batch; /* the input's first dimension; 0: open */
    bool *needed;  /* by node */
};

/* input: of one sample, in place of what the file says (rank 0: nothing). */
fst_status fst__net_read(struct fst__net *n, struct fst__onnx_file *f, const fst_shape *input, fst_error *err);
void fst__net_release(struct fst__net *n);
/* What people call a layer: its node's name, or that of its output. */
const char *fst__net_name(const struct fst__net_layer *l);
/* "Conv 3x3, stride 2, 16 to 32 channels" */
const char *fst__net_describe(const struct fst__net *n, int layer, char *out, size_t size);

/* ---- between onnx_net.c, which walks, and the files of operators ---------------------------------------- */

enum { FST__NET_LIST = 16 };     /* integers in a list */
#define FST__NET_BATCH INT64_MIN /* in a list of sizes: the batch's, whatever it is */
enum fst__net_value_kind { FST__VALUE_NONE, FST__VALUE_TENSOR, FST__VALUE_LIST, FST__VALUE_LAYER };
struct fst__net_value {
    const char *name;
    int maker; /* the node that makes it; -1: the graph's input, an initialiser */
    enum fst__net_value_kind kind;
    struct fst__onnx_tensor tensor;
    int64_t list[FST__NET_LIST];
    int length, layer;
};
/* A node while it is read. */
struct fst__net_node {
    struct fst__net *net;
    const Onnx__Node *node;
    fst_error *err;
    struct fst__net_value *out;
};
/* FST_E_UNSUPPORTED with the node's name and operator in front. */
fst_status fst__net_refuse(const struct fst__net_node *n, const char *fmt, ...) FST_PRINTF(2, 3);
const Onnx__Attribute *fst__net_attribute(const struct fst__net_node *n, const char *name);
int64_t fst__net_int(const struct fst__net_node *n, const char *name, int64_t fallback);
/* A list of exactly `count`; `fallback` in each place when there is none. */
fst_status fst__net_ints(const struct fst__net_node *n, const char *name, int64_t *out, int count, int64_t fallback);
/* Input i; NULL when the node has none there. */
struct fst__net_value *fst__net_input(const struct fst__net_node *n, size_t i);
/* The layer that input i is; refused when it is none. */
fst_status fst__net_layer_input(const struct fst__net_node *n, size_t i, int *layer);
/* Constants of floats. */
fst_status fst__net_tensor_input(const struct fst__net_node *n, size_t i, struct fst__onnx_tensor *out);
/* Integers known before the network runs. */
fst_status fst__net_list_input(const struct fst__net_node *n, size_t i, int64_t out[FST__NET_LIST], int *length);
/* A layer of this kind over `in`, with in's shape; the node's value. */
fst_status fst__net_add(const struct fst__net_node *n, enum fst__net_kind kind, int in, struct fst__net_layer **out);

typedef fst_status (*fst__net_read_op)(const struct fst__net_node *n);
struct fst__net_op {
    const char *name;
    fst__net_read_op read;
};
/* Tables that end with a name NULL: layers (onnx_layers.c), what moves values about (onnx_shapes.c). */
extern const struct fst__net_op fst__net_layers[], fst__net_shapes[];

#endif

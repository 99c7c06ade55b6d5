/* The graph's inside, for the files of this folder. */
#ifndef FST_NN_GRAPH_H
#define FST_NN_GRAPH_H

#include "fedstill/nn.h"

enum { FST_NAME_MAX = 96, FST_NODE_PARAMS = 4, FST_NODE_BUFFERS = 2, FST_NODE_MORE = 3, FST_GRAPH_INPUTS = 4 };
enum { FST_WINDOW_MAX = 1 << 14 }; /* kernel, stride, padding: products of them stay far from 2^63 */

typedef enum fst_op_kind {
    FST_OP_INPUT,
    FST_OP_CONV2D,
    FST_OP_LINEAR,
    FST_OP_RELU,
    FST_OP_MAXPOOL2D,
    FST_OP_FLATTEN,
    FST_OP_DROPOUT,
    FST_OP_BATCHNORM2D,
    FST_OP_ADD,
    FST_OP_CONCAT,
    FST_OP_AVGPOOL2D,
    FST_OP_RELU6,
    FST_OP_SIGMOID,
    FST_OP_GELU_TANH,
    FST_OP_SOFTMAX,
    FST_OP_GROUPNORM,
    FST_OP_LAYERNORM,
    FST_OP_SPECTRAL_LINEAR,
    FST_OP_TRANSPOSE,
    FST_OP_SCALE,
    FST_OP_ATTENTION,
    FST_OP_COMPLEX_FROM_PARTS,
    FST_OP_COMPLEX_TO_PARTS,
    FST_OP_MAGNITUDE,
    FST_OP_COMPLEX_CONV2D,
    FST_OP_COMPLEX_LINEAR,
    FST_OP_COMPLEX_BATCHNORM,
    FST_OP_TIME_FREQ_ATTENTION,
    FST_OP_QUANTISE,
    FST_OP_INT8_CONV2D,
    FST_OP_INT8_LINEAR,
    FST_OP_ROUND_INT8,
    FST_OP_KINDS
} fst_op_kind;

typedef enum fst_init_rule {
    FST_INIT_UNIFORM,
    FST_INIT_ONE,
    FST_INIT_ZERO,
    FST_INIT_DIRECTION, /* a random unit vector */
    FST_INIT_COVARIANCE /* rows of three, rr, ii, ri: sqrt(2), sqrt(2), 0 */
} fst_init_rule;

struct fst_slot { /* a tensor of the parameter or the buffer span */
    char name[FST_NAME_MAX];
    fst_shape shape;
    size_t offset, count;
    fst_init_rule init;
    int64_t fan_in; /* of FST_INIT_UNIFORM */
};

/* Whether a value is made of whole numbers of 8 bits, times a scale: -127 ... 127, or 0 ... 255 if it is never below 0.
 * The reference backend keeps them as floats, which hold them exactly. */
struct fst_int8_value {
    bool on, is_unsigned;
    float scale;
};

struct fst_node {
    fst_op_kind kind;
    int id, input; /* input: the node whose output is read; -1 for FST_OP_INPUT */
    int consumers;
    /* 2 for complex values: the real parts of the whole batch, then the imaginary parts. What acts on both alike (ReLU,
     * pooling, add) then sees a batch of twice the rows. */
    int planes, in_planes;
    struct fst_int8_value int8, in_int8; /* of the output; of the (first) input */
    bool rounds; /* a layer that learns for int8: a training step passes through its weights rounded */
    char name[FST_NAME_MAX];
    int more[FST_NODE_MORE], nmore; /* further inputs (add, concat) */
    fst_shape in, out;              /* of one sample; in: of the first input */
    fst_shape more_in[FST_NODE_MORE];
    union {
        fst_conv2d conv;
        struct {
            int64_t out;
            bool bias;
        } linear; /* spectral_linear too */
        struct {
            int64_t kernel, stride, padding;
        } pool;
        struct {
            int64_t kernel[2], stride[2], padding[2];
            bool count_padding; /* the divisor is always the window's size */
        } average;
        struct {
            fst_shape out;
        } reshape; /* flatten */
        struct {
            double p;
        } dropout;
        struct {
            double factor;
        } scale;
        struct {
            int64_t heads;
        } attention;
        struct fst_int8_value quantise;
        struct {
            double eps, momentum;
            int64_t groups; /* groupnorm */
        } norm;
        struct {
            int64_t reduction, hidden; /* hidden = channels / reduction */
            double floor, ceiling, phase_eps;
        } time_freq;
    } u;
    int params, first_param; /* slots in graph->params */
    int buffers, first_buffer;
    int counter; /* index or -1 */
};

struct fst_graph {
    fst_status status; /* the first error while building */
    fst_error error;
    struct fst_node *nodes;
    int count, capacity, output, inputs; /* the inputs are the first nodes */
    bool finished;
    size_t head; /* floats of the output before those of the taps */
    fst_tap tap[FST_MAX_TAPS];
    size_t taps;
    struct fst_slot *params, *buffers;
    size_t nparams, nbuffers, param_count, buffer_count;
    char (*counters)[FST_NAME_MAX];
    size_t ncounters;
};

/* What an op file tells about its kind. */
struct fst_op_args;
struct fst_op_type {
    const char *name;
    /* Fills node->out from node->in and the attributes, checking both. */
    fst_status (*shape)(struct fst_node *n, fst_error *err);
    /* Forward FLOPs of one sample. */
    double (*flops)(const struct fst_node *n);
    /* The reference kernels (see struct fst_op_args in backend.h): plain layouts, sums in double. Where a pass needs
     * sums over all shards of a batch, `sums` leaves this shard's part in the shared memory before it; NULL: it needs
     * none. */
    void (*forward_sums)(const struct fst_node *n, const struct fst_op_args *a);
    void (*backward_sums)(const struct fst_node *n, const struct fst_op_args *a);
    void (*forward)(const struct fst_node *n, const struct fst_op_args *a);
    void (*backward)(const struct fst_node *n, const struct fst_op_args *a);
    /* Bytes of `saved` that forward leaves for backward, for a batch. */
    size_t (*saved)(const struct fst_node *n, int64_t batch);
    /* Bytes of the shared memory that the sums need. */
    size_t (*shared)(const struct fst_node *n);
    /* Bytes of `scratch` that forward and backward need. */
    size_t (*scratch)(const struct fst_node *n, int64_t batch);
    bool takes_complex; /* acts on real and imaginary parts alike, or knows what complex numbers are */
    bool takes_int8;    /* the order of numbers is all that it looks at, or it knows what int8 is */
    /* What the values must fulfil before forward; NULL: any will do. */
    fst_status (*accepts)(const struct fst_node *n, const struct fst_op_args *a, fst_error *err);
};
/* Of the functions that only training calls: fedstill-edge, which does not train, links none of them. */
#ifdef FST_NO_TRAINING
#define FST__GRADIENT(f) (0 ? (f) : NULL)
#else
#define FST__GRADIENT(f) (f)
#endif
extern const struct fst_op_type *const fst__op_types[FST_OP_KINDS];
extern const struct fst_op_type fst__op_conv2d, fst__op_linear, fst__op_relu, fst__op_maxpool2d, fst__op_flatten,
    fst__op_dropout, fst__op_batchnorm2d, fst__op_add, fst__op_concat, fst__op_avgpool2d, fst__op_relu6,
    fst__op_sigmoid, fst__op_gelu_tanh, fst__op_softmax, fst__op_groupnorm, fst__op_layernorm, fst__op_spectral_linear,
    fst__op_transpose, fst__op_scale, fst__op_attention, fst__op_complex_from_parts, fst__op_complex_to_parts,
    fst__op_magnitude, fst__op_complex_conv2d, fst__op_complex_linear, fst__op_complex_batchnorm,
    fst__op_time_freq_attention, fst__op_quantise, fst__op_int8_conv2d, fst__op_int8_linear, fst__op_round_int8;

/* Statistics of the whole batch: its shards must meet. */
static inline bool fst__is_batch_norm(fst_op_kind k)
{
    return k == FST_OP_BATCHNORM2D || k == FST_OP_COMPLEX_BATCHNORM;
}
static inline bool fst__is_int8_layer(fst_op_kind k)
{
    return k == FST_OP_INT8_CONV2D || k == FST_OP_INT8_LINEAR;
}
/* The shape rules of conv2d and linear, for their kin in int8. */
fst_status fst__linear_shape(struct fst_node *n, fst_error *err);
/* The shape rule of conv2d, which complex convolutions share. */
fst_status fst__conv2d_shape(struct fst_node *n, fst_error *err);

/* graph.c, for the builders of other files. */
/* Appends a node; its shape rule runs. NULL once the graph is broken. */
struct fst_node *fst__graph_add(fst_graph *g, fst_op_kind kind, int input, const struct fst_node *attributes,
                                const char *name);
/* The same for an op of several inputs: x[0 ... count-1], which must be values of the graph. */
fst_value fst__graph_join(fst_graph *g, fst_op_kind kind, const fst_value *x, int count,
                          const struct fst_node *attributes);
bool fst__graph_add_param(fst_graph *g, struct fst_node *n, const char *leaf, fst_shape shape, fst_init_rule init,
                          int64_t fan_in);
bool fst__graph_add_buffer(fst_graph *g, struct fst_node *n, const char *leaf, fst_shape shape, fst_init_rule init);
bool fst__graph_add_counter(fst_graph *g, struct fst_node *n);
/* Node n of another graph, with its inputs here: here[v] is value v of that graph. */
fst_value fst__graph_same_node(fst_graph *to, const fst_graph *from, const struct fst_node *n, const fst_value *here);
/* The node's value when all went well, else -1. */
fst_value fst__graph_made(const fst_graph *g, const struct fst_node *n, bool ok);
fst_value fst__graph_broken(fst_graph *g, fst_status s);

/*
 * A pass in parts, between which the shards of a batch meet (struct fst_peers in backend.h): parts 0 ... forward-1,
 * then those of the backward pass. fst_plan_forward and fst_plan_backward run them one after the other.
 */
struct fst_peers;
struct fst_parts {
    int forward, all;
};
struct fst_parts fst__plan_parts(const fst_plan *p);
struct fst_span { /* of the parameters */
    size_t from, count;
};
struct fst_plan_more {
    size_t
        window; /* a part writes at most so many gradients, or those of one op; 0: parts end where shards meet only */
    bool share; /* layers of a single sample are cut in halves, */
    fst_pool *pool; /* which its threads share; NULL: one thread */
    /* Another inference plan of the same graph and options, or NULL. What that one prepares from a state is used here
     * too, and not made again: it must be prepared first (fst__plan_prepare), and outlive this one's last pass. */
    const fst_plan *owner;
    /* Of a training plan that is a shard of a batch of so many rows (those of shards that are not full counted too):
     * the gradients of large linear layers may be left as their factors (forms.h), where fst__plan_factor_rows says.
     * 0: all gradients are made. */
    size_t batch_rows;
    bool blocks; /* the gradients of convolutions may be left in the kernels' blocks */
};
fst_status fst__plan_new(fst_plan **out, const fst_graph *g, const fst_plan_options *o,
                         const struct fst_plan_more *more, fst_error *err);
/* Brings the weights of a state into the kernels' layouts, as the next pass otherwise would. */
fst_status fst__plan_prepare(fst_plan *p, const fst_state *state, fst_error *err);
struct fst_span fst__plan_part_grads(const fst_plan *p, int part);
/* The layers whose gradients the plan leaves in other forms; returns how many. */
struct fst_form;
size_t fst__plan_forms(const fst_plan *p, const struct fst_form **out);
/* Before a pass: factors go into this span of gradients, as the batch's rows `first` and those after it. */
void fst__plan_factor_rows(fst_plan *p, float *grads, size_t first);
/* Before a part of the backward pass: its gradients go to `to`, the first of its span at to[0]. */
void fst__plan_divert(fst_plan *p, int part, float *to);
/* Makes the plan one shard of several, whose plans are equal; NULL: it is alone again. peers must outlive the plan. */
void fst__plan_join(fst_plan *p, const struct fst_peers *peers);
unsigned char *fst__plan_shared(const fst_plan *p); /* its shared memory, for the peers */
/* Before the parts of a step: what they read and write. */
void fst__plan_bind(fst_plan *p, const fst_state *state, float *grads, const float *x, const fst_draws *draws);
fst_status fst__plan_run_part(fst_plan *p, int part, fst_error *err);
const float *fst__plan_output(const fst_plan *p);

/* No NaN and no infinity among `bytes` of floats, or of bf16 values. */
bool fst__all_finite(const void *values, size_t bytes, bool half);

/* Hot loops are compiled for several instruction sets and chosen when the program starts. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(FST_NO_MULTIVERSION)
#define FST_HOT __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FST_HOT
#endif

#endif

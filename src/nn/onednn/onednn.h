/* Between backend.c (contexts, layouts, kernels), loops.c (loops of ours), conv.c, halves.c, ops.c
 * (the ops), and for nobody else. */
#ifndef FST_NN_ONEDNN_H
#define FST_NN_ONEDNN_H

#include "onednn_compat.h"
#include "ops.h"

struct fst_layout {
    fdn_md_store md;
    struct fst_layout *next;
};

/* Whose memory an argument is; the four parameters and their gradients follow one another. HELD: what an inference
 * plan keeps from one pass to the next. */
enum field {
    IN,
    OUT,
    GRAD_OUT,
    GRAD_IN,
    PARAM0,
    PARAM1,
    PARAM2,
    PARAM3,
    GRAD_PARAM0,
    GRAD_PARAM1,
    GRAD_PARAM2,
    GRAD_PARAM3,
    BUFFER0,
    BUFFER1,
    SAVED,
    SCRATCH,
    HELD
};
enum { MAX_ARGS = 12 };

struct place {
    enum field field;
    size_t offset; /* bytes */
};

struct binding { /* an argument of a primitive: where its pointer comes from */
    struct place place;
    const void *last; /* what the memory object points at now */
};

struct kernel;
/* A loop of ours over elements (or images) from ... from+count-1 of its work; spans may run at the same time. */
typedef void (*fdn_span)(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count);

struct kernel {
    struct fst_kernel base; /* first: a struct fst_kernel * is a struct kernel * */
    struct fst_context *context;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[MAX_ARGS];
    struct binding bind[MAX_ARGS];
    int nargs;
    bool used;                   /* the primitive ran once */
    const struct fst_node *node; /* of kernels that are loops of ours */
    fdn_span span;
    size_t work, grain;               /* of span: elements, and how many are worth a thread */
    bool half;                        /* its values are bf16 */
    bool mask, add;                   /* a ReLU, a sum belong to it */
    float ceiling;                    /* of the ReLU */
    const struct fst_node *fold;      /* the batch norm that it folds into weights and bias, */
    struct place folded, folded_bias; /* which go there */
    const struct fst_node *rounding;  /* after a layer in int8; NULL: its value is f32 */
    struct fst_blocked_pool pool;
    int64_t block;            /* of channels, for loops on complex values and norms */
    size_t clear;             /* bytes of the gradient that are set to 0 */
    struct kernel *halves[2]; /* of the outputs, with a kernel of their own each */
    struct kernel *next;
};

struct fst_context {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t attr, attr_relu, attr_relu6;
    dnnl_data_type_t type; /* of activations where an op has a choice */
    int threads;
    bool halves;      /* layers of a single sample are cut (halves.c), */
    fst_pool *pool;   /* and computed by its threads; NULL: by one */
    int alone, rest;  /* cut layers that one thread still computes alone; after the next stop that many */
    int good, helped; /* shared ones since the last stop; of the last few, those that two threads computed */
    struct fst_layout *layouts;
    struct kernel *kernels;
};

fst_status fdn_failed(dnnl_status_t s, const char *what, fst_error *err);
fst_status fdn_tagged(struct fst_context *c, dnnl_data_type_t type, int rank, const int64_t *dims, bool any,
                      const struct fst_layout **out, fst_error *err);
/* Of rows samples in the context's type, the layout left to the primitive when `any`. */
fst_status fdn_sample_layout(struct fst_context *c, int64_t rows, const fst_shape *sample, bool any,
                             const struct fst_layout **out, fst_error *err);
fst_status fdn_samples(struct fst_context *c, dnnl_data_type_t type, int64_t rows, const fst_shape *sample, bool any,
                       const struct fst_layout **out, fst_error *err);
/* Channels in blocks of 8 or 16. */
fst_status fdn_blocked(struct fst_context *c, dnnl_data_type_t type, int64_t rows, const fst_shape *sample,
                       int64_t block, const struct fst_layout **out, fst_error *err);
/* Channels last for images, and others as they are. */
fst_status fdn_channels_last_layout(struct fst_context *c, dnnl_data_type_t type, int64_t rows, const fst_shape *sample,
                                    const struct fst_layout **out, fst_error *err);
/* f32 with strides of one's own, in elements. */
fst_status fdn_part(struct fst_context *c, int rank, const int64_t *dims, const int64_t *strides,
                    const struct fst_layout **out, fst_error *err);
/* Plain f32. */
fst_status fdn_plain(struct fst_context *c, int64_t rows, const fst_shape *sample, const struct fst_layout **out,
                     fst_error *err);
size_t fdn_bytes(const struct fst_layout *l);
size_t fdn_elements(const struct fst_layout *l); /* with the padding of blocks */
dnnl_data_type_t fdn_type(const struct fst_layout *l);
bool fdn_half(const struct fst_layout *l);
bool fdn_equal(const struct fst_layout *a, const struct fst_layout *b);
fst_status fdn_queried(struct fst_context *c, const_dnnl_primitive_desc_t pd, dnnl_query_t what,
                       const struct fst_layout **out, fst_error *err);
struct kernel *fdn_new_kernel(struct fst_context *c, struct fst_op *op, const char *name, bool backward,
                              fst_error *err);
fst_status fdn_bind(struct kernel *k, int arg, const struct fst_layout *l, struct place at, fst_error *err);
size_t fdn_round64(size_t n);
/* Makes the primitive of pd, with its scratchpad at `offset` of the op's scratch. pd is destroyed, also on failure. */
fst_status fdn_finish(struct kernel *k, struct fst_op *op, dnnl_primitive_desc_t pd, size_t offset, fst_error *err);
fst_status fdn_new_reorder(struct fst_context *c, struct fst_op *op, const char *name, bool backward,
                           const struct fst_layout *from, struct place source, const struct fst_layout *to,
                           struct place target, struct kernel **out, fst_error *err);
void *fdn_pointer(const struct fst_op_args *a, struct place at);
fst_status fdn_run_primitive(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err);

/* A kernel that is a loop of ours, run as spans on the context's threads; the last one made is c->kernels. */
fst_status fdn_add_loop(struct fst_context *c, struct fst_op *op, const char *name, bool backward, fdn_span span,
                        const struct fst_node *n, const struct fst_layout *l, fst_error *err);
/* One that is not cut. */
fst_status fdn_add_call(struct fst_context *c, struct fst_op *op, const char *name, bool backward, fst_kernel_fn run,
                        const struct fst_node *n, fst_error *err);
/* The gradient of a ReLU that was computed after this op: a mask on the gradient, in place. */
fst_status fdn_add_mask(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err);
fst_status fdn_accumulate(struct fst_context *c, const struct fst_layout *l, struct fst_kernel **out, fst_error *err);

typedef fst_status fdn_maker(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err);
fdn_maker fdn_weighted_op, fdn_relu_op, fdn_relu6_op, fdn_add_op, fdn_plain_op, fdn_blocked_maxpool_op, fdn_spectral_op,
    fdn_scale_op, fdn_attention_op, fdn_norm_op;
/* complex.c, complex_loops.c */
fdn_maker fdn_complex_weighted_op, fdn_complex_norm_op, fdn_time_freq_op;
/* int8.c */
fdn_maker fdn_quantise_op, fdn_int8_op, fdn_int8_pool_op, fdn_round_int8_op;
bool fdn_has_int8(void); /* with exact sums */
/* The kernels of one node. */
fdn_maker fdn_op;

/* ---- conv.c: convolution and linear -------------------------------------------------------- */

/* One of them while it is built. An op of several (complex numbers) makes each with places of its own. */
struct fdn_weighted {
    struct fst_context *c;
    const struct fst_op_request *r;
    struct fst_op *op;
    int64_t rows;
    bool conv, bias, relu, relu6;
    bool blocks; /* channels in blocks: what inference chooses otherwise may have them last */
    const struct fst_node *fold;
    struct place in, out, grad_out, grad_in; /* of values and their gradients */
    struct place weight, bias_at, grad_weight, grad_bias;
    const struct fst_layout *src, *dst;             /* wanted before, chosen after fdn_weighted_forward */
    size_t scratch_at;                              /* scratch that is the caller's */
    const struct fst_layout *weights, *bias_layout; /* plain, as in the parameter span */
    const struct fst_layout *any_weights;
    struct fdn_window window;
    dnnl_primitive_desc_t hint;
};
/* The shape of a layer's weights, and of a convolution the steps and edges of its window; returns the rank. */
int fdn_weight_dims(const struct fst_node *n, bool conv, int64_t dims[5], struct fdn_window *window);
/* For the node of r, with the op's usual places. */
fst_status fdn_weighted_init(struct fdn_weighted *w, struct fst_context *c, const struct fst_op_request *r,
                             struct fst_op *op, fst_error *err);
fst_status fdn_weighted_forward(struct fdn_weighted *w, fst_error *err);
/* The op's own layouts, after fdn_weighted_forward: those of the primitive, with tokens taken apart again. */
fst_status fdn_weighted_ends(struct fdn_weighted *w, fst_error *err);
fst_status fdn_weighted_backward_weights(struct fdn_weighted *w, fst_error *err);
fst_status fdn_weighted_backward_data(struct fdn_weighted *w, fst_error *err);
void fdn_weighted_release(struct fdn_weighted *w);
/* Parts of fdn_weighted_forward: the primitive of w's layouts, in w->hint; room in what inference holds; a batch norm
 * that is multiplied into weights and bias, which go there, plain. */
dnnl_status_t fdn_describe_forward(struct fdn_weighted *w);
struct place fdn_take_held(struct fst_op *op, const struct fst_layout *l);
struct place fdn_take_held_bytes(struct fst_op *op, size_t bytes);
fst_status fdn_add_fold(struct fdn_weighted *w, struct place to, struct place bias, fst_error *err);

/* ---- halves.c: layers of a single sample in two halves ------------------------------------------ */

/* From now on they are cut where that is worth it, and shared by the pool's threads unless it is NULL. */
void fdn_share(struct fst_context *c, fst_pool *pool);
bool fdn_worth_halves(const struct fdn_weighted *w);
/* After the whole's primitive is described, whose layouts stay: the kernels of the two halves instead, or none at all
 * (*made) where a half has no primitive. */
fst_status fdn_make_halves(struct fdn_weighted *w, bool *made, fst_error *err);

#endif

/*
 * What a backend is: the maker of kernels. The plan asks it for the kernels of each node, tells it the
 * layout that the node's input has, learns the layouts that the node wants and gives, and then only calls
 * kernels with pointers. A backend context belongs to one plan and is used from one thread at a time.
 */
#ifndef FST_NN_BACKEND_H
#define FST_NN_BACKEND_H

#include "forms.h"

/* Opaque to the plan; owned by the context, valid until it is closed. Gradients have the layout of
 * the value whose gradient they are. */
struct fst_layout;
struct fst_context;

/*
 * The shards of a batch that meet. Batch norm needs sums over the whole batch: each shard leaves its part in memory
 * that the others may read, all shards come to the end of that kernel (fst_kernel.meet), and each then adds up the
 * parts of all, in their order. A plan that runs alone is one shard of one.
 */
struct fst_peers {
    int shard, shards;            /* which of how many */
    const int64_t *rows;          /* by shard: samples that count, the first of its batch; the others are padding */
    unsigned char *const *memory; /* by shard: its shared memory */
};

/* The memory of one call. Pointers that a kernel has no use for may be NULL. */
struct fst_op_args {
    int64_t batch;
    bool training, frozen; /* frozen: running statistics, no dropout */
    const float *in, *more_in[FST_NODE_MORE];
    float *out;
    float *grad_out; /* backward; a kernel may change it in place */
    float *grad_in;  /* backward; NULL when nobody wants it */
    float *more_grad_in[FST_NODE_MORE];
    const float *param[FST_NODE_PARAMS];
    float *grad_param[FST_NODE_PARAMS];
    float *buffer[FST_NODE_BUFFERS];
    int64_t *counter;
    void *saved, *scratch;
    void *held; /* inference: written by kernels that prepare, kept until the next time */
    const float *fold_param[2], *fold_buffer[2]; /* of a batch norm that is folded into the op */
    const fst_draws *draws;
    const struct fst_peers *peers;
    size_t shared_at;               /* of this call in every shard's shared memory */
    const struct fst_form *factors; /* of an op that leaves its weights' gradient as factors: where in */
    float *factor_grads;            /* this span of gradients */
    size_t factor_row;              /* the first of its rows */
};

static inline int64_t fst__rows(const struct fst_op_args *a) /* samples of this shard that count */
{
    return a->peers->rows[a->peers->shard];
}

static inline void *fst__shared(const struct fst_op_args *a, int shard)
{
    return a->peers->memory[shard] + a->shared_at;
}

struct fst_kernel;
typedef fst_status (*fst_kernel_fn)(struct fst_kernel *k, const struct fst_op_args *a, fst_error *err);
struct fst_kernel {
    fst_kernel_fn run;
    const char *name;
    bool compute, backward;
    bool prepare; /* forward, of an inference plan: needed only when the state has changed */
    bool meet;    /* all shards of the batch must have run it before one goes on */
};

enum { FST_OP_KERNELS = 20 };

struct fst_op_request {
    const struct fst_node *node;
    int64_t batch;             /* rows: samples, times two for an op from complex to complex values */
    int64_t in_rows, out_rows; /* differ from it where real values become complex or the other way round */
    bool training, frozen;
    bool relu;                       /* a ReLU after the op is to be computed by it */
    bool relu6;                      /* the same with a ReLU6 */
    bool add;                        /* before that, the sum with another value, which is more[0] */
    const struct fst_node *fold;     /* a batch norm after the op that it computes too, in inference */
    const struct fst_node *quantise; /* of a layer in int8: the rounding of what comes out after all that */
    bool relu_elsewhere;             /* ... but its gradient is taken by the pooling after it */
    bool mask_output;                /* a pooling that takes the gradient of the ReLU before it: where its output is not
                                        above 0 its output's gradient is 0 (max and ReLU commute) */
    bool factors, blocks;            /* the gradient of the weights may be left in that form (forms.h) */
    bool want_grad_in;
    bool want_more[FST_NODE_MORE];
    const struct fst_layout *in, *more[FST_NODE_MORE];
};

struct fst_op {
    const struct fst_layout *in, *out, *more[FST_NODE_MORE];
    bool alias;                                /* out is in, grad_in is grad_out: no kernels */
    bool factors;                              /* the gradient of the weights is left as its factors */
    int grad_block;                            /* the gradient of the weights is left in blocks of so many; 0: not */
    bool moves_grad;                           /* grad_in is grad_out, perhaps changed in place */
    bool keep_in, keep_more, keep_out;         /* backward reads in, the further inputs, out */
    size_t saved;                              /* bytes that live from forward to backward */
    size_t held;                               /* bytes that live from one pass to the next (inference) */
    size_t scratch;                            /* bytes that live from one kernel of the op to the next */
    size_t shared;                             /* bytes that the other shards of the batch may read */
    struct fst_kernel *kernel[FST_OP_KERNELS]; /* forward ones first */
    int kernels;
    /* How a training plan may make out again, with the same bits, from in, more, saved and parameters, changing nothing
     * else: a kernel for that, or the forward kernels once more. Neither: out is kept as long as it is needed. */
    struct fst_kernel *again;
    bool pure;
};

struct fst_backend {
    const char *name;
    const char *(*describe)(void);
    bool (*supports)(fst_precision p);
    fst_status (*open)(struct fst_context **out, int threads, fst_precision precision, fst_error *err);
    void (*close)(struct fst_context *c); /* with all its layouts, ops and kernels */
    /* Layers of a single sample may be cut in halves, by shapes alone, that the threads of the pool share; NULL: one
     * thread computes both. Before any op is made. May itself be NULL: nothing is cut. */
    void (*share)(struct fst_context *c, fst_pool *pool);
    /* Before a pass, on the thread that will run it. */
    void (*enter)(struct fst_context *c);
    /* The plain row-major layout of (batch, sample...). */
    fst_status (*plain)(struct fst_context *c, int64_t batch, const fst_shape *sample, const struct fst_layout **out,
                        fst_error *err);
    bool (*equal)(const struct fst_layout *a, const struct fst_layout *b);
    size_t (*bytes)(const struct fst_layout *l);
    bool (*half)(const struct fst_layout *l); /* its values are bf16, else float */
    /* Does the op of n compute the node after it too? Asked of ReLU, ReLU6, batch norm, sums and quantise;
     * batch_statistics: in training that is not frozen. */
    bool (*fuses)(const struct fst_node *n, const struct fst_node *behind, bool training, bool batch_statistics);
    fst_status (*op)(struct fst_context *c, const struct fst_op_request *r, struct fst_op *out, fst_error *err);
    /* out += in, both in that layout. */
    fst_status (*accumulate)(struct fst_context *c, const struct fst_layout *l, struct fst_kernel **out,
                             fst_error *err);
    /* Gives back what is kept of contexts that are closed; NULL: nothing is. Any thread. */
    void (*forget)(void);
    /* A kernel that copies in to out. */
    fst_status (*reorder)(struct fst_context *c, const struct fst_layout *from, const struct fst_layout *to,
                          struct fst_kernel **out, fst_error *err);
};

extern const struct fst_backend fst__backend_reference, fst__backend_vector;
#ifdef FST_WITH_ONEDNN
extern const struct fst_backend fst__backend_onednn;
#endif
/* NULL name: the first. */
fst_status fst__backend_find(const char *name, const struct fst_backend **out, fst_error *err);

#endif

/* Between backend_onednn.c (contexts, layouts, kernels) and onednn_ops.c (the ops), and for nobody else. */
#ifndef FST_NN_ONEDNN_H
#define FST_NN_ONEDNN_H

#include "onednn_compat.h"
#include "ops.h"

struct fst_layout {
    fdn_md_store md;
    struct fst_layout *next;
};

enum field { IN, OUT, GRAD_OUT, GRAD_IN, PARAM0, PARAM1, GRAD_PARAM0, GRAD_PARAM1, BUFFER0, BUFFER1, SAVED, SCRATCH };
enum { MAX_ARGS = 12 };

struct binding { /* an argument of a primitive: where its pointer comes from */
    enum field field;
    size_t offset;
    const void *last; /* what the memory object points at now */
};

struct kernel {
    struct fst_kernel base; /* first: a struct fst_kernel * is a struct kernel * */
    struct fst_context *context;
    dnnl_primitive_t primitive;
    dnnl_exec_arg_t args[MAX_ARGS];
    struct binding bind[MAX_ARGS];
    int nargs;
    const struct fst_node *node; /* of kernels that are loops of ours */
    size_t elements;
    struct fst_blocked_pool pool;
    bool mask;
    struct kernel *next;
};

struct fst_context {
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    dnnl_primitive_attr_t attr, attr_relu;
    int threads;
    struct fst_layout *layouts;
    struct kernel *kernels;
};

fst_status fdn_failed(dnnl_status_t s, const char *what, fst_error *err);
fst_status fdn_tagged(struct fst_context *c, int rank, const int64_t *dims, bool any, const struct fst_layout **out,
                      fst_error *err);
fst_status fdn_sample_layout(struct fst_context *c, int64_t batch, const fst_shape *sample, bool any,
                             const struct fst_layout **out, fst_error *err);
fst_status fdn_plain(struct fst_context *c, int64_t batch, const fst_shape *sample, const struct fst_layout **out,
                     fst_error *err);
size_t fdn_bytes(const struct fst_layout *l);
bool fdn_equal(const struct fst_layout *a, const struct fst_layout *b);
fst_status fdn_queried(struct fst_context *c, const_dnnl_primitive_desc_t pd, dnnl_query_t what,
                       const struct fst_layout **out, fst_error *err);
struct kernel *fdn_new_kernel(struct fst_context *c, struct fst_op *op, const char *name, bool backward,
                              fst_error *err);
fst_status fdn_bind(struct kernel *k, int arg, const struct fst_layout *l, enum field f, size_t offset, fst_error *err);
size_t fdn_round64(size_t n);
fst_status fdn_finish(struct kernel *k, struct fst_op *op, dnnl_primitive_desc_t pd, size_t offset, fst_error *err);
fst_status fdn_new_reorder(struct fst_context *c, struct fst_op *op, const char *name, bool backward,
                           const struct fst_layout *from, enum field f, const struct fst_layout *to, enum field t,
                           struct kernel **out, fst_error *err);
fst_status fdn_accumulate(struct fst_context *c, const struct fst_layout *l, struct fst_kernel **out, fst_error *err);
/* The kernels of one node. */
fst_status fdn_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *out, fst_error *err);

#endif

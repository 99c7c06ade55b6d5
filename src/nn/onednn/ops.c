/* The ops on oneDNN that are neither convolutions, norms nor loops of ours: pooling; and which maker makes what. */
#include <string.h>

#include "onednn.h"

#define AT(f) ((struct place){f, 0})

/* The layout of samples in the type that `as` has: the primitive's choice, or plain. */
static fst_status like(struct fst_context *c, const struct fst_layout *as, int64_t rows, const fst_shape *sample,
                       const struct fst_layout **out, fst_error *err)
{
    return fdn_samples(c, fdn_type(as), rows, sample, true, out, err);
}

static fst_status plain_like(struct fst_context *c, const struct fst_layout *as, int64_t rows, const fst_shape *sample,
                             const struct fst_layout **out, fst_error *err)
{
    return fdn_samples(c, fdn_type(as), rows, sample, false, out, err);
}

/* ---- pooling ------------------------------------------------------------------------------------- */

struct pooling { /* max or average, while being built */
    struct fst_context *c;
    const struct fst_op_request *r;
    struct fst_op *op;
    dnnl_alg_kind_t alg;
    struct fdn_window window;
    const struct fst_layout *workspace; /* which element won; NULL for averages and inference */
};

static fst_status pool_backward(struct pooling *p, const_dnnl_primitive_desc_t hint, fst_error *err)
{
    dnnl_primitive_desc_t pd;
    struct fst_op *op = p->op;
    fst_status s = fdn_add_mask(p->c, p->r, op, err);
    if (s)
        return s;
    dnnl_status_t ds = fdn_pool_backward(&pd, p->c->engine, p->alg, FDN_MD(op->in->md), FDN_MD(op->out->md), &p->window,
                                         hint, p->c->attr);
    if (ds)
        return fdn_failed(ds, "backward", err);
    struct kernel *k = fdn_new_kernel(p->c, op, "pool backward", true, err);
    s = k ? FST_OK : FST_E_MEMORY;
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_DST, op->out, AT(GRAD_OUT), err);
    if (!s && p->workspace)
        s = fdn_bind(k, DNNL_ARG_WORKSPACE, p->workspace, AT(SAVED), err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_SRC, op->in, AT(GRAD_IN), err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    return fdn_finish(k, op, pd, 0, err);
}

static fst_status pool_forward(struct pooling *p, const_dnnl_primitive_desc_t pd, fst_error *err)
{
    dnnl_primitive_desc_t copy;
    struct fst_op *op = p->op;
    struct kernel *k = fdn_new_kernel(p->c, op, "pool forward", false, err);
    fst_status s = k ? FST_OK : FST_E_MEMORY;
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SRC, op->in, AT(IN), err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DST, op->out, AT(OUT), err);
    if (!s && p->workspace) {
        op->saved = fdn_bytes(p->workspace);
        s = fdn_bind(k, DNNL_ARG_WORKSPACE, p->workspace, AT(SAVED), err);
    }
    if (s)
        return s;
    dnnl_status_t ds = dnnl_primitive_desc_clone(&copy, pd);
    return ds ? fdn_failed(ds, "forward", err) : fdn_finish(k, op, copy, 0, err);
}

/* Windows that do not overlap, channels in blocks: a loop of ours is several times faster than 2.6's kernel. */
static bool suits_blocked_pool(const struct fst_node *n, const struct fst_op *op)
{
    return n->u.pool.stride == n->u.pool.kernel && n->u.pool.padding == 0 && n->u.pool.kernel <= 15 &&
           fdn_channel_block(FDN_MD(op->in->md)) == FST_POOL_BLOCK &&
           fdn_channel_block(FDN_MD(op->out->md)) == FST_POOL_BLOCK;
}

static fst_status build_pool(struct pooling *p, dnnl_primitive_desc_t pd, fst_error *err)
{
    bool max = p->alg == dnnl_pooling_max;
    fst_status s = fdn_queried(p->c, pd, dnnl_query_dst_md, &p->op->out, err);
    if (!s && max && suits_blocked_pool(p->r->node, p->op))
        return fdn_blocked_maxpool_op(p->c, p->r, p->op, err);
    if (!s && max && p->r->training)
        s = fdn_queried(p->c, pd, dnnl_query_workspace_md, &p->workspace, err);
    if (!s)
        s = pool_forward(p, pd, err);
    if (!s && p->r->training && p->r->want_grad_in)
        s = pool_backward(p, pd, err);
    return s;
}

static fst_status pool_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    const struct fst_node *n = r->node;
    const struct fst_layout *dst;
    struct pooling p = {.c = c, .r = r, .op = op, .alg = dnnl_pooling_max};
    dnnl_primitive_desc_t pd;
    bool max = n->kind == FST_OP_MAXPOOL2D;
    if (n->int8.on && fdn_has_int8())
        return fdn_int8_pool_op(c, r, op, err);
    for (int i = 0; i < 2; i++) {
        p.window.kernel[i] = max ? n->u.pool.kernel : n->u.average.kernel[i];
        p.window.strides[i] = max ? n->u.pool.stride : n->u.average.stride[i];
        p.window.padding[i] = max ? n->u.pool.padding : n->u.average.padding[i];
    }
    if (!max)
        p.alg = n->u.average.count_padding ? dnnl_pooling_avg_include_padding : dnnl_pooling_avg_exclude_padding;
    op->in = r->in;
    fst_status s = like(c, r->in, r->batch, &n->out, &dst, err);
    if (s)
        return s;
    dnnl_status_t ds = fdn_pool_forward(&pd, c->engine, r->training ? dnnl_forward_training : dnnl_forward_inference,
                                        p.alg, FDN_MD(op->in->md), FDN_MD(dst->md), &p.window, c->attr);
    if (ds)
        return fdn_failed(ds, "forward", err);
    s = build_pool(&p, pd, err);
    dnnl_primitive_desc_destroy(pd);
    return s;
}

/* ---- the rest ---------------------------------------------------------------------------------------- */
static fst_status flatten_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    op->alias = true;
    fst_status s = plain_like(c, r->in, r->batch, &r->node->in, &op->in, err);
    return s ? s : plain_like(c, r->in, r->batch, &r->node->out, &op->out, err);
}

static fst_status dropout_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    if (!r->training || r->frozen) {
        op->alias = true;
        op->in = op->out = r->in;
        return FST_OK;
    }
    return fdn_plain_op(c, r, op, err);
}

fst_status fdn_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *out, fst_error *err)
{
    static fdn_maker *const makers[FST_OP_KINDS] = {
        [FST_OP_CONV2D] = fdn_weighted_op,
        [FST_OP_LINEAR] = fdn_weighted_op,
        [FST_OP_RELU] = fdn_relu_op,
        [FST_OP_MAXPOOL2D] = pool_op,
        [FST_OP_FLATTEN] = flatten_op,
        [FST_OP_DROPOUT] = dropout_op,
        [FST_OP_BATCHNORM2D] = fdn_norm_op,
        [FST_OP_ADD] = fdn_add_op,
        [FST_OP_CONCAT] = fdn_plain_op,
        [FST_OP_AVGPOOL2D] = pool_op,
        [FST_OP_RELU6] = fdn_relu6_op,
        [FST_OP_SIGMOID] = fdn_plain_op,
        [FST_OP_GELU_TANH] = fdn_plain_op,
        [FST_OP_SOFTMAX] = fdn_plain_op,
        [FST_OP_GROUPNORM] = fdn_plain_op,
        [FST_OP_LAYERNORM] = fdn_plain_op,
        [FST_OP_SPECTRAL_LINEAR] = fdn_spectral_op,
        [FST_OP_TRANSPOSE] = fdn_plain_op,
        [FST_OP_SCALE] = fdn_scale_op,
        [FST_OP_ATTENTION] = fdn_attention_op,
        [FST_OP_COMPLEX_FROM_PARTS] = fdn_plain_op,
        [FST_OP_COMPLEX_TO_PARTS] = fdn_plain_op,
        [FST_OP_MAGNITUDE] = fdn_plain_op,
        [FST_OP_COMPLEX_CONV2D] = fdn_complex_weighted_op,
        [FST_OP_COMPLEX_LINEAR] = fdn_complex_weighted_op,
        [FST_OP_COMPLEX_BATCHNORM] = fdn_complex_norm_op,
        [FST_OP_TIME_FREQ_ATTENTION] = fdn_time_freq_op,
        [FST_OP_QUANTISE] = fdn_quantise_op,
        [FST_OP_INT8_CONV2D] = fdn_int8_op,
        [FST_OP_INT8_LINEAR] = fdn_int8_op,
        [FST_OP_ROUND_INT8] = fdn_round_int8_op,
    };
    struct fst_op o = {0};
    fst_status s = makers[r->node->kind](c, r, &o, err);
    if (!s)
        *out = o;
    return s;
}

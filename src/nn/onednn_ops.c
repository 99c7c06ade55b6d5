/* The ops on oneDNN that are neither convolutions nor loops of ours: pooling, batch norm; and which maker makes what.
 */
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

/* ---- batch norm ------------------------------------------------------------------------------------ */

static fst_status run_statistics(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    const float *mean = a->saved;
    (void)err;
    fst__batchnorm_update(n, a, mean, mean + n->in.dim[0]);
    return FST_OK;
}

struct norm {
    struct fst_context *c;
    const struct fst_op_request *r;
    struct fst_op *op;
    unsigned flags;
    bool global; /* running statistics */
    const struct fst_layout *channel, *workspace;
    size_t workspace_at;
};

static fst_status bind_statistics(const struct norm *m, struct kernel *k, fst_error *err)
{
    struct place variance = {SAVED, (size_t)m->r->node->in.dim[0] * sizeof(float)};
    fst_status s = fdn_bind(k, DNNL_ARG_MEAN, m->channel, AT(m->global ? BUFFER0 : SAVED), err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_VARIANCE, m->channel, m->global ? AT(BUFFER1) : variance, err);
    if (!s && m->workspace)
        s = fdn_bind(k, DNNL_ARG_WORKSPACE, m->workspace, (struct place){SAVED, m->workspace_at}, err);
    return s;
}

static fst_status norm_forward(struct norm *m, dnnl_primitive_desc_t pd, fst_error *err)
{
    const struct fst_node *n = m->r->node;
    dnnl_primitive_desc_t copy;
    struct kernel *k = fdn_new_kernel(m->c, m->op, "batchnorm forward", false, err);
    fst_status s = k ? FST_OK : FST_E_MEMORY;
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SRC, m->op->in, AT(IN), err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DST, m->op->out, AT(OUT), err);
    if (!s)
        s = bind_statistics(m, k, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SCALE, m->channel, AT(PARAM0), err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SHIFT, m->channel, AT(PARAM1), err);
    if (s)
        return s;
    dnnl_status_t ds = dnnl_primitive_desc_clone(&copy, pd);
    s = ds ? fdn_failed(ds, "forward", err) : fdn_finish(k, m->op, copy, 0, err);
    if (!s && !m->global)
        s = fdn_add_call(m->c, m->op, "running statistics", false, run_statistics, n, err);
    return s;
}

static fst_status norm_backward(struct norm *m, const_dnnl_primitive_desc_t hint, fst_error *err)
{
    dnnl_primitive_desc_t pd;
    fdn_md data = FDN_MD(m->op->in->md);
    dnnl_status_t ds = fdn_batchnorm_backward(&pd, m->c->engine, data, data, (float)m->r->node->u.norm.eps, m->flags,
                                              hint, m->c->attr);
    if (ds)
        return fdn_failed(ds, "backward", err);
    struct kernel *k = fdn_new_kernel(m->c, m->op, "batchnorm backward", true, err);
    fst_status s = k ? FST_OK : FST_E_MEMORY;
    size_t used = m->r->want_grad_in ? 0 : fdn_round64(fdn_bytes(m->op->in));
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SRC, m->op->in, AT(IN), err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_DST, m->op->out, AT(GRAD_OUT), err);
    if (!s) /* the primitive always writes the input's gradient; when nobody wants it, to the scratch */
        s = fdn_bind(k, DNNL_ARG_DIFF_SRC, m->op->in, AT(used ? SCRATCH : GRAD_IN), err);
    if (!s)
        s = bind_statistics(m, k, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SCALE, m->channel, AT(PARAM0), err);
    if (!s && FDN_NORM_BACKWARD_TAKES_SHIFT)
        s = fdn_bind(k, DNNL_ARG_SHIFT, m->channel, AT(PARAM1), err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_SCALE, m->channel, AT(GRAD_PARAM0), err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_SHIFT, m->channel, AT(GRAD_PARAM1), err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    return fdn_finish(k, m->op, pd, used, err);
}

static fst_status norm_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    const struct fst_node *n = r->node;
    struct norm m = {.c = c, .r = r, .op = op, .global = !r->training || r->frozen};
    dnnl_primitive_desc_t pd;
    m.flags = dnnl_use_scale | dnnl_use_shift;
    if (m.global)
        m.flags |= dnnl_use_global_stats;
    if (r->relu)
        m.flags |= dnnl_fuse_norm_relu;
    op->in = op->out = r->in;
    op->keep_in = true;
    fst_status s = fdn_tagged(c, dnnl_f32, 1, &n->in.dim[0], false, &m.channel, err);
    if (s)
        return s;
    dnnl_status_t ds =
        fdn_batchnorm_forward(&pd, c->engine, r->training ? dnnl_forward_training : dnnl_forward_inference,
                              FDN_MD(op->in->md), (float)n->u.norm.eps, m.flags, c->attr);
    if (ds)
        return fdn_failed(ds, "forward", err);
    m.workspace_at = fdn_round64(2 * (size_t)n->in.dim[0] * sizeof(float));
    op->saved = m.workspace_at;
    if (r->relu && r->training) {
        s = fdn_queried(c, pd, dnnl_query_workspace_md, &m.workspace, err);
        if (!s)
            op->saved += fdn_bytes(m.workspace);
    }
    if (!s)
        s = norm_forward(&m, pd, err);
    if (!s && r->training)
        s = norm_backward(&m, pd, err);
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
        [FST_OP_BATCHNORM2D] = norm_op,
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
    };
    struct fst_op o = {0};
    fst_status s = makers[r->node->kind](c, r, &o, err);
    if (!s)
        *out = o;
    return s;
}

/* The ops on oneDNN: convolution and linear (one maker for both), pooling, batch norm, and loops of ours where oneDNN
 * has no kernel or a slow one. */
#include <string.h>

#include "onednn.h"

/* ---- loops of ours -------------------------------------------------------------------------------- */

static fst_status run_mask(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    fst__relu_mask(a->out, a->grad_out, ((struct kernel *)base)->elements);
    return FST_OK;
}

static fst_status run_relu(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    fst__relu_forward(a->in, a->out, ((struct kernel *)base)->elements);
    return FST_OK;
}

static fst_status run_relu_backward(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    size_t n = ((struct kernel *)base)->elements;
    (void)err;
    if (a->grad_in) {
        memcpy(a->grad_in, a->grad_out, n * sizeof(float));
        fst__relu_mask(a->out, a->grad_in, n);
    }
    return FST_OK;
}

static fst_status run_statistics(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    const float *mean = a->saved;
    (void)err;
    fst__batchnorm_update(n, a, mean, mean + n->in.dim[0]);
    return FST_OK;
}

static fst_status run_plain_forward(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    (void)err;
    fst__op_types[n->kind]->forward(n, a);
    return FST_OK;
}

static fst_status run_plain_backward(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    (void)err;
    fst__op_types[n->kind]->backward(n, a);
    return FST_OK;
}

static fst_status add_loop(struct fst_context *c, struct fst_op *op, const char *name, bool backward, fst_kernel_fn run,
                           const struct fst_node *n, size_t elements, fst_error *err)
{
    struct kernel *k = fdn_new_kernel(c, op, name, backward, err);
    if (!k)
        return FST_E_MEMORY;
    k->base.run = run;
    k->node = n;
    k->elements = elements;
    return FST_OK;
}

/* The gradient of a ReLU that was computed behind this op: a mask on the gradient, in place. */
static fst_status add_mask(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    if (!(r->relu && !r->relu_elsewhere) && !r->mask_output)
        return FST_OK;
    op->keep_out = true;
    return add_loop(c, op, "relu backward", true, run_mask, r->node, fdn_bytes(op->out) / sizeof(float), err);
}

/* ---- convolution ----------------------------------------------------------------------------------- */

struct weighted { /* what convolution and linear have in common while being built */
    struct fst_context *c;
    const struct fst_op_request *r;
    struct fst_op *op;
    bool bias;
    const struct fst_layout *weights, *bias_layout; /* plain, as in the parameter span */
    const struct fst_layout *any_weights;
    struct fdn_window window;
};

static bool is_conv(const struct weighted *w)
{
    return w->r->node->kind == FST_OP_CONV2D;
}

static fst_status weights_layouts(struct weighted *w, fst_error *err)
{
    const struct fst_node *n = w->r->node;
    int64_t dims[5], rank = 0;
    if (is_conv(w)) {
        const fst_conv2d *o = &n->u.conv;
        if (o->groups > 1)
            dims[rank++] = o->groups;
        dims[rank++] = o->out_channels / o->groups;
        dims[rank++] = n->in.dim[0] / o->groups;
        dims[rank++] = o->kernel[0];
        dims[rank++] = o->kernel[1];
        for (int i = 0; i < 2; i++) {
            w->window.strides[i] = o->stride[i];
            w->window.padding[i] = o->padding[i];
        }
    } else {
        dims[rank++] = n->u.linear.out;
        dims[rank++] = n->in.dim[0];
    }
    w->bias = is_conv(w) ? n->u.conv.bias : n->u.linear.bias;
    int64_t out = n->out.dim[0];
    fst_status s = fdn_tagged(w->c, (int)rank, dims, false, &w->weights, err);
    if (!s)
        s = fdn_tagged(w->c, (int)rank, dims, is_conv(w), &w->any_weights, err);
    if (!s)
        s = fdn_tagged(w->c, 1, &out, false, &w->bias_layout, err);
    return s;
}

/* The weights in the layout `want`: in the span itself, or copied to the scratch first. */
static fst_status bring_weights(struct weighted *w, const struct fst_layout *want, bool backward, enum field *f,
                                size_t *used, fst_error *err)
{
    *f = PARAM0;
    *used = 0;
    if (fdn_equal(want, w->weights))
        return FST_OK;
    *f = SCRATCH;
    *used = fdn_round64(fdn_bytes(want));
    return fdn_new_reorder(w->c, w->op, "weights reorder", backward, w->weights, PARAM0, want, SCRATCH, NULL, err);
}

static fst_status weighted_forward(struct weighted *w, dnnl_primitive_desc_t *hint, fst_error *err)
{
    const struct fst_layout *src, *dst, *want;
    const struct fst_node *n = w->r->node;
    dnnl_primitive_desc_t pd = NULL;
    const_dnnl_primitive_attr_t attr = w->r->relu ? w->c->attr_relu : w->c->attr;
    dnnl_prop_kind_t prop = w->r->training ? dnnl_forward_training : dnnl_forward_inference;
    fdn_md bias = w->bias ? FDN_MD(w->bias_layout->md) : NULL;
    fst_status s = fdn_sample_layout(w->c, w->r->batch, &n->in, is_conv(w), &src, err);
    if (!s)
        s = fdn_sample_layout(w->c, w->r->batch, &n->out, is_conv(w), &dst, err);
    if (s)
        return s;
    dnnl_status_t ds = is_conv(w)
                           ? fdn_conv_forward(&pd, w->c->engine, prop, FDN_MD(src->md), FDN_MD(w->any_weights->md),
                                              bias, FDN_MD(dst->md), &w->window, attr)
                           : fdn_linear_forward(&pd, w->c->engine, prop, FDN_MD(src->md), FDN_MD(w->any_weights->md),
                                                bias, FDN_MD(dst->md), attr);
    if (ds)
        return fdn_failed(ds, "forward", err);
    enum field f;
    size_t used;
    s = fdn_queried(w->c, pd, dnnl_query_src_md, &w->op->in, err);
    if (!s)
        s = fdn_queried(w->c, pd, dnnl_query_dst_md, &w->op->out, err);
    if (!s)
        s = fdn_queried(w->c, pd, dnnl_query_weights_md, &want, err);
    if (!s)
        s = bring_weights(w, want, false, &f, &used, err);
    struct kernel *k = s ? NULL : fdn_new_kernel(w->c, w->op, "forward", false, err);
    if (!s && !k)
        s = FST_E_MEMORY;
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SRC, w->op->in, IN, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_WEIGHTS, want, f, 0, err);
    if (!s && w->bias)
        s = fdn_bind(k, DNNL_ARG_BIAS, w->bias_layout, PARAM1, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DST, w->op->out, OUT, 0, err);
    *hint = pd;
    if (s)
        return s;
    /* fdn_finish() destroys its descriptor, but this one is also the backward passes' hint. */
    dnnl_primitive_desc_t copy;
    ds = dnnl_primitive_desc_clone(&copy, pd);
    return ds ? fdn_failed(ds, "forward", err) : fdn_finish(k, w->op, copy, used, err);
}

static fst_status weighted_backward_weights(struct weighted *w, const_dnnl_primitive_desc_t hint, fst_error *err)
{
    dnnl_primitive_desc_t pd;
    fdn_md bias = w->bias ? FDN_MD(w->bias_layout->md) : NULL;
    fdn_md src = FDN_MD(w->op->in->md), dst = FDN_MD(w->op->out->md), weights = FDN_MD(w->any_weights->md);
    dnnl_status_t ds =
        is_conv(w) ? fdn_conv_backward_weights(&pd, w->c->engine, src, weights, bias, dst, &w->window, hint, w->c->attr)
                   : fdn_linear_backward_weights(&pd, w->c->engine, src, weights, bias, dst, hint, w->c->attr);
    if (ds)
        return fdn_failed(ds, "backward weights", err);
    const struct fst_layout *want = NULL;
    fst_status s = fdn_queried(w->c, pd, dnnl_query_diff_weights_md, &want, err);
    struct kernel *k = s ? NULL : fdn_new_kernel(w->c, w->op, "backward weights", true, err);
    if (!k) {
        dnnl_primitive_desc_destroy(pd);
        return s ? s : FST_E_MEMORY;
    }
    bool direct = fdn_equal(want, w->weights);
    size_t used = direct ? 0 : fdn_round64(fdn_bytes(want));
    s = fdn_bind(k, DNNL_ARG_SRC, w->op->in, IN, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_DST, w->op->out, GRAD_OUT, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_WEIGHTS, want, direct ? GRAD_PARAM0 : SCRATCH, 0, err);
    if (!s && w->bias)
        s = fdn_bind(k, DNNL_ARG_DIFF_BIAS, w->bias_layout, GRAD_PARAM1, 0, err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    s = fdn_finish(k, w->op, pd, used, err);
    if (s || direct)
        return s;
    return fdn_new_reorder(w->c, w->op, "gradient reorder", true, want, SCRATCH, w->weights, GRAD_PARAM0, NULL, err);
}

static fst_status weighted_backward_data(struct weighted *w, const_dnnl_primitive_desc_t hint, fst_error *err)
{
    dnnl_primitive_desc_t pd;
    fdn_md src = FDN_MD(w->op->in->md), dst = FDN_MD(w->op->out->md), weights = FDN_MD(w->any_weights->md);
    dnnl_status_t ds = is_conv(w)
                           ? fdn_conv_backward_data(&pd, w->c->engine, src, weights, dst, &w->window, hint, w->c->attr)
                           : fdn_linear_backward_data(&pd, w->c->engine, src, weights, dst, hint, w->c->attr);
    if (ds)
        return fdn_failed(ds, "backward data", err);
    const struct fst_layout *want = NULL;
    enum field f;
    size_t used;
    fst_status s = fdn_queried(w->c, pd, dnnl_query_weights_md, &want, err);
    if (!s)
        s = bring_weights(w, want, true, &f, &used, err);
    struct kernel *k = s ? NULL : fdn_new_kernel(w->c, w->op, "backward data", true, err);
    if (!s && !k)
        s = FST_E_MEMORY;
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_DST, w->op->out, GRAD_OUT, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_WEIGHTS, want, f, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_SRC, w->op->in, GRAD_IN, 0, err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    return fdn_finish(k, w->op, pd, used, err);
}

static fst_status weighted_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    struct weighted w = {.c = c, .r = r, .op = op};
    dnnl_primitive_desc_t hint = NULL;
    fst_status s = weights_layouts(&w, err);
    if (!s)
        s = weighted_forward(&w, &hint, err);
    if (!s && r->training) {
        op->keep_in = true;
        s = add_mask(c, r, op, err);
        if (!s)
            s = weighted_backward_weights(&w, hint, err);
        if (!s && r->want_grad_in)
            s = weighted_backward_data(&w, hint, err);
    }
    if (hint)
        dnnl_primitive_desc_destroy(hint);
    return s;
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
    fst_status s = add_mask(p->c, p->r, op, err);
    if (s)
        return s;
    dnnl_status_t ds = fdn_pool_backward(&pd, p->c->engine, p->alg, FDN_MD(op->in->md), FDN_MD(op->out->md), &p->window,
                                         hint, p->c->attr);
    if (ds)
        return fdn_failed(ds, "backward", err);
    struct kernel *k = fdn_new_kernel(p->c, op, "pool backward", true, err);
    s = k ? FST_OK : FST_E_MEMORY;
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_DST, op->out, GRAD_OUT, 0, err);
    if (!s && p->workspace)
        s = fdn_bind(k, DNNL_ARG_WORKSPACE, p->workspace, SAVED, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_SRC, op->in, GRAD_IN, 0, err);
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
        s = fdn_bind(k, DNNL_ARG_SRC, op->in, IN, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DST, op->out, OUT, 0, err);
    if (!s && p->workspace) {
        op->saved = fdn_bytes(p->workspace);
        s = fdn_bind(k, DNNL_ARG_WORKSPACE, p->workspace, SAVED, 0, err);
    }
    if (s)
        return s;
    dnnl_status_t ds = dnnl_primitive_desc_clone(&copy, pd);
    return ds ? fdn_failed(ds, "forward", err) : fdn_finish(k, op, copy, 0, err);
}

/* Windows that do not overlap, channels in blocks: a loop of ours is several times faster than 2.6's kernel. */
static struct fst_blocked_pool blocked_pool(const struct fst_node *n, const struct fst_op *op)
{
    size_t plane = (size_t)(n->in.dim[1] * n->in.dim[2]) * FST_POOL_BLOCK * sizeof(float);
    return (struct fst_blocked_pool){.images = (int64_t)(fdn_bytes(op->in) / plane),
                                     .height = n->in.dim[1],
                                     .width = n->in.dim[2],
                                     .out_height = n->out.dim[1],
                                     .out_width = n->out.dim[2],
                                     .kernel = n->u.pool.kernel};
}

static fst_status run_pool(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    fst__maxpool_blocked_forward(&((struct kernel *)base)->pool, a->in, a->out, a->saved);
    return FST_OK;
}

static fst_status run_pool_backward(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    struct kernel *k = (struct kernel *)base;
    (void)err;
    fst__maxpool_blocked_backward(&k->pool, a->out, a->grad_out, a->saved, k->mask, a->grad_in);
    return FST_OK;
}

static bool suits_blocked_pool(const struct fst_node *n, const struct fst_op *op)
{
    return n->u.pool.stride == n->u.pool.kernel && n->u.pool.padding == 0 && n->u.pool.kernel <= 15 &&
           fdn_channel_block(FDN_MD(op->in->md)) == FST_POOL_BLOCK &&
           fdn_channel_block(FDN_MD(op->out->md)) == FST_POOL_BLOCK;
}

static fst_status blocked_maxpool_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op,
                                     fst_error *err)
{
    struct fst_blocked_pool pool = blocked_pool(r->node, op);
    fst_status s = add_loop(c, op, "maxpool forward", false, run_pool, r->node, 0, err);
    if (s)
        return s;
    c->kernels->pool = pool;
    op->saved = fdn_bytes(op->out) / sizeof(float); /* a byte an output; inference ignores them */
    if (!r->training || !r->want_grad_in)
        return FST_OK;
    op->keep_out = r->mask_output;
    s = add_loop(c, op, "maxpool backward", true, run_pool_backward, r->node, 0, err);
    if (s)
        return s;
    c->kernels->pool = pool;
    c->kernels->mask = r->mask_output;
    return FST_OK;
}

static fst_status build_pool(struct pooling *p, dnnl_primitive_desc_t pd, fst_error *err)
{
    bool max = p->alg == dnnl_pooling_max;
    fst_status s = fdn_queried(p->c, pd, dnnl_query_dst_md, &p->op->out, err);
    if (!s && max && suits_blocked_pool(p->r->node, p->op))
        return blocked_maxpool_op(p->c, p->r, p->op, err);
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
    fst_status s = fdn_sample_layout(c, r->batch, &n->out, true, &dst, err);
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
    fst_status s = fdn_bind(k, DNNL_ARG_MEAN, m->channel, m->global ? BUFFER0 : SAVED, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_VARIANCE, m->channel, m->global ? BUFFER1 : SAVED,
                     m->global ? 0 : (size_t)m->r->node->in.dim[0] * sizeof(float), err);
    if (!s && m->workspace)
        s = fdn_bind(k, DNNL_ARG_WORKSPACE, m->workspace, SAVED, m->workspace_at, err);
    return s;
}

static fst_status norm_forward(struct norm *m, dnnl_primitive_desc_t pd, fst_error *err)
{
    const struct fst_node *n = m->r->node;
    dnnl_primitive_desc_t copy;
    struct kernel *k = fdn_new_kernel(m->c, m->op, "batchnorm forward", false, err);
    fst_status s = k ? FST_OK : FST_E_MEMORY;
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SRC, m->op->in, IN, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DST, m->op->out, OUT, 0, err);
    if (!s)
        s = bind_statistics(m, k, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SCALE, m->channel, PARAM0, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SHIFT, m->channel, PARAM1, 0, err);
    if (s)
        return s;
    dnnl_status_t ds = dnnl_primitive_desc_clone(&copy, pd);
    s = ds ? fdn_failed(ds, "forward", err) : fdn_finish(k, m->op, copy, 0, err);
    if (!s && !m->global)
        s = add_loop(m->c, m->op, "running statistics", false, run_statistics, n, 0, err);
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
        s = fdn_bind(k, DNNL_ARG_SRC, m->op->in, IN, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_DST, m->op->out, GRAD_OUT, 0, err);
    if (!s) /* the primitive always writes the input's gradient; when nobody wants it, to the scratch */
        s = fdn_bind(k, DNNL_ARG_DIFF_SRC, m->op->in, used ? SCRATCH : GRAD_IN, 0, err);
    if (!s)
        s = bind_statistics(m, k, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SCALE, m->channel, PARAM0, 0, err);
    if (!s && FDN_NORM_BACKWARD_TAKES_SHIFT)
        s = fdn_bind(k, DNNL_ARG_SHIFT, m->channel, PARAM1, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_SCALE, m->channel, GRAD_PARAM0, 0, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_SHIFT, m->channel, GRAD_PARAM1, 0, err);
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
    fst_status s = fdn_tagged(c, 1, &n->in.dim[0], false, &m.channel, err);
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

static fst_status relu_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    size_t elements = fdn_bytes(r->in) / sizeof(float);
    op->in = op->out = r->in;
    fst_status s = add_loop(c, op, "relu forward", false, run_relu, r->node, elements, err);
    if (s || !r->training)
        return s;
    op->keep_out = true;
    return add_loop(c, op, "relu backward", true, run_relu_backward, r->node, elements, err);
}

static fst_status run_relu6(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    fst__relu6_forward(a->in, a->out, ((struct kernel *)base)->elements);
    return FST_OK;
}

static fst_status run_relu6_backward(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    fst__relu6_mask(a->out, a->grad_out, ((struct kernel *)base)->elements);
    return FST_OK;
}

static fst_status relu6_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    size_t elements = fdn_bytes(r->in) / sizeof(float);
    op->in = op->out = r->in;
    op->moves_grad = op->keep_out = true;
    fst_status s = add_loop(c, op, "relu6 forward", false, run_relu6, r->node, elements, err);
    return s || !r->training ? s : add_loop(c, op, "relu6 backward", true, run_relu6_backward, r->node, elements, err);
}

static fst_status run_add(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    struct kernel *k = (struct kernel *)base;
    (void)err;
    fst__add(a->in, a->more_in[0], a->out, k->mask, k->elements);
    return FST_OK;
}

static fst_status run_add_backward(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    struct kernel *k = (struct kernel *)base;
    (void)err;
    if (k->mask)
        fst__relu_mask(a->out, a->grad_out, k->elements);
    if (a->more_grad_in[0])
        memcpy(a->more_grad_in[0], a->grad_out, k->elements * sizeof(float));
    return FST_OK;
}

static fst_status add_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    size_t elements = fdn_bytes(r->in) / sizeof(float);
    bool mask = r->relu && !r->relu_elsewhere;
    op->in = op->out = op->more[0] = r->in;
    op->moves_grad = true;
    fst_status s = add_loop(c, op, "add forward", false, run_add, r->node, elements, err);
    if (s)
        return s;
    c->kernels->mask = r->relu;
    if (!r->training || (!mask && !r->want_more[0]))
        return FST_OK;
    op->keep_out = mask;
    s = add_loop(c, op, "add backward", true, run_add_backward, r->node, elements, err);
    if (!s)
        c->kernels->mask = mask;
    return s;
}

static fst_status run_accumulate(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    fst__accumulate(a->in, a->out, ((struct kernel *)base)->elements);
    return FST_OK;
}

fst_status fdn_accumulate(struct fst_context *c, const struct fst_layout *l, struct fst_kernel **out, fst_error *err)
{
    struct fst_op none = {0};
    fst_status s = add_loop(c, &none, "accumulate", true, run_accumulate, NULL, fdn_bytes(l) / sizeof(float), err);
    if (!s)
        *out = none.kernel[0];
    return s;
}

/* Ops for which oneDNN has no kernel that fits: the op file's own loops on plain layouts. */
static fst_status plain_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    const struct fst_node *n = r->node;
    const struct fst_op_type *t = fst__op_types[n->kind];
    op->keep_in = op->keep_out = true;
    op->saved = t->saved && r->training ? t->saved(n, r->batch) : 0;
    fst_status s = fdn_plain(c, r->batch, &n->in, &op->in, err);
    for (int j = 0; !s && j < n->nmore; j++)
        s = fdn_plain(c, r->batch, &n->more_in[j], &op->more[j], err);
    if (!s)
        s = fdn_plain(c, r->batch, &n->out, &op->out, err);
    if (!s)
        s = add_loop(c, op, t->name, false, run_plain_forward, n, 0, err);
    if (!s && r->training)
        s = add_loop(c, op, t->name, true, run_plain_backward, n, 0, err);
    return s;
}

static fst_status flatten_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    op->alias = true;
    fst_status s = fdn_plain(c, r->batch, &r->node->in, &op->in, err);
    return s ? s : fdn_plain(c, r->batch, &r->node->out, &op->out, err);
}

static fst_status dropout_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    const struct fst_node *n = r->node;
    if (!r->training || r->frozen) {
        op->alias = true;
        op->in = op->out = r->in;
        return FST_OK;
    }
    op->saved = fst__op_types[n->kind]->saved(n, r->batch);
    fst_status s = fdn_plain(c, r->batch, &n->in, &op->in, err);
    op->out = op->in;
    if (!s)
        s = add_loop(c, op, "dropout forward", false, run_plain_forward, n, 0, err);
    if (!s)
        s = add_loop(c, op, "dropout backward", true, run_plain_backward, n, 0, err);
    return s;
}

fst_status fdn_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *out, fst_error *err)
{
    typedef fst_status (*maker)(struct fst_context *, const struct fst_op_request *, struct fst_op *, fst_error *);
    static const maker makers[FST_OP_KINDS] = {
        [FST_OP_CONV2D] = weighted_op,  [FST_OP_LINEAR] = weighted_op, [FST_OP_RELU] = relu_op,
        [FST_OP_MAXPOOL2D] = pool_op,   [FST_OP_FLATTEN] = flatten_op, [FST_OP_DROPOUT] = dropout_op,
        [FST_OP_BATCHNORM2D] = norm_op, [FST_OP_ADD] = add_op,         [FST_OP_CONCAT] = plain_op,
        [FST_OP_AVGPOOL2D] = pool_op,   [FST_OP_RELU6] = relu6_op,     [FST_OP_SIGMOID] = plain_op,
        [FST_OP_GELU_TANH] = plain_op,  [FST_OP_SOFTMAX] = plain_op,   [FST_OP_GROUPNORM] = plain_op,
        [FST_OP_LAYERNORM] = plain_op,
    };
    struct fst_op o = {0};
    fst_status s = makers[r->node->kind](c, r, &o, err);
    if (!s)
        *out = o;
    return s;
}

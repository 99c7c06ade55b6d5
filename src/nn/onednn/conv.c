/*
 * Convolution and linear on oneDNN, one maker for both. Weights are brought into the layout (and the type) that the
 * primitive chose: before every pass in training, once in inference, where a batch norm after a convolution is
 * multiplied into them as well.
 */
#include <math.h>
#include <string.h>

#include "onednn.h"

/* A linear layer sees rows of features: samples, or the tokens of all of them, and these as they lie. */
static fst_status linear_ends(struct fdn_weighted *w, fst_error *err)
{
    struct fst_linear_sizes z = fst__linear_sizes(w->r->node, w->r->batch);
    fst_shape in = FST_SHAPE(z.in), out = FST_SHAPE(z.out);
    bool any = w->r->node->in.rank == 1 && w->c->type != dnnl_f32;
    w->rows = z.rows;
    fst_status s = fdn_sample_layout(w->c, z.rows, &in, any, &w->src, err);
    return s ? s : fdn_sample_layout(w->c, z.rows, &out, any, &w->dst, err);
}

fst_status fdn_weighted_ends(struct fdn_weighted *w, fst_error *err)
{
    const struct fst_node *n = w->r->node;
    w->op->in = w->src;
    w->op->out = w->dst;
    if (w->conv || n->in.rank == 1)
        return FST_OK;
    fst_status s = fdn_sample_layout(w->c, w->r->batch, &n->in, false, &w->op->in, err);
    return s ? s : fdn_sample_layout(w->c, w->r->batch, &n->out, false, &w->op->out, err);
}

int fdn_weight_dims(const struct fst_node *n, bool conv, int64_t dims[5], struct fdn_window *window)
{
    int rank = 0;
    if (!conv) {
        dims[rank++] = n->u.linear.out;
        dims[rank++] = n->in.dim[n->in.rank - 1];
        return rank;
    }
    const fst_conv2d *o = &n->u.conv;
    if (o->groups > 1)
        dims[rank++] = o->groups;
    dims[rank++] = o->out_channels / o->groups;
    dims[rank++] = n->in.dim[0] / o->groups;
    for (int i = 0; i < 2; i++) {
        dims[rank++] = o->kernel[i];
        window->strides[i] = o->stride[i];
        window->padding[i] = o->padding[i];
    }
    return rank;
}

fst_status fdn_weighted_init(struct fdn_weighted *w, struct fst_context *c, const struct fst_op_request *r,
                             struct fst_op *op, fst_error *err)
{
    const struct fst_node *n = r->node;
    bool conv = n->kind != FST_OP_LINEAR && n->kind != FST_OP_SPECTRAL_LINEAR;
    int64_t dims[5], out = conv ? n->out.dim[0] : n->u.linear.out;
    *w = (struct fdn_weighted){.c = c,
                               .r = r,
                               .op = op,
                               .rows = r->batch,
                               .conv = conv,
                               .relu = r->relu,
                               .relu6 = r->relu6,
                               .fold = r->fold,
                               .in = {IN, 0},
                               .out = {OUT, 0},
                               .grad_out = {GRAD_OUT, 0},
                               .grad_in = {GRAD_IN, 0},
                               .weight = {PARAM0, 0},
                               .bias_at = {PARAM1, 0},
                               .grad_weight = {GRAD_PARAM0, 0},
                               .grad_bias = {GRAD_PARAM1, 0}};
    int rank = fdn_weight_dims(n, conv, dims, &w->window);
    w->bias = conv ? n->u.conv.bias : n->u.linear.bias;
    /* The weights of a linear layer stay as they lie unless their type changes: bringing them costs more than it gains
     * at the batches of training. */
    bool any = w->conv;
    fst_status s = fdn_tagged(c, dnnl_f32, rank, dims, false, &w->weights, err);
    if (!s)
        s = fdn_tagged(c, c->type, rank, dims, any, &w->any_weights, err);
    if (!s)
        s = fdn_tagged(c, dnnl_f32, 1, &out, false, &w->bias_layout, err);
    if (!s)
        s = conv ? fdn_sample_layout(c, w->rows, &n->in, true, &w->src, err) : linear_ends(w, err);
    return s || !conv ? s : fdn_sample_layout(c, w->rows, &n->out, true, &w->dst, err);
}

void fdn_weighted_release(struct fdn_weighted *w)
{
    if (w->hint)
        dnnl_primitive_desc_destroy(w->hint);
    w->hint = NULL;
}

/* ---- weights ---------------------------------------------------------------------------------------- */

/* y = scale (W x + b - mean) + beta, scale = gamma / sqrt(var + eps): W by rows times scale, b to match. */
static fst_status run_fold(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct kernel *k = (struct kernel *)base;
    const fst_conv2d *o = &k->node->u.conv;
    size_t row = (size_t)(k->node->in.dim[0] / o->groups * o->kernel[0] * o->kernel[1]);
    float *weights = fdn_pointer(a, k->folded), *bias = fdn_pointer(a, k->folded_bias);
    (void)err;
    for (int64_t c = 0; c < o->out_channels; c++) {
        double scale = (double)a->fold_param[0][c] / sqrt((double)a->fold_buffer[1][c] + k->fold->u.norm.eps);
        double shift = o->bias ? (double)a->param[1][c] : 0;
        bias[c] = (float)((shift - (double)a->fold_buffer[0][c]) * scale + (double)a->fold_param[1][c]);
        for (size_t i = (size_t)c * row; i < (size_t)(c + 1) * row; i++)
            weights[i] = (float)((double)a->param[0][i] * scale);
    }
    return FST_OK;
}

struct place fdn_take_held_bytes(struct fst_op *op, size_t bytes)
{
    struct place at = {HELD, op->held};
    op->held += fdn_round64(bytes);
    return at;
}

struct place fdn_take_held(struct fst_op *op, const struct fst_layout *l)
{
    return fdn_take_held_bytes(op, fdn_bytes(l));
}

fst_status fdn_add_fold(struct fdn_weighted *w, struct place to, struct place bias, fst_error *err)
{
    fst_status s = fdn_add_call(w->c, w->op, "fold batch norm", false, run_fold, w->r->node, err);
    if (s)
        return s;
    w->c->kernels->base.prepare = true;
    w->c->kernels->fold = w->fold;
    w->c->kernels->folded = to;
    w->c->kernels->folded_bias = bias;
    return FST_OK;
}

/* Inference: where weights and bias lie once the plan's preparation has run. */
static fst_status hold_weights(struct fdn_weighted *w, const struct fst_layout *want, struct place *at,
                               struct place *bias, fst_error *err)
{
    bool same = fdn_equal(want, w->weights);
    struct kernel *k;
    fst_status s = FST_OK;
    *at = w->weight;
    *bias = w->bias_at;
    if (w->fold) {
        *bias = fdn_take_held(w->op, w->bias_layout);
        *at = same ? fdn_take_held(w->op, want) : (struct place){SCRATCH, w->scratch_at};
        s = fdn_add_fold(w, *at, *bias, err);
    }
    if (s || same)
        return s;
    struct place from = *at;
    *at = fdn_take_held(w->op, want);
    s = fdn_new_reorder(w->c, w->op, "weights reorder", false, w->weights, from, want, *at, &k, err);
    if (!s)
        k->base.prepare = true;
    return s;
}

/* Training: the weights in the layout `want`, in the span itself or copied to the scratch. */
static fst_status bring_weights(struct fdn_weighted *w, const struct fst_layout *want, bool backward, struct place *at,
                                size_t *used, fst_error *err)
{
    *at = w->weight;
    *used = w->scratch_at;
    if (fdn_equal(want, w->weights))
        return FST_OK;
    *at = (struct place){SCRATCH, w->scratch_at};
    *used += fdn_round64(fdn_bytes(want));
    return fdn_new_reorder(w->c, w->op, "weights reorder", backward, w->weights, w->weight, want, *at, NULL, err);
}

/* ---- the passes ------------------------------------------------------------------------------------- */

dnnl_status_t fdn_describe_forward(struct fdn_weighted *w)
{
    dnnl_prop_kind_t prop = w->r->training || w->blocks ? dnnl_forward_training : dnnl_forward_inference;
    const_dnnl_primitive_attr_t attr = w->relu ? w->c->attr_relu : w->relu6 ? w->c->attr_relu6 : w->c->attr;
    fdn_md bias = w->bias || w->fold ? FDN_MD(w->bias_layout->md) : NULL;
    if (w->conv)
        return fdn_conv_forward(&w->hint, w->c->engine, prop, FDN_MD(w->src->md), FDN_MD(w->any_weights->md), bias,
                                FDN_MD(w->dst->md), &w->window, attr);
    return fdn_linear_forward(&w->hint, w->c->engine, prop, FDN_MD(w->src->md), FDN_MD(w->any_weights->md), bias,
                              FDN_MD(w->dst->md), attr);
}

static bool is_reference(const_dnnl_primitive_desc_t pd)
{
    const char *name = NULL;
    return dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name) || !name || !strncmp(name, "ref", 3);
}

/* For 4 to 15 channels, less than a vector, oneDNN takes the input as it lies, as of an image, and then has nothing but
 * its reference for the backward passes, which is some fifty times slower. Blocks that are filled up with zeros cure
 * that. */
static fst_status widen_input(struct fdn_weighted *w, fst_error *err)
{
    static const int64_t blocks[] = {16, 8};
    const struct fst_node *n = w->r->node;
    if (!w->conv || !w->r->training || n->u.conv.groups > 1 || n->in.dim[0] < 4 || n->in.dim[0] > 15)
        return FST_OK;
    const struct fst_layout *before = w->src;
    dnnl_primitive_desc_t hint = w->hint;
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        fst_status s = fdn_blocked(w->c, w->c->type, w->r->batch, &n->in, blocks[i], &w->src, err);
        if (s)
            return s;
        w->hint = NULL;
        if (!fdn_describe_forward(w) && !is_reference(w->hint)) {
            dnnl_primitive_desc_destroy(hint);
            return FST_OK;
        }
        fdn_weighted_release(w);
        w->hint = hint;
    }
    w->src = before;
    return FST_OK;
}

fst_status fdn_weighted_forward(struct fdn_weighted *w, fst_error *err)
{
    const struct fst_layout *want;
    struct place at, bias = w->bias_at;
    size_t used = w->scratch_at;
    dnnl_status_t ds = fdn_describe_forward(w);
    if (ds)
        return fdn_failed(ds, "forward", err);
    fst_status s = widen_input(w, err);
    if (!s)
        s = fdn_queried(w->c, w->hint, dnnl_query_src_md, &w->src, err);
    if (!s)
        s = fdn_queried(w->c, w->hint, dnnl_query_dst_md, &w->dst, err);
    bool halves = !s && fdn_worth_halves(w);
    if (halves)
        s = fdn_make_halves(w, &halves, err);
    if (s || halves)
        return s;
    s = fdn_queried(w->c, w->hint, dnnl_query_weights_md, &want, err);
    if (!s)
        s = w->r->training ? bring_weights(w, want, false, &at, &used, err) : hold_weights(w, want, &at, &bias, err);
    struct kernel *k = s ? NULL : fdn_new_kernel(w->c, w->op, "forward", false, err);
    if (!s && !k)
        s = FST_E_MEMORY;
    if (!s)
        s = fdn_bind(k, DNNL_ARG_SRC, w->src, w->in, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_WEIGHTS, want, at, err);
    if (!s && (w->bias || w->fold))
        s = fdn_bind(k, DNNL_ARG_BIAS, w->bias_layout, bias, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DST, w->dst, w->out, err);
    if (s)
        return s;
    /* fdn_finish() destroys its descriptor, but this one is also the backward passes' hint. */
    dnnl_primitive_desc_t copy;
    ds = dnnl_primitive_desc_clone(&copy, w->hint);
    return ds ? fdn_failed(ds, "forward", err) : fdn_finish(k, w->op, copy, used, err);
}

/* Gradients of weights are f32 whatever the type of the activations. */
static fst_status gradient_layout(const struct fdn_weighted *w, const struct fst_layout **out, fst_error *err)
{
    if (w->c->type == dnnl_f32) {
        *out = w->any_weights;
        return FST_OK;
    }
    dnnl_dims_t dims;
    int rank = fdn_md_dims(FDN_MD(w->weights->md), dims);
    return fdn_tagged(w->c, dnnl_f32, rank, dims, true, out, err);
}

static fst_status run_clear(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct kernel *k = (struct kernel *)base;
    (void)err;
    memset(fdn_pointer(a, k->folded), 0, k->work);
    return FST_OK;
}

/* Where images are narrower than a stride, oneDNN 2.6's bf16 kernel for the weights' gradient reads scratch that it has
 * not written: it finds zeros there. */
static fst_status clear_scratch(struct fdn_weighted *w, const_dnnl_primitive_desc_t pd, size_t offset, fst_error *err)
{
    const struct fst_layout *pad;
    const struct fst_node *n = w->r->node;
    if (!w->conv || w->c->type == dnnl_f32 || n->in.dim[2] >= n->u.conv.stride[1])
        return FST_OK;
    fst_status s = fdn_queried(w->c, pd, dnnl_query_scratchpad_md, &pad, err);
    if (!s)
        s = fdn_add_call(w->c, w->op, "clear scratch", true, run_clear, n, err);
    if (s)
        return s;
    w->c->kernels->base.compute = false;
    w->c->kernels->folded = (struct place){SCRATCH, offset};
    w->c->kernels->work = fdn_bytes(pad);
    return FST_OK;
}

/* What the weights' gradient is made from: as it lies, or copied to another layout in the scratch. */
struct gradient_inputs {
    const struct fst_layout *src, *dst;
    struct place src_at, dst_at;
    size_t after; /* the copies, in the scratch */
};

static dnnl_status_t describe_backward_weights(const struct fdn_weighted *w, const struct fst_layout *in,
                                               const struct fst_layout *out, const struct fst_layout *gradient,
                                               dnnl_primitive_desc_t *pd)
{
    fdn_md bias = w->bias ? FDN_MD(w->bias_layout->md) : NULL;
    fdn_md src = FDN_MD(in->md), dst = FDN_MD(out->md), weights = FDN_MD(gradient->md);
    if (w->conv)
        return fdn_conv_backward_weights(pd, w->c->engine, src, weights, bias, dst, &w->window, w->hint, w->c->attr);
    return fdn_linear_backward_weights(pd, w->c->engine, src, weights, bias, dst, w->hint, w->c->attr);
}

/* *pd becomes `other`, if that could be described and is not the reference; else `other` is destroyed. */
static bool take_better(dnnl_primitive_desc_t *pd, dnnl_status_t described, dnnl_primitive_desc_t other)
{
    if (described)
        return false;
    if (is_reference(other)) {
        dnnl_primitive_desc_destroy(other);
        return false;
    }
    dnnl_primitive_desc_destroy(*pd);
    *pd = other;
    return true;
}

/* The layouts of input and output as they lie in a span. */
static fst_status plain_layouts(const struct fdn_weighted *w, const struct fst_layout **src,
                                const struct fst_layout **dst, fst_error *err)
{
    dnnl_dims_t in, out;
    int rank = fdn_md_dims(FDN_MD(w->src->md), in);
    fdn_md_dims(FDN_MD(w->dst->md), out);
    fst_status s = fdn_tagged(w->c, w->c->type, rank, in, false, src, err);
    return s ? s : fdn_tagged(w->c, w->c->type, rank, out, false, dst, err);
}

/* Replaces *pd when these layouts do not need the reference. */
static bool better_layouts(const struct fdn_weighted *w, const struct fst_layout *src, const struct fst_layout *dst,
                           const struct fst_layout *gradient, dnnl_primitive_desc_t *pd, struct gradient_inputs *in)
{
    dnnl_primitive_desc_t other = NULL;
    dnnl_status_t ds = describe_backward_weights(w, src, dst, gradient, &other);
    if (!take_better(pd, ds, other))
        return false;
    in->after = w->scratch_at;
    if (src != w->src) {
        in->src = src;
        in->src_at = (struct place){SCRATCH, in->after};
        in->after += fdn_round64(fdn_bytes(src));
    }
    if (dst != w->dst) {
        in->dst = dst;
        in->dst_at = (struct place){SCRATCH, in->after};
        in->after += fdn_round64(fdn_bytes(dst));
    }
    return true;
}

/* Without AVX-512 oneDNN has nothing but its reference for some shapes (an input of one or two channels, kernels wider
 * than the image), hundreds of times slower than its kernels. Those can be had for other layouts: the input in blocks
 * that are filled up with zeros, or everything plain, as a product of matrices. */
static fst_status find_backward_weights(const struct fdn_weighted *w, const struct fst_layout *gradient,
                                        dnnl_primitive_desc_t *pd, struct gradient_inputs *in, fst_error *err)
{
    static const int64_t blocks[] = {16, 8};
    const struct fst_node *n = w->r->node;
    *in = (struct gradient_inputs){w->src, w->dst, w->in, w->grad_out, w->scratch_at};
    dnnl_status_t ds = describe_backward_weights(w, w->src, w->dst, gradient, pd);
    if (ds)
        return fdn_failed(ds, "backward weights", err);
    if (!w->conv || n->u.conv.groups > 1 || !is_reference(*pd))
        return FST_OK;
    const struct fst_layout *src, *dst;
    fst_status s = FST_OK;
    for (size_t i = 0; !s && i < sizeof blocks / sizeof *blocks; i++) {
        s = fdn_blocked(w->c, w->c->type, w->rows, &n->in, blocks[i], &src, err);
        if (!s && better_layouts(w, src, w->dst, gradient, pd, in))
            return FST_OK;
    }
    if (!s)
        s = plain_layouts(w, &src, &dst, err);
    if (!s)
        better_layouts(w, src, dst, gradient, pd, in);
    else
        dnnl_primitive_desc_destroy(*pd);
    return s;
}

static fst_status copy_inputs(const struct fdn_weighted *w, const struct gradient_inputs *in, fst_error *err)
{
    fst_status s = FST_OK;
    if (in->src != w->src)
        s = fdn_new_reorder(w->c, w->op, "input reorder", true, w->src, w->in, in->src, in->src_at, NULL, err);
    if (!s && in->dst != w->dst)
        s = fdn_new_reorder(w->c, w->op, "gradient reorder", true, w->dst, w->grad_out, in->dst, in->dst_at, NULL, err);
    return s;
}

static fst_status bind_backward_weights(struct fdn_weighted *w, struct kernel *k, const struct gradient_inputs *in,
                                        const struct fst_layout *want, struct place to, fst_error *err)
{
    fst_status s = fdn_bind(k, DNNL_ARG_SRC, in->src, in->src_at, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_DST, in->dst, in->dst_at, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_WEIGHTS, want, to, err);
    if (!s && w->bias)
        s = fdn_bind(k, DNNL_ARG_DIFF_BIAS, w->bias_layout, w->grad_bias, err);
    return s;
}

/* The weights' gradient as its factors (forms.h); the bias has its own. */
static fst_status run_leave_factors(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    const struct fst_form *f = a->factors;
    size_t rows = (size_t)a->batch;
    float *at = a->factor_grads + f->from;
    (void)err;
    memcpy(at + a->factor_row * f->out, a->grad_out, rows * f->out * sizeof *at);
    memcpy(at + f->rows * f->out + a->factor_row * f->in, a->in, rows * f->in * sizeof *at);
    if (!n->u.linear.bias)
        return FST_OK;
    memcpy(a->grad_param[1], a->grad_out, f->out * sizeof *at);
    for (size_t r = 1; r < rows; r++)
        fst__accumulate(a->grad_out + r * f->out, a->grad_param[1], f->out);
    return FST_OK;
}

static fst_status leave_factors(struct fdn_weighted *w, fst_error *err)
{
    fst_status s = fdn_add_call(w->c, w->op, "factors of the gradient", true, run_leave_factors, w->r->node, err);
    if (s)
        return s;
    w->c->kernels->base.compute = false;
    w->op->factors = true;
    return FST_OK;
}

/* The blocks of the kernel's gradient, where that is a form that may be left (forms.h), as large as the weights. */
static int gradient_block(const struct fdn_weighted *w, const struct fst_layout *want)
{
    static const dnnl_format_tag_t tags[] = {dnnl_OIhw16i16o, dnnl_OIhw8i8o};
    dnnl_dims_t dims;
    if (!w->conv || fdn_md_dims(FDN_MD(w->weights->md), dims) != 4)
        return 0;
    for (int i = 0, block = 16; i < 2; i++, block /= 2) {
        fdn_md_store md;
        bool fits = dims[0] % block == 0 && dims[1] % block == 0 && block * block * dims[2] * dims[3] <= FST_UNIT;
        if (!fits || fdn_md_tagged(&md, 4, dims, dnnl_f32, tags[i]))
            continue;
        bool same = dnnl_memory_desc_equal(FDN_MD(md), FDN_MD(want->md)) != 0;
        fdn_md_destroy(&md);
        if (same)
            return block;
    }
    return 0;
}

fst_status fdn_weighted_backward_weights(struct fdn_weighted *w, fst_error *err)
{
    if (w->r->factors && w->c->type == dnnl_f32)
        return leave_factors(w, err);
    dnnl_primitive_desc_t pd;
    const struct fst_layout *gradient;
    fst_status s = gradient_layout(w, &gradient, err);
    if (s)
        return s;
    struct gradient_inputs in;
    s = find_backward_weights(w, gradient, &pd, &in, err);
    if (s)
        return s;
    const struct fst_layout *want = NULL;
    s = fdn_queried(w->c, pd, dnnl_query_diff_weights_md, &want, err);
    int block = s || !w->r->blocks ? 0 : gradient_block(w, want);
    bool direct = block || (!s && fdn_equal(want, w->weights));
    w->op->grad_block = block;
    size_t pad = in.after + (direct || s ? 0 : fdn_round64(fdn_bytes(want)));
    if (!s)
        s = copy_inputs(w, &in, err);
    if (!s)
        s = clear_scratch(w, pd, pad, err);
    struct kernel *k = s ? NULL : fdn_new_kernel(w->c, w->op, "backward weights", true, err);
    if (!k) {
        dnnl_primitive_desc_destroy(pd);
        return s ? s : FST_E_MEMORY;
    }
    struct place to = direct ? w->grad_weight : (struct place){SCRATCH, in.after};
    s = bind_backward_weights(w, k, &in, want, to, err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    s = fdn_finish(k, w->op, pd, pad, err);
    if (s || direct)
        return s;
    return fdn_new_reorder(w->c, w->op, "gradient reorder", true, want, to, w->weights, w->grad_weight, NULL, err);
}

static dnnl_status_t describe_backward_data(const struct fdn_weighted *w, const struct fst_layout *in,
                                            const struct fst_layout *out, dnnl_primitive_desc_t *pd)
{
    fdn_md src = FDN_MD(in->md), dst = FDN_MD(out->md), weights = FDN_MD(w->any_weights->md);
    if (w->conv)
        return fdn_conv_backward_data(pd, w->c->engine, src, weights, dst, &w->window, w->hint, w->c->attr);
    return fdn_linear_backward_data(pd, w->c->engine, src, weights, dst, w->hint, w->c->attr);
}

/* As find_backward_weights: layouts of the gradients of input and output for which oneDNN has more than its reference.
 * Without AVX-512 that is wanted for inputs whose channels do not fill a vector. */
static fst_status find_backward_data(const struct fdn_weighted *w, dnnl_primitive_desc_t *pd,
                                     const struct fst_layout **src, const struct fst_layout **dst, fst_error *err)
{
    const struct fst_layout *in, *out;
    dnnl_primitive_desc_t other = NULL;
    *src = w->src;
    *dst = w->dst;
    dnnl_status_t ds = describe_backward_data(w, w->src, w->dst, pd);
    if (ds)
        return fdn_failed(ds, "backward data", err);
    if (!w->conv || w->r->node->u.conv.groups > 1 || !is_reference(*pd))
        return FST_OK;
    fst_status s = plain_layouts(w, &in, &out, err);
    if (s) {
        dnnl_primitive_desc_destroy(*pd);
        return s;
    }
    ds = describe_backward_data(w, in, out, &other);
    if (take_better(pd, ds, other)) {
        *src = in;
        *dst = out;
    }
    return FST_OK;
}

fst_status fdn_weighted_backward_data(struct fdn_weighted *w, fst_error *err)
{
    dnnl_primitive_desc_t pd;
    const struct fst_layout *want = NULL, *src, *dst;
    struct place weights, from = w->grad_out, to = w->grad_in;
    size_t used;
    fst_status s = find_backward_data(w, &pd, &src, &dst, err);
    if (s)
        return s;
    s = fdn_queried(w->c, pd, dnnl_query_weights_md, &want, err);
    if (!s)
        s = bring_weights(w, want, true, &weights, &used, err);
    if (!s && dst != w->dst) {
        from = (struct place){SCRATCH, used};
        used += fdn_round64(fdn_bytes(dst));
        s = fdn_new_reorder(w->c, w->op, "gradient reorder", true, w->dst, w->grad_out, dst, from, NULL, err);
    }
    if (!s && src != w->src) {
        to = (struct place){SCRATCH, used};
        used += fdn_round64(fdn_bytes(src));
    }
    struct kernel *k = s ? NULL : fdn_new_kernel(w->c, w->op, "backward data", true, err);
    if (!s && !k)
        s = FST_E_MEMORY;
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_DST, dst, from, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_WEIGHTS, want, weights, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DIFF_SRC, src, to, err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    s = fdn_finish(k, w->op, pd, used, err);
    if (s || src == w->src)
        return s;
    return fdn_new_reorder(w->c, w->op, "gradient reorder", true, src, to, w->src, w->grad_in, NULL, err);
}

fst_status fdn_weighted_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    struct fdn_weighted w;
    fst_status s = fdn_weighted_init(&w, c, r, op, err);
    if (!s)
        s = fdn_weighted_forward(&w, err);
    if (!s)
        s = fdn_weighted_ends(&w, err);
    if (!s && r->training) {
        op->keep_in = op->pure = true;
        s = fdn_add_mask(c, r, op, err);
        if (!s)
            s = fdn_weighted_backward_weights(&w, err);
        if (!s && r->want_grad_in)
            s = fdn_weighted_backward_data(&w, err);
    }
    fdn_weighted_release(&w);
    return s;
}

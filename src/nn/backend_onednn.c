/*
 * The oneDNN backend: one primitive a kernel, memory bound by pointer. The only file (with
 * onednn_compat.h) that knows oneDNN. Activations keep the layout that the convolutions choose; parameters
 * are plain and are brought into a primitive's layout just before it.
 */
#include <omp.h>
#include <stdio.h>
#include <string.h>

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

static fst_status failed(dnnl_status_t s, const char *what, fst_error *err)
{
    if (s == dnnl_out_of_memory)
        return fst_fail(err, FST_E_MEMORY, "oneDNN: %s: out of memory", what);
    return fst_fail(err, FST_E_UNSUPPORTED, "oneDNN: %s: status %d%s", what, (int)s,
                    s == dnnl_unimplemented ? " (unimplemented)" : "");
}

static const char *describe(void)
{
    static char text[96]; /* always the same bytes, so that a race would be harmless */
    const dnnl_version_t *v = dnnl_version();
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    const char *name = "x64";
    if ((isa & dnnl_cpu_isa_avx512_core_amx) == dnnl_cpu_isa_avx512_core_amx)
        name = "avx512_core_amx";
    else if ((isa & dnnl_cpu_isa_avx512_core) == dnnl_cpu_isa_avx512_core)
        name = "avx512_core";
    else if ((isa & dnnl_cpu_isa_avx2) == dnnl_cpu_isa_avx2)
        name = "avx2";
    snprintf(text, sizeof text, "oneDNN %d.%d.%d, %s", v->major, v->minor, v->patch, name);
    return text;
}

/* ---- context and layouts ---------------------------------------------------------------------- */

static void close_context(struct fst_context *c)
{
    if (!c)
        return;
    while (c->kernels) {
        struct kernel *k = c->kernels;
        c->kernels = k->next;
        for (int i = 0; i < k->nargs; i++)
            dnnl_memory_destroy(k->args[i].memory);
        if (k->primitive)
            dnnl_primitive_destroy(k->primitive);
        fst_free(k);
    }
    while (c->layouts) {
        struct fst_layout *l = c->layouts;
        c->layouts = l->next;
        fdn_md_destroy(&l->md);
        fst_free(l);
    }
    if (c->attr_relu)
        dnnl_primitive_attr_destroy(c->attr_relu);
    if (c->attr)
        dnnl_primitive_attr_destroy(c->attr);
    if (c->stream)
        dnnl_stream_destroy(c->stream);
    if (c->engine)
        dnnl_engine_destroy(c->engine);
    fst_free(c);
}

static dnnl_status_t make_attributes(struct fst_context *c)
{
    dnnl_post_ops_t ops = NULL;
    dnnl_status_t s = dnnl_primitive_attr_create(&c->attr);
    if (!s)
        s = dnnl_primitive_attr_set_scratchpad_mode(c->attr, dnnl_scratchpad_mode_user);
    if (!s)
        s = dnnl_primitive_attr_create(&c->attr_relu);
    if (!s)
        s = dnnl_primitive_attr_set_scratchpad_mode(c->attr_relu, dnnl_scratchpad_mode_user);
    if (!s)
        s = dnnl_post_ops_create(&ops);
    if (!s)
        s = fdn_append_relu(ops);
    if (!s)
        s = dnnl_primitive_attr_set_post_ops(c->attr_relu, ops);
    if (ops)
        dnnl_post_ops_destroy(ops);
    return s;
}

static fst_status open_context(struct fst_context **out, int threads, fst_error *err)
{
    struct fst_context *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    c->threads = threads;
    dnnl_status_t s = dnnl_engine_create(&c->engine, dnnl_cpu, 0);
    if (!s)
        s = dnnl_stream_create(&c->stream, c->engine, dnnl_stream_default_flags);
    if (!s)
        s = make_attributes(c);
    if (s) {
        close_context(c);
        return failed(s, "cannot start", err);
    }
    *out = c;
    return FST_OK;
}

static void enter(struct fst_context *c)
{
    /* A primitive splits its work by the number of threads at its creation, which must be the same
     * when it runs; the setting belongs to the calling thread. */
    if (omp_get_max_threads() != c->threads)
        omp_set_num_threads(c->threads);
}

static struct fst_layout *new_layout(struct fst_context *c, fst_error *err)
{
    struct fst_layout *l = fst_calloc(1, sizeof *l);
    if (!l) {
        (void)fst_fail_memory(err, sizeof *l);
        return NULL;
    }
    l->next = c->layouts;
    c->layouts = l;
    return l;
}

static fst_status tagged(struct fst_context *c, int rank, const int64_t *dims, bool any, const struct fst_layout **out,
                         fst_error *err)
{
    static const dnnl_format_tag_t plain_tags[] = {dnnl_a, dnnl_a, dnnl_ab, dnnl_abc, dnnl_abcd, dnnl_abcde};
    dnnl_dims_t d = {0};
    struct fst_layout *l = new_layout(c, err);
    if (!l)
        return FST_E_MEMORY;
    for (int i = 0; i < rank; i++)
        d[i] = dims[i];
    dnnl_status_t s = fdn_md_tagged(&l->md, rank, d, any ? dnnl_format_tag_any : plain_tags[rank]);
    if (s)
        return failed(s, "cannot describe a tensor", err);
    *out = l;
    return FST_OK;
}

static fst_status sample_layout(struct fst_context *c, int64_t batch, const fst_shape *sample, bool any,
                                const struct fst_layout **out, fst_error *err)
{
    int64_t dims[5] = {batch};
    for (int i = 0; i < sample->rank; i++)
        dims[i + 1] = sample->dim[i];
    return tagged(c, sample->rank + 1, dims, any, out, err);
}

static fst_status plain(struct fst_context *c, int64_t batch, const fst_shape *sample, const struct fst_layout **out,
                        fst_error *err)
{
    return sample_layout(c, batch, sample, false, out, err);
}

static bool equal(const struct fst_layout *a, const struct fst_layout *b)
{
    return dnnl_memory_desc_equal(FDN_MD(a->md), FDN_MD(b->md)) != 0;
}

static size_t bytes(const struct fst_layout *l)
{
    return dnnl_memory_desc_get_size(FDN_MD(l->md));
}

static fst_status queried(struct fst_context *c, const_dnnl_primitive_desc_t pd, dnnl_query_t what,
                          const struct fst_layout **out, fst_error *err)
{
    fdn_md md = dnnl_primitive_desc_query_md(pd, what, 0);
    struct fst_layout *l = new_layout(c, err);
    if (!l)
        return FST_E_MEMORY;
    dnnl_status_t s = md ? fdn_md_copy(&l->md, md) : dnnl_invalid_arguments;
    if (s)
        return failed(s, "a primitive does not tell its layout", err);
    *out = l;
    return FST_OK;
}

/* ---- kernels ------------------------------------------------------------------------------------ */

static void *field_pointer(const struct fst_op_args *a, enum field f)
{
    switch (f) {
    case IN:
        return (void *)a->in;
    case OUT:
        return a->out;
    case GRAD_OUT:
        return a->grad_out;
    case GRAD_IN:
        return a->grad_in;
    case PARAM0:
    case PARAM1:
        return (void *)a->param[f - PARAM0];
    case GRAD_PARAM0:
    case GRAD_PARAM1:
        return a->grad_param[f - GRAD_PARAM0];
    case BUFFER0:
    case BUFFER1:
        return a->buffer[f - BUFFER0];
    case SAVED:
        return a->saved;
    default:
        return a->scratch;
    }
}

static fst_status run_primitive(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    struct kernel *k = (struct kernel *)base;
    for (int i = 0; i < k->nargs; i++) {
        struct binding *b = &k->bind[i];
        char *p = (char *)field_pointer(a, b->field) + b->offset;
        if (p != b->last) {
            dnnl_status_t s = dnnl_memory_set_data_handle(k->args[i].memory, p);
            if (s)
                return failed(s, base->name, err);
            b->last = p;
        }
    }
    dnnl_status_t s = dnnl_primitive_execute(k->primitive, k->context->stream, k->nargs, k->args);
    return s ? failed(s, base->name, err) : FST_OK;
}

static struct kernel *new_kernel(struct fst_context *c, struct fst_op *op, const char *name, bool backward,
                                 fst_error *err)
{
    struct kernel *k = fst_calloc(1, sizeof *k);
    if (!k) {
        (void)fst_fail_memory(err, sizeof *k);
        return NULL;
    }
    k->base = (struct fst_kernel){run_primitive, name, true, backward};
    k->context = c;
    k->next = c->kernels;
    c->kernels = k;
    if (op)
        op->kernel[op->kernels++] = &k->base;
    return k;
}

static fst_status bind(struct kernel *k, int arg, const struct fst_layout *l, enum field f, size_t offset,
                       fst_error *err)
{
    dnnl_memory_t m;
    dnnl_status_t s = dnnl_memory_create(&m, FDN_MD(l->md), k->context->engine, DNNL_MEMORY_NONE);
    if (s)
        return failed(s, "cannot make a memory object", err);
    k->args[k->nargs] = (dnnl_exec_arg_t){arg, m};
    k->bind[k->nargs++] = (struct binding){f, offset, NULL};
    return FST_OK;
}

static size_t round64(size_t n)
{
    return (n + 63) / 64 * 64;
}

/* Makes the primitive of pd, with its scratchpad at `offset` of the op's scratch. pd is destroyed. */
static fst_status finish(struct kernel *k, struct fst_op *op, dnnl_primitive_desc_t pd, size_t offset, fst_error *err)
{
    const struct fst_layout *pad = NULL;
    fst_status st = queried(k->context, pd, dnnl_query_scratchpad_md, &pad, err);
    if (!st && bytes(pad)) {
        st = bind(k, DNNL_ARG_SCRATCHPAD, pad, SCRATCH, offset, err);
        offset += round64(bytes(pad));
    }
    if (!st) {
        dnnl_status_t s = dnnl_primitive_create(&k->primitive, pd);
        if (s)
            st = failed(s, k->base.name, err);
    }
    dnnl_primitive_desc_destroy(pd);
    if (op && offset > op->scratch)
        op->scratch = offset;
    return st;
}

static fst_status new_reorder(struct fst_context *c, struct fst_op *op, const char *name, bool backward,
                              const struct fst_layout *from, enum field f, const struct fst_layout *to, enum field t,
                              struct kernel **out, fst_error *err)
{
    dnnl_primitive_desc_t pd;
    struct kernel *k = new_kernel(c, op, name, backward, err);
    if (!k)
        return FST_E_MEMORY;
    k->base.compute = false;
    dnnl_status_t s =
        dnnl_reorder_primitive_desc_create(&pd, FDN_MD(from->md), c->engine, FDN_MD(to->md), c->engine, c->attr);
    if (s)
        return failed(s, "reorder", err);
    fst_status st = bind(k, DNNL_ARG_FROM, from, f, 0, err);
    if (!st)
        st = bind(k, DNNL_ARG_TO, to, t, 0, err);
    if (st) {
        dnnl_primitive_desc_destroy(pd);
        return st;
    }
    if (out)
        *out = k;
    /* Reorders between float layouts need no scratchpad; if one ever does, it lies behind the target. */
    return finish(k, op, pd, t == SCRATCH ? round64(bytes(to)) : f == SCRATCH ? round64(bytes(from)) : 0, err);
}

static fst_status reorder(struct fst_context *c, const struct fst_layout *from, const struct fst_layout *to,
                          struct fst_kernel **out, fst_error *err)
{
    struct kernel *k = NULL;
    struct fst_op dummy = {0};
    fst_status s = new_reorder(c, &dummy, "reorder", false, from, IN, to, OUT, &k, err);
    if (!s && dummy.scratch)
        s = fst_fail(err, FST_E_UNSUPPORTED, "oneDNN: a reorder wants a scratchpad");
    if (!s)
        *out = &k->base;
    return s;
}

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

static fst_status add_loop(struct fst_context *c, struct fst_op *op, const char *name, bool backward,
                           fst_kernel_fn run, const struct fst_node *n, size_t elements, fst_error *err)
{
    struct kernel *k = new_kernel(c, op, name, backward, err);
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
    return add_loop(c, op, "relu backward", true, run_mask, r->node, bytes(op->out) / sizeof(float), err);
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
    fst_status s = tagged(w->c, (int)rank, dims, false, &w->weights, err);
    if (!s)
        s = tagged(w->c, (int)rank, dims, is_conv(w), &w->any_weights, err);
    if (!s)
        s = tagged(w->c, 1, &out, false, &w->bias_layout, err);
    return s;
}

/* The weights in the layout `want`: in the span itself, or copied to the scratch first. */
static fst_status bring_weights(struct weighted *w, const struct fst_layout *want, bool backward, enum field *f,
                                size_t *used, fst_error *err)
{
    *f = PARAM0;
    *used = 0;
    if (equal(want, w->weights))
        return FST_OK;
    *f = SCRATCH;
    *used = round64(bytes(want));
    return new_reorder(w->c, w->op, "weights reorder", backward, w->weights, PARAM0, want, SCRATCH, NULL, err);
}

static fst_status weighted_forward(struct weighted *w, dnnl_primitive_desc_t *hint, fst_error *err)
{
    const struct fst_layout *src, *dst, *want;
    const struct fst_node *n = w->r->node;
    dnnl_primitive_desc_t pd = NULL;
    const_dnnl_primitive_attr_t attr = w->r->relu ? w->c->attr_relu : w->c->attr;
    dnnl_prop_kind_t prop = w->r->training ? dnnl_forward_training : dnnl_forward_inference;
    fdn_md bias = w->bias ? FDN_MD(w->bias_layout->md) : NULL;
    fst_status s = sample_layout(w->c, w->r->batch, &n->in, is_conv(w), &src, err);
    if (!s)
        s = sample_layout(w->c, w->r->batch, &n->out, is_conv(w), &dst, err);
    if (s)
        return s;
    dnnl_status_t ds =
        is_conv(w) ? fdn_conv_forward(&pd, w->c->engine, prop, FDN_MD(src->md), FDN_MD(w->any_weights->md), bias,
                                      FDN_MD(dst->md), &w->window, attr)
                   : fdn_linear_forward(&pd, w->c->engine, prop, FDN_MD(src->md), FDN_MD(w->any_weights->md), bias,
                                        FDN_MD(dst->md), attr);
    if (ds)
        return failed(ds, "forward", err);
    enum field f;
    size_t used;
    s = queried(w->c, pd, dnnl_query_src_md, &w->op->in, err);
    if (!s)
        s = queried(w->c, pd, dnnl_query_dst_md, &w->op->out, err);
    if (!s)
        s = queried(w->c, pd, dnnl_query_weights_md, &want, err);
    if (!s)
        s = bring_weights(w, want, false, &f, &used, err);
    struct kernel *k = s ? NULL : new_kernel(w->c, w->op, "forward", false, err);
    if (!s && !k)
        s = FST_E_MEMORY;
    if (!s)
        s = bind(k, DNNL_ARG_SRC, w->op->in, IN, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_WEIGHTS, want, f, 0, err);
    if (!s && w->bias)
        s = bind(k, DNNL_ARG_BIAS, w->bias_layout, PARAM1, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_DST, w->op->out, OUT, 0, err);
    *hint = pd;
    if (s)
        return s;
    /* finish() destroys its descriptor, but this one is also the backward passes' hint. */
    dnnl_primitive_desc_t copy;
    ds = dnnl_primitive_desc_clone(&copy, pd);
    return ds ? failed(ds, "forward", err) : finish(k, w->op, copy, used, err);
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
        return failed(ds, "backward weights", err);
    const struct fst_layout *want = NULL;
    fst_status s = queried(w->c, pd, dnnl_query_diff_weights_md, &want, err);
    struct kernel *k = s ? NULL : new_kernel(w->c, w->op, "backward weights", true, err);
    if (!k) {
        dnnl_primitive_desc_destroy(pd);
        return s ? s : FST_E_MEMORY;
    }
    bool direct = equal(want, w->weights);
    size_t used = direct ? 0 : round64(bytes(want));
    s = bind(k, DNNL_ARG_SRC, w->op->in, IN, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_DIFF_DST, w->op->out, GRAD_OUT, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_DIFF_WEIGHTS, want, direct ? GRAD_PARAM0 : SCRATCH, 0, err);
    if (!s && w->bias)
        s = bind(k, DNNL_ARG_DIFF_BIAS, w->bias_layout, GRAD_PARAM1, 0, err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    s = finish(k, w->op, pd, used, err);
    if (s || direct)
        return s;
    return new_reorder(w->c, w->op, "gradient reorder", true, want, SCRATCH, w->weights, GRAD_PARAM0, NULL, err);
}

static fst_status weighted_backward_data(struct weighted *w, const_dnnl_primitive_desc_t hint, fst_error *err)
{
    dnnl_primitive_desc_t pd;
    fdn_md src = FDN_MD(w->op->in->md), dst = FDN_MD(w->op->out->md), weights = FDN_MD(w->any_weights->md);
    dnnl_status_t ds = is_conv(w)
                           ? fdn_conv_backward_data(&pd, w->c->engine, src, weights, dst, &w->window, hint, w->c->attr)
                           : fdn_linear_backward_data(&pd, w->c->engine, src, weights, dst, hint, w->c->attr);
    if (ds)
        return failed(ds, "backward data", err);
    const struct fst_layout *want = NULL;
    enum field f;
    size_t used;
    fst_status s = queried(w->c, pd, dnnl_query_weights_md, &want, err);
    if (!s)
        s = bring_weights(w, want, true, &f, &used, err);
    struct kernel *k = s ? NULL : new_kernel(w->c, w->op, "backward data", true, err);
    if (!s && !k)
        s = FST_E_MEMORY;
    if (!s)
        s = bind(k, DNNL_ARG_DIFF_DST, w->op->out, GRAD_OUT, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_WEIGHTS, want, f, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_DIFF_SRC, w->op->in, GRAD_IN, 0, err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    return finish(k, w->op, pd, used, err);
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

static fst_status maxpool_backward(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op,
                                   const struct fdn_window *w, const_dnnl_primitive_desc_t hint,
                                   const struct fst_layout *workspace, fst_error *err)
{
    dnnl_primitive_desc_t pd;
    fst_status s = add_mask(c, r, op, err);
    if (s)
        return s;
    dnnl_status_t ds =
        fdn_maxpool_backward(&pd, c->engine, FDN_MD(op->in->md), FDN_MD(op->out->md), w, hint, c->attr);
    if (ds)
        return failed(ds, "backward", err);
    struct kernel *k = new_kernel(c, op, "maxpool backward", true, err);
    s = k ? FST_OK : FST_E_MEMORY;
    if (!s)
        s = bind(k, DNNL_ARG_DIFF_DST, op->out, GRAD_OUT, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_WORKSPACE, workspace, SAVED, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_DIFF_SRC, op->in, GRAD_IN, 0, err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    return finish(k, op, pd, 0, err);
}

static fst_status maxpool_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    const struct fst_node *n = r->node;
    const struct fst_layout *dst, *workspace = NULL;
    struct fdn_window w = {0};
    dnnl_primitive_desc_t pd = NULL, copy;
    for (int i = 0; i < 2; i++) {
        w.kernel[i] = n->u.pool.kernel;
        w.strides[i] = n->u.pool.stride;
        w.padding[i] = n->u.pool.padding;
    }
    op->in = r->in;
    fst_status s = sample_layout(c, r->batch, &n->out, true, &dst, err);
    if (s)
        return s;
    dnnl_status_t ds =
        fdn_maxpool_forward(&pd, c->engine, r->training ? dnnl_forward_training : dnnl_forward_inference,
                            FDN_MD(op->in->md), FDN_MD(dst->md), &w, c->attr);
    if (ds)
        return failed(ds, "forward", err);
    s = queried(c, pd, dnnl_query_dst_md, &op->out, err);
    if (!s && r->training)
        s = queried(c, pd, dnnl_query_workspace_md, &workspace, err);
    struct kernel *k = s ? NULL : new_kernel(c, op, "maxpool forward", false, err);
    if (!s && !k)
        s = FST_E_MEMORY;
    if (!s)
        s = bind(k, DNNL_ARG_SRC, op->in, IN, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_DST, op->out, OUT, 0, err);
    if (!s && workspace) {
        op->saved = bytes(workspace);
        s = bind(k, DNNL_ARG_WORKSPACE, workspace, SAVED, 0, err);
    }
    if (!s) {
        ds = dnnl_primitive_desc_clone(&copy, pd);
        s = ds ? failed(ds, "forward", err) : finish(k, op, copy, 0, err);
    }
    if (!s && r->training && r->want_grad_in)
        s = maxpool_backward(c, r, op, &w, pd, workspace, err);
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
    fst_status s = bind(k, DNNL_ARG_MEAN, m->channel, m->global ? BUFFER0 : SAVED, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_VARIANCE, m->channel, m->global ? BUFFER1 : SAVED,
                 m->global ? 0 : (size_t)m->r->node->in.dim[0] * sizeof(float), err);
    if (!s && m->workspace)
        s = bind(k, DNNL_ARG_WORKSPACE, m->workspace, SAVED, m->workspace_at, err);
    return s;
}

static fst_status norm_forward(struct norm *m, dnnl_primitive_desc_t pd, fst_error *err)
{
    const struct fst_node *n = m->r->node;
    dnnl_primitive_desc_t copy;
    struct kernel *k = new_kernel(m->c, m->op, "batchnorm forward", false, err);
    fst_status s = k ? FST_OK : FST_E_MEMORY;
    if (!s)
        s = bind(k, DNNL_ARG_SRC, m->op->in, IN, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_DST, m->op->out, OUT, 0, err);
    if (!s)
        s = bind_statistics(m, k, err);
    if (!s)
        s = bind(k, DNNL_ARG_SCALE, m->channel, PARAM0, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_SHIFT, m->channel, PARAM1, 0, err);
    if (s)
        return s;
    dnnl_status_t ds = dnnl_primitive_desc_clone(&copy, pd);
    s = ds ? failed(ds, "forward", err) : finish(k, m->op, copy, 0, err);
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
        return failed(ds, "backward", err);
    struct kernel *k = new_kernel(m->c, m->op, "batchnorm backward", true, err);
    fst_status s = k ? FST_OK : FST_E_MEMORY;
    size_t used = m->r->want_grad_in ? 0 : round64(bytes(m->op->in));
    if (!s)
        s = bind(k, DNNL_ARG_SRC, m->op->in, IN, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_DIFF_DST, m->op->out, GRAD_OUT, 0, err);
    if (!s) /* the primitive always writes the input's gradient; when nobody wants it, to the scratch */
        s = bind(k, DNNL_ARG_DIFF_SRC, m->op->in, used ? SCRATCH : GRAD_IN, 0, err);
    if (!s)
        s = bind_statistics(m, k, err);
    if (!s)
        s = bind(k, DNNL_ARG_SCALE, m->channel, PARAM0, 0, err);
    if (!s && FDN_NORM_BACKWARD_TAKES_SHIFT)
        s = bind(k, DNNL_ARG_SHIFT, m->channel, PARAM1, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_DIFF_SCALE, m->channel, GRAD_PARAM0, 0, err);
    if (!s)
        s = bind(k, DNNL_ARG_DIFF_SHIFT, m->channel, GRAD_PARAM1, 0, err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    return finish(k, m->op, pd, used, err);
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
    fst_status s = tagged(c, 1, &n->in.dim[0], false, &m.channel, err);
    if (s)
        return s;
    dnnl_status_t ds =
        fdn_batchnorm_forward(&pd, c->engine, r->training ? dnnl_forward_training : dnnl_forward_inference,
                              FDN_MD(op->in->md), (float)n->u.norm.eps, m.flags, c->attr);
    if (ds)
        return failed(ds, "forward", err);
    m.workspace_at = round64(2 * (size_t)n->in.dim[0] * sizeof(float));
    op->saved = m.workspace_at;
    if (r->relu && r->training) {
        s = queried(c, pd, dnnl_query_workspace_md, &m.workspace, err);
        if (!s)
            op->saved += bytes(m.workspace);
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
    size_t elements = bytes(r->in) / sizeof(float);
    op->in = op->out = r->in;
    fst_status s = add_loop(c, op, "relu forward", false, run_relu, r->node, elements, err);
    if (s || !r->training)
        return s;
    op->keep_out = true;
    return add_loop(c, op, "relu backward", true, run_relu_backward, r->node, elements, err);
}

static fst_status flatten_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    op->alias = true;
    fst_status s = plain(c, r->batch, &r->node->in, &op->in, err);
    return s ? s : plain(c, r->batch, &r->node->out, &op->out, err);
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
    fst_status s = plain(c, r->batch, &n->in, &op->in, err);
    op->out = op->in;
    if (!s)
        s = add_loop(c, op, "dropout forward", false, run_plain_forward, n, 0, err);
    if (!s)
        s = add_loop(c, op, "dropout backward", true, run_plain_backward, n, 0, err);
    return s;
}

static fst_status op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *out, fst_error *err)
{
    typedef fst_status (*maker)(struct fst_context *, const struct fst_op_request *, struct fst_op *, fst_error *);
    static const maker makers[FST_OP_KINDS] = {
        [FST_OP_CONV2D] = weighted_op,  [FST_OP_LINEAR] = weighted_op,   [FST_OP_RELU] = relu_op,
        [FST_OP_MAXPOOL2D] = maxpool_op, [FST_OP_FLATTEN] = flatten_op,   [FST_OP_DROPOUT] = dropout_op,
        [FST_OP_BATCHNORM2D] = norm_op,
    };
    struct fst_op o = {0};
    fst_status s = makers[r->node->kind](c, r, &o, err);
    if (!s)
        *out = o;
    return s;
}

static bool fuses_relu(const struct fst_node *n)
{
    return n->kind == FST_OP_CONV2D || n->kind == FST_OP_LINEAR || n->kind == FST_OP_BATCHNORM2D;
}

const struct fst_backend fst__backend_onednn = {
    "onednn", describe, open_context, close_context, enter, plain, equal, bytes, fuses_relu, op, reorder,
};

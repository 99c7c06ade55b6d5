/* Loops of ours in the oneDNN backend: element-wise ops, in f32 and bf16, where oneDNN has no kernel or a slow one, and
 * the op files' own loops on plain layouts. Long ones are cut among the context's threads; elements do not meet, so
 * the cut leaves the bits alone. */
#include <omp.h>
#include <string.h>

#include "onednn.h"

enum { GRAIN = 1 << 14 }; /* elements: below, waking a thread costs more than it does */

static fst_status run_span(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct kernel *k = (struct kernel *)base;
    int threads = k->context->threads;
    (void)err;
    if (k->work / k->grain < (size_t)threads)
        threads = (int)(k->work / k->grain);
    if (threads <= 1) {
        k->span(k, a, 0, k->work);
        return FST_OK;
    }
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int i = 0; i < threads; i++) {
        size_t unit = k->grain < 64 ? 1 : 64, blocks = (k->work + unit - 1) / unit;
        size_t from = blocks * (size_t)i / (size_t)threads * unit,
               to = blocks * (size_t)(i + 1) / (size_t)threads * unit;
        k->span(k, a, from, (to < k->work ? to : k->work) - from);
    }
    return FST_OK;
}

fst_status fdn_add_call(struct fst_context *c, struct fst_op *op, const char *name, bool backward, fst_kernel_fn run,
                        const struct fst_node *n, fst_error *err)
{
    struct kernel *k = fdn_new_kernel(c, op, name, backward, err);
    if (!k)
        return FST_E_MEMORY;
    k->base.run = run;
    k->node = n;
    return FST_OK;
}

fst_status fdn_add_loop(struct fst_context *c, struct fst_op *op, const char *name, bool backward, fdn_span span,
                        const struct fst_node *n, const struct fst_layout *l, fst_error *err)
{
    fst_status s = fdn_add_call(c, op, name, backward, run_span, n, err);
    if (s)
        return s;
    c->kernels->span = span;
    c->kernels->work = fdn_elements(l);
    c->kernels->grain = GRAIN;
    c->kernels->half = fdn_half(l);
    return FST_OK;
}

/* Values of a kernel from element `from` on, whatever their size. */
static const void *at(const struct kernel *k, const void *p, size_t from)
{
    return (const char *)p + from * (k->half ? 2 : 4);
}

static void *into(const struct kernel *k, void *p, size_t from)
{
    return (char *)p + from * (k->half ? 2 : 4);
}

/* ---- ReLU and ReLU6 ------------------------------------------------------------------------------- */

static void mask_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    if (k->half)
        fst__relu_mask_bf16(at(k, a->out, from), into(k, a->grad_out, from), count);
    else
        fst__relu_mask(at(k, a->out, from), into(k, a->grad_out, from), count);
}

fst_status fdn_add_mask(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    if (!(r->relu && !r->relu_elsewhere) && !r->mask_output)
        return FST_OK;
    op->keep_out = true;
    return fdn_add_loop(c, op, "relu backward", true, mask_span, r->node, op->out, err);
}

static void relu_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    if (k->half)
        fst__relu_forward_bf16(at(k, a->in, from), into(k, a->out, from), count);
    else
        fst__relu_forward(at(k, a->in, from), into(k, a->out, from), count);
}

fst_status fdn_relu_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    op->in = op->out = r->in;
    op->moves_grad = op->keep_out = true;
    fst_status s = fdn_add_loop(c, op, "relu forward", false, relu_span, r->node, r->in, err);
    op->pure = true;
    return s || !r->training ? s : fdn_add_loop(c, op, "relu backward", true, mask_span, r->node, r->in, err);
}

static void relu6_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    if (k->half)
        fst__relu6_forward_bf16(at(k, a->in, from), into(k, a->out, from), count);
    else
        fst__relu6_forward(at(k, a->in, from), into(k, a->out, from), count);
}

static void relu6_backward_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    if (k->half)
        fst__relu6_mask_bf16(at(k, a->out, from), into(k, a->grad_out, from), count);
    else
        fst__relu6_mask(at(k, a->out, from), into(k, a->grad_out, from), count);
}

fst_status fdn_relu6_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    op->in = op->out = r->in;
    op->moves_grad = op->keep_out = true;
    fst_status s = fdn_add_loop(c, op, "relu6 forward", false, relu6_span, r->node, r->in, err);
    op->pure = true;
    return s || !r->training ? s
                             : fdn_add_loop(c, op, "relu6 backward", true, relu6_backward_span, r->node, r->in, err);
}

/* ---- add ------------------------------------------------------------------------------------------ */

static void add_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    if (k->half)
        fst__add_bf16(at(k, a->in, from), at(k, a->more_in[0], from), into(k, a->out, from), k->mask, count);
    else
        fst__add(at(k, a->in, from), at(k, a->more_in[0], from), into(k, a->out, from), k->mask, count);
}

static void add_backward_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    if (k->mask)
        mask_span(k, a, from, count);
    if (a->more_grad_in[0])
        memcpy(into(k, a->more_grad_in[0], from), at(k, a->grad_out, from), count * (k->half ? 2 : 4));
}

fst_status fdn_add_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    bool mask = r->relu && !r->relu_elsewhere;
    op->in = op->out = op->more[0] = r->in;
    op->moves_grad = true;
    fst_status s = fdn_add_loop(c, op, "add forward", false, add_span, r->node, r->in, err);
    if (s)
        return s;
    c->kernels->mask = r->relu;
    op->pure = true;
    if (!r->training || (!mask && !r->want_more[0]))
        return FST_OK;
    op->keep_out = mask;
    s = fdn_add_loop(c, op, "add backward", true, add_backward_span, r->node, r->in, err);
    if (!s)
        c->kernels->mask = mask;
    return s;
}

static void accumulate_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    if (k->half)
        fst__add_bf16(at(k, a->in, from), at(k, a->out, from), into(k, a->out, from), false, count);
    else
        fst__accumulate(at(k, a->in, from), into(k, a->out, from), count);
}

fst_status fdn_accumulate(struct fst_context *c, const struct fst_layout *l, struct fst_kernel **out, fst_error *err)
{
    struct fst_op none = {0};
    fst_status s = fdn_add_loop(c, &none, "accumulate", true, accumulate_span, NULL, l, err);
    if (!s)
        *out = none.kernel[0];
    return s;
}

/* ---- max pooling over blocks of channels ------------------------------------------------------------ */

/* The part of a pooling that some of its images are. */
static struct fst_blocked_pool images(const struct kernel *k, size_t count)
{
    struct fst_blocked_pool p = k->pool;
    p.images = (int64_t)count;
    return p;
}

static void pool_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_blocked_pool p = images(k, count);
    size_t in = from * (size_t)(p.height * p.width) * FST_POOL_BLOCK;
    size_t out = from * (size_t)(p.out_height * p.out_width) * FST_POOL_BLOCK;
    fst__maxpool_blocked_forward(&p, at(k, a->in, in), into(k, a->out, out), (unsigned char *)a->saved + out);
}

static void pool_backward_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_blocked_pool p = images(k, count);
    size_t in = from * (size_t)(p.height * p.width) * FST_POOL_BLOCK;
    size_t out = from * (size_t)(p.out_height * p.out_width) * FST_POOL_BLOCK;
    fst__maxpool_blocked_backward(&p, at(k, a->out, out), at(k, a->grad_out, out), (unsigned char *)a->saved + out,
                                  k->mask, into(k, a->grad_in, in));
}

static fst_status add_pool(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, bool backward,
                           fst_error *err)
{
    const struct fst_node *n = r->node;
    fst_status s = fdn_add_loop(c, op, backward ? "maxpool backward" : "maxpool forward", backward,
                                backward ? pool_backward_span : pool_span, n, op->in, err);
    if (s)
        return s;
    struct kernel *k = c->kernels;
    size_t plane = (size_t)(n->in.dim[1] * n->in.dim[2]) * FST_POOL_BLOCK;
    k->work = fdn_elements(op->in) / plane;
    k->grain = 1 + GRAIN / plane;
    k->mask = r->mask_output;
    k->pool = (struct fst_blocked_pool){.height = n->in.dim[1],
                                        .width = n->in.dim[2],
                                        .out_height = n->out.dim[1],
                                        .out_width = n->out.dim[2],
                                        .kernel = n->u.pool.kernel,
                                        .half = k->half};
    return FST_OK;
}

fst_status fdn_blocked_maxpool_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op,
                                  fst_error *err)
{
    op->saved = fdn_elements(op->out); /* a byte an output; inference ignores them */
    fst_status s = add_pool(c, r, op, false, err);
    if (s || !r->training || !r->want_grad_in)
        return s;
    op->keep_out = r->mask_output;
    return add_pool(c, r, op, true, err);
}

/* ---- the op files' own loops ------------------------------------------------------------------------ */

static fst_status run_plain_forward(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    const struct fst_op_type *t = fst__op_types[n->kind];
    fst_status s = t->accepts ? t->accepts(n, a, err) : FST_OK;
    if (!s)
        t->forward(n, a);
    return s;
}

static fst_status run_plain_backward(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    (void)err;
    fst__op_types[n->kind]->backward(n, a);
    return FST_OK;
}

fst_status fdn_plain_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    const struct fst_node *n = r->node;
    const struct fst_op_type *t = fst__op_types[n->kind];
    op->keep_in = op->keep_more = op->keep_out = true;
    op->saved = t->saved && r->training ? t->saved(n, r->batch) : 0;
    op->scratch = t->scratch ? t->scratch(n, r->batch) : 0;
    fst_status s = fdn_plain(c, r->in_rows, &n->in, &op->in, err);
    for (int j = 0; !s && j < n->nmore; j++)
        s = fdn_plain(c, r->in_rows, &n->more_in[j], &op->more[j], err);
    if (!s)
        s = fdn_plain(c, r->out_rows, &n->out, &op->out, err);
    if (!s)
        s = fdn_add_call(c, op, t->name, false, run_plain_forward, n, err);
    if (!s && r->training)
        s = fdn_add_call(c, op, t->name, true, run_plain_backward, n, err);
    return s;
}

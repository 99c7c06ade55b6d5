/* Ops on tokens in the oneDNN backend: the spectral norm puts its weights before the kernels of a linear layer,
 * attention runs its heads on the context's threads, scaling is a loop. */
#include "onednn.h"

/* ---- spectral norm --------------------------------------------------------------------------------- */

static fst_status run_prepare(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct kernel *k = (struct kernel *)base;
    (void)err;
    fst__spectral_prepare(k->node, a, fdn_pointer(a, k->folded));
    return FST_OK;
}

static fst_status run_gradient(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct kernel *k = (struct kernel *)base;
    (void)err;
    fst__spectral_gradient(k->node, a, fdn_pointer(a, k->folded));
    return FST_OK;
}

static fst_status add_call(struct fdn_weighted *w, const char *name, bool backward, fst_kernel_fn run, fst_error *err)
{
    fst_status s = fdn_add_call(w->c, w->op, name, backward, run, w->r->node, err);
    if (s)
        return s;
    w->c->kernels->folded = w->weight;
    w->c->kernels->base.prepare = !w->r->training;
    return FST_OK;
}

static fst_status spectral_backward(struct fdn_weighted *w, fst_error *err)
{
    w->op->keep_in = true;
    fst_status s = fdn_add_mask(w->c, w->r, w->op, err);
    if (!s)
        s = fdn_weighted_backward_weights(w, err);
    if (!s)
        s = add_call(w, "spectral norm backward", true, run_gradient, err);
    return s || !w->r->want_grad_in ? s : fdn_weighted_backward_data(w, err);
}

fst_status fdn_spectral_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    struct fdn_weighted w;
    size_t *room = r->training ? &op->saved : &op->held;
    fst_status s = fdn_weighted_init(&w, c, r, op, err);
    w.weight = (struct place){r->training ? SAVED : HELD, 0};
    *room = fdn_round64(fst__spectral_saved(r->node));
    if (!s)
        s = add_call(&w, "spectral norm", false, run_prepare, err);
    if (!s)
        s = fdn_weighted_forward(&w, err);
    if (!s)
        s = fdn_weighted_ends(&w, err);
    if (!s && r->training)
        s = spectral_backward(&w, err);
    fdn_weighted_release(&w);
    return s;
}

/* ---- scale ----------------------------------------------------------------------------------------- */

static void scale_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    fst__scale(a->in + from, (float)k->node->u.scale.factor, a->out + from, count);
}

static void scale_backward_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    fst__scale(a->grad_out + from, (float)k->node->u.scale.factor, a->grad_in + from, count);
}

fst_status fdn_scale_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    if (fdn_half(r->in))
        return fdn_plain_op(c, r, op, err);
    op->in = op->out = r->in;
    fst_status s = fdn_add_loop(c, op, "scale forward", false, scale_span, r->node, r->in, err);
    return s || !r->training || !r->want_grad_in
               ? s
               : fdn_add_loop(c, op, "scale backward", true, scale_backward_span, r->node, r->in, err);
}

/* ---- attention --------------------------------------------------------------------------------------- */

/* The heads of all samples are dealt out to as many hands as there are threads, each with scratch of its own. */
static void heads(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count, bool backward)
{
    size_t items = (size_t)(a->batch * k->node->u.attention.heads), room = fst__attention_scratch(k->node);
    for (size_t hand = from; hand < from + count; hand++)
        for (size_t i = items * hand / k->work; i < items * (hand + 1) / k->work; i++) {
            double *scratch = (double *)((char *)a->scratch + hand * fdn_round64(room));
            if (backward)
                fst__attention_backward(k->node, a, (int64_t)i, scratch);
            else
                fst__attention_forward(k->node, a, (int64_t)i, scratch);
        }
}

static void attention_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    heads(k, a, from, count, false);
}

static void attention_backward_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    heads(k, a, from, count, true);
}

fst_status fdn_attention_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    const struct fst_node *n = r->node;
    int64_t items = r->batch * n->u.attention.heads;
    size_t hands = (size_t)(items < c->threads ? items : c->threads);
    op->keep_in = op->keep_more = true;
    op->scratch = hands * fdn_round64(fst__attention_scratch(n));
    fst_status s = fdn_plain(c, r->batch, &n->in, &op->in, err);
    for (int j = 0; !s && j < n->nmore; j++)
        s = fdn_plain(c, r->batch, &n->more_in[j], &op->more[j], err);
    if (!s)
        s = fdn_plain(c, r->batch, &n->out, &op->out, err);
    for (int backward = 0; !s && backward <= r->training; backward++) {
        s = fdn_add_loop(c, op, backward ? "attention backward" : "attention forward", backward,
                         backward ? attention_backward_span : attention_span, n, op->out, err);
        if (!s) {
            c->kernels->work = hands;
            c->kernels->grain = 1;
        }
    }
    return s;
}

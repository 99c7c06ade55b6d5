/* Complex batch norm and attention in the oneDNN backend: loops of ours (complex_loops.h) as kernels, on plain layouts
 * and on channels in blocks of 8 or 16. f32 only. */
#include "complex_loops.h"
#include "onednn.h"

enum { GRAIN = 1 << 14 };

/* The input's own layout where the loops can take it, else plain. */
static fst_status take_layout(struct fst_context *c, const struct fst_op_request *r, bool padding, struct fst_op *op,
                              int64_t *block, fst_error *err)
{
    const struct fst_node *n = r->node;
    *block = r->in && !fdn_half(r->in) ? fdn_channel_block(FDN_MD(r->in->md)) : 0;
    bool takes = (*block == 8 || *block == 16) && (padding || n->in.dim[0] % *block == 0);
    if (takes) {
        op->in = op->out = r->in;
        return FST_OK;
    }
    *block = 1;
    fst_status s = fdn_plain(c, r->batch, &n->in, &op->in, err);
    op->out = op->in;
    return s;
}

static fst_status add_runs(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, const char *name,
                           bool backward, fdn_span span, int64_t block, int64_t work, fst_error *err)
{
    fst_status s = fdn_add_loop(c, op, name, backward, span, r->node, op->in, err);
    if (s)
        return s;
    struct kernel *k = c->kernels;
    k->block = block;
    k->grain = 1 + (size_t)GRAIN / (1 + k->work / (size_t)work);
    k->work = (size_t)work;
    return FST_OK;
}

static struct fst_runs runs_of(const struct kernel *k, const struct fst_op_args *a)
{
    return fst__runs(k->node, a->batch, k->block);
}

/* ---- batch norm --------------------------------------------------------------------------------------- */

/* Batch norm looks at rows that count only. */
static struct fst_runs counted_runs(const struct kernel *k, const struct fst_op_args *a)
{
    struct fst_runs r = runs_of(k, a);
    r.rows = fst__rows(a);
    return r;
}

static void norm_sums_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_runs r = counted_runs(k, a);
    for (size_t run = from; run < from + count; run++)
        fst__complex_norm_sums(&r, a, (int64_t)run);
}

static void norm_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_runs r = runs_of(k, a);
    struct fst_whitening *kept = a->saved;
    for (size_t run = from; run < from + count; run++)
        fst__complex_norm_forward(k->node, &r, a, (int64_t)run, k->mask, kept);
    if (from == 0)
        fst__norm_count(k->node, a);
}

static void norm_gradient_sums_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_runs r = counted_runs(k, a);
    for (size_t run = from; run < from + count; run++)
        fst__complex_norm_gradient_sums(k->node, &r, a, (int64_t)run, k->mask, a->saved);
}

static void norm_backward_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_runs r = counted_runs(k, a);
    for (size_t run = from; run < from + count; run++)
        fst__complex_norm_backward(k->node, &r, a, (int64_t)run, k->mask, a->saved);
}

fst_status fdn_complex_norm_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    int64_t block;
    bool mask = r->relu && !r->relu_elsewhere;
    fst_status s = take_layout(c, r, true, op, &block, err);
    if (s)
        return s;
    struct fst_runs runs = fst__runs(r->node, r->batch, block);
    op->saved = (size_t)runs.channels * sizeof(struct fst_whitening);
    bool batch = r->training && !r->frozen;
    if (batch)
        s = add_runs(c, r, op, "complex norm sums", false, norm_sums_span, block, runs.count, err);
    if (!s && batch)
        c->kernels->base.meet = true;
    if (!s)
        s = add_runs(c, r, op, "complex norm", false, norm_span, block, runs.count, err);
    if (s)
        return s;
    c->kernels->mask = r->relu;
    if (!r->training)
        return FST_OK;
    op->keep_in = true;
    op->keep_out = mask;
    op->shared = fst__op_complex_batchnorm.shared(r->node);
    s = add_runs(c, r, op, "complex norm gradient sums", true, norm_gradient_sums_span, block, runs.count, err);
    if (s)
        return s;
    c->kernels->mask = mask;
    c->kernels->base.meet = batch;
    if (!r->want_grad_in)
        return FST_OK;
    s = add_runs(c, r, op, "complex norm backward", true, norm_backward_span, block, runs.count, err);
    if (!s)
        c->kernels->mask = mask;
    return s;
}

/* ---- attention ------------------------------------------------------------------------------------------ */

static void attention_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_runs r = runs_of(k, a);
    fst__time_freq_forward(k->node, &r, a, (int64_t)from, (int64_t)count);
}

/* The input's gradient passes through its own memory even when nobody wants it: then after the loops' scratch. */
static void attention_backward_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_runs r = runs_of(k, a);
    size_t behind = fdn_round64(fst__time_freq_loop_scratch(k->node, &r));
    float *grad_in = a->grad_in ? a->grad_in : (float *)((char *)a->scratch + behind);
    fst__time_freq_backward(k->node, &r, a, grad_in, (int64_t)from, (int64_t)count);
}

static void attention_weights_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_runs r = runs_of(k, a);
    fst__time_freq_weights(k->node, &r, a, (int64_t)from, (int64_t)count);
}

fst_status fdn_time_freq_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    int64_t block;
    fst_status s = take_layout(c, r, false, op, &block, err);
    if (s)
        return s;
    struct fst_runs runs = fst__runs(r->node, r->batch, block);
    op->saved = fst__time_freq_saved(r->node, &runs);
    op->scratch = fdn_round64(fst__time_freq_loop_scratch(r->node, &runs));
    s = add_runs(c, r, op, "attention", false, attention_span, block, runs.samples, err);
    if (s || !r->training)
        return s;
    op->keep_in = true;
    if (!r->want_grad_in)
        op->scratch += fdn_bytes(op->in);
    s = add_runs(c, r, op, "attention backward", true, attention_backward_span, block, runs.samples, err);
    return s ? s
             : add_runs(c, r, op, "attention weights", true, attention_weights_span, block,
                        fst__time_freq_rows(r->node), err);
}

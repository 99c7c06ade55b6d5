/*
 * Batch norm on oneDNN. With running statistics (inference, frozen training) it is a primitive. With the batch's it is
 * loops of ours (norm_loops.h) in four kernels, since the shards of a batch meet in the middle of each pass, which no
 * primitive can do: sums, normalise; gradient's sums, the input's gradient in place. A sum with another value and a
 * ReLU after the norm are parts of these loops. From forward to backward only the input lives: a fifth kernel makes
 * the output again where a layer after it needs it for its own gradient.
 */
#include <math.h>

#include "norm_loops.h"
#include "onednn.h"

#define AT(f) ((struct place){f, 0})

/* ---- running statistics: primitives
 * ------------------------------------------------------------------------------------ */

struct norm {
    struct fst_context *c;
    const struct fst_op_request *r;
    struct fst_op *op;
    unsigned flags;
    const struct fst_layout *channel, *workspace; /* workspace: where the ReLU let values through */
};

static fst_status bind_statistics(const struct norm *m, struct kernel *k, fst_error *err)
{
    fst_status s = fdn_bind(k, DNNL_ARG_MEAN, m->channel, AT(BUFFER0), err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_VARIANCE, m->channel, AT(BUFFER1), err);
    if (!s && m->workspace)
        s = fdn_bind(k, DNNL_ARG_WORKSPACE, m->workspace, AT(SAVED), err);
    return s;
}

static fst_status norm_forward(struct norm *m, dnnl_primitive_desc_t pd, fst_error *err)
{
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
    return ds ? fdn_failed(ds, "forward", err) : fdn_finish(k, m->op, copy, 0, err);
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

static fst_status running_norm_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op,
                                  fst_error *err)
{
    const struct fst_node *n = r->node;
    struct norm m = {.c = c, .r = r, .op = op};
    dnnl_primitive_desc_t pd;
    m.flags = dnnl_use_scale | dnnl_use_shift | dnnl_use_global_stats;
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
    if (r->relu && r->training) {
        s = fdn_queried(c, pd, dnnl_query_workspace_md, &m.workspace, err);
        if (!s)
            op->saved = fdn_bytes(m.workspace);
    }
    if (!s)
        s = norm_forward(&m, pd, err);
    if (!s && r->training)
        s = norm_backward(&m, pd, err);
    dnnl_primitive_desc_destroy(pd);
    return s;
}

/* ---- the batch's statistics: loops --------------------------------------------------------------------- */

static struct fst_norm_walk walk_of(const struct kernel *k, const struct fst_op_args *a)
{
    return fst__norm_walk(k->node, a->batch, fst__rows(a), k->block, k->half);
}

static void sums_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_norm_walk w = walk_of(k, a);
    for (int64_t run = (int64_t)from; run < (int64_t)(from + count); run++) {
        double sums[FST_NORM_LANES][2];
        int64_t first = run * w.run_channels;
        fst__norm_sums(&w, a->in, run, sums);
        for (int64_t c = first; c < first + w.run_channels && c < w.channels; c++)
            for (int i = 0; i < 2; i++)
                fst__norm_shared(a, a->peers->shard)[c].forward[i] = sums[c - first][i];
    }
}

/* The lines of the channels first ... of a run. What rounding the mean leaves out is put right by the shift. */
static void lines_of(const struct fst_norm_walk *w, const struct fst_op_args *a, int64_t first,
                     struct fst_norm_line *line)
{
    const struct fst_norm_channel *kept = a->saved;
    for (int64_t c = first; c < first + w->run_channels && c < w->channels; c++) {
        float mean = (float)kept[c].mean;
        double scale = (double)a->param[0][c] * kept[c].inverse;
        double shift = (double)a->param[1][c] + ((double)mean - kept[c].mean) * scale;
        line[c - first] = (struct fst_norm_line){mean, (float)scale, (float)shift};
    }
}

static void run_forward(const struct kernel *k, const struct fst_op_args *a, const struct fst_norm_walk *w, int64_t run)
{
    struct fst_norm_line line[FST_NORM_LANES];
    struct fst_norm_with with = {k->add ? a->more_in[0] : NULL, k->mask, k->ceiling};
    lines_of(w, a, run * w->run_channels, line);
    fst__norm_forward(w, a->in, a->out, run, line, &with);
}

static void forward_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_norm_walk w = walk_of(k, a);
    struct fst_norm_channel *kept = a->saved;
    for (int64_t run = (int64_t)from; run < (int64_t)(from + count); run++) {
        int64_t first = run * w.run_channels;
        for (int64_t c = first; c < first + w.run_channels && c < w.channels; c++)
            kept[c] = fst__norm_channel(k->node, a, c);
        run_forward(k, a, &w, run);
    }
    if (from == 0)
        fst__norm_count(k->node, a);
}

/* The output once more, from what is kept. */
static void again_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_norm_walk w = walk_of(k, a);
    for (size_t run = from; run < from + count; run++)
        run_forward(k, a, &w, (int64_t)run);
}

/* The gradient after the mask, which is also that of the value that is added. */
static void *passed(const struct kernel *k, const struct fst_op_args *a)
{
    if (!k->add)
        return NULL;
    return a->more_grad_in[0] ? a->more_grad_in[0] : k->mask ? a->grad_out : NULL;
}

static void gradient_sums_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_norm_walk w = walk_of(k, a);
    const struct fst_norm_channel *kept = a->saved;
    struct fst_norm_gradient p = {.in = a->in,
                                  .grad = a->grad_out,
                                  .out = k->add && k->mask ? a->out : NULL,
                                  .pass = passed(k, a),
                                  .relu = k->mask,
                                  .ceiling = k->ceiling};
    for (int64_t run = (int64_t)from; run < (int64_t)(from + count); run++) {
        struct fst_norm_line line[FST_NORM_LANES];
        double sums[FST_NORM_LANES][2];
        int64_t first = run * w.run_channels;
        lines_of(&w, a, first, line);
        fst__norm_gradient_sums(&w, &p, run, line, sums);
        for (int64_t c = first; c < first + w.run_channels && c < w.channels; c++) {
            double *own = fst__norm_shared(a, a->peers->shard)[c].backward, *s = sums[c - first];
            double off = kept[c].mean - (double)(float)kept[c].mean;
            own[0] = s[0];
            own[1] = (s[1] - s[0] * off) * kept[c].inverse;
            /* a parameter's gradient is the sum over the shards of theirs: the optimiser adds them up */
            a->grad_param[0][c] = (float)own[1];
            a->grad_param[1][c] = (float)own[0];
        }
    }
}

static void gradient_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    struct fst_norm_walk w = walk_of(k, a);
    const struct fst_norm_channel *kept = a->saved;
    const void *behind = passed(k, a);
    struct fst_norm_gradient p = {.in = a->in,
                                  .grad = behind ? behind : a->grad_out,
                                  .to = a->grad_out,
                                  .relu = k->mask && !behind,
                                  .ceiling = k->ceiling};
    for (int64_t run = (int64_t)from; run < (int64_t)(from + count); run++) {
        struct fst_norm_line line[FST_NORM_LANES];
        struct fst_norm_slope slope[FST_NORM_LANES];
        int64_t first = run * w.run_channels;
        lines_of(&w, a, first, line);
        for (int64_t c = first; c < first + w.run_channels && c < w.channels; c++) {
            double means[2], scale = (double)a->param[0][c] * kept[c].inverse;
            double off = (double)(float)kept[c].mean - kept[c].mean;
            fst__norm_means(k->node, a, c, means);
            double by = -scale * kept[c].inverse * means[1];
            slope[c - first] = (struct fst_norm_slope){(float)scale, (float)by, (float)(by * off - scale * means[0])};
        }
        fst__norm_gradient(&w, &p, run, line, slope);
    }
}

struct norm_kernel {
    const char *name;
    bool backward, meet;
    fdn_span span;
};

static fst_status add_norm(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op,
                           const struct fst_layout *like, int64_t block, const struct norm_kernel *m, fst_error *err)
{
    enum { GRAIN = 1 << 14 }; /* elements worth a thread */
    fst_status s = fdn_add_loop(c, op, m->name, m->backward, m->span, r->node, like, err);
    if (s)
        return s;
    struct kernel *k = c->kernels;
    size_t runs = (size_t)fst__norm_walk(r->node, r->batch, r->batch, block, k->half).runs;
    k->block = block;
    k->mask = r->relu || r->relu6;
    k->ceiling = r->relu6 ? 6 : INFINITY;
    k->add = r->add;
    k->base.meet = m->meet;
    k->grain = 1 + GRAIN / (1 + k->work / runs);
    k->work = runs;
    return FST_OK;
}

static fst_status batch_norm_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op,
                                fst_error *err)
{
    fdn_md md = FDN_MD(r->in->md);
    int64_t block = fdn_channel_block(md);
    static const struct norm_kernel kernels[] = {
        {"batchnorm sums", false, true, sums_span},
        {"batchnorm forward", false, false, forward_span},
        {"batchnorm gradient sums", true, true, gradient_sums_span},
        {"batchnorm backward", true, false, gradient_span},
    };
    static const struct norm_kernel again = {"batchnorm again", true, false, again_span};
    struct fst_op aside = {0};
    op->in = r->in;
    fst_status s = FST_OK;
    if (fdn_channels_last(md)) {
        block = 0;
    } else if (block != 8 && block != 16) {
        block = 1;
        s = fdn_samples(c, fdn_type(r->in), r->batch, &r->node->in, false, &op->in, err);
    }
    op->out = op->more[0] = op->in;
    op->keep_in = true;
    op->keep_out = r->add && (r->relu || r->relu6);
    op->moves_grad = true;
    op->saved = (size_t)r->node->in.dim[0] * sizeof(struct fst_norm_channel);
    op->shared = fst__op_batchnorm2d.shared(r->node);
    for (size_t i = 0; !s && i < (r->want_grad_in ? 4 : 3); i++)
        s = add_norm(c, r, op, op->in, block, &kernels[i], err);
    if (!s)
        s = add_norm(c, r, &aside, op->in, block, &again, err);
    op->again = aside.kernel[0];
    return s;
}

fst_status fdn_norm_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    return r->training && !r->frozen ? batch_norm_op(c, r, op, err) : running_norm_op(c, r, op, err);
}

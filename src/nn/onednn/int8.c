/*
 * Layers in int8 on oneDNN: its primitives give the sums, as floats (nearest to the exact ones, as the reference has
 * them), and a pass of ours makes of them what the layer's value is: scaled, with a sum and a ReLU, rounded again
 * where the next layer is int8 too. oneDNN could do most of that itself, but rounds elsewhere, differently by version.
 * Values of images have their channels last. Without instructions for it (VNNI) oneDNN's sums are not exact: then all
 * of this is the op file's own loops, on floats.
 */
#include <string.h>

#include "onednn.h"

enum { GRAIN = 1 << 14 };

bool fdn_has_int8(void)
{
    dnnl_cpu_isa_t isa = dnnl_get_effective_cpu_isa();
    return (isa & dnnl_cpu_isa_avx512_core_vnni) == dnnl_cpu_isa_avx512_core_vnni ||
           (isa & dnnl_cpu_isa_avx2_vnni) == dnnl_cpu_isa_avx2_vnni;
}

static dnnl_data_type_t type_of(const struct fst_int8_value *v)
{
    return v->is_unsigned ? dnnl_u8 : dnnl_s8;
}

/* ---- quantise ----------------------------------------------------------------------------------------- */

static fst_status run_round(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct kernel *k = (const struct kernel *)base;
    return fst__int8_round(&k->node->int8, a->in, (uint8_t *)a->out, k->work) ? FST_OK : fst__quantise_failed(err);
}

/* The same, and channels go last. */
static fst_status run_round_turned(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct kernel *k = (const struct kernel *)base;
    size_t channels = (size_t)k->node->in.dim[0], plane = (size_t)(k->node->in.dim[1] * k->node->in.dim[2]);
    const uint8_t *from = a->scratch;
    uint8_t *to = (uint8_t *)a->out;
    if (!fst__int8_round(&k->node->int8, a->in, a->scratch, k->work))
        return fst__quantise_failed(err);
    for (size_t i = 0; i < k->work / plane; i++, from += plane) {
        uint8_t *first = to + i / channels * plane * channels + i % channels;
        for (size_t p = 0; p < plane; p++)
            first[p * channels] = from[p];
    }
    return FST_OK;
}

fst_status fdn_quantise_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    const struct fst_node *n = r->node;
    if (!fdn_has_int8())
        return fdn_plain_op(c, r, op, err);
    bool last = n->in.rank == 3 && fdn_channels_last(FDN_MD(r->in->md));
    bool turned = n->in.rank == 3 && n->in.dim[0] > 1 && !last;
    fst_status s = FST_OK;
    if (last)
        op->in = r->in;
    else
        s = fdn_plain(c, r->in_rows, &n->in, &op->in, err);
    if (!s)
        s = fdn_channels_last_layout(c, type_of(&n->int8), r->out_rows, &n->out, &op->out, err);
    if (!s)
        s = fdn_add_call(c, op, "quantise", false, turned ? run_round_turned : run_round, n, err);
    if (s)
        return s;
    c->kernels->work = (size_t)(r->in_rows * fst_shape_count(&n->in));
    op->scratch = turned ? c->kernels->work : 0;
    return FST_OK;
}

/* ---- rounding in training ------------------------------------------------------------------------------- */

static fst_status run_round_int8(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct kernel *k = (const struct kernel *)base;
    (void)err;
    fst__round_int8(a->in, a->out, k->node->u.quantise.is_unsigned, k->work);
    return FST_OK;
}

/* In any layout: the zeros that fill up blocks stay zeros. */
fst_status fdn_round_int8_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    if (fdn_half(r->in))
        return fst_fail(err, FST_E_UNSUPPORTED, "learning for int8 is in f32: bf16 has no room for 255 steps");
    op->in = op->out = r->in;
    op->moves_grad = true;
    fst_status s = fdn_add_call(c, op, "round", false, run_round_int8, r->node, err);
    if (!s)
        c->kernels->work = fdn_elements(r->in);
    return s;
}

/* ---- max pooling ---------------------------------------------------------------------------------------- */

static void pool_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    const struct fst_node *n = k->node;
    struct fst_int8_pool p = {.height = (size_t)n->in.dim[1],
                              .width = (size_t)n->in.dim[2],
                              .channels = (size_t)n->in.dim[0],
                              .out_height = (size_t)n->out.dim[1],
                              .out_width = (size_t)n->out.dim[2],
                              .kernel = (size_t)n->u.pool.kernel,
                              .stride = (size_t)n->u.pool.stride,
                              .padding = (size_t)n->u.pool.padding,
                              .is_unsigned = n->int8.is_unsigned};
    size_t in = (size_t)fst_shape_count(&n->in), out = (size_t)fst_shape_count(&n->out);
    for (size_t i = from; i < from + count; i++) /* each image with a row of its own */
        fst__int8_maxpool(&p, (const char *)a->in + i * in, (char *)a->scratch + i * p.width * p.channels,
                          (char *)a->out + i * out);
}

fst_status fdn_int8_pool_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    const struct fst_node *n = r->node;
    fst_status s = fdn_channels_last_layout(c, type_of(&n->int8), r->batch, &n->in, &op->in, err);
    if (!s)
        s = fdn_channels_last_layout(c, type_of(&n->int8), r->batch, &n->out, &op->out, err);
    if (!s)
        s = fdn_add_loop(c, op, "int8 pool", false, pool_span, n, op->in, err);
    if (s)
        return s;
    c->kernels->work = (size_t)r->batch;
    c->kernels->grain = 1 + (size_t)(4 * GRAIN / fst_shape_count(&n->in));
    op->scratch = (size_t)(r->batch * n->in.dim[2] * n->in.dim[0]);
    return FST_OK;
}

/* ---- layers -------------------------------------------------------------------------------------------- */

struct layer { /* one of them while it is built */
    struct fst_context *c;
    const struct fst_op_request *r;
    struct fst_op *op;
    bool conv;
    int64_t rows, channels; /* of the finishing pass: positions and what each has */
    const struct fst_layout *src, *sums, *weights, *any_weights;
    struct fdn_window window;
    struct place weights_at, factor_at;
    size_t sums_bytes;
};

/* The whole numbers of a state's floats; what sums are multiplied by, and what is added, again and again. */
static fst_status run_weights(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct kernel *k = (const struct kernel *)base;
    int8_t *weights = fdn_pointer(a, k->folded);
    size_t channels = (size_t)k->block, period = fst__int8_period(channels);
    float *factor = fdn_pointer(a, k->folded_bias), *shift = factor + period;
    (void)err;
    for (size_t i = 0; i < k->work; i++)
        weights[i] = (int8_t)a->param[0][i];
    for (size_t i = 0; i < period; i++) {
        factor[i] = k->node->in_int8.scale * a->param[1][i % channels];
        shift[i] = a->param[2][i % channels];
    }
    return FST_OK;
}

static void finish_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    size_t channels = (size_t)k->block, at = from * channels, period = fst__int8_period(channels);
    const float *factor = fdn_pointer(a, k->folded_bias);
    struct fst_int8_finish f = {.period = period,
                                .factor = factor,
                                .shift = factor + period,
                                .relu = k->mask,
                                .relu6 = k->ceiling > 0,
                                .to = k->rounding ? &k->rounding->int8 : NULL};
    fst__int8_finish(&f, (const float *)a->scratch + at, k->add ? a->more_in[0] + at : NULL,
                     (char *)a->out + at * (k->rounding ? 1 : sizeof(float)), count * channels);
}

static fst_status describe_ends(struct layer *l, fst_error *err)
{
    const struct fst_node *n = l->r->node;
    struct fst_op *op = l->op;
    dnnl_data_type_t in = type_of(&n->in_int8);
    dnnl_data_type_t out = l->r->quantise ? type_of(&l->r->quantise->int8) : dnnl_f32;
    int64_t rows = l->r->batch;
    fst_status s = fdn_channels_last_layout(l->c, in, rows, &n->in, &op->in, err);
    if (!s)
        s = fdn_channels_last_layout(l->c, out, rows, &n->out, &op->out, err);
    if (!s && l->r->add)
        s = fdn_channels_last_layout(l->c, dnnl_f32, rows, &n->out, &op->more[0], err);
    l->src = op->in;
    if (!s && l->conv)
        return fdn_channels_last_layout(l->c, dnnl_f32, rows, &n->out, &l->sums, err);
    struct fst_linear_sizes z = l->conv ? (struct fst_linear_sizes){0} : fst__linear_sizes(n, rows);
    fst_shape from = FST_SHAPE(z.in), to = FST_SHAPE(z.out);
    if (!s)
        s = fdn_channels_last_layout(l->c, in, z.rows, &from, &l->src, err);
    return s ? s : fdn_channels_last_layout(l->c, dnnl_f32, z.rows, &to, &l->sums, err);
}

static fst_status describe_weights(struct layer *l, fst_error *err)
{
    const struct fst_node *n = l->r->node;
    int64_t dims[5];
    int rank = fdn_weight_dims(n, l->conv, dims, &l->window);
    fst_status s = fdn_tagged(l->c, dnnl_s8, rank, dims, false, &l->weights, err);
    return s ? s : fdn_tagged(l->c, dnnl_s8, rank, dims, true, &l->any_weights, err);
}

/* Once for a state: weights in the layout that the primitive wants, and the factors. */
static fst_status prepare(struct layer *l, const struct fst_layout *want, fst_error *err)
{
    bool same = fdn_equal(want, l->weights);
    struct kernel *k;
    l->factor_at = fdn_take_held_bytes(l->op, 2 * fst__int8_period((size_t)l->channels) * sizeof(float));
    l->weights_at = fdn_take_held(l->op, want);
    fst_status s = fdn_add_call(l->c, l->op, "int8 weights", false, run_weights, l->r->node, err);
    if (s)
        return s;
    k = l->c->kernels;
    k->base.prepare = true;
    k->folded = same ? l->weights_at : (struct place){SCRATCH, 0};
    k->folded_bias = l->factor_at;
    k->work = fdn_bytes(l->weights);
    k->block = l->channels;
    if (same)
        return FST_OK;
    s = fdn_new_reorder(l->c, l->op, "weights reorder", false, l->weights, k->folded, want, l->weights_at, &k, err);
    if (!s)
        k->base.prepare = true;
    if (l->op->scratch < fdn_round64(fdn_bytes(l->weights)))
        l->op->scratch = fdn_round64(fdn_bytes(l->weights));
    return s;
}

static fst_status add_sums(struct layer *l, dnnl_primitive_desc_t pd, const struct fst_layout *want, fst_error *err)
{
    struct kernel *k = fdn_new_kernel(l->c, l->op, "int8 forward", false, err);
    fst_status s = k ? fdn_bind(k, DNNL_ARG_SRC, l->src, (struct place){IN, 0}, err) : FST_E_MEMORY;
    if (!s)
        s = fdn_bind(k, DNNL_ARG_WEIGHTS, want, l->weights_at, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DST, l->sums, (struct place){SCRATCH, 0}, err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    return fdn_finish(k, l->op, pd, fdn_round64(fdn_bytes(l->sums)), err);
}

static fst_status add_finish(struct layer *l, fst_error *err)
{
    fst_status s = fdn_add_loop(l->c, l->op, "finish", false, finish_span, l->r->node, l->sums, err);
    if (s)
        return s;
    struct kernel *k = l->c->kernels;
    k->work = (size_t)l->rows;
    k->grain = 1 + (size_t)(GRAIN / l->channels);
    k->block = l->channels;
    k->mask = l->r->relu;
    k->ceiling = l->r->relu6 ? 6 : 0;
    k->add = l->r->add;
    k->rounding = l->r->quantise;
    k->folded_bias = l->factor_at;
    return FST_OK;
}

fst_status fdn_int8_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op, fst_error *err)
{
    struct layer l = {.c = c, .r = r, .op = op, .conv = r->node->kind == FST_OP_INT8_CONV2D};
    const struct fst_layout *want = NULL;
    dnnl_primitive_desc_t pd = NULL;
    if (!fdn_has_int8())
        return fdn_plain_op(c, r, op, err);
    l.channels = l.conv ? r->node->out.dim[0] : r->node->u.linear.out;
    l.rows = r->batch * fst_shape_count(&r->node->out) / l.channels;
    fst_status s = describe_ends(&l, err);
    if (!s)
        s = describe_weights(&l, err);
    if (s)
        return s;
    fdn_md src = FDN_MD(l.src->md), weights = FDN_MD(l.any_weights->md), sums = FDN_MD(l.sums->md);
    dnnl_status_t ds =
        l.conv ? fdn_conv_forward(&pd, c->engine, dnnl_forward_inference, src, weights, NULL, sums, &l.window, c->attr)
               : fdn_linear_forward(&pd, c->engine, dnnl_forward_inference, src, weights, NULL, sums, c->attr);
    if (ds)
        return fdn_failed(ds, "int8 forward", err);
    s = fdn_queried(c, pd, dnnl_query_weights_md, &want, err);
    if (!s)
        s = prepare(&l, want, err);
    if (s) {
        dnnl_primitive_desc_destroy(pd);
        return s;
    }
    s = add_sums(&l, pd, want, err);
    return s ? s : add_finish(&l, err);
}

/*
 * A layer on a single sample, as two halves of its outputs: each is a primitive of its own with half of the weights,
 * and whichever of two threads comes takes the next. So a thread that the system has stopped holds up at most the half
 * that it has, and each core reads only half of the weights, which is what a single sample's time goes to. Which layers
 * are cut depends on shapes alone, and the halves are the same primitives on one thread, so bits do not depend on
 * threads.
 *
 * A convolution's output may have its channels last. There a half, which a primitive writes without gaps, is copied to
 * its place by the thread that made it.
 */
#include <string.h>

#include "onednn.h"

/* Meeting takes about a microsecond, and a short layer is not worth it. A core does some 150 operations a nanosecond
 * and reads some 50 bytes of weights. Measured in docs/rationale.md. */
enum { OPS_A_NANOSECOND = 150, BYTES_A_NANOSECOND = 50, WORTH_NANOSECONDS = 20000 };

bool fdn_worth_halves(const struct fdn_weighted *w)
{
    const struct fst_node *n = w->r->node;
    if (!w->c->halves || w->r->training || w->rows != 1 || w->c->type != dnnl_f32)
        return false;
    int64_t outputs = w->conv ? n->out.dim[0] : n->u.linear.out;
    if (outputs % (w->conv ? 32 : 8) != 0 || (w->conv && n->u.conv.groups > 1))
        return false;
    double ops = fst__op_types[n->kind]->flops(n), bytes = (double)fdn_bytes(w->weights);
    return ops / OPS_A_NANOSECOND + bytes / BYTES_A_NANOSECOND >= WORTH_NANOSECONDS;
}

/* ---- running ---------------------------------------------------------------------------------------------- */

/* Layers are not shared for a while after a thread had to sleep for one that the system had stopped, and after the
 * second thread has taken part in less than a quarter of so many: on a machine with other work, two would be slower
 * than one. */
enum { SHORTEST_REST = 1 << 8, LONGEST_REST = 1 << 16, GOOD_RUNS = 1 << 13, WINDOW = 64 };

void fdn_share(struct fst_context *c, fst_pool *pool)
{
    c->halves = true;
    c->pool = pool;
    c->rest = SHORTEST_REST;
}

/* A half without gaps goes to its place among the channels of each pixel. */
static void spread(const struct kernel *k, const struct fst_op_args *a, size_t half)
{
    const char *from = fdn_pointer(a, k->folded);
    char *to = (char *)a->out + half * k->grain;
    for (size_t i = 0; i < k->work; i++)
        memcpy(to + 2 * i * k->grain, from + i * k->grain, k->grain);
}

struct shared {
    const struct kernel *k;
    const struct fst_op_args *a;
    fst_status status[2];
    bool helped; /* the second thread took part */
};

static void run_half(void *ctx, int worker, size_t half)
{
    struct shared *s = ctx;
    struct kernel *k = s->k->halves[half];
    if (worker) {
        s->helped = true;
        fst__backend_onednn.enter(k->context); /* a thread's own setting */
    }
    s->status[half] = fdn_run_primitive(&k->base, s->a, NULL);
    if (!s->status[half] && k->work)
        spread(k, s->a, half);
}

static void rest(struct fst_context *c)
{
    c->alone = c->rest;
    c->rest = c->rest < LONGEST_REST ? 2 * c->rest : LONGEST_REST;
    c->good = c->helped = 0;
}

/* Both halves on whoever is there. */
static void run_shared(struct fst_context *c, struct shared *s)
{
    uint64_t slept = fst_pool_slept(c->pool);
    fst_pool_run(c->pool, run_half, s, 2);
    c->good++;
    c->helped += s->helped;
    if (fst_pool_slept(c->pool) != slept)
        rest(c);
    else if (c->good % WINDOW == 0) {
        if (c->helped < WINDOW / 4)
            rest(c);
        c->helped = 0;
    }
    if (c->good == GOOD_RUNS) {
        c->rest = SHORTEST_REST;
        c->good = 0;
    }
}

static fst_status run_halves(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    struct kernel *k = (struct kernel *)base;
    struct fst_context *c = k->context;
    struct shared s = {.k = k, .a = a};
    if (c->pool && c->alone == 0) {
        run_shared(c, &s);
    } else {
        c->alone -= c->alone > 0;
        run_half(&s, 0, 0);
        run_half(&s, 0, 1);
    }
    fst_status st = s.status[0] ? s.status[0] : s.status[1];
    return st ? fst_fail(err, st, "oneDNN: %s failed", base->name) : FST_OK;
}

/* ---- making ----------------------------------------------------------------------------------------------- */

/* Both halves have these layouts and this primitive. */
struct half {
    const struct fst_layout *plain, *any, *bias, *dst, *want;
    dnnl_primitive_desc_t pd;
    bool gaps; /* channels last: it is copied */
    struct place weights[2], bias_at[2];
};

static fst_status output_layout(const struct fdn_weighted *w, struct half *h, fst_error *err)
{
    fst_shape out = w->r->node->out;
    if (!w->conv) {
        out = FST_SHAPE(w->r->node->u.linear.out / 2);
        return fdn_samples(w->c, dnnl_f32, 1, &out, false, &h->dst, err);
    }
    out.dim[0] /= 2;
    if (fdn_channels_last(FDN_MD(w->dst->md))) {
        int64_t c = out.dim[0], dims[] = {1, c, out.dim[1], out.dim[2]};
        h->gaps = out.dim[1] * out.dim[2] > 1;
        return fdn_part(w->c, 4, dims, (int64_t[]){dims[2] * dims[3] * c, 1, dims[3] * c, c}, &h->dst, err);
    }
    int64_t block = fdn_channel_block(FDN_MD(w->dst->md));
    if (block && out.dim[0] % block == 0)
        return fdn_blocked(w->c, dnnl_f32, 1, &out, block, &h->dst, err);
    h->dst = NULL;
    return FST_OK;
}

static fst_status describe(struct fdn_weighted *w, struct half *h, fst_error *err)
{
    dnnl_dims_t dims;
    int rank = fdn_md_dims(FDN_MD(w->weights->md), dims);
    int64_t half[5], bias;
    for (int i = 0; i < rank; i++)
        half[i] = dims[i];
    bias = half[0] /= 2;
    fst_status s = output_layout(w, h, err);
    if (s || !h->dst)
        return s;
    s = fdn_tagged(w->c, dnnl_f32, rank, half, false, &h->plain, err);
    if (!s)
        s = fdn_tagged(w->c, dnnl_f32, rank, half, w->conv, &h->any, err);
    if (!s)
        s = fdn_tagged(w->c, dnnl_f32, 1, &bias, false, &h->bias, err);
    if (s)
        return s;
    struct fdn_weighted part = *w;
    part.any_weights = h->any;
    part.bias_layout = h->bias;
    part.dst = h->dst;
    part.hint = NULL;
    if (fdn_describe_forward(&part)) { /* no primitive for a half: the whole will do */
        h->dst = NULL;
        return FST_OK;
    }
    s = fdn_queried(w->c, part.hint, dnnl_query_weights_md, &h->want, err);
    if (s)
        dnnl_primitive_desc_destroy(part.hint);
    else
        h->pd = part.hint;
    return s;
}

/* Where the half's weights and bias lie once the preparation has run; `from` is where the whole's are, plain. */
static fst_status hold_half(struct fdn_weighted *w, struct half *h, int i, struct place from, struct place bias,
                            fst_error *err)
{
    struct kernel *k;
    struct place plain = {from.field, from.offset + (size_t)i * fdn_bytes(h->plain)};
    h->weights[i] = plain;
    h->bias_at[i] = (struct place){bias.field, bias.offset + (size_t)i * fdn_bytes(h->bias)};
    if (fdn_equal(h->want, h->plain))
        return FST_OK;
    h->weights[i] = fdn_take_held(w->op, h->want);
    fst_status s =
        fdn_new_reorder(w->c, w->op, "weights reorder", false, h->plain, plain, h->want, h->weights[i], &k, err);
    if (!s)
        k->base.prepare = true;
    return s;
}

static fst_status make_half(struct fdn_weighted *w, const struct half *h, int i, size_t *scratch, struct kernel **out,
                            fst_error *err)
{
    dnnl_primitive_desc_t pd;
    struct place to = {OUT, (size_t)i * fdn_bytes(h->dst)};
    struct kernel *k = fdn_new_kernel(w->c, NULL, "forward", false, err);
    if (!k)
        return FST_E_MEMORY;
    if (h->gaps) {
        const fst_shape *o = &w->r->node->out;
        to = k->folded = (struct place){SCRATCH, *scratch};
        *scratch += fdn_round64(fdn_bytes(h->dst));
        k->work = (size_t)(o->dim[1] * o->dim[2]);
        k->grain = (size_t)o->dim[0] / 2 * sizeof(float);
    }
    fst_status s = fdn_bind(k, DNNL_ARG_SRC, w->src, w->in, err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_WEIGHTS, h->want, h->weights[i], err);
    if (!s && (w->bias || w->fold))
        s = fdn_bind(k, DNNL_ARG_BIAS, h->bias, h->bias_at[i], err);
    if (!s)
        s = fdn_bind(k, DNNL_ARG_DST, h->dst, to, err);
    if (s)
        return s;
    *out = k;
    dnnl_status_t ds = dnnl_primitive_desc_clone(&pd, h->pd);
    if (ds)
        return fdn_failed(ds, "forward", err);
    s = fdn_finish(k, w->op, pd, *scratch, err);
    *scratch = w->op->scratch > *scratch ? w->op->scratch : *scratch; /* the other half runs at the same time */
    return s;
}

/* Whole weights with the batch norm multiplied in, in `from`, and their bias. */
static fst_status hold_folded(struct fdn_weighted *w, const struct half *h, struct place *from, struct place *bias,
                              fst_error *err)
{
    if (!w->fold)
        return FST_OK;
    *bias = fdn_take_held(w->op, w->bias_layout);
    bool stays = fdn_equal(h->want, h->plain);
    *from = stays ? fdn_take_held(w->op, w->weights) : (struct place){SCRATCH, w->scratch_at};
    return fdn_add_fold(w, *from, *bias, err);
}

fst_status fdn_make_halves(struct fdn_weighted *w, bool *made, fst_error *err)
{
    struct half h = {0};
    struct kernel *halves[2] = {NULL};
    struct place from = w->weight, bias = w->bias_at;
    size_t scratch = w->scratch_at;
    *made = false;
    fst_status s = describe(w, &h, err);
    if (s || !h.pd)
        return s;
    s = hold_folded(w, &h, &from, &bias, err);
    for (int i = 0; !s && i < 2; i++)
        s = hold_half(w, &h, i, from, bias, err);
    for (int i = 0; !s && i < 2; i++)
        s = make_half(w, &h, i, &scratch, &halves[i], err);
    dnnl_primitive_desc_destroy(h.pd);
    if (!s)
        s = fdn_add_call(w->c, w->op, "forward", false, run_halves, w->r->node, err);
    if (s)
        return s;
    memcpy(w->c->kernels->halves, halves, sizeof halves);
    *made = true;
    return FST_OK;
}

/*
 * Complex convolution and linear on oneDNN. Without biases the two real layers lie together in the parameter span, so
 * one primitive computes both: of twice the outputs, over the real and the imaginary rows. A pass after it combines
 * the four products ((re, im) by (r, i)) into the complex result; before the backward primitives a pass lays out (g, g
 * turned by -90 degrees) for them, and then they give the gradients of both layers and of the input without sums of
 * ours. With biases between them, weights and biases are copied together first.
 *
 * Where the output is a single position a convolution is a linear layer over the taps that meet the input: oneDNN's
 * convolutions would read all weights anew for every row. f32 only, whatever the plan's precision.
 */
#include <string.h>

#include "complex_loops.h"
#include "onednn.h"

enum { GRAIN = 1 << 14 };

struct twin { /* one of them while it is built */
    struct fst_context *c;
    const struct fst_op_request *r;
    struct fst_op *op;
    struct fst_node node;       /* both real layers as one */
    struct fst_op_request wide; /* for it */
    struct fdn_weighted w;
    size_t used; /* bytes of the scratch: results of both layers first */
    bool bias;
    int64_t channels, kernel[2], taken[2]; /* of the weights; taken: what of the kernel is used */
    /* Where a part of inputs or parameters is read: that part, the copy's layout and where it lies. NULL: all is read
     * where it is. */
    const struct fst_layout *in_part, *in_dense, *weight_part, *weight_dense, *bias_part, *bias_dense;
    struct place in_at, weight_at, bias_at;
};

static int64_t result_floats(const struct twin *t)
{
    return t->r->batch * 2 * fst_shape_count(&t->r->node->out);
}

static struct place take_scratch(struct twin *t, size_t bytes)
{
    struct place at = {SCRATCH, t->used};
    t->used += fdn_round64(bytes);
    return at;
}

/* ---- the passes around ------------------------------------------------------------------------------- */

static void combine_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    fst__complex_combine(a->scratch, a->out, fst_shape_count(&k->node->out), a->batch / 2, (int64_t)from,
                         (int64_t)count);
}

static void spread_span(const struct kernel *k, const struct fst_op_args *a, size_t from, size_t count)
{
    fst__complex_spread(a->grad_out, a->scratch, fst_shape_count(&k->node->out), a->batch / 2, (int64_t)from,
                        (int64_t)count);
}

static fst_status add_pass(struct twin *t, const char *name, bool backward, fdn_span span, fst_error *err)
{
    fst_status s = fdn_add_loop(t->c, t->op, name, backward, span, t->r->node, t->op->out, err);
    if (s)
        return s;
    t->c->kernels->work = (size_t)t->r->batch / 2;
    t->c->kernels->grain = 1 + (size_t)GRAIN / (size_t)fst_shape_count(&t->r->node->out);
    return FST_OK;
}

/* ---- a convolution over few positions -------------------------------------------------------------------- */

static fst_status run_clear_input(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    memset(a->grad_in, 0, ((struct kernel *)base)->clear);
    return FST_OK;
}

static fst_status run_clear_weights(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    memset(a->grad_param[0], 0, ((struct kernel *)base)->clear);
    return FST_OK;
}

static fst_status add_clear(struct twin *t, fst_kernel_fn run, size_t floats, fst_error *err)
{
    fst_status s = fdn_add_call(t->c, t->op, "clear", true, run, t->r->node, err);
    if (s)
        return s;
    t->c->kernels->base.compute = false;
    t->c->kernels->clear = floats * sizeof(float);
    return FST_OK;
}

/* How much of kernel and input meet at the only output position, and the first tap of that. */
struct overlap {
    int64_t size[2], tap;
};

static struct overlap overlap_of(const struct fst_node *n)
{
    const fst_conv2d *o = &n->u.conv;
    struct overlap v = {.tap = o->padding[0] * o->kernel[1] + o->padding[1]};
    for (int i = 0; i < 2; i++) {
        int64_t behind = o->kernel[i] - o->padding[i];
        v.size[i] = behind < n->in.dim[1 + i] ? behind : n->in.dim[1 + i];
    }
    return v;
}

static bool single_position(const struct fst_node *n)
{
    struct overlap v = n->kind == FST_OP_COMPLEX_CONV2D ? overlap_of(n) : (struct overlap){0};
    return v.size[0] > 0 && v.size[1] > 0 && n->out.dim[1] == 1 && n->out.dim[2] == 1;
}

/* Part (rows, channels, size) of planes of (height, width), and the same without gaps. */
static fst_status parts(struct twin *t, int64_t rows, int64_t channels, const int64_t plane[2], const int64_t size[2],
                        const struct fst_layout **part, const struct fst_layout **dense, fst_error *err)
{
    int64_t dims[4] = {rows, channels, size[0], size[1]}, area = plane[0] * plane[1];
    int64_t strides[4] = {channels * area, area, plane[1], 1};
    fst_status s = fdn_part(t->c, 4, dims, strides, part, err);
    return s ? s : fdn_tagged(t->c, dnnl_f32, 4, dims, false, dense, err);
}

/* Makes the layer linear. A copy is made of the input where it does not take the whole. */
static fst_status make_linear(struct twin *t, fst_error *err)
{
    const struct fst_node *n = t->r->node;
    struct overlap v = overlap_of(n);
    int64_t outs = 2 * n->u.conv.out_channels;
    t->node.kind = FST_OP_LINEAR;
    t->node.u.linear.bias = t->bias;
    t->node.u.linear.out = outs;
    t->node.in = FST_SHAPE(n->in.dim[0] * v.size[0] * v.size[1]);
    t->node.out = FST_SHAPE(outs);
    if (v.size[0] == n->in.dim[1] && v.size[1] == n->in.dim[2])
        return FST_OK;
    fst_status s = parts(t, t->r->batch, n->in.dim[0], &n->in.dim[1], v.size, &t->in_part, &t->in_dense, err);
    if (!s)
        t->in_at = take_scratch(t, fdn_bytes(t->in_dense));
    return s;
}

static fst_status bring_input(struct twin *t, bool backward, fst_error *err)
{
    if (!t->in_part)
        return FST_OK;
    return fdn_new_reorder(t->c, t->op, "gather", backward, t->in_part, (struct place){IN, 0}, t->in_dense, t->in_at,
                           NULL, err);
}

static fst_status return_input(struct twin *t, fst_error *err)
{
    fst_status s = add_clear(t, run_clear_input, fdn_elements(t->op->in), err);
    return s ? s
             : fdn_new_reorder(t->c, t->op, "scatter", true, t->in_dense, t->w.grad_in, t->in_part,
                               (struct place){GRAD_IN, 0}, NULL, err);
}

/* ---- parameters that do not lie together -------------------------------------------------------------- */

/* Floats from a layer's weights to the other's. */
static int64_t layer_floats(const struct twin *t)
{
    int64_t outs = t->r->node->out.dim[0];
    return outs * t->channels * t->kernel[0] * t->kernel[1] + (t->bias ? outs : 0);
}

/* In training for as long as the op runs, in inference for good. */
static struct place take_copy(struct twin *t, const struct fst_layout *l)
{
    struct place at = {HELD, t->op->held};
    if (t->r->training)
        return take_scratch(t, fdn_bytes(l));
    t->op->held += fdn_round64(fdn_bytes(l));
    return at;
}

static fst_status choose_copies(struct twin *t, fst_error *err)
{
    int64_t area = t->kernel[0] * t->kernel[1], outs = t->r->node->out.dim[0];
    int64_t dims[5] = {2, outs, t->channels, t->taken[0], t->taken[1]};
    int64_t strides[5] = {layer_floats(t), t->channels * area, area, t->kernel[1], 1};
    if (!t->bias && t->taken[0] == t->kernel[0] && t->taken[1] == t->kernel[1])
        return FST_OK;
    fst_status s = fdn_part(t->c, 5, dims, strides, &t->weight_part, err);
    if (!s)
        s = fdn_tagged(t->c, dnnl_f32, 5, dims, false, &t->weight_dense, err);
    if (!s)
        t->weight_at = take_copy(t, t->weight_dense);
    if (s || !t->bias)
        return s;
    s = fdn_part(t->c, 2, dims, (int64_t[]){layer_floats(t), 1}, &t->bias_part, err);
    if (!s)
        s = fdn_tagged(t->c, dnnl_f32, 2, dims, false, &t->bias_dense, err);
    if (!s)
        t->bias_at = take_copy(t, t->bias_dense);
    return s;
}

/* The first tap that is taken. */
static struct place taps_at(const struct twin *t, enum field f)
{
    const struct fst_node *n = t->r->node;
    int64_t tap = t->w.conv || n->kind == FST_OP_COMPLEX_LINEAR ? 0 : overlap_of(n).tap;
    return (struct place){f, (size_t)tap * sizeof(float)};
}

static fst_status bring_part(struct twin *t, bool backward, const struct fst_layout *part, struct place from,
                             const struct fst_layout *dense, struct place to, fst_error *err)
{
    struct kernel *k;
    fst_status s = fdn_new_reorder(t->c, t->op, "gather weights", backward, part, from, dense, to, &k, err);
    if (!s && !t->r->training)
        k->base.prepare = true;
    return s;
}

static fst_status bring_weights(struct twin *t, bool backward, fst_error *err)
{
    if (!t->weight_part)
        return FST_OK;
    fst_status s = bring_part(t, backward, t->weight_part, taps_at(t, PARAM0), t->weight_dense, t->weight_at, err);
    if (!s && t->bias && !backward)
        s = bring_part(t, false, t->bias_part, (struct place){PARAM1, 0}, t->bias_dense, t->bias_at, err);
    return s;
}

/* After the primitive: what it wrote beside goes to its place, taps that it did not take get 0. */
static fst_status return_weights(struct twin *t, fst_error *err)
{
    fst_status s = FST_OK;
    if (t->taken[0] != t->kernel[0] || t->taken[1] != t->kernel[1])
        s = add_clear(t, run_clear_weights, (size_t)(2 * layer_floats(t)), err);
    if (!s)
        s = fdn_new_reorder(t->c, t->op, "scatter weights", true, t->weight_dense, t->w.grad_weight, t->weight_part,
                            taps_at(t, GRAD_PARAM0), NULL, err);
    if (!s && t->bias)
        s = fdn_new_reorder(t->c, t->op, "scatter biases", true, t->bias_dense, t->w.grad_bias, t->bias_part,
                            (struct place){GRAD_PARAM1, 0}, NULL, err);
    return s;
}

/* ---- making ------------------------------------------------------------------------------------------------- */

/* The layout of the complex result whose rows are halves of the layer's: plain, or blocks that both halves fill. */
static fst_status halve(struct twin *t, bool *fits, fst_error *err)
{
    const struct fst_node *n = t->r->node;
    const struct fst_layout *plain;
    int64_t block = n->out.rank == 3 ? fdn_channel_block(FDN_MD(t->w.dst->md)) : 0;
    *fits = (block == 8 || block == 16) && n->out.dim[0] % block == 0;
    if (*fits)
        return fdn_blocked(t->c, dnnl_f32, t->r->batch, &n->out, block, &t->op->out, err);
    fst_status s = fdn_plain(t->c, t->r->batch, &t->node.out, &plain, err);
    if (s)
        return s;
    *fits = fdn_equal(plain, t->w.dst);
    return fdn_plain(t->c, t->r->batch, &n->out, &t->op->out, err);
}

/* Which layouts the convolution would choose, and ours for it. */
static fst_status choose_layouts(struct twin *t, fst_error *err)
{
    const struct fst_layout *any = t->w.dst;
    struct fst_op unused = {0};
    struct fdn_weighted w = t->w;
    bool fits;
    w.op = &unused;
    fst_status s = fdn_weighted_forward(&w, err);
    t->w.dst = s ? any : w.dst;
    fdn_weighted_release(&w);
    if (!s)
        s = halve(t, &fits, err);
    if (!s && !fits) /* op->out is plain then */
        s = fdn_plain(t->c, t->r->batch, &t->node.out, &t->w.dst, err);
    return s;
}

static fst_status forward(struct twin *t, fst_error *err)
{
    bool linear = t->node.kind == FST_OP_LINEAR;
    fst_status s = linear ? bring_input(t, false, err) : choose_layouts(t, err);
    if (!s)
        s = bring_weights(t, false, err);
    t->w.scratch_at = t->used;
    if (!s)
        s = fdn_weighted_forward(&t->w, err);
    if (s)
        return s;
    t->op->in = t->w.src;
    if (linear)
        s = fdn_plain(t->c, t->r->batch, &t->r->node->in, &t->op->in, err);
    if (!s && linear)
        s = fdn_plain(t->c, t->r->batch, &t->r->node->out, &t->op->out, err);
    return s ? s : add_pass(t, "combine", false, combine_span, err);
}

static fst_status backward(struct twin *t, fst_error *err)
{
    struct place dense = {SCRATCH, 0};
    t->op->keep_in = true;
    fst_status s = add_pass(t, "spread gradient", true, spread_span, err);
    if (!s)
        s = bring_input(t, true, err);
    if (t->weight_part) { /* their places in the scratch hold the gradients, then the weights */
        t->w.grad_weight = t->weight_at;
        t->w.grad_bias = t->bias_at;
        if (!s)
            s = fdn_weighted_backward_weights(&t->w, err);
        if (!s)
            s = return_weights(t, err);
        if (!s && t->r->want_grad_in)
            s = bring_weights(t, true, err);
    } else if (!s) {
        s = fdn_weighted_backward_weights(&t->w, err);
    }
    if (s || !t->r->want_grad_in)
        return s;
    if (t->in_part) { /* likewise */
        dense.offset = t->in_at.offset;
        t->w.grad_in = dense;
    }
    s = fdn_weighted_backward_data(&t->w, err);
    return s || !t->in_part ? s : return_input(t, err);
}

/* Both layers as one. */
static fst_status widen(struct twin *t, fst_error *err)
{
    const struct fst_node *n = t->r->node;
    t->node = *n;
    t->channels = n->in.dim[0];
    t->kernel[0] = t->kernel[1] = t->taken[0] = t->taken[1] = 1;
    if (n->kind == FST_OP_COMPLEX_LINEAR) {
        t->bias = n->u.linear.bias;
        t->node.kind = FST_OP_LINEAR;
        t->node.u.linear.out *= 2;
        t->node.out.dim[0] *= 2;
        return FST_OK;
    }
    t->bias = n->u.conv.bias;
    for (int i = 0; i < 2; i++)
        t->kernel[i] = t->taken[i] = n->u.conv.kernel[i];
    if (single_position(n)) {
        memcpy(t->taken, overlap_of(n).size, sizeof t->taken);
        return make_linear(t, err);
    }
    t->node.kind = FST_OP_CONV2D;
    t->node.u.conv.out_channels *= 2;
    t->node.out.dim[0] *= 2;
    return FST_OK;
}

static fst_status make(struct twin *t, fst_error *err)
{
    const struct fst_op_request *r = t->r;
    t->in_at = (struct place){IN, 0};
    t->weight_at = (struct place){PARAM0, 0};
    t->bias_at = (struct place){PARAM1, 0};
    (void)take_scratch(t, (size_t)result_floats(t) * sizeof(float));
    fst_status s = widen(t, err);
    t->wide = *r;
    t->wide.node = &t->node;
    if (!s)
        s = choose_copies(t, err);
    if (!s)
        s = fdn_weighted_init(&t->w, t->c, &t->wide, t->op, err);
    if (s)
        return s;
    t->w.blocks = true; /* which halve() can take apart */
    t->w.in = t->in_at;
    t->w.weight = t->weight_at;
    t->w.bias_at = t->bias_at;
    t->w.out = t->w.grad_out = (struct place){SCRATCH, 0};
    s = forward(t, err);
    if (!s && r->training)
        s = backward(t, err);
    fdn_weighted_release(&t->w);
    return s;
}

fst_status fdn_complex_weighted_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *op,
                                   fst_error *err)
{
    struct twin t = {.c = c, .r = r, .op = op};
    dnnl_data_type_t type = c->type;
    c->type = dnnl_f32; /* asked while kernels are made only */
    fst_status s = make(&t, err);
    c->type = type;
    return s;
}

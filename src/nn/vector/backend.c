/* The vector backend (vector.h): the reference backend, but for what is computed otherwise in inference. Layouts and
 * all other kernels are the reference backend's, whose context this one holds. */
#include "vector.h"

struct kernel {
    struct fst_kernel base; /* first: a struct fst_kernel * is a struct kernel * */
    struct fst__weighted weighted;
    const struct fst_node *node; /* of a pooling */
    size_t values;               /* of a sum */
    bool relu;
    struct kernel *next;
};

struct own { /* what a struct fst_context * of this backend is */
    struct fst_context *reference;
    struct kernel *kernels;
};

static struct own *own(struct fst_context *c)
{
    return (struct own *)(void *)c;
}

static const char *describe(void)
{
    return fst__tiles()->name;
}

static bool supports(fst_precision p)
{
    return p == FST_PRECISION_F32;
}

static fst_status open_context(struct fst_context **out, int threads, fst_precision precision, fst_error *err)
{
    struct own *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    fst_status s = fst__backend_reference.open(&c->reference, threads, precision, err);
    if (s)
        fst_free(c);
    else
        *out = (struct fst_context *)(void *)c;
    return s;
}

static void close_context(struct fst_context *c)
{
    if (!c)
        return;
    while (own(c)->kernels) {
        struct kernel *k = own(c)->kernels;
        own(c)->kernels = k->next;
        fst_free(k);
    }
    fst__backend_reference.close(own(c)->reference);
    fst_free(c);
}

static void enter(struct fst_context *c)
{
    fst__backend_reference.enter(own(c)->reference);
}

static fst_status plain(struct fst_context *c, int64_t batch, const fst_shape *sample, const struct fst_layout **out,
                        fst_error *err)
{
    return fst__backend_reference.plain(own(c)->reference, batch, sample, out, err);
}

static bool equal(const struct fst_layout *a, const struct fst_layout *b)
{
    return fst__backend_reference.equal(a, b);
}

static size_t bytes(const struct fst_layout *l)
{
    return fst__backend_reference.bytes(l);
}

static bool half(const struct fst_layout *l)
{
    return fst__backend_reference.half(l);
}

static fst_status accumulate(struct fst_context *c, const struct fst_layout *l, struct fst_kernel **out, fst_error *err)
{
    return fst__backend_reference.accumulate(own(c)->reference, l, out, err);
}

static fst_status reorder(struct fst_context *c, const struct fst_layout *from, const struct fst_layout *to,
                          struct fst_kernel **out, fst_error *err)
{
    return fst__backend_reference.reorder(own(c)->reference, from, to, out, err);
}

static bool is_weighted(const struct fst_node *n)
{
    return n->kind == FST_OP_CONV2D || n->kind == FST_OP_LINEAR;
}

static bool fuses(const struct fst_node *n, const struct fst_node *behind, bool training, bool batch_statistics)
{
    (void)batch_statistics;
    if (training)
        return false;
    switch (behind->kind) {
    case FST_OP_RELU:
        return is_weighted(n) || n->kind == FST_OP_ADD;
    case FST_OP_RELU6:
        return is_weighted(n);
    case FST_OP_BATCHNORM2D:
        return n->kind == FST_OP_CONV2D;
    default:
        return false;
    }
}

/* ---- kernels ---- */

static fst_status run_prepare(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    fst__weighted_prepare(&((struct kernel *)base)->weighted, a);
    return FST_OK;
}

static fst_status run_weighted(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    fst__weighted_forward(&((struct kernel *)base)->weighted, a);
    return FST_OK;
}

static fst_status run_add(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct kernel *k = (struct kernel *)base;
    (void)err;
    fst__add(a->in, a->more_in[0], a->out, k->relu, k->values);
    return FST_OK;
}

static fst_status run_max_pool(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    fst__max_pool(((struct kernel *)base)->node, a);
    return FST_OK;
}

static struct kernel *new_kernel(struct fst_context *c, struct fst_op *o, fst_kernel_fn run, const char *name)
{
    struct kernel *k = fst_calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->base = (struct fst_kernel){.run = run, .name = name, .compute = true};
    k->next = own(c)->kernels;
    own(c)->kernels = k;
    o->kernel[o->kernels++] = &k->base;
    return k;
}

static fst_status weighted_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *o, fst_error *err)
{
    const char *name = r->node->kind == FST_OP_CONV2D ? "conv2d" : "linear";
    struct kernel *prepare = new_kernel(c, o, run_prepare, "factors and panels");
    struct kernel *k = prepare ? new_kernel(c, o, run_weighted, name) : NULL;
    if (!k)
        return fst_fail_memory(err, sizeof *k);
    fst__weighted_init(&k->weighted, r);
    prepare->weighted = k->weighted;
    prepare->base.prepare = true;
    prepare->base.compute = false;
    o->held = fst__weighted_held(&k->weighted);
    o->scratch = fst__weighted_scratch(&k->weighted, r->batch);
    return FST_OK;
}

static fst_status add_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *o, fst_error *err)
{
    struct kernel *k = new_kernel(c, o, run_add, "add");
    if (!k)
        return fst_fail_memory(err, sizeof *k);
    k->values = (size_t)(r->out_rows * fst_shape_count(&r->node->out));
    k->relu = r->relu;
    o->more[0] = r->more[0];
    return FST_OK;
}

static fst_status max_pool_op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *o, fst_error *err)
{
    struct kernel *k = new_kernel(c, o, run_max_pool, "maxpool2d");
    if (!k)
        return fst_fail_memory(err, sizeof *k);
    k->node = r->node;
    o->scratch = fst__max_pool_scratch(r->node);
    return FST_OK;
}

static fst_status op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *out, fst_error *err)
{
    bool weighted = is_weighted(r->node), add = r->node->kind == FST_OP_ADD, pool = r->node->kind == FST_OP_MAXPOOL2D;
    if (r->training || (!weighted && !add && !pool))
        return fst__backend_reference.op(own(c)->reference, r, out, err);
    struct fst_op o = {.in = r->in};
    fst_status s = plain(c, r->out_rows, &r->node->out, &o.out, err);
    if (!s)
        s = weighted ? weighted_op(c, r, &o, err) : add ? add_op(c, r, &o, err) : max_pool_op(c, r, &o, err);
    if (!s)
        *out = o;
    return s;
}

const struct fst_backend fst__backend_vector = {
    .name = "vector",
    .describe = describe,
    .supports = supports,
    .open = open_context,
    .close = close_context,
    .enter = enter,
    .plain = plain,
    .equal = equal,
    .bytes = bytes,
    .half = half,
    .fuses = fuses,
    .op = op,
    .accumulate = accumulate,
    .reorder = reorder,
};

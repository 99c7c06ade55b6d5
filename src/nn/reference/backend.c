/* The reference backend: the op files' own loops on plain layouts. Slow and obvious on purpose: it is
 * the oracle of the fast backends, and it runs where no other does. */
#include <string.h>

#include "ops.h"

struct fst_layout {
    size_t bytes;
    struct fst_layout *next;
};

struct kernel {
    struct fst_kernel base; /* first: a struct fst_kernel * is a struct kernel * */
    const struct fst_node *node;
    size_t bytes; /* of a copy */
    struct kernel *next;
};

struct fst_context {
    struct fst_layout *layouts;
    struct kernel *kernels;
};

static const char *describe(void)
{
    return "plain loops, sums in double";
}

static bool supports(fst_precision p)
{
    return p == FST_PRECISION_F32;
}

static fst_status open_context(struct fst_context **out, int threads, fst_precision precision, fst_error *err)
{
    (void)threads;
    (void)precision;
    *out = fst_calloc(1, sizeof **out);
    return *out ? FST_OK : fst_fail_memory(err, sizeof **out);
}

static void close_context(struct fst_context *c)
{
    if (!c)
        return;
    while (c->layouts) {
        struct fst_layout *l = c->layouts;
        c->layouts = l->next;
        fst_free(l);
    }
    while (c->kernels) {
        struct kernel *k = c->kernels;
        c->kernels = k->next;
        fst_free(k);
    }
    fst_free(c);
}

static void enter(struct fst_context *c)
{
    (void)c;
}

static fst_status plain(struct fst_context *c, int64_t batch, const fst_shape *sample, const struct fst_layout **out,
                        fst_error *err)
{
    struct fst_layout *l = fst_calloc(1, sizeof *l);
    if (!l)
        return fst_fail_memory(err, sizeof *l);
    l->bytes = (size_t)(batch * fst_shape_count(sample)) * sizeof(float);
    l->next = c->layouts;
    c->layouts = l;
    *out = l;
    return FST_OK;
}

static bool equal(const struct fst_layout *a, const struct fst_layout *b)
{
    return a->bytes == b->bytes;
}

static size_t bytes(const struct fst_layout *l)
{
    return l->bytes;
}

static bool half(const struct fst_layout *l)
{
    (void)l;
    return false;
}

static bool fuses(const struct fst_node *n, const struct fst_node *behind, bool training, bool batch_statistics)
{
    (void)n;
    (void)behind;
    (void)training;
    (void)batch_statistics;
    return false;
}

static fst_status run_forward(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    const struct fst_op_type *t = fst__op_types[n->kind];
    fst_status s = t->accepts ? t->accepts(n, a, err) : FST_OK;
    if (!s)
        t->forward(n, a);
    return s;
}

static fst_status run_backward(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    (void)err;
    fst__op_types[n->kind]->backward(n, a);
    return FST_OK;
}

static fst_status run_forward_sums(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    (void)err;
    fst__op_types[n->kind]->forward_sums(n, a);
    return FST_OK;
}

static fst_status run_backward_sums(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    const struct fst_node *n = ((struct kernel *)base)->node;
    (void)err;
    fst__op_types[n->kind]->backward_sums(n, a);
    return FST_OK;
}

static fst_status run_copy(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    memcpy(a->out, a->in, ((struct kernel *)base)->bytes);
    return FST_OK;
}

static fst_status run_accumulate(struct fst_kernel *base, const struct fst_op_args *a, fst_error *err)
{
    (void)err;
    fst__accumulate(a->in, a->out, ((struct kernel *)base)->bytes / sizeof(float));
    return FST_OK;
}

static struct kernel *new_kernel(struct fst_context *c, fst_kernel_fn run, const char *name, bool backward)
{
    struct kernel *k = fst_calloc(1, sizeof *k);
    if (!k)
        return NULL;
    k->base = (struct fst_kernel){.run = run, .name = name, .compute = true, .backward = backward};
    k->next = c->kernels;
    c->kernels = k;
    return k;
}

/* The kernels of an op in their order: sums that the shards share stand before the pass that needs them. */
static fst_status add_kernels(struct fst_context *c, const struct fst_op_request *r, struct fst_op *o, fst_error *err)
{
    const struct fst_op_type *t = fst__op_types[r->node->kind];
    bool batch = r->training && !r->frozen;
    const struct {
        fst_kernel_fn run;
        bool wanted, backward, meet;
    } all[] = {
        {run_forward_sums, t->forward_sums && batch, false, true},
        {run_forward, true, false, false},
        {run_backward_sums, t->backward_sums && r->training, true, batch},
        {run_backward, r->training, true, false},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (!all[i].wanted)
            continue;
        struct kernel *k = new_kernel(c, all[i].run, t->name, all[i].backward);
        if (!k)
            return fst_fail_memory(err, sizeof *k);
        k->node = r->node;
        k->base.meet = all[i].meet;
        o->kernel[o->kernels++] = &k->base;
    }
    return FST_OK;
}

static fst_status op(struct fst_context *c, const struct fst_op_request *r, struct fst_op *out, fst_error *err)
{
    const struct fst_node *n = r->node;
    const struct fst_op_type *t = fst__op_types[n->kind];
    struct fst_op o = {.in = r->in, .moves_grad = n->kind == FST_OP_ADD || n->kind == FST_OP_ROUND_INT8};
    for (int j = 0; j < n->nmore; j++)
        o.more[j] = r->more[j];
    fst_status s = plain(c, r->out_rows, &n->out, &o.out, err);
    if (!s && (n->kind == FST_OP_FLATTEN || (n->kind == FST_OP_DROPOUT && (!r->training || r->frozen)))) {
        o.alias = true;
        *out = o;
        return FST_OK;
    }
    if (!s)
        s = add_kernels(c, r, &o, err);
    if (s)
        return s;
    o.keep_in = o.keep_more = o.keep_out = true;
    bool needs_saved = r->training || fst__is_batch_norm(n->kind) || n->kind == FST_OP_SPECTRAL_LINEAR;
    o.shared = t->shared && r->training ? t->shared(n) : 0;
    o.saved = t->saved && needs_saved ? t->saved(n, r->batch) : 0;
    o.scratch = t->scratch ? t->scratch(n, r->batch) : 0;
    *out = o;
    return FST_OK;
}

static fst_status accumulate(struct fst_context *c, const struct fst_layout *l, struct fst_kernel **out, fst_error *err)
{
    struct kernel *k = new_kernel(c, run_accumulate, "accumulate", true);
    if (!k)
        return fst_fail_memory(err, sizeof *k);
    k->bytes = l->bytes;
    *out = &k->base;
    return FST_OK;
}

static fst_status reorder(struct fst_context *c, const struct fst_layout *from, const struct fst_layout *to,
                          struct fst_kernel **out, fst_error *err)
{
    struct kernel *k = new_kernel(c, run_copy, "copy", false);
    (void)to;
    if (!k)
        return fst_fail_memory(err, sizeof *k);
    k->base.compute = false;
    k->bytes = from->bytes;
    *out = &k->base;
    return FST_OK;
}

const struct fst_backend fst__backend_reference = {
    .name = "reference",
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

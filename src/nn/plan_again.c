/*
 * Values that a training plan does not keep from the forward pass to the backward pass. Where an op can make its output
 * again cheaply (a batch norm with the sum and ReLU after it, from the convolution's result that the norm keeps
 * anyway), the output's memory is free after its last reader in the forward pass. The first kernel of the
 * backward pass that needs the value finds it made again in other memory, which lives until the last one that does. In
 * a residual network that halves what is kept: of each convolution its result alone. A value is made again once at most
 * and with the same bits, so nothing depends on it but memory, and time: one pass over the value.
 */
#include "plan_build.h"

/* A convolution's result is made again where it is large and that costs few operations: 1x1 convolutions with few
 * inputs at the beginning of a large network. */
enum { LARGE = 8 << 20, FLOPS_A_BYTE = 32 };

void fst__made_by(struct builder *b, int region, struct fst_kernel *again, int call)
{
    if (region < 0 || !b->p->options.training)
        return;
    b->sources[region].again = again;
    b->sources[region].call = call;
}

static bool cheap(const struct builder *b, const struct fst_node *n, int region)
{
    if (n->params == 0)
        return true;
    double bytes = (double)b->p->regions[region].bytes;
    return bytes >= LARGE && fst__op_types[n->kind]->flops(n) * (double)b->p->options.batch <= FLOPS_A_BYTE * bytes;
}

void fst__made_by_op(struct builder *b, int region, const struct fst_op *op, int call)
{
    if (region < 0)
        return;
    fst__made_by(b, region, op->again, call);
    b->sources[region].op = op->pure && cheap(b, b->p->calls[call].node, region) ? op : NULL;
}

/* Regions that backward kernels read. */
static void mark_wanted(const struct builder *b, bool *wanted)
{
    const fst_plan *p = b->p;
    for (int i = p->graph->inputs; i < p->graph->count; i++) {
        const struct fst_op *op = &b->ops[i];
        if (!b->needs[i] || b->op_call[i] < 0)
            continue;
        const struct places *at = &p->calls[b->op_call[i]].at;
        if (op->keep_in && at->in >= 0)
            wanted[at->in] = true;
        if (op->keep_out && at->out >= 0)
            wanted[at->out] = true;
        for (int j = 0; op->keep_more && j < FST_NODE_MORE; j++)
            if (at->more_in[j] >= 0)
                wanted[at->more_in[j]] = true;
    }
}

/* The backward pass has it at no cost of memory: it is the caller's, kept for another reason, or made again too. */
static bool at_hand(const struct builder *b, const bool *wanted, int region)
{
    return region < 0 || wanted[region] || b->sources[region].dropped;
}

/* Regions are numbered in the order of the forward pass, so what a value is made from is decided before it. */
fst_status fst__choose_dropped(struct builder *b, fst_error *err)
{
    const fst_plan *p = b->p;
    bool *wanted = fst_calloc((size_t)p->nregions + 1, sizeof *wanted);
    if (!wanted)
        return fst_fail_memory(err, (size_t)p->nregions * sizeof *wanted);
    mark_wanted(b, wanted);
    for (int i = 0; i < p->nregions; i++) {
        struct source *s = &b->sources[i];
        if ((!s->again && !s->op) || i == p->output)
            continue;
        const struct places *at = &p->calls[s->call].at;
        s->dropped = at_hand(b, wanted, at->in);
        for (int j = 0; j < FST_NODE_MORE; j++)
            s->dropped = s->dropped && at_hand(b, wanted, at->more_in[j]);
    }
    fst_free(wanted);
    return FST_OK;
}

static void new_step(struct builder *b, struct fst_kernel *k, int call)
{
    const struct places *at = &b->p->calls[call].at;
    fst__use(b, at->in);
    for (int j = 0; j < FST_NODE_MORE; j++)
        fst__use(b, at->more_in[j]);
    fst__use(b, at->saved);
    fst__use(b, at->out);
    fst__new_step(b, k, call);
}

int fst__find_again(struct builder *b, int region)
{
    fst_plan *p = b->p;
    if (region < 0 || !b->sources[region].dropped)
        return region;
    struct source *s = &b->sources[region];
    if (s->copy != NOWHERE)
        return s->copy;
    struct places from = p->calls[s->call].at;
    from.in = fst__find_again(b, from.in);
    for (int j = 0; j < FST_NODE_MORE; j++)
        from.more_in[j] = fst__find_again(b, from.more_in[j]);
    int c = fst__copy_call(b, s->call);
    from.out = s->copy = fst__new_region(b, p->regions[region].bytes);
    p->calls[c].at = from;
    p->calls[c].again = true;
    if (s->again)
        new_step(b, s->again, c);
    for (int k = 0; !s->again && k < s->op->kernels; k++)
        if (!s->op->kernel[k]->backward)
            new_step(b, s->op->kernel[k], c);
    return s->copy;
}

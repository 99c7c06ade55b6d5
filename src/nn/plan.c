/*
 * Building a plan: the kernels of a graph in their order, every buffer placed in one arena by its lifetime. Everything
 * is allocated here, so that running (plan_run.c) only calls kernels. It knows no arithmetic and no vendor.
 */
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plan_build.h"

void fst_plan_free(fst_plan *p)
{
    if (!p)
        return;
    if (p->context)
        p->backend->close(p->context);
    fst_free(p->regions);
    fst_free(p->calls);
    fst_free(p->steps);
    fst_free(p->part_end);
    fst_free(p->part_grads);
    fst_free(p->forms);
    fst_arena_release(&p->arena);
    fst_free(p);
}

int fst__new_region(struct builder *b, size_t bytes)
{
    fst_plan *p = b->p;
    if (!bytes)
        return NOWHERE;
    b->sources[p->nregions] = (struct source){.copy = NOWHERE};
    p->regions[p->nregions] = (struct region){bytes, 0, b->time, b->time};
    return p->nregions++;
}

void fst__use(struct builder *b, int region)
{
    if (region >= 0) {
        struct region *r = &b->p->regions[region];
        if (b->time < r->first)
            r->first = b->time;
        if (b->time > r->last)
            r->last = b->time;
    }
}

/* Rows of a call: both planes of complex values lie one after the other as one batch. */
static int64_t rows_of(const fst_plan *p, const struct fst_node *n)
{
    return p->options.batch * (n->in_planes == n->planes ? n->planes : 1);
}

static int new_call(struct builder *b, const struct fst_node *node)
{
    struct call *c = &b->p->calls[b->p->ncalls];
    *c = (struct call){.node = node,
                       .at = {.in = NOWHERE,
                              .out = NOWHERE,
                              .grad_out = NOWHERE,
                              .grad_in = NOWHERE,
                              .saved = NOWHERE,
                              .held = NOWHERE,
                              .more_in = {NOWHERE, NOWHERE, NOWHERE},
                              .more_grad_in = {NOWHERE, NOWHERE, NOWHERE}}};
    c->args.batch = node ? rows_of(b->p, node) : b->p->options.batch;
    c->args.training = b->p->options.training;
    c->args.frozen = b->p->options.frozen;
    return b->p->ncalls++;
}

int fst__copy_call(struct builder *b, int from)
{
    b->p->calls[b->p->ncalls] = b->p->calls[from];
    return b->p->ncalls++;
}

void fst__new_step(struct builder *b, struct fst_kernel *k, int call)
{
    b->p->steps[b->p->nsteps++] = (struct step){k, call};
    b->time++;
}

static fst_status add_reorder(struct builder *b, const struct fst_layout *from, int source, const struct fst_layout *to,
                              int target, fst_error *err)
{
    struct fst_kernel *k;
    fst_status s = b->p->backend->reorder(b->p->context, from, to, &k, err);
    if (s)
        return s;
    int c = new_call(b, NULL);
    b->p->calls[c].at.in = source;
    b->p->calls[c].at.out = target;
    fst__use(b, source);
    fst__use(b, target);
    fst__new_step(b, k, c);
    fst__made_by(b, target, k, c);
    return FST_OK;
}

static int operand(const struct fst_node *n, int j)
{
    return j ? n->more[j - 1] : n->input;
}

/* The node that alone reads node i's output; NULL when there are several, or for the graph's output. */
static const struct fst_node *reader(const fst_graph *g, int i)
{
    if (g->nodes[i].consumers != 1 || i == g->output)
        return NULL;
    for (int k = i + 1; k < g->count; k++)
        for (int j = 0; j <= g->nodes[k].nmore; j++)
            if (operand(&g->nodes[k], j) == i)
                return &g->nodes[k];
    return NULL;
}

/* The inputs of n's op: those of n, and the other value of a sum that it computes too. */
int fst__inputs_of(const struct builder *b, const struct fst_node *n)
{
    return 1 + n->nmore + (b->added[n->id] != NOWHERE);
}

static int input_of(const struct builder *b, const struct fst_node *n, int j)
{
    if (b->added[n->id] == NOWHERE || j == 0)
        return operand(n, j);
    const struct fst_node *sum = &b->p->graph->nodes[b->added[n->id]];
    return operand(sum, operand(sum, 0) == n->id);
}

/*
 * What stands after n alone and is computed with it: a batch norm, a ReLU, or one after the other; or a sum, and a
 * ReLU after it. The sum's other value must be there when n's op runs: the sum is the very next node. Then, of a layer
 * in int8, the rounding of its output.
 */
static void find_fusion(struct builder *b, const struct fst_node *n)
{
    const fst_graph *g = b->p->graph;
    const struct fst_backend *backend = b->p->backend;
    bool training = b->p->options.training, batch = training && !b->p->options.frozen;
    const struct fst_node *next = reader(g, n->id), *last = n;
    if (b->host[n->id] != NOWHERE)
        return;
    bool norm = next && next->kind == FST_OP_BATCHNORM2D, sum = next && next->kind == FST_OP_ADD;
    if ((norm || (sum && next->id == n->id + 1)) && backend->fuses(n, next, training, batch)) {
        b->host[next->id] = n->id;
        if (sum)
            b->added[n->id] = next->id;
        last = next;
        next = reader(g, next->id);
    }
    bool relu = next && (next->kind == FST_OP_RELU || next->kind == FST_OP_RELU6);
    if (relu && backend->fuses(n, next, training, batch)) {
        b->host[next->id] = last->id;
        next = reader(g, next->id);
    }
    if (next && next->kind == FST_OP_QUANTISE && backend->fuses(n, next, training, batch))
        b->host[next->id] = next->input;
}

static void find_fusions(struct builder *b)
{
    const fst_graph *g = b->p->graph;
    for (int i = 0; i < g->count; i++) {
        find_fusion(b, &g->nodes[i]);
        b->needs[i] = i < g->inputs ? b->p->options.input_grad : g->nodes[i].params > 0;
        for (int j = 0; i >= g->inputs && j <= g->nodes[i].nmore; j++)
            b->needs[i] = b->needs[i] || b->needs[operand(&g->nodes[i], j)];
    }
}

/* The node that computes the value of node i. */
static const struct fst_node *maker(const struct builder *b, int i)
{
    while (b->host[i] != NOWHERE)
        i = b->host[i];
    return &b->p->graph->nodes[i];
}

/* The node after n that n's op computes too; NULL: none. */
static const struct fst_node *guest(const struct builder *b, const struct fst_node *n)
{
    const struct fst_node *next = reader(b->p->graph, n->id);
    return next && b->host[next->id] == n->id ? next : NULL;
}

static bool may_leave_factors(const fst_plan *p, const struct fst_node *n)
{
    return p->batch_rows && n->kind == FST_OP_LINEAR && n->in.rank == 1 &&
           fst__worth_factors(p->batch_rows, (size_t)n->u.linear.out, (size_t)n->in.dim[0]);
}

static void leave_form(fst_plan *p, const struct fst_node *n, const struct fst_op *op, struct call *c)
{
    fst_param_info weights = fst_graph_param(p->graph, (size_t)n->first_param);
    struct fst_form *f = &p->forms[p->nforms++];
    *f = (struct fst_form){.from = weights.offset, .out = (size_t)weights.shape.dim[0]};
    f->in = weights.count / f->out;
    f->block = (size_t)op->grad_block;
    if (op->factors) {
        f->rows = p->batch_rows;
        c->args.factors = f;
    } else {
        f->taps = (size_t)(n->u.conv.kernel[0] * n->u.conv.kernel[1]);
    }
}

static struct fst_op_request request_of(const struct builder *b, const struct fst_node *n)
{
    const fst_graph *g = b->p->graph;
    const struct fst_node *next = guest(b, n), *behind = NULL;
    struct fst_op_request r = {.node = n,
                               .batch = rows_of(b->p, n),
                               .in_rows = b->p->options.batch * n->in_planes,
                               .out_rows = b->p->options.batch * n->planes,
                               .training = b->p->options.training,
                               .frozen = b->p->options.frozen,
                               .factors = may_leave_factors(b->p, n),
                               .blocks = b->p->blocks && n->kind == FST_OP_CONV2D,
                               .want_grad_in = b->needs[n->input],
                               .in = b->values[n->input].layout};
    for (int j = 1; j < fst__inputs_of(b, n); j++) {
        r.more[j - 1] = b->values[input_of(b, n, j)].layout;
        r.want_more[j - 1] = b->needs[input_of(b, n, j)];
    }
    if (next && (next->kind == FST_OP_BATCHNORM2D || next->kind == FST_OP_ADD)) {
        r.fold = next->kind == FST_OP_BATCHNORM2D ? next : NULL;
        r.add = next->kind == FST_OP_ADD;
        next = guest(b, next);
    }
    if (next && next->kind != FST_OP_QUANTISE) {
        r.relu = next->kind == FST_OP_RELU;
        r.relu6 = !r.relu;
        behind = reader(g, next->id);
        next = guest(b, next);
    }
    r.quantise = next;
    /* Only an op whose ReLU is a mask of its own hands that mask on; batch norm keeps it in its kernel. */
    r.relu_elsewhere = behind && behind->kind == FST_OP_MAXPOOL2D && n->kind != FST_OP_BATCHNORM2D;
    if (n->kind == FST_OP_MAXPOOL2D && b->host[n->input] != NOWHERE)
        r.mask_output = maker(b, n->input)->kind != FST_OP_BATCHNORM2D;
    return r;
}

/* Input j in the layout that the op wants: as it lies, or copied before. */
static fst_status bring_input(struct builder *b, const struct fst_node *n, int j, int *source, fst_error *err)
{
    const struct fst_op *op = &b->ops[n->id];
    const struct value *in = &b->values[input_of(b, n, j)];
    const struct fst_layout *want = j ? op->more[j - 1] : op->in;
    *source = in->region;
    if (b->p->backend->equal(want, in->layout))
        return FST_OK;
    *source = b->in_reorder[n->id * NODE_INPUTS + j] = fst__new_region(b, b->p->backend->bytes(want));
    return add_reorder(b, in->layout, in->region, want, *source, err);
}

static void use_inputs(struct builder *b, const struct places *at)
{
    fst__use(b, at->in);
    for (int j = 0; j < FST_NODE_MORE; j++)
        fst__use(b, at->more_in[j]);
}

static fst_status forward_node(struct builder *b, const struct fst_node *n, fst_error *err)
{
    fst_plan *p = b->p;
    struct value *out = &b->values[n->id];
    struct fst_op *op = &b->ops[n->id];
    int source[NODE_INPUTS];
    if (b->host[n->id] != NOWHERE) { /* its op's output is already after it */
        *out = b->values[b->host[n->id]];
        return FST_OK;
    }
    struct fst_op_request r = request_of(b, n);
    fst_status s = p->backend->op(p->context, &r, op, err);
    for (int j = 0; !s && j < fst__inputs_of(b, n); j++)
        s = bring_input(b, n, j, &source[j], err);
    if (s)
        return s;
    out->layout = op->out;
    if (op->alias) {
        out->region = source[0];
        return FST_OK;
    }
    int c = b->op_call[n->id] = new_call(b, n);
    struct places *at = &p->calls[c].at;
    p->calls[c].fold = r.fold;
    p->calls[c].out = op->out;
    p->calls[c].in[0] = op->in;
    if (op->factors || op->grad_block)
        leave_form(p, n, op, &p->calls[c]);
    at->in = source[0];
    p->calls[c].inputs = fst__inputs_of(b, n);
    for (int j = 1; j < p->calls[c].inputs; j++) {
        at->more_in[j - 1] = source[j];
        p->calls[c].in[j] = op->more[j - 1];
    }
    at->out = out->region = fst__new_region(b, p->backend->bytes(op->out));
    at->saved = fst__new_region(b, op->saved);
    at->held = p->owner ? NOWHERE : fst__new_region(b, op->held);
    if (at->held != NOWHERE)
        p->regions[at->held] = (struct region){.bytes = op->held, .last = INT_MAX};
    if (op->scratch > p->scratch_bytes)
        p->scratch_bytes = op->scratch;
    p->calls[c].args.shared_at = p->shared_bytes;
    p->shared_bytes += (op->shared + 63) / 64 * 64;
    for (int k = 0; k < op->kernels; k++)
        if (!op->kernel[k]->backward) {
            use_inputs(b, at);
            fst__use(b, at->out);
            fst__use(b, at->saved);
            fst__new_step(b, op->kernel[k], c);
        }
    fst__made_by_op(b, at->out, op, c);
    return FST_OK;
}

static fst_status build_forward(struct builder *b, fst_error *err)
{
    fst_plan *p = b->p;
    const fst_graph *g = p->graph;
    fst_status s = FST_OK;
    for (int i = 0; !s && i < g->inputs; i++) {
        b->values[i].region = EXTERNAL - i;
        s = p->backend->plain(p->context, p->options.batch, &g->nodes[i].out, &b->values[i].layout, err);
    }
    for (int i = g->inputs; !s && i < g->count; i++) {
        s = forward_node(b, &g->nodes[i], err);
        if (s)
            fst_fail_in(err, s, "%s \"%s\"", fst__op_types[g->nodes[i].kind]->name, g->nodes[i].name);
    }
    if (s)
        return s;
    const struct fst_layout *want;
    struct value *out = &b->values[g->output];
    s = p->backend->plain(p->context, p->options.batch, &g->nodes[g->output].out, &want, err);
    if (s)
        return s;
    p->output = out->region;
    if (out->region <= EXTERNAL || !p->backend->equal(want, out->layout)) {
        p->output = fst__new_region(b, p->backend->bytes(want));
        s = add_reorder(b, out->layout, out->region, want, p->output, err);
    }
    p->forward_steps = p->nsteps;
    fst__use(b, p->output); /* read by the loss at this time */
    if (s || !p->options.training)
        return s;
    p->output_grad = out->grad = fst__new_region(b, p->backend->bytes(want));
    b->time++;
    fst__use(b, p->output);
    if (!p->backend->equal(want, out->layout)) {
        out->grad = fst__new_region(b, p->backend->bytes(out->layout));
        s = add_reorder(b, want, p->output_grad, out->layout, out->grad, err);
    }
    return s;
}

/* A reader of the value has its gradient in `region`: the first one's becomes the value's, others are added. */
static fst_status give_grad(struct builder *b, struct value *v, int region, fst_error *err)
{
    struct fst_kernel *k;
    if (v->grad == NOWHERE) {
        v->grad = region;
        return FST_OK;
    }
    fst_status s = b->p->backend->accumulate(b->p->context, v->layout, &k, err);
    if (s)
        return s;
    int c = new_call(b, NULL);
    b->p->calls[c].at.in = region;
    b->p->calls[c].at.out = v->grad;
    fst__use(b, region);
    fst__use(b, v->grad);
    fst__new_step(b, k, c);
    return FST_OK;
}

/* The gradient of input j stands in `region`, in the layout that the op has for it. */
static fst_status hand_back(struct builder *b, const struct fst_node *n, int j, int region, fst_error *err)
{
    const struct fst_op *op = &b->ops[n->id];
    struct value *v = &b->values[input_of(b, n, j)];
    if (region == NOWHERE || !b->needs[input_of(b, n, j)])
        return FST_OK;
    if (b->in_reorder[n->id * NODE_INPUTS + j] == NOWHERE)
        return give_grad(b, v, region, err);
    int target = fst__new_region(b, b->p->backend->bytes(v->layout));
    fst_status s = add_reorder(b, j ? op->more[j - 1] : op->in, region, v->layout, target, err);
    return s ? s : give_grad(b, v, target, err);
}

/* The call with what the backward pass reads: the forward pass's own where nothing was dropped. */
static int backward_call(struct builder *b, const struct fst_op *op, int call)
{
    struct places at = b->p->calls[call].at;
    bool moved = false;
    if (op->keep_in)
        at.in = fst__find_again(b, at.in);
    for (int j = 0; op->keep_more && j < FST_NODE_MORE; j++)
        at.more_in[j] = fst__find_again(b, at.more_in[j]);
    if (op->keep_out)
        at.out = fst__find_again(b, at.out);
    const struct places *was = &b->p->calls[call].at;
    for (int j = 0; j < FST_NODE_MORE; j++)
        moved = moved || at.more_in[j] != was->more_in[j];
    if (!moved && at.in == was->in && at.out == was->out)
        return call;
    int c = fst__copy_call(b, call);
    b->p->calls[c].at = at;
    return c;
}

static void backward_kernels(struct builder *b, const struct fst_op *op, int call)
{
    struct places *at = &b->p->calls[call].at;
    for (int k = 0; k < op->kernels; k++) {
        if (!op->kernel[k]->backward)
            continue;
        if (op->keep_in)
            fst__use(b, at->in);
        for (int j = 0; op->keep_more && j < FST_NODE_MORE; j++)
            fst__use(b, at->more_in[j]);
        if (op->keep_out)
            fst__use(b, at->out);
        fst__use(b, at->grad_out);
        fst__use(b, at->grad_in);
        for (int j = 0; j < FST_NODE_MORE; j++)
            fst__use(b, at->more_grad_in[j]);
        fst__use(b, at->saved);
        fst__new_step(b, op->kernel[k], call);
    }
}

static fst_status backward_node(struct builder *b, const struct fst_node *n, fst_error *err)
{
    fst_plan *p = b->p;
    struct value *out = &b->values[n->id];
    struct fst_op *op = &b->ops[n->id];
    if (b->host[n->id] != NOWHERE) {
        b->values[b->host[n->id]].grad = out->grad;
        return FST_OK;
    }
    if (op->alias)
        return hand_back(b, n, 0, out->grad, err);
    int c = backward_call(b, op, b->op_call[n->id]), grad[NODE_INPUTS];
    struct places *at = &p->calls[c].at;
    at->grad_out = out->grad;
    grad[0] = out->grad;
    if (!op->moves_grad)
        grad[0] = at->grad_in = b->needs[n->input] ? fst__new_region(b, p->backend->bytes(op->in)) : NOWHERE;
    for (int j = 1; j < fst__inputs_of(b, n); j++)
        grad[j] = at->more_grad_in[j - 1] =
            b->needs[input_of(b, n, j)] ? fst__new_region(b, p->backend->bytes(op->more[j - 1])) : NOWHERE;
    backward_kernels(b, op, c);
    fst_status s = FST_OK;
    for (int j = 0; !s && j < fst__inputs_of(b, n); j++)
        s = hand_back(b, n, j, grad[j], err);
    return s;
}

static fst_status build_backward(struct builder *b, fst_error *err)
{
    const fst_graph *g = b->p->graph;
    for (int i = g->count - 1; i >= g->inputs; i--) {
        if (!b->needs[i])
            continue;
        fst_status s = backward_node(b, &g->nodes[i], err);
        if (s)
            return s;
    }
    for (int i = 0; b->p->options.input_grad && i < g->inputs; i++) {
        b->p->input_grad[i] = b->values[i].grad;
        fst__use(b, b->p->input_grad[i]);
    }
    return FST_OK;
}

/* ---- placing ------------------------------------------------------------------------------- */

static int larger_first(const void *a, const void *b)
{
    const struct region *x = *(const struct region *const *)a, *y = *(const struct region *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes > y->bytes ? -1 : 1;
    return x < y ? -1 : x > y;
}

/* Largest first, each at the lowest offset where nothing alive at the same time lies. */
static fst_status place_regions(fst_plan *p, size_t *total, fst_error *err)
{
    struct region **order = fst_calloc((size_t)p->nregions + 1, sizeof *order);
    if (!order)
        return fst_fail_memory(err, (size_t)p->nregions * sizeof *order);
    for (int i = 0; i < p->nregions; i++) {
        order[i] = &p->regions[i];
        order[i]->bytes = (order[i]->bytes + 63) / 64 * 64;
    }
    qsort(order, (size_t)p->nregions, sizeof *order, larger_first);
    *total = 0;
    for (int i = 0; i < p->nregions; i++) {
        struct region *r = order[i];
        bool moved = true;
        while (moved) {
            moved = false;
            for (int k = 0; k < i; k++) {
                const struct region *o = order[k];
                bool together = o->first <= r->last && r->first <= o->last;
                if (together && r->offset < o->offset + o->bytes && o->offset < r->offset + r->bytes) {
                    r->offset = o->offset + o->bytes;
                    moved = true;
                }
            }
        }
        if (r->offset + r->bytes > *total)
            *total = r->offset + r->bytes;
    }
    fst_free(order);
    return FST_OK;
}

static fst_status take_memory(fst_plan *p, fst_error *err)
{
    size_t total = 0;
    if (p->owner && p->owner->ncalls != p->ncalls)
        return fst_fail(err, FST_E_ARGUMENT, "plans that share weights are of one graph and the same options");
    fst_status s = place_regions(p, &total, err);
    size_t size = total + p->scratch_bytes + p->shared_bytes + 192;
    if (!s && p->options.measure) {
        p->arena.size = size;
        return FST_OK;
    }
    if (!s)
        s = fst_arena_init(&p->arena, size, err);
    if (s)
        return s;
    p->base = fst_arena_take(&p->arena, total);
    void *scratch = fst_arena_take(&p->arena, p->scratch_bytes);
    p->shared = fst_arena_take(&p->arena, p->shared_bytes);
    memset(p->base, 0, p->arena.used); /* padding of blocked layouts must be 0 */
    for (int i = 0; i < p->ncalls; i++) {
        struct call *c = &p->calls[i];
        c->args.in = fst__region_at(p, c->at.in);
        c->args.out = fst__region_at(p, c->at.out);
        c->args.grad_out = fst__region_at(p, c->at.grad_out);
        c->args.grad_in = fst__region_at(p, c->at.grad_in);
        for (int j = 0; j < FST_NODE_MORE; j++) {
            c->args.more_in[j] = fst__region_at(p, c->at.more_in[j]);
            c->args.more_grad_in[j] = fst__region_at(p, c->at.more_grad_in[j]);
        }
        c->args.saved = fst__region_at(p, c->at.saved);
        c->args.held = p->owner ? p->owner->calls[i].args.held : fst__region_at(p, c->at.held);
        c->args.scratch = scratch;
    }
    fst__plan_join(p, NULL);
    return FST_OK;
}

/* The parameters whose gradients step i begins to write: those of a call, at its first step in the backward pass (an op
 * whose shards meet in it has written them by then). */
static struct fst_span grads_of_step(const fst_plan *p, int i)
{
    const struct call *c = &p->calls[p->steps[i].call];
    bool first = i >= p->forward_steps && c->node && c->node->params && !c->again;
    for (int k = p->forward_steps; first && k < i; k++)
        first = p->steps[k].call != p->steps[i].call;
    if (!first)
        return (struct fst_span){0};
    struct fst_span s = {.from = p->graph->params[c->node->first_param].offset};
    fst_param_info last = fst_graph_param(p->graph, (size_t)(c->node->first_param + c->node->params - 1));
    s.count = last.offset + last.count - s.from;
    return s;
}

/* The backward pass comes to parameters in the reverse of their order: what a part writes is one span. */
static struct fst_span joined(struct fst_span late, struct fst_span early)
{
    if (!early.count)
        return late;
    return (struct fst_span){early.from, late.count ? late.from + late.count - early.from : early.count};
}

static void end_part(fst_plan *p, int step, struct fst_span *grads)
{
    p->part_grads[p->parts.all] = *grads;
    p->part_end[p->parts.all++] = step;
    *grads = (struct fst_span){0};
}

/* A part ends after a kernel after which the shards meet, with each pass, and where its gradients fill the window. */
static fst_status find_parts(fst_plan *p, fst_error *err)
{
    size_t most = (size_t)p->nsteps + 2;
    struct fst_span grads = {0};
    p->part_end = fst_calloc(most, sizeof *p->part_end);
    p->part_grads = fst_calloc(most, sizeof *p->part_grads);
    if (!p->part_end || !p->part_grads)
        return fst_fail_memory(err, most * sizeof *p->part_grads);
    for (int i = 0; i < p->nsteps; i++) {
        struct fst_span own = grads_of_step(p, i);
        bool full = p->window && grads.count && joined(grads, own).count > p->window;
        if ((i > 0 && i == p->forward_steps) || (i > 0 && p->steps[i - 1].kernel->meet) || full)
            end_part(p, i, &grads);
        if (i == p->forward_steps)
            p->parts.forward = p->parts.all;
        grads = joined(grads, own);
    }
    end_part(p, p->nsteps, &grads);
    if (p->forward_steps < p->nsteps)
        return FST_OK;
    p->parts.forward = p->parts.all;
    if (p->options.training) /* a backward pass of nothing */
        end_part(p, p->nsteps, &grads);
    return FST_OK;
}

static fst_status build(struct builder *b, const struct fst_plan_more *more, fst_error *err)
{
    fst_plan *p = b->p;
    size_t n = (size_t)p->graph->count;
    /* at most, with a value made again for each output and each reordered input, and a backward call of each op's */
    size_t regions = 8 * NODE_INPUTS * n + 8;
    p->regions = fst_calloc(regions, sizeof *p->regions);
    p->calls = fst_calloc((3 + 4 * NODE_INPUTS) * n + 4, sizeof *p->calls);
    p->steps = fst_calloc((FST_OP_KERNELS + 1 + 4 * NODE_INPUTS) * n + 4, sizeof *p->steps);
    p->forms = fst_calloc(n, sizeof *p->forms);
    b->sources = fst_calloc(regions, sizeof *b->sources);
    b->values = fst_calloc(n, sizeof *b->values);
    b->ops = fst_calloc(n, sizeof *b->ops);
    b->op_call = fst_calloc(n, sizeof *b->op_call);
    b->in_reorder = fst_calloc(NODE_INPUTS * n, sizeof *b->in_reorder);
    b->host = fst_calloc(n, sizeof *b->host);
    b->added = fst_calloc(n, sizeof *b->added);
    b->needs = fst_calloc(n, sizeof *b->needs);
    if (!p->regions || !p->calls || !p->steps || !p->forms || !b->sources || !b->values || !b->ops || !b->op_call ||
        !b->in_reorder || !b->host || !b->added || !b->needs)
        return fst_fail_memory(err, n * sizeof *b->ops);
    for (size_t i = 0; i < n; i++)
        b->op_call[i] = b->host[i] = b->added[i] = b->values[i].grad = NOWHERE;
    for (size_t i = 0; i < NODE_INPUTS * n; i++)
        b->in_reorder[i] = NOWHERE;
    p->output_grad = NOWHERE;
    for (int i = 0; i < FST_GRAPH_INPUTS; i++)
        p->input_grad[i] = NOWHERE;
    if (!p->backend->supports(p->options.precision))
        return fst_fail(err, FST_E_UNSUPPORTED, "the backend \"%s\" cannot compute in %s on this machine",
                        p->backend->name, fst_precision_name(p->options.precision));
    fst_status s = p->backend->open(&p->context, p->options.threads, p->options.precision, err);
    if (s)
        return s;
    p->backend->enter(p->context);
    if (more->share && p->backend->share)
        p->backend->share(p->context, more->pool);
    find_fusions(b);
    s = build_forward(b, err);
    if (!s && p->options.training)
        s = fst__choose_dropped(b, err);
    if (!s && p->options.training)
        s = build_backward(b, err);
    fst__number_units(p->forms, p->nforms);
    if (!s)
        s = find_parts(p, err);
    return s ? s : take_memory(p, err);
}

fst_status fst_plan_new(fst_plan **out, const fst_graph *g, const fst_plan_options *o, fst_error *err)
{
    const struct fst_plan_more nothing = {0};
    return fst__plan_new(out, g, o, &nothing, err);
}

fst_status fst__plan_new(fst_plan **out, const fst_graph *g, const fst_plan_options *o,
                         const struct fst_plan_more *more, fst_error *err)
{
    if (!g->finished)
        return fst_fail(err, FST_E_ARGUMENT, "the graph is not finished");
    if (o->batch < 1 || o->batch > 1 << 20)
        return fst_fail(err, FST_E_ARGUMENT, "a plan's batch is 1 to %d, not %lld", 1 << 20, (long long)o->batch);
    if (o->training && fst_graph_is_int8(g))
        return fst_fail(err, FST_E_UNSUPPORTED, "layers in int8 do not learn: train the f32 model that they are of");
    if (o->precision != FST_PRECISION_F32 && fst_graph_is_int8(g))
        return fst_fail(err, FST_E_UNSUPPORTED, "a network in int8 is f32 otherwise, not %s",
                        fst_precision_name(o->precision));
    fst_plan *p = fst_calloc(1, sizeof *p);
    if (!p)
        return fst_fail_memory(err, sizeof *p);
    p->graph = g;
    p->options = *o;
    p->window = more->window;
    p->owner = more->owner;
    p->batch_rows = o->training ? more->batch_rows : 0;
    p->blocks = o->training && more->blocks;
    if (p->options.threads < 1)
        p->options.threads = 1;
    struct builder b = {.p = p};
    fst_status s = fst__backend_find(o->backend, &p->backend, err);
    if (!s)
        s = build(&b, more, err);
    fst_free(b.values);
    fst_free(b.ops);
    fst_free(b.op_call);
    fst_free(b.in_reorder);
    fst_free(b.sources);
    fst_free(b.host);
    fst_free(b.added);
    fst_free(b.needs);
    if (s) {
        fst_plan_free(p);
        return s;
    }
    *out = p;
    return FST_OK;
}

/*
 * Running a plan: state, gradients and input are bound to the kernels' arguments, then the kernels are called in order.
 * Nothing is allocated. Where shards of a batch meet, a pass is run in parts (struct fst_parts).
 */
#include <stdio.h>

#include "plan.h"

void fst__plan_join(fst_plan *p, const struct fst_peers *peers)
{
    p->alone_rows = p->options.batch;
    p->alone = (struct fst_peers){.shards = 1, .rows = &p->alone_rows, .memory = &p->shared};
    p->peers = peers ? peers : &p->alone;
    for (int i = 0; i < p->ncalls; i++)
        p->calls[i].args.peers = p->peers;
}

unsigned char *fst__plan_shared(const fst_plan *p)
{
    return p->shared;
}

struct fst_parts fst__plan_parts(const fst_plan *p)
{
    return p->parts;
}

static void bind_state(fst_plan *p, const fst_state *state, float *grads, const float *const *x, const fst_draws *draws)
{
    const fst_graph *g = p->graph;
    if (x)
        p->draws = draws ? *draws : (fst_draws){0};
    for (int i = 0; i < p->ncalls; i++) {
        struct call *c = &p->calls[i];
        if (c->at.in <= EXTERNAL && x)
            c->args.in = x[EXTERNAL - c->at.in];
        for (int j = 0; x && j < FST_NODE_MORE; j++)
            if (c->at.more_in[j] <= EXTERNAL)
                c->args.more_in[j] = x[EXTERNAL - c->at.more_in[j]];
        if (!c->node)
            continue;
        for (int k = 0; k < c->node->params; k++) {
            size_t offset = g->params[c->node->first_param + k].offset;
            c->args.param[k] = state->params + offset;
            c->args.grad_param[k] = grads ? grads + offset : NULL;
        }
        for (int k = 0; k < c->node->buffers; k++)
            c->args.buffer[k] = state->buffers + g->buffers[c->node->first_buffer + k].offset;
        for (int k = 0; c->fold && k < 2; k++) {
            c->args.fold_param[k] = state->params + g->params[c->fold->first_param + k].offset;
            c->args.fold_buffer[k] = state->buffers + g->buffers[c->fold->first_buffer + k].offset;
        }
        c->args.counter = c->node->counter >= 0 ? state->counters + c->node->counter : NULL;
        c->args.draws = &p->draws;
        c->args.factor_grads = p->factor_grads;
        c->args.factor_row = p->factor_row;
    }
}

static bool sound(const fst_plan *p, const void *values, const struct fst_layout *l)
{
    return !values || fst__all_finite(values, p->backend->bytes(l), p->backend->half(l));
}

/* What is wrong after the last kernel of a call's pass; NULL: nothing. */
static const char *fault(const fst_plan *p, const struct call *c, bool backward)
{
    const struct fst_op_args *a = &c->args;
    const struct fst_node *n = c->node;
    bool good = sound(p, backward ? a->grad_in : a->out, backward ? c->in[0] : c->out);
    if (!backward && c->at.in <= EXTERNAL && !sound(p, a->in, c->in[0]))
        return "the input";
    if (backward && a->factors && !fst__factors_finite(a->factors, a->factor_grads, a->factor_row, (size_t)a->batch))
        return "a gradient";
    for (int k = backward && a->factors; k < n->params; k++) {
        size_t bytes = p->graph->params[n->first_param + k].count * sizeof(float);
        const float *values = backward ? a->grad_param[k] : a->param[k];
        if (!fst__all_finite(values, bytes, false))
            return backward ? "a gradient" : "a parameter";
    }
    for (int j = 0; good && backward && 1 + j < c->inputs; j++)
        good = sound(p, a->more_grad_in[j], c->in[1 + j]);
    return good ? NULL : backward ? "a gradient" : "the output";
}

static fst_status check_step(const fst_plan *p, int i, fst_error *err)
{
    const struct call *c = &p->calls[p->steps[i].call];
    bool backward = i >= p->forward_steps;
    int to = backward ? p->nsteps : p->forward_steps;
    bool more = i + 1 < to && p->steps[i + 1].call == p->steps[i].call;
    const char *what = c->node && !more && !c->again ? fault(p, c, backward) : NULL;
    if (!what)
        return FST_OK;
    return fst_fail(err, FST_E_NUMERIC, "%s of layer %s (%s) is not a finite number", what, c->node->name,
                    fst__op_types[c->node->kind]->name);
}

static fst_status run_steps(fst_plan *p, int from, int to, fst_error *err)
{
    p->backend->enter(p->context);
    for (int i = from; i < to; i++) {
        if (p->steps[i].kernel->prepare && (p->prepared || p->owner))
            continue;
        fst_status s = p->steps[i].kernel->run(p->steps[i].kernel, &p->calls[p->steps[i].call].args, err);
        if (!s && p->options.check_finite && p->options.training)
            s = check_step(p, i, err);
        if (s)
            return s;
    }
    return FST_OK;
}

fst_status fst_plan_forward(fst_plan *p, fst_state *state, const float *x, const fst_draws *draws, const float **out,
                            fst_error *err)
{
    if (p->graph->inputs != 1)
        return fst_fail(err, FST_E_ARGUMENT, "the graph has %d inputs, not one", p->graph->inputs);
    return fst_plan_forward_inputs(p, state, &x, draws, out, err);
}

fst_status fst_plan_forward_inputs(fst_plan *p, fst_state *state, const float *const *x, const fst_draws *draws,
                                   const float **out, fst_error *err)
{
    if (p->options.measure)
        return fst_fail(err, FST_E_ARGUMENT, "a plan that only measures cannot run");
    bind_state(p, state, NULL, x, draws);
    fst_status s = run_steps(p, 0, p->forward_steps, err);
    p->ran = p->prepared = !s;
    if (!s)
        *out = fst__region_at(p, p->output);
    return s;
}

fst_status fst__plan_prepare(fst_plan *p, const fst_state *state, fst_error *err)
{
    fst_status s = FST_OK;
    bind_state(p, state, NULL, NULL, NULL);
    p->backend->enter(p->context);
    for (int i = 0; !s && i < p->forward_steps; i++)
        if (p->steps[i].kernel->prepare)
            s = p->steps[i].kernel->run(p->steps[i].kernel, &p->calls[p->steps[i].call].args, err);
    p->prepared = !s;
    return s;
}

void fst__plan_bind(fst_plan *p, const fst_state *state, float *grads, const float *x, const fst_draws *draws)
{
    bind_state(p, state, grads, &x, draws);
}

fst_status fst__plan_run_part(fst_plan *p, int part, fst_error *err)
{
    fst_status s = run_steps(p, part ? p->part_end[part - 1] : 0, p->part_end[part], err);
    if (part == p->parts.forward - 1)
        p->ran = p->prepared = !s;
    return s;
}

struct fst_span fst__plan_part_grads(const fst_plan *p, int part)
{
    return p->part_grads[part];
}

void fst__plan_divert(fst_plan *p, int part, float *to)
{
    struct fst_span s = p->part_grads[part];
    for (int i = p->part_end[part - 1]; i < p->part_end[part]; i++) {
        struct call *c = &p->calls[p->steps[i].call];
        for (int k = 0; c->node && k < c->node->params; k++) {
            size_t offset = p->graph->params[c->node->first_param + k].offset;
            if (offset >= s.from && offset < s.from + s.count)
                c->args.grad_param[k] = to + (offset - s.from);
        }
    }
}

size_t fst__plan_forms(const fst_plan *p, const struct fst_form **out)
{
    *out = p->forms;
    return p->nforms;
}

void fst__plan_factor_rows(fst_plan *p, float *grads, size_t first)
{
    p->factor_grads = grads;
    p->factor_row = first;
}

const float *fst__plan_output(const fst_plan *p)
{
    return fst__region_at(p, p->output);
}

void fst_plan_renew(fst_plan *p)
{
    p->prepared = false;
}

float *fst_plan_output_grad(fst_plan *p)
{
    return fst__region_at(p, p->output_grad);
}

fst_status fst_plan_backward(fst_plan *p, const fst_state *state, float *grads, fst_error *err)
{
    if (!p->ran || !p->options.training)
        return fst_fail(err, FST_E_ARGUMENT, "a backward pass needs a training plan and a forward pass before it");
    bind_state(p, state, grads, NULL, NULL);
    return run_steps(p, p->forward_steps, p->nsteps, err);
}

const float *fst_plan_input_grad(const fst_plan *p)
{
    return fst__region_at(p, p->input_grad[0]);
}

const float *fst_plan_input_grad_at(const fst_plan *p, size_t input)
{
    return input < FST_GRAPH_INPUTS ? fst__region_at(p, p->input_grad[input]) : NULL;
}

size_t fst_plan_arena_bytes(const fst_plan *p)
{
    return p->arena.size;
}

size_t fst_plan_kernels(const fst_plan *p)
{
    return (size_t)p->nsteps;
}

fst_kernel_info fst_plan_kernel(const fst_plan *p, size_t i)
{
    const struct step *s = &p->steps[i];
    const struct fst_node *n = p->calls[s->call].node;
    fst_kernel_info k = {.op = n ? fst__op_types[n->kind]->name : s->kernel->name,
                         .compute = s->kernel->compute,
                         .backward = (int)i >= p->forward_steps,
                         .prepare = s->kernel->prepare};
    if (n && n->params)
        snprintf(k.name, sizeof k.name, "%.60s %.30s", n->name, s->kernel->name);
    else
        snprintf(k.name, sizeof k.name, "%.90s", s->kernel->name);
    return k;
}

fst_status fst_plan_run_kernel(fst_plan *p, size_t i, fst_error *err)
{
    if (!p->ran)
        return fst_fail(err, FST_E_ARGUMENT, "run a pass before its kernels");
    return run_steps(p, (int)i, (int)i + 1, err);
}

/* Ops: a graph from attrs, filled, run forward and backward, compared. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"

enum { INPUTS = 4 };

struct op_case {
    struct golden *g;
    const char *op;
    fst_graph *graph;
    struct spec input[INPUTS];
    int inputs;
    float *x[INPUTS];
    int64_t batch;
};

static fst_value one_input(struct golden *g, fst_graph *graph, fst_value x, const char *op)
{
    struct spec weight, bias;
    bool has_bias = golden_find(g, "params", "bias", &bias), has_weight = golden_find(g, "params", "weight", &weight);
    int64_t stride = (int64_t)golden_number(g, "stride", 1), padding = (int64_t)golden_number(g, "padding", 0);
    if (!strcmp(op, "conv2d") && has_weight) {
        fst_conv2d c = {.out_channels = weight.shape.dim[0],
                        .kernel = {weight.shape.dim[2], weight.shape.dim[3]},
                        .stride = {stride, stride},
                        .padding = {padding, padding},
                        .groups = (int64_t)golden_number(g, "groups", 1),
                        .bias = has_bias};
        return fst_graph_conv2d(graph, x, "op", &c);
    }
    if (!strcmp(op, "conv1d") && has_weight) {
        fst_conv1d c = {.out_channels = weight.shape.dim[0],
                        .kernel = weight.shape.dim[2],
                        .stride = stride,
                        .padding = padding,
                        .groups = (int64_t)golden_number(g, "groups", 1),
                        .bias = has_bias};
        return fst_graph_conv1d(graph, x, "op", &c);
    }
    if (!strcmp(op, "linear") && has_weight)
        return fst_graph_linear(graph, x, "op", weight.shape.dim[0], has_bias);
    if (!strcmp(op, "relu"))
        return fst_graph_relu(graph, x);
    if (!strcmp(op, "relu6"))
        return fst_graph_relu6(graph, x);
    if (!strcmp(op, "sigmoid"))
        return fst_graph_sigmoid(graph, x);
    if (!strcmp(op, "gelu_tanh"))
        return fst_graph_gelu_tanh(graph, x);
    if (!strcmp(op, "softmax"))
        return fst_graph_softmax(graph, x);
    if (!strcmp(op, "global_avgpool"))
        return fst_graph_global_avgpool(graph, x);
    if (!strcmp(op, "groupnorm"))
        return fst_graph_groupnorm(graph, x, "op", (int64_t)golden_number(g, "groups", 1),
                                   golden_number(g, "eps", 1e-5));
    if (!strcmp(op, "layernorm"))
        return fst_graph_layernorm(graph, x, "op", golden_number(g, "eps", 1e-5));
    if (!strcmp(op, "avgpool2d")) {
        int64_t k = (int64_t)golden_number(g, "kernel", 0);
        return fst_graph_avgpool2d(graph, x, (int64_t[]){k, k}, (int64_t[]){stride, stride},
                                   (int64_t[]){padding, padding}, golden_number(g, "count_include_pad", 1) != 0);
    }
    if (!strcmp(op, "maxpool2d"))
        return fst_graph_maxpool2d(graph, x, (int64_t)golden_number(g, "kernel", 0), stride, padding);
    if (!strcmp(op, "flatten"))
        return fst_graph_flatten(graph, x);
    if (!strcmp(op, "dropout"))
        return fst_graph_dropout(graph, x, golden_number(g, "p", 0.5));
    if (!strcmp(op, "batchnorm2d"))
        return fst_graph_batchnorm2d(graph, x, "op", golden_number(g, "eps", 1e-5), golden_number(g, "momentum", 0.1));
    return -1;
}

/* The weight of a spectral norm shows when its layer sees the unit matrix: x W^T, turned round. */
static fst_value spectral(struct golden *g, fst_graph *graph, fst_value x)
{
    struct spec w;
    return golden_find(g, "params", "weight_orig", &w)
               ? fst_graph_transpose(graph, fst_graph_spectral_linear(graph, x, "op", w.shape.dim[0], false))
               : -1;
}

static fst_value attention(struct golden *g, fst_graph *graph, const fst_value *x)
{
    struct spec w;
    fst_cross_attention o = {.heads = (int64_t)golden_number(g, "heads", 1),
                             .bias = golden_find(g, "params", "q.bias", &w),
                             .eps = golden_number(g, "eps", 0)};
    o.width = o.heads * (int64_t)golden_number(g, "head_dim", 0);
    return fst_graph_cross_attention(graph, x[0], x[1], "op", &o);
}

static fst_value op_node(const struct op_case *c, const fst_value *x)
{
    struct golden *g = c->g;
    if (!strcmp(c->op, "add"))
        return fst_graph_add(c->graph, x[0], x[c->inputs - 1]); /* one operand: twice the same */
    if (!strcmp(c->op, "concat") && golden_number(g, "axis", 0) == 1)
        return fst_graph_concat(c->graph, x, c->inputs);
    if (!strcmp(c->op, "cross_attention") && c->inputs == 2)
        return attention(g, c->graph, x);
    if (!strcmp(c->op, "spectral_norm"))
        return spectral(g, c->graph, x[0]);
    return c->inputs == 1 ? one_input(g, c->graph, x[0], c->op) : -1;
}

static bool op_known(const char *op)
{
    static const char *const known[] = {"conv2d",          "conv1d",    "linear",         "relu",      "maxpool2d",
                                        "flatten",         "dropout",   "batchnorm2d",    "relu6",     "sigmoid",
                                        "gelu_tanh",       "softmax",   "concat",         "add",       "avgpool2d",
                                        "cross_attention", "layernorm", "global_avgpool", "groupnorm", "spectral_norm"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(op, known[i]))
            return true;
    return false;
}

/* ---- inputs ----------------------------------------------------------------------------------------- */

static bool unit_matrix(struct op_case *c)
{
    struct spec w;
    if (!golden_find(c->g, "params", "weight_orig", &w) || w.shape.rank != 2)
        return false;
    int64_t n = w.shape.dim[1];
    c->input[0] = (struct spec){.shape = FST_SHAPE(n, n), .count = (size_t)(n * n)};
    c->x[0] = fst_calloc(c->input[0].count, sizeof(float));
    for (int64_t i = 0; i < n; i++)
        c->x[0][i * (n + 1)] = 1;
    c->inputs = 1;
    return true;
}

/* Tokens are one sample; everything else has the batch in front. */
static bool take_inputs(struct op_case *c)
{
    bool tokens = !strcmp(c->op, "cross_attention") || !strcmp(c->op, "spectral_norm");
    fst_error err = {0};
    if (!strcmp(c->op, "spectral_norm")) {
        if (!unit_matrix(c))
            return false;
    } else {
        while (c->inputs < INPUTS && golden_at(c->g, "inputs", (size_t)c->inputs, &c->input[c->inputs])) {
            c->x[c->inputs] = golden_fill(c->g, &c->input[c->inputs]);
            c->inputs++;
        }
    }
    if (!c->inputs || c->input[0].shape.rank < 2 || fst_graph_new(&c->graph, &err))
        return false;
    fst_value x[INPUTS];
    c->batch = tokens ? 1 : c->input[0].shape.dim[0];
    for (int i = 0; i < c->inputs; i++) {
        fst_shape sample = c->input[i].shape;
        sample.rank -= !tokens;
        memcpy(sample.dim, c->input[i].shape.dim + !tokens, (size_t)sample.rank * sizeof *sample.dim);
        x[i] = fst_graph_input(c->graph, &sample);
    }
    if (fst_graph_finish(c->graph, op_node(c, x), &err))
        golden_fail(c->g, "%s", err.message);
    return true;
}

/* ---- running ------------------------------------------------------------------------------------------ */

/* sigma = |W| / |W / sigma|; it is above 0 wherever the power iteration has run. */
static void check_sigma(const struct op_case *c, const fst_state *state, const float *out, size_t n)
{
    double w = 0, y = 0;
    for (size_t i = 0; i < n; i++) {
        w += (double)state->params[i] * (double)state->params[i];
        y += (double)out[i] * (double)out[i];
    }
    double sigma = sqrt(w / y);
    golden_compare_double(c->g, "sigma", &sigma, 1, 0);
}

static void op_gradients(const struct op_case *c, const fst_plan *plan, const float *grads)
{
    double largest = golden_largest(c->g, "grad.");
    char name[160];
    for (int i = 0; i < c->inputs && strcmp(c->op, "spectral_norm"); i++) {
        snprintf(name, sizeof name, "grad.%s", c->input[i].name);
        golden_compare(c->g, name, fst_plan_input_grad_at(plan, (size_t)i), c->input[i].count, 0);
    }
    for (size_t i = 0; i < fst_graph_params(c->graph); i++) {
        fst_param_info p = fst_graph_param(c->graph, i);
        snprintf(name, sizeof name, "grad.%s", p.name + strlen("op."));
        golden_compare(c->g, name, grads + p.offset, p.count, largest * 1e-3);
    }
}

static void op_passes(const struct op_case *c, fst_plan *plan, fst_state *state, float *grads, fst_error *err)
{
    struct golden *g = c->g;
    const float *out;
    struct spec gs;
    fst_shape os = fst_graph_output_shape(c->graph);
    size_t n = (size_t)(c->batch * fst_shape_count(&os));
    if (!golden_at(g, "grad_outputs", 0, &gs) || gs.count != n) {
        golden_fail(g, "no grad_output of the output's size");
        return;
    }
    if (fst_plan_forward_inputs(plan, state, (const float *const *)c->x, NULL, &out, err)) {
        golden_fail(g, "%s", err->message);
        return;
    }
    golden_compare(g, "output", out, n, 0);
    if (!strcmp(c->op, "spectral_norm"))
        check_sigma(c, state, out, n);
    float *go = golden_fill(g, &gs);
    memcpy(fst_plan_output_grad(plan), go, n * sizeof *go);
    fst_free(go);
    if (fst_plan_backward(plan, state, grads, err))
        golden_fail(g, "%s", err->message);
    op_gradients(c, plan, grads);
    for (size_t i = 0; i < fst_graph_buffers(c->graph); i++) {
        fst_param_info p = fst_graph_buffer(c->graph, i);
        char name[160];
        snprintf(name, sizeof name, "after.%s", p.name + strlen("op."));
        if (golden_has(g, name))
            golden_compare(g, name, state->buffers + p.offset, p.count, 0);
    }
}

static void op_run(const struct op_case *c)
{
    struct golden *g = c->g;
    fst_plan_options o = {.batch = c->batch,
                          .training = true,
                          .input_grad = true,
                          .frozen = !golden_number(g, "training", 1),
                          .backend = g->backend};
    fst_error err = {0};
    fst_state state = {0};
    fst_plan *plan = NULL;
    if (fst_state_init(&state, c->graph, &err) || fst_plan_new(&plan, c->graph, &o, &err)) {
        golden_fail(g, "%s", err.message);
        fst_state_release(&state);
        return;
    }
    float *grads = fst_calloc(state.param_count + 1, sizeof *grads);
    golden_slots(g, "params", "op.", c->graph, false, state.params);
    golden_slots(g, "buffers", "op.", c->graph, true, state.buffers);
    op_passes(c, plan, &state, grads, &err);
    fst_free(grads);
    fst_plan_free(plan);
    fst_state_release(&state);
}

void golden_op(struct golden *g)
{
    struct op_case c = {.g = g, .op = golden_text(g, "op", "")};
    if (golden_is_complex(g) && golden_knows_complex(c.op)) {
        golden_complex_op(g);
        return;
    }
    if (!op_known(c.op)) {
        golden_skip(g, c.op);
        return;
    }
    if (!take_inputs(&c))
        golden_fail(g, "no inputs");
    else if (g->outcome == PASSED)
        op_run(&c);
    for (int i = 0; i < c.inputs; i++)
        fst_free(c.x[i]);
    fst_graph_free(c.graph);
}

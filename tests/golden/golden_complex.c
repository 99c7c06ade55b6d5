/* Ops on complex values: inputs and outputs are pairs of tensors (.re, .im) in the files, parts of one here. */
#include <stdio.h>
#include <string.h>

#include "golden.h"

static const char *const part_names[] = {"re", "im"};

bool golden_is_complex(const struct golden *g)
{
    struct spec s;
    return golden_find(g, "inputs", "input.re", &s);
}

/* (N, ...) twice, as (N, 2, ...). NULL (and failure) when the case has no such pair. */
static float *paired(struct golden *g, const char *list, const char *stem, fst_shape *sample, size_t *batch)
{
    struct spec s;
    float *all = NULL;
    for (size_t k = 0; k < 2; k++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%s", stem, part_names[k]);
        if (!golden_find(g, list, name, &s) || s.shape.rank < 2 || s.shape.rank > 4) {
            golden_fail(g, "no %s", name);
            fst_free(all);
            return NULL;
        }
        *batch = (size_t)s.shape.dim[0];
        size_t each = s.count / *batch;
        float *part = golden_fill(g, &s);
        all = k ? all : fst_calloc(2 * s.count, sizeof *all);
        for (size_t b = 0; b < *batch; b++)
            memcpy(all + (2 * b + k) * each, part + b * each, each * sizeof *part);
        fst_free(part);
    }
    *sample = s.shape;
    sample->dim[0] = 2;
    return all;
}

/* A result of (N, 2, ...) against the pair stem.re, stem.im. */
static void compare_pair(struct golden *g, const char *stem, const float *got, size_t batch, size_t count)
{
    size_t each = count / batch / 2;
    float *part = fst_calloc(batch * each + 1, sizeof *part);
    for (size_t k = 0; k < 2; k++) {
        char name[64];
        snprintf(name, sizeof name, "%s.%s", stem, part_names[k]);
        for (size_t b = 0; b < batch; b++)
            memcpy(part + b * each, got + (2 * b + k) * each, each * sizeof *part);
        golden_compare(g, name, part, batch * each, 0);
    }
    fst_free(part);
}

static fst_value complex_node(struct golden *g, fst_graph *graph, fst_value x, const char *op)
{
    struct spec weight, bias;
    int64_t stride = (int64_t)golden_number(g, "stride", 1), padding = (int64_t)golden_number(g, "padding", 0);
    if (!strcmp(op, "complex_conv2d") && golden_find(g, "params", "conv_r.weight", &weight)) {
        fst_conv2d c = {.out_channels = weight.shape.dim[0],
                        .kernel = {weight.shape.dim[2], weight.shape.dim[3]},
                        .stride = {stride, stride},
                        .padding = {padding, padding},
                        .bias = golden_find(g, "params", "conv_r.bias", &bias)};
        return fst_graph_complex_conv2d(graph, x, "op", &c);
    }
    if (!strcmp(op, "complex_linear") && golden_find(g, "params", "fc_r.weight", &weight))
        return fst_graph_complex_linear(graph, x, "op", weight.shape.dim[0],
                                        golden_find(g, "params", "fc_r.bias", &bias));
    if (!strcmp(op, "complex_batchnorm"))
        return fst_graph_complex_batchnorm(graph, x, "op", golden_number(g, "eps", 1e-5),
                                           golden_number(g, "momentum", 0.1));
    if (!strcmp(op, "complex_relu"))
        return fst_graph_relu(graph, x);
    if (!strcmp(op, "complex_maxpool2d"))
        return fst_graph_maxpool2d(graph, x, (int64_t)golden_number(g, "kernel", 0), stride, padding);
    if (!strcmp(op, "magnitude"))
        return fst_graph_magnitude(graph, x);
    if (!strcmp(op, "time_freq_attention")) {
        fst_time_freq_attention o = {.reduction = (int64_t)golden_number(g, "reduction", 16),
                                     .floor = golden_number(g, "floor", 1e-8),
                                     .ceiling = golden_number(g, "ceiling", 10),
                                     .phase_eps = golden_number(g, "phase_eps", 1e-8)};
        return fst_graph_time_freq_attention(graph, x, "op", &o);
    }
    return -1;
}

bool golden_knows_complex(const char *op)
{
    static const char *const known[] = {"complex_conv2d",    "complex_linear", "complex_batchnorm",  "complex_relu",
                                        "complex_maxpool2d", "magnitude",      "time_freq_attention"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strcmp(op, known[i]))
            return true;
    return false;
}

struct trial {
    fst_graph *graph;
    fst_plan *plan;
    fst_state state;
    float *x, *go, *grads;
    size_t batch, inputs, outputs;
    bool real; /* the output */
};

static void compare_gradients(struct golden *g, const struct trial *t)
{
    double largest = golden_largest(g, "grad.");
    compare_pair(g, "grad.input", fst_plan_input_grad(t->plan), t->batch, t->inputs);
    for (size_t i = 0; i < fst_graph_params(t->graph); i++) {
        fst_param_info p = fst_graph_param(t->graph, i);
        char name[128];
        snprintf(name, sizeof name, "grad.%s", p.name + strlen("op."));
        golden_compare(g, name, t->grads + p.offset, p.count, largest * 1e-3);
    }
    for (size_t i = 0; i < fst_graph_buffers(t->graph); i++) {
        fst_param_info p = fst_graph_buffer(t->graph, i);
        char name[128];
        snprintf(name, sizeof name, "after.%s", p.name + strlen("op."));
        if (golden_has(g, name))
            golden_compare(g, name, t->state.buffers + p.offset, p.count, 0);
    }
}

static void try_out(struct golden *g, struct trial *t)
{
    fst_error err = {0};
    const float *y;
    t->grads = fst_calloc(t->state.param_count + 1, sizeof *t->grads);
    if (fst_plan_forward(t->plan, &t->state, t->x, NULL, &y, &err)) {
        golden_fail(g, "%s", err.message);
        return;
    }
    if (t->real)
        golden_compare(g, "output", y, t->outputs, 0);
    else
        compare_pair(g, "output", y, t->batch, t->outputs);
    memcpy(fst_plan_output_grad(t->plan), t->go, t->outputs * sizeof *t->go);
    if (fst_plan_backward(t->plan, &t->state, t->grads, &err))
        golden_fail(g, "%s", err.message);
    else
        compare_gradients(g, t);
}

static bool prepare(struct golden *g, struct trial *t, const char *op)
{
    fst_shape sample, gradient;
    fst_error err = {0};
    struct spec go;
    size_t batch;
    t->x = paired(g, "inputs", "input", &sample, &t->batch);
    t->real = golden_find(g, "grad_outputs", "grad_output", &go);
    t->go = t->real ? golden_fill(g, &go) : paired(g, "grad_outputs", "grad_output", &gradient, &batch);
    if (!t->x || !t->go || fst_graph_new(&t->graph, &err))
        return false;
    fst_value y = fst_graph_complex_from_parts(t->graph, fst_graph_input(t->graph, &sample));
    y = complex_node(g, t->graph, y, op);
    if (!t->real)
        y = fst_graph_complex_to_parts(t->graph, y);
    fst_status s = fst_graph_finish(t->graph, y, &err);
    fst_plan_options o = {.batch = (int64_t)t->batch,
                          .training = true,
                          .input_grad = true,
                          .frozen = !golden_number(g, "training", 1),
                          .backend = g->backend};
    if (!s)
        s = fst_state_init(&t->state, t->graph, &err);
    if (!s)
        s = fst_plan_new(&t->plan, t->graph, &o, &err);
    if (s) {
        golden_fail(g, "%s", err.message);
        return false;
    }
    fst_shape out = fst_graph_output_shape(t->graph);
    t->inputs = t->batch * (size_t)fst_shape_count(&sample);
    t->outputs = t->batch * (size_t)fst_shape_count(&out);
    if (t->outputs != (t->real ? go.count : t->batch * (size_t)fst_shape_count(&gradient)))
        golden_fail(g, "no grad_output of the output's size");
    golden_slots(g, "params", "op.", t->graph, false, t->state.params);
    golden_slots(g, "buffers", "op.", t->graph, true, t->state.buffers);
    return g->outcome == PASSED;
}

void golden_complex_op(struct golden *g)
{
    struct trial t = {0};
    if (prepare(g, &t, golden_text(g, "op", "")))
        try_out(g, &t);
    fst_free(t.x);
    fst_free(t.go);
    fst_free(t.grads);
    fst_plan_free(t.plan);
    fst_graph_free(t.graph);
    fst_state_release(&t.state);
}

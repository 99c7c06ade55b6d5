/* The MergeNet adapter: one training pass gives theta; back goes theta - theta_after. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "golden.h"

enum { HEAD = 16, HEAD_ROWS = 8 };

struct merge {
    struct golden *g;
    fst_graph *graph;
    fst_plan *plan;
    fst_state state;
    float *x[2], *after, *grads;
    struct spec input[2];
    const float *theta;
    int64_t rows, columns;
};

static double norm(const float *v, int64_t n, int64_t stride)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)v[i * stride] * (double)v[i * stride];
    return sqrt(sum);
}

static void compare_output(struct merge *m)
{
    struct golden *g = m->g;
    int64_t n = m->rows * m->columns, wide = m->columns < HEAD ? m->columns : HEAD;
    int64_t high = m->rows < HEAD_ROWS ? m->rows : HEAD_ROWS;
    double mean = 0, all = norm(m->theta, n, 1), head[HEAD_ROWS * HEAD], row = 0;
    double *lengths = fst_calloc((size_t)(m->rows + m->columns), sizeof *lengths);
    for (int64_t i = 0; i < n; i++)
        mean += (double)m->theta[i] / (double)n;
    for (int64_t i = 0; i < high; i++)
        for (int64_t j = 0; j < wide; j++)
            head[i * wide + j] = (double)m->theta[i * m->columns + j];
    for (int64_t i = 0; i < m->rows; i++)
        lengths[i] = norm(m->theta + i * m->columns, m->columns, 1);
    for (int64_t j = 0; j < m->columns; j++)
        lengths[m->rows + j] = norm(m->theta + j, m->rows, m->columns);
    row = all / sqrt((double)n); /* the mean is small beside the values that it is made of */
    golden_compare_double(g, "output_norm", &all, 1, 0);
    golden_compare_double(g, "output_mean", &mean, 1, row);
    golden_compare_double(g, "output_head", head, (size_t)(high * wide), 0);
    golden_compare_double(g, "output_row_norm", lengths, (size_t)m->rows, 0);
    golden_compare_double(g, "output_column_norm", lengths + m->rows, (size_t)m->columns, 0);
    if (golden_has(g, "output"))
        golden_compare(g, "output", m->theta, (size_t)n, 0);
    fst_free(lengths);
}

static void compare_gradients(struct merge *m)
{
    struct golden *g = m->g;
    double r = fmax(1e-3, 20 * fmax(golden_f32(g, "grad_norm_max"), golden_f32(g, "grad_head_max")));
    double *norms = golden_want(g, "input_grad_norm", 2), *heads = golden_want(g, "input_grad_head", (size_t)2 * HEAD);
    double largest = golden_largest(g, "grad.");
    golden_compare_slots(g, "grad", m->graph, false, m->grads, r, 1e-3);
    golden_compare_slots(g, "buffer", m->graph, true, m->state.buffers, 1e-5, 1e-3);
    for (size_t i = 0; norms && heads && i < 2; i++) {
        const float *grad = fst_plan_input_grad_at(m->plan, i);
        double got = norm(grad, (int64_t)m->input[i].count, 1);
        if (!(fabs(got - norms[i]) <= r * norms[i]))
            golden_fail(g, "norm of input %zu's gradient: got %.9g, want %.9g", i, got, norms[i]);
        for (size_t k = 0; k < HEAD && k < m->input[i].count; k++)
            if (!(fabs((double)grad[k] - heads[i * HEAD + k]) <= 1e-7 + r * norms[i]))
                golden_fail(g, "input %zu's gradient [%zu]: got %.9g, want %.9g", i, k, (double)grad[k],
                            heads[i * HEAD + k]);
        char name[16];
        snprintf(name, sizeof name, "grad.%c", (char)('a' + (int)i));
        if (golden_has(g, name))
            golden_compare(g, name, grad, m->input[i].count, 0);
    }
    for (size_t i = 0; golden_has(g, "grad.a") && i < fst_graph_params(m->graph); i++) {
        fst_param_info p = fst_graph_param(m->graph, i);
        char name[160];
        snprintf(name, sizeof name, "grad.%s", p.name);
        golden_compare(g, name, m->grads + p.offset, p.count, largest * 1e-3);
    }
    fst_free(norms);
    fst_free(heads);
}

static void passes(struct merge *m, fst_error *err)
{
    struct golden *g = m->g;
    int64_t n = m->rows * m->columns;
    if (fst_plan_forward_inputs(m->plan, &m->state, (const float *const *)m->x, NULL, &m->theta, err)) {
        golden_fail(g, "%s", err->message);
        return;
    }
    compare_output(m);
    float *back = fst_plan_output_grad(m->plan);
    for (int64_t i = 0; i < n; i++)
        back[i] = m->theta[i] - m->after[i];
    double length = norm(back, n, 1);
    golden_compare_double(g, "grad_output_norm", &length, 1, 0);
    if (fst_plan_backward(m->plan, &m->state, m->grads, err))
        golden_fail(g, "%s", err->message);
    else
        compare_gradients(m);
}

static fst_status setup(struct merge *m, fst_error *err)
{
    json_t *config = json_object_get(m->g->attrs, "config");
    fst_mergenet c = {.layers = (int)json_integer_value(json_object_get(config, "layers")),
                      .heads = (int)json_integer_value(json_object_get(config, "heads")),
                      .min_width = json_integer_value(json_object_get(config, "min_width")),
                      .bias = json_is_true(json_object_get(config, "bias"))};
    for (size_t i = 0; i < 2; i++) {
        c.target[i] = json_integer_value(json_array_get(json_object_get(config, "a_shape"), i));
        c.source[i] = json_integer_value(json_array_get(json_object_get(config, "b_shape"), i));
    }
    m->rows = c.target[0];
    m->columns = c.target[1];
    fst_plan_options o = {.batch = 1, .training = true, .input_grad = true, .backend = m->g->backend};
    fst_status s = fst_mergenet_graph(&m->graph, &c, err);
    if (!s)
        s = fst_state_init(&m->state, m->graph, err);
    return s ? s : fst_plan_new(&m->plan, m->graph, &o, err);
}

void golden_mergenet(struct golden *g)
{
    struct merge m = {.g = g};
    struct spec after;
    fst_error err = {0};
    if (!golden_find(g, "inputs", "a", &m.input[0]) || !golden_find(g, "inputs", "b", &m.input[1]) ||
        !golden_find(g, "inputs", "theta_after", &after)) {
        golden_fail(g, "no inputs");
        return;
    }
    if (setup(&m, &err)) {
        golden_fail(g, "%s", err.message);
    } else if ((double)m.state.param_count != golden_number(g, "param_count", 0) ||
               m.input[0].count != (size_t)(m.rows * m.columns) || after.count != m.input[0].count) {
        golden_fail(g, "%zu parameters, %.0f expected", m.state.param_count, golden_number(g, "param_count", 0));
    } else {
        golden_slots(g, "params", "", m.graph, false, m.state.params);
        golden_slots(g, "buffers", "", m.graph, true, m.state.buffers);
        m.x[0] = golden_fill(g, &m.input[0]);
        m.x[1] = golden_fill(g, &m.input[1]);
        m.after = golden_fill(g, &after);
        m.grads = fst_calloc(m.state.param_count + 1, sizeof *m.grads);
        if (g->outcome == PASSED)
            passes(&m, &err);
    }
    fst_free(m.x[0]);
    fst_free(m.x[1]);
    fst_free(m.after);
    fst_free(m.grads);
    fst_plan_free(m.plan);
    fst_state_release(&m.state);
    fst_graph_free(m.graph);
}

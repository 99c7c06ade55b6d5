/* Gradients of graphs against finite differences of the function that they compute. */
#ifndef FST_TESTS_NN_PROBE_H
#define FST_TESTS_NN_PROBE_H

#include "nn/support.h"

/*
 * The loss of a case is sum(c * y) with fixed c, added up in double. Inputs are odd multiples of 0.05 in a
 * random order, all different, so that no step reaches the kink of a ReLU or a tie of a pooling. Ops are
 * linear or smooth within a step; the five-point rule leaves an error of the fourth order.
 */
enum { MAX_VALUES = 4096, MAX_INPUTS = 4 };

struct probe {
    const char *backend;
    fst_graph *graph;
    fst_plan *plan;
    fst_state state, work; /* work: what a pass may change */
    float *x[MAX_INPUTS], *c, *grads;
    size_t inputs, count[MAX_INPUTS], outputs;
};

/* Of several inputs, x is the first, x + 1 the second ... */
typedef fst_value (*builder)(fst_graph *g, fst_value x);

static inline void fill_apart(float *v, size_t n, uint64_t seed)
{
    uint32_t order[MAX_VALUES];
    fst_rng r;
    assert_true(n <= MAX_VALUES);
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    fst_rng_init(&r, seed, "test.apart", 0);
    fst_rng_shuffle_u32(&r, order, n);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(0.05 + 0.1 * ((double)order[i] - (double)(n / 2)));
}

static inline void open_probe(struct probe *p, const char *backend, builder build, const fst_shape *input,
                              size_t inputs, int64_t batch, bool frozen, float scale)
{
    *p = (struct probe){.backend = backend, .inputs = inputs};
    fst_plan_options o = {
        .batch = batch, .training = true, .input_grad = true, .frozen = frozen, .backend = p->backend};
    assert_ok(fst_graph_new(&p->graph, err));
    fst_value x = fst_graph_input(p->graph, &input[0]);
    for (size_t i = 1; i < inputs; i++)
        assert_int_equal(fst_graph_input(p->graph, &input[i]), x + (fst_value)i);
    assert_ok(fst_graph_finish(p->graph, build(p->graph, x), err));
    assert_ok(fst_state_init(&p->state, p->graph, err));
    assert_ok(fst_state_init(&p->work, p->graph, err));
    assert_ok(fst_plan_new(&p->plan, p->graph, &o, err));
    fill_state(&p->state, p->graph, 7);
    for (size_t i = 0; i < inputs; i++) {
        p->count[i] = (size_t)(batch * fst_shape_count(&input[i]));
        p->x[i] = new_floats(p->count[i]);
        fill_apart(p->x[i], p->count[i], 3 + i);
        for (size_t k = 0; k < p->count[i]; k++)
            p->x[i][k] *= scale;
    }
    p->outputs = (size_t)batch * output_floats(p->graph);
    p->c = new_floats(p->outputs);
    p->grads = new_floats(p->state.param_count);
    fill_normal(p->c, p->outputs, 5, "test.coefficients", 1);
}

static inline void close_probe(struct probe *p)
{
    fst_plan_free(p->plan);
    fst_graph_free(p->graph);
    fst_state_release(&p->state);
    fst_state_release(&p->work);
    for (size_t i = 0; i < p->inputs; i++)
        free(p->x[i]);
    free(p->c);
    free(p->grads);
}

static inline double loss_at(struct probe *p)
{
    static const fst_draws draws = {.seed = 11, .step = 3};
    const float *y;
    double sum = 0;
    fst_state_copy(&p->work, &p->state);
    assert_ok(fst_plan_forward_inputs(p->plan, &p->work, (const float *const *)p->x, &draws, &y, err));
    for (size_t i = 0; i < p->outputs; i++)
        sum += (double)p->c[i] * (double)y[i];
    return sum;
}

static inline double slope(struct probe *p, float *at, double h)
{
    static const double step[4] = {-2, -1, 1, 2}, factor[4] = {1, -8, 8, -1};
    float was = *at;
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        *at = (float)((double)was + step[i] * h);
        sum += factor[i] * loss_at(p);
    }
    *at = was;
    return sum / (12 * h);
}

static inline void compare(struct probe *p, const char *what, float *values, const float *grad, size_t n, double h)
{
    double largest = 0, slopes[MAX_VALUES];
    assert_true(n <= MAX_VALUES);
    for (size_t i = 0; i < n; i++) {
        slopes[i] = slope(p, &values[i], h);
        largest = fmax(largest, fabs(slopes[i]));
    }
    for (size_t i = 0; i < n; i++)
        if (!(fabs((double)grad[i] - slopes[i]) <= 1e-3 * largest + 1e-3))
            fail_msg("%s: gradient of %s [%zu] is %g, the slope is %g", p->backend, what, i, (double)grad[i],
                     slopes[i]);
}

/* h: the step for parameters and, times scale, for inputs. */
static inline void check_inputs(builder build, const fst_shape *input, size_t inputs, int64_t batch, bool frozen,
                                float scale, double h)
{
    for (const char *const *b = fst_backend_names(); *b; b++) {
        struct probe p;
        float *grad_in[MAX_INPUTS];
        open_probe(&p, *b, build, input, inputs, batch, frozen, scale);
        (void)loss_at(&p);
        memcpy(fst_plan_output_grad(p.plan), p.c, p.outputs * sizeof *p.c);
        assert_ok(fst_plan_backward(p.plan, &p.work, p.grads, err));
        for (size_t i = 0; i < inputs; i++) {
            grad_in[i] = new_floats(p.count[i]);
            memcpy(grad_in[i], fst_plan_input_grad_at(p.plan, i), p.count[i] * sizeof(float));
        }
        for (size_t i = 0; i < inputs; i++) {
            compare(&p, i ? "a further input" : "the input", p.x[i], grad_in[i], p.count[i], h * (double)scale);
            free(grad_in[i]);
        }
        for (size_t i = 0; i < fst_graph_params(p.graph); i++) {
            fst_param_info q = fst_graph_param(p.graph, i);
            compare(&p, q.name, p.state.params + q.offset, p.grads + q.offset, q.count, h);
        }
        close_probe(&p);
    }
}

static inline void check(builder build, fst_shape input, int64_t batch, bool frozen, float scale, double h)
{
    check_inputs(build, &input, 1, batch, frozen, scale, h);
}

#endif

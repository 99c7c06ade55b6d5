/*
 * Whether two backends (or precisions) compute the same: everything that a pass leaves, compared tensor by tensor.
 *
 * Where the function has a kink at hand, or a gradient is the small rest of large terms, two correct
 * backends may differ at will. Such tensors are found without looking at the backend under test: the
 * reference runs again with inputs, parameters and output gradients moved a little, and what that changes
 * visibly is not compared. Tests limit how much may be left out.
 *
 * One moved run finds a kink that is near, and misses one that few of them reach: seed 1500 of the random graphs has a
 * ReLU that about one moved run in a hundred gets on the other side of, always with the same jump of 0.103 of 23.7. So
 * where a backend differs, the reference is moved up to REACH times more, and one of these runs must give what the
 * backend gave, within the tolerance that holds everywhere. A wrong kernel's result is reached by none of them.
 */
#ifndef FST_TESTS_NN_AGREE_H
#define FST_TESTS_NN_AGREE_H

#include "nn/support.h"

enum { MAX_TENSORS = 160, AGREE_INPUTS = 4, REACH = 1000 };

struct subject { /* what is run */
    const fst_graph *graph;
    int64_t batch;
    uint64_t seed;
    const char *text; /* shown when it fails */
};

struct noise { /* by how much inputs, parameters and output gradients are moved; which: of several draws */
    double size;
    uint64_t which;
};

struct outcome { /* everything that a pass leaves, as one list of tensors over one block */
    float *data;
    size_t at[MAX_TENSORS + 1];
    const char *name[MAX_TENSORS];
    bool gradient[MAX_TENSORS];
    size_t tensors;
    int64_t counters;
};

struct tally {
    size_t compared, left_out;
};

static inline void add_tensor(struct outcome *o, const char *name, bool gradient, const float *v, size_t n)
{
    assert_true(o->tensors < MAX_TENSORS);
    size_t at = o->at[o->tensors];
    o->data = realloc(o->data, (at + n + 1) * sizeof *o->data);
    assert_non_null(o->data);
    memcpy(o->data + at, v, n * sizeof *v);
    o->gradient[o->tensors] = gradient;
    o->name[o->tensors++] = name;
    o->at[o->tensors] = at + n;
}

static inline void move(float *v, size_t n, struct noise noise, bool relative, uint64_t seed, const char *what)
{
    fst_rng r;
    fst_rng_init(&r, seed, what, 1 + noise.which);
    for (size_t i = 0; noise.size > 0 && i < n; i++)
        v[i] += (float)(noise.size * fst_rng_normal(&r) * (relative ? fabs((double)v[i]) : 1));
}

static inline size_t subject_inputs(const struct subject *s, struct noise noise, float *x[AGREE_INPUTS],
                                    size_t count[AGREE_INPUTS])
{
    static const char *const names[AGREE_INPUTS] = {"test.x", "test.x1", "test.x2", "test.x3"};
    for (size_t i = 0; i < fst_graph_inputs(s->graph); i++) {
        fst_shape shape = fst_graph_input_shape_at(s->graph, i);
        count[i] = (size_t)(s->batch * fst_shape_count(&shape));
        x[i] = new_floats(count[i]);
        fill_normal(x[i], count[i], s->seed, names[i], 1);
        move(x[i], count[i], noise, false, s->seed, names[i]);
    }
    return fst_graph_inputs(s->graph);
}

static inline void run_backward(const struct subject *s, fst_plan *plan, const fst_state *state, struct noise noise,
                                struct outcome *o)
{
    static const char *const names[AGREE_INPUTS] = {"the input's gradient", "the second input's gradient",
                                                    "the third input's gradient", "the fourth input's gradient"};
    size_t n = (size_t)s->batch * output_floats(s->graph);
    float *grads = new_floats(state->param_count);
    for (size_t i = 0; i < state->param_count; i++)
        grads[i] = NAN; /* all of it must be written */
    fill_normal(fst_plan_output_grad(plan), n, s->seed, "test.grad", 1);
    move(fst_plan_output_grad(plan), n, noise, false, s->seed, "test.grad");
    assert_ok(fst_plan_backward(plan, state, grads, err));
    for (size_t i = 0; i < fst_graph_inputs(s->graph); i++) {
        fst_shape shape = fst_graph_input_shape_at(s->graph, i);
        const float *g = fst_plan_input_grad_at(plan, i);
        if (g)
            add_tensor(o, names[i], true, g, (size_t)(s->batch * fst_shape_count(&shape)));
    }
    for (size_t i = 0; i < fst_graph_params(s->graph); i++) {
        fst_param_info p = fst_graph_param(s->graph, i);
        add_tensor(o, p.name, true, grads + p.offset, p.count);
    }
    free(grads);
}

static inline void run_subject(const struct subject *s, const fst_plan_options *po, struct noise noise,
                               struct outcome *o)
{
    fst_plan *plan = NULL;
    fst_state state = {0};
    const fst_draws draws = {s->seed, 2, 0};
    const float *y;
    float *x[AGREE_INPUTS];
    size_t count[AGREE_INPUTS], inputs = subject_inputs(s, noise, x, count);
    *o = (struct outcome){0};
    assert_ok(fst_state_init(&state, s->graph, err));
    fill_state(&state, s->graph, s->seed);
    move(state.params, state.param_count, noise, true, s->seed, "test.params");
    assert_ok(fst_plan_new(&plan, s->graph, po, err));
    for (int pass = 0; pass < 1 + !po->training; pass++) /* inference keeps its weights: the second uses them */
        assert_ok(fst_plan_forward_inputs(plan, &state, (const float *const *)x, &draws, &y, err));
    add_tensor(o, "the output", false, y, (size_t)s->batch * output_floats(s->graph));
    if (po->training)
        run_backward(s, plan, &state, noise, o);
    for (size_t i = 0; i < fst_graph_buffers(s->graph); i++) {
        fst_param_info p = fst_graph_buffer(s->graph, i);
        add_tensor(o, p.name, false, state.buffers + p.offset, p.count);
    }
    for (size_t i = 0; i < state.counter_count; i++)
        o->counters += state.counters[i];
    for (size_t i = 0; i < inputs; i++)
        free(x[i]);
    fst_plan_free(plan);
    fst_state_release(&state);
}

/* How far a tensor may be off, and how much the moved runs may change it, as parts of its norm. For `off` a gradient's
 * norm counts at least as `least` times the largest gradient's: some are the rest of what cancels whatever the inputs,
 * as that of a convolution between two batch norms. wild: what not even those may be off that are left out. */
struct bounds {
    double noise, off, jump, least, wild;
    int moved; /* runs that are moved */
};

struct measure { /* what the reference says */
    struct outcome want;
    double jump[MAX_TENSORS], largest; /* how far the moved runs got; the largest gradient's norm */
};

static inline double norm_of(const struct outcome *o, size_t i)
{
    return distance(o->data + o->at[i], NULL, o->at[i + 1] - o->at[i]);
}

static inline double between(const struct outcome *a, const struct outcome *b, size_t i)
{
    return distance(a->data + a->at[i], b->data + b->at[i], a->at[i + 1] - a->at[i]);
}

static inline void open_measure(struct measure *m, const struct subject *s, fst_plan_options po, const struct bounds *b)
{
    *m = (struct measure){0};
    po.backend = "reference";
    po.precision = FST_PRECISION_F32;
    run_subject(s, &po, (struct noise){0}, &m->want);
    for (size_t i = 0; i < m->want.tensors; i++)
        m->largest = m->want.gradient[i] ? fmax(m->largest, norm_of(&m->want, i)) : m->largest;
    for (int k = 0; k < b->moved; k++) {
        struct outcome moved;
        run_subject(s, &po, (struct noise){b->noise, (uint64_t)k}, &moved);
        for (size_t i = 0; i < m->want.tensors; i++)
            m->jump[i] = fmax(m->jump[i], between(&moved, &m->want, i));
        free(moved.data);
    }
}

/* Does some moved run of the reference come within `bound` of what a backend gave for tensor i? */
static inline bool is_reached(const struct subject *s, fst_plan_options po, const struct bounds *b,
                              const struct outcome *got, size_t i, double bound)
{
    bool reached = false;
    po.backend = "reference";
    po.precision = FST_PRECISION_F32;
    for (int k = 0; k < REACH && !reached; k++) {
        struct outcome moved;
        run_subject(s, &po, (struct noise){b->noise, (uint64_t)(b->moved + k)}, &moved);
        reached = between(&moved, got, i) <= bound;
        free(moved.data);
    }
    return reached;
}

/* Runs the subject as po says and compares. */
static inline void check_against(const struct measure *m, const struct subject *s, const fst_plan_options *po,
                                 const struct bounds *b, const char *what, struct tally *t)
{
    struct outcome got;
    run_subject(s, po, (struct noise){0}, &got);
    assert_int_equal(m->want.tensors, got.tensors);
    assert_int_equal(m->want.counters, got.counters);
    for (size_t i = 0; i < got.tensors; i++) {
        double norm = norm_of(&m->want, i), off = between(&got, &m->want, i);
        bool compared = m->jump[i] <= b->jump * norm;
        norm = got.gradient[i] ? fmax(norm, b->least * m->largest) : norm;
        double bound = compared ? b->off * norm : b->wild * fmax(norm, m->largest);
        bool reached = compared && !(off <= bound) && is_reached(s, *po, b, &got, i, bound);
        t->compared += compared && !reached;
        t->left_out += !compared || reached;
        if (!(off <= bound) && !reached)
            fail_msg("FEDSTILL_TEST_SEED=%llu: %s: %s differs by %.3g of %.3g (moved: %.3g)\n%s",
                     (unsigned long long)s->seed, what, got.name[i], off, norm, m->jump[i], s->text);
    }
    free(got.data);
}

/* Runs the subject on every backend; po says how but for backend, batch and threads. */
static inline void check_subject(const struct subject *s, fst_plan_options po, const char *mode, struct tally *t)
{
    static const struct bounds bounds = {
        .noise = 3e-6, .off = 2e-4, .jump = 1e-4, .least = 1e-2, .wild = 0.1, .moved = 1};
    struct measure m;
    char what[96];
    po.batch = s->batch;
    open_measure(&m, s, po, &bounds);
    for (const char *const *b = fst_backend_names(); *b; b++) {
        if (b != fst_backend_names() && !strcmp(*b, "reference"))
            continue;
        po.backend = *b;
        po.threads = s->seed % 10 == 3 ? 2 : 1;
        snprintf(what, sizeof what, "%s, %s", *b, mode);
        check_against(&m, s, &po, &bounds, what, t);
    }
    free(m.want.data);
}

#endif

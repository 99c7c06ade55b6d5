/*
 * Learning for int8: in training a network passes through numbers as int8 will have them, and its gradients pass
 * through the rounding as if it were not there (the straight-through estimator: Bengio, Leonard, Courville, arXiv
 * 1308.3432; Jacob et al. 2018). Values are rounded by nodes of their own, weights by the trainer, before a step. The
 * state is that of the f32 network.
 */
#include <math.h>
#include <string.h>

#include "ops.h"

struct maker {
    fst_graph *to;
    const fst_graph *from;
    fst_value *here, *rounded; /* by value of `from`; -1: not there (yet) */
};

static fst_value round_value(struct maker *m, int v)
{
    struct fst_node a = {.u.quantise = {.is_unsigned = fst_graph_is_positive(m->from, v)}};
    if (m->rounded[v] < 0)
        m->rounded[v] = fst__graph_made(m->to, fst__graph_add(m->to, FST_OP_ROUND_INT8, m->here[v], &a, ""), true);
    return m->rounded[v];
}

static void make_value(struct maker *m, int i)
{
    const struct fst_node *n = &m->from->nodes[i];
    if (!fst_graph_int8_takes(m->from, i, NULL)) {
        m->here[i] = fst__graph_same_node(m->to, m->from, n, m->here);
        return;
    }
    fst_value exact = m->here[n->input];
    m->here[n->input] = round_value(m, n->input);
    m->here[i] = fst__graph_same_node(m->to, m->from, n, m->here);
    m->here[n->input] = exact;
    if (m->here[i] >= 0)
        m->to->nodes[m->here[i]].rounds = true;
}

static fst_status check(const fst_graph *g, fst_error *err)
{
    bool any = false;
    if (!g->finished || g->taps || g->inputs != 1 || fst_graph_is_int8(g) || fst__graph_rounds(g))
        return fst_fail(err, FST_E_ARGUMENT,
                        "learning for int8 starts from a finished f32 graph of one input, without taps");
    for (int i = 0; i < g->count; i++)
        any = any || fst_graph_int8_takes(g, i, NULL);
    return any ? FST_OK : fst_fail(err, FST_E_UNSUPPORTED, "no layer of this network has a form in int8");
}

fst_status fst_graph_int8_learn(fst_graph **out, const fst_graph *g, fst_error *err)
{
    fst_graph *to = NULL;
    size_t n = (size_t)g->count;
    fst_status s = check(g, err);
    if (!s)
        s = fst_graph_new(&to, err);
    if (s)
        return s;
    struct maker m = {
        .to = to, .from = g, .here = fst_alloc(n * sizeof *m.here), .rounded = fst_alloc(n * sizeof *m.rounded)};
    if (!m.here || !m.rounded) {
        s = fst_fail_memory(err, n * sizeof *m.here);
    } else {
        for (int i = 0; i < g->count; i++)
            m.here[i] = m.rounded[i] = -1;
        for (int i = 0; i < g->count; i++)
            make_value(&m, i);
        s = fst_graph_finish(to, m.here[g->output], err);
    }
    fst_free(m.here);
    fst_free(m.rounded);
    if (s) {
        fst_graph_free(to);
        return s;
    }
    *out = to;
    return FST_OK;
}

bool fst__graph_rounds(const fst_graph *g)
{
    for (int i = 0; i < g->count; i++)
        if (g->nodes[i].rounds)
            return true;
    return false;
}

float fst__int8_weight_scale(double most)
{
    float scale = (float)(most / 127);
    return scale > 0 && isfinite(1 / scale) && isfinite(scale) ? scale : 1; /* 1: nothing but zeros, or next to it */
}

/* One output channel's weights, as fst_state_int8 has them without a norm: a norm's factor is the same for all. */
static void round_row(const float *from, float *to, size_t n)
{
    float most = 0;
    for (size_t i = 0; i < n; i++)
        most = fabsf(from[i]) > most ? fabsf(from[i]) : most;
    float scale = fst__int8_weight_scale((double)most);
    for (size_t i = 0; i < n; i++)
        to[i] = (float)nearbyint((double)from[i] / (double)scale) * scale;
}

void fst__graph_round_weights(const fst_graph *g, const float *params, float *rounded)
{
    memcpy(rounded, params, g->param_count * sizeof *rounded);
    for (int i = 0; i < g->count; i++) {
        const struct fst_node *n = &g->nodes[i];
        if (!n->rounds)
            continue;
        const struct fst_slot *w = &g->params[n->first_param];
        size_t depth = (size_t)fst__int8_depth(n);
        for (size_t at = w->offset; at < w->offset + w->count; at += depth)
            round_row(params + at, rounded + at, depth);
    }
}

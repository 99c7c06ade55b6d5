/*
 * MergeNet's adapter at work: it fuses, and it learns. The graph is fst_mergenet_graph's; here is what comes before it
 * (both matrices, or their second factors, cut into tokens) and after it (scale, gate, first factor), with the
 * gradients of that.
 *
 * Data flow: A -> code a (A itself, or tokens of its factor) -> plan -> x -> y = s x -> theta = A + gate L (y - a), L
 * being the first factor or nothing. Back: theta - after -> gate, L^T -> y -> x -> plan -> AdamW.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "fedstill/fusion.h"
#include "fedstill/models.h"
#include "low_rank.h"

enum { POWER_ITERATIONS = 16, MAX_ELEMENTS = 1 << 28 };

/* A matrix, and how the adapter sees it. */
struct side {
    size_t rows, columns, count; /* of the matrix */
    size_t code;                 /* numbers of the code; tokens x width has zeroes after them */
    size_t tokens, width;
};

struct fst_fusion {
    fst_fusion_spec spec;
    struct side target, source;
    fst_graph *graph;
    fst_state state;       /* params is `values` */
    float *values, *grads; /* of the graph's parameters, then of the gate */
    fst_optim optim;
    fst_plan *fuse, *learn; /* without dropout and power iterations, and with both */
    float *a, *b;           /* codes, tokens x width */
    float *left, *b_left;   /* rows x rank: first factors; the source's is not used */
    float *theta;           /* the target's count: what is learnt from */
    float *delta;           /* the same: theta - A for a gate of 1 */
    double *back;           /* code: the gradient by y */
    float *seen;            /* with a rank: the A whose factors a and left are */
    bool sourced, has_seen;
};

/* ---- sizes -------------------------------------------------------------------------------------------- */

static void matrix_of(const fst_param_info *p, int64_t m[2])
{
    m[0] = p->shape.dim[0];
    m[1] = m[0] ? (int64_t)p->count / m[0] : 0;
}

static const char *size_text(const fst_param_info *p, char out[64])
{
    int64_t m[2];
    matrix_of(p, m);
    snprintf(out, 64, "%lld x %lld", (long long)m[0], (long long)m[1]);
    return out;
}

static fst_status misfit(const fst_param_info *t, const fst_param_info *s, const char *why, fst_error *err)
{
    char a[64], b[64];
    return fst_fail(err, FST_E_CONFIG, "%s of the target (%s) and %s of the source (%s): %s", t->name, size_text(t, a),
                    s->name, size_text(s, b), why);
}

static fst_status check(const fst_fusion_spec *o, const fst_param_info *t, const fst_param_info *s, fst_error *err)
{
    char why[160];
    int64_t a[2], b[2], most;
    matrix_of(t, a);
    matrix_of(s, b);
    most = a[0] < a[1] ? a[0] : a[1];
    most = b[0] < most ? b[0] : most;
    most = b[1] < most ? b[1] : most;
    if (o->rank < 0 || o->d_attention < 1 || o->heads < 1 || o->layers < 1 || o->layers > FST_MERGENET_LAYERS)
        return fst_fail(err, FST_E_CONFIG,
                        "a fusion has 1 to %d layers, a head and a d_attention of 1 at least, and no "
                        "rank below 0",
                        FST_MERGENET_LAYERS);
    if (!(o->attention_dropout >= 0 && o->attention_dropout < 1) || !(o->merge_dropout >= 0 && o->merge_dropout < 1))
        return fst_fail(err, FST_E_CONFIG, "a dropout is at least 0 and below 1");
    if (a[0] < 1 || b[0] < 1 || t->count > MAX_ELEMENTS || s->count > MAX_ELEMENTS)
        return misfit(t, s, "too large, or empty", err);
    if (o->rank > most) {
        snprintf(why, sizeof why, "rank %lld is more than their smallest dimension, %lld", (long long)o->rank,
                 (long long)most);
        return misfit(t, s, why, err);
    }
    if (2 * o->d_attention < o->heads) {
        snprintf(why, sizeof why, "%d heads need a d_attention of at least %d", o->heads, (o->heads + 1) / 2);
        return misfit(t, s, why, err);
    }
    return FST_OK;
}

static struct side side_of(const fst_fusion_spec *o, const fst_param_info *p)
{
    int64_t m[2];
    matrix_of(p, m);
    struct side s = {(size_t)m[0], (size_t)m[1], p->count, p->count, (size_t)m[0], (size_t)m[1]};
    if (o->rank) {
        s.code = (size_t)o->rank * s.columns;
        s.width = (size_t)o->d_attention;
        s.tokens = (s.code + s.width - 1) / s.width;
    }
    return s;
}

static fst_status make_graph(const fst_fusion_spec *o, const struct side *t, const struct side *s, fst_graph **out,
                             fst_error *err)
{
    fst_mergenet c = FST_MERGENET_DEFAULTS;
    c.target[0] = (int64_t)t->tokens;
    c.target[1] = (int64_t)t->width;
    c.source[0] = (int64_t)s->tokens;
    c.source[1] = (int64_t)s->width;
    c.layers = o->layers;
    c.heads = o->heads;
    c.min_width = 2 * o->d_attention;
    c.attention_dropout = o->attention_dropout;
    c.merge_dropout = o->merge_dropout;
    return fst_mergenet_graph(out, &c, err);
}

static fst_plan_options plan_options(const fst_fusion_spec *o, bool learns)
{
    return (fst_plan_options){.batch = 1, .training = learns, .threads = 1, .backend = o->backend};
}

/* Floats that are not in plans. */
static size_t float_count(const fst_fusion_spec *o, const struct side *t, const struct side *s, const fst_graph *g)
{
    size_t values = fst_graph_param_count(g) + 1, codes = t->tokens * t->width + s->tokens * s->width;
    return 4 * values + fst_graph_buffer_count(g) + codes + (size_t)o->rank * (t->rows + s->rows) + 3 * t->count;
}

fst_status fst_fusion_measure(const fst_fusion_spec *spec, const fst_param_info *target, const fst_param_info *source,
                              fst_fusion_size *out, fst_error *err)
{
    struct side t = side_of(spec, target), s = side_of(spec, source);
    fst_graph *g = NULL;
    fst_status st = check(spec, target, source, err);
    if (!st)
        st = make_graph(spec, &t, &s, &g, err);
    fst_fusion_size size = {0};
    for (int learns = 0; !st && learns < 2; learns++) {
        fst_plan_options o = plan_options(spec, learns);
        fst_plan *p = NULL;
        o.measure = true;
        st = fst_plan_new(&p, g, &o, err);
        size.bytes += st ? 0 : fst_plan_arena_bytes(p);
        fst_plan_free(p);
    }
    if (!st) {
        size.parameters = fst_graph_param_count(g);
        size.bytes += float_count(spec, &t, &s, g) * sizeof(float) + t.code * sizeof(double);
        if (spec->rank)
            size.bytes += fst__low_rank_bytes(t.rows, t.columns, (size_t)spec->rank) +
                          fst__low_rank_bytes(s.rows, s.columns, (size_t)spec->rank);
        *out = size;
    }
    fst_graph_free(g);
    return st;
}

/* The names that are most like one: those with its last part, else the first few. */
static void names_like(const fst_graph *g, const char *name, char *out, size_t size)
{
    size_t at = 0, told = 0;
    const char *dot = strrchr(name, '.');
    *out = 0;
    for (int pass = 0; pass < 2 && !told; pass++)
        for (size_t i = fst_graph_params(g); i-- && told < 6;) {
            fst_param_info p = fst_graph_param(g, i);
            if (p.shape.rank < 2 || (!pass && strncmp(p.name, name, dot ? (size_t)(dot - name) : strlen(name))))
                continue;
            at += (size_t)snprintf(out + at, size - at, "%s%s", told++ ? ", " : "", p.name);
            at = at < size ? at : size - 1;
        }
}

fst_status fst_fusion_find(const fst_graph *g, const char *name, fst_param_info *out, fst_error *err)
{
    char names[300], shape[64];
    for (size_t i = 0; i < fst_graph_params(g); i++) {
        fst_param_info p = fst_graph_param(g, i);
        if (strcmp(p.name, name))
            continue;
        if (p.shape.rank < 2)
            return fst_fail(err, FST_E_CONFIG, "%s has the shape %s; a matrix or a convolution's kernel is wanted",
                            name, fst_shape_text(&p.shape, shape, sizeof shape));
        *out = p;
        return FST_OK;
    }
    names_like(g, name, names, sizeof names);
    return fst_fail(err, FST_E_CONFIG, "the network has no parameters \"%.80s\"; it has %s", name, names);
}

/* ---- making one ------------------------------------------------------------------------------------------ */

static fst_status make_arrays(struct fst_fusion *f, fst_error *err)
{
    size_t params = fst_graph_param_count(f->graph), rank = (size_t)f->spec.rank;
    f->values = fst_calloc(params + 1, sizeof *f->values);
    f->grads = fst_calloc(params + 1, sizeof *f->grads);
    f->a = fst_calloc(f->target.tokens * f->target.width, sizeof *f->a);
    f->b = fst_calloc(f->source.tokens * f->source.width, sizeof *f->b);
    f->left = fst_calloc(rank * f->target.rows + 1, sizeof *f->left);
    f->b_left = fst_calloc(rank * f->source.rows + 1, sizeof *f->b_left);
    f->theta = fst_calloc(f->target.count, sizeof *f->theta);
    f->delta = fst_calloc(f->target.count, sizeof *f->delta);
    f->back = fst_calloc(f->target.code, sizeof *f->back);
    f->seen = fst_calloc(rank ? f->target.count : 1, sizeof *f->seen);
    if (f->seen && f->values && f->grads && f->a && f->b && f->left && f->b_left && f->theta && f->delta && f->back)
        return FST_OK;
    return fst_fail_memory(err, (2 * params + f->target.count) * sizeof *f->values);
}

static void iterate(const float *w, size_t rows, size_t columns, float *u, float *v, double *room)
{
    for (int half = 0; half < 2; half++) {
        size_t n = half ? rows : columns;
        double length = 0;
        memset(room, 0, n * sizeof *room);
        for (size_t i = 0; i < rows; i++)
            for (size_t j = 0; j < columns; j++)
                room[half ? i : j] += (double)w[i * columns + j] * (double)(half ? v[j] : u[i]);
        for (size_t i = 0; i < n; i++)
            length += room[i] * room[i];
        for (size_t i = 0; i < n; i++)
            (half ? u : v)[i] = (float)(room[i] / (length > 0 ? sqrt(length) : 1));
    }
}

/* The spectral norms' vectors are drawn; sigma means something after a few iterations only. */
static fst_status settle_norms(struct fst_fusion *f, fst_error *err)
{
    const char ending[] = ".weight_orig";
    size_t n = sizeof ending - 1;
    fst_status st = FST_OK;
    for (size_t i = 0; !st && i < fst_graph_params(f->graph); i++) {
        fst_param_info w = fst_graph_param(f->graph, i);
        size_t at = strlen(w.name);
        float *uv[2] = {NULL, NULL};
        if (at < n || strcmp(w.name + at - n, ending))
            continue;
        at -= n;
        for (size_t k = 0; k < fst_graph_buffers(f->graph); k++) {
            fst_param_info b = fst_graph_buffer(f->graph, k);
            if (strncmp(b.name, w.name, at) == 0 && strncmp(b.name + at, ".weight_", 8) == 0)
                uv[b.name[at + 8] == 'v'] = f->state.buffers + b.offset;
        }
        size_t rows = (size_t)w.shape.dim[0], columns = (size_t)w.shape.dim[1];
        double *room = fst_calloc(rows + columns, sizeof *room);
        if (!room)
            return fst_fail_memory(err, (rows + columns) * sizeof *room);
        for (int k = 0; uv[0] && uv[1] && k < POWER_ITERATIONS; k++)
            iterate(f->values + w.offset, rows, columns, uv[0], uv[1], room);
        fst_free(room);
    }
    return st;
}

static fst_status make_state(struct fst_fusion *f, fst_error *err)
{
    fst_rng r;
    fst_state drawn;
    size_t params = fst_graph_param_count(f->graph);
    fst_status st = fst_state_init(&drawn, f->graph, err);
    if (st)
        return st;
    fst_rng_init(&r, f->spec.seed, "fusion.adapter", 0);
    fst_state_randomise(&drawn, f->graph, fst_rng_u64(&r));
    memcpy(f->values, drawn.params, params * sizeof *f->values);
    f->values[params] = (float)f->spec.gate;
    fst_free(drawn.params); /* passes see a copy whose params are `values` */
    drawn.params = NULL;
    f->state = drawn;
    const fst_optim_spec adamw = {.kind = FST_OPTIM_ADAMW, .clip_norm = f->spec.clip_norm};
    st = fst_optim_init(&f->optim, &adamw, params + 1, err);
    return st ? st : settle_norms(f, err);
}

fst_status fst_fusion_new(fst_fusion **out, const fst_fusion_spec *spec, const fst_param_info *target,
                          const fst_param_info *source, fst_error *err)
{
    fst_status st = check(spec, target, source, err);
    fst_fusion *f = st ? NULL : fst_calloc(1, sizeof *f);
    if (st || !f)
        return st ? st : fst_fail_memory(err, sizeof *f);
    f->spec = *spec;
    f->target = side_of(spec, target);
    f->source = side_of(spec, source);
    st = make_graph(spec, &f->target, &f->source, &f->graph, err);
    if (!st)
        st = make_arrays(f, err);
    if (!st)
        st = make_state(f, err);
    fst_plan_options fuse = plan_options(spec, false), learn = plan_options(spec, true);
    if (!st)
        st = fst_plan_new(&f->fuse, f->graph, &fuse, err);
    if (!st && spec->learns == FST_FUSION_ADAPTER)
        st = fst_plan_new(&f->learn, f->graph, &learn, err);
    if (st)
        fst_fusion_free(f);
    else
        *out = f;
    return st;
}

void fst_fusion_free(fst_fusion *f)
{
    if (!f)
        return;
    fst_plan_free(f->fuse);
    fst_plan_free(f->learn);
    fst_optim_release(&f->optim);
    fst_state_release(&f->state);
    fst_graph_free(f->graph);
    fst_free(f->values);
    fst_free(f->grads);
    fst_free(f->a);
    fst_free(f->b);
    fst_free(f->left);
    fst_free(f->b_left);
    fst_free(f->theta);
    fst_free(f->delta);
    fst_free(f->back);
    fst_free(f->seen);
    fst_free(f);
}

/* ---- there and back ----------------------------------------------------------------------------------------- */

static float *gate_of(const struct fst_fusion *f)
{
    return f->values + fst_graph_param_count(f->graph);
}

static fst_status encode(const struct fst_fusion *f, const struct side *s, const float *m, float *code, float *left,
                         fst_error *err)
{
    for (size_t i = 0; i < s->count; i++)
        if (!isfinite(m[i]))
            return fst_fail(err, FST_E_NUMERIC, "parameter %zu that is to be fused is not a finite number", i);
    if (f->spec.rank)
        return fst__low_rank(m, s->rows, s->columns, (size_t)f->spec.rank, left, code, err);
    memcpy(code, m, s->count * sizeof *code);
    return FST_OK;
}

/* Many steps are of one A. */
static fst_status encode_target(struct fst_fusion *f, const float *a, fst_error *err)
{
    size_t bytes = f->target.count * sizeof *a;
    if (f->has_seen && !memcmp(a, f->seen, bytes))
        return FST_OK;
    f->has_seen = false;
    fst_status st = encode(f, &f->target, a, f->a, f->left, err);
    if (!st && f->spec.rank) {
        memcpy(f->seen, a, bytes);
        f->has_seen = true;
    }
    return st;
}

struct spread {
    double mean, deviation;
};

static struct spread spread_of(const float *x, size_t n)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    sum /= (double)n;
    for (size_t i = 0; i < n; i++)
        squares += ((double)x[i] - sum) * ((double)x[i] - sum);
    return (struct spread){sum, sqrt(squares / (double)n)};
}

/* delta = L (s x - a), L the first factor or nothing; *scale = s. */
static void decode(struct fst_fusion *f, const float *x, double *scale, struct spread *of_x)
{
    const struct side *t = &f->target;
    size_t rank = (size_t)f->spec.rank;
    *of_x = spread_of(x, t->code);
    *scale = of_x->deviation > 0 ? spread_of(f->a, t->code).deviation / of_x->deviation : 0;
    for (size_t i = 0; !rank && i < t->count; i++)
        f->delta[i] = (float)(*scale * (double)x[i] - (double)f->a[i]);
    for (size_t i = 0; rank && i < t->rows; i++)
        for (size_t j = 0; j < t->columns; j++) {
            double sum = 0;
            for (size_t c = 0; c < rank; c++) {
                size_t at = c * t->columns + j;
                sum += (double)f->left[i * rank + c] * (*scale * (double)x[at] - (double)f->a[at]);
            }
            f->delta[i * t->columns + j] = (float)sum;
        }
}

static void apply_gate(const struct fst_fusion *f, const float *a, float *theta)
{
    float gate = *gate_of(f);
    for (size_t i = 0; i < f->target.count; i++)
        theta[i] = a[i] + gate * f->delta[i];
}

static fst_status pass(struct fst_fusion *f, fst_plan *plan, const float **x, fst_error *err)
{
    const float *const in[] = {f->a, f->b};
    const fst_draws draws = {.seed = f->spec.seed, .step = f->optim.steps};
    fst_state s = f->state;
    s.params = f->values;
    return fst_plan_forward_inputs(plan, &s, in, &draws, x, err);
}

fst_status fst_fusion_source(fst_fusion *f, const float *b, fst_error *err)
{
    fst_status st = encode(f, &f->source, b, f->b, f->b_left, err);
    f->sourced = !st;
    return st;
}

fst_status fst_fusion_fuse(fst_fusion *f, const float *a, float *theta, fst_error *err)
{
    const float *x;
    struct spread of_x;
    double scale;
    if (!f->sourced)
        return fst_fail(err, FST_E_ARGUMENT, "a fusion has no source yet");
    fst_status st = encode_target(f, a, err);
    fst_plan_renew(f->fuse);
    if (!st)
        st = pass(f, f->fuse, &x, err);
    if (st)
        return st;
    decode(f, x, &scale, &of_x);
    apply_gate(f, a, f->theta);
    for (size_t i = 0; i < f->target.count; i++)
        if (!isfinite(f->theta[i]))
            return fst_fail(err, FST_E_NUMERIC, "the adapter has diverged: what it makes of parameter %zu is %g", i,
                            (double)f->theta[i]);
    memcpy(theta, f->theta, f->target.count * sizeof *theta);
    return FST_OK;
}

/* ---- learning ------------------------------------------------------------------------------------------------ */

/* back = gate L^T r */
static void through_factor(struct fst_fusion *f, const float *r)
{
    const struct side *t = &f->target;
    size_t rank = (size_t)f->spec.rank;
    double gate = (double)*gate_of(f);
    for (size_t i = 0; !rank && i < t->count; i++)
        f->back[i] = gate * (double)r[i];
    memset(f->back, 0, rank ? t->code * sizeof *f->back : 0);
    for (size_t i = 0; rank && i < t->rows; i++)
        for (size_t c = 0; c < rank; c++) {
            double by = gate * (double)f->left[i * rank + c];
            for (size_t j = 0; j < t->columns; j++)
                f->back[c * t->columns + j] += by * (double)r[i * t->columns + j];
        }
}

/* The gradient by x, of y = deviation(a) x/deviation(x). */
static void through_scale(struct fst_fusion *f, const float *x, double scale, struct spread of_x, float *grad)
{
    size_t n = f->target.code;
    double along = 0, variance = of_x.deviation * of_x.deviation;
    for (size_t i = 0; i < n; i++)
        along += f->back[i] * (double)x[i];
    along = variance > 0 ? along / ((double)n * variance) : 0;
    for (size_t i = 0; i < n; i++)
        grad[i] = (float)(scale * (f->back[i] - along * ((double)x[i] - of_x.mean)));
    memset(grad + n, 0, (f->target.tokens * f->target.width - n) * sizeof *grad);
}

static bool decays(const fst_param_info *p)
{
    const char *dot = strrchr(p->name, '.');
    return p->shape.rank > 1 && !(dot && !strcmp(dot, ".bias"));
}

/* AdamW with weight decay for matrices only. */
static void step(struct fst_fusion *f, double rate, fst_fusion_step *out)
{
    float *const grads[] = {f->grads};
    const fst_optim_input in = {.grads = grads, .parts = 1, .learning_rate = rate, .want_norm = true};
    float keep = 1 - (float)rate * (float)f->spec.weight_decay;
    for (size_t i = 0; f->spec.learns == FST_FUSION_ADAPTER && i < fst_graph_params(f->graph); i++) {
        fst_param_info p = fst_graph_param(f->graph, i);
        for (size_t k = 0; decays(&p) && k < p.count; k++)
            f->values[p.offset + k] *= keep;
    }
    out->grad_norm = fst_optim_step(&f->optim, f->values, &in, NULL);
}

/* theta becomes theta - after; the gate's gradient follows the adapter's. */
static double compare(struct fst_fusion *f, const float *after)
{
    size_t params = fst_graph_param_count(f->graph);
    double loss = 0, gate = 0;
    for (size_t i = 0; i < f->target.count; i++) {
        double r = (double)f->theta[i] - (double)after[i];
        loss += r * r / 2;
        gate += r * (double)f->delta[i];
        f->theta[i] = (float)r;
    }
    f->grads[params] = (float)gate;
    return loss;
}

static fst_status gradients(struct fst_fusion *f, const float *a, const float *after, double *loss, fst_error *err)
{
    bool all = f->spec.learns == FST_FUSION_ADAPTER;
    size_t params = fst_graph_param_count(f->graph);
    const float *x;
    struct spread of_x;
    double scale;
    fst_status st = encode_target(f, a, err);
    fst_plan_renew(f->fuse);
    if (!st)
        st = pass(f, all ? f->learn : f->fuse, &x, err);
    if (st)
        return st;
    decode(f, x, &scale, &of_x);
    apply_gate(f, a, f->theta);
    *loss = compare(f, after);
    if (all) {
        fst_state s = f->state;
        s.params = f->values;
        through_factor(f, f->theta);
        through_scale(f, x, scale, of_x, fst_plan_output_grad(f->learn));
        st = fst_plan_backward(f->learn, &s, f->grads, err);
    }
    for (size_t i = 0; !st && i <= params; i++)
        if (!isfinite(f->grads[i]))
            st = fst_fail(err, FST_E_NUMERIC, "the adapter diverges: a smaller learning rate is needed");
    return st;
}

fst_status fst_fusion_learn(fst_fusion *f, const float *a, const float *after, double rate, fst_fusion_step *out,
                            fst_error *err)
{
    fst_fusion_step done = {0};
    if (!f->sourced)
        return fst_fail(err, FST_E_ARGUMENT, "a fusion has no source yet");
    if (f->spec.learns != FST_FUSION_NOTHING) {
        size_t n = f->state.buffer_count;
        float *before = fst_calloc(n + 1, sizeof *before);
        if (!before)
            return fst_fail_memory(err, n * sizeof *before);
        memcpy(before, f->state.buffers, n * sizeof *before);
        fst_status st = gradients(f, a, after, &done.loss, err);
        if (st)
            memcpy(f->state.buffers, before, n * sizeof *before);
        fst_free(before);
        if (st)
            return st;
        step(f, rate, &done);
    }
    if (out)
        *out = done;
    return FST_OK;
}

double fst_fusion_gate(const fst_fusion *f)
{
    return (double)*gate_of(f);
}

uint64_t fst_fusion_steps(const fst_fusion *f)
{
    return f->optim.steps;
}

const fst_graph *fst_fusion_graph(const fst_fusion *f)
{
    return f->graph;
}

float *fst_fusion_values(fst_fusion *f, size_t *count)
{
    *count = f->optim.count;
    return f->values;
}

/* ---- what lasts: the number of steps, then these ---------------------------------------------------------------- */

enum { PARTS = FST_FUSION_PARTS };
struct part {
    float *at;
    size_t count;
};

static void parts_of(const struct fst_fusion *f, struct part p[PARTS])
{
    p[0] = (struct part){f->values, f->optim.count};
    p[1] = (struct part){f->optim.moment1, f->optim.count};
    p[2] = (struct part){f->optim.moment2, f->optim.count};
    p[3] = (struct part){f->state.buffers, f->state.buffer_count};
}

size_t fst_fusion_parts(fst_fusion *f, fst_tensor t[FST_FUSION_PARTS])
{
    static const char *const names[PARTS] = {"fusion.values", "fusion.moment1", "fusion.moment2", "fusion.buffers"};
    struct part p[PARTS];
    parts_of(f, p);
    for (int i = 0; i < PARTS; i++)
        t[i] = (fst_tensor){names[i], FST_F32, FST_SHAPE((int64_t)p[i].count), p[i].at};
    return PARTS;
}

void fst_fusion_resumed(fst_fusion *f, uint64_t steps)
{
    f->optim.steps = f->spec.learns == FST_FUSION_NOTHING ? 0 : steps;
}

enum { AFTER = 64 }; /* room for what a caller puts behind, which then moves no adapter */

/* How many, and the parts that they are of. */
static size_t saved_bytes(const fst_fusion *f, struct part p[PARTS])
{
    size_t bytes = sizeof f->optim.steps;
    parts_of(f, p);
    for (int i = 0; i < PARTS; i++)
        bytes += p[i].count * sizeof(float);
    return bytes;
}

fst_status fst_fusion_save(const fst_fusion *f, fst_buf *out, fst_error *err)
{
    struct part p[PARTS];
    size_t before = out->len, bytes = saved_bytes(f, p);
    fst_status st = fst_buf_reserve(out, bytes + AFTER, err);
    if (!st)
        st = fst_buf_append(out, &f->optim.steps, sizeof f->optim.steps, err);
    for (int i = 0; !st && i < PARTS; i++)
        st = fst_buf_append(out, p[i].at, p[i].count * sizeof(float), err);
    if (st)
        out->len = before;
    return st;
}

fst_status fst_fusion_load(fst_fusion *f, const void *data, size_t len, fst_error *err)
{
    struct part p[PARTS];
    const unsigned char *at = data;
    size_t want = saved_bytes(f, p);
    if (len != want)
        return fst_fail(err, FST_E_FORMAT, "the saved adapter has %zu bytes, %zu are needed", len, want);
    for (size_t i = sizeof f->optim.steps; i < len; i += sizeof(float)) {
        float v;
        memcpy(&v, at + i, sizeof v);
        if (!isfinite(v))
            return fst_fail(err, FST_E_FORMAT, "the saved adapter holds a number that is not finite");
    }
    memcpy(&f->optim.steps, at, sizeof f->optim.steps);
    at += sizeof f->optim.steps;
    for (int i = 0; i < PARTS; at += p[i].count * sizeof(float), i++)
        memcpy(p[i].at, at, p[i].count * sizeof(float));
    return FST_OK;
}

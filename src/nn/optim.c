/*
 * Optimisers: one pass over the contiguous span that sums the gradient's parts, adds the proximal
 * term, clips, and updates. The span is cut into blocks of a fixed size, so neither values nor the
 * norm's summation depend on the number of threads. A layer whose gradient is kept as its factors is cut in tiles.
 */
#include <math.h>
#include <string.h>

#include "factors.h"

enum { BLOCK = 8192, TILE_ROWS = 32, TILE_COLUMNS = BLOCK / TILE_ROWS };

fst_status fst_optim_init(fst_optim *o, const fst_optim_spec *spec, size_t count, fst_error *err)
{
    fst_optim n = {.spec = *spec, .count = count};
    bool adaptive = spec->kind != FST_OPTIM_SGD;
    if (!(spec->learning_rate >= 0) || !(spec->momentum >= 0) || !(spec->weight_decay >= 0) || !(spec->clip_norm >= 0))
        return fst_fail(err, FST_E_ARGUMENT, "an optimiser's numbers must not be negative");
    if (!(spec->beta1 >= 0 && spec->beta1 < 1) || !(spec->beta2 >= 0 && spec->beta2 < 1) || !(spec->eps >= 0))
        return fst_fail(err, FST_E_ARGUMENT, "beta1 and beta2 must be in [0, 1), eps not below 0");
    if (n.spec.beta1 == 0)
        n.spec.beta1 = 0.9;
    if (n.spec.beta2 == 0)
        n.spec.beta2 = 0.999;
    if (n.spec.eps == 0)
        n.spec.eps = 1e-8;
    if (adaptive || spec->momentum > 0)
        n.moment1 = fst_calloc(count + 1, sizeof(float));
    if (adaptive)
        n.moment2 = fst_calloc(count + 1, sizeof(float));
    if (((adaptive || spec->momentum > 0) && !n.moment1) || (adaptive && !n.moment2)) {
        fst_optim_release(&n);
        return fst_fail_memory(err, count * sizeof(float));
    }
    *o = n;
    return FST_OK;
}

void fst_optim_reset(fst_optim *o)
{
    o->steps = 0;
    if (o->moment1)
        memset(o->moment1, 0, o->count * sizeof(float));
    if (o->moment2)
        memset(o->moment2, 0, o->count * sizeof(float));
}

void fst_optim_release(fst_optim *o)
{
    if (!o)
        return;
    fst_free(o->moment1);
    fst_free(o->moment2);
    *o = (fst_optim){0};
}

/* The numbers of one step, ready for the loops. */
struct step {
    fst_optim *o;
    float *params;
    const fst_optim_input *in;
    float lr, decay, momentum, prox, scale;      /* scale: of clipping */
    float beta1, beta2, eps, correct1, correct2; /* correct: 1/(1 - beta^t), the second under its root */
    bool summed;                                 /* the parts already stand summed in part 0 */
    double *squares;                             /* of units from first_unit on, when the norm is wanted */
    size_t first_unit;
    const struct fst_factored *factored;
};

FST_HOT static void sum_parts(float *restrict g, float *const *parts, size_t n, size_t at, size_t count)
{
    memcpy(g, parts[0] + at, count * sizeof *g);
    for (size_t p = 1; p < n; p++) {
        const float *restrict x = parts[p] + at;
        for (size_t i = 0; i < count; i++)
            g[i] += x[i];
    }
}

FST_HOT static void add_prox(float *restrict g, const float *restrict w, const float *restrict anchor, float mu,
                             size_t count)
{
    for (size_t i = 0; i < count; i++)
        g[i] += mu * (w[i] - anchor[i]);
}

FST_HOT static void add_shift(float *restrict g, const float *restrict shift, size_t count)
{
    for (size_t i = 0; i < count; i++)
        g[i] += shift[i];
}

FST_HOT static void sgd(float *restrict w, float *restrict m, const float *restrict g, const struct step *s, bool first,
                        bool nesterov, size_t count)
{
    float lr = s->lr, decay = s->decay, momentum = s->momentum, scale = s->scale;
    if (!m) {
        for (size_t i = 0; i < count; i++)
            w[i] -= lr * (g[i] * scale + decay * w[i]);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        float d = g[i] * scale + decay * w[i];
        m[i] = first ? d : momentum * m[i] + d;
        w[i] -= lr * (nesterov ? d + momentum * m[i] : m[i]);
    }
}

FST_HOT static void adam(float *restrict w, float *restrict m, float *restrict v, const float *restrict g,
                         const struct step *s, float l2, float shrink, size_t count)
{
    float lr = s->lr * s->correct1, b1 = s->beta1, b2 = s->beta2, eps = s->eps, c2 = s->correct2, scale = s->scale;
    float a1 = 1 - b1, a2 = 1 - b2;
    for (size_t i = 0; i < count; i++) {
        float x = w[i] * shrink, d = g[i] * scale + l2 * x;
        m[i] = b1 * m[i] + a1 * d;
        v[i] = b2 * v[i] + a2 * d * d;
        w[i] = x - lr * m[i] / (sqrtf(v[i]) * c2 + eps);
    }
}

/* ---- units of work -------------------------------------------------------------------------------- */

/* A block of the span, or, of a layer whose gradient is kept as its factors, a tile: so many rows of a matrix. */
struct unit {
    size_t at, rows, columns, stride;
    const struct fst_factors *factors; /* NULL: a block, of one row */
    struct fst_factors_tile tile;
};

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t parts_of(size_t count, size_t size)
{
    return (count + size - 1) / size;
}

static size_t tiles_of(const struct fst_factors *f)
{
    return parts_of(f->out, TILE_ROWS) * parts_of(f->in, TILE_COLUMNS);
}

static struct unit tile_of(const struct step *s, const struct fst_factors *f, size_t tile)
{
    size_t down = parts_of(f->out, TILE_ROWS); /* the same columns of the inputs one after another */
    size_t row = tile % down * TILE_ROWS, column = tile / down * TILE_COLUMNS;
    struct unit u = {.at = f->from + row * f->in + column,
                     .rows = least(f->out - row, TILE_ROWS),
                     .columns = least(f->in - column, TILE_COLUMNS),
                     .stride = f->in,
                     .factors = f};
    u.tile = (struct fst_factors_tile){row, u.rows, column, u.columns, 0, s->factored->rows};
    return u;
}

/* Unit i; past the last, nothing, and *units is how many there are. */
static struct unit find_unit(const struct step *s, size_t i, size_t *units)
{
    size_t from = 0, before = 0;
    for (size_t k = 0; k <= s->factored->count; k++) {
        const struct fst_factors *f = k < s->factored->count ? &s->factored->layers[k] : NULL;
        size_t to = f ? f->from : s->o->count, blocks = parts_of(to - from, BLOCK);
        if (i < before + blocks) {
            size_t at = from + (i - before) * BLOCK;
            return (struct unit){.at = at, .rows = 1, .columns = least(to - at, BLOCK)};
        }
        before += blocks;
        if (f && i < before + tiles_of(f))
            return tile_of(s, f, i - before);
        before += f ? tiles_of(f) : 0;
        from = f ? f->from + f->out * f->in : to;
    }
    *units = before;
    return (struct unit){0};
}

/* The unit's gradient, row by row without gaps. */
static void gather(const struct step *s, float *g, const struct unit *u)
{
    bool ready = s->summed && !u->factors;
    if (u->factors)
        fst__factors_tile(u->factors, s->factored->grads, &u->tile, g);
    else
        sum_parts(g, s->in->grads, s->summed ? 1 : s->in->parts, u->at, u->columns);
    for (size_t r = 0; r < u->rows && !ready; r++) {
        size_t at = u->at + r * u->stride;
        if (s->in->prox_mu > 0)
            add_prox(g + r * u->columns, s->params + at, s->in->anchor + at, s->prox, u->columns);
        if (s->in->shift)
            add_shift(g + r * u->columns, s->in->shift + at, u->columns);
    }
}

static void update_row(const struct step *s, const float *g, size_t at, size_t count)
{
    const fst_optim *o = s->o;
    if (o->spec.kind == FST_OPTIM_SGD)
        sgd(s->params + at, o->moment1 ? o->moment1 + at : NULL, g, s, o->steps == 0, o->spec.nesterov, count);
    else if (o->spec.kind == FST_OPTIM_ADAM)
        adam(s->params + at, o->moment1 + at, o->moment2 + at, g, s, s->decay, 1, count);
    else
        adam(s->params + at, o->moment1 + at, o->moment2 + at, g, s, 0, 1 - s->lr * s->decay, count);
}

static void update_unit(void *ctx, int worker, size_t i)
{
    const struct step *s = ctx;
    size_t units;
    struct unit u = find_unit(s, i, &units);
    _Alignas(64) float g[BLOCK];
    (void)worker;
    gather(s, g, &u);
    for (size_t r = 0; r < u.rows; r++)
        update_row(s, g + r * u.columns, u.at + r * u.stride, u.columns);
}

/* In a fixed order that vectors can follow. */
FST_HOT static double sum_of_squares(const float *g, size_t count)
{
    enum { LANES = 16 };
    double lane[LANES] = {0}, sum = 0;
    size_t i = 0;
    for (; i + LANES <= count; i += LANES)
        for (size_t l = 0; l < LANES; l++)
            lane[l] += (double)g[i + l] * (double)g[i + l];
    for (; i < count; i++)
        sum += (double)g[i] * (double)g[i];
    for (size_t l = 0; l < LANES; l++)
        sum += lane[l];
    return sum;
}

/* Leaves the summed gradient of blocks in part 0, and the unit's square in squares. */
static void norm_unit(void *ctx, int worker, size_t i)
{
    const struct step *s = ctx;
    size_t units;
    struct unit u = find_unit(s, s->first_unit + i, &units);
    _Alignas(64) float g[BLOCK];
    (void)worker;
    gather(s, g, &u);
    if (!u.factors)
        memcpy(s->in->grads[0] + u.at, g, u.columns * sizeof *g);
    s->squares[i] = sum_of_squares(g, u.rows * u.columns);
}

static void over_units(struct step *s, fst_job_fn fn, size_t units, fst_pool *pool)
{
    if (pool && units > 4) {
        fst_pool_run(pool, fn, s, units);
        return;
    }
    for (size_t i = 0; i < units; i++)
        fn(s, 0, i);
}

/* The norm needs a double a unit: so many on the stack at a time, added up in the order of the units. */
static double gradient_norm(struct step *s, size_t units, fst_pool *pool)
{
    enum { AT_ONCE = 1024 };
    double squares[AT_ONCE], total = 0;
    s->squares = squares;
    for (size_t from = 0; from < units; from += AT_ONCE) {
        size_t n = least(units - from, AT_ONCE);
        s->first_unit = from;
        over_units(s, norm_unit, n, pool);
        for (size_t i = 0; i < n; i++)
            total += squares[i];
    }
    s->squares = NULL;
    s->first_unit = 0;
    s->summed = true;
    return sqrt(total);
}

double fst_optim_step(fst_optim *o, float *params, const fst_optim_input *in, fst_pool *pool)
{
    static const struct fst_factored none = {0};
    return fst__optim_step(o, params, in, &none, pool);
}

double fst__optim_step(fst_optim *o, float *params, const fst_optim_input *in, const struct fst_factored *factored,
                       fst_pool *pool)
{
    const fst_optim_spec *p = &o->spec;
    double t = (double)(o->steps + 1), norm = -1;
    size_t units = 0;
    struct step s = {.o = o, .params = params, .in = in, .scale = 1, .factored = factored};
    (void)find_unit(&s, SIZE_MAX, &units);
    s.lr = (float)in->learning_rate;
    s.decay = (float)p->weight_decay;
    s.momentum = (float)p->momentum;
    s.prox = (float)in->prox_mu;
    s.beta1 = (float)p->beta1;
    s.beta2 = (float)p->beta2;
    s.eps = (float)p->eps;
    s.correct1 = (float)(1 / (1 - pow(p->beta1, t)));
    s.correct2 = (float)(1 / sqrt(1 - pow(p->beta2, t)));
    if (p->clip_norm > 0 || in->want_norm)
        norm = gradient_norm(&s, units, pool);
    if (p->clip_norm > 0 && norm + 1e-6 > p->clip_norm)
        s.scale = (float)(p->clip_norm / (norm + 1e-6));
    over_units(&s, update_unit, units, pool);
    o->steps++;
    return norm;
}

/*
 * Optimisers: one pass over the contiguous span that sums the gradient's parts, adds the proximal
 * term, clips, and updates. The span is cut into blocks of a fixed size, so neither values nor the
 * norm's summation depend on the number of threads. A layer whose gradient is kept in a form (forms.h) is cut
 * in tiles.
 */
#include <math.h>
#include <string.h>

#include "forms.h"

enum { BLOCK = FST_UNIT, TILE_ROWS = 32, TILE_COLUMNS = BLOCK / TILE_ROWS };

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
    const struct fst_forms *forms;
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

/* A block of the span, or, of a layer whose gradient is kept in a form, a tile: so many rows of a matrix. */
struct unit {
    size_t at, rows, columns, stride;
    const struct fst_form *form; /* NULL: a block, of one row */
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

/* So many blocks of inputs are a tile. */
static size_t blocks_at_once(const struct fst_form *f)
{
    return least(BLOCK / (f->block * f->block * f->taps), f->in / (f->block * f->taps));
}

void fst__number_units(struct fst_form *f, size_t count)
{
    size_t from = 0, unit = 0;
    for (size_t i = 0; i < count; i++) {
        f[i].first_unit = unit + parts_of(f[i].from - from, BLOCK);
        f[i].units = f[i].block
                         ? f[i].out / f[i].block * parts_of(f[i].in, blocks_at_once(&f[i]) * f[i].block * f[i].taps)
                         : parts_of(f[i].out, TILE_ROWS) * parts_of(f[i].in, TILE_COLUMNS);
        from = f[i].from + f[i].out * f[i].in;
        unit = f[i].first_unit + f[i].units;
    }
}

static struct unit tile_of(const struct step *s, const struct fst_form *f, size_t tile)
{
    size_t down = f->block ? f->out / f->block : parts_of(f->out, TILE_ROWS);
    size_t rows = f->block ? f->block : TILE_ROWS;
    size_t columns = f->block ? blocks_at_once(f) * f->block * f->taps : TILE_COLUMNS;
    /* of factors the same columns of the inputs one after another, of blocks as they lie */
    size_t across = parts_of(f->in, columns);
    size_t row = (f->block ? tile / across : tile % down) * rows;
    size_t column = (f->block ? tile % across : tile / down) * columns;
    struct unit u = {.at = f->from + row * f->in + column,
                     .rows = least(f->out - row, rows),
                     .columns = least(f->in - column, columns),
                     .stride = f->in,
                     .form = f};
    u.tile = (struct fst_factors_tile){row, u.rows, column, u.columns, 0, s->forms->rows};
    return u;
}

/* The parameters behind the first k forms, and the first unit there. */
static size_t behind(const struct step *s, size_t k, size_t *unit)
{
    const struct fst_form *f = k ? &s->forms->layers[k - 1] : NULL;
    *unit = f ? f->first_unit + f->units : 0;
    return f ? f->from + f->out * f->in : 0;
}

static size_t count_units(const struct step *s)
{
    size_t unit, from = behind(s, s->forms->count, &unit);
    return unit + parts_of(s->o->count - from, BLOCK);
}

static struct unit find_unit(const struct step *s, size_t i)
{
    const struct fst_form *f = s->forms->layers;
    size_t k = 0, n = s->forms->count, unit;
    while (k < n && i >= f[k].first_unit + f[k].units)
        k++;
    if (k < n && i >= f[k].first_unit)
        return tile_of(s, &f[k], i - f[k].first_unit);
    size_t from = behind(s, k, &unit), to = k < n ? f[k].from : s->o->count, at = from + (i - unit) * BLOCK;
    return (struct unit){.at = at, .rows = 1, .columns = least(to - at, BLOCK)};
}

/* The parts' blocks are added as they lie, one part's are taken from where they lie. */
static void gather_blocks(const struct step *s, float *g, const struct unit *u)
{
    const struct fst_form *f = u->form;
    size_t count = u->rows * u->columns, at = f->from + u->tile.row * f->in + u->tile.column * f->block;
    _Alignas(64) float sum[BLOCK];
    if (s->in->parts > 1)
        sum_parts(sum, s->in->grads, s->in->parts, at, count);
    fst__blocks_tile(f, s->in->parts > 1 ? sum : s->in->grads[0] + at, u->columns / (f->block * f->taps), g);
}

/* The unit's gradient, row by row without gaps. */
static void gather(const struct step *s, float *g, const struct unit *u)
{
    bool ready = s->summed && !u->form;
    if (u->form && u->form->block)
        gather_blocks(s, g, u);
    else if (u->form)
        fst__factors_tile(u->form, s->forms->grads, &u->tile, g);
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
    struct unit u = find_unit(s, i);
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
    struct unit u = find_unit(s, s->first_unit + i);
    _Alignas(64) float g[BLOCK];
    (void)worker;
    gather(s, g, &u);
    if (!u.form)
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
    static const struct fst_forms none = {0};
    return fst__optim_step(o, params, in, &none, pool);
}

double fst__optim_step(fst_optim *o, float *params, const fst_optim_input *in, const struct fst_forms *forms,
                       fst_pool *pool)
{
    const fst_optim_spec *p = &o->spec;
    double t = (double)(o->steps + 1), norm = -1;
    struct step s = {.o = o, .params = params, .in = in, .scale = 1, .forms = forms};
    size_t units = count_units(&s);
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

/*
 * dropout: each element is kept with probability 1-p and then scaled by 1/(1-p). Row r of a pass draws
 * from the stream (seed, "dropout.NODE", step << 24 | row), so the mask does not depend on how a batch is
 * cut into shards. Plain layouts only.
 */
#include <stdio.h>

#include "backend.h"

enum { DRAWS = 1024 }; /* at a time */

static fst_status shape(struct fst_node *n, fst_error *err)
{
    double p = n->u.dropout.p;
    if (!(p >= 0 && p < 1))
        return fst_fail(err, FST_E_ARGUMENT, "the probability must be in [0, 1), not %g", p);
    n->out = n->in;
    return FST_OK;
}

static size_t saved(const struct fst_node *n, int64_t batch)
{
    return (size_t)(batch * fst_shape_count(&n->out));
}

FST_HOT static void compare(const uint32_t *restrict drawn, uint32_t bar, unsigned char *restrict keep, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        keep[i] = drawn[i] >= bar;
}

static void draw_mask(const struct fst_node *n, const struct fst_op_args *a, unsigned char *keep)
{
    static const fst_draws none = {0};
    const fst_draws *d = a->draws ? a->draws : &none;
    int64_t width = fst_shape_count(&n->out);
    uint32_t bar = (uint32_t)(n->u.dropout.p * 4294967296.0);
    char purpose[32];
    snprintf(purpose, sizeof purpose, "dropout.%d", n->id);
    for (int64_t r = 0; r < a->batch; r++) {
        fst_rng rng;
        fst_rng_init(&rng, d->seed, purpose, d->step << 24 | (uint64_t)(d->row0 + r));
        for (int64_t i = 0; i < width; i += DRAWS) {
            uint32_t drawn[DRAWS];
            int64_t count = width - i < DRAWS ? width - i : DRAWS;
            fst_rng_fill(&rng, drawn, (size_t)count);
            compare(drawn, bar, keep + r * width + i, count);
        }
    }
}

FST_HOT static void apply(const struct fst_node *n, const float *restrict x, float *restrict y,
                          const unsigned char *restrict keep, int64_t count)
{
    float scale = (float)(1.0 / (1.0 - n->u.dropout.p));
    for (int64_t i = 0; i < count; i++)
        y[i] = keep[i] ? x[i] * scale : 0;
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    draw_mask(n, a, a->saved);
    apply(n, a->in, a->out, a->saved, a->batch * fst_shape_count(&n->out));
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    if (a->grad_in)
        apply(n, a->grad_out, a->grad_in, a->saved, a->batch * fst_shape_count(&n->out));
}

const struct fst_op_type fst__op_dropout = {
    .name = "dropout",
    .shape = shape,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .saved = saved,
};

/* The server's optimisers of FedOpt. Moments are a span each; a step is one pass over any part of it. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

const char *fst_server_kind_name(fst_server_kind k)
{
    static const char *const names[] = {"momentum", "adagrad", "adam", "yogi"};
    return (size_t)k < sizeof names / sizeof *names ? names[k] : "?";
}

static fst_status check(const fst_server_spec *s, fst_error *err)
{
    const char *name = fst_server_kind_name(s->kind);
    if (!(s->learning_rate > 0) || isinf(s->learning_rate))
        return fst_fail(err, FST_E_CONFIG, "server %s: the learning rate is %g; it must be above 0", name,
                        s->learning_rate);
    if (s->kind == FST_SERVER_MOMENTUM) {
        if (!(s->momentum >= 0 && s->momentum < 1))
            return fst_fail(err, FST_E_CONFIG, "server momentum: %g; it must be in [0, 1)", s->momentum);
        return FST_OK;
    }
    if (!(s->beta1 >= 0 && s->beta1 < 1) || !(s->beta2 >= 0 && s->beta2 < 1))
        return fst_fail(err, FST_E_CONFIG, "server %s: beta1 is %g, beta2 %g; both must be in [0, 1)", name, s->beta1,
                        s->beta2);
    if (!(s->tau > 0) || isinf(s->tau))
        return fst_fail(err, FST_E_CONFIG, "server %s: tau is %g; it must be above 0", name, s->tau);
    if (!(s->v_init >= 0) || isinf(s->v_init))
        return fst_fail(err, FST_E_CONFIG, "server %s: v_init is %g; 0 or more is needed", name, s->v_init);
    return FST_OK;
}

fst_status fst_server_optim_init(fst_server_optim *o, const fst_server_spec *spec, size_t count, fst_error *err)
{
    fst_server_optim n = {.spec = *spec, .count = count};
    bool adaptive = spec->kind != FST_SERVER_MOMENTUM;
    fst_status s = check(spec, err);
    if (s)
        return s;
    if (n.spec.v_init == 0)
        n.spec.v_init = spec->tau * spec->tau;
    n.m = fst_calloc(count, sizeof *n.m);
    n.v = adaptive ? fst_calloc(count, sizeof *n.v) : NULL;
    if (!n.m || (adaptive && !n.v)) {
        fst_server_optim_release(&n);
        return fst_fail_memory(err, count * sizeof *n.m);
    }
    for (size_t i = 0; adaptive && i < count; i++)
        n.v[i] = (float)n.spec.v_init;
    *o = n;
    return FST_OK;
}

void fst_server_optim_release(fst_server_optim *o)
{
    if (!o)
        return;
    fst_free(o->m);
    fst_free(o->v);
    *o = (fst_server_optim){0};
}

static void momentum_step(const fst_server_spec *s, size_t n, const double *d, float *m, float *x)
{
    for (size_t i = 0; i < n; i++) {
        double now = s->momentum * (double)m[i] + d[i];
        m[i] = (float)now;
        x[i] = (float)((double)x[i] + s->learning_rate * now);
    }
}

static double second_moment(const fst_server_spec *s, double v, double square)
{
    switch (s->kind) {
    case FST_SERVER_ADAGRAD:
        return v + square;
    case FST_SERVER_YOGI: /* by at most (1 - beta2) d^2 at a time, whatever v is */
        return v > square ? v - (1 - s->beta2) * square : v < square ? v + (1 - s->beta2) * square : v;
    default:
        return s->beta2 * v + (1 - s->beta2) * square;
    }
}

void fst_server_optim_step(fst_server_optim *o, size_t first, size_t n, const double *delta, float *x)
{
    const fst_server_spec *s = &o->spec;
    if (s->kind == FST_SERVER_MOMENTUM) {
        momentum_step(s, n, delta, o->m + first, x);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        double d = delta[i], m = s->beta1 * (double)o->m[first + i] + (1 - s->beta1) * d;
        double v = second_moment(s, (double)o->v[first + i], d * d);
        o->m[first + i] = (float)m;
        o->v[first + i] = (float)v;
        x[i] = (float)((double)x[i] + s->learning_rate * m / (sqrt(v) + s->tau));
    }
}

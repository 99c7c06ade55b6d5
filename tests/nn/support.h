/* What the tests of the engine, the zoo and the soft labels share: assertions that show the library's
 * message, seeded numbers, and a network built, filled and run in a few lines. */
#ifndef FST_TESTS_NN_SUPPORT_H
#define FST_TESTS_NN_SUPPORT_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/nn.h"

/* The call may use `err`, the error that the assertion then shows. */
#define assert_ok(call)                                                              \
    do {                                                                             \
        fst_error error_ = {0}, *err = &error_;                                      \
        fst_status status_ = (call);                                                 \
        (void)err;                                                                   \
        if (status_)                                                                 \
            fail_msg("%s: %s: %s", #call, fst_status_name(status_), error_.message); \
    } while (0)

/* The call must fail with this status, and its message must hold `text`. */
#define assert_fails(call, wanted, text)                                                               \
    do {                                                                                               \
        fst_error error_ = {0}, *err = &error_;                                                        \
        fst_status status_ = (call);                                                                   \
        if (status_ != (wanted))                                                                       \
            fail_msg("%s: %s (%s), not %s", #call, fst_status_name(status_), error_.message, #wanted); \
        if (error_.status != status_ || !strstr(error_.message, text))                                 \
            fail_msg("%s: the message \"%s\" does not say \"%s\"", #call, error_.message, text);       \
    } while (0)

static inline float *new_floats(size_t n)
{
    float *v = calloc(n ? n : 1, sizeof *v);
    assert_non_null(v);
    return v;
}

static inline void fill_normal(float *v, size_t n, uint64_t seed, const char *what, double scale)
{
    fst_rng r;
    fst_rng_init(&r, seed, what, 0);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)(scale * fst_rng_normal(&r));
}

static inline void fill_labels(int32_t *v, size_t n, int classes, uint64_t seed)
{
    fst_rng r;
    fst_rng_init(&r, seed, "test.labels", 0);
    for (size_t i = 0; i < n; i++)
        v[i] = (int32_t)fst_rng_below(&r, (uint64_t)classes);
}

static inline size_t sample_floats(const fst_graph *g)
{
    fst_shape s = fst_graph_input_shape(g);
    return (size_t)fst_shape_count(&s);
}

static inline size_t output_floats(const fst_graph *g)
{
    fst_shape s = fst_graph_output_shape(g);
    return (size_t)fst_shape_count(&s);
}

/* Complex batch norms: scales beside their diagonal, covariances with a determinant above 0. */
static inline void fill_complex_norms(fst_state *s, const fst_graph *g, uint64_t seed)
{
    fst_rng r;
    fst_rng_init(&r, seed, "test.complex", 0);
    for (size_t i = 0; i < fst_graph_buffers(g); i++) {
        fst_param_info p = fst_graph_buffer(g, i);
        for (size_t k = 0; strstr(p.name, "running_covar") && k < p.count; k++)
            s->buffers[p.offset + k] = (float)(k % 3 < 2 ? 0.5 + fst_rng_uniform(&r) : fst_rng_uniform(&r) - 0.5);
    }
    for (size_t i = 0; i < fst_graph_params(g); i++) {
        fst_param_info p = fst_graph_param(g, i);
        bool scale = p.shape.rank == 2 && p.shape.dim[1] == 3 && strstr(p.name, "norm.weight");
        for (size_t k = 0; scale && k < p.count; k++)
            s->params[p.offset + k] += (float)(0.3 * fst_rng_normal(&r));
    }
}

/* Parameters and running statistics of a network that has seen data: none zero, variances above 0. */
static inline void fill_state(fst_state *s, const fst_graph *g, uint64_t seed)
{
    fst_rng r;
    fst_rng_init(&r, seed, "test.state", 0);
    fst_state_randomise(s, g, seed);
    for (size_t i = 0; i < fst_graph_params(g); i++) {
        fst_param_info p = fst_graph_param(g, i);
        bool scale = p.shape.rank == 1 && strstr(p.name, ".weight");
        for (size_t k = 0; p.shape.rank == 1 && k < p.count; k++)
            s->params[p.offset + k] = (float)((scale ? 1 : 0) + 0.3 * fst_rng_normal(&r));
    }
    for (size_t i = 0; i < fst_graph_buffers(g); i++) {
        fst_param_info p = fst_graph_buffer(g, i);
        for (size_t k = 0; k < p.count; k++)
            s->buffers[p.offset + k] =
                (float)(strstr(p.name, "_var") ? 0.5 + fst_rng_uniform(&r) : 0.3 * fst_rng_normal(&r));
    }
    fill_complex_norms(s, g, seed);
}

/* The Euclidean norm of a - b; b NULL counts as 0. */
static inline double distance(const float *a, const float *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        double d = (double)a[i] - (b ? (double)b[i] : 0);
        sum += d * d;
    }
    return sqrt(sum);
}

#endif

/* MergeNet's fusions and steps against fusion/fusion.py, which computes them in float64 and knows nothing of this code;
 * and what is said of wrong shapes, of damaged bytes, and of memory. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/fusion.h"
#include "fedstill/models.h"
#include "low_rank.h"

static const struct example {
    const char *name;
    fst_shape target, source;
    int64_t rank;
    double gate;
} examples[] = {
    {"full", {2, {6, 8}}, {2, {5, 7}}, 0, 0.3},
    {"low_rank", {2, {6, 10}}, {2, {5, 9}}, 3, 0.4},
};
enum { EXAMPLES = sizeof examples / sizeof *examples };
static const double RATE = 0.01;

static fst_buf bytes;
static fst_safetensors *file;

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

static int set_up(void **state)
{
    char path[4096];
    fst_error err;
    const char *root = getenv("FEDSTILL_SOURCE");
    (void)state;
    snprintf(path, sizeof path, "%s/tests/distill/fusion/fusion.safetensors", root ? root : "../..");
    ok(fst_file_read(path, 1 << 20, &bytes, &err), &err);
    ok(fst_safetensors_open_memory(&file, path, bytes.data, bytes.len, &err), &err);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fst_safetensors_free(file);
    fst_buf_release(&bytes);
    return 0;
}

static const void *expected(const struct example *e, const char *kind, const char *name)
{
    char full[160];
    size_t i = 0;
    snprintf(full, sizeof full, "%s.%s%s", e->name, kind, name);
    if (!fst_safetensors_find(file, full, &i))
        fail_msg("fusion.safetensors has no %s: run tests/distill/fusion/fusion.py", full);
    return fst_safetensors_data(file, i);
}

static fst_param_info matrix(const char *name, fst_shape shape)
{
    return (fst_param_info){.name = name, .shape = shape, .count = (size_t)fst_shape_count(&shape)};
}

static fst_fusion_spec spec_of(const struct example *e)
{
    fst_fusion_spec s = FST_FUSION_DEFAULTS;
    s.rank = e->rank;
    s.d_attention = 4;
    s.heads = 2;
    s.attention_dropout = s.merge_dropout = 0;
    s.gate = e->gate;
    s.weight_decay = 0.05;
    s.clip_norm = 0.5;
    s.seed = 3;
    return s;
}

/* The bytes of an adapter with the script's parameters and vectors, before its first step. */
static void put_values(const struct example *e, fst_fusion *f)
{
    size_t count = 0;
    const fst_graph *g = fst_fusion_graph(f);
    fst_buf b = {0};
    fst_error err;
    uint64_t steps = 0;
    (void)fst_fusion_values(f, &count);
    float *v = calloc(3 * count + fst_graph_buffer_count(g), sizeof *v);
    assert_non_null(v);
    for (size_t i = 0; i < fst_graph_params(g); i++) {
        fst_param_info p = fst_graph_param(g, i);
        memcpy(v + p.offset, expected(e, "value.", p.name), p.count * sizeof *v);
    }
    v[count - 1] = (float)e->gate;
    for (size_t i = 0; i < fst_graph_buffers(g); i++) {
        fst_param_info p = fst_graph_buffer(g, i);
        memcpy(v + 3 * count + p.offset, expected(e, "buffer.", p.name), p.count * sizeof *v);
    }
    ok(fst_buf_append(&b, &steps, sizeof steps, &err), &err);
    ok(fst_buf_append(&b, v, (3 * count + fst_graph_buffer_count(g)) * sizeof *v, &err), &err);
    ok(fst_fusion_load(f, b.data, b.len, &err), &err);
    fst_buf_release(&b);
    free(v);
}

static fst_fusion *make(const struct example *e, bool values)
{
    fst_fusion *f = NULL;
    fst_error err;
    const fst_fusion_spec s = spec_of(e);
    const fst_param_info t = matrix("t", e->target), b = matrix("s", e->source);
    ok(fst_fusion_new(&f, &s, &t, &b, &err), &err);
    ok(fst_fusion_source(f, expected(e, "b", ""), &err), &err);
    if (values)
        put_values(e, f);
    return f;
}

static void fuses_as_the_script(void **state)
{
    (void)state;
    for (int i = 0; i < EXAMPLES; i++) {
        const struct example *e = &examples[i];
        fst_fusion *f = make(e, true);
        fst_error err;
        size_t n = (size_t)fst_shape_count(&e->target);
        const double *want = expected(e, "theta", "");
        const float *a = expected(e, "a", "");
        float got[128];
        double off = 0, moved = 0;
        ok(fst_fusion_fuse(f, a, got, &err), &err);
        for (size_t k = 0; k < n; k++) {
            off = fmax(off, fabs((double)got[k] - want[k]));
            moved = fmax(moved, fabs(want[k] - (double)a[k]));
        }
        print_message("%s: off by %.1e, moved by %.1e\n", e->name, off, moved);
        assert_true(off < 2e-6 && moved > 1e-2);
        fst_fusion_free(f);
    }
}

static void compare_step(const struct example *e, const fst_graph *g, const char *name, size_t offset, size_t count,
                         const float *values, const float *moment, double shrink)
{
    const float *grad = expected(e, "grad.", name), *stepped = expected(e, "stepped.", name);
    double off = 0, length = 0;
    (void)g;
    for (size_t k = 0; k < count; k++) {
        double want = 0.1 * shrink * (double)grad[k];
        off += pow((double)moment[offset + k] - want, 2);
        length += want * want;
        if (fabs((double)grad[k]) > 1e-4 && fabs((double)values[offset + k] - (double)stepped[k]) > 2e-5)
            fail_msg("%s: %s [%zu] became %.9g, not %.9g", e->name, name, k, (double)values[offset + k],
                     (double)stepped[k]);
    }
    /* a bias of keys has no gradient: softmax does not see it */
    if (sqrt(off) > 2e-4 * sqrt(length) + 1e-7)
        fail_msg("%s: the gradient of %s is off by %.2e of %.2e", e->name, name, sqrt(off), sqrt(length));
}

static void learns_as_the_script(void **state)
{
    (void)state;
    for (int i = 0; i < EXAMPLES; i++) {
        const struct example *e = &examples[i];
        fst_fusion *f = make(e, true);
        fst_fusion_step step;
        fst_error err;
        fst_buf saved = {0};
        size_t count;
        const double *want = expected(e, "loss", "");
        ok(fst_fusion_learn(f, expected(e, "a", ""), expected(e, "after", ""), RATE, &step, &err), &err);
        assert_true(fabs(step.loss - want[0]) < 1e-5 * want[0]);
        assert_true(fabs(step.grad_norm - want[1]) < 1e-4 * want[1]);
        double shrink = fmin(1, 0.5 / (want[1] + 1e-6));
        const fst_graph *g = fst_fusion_graph(f);
        const float *values = fst_fusion_values(f, &count);
        ok(fst_fusion_save(f, &saved, &err), &err);
        const float *moment = (const float *)(const void *)(saved.data + 8) + count;
        for (size_t k = 0; k < fst_graph_params(g); k++) {
            fst_param_info p = fst_graph_param(g, k);
            compare_step(e, g, p.name, p.offset, p.count, values, moment, shrink);
        }
        compare_step(e, g, "gate", count - 1, 1, values, moment, shrink);
        assert_int_equal(fst_fusion_steps(f), 1);
        fst_buf_release(&saved);
        fst_fusion_free(f);
    }
}

/* A gate of 0 changes nothing, and only it has a gradient; then the adapter learns too. */
static void gate_opens_first(void **state)
{
    struct example e = examples[0];
    fst_error err;
    float got[48];
    size_t count;
    (void)state;
    e.gate = 0;
    fst_fusion *f = make(&e, true);
    const float *a = expected(&e, "a", ""), *after = expected(&e, "after", "");
    float *v = fst_fusion_values(f, &count);
    v[count - 1] = 0;
    ok(fst_fusion_fuse(f, a, got, &err), &err);
    assert_memory_equal(got, a, sizeof got);
    ok(fst_fusion_learn(f, a, after, RATE, NULL, &err), &err);
    assert_true(fabs(fabs(fst_fusion_gate(f)) - RATE) < 1e-5);
    fst_fusion_step first, last = {0};
    ok(fst_fusion_learn(f, a, after, RATE, &first, &err), &err);
    for (int i = 0; i < 60; i++)
        ok(fst_fusion_learn(f, a, after, RATE, &last, &err), &err);
    assert_true(last.loss < 0.5 * first.loss);
    fst_fusion_free(f);
}

/* Only the gate moves, or nothing does. */
static void learns_what_it_is_told(void **state)
{
    const struct example *e = &examples[1];
    (void)state;
    for (int learns = FST_FUSION_GATE; learns <= FST_FUSION_NOTHING; learns++) {
        fst_fusion *f = NULL;
        fst_error err;
        fst_fusion_spec s = spec_of(e);
        const fst_param_info t = matrix("t", e->target), b = matrix("s", e->source);
        size_t count;
        s.learns = (fst_fusion_learns)learns;
        ok(fst_fusion_new(&f, &s, &t, &b, &err), &err);
        ok(fst_fusion_source(f, expected(e, "b", ""), &err), &err);
        float *v = fst_fusion_values(f, &count), *before = malloc(count * sizeof *v);
        assert_non_null(before);
        memcpy(before, v, count * sizeof *v);
        ok(fst_fusion_learn(f, expected(e, "a", ""), expected(e, "after", ""), RATE, NULL, &err), &err);
        assert_memory_equal(before, v, (count - 1) * sizeof *v);
        assert_int_equal(before[count - 1] == v[count - 1], learns == FST_FUSION_NOTHING);
        free(before);
        fst_fusion_free(f);
    }
}

static void goes_on_from_saved_bytes(void **state)
{
    const struct example *e = &examples[1];
    fst_fusion *f = NULL, *g = NULL;
    fst_fusion_spec s = spec_of(e);
    const fst_param_info t = matrix("t", e->target), b = matrix("s", e->source);
    const float *a = expected(e, "a", ""), *after = expected(e, "after", "");
    fst_buf mid = {0}, one = {0}, two = {0};
    fst_error err;
    (void)state;
    s.attention_dropout = s.merge_dropout = 0.3; /* draws follow from the number of steps */
    fst_fusion **both[] = {&f, &g};
    for (int i = 0; i < 2; i++) {
        ok(fst_fusion_new(both[i], &s, &t, &b, &err), &err);
        ok(fst_fusion_source(*both[i], expected(e, "b", ""), &err), &err);
    }
    for (int i = 0; i < 3; i++)
        ok(fst_fusion_learn(f, a, after, RATE, NULL, &err), &err);
    ok(fst_fusion_save(f, &mid, &err), &err);
    ok(fst_fusion_load(g, mid.data, mid.len, &err), &err);
    for (int i = 0; i < 3; i++) {
        ok(fst_fusion_learn(f, a, after, RATE, NULL, &err), &err);
        ok(fst_fusion_learn(g, a, after, RATE, NULL, &err), &err);
    }
    ok(fst_fusion_save(f, &one, &err), &err);
    ok(fst_fusion_save(g, &two, &err), &err);
    assert_int_equal(one.len, two.len);
    assert_memory_equal(one.data, two.data, one.len);
    assert_int_equal(fst_fusion_load(g, mid.data, mid.len - 1, &err), FST_E_FORMAT);
    float bad = NAN;
    memcpy(mid.data + 8 + 4 * 5, &bad, sizeof bad);
    assert_int_equal(fst_fusion_load(g, mid.data, mid.len, &err), FST_E_FORMAT);
    two.len = 0;
    ok(fst_fusion_save(g, &two, &err), &err);
    assert_memory_equal(one.data, two.data, one.len);
    fst_buf_release(&mid);
    fst_buf_release(&one);
    fst_buf_release(&two);
    fst_fusion_free(f);
    fst_fusion_free(g);
}

/* Finite weights that are far too large: what they make is refused, and nothing is written. */
static void a_diverged_adapter_fuses_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < EXAMPLES; i++) {
        const struct example *e = &examples[i];
        fst_fusion *f = NULL;
        fst_fusion_spec s = spec_of(e);
        const fst_param_info t = matrix("t", e->target), b = matrix("s", e->source);
        float theta[60] = {7}, big = 3e38f;
        fst_buf saved = {0};
        fst_error err;
        ok(fst_fusion_new(&f, &s, &t, &b, &err), &err);
        ok(fst_fusion_source(f, expected(e, "b", ""), &err), &err);
        ok(fst_fusion_save(f, &saved, &err), &err);
        for (size_t at = sizeof(uint64_t); at < saved.len; at += sizeof big)
            memcpy(saved.data + at, &big, sizeof big);
        ok(fst_fusion_load(f, saved.data, saved.len, &err), &err);
        assert_int_equal(fst_fusion_fuse(f, expected(e, "a", ""), theta, &err), FST_E_NUMERIC);
        assert_non_null(strstr(err.message, "diverged"));
        assert_true(theta[0] == 7 && theta[1] == 0);
        fst_buf_release(&saved);
        fst_fusion_free(f);
    }
}

static void says_what_does_not_fit(void **state)
{
    const fst_model_config c = {.classes = 10, .input = FST_SHAPE(3, 32, 32), .stem = FST_STEM_CIFAR};
    fst_graph *small = NULL, *large = NULL;
    fst_param_info t, s;
    fst_fusion_size size, low;
    fst_fusion_spec o = FST_FUSION_DEFAULTS;
    fst_error err;
    (void)state;
    ok(fst_model_graph(&small, "mobilenet_v2", &(fst_model_config){.classes = 10, .input = FST_SHAPE(3, 32, 32)}, &err),
       &err);
    ok(fst_model_graph(&large, "resnet50", &c, &err), &err);
    assert_int_equal(fst_fusion_find(small, "features.16.conv.2.wait", &t, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "features.16.conv.2.weight"));
    assert_int_equal(fst_fusion_find(large, "fc.bias", &s, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "10"));
    ok(fst_fusion_find(small, "features.16.conv.2.weight", &t, &err), &err);
    ok(fst_fusion_find(large, "fc.weight", &s, &err), &err);
    o.rank = 11;
    assert_int_equal(fst_fusion_measure(&o, &t, &s, &size, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "160 x 960"));
    assert_non_null(strstr(err.message, "10 x 2048"));
    o.rank = 0;
    ok(fst_fusion_measure(&o, &t, &s, &size, &err), &err);
    o.rank = 10;
    ok(fst_fusion_measure(&o, &t, &s, &low, &err), &err);
    print_message("full %zu parameters, %.0f MB; rank 10 %zu, %.0f MB\n", size.parameters, (double)size.bytes / 1e6,
                  low.parameters, (double)low.bytes / 1e6);
    assert_true(size.bytes > 4 * 4 * size.parameters && low.parameters < size.parameters / 10);
    fst_graph_free(small);
    fst_graph_free(large);
}

static void factors_are_the_singular_values(void **state)
{
    enum { ROWS = 7, COLUMNS = 12, RANK = 7 };
    float w[ROWS * COLUMNS], left[ROWS * RANK], right[RANK * COLUMNS];
    fst_rng r;
    fst_error err;
    (void)state;
    fst_rng_init(&r, 1, "test", 0);
    for (int kind = 0; kind < 2; kind++) { /* of full rank, and of rank 2 */
        for (int i = 0; i < ROWS * COLUMNS; i++)
            w[i] = kind ? (float)((i / COLUMNS + 1) * (i % COLUMNS) + (i / COLUMNS % 2)) : (float)fst_rng_normal(&r);
        ok(fst__low_rank(w, ROWS, COLUMNS, RANK, left, right, &err), &err);
        for (int i = 0; i < ROWS; i++)
            for (int j = 0; j < COLUMNS; j++) {
                double sum = 0;
                for (int c = 0; c < RANK; c++)
                    sum += (double)left[i * RANK + c] * (double)right[c * COLUMNS + j];
                assert_true(fabs(sum - (double)w[i * COLUMNS + j]) < 1e-5 * (kind ? 100 : 1));
            }
        for (int c = 0; c < RANK; c++) {
            double length = 0;
            for (int j = 0; j < COLUMNS; j++)
                length += pow((double)right[c * COLUMNS + j], 2);
            assert_true(fabs(length - (kind && c >= 2 ? 0 : COLUMNS)) < 1e-4);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fuses_as_the_script),      cmocka_unit_test(learns_as_the_script),
        cmocka_unit_test(gate_opens_first),         cmocka_unit_test(learns_what_it_is_told),
        cmocka_unit_test(goes_on_from_saved_bytes), cmocka_unit_test(a_diverged_adapter_fuses_nothing),
        cmocka_unit_test(says_what_does_not_fit),   cmocka_unit_test(factors_are_the_singular_values),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

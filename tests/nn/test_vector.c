/* The vector backend: its tiles against sums in double, of every width that this processor has; and that neither the
 * batch, nor with it the form that a layer takes, is in the bits. */
#include "nn/support.h"

#include "vector.h"

/* Odd strides and depths, as convolutions and linear layers have them. */
static void check_tile(const struct fst__tiles *tiles, int64_t k, int rows, int panels, bool compare, float *sums)
{
    enum { ROW = 131, STEP = 17 };
    float *a = new_floats(FST__ROWS * ROW * 2), *b = new_floats((size_t)(FST__PANELS * k * STEP + LANES));
    struct fst__tile t = {.k = k,
                          .a = a,
                          .b = b,
                          .a_row = ROW,
                          .a_step = 2,
                          .b_step = STEP,
                          .b_panel = k * STEP,
                          .rows = rows,
                          .panels = panels,
                          .sum = sums};
    fill_normal(a, FST__ROWS * ROW * 2, 1, "a", 1);
    fill_normal(b, (size_t)(FST__PANELS * k * STEP + LANES), 1, "b", 1);
    tiles->multiply(&t);
    for (int r = 0; r < rows * panels; r++)
        for (int i = 0; compare && i < LANES; i++) {
            double sum = 0, size = 0;
            for (int64_t l = 0; l < k; l++) {
                double p = (double)a[(panels > 1 ? 0 : r * ROW) + 2 * l] *
                           (double)b[(panels > 1 ? r * k * STEP : 0) + l * STEP + i];
                sum += p;
                size += fabs(p);
            }
            assert_true(fabs((double)sums[r * LANES + i] - sum) <= 1e-6 * size);
        }
    free(a);
    free(b);
}

static void tiles_are_products(void **state)
{
    const int64_t depths[] = {1, 2, 9, 63};
    (void)state;
    assert_ptr_equal(fst__tiles(), fst__tiles_at(0));
    for (int i = 0; fst__tiles_at(i); i++)
        for (size_t d = 0; d < sizeof depths / sizeof *depths; d++) {
            float sums[FST__ROWS * LANES];
            for (int rows = 1; rows <= fst__tiles_at(i)->rows; rows++)
                check_tile(fst__tiles_at(i), depths[d], rows, 1, true, sums);
            check_tile(fst__tiles_at(i), depths[d], 1, 2, true, sums);
            check_tile(fst__tiles_at(i), depths[d], 1, FST__PANELS, true, sums);
        }
}

/* All but the last, which may have to round products and sums apart. */
static void widths_give_the_same_bits(void **state)
{
    (void)state;
    for (int i = 1; fst__tiles_at(i) && fst__tiles_at(i + 1); i++) {
        float want[FST__ROWS * LANES], got[FST__ROWS * LANES];
        int rows = fst__tiles_at(i)->rows < fst__tiles_at(0)->rows ? fst__tiles_at(i)->rows : fst__tiles_at(0)->rows;
        check_tile(fst__tiles_at(0), 65, rows, 1, false, want);
        check_tile(fst__tiles_at(i), 65, rows, 1, false, got);
        assert_memory_equal(want, got, (size_t)(rows * LANES) * sizeof *want);
    }
}

/* Convolutions over many places and over few, strided, padded, grouped and 1x1, sums, poolings and linear layers. */
static fst_graph *network(void)
{
    fst_graph *g = NULL;
    const fst_shape in = FST_SHAPE(3, 19, 23);
    const fst_conv2d first = {20, {3, 5}, {2, 3}, {1, 2}, 1, true}, grouped = {20, {3, 3}, {1, 1}, {1, 1}, 5, false},
                     point = {35, {1, 1}, {1, 1}, {0, 0}, 1, false}, last = {35, {3, 3}, {2, 2}, {1, 1}, 1, true};
    assert_ok(fst_graph_new(&g, err));
    fst_value v = fst_graph_conv2d(g, fst_graph_input(g, &in), "first", &first);
    v = fst_graph_relu(g, fst_graph_batchnorm2d(g, v, "norm", 1e-5, 0.1));
    v = fst_graph_relu(g, fst_graph_add(g, fst_graph_conv2d(g, v, "grouped", &grouped), v));
    v = fst_graph_relu6(g, fst_graph_conv2d(g, v, "point", &point));
    v = fst_graph_maxpool2d(g, v, 2, 2, 0);
    v = fst_graph_maxpool2d(g, fst_graph_conv2d(g, v, "last", &last), 3, 1, 1);
    v = fst_graph_linear(g, fst_graph_flatten(g, v), "fc", 70, true);
    v = fst_graph_linear(g, v, "out", 3, true);
    assert_ok(fst_graph_finish(g, v, err));
    return g;
}

static void run(const fst_graph *g, fst_state *state, int64_t batch, const float *x, float *out)
{
    const fst_plan_options o = {.batch = batch, .backend = "vector"};
    fst_plan *p = NULL;
    const float *y = NULL;
    assert_ok(fst_plan_new(&p, g, &o, err));
    assert_ok(fst_plan_forward(p, state, x, NULL, &y, err));
    memcpy(out, y, (size_t)(batch * 3) * sizeof *out);
    fst_plan_free(p);
}

static void batches_give_the_same_bits(void **state)
{
    enum { BATCH = 37, SAMPLE = 3 * 19 * 23 };
    fst_graph *g = network();
    fst_state s = {0};
    float *x = new_floats(BATCH * SAMPLE), all[BATCH * 3], some[BATCH * 3];
    (void)state;
    assert_ok(fst_state_init(&s, g, err));
    fst_state_randomise(&s, g, 3);
    fill_normal(x, BATCH * SAMPLE, 2, "x", 1);
    run(g, &s, BATCH, x, all);
    for (int64_t batch = 1; batch < 8; batch += 3)
        for (int64_t first = 0; first + batch <= BATCH; first += batch) {
            run(g, &s, batch, x + first * SAMPLE, some);
            assert_memory_equal(all + first * 3, some, (size_t)(batch * 3) * sizeof *some);
        }
    assert_true(fabs((double)all[0] - (double)all[3]) > 1e-4); /* it does compute */
    free(x);
    fst_state_release(&s);
    fst_graph_free(g);
}

/* In inference a NaN is seen in the output, and does not vanish in a pooling. */
static void pooling_keeps_nan(void **state)
{
    const int64_t windows[][3] = {{2, 2, 0}, {3, 2, 1}, {3, 1, 1}};
    (void)state;
    for (size_t w = 0; w < 3; w++)
        for (int64_t at = 0; at < 36; at++) {
            const fst_plan_options o = {.batch = 1, .backend = "vector"};
            const fst_shape in = FST_SHAPE(1, 6, 6);
            fst_graph *g = NULL;
            fst_plan *p = NULL;
            fst_state s = {0};
            float x[36] = {0};
            const float *y = NULL;
            assert_ok(fst_graph_new(&g, err));
            fst_value v = fst_graph_maxpool2d(g, fst_graph_input(g, &in), windows[w][0], windows[w][1], windows[w][2]);
            assert_ok(fst_graph_finish(g, v, err));
            assert_ok(fst_state_init(&s, g, err));
            assert_ok(fst_plan_new(&p, g, &o, err));
            x[at] = NAN;
            assert_ok(fst_plan_forward(p, &s, x, NULL, &y, err));
            fst_shape out = fst_graph_output_shape(g);
            int nans = 0;
            for (int64_t i = 0; i < fst_shape_count(&out); i++)
                nans += isnan(y[i]) != 0;
            assert_true(nans > 0);
            fst_plan_free(p);
            fst_state_release(&s);
            fst_graph_free(g);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_are_products),
        cmocka_unit_test(widths_give_the_same_bits),
        cmocka_unit_test(batches_give_the_same_bits),
        cmocka_unit_test(pooling_keeps_nan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

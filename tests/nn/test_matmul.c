/* The product of matrices after the reference kernels against the plain three loops, bit for bit: tiles and packing
 * must not change a single rounding. */
#include "nn/support.h"

#include "matmul.h"

enum { LARGEST = 150 };

static double element(const struct fst_matrix *x, int64_t i, int64_t j)
{
    int64_t at = i * x->row + j * x->column;
    return x->f ? (double)x->f[at] : x->d[at];
}

static double plain(const struct fst_product *p, int64_t i, int64_t j)
{
    double sum = p->of_row ? (double)p->of_row[i] : p->of_column ? (double)p->of_column[j] : 0;
    for (int64_t l = 0; l < p->k; l++)
        sum += element(&p->a, i, l) * element(&p->b, l, j);
    return sum;
}

static void check(uint64_t seed)
{
    static float f[2][LARGEST * LARGEST], start[LARGEST], out[LARGEST * (LARGEST + 3)];
    static double d[2][LARGEST * LARGEST], sum[LARGEST * (LARGEST + 3)];
    fst_rng r;
    fst_rng_init(&r, seed, "test.matmul", 0);
    struct fst_product p = {.m = 1 + (int64_t)fst_rng_below(&r, LARGEST),
                            .n = 1 + (int64_t)fst_rng_below(&r, LARGEST),
                            .k = 1 + (int64_t)fst_rng_below(&r, LARGEST)};
    uint64_t choices = fst_rng_u64(&r);
    for (int i = 0; i < 2; i++) {
        fill_normal(f[i], LARGEST * LARGEST, seed, i ? "test.b" : "test.a", 1);
        for (int k = 0; k < LARGEST * LARGEST; k++)
            d[i][k] = (double)f[i][k] / 3;
    }
    fill_normal(start, LARGEST, seed, "test.start", 1);
    for (int k = 0; k < LARGEST * (LARGEST + 3); k++)
        sum[k] = out[k] = 7;
    p.a = choices & 1 ? (struct fst_matrix){.f = f[0], .row = p.k, .column = 1}
                      : (struct fst_matrix){.d = d[0], .row = 1, .column = p.m};
    p.b = choices & 2 ? (struct fst_matrix){.f = f[1], .row = p.n, .column = 1}
                      : (struct fst_matrix){.d = d[1], .row = 1, .column = p.k};
    p.of_row = choices & 4 ? start : NULL;
    p.of_column = !p.of_row && choices & 8 ? start : NULL;
    p.out = choices & 16 ? out : NULL;
    p.sum = p.out ? NULL : sum;
    p.add = choices & 32;
    p.stride = p.n + (choices & 64 ? 3 : 0);
    fst__product(&p);
    for (int64_t i = 0; i < p.m; i++) {
        for (int64_t j = 0; j < p.n; j++) {
            double want = plain(&p, i, j);
            assert_true(p.out ? out[i * p.stride + j] == (float)want
                              : sum[i * p.stride + j] == (p.add ? 7 + want : want));
        }
        for (int64_t j = p.n; j < p.stride; j++) /* what lies between the rows stays */
            assert_true(p.out ? out[i * p.stride + j] == 7 : sum[i * p.stride + j] == 7);
    }
}

static void products_are_plain(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++)
        check(seed);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_plain),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

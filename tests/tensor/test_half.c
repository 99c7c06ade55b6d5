/* Element types, shapes, and half precision against its definition. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fedstill/tensor.h"

/* IEEE 754: sign, 5 bits of exponent, 10 bits of fraction. */
static double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, fraction = h & 1023;
    double sign = h & 0x8000 ? -1.0 : 1.0;
    if (exponent == 31)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    return sign * (exponent ? ldexp(1024 + fraction, exponent - 25) : ldexp(fraction, -24));
}

static void every_half_reads_right(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        double want = half_value((uint16_t)h);
        float got = fst_f32_from_f16((uint16_t)h);
        if (isnan(want))
            assert_true(isnan(got));
        else
            assert_true((double)got == want && !signbit(got) == !signbit(want));
    }
}

static void every_half_comes_back(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 65536; h++) {
        uint16_t back = fst_f16_from_f32(fst_f32_from_f16((uint16_t)h));
        if (isnan(half_value((uint16_t)h)))
            assert_true(isnan(half_value(back)));
        else
            assert_int_equal(back, h);
    }
}

/* Between two neighbours the nearer one is taken, and in the middle the even one. */
static void rounding_is_to_nearest_even(void **state)
{
    (void)state;
    for (uint32_t h = 0; h < 0x7BFF; h++) {
        double low = half_value((uint16_t)h), high = half_value((uint16_t)(h + 1)), middle = (low + high) / 2;
        uint32_t even = h & 1 ? h + 1 : h;
        assert_int_equal(fst_f16_from_f32((float)middle), even);
        assert_int_equal(fst_f16_from_f32(-(float)middle), even | 0x8000);
        assert_int_equal(fst_f16_from_f32(nextafterf((float)middle, 0)), h);
        assert_int_equal(fst_f16_from_f32(nextafterf((float)middle, INFINITY)), h + 1);
    }
}

static void what_is_too_large_becomes_infinity(void **state)
{
    (void)state;
    assert_int_equal(fst_f16_from_f32(65504.0f), 0x7BFF);
    assert_int_equal(fst_f16_from_f32(65519.99f), 0x7BFF);
    assert_int_equal(fst_f16_from_f32(65520.0f), 0x7C00);
    assert_int_equal(fst_f16_from_f32(-1e30f), 0xFC00);
    assert_int_equal(fst_f16_from_f32(INFINITY), 0x7C00);
    assert_int_equal(fst_f16_from_f32(1e-30f), 0);
    assert_int_equal(fst_f16_from_f32(-1e-30f), 0x8000);
    assert_true(isnan(half_value(fst_f16_from_f32(NAN))));
}

static void types_have_names_and_sizes(void **state)
{
    static const struct {
        const char *name;
        size_t size;
    } want[] = {{"F32", 4}, {"F64", 8}, {"F16", 2}, {"BF16", 2}, {"U8", 1},  {"I8", 1},  {"U16", 2},
                {"I16", 2}, {"U32", 4}, {"I32", 4}, {"U64", 8},  {"I64", 8}, {"BOOL", 1}};
    (void)state;
    assert_int_equal(sizeof want / sizeof *want, FST_DTYPE_COUNT);
    for (size_t i = 0; i < FST_DTYPE_COUNT; i++) {
        fst_dtype t;
        assert_true(fst_dtype_parse(want[i].name, &t));
        assert_int_equal(fst_dtype_size(t), want[i].size);
        assert_string_equal(fst_dtype_name(t), want[i].name);
    }
    fst_dtype t;
    assert_false(fst_dtype_parse("F8", &t));
    assert_int_equal(fst_dtype_size((fst_dtype)99), 0);
}

static void shapes_count(void **state)
{
    char text[16];
    (void)state;
    assert_int_equal(fst_shape_count(&(fst_shape){0}), 1);
    assert_int_equal(fst_shape_count(&FST_SHAPE(2, 3, 4)), 24);
    assert_int_equal(fst_shape_count(&FST_SHAPE(2, 0, 4)), 0);
    assert_int_equal(fst_shape_count(&FST_SHAPE(2, -1)), -1);
    assert_int_equal(fst_shape_count(&FST_SHAPE(INT64_MAX, 2)), -1);
    assert_int_equal(fst_shape_count(&(fst_shape){.rank = 9}), -1);
    assert_true(fst_shape_equal(&FST_SHAPE(2, 3), &FST_SHAPE(2, 3)));
    assert_false(fst_shape_equal(&FST_SHAPE(2, 3), &FST_SHAPE(3, 2)));
    assert_false(fst_shape_equal(&FST_SHAPE(2, 3), &FST_SHAPE(2, 3, 1)));
    assert_string_equal(fst_shape_text(&FST_SHAPE(1, 28, 28), text, sizeof text), "(1, 28, 28)");
    assert_string_equal(fst_shape_text(&FST_SHAPE(5), text, sizeof text), "(5,)");
    assert_string_equal(fst_shape_text(&(fst_shape){0}, text, sizeof text), "()");
    assert_int_equal(strlen(fst_shape_text(&FST_SHAPE(123456789, 123456789), text, sizeof text)), 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_half_reads_right),      cmocka_unit_test(every_half_comes_back),
        cmocka_unit_test(rounding_is_to_nearest_even), cmocka_unit_test(what_is_too_large_becomes_infinity),
        cmocka_unit_test(types_have_names_and_sizes),  cmocka_unit_test(shapes_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

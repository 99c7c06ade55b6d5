/* What pictures are made of: colours, font, canvas, and pictures of samples read back by the PNG decoder. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/data.h"
#include "surface.h"
#include "xml_check.h"

#define PI 3.14159265358979323846

static double brightness(fst__colour c)
{
    return 0.2126 * c.r + 0.7152 * c.g + 0.0722 * c.b;
}

static void test_viridis_gets_brighter(void **state)
{
    (void)state;
    fst__colour low = fst__viridis(0), high = fst__viridis(1), under = fst__viridis(-5), nothing = fst__viridis(NAN);
    assert_memory_equal(&low, ((unsigned char[]){0x44, 0x01, 0x54}), 3);
    assert_memory_equal(&high, ((unsigned char[]){0xFD, 0xE7, 0x25}), 3);
    assert_memory_equal(&under, &low, 3);
    assert_memory_equal(&nothing, &low, 3);
    for (int i = 1; i <= 100; i++)
        assert_true(brightness(fst__viridis(i / 100.0)) > brightness(fst__viridis((i - 1) / 100.0)));
}

/* The brightest row of a tone's spectrogram is its frequency's: fs/2 above, -fs/2 below. */
static void check_tone(double frequency)
{
    enum { N = 1024 };
    static float re[N], im[N];
    fst__image m = {0};
    double best = -1, at = 0;
    for (int i = 0; i < N; i++) {
        re[i] = (float)cos(2 * PI * frequency * i);
        im[i] = (float)sin(2 * PI * frequency * i);
    }
    assert_int_equal(fst__spectrogram(re, im, N, &m, NULL), FST_OK);
    for (size_t y = 0; y < m.height; y++) {
        double sum = 0;
        for (size_t x = 0; x < m.width; x++) {
            const unsigned char *p = m.rgb + 3 * (y * m.width + x);
            sum += brightness((fst__colour){p[0], p[1], p[2]});
        }
        if (sum > best) {
            best = sum;
            at = (double)y;
        }
    }
    assert_float_equal(at, ((double)m.height - 1) - (frequency + 0.5) * (double)m.height, 1.0);
    fst__image_release(&m);
}

static void test_spectrogram_shows_where_a_tone_is(void **state)
{
    (void)state;
    check_tone(0.25);
    check_tone(-0.375);
    check_tone(0);
}

static void test_spectrogram_of_little_and_bad(void **state)
{
    (void)state;
    const float odd[5] = {NAN, INFINITY, 1, 0, -1};
    fst__image m = {0};
    for (size_t n = 1; n <= 5; n++) {
        assert_int_equal(fst__spectrogram(odd, NULL, n, &m, NULL), FST_OK);
        assert_int_equal(m.width, 1);
        fst__image_release(&m);
    }
}

static void test_glyphs_differ(void **state)
{
    (void)state;
    for (uint32_t a = 0x20; a < 0x7F; a++)
        for (uint32_t b = a + 1; b < 0x7F; b++)
            if (memcmp(fst__glyph(a), fst__glyph(b), FST__GLYPH_HEIGHT) == 0)
                fail_msg("%c and %c look the same", (char)a, (char)b);
    for (uint32_t a = 0x20; a < 0x7F; a++)
        for (int row = 0; row < FST__GLYPH_HEIGHT; row++)
            assert_true(fst__glyph(a)[row] < 32);
    assert_ptr_equal(fst__glyph(0x1F600), fst__glyph('?'));
}

static void decode(const fst_buf *png, unsigned char **rgb, fst_shape *shape)
{
    fst_error e = {0};
    if (fst_image_decode(rgb, shape, "picture", png->data, png->len, 3, 0, &e))
        fail_msg("%s", e.message);
}

static void test_an_image_is_drawn_as_it_is(void **state)
{
    (void)state;
    const unsigned char data[3 * 4] = {255, 0, 0, 10, 0, 255, 0, 20, 0, 0, 255, 30}; /* red, green / blue, dark */
    fst_sample s = {FST_U8, {3, {3, 2, 2}}, data, "x", NAN};
    fst_buf png = {0};
    unsigned char *rgb = NULL;
    fst_shape shape;
    assert_int_equal(fst_report_sample(&s, "two by two", FST_PICTURE_PNG, &png, NULL), FST_OK);
    decode(&png, &rgb, &shape);
    size_t h = (size_t)shape.dim[1], w = (size_t)shape.dim[2], plane = h * w;
    assert_true(h > 320 && w >= 320);
    /* the picture stands in the lower left corner, 16 pixels off, 160 pixels a pixel */
    for (size_t k = 0; k < 4; k++) {
        size_t x = 16 + 80 + 160 * (k % 2), y = h - 16 - 320 + 80 + 160 * (k / 2);
        for (size_t c = 0; c < 3; c++)
            assert_int_equal(rgb[c * plane + y * w + x], data[c * 4 + k]);
    }
    fst_free(rgb);
    fst_buf_release(&png);
}

static void make_signal(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        x[i] = (float)cos(0.3 * (double)i);
        x[n + i] = (float)sin(0.3 * (double)i);
    }
}

static void test_svg_is_well_formed_whatever_the_title(void **state)
{
    (void)state;
    enum { N = 300 };
    float x[2 * N];
    fst_sample s = {FST_F32, {2, {2, N}}, x, NULL, 3};
    fst_buf svg = {0};
    char why[200];
    size_t at;
    make_signal(x, N);
    assert_int_equal(fst_report_sample(&s, "<script>&\"'\x01\xff]]>", FST_PICTURE_SVG, &svg, NULL), FST_OK);
    if (!xml_check(svg.data, svg.len, &at, why, sizeof why))
        fail_msg("byte %zu: %s", at, why);
    assert_null(strstr(svg.data, "<script"));
    assert_non_null(strstr(svg.data, "&lt;script&gt;"));
    fst_buf_release(&svg);
}

static fst_status tile(void *ctx, size_t row, size_t column, fst_sample *out, bool *there, fst_error *err)
{
    (void)err;
    *there = column <= row;
    *out = (fst_sample){FST_F32, {2, {2, 64}}, ctx, NULL, 1.5};
    return FST_OK;
}

static void test_sheet(void **state)
{
    (void)state;
    float x[128];
    const char *const names[] = {"P-3C_1", "a name that is much longer than there is room for on a sheet", "<&>"};
    fst_sheet s = {.title = "sheet", .rows = 3, .columns = 2, .names = names, .sample = tile, .ctx = x};
    fst_buf png = {0}, svg = {0};
    unsigned char *rgb = NULL;
    fst_shape shape;
    char why[200];
    size_t at;
    make_signal(x, 64);
    assert_int_equal(fst_report_sheet(&s, FST_PICTURE_PNG, &png, NULL), FST_OK);
    decode(&png, &rgb, &shape);
    assert_int_equal(fst_report_sheet(&s, FST_PICTURE_SVG, &svg, NULL), FST_OK);
    if (!xml_check(svg.data, svg.len, &at, why, sizeof why))
        fail_msg("byte %zu: %s", at, why);
    assert_non_null(strstr(svg.data, ">P-3C_1</text>"));
    size_t pictures = 0;
    for (const char *p = svg.data; (p = strstr(p, "<image ")); p++)
        pictures++;
    assert_int_equal(pictures, 1 + 2 + 2);
    s.rows = FST_SHEET_ROWS + 1;
    assert_int_equal(fst_report_sheet(&s, FST_PICTURE_PNG, &png, NULL), FST_E_LIMIT);
    fst_free(rgb);
    fst_buf_release(&png);
    fst_buf_release(&svg);
}

static void test_what_is_no_sample_is_refused(void **state)
{
    (void)state;
    const double x[4] = {0};
    fst_sample s = {FST_F64, {2, {2, 2}}, x, NULL, NAN};
    fst_buf out = {0};
    assert_int_equal(fst_report_sample(&s, "x", FST_PICTURE_PNG, &out, NULL), FST_E_ARGUMENT);
    s.dtype = FST_F32;
    s.shape = (fst_shape){2, {2, 1 << 30}};
    assert_int_equal(fst_report_sample(&s, "x", FST_PICTURE_PNG, &out, NULL), FST_E_LIMIT);
    assert_int_equal(out.len, 0);
    fst_buf_release(&out);
}

static void test_every_failing_allocation(void **state)
{
    (void)state;
    enum { N = 64 };
    float x[2 * N];
    fst_sample s = {FST_F32, {2, {2, N}}, x, NULL, NAN};
    make_signal(x, N);
    for (int format = 0; format < 2; format++) {
        fst_status st = FST_E_MEMORY;
        for (uint64_t n = 1; st; n++) {
            fst_buf out = {0};
            fst_alloc_fail_at(n);
            st = fst_report_sample(&s, "x", format ? FST_PICTURE_SVG : FST_PICTURE_PNG, &out, NULL);
            fst_alloc_fail_at(0);
            assert_true(st == FST_OK || st == FST_E_MEMORY);
            assert_true(st == FST_OK || out.len == 0);
            assert_true(n < 1000);
            fst_buf_release(&out);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_viridis_gets_brighter),
        cmocka_unit_test(test_spectrogram_shows_where_a_tone_is),
        cmocka_unit_test(test_spectrogram_of_little_and_bad),
        cmocka_unit_test(test_glyphs_differ),
        cmocka_unit_test(test_an_image_is_drawn_as_it_is),
        cmocka_unit_test(test_svg_is_well_formed_whatever_the_title),
        cmocka_unit_test(test_sheet),
        cmocka_unit_test(test_what_is_no_sample_is_refused),
        cmocka_unit_test(test_every_failing_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

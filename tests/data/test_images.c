/* Decoding PNG and JPEG, and folders of them. */
#define _GNU_SOURCE
#include "files.h"

#include <jpeglib.h>

enum { W = 3, H = 2 };

static fst_status decode(const char *name, unsigned char **out, fst_shape *shape, int channels, size_t max,
                         fst_error *err)
{
    fst_buf file = {0};
    assert_int_equal(fst_file_read(in_work(name), 1 << 20, &file, NULL), FST_OK);
    /* an exact copy, so that a sanitizer sees a read after the end */
    unsigned char *exact = malloc(file.len ? file.len : 1);
    memcpy(exact, file.data, file.len);
    fst_status s = fst_image_decode(out, shape, name, exact, file.len, channels, max, err);
    free(exact);
    fst_buf_release(&file);
    return s;
}

static void check(const char *name, int channels, const fst_shape *want, const unsigned char *pixels, int tolerance)
{
    unsigned char *out = NULL;
    fst_shape shape = {0};
    assert_ok(decode(name, &out, &shape, channels, 0, err));
    assert_true(fst_shape_equal(&shape, want));
    for (int64_t i = 0; i < fst_shape_count(want); i++)
        assert_in_range(out[i] + 16, pixels[i] + 16 - tolerance, pixels[i] + 16 + tolerance);
    fst_free(out);
}

static void grey_png(void **state)
{
    static const unsigned char grey[W * H] = {0, 1, 127, 128, 254, 255};
    unsigned char three[3 * W * H];
    (void)state;
    for (int c = 0; c < 3; c++)
        memcpy(three + c * W * H, grey, W * H);
    put_png("grey.png", 1, W, H, grey);
    check("grey.png", 0, &FST_SHAPE(1, H, W), grey, 0);
    check("grey.png", 1, &FST_SHAPE(1, H, W), grey, 0);
    check("grey.png", 3, &FST_SHAPE(3, H, W), three, 0);
}

static void colour_png(void **state)
{
    /* red, green, blue, white, black, (10, 20, 30) */
    static const unsigned char rgb[3 * W * H] = {255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 10, 20, 30};
    static const unsigned char planes[3 * W * H] = {255, 0, 0,  255, 0, 10,  0,   255, 0,
                                                    255, 0, 20, 0,   0, 255, 255, 0,   30};
    /* 0.299 R + 0.587 G + 0.114 B, rounded: 76.2, 149.7, 29.1, 255, 0, 18.2 */
    static const unsigned char grey[W * H] = {76, 150, 29, 255, 0, 18};
    (void)state;
    put_png("rgb.png", 3, W, H, rgb);
    check("rgb.png", 0, &FST_SHAPE(3, H, W), planes, 0);
    check("rgb.png", 3, &FST_SHAPE(3, H, W), planes, 0);
    check("rgb.png", 1, &FST_SHAPE(1, H, W), grey, 0);
}

/* As Pillow's convert("RGB") has it: colours count, also under no alpha at all. */
static void alpha_is_dropped(void **state)
{
    static const unsigned char rgba[4 * 3] = {200, 100, 50, 255, 200, 100, 50, 0, 200, 100, 50, 51};
    static const unsigned char planes[9] = {200, 200, 200, 100, 100, 100, 50, 50, 50};
    static const unsigned char grey_alpha[2 * 2] = {7, 0, 250, 128}, grey[2] = {7, 250};
    (void)state;
    put_png("alpha.png", 4, 3, 1, rgba);
    check("alpha.png", 0, &FST_SHAPE(3, 1, 3), planes, 0);
    put_png("grey-alpha.png", 2, 2, 1, grey_alpha);
    check("grey-alpha.png", 0, &FST_SHAPE(1, 1, 2), grey, 0);
}

/* Written with libpng's full interface: 16 bits, a palette, interlacing. */
static void put_raw_png(const char *name, int depth, int type, int interlace, unsigned char **rows)
{
    static const png_color palette[2] = {{10, 20, 30}, {40, 50, 60}};
    char folder[1024];
    snprintf(folder, sizeof folder, "%s", in_work(name));
    FILE *f = fopen(folder, "wb");
    assert_non_null(f);
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_init_io(png, f);
    png_set_IHDR(png, info, W, H, depth, type, interlace, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    if (type == PNG_COLOR_TYPE_PALETTE)
        png_set_PLTE(png, info, palette, 2);
    png_write_info(png, info);
    png_write_image(png, rows);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    fclose(f);
}

static void rare_pngs(void **state)
{
    static unsigned char wide0[2 * W] = {0, 0, 128, 128, 255, 255}, wide1[2 * W] = {1, 1, 2, 2, 3, 3};
    static unsigned char bits0[1] = {0x40}, bits1[1] = {0xA0}; /* 0 1 0, 1 0 1 */
    static const unsigned char grey[6] = {0, 128, 255, 1, 2, 3};
    static const unsigned char planes[18] = {10, 40, 10, 40, 10, 40, 20, 50, 20, 50, 20, 50, 30, 60, 30, 60, 30, 60};
    (void)state;
    put_raw_png("wide.png", 16, PNG_COLOR_TYPE_GRAY, PNG_INTERLACE_NONE, (unsigned char *[]){wide0, wide1});
    check("wide.png", 0, &FST_SHAPE(1, H, W), grey, 0);
    put_raw_png("palette.png", 1, PNG_COLOR_TYPE_PALETTE, PNG_INTERLACE_ADAM7, (unsigned char *[]){bits0, bits1});
    check("palette.png", 0, &FST_SHAPE(3, H, W), planes, 0);
}

static void put_jpeg(const char *name, int components, J_COLOR_SPACE space, const unsigned char *pixel, unsigned size,
                     bool progressive)
{
    struct jpeg_compress_struct c;
    struct jpeg_error_mgr e;
    unsigned char row[256 * 4], *p = row, *file = NULL;
    unsigned long len = 0;
    for (unsigned i = 0; i < size; i++)
        memcpy(row + i * (unsigned)components, pixel, (size_t)components);
    c.err = jpeg_std_error(&e);
    jpeg_create_compress(&c);
    jpeg_mem_dest(&c, &file, &len);
    c.image_width = c.image_height = size;
    c.input_components = components;
    c.in_color_space = space;
    jpeg_set_defaults(&c);
    jpeg_set_quality(&c, 100, TRUE);
    if (progressive)
        jpeg_simple_progression(&c);
    jpeg_start_compress(&c, TRUE);
    while (c.next_scanline < size)
        jpeg_write_scanlines(&c, &p, 1);
    jpeg_finish_compress(&c);
    jpeg_destroy_compress(&c);
    put_file(name, file, len);
    free(file);
}

static void jpegs(void **state)
{
    static const unsigned char orange[3] = {230, 120, 40}, mid[1] = {77};
    unsigned char grey[64], colour[192];
    (void)state;
    memset(grey, 77, sizeof grey);
    for (int c = 0; c < 3; c++)
        memset(colour + 64 * c, orange[c], 64);
    put_jpeg("grey.jpg", 1, JCS_GRAYSCALE, mid, 8, false);
    put_jpeg("colour.jpg", 3, JCS_RGB, orange, 8, false);
    put_jpeg("passes.jpg", 3, JCS_RGB, orange, 8, true);
    check("grey.jpg", 0, &FST_SHAPE(1, 8, 8), grey, 0);
    check("colour.jpg", 0, &FST_SHAPE(3, 8, 8), colour, 2);
    check("passes.jpg", 0, &FST_SHAPE(3, 8, 8), colour, 2);
    memset(grey, 144, sizeof grey); /* 0.299 * 230 + 0.587 * 120 + 0.114 * 40 = 143.8 */
    check("colour.jpg", 1, &FST_SHAPE(1, 8, 8), grey, 2);
}

/* Inks are stored inverted, 255 being none: 200, 100 and 50 under 128 of black give 128 times that over 255. */
static void four_inks_become_rgb(void **state)
{
    static const unsigned char red[4] = {255, 0, 0, 255}, dark[4] = {200, 100, 50, 128};
    unsigned char planes[192];
    (void)state;
    memset(planes, 255, 64);
    memset(planes + 64, 0, 128);
    put_jpeg("red.jpg", 4, JCS_CMYK, red, 8, false);
    check("red.jpg", 0, &FST_SHAPE(3, 8, 8), planes, 2);
    memset(planes, 100, 64);
    memset(planes + 64, 50, 64);
    memset(planes + 128, 25, 64);
    put_jpeg("dark.jpg", 4, JCS_CMYK, dark, 8, false);
    check("dark.jpg", 0, &FST_SHAPE(3, 8, 8), planes, 2);
}

/* ---- BMP and WebP ------------------------------------------------------------------------------ */

/* red, green, blue; white, black, (10, 20, 30) */
static const unsigned char six[18] = {255, 0, 0, 255, 0, 10, 0, 255, 0, 255, 0, 20, 0, 0, 255, 255, 0, 30};

/* A BMP of 3 x 2 pixels: rows of 12 bytes (24 bits) or 4 bytes (palette of four). */
static size_t bmp(unsigned char *out, unsigned bits, int height, unsigned compression, const void *rest, size_t len)
{
    unsigned char *p = out;
    memset(p, 0, 54);
    memcpy(p, "BM", 2);
    p[10] = (unsigned char)(54 + (bits == 8 ? 16 : compression ? 12 : 0));
    p[14] = 40;
    p[18] = W;
    for (int i = 0; i < 4; i++)
        p[22 + i] = (unsigned char)((uint32_t)height >> 8 * i);
    p[26] = 1;
    p[28] = (unsigned char)bits;
    p[30] = (unsigned char)compression;
    p[46] = bits == 8 ? 4 : 0;
    memcpy(p + 54, rest, len);
    return 54 + len;
}

static void bmps(void **state)
{
    /* bottom row first, each pixel blue, green, red, each row padded to 12 bytes */
    static const unsigned char bgr[24] = {255, 255, 255, 0, 0,   0, 30,  20, 10, 0, 0, 0,
                                          0,   0,   255, 0, 255, 0, 255, 0,  0,  0, 0, 0};
    static const unsigned char coded[24] = {0, 0, 0, 0, 200, 200, 200, 0, 9, 9, 9, 0,
                                            1, 1, 1, 0, 1,   2,   3,   0, 0, 0, 1, 0};
    static const unsigned char grey[6] = {0, 0, 200, 200, 9, 1};
    /* masks of red, green and blue, then alpha, blue, green, red */
    static const unsigned char fields[36] = {0,   0, 0, 255, 0, 0, 255, 0,   0,   255, 0, 0, 7, 0, 0, 255, 7,  0,
                                             255, 0, 7, 255, 0, 0, 7,   255, 255, 255, 7, 0, 0, 0, 7, 30,  20, 10};
    unsigned char file[128], planes[18];
    (void)state;
    put_file("up.bmp", file, bmp(file, 24, H, 0, bgr, sizeof bgr));
    check("up.bmp", 0, &FST_SHAPE(3, H, W), six, 0);
    for (int c = 0; c < 3; c++)
        for (int y = 0; y < H; y++)
            memcpy(planes + 6 * c + W * y, six + 6 * c + W * (1 - y), W);
    put_file("down.bmp", file, bmp(file, 24, -H, 0, bgr, sizeof bgr));
    check("down.bmp", 0, &FST_SHAPE(3, H, W), planes, 0);
    put_file("palette.bmp", file, bmp(file, 8, H, 0, coded, sizeof coded));
    check("palette.bmp", 0, &FST_SHAPE(1, H, W), grey, 0);
    put_file("fields.bmp", file, bmp(file, 32, -H, 3, fields, sizeof fields));
    check("fields.bmp", 0, &FST_SHAPE(3, H, W), six, 0);
}

static void bad_bmps_are_refused(void **state)
{
    static const unsigned char coded[24] = {[16] = 0, [17] = 4};
    unsigned char file[128], *out = NULL;
    fst_shape shape;
    (void)state;
    put_file("bad.bmp", file, bmp(file, 8, H, 0, coded, sizeof coded));
    assert_fails(decode("bad.bmp", &out, &shape, 0, 0, err), FST_E_FORMAT, "a colour beyond its palette");
    put_file("bad.bmp", file, bmp(file, 8, H, 1, coded, sizeof coded));
    assert_fails(decode("bad.bmp", &out, &shape, 0, 0, err), FST_E_UNSUPPORTED, "8 bits a pixel, compression 1");
    put_file("bad.bmp", file, bmp(file, 16, H, 0, coded, sizeof coded));
    assert_fails(decode("bad.bmp", &out, &shape, 0, 0, err), FST_E_UNSUPPORTED, "16 bits a pixel");
    size_t len = bmp(file, 24, H, 0, (unsigned char[24]){0}, 24);
    put_file("bad.bmp", file, len - 1);
    assert_fails(decode("bad.bmp", &out, &shape, 0, 0, err), FST_E_FORMAT, "cannot hold 3 x 2 pixels");
    put_file("bad.bmp", file, 53);
    assert_fails(decode("bad.bmp", &out, &shape, 0, 0, err), FST_E_FORMAT, "its header is not all there");
    file[18] = 0;
    put_file("bad.bmp", file, len);
    assert_fails(decode("bad.bmp", &out, &shape, 0, 0, err), FST_E_LIMIT, "0 x 2 pixels");
    assert_null(out);
}

static const unsigned char webp[66] = "RIFF\x3a\0\0\0WEBPVP8L\x2e\0\0\0\x2f\x02\x40\0\0\x2f\x20\x10\x20\x88\xf0\x9f\x6a"
                                      "\x43\x48\x90\xd0\xfd\xbf\x57\x81\0\x41\x89\xff\x4a\xf3\x1f\x20\x36\x39\xb6\x0a"
                                      "\x14\xa4\x6d\xc0\xe2\xee\x29\x59\x44\xff\xe3\xea";

static void webps(void **state)
{
    unsigned char *out = NULL;
    fst_shape shape;
    (void)state;
    put_file("six.webp", webp, sizeof webp);
#ifdef FST_WITH_WEBP
    unsigned char vast[sizeof webp];
    check("six.webp", 0, &FST_SHAPE(3, H, W), six, 0);
    put_file("cut.webp", webp, sizeof webp - 20);
    assert_fails(decode("cut.webp", &out, &shape, 0, 0, err), FST_E_FORMAT, "damaged or cut off");
    memcpy(vast, webp, sizeof vast);
    memset(vast + 21, 255, 3); /* two times 14 bits */
    vast[24] |= 15;
    put_file("vast.webp", vast, sizeof vast);
    assert_fails(decode("vast.webp", &out, &shape, 0, 0, err), FST_E_FORMAT, "cannot hold 16384 x 16384 pixels");
#else
    assert_fails(decode("six.webp", &out, &shape, 0, 0, err), FST_E_UNSUPPORTED, "built without");
#endif
    assert_null(out);
}

/* A header may promise an image that its file cannot hold: refused before anything is allocated for it. */
static void forged_sizes_are_refused(void **state)
{
    unsigned char *out = NULL;
    fst_shape shape;
    fst_buf png = {0}, jpeg = {0};
    (void)state;
    assert_ok(fst_file_read(in_work("grey.png"), 1 << 20, &png, err));
    unsigned char *p = (unsigned char *)png.data;
    memcpy(p + 16, "\0\0\0\1\x10\0\0\0", 8);
    uint32_t crc = (uint32_t)crc32(0, p + 12, 17);
    for (int i = 0; i < 4; i++)
        p[29 + i] = (unsigned char)(crc >> (24 - 8 * i));
    assert_fails(fst_image_decode(&out, &shape, "forged", p, png.len, 0, 0, err), FST_E_FORMAT,
                 "bytes cannot hold 1 x 268435456 pixels");
    assert_ok(fst_file_read(in_work("grey.jpg"), 1 << 20, &jpeg, err));
    p = (unsigned char *)jpeg.data;
    size_t at = 0;
    while (at + 9 < jpeg.len && !(p[at] == 0xFF && p[at + 1] == 0xC0))
        at++;
    memcpy(p + at + 5, "\x40\0\x40\0", 4);
    assert_fails(fst_image_decode(&out, &shape, "forged", p, jpeg.len, 0, 0, err), FST_E_FORMAT,
                 "bytes cannot hold 16384 x 16384 pixels");
    fst_buf_release(&png);
    fst_buf_release(&jpeg);
    assert_fails(fst_image_decode(&out, &shape, "empty", "", 0, 0, 0, err), FST_E_FORMAT, "the file is empty");
    assert_fails(fst_image_decode(&out, &shape, "page", "<html>", 6, 0, 0, err), FST_E_FORMAT, "an HTML page");
    assert_null(out);
}

static void prefixes_are_refused(void **state)
{
    static const char *const names[] = {"grey.png", "rgb.png", "colour.jpg", "passes.jpg", "up.bmp"};
    (void)state;
    for (int i = 0; i < 5; i++) {
        fst_buf file = {0};
        assert_ok(fst_file_read(in_work(names[i]), 1 << 20, &file, err));
        /* the last ones lack only the end marker */
        for (size_t n = 0; n < file.len; n++) {
            unsigned char *exact = malloc(n ? n : 1), *out = NULL;
            fst_shape shape;
            memcpy(exact, file.data, n);
            assert_int_not_equal(fst_image_decode(&out, &shape, names[i], exact, n, 0, 0, NULL), FST_OK);
            assert_null(out);
            free(exact);
        }
        fst_buf_release(&file);
    }
}

static void limits_come_first(void **state)
{
    unsigned char *out = NULL;
    fst_shape shape;
    fst_buf file = {0};
    (void)state;
    assert_fails(decode("grey.png", &out, &shape, 0, 5, err), FST_E_LIMIT, "3 x 2 pixels, at most 5");
    assert_fails(decode("grey.jpg", &out, &shape, 0, 63, err), FST_E_LIMIT, "8 x 8 pixels, at most 63");
    assert_fails(decode("grey.png", &out, &shape, 2, 0, err), FST_E_ARGUMENT, "1 or 3 channels");
    assert_ok(fst_file_read(in_work("grey.png"), 1 << 20, &file, err));
    /* IHDR's width and height become 2^24 each; its checksum is put right, so that only the limit can object */
    unsigned char *p = (unsigned char *)file.data;
    memcpy(p + 16, "\1\0\0\0\1\0\0\0", 8);
    uint32_t crc = (uint32_t)crc32(0, p + 12, 17);
    for (int i = 0; i < 4; i++)
        p[29 + i] = (unsigned char)(crc >> (24 - 8 * i));
    assert_fails(fst_image_decode(&out, &shape, "huge", p, file.len, 0, 0, err), FST_E_LIMIT, "16777216 x 16777216");
    fst_buf_release(&file);
    assert_fails(fst_image_decode(&out, &shape, "text", "GIF89a", 6, 0, 0, err), FST_E_FORMAT, "neither PNG nor JPEG");
    assert_null(out);
}

/* ---- folders -------------------------------------------------------------------------------- */

static void splits_share_classes(void **state)
{
    static const unsigned char px[3 * W * H] = {9};
    fst_source *s = NULL;
    fst_source_spec spec = {.path = in_work("split"), .split = "test"};
    (void)state;
    put_png("split/train/a/1.png", 3, W, H, px);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_ABSENT, "test split needs");
    put_png("split/train/b/1.png", 3, W, H, px);
    put_png("split/train/c/1.png", 3, W, H, px);
    put_png("split/val/c/1.png", 3, W, H, px);
    assert_ok(fst_source_open(&s, &spec, err));
    assert_int_equal(s->count, 1);
    assert_int_equal(s->classes, 3);
    assert_int_equal(s->labels[0], 2); /* c is class 2, also where a and b have no images */
    assert_string_equal(s->class_names[2], "c");
    fst_source_close(s);
    put_png("split/val/d/1.png", 3, W, H, px);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_MISMATCH, "class \"d\"");
    put_png("split/test/a/1.png", 3, W, H, px); /* test goes before val */
    assert_ok(fst_source_open(&s, &spec, err));
    assert_int_equal(s->labels[0], 0);
    fst_source_close(s);
}

static void sizes_must_agree(void **state)
{
    static const unsigned char px[3 * 4 * 4] = {9};
    fst_source *s = NULL;
    fst_source_spec spec = {.path = in_work("sizes")};
    (void)state;
    put_png("sizes/a/1.png", 3, W, H, px);
    put_png("sizes/a/2.png", 3, 4, 4, px);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_MISMATCH, "2.png: 4 x 4 pixels");
    spec.image_height = 4;
    assert_fails(fst_source_open(&s, &spec, err), FST_E_MISMATCH, "1.png: 2 x 3 pixels");
    spec.limit = 1;
    spec.image_height = H;
    assert_ok(fst_source_open(&s, &spec, err));
    fst_source_close(s);
}

static void bad_folders_are_refused(void **state)
{
    static const unsigned char px[3 * W * H] = {9};
    fst_source *s = NULL;
    fst_source_spec spec = {.format = "folder", .path = in_work("bad")};
    (void)state;
    assert_ok(fst_make_folders(in_work("bad"), err));
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "0 class folders");
    assert_ok(fst_make_folders(in_work("bad/a"), err));
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "no PNG or JPEG file");
    put_png("bad/a/1.png", 3, W, H, px);
    put_file("bad/a/2.jpg", "not a picture", 13);
    assert_fails(fst_source_open(&s, &spec, err), FST_E_FORMAT, "2.jpg: neither PNG nor JPEG");
    spec.classes = 2;
    assert_fails(fst_source_open(&s, &spec, err), FST_E_CONFIG, "1 class folders, but 2");
    spec.classes = 0;
    spec.image_channels = 2;
    assert_fails(fst_source_open(&s, &spec, err), FST_E_CONFIG, "1 or 3");
    spec.image_channels = 0;
    spec.path = in_work("bad/a/1.png");
    assert_fails(fst_source_open(&s, &spec, err), FST_E_IO, "not a folder");
    assert_null(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grey_png),
        cmocka_unit_test(colour_png),
        cmocka_unit_test(alpha_is_dropped),
        cmocka_unit_test(rare_pngs),
        cmocka_unit_test(jpegs),
        cmocka_unit_test(four_inks_become_rgb),
        cmocka_unit_test(bmps),
        cmocka_unit_test(bad_bmps_are_refused),
        cmocka_unit_test(webps),
        cmocka_unit_test(forged_sizes_are_refused),
        cmocka_unit_test(prefixes_are_refused),
        cmocka_unit_test(limits_come_first),
        cmocka_unit_test(splits_share_classes),
        cmocka_unit_test(sizes_must_agree),
        cmocka_unit_test(bad_folders_are_refused),
    };
    return cmocka_run_group_tests(tests, make_work_folder, remove_work_folder);
}

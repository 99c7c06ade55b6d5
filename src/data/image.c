/*
 * One PNG or JPEG from memory to (channels, height, width) bytes. Both libraries report errors by a
 * jump; each jump ends in the one function that set it up, and everything that has to be freed lives
 * in a struct outside that function. No colour management: values are taken as they stand.
 */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>
#include <png.h>

#include "fedstill/data.h"

/* 0 asks for this: enough for any photograph. */
#define DEFAULT_MAX_PIXELS ((size_t)1 << 28)
enum { MAX_JPEG_SCANS = 200, PNG_MAX_CHUNKS = 1000, PNG_MAX_CHUNK_BYTES = 8 << 20 };

/* What both decoders fill: interleaved pixels. */
struct picture {
    const char *name;
    size_t max_pixels;
    unsigned char *pixels;
    size_t width, height, depth; /* depth: bytes a pixel: 1 grey, 3 colour, 4 colour and alpha */
    bool grey;                   /* the file has no colour */
    fst_status status;
    fst_error *err;
};

static bool picture_reserve(struct picture *p, size_t width, size_t height, size_t depth)
{
    if (width == 0 || height == 0 || width > p->max_pixels / height) {
        p->status = fst_fail(p->err, FST_E_LIMIT, "%s: %zu x %zu pixels, at most %zu are decoded", p->name, width,
                             height, p->max_pixels);
        return false;
    }
    p->width = width;
    p->height = height;
    p->depth = depth;
    p->pixels = fst_alloc(width * height * depth);
    if (!p->pixels)
        p->status = fst_fail_memory(p->err, width * height * depth);
    return p->pixels;
}

/* ---- PNG ------------------------------------------------------------------------------------ */

struct png_input {
    struct picture *picture;
    const unsigned char *data;
    size_t len, at;
    png_structp png;
    png_infop info;
    png_bytep *rows;
    jmp_buf jump;
};

static void png_failed(png_structp png, png_const_charp message)
{
    struct png_input *in = png_get_error_ptr(png);
    if (!in->picture->status)
        in->picture->status =
            fst_fail(in->picture->err, FST_E_FORMAT, "%s: damaged PNG: %s", in->picture->name, message);
    longjmp(in->jump, 1);
}

static void png_warned(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static png_voidp png_take(png_structp png, png_alloc_size_t size)
{
    struct png_input *in = png_get_mem_ptr(png);
    void *p = fst_alloc(size);
    if (!p)
        in->picture->status = fst_fail_memory(in->picture->err, size);
    return p;
}

static void png_give(png_structp png, png_voidp p)
{
    (void)png;
    fst_free(p);
}

static void png_bytes(png_structp png, png_bytep dst, size_t len)
{
    struct png_input *in = png_get_io_ptr(png);
    if (len > in->len - in->at)
        png_error(png, "cut off");
    memcpy(dst, in->data + in->at, len);
    in->at += len;
}

/* Whatever the file has becomes 8-bit RGBA. */
static void png_to_rgba(struct png_input *in)
{
    png_set_expand(in->png);
    png_set_scale_16(in->png);
    png_set_gray_to_rgb(in->png);
    png_set_add_alpha(in->png, 255, PNG_FILLER_AFTER);
    png_set_interlace_handling(in->png);
    png_read_update_info(in->png, in->info);
}

static void png_run(struct png_input *in)
{
    struct picture *p = in->picture;
    in->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, in, png_failed, png_warned, in, png_take, png_give);
    in->info = in->png ? png_create_info_struct(in->png) : NULL;
    if (!in->info) {
        p->status = fst_fail_memory(p->err, 1024);
        return;
    }
    png_set_user_limits(in->png, 0x7FFFFFFF, 0x7FFFFFFF); /* picture_reserve limits their product */
    png_set_chunk_cache_max(in->png, PNG_MAX_CHUNKS);
    png_set_chunk_malloc_max(in->png, PNG_MAX_CHUNK_BYTES);
    png_set_read_fn(in->png, in, png_bytes);
    png_read_info(in->png, in->info);
    size_t width = png_get_image_width(in->png, in->info), height = png_get_image_height(in->png, in->info);
    p->grey = !(png_get_color_type(in->png, in->info) & PNG_COLOR_MASK_COLOR);
    if (!picture_reserve(p, width, height, 4))
        return;
    png_to_rgba(in);
    in->rows = fst_alloc(height * sizeof *in->rows);
    if (!in->rows || png_get_rowbytes(in->png, in->info) != width * 4) {
        p->status = in->rows ? fst_fail(p->err, FST_E_UNSUPPORTED, "%s: a PNG of an unknown kind", p->name)
                             : fst_fail_memory(p->err, height * sizeof *in->rows);
        return;
    }
    for (size_t y = 0; y < height; y++)
        in->rows[y] = p->pixels + y * width * 4;
    png_read_image(in->png, in->rows);
    png_read_end(in->png, NULL);
}

static void png_guarded(struct png_input *in)
{
    if (!setjmp(in->jump))
        png_run(in);
}

static void decode_png(struct picture *p, const unsigned char *data, size_t len)
{
    struct png_input in = {.picture = p, .data = data, .len = len};
    png_guarded(&in);
    png_destroy_read_struct(&in.png, &in.info, NULL);
    fst_free(in.rows);
}

/* ---- JPEG ----------------------------------------------------------------------------------- */

struct jpeg_input {
    struct jpeg_error_mgr errors; /* first: the library hands this back */
    struct jpeg_progress_mgr progress;
    struct picture *picture;
    struct jpeg_decompress_struct jpeg;
    jmp_buf jump;
};

static void jpeg_failed(j_common_ptr c)
{
    struct jpeg_input *in = (struct jpeg_input *)c->err;
    char text[JMSG_LENGTH_MAX];
    if (!in->picture->status) {
        c->err->format_message(c, text);
        in->picture->status = fst_fail(in->picture->err, FST_E_FORMAT, "%s: damaged JPEG: %s", in->picture->name, text);
    }
    longjmp(in->jump, 1);
}

/* The library only warns about missing or broken pixels and paints them grey: here that is an error. */
static void jpeg_message(j_common_ptr c, int level)
{
    int code = c->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE))
        jpeg_failed(c);
}

/* A small progressive file can ask for thousands of passes over a large image. */
static void jpeg_progress(j_common_ptr c)
{
    struct jpeg_input *in = (struct jpeg_input *)c->err;
    if (in->jpeg.input_scan_number <= MAX_JPEG_SCANS)
        return;
    in->picture->status =
        fst_fail(in->picture->err, FST_E_LIMIT, "%s: a JPEG of more than %d scans", in->picture->name, MAX_JPEG_SCANS);
    longjmp(in->jump, 1);
}

static void jpeg_run(struct jpeg_input *in, const unsigned char *data, size_t len)
{
    struct picture *p = in->picture;
    jpeg_create_decompress(&in->jpeg);
    in->progress.progress_monitor = jpeg_progress;
    in->jpeg.progress = &in->progress;
    in->jpeg.mem->max_memory_to_use = 1L << 30;
    jpeg_mem_src(&in->jpeg, data, len);
    jpeg_read_header(&in->jpeg, TRUE);
    if (in->jpeg.num_components != 1 && in->jpeg.num_components != 3) {
        p->status =
            fst_fail(p->err, FST_E_UNSUPPORTED, "%s: a JPEG of %d colour components, only grey and RGB are read",
                     p->name, in->jpeg.num_components);
        return;
    }
    p->grey = in->jpeg.num_components == 1;
    in->jpeg.out_color_space = p->grey ? JCS_GRAYSCALE : JCS_RGB;
    in->jpeg.dct_method = JDCT_ISLOW; /* the same pixels on every machine */
    if (!picture_reserve(p, in->jpeg.image_width, in->jpeg.image_height, p->grey ? 1 : 3))
        return;
    jpeg_start_decompress(&in->jpeg);
    while (in->jpeg.output_scanline < in->jpeg.output_height) {
        JSAMPROW row = p->pixels + in->jpeg.output_scanline * p->width * p->depth;
        jpeg_read_scanlines(&in->jpeg, &row, 1);
    }
    jpeg_finish_decompress(&in->jpeg);
}

static void jpeg_guarded(struct jpeg_input *in, const unsigned char *data, size_t len)
{
    if (!setjmp(in->jump))
        jpeg_run(in, data, len);
}

static void decode_jpeg(struct picture *p, const unsigned char *data, size_t len)
{
    struct jpeg_input in = {.picture = p};
    in.jpeg.err = jpeg_std_error(&in.errors);
    in.errors.error_exit = jpeg_failed;
    in.errors.emit_message = jpeg_message;
    jpeg_guarded(&in, data, len);
    jpeg_destroy_decompress(&in.jpeg);
}

/* ---- to planes ------------------------------------------------------------------------------ */

static unsigned over_black(unsigned v, unsigned alpha)
{
    return (v * alpha + 127) / 255;
}

/* ITU-R 601 luma in 16-bit fixed point; grey stays exactly what it was. */
static unsigned char luma(const unsigned char *rgb)
{
    return (unsigned char)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 32768u) >> 16);
}

static void to_planes(unsigned char *out, const struct picture *p, int channels)
{
    size_t n = p->width * p->height;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *px = p->pixels + i * p->depth;
        unsigned char rgb[3];
        for (size_t c = 0; c < 3; c++) {
            unsigned v = px[p->depth == 1 ? 0 : c];
            rgb[c] = (unsigned char)(p->depth == 4 ? over_black(v, px[3]) : v);
        }
        if (channels == 1) {
            out[i] = luma(rgb);
            continue;
        }
        for (size_t c = 0; c < 3; c++)
            out[c * n + i] = rgb[c];
    }
}

fst_status fst_image_decode(unsigned char **out, fst_shape *shape, const char *name, const void *data, size_t len,
                            int channels, size_t max_pixels, fst_error *err)
{
    static const unsigned char png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'}, jpeg[3] = {0xFF, 0xD8, 0xFF};
    struct picture p = {.name = name, .max_pixels = max_pixels ? max_pixels : DEFAULT_MAX_PIXELS, .err = err};
    if (channels != 0 && channels != 1 && channels != 3)
        return fst_fail(err, FST_E_ARGUMENT, "%s: images have 1 or 3 channels, not %d", name, channels);
    if (len >= sizeof png && !memcmp(data, png, sizeof png))
        decode_png(&p, data, len);
    else if (len >= sizeof jpeg && !memcmp(data, jpeg, sizeof jpeg))
        decode_jpeg(&p, data, len);
    else
        return fst_fail(err, FST_E_FORMAT, "%s: neither PNG nor JPEG", name);
    if (!p.status) {
        int planes = channels ? channels : p.grey ? 1 : 3;
        size_t bytes = (size_t)planes * p.width * p.height;
        unsigned char *result = fst_alloc(bytes);
        if (result) {
            to_planes(result, &p, planes);
            *out = result;
            *shape = FST_SHAPE(planes, (int64_t)p.height, (int64_t)p.width);
        } else {
            p.status = fst_fail_memory(err, bytes);
        }
    }
    fst_free(p.pixels);
    return p.status;
}

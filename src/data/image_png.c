/*
 * PNG by libpng, one row at a time; only interlaced images need all rows at once. The library reports errors by a
 * jump; it ends in the one function that set it up, and everything that has to be freed lives in a struct outside that
 * function.
 */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <png.h>

#include "image.h"

enum { MAX_CHUNKS = 1000, MAX_CHUNK_BYTES = 8 << 20 };
/* A deflated byte cannot stand for more than this many (zlib's technical notes: 1032:1). */
enum { DEFLATE_MOST = 1032 };

struct png_input {
    struct fst__picture *picture;
    size_t at;
    png_structp png;
    png_infop info;
    unsigned char *pixels; /* a row, or all of an interlaced image */
    png_bytep *rows;
    jmp_buf jump;
};

static void failed(png_structp png, png_const_charp message)
{
    struct png_input *in = png_get_error_ptr(png);
    if (!in->picture->status)
        in->picture->status =
            fst_fail(in->picture->err, FST_E_FORMAT, "%s: damaged PNG: %s", in->picture->name, message);
    longjmp(in->jump, 1);
}

static void warned(png_structp png, png_const_charp message)
{
    (void)png;
    (void)message;
}

static png_voidp take(png_structp png, png_alloc_size_t size)
{
    struct png_input *in = png_get_mem_ptr(png);
    void *p = fst_alloc(size);
    if (!p)
        in->picture->status = fst_fail_memory(in->picture->err, size);
    return p;
}

static void give(png_structp png, png_voidp p)
{
    (void)png;
    fst_free(p);
}

static void next_bytes(png_structp png, png_bytep dst, size_t len)
{
    struct png_input *in = png_get_io_ptr(png);
    if (len > in->picture->len - in->at)
        png_error(png, "cut off");
    memcpy(dst, in->picture->data + in->at, len);
    in->at += len;
}

/* Whatever the file has becomes 8-bit grey or RGB; an alpha channel is dropped, as Pillow does. */
static void to_8_bits(struct png_input *in)
{
    png_set_palette_to_rgb(in->png);
    png_set_expand_gray_1_2_4_to_8(in->png);
    png_set_scale_16(in->png);
    png_set_strip_alpha(in->png);
}

static bool reserve(struct png_input *in, size_t bytes, size_t rows)
{
    struct fst__picture *p = in->picture;
    in->pixels = fst_alloc(bytes * rows);
    in->rows = rows > 1 ? fst_alloc(rows * sizeof *in->rows) : NULL;
    if (!in->pixels || (rows > 1 && !in->rows)) {
        p->status = fst_fail_memory(p->err, bytes * rows);
        return false;
    }
    for (size_t y = 0; y < rows && in->rows; y++)
        in->rows[y] = in->pixels + y * bytes;
    return true;
}

static void read_rows(struct png_input *in, bool interlaced, int depth)
{
    struct fst__picture *p = in->picture;
    size_t bytes = png_get_rowbytes(in->png, in->info);
    if (bytes != p->width * (size_t)depth) {
        p->status = fst_fail(p->err, FST_E_UNSUPPORTED, "%s: a PNG of an unknown kind", p->name);
        return;
    }
    if (!reserve(in, bytes, interlaced ? p->height : 1))
        return;
    if (in->rows)
        png_read_image(in->png, in->rows);
    for (size_t y = 0; y < p->height; y++) {
        if (!in->rows)
            png_read_row(in->png, in->pixels, NULL);
        fst__picture_row(p, y, in->rows ? in->rows[y] : in->pixels, depth);
    }
    png_read_end(in->png, NULL);
}

static void run(struct png_input *in)
{
    struct fst__picture *p = in->picture;
    in->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, in, failed, warned, in, take, give);
    in->info = in->png ? png_create_info_struct(in->png) : NULL;
    if (!in->info) {
        p->status = fst_fail_memory(p->err, 1024);
        return;
    }
    png_set_user_limits(in->png, 0x7FFFFFFF, 0x7FFFFFFF); /* fst__picture_start limits their product */
    png_set_chunk_cache_max(in->png, MAX_CHUNKS);
    png_set_chunk_malloc_max(in->png, MAX_CHUNK_BYTES);
    png_set_read_fn(in->png, in, next_bytes);
    png_read_info(in->png, in->info);
    bool grey = !(png_get_color_type(in->png, in->info) & PNG_COLOR_MASK_COLOR);
    bool interlaced = png_get_interlace_type(in->png, in->info) != PNG_INTERLACE_NONE;
    unsigned bits = png_get_bit_depth(in->png, in->info) * png_get_channels(in->png, in->info);
    if (!fst__picture_start(p, png_get_image_width(in->png, in->info), png_get_image_height(in->png, in->info), grey,
                            (uint64_t)p->len * DEFLATE_MOST * 8 / (bits ? bits : 1)))
        return;
    to_8_bits(in);
    if (interlaced)
        png_set_interlace_handling(in->png);
    png_read_update_info(in->png, in->info);
    read_rows(in, interlaced, grey ? 1 : 3);
}

static void guarded(struct png_input *in)
{
    if (!setjmp(in->jump))
        run(in);
}

void fst__decode_png(struct fst__picture *p)
{
    struct png_input in = {.picture = p};
    guarded(&in);
    png_destroy_read_struct(&in.png, &in.info, NULL);
    fst_free(in.pixels);
    fst_free(in.rows);
}

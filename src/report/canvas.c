/* Pixels: lines with soft edges, rectangles, text in the built-in font, pictures scaled by whole pixels, PNG. No
 * transparency, no clipping but the picture's own edges. */
#include <math.h>
#include <png.h>
#include <string.h>

#include "surface.h"
#include "text.h"

enum { MAX_SIDE = 16384 };

fst_status fst__image_init(fst__image *m, size_t width, size_t height, fst_error *err)
{
    if (!width || !height || width > MAX_SIDE || height > MAX_SIDE)
        return fst_fail(err, FST_E_LIMIT, "a picture of %zu x %zu pixels: 1 to %d are possible", width, height,
                        MAX_SIDE);
    unsigned char *rgb = fst_alloc(width * height * 3);
    if (!rgb)
        return fst_fail_memory(err, width * height * 3);
    memset(rgb, 0xFF, width * height * 3);
    *m = (fst__image){width, height, rgb};
    return FST_OK;
}

void fst__image_release(fst__image *m)
{
    fst_free(m->rgb);
    *m = (fst__image){0};
}

fst_status fst__image_png(const fst__image *m, fst_buf *out, fst_error *err)
{
    png_image p = {.version = PNG_IMAGE_VERSION,
                   .width = (png_uint_32)m->width,
                   .height = (png_uint_32)m->height,
                   .format = PNG_FORMAT_RGB};
    png_alloc_size_t size = PNG_IMAGE_PNG_SIZE_MAX(p);
    unsigned char *data = fst_alloc(size);
    if (!data)
        return fst_fail_memory(err, size);
    fst_status st = FST_OK;
    if (!png_image_write_to_memory(&p, data, &size, 0, m->rgb, 0, NULL))
        st = fst_fail(err, FST_E_MEMORY, "writing a PNG of %zu x %zu pixels: %s", m->width, m->height, p.message);
    png_image_free(&p);
    if (!st)
        st = fst_buf_append(out, data, size, err);
    fst_free(data);
    return st;
}

fst_status fst__image_address(const fst__image *m, fst_buf *out, fst_error *err)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    fst_buf png = {0};
    fst_status st = fst__image_png(m, &png, err);
    if (!st)
        st = fst_buf_printf(out, err, "data:image/png;base64,");
    for (size_t i = 0; !st && i < png.len; i += 3) {
        uint32_t v = 0;
        char four[4] = "====";
        size_t have = png.len - i < 3 ? png.len - i : 3;
        for (size_t k = 0; k < 3; k++)
            v = v << 8 | (k < have ? (unsigned char)png.data[i + k] : 0);
        for (size_t k = 0; k <= have; k++)
            four[k] = digits[v >> (18 - 6 * k) & 63];
        st = fst_buf_append(out, four, 4, err);
    }
    fst_buf_release(&png);
    return st;
}

static void blend(fst__image *m, long x, long y, double share, fst__colour c)
{
    const unsigned char with[3] = {c.r, c.g, c.b};
    if (x < 0 || y < 0 || x >= (long)m->width || y >= (long)m->height || !(share > 0))
        return;
    unsigned char *p = m->rgb + 3 * ((size_t)y * m->width + (size_t)x);
    share = share < 1 ? share : 1;
    for (int k = 0; k < 3; k++)
        p[k] = (unsigned char)lround(p[k] * (1 - share) + with[k] * share);
}

static long within(double v, double most)
{
    return (long)(v < 0 ? 0 : v > most ? most : v);
}

void fst__canvas_rect(fst__image *m, double x, double y, double w, double h, fst__colour c)
{
    long x1 = within(round(x + w), (double)m->width), y1 = within(round(y + h), (double)m->height);
    for (long v = within(round(y), (double)m->height); v < y1; v++)
        for (long u = within(round(x), (double)m->width); u < x1; u++)
            blend(m, u, v, 1, c);
}

/* A pixel's share is how far its middle lies inside the line, half a pixel being soft. */
void fst__canvas_line(fst__image *m, fst__point a, fst__point b, double width, fst__colour c)
{
    double dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy, r = width / 2 + 1;
    if (!isfinite(length2))
        return;
    long x1 = within(fmax(a.x, b.x) + r, (double)m->width), y1 = within(fmax(a.y, b.y) + r, (double)m->height);
    for (long y = within(fmin(a.y, b.y) - r, (double)m->height); y <= y1; y++)
        for (long x = within(fmin(a.x, b.x) - r, (double)m->width); x <= x1; x++) {
            double px = (double)x + 0.5 - a.x, py = (double)y + 0.5 - a.y;
            double t = length2 > 0 ? (px * dx + py * dy) / length2 : 0;
            t = t < 0 ? 0 : t > 1 ? 1 : t;
            blend(m, x, y, width / 2 + 0.5 - hypot(px - t * dx, py - t * dy), c);
        }
}

void fst__canvas_text(fst__image *m, double x, double y, int scale, fst__colour c, const char *text)
{
    uint32_t code;
    x = round(x);
    y = round(y - FST__GLYPH_HEIGHT * scale / 2.0);
    while (*text) {
        text += fst__utf8_next(text, &code);
        const unsigned char *g = fst__glyph(code);
        for (int row = 0; row < FST__GLYPH_HEIGHT; row++)
            for (int k = 0; k < 5; k++)
                if (g[row] & (16 >> k))
                    fst__canvas_rect(m, x + k * scale, y + row * scale, scale, scale, c);
        x += FST__GLYPH_WIDTH * scale;
    }
}

void fst__canvas_image(fst__image *m, double x, double y, double w, double h, const fst__image *from)
{
    long x0 = lround(x), y0 = lround(y), x1 = lround(x + w), y1 = lround(y + h);
    for (long v = y0; v < y1; v++)
        for (long u = x0; u < x1; u++) {
            size_t sx = (size_t)(u - x0) * from->width / (size_t)(x1 - x0);
            size_t sy = (size_t)(v - y0) * from->height / (size_t)(y1 - y0);
            const unsigned char *p = from->rgb + 3 * (sy * from->width + sx);
            blend(m, u, v, 1, (fst__colour){p[0], p[1], p[2]});
        }
}

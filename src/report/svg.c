/* The surface: each call goes to the pixels of canvas.c or becomes an SVG element. */
#include <math.h>
#include <string.h>

#include "page.h"
#include "surface.h"
#include "text.h"

fst_status fst__surface_begin(fst__surface *s, bool png, size_t width, size_t height, const char *title, fst_buf *out,
                              fst_error *err)
{
    fst__surface n = {.width = width, .height = height, .out = png ? NULL : out, .err = err};
    fst_status st = png ? fst__image_init(&n.pixels, width, height, err) : FST_OK;
    if (!st && !png) {
        fst__page p = {.out = out, .err = err};
        fst__putf(&p,
                  "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %zu %zu\" width=\"%zu\" height=\"%zu\" "
                  "role=\"img\" font-family=\"sans-serif\"><title>",
                  width, height, width, height);
        fst__say(&p, title);
        fst__putf(&p, "</title>\n<rect width=\"%zu\" height=\"%zu\" fill=\"#fff\"/>\n", width, height);
        st = p.status;
    }
    if (!st)
        *s = n;
    return st;
}

fst_status fst__surface_end(fst__surface *s, fst_buf *out)
{
    fst_status st = s->status;
    if (!st)
        st = s->out ? fst_buf_append(out, "</svg>\n", 7, s->err) : fst__image_png(&s->pixels, out, s->err);
    fst__image_release(&s->pixels);
    return st;
}

void fst__draw_rect(fst__surface *s, double x, double y, double w, double h, fst__colour c)
{
    if (s->status)
        return;
    if (!s->out)
        fst__canvas_rect(&s->pixels, x, y, w, h, c);
    else
        s->status = fst_buf_printf(s->out, s->err,
                                   "<rect x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%.6g\" "
                                   "fill=\"#%02x%02x%02x\"/>\n",
                                   x, y, w, h, c.r, c.g, c.b);
}

void fst__draw_lines(fst__surface *s, const fst__point *p, size_t n, double width, fst__colour c)
{
    if (s->status || n < 2)
        return;
    if (!s->out) {
        for (size_t i = 0; i + 1 < n; i++)
            fst__canvas_line(&s->pixels, p[i], p[i + 1], width, c);
        return;
    }
    s->status = fst_buf_printf(s->out, s->err,
                               "<polyline fill=\"none\" stroke=\"#%02x%02x%02x\" stroke-width=\"%.3g\" points=\"", c.r,
                               c.g, c.b, width);
    for (size_t i = 0; !s->status && i < n; i++)
        s->status = fst_buf_printf(s->out, s->err, "%s%.5g,%.5g", i ? " " : "", p[i].x, p[i].y);
    if (!s->status)
        s->status = fst_buf_append(s->out, "\"/>\n", 4, s->err);
}

void fst__draw_dots(fst__surface *s, const fst__point *p, size_t n, double radius, fst__colour c)
{
    if (s->status || !n)
        return;
    if (!s->out) {
        for (size_t i = 0; i < n; i++)
            fst__canvas_line(&s->pixels, p[i], p[i], 2 * radius, c);
        return;
    }
    s->status = fst_buf_printf(s->out, s->err, "<g fill=\"#%02x%02x%02x\">", c.r, c.g, c.b);
    for (size_t i = 0; !s->status && i < n; i++)
        s->status =
            fst_buf_printf(s->out, s->err, "<circle cx=\"%.5g\" cy=\"%.5g\" r=\"%.3g\"/>", p[i].x, p[i].y, radius);
    if (!s->status)
        s->status = fst_buf_append(s->out, "</g>\n", 5, s->err);
}

/* The text without what does not fit; ASCII for the font. */
static size_t cut_text(char *out, size_t size, const char *text, double room, int scale)
{
    size_t n = 0, most = room > 0 ? (size_t)(room / (FST__GLYPH_WIDTH * scale)) : size;
    uint32_t code;
    most = most < size ? most : size - 1;
    while (*text && n < most) {
        text += fst__utf8_next(text, &code);
        out[n++] = code >= 0x20 && code < 0x7F ? (char)code : '?';
    }
    if (*text)
        for (size_t i = 1; i <= 3 && i <= n; i++)
            out[n - i] = '.';
    out[n] = 0;
    return n;
}

void fst__draw_text(fst__surface *s, double x, double y, int scale, fst__anchor anchor, double room, fst__colour c,
                    const char *text)
{
    static const char *const anchors[] = {"start", "middle", "end"};
    char line[256];
    if (s->status)
        return;
    size_t n = cut_text(line, sizeof line, text, room, scale);
    if (!s->out) {
        double w = (double)(n * FST__GLYPH_WIDTH * (size_t)scale);
        fst__canvas_text(&s->pixels,
                         x - (anchor == FST__START    ? 0
                              : anchor == FST__MIDDLE ? w / 2
                                                      : w),
                         y, scale, c, line);
        return;
    }
    fst__page p = {.out = s->out, .err = s->err};
    fst__putf(&p, "<text x=\"%.6g\" y=\"%.6g\" font-size=\"%d\" text-anchor=\"%s\" fill=\"#%02x%02x%02x\">", x,
              y + 3.6 * scale, 10 * scale, anchors[anchor], c.r, c.g, c.b);
    fst__say(&p, room > 0 && n + 1 > (size_t)(room / (FST__GLYPH_WIDTH * scale)) ? line : text);
    fst__put(&p, "</text>\n");
    s->status = p.status;
}

void fst__draw_image(fst__surface *s, double x, double y, double w, double h, const fst__image *m)
{
    if (s->status)
        return;
    if (!s->out) {
        fst__canvas_image(&s->pixels, x, y, w, h, m);
        return;
    }
    s->status = fst_buf_printf(s->out, s->err,
                               "<image x=\"%.6g\" y=\"%.6g\" width=\"%.6g\" height=\"%.6g\" "
                               "preserveAspectRatio=\"none\" style=\"image-rendering:pixelated\" href=\"",
                               x, y, w, h);
    if (!s->status)
        s->status = fst__image_address(m, s->out, s->err);
    if (!s->status)
        s->status = fst_buf_append(s->out, "\"/>\n", 4, s->err);
}

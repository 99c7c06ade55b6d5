/* Samples as pictures: one in detail, or a sheet of all classes. It draws what it is given and measures nothing. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sample.h"

enum { MARGIN = 16, TITLE = 44, PLOT_POINTS = 4096, DOTS = 4096, MAX_ELEMENTS = 1 << 26 };
enum { TILE_WIDTH = 160, TILE_HEIGHT = 104, NAME_WIDTH = 150 };

static const fst__colour ink = {0x1B, 0x1F, 0x24}, grey = {0x6A, 0x73, 0x7D}, light = {0xE1, 0xE4, 0xE8},
                         blue = {0x0B, 0x6E, 0x99}, orange = {0xB5, 0x47, 0x0B};

/* ---- what a sample is --------------------------------------------------------------------------------- */

static bool is_signal(const fst_sample *s)
{
    return s->dtype == FST_F32 && s->shape.rank == 2 && s->shape.dim[0] == 2;
}

/* Channels, height and width of an image; false for what is none. */
static bool is_image(const fst_sample *s, size_t *c, size_t *h, size_t *w)
{
    int r = s->shape.rank;
    if (is_signal(s) || (r != 2 && r != 3) || (r == 3 && s->shape.dim[0] != 1 && s->shape.dim[0] != 3))
        return false;
    *c = r == 3 ? (size_t)s->shape.dim[0] : 1;
    *h = (size_t)s->shape.dim[r - 2];
    *w = (size_t)s->shape.dim[r - 1];
    return *h <= 4096 && *w <= 4096;
}

bool fst__sample_is_image(const fst_sample *s)
{
    size_t c, h, w;
    return is_image(s, &c, &h, &w);
}

static double element(const fst_sample *s, size_t i)
{
    if (s->dtype == FST_U8)
        return ((const unsigned char *)s->data)[i];
    double v = (double)((const float *)s->data)[i];
    return isfinite(v) ? v : 0;
}

static fst_status check(const fst_sample *s, fst_error *err)
{
    int64_t n = fst_shape_count(&s->shape);
    if ((s->dtype != FST_U8 && s->dtype != FST_F32) || !s->data)
        return fst_fail(err, FST_E_ARGUMENT, "only samples of U8 and F32 are drawn");
    if (n < 1 || n > MAX_ELEMENTS)
        return fst_fail(err, FST_E_LIMIT, "a sample of %lld elements is not drawn: 1 to %d are", (long long)n,
                        MAX_ELEMENTS);
    return FST_OK;
}

/* Floats from their smallest to their largest, bytes as they are. */
static fst_status image_pixels(const fst_sample *s, size_t c, size_t h, size_t w, fst__image *out, fst_error *err)
{
    double low = 0, high = 255;
    if (s->dtype != FST_U8) {
        low = high = element(s, 0);
        for (size_t i = 1; i < c * h * w; i++) {
            low = fmin(low, element(s, i));
            high = fmax(high, element(s, i));
        }
    }
    fst_status st = fst__image_init(out, w, h, err);
    for (size_t i = 0; !st && i < h * w; i++)
        for (size_t k = 0; k < 3; k++)
            out->rgb[3 * i + k] =
                (unsigned char)(high > low
                                    ? lround((element(s, (c == 3 ? k * h * w : 0) + i) - low) / (high - low) * 255)
                                    : 0);
    return st;
}

fst_status fst__sample_tile(const fst_sample *s, fst__image *out, fst_error *err)
{
    size_t c, h, w, n;
    fst_status st = check(s, err);
    if (st)
        return st;
    if (is_image(s, &c, &h, &w))
        return image_pixels(s, c, h, w, out, err);
    n = (size_t)fst_shape_count(&s->shape);
    if (is_signal(s))
        return fst__spectrogram(s->data, (const float *)s->data + n / 2, n / 2, out, err);
    float *v = fst_alloc(n * sizeof *v);
    if (!v)
        return fst_fail_memory(err, n * sizeof *v);
    for (size_t i = 0; i < n; i++)
        v[i] = (float)element(s, i);
    st = fst__spectrogram(v, NULL, n, out, err);
    fst_free(v);
    return st;
}

/* ---- panels -------------------------------------------------------------------------------------------- */

struct box {
    double x, y, w, h;
};

static void frame(fst__surface *f, const struct box *b, const char *name)
{
    const fst__point p[] = {
        {b->x, b->y}, {b->x + b->w, b->y}, {b->x + b->w, b->y + b->h}, {b->x, b->y + b->h}, {b->x, b->y}};
    fst__draw_lines(f, p, 5, 1, light);
    fst__draw_text(f, b->x, b->y - 14, 2, FST__START, b->w, grey, name);
}

/* Elements from, from + 1, ... as a line; of very many only as many as there is room for. */
static void draw_wave(fst__surface *f, const struct box *b, const fst_sample *s, size_t from, size_t n, double low,
                      double high, fst__colour c)
{
    size_t step = (n + PLOT_POINTS - 1) / PLOT_POINTS, points = 0;
    fst__point *p = fst_alloc((n / step + 1) * sizeof *p);
    if (!p) {
        f->status = f->status ? f->status : fst_fail_memory(f->err, (n / step + 1) * sizeof *p);
        return;
    }
    for (size_t i = 0; i < n; i += step)
        p[points++] = (fst__point){b->x + b->w * (n > 1 ? (double)i / (double)(n - 1) : 0.5),
                                   b->y + b->h * (high - element(s, from + i)) / (high - low)};
    fst__draw_lines(f, p, points, 1.2, c);
    fst_free(p);
}

static double peak(const fst_sample *s, size_t n)
{
    double most = 0;
    for (size_t i = 0; i < n; i++)
        most = fmax(most, fabs(element(s, i)));
    return most > 0 ? most * 1.05 : 1;
}

static void draw_constellation(fst__surface *f, const struct box *b, const fst_sample *s, size_t n, double most)
{
    size_t step = (n + DOTS - 1) / DOTS, points = 0;
    double side = fmin(b->w, b->h) / 2;
    fst__point *p = fst_alloc((n / step + 1) * sizeof *p);
    const fst__point across[] = {{b->x, b->y + b->h / 2}, {b->x + b->w, b->y + b->h / 2}};
    const fst__point down[] = {{b->x + b->w / 2, b->y}, {b->x + b->w / 2, b->y + b->h}};
    if (!p) {
        f->status = f->status ? f->status : fst_fail_memory(f->err, (n / step + 1) * sizeof *p);
        return;
    }
    fst__draw_lines(f, across, 2, 1, light);
    fst__draw_lines(f, down, 2, 1, light);
    for (size_t i = 0; i < n; i += step)
        p[points++] = (fst__point){b->x + b->w / 2 + side * element(s, i) / most,
                                   b->y + b->h / 2 - side * element(s, n + i) / most};
    fst__draw_dots(f, p, points, 1.1, blue);
    fst_free(p);
}

static void draw_signal(fst__surface *f, const fst_sample *s)
{
    size_t n = (size_t)s->shape.dim[1];
    double most = peak(s, 2 * n);
    char text[64];
    fst__image picture = {0};
    const struct box wave = {MARGIN + 44, TITLE + 20, 960 - 2 * MARGIN - 44, 190},
                     dots = {MARGIN + 44, TITLE + 250, 270, 270},
                     heat = {dots.x + dots.w + 60, dots.y, 960 - MARGIN - dots.x - dots.w - 60, 270};
    snprintf(text, sizeof text, "over time, %zu samples: I blue, Q orange", n);
    frame(f, &wave, text);
    const fst__point zero[] = {{wave.x, wave.y + wave.h / 2}, {wave.x + wave.w, wave.y + wave.h / 2}};
    fst__draw_lines(f, zero, 2, 1, light);
    draw_wave(f, &wave, s, n, n, -most, most, orange);
    draw_wave(f, &wave, s, 0, n, -most, most, blue);
    snprintf(text, sizeof text, "%.3g", most);
    fst__draw_text(f, wave.x - 6, wave.y + 4, 1, FST__END, 0, grey, text);
    snprintf(text, sizeof text, "%.3g", -most);
    fst__draw_text(f, wave.x - 6, wave.y + wave.h - 4, 1, FST__END, 0, grey, text);
    frame(f, &dots, "constellation");
    draw_constellation(f, &dots, s, n, most);
    frame(f, &heat, "spectrogram: frequency over time, 60 dB");
    if (!f->status)
        f->status = fst__spectrogram(s->data, (const float *)s->data + n, n, &picture, f->err);
    if (!f->status)
        fst__draw_image(f, heat.x, heat.y, heat.w, heat.h, &picture);
    fst__draw_text(f, heat.x - 6, heat.y + 4, 1, FST__END, 0, grey, "fs/2");
    fst__draw_text(f, heat.x - 6, heat.y + heat.h / 2, 1, FST__END, 0, grey, "0");
    fst__draw_text(f, heat.x - 6, heat.y + heat.h - 4, 1, FST__END, 0, grey, "-fs/2");
    fst__image_release(&picture);
}

static void draw_vector(fst__surface *f, const fst_sample *s)
{
    size_t n = (size_t)fst_shape_count(&s->shape);
    double most = peak(s, n);
    const struct box b = {MARGIN + 44, TITLE + 20, 960 - 2 * MARGIN - 44, 300};
    char text[64];
    snprintf(text, sizeof text, "%zu elements, up to %.3g", n, most);
    frame(f, &b, text);
    draw_wave(f, &b, s, 0, n, -most, most, blue);
}

fst_status fst_report_sample(const fst_sample *s, const char *title, fst_picture_format format, fst_buf *out,
                             fst_error *err)
{
    fst__surface f;
    fst__image picture = {0};
    size_t c, h, w, scale = 1, width = 960, height = 600, before = out->len;
    fst_status st = check(s, err);
    bool image = !st && is_image(s, &c, &h, &w);
    if (image) {
        scale = h < 320 && w < 320 ? 320 / (h > w ? h : w) : 1;
        width = w * scale + 2 * MARGIN;
        width = width < 360 ? 360 : width;
        height = h * scale + TITLE + MARGIN;
        st = image_pixels(s, c, h, w, &picture, err);
    } else if (!st && !is_signal(s)) {
        height = 400;
    }
    if (!st)
        st = fst__surface_begin(&f, format == FST_PICTURE_PNG, width, height, title, out, err);
    if (!st) {
        fst__draw_text(&f, MARGIN, TITLE / 2.0, 2, FST__START, (double)(width - 2 * MARGIN), ink, title);
        if (image)
            fst__draw_image(&f, MARGIN, TITLE, (double)(w * scale), (double)(h * scale), &picture);
        else if (is_signal(s))
            draw_signal(&f, s);
        else
            draw_vector(&f, s);
        st = fst__surface_end(&f, out);
    }
    fst__image_release(&picture);
    if (st && out->data)
        out->data[out->len = before] = 0;
    return st;
}

fst_status fst_report_pixels(const fst_sample *s, fst_buf *out, fst_error *err)
{
    fst__image picture = {0};
    size_t c = 0, h = 0, w = 0;
    fst_status st = check(s, err);
    if (!st && (!is_image(s, &c, &h, &w) || s->dtype != FST_U8 || (c != 1 && c != 3)))
        st = fst_fail(err, FST_E_ARGUMENT, "only images of bytes with one or three channels have pixels of their own");
    if (!st)
        st = image_pixels(s, c, h, w, &picture, err);
    if (!st)
        st = fst__image_png(&picture, out, err);
    fst__image_release(&picture);
    return st;
}

/* ---- sheet ----------------------------------------------------------------------------------------------- */

static void draw_tile(fst__surface *f, const fst_sheet *s, size_t row, size_t column, double x, double y)
{
    fst_sample sample = {.snr = NAN};
    fst__image m = {0};
    bool there = false;
    char text[32];
    f->status = f->status ? f->status : s->sample(s->ctx, row, column, &sample, &there, f->err);
    if (f->status || !there)
        return;
    f->status = fst__sample_tile(&sample, &m, f->err);
    if (f->status)
        return;
    size_t c, h, w;
    double width = TILE_WIDTH - 8, height = TILE_HEIGHT - 20;
    if (is_image(&sample, &c, &h, &w)) { /* keeps its shape */
        double k = fmin(width / (double)w, height / (double)h);
        width = k * (double)w;
        height = k * (double)h;
    }
    fst__draw_image(f, x, y, width, height, &m);
    if (isfinite(sample.snr)) {
        snprintf(text, sizeof text, "%.1f dB", sample.snr);
        fst__draw_text(f, x, y + TILE_HEIGHT - 13, 1, FST__START, TILE_WIDTH - 8, grey, text);
    }
    fst__image_release(&m);
}

fst_status fst_report_sheet(const fst_sheet *s, fst_picture_format format, fst_buf *out, fst_error *err)
{
    fst__surface f;
    char number[24];
    size_t before = out->len;
    if (!s->rows || s->rows > FST_SHEET_ROWS || !s->columns || s->columns > FST_SHEET_COLUMNS)
        return fst_fail(err, FST_E_LIMIT, "a sheet of %zu classes by %zu samples: up to %d by %d are drawn", s->rows,
                        s->columns, FST_SHEET_ROWS, FST_SHEET_COLUMNS);
    size_t blocks = s->rows > 16 && s->columns <= 4 ? 2 : 1, lines = (s->rows + blocks - 1) / blocks;
    size_t block = NAME_WIDTH + s->columns * TILE_WIDTH + MARGIN;
    fst_status st = fst__surface_begin(&f, format == FST_PICTURE_PNG, blocks * block + MARGIN,
                                       TITLE + lines * TILE_HEIGHT + MARGIN, s->title, out, err);
    if (st)
        return st;
    fst__draw_text(&f, MARGIN, TITLE / 2.0, 2, FST__START, (double)(blocks * block - MARGIN), ink, s->title);
    for (size_t i = 0; !f.status && i < s->rows; i++) {
        double x = (double)(MARGIN + i / lines * block), y = (double)(TITLE + i % lines * TILE_HEIGHT);
        snprintf(number, sizeof number, "%zu", i);
        const char *name = s->names ? s->names[i] : number;
        int scale = strlen(name) * 2 * FST__GLYPH_WIDTH > NAME_WIDTH ? 1 : 2;
        fst__draw_text(&f, x, y + TILE_HEIGHT / 2.0 - 10, scale, FST__START, NAME_WIDTH - 8, ink, name);
        for (size_t k = 0; k < s->columns; k++)
            draw_tile(&f, s, i, k, x + NAME_WIDTH + (double)(k * TILE_WIDTH), y);
    }
    st = fst__surface_end(&f, out);
    if (st && out->data)
        out->data[out->len = before] = 0;
    return st;
}

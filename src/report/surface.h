/* What pictures of samples are drawn on: pixels (canvas.c) or SVG (svg.c), with the same calls. Coordinates are pixels
 * from the upper left corner. What lies outside is cut off. */
#ifndef FST_REPORT_SURFACE_H
#define FST_REPORT_SURFACE_H

#include "fedstill/report.h"

typedef struct fst__colour {
    unsigned char r, g, b;
} fst__colour;

typedef struct fst__point {
    double x, y;
} fst__point;

typedef enum fst__anchor { FST__START, FST__MIDDLE, FST__END } fst__anchor;

/* Pixels of three bytes, rows from the top. */
typedef struct fst__image {
    size_t width, height;
    unsigned char *rgb;
} fst__image;
FST_MUST fst_status fst__image_init(fst__image *m, size_t width, size_t height, fst_error *err);
void fst__image_release(fst__image *m);
/* Appends a PNG file. */
FST_MUST fst_status fst__image_png(const fst__image *m, fst_buf *out, fst_error *err);
/* Appends a PNG as a data: address. */
FST_MUST fst_status fst__image_address(const fst__image *m, fst_buf *out, fst_error *err);

typedef struct fst__surface {
    size_t width, height;
    fst__image pixels; /* canvas */
    fst_buf *out;      /* SVG; NULL: canvas */
    fst_error *err;
    fst_status status; /* the first error; after it nothing is drawn */
} fst__surface;

/* White. png false: an SVG that is appended to out; else pixels, which fst__surface_end appends as a PNG. */
FST_MUST fst_status fst__surface_begin(fst__surface *s, bool png, size_t width, size_t height, const char *title,
                                       fst_buf *out, fst_error *err);
/* Ends the file, releases the surface and returns its first error. */
FST_MUST fst_status fst__surface_end(fst__surface *s, fst_buf *out);

void fst__draw_rect(fst__surface *s, double x, double y, double w, double h, fst__colour c);
void fst__draw_lines(fst__surface *s, const fst__point *p, size_t n, double width, fst__colour c);
void fst__draw_dots(fst__surface *s, const fst__point *p, size_t n, double radius, fst__colour c);
/* y: the middle of the line. Height of a capital: 7 * scale. Longer than `room` pixels (0: any): cut with "..." */
void fst__draw_text(fst__surface *s, double x, double y, int scale, fst__anchor anchor, double room, fst__colour c,
                    const char *text);
/* Scaled without smoothing. */
void fst__draw_image(fst__surface *s, double x, double y, double w, double h, const fst__image *m);

/* ---- canvas.c, used by the surface of pixels ---- */
void fst__canvas_rect(fst__image *m, double x, double y, double w, double h, fst__colour c);
void fst__canvas_line(fst__image *m, fst__point a, fst__point b, double width, fst__colour c);
void fst__canvas_text(fst__image *m, double x, double y, int scale, fst__colour c, const char *text);
void fst__canvas_image(fst__image *m, double x, double y, double w, double h, const fst__image *from);

/* ---- font.c ---- */
enum { FST__GLYPH_WIDTH = 6, FST__GLYPH_HEIGHT = 7 }; /* width with the gap after it */
/* Seven rows of five bits from the top, the leftmost pixel being 16; "?" for what is not printable ASCII. */
const unsigned char *fst__glyph(uint32_t code);

/* ---- spectrogram.c ---- */
/* 0 ... 1 to viridis; outside it is clamped, NaN is the lowest. */
fst__colour fst__viridis(double x);
/*
 * Power spectrogram of a complex signal as a picture: time from left to right, frequency from -fs/2 (below) to fs/2
 * (above), Hann windows that overlap, decibels from 60 below the strongest cell. Width and height follow from n. n > 0;
 * what is not finite counts as 0.
 */
FST_MUST fst_status fst__spectrogram(const float *re, const float *im, size_t n, fst__image *out, fst_error *err);

#endif

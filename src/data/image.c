/*
 * One image file from memory to (channels, height, width) bytes. The decoders (image_*.c) find the size first, which is
 * checked here against what is wanted and what a file of so many bytes can hold; then they give rows from the top,
 * which become planes here, so that no second copy of the image is made. No colour management, no rotation by EXIF, no
 * transparency: values are taken as they stand, as Pillow's convert("RGB") and torchvision's ImageFolder take them.
 */
#include <stdio.h>
#include <string.h>

#include "formats.h"
#include "image.h"

/* 0 asks for this: enough for any photograph. */
#define DEFAULT_MAX_PIXELS ((size_t)1 << 28)

static fst_status check_size(const struct fst__picture *p, size_t width, size_t height, uint64_t most)
{
    if ((p->height_wanted && (uint64_t)p->height_wanted != height) ||
        (p->width_wanted && (uint64_t)p->width_wanted != width))
        return fst_fail(p->err, FST_E_MISMATCH,
                        "%s: %zu x %zu pixels (height x width), %lld x %lld are expected; scale all images to one size",
                        p->name, height, width, (long long)(p->height_wanted ? p->height_wanted : (int64_t)height),
                        (long long)(p->width_wanted ? p->width_wanted : (int64_t)width));
    if (width == 0 || height == 0 || width > p->max_pixels / height)
        return fst_fail(p->err, FST_E_LIMIT, "%s: %zu x %zu pixels, at most %zu are decoded", p->name, width, height,
                        p->max_pixels);
    if (width * height > most)
        return fst_fail(p->err, FST_E_FORMAT, "%s: a file of %zu bytes cannot hold %zu x %zu pixels: cut off or forged",
                        p->name, p->len, width, height);
    return FST_OK;
}

bool fst__picture_start(struct fst__picture *p, size_t width, size_t height, bool grey, uint64_t most)
{
    p->status = check_size(p, width, height, most);
    if (p->status)
        return false;
    p->count = p->channels ? (size_t)p->channels : grey ? 1 : 3;
    p->width = width;
    p->height = height;
    p->planes = fst_alloc(p->count * width * height);
    if (!p->planes)
        p->status = fst_fail_memory(p->err, p->count * width * height);
    return p->planes;
}

/* ITU-R 601 luma in 16-bit fixed point; grey stays exactly what it was. */
static unsigned char luma(const unsigned char *rgb)
{
    return (unsigned char)((rgb[0] * 19595u + rgb[1] * 38470u + rgb[2] * 7471u + 32768u) >> 16);
}

void fst__picture_row(struct fst__picture *p, size_t y, const unsigned char *pixels, int depth)
{
    size_t n = p->width, plane = p->width * p->height;
    unsigned char *out = p->planes + y * n;
    if (depth == 1) {
        for (size_t c = 0; c < p->count; c++)
            memcpy(out + c * plane, pixels, n);
    } else if (p->count == 1) {
        for (size_t i = 0; i < n; i++)
            out[i] = luma(pixels + 3 * i);
    } else {
        for (size_t i = 0; i < n; i++)
            for (size_t c = 0; c < 3; c++)
                out[c * plane + i] = pixels[3 * i + c];
    }
}

typedef void (*decoder)(struct fst__picture *p);

/* By the first bytes; the file's name says nothing. */
static decoder decoder_of(const unsigned char *data, size_t len)
{
    static const unsigned char png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'}, jpeg[3] = {0xFF, 0xD8, 0xFF};
    if (len >= sizeof png && !memcmp(data, png, sizeof png))
        return fst__decode_png;
    if (len >= sizeof jpeg && !memcmp(data, jpeg, sizeof jpeg))
        return fst__decode_jpeg;
    if (len >= 12 && !memcmp(data, "RIFF", 4) && !memcmp(data + 8, "WEBP", 4))
        return fst__decode_webp;
    return len >= 2 && !memcmp(data, "BM", 2) ? fst__decode_bmp : NULL;
}

static fst_status no_image(const char *name, const void *data, size_t len, fst_error *err)
{
    const char *what = fst__foreign(data, len);
    return fst_fail(err, FST_E_FORMAT, "%s: %s", name,
                    what ? what : "neither PNG nor JPEG, WebP or BMP, whatever its name says");
}

fst_status fst__image_decode_as(unsigned char **out, fst_shape *shape, const char *name, const void *data, size_t len,
                                const fst_shape *want, size_t max_pixels, fst_error *err)
{
    struct fst__picture p = {.name = name,
                             .data = data,
                             .len = len,
                             .channels = (int)want->dim[0],
                             .height_wanted = want->dim[1],
                             .width_wanted = want->dim[2],
                             .max_pixels = max_pixels ? max_pixels : DEFAULT_MAX_PIXELS,
                             .err = err};
    if (p.channels != 0 && p.channels != 1 && p.channels != 3)
        return fst_fail(err, FST_E_ARGUMENT, "%s: images have 1 or 3 channels, not %d", name, p.channels);
    decoder decode = decoder_of(data, len);
    if (!decode)
        return no_image(name, data, len, err);
    decode(&p);
    if (p.status) {
        fst_free(p.planes);
        return p.status;
    }
    *out = p.planes;
    *shape = FST_SHAPE((int64_t)p.count, (int64_t)p.height, (int64_t)p.width);
    return FST_OK;
}

fst_status fst_image_decode(unsigned char **out, fst_shape *shape, const char *name, const void *data, size_t len,
                            int channels, size_t max_pixels, fst_error *err)
{
    return fst__image_decode_as(out, shape, name, data, len, &FST_SHAPE(channels, 0, 0), max_pixels, err);
}

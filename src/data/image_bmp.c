/*
 * BMP, uncompressed: 1, 4 and 8 bits a pixel with a palette, 24 and 32 bits of blue, green, red. Its pixels stand in
 * the file as they are, so the file's length bounds the image. Run-length coding and 16 bits a pixel are refused by
 * name.
 */
#include <string.h>

#include "image.h"

enum { FILE_HEADER = 14, CORE_HEADER = 12, INFO_HEADER = 40, MAX_HEADER = 1024 };
enum { UNCOMPRESSED = 0, BIT_FIELDS = 3 };

struct bmp {
    uint64_t width, height, pixels_at, stride;
    bool top_down;
    unsigned bits, colours;
    unsigned char palette[256][3]; /* red, green, blue */
    bool grey;
    unsigned at[3]; /* 24 and 32 bits: where in a pixel red, green and blue are */
};

static uint32_t u16(const unsigned char *p)
{
    return p[0] | (uint32_t)p[1] << 8;
}

static uint32_t u32(const unsigned char *p)
{
    return u16(p) | u16(p + 2) << 16;
}

static fst_status cut_off(const struct fst__picture *p, const char *what)
{
    return fst_fail(p->err, FST_E_FORMAT, "%s: a BMP that is cut off: its %s is not all there", p->name, what);
}

static fst_status unknown(const struct fst__picture *p, unsigned bits, unsigned compression)
{
    return fst_fail(p->err, FST_E_UNSUPPORTED,
                    "%s: a BMP of %u bits a pixel, compression %u; uncompressed ones of 1, 4, 8, 24 or 32 bits are "
                    "read",
                    p->name, bits, compression);
}

/* Bit fields that are whole bytes, in any order. */
static bool take_fields(struct bmp *b, const unsigned char *masks)
{
    for (int c = 0; c < 3; c++) {
        uint32_t mask = u32(masks + 4 * c);
        for (b->at[c] = 0; b->at[c] < 4 && mask != 0xFFu << 8 * b->at[c];)
            b->at[c]++;
        if (b->at[c] == 4)
            return false;
    }
    return true;
}

static fst_status read_palette(const struct fst__picture *p, struct bmp *b, size_t at, size_t entry)
{
    unsigned most = 1u << b->bits;
    if (b->colours == 0 || b->colours > most)
        b->colours = most;
    if (at + entry * b->colours > p->len)
        return cut_off(p, "palette");
    b->grey = true;
    for (size_t i = 0; i < b->colours; i++) {
        const unsigned char *bgr = p->data + at + entry * i;
        for (int c = 0; c < 3; c++)
            b->palette[i][c] = bgr[2 - c];
        b->grey = b->grey && bgr[0] == bgr[1] && bgr[1] == bgr[2];
    }
    return FST_OK;
}

static fst_status read_header(const struct fst__picture *p, struct bmp *b)
{
    const unsigned char *d = p->data;
    if (p->len < FILE_HEADER + CORE_HEADER)
        return cut_off(p, "header");
    size_t size = u32(d + 14), entry = 4, palette_at = FILE_HEADER + size;
    unsigned compression = UNCOMPRESSED;
    if (size != CORE_HEADER && (size < INFO_HEADER || size > MAX_HEADER))
        return fst_fail(p->err, FST_E_FORMAT, "%s: not BMP: its header says %zu bytes", p->name, size);
    if (p->len < FILE_HEADER + size)
        return cut_off(p, "header");
    b->pixels_at = u32(d + 10);
    if (size == CORE_HEADER) {
        b->width = u16(d + 18);
        b->height = u16(d + 20);
        b->bits = u16(d + 24);
        entry = 3;
    } else {
        int64_t height = (int32_t)u32(d + 22);
        b->width = u32(d + 18);
        b->height = (uint64_t)(height < 0 ? -height : height);
        b->top_down = height < 0;
        b->bits = u16(d + 28);
        compression = u32(d + 30);
        b->colours = u32(d + 46);
    }
    b->stride = (b->width * b->bits + 31) / 32 * 4;
    b->at[0] = 2, b->at[1] = 1, b->at[2] = 0;
    if (compression == UNCOMPRESSED && (b->bits == 1 || b->bits == 4 || b->bits == 8))
        return read_palette(p, b, palette_at, entry);
    if (compression == UNCOMPRESSED && (b->bits == 24 || b->bits == 32))
        return FST_OK;
    /* the masks follow the shortest header and are part of the longer ones */
    if (compression == BIT_FIELDS && b->bits == 32 && p->len >= FILE_HEADER + INFO_HEADER + 12)
        return take_fields(b, d + FILE_HEADER + INFO_HEADER) ? FST_OK : unknown(p, b->bits, compression);
    return unknown(p, b->bits, compression);
}

/* A row of palette colours; false for one that is not in the palette. */
static bool from_palette(const struct bmp *b, const unsigned char *from, unsigned char *rgb)
{
    unsigned mask = (1u << b->bits) - 1;
    for (uint64_t i = 0; i < b->width; i++) {
        uint64_t bit = i * b->bits;
        unsigned v = from[bit / 8] >> (8 - b->bits - bit % 8) & mask;
        if (v >= b->colours)
            return false;
        memcpy(rgb + (b->grey ? i : 3 * i), b->palette[v], b->grey ? 1 : 3);
    }
    return true;
}

static void from_bytes(const struct bmp *b, const unsigned char *from, unsigned char *rgb)
{
    for (uint64_t i = 0; i < b->width; i++)
        for (size_t c = 0; c < 3; c++)
            rgb[3 * i + c] = from[i * (b->bits / 8) + b->at[c]];
}

void fst__decode_bmp(struct fst__picture *p)
{
    struct bmp b = {0};
    p->status = read_header(p, &b);
    if (p->status)
        return;
    /* whole rows that are there; their number and the width have 32 bits each */
    uint64_t rows = b.stride && b.pixels_at < p->len ? (p->len - b.pixels_at) / b.stride : 0;
    if (!fst__picture_start(p, b.width, b.height, b.grey, rows * b.width))
        return;
    unsigned char *rgb = fst_alloc(3 * p->width);
    if (!rgb)
        p->status = fst_fail_memory(p->err, 3 * p->width);
    for (size_t y = 0; !p->status && y < p->height; y++) {
        const unsigned char *from = p->data + b.pixels_at + b.stride * (b.top_down ? y : p->height - 1 - y);
        if (b.bits >= 24)
            from_bytes(&b, from, rgb);
        else if (!from_palette(&b, from, rgb))
            p->status =
                fst_fail(p->err, FST_E_FORMAT, "%s: row %zu of the BMP has a colour beyond its palette", p->name, y);
        if (!p->status)
            fst__picture_row(p, y, rgb, b.grey ? 1 : 3);
    }
    fst_free(rgb);
}

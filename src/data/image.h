/* image.h - between the decoders of image files (PNG, JPEG, WebP, BMP) and image.c, which turns the rows that they give
 * into planes. Private to src/data. */
#ifndef FEDSTILL_DATA_IMAGE_H
#define FEDSTILL_DATA_IMAGE_H

#include "fedstill/data.h"

/* One image on its way from a file's bytes to planes. */
struct fst__picture {
    const char *name;
    const unsigned char *data; /* the file */
    size_t len;
    int channels; /* wanted: 1, 3, or 0: as the file has it */
    size_t max_pixels;
    int64_t height_wanted, width_wanted; /* 0: any */
    unsigned char *planes;               /* (count, height, width) */
    size_t width, height, count;
    fst_status status; /* of the decoder; what it made counts only when this is FST_OK */
    fst_error *err;
};

/* Checks the size against what is wanted, the limits, and `most`, the pixels that the file can hold at all, and
 * allocates the planes. To be called before anything that grows with the size. False: p->status says why. */
bool fst__picture_start(struct fst__picture *p, size_t width, size_t height, bool grey, uint64_t most);
/* Stores row y of `depth` bytes a pixel: 1 grey, 3 red, green and blue. */
void fst__picture_row(struct fst__picture *p, size_t y, const unsigned char *pixels, int depth);

/* Each decodes the file of its kind; an error goes to p->status. */
void fst__decode_png(struct fst__picture *p);
void fst__decode_jpeg(struct fst__picture *p);
void fst__decode_webp(struct fst__picture *p);
void fst__decode_bmp(struct fst__picture *p);

#endif

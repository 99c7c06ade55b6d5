/* WebP by libwebp, where fedstill was built with it: still images, lossy or not. Animations are refused. */
#include "image.h"

#ifdef FST_WITH_WEBP
#include <webp/decode.h>

/* One colour over any area takes a few bytes, so small images may come from very little; large ones must not. */
enum { PIXELS_A_BYTE = 4096, PIXELS_ALWAYS = 1 << 20 };

static void read_rows(struct fst__picture *p)
{
    size_t bytes = p->width * p->height * 3;
    unsigned char *rgb = fst_alloc(bytes);
    if (!rgb)
        p->status = fst_fail_memory(p->err, bytes);
    else if (!WebPDecodeRGBInto(p->data, p->len, rgb, bytes, (int)p->width * 3))
        p->status = fst_fail(p->err, FST_E_FORMAT, "%s: a WebP that is damaged or cut off", p->name);
    for (size_t y = 0; !p->status && y < p->height; y++)
        fst__picture_row(p, y, rgb + y * p->width * 3, 3);
    fst_free(rgb);
}

void fst__decode_webp(struct fst__picture *p)
{
    WebPBitstreamFeatures f;
    uint64_t most = (uint64_t)p->len * PIXELS_A_BYTE;
    if (WebPGetFeatures(p->data, p->len, &f) != VP8_STATUS_OK)
        p->status = fst_fail(p->err, FST_E_FORMAT, "%s: a WebP that is damaged or cut off", p->name);
    else if (f.has_animation)
        p->status = fst_fail(p->err, FST_E_UNSUPPORTED, "%s: an animated WebP; still images are read", p->name);
    else if (fst__picture_start(p, (size_t)f.width, (size_t)f.height, false,
                                most > PIXELS_ALWAYS ? most : PIXELS_ALWAYS))
        read_rows(p);
}

#else

void fst__decode_webp(struct fst__picture *p)
{
    p->status = fst_fail(p->err, FST_E_UNSUPPORTED, "%s: is WebP, which this fedstill was built without", p->name);
}

#endif

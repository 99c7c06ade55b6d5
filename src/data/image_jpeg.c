/*
 * JPEG by libjpeg, one row at a time: grey, RGB, and the CMYK of printing. The library reports errors by a jump; it
 * ends in the one function that set it up, and everything that has to be freed lives in a struct outside that function.
 */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

#include "image.h"

enum { MAX_SCANS = 200 };
/* A block of 64 pixels takes at least a bit; small images may take less by arithmetic coding. */
enum { PIXELS_A_BYTE = 1024, PIXELS_ALWAYS = 1 << 20 };

struct jpeg_input {
    struct jpeg_error_mgr errors; /* first: the library hands this back */
    struct jpeg_progress_mgr progress;
    struct fst__picture *picture;
    struct jpeg_decompress_struct jpeg;
    unsigned char *row;
    jmp_buf jump;
};

static void failed(j_common_ptr c)
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
static void message(j_common_ptr c, int level)
{
    int code = c->err->msg_code;
    if (level < 0 && (code == JWRN_JPEG_EOF || code == JWRN_HIT_MARKER || code == JWRN_HUFF_BAD_CODE))
        failed(c);
}

/* A small progressive file can ask for thousands of passes over a large image. */
static void progress(j_common_ptr c)
{
    struct jpeg_input *in = (struct jpeg_input *)c->err;
    if (in->jpeg.input_scan_number <= MAX_SCANS)
        return;
    in->picture->status =
        fst_fail(in->picture->err, FST_E_LIMIT, "%s: a JPEG of more than %d scans", in->picture->name, MAX_SCANS);
    longjmp(in->jump, 1);
}

/* a * b / 255, rounded */
static unsigned scaled(unsigned a, unsigned b)
{
    unsigned v = a * b + 128;
    return ((v >> 8) + v) >> 8;
}

/* Four inks become RGB where they stand. Files have them inverted (0 is full ink), as Photoshop writes them and every
 * reader takes them: red is what cyan and black leave. */
static void cmyk_to_rgb(unsigned char *row, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char ink[4];
        memcpy(ink, row + 4 * i, 4);
        for (size_t c = 0; c < 3; c++)
            row[3 * i + c] = (unsigned char)(ink[3] - scaled(255u - ink[c], ink[3]));
    }
}

static void read_rows(struct jpeg_input *in, int components)
{
    struct fst__picture *p = in->picture;
    while (in->jpeg.output_scanline < in->jpeg.output_height) {
        size_t y = in->jpeg.output_scanline;
        JSAMPROW row = in->row;
        jpeg_read_scanlines(&in->jpeg, &row, 1);
        if (components == 4)
            cmyk_to_rgb(in->row, p->width);
        fst__picture_row(p, y, in->row, components == 1 ? 1 : 3);
    }
}

static void run(struct jpeg_input *in)
{
    struct fst__picture *p = in->picture;
    jpeg_create_decompress(&in->jpeg);
    in->progress.progress_monitor = progress;
    in->jpeg.progress = &in->progress;
    in->jpeg.mem->max_memory_to_use = 1L << 30;
    jpeg_mem_src(&in->jpeg, p->data, p->len);
    jpeg_read_header(&in->jpeg, TRUE);
    int components = in->jpeg.num_components;
    uint64_t most = (uint64_t)p->len * PIXELS_A_BYTE;
    if (components != 1 && components != 3 && components != 4) {
        p->status =
            fst_fail(p->err, FST_E_UNSUPPORTED, "%s: a JPEG of %d colour components, only grey, RGB and CMYK are read",
                     p->name, components);
        return;
    }
    in->jpeg.out_color_space = components == 1 ? JCS_GRAYSCALE : components == 3 ? JCS_RGB : JCS_CMYK;
    in->jpeg.dct_method = JDCT_ISLOW; /* the same pixels on every machine */
    if (!fst__picture_start(p, in->jpeg.image_width, in->jpeg.image_height, components == 1,
                            most > PIXELS_ALWAYS ? most : PIXELS_ALWAYS))
        return;
    in->row = fst_alloc(p->width * (size_t)components);
    if (!in->row) {
        p->status = fst_fail_memory(p->err, p->width * (size_t)components);
        return;
    }
    jpeg_start_decompress(&in->jpeg);
    read_rows(in, components);
    jpeg_finish_decompress(&in->jpeg);
}

static void guarded(struct jpeg_input *in)
{
    if (!setjmp(in->jump))
        run(in);
}

void fst__decode_jpeg(struct fst__picture *p)
{
    struct jpeg_input in = {.picture = p};
    in.jpeg.err = jpeg_std_error(&in.errors);
    in.errors.error_exit = failed;
    in.errors.emit_message = message;
    guarded(&in);
    jpeg_destroy_decompress(&in.jpeg);
    fst_free(in.row);
}

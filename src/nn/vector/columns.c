/* What a convolution's outputs read, written out so that it is read straight on.
 *
 * First the input is copied with its padding, and each row split into as many pieces as the stride is wide: piece f has
 * the columns f, f + stride, ... So what neighbouring outputs read with one tap always lies side by side, and nothing
 * after that asks where the image ends. */
#include <string.h>

#include "vector.h"

static struct fst__padded padded_of(const struct fst_node *n)
{
    const fst_conv2d *c = &n->u.conv;
    struct fst__padded p = {.channels = n->in.dim[0] / c->groups,
                            .rows = n->in.dim[1] + 2 * c->padding[0],
                            .width = (n->in.dim[2] + 2 * c->padding[1] + c->stride[1] - 1) / c->stride[1],
                            .pieces = c->stride[1]};
    p.piece = p.rows * p.width;
    p.channel = p.piece * p.pieces;
    p.image = p.channel * p.channels;
    return p;
}

int64_t fst__padded_floats(const struct fst_node *n, int64_t batch)
{
    return padded_of(n).image * batch + LANES; /* copies of LANES may read beyond the last */
}

FST_HOT static void split_in_two(const float *restrict from, int64_t width, float *restrict even, float *restrict odd)
{
    for (int64_t i = 0; i < width / 2; i++) {
        even[i] = from[2 * i];
        odd[i] = from[2 * i + 1];
    }
    if (width % 2)
        even[width / 2] = from[width - 1];
}

static void write_row(const struct fst_node *n, const struct fst__padded *p, const float *from, float *to)
{
    int64_t width = n->in.dim[2], before = n->u.conv.padding[1];
    if (p->pieces == 1) {
        memcpy(to + before, from, (size_t)width * sizeof *to);
        return;
    }
    if (p->pieces == 2) {
        split_in_two(from, width, to + before % 2 * p->piece + before / 2,
                     to + (before + 1) % 2 * p->piece + (before + 1) / 2);
        return;
    }
    for (int64_t f = 0; f < p->pieces; f++) {
        int64_t x = (f - before % p->pieces + p->pieces) % p->pieces; /* the first column of the input in this piece */
        float *at = to + f * p->piece + (x + before) / p->pieces;
        for (; x < width; x += p->pieces)
            *at++ = from[x];
    }
}

void fst__write_padded(const struct fst_node *n, const float *in, int64_t group, int64_t batch, float *to)
{
    struct fst__padded p = padded_of(n);
    int64_t rows = n->in.dim[1], width = n->in.dim[2], before = n->u.conv.padding[0];
    memset(to, 0, (size_t)fst__padded_floats(n, batch) * sizeof *to);
    for (int64_t b = 0; b < batch; b++)
        for (int64_t c = 0; c < p.channels; c++, to += p.channel) {
            const float *from = in + (b * n->in.dim[0] + group * p.channels + c) * rows * width;
            for (int64_t y = 0; y < rows; y++)
                write_row(n, &p, from + y * width, to + (before + y) * p.width);
        }
}

/* Where the output of that place begins to read. */
static const float *start_of(const struct fst_node *n, const struct fst__padded *p, const float *padded, int64_t place)
{
    int64_t width = n->out.dim[2], plane = n->out.dim[1] * width;
    return padded + place / plane * p->image + place % plane / width * n->u.conv.stride[0] * p->width + place % width;
}

static int64_t tap_at(const struct fst__padded *p, int64_t channel, int64_t ky, int64_t kx)
{
    return channel * p->channel + kx % p->pieces * p->piece + ky * p->width + kx / p->pieces;
}

void fst__write_panel(const struct fst_node *n, const float *padded, int64_t first, int64_t count, float *to)
{
    const fst_conv2d *c = &n->u.conv;
    struct fst__padded p = padded_of(n);
    const float *start[LANES];
    int64_t lane[LANES], runs = 0;
    for (int64_t done = 0; done < count; runs++) { /* a run of outputs in one row */
        int64_t left = n->out.dim[2] - (first + done) % n->out.dim[2];
        start[runs] = start_of(n, &p, padded, first + done);
        lane[runs] = done;
        done += left < count - done ? left : count - done;
    }
    /* LANES at a time, whatever the run's length: what is too much is written over by the next run, or row. */
    for (int64_t i = 0; i < p.channels; i++)
        for (int64_t ky = 0; ky < c->kernel[0]; ky++)
            for (int64_t kx = 0; kx < c->kernel[1]; kx++, to += LANES) {
                int64_t at = tap_at(&p, i, ky, kx);
                for (int64_t r = 0; r < runs; r++)
                    memcpy(to + lane[r], start[r] + at, LANES * sizeof *to);
            }
}

void fst__write_rows(const struct fst_node *n, const float *padded, int64_t first, int64_t count, float *to)
{
    const fst_conv2d *c = &n->u.conv;
    struct fst__padded p = padded_of(n);
    for (int64_t k = 0; k < count; k++) {
        const float *start = start_of(n, &p, padded, first + k);
        for (int64_t i = 0; i < p.channels; i++)
            for (int64_t ky = 0; ky < c->kernel[0]; ky++)
                for (int64_t kx = 0; kx < c->kernel[1]; kx++)
                    *to++ = start[tap_at(&p, i, ky, kx)];
    }
}

/*
 * complex_conv2d and complex_linear: two real layers, r and i; re = r(re) - i(im), im = r(im) + i(re). The reference
 * kernels gather inputs into columns (a row for every input channel and tap, a column for every output position) for
 * some channels at a time, and multiply in double; a linear layer is a convolution of one tap over one position.
 */
#include <string.h>

#include "backend.h"
#include "ops.h"

static fst_status conv_shape(struct fst_node *n, fst_error *err)
{
    if (n->in_planes != 2)
        return fst_fail(err, FST_E_ARGUMENT, "takes complex values, not real ones");
    if (n->u.conv.groups != 1)
        return fst_fail(err, FST_E_UNSUPPORTED, "has no groups");
    return fst__conv2d_shape(n, err);
}

static fst_status linear_shape(struct fst_node *n, fst_error *err)
{
    if (n->in_planes != 2)
        return fst_fail(err, FST_E_ARGUMENT, "takes complex values, not real ones");
    if (n->in.rank != 1)
        return fst_fail(err, FST_E_ARGUMENT, "needs flat samples (features), got rank %d: flatten first", n->in.rank);
    if (n->u.linear.out < 1)
        return fst_fail(err, FST_E_ARGUMENT, "needs at least one output");
    n->out = FST_SHAPE(n->u.linear.out);
    return FST_OK;
}

/* ---- geometry ------------------------------------------------------------------------------------------ */

struct geometry {
    fst_conv2d c;
    int64_t channels, height, width, out_height, out_width;
    int64_t samples, taps, plane, columns, group; /* columns: samples * plane; group: channels gathered at a time */
};

enum { GATHERED = 64 }; /* rows of columns at a time, about */

static struct geometry geometry_of(const struct fst_node *n, int64_t rows)
{
    struct geometry z = {.channels = n->in.dim[0], .height = 1, .width = 1, .out_height = 1, .out_width = 1};
    if (n->kind == FST_OP_COMPLEX_LINEAR) {
        z.c = (fst_conv2d){.out_channels = n->out.dim[0], .kernel = {1, 1}, .stride = {1, 1}, .bias = n->u.linear.bias};
    } else {
        z.c = n->u.conv;
        z.height = n->in.dim[1], z.width = n->in.dim[2];
        z.out_height = n->out.dim[1], z.out_width = n->out.dim[2];
    }
    z.samples = rows / 2;
    z.taps = z.c.kernel[0] * z.c.kernel[1];
    z.plane = z.out_height * z.out_width;
    z.columns = z.samples * z.plane;
    z.group = z.taps > GATHERED ? 1 : GATHERED / z.taps;
    if (z.group > z.channels)
        z.group = z.channels;
    return z;
}

static double flops(const struct fst_node *n)
{
    struct geometry z = geometry_of(n, 2);
    return (double)fst_shape_count(&n->out) * (8.0 * (double)(z.channels * z.taps) + (z.c.bias ? 4 : 0));
}

/* Doubles: for each plane the outputs and the columns of a group. */
static size_t scratch(const struct fst_node *n, int64_t rows)
{
    struct geometry z = geometry_of(n, rows);
    return sizeof(double) * 2 * (size_t)(z.columns * (z.c.out_channels + z.group * z.taps));
}

struct work { /* the scratch's parts, by plane */
    double *out[2], *column[2];
};

static struct work work_of(const struct geometry *z, void *memory)
{
    struct work w;
    double *at = memory;
    for (int p = 0; p < 2; p++) {
        w.out[p] = at, at += z->columns * z->c.out_channels;
        w.column[p] = at, at += z->columns * z->group * z->taps;
    }
    return w;
}

/* Element of the input under `tap` at output position `at`, of one row and channel; -1 outside. */
static int64_t under(const struct geometry *z, int64_t tap, int64_t at)
{
    int64_t y = at / z->out_width * z->c.stride[0] + tap / z->c.kernel[1] - z->c.padding[0];
    int64_t x = at % z->out_width * z->c.stride[1] + tap % z->c.kernel[1] - z->c.padding[1];
    return y >= 0 && y < z->height && x >= 0 && x < z->width ? y * z->width + x : -1;
}

static void gather(const struct geometry *z, const float *in, int64_t channel, int64_t count, struct work *w)
{
    for (int64_t k = 0; k < count * z->taps; k++)
        for (int64_t at = 0; at < z->plane; at++) {
            int64_t from = under(z, k % z->taps, at);
            for (int64_t b = 0; b < 2 * z->samples; b++) {
                const float *image = in + (b * z->channels + channel + k / z->taps) * z->height * z->width;
                double *row = w->column[b / z->samples] + k * z->columns;
                row[b % z->samples * z->plane + at] = from < 0 ? 0 : (double)image[from];
            }
        }
}

/* The output position whose window has `tap` over element `to` of the input; -1 when there is none. */
static int64_t over(const struct geometry *z, int64_t tap, int64_t to)
{
    int64_t y = to / z->width + z->c.padding[0] - tap / z->c.kernel[1];
    int64_t x = to % z->width + z->c.padding[1] - tap % z->c.kernel[1];
    if (y < 0 || x < 0 || y % z->c.stride[0] || x % z->c.stride[1])
        return -1;
    y /= z->c.stride[0], x /= z->c.stride[1];
    return y < z->out_height && x < z->out_width ? y * z->out_width + x : -1;
}

/* The other way: sums of columns are the input's gradient. */
static void scatter(const struct geometry *z, const struct work *w, int64_t channel, int64_t count, float *in)
{
    int64_t size = z->height * z->width;
    for (int64_t b = 0; b < 2 * z->samples; b++)
        for (int64_t i = 0; i < count * size; i++) {
            const double *rows = w->column[b / z->samples] + i / size * z->taps * z->columns;
            double sum = 0;
            for (int64_t tap = 0; tap < z->taps; tap++) {
                int64_t at = over(z, tap, i % size);
                sum += at < 0 ? 0 : rows[tap * z->columns + b % z->samples * z->plane + at];
            }
            in[(b * z->channels + channel) * size + i] = (float)sum;
        }
}

/* ---- products ------------------------------------------------------------------------------------------- */

/* (yr, yi) += (wr, wi) (xr, xi), complex, of n elements. */
FST_HOT static void multiply_add(double wr, double wi, const double *restrict xr, const double *restrict xi,
                                 double *restrict yr, double *restrict yi, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        yr[i] += wr * xr[i] - wi * xi[i];
        yi[i] += wr * xi[i] + wi * xr[i];
    }
}

enum { LANES = 16 };

/* sum conj(x) g; the order of the sum is fixed. */
FST_HOT static void product(const double *restrict xr, const double *restrict xi, const double *restrict gr,
                            const double *restrict gi, int64_t n, double *re, double *im)
{
    double r[LANES] = {0}, m[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++) {
            r[l] += xr[i + l] * gr[i + l] + xi[i + l] * gi[i + l];
            m[l] += xr[i + l] * gi[i + l] - xi[i + l] * gr[i + l];
        }
    for (; i < n; i++) {
        r[i % LANES] += xr[i] * gr[i] + xi[i] * gi[i];
        m[i % LANES] += xr[i] * gi[i] - xi[i] * gr[i];
    }
    *re = *im = 0;
    for (int l = 0; l < LANES; l++)
        *re += r[l], *im += m[l];
}

struct pair { /* a layer's parameters or their gradients */
    float *wr, *wi, *br, *bi;
};

static struct pair pair_of(const struct geometry *z, float *const slot[])
{
    if (z->c.bias)
        return (struct pair){slot[0], slot[2], slot[1], slot[3]};
    return (struct pair){slot[0], slot[1], NULL, NULL};
}

static int64_t group_at(const struct geometry *z, int64_t channel)
{
    return z->channels - channel < z->group ? z->channels - channel : z->group;
}

/* Between the outputs' rows, (plane, sample, channel, position), and the work's, (channel, sample, position). */
static int64_t row_of(const struct geometry *z, int plane, int64_t sample, int64_t channel)
{
    return ((plane * z->samples + sample) * z->c.out_channels + channel) * z->plane;
}

static void forward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct geometry z = geometry_of(n, a->batch);
    struct work w = work_of(&z, a->scratch);
    struct pair p = pair_of(&z, (float *const *)a->param);
    int64_t row = z.channels * z.taps, outs = z.c.out_channels;
    for (int64_t o = 0; o < outs; o++)
        for (int64_t i = 0; i < z.columns; i++) {
            w.out[0][o * z.columns + i] = p.br ? (double)p.br[o] - (double)p.bi[o] : 0;
            w.out[1][o * z.columns + i] = p.br ? (double)p.br[o] + (double)p.bi[o] : 0;
        }
    for (int64_t c = 0; c < z.channels; c += z.group) {
        int64_t count = group_at(&z, c);
        gather(&z, a->in, c, count, &w);
        for (int64_t i = 0; i < outs * count * z.taps; i++) {
            int64_t o = i / (count * z.taps), k = i % (count * z.taps), at = o * row + c * z.taps + k;
            multiply_add((double)p.wr[at], (double)p.wi[at], w.column[0] + k * z.columns, w.column[1] + k * z.columns,
                         w.out[0] + o * z.columns, w.out[1] + o * z.columns, z.columns);
        }
    }
    for (int plane = 0; plane < 2; plane++)
        for (int64_t o = 0; o < outs; o++)
            for (int64_t i = 0; i < z.columns; i++)
                a->out[row_of(&z, plane, i / z.plane, o) + i % z.plane] = (float)w.out[plane][o * z.columns + i];
}

static void bias_gradient(const struct geometry *z, const struct work *w, const struct pair *g)
{
    for (int64_t o = 0; g->br && o < z->c.out_channels; o++) {
        double re = 0, im = 0;
        for (int64_t i = o * z->columns; i < (o + 1) * z->columns; i++)
            re += w->out[0][i], im += w->out[1][i];
        g->br[o] = (float)(im + re);
        g->bi[o] = (float)(im - re);
    }
}

static void backward(const struct fst_node *n, const struct fst_op_args *a)
{
    struct geometry z = geometry_of(n, a->batch);
    struct work w = work_of(&z, a->scratch);
    struct pair p = pair_of(&z, (float *const *)a->param), g = pair_of(&z, a->grad_param);
    int64_t row = z.channels * z.taps, outs = z.c.out_channels;
    for (int plane = 0; plane < 2; plane++)
        for (int64_t o = 0; o < outs; o++)
            for (int64_t i = 0; i < z.columns; i++)
                w.out[plane][o * z.columns + i] = (double)a->grad_out[row_of(&z, plane, i / z.plane, o) + i % z.plane];
    bias_gradient(&z, &w, &g);
    for (int64_t c = 0; c < z.channels; c += z.group) {
        int64_t count = group_at(&z, c), terms = count * z.taps;
        gather(&z, a->in, c, count, &w);
        for (int64_t i = 0; i < outs * terms; i++) {
            int64_t o = i / terms, k = i % terms, at = o * row + c * z.taps + k;
            double re, im;
            product(w.column[0] + k * z.columns, w.column[1] + k * z.columns, w.out[0] + o * z.columns,
                    w.out[1] + o * z.columns, z.columns, &re, &im);
            g.wr[at] = (float)re;
            g.wi[at] = (float)im;
        }
        if (!a->grad_in)
            continue;
        memset(w.column[0], 0, (size_t)(terms * z.columns) * sizeof(double));
        memset(w.column[1], 0, (size_t)(terms * z.columns) * sizeof(double));
        for (int64_t i = 0; i < outs * terms; i++) {
            int64_t o = i / terms, k = i % terms, at = o * row + c * z.taps + k;
            multiply_add((double)p.wr[at], -(double)p.wi[at], w.out[0] + o * z.columns, w.out[1] + o * z.columns,
                         w.column[0] + k * z.columns, w.column[1] + k * z.columns, z.columns);
        }
        scatter(&z, &w, c, count, a->grad_in);
    }
}

const struct fst_op_type fst__op_complex_conv2d = {
    .name = "complex_conv2d",
    .shape = conv_shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .scratch = scratch,
    .takes_complex = true,
};

const struct fst_op_type fst__op_complex_linear = {
    .name = "complex_linear",
    .shape = linear_shape,
    .flops = flops,
    .forward = forward,
    .backward = FST__GRADIENT(backward),
    .scratch = scratch,
    .takes_complex = true,
};

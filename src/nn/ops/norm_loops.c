/*
 * Batch norm's passes over values (norm_loops.h). Each loop exists for float and for bf16 and comes down to one step
 * over up to 16 lanes, whose length is a constant where a step is full. Sums are float over at most 64 steps and double
 * over those; their order depends on the shape and the layout alone. It knows nothing of shards but how many rows
 * count.
 */
#include "norm_loops.h"

#include "bf16.h"

enum { LANES = FST_NORM_LANES, CHUNK = 64 };
#define ALWAYS static inline __attribute__((always_inline))

struct fst_norm_walk fst__norm_walk(const struct fst_node *n, int64_t batch, int64_t rows, int64_t block, bool half)
{
    int64_t channels = n->in.dim[0], plane = n->in.dim[1] * n->in.dim[2];
    struct fst_norm_walk w = {.batch = batch, .rows = rows, .channels = channels, .plane = plane, .half = half};
    if (block == 0 || (block == 1 && plane == 1)) { /* of one position, plain is channels last */
        w.run_channels = w.run_at = w.lanes = LANES;
        w.runs = (channels + LANES - 1) / LANES;
        w.step_at = channels;
        w.steps = plane;
        w.row_at = channels * plane;
        w.ragged = true;
        return w;
    }
    w.run_channels = block;
    w.runs = (channels + block - 1) / block;
    w.run_at = plane * block;
    w.row_at = w.runs * w.run_at;
    w.step_at = w.lanes = LANES;
    w.steps = w.run_at / LANES;
    w.tail = (int)(w.run_at % LANES);
    return w;
}

static int lanes_of(const struct fst_norm_walk *w, int64_t run)
{
    int64_t left = w->channels - run * w->run_channels;
    return w->ragged && left < LANES ? (int)left : w->lanes;
}

/* A lane's channel among the run's; -1: padding. */
static int channel_of(const struct fst_norm_walk *w, int64_t run, int lane)
{
    int c = lane % (int)w->run_channels;
    return run * w->run_channels + c < w->channels ? c : -1;
}

ALWAYS float get(const void *p, int64_t i, bool half)
{
    return half ? fst__widen(((const uint16_t *)p)[i]) : ((const float *)p)[i];
}

ALWAYS void put(void *p, int64_t i, float v, bool half)
{
    if (half)
        ((uint16_t *)p)[i] = fst__narrow(v);
    else
        ((float *)p)[i] = v;
}

struct sums {
    double v[2][LANES];
};

static void add_up(struct sums *t, float s[2][LANES])
{
    for (int k = 0; k < 2; k++)
        for (int l = 0; l < LANES; l++) {
            t->v[k][l] += (double)s[k][l];
            s[k][l] = 0;
        }
}

/* Sums by lane to sums by channel: lanes of a channel follow each other at the distance of run_channels. */
static double by_channel(const struct fst_norm_walk *w, const double *lane, int64_t c)
{
    double sum = 0;
    for (int64_t l = c; l < LANES; l += w->run_channels)
        sum += lane[l];
    return sum;
}

/* ---- statistics ------------------------------------------------------------------------------------------------ */

ALWAYS void value_step(const void *in, int64_t at, const float *restrict about, float s[2][LANES], int n, bool half)
{
    for (int l = 0; l < n; l++) {
        float d = get(in, at + l, half) - about[l];
        s[0][l] += d;
        s[1][l] += d * d;
    }
}

ALWAYS void sum_row(const struct fst_norm_walk *w, const void *in, int64_t at, int lanes, const float *about,
                    struct sums *t, bool half)
{
    float s[2][LANES] = {0};
    for (int64_t i = 0; i < w->steps; i++) {
        if (lanes == LANES)
            value_step(in, at + i * w->step_at, about, s, LANES, half);
        else
            value_step(in, at + i * w->step_at, about, s, lanes, half);
        if (i % CHUNK == CHUNK - 1)
            add_up(t, s);
    }
    value_step(in, at + w->steps * w->step_at, about, s, w->tail, half);
    add_up(t, s);
}

FST_HOT static void sum_rows(const struct fst_norm_walk *w, const void *in, int64_t run, int64_t rows,
                             const float *about, struct sums *t)
{
    int lanes = lanes_of(w, run);
    for (int64_t b = 0; b < rows; b++) {
        if (w->half)
            sum_row(w, in, b * w->row_at + run * w->run_at, lanes, about, t, true);
        else
            sum_row(w, in, b * w->row_at + run * w->run_at, lanes, about, t, false);
    }
}

/* Values are summed about the first sample's mean: near the batch's, so that the difference of squares loses nothing.
 */
void fst__norm_sums(const struct fst_norm_walk *w, const void *in, int64_t run, double (*sums)[2])
{
    float about[LANES] = {0};
    struct sums first = {0}, all = {0};
    double count = (double)(w->rows * w->plane);
    sum_rows(w, in, run, w->rows > 0, about, &first);
    for (int l = 0; l < LANES; l++) {
        int c = channel_of(w, run, l);
        about[l] = c < 0 ? 0 : (float)(by_channel(w, first.v[0], c) / (double)w->plane);
    }
    sum_rows(w, in, run, w->rows, about, &all);
    for (int c = 0; c < w->run_channels && channel_of(w, run, c) >= 0; c++) {
        double sum = by_channel(w, all.v[0], c), square = by_channel(w, all.v[1], c);
        double spread = count > 0 ? square - sum * sum / count : 0;
        sums[c][0] = count > 0 ? (double)about[c] + sum / count : 0;
        sums[c][1] =
            spread > 0 || spread != spread ? spread : 0; /* of equal values only rounding is left; a NaN stays */
    }
}

/* ---- forward ----------------------------------------------------------------------------------------------------- */

struct lines { /* by lane */
    float mean[LANES], scale[LANES], slope[LANES], shift[LANES];
};

ALWAYS void forward_step(const void *restrict in, void *restrict out, int64_t at, const struct lines *k, bool relu,
                         int n, bool half)
{
    for (int l = 0; l < n; l++) {
        float y = (get(in, at + l, half) - k->mean[l]) * k->scale[l] + k->shift[l];
        put(out, at + l, relu && !(y > 0) ? 0 : y, half);
    }
}

ALWAYS void forward_rows(const struct fst_norm_walk *w, const void *in, void *out, int64_t run, const struct lines *k,
                         bool relu, bool half)
{
    int lanes = lanes_of(w, run);
    for (int64_t b = 0; b < w->batch; b++) {
        int64_t at = b * w->row_at + run * w->run_at;
        if (lanes == LANES)
            for (int64_t i = 0; i < w->steps; i++)
                forward_step(in, out, at + i * w->step_at, k, relu, LANES, half);
        else
            for (int64_t i = 0; i < w->steps; i++)
                forward_step(in, out, at + i * w->step_at, k, relu, lanes, half);
        forward_step(in, out, at + w->steps * w->step_at, k, relu, w->tail, half);
    }
}

FST_HOT static void forward_any(const struct fst_norm_walk *w, const void *in, void *out, int64_t run,
                                const struct lines *k, bool relu)
{
    if (relu && w->half)
        forward_rows(w, in, out, run, k, true, true);
    else if (relu)
        forward_rows(w, in, out, run, k, true, false);
    else if (w->half)
        forward_rows(w, in, out, run, k, false, true);
    else
        forward_rows(w, in, out, run, k, false, false);
}

void fst__norm_forward(const struct fst_norm_walk *w, const void *in, void *out, int64_t run, bool relu,
                       const struct fst_norm_line *line)
{
    struct lines k = {0};
    for (int l = 0; l < LANES; l++) {
        int c = channel_of(w, run, l);
        if (c < 0)
            continue;
        k.mean[l] = line[c].mean;
        k.scale[l] = line[c].scale;
        k.shift[l] = line[c].shift;
    }
    forward_any(w, in, out, run, &k, relu);
}

/* ---- backward ------------------------------------------------------------------------------------------------------
 */

/* The gradient after the ReLU; read in any case, so that the choice is a blend of vectors. */
ALWAYS float masked(const void *out, const void *grad, int64_t i, bool mask, bool half)
{
    float g = get(grad, i, half);
    if (mask)
        g = get(out, i, half) > 0 ? g : 0;
    return g;
}

ALWAYS void gradient_sum_step(const void *in, const void *out, const void *grad, int64_t at, const float *restrict mean,
                              float s[2][LANES], bool mask, int n, bool half)
{
    for (int l = 0; l < n; l++) {
        float g = masked(out, grad, at + l, mask, half);
        s[0][l] += g;
        s[1][l] += g * (get(in, at + l, half) - mean[l]);
    }
}

ALWAYS void gradient_sum_rows(const struct fst_norm_walk *w, const void *in, const void *out, const void *grad,
                              int64_t run, const float *mean, struct sums *t, bool mask, bool half)
{
    int lanes = lanes_of(w, run);
    for (int64_t b = 0; b < w->rows; b++) {
        float s[2][LANES] = {0};
        int64_t at = b * w->row_at + run * w->run_at;
        for (int64_t i = 0; i < w->steps; i++) {
            if (lanes == LANES)
                gradient_sum_step(in, out, grad, at + i * w->step_at, mean, s, mask, LANES, half);
            else
                gradient_sum_step(in, out, grad, at + i * w->step_at, mean, s, mask, lanes, half);
            if (i % CHUNK == CHUNK - 1)
                add_up(t, s);
        }
        gradient_sum_step(in, out, grad, at + w->steps * w->step_at, mean, s, mask, w->tail, half);
        add_up(t, s);
    }
}

FST_HOT static void gradient_sums_any(const struct fst_norm_walk *w, const void *in, const void *out, const void *grad,
                                      int64_t run, const float *mean, struct sums *t)
{
    if (out && w->half)
        gradient_sum_rows(w, in, out, grad, run, mean, t, true, true);
    else if (out)
        gradient_sum_rows(w, in, out, grad, run, mean, t, true, false);
    else if (w->half)
        gradient_sum_rows(w, in, out, grad, run, mean, t, false, true);
    else
        gradient_sum_rows(w, in, out, grad, run, mean, t, false, false);
}

void fst__norm_gradient_sums(const struct fst_norm_walk *w, const void *in, const void *out, const void *grad,
                             int64_t run, const struct fst_norm_line *line, double (*sums)[2])
{
    float mean[LANES] = {0};
    struct sums t = {0};
    for (int l = 0; l < LANES; l++)
        if (channel_of(w, run, l) >= 0)
            mean[l] = line[channel_of(w, run, l)].mean;
    gradient_sums_any(w, in, out, grad, run, mean, &t);
    for (int c = 0; c < w->run_channels && channel_of(w, run, c) >= 0; c++)
        for (int k = 0; k < 2; k++)
            sums[c][k] = by_channel(w, t.v[k], c);
}

ALWAYS void gradient_step(const void *restrict in, const void *restrict out, void *restrict grad, int64_t at,
                          const struct lines *k, bool mask, int n, bool half)
{
    for (int l = 0; l < n; l++) {
        float g = masked(out, grad, at + l, mask, half);
        float d = get(in, at + l, half) - k->mean[l];
        put(grad, at + l, g * k->scale[l] + d * k->slope[l] + k->shift[l], half);
    }
}

ALWAYS void gradient_rows(const struct fst_norm_walk *w, const void *in, const void *out, void *grad, int64_t run,
                          int64_t from, int64_t to, const struct lines *k, bool mask, bool half)
{
    int lanes = lanes_of(w, run);
    for (int64_t b = from; b < to; b++) {
        int64_t at = b * w->row_at + run * w->run_at;
        if (lanes == LANES)
            for (int64_t i = 0; i < w->steps; i++)
                gradient_step(in, out, grad, at + i * w->step_at, k, mask, LANES, half);
        else
            for (int64_t i = 0; i < w->steps; i++)
                gradient_step(in, out, grad, at + i * w->step_at, k, mask, lanes, half);
        gradient_step(in, out, grad, at + w->steps * w->step_at, k, mask, w->tail, half);
    }
}

FST_HOT static void gradient_any(const struct fst_norm_walk *w, const void *in, const void *out, void *grad,
                                 int64_t run, const struct lines *k)
{
    if (out && w->half)
        gradient_rows(w, in, out, grad, run, 0, w->rows, k, true, true);
    else if (out)
        gradient_rows(w, in, out, grad, run, 0, w->rows, k, true, false);
    else if (w->half)
        gradient_rows(w, in, out, grad, run, 0, w->rows, k, false, true);
    else
        gradient_rows(w, in, out, grad, run, 0, w->rows, k, false, false);
}

/* Rows that do not count have no gradient; what lies there may be anything. */
static void clear_rows(const struct fst_norm_walk *w, void *grad, int64_t run)
{
    int lanes = lanes_of(w, run);
    size_t size = w->half ? 2 : 4;
    for (int64_t b = w->rows; b < w->batch; b++)
        for (int64_t i = 0; i < w->steps + (w->tail > 0); i++) {
            int64_t at = b * w->row_at + run * w->run_at + i * w->step_at;
            memset((char *)grad + (size_t)at * size, 0, (size_t)(i < w->steps ? lanes : w->tail) * size);
        }
}

void fst__norm_gradient(const struct fst_norm_walk *w, const void *in, const void *out, void *grad, int64_t run,
                        const struct fst_norm_slope *slope)
{
    struct lines k = {0};
    for (int l = 0; l < LANES; l++) {
        int c = channel_of(w, run, l);
        if (c < 0)
            continue;
        k.mean[l] = slope[c].mean;
        k.scale[l] = slope[c].scale;
        k.slope[l] = slope[c].slope;
        k.shift[l] = slope[c].shift;
    }
    gradient_any(w, in, out, grad, run, &k);
    clear_rows(w, grad, run);
}

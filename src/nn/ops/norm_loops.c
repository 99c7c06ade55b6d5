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

ALWAYS void add_up(struct sums *t, const float s[2][LANES])
{
    for (int k = 0; k < 2; k++)
        for (int l = 0; l < LANES; l++)
            t->v[k][l] += (double)s[k][l];
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

/* The steps from `from` on, CHUNK at most, and the one that is not full after the last; its sums stay in registers. */
ALWAYS void sum_chunk(const struct fst_norm_walk *w, const void *in, int64_t at, int64_t from, int lanes,
                      const float *about, struct sums *t, bool half)
{
    float s[2][LANES] = {0};
    int64_t to = from + CHUNK < w->steps ? from + CHUNK : w->steps;
    for (int64_t i = from; i < to; i++)
        value_step(in, at + i * w->step_at, about, s, lanes, half);
    if (from + CHUNK > w->steps)
        value_step(in, at + w->steps * w->step_at, about, s, w->tail, half);
    add_up(t, s);
}

ALWAYS void sum_row(const struct fst_norm_walk *w, const void *in, int64_t at, int lanes, const float *about,
                    struct sums *t, bool half)
{
    for (int64_t i = 0; i <= w->steps; i += CHUNK) {
        if (lanes == LANES)
            sum_chunk(w, in, at, i, LANES, about, t, half);
        else
            sum_chunk(w, in, at, i, lanes, about, t, half);
    }
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
    float mean[LANES], scale[LANES], shift[LANES];
};

static struct lines lines_of(const struct fst_norm_walk *w, int64_t run, const struct fst_norm_line *line)
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
    return k;
}

ALWAYS float rounded(float y, bool half)
{
    return half ? fst__widen(fst__narrow(y)) : y;
}

/* The norm of x. The one place for it: what is computed again must come out with the same bits. */
ALWAYS float norm_of(float x, const struct lines *k, int l, bool half)
{
    return rounded((x - k->mean[l]) * k->scale[l] + k->shift[l], half);
}

/* What is computed with the norm, known when the loop is compiled. */
struct form {
    bool add, relu, half;
};

ALWAYS void forward_step(const void *restrict in, const void *restrict other, void *restrict out, int64_t at,
                         const struct lines *k, float ceiling, int n, struct form f)
{
    for (int l = 0; l < n; l++) {
        float y = norm_of(get(in, at + l, f.half), k, l, f.half);
        if (f.add)
            y += get(other, at + l, f.half);
        if (f.relu) {
            y = y > 0 ? y : 0;
            y = y < ceiling ? y : ceiling;
        }
        put(out, at + l, y, f.half);
    }
}

ALWAYS void forward_rows(const struct fst_norm_walk *w, const void *in, void *out, int64_t run, const struct lines *k,
                         const struct fst_norm_with *with, struct form f)
{
    int lanes = lanes_of(w, run);
    float ceiling = with->ceiling;
    for (int64_t b = 0; b < w->batch; b++) {
        int64_t at = b * w->row_at + run * w->run_at;
        if (lanes == LANES)
            for (int64_t i = 0; i < w->steps; i++)
                forward_step(in, with->other, out, at + i * w->step_at, k, ceiling, LANES, f);
        else
            for (int64_t i = 0; i < w->steps; i++)
                forward_step(in, with->other, out, at + i * w->step_at, k, ceiling, lanes, f);
        forward_step(in, with->other, out, at + w->steps * w->step_at, k, ceiling, w->tail, f);
    }
}

FST_HOT static void forward_any(const struct fst_norm_walk *w, const void *in, void *out, int64_t run,
                                const struct lines *k, const struct fst_norm_with *with)
{
    switch ((with->other ? 4 : 0) + (with->relu ? 2 : 0) + w->half) {
    case 0:
        forward_rows(w, in, out, run, k, with, (struct form){false, false, false});
        break;
    case 1:
        forward_rows(w, in, out, run, k, with, (struct form){false, false, true});
        break;
    case 2:
        forward_rows(w, in, out, run, k, with, (struct form){false, true, false});
        break;
    case 3:
        forward_rows(w, in, out, run, k, with, (struct form){false, true, true});
        break;
    case 4:
        forward_rows(w, in, out, run, k, with, (struct form){true, false, false});
        break;
    case 5:
        forward_rows(w, in, out, run, k, with, (struct form){true, false, true});
        break;
    case 6:
        forward_rows(w, in, out, run, k, with, (struct form){true, true, false});
        break;
    default:
        forward_rows(w, in, out, run, k, with, (struct form){true, true, true});
    }
}

void fst__norm_forward(const struct fst_norm_walk *w, const void *in, void *out, int64_t run,
                       const struct fst_norm_line *line, const struct fst_norm_with *with)
{
    struct lines k = lines_of(w, run, line);
    forward_any(w, in, out, run, &k, with);
}

/* ---- backward ---------------------------------------------------------------------------------------------------- */

/* Where the ReLU's gradient comes from: there is none, the norm computed again from its input, the output. */
enum mask { MASK_NONE, MASK_INPUT, MASK_OUTPUT };

struct gradient_form {
    enum mask mask;
    bool pass; /* the gradient after the ReLU is also written */
    bool half;
};

/* The gradient after the ReLU; everything is read in any case, so that the choice is a blend of vectors. */
ALWAYS float masked(float x, const void *out, float g, int64_t i, const struct lines *k, int l, float ceiling,
                    struct gradient_form f)
{
    if (f.mask == MASK_NONE)
        return g;
    float y = f.mask == MASK_INPUT ? norm_of(x, k, l, f.half) : get(out, i, f.half);
    g = y > 0 ? g : 0;
    return y < ceiling ? g : 0;
}

ALWAYS void gradient_sum_step(const struct fst_norm_gradient *p, int64_t at, const struct lines *k, float s[2][LANES],
                              int n, struct gradient_form f)
{
    float g[LANES];
    const void *restrict in = p->in, *restrict out = p->out;
    for (int l = 0; l < n; l++) {
        float x = get(in, at + l, f.half);
        g[l] = masked(x, out, get(p->grad, at + l, f.half), at + l, k, l, p->ceiling, f);
        s[0][l] += g[l];
        s[1][l] += g[l] * (x - k->mean[l]);
    }
    for (int l = 0; f.pass && l < n; l++)
        put(p->pass, at + l, g[l], f.half);
}

ALWAYS void gradient_sum_chunk(const struct fst_norm_walk *w, const struct fst_norm_gradient *p, int64_t at,
                               int64_t from, int lanes, const struct lines *k, struct sums *t, struct gradient_form f)
{
    float s[2][LANES] = {0};
    int64_t to = from + CHUNK < w->steps ? from + CHUNK : w->steps;
    for (int64_t i = from; i < to; i++)
        gradient_sum_step(p, at + i * w->step_at, k, s, lanes, f);
    if (from + CHUNK > w->steps)
        gradient_sum_step(p, at + w->steps * w->step_at, k, s, w->tail, f);
    add_up(t, s);
}

ALWAYS void gradient_sum_rows(const struct fst_norm_walk *w, const struct fst_norm_gradient *p, int64_t run,
                              const struct lines *k, struct sums *t, struct gradient_form f)
{
    int lanes = lanes_of(w, run);
    for (int64_t b = 0; b < w->rows; b++) {
        int64_t at = b * w->row_at + run * w->run_at;
        for (int64_t i = 0; i <= w->steps; i += CHUNK) {
            if (lanes == LANES)
                gradient_sum_chunk(w, p, at, i, LANES, k, t, f);
            else
                gradient_sum_chunk(w, p, at, i, lanes, k, t, f);
        }
    }
}

/* Which of the forms: a ReLU after the norm alone is found again from the input, one after a sum from the output. */
static int form_of(const struct fst_norm_walk *w, const struct fst_norm_gradient *p)
{
    int mask = !p->relu ? MASK_NONE : p->out ? MASK_OUTPUT : MASK_INPUT;
    return 2 * mask + w->half;
}

#define FORM(MASK, PASS, HALF) ((struct gradient_form){MASK, PASS, HALF})

FST_HOT static void gradient_sums_any(const struct fst_norm_walk *w, const struct fst_norm_gradient *p, int64_t run,
                                      const struct lines *k, struct sums *t)
{
    switch (form_of(w, p) + (p->pass ? 6 : 0)) {
    case 0:
        gradient_sum_rows(w, p, run, k, t, FORM(MASK_NONE, false, false));
        break;
    case 1:
        gradient_sum_rows(w, p, run, k, t, FORM(MASK_NONE, false, true));
        break;
    case 2:
        gradient_sum_rows(w, p, run, k, t, FORM(MASK_INPUT, false, false));
        break;
    case 3:
        gradient_sum_rows(w, p, run, k, t, FORM(MASK_INPUT, false, true));
        break;
    case 6:
        gradient_sum_rows(w, p, run, k, t, FORM(MASK_NONE, true, false));
        break;
    case 7:
        gradient_sum_rows(w, p, run, k, t, FORM(MASK_NONE, true, true));
        break;
    case 10:
        gradient_sum_rows(w, p, run, k, t, FORM(MASK_OUTPUT, true, false));
        break;
    default:
        gradient_sum_rows(w, p, run, k, t, FORM(MASK_OUTPUT, true, true));
    }
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

void fst__norm_gradient_sums(const struct fst_norm_walk *w, const struct fst_norm_gradient *p, int64_t run,
                             const struct fst_norm_line *line, double (*sums)[2])
{
    struct lines k = lines_of(w, run, line);
    struct sums t = {0};
    gradient_sums_any(w, p, run, &k, &t);
    if (p->pass)
        clear_rows(w, p->pass, run);
    for (int c = 0; c < w->run_channels && channel_of(w, run, c) >= 0; c++)
        for (int i = 0; i < 2; i++)
            sums[c][i] = by_channel(w, t.v[i], c);
}

struct slopes { /* by lane */
    float scale[LANES], slope[LANES], shift[LANES];
};

ALWAYS void gradient_step(const struct fst_norm_gradient *p, int64_t at, const struct lines *k, const struct slopes *by,
                          int n, struct gradient_form f)
{
    float g[LANES];
    const void *restrict in = p->in;
    for (int l = 0; l < n; l++) {
        float x = get(in, at + l, f.half);
        float behind = masked(x, NULL, get(p->grad, at + l, f.half), at + l, k, l, p->ceiling, f);
        g[l] = behind * by->scale[l] + (x - k->mean[l]) * by->slope[l] + by->shift[l];
    }
    for (int l = 0; l < n; l++)
        put(p->to, at + l, g[l], f.half);
}

ALWAYS void gradient_rows(const struct fst_norm_walk *w, const struct fst_norm_gradient *p, int64_t run,
                          const struct lines *k, const struct slopes *by, struct gradient_form f)
{
    int lanes = lanes_of(w, run);
    for (int64_t b = 0; b < w->rows; b++) {
        int64_t at = b * w->row_at + run * w->run_at;
        if (lanes == LANES)
            for (int64_t i = 0; i < w->steps; i++)
                gradient_step(p, at + i * w->step_at, k, by, LANES, f);
        else
            for (int64_t i = 0; i < w->steps; i++)
                gradient_step(p, at + i * w->step_at, k, by, lanes, f);
        gradient_step(p, at + w->steps * w->step_at, k, by, w->tail, f);
    }
}

FST_HOT static void gradient_any(const struct fst_norm_walk *w, const struct fst_norm_gradient *p, int64_t run,
                                 const struct lines *k, const struct slopes *by)
{
    switch (form_of(w, p)) {
    case 0:
        gradient_rows(w, p, run, k, by, FORM(MASK_NONE, false, false));
        break;
    case 1:
        gradient_rows(w, p, run, k, by, FORM(MASK_NONE, false, true));
        break;
    case 2:
        gradient_rows(w, p, run, k, by, FORM(MASK_INPUT, false, false));
        break;
    default:
        gradient_rows(w, p, run, k, by, FORM(MASK_INPUT, false, true));
    }
}

void fst__norm_gradient(const struct fst_norm_walk *w, const struct fst_norm_gradient *p, int64_t run,
                        const struct fst_norm_line *line, const struct fst_norm_slope *slope)
{
    struct lines k = lines_of(w, run, line);
    struct slopes by = {0};
    for (int l = 0; l < LANES; l++) {
        int c = channel_of(w, run, l);
        if (c < 0)
            continue;
        by.scale[l] = slope[c].scale;
        by.slope[l] = slope[c].slope;
        by.shift[l] = slope[c].shift;
    }
    gradient_any(w, p, run, &k, &by);
    clear_rows(w, p->to, run);
}

/* Convolutions and linear layers of the vector backend: which form they take, what is held of them, and their sums. */
#include <math.h>
#include <string.h>

#include "vector.h"

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static bool is_conv(const struct fst__weighted *w)
{
    return w->node->kind == FST_OP_CONV2D;
}

static int64_t plane_of(const struct fst__weighted *w)
{
    return w->node->out.dim[1] * w->node->out.dim[2];
}

/* Places are lanes, unless there are so few that channels fill vectors better. In vectors for each step of k; a row's
 * value costs three, being copied alone, a panel's vector two. A tile that is not full is slower for each of its rows.
 */
static bool suits_channels(const struct fst__weighted *w, int64_t places)
{
    enum { COPY_VALUE = 3, COPY_VECTOR = 2 };
    double by_place = (double)(round_up(places, LANES) / LANES * (w->outputs + COPY_VECTOR)),
           by_channel = (double)(places * (round_up(w->outputs, LANES) / LANES + COPY_VALUE));
    return by_channel * (places < w->tiles->rows ? 1.5 : 1) < by_place;
}

void fst__weighted_init(struct fst__weighted *w, const struct fst_op_request *r)
{
    const struct fst_node *n = r->node;
    *w = (struct fst__weighted){.node = n,
                                .fold = r->fold,
                                .tiles = fst__tiles(),
                                .by_channel = true,
                                .relu = r->relu,
                                .relu6 = r->relu6,
                                .groups = 1};
    if (n->kind != FST_OP_CONV2D) {
        struct fst_linear_sizes z = fst__linear_sizes(n, r->batch);
        w->outputs = z.out;
        w->depth = z.in;
        return;
    }
    const fst_conv2d *c = &n->u.conv;
    w->groups = c->groups;
    w->outputs = c->out_channels / c->groups;
    w->depth = n->in.dim[0] / c->groups * c->kernel[0] * c->kernel[1];
    w->by_channel = suits_channels(w, r->batch * plane_of(w));
}

/* ---- what is held: factors and summands of all outputs, then the weights' panels, group by group ---- */

static int64_t factors(const struct fst__weighted *w)
{
    return round_up(w->groups * w->outputs, LANES) + LANES; /* read LANES at a time */
}

static int64_t panels_of_group(const struct fst__weighted *w)
{
    return round_up(w->outputs, LANES) * w->depth;
}

size_t fst__weighted_held(const struct fst__weighted *w)
{
    int64_t floats = 2 * factors(w) + (w->by_channel ? w->groups * panels_of_group(w) : 0);
    return (size_t)floats * sizeof(float);
}

static void write_factors(const struct fst__weighted *w, const struct fst_op_args *a, float *scale, float *shift)
{
    bool bias = is_conv(w) ? w->node->u.conv.bias : w->node->u.linear.bias;
    for (int64_t o = 0; o < w->groups * w->outputs; o++) {
        double factor = 1, summand = bias ? (double)a->param[1][o] : 0;
        if (w->fold) {
            factor = (double)a->fold_param[0][o] / sqrt((double)a->fold_buffer[1][o] + w->fold->u.norm.eps);
            summand = (summand - (double)a->fold_buffer[0][o]) * factor + (double)a->fold_param[1][o];
        }
        scale[o] = (float)factor;
        shift[o] = (float)summand;
    }
    for (int64_t o = w->groups * w->outputs; o < factors(w); o++)
        scale[o] = shift[o] = 0;
}

static void write_panels(const struct fst__weighted *w, const float *weight, float *to)
{
    memset(to, 0, (size_t)panels_of_group(w) * sizeof *to);
    for (int64_t o = 0; o < w->outputs; o++) {
        float *panel = to + o / LANES * LANES * w->depth + o % LANES;
        for (int64_t l = 0; l < w->depth; l++)
            panel[l * LANES] = weight[o * w->depth + l];
    }
}

void fst__weighted_prepare(const struct fst__weighted *w, const struct fst_op_args *a)
{
    float *scale = a->held, *shift = scale + factors(w), *panels = shift + factors(w);
    write_factors(w, a, scale, shift);
    for (int64_t g = 0; w->by_channel && g < w->groups; g++)
        write_panels(w, a->param[0] + g * w->outputs * w->depth, panels + g * panels_of_group(w));
}

/* ---- sums become outputs: sum * scale + shift, and a ReLU ---- */

/* A factor and a summand for each row, or (of_lanes) for each lane. */
FST_HOT static void finish(const struct fst__weighted *w, float *restrict sum, int rows, const float *restrict scale,
                           const float *restrict shift, bool of_lanes)
{
    for (int r = 0; r < rows; r++, sum += LANES) {
        if (of_lanes)
            for (int i = 0; i < LANES; i++)
                sum[i] = sum[i] * scale[i] + shift[i];
        else
            for (int i = 0; i < LANES; i++)
                sum[i] = sum[i] * scale[r] + shift[r];
        if (w->relu || w->relu6)
            for (int i = 0; i < LANES; i++)
                sum[i] = sum[i] > 0 ? sum[i] : 0;
        if (w->relu6)
            for (int i = 0; i < LANES; i++)
                sum[i] = sum[i] < 6 ? sum[i] : 6;
    }
}

/* ---- by place ---- */

/* The lanes of a panel that lie in one image, and where their outputs lie for the first channel. */
struct part {
    int64_t at, lane, count;
};

static int parts_of(const struct fst__weighted *w, int64_t first, int64_t count, struct part parts[LANES])
{
    int64_t plane = plane_of(w), channels = w->node->out.dim[0];
    int n = 0;
    for (int64_t done = 0; done < count; n++) {
        int64_t image = (first + done) / plane, at = (first + done) % plane, left = plane - at;
        parts[n] = (struct part){image * channels * plane + at, done, left < count - done ? left : count - done};
        done += parts[n].count;
    }
    return n;
}

static void store(const struct part *parts, int n, const float *sum, float *out)
{
    for (int i = 0; i < n; i++)
        if (parts[i].count == LANES)
            memcpy(out + parts[i].at, sum, LANES * sizeof *out);
        else
            for (int64_t k = 0; k < parts[i].count; k++)
                out[parts[i].at + k] = sum[parts[i].lane + k];
}

/* Whether inputs lie as panels would: a 1x1 convolution, all lanes of each panel in one image. */
static bool lies_as_panels(const struct fst__weighted *w)
{
    const fst_conv2d *c = &w->node->u.conv;
    return c->kernel[0] == 1 && c->kernel[1] == 1 && c->stride[0] == 1 && c->stride[1] == 1 && c->padding[0] == 0 &&
           c->padding[1] == 0 && plane_of(w) % LANES == 0;
}

static void panel_of_places(const struct fst__weighted *w, const struct fst_op_args *a, int64_t group, int64_t first,
                            int64_t count)
{
    const struct fst_node *n = w->node;
    const float *scale = (const float *)a->held + group * w->outputs, *shift = scale + factors(w);
    struct part parts[LANES];
    int some = parts_of(w, first, count, parts);
    _Alignas(64) float sum[FST__ROWS * LANES];
    struct fst__tile t = {.k = w->depth, .a_row = w->depth, .a_step = 1, .b_step = LANES, .panels = 1, .sum = sum};
    if (lies_as_panels(w)) {
        int64_t plane = plane_of(w), channels = n->in.dim[0];
        t.b = a->in + (first / plane * channels + group * (channels / w->groups)) * plane + first % plane;
        t.b_step = plane;
    } else {
        float *panel = (float *)a->scratch + fst__padded_floats(n, a->batch);
        fst__write_panel(n, a->scratch, first, count, panel);
        t.b = panel;
    }
    for (int64_t o = 0; o < w->outputs; o += t.rows) {
        t.rows = (int)(w->outputs - o < w->tiles->rows ? w->outputs - o : w->tiles->rows);
        t.a = a->param[0] + (group * w->outputs + o) * w->depth;
        w->tiles->multiply(&t);
        finish(w, sum, t.rows, scale + o, shift + o, false);
        for (int r = 0; r < t.rows; r++)
            store(parts, some, sum + r * LANES, a->out + (group * w->outputs + o + r) * plane_of(w));
    }
}

/* ---- by channel ---- */

struct lines { /* rows of inputs, and where their outputs go */
    const float *in;
    int64_t row, step, count; /* of inputs */
    float *out;
    int64_t out_row, out_step;
    int64_t group;
};

static void channels_of_lines(const struct fst__weighted *w, const struct fst_op_args *a, const struct lines *l)
{
    _Alignas(64) float sum[FST__ROWS * LANES];
    const float *scale = (const float *)a->held + l->group * w->outputs, *shift = scale + factors(w);
    const float *panels = (const float *)a->held + 2 * factors(w) + l->group * panels_of_group(w);
    struct fst__tile t = {
        .k = w->depth, .a_row = l->row, .a_step = l->step, .b_step = LANES, .b_panel = w->depth * LANES, .sum = sum};
    for (int64_t o = 0; o < w->outputs; o += LANES * t.panels) {
        int64_t left = round_up(w->outputs - o, LANES) / LANES;
        t.b = panels + o * w->depth;
        t.panels = l->count > 1 ? 1 : left >= FST__PANELS ? FST__PANELS : left >= 2 ? 2 : 1;
        for (int64_t r0 = 0; r0 < l->count; r0 += t.rows) {
            t.rows = (int)(l->count - r0 < w->tiles->rows ? l->count - r0 : w->tiles->rows);
            t.a = l->in + r0 * l->row;
            w->tiles->multiply(&t);
            for (int r = 0; r < (t.panels > 1 ? t.panels : t.rows); r++) {
                int64_t first = o + (t.panels > 1 ? r * LANES : 0), line = r0 + (t.panels > 1 ? 0 : r);
                int64_t some = w->outputs - first < LANES ? w->outputs - first : LANES;
                float *out = l->out + line * l->out_row + first * l->out_step;
                finish(w, sum + r * LANES, 1, scale + first, shift + first, true);
                for (int64_t i = 0; i < some; i++)
                    out[i * l->out_step] = sum[r * LANES + i];
            }
        }
    }
}

static void linear(const struct fst__weighted *w, const struct fst_op_args *a)
{
    struct fst_linear_sizes z = fst__linear_sizes(w->node, a->batch);
    struct lines l = {
        .in = a->in, .row = z.in, .step = 1, .count = z.rows, .out = a->out, .out_row = z.out, .out_step = 1};
    channels_of_lines(w, a, &l);
}

/* Image by image, since an output's channels lie a plane apart. */
static void conv_by_channel(const struct fst__weighted *w, const struct fst_op_args *a, int64_t group)
{
    int64_t plane = plane_of(w), channels = w->node->out.dim[0];
    float *rows = (float *)a->scratch + fst__padded_floats(w->node, a->batch);
    for (int64_t image = 0; image < a->batch; image++) {
        fst__write_rows(w->node, a->scratch, image * plane, plane, rows);
        struct lines l = {.in = rows,
                          .row = w->depth,
                          .step = 1,
                          .count = plane,
                          .out = a->out + (image * channels + group * w->outputs) * plane,
                          .out_row = 1,
                          .out_step = plane,
                          .group = group};
        channels_of_lines(w, a, &l);
    }
}

size_t fst__weighted_scratch(const struct fst__weighted *w, int64_t batch)
{
    if (!is_conv(w))
        return 0;
    int64_t columns = w->by_channel ? w->depth * plane_of(w) : (w->depth + 1) * LANES;
    return (size_t)(fst__padded_floats(w->node, batch) + columns) * sizeof(float);
}

void fst__weighted_forward(const struct fst__weighted *w, const struct fst_op_args *a)
{
    if (!is_conv(w)) {
        linear(w, a);
        return;
    }
    int64_t places = a->batch * plane_of(w);
    for (int64_t group = 0; group < w->groups; group++) {
        if (w->by_channel || !lies_as_panels(w))
            fst__write_padded(w->node, a->in, group, a->batch, a->scratch);
        if (w->by_channel)
            conv_by_channel(w, a, group);
        for (int64_t first = 0; !w->by_channel && first < places; first += LANES)
            panel_of_places(w, a, group, first, places - first < LANES ? places - first : LANES);
    }
}

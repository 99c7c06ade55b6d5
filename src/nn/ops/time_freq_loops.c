/*
 * time_freq_attention over runs (complex_loops.h). Magnitudes are computed again in every pass rather than kept: a
 * sample stays in the core's cache, and a square root costs less than a wait for memory.
 */
#include <math.h>
#include <string.h>

#include "complex_loops.h"

enum { LANES = FST_LANES, SIDE = 7, TAPS = SIDE * SIDE };
#define ALWAYS static inline __attribute__((always_inline))

struct kept { /* of a sample, from forward to backward */
    float *average, *gate, *hidden, *mean, *max, *attention;
    int32_t *winner;
};

struct rough { /* of a sample, within a pass; wide: an element for every element of a run */
    float *wide_gate, *wide_a, *wide_b, *wide_c;
    int32_t *wide_winner;
    float *dgate, *daverage, *dhidden, *dmean, *dmax, *dattention, *dconv;
};

static int64_t rounded(int64_t n)
{
    return (n + LANES - 1) / LANES * LANES;
}

static int64_t kept_floats(const struct fst_node *n, const struct fst_runs *r)
{
    return 2 * rounded(r->channels) + rounded(n->u.time_freq.hidden) + 4 * rounded(r->plane);
}

static int64_t rough_floats(const struct fst_node *n, const struct fst_runs *r)
{
    return LANES + 4 * rounded(r->length) + 2 * rounded(r->channels) + rounded(n->u.time_freq.hidden) +
           3 * rounded(r->plane) + rounded(2 * TAPS);
}

size_t fst__time_freq_saved(const struct fst_node *n, const struct fst_runs *r)
{
    return sizeof(float) * (size_t)(r->samples * kept_floats(n, r));
}

size_t fst__time_freq_loop_scratch(const struct fst_node *n, const struct fst_runs *r)
{
    return sizeof(float) * (size_t)(r->samples * rough_floats(n, r));
}

static float *take(float **at, int64_t count)
{
    float *p = *at;
    *at += rounded(count);
    return p;
}

static struct kept kept_at(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a, int64_t b)
{
    float *at = (float *)a->saved + b * kept_floats(n, r);
    struct kept k;
    k.average = take(&at, r->channels);
    k.gate = take(&at, r->channels);
    k.hidden = take(&at, n->u.time_freq.hidden);
    k.mean = take(&at, r->plane);
    k.max = take(&at, r->plane);
    k.attention = take(&at, r->plane);
    k.winner = (int32_t *)take(&at, r->plane);
    return k;
}

static struct rough rough_at(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a, int64_t b)
{
    float *at = (float *)a->scratch + b * rough_floats(n, r);
    struct rough k;
    k.wide_gate = take(&at, LANES);
    k.wide_a = take(&at, r->length);
    k.wide_b = take(&at, r->length);
    k.wide_c = take(&at, r->length);
    k.wide_winner = (int32_t *)take(&at, r->length);
    k.dgate = take(&at, r->channels);
    k.daverage = take(&at, r->channels);
    k.dhidden = take(&at, n->u.time_freq.hidden);
    k.dmean = take(&at, r->plane);
    k.dmax = take(&at, r->plane);
    k.dattention = take(&at, r->plane);
    k.dconv = take(&at, 2 * TAPS);
    return k;
}

/* ---- between lanes, channels and positions ----------------------------------------------------------------------- */

/* A value by channel as the lanes of a run want it. */
static void spread_channels(const struct fst_runs *r, const float *by_channel, int64_t run, float lane[LANES])
{
    for (int l = 0; l < LANES; l++)
        lane[l] = by_channel[run * r->block + l % r->block];
}

static void collect_channels(const struct fst_runs *r, const float lane[LANES], int64_t run, float *by_channel)
{
    for (int64_t c = 0; c < r->block; c++) {
        float sum = 0;
        for (int64_t l = c; l < LANES; l += r->block)
            sum += lane[l];
        by_channel[run * r->block + c] = sum;
    }
}

static void spread_positions(const struct fst_runs *r, const float *by_position, float scale, float *wide)
{
    for (int64_t p = 0; p < r->plane; p++)
        for (int64_t l = 0; l < r->block; l++)
            wide[p * r->block + l] = scale * by_position[p];
}

static void collect_positions(const struct fst_runs *r, const float *wide, float *by_position)
{
    for (int64_t p = 0; p < r->plane; p++) {
        float sum = 0;
        for (int64_t l = 0; l < r->block; l++)
            sum += wide[p * r->block + l];
        by_position[p] = sum;
    }
}

/* ---- small products
 * --------------------------------------------------------------------------------------------------- */

FST_HOT static float dot(const float *restrict x, const float *restrict y, int64_t n)
{
    float s[LANES] = {0}, sum = 0;
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            s[l] += x[i + l] * y[i + l];
    for (; i < n; i++)
        s[i % LANES] += x[i] * y[i];
    for (int l = 0; l < LANES; l++)
        sum += s[l];
    return sum;
}

FST_HOT static void add_scaled(float w, const float *restrict x, float *restrict y, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        y[i] += w * x[i];
}

static float sigmoid(float x)
{
    return 1 / (1 + expf(-x));
}

/* ---- forward
 * ------------------------------------------------------------------------------------------------------------- */

/* A loop over a run, LANES at a time so that the lane is a constant; what is left comes behind. */
#define OVER_RUN(r, ...)                               \
    do {                                               \
        int64_t i_ = 0;                                \
        for (; i_ + LANES <= (r)->length; i_ += LANES) \
            for (int l = 0; l < LANES; l++) {          \
                const int64_t i = i_ + l;              \
                __VA_ARGS__;                           \
            }                                          \
        for (int l = 0; i_ + l < (r)->length; l++) {   \
            const int64_t i = i_ + l;                  \
            __VA_ARGS__;                               \
        }                                              \
    } while (0)

FST_HOT static void sum_magnitudes(const struct fst_runs *r, const float *restrict re, const float *restrict im,
                                   float sum[LANES])
{
    float s[LANES] = {0};
    OVER_RUN(r, s[l] += sqrtf(re[i] * re[i] + im[i] * im[i]));
    memcpy(sum, s, sizeof s);
}

static void average(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a, int64_t b,
                    const struct kept *k)
{
    float lane[LANES];
    for (int64_t run = 0; run < r->count; run++) {
        const float *re = a->in + b * r->row + run * r->length;
        sum_magnitudes(r, re, re + r->imaginary, lane);
        collect_channels(r, lane, run, k->average);
    }
    for (int64_t c = 0; c < r->channels; c++)
        k->average[c] = k->average[c] / (float)r->plane + (float)n->u.time_freq.floor;
}

/* The mean (sum) and the maximum over channels of the magnitude gated by channel. */
FST_HOT static void gather_maps(const struct fst_runs *r, const float *restrict re, const float *restrict im,
                                const float *restrict gate, float floor, int32_t run, float *restrict sum,
                                float *restrict max, int32_t *restrict winner)
{
    OVER_RUN(r, {
        float m = (sqrtf(re[i] * re[i] + im[i] * im[i]) + floor) * gate[l];
        sum[i] += m;
        winner[i] = m > max[i] ? run : winner[i];
        max[i] = m > max[i] ? m : max[i];
    });
}

static void collect_winners(const struct fst_runs *r, const float *max, const int32_t *winner, struct kept *k)
{
    for (int64_t p = 0; p < r->plane; p++) {
        k->max[p] = -1;
        k->winner[p] = 0;
        for (int64_t l = 0; l < r->block; l++) {
            float m = max[p * r->block + l];
            int32_t c = (int32_t)(winner[p * r->block + l] * r->block + l);
            if (m > k->max[p] || (!(m < k->max[p]) && c < k->winner[p])) {
                k->max[p] = m;
                k->winner[p] = c;
            }
        }
    }
}

static int64_t under(const struct fst_node *n, int64_t at, int tap)
{
    int64_t y = at / n->in.dim[2] + tap / SIDE - SIDE / 2, x = at % n->in.dim[2] + tap % SIDE - SIDE / 2;
    return y >= 0 && y < n->in.dim[1] && x >= 0 && x < n->in.dim[2] ? y * n->in.dim[2] + x : -1;
}

static void attend(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a, int64_t b,
                   struct kept *k, struct rough *w)
{
    memset(w->wide_a, 0, (size_t)r->length * sizeof(float));
    for (int64_t i = 0; i < r->length; i++)
        w->wide_b[i] = -1, w->wide_winner[i] = 0;
    for (int64_t run = 0; run < r->count; run++) {
        const float *re = a->in + b * r->row + run * r->length;
        spread_channels(r, k->gate, run, w->wide_gate);
        gather_maps(r, re, re + r->imaginary, w->wide_gate, (float)n->u.time_freq.floor, (int32_t)run, w->wide_a,
                    w->wide_b, w->wide_winner);
    }
    collect_positions(r, w->wide_a, k->mean);
    collect_winners(r, w->wide_b, w->wide_winner, k);
    for (int64_t p = 0; p < r->plane; p++)
        k->mean[p] /= (float)r->channels;
    for (int64_t p = 0; p < r->plane; p++) {
        float sum = 0;
        for (int tap = 0; tap < TAPS; tap++) {
            int64_t at = under(n, p, tap);
            if (at >= 0)
                sum += a->param[2][tap] * k->mean[at] + a->param[2][TAPS + tap] * k->max[at];
        }
        k->attention[p] = sigmoid(sum);
    }
}

struct limits {
    float floor, ceiling, eps;
};

static struct limits limits_of(const struct fst_node *n)
{
    return (struct limits){(float)n->u.time_freq.floor, (float)n->u.time_freq.ceiling, (float)n->u.time_freq.phase_eps};
}

/* The value (x, y) without its length: cosine and sine of its phase, of 0: of phase 0. inverse: 1 / |(x, y)|, 0 of 0.
 */
struct phase {
    float cosine, sine, inverse;
};
ALWAYS struct phase phase_of(float x, float y)
{
    float square = x * x + y * y, inverse = 1 / sqrtf(square > 0 ? square : 1);
    return (struct phase){square > 0 ? x * inverse : 1, square > 0 ? y * inverse : 0, square > 0 ? inverse : 0};
}

FST_HOT static void put_out(const struct fst_runs *r, const float *restrict re, const float *restrict im,
                            const float *restrict gate, const float *restrict attention, struct limits z,
                            float *restrict out_re, float *restrict out_im)
{
    OVER_RUN(r, {
        float m = (sqrtf(re[i] * re[i] + im[i] * im[i]) + z.floor) * gate[l] * attention[i];
        struct phase p = phase_of(re[i] + z.eps, im[i] + z.eps);
        m = m < z.floor ? z.floor : m;
        m = m > z.ceiling ? z.ceiling : m;
        out_re[i] = m * p.cosine;
        out_im[i] = m * p.sine;
    });
}

/* Both linear layers for the span's samples, a row of weights at a time. */
static void channel_gates(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a, int64_t from,
                          int64_t count)
{
    int64_t units = n->u.time_freq.hidden, channels = r->channels;
    for (int64_t h = 0; h < units; h++)
        for (int64_t b = from; b < from + count; b++) {
            struct kept k = kept_at(n, r, a, b);
            float sum = dot(a->param[0] + h * channels, k.average, channels);
            k.hidden[h] = sum > 0 ? sum : 0;
        }
    for (int64_t c = 0; c < channels; c++)
        for (int64_t b = from; b < from + count; b++) {
            struct kept k = kept_at(n, r, a, b);
            k.gate[c] = sigmoid(dot(a->param[1] + c * units, k.hidden, units));
        }
}

void fst__time_freq_forward(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                            int64_t from, int64_t count)
{
    for (int64_t b = from; b < from + count; b++) {
        struct kept k = kept_at(n, r, a, b);
        average(n, r, a, b, &k);
    }
    channel_gates(n, r, a, from, count);
    for (int64_t b = from; b < from + count; b++) {
        struct kept k = kept_at(n, r, a, b);
        struct rough w = rough_at(n, r, a, b);
        attend(n, r, a, b, &k, &w);
        spread_positions(r, k.attention, 1, w.wide_a);
        for (int64_t run = 0; run < r->count; run++) {
            int64_t at = b * r->row + run * r->length;
            spread_channels(r, k.gate, run, w.wide_gate);
            put_out(r, a->in + at, a->in + at + r->imaginary, w.wide_gate, w.wide_a, limits_of(n), a->out + at,
                    a->out + at + r->imaginary);
        }
    }
}

/* ---- backward
 * -------------------------------------------------------------------------------------------------------------- */

/* The gradient of the magnitude after the clamp, 0 where that was at work. */
ALWAYS float through_clamp(float m, float gre, float gim, struct phase p, struct limits z)
{
    float g = gre * p.cosine + gim * p.sine;
    return m < z.floor || m > z.ceiling ? 0 : g;
}

FST_HOT static void sum_attention(const struct fst_runs *r, const float *restrict re, const float *restrict im,
                                  const float *restrict gre, const float *restrict gim, const float *restrict gate,
                                  const float *restrict attention, struct limits z, float *restrict sum)
{
    OVER_RUN(r, {
        float m = (sqrtf(re[i] * re[i] + im[i] * im[i]) + z.floor) * gate[l];
        struct phase p = phase_of(re[i] + z.eps, im[i] + z.eps);
        sum[i] += m * through_clamp(m * attention[i], gre[i], gim[i], p, z);
    });
}

static void position_backward(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                              const struct kept *k, struct rough *w)
{
    memset(w->dmean, 0, (size_t)r->plane * sizeof(float));
    memset(w->dmax, 0, (size_t)r->plane * sizeof(float));
    memset(w->dconv, 0, 2 * TAPS * sizeof(float));
    for (int64_t p = 0; p < r->plane; p++) {
        float g = w->dattention[p] * k->attention[p] * (1 - k->attention[p]);
        for (int tap = 0; tap < TAPS; tap++) {
            int64_t at = under(n, p, tap);
            if (at < 0)
                continue;
            w->dconv[tap] += g * k->mean[at];
            w->dconv[TAPS + tap] += g * k->max[at];
            w->dmean[at] += g * a->param[2][tap];
            w->dmax[at] += g * a->param[2][TAPS + tap];
        }
    }
}

/* Sums by lane of the gate's gradient. to_re becomes the gradient of the magnitude after the channel's gate, to_im
 * what the phase passes on, over the square of its length. */
FST_HOT static void sum_gates(const struct fst_runs *r, const float *restrict re, const float *restrict im,
                              const float *restrict gre, const float *restrict gim, const float *restrict gate,
                              const struct rough *w, int32_t run, struct limits z, float *restrict to_re,
                              float *restrict to_im, float lane[LANES])
{
    const float *restrict attention = w->wide_a, *restrict dmean = w->wide_b, *restrict dmax = w->wide_c;
    const int32_t *restrict winner = w->wide_winner;
    float s[LANES] = {0};
    OVER_RUN(r, {
        float m0 = sqrtf(re[i] * re[i] + im[i] * im[i]) + z.floor, m = m0 * gate[l] * attention[i];
        struct phase p = phase_of(re[i] + z.eps, im[i] + z.eps);
        float g = through_clamp(m, gre[i], gim[i], p, z) * attention[i] + dmean[i];
        g += winner[i] == run ? dmax[i] : 0;
        m = m < z.floor ? z.floor : m;
        m = m > z.ceiling ? z.ceiling : m;
        s[l] += g * m0;
        to_re[i] = g;
        to_im[i] = m * (gim[i] * p.cosine - gre[i] * p.sine) * p.inverse * p.inverse;
    });
    memcpy(lane, s, sizeof s);
}

/* From what sum_gates left to the input's gradient. */
FST_HOT static void finish_gradient(const struct fst_runs *r, const float *restrict re, const float *restrict im,
                                    const float *restrict gate, const float *restrict daverage, float eps,
                                    float *restrict to_re, float *restrict to_im)
{
    OVER_RUN(r, {
        float square = re[i] * re[i] + im[i] * im[i], turn = to_im[i];
        float g = (to_re[i] * gate[l] + daverage[l]) / sqrtf(square > 0 ? square : 1);
        to_re[i] = g * re[i] - turn * (im[i] + eps);
        to_im[i] = g * im[i] + turn * (re[i] + eps);
    });
}

/* What of the maximum's gradient the lanes get: the run of the winner where they are its lane. */
static void spread_winners(const struct fst_runs *r, const struct kept *k, struct rough *w)
{
    for (int64_t p = 0; p < r->plane; p++)
        for (int64_t l = 0; l < r->block; l++)
            w->wide_winner[p * r->block + l] = k->winner[p] % r->block == l ? (int32_t)(k->winner[p] / r->block) : -1;
}

static void sample_gates(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a, float *to,
                         int64_t b)
{
    struct kept k = kept_at(n, r, a, b);
    struct rough w = rough_at(n, r, a, b);
    struct limits z = limits_of(n);
    float lane[LANES];
    spread_positions(r, k.attention, 1, w.wide_a);
    memset(w.wide_b, 0, (size_t)r->length * sizeof(float));
    for (int64_t run = 0; run < r->count; run++) {
        int64_t re = b * r->row + run * r->length, im = re + r->imaginary;
        spread_channels(r, k.gate, run, w.wide_gate);
        sum_attention(r, a->in + re, a->in + im, a->grad_out + re, a->grad_out + im, w.wide_gate, w.wide_a, z,
                      w.wide_b);
    }
    collect_positions(r, w.wide_b, w.dattention);
    position_backward(n, r, a, &k, &w);
    spread_positions(r, w.dmean, 1 / (float)r->channels, w.wide_b);
    spread_positions(r, w.dmax, 1, w.wide_c);
    spread_winners(r, &k, &w);
    for (int64_t run = 0; run < r->count; run++) {
        int64_t re = b * r->row + run * r->length, im = re + r->imaginary;
        spread_channels(r, k.gate, run, w.wide_gate);
        sum_gates(r, a->in + re, a->in + im, a->grad_out + re, a->grad_out + im, w.wide_gate, &w, (int32_t)run, z,
                  to + re, to + im, lane);
        collect_channels(r, lane, run, w.dgate);
    }
    for (int64_t c = 0; c < r->channels; c++)
        w.dgate[c] *= k.gate[c] * (1 - k.gate[c]);
    memset(w.dhidden, 0, (size_t)n->u.time_freq.hidden * sizeof(float));
    memset(w.daverage, 0, (size_t)r->channels * sizeof(float));
}

void fst__time_freq_backward(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                             float *grad_in, int64_t from, int64_t count)
{
    int64_t units = n->u.time_freq.hidden, channels = r->channels;
    for (int64_t b = from; b < from + count; b++)
        sample_gates(n, r, a, grad_in, b);
    for (int64_t c = 0; c < channels; c++)
        for (int64_t b = from; b < from + count; b++) {
            struct rough w = rough_at(n, r, a, b);
            add_scaled(w.dgate[c], a->param[1] + c * units, w.dhidden, units);
        }
    for (int64_t h = 0; h < units; h++)
        for (int64_t b = from; b < from + count; b++) {
            struct kept k = kept_at(n, r, a, b);
            struct rough w = rough_at(n, r, a, b);
            if (k.hidden[h] > 0)
                add_scaled(w.dhidden[h], a->param[0] + h * channels, w.daverage, channels);
            else
                w.dhidden[h] = 0;
        }
    for (int64_t b = from; b < from + count; b++) {
        struct kept k = kept_at(n, r, a, b);
        struct rough w = rough_at(n, r, a, b);
        float daverage[LANES];
        for (int64_t c = 0; c < channels; c++)
            w.daverage[c] /= (float)r->plane;
        for (int64_t run = 0; run < r->count; run++) {
            int64_t re = b * r->row + run * r->length, im = re + r->imaginary;
            spread_channels(r, k.gate, run, w.wide_gate);
            spread_channels(r, w.daverage, run, daverage);
            finish_gradient(r, a->in + re, a->in + im, w.wide_gate, daverage, limits_of(n).eps, grad_in + re,
                            grad_in + im);
        }
    }
}

int64_t fst__time_freq_rows(const struct fst_node *n)
{
    return n->in.dim[0] + n->u.time_freq.hidden + 1;
}

void fst__time_freq_weights(const struct fst_node *n, const struct fst_runs *r, const struct fst_op_args *a,
                            int64_t from, int64_t count)
{
    int64_t units = n->u.time_freq.hidden, channels = r->channels;
    for (int64_t row = from; row < from + count; row++) {
        int64_t h = row - channels, length = h < 0 ? units : h < units ? channels : 2 * TAPS;
        float *to = h < 0       ? a->grad_param[1] + row * units
                    : h < units ? a->grad_param[0] + h * channels
                                : a->grad_param[2];
        memset(to, 0, (size_t)length * sizeof *to);
        for (int64_t b = 0; b < r->samples; b++) {
            struct kept k = kept_at(n, r, a, b);
            struct rough w = rough_at(n, r, a, b);
            if (h < 0)
                add_scaled(w.dgate[row], k.hidden, to, length);
            else if (h < units)
                add_scaled(w.dhidden[h], k.average, to, length);
            else
                add_scaled(1, w.dconv, to, length);
        }
    }
}

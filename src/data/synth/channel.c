/*
 * From the antenna to the receiver's samples: carrier, Doppler and phase noise as one rotation, a static multipath
 * filter, white noise, and the receiver's own imbalance and gain. What belongs to a burst is drawn here.
 */
#include <math.h>
#include <string.h>

#include "synth_private.h"

static double between(fst_rng *r, double low, double high)
{
    return low + (high - low) * fst_rng_uniform(r);
}

static void draw_taps(const fst_synth_params *p, uint64_t seed, uint64_t burst, fst_synth_burst *b)
{
    fst_rng r;
    double sum = 0, steady = pow(10, p->channel.line_of_sight_db / 10);
    if (!p->channel.multipath) {
        b->tap[0][0] = 1;
        return;
    }
    fst_rng_init(&r, seed, "channel.taps", burst);
    for (int i = 0; i < p->channel.delays.count; i++)
        sum += pow(10, p->channel.powers_db.value[i] / 10);
    b->tap[0][0] = sqrt(steady / (1 + steady));
    for (int i = 0; i < p->channel.delays.count; i++) {
        double sd = sqrt(pow(10, p->channel.powers_db.value[i] / 10) / sum / (1 + steady) / 2);
        b->tap[i + 1][0] = sd * fst_rng_normal(&r);
        b->tap[i + 1][1] = sd * fst_rng_normal(&r);
    }
}

void fst__channel_draw(const fst_synth_params *p, uint64_t seed, uint64_t burst, fst_synth_burst *b)
{
    fst_rng r;
    fst_rng_init(&r, seed, "channel.receiver", burst);
    b->gain_db = between(&r, p->burst.gain_db.min, p->burst.gain_db.max);
    b->rx_iq_gain_db = between(&r, -p->burst.rx_iq_gain_db, p->burst.rx_iq_gain_db);
    b->rx_iq_phase_deg = between(&r, -p->burst.rx_iq_phase_deg, p->burst.rx_iq_phase_deg);
    fst_rng_init(&r, seed, "channel.phase", burst);
    b->carrier_phase = p->burst.carrier_phase ? fst_rng_uniform(&r) : 0;
    draw_taps(p, seed, burst, b);
}

FST__CLONES static void rotate(float *re, float *im, const float *c, const float *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = re[i], y = im[i];
        re[i] = c[i] * x - s[i] * y;
        im[i] = s[i] * x + c[i] * y;
    }
}

/* Phases are kept small enough for floats: the whole turns of each block's beginning are dropped in double. */
void fst__channel_turn(struct fst__scratch *s, struct fst__turn *t)
{
    enum { BLOCK = 64 };
    double walk = 0;
    if (t->noise_sd > 0)
        fst__normals(&t->noise, s->b, s->n);
    for (size_t from = 0; from < s->n; from += BLOCK) {
        size_t len = s->n - from < BLOCK ? s->n - from : BLOCK;
        double begin = t->phase + t->frequency * (t->position + (double)from);
        begin -= floor(begin);
        for (size_t i = 0; i < len; i++) {
            if (t->noise_sd > 0)
                walk += t->noise_sd * (double)s->b[from + i];
            s->a[from + i] = (float)(begin + walk + t->frequency * (double)i);
        }
    }
    fst__phasors(s->a, s->b, s->c, s->n);
    rotate(s->re, s->im, s->b, s->c, s->n);
}

/* Band-limited delays: sinc under a Blackman window, the filter's own delay being CENTRE. */
static void taps_filter(const fst_synth_params *p, const fst_synth_burst *b, float h[FST__TAPS][2])
{
    double sum[FST__TAPS][2] = {{0}};
    int paths = p->channel.multipath ? p->channel.delays.count + 1 : 1;
    for (int i = 0; i < paths; i++) {
        double delay = !p->channel.multipath ? 0 : p->channel.delays.value[i ? i - 1 : 0];
        for (int k = 0; k < FST__TAPS; k++) {
            double u = k - FST__CENTRE - delay, x = u * FST__TAU / 2, v = u / (FST__CENTRE + 1);
            if (fabs(v) >= 1)
                continue;
            double w =
                (fabs(u) < 1e-9 ? 1 : sin(x) / x) * (0.42 + 0.5 * cos(FST__TAU / 2 * v) + 0.08 * cos(FST__TAU * v));
            sum[k][0] += w * b->tap[i][0];
            sum[k][1] += w * b->tap[i][1];
        }
    }
    for (int k = 0; k < FST__TAPS; k++) {
        h[k][0] = (float)sum[k][0];
        h[k][1] = (float)sum[k][1];
    }
}

FST__CLONES static void add_scaled(float *y, const float *x, float scale, size_t n)
{
    for (size_t i = 0; i < n; i++)
        y[i] += scale * x[i];
}

void fst__channel_apply(struct fst__scratch *s, const fst_synth_params *p, const fst_synth_burst *b, fst_rng *noise,
                        float *x)
{
    size_t n = (size_t)p->burst.window;
    float h[FST__TAPS][2], *re = x, *im = x + n;
    taps_filter(p, b, h);
    fst__filter(s->re, s->im, re, im, n, (const float(*)[2])h);
    double power = fst__power(re, im, n);
    float sd = (float)sqrt(power * pow(10, -b->snr_db / 10) / 2);
    fst__normals(noise, s->a, n);
    add_scaled(re, s->a, sd, n);
    fst__normals(noise, s->a, n);
    add_scaled(im, s->a, sd, n);
    fst__imbalance(re, im, n, b->rx_iq_gain_db, b->rx_iq_phase_deg, 0, 0);
    double scale = pow(10, b->gain_db / 20);
    if (p->burst.normalise) {
        double all = fst__power(re, im, n);
        scale = all > 0 ? 1 / sqrt(all) : 1;
    }
    for (size_t i = 0; i < 2 * n; i++)
        x[i] = (float)scale * x[i];
}

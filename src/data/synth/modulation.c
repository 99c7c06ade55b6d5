/*
 * Eleven modulations at 8 samples a symbol: shaped symbols, tones of continuous phase, and analogue ones that carry
 * band-limited noise. Ideal signals of mean power 1 only; each window has symbols of its own.
 */
#include <math.h>
#include <string.h>

#include "synth_private.h"

enum { BPSK, QPSK, PSK8, QAM16, QAM64, GFSK, CPFSK, PAM4, AM_DSB, AM_SSB, FM };
/* Shaping reaches SPAN symbols to each side; between symbol and sample lie FINE steps of a table. */
enum { SPS = FST_MODULATION_SPS, SPAN = 8, FINE = 64, RRC_SIZE = 2 * SPAN * SPS * FINE + 2, HALF = 64 };

static int square(double points[FST_MODULATION_POINTS][2], int side, bool flat)
{
    int n = 0;
    double sum = 0;
    for (int i = 0; i < side; i++)
        for (int q = 0; q < (flat ? 1 : side); q++, n++) {
            points[n][0] = 2 * i - (side - 1);
            points[n][1] = flat ? 0 : 2 * q - (side - 1);
            sum += points[n][0] * points[n][0] + points[n][1] * points[n][1];
        }
    for (int i = 0; i < n; i++) {
        points[i][0] /= sqrt(sum / n);
        points[i][1] /= sqrt(sum / n);
    }
    return n;
}

int fst_modulation_constellation(int modulation, double points[FST_MODULATION_POINTS][2])
{
    switch (modulation) {
    case BPSK:
        return square(points, 2, true);
    case QPSK:
        return square(points, 2, false);
    case PSK8:
        for (int i = 0; i < 8; i++) {
            points[i][0] = cos(FST__TAU * i / 8);
            points[i][1] = sin(FST__TAU * i / 8);
        }
        return 8;
    case QAM16:
        return square(points, 4, false);
    case QAM64:
        return square(points, 8, false);
    case PAM4:
        return square(points, 4, true);
    default:
        return 0;
    }
}

/* Root raised cosine at t symbols, energy 1 over symbols (Proakis, Digital Communications). */
static double rrc(double t, double b)
{
    double pi = FST__TAU / 2;
    if (fabs(t) < 1e-9)
        return 1 - b + 4 * b / pi;
    if (fabs(fabs(4 * b * t) - 1) < 1e-9)
        return b / sqrt(2) * ((1 + 2 / pi) * sin(pi / (4 * b)) + (1 - 2 / pi) * cos(pi / (4 * b)));
    return (sin(pi * t * (1 - b)) + 4 * b * t * cos(pi * t * (1 + b))) / (pi * t * (1 - 16 * b * b * t * t));
}

fst_status fst__modulation_new(fst_synth *g, fst_error *err)
{
    g->rrc = fst_alloc(RRC_SIZE * sizeof *g->rrc);
    if (!g->rrc)
        return fst_fail_memory(err, RRC_SIZE * sizeof *g->rrc);
    for (int i = 0; i < RRC_SIZE; i++)
        g->rrc[i] = (float)rrc((double)i / (SPS * FINE) - SPAN, g->spec.params.modulation.rolloff);
    return FST_OK;
}

/* ---- digital -------------------------------------------------------------------------------------- */

/* Sample i of the scratch lies at (i - BEFORE + timing) / SPS symbols. */
static void shaped(const fst_synth *g, int modulation, fst_rng *r, double timing, struct fst__scratch *s)
{
    double points[FST_MODULATION_POINTS][2];
    uint64_t n = (uint64_t)fst_modulation_constellation(modulation, points);
    int64_t first = (int64_t)floor((timing - FST__BEFORE) / SPS) - SPAN, last = (int64_t)s->n / SPS + SPAN + 2;
    memset(s->re, 0, s->n * sizeof *s->re);
    memset(s->im, 0, s->n * sizeof *s->im);
    for (int64_t k = first; k <= last; k++) {
        const double *c = points[fst_rng_below(r, n)];
        /* samples with |t - k| < SPAN symbols; all of them lie the same step between table entries */
        double centre = (double)k * SPS + FST__BEFORE - timing, from = ceil(centre - SPAN * SPS);
        double at = (from - centre + SPAN * SPS) * FINE; /* 0 ... FINE */
        int base = (int)at;
        float f = (float)(at - base);
        for (int i = 0; i < 2 * SPAN * SPS; i++) {
            int64_t j = (int64_t)from + i;
            int e = base + i * FINE;
            if (j < 0 || j >= (int64_t)s->n || e + 1 >= RRC_SIZE)
                continue;
            float h = g->rrc[e] + f * (g->rrc[e + 1] - g->rrc[e]);
            s->re[j] += (float)c[0] * h;
            s->im[j] += (float)c[1] * h;
        }
    }
}

/* The share of a Gauss-filtered bit that has gone by t symbols after its middle (Murota and Hirade 1981). */
static double gauss_step(double t, double bt)
{
    double k = FST__TAU * bt / sqrt(2 * log(2.0));
    double u = k * (t + 0.5), v = k * (t - 0.5);
    double pu = exp(-u * u / 2) / sqrt(FST__TAU), pv = exp(-v * v / 2) / sqrt(FST__TAU);
    double qu = 0.5 * erfc(-u / sqrt(2)), qv = 0.5 * erfc(-v / sqrt(2));
    return (u * qu + pu - v * qv - pv) / k;
}

/* Phase pulse in turns of a full step: 0 before the bit, 1/2 * index after it. */
static double phase_pulse(const fst_synth *g, int modulation, double t)
{
    double h = g->spec.params.modulation.index / 2;
    if (modulation == GFSK)
        return h * gauss_step(t, g->spec.params.modulation.gfsk_bt);
    return h * (t < -0.5 ? 0 : t > 0.5 ? 1 : t + 0.5);
}

enum { PULSE = 4 }; /* symbols to each side in which a Gauss-filtered bit changes the phase */

static void continuous_phase(const fst_synth *g, int modulation, fst_rng *r, double timing, struct fst__scratch *s)
{
    double origin = (timing - FST__BEFORE) / SPS, turns = fst_rng_uniform(r), pulse[SPS][2 * PULSE + 1];
    int8_t bit[2 * PULSE + 1];
    int64_t k = (int64_t)floor(origin + 0.5); /* the symbol that holds the sample */
    /* sample i is in symbol floor(x + 1/2); its place in the symbol repeats every SPS samples */
    for (int i = 0; i < SPS; i++)
        for (int j = 0; j <= 2 * PULSE; j++) {
            double x = origin + (double)i / SPS;
            pulse[i][j] = phase_pulse(g, modulation, x - floor(x + 0.5) - (j - PULSE));
        }
    for (int j = 0; j <= 2 * PULSE; j++)
        bit[j] = fst_rng_u32(r) & 1 ? 1 : -1;
    for (size_t i = 0; i < s->n; i++) {
        double x = origin + (double)i / SPS, sum = 0;
        while ((int64_t)floor(x + 0.5) > k) {
            turns += bit[0] * g->spec.params.modulation.index / 2;
            memmove(bit, bit + 1, 2 * PULSE);
            bit[2 * PULSE] = fst_rng_u32(r) & 1 ? 1 : -1;
            k++;
        }
        for (int j = 0; j <= 2 * PULSE; j++)
            sum += bit[j] * pulse[i % SPS][j];
        s->a[i] = (float)(turns - floor(turns) + sum);
    }
    fst__phasors(s->a, s->re, s->im, s->n);
}

/* ---- analogue ---------------------------------------------------------------------------------------- */

/* White noise through a low pass (windowed sinc of 2 HALF + 1 taps, standard deviation 1 after it), moved up by
 * `shift` cycles a sample: message in re, and in im with a shift. */
static void message(fst_rng *r, double cutoff, double shift, struct fst__scratch *s)
{
    float h[2 * HALF + 1][2], white[2 * HALF + 1];
    double sum = 0;
    for (int k = 0; k <= 2 * HALF; k++) {
        double u = k - HALF, x = FST__TAU * cutoff * u, w = 0.5 + 0.5 * cos(FST__TAU / 2 * u / (HALF + 1));
        double v = (u == 0 ? 1 : sin(x) / x) * w;
        sum += v * v;
        h[k][0] = (float)(v * cos(FST__TAU * shift * u));
        h[k][1] = (float)(v * sin(FST__TAU * shift * u));
    }
    float scale = (float)(1 / sqrt(sum));
    fst__normals(r, white, 2 * HALF);
    fst__normals(r, s->a, s->n);
    for (size_t i = 0; i < s->n; i++) {
        float re = 0, im = 0;
        for (size_t k = 0; k <= 2 * HALF; k++) {
            float v = k <= i ? s->a[i - k] : white[2 * HALF - (k - i)];
            re += h[k][0] * v;
            im += h[k][1] * v;
        }
        s->re[i] = scale * re;
        s->im[i] = scale * im;
    }
}

static void analogue(const fst_synth *g, int modulation, fst_rng *r, struct fst__scratch *s)
{
    double band = g->spec.params.modulation.bandwidth, depth = g->spec.params.modulation.am_depth;
    double phase = fst_rng_uniform(r), carrier = 1 / sqrt(1 + depth * depth);
    if (modulation == AM_SSB) { /* the upper side band of a real message, no carrier */
        message(r, band / 2, band / 2 + 0.01, s);
        return;
    }
    message(r, band, 0, s);
    if (modulation == AM_DSB) {
        for (size_t i = 0; i < s->n; i++) {
            s->re[i] = (float)(carrier * (1 + depth * (double)s->re[i]));
            s->im[i] = 0;
        }
        return;
    }
    for (size_t i = 0; i < s->n; i++) {
        phase += g->spec.params.modulation.fm_deviation * (double)s->re[i];
        phase -= floor(phase);
        s->a[i] = (float)phase;
    }
    fst__phasors(s->a, s->re, s->im, s->n);
}

void fst__modulation_render(const fst_synth *g, int modulation, uint64_t window, double timing, struct fst__scratch *s)
{
    fst_rng r;
    fst_rng_init(&r, g->spec.seed, "modulation.message", window);
    if (modulation == GFSK || modulation == CPFSK)
        continuous_phase(g, modulation, &r, timing, s);
    else if (modulation >= AM_DSB)
        analogue(g, modulation, &r, s);
    else
        shaped(g, modulation, &r, timing, s);
}

/*
 * A blind receiver of Link-11 frames for tests, probes and a look at recorded signals: frequency from the Doppler
 * tone, timing from how well phase steps sit on pi/4-DQPSK, then steps to bits. No tracking and no soft decisions.
 */
#include <math.h>
#include <string.h>

#include "synth_private.h"

/* Integration covers 1/110 s in the middle of a frame, where tones 110 Hz apart do not disturb each other. */
enum { FRAME = FST_LINK11_RATE / 75, BODY = 87, SKIP = (FRAME - BODY) / 2, STEP = 4, PLACES = FRAME / STEP };
enum { DATA_TONES = FST_LINK11_TONES - 1, LONGEST = FRAME * (FST_LINK11_MAX_WORDS + 2), WIDE = 4 };
static const double widest_hz = 165, search_hz = 2;

struct cell {
    double re, im;
};

/* |sum x exp(-2 pi i f t)|^2 */
static double strength(const struct cell *x, size_t n, double hz)
{
    double a = -FST__TAU * hz / FST_LINK11_RATE, c = cos(a), s = sin(a), pr = 1, pi = 0, re = 0, im = 0;
    for (size_t i = 0; i < n; i++) {
        re += x[i].re * pr - x[i].im * pi;
        im += x[i].re * pi + x[i].im * pr;
        double t = pr * c - pi * s;
        pi = pr * s + pi * c;
        pr = t;
    }
    return re * re + im * im;
}

static double find_offset(const struct cell *x, size_t n)
{
    double best = 0, most = -1, step = search_hz;
    size_t part = n < 2048 ? n : 2048;
    for (double f = -widest_hz; f <= widest_hz; f += step) {
        double v = strength(x, part, fst_link11_tones[0] + f);
        if (v > most) {
            most = v;
            best = f;
        }
    }
    while ((step /= 2) > 0.01)
        for (int side = -1; side <= 1; side += 2) {
            double v = strength(x, part, fst_link11_tones[0] + best + side * step);
            if (v > most) {
                most = v;
                best += side * step;
            }
        }
    return best;
}

static void turn_back(struct cell *x, size_t n, double hz)
{
    for (size_t i = 0; i < n; i++) {
        double a = -FST__TAU * hz / FST_LINK11_RATE * (double)i, c = cos(a), s = sin(a);
        x[i] = (struct cell){x[i].re * c - x[i].im * s, x[i].re * s + x[i].im * c};
    }
}

/* One tone of the frame that begins at sample `at`, its phase taken against the tone going on from sample 0. */
static struct cell tone_of(const struct cell *x, size_t at, int tone)
{
    double turns = fst_link11_tones[tone] / FST_LINK11_RATE, step = -FST__TAU * turns;
    double begin = turns * (double)(at + SKIP), c = cos(step), s = sin(step);
    double pr = cos(FST__TAU * (begin - floor(begin))), pi = -sin(FST__TAU * (begin - floor(begin)));
    struct cell sum = {0, 0};
    for (size_t i = at + SKIP; i < at + SKIP + BODY; i++) {
        sum.re += x[i].re * pr - x[i].im * pi;
        sum.im += x[i].re * pi + x[i].im * pr;
        double t = pr * c - pi * s;
        pi = pr * s + pi * c;
        pr = t;
    }
    return sum;
}

static struct cell step_between(struct cell a, struct cell b)
{
    return (struct cell){b.re * a.re + b.im * a.im, b.im * a.re - b.re * a.im};
}

/* Steps of odd eighths of a turn have a fourth power of -1: -Re(d^4)/|d|^4, weighted by |d|. */
static void judge(struct cell d, double *sum, double *weight)
{
    double m = hypot(d.re, d.im);
    if (m <= 0)
        return;
    double c = d.re / m, s = d.im / m, c2 = c * c - s * s, s2 = 2 * c * s;
    *sum -= m * (c2 * c2 - s2 * s2);
    *weight += m;
}

static double fit_at(const struct cell *x, size_t n, size_t at)
{
    double sum = 0, weight = 0;
    for (int k = 1; k <= DATA_TONES; k++) {
        struct cell before = tone_of(x, at, k);
        for (size_t p = at + FRAME; p + FRAME <= n; p += FRAME) {
            struct cell now = tone_of(x, p, k);
            judge(step_between(before, now), &sum, &weight);
            before = now;
        }
    }
    return weight > 0 ? sum / weight : 0;
}

/* The middle of the plateau that the guard time makes. */
static size_t find_frames(const struct cell *x, size_t n)
{
    double fit[PLACES], most = -1e9;
    size_t best = 0;
    for (size_t i = 0; i < PLACES; i++)
        fit[i] = fit_at(x, n, i * STEP);
    for (size_t i = 0; i < PLACES; i++) {
        double sum = 0;
        for (size_t j = 0; j <= 2 * WIDE; j++)
            sum += fit[(i + PLACES + j - WIDE) % PLACES];
        if (sum > most) {
            most = sum;
            best = i;
        }
    }
    return best * STEP;
}

static void take_words(const struct cell *x, size_t n, size_t at, fst_link11_demodulated *d)
{
    d->count = (n - at) / FRAME - 1;
    if (d->count > FST_LINK11_MAX_WORDS)
        d->count = FST_LINK11_MAX_WORDS;
    for (int k = 1; k <= DATA_TONES; k++) {
        struct cell before = tone_of(x, at, k);
        for (size_t i = 0; i < d->count; i++) {
            struct cell now = tone_of(x, at + (i + 1) * FRAME, k), step = step_between(before, now);
            /* eighths 1, 3, 5, 7 are dibits 0, 2, 3, 1 (the first bit is the lower one): signs of sine and cosine */
            uint32_t first = step.im < 0, second = step.re < 0;
            d->word[i] |= (first | second << 1) << 2 * (k - 1);
            before = now;
        }
    }
}

fst_status fst_link11_demodulate(const float *x, size_t n, fst_link11_demodulated *out, fst_error *err)
{
    fst_link11_demodulated d = {0};
    size_t at, used = n < LONGEST ? n : LONGEST;
    if (n < 4 * FRAME)
        return fst_fail(err, FST_E_ARGUMENT, "%zu samples; demodulation needs at least %d", n, 4 * FRAME);
    struct cell *y = fst_alloc(used * sizeof *y);
    if (!y)
        return fst_fail_memory(err, used * sizeof *y);
    for (size_t i = 0; i < used; i++)
        y[i] = (struct cell){(double)x[i], (double)x[n + i]};
    d.frequency = find_offset(y, used);
    turn_back(y, used, d.frequency);
    at = find_frames(y, used);
    d.first_frame = (double)at;
    d.quality = fit_at(y, used, at);
    take_words(y, used, at, &d);
    fst_free(y);
    *out = d;
    return FST_OK;
}

/*
 * The Link-11 CLEW waveform: frames of 16 tones, phase steps that carry 30 bits a frame, preamble and codes. Ideal
 * signals only; what a transmitter makes of them is emitter.c's. docs/signals.md lists what was chosen where the public
 * descriptions say nothing: phases of the reference frame, mapping of bits, codes, check matrix.
 */
#include <math.h>
#include <string.h>

#include "synth_private.h"

enum { PREAMBLE = 5, CODE_WORDS = 2, DATA_TONES = FST_LINK11_TONES - 1, EIGHTHS = 8, CHECKS = 6, DATA_BITS = 24 };

const double fst_link11_tones[FST_LINK11_TONES] = {605,  935,  1045, 1155, 1265, 1375, 1485, 1595,
                                                   1705, 1815, 1925, 2035, 2145, 2255, 2365, 2915};

static const uint32_t start_code[CODE_WORDS] = {0x2D6A5B93u, 0x1C97E05Au};
static const uint32_t stop_code[CODE_WORDS] = {0x1295A46Cu, 0x23681FA5u}; /* the start code's complement */
/* Steps in eighths of a turn; a dibit's first bit is the lower one. Gray: neighbours differ in one bit. */
static const int step_of_dibit[4] = {1, 7, 3, 5};

/* ---- words -------------------------------------------------------------------------------------- */

/* Hsiao 1970: columns of odd weight, so that one wrong bit shows an odd syndrome and two an even one. */
static const uint8_t columns[DATA_BITS] = {0x07, 0x0B, 0x0D, 0x0E, 0x13, 0x15, 0x16, 0x19, 0x1A, 0x1C, 0x23, 0x25,
                                           0x26, 0x29, 0x2A, 0x2C, 0x31, 0x32, 0x34, 0x38, 0x1F, 0x2F, 0x37, 0x3B};

static uint32_t checks(uint32_t data)
{
    uint32_t c = 0;
    for (int i = 0; i < DATA_BITS; i++)
        if (data >> i & 1)
            c ^= columns[i];
    return c;
}

uint32_t fst_link11_encode(uint32_t data)
{
    data &= (1u << DATA_BITS) - 1;
    return data | checks(data) << DATA_BITS;
}

bool fst_link11_decode(uint32_t word, uint32_t *data)
{
    uint32_t d = word & ((1u << DATA_BITS) - 1), syndrome = checks(d) ^ (word >> DATA_BITS & ((1u << CHECKS) - 1));
    int wrong = -1;
    for (int i = 0; i < DATA_BITS; i++)
        if (columns[i] == syndrome)
            wrong = i;
    if (wrong < 0 && (syndrome & (syndrome - 1)))
        return false; /* more than a check bit, and no column */
    *data = wrong < 0 ? d : d ^ 1u << wrong;
    return true;
}

static size_t word_count(const fst_synth *g)
{
    double longest = g->frame * (FST_LINK11_HEAD_FRAMES + 1) + FST__LEAD +
                     (double)g->spec.params.burst.window * g->spec.windows_per_burst;
    return (size_t)ceil(longest / g->frame) - (PREAMBLE + 1);
}

static uint32_t word_at(size_t i, size_t n, fst_rng *payload)
{
    if (i < CODE_WORDS)
        return start_code[i];
    if (i + CODE_WORDS >= n)
        return stop_code[i + CODE_WORDS - n];
    return fst_link11_encode(fst_rng_u32(payload));
}

size_t fst_link11_words(const fst_synth *g, uint64_t burst, uint32_t *words, size_t size)
{
    size_t n = word_count(g);
    fst_rng r;
    fst_rng_init(&r, g->spec.seed, "link11.payload", burst);
    for (size_t i = 0; i < n && i < size; i++)
        words[i] = word_at(i, n, &r);
    return n;
}

/* ---- frames --------------------------------------------------------------------------------------- */

/* The tones' state as frames go by. */
struct tones {
    float amplitude[FST_LINK11_TONES];
    int eighths[FST_LINK11_TONES]; /* phase beyond the reference frame's */
    size_t words;
    fst_rng payload;
};

/* Newman's phases keep 16 tones from adding up at one moment. */
static double reference_phase(int tone)
{
    return tone * tone / (2.0 * FST_LINK11_TONES);
}

/* To frame m, called with m = 0, 1, 2 ... */
static void next_frame(struct tones *t, int64_t m)
{
    if (m < PREAMBLE) {
        memset(t->amplitude, 0, sizeof t->amplitude);
        t->amplitude[0] = 4;          /* 12 dB over a data tone */
        t->amplitude[DATA_TONES] = 2; /* 6 dB */
        t->eighths[DATA_TONES] = m % 2 * (EIGHTHS / 2);
        return;
    }
    if (m == PREAMBLE) {
        t->amplitude[0] = 2;
        for (int k = 1; k < FST_LINK11_TONES; k++) {
            t->amplitude[k] = 1;
            t->eighths[k] = 0;
        }
        return;
    }
    uint32_t word = word_at((size_t)(m - PREAMBLE - 1), t->words, &t->payload);
    for (int k = 0; k < DATA_TONES; k++)
        t->eighths[k + 1] = (t->eighths[k + 1] + step_of_dibit[word >> 2 * k & 3]) % EIGHTHS;
}

double fst__link11_power(void)
{
    return 2.0 * 2.0 + DATA_TONES;
}

void fst__link11_tables(fst_synth *g)
{
    g->frame = g->spec.params.burst.fast ? FST_LINK11_RATE / 75.0 : FST_LINK11_RATE * 0.022;
    for (int k = 0; k < FST_LINK11_TONES; k++)
        for (int i = 0; i < FST__FRAME_MOST; i++) {
            double a = fst_link11_tones[k] / FST_LINK11_RATE * i;
            a = FST__TAU * (a - floor(a));
            g->tone[k][0][i] = (float)cos(a);
            g->tone[k][1][i] = (float)sin(a);
        }
}

FST__CLONES static void add_tone(float *re, float *im, const float *c, const float *s, float pr, float pi, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        re[i] += pr * c[i] - pi * s[i];
        im[i] += pr * s[i] + pi * c[i];
    }
}

/* Part of one frame, its first sample being at `position`: tones go on through all frames, and steps are added. */
static void add_frame(const fst_synth *g, const struct tones *t, double position, float *re, float *im, size_t n)
{
    for (int k = 0; k < FST_LINK11_TONES; k++) {
        if (t->amplitude[k] == 0)
            continue;
        double a = fst_link11_tones[k] / FST_LINK11_RATE * position;
        a = a - floor(a) + reference_phase(k) + (double)t->eighths[k] / EIGHTHS;
        double c = (double)t->amplitude[k] * cos(FST__TAU * a), s = (double)t->amplitude[k] * sin(FST__TAU * a);
        add_tone(re, im, g->tone[k][0], g->tone[k][1], (float)c, (float)s, n);
    }
}

void fst__link11_render(const fst_synth *g, uint64_t burst, double first, float *re, float *im, size_t n)
{
    struct tones t = {.words = word_count(g)};
    int64_t m = -1;
    memset(re, 0, n * sizeof *re);
    memset(im, 0, n * sizeof *im);
    fst_rng_init(&t.payload, g->spec.seed, "link11.payload", burst);
    for (size_t i = 0; i < n;) {
        double position = first + (double)i;
        int64_t frame = (int64_t)floor(position / g->frame);
        while (m < frame)
            next_frame(&t, ++m);
        double last = ceil((double)(frame + 1) * g->frame - first); /* the next frame's first sample */
        size_t end = last < (double)n ? (size_t)last : n;
        if (end <= i) /* rounding at a frame's very edge */
            end = i + 1;
        add_frame(g, &t, position, re + i, im + i, end - i);
        i = end;
    }
}

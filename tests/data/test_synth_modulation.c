/* The modulations before the channel: power, constellations behind a matched filter, envelopes, bands. */
#define _GNU_SOURCE
#include "synth.h"

enum { N = 1024, SPS = FST_MODULATION_SPS };
enum { BPSK, QPSK, PSK8, QAM16, QAM64, GFSK, CPFSK, PAM4, AM_DSB, AM_SSB, FM, ALL };

/* A generator of one modulation, at its label 0. */
static fst_synth *only(int modulation)
{
    fst_synth_spec spec = clean_spec(FST_SYNTH_MODULATION);
    spec.classes = &modulation;
    spec.class_count = 1;
    return make(&spec);
}

static void all_have_power_one(void **state)
{
    (void)state;
    for (int m = 0; m < ALL; m++) {
        enum { WINDOWS = 60 };
        fst_synth *g = only(m);
        float *x = windows(g, NULL, 0, WINDOWS, NULL);
        double sum = 0;
        for (size_t w = 0; w < WINDOWS; w++)
            sum += mean_power(x + w * 2 * N, N) / WINDOWS;
        assert_true(fabs(sum - 1) < 0.06);
        free(x);
        fst_synth_free(g);
    }
}

/* The textbook's root raised cosine at 0.35, away from its poles. */
static double pulse(double t)
{
    double b = 0.35, pi = TAU / 2;
    if (t == 0)
        return 1 + b * (4 / pi - 1);
    return (sin(pi * t * (1 - b)) + 4 * b * t * cos(pi * t * (1 + b))) / (pi * t * (1 - pow(4 * b * t, 2)));
}

/* Symbols lie at samples 0, 8, 16 ...; filtered by the same pulse they are points of the constellation. */
static void symbols_are_where_they_should_be(void **state)
{
    static const int sizes[] = {2, 4, 8, 16, 64, 0, 0, 4};
    (void)state;
    for (int m = 0; m <= PAM4; m++) {
        double points[FST_MODULATION_POINTS][2], power = 0;
        int n = fst_modulation_constellation(m, points), met[FST_MODULATION_POINTS] = {0}, all = 0;
        assert_int_equal(n, sizes[m]);
        if (!n)
            continue;
        for (int i = 0; i < n; i++)
            power += (points[i][0] * points[i][0] + points[i][1] * points[i][1]) / n;
        assert_true(fabs(power - 1) < 1e-12);
        fst_synth *g = only(m);
        float *x = windows(g, NULL, 0, 20, NULL);
        for (size_t w = 0; w < 20; w++)
            for (int at = 8 * SPS; at < N - 8 * SPS; at += SPS) {
                double complex sum = 0;
                for (int i = -8 * SPS + 1; i < 8 * SPS; i++)
                    sum += sample(x + w * 2 * N, N, (size_t)(at + i)) * pulse((double)i / SPS) / SPS;
                int near = 0;
                for (int i = 1; i < n; i++)
                    if (cabs(sum - points[i][0] - I * points[i][1]) < cabs(sum - points[near][0] - I * points[near][1]))
                        near = i;
                assert_true(cabs(sum - points[near][0] - I * points[near][1]) < 0.03);
                met[near]++;
                all++;
            }
        for (int i = 0; i < n; i++) /* all points as often */
            assert_true(fabs(met[i] - (double)all / n) < 5 * sqrt((double)all / n));
        free(x);
        fst_synth_free(g);
    }
}

/* Turns from sample a to b, steps being short. */
static double turned(const float *x, size_t a, size_t b)
{
    double sum = 0;
    for (size_t i = a; i < b; i++)
        sum += carg(sample(x, N, i + 1) / sample(x, N, i)) / TAU;
    return sum;
}

static void tones_turn_by_half_the_index(void **state)
{
    (void)state;
    fst_synth *g = only(CPFSK);
    float *x = windows(g, NULL, 0, 1, NULL);
    int up = 0, symbols = 0;
    /* symbol k covers samples 8k-4 ... 8k+4 */
    for (size_t i = 4; i + SPS < N; i += SPS, symbols++) {
        double t = turned(x, i, i + SPS);
        assert_true(fabs(fabs(t) - 0.25) < 1e-4);
        up += t > 0;
    }
    assert_true(abs(2 * up - symbols) < 4 * sqrt(symbols));
    free(x);
    fst_synth_free(g);
    /* Gauss' filter smears steps, so they are at most those, and some are smaller; equal bits in a row reach them */
    g = only(GFSK);
    x = windows(g, NULL, 0, 4, NULL);
    double least = 1, most = 0;
    for (size_t i = 4; i + SPS < N; i += SPS) {
        double t = fabs(turned(x, i, i + SPS));
        least = fmin(least, t);
        most = fmax(most, t);
    }
    assert_true(most < 0.2501 && most > 0.245 && least < 0.15);
    free(x);
    fst_synth_free(g);
}

static void envelopes_are_as_they_should_be(void **state)
{
    static const int steady[] = {GFSK, CPFSK, FM};
    (void)state;
    for (int k = 0; k < 3; k++) {
        fst_synth *g = only(steady[k]);
        float *x = windows(g, NULL, 0, 1, NULL);
        for (size_t i = 0; i < N; i++)
            assert_true(fabs(cabs(sample(x, N, i)) - 1) < 1e-3);
        free(x);
        fst_synth_free(g);
    }
    fst_synth *g = only(AM_DSB);
    float *x = windows(g, NULL, 0, 20, NULL);
    double sum = 0, square = 0;
    for (size_t w = 0; w < 20; w++)
        for (size_t i = 0; i < N; i++) {
            double complex v = sample(x + w * 2 * N, N, i);
            assert_true(fabs(cimag(v)) < 1e-5);
            sum += creal(v) / (20 * N);
            square += creal(v) * creal(v) / (20 * N);
        }
    assert_true(fabs(sqrt(square - sum * sum) / sum - 0.3) < 0.02); /* the depth */
    free(x);
    fst_synth_free(g);
}

/* Share of the power from `low` to `high` cycles a sample, by a Fourier sum under a Hann window. */
static double band(const float *x, double low, double high)
{
    double in = 0, all = 0;
    for (int b = -256; b < 256; b++) {
        double complex sum = 0, step = cexp(-I * TAU * b / 512), p = 1;
        for (size_t i = 0; i < N; i++, p *= step)
            sum += sample(x, N, i) * p * (1 - cos(TAU * ((double)i + 0.5) / N));
        double power = creal(sum * conj(sum)), f = b / 512.0;
        all += power;
        in += f >= low && f <= high ? power : 0;
    }
    return in / all;
}

static void bands_are_as_they_should_be(void **state)
{
    static const struct {
        int modulation;
        double low, high, least;
    } want[] = {
        {BPSK, -0.0875, 0.0875, 0.999}, {QAM64, -0.0875, 0.0875, 0.999}, {PAM4, -0.0875, 0.0875, 0.999},
        {AM_SSB, 0, 0.08, 0.99},        {AM_DSB, -0.07, 0.07, 0.999},    {GFSK, -0.1, 0.1, 0.99},
        {CPFSK, -0.15, 0.15, 0.99},     {FM, -0.3, 0.3, 0.99},
    };
    (void)state;
    for (size_t k = 0; k < sizeof want / sizeof *want; k++) {
        fst_synth *g = only(want[k].modulation);
        float *x = windows(g, NULL, 0, 1, NULL);
        assert_true(band(x, want[k].low, want[k].high) > want[k].least);
        free(x);
        fst_synth_free(g);
    }
    fst_synth *g = only(FM); /* wide, so that it is no tone */
    float *x = windows(g, NULL, 0, 1, NULL);
    assert_true(band(x, -0.02, 0.02) < 0.6);
    free(x);
    fst_synth_free(g);
}

static void the_channel_is_shared(void **state)
{
    fst_synth_spec spec = clean_spec(FST_SYNTH_MODULATION);
    fst_synth_burst b;
    double power = 0;
    (void)state;
    spec.params.channel.multipath = true;
    spec.params.channel.line_of_sight_db = -100;
    fst_synth *g = make(&spec);
    double each[3] = {0};
    for (uint64_t i = 0; i < 4000; i++) {
        fst_synth_burst_at(g, i, &b);
        for (int t = 0; t < 3; t++)
            each[t] += (b.tap[t + 1][0] * b.tap[t + 1][0] + b.tap[t + 1][1] * b.tap[t + 1][1]) / 4000;
    }
    for (int t = 0; t < 3; t++)
        power += each[t];
    assert_true(fabs(power - 1) < 0.06); /* Rayleigh: powers as asked, 1 in sum */
    assert_true(fabs(decibels(each[1] / each[0]) + 2) < 0.4);
    assert_true(fabs(decibels(each[2] / each[0]) + 10) < 0.4);
    fst_synth_free(g);
}

/* A path of 1.8 samples delays a slow signal by 1.8 samples. */
static void delays_between_samples_are_kept(void **state)
{
    int fsk = CPFSK;
    fst_synth_spec spec = clean_spec(FST_SYNTH_MODULATION);
    (void)state;
    spec.classes = &fsk;
    spec.class_count = 1;
    fst_synth *g = make(&spec);
    spec.params.channel.multipath = true;
    spec.params.channel.delays = (fst_synth_list){1, {1.8}};
    spec.params.channel.powers_db = (fst_synth_list){1, {0}};
    spec.params.channel.line_of_sight_db = 100;
    fst_synth *late = make(&spec);
    float *x = windows(g, NULL, 0, 1, NULL), *y = windows(late, NULL, 0, 1, NULL);
    /* inside a symbol the phase runs evenly: 0.25 turns in 8 samples */
    for (size_t k = 2; k < 100; k++) {
        size_t i = k * SPS + 1;
        double step = turned(x, i, i + 1), moved = carg(sample(y, N, i) / sample(x, N, i)) / TAU;
        assert_true(fabs(moved + 1.8 * step) < 0.01);
    }
    free(x);
    free(y);
    fst_synth_free(g);
    fst_synth_free(late);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_have_power_one),
        cmocka_unit_test(symbols_are_where_they_should_be),
        cmocka_unit_test(tones_turn_by_half_the_index),
        cmocka_unit_test(envelopes_are_as_they_should_be),
        cmocka_unit_test(bands_are_as_they_should_be),
        cmocka_unit_test(the_channel_is_shared),
        cmocka_unit_test(delays_between_samples_are_kept),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

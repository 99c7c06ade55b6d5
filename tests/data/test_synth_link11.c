/* The Link-11 waveform, its emitters and its receiver, each looked at from outside: lines of a Fourier sum, words that
 * come back, faults measured on signals. */
#define _GNU_SOURCE
#include "synth.h"

enum { N = 1024, FRAME = 128, LEAD = 16, BODY = 87, SKIP = 20 };

static double tone_turns(int k)
{
    return fst_link11_tones[k] / FST_LINK11_RATE;
}

/* Amplitude of a frequency in the quiet part of the frame that begins `at` samples into the window. */
static double amplitude(const float *x, double at, double hz)
{
    return cabs(line(x, N, (size_t)ceil(at) + SKIP, BODY, hz / FST_LINK11_RATE, 0));
}

static void data_frames_have_the_sixteen_tones(void **state)
{
    fst_synth_spec spec = clean_spec(FST_SYNTH_LINK11);
    fst_synth *g = make(&spec);
    float *x = windows(g, NULL, 0, 1, NULL);
    (void)state;
    for (int m = 0; m < 6; m++) {
        double at = (m + 1) * FRAME - LEAD; /* the first window begins LEAD samples into a frame */
        double doppler = amplitude(x, at, 605);
        for (int k = 1; k < FST_LINK11_TONES; k++) {
            double a = amplitude(x, at, fst_link11_tones[k]);
            assert_true(fabs(decibels(doppler * doppler / (a * a)) - 6.02) < 0.5);
            assert_true(amplitude(x, at, -fst_link11_tones[k]) < 0.05 * a); /* upper side band only */
        }
        static const double empty[] = {385, 495, 715, 825, 2475, 2585, 2695, 2805, 3025, 3905};
        for (size_t i = 0; i < sizeof empty / sizeof *empty; i++)
            assert_true(amplitude(x, at, empty[i]) < 0.05 * doppler);
    }
    free(x);
    fst_synth_free(g);
}

static void preamble_has_two_tones_and_one_of_them_turns(void **state)
{
    fst_synth_spec spec = clean_spec(FST_SYNTH_LINK11);
    spec.params.burst.preamble = true;
    fst_synth *g = make(&spec);
    float *x = windows(g, NULL, 0, 1, NULL);
    double complex before = 0;
    (void)state;
    for (int m = 1; m < 5; m++) {
        double at = m * FRAME - LEAD, strong = amplitude(x, at, 605), data = amplitude(x, 6 * FRAME - LEAD, 1045);
        assert_true(fabs(decibels(strong * strong / (data * data)) - 12.04) < 0.5);
        assert_true(fabs(amplitude(x, at, 2915) / strong - 0.5) < 0.03);
        assert_true(amplitude(x, at, 1485) < 0.03 * strong);
        double complex now = line(x, N, (size_t)at + SKIP, BODY, tone_turns(15), 0);
        if (m > 1)
            assert_true(creal(now / before) < -0.95);
        before = now;
    }
    free(x);
    fst_synth_free(g);
}

static void slow_frames_last_22_ms(void **state)
{
    fst_synth_spec spec = clean_spec(FST_SYNTH_LINK11);
    spec.params.burst.fast = false;
    fst_synth *g = make(&spec);
    float *x = windows(g, NULL, 0, 1, NULL);
    (void)state;
    /* A tone's phase stands still inside a frame and steps by an odd eighth between frames. */
    for (int m = 1; m < 4; m++) {
        double at = m * 211.2 - LEAD;
        double complex a = line(x, N, (size_t)ceil(at) + 2, BODY, tone_turns(7), 0);
        double complex b = line(x, N, (size_t)ceil(at) + 120, BODY, tone_turns(7), 0);
        double complex c = line(x, N, (size_t)ceil(at + 211.2) + 2, BODY, tone_turns(7), 0);
        assert_true(cabs(b / a - 1) < 0.1);
        double step = carg(c / b) / TAU * 8;
        assert_true(fabs(fabs(step) - 1) < 0.15 || fabs(fabs(step) - 3) < 0.15);
    }
    free(x);
    fst_synth_free(g);
}

static void words_correct_one_bit_and_see_two(void **state)
{
    fst_rng r;
    (void)state;
    fst_rng_init(&r, 3, "test.words", 0);
    for (int i = 0; i < 50; i++) {
        uint32_t data = fst_rng_u32(&r) >> 8, word = fst_link11_encode(data), got = 0;
        assert_true(word < 1u << 30 && (word & 0xFFFFFF) == data);
        assert_true(fst_link11_decode(word, &got) && got == data);
        for (int a = 0; a < 30; a++) {
            got = 0;
            assert_true(fst_link11_decode(word ^ 1u << a, &got) && got == data);
            for (int b = 0; b < a; b++)
                assert_false(fst_link11_decode(word ^ 1u << a ^ 1u << b, &got));
        }
    }
}

/* Demodulates windows and compares with what was sent; returns wrong bits a bit. */
static double error_rate(const fst_synth *g, size_t n)
{
    size_t wrong = 0, all = 0, k = (size_t)fst_synth_spec_of(g)->windows_per_burst;
    float *x = windows(g, NULL, 0, n, NULL);
    for (size_t w = 0; w < n; w++) {
        uint32_t sent[256];
        fst_synth_burst b;
        fst_link11_demodulated d;
        fst_synth_burst_at(g, w / k, &b);
        size_t count = fst_link11_words(g, w / k, sent, 256);
        assert_ok(fst_link11_demodulate(x + w * 2 * N, N, &d, err));
        assert_int_equal(d.count, 6 + (d.first_frame + 7 * FRAME + FRAME <= N));
        long frame = lround((b.start + (double)(w % k) * N + d.first_frame) / FRAME);
        for (size_t i = 0; i < d.count; i++) {
            size_t at = (size_t)frame + 1 + i - 6;
            assert_true(at < count);
            wrong += (size_t)__builtin_popcount(sent[at] ^ d.word[i]);
            all += 30;
        }
    }
    free(x);
    return (double)wrong / (double)all;
}

static void payload_comes_back(void **state)
{
    fst_synth_spec spec = {.kind = FST_SYNTH_LINK11, .seed = 11, .windows_per_burst = 2, .snr_min = 40, .snr_max = 40};
    (void)state;
    fst_synth_params_default(&spec.params, FST_SYNTH_LINK11);
    spec.params.burst.preamble = false;
    spec.params.channel.multipath = false;
    spec.params.emitters.amplifier = FST_PA_RAPP; /* Saleh's turns the phase so far that a bit may be lost */
    fst_synth *g = make(&spec);
    assert_true(error_rate(g, 40) == 0);
    fst_synth_free(g);
    spec.params.emitters.amplifier = FST_PA_MIXED;
    spec.params.channel.multipath = true;
    spec.snr_min = spec.snr_max = 30;
    g = make(&spec);
    assert_true(error_rate(g, 40) < 0.01);
    fst_synth_free(g);
    spec.snr_min = spec.snr_max = -30; /* and the comparison can fail */
    g = make(&spec);
    assert_true(fabs(error_rate(g, 40) - 0.5) < 0.05);
    fst_synth_free(g);
}

static void the_receiver_finds_frequency_and_refuses_scraps(void **state)
{
    fst_synth_spec spec = clean_spec(FST_SYNTH_LINK11);
    fst_link11_demodulated d;
    (void)state;
    spec.params.burst.doppler_hz = (fst_range){-123, -123};
    fst_synth *g = make(&spec);
    float *x = windows(g, NULL, 0, 1, NULL);
    assert_ok(fst_link11_demodulate(x, N, &d, err));
    assert_true(fabs(d.frequency + 123) < 0.3);
    assert_true(d.quality > 0.99);
    assert_fails(fst_link11_demodulate(x, 511, &d, err), FST_E_ARGUMENT, "512");
    free(x);
    fst_synth_free(g);
}

/* ---- emitters ------------------------------------------------------------------------------------- */

static double distance(const fst_emitter *a, const fst_emitter *b)
{
    double sum = 0;
    for (int t = 0; t < FST_EMITTER_TRAITS; t++)
        sum += (a->place[t] - b->place[t]) * (a->place[t] - b->place[t]);
    return sqrt(sum);
}

static void emitters_of_a_type_lie_closer_than_types(void **state)
{
    fst_synth_spec spec = {.kind = FST_SYNTH_LINK11};
    (void)state;
    fst_synth_params_default(&spec.params, FST_SYNTH_LINK11);
    for (spec.seed = 0; spec.seed < 200; spec.seed++) {
        double same = 0, other = 1e9;
        fst_synth *g = make(&spec);
        for (int i = 0; i < FST_EMITTERS; i++)
            for (int j = 0; j < i; j++) {
                const fst_emitter *a = fst_synth_emitter(g, i), *b = fst_synth_emitter(g, j);
                double d = distance(a, b);
                assert_int_equal(a->type == b->type, !strncmp(a->name, b->name, 4));
                assert_true(d > 0.1);
                same = a->type == b->type ? fmax(same, d) : same;
                other = a->type == b->type ? other : fmin(other, d);
            }
        assert_true(same < other);
        fst_synth_free(g);
    }
}

static void traits_lie_in_their_ranges(void **state)
{
    fst_synth_spec spec = {.kind = FST_SYNTH_LINK11};
    (void)state;
    fst_synth_params_default(&spec.params, FST_SYNTH_LINK11);
    for (spec.seed = 0; spec.seed < 50; spec.seed++) {
        fst_synth *g = make(&spec);
        int saleh = 0;
        for (int i = 0; i < FST_EMITTERS; i++) {
            const fst_emitter *e = fst_synth_emitter(g, i);
            assert_true(e->iq_gain_db >= 0.1 && e->iq_gain_db <= 1);
            assert_true(e->iq_phase_deg >= 0.5 && e->iq_phase_deg <= 4);
            assert_true(e->dc_dbc >= -50 && e->dc_dbc <= -32);
            assert_true(e->rapp_p >= 1 && e->rapp_p <= 3);
            assert_true(e->backoff_db >= 3 && e->backoff_db <= 8);
            assert_true(fabs(e->bias_ppm) <= 0.1);
            assert_true(e->phase_noise_dbc >= -130 && e->phase_noise_dbc <= -80);
            assert_true(fabs(e->saleh[0] / 2.1587 - 1) <= 0.1 && fabs(e->saleh[3] / 9.1040 - 1) <= 0.1);
            saleh += e->amplifier == FST_PA_SALEH;
        }
        assert_true(saleh == 2 || saleh == 3); /* one type */
        fst_synth_free(g);
    }
}

/* One fault at a time, measured on the signal against its textbook value. */
static void imbalance_makes_the_image_that_it_should(void **state)
{
    fst_synth_spec spec = clean_spec(FST_SYNTH_LINK11);
    (void)state;
    spec.params.emitters.iq_gain_db = (fst_range){0.8, 0.8};
    spec.params.emitters.iq_phase_deg = (fst_range){3, 3};
    fst_synth *g = make(&spec);
    float *x = windows(g, NULL, 0, 1, NULL);
    double gain = pow(10, 0.8 / 20), phi = 3 * TAU / 360;
    double complex a = (1 + gain * cexp(-I * phi)) / 2, b = (1 - gain * cexp(I * phi)) / 2;
    for (int k = 0; k < FST_LINK11_TONES; k += 3) {
        double complex up = line(x, N, FRAME - LEAD + SKIP, BODY, tone_turns(k), 0);
        double complex down = line(x, N, FRAME - LEAD + SKIP, BODY, -tone_turns(k), 0);
        assert_true(cabs(down / conj(up) - b / conj(a)) < 0.015); /* other tones leak a little */
    }
    free(x);
    fst_synth_free(g);
}

static void carrier_leaks_as_asked(void **state)
{
    fst_synth_spec spec = clean_spec(FST_SYNTH_LINK11);
    (void)state;
    spec.params.emitters.dc_dbc = (fst_range){-20, -20};
    fst_synth *g = make(&spec);
    float *x = windows(g, NULL, 0, 1, NULL);
    double complex sum = 0;
    for (int m = 1; m < 7; m++)
        sum += line(x, N, (size_t)(m * FRAME - LEAD + SKIP), BODY, 0, 0) / 6;
    double leak = decibels(cabs(sum) * cabs(sum) / mean_power(x, N));
    assert_true(fabs(leak + 20) < 1);
    free(x);
    fst_synth_free(g);
}

/* Power at 3025 Hz, where only a bent amplifier puts any, over the mean. */
static double distortion(double backoff_db, fst_synth_pa amplifier)
{
    fst_synth_spec spec = clean_spec(FST_SYNTH_LINK11);
    spec.params.emitters.backoff_db = (fst_range){backoff_db, backoff_db};
    spec.params.emitters.amplifier = amplifier;
    fst_synth *g = make(&spec);
    float *x = windows(g, NULL, 0, 20, NULL);
    double sum = 0;
    for (size_t w = 0; w < 20; w++)
        for (int m = 1; m < 7; m++) {
            double a = amplitude(x + w * 2 * N, m * FRAME - LEAD, 3025);
            sum += a * a / mean_power(x + w * 2 * N, N) / 120;
        }
    free(x);
    fst_synth_free(g);
    return decibels(sum);
}

static void less_back_off_bends_more(void **state)
{
    double linear = distortion(40, FST_PA_RAPP), far = distortion(8, FST_PA_RAPP), near = distortion(3, FST_PA_RAPP);
    (void)state;
    assert_true(linear < far - 3 && far < near - 3);
    assert_true(distortion(8, FST_PA_SALEH) > far);
}

/* The variance of a walk's phase over a time t is (2 pi f)^2 L(f) t. */
static void phase_noise_walks_as_asked(void **state)
{
    fst_synth_spec spec = clean_spec(FST_SYNTH_LINK11);
    (void)state;
    spec.params.emitters.phase_noise_dbc = (fst_range){-80, -80};
    fst_synth *noisy = make(&spec);
    spec.params.emitters.phase_noise_dbc = (fst_range){-200, -200};
    fst_synth *quiet = make(&spec);
    enum { WINDOWS = 200, LAG = 400 };
    float *x = windows(noisy, NULL, 0, WINDOWS, NULL), *y = windows(quiet, NULL, 0, WINDOWS, NULL);
    double sum = 0;
    for (size_t w = 0; w < WINDOWS; w++) {
        double complex a = 1, b = 1;
        a = sample(x + w * 2 * N, N, 200) / sample(y + w * 2 * N, N, 200);
        b = sample(x + w * 2 * N, N, 200 + LAG) / sample(y + w * 2 * N, N, 200 + LAG);
        sum += carg(b / a) * carg(b / a) / WINDOWS;
    }
    double want = TAU * 1000 * TAU * 1000 * 1e-8 * LAG / FST_LINK11_RATE;
    assert_true(fabs(sum / want - 1) < 3 * sqrt(2.0 / WINDOWS));
    free(x);
    free(y);
    fst_synth_free(noisy);
    fst_synth_free(quiet);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(data_frames_have_the_sixteen_tones),
        cmocka_unit_test(preamble_has_two_tones_and_one_of_them_turns),
        cmocka_unit_test(slow_frames_last_22_ms),
        cmocka_unit_test(words_correct_one_bit_and_see_two),
        cmocka_unit_test(payload_comes_back),
        cmocka_unit_test(the_receiver_finds_frequency_and_refuses_scraps),
        cmocka_unit_test(emitters_of_a_type_lie_closer_than_types),
        cmocka_unit_test(traits_lie_in_their_ranges),
        cmocka_unit_test(imbalance_makes_the_image_that_it_should),
        cmocka_unit_test(carrier_leaks_as_asked),
        cmocka_unit_test(less_back_off_bends_more),
        cmocka_unit_test(phase_noise_walks_as_asked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* What every generator promises: the same bytes for any threads and counts, the noise that was asked for, parameters
 * that are checked; and that what must not tell emitters apart does not. */
#define _GNU_SOURCE
#include "synth.h"

enum { N = 1024, CLASSES = 7 };

static fst_synth_spec usual(fst_synth_kind kind)
{
    fst_synth_spec s = {.kind = kind, .seed = 5, .windows_per_burst = 4, .snr_min = -10, .snr_max = 30};
    fst_synth_params_default(&s.params, kind);
    return s;
}

/* ---- same bytes ------------------------------------------------------------------------------------ */

static void same_bytes_for_any_threads_and_counts(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        fst_synth_spec spec = usual((fst_synth_kind)kind);
        spec.params.burst.window = 256;
        fst_synth *g = make(&spec);
        int32_t labels[300], some[100];
        float *all = windows(g, NULL, 0, 300, labels);
        for (int threads = 2; threads <= 3; threads++) {
            fst_pool *pool = NULL;
            assert_ok(fst_pool_new(&pool, threads, err));
            float *again = windows(g, pool, 0, 300, NULL);
            assert_memory_equal(all, again, 300 * 2 * 256 * sizeof *all);
            free(again);
            fst_pool_free(pool);
        }
        float *part = windows(g, NULL, 50, 100, some);
        assert_memory_equal(all + 50 * 2 * 256, part, 100 * 2 * 256 * sizeof *all);
        assert_memory_equal(labels + 50, some, sizeof some);
        free(part);
        fst_synth_free(g);
        spec.seed++;
        g = make(&spec);
        part = windows(g, NULL, 0, 1, NULL);
        assert_memory_not_equal(all, part, 256 * sizeof *all);
        free(part);
        free(all);
        fst_synth_free(g);
    }
}

static void classes_take_turns_and_keep_their_signals(void **state)
{
    fst_synth_spec spec = usual(FST_SYNTH_LINK11);
    static const int two[] = {6, 2}, twice[] = {1, 1}, none[] = {7};
    int32_t labels[CLASSES * 4 * 3];
    int64_t burst[CLASSES * 4 * 3];
    float snr[CLASSES * 4 * 3], *x = malloc(sizeof labels * 2 * N);
    fst_synth *g = make(&spec);
    (void)state;
    assert_ok(fst_synth_fill(g, NULL, 0, CLASSES * 4 * 3, x, labels, snr, burst, err));
    for (int i = 0; i < CLASSES * 4 * 3; i++) {
        assert_int_equal(burst[i], i / 4);
        assert_int_equal(labels[i], labels[i / 4 * 4]);
        assert_true(snr[i] == snr[i / 4 * 4] && snr[i] >= -10 && snr[i] <= 30);
    }
    for (int round = 0; round < 3; round++) {
        unsigned seen = 0;
        for (int b = 0; b < CLASSES; b++)
            seen |= 1u << labels[(round * CLASSES + b) * 4];
        assert_int_equal(seen, 127);
    }
    spec.classes = two;
    spec.class_count = 2;
    fst_synth *h = make(&spec);
    assert_string_equal(fst_synth_class_name(h, 0), "P-8A_3");
    assert_string_equal(fst_synth_class_name(h, 1), "P-3C_1");
    assert_null(fst_synth_class_name(h, 2));
    assert_memory_equal(fst_synth_emitter(g, 6)->place, fst_synth_emitter(h, 6)->place, sizeof(double));
    fst_synth_free(h);
    spec.classes = twice;
    assert_fails(fst_synth_new(&h, &spec, err), FST_E_CONFIG, "twice");
    spec.classes = none;
    spec.class_count = 1;
    assert_fails(fst_synth_new(&h, &spec, err), FST_E_CONFIG, "none");
    free(x);
    fst_synth_free(g);
}

/* ---- noise ------------------------------------------------------------------------------------------- */

/* The noise is what changes when nothing but the SNR does. */
static void noise_is_as_strong_as_asked(void **state)
{
    static const double levels[] = {-10, 0, 10, 30};
    (void)state;
    for (int kind = 0; kind < 2; kind++)
        for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
            fst_synth_spec spec = usual((fst_synth_kind)kind);
            spec.params.burst.normalise = false;
            spec.params.burst.rx_iq_gain_db = spec.params.burst.rx_iq_phase_deg = 0;
            spec.snr_min = spec.snr_max = 190;
            fst_synth *quiet = make(&spec);
            spec.snr_min = spec.snr_max = levels[i];
            fst_synth *noisy = make(&spec);
            float *x = windows(quiet, NULL, 0, 40, NULL), *y = windows(noisy, NULL, 0, 40, NULL);
            for (size_t w = 0; w < 40; w++) {
                double signal = mean_power(x + w * 2 * N, N);
                for (size_t k = w * 2 * N; k < (w + 1) * 2 * N; k++)
                    y[k] -= x[k];
                assert_true(fabs(decibels(signal / mean_power(y + w * 2 * N, N)) - levels[i]) < 0.5);
            }
            free(x);
            free(y);
            fst_synth_free(quiet);
            fst_synth_free(noisy);
        }
}

/* Moments and tails of the noise alone, and no correlation between I and Q or neighbours. */
static void noise_is_white_and_normal(void **state)
{
    enum { WINDOWS = 100 };
    fst_synth_spec spec = usual(FST_SYNTH_MODULATION);
    (void)state;
    spec.snr_min = spec.snr_max = -100;
    fst_synth *g = make(&spec);
    float *x = windows(g, NULL, 0, WINDOWS, NULL);
    double count = WINDOWS * 2.0 * N, fourth = 0, lag = 0, cross = 0, beyond = 0;
    for (size_t w = 0; w < WINDOWS; w++)
        for (size_t i = 0; i < N; i++) {
            double re = (double)x[w * 2 * N + i] * sqrt(2), im = (double)x[w * 2 * N + N + i] * sqrt(2);
            fourth += (re * re * re * re + im * im * im * im) / count;
            cross += re * im;
            lag += i ? re * (double)x[w * 2 * N + i - 1] * sqrt(2) : 0;
            beyond += (fabs(re) > 2) + (fabs(im) > 2);
        }
    assert_true(fabs(fourth - 3) < 4 * sqrt(96 / count));
    assert_true(fabs(lag) < 4 * sqrt(count / 2) && fabs(cross) < 4 * sqrt(count / 2));
    assert_true(fabs(beyond / count - 0.0455003) < 4 * sqrt(0.0455 / count));
    free(x);
    fst_synth_free(g);
}

static void windows_have_power_one(void **state)
{
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        fst_synth_spec spec = usual((fst_synth_kind)kind);
        fst_synth *g = make(&spec);
        float *x = windows(g, NULL, 0, 50, NULL);
        for (size_t w = 0; w < 50; w++)
            assert_true(fabs(mean_power(x + w * 2 * N, N) - 1) < 1e-5);
        free(x);
        fst_synth_free(g);
    }
}

/* ---- probes -------------------------------------------------------------------------------------------- */

enum { BINS = 24 };

static int bin_of(double angle)
{
    int b = (int)((angle / TAU + 0.5) * BINS);
    return b < 0 ? 0 : b >= BINS ? BINS - 1 : b;
}

/* Share of right answers on the second half of a classifier that learns, from the first half, which class is the most
 * frequent in each bin of the angle. */
static double by_histogram(const double *angle, const int32_t *label, size_t n)
{
    int count[BINS][CLASSES] = {{0}};
    size_t right = 0;
    for (size_t i = 0; i < n / 2; i++)
        count[bin_of(angle[i])][label[i]]++;
    for (size_t i = n / 2; i < n; i++) {
        int best = 0;
        for (int c = 1; c < CLASSES; c++)
            best = count[bin_of(angle[i])][c] > count[bin_of(angle[i])][best] ? c : best;
        right += best == label[i];
    }
    return (double)right / (double)(n - n / 2);
}

/* The same with the nearest mean direction. */
static double by_centre(const double *angle, const int32_t *label, size_t n)
{
    double complex sum[CLASSES] = {0};
    size_t right = 0;
    for (size_t i = 0; i < n / 2; i++)
        sum[label[i]] += cexp(I * angle[i]);
    for (size_t i = n / 2; i < n; i++) {
        int best = 0;
        for (int c = 1; c < CLASSES; c++)
            if (cos(angle[i] - carg(sum[c])) > cos(angle[i] - carg(sum[best])))
                best = c;
        right += best == label[i];
    }
    return (double)right / (double)(n - n / 2);
}

static bool at_chance(double share, size_t tested)
{
    double p = 1.0 / CLASSES;
    return fabs(share - p) < 3 * sqrt(p * (1 - p) / (double)tested);
}

/* One window a burst, so that all answers are independent. */
static void angle_of_the_sum_of_squares_tells_nothing(void **state)
{
    enum { BURSTS = CLASSES * 400 };
    fst_synth_spec spec = usual(FST_SYNTH_LINK11);
    static double angle[BURSTS];
    static int32_t label[BURSTS];
    (void)state;
    spec.windows_per_burst = 1;
    spec.params.burst.window = 512;
    spec.snr_min = spec.snr_max = 30;
    fst_synth *g = make(&spec);
    float *x = windows(g, NULL, 0, BURSTS, label);
    for (size_t w = 0; w < BURSTS; w++) {
        double complex sum = 0;
        for (size_t i = 0; i < 512; i++) {
            double complex v = sample(x + w * 1024, 512, i);
            sum += v * v;
        }
        angle[w] = carg(sum);
    }
    assert_true(at_chance(by_histogram(angle, label, BURSTS), BURSTS / 2));
    assert_true(at_chance(by_centre(angle, label, BURSTS), BURSTS / 2));
    /* the probes do see a phase that knows the class */
    for (size_t w = 0; w < BURSTS; w++)
        angle[w] = remainder(angle[w] * 0.1 + label[w] * TAU / CLASSES, TAU);
    assert_true(by_histogram(angle, label, BURSTS) > 0.6 && by_centre(angle, label, BURSTS) > 0.6);
    free(x);
    fst_synth_free(g);
}

/* Naive Bayes over demodulated bits, by place in the window. */
struct bits {
    uint32_t word[6];
};

static double by_payload(const struct bits *bits, const int32_t *label, size_t n)
{
    static double ones[CLASSES][6][30];
    double many[CLASSES] = {0};
    size_t right = 0;
    memset(ones, 0, sizeof ones);
    for (size_t i = 0; i < n / 2; i++, many[label[i - 1]]++)
        for (int w = 0; w < 6; w++)
            for (int b = 0; b < 30; b++)
                ones[label[i]][w][b] += bits[i].word[w] >> b & 1;
    for (size_t i = n / 2; i < n; i++) {
        double score[CLASSES] = {0};
        int best = 0;
        for (int c = 0; c < CLASSES; c++) {
            for (int w = 0; w < 6; w++)
                for (int b = 0; b < 30; b++) {
                    double p = (ones[c][w][b] + 1) / (many[c] + 2);
                    score[c] += log(bits[i].word[w] >> b & 1 ? p : 1 - p);
                }
            best = score[c] > score[best] ? c : best;
        }
        right += best == label[i];
    }
    return (double)right / (double)(n - n / 2);
}

static void payload_tells_nothing(void **state)
{
    enum { BURSTS = CLASSES * 100 };
    fst_synth_spec spec = usual(FST_SYNTH_LINK11);
    static struct bits bits[BURSTS];
    static int32_t label[BURSTS];
    (void)state;
    spec.windows_per_burst = 1;
    spec.snr_min = spec.snr_max = 25;
    fst_synth *g = make(&spec);
    float *x = windows(g, NULL, 0, BURSTS, label);
    for (size_t w = 0; w < BURSTS; w++) {
        fst_link11_demodulated d;
        assert_ok(fst_link11_demodulate(x + w * 2 * N, N, &d, err));
        memcpy(bits[w].word, d.word, sizeof bits[w].word);
    }
    assert_true(at_chance(by_payload(bits, label, BURSTS), BURSTS / 2));
    /* the probe does see an address */
    for (size_t w = 0; w < BURSTS; w++)
        bits[w].word[3] = (bits[w].word[3] & ~7u) | (uint32_t)label[w];
    assert_true(by_payload(bits, label, BURSTS) > 0.6);
    free(x);
    fst_synth_free(g);
}

/* ---- parameters -------------------------------------------------------------------------------------------- */

static fst_status parse(fst_synth_params *p, fst_synth_kind kind, const char *text, fst_error *err)
{
    return fst_synth_params_parse(p, kind, "p.json", text, strlen(text), err);
}

static void parameters_are_read_and_written(void **state)
{
    fst_synth_params p, q;
    (void)state;
    for (int kind = 0; kind < 2; kind++) {
        fst_buf a = {0}, b = {0};
        fst_synth_params_default(&p, (fst_synth_kind)kind);
        assert_ok(parse(&p, (fst_synth_kind)kind,
                        "{\"channel\": {\"delays\": [0, 0.1], \"powers_db\": [-1, -3.3333333333333335]},"
                        " \"burst\": {\"normalise\": false, \"window\": 3.33E2, \"gain_db\": [1, 2.5]}}",
                        err));
        assert_int_equal(p.burst.window, 333);
        assert_false(p.burst.normalise);
        assert_true(p.burst.gain_db.max == 2.5 && p.channel.delays.count == 2);
        assert_true(p.channel.line_of_sight_db > -100); /* what is not named stays */
        assert_ok(fst_synth_params_json(&p, (fst_synth_kind)kind, &a, err));
        fst_synth_params_default(&q, (fst_synth_kind)kind);
        assert_ok(parse(&q, (fst_synth_kind)kind, a.data, err));
        assert_ok(fst_synth_params_json(&q, (fst_synth_kind)kind, &b, err));
        assert_string_equal(a.data, b.data);
        assert_true(q.channel.powers_db.value[1] == -3.3333333333333335);
        fst_buf_release(&a);
        fst_buf_release(&b);
    }
}

static void wrong_parameters_are_named(void **state)
{
    static const struct {
        const char *text, *message;
    } bad[] = {
        {"{\"emitters\": {\"iq_gain\": [0, 1]}}", "p.json: link11 has no parameter \"emitters.iq_gain\""},
        {"{\"emitter\": {}}", "p.json: link11 has no group of parameters \"emitter\""},
        {"{\"modulation\": {\"rolloff\": 0.2}}", "no group"},
        {"{\"burst\": {\"frequency\": [0, 0]}}", "no parameter \"burst.frequency\""},
        {"{\"emitters\": {\"backoff_db\": [3, 41]}}",
         "p.json: emitters.backoff_db must be [min, max], both from 0 to 40"},
        {"{\"emitters\": {\"backoff_db\": [5, 3]}}", "min no larger"},
        {"{\"emitters\": {\"backoff_db\": 3}}", "must be [min, max]"},
        {"{\"emitters\": {\"within\": 0.5}}", "emitters.within must be a number from 0 to 0.333333"},
        {"{\"emitters\": {\"amplifier\": \"tube\"}}", "one of \"rapp\""},
        {"{\"burst\": {\"window\": 1024.5}}", "a whole number from 64 to 65536, not 1024.5"},
        {"{\"burst\": {\"fast\": 1}}", "true or false"},
        {"{\"channel\": {\"delays\": [1, 2, 3, 4, 5, 6, 7, 7, 7]}}", "1 to 8 numbers from 0 to 7"},
        {"{\"channel\": {\"delays\": [1]}}", "1 entries and channel.powers_db 3"},
        {"{\"burst\": []}", "an object"},
        {"[]", "an object"},
        {"{", "p.json:1:"},
        {"{\"burst\": {}, \"burst\": {}}", "not JSON"},
    };
    fst_synth_params p, before;
    (void)state;
    fst_synth_params_default(&p, FST_SYNTH_LINK11);
    memcpy(&before, &p, sizeof p);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_fails(parse(&p, FST_SYNTH_LINK11, bad[i].text, err), FST_E_CONFIG, bad[i].message);
    assert_memory_equal(&p, &before, sizeof p);
    assert_fails(fst_synth_params_read(&p, FST_SYNTH_LINK11, "/nowhere/p.json", err), FST_E_IO, "/nowhere/p.json");
}

static void wrong_specs_are_refused(void **state)
{
    fst_synth_spec spec = usual(FST_SYNTH_LINK11);
    fst_synth *g = NULL;
    (void)state;
    spec.snr_min = 31;
    assert_fails(fst_synth_new(&g, &spec, err), FST_E_CONFIG, "SNR");
    spec = usual(FST_SYNTH_LINK11);
    spec.windows_per_burst = 1025;
    assert_fails(fst_synth_new(&g, &spec, err), FST_E_CONFIG, "1 to 1024");
    for (uint64_t n = 1; n <= 2; n++) { /* out of memory at every allocation */
        spec = usual(FST_SYNTH_MODULATION);
        fst_alloc_fail_at(n);
        assert_int_equal(fst_synth_new(&g, &spec, NULL), FST_E_MEMORY);
        fst_alloc_fail_at(0);
    }
    assert_null(g);
    fst_synth_free(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_bytes_for_any_threads_and_counts),
        cmocka_unit_test(classes_take_turns_and_keep_their_signals),
        cmocka_unit_test(noise_is_as_strong_as_asked),
        cmocka_unit_test(noise_is_white_and_normal),
        cmocka_unit_test(windows_have_power_one),
        cmocka_unit_test(angle_of_the_sum_of_squares_tells_nothing),
        cmocka_unit_test(payload_tells_nothing),
        cmocka_unit_test(parameters_are_read_and_written),
        cmocka_unit_test(wrong_parameters_are_named),
        cmocka_unit_test(wrong_specs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

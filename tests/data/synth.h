/* synth.h - generators for the tests: parameters without any fault or channel, and plain sums over signals. */
#ifndef FEDSTILL_TESTS_DATA_SYNTH_H
#define FEDSTILL_TESTS_DATA_SYNTH_H

#include <complex.h>
#include <math.h>

#include "fedstill/synth.h"
#include "files.h"

#define TAU 6.283185307179586477

/* Nothing but the signal, starting where the generator starts it, as loud as it is made. */
static inline fst_synth_spec clean_spec(fst_synth_kind kind)
{
    fst_synth_spec s = {.kind = kind, .seed = 7, .windows_per_burst = 1, .snr_min = 200, .snr_max = 200};
    fst_synth_params *p = &s.params;
    fst_synth_params_default(p, kind);
    p->emitters.iq_gain_db = p->emitters.iq_phase_deg = p->emitters.bias_ppm = (fst_range){0, 0};
    p->emitters.dc_dbc = (fst_range){-120, -120};
    p->emitters.backoff_db = (fst_range){40, 40};
    p->emitters.phase_noise_dbc = (fst_range){-200, -200};
    p->emitters.amplifier = FST_PA_RAPP;
    p->burst.preamble = p->burst.carrier_phase = p->burst.timing = p->burst.normalise = false;
    p->burst.doppler_hz = p->burst.frequency = p->burst.gain_db = (fst_range){0, 0};
    p->burst.rx_iq_gain_db = p->burst.rx_iq_phase_deg = 0;
    p->channel.multipath = false;
    return s;
}

static inline fst_synth *make(const fst_synth_spec *spec)
{
    fst_synth *g = NULL;
    assert_ok(fst_synth_new(&g, spec, err));
    return g;
}

static inline float *windows(const fst_synth *g, fst_pool *pool, uint64_t first, size_t n, int32_t *labels)
{
    float *x = malloc(n * 2 * (size_t)fst_synth_spec_of(g)->params.burst.window * sizeof *x);
    assert_non_null(x);
    assert_ok(fst_synth_fill(g, pool, first, n, x, labels, NULL, NULL, err));
    return x;
}

static inline double complex sample(const float *x, size_t n, size_t i)
{
    return (double)x[i] + I * (double)x[n + i];
}

/* Mean of x exp(-2 pi i f t) over len samples from `from`, t counted from sample `zero`; f in cycles a sample. */
static inline double complex line(const float *x, size_t n, size_t from, size_t len, double f, double zero)
{
    double complex sum = 0;
    for (size_t i = from; i < from + len; i++)
        sum += sample(x, n, i) * cexp(-I * TAU * f * ((double)i - zero));
    return sum / (double)len;
}

static inline double mean_power(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < 2 * n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum / (double)n;
}

static inline double decibels(double ratio)
{
    return 10 * log10(ratio);
}

#endif

/*
 * Generators: a window from its number. Which class a burst has, what is drawn for it, and the order of the faults.
 * Nothing here keeps state between windows.
 */
#include <math.h>
#include <string.h>

#include "synth_private.h"

static const char *const link11_names[] = {"E-2D_1", "E-2D_2", "P-3C_1", "P-3C_2", "P-8A_1", "P-8A_2", "P-8A_3", NULL};
static const char *const modulation_names[] = {"BPSK",  "QPSK", "8PSK",   "16QAM",  "64QAM", "GFSK",
                                               "CPFSK", "PAM4", "AM-DSB", "AM-SSB", "FM",    NULL};

const char *const *fst_synth_names(fst_synth_kind kind)
{
    return kind == FST_SYNTH_LINK11 ? link11_names : modulation_names;
}

const char *fst_synth_kind_name(fst_synth_kind kind)
{
    return kind == FST_SYNTH_LINK11 ? "link11" : "modulation";
}

int fst_synth_classes(const fst_synth *g)
{
    return g->class_count;
}

const char *fst_synth_class_name(const fst_synth *g, int label)
{
    return label >= 0 && label < g->class_count ? fst_synth_names(g->spec.kind)[g->classes[label]] : NULL;
}

const fst_synth_spec *fst_synth_spec_of(const fst_synth *g)
{
    return &g->spec;
}

double fst_synth_sample_rate(const fst_synth *g)
{
    return g->spec.kind == FST_SYNTH_LINK11 ? FST_LINK11_RATE : 1;
}

const fst_emitter *fst_synth_emitter(const fst_synth *g, int i)
{
    bool there = g->spec.kind == FST_SYNTH_LINK11 && i >= 0 && i < FST_EMITTERS;
    return there ? &g->emitter[i] : NULL;
}

static fst_status set_classes(fst_synth *g, const fst_synth_spec *spec, fst_error *err)
{
    int all = 0;
    bool seen[16] = {false};
    while (fst_synth_names(spec->kind)[all])
        all++;
    g->class_count = spec->classes ? spec->class_count : all;
    if (g->class_count < 1 || g->class_count > all)
        return fst_fail(err, FST_E_CONFIG, "%d classes; %s has 1 to %d", g->class_count,
                        fst_synth_kind_name(spec->kind), all);
    for (int i = 0; i < g->class_count; i++) {
        int c = spec->classes ? spec->classes[i] : i;
        if (c < 0 || c >= all || seen[c])
            return fst_fail(err, FST_E_CONFIG, "class %d is %s", c, c < 0 || c >= all ? "none" : "there twice");
        seen[c] = true;
        g->classes[i] = c;
    }
    if (spec->classes)
        g->spec.classes = g->classes;
    return FST_OK;
}

static fst_status check_spec(const fst_synth_spec *spec, fst_error *err)
{
    if (spec->kind != FST_SYNTH_LINK11 && spec->kind != FST_SYNTH_MODULATION)
        return fst_fail(err, FST_E_ARGUMENT, "unknown kind of generator %d", (int)spec->kind);
    if (spec->windows_per_burst < 0 || spec->windows_per_burst > FST_SYNTH_MAX_WINDOWS_PER_BURST)
        return fst_fail(err, FST_E_CONFIG, "%d windows a burst; 1 to %d are possible", spec->windows_per_burst,
                        FST_SYNTH_MAX_WINDOWS_PER_BURST);
    if (!(spec->snr_min >= -100 && spec->snr_max <= 200 && spec->snr_min <= spec->snr_max))
        return fst_fail(err, FST_E_CONFIG, "an SNR from %g to %g dB; -100 to 200, the lower first, are needed",
                        spec->snr_min, spec->snr_max);
    return FST_OK;
}

fst_status fst_synth_new(fst_synth **out, const fst_synth_spec *spec, fst_error *err)
{
    fst_status s = check_spec(spec, err);
    fst_synth *g = s ? NULL : fst_calloc(1, sizeof *g);
    if (s || !g)
        return s ? s : fst_fail_memory(err, sizeof *g);
    g->spec = *spec;
    if (!spec->windows_per_burst)
        g->spec.windows_per_burst = 4;
    s = set_classes(g, spec, err);
    if (!s && spec->kind == FST_SYNTH_MODULATION)
        s = fst__modulation_new(g, err);
    if (s) {
        fst_synth_free(g);
        return s;
    }
    if (spec->kind == FST_SYNTH_LINK11) {
        fst__link11_tables(g);
        fst__emitters_draw(g->emitter, &g->spec.params, spec->seed);
        for (int i = 0; i < FST_EMITTERS; i++)
            fst__amplifier_build(&g->amplifier[i], &g->emitter[i], fst__link11_power());
    }
    *out = g;
    return FST_OK;
}

void fst_synth_free(fst_synth *g)
{
    if (!g)
        return;
    fst_free(g->rrc);
    fst_free(g);
}

/* ---- bursts ----------------------------------------------------------------------------------------- */

/* Each run of class_count bursts has every class once, in an order of its own. */
static int label_of(const fst_synth *g, uint64_t burst)
{
    uint32_t order[16];
    fst_rng r;
    uint64_t n = (uint64_t)g->class_count;
    for (uint32_t i = 0; i < n; i++)
        order[i] = i;
    fst_rng_init(&r, g->spec.seed, "burst.class", burst / n);
    fst_rng_shuffle_u32(&r, order, n);
    return (int)order[burst % n];
}

static double draw_in(fst_range range, uint64_t seed, const char *purpose, uint64_t index)
{
    fst_rng r;
    fst_rng_init(&r, seed, purpose, index);
    return range.min + (range.max - range.min) * fst_rng_uniform(&r);
}

void fst_synth_burst_at(const fst_synth *g, uint64_t burst, fst_synth_burst *out)
{
    const fst_synth_params *p = &g->spec.params;
    uint64_t seed = g->spec.seed;
    fst_synth_burst b = {.label = label_of(g, burst)};
    b.snr_db = draw_in((fst_range){g->spec.snr_min, g->spec.snr_max}, seed, "burst.snr", burst);
    fst__channel_draw(p, seed, burst, &b);
    double u = draw_in((fst_range){0, 1}, seed, "burst.start", burst);
    if (g->spec.kind == FST_SYNTH_MODULATION) {
        b.start = p->burst.timing ? u * FST_MODULATION_SPS : 0;
        b.frequency = draw_in(p->burst.frequency, seed, "burst.frequency", burst);
    } else {
        double bias = g->emitter[g->classes[b.label]].bias_ppm * p->burst.carrier_mhz; /* Hz */
        double head = FST_LINK11_HEAD_FRAMES * g->frame, range = p->burst.preamble ? head : g->frame;
        b.start = (p->burst.preamble ? 0 : head) + FST__BEFORE + (p->burst.timing ? u * range : 0);
        b.frequency = (draw_in(p->burst.doppler_hz, seed, "burst.frequency", burst) + bias) / FST_LINK11_RATE;
    }
    *out = b;
}

/* ---- windows ------------------------------------------------------------------------------------------ */

/* Clean signal to antenna: the modulator's faults, the oscillator, the amplifier. Turning commutes with the
 * amplifier, so Doppler, bias, carrier phase and phase noise are one rotation. */
static void link11_window(const fst_synth *g, uint64_t window, const fst_synth_burst *b, struct fst__scratch *s)
{
    uint64_t k = (uint64_t)g->spec.windows_per_burst, in_burst = window % k;
    int emitter = g->classes[b->label];
    const fst_emitter *e = &g->emitter[emitter];
    double rms = sqrt(fst__link11_power()), dc = rms * pow(10, e->dc_dbc / 20);
    double first = b->start + (double)in_burst * g->spec.params.burst.window - FST__BEFORE;
    struct fst__turn t = {.phase = b->carrier_phase, .frequency = b->frequency, .position = first};
    /* L(f) = D / (2 pi f)^2 for a walk of variance D rad^2/s: 10^(L/10) at 1 kHz */
    double walk = pow(10, e->phase_noise_dbc / 10) * pow(FST__TAU * 1000, 2) / FST_LINK11_RATE;
    t.noise_sd = sqrt(walk) / FST__TAU;
    fst_rng_init(&t.noise, g->spec.seed, "window.phase_noise", window);
    fst__link11_render(g, window / k, first, s->re, s->im, s->n);
    fst__imbalance(s->re, s->im, s->n, e->iq_gain_db, e->iq_phase_deg, dc * cos(e->dc_phase), dc * sin(e->dc_phase));
    fst__channel_turn(s, &t);
    fst__amplify(&g->amplifier[emitter], s->re, s->im, s->n);
}

static void modulation_window(const fst_synth *g, uint64_t window, const fst_synth_burst *b, struct fst__scratch *s)
{
    uint64_t in_burst = window % (uint64_t)g->spec.windows_per_burst;
    struct fst__turn t = {.phase = b->carrier_phase, .frequency = b->frequency};
    t.position = (double)in_burst * g->spec.params.burst.window;
    fst__modulation_render(g, g->classes[b->label], window, b->start, s);
    fst__channel_turn(s, &t);
}

struct fill {
    const fst_synth *g;
    uint64_t first;
    float *x, *snr;
    int32_t *labels;
    int64_t *burst;
    float *scratch;
    size_t scratch_each;
};

enum { SCRATCH_ARRAYS = 5 };

static void fill_one(void *ctx, int worker, size_t job)
{
    struct fill *f = ctx;
    const fst_synth *g = f->g;
    uint64_t window = f->first + job, burst = window / (uint64_t)g->spec.windows_per_burst;
    size_t n = (size_t)g->spec.params.burst.window, each = f->scratch_each / SCRATCH_ARRAYS;
    float *at = f->scratch + (size_t)worker * f->scratch_each;
    struct fst__scratch s = {n + FST__LEAD, at, at + each, at + 2 * each, at + 3 * each, at + 4 * each};
    fst_synth_burst b;
    fst_rng noise;
    fst_synth_burst_at(g, burst, &b);
    fst_rng_init(&noise, g->spec.seed, "window.noise", window);
    if (g->spec.kind == FST_SYNTH_LINK11)
        link11_window(g, window, &b, &s);
    else
        modulation_window(g, window, &b, &s);
    fst__channel_apply(&s, &g->spec.params, &b, &noise, f->x + job * 2 * n);
    if (f->labels)
        f->labels[job] = b.label;
    if (f->snr)
        f->snr[job] = (float)b.snr_db;
    if (f->burst)
        f->burst[job] = (int64_t)burst;
}

fst_status fst_synth_fill(const fst_synth *g, fst_pool *pool, uint64_t first, size_t count, float *x, int32_t *labels,
                          float *snr, int64_t *burst, fst_error *err)
{
    size_t threads = pool ? (size_t)fst_pool_threads(pool) : 1;
    size_t each = ((size_t)g->spec.params.burst.window + FST__LEAD + 31) / 16 * 16 * SCRATCH_ARRAYS;
    struct fill f = {g, first, x, snr, labels, burst, NULL, each};
    if (first > INT64_MAX - count)
        return fst_fail(err, FST_E_ARGUMENT, "there are no windows from %llu on", (unsigned long long)first);
    f.scratch = fst_alloc(threads * each * sizeof *f.scratch);
    if (!f.scratch)
        return fst_fail_memory(err, threads * each * sizeof *f.scratch);
    if (pool)
        fst_pool_run(pool, fill_one, &f, count);
    for (size_t i = 0; !pool && i < count; i++)
        fill_one(&f, 0, i);
    fst_free(f.scratch);
    return FST_OK;
}

/* synth_private.h - what the files of the generators share: kernels over blocks of samples, the draws of a burst, and
 * the scratch memory of one worker. Signals are two arrays of floats, I and Q. */
#ifndef FEDSTILL_DATA_SYNTH_PRIVATE_H
#define FEDSTILL_DATA_SYNTH_PRIVATE_H

#include "fedstill/synth.h"

/* Elementwise loops for the processor at hand. The compiler may not contract or reorder, so all clones give the
 * same bits. */
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(FST_NO_MULTIVERSION)
#define FST__CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define FST__CLONES
#endif

#define FST__TAU 6.283185307179586477

/* The channel's filter has a delay of its own, CENTRE; so of the LEAD samples that a window needs besides its own,
 * BEFORE lie before its first one. */
enum { FST__TAPS = 24, FST__LEAD = 24, FST__CENTRE = 8, FST__BEFORE = FST__LEAD - FST__CENTRE, FST__MAX_DELAY = 7 };
/* A frame's longest table: 211.2 samples and one. */
enum { FST__FRAME_MOST = 216 };

/* ---- kernels.c: block arithmetic -------------------------------------------------------------- */

/* n normals (mean 0, standard deviation 1, at most 5.9) from the rest of stream r. */
void fst__normals(fst_rng *r, float *out, size_t n);
/* c + i s = exp(2 pi i turns), |turns| up to about 1000. */
void fst__phasors(const float *turns, float *c, float *s, size_t n);
/* y = filter h over x: y[i] = sum_k h[k] x[i + LEAD - k] */
void fst__filter(const float *xr, const float *xi, float *yr, float *yi, size_t n, const float h[FST__TAPS][2]);
double fst__power(const float *re, const float *im, size_t n); /* mean |x|^2 */

/* ---- emitter.c --------------------------------------------------------------------------------- */

/* Gain of an amplifier by |x|^2: complex, linear between entries. */
enum { FST__PA_STEPS = 1024 };
struct fst__amplifier {
    float scale; /* steps by unit of power */
    float gain[FST__PA_STEPS + 2][2];
};
void fst__emitters_draw(fst_emitter e[FST_EMITTERS], const fst_synth_params *p, uint64_t seed);
/* power_in: mean power of the signal that will come in. */
void fst__amplifier_build(struct fst__amplifier *a, const fst_emitter *e, double power_in);
void fst__amplify(const struct fst__amplifier *a, float *re, float *im, size_t n);
/* IQ imbalance y = a x + b conj(x), then an offset. */
void fst__imbalance(float *re, float *im, size_t n, double gain_db, double phase_deg, double dc_re, double dc_im);

/* ---- channel.c ----------------------------------------------------------------------------------- */

/* Turns by cycles a sample and, for noise_sd > 0 (turns a sample), a random walk. `position` is the first sample's. */
struct fst__turn {
    double phase, frequency, position, noise_sd;
    fst_rng noise;
};
void fst__channel_draw(const fst_synth_params *p, uint64_t seed, uint64_t burst, fst_synth_burst *b);

struct fst__scratch {
    size_t n; /* window + LEAD */
    float *re, *im, *a, *b, *c;
};
/* turn applied to s->re, s->im (n samples). */
void fst__channel_turn(struct fst__scratch *s, struct fst__turn *t);
/* s->re, s->im (n) through multipath, noise and receiver to x (2, window). */
void fst__channel_apply(struct fst__scratch *s, const fst_synth_params *p, const fst_synth_burst *b, fst_rng *noise,
                        float *x);

/* ---- the generator --------------------------------------------------------------------------------- */

struct fst_synth {
    fst_synth_spec spec;
    int classes[16], class_count;
    /* link11 */
    fst_emitter emitter[FST_EMITTERS];
    struct fst__amplifier amplifier[FST_EMITTERS];
    float tone[FST_LINK11_TONES][2][FST__FRAME_MOST];
    double frame; /* samples */
    /* modulation */
    float *rrc; /* taps */
};

/* link11.c: the mean power of data frames, and the ideal signal at samples first ... first+n-1 of a burst. */
double fst__link11_power(void);
void fst__link11_tables(fst_synth *g);
void fst__link11_render(const fst_synth *g, uint64_t burst, double first, float *re, float *im, size_t n);

/* modulation.c: window + LEAD samples of a modulation into s->re, s->im, mean power 1. */
FST_MUST fst_status fst__modulation_new(fst_synth *g, fst_error *err);
void fst__modulation_render(const fst_synth *g, int modulation, uint64_t window, double timing, struct fst__scratch *s);

#endif

/*
 * fedstill/synth.h - synthetic radio signals with labels: Link-11 CLEW bursts of seven emitters that differ by the
 * faults of their transmitters alone, and eleven modulations. Part of layer data.
 *
 * Everything is drawn from named streams (seed, purpose, burst or emitter or window): a window depends on seed,
 * parameters and its own number, never on threads, on order or on how many windows are asked for. Bytes are the same
 * on one machine; another C library may round a sine differently in its last bit.
 *
 * docs/signals.md says what the waveform is, what was chosen where its descriptions leave room, and what was measured.
 */
#ifndef FEDSTILL_SYNTH_H
#define FEDSTILL_SYNTH_H

#include "fedstill/base.h"

FST_BEGIN_DECLS

typedef enum fst_synth_kind {
    FST_SYNTH_LINK11,    /* 7 emitters, 9,600 samples/s */
    FST_SYNTH_MODULATION /* 11 modulations, 8 samples a symbol; sample rate 1 by convention */
} fst_synth_kind;

/* ---- parameters ----------------------------------------------------------------------------- */

typedef struct fst_range {
    double min, max;
} fst_range;

enum { FST_SYNTH_TAPS = 8, FST_SYNTH_MAX_WINDOW = 65536, FST_SYNTH_MAX_WINDOWS_PER_BURST = 1024 };
typedef struct fst_synth_list {
    int count;
    double value[FST_SYNTH_TAPS];
} fst_synth_list;

typedef enum fst_synth_pa {
    FST_PA_RAPP,  /* AM/AM only: r / (1 + (r/s)^2p)^(1/2p), Rapp 1991 */
    FST_PA_SALEH, /* AM/AM and AM/PM, Saleh 1981; saturates at r = 1/sqrt(1.1517) */
    FST_PA_MIXED  /* one airframe type (drawn) has Saleh's, the others Rapp's */
} fst_synth_pa;

/* Names in parameter files are GROUP.MEMBER of this struct, ranges being lists [min, max]. src/data/synth/params.c
 * holds defaults, limits and meanings in one table, which docs/signals.md repeats. */
typedef struct fst_synth_params {
    struct {                       /* link11: what identifies an emitter; fixed, from the seed */
        fst_range iq_gain_db;      /* IQ imbalance of the modulator: gain */
        fst_range iq_phase_deg;    /* and phase */
        fst_range dc_dbc;          /* carrier leak under the mean signal power */
        fst_range rapp_p;          /* Rapp's smoothness */
        fst_range backoff_db;      /* mean power below saturation, at the amplifier's input */
        double saleh_spread;       /* Saleh's four numbers vary by +- this share */
        fst_range bias_ppm;        /* of the oscillator */
        fst_range phase_noise_dbc; /* dBc/Hz at 1 kHz from the carrier; falls by 20 dB a decade */
        int amplifier;             /* fst_synth_pa */
        double within; /* width of an airframe type's emitters, as a share of each range; types are 1/3 apart */
    } emitters;
    struct {                    /* what must not identify it; drawn for each burst */
        int window;             /* complex samples a window */
        bool fast;              /* link11: 75 frames/s, else 45.45 */
        bool preamble;          /* link11: a burst's first window may start in the preamble */
        fst_range doppler_hz;   /* link11 */
        double carrier_mhz;     /* link11: turns bias_ppm into Hz */
        fst_range frequency;    /* modulation: offset in cycles a sample */
        bool carrier_phase;     /* a random one; false: 0 */
        bool timing;            /* a random fraction of a frame, of a symbol; false: 0 */
        fst_range gain_db;      /* of the receiver; shows only where windows are not normalised */
        double rx_iq_gain_db;   /* receiver's own imbalance: +- this */
        double rx_iq_phase_deg; /* +- this */
        bool normalise;         /* every window to mean |x|^2 = 1 */
    } burst;
    struct {
        bool multipath;           /* false: one clear path */
        fst_synth_list delays;    /* of the Rayleigh taps, samples */
        fst_synth_list powers_db; /* of the taps; scaled to 1 in sum */
        double line_of_sight_db;  /* steady path at the first delay over all the taps together */
    } channel;
    struct {                 /* modulation */
        double rolloff;      /* of the root raised cosine */
        double gfsk_bt;      /* Gauss filter's bandwidth times symbol */
        double index;        /* GFSK, CPFSK: frequency deviation, cycles a symbol between the two tones */
        double bandwidth;    /* AM, FM: of the message, cycles a sample */
        double am_depth;     /* AM-DSB: standard deviation of the envelope over the carrier */
        double fm_deviation; /* FM: standard deviation of the frequency, cycles a sample */
    } modulation;
} fst_synth_params;

FST_API void fst_synth_params_default(fst_synth_params *p, fst_synth_kind kind);
/* Reads a JSON object of groups over what p holds. Unknown keys, wrong types and values out of range are
 * FST_E_CONFIG and name file, key and what is accepted; then p is untouched. */
FST_MUST FST_API fst_status fst_synth_params_read(fst_synth_params *p, fst_synth_kind kind, const char *path,
                                                  fst_error *err);
FST_MUST FST_API fst_status fst_synth_params_parse(fst_synth_params *p, fst_synth_kind kind, const char *name,
                                                   const char *text, size_t len, fst_error *err);
/* Appends all parameters of the kind as one line of JSON that _parse reads back exactly. */
FST_MUST FST_API fst_status fst_synth_params_json(const fst_synth_params *p, fst_synth_kind kind, fst_buf *out,
                                                  fst_error *err);

/* ---- generators ------------------------------------------------------------------------------- */

typedef struct fst_synth_spec {
    fst_synth_kind kind;
    fst_synth_params params;
    uint64_t seed;
    int windows_per_burst;   /* 0: 4 */
    double snr_min, snr_max; /* dB, uniform, one for each burst; see fst_synth_fill */
    const int *classes;      /* which of the kind's classes occur, in this order as labels 0 ...; NULL: all.
                              * A class's signals do not depend on it */
    int class_count;
} fst_synth_spec;

typedef struct fst_synth fst_synth;
FST_MUST FST_API fst_status fst_synth_new(fst_synth **out, const fst_synth_spec *spec, fst_error *err);
FST_API void fst_synth_free(fst_synth *g);

/* Names of all classes of a kind, NULL-terminated. */
FST_API const char *const *fst_synth_names(fst_synth_kind kind);
FST_API const char *fst_synth_kind_name(fst_synth_kind kind); /* "link11", "modulation" */
FST_API int fst_synth_classes(const fst_synth *g);
FST_API const char *fst_synth_class_name(const fst_synth *g, int label);
FST_API const fst_synth_spec *fst_synth_spec_of(const fst_synth *g); /* classes NULL when all */
FST_API double fst_synth_sample_rate(const fst_synth *g);

/*
 * Makes windows first ... first+count-1. x: count x (2, window), I then Q; labels, snr (dB) and burst: count each, and
 * may be NULL. SNR is the mean power of the window as it arrives over the noise's, which is white over the whole
 * sample rate, before the receiver's own imbalance. Window w belongs to burst w / windows_per_burst; in every run of
 * as many bursts as there are classes each class has one. The pool's threads share the work (NULL: this one).
 */
FST_MUST FST_API fst_status fst_synth_fill(const fst_synth *g, fst_pool *pool, uint64_t first, size_t count, float *x,
                                           int32_t *labels, float *snr, int64_t *burst, fst_error *err);

/* ---- what is behind a window --------------------------------------------------------------------- */

enum { FST_EMITTERS = 7, FST_EMITTER_TRAITS = 11 };
typedef struct fst_emitter {
    const char *name; /* "E-2D_1" */
    int type;         /* 0 E-2D, 1 P-3C, 2 P-8A */
    double iq_gain_db, iq_phase_deg;
    double dc_dbc, dc_phase;             /* radians */
    fst_synth_pa amplifier;              /* RAPP or SALEH */
    double backoff_db, rapp_p, saleh[4]; /* alpha_a, beta_a, alpha_phi, beta_phi */
    double bias_ppm, phase_noise_dbc;
    double place[FST_EMITTER_TRAITS]; /* where each trait lies in its range, 0 ... 1 */
} fst_emitter;
/* Emitter `i` of seed and parameters, 0 ... FST_EMITTERS-1. Link-11 only. */
FST_API const fst_emitter *fst_synth_emitter(const fst_synth *g, int i);

typedef struct fst_synth_burst {
    int label;
    double snr_db;
    double start;         /* position of the first window's first sample: samples after the burst's begin */
    double frequency;     /* Doppler and bias, cycles a sample */
    double carrier_phase; /* cycles */
    double gain_db, rx_iq_gain_db, rx_iq_phase_deg;
    double tap[FST_SYNTH_TAPS + 1][2]; /* line of sight, then the taps */
} fst_synth_burst;
FST_API void fst_synth_burst_at(const fst_synth *g, uint64_t burst, fst_synth_burst *out);

/* ---- Link-11 --------------------------------------------------------------------------------------- */

enum { FST_LINK11_TONES = 16, FST_LINK11_RATE = 9600, FST_LINK11_HEAD_FRAMES = 8, FST_LINK11_MAX_WORDS = 128 };
extern FST_API const double fst_link11_tones[FST_LINK11_TONES]; /* Hz; the first is the Doppler tone */

/* 24 data bits (bit 0 first) to 30 with 6 check bits after them: a Hamming code of distance 4, shortened from
 * (32, 26). _decode corrects one wrong bit; false when there are two (or more, as far as they are seen). */
FST_API uint32_t fst_link11_encode(uint32_t data);
FST_API bool fst_link11_decode(uint32_t word, uint32_t *data);
/* The 30-bit words that a burst's frames carry, start and stop code included: word i is in frame
 * FST_LINK11_HEAD_FRAMES - 2 + i. Returns how many the burst has; writes at most `size`. Words between the
 * codes are code words of random data. */
FST_API size_t fst_link11_words(const fst_synth *g, uint64_t burst, uint32_t *words, size_t size);

typedef struct fst_link11_demodulated {
    double frequency;   /* offset found from the Doppler tone, Hz */
    double first_frame; /* where the first whole frame begins, samples (to about an eighth of a frame) */
    double quality;     /* 1: all phase steps where pi/4-DQPSK has them, 0: noise */
    size_t count;       /* words: one less than there are whole frames */
    uint32_t word[FST_LINK11_MAX_WORDS]; /* word i: step from whole frame i to i+1 */
} fst_link11_demodulated;
/* Blind differential demodulation of fast frames (75 a second): x is (2, n), at least three frames long. Finds
 * offsets of up to +-160 Hz and any timing; corrects no bits. Needs data frames: over a preamble it finds noise. */
FST_MUST FST_API fst_status fst_link11_demodulate(const float *x, size_t n, fst_link11_demodulated *out,
                                                  fst_error *err);

/* ---- modulations --------------------------------------------------------------------------------------- */

enum { FST_MODULATION_SPS = 8, FST_MODULATION_POINTS = 64 };
/* The constellation of a modulation (index into fst_synth_names), mean power 1, as {I, Q}; returns the number of
 * points, 0 for those without one (GFSK, CPFSK, AM, FM). */
FST_API int fst_modulation_constellation(int modulation, double points[FST_MODULATION_POINTS][2]);

/* ---- files --------------------------------------------------------------------------------------------- */

typedef enum fst_synth_format { FST_SYNTH_SAFETENSORS, FST_SYNTH_NPZ, FST_SYNTH_SIGMF } fst_synth_format;
/* "safetensors", "npz", "sigmf"; or by the ending of a path (.sigmf, .sigmf-meta, .sigmf-data). */
FST_API bool fst_synth_format_parse(const char *name, fst_synth_format *out);
FST_API bool fst_synth_format_guess(const char *path, fst_synth_format *out);
/* Whether fst_synth_write would replace a file. */
FST_API bool fst_synth_exists(const char *path, fst_synth_format format);

/* Called now and then; false stops with FST_E_CANCELLED. */
typedef bool (*fst_synth_progress_fn)(void *ctx, uint64_t done, uint64_t total);

/*
 * Writes windows first ... first+count-1 to a file that appears whole or not at all (SigMF: the data file, then
 * the meta file), a few MB at a time. docs/formats.md has the formats ("fedstill-data-1").
 */
FST_MUST FST_API fst_status fst_synth_write(const fst_synth *g, fst_pool *pool, uint64_t first, uint64_t count,
                                            const char *path, fst_synth_format format, fst_synth_progress_fn progress,
                                            void *ctx, fst_error *err);

FST_END_DECLS

#endif

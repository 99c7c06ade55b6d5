/*
 * Transmitters: who has which faults, and what the faults do to a signal. Faults are places in ranges: each airframe
 * type takes one third of a range, its emitters lie around the middle of that third. Which type has the middle third
 * goes round from trait to trait, the seed draws where that begins and which of the others is below. So every seed has
 * types far apart and their emitters close together.
 */
#include <math.h>
#include <string.h>

#include "synth_private.h"

enum { IQ_GAIN, IQ_PHASE, DC, BACKOFF, RAPP_P, SALEH, BIAS = SALEH + 4, PHASE_NOISE, TYPES = 3 };
_Static_assert(PHASE_NOISE + 1 == FST_EMITTER_TRAITS, "a place a trait");

static const struct {
    const char *name;
    int type;
} who[FST_EMITTERS] = {{"E-2D_1", 0}, {"E-2D_2", 0}, {"P-3C_1", 1}, {"P-3C_2", 1},
                       {"P-8A_1", 2}, {"P-8A_2", 2}, {"P-8A_3", 2}};
static const uint32_t members[TYPES] = {2, 2, 3};
static const double saleh[4] = {2.1587, 1.1517, 4.0033, 9.1040};

static void order(uint32_t *a, uint32_t n, uint64_t seed, const char *purpose, uint64_t index)
{
    fst_rng r;
    fst_rng_init(&r, seed, purpose, index);
    for (uint32_t i = 0; i < n; i++)
        a[i] = i;
    fst_rng_shuffle_u32(&r, a, n);
}

/* Which third of the range of trait t each type has. */
static void thirds(uint32_t third[TYPES], int t, uint64_t seed)
{
    fst_rng first, side;
    fst_rng_init(&first, seed, "emitter.middle", 0);
    fst_rng_init(&side, seed, "emitter.side", (uint64_t)t);
    uint32_t middle = (uint32_t)((fst_rng_below(&first, TYPES) + (uint64_t)t) % TYPES), low = fst_rng_u32(&side) & 1;
    third[middle] = 1;
    third[(middle + 1) % TYPES] = low ? 0 : 2;
    third[(middle + 2) % TYPES] = low ? 2 : 0;
}

/* Where trait `t` of all emitters lies. */
static void places(fst_emitter e[FST_EMITTERS], int t, double within, uint64_t seed)
{
    uint32_t third[TYPES], step[TYPES];
    thirds(third, t, seed);
    for (int i = 0, k = 0; i < FST_EMITTERS; i++, k++) {
        int type = who[i].type;
        if (i == 0 || type != who[i - 1].type) {
            k = 0;
            order(step, members[type], seed, "emitter.member", (uint64_t)t * TYPES + (uint64_t)type);
        }
        e[i].place[t] = (third[type] + 0.5) / TYPES + within * ((double)step[k] / (members[type] - 1) - 0.5);
    }
}

static double in(fst_range r, double place)
{
    return r.min + (r.max - r.min) * place;
}

void fst__emitters_draw(fst_emitter e[FST_EMITTERS], const fst_synth_params *p, uint64_t seed)
{
    uint32_t type[TYPES];
    memset(e, 0, FST_EMITTERS * sizeof *e);
    for (int t = 0; t < FST_EMITTER_TRAITS; t++)
        places(e, t, p->emitters.within, seed);
    order(type, TYPES, seed, "emitter.amplifier", 0);
    for (int i = 0; i < FST_EMITTERS; i++) {
        fst_rng r;
        const double *at = e[i].place;
        fst_rng_init(&r, seed, "emitter.dc_phase", (uint64_t)i);
        e[i].name = who[i].name;
        e[i].type = who[i].type;
        e[i].iq_gain_db = in(p->emitters.iq_gain_db, at[IQ_GAIN]);
        e[i].iq_phase_deg = in(p->emitters.iq_phase_deg, at[IQ_PHASE]);
        e[i].dc_dbc = in(p->emitters.dc_dbc, at[DC]);
        e[i].dc_phase = FST__TAU * fst_rng_uniform(&r);
        e[i].backoff_db = in(p->emitters.backoff_db, at[BACKOFF]);
        e[i].rapp_p = in(p->emitters.rapp_p, at[RAPP_P]);
        e[i].bias_ppm = in(p->emitters.bias_ppm, at[BIAS]);
        e[i].phase_noise_dbc = in(p->emitters.phase_noise_dbc, at[PHASE_NOISE]);
        for (int k = 0; k < 4; k++)
            e[i].saleh[k] = saleh[k] * (1 + p->emitters.saleh_spread * (2 * at[SALEH + k] - 1));
        e[i].amplifier = (fst_synth_pa)p->emitters.amplifier;
        if (e[i].amplifier == FST_PA_MIXED)
            e[i].amplifier = type[e[i].type] == 0 ? FST_PA_SALEH : FST_PA_RAPP;
    }
}

/* ---- the amplifier -------------------------------------------------------------------------------- */

/* Gain at input amplitude r, saturation being at 1. */
static void gain_at(const fst_emitter *e, double r, double out[2])
{
    if (e->amplifier == FST_PA_RAPP) {
        out[0] = pow(1 + pow(r, 2 * e->rapp_p), -0.5 / e->rapp_p);
        out[1] = 0;
        return;
    }
    double q = r * r / e->saleh[1]; /* A(r) is largest at r^2 = 1/beta_a */
    double g = e->saleh[0] / (1 + e->saleh[1] * q), phi = e->saleh[2] * q / (1 + e->saleh[3] * q);
    out[0] = g * cos(phi);
    out[1] = g * sin(phi);
}

void fst__amplifier_build(struct fst__amplifier *a, const fst_emitter *e, double power_in)
{
    double most = 24 * power_in; /* 16 tones never add up to more; what is above gets the last entry */
    double drive = pow(10, -e->backoff_db / 10) / power_in;
    a->scale = (float)(FST__PA_STEPS / most);
    for (int i = 0; i < FST__PA_STEPS + 2; i++) {
        double g[2];
        gain_at(e, sqrt(drive * most * i / FST__PA_STEPS), g);
        a->gain[i][0] = (float)g[0];
        a->gain[i][1] = (float)g[1];
    }
}

void fst__amplify(const struct fst__amplifier *a, float *re, float *im, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float x = re[i], y = im[i], u = (x * x + y * y) * a->scale;
        u = u < FST__PA_STEPS ? u : FST__PA_STEPS;
        int k = (int)u;
        float f = u - (float)k;
        float gr = a->gain[k][0] + f * (a->gain[k + 1][0] - a->gain[k][0]);
        float gi = a->gain[k][1] + f * (a->gain[k + 1][1] - a->gain[k][1]);
        re[i] = gr * x - gi * y;
        im[i] = gr * y + gi * x;
    }
}

FST__CLONES static void affine(float *re, float *im, size_t n, const float m[6])
{
    for (size_t i = 0; i < n; i++) {
        float x = re[i], y = im[i];
        re[i] = m[0] * x + m[1] * y + m[4];
        im[i] = m[2] * x + m[3] * y + m[5];
    }
}

void fst__imbalance(float *re, float *im, size_t n, double gain_db, double phase_deg, double dc_re, double dc_im)
{
    double g = pow(10, gain_db / 20), phi = phase_deg * FST__TAU / 360;
    double ar = (1 + g * cos(phi)) / 2, ai = -g * sin(phi) / 2; /* a = (1 + g e^-j phi) / 2 */
    double br = (1 - g * cos(phi)) / 2, bi = -g * sin(phi) / 2; /* b = (1 - g e^j phi) / 2 */
    float m[6] = {(float)(ar + br), (float)(bi - ai), (float)(ai + bi), (float)(ar - br), (float)dc_re, (float)dc_im};
    affine(re, im, n, m);
}

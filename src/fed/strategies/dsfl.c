/* DS-FL (Itahara et al., Distillation-based semi-supervised federated learning, IEEE TMC 2023). Every client has a
 * model of its own. A round is: fit the shared probabilities of the last round on its public samples, by cross entropy;
 * train on the client's own samples; send the probabilities of this round's public samples. The server shares their
 * mean over the clients, each counting the same, made sharper ("entropy reduction aggregation"), because the mean of
 * clients that each know a few classes is flat.
 *
 * Data flow: consensus.c, whose mean goes through fst_dsfl_sharpen row by row. The paper's server also trains a model
 * on what it shares, for use at the server; no client ever sees that, and it is left out here. */
#include <math.h>

#include "fed_private.h"

enum { SHARPEN = FST__PUBLIC_OPTIONS, TEMPERATURE, BETA };
enum { NO_SHARPENING = FST_SHARPEN_ENHANCED_ERA + 1 };
static const char *const sharpenings[] = {"era", "enhanced_era", "none", NULL};
static const fst_option options[] = {
    [FST__PUBLIC_SAMPLES] = FST__OPTION_PUBLIC_SAMPLES,
    [FST__DIGEST_EPOCHS] = FST__OPTION_DIGEST_EPOCHS,
    [SHARPEN] = {"sharpen", FST_OPTION_CHOICE, .choices = sharpenings,
                 .help = "of the mean p: softmax(p / sharpen_temperature), p^sharpen_beta, or as it is"},
    [TEMPERATURE] = {"sharpen_temperature", FST_OPTION_NUMBER, .fallback = 0.1, .above = true, .max = 1000,
                     .with = "sharpen", .choice = "era", .help = "of era; small is sharper"},
    [BETA] = {"sharpen_beta", FST_OPTION_NUMBER, .fallback = 2, .above = true, .max = 1000, .with = "sharpen",
              .choice = "enhanced_era", .help = "of enhanced_era; large is sharper, 1 changes nothing"},
    {0},
};

/* ---- the server's half ---- */

static fst_status sharpen(const struct fst__consensus *c, float *row, size_t rows, fst_error *err)
{
    const double *o = c->base.option;
    fst_sharpen how = (fst_sharpen)o[SHARPEN];
    if ((int)o[SHARPEN] == NO_SHARPENING)
        return FST_OK;
    return fst_dsfl_sharpen(how, o[how == FST_SHARPEN_ERA ? TEMPERATURE : BETA], row, rows, (int)c->classes, row, err);
}

static fst_status dsfl_init(fst_strategy *s, fst_error *err)
{
    struct fst__consensus *c = (struct fst__consensus *)s;
    c->shape = sharpen;
    return fst__consensus_init(c, "probabilities", err);
}

static fst_status check_row(const float *p, size_t classes, size_t row, fst_error *err)
{
    double mass = 0;
    for (size_t j = 0; j < classes; j++) {
        if (!(p[j] >= 0 && p[j] <= 1.0001f))
            return fst_fail(err, FST_E_NUMERIC, "row %zu, class %zu: %g is no probability", row, j, (double)p[j]);
        mass += (double)p[j];
    }
    if (fabs(mass - 1) > 1e-3)
        return fst_fail(err, FST_E_NUMERIC, "row %zu: the probabilities add up to %g, not to 1", row, mass);
    return FST_OK;
}

static fst_status dsfl_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    const struct fst__consensus *c = (const struct fst__consensus *)s;
    const void *x = NULL;
    fst_status st = fst__check_public(s->env.pub, m, err);
    if (!st)
        st = fst_message_get(m, c->name, FST_F32, FST_SHAPE((int64_t)c->rows, (int64_t)c->classes), &x, err);
    for (size_t r = 0; !st && r < c->rows; r++)
        st = check_row((const float *)x + r * c->classes, c->classes, r, err);
    return st ? st : fst__consensus_fold(s, m, err);
}

static const fst_server_ops server = {
    .bytes = sizeof(struct fst__consensus),
    .init = dsfl_init,
    .release = fst__consensus_release,
    .begin = fst__consensus_begin,
    .down = fst__consensus_down,
    .fold = dsfl_fold,
    .aggregate = fst__consensus_aggregate,
    .save = fst__consensus_save,
    .load = fst__consensus_load,
};

/* ---- the client's half ---- */

static fst_status learn(struct fst__public_half *p, const fst_message *down, fst_error *err)
{
    return down->base ? fst__public_digest(p, down, "probabilities", &fst__fit_probabilities, err) : FST_OK;
}

static fst_status dsfl_work(fst_client_half *c, const fst_message *down, fst_message *up, fst_error *err)
{
    struct fst__public_half *p = (struct fst__public_half *)c;
    size_t n = 0;
    fst_status st = fst__public_round(p, down, learn, up, &n, err);
    if (st)
        return st;
    fst_softmax(p->out, n, c->env->classes, 1, p->out);
    return fst__public_send(p, "probabilities", n, up, err);
}

static const fst_client_ops client = {
    .bytes = sizeof(struct fst__public_half), .release = fst__public_release, .work = dsfl_work};

static const fst_predictions predicts = {
    .name = "probabilities", .noun = "probabilities", .probabilities = true, .shared = fst__consensus_shared};

const fst_strategy_ops fst__dsfl = {
    .name = "dsfl",
    .summary = "different models learn from the sharpened mean of their probabilities on public samples",
    .leaks = "The server sees every client's probabilities of the public samples, which tell of the labels that the "
             "client holds and whether a public sample resembles its own.",
    .options = options,
    .flags = FST_OWN_MODEL | FST_PUBLIC_DATA,
    .predicts = &predicts,
    .server = FST__HALF(&server),
    .client = FST__HALF(&client),
};

/* FedDF (Lin et al., Ensemble distillation for robust model fusion in federated learning, NeurIPS 2020): the clients'
 * mean model, weighted by samples, is only where the server starts. It then learns KL(softmax(mean logits) || student)
 * on public samples, the mean being over the clients' models, each counting the same; labels are not looked at. Adam,
 * its rate falling along a cosine to 0; with patience, the best student on a tenth of the public samples that it does
 * not learn from.
 *
 * Data flow: fold: a client's state -> logits of the round's public samples -> exact sum, and -> mean state. aggregate:
 * mean state -> student, sum -> targets; steps; student -> shared model. The logits are made as updates arrive, so that
 * the server holds one client's model at a time. */
#include <math.h>
#include <string.h>

#include "distiller.h"

enum { PUBLIC_SAMPLES, STEPS, BATCH, RATE, PATIENCE };
enum { CHECK_EVERY = 25 };
static const fst_option options[] = {
    [PUBLIC_SAMPLES] = FST__OPTION_PUBLIC_SAMPLES,
    [STEPS] = {"distil_steps", FST_OPTION_WHOLE, .fallback = 1000, .min = 1, .max = 1e7,
               .help = "of the server in a round, at most"},
    [BATCH] = {"distil_batch_size", FST_OPTION_WHOLE, .fallback = 128, .min = 1, .max = 65536,
               .help = "public samples in a step of the server"},
    [RATE] = {"distil_learning_rate", FST_OPTION_NUMBER, .fallback = 0.001, .above = true, .max = 1000,
              .help = "of the server's Adam, falling along a cosine to 0"},
    [PATIENCE] = {"distil_patience", FST_OPTION_WHOLE, .fallback = 200, .max = 1e7,
                  .help =
                      "steps that do not help on a tenth of the public samples, kept apart, before the server ends; "
                      "0: all steps, nothing kept apart"},
    {0},
};

struct feddf {
    struct fst__averaging base;
    struct fst__distiller by;
    fst_accumulator sum; /* rows x classes: of logits */
    float *logits;       /* rows x classes */
    float *target;       /* rows x classes: probabilities */
    double *log_p;       /* classes */
    uint32_t *row;       /* of the drawn public samples, those kept apart first; room for all */
    fst_fed_state student, best;
};

static struct feddf *of(fst_strategy *s)
{
    return (struct feddf *)s;
}

/* ---- setting up ---- */

static fst_status make_arrays(struct feddf *f, fst_error *err)
{
    const fst_strategy *s = &f->base.base;
    size_t n = f->by.spec.rows * f->by.classes, all = s->env.pub->count;
    fst_status st = fst_accumulator_init(&f->sum, n, err);
    f->logits = fst_calloc(n, sizeof *f->logits);
    f->target = fst_calloc(n, sizeof *f->target);
    f->log_p = fst_calloc(f->by.classes, sizeof *f->log_p);
    f->row = fst_calloc(all, sizeof *f->row);
    if (!st && !(f->logits && f->target && f->log_p && f->row))
        st = fst_fail_memory(err, 2 * n * sizeof *f->logits);
    if (!st)
        st = fst_fed_state_init(&f->student, s->env.global->size, err);
    return st ? st : fst_fed_state_init(&f->best, s->env.global->size, err);
}

static fst_status feddf_init(fst_strategy *s, fst_error *err)
{
    struct feddf *f = of(s);
    size_t want = (size_t)s->option[PUBLIC_SAMPLES], all = s->env.pub->count;
    fst_rng order;
    fst_rng_init(&order, s->env.seed, "feddf.batches", 0);
    struct fst__distiller_spec spec = {.rows = want && want < all ? want : all,
                                       .batch = (size_t)s->option[BATCH],
                                       .rate = s->option[RATE],
                                       .form = FST_KD_KL,
                                       .seed = fst_rng_u64(&order)};
    if (s->option[PATIENCE] > 0 && spec.rows > 1)
        spec.apart = spec.rows < 20 ? 1 : spec.rows / 10;
    fst_status st = fst__averaging_init(s, err);
    if (!st)
        st = fst__distiller_init(&f->by, &s->env, &spec, err);
    return st ? st : make_arrays(f, err);
}

static void feddf_release(fst_strategy *s)
{
    struct feddf *f = of(s);
    fst__averaging_release(s);
    fst__distiller_release(&f->by);
    fst_accumulator_release(&f->sum);
    fst_free(f->logits);
    fst_free(f->target);
    fst_free(f->log_p);
    fst_free(f->row);
    fst_fed_state_release(&f->student);
    fst_fed_state_release(&f->best);
}

/* ---- a round ---- */

static void feddf_begin(fst_strategy *s, uint64_t round)
{
    struct feddf *f = of(s);
    fst_rng rng;
    fst__averaging_begin(s, round);
    fst_accumulator_clear(&f->sum);
    (void)fst_public_draw(s->env.pub, s->env.seed, round, f->by.spec.rows, f->row);
    fst_rng_init(&rng, s->env.seed, "feddf.apart", round);
    fst_rng_shuffle_u32(&rng, f->row, f->by.spec.rows);
    fst__distiller_draw(&f->by, f->row);
}

static fst_status feddf_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct feddf *f = of(s);
    fst_fed_view v;
    fst_status st = fst_message_state(m, s->env.global->size, &v, err);
    if (st)
        return st;
    fst_fed_state_copy(&f->student, &v);
    st = fst__distiller_logits(&f->by, false, &f->student, f->logits, err);
    if (!st)
        st = fst_accumulator_check(f->logits, f->sum.count, err);
    if (st)
        return fst_fail_in(err, st, "logits of the public samples");
    st = fst__averaging_fold(s, m, err);
    return st ? st : fst_accumulator_add(&f->sum, f->logits, 1, err);
}

/* Mean KL(target || student) over the samples kept apart. */
static fst_status check(struct feddf *f, double *loss, fst_error *err)
{
    size_t classes = f->by.classes, apart = f->by.spec.apart;
    fst_status st = fst__distiller_logits(&f->by, true, &f->student, f->logits, err);
    *loss = 0;
    for (size_t i = 0; !st && i < apart * classes; i++) {
        double q = (double)f->target[i];
        if (i % classes == 0)
            fst_log_softmax(f->logits + i, (int)classes, 1, f->log_p);
        if (q > 0)
            *loss += q * (log(q) - f->log_p[i % classes]) / (double)apart;
    }
    return st;
}

/* The student learns from the targets; with samples kept apart the best one is in `best` afterwards. */
static fst_status distil(struct feddf *f, const fst_work *work, fst_error *err)
{
    const fst_strategy *s = &f->base.base;
    uint64_t steps = (uint64_t)s->option[STEPS], patience = (uint64_t)s->option[PATIENCE], best_at = 0;
    double best = INFINITY;
    fst_status st = fst__distiller_begin(&f->by, s->round, steps, err);
    for (uint64_t i = 0; !st && i <= steps; i++) {
        double loss;
        if (f->by.spec.apart && (i % CHECK_EVERY == 0 || i == steps)) {
            st = check(f, &loss, err);
            if (!st && loss < best) {
                fst_fed_view v = fst_fed_state_view(&f->student);
                fst_fed_state_copy(&f->best, &v);
                best = loss;
                best_at = i;
            }
            if (i - best_at >= patience)
                break;
        }
        if (!st && i < steps)
            st = fst__distiller_step(&f->by, &f->student, f->target, work, err);
    }
    return st ? fst_fail_in(err, st, "distilling") : FST_OK;
}

static fst_status feddf_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct feddf *f = of(s);
    double lane[FST__LANES] = {0};
    fst_fed_view before = fst_fed_state_view(s->env.global);
    fst_fed_state_copy(&f->student, &before);
    fst_status st = fst__average_publish(&f->base.average, &f->student, &stats->update_norm, err);
    if (!st)
        st = fst_accumulator_mean(&f->sum, f->logits, err);
    if (st)
        return st;
    fst_softmax(f->logits, f->by.spec.rows, (int)f->by.classes, 1, f->target);
    st = distil(f, work, err);
    if (st)
        return st;
    fst_fed_view done = fst_fed_state_view(f->by.spec.apart ? &f->best : &f->student);
    fst__add_squares(lane, done.params, before.params, done.size.params);
    stats->update_norm = sqrt(fst__sum_lanes(lane));
    fst_fed_state_copy(s->env.global, &done);
    return FST_OK;
}

static const fst_server_ops server = {
    .bytes = sizeof(struct feddf),
    .init = feddf_init,
    .release = feddf_release,
    .begin = feddf_begin,
    .down = fst__averaging_down,
    .fold = feddf_fold,
    .aggregate = feddf_aggregate,
};

const fst_strategy_ops fst__feddf = {
    .name = "feddf",
    .summary = "fedavg, then the server learns from the clients' mean logits on public samples",
    .leaks = "The server sees every client's weights and number of samples, as with fedavg.",
    .options = options,
    .flags = FST_SAME_MODEL | FST_PUBLIC_DATA | FST_SENDS_STATE,
    .codes = fst__codes_model,
    .server = FST__HALF(&server),
    .client = FST__HALF(&fst__averaging_client),
};

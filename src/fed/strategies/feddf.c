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

#include "fed_private.h"

enum { PUBLIC_SAMPLES, STEPS, BATCH, RATE, PATIENCE };
enum { INFER_BATCH = 256, CHECK_EVERY = 25 };
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
    size_t rows, apart, classes, batch;
    fst_accumulator sum;                   /* rows x classes: of logits */
    float *logits;                         /* rows x classes */
    float *target;                         /* rows x classes: probabilities */
    float *soft;                           /* batch x classes */
    double *log_p;                         /* classes */
    uint32_t *row;                         /* of the drawn public samples; room for all */
    uint32_t *index;                       /* rows: their positions in the source, those kept apart first */
    uint32_t *row_at;                      /* by position in the source: which of the drawn */
    fst_loader *all, *learning, *checking; /* over all of index, over those that are learnt, over those kept apart */
    fst_runner *runner;
    fst_trainer *trainer;
    fst_optim optim;
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
    size_t n = f->rows * f->classes, all = s->env.pub->count;
    fst_status st = fst_accumulator_init(&f->sum, n, err);
    f->logits = fst_calloc(n, sizeof *f->logits);
    f->target = fst_calloc(n, sizeof *f->target);
    f->soft = fst_calloc(f->batch * f->classes, sizeof *f->soft);
    f->log_p = fst_calloc(f->classes, sizeof *f->log_p);
    f->row = fst_calloc(all, sizeof *f->row);
    f->index = fst_calloc(f->rows, sizeof *f->index);
    f->row_at = fst_calloc(s->env.pub->source->count, sizeof *f->row_at);
    if (!st && !(f->logits && f->target && f->soft && f->log_p && f->row && f->index && f->row_at))
        st = fst_fail_memory(err, 2 * n * sizeof *f->logits);
    if (!st)
        st = fst_fed_state_init(&f->student, s->env.global->size, err);
    return st ? st : fst_fed_state_init(&f->best, s->env.global->size, err);
}

/* They look at `index` when they are started, so what a round draws goes there. */
static fst_status make_loaders(struct feddf *f, fst_error *err)
{
    const fst_server_env *e = &f->base.base.env;
    fst_rng seed;
    fst_rng_init(&seed, e->seed, "feddf.batches", 0);
    fst_loader_spec all = {.source = e->pub->source,
                           .subset = f->index,
                           .subset_count = f->rows,
                           .batch_size = INFER_BATCH,
                           .transform = e->pub->transform};
    fst_loader_spec checking = all, learning = all;
    checking.subset_count = f->apart;
    learning.subset += f->apart;
    learning.subset_count -= f->apart;
    learning.batch_size = f->batch;
    learning.shuffle = true;
    learning.seed = fst_rng_u64(&seed);
    fst_status st = fst_loader_new(&f->all, &all, err);
    if (!st)
        st = fst_loader_new(&f->learning, &learning, err);
    return st || !f->apart ? st : fst_loader_new(&f->checking, &checking, err);
}

static fst_status make_networks(struct feddf *f, fst_error *err)
{
    const fst_strategy *s = &f->base.base;
    fst_trainer_options train = s->env.compute, infer = train;
    const fst_optim_spec adam = {.kind = FST_OPTIM_ADAM, .learning_rate = s->option[RATE]};
    train.batch_size = f->batch;
    infer.batch_size = INFER_BATCH;
    train.shard_size = infer.shard_size = 0;
    fst_status st = fst_trainer_new(&f->trainer, s->env.graph, &train, err);
    if (!st)
        st = fst_runner_new(&f->runner, s->env.graph, &infer, err);
    return st ? st : fst_optim_init(&f->optim, &adam, s->env.global->size.params, err);
}

static fst_status feddf_init(fst_strategy *s, fst_error *err)
{
    struct feddf *f = of(s);
    size_t want = (size_t)s->option[PUBLIC_SAMPLES], all = s->env.pub->count;
    if (!s->env.graph || s->env.classes < 1)
        return fst_fail(err, FST_E_ARGUMENT, "strategy feddf trains at the server, which has no network or no classes");
    f->rows = want && want < all ? want : all;
    f->classes = (size_t)s->env.classes;
    if (s->option[PATIENCE] > 0 && f->rows > 1)
        f->apart = f->rows < 20 ? 1 : f->rows / 10;
    f->batch = (size_t)s->option[BATCH];
    if (f->batch > f->rows - f->apart)
        f->batch = f->rows - f->apart;
    fst_status st = fst__averaging_init(s, err);
    if (!st)
        st = make_arrays(f, err);
    if (!st)
        st = make_loaders(f, err);
    return st ? st : make_networks(f, err);
}

static void feddf_release(fst_strategy *s)
{
    struct feddf *f = of(s);
    fst__averaging_release(s);
    fst_accumulator_release(&f->sum);
    fst_free(f->logits);
    fst_free(f->target);
    fst_free(f->soft);
    fst_free(f->log_p);
    fst_free(f->row);
    fst_free(f->index);
    fst_free(f->row_at);
    fst_loader_free(f->all);
    fst_loader_free(f->learning);
    fst_loader_free(f->checking);
    fst_runner_free(f->runner);
    fst_trainer_free(f->trainer);
    fst_optim_release(&f->optim);
    fst_fed_state_release(&f->student);
    fst_fed_state_release(&f->best);
}

/* ---- a round ---- */

static void feddf_begin(fst_strategy *s, uint64_t round)
{
    struct feddf *f = of(s);
    const fst_public *pub = s->env.pub;
    fst_rng rng;
    fst__averaging_begin(s, round);
    fst_accumulator_clear(&f->sum);
    (void)fst_public_draw(pub, s->env.seed, round, f->rows, f->row);
    fst_rng_init(&rng, s->env.seed, "feddf.apart", round);
    fst_rng_shuffle_u32(&rng, f->row, f->rows);
    for (size_t i = 0; i < f->rows; i++) {
        f->index[i] = pub->index[f->row[i]];
        f->row_at[f->index[i]] = (uint32_t)i;
    }
}

/* The logits of a loader's samples, in their order. */
static fst_status infer(struct feddf *f, fst_loader *loader, const fst_fed_state *model, fst_error *err)
{
    fst_state nn = fst__nn_state(model);
    size_t at = 0;
    fst_status st = fst_loader_start(loader, 0, 0, err);
    for (fst_batch b = {.rows = 1}; !st && b.rows; at += st ? 0 : b.rows) {
        st = fst_loader_next(loader, &b, err);
        if (!st && b.rows)
            st = fst_runner_logits(f->runner, &nn, b.x, b.rows, f->logits + at * f->classes, err);
    }
    return st;
}

static fst_status feddf_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct feddf *f = of(s);
    fst_fed_view v;
    fst_status st = fst_message_state(m, s->env.global->size, &v, err);
    if (st)
        return st;
    fst_fed_state_copy(&f->student, &v);
    st = infer(f, f->all, &f->student, err);
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
    fst_status st = infer(f, f->checking, &f->student, err);
    *loss = 0;
    for (size_t i = 0; !st && i < f->apart * f->classes; i++) {
        double q = (double)f->target[i];
        if (i % f->classes == 0)
            fst_log_softmax(f->logits + i, (int)f->classes, 1, f->log_p);
        if (q > 0)
            *loss += q * (log(q) - f->log_p[i % f->classes]) / (double)f->apart;
    }
    return st;
}

static fst_status next_batch(struct feddf *f, uint64_t *epoch, fst_batch *b, fst_error *err)
{
    fst_status st = fst_loader_next(f->learning, b, err);
    if (!st && !b->rows) {
        st = fst_loader_start(f->learning, ++*epoch, 0, err);
        if (!st)
            st = fst_loader_next(f->learning, b, err);
    }
    for (size_t i = 0; !st && i < b->rows; i++)
        memcpy(f->soft + i * f->classes, f->target + f->row_at[b->index[i]] * f->classes, f->classes * sizeof *f->soft);
    return st;
}

static fst_status step(struct feddf *f, uint64_t number, const fst_batch *b, fst_error *err)
{
    const fst_strategy *s = &f->base.base;
    const fst_schedule cosine = {.kind = FST_SCHEDULE_COSINE, .total = (int64_t)s->option[STEPS]};
    fst_state nn = fst__nn_state(&f->student);
    fst_step_result r;
    const fst_step_input in = {.rows = b->rows,
                               .x = b->x,
                               .soft = f->soft,
                               .loss = {.kd_weight = 1, .temperature = 1, .kd_form = FST_KD_KL},
                               .learning_rate = fst_schedule_rate(&cosine, s->option[RATE], (int64_t)number),
                               .seed = s->env.seed ^ s->round,
                               .step = number};
    return fst_trainer_step(f->trainer, &nn, &f->optim, &in, &r, err);
}

/* The student learns from the targets; with samples kept apart the best one is in `best` afterwards. */
static fst_status distil(struct feddf *f, const fst_work *work, fst_error *err)
{
    const fst_strategy *s = &f->base.base;
    uint64_t steps = (uint64_t)s->option[STEPS], patience = (uint64_t)s->option[PATIENCE], best_at = 0;
    uint64_t epoch = s->round << 32;
    double best = INFINITY;
    fst_optim_reset(&f->optim);
    fst_status st = fst_loader_start(f->learning, epoch, 0, err);
    for (uint64_t i = 0; !st && i <= steps; i++) {
        fst_batch b;
        double loss;
        if (fst_work_stopped(work))
            return fst_fail(err, FST_E_CANCELLED, "stopped");
        if (f->apart && (i % CHECK_EVERY == 0 || i == steps)) {
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
        if (st || i == steps)
            break;
        st = next_batch(f, &epoch, &b, err);
        if (!st)
            st = step(f, i, &b, err);
        if (!st && work && work->progress)
            work->progress(work->ctx, i + 1, steps);
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
    fst_softmax(f->logits, f->rows, (int)f->classes, 1, f->target);
    st = distil(f, work, err);
    if (st)
        return st;
    fst_fed_view done = fst_fed_state_view(f->apart ? &f->best : &f->student);
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
    .server = &server,
    .client = &fst__averaging_client,
};

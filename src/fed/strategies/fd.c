/* Federated distillation (Jeong et al., Communication-efficient on-device machine learning: federated distillation and
 * augmentation under non-IID private data, 2018). Every client has a model of its own and sends the mean probability
 * vector of each label that it holds; it learns CE + gamma H(F_y, p), F being the mean over the *other* clients that
 * hold the label. No public samples, classes^2 floats a round.
 *
 * The server keeps the sum over all clients and how many hold each label; a client subtracts its own share, which it
 * has kept, so that the server needs no memory a client. The sum is exact and goes down as doubles. With codecs its
 * mean goes down instead, as floats that can be coded; what is left when a client takes away its own share of a mean
 * that was rounded may be a little below 0 or off 1, and is made a row of probabilities again.
 *
 * fd_plus is the same with a shared model, which is averaged as FedAvg does: "FedDistill+" in Zhu, Hong, Zhou, ICML
 * 2021, whose code shares mean logits and leaves nobody out. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

enum { GAMMA };
static const fst_option options[] = {
    [GAMMA] = {"gamma", FST_OPTION_NUMBER, .fallback = 1, .max = 1e6,
               .help = "weight of the other clients' mean probabilities in the loss"},
    {0},
};

/* ---- the server's half: sums by label, which both strategies keep ---- */

struct sums {
    size_t classes;
    fst_accumulator sum; /* classes x classes */
    int64_t *held;       /* classes: by how many, in the open round */
    double *total;       /* classes x classes: of the last round */
    int64_t *holders;    /* classes: of the last round */
    float *mean;         /* classes x classes: total / holders, with codecs alone; else NULL */
    uint64_t made;       /* 1 + that round; 0: there is none */
};

static fst_status sums_init(struct sums *f, int classes, bool means, fst_error *err)
{
    if (classes < 1)
        return fst_fail(err, FST_E_ARGUMENT, "mean probabilities by label: %d classes", classes);
    size_t n = f->classes = (size_t)classes;
    fst_status st = fst_accumulator_init(&f->sum, n * n, err);
    f->held = fst_calloc(n, sizeof *f->held);
    f->holders = fst_calloc(n, sizeof *f->holders);
    f->total = fst_calloc(n * n, sizeof *f->total);
    f->mean = means ? fst_calloc(n * n, sizeof *f->mean) : NULL;
    if (!st && (!f->held || !f->holders || !f->total || (means && !f->mean)))
        st = fst_fail_memory(err, n * n * sizeof *f->total);
    return st;
}

static void sums_release(struct sums *f)
{
    fst_accumulator_release(&f->sum);
    fst_free(f->held);
    fst_free(f->holders);
    fst_free(f->total);
    fst_free(f->mean);
}

static void sums_begin(struct sums *f)
{
    fst_accumulator_clear(&f->sum);
    memset(f->held, 0, f->classes * sizeof *f->held);
}

static fst_status sums_down(const struct sums *f, fst_message *m, fst_error *err)
{
    int64_t n = (int64_t)f->classes;
    m->base = f->made;
    if (!f->made)
        return FST_OK;
    fst_status st = f->mean ? fst_message_add(m, "mean", FST_F32, FST_SHAPE(n, n), f->mean, err)
                            : fst_message_add(m, "sum", FST_F64, FST_SHAPE(n, n), f->total, err);
    return st ? st : fst_message_add(m, "holders", FST_I64, FST_SHAPE(n), f->holders, err);
}

static fst_status sums_get(const struct sums *f, const fst_message *m, const float **mean, const uint8_t **held,
                           fst_error *err)
{
    int64_t n = (int64_t)f->classes;
    const void *means, *flags;
    fst_status st = fst_message_get(m, "mean", FST_F32, FST_SHAPE(n, n), &means, err);
    if (!st)
        st = fst_message_get(m, "held", FST_U8, FST_SHAPE(n), &flags, err);
    if (st)
        return st;
    *mean = means;
    *held = flags;
    for (size_t i = 0; i < f->sum.count; i++) {
        float p = (*mean)[i];
        uint8_t its = (*held)[i / f->classes];
        if (!(p >= 0 && p <= 1.0001f) || its > 1 || (!its && p != 0))
            return fst_fail(err, FST_E_NUMERIC, "label %zu: %g is no mean probability of a label that it holds",
                            i / f->classes, (double)p);
    }
    return FST_OK;
}

static fst_status sums_add(struct sums *f, const float *mean, const uint8_t *held, fst_error *err)
{
    fst_status st = fst_accumulator_add(&f->sum, mean, 1, err);
    for (size_t i = 0; !st && i < f->classes; i++)
        f->held[i] += held[i];
    return st;
}

static void sums_share(struct sums *f, uint64_t round)
{
    fst__accumulator_sum_range(&f->sum, 0, f->sum.count, f->total);
    memcpy(f->holders, f->held, f->classes * sizeof *f->holders);
    for (size_t i = 0; f->mean && i < f->sum.count; i++) {
        int64_t holders = f->holders[i / f->classes];
        f->mean[i] = holders ? (float)(f->total[i] / (double)holders) : 0.0f;
    }
    f->made = round + 1;
}

static fst_status sums_save(const struct sums *f, fst_buf *out, fst_error *err)
{
    fst_status st = fst_buf_append(out, &f->made, sizeof f->made, err);
    if (!st)
        st = fst_buf_append(out, f->holders, f->classes * sizeof *f->holders, err);
    if (!st)
        st = fst_buf_append(out, f->total, f->sum.count * sizeof *f->total, err);
    return st || !f->mean ? st : fst_buf_append(out, f->mean, f->sum.count * sizeof *f->mean, err);
}

static fst_status sums_load(struct sums *f, const void *data, size_t len, fst_error *err)
{
    const unsigned char *p = data;
    size_t holders = f->classes * sizeof *f->holders, total = f->sum.count * sizeof *f->total;
    size_t means = f->mean ? f->sum.count * sizeof *f->mean : 0, want = sizeof f->made + holders + total + means;
    if (len != want)
        return fst_fail(err, FST_E_FORMAT, "the saved sums have %zu bytes, %zu are needed", len, want);
    for (size_t i = 0; i < f->sum.count; i++) {
        double v;
        memcpy(&v, p + sizeof f->made + holders + i * sizeof v, sizeof v);
        if (!(v >= 0 && v < 0x1p32))
            return fst_fail(err, FST_E_FORMAT, "a saved sum is %g", v);
    }
    for (size_t i = 0; f->mean && i < f->sum.count; i++) {
        float v;
        memcpy(&v, p + want - means + i * sizeof v, sizeof v);
        if (!(v >= 0 && v <= 1.0001f))
            return fst_fail(err, FST_E_FORMAT, "a saved mean probability is %g", (double)v);
    }
    memcpy(&f->made, p, sizeof f->made);
    memcpy(f->holders, p + sizeof f->made, holders);
    memcpy(f->total, p + sizeof f->made + holders, total);
    if (f->mean)
        memcpy(f->mean, p + want - means, means);
    return FST_OK;
}

/* ---- the server's half of fd ---- */

struct fd {
    fst_strategy base;
    struct sums sums;
};

static fst_status fd_init(fst_strategy *s, fst_error *err)
{
    return sums_init(&((struct fd *)s)->sums, s->env.classes, s->env.codecs.up.kind || s->env.codecs.down.kind, err);
}

static void fd_release(fst_strategy *s)
{
    sums_release(&((struct fd *)s)->sums);
}

static void fd_begin(fst_strategy *s, uint64_t round)
{
    (void)round;
    sums_begin(&((struct fd *)s)->sums);
}

static fst_status fd_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    (void)client;
    fst_message_name(m, "label_sums");
    return sums_down(&((const struct fd *)s)->sums, m, err);
}

static fst_status fd_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct fd *f = (struct fd *)s;
    const float *mean = NULL;
    const uint8_t *held = NULL;
    fst_status st = sums_get(&f->sums, m, &mean, &held, err);
    return st ? st : sums_add(&f->sums, mean, held, err);
}

static fst_status fd_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    (void)work, (void)err;
    sums_share(&((struct fd *)s)->sums, s->round);
    stats->update_norm = NAN; /* nothing that is shared moves by steps */
    return FST_OK;
}

static fst_status fd_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    return sums_save(&((const struct fd *)s)->sums, out, err);
}

static fst_status fd_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    return sums_load(&((struct fd *)s)->sums, data, len, err);
}

static const fst_server_ops server = {
    .bytes = sizeof(struct fd),
    .init = fd_init,
    .release = fd_release,
    .begin = fd_begin,
    .down = fd_down,
    .fold = fd_fold,
    .aggregate = fd_aggregate,
    .save = fd_save,
    .load = fd_load,
};

/* ---- the server's half of fd_plus: the shared model beside the sums ---- */

struct fd_plus {
    struct fst__averaging averaging;
    struct sums sums;
};

static fst_status plus_init(fst_strategy *s, fst_error *err)
{
    fst_status st = fst__averaging_init(s, err);
    return st ? st : sums_init(&((struct fd_plus *)s)->sums, s->env.classes, false, err);
}

static void plus_release(fst_strategy *s)
{
    fst__averaging_release(s);
    sums_release(&((struct fd_plus *)s)->sums);
}

static void plus_begin(fst_strategy *s, uint64_t round)
{
    fst__averaging_begin(s, round);
    sums_begin(&((struct fd_plus *)s)->sums);
}

static fst_status plus_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    fst_status st = fst__averaging_down(s, client, m, err);
    return st ? st : sums_down(&((const struct fd_plus *)s)->sums, m, err);
}

static fst_status plus_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct fd_plus *f = (struct fd_plus *)s;
    const float *mean = NULL;
    const uint8_t *held = NULL;
    fst_status st = sums_get(&f->sums, m, &mean, &held, err);
    if (!st)
        st = fst__averaging_fold(s, m, err);
    return st ? st : sums_add(&f->sums, mean, held, err);
}

static fst_status plus_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct fd_plus *f = (struct fd_plus *)s;
    (void)work;
    fst_status st = fst__average_publish(&f->averaging.average, s->env.global, &stats->update_norm, err);
    if (!st)
        sums_share(&f->sums, s->round);
    return st;
}

static fst_status plus_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    return sums_save(&((const struct fd_plus *)s)->sums, out, err);
}

static fst_status plus_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    return sums_load(&((struct fd_plus *)s)->sums, data, len, err);
}

static const fst_server_ops plus_server = {
    .bytes = sizeof(struct fd_plus),
    .init = plus_init,
    .release = plus_release,
    .begin = plus_begin,
    .down = plus_down,
    .fold = plus_fold,
    .aggregate = plus_aggregate,
    .save = plus_save,
    .load = plus_load,
};

/* ---- the client's half ---- */

struct fd_client {
    fst_client_half base;
    size_t classes, samples; /* what the arrays have room for */
    float *mean;             /* classes x classes: what it sent last */
    uint8_t *held;           /* classes */
    uint64_t sent;           /* 1 + the round of that; 0: never */
    float *target;           /* classes x classes: of the other clients */
    double *sum;             /* classes x classes */
    int64_t *count;
    float *logits; /* samples x classes */
    int32_t *labels;
};

static void fd_client_release(fst_client_half *h)
{
    struct fd_client *c = (struct fd_client *)h;
    fst_free(c->mean);
    fst_free(c->held);
    fst_free(c->target);
    fst_free(c->sum);
    fst_free(c->count);
    fst_free(c->logits);
    fst_free(c->labels);
}

static fst_status make_room(struct fd_client *c, fst_error *err)
{
    size_t n = (size_t)c->base.env->classes, samples = c->base.env->count;
    if (c->classes != n || c->samples < samples) {
        fst_client_half base = c->base;
        fd_client_release(&c->base);
        *c = (struct fd_client){.base = base, .classes = n, .samples = samples};
        c->mean = fst_calloc(n * n, sizeof *c->mean);
        c->held = fst_calloc(n, sizeof *c->held);
        c->target = fst_calloc(n * n, sizeof *c->target);
        c->sum = fst_calloc(n * n, sizeof *c->sum);
        c->count = fst_calloc(n, sizeof *c->count);
        c->logits = fst_calloc(samples * n, sizeof *c->logits);
        c->labels = fst_calloc(samples, sizeof *c->labels);
    }
    if (c->mean && c->held && c->target && c->sum && c->count && c->logits && c->labels)
        return FST_OK;
    c->classes = 0;
    return fst_fail_memory(err, samples * n * sizeof *c->logits);
}

/* Of each label the mean over the other clients that hold it; zeros, which teach nothing, where there is none. Its own
 * share is in the sum if its update of that round entered the result, and only then has it kept it. */
static void leave_out_own(struct fd_client *c, const double *sum, const int64_t *holders, uint64_t made)
{
    size_t n = c->classes;
    bool own = c->sent && c->sent == made;
    for (size_t l = 0; l < n; l++) {
        int64_t others = holders[l] - (own && c->held[l]);
        for (size_t j = 0; j < n; j++) {
            double rest = sum[l * n + j] - (own ? (double)c->mean[l * n + j] : 0);
            c->target[l * n + j] = others > 0 ? (float)(rest / (double)others) : 0.0f;
        }
    }
}

/* Of means in place of sums, which were rounded. */
static void leave_out_own_of_means(struct fd_client *c, const float *mean, const int64_t *holders, uint64_t made)
{
    size_t n = c->classes;
    for (size_t i = 0; i < n * n; i++)
        c->sum[i] = (double)mean[i] * (double)holders[i / n];
    leave_out_own(c, c->sum, holders, made);
    for (size_t l = 0; l < n; l++) {
        float *p = c->target + l * n;
        double mass = 0;
        for (size_t j = 0; j < n; j++) {
            p[j] = p[j] > 0 ? p[j] : 0;
            mass += (double)p[j];
        }
        for (size_t j = 0; mass > 0 && j < n; j++)
            p[j] = (float)((double)p[j] / mass);
    }
}

static fst_status soft_of(void *ctx, const fst_batch *b, float *soft, fst_error *err)
{
    const struct fd_client *c = ctx;
    return fst_fd_target(c->target, b->labels, b->rows, (int)c->classes, soft, err);
}

static fst_status take_down(struct fd_client *c, const fst_message *down, fst_local_job *job, fst_error *err)
{
    int64_t n = (int64_t)c->classes;
    const void *said, *holders;
    bool means = fst_message_find(down, "mean");
    if (!down->base)
        return FST_OK;
    fst_status st = means ? fst_message_get(down, "mean", FST_F32, FST_SHAPE(n, n), &said, err)
                          : fst_message_get(down, "sum", FST_F64, FST_SHAPE(n, n), &said, err);
    if (!st)
        st = fst_message_get(down, "holders", FST_I64, FST_SHAPE(n), &holders, err);
    if (st)
        return st;
    if (means)
        leave_out_own_of_means(c, said, holders, down->base);
    else
        leave_out_own(c, said, holders, down->base);
    job->loss = (fst_loss){
        .ce_weight = 1, .kd_weight = c->base.option[GAMMA], .temperature = 1, .kd_form = FST_KD_CROSS_ENTROPY};
    job->soft = soft_of;
    job->soft_ctx = c;
    return FST_OK;
}

static fst_status measure(struct fd_client *c, fst_error *err)
{
    const fst_client_env *e = c->base.env;
    for (size_t i = 0; i < e->count; i++)
        c->labels[i] = e->source->labels[e->subset ? e->subset[i] : i];
    fst_status st = fst_client_logits(&c->base, e->graph, &c->base.model, e->source, e->subset, e->count, &e->transform,
                                      c->logits, err);
    if (!st)
        st = fst_fd_label_means(c->logits, c->labels, e->count, e->classes, c->mean, c->count, err);
    for (size_t l = 0; !st && l < c->classes; l++)
        c->held[l] = c->count[l] > 0;
    return st;
}

/* Trains the client's model, and says what it makes of the client's samples. */
static fst_status learn(fst_client_half *h, const fst_message *down, fst_message *up, fst_error *err)
{
    struct fd_client *c = (struct fd_client *)h;
    fst_local_job job = fst_client_job(h);
    fst_local_result r = {0};
    int64_t n = h->env->classes;
    fst_status st = take_down(c, down, &job, err);
    if (!st)
        st = fst_client_train(h, &job, &r, err);
    if (!st)
        st = measure(c, err);
    if (st)
        return st;
    c->sent = h->round + 1;
    up->loss = r.loss;
    up->accuracy = r.accuracy;
    st = fst_message_add(up, "mean", FST_F32, FST_SHAPE(n, n), c->mean, err);
    return st ? st : fst_message_add(up, "held", FST_U8, FST_SHAPE(n), c->held, err);
}

static fst_status fd_work(fst_client_half *h, const fst_message *down, fst_message *up, fst_error *err)
{
    fst_message_name(up, "label_means");
    return learn(h, down, up, err);
}

static fst_status plus_work(fst_client_half *h, const fst_message *down, fst_message *up, fst_error *err)
{
    fst_fed_view v = fst_fed_state_view(&h->model);
    fst_message_name(up, "state");
    fst_status st = fst__take_shared(h, down, NULL, err);
    if (!st)
        st = learn(h, down, up, err);
    return st ? st : fst_message_add_state(up, &v, err);
}

static fst_status fd_client_save(const fst_client_half *h, fst_buf *out, fst_error *err)
{
    const struct fd_client *c = (const struct fd_client *)h;
    fst_status st = fst_buf_append(out, &c->sent, sizeof c->sent, err);
    if (!st)
        st = fst_buf_append(out, c->mean, c->classes * c->classes * sizeof *c->mean, err);
    return st ? st : fst_buf_append(out, c->held, c->classes, err);
}

static fst_status fd_client_load(fst_client_half *h, const void *data, size_t len, fst_error *err)
{
    struct fd_client *c = (struct fd_client *)h;
    const unsigned char *p = data;
    fst_status st = make_room(c, err);
    size_t n = st ? 0 : c->classes, means = n * n * sizeof *c->mean;
    if (st)
        return st;
    c->sent = 0;
    if (!len)
        return FST_OK;
    if (len != sizeof c->sent + means + n)
        return fst_fail(err, FST_E_FORMAT, "%zu bytes, %zu are needed", len, sizeof c->sent + means + n);
    memcpy(&c->sent, p, sizeof c->sent);
    memcpy(c->mean, p + sizeof c->sent, means);
    memcpy(c->held, p + sizeof c->sent + means, n);
    return FST_OK;
}

static const fst_client_ops client = {.bytes = sizeof(struct fd_client),
                                      .release = fd_client_release,
                                      .work = fd_work,
                                      .save = fd_client_save,
                                      .load = fd_client_load};

/* ---- what codecs code ---- */

static float *fd_shared(const fst_strategy *s, uint64_t *made)
{
    const struct sums *f = &((const struct fd *)s)->sums;
    *made = f->made;
    return f->mean;
}

static bool fd_held(const fst_strategy *s, size_t label)
{
    return ((const struct fd *)s)->sums.holders[label] > 0;
}

/* Its share of the sum is what the server reads. */
static void fd_said(fst_client_half *h, const float *x)
{
    struct fd_client *c = (struct fd_client *)h;
    memcpy(c->mean, x, c->classes * c->classes * sizeof *c->mean);
}

static const fst_predictions predicts = {.name = "mean",
                                         .noun = "mean probabilities of labels",
                                         .probabilities = true,
                                         .shared = fd_shared,
                                         .held = fd_held,
                                         .down_bytes = sizeof(double),
                                         .said = fd_said};

const fst_strategy_ops fst__fd = {
    .name = "fd",
    .summary = "different models learn from the other clients' mean probabilities of each label",
    .leaks = "The server sees which labels a client holds and its model's mean probabilities for each of them.",
    .options = options,
    .flags = FST_OWN_MODEL | FST_OWN_LOSS,
    .predicts = &predicts,
    .server = FST__HALF(&server),
    .client = FST__HALF(&client),
};

static const fst_client_ops plus_client = {.bytes = sizeof(struct fd_client),
                                           .release = fd_client_release,
                                           .work = plus_work,
                                           .save = fd_client_save,
                                           .load = fd_client_load};

const fst_strategy_ops fst__fd_plus = {
    .name = "fd_plus",
    .summary = "fedavg whose clients also learn from the other clients' mean probabilities of each label",
    .leaks =
        "The server sees every client's weights and number of samples, which labels it holds, and its model's mean "
        "probabilities for each of them.",
    .options = options,
    .flags = FST_SAME_MODEL | FST_OWN_LOSS,
    .codes = fst__codes_model,
    .server = FST__HALF(&plus_server),
    .client = FST__HALF(&plus_client),
};

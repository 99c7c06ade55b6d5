/* FedProto (Tan et al., FedProto: federated prototype learning across heterogeneous clients, AAAI 2022). Every client
 * has a model of its own; all have as many features, which are what a network's last layer reads. A client sends the
 * mean features of each label that it holds, its prototypes, and learns CE + lambda MSE(features, prototype of the
 * label), the mean being over batch and features; samples whose label nobody held count nothing in it. The server
 * returns the mean over the clients that hold the label, each counting the same, as the authors' code has it.
 * Prototypes steer training only: the network answers with its last layer, not with the nearest prototype.
 *
 * Data flow: a tapped copy of the network (features behind the logits in its output) -> mean by label -> up; exact sum
 * -> mean -> down in the next rounds, with base = 1 + the round that it was made in -> targets at the tap. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

enum { PROTO_WEIGHT };
static const fst_option options[] = {
    [PROTO_WEIGHT] = {"proto_weight", FST_OPTION_NUMBER, .fallback = 1, .max = 1e6,
                      .help = "lambda: pull of the features towards the mean features of their label"},
    {0},
};

/* ---- the server's half ---- */

struct fedproto {
    fst_strategy base;
    size_t classes, width;
    fst_accumulator sum; /* classes x width */
    int64_t *held;       /* classes: by how many, in the open round */
    double *total;       /* classes x width */
    float *mean;         /* classes x width: of the last round */
    uint8_t *known;      /* classes: has it a prototype */
    uint64_t made;       /* 1 + that round; 0: there is none */
};

static fst_status fedproto_init(fst_strategy *s, fst_error *err)
{
    struct fedproto *f = (struct fedproto *)s;
    f->width = s->env.graph ? fst__last_width(s->env.graph) : 0;
    if (s->env.classes < 1 || !f->width)
        return fst_fail(err, FST_E_CONFIG, "strategy fedproto: a network that ends in a linear layer is needed");
    f->classes = (size_t)s->env.classes;
    size_t n = f->classes * f->width;
    fst_status st = fst_accumulator_init(&f->sum, n, err);
    f->held = fst_calloc(f->classes, sizeof *f->held);
    f->known = fst_calloc(f->classes, sizeof *f->known);
    f->total = fst_calloc(n, sizeof *f->total);
    f->mean = fst_calloc(n, sizeof *f->mean);
    if (!st && !(f->held && f->known && f->total && f->mean))
        st = fst_fail_memory(err, n * sizeof *f->total);
    return st;
}

static void fedproto_release(fst_strategy *s)
{
    struct fedproto *f = (struct fedproto *)s;
    fst_accumulator_release(&f->sum);
    fst_free(f->held);
    fst_free(f->known);
    fst_free(f->total);
    fst_free(f->mean);
}

static void fedproto_begin(fst_strategy *s, uint64_t round)
{
    struct fedproto *f = (struct fedproto *)s;
    (void)round;
    fst_accumulator_clear(&f->sum);
    memset(f->held, 0, f->classes * sizeof *f->held);
}

static fst_status fedproto_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    const struct fedproto *f = (const struct fedproto *)s;
    int64_t n = (int64_t)f->classes;
    (void)client;
    fst_message_name(m, "prototypes");
    m->base = f->made;
    if (!f->made)
        return FST_OK;
    fst_status st = fst_message_add(m, "prototypes", FST_F32, FST_SHAPE(n, (int64_t)f->width), f->mean, err);
    return st ? st : fst_message_add(m, "held", FST_U8, FST_SHAPE(n), f->known, err);
}

/* Both ways: flags of 0 and 1, and zeros where there is no prototype. */
static fst_status get_prototypes(const fst_message *m, size_t classes, size_t width, const float **mean,
                                 const uint8_t **held, fst_error *err)
{
    int64_t n = (int64_t)classes;
    const void *x, *flags;
    fst_status st = fst_message_get(m, "prototypes", FST_F32, FST_SHAPE(n, (int64_t)width), &x, err);
    if (!st)
        st = fst_message_get(m, "held", FST_U8, FST_SHAPE(n), &flags, err);
    if (st)
        return st;
    *mean = x;
    *held = flags;
    for (size_t i = 0; i < classes * width; i++)
        if ((*held)[i / width] > 1 || !isfinite((*mean)[i]) || (!(*held)[i / width] && (*mean)[i] != 0))
            return fst_fail(err, FST_E_NUMERIC, "label %zu: %g is no mean feature of a label that it holds", i / width,
                            (double)(*mean)[i]);
    return FST_OK;
}

static fst_status fedproto_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct fedproto *f = (struct fedproto *)s;
    const float *mean;
    const uint8_t *held;
    fst_status st = get_prototypes(m, f->classes, f->width, &mean, &held, err);
    if (!st)
        st = fst_accumulator_add(&f->sum, mean, 1, err);
    for (size_t l = 0; !st && l < f->classes; l++)
        f->held[l] += held[l];
    return st;
}

static fst_status fedproto_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct fedproto *f = (struct fedproto *)s;
    (void)work, (void)err;
    fst__accumulator_sum_range(&f->sum, 0, f->sum.count, f->total);
    for (size_t i = 0; i < f->sum.count; i++) {
        int64_t holders = f->held[i / f->width];
        f->mean[i] = holders ? (float)(f->total[i] / (double)holders) : 0.0f;
    }
    for (size_t l = 0; l < f->classes; l++)
        f->known[l] = f->held[l] > 0;
    f->made = s->round + 1;
    stats->update_norm = NAN; /* nothing that is shared moves by steps */
    return FST_OK;
}

static fst_status fedproto_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    const struct fedproto *f = (const struct fedproto *)s;
    fst_status st = fst_buf_append(out, &f->made, sizeof f->made, err);
    if (!st)
        st = fst_buf_append(out, f->mean, f->sum.count * sizeof *f->mean, err);
    return st ? st : fst_buf_append(out, f->known, f->classes, err);
}

static fst_status fedproto_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    struct fedproto *f = (struct fedproto *)s;
    const unsigned char *p = data;
    size_t means = f->sum.count * sizeof *f->mean, want = sizeof f->made + means + f->classes;
    if (len != want)
        return fst_fail(err, FST_E_FORMAT, "the saved prototypes have %zu bytes, %zu are needed", len, want);
    for (size_t i = 0; i < f->sum.count; i++) {
        float v;
        memcpy(&v, p + sizeof f->made + i * sizeof v, sizeof v);
        if (!isfinite(v) || p[sizeof f->made + means + i / f->width] > 1)
            return fst_fail(err, FST_E_FORMAT, "a saved prototype is %g", (double)v);
    }
    memcpy(&f->made, p, sizeof f->made);
    memcpy(f->mean, p + sizeof f->made, means);
    memcpy(f->known, p + sizeof f->made + means, f->classes);
    return FST_OK;
}

static const fst_server_ops server = {
    .bytes = sizeof(struct fedproto),
    .init = fedproto_init,
    .release = fedproto_release,
    .begin = fedproto_begin,
    .down = fedproto_down,
    .fold = fedproto_fold,
    .aggregate = fedproto_aggregate,
    .save = fedproto_save,
    .load = fedproto_load,
};

/* ---- the client's half ---- */

struct tapped { /* a client's network, and its copy with the features in the output */
    const fst_graph *graph;
    fst_graph *copy;
};

struct fedproto_client {
    fst_client_half base;
    struct tapped *network;
    size_t networks;
    size_t classes, width, batch, samples; /* what the arrays have room for */
    const float *shared;                   /* classes x width: the prototypes that were sent */
    const uint8_t *known;
    float *target, *row_weight; /* batch x width, batch */
    float *out;                 /* samples x (classes + width) */
    double *sum;                /* width */
    float *mean;                /* classes x width: what is sent */
    uint8_t *held;
};

static void free_arrays(struct fedproto_client *c)
{
    fst_free(c->target);
    fst_free(c->row_weight);
    fst_free(c->out);
    fst_free(c->sum);
    fst_free(c->mean);
    fst_free(c->held);
}

static void fedproto_client_release(fst_client_half *h)
{
    struct fedproto_client *c = (struct fedproto_client *)h;
    free_arrays(c);
    for (size_t i = 0; i < c->networks; i++)
        fst_graph_free(c->network[i].copy);
    fst_free(c->network);
}

static fst_status tap(struct fedproto_client *c, const fst_graph **out, fst_error *err)
{
    const fst_graph *g = c->base.env->graph;
    fst_value features = fst_graph_last_features(g), logits = -1;
    fst_graph *copy = NULL;
    for (size_t i = 0; i < c->networks; i++)
        if (c->network[i].graph == g) {
            *out = c->network[i].copy;
            return FST_OK;
        }
    if (features < 0)
        return fst_fail(err, FST_E_CONFIG, "strategy fedproto: the network does not end in a linear layer");
    struct tapped *more = fst_realloc(c->network, c->networks * sizeof *more, (c->networks + 1) * sizeof *more);
    if (!more)
        return fst_fail_memory(err, (c->networks + 1) * sizeof *more);
    c->network = more;
    fst_status st = fst_graph_copy(&copy, g, &logits, err);
    if (!st)
        st = fst_graph_finish_tapped(copy, logits, &features, 1, err);
    if (st) {
        fst_graph_free(copy);
        return st;
    }
    c->network[c->networks++] = (struct tapped){g, copy};
    *out = copy;
    return FST_OK;
}

static fst_status make_room(struct fedproto_client *c, fst_error *err)
{
    const fst_client_env *e = c->base.env;
    size_t n = (size_t)e->classes, d = fst__last_width(e->graph), batch = e->plan.batch_size, samples = e->count;
    if (c->classes == n && c->width == d && c->batch == batch && c->samples >= samples)
        return FST_OK;
    free_arrays(c);
    c->classes = n;
    c->width = d;
    c->batch = batch;
    c->samples = samples;
    c->target = fst_calloc(batch * d, sizeof *c->target);
    c->row_weight = fst_calloc(batch, sizeof *c->row_weight);
    c->out = fst_calloc(samples * (n + d), sizeof *c->out);
    c->sum = fst_calloc(d, sizeof *c->sum);
    c->mean = fst_calloc(n * d, sizeof *c->mean);
    c->held = fst_calloc(n, sizeof *c->held);
    if (c->target && c->row_weight && c->out && c->sum && c->mean && c->held)
        return FST_OK;
    c->classes = 0;
    return fst_fail_memory(err, samples * (n + d) * sizeof *c->out);
}

/* The prototypes of a batch's labels. */
static fst_status targets_of(void *ctx, const fst_batch *b, fst_error *err)
{
    struct fedproto_client *c = ctx;
    (void)err;
    for (size_t i = 0; i < b->rows; i++) {
        size_t label = (size_t)b->labels[i];
        c->row_weight[i] = c->known[label];
        memcpy(c->target + i * c->width, c->shared + label * c->width, c->width * sizeof *c->target);
    }
    return FST_OK;
}

static const int32_t *label_of(const fst_client_env *e, size_t i)
{
    return &e->source->labels[e->subset ? e->subset[i] : i];
}

static fst_status measure(struct fedproto_client *c, const fst_graph *tapped, fst_error *err)
{
    const fst_client_env *e = c->base.env;
    size_t d = c->width, row = c->classes + d;
    fst_status st =
        fst_client_logits(&c->base, tapped, &c->base.model, e->source, e->subset, e->count, &e->transform, c->out, err);
    for (size_t l = 0; !st && l < c->classes; l++) {
        size_t count = 0;
        memset(c->sum, 0, d * sizeof *c->sum);
        for (size_t i = 0; i < e->count; i++) {
            if ((size_t)*label_of(e, i) != l)
                continue;
            count++;
            for (size_t j = 0; j < d; j++)
                c->sum[j] += (double)c->out[i * row + c->classes + j];
        }
        c->held[l] = count > 0;
        for (size_t j = 0; j < d; j++)
            c->mean[l * d + j] = count ? (float)(c->sum[j] / (double)count) : 0.0f;
    }
    return st;
}

static fst_status fedproto_work(fst_client_half *h, const fst_message *down, fst_message *up, fst_error *err)
{
    struct fedproto_client *c = (struct fedproto_client *)h;
    fst_local_job job = fst_client_job(h);
    fst_local_result r = {0};
    fst_status st = tap(c, &job.graph, err);
    if (!st)
        st = make_room(c, err);
    if (!st && down->base)
        st = get_prototypes(down, c->classes, c->width, &c->shared, &c->known, err);
    if (st)
        return st;
    const fst_feature_loss pull = {.form = FST_FEATURE_MSE,
                                   .weight = h->option[PROTO_WEIGHT],
                                   .target = c->target,
                                   .target_stride = c->width,
                                   .target_shape = fst_graph_tap(job.graph, 0).shape,
                                   .row_weight = c->row_weight};
    if (down->base) {
        job.features = &pull;
        job.feature_count = 1;
        job.before = targets_of;
        job.before_ctx = c;
    }
    st = fst_client_train(h, &job, &r, err);
    if (!st)
        st = measure(c, job.graph, err);
    if (st)
        return st;
    int64_t n = (int64_t)c->classes;
    fst_message_name(up, "prototypes");
    up->loss = r.loss;
    up->accuracy = r.accuracy;
    st = fst_message_add(up, "prototypes", FST_F32, FST_SHAPE(n, (int64_t)c->width), c->mean, err);
    return st ? st : fst_message_add(up, "held", FST_U8, FST_SHAPE(n), c->held, err);
}

static const fst_client_ops client = {
    .bytes = sizeof(struct fedproto_client), .release = fedproto_client_release, .work = fedproto_work};

/* ---- what codecs code ---- */

static float *fedproto_shared(const fst_strategy *s, uint64_t *made)
{
    const struct fedproto *f = (const struct fedproto *)s;
    *made = f->made;
    return f->mean;
}

static bool fedproto_held(const fst_strategy *s, size_t label)
{
    return ((const struct fedproto *)s)->known[label];
}

static const fst_predictions predicts = {.name = "prototypes",
                                         .noun = "prototypes",
                                         .shared = fedproto_shared,
                                         .held = fedproto_held,
                                         .columns = fst__last_width};

const fst_strategy_ops fst__fedproto = {
    .name = "fedproto",
    .summary = "different models of as many features learn from the mean features of each label",
    .leaks = "The server sees which labels a client holds and its mean features of each, from which typical inputs can "
             "be guessed.",
    .options = options,
    .flags = FST_OWN_MODEL | FST_SAME_FEATURES,
    .predicts = &predicts,
    .server = FST__HALF(&server),
    .client = FST__HALF(&client),
};

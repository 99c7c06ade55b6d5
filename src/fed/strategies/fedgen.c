/* FedGen (Zhu, Hong, Zhou, Data-free knowledge distillation for heterogeneous federated learning, ICML 2021): FedAvg
 * whose server also learns a generator of features, G(noise, label), and sends it along. A client adds to its cross
 * entropy, through the last layer h of its own model,
 *     beta KL(softmax(h(G(y))) || p(x)) for its samples (x, y), and alpha (made/batch) CE(h(G(y')), y')
 * for `made` labels y' that somebody holds; alpha and beta fall from round to round. Features that are made teach the
 * last layer only, and are no target's gradient.
 *
 * The generator learns from labels that somebody holds, by Adam,
 *     mean_y sum_k n_k,y/n_y CE(h_k(G(y)), y) + diversity exp(-mean_ij mean(noise_i - noise_j)^2 mean|G_i - G_j|),
 * h_k being the last layers that the clients of the round sent and n_k,y their numbers of samples by label. It is not
 * linear in the layers, so the server holds those of a round: (features + 1) x classes floats a client.
 *
 * Data flow: fold: state -> exact mean; last layer, label counts -> `head`, `count`. aggregate: these -> steps of G;
 * mean -> shared model. down: shared model, G, known labels. The client: G's output -> soft targets of a batch; made
 * features -> a gradient of the last layer that is added to every step's. */
#include <math.h>
#include <string.h>

#include "generator.h"

enum { NOISE, HIDDEN, STEPS, BATCH, RATE, DIVERSITY, MADE, MADE_WEIGHT, KL_WEIGHT, DECAY };
static const fst_option options[] = {
    [NOISE] = {"generator_noise", FST_OPTION_WHOLE, .fallback = 32, .min = 1, .max = 4096,
               .help = "random numbers that the generator starts from"},
    [HIDDEN] = {"generator_hidden", FST_OPTION_WHOLE, .fallback = 256, .min = 1, .max = 65536,
                .help = "units of the generator's hidden layer"},
    [STEPS] = {"generator_steps", FST_OPTION_WHOLE, .fallback = 50, .min = 1, .max = 1e6,
               .help = "of the generator in a round"},
    [BATCH] = {"generator_batch_size", FST_OPTION_WHOLE, .fallback = 128, .min = 2, .max = 65536,
               .help = "labels in a step of the generator"},
    [RATE] = {"generator_learning_rate", FST_OPTION_NUMBER, .fallback = 0.0003, .above = true, .max = 1000,
              .help = "of the generator's Adam; falls with generated_decay"},
    [DIVERSITY] = {"generator_diversity", FST_OPTION_NUMBER, .fallback = 1, .max = 1e6,
                   .help = "weight of the loss that keeps what is made from being alike"},
    [MADE] = {"generated_batch_size", FST_OPTION_WHOLE, .fallback = 32, .min = 1, .max = 65536,
              .with = "generated_weight", .help = "features that a client has made in a step"},
    [MADE_WEIGHT] = {"generated_weight", FST_OPTION_NUMBER, .fallback = 10, .max = 1e6,
                     .help = "weight of the made features' cross entropy in the clients' loss, in the first round"},
    [KL_WEIGHT] = {"generated_kl_weight", FST_OPTION_NUMBER, .fallback = 10, .max = 1e6,
                   .help = "weight of what is said of made features of a sample's label, in the first round"},
    [DECAY] = {"generated_decay", FST_OPTION_NUMBER, .fallback = 0.98, .above = true, .max = 1,
               .help = "by which both weights and the generator's learning rate fall in a round"},
    {0},
};
static const double GENERATOR_DECAY = 0.01; /* L2, as the authors' code has it */

/* ---- the server's half ---- */

struct fedgen {
    struct fst__averaging base;
    struct fst__generator gen;
    struct fst__head place;
    size_t batch, per_head;
    fst_plan *plan;
    fst_optim optim;
    float *grads, *x;      /* of the generator; batch x input */
    int32_t *label, *held; /* batch; classes: labels of the round */
    double *say;           /* classes */
    uint8_t *known;        /* classes: has a client of some round held it? */
    uint64_t made;         /* 1 + the last round that the generator learnt in; 0: none */
    size_t heads, room;    /* of the open round; what the arrays below have room for */
    uint32_t *client;      /* heads, rising after sort() */
    float *head;           /* heads x per_head */
    int64_t *count;        /* heads x classes: samples by label */
    fst_fed_state before;  /* the generator, as it was before a round's steps */
    float *moment1, *moment2;
};

static struct fedgen *of(fst_strategy *s)
{
    return (struct fedgen *)s;
}

static fst_status make_generator(struct fedgen *f, fst_error *err)
{
    const fst_strategy *s = &f->base.base;
    const fst_optim_spec adam = {
        .kind = FST_OPTIM_ADAM, .learning_rate = s->option[RATE], .weight_decay = GENERATOR_DECAY};
    const fst_plan_options plan = {
        .batch = (int64_t)f->batch, .training = true, .threads = 1, .backend = s->env.compute.backend};
    fst_rng r;
    fst_status st = fst__generator_init(&f->gen, (size_t)s->option[NOISE], (size_t)s->option[HIDDEN], f->place.classes,
                                        f->place.width, err);
    if (st)
        return st;
    fst_state nn = fst__nn_state(&f->gen.state);
    fst_rng_init(&r, s->env.seed, "fedgen.generator", 0);
    fst_state_randomise(&nn, f->gen.graph, fst_rng_u64(&r));
    st = fst_plan_new(&f->plan, f->gen.graph, &plan, err);
    if (!st)
        st = fst_optim_init(&f->optim, &adam, nn.param_count, err);
    return st ? st : fst_fed_state_init(&f->before, f->gen.state.size, err);
}

static fst_status fedgen_init(fst_strategy *s, fst_error *err)
{
    struct fedgen *f = of(s);
    if (!s->env.graph)
        return fst_fail(err, FST_E_ARGUMENT, "strategy fedgen trains at the server, which has no network");
    fst_status st = fst__head_of(s->env.graph, &f->place, err);
    if (st)
        return st;
    f->batch = (size_t)s->option[BATCH];
    f->per_head = (f->place.width + 1) * f->place.classes;
    st = fst__averaging_init(s, err);
    if (!st)
        st = make_generator(f, err);
    if (st)
        return st;
    size_t params = f->gen.state.size.params;
    f->grads = fst_calloc(params, sizeof *f->grads);
    f->moment1 = fst_calloc(params, sizeof *f->moment1);
    f->moment2 = fst_calloc(params, sizeof *f->moment2);
    f->x = fst_calloc(f->batch * (f->gen.noise + f->gen.classes), sizeof *f->x);
    f->label = fst_calloc(f->batch, sizeof *f->label);
    f->held = fst_calloc(f->place.classes, sizeof *f->held);
    f->say = fst_calloc(f->place.classes, sizeof *f->say);
    f->known = fst_calloc(f->place.classes, sizeof *f->known);
    if (f->grads && f->moment1 && f->moment2 && f->x && f->label && f->held && f->say && f->known)
        return FST_OK;
    return fst_fail_memory(err, 3 * params * sizeof *f->grads);
}

static void fedgen_release(fst_strategy *s)
{
    struct fedgen *f = of(s);
    fst__averaging_release(s);
    fst_plan_free(f->plan);
    fst_optim_release(&f->optim);
    fst__generator_release(&f->gen);
    fst_fed_state_release(&f->before);
    fst_free(f->grads);
    fst_free(f->moment1);
    fst_free(f->moment2);
    fst_free(f->x);
    fst_free(f->label);
    fst_free(f->held);
    fst_free(f->say);
    fst_free(f->known);
    fst_free(f->client);
    fst_free(f->head);
    fst_free(f->count);
}

static void fedgen_begin(fst_strategy *s, uint64_t round)
{
    fst__averaging_begin(s, round);
    of(s)->heads = 0;
}

static fst_status fedgen_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    const struct fedgen *f = (const struct fedgen *)s;
    const fst_fed_state *g = &f->gen.state;
    fst_status st = fst__averaging_down(s, client, m, err);
    if (st || !f->made)
        return st;
    st = fst_message_add(m, "generator", FST_F32, FST_SHAPE((int64_t)g->size.params), g->params, err);
    if (!st)
        st = fst_message_add(m, "generator_norm", FST_F32, FST_SHAPE((int64_t)g->size.buffers), g->buffers, err);
    return st ? st : fst_message_add(m, "known", FST_U8, FST_SHAPE((int64_t)f->place.classes), f->known, err);
}

static fst_status more_room(struct fedgen *f, fst_error *err)
{
    size_t n = f->room + 1, head = f->per_head * sizeof *f->head, count = f->place.classes * sizeof *f->count;
    void *p = fst_realloc(f->client, f->room * sizeof *f->client, n * sizeof *f->client);
    f->client = p ? p : f->client;
    void *q = p ? fst_realloc(f->head, f->room * head, n * head) : NULL;
    f->head = q ? q : f->head;
    void *r = q ? fst_realloc(f->count, f->room * count, n * count) : NULL;
    f->count = r ? r : f->count;
    if (!r)
        return fst_fail_memory(err, n * (head + count));
    f->room = n;
    return FST_OK;
}

static fst_status fedgen_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct fedgen *f = of(s);
    const void *data;
    size_t classes = f->place.classes;
    int64_t rest = m->samples;
    fst_fed_view v;
    fst_status st = fst_message_get(m, "labels", FST_I64, FST_SHAPE((int64_t)classes), &data, err);
    if (st)
        return st;
    const int64_t *count = data;
    for (size_t c = 0; c < classes; c++) {
        if (count[c] < 0 || count[c] > rest)
            return fst_fail(err, FST_E_NUMERIC, "label %zu: %lld of %lld samples", c, (long long)count[c],
                            (long long)m->samples);
        rest -= count[c];
    }
    if (rest)
        return fst_fail(err, FST_E_NUMERIC, "%lld samples have no label", (long long)rest);
    if (f->heads == f->room && (st = more_room(f, err)))
        return st;
    st = fst_message_state(m, s->env.global->size, &v, err);
    if (!st)
        st = fst__average_fold(&f->base.average, &v, m->samples, err);
    if (st)
        return st;
    f->client[f->heads] = m->client;
    fst__head_copy(&f->place, v.params, f->head + f->heads * f->per_head);
    memcpy(f->count + f->heads * classes, count, classes * sizeof *count);
    f->heads++;
    return FST_OK;
}

static void swap(char *a, char *b, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++) {
        char t = a[i];
        a[i] = b[i];
        b[i] = t;
    }
}

/* By client: sums over them must not depend on who came first. */
static void sort(struct fedgen *f)
{
    size_t head = f->per_head * sizeof *f->head, count = f->place.classes * sizeof *f->count;
    for (size_t i = 1; i < f->heads; i++)
        for (size_t k = i; k && f->client[k] < f->client[k - 1]; k--) {
            swap((char *)&f->client[k], (char *)&f->client[k - 1], sizeof *f->client);
            swap((char *)f->head + k * head, (char *)f->head + (k - 1) * head, head);
            swap((char *)f->count + k * count, (char *)f->count + (k - 1) * count, count);
        }
}

/* grad: of the ensemble's cross entropy by what was made, batch x width. */
static void teach(struct fedgen *f, const float *out, float *grad)
{
    size_t classes = f->place.classes, width = f->place.width;
    for (size_t i = 0; i < f->batch; i++) {
        size_t y = (size_t)f->label[i];
        double total = 0, sum[1024];
        for (size_t u = 0; u < f->heads; u++)
            total += (double)f->count[u * classes + y];
        for (size_t from = 0; from < width; from += 1024) { /* blocks: features may be many */
            size_t n = width - from < 1024 ? width - from : 1024;
            memset(sum, 0, n * sizeof *sum);
            for (size_t u = 0; u < f->heads; u++) {
                const float *w = f->head + u * f->per_head;
                double share = (double)f->count[u * classes + y] / total / (double)f->batch;
                if (share == 0)
                    continue;
                (void)fst__head_say(&f->place, w, out + i * width, y, f->say);
                for (size_t c = 0; c < classes; c++) {
                    double by = share * (f->say[c] - (c == y));
                    for (size_t k = 0; k < n; k++)
                        sum[k] += by * (double)w[c * width + from + k];
                }
            }
            for (size_t k = 0; k < n; k++)
                grad[i * width + from + k] = (float)sum[k];
        }
    }
}

static double noise_distance(const struct fedgen *f, size_t i, size_t j)
{
    size_t row = f->gen.noise + f->gen.classes;
    const float *a = f->x + i * row, *b = f->x + j * row;
    double sum = 0;
    for (size_t k = 0; k < f->gen.noise; k++)
        sum += ((double)a[k] - (double)b[k]) * ((double)a[k] - (double)b[k]);
    return sum / (double)f->gen.noise;
}

/* Adds the gradient of diversity exp(-S), S the mean over all pairs of noise's distance times that of what was made. */
static void spread(struct fedgen *f, const float *out, double weight, float *grad)
{
    size_t width = f->place.width, n = f->batch;
    double pairs = (double)n * (double)n, s = 0;
    for (int pass = 0; pass < 2; pass++) {
        double by = pass ? weight * exp(-s) * 2 / (pairs * (double)width) : 0;
        for (size_t i = 0; i < n; i++)
            for (size_t j = i + 1; j < n; j++) {
                const float *a = out + i * width, *b = out + j * width;
                double far = noise_distance(f, i, j), apart = 0;
                for (size_t k = 0; !pass && k < width; k++)
                    apart += fabs((double)a[k] - (double)b[k]);
                s += pass ? 0 : 2 * far * apart / (double)width / pairs;
                float pull = (float)(by * far);
                for (size_t k = 0; pass && k < width; k++) {
                    float sign = (float)((a[k] > b[k]) - (a[k] < b[k]));
                    grad[i * width + k] -= pull * sign;
                    grad[j * width + k] += pull * sign;
                }
            }
    }
}

static fst_status generator_step(struct fedgen *f, fst_rng *r, const int32_t *held, size_t labels, double rate,
                                 fst_error *err)
{
    const fst_strategy *s = &f->base.base;
    fst_state nn = fst__nn_state(&f->gen.state);
    const fst_draws none = {0};
    const float *out;
    for (size_t i = 0; i < f->batch; i++)
        f->label[i] = held[fst_rng_below(r, labels)];
    fst__generator_input(&f->gen, r, f->label, f->batch, f->x);
    fst_status st = fst_plan_forward(f->plan, &nn, f->x, &none, &out, err);
    if (st)
        return st;
    teach(f, out, fst_plan_output_grad(f->plan));
    if (s->option[DIVERSITY] > 0)
        spread(f, out, s->option[DIVERSITY], fst_plan_output_grad(f->plan));
    st = fst_plan_backward(f->plan, &nn, f->grads, err);
    for (size_t i = 0; !st && i < nn.param_count; i++)
        if (!isfinite(f->grads[i]))
            st = fst_fail(err, FST_E_NUMERIC, "the generator diverges: set a smaller generator_learning_rate");
    float *const grads[] = {f->grads};
    const fst_optim_input in = {.grads = grads, .parts = 1, .learning_rate = rate};
    if (!st)
        (void)fst_optim_step(&f->optim, nn.params, &in, NULL);
    return st;
}

static fst_status train(struct fedgen *f, const fst_work *work, fst_error *err)
{
    const fst_strategy *s = &f->base.base;
    uint64_t steps = (uint64_t)s->option[STEPS];
    double rate = s->option[RATE] * pow(s->option[DECAY], (double)s->round);
    int32_t *held = f->held;
    size_t labels = 0;
    fst_rng r;
    fst_status st = FST_OK;
    for (size_t c = 0; c < f->place.classes; c++) {
        int64_t n = 0;
        for (size_t u = 0; u < f->heads; u++)
            n += f->count[u * f->place.classes + c];
        if (n)
            held[labels++] = (int32_t)c;
    }
    fst_rng_init(&r, s->env.seed, "fedgen.steps", s->round);
    for (uint64_t i = 0; !st && i < steps; i++) {
        if (fst_work_stopped(work))
            st = fst_fail(err, FST_E_CANCELLED, "stopped");
        if (!st)
            st = generator_step(f, &r, held, labels, rate, err);
        if (!st && work && work->progress)
            work->progress(work->ctx, i + 1, steps);
    }
    for (size_t i = 0; !st && i < labels; i++)
        f->known[held[i]] = 1;
    return st ? fst_fail_in(err, st, "the generator") : FST_OK;
}

static fst_status fedgen_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct fedgen *f = of(s);
    size_t bytes = f->optim.count * sizeof *f->moment1;
    uint64_t steps = f->optim.steps;
    fst_fed_view g = fst_fed_state_view(&f->gen.state);
    fst_fed_state_copy(&f->before, &g);
    memcpy(f->moment1, f->optim.moment1, bytes);
    memcpy(f->moment2, f->optim.moment2, bytes);
    sort(f);
    fst_status st = train(f, work, err);
    if (st) { /* the round is done again later: it must find what it found now */
        g = fst_fed_state_view(&f->before);
        fst_fed_state_copy(&f->gen.state, &g);
        memcpy(f->optim.moment1, f->moment1, bytes);
        memcpy(f->optim.moment2, f->moment2, bytes);
        f->optim.steps = steps;
        return st;
    }
    f->made = s->round + 1;
    return fst__average_publish(&f->base.average, s->env.global, &stats->update_norm, err);
}

/* ---- what lasts ---- */

/* The parts of what is kept, in their order: the same bytes for both. */
struct part {
    void *data;
    size_t bytes;
    bool floats;
};
enum { PARTS = 8 };

static void parts_of(struct fedgen *f, struct part p[PARTS])
{
    fst_fed_state *g = &f->gen.state;
    size_t params = g->size.params * sizeof *g->params;
    p[0] = (struct part){&f->made, sizeof f->made, false};
    p[1] = (struct part){&f->optim.steps, sizeof f->optim.steps, false};
    p[2] = (struct part){g->params, params, true};
    p[3] = (struct part){f->optim.moment1, params, true};
    p[4] = (struct part){f->optim.moment2, params, true};
    p[5] = (struct part){g->buffers, g->size.buffers * sizeof *g->buffers, true};
    p[6] = (struct part){g->counters, g->size.counters * sizeof *g->counters, false};
    p[7] = (struct part){f->known, f->place.classes, false};
}

static fst_status fedgen_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    struct part p[PARTS];
    fst_status st = FST_OK;
    parts_of((struct fedgen *)s, p); /* only read */
    for (int i = 0; !st && i < PARTS; i++)
        st = fst_buf_append(out, p[i].data, p[i].bytes, err);
    return st;
}

static fst_status fedgen_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    struct part p[PARTS];
    const unsigned char *at = data;
    size_t want = 0;
    parts_of(of(s), p);
    for (int i = 0; i < PARTS; i++)
        want += p[i].bytes;
    if (len != want)
        return fst_fail(err, FST_E_FORMAT, "the saved generator has %zu bytes, %zu are needed", len, want);
    for (int i = 0; i < PARTS; at += p[i++].bytes)
        for (size_t k = 0; k < p[i].bytes / sizeof(float) && p[i].floats; k++) {
            float v;
            memcpy(&v, at + k * sizeof v, sizeof v);
            if (!isfinite(v))
                return fst_fail(err, FST_E_FORMAT, "a saved weight of the generator is %g", (double)v);
        }
    at = data;
    for (int i = 0; i < PARTS; at += p[i++].bytes)
        memcpy(p[i].data, at, p[i].bytes);
    return FST_OK;
}

static const fst_server_ops server = {
    .bytes = sizeof(struct fedgen),
    .init = fedgen_init,
    .release = fedgen_release,
    .begin = fedgen_begin,
    .down = fedgen_down,
    .fold = fedgen_fold,
    .aggregate = fedgen_aggregate,
    .save = fedgen_save,
    .load = fedgen_load,
};

/* ---- the client's half ---- */

struct fedgen_client {
    fst_client_half base;
    struct fst__generator gen;
    struct fst__head place;
    fst_runner *runner;
    size_t batch; /* of samples and of made features the most */
    fst_rng draws;
    float *x, *made, *head, *shift; /* batch x input, batch x width, a copied last layer, the network's parameters */
    int32_t *label;                 /* batch */
    double *say;                    /* classes */
    int32_t *known;                 /* labels that somebody holds */
    size_t labels;
    int64_t *count;     /* classes: own samples, which are sent */
    double made_weight; /* of this round */
};

static void fedgen_client_release(fst_client_half *h)
{
    struct fedgen_client *c = (struct fedgen_client *)h;
    fst_runner_free(c->runner);
    fst__generator_release(&c->gen);
    fst_free(c->x);
    fst_free(c->made);
    fst_free(c->head);
    fst_free(c->shift);
    fst_free(c->label);
    fst_free(c->say);
    fst_free(c->known);
    fst_free(c->count);
}

static fst_status make_arrays(struct fedgen_client *c, fst_error *err)
{
    size_t classes = c->place.classes, n = c->batch;
    c->x = fst_calloc(n * (c->gen.noise + classes), sizeof *c->x);
    c->made = fst_calloc(n * c->place.width, sizeof *c->made);
    c->head = fst_calloc((c->place.width + 1) * classes, sizeof *c->head);
    c->shift = fst_calloc(c->base.model.size.params, sizeof *c->shift);
    c->label = fst_calloc(n, sizeof *c->label);
    c->say = fst_calloc(classes, sizeof *c->say);
    c->known = fst_calloc(classes, sizeof *c->known);
    c->count = fst_calloc(classes, sizeof *c->count);
    if (c->x && c->made && c->head && c->shift && c->label && c->say && c->known && c->count)
        return FST_OK;
    return fst_fail_memory(err, c->base.model.size.params * sizeof *c->shift);
}

/* Once: all clients have one network. */
static fst_status make_room(struct fedgen_client *c, fst_error *err)
{
    const fst_client_env *e = c->base.env;
    const double *option = c->base.option;
    fst_trainer_options o = e->plan.compute;
    if (c->runner)
        return FST_OK;
    fst_client_half base = c->base;
    fedgen_client_release(&c->base);
    *c = (struct fedgen_client){.base = base};
    fst_status st = fst__head_of(e->graph, &c->place, err);
    if (st)
        return st;
    c->batch = (size_t)option[MADE] > e->plan.batch_size ? (size_t)option[MADE] : e->plan.batch_size;
    st = fst__generator_init(&c->gen, (size_t)option[NOISE], (size_t)option[HIDDEN], c->place.classes, c->place.width,
                             err);
    if (!st)
        st = make_arrays(c, err);
    o.batch_size = c->batch;
    o.shard_size = 0;
    o.threads = 1;
    o.precision = FST_PRECISION_F32;
    return st ? st : fst_runner_new(&c->runner, c->gen.graph, &o, err);
}

/* The generator that was sent; *have: there is one. */
static fst_status take_generator(struct fedgen_client *c, const fst_message *down, bool *have, fst_error *err)
{
    fst_fed_state *g = &c->gen.state;
    const void *params, *norm, *known;
    *have = fst_message_find(down, "generator") != NULL;
    if (!*have)
        return FST_OK;
    fst_status st = fst_message_get(down, "generator", FST_F32, FST_SHAPE((int64_t)g->size.params), &params, err);
    if (!st)
        st = fst_message_get(down, "generator_norm", FST_F32, FST_SHAPE((int64_t)g->size.buffers), &norm, err);
    if (!st)
        st = fst_message_get(down, "known", FST_U8, FST_SHAPE((int64_t)c->place.classes), &known, err);
    if (st)
        return st;
    fst_runner_hold(c->runner, NULL);
    memcpy(g->params, params, g->size.params * sizeof *g->params);
    memcpy(g->buffers, norm, g->size.buffers * sizeof *g->buffers);
    c->labels = 0;
    for (size_t i = 0; i < c->place.classes; i++)
        if (((const uint8_t *)known)[i])
            c->known[c->labels++] = (int32_t)i;
    if (!c->labels)
        return fst_fail(err, FST_E_NUMERIC, "a generator came without labels that it knows");
    return FST_OK;
}

/* Features of `rows` labels, through the model's last layer as it stands in this step. */
static fst_status make_features(struct fedgen_client *c, const int32_t *label, size_t rows, fst_error *err)
{
    fst_state nn = fst__nn_state(&c->gen.state);
    fst__generator_input(&c->gen, &c->draws, label, rows, c->x);
    fst__head_copy(&c->place, c->base.model.params, c->head);
    return fst_runner_logits(c->runner, &nn, c->x, rows, c->made, err);
}

/* The gradient of alpha (made/batch) CE(h(G(y')), y') by the last layer, which is added to the step's. */
static fst_status learn_made(void *ctx, const fst_batch *b, fst_error *err)
{
    struct fedgen_client *c = ctx;
    const struct fst__head *p = &c->place;
    size_t rows = (size_t)c->base.option[MADE];
    float *weight = c->shift + p->weight;
    (void)b;
    for (size_t i = 0; i < rows; i++)
        c->label[i] = c->known[fst_rng_below(&c->draws, c->labels)];
    fst_status st = make_features(c, c->label, rows, err);
    if (st)
        return st;
    memset(weight, 0, p->width * p->classes * sizeof *weight);
    if (p->has_bias)
        memset(c->shift + p->bias, 0, p->classes * sizeof *weight);
    double by = c->made_weight / (double)c->base.env->plan.batch_size; /* alpha (made/batch) / made */
    for (size_t i = 0; i < rows; i++) {
        const float *x = c->made + i * p->width;
        size_t y = (size_t)c->label[i];
        (void)fst__head_say(p, c->head, x, y, c->say);
        for (size_t k = 0; k < p->classes; k++) {
            float d = (float)(by * (c->say[k] - (k == y)));
            for (size_t j = 0; j < p->width; j++)
                weight[k * p->width + j] += d * x[j];
            if (p->has_bias)
                c->shift[p->bias + k] += d;
        }
    }
    return FST_OK;
}

/* softmax(h(G(y))) for the labels of a batch. */
static fst_status say_made(void *ctx, const fst_batch *b, float *soft, fst_error *err)
{
    struct fedgen_client *c = ctx;
    fst_status st = make_features(c, b->labels, b->rows, err);
    for (size_t i = 0; !st && i < b->rows; i++) {
        (void)fst__head_say(&c->place, c->head, c->made + i * c->place.width, 0, c->say);
        for (size_t k = 0; k < c->place.classes; k++)
            *soft++ = (float)c->say[k];
    }
    return st;
}

static void count_labels(struct fedgen_client *c)
{
    const fst_client_env *e = c->base.env;
    memset(c->count, 0, c->place.classes * sizeof *c->count);
    for (size_t i = 0; i < e->count; i++)
        c->count[e->source->labels[e->subset ? e->subset[i] : i]]++;
}

static fst_status fedgen_work(fst_client_half *h, const fst_message *down, fst_message *up, fst_error *err)
{
    struct fedgen_client *c = (struct fedgen_client *)h;
    double fallen = pow(h->option[DECAY], (double)h->round);
    fst_local_job job = fst_client_job(h);
    bool have = false;
    fst_status st = fst__take_shared(h, down, NULL, err);
    if (!st)
        st = make_room(c, err);
    if (!st)
        st = take_generator(c, down, &have, err);
    if (st)
        return st;
    fst_rng_init(&c->draws, fst_client_seed(h, "generator"), "fedgen.made", 0);
    c->made_weight = fallen * h->option[MADE_WEIGHT];
    if (have && c->made_weight > 0) {
        job.before = learn_made;
        job.before_ctx = c;
        job.shift = c->shift;
    }
    if (have && h->option[KL_WEIGHT] > 0) {
        job.loss.kd_form = FST_KD_KL;
        job.loss.kd_weight = fallen * h->option[KL_WEIGHT];
        job.loss.temperature = 1;
        job.soft = say_made;
        job.soft_ctx = c;
    }
    count_labels(c);
    st = fst__train_and_send(h, &job, up, err);
    return st ? st : fst_message_add(up, "labels", FST_I64, FST_SHAPE((int64_t)c->place.classes), c->count, err);
}

static fst_status fedgen_check(const double *option, const fst_graph *graph, const fst_local_plan *plan, fst_error *err)
{
    struct fst__head place;
    (void)plan;
    if (option[MADE_WEIGHT] == 0 && option[KL_WEIGHT] == 0)
        return fst_fail(err, FST_E_CONFIG,
                        "generated_weight and generated_kl_weight are 0, so that nobody learns from the generator: set "
                        "one of them, or use fedavg");
    return fst__head_of(graph, &place, err);
}

static const fst_client_ops client = {.bytes = sizeof(struct fedgen_client),
                                      .check = fedgen_check,
                                      .release = fedgen_client_release,
                                      .work = fedgen_work};

const fst_strategy_ops fst__fedgen = {
    .name = "fedgen",
    .summary = "fedavg whose clients also learn from features of each label that the server has learnt to make",
    .leaks = "The server sees every client's weights and how many samples of each label it has.",
    .options = options,
    .flags = FST_SAME_MODEL | FST_ALL_UPDATES | FST_OWN_LOSS,
    .codes = fst__codes_model,
    .server = FST__HALF(&server),
    .client = FST__HALF(&client),
};

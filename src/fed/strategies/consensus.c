/* What strategies of public samples have in common: the server's mean over the clients of an array with one row a
 * public sample, and the client's side of it. A round draws its samples by a named stream, so that server and clients
 * know them without being told; rows are joined by the samples' keys (public.c).
 *
 * Data flow: up "logits" -> fold into an exact sum -> mean -> down "logits" in the next round, with base = 1 + the
 * round that it was made in -> the client draws that round's samples again and fits its model to the rows. */
#include <math.h>
#include <string.h>

#include "fed_private.h"

enum { BLOCK = 1024 };

/* ---- the server's half ---- */

fst_status fst__consensus_init(struct fst__consensus *c, const char *name, fst_error *err)
{
    const fst_public *p = c->base.env.pub;
    size_t want = (size_t)c->base.option[FST__PUBLIC_SAMPLES];
    c->name = name;
    c->rows = want && want < p->count ? want : p->count;
    c->classes = (size_t)c->base.env.classes;
    if (c->base.env.classes < 1)
        return fst_fail(err, FST_E_ARGUMENT, "strategy %s: %d classes", c->base.ops->name, c->base.env.classes);
    size_t n = c->rows * c->classes;
    fst_status st = fst_accumulator_init(&c->sum, n, err);
    c->block_rows = c->classes < BLOCK ? BLOCK / c->classes : 1;
    c->mean = fst_calloc(n, sizeof *c->mean);
    c->block = fst_calloc(c->block_rows * c->classes, sizeof *c->block);
    if (!st && (!c->mean || !c->block))
        st = fst_fail_memory(err, n * sizeof *c->mean);
    return st;
}

void fst__consensus_release(fst_strategy *s)
{
    struct fst__consensus *c = (struct fst__consensus *)s;
    fst_accumulator_release(&c->sum);
    fst_free(c->mean);
    fst_free(c->block);
}

void fst__consensus_begin(fst_strategy *s, uint64_t round)
{
    (void)round;
    fst_accumulator_clear(&((struct fst__consensus *)s)->sum);
}

fst_status fst__add_public(const fst_public *p, fst_message *m, fst_error *err)
{
    return fst_message_add(m, "public", FST_U64, FST_SHAPE(2), &p->digest, err);
}

fst_status fst__check_public(const fst_public *p, const fst_message *m, fst_error *err)
{
    const void *digest;
    fst_status st = fst_message_get(m, "public", FST_U64, FST_SHAPE(2), &digest, err);
    if (!st && memcmp(digest, &p->digest, sizeof p->digest))
        st = fst_fail(err, FST_E_MISMATCH, "is about other public samples than those here");
    return st;
}

fst_status fst__consensus_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    const struct fst__consensus *c = (const struct fst__consensus *)s;
    (void)client;
    fst_message_name(m, c->name);
    m->base = c->made;
    fst_status st = fst__add_public(s->env.pub, m, err);
    if (!st && c->made)
        st = fst_message_add(m, c->name, FST_F32, FST_SHAPE((int64_t)c->rows, (int64_t)c->classes), c->mean, err);
    return st;
}

fst_status fst__consensus_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct fst__consensus *c = (struct fst__consensus *)s;
    const void *x = NULL;
    fst_status st = fst__check_public(s->env.pub, m, err);
    if (!st)
        st = fst_message_get(m, c->name, FST_F32, FST_SHAPE((int64_t)c->rows, (int64_t)c->classes), &x, err);
    return st ? st : fst_accumulator_add(&c->sum, x, 1, err);
}

fst_status fst__consensus_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct fst__consensus *c = (struct fst__consensus *)s;
    double lane[FST__LANES] = {0};
    (void)work;
    for (size_t row = 0; row < c->rows; row += c->block_rows) {
        size_t rows = c->rows - row < c->block_rows ? c->rows - row : c->block_rows;
        size_t at = row * c->classes, n = rows * c->classes;
        fst_status st = fst_accumulator_mean_range(&c->sum, at, n, c->block, err);
        if (!st && c->shape)
            st = c->shape(c, c->block, rows, err);
        if (st)
            return st; /* only ever at the first block */
        fst__add_squares(lane, c->block, c->mean + at, n);
        memcpy(c->mean + at, c->block, n * sizeof *c->block);
    }
    /* of other samples than before it means nothing */
    stats->update_norm = c->rows == s->env.pub->count ? sqrt(fst__sum_lanes(lane)) : NAN;
    c->made = s->round + 1;
    return FST_OK;
}

float *fst__consensus_shared(const fst_strategy *s, uint64_t *made)
{
    const struct fst__consensus *c = (const struct fst__consensus *)s;
    *made = c->made;
    return c->mean;
}

fst_status fst__consensus_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    const struct fst__consensus *c = (const struct fst__consensus *)s;
    fst_status st = fst_buf_append(out, &c->made, sizeof c->made, err);
    return st || !c->made ? st : fst_buf_append(out, c->mean, c->sum.count * sizeof *c->mean, err);
}

fst_status fst__consensus_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    struct fst__consensus *c = (struct fst__consensus *)s;
    const unsigned char *p = data;
    uint64_t made = 0;
    if (len >= sizeof made)
        memcpy(&made, p, sizeof made);
    size_t want = sizeof made + (made ? c->sum.count * sizeof *c->mean : 0);
    if (len != want)
        return fst_fail(err, FST_E_FORMAT, "the saved mean has %zu bytes, %zu are needed", len, want);
    for (size_t i = sizeof made; i < len; i += sizeof(float)) {
        float v;
        memcpy(&v, p + i, sizeof v);
        if (!isfinite(v))
            return fst_fail(err, FST_E_FORMAT, "an element of the saved mean is %g", (double)v);
    }
    c->made = made;
    if (made)
        memcpy(c->mean, p + sizeof made, len - sizeof made);
    return FST_OK;
}

/* ---- the client's half ---- */

const fst_loss fst__fit_probabilities = {.kd_weight = 1, .temperature = 1, .kd_form = FST_KD_CROSS_ENTROPY};

void fst__public_release(fst_client_half *h)
{
    struct fst__public_half *p = (struct fst__public_half *)h;
    fst_free(p->row);
    fst_free(p->index);
    fst_free(p->row_at);
    fst_free(p->out);
}

/* Once for all clients that this half plays: they have the same public samples. */
static fst_status make_room(struct fst__public_half *p, fst_error *err)
{
    const fst_client_env *e = p->base.env;
    size_t n = e->pub->count, positions = e->pub->source->count;
    if (p->count == n && p->positions == positions)
        return FST_OK;
    fst__public_release(&p->base);
    p->row = fst_calloc(n, sizeof *p->row);
    p->index = fst_calloc(n, sizeof *p->index);
    p->row_at = fst_calloc(positions, sizeof *p->row_at);
    p->out = fst_calloc(n * (size_t)e->classes, sizeof *p->out);
    p->count = n;
    p->positions = positions;
    if (p->row && p->index && p->row_at && p->out)
        return FST_OK;
    p->count = 0;
    return fst_fail_memory(err, n * ((size_t)e->classes * sizeof *p->out + 2 * sizeof *p->row));
}

fst_status fst__public_draw(struct fst__public_half *p, uint64_t round, size_t *n, fst_error *err)
{
    const fst_client_env *e = p->base.env;
    size_t want = (size_t)p->base.option[FST__PUBLIC_SAMPLES];
    fst_status st = make_room(p, err);
    if (st)
        return st;
    *n = fst_public_draw(e->pub, e->seed, round, want, p->row);
    for (size_t i = 0; i < *n; i++) {
        p->index[i] = e->pub->index[p->row[i]];
        p->row_at[p->index[i]] = (uint32_t)i;
    }
    return FST_OK;
}

struct targets {
    const struct fst__public_half *half;
    const float *target;
};

static fst_status target_of(void *ctx, const fst_batch *b, float *soft, fst_error *err)
{
    const struct targets *t = ctx;
    size_t classes = (size_t)t->half->base.env->classes;
    (void)err;
    for (size_t i = 0; i < b->rows; i++)
        memcpy(soft + i * classes, t->target + t->half->row_at[b->index[i]] * classes, classes * sizeof *soft);
    return FST_OK;
}

fst_status fst__public_fit(struct fst__public_half *p, size_t n, const float *target, const fst_loss *loss,
                           fst_error *err)
{
    const fst_public *pub = p->base.env->pub;
    struct targets t = {p, target};
    fst_local_result r;
    fst_local_job job = fst_client_job(&p->base);
    job.source = pub->source;
    job.subset = p->index;
    job.count = n;
    job.transform = pub->transform;
    job.augment = job.drop_last = job.keep_optim = false;
    job.epochs = (int64_t)p->base.option[FST__DIGEST_EPOCHS];
    job.steps = 0;
    job.seed = fst_client_seed(&p->base, "public");
    job.loss = *loss;
    job.without_labels = true;
    job.class_weight = NULL;
    job.soft = target_of;
    job.soft_ctx = &t;
    fst_status st = fst_client_train(&p->base, &job, &r, err);
    return st ? fst_fail_in(err, st, "public samples") : FST_OK;
}

static fst_status logits_of_drawn(struct fst__public_half *p, size_t n, fst_error *err)
{
    fst_client_half *h = &p->base;
    const fst_public *pub = h->env->pub;
    fst_status st =
        fst_client_logits(h, h->env->graph, &h->model, pub->source, p->index, n, &pub->transform, p->out, err);
    return st ? fst_fail_in(err, st, "public samples") : FST_OK;
}

fst_status fst__public_digest(struct fst__public_half *p, const fst_message *down, const char *name,
                              const fst_loss *loss, fst_error *err)
{
    const void *target = NULL;
    size_t n = 0;
    fst_status st = fst__public_draw(p, down->base - 1, &n, err);
    if (!st)
        st = fst_message_get(down, name, FST_F32, FST_SHAPE((int64_t)n, (int64_t)p->base.env->classes), &target, err);
    return st ? st : fst__public_fit(p, n, target, loss, err);
}

fst_status fst__public_round(struct fst__public_half *p, const fst_message *down, fst__learn_fn learn, fst_message *up,
                             size_t *n, fst_error *err)
{
    fst_client_half *h = &p->base;
    const fst_local_job own = fst_client_job(h);
    fst_local_result r = {0};
    fst_status st = fst__check_public(h->env->pub, down, err);
    if (!st)
        st = learn(p, down, err);
    if (!st)
        st = fst_client_train(h, &own, &r, err);
    if (!st)
        st = fst__public_draw(p, h->round, n, err);
    if (!st)
        st = logits_of_drawn(p, *n, err);
    up->loss = r.loss;
    up->accuracy = r.accuracy;
    return st;
}

fst_status fst__public_send(struct fst__public_half *p, const char *name, size_t n, fst_message *up, fst_error *err)
{
    fst_message_name(up, name);
    fst_status st = fst__add_public(p->base.env->pub, up, err);
    return st ? st
              : fst_message_add(up, name, FST_F32, FST_SHAPE((int64_t)n, (int64_t)p->base.env->classes), p->out, err);
}

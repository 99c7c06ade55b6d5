/* Codecs of predictions, between the halves of a strategy whose clients say something of each public sample. A round
 * draws its samples by a stream, so both sides know which rows are about the same sample in two rounds.
 *
 * Data flow, down: aggregate -> x -> publish: code x (change: against what was shared before), x becomes what is
 * decoded -> message. Up: z -> code against what this round's message said -> message -> read: decode against the same
 * -> fold. Nothing that was lost is kept: the next predictions are made anew, and their difference to what was shared
 * holds it. Bytes from outside: fst_coder_decode_rows trusts nothing; names, types and lengths are checked before. */
#include <math.h>
#include <string.h>

#include "coded.h"

/* ---- samples in common ---- */

/* Room of either side: what was shared, for the samples of a round. */
struct base {
    size_t all, rows, classes;
    uint32_t *row, *its; /* all: samples of the round, and of what was shared; rising */
    float *value;        /* rows x classes; zeros where nothing is known */
    bool *known;         /* rows */
};

static size_t rows_of(const fst_public *p, const double *option)
{
    size_t want = (size_t)option[FST__PUBLIC_SAMPLES];
    return want && want < p->count ? want : p->count;
}

static fst_status base_init(struct base *b, const fst_public *p, const double *option, int classes, fst_error *err)
{
    *b = (struct base){.all = p->count, .rows = rows_of(p, option), .classes = (size_t)classes};
    b->row = fst_calloc(b->all, sizeof *b->row); /* drawing needs room for all */
    b->its = fst_calloc(b->all, sizeof *b->its);
    b->value = fst_calloc(b->rows * b->classes, sizeof *b->value);
    b->known = fst_calloc(b->rows, sizeof *b->known);
    return b->row && b->its && b->value && b->known ? FST_OK
                                                    : fst_fail_memory(err, b->rows * b->classes * sizeof *b->value);
}

static void base_release(struct base *b)
{
    fst_free(b->row);
    fst_free(b->its);
    fst_free(b->value);
    fst_free(b->known);
}

/* b becomes `shared`, of round made - 1, for the samples of `round`. made 0: nothing. */
static void base_set(struct base *b, const fst_public *p, uint64_t seed, uint64_t round, const float *shared,
                     uint64_t made)
{
    size_t n = b->classes, k = 0;
    memset(b->value, 0, b->rows * n * sizeof *b->value);
    memset(b->known, 0, b->rows * sizeof *b->known);
    if (!made)
        return;
    (void)fst_public_draw(p, seed, round, b->rows, b->row);
    (void)fst_public_draw(p, seed, made - 1, b->rows, b->its);
    for (size_t i = 0; i < b->rows; i++) {
        while (k < b->rows && b->its[k] < b->row[i])
            k++;
        if (k == b->rows || b->its[k] != b->row[i])
            continue;
        memcpy(b->value + i * n, shared + k * n, n * sizeof *shared);
        b->known[i] = true;
    }
}

static fst_status decode(fst_coder *coder, const fst_message *m, const char *name, const struct base *b, float *x,
                         fst_error *err)
{
    const void *data = NULL;
    size_t len = 0;
    fst_status st = fst__coded_get_bytes(m, name, &data, &len, err);
    if (st)
        return st;
    st = fst_coder_decode_rows(coder, data, len, b ? b->value : NULL, b ? b->known : NULL, x, err);
    return st ? fst_fail_in(err, st == FST_E_FORMAT ? FST_E_MISMATCH : st, "\"%s\"", name) : FST_OK;
}

static void put(fst_message_tensor *t, const fst_predictions *what, const struct base *b, const float *x)
{
    *t = (fst_message_tensor){.dtype = FST_F32, .shape = FST_SHAPE((int64_t)b->rows, (int64_t)b->classes), .data = x};
    memcpy(t->name, what->name, strlen(what->name) + 1);
}

/* ---- the server's ---- */

struct fst__rows_server {
    fst_codecs codecs;
    const fst_predictions *what;
    struct base base; /* what is shared, for the samples of the open round */
    uint32_t clients;
    fst_coder *up, *down;
    float *read;                /* room for an update, and for what is decoded */
    uint8_t *bytes;             /* what is shared, or its last step, coded */
    size_t len;                 /* 0: nothing is shared yet */
    uint64_t version;           /* steps so far */
    uint8_t *in_last, *in_open; /* change, by client: is its update in the last step; in the open round */
};

static fst_status make_down(struct fst__rows_server *c, fst_error *err)
{
    size_t most = fst_coder_most(c->down);
    c->bytes = fst_calloc(most, 1);
    c->in_last = fst_calloc(c->clients, 1);
    c->in_open = fst_calloc(c->clients, 1);
    return c->bytes && c->in_last && c->in_open ? FST_OK : fst_fail_memory(err, most);
}

static fst_status make_coder(fst_coder **out, const fst_codec *codec, const fst_predictions *what, const struct base *b,
                             fst_error *err)
{
    return codec->kind ? fst_coder_new_predictions(out, codec, b->rows, (int)b->classes, what->probabilities, err)
                       : FST_OK;
}

fst_status fst__rows_server_new(struct fst__rows_server **out, const fst_strategy *s, fst_error *err)
{
    struct fst__rows_server *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    c->codecs = s->env.codecs;
    c->what = s->ops->predicts;
    c->clients = s->env.clients;
    fst_status st = base_init(&c->base, s->env.pub, s->option, s->env.classes, err);
    if (!st)
        st = make_coder(&c->up, &c->codecs.up, c->what, &c->base, err);
    if (!st)
        st = make_coder(&c->down, &c->codecs.down, c->what, &c->base, err);
    if (!st && !(c->read = fst_calloc(fst__rows_count(c), sizeof *c->read)))
        st = fst_fail_memory(err, fst__rows_count(c) * sizeof *c->read);
    if (!st && c->down)
        st = make_down(c, err);
    if (st)
        fst__rows_server_free(c);
    else
        *out = c;
    return st;
}

void fst__rows_server_free(struct fst__rows_server *c)
{
    if (!c)
        return;
    base_release(&c->base);
    fst_coder_free(c->up);
    fst_coder_free(c->down);
    fst_free(c->read);
    fst_free(c->bytes);
    fst_free(c->in_last);
    fst_free(c->in_open);
    fst_free(c);
}

size_t fst__rows_count(const struct fst__rows_server *c)
{
    return c->base.rows * c->base.classes;
}

void fst__rows_begin(struct fst__rows_server *c, const fst_strategy *s)
{
    uint64_t made = 0;
    const float *shared = c->what->shared(s, &made);
    base_set(&c->base, s->env.pub, s->env.seed, s->round, shared, made);
    if (c->down)
        memset(c->in_open, 0, c->clients);
}

/* Of samples that are others than before it means nothing. */
static double step_norm(const struct fst__rows_server *c, const float *x)
{
    double lane[FST__LANES] = {0};
    fst__add_squares(lane, x, c->base.value, fst__rows_count(c));
    return c->base.rows == c->base.all ? sqrt(fst__sum_lanes(lane)) : NAN;
}

fst_status fst__rows_publish(struct fst__rows_server *c, const fst_strategy *s, double *norm, fst_error *err)
{
    uint64_t made = 0;
    float *x = c->what->shared(s, &made);
    const struct base *b = c->codecs.down.change ? &c->base : NULL;
    const float *value = b ? b->value : NULL;
    const bool *known = b ? b->known : NULL;
    const uint8_t *bytes = NULL;
    fst_rng r;
    fst_rng_init(&r, s->env.seed, "codec.down", s->round + 1);
    fst_status st = fst_coder_encode_rows(c->down, x, value, known, &r, &bytes, &c->len, err);
    if (!st) {
        memcpy(c->bytes, bytes, c->len);
        st = fst_coder_decode_rows(c->down, c->bytes, c->len, value, known, c->read, err);
    }
    if (st)
        return fst_fail_in(err, st, "coding what is shared");
    memcpy(x, c->read, fst__rows_count(c) * sizeof *x);
    *norm = step_norm(c, x);
    uint8_t *in = c->in_last;
    c->in_last = c->in_open;
    c->in_open = in;
    c->version++;
    return FST_OK;
}

fst_status fst__rows_down(const struct fst__rows_server *c, uint32_t client, fst_message *m, fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    fst_message_tensor *t = fst__coded_find(m, c->what->name);
    bool change = c->codecs.down.change;
    if (!c->down || !t)
        return FST_OK;
    if (!change || c->in_last[client])
        fst__coded_put_bytes(t, fst__coded_name(change ? "step" : c->what->name, &c->codecs.down, name), c->len,
                             c->bytes);
    return change ? fst_message_add(m, "version", FST_U64, FST_SHAPE(1), &c->version, err) : FST_OK;
}

fst_status fst__rows_read(struct fst__rows_server *c, const fst_strategy *s, fst_message *m, fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    uint64_t made = 0;
    if (!c->up)
        return FST_OK;
    (void)c->what->shared(s, &made);
    if (m->base != made)
        return fst_fail(err, FST_E_MISMATCH,
                        "is coded against what was shared after round %llu, the last is round %llu",
                        (unsigned long long)m->base, (unsigned long long)made);
    fst_status st = decode(c->up, m, fst__coded_name(c->what->name, &c->codecs.up, name), &c->base, c->read, err);
    if (!st)
        put(fst__coded_find(m, name), c->what, &c->base, c->read);
    return st;
}

void fst__rows_folded(struct fst__rows_server *c, uint32_t client)
{
    if (c->down)
        c->in_open[client] = 1;
}

/* ---- what the server keeps of it: what goes down, and to whom ---- */

struct saved {
    uint64_t version, len;
};

fst_status fst__rows_save(const struct fst__rows_server *c, fst_buf *out, fst_error *err)
{
    const struct saved head = {c->version, c->len};
    if (!c->down)
        return FST_OK;
    fst_status st = fst_buf_append(out, &head, sizeof head, err);
    if (!st)
        st = fst_buf_append(out, c->in_last, c->clients, err);
    return st || !c->len ? st : fst_buf_append(out, c->bytes, c->len, err);
}

fst_status fst__rows_load(struct fst__rows_server *c, const void *data, size_t len, fst_error *err)
{
    struct saved head = {0};
    const uint8_t *at = data;
    size_t fixed = c->down ? sizeof head + c->clients : 0;
    if (c->down && len >= fixed)
        memcpy(&head, at, sizeof head);
    if (len < fixed || (c->down && head.len > fst_coder_most(c->down)) || len != fixed + head.len)
        return fst_fail(err, FST_E_FORMAT, "what a codec saved has %zu bytes", len);
    if (!c->down)
        return FST_OK;
    at += sizeof head;
    for (uint32_t i = 0; i < c->clients; i++)
        if (at[i] > 1)
            return fst_fail(err, FST_E_FORMAT, "client %lu is in the last step %u times", (unsigned long)i + 1, at[i]);
    memcpy(c->in_last, at, c->clients);
    if (head.len)
        memcpy(c->bytes, at + c->clients, head.len);
    c->version = head.version;
    c->len = head.len;
    return FST_OK;
}

/* ---- a client's ---- */

struct fst__rows_client {
    fst_codecs codecs;
    const fst_predictions *what;
    struct base base; /* what was shared, for the samples of this round */
    fst_coder *up, *down;
    float *shared, *room; /* what was shared, and as long */
    struct version {
        uint64_t steps, made; /* steps of the server so far; 1 + the round that it is of, 0: nothing was shared */
    } version;                /* of it */
    bool has;                 /* change: the client has kept it */
    uint8_t *bytes;           /* of an update */
};

void fst__rows_client_free(struct fst__rows_client *c)
{
    if (!c)
        return;
    base_release(&c->base);
    fst_coder_free(c->up);
    fst_coder_free(c->down);
    fst_free(c->shared);
    fst_free(c->room);
    fst_free(c->bytes);
    fst_free(c);
}

static fst_status make_client(struct fst__rows_client *c, const fst_client_half *h, fst_error *err)
{
    const fst_client_env *e = h->env;
    c->codecs = e->codecs;
    c->what = h->ops->predicts;
    fst_status st = fst_codecs_check(&e->codecs, h->ops, err);
    if (!st)
        st = base_init(&c->base, e->pub, h->option, e->classes, err);
    if (!st)
        st = make_coder(&c->up, &c->codecs.up, c->what, &c->base, err);
    if (!st)
        st = make_coder(&c->down, &c->codecs.down, c->what, &c->base, err);
    if (st)
        return st;
    size_t n = c->base.rows * c->base.classes, most = c->up ? fst_coder_most(c->up) : 1;
    c->shared = fst_calloc(n, sizeof *c->shared);
    c->room = fst_calloc(n, sizeof *c->room);
    c->bytes = fst_calloc(most, 1);
    return c->shared && c->room && c->bytes ? FST_OK : fst_fail_memory(err, 2 * n * sizeof *c->shared + most);
}

/* Once for all clients that this half plays: they have the same public samples. */
static fst_status make_ready(struct fst__rows_client **c, const fst_client_half *h, fst_error *err)
{
    const fst_client_env *e = h->env;
    struct fst__rows_client *had = *c;
    if (had && had->base.all == e->pub->count && had->base.classes == (size_t)e->classes &&
        fst__codec_equal(&had->codecs.up, &e->codecs.up) && fst__codec_equal(&had->codecs.down, &e->codecs.down))
        return FST_OK;
    fst__rows_client_free(had);
    *c = fst_calloc(1, sizeof **c);
    if (!*c)
        return fst_fail_memory(err, sizeof **c);
    fst_status st = make_client(*c, h, err);
    if (st) {
        fst__rows_client_free(*c);
        *c = NULL;
    }
    return st;
}

/* What the client kept of what was shared. */
static fst_status remember(struct fst__rows_client *c, const fst_message *kept, fst_error *err)
{
    const struct base *b = &c->base;
    const void *version = NULL, *data = NULL;
    c->version = (struct version){0};
    c->has = kept->count && c->down && c->codecs.down.change;
    if (!c->has)
        return FST_OK;
    fst_status st = fst_message_get(kept, "base:version", FST_U64, FST_SHAPE(2), &version, err);
    if (!st)
        st = fst_message_get(kept, "base", FST_F32, FST_SHAPE((int64_t)b->rows, (int64_t)b->classes), &data, err);
    if (st)
        return st;
    memcpy(&c->version, version, sizeof c->version);
    memcpy(c->shared, data, b->rows * b->classes * sizeof *c->shared);
    return FST_OK;
}

/* A step from what was shared before, which the client must have; or it has taken it, when a round was given up in
 * between. */
static fst_status take_step(struct fst__rows_client *c, const fst_client_half *h, const fst_message *down,
                            const char *name, uint64_t steps, fst_error *err)
{
    const fst_client_env *e = h->env;
    if (!c->has || (c->version.steps != steps && c->version.steps + 1 != steps))
        return fst_fail(err, FST_E_MISMATCH, "is step %llu of what is shared, and this client has not the one before",
                        (unsigned long long)steps);
    if (c->version.steps == steps)
        return FST_OK;
    base_set(&c->base, e->pub, e->seed, down->base - 1, c->shared, c->version.made);
    fst_status st = decode(c->down, down, name, &c->base, c->room, err);
    if (!st)
        memcpy(c->shared, c->room, c->base.rows * c->base.classes * sizeof *c->room);
    return st;
}

/* c->shared becomes what was sent, and `down` says so. */
static fst_status take_shared(struct fst__rows_client *c, const fst_client_half *h, fst_message *down, fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    const void *data = NULL;
    uint64_t steps = 0;
    const struct base *b = &c->base;
    bool change = c->down && c->codecs.down.change;
    fst_status st = change ? fst_message_get(down, "version", FST_U64, FST_SHAPE(1), &data, err) : FST_OK;
    if (st)
        return st;
    if (change)
        memcpy(&steps, data, sizeof steps);
    fst__coded_name(change ? "step" : c->what->name, &c->codecs.down, name);
    if (change && fst_message_find(down, name)) {
        st = take_step(c, h, down, name, steps, err);
    } else if (c->down && !change) {
        st = decode(c->down, down, name, NULL, c->shared, err);
    } else {
        memcpy(name, c->what->name, strlen(c->what->name) + 1);
        st = fst_message_get(down, name, FST_F32, FST_SHAPE((int64_t)b->rows, (int64_t)b->classes), &data, err);
        if (!st)
            memcpy(c->shared, data, b->rows * b->classes * sizeof *c->shared);
    }
    if (st)
        return st;
    c->version = (struct version){steps, down->base};
    put(fst__coded_find(down, name), c->what, b, c->shared);
    return FST_OK;
}

fst_status fst__rows_take(struct fst__rows_client **c, const fst_client_half *h, const fst_message *kept,
                          fst_message *down, fst_error *err)
{
    const fst_client_env *e = h->env;
    fst_status st = make_ready(c, h, err);
    if (!st && (st = remember(*c, kept, err)))
        return fst_fail_in(err, st, "what it kept");
    if (st)
        return st;
    if (down->base && (st = take_shared(*c, h, down, err)))
        return fst_fail_in(err, st, "what the server sent");
    if (!down->base) /* another client's may be there */
        memset((*c)->shared, 0, (*c)->base.rows * (*c)->base.classes * sizeof(float));
    base_set(&(*c)->base, e->pub, e->seed, h->round, (*c)->shared, down->base);
    return FST_OK;
}

fst_status fst__rows_give(struct fst__rows_client *c, const fst_client_half *h, fst_message *up, fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    const struct base *b = &c->base;
    const uint8_t *bytes = NULL;
    const void *x = NULL;
    size_t len = 0;
    fst_rng r;
    if (!c->up)
        return FST_OK;
    fst_rng_init(&r, h->env->seed, "codec.up", h->round << 32 | h->env->client);
    fst_status st =
        fst_message_get(up, c->what->name, FST_F32, FST_SHAPE((int64_t)b->rows, (int64_t)b->classes), &x, err);
    if (!st)
        st = fst_coder_encode_rows(c->up, x, b->value, b->known, &r, &bytes, &len, err);
    if (st)
        return fst_fail_in(err, st, "coding the update");
    memcpy(c->bytes, bytes, len);
    fst__coded_put_bytes(fst__coded_find(up, c->what->name), fst__coded_name(c->what->name, &c->codecs.up, name), len,
                         c->bytes);
    return FST_OK;
}

fst_status fst__rows_keep(const struct fst__rows_client *c, const fst_client_half *h, fst_message *kept, fst_error *err)
{
    if (!h->env->codecs.down.kind || !h->env->codecs.down.change)
        return FST_OK;
    const struct base *b = &c->base;
    fst_status st = fst_message_add(kept, "base:version", FST_U64, FST_SHAPE(2), &c->version, err);
    return st ? st
              : fst_message_add(kept, "base", FST_F32, FST_SHAPE((int64_t)b->rows, (int64_t)b->classes), c->shared,
                                err);
}

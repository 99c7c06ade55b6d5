/* Codecs of rows, between the halves of a strategy whose clients say something of each public sample (predictions) or
 * of each label (statistics). A round draws its samples by a stream, so both sides know which rows are about the same
 * sample in two rounds; which labels a message is about stands in it, and the rows of the others, zeros, are not sent.
 *
 * Data flow, down: aggregate -> x -> publish: code x (change: against what was shared before), x becomes what is
 * decoded -> message. Up: z -> code against what this round's message said -> message -> read: decode against the same
 * -> fold. Nothing that was lost is kept: the next rows are made anew, and their difference to what was shared
 * holds it. Bytes from outside: fst_coder_decode_rows trusts nothing; names, types and lengths are checked before. */
#include <math.h>
#include <string.h>

#include "coded.h"

/* ---- rows of a message, and of what was shared ---- */

/* Either side's room. A tensor has all rows, those that are not there being zeros; coders see those that are, one after
 * the other. A row's number says what it is about: a public sample, or a label. */
struct rows {
    const fst_predictions *what;
    const fst_public *pub; /* NULL: rows are labels */
    uint64_t seed;
    size_t all, most, columns; /* numbers; rows of a tensor */
    float *shared;             /* most x columns: what was shared last */
    uint64_t made;             /* 1 + the round that it is of; 0: nothing was shared */
    uint32_t *its, *row;       /* all: numbers of its rows and of those of a message; rising */
    size_t its_count, count;
    float *value, *room; /* count x columns: what was shared of those rows; zeros where nothing is known */
    bool *known;         /* count */
    uint8_t *there;      /* most: labels that are there */
};

static fst_status rows_init(struct rows *b, const fst_strategy_ops *ops, const fst_public *pub, const double *option,
                            int classes, const fst_graph *graph, uint64_t seed, fst_error *err)
{
    const fst_predictions *what = ops->predicts;
    *b = (struct rows){.what = what, .pub = what->held ? NULL : pub, .seed = seed, .columns = (size_t)classes};
    b->all = b->most = b->columns;
    if (b->pub) {
        size_t want = (size_t)option[FST__PUBLIC_SAMPLES];
        b->all = pub->count; /* drawing needs room for all */
        b->most = want && want < pub->count ? want : pub->count;
    }
    if (what->columns)
        b->columns = what->columns(graph);
    size_t n = b->most * b->columns;
    b->row = fst_calloc(b->all, sizeof *b->row);
    b->its = fst_calloc(b->all, sizeof *b->its);
    b->shared = fst_calloc(n, sizeof *b->shared);
    b->value = fst_calloc(n, sizeof *b->value);
    b->room = fst_calloc(n, sizeof *b->room);
    b->known = fst_calloc(b->most, sizeof *b->known);
    b->there = fst_calloc(b->most, sizeof *b->there);
    return b->row && b->its && b->shared && b->value && b->room && b->known && b->there
               ? FST_OK
               : fst_fail_memory(err, 3 * n * sizeof *b->value);
}

static void rows_release(struct rows *b)
{
    fst_free(b->row);
    fst_free(b->its);
    fst_free(b->shared);
    fst_free(b->value);
    fst_free(b->room);
    fst_free(b->known);
    fst_free(b->there);
}

static size_t floats_of(const struct rows *b)
{
    return b->most * b->columns;
}

static fst_shape shape_of(const struct rows *b)
{
    return FST_SHAPE((int64_t)b->most, (int64_t)b->columns);
}

/* Where the i-th of the rows with these numbers stands in a tensor. */
static size_t place(const struct rows *b, const uint32_t *number, size_t i)
{
    return b->pub ? i : number[i];
}

/* Numbers of the labels that are there. */
static size_t list_labels(const struct rows *b, uint32_t *number)
{
    size_t n = 0;
    for (size_t l = 0; l < b->most; l++)
        if (b->there[l])
            number[n++] = (uint32_t)l;
    return n;
}

/* b->there becomes the labels that a message says something of: "holders" of the shared sums, or "held". */
static fst_status labels_of(struct rows *b, const fst_message *m, fst_error *err)
{
    const fst_shape shape = FST_SHAPE((int64_t)b->most);
    const void *data = NULL;
    bool counted = fst_message_find(m, "holders");
    fst_status st = counted ? fst_message_get(m, "holders", FST_I64, shape, &data, err)
                            : fst_message_get(m, "held", FST_U8, shape, &data, err);
    for (size_t l = 0; !st && l < b->most; l++)
        b->there[l] = counted ? ((const int64_t *)data)[l] > 0 : ((const uint8_t *)data)[l] > 0;
    return st;
}

/* What was shared, b->shared, is of round made - 1, and with labels of those that are there. */
static void rows_shared(struct rows *b, uint64_t made)
{
    b->made = made;
    b->its_count = !made    ? 0
                   : b->pub ? fst_public_draw(b->pub, b->seed, made - 1, b->most, b->its)
                            : list_labels(b, b->its);
}

/* From now on it is about the samples of this round, or the labels that are there. */
static void rows_about(struct rows *b, uint64_t round)
{
    size_t n = b->columns, k = 0;
    b->count = b->pub ? fst_public_draw(b->pub, b->seed, round, b->most, b->row) : list_labels(b, b->row);
    for (size_t i = 0; i < b->count; i++) {
        while (k < b->its_count && b->its[k] < b->row[i])
            k++;
        b->known[i] = k < b->its_count && b->its[k] == b->row[i];
        if (b->known[i])
            memcpy(b->value + i * n, b->shared + place(b, b->its, k) * n, n * sizeof *b->value);
        else
            memset(b->value + i * n, 0, n * sizeof *b->value);
    }
}

/* x: a tensor. */
static fst_status encode(fst_coder *coder, struct rows *b, const float *x, bool change, fst_rng *r,
                         const uint8_t **bytes, size_t *len, fst_error *err)
{
    size_t n = b->columns;
    fst_status st = fst_coder_rows(coder, b->count, err);
    for (size_t i = 0; !st && i < b->count; i++)
        memcpy(b->room + i * n, x + place(b, b->row, i) * n, n * sizeof *x);
    return st ? st
              : fst_coder_encode_rows(coder, b->room, change ? b->value : NULL, change ? b->known : NULL, r, bytes, len,
                                      err);
}

static fst_status decode_span(fst_coder *coder, struct rows *b, const void *data, size_t len, bool change, float *x,
                              fst_error *err)
{
    size_t n = b->columns;
    fst_status st = fst_coder_rows(coder, b->count, err);
    if (!st)
        st = fst_coder_decode_rows(coder, data, len, change ? b->value : NULL, change ? b->known : NULL, b->room, err);
    if (st)
        return st;
    memset(x, 0, floats_of(b) * sizeof *x);
    for (size_t i = 0; i < b->count; i++)
        memcpy(x + place(b, b->row, i) * n, b->room + i * n, n * sizeof *x);
    return FST_OK;
}

static fst_status decode(fst_coder *coder, struct rows *b, const fst_message *m, const char *name, bool change,
                         float *x, fst_error *err)
{
    const void *data = NULL;
    size_t len = 0;
    fst_status st = fst__coded_get_bytes(m, name, &data, &len, err);
    if (st)
        return st;
    st = decode_span(coder, b, data, len, change, x, err);
    return st ? fst_fail_in(err, st == FST_E_FORMAT ? FST_E_MISMATCH : st, "\"%s\"", name) : FST_OK;
}

static void put(fst_message_tensor *t, const struct rows *b, const float *x)
{
    *t = (fst_message_tensor){.dtype = FST_F32, .shape = shape_of(b), .data = x};
    memcpy(t->name, b->what->name, strlen(b->what->name) + 1);
}

/* ---- the server's ---- */

struct fst__rows_server {
    fst_codecs codecs;
    const fst_predictions *what;
    struct rows rows; /* of the open round */
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

static fst_status make_coder(fst_coder **out, const fst_codec *codec, const struct rows *b, fst_error *err)
{
    return codec->kind ? fst_coder_new_predictions(out, codec, b->most, (int)b->columns, b->what->probabilities, err)
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
    fst_status st = rows_init(&c->rows, s->ops, s->env.pub, s->option, s->env.classes, s->env.graph, s->env.seed, err);
    if (!st)
        st = make_coder(&c->up, &c->codecs.up, &c->rows, err);
    if (!st)
        st = make_coder(&c->down, &c->codecs.down, &c->rows, err);
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
    rows_release(&c->rows);
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
    return floats_of(&c->rows);
}

/* Labels of what is shared. */
static void note_labels(struct fst__rows_server *c, const fst_strategy *s)
{
    for (size_t l = 0; c->what->held && l < c->rows.most; l++)
        c->rows.there[l] = c->what->held(s, l);
}

void fst__rows_begin(struct fst__rows_server *c, const fst_strategy *s)
{
    uint64_t made = 0;
    const float *shared = c->what->shared(s, &made);
    memcpy(c->rows.shared, shared, fst__rows_count(c) * sizeof *shared);
    note_labels(c, s);
    rows_shared(&c->rows, made);
    if (!c->what->held)
        rows_about(&c->rows, s->round);
    if (c->down)
        memset(c->in_open, 0, c->clients);
}

/* Of labels, and of samples that are others than before, it means nothing. */
static double step_norm(const struct fst__rows_server *c, const float *x)
{
    double lane[FST__LANES] = {0};
    if (c->what->held || c->rows.most != c->rows.all)
        return NAN;
    fst__add_squares(lane, x, c->rows.value, fst__rows_count(c));
    return sqrt(fst__sum_lanes(lane));
}

/* *x, what is shared, becomes what is decoded. */
static fst_status code_shared(struct fst__rows_server *c, const fst_strategy *s, float *x, fst_error *err)
{
    bool change = c->codecs.down.change;
    const uint8_t *bytes = NULL;
    fst_rng r;
    fst_rng_init(&r, s->env.seed, "codec.down", s->round + 1);
    fst_status st = encode(c->down, &c->rows, x, change, &r, &bytes, &c->len, err);
    if (st)
        return st;
    memcpy(c->bytes, bytes, c->len);
    st = decode_span(c->down, &c->rows, c->bytes, c->len, change, c->read, err);
    if (!st)
        memcpy(x, c->read, fst__rows_count(c) * sizeof *x);
    return st;
}

fst_status fst__rows_publish(struct fst__rows_server *c, const fst_strategy *s, double *norm, fst_error *err)
{
    uint64_t made = 0;
    float *x = c->what->shared(s, &made);
    if (c->what->held) {
        note_labels(c, s);
        rows_about(&c->rows, s->round);
    }
    c->len = 0; /* nobody may have said anything of any label: then zeros are sent as they are */
    fst_status st = c->rows.count ? code_shared(c, s, x, err) : FST_OK;
    if (st)
        return fst_fail_in(err, st, "coding what is shared");
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
    if (c->len && (!change || c->in_last[client]))
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
    fst_status st = c->what->held ? labels_of(&c->rows, m, err) : FST_OK;
    if (!st && c->what->held)
        rows_about(&c->rows, s->round);
    if (!st && !c->rows.count)
        st = fst_fail(err, FST_E_MISMATCH, "says nothing of any label");
    if (!st)
        st = decode(c->up, &c->rows, m, fst__coded_name(c->what->name, &c->codecs.up, name), true, c->read, err);
    if (!st)
        put(fst__coded_find(m, name), &c->rows, c->read);
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
    struct rows rows; /* of this round */
    fst_coder *up, *down;
    float *read;         /* room for what is decoded */
    uint64_t steps;      /* of the server so far, which made what was shared last */
    uint64_t version[2]; /* that and rows.made, as they are kept */
    bool has;            /* change: the client has kept it */
    uint8_t *bytes;      /* of an update */
};

void fst__rows_client_free(struct fst__rows_client *c)
{
    if (!c)
        return;
    rows_release(&c->rows);
    fst_coder_free(c->up);
    fst_coder_free(c->down);
    fst_free(c->read);
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
        st = rows_init(&c->rows, h->ops, e->pub, h->option, e->classes, e->graph, e->seed, err);
    if (!st)
        st = make_coder(&c->up, &c->codecs.up, &c->rows, err);
    if (!st)
        st = make_coder(&c->down, &c->codecs.down, &c->rows, err);
    if (st)
        return st;
    size_t n = floats_of(&c->rows), most = c->up ? fst_coder_most(c->up) : 1;
    c->read = fst_calloc(n, sizeof *c->read);
    c->bytes = fst_calloc(most, 1);
    return c->read && c->bytes ? FST_OK : fst_fail_memory(err, n * sizeof *c->read + most);
}

/* Are all rows that this client has to do with those that there is room for? */
static bool fits(const struct fst__rows_client *c, const fst_client_half *h)
{
    const fst_client_env *e = h->env;
    const struct rows *b = &c->rows;
    size_t all = b->pub ? e->pub->count : (size_t)e->classes;
    size_t columns = c->what->columns ? c->what->columns(e->graph) : (size_t)e->classes;
    return b->all == all && b->columns == columns && b->seed == e->seed &&
           fst__codec_equal(&c->codecs.up, &e->codecs.up) && fst__codec_equal(&c->codecs.down, &e->codecs.down);
}

/* Once for all clients that this half plays: they have the same public samples, or as many features. */
static fst_status make_ready(struct fst__rows_client **c, const fst_client_half *h, fst_error *err)
{
    struct fst__rows_client *had = *c;
    if (had && fits(had, h)) {
        had->rows.pub = had->rows.pub ? h->env->pub : NULL;
        return FST_OK;
    }
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
    struct rows *b = &c->rows;
    const void *version = NULL, *data = NULL, *labels = NULL;
    uint64_t of[2] = {0};
    c->has = kept->count && c->down && c->codecs.down.change;
    if (!c->has)
        return FST_OK;
    fst_status st = fst_message_get(kept, "base:version", FST_U64, FST_SHAPE(2), &version, err);
    if (!st)
        st = fst_message_get(kept, "base", FST_F32, shape_of(b), &data, err);
    if (!st && c->what->held)
        st = fst_message_get(kept, "base:held", FST_U8, FST_SHAPE((int64_t)b->most), &labels, err);
    if (st)
        return st;
    memcpy(of, version, sizeof of);
    memcpy(b->shared, data, floats_of(b) * sizeof *b->shared);
    if (labels)
        memcpy(b->there, labels, b->most);
    c->steps = of[0];
    rows_shared(b, of[1]);
    return FST_OK;
}

/* A step from what was shared before, which the client must have; or it has taken it, when a round was given up in
 * between. */
static fst_status take_step(struct fst__rows_client *c, const fst_message *down, const char *name, uint64_t steps,
                            fst_error *err)
{
    struct rows *b = &c->rows;
    if (!c->has || (c->steps != steps && c->steps + 1 != steps))
        return fst_fail(err, FST_E_MISMATCH, "is step %llu of what is shared, and this client has not the one before",
                        (unsigned long long)steps);
    if (c->steps == steps)
        return FST_OK;
    rows_about(b, down->base - 1);
    fst_status st = decode(c->down, b, down, name, true, c->read, err);
    if (!st)
        memcpy(b->shared, c->read, floats_of(b) * sizeof *b->shared);
    return st;
}

/* What was shared last becomes what was sent, and `down` says so. */
static fst_status take_shared(struct fst__rows_client *c, fst_message *down, fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    const void *data = NULL;
    uint64_t steps = 0;
    struct rows *b = &c->rows;
    bool change = c->down && c->codecs.down.change;
    fst_status st = change ? fst_message_get(down, "version", FST_U64, FST_SHAPE(1), &data, err) : FST_OK;
    if (!st && c->what->held)
        st = labels_of(b, down, err);
    if (st)
        return st;
    if (change)
        memcpy(&steps, data, sizeof steps);
    if (c->down)
        fst__coded_name(change ? "step" : c->what->name, &c->codecs.down, name);
    if (change && fst_message_find(down, name)) {
        st = take_step(c, down, name, steps, err);
    } else if (c->down && !change && fst_message_find(down, name)) {
        rows_about(b, down->base - 1);
        st = decode(c->down, b, down, name, false, b->shared, err);
    } else {
        memcpy(name, c->what->name, strlen(c->what->name) + 1);
        st = fst_message_get(down, name, FST_F32, shape_of(b), &data, err);
        if (!st)
            memcpy(b->shared, data, floats_of(b) * sizeof *b->shared);
    }
    if (st)
        return st;
    c->steps = steps;
    rows_shared(b, down->base);
    put(fst__coded_find(down, name), b, b->shared);
    return FST_OK;
}

fst_status fst__rows_take(struct fst__rows_client **c, const fst_client_half *h, const fst_message *kept,
                          fst_message *down, fst_error *err)
{
    fst_status st = make_ready(c, h, err);
    if (!st && (st = remember(*c, kept, err)))
        return fst_fail_in(err, st, "what it kept");
    if (st)
        return st;
    struct rows *b = &(*c)->rows;
    if (down->base && (st = take_shared(*c, down, err)))
        return fst_fail_in(err, st, "what the server sent");
    if (!down->base) { /* another client's may be there */
        memset(b->shared, 0, floats_of(b) * sizeof *b->shared);
        rows_shared(b, 0);
        (*c)->steps = 0;
    }
    return FST_OK;
}

fst_status fst__rows_give(struct fst__rows_client *c, fst_client_half *h, fst_message *up, fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    struct rows *b = &c->rows;
    const uint8_t *bytes = NULL;
    const void *x = NULL;
    size_t len = 0;
    fst_rng r;
    if (!c->up)
        return FST_OK;
    fst_rng_init(&r, h->env->seed, "codec.up", h->round << 32 | h->env->client);
    fst_status st = fst_message_get(up, c->what->name, FST_F32, shape_of(b), &x, err);
    if (!st && c->what->held)
        st = labels_of(b, up, err);
    if (!st) {
        rows_about(b, h->round);
        st = encode(c->up, b, x, true, &r, &bytes, &len, err);
    }
    if (!st)
        memcpy(c->bytes, bytes, len);
    if (!st && c->what->said)
        st = decode_span(c->up, b, c->bytes, len, true, c->read, err);
    if (st)
        return fst_fail_in(err, st, "coding the update");
    if (c->what->said)
        c->what->said(h, c->read);
    fst__coded_put_bytes(fst__coded_find(up, c->what->name), fst__coded_name(c->what->name, &c->codecs.up, name), len,
                         c->bytes);
    return FST_OK;
}

fst_status fst__rows_keep(struct fst__rows_client *c, const fst_client_half *h, fst_message *kept, fst_error *err)
{
    if (!h->env->codecs.down.kind || !h->env->codecs.down.change)
        return FST_OK;
    struct rows *b = &c->rows;
    c->version[0] = c->steps;
    c->version[1] = b->made;
    fst_status st = fst_message_add(kept, "base:version", FST_U64, FST_SHAPE(2), c->version, err);
    if (!st)
        st = fst_message_add(kept, "base", FST_F32, shape_of(b), b->shared, err);
    if (st || !c->what->held)
        return st;
    memset(b->there, 0, b->most);
    for (size_t i = 0; i < b->its_count; i++)
        b->there[b->its[i]] = 1;
    return fst_message_add(kept, "base:held", FST_U8, FST_SHAPE((int64_t)b->most), b->there, err);
}

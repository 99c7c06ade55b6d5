/* Codecs of messages, and of a model in them. A strategy's halves know nothing of them (but fd, whose sums have no
 * coded form): what the server half says is coded on its way down, what a client half says on its way up, and each half
 * reads what was decoded.
 *
 * Data flow, down: aggregate -> x -> publish: code (x + rest), x becomes what is decoded, rest what was lost ->
 * message. Up: y - x + residual -> code -> residual becomes what was lost -> message -> read: x + what is decoded ->
 * fold. Bytes from outside: fst_coder_decode trusts nothing; here names, types and lengths are checked before it sees
 * them. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "coded.h"

/* ---- which strategies, which tensors ---- */

const char *const fst__codes_model[] = {"params", NULL};

static const fst_codec none = {.kind = FST_CODEC_NONE};

bool fst_codecs_keep(const fst_codecs *c)
{
    return (c->up.kind && c->up.feedback) || (c->down.kind && c->down.change);
}

static fst_status check_model(const fst_codecs *c, const fst_strategy_ops *ops, fst_error *err)
{
    char names[400];
    if (c->up.kind == FST_CODEC_LEVELS || c->down.kind == FST_CODEC_LEVELS)
        return fst_fail(err, FST_E_CONFIG, "%s: levels codes probabilities, and the strategy %s sends a model",
                        c->up.kind == FST_CODEC_LEVELS ? "up" : "down", ops->name);
    if (c->down.kind && (ops->flags & FST_KEEPS_SHARED))
        return fst_fail(err, FST_E_CONFIG,
                        "down: the strategy %s sends models of several rounds, which are not coded; others do: %s",
                        ops->name, fst_strategy_names(FST_SENDS_STATE, FST_KEEPS_SHARED, names, sizeof names));
    if (c->down.kind && !c->down.change && (c->down.kind == FST_CODEC_TOP_K || c->down.kind == FST_CODEC_LOW_RANK))
        return fst_fail(err, FST_E_CONFIG, "down: %s codes changes: set change: true", fst_codec_name(c->down.kind));
    return FST_OK;
}

static fst_status check_rows(const fst_codecs *c, const fst_strategy_ops *ops, fst_error *err)
{
    bool levels = ops->predicts->probabilities;
    for (int i = 0; i < 2; i++) {
        const fst_codec *one = i ? &c->down : &c->up;
        const char *way = i ? "down" : "up";
        if (one->kind == FST_CODEC_TOP_K || one->kind == FST_CODEC_LOW_RANK ||
            (one->kind == FST_CODEC_LEVELS && !levels))
            return fst_fail(err, FST_E_CONFIG, "%s: the strategy %s sends %s, which %s does not code; these do: %s",
                            way, ops->name, ops->predicts->noun, fst_codec_name(one->kind),
                            levels ? "f16, int8, int4, levels" : "f16, int8, int4");
        if (one->feedback)
            return fst_fail(err, FST_E_CONFIG,
                            "%s: feedback has no effect: the strategy %s sends %s, which are made anew in every round",
                            way, ops->name, ops->predicts->noun);
    }
    return FST_OK;
}

static fst_status no_codecs(const fst_strategy_ops *ops, fst_error *err)
{
    char names[200] = "";
    size_t at = 0;
    for (size_t i = 0; fst_strategy_at(i) && at < sizeof names; i++) {
        const fst_strategy_ops *s = fst_strategy_at(i);
        if (!s->codes && !s->predicts)
            at += (size_t)snprintf(names + at, sizeof names - at, "%s%s", at ? ", " : "", s->name);
    }
    return fst_fail(err, FST_E_CONFIG, "the strategy %s sends nothing that codecs code; all do but %s", ops->name,
                    names);
}

fst_status fst_codecs_check(const fst_codecs *c, const fst_strategy_ops *ops, fst_error *err)
{
    fst_status st = fst_codec_check(&c->up, err);
    if (!st && (st = fst_codec_check(&c->down, err)))
        return fst_fail_in(err, st, "down");
    if (st)
        return fst_fail_in(err, st, "up");
    if (!c->up.kind && !c->down.kind)
        return FST_OK;
    if (ops->predicts)
        return check_rows(c, ops, err);
    return ops->codes ? check_model(c, ops, err) : no_codecs(ops, err);
}

const char *fst__coded_name(const char *tensor, const fst_codec *codec, char out[FST_MESSAGE_NAME])
{
    snprintf(out, FST_MESSAGE_NAME, "%s:%s", tensor, fst_codec_name(codec->kind));
    return out;
}

fst_message_tensor *fst__coded_find(fst_message *m, const char *name)
{
    return (fst_message_tensor *)fst_message_find(m, name);
}

static void put(fst_message_tensor *t, const char *name, fst_dtype dtype, int64_t count, const void *data)
{
    *t = (fst_message_tensor){.dtype = dtype, .shape = FST_SHAPE(count), .data = data};
    snprintf(t->name, sizeof t->name, "%s", name);
}

void fst__coded_put_bytes(fst_message_tensor *t, const char *name, size_t len, const void *data)
{
    put(t, name, FST_U8, (int64_t)len, data);
}

fst_status fst__coded_get_bytes(const fst_message *m, const char *name, const void **data, size_t *len, fst_error *err)
{
    const fst_message_tensor *t = fst_message_find(m, name);
    if (!t || t->dtype != FST_U8 || t->shape.rank != 1)
        return fst_fail(err, FST_E_MISMATCH, "%s \"%s\", one span of bytes, as the task's codec says",
                        t ? "needs" : "has no", name);
    *data = t->data;
    *len = (size_t)t->shape.dim[0];
    return FST_OK;
}

/* The tensor, which must be one span of bytes, decoded to x. */
static fst_status decode(fst_coder *coder, const fst_message *m, const char *name, float *x, fst_error *err)
{
    const void *data = NULL;
    size_t len = 0;
    fst_status st = fst__coded_get_bytes(m, name, &data, &len, err);
    if (st)
        return st;
    st = fst_coder_decode(coder, data, len, x, err);
    return st ? fst_fail_in(err, st == FST_E_FORMAT ? FST_E_MISMATCH : st, "\"%s\"", name) : FST_OK;
}

/* ---- the server's ---- */

struct fst__coded_server {
    struct fst__rows_server *rows; /* of rows: of the rest only codecs, codes, count and down_bytes are used then */
    fst_codecs codecs;
    const char *const *codes;
    const char *row_code[2]; /* rows: codes */
    size_t count;            /* of the model */
    size_t down_bytes;       /* of an element on its way down, were there no codecs */
    uint32_t clients;
    fst_coder *up, *down;
    float *read[FST__CODED]; /* room for one update */
    /* down */
    bool made; /* there is something to send */
    fst_error failed;
    float *rest;    /* what was lost */
    float *room;    /* count */
    uint8_t *bytes; /* the model, or its last step, coded */
    size_t len;
    uint64_t version;           /* steps so far */
    uint8_t *in_last, *in_open; /* change, by client: is its update in the last step; in the open round */
};

static fst_status make_up(struct fst__coded_server *c, const fst_graph *graph, fst_error *err)
{
    fst_status st = fst_coder_new(&c->up, &c->codecs.up, graph, err);
    for (size_t i = 0; !st && c->codes[i]; i++)
        if (!(c->read[i] = fst_calloc(c->count, sizeof(float))))
            st = fst_fail_memory(err, c->count * sizeof(float));
    return st;
}

static fst_status make_down(struct fst__coded_server *c, const fst_graph *graph, fst_error *err)
{
    fst_status st = fst_coder_new(&c->down, &c->codecs.down, graph, err);
    if (st)
        return st;
    size_t most = fst_coder_most(c->down);
    c->rest = fst_calloc(c->count, sizeof *c->rest);
    c->room = fst_calloc(c->count, sizeof *c->room);
    c->bytes = fst_calloc(most, 1);
    c->in_last = fst_calloc(c->clients, 1);
    c->in_open = fst_calloc(c->clients, 1);
    bool ok = c->rest && c->room && c->bytes && c->in_last && c->in_open;
    return ok ? FST_OK : fst_fail_memory(err, 2 * c->count * sizeof *c->rest + most);
}

static fst_status new_for_rows(struct fst__coded_server **out, const fst_strategy *s, fst_error *err)
{
    struct fst__coded_server *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    fst_status st = fst__rows_server_new(&c->rows, s, err);
    if (st) {
        fst__coded_server_free(c);
        return st;
    }
    c->codecs = s->env.codecs;
    c->row_code[0] = s->ops->predicts->name;
    c->codes = c->row_code;
    c->count = fst__rows_count(c->rows);
    c->down_bytes = s->ops->predicts->down_bytes ? s->ops->predicts->down_bytes : sizeof(float);
    *out = c;
    return FST_OK;
}

fst_status fst__coded_server_new(struct fst__coded_server **out, const fst_strategy *s, fst_error *err)
{
    const fst_server_env *e = &s->env;
    fst_status st = fst_codecs_check(&e->codecs, s->ops, err);
    if (st || (!e->codecs.up.kind && !e->codecs.down.kind))
        return st;
    if (s->ops->predicts)
        return new_for_rows(out, s, err);
    if (!e->graph || !e->global || fst_graph_param_count(e->graph) != e->global->size.params)
        return fst_fail(err, FST_E_ARGUMENT, "codecs need the shared network");
    struct fst__coded_server *c = fst_calloc(1, sizeof *c);
    if (!c)
        return fst_fail_memory(err, sizeof *c);
    c->codecs = e->codecs;
    c->codes = s->ops->codes;
    c->count = e->global->size.params;
    c->down_bytes = sizeof(float);
    c->clients = e->clients;
    if (c->codecs.up.kind)
        st = make_up(c, e->graph, err);
    if (!st && c->codecs.down.kind)
        st = make_down(c, e->graph, err);
    if (st)
        fst__coded_server_free(c);
    else
        *out = c;
    return st;
}

void fst__coded_server_free(struct fst__coded_server *c)
{
    if (!c)
        return;
    fst__rows_server_free(c->rows);
    fst_coder_free(c->up);
    fst_coder_free(c->down);
    for (int i = 0; i < FST__CODED; i++)
        fst_free(c->read[i]);
    fst_free(c->rest);
    fst_free(c->room);
    fst_free(c->bytes);
    fst_free(c->in_last);
    fst_free(c->in_open);
    fst_free(c);
}

bool fst__coded_publishes(const struct fst__coded_server *c)
{
    return c && c->codecs.down.kind;
}

/* Codes c->room, which becomes what is decoded; c->rest becomes what was lost. */
static fst_status code_room(struct fst__coded_server *c, const fst_strategy *s, uint64_t round, fst_error *err)
{
    const uint8_t *bytes = NULL;
    size_t len = 0;
    fst_rng r;
    fst_rng_init(&r, s->env.seed, "codec.down", round);
    fst_status st = fst_coder_encode(c->down, c->room, &r, &bytes, &len, err);
    if (st)
        return st;
    memcpy(c->bytes, bytes, len);
    c->len = len;
    memcpy(c->rest, c->room, c->count * sizeof *c->rest);
    st = fst_coder_decode(c->down, c->bytes, c->len, c->room, err);
    for (size_t i = 0; !st && i < c->count; i++)
        c->rest[i] = c->codecs.down.feedback ? c->rest[i] - c->room[i] : 0;
    return st;
}

void fst__coded_begin(struct fst__coded_server *c, const fst_strategy *s)
{
    if (c && c->rows)
        fst__rows_begin(c->rows, s);
    if (!c || !c->down)
        return;
    memset(c->in_open, 0, c->clients);
    if (c->made)
        return;
    float *x = s->env.global->params;
    fst_status st = FST_OK;
    if (!c->codecs.down.change) {
        memcpy(c->room, x, c->count * sizeof *x);
        st = code_room(c, s, 0, &c->failed);
    }
    if (!st && !c->codecs.down.change)
        memcpy(x, c->room, c->count * sizeof *x);
    c->made = !st;
}

fst_status fst__coded_publish(struct fst__coded_server *c, const fst_strategy *s, const float *before, double *norm,
                              fst_error *err)
{
    bool change = c->codecs.down.change;
    double lane[FST__LANES] = {0};
    if (c->rows)
        return fst__rows_publish(c->rows, s, norm, err);
    float *x = s->env.global->params;
    for (size_t i = 0; i < c->count; i++)
        c->room[i] = (change ? x[i] - before[i] : x[i]) + c->rest[i];
    fst_status st = code_room(c, s, s->round + 1, err);
    if (st)
        return fst_fail_in(err, st, "coding what is shared");
    for (size_t i = 0; i < c->count; i++)
        x[i] = change ? before[i] + c->room[i] : c->room[i];
    fst__add_squares(lane, x, before, c->count);
    *norm = sqrt(fst__sum_lanes(lane));
    uint8_t *in = c->in_last;
    c->in_last = c->in_open;
    c->in_open = in;
    c->version++;
    return FST_OK;
}

fst_status fst__coded_down(const struct fst__coded_server *c, uint32_t client, fst_message *m, fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    if (c && c->rows)
        return fst__rows_down(c->rows, client, m, err);
    if (!c || !c->down)
        return FST_OK;
    fst_message_tensor *t = fst__coded_find(m, c->codes[0]);
    bool change = c->codecs.down.change;
    if (!c->made)
        return fst_fail(err, c->failed.status, "coding the first model: %s", c->failed.message);
    if (!t)
        return fst_fail(err, FST_E_ARGUMENT, "there is no \"%s\" to code", c->codes[0]);
    if (!change)
        put(t, fst__coded_name(c->codes[0], &c->codecs.down, name), FST_U8, (int64_t)c->len, c->bytes);
    else if (c->in_last[client])
        put(t, fst__coded_name("step", &c->codecs.down, name), FST_U8, (int64_t)c->len, c->bytes);
    return change ? fst_message_add(m, "version", FST_U64, FST_SHAPE(1), &c->version, err) : FST_OK;
}

fst_status fst__coded_read(struct fst__coded_server *c, const fst_strategy *s, fst_message *m, fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    fst_message sent = fst_message_of("");
    if (c && c->rows)
        return fst__rows_read(c->rows, s, m, err);
    if (!c || !c->up)
        return FST_OK;
    sent.client = m->client;
    sent.round = sent.base = s->round;
    fst_status st = s->ops->server->down(s, m->client, &sent, err);
    for (size_t i = 0; !st && c->codes[i]; i++) {
        const void *base = NULL;
        st = decode(c->up, m, fst__coded_name(c->codes[i], &c->codecs.up, name), c->read[i], err);
        if (!st && i == 0)
            st = fst_message_get(&sent, c->codes[i], FST_F32, FST_SHAPE((int64_t)c->count), &base, err);
        for (size_t k = 0; !st && base && k < c->count; k++)
            c->read[i][k] = ((const float *)base)[k] + c->read[i][k];
        if (!st)
            put(fst__coded_find(m, name), c->codes[i], FST_F32, (int64_t)c->count, c->read[i]);
    }
    return st;
}

void fst__coded_folded(struct fst__coded_server *c, uint32_t client)
{
    if (c && c->rows)
        fst__rows_folded(c->rows, client);
    else if (c && c->down)
        c->in_open[client] = 1;
}

static bool is_coded(const struct fst__coded_server *c, const char *name)
{
    char coded[FST_MESSAGE_NAME];
    bool is = fst__coded_publishes(c) && (!strcmp(name, fst__coded_name("step", &c->codecs.down, coded)) ||
                                          !strcmp(name, fst__coded_name(c->codes[0], &c->codecs.down, coded)));
    for (size_t i = 0; c->codecs.up.kind && c->codes[i]; i++)
        is |= !strcmp(name, fst__coded_name(c->codes[i], &c->codecs.up, coded));
    return is;
}

uint64_t fst__coded_raw_bytes(const struct fst__coded_server *c, const fst_message *m)
{
    bool down = m->samples == 0;
    uint64_t n = 0;
    for (size_t i = 0; i < m->count; i++) {
        const fst_message_tensor *t = &m->tensor[i];
        if (c && (is_coded(c, t->name) || (down && !strcmp(t->name, c->codes[0]))))
            n += (down ? c->down_bytes : sizeof(float)) * (uint64_t)c->count;
        else if (!c || strcmp(t->name, "version"))
            n += (uint64_t)fst_shape_count(&t->shape) * fst_dtype_size(t->dtype);
    }
    return n;
}

/* ---- what the server keeps of it: nothing but for what goes down ---- */

struct saved {
    uint64_t made, version, len;
};

fst_status fst__coded_save(const struct fst__coded_server *c, fst_buf *out, fst_error *err)
{
    const struct saved head = {c->made, c->version, c->len};
    if (c->rows)
        return fst__rows_save(c->rows, out, err);
    if (!c->down)
        return FST_OK;
    fst_status st = fst_buf_append(out, &head, sizeof head, err);
    if (!st)
        st = fst_buf_append(out, c->rest, c->count * sizeof *c->rest, err);
    if (!st)
        st = fst_buf_append(out, c->in_last, c->clients, err);
    return st || !c->len ? st : fst_buf_append(out, c->bytes, c->len, err);
}

fst_status fst__coded_load(struct fst__coded_server *c, const void *data, size_t len, fst_error *err)
{
    struct saved head = {0};
    size_t rest = c->count * sizeof *c->rest, fixed = sizeof head + rest + c->clients;
    const uint8_t *at = data;
    if (c->rows)
        return fst__rows_load(c->rows, data, len, err);
    if (!c->down)
        return len ? fst_fail(err, FST_E_FORMAT, "%zu bytes too many of a codec", len) : FST_OK;
    if (len >= fixed)
        memcpy(&head, at, sizeof head);
    if (len < fixed || head.made > 1 || head.len > fst_coder_most(c->down) || len != fixed + head.len)
        return fst_fail(err, FST_E_FORMAT, "what a codec saved has %zu bytes", len);
    at += sizeof head;
    memcpy(c->room, at, rest);
    for (size_t i = 0; i < c->count; i++)
        if (!isfinite(c->room[i]))
            return fst_fail(err, FST_E_FORMAT, "what a codec saved has no number at %zu", i);
    for (uint32_t i = 0; i < c->clients; i++)
        if (at[rest + i] > 1)
            return fst_fail(err, FST_E_FORMAT, "client %lu is in the last step %u times", (unsigned long)i + 1,
                            at[rest + i]);
    if (head.len) { /* room holds what was checked */
        fst_status st = fst_coder_decode(c->down, at + rest + c->clients, head.len, c->room, err);
        if (st)
            return fst_fail_in(err, FST_E_FORMAT, "what a codec saved");
    }
    memcpy(c->rest, at, rest);
    memcpy(c->in_last, at + rest, c->clients);
    if (head.len)
        memcpy(c->bytes, at + rest + c->clients, head.len);
    c->made = head.made;
    c->version = head.version;
    c->len = head.len;
    return FST_OK;
}

/* ---- a client's ---- */

void fst__coded_client_release(struct fst__coded_client *c)
{
    fst__rows_client_free(c->rows);
    fst_coder_free(c->up);
    fst_coder_free(c->down);
    fst_free(c->base);
    fst_free(c->room);
    for (int i = 0; i < FST__CODED; i++) {
        fst_free(c->residual[i]);
        fst_free(c->bytes[i]);
    }
    *c = (struct fst__coded_client){.graph = NULL};
}

bool fst__codec_equal(const fst_codec *a, const fst_codec *b)
{
    return a->kind == b->kind && a->values == b->values && a->share == b->share && a->energy == b->energy &&
           a->bits == b->bits && a->per_channel == b->per_channel && a->stochastic == b->stochastic &&
           a->feedback == b->feedback && a->zstd == b->zstd && a->change == b->change;
}

/* Once for all clients of one network. */
static fst_status make_ready(struct fst__coded_client *c, const fst_client_half *h, fst_error *err)
{
    const fst_client_env *e = h->env;
    if (c->graph == e->graph && fst__codec_equal(&c->codecs.up, &e->codecs.up) &&
        fst__codec_equal(&c->codecs.down, &e->codecs.down))
        return FST_OK;
    fst__coded_client_release(c);
    size_t n = fst_graph_param_count(e->graph);
    fst_status st = fst_codecs_check(&e->codecs, h->ops, err);
    if (!st && e->codecs.up.kind)
        st = fst_coder_new(&c->up, &e->codecs.up, e->graph, err);
    if (!st && e->codecs.down.kind)
        st = fst_coder_new(&c->down, &e->codecs.down, e->graph, err);
    if (st)
        return st;
    c->base = fst_calloc(n, sizeof *c->base);
    c->room = fst_calloc(n, sizeof *c->room);
    bool ok = c->base && c->room;
    for (size_t i = 0; c->up && h->ops->codes[i]; i++) {
        c->residual[i] = fst_calloc(n, sizeof *c->residual[i]);
        c->bytes[i] = fst_calloc(fst_coder_most(c->up), 1);
        ok = ok && c->residual[i] && c->bytes[i];
    }
    if (!ok)
        return fst_fail_memory(err, n * sizeof *c->base);
    c->graph = e->graph;
    c->codecs = e->codecs;
    return FST_OK;
}

static const char *residual_name(const char *tensor, char out[FST_MESSAGE_NAME])
{
    snprintf(out, FST_MESSAGE_NAME, "residual:%s", tensor);
    return out;
}

/* What the client kept for its codecs; zeroes and nothing if it has not. */
static fst_status remember(struct fst__coded_client *c, const fst_client_half *h, const fst_message *kept, size_t n,
                           fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    const void *data = NULL;
    fst_status st = FST_OK;
    for (size_t i = 0; !st && c->up && h->ops->codes[i]; i++) {
        memset(c->residual[i], 0, n * sizeof *c->residual[i]);
        if (!kept->count || !c->codecs.up.feedback)
            continue;
        st = fst_message_get(kept, residual_name(h->ops->codes[i], name), FST_F32, FST_SHAPE((int64_t)n), &data, err);
        if (!st)
            memcpy(c->residual[i], data, n * sizeof *c->residual[i]);
    }
    c->has_base = false;
    if (st || !kept->count || !c->down || !c->codecs.down.change)
        return st;
    st = fst_message_get(kept, "base:version", FST_U64, FST_SHAPE(1), &data, err);
    if (!st)
        memcpy(&c->version, data, sizeof c->version);
    if (!st)
        st = fst_message_get(kept, "base", FST_F32, FST_SHAPE((int64_t)n), &data, err);
    if (!st)
        memcpy(c->base, data, n * sizeof *c->base);
    c->has_base = !st;
    return st;
}

/* A step from the model before, which the client must have; or it has taken it, when a round was given up in between.
 */
static fst_status take_step(struct fst__coded_client *c, const fst_message *down, const char *name, uint64_t version,
                            size_t n, fst_error *err)
{
    fst_status st = decode(c->down, down, name, c->room, err);
    if (st)
        return st;
    if (!c->has_base || (c->version != version && c->version + 1 != version))
        return fst_fail(err, FST_E_MISMATCH, "is step %llu of the shared model, and this client has not the one before",
                        (unsigned long long)version);
    for (size_t i = 0; c->version != version && i < n; i++)
        c->base[i] += c->room[i];
    return FST_OK;
}

/* c->base becomes the model that was sent, and `down` says so. */
static fst_status take_model(struct fst__coded_client *c, const char *model, size_t n, fst_message *down,
                             fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    const void *data = NULL;
    uint64_t version = 0;
    bool change = c->down && c->codecs.down.change;
    fst_status st = change ? fst_message_get(down, "version", FST_U64, FST_SHAPE(1), &data, err) : FST_OK;
    if (st)
        return st;
    if (change)
        memcpy(&version, data, sizeof version);
    fst__coded_name(change ? "step" : model, c->down ? &c->codecs.down : &none, name);
    if (change && fst_message_find(down, name)) {
        st = take_step(c, down, name, version, n, err);
    } else if (c->down && !change) {
        st = decode(c->down, down, name, c->base, err);
    } else {
        snprintf(name, sizeof name, "%s", model);
        st = fst_message_get(down, model, FST_F32, FST_SHAPE((int64_t)n), &data, err);
        if (!st)
            memcpy(c->base, data, n * sizeof *c->base);
    }
    if (st)
        return st;
    c->version = version;
    put(fst__coded_find(down, name), model, FST_F32, (int64_t)n, c->base);
    return FST_OK;
}

fst_status fst__coded_take(struct fst__coded_client *c, const fst_client_half *h, const fst_message *kept,
                           fst_message *down, fst_error *err)
{
    const fst_client_env *e = h->env;
    if (!e->codecs.up.kind && !e->codecs.down.kind)
        return FST_OK;
    if (h->ops->predicts)
        return fst__rows_take(&c->rows, h, kept, down, err);
    size_t n = fst_graph_param_count(e->graph);
    fst_status st = make_ready(c, h, err);
    if (!st && (st = remember(c, h, kept, n, err)))
        return fst_fail_in(err, st, "what it kept");
    if (!st && (st = take_model(c, h->ops->codes[0], n, down, err)))
        return fst_fail_in(err, st, "what the server sent");
    return st;
}

/* ---- up ---- */

static fst_status give_one(struct fst__coded_client *c, const fst_client_half *h, size_t i, fst_rng *rng,
                           fst_message *up, fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    const char *tensor = h->ops->codes[i];
    const uint8_t *bytes = NULL;
    const void *data = NULL;
    size_t n = fst_coder_count(c->up), len = 0;
    float *lost = c->residual[i];
    fst_status st = fst_message_get(up, tensor, FST_F32, FST_SHAPE((int64_t)n), &data, err);
    if (st)
        return st;
    const float *x = data;
    for (size_t k = 0; k < n; k++)
        lost[k] += i ? x[k] : x[k] - c->base[k];
    st = fst_coder_encode(c->up, lost, rng, &bytes, &len, err);
    if (st)
        return st;
    memcpy(c->bytes[i], bytes, len);
    st = fst_coder_decode(c->up, c->bytes[i], len, c->room, err);
    for (size_t k = 0; !st && k < n; k++)
        lost[k] -= c->room[k];
    if (!st)
        put(fst__coded_find(up, tensor), fst__coded_name(tensor, &c->codecs.up, name), FST_U8, (int64_t)len,
            c->bytes[i]);
    return st;
}

fst_status fst__coded_give(struct fst__coded_client *c, fst_client_half *h, fst_message *up, fst_error *err)
{
    fst_status st = FST_OK;
    fst_rng r;
    if (!h->env->codecs.up.kind)
        return FST_OK;
    if (h->ops->predicts)
        return fst__rows_give(c->rows, h, up, err);
    fst_rng_init(&r, h->env->seed, "codec.up", h->round << 32 | h->env->client);
    for (size_t i = 0; !st && h->ops->codes[i]; i++)
        st = give_one(c, h, i, &r, up, err);
    return st ? fst_fail_in(err, st, "coding the update") : FST_OK;
}

fst_status fst__coded_keep(const struct fst__coded_client *c, const fst_client_half *h, fst_message *kept,
                           fst_error *err)
{
    char name[FST_MESSAGE_NAME];
    const fst_codecs *k = &h->env->codecs;
    fst_status st = FST_OK;
    if (h->ops->predicts)
        return fst__rows_keep(c->rows, h, kept, err);
    for (size_t i = 0; !st && k->up.kind && k->up.feedback && h->ops->codes[i]; i++)
        st = fst_message_add(kept, residual_name(h->ops->codes[i], name), FST_F32,
                             FST_SHAPE((int64_t)fst_coder_count(c->up)), c->residual[i], err);
    if (st || !k->down.kind || !k->down.change)
        return st;
    st = fst_message_add(kept, "base:version", FST_U64, FST_SHAPE(1), &c->version, err);
    return st ? st : fst_message_add(kept, "base", FST_F32, FST_SHAPE((int64_t)fst_coder_count(c->down)), c->base, err);
}

/* CFD, compressed federated distillation (Sattler, Marban, Rischke, Samek, Communication-efficient federated
 * distillation, IEEE TNSE 2022): DS-FL whose probabilities go both ways as levels of a few bits (src/distill/cfd.c),
 * without sharpening. With 1 bit clients vote for a class, and what is shared is the class with most votes.
 *
 * Delta coding: a client's rows are packed against the rows that it was just sent, of the same samples. The paper packs
 * them against the client's own last ones, for which the server would have to keep those of every client. What goes
 * down is packed in full, as the server does not know which of the earlier ones a client has. What is
 * shared is the mean itself, or with server_epochs, as in the paper ("dual distillation"), what a model at the server
 * says that learns the mean from round to round (student.c).
 *
 * Data flow: logits -> softmax -> levels -> "labels" up -> exact mean (-> model -> its answers) -> levels -> "labels"
 * down in the next rounds, with base = 1 + the round that they were made in. */
#include <math.h>
#include <string.h>

#include "student.h"

enum { UP_BITS = FST__PUBLIC_OPTIONS, DOWN_BITS, SERVER_EPOCHS };
static const fst_option options[] = {
    [FST__PUBLIC_SAMPLES] = FST__OPTION_PUBLIC_SAMPLES,
    [FST__DIGEST_EPOCHS] = FST__OPTION_DIGEST_EPOCHS,
    [UP_BITS] = {"up_bits", FST_OPTION_WHOLE, .fallback = 1, .min = 1, .max = FST_CFD_MAX_BITS,
                 .help = "of a probability that a client sends; 1: the most likely class alone"},
    [DOWN_BITS] = {"down_bits", FST_OPTION_WHOLE, .fallback = 1, .min = 1, .max = FST_CFD_MAX_BITS,
                   .help = "of a probability that clients are sent; 1: the most likely class alone"},
    [SERVER_EPOCHS] = {"server_epochs", FST_OPTION_WHOLE, .max = 1e5,
                       .help =
                           "of a round, of a model at the server that learns the clients' mean, and whose answers are "
                           "sent in its place, as in the paper; 0: there is none"},
    {0},
};

/* ---- what both halves do ---- */

/* The labels that went down, and for which public samples. */
struct shared {
    uint32_t *row; /* rows: of the public samples, rising */
    uint16_t *level;
    size_t rows;
    float *value;
};

/* What both sides know of the samples in `row`: the shared labels in up_bits bits, zeros for samples without. */
static void known_of(const struct shared *s, const uint32_t *row, size_t rows, int classes, int up_bits,
                     uint16_t *known)
{
    size_t n = (size_t)classes, k = 0;
    for (size_t i = 0; i < rows; i++) {
        while (k < s->rows && s->row[k] < row[i])
            k++;
        if (k < s->rows && s->row[k] == row[i])
            fst_cfd_quantise(s->value + k * n, 1, classes, up_bits, known + i * n);
        else
            memset(known + i * n, 0, n * sizeof *known);
    }
}

static fst_status get_labels(const fst_message *m, const fst_message_tensor **out, fst_error *err)
{
    const fst_message_tensor *t = fst_message_find(m, "labels");
    if (!t || t->dtype != FST_U8 || t->shape.rank != 1)
        return fst_fail(err, FST_E_MISMATCH, "has no tensor \"labels\" of bytes");
    *out = t;
    return FST_OK;
}

/* ---- the server's half ---- */

struct cfd {
    fst_strategy base;
    size_t rows, classes;
    fst_accumulator sum;
    uint32_t *row; /* of the open round */
    uint16_t *known, *level;
    float *value;
    struct shared shared; /* of the last round */
    uint8_t *packed;      /* those, as they are sent */
    size_t packed_len;
    uint64_t made; /* 1 + that round; 0: there is none */
    struct fst__student student;
};

static int bits_of(const fst_strategy *s, int option)
{
    return (int)s->option[option];
}

static fst_status cfd_init(fst_strategy *s, fst_error *err)
{
    struct cfd *c = (struct cfd *)s;
    size_t want = (size_t)s->option[FST__PUBLIC_SAMPLES], all = s->env.pub->count;
    if (s->env.classes < 1)
        return fst_fail(err, FST_E_ARGUMENT, "strategy cfd: %d classes", s->env.classes);
    c->rows = want && want < all ? want : all;
    c->classes = (size_t)s->env.classes;
    size_t n = c->rows * c->classes;
    fst_status st = fst_accumulator_init(&c->sum, n, err);
    c->row = fst_calloc(all, sizeof *c->row); /* drawing needs room for all */
    c->shared.row = fst_calloc(all, sizeof *c->row);
    c->known = fst_calloc(n, sizeof *c->known);
    c->level = fst_calloc(n, sizeof *c->level);
    c->value = fst_calloc(n, sizeof *c->value);
    c->shared.level = fst_calloc(n, sizeof *c->level);
    c->shared.value = fst_calloc(n, sizeof *c->value);
    c->packed = fst_calloc(fst_cfd_most_bytes(c->rows, s->env.classes, bits_of(s, DOWN_BITS)), 1);
    bool got = c->row && c->shared.row && c->known && c->level && c->value && c->shared.level && c->shared.value;
    if (!st && !(got && c->packed))
        st = fst_fail_memory(err, n * (2 * sizeof *c->value + 3 * sizeof *c->level));
    return st || !s->option[SERVER_EPOCHS] ? st : fst__student_init(&c->student, &s->env, "cfd.student", c->rows, err);
}

static void cfd_release(fst_strategy *s)
{
    struct cfd *c = (struct cfd *)s;
    fst_accumulator_release(&c->sum);
    fst__student_release(&c->student);
    fst_free(c->row);
    fst_free(c->shared.row);
    fst_free(c->known);
    fst_free(c->level);
    fst_free(c->value);
    fst_free(c->shared.level);
    fst_free(c->shared.value);
    fst_free(c->packed);
}

static void cfd_begin(fst_strategy *s, uint64_t round)
{
    struct cfd *c = (struct cfd *)s;
    fst_accumulator_clear(&c->sum);
    (void)fst_public_draw(s->env.pub, s->env.seed, round, c->rows, c->row);
    known_of(&c->shared, c->row, c->rows, s->env.classes, bits_of(s, UP_BITS), c->known);
}

static fst_status cfd_down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    const struct cfd *c = (const struct cfd *)s;
    (void)client;
    fst_message_name(m, "labels");
    m->base = c->made;
    fst_status st = fst__add_public(s->env.pub, m, err);
    if (!st && c->made)
        st = fst_message_add(m, "labels", FST_U8, FST_SHAPE((int64_t)c->packed_len), c->packed, err);
    return st;
}

static fst_status cfd_fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct cfd *c = (struct cfd *)s;
    int up_bits = bits_of(s, UP_BITS);
    const fst_message_tensor *t = NULL;
    fst_status st = fst__check_public(s->env.pub, m, err);
    if (!st && m->base != c->made)
        st = fst_fail(err, FST_E_MISMATCH, "is packed against labels of round %llu, those shared are of round %llu",
                      (unsigned long long)m->base, (unsigned long long)c->made);
    if (!st)
        st = get_labels(m, &t, err);
    if (!st &&
        fst_cfd_unpack(t->data, (size_t)t->shape.dim[0], c->known, c->rows, s->env.classes, up_bits, c->level, err))
        st = fst_fail_in(err, FST_E_MISMATCH, "labels");
    if (st)
        return st;
    fst_cfd_values(c->level, c->rows, s->env.classes, up_bits, c->value);
    return fst_accumulator_add(&c->sum, c->value, 1, err);
}

/* `value` becomes what is shared. */
static void share(struct cfd *c, uint64_t made)
{
    const fst_strategy *s = &c->base;
    int down_bits = bits_of(s, DOWN_BITS);
    c->shared.rows = c->rows;
    c->made = made;
    (void)fst_public_draw(s->env.pub, s->env.seed, made - 1, c->rows, c->shared.row);
    fst_cfd_values(c->shared.level, c->rows, s->env.classes, down_bits, c->shared.value);
    c->packed_len = fst_cfd_pack(c->shared.level, NULL, c->rows, s->env.classes, down_bits, c->packed);
}

static fst_status cfd_aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    struct cfd *c = (struct cfd *)s;
    double lane[FST__LANES] = {0};
    int64_t epochs = (int64_t)s->option[SERVER_EPOCHS];
    fst_status st = fst_accumulator_mean(&c->sum, c->value, err);
    if (!st && epochs)
        st = fst__student_round(&c->student, s->round, c->row, c->value, epochs, work, err);
    if (st)
        return st;
    fst_cfd_quantise(c->value, c->rows, s->env.classes, bits_of(s, DOWN_BITS), c->shared.level);
    memcpy(c->value, c->shared.value, c->sum.count * sizeof *c->value);
    share(c, s->round + 1);
    fst__add_squares(lane, c->shared.value, c->value, c->sum.count);
    /* of other samples than before it means nothing */
    stats->update_norm = c->rows == s->env.pub->count ? sqrt(fst__sum_lanes(lane)) : NAN;
    return FST_OK;
}

static fst_status cfd_save(const fst_strategy *s, fst_buf *out, fst_error *err)
{
    const struct cfd *c = (const struct cfd *)s;
    fst_status st = fst_buf_append(out, &c->made, sizeof c->made, err);
    if (!st && s->option[SERVER_EPOCHS])
        st = fst__student_save(&c->student, out, err);
    return st || !c->made ? st : fst_buf_append(out, c->packed, c->packed_len, err);
}

static fst_status cfd_load(fst_strategy *s, const void *data, size_t len, fst_error *err)
{
    struct cfd *c = (struct cfd *)s;
    const uint8_t *p = data;
    uint64_t made;
    size_t model = s->option[SERVER_EPOCHS] ? (size_t)fst_fed_size_bytes(c->student.model.size) : 0;
    if (len < sizeof made + model)
        return fst_fail(err, FST_E_FORMAT, "the saved labels have %zu bytes", len);
    memcpy(&made, p, sizeof made);
    p += sizeof made + model;
    len -= sizeof made + model;
    if (!made && len)
        return fst_fail(err, FST_E_FORMAT, "there are labels of no round");
    fst_status st =
        made ? fst_cfd_unpack(p, len, NULL, c->rows, s->env.classes, bits_of(s, DOWN_BITS), c->level, err) : FST_OK;
    if (st)
        return fst_fail_in(err, st, "the saved labels");
    if (model && (st = fst__student_load(&c->student, p - model, err)))
        return st;
    c->made = made;
    c->shared.rows = 0;
    if (made) {
        memcpy(c->shared.level, c->level, c->sum.count * sizeof *c->level);
        share(c, made);
    }
    return FST_OK;
}

static const fst_server_ops server = {
    .bytes = sizeof(struct cfd),
    .init = cfd_init,
    .release = cfd_release,
    .begin = cfd_begin,
    .down = cfd_down,
    .fold = cfd_fold,
    .aggregate = cfd_aggregate,
    .save = cfd_save,
    .load = cfd_load,
};

/* ---- the client's half ---- */

struct cfd_client {
    struct fst__public_half half;
    struct shared shared;
    uint16_t *level, *known;
    uint8_t *packed;
    size_t room; /* public samples */
};

static void cfd_client_release(fst_client_half *h)
{
    struct cfd_client *c = (struct cfd_client *)h;
    fst__public_release(h);
    fst_free(c->shared.row);
    fst_free(c->shared.level);
    fst_free(c->shared.value);
    fst_free(c->level);
    fst_free(c->known);
    fst_free(c->packed);
}

/* Once for all clients that this half plays: they have the same public samples. */
static fst_status make_room(struct cfd_client *c, fst_error *err)
{
    const fst_client_env *e = c->half.base.env;
    size_t all = e->pub->count, n = all * (size_t)e->classes;
    if (c->room == all)
        return FST_OK;
    struct fst__public_half half = c->half;
    c->half = (struct fst__public_half){0};
    cfd_client_release(&c->half.base);
    *c = (struct cfd_client){.half = half, .room = all};
    c->shared.row = fst_calloc(all, sizeof *c->shared.row);
    c->shared.level = fst_calloc(n, sizeof *c->shared.level);
    c->shared.value = fst_calloc(n, sizeof *c->shared.value);
    c->level = fst_calloc(n, sizeof *c->level);
    c->known = fst_calloc(n, sizeof *c->known);
    c->packed = fst_calloc(fst_cfd_most_bytes(all, e->classes, (int)half.base.option[UP_BITS]), 1);
    if (c->shared.row && c->shared.level && c->shared.value && c->level && c->known && c->packed)
        return FST_OK;
    c->room = 0;
    return fst_fail_memory(err, n * (sizeof *c->shared.value + 3 * sizeof *c->level));
}

static fst_status learn(struct fst__public_half *p, const fst_message *down, fst_error *err)
{
    struct cfd_client *c = (struct cfd_client *)p;
    struct shared *s = &c->shared;
    int classes = p->base.env->classes, down_bits = (int)p->base.option[DOWN_BITS];
    const fst_message_tensor *t = NULL;
    fst_status st = make_room(c, err);
    s->rows = 0;
    if (st || !down->base)
        return st;
    st = fst__public_draw(p, down->base - 1, &s->rows, err);
    if (!st)
        st = get_labels(down, &t, err);
    if (!st)
        st = fst_cfd_unpack(t->data, (size_t)t->shape.dim[0], NULL, s->rows, classes, down_bits, s->level, err);
    if (st)
        return fst_fail_in(err, st, "what the server sent");
    memcpy(s->row, p->row, s->rows * sizeof *s->row);
    fst_cfd_values(s->level, s->rows, classes, down_bits, s->value);
    return fst__public_fit(p, s->rows, s->value, &fst__fit_probabilities, err);
}

static fst_status send_labels(struct cfd_client *c, size_t n, fst_message *up, fst_error *err)
{
    struct fst__public_half *p = &c->half;
    int classes = p->base.env->classes, up_bits = (int)p->base.option[UP_BITS];
    fst_softmax(p->out, n, classes, 1, p->out);
    for (size_t i = 0; i < n * (size_t)classes; i++)
        if (!isfinite(p->out[i]))
            return fst_fail(err, FST_E_NUMERIC, "a probability of public sample %zu is %g", i / (size_t)classes,
                            (double)p->out[i]);
    fst_cfd_quantise(p->out, n, classes, up_bits, c->level);
    known_of(&c->shared, p->row, n, classes, up_bits, c->known);
    size_t len = fst_cfd_pack(c->level, c->known, n, classes, up_bits, c->packed);
    fst_message_name(up, "labels");
    fst_status st = fst__add_public(p->base.env->pub, up, err);
    return st ? st : fst_message_add(up, "labels", FST_U8, FST_SHAPE((int64_t)len), c->packed, err);
}

static fst_status cfd_work(fst_client_half *h, const fst_message *down, fst_message *up, fst_error *err)
{
    struct cfd_client *c = (struct cfd_client *)h;
    size_t n = 0;
    fst_status st = fst__public_round(&c->half, down, learn, up, &n, err);
    return st ? st : send_labels(c, n, up, err);
}

static const fst_client_ops client = {
    .bytes = sizeof(struct cfd_client), .release = cfd_client_release, .work = cfd_work};

const fst_strategy_ops fst__cfd = {
    .name = "cfd",
    .summary = "dsfl in a few bits: quantised probabilities, of which only what changed is sent",
    .leaks =
        "The server sees every client's quantised probabilities of the public samples, with 1 bit its guess of their "
        "class, which tell of the labels that the client holds.",
    .options = options,
    .flags = FST_OWN_MODEL | FST_PUBLIC_DATA,
    .server = FST__HALF(&server),
    .client = FST__HALF(&client),
};

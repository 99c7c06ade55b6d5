/* The round engine as bytes and back. The format is fixed-width little-endian integers, written and read
 * by the same list of fields, closed by a hash; what is read is checked as foreign bytes are. */
#include <math.h>
#include <string.h>

#include "round_private.h"

static const char magic[8] = {'F', 'S', 'T', 'R', 'O', 'U', 'N', '1'};

/* Writes to `out` or, when that is NULL, reads from `in`. */
struct stream {
    fst_buf *out;
    const unsigned char *in;
    size_t left;
    fst_status status;
    fst_error *err;
};

static void bytes(struct stream *s, void *p, size_t n)
{
    if (s->status)
        return;
    if (s->out) {
        s->status = fst_buf_append(s->out, p, n, s->err);
    } else if (n > s->left) {
        s->status = fst_fail(s->err, FST_E_FORMAT, "a saved round is cut short");
    } else {
        memcpy(p, s->in, n);
        s->in += n;
        s->left -= n;
    }
}

static void u64(struct stream *s, uint64_t *v)
{
    unsigned char b[8];
    for (int i = 0; i < 8; i++)
        b[i] = (unsigned char)(*v >> (8 * i));
    bytes(s, b, sizeof b);
    if (s->out || s->status)
        return;
    *v = 0;
    for (int i = 0; i < 8; i++)
        *v |= (uint64_t)b[i] << (8 * i);
}

static void u32(struct stream *s, uint32_t *v)
{
    uint64_t wide = *v;
    u64(s, &wide);
    if (wide > UINT32_MAX && !s->status)
        s->status = fst_fail(s->err, FST_E_FORMAT, "a number in a saved round is too large");
    *v = (uint32_t)wide;
}

static void f64(struct stream *s, double *v)
{
    uint64_t bits;
    memcpy(&bits, v, sizeof bits);
    u64(s, &bits);
    memcpy(v, &bits, sizeof bits);
    if (!s->status && !isfinite(*v))
        s->status = fst_fail(s->err, FST_E_FORMAT, "a time in a saved round is not finite");
}

static void flag(struct stream *s, bool *v)
{
    uint32_t wide = *v;
    u32(s, &wide);
    *v = wide != 0;
}

/* An enumeration's value below `count`. */
static uint32_t choice(struct stream *s, uint32_t v, uint32_t count)
{
    u32(s, &v);
    if (!s->status && v >= count)
        s->status = fst_fail(s->err, FST_E_FORMAT, "a choice in a saved round has no meaning");
    return s->status ? 0 : v;
}

static void spec_fields(struct stream *s, fst_round_spec *p)
{
    u64(s, &p->seed);
    u32(s, &p->clients);
    u64(s, &p->first_round);
    u64(s, &p->rounds);
    u32(s, &p->cohort);
    f64(s, &p->fraction);
    f64(s, &p->over_select);
    u32(s, &p->quorum);
    u32(s, &p->min_clients);
    f64(s, &p->deadline);
    f64(s, &p->join_deadline);
    p->policy = (fst_quorum_policy)choice(s, (uint32_t)p->policy, FST_QUORUM_EXTEND + 1);
    u32(s, &p->max_extensions);
}

static void action_fields(struct stream *s, fst_fed_action *a, uint32_t clients)
{
    a->kind = (fst_fed_action_kind)choice(s, (uint32_t)a->kind, FST_ACTION_LOG + 1);
    a->why = (fst_fed_why)choice(s, (uint32_t)a->why, FST_WHY_COUNT);
    u32(s, &a->client);
    u64(s, &a->round);
    u64(s, &a->count);
    f64(s, &a->at);
    bool acts_on_client = a->kind == FST_ACTION_ANNOUNCE || a->kind == FST_ACTION_FOLD;
    if (!s->status && acts_on_client && a->client >= clients)
        s->status = fst_fail(s->err, FST_E_FORMAT, "a saved round holds an action for a client that there is not");
}

/* Counts that follow from the clients' bytes are not written, so that they cannot contradict them. */
static void engine_fields(struct stream *s, fst_round_engine *e)
{
    fst_round_view *v = &e->view;
    v->phase = (fst_round_phase)choice(s, (uint32_t)v->phase, FST_PHASE_FAILED + 1);
    u64(s, &v->round);
    u32(s, &v->selected);
    u32(s, &v->target);
    u32(s, &v->extensions);
    u64(s, &v->samples);
    flag(s, &e->started);
    flag(s, &e->expired);
    flag(s, &e->armed);
    f64(s, &e->now);
    f64(s, &e->due);
    u32(s, &e->announced);
    u32(s, &e->extended_from);
    bytes(s, e->client, e->spec.clients);
    if (!s->status && v->selected > e->spec.clients)
        s->status = fst_fail(s->err, FST_E_FORMAT, "a saved round selects more clients than there are");
    for (uint32_t i = 0; !s->status && i < v->selected; i++)
        u32(s, &e->order[i]);
    uint32_t waiting = choice(s, e->queued - e->fetched, QUEUE + 1);
    for (uint32_t i = 0; !s->status && i < waiting; i++)
        action_fields(s, &e->queue[s->out ? e->fetched + i : i], e->spec.clients);
    if (!s->out) {
        e->queued = waiting;
        e->fetched = 0;
    }
}

fst_status fst_round_save(const fst_round_engine *e, fst_buf *out, fst_error *err)
{
    size_t start = out->len;
    struct stream s = {.out = out, .err = err};
    const fst_round_view *v = &e->view;
    if (v->phase == FST_PHASE_AGGREGATE || v->phase == FST_PHASE_PUBLISH || v->folding || v->folded)
        return fst_fail(err, FST_E_ARGUMENT,
                        "round %llu has taken updates: an engine is saved before the first or after it was published",
                        (unsigned long long)v->round + 1);
    fst_round_engine copy = *e; /* the fields are only read: arrays stay shared */
    char head[sizeof magic];
    memcpy(head, magic, sizeof magic);
    bytes(&s, head, sizeof head);
    spec_fields(&s, &copy.spec);
    engine_fields(&s, &copy);
    uint64_t hash = s.status ? 0 : fst_hash(out->data + start, out->len - start, 0).lo;
    u64(&s, &hash);
    if (s.status)
        out->len = start;
    return s.status;
}

static fst_status contradiction(fst_error *err)
{
    return fst_fail(err, FST_E_FORMAT, "a saved round contradicts itself");
}

/* Whether a client's byte is one that the engine writes; counts it. */
static bool count_client(fst_round_view *v, uint8_t c)
{
    unsigned states = !!(c & CLIENT_PENDING) + !!(c & CLIENT_FOLDING) + !!(c & CLIENT_FOLDED) + !!(c & CLIENT_LOST);
    if ((c & ~CLIENT_ALL) || states > 1 || (states && !(c & CLIENT_SELECTED)))
        return false;
    v->joined += !!(c & CLIENT_JOINED);
    v->pending += !!(c & CLIENT_PENDING);
    v->folding += !!(c & CLIENT_FOLDING);
    v->folded += !!(c & CLIENT_FOLDED);
    v->lost += !!(c & CLIENT_LOST);
    v->refused += (c & CLIENT_SELECTED) && !states;
    return true;
}

/* A duplicate in order[] shows as fewer selected clients than entries. */
static fst_status recount(fst_round_engine *e, fst_error *err)
{
    fst_round_view *v = &e->view;
    uint32_t marked = 0;
    for (uint32_t c = 0; c < e->spec.clients; c++) {
        if (!count_client(v, e->client[c]))
            return contradiction(err);
        marked += !!(e->client[c] & CLIENT_SELECTED);
    }
    for (uint32_t i = 0; i < v->selected; i++) {
        if (e->order[i] >= e->spec.clients || !(e->client[e->order[i]] & CLIENT_SELECTED))
            return contradiction(err);
        e->client[e->order[i]] ^= CLIENT_SELECTED;
    }
    for (uint32_t i = 0; i < v->selected; i++)
        e->client[e->order[i]] |= CLIENT_SELECTED;
    bool over = v->phase == FST_PHASE_FINISHED;
    if (marked != v->selected || v->target > v->selected || e->announced > v->selected ||
        e->extended_from > v->selected || v->extensions > e->spec.max_extensions || v->round > e->spec.rounds ||
        over != (v->round == e->spec.rounds) || (v->phase == FST_PHASE_ANNOUNCE && v->selected))
        return contradiction(err);
    if (v->phase == FST_PHASE_COLLECT && (v->target == 0 || v->selected < (e->spec.quorum ? e->spec.quorum : 1)))
        return contradiction(err);
    return FST_OK;
}

static fst_status read_engine(fst_round_engine **out, struct stream *s)
{
    fst_round_spec spec = {0};
    fst_round_engine *e = NULL;
    spec_fields(s, &spec);
    if (!s->status)
        s->status = fst__round_check_spec(&spec, s->err);
    if (s->status)
        return fst_fail(s->err, FST_E_FORMAT, "a saved round has settings that make no sense");
    if (spec.clients > s->left)
        return fst_fail(s->err, FST_E_FORMAT, "a saved round is cut short");
    s->status = fst__round_allocate(&e, &spec, s->err);
    if (s->status)
        return s->status;
    engine_fields(s, e);
    if (!s->status && s->left)
        s->status = fst_fail(s->err, FST_E_FORMAT, "%zu bytes too many in a saved round", s->left);
    if (!s->status)
        s->status = recount(e, s->err);
    if (s->status)
        fst_round_free(e);
    else
        *out = e;
    return s->status;
}

fst_status fst_round_restore(fst_round_engine **out, const void *data, size_t len, fst_error *err)
{
    struct stream s = {.in = data, .left = len, .err = err};
    if (len < sizeof magic + 8 || memcmp(data, magic, sizeof magic) != 0)
        return fst_fail(err, FST_E_FORMAT, "these bytes are no saved round");
    uint64_t hash = 0, want = fst_hash(data, len - 8, 0).lo;
    struct stream tail = {.in = s.in + len - 8, .left = 8, .err = err};
    u64(&tail, &hash);
    if (hash != want)
        return fst_fail(err, FST_E_FORMAT, "a saved round is cut short or was changed");
    s.in += sizeof magic;
    s.left = len - sizeof magic - 8;
    return read_engine(out, &s);
}

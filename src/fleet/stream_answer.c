/* Who answers, see stream.h.
 *
 * Data flow: windows -> held, in a queue over all askers in the order of their coming -> taken by who computes ->
 * answer: kept in the asker's table by number, and put on its list of what is to be said. */
#include <math.h>
#include <string.h>

#include "stream.h"

struct asking {
    bool known;
    uint64_t stream, life;
    uint32_t held;                  /* windows */
    struct stream_answer *answered; /* [FST__ANSWERED], by number modulo that; tables are made with the stream */
    uint64_t *answered_of;          /* number + 1 of each, 0: none */
    uint64_t *held_of;              /* the same of windows that are held */
    struct stream_answer *say;      /* [FST__ANSWERS_MOST] */
    uint32_t to_say, said;          /* said: by the last body, which may come back */
    bool credit_due;
    double said_at;
};

struct answerer {
    struct answerer_spec spec;
    uint32_t bytes, active, turn;
    struct asking *asker;
    struct asked *head, *tail;
    size_t waiting;
    uint64_t lives;
    struct answerer_counters count;
};

fst_status fst__answerer_new(struct answerer **out, const struct answerer_spec *spec, fst_error *err)
{
    struct answerer *a = fst_calloc(1, sizeof *a);
    if (!a || !(a->asker = fst_calloc(spec->askers + 1, sizeof *a->asker))) {
        fst_free(a);
        return fst_fail_memory(err, (spec->askers + 1) * sizeof *a->asker);
    }
    a->spec = *spec;
    a->bytes = fst__window_bytes(spec->dtype, &spec->shape);
    *out = a;
    return FST_OK;
}

static void forget(struct asking *k)
{
    fst_free(k->answered);
    fst_free(k->answered_of);
    fst_free(k->held_of);
    fst_free(k->say);
    *k = (struct asking){.known = false};
}

void fst__answerer_free(struct answerer *a)
{
    if (!a)
        return;
    for (struct asked *h = a->head, *next; h; h = next) {
        next = h->next;
        fst_free(h);
    }
    for (uint32_t i = 0; i < a->spec.askers; i++)
        forget(&a->asker[i]);
    fst_free(a->asker);
    fst_free(a);
}

/* What an asker may have unanswered: its part of the budget. */
static uint32_t credit_of(const struct answerer *a)
{
    size_t n = a->spec.budget / a->bytes / (a->active ? a->active : 1);
    n = n < a->spec.batch ? a->spec.batch : n;
    return n < FST__ANSWERED ? (uint32_t)n : FST__ANSWERED;
}

fst_status fst__answerer_begin(struct answerer *a, uint32_t asker, uint64_t stream, fst_error *err)
{
    struct asking *k = &a->asker[asker];
    k->credit_due = true;
    if (k->known && k->stream == stream)
        return FST_OK;
    struct asking n = {.known = true, .stream = stream, .life = ++a->lives, .credit_due = true, .said_at = -INFINITY};
    n.answered = fst_calloc(FST__ANSWERED, sizeof *n.answered);
    n.answered_of = fst_calloc(FST__ANSWERED, sizeof *n.answered_of);
    n.held_of = fst_calloc(FST__ANSWERED, sizeof *n.held_of);
    n.say = fst_calloc(FST__ANSWERS_MOST, sizeof *n.say);
    if (!n.answered || !n.answered_of || !n.held_of || !n.say) {
        forget(&n);
        return fst_fail_memory(err, FST__ANSWERED * sizeof *n.answered);
    }
    a->active += !k->known;
    forget(k); /* what it had here is answered to nobody */
    *k = n;
    return FST_OK;
}

static void say(struct asking *k, const struct stream_answer *answer)
{
    if (k->to_say < FST__ANSWERS_MOST) /* else it is asked again */
        k->say[k->to_say++] = *answer;
}

static void hold(struct answerer *a, double now, uint32_t asker, uint64_t seq, const unsigned char *bytes)
{
    struct asking *k = &a->asker[asker];
    struct asked *h = fst_alloc(sizeof *h + a->bytes);
    if (!h) {
        a->count.dropped++;
        return;
    }
    *h = (struct asked){.asker = asker, .life = k->life, .seq = seq, .came = now, .answer = {.seq = seq}};
    memcpy(h->data, bytes, a->bytes);
    *(a->tail ? &a->tail->next : &a->head) = h;
    a->tail = h;
    a->waiting++;
    k->held_of[seq % FST__ANSWERED] = seq + 1;
    k->held++;
    a->count.windows++;
}

static void take_in(struct answerer *a, double now, uint32_t asker, uint64_t seq, const unsigned char *bytes)
{
    struct asking *k = &a->asker[asker];
    size_t at = seq % FST__ANSWERED;
    if (k->answered_of[at] == seq + 1) {
        say(k, &k->answered[at]);
        a->count.answered_again++;
    } else if (k->held_of[at] == seq + 1) {
        a->count.twice++;
    } else if (k->held_of[at] || k->held >= credit_of(a)) {
        a->count.dropped++;
        k->credit_due = true;
    } else {
        hold(a, now, asker, seq, bytes);
    }
}

/* A window of another kind is of no use to anybody: it is answered with that. */
static void refuse(struct answerer *a, uint32_t asker, const struct windows *m)
{
    for (uint32_t i = 0; i < m->count; i++) {
        const struct stream_answer no = {
            .seq = m->first + i, .answer = FST__NO_CLASS, .first = FST__NO_CLASS, .marks = MARK_REFUSED};
        say(&a->asker[asker], &no);
    }
}

bool fst__answerer_windows(struct answerer *a, double now, uint32_t asker, const struct windows *m, bool adopt)
{
    struct asking *k = &a->asker[asker];
    if ((!k->known || (adopt && k->stream != m->stream)) && fst__answerer_begin(a, asker, m->stream, NULL))
        return false;
    if (k->stream != m->stream) {
        a->count.foreign++;
        return false;
    }
    if (m->dtype != a->spec.dtype || !fst_shape_equal(&m->shape, &a->spec.shape)) {
        refuse(a, asker, m);
        return true;
    }
    for (uint32_t i = 0; i < m->count; i++)
        take_in(a, now, asker, m->first + i, (const unsigned char *)m->data + (size_t)i * a->bytes);
    return true;
}

struct asked *fst__answerer_take(struct answerer *a, double now)
{
    struct asked *h = a->head;
    while (h && a->asker[h->asker].life != h->life) {
        a->head = h->next;
        a->waiting--;
        fst_free(h);
        h = a->head;
    }
    if (!h) {
        a->tail = NULL;
        return NULL;
    }
    a->head = h->next;
    if (!a->head)
        a->tail = NULL;
    a->waiting--;
    h->next = NULL;
    h->taken = now;
    return h;
}

size_t fst__answerer_waiting(const struct answerer *a)
{
    return a->waiting;
}

bool fst__answerer_answer(struct answerer *a, struct asked *h)
{
    struct asking *k = &a->asker[h->asker];
    size_t at = h->seq % FST__ANSWERED;
    bool heard = k->life == h->life;
    if (heard) {
        h->answer.seq = h->seq;
        k->answered[at] = h->answer;
        k->answered_of[at] = h->seq + 1;
        k->held_of[at] = 0;
        k->held--;
        say(k, &h->answer);
    }
    fst_free(h);
    return heard;
}

static bool has_to_say(const struct asking *k, double now, double say_every)
{
    return k->known && (k->to_say || k->credit_due || (k->held && now - k->said_at >= say_every));
}

static fst_status write_body(const struct answerer *a, const struct asking *k, fst_buf *body)
{
    struct answers m = {.stream = k->stream, .credit = credit_of(a), .count = k->to_say};
    memcpy(m.digest, a->spec.digest, sizeof m.digest);
    body->len = 0;
    fst_status st = fst__answers_head(&m, body, NULL);
    for (uint32_t i = 0; !st && i < k->to_say; i++)
        st = fst__answer_write(&k->say[i], body, NULL);
    return st;
}

bool fst__answerer_next(struct answerer *a, double now, double say_every, uint32_t *asker, fst_buf *body)
{
    for (uint32_t i = 0; i < a->spec.askers; i++) {
        uint32_t who = (a->turn + i) % a->spec.askers;
        struct asking *k = &a->asker[who];
        if (!has_to_say(k, now, say_every))
            continue;
        if (write_body(a, k, body))
            return false;
        k->said = k->to_say;
        k->to_say = 0;
        k->credit_due = false;
        k->said_at = now;
        a->turn = who + 1;
        *asker = who;
        return true;
    }
    return false;
}

void fst__answerer_unsent(struct answerer *a, uint32_t asker)
{
    struct asking *k = &a->asker[asker];
    k->to_say = k->said;
    k->credit_due = true;
}

uint64_t fst__answerer_stream(const struct answerer *a, uint32_t asker, bool *known)
{
    *known = a->asker[asker].known;
    return a->asker[asker].stream;
}

const struct answerer_counters *fst__answerer_count(const struct answerer *a)
{
    return &a->count;
}

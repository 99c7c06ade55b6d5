/* The round engine: events in, actions out. It decides who is asked, whose update counts, when a round
 * closes and what happens when too few report. It refuses to do any of it: there is no I/O, no clock,
 * no thread and no allocation here, so that a test can drive it through any history. */
#include <math.h>
#include <string.h>

#include "round_private.h"

static bool finite_at_least(double x, double least)
{
    return isfinite(x) && x >= least;
}

fst_status fst__round_check_spec(const fst_round_spec *s, fst_error *err)
{
    uint32_t quorum = s->quorum ? s->quorum : 1;
    if (s->clients < 1)
        return fst_fail(err, FST_E_CONFIG, "a run needs at least one client");
    if (s->first_round > s->rounds)
        return fst_fail(err, FST_E_CONFIG, "round %llu is behind the last of %llu rounds",
                        (unsigned long long)s->first_round + 1, (unsigned long long)s->rounds);
    if (s->cohort == 0 && !(s->fraction > 0 && s->fraction <= 1))
        return fst_fail(err, FST_E_CONFIG, "fraction of clients is %g; above 0 and at most 1 is needed", s->fraction);
    if (s->cohort > s->clients)
        return fst_fail(err, FST_E_CONFIG, "%u clients a round of %u", (unsigned)s->cohort, (unsigned)s->clients);
    if (quorum > s->clients || (s->cohort && quorum > s->cohort))
        return fst_fail(err, FST_E_CONFIG, "a quorum of %u can never be reached by %u clients a round",
                        (unsigned)quorum, (unsigned)(s->cohort ? s->cohort : s->clients));
    if (s->min_clients > s->clients)
        return fst_fail(err, FST_E_CONFIG, "a round needs %u clients of %u", (unsigned)s->min_clients,
                        (unsigned)s->clients);
    if (!finite_at_least(s->over_select, 0))
        return fst_fail(err, FST_E_CONFIG, "over-selection is %g; 0 or more is needed", s->over_select);
    if (!finite_at_least(s->deadline, 0) || !finite_at_least(s->join_deadline, 0))
        return fst_fail(err, FST_E_CONFIG, "deadlines are %g and %g seconds; 0 or more is needed", s->deadline,
                        s->join_deadline);
    if ((unsigned)s->policy > FST_QUORUM_EXTEND)
        return fst_fail(err, FST_E_CONFIG, "unknown quorum policy %d", (int)s->policy);
    if (s->max_extensions > 255)
        return fst_fail(err, FST_E_CONFIG, "%u extensions; at most 255", (unsigned)s->max_extensions);
    return FST_OK;
}

fst_status fst__round_allocate(fst_round_engine **out, const fst_round_spec *spec, fst_error *err)
{
    fst_round_engine *e = fst_calloc(1, sizeof *e);
    if (!e)
        return fst_fail_memory(err, sizeof *e);
    e->spec = *spec;
    e->client = fst_calloc(spec->clients, 1);
    e->order = fst_calloc(spec->clients, sizeof *e->order);
    if (!e->client || !e->order) {
        fst_round_free(e);
        return fst_fail_memory(err, spec->clients * (1 + sizeof *e->order));
    }
    *out = e;
    return FST_OK;
}

void fst_round_free(fst_round_engine *e)
{
    if (!e)
        return;
    fst_free(e->client);
    fst_free(e->order);
    fst_free(e);
}

fst_round_view fst_round_look(const fst_round_engine *e)
{
    return e->view;
}

/* ---- actions ---- */

static void push(fst_round_engine *e, fst_fed_action a)
{
    if (a.kind != FST_ACTION_DISCARD && (a.kind != FST_ACTION_LOG || a.why != FST_WHY_IGNORED))
        a.round = e->view.round;
    e->queue[e->queued++] = a;
}

static void push_why(fst_round_engine *e, fst_fed_action_kind kind, fst_fed_why why, uint64_t count)
{
    push(e, (fst_fed_action){.kind = kind, .why = why, .count = count});
}

static void push_client(fst_round_engine *e, fst_fed_action_kind kind, fst_fed_why why, uint32_t client)
{
    push(e, (fst_fed_action){.kind = kind, .why = why, .client = client});
}

static void ignore(fst_round_engine *e, const fst_fed_event *ev)
{
    push(e, (fst_fed_action){.kind = FST_ACTION_LOG, .why = FST_WHY_IGNORED, .client = ev->client, .round = ev->round});
}

static void arm(fst_round_engine *e, double seconds)
{
    e->armed = seconds > 0;
    e->due = e->armed ? e->now + seconds : 0;
    if (e->armed)
        push(e, (fst_fed_action){.kind = FST_ACTION_SET_TIMER, .at = e->due});
}

bool fst_round_next_action(fst_round_engine *e, fst_fed_action *out)
{
    if (e->fetched < e->queued) {
        *out = e->queue[e->fetched++];
        return true;
    }
    if (e->view.phase != FST_PHASE_COLLECT || e->announced >= e->view.selected)
        return false;
    fst_fed_why why = e->announced < e->extended_from ? FST_WHY_SELECTED : FST_WHY_EXTENDED;
    *out = (fst_fed_action){
        .kind = FST_ACTION_ANNOUNCE, .why = why, .client = e->order[e->announced], .round = e->view.round};
    e->announced++;
    return true;
}

/* ---- opening a round ---- */

/* Draws up to `want` clients that are there and not selected yet, behind the cohort so far. The stream
 * and the ascending list of candidates fix the draw. */
static uint32_t draw(fst_round_engine *e, uint32_t want, const char *purpose, uint64_t index, bool choose)
{
    uint32_t *list = e->order + e->view.selected, n = 0;
    for (uint32_t c = 0; c < e->spec.clients; c++)
        if ((e->client[c] & (CLIENT_JOINED | CLIENT_SELECTED)) == CLIENT_JOINED)
            list[n++] = c;
    if (want > n)
        want = n;
    fst_rng rng;
    fst_rng_init(&rng, e->spec.seed, purpose, index);
    if (choose)
        e->spec.select(e->spec.select_ctx, list, n, want);
    for (uint32_t i = 0; i < want; i++) {
        uint32_t j = choose ? i : i + (uint32_t)fst_rng_below(&rng, n - i), t = list[i];
        list[i] = list[j];
        list[j] = t;
        e->client[list[i]] |= CLIENT_SELECTED | CLIENT_PENDING;
    }
    e->view.selected += want;
    e->view.pending += want;
    return want;
}

static uint32_t quorum_of(const fst_round_engine *e)
{
    return e->spec.quorum ? e->spec.quorum : 1;
}

static uint32_t cohort_size(const fst_round_engine *e)
{
    uint32_t want = e->spec.cohort;
    if (want == 0)
        want = (uint32_t)fst_share_of(e->view.joined, e->spec.fraction);
    if (want < quorum_of(e))
        want = quorum_of(e);
    return want < e->view.joined ? want : e->view.joined;
}

static void open_round(fst_round_engine *e)
{
    uint32_t target = cohort_size(e);
    double ask = ceil(target * (1 + e->spec.over_select));
    if (ask > e->view.joined)
        ask = e->view.joined;
    e->view.phase = FST_PHASE_COLLECT;
    e->view.target = target;
    draw(e, (uint32_t)ask, "client.select", e->view.round, e->spec.select != NULL);
    e->extended_from = e->view.selected;
    push_why(e, FST_ACTION_LOG, FST_WHY_OPENED, e->view.selected);
    arm(e, e->spec.deadline);
}

static uint32_t clients_needed(const fst_round_engine *e)
{
    return e->spec.min_clients > quorum_of(e) ? e->spec.min_clients : quorum_of(e);
}

/* Opens the round when enough clients are there, else waits for more. */
static void try_open(fst_round_engine *e)
{
    if (e->view.joined >= clients_needed(e)) {
        open_round(e);
        return;
    }
    push_why(e, FST_ACTION_LOG, FST_WHY_WAITING, e->view.joined);
    if (!e->armed)
        arm(e, e->spec.join_deadline);
}

static void reset_round(fst_round_engine *e)
{
    for (uint32_t i = 0; i < e->view.selected; i++)
        e->client[e->order[i]] &= CLIENT_JOINED;
    fst_round_view *v = &e->view;
    v->selected = v->target = v->pending = v->folding = v->folded = v->lost = v->refused = v->extensions = 0;
    v->samples = 0;
    e->announced = e->extended_from = 0;
    e->expired = false;
    e->armed = false;
}

static void next_round(fst_round_engine *e)
{
    reset_round(e);
    e->view.round++;
    if (e->view.round >= e->spec.rounds) {
        e->view.phase = FST_PHASE_FINISHED;
        push_why(e, FST_ACTION_FINISHED, FST_WHY_NONE, e->view.round);
        return;
    }
    e->view.phase = FST_PHASE_ANNOUNCE;
    try_open(e);
}

/* ---- closing a round ---- */

static void close_round(fst_round_engine *e, fst_fed_why why)
{
    e->armed = false;
    push_why(e, FST_ACTION_CLOSE, why, e->view.folded);
    e->view.phase = FST_PHASE_AGGREGATE;
    push_why(e, FST_ACTION_AGGREGATE, FST_WHY_NONE, e->view.folded);
}

static void fail(fst_round_engine *e, fst_fed_why why)
{
    e->armed = false;
    if (e->view.phase == FST_PHASE_COLLECT)
        push_why(e, FST_ACTION_CLOSE, why, e->view.folded);
    e->view.phase = FST_PHASE_FAILED;
    push_why(e, FST_ACTION_FAILED, why, e->view.folded);
}

static void extend(fst_round_engine *e)
{
    uint32_t have = e->view.folded + e->view.pending;
    if (e->view.extensions >= e->spec.max_extensions) {
        fail(e, FST_WHY_NO_QUORUM);
        return;
    }
    uint64_t index = e->view.round << 8 | e->view.extensions;
    uint32_t more = draw(e, e->view.target > have ? e->view.target - have : 0, "client.extend", index, false);
    if (e->view.pending == 0 && !e->expired) {
        /* Nobody to ask now: somebody may come back before the deadline. */
        if (!e->armed)
            fail(e, FST_WHY_NO_QUORUM);
        return;
    }
    e->view.extensions++;
    e->expired = false;
    push_why(e, FST_ACTION_LOG, FST_WHY_EXTENSION, more);
    arm(e, e->spec.deadline);
}

static void too_few(fst_round_engine *e)
{
    switch (e->spec.policy) {
    case FST_QUORUM_SKIP:
        e->armed = false;
        push_why(e, FST_ACTION_CLOSE, FST_WHY_NO_QUORUM, e->view.folded);
        next_round(e);
        break;
    case FST_QUORUM_EXTEND:
        extend(e);
        break;
    default:
        fail(e, FST_WHY_NO_QUORUM);
        break;
    }
}

/* Closes the round when nothing more is to be waited for. */
static void check_close(fst_round_engine *e)
{
    const fst_round_view *v = &e->view;
    if (v->phase != FST_PHASE_COLLECT || v->folding)
        return;
    if (v->folded == v->selected)
        close_round(e, FST_WHY_ALL_REPORTED);
    else if (v->folded >= v->target)
        close_round(e, FST_WHY_ENOUGH);
    else if (v->pending && !e->expired)
        return;
    else if (v->folded < quorum_of(e))
        too_few(e);
    else
        close_round(e, v->pending ? FST_WHY_DEADLINE : FST_WHY_ALL_ANSWERED);
}

/* ---- events ---- */

static void on_joined(fst_round_engine *e, const fst_fed_event *ev)
{
    uint8_t *c = &e->client[ev->client];
    if (!(*c & CLIENT_JOINED))
        e->view.joined++;
    *c |= CLIENT_JOINED;
    push_client(e, FST_ACTION_LOG, FST_WHY_JOINED, ev->client);
    if (e->view.phase == FST_PHASE_ANNOUNCE) {
        try_open(e);
        return;
    }
    if (e->view.phase != FST_PHASE_COLLECT)
        return;
    if (*c & CLIENT_LOST) {
        *c = (uint8_t)((*c & ~CLIENT_LOST) | CLIENT_PENDING);
        e->view.lost--;
        e->view.pending++;
    }
    if (*c & CLIENT_PENDING)
        push_client(e, FST_ACTION_ANNOUNCE, FST_WHY_REJOINED, ev->client);
    else
        check_close(e); /* a round that is short may ask the newcomer */
}

static fst_fed_why judge_update(const fst_round_engine *e, const fst_fed_event *ev)
{
    const fst_round_view *v = &e->view;
    if (ev->client >= e->spec.clients)
        return FST_WHY_UNKNOWN_CLIENT;
    if (v->phase == FST_PHASE_FINISHED || v->phase == FST_PHASE_FAILED)
        return FST_WHY_ENDED;
    if (ev->round < v->round)
        return FST_WHY_STALE;
    if (ev->round > v->round || v->phase == FST_PHASE_ANNOUNCE)
        return FST_WHY_FUTURE;
    uint8_t c = e->client[ev->client];
    if (c & (CLIENT_FOLDED | CLIENT_FOLDING))
        return FST_WHY_DUPLICATE;
    if (v->phase != FST_PHASE_COLLECT)
        return FST_WHY_LATE;
    if (!(c & CLIENT_SELECTED))
        return FST_WHY_NOT_SELECTED;
    if (!(c & (CLIENT_PENDING | CLIENT_LOST)))
        return FST_WHY_REFUSED_BEFORE;
    if (ev->samples < 1 || ev->samples > FST_ACCUMULATOR_MAX_WEIGHT)
        return FST_WHY_BAD_SAMPLES;
    return FST_WHY_NONE;
}

/* The client yields nothing in this round. */
static void write_off(fst_round_engine *e, uint32_t client, fst_fed_why why)
{
    uint8_t *c = &e->client[client];
    if (*c & CLIENT_FOLDING)
        e->view.folding--;
    else if (*c & CLIENT_PENDING)
        e->view.pending--;
    else
        e->view.lost--;
    *c &= (uint8_t) ~(CLIENT_FOLDING | CLIENT_PENDING | CLIENT_LOST);
    e->view.refused++;
    if (why != FST_WHY_NONE)
        push_client(e, FST_ACTION_LOG, why, client);
    check_close(e);
}

static void on_update(fst_round_engine *e, const fst_fed_event *ev)
{
    fst_fed_why why = judge_update(e, ev);
    if (why != FST_WHY_NONE) {
        push(e, (fst_fed_action){.kind = FST_ACTION_DISCARD, .why = why, .client = ev->client, .round = ev->round});
        if (why == FST_WHY_BAD_SAMPLES)
            write_off(e, ev->client, FST_WHY_NONE);
        return;
    }
    uint8_t *c = &e->client[ev->client];
    /* One that was taken for lost still counts: its update is here. */
    if (*c & CLIENT_LOST)
        e->view.lost--;
    else
        e->view.pending--;
    *c = (uint8_t)((*c & ~(CLIENT_PENDING | CLIENT_LOST)) | CLIENT_FOLDING);
    e->view.folding++;
    push_client(e, FST_ACTION_FOLD, FST_WHY_NONE, ev->client);
}

static bool is_current(const fst_round_engine *e, const fst_fed_event *ev, fst_round_phase phase)
{
    return e->view.phase == phase && ev->round == e->view.round;
}

static void on_folded(fst_round_engine *e, const fst_fed_event *ev)
{
    if (!is_current(e, ev, FST_PHASE_COLLECT) || !(e->client[ev->client] & CLIENT_FOLDING)) {
        ignore(e, ev);
        return;
    }
    e->client[ev->client] ^= CLIENT_FOLDING | CLIENT_FOLDED;
    e->view.folding--;
    e->view.folded++;
    if (ev->samples > 0)
        e->view.samples += (uint64_t)ev->samples;
    check_close(e);
}

static void on_refused(fst_round_engine *e, const fst_fed_event *ev)
{
    const uint8_t awaited = CLIENT_FOLDING | CLIENT_PENDING | CLIENT_LOST;
    if (is_current(e, ev, FST_PHASE_COLLECT) && (e->client[ev->client] & awaited))
        write_off(e, ev->client, FST_WHY_REFUSED);
    else
        ignore(e, ev);
}

static void on_lost(fst_round_engine *e, const fst_fed_event *ev)
{
    uint8_t *c = &e->client[ev->client];
    if (!(*c & CLIENT_JOINED)) {
        ignore(e, ev);
        return;
    }
    *c &= (uint8_t)~CLIENT_JOINED;
    e->view.joined--;
    if (e->view.phase == FST_PHASE_COLLECT && (*c & CLIENT_PENDING)) {
        *c ^= CLIENT_PENDING | CLIENT_LOST;
        e->view.pending--;
        e->view.lost++;
        push_client(e, FST_ACTION_LOG, FST_WHY_LOST_PENDING, ev->client);
        check_close(e);
    } else {
        bool counted = *c & (CLIENT_FOLDING | CLIENT_FOLDED);
        push_client(e, FST_ACTION_LOG, counted ? FST_WHY_LOST_COUNTED : FST_WHY_LOST_IDLE, ev->client);
    }
}

static void on_timer(fst_round_engine *e)
{
    if (!e->armed && e->view.phase == FST_PHASE_ANNOUNCE)
        arm(e, e->spec.join_deadline); /* nobody has joined yet: the wait begins when the time is first heard of */
    if (!e->armed)
        return; /* of a round that is closed */
    if (e->now < e->due) {
        push(e, (fst_fed_action){.kind = FST_ACTION_SET_TIMER, .at = e->due});
        return;
    }
    e->armed = false;
    if (e->view.phase == FST_PHASE_ANNOUNCE) {
        fail(e, FST_WHY_NO_CLIENTS);
        return;
    }
    e->expired = true;
    check_close(e);
}

static void on_aggregated(fst_round_engine *e, const fst_fed_event *ev)
{
    if (!is_current(e, ev, FST_PHASE_AGGREGATE)) {
        ignore(e, ev);
        return;
    }
    e->view.phase = FST_PHASE_PUBLISH;
    push_why(e, FST_ACTION_PUBLISH, FST_WHY_NONE, e->view.folded);
}

static void on_published(fst_round_engine *e, const fst_fed_event *ev)
{
    if (is_current(e, ev, FST_PHASE_PUBLISH))
        next_round(e);
    else
        ignore(e, ev);
}

static bool is_over(const fst_round_engine *e)
{
    return e->view.phase == FST_PHASE_FINISHED || e->view.phase == FST_PHASE_FAILED;
}

static void dispatch(fst_round_engine *e, const fst_fed_event *ev)
{
    bool about_client = ev->kind != FST_EVENT_TIMER && ev->kind != FST_EVENT_AGGREGATED &&
                        ev->kind != FST_EVENT_PUBLISHED && ev->kind != FST_EVENT_UPDATE;
    if (ev->kind != FST_EVENT_UPDATE && (is_over(e) || (about_client && ev->client >= e->spec.clients))) {
        ignore(e, ev);
        return;
    }
    switch (ev->kind) {
    case FST_EVENT_JOINED:
        on_joined(e, ev);
        break;
    case FST_EVENT_UPDATE:
        on_update(e, ev);
        break;
    case FST_EVENT_FOLDED:
        on_folded(e, ev);
        break;
    case FST_EVENT_REFUSED:
        on_refused(e, ev);
        break;
    case FST_EVENT_TIMER:
        on_timer(e);
        break;
    case FST_EVENT_LOST:
        on_lost(e, ev);
        break;
    case FST_EVENT_AGGREGATED:
        on_aggregated(e, ev);
        break;
    case FST_EVENT_PUBLISHED:
        on_published(e, ev);
        break;
    }
}

fst_status fst_round_event(fst_round_engine *e, const fst_fed_event *event, fst_error *err)
{
    if ((unsigned)event->kind > FST_EVENT_PUBLISHED)
        return fst_fail(err, FST_E_ARGUMENT, "unknown event %d", (int)event->kind);
    if (!isfinite(event->now))
        return fst_fail(err, FST_E_ARGUMENT, "an event must say when it happened, not %g", event->now);
    if (e->fetched < e->queued || (e->view.phase == FST_PHASE_COLLECT && e->announced < e->view.selected))
        return fst_fail(err, FST_E_ARGUMENT, "actions of the last event wait: fetch them before the next event");
    e->queued = e->fetched = 0;
    if (!e->started || event->now > e->now)
        e->now = event->now;
    e->started = true;
    dispatch(e, event);
    return FST_OK;
}

fst_status fst_round_new(fst_round_engine **out, const fst_round_spec *spec, fst_error *err)
{
    fst_round_engine *e = NULL;
    fst_status s = fst__round_check_spec(spec, err);
    if (!s)
        s = fst__round_allocate(&e, spec, err);
    if (s)
        return s;
    e->view.round = spec->first_round;
    e->view.phase = FST_PHASE_ANNOUNCE;
    if (spec->first_round == spec->rounds) {
        e->view.phase = FST_PHASE_FINISHED;
        push_why(e, FST_ACTION_FINISHED, FST_WHY_NONE, spec->rounds);
    }
    *out = e;
    return FST_OK;
}

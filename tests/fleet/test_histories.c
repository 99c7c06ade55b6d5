/*
 * A whole federation in simulated time: one coordinator and its sites over a transport that loses, doubles, delays and
 * reorders, with processes killed and started again at any moment. Whatever happens, the run ends within bounded time
 * with the bits of a simulation in one process. The seeds are FEDSTILL_HISTORIES in number (default 270) for each of
 * the nine kinds of disturbance; 3 ms a history.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "coordinator.h"
#include "site.h"

enum { CLIENTS = 3, ROUNDS = 4, PARAMS = 24, FILES = 8 };
static const fst_fed_size SIZE = {PARAMS, 2, 1};
static const int64_t SAMPLES[CLIENTS] = {5, 9, 2};
static const char *const IDS[CLIENTS] = {"edge-1", "edge-2", "edge-3"};
static const double LONGEST = 4000; /* simulated seconds */

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

/* ---- what is computed, the same in both worlds ---- */

static void train(const fst_fed_view *from, uint32_t client, uint64_t round, fst_fed_state *to, double *loss)
{
    fst_rng r;
    fst_rng_init(&r, round, "test.train", client);
    fst_fed_state_copy(to, from);
    for (size_t i = 0; i < SIZE.params; i++)
        to->params[i] += (float)(0.1 * fst_rng_normal(&r)) - 0.125f * to->params[i];
    for (size_t i = 0; i < SIZE.buffers; i++)
        to->buffers[i] = (float)fst_rng_uniform(&r);
    to->counters[0] += client + 1;
    *loss = fst_rng_uniform(&r);
}

static fst_status in_process(void *ctx, int worker, const fst_message *down, fst_message *up, fst_error *err)
{
    fst_fed_state *room = ctx;
    fst_fed_view global;
    (void)worker;
    ok(fst_message_state(down, SIZE, &global, err), err);
    train(&global, down->client, down->round, room, &up->loss);
    fst_message_name(up, "state");
    fst_fed_view v = fst_fed_state_view(room);
    return fst_message_add_state(up, &v, err);
}

static fst_strategy *new_strategy(const char *name, fst_fed_state *global)
{
    fst_error err = {0};
    const fst_strategy_ops *ops;
    fst_strategy *s;
    const fst_server_env env = {.seed = 1, .clients = CLIENTS, .classes = 2, .global = global};
    ok(fst_strategy_of(&ops, name, &err), &err);
    ok(fst_strategy_new(&s, ops, NULL, 0, &env, &err), &err);
    return s;
}

static fst_simulate_spec spec_of(fst_strategy *s, uint32_t cohort)
{
    return (fst_simulate_spec){.seed = 4,
                               .clients = CLIENTS,
                               .samples = SAMPLES,
                               .rounds = ROUNDS,
                               .cohort = cohort,
                               .quorum = cohort,
                               .policy = FST_QUORUM_EXTEND,
                               .max_extensions = 255,
                               .workers = 1,
                               .noun = "edge",
                               .strategy = s,
                               .work = in_process};
}

static void undisturbed(const char *name, uint32_t cohort, fst_fed_state *global)
{
    fst_error err = {0};
    fst_fed_state room;
    ok(fst_fed_state_init(&room, SIZE, &err), &err);
    fst_strategy *s = new_strategy(name, global);
    fst_simulate_spec spec = spec_of(s, cohort);
    spec.ctx = &room;
    ok(fst_simulate(&spec, &err), &err);
    fst_strategy_free(s);
    fst_fed_state_release(&room);
}

/* ---- a store in memory, which outlives its process ---- */

struct file {
    char name[16];
    fst_buf bytes;
};
struct disk {
    struct file file[FILES];
};

static struct file *find(struct disk *d, const char *name, bool make)
{
    for (int i = 0; i < FILES; i++)
        if (!strcmp(d->file[i].name, name))
            return &d->file[i];
    for (int i = 0; make && i < FILES; i++)
        if (!d->file[i].name[0]) {
            snprintf(d->file[i].name, sizeof d->file[i].name, "%s", name);
            return &d->file[i];
        }
    return NULL;
}

static fst_status put(void *ctx, const char *name, const fst_buf *head, const void *data, size_t len, fst_error *err)
{
    struct file *f = find(ctx, name, true);
    f->bytes.len = 0;
    if (head)
        ok(fst_buf_append(&f->bytes, head->data, head->len, err), err);
    return fst_buf_append(&f->bytes, data, len, err);
}

static fst_status get(void *ctx, const char *name, fst_buf *out, bool *found, fst_error *err)
{
    struct file *f = find(ctx, name, false);
    *found = f != NULL;
    return f ? fst_buf_append(out, f->bytes.data, f->bytes.len, err) : FST_OK;
}

static void drop(void *ctx, const char *name)
{
    struct file *f = find(ctx, name, false);
    if (f)
        f->name[0] = 0;
}

static void wipe(struct disk *d)
{
    for (int i = 0; i < FILES; i++)
        fst_buf_release(&d->file[i].bytes);
}

/* ---- processes ---- */

struct world;
struct site_process {
    struct world *world;
    uint32_t client;
    struct disk disk;
    fst_transport *transport;
    struct site *site;
    unsigned starts;
    double up_at;      /* when it starts again; INFINITY: it runs, or is done */
    double trained_at; /* INFINITY: it does not train */
    struct site_job job;
    bool done;
};

struct world {
    fst_inproc *hub;
    double now;
    fst_rng rng;
    struct site_process site[CLIENTS];
    /* the coordinator, and what its process keeps on disk */
    fst_transport *transport;
    struct coordinator *coordinator;
    fst_strategy *strategy;
    fst_server *server;
    fst_simulate_spec spec;
    fst_fed_state global, saved_global;
    fst_buf saved;
    int64_t counted[CLIENTS], saved_counted[CLIENTS];
    uint64_t epoch;
    double cloud_up_at;
    bool finished;
    const char *method;
    uint32_t cohort;
    double trains_for; /* at most */
    unsigned trainings, kills, cuts;
    uint64_t held[CLIENTS];   /* rounds that hold an update of the client, as saved */
    bool measures, measuring; /* what each client keeps is asked for after each round */
    bool second;              /* of what is given after a round */
    bool gives;               /* instead, each is given something: the same, or in odd rounds something of its own */
    double healed_at[CLIENTS + 1];
};

static void to_site(void *ctx, const char *topic, const void *data, size_t len)
{
    struct site_process *p = ctx;
    fst_error err = {0};
    ok(fst__site_message(p->site, p->world->now, topic, data, len, &err), &err);
}

static void site_link(void *ctx, bool up, const char *why)
{
    struct site_process *p = ctx;
    (void)why;
    fst__site_link(p->site, p->world->now, up);
}

static bool keeps(void *ctx, const char *stage)
{
    (void)ctx;
    (void)stage;
    return true;
}

static void start_site(struct site_process *p)
{
    fst_error err = {0};
    char will[FST_TOPIC];
    const fst_transport_events on = {.ctx = p, .message = to_site, .link = site_link};
    const fst_transport_will w = {fst_topic_up(will, IDS[p->client], "will"), "", 0};
    ok(fst_inproc_open(&p->transport, p->world->hub, IDS[p->client], &on, &w, &err), &err);
    struct site_spec spec = {.id = IDS[p->client],
                             .hello = {.role = "edge", .client = p->client, .learn = (uint64_t)SAMPLES[p->client]},
                             .transport = p->transport,
                             .store = {.ctx = &p->disk, .put = put, .get = get, .drop = drop},
                             .keeps = keeps,
                             .most = 1 << 20,
                             .now = p->world->now};
    memset(spec.hello.task, 'a', FST_DIGEST_HEX - 1);
    memset(spec.hello.data, 'b', FST_DIGEST_HEX - 1);
    snprintf(spec.instance, sizeof spec.instance, "%08x%08x", p->client, ++p->starts);
    ok(fst__site_new(&p->site, &spec, &err), &err);
    p->up_at = p->trained_at = INFINITY;
}

static void kill_site(struct site_process *p, double back_in)
{
    fst_inproc_kill(p->transport);
    fst__site_free(p->site);
    p->site = NULL;
    p->up_at = p->world->now + back_in;
    p->world->kills++;
}

/* Its figures say how often it has trained for rounds that counted. */
static void finish_measuring(struct site_process *p)
{
    fst_client_figures own = {.has = p->job.kept_len > 0};
    uint64_t times = 0;
    p->trained_at = INFINITY;
    if (p->job.down) { /* it says what it was given */
        assert_int_equal(p->job.down_len, sizeof times);
        memcpy(&times, p->job.down, sizeof times);
        own.has = true;
    } else if (own.has)
        memcpy(&times, p->job.kept, sizeof times);
    own.samples = times;
    fst__site_measured(p->site, p->world->now, &own, NULL);
}

/* What a client keeps here: how often it has trained, which the update shows, so that a round that counts twice or not
 * at all is seen in the bits. */
static void finish_training(struct site_process *p)
{
    fst_error err = {0};
    if (p->job.measure) {
        finish_measuring(p);
        return;
    }
    fst_message down, up = fst_message_of("state");
    fst_fed_view v;
    fst_fed_state room;
    fst_buf packed = {0};
    uint64_t times = 0;
    p->trained_at = INFINITY;
    p->world->trainings++;
    ok(fst_message_parse(&down, p->job.down, p->job.down_len, &err), &err);
    ok(fst_message_state(&down, SIZE, &v, &err), &err);
    ok(fst_fed_state_init(&room, SIZE, &err), &err);
    train(&v, p->client, down.round, &room, &up.loss);
    up.client = p->client;
    up.round = down.round;
    up.base = down.base;
    up.samples = SAMPLES[p->client];
    v = fst_fed_state_view(&room);
    ok(fst_message_add_state(&up, &v, &err), &err);
    ok(fst_message_pack(&up, &packed, &err), &err);
    if (p->job.kept_len)
        memcpy(&times, p->job.kept, sizeof times);
    times++;
    /* in full participation it has counted in every round before */
    if (p->world->cohort == CLIENTS)
        assert_int_equal(times, down.round + 1);
    ok(fst__site_trained(p->site, p->world->now, packed.data, packed.len, &times, sizeof times, 1, NULL, &err), &err);
    fst_buf_release(&packed);
    fst_fed_state_release(&room);
}

static void run_site(struct site_process *p)
{
    fst_error err = {0};
    const char *why;
    if (p->done)
        return;
    if (!p->site) {
        if (p->world->now >= p->up_at)
            start_site(p);
        else
            return;
    }
    ok(fst_transport_poll(p->transport, 0, &err), &err);
    if (p->world->now >= p->trained_at)
        finish_training(p);
    ok(fst__site_tick(p->site, p->world->now, &err), &err);
    if (p->trained_at == INFINITY && fst__site_job(p->site, &p->job))
        p->trained_at = p->world->now + p->world->trains_for * fst_rng_uniform(&p->world->rng);
    if (fst__site_ended(p->site, &why)) {
        assert_string_equal(why, "");
        p->done = true;
        fst_transport_close(p->transport);
        fst__site_free(p->site);
        p->site = NULL;
    }
}

static void to_cloud(void *ctx, const char *topic, const void *data, size_t len)
{
    struct world *w = ctx;
    fst__coordinator_message(w->coordinator, w->now, topic, data, len);
}

static void cloud_link(void *ctx, bool up, const char *why)
{
    struct world *w = ctx;
    (void)why;
    fst__coordinator_link(w->coordinator, w->now, up);
}

/* A process: the state of the last round that ended is loaded, all else is new. */
static void start_cloud(struct world *w)
{
    fst_error err = {0};
    const fst_transport_events on = {.ctx = w, .message = to_cloud, .link = cloud_link};
    fst_round_spec rounds;
    fst_fed_view v = fst_fed_state_view(&w->saved_global);
    fst_fed_state_copy(&w->global, &v);
    memcpy(w->counted, w->saved_counted, sizeof w->counted);
    w->strategy = new_strategy(w->method, &w->global);
    w->spec = spec_of(w->strategy, w->cohort);
    ok(fst_simulate_rounds(&w->spec, &rounds, &err), &err);
    rounds.deadline = 600;
    ok(fst_server_new(&w->server, &rounds, w->strategy, "edge", &err), &err);
    if (w->saved.len)
        ok(fst_server_load(w->server, w->saved.data, w->saved.len, &err), &err);
    ok(fst_inproc_open(&w->transport, w->hub, "cloud", &on, NULL, &err), &err);
    struct coordinator_spec spec = {.ids = IDS,
                                    .clients = CLIENTS,
                                    .run = 77,
                                    .epoch = ++w->epoch,
                                    .settings = "",
                                    .numerics = "",
                                    .transport = w->transport,
                                    .now = w->now};
    memset(spec.task, 'a', FST_DIGEST_HEX - 1);
    ok(fst__coordinator_new(&w->coordinator, &spec, &err), &err);
    ok(fst__coordinator_begin(w->coordinator, w->now, "federated", &w->spec, w->server, w->counted, &err), &err);
    w->cloud_up_at = INFINITY;
    w->measuring = w->second = false;
}

static void stop_cloud(struct world *w, bool killed)
{
    fst__coordinator_free(w->coordinator);
    if (killed)
        fst_inproc_kill(w->transport);
    else
        fst_transport_close(w->transport);
    fst_server_free(w->server);
    fst_strategy_free(w->strategy);
    w->coordinator = NULL;
}

/* How many rounds hold an update of the client, with the one that has just ended. */
static uint64_t expected_of(const struct world *w, uint32_t client)
{
    const fst_round_report *r = fst_server_report(w->server);
    uint64_t n = w->held[client];
    for (uint32_t i = 0; i < r->reported; i++)
        n += r->reported_client[i] == client;
    return n;
}

static void save_cloud(struct world *w)
{
    fst_error err = {0};
    fst_fed_view v = fst_fed_state_view(&w->global);
    for (uint32_t k = 0; k < CLIENTS; k++)
        w->held[k] = expected_of(w, k);
    w->saved.len = 0;
    ok(fst_server_save(w->server, &w->saved, &err), &err);
    fst_fed_state_copy(&w->saved_global, &v);
    memcpy(w->saved_counted, w->counted, sizeof w->counted);
}

/* Two gifts after each round, whose answers must not be mistaken for each other. */
static uint64_t given_to(uint64_t rounds, uint32_t client, bool second)
{
    return 1000 * rounds + (rounds % 2 ? client : 0) + (second ? 500 : 0);
}

/* Client 1 is left out where each has something of its own. */
static void give(struct world *w, uint64_t rounds)
{
    fst_error err = {0};
    fst_buf given[CLIENTS] = {{.len = 0}};
    size_t count = rounds % 2 ? CLIENTS : 1;
    for (uint32_t k = 0; k < count; k++) {
        uint64_t value = given_to(rounds, k, w->second);
        if (count == 1 || k != 1)
            ok(fst_buf_append(&given[k], &value, sizeof value, &err), &err);
    }
    ok(fst__coordinator_give(w->coordinator, w->now, "federated", rounds, given, count, &err), &err);
    for (uint32_t k = 0; k < CLIENTS; k++)
        fst_buf_release(&given[k]);
}

/* True once the figures of the round that ended are here, and right. */
static bool has_measured(struct world *w)
{
    fst_error err = {0};
    fst_client_figures own[CLIENTS] = {{.has = false}};
    uint64_t rounds = fst_server_report(w->server)->round + 1;
    uint32_t missing;
    if (!w->measures)
        return true;
    if (!w->measuring && w->gives)
        give(w, rounds);
    else if (!w->measuring)
        fst__coordinator_measure(w->coordinator, w->now, "federated", rounds, "");
    w->measuring = true;
    if (!fst__coordinator_measured(w->coordinator, &missing))
        return false;
    w->measuring = false;
    ok(fst__coordinator_figures(w->coordinator, own, &err), &err);
    for (uint32_t k = 0; k < CLIENTS && w->gives; k++)
        assert_int_equal(own[k].samples, k == 1 && rounds % 2 ? 0 : given_to(rounds, k, w->second));
    w->second = w->gives && !w->second;
    if (w->second)
        return has_measured(w);
    for (uint32_t k = 0; k < CLIENTS && !w->gives; k++) {
        assert_int_equal(own[k].samples, expected_of(w, k));
        assert_int_equal(own[k].has, expected_of(w, k) > 0);
    }
    return true;
}

static void run_cloud(struct world *w)
{
    fst_error err = {0};
    if (!w->coordinator) {
        if (w->now < w->cloud_up_at)
            return;
        start_cloud(w);
    }
    ok(fst_transport_poll(w->transport, 0, &err), &err);
    ok(fst__coordinator_tick(w->coordinator, w->now, &err), &err);
    switch (fst__coordinator_wants(w->coordinator)) {
    case WANT_AGGREGATE:
        ok(fst_server_aggregate(w->server, NULL, w->now, &err), &err);
        fst__coordinator_done(w->coordinator, w->now);
        break;
    case WANT_EVALUATE:
        if (!has_measured(w))
            break;
        save_cloud(w);
        ok(fst_server_publish(w->server, w->now, &err), &err);
        fst__coordinator_done(w->coordinator, w->now);
        break;
    case WANT_FINISH:
        fst__coordinator_end(w->coordinator);
        w->finished = true;
        break;
    case WANT_FAIL:
        ok(fst_server_failure(w->server, &err) ? FST_OK : FST_E_ARGUMENT, &err);
        fail_msg("the run failed: %s", err.message);
        break;
    case WANT_NOTHING:
        break;
    }
    if (w->finished && w->coordinator)
        (void)fst__coordinator_stop(w->coordinator, w->now);
}

/* ---- a history ---- */

struct plan {
    fst_inproc_faults faults;
    double kill_site, kill_cloud; /* probabilities, a second */
    double back_in;               /* seconds that a killed process stays away, at most */
    double cut, cut_for;          /* probability a second that a link is cut; seconds, at most */
    bool measures, gives;
    bool
        replaces; /* others may take the place of those that were drawn: the bits are not those of an undisturbed run */
    const char *method;
    uint32_t cohort;
};

static const char *link_of(uint32_t k)
{
    return k < CLIENTS ? IDS[k] : "cloud";
}

static void cut_links(struct world *w, const struct plan *p, double step)
{
    for (uint32_t k = 0; k <= CLIENTS; k++)
        if (w->now >= w->healed_at[k] || w->finished) {
            fst_inproc_heal(w->hub, link_of(k));
            w->healed_at[k] = INFINITY;
        } else if (!isfinite(w->healed_at[k]) && p->cut > 0 && fst_rng_uniform(&w->rng) < p->cut * step) {
            fst_inproc_cut(w->hub, link_of(k));
            w->healed_at[k] = w->now + p->cut_for * fst_rng_uniform(&w->rng);
            w->cuts++;
        }
}

static void disturb(struct world *w, const struct plan *p, double step)
{
    for (uint32_t k = 0; k < CLIENTS; k++)
        if (w->site[k].site && fst_rng_uniform(&w->rng) < p->kill_site * step)
            kill_site(&w->site[k], p->back_in * fst_rng_uniform(&w->rng));
    if (w->coordinator && !w->finished && fst_rng_uniform(&w->rng) < p->kill_cloud * step) {
        stop_cloud(w, true);
        w->cloud_up_at = w->now + p->back_in * fst_rng_uniform(&w->rng);
        w->kills++;
    }
}

static bool all_done(const struct world *w)
{
    bool all = w->finished;
    for (uint32_t k = 0; k < CLIENTS; k++)
        all = all && w->site[k].done;
    return all;
}

static void tell_and_fail(const struct world *w, uint64_t seed)
{
    for (uint32_t k = 0; k < CLIENTS; k++) {
        char stage[FST__STAGE_NAME];
        uint64_t round = 0;
        const struct site_process *p = &w->site[k];
        fst__site_state state = p->site ? fst__site_state_of(p->site, stage, &round) : SITE_STATES;
        print_message("%s: done %d, state %s in round %llu\n", IDS[k], p->done, fst__site_state_name(state),
                      (unsigned long long)round);
    }
    fail_msg("seed %llu: after %.0f seconds the run has not ended", (unsigned long long)seed, w->now);
}

static void play(uint64_t seed, const struct plan *p, const fst_fed_state *want, double *seconds, unsigned *kills,
                 unsigned *cuts)
{
    fst_error err = {0};
    struct world *w = calloc(1, sizeof *w);
    const fst_inproc_options options = {.faults = p->faults, .simulated_time = true};
    fst_rng_init(&w->rng, seed, "test.history", 0);
    w->method = p->method;
    w->cohort = p->cohort;
    w->measures = p->measures;
    w->gives = p->gives;
    w->trains_for = 30;
    ok(fst_inproc_new(&w->hub, &options, &err), &err);
    ok(fst_fed_state_init(&w->global, SIZE, &err), &err);
    ok(fst_fed_state_init(&w->saved_global, SIZE, &err), &err);
    for (uint32_t k = 0; k < CLIENTS; k++) {
        w->site[k] = (struct site_process){.world = w, .client = k, .trained_at = INFINITY};
        w->site[k].up_at = 5 * fst_rng_uniform(&w->rng);
        w->saved_counted[k] = -1;
    }
    for (uint32_t k = 0; k <= CLIENTS; k++)
        w->healed_at[k] = INFINITY;
    while (!all_done(w) && w->now < LONGEST) {
        double step = 0.05 + 0.2 * fst_rng_uniform(&w->rng);
        w->now += step;
        fst_inproc_advance(w->hub, w->now);
        run_cloud(w);
        for (uint32_t k = 0; k < CLIENTS; k++)
            run_site(&w->site[k]);
        if (p->cut > 0)
            cut_links(w, p, step);
        if (!w->finished)
            disturb(w, p, step);
    }
    if (!all_done(w))
        tell_and_fail(w, seed);
    if (!p->replaces) {
        assert_memory_equal(w->global.params, want->params, PARAMS * sizeof(float));
        assert_memory_equal(w->global.buffers, want->buffers, SIZE.buffers * sizeof(float));
        assert_memory_equal(w->global.counters, want->counters, SIZE.counters * sizeof(int64_t));
    }
    *seconds = w->now;
    *kills += w->kills;
    *cuts += w->cuts;
    stop_cloud(w, false);
    for (uint32_t k = 0; k < CLIENTS; k++)
        wipe(&w->site[k].disk);
    fst_buf_release(&w->saved);
    fst_fed_state_release(&w->global);
    fst_fed_state_release(&w->saved_global);
    fst_inproc_free(w->hub);
    free(w);
}

static unsigned histories(void)
{
    const char *n = getenv("FEDSTILL_HISTORIES");
    return n ? (unsigned)strtoul(n, NULL, 10) : 270;
}

static void try_plan(struct plan p, unsigned count)
{
    fst_error err = {0};
    fst_fed_state want;
    double seconds, longest = 0;
    unsigned kills = 0, cuts = 0;
    ok(fst_fed_state_init(&want, SIZE, &err), &err);
    undisturbed(p.method, p.cohort, &want);
    for (unsigned i = 0; i < count; i++) {
        p.faults.seed = i;
        play(i, &p, &want, &seconds, &kills, &cuts);
        longest = seconds > longest ? seconds : longest;
    }
    print_message("%u histories, %u kills, %u cuts, the longest %.0f s\n", count, kills, cuts, longest);
    if (p.cut > 0)
        assert_true(cuts > 0);
    if (p.kill_site > 0)
        assert_true(kills > 0);
    fst_fed_state_release(&want);
}

static void test_quiet(void **state)
{
    (void)state;
    try_plan((struct plan){.method = "fedavg", .cohort = CLIENTS}, 3);
    try_plan((struct plan){.method = "fedavg", .cohort = 2}, 3);
}

static void test_bad_network(void **state)
{
    const fst_inproc_faults bad = {.drop = 0.2, .twice = 0.2, .late = 0.3, .lateness = 8, .delay = 0.02};
    (void)state;
    try_plan((struct plan){.method = "fedavg", .cohort = CLIENTS, .faults = bad}, histories());
    /* a site that seems lost would be replaced by another one in a cohort of two: no message is lost */
    const fst_inproc_faults slow = {.twice = 0.3, .late = 0.4, .lateness = 4, .delay = 0.02};
    try_plan((struct plan){.method = "fedadam", .cohort = 2, .faults = slow}, histories());
}

static void test_kills(void **state)
{
    const fst_inproc_faults some = {.drop = 0.05, .twice = 0.1, .late = 0.1, .lateness = 4};
    (void)state;
    try_plan(
        (struct plan){
            .method = "fedavg", .cohort = CLIENTS, .faults = some, .kill_site = 0.01, .kill_cloud = 0.01, .back_in = 8},
        histories());
}

/* Links that break for longer than a site may be silent, with and without processes that are killed too. */
static void test_partitions(void **state)
{
    const fst_inproc_faults some = {.drop = 0.05, .twice = 0.1, .late = 0.1, .lateness = 4};
    struct plan p = {.method = "fedavg", .cohort = CLIENTS, .faults = some, .cut = 0.02, .cut_for = 40};
    (void)state;
    try_plan(p, histories());
    p.kill_site = p.kill_cloud = 0.01;
    p.back_in = 8;
    try_plan(p, histories());
}

/* After each round, before it is saved: every client's own model is that of the rounds that counted. */
static void test_measuring(void **state)
{
    const fst_inproc_faults some = {.drop = 0.05, .twice = 0.1, .late = 0.1, .lateness = 4};
    struct plan p = {.method = "fedavg", .cohort = CLIENTS, .measures = true, .faults = some};
    (void)state;
    try_plan(p, histories());
    p.kill_site = p.kill_cloud = p.cut = 0.01;
    p.back_in = 8;
    p.cut_for = 40;
    try_plan(p, histories());
    p.gives = true; /* to all, while processes are killed and links cut */
    try_plan(p, histories());
    p.gives = false;
    p.cohort = 2; /* what a client keeps is of the rounds that hold its update, whoever took whose place */
    p.replaces = true;
    try_plan(p, histories());
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_quiet), cmocka_unit_test(test_bad_network),
                                       cmocka_unit_test(test_kills), cmocka_unit_test(test_partitions),
                                       cmocka_unit_test(test_measuring)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/*
 * What every strategy must do, with its client half at work on small networks: a strategy joins by a line in `cases`
 * (conformance.h). Two worlds play the same rounds and must agree in every bit: the simulation, for 1 to 4 workers, two
 * of three elsewhere, and one in which every client is on its own, as a process at a site is: it has only its own
 * samples and its own file of what it keeps, and messages travel as bytes.
 */
#include "conformance.h"

static void test_workers_do_not_matter(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (uint32_t cohort = 0; cohort <= 2; cohort += 2) { /* all, and two of them a round */
            fst_buf want = {0};
            for (int workers = 1; workers <= WORKERS; workers++) {
                struct world w;
                elsewhere = workers == 3 ? 2 : 0;
                open_world(&w, &cases[i], workers);
                ok(simulate(&w, workers, 0, cohort), NULL);
                if (workers == 1)
                    state_of(&w, &want);
                else
                    assert_same(&w, &want);
                close_world(&w);
            }
            elsewhere = 0;
            fst_buf_release(&want);
        }
}

/* Saved at every boundary, loaded into another process, continued. */
static void test_resume_at_every_boundary(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        fst_buf want = {0}, saved = {0};
        fst_error err;
        struct world whole;
        open_world(&whole, &cases[i], 1);
        ok(simulate(&whole, 1, 0, 3), NULL);
        state_of(&whole, &want);
        close_world(&whole);
        for (uint64_t stop = 0; stop + 1 < ROUNDS; stop++) {
            struct world first, rest;
            open_world(&first, &cases[i], 1);
            open_world(&rest, &cases[i], 1);
            first.stop_after = stop;
            assert_int_equal(simulate(&first, 1, 0, 3), FST_E_CANCELLED);
            saved.len = 0;
            ok(fst_strategy_save(first.strategy, &saved, &err), &err);
            ok(fst_strategy_load(rest.strategy, saved.data, saved.len, &err), &err);
            fst_fed_state_copy(&rest.global, view_of(&first.global));
            for (uint32_t k = 0; k < CLIENTS; k++) {
                size_t len;
                const void *kept = fst_virtual_kept(first.clients, k, &len);
                ok(fst_virtual_restore(rest.clients, k, kept, len, &err), &err);
            }
            ok(simulate(&rest, 1, stop + 1, 3), NULL);
            assert_same(&rest, &want);
            close_world(&first);
            close_world(&rest);
        }
        fst_buf_release(&want);
        fst_buf_release(&saved);
    }
}

/* ---- clients on their own ---- */

/* The site's own samples, then the public ones in an order of its own. */
static void open_site(struct world *w, uint32_t k)
{
    uint32_t all[SAMPLES], public[PUBLIC];
    size_t own = begin[k + 1] - begin[k];
    fst_error err;
    memcpy(all, position + begin[k], own * sizeof *all);
    for (uint32_t i = 0; i < PUBLIC; i++) {
        all[own + i] = position[begin[CLIENTS] + (i + 1 + k) % PUBLIC];
        public[i] = (uint32_t)own + i;
    }
    const fst_source_part part = {source, all, own + PUBLIC};
    ok(fst_source_compose(&w->site[k], "site", &part, 1, &err), &err);
    ok(fst_public_init(&w->site_pub[k], w->site[k], public, PUBLIC, &(fst_transform){0}, &err), &err);
    ok(fst_client_new(&w->client[k], w->ops, w->c->set, w->settings, &err), &err);
}

/* What a client answers to a message, both as bytes; `next` is what it will keep. */
static void answer(struct world *w, uint32_t k, const fst_buf *down, fst_buf *up, fst_buf *next)
{
    uint32_t own[SAMPLES];
    fst_message in, out;
    fst_error err;
    fst_client_env e = env_of(w, k);
    for (uint32_t i = 0; i < e.count; i++)
        own[i] = i;
    e.source = w->site[k];
    e.subset = own;
    e.pub = &w->site_pub[k];
    ok(fst_message_parse(&in, down->data, down->len, &err), &err);
    next->len = up->len = 0;
    ok(fst_client_work(w->client[k], &e, w->kept[k].data, w->kept[k].len, &in, &out, next, &err), &err);
    ok(fst_message_pack(&out, up, &err), &err);
}

enum loss { NOBODY, BEFORE, AFTER };

/* The thinnest loop around a server. In lost_round, `lost` goes away before or after its update. */
static void run_sites(struct world *w, enum loss when)
{
    const fst_round_spec spec = {
        .seed = 3, .clients = CLIENTS, .rounds = ROUNDS, .fraction = 1, .min_clients = CLIENTS, .quorum = 1};
    fst_server *server = NULL;
    fst_buf up[CLIENTS] = {{0}}, next[CLIENTS] = {{0}}, down = {0}, mid = {0};
    uint32_t asked[CLIENTS], n = 0;
    fst_order o;
    fst_error err = {0};
    bool finished = false, away = false;
    ok(fst_server_new(&server, &spec, w->strategy, "site", &err), &err);
    for (uint32_t k = 0; k < CLIENTS; k++) {
        const fst_fed_event joined = {.kind = FST_EVENT_JOINED, .client = k};
        open_site(w, k);
        ok(fst_server_event(server, &joined, NULL, NULL, NULL, &err), &err);
    }
    while (!finished) {
        fst_message m;
        while (fst_server_next(server, &o))
            switch (o.kind) {
            case FST_ORDER_SEND:
                ok(fst_server_message(server, o.client, &m, &err), &err);
                down.len = 0;
                ok(fst_message_pack(&m, &down, &err), &err);
                answer(w, o.client, &down, &up[o.client], &next[o.client]);
                asked[n++] = o.client;
                break;
            case FST_ORDER_AGGREGATE:
                mid.len = 0;
                assert_int_equal(fst_server_save(server, &mid, &err), FST_E_ARGUMENT);
                ok(fst_server_aggregate(server, NULL, 0, &err), &err);
                break;
            case FST_ORDER_EVALUATE:
                ok(fst_server_save(server, &mid, &err), &err);
                const fst_round_report *r = fst_server_report(server);
                for (uint32_t i = 0; i < r->selected; i++)
                    if (r->by_client[i].reported) {
                        fst_buf t = w->kept[r->by_client[i].client];
                        w->kept[r->by_client[i].client] = next[r->by_client[i].client];
                        next[r->by_client[i].client] = t;
                    }
                ok(fst_server_publish(server, 0, &err), &err);
                break;
            case FST_ORDER_FINISHED:
                finished = true;
                break;
            default:
                fail_msg("order %d", (int)o.kind);
            }
        while (n) { /* the last one asked is the first to answer */
            uint32_t k = asked[--n];
            fst_fed_event ev = {.kind = FST_EVENT_UPDATE, .client = k};
            const fst_fed_event lost = {.kind = FST_EVENT_LOST, .client = k},
                                back = {.kind = FST_EVENT_JOINED, .client = k};
            ok(fst_message_parse(&m, up[k].data, up[k].len, &err), &err);
            bool goes = k == w->lost && m.round == w->lost_round;
            if (goes && when == BEFORE)
                ok(fst_server_event(server, &lost, NULL, NULL, NULL, &err), &err);
            else
                ok(fst_server_event(server, &ev, &m, NULL, NULL, &err), &err);
            if (goes && when == AFTER)
                ok(fst_server_event(server, &lost, NULL, NULL, NULL, &err), &err);
            if (goes && when == AFTER)
                ok(fst_server_event(server, &back, NULL, NULL, NULL, &err), &err);
            away |= goes && when == BEFORE;
        }
        if (away) { /* the round is over: it is there again for the next */
            const fst_fed_event back = {.kind = FST_EVENT_JOINED, .client = w->lost};
            ok(fst_server_event(server, &back, NULL, NULL, NULL, &err), &err);
            away = false;
        }
    }
    for (int k = 0; k < CLIENTS; k++) {
        fst_buf_release(&up[k]);
        fst_buf_release(&next[k]);
    }
    fst_buf_release(&down);
    fst_buf_release(&mid);
    fst_server_free(server);
}

static void test_both_worlds_agree(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        struct world simulated, sites;
        fst_buf want = {0};
        open_world(&simulated, &cases[i], 2);
        open_world(&sites, &cases[i], 1);
        ok(simulate(&simulated, 2, 0, 0), NULL);
        state_of(&simulated, &want);
        run_sites(&sites, NOBODY);
        assert_same(&sites, &want);
        close_world(&simulated);
        close_world(&sites);
        fst_buf_release(&want);
    }
}

/* One that goes before it answered counts as one that failed; one that goes after its answer counts. */
static void test_lost_before_and_after(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++)
        for (int when = BEFORE; when <= AFTER; when++) {
            struct world simulated, sites;
            fst_buf want = {0};
            open_world(&simulated, &cases[i], 1);
            open_world(&sites, &cases[i], 1);
            /* whoever was asked first is the last to answer in the other world */
            simulated.lost = when == BEFORE ? 2 : CLIENTS;
            sites.lost = 2;
            simulated.lost_round = sites.lost_round = 1;
            ok(simulate(&simulated, 1, 0, 0), NULL);
            state_of(&simulated, &want);
            run_sites(&sites, (enum loss)when);
            assert_same(&sites, &want);
            close_world(&simulated);
            close_world(&sites);
            fst_buf_release(&want);
        }
}

/* dsfl without sharpening whose codec has levels is cfd, which has a packing of its own: clients end with the same. */
static void test_levels_are_cfd(void **state)
{
    const struct test_case *coded = NULL, *cfd = NULL;
    struct world a, b;
    fst_error err;
    (void)state;
    for (int i = 0; i < CASES; i++) {
        coded = codecs_of(&cases[i]) == &codecs[LIKE_CFD] ? &cases[i] : coded;
        cfd = !strcmp(cases[i].name, "cfd") && cases[i].set[1].value == 3 ? &cases[i] : cfd;
    }
    assert_non_null(coded);
    assert_non_null(cfd);
    open_world(&a, coded, 1);
    open_world(&b, cfd, 1);
    ok(simulate(&a, 1, 0, 3), NULL);
    ok(simulate(&b, 1, 0, 3), NULL);
    for (uint32_t k = 0; k < CLIENTS; k++) {
        fst_buf room[2] = {{0}};
        const void *kept[2];
        size_t len[2];
        ok(fst_virtual_read(a.clients, k, &room[0], &kept[0], &len[0], &err), &err);
        ok(fst_virtual_read(b.clients, k, &room[1], &kept[1], &len[1], &err), &err);
        assert_int_equal(len[0], len[1]);
        assert_true(len[0] > 0);
        assert_memory_equal(kept[0], kept[1], len[0]);
        fst_buf_release(&room[0]);
        fst_buf_release(&room[1]);
    }
    close_world(&a);
    close_world(&b);
}

/* ---- the server half alone ---- */

/* Every client's answer in the first round and in a second one. */
static void answers(struct world *w, uint64_t round, fst_buf up[CLIENTS])
{
    fst_error err;
    fst_buf down = {0};
    fst_strategy_begin(w->strategy, round);
    for (uint32_t k = 0; k < CLIENTS; k++) {
        fst_message m;
        if (!w->client[k])
            open_site(w, k);
        ok(fst_strategy_down(w->strategy, k, &m, &err), &err);
        down.len = 0;
        ok(fst_message_pack(&m, &down, &err), &err);
        answer(w, k, &down, &up[k], &w->next[k]);
    }
    fst_buf_release(&down);
}

static fst_status fold(struct world *w, const fst_buf *up)
{
    fst_message m;
    fst_error err;
    ok(fst_message_parse(&m, up->data, up->len, &err), &err);
    return fst_strategy_fold(w->strategy, &m, NULL);
}

static void release_all(fst_buf up[CLIENTS])
{
    for (int k = 0; k < CLIENTS; k++)
        fst_buf_release(&up[k]);
}

static void test_order_of_folds(void **state)
{
    (void)state;
    static const uint32_t order[3][CLIENTS] = {{0, 1, 2, 3, 4}, {4, 2, 0, 3, 1}, {1, 3, 4, 0, 2}};
    for (int i = 0; i < CASES; i++) {
        fst_buf want = {0};
        fst_error err;
        for (int trial = 0; trial < 3; trial++) {
            struct world w;
            fst_buf up[CLIENTS] = {{0}};
            open_world(&w, &cases[i], 1);
            for (uint64_t round = 0; round < 2; round++) {
                answers(&w, round, up);
                for (int j = 0; j < CLIENTS; j++) {
                    uint32_t k = order[trial][j];
                    if (round == 1 && k == 3) /* the second round goes without client 3 */
                        continue;
                    ok(fold(&w, &up[k]), NULL);
                    fst_buf kept = w.kept[k];
                    w.kept[k] = w.next[k];
                    w.next[k] = kept;
                }
                ok(fst_strategy_aggregate(w.strategy, NULL, NULL, &err), &err);
            }
            if (trial == 0)
                state_of(&w, &want);
            else
                assert_same(&w, &want);
            release_all(up);
            close_world(&w);
        }
        fst_buf_release(&want);
    }
}

/* Each tensor of an update with a NaN at its end, one element short, of another type, or missing: the update is
 * refused, and what follows is as if it had never come. */
static void test_refusals_take_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        struct world clean, tried;
        fst_buf up[CLIENTS] = {{0}}, want = {0}, copy = {0};
        fst_message m, bad;
        fst_error err;
        open_world(&clean, &cases[i], 1);
        open_world(&tried, &cases[i], 1);
        answers(&clean, 0, up);
        fst_strategy_begin(tried.strategy, 0);
        ok(fold(&clean, &up[0]), NULL);
        ok(fold(&clean, &up[4]), NULL);
        ok(fold(&tried, &up[0]), NULL);
        ok(fst_buf_append(&copy, up[2].data, up[2].len, &err), &err);
        ok(fst_message_parse(&m, copy.data, copy.len, &err), &err);
        for (size_t t = 0; t < m.count; t++) {
            size_t n = (size_t)fst_shape_count(&m.tensor[t].shape), size = fst_dtype_size(m.tensor[t].dtype);
            bad = m;
            bad.tensor[t].shape.dim[0]++;
            assert_int_equal(fst_strategy_fold(tried.strategy, &bad, &err), FST_E_MISMATCH);
            bad = m;
            bad.tensor[t].dtype = FST_BF16;
            assert_int_equal(fst_strategy_fold(tried.strategy, &bad, &err), FST_E_MISMATCH);
            bad = m;
            bad.tensor[t] = bad.tensor[--bad.count];
            assert_int_equal(fst_strategy_fold(tried.strategy, &bad, &err), FST_E_MISMATCH);
            if (m.tensor[t].dtype != FST_F32 || !n)
                continue;
            float *last = (float *)(void *)((char *)m.tensor[t].data + (n - 1) * size), keep = *last;
            *last = NAN;
            assert_int_equal(fst_strategy_fold(tried.strategy, &m, &err), FST_E_NUMERIC);
            *last = INFINITY;
            assert_int_equal(fst_strategy_fold(tried.strategy, &m, &err), FST_E_NUMERIC);
            *last = keep;
        }
        bad = m;
        bad.round = 1;
        assert_int_equal(fst_strategy_fold(tried.strategy, &bad, &err), FST_E_MISMATCH);
        bad = m;
        bad.samples = 0;
        assert_int_equal(fst_strategy_fold(tried.strategy, &bad, &err), FST_E_ARGUMENT);
        bad = m;
        bad.client = CLIENTS;
        assert_int_equal(fst_strategy_fold(tried.strategy, &bad, &err), FST_E_ARGUMENT);
        ok(fold(&tried, &up[4]), NULL);
        ok(fst_strategy_aggregate(clean.strategy, NULL, NULL, &err), &err);
        ok(fst_strategy_aggregate(tried.strategy, NULL, NULL, &err), &err);
        state_of(&clean, &want);
        assert_same(&tried, &want);
        release_all(up);
        fst_buf_release(&want);
        fst_buf_release(&copy);
        close_world(&clean);
        close_world(&tried);
    }
}

/* Folding takes no memory, so that it cannot grow with the clients, unless the strategy says that it does. */
static void test_memory(void **state)
{
    (void)state;
    for (int i = 0; i < CASES; i++) {
        struct world w;
        fst_buf up[CLIENTS] = {{0}};
        fst_message m[CLIENTS];
        fst_error err;
        open_world(&w, &cases[i], 1);
        answers(&w, 0, up);
        for (int k = 0; k < CLIENTS; k++)
            ok(fst_message_parse(&m[k], up[k].data, up[k].len, &err), &err);
        uint64_t before = fst_alloc_count();
        for (int k = 0; k < CLIENTS; k++)
            ok(fst_strategy_fold(w.strategy, &m[k], &err), &err);
        if (!(w.ops->flags & FST_ALL_UPDATES))
            assert_true(fst_alloc_count() == before);
        fst_buf out = {0};
        assert_int_equal(fst_strategy_save(w.strategy, &out, &err), FST_E_ARGUMENT); /* in mid-round */
        ok(fst_strategy_aggregate(w.strategy, NULL, NULL, &err), &err);
        ok(fst_strategy_save(w.strategy, &out, &err), &err);
        fst_buf_release(&out);
        release_all(up);
        close_world(&w);
    }
}

/* Every strategy of the registry has a line above, says what leaks, and has sound options. */
static void test_everybody_joins(void **state)
{
    (void)state;
    for (size_t s = 0; fst_strategy_at(s); s++) {
        const fst_strategy_ops *ops = fst_strategy_at(s);
        bool found = false;
        for (int i = 0; i < CASES; i++)
            found |= !strcmp(cases[i].name, ops->name);
        if (!found)
            fail_msg("%s has no line in this suite", ops->name);
        assert_true(strlen(ops->leaks) > 20 && ops->leaks[strlen(ops->leaks) - 1] == '.');
        assert_true(strlen(ops->summary) > 10);
        size_t n = 0;
        for (const fst_option *o = ops->options; o && o->name; o++, n++) {
            fst_error err;
            double value[FST_STRATEGY_OPTIONS];
            const fst_setting given = {o->name, o->fallback}, below = {o->name, o->min - 1};
            ok(fst_strategy_options(ops, &given, 1, value, &err), &err);
            assert_true(value[n] == o->fallback);
            assert_int_equal(fst_strategy_options(ops, &below, 1, value, &err), FST_E_CONFIG);
        }
        assert_true(n <= FST_STRATEGY_OPTIONS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everybody_joins),
        cmocka_unit_test(test_workers_do_not_matter),
        cmocka_unit_test(test_resume_at_every_boundary),
        cmocka_unit_test(test_both_worlds_agree),
        cmocka_unit_test(test_lost_before_and_after),
        cmocka_unit_test(test_order_of_folds),
        cmocka_unit_test(test_levels_are_cfd),
        cmocka_unit_test(test_refusals_take_nothing),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* Who has which samples: test, cloud and edges share nothing, nothing is lost, and bursts are never cut. */
#define _XOPEN_SOURCE 700 /* nftw */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "session_fixture.h"

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

#define must(call)                                  \
    do {                                            \
        why = (fst_error){0};                       \
        if (call)                                   \
            fail_msg("%s: %s", #call, why.message); \
    } while (0)

static const char synth_text[] = "name: shares\nseed: 4\n"
                                 "data: {source: synth, test: 0.2, validation: 0.1,\n"
                                 "       synth: {windows: 1120, windows_per_burst: 4, params: params.json}}\n"
                                 "topology: {edges: 3, devices: 7, cloud_share: 0.4, alpha: 0.3}\n"
                                 "stages: {cloud_pretrain: {model: logistic_regression}}\n";

static void write_params(void)
{
    static const char text[] = "{\"burst\": {\"window\": 64}}"; /* quick to make */
    must(fst_file_write(path_in("params.json"), text, strlen(text), &why));
}

enum { BURSTS = 280, WINDOWS = 4 * BURSTS };

/* Marks the samples of a share; each may be marked once. */
static void mark(const struct session *s, const struct share *h, int place, int *owner, int *burst_use)
{
    for (size_t i = 0; i < h->learn + h->validate; i++) {
        int use = 2 * place + (i >= h->learn);
        uint32_t k = h->index[i];
        assert_true(k < s->data.train->count);
        assert_int_equal(owner[k], -1);
        owner[k] = use;
        int64_t burst = s->data.train->group[k];
        assert_true(burst_use[burst] == -1 || burst_use[burst] == use);
        burst_use[burst] = use;
    }
}

static void test_nothing_is_shared_or_lost(void **state)
{
    struct session s;
    fst_task *task = NULL;
    int owner[WINDOWS], burst_use[BURSTS];
    (void)state;
    write_params();
    must(open_session_with(&s, &task, synth_text, NULL));
    memset(owner, -1, sizeof owner);
    memset(burst_use, -1, sizeof burst_use);
    assert_int_equal(s.data.train->count + s.data.test->count, WINDOWS);
    assert_int_equal(s.data.edges, 3);
    const struct share cloud = {s.data.cloud.index, s.data.cloud.learn, s.data.cloud.validate};
    mark(&s, &cloud, 0, owner, burst_use);
    for (size_t k = 0; k < s.data.edges; k++)
        mark(&s, &s.data.edge[k], (int)k + 1, owner, burst_use);
    for (size_t i = 0; i < s.data.train->count; i++)
        assert_int_not_equal(owner[i], -1);
    for (size_t i = 0; i < s.data.test->count; i++)
        assert_int_equal(burst_use[s.data.test->group[i]], -1);
    close_session(&s, task);
}

/* Shares hold to about a burst a class. */
static void test_shares_are_those_asked_for(void **state)
{
    struct session s;
    fst_task *task = NULL;
    int64_t test[7] = {0}, cloud[7] = {0}, all[7] = {0};
    (void)state;
    write_params();
    must(open_session_with(&s, &task, synth_text, NULL));
    assert_int_equal(s.data.train->classes, 7);
    for (size_t i = 0; i < s.data.test->count; i++)
        test[s.data.test->labels[i]]++;
    for (size_t i = 0; i < s.data.train->count; i++)
        all[s.data.train->labels[i]]++;
    for (size_t i = 0; i < s.data.cloud.learn + s.data.cloud.validate; i++)
        cloud[s.data.train->labels[s.data.cloud.index[i]]]++;
    for (int c = 0; c < 7; c++) {
        assert_true(llabs(test[c] - 32) <= 4);
        assert_true(fabs((double)cloud[c] - 0.4 * (double)all[c]) <= 4);
    }
    assert_true(s.data.cloud.validate >= 7 && s.data.cloud.validate <= s.data.cloud.learn / 4);
    assert_string_equal(s.data.train->class_names[0], "E-2D_1");
    close_session(&s, task);
}

static void test_missing_classes_are_named(void **state)
{
    struct session s;
    fst_task *task = NULL;
    char text[200], expected[200] = "";
    int missing = 0;
    (void)state;
    write_params();
    must(open_session_with(&s, &task, synth_text, "topology.alpha=0.01"));
    for (size_t k = 0; k < s.data.edges; k++) {
        bool seen[7] = {false};
        int n = 0;
        *expected = 0;
        for (size_t i = 0; i < s.data.edge[k].learn; i++)
            seen[s.data.train->labels[s.data.edge[k].index[i]]] = true;
        for (int c = 0; c < 7; c++)
            if (!seen[c]) {
                strcat(expected, n++ ? ", " : "");
                strcat(expected, s.data.train->class_names[c]);
            }
        assert_int_equal(fst__missing_classes(&s.data, &s.data.edge[k], text, sizeof text), n);
        assert_string_equal(text, expected);
        missing += n;
    }
    assert_true(missing > 7);                                /* so uneven a draw leaves most classes to one edge */
    fst__missing_classes(&s.data, &s.data.edge[0], text, 8); /* cut, not overrun */
    assert_true(strlen(text) < 8);
    close_session(&s, task);
}

static void edge_digest(const char *set, size_t edge, char out[FST_DIGEST_HEX])
{
    struct session s;
    fst_task *task = NULL;
    write_params();
    must(open_session_with(&s, &task, synth_text, set));
    fst__share_digest(&s.data.edge[edge], out);
    close_session(&s, task);
}

static void test_a_share_follows_from_its_settings(void **state)
{
    char a[FST_DIGEST_HEX], b[FST_DIGEST_HEX];
    (void)state;
    edge_digest(NULL, 0, a);
    edge_digest("topology.devices=5", 0, b);
    assert_string_equal(a, b);
    edge_digest("topology.alpha=0.5", 0, b);
    assert_string_not_equal(a, b);
    edge_digest("data.validation=0.2", 0, b); /* same samples, other parts */
    assert_string_not_equal(a, b);
    edge_digest(NULL, 1, b);
    assert_string_not_equal(a, b);
}

/* Each edge has a device, none has two more than another, and devices of one edge stand side by side. */
static void test_devices(void **state)
{
    (void)state;
    for (int64_t edges = 1; edges <= 9; edges++)
        for (int64_t devices = edges; devices <= 20; devices++) {
            const struct topology_section t = {.edges = edges, .devices = devices};
            int64_t has[9] = {0}, least = 20, most = 0, last = 0;
            for (int64_t d = 0; d < devices; d++) {
                int64_t e = fst__edge_of_device(&t, d);
                assert_true(e >= last && e < edges);
                last = e;
                has[e]++;
            }
            for (int64_t e = 0; e < edges; e++) {
                least = has[e] < least ? has[e] : least;
                most = has[e] > most ? has[e] : most;
            }
            assert_true(least >= 1 && most - least <= 1);
        }
}

/* ---- sources that bring their own splits ---------------------------------------------------------------- */

enum { FEW = 24 };

static void write_split(const char *name, const char *split, float value)
{
    static float x[FEW * 4];
    static int64_t y[FEW];
    char file[128];
    for (int i = 0; i < FEW; i++) {
        y[i] = i % 3;
        for (int k = 0; k < 4; k++)
            x[4 * i + k] = value + (float)i;
    }
    const fst_tensor t[] = {{"x", FST_F32, {2, {FEW, 4}}, x}, {"y", FST_I64, {1, {FEW}}, y}};
    must(fst_make_folders(path_in(name), &why));
    snprintf(file, sizeof file, "%s/%s.safetensors", name, split);
    must(fst_safetensors_write(path_in(file), NULL, 0, t, 2, NULL, &why));
}

static float first_value(const struct session *s, const struct share *h, size_t i)
{
    float x[4];
    must(s->data.train->v->get(s->data.train, h->index[i], x, &why));
    return x[0];
}

static void test_every_place_keeps_its_own(void **state)
{
    static const char text[] = "name: own\n"
                               "data: {path: cloud, own_validation: true, edge_paths: [e1, e2]}\n"
                               "topology: {edges: 2, devices: 2}\n"
                               "stages: {federated_train: {model: logistic_regression, init: random, rounds: 1}}\n";
    static const char *const places[] = {"cloud", "e1", "e2"};
    struct session s;
    fst_task *task = NULL;
    (void)state;
    for (int p = 0; p < 3; p++) {
        write_split(places[p], "train", (float)(1000 * p));
        write_split(places[p], "val", (float)(1000 * p + 500));
    }
    write_split("cloud", "test", 9000);
    must(open_session_with(&s, &task, text, NULL));
    assert_int_equal(s.data.train->count, 6 * FEW);
    for (int p = 0; p < 3; p++) {
        const struct share *h = p ? &s.data.edge[p - 1] : &s.data.cloud;
        assert_int_equal(h->learn, FEW);
        assert_int_equal(h->validate, FEW);
        for (int i = 0; i < FEW; i++) {
            assert_true(first_value(&s, h, (size_t)i) == (float)(1000 * p + i));
            assert_true(first_value(&s, h, (size_t)(FEW + i)) == (float)(1000 * p + 500 + i));
        }
    }
    close_session(&s, task);

    /* without a split of its own, a share of the training samples */
    must(open_session_with(&s, &task, text, "data={path: cloud, validation: 0.25, edge_paths: [e1, e2]}"));
    for (int p = 1; p < 3; p++) {
        const struct share *h = &s.data.edge[p - 1];
        assert_int_equal(h->learn, FEW - 6);
        assert_int_equal(h->validate, 6);
        for (size_t i = 0; i < FEW; i++)
            assert_true(first_value(&s, h, i) >= (float)(1000 * p) && first_value(&s, h, i) < (float)(1000 * p + FEW));
    }
    close_session(&s, task);
}

/* ---- what cannot be ------------------------------------------------------------------------------------------ */

static void refuse(const char *text, const char *set, const char *message)
{
    struct session s;
    fst_task *task = NULL;
    why = (fst_error){0};
    fst_status st = open_session_with(&s, &task, text, set);
    if (st != FST_E_CONFIG || !strstr(why.message, message))
        fail_msg("%s: status %s, \"%s\"; wanted \"%s\"", set, fst_status_name(st), why.message, message);
    close_session(&s, task);
}

static void test_refused(void **state)
{
    (void)state;
    write_params();
    refuse(synth_text, "data.test=0", "set test, for instance");
    refuse(synth_text, "data.synth=null", "the map synth says what to make");
    refuse(synth_text, "data.path=x", "data.path: has no effect with source synth");
    refuse(synth_text, "data.source=array", "path is required");
    refuse(synth_text, "data.own_validation=true", "have no split val");
    refuse(synth_text, "data.synth.snr=[3, 2]", "the first number is the least");
    must(fst_file_write(path_in("bad.json"), "{\"burst\": {\"colour\": 1}}", 24, &why));
    refuse(synth_text, "data.synth.params=bad.json", "colour");
    refuse(synth_text, "topology.devices=2", "must be at least edges (3)");
    refuse(synth_text, "topology.cloud_share=0", "cloud_share");
    refuse(synth_text, "data.synth.windows=28", "none to test on");
    refuse(synth_text, "data={path: x, edge_paths: [a, b]}", "names the samples of 2 edges");
    refuse(synth_text, "stages={federated_train: {model: logistic_regression, init: random, fraction: 0.5}}",
           "all edges take part");
    refuse(synth_text, "precision=f16", "one of f32, bf16");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing_is_shared_or_lost),
        cmocka_unit_test(test_shares_are_those_asked_for),
        cmocka_unit_test(test_missing_classes_are_named),
        cmocka_unit_test(test_a_share_follows_from_its_settings),
        cmocka_unit_test(test_devices),
        cmocka_unit_test(test_every_place_keeps_its_own),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

/* What a sweep makes of its grid and its seeds: settings, names that are files, runs; and that it fails clean. */
#define _XOPEN_SOURCE 700 /* nftw */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "fedstill/sweep.h"
#include "session_fixture.h"

static const char text[] = "name: asked\nseed: 40\ndata: {source: idx, path: nowhere}\n"
                           "clients: {count: 2}\n"
                           "stages:\n"
                           "  cloud_pretrain:  {model: logistic_regression, epochs: 3}\n"
                           "  federated_train: {model: logistic_regression, init: random, rounds: 2}\n";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) && !fst_file_write(path_in("task.yaml"), text, strlen(text), NULL) ? 0 : -1;
}

static fst_sweep_spec spec_of(const char *const *grid, size_t n, const char *seeds)
{
    return (fst_sweep_spec){.task = folder, .grid = grid, .ngrid = n, .seeds = seeds};
}

static void names_are(const char *const *grid, size_t n, const char *seeds, const char *const *wanted, size_t runs)
{
    fst_sweep *s = NULL;
    const fst_sweep_spec spec = spec_of(grid, n, seeds);
    if (fst_sweep_open(&s, &spec, &why))
        fail_msg("%s", why.message);
    assert_int_equal(fst_sweep_runs(s), runs);
    for (size_t i = 0; i < runs; i++)
        assert_string_equal(fst_sweep_run_at(s, i).name, wanted[i]);
    fst_sweep_free(s);
}

static void test_the_last_key_changes_fastest(void **state)
{
    static const char *const grid[] = {"stages.federated_train.rounds=3, 5", "clients.count=4,6"};
    static const char *const wanted[] = {
        "rounds=3,count=4,seed=40", "rounds=3,count=4,seed=41", "rounds=3,count=6,seed=40", "rounds=3,count=6,seed=41",
        "rounds=5,count=4,seed=40", "rounds=5,count=4,seed=41", "rounds=5,count=6,seed=40", "rounds=5,count=6,seed=41"};
    (void)state;
    names_are(grid, 2, "2", wanted, 8);
}

static void test_names_of_seeds_and_of_keys_that_end_alike(void **state)
{
    static const char *const grid[] = {"stages.federated_train.optimizer.learning_rate=0.1",
                                       "stages.cloud_pretrain.optimizer.learning_rate=0.2"};
    static const char *const wanted[] = {
        "federated_train.optimizer.learning_rate=0.1,cloud_pretrain.optimizer.learning_rate=0.2,seed=7",
        "federated_train.optimizer.learning_rate=0.1,cloud_pretrain.optimizer.learning_rate=0.2,seed=3"};
    static const char *const alone[] = {"seed=40", "seed=41", "seed=42"};
    (void)state;
    names_are(grid, 2, "7,3", wanted, 2);
    names_are(NULL, 0, "3", alone, 3);
}

static void test_points_are_combined_with_grids(void **state)
{
    static const char *const grid[] = {"clients.count=4,6"};
    static const char *const point[] = {
        "stages.federated_train.strategy=fedavg",
        "stages.federated_train.strategy=fedprox, stages.federated_train.prox_mu=0.5",
        "stages.cloud_pretrain.class_weights=[1,2],stages.federated_train.strategy=fedavg",
    };
    static const char *const wanted[] = {"strategy=fedavg,count=4,seed=40", "strategy=fedavg,count=6,seed=40",
                                         "strategy=fedprox,prox_mu=0.5,count=4,seed=40",
                                         "strategy=fedprox,prox_mu=0.5,count=6,seed=40"};
    static const char *const wrong[] = {"",
                                        "stages.federated_train.rounds",
                                        "stages.federated_train.rounds=",
                                        "stages.federated_train.rounds=2,3",
                                        "stages.federated_train.rounds=2,stages.federated_train.rounds=3",
                                        "clients.count=5",
                                        "stages.federated_train.rounds=[2",
                                        "seed=3"};
    fst_sweep_spec spec = spec_of(grid, 1, NULL);
    fst_sweep *s = NULL;
    (void)state;
    static const char *const twice[] = {"clients.classes_per_client=3,clients.partition=shards",
                                        "clients.partition = shards, clients.classes_per_client=3"};
    spec.point = twice;
    spec.npoints = 2;
    assert_int_equal(fst_sweep_open(&s, &spec, &why), FST_E_CONFIG);
    assert_non_null(strstr(why.message, "stands there twice"));
    spec.point = point;
    spec.npoints = 3;
    if (fst_sweep_open(&s, &spec, &why))
        fail_msg("%s", why.message);
    assert_int_equal(fst_sweep_runs(s), 6);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(fst_sweep_run_at(s, i).name, wanted[i]);
    assert_string_equal(fst_sweep_run_at(s, 4).setting, "strategy=fedavg,class_weights=[1,2],count=4");
    fst_sweep_free(s);
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        s = NULL;
        spec.point = &wrong[i];
        spec.npoints = 1;
        if (fst_sweep_open(&s, &spec, &why) != FST_E_CONFIG)
            fail_msg("%s was taken", wrong[i]);
    }
}

/* Values that differ in what no file's name shows have different names, which are the same every time. */
static void test_values_that_no_name_shows(void **state)
{
    static const char *const grid[] = {
        "stages.cloud_pretrain.schedule={name: multistep, milestones: [1, 2]},{name: multistep, milestones: [1], "
        "gamma: 0.2},cosine"};
    char first[2][200];
    (void)state;
    for (int again = 0; again < 2; again++) {
        fst_sweep *s = NULL;
        const fst_sweep_spec spec = spec_of(grid, 1, NULL);
        if (fst_sweep_open(&s, &spec, &why))
            fail_msg("%s", why.message);
        assert_int_equal(fst_sweep_settings(s), 3);
        assert_string_equal(fst_sweep_run_at(s, 0).setting, "schedule={name: multistep, milestones: [1, 2]}");
        for (int i = 0; i < 2; i++) {
            const char *name = fst_sweep_run_at(s, (size_t)i).name;
            assert_int_equal(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789=,+.-_~"), strlen(name));
            if (again)
                assert_string_equal(name, first[i]);
            snprintf(first[i], sizeof first[i], "%s", name);
        }
        assert_string_not_equal(first[0], first[1]);
        assert_string_equal(fst_sweep_run_at(s, 2).name, "schedule=cosine,seed=40");
        fst_sweep_free(s);
    }
}

static void test_lists_and_quotes_hold_commas(void **state)
{
    static const char *const cases[][2] = {
        {"stages.cloud_pretrain.class_weights=[1, 2],\"balanced\"", "2"},
        {"data.path='a,b',\"c,\\\",d\",e", "3"},
        {"data.path=it's,x", "2"}, /* no quote begins inside a word */
        {"data.path=[a", NULL},
        {"data.path='a", NULL},
        {"data.path=a]", NULL},
        {"data.path= ,a", NULL},
        {"data.path=", NULL},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        fst_sweep *s = NULL;
        const fst_sweep_spec spec = spec_of(&cases[i][0], 1, NULL);
        fst_status st = fst_sweep_open(&s, &spec, &why);
        if (!cases[i][1])
            assert_int_equal(st, FST_E_CONFIG);
        else if (st)
            fail_msg("%s: %s", cases[i][0], why.message);
        else
            assert_int_equal(fst_sweep_settings(s), (size_t)atoi(cases[i][1]));
        fst_sweep_free(s);
    }
}

/* With every allocation failing in turn it says so and leaves nothing (the leak checker looks). */
static void test_out_of_memory(void **state)
{
    static const char *const grid[] = {"stages.federated_train.rounds=3,5",
                                       "stages.cloud_pretrain.schedule={name: cosine},constant"};
    static const char *const point[] = {"clients.count=3", "clients.count=4,stages.federated_train.batch_size=8"};
    fst_sweep_spec spec = spec_of(grid, 2, "2");
    spec.point = point;
    spec.npoints = 2;
    fst_status st = FST_E_MEMORY;
    size_t failures = 0;
    (void)state;
    for (uint64_t n = 1; st; n++) {
        fst_sweep *s = NULL;
        fst_alloc_fail_at(n);
        st = fst_sweep_open(&s, &spec, &why);
        fst_alloc_fail_at(0);
        if (st && st != FST_E_MEMORY)
            fail_msg("allocation %d: %s", (int)n, why.message);
        failures += st != FST_OK;
        fst_sweep_free(s);
    }
    assert_true(failures > 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_last_key_changes_fastest),
        cmocka_unit_test(test_names_of_seeds_and_of_keys_that_end_alike),
        cmocka_unit_test(test_points_are_combined_with_grids),
        cmocka_unit_test(test_values_that_no_name_shows),
        cmocka_unit_test(test_lists_and_quotes_hold_commas),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

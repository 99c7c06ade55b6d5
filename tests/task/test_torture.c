/*
 * A whole task with the n-th allocation failing: it ends with FST_E_MEMORY, leaves nothing half-written, and
 * runs to the bits of an undisturbed run afterwards.
 */
#define _XOPEN_SOURCE 700 /* nftw */
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fedstill/task.h"
#include "fedstill/tensor.h"

enum { SAMPLES = 40, PIXELS = 28 * 28 };

static char folder[] = "/tmp/fedstill-torture-XXXXXX";

static const char task_text[] =
    "name: torture\n"
    "seed: 3\n"
    "data: {source: array, path: data.safetensors, validation: 0.2}\n"
    "clients: {count: 2}\n"
    "checkpoint: {steps: 2}\n"
    "stages:\n"
    "  cloud_pretrain:  {model: logistic_regression, epochs: 1, batch_size: 16}\n"
    "  cloud_kd:        {temperature: 2}\n"
    "  edge_kd:         {model: logistic_regression, epochs: 1, batch_size: 16, baseline: true}\n"
    "  federated_train: {rounds: 1, optimizer: {name: sgd, learning_rate: 0.01}}\n";

/* Made signals, places with samples of their own, a chosen round. */
static const char tiers_text[] =
    "name: torture\n"
    "seed: 3\n"
    "data: {source: synth, test: 0.25, validation: 0.25,\n"
    "       synth: {windows: 112, windows_per_burst: 2, params: params.json}}\n"
    "topology: {edges: 2, devices: 2}\n"
    "checkpoint: {steps: 2}\n"
    "stages:\n"
    "  cloud_pretrain:  {model: logistic_regression, epochs: 1, batch_size: 16}\n"
    "  cloud_kd:        {temperature: 2}\n"
    "  edge_kd:         {model: logistic_regression, epochs: 1, batch_size: 16}\n"
    "  federated_train: {rounds: 1, select: best, optimizer: {name: sgd, learning_rate: 0.01}}\n";
static const char params_text[] = "{\"burst\": {\"window\": 64}}";

static const char *path_in(const char *name)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static int set_up(void **state)
{
    static float x[2 * SAMPLES * PIXELS];
    static int64_t y[2 * SAMPLES];
    fst_tensor t[] = {{"x", FST_F32, {4, {SAMPLES, 1, 28, 28}}, x},
                      {"y", FST_I64, {1, {SAMPLES}}, y},
                      {"x_test", FST_F32, {4, {SAMPLES, 1, 28, 28}}, x + SAMPLES * PIXELS},
                      {"y_test", FST_I64, {1, {SAMPLES}}, y + SAMPLES}};
    (void)state;
    for (int i = 0; i < 2 * SAMPLES; i++) {
        y[i] = i % 4;
        for (int k = 0; k < PIXELS; k++)
            x[i * PIXELS + k] = (float)((k * 7 + i * 13) % 29) / 29 + (k % 4 == y[i]);
    }
    if (!mkdtemp(folder) || setenv("FEDSTILL_HOME", path_in("home"), 1))
        return -1;
    return fst_safetensors_write(path_in("data.safetensors"), NULL, 0, t, 4, NULL, NULL) ||
           fst_file_write(path_in("task.yaml"), task_text, strlen(task_text), NULL);
}

static int forget(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    return remove(path);
}

static int tear_down(void **state)
{
    (void)state;
    return nftw(folder, forget, 16, FTW_DEPTH | FTW_PHYS);
}

static fst_status run(bool fresh, fst_error *err)
{
    fst_task *task = NULL;
    fst_task_options o = {.workers = 2, .threads = 2, .fresh = fresh};
    fst_status s = fst_task_load(&task, folder, NULL, 0, err);
    if (!s)
        s = fst_task_run(task, &o, err);
    fst_task_free(task);
    return s;
}

static int temporary_files;

static int look(const char *path, const struct stat *st, int kind, struct FTW *at)
{
    (void)st, (void)kind, (void)at;
    temporary_files += strstr(path, ".tmp.") != NULL;
    return 0;
}

static void digest(char out[FST_DIGEST_HEX])
{
    assert_int_equal(fst_sha256_file(path_in("output/federated_train/model.safetensors"), out, NULL), FST_OK);
}

/* Fails the n-th allocation; false when the run needs fewer. */
static bool fail_at(uint64_t n)
{
    fst_error err = {0};
    remove(path_in("output/data/signals.json")); /* what was made is made again */
    uint64_t before = fst_alloc_count();
    fst_alloc_fail_at(n);
    fst_status s = run(true, &err);
    fst_alloc_fail_at(0);
    bool reached = fst_alloc_count() - before >= n;
    if (s && s != FST_E_MEMORY)
        print_error("allocation %llu: %s: %s\n", (unsigned long long)n, fst_status_name(s), err.message);
    assert_true(s == FST_E_MEMORY || (s == FST_OK && !reached));
    if (s)
        assert_non_null(strstr(err.message, "memory"));
    temporary_files = 0;
    assert_int_equal(nftw(folder, look, 16, FTW_PHYS), 0);
    assert_int_equal(temporary_files, 0);
    return reached;
}

static void every_allocation_may_fail(void **state)
{
    char wanted[FST_DIGEST_HEX], got[FST_DIGEST_HEX];
    (void)state;
    assert_int_equal(run(false, NULL), FST_OK);
    digest(wanted);
    uint64_t n = 1, runs = 0;
    while (fail_at(n)) {
        n += 1 + n / 40;
        runs++;
    }
    assert_true(runs > 50);
    assert_int_equal(run(false, NULL), FST_OK);
    digest(got);
    assert_string_equal(got, wanted);
}

static void every_allocation_may_fail_with_tiers(void **state)
{
    assert_int_equal(fst_file_write(path_in("task.yaml"), tiers_text, strlen(tiers_text), NULL), FST_OK);
    assert_int_equal(fst_file_write(path_in("params.json"), params_text, strlen(params_text), NULL), FST_OK);
    every_allocation_may_fail(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_allocation_may_fail),
                                       cmocka_unit_test(every_allocation_may_fail_with_tiers)};
    return cmocka_run_group_tests_name("task under failing allocations", tests, set_up, tear_down);
}

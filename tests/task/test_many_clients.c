/* Memory that grows with the clients: what a run asks for besides must be a few hundred bytes for each of them, however
 * often it was freed again, and none of it in the rounds: two rounds more ask for as much with many as with few. */
#define _XOPEN_SOURCE 700 /* nftw */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "session_fixture.h"

enum { SAMPLES = 12000, VALUES = 4, CLASSES = 3, FEW = 100, MANY = 10000 };
static const char task_text[] =
    "name: many\nseed: 3\n"
    "data: {source: array, path: data}\n"
    "clients: {count: 100, partition: iid}\n"
    "checkpoint: {client_memory: 0}\n"
    "stages:\n"
    "  rounds: {kind: federated_train, model: logistic_regression, init: random, rounds: 2, clients_per_round: 5,\n"
    "           local_steps: 1, batch_size: 1, evaluate_every: 100,\n"
    "           optimizer: {name: sgd, learning_rate: 0.01}}\n";

static void write_samples(const char *name, size_t n)
{
    fst_source *s = NULL;
    static float x[SAMPLES * VALUES];
    static int32_t y[SAMPLES];
    fst_shape shape = FST_SHAPE(1, 2, 2);
    for (size_t i = 0; i < n; i++) {
        y[i] = (int32_t)(i % CLASSES);
        for (size_t k = 0; k < VALUES; k++)
            x[i * VALUES + k] = (float)(i * VALUES + k) + (n < SAMPLES ? 1e6f : 0);
    }
    if (fst_source_from_memory(&s, "samples", FST_F32, &shape, n, x, y, CLASSES, &why) ||
        fst_source_write(s, NULL, n, path_in(name), NULL, &why))
        fail_msg("%s", why.message);
    fst_source_close(s);
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder) || setenv("FEDSTILL_HOME", path_in("home"), 1) || fst_make_folders(path_in("data"), &why))
        return -1;
    write_samples("data/train.safetensors", SAMPLES);
    write_samples("data/test.safetensors", 50);
    return fst_file_write(path_in("task.yaml"), task_text, strlen(task_text), &why) ? -1 : 0;
}

/* Bytes that a run asks for. */
static int64_t asked(const char *strategy, int clients, int rounds)
{
    char text[3][80];
    const char *set[] = {text[0], text[1], text[2]};
    fst_task *task = NULL;
    fst_task_options o = options;
    o.fresh = true;
    snprintf(text[0], sizeof text[0], "clients.count=%d", clients);
    snprintf(text[1], sizeof text[1], "stages.rounds.strategy=%s", strategy);
    snprintf(text[2], sizeof text[2], "stages.rounds.rounds=%d", rounds);
    uint64_t before = fst_alloc_bytes();
    if (fst_task_load(&task, folder, set, 3, &why) || fst_task_run(task, &o, &why))
        fail_msg("%s", why.message);
    fst_task_free(task);
    return (int64_t)(fst_alloc_bytes() - before);
}

static void bounded(const char *strategy)
{
    int64_t few = asked(strategy, FEW, 2), many = asked(strategy, MANY, 2), more = asked(strategy, MANY, 4);
    int64_t each = (many - few) / (MANY - FEW), few_rounds = asked(strategy, FEW, 4) - few;
    print_message("%s: %lld bytes a client, two rounds %lld with %d clients, %lld with %d\n", strategy, (long long)each,
                  (long long)few_rounds, FEW, (long long)(more - many), MANY);
    assert_in_range(each, 0, 320);
    assert_in_range(more - many, 0, 2 * few_rounds);
}

static void test_fedavg(void **state)
{
    (void)state;
    bounded("fedavg");
}

/* What its clients keep goes to files. */
static void test_scaffold(void **state)
{
    (void)state;
    bounded("scaffold");
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_fedavg), cmocka_unit_test(test_scaffold)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

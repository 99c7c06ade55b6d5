/* What fst_measure says a model costs, on a machine that is made up: its clock goes on by a second for each row of a
 * shard that is computed, whether the row is wanted or fills the shard up. The linker puts this file's clock and runner
 * in the place of the library's (tests/CMakeLists.txt). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "fedstill/infer.h"

enum { BATCH = 8, RUNNERS = 16 };
static double now;
static struct {
    fst_runner *runner;
    size_t batch;
} made[RUNNERS];
static size_t count;

double __wrap_fst_clock_seconds(void);
fst_status __wrap_fst_runner_new(fst_runner **out, const fst_graph *g, const fst_trainer_options *o, fst_error *err);
fst_status __real_fst_runner_new(fst_runner **out, const fst_graph *g, const fst_trainer_options *o, fst_error *err);
fst_status __wrap_fst_runner_logits(fst_runner *r, const fst_state *state, const float *x, size_t rows, float *logits,
                                    fst_error *err);

double __wrap_fst_clock_seconds(void)
{
    return now;
}

fst_status __wrap_fst_runner_new(fst_runner **out, const fst_graph *g, const fst_trainer_options *o, fst_error *err)
{
    fst_status st = __real_fst_runner_new(out, g, o, err);
    assert_true(count < RUNNERS);
    made[count].runner = *out;
    made[count++].batch = o->batch_size;
    return st;
}

fst_status __wrap_fst_runner_logits(fst_runner *r, const fst_state *state, const float *x, size_t rows, float *logits,
                                    fst_error *err)
{
    size_t i = count;
    (void)state, (void)x, (void)logits, (void)err;
    while (i > 0 && made[i - 1].runner != r) /* the newest: memory is used again */
        i--;
    assert_true(i > 0);
    now += (double)((rows + made[i - 1].batch - 1) / made[i - 1].batch * made[i - 1].batch);
    return FST_OK;
}

/* A tier computes whatever comes in shards of its batch: one window costs it as much as a full one. */
static void few_rows_cost_a_shard(void **state)
{
    static const float points[2 * BATCH];
    static const int32_t labels[BATCH];
    const fst_shape shape = FST_SHAPE(1, 1, 2);
    const fst_model_config config = {.classes = 3, .input = shape};
    fst_error e = {0};
    fst_model m;
    fst_source *s;
    fst_measured out;
    (void)state;
    assert_int_equal(fst_model_init(&m, "logistic_regression", &config, &e), FST_OK);
    assert_int_equal(fst_source_from_memory(&s, "samples", FST_F32, &shape, BATCH, points, labels, 3, &e), FST_OK);
    const fst_measure_spec spec = {.source = s, .batch_size = BATCH, .threads = 1, .repeats = 3, .singles = 2};
    assert_int_equal(fst_measure(&out, &m, &spec, &e), FST_OK);
    assert_int_equal(out.cost.points, 4);
    for (size_t i = 0; i < out.cost.points; i++) {
        assert_int_equal(out.cost.rows[i], (size_t)1 << i);
        assert_true(out.cost.seconds[i] == BATCH);
    }
    assert_true(out.p50 == 1); /* of one sample alone, which has a runner of its own */
    fst_source_close(s);
    fst_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(few_rows_cost_a_shard)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

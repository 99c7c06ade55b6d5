/* A plan that only measures says what the real one takes, and takes next to nothing. */
#include "fedstill/models.h"
#include "nn/support.h"

static void sizes_agree(void **state)
{
    (void)state;
    for (const char *const *backend = fst_backend_names(); *backend; backend++)
        for (int training = 0; training < 2; training++) {
            fst_graph *g = NULL;
            fst_plan *real = NULL, *measured = NULL;
            fst_plan_options o = {.batch = 3, .training = training, .backend = *backend};
            assert_ok(fst_model_graph(&g, "resnet8", NULL, err));
            assert_ok(fst_plan_new(&real, g, &o, err));
            o.measure = true;
            assert_ok(fst_plan_new(&measured, g, &o, err));
            assert_int_equal(fst_plan_arena_bytes(measured), fst_plan_arena_bytes(real));
            assert_true(fst_plan_arena_bytes(real) > sizeof(float) * 3 * 16 * 32 * 32);
            fst_plan_free(real);
            fst_plan_free(measured);
            fst_graph_free(g);
        }
}

/* 4096 samples at 224 x 224 pixels would need hundreds of GB. */
static void what_does_not_fit_is_measured(void **state)
{
    (void)state;
    fst_graph *g = NULL;
    fst_plan *p = NULL;
    fst_state weights = {0};
    const float *out;
    float x = 0;
    fst_plan_options o = {.batch = 4096, .training = true, .measure = true, .backend = "reference"};
    assert_ok(fst_model_graph(&g, "resnet50", NULL, err));
    assert_ok(fst_plan_new(&p, g, &o, err));
    assert_true(fst_plan_arena_bytes(p) > (size_t)100 << 30);
    assert_null(fst_plan_output_grad(p));
    assert_fails(fst_plan_forward(p, &weights, &x, NULL, &out, err), FST_E_ARGUMENT, "cannot run");
    fst_plan_free(p);
    fst_graph_free(g);
}

/*
 * resnet20 with oneDNN keeps the results of its convolutions for the backward pass, and no output of a norm, a sum or a
 * ReLU. By hand, in values of 16 x 32 x 32: convolutions 7 + 3.5 + 1.75; while the first stage goes backward, its own
 * 7, its four outputs and one inside a block made again, and the gradients of a block: 15. With the outputs kept it
 * was 24.
 */
static void outputs_of_norms_are_not_kept(void **state)
{
    (void)state;
    fst_graph *g = NULL;
    fst_plan *p = NULL;
    fst_plan_options o = {.batch = 8, .training = true, .measure = true, .backend = fst_backend_names()[0]};
    size_t value = 8 * 16 * 32 * 32 * sizeof(float);
    if (strcmp(o.backend, "onednn") != 0)
        return; /* the reference keeps everything */
    assert_ok(fst_model_graph(&g, "resnet20", NULL, err));
    assert_ok(fst_plan_new(&p, g, &o, err));
    assert_in_range(fst_plan_arena_bytes(p), 12 * value, 17 * value);
    fst_plan_free(p);
    fst_graph_free(g);
}

/*
 * The first stage of resnet50 on 32 x 32 pictures, batch 16: results of 256 channels are 16 MiB each and are made again
 * from inputs of 64 channels. With all results kept the plan had 233 MiB, with outputs of norms besides 420.
 */
static void large_results_of_few_operations_are_not_kept(void **state)
{
    (void)state;
    fst_graph *g = NULL;
    fst_plan *p = NULL;
    fst_plan_options o = {.batch = 16, .training = true, .measure = true, .backend = fst_backend_names()[0]};
    fst_model_config c = {.classes = 100, .input = {3, {3, 32, 32}}, .stem = FST_STEM_CIFAR};
    if (strcmp(o.backend, "onednn") != 0)
        return;
    assert_ok(fst_model_graph(&g, "resnet50", &c, err));
    assert_ok(fst_plan_new(&p, g, &o, err));
    assert_in_range(fst_plan_arena_bytes(p), 150 << 20, 228 << 20);
    fst_plan_free(p);
    fst_graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_agree),
        cmocka_unit_test(what_does_not_fit_is_measured),
        cmocka_unit_test(outputs_of_norms_are_not_kept),
        cmocka_unit_test(large_results_of_few_operations_are_not_kept),
    };
    return cmocka_run_group_tests_name("measure", tests, NULL, NULL);
}

/* Every backend against the reference backend on sequences that backends fuse and fold, all of them and not left to the
 * draw (as in test_random_graphs.c); and what is laid down where several answers would do. */
#include "nn/agree.h"
#include "nn/random_graph.h"

/* c: a convolution drawn at random, p: pooling, n: batch norm, r: ReLU, s: ReLU6, d: dropout, f: flatten, l: linear */
static void write_chain(struct draft *d, uint64_t seed, fst_shape shape, int64_t batch, const char *ops)
{
    *d = (struct draft){.batch = batch, .inputs = 1};
    fst_rng_init(&d->rng, seed, "test.graph", 0);
    assert_ok(fst_graph_new(&d->graph, err));
    d->item[d->items++] = (struct item){.value = fst_graph_input(d->graph, &shape), .shape = shape};
    note(d, "chain %s of batch %d\n", ops, (int)batch);
    for (const char *o = ops; *o; o++) {
        int x = d->items - 1, y = -1;
        fst_value v = d->item[x].value;
        d->item[x].normed = false;
        if (*o == 'c')
            while (y < 0)
                y = draw_conv(d, x, false);
        else
            y = *o == 'n'   ? draw_batchnorm(d, x)
                : *o == 'p' ? put(d, fst_graph_maxpool2d(d->graph, v, 3, 2, 1), x, -1, "pool")
                : *o == 'r' ? put(d, fst_graph_relu(d->graph, v), x, -1, "relu")
                : *o == 's' ? put(d, fst_graph_relu6(d->graph, v), x, -1, "relu6")
                : *o == 'd' ? put(d, fst_graph_dropout(d->graph, v, 0.25), x, -1, "dropout")
                : *o == 'f' ? put(d, fst_graph_flatten(d->graph, v), x, -1, "flatten")
                            : draw_linear(d, x);
        assert_true(y == d->items - 1);
    }
    assert_ok(fst_graph_finish(d->graph, d->item[d->items - 1].value, err));
}

static void check_chain(uint64_t seed, fst_shape shape, int64_t batch, const char *ops, struct tally *t)
{
    struct draft d;
    write_chain(&d, seed, shape, batch, ops);
    struct subject s = {d.graph, batch, seed, d.text};
    check_subject(&s, (fst_plan_options){.training = true, .input_grad = true}, "training", t);
    check_subject(&s, (fst_plan_options){.training = true, .input_grad = true, .frozen = true}, "frozen", t);
    check_subject(&s, (fst_plan_options){0}, "inference", t);
    fst_graph_free(d.graph);
}

static void known_chains(void **state)
{
    static const char *const chains[] = {
        "crp", "crrp", "cnrp", "cnp",   "cpn",   "cpr", "crdp", "cprn", "rp",         "pr",       "crcr",     "nrp",
        "cr",  "cnr",  "crf",  "crpfl", "d",     "f",   "fr",   "fd",   "crpcrpflrl", "cnrcnrfl", "crdcrdfl", "p",
        "n",   "r",    "c",    "rr",    "cdnrp", "cns", "cs",   "cnsp", "crn",        "cpp"};
    struct tally t = {0};
    (void)state;
    for (size_t i = 0; i < sizeof chains / sizeof *chains; i++)
        for (uint64_t seed = 0; seed < 2; seed++) {
            check_chain(1000 + seed, FST_SHAPE(5, 9, 10), 3, chains[i], &t);
            check_chain(2000 + seed, FST_SHAPE(16, 7, 7), 6, chains[i], &t);
        }
    print_message("%zu tensors compared, %zu left out\n", t.compared, t.left_out);
    assert_true(t.left_out * 5 < t.compared);
}

/* Equal maxima: the first in row-major order takes the gradient, in every backend. */
static void ties_go_to_the_first(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (int64_t channels = 1; channels <= 17; channels += 16) {
            fst_graph *g = NULL;
            fst_plan *plan = NULL;
            fst_state s = {0};
            const float *y;
            assert_ok(fst_graph_new(&g, err));
            fst_shape in = FST_SHAPE(channels, 2, 2);
            fst_value x = fst_graph_input(g, &in);
            assert_ok(fst_graph_finish(g, fst_graph_maxpool2d(g, x, 2, 2, 0), err));
            assert_ok(fst_state_init(&s, g, err));
            fst_plan_options po = {.batch = 1, .training = true, .input_grad = true, .backend = *b};
            assert_ok(fst_plan_new(&plan, g, &po, err));
            float data[17 * 4];
            for (int i = 0; i < 17 * 4; i++)
                data[i] = i % 4 == 0 ? -1 : 2.5f;
            assert_ok(fst_plan_forward(plan, &s, data, NULL, &y, err));
            for (int64_t c = 0; c < channels; c++)
                fst_plan_output_grad(plan)[c] = (float)(c + 1);
            assert_ok(fst_plan_backward(plan, &s, s.params, err));
            for (int64_t i = 0; i < channels * 4; i++)
                assert_true(fst_plan_input_grad(plan)[i] == (i % 4 == 1 ? (float)(i / 4 + 1) : 0));
            fst_plan_free(plan);
            fst_state_release(&s);
            fst_graph_free(g);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_chains),
        cmocka_unit_test(ties_go_to_the_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* Plans of one graph on several threads at once: a graph is only read, and plans share nothing, so every thread gets
 * the bits that it would get alone. (The thread sanitizer's build runs this too.) */
#include "nn/agree.h"
#include "nn/random_graph.h"

enum { THREADS = 4, PASSES = 3 };

struct runner {
    pthread_t thread;
    const struct subject *subject;
    fst_plan_options options;
    struct outcome out[PASSES];
};

static void *run_passes(void *arg)
{
    struct runner *r = arg;
    for (int i = 0; i < PASSES; i++)
        run_subject(r->subject, &r->options, (struct noise){0}, &r->out[i]);
    return NULL;
}

static void same_bits(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->tensors, b->tensors);
    assert_int_equal(a->counters, b->counters);
    assert_memory_equal(a->data, b->data, a->at[a->tensors] * sizeof(float));
}

/* Half of the threads train and half infer. */
static void check(const struct subject *s, const char *backend)
{
    struct runner r[THREADS];
    struct outcome alone[2];
    for (int i = 0; i < THREADS; i++)
        r[i] = (struct runner){
            .subject = s,
            .options = {.batch = s->batch, .training = i % 2 == 0, .input_grad = i % 2 == 0, .backend = backend}};
    for (int i = 0; i < 2; i++)
        run_subject(s, &r[i].options, (struct noise){0}, &alone[i]);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(fst_thread_start(&r[i].thread, run_passes, &r[i]), 0);
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_join(r[i].thread, NULL), 0);
    for (int i = 0; i < THREADS; i++)
        for (int k = 0; k < PASSES; k++) {
            same_bits(&alone[i % 2], &r[i].out[k]);
            free(r[i].out[k].data);
        }
    free(alone[0].data);
    free(alone[1].data);
}

static void plans_share_nothing(void **state)
{
    (void)state;
    for (const char *const *b = fst_backend_names(); *b; b++)
        for (uint64_t seed = 0; seed < 24; seed++) {
            struct draft d;
            draw_graph(&d, seed);
            struct subject s = {d.graph, d.batch, seed, d.text};
            check(&s, *b);
            fst_graph_free(d.graph);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plans_share_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

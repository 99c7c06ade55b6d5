/* Optimisers against their formulas in double, independence of threads, clipping, schedules. */
#include "nn/support.h"

enum { COUNT = 50000, PARTS = 3, STEPS = 5 }; /* some blocks more than a pool needs to be used */

struct rule { /* the formulas as their papers have them, one value at a time */
    fst_optim_spec spec;
    double lr, prox;
    bool decoupled, adaptive, shifted; /* shifted: by the anchor's values, which are as good as any */
};

struct memory {
    double w, m, v;
};

static void plain_step(const struct rule *r, struct memory *s, double gradient, double scale, double anchor, int t)
{
    const fst_optim_spec *p = &r->spec;
    double g = (gradient + r->prox * (s->w - anchor)) * scale, w = s->w;
    if (r->adaptive) {
        if (!r->decoupled)
            g += p->weight_decay * w;
        s->m = 0.9 * s->m + 0.1 * g;
        s->v = 0.999 * s->v + 0.001 * g * g;
        double m = s->m / (1 - pow(0.9, t)), v = s->v / (1 - pow(0.999, t));
        s->w = w - r->lr * m / (sqrt(v) + 1e-8) - (r->decoupled ? r->lr * p->weight_decay * w : 0);
        return;
    }
    g += p->weight_decay * w;
    s->m = t == 1 ? g : p->momentum * s->m + g;
    s->w = w - r->lr * (p->momentum == 0 ? g : p->nesterov ? g + p->momentum * s->m : s->m);
}

struct arrays {
    float *w, *anchor, *part[PARTS];
    struct memory *plain;
};

static void open_arrays(struct arrays *a)
{
    a->w = new_floats(COUNT);
    a->anchor = new_floats(COUNT);
    a->plain = calloc(COUNT, sizeof *a->plain);
    assert_non_null(a->plain);
    fill_normal(a->w, COUNT, 1, "test.w", 1);
    fill_normal(a->anchor, COUNT, 2, "test.anchor", 1);
    for (int i = 0; i < PARTS; i++)
        a->part[i] = new_floats(COUNT);
    for (int i = 0; i < COUNT; i++)
        a->plain[i].w = (double)a->w[i];
}

static void close_arrays(struct arrays *a)
{
    free(a->w);
    free(a->anchor);
    free(a->plain);
    for (int i = 0; i < PARTS; i++)
        free(a->part[i]);
}

static void new_gradients(struct arrays *a, size_t parts, uint64_t seed)
{
    for (size_t i = 0; i < parts; i++)
        fill_normal(a->part[i], COUNT, seed * 10 + i, "test.gradient", 1);
}

static double gradient_at(const struct arrays *a, size_t parts, bool shifted, size_t i)
{
    double g = 0;
    for (size_t k = 0; k < parts; k++)
        g += (double)a->part[k][i];
    return shifted ? g + (double)a->anchor[i] : g;
}

static void check_rule(const struct rule *r, size_t parts, fst_pool *pool)
{
    struct arrays a;
    fst_optim o = {0};
    open_arrays(&a);
    assert_ok(fst_optim_init(&o, &r->spec, COUNT, err));
    for (int t = 1; t <= STEPS; t++) {
        new_gradients(&a, parts, (uint64_t)t);
        double square = 0, clip = r->spec.clip_norm;
        for (size_t i = 0; i < COUNT; i++) {
            double g = gradient_at(&a, parts, r->shifted, i) + r->prox * (a.plain[i].w - (double)a.anchor[i]);
            square += g * g;
        }
        double norm = sqrt(square), scale = clip > 0 ? fmin(1, clip / (norm + 1e-6)) : 1;
        for (size_t i = 0; i < COUNT; i++)
            plain_step(r, &a.plain[i], gradient_at(&a, parts, r->shifted, i), scale, (double)a.anchor[i], t);
        fst_optim_input in = {.grads = a.part,
                              .parts = parts,
                              .learning_rate = r->lr,
                              .prox_mu = r->prox,
                              .anchor = a.anchor,
                              .shift = r->shifted ? a.anchor : NULL,
                              .want_norm = t % 2 == 0};
        double got = fst_optim_step(&o, a.w, &in, pool);
        if (clip > 0 || in.want_norm)
            assert_true(fabs(got - norm) < 1e-5 * norm);
        else
            assert_true(got == -1);
    }
    assert_int_equal(o.steps, STEPS);
    double off = 0;
    for (size_t i = 0; i < COUNT; i++)
        off = fmax(off, fabs((double)a.w[i] - a.plain[i].w) / (1 + fabs(a.plain[i].w)));
    if (!(off < 1e-5))
        fail_msg("kind %d, prox %g, clip %g: off by %g", (int)r->spec.kind, r->prox, r->spec.clip_norm, off);
    fst_optim_release(&o);
    close_arrays(&a);
}

static const fst_optim_spec specs[] = {
    {.kind = FST_OPTIM_SGD},
    {.kind = FST_OPTIM_SGD, .weight_decay = 0.01},
    {.kind = FST_OPTIM_SGD, .momentum = 0.9, .weight_decay = 0.01},
    {.kind = FST_OPTIM_SGD, .momentum = 0.9, .nesterov = true},
    {.kind = FST_OPTIM_ADAM},
    {.kind = FST_OPTIM_ADAM, .weight_decay = 0.01},
    {.kind = FST_OPTIM_ADAMW, .weight_decay = 0.05},
};
enum { SPECS = sizeof specs / sizeof *specs };

static void formulas(void **state)
{
    (void)state;
    fst_pool *pool = NULL;
    assert_ok(fst_pool_new(&pool, 2, err));
    for (size_t i = 0; i < SPECS; i++)
        for (int k = 0; k < 4; k++) {
            struct rule r = {.spec = specs[i], .lr = 0.01, .prox = k & 1 ? 0.1 : 0, .shifted = k & 2};
            r.spec.clip_norm = k & 2 ? 5 : 0;
            r.adaptive = r.spec.kind != FST_OPTIM_SGD;
            r.decoupled = r.spec.kind == FST_OPTIM_ADAMW;
            check_rule(&r, k & 1 ? PARTS : 1, k & 2 ? pool : NULL);
        }
    fst_pool_free(pool);
}

static void threads_change_no_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < SPECS; i++)
        for (int clip = 0; clip < 2; clip++) {
            float *first = NULL;
            double norms[2] = {0};
            for (int threads = 0; threads <= 4; threads++) {
                struct arrays a;
                fst_optim o = {0};
                fst_pool *pool = NULL;
                fst_optim_spec spec = specs[i];
                spec.clip_norm = clip ? 5 : 0;
                open_arrays(&a);
                if (threads)
                    assert_ok(fst_pool_new(&pool, threads, err));
                assert_ok(fst_optim_init(&o, &spec, COUNT, err));
                for (uint64_t t = 0; t < 2; t++) {
                    new_gradients(&a, PARTS, t);
                    fst_optim_input in = {.grads = a.part,
                                          .parts = PARTS,
                                          .learning_rate = 0.01,
                                          .prox_mu = 0.1,
                                          .anchor = a.anchor,
                                          .want_norm = true};
                    double n = fst_optim_step(&o, a.w, &in, pool);
                    assert_true(threads == 0 || n == norms[t]);
                    norms[t] = n;
                }
                if (first)
                    assert_memory_equal(first, a.w, COUNT * sizeof *first);
                else
                    memcpy(first = new_floats(COUNT), a.w, COUNT * sizeof *first);
                fst_pool_free(pool);
                fst_optim_release(&o);
                close_arrays(&a);
            }
            free(first);
        }
}

/* With learning rate 1 and plain SGD the step is the clipped gradient itself. */
static void clipping_caps_the_norm(void **state)
{
    (void)state;
    for (double scale = 0.001; scale < 2000; scale *= 10) {
        fst_optim_spec spec = {.kind = FST_OPTIM_SGD, .clip_norm = 3};
        fst_optim o = {0};
        float *w = new_floats(COUNT), *g = new_floats(COUNT), *was = new_floats(COUNT);
        fill_normal(g, COUNT, 5, "test.gradient", scale);
        memcpy(was, g, COUNT * sizeof *g);
        assert_ok(fst_optim_init(&o, &spec, COUNT, err));
        fst_optim_input in = {.grads = &g, .parts = 1, .learning_rate = 1};
        double norm = fst_optim_step(&o, w, &in, NULL), step = distance(w, NULL, COUNT);
        assert_true(fabs(norm - distance(was, NULL, COUNT)) < 1e-5 * norm);
        assert_true(step <= 3 * (1 + 1e-5));
        if (norm > 3)
            assert_true(step > 3 * (1 - 1e-5));
        else
            assert_true(fabs(step - norm) < 1e-5 * norm);
        fst_optim_release(&o);
        free(w);
        free(g);
        free(was);
    }
}

/* Nothing but the proximal term: the weights go to the anchor, by the factor 1 - lr mu a step. */
static void prox_pulls_to_the_anchor(void **state)
{
    (void)state;
    fst_optim_spec spec = {.kind = FST_OPTIM_SGD};
    fst_optim o = {0};
    float w[100], anchor[100], zero[100] = {0}, *g = zero;
    fill_normal(w, 100, 1, "test.w", 1);
    fill_normal(anchor, 100, 2, "test.anchor", 1);
    double start = distance(w, anchor, 100);
    assert_ok(fst_optim_init(&o, &spec, 100, err));
    for (int t = 1; t <= 10; t++) {
        fst_optim_input in = {.grads = &g, .parts = 1, .learning_rate = 0.5, .prox_mu = 0.4, .anchor = anchor};
        (void)fst_optim_step(&o, w, &in, NULL);
        assert_true(fabs(distance(w, anchor, 100) - start * pow(0.8, t)) < 1e-5 * start);
    }
    fst_optim_release(&o);
}

/* More blocks than the norm keeps at once; each value is 2, so the norm is exact. */
static void long_spans(void **state)
{
    enum { LONG = 1024 * 8192 + 8192 * 7 + 4 };
    (void)state;
    fst_optim_spec spec = {.kind = FST_OPTIM_SGD};
    fst_pool *pool = NULL;
    fst_optim o = {0};
    float *w = new_floats(LONG), *g = new_floats(LONG);
    for (size_t i = 0; i < LONG; i++)
        g[i] = 2;
    assert_ok(fst_pool_new(&pool, 2, err));
    assert_ok(fst_optim_init(&o, &spec, LONG, err));
    fst_optim_input in = {.grads = &g, .parts = 1, .learning_rate = 0.5, .want_norm = true};
    assert_true(fabs(fst_optim_step(&o, w, &in, pool) - 2 * sqrt(LONG)) < 1e-9);
    for (size_t i = 0; i < LONG; i++)
        assert_true(w[i] == -1);
    fst_optim_release(&o);
    fst_pool_free(pool);
    free(w);
    free(g);
}

static void reset_is_as_new(void **state)
{
    (void)state;
    for (size_t i = 0; i < SPECS; i++) {
        fst_optim o = {0};
        float w[64], v[64], g[64], *part = g;
        assert_ok(fst_optim_init(&o, &specs[i], 64, err));
        for (int round = 0; round < 2; round++) {
            fill_normal(w, 64, 1, "test.w", 1);
            for (uint64_t t = 0; t < 3; t++) {
                fill_normal(g, 64, t, "test.gradient", 1);
                fst_optim_input in = {.grads = &part, .parts = 1, .learning_rate = 0.1};
                (void)fst_optim_step(&o, w, &in, NULL);
            }
            if (round)
                assert_memory_equal(v, w, sizeof w);
            memcpy(v, w, sizeof w);
            fst_optim_reset(&o);
        }
        fst_optim_release(&o);
    }
}

static void wrong_numbers_are_refused(void **state)
{
    (void)state;
    static const fst_optim_spec wrong[] = {
        {.learning_rate = -1},
        {.learning_rate = NAN},
        {.momentum = -0.1},
        {.weight_decay = NAN},
        {.clip_norm = -1},
        {.kind = FST_OPTIM_ADAM, .beta1 = 1},
        {.kind = FST_OPTIM_ADAM, .beta2 = 1.5},
        {.kind = FST_OPTIM_ADAM, .beta1 = -0.5},
        {.kind = FST_OPTIM_ADAM, .eps = -1},
        {.kind = FST_OPTIM_ADAM, .beta2 = NAN},
    };
    fst_optim o = {0};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_fails(fst_optim_init(&o, &wrong[i], 10, err), FST_E_ARGUMENT, "must");
    assert_null(o.moment1);
}

/* ---- schedules ---------------------------------------------------------------------------------------- */

static void near(double a, double b)
{
    if (!(fabs(a - b) < 1e-12))
        fail_msg("%.15g is not %.15g", a, b);
}

static void schedules(void **state)
{
    (void)state;
    fst_schedule none = {0}, cosine = {.kind = FST_SCHEDULE_COSINE, .eta_min = 0.1, .total = 10};
    near(fst_schedule_rate(&none, 0.5, 1000), 0.5);
    near(fst_schedule_rate(&cosine, 0.5, 0), 0.5);
    near(fst_schedule_rate(&cosine, 0.5, 5), 0.3);
    near(fst_schedule_rate(&cosine, 0.5, 10), 0.1);
    for (int64_t e = 1; e <= 10; e++)
        assert_true(fst_schedule_rate(&cosine, 0.5, e) < fst_schedule_rate(&cosine, 0.5, e - 1));
    cosine.total = 0;
    near(fst_schedule_rate(&cosine, 0.5, 3), 0.5);
    fst_schedule multi = {.kind = FST_SCHEDULE_MULTISTEP, .gamma = 0.1, .milestones = {2, 4}, .milestone_count = 2};
    const double rates[] = {1, 1, 0.1, 0.1, 0.01, 0.01};
    for (int64_t e = 0; e < 6; e++)
        near(fst_schedule_rate(&multi, 1, e), rates[e]);
    multi.milestone_count = 0;
    near(fst_schedule_rate(&multi, 1, 100), 1);
    fst_schedule step = {.kind = FST_SCHEDULE_STEP, .gamma = 0.5, .step_size = 3};
    near(fst_schedule_rate(&step, 1, 2), 1);
    near(fst_schedule_rate(&step, 1, 3), 0.5);
    near(fst_schedule_rate(&step, 1, 8), 0.25);
    step.step_size = 0;
    near(fst_schedule_rate(&step, 1, 8), 1);
}

static void warm_up(void **state)
{
    (void)state;
    fst_schedule s = {.kind = FST_SCHEDULE_WARMUP_COSINE, .eta_min = 0.2, .total = 14, .warmup = 4};
    for (int64_t e = 0; e < 4; e++)
        near(fst_schedule_rate(&s, 1, e), 0.25 * (double)(e + 1));
    near(fst_schedule_rate(&s, 1, 4), 1);
    near(fst_schedule_rate(&s, 1, 9), 0.6);
    near(fst_schedule_rate(&s, 1, 14), 0.2);
    s.warmup = 0;
    near(fst_schedule_rate(&s, 1, 0), 1);
    s.warmup = s.total; /* warming up is all there is */
    near(fst_schedule_rate(&s, 1, 13), 1);
    near(fst_schedule_rate(&s, 1, 14), 1);
}

/* Behind its last epoch a cosine stays at its floor and does not climb again. */
static void schedules_end(void **state)
{
    (void)state;
    fst_schedule cosine = {.kind = FST_SCHEDULE_COSINE, .eta_min = 0.1, .total = 10};
    fst_schedule warm = {.kind = FST_SCHEDULE_WARMUP_COSINE, .eta_min = 0.1, .total = 10, .warmup = 2};
    for (int64_t e = 10; e < 30; e++) {
        near(fst_schedule_rate(&cosine, 1, e), 0.1);
        near(fst_schedule_rate(&warm, 1, e), 0.1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formulas),
        cmocka_unit_test(threads_change_no_bit),
        cmocka_unit_test(clipping_caps_the_norm),
        cmocka_unit_test(prox_pulls_to_the_anchor),
        cmocka_unit_test(long_spans),
        cmocka_unit_test(reset_is_as_new),
        cmocka_unit_test(wrong_numbers_are_refused),
        cmocka_unit_test(schedules),
        cmocka_unit_test(warm_up),
        cmocka_unit_test(schedules_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

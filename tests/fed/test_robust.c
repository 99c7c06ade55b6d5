/* The robust rules: what they are by a second reckoning, that the order of the clients does not count, that one
 * client cannot move them, what they refuse, and memory that runs out. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "fedstill/fed.h"

enum { MOST = 41, LIARS = 2 };
static const fst_fed_size SIZE = {203, 11, 2};

typedef fst_status (*rule)(const fst_fed_view *client, size_t n, fst_fed_state *out, fst_error *err);

static fst_status median(const fst_fed_view *client, size_t n, fst_fed_state *out, fst_error *err)
{
    return fst_robust_median(client, n, out, err);
}

static fst_status trimmed(const fst_fed_view *client, size_t n, fst_fed_state *out, fst_error *err)
{
    return fst_robust_trimmed_mean(client, n, 0.3, out, err);
}

static fst_status krum(const fst_fed_view *client, size_t n, fst_fed_state *out, fst_error *err)
{
    return fst_robust_krum(client, n, LIARS, 1, out, NULL, NULL, err);
}

static fst_status multi_krum(const fst_fed_view *client, size_t n, fst_fed_state *out, fst_error *err)
{
    return fst_robust_krum(client, n, LIARS, 3, out, NULL, NULL, err);
}

static fst_status geometric(const fst_fed_view *client, size_t n, fst_fed_state *out, fst_error *err)
{
    return fst_robust_geometric_median(client, NULL, n, 100, 1e-9, out, err);
}

static const struct {
    const char *name;
    rule run;
} rules[] = {{"median", median},
             {"trimmed mean", trimmed},
             {"krum", krum},
             {"multi-krum", multi_krum},
             {"geometric median", geometric}};
enum { RULES = sizeof rules / sizeof *rules };

static void ok(fst_status s, const fst_error *e)
{
    if (s)
        fail_msg("%s", e->message);
}

struct crowd {
    fst_fed_state state[MOST], out;
    fst_fed_view view[MOST];
};

/* Around 1, each coordinate with a spread of 0.1. */
static void gather(struct crowd *c)
{
    fst_error err;
    ok(fst_fed_state_init(&c->out, SIZE, &err), &err);
    for (int k = 0; k < MOST; k++) {
        fst_rng r;
        fst_rng_init(&r, 5, "test.client", (uint64_t)k);
        ok(fst_fed_state_init(&c->state[k], SIZE, &err), &err);
        for (size_t i = 0; i < SIZE.params; i++)
            c->state[k].params[i] = (float)(1 + 0.1 * fst_rng_normal(&r));
        for (size_t i = 0; i < SIZE.buffers; i++)
            c->state[k].buffers[i] = (float)(1 + 0.1 * fst_rng_normal(&r));
        c->state[k].counters[0] = -5 - k;
        c->state[k].counters[1] = (int64_t)fst_rng_below(&r, 1000);
        c->view[k] = fst_fed_state_view(&c->state[k]);
    }
}

static void leave(struct crowd *c)
{
    for (int k = 0; k < MOST; k++)
        fst_fed_state_release(&c->state[k]);
    fst_fed_state_release(&c->out);
}

static float value(const fst_fed_view *s, size_t i)
{
    return i < SIZE.params ? s->params[i] : s->buffers[i - SIZE.params];
}

static float result(const struct crowd *c, size_t i)
{
    fst_fed_view v = fst_fed_state_view(&c->out);
    return value(&v, i);
}

enum { VALUES = 203 + 11 };

/* Values with at most `half` smaller and at most `half` larger ones. */
static void test_median(void **state)
{
    struct crowd c;
    fst_error err;
    (void)state;
    gather(&c);
    for (size_t n = 1; n <= MOST; n += 2) { /* odd: it is one of the values. 33 and more are sorted another way */
        ok(fst_robust_median(c.view, n, &c.out, &err), &err);
        for (size_t i = 0; i < VALUES; i++) {
            size_t below = 0, above = 0;
            for (size_t k = 0; k < n; k++) {
                below += value(&c.view[k], i) < result(&c, i);
                above += value(&c.view[k], i) > result(&c, i);
            }
            assert_true(below == n / 2 && above == n / 2);
        }
    }
    ok(fst_robust_median(c.view, 2, &c.out, &err), &err); /* even: between the middle two */
    for (size_t i = 0; i < VALUES; i++)
        assert_true(fabs((double)result(&c, i) - ((double)value(&c.view[0], i) + (double)value(&c.view[1], i)) / 2) <
                    1e-7);
    assert_int_equal(c.out.counters[0], -5);
    leave(&c);
}

/* Sum of all less the smallest and the largest, for one cut on each side. */
static void test_trimmed_mean(void **state)
{
    struct crowd c;
    fst_error err;
    (void)state;
    gather(&c);
    ok(fst_robust_trimmed_mean(c.view, 6, 0.2, &c.out, &err), &err); /* floor(1.2) */
    for (size_t i = 0; i < VALUES; i++) {
        double sum = 0, least = 9, most = -9;
        for (size_t k = 0; k < 6; k++) {
            double v = (double)value(&c.view[k], i);
            sum += v;
            least = fmin(least, v);
            most = fmax(most, v);
        }
        assert_true(fabs((double)result(&c, i) - (sum - least - most) / 4) < 1e-6);
    }
    for (double trim = -0.1; trim < 0.7; trim += 0.6) {
        assert_int_equal(fst_robust_trimmed_mean(c.view, 6, trim, &c.out, &err), FST_E_ARGUMENT);
        assert_non_null(strstr(err.message, "trim"));
    }
    leave(&c);
}

/* Five on a line, at 0, 1, 2, 4 and 100: sums of the two smallest squares are 5, 2, 5, 13 and far more. */
static void test_krum_on_a_line(void **state)
{
    float at[] = {4, 0, 1, 100, 2}, out;
    const double want[] = {4 + 9, 1 + 4, 1 + 1, 96 * 96 + 98 * 98, 1 + 4};
    fst_fed_view view[5];
    fst_fed_state s = {&out, NULL, NULL, {1, 0, 0}};
    size_t chosen[3];
    double score[5];
    fst_error err;
    (void)state;
    for (int k = 0; k < 5; k++)
        view[k] = (fst_fed_view){&at[k], NULL, NULL, {1, 0, 0}};
    ok(fst_robust_krum(view, 5, 1, 1, &s, chosen, score, &err), &err);
    assert_true(out == 1 && chosen[0] == 2);
    assert_memory_equal(score, want, sizeof want);
    ok(fst_robust_krum(view, 5, 1, 3, &s, chosen, NULL, &err), &err); /* of equal scores the smaller contents */
    assert_true(out == 1 && chosen[0] == 2 && chosen[1] == 1 && chosen[2] == 4);
    ok(fst_robust_krum(view, 5, 1, 2, &s, NULL, NULL, &err), &err);
    assert_true(out == 0.5f);
}

/* On a line the geometric median is the weighted median; of three corners of an equilateral triangle, the centre. */
static void test_geometric_median(void **state)
{
    float at[] = {0, 1, 5}, corners[3][2] = {{0, 0}, {1, 0}, {0.5f, 0.8660254f}}, out[2];
    const double heavy[] = {1, 1, 3};
    fst_fed_view view[3], corner[3];
    fst_fed_state s = {out, NULL, NULL, {1, 0, 0}}, split = {out, out + 1, NULL, {1, 1, 0}};
    fst_error err;
    (void)state;
    for (int k = 0; k < 3; k++) {
        view[k] = (fst_fed_view){&at[k], NULL, NULL, {1, 0, 0}};
        corner[k] = (fst_fed_view){&corners[k][0], &corners[k][1], NULL, {1, 1, 0}};
    }
    ok(fst_robust_geometric_median(view, NULL, 3, 0, 1e-9, &s, &err), &err); /* no iteration: the mean */
    assert_true(out[0] == 2);
    ok(fst_robust_geometric_median(view, NULL, 3, 200, 1e-9, &s, &err), &err);
    assert_true(fabs((double)out[0] - 1) < 1e-3);
    ok(fst_robust_geometric_median(view, heavy, 3, 200, 1e-9, &s, &err), &err);
    assert_true(fabs((double)out[0] - 5) < 1e-3);
    ok(fst_robust_geometric_median(corner, NULL, 3, 50, 1e-9, &split, &err), &err);
    assert_true(fabs((double)out[0] - 0.5) < 1e-6 && fabs((double)out[1] - 0.28867513) < 1e-6);
    const double wrong[][3] = {{1, -1, 1}, {0, 0, 0}, {1, NAN, 1}};
    for (int k = 0; k < 3; k++)
        assert_int_equal(fst_robust_geometric_median(view, wrong[k], 3, 5, 1e-9, &s, &err), FST_E_ARGUMENT);
    assert_int_equal(fst_robust_geometric_median(view, NULL, 3, -1, 1e-9, &s, &err), FST_E_ARGUMENT);
    assert_int_equal(fst_robust_geometric_median(view, NULL, 3, 5, 0, &s, &err), FST_E_ARGUMENT);
}

/* Any order of the clients gives the same bits, with zeros of both signs, clients that are equal, and scores that are
 * equal among them. */
static void test_order(void **state)
{
    struct crowd c;
    fst_error err;
    fst_rng r;
    (void)state;
    gather(&c);
    fst_rng_init(&r, 1, "test.order", 0);
    memcpy(c.state[4].params, c.state[2].params, 4 * SIZE.params);
    memcpy(c.state[4].buffers, c.state[2].buffers, 4 * SIZE.buffers);
    for (int k = 0; k < 7; k++)
        c.state[k].params[7] = k & 1 ? 0.0f : -0.0f;
    for (int which = 0; which < RULES; which++) {
        float first[VALUES];
        for (int trial = 0; trial < 30; trial++) {
            uint32_t order[] = {0, 1, 2, 3, 4, 5, 6};
            fst_fed_view shuffled[7];
            if (trial)
                fst_rng_shuffle_u32(&r, order, 7);
            for (int k = 0; k < 7; k++)
                shuffled[k] = c.view[order[k]];
            ok(rules[which].run(shuffled, 7, &c.out, &err), &err);
            if (!trial) {
                memcpy(first, c.out.params, 4 * SIZE.params);
                memcpy(first + SIZE.params, c.out.buffers, 4 * SIZE.buffers);
            }
            if (memcmp(first, c.out.params, 4 * SIZE.params) ||
                memcmp(first + SIZE.params, c.out.buffers, 4 * SIZE.buffers))
                fail_msg("%s depends on the order of the clients", rules[which].name);
        }
    }
    leave(&c);
}

/* Two of nine send nonsense: results stay where the honest ones are, and where nonsense of another size leaves them. */
static void test_liars_do_not_count(void **state)
{
    const float lies[] = {1e6f, -1e6f, 3e38f, -3e38f};
    struct crowd c;
    fst_error err;
    (void)state;
    gather(&c);
    for (int which = 0; which < RULES; which++)
        for (int k = 0; k < 4; k++) {
            for (size_t i = 0; i < SIZE.params; i++)
                c.state[1].params[i] = c.state[6].params[i] = lies[k];
            for (size_t i = 0; i < SIZE.buffers; i++)
                c.state[1].buffers[i] = c.state[6].buffers[i] = lies[k];
            ok(rules[which].run(c.view, 9, &c.out, &err), &err);
            for (size_t i = 0; i < VALUES; i++)
                if (!(fabs((double)result(&c, i) - 1) < 0.5))
                    fail_msg("%s: lies of %g move value %zu to %g", rules[which].name, (double)lies[k], i,
                             (double)result(&c, i));
        }
    leave(&c);
}

/* When all agree, so does the result; with what is asked of Krum at least. */
static void test_agreement(void **state)
{
    struct crowd c;
    fst_error err;
    (void)state;
    gather(&c);
    for (int k = 1; k < 7; k++)
        c.view[k] = c.view[0];
    for (int which = 0; which < RULES; which++) {
        ok(rules[which].run(c.view, 7, &c.out, &err), &err);
        for (size_t i = 0; i < VALUES; i++)
            assert_true(result(&c, i) == value(&c.view[0], i));
        assert_memory_equal(c.out.counters, c.state[0].counters, 8 * SIZE.counters);
    }
    leave(&c);
}

static void test_refusals(void **state)
{
    struct crowd c;
    fst_error err;
    (void)state;
    gather(&c);
    memset(c.out.params, 0x55, 4 * SIZE.params);
    for (int which = 0; which < RULES; which++) {
        float *spoilt[] = {&c.state[3].params[SIZE.params - 1], &c.state[3].buffers[2]};
        const char *says[] = {"parameter 202", "buffer 2"};
        for (int k = 0; k < 2; k++) {
            float keep = *spoilt[k];
            *spoilt[k] = k ? INFINITY : NAN;
            assert_int_equal(rules[which].run(c.view, 7, &c.out, &err), FST_E_NUMERIC);
            assert_non_null(strstr(err.message, "client 4"));
            assert_non_null(strstr(err.message, says[k]));
            *spoilt[k] = keep;
        }
        c.view[5].size.params--;
        assert_int_equal(rules[which].run(c.view, 7, &c.out, &err), FST_E_MISMATCH);
        assert_non_null(strstr(err.message, "client 6"));
        c.view[5].size.params++;
        assert_int_equal(rules[which].run(c.view, 0, &c.out, &err), FST_E_ARGUMENT);
    }
    const size_t wrong[][3] = {{6, 2, 1}, {2, 0, 1}, {7, 2, 0}, {7, 2, 6}, {7, SIZE_MAX, 1}}; /* n, f, m */
    for (int k = 0; k < 5; k++)
        assert_int_equal(fst_robust_krum(c.view, wrong[k][0], wrong[k][1], wrong[k][2], &c.out, NULL, NULL, &err),
                         FST_E_ARGUMENT);
    for (size_t i = 0; i < SIZE.params; i++) { /* never touched */
        uint32_t bits;
        memcpy(&bits, &c.out.params[i], 4);
        assert_int_equal(bits, 0x55555555);
    }
    leave(&c);
}

static void test_memory(void **state)
{
    struct crowd c;
    fst_error err;
    (void)state;
    gather(&c);
    for (int which = 0; which < RULES; which++) {
        fst_status s = FST_E_MEMORY;
        uint64_t n = 0;
        while (s == FST_E_MEMORY && n < 10) {
            fst_alloc_fail_at(++n);
            s = rules[which].run(c.view, 7, &c.out, &err);
            fst_alloc_fail_at(0);
        }
        ok(s, &err);
        assert_true(n >= 2);
    }
    leave(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_median),         cmocka_unit_test(test_trimmed_mean),
        cmocka_unit_test(test_krum_on_a_line), cmocka_unit_test(test_geometric_median),
        cmocka_unit_test(test_order),          cmocka_unit_test(test_liars_do_not_count),
        cmocka_unit_test(test_agreement),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A halving that decides as soon as it is certain: for any order in which settings come to their rungs it stops those
 * that waiting for all would stop, at the same rungs and ranks, whatever fails or is not known; and it does not wait
 * for what cannot matter. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "halving_rule.h"

enum { MOST = 12, RUNGS = 3, FAILS = -1 };

struct scene { /* what each setting is worth at each rung; FAILS; NaN: not known */
    size_t settings;
    double value[MOST][RUNGS];
};

struct fate {
    int rung; /* RUNGS: it came to its end */
    size_t rank, of;
};

/* Few different values, so that many are equal. */
static struct scene draw(fst_rng *r)
{
    struct scene s = {.settings = 2 + fst_rng_below(r, MOST - 1)};
    for (size_t i = 0; i < s.settings; i++)
        for (int k = 0; k < RUNGS; k++) {
            uint32_t x = fst_rng_below(r, 20);
            s.value[i][k] = x == 0 ? FAILS : x == 1 ? (double)NAN : (double)(x % 7) / 7;
        }
    return s;
}

static bool is_ahead(const struct scene *s, int rung, size_t a, size_t b)
{
    double x = s->value[a][rung], y = s->value[b][rung];
    return x > y || (x == y && a < b);
}

/* Rung after rung, each when all have come. */
static void wait_for_all(const struct scene *s, struct fate fate[MOST])
{
    for (size_t i = 0; i < s->settings; i++)
        fate[i] = (struct fate){.rung = RUNGS};
    for (int k = 0; k < RUNGS; k++) {
        size_t compared[MOST], n = 0;
        for (size_t i = 0; i < s->settings; i++) {
            if (fate[i].rung < RUNGS)
                continue;
            if (s->value[i][k] == FAILS)
                fate[i].rung = k;
            else if (isfinite(s->value[i][k]))
                compared[n++] = i;
        }
        for (size_t i = 0; i < n; i++) {
            size_t rank = 1;
            for (size_t m = 0; m < n; m++)
                rank += is_ahead(s, k, compared[m], compared[i]);
            if (rank > n - n / 2)
                fate[compared[i]] = (struct fate){k, rank, n};
        }
    }
}

/* One more setting comes to its rung, by chance; false: none is on its way. */
static bool one_comes(const struct scene *s, struct fst__halving *h, fst_rng *r)
{
    size_t way[MOST], n = 0;
    for (size_t i = 0; i < s->settings; i++) {
        const struct fst__course *c = &h->course[i];
        if (!c->out && c->rung < RUNGS && !c->came[c->rung])
            way[n++] = i;
    }
    if (!n)
        return false;
    size_t i = way[fst_rng_below(r, (uint32_t)n)];
    double value = s->value[i][h->course[i].rung];
    if (value == FAILS)
        fst__halving_drop(h, i);
    else
        fst__halving_arrive(h, i, value);
    return true;
}

static void test_any_order(void **state)
{
    (void)state;
    fst_rng r;
    fst_rng_init(&r, 1, "halving", 0);
    for (int trial = 0; trial < 3000; trial++) {
        struct scene s = draw(&r);
        struct fate want[MOST];
        struct fst__halving h;
        struct fst__verdict v;
        wait_for_all(&s, want);
        assert_int_equal(fst__halving_init(&h, s.settings, RUNGS, NULL), FST_OK);
        while (one_comes(&s, &h, &r))
            while (fst__halving_next(&h, &v))
                ;
        for (size_t i = 0; i < s.settings; i++) {
            size_t of = 0, rank = 0;
            assert_int_equal(h.course[i].out, want[i].rung < RUNGS);
            assert_int_equal(h.course[i].rung, want[i].rung);
            if (want[i].rank)
                rank = fst__halving_rank(&h, want[i].rung, i, &of);
            assert_int_equal(rank, want[i].rank);
            assert_int_equal(of, want[i].of);
        }
        fst__halving_release(&h);
    }
}

static void test_early(void **state)
{
    (void)state;
    struct fst__halving h;
    struct fst__verdict v;
    assert_int_equal(fst__halving_init(&h, 4, 2, NULL), FST_OK);
    fst__halving_arrive(&h, 0, 0.1);
    fst__halving_arrive(&h, 1, 0.3);
    assert_false(fst__halving_next(&h, &v)); /* two may come ahead of the better, and behind the worse */
    fst__halving_arrive(&h, 2, 0.2);
    assert_true(fst__halving_next(&h, &v));
    assert_true(v.kind == FST__GOES_ON && v.setting == 1 && v.rung == 0 && v.rank == 1 && v.of == 4);
    assert_true(fst__halving_next(&h, &v));
    assert_true(v.kind == FST__STOPS && v.setting == 0 && v.rung == 0 && v.rank == 3 && v.of == 4);
    assert_false(fst__halving_next(&h, &v)); /* 2 or 3 */
    fst__halving_arrive(&h, 1, 0.5);         /* at the next rung, where one of them will come */
    assert_false(fst__halving_next(&h, &v));
    fst__halving_arrive(&h, 3, 0.9);
    assert_true(fst__halving_next(&h, &v));
    assert_true(v.kind == FST__GOES_ON && v.setting == 3);
    assert_true(fst__halving_next(&h, &v));
    assert_true(v.kind == FST__STOPS && v.setting == 2 && v.rank == 3);
    assert_true(fst__halving_next(&h, &v));
    assert_true(v.kind == FST__OVER && v.rung == 0 && v.setting == 3 && v.rank == 2 && v.of == 4);
    assert_false(fst__halving_next(&h, &v));
    fst__halving_drop(&h, 3); /* then 1 is the best that there is */
    assert_true(fst__halving_next(&h, &v));
    assert_true(v.kind == FST__GOES_ON && v.setting == 1 && v.rung == 1 && v.of == 1);
    assert_true(fst__halving_next(&h, &v));
    assert_true(v.kind == FST__OVER && v.rung == 1);
    fst__halving_release(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_any_order), cmocka_unit_test(test_early)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* A tier that settles: the same answers, to the bit, from one copy of the weights, and nothing left lying about. */
#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fedstill/infer.h"

enum { BATCH = 16, CLASSES = 10, THREADS = 2, ELEMENTS = 3 * 32 * 32 };

static void ok(fst_status st, const fst_error *err)
{
    if (st)
        fail_msg("%s: %s", fst_status_name(st), err->message);
}

static long anonymous_kb(void)
{
    char line[128];
    long kb = -1;
    FILE *f = fopen("/proc/self/status", "re");
    malloc_trim(0);
    while (f && kb < 0 && fgets(line, sizeof line, f))
        (void)sscanf(line, "RssAnon: %ld", &kb);
    if (f)
        fclose(f);
    return kb;
}

/* Sanitizers and valgrind hold back what was freed. */
static bool frees(void)
{
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
    return false;
#else
    const char *preload = getenv("LD_PRELOAD");
    return !preload || !strstr(preload, "vgpreload");
#endif
}

static size_t files_in(const char *folder)
{
    size_t n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

static void open_tier(fst_model *m, fst_tier **t, const char *arch)
{
    fst_error err = {0};
    const fst_model_config c = {.classes = CLASSES, .input = FST_SHAPE(3, 32, 32)};
    const fst_tier_spec spec = {
        .dtype = FST_F32, .shape = FST_SHAPE(3, 32, 32), .batch = BATCH, .threads = THREADS, .temperature = 1};
    ok(fst_model_init(m, arch, &c, &err), &err);
    fst_state_randomise(&m->state, m->graph, 5);
    ok(fst_tier_new(t, m, &spec, &err), &err);
}

static void answer(fst_tier *t, float *logits)
{
    static float windows[BATCH][ELEMENTS];
    const void *rows[BATCH];
    fst_error err = {0};
    for (size_t i = 0; i < BATCH; i++) {
        for (size_t k = 0; k < ELEMENTS; k++)
            windows[i][k] = (float)((i * 31 + k * 17) % 101) / 50.0F - 1.0F;
        rows[i] = windows[i];
    }
    ok(fst_tier_logits(t, rows, BATCH, logits, &err), &err);
}

static void settles(void **state)
{
    static const char *const archs[] = {"cifar_teacher", "resnet8", "logistic_regression"};
    float before[BATCH * CLASSES], after[BATCH * CLASSES];
    char folder[] = "/tmp/fedstill-tier-XXXXXX";
    (void)state;
    assert_non_null(mkdtemp(folder));
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        fst_model m;
        fst_tier *t = NULL;
        fst_error err = {0};
        open_tier(&m, &t, archs[i]);
        answer(t, before);
        long kb = anonymous_kb(), weights = (long)(m.state.param_count * sizeof(float) / 1024);
        ok(fst_tier_settle(t, &m, folder, &err), &err);
        assert_int_equal(files_in(folder), 0);
        answer(t, after);
        assert_memory_equal(before, after, sizeof before);
        assert_int_equal(fst_tier_settle(t, &m, folder, &err), FST_E_ARGUMENT);
        long now = anonymous_kb();
        if (frees() && weights > 4096 && now > kb - weights / 2)
            fail_msg("%s: %ld KiB before, %ld now, though its weights, %ld KiB, are in a file", archs[i], kb, now,
                     weights);
        fst_tier_free(t);
        fst_model_release(&m);
    }
    assert_int_equal(rmdir(folder), 0);
}

/* No room: it answers as before. */
static void stays_as_it_is(void **state)
{
    float before[BATCH * CLASSES], after[BATCH * CLASSES];
    fst_model m;
    fst_tier *t = NULL;
    fst_error err = {0};
    (void)state;
    open_tier(&m, &t, "resnet8");
    answer(t, before);
    assert_int_equal(fst_tier_settle(t, &m, "/nowhere/at/all", &err), FST_E_IO);
    assert_non_null(strstr(err.message, "/nowhere/at/all"));
    assert_non_null(m.state.params);
    answer(t, after);
    assert_memory_equal(before, after, sizeof before);
    fst_tier_free(t);
    fst_model_release(&m);
}

/* What was kept of a training goes, and what is at work does not. */
static void forgets_training(void **state)
{
    float before[BATCH * CLASSES], after[BATCH * CLASSES];
    const fst_plan_options training = {.batch = BATCH, .training = true};
    fst_model m;
    fst_tier *t = NULL;
    fst_plan *plan = NULL;
    fst_error err = {0};
    (void)state;
    open_tier(&m, &t, "resnet8");
    answer(t, before);
    ok(fst_plan_new(&plan, m.graph, &training, &err), &err);
    fst_plan_free(plan);
    long kb = anonymous_kb();
    fst_backends_forget();
    long now = anonymous_kb();
    if (frees() && !strcmp(fst_backend_names()[0], "onednn") && now >= kb)
        fail_msg("%ld KiB before, %ld now", kb, now);
    answer(t, after);
    assert_memory_equal(before, after, sizeof before);
    fst_tier_free(t);
    fst_model_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(settles), cmocka_unit_test(stays_as_it_is),
                                       cmocka_unit_test(forgets_training)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

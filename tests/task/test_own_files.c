/* A site with files of its own: it opens nothing else, is known by the digest that one process makes of the same files,
 * and makes of what the cloud sends it what it should, or says what is wrong with it. */
#define _XOPEN_SOURCE 700 /* nftw */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "fedstill/fed.h"
#include "session_fixture.h"

enum { VALUES = 4, CLASSES = 3 };
static const char task_text[] =
    "name: places\nseed: 3\n"
    "data: {path: cloud, edge_paths: [e1, e2]}\n"
    "topology: {edges: 2, devices: 2}\n"
    "stages:\n"
    "  rounds: {kind: federated_train, model: logistic_regression, init: random, rounds: 1}\n"
    "  labels: {kind: cloud_kd, teacher: rounds, at_clients: true}\n";

#define must(call)                                  \
    do {                                            \
        why = (fst_error){0};                       \
        if (call)                                   \
            fail_msg("%s: %s", #call, why.message); \
    } while (0)

static void write_samples(const char *place, const char *split, size_t n, float from)
{
    char name[64];
    fst_source *s = NULL;
    float *x = calloc(n * VALUES, sizeof *x);
    int32_t *y = calloc(n, sizeof *y);
    fst_shape shape = FST_SHAPE(1, 2, 2);
    for (size_t i = 0; i < n; i++) {
        y[i] = (int32_t)(i % CLASSES);
        for (size_t k = 0; k < VALUES; k++)
            x[i * VALUES + k] = from + (float)i + 0.1f * (float)k;
    }
    must(fst_make_folders(path_in(place), &why));
    snprintf(name, sizeof name, "%s/%s.safetensors", place, split);
    must(fst_source_from_memory(&s, "samples", FST_F32, &shape, n, x, y, CLASSES, &why));
    must(fst_source_write(s, NULL, n, path_in(name), NULL, &why));
    fst_source_close(s);
    free(x);
    free(y);
}

static int set_up(void **state)
{
    (void)state;
    if (!mkdtemp(folder))
        return -1;
    write_samples("cloud", "train", 30, 0);
    write_samples("cloud", "test", 12, 1000);
    write_samples("e1", "train", 20, 2000);
    write_samples("e2", "train", 16, 3000);
    write_samples("e1", "val", 5, 4000);
    write_samples("e2", "val", 4, 5000);
    return 0;
}

/* ---- what it is known by ---- */

/* The files of other places are away while the site opens its own. */
static void hide(const char *place, bool away)
{
    char there[600], hidden[640];
    snprintf(there, sizeof there, "%s", path_in(place));
    snprintf(hidden, sizeof hidden, "%s.away", there);
    assert_int_equal(away ? rename(there, hidden) : rename(hidden, there), 0);
}

static void compare(const char *set, bool common)
{
    struct session all;
    fst_task *task = NULL;
    must(open_session_with(&all, &task, task_text, set));
    for (uint32_t k = 0; k < 2; k++) {
        fst_task_site *site = NULL;
        fst_task_options o = options;
        hide(k ? "e1" : "e2", true);
        if (!common)
            hide("cloud", true);
        must(fst_task_site_open(&site, task, &o, k, &why));
        const fst_task_identity *id = fst_task_site_identity(site);
        assert_string_equal(id->data, all.data.place[k]);
        assert_int_equal(id->learn, all.data.edge[k].learn);
        assert_int_equal(id->validate, all.data.edge[k].validate);
        assert_string_equal(id->samples, "F32 (1, 2, 2)");
        assert_int_equal(id->classes, CLASSES);
        assert_int_equal(strlen(id->common), common ? 64 : 0);
        fst_task_site_close(site);
        hide(k ? "e1" : "e2", false);
        if (!common)
            hide("cloud", false);
    }
    close_session(&all, task);
}

static void test_digests(void **state)
{
    (void)state;
    compare(NULL, false);
    compare("data.validation=0.25", false);
    /* with public samples a site has the cloud's before its own */
    compare(
        "stages={fedmd: {kind: federated_train, model: logistic_regression, strategy: fedmd, init: random, rounds: 1}}",
        true);
}

/* One sample more, another label, another share: another digest. */
static void test_digests_differ(void **state)
{
    static const char *const sets[] = {"data.validation=0.25", "data.validation=0.5", "seed=4", "data.limit=9"};
    char first[FST_DIGEST_HEX];
    struct session s;
    fst_task *task = NULL;
    (void)state;
    must(open_session_with(&s, &task, task_text, "data.validation=0.2"));
    memcpy(first, s.data.place[0], sizeof first);
    close_session(&s, task);
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) {
        must(open_session_with(&s, &task, task_text, sets[i]));
        assert_string_not_equal(s.data.place[0], first);
        close_session(&s, task);
    }
}

/* ---- what it makes of what it is sent ---- */

struct site {
    fst_task *task;
    fst_task_site *site;
    fst_task_options options;
};

static void open_site(struct site *s, const char *set)
{
    *s = (struct site){.options = options};
    must(fst_file_write(path_in("task.yaml"), task_text, strlen(task_text), &why));
    must(fst_task_load(&s->task, folder, &set, 1, &why));
    must(fst_task_site_open(&s->site, s->task, &s->options, 1, &why));
}

static void close_site(struct site *s)
{
    fst_task_site_close(s->site);
    fst_task_free(s->task);
}

/* A model of the task's data, as a message and as a file. */
static void make_model(fst_buf *message, fst_buf *file)
{
    struct session all;
    fst_task *task = NULL;
    fst_model m;
    fst_message state = fst_message_of("state");
    must(open_session_with(&all, &task, task_text, NULL));
    must(fst__new_model(&all.data, "logistic_regression", &m, &why));
    fst_state_randomise(&m.state, m.graph, 5);
    const fst_fed_view v = {m.state.params, m.state.buffers, m.state.counters, fst_graph_fed_size(m.graph)};
    must(fst_message_add_state(&state, &v, &why));
    must(fst_message_pack(&state, message, &why));
    must(fst_model_save(&m, path_in("teacher.safetensors"), NULL, 0, NULL, &why));
    must(fst_file_read(path_in("teacher.safetensors"), 1 << 20, file, &why));
    fst_model_release(&m);
    close_session(&all, task);
}

static fst_status answer(struct site *s, const char *stage, const fst_buf *given, fst_client_figures *out)
{
    fst_buf copy = {0}; /* of its very length, for sanitizers */
    must(fst_buf_append(&copy, given->data, given->len, &why));
    why = (fst_error){0};
    fst_status st = fst_task_site_answer(s->site, stage, copy.data, copy.len, out, &why);
    fst_buf_release(&copy);
    return st;
}

static void test_validation(void **state)
{
    struct site s;
    fst_buf message = {0}, file = {0};
    fst_client_figures f;
    (void)state;
    make_model(&message, &file);
    open_site(&s, "data.own_validation=true");
    must(answer(&s, "rounds", &message, &f));
    assert_true(f.has);
    assert_int_equal(f.samples, 4);
    assert_true(f.right <= 4 && f.accuracy == (double)f.right / 4);
    message.len -= 8;
    assert_int_equal(answer(&s, "rounds", &message, &f), FST_E_FORMAT);
    assert_false(f.has);
    assert_int_not_equal(answer(&s, "nothing", &message, &f), FST_OK);
    close_site(&s);
    fst_buf_release(&message);
    fst_buf_release(&file);
}

static void test_teachers(void **state)
{
    struct site s;
    fst_buf message = {0}, file = {0}, given = {0};
    fst_client_figures f, again;
    unsigned char head[8] = {0};
    (void)state;
    make_model(&message, &file);
    for (int i = 0; i < 8; i++)
        head[i] = (unsigned char)((uint64_t)file.len >> 8 * i);
    must(fst_buf_append(&given, head, sizeof head, &why));
    must(fst_buf_append(&given, file.data, file.len, &why));
    must(fst_buf_append(&given, "\0\0\0\0\0\0\0", (8 - file.len % 8) % 8, &why));
    open_site(&s, "data.own_validation=true");
    must(answer(&s, "labels", &given, &f));
    assert_true(f.has);
    assert_int_equal(f.samples, 16);
    assert_int_equal(strlen(f.digest), 64);
    assert_int_equal(access(path_in("output/labels/soft_labels.safetensors"), R_OK), 0);
    must(answer(&s, "labels", &given, &again)); /* they are there */
    assert_string_equal(again.digest, f.digest);
    /* every part of it, and lengths that promise more than there is */
    size_t whole = given.len;
    for (size_t n = 0; n < whole; n += n < 64 ? 1 : 97) {
        given.len = n;
        assert_int_equal(answer(&s, "labels", &given, &f), FST_E_FORMAT);
        assert_false(f.has);
    }
    given.len = whole;
    for (int i = 1; i < 8; i++) {
        char old = given.data[i];
        given.data[i] = (char)0xff;
        assert_int_equal(answer(&s, "labels", &given, &f), FST_E_FORMAT);
        given.data[i] = old;
    }
    must(fst_buf_append(&given, "\0\0\0\0\0\0\0", 8, &why)); /* one more teacher than the stage has */
    assert_int_equal(answer(&s, "labels", &given, &f), FST_E_FORMAT);
    close_site(&s);
    fst_buf_release(&message);
    fst_buf_release(&file);
    fst_buf_release(&given);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_digests), cmocka_unit_test(test_digests_differ),
                                       cmocka_unit_test(test_validation), cmocka_unit_test(test_teachers)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

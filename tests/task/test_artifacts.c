/* What a stage left is loaded as its record names it, or not at all: a file that was exchanged between the check of the
 * record and its use is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "session.h"

static char folder[] = "/tmp/fedstill-artifacts-XXXXXX";

static void write_model(const char *path, float first, char digest[FST_DIGEST_HEX])
{
    fst_model m;
    fst_error e = {0};
    fst_model_config c = {.classes = 3, .input = FST_SHAPE(1, 1, 2)};
    assert_int_equal(fst_model_init(&m, "logistic_regression", &c, &e), FST_OK);
    m.state.params[0] = first;
    assert_int_equal(fst_model_save(&m, path, NULL, 0, digest, &e), FST_OK);
    fst_model_release(&m);
}

static void exchanged(void **state)
{
    (void)state;
    char path[128], digest[FST_DIGEST_HEX], other[FST_DIGEST_HEX];
    fst_error e = {0};
    fst_buf bytes = {0};
    fst_model m;
    fst_task task = {.output = folder};
    struct session *s = calloc(1, sizeof *s);
    const struct stage stage = {.name = "cloud_pretrain"};
    struct step *step = calloc(1, sizeof *step);
    struct record *r = &step->record;
    step->stage = &stage;
    s->task = &task;
    snprintf(path, sizeof path, "%s/cloud_pretrain", folder);
    assert_int_equal(fst_make_folders(path, &e), FST_OK);
    snprintf(path, sizeof path, "%s/cloud_pretrain/model.safetensors", folder);
    write_model(path, 1, digest);
    snprintf(r->artifact, sizeof r->artifact, "model.safetensors");
    memcpy(r->digest, digest, sizeof r->digest);

    assert_int_equal(fst__load_step_model(s, step, &m, &e), FST_OK);
    assert_true(m.state.params[0] == 1);
    fst_model_release(&m);
    assert_int_equal(fst__read_artifact(s, step, r->artifact, &bytes, &e), FST_OK);
    fst_buf_release(&bytes);

    write_model(path, 2, other);
    assert_string_not_equal(digest, other);
    assert_int_equal(fst__load_step_model(s, step, &m, &e), FST_E_MISMATCH);
    assert_non_null(strstr(e.message, "is not the file that its stage left"));
    assert_non_null(strstr(e.message, path));
    assert_int_equal(fst__read_artifact(s, step, r->artifact, &bytes, &e), FST_E_MISMATCH);
    assert_null(bytes.data);

    /* a file of the user's own is loaded as it is, and its digest is that of what was loaded */
    assert_int_equal(fst__load_model(path, NULL, &m, digest, &e), FST_OK);
    assert_string_equal(digest, other);
    assert_true(m.state.params[0] == 2);
    fst_model_release(&m);

    unlink(path);
    assert_int_equal(fst__load_step_model(s, step, &m, &e), FST_E_IO);
    free(step);
    free(s);
}

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    char path[128];
    (void)state;
    snprintf(path, sizeof path, "%s/cloud_pretrain", folder);
    rmdir(path);
    return rmdir(folder);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(exchanged)};
    return cmocka_run_group_tests(tests, set_up, tear_down);
}

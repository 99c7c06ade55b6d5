/* What a coordinator waits for has limits: a silent site, a round, sites that never join. */
#include "fleet/coordinator_world.h"

enum { BEAT = 4 /* seconds */ };

/* A site of which nothing is heard is lost within 15 seconds; one that two of three beats of got lost is not. */
static void test_silence(void **state)
{
    struct world w;
    fst_error err = {0};
    fst_buf body = {0};
    struct beat b = {.state = SITE_TRAIN, .stage = "federated"};
    (void)state;
    snprintf(b.instance, sizeof b.instance, "%s", one);
    ok(fst__write_beat(&b, &body, &err), &err);
    open_world(&w);
    turn(&w, 0.25);
    say_hello(&w, one);
    for (int i = 0; i < 5; i++) {
        turn(&w, 3 * BEAT);
        assert_true(fst__coordinator_site(w.coordinator, 0).present);
        say(&w, "ctl", FST_KIND_BEAT, &body);
    }
    turn(&w, 0.25); /* it was heard for the last time */
    turn(&w, 14.5);
    assert_false(fst__coordinator_site(w.coordinator, 0).present);
    say_hello(&w, one);
    turn(&w, 0.5);
    assert_true(fst__coordinator_site(w.coordinator, 0).present);
    fst_buf_release(&body);
    close_world(&w);
}

/* Where no site ever joins, the wait has its limit all the same. */
static void test_nobody_joins(void **state)
{
    struct world w;
    fst_error err = {0};
    (void)state;
    open_world_of(&w, 2);
    turn(&w, 599);
    assert_int_equal(fst__coordinator_wants(w.coordinator), WANT_NOTHING);
    turn(&w, 2);
    assert_int_equal(fst__coordinator_wants(w.coordinator), WANT_FAIL);
    assert_int_equal(fst_server_failure(w.server, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "too few clients joined in time"));
    assert_string_equal(fst__coordinator_missing(w.coordinator), "edge-1, edge-2 did not join");
    close_world(&w);
}

/* A round whose deadline is over, with all that it may be extended by, ends in a failure that names who did not report.
 */
static void test_deadline(void **state)
{
    struct world w;
    fst_error err = {0};
    fst_buf update = {0};
    (void)state;
    make_update(&update, 0);
    const fst_blob_manifest m = manifest_of(update.data, update.len);
    open_world_with(&w, 2, 2);
    all_join(&w);
    offer(&w, one, &m);
    turn(&w, 1);
    send_part(&w, &m, update.data);
    turn(&w, 3 * 600 - 10);
    assert_true(w.has_receipt && w.receipt.folded);
    assert_int_equal(fst__coordinator_wants(w.coordinator), WANT_NOTHING);
    turn(&w, 20);
    assert_int_equal(fst__coordinator_wants(w.coordinator), WANT_FAIL);
    assert_int_equal(fst_server_failure(w.server, &err), FST_E_CONFIG);
    assert_non_null(strstr(err.message, "fewer updates than the quorum"));
    assert_string_equal(fst__coordinator_missing(w.coordinator), "edge-2 did not report");
    fst_buf_release(&update);
    close_world(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_silence), cmocka_unit_test(test_deadline),
                                       cmocka_unit_test(test_nobody_joins)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

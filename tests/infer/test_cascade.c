/* Evaluation of a cascade: a case counted by hand, the edges of what can happen, and the report of each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>
#include <jansson.h>

#include "fedstill/infer.h"

#define CLOSE(a, b) assert_true(fabs((a) - (b)) < 1e-9)

enum { N = 8, K = 3 };

/* Logits of a row whose class `c` has probability p at T = 1, the others equal shares. */
static void put(float *z, int c, double p)
{
    for (int j = 0; j < K; j++)
        z[j] = (float)log(j == c ? p : (1 - p) / (K - 1));
}

struct fixture {
    float edge[N * K], cloud[N * K], snr[N];
    int32_t labels[N];
    uint32_t device[N];
    uint8_t known[N];
    fst_cascade_input in;
};

/* sample  label  edge (p)  cloud  device  snr    at threshold 0.7
 *   0       0     0 0.9      0      0     -1     edge, right
 *   1       0     1 0.8      0      0      0     edge, wrong
 *   2       1     1 0.6      1      0      4.9   cloud, right both
 *   3       1     0 0.5      1      0      5     cloud, corrected
 *   4       1     1 0.55     2      2     12     cloud, spoiled
 *   5       0     2 0.5      1      2     nan    cloud, wrong both
 *   6       0     0 0.95     1      2      5     edge, right
 *   7       1     2 0.65     2      2      7     cloud, wrong both and agreed */
static void fill(struct fixture *f)
{
    static const int labels[N] = {0, 0, 1, 1, 1, 0, 0, 1}, edge[N] = {0, 1, 1, 0, 1, 2, 0, 2},
                     cloud[N] = {0, 0, 1, 1, 2, 1, 1, 2}, device[N] = {0, 0, 0, 0, 2, 2, 2, 2};
    static const double p[N] = {0.9, 0.8, 0.6, 0.5, 0.55, 0.5, 0.95, 0.65};
    static const float snr[N] = {-1, 0, 4.9f, 5, 12, NAN, 5, 7};
    memset(f, 0, sizeof *f);
    for (int i = 0; i < N; i++) {
        put(f->edge + i * K, edge[i], p[i]);
        put(f->cloud + i * K, cloud[i], 0.97);
        f->labels[i] = labels[i];
        f->device[i] = (uint32_t)device[i];
        f->snr[i] = snr[i];
        f->known[i] = p[i] < 0.7;
    }
    f->in = (fst_cascade_input){.samples = N,
                                .classes = K,
                                .edge = f->edge,
                                .cloud = f->cloud,
                                .labels = f->labels,
                                .snr = f->snr,
                                .snr_bin = 5,
                                .device = f->device,
                                .devices = 3,
                                .temperature = 1,
                                .threshold = 0.7};
}

static void evaluate(fst_cascade *c, const struct fixture *f)
{
    fst_error e = {0};
    if (fst_cascade_evaluate(c, &f->in, &e))
        fail_msg("%s", e.message);
}

static void check_group(const fst_cascade_group *g, size_t n, size_t sent, size_t edge, size_t cloud, size_t right)
{
    assert_int_equal(g->samples, n);
    assert_int_equal(g->offloaded, sent);
    assert_int_equal(g->edge_right, edge);
    assert_int_equal(g->cloud_right, cloud);
    assert_int_equal(g->right, right);
}

static void by_hand(void **state)
{
    (void)state;
    static struct fixture f;
    fst_cascade c;
    static const int32_t answers[N] = {0, 1, 1, 1, 2, 1, 0, 2};
    static const int64_t whole[K * K] = {2, 2, 0, 0, 2, 2, 0, 0, 0}, edge[K * K] = {2, 1, 1, 1, 2, 1, 0, 0, 0},
                                   cloud[K * K] = {2, 2, 0, 0, 2, 2, 0, 0, 0};
    fill(&f);
    evaluate(&c, &f);
    check_group(&c.all, 8, 5, 4, 4, 4);
    check_group(&c.at_edge, 3, 0, 2, 2, 2);
    check_group(&c.at_cloud, 5, 5, 2, 2, 2);
    check_group(&c.by_class[0], 4, 1, 2, 2, 2);
    check_group(&c.by_class[1], 4, 4, 2, 2, 2);
    check_group(&c.by_class[2], 0, 0, 0, 0, 0);
    check_group(&c.by_device[0], 4, 2, 2, 4, 3);
    check_group(&c.by_device[1], 0, 0, 0, 0, 0);
    check_group(&c.by_device[2], 4, 3, 2, 0, 1);
    assert_int_equal(c.snr_bins, 4);
    assert_int_equal(c.snr_unknown, 1);
    CLOSE(c.snr_from[0], -5);
    CLOSE(c.snr_from[3], 10);
    check_group(&c.by_snr[0], 1, 0, 1, 1, 1);
    check_group(&c.by_snr[1], 2, 1, 1, 2, 1);
    check_group(&c.by_snr[2], 3, 2, 1, 1, 2);
    check_group(&c.by_snr[3], 1, 1, 1, 0, 0);
    assert_memory_equal(c.answer, answers, sizeof answers);
    assert_memory_equal(c.confusion, whole, sizeof whole);
    assert_memory_equal(c.edge_confusion, edge, sizeof edge);
    assert_memory_equal(c.cloud_confusion, cloud, sizeof cloud);
    assert_int_equal(c.agree, 3);
    assert_int_equal(c.agree_offloaded, 2);
    assert_int_equal(c.corrected, 1);
    assert_int_equal(c.spoiled, 1);
    /* right: 0.9 0.6 0.55 0.95, wrong: 0.8 0.5 0.5 0.65: wins 4 + 2 + 2 + 4 of 16 */
    CLOSE(c.auroc, 12.0 / 16);
    assert_true(c.ece_before == c.ece_after);
    /* cuts at 0 2 3 4 5 6 7 8 sent: right 4 5 4 4 4 5 5 4 */
    assert_int_equal(c.points, 8);
    static const int sent[] = {0, 2, 3, 4, 5, 6, 7, 8}, right[] = {4, 5, 4, 4, 4, 5, 5, 4};
    for (int i = 0; i < 8; i++) {
        CLOSE(c.curve[i].offload, sent[i] / 8.0);
        CLOSE(c.curve[i].accuracy, right[i] / 8.0);
        assert_true(isnan(c.curve[i].seconds));
    }
    fst_cascade_release(&c);
}

/* Any point of the curve is what an evaluation at its threshold gives. */
static void curve_agrees(void **state)
{
    (void)state;
    enum { MANY = 1500 };
    static float edge[MANY * K], cloud[MANY * K];
    static int32_t labels[MANY];
    fst_cascade_input in = {MANY, K, edge, cloud, NULL, labels, .temperature = 2, .threshold = 0.5};
    fst_cascade c, at;
    fst_rng r;
    fst_rng_init(&r, 7, "test.curve", 0);
    for (int i = 0; i < MANY; i++) {
        labels[i] = (int32_t)fst_rng_below(&r, K);
        for (int j = 0; j < K; j++) {
            edge[i * K + j] = (float)(fst_rng_normal(&r) + (j == labels[i] ? 1 : 0));
            cloud[i * K + j] = (float)(fst_rng_normal(&r) + (j == labels[i] ? 3 : 0));
        }
    }
    for (in.kind = FST_CONFIDENCE_MAX; in.kind <= FST_CONFIDENCE_ENERGY; in.kind++) {
        assert_int_equal(fst_cascade_evaluate(&c, &in, NULL), FST_OK);
        assert_true(c.points > FST_CURVE_POINTS / 2 && c.points <= FST_CURVE_POINTS);
        CLOSE(c.curve[0].offload, 0);
        CLOSE(c.curve[c.points - 1].offload, 1);
        for (size_t i = 0; i < c.points; i += 13) {
            fst_cascade_input other = in;
            other.threshold = c.curve[i].threshold;
            assert_int_equal(fst_cascade_evaluate(&at, &other, NULL), FST_OK);
            CLOSE(c.curve[i].offload, (double)at.all.offloaded / MANY);
            CLOSE(c.curve[i].accuracy, (double)at.all.right / MANY);
            fst_cascade_release(&at);
        }
        fst_cascade_release(&c);
    }
}

/* ---- the report ------------------------------------------------------------------------------------- */

static json_t *report(const fst_cascade_report *r)
{
    fst_buf text = {0};
    fst_error e = {0};
    json_error_t je;
    if (fst_cascade_report_json(r, &text, &e))
        fail_msg("%s", e.message);
    json_t *j = json_loadb(text.data, text.len, JSON_REJECT_DUPLICATES, &je);
    if (!j)
        fail_msg("%d: %s", je.line, je.text);
    fst_buf_release(&text);
    return j;
}

/* "a.b.c" of an object. */
static json_t *at(json_t *j, const char *path)
{
    char name[200], *save = NULL;
    snprintf(name, sizeof name, "%s", path);
    for (char *k = strtok_r(name, ".", &save); k; k = strtok_r(NULL, ".", &save)) {
        j = json_object_get(j, k);
        if (!j)
            fail_msg("no %s", path);
    }
    return j;
}

static json_t *report_of(fst_cascade *c, const struct fixture *f)
{
    fst_cascade_report r = {.task = "t", .cascade = c};
    evaluate(c, f);
    return report(&r);
}

static void all_sent_or_none(void **state)
{
    (void)state;
    static struct fixture f;
    fst_cascade c;
    fill(&f);
    f.in.threshold = 0;
    json_t *j = report_of(&c, &f);
    check_group(&c.all, 8, 0, 4, 4, 4);
    assert_true(json_is_null(at(j, "accuracy.agreement")));
    assert_true(json_is_null(at(j, "accuracy.by_tier.cloud.accuracy")));
    CLOSE(json_number_value(at(j, "summary.accuracy")), 0.5);
    CLOSE(json_number_value(at(j, "summary.offload_ratio")), 0);
    json_decref(j);
    fst_cascade_release(&c);
    /* the same when the cloud was never asked */
    f.in.cloud = NULL;
    j = report_of(&c, &f);
    CLOSE(json_number_value(at(j, "summary.accuracy")), 0.5);
    assert_true(json_is_null(at(j, "summary.cloud_accuracy")));
    assert_true(json_is_null(at(j, "accuracy.confusion.cloud")));
    assert_int_equal(json_array_size(at(j, "accuracy.confusion.edge")), K);
    json_decref(j);
    fst_cascade_release(&c);
    fill(&f);
    f.in.threshold = 2;
    j = report_of(&c, &f);
    check_group(&c.all, 8, 8, 4, 4, 4);
    assert_memory_equal(c.confusion, c.cloud_confusion, K * K * sizeof *c.confusion);
    assert_true(json_is_null(at(j, "accuracy.by_tier.edge.accuracy")));
    CLOSE(json_number_value(at(j, "accuracy.agreement")), 3.0 / 8);
    json_decref(j);
    fst_cascade_release(&c);
}

static void unlabelled(void **state)
{
    (void)state;
    static struct fixture f;
    fst_cascade c;
    fill(&f);
    f.in.labels = NULL;
    f.in.snr = NULL;
    json_t *j = report_of(&c, &f);
    const char *nulls[] = {"summary.accuracy",       "summary.edge_accuracy", "summary.corrected", "confidence.auroc",
                           "confidence.ece_before",  "accuracy.by_class",     "accuracy.by_snr",   "time",
                           "accuracy.confusion.edge"};
    for (size_t i = 0; i < sizeof nulls / sizeof *nulls; i++)
        if (!json_is_null(at(j, nulls[i])))
            fail_msg("%s is not null", nulls[i]);
    CLOSE(json_number_value(at(j, "accuracy.agreement")), 0.4);
    CLOSE(json_number_value(at(j, "summary.offload_ratio")), 5.0 / 8);
    assert_true(json_is_null(json_object_get(json_array_get(at(j, "curve"), 0), "accuracy")));
    json_decref(j);
    fst_cascade_release(&c);
}

static void empty_things(void **state)
{
    (void)state;
    static struct fixture f;
    fst_cascade c;
    fill(&f);
    json_t *j = report_of(&c, &f);
    json_t *device = json_array_get(at(j, "accuracy.by_device"), 1);
    assert_int_equal(json_integer_value(at(device, "samples")), 0);
    assert_true(json_is_null(at(device, "accuracy")) && json_is_null(at(device, "offload_ratio")));
    assert_true(json_is_null(at(json_array_get(at(j, "accuracy.by_class"), 2), "accuracy")));
    json_decref(j);
    fst_cascade_release(&c);
    f.in.samples = 0;
    j = report_of(&c, &f);
    assert_true(json_is_null(at(j, "summary.accuracy")) && json_is_null(at(j, "confidence.ece_after")));
    assert_int_equal(json_array_size(at(j, "curve")), 0);
    json_decref(j);
    fst_cascade_release(&c);
}

static void one_class(void **state)
{
    (void)state;
    const float z[] = {1, -2, 3};
    const int32_t y[] = {0, 0, 0};
    fst_cascade_input in = {3, 1, z, z, NULL, y, .temperature = 1, .threshold = 0.7};
    fst_cascade c;
    assert_int_equal(fst_cascade_evaluate(&c, &in, NULL), FST_OK);
    check_group(&c.all, 3, 0, 3, 3, 3);
    assert_true(isnan(c.auroc)); /* nothing is wrong */
    CLOSE(c.ece_before, 0);
    assert_int_equal(c.points, 2); /* none or all: all are equally sure */
    fst_cascade_release(&c);
}

static void partly_known(void **state)
{
    (void)state;
    static struct fixture f;
    fst_cascade c = {.points = 77};
    fst_error e;
    fill(&f);
    f.in.cloud_known = f.known;
    for (int i = 0; i < N; i++)
        for (int j = 0; !f.known[i] && j < K; j++)
            f.cloud[i * K + j] = NAN;
    evaluate(&c, &f);
    check_group(&c.all, 8, 5, 4, 2, 4);
    assert_null(c.cloud_confusion);
    assert_int_equal(c.points, 8);
    CLOSE(c.curve[4].accuracy, 0.5);
    assert_true(isnan(c.curve[5].accuracy));
    fst_cascade_release(&c);
    c.points = 77;
    f.known[3] = 0;
    assert_int_equal(fst_cascade_evaluate(&c, &f.in, &e), FST_E_ARGUMENT);
    assert_non_null(strstr(e.message, "sample 3"));
    f.known[3] = 1;
    f.cloud[3 * K] = INFINITY;
    assert_int_equal(fst_cascade_evaluate(&c, &f.in, &e), FST_E_NUMERIC);
    assert_int_equal(c.points, 77);
}

static void no_memory(void **state)
{
    (void)state;
    static struct fixture f;
    fst_status st = FST_E_MEMORY;
    uint64_t n = 1;
    for (; st; n++) {
        fst_cascade c = {.points = 77};
        fill(&f);
        fst_alloc_fail_at(n);
        st = fst_cascade_evaluate(&c, &f.in, NULL);
        fst_alloc_fail_at(0);
        if (st) {
            assert_int_equal(st, FST_E_MEMORY);
            assert_int_equal(c.points, 77);
        } else {
            fst_cascade_release(&c);
        }
    }
    assert_true(n > 10);
}

static void times(void **state)
{
    (void)state;
    static struct fixture f;
    fst_network network = {.devices = 3,
                           .edges = 1,
                           .device_edge = {100, 0.001, false},
                           .edge_cloud = {8, 0.02, false},
                           .device_cloud = {8, 0.02, true}};
    fst_cascade_times runs[2] = {{.cascade_staged = {.seconds = 2, .planning = 0.5, .transfer = 0.5, .compute = 1},
                                  .cloud_staged = {.seconds = 20, .transfer = 18, .compute = 2},
                                  .cascade = {.seconds = 1, .p99 = 0.25},
                                  .cloud = {.seconds = 15}},
                                 {.cascade_staged = {.seconds = 4, .planning = 0.5, .transfer = 0.5, .compute = 3},
                                  .cloud_staged = {.seconds = 40, .transfer = 36, .compute = 4},
                                  .cascade = {.seconds = 3},
                                  .cloud = {.seconds = 25}}};
    fst_cascade c;
    fst_cascade_report r = {.cascade = &c, .network = &network, .times = runs, .runs = 2};
    fill(&f);
    evaluate(&c, &f);
    json_t *j = report(&r);
    CLOSE(json_number_value(at(j, "time.t1.seconds")), 3);
    CLOSE(json_number_value(at(j, "time.t1.compute")), 2);
    CLOSE(json_number_value(at(j, "time.t2.transfer")), 27);
    CLOSE(json_number_value(at(j, "time.ratio")), 10);
    CLOSE(json_number_value(at(j, "summary.ratio")), 10);
    CLOSE(json_number_value(at(j, "time.pipeline.ratio")), 10);
    CLOSE(json_number_value(json_array_get(at(j, "time.t2.runs"), 1)), 40);
    CLOSE(json_number_value(at(json_array_get(at(j, "time.pipeline.cascade"), 0), "latency_ms.p99")), 250);
    CLOSE(json_number_value(at(j, "time.network.links.edge_cloud.rate")), 8);
    json_decref(j);
    fst_cascade_release(&c);
    /* the cloud was asked nothing, or there was nothing to ask: no ratio of a cascade */
    for (int empty = 0; empty < 2; empty++) {
        f.in.threshold = 0;
        f.in.samples = empty ? 0 : f.in.samples;
        evaluate(&c, &f);
        assert_int_equal(c.all.offloaded, 0);
        j = report(&r);
        CLOSE(json_number_value(at(j, "time.t1.seconds")), 3);
        assert_true(json_is_null(at(j, "time.ratio")) && json_is_null(at(j, "summary.ratio")));
        assert_true(json_is_null(at(j, "time.pipeline.ratio")));
        json_decref(j);
        fst_cascade_release(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(by_hand),      cmocka_unit_test(curve_agrees), cmocka_unit_test(all_sent_or_none),
        cmocka_unit_test(unlabelled),   cmocka_unit_test(empty_things), cmocka_unit_test(one_class),
        cmocka_unit_test(partly_known), cmocka_unit_test(no_memory),    cmocka_unit_test(times),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

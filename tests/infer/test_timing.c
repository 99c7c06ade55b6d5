/* The model of time: cases computed by hand, and what must hold of any case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <string.h>

#include "fedstill/infer.h"

#define CLOSE(a, b) assert_true(fabs((a) - (b)) < 1e-9)

/* 1 byte takes 1 s: 1e-6 MB/s */
#define SLOW(r, l) ((fst_link){.rate = 1e-6 * (r), .latency = (l)})
static const fst_service second_each = {.compute = {2, {1, 2}, {1, 2}}}; /* 1 s a row */

static fst_timing go(fst_route route, bool staged, const fst_network *f, const fst_workload *w, const fst_service *edge,
                     const fst_service *cloud)
{
    fst_timing t;
    fst_error e = {0};
    if (fst_timing_run(&t, route, staged, f, w, edge, cloud, &e))
        fail_msg("%s", e.message);
    assert_int_equal(t.answered, w->samples);
    return t;
}

static void costs(void **state)
{
    (void)state;
    fst_cost c = {3, {1, 4, 8}, {1, 2, 6}}, none = {0};
    CLOSE(fst_cost_seconds(&c, 0), 0);
    CLOSE(fst_cost_seconds(&c, 1), 1);
    CLOSE(fst_cost_seconds(&c, 2), 1 + 1.0 / 3);
    CLOSE(fst_cost_seconds(&c, 6), 4);
    CLOSE(fst_cost_seconds(&c, 8), 6);
    CLOSE(fst_cost_seconds(&c, 16), 12);
    CLOSE(fst_cost_seconds(&c, 17), 13);
    CLOSE(fst_cost_seconds(&none, 5), 0);
    fst_cost large = {1, {4}, {3}};
    CLOSE(fst_cost_seconds(&large, 2), 3);
    CLOSE(fst_cost_seconds(&large, 9), 9);
}

/* One device, one batch of 2 samples of 3 bytes, answers of 1 byte. Way in 6 s + 10, edge 2 s; sample 0 stays: back 1 s
 * + 10 = 29. Sample 1: up 3/2 s + 20, cloud 1 s, down 1/2 + 20, back 1 + 10. */
static void one_device(void **state)
{
    (void)state;
    fst_network f = {
        .devices = 1, .edges = 1, .device_edge = SLOW(1, 10), .edge_cloud = SLOW(2, 20), .device_cloud = SLOW(2, 5)};
    const uint8_t low[] = {0, 1};
    fst_workload w = {.samples = 2, .offloaded = low, .batch = 2, .sample_bytes = 3, .answer_bytes = 1};
    fst_timing t = go(FST_ROUTE_CASCADE, false, &f, &w, &second_each, &second_each);
    CLOSE(t.p50, 6 + 10 + 2 + 1 + 10);
    CLOSE(t.seconds, 18 + 21.5 + 1 + 20.5 + 11);
    CLOSE(t.p99, t.seconds);
    CLOSE(t.mean, (t.p50 + t.p99) / 2);
    CLOSE(t.device_edge.bytes, 6);
    CLOSE(t.edge_cloud.bytes, 3);
    CLOSE(t.answers.bytes, 1 + 1 + 1);
    CLOSE(t.bytes_per_sample, 4.5);
    CLOSE(t.compute, 3);
    CLOSE(t.transfer, 6 + 1.5 + 0.5 + 1 + 1);
    /* all to the cloud: in 3 s + 5, 2 s, back 1 s + 5 */
    t = go(FST_ROUTE_CLOUD_ONLY, false, &f, &w, &second_each, &second_each);
    CLOSE(t.seconds, 3 + 5 + 2 + 1 + 5);
    CLOSE(t.device_cloud.bytes, 6);
    CLOSE(t.device_edge.bytes, 0);
    assert_int_equal(t.edge.messages, 0);
}

/* Two devices with a batch of one sample of 4 bytes each. A link of their own: both arrive at 4, the edge takes 1 s
 * each. A shared one: the second arrives at 8. */
static void shared_link(void **state)
{
    (void)state;
    fst_network f = {
        .devices = 2, .edges = 1, .device_edge = SLOW(1, 0), .edge_cloud = SLOW(1, 0), .device_cloud = SLOW(1, 0)};
    const uint32_t device[] = {1, 0};
    fst_workload w = {.samples = 2, .device = device, .batch = 1, .sample_bytes = 4};
    fst_timing t = go(FST_ROUTE_CASCADE, false, &f, &w, &second_each, &second_each);
    CLOSE(t.seconds, 6);
    CLOSE(t.p50, 5);
    CLOSE(t.device_edge.busiest, 4);
    CLOSE(t.device_edge.busy, 8);
    f.device_edge.shared = true;
    t = go(FST_ROUTE_CASCADE, false, &f, &w, &second_each, &second_each);
    CLOSE(t.seconds, 9);
    CLOSE(t.p50, 5);
    CLOSE(t.device_edge.busiest, 8);
    /* two servers do not help where the link is what is slow, and do where it is not */
    f.edge_servers = 2;
    CLOSE(go(FST_ROUTE_CASCADE, false, &f, &w, &second_each, &second_each).seconds, 9);
    f.device_edge.shared = false;
    CLOSE(go(FST_ROUTE_CASCADE, false, &f, &w, &second_each, &second_each).seconds, 5);
    /* two edges, each with its own device */
    f.edge_servers = 1;
    f.edges = 2;
    CLOSE(go(FST_ROUTE_CASCADE, false, &f, &w, &second_each, &second_each).seconds, 5);
}

/* Three batches of one sample through a link of 2 s and an edge of 3 s: 2, 5 | 4, 8 | 6, 11. Staged: 6, then 9. */
static void pipeline(void **state)
{
    (void)state;
    fst_network f = {
        .devices = 1, .edges = 1, .device_edge = SLOW(1, 0), .edge_cloud = SLOW(1, 0), .device_cloud = SLOW(1, 0)};
    fst_service edge = {.compute = {1, {1}, {2.5}}, .planning = 0.5};
    fst_workload w = {.samples = 3, .batch = 1, .sample_bytes = 2};
    fst_timing t = go(FST_ROUTE_CASCADE, false, &f, &w, &edge, &second_each);
    CLOSE(t.seconds, 11);
    CLOSE(t.p50, 8);
    CLOSE(t.planning, 1.5);
    CLOSE(t.compute, 7.5);
    t = go(FST_ROUTE_CASCADE, true, &f, &w, &edge, &second_each);
    CLOSE(t.seconds, 15);
    CLOSE(t.transfer, 6);
    CLOSE(t.planning, 1.5);
    CLOSE(t.compute, 7.5);
    /* a device that makes a batch every 4 s: each is done 5 s after its making */
    w.interval = 4;
    t = go(FST_ROUTE_CASCADE, false, &f, &w, &edge, &second_each);
    CLOSE(t.seconds, 13);
    CLOSE(t.p50, 5);
    CLOSE(t.p99, 5);
}

/* Four single samples reach the cloud at 1, 2, 3, 4; a batch of up to 2 costs 3 s: 1-4 (one), 4-7 (two), 7-10 (one).
 * One at a time it would be 13. */
static void joining(void **state)
{
    (void)state;
    fst_network f = {
        .devices = 1, .edges = 1, .device_edge = SLOW(1, 0), .edge_cloud = SLOW(1, 0), .device_cloud = SLOW(1, 0)};
    fst_service cloud = {.compute = {1, {2}, {3}}, .batch = 2};
    fst_workload w = {.samples = 4, .batch = 1, .sample_bytes = 1};
    fst_timing t = go(FST_ROUTE_CLOUD_ONLY, false, &f, &w, &second_each, &cloud);
    CLOSE(t.seconds, 10);
    assert_int_equal(t.cloud.messages, 3);
    cloud.batch = 0;
    CLOSE(go(FST_ROUTE_CLOUD_ONLY, false, &f, &w, &second_each, &cloud).seconds, 13);
}

/* ---- any case ------------------------------------------------------------------------------------ */

struct any {
    fst_network f;
    fst_workload w;
    fst_service edge, cloud;
    uint32_t device[300], edge_of[8];
    uint8_t low[300];
};

static void draw(struct any *a, uint64_t index)
{
    fst_rng r;
    fst_rng_init(&r, 1, "test.timing", index);
    memset(a, 0, sizeof *a);
    a->f.devices = 1 + fst_rng_below(&r, 8);
    a->f.edges = 1 + fst_rng_below(&r, 3);
    for (size_t i = 0; i < a->f.devices; i++)
        a->edge_of[i] = (uint32_t)fst_rng_below(&r, a->f.edges);
    a->f.edge_of = a->edge_of;
    fst_link *links[] = {&a->f.device_edge, &a->f.edge_cloud, &a->f.device_cloud};
    for (int i = 0; i < 3; i++)
        *links[i] = (fst_link){0.01 + fst_rng_uniform(&r), 0.001 * fst_rng_uniform(&r), fst_rng_below(&r, 2)};
    a->f.edge_servers = (int)fst_rng_below(&r, 3);
    a->f.cloud_servers = (int)fst_rng_below(&r, 3);
    a->w.samples = fst_rng_below(&r, 300);
    for (size_t i = 0; i < a->w.samples; i++) {
        a->device[i] = (uint32_t)fst_rng_below(&r, a->f.devices);
        a->low[i] = fst_rng_below(&r, 4) == 0;
    }
    a->w.device = a->device;
    a->w.offloaded = a->low;
    a->w.batch = 1 + fst_rng_below(&r, 16);
    a->w.sample_bytes = 100;
    a->w.answer_bytes = 8;
    a->edge = (fst_service){{2, {1, 16}, {1e-4, 8e-4}}, 1e-5, 0};
    a->cloud = (fst_service){{2, {1, 32}, {5e-4, 9e-3}}, 0, fst_rng_below(&r, 33)};
}

static double most(double a, double b)
{
    return a > b ? a : b;
}

static void invariants(void **state)
{
    (void)state;
    static struct any a;
    for (uint64_t i = 0; i < 300; i++) {
        draw(&a, i);
        for (fst_route route = FST_ROUTE_CASCADE; route <= FST_ROUTE_CLOUD_ONLY; route++) {
            fst_timing t = go(route, false, &a.f, &a.w, &a.edge, &a.cloud), again, s;
            double low = 0, servers_e = a.f.edge_servers ? a.f.edge_servers : 1,
                   servers_c = a.f.cloud_servers ? a.f.cloud_servers : 1;
            again = go(route, false, &a.f, &a.w, &a.edge, &a.cloud);
            assert_memory_equal(&t, &again, sizeof t);
            s = go(route, true, &a.f, &a.w, &a.edge, &a.cloud);
            for (size_t k = 0; k < a.w.samples; k++)
                low += a.low[k];
            if (route == FST_ROUTE_CASCADE) {
                CLOSE(t.edge_cloud.bytes, 100 * low);
                CLOSE(t.device_edge.bytes, 100.0 * (double)a.w.samples);
                CLOSE(t.answers.bytes, 8.0 * ((double)a.w.samples + low));
            } else {
                CLOSE(t.device_cloud.bytes, 100.0 * (double)a.w.samples);
            }
            double least = most(most(t.device_edge.busiest, t.edge_cloud.busiest), t.device_cloud.busiest);
            least = most(least, most(t.edge.busiest / servers_e, t.cloud.busiest / servers_c));
            assert_true(t.seconds >= least - 1e-12);
            /* never idle while there is work: no longer than everything one after the other */
            double latencies = 2 * (a.f.device_edge.latency + a.f.edge_cloud.latency + a.f.device_cloud.latency);
            assert_true(t.seconds <= t.planning + t.transfer + t.compute + latencies + 1e-9);
            CLOSE(s.seconds, s.planning + s.transfer + s.compute);
            if (a.w.samples)
                assert_true(t.p50 <= t.p95 && t.p95 <= t.p99 && t.p99 <= t.seconds + 1e-12);
            else
                assert_true(isnan(t.p50) && t.seconds == 0);
        }
    }
}

static void refused(void **state)
{
    (void)state;
    static struct any a;
    fst_timing t = {.seconds = 9};
    draw(&a, 5);
    assert_true(a.w.samples > 0);
    a.f.edge_cloud.rate = 0;
    assert_int_equal(fst_timing_run(&t, FST_ROUTE_CASCADE, false, &a.f, &a.w, &a.edge, &a.cloud, NULL), FST_E_ARGUMENT);
    draw(&a, 5);
    a.device[0] = 8;
    assert_int_equal(fst_timing_run(&t, FST_ROUTE_CASCADE, false, &a.f, &a.w, &a.edge, &a.cloud, NULL), FST_E_ARGUMENT);
    draw(&a, 5);
    a.w.batch = 0;
    assert_int_equal(fst_timing_run(&t, FST_ROUTE_CASCADE, false, &a.f, &a.w, &a.edge, &a.cloud, NULL), FST_E_ARGUMENT);
    draw(&a, 5);
    a.edge.compute.rows[1] = 1;
    assert_int_equal(fst_timing_run(&t, FST_ROUTE_CASCADE, false, &a.f, &a.w, &a.edge, &a.cloud, NULL), FST_E_ARGUMENT);
    for (uint64_t n = 1; n < 8; n++) { /* no memory, at every place */
        draw(&a, 5);
        fst_alloc_fail_at(n);
        fst_status st = fst_timing_run(&t, FST_ROUTE_CASCADE, false, &a.f, &a.w, &a.edge, &a.cloud, NULL);
        fst_alloc_fail_at(0);
        assert_int_equal(st, FST_E_MEMORY);
    }
    assert_true(t.seconds == 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(costs),    cmocka_unit_test(one_device), cmocka_unit_test(shared_link),
        cmocka_unit_test(pipeline), cmocka_unit_test(joining),    cmocka_unit_test(invariants),
        cmocka_unit_test(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

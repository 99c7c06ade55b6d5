/* The task's tiers as the model of time wants them. Measures nothing itself. */
#include <math.h>
#include <string.h>

#include "cascade.h"

static fst_link link_of(const struct link_section *l)
{
    return (fst_link){.rate = l->rate, .latency = l->latency};
}

fst_status fst__clock_init(const struct session *s, const struct step *own, const struct batches *b,
                           const double *confidence, struct clock *out, fst_error *err)
{
    const struct device_load_section *d = fst__stage_read(own->stage, "devices", 0)->settings;
    struct topology_section t;
    fst_status st = fst__tiers(&s->task->file, &t, err);
    if (st)
        return st;
    struct clock c = {.confidence = confidence};
    c.edge_of = fst_calloc((size_t)t.devices, sizeof *c.edge_of);
    c.offloaded = fst_calloc(b->count + 1, 1);
    if (!c.edge_of || !c.offloaded) {
        fst__clock_release(&c);
        return fst_fail_memory(err, (size_t)t.devices * sizeof *c.edge_of + b->count);
    }
    for (int64_t i = 0; i < t.devices; i++)
        c.edge_of[i] = (uint32_t)fst__edge_of_device(&t, i);
    c.network = (fst_network){.devices = (size_t)t.devices,
                              .edges = (size_t)t.edges,
                              .edge_of = c.edge_of,
                              .device_edge = link_of(&t.links.device_edge),
                              .edge_cloud = link_of(&t.links.edge_cloud),
                              .device_cloud = link_of(&t.links.device_cloud)};
    c.workload = (fst_workload){.samples = b->count,
                                .device = b->device,
                                .offloaded = c.offloaded,
                                .batch = (size_t)d->batch_size,
                                .interval = d->interval,
                                .sample_bytes = (double)fst_source_sample_bytes(s->data.test),
                                .answer_bytes = FST__ANSWER_BYTES};
    *out = c;
    return FST_OK;
}

void fst__clock_release(struct clock *c)
{
    fst_free(c->edge_of);
    fst_free(c->offloaded);
    c->edge_of = NULL;
    c->offloaded = NULL;
}

void fst__clock_set(struct clock *c, const fst_measured *edge, const fst_measured *cloud, size_t cloud_batch)
{
    c->edge = (fst_service){0};
    c->cloud = (fst_service){.batch = cloud_batch};
    if (edge) {
        c->edge.compute = edge->cost;
        c->edge.planning = edge->planning;
    }
    if (cloud)
        c->cloud.compute = cloud->cost;
}

double fst__clock_seconds(void *clock, double threshold)
{
    struct clock *c = clock;
    fst_timing t;
    for (size_t i = 0; i < c->workload.samples; i++)
        c->offloaded[i] = c->confidence[i] < threshold;
    fst_status st = fst_timing_run(&t, FST_ROUTE_CASCADE, true, &c->network, &c->workload, &c->edge, &c->cloud, NULL);
    return st ? NAN : t.seconds;
}

fst_status fst__clock_times(struct clock *c, const uint8_t *offloaded, fst_cascade_times *out, fst_error *err)
{
    fst_cascade_times t;
    const struct {
        fst_timing *to;
        fst_route route;
        bool staged;
    } ways[] = {{&t.cascade, FST_ROUTE_CASCADE, false},
                {&t.cascade_staged, FST_ROUTE_CASCADE, true},
                {&t.cloud, FST_ROUTE_CLOUD_ONLY, false},
                {&t.cloud_staged, FST_ROUTE_CLOUD_ONLY, true}};
    fst_status st = FST_OK;
    if (offloaded)
        memcpy(c->offloaded, offloaded, c->workload.samples);
    else
        memset(c->offloaded, 0, c->workload.samples);
    for (size_t i = 0; !st && i < sizeof ways / sizeof *ways; i++)
        st = fst_timing_run(ways[i].to, ways[i].route, ways[i].staged, &c->network, &c->workload, &c->edge, &c->cloud,
                            err);
    if (!st)
        *out = t;
    return st;
}

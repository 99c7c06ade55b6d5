/* The task file's tables for tiers and made signals, and what follows from a topology alone. No samples here: who has
 * which is session_data.c. */
#include <stdio.h>

#include "fedstill/synth.h"
#include "session.h"

#define MANY INT64_C(1000000000)

static const char *const generators[] = {"link11", "modulation", NULL};
_Static_assert(FST_SYNTH_LINK11 == 0 && FST_SYNTH_MODULATION == 1, "the names stand in the order of fst_synth_kind");

static const fst__field synth_fields[] = {
    FST__F_ENUM(struct synth_section, generator, generators, "link11", "seven emitters, or eleven modulations"),
    FST__F_INT(struct synth_section, windows, 1, 10000000, NULL, "windows, which are the samples", .required = true),
    FST__F_INT(struct synth_section, windows_per_burst, 1, FST_SYNTH_MAX_WINDOWS_PER_BURST, "4",
               "windows of one burst, which stay together"),
    FST__F_INT(struct synth_section, seed, 0, INT64_MAX, NULL, "of the signals; missing: the task's",
               FST__PRESENT(struct synth_section, has_seed)),
    FST__F_DOUBLES(struct synth_section, snr, snr_count, 2, -100, 200, "[-10, 30]",
                   "least and largest signal-to-noise ratio, dB; one a burst", .count_min = 2),
    FST__F_STRING(struct synth_section, params, NULL,
                  "JSON file of the generator's parameters (docs/signals.md); relative to the task's folder"),
};

static bool check_synth(const void *object, fst__complaint *c)
{
    const struct synth_section *s = object;
    if (s->snr[0] <= s->snr[1])
        return true;
    c->key = "snr";
    snprintf(c->text, sizeof c->text, "the first number is the least, the second the largest");
    return false;
}

const fst__schema fst__synth_schema = FST__SCHEMA(struct synth_section, synth_fields, .check = check_synth);

#define LINK_FIELDS(default_rate, default_latency)                                                \
    FST__F_ABOVE(struct link_section, rate, 0, 1e6, default_rate, "MB/s, a MB being 10^6 bytes"), \
        FST__F_DOUBLE(struct link_section, latency, 0, 1000, default_latency, "seconds")

static const fst__field near_fields[] = {LINK_FIELDS("100", "0.001")}, far_fields[] = {LINK_FIELDS("8", "0.02")};
static const fst__schema near_schema = FST__SCHEMA(struct link_section, near_fields);
static const fst__schema far_schema = FST__SCHEMA(struct link_section, far_fields);

static const fst__field links_fields[] = {
    FST__F_MAP(struct links_section, device_edge, &near_schema, "from a device to its edge"),
    FST__F_MAP(struct links_section, edge_cloud, &far_schema, "from an edge to the cloud"),
    FST__F_MAP(struct links_section, device_cloud, &far_schema, "from a device to the cloud"),
};
static const fst__schema links_schema = FST__SCHEMA(struct links_section, links_fields);

static const fst__field topology_fields[] = {
    FST__F_INT(struct topology_section, edges, 1, FST__MAX_EDGES, "2", "edges, the clients of federated_train"),
    FST__F_INT(struct topology_section, devices, 1, 100000, "4", "devices of all edges, dealt to them evenly"),
    FST__F_ABOVE(
        struct topology_section, cloud_share, 0, 1, "0.5",
        "share of the training samples that the cloud has; the edges have the rest (1: nothing, where no stage "
        "trains there)",
        .when = {FST__WITHOUT_ANY("data.edge_paths")}),
    FST__F_ABOVE(struct topology_section, alpha, 0, 1e6, "0.3",
                 "how the edges' samples are dealt: per class by Dirichlet(alpha); small is uneven",
                 .when = {FST__WITHOUT_ANY("data.edge_paths")}),
    FST__F_MAP(struct topology_section, links, &links_schema, "what the network carries", .aside = true,
               .when = {FST__WITH_EITHER("stages.edge_infer", "stages.cloud_direct_infer")}),
};

static bool check_topology(const void *object, fst__complaint *c)
{
    const struct topology_section *t = object;
    if (t->devices >= t->edges)
        return true;
    c->key = "devices";
    snprintf(c->text, sizeof c->text, "must be at least edges (%lld): each edge has a device", (long long)t->edges);
    return false;
}

const fst__schema fst__topology_schema = FST__SCHEMA(struct topology_section, topology_fields, .check = check_topology);

int64_t fst__edge_of_device(const struct topology_section *t, int64_t device)
{
    return device * t->edges / t->devices;
}

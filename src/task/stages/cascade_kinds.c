/*
 * The kinds of the cascade as the task sees them: device_load, edge_infer, cloud_infer and cloud_direct_infer. Their
 * settings, which of them and which models they read, what a dry run says. What they do is cascade.c, what their
 * results depend on cascade_inputs.c.
 */
#include <stdio.h>
#include <string.h>

#include "cascade.h"

/* ---- settings ---------------------------------------------------------------------------------------- */

#define MANY INT64_C(1000000000)

static const char *const confidences[] = {"max", "margin", "entropy", "energy", NULL};
_Static_assert(FST_CONFIDENCE_MAX == 0 && FST_CONFIDENCE_ENERGY == 3, "the names stand in the order of the kinds");

static const fst__field device_load_fields[] = {
    FST__F_INT(struct device_load_section, batch_size, 1, 65536, "32", "samples that a device hands over at a time"),
    FST__F_INT(struct device_load_section, num_batches, 0, MANY, "0", "batches of a device; 0: all it has"),
    FST__F_INT(struct device_load_section, max_files, 0, MANY, "0",
               "most samples that a device reads (in a folder of files one sample is a file); 0: no limit"),
    FST__F_DOUBLE(struct device_load_section, interval, 0, 1e6, "0",
                  "seconds between two batches of a device, in the model of time; 0: all are there at the start"),
};
static const fst__schema device_load_schema = FST__SCHEMA(struct device_load_section, device_load_fields);

static const fst__field threshold_fields[] = {
    FST__F_DOUBLE(struct threshold_section, value, 0, 2, NULL, "what is less sure than this goes to the cloud (0.7)",
                  FST__PRESENT(struct threshold_section, has_value)),
    FST__F_DOUBLE(struct threshold_section, target_accuracy, 0, 1, NULL,
                  "the fewest to the cloud that reach this accuracy on the validation samples",
                  FST__PRESENT(struct threshold_section, has_target_accuracy)),
    FST__F_DOUBLE(struct threshold_section, target_offload, 0, 1, NULL,
                  "the most to the cloud that are at most this share of the validation samples",
                  FST__PRESENT(struct threshold_section, has_target_offload)),
    FST__F_ABOVE(struct threshold_section, target_time, 0, 1e9, NULL,
                 "the most to the cloud within so many seconds for the devices' samples, by the model of time",
                 FST__PRESENT(struct threshold_section, has_target_time)),
};

static bool check_threshold(const void *object, fst__complaint *c)
{
    const struct threshold_section *t = object;
    if (t->has_value + t->has_target_accuracy + t->has_target_offload + t->has_target_time <= 1)
        return true;
    snprintf(c->text, sizeof c->text,
             "has several targets: give one of value, target_accuracy, target_offload, "
             "target_time");
    return false;
}

static const fst__schema threshold_schema =
    FST__SCHEMA(struct threshold_section, threshold_fields, .shorthand = "value", .check = check_threshold);

#define MEASURE_FIELDS(T)                                                                                     \
    FST__F_INT(T, runs, 1, 100, "3", "how often computing is measured; times are means over the runs"),       \
        FST__F_INT(T, repeats, 1, 1000, "5", "measurements of a point in a run, of which the median counts"), \
        FST__F_ABOVE(T, snr_bin, 0, 1000, "5", "width of a bin of the signal-to-noise ratio in reports, dB")

static const fst__field edge_infer_fields[] = {
    FST__F_STRING(
        struct edge_infer_section, model, NULL,
        "stage whose model it is, or a model file, relative to the task's folder; missing: federated_train or "
        "edge_kd, the first of them that the task has"),
    FST__F_ENUM(struct edge_infer_section, confidence, confidences, "max", "how sure the student is"),
    FST__F_MAP(struct edge_infer_section, threshold, &threshold_schema, "from where on the student is believed"),
    FST__F_BOOL(struct edge_infer_section, calibrate, "true",
                "scale the temperature of confidences on the validation samples"),
    FST__F_INT(struct edge_infer_section, batch_size, 1, 65536, "32", "samples computed at a time"),
    FST__F_STRING(struct edge_infer_section, devices, NULL,
                  "stage that deals out the devices' samples; missing: device_load", .aside = true),
    FST__F_STRING(
        struct edge_infer_section, cloud, NULL,
        "stage that says what the cloud computes with, for targets of accuracy and time; missing: cloud_infer",
        .aside = true),
    FST__F_INT(struct edge_infer_section, threads, 0, 1024, "1", "of an edge; 0: as given by --threads"),
    FST__F_DOUBLE(struct edge_infer_section, ask_timeout, 0, 1e6, "2",
                  "in a fleet: seconds without a word from the cloud after which an edge answers itself what it is not "
                  "sure of; 0: it waits",
                  .aside = true),
    MEASURE_FIELDS(struct edge_infer_section),
};
static const fst__schema edge_infer_schema = FST__SCHEMA(struct edge_infer_section, edge_infer_fields);

#define CLOUD_FIELDS                                                                                             \
    FST__F_STRING(struct cloud_infer_section, model, NULL,                                                       \
                  "stage whose model it is, or a model file, relative to the task's folder; missing: "           \
                  "cloud_pretrain"),                                                                             \
        FST__F_INT(struct cloud_infer_section, batch_size, 1, 65536, "128",                                      \
                   "samples computed at a time; what waits is joined up to this"),                               \
        FST__F_INT(struct cloud_infer_section, threads, 0, 1024, "0", "of the cloud; 0: as given by --threads"), \
        MEASURE_FIELDS(struct cloud_infer_section)

static const fst__field cloud_infer_fields[] = {
    CLOUD_FIELDS,
    FST__F_STRING(struct cloud_infer_section, edge, NULL, "stage whose unsure samples it gets; missing: edge_infer",
                  .aside = true),
    FST__F_BOOL(struct cloud_infer_section, compare, "true",
                "outside the model of time, also run the teacher on what stayed at the edge: for the accuracy of the "
                "cloud alone and of other thresholds"),
};
static const fst__schema cloud_infer_schema = FST__SCHEMA(struct cloud_infer_section, cloud_infer_fields);

static const fst__field cloud_direct_fields[] = {
    CLOUD_FIELDS,
    FST__F_STRING(struct cloud_infer_section, devices, NULL,
                  "stage that deals out the devices' samples; missing: device_load", .aside = true),
};
static const fst__schema cloud_direct_schema = FST__SCHEMA(struct cloud_infer_section, cloud_direct_fields);

/* ---- what they read ---------------------------------------------------------------------------------- */

/* Whether the threshold of edge_infer asks for the teacher's answers or its time. */
static bool needs_teacher(const struct stage *own)
{
    return fst__needs_teacher(own->settings);
}

#define READS_DEVICES                                                             \
    {                                                                             \
        .key = "devices", .what = FST__LEAVES_BATCHES, .fallback = "device_load", \
        .missing = "needs the stage device_load (the samples)"                    \
    }
#define READS_TEACHER                                                                          \
    {                                                                                          \
        .key = "model", .what = FST__LEAVES_MODEL, .file = true, .fallback = "cloud_pretrain", \
        .missing = "needs a model, or the stage cloud_pretrain to take it from"                \
    }

/* The model of the cloud is wanted for targets of accuracy and time, and its settings; its results are not. */
static const struct stage_ref edge_refs[] = {
    READS_DEVICES,
    {.key = "model",
     .what = FST__LEAVES_MODEL,
     .file = true,
     .fallback = "federated_train edge_kd",
     .missing = "needs a model, or one of the stages federated_train and edge_kd to take it from"},
    {.key = "cloud",
     .what = FST__LEAVES_REPORT,
     .settings = true,
     .fallback = "cloud_infer",
     .missing = "a target of accuracy or time needs the stage cloud_infer, which says what the cloud computes with",
     .wanted = needs_teacher},
    {.key = FST__TEACHER, .what = FST__LEAVES_MODEL, .through = "cloud", .theirs = "model"},
};
static const struct stage_ref cloud_refs[] = {
    {.key = "edge",
     .what = FST__LEAVES_ANSWERS,
     .fallback = "edge_infer",
     .missing = "needs the stage edge_infer, whose samples it gets"},
    READS_TEACHER,
    {.key = "devices", .what = FST__LEAVES_BATCHES, .through = "edge", .theirs = "devices"},
    {.key = FST__STUDENT, .what = FST__LEAVES_MODEL, .through = "edge", .theirs = "model"},
};
static const struct stage_ref direct_refs[] = {READS_DEVICES, READS_TEACHER};

/* ---- checks -------------------------------------------------------------------------------------------- */

static fst_status check_devices(const struct session *s, const struct step *own, fst_error *err)
{
    return fst__check_devices(s, own, err);
}

static fst_status check_edge(const struct session *s, const struct step *own, fst_error *err)
{
    const struct edge_infer_section *e = own->stage->settings;
    const struct threshold_section *t = &e->threshold;
    if (!s->data.cloud.validate && (t->has_target_accuracy || t->has_target_offload))
        return fst_fail(err, FST_E_CONFIG,
                        "stages.%s.threshold: a target of accuracy or share is met on "
                        "validation samples: set data.validation, for instance to 0.1",
                        own->stage->name);
    fst_status st = fst__check_tier(s, own, "model", err);
    return st ? st : fst__check_tier(s, own, FST__TEACHER, err);
}

static fst_status check_cloud(const struct session *s, const struct step *own, fst_error *err)
{
    return fst__check_tier(s, own, "model", err);
}

/* ---- a dry run --------------------------------------------------------------------------------------------- */

/* How many the edge sends on is not known before. */
static fst_status tell(const struct session *s, const struct step *own, fst_buf *out, fst_error *err)
{
    const enum leaves what = own->stage->kind->leaves;
    return fst_buf_printf(out, err, "  %-16s up to %zu samples %s\n", own->stage->name, s->data.test->count,
                          what == FST__LEAVES_BATCHES   ? "handed over by the devices"
                          : what == FST__LEAVES_ANSWERS ? "to the student"
                          : what == FST__LEAVES_REPORT  ? "to the teacher, as the threshold says"
                                                        : "to the teacher, all");
}

/* ---- the kinds --------------------------------------------------------------------------------------------- */

const struct stage_kind fst__device_load = {
    .name = "device_load",
    .help = "the devices' shares of the test samples, in batches",
    .schema = &device_load_schema,
    .modes = FST__IN_PIPELINE | FST__IN_DEVICE_EDGE | FST__IN_DEVICE_EDGE_CLOUD | FST__IN_DEVICE_CLOUD,
    .leaves = FST__LEAVES_BATCHES,
    .check = check_devices,
    .inputs = fst__infer_inputs,
    .tell = tell,
    .run = FST__TRAINS ? fst__deal_devices : NULL,
};

const struct stage_kind fst__edge_infer = {
    .name = "edge_infer",
    .help = "the student answers what it is sure of",
    .schema = &edge_infer_schema,
    .modes = FST__IN_PIPELINE | FST__IN_DEVICE_EDGE | FST__IN_DEVICE_EDGE_CLOUD,
    .leaves = FST__LEAVES_ANSWERS,
    .refs = edge_refs,
    .ref_count = sizeof edge_refs / sizeof *edge_refs,
    .check = check_edge,
    .inputs = fst__infer_inputs,
    .tell = tell,
    .run = FST__TRAINS ? fst__infer_edge : NULL,
};

const struct stage_kind fst__cloud_infer = {
    .name = "cloud_infer",
    .help = "the teacher answers the rest",
    .schema = &cloud_infer_schema,
    .modes = FST__IN_PIPELINE | FST__IN_DEVICE_EDGE_CLOUD,
    .leaves = FST__LEAVES_REPORT,
    .refs = cloud_refs,
    .ref_count = sizeof cloud_refs / sizeof *cloud_refs,
    .check = check_cloud,
    .inputs = fst__infer_inputs,
    .tell = tell,
    .run = FST__TRAINS ? fst__infer_cloud : NULL,
};

const struct stage_kind fst__cloud_direct_infer = {
    .name = "cloud_direct_infer",
    .help = "the teacher answers everything, for comparison",
    .schema = &cloud_direct_schema,
    .modes = FST__IN_DEVICE_CLOUD,
    .leaves = FST__LEAVES_COMPARISON,
    .refs = direct_refs,
    .ref_count = sizeof direct_refs / sizeof *direct_refs,
    .check = check_cloud,
    .inputs = fst__infer_inputs,
    .tell = tell,
    .run = FST__TRAINS ? fst__infer_direct : NULL,
};

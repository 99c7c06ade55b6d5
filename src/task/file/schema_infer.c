/* The task file's tables for the stages of the cascade. What they do is cascade.c. */
#include <stdio.h>
#include <string.h>

#include "fedstill/infer.h"
#include "task_file.h"

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
const fst__schema fst__device_load_schema = FST__SCHEMA(struct device_load_section, device_load_fields);

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
    FST__F_STRING(struct edge_infer_section, model, NULL,
                  "federated_train, edge_kd, edge_alone or a model file, relative to the task's folder; missing: the "
                  "first of these that the task has"),
    FST__F_ENUM(struct edge_infer_section, confidence, confidences, "max", "how sure the student is"),
    FST__F_MAP(struct edge_infer_section, threshold, &threshold_schema, "from where on the student is believed"),
    FST__F_BOOL(struct edge_infer_section, calibrate, "true",
                "scale the temperature of confidences on the validation samples"),
    FST__F_INT(struct edge_infer_section, batch_size, 1, 65536, "32", "samples computed at a time"),
    FST__F_INT(struct edge_infer_section, threads, 0, 1024, "1", "of an edge; 0: as given by --threads"),
    MEASURE_FIELDS(struct edge_infer_section),
};
const fst__schema fst__edge_infer_schema = FST__SCHEMA(struct edge_infer_section, edge_infer_fields);

#define CLOUD_FIELDS                                                                                             \
    FST__F_STRING(struct cloud_infer_section, model, NULL,                                                       \
                  "cloud_pretrain, or a model file, relative to the task's folder; missing: cloud_pretrain"),    \
        FST__F_INT(struct cloud_infer_section, batch_size, 1, 65536, "128",                                      \
                   "samples computed at a time; what waits is joined up to this"),                               \
        FST__F_INT(struct cloud_infer_section, threads, 0, 1024, "0", "of the cloud; 0: as given by --threads"), \
        MEASURE_FIELDS(struct cloud_infer_section)

static const fst__field cloud_infer_fields[] = {
    CLOUD_FIELDS,
    FST__F_BOOL(struct cloud_infer_section, compare, "true",
                "outside the model of time, also run the teacher on what stayed at the edge: for the accuracy of the "
                "cloud alone and of other thresholds"),
};
const fst__schema fst__cloud_infer_schema = FST__SCHEMA(struct cloud_infer_section, cloud_infer_fields);

static const fst__field cloud_direct_fields[] = {CLOUD_FIELDS};
const fst__schema fst__cloud_direct_schema = FST__SCHEMA(struct cloud_infer_section, cloud_direct_fields);

/* ---- together ------------------------------------------------------------------------------------- */

static const char *model_complaint(const struct stages_section *s)
{
    const char *m = s->edge_infer.model;
    if (!m && !s->has_federated_train && !s->has_edge_kd)
        return "needs a model, or one of the stages federated_train and edge_kd to take it from";
    if (m && ((!strcmp(m, "federated_train") && !s->has_federated_train) || (!strcmp(m, "edge_kd") && !s->has_edge_kd)))
        return "its model is that of a stage which the task does not have";
    if (m && !strcmp(m, "edge_alone") && !(s->has_edge_kd && s->edge_kd.baseline))
        return "model: edge_alone needs edge_kd.baseline: true";
    return NULL;
}

static bool teacher_missing(const struct stages_section *s, const char *model)
{
    return (!model || !strcmp(model, "cloud_pretrain")) && !s->has_cloud_pretrain;
}

const char *fst__infer_complaint(const struct stages_section *s, const char **key)
{
    const struct threshold_section *t = &s->edge_infer.threshold;
    *key = "edge_infer";
    if (s->has_edge_infer && !s->has_device_load)
        return "needs the stage device_load (the samples)";
    if (s->has_edge_infer && model_complaint(s))
        return model_complaint(s);
    if (s->has_edge_infer && (t->has_target_accuracy || t->has_target_time) && !s->has_cloud_infer)
        return "a target of accuracy or time needs the stage cloud_infer, which says what the cloud computes with";
    *key = "cloud_infer";
    if (s->has_cloud_infer && !s->has_edge_infer)
        return "needs the stage edge_infer, whose samples it gets";
    if (s->has_cloud_infer && teacher_missing(s, s->cloud_infer.model))
        return "needs a model, or the stage cloud_pretrain to take it from";
    *key = "cloud_direct_infer";
    if (s->has_cloud_direct_infer && !s->has_device_load)
        return "needs the stage device_load (the samples)";
    if (s->has_cloud_direct_infer && teacher_missing(s, s->cloud_direct_infer.model))
        return "needs a model, or the stage cloud_pretrain to take it from";
    return NULL;
}

/* What the stages of the cascade share: the devices' batches, models and tiers, files between stages, the model of
 * time. */
#ifndef FST_TASK_CASCADE_H
#define FST_TASK_CASCADE_H

#include "fedstill/infer.h"
#include "session.h"

enum { FST__MAX_RUNS = 100, FST__ANSWER_BYTES = 8 /* a class and how sure it is, 4 bytes each */ };

/* The samples that the devices hand over, device by device. */
struct batches {
    size_t count;
    uint32_t *index; /* in the test samples */
    uint32_t *device;
    int32_t *labels;
    float *snr; /* NULL: not known */
};

/* A model of the cascade and where it comes from. */
struct tier_model {
    fst_model model;
    char name[256]; /* of the step or file */
    char digest[FST_DIGEST_HEX];
};

/* What edge_infer leaves for cloud_infer. */
struct edge_result {
    float *logits; /* count x classes */
    fst_confidence_kind kind;
    double temperature;
    fst_threshold choice;
    bool calibrated;
    fst_calibration calibration;
    fst_measured runs[FST__MAX_RUNS];
    size_t run_count;
};

/* ---- cascade_inputs.c: what the steps start from ---- */
/* Devices, edges and links: the task's topology or its defaults. */
fst_status fst__tiers(const struct task_file *f, struct topology_section *out, fst_error *err);
/* Of the stage that the reference "devices" leads to. */
fst_status fst__batches_read(const struct session *s, const struct step *own, struct batches *out, fst_error *err);
fst_status fst__batches_label(const struct session *s, struct batches *b, fst_error *err);
void fst__batches_release(struct batches *b);
/* References to the model of the other tier: of edge_infer to that of the cloud, of cloud_infer to that of the edge. */
#define FST__TEACHER "teacher"
#define FST__STUDENT "student"
/* The model that a reference leads to. */
fst_status fst__tier_model(const struct session *s, const struct step *own, const char *key, struct tier_model *out,
                           fst_error *err);
/* Tries a model file on the data, before any work. */
fst_status fst__check_tier(const struct session *s, const struct step *own, const char *key, fst_error *err);
/* What the result of a stage of the cascade depends on (stage_kind.inputs). */
fst_status fst__infer_inputs(const struct session *s, const struct step *own, fst_buf *text, fst_error *err);
/* Whether the threshold of edge_infer asks for the teacher's answers or its time. */
bool fst__needs_teacher(const struct edge_infer_section *e);

/* ---- cascade.c: what the kinds run ---- */
fst_status fst__deal_devices(struct session *s, struct step *own, struct record *r, fst_error *err);
fst_status fst__infer_edge(struct session *s, struct step *own, struct record *r, fst_error *err);
fst_status fst__infer_cloud(struct session *s, struct step *own, struct record *r, fst_error *err);
fst_status fst__infer_direct(struct session *s, struct step *own, struct record *r, fst_error *err);
/* The shares of a device_load step; labels are not filled in. */
fst_status fst__deal(const struct session *s, const struct step *own, struct batches *b, size_t devices,
                     fst_error *err);
/* Is there something to read for every device? */
fst_status fst__check_devices(const struct session *s, const struct step *own, fst_error *err);

/* ---- cascade_files.c ---- */
fst_status fst__batches_write(const struct session *s, const struct step *own, const struct batches *b,
                              struct record *r, fst_error *err);
/* Answers of a step, predictions.safetensors. kept: logits to keep, rows x classes, NULL for none; offloaded may be
 * NULL. */
struct answers {
    const struct batches *b;
    const struct tier_model *model;
    int classes;
    const float *logits;
    const fst_cascade *cascade;
    const struct edge_result *edge; /* NULL unless of edge_infer */
    const uint8_t *offloaded;
};
fst_status fst__answers_write(const struct session *s, const struct step *step, const struct answers *a,
                              char digest[FST_DIGEST_HEX], fst_error *err);
fst_status fst__report_write(const struct session *s, const struct step *step, const fst_cascade_report *report,
                             char digest[FST_DIGEST_HEX], fst_error *err);
/* What the stage of the reference "edge" left; logits for `count` samples and as many classes as the data have. */
fst_status fst__edge_result_read(const struct session *s, const struct step *own, size_t count, struct edge_result *out,
                                 fst_error *err);

/* ---- cascade_time.c ---- */
/* The task's devices, links and servers; release with fst__clock_release. */
struct clock {
    fst_network network;
    fst_workload workload;
    fst_service edge, cloud;
    const double *confidence; /* of the workload's samples, for fst__clock_seconds */
    uint32_t *edge_of;
    uint8_t *offloaded; /* the workload's */
};
fst_status fst__clock_init(const struct session *s, const struct step *own, const struct batches *b,
                           const double *confidence, struct clock *out, fst_error *err);
void fst__clock_release(struct clock *c);
/* Measured figures of both tiers; NULL: computing takes no time. */
void fst__clock_set(struct clock *c, const fst_measured *edge, const fst_measured *cloud, size_t cloud_batch);
/* An fst_seconds_fn over a struct clock: the staged time of the cascade. */
double fst__clock_seconds(void *clock, double threshold);
/* All times of one run; offloaded: of each sample, NULL for none. */
fst_status fst__clock_times(struct clock *c, const uint8_t *offloaded, fst_cascade_times *out, fst_error *err);

#endif

/* The task file's sections of the cascade; the tables that fill them are in schema_infer.c. */
#ifndef FST_TASK_INFER_FILE_H
#define FST_TASK_INFER_FILE_H

#include "schema.h"

struct device_load_section {
    int64_t batch_size, num_batches, max_files;
    double interval; /* seconds */
};

struct threshold_section { /* at most one of them; none: FST__THRESHOLD */
    bool has_value, has_target_accuracy, has_target_offload, has_target_time;
    double value, target_accuracy, target_offload, target_time;
};
#define FST__THRESHOLD 0.7

struct edge_infer_section {
    char *model;    /* NULL: that of federated_train where the task has it, else of edge_kd */
    int confidence; /* fst_confidence_kind */
    struct threshold_section threshold;
    bool calibrate;
    int64_t batch_size, threads, runs, repeats;
    double snr_bin;
};

struct cloud_infer_section { /* also cloud_direct_infer, which has all but compare */
    char *model;             /* NULL: cloud_pretrain's */
    int64_t batch_size, threads, runs, repeats;
    double snr_bin;
    bool compare;
};

struct stages_section;
/* What is wrong with the stages of the cascade as they stand together: NULL, or why, with the key of the stage. */
const char *fst__infer_complaint(const struct stages_section *s, const char **key);

extern const fst__schema fst__device_load_schema, fst__edge_infer_schema, fst__cloud_infer_schema,
    fst__cloud_direct_schema;

#endif

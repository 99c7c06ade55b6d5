/* The task file's sections of the cascade and of models made for it; the tables that fill them are in
 * stages/cascade_kinds.c and stages/quantise.c. */
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

struct quantise_section {
    char *model;     /* a stage or a file; NULL: federated_train where the task has it, else edge_kd */
    int64_t samples; /* at most */
};

struct edge_infer_section {
    char *model;           /* a stage or a file; NULL: federated_train where the task has it, else edge_kd */
    char *devices, *cloud; /* stages; NULL: device_load, cloud_infer */
    int confidence;        /* fst_confidence_kind */
    struct threshold_section threshold;
    bool calibrate;
    int64_t batch_size, threads, runs, repeats;
    double snr_bin;
    double ask_timeout; /* seconds; 0: never */
};

struct cloud_infer_section { /* also cloud_direct_infer, which has all but compare */
    char *model;             /* a stage or a file; NULL: cloud_pretrain */
    char *edge, *devices;    /* stages: of cloud_infer, of cloud_direct_infer; NULL: edge_infer, device_load */
    int64_t batch_size, threads, runs, repeats;
    double snr_bin;
    bool compare;
};

#endif

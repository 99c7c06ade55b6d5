/* The task file as C structs; the tables that fill them are in task_file.c. Lengths are in samples, epochs
 * and rounds; paths are relative to the task's folder. */
#ifndef FST_TASK_FILE_H
#define FST_TASK_FILE_H

#include "fedstill/data.h"
#include "fedstill/distill.h"
#include "fedstill/nn.h"
#include "fedstill/task.h"
#include "distil_file.h"
#include "codec_file.h"
#include "fusion_file.h"
#include "infer_file.h"
#include "schema.h"
#include "strategy_options.h"

struct normalise_section {
    double mean[FST_MAX_CHANNELS], std[FST_MAX_CHANNELS];
    size_t mean_count, std_count;
};

enum { FST__MAX_EDGES = 64 };

struct synth_section {
    int generator; /* fst_synth_kind */
    int64_t windows, windows_per_burst, seed;
    bool has_seed; /* else the task's */
    double snr[2];
    size_t snr_count;
    char *params;
};

struct data_section {
    int source; /* index in data_sources: 0 is "auto" */
    char *path, *obtain, *x, *y;
    int layout; /* fst_layout */
    int64_t classes, channels, height, width, window, limit, test_limit;
    double validation; /* share of the training samples */
    double public;     /* share of the training samples that are nobody's and everybody's: fst_public */
    double test;       /* share of all samples; 0: the source's own test split */
    bool own_validation;
    char **edge_paths;
    size_t edge_path_count;
    bool has_synth;
    struct synth_section synth;
    bool has_normalise;
    struct normalise_section normalise;
    int64_t crop_padding;
    bool flip;
    bool fingerprint; /* fst_transform.fingerprint */
};

struct clients_section {
    int64_t count;
    int partition; /* fst_partition_kind */
    double alpha;
    int64_t classes_per_client, min_samples;
    char **models; /* networks by client, "NAME" or "COUNT NAME"; none: all have the stage's */
    size_t model_count;
    double validation;    /* share of each client's samples that nobody learns from */
    char *partition_file; /* says who has which samples, instead of all the others; NULL: none */
};

struct link_section {
    double rate, latency; /* MB/s, s */
};

struct links_section {
    struct link_section device_edge, edge_cloud, device_cloud;
};

struct topology_section {
    int64_t edges, devices;
    double cloud_share, alpha;
    struct links_section links;
};

struct optimizer_section {
    int name; /* fst_optim_kind */
    double learning_rate, weight_decay, momentum, beta1, beta2, eps;
    bool nesterov;
};

struct schedule_section {
    int name; /* fst_schedule_kind */
    double eta_min, gamma;
    int64_t warmup, step_size;
    int64_t milestones[FST_MAX_MILESTONES];
    size_t milestone_count;
};

struct early_stopping_section {
    int64_t patience;
    double min_delta;
    int metric; /* 0 accuracy, 1 macro_f1, 2 loss */
};

/* The setting class_weights: a list, `balanced`, or neither. */
struct class_weights {
    double *weight; /* by class */
    size_t count;
    bool balanced;
};

/* What all supervised stages share. */
struct training {
    char *model, *init; /* init: a stage, a model file, or NULL */
    bool has_init_matching, init_matching;
    int64_t epochs, batch_size;
    struct optimizer_section optimizer;
    struct schedule_section schedule;
    bool has_early_stopping;
    struct early_stopping_section early_stopping;
    double clip_norm, label_smoothing;
    bool drop_last;
    bool has_quantise;
    int quantise; /* 0: int8 */
    struct class_weights weights;
};

struct cloud_kd_section {
    char **teacher; /* stages or model files; none: cloud_pretrain */
    size_t teacher_count;
    bool has_teacher_weights;
    int teacher_weights; /* fst_ensemble */
    bool has_at_clients, at_clients;
    double temperature;
    int content;  /* index in contents: "auto", "probabilities", "logits" */
    int encoding; /* fst_soft_encoding */
    int64_t top_k;
};

struct dkd_section {
    double alpha, beta; /* the paper's names; fst_loss has tckd_weight and nckd_weight */
    int64_t warmup_epochs;
};

struct edge_kd_section {
    struct training training;
    double temperature, ce_weight, kd_weight; /* temperature 0: that of cloud_kd */
    int kd_loss;                              /* fst_kd_form */
    char *soft_labels;                        /* a stage; NULL: cloud_kd */
    struct dkd_section dkd;
    bool has_temperature_schedule, has_ce_weight_schedule, has_kd_weight_schedule;
    struct ramp_section temperature_schedule, ce_weight_schedule, kd_weight_schedule;
    bool has_curriculum, has_fitnet, has_attention, has_online;
    struct online_section online;
    bool has_iterated;
    struct iterated_section iterated;
    struct curriculum_section curriculum;
    struct fitnet_section fitnet;
    struct attention_section attention;
    char *teacher; /* of feature maps: a stage or a file; NULL: cloud_pretrain */
    bool baseline; /* also train a student on hard labels alone */
};

/* Local training that also learns from soft labels. */
struct local_kd_section {
    char *soft_labels;                        /* a stage */
    double temperature, ce_weight, kd_weight; /* temperature 0: that of the soft labels */
    int kd_loss;                              /* fst_kd_form */
    struct dkd_section dkd;
};

struct prune_section {
    struct training training; /* must come first; model and init are not set */
    char *model, *teacher;    /* stages or files; NULL: federated_train where the task has it, else edge_kd; model */
    double ratio, temperature, ce_weight, kd_weight;
    int importance; /* fst_importance */
    int scope;      /* 0: of each layer, 1: of all together */
};

struct fusion_train_section {
    struct training training; /* must come first */
    struct local_fusion_section fusion;
};

enum { FST__OPTIM_FRESH, FST__OPTIM_KEPT };

struct federated_section {
    char *model;  /* NULL: edge_kd's */
    int strategy; /* index in strategy_names */
    int64_t rounds, local_epochs, local_steps, batch_size, clients_per_round, quorum;
    double fraction, clip_norm;
    bool drop_last;
    struct strategy_settings options;
    struct optimizer_section optimizer;
    int optimizer_state; /* FST__OPTIM_FRESH, FST__OPTIM_KEPT */
    bool has_distillation;
    struct local_kd_section distillation;
    bool has_fusion;
    struct federated_fusion_section fusion;
    bool has_codec;
    struct codecs_section codec;
    bool has_schedule;
    struct schedule_section schedule; /* by round */
    char *init;                       /* a stage, "random" or a file */
    int select;                       /* 0 "best", 1 "last" */
    int64_t evaluate_every;
    struct class_weights weights;
};

struct checkpoint_section {
    int64_t client_memory; /* megabytes */
    double seconds;
    int64_t steps;
};

struct task_file {
    char *name, *output;
    int64_t seed;
    int precision; /* fst_precision, as asked for */
    bool check_finite;
    struct data_section data;
    bool has_topology;
    struct topology_section topology;
    struct clients_section clients;
    struct checkpoint_section checkpoint;
    fst__named *stages; /* in the file's order; `choice` counts fst__stage_kinds (stages.h) */
    size_t stage_count;
};
enum { FST__MAX_STAGES = 64 };

/* Are the samples made, not read? */
bool fst__is_synth(const struct data_section *d);

/* Is there a setting class_weights? (class_weights.c) */
bool fst__weighs_classes(const struct class_weights *w);
/* Does the student need logits as soft labels? */
bool fst__student_takes_logits(const struct edge_kd_section *e);

extern const char *const fst__data_sources[], *const fst__schedule_names[];
extern const char *const fst__layouts[];                          /* as fst_layout */
extern const fst__schema fst__synth_schema, fst__topology_schema; /* topology.c */
extern const fst__schema fst__task_schema, fst__training_schema;  /* the latter of struct training alone */

struct stage;
struct stage_list {      /* stages.h */
    struct stage *stage; /* in the order of running */
    size_t count;
    char *names; /* of implied stages */
};

struct fst_task {
    struct task_file file;
    struct stage_list stages;     /* of the file and what they imply */
    char *folder, *path, *output; /* absolute or as given; output joined to folder */
};

#endif

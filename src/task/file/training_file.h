/*
 * training_file.h - the parts of the task file's tables that several kinds of stages share: optimisers, schedules,
 * early stopping, weights of classes, and the fields of a struct training. A kind puts TRAINING_FIELDS at the beginning
 * of its table, and its struct begins with a struct training.
 */
#ifndef FST_TASK_TRAINING_FILE_H
#define FST_TASK_TRAINING_FILE_H

#include "task_file.h"

#define FST__MANY INT64_C(1000000000)

extern const fst__schema fst__optimizer_schema, fst__schedule_schema, fst__early_stopping_schema;

extern const char *const fst__quantise_forms[]; /* "int8" */

/* Of a struct with a member `weights`. */
#define CLASS_WEIGHTS(T, whose)                                                                                \
    {                                                                                                          \
        .key = "class_weights",                                                                                \
        .help = "weight of each class in the hard labels' cross entropy, whose mean over a batch is then the " \
                "weighted one, as in PyTorch; balanced: n / (classes * n_c) of " whose                         \
                ", over the classes with samples (one without: 1)",                                            \
        .type = FST__TYPE_DOUBLE, .list = true, .offset = FST__AT(T, weights.weight, double *),                \
        .count_at = FST__AT(T, weights.count, size_t), .count_max = FST_MAX_CLASSES, .min = 0, .max = 1e6,     \
        FST__OR_WORD(T, "balanced", weights.balanced)                                                          \
    }

/* How any network is trained; of a struct that begins with a struct training. */
#define LEARNING_FIELDS(default_epochs)                                                                          \
    FST__F_INT(struct training, epochs, 1, 1000000, default_epochs, "passes over the data"),                     \
        FST__F_INT(struct training, batch_size, 1, 65536, "128", "samples a step"),                              \
        FST__F_BOOL(struct training, drop_last, "false", "leave out a last batch that is not full"),             \
        FST__F_MAP(struct training, optimizer, &fst__optimizer_schema, "update rule and its numbers"),           \
        FST__F_MAP(struct training, schedule, &fst__schedule_schema, "learning rate by epoch"),                  \
        FST__F_OPTIONAL(struct training, early_stopping, has_early_stopping, &fst__early_stopping_schema,        \
                        "stops when epochs get no better on the validation samples; the best one is kept"),      \
        FST__F_DOUBLE(struct training, clip_norm, 0, 1e6, "0", "largest norm of the gradient; 0: no limit"),     \
        FST__F_DOUBLE(struct training, label_smoothing, 0, 0.999, "0", "of the hard labels"),                    \
        FST__F_ENUM(struct training, quantise, fst__quantise_forms, NULL,                                        \
                    "int8: it learns with weights and values rounded as a stage quantise will round them; what " \
                    "it leaves is f32; missing: without rounding",                                               \
                    FST__PRESENT(struct training, has_quantise)),                                                \
        CLASS_WEIGHTS(struct training, "the samples that the stage learns from")

/* `at` reaches the struct training inside a stage's struct. */
#define TRAINING_FIELDS(default_epochs)                                                                          \
    FST__F_STRING(struct training, model, NULL,                                                                  \
                  "network, as `fedstill model list` names it, and its options: mobilenet_v2 width=0.5",         \
                  .required = true),                                                                             \
        FST__F_STRING(                                                                                           \
            struct training, init, NULL,                                                                         \
            "stage whose model it starts from, or a model file, relative to the task's folder; missing: random " \
            "weights",                                                                                           \
            .aside = true),                                                                                      \
        FST__F_BOOL(struct training, init_matching, NULL,                                                        \
                    "init may be of another network: parameters of equal name and shape are taken, the others "  \
                    "stay random",                                                                               \
                    FST__PRESENT(struct training, has_init_matching), .when = {FST__WITH_ANY("init")}),          \
        LEARNING_FIELDS(default_epochs)

#endif

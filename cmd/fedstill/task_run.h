/* task_run.h - what commands that run a task have in common: its options, loading it, watching it, its result. */
#ifndef FEDSTILL_TASK_RUN_H
#define FEDSTILL_TASK_RUN_H

#include "cmd.h"
#include "fedstill/task.h"

#define SET_OPTION                                                                                          \
    {                                                                                                       \
        .name = "set", .argument = "KEY=VALUE", .type = OPTION_LIST,                                        \
        .help = "Override a key of the task file, for instance stages.edge_kd.epochs=10 (stages.NAME.KEY)." \
    }
#define BACKEND_OPTION                                                  \
    {                                                                   \
        .name = "backend", .argument = "NAME", .type = OPTION_STRING,   \
        .help = "onednn, or reference (slow; the oracle of the tests)." \
    }
#define OUTPUT_OPTION(text)                                                                     \
    {                                                                                           \
        .name = "output", .letter = 'o', .argument = "DIR", .type = OPTION_STRING, .help = text \
    }

/* The modes of a task that one process plays; an array of them may go on. */
#define TASK_MODES                                                                                               \
    "full_train", "pretrain", "knowledge_distillation", "federated_learning", "full_pipeline", "device_to_edge", \
        "device_to_edge_to_cloud", "device_to_cloud"
#define MODE_OPTION(names)                                                                                  \
    {                                                                                                       \
        .name = "mode", .letter = 'm', .argument = "MODE", .type = OPTION_STRING, .fallback = "full_train", \
        .choices = names, .help = "Which of the task's stages to run."                                      \
    }
#define NO_REUSE_OPTION(text)                                 \
    {                                                         \
        .name = "no-reuse", .type = OPTION_FLAG, .help = text \
    }
#define TRAIN_ALL_HERE "Take no finished stages from other outputs: train everything in this one."
#define DRY_RUN_OPTION(text)                                                \
    {                                                                       \
        .name = "dry-run", .letter = 'n', .type = OPTION_FLAG, .help = text \
    }
/* file: what stands for the table. */
#define JSON_RESULT_OPTION(file)                                                                       \
    {                                                                                                  \
        .name = "json", .type = OPTION_FLAG, .help = "Print " file " at the end instead of the table." \
    }
#define TASK_OPERAND                                                                      \
    {                                                                                     \
        "TASK", 1, 1, "A folder with task.yaml or with input/STAGE.json, or a task file." \
    }

/* Becomes 1 by the first signal, after signals_stop_by(&task_stop). */
extern atomic_int task_stop;

/* The task of the first operand with the overrides of --set, --precision, --check-finite and --output, as far as the
 * command has these options. */
fst_status task_load(fst_task **out, const struct options *o, fst_error *err);
/* Progress as bars and lines on stderr; quiet lives as long. */
fst_observer task_observer(const bool *quiet);
/* summary.json, as a table or as it is. */
fst_status task_print_result(const fst_task *task, bool json, fst_error *err);
/* err of a run that was stopped, with how to go on. */
fst_status task_say_how_to_go_on(fst_error *err);

/* ---- task_samples.c ---- */

enum { TASK_PLACES = 128 };
/* The parts of a task's training samples that it keeps for validation, or those that it learns from: of one place
 * ("cloud", "edge-1"), or of all (NULL). An error when there are none. */
fst_status task_parts(fst_task_data *data, bool val, const char *place, fst_source_part parts[TASK_PLACES], size_t *n,
                      fst_error *err);
/* `limit` of a source's samples, of every class its share; `all` must outlive them. */
fst_status task_limit(fst_source **out, const fst_source *all, size_t limit, fst_error *err);

#endif

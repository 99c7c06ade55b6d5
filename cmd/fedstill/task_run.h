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

#define NO_REUSE_OPTION                                                                     \
    {                                                                                       \
        .name = "no-reuse", .type = OPTION_FLAG,                                            \
        .help = "Take no finished stages from other outputs: train everything in this one." \
    }
#define JSON_RESULT_OPTION                                                                                 \
    {                                                                                                      \
        .name = "json", .type = OPTION_FLAG, .help = "Print summary.json at the end instead of the table." \
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

#endif

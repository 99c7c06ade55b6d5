/* fedstill export: what a run wrote down, for other programs. Finds the run and writes files; what stands in them is
 * the library's business (fedstill/export.h). */
#include <stdio.h>
#include <string.h>

#include "common.h"
#include "fedstill/export.h"
#include "find_run.h"

static const struct option_spec options[] = {
    {.name = "tensorboard",
     .argument = "DIR",
     .type = OPTION_STRING,
     .help =
         "Write an event file with all numbers of epochs, rounds, clients, fusions and resources into this folder, for "
         "tensorboard --logdir."},
    {.name = "csv",
     .argument = "DIR",
     .type = OPTION_STRING,
     .help = "Write everything as CSV into this folder: stages, epochs, rounds, clients, resources and so on, with all "
             "digits."},
    {0},
};

static const struct operand_spec operands[] = {
    {"RUN", 1, 1, "A task's folder, a run's output folder, or a run's number or name as `fedstill runs` shows them."},
    {0},
};

static const char *const examples[] = {
    "fedstill export tasks/mnist --tensorboard logs/mnist",
    "Then: tensorboard --logdir logs",
    "fedstill export 7 --csv tables",
    "tables/rounds.csv, tables/clients.csv and so on.",
    NULL,
};

static fst_status write_table_file(void *ctx, const char *name, const fst_buf *text, fst_error *err)
{
    const char *folder = ctx;
    size_t n = strlen(folder);
    fst_status s = write_csv(ctx, name, text, err);
    if (!s)
        printf("%.*s/%.100s.csv\n", (int)(n > 1 && folder[n - 1] == '/' ? n - 1 : n), folder, name);
    return s;
}

static fst_status write_tensorboard(const char *output, const char *folder, fst_error *err)
{
    char name[FST_EXPORT_NAME];
    fst_buf file = {0};
    size_t scalars = 0;
    fst_status s = fst_export_tensorboard(output, &file, name, &scalars, err);
    if (!s)
        s = fst_make_folders(folder, err);
    char *path = s ? NULL : fst_path_join(folder, name);
    if (!s)
        s = path ? fst_file_write(path, file.data, file.len, err) : fst_fail_memory(err, sizeof name);
    if (!s)
        printf("%s: %zu scalars\n", path, scalars);
    fst_free(path);
    fst_buf_release(&file);
    return s;
}

static fst_status run(const struct options *o, fst_error *err)
{
    const char *tensorboard = option_string(o, "tensorboard"), *csv = option_string(o, "csv");
    struct found_run f = {.output = NULL};
    if (!tensorboard && !csv)
        return fst_fail(err, FST_E_CONFIG, "nothing to do: --tensorboard DIR or --csv DIR says what to write");
    fst_status s = find_run(&f, operand(o, 0), err);
    if (!s && !is_output(f.output))
        s = fst_fail(err, FST_E_CONFIG, "%s holds no summary.json and no events.jsonl: nothing has run there yet",
                     f.output);
    if (!s && tensorboard)
        s = write_tensorboard(f.output, tensorboard, err);
    if (!s && csv)
        s = fst_make_folders(csv, err);
    if (!s && csv)
        s = fst_export_csv(f.output, write_table_file, (void *)csv, err);
    found_run_release(&f);
    return s;
}

const struct command cmd_export = {
    .name = "export",
    .summary = "Write a run's curves for TensorBoard, or as CSV",
    .description =
        "Writes what a run's summary.json and events.jsonl say for other programs. Only what is about the models "
        "that the folder shows now is written: not the rounds of other settings that stand in the same file, and "
        "not those that were played again after a crash.\n\n"
        "In TensorBoard a step is an epoch or a round, and tags are STAGE/KEY, STAGE/client N/KEY, "
        "STAGE/fusion/KEY and resources/KEY. Values there have 32 bits; CSV has all digits.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

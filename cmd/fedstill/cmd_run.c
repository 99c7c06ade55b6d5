/* fedstill run: a task's stages in this process. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fedstill/ranks.h"
#include "fleet_link.h"
#include "task_run.h"

static const char *const mode_names[] = {TASK_MODES, "federated_server", "federated_edge", NULL};
static const char *const devices[] = {"cpu", NULL};

static const char *const precisions[] = {"f32", "bf16", NULL};

static const struct option_spec options[] = {
    MODE_OPTION(mode_names),
    {.name = "stage",
     .letter = 's',
     .argument = "STAGE",
     .type = OPTION_STRING,
     .help = "Run this stage of the task file only; what it reads must be up to date."},
    SET_OPTION,
    {.name = "workers",
     .letter = 'w',
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 1024,
     .help = "Clients trained at the same time (default: the CPUs). The result does not depend on it."},
    THREADS_OPTION("Threads of central training and evaluation (default: the CPUs)."),
    BACKEND_OPTION,
    {.name = "device",
     .argument = "NAME",
     .type = OPTION_STRING,
     .fallback = "cpu",
     .choices = devices,
     .help = "Where to compute."},
    {.name = "precision",
     .argument = "P",
     .type = OPTION_STRING,
     .choices = precisions,
     .help = "As --set precision=P: f32, or bf16 activations with f32 parameters."},
    {.name = "check-finite",
     .type = OPTION_FLAG,
     .help = "As --set check_finite=true: name the first layer that yields a value that is no finite number."},
    OUTPUT_OPTION("Folder for what the run leaves, instead of the task's own."),
    {.name = "fresh",
     .type = OPTION_FLAG,
     .help = "Run the stages anew, whatever is there; what stands in their place is overwritten."},
    NO_REUSE_OPTION(TRAIN_ALL_HERE),
    {.name = "beside",
     .argument = "DIR",
     .type = OPTION_STRING,
     .help = "A folder of outputs, such as runs/ of a sweep: finished stages are taken from there first, also with "
             "--no-reuse."},
    {.name = "until",
     .argument = "STAGE[=N]",
     .type = OPTION_STRING,
     .help = "Stop when STAGE is done, or has done N epochs or rounds, with its progress saved; without this the same "
             "command goes on to the same models."},
    DRY_RUN_OPTION("Print the task with all defaults and the work ahead; write nothing."),
    LINK_OPTIONS,
    {.name = "client-id",
     .argument = "N",
     .type = OPTION_INT,
     .min = 1,
     .max = 65536,
     .help = "With --mode federated_edge: which edge or client this is, from 1."},
    JSON_RESULT_OPTION("summary.json"),
    {0},
};

static const struct operand_spec operands[] = {
    TASK_OPERAND,
    {0},
};

static const char *const examples[] = {
    "fedstill run tasks/mnist",
    "Runs the stages that are not up to date, and ends with a table of the models.",
    "fedstill run tasks/mnist --set stages.federated_train.rounds=20",
    "Other settings: the stages that depend on them run again, and what they left before is kept.",
    "fedstill run tasks/mnist --set seed=7 --output seed-7",
    "Another seed, in an output of its own.",
    "mpirun -n 4 fedstill run tasks/mnist",
    "Four processes play the clients, here or on several machines.",
    NULL,
};

static fst_status dry_run(fst_task *task, const fst_task_options *o, fst_error *err)
{
    fst_buf out = {0};
    if (isatty(STDERR_FILENO)) /* large data and networks take seconds */
        fputs("reading the data and building the networks ...", stderr);
    fst_status s = fst_task_dry_run(task, o, &out, err);
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    if (!s)
        fwrite(out.data, 1, out.len, stdout);
    fst_buf_release(&out);
    return s;
}

/* ---- the old names of fedstill cloud and fedstill edge ---- */

static fst_status run_server(fst_task *task, const struct options *o, const fst_task_options *to, fst_error *err)
{
    struct fleet_link link;
    fst_fleet_options f = {.task = *to};
    fst_status s = fleet_link_of(&link, o, "cloud", err);
    f.task.mode = NULL;
    f.link = link.link;
    if (!s)
        s = fst_fleet_cloud(task, &f, err);
    fleet_link_release(&link);
    return s ? s : task_print_result(task, option_flag(o, "json"), err);
}

static fst_status run_edge(fst_task *task, const struct options *o, const fst_task_options *to, fst_error *err)
{
    struct fleet_link link = {.loaded = false};
    fst_fleet_options f = {.task = *to};
    const char *noun;
    char id[64] = "";
    uint32_t count;
    if (!option_given(o, "client-id"))
        return fst_fail(err, FST_E_CONFIG, "--mode federated_edge needs --client-id N");
    fst_status s = fst_task_clients(task, &count, &noun, err);
    if (!s) {
        snprintf(id, sizeof id, "%s-%lld", noun, (long long)option_int(o, "client-id"));
        s = fleet_link_of(&link, o, id, err);
    }
    f.link = link.link;
    if (!s)
        s = fst_fleet_site_run(task, id, &f, err);
    fleet_link_release(&link);
    return s;
}

/* What is run, by the mode's name. */
static fst_status run_task(fst_task *task, const struct options *o, const fst_task_options *to, fst_error *err)
{
    const char *mode = to->mode ? to->mode : "";
    bool server = !strcmp(mode, "federated_server"), edge = !strcmp(mode, "federated_edge");
    if (!server && !edge &&
        (option_given(o, "connect") || option_given(o, "credentials") || option_flag(o, "plain-text")))
        return fst_fail(err, FST_E_CONFIG,
                        "--connect, --credentials and --plain-text have no effect without --mode federated_server or "
                        "federated_edge (fedstill cloud, fedstill edge)");
    if (!edge && option_given(o, "client-id"))
        return fst_fail(err, FST_E_CONFIG, "--client-id has no effect without --mode federated_edge");
    if ((server || edge) && to->ranks)
        return fst_fail(err, FST_E_CONFIG, "--mode %s is one process of a fleet: not under mpirun", mode);
    if (to->ranks && option_given(o, "workers"))
        return fst_fail(err, FST_E_CONFIG, "--workers has no effect under mpirun, whose %d ranks are the workers",
                        fst_ranks_count(to->ranks));
    if ((server || edge) && (to->until || to->beside))
        return fst_fail(err, FST_E_CONFIG, "--until and --beside have no effect with --mode %s", mode);
    if (server)
        return run_server(task, o, to, err);
    if (edge)
        return run_edge(task, o, to, err);
    fst_status s = fst_task_run(task, to, err);
    if (s == FST_E_CANCELLED && to->paused && *to->paused) {
        if (!option_flag(o, "quiet"))
            fprintf(stderr, "%s; without --until the run goes on\n", err->message);
        return FST_OK;
    }
    return s ? s : task_print_result(task, option_flag(o, "json"), err);
}

/* "STAGE" or "STAGE=N" of --until; *stage is new memory. */
static fst_status until_of(const struct options *o, char **stage, fst_task_options *to, fst_error *err)
{
    const char *text = option_string(o, "until"), *equals = text ? strrchr(text, '=') : NULL;
    char *end = NULL;
    if (!text)
        return FST_OK;
    long long n = equals && equals[1] >= '0' && equals[1] <= '9' ? strtoll(equals + 1, &end, 10) : 0;
    if (!*text || equals == text || (equals && (n < 1 || n > 1000000000 || *end)))
        return fst_fail(err, FST_E_CONFIG, "--until %s: expected STAGE or STAGE=N, for instance federated_train=5",
                        text);
    *stage = fst_strdup(text);
    if (!*stage)
        return fst_fail_memory(err, strlen(text));
    if (equals)
        (*stage)[equals - text] = 0;
    to->until = *stage;
    to->until_count = n;
    return FST_OK;
}

/* The task of this process, which is the only one, or number 0 of mpirun's. */
static fst_status run_here(const struct options *o, fst_task_options *to, fst_error *err)
{
    fst_task *task = NULL;
    char *until = NULL;
    if (option_given(o, "mode") && option_given(o, "stage"))
        return fst_fail(err, FST_E_CONFIG, "--mode and --stage say different things: give one of them");
    fst_status s = until_of(o, &until, to, err);
    if (!s)
        s = task_load(&task, o, err);
    if (!s && option_flag(o, "dry-run")) {
        s = dry_run(task, to, err);
    } else if (!s) {
        signals_stop_by(&task_stop);
        s = run_task(task, o, to, err);
        if (s == FST_E_CANCELLED)
            s = task_say_how_to_go_on(err);
    }
    fst_task_free(task);
    fst_free(until);
    return s;
}

/* Another process of mpirun, which says nothing: number 0 does, also of what keeps this one from taking part. */
static fst_status play_for_first(const struct options *o, fst_task_options *to, fst_error *err)
{
    fst_task *task = NULL;
    fst_error why = {0};
    fst_log_set(NULL, NULL);
    signals_stop_by(&task_stop);
    fst_status s = task_load(&task, o, &why);
    why.status = s;
    s = fst_task_rank_serve(to->ranks, task, to, s ? &why : NULL, err);
    fst_task_free(task);
    return s;
}

static bool stopped(void *ctx)
{
    (void)ctx;
    return atomic_load(&task_stop);
}

static fst_status run(const struct options *o, fst_error *err)
{
    bool quiet = option_flag(o, "quiet"), paused = false;
    fst_task_options to = {.mode = option_given(o, "mode") ? option_string(o, "mode") : NULL,
                           .stage = option_string(o, "stage"),
                           .workers = (int)option_int(o, "workers"),
                           .threads = (int)option_int(o, "threads"),
                           .backend = option_string(o, "backend"),
                           .fresh = option_flag(o, "fresh"),
                           .no_reuse = option_flag(o, "no-reuse"),
                           .beside = option_string(o, "beside"),
                           .paused = &paused,
                           .observer = task_observer(&quiet),
                           .stop = &task_stop};
    fst_status s = fst_ranks_open(&to.ranks, stopped, NULL, err);
    if (s)
        return s;
    bool first = !to.ranks || fst_ranks_own(to.ranks) == 0;
    s = first ? run_here(o, &to, err) : play_for_first(o, &to, err);
    if (first)
        fst_task_ranks_end(to.ranks);
    fst_ranks_close(to.ranks, s != FST_E_CANCELLED && !atomic_load(&task_stop));
    return first || s != FST_E_CANCELLED ? s : FST_OK;
}

const struct command cmd_run = {
    .name = "run",
    .summary = "Run a task: pretrain, soften, distil, federate",
    .description =
        "Runs the stages of a task that are not up to date and goes on where an earlier run stopped, even when that "
        "was killed. A stage is up to date when its settings, its data and the artifacts that it reads have the "
        "digests that its record names.\n\nStages that run again with other settings do not overwrite what they left "
        "before: "
        "that is moved to kept/ in the output folder, and moved back when its settings come back. A stage that was "
        "finished with the same inputs in another output is copied from there.\n\nThe result is the same bit for bit "
        "for any number of workers and however "
        "often the run was interrupted.\n\nUnder mpirun the clients of federated stages are played by all ranks, with "
        "the same result; all must see the task, its data and its output.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

/* fedstill cloud: a task whose federated stages are played by sites over a network. */
#include <string.h>

#include "fleet_link.h"
#include "task_run.h"

static const struct option_spec options[] = {
    FLEET_MODE_OPTION,
    {.name = "no-devices",
     .type = OPTION_FLAG,
     .help = "Run the stage cloud_infer in this process, with the task's samples, and not with devices."},
    LINK_OPTIONS,
    {.name = "join-deadline",
     .argument = "S",
     .type = OPTION_DOUBLE,
     .low = 1,
     .high = 1e7,
     .fallback = "600",
     .help = "Seconds until all sites of a stage must have joined; then the run fails."},
    {.name = "deadline",
     .argument = "S",
     .type = OPTION_DOUBLE,
     .low = 1,
     .high = 1e7,
     .fallback = "600",
     .help = "Seconds of a round; what is missing then is waited for three times more, and the run fails."},
    HTTP_OPTIONS,
    SET_OPTION,
    THREADS_OPTION("Threads of central training and evaluation (default: the CPUs)."),
    BACKEND_OPTION,
    OUTPUT_OPTION("Folder for what the run leaves, instead of the task's own."),
    {.name = "fresh",
     .type = OPTION_FLAG,
     .help = "Begin another run, whatever is there; sites that are in the middle of the old one are refused."},
    NO_REUSE_OPTION(TRAIN_ALL_HERE),
    JSON_RESULT_OPTION("summary.json"),
    {0},
};

static const struct operand_spec operands[] = {
    TASK_OPERAND,
    {0},
};

static const char *const examples[] = {
    "fedstill cloud tasks/mnist --credentials keys",
    "Runs the task's stages; the rounds wait for edge-1, edge-2 ... to join at the broker.",
    NULL,
};

static fst_status run(const struct options *o, fst_error *err)
{
    bool quiet = option_flag(o, "quiet");
    fst_task *task = NULL;
    fst_fleet_options f = {
        .task = {.mode = option_string(o, "mode"),
                 .threads = (int)option_int(o, "threads"),
                 .backend = option_string(o, "backend"),
                 .fresh = option_flag(o, "fresh"),
                 .no_reuse = option_flag(o, "no-reuse"),
                 .observer = task_observer(&quiet),
                 .stop = &task_stop},
        .no_devices = option_flag(o, "no-devices"),
        .limits = {.join_deadline = option_double(o, "join-deadline"), .deadline = option_double(o, "deadline")}};
    struct fleet_link link;
    fst_status s = fleet_link_of(&link, o, "cloud", err);
    f.link = link.link;
    if (!s)
        s = fleet_http_of(&f.http, o, link.loaded ? option_string(o, "credentials") : NULL, err);
    if (!s)
        s = task_load(&task, o, err);
    if (!s) {
        signals_stop_by(&task_stop);
        s = fst_fleet_cloud(task, &f, err);
        if (!s)
            s = task_print_result(task, option_flag(o, "json"), err);
        else if (s == FST_E_CANCELLED)
            s = task_say_how_to_go_on(err);
    }
    fst_task_free(task);
    fleet_link_release(&link);
    return s;
}

const struct command cmd_cloud = {
    .name = "cloud",
    .summary = "Run a task as the server of a fleet",
    .description =
        "Runs a task as fedstill run does, but its federated stages are played by sites (fedstill edge), which are "
        "other "
        "processes, on other hosts, with samples of their own. All meet at an MQTT broker. When every site takes part, "
        "the "
        "models are those of fedstill run, bit for bit.\n\nThis process, the sites and the broker may be killed at any "
        "moment and started again: the run goes on. A site that was heard of nothing for 13 seconds is lost until it "
        "is back.\n\nWith --mode full_pipeline the windows of the stage cloud_infer come from devices (fedstill "
        "device).",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

/* fedstill device: a device of a fleet. */
#include "fleet_link.h"
#include "task_run.h"

static const struct option_spec options[] = {
    {.name = "id",
     .letter = 'i',
     .argument = "ID",
     .type = OPTION_STRING,
     .help = "Who this is: device-1, device-2 ..."},
    LINK_OPTIONS,
    SET_OPTION,
    OUTPUT_OPTION("Folder for made signals, instead of the task's own."),
    {0},
};

static const struct operand_spec operands[] = {
    {"TASK", 1, 1, "The task that cloud and edges run: a folder with task.yaml, or a task file."},
    {0},
};

static const char *const examples[] = {
    "fedstill device tasks/link11-demo --id device-1 --credentials keys",
    "Sends its windows to its edge, notes what they are answered, and ends when the edge lets it go.",
    NULL,
};

static fst_status run(const struct options *o, fst_error *err)
{
    const char *id = option_string(o, "id");
    fst_task *task = NULL;
    fst_fleet_options f = {.task = {.threads = 1, .stop = &task_stop}};
    if (!id)
        return fst_fail(err, FST_E_CONFIG, "--id ID is needed: device-1, device-2 ...");
    struct fleet_link link;
    fst_status s = fleet_link_of(&link, o, id, err);
    f.link = link.link;
    if (!s)
        s = task_load(&task, o, err);
    if (!s) {
        signals_stop_by(&task_stop);
        s = fst_fleet_device(task, id, &f, err);
    }
    fst_task_free(task);
    fleet_link_release(&link);
    return s;
}

const struct command cmd_device = {
    .name = "device",
    .summary = "Have a device's samples classified by its edge",
    .description = "Opens a task, takes the share of one device of the stage device_load, and sends it to its edge "
                   "(fedstill edge) in "
                   "the stage cloud_infer, at the pace that the edge allows. Unanswered windows are sent again. The "
                   "cloud's report has "
                   "what they were answered, and how long that took by this device's clock.\n\nIt may be killed at any "
                   "moment: started "
                   "again, it asks everything again.",
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

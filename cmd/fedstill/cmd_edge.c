/* fedstill edge: a site of a fleet. */
#include "fleet_link.h"
#include "task_run.h"

#ifdef FEDSTILL_EDGE_ONLY /* it goes without libmicrohttpd */
#define NO_PAGE "\n\nThis program has no web page and no metrics: those are fedstill edge --http."
#else
#define NO_PAGE ""
#endif

static const struct option_spec options[] = {
    {.name = "id", .letter = 'i', .argument = "ID", .type = OPTION_STRING, .help = "Who this is: edge-1, edge-2 ..."},
    LINK_OPTIONS,
    {.name = "local",
     .argument = "URL",
     .type = OPTION_STRING,
     .help = "The broker of its devices, where it is not what ID.fleet says (in plain text: that of --connect)."},
#ifndef FEDSTILL_EDGE_ONLY
    HTTP_OPTIONS,
#endif
    SET_OPTION,
    BACKEND_OPTION,
    OUTPUT_OPTION("Folder for this site's files, instead of the task's own."),
    {0},
};

static const struct operand_spec operands[] = {
    {"TASK", 1, 1, "The task that the cloud runs: a folder with task.yaml, or a task file."},
    {0},
};

static const char *const examples[] = {
    "fedstill edge tasks/mnist --id edge-1 --credentials keys",
    "Joins the fleet, trains when it is asked to, and ends when the cloud lets it go.",
    NULL,
};

static fst_status run(const struct options *o, fst_error *err)
{
    const char *id = option_string(o, "id");
    fst_task *task = NULL;
    fst_fleet_options f = {.task = {.threads = 1, .backend = option_string(o, "backend"), .stop = &task_stop}};
    if (!id)
        return fst_fail(err, FST_E_CONFIG, "--id ID is needed: edge-1, edge-2 ... (client-1 ... without a topology)");
    struct fleet_link link;
    fst_status s = fleet_link_of(&link, o, id, err);
    f.link = link.link;
    if (!s)
        s = fleet_link_local(&link, o, &f.local, err);
#ifndef FEDSTILL_EDGE_ONLY
    if (!s)
        s = fleet_http_of(&f.http, o, NULL, err);
#endif
    if (!s)
        s = task_load(&task, o, err);
    if (!s) {
        signals_stop_by(&task_stop);
        s = fst_fleet_site_run(task, id, &f, err);
        if (s == FST_E_CANCELLED)
            s = task_say_how_to_go_on(err);
    }
    fst_task_free(task);
    fleet_link_release(&link);
    return s;
}

const struct command cmd_edge = {
    .name = "edge",
    .summary = "Take part in a fleet with a site's own samples",
    .description =
        "Opens a task, takes the samples of one site (its own files alone, where data.edge_paths names "
        "them; otherwise its "
        "share of all), and joins the fleet whose cloud runs that task (fedstill cloud). It "
        "trains its rounds on its own samples, which never leave it; what the strategy sends is said in "
        "docs/strategies.md. "
        "It may be killed at any moment: started again, it goes on where it was.\n\nIn the stage cloud_infer it "
        "classifies what its devices (fedstill device) send it, over a broker of its own, and asks the cloud "
        "about what it is not sure of." NO_PAGE,
    .options = options,
    .operands = operands,
    .examples = examples,
    .run = run,
};

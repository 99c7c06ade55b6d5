/* The samples of a task as a run of it deals them, for commands that measure on some of them. */
#include <string.h>

#include "task_run.h"

/* "edge 1" as people write it in a command: edge-1 */
static bool is_place(const char *name, const char *wanted)
{
    size_t n = strlen(name);
    for (size_t i = 0; i <= n; i++)
        if (name[i] != wanted[i] && !(name[i] == ' ' && wanted[i] == '-'))
            return false;
    return true;
}

fst_status task_parts(fst_task_data *data, bool val, const char *place, fst_source_part parts[TASK_PLACES], size_t *n,
                      fst_error *err)
{
    bool found = false;
    size_t samples = 0;
    fst_task_place p;
    *n = 0;
    for (size_t i = 0; i < TASK_PLACES && fst_task_data_place(data, i, &p); i++) {
        if (place && !is_place(p.name, place))
            continue;
        found = true;
        size_t count = val ? p.validate : p.learn;
        if (count)
            parts[(*n)++] = (fst_source_part){fst_task_data_train(data), p.index + (val ? p.learn : 0), count};
        samples += count;
    }
    if (!found)
        return fst_fail(err, FST_E_CONFIG, "--place: the task has no place \"%s\"%s", place,
                        fst_task_data_place(data, 1, &p) ? "; there are cloud, edge-1 ..." : ": it has no topology");
    if (!samples)
        return fst_fail(err, FST_E_CONFIG, "the task keeps no samples for %s%s%s", val ? "validation" : "training",
                        place ? " at " : "", place ? place : "");
    return FST_OK;
}

fst_status task_limit(fst_source **out, const fst_source *all, size_t limit, fst_error *err)
{
    uint32_t *picks = fst_calloc(limit + 1, sizeof *picks);
    fst_source_part part = {all, picks, limit};
    fst_status s = picks ? fst_stratified_pick(all->labels, all->count, limit, picks, err)
                         : fst_fail_memory(err, limit * sizeof *picks);
    if (!s)
        s = fst_source_compose(out, all->name, &part, 1, err);
    fst_free(picks);
    return s;
}

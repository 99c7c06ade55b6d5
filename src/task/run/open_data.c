/* A run's samples for others to look at: opened and dealt as the stages do it, with nothing written. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "session.h"

struct fst_task_data {
    struct fst_task task; /* the caller's, with folders of its own; nothing else here belongs to it */
    fst_task_options options;
    struct session session;
    char name[32];
};

/* At a fleet's cloud the edges' own files are not there; the rest can be looked at all the same. */
static bool lacks_edges(const fst_task *t, const char *folder)
{
    bool all = true;
    for (size_t k = 0; all && k < t->file.data.edge_path_count; k++) {
        char *path = fst_path_join(folder, t->file.data.edge_paths[k]);
        all = !path || !access(path, F_OK);
        fst_free(path);
    }
    return !all;
}

fst_status fst_task_data_open(fst_task_data **out, const fst_task *t, const char *folder, const char *output,
                              fst_error *err)
{
    fst_task_data *d = fst_calloc(1, sizeof *d);
    if (!d)
        return fst_fail_memory(err, sizeof *d);
    d->task = *t;
    d->task.folder = fst_strdup(folder ? folder : t->folder);
    d->task.output = fst_strdup(output ? output : t->output);
    d->session.task = &d->task;
    d->session.options = &d->options;
    d->session.dry = true;
    d->session.machine.threads = fst_cpu_count();
    d->session.place = lacks_edges(t, folder ? folder : t->folder) ? FST__ONLY_CLOUD : FST__ALL_PLACES;
    fst_status st =
        d->task.folder && d->task.output ? fst__session_open_data(&d->session, err) : fst_fail_memory(err, 256);
    if (st)
        fst_task_data_free(d);
    else
        *out = d;
    return st;
}

void fst_task_data_free(fst_task_data *d)
{
    if (!d)
        return;
    fst__session_close(&d->session);
    fst_free(d->task.folder);
    fst_free(d->task.output);
    fst_free(d);
}

const fst_source *fst_task_data_train(const fst_task_data *d)
{
    return d->session.data.train;
}

const fst_source *fst_task_data_test(const fst_task_data *d)
{
    return d->session.data.test;
}

bool fst_task_data_place(fst_task_data *d, size_t i, fst_task_place *out)
{
    const struct session *s = &d->session;
    if (i > s->data.edges)
        return false;
    if (i == 0)
        *out = (fst_task_place){s->data.edges ? "cloud" : "training", s->data.cloud.index, s->data.cloud.learn,
                                s->data.cloud.validate};
    else
        *out = (fst_task_place){d->name, s->data.edge[i - 1].index, s->data.edge[i - 1].learn,
                                s->data.edge[i - 1].validate};
    snprintf(d->name, sizeof d->name, "edge %zu", i);
    return true;
}

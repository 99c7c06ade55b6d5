/* A device's windows: its share of the test samples, dealt out as the stage device_load does it. */
#include <stdio.h>
#include <string.h>

#include "cascade_fleet.h"

struct fst_task_device {
    struct session session;
    struct batches batches;
    size_t first; /* of its windows among the batches */
    fst_task_device_info info;
};

/* The stage of this kind; NULL: none. */
static const struct stage *stage_of_kind(const fst_task *t, const char *kind)
{
    for (size_t i = 0; i < t->stages.count; i++)
        if (!strcmp(t->stages.stage[i].kind->name, kind))
            return &t->stages.stage[i];
    return NULL;
}

/* The stages that ask devices, each in modes of its own; a run plays one of them. */
static const char *const asking[] = {"cloud_infer", "cloud_direct_infer", "edge_infer"};
enum { ASKING = sizeof asking / sizeof *asking };

/* The first of them. All deal out the same windows, or the edges refuse the devices. */
static const struct stage *asking_stage(const fst_task *t)
{
    const struct stage *found = NULL;
    for (int i = 0; !found && i < ASKING; i++)
        found = stage_of_kind(t, asking[i]);
    return found;
}

bool fst_task_is_cascade(const fst_task *t, const char *stage)
{
    for (size_t i = 0; i < t->stages.count; i++)
        for (int k = 0; k < ASKING; k++)
            if (!strcmp(t->stages.stage[i].name, stage) && !strcmp(t->stages.stage[i].kind->name, asking[k]))
                return true;
    return false;
}

fst_status fst_task_devices(const fst_task *t, uint32_t *devices, uint32_t **edge_of, fst_error *err)
{
    const struct topology_section *p = &t->file.topology;
    bool asked = t->file.has_topology && asking_stage(t);
    *devices = asked ? (uint32_t)p->devices : 0;
    if (!edge_of)
        return FST_OK;
    *edge_of = fst_calloc(*devices + 1, sizeof **edge_of);
    if (!*edge_of)
        return fst_fail_memory(err, *devices * sizeof **edge_of);
    for (uint32_t d = 0; d < *devices; d++)
        (*edge_of)[d] = (uint32_t)fst__edge_of_device(p, d);
    return FST_OK;
}

static fst_status find_windows(fst_task_device *d, fst_error *err)
{
    struct session *s = &d->session;
    const struct stage *asks = asking_stage(s->task);
    const struct stage *deals = asks ? fst__stage_read(asks, "devices", 0) : NULL;
    if (!deals)
        return fst_fail(err, FST_E_CONFIG,
                        "%s has no stages that ask devices (device_load, edge_infer, cloud_infer; cloud_direct_infer)",
                        s->task->path);
    const struct device_load_section *how = deals->settings;
    uint32_t devices = 0;
    fst_status st = fst_task_devices(s->task, &devices, NULL, err);
    if (!st && d->info.device >= devices)
        st = fst_fail(err, FST_E_CONFIG, "there is no device-%u: the task has device-1 to device-%u",
                      (unsigned)d->info.device + 1, (unsigned)devices);
    if (!st)
        st = fst__deal(s, fst__step_of(s, deals), &d->batches, devices, err);
    if (st)
        return st;
    while (d->first < d->batches.count && d->batches.device[d->first] < d->info.device)
        d->first++;
    while (d->first + d->info.windows < d->batches.count &&
           d->batches.device[d->first + d->info.windows] == d->info.device)
        d->info.windows++;
    d->info.edge = (uint32_t)fst__edge_of_device(&s->task->file.topology, d->info.device);
    d->info.batch = (size_t)how->batch_size;
    d->info.interval = how->interval;
    d->info.dtype = s->data.test->dtype;
    d->info.shape = s->data.test->shape;
    d->info.bytes = fst_source_sample_bytes(s->data.test);
    return fst_task_site_digest(s->task, d->info.task, err);
}

fst_status fst_task_device_open(fst_task_device **out, fst_task *t, const fst_task_options *o, uint32_t device,
                                fst_error *err)
{
    fst_task_device *d = fst_calloc(1, sizeof *d);
    if (!d)
        return fst_fail_memory(err, sizeof *d);
    d->info.device = device;
    d->session.place = fst_task_has_places(t) ? FST__ONLY_CLOUD : FST__ALL_PLACES; /* the test samples are there */
    fst_status st = fst__session_init(&d->session, t, o, err);
    if (!st && !t->file.has_topology)
        st = fst_fail(err, FST_E_CONFIG, "%s has no topology, and so no devices", t->path);
    if (!st)
        st = fst_make_folders(t->output, err);
    if (!st)
        st = fst__session_open_data(&d->session, err);
    if (!st)
        st = find_windows(d, err);
    if (st)
        fst_task_device_close(d);
    else
        *out = d;
    return st;
}

void fst_task_device_close(fst_task_device *d)
{
    if (!d)
        return;
    fst__batches_release(&d->batches);
    fst__session_close(&d->session);
    fst_free(d);
}

const fst_task_device_info *fst_task_device_look(const fst_task_device *d)
{
    return &d->info;
}

fst_status fst_task_device_window(const fst_task_device *d, size_t i, void *out, fst_error *err)
{
    const fst_source *s = d->session.data.test;
    if (i >= d->info.windows)
        return fst_fail(err, FST_E_ARGUMENT, "window %zu of %zu", i, d->info.windows);
    return s->v->get(s, d->batches.index[d->first + i], out, err);
}

/*
 * cloud_infer, cloud_direct_infer and, where nobody asks the cloud, edge_infer with devices and edges in other
 * processes.
 *
 * Data flow: the student's file, temperature and threshold become a message that all edges are sent; the stage is one
 * round of the federation's engine, with a "strategy" that folds what the edges report: the answers of their devices,
 * with the devices' own times. Meanwhile the fleet gives the teacher what the edges are not sure of
 * (fst_task_options.teacher). Orders, transfers, restarts and deadlines are those of any round. In cloud_direct_infer
 * edges get no student, and pass everything on.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cascade_fleet.h"
#include "fedstill/fed.h"

struct elsewhere {
    struct session *s;
    const struct step *own;
    fst_buf model;
    double settings[FST__BUNDLE_SETTINGS];
    uint32_t devices, edges;
    uint32_t *edge_of, *windows;
    size_t *begin; /* [devices + 1]: a device's windows among the batches */
    fst_shape shape;
    int classes;
    int64_t relay; /* 0, or the number of classes: edges pass everything on */
    fst_cascade_answers *all;
};

struct cascade_strategy {
    fst_strategy base;
    struct elsewhere *e;
};

/* ---- the round ----------------------------------------------------------------------------------------- */

static fst_status init(fst_strategy *s, fst_error *err)
{
    (void)s;
    (void)err;
    return FST_OK;
}

static void release(fst_strategy *s)
{
    (void)s;
}

static void begin(fst_strategy *s, uint64_t round)
{
    (void)s;
    (void)round;
}

static fst_status down(const fst_strategy *s, uint32_t client, fst_message *m, fst_error *err)
{
    const struct elsewhere *e = ((const struct cascade_strategy *)s)->e;
    (void)client;
    fst_message_name(m, FST_CASCADE_BUNDLE);
    fst_status st = e->relay
                        ? fst_message_add(m, "classes", FST_I64, FST_SHAPE(1), &e->relay, err)
                        : fst_message_add(m, "model", FST_U8, FST_SHAPE((int64_t)e->model.len), e->model.data, err);
    if (!st)
        st = fst_message_add(m, "settings", FST_F64, FST_SHAPE(FST__BUNDLE_SETTINGS), e->settings, err);
    if (!st)
        st = fst_message_add(m, "shape", FST_I64, FST_SHAPE(e->shape.rank), e->shape.dim, err);
    if (!st)
        st = fst_message_add(m, "edge_of", FST_U32, FST_SHAPE(e->devices), e->edge_of, err);
    return st ? st : fst_message_add(m, "windows", FST_U32, FST_SHAPE(e->devices), e->windows, err);
}

/* The devices of an edge stand side by side. */
static fst_status fold(fst_strategy *s, const fst_message *m, fst_error *err)
{
    struct elsewhere *e = ((struct cascade_strategy *)s)->e;
    uint32_t first = 0, n = 0;
    while (first < e->devices && e->edge_of[first] < m->client)
        first++;
    while (first + n < e->devices && e->edge_of[first + n] == m->client)
        n++;
    return fst_cascade_answers_read(e->all, e->begin[first], first, e->begin[first + n] - e->begin[first], n,
                                    e->classes, m, err);
}

static fst_status aggregate(fst_strategy *s, const fst_work *work, fst_aggregate_stats *stats, fst_error *err)
{
    (void)s;
    (void)work;
    (void)stats;
    (void)err;
    return FST_OK;
}

static fst_status no_work(fst_client_half *c, const fst_message *down_, fst_message *up, fst_error *err)
{
    (void)c;
    (void)down_;
    (void)up;
    return fst_fail(err, FST_E_UNSUPPORTED, "devices are answered by processes of a fleet");
}

static const fst_server_ops server_half = {.bytes = sizeof(struct cascade_strategy),
                                           .init = init,
                                           .release = release,
                                           .begin = begin,
                                           .down = down,
                                           .fold = fold,
                                           .aggregate = aggregate};
static const fst_client_ops client_half = {.work = no_work};
static const fst_strategy_ops strategy = {.name = "cascade",
                                          .summary = "edges answer their devices",
                                          .leaks = "",
                                          .server = &server_half,
                                          .client = &client_half};

static fst_status play(struct elsewhere *e, fst_error *err)
{
    const struct session *s = e->s;
    const fst_server_env env = {.seed = (uint64_t)s->task->file.seed, .clients = e->edges, .classes = e->classes};
    fst_strategy *half = NULL;
    fst_status st = fst_strategy_new(&half, &strategy, NULL, 0, &env, err);
    if (st)
        return st;
    ((struct cascade_strategy *)half)->e = e;
    const fst_simulate_spec spec = {.seed = (uint64_t)s->task->file.seed,
                                    .clients = e->edges,
                                    .rounds = 1,
                                    .cohort = e->edges,
                                    .quorum = e->edges,
                                    .workers = 1,
                                    .noun = "edge",
                                    .strategy = half};
    st = s->options->rounds(s->options->rounds_ctx, e->own->stage->name, &spec, err);
    fst_strategy_free(half);
    return st;
}

/* ---- what is sent -------------------------------------------------------------------------------------- */

static bool is_edge_stage(const struct elsewhere *e)
{
    return e->own->stage->kind->leaves == FST__LEAVES_ANSWERS;
}

static fst_status read_student(struct elsewhere *e, fst_error *err)
{
    const struct session *s = e->s;
    const char *key = is_edge_stage(e) ? "model" : FST__STUDENT;
    const struct step *maker = fst__step_read(s, e->own, key, 0);
    if (maker)
        return fst__read_artifact(s, maker, maker->record.artifact, &e->model, err);
    char *path = fst_path_join(s->task->folder, fst__stage_file(e->own->stage, key, 0));
    fst_status st = path ? fst__read_whole(path, NULL, &e->model, NULL, err) : fst_fail_memory(err, 256);
    fst_free(path);
    return st;
}

static fst_status share_windows(struct elsewhere *e, const struct batches *b, fst_error *err)
{
    struct topology_section t;
    fst_status st = fst__tiers(&e->s->task->file, &t, err);
    if (st)
        return st;
    e->devices = (uint32_t)t.devices;
    e->edges = (uint32_t)t.edges;
    e->edge_of = fst_calloc(e->devices, sizeof *e->edge_of);
    e->windows = fst_calloc(e->devices, sizeof *e->windows);
    e->begin = fst_calloc(e->devices + 1, sizeof *e->begin);
    if (!e->edge_of || !e->windows || !e->begin)
        return fst_fail_memory(err, e->devices * sizeof *e->begin);
    for (size_t i = 0; i < b->count; i++)
        e->windows[b->device[i]]++;
    for (uint32_t d = 0; d < e->devices; d++) {
        e->edge_of[d] = (uint32_t)fst__edge_of_device(&t, d);
        e->begin[d + 1] = e->begin[d] + e->windows[d];
    }
    return FST_OK;
}

static fst_tier_spec tier_of(const struct session *s, size_t batch, int threads)
{
    return (fst_tier_spec){.dtype = s->data.test->dtype,
                           .shape = s->data.test->shape,
                           .batch = batch,
                           .threads = threads,
                           .precision = s->machine.precision,
                           .temperature = 1};
}

/* What edges decide with; those that pass everything on wait for the cloud as long as it takes. */
static void set_tier(struct elsewhere *e, const struct edge_result *edge)
{
    if (!edge) {
        const struct cloud_infer_section *c = e->own->stage->settings;
        const fst_tier_spec none = tier_of(e->s, (size_t)c->batch_size, 1);
        fst__bundle_settings(&none, 0, e->settings);
        e->relay = e->classes;
        return;
    }
    const struct edge_infer_section *at =
        is_edge_stage(e) ? e->own->stage->settings : fst__stage_read(e->own->stage, "edge", 0)->settings;
    fst_tier_spec student = tier_of(e->s, (size_t)at->batch_size, (int)at->threads);
    student.kind = edge->kind;
    student.temperature = edge->temperature;
    student.threshold = is_edge_stage(e) ? 0 : edge->choice.value; /* 0: whatever it says it is sure of */
    fst__bundle_settings(&student, at->ask_timeout, e->settings);
}

static fst_status prepare(struct elsewhere *e, const struct batches *b, const struct edge_result *edge, fst_error *err)
{
    const struct session *s = e->s;
    e->shape = s->data.test->shape;
    e->classes = s->data.train->classes;
    set_tier(e, edge);
    if (e->classes >= UINT16_MAX)
        return fst_fail(err, FST_E_UNSUPPORTED, "%s: devices are answered with classes up to %d, the data have %d",
                        e->own->stage->name, UINT16_MAX - 2, e->classes);
    fst_status st = share_windows(e, b, err);
    return st || !edge ? st : read_student(e, err);
}

/* ---- figures ------------------------------------------------------------------------------------------- */

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double rank(const double *sorted, size_t n, double p)
{
    size_t r = (size_t)ceil(p * (double)n - 1e-9);
    return n ? sorted[r ? r - 1 : 0] : NAN;
}

static fst_status take_figures(struct fleet_answers *f, fst_error *err)
{
    const fst_cascade_answers *a = &f->all;
    fst_cascade_fleet *g = &f->figures;
    double n = (double)a->windows;
    double *sorted = fst_alloc((a->windows + 1) * sizeof *sorted);
    if (!sorted)
        return fst_fail_memory(err, a->windows * sizeof *sorted);
    *g = (fst_cascade_fleet){.windows = a->windows, .devices = a->devices};
    for (size_t i = 0; i < a->windows; i++) {
        sorted[i] = a->total[i];
        g->mean += a->total[i] / n;
        g->queue += a->queue[i] / n;
        g->compute += a->compute[i] / n;
        g->unsure += (a->marks[i] & FST_ANSWER_UNSURE) != 0;
    }
    g->transfer = fmax(g->mean - g->queue - g->compute, 0);
    for (size_t d = 0; d < a->devices; d++) {
        g->seconds = fmax(g->seconds, a->seconds[d]);
        g->asked_again += (uint64_t)a->again[d];
    }
    qsort(sorted, a->windows, sizeof *sorted, rising);
    g->p50 = rank(sorted, a->windows, 0.5);
    g->p95 = rank(sorted, a->windows, 0.95);
    g->p99 = rank(sorted, a->windows, 0.99);
    fst_free(sorted);
    return FST_OK;
}

static fst_status check_answers(const struct elsewhere *e, const struct batches *b, const fst_cascade_answers *a,
                                fst_error *err)
{
    for (size_t i = 0; i < a->windows; i++)
        if (a->marks[i] & FST_ANSWER_REFUSED)
            return fst_fail(err, FST_E_NUMERIC,
                            "%s: window %zu of device %u could not be classified: the model's output is not finite, or "
                            "its shape is another",
                            e->own->stage->name, i - e->begin[b->device[i]], (unsigned)b->device[i] + 1);
    return FST_OK;
}

void fst__fleet_compare(struct fleet_answers *f, const fst_cascade *c, double threshold, const float *cloud,
                        const uint8_t *known)
{
    f->figures.differ = 0;
    for (size_t i = 0; i < f->all.windows; i++) {
        bool sent = c->confidence[i] < threshold;
        int32_t want = c->edge_answer[i];
        if (sent && (!known || known[i]))
            fst_predict(cloud + i * (size_t)c->classes, 1, c->classes, &want);
        else if (sent)
            want = f->all.answer[i];
        f->figures.differ += f->all.answer[i] != want || f->by_cloud[i] != sent || f->all.first[i] != c->edge_answer[i];
    }
}

void fst__fleet_release(struct fleet_answers *f)
{
    fst_cascade_answers_release(&f->all);
    fst_free(f->by_cloud);
    *f = (struct fleet_answers){.by_cloud = NULL};
}

/* ---- the stage ------------------------------------------------------------------------------------------- */

static fst_status make_teacher(const struct elsewhere *e, const struct tier_model *teacher, fst_tier **out,
                               fst_error *err)
{
    const struct session *s = e->s;
    const struct cloud_infer_section *c = e->own->stage->settings;
    fst_tier_spec spec = tier_of(s, (size_t)c->batch_size, c->threads ? (int)c->threads : s->machine.threads);
    spec.backend = s->machine.backend;
    fst_status st = fst_tier_new(out, &teacher->model, &spec, err);
    return st ? st : s->options->teacher(s->options->rounds_ctx, *out, err);
}

static fst_status ask(struct elsewhere *e, const struct batches *b, const struct tier_model *teacher,
                      struct fleet_answers *out, fst_error *err)
{
    struct session *s = e->s;
    const fst_task_options *o = s->options;
    fst_tier *tier = NULL;
    fst_status st = fst_cascade_answers_init(&out->all, b->count, e->devices, err);
    e->all = &out->all;
    if (!st && !(out->by_cloud = fst_calloc(b->count + 1, 1)))
        st = fst_fail_memory(err, b->count);
    if (!st && teacher)
        st = make_teacher(e, teacher, &tier, err);
    if (!st) {
        fst__watch_begin(s, e->own->stage->name, b->count, "windows of devices");
        fst__watch_update(s, 0, NULL);
        st = play(e, err);
        if (!st)
            fst__watch_update(s, b->count, NULL);
        fst__watch_end(s, st ? "stopped" : NULL);
    }
    if (tier)
        (void)!o->teacher(o->rounds_ctx, NULL, NULL);
    fst_tier_free(tier);
    if (!st)
        st = check_answers(e, b, &out->all, err);
    for (size_t i = 0; !st && i < b->count; i++)
        out->by_cloud[i] = out->all.tier[i];
    return st ? st : take_figures(out, err);
}

fst_status fst__fleet_ask(struct session *s, const struct step *own, const struct batches *b,
                          const struct edge_result *edge, const struct tier_model *teacher, struct fleet_answers *out,
                          fst_error *err)
{
    struct elsewhere e = {.s = s, .own = own};
    fst_status st = prepare(&e, b, edge, err);
    if (!st)
        st = ask(&e, b, teacher, out, err);
    if (st)
        fst__fleet_release(out);
    fst_buf_release(&e.model);
    fst_free(e.edge_of);
    fst_free(e.windows);
    fst_free(e.begin);
    return st;
}
